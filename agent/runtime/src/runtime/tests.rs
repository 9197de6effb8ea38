//! Supervisors of other versions, and ones that are not well, played on a socket in their place.

use std::{fs, os::unix::net::UnixListener, path::PathBuf};

use super::*;
use crate::state::ContainerState;

/// The record of a sandbox as the first version wrote it.
const FIRST_RECORD: &str = r#"{
    "version": 1, "id": "ID", "containers": "/nowhere", "cgroup": "coracle-test-none/kubepods/poduid",
    "created_at": {"secs_since_epoch": 1, "nanos_since_epoch": 0},
    "spec": {"pod_uid": "uid", "pod_name": "web", "pod_namespace": "default", "attempt": 0, "hostname": "web",
             "qos": "BestEffort", "log_directory": "/nowhere"}}"#;

/// A runtime with one sandbox, whose supervisor answers every question with `answer`.
async fn with_supervisor(answer: &'static str) -> (Runtime, SandboxId, tempfile::TempDir) {
    let (runtime, id, listener, folder) = with_socket().await;
    // Ends with the test's process: it waits for whoever asks next.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut header = [0; 4];
            io::Read::read_exact(&mut stream, &mut header).unwrap();
            let mut question = vec![0; u32::from_le_bytes(header) as usize];
            io::Read::read_exact(&mut stream, &mut question).unwrap();
            let length = u32::try_from(answer.len()).unwrap().to_le_bytes();
            io::Write::write_all(&mut stream, &[&length, answer.as_bytes()].concat()).unwrap();
        }
    });
    (runtime, id, folder)
}

/// A runtime with one sandbox, and its supervisor's socket.
async fn with_socket() -> (Runtime, SandboxId, UnixListener, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config::new(folder.path().join("root"), folder.path().join("run"), "mark");
    config.exe = PathBuf::from("/proc/self/exe");
    let runtime = Runtime::open(config).await.unwrap();
    let id = SandboxId::of("uid", 0);
    let directory = runtime.directory(&id);
    fs::create_dir_all(directory.join("containers")).unwrap();
    fs::write(directory.join("sandbox.json"), FIRST_RECORD.replace("ID", id.as_str())).unwrap();
    let listener = UnixListener::bind(directory.join("sock")).unwrap();
    (runtime, id, listener, folder)
}

#[tokio::test]
async fn a_supervisor_of_the_first_version_is_taken_over() {
    let answer = r#"{"Status": {"version": 1, "pid": 4711, "containers": [{
        "id": "c-1", "name": "app", "attempt": 2, "created_at": {"secs_since_epoch": 5, "nanos_since_epoch": 0},
        "state": {"Running": {"pid": 4712, "started_at": {"secs_since_epoch": 6, "nanos_since_epoch": 0},
                              "uid": 0, "gid": 0, "groups": []}},
        "log_path": "/nowhere/app/2.log", "annotations": []}]}}"#;
    let (runtime, id, _folder) = with_supervisor(answer).await;
    let sandbox = runtime.sandbox(&id).await.unwrap();
    assert_eq!(sandbox.supervisor_pid(), 4711);
    assert_eq!(runtime.create_sandbox(sandbox.spec()).await.unwrap().supervisor_pid(), 4711);
    let found = runtime.list().await.unwrap();
    let [found] = found.as_slice() else { panic!("{found:?}") };
    assert!(found.alive && found.spec.pod_name == "web");
    assert!(matches!(found.containers.as_slice(), [app] if app.attempt == 2
        && matches!(app.state, ContainerState::Running { pid: 4712, .. })));
}

#[tokio::test]
async fn a_later_supervisor_that_serves_us_is_taken_over() {
    let answer = r#"{"Status": {"version": 77, "serves_from": 1, "pid": 4711, "containers": [], "mood": "good"}}"#;
    let (runtime, id, _folder) = with_supervisor(answer).await;
    assert_eq!(runtime.sandbox(&id).await.unwrap().supervisor_pid(), 4711);
    assert!(runtime.list().await.unwrap()[0].alive);
}

#[tokio::test]
async fn a_later_supervisor_that_does_not_serve_us_is_refused_by_its_version() {
    let answer = r#"{"Status": {"version": 77, "serves_from": 70, "pid": 4711, "containers": {"by": "name"}}}"#;
    let (runtime, id, _folder) = with_supervisor(answer).await;
    let error = runtime.sandbox(&id).await.unwrap_err();
    assert!(matches!(error, Error::Version { version: 77, serves_from: 70, .. }), "{error}");
    assert_eq!(
        error.to_string(),
        format!(
            "the supervisor of sandbox {id} speaks version 77 of the runtime's protocol and serves agents from version 70 \
             on, this one speaks {VERSION}: run a later agent, or remove the sandbox"
        )
    );
    let spec = SandboxRecord::read(&runtime.directory(&id)).unwrap().spec;
    assert!(matches!(runtime.create_sandbox(&spec).await, Err(Error::Version { .. })), "not a second one beside it");
    assert!(!runtime.list().await.unwrap()[0].alive);
}

/// The agent asks it again at once, as after a cut, and then ever more seldom.
#[tokio::test]
async fn a_supervisor_that_ends_every_connection_is_not_asked_without_end() {
    let (_, _, listener, folder) = with_socket().await;
    let (asks, mut asked) = tokio::sync::mpsc::channel(1);
    // Ends with the test's process: it waits for whoever asks next.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            drop(stream);
            let _ = asks.blocking_send(());
        }
    });
    // The sandbox is there when the runtime is opened.
    let mut config = Config::new(folder.path().join("root"), folder.path().join("run"), "mark");
    config.exe = PathBuf::from("/proc/self/exe");
    let mut events = Runtime::open(config).await.unwrap().events();
    let begin = Instant::now();
    let five = async {
        for _ in 0..5 {
            asked.recv().await.unwrap();
        }
    };
    tokio::select! {
        // It has not died, so there is nothing to tell.
        told = events.next() => panic!("{told:?}"),
        () = five => {}
    }
    // Twice at once, and after 50, 100 and 200 ms.
    assert!(begin.elapsed() >= std::time::Duration::from_millis(350), "{:?}", begin.elapsed());
}

/// An agent may be killed when it has made a sandbox's directory, or has removed all but that.
#[tokio::test]
async fn a_directory_without_a_record_is_removed_at_the_next_start() {
    let (runtime, id, _listener, folder) = with_socket().await;
    let cut = SandboxId::of("cut", 3);
    for place in [runtime.directory(&cut), runtime.layers(&cut)] {
        fs::create_dir_all(place.join("containers")).unwrap();
    }
    let mut config = Config::new(folder.path().join("root"), folder.path().join("run"), "mark");
    config.exe = PathBuf::from("/proc/self/exe");
    let runtime = Runtime::open(config).await.unwrap();
    assert!(!runtime.directory(&cut).exists() && !runtime.layers(&cut).exists());
    assert_eq!(runtime.watch().borrow().iter().collect::<Vec<_>>(), [&id], "one with a record stays");
}
