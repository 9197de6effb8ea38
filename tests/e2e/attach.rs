//! `kubectl attach` and `kubectl run -i`: a person and a container's own process.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::Stdio;

use crate::{
    cluster::{Cluster, LONG},
    console::Console,
    wait::wait_for,
};

fn cluster_with(name: &str, container: &str) -> Cluster {
    let cluster = Cluster::start();
    cluster.import("busybox", "busybox:1");
    cluster.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 0\n  \
         restartPolicy: Never\n  containers:\n  - {container}\n"
    ));
    cluster.kubectl(&["wait", "--for=condition=Ready", &format!("pod/{name}"), "--timeout=60s"]);
    cluster
}

#[test]
fn whoever_is_attached_sees_what_is_said_from_then_on() {
    let cluster = cluster_with(
        "talker",
        "{name: main, image: 'busybox:1', stdin: true, command: [sh, -c, 'while read l; do echo got $l; echo no >&2; done']}",
    );
    let mut watcher =
        cluster.kubectl_command(&["attach", "talker"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (tell, heard) = std::sync::mpsc::sync_channel(1000);
    let lines = BufReader::new(watcher.stdout.take().unwrap()).lines();
    let listening = std::thread::spawn(move || lines.for_each(|line| drop(tell.send(line.unwrap()))));
    let speak = |words: &str| {
        let mut child = cluster
            .kubectl_command(&["attach", "-i", "talker"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        writeln!(stdin, "{words}").unwrap();
        let mut answer = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut answer).unwrap();
        drop(stdin);
        child.kill().unwrap();
        child.wait().unwrap();
        answer
    };
    // Each speaker comes and goes, and the input stays open. The watcher hears them as soon as it is attached.
    wait_for("the watcher to hear a speaker", LONG, || {
        assert_eq!(speak("one"), "got one\n");
        heard.try_recv().map(|line| assert_eq!(line, "got one"))
    });
    assert_eq!(speak("two"), "got two\n");
    let log = cluster.kubectl(&["logs", "talker"]);
    assert!(log.contains("got one\n") && log.contains("got two\n") && log.contains("no\n"), "{log}");

    cluster.kubectl(&["delete", "pod/talker", "--timeout=90s"]);
    listening.join().unwrap();
    assert_eq!(heard.into_iter().last().as_deref(), Some("got two"));
    let mut errors = String::new();
    watcher.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    assert!(watcher.wait().unwrap().success(), "{errors}");
    let refused = cluster.kubectl_refused(&["attach", "talker"]);
    assert!(refused.contains("pods \"talker\" not found"), "{refused}");
}

#[test]
fn a_terminal_is_attached_to_with_its_size() {
    let cluster = cluster_with("shell", "{name: main, image: 'busybox:1', stdin: true, tty: true, command: [sh]}");
    let mut console = Console::open(&cluster.kubectl_command(&["attach", "-it", "shell"]));
    console.types("\n");
    console.until("#");
    console.types("stty size; tty\n");
    console.until("33 99");
    console.until("/dev/pts/0");
    console.types("exit 0\n");
    assert_eq!(console.ends().1, Some(0));
    assert!(cluster.kubectl(&["logs", "shell"]).contains("33 99"));
}

#[test]
fn run_makes_a_pod_talks_to_it_and_takes_it_away() {
    let cluster = cluster_with("other", "{name: main, image: 'busybox:1', command: [sleep, '1000000']}");
    let run = ["run", "once", "--image=busybox:1", "--restart=Never", "--quiet", "--rm", "--image-pull-policy=Never"];
    let with = |rest: &[&'static str]| [&run[..], rest].concat();
    // What is typed into a pod that takes input once ends with us.
    let counted = cluster.kubectl_stdin(&with(&["-i", "--", "sh", "-c", "wc -c; sleep 1"]), &"x".repeat(300_000));
    assert!(counted.starts_with("300000\n"), "{counted}");
    assert!(cluster.kubectl_refused(&["get", "pod/once"]).contains("not found"));

    // Its exit code is ours.
    let output = cluster.kubectl_output(&with(&["-i", "--", "sh", "-c", "cat; exit 7"]));
    assert_eq!(output.status.code(), Some(7), "{}", String::from_utf8_lossy(&output.stderr));

    let mut console = Console::open(&cluster.kubectl_command(&with(&["-it", "--", "sh"])));
    console.until("#");
    console.types("stty size\n");
    console.until("33 99");
    console.types("exit 3\n");
    assert_eq!(console.ends().1, Some(3));
}
