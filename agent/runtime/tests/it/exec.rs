//! Processes run in a container beside its own, and attaching to its own.

use std::time::Duration;

use coracle_runtime::{Error, ExecSpec, User, WindowSize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::world::{World, exec, log_text};

fn command(line: &str) -> ExecSpec {
    ExecSpec { argv: ["sh", "-c", line].map(str::to_owned).to_vec(), ..ExecSpec::default() }
}

#[tokio::test]
async fn a_process_joins_every_namespace_and_the_cgroup_of_the_container() {
    let world = World::new().await;
    let sandbox = world.sandbox("join").await;
    let ask =
        "for n in pid mnt net ipc uts cgroup; do readlink /proc/self/ns/$n; done; cat /proc/self/cgroup | grep memory";
    let status =
        sandbox.start_container(&world.shell("c", &format!("{ask}; touch /tmp/said; sleep 1000"))).await.unwrap();
    let (code, text) =
        exec(&sandbox, &status.id, &format!("while ! test -e /tmp/said; do :; done; {ask}; exit 5")).await;
    assert_eq!(code, 5);
    sandbox.stop(&status.id, Duration::ZERO).await.unwrap();
    assert_eq!(text, log_text(&status.log_path));
    assert!(matches!(sandbox.exec(&status.id, &command("true")).await, Err(Error::ContainerNotRunning { .. })));
}

#[tokio::test]
async fn streams_stay_apart_and_input_ends_when_it_is_dropped() {
    let world = World::new().await;
    let sandbox = world.sandbox("streams").await;
    let status = sandbox.start_container(&world.container("c", &["sleep", "1000"])).await.unwrap();
    let mut spec = command("cat; echo problem >&2; exit 9");
    spec.stdin = true;
    let mut session = sandbox.exec(&status.id, &spec).await.unwrap();
    let mut stdin = session.stdin.take().unwrap();
    stdin.write_all(b"words").await.unwrap();
    drop(stdin);
    let (mut out, mut err) = (String::new(), String::new());
    session.stdout.take().unwrap().read_to_string(&mut out).await.unwrap();
    session.stderr.take().unwrap().read_to_string(&mut err).await.unwrap();
    assert_eq!((out.as_str(), err.as_str()), ("words", "problem\n"));
    assert_eq!(session.wait().await.unwrap(), 9);
    assert_eq!(session.wait().await.unwrap(), 9);
}

#[tokio::test]
async fn a_terminal_has_a_size_that_changes_and_an_end() {
    let world = World::new().await;
    let sandbox = world.sandbox("tty").await;
    let status = sandbox.start_container(&world.container("c", &["sleep", "1000"])).await.unwrap();
    let mut spec = command("tty; stty size; read word; stty size; echo $TERM");
    spec.tty = true;
    spec.size = Some(WindowSize { width: 91, height: 13 });
    let mut session = sandbox.exec(&status.id, &spec).await.unwrap();
    let mut terminal = session.terminal.take().unwrap();
    let mut text = Vec::new();
    while !String::from_utf8_lossy(&text).contains("13 91") {
        assert_ne!(terminal.read_buf(&mut text).await.unwrap(), 0, "{}", String::from_utf8_lossy(&text));
    }
    assert!(text.starts_with(b"/dev/pts/"));
    terminal.resize(WindowSize { width: 120, height: 40 }).unwrap();
    terminal.write_all(b"go\n").await.unwrap();
    terminal.read_to_end(&mut text).await.unwrap();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(text.contains("40 120") && text.contains("xterm"), "{text}");
    assert_eq!(session.wait().await.unwrap(), 0);
}

#[tokio::test]
async fn a_process_has_the_users_identity_environment_and_directory_asked_for() {
    let world = World::new().await;
    let sandbox = world.sandbox("who").await;
    let mut spec = world.container("c", &["sleep", "1000"]);
    spec.env = vec![("COLOUR".into(), "blue".into())];
    spec.cwd = "/tmp".to_owned();
    spec.user = User::Name("app".to_owned());
    let status = sandbox.start_container(&spec).await.unwrap();
    assert_eq!(
        exec(&sandbox, &status.id, "id -u; id -g; echo $COLOUR $HOME; pwd").await.1,
        "1000\n1001\nblue /home/app\n/tmp\n"
    );
    let mut other = command("id -u; echo $COLOUR; pwd");
    other.user = Some(User::Ids { uid: 0, gid: None });
    other.env = vec![("COLOUR".into(), "red".into())];
    other.cwd = "/etc".to_owned();
    let output = sandbox.exec_collect(&status.id, &other, Duration::from_secs(20), 100).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&output.output), "0\nred\n/etc\n");
}

#[tokio::test]
async fn a_command_that_is_not_there_or_does_not_end_is_an_error() {
    let world = World::new().await;
    let sandbox = world.sandbox("bad").await;
    let status = sandbox.start_container(&world.container("c", &["sleep", "1000"])).await.unwrap();
    let missing = ExecSpec { argv: vec!["nope".into()], ..ExecSpec::default() };
    let Err(Error::Exec(error)) = sandbox.exec(&status.id, &missing).await else { panic!("it ran") };
    assert_eq!(
        (error.to_string().as_str(), error.exit_code()),
        ("exec: \"nope\": executable file not found in $PATH", 127)
    );

    let long = ExecSpec { argv: vec!["sleep".into(), "7777".into()], ..ExecSpec::default() };
    let result = sandbox.exec_collect(&status.id, &long, Duration::from_millis(50), 100).await;
    assert!(matches!(result, Err(Error::ExecTimeout { .. })));
    // The process was killed with the connection: this loop ends only when it is gone.
    assert_eq!(exec(&sandbox, &status.id, "while ps -o args | grep -q '^slee[p] 7777'; do :; done").await.0, 0);
}

#[tokio::test]
async fn output_beyond_the_limit_is_thrown_away_and_the_process_ends() {
    let world = World::new().await;
    let sandbox = world.sandbox("flood").await;
    let status = sandbox.start_container(&world.container("c", &["sleep", "1000"])).await.unwrap();
    let flood = command("yes | head -c 3000000");
    let output = sandbox.exec_collect(&status.id, &flood, Duration::from_secs(20), 10).await.unwrap();
    assert_eq!((output.code, output.output.as_slice()), (0, &b"y\ny\ny\ny\ny\n"[..]));
}

#[tokio::test]
async fn attaching_gives_input_and_output_and_once_means_once() {
    let world = World::new().await;
    let sandbox = world.sandbox("attach").await;
    let mut spec = world.shell("c", "cat; echo end");
    (spec.stdin, spec.stdin_once) = (true, true);
    let status = sandbox.start_container(&spec).await.unwrap();
    let mut session = sandbox.attach(&status.id, true).await.unwrap();
    let mut stdin = session.stdin.take().unwrap();
    stdin.write_all(b"hello\n").await.unwrap();
    drop(stdin);
    let mut text = String::new();
    session.stdout.take().unwrap().read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "hello\nend\n");
    assert_eq!(sandbox.wait(&status.id).await.unwrap().code, 0);
    assert_eq!(log_text(&status.log_path), "hello\nend\n");
}

#[tokio::test]
async fn a_container_with_a_terminal_is_attached_to_by_it() {
    let world = World::new().await;
    let sandbox = world.sandbox("console").await;
    let mut spec = world.shell("c", "tty; read word; echo got $word");
    (spec.tty, spec.stdin) = (true, true);
    let status = sandbox.start_container(&spec).await.unwrap();
    let mut session = sandbox.attach(&status.id, true).await.unwrap();
    session.terminal.as_mut().unwrap().write_all(b"it\n").await.unwrap();
    let mut text = String::new();
    session.stdout.take().unwrap().read_to_string(&mut text).await.unwrap();
    assert!(text.contains("got it"), "{text}");
    let log = log_text(&status.log_path);
    assert!(log.contains("/dev/pts/0\n"), "{log:?}");
}

#[tokio::test]
async fn who_only_listens_leaves_the_input_to_who_speaks() {
    let world = World::new().await;
    let sandbox = world.sandbox("once").await;
    let mut spec = world.shell("c", "cat");
    (spec.stdin, spec.stdin_once) = (true, true);
    let status = sandbox.start_container(&spec).await.unwrap();
    let mut listener = sandbox.attach(&status.id, false).await.unwrap();
    assert!(listener.stdin.is_none());
    let mut speaker = sandbox.attach(&status.id, true).await.unwrap();
    speaker.stdin.take().unwrap().write_all(b"to all\n").await.unwrap();
    for session in [&mut listener, &mut speaker] {
        let mut text = String::new();
        session.stdout.take().unwrap().read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "to all\n");
    }
    assert_eq!(sandbox.wait(&status.id).await.unwrap().code, 0);
}

#[tokio::test]
async fn a_slow_client_misses_nothing_and_one_that_left_holds_nobody_up() {
    let world = World::new().await;
    let sandbox = world.sandbox("slow").await;
    let mut spec = world.shell("c", "read go; seq 1 500000; echo done");
    (spec.stdin, spec.stdin_once) = (true, true);
    let status = sandbox.start_container(&spec).await.unwrap();
    let mut slow = sandbox.attach(&status.id, false).await.unwrap();
    let gone = sandbox.attach(&status.id, false).await.unwrap();
    let mut speaker = sandbox.attach(&status.id, true).await.unwrap();
    drop(gone);
    speaker.stdin.take().unwrap().write_all(b"go\n").await.unwrap();
    // Some 3 MiB are said, more than all pipes hold: the container goes on as the slower one reads.
    let mut head = [0; 4];
    slow.stdout.as_mut().unwrap().read_exact(&mut head).await.unwrap();
    let (mut fast_text, mut slow_text) = (String::new(), String::from_utf8(head.to_vec()).unwrap());
    let (mut fast, mut slow) = (speaker.stdout.take().unwrap(), slow.stdout.take().unwrap());
    tokio::try_join!(fast.read_to_string(&mut fast_text), slow.read_to_string(&mut slow_text)).unwrap();
    assert!(fast_text.ends_with("\n499999\n500000\ndone\n") && fast_text.starts_with("1\n2\n"));
    assert!(slow_text == fast_text, "{} and {} bytes", slow_text.len(), fast_text.len());
    assert_eq!(fast_text.len(), 3_388_895 + 5);
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_left_and_the_log_goes_on() {
    let world = World::new().await;
    let sandbox = world.sandbox("stuck").await;
    let mut spec = world.shell("c", "read go; seq 1 500000; echo done");
    (spec.stdin, spec.stdin_once) = (true, true);
    let status = sandbox.start_container(&spec).await.unwrap();
    let stuck = sandbox.attach(&status.id, false).await.unwrap();
    let mut speaker = sandbox.attach(&status.id, true).await.unwrap();
    (speaker.stdout, speaker.stderr) = (None, None);
    speaker.stdin.take().unwrap().write_all(b"go\n").await.unwrap();
    assert_eq!(sandbox.wait(&status.id).await.unwrap().code, 0);
    assert!(log_text(&status.log_path).ends_with("500000\ndone\n"));
    drop(stuck);
}
