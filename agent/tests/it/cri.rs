//! The Container Runtime Interface on the real kernel: what a kubelet or `crictl` does, what it may not do, and agents that
//! die in the middle.

mod given;
mod images;
mod refusals;
mod streams;
mod whole;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use prost::Message;

use crate::deaths::{Node, with_node};
use crate::grpc::{
    ContainerConfig, ContainerMetadata, ContainerStatus, ContainerStatusAnswer, Create, Dns, Empty, Event, ExecSync,
    Image, ImageAsked, Limits, Linux, Metadata, Mount, Namespaces, Number, Refusal, RunSandbox, Said, SandboxConfig,
    SandboxLinux, SandboxSecurity, SandboxStatsAnswer, SandboxStatus, SandboxStatusAnswer, Sandboxes, Security,
    StatsAnswer, StatusAnswer, Stop, Text, Update, Variable, Version, begin, call,
};

const INVALID: u16 = 3;
const NOT_FOUND: u16 = 5;
const EXISTS: u16 = 6;
const PRECONDITION: u16 = 9;
const UNIMPLEMENTED: u16 = 12;

const CREATED: i32 = 0;
const RUNNING: i32 = 1;
const EXITED: i32 = 2;

/// The client.
struct Cri {
    socket: PathBuf,
    logs: PathBuf,
}

fn text(text: &str) -> Text {
    Text { text: text.to_owned() }
}

impl Cri {
    fn of(node: &Node) -> Self {
        Self { socket: node.path("cri.sock"), logs: node.path("logs") }
    }

    async fn ask<A: Message + Default>(&self, method: &str, request: &impl Message) -> Result<A, Refusal> {
        call(&self.socket, &format!("RuntimeService/{method}"), request).await
    }

    async fn image<A: Message + Default>(&self, method: &str, request: &impl Message) -> Result<A, Refusal> {
        call(&self.socket, &format!("ImageService/{method}"), request).await
    }

    /// The parts a list is told in.
    async fn parts<A: Message + Default>(&self, method: &str, request: &impl Message) -> Vec<A> {
        let (mut stream, mut parts) = (begin(&self.socket, method, request).await, Vec::new());
        while let Some(part) = stream.next().await.unwrap() {
            parts.push(part);
        }
        parts
    }

    fn sandbox(&self, name: &str) -> SandboxConfig {
        let metadata =
            Metadata { name: name.into(), uid: format!("uid-{name}"), namespace: "tests".into(), attempt: 0 };
        SandboxConfig {
            metadata: Some(metadata),
            hostname: format!("host-{name}"),
            log_directory: self.logs.join(name).display().to_string(),
            labels: BTreeMap::from([("app".to_owned(), name.to_owned())]),
            annotations: BTreeMap::from([("note".to_owned(), "kept".to_owned())]),
            ..SandboxConfig::default()
        }
    }

    async fn run(&self, config: SandboxConfig) -> Result<String, Refusal> {
        let request = RunSandbox { config: Some(config), handler: String::new() };
        self.ask::<Text>("RunPodSandbox", &request).await.map(|answer| answer.text)
    }

    async fn create(&self, sandbox: &str, config: ContainerConfig) -> Result<String, Refusal> {
        let request = Create { sandbox: sandbox.to_owned(), config: Some(config), sandbox_config: None };
        self.ask::<Text>("CreateContainer", &request).await.map(|answer| answer.text)
    }

    async fn start(&self, id: &str) -> Result<Empty, Refusal> {
        self.ask("StartContainer", &text(id)).await
    }

    async fn stop(&self, id: &str, timeout: i64) -> Result<Empty, Refusal> {
        self.ask("StopContainer", &Stop { id: id.to_owned(), timeout }).await
    }

    async fn status(&self, id: &str) -> Result<ContainerStatus, Refusal> {
        self.ask::<ContainerStatusAnswer>("ContainerStatus", &text(id)).await.map(|answer| answer.status.unwrap())
    }

    async fn sandbox_status(&self, id: &str) -> Result<SandboxStatus, Refusal> {
        self.ask::<SandboxStatusAnswer>("PodSandboxStatus", &text(id)).await.map(|answer| answer.status.unwrap())
    }

    async fn exec(&self, id: &str, command: &[&str], timeout: i64) -> Result<(i32, String, String), Refusal> {
        let command = command.iter().map(|word| (*word).to_owned()).collect();
        let said: Said = self.ask("ExecSync", &ExecSync { id: id.to_owned(), command, timeout }).await?;
        let shown = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Ok((said.code, shown(said.stdout), shown(said.stderr)))
    }

    /// Waits until a container is so. What happens after it was looked at is told: listening begins before.
    async fn until(&self, id: &str, wanted: impl Fn(&ContainerStatus) -> bool) -> ContainerStatus {
        let limit = tokio::time::Instant::now() + Duration::from_secs(60);
        let mut events = begin(&self.socket, "RuntimeService/GetContainerEvents", &Empty {}).await;
        loop {
            let status = self.status(id).await.unwrap();
            if wanted(&status) {
                return status;
            }
            let told = tokio::time::timeout_at(limit, events.next::<Event>()).await;
            // (They end with the agent only.)
            told.unwrap_or_else(|_| panic!("{status:?}")).unwrap().unwrap();
        }
    }
}

fn container(name: &str, command: &[&str]) -> ContainerConfig {
    ContainerConfig {
        metadata: Some(ContainerMetadata { name: name.to_owned(), attempt: 0 }),
        image: Some(Image { image: "test/busybox:1".to_owned() }),
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        labels: BTreeMap::from([("is".to_owned(), name.to_owned())]),
        log_path: format!("{name}.log"),
        ..ContainerConfig::default()
    }
}

fn linux(security: Security) -> Option<Linux> {
    Some(Linux { resources: None, security: Some(security) })
}

fn code<T: std::fmt::Debug>(answer: Result<T, Refusal>) -> u16 {
    answer.unwrap_err().0
}

#[test]
fn sandboxes_and_containers_live_as_they_are_told_and_leave_nothing() {
    with_node("cri1", |mut node| async move {
        node.start().await;
        let cri = Cri::of(&node);
        let version: Version = cri.ask("Version", &text("0.1.0")).await.unwrap();
        assert_eq!((version.name.as_str(), version.api.as_str()), ("coracle", "v1"));
        let status: StatusAnswer = cri.ask("Status", &Empty {}).await.unwrap();
        assert!(status.status.unwrap().all.iter().all(|condition| condition.status));

        let mut config = cri.sandbox("web");
        config.dns = Some(Dns { servers: vec!["192.0.2.53".into()], searches: vec!["a.test".into()] });
        let sysctls = BTreeMap::from([("net.ipv4.ip_unprivileged_port_start".to_owned(), "77".to_owned())]);
        config.linux = Some(SandboxLinux { sysctls, ..SandboxLinux::default() });
        let sandbox = cri.run(config.clone()).await.unwrap();
        assert_eq!(code(cri.run(config).await), EXISTS);
        let shown = cri.sandbox_status(&sandbox).await.unwrap();
        assert_eq!((shown.state, shown.metadata.unwrap().uid.as_str()), (0, "uid-web"));
        assert_eq!((shown.labels["app"].as_str(), shown.annotations["note"].as_str()), ("web", "kept"));
        assert!(shown.network.unwrap().ip.starts_with("10.99.7."));

        let host = node.path("not/yet/there");
        let mut app = container("app", &["sh", "-c", "echo out; echo err >&2; exec sleep 1000"]);
        app.envs = vec![Variable { key: "COLOR".into(), value: b"red".to_vec() }];
        app.mounts = vec![
            Mount {
                container_path: "/m".into(),
                host_path: host.display().to_string(),
                readonly: false,
                ..Mount::default()
            },
            Mount {
                container_path: "/ro".into(),
                host_path: host.display().to_string(),
                readonly: true,
                ..Mount::default()
            },
        ];
        app.linux = Some(Linux {
            resources: Some(Limits { cpu_shares: 512, memory: 64 << 20 }),
            security: Some(Security { user: Some(Number { value: 1234 }), ..Security::default() }),
        });
        let id = cri.create(&sandbox, app.clone()).await.unwrap();
        assert_eq!(code(cri.create(&sandbox, app).await), EXISTS);
        let created = cri.status(&id).await.unwrap();
        assert_eq!((created.state, created.started_at), (CREATED, 0));
        assert_eq!(code(cri.exec(&id, &["true"], 0).await), PRECONDITION);
        cri.start(&id).await.unwrap();
        assert_eq!(code(cri.start(&id).await), PRECONDITION);
        let running = cri.status(&id[..13]).await.unwrap();
        assert_eq!((running.id.as_str(), running.state), (id.as_str(), RUNNING));
        assert!(running.started_at >= running.created_at && running.created_at > 0);

        let said = cri.exec(&id, &["sh", "-c", "echo $COLOR; cat /etc/resolv.conf /etc/hostname; exit 3"], 10).await;
        let (code_said, out, _) = said.unwrap();
        assert_eq!((code_said, out.as_str()), (3, "red\nsearch a.test\nnameserver 192.0.2.53\nhost-web\n"));
        let ids = cri.exec(
            &id,
            &[
                "sh",
                "-c",
                "grep Uid /proc/self/status; cat /proc/sys/net/ipv4/ip_unprivileged_port_start; echo no > /ro/f",
            ],
            10,
        );
        let (_, out, err) = ids.await.unwrap();
        assert!(out.contains("1234") && out.contains("\n77\n"), "{out}");
        assert!(err.contains("Read-only file system"), "{err}");
        let (code_said, why) = cri.exec(&id, &["sleep", "1000"], 1).await.unwrap_err();
        assert!(code_said == 4 && why.contains("timeout 1s exceeded"), "{code_said} {why}");
        assert!(cri.exec(&id, &["/no/such"], 1).await.unwrap_err().1.contains("no such file"));

        // The log is where it was asked for; it is begun anew when the client has taken it away.
        let log = cri.logs.join("web/app.log");
        assert_eq!(running.log_path, log.display().to_string());
        let lines = std::fs::read_to_string(&log).unwrap();
        assert!(lines.contains(" stdout F out\n") && lines.contains(" stderr F err\n"), "{lines}");
        std::fs::rename(&log, log.with_extension("old")).unwrap();
        let _: Empty = cri.ask("ReopenContainerLog", &text(&id)).await.unwrap();
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "");

        let _: Empty = cri
            .ask(
                "UpdateContainerResources",
                &Update { id: id.clone(), linux: Some(Limits { cpu_shares: 0, memory: 96 << 20 }) },
            )
            .await
            .unwrap();
        let limits = cri.status(&id).await.unwrap().resources.unwrap().linux.unwrap();
        assert_eq!((limits.cpu_shares, limits.memory), (512, 96 << 20));
        let stats: StatsAnswer = cri.ask("ContainerStats", &text(&id)).await.unwrap();
        let stats = stats.stats.unwrap();
        assert_eq!(stats.attributes.unwrap().id, id);
        assert!(stats.cpu.unwrap().usage.unwrap().value > 0 && stats.memory.unwrap().working_set.unwrap().value > 0);
        let stats: SandboxStatsAnswer = cri.ask("PodSandboxStats", &text(&sandbox)).await.unwrap();
        assert_eq!(stats.stats.unwrap().linux.unwrap().containers.len(), 1);

        let fails = cri.create(&sandbox, container("fails", &["/no/such"])).await.unwrap();
        let (_, why) = cri.start(&fails).await.unwrap_err();
        assert!(why.contains("no such file or directory"), "{why}");
        let failed = cri.status(&fails).await.unwrap();
        assert_eq!((failed.state, failed.exit_code, failed.reason.as_str()), (EXITED, 128, "StartError"));

        // Without time it is killed; who has ended is stopped.
        cri.stop(&id, 0).await.unwrap();
        let ended = cri.status(&id).await.unwrap();
        assert_eq!((ended.state, ended.exit_code, ended.reason.as_str()), (EXITED, 137, "Error"));
        assert!(ended.finished_at >= ended.started_at);
        cri.stop(&id, 5).await.unwrap();
        for _ in 0..2 {
            let _: Empty = cri.ask("RemoveContainer", &text(&id)).await.unwrap();
        }
        assert_eq!(code(cri.status(&id).await), NOT_FOUND);
        assert!(log.exists(), "logs are the client's");

        // A name is free again with its container; a sandbox takes its containers along.
        let again = cri.create(&sandbox, container("app", &["sleep", "1000"])).await.unwrap();
        assert_ne!(again, id);
        cri.start(&again).await.unwrap();
        for _ in 0..2 {
            let _: Empty = cri.ask("StopPodSandbox", &text(&sandbox)).await.unwrap();
        }
        assert_eq!(cri.sandbox_status(&sandbox).await.unwrap().state, 1);
        assert_eq!(cri.status(&again).await.unwrap().state, EXITED);
        assert_eq!(code(cri.create(&sandbox, container("late", &["true"])).await), PRECONDITION);
        let _: Empty = cri.ask("RemoveContainer", &text(&again)).await.unwrap();
        let (refused, why) = cri.image::<Empty>("RemoveImage", &asked("test/busybox:1")).await.unwrap_err();
        assert!(refused == PRECONDITION && why.contains("in use"), "{why}");
        for _ in 0..2 {
            let _: Empty = cri.ask("RemovePodSandbox", &text(&sandbox)).await.unwrap();
        }
        let all: Sandboxes = cri.ask("ListPodSandbox", &Empty {}).await.unwrap();
        assert_eq!(all.items, vec![]);
        assert!(std::fs::read_dir(node.path("run/runtime/sandboxes")).unwrap().next().is_none());
        let _: Empty = cri.image("RemoveImage", &asked("test/busybox:1")).await.unwrap();
        node.kill();
    });
}

fn asked(image: &str) -> ImageAsked {
    ImageAsked { image: Some(Image { image: image.to_owned() }) }
}

#[test]
fn namespaces_are_shared_as_asked_and_privileges_are_not_given_away() {
    with_node("cri2", |mut node| async move {
        node.start().await;
        let cri = Cri::of(&node);
        let sandbox = |name: &str, network: i32, pid: i32| {
            let namespaces = Some(Namespaces { network, pid, users: None });
            let security = Some(SandboxSecurity { namespaces });
            let cgroup_parent = format!("/coracle-test-cri2/own-{name}");
            let linux = SandboxLinux { security, cgroup_parent, ..SandboxLinux::default() };
            SandboxConfig { linux: Some(linux), ..cri.sandbox(name) }
        };
        let own = std::fs::read_link("/proc/thread-self/ns/net").unwrap().display().to_string();
        let host = cri.run(sandbox("host", 2, 1)).await.unwrap();
        assert_eq!(cri.sandbox_status(&host).await.unwrap().network.unwrap().ip, "");
        let id = cri.create(&host, container("app", &["sleep", "1000"])).await.unwrap();
        cri.start(&id).await.unwrap();
        let (_, seen, _) =
            cri.exec(&id, &["sh", "-c", "readlink /proc/self/ns/net; cat /proc/1/cmdline"], 5).await.unwrap();
        assert_eq!(seen, format!("{own}\nsleep\0{}\0", 1000));

        // One namespace of processes for the sandbox, which is what is had when nothing is said.
        let shared = cri.run(sandbox("shared", 0, 0)).await.unwrap();
        let first = cri.create(&shared, container("first", &["sleep", "1001"])).await.unwrap();
        cri.start(&first).await.unwrap();
        let second = cri.create(&shared, container("second", &["sleep", "1002"])).await.unwrap();
        cri.start(&second).await.unwrap();
        let (_, seen, _) =
            cri.exec(&second, &["sh", "-c", "cat /proc/[0-9]*/cmdline; readlink /proc/self/ns/net"], 5).await.unwrap();
        assert!(
            seen.contains("sleep\x001001\x00") && seen.contains("sleep\x001002\x00") && !seen.contains(&own),
            "{seen:?}"
        );
        let mut apart = container("apart", &["sleep", "1003"]);
        apart.linux =
            linux(Security { namespaces: Some(Namespaces { network: 0, pid: 1, users: None }), ..Security::default() });
        let apart = cri.create(&shared, apart).await.unwrap();
        cri.start(&apart).await.unwrap();
        let (_, seen, _) = cri.exec(&apart, &["sh", "-c", "cat /proc/[0-9]*/cmdline"], 5).await.unwrap();
        assert!(!seen.contains("1001"), "{seen:?}");

        let mut privileged = container("privileged", &["true"]);
        privileged.linux = linux(Security { privileged: true, ..Security::default() });
        assert_eq!(code(cri.create(&shared, privileged).await), INVALID);
        for sandbox in [&host, &shared] {
            let _: Empty = cri.ask("RemovePodSandbox", &text(sandbox)).await.unwrap();
        }
        node.kill();
    });
}

/// Invariant 4 for what is made here: an agent that dies leaves it as it was, and nothing is started twice.
#[test]
fn what_was_made_outlives_the_agent() {
    with_node("cri7", |mut node| async move {
        node.start().await;
        let cri = Cri::of(&node);
        let share = node.path("share");
        std::fs::create_dir(&share).unwrap();
        let mount = || {
            vec![Mount {
                container_path: "/s".into(),
                host_path: share.display().to_string(),
                readonly: false,
                ..Mount::default()
            }]
        };
        let sandbox = cri.run(cri.sandbox("web")).await.unwrap();
        let mut runs = container("runs", &["sh", "-c", "echo x >> /s/begun; exec sleep 1000"]);
        runs.mounts = mount();
        let runs = cri.create(&sandbox, runs).await.unwrap();
        cri.start(&runs).await.unwrap();
        let mut ends = container("ends", &["sh", "-c", "while ! [ -e /s/end ]; do sleep 0.05; done; exit 7"]);
        ends.mounts = mount();
        let ends = cri.create(&sandbox, ends).await.unwrap();
        cri.start(&ends).await.unwrap();
        let waits = cri.create(&sandbox, container("waits", &["sleep", "1000"])).await.unwrap();
        let stopped = cri.run(cri.sandbox("stopped")).await.unwrap();
        let _: Empty = cri.ask("StopPodSandbox", &text(&stopped)).await.unwrap();
        let before = cri.status(&runs).await.unwrap();
        let address = cri.sandbox_status(&sandbox).await.unwrap().network.unwrap().ip;
        node.kill();
        std::fs::write(share.join("end"), "").unwrap();
        node.start().await;
        let ended = cri.until(&ends, |status| status.state == EXITED).await;
        assert_eq!((ended.exit_code, ended.reason.as_str()), (7, "Error"));
        assert_eq!(cri.status(&runs).await.unwrap(), before);
        assert_eq!(cri.sandbox_status(&sandbox).await.unwrap().network.unwrap().ip, address);
        assert_eq!(cri.sandbox_status(&stopped).await.unwrap().state, 1);
        assert_eq!(cri.status(&waits).await.unwrap().state, CREATED);
        assert_eq!(code(cri.run(cri.sandbox("web")).await), EXISTS);
        cri.start(&waits).await.unwrap();
        assert_eq!(cri.exec(&waits, &["echo", "in"], 5).await.unwrap().1, "in\n");
        assert_eq!(std::fs::read_to_string(share.join("begun")).unwrap(), "x\n");
        // One more agent, which stops in peace: sandboxes are their maker's all the same.
        let all: Sandboxes = cri.ask("ListPodSandbox", &Empty {}).await.unwrap();
        let ids: BTreeSet<_> = all.items.into_iter().map(|item| item.id).collect();
        assert_eq!(ids, BTreeSet::from([sandbox.clone(), stopped.clone()]));
        for sandbox in [&sandbox, &stopped] {
            let _: Empty = cri.ask("RemovePodSandbox", &text(sandbox)).await.unwrap();
        }
        node.kill();
    });
}

/// The path of a socket nobody serves any more is taken over; one that is served is not.
#[test]
fn a_socket_of_a_dead_agent_is_taken_over() {
    with_node("cri9", |mut node| async move {
        let path: &Path = &node.path("cri.sock");
        drop(std::os::unix::net::UnixListener::bind(path).unwrap());
        node.start().await;
        let cri = Cri::of(&node);
        let _: Version = cri.ask("Version", &Empty {}).await.unwrap();
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        node.kill();
    });
}
