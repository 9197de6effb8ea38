//! The agent on the real kernel, against a mock API server: one pod from its binding to its deletion.
//!
//! Everything happens in a network namespace of the test's own, below a temporary directory and a cgroup of its own name.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test that meets what it does not expect fails"
)]

mod api;
mod cri;
mod deaths;
mod grpc;
mod resources;
mod tokens;

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::time::Duration;

use coracle_agent::{Config, Serving, Thresholds};
use coracle_runtime::image::{ImageConfig, ImageStore, ImportSource, Limits, Registries, StoreConfig, Timeouts};
use futures::FutureExt;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use api::Api;

/// An image with busybox and nothing else, put into the store the agent will open.
async fn make_image(data: &Path) {
    let archive = data.join("rootfs.tar");
    let mut tar = tar::Builder::new(std::fs::File::create(&archive).unwrap());
    let busybox = std::fs::read("/usr/bin/busybox").or_else(|_| std::fs::read("/bin/busybox")).unwrap();
    for (name, bytes, mode) in [("bin/busybox", &busybox[..], 0o755), ("etc/passwd", b"root:x:0:0::/:/bin/sh\n", 0o644)]
    {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(mode);
        header.set_cksum();
        tar.append_data(&mut header, name, bytes).unwrap();
    }
    for name in ["bin/sh", "bin/sleep", "bin/cat", "bin/echo"] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        tar.append_link(&mut header, name, "busybox").unwrap();
    }
    tar.finish().unwrap();
    let store = open_images(data).await;
    let config: ImageConfig = serde_json::from_value(json!({"config": {"Env": ["PATH=/bin"]}})).unwrap();
    store.import_rootfs(ImportSource::Path(archive), "test/busybox:1".parse().unwrap(), config).await.unwrap();
}

/// The agent's image store, as another process opens it.
async fn open_images(data: &Path) -> ImageStore {
    let config = StoreConfig {
        root: data.join("images"),
        registries: Registries::default(),
        timeouts: Timeouts::default(),
        limits: Limits::default(),
    };
    ImageStore::open(config).await.unwrap()
}

fn serving() -> Serving {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["n1".into()]).unwrap().self_signed(&key).unwrap();
    Serving { certificate: certificate.pem(), key: key.serialize_pem(), client_ca: certificate.pem() }
}

fn config(dir: &Path, mark: &str) -> Config {
    Config {
        node_name: "n1".into(),
        images_dir: dir.join("data/images"),
        data_dir: dir.join("data"),
        run_dir: dir.join("run"),
        manifest_dir: None,
        listen: "0.0.0.0:0".parse().unwrap(),
        cri_listen: Some(dir.join("cri.sock")),
        node_ip: "127.0.0.1".parse().unwrap(),
        labels: [].into(),
        taints: vec![],
        pod_cidr: Some("10.99.7.0/24".parse().unwrap()),
        cluster_cidr: "10.99.0.0/16".parse().unwrap(),
        cluster_dns: vec![],
        cluster_domain: "cluster.local".into(),
        serving: tokio::sync::watch::channel(serving()).1,
        image_limits: coracle_agent::ImageLimits { high: 100, ..coracle_agent::ImageLimits::USUAL },
        registries: Registries::default(),
        keep_pods: false,
        shutdown_grace: None,
        supervisor: env!("CARGO_BIN_EXE_coracle-agent").into(),
        supervisor_args: vec![coracle_runtime::SUPERVISE.into()],
        cgroup_root: format!("coracle-test-{mark}").into(),
        mark: mark.into(),
        max_pods: 10,
        pod_pids_limit: Some(4096),
        allowed_unsafe_sysctls: vec![],
        reserved: [("cpu".into(), 100), ("memory".into(), 64_000 << 20), ("pid".into(), 100_000)].into(),
        pulls: 1,
        devices: vec![],
        thresholds: Thresholds::none(),
        lease_renewal: coracle_agent::LEASE_RENEWAL,
        mtu: None,
    }
}

/// The thread of a test gets a network of its own; every thread and process begun from here has the same.
fn own_network() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
    assert!(std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
}

/// Runs `test` beside an agent whose API server has these objects; cleans up however it ends.
fn with_agent<F: Future<Output = ()>>(mark: &str, test: impl FnOnce(Api, std::path::PathBuf) -> F) {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("Skipped: containers need root");
        return;
    }
    own_network();
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let config = config(dir.path(), mark);
    let outcome = runtime.block_on(async {
        std::fs::create_dir_all(&config.data_dir).unwrap();
        make_image(&config.data_dir).await;
        let api = Api::default();
        let shutdown = CancellationToken::new();
        // An agent that is asked to restart leaves its pods; the last one stops them.
        let agent = async {
            let kept = Config { keep_pods: true, ..config.clone() };
            let first = CancellationToken::new();
            let one = coracle_agent::run(kept, api.client(), first.clone());
            tokio::pin!(one);
            tokio::select! {
                result = &mut one => return result,
                () = api.restarts.asked.notified() => {}
                () = shutdown.cancelled() => {
                    first.cancel();
                    one.await?;
                    return coracle_agent::run(config.clone(), api.client(), shutdown.clone()).await;
                }
            }
            first.cancel();
            one.await?;
            api.restarts.done.notify_one();
            coracle_agent::run(config.clone(), api.client(), shutdown.clone()).await
        };
        let story = async {
            let limit = Duration::from_secs(60);
            let test = AssertUnwindSafe(test(api.clone(), config.data_dir.clone())).catch_unwind();
            let result = tokio::time::timeout(limit, test).await;
            shutdown.cancel();
            result
        };
        let (agent, story) = tokio::join!(agent, story);
        (
            agent.map_err(|e| format!("{e:?}")),
            match story {
                Ok(Ok(())) => Ok(()),
                Ok(Err(_)) => Err(format!("panicked: {}", api.show())),
                Err(_) => Err(format!("not done in time: {}", api.show())),
            },
        )
    });
    runtime.block_on(purge(&config));
    assert_eq!(outcome, (Ok(()), Ok(())));
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let left: Vec<&str> = mounts.lines().filter(|l| l.contains(dir.path().to_str().unwrap())).collect();
    assert_eq!(left, Vec::<&str>::new(), "mounts are left");
}

/// Removes what is left of sandboxes, as `coracle down --purge` does.
async fn purge(config: &Config) {
    let runtime = coracle_runtime::Runtime::open(coracle_runtime::Config {
        exe: config.supervisor.clone(),
        args: config.supervisor_args.clone(),
        cgroup_root: config.cgroup_root.clone(),
        ..coracle_runtime::Config::new(
            config.data_dir.join("runtime"),
            config.run_dir.join("runtime"),
            config.mark.clone(),
        )
    });
    runtime.await.unwrap().purge().await.unwrap();
}

fn pod(name: &str, spec: Value) -> Value {
    let mut spec = spec;
    spec["nodeName"] = "n1".into();
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}")}, "spec": spec})
}

#[test]
fn a_pod_runs_is_restarted_and_leaves_nothing() {
    with_agent("agt1", |api, data| async move {
        api.put(
            "configmaps",
            json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "cm", "namespace": "default", "uid": "cm1"}, "data": {"color": "red"}}),
        );
        api.put("pods", pod("web", json!({
            "restartPolicy": "Always", "terminationGracePeriodSeconds": 1,
            "volumes": [{"name": "v", "configMap": {"name": "cm"}}, {"name": "e", "emptyDir": {}}],
            "initContainers": [{"name": "setup", "image": "test/busybox:1", "command": ["sh", "-c", "echo made > /e/file"],
                "volumeMounts": [{"name": "e", "mountPath": "/e"}]}],
            "containers": [{"name": "app", "image": "test/busybox:1",
                "command": ["sh", "-c", "echo $COLOR $(cat /v/color) $(cat /e/file); if [ -e /e/again ]; then exec sleep 1000; fi; echo x > /e/again; echo bye > /dev/termination-log; exit 3"],
                "env": [{"name": "COLOR", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "color"}}}],
                "volumeMounts": [{"name": "v", "mountPath": "/v"}, {"name": "e", "mountPath": "/e"}]}]})));
        let status = api
            .until("pods", "web", |p| {
                p.pointer("/status/containerStatuses/0/state/running").is_some()
                    && p.pointer("/status/containerStatuses/0/restartCount") == Some(&json!(1))
                    && p.pointer("/status/phase") == Some(&json!("Running"))
            })
            .await;
        let app = &status["status"]["containerStatuses"][0];
        assert_eq!(app["lastState"]["terminated"]["exitCode"], 3, "{app}");
        assert_eq!(app["lastState"]["terminated"]["message"], "bye\n");
        assert_eq!(status["status"]["podIP"], "10.99.7.2");
        assert_eq!(status["status"]["initContainerStatuses"][0]["state"]["terminated"]["reason"], "Completed");
        let ready = status["status"]["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "Ready").unwrap();
        assert_eq!(ready["status"], "True");
        let tool = open_images(&data).await;
        let none = BTreeSet::new();
        let error = tool.remove("test/busybox:1", &none).await.unwrap_err().to_string();
        assert_eq!(error, "image \"test/busybox:1\" is in use by agt1.uid-web");
        let log = std::fs::read_to_string(data.join("logs/default_web_uid-web/app/0.log")).unwrap();
        assert!(log.contains("stdout F red red made"), "{log}");

        api.delete("pods", "web");
        api.until_gone("pods", "web").await;
        assert!(!data.join("pods/uid-web").exists());
        tool.remove("test/busybox:1", &none).await.unwrap();
        let reasons = api.event_reasons();
        for reason in ["Pulled", "Created", "Started", "Killing"] {
            assert!(reasons.iter().any(|r| r == reason), "{reason} in {reasons:?}");
        }
    });
}

#[test]
fn what_cannot_start_says_why() {
    with_agent("agt2", |api, _| async move {
        let one = |name: &str, container: Value| {
            let mut container = container;
            container["name"] = "app".into();
            pod(name, json!({"restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "containers": [container]}))
        };
        let image = "test/busybox:1";
        api.put("pods", one("never", json!({"image": "none/none:1", "imagePullPolicy": "Never"})));
        api.put("pods", one("name", json!({"image": "UPPER CASE"})));
        api.put(
            "pods",
            one("config", json!({"image": image, "command": ["sh"], "envFrom": [{"secretRef": {"name": "no"}}]})),
        );
        api.put(
            "pods",
            one("root", json!({"image": image, "command": ["sh"], "securityContext": {"runAsNonRoot": true}})),
        );
        api.put("pods", one("exec", json!({"image": image, "command": ["/no/such/program"]})));
        for (name, reason) in [
            ("never", "ErrImageNeverPull"),
            ("name", "InvalidImageName"),
            ("config", "CreateContainerConfigError"),
            ("root", "CreateContainerConfigError"),
        ] {
            api.until("pods", name, |p| {
                p.pointer("/status/containerStatuses/0/state/waiting/reason") == Some(&json!(reason))
            })
            .await;
        }
        let exec = api.until("pods", "exec", |p| p.pointer("/status/phase") == Some(&json!("Failed"))).await;
        let ended = &exec["status"]["containerStatuses"][0]["state"]["terminated"];
        assert_eq!((&ended["reason"], &ended["exitCode"]), (&json!("StartError"), &json!(128)), "{exec}");
    });
}

#[test]
fn a_pod_that_is_kept_is_taken_over_as_it_was() {
    with_agent("agt3", |api, _| async move {
        api.put(
            "pods",
            pod(
                "web",
                json!({"terminationGracePeriodSeconds": 0,
            "containers": [{"name": "app", "image": "test/busybox:1", "command": ["sleep", "1000"]}]}),
            ),
        );
        let running = |p: &Value| p.pointer("/status/containerStatuses/0/ready") == Some(&json!(true));
        let before = api.until("pods", "web", running).await;
        api.restart_agent().await;
        // Something the new agent writes only when it has looked at the pod.
        let mut object = api.get("pods", "web").unwrap();
        object["metadata"]["generation"] = 2.into();
        api.put("pods", object);
        let after = api.until("pods", "web", |p| p.pointer("/status/observedGeneration") == Some(&json!(2))).await;
        let app = |p: &Value| p["status"]["containerStatuses"][0].clone();
        assert_eq!(app(&before), app(&after));
        assert_eq!(before["status"]["podIP"], after["status"]["podIP"]);
        api.delete("pods", "web");
        api.until_gone("pods", "web").await;
    });
}
