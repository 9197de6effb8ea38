//! `kubectl logs` and `kubectl exec`: what streams between a person and a container.

use std::{
    io::{BufRead, BufReader, Write},
    process::Stdio,
};

use crate::{cluster::Cluster, console::Console, wait::wait_for};

fn cluster_with(name: &str, script: &str) -> Cluster {
    let cluster = Cluster::start();
    cluster.import("busybox", "busybox:1");
    cluster.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 0\n  containers:\n  \
         - {{name: main, image: 'busybox:1', command: [sh, -c, {script:?}]}}\n  \
         - {{name: side, image: 'busybox:1', command: [sh, -c, 'echo from the side; exec sleep 1000000']}}\n"
    ));
    cluster.kubectl(&["wait", "--for=condition=Ready", &format!("pod/{name}"), "--timeout=60s"]);
    cluster
}

#[test]
fn logs_can_be_read_in_every_way() {
    let cluster =
        cluster_with("talker", "for i in 1 2 3 4 5; do echo line $i; done; echo oops >&2; exec sleep 1000000");
    let all = wait_for("the whole log", crate::cluster::LONG, || {
        let log = cluster.kubectl(&["logs", "talker", "-c", "main"]);
        if log.lines().count() == 6 { Ok(log) } else { Err(log) }
    });
    // Lines of one stream keep their order; the two are pipes of their own and have none between them.
    let out: Vec<&str> = all.lines().filter(|line| *line != "oops").collect();
    assert_eq!(out, ["line 1", "line 2", "line 3", "line 4", "line 5"], "{all}");
    assert_eq!(cluster.kubectl(&["logs", "talker", "-c", "side"]), "from the side\n");
    assert_eq!(cluster.kubectl(&["logs", "talker", "-c", "main", "--tail=1"]).lines().count(), 1);
    assert_eq!(cluster.kubectl(&["logs", "talker", "-c", "main", "--limit-bytes=4"]), all[..4]);
    let stamped = cluster.kubectl(&["logs", "talker", "-c", "main", "--timestamps", "--tail=1"]);
    assert!(stamped.starts_with("20") && stamped.contains("Z "), "{stamped}");
    assert_eq!(cluster.kubectl(&["logs", "talker", "-c", "main", "--since=1h"]), all);
    let both = cluster.kubectl(&["logs", "talker", "--all-containers", "--prefix"]);
    assert!(both.contains("[pod/talker/side] from the side"), "{both}");
    let refused = cluster.kubectl_refused(&["logs", "talker", "-c", "nobody"]);
    assert!(refused.contains("container nobody is not valid for pod talker"), "{refused}");
    let refused = cluster.kubectl_refused(&["logs", "nobody"]);
    assert!(refused.contains("pods \"nobody\" not found"), "{refused}");
}

#[test]
fn a_followed_log_shows_lines_as_they_come() {
    let cluster = cluster_with(
        "slow",
        "while read line; do echo got $line; done < /pipe; exec sleep 1000000".replace("/pipe", "/dev/null").as_str(),
    );
    let mut child =
        cluster.kubectl_command(&["logs", "-f", "slow", "-c", "main"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for word in ["first", "second"] {
        // What PID 1 writes to is what is logged; exec reaches the same file through /proc.
        cluster.kubectl(&["exec", "slow", "-c", "main", "--", "sh", "-c", &format!("echo {word} > /proc/1/fd/1")]);
        assert_eq!(lines.next().unwrap().unwrap(), word);
    }
    cluster.kubectl(&["delete", "pod/slow", "--timeout=90s"]);
    assert!(lines.next().is_none(), "the stream ends with the container");
    assert!(child.wait().unwrap().success());
}

#[test]
fn exec_carries_streams_and_exit_codes() {
    let cluster = cluster_with("box", "exec sleep 1000000");
    let output =
        cluster.kubectl_output(&["exec", "box", "-c", "main", "--", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "out\n");
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("err\n"));
    assert_eq!(output.status.code(), Some(7));

    // Standard input ends when ours does.
    let sum = cluster.kubectl_stdin(&["exec", "-i", "box", "-c", "main", "--", "wc", "-c"], &"x".repeat(300_000));
    assert_eq!(sum.trim(), "300000");

    let refused = cluster.kubectl_refused(&["exec", "box", "-c", "main", "--", "/no/such/program"]);
    assert!(refused.contains("no such file or directory"), "{refused}");
    let refused = cluster.kubectl_refused(&["exec", "box", "-c", "nobody", "--", "true"]);
    assert!(refused.contains("nobody"), "{refused}");
}

#[test]
fn exec_with_a_terminal_is_one() {
    let cluster = cluster_with("box", "exec sleep 1000000");
    let mut console = Console::open(&cluster.kubectl_command(&["exec", "-it", "box", "-c", "main", "--", "sh"]));
    console.until("#");
    console.types("tty; stty size; exit 5\n");
    console.until("/dev/pts/");
    console.until("33 99");
    assert_eq!(console.ends().1, Some(5));
}

/// What clients older than 1.31 do, and today's when they are told to.
#[test]
fn older_clients_have_exec_attach_and_cp_as_well() {
    let cluster = cluster_with("box", "while read line; do echo got $line; done < /dev/null; exec sleep 1000000");
    let older = |arguments: &[&str]| {
        let mut command = cluster.kubectl_command(arguments);
        command.env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "false");
        command
    };
    let exec = ["exec", "-i", "box", "-c", "main", "--"];
    let output = older(&[&exec[..], &["sh", "-c", "echo out; echo err >&2; exit 7"]].concat()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "out\n");
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("err\n"));
    assert_eq!(output.status.code(), Some(7));

    let mut child =
        older(&[&exec[..], &["wc", "-c"]].concat()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&[b'x'; 3_000_000]).unwrap();
    assert_eq!(String::from_utf8_lossy(&child.wait_with_output().unwrap().stdout).trim(), "3000000");

    let refused = older(&[&exec[..], &["/no/such/program"]].concat()).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("no such file or directory") && !refused.status.success(), "{said}");

    let mut console = Console::open(&older(&["exec", "-it", "box", "-c", "main", "--", "sh"]));
    console.until("#");
    console.types("stty size; exit 5\n");
    console.until("33 99");
    assert_eq!(console.ends().1, Some(5));
}

#[test]
fn files_are_copied_both_ways_by_new_and_older_clients() {
    let cluster = cluster_with("box", "exec sleep 1000000");
    let bytes: Vec<u8> = (0..5_000_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    let (there, back) = (cluster.scratch().join("there"), cluster.scratch().join("back"));
    std::fs::write(&there, &bytes).unwrap();
    for websockets in ["true", "false"] {
        let copy = |from: &str, to: &str| {
            let mut command = cluster.kubectl_command(&["cp", "-c", "main", from, to]);
            let output = command.env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", websockets).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        };
        let inside = format!("box:/tmp/{websockets}");
        copy(there.to_str().unwrap(), &inside);
        copy(&inside, back.to_str().unwrap());
        assert!(std::fs::read(&back).unwrap() == bytes, "with websockets {websockets}");
        std::fs::remove_file(&back).unwrap();
    }
}
