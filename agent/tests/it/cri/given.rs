//! What containers are given besides what they ask for by themselves: devices by their names, and parts of images; and the
//! figures of what they use of it all.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use super::{Cri, INVALID, NOT_FOUND, UNIMPLEMENTED, asked, container, linux};
use crate::deaths::with_node;
use crate::grpc::{
    AllMetrics, CdiDevice, ContainerConfig, Descriptors, Empty, ImageAnswer, Metric, Mount, MountedImage, Number,
    Security,
};

/// A file of a vendor's in the host's own directory, for as long as the test.
struct Vendor {
    path: std::path::PathBuf,
    kind: String,
}

impl Vendor {
    fn with(devices: serde_json::Value) -> Self {
        let kind = format!("coracle-test.example/p{}", std::process::id());
        let directory = std::path::Path::new("/var/run/cdi");
        std::fs::create_dir_all(directory).unwrap();
        let path = directory.join(format!("coracle-test-{}.json", std::process::id()));
        let text =
            json!({"cdiVersion": "0.6.0", "kind": kind, "devices": devices, "containerEdits": {"env": ["ALL=yes"]}});
        std::fs::write(&path, text.to_string()).unwrap();
        Self { path, kind }
    }

    fn asks(&self, device: &str, config: ContainerConfig) -> ContainerConfig {
        let name = format!("{}={device}", self.kind);
        ContainerConfig { cdi_devices: vec![CdiDevice { name }], ..config }
    }
}

impl Drop for Vendor {
    fn drop(&mut self) {
        // Without the directory, if nobody else has a file in it.
        let _ = std::fs::remove_file(&self.path).and_then(|()| std::fs::remove_dir("/var/run/cdi"));
    }
}

#[test]
fn a_device_by_its_name_brings_what_its_file_says() {
    with_node("cri12", |mut node| async move {
        let library = node.path("vendor");
        std::fs::create_dir(&library).unwrap();
        std::fs::write(library.join("lib"), "of the vendor\n").unwrap();
        let vendor = Vendor::with(json!([
            {"name": "0", "containerEdits": {
                "env": ["DEVICE=0"],
                "deviceNodes": [{"path": "/dev/vendor/0", "hostPath": "/dev/full", "fileMode": 0o640, "gid": 9}],
                "mounts": [{"hostPath": library, "containerPath": "/vendor", "options": ["ro", "nosuid", "rbind"]}],
                "additionalGids": [4444]}},
            {"name": "hooked", "containerEdits": {"hooks": [{"hookName": "createContainer", "path": "/bin/true"}]}},
        ]));
        node.start().await;
        let cri = Cri::of(&node);
        let sandbox = cri.run(cri.sandbox("web")).await.unwrap();
        let (code, why) = cri.create(&sandbox, vendor.asks("1", container("a", &["true"]))).await.unwrap_err();
        assert!(code == NOT_FOUND && why == format!("unresolvable CDI devices {}=1", vendor.kind), "{code} {why}");
        let (code, why) = cri.create(&sandbox, vendor.asks("hooked", container("a", &["true"]))).await.unwrap_err();
        assert!(code == UNIMPLEMENTED && why.ends_with("hooks are not supported"), "{code} {why}");
        let mut config = vendor.asks("0", container("a", &["sleep", "1000"]));
        config.linux = linux(Security { user: Some(Number { value: 1234 }), ..Security::default() });
        let id = cri.create(&sandbox, config).await.unwrap();
        cri.start(&id).await.unwrap();
        let script = "echo $ALL $DEVICE; cat /vendor/lib; stat -c '%a %u %g %t:%T' /dev/vendor/0; id -G; \
                      echo x > /dev/vendor/0; touch /vendor/x";
        let (_, said, failed) = cri.exec(&id, &["sh", "-c", script], 10).await.unwrap();
        assert_eq!(said, "yes 0\nof the vendor\n640 1234 9 1:7\n0 4444\n");
        assert!(failed.contains("No space left on device") && failed.contains("Read-only file system"), "{failed}");
        node.kill();
    });
}

#[test]
fn a_part_of_an_image_is_mounted_and_the_status_says_of_which() {
    with_node("cri13", |mut node| async move {
        node.start().await;
        let cri = Cri::of(&node);
        let sandbox = cri.run(cri.sandbox("web")).await.unwrap();
        let with = |sub_path: &str| {
            let image = Some(MountedImage { image: "test/busybox:1".into(), ..MountedImage::default() });
            let (container_path, image_sub_path) = ("/data".to_owned(), sub_path.to_owned());
            let mount = Mount { container_path, readonly: true, image, image_sub_path, ..Mount::default() };
            ContainerConfig { mounts: vec![mount], ..container("a", &["sleep", "1000"]) }
        };
        for missing in ["no/such", "bin/sh/below"] {
            let (code, why) = cri.create(&sandbox, with(missing)).await.unwrap_err();
            assert_eq!((code, why), (INVALID, format!("image_sub_path {missing:?} is not in the image")));
        }
        let id = cri.create(&sandbox, with("bin")).await.unwrap();
        let image: ImageAnswer = cri.image("ImageStatus", &asked("test/busybox:1")).await.unwrap();
        let [mount] = &cri.status(&id).await.unwrap().mounts[..] else { panic!() };
        assert_eq!(mount.image.as_ref().unwrap().image_ref, image.image.unwrap().id);
        cri.start(&id).await.unwrap();
        assert_eq!(
            cri.exec(&id, &["/data/sh", "-c", "test ! -e /data/bin && echo part"], 10).await.unwrap().1,
            "part\n"
        );
        node.kill();
    });
}

#[test]
fn what_sandboxes_and_containers_use_is_told_under_cadvisors_names() {
    with_node("cri14", |mut node| async move {
        node.start().await;
        let cri = Cri::of(&node);
        let sandbox = cri.run(cri.sandbox("web")).await.unwrap();
        let id = cri.create(&sandbox, container("app", &["sleep", "1000"])).await.unwrap();
        let created = cri.create(&sandbox, container("later", &["true"])).await.unwrap();
        cri.start(&id).await.unwrap();
        let described: Descriptors = cri.ask("ListMetricDescriptors", &Empty {}).await.unwrap();
        let described: BTreeMap<String, Vec<String>> =
            described.all.into_iter().map(|one| (one.name, one.labels)).collect();
        let told: AllMetrics = cri.ask("ListPodSandboxMetrics", &Empty {}).await.unwrap();
        let [web] = &told.all[..] else { panic!("{told:?}") };
        let [app] = &web.containers[..] else { panic!("{told:?}") };
        assert_eq!((&web.id, &app.id), (&sandbox, &id));
        assert_ne!(app.id, created);
        let label = |metric: &Metric, wanted: &str| {
            let place = described[&metric.name].iter().position(|label| label == wanted).unwrap();
            metric.labels[place].clone()
        };
        for metric in web.metrics.iter().chain(&app.metrics) {
            assert_eq!(metric.labels.len(), described[&metric.name].len(), "{metric:?}");
            assert_eq!((label(metric, "pod"), label(metric, "namespace")), ("web".into(), "tests".into()));
        }
        let value = |metrics: &[Metric], name: &str| {
            metrics.iter().find(|metric| metric.name == name).and_then(|metric| metric.value.as_ref()).unwrap().value
        };
        assert!(app.metrics.iter().all(|metric| label(metric, "container") == "app" && label(metric, "name") == id));
        assert_eq!(value(&app.metrics, "container_processes"), 1);
        assert_eq!(value(&app.metrics, "container_file_descriptors"), 3);
        assert!(value(&app.metrics, "container_memory_usage_bytes") > 0);
        assert!(value(&app.metrics, "container_start_time_seconds") <= value(&app.metrics, "container_last_seen"));
        assert!(value(&web.metrics, "container_processes") > 1, "the sandbox has its own besides");
        let names = |metrics: &[Metric]| metrics.iter().map(|metric| metric.name.clone()).collect::<BTreeSet<_>>();
        assert!(names(&web.metrics).contains("container_network_receive_bytes_total"));
        assert!(!names(&app.metrics).contains("container_network_receive_bytes_total"));
        let parts: Vec<AllMetrics> = cri.parts("RuntimeService/StreamPodSandboxMetrics", &Empty {}).await;
        assert_eq!((parts.len(), &parts[0].all[0].id), (1, &sandbox));
        node.kill();
    });
}
