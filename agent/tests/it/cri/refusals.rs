//! What cannot be done, and what is not the client's to do.

use std::collections::BTreeMap;

use serde_json::json;

use super::{Cri, INVALID, NOT_FOUND, PRECONDITION, UNIMPLEMENTED, asked, code, container, linux, text};
use crate::deaths::{is_ready, with_node};
use crate::grpc::{
    AllSandboxStats, AllStats, ContainerConfig, Containers, Empty, Image, ImageAnswer, Images, ListSandboxes, Mount,
    Number, RunSandbox, SandboxConfig, SandboxFilter, SandboxLinux, Sandboxes, Security, Text, Variable, raw,
};
use crate::pod;

#[test]
fn nonsense_is_refused_with_its_code_and_changes_nothing() {
    with_node("cri3", |mut node| async move {
        node.start().await;
        let cri = Cri::of(&node);
        let changed = |change: &dyn Fn(&mut SandboxConfig)| {
            let mut config = cri.sandbox("bad");
            change(&mut config);
            config
        };
        for (want, config) in [
            (INVALID, changed(&|config| config.metadata = None)),
            (INVALID, changed(&|config| config.log_directory = "relative".into())),
            (INVALID, changed(&|config| config.hostname = "a/b".into())),
            (
                INVALID,
                changed(&|config| {
                    let parent = SandboxLinux { cgroup_parent: "../..".into(), ..SandboxLinux::default() };
                    config.linux = Some(parent);
                }),
            ),
            (
                INVALID,
                changed(&|config| {
                    let sysctls = BTreeMap::from([("vm.swappiness".to_owned(), "1".to_owned())]);
                    config.linux = Some(SandboxLinux { sysctls, ..SandboxLinux::default() });
                }),
            ),
        ] {
            assert_eq!(code(cri.run(config).await), want);
        }
        let request = RunSandbox { config: Some(cri.sandbox("bad")), handler: "kata".into() };
        assert_eq!(code(cri.ask::<Text>("RunPodSandbox", &request).await), INVALID);
        // A parameter that the kernel refuses: nothing of the sandbox is left.
        let sysctls = BTreeMap::from([("net.core.somaxconn".to_owned(), "many".to_owned())]);
        let linux_ = Some(SandboxLinux { sysctls, ..SandboxLinux::default() });
        assert!(cri.run(SandboxConfig { linux: linux_, ..cri.sandbox("bad") }).await.is_err());
        assert!(std::fs::read_dir(node.path("run/runtime/sandboxes")).unwrap().next().is_none());

        let sandbox = cri.run(cri.sandbox("good")).await.unwrap();
        let bad = |change: &dyn Fn(&mut ContainerConfig)| {
            let mut config = container("bad", &["true"]);
            change(&mut config);
            config
        };
        for (want, config) in [
            (INVALID, bad(&|config| config.metadata = None)),
            (INVALID, bad(&|config| config.image = None)),
            (NOT_FOUND, bad(&|config| config.image = Some(Image { image: "no/such:1".into() }))),
            (INVALID, bad(&|config| config.command.clear())),
            (INVALID, bad(&|config| config.log_path = "../x".into())),
            (INVALID, bad(&|config| config.envs = vec![Variable { key: String::new(), value: vec![] }])),
            (INVALID, bad(&|config| config.mounts = vec![Mount { host_path: "rel".into(), ..Mount::default() }])),
            (
                INVALID,
                bad(&|config| {
                    config.linux = linux(Security { user: Some(Number { value: -5 }), ..Security::default() })
                }),
            ),
        ] {
            assert_eq!(code(cri.create(&sandbox, config).await), want);
        }
        let all: Containers = cri.ask("ListContainers", &Empty {}).await.unwrap();
        assert_eq!(all.items, vec![]);
        assert_eq!(code(cri.create("0123", container("a", &["true"])).await), NOT_FOUND);
        assert_eq!(code(cri.create("", container("a", &["true"])).await), INVALID);
        for method in ["ContainerStatus", "StartContainer", "ContainerStats", "ReopenContainerLog"] {
            assert_eq!(code(cri.ask::<Empty>(method, &text("0123")).await), NOT_FOUND, "{method}");
        }
        for method in ["StopContainer", "RemoveContainer", "StopPodSandbox", "RemovePodSandbox"] {
            cri.ask::<Empty>(method, &text("0123")).await.unwrap();
        }
        assert_eq!(code(cri.ask::<Empty>("CheckpointContainer", &text("0123")).await), NOT_FOUND);
        let made = cri.create(&sandbox, container("made", &["true"])).await.unwrap();
        let (refused, why) = cri.ask::<Empty>("CheckpointContainer", &text(&made)).await.unwrap_err();
        assert!(
            refused == UNIMPLEMENTED && why.ends_with("cannot be checkpointed: Coracle makes no checkpoints"),
            "{why}"
        );
        assert_eq!(code(cri.image::<Empty>("ImageStatus", &Empty {}).await), INVALID);
        assert_eq!(code(cri.image::<Empty>("PullImage", &asked("UPPER CASE")).await), INVALID);
        let none: ImageAnswer = cri.image("ImageStatus", &asked("no/such:1")).await.unwrap();
        assert_eq!(none.image, None);

        // No message at all, and one that says it is huge.
        for bytes in [&b"\x00\x00\x00\x00\x02\xff\xff"[..], b"\x00\xff\xff\xff\xff", b"\x01\x00\x00\x00\x00", b"\x00"] {
            let (refused, why) = raw(&cri.socket, "RuntimeService/Version", bytes).await;
            assert!([INVALID, 8, UNIMPLEMENTED, 13].contains(&refused), "{refused} {why}");
        }
        let _: Empty = cri.ask("RemovePodSandbox", &text(&sandbox)).await.unwrap();
        node.kill();
    });
}

#[test]
fn pods_are_shown_and_looked_into_and_not_changed() {
    with_node("cri4", |mut node| async move {
        let cri = Cri::of(&node);
        let spec = json!({"terminationGracePeriodSeconds": 0, "containers": [
            {"name": "app", "image": "test/busybox:1", "command": ["sleep", "1000"]}]});
        node.api.put("pods", pod("web", spec));
        node.start().await;
        node.until("web", "ready", is_ready).await;
        let foreign = cri.run(cri.sandbox("own")).await.unwrap();
        let labels = BTreeMap::from([("io.kubernetes.pod.name".to_owned(), "web".to_owned())]);
        let filter = ListSandboxes { filter: Some(SandboxFilter { labels, ..SandboxFilter::default() }) };
        let found: Sandboxes = cri.ask("ListPodSandbox", &filter).await.unwrap();
        assert_eq!(
            cri.parts::<Sandboxes>("RuntimeService/StreamPodSandboxes", &filter).await,
            std::slice::from_ref(&found)
        );
        let [web] = &found.items[..] else { panic!("{found:?}") };
        assert_eq!(web.metadata.as_ref().unwrap().uid, "uid-web");
        let all: Containers = cri.ask("ListContainers", &Empty {}).await.unwrap();
        assert_eq!(
            cri.parts::<Containers>("RuntimeService/StreamContainers", &Empty {}).await,
            std::slice::from_ref(&all)
        );
        let [app] = &all.items[..] else { panic!("{all:?}") };
        let [stats] = &cri.parts::<AllStats>("RuntimeService/StreamContainerStats", &Empty {}).await[..] else {
            panic!()
        };
        assert_eq!(stats.all[0].attributes.as_ref().unwrap().id, app.id);
        let [stats] = &cri.parts::<AllSandboxStats>("RuntimeService/StreamPodSandboxStats", &filter).await[..] else {
            panic!()
        };
        assert_eq!(stats.all[0].linux.as_ref().unwrap().containers.len(), 1);
        let images: Images = cri.image("ListImages", &Empty {}).await.unwrap();
        assert_eq!(cri.parts::<Images>("ImageService/StreamImages", &Empty {}).await, [images]);
        assert_eq!(app.labels["io.kubernetes.container.name"], "app");
        let status = cri.status(&app.id).await.unwrap();
        assert_eq!(status.image.unwrap().image, "docker.io/test/busybox:1");
        assert!(status.log_path.ends_with("default_web_uid-web/app/0.log"), "{}", status.log_path);
        assert_eq!(cri.exec(&app.id, &["echo", "in"], 5).await.unwrap().1, "in\n");

        assert_eq!(code(cri.stop(&app.id, 0).await), PRECONDITION);
        assert_eq!(code(cri.create(&web.id, container("more", &["true"])).await), PRECONDITION);
        for method in ["RemoveContainer", "StartContainer"] {
            assert_eq!(code(cri.ask::<Empty>(method, &text(&app.id)).await), PRECONDITION, "{method}");
        }
        for method in ["StopPodSandbox", "RemovePodSandbox"] {
            let (refused, why) = cri.ask::<Empty>(method, &text(&web.id)).await.unwrap_err();
            assert!(refused == PRECONDITION && why.contains("default/web"), "{why}");
        }
        // And the other way round: the node's list of pods knows nothing of what was made here, and leaves it.
        node.api.delete("pods", "web");
        node.until_gone("web").await;
        assert_eq!(cri.sandbox_status(&foreign).await.unwrap().state, 0);
        let _: Empty = cri.ask("RemovePodSandbox", &text(&foreign)).await.unwrap();
        node.kill();
    });
}
