//! The agent killed at every step of a pod's life: nothing is started twice, nothing is lost, and what the next one tells is
//! true.
//!
//! The agent is a process of its own here (this very program, told so by its environment), so that it can be killed as
//! kill -9 does it. A step is whatever can be seen from outside: a file that comes or goes in the node's directories, or an
//! object written to the API server.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use coracle_process::FileChanges;
use futures::FutureExt;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use serde_json::{Value, json};
use tokio::net::unix::pipe::Receiver;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use crate::api::Api;
use crate::{config, make_image, own_network, pod, purge};

/// Where and what the agent is: its directory, its mark and the URL of its API server.
const PLAYED: &str = "CORACLE_TEST_AGENT";

/// Not a test of its own: it is the agent when another test has started this program as that.
#[test]
fn plays_the_agent_for_other_tests() {
    let Ok(played) = std::env::var(PLAYED) else { return };
    let [dir, mark, url] = played.split(' ').collect::<Vec<_>>()[..] else { panic!("{played}") };
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let client = kube::Client::try_from(kube::Config::new(url.parse().unwrap())).unwrap();
        coracle_agent::run(config(Path::new(dir), mark), client, CancellationToken::new()).await.unwrap();
    });
}

/// A node whose agent may die.
pub(crate) struct Node {
    dir: tempfile::TempDir,
    mark: &'static str,
    pub(crate) api: Api,
    url: String,
    agent: Option<Child>,
}

impl Node {
    /// Starts one and waits until it has said what its node is, which comes before it looks at pods.
    pub(crate) async fn start(&mut self) {
        let mut written = self.api.subscribe();
        let played = format!("{} {} {}", self.dir.path().display(), self.mark, self.url);
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "deaths::plays_the_agent_for_other_tests", "--nocapture"]).env(PLAYED, played);
        let log = std::fs::File::options().create(true).append(true).open(self.dir.path().join("agent.log")).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.agent = Some(command.spawn().unwrap());
        let says = async { while written.recv().await.unwrap().0 != "nodes" {} };
        let said = tokio::time::timeout(Duration::from_secs(60), says).await;
        said.unwrap_or_else(|_| panic!("the agent does not register: {}", self.log()));
    }

    /// As kill -9 does it.
    pub(crate) fn kill(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            agent.kill().unwrap();
            agent.wait().unwrap();
        }
    }

    /// What the agents have said.
    fn log(&self) -> String {
        std::fs::read_to_string(self.path("agent.log")).unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Waits until a pod is as wanted.
    pub(crate) async fn until(&self, name: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let found = tokio::time::timeout(Duration::from_secs(60), self.api.until("pods", name, wanted)).await;
        found.unwrap_or_else(|_| panic!("{name} is not {what}: {}\n{}", self.api.show(), self.log()))
    }

    pub(crate) async fn until_gone(&self, name: &str) {
        let gone = tokio::time::timeout(Duration::from_secs(60), self.api.until_gone("pods", name)).await;
        gone.unwrap_or_else(|_| panic!("{name} is not gone: {}\n{}", self.api.show(), self.log()));
    }

    /// Lets the agent work until it has taken so many steps, or `done`; it is dead then in any case. Answers with how many
    /// steps there were.
    async fn work(&mut self, steps: &mut Steps, most: usize, done: impl Fn(&Api) -> bool) -> usize {
        let mut taken = 0;
        while taken < most && !done(&self.api) {
            let step = tokio::time::timeout(Duration::from_secs(60), steps.next()).await;
            step.unwrap_or_else(|_| panic!("stuck after {taken} steps: {}\n{}", self.api.show(), self.log()));
            taken += 1;
        }
        self.kill();
        taken
    }
}

impl Drop for Node {
    /// A test that fails leaves no agent behind either.
    fn drop(&mut self) {
        self.kill();
    }
}

/// What can be seen of the agent's steps.
struct Steps {
    inotify: Inotify,
    /// The same inotify instance, as a stream of bytes that tokio reads.
    events: Receiver,
    watched: Vec<(WatchDescriptor, PathBuf)>,
    seen: VecDeque<PathBuf>,
    written: broadcast::Receiver<(String, &'static str, Value)>,
}

impl Steps {
    /// From now on.
    fn of(node: &Node) -> Self {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).unwrap();
        let events = Receiver::from_owned_fd_unchecked(inotify.as_fd().try_clone_to_owned().unwrap()).unwrap();
        let written = node.api.subscribe();
        let mut steps = Self { inotify, events, watched: Vec::new(), seen: VecDeque::new(), written };
        for place in ["run", "data/pods", "data/logs", "data/runtime"] {
            steps.watch(&node.path(place));
        }
        steps.seen.clear();
        steps
    }

    /// Looks at a directory and those below it; what is in them already has just come.
    fn watch(&mut self, directory: &Path) {
        // What a container writes is no step of the agent's.
        let own = ["shm", "upper", "work", "merged"];
        if own.iter().any(|name| directory.ends_with(name)) {
            return;
        }
        let flags = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_DELETE;
        // A directory that is gone again has nothing to show.
        let Ok(descriptor) = self.inotify.add_watch(directory, flags | AddWatchFlags::IN_ONLYDIR) else { return };
        self.watched.push((descriptor, directory.to_owned()));
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            self.seen.push_back(entry.path());
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.watch(&entry.path());
            }
        }
    }

    async fn next(&mut self) {
        while self.seen.pop_front().is_none() {
            tokio::select! {
                written = self.written.recv() => {
                    written.unwrap();
                    return;
                }
                ready = self.events.readable() => ready.unwrap(),
            }
            let mut bytes = [0; 4096];
            let count = self.events.try_read(&mut bytes).unwrap_or(0);
            self.read(&bytes[..count]);
        }
    }

    /// Events are a descriptor, a mask, a cookie and the length of the name that follows (inotify(7)).
    fn read(&mut self, mut bytes: &[u8]) {
        while bytes.len() >= 16 {
            let number = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
            let (descriptor, mask, length) = (number(0), number(4), number(12) as usize);
            let name = String::from_utf8_lossy(&bytes[16..16 + length]).trim_end_matches('\0').to_owned();
            bytes = &bytes[16 + length..];
            let known = |(known, _): &&(WatchDescriptor, PathBuf)| known.as_raw() == descriptor.cast_signed();
            let Some((_, directory)) = self.watched.iter().find(known) else { continue };
            let path = directory.join(name);
            self.seen.push_back(path.clone());
            if AddWatchFlags::from_bits_truncate(mask).contains(AddWatchFlags::IN_ISDIR | AddWatchFlags::IN_CREATE) {
                self.watch(&path);
            }
        }
    }
}

/// Runs a test beside a node whose agent is a process; cleans up however it ends.
pub(crate) fn with_node<F: Future<Output = ()>>(mark: &'static str, test: impl FnOnce(Node) -> F) {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("Skipped: containers need root");
        return;
    }
    own_network();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let told = config(&path, mark);
    let outcome = runtime.block_on(async {
        std::fs::create_dir_all(&told.data_dir).unwrap();
        make_image(&told.data_dir).await;
        let api = Api::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let serves = axum::serve(listener, api.router());
        let test = test(Node { dir, mark, api, url, agent: None });
        tokio::select! {
            result = std::panic::AssertUnwindSafe(test).catch_unwind() => result,
            _ = serves.into_future() => panic!("the API server ended"),
        }
    });
    runtime.block_on(purge(&told));
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(path.to_str().unwrap()), "mounts are left: {mounts}");
    // The purge has made directories of its own in it.
    std::fs::remove_dir_all(&path).unwrap();
}

/// Two containers one after the other, with a volume, that say when they begin: the last of them from the command that it goes
/// on as, which shows a file's lines and waits for more.
fn told(name: &str, tail: &str) -> Value {
    let file = tail.rsplit(' ').next().unwrap();
    pod(
        name,
        json!({"terminationGracePeriodSeconds": 1, "restartPolicy": "Always",
            "volumes": [{"name": "e", "emptyDir": {}}],
            "initContainers": [{"name": "first", "image": "test/busybox:1",
                "command": ["sh", "-c", "echo started; echo x >> /e/first"],
                "volumeMounts": [{"name": "e", "mountPath": "/e"}]}],
            "containers": [{"name": "app", "image": "test/busybox:1",
                "command": ["sh", "-c", format!("echo started >> {file}; exec {tail}")],
                "volumeMounts": [{"name": "e", "mountPath": "/e"}]}]}),
    )
}

pub(crate) fn is_ready(pod: &Value) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

/// The processes that run this command.
fn processes(command: &str) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&line).replace('\0', " ").trim() == command {
            found.push(pid);
        }
    }
    found
}

fn entries(directory: &Path) -> Vec<String> {
    let found = std::fs::read_dir(directory).into_iter().flatten().flatten();
    found.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// One sandbox, each container begun once, and told so.
async fn check_runs(node: &Node, name: &str, tail: &str, status: &Value) {
    let log = |container: &str| {
        let path = node.path(&format!("data/logs/default_{name}_uid-{name}/{container}/0.log"));
        std::fs::read_to_string(path).unwrap_or_default()
    };
    // A container that is ready may have yet to say its word, and the word to reach the log.
    let comes = async {
        let changes = FileChanges::new().unwrap();
        for container in ["first", "app"] {
            changes.of_file(&node.path(&format!("data/logs/default_{name}_uid-{name}/{container}/0.log"))).unwrap();
        }
        while ["first", "app"].iter().any(|container| !log(container).contains(" started")) {
            changes.next().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(60), comes).await.unwrap_or_else(|_| panic!("not there: {status}"));
    assert_eq!(processes(tail).len(), 1, "{status}");
    assert_eq!(entries(&node.path("run/runtime/sandboxes")).len(), 1);
    for container in ["first", "app"] {
        let logs = node.path(&format!("data/logs/default_{name}_uid-{name}/{container}"));
        assert_eq!(entries(&logs), ["0.log"], "{container} was begun again");
        assert_eq!(log(container).matches(" started").count(), 1, "{container}: {}", log(container));
    }
    let volume = node.path(&format!("data/pods/uid-{name}"));
    let counts = Command::new("find").arg(&volume).args(["-name", "first", "-size", "-4c"]).output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&counts.stdout).lines().count(),
        1,
        "what was written is written once, and kept"
    );
    let first = &status["status"]["initContainerStatuses"][0];
    let app = &status["status"]["containerStatuses"][0];
    assert_eq!((&first["restartCount"], &app["restartCount"]), (&json!(0), &json!(0)), "{status}");
    assert_eq!(first["state"]["terminated"]["reason"], "Completed", "{status}");
    assert!(app["state"]["running"]["startedAt"].is_string(), "{status}");
}

fn check_gone(node: &Node, name: &str, tail: &str) {
    assert_eq!(processes(tail), Vec::<u32>::new());
    assert_eq!(entries(&node.path("run/runtime/sandboxes")), Vec::<String>::new());
    assert!(!node.path(&format!("data/pods/uid-{name}")).exists());
}

/// Invariant 4: no container is started twice for one attempt of a pod, and none is left behind by a deleted pod.
#[test]
fn an_agent_killed_at_any_step_of_a_pods_life_starts_nothing_twice_and_loses_nothing() {
    with_node("agt8", |mut node| async move {
        let tail = format!("tail -f /e/{}", std::process::id());
        // Once to the end, to know how many steps there are.
        node.start().await;
        let mut steps = Steps::of(&node);
        node.api.put("pods", told("whole", &tail));
        let up = node.work(&mut steps, usize::MAX, |api| api.get("pods", "whole").is_some_and(|p| is_ready(&p))).await;
        node.start().await;
        let mut steps = Steps::of(&node);
        node.api.delete("pods", "whole");
        let down = node.work(&mut steps, usize::MAX, |api| api.get("pods", "whole").is_none()).await;
        assert!(up > 20 && down > 5, "{up} and {down} steps are not what a pod takes");

        for step in 1..=up.max(down) {
            let name = format!("step{step}");
            node.start().await;
            check_gone(&node, &name, &tail);
            let mut steps = Steps::of(&node);
            node.api.put("pods", told(&name, &tail));
            node.work(&mut steps, step, |api| api.get("pods", &name).is_some_and(|p| is_ready(&p))).await;
            node.start().await;
            let status = node.until(&name, "ready", is_ready).await;
            check_runs(&node, &name, &tail, &status).await;

            let mut steps = Steps::of(&node);
            node.api.delete("pods", &name);
            node.work(&mut steps, step, |api| api.get("pods", &name).is_none()).await;
            node.start().await;
            node.until_gone(&name).await;
            node.kill();
        }
    });
}

#[test]
fn what_ended_while_no_agent_was_there_is_told_as_it_was_and_probes_go_on() {
    with_node("agt9", |mut node| async move {
        let share = node.path("share");
        std::fs::create_dir(&share).unwrap();
        let volumes = json!([{"name": "s", "hostPath": {"path": share.to_str().unwrap()}}]);
        let mounts = json!([{"name": "s", "mountPath": "/s"}]);
        let waits = "while ! [ -e /s/end ]; do sleep 0.05; done; echo last words > /dev/termination-log; exit 7";
        node.api.put(
            "pods",
            pod(
                "ends",
                json!({"restartPolicy": "Never", "volumes": volumes, "containers": [
            {"name": "app", "image": "test/busybox:1", "command": ["sh", "-c", waits], "volumeMounts": mounts}]}),
            ),
        );
        node.api.put(
            "pods",
            pod(
                "probed",
                json!({"terminationGracePeriodSeconds": 0, "volumes": volumes, "containers": [
            {"name": "app", "image": "test/busybox:1", "command": ["sleep", "1000"], "volumeMounts": mounts,
             "readinessProbe": {"exec": {"command": ["cat", "/s/ready"]}, "periodSeconds": 1}}]}),
            ),
        );
        node.start().await;
        std::fs::write(share.join("ready"), "").unwrap();
        node.until("ends", "ready", is_ready).await;
        let before = node.until("probed", "ready", is_ready).await;
        node.kill();
        std::fs::write(share.join("end"), "").unwrap();
        std::fs::remove_file(share.join("ready")).unwrap();
        node.start().await;
        let ended = node.until("ends", "failed", |p| p.pointer("/status/phase") == Some(&json!("Failed"))).await;
        let state = &ended["status"]["containerStatuses"][0]["state"]["terminated"];
        assert_eq!(
            (&state["exitCode"], &state["reason"], &state["message"]),
            (&json!(7), &json!("Error"), &json!("last words\n")),
            "{ended}"
        );
        assert!(
            state["startedAt"].as_str() <= state["finishedAt"].as_str() && state["startedAt"].is_string(),
            "{ended}"
        );
        node.until("probed", "unready again", |p| !is_ready(p)).await;
        std::fs::write(share.join("ready"), "").unwrap();
        let after = node.until("probed", "ready again", is_ready).await;
        let app = |p: &Value| p["status"]["containerStatuses"][0].clone();
        assert_eq!(app(&before), app(&after), "the same container all along");
        for name in ["ends", "probed"] {
            node.api.delete("pods", name);
            node.until_gone(name).await;
        }
        node.kill();
    });
}
