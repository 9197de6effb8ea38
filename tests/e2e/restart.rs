//! Power cuts, restarts and goodbyes: nothing acknowledged is lost, nothing is left behind.

use std::{fs, path::PathBuf, time::Duration};

use nix::sys::signal::Signal;

use crate::{cluster::Cluster, host::Host, wait::wait_for};

const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: steady}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers:\n  \
    - {name: c, image: 'busybox:1', command: [sh, -c, 'echo started; exec sleep 424242']}\n";

const SLEEP: &str = "sleep 424242";

/// Invariant 1: an acknowledged write survives kill -9 at any instant.
#[test]
fn every_acknowledged_object_is_there_after_a_kill() {
    let mut cluster = Cluster::start();
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        for n in 0..5 {
            let name = format!("cm-{round}-{n}");
            cluster.kubectl(&["create", "configmap", &name, "--from-literal=k=v"]);
            acknowledged.push(name);
        }
        cluster.end(Signal::SIGKILL);
        cluster.up();
        let names = cluster.kubectl(&["get", "configmaps", "-o", "name"]);
        for name in &acknowledged {
            assert!(names.lines().any(|line| line == format!("configmap/{name}")), "{name} is lost:\n{names}");
        }
    }
}

/// The last segment of the store's log.
fn last_segment(cluster: &Cluster) -> PathBuf {
    let files = fs::read_dir(cluster.data_dir().join("store/log")).expect("a directory");
    files.map(|file| file.expect("an entry").path()).max().expect("a segment")
}

#[test]
fn what_was_being_written_is_told_in_one_line_and_what_has_rotted_is_refused_with_the_way_out() {
    let mut cluster = Cluster::start_on(Host::new(), &["--no-agent"]);
    cluster.kubectl(&["create", "configmap", "kept"]);
    cluster.end(Signal::SIGKILL);
    let segment = last_segment(&cluster);
    let mut whole = fs::read(&segment).expect("a file");
    let frame = whole.windows(4).position(|bytes| bytes == b"\xC0LOG").expect("a frame");
    // Behind the last frame are zeros. The beginning of one, as if the power had gone while it was written.
    let written = |bytes: &[u8]| bytes.iter().rposition(|byte| *byte != 0).expect("something") + 1;
    let end = written(&whole);
    let torn = whole[frame..frame + written(&whole[frame..frame + 40])].to_vec();
    whole.splice(end..(end + torn.len()).min(whole.len()), torn.iter().copied());
    fs::write(&segment, &whole).expect("a file");
    cluster.up();
    let log = cluster.log();
    let name = segment.file_name().expect("a name").display().to_string();
    let bytes = torn.len();
    let words = format!("torn={bytes} bytes of {name} from byte {end} on, which were never acknowledged, were cut off");
    let told: Vec<&str> = log.lines().filter(|line| line.contains("store opened")).collect();
    assert!(told.len() == 2 && !told[0].contains("torn=") && told[1].contains(&words), "{told:#?}");
    cluster.kubectl(&["get", "configmap", "kept"]);

    cluster.end(Signal::SIGKILL);
    let segment = last_segment(&cluster);
    let mut bytes = fs::read(&segment).expect("a file");
    bytes[frame + 30] ^= 1;
    fs::write(&segment, &bytes).expect("a file");
    let kubeconfig = cluster.kubeconfig();
    let kubeconfig = kubeconfig.to_str().expect("a path of text");
    let refused = cluster.coracle(&["server", "--listen", "127.0.0.1:6443", "--kubeconfig", kubeconfig]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    for words in [
        &format!("{name} is damaged at byte {frame}: "),
        "restore a snapshot into an empty data directory",
        "or remove the directory and join the cluster anew",
    ] {
        assert!(said.contains(words), "no {words:?} in {said}");
    }
    assert_eq!(fs::read(&segment).expect("a file"), bytes, "nothing was changed");
    // What was there before is there again with the bit as it was.
    bytes[frame + 30] ^= 1;
    fs::write(&segment, &bytes).expect("a file");
    cluster.up();
    cluster.kubectl(&["get", "configmap", "kept"]);
}

/// Invariant 4: no container is started twice for one attempt.
#[test]
fn with_keep_pods_containers_outlive_the_process() {
    containers_outlive(&["--keep-pods"], &[Signal::SIGKILL, Signal::SIGTERM]);
}

/// A process that was killed could not stop its pods; the next one takes them over, whatever it will do at its own end.
#[test]
fn containers_outlive_a_kill_whatever_the_flags() {
    containers_outlive(&[], &[Signal::SIGKILL, Signal::SIGKILL]);
}

fn containers_outlive(flags: &[&str], signals: &[Signal]) {
    let mut cluster = Cluster::start_on(Host::new(), flags);
    cluster.import("busybox", "busybox:1");
    cluster.apply(POD);
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/steady", "--timeout=60s"]);
    let before = cluster.wait_processes(SLEEP, 1);
    for &signal in signals {
        cluster.end(signal);
        assert_eq!(cluster.processes(SLEEP), before, "stopped by {signal}");
        cluster.up();
        cluster.kubectl(&["wait", "--for=condition=Ready", "pod/steady", "--timeout=60s"]);
        assert_eq!(cluster.processes(SLEEP), before);
        let count =
            cluster.kubectl(&["get", "pod/steady", "-o", "jsonpath={.status.containerStatuses[0].restartCount}"]);
        assert_eq!(count, "0");
        assert_eq!(cluster.kubectl(&["logs", "steady"]), "started\n");
    }
    cluster.kubectl(&["delete", "pod/steady", "--timeout=90s"]);
    assert!(cluster.processes(SLEEP).is_empty());
}

#[test]
fn a_clean_stop_leaves_nothing_running_or_mounted() {
    let mut cluster = Cluster::start();
    cluster.import("busybox", "busybox:1");
    cluster.apply(POD);
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/steady", "--timeout=60s"]);
    assert!(cluster.host.stdout("ip", &["-o", "link"]).contains("@if"));
    assert!(!cluster.groups().is_empty());
    let status = cluster.end(Signal::SIGINT);
    assert!(status.success(), "{status}");
    assert!(cluster.processes(SLEEP).is_empty());
    assert_eq!(cluster.mounts(), Vec::<String>::new());
    // The pods' gateway stays for the next start, the pods' interfaces do not.
    let links = cluster.host.stdout("ip", &["-o", "link"]);
    assert!(!links.contains("@if"), "{links}");
    assert_eq!(cluster.groups(), Vec::<std::path::PathBuf>::new());
    // That this machine's disk is slow is none of the node's doing.
    let is_own = |line: &&str| line.contains(" WARN ") && !line.contains("the disk is slow");
    let warnings: Vec<String> = cluster.log().lines().filter(is_own).map(str::to_owned).collect();
    assert_eq!(warnings, Vec::<String>::new());

    // The pod is there again with the next start, in a new container.
    cluster.up();
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/steady", "--timeout=60s"]);
}

#[test]
fn a_purge_leaves_the_host_as_it_was() {
    let host = Host::new();
    let links_before = host.stdout("ip", &["-o", "link"]);
    let mut cluster = Cluster::start_on(host, &[]);
    cluster.import("busybox", "busybox:1");
    cluster.apply(POD);
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/steady", "--timeout=60s"]);
    cluster.end(Signal::SIGKILL);
    let output = cluster.purge();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    wait_for("the container to be gone", Duration::from_secs(60), || {
        let left = cluster.processes(SLEEP);
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
    assert!(!cluster.data_dir().exists(), "the data directory is there");
    assert_eq!(cluster.mounts(), Vec::<String>::new());
    assert_eq!(cluster.host.stdout("ip", &["-o", "link"]), links_before);
    assert_eq!(cluster.host.stdout("nft", &["list", "tables"]), "");
    // And a new cluster starts where the old one was.
    cluster.up();
}

/// Nobody tidies up after a kill at that moment; what is left carries the cluster's mark, the next one works in it, and both its
/// end and `coracle down` remove it.
#[test]
fn what_a_kill_leaves_of_a_node_without_pods_is_found_again() {
    let mut cluster = Cluster::start();
    let made = |cluster: &Cluster| {
        wait_for("the cgroup of all pods", Duration::from_secs(60), || {
            let groups = cluster.groups();
            if groups.is_empty() { Err(groups) } else { Ok(()) }
        });
    };
    made(&cluster);
    cluster.end(Signal::SIGKILL);
    assert!(!cluster.groups().is_empty());
    cluster.up();
    made(&cluster);
    cluster.end(Signal::SIGTERM);
    assert_eq!(cluster.groups(), Vec::<std::path::PathBuf>::new(), "after an end");
    cluster.up();
    made(&cluster);
    cluster.end(Signal::SIGKILL);
    let mut down = cluster.host.command(env!("CARGO_BIN_EXE_coracle"));
    let output = down.args(["down", "--data-dir"]).arg(cluster.data_dir()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(cluster.groups(), Vec::<std::path::PathBuf>::new(), "after `coracle down`");
}

#[test]
fn a_second_instance_on_the_same_data_is_refused_and_says_which() {
    let cluster = Cluster::start();
    let output = cluster
        .host
        .command(env!("CARGO_BIN_EXE_coracle"))
        .args(["up", "--listen", "127.0.0.1:7443", "--data-dir"])
        .arg(cluster.data_dir())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(&cluster.pid().to_string()) && said.contains("data"), "{said}");
}

#[test]
fn a_port_in_use_is_named_at_once() {
    let cluster = Cluster::start();
    let output = cluster
        .host
        .command(env!("CARGO_BIN_EXE_coracle"))
        .args(["up", "--listen", "127.0.0.1:6443", "--data-dir"])
        .arg(cluster.scratch().join("other"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("127.0.0.1:6443") && said.contains("in use"), "{said}");
}

/// KEP-2000: ordinary pods end first, critical ones after them, and each says why.
#[test]
fn pods_end_in_their_order_when_the_machine_goes_down() {
    let flags = ["--shutdown-grace-period", "240", "--shutdown-grace-period-critical-pods", "120"];
    let mut cluster = Cluster::start_on(Host::new(), &flags);
    cluster.import("busybox", "busybox:1");
    let share = cluster.scratch().join("share");
    std::fs::create_dir(&share).unwrap();
    // Each says that it runs, and ends when it is told to and may; the node's own grace is less than its.
    let pod = |name: &str, more: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 500\n  {more}\n  \
             containers:\n  - name: c\n    image: busybox:1\n    \
             command: [sh, -c, 'trap \"until test -e /share/go; do sleep 0.1; done; echo {name} >> /share/ended; exit 0\" TERM; \
             touch /tmp/up; while true; do sleep 0.1; done']\n    readinessProbe: {{exec: {{command: [test, -e, /tmp/up]}}, periodSeconds: 1}}\n    \
             volumeMounts: [{{name: share, mountPath: /share}}]\n  volumes: [{{name: share, hostPath: {{path: {}}}}}]\n",
            share.display()
        )
    };
    cluster.apply(&pod("critical", "priorityClassName: system-node-critical"));
    cluster.apply(&pod("ordinary", "restartPolicy: Always"));
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s"]);

    let process = nix::unistd::Pid::from_raw(i32::try_from(cluster.pid()).unwrap());
    nix::sys::signal::kill(process, Signal::SIGPWR).unwrap();
    let ready = "{.status.conditions[?(@.type==\"Ready\")].status} {.status.conditions[?(@.type==\"Ready\")].reason}: \
                 {.status.conditions[?(@.type==\"Ready\")].message}";
    cluster.wait_jsonpath(&["node/node-1"], ready, "False KubeletNotReady: node is shutting down");
    let ended = "{.status.phase} {.status.reason}: {.status.message}";
    cluster.apply(&pod("late", "nodeName: node-1"));
    let refused = "Failed NodeShutdown: Pod was rejected: Pod was rejected as the node is shutting down.";
    cluster.wait_jsonpath(&["pod/late"], ended, refused);
    // The one waits for the file and the other for the one.
    assert_eq!(
        cluster.kubectl(&["get", "pod/critical", "-o", "jsonpath={.status.phase} {.status.reason}"]),
        "Running "
    );

    std::fs::write(share.join("go"), "").unwrap();
    let terminated = "Failed Terminated: Pod was terminated in response to imminent node shutdown.";
    let disrupted = "{.status.conditions[?(@.type==\"DisruptionTarget\")].reason}";
    for name in ["ordinary", "critical"] {
        cluster.wait_jsonpath(&[&format!("pod/{name}")], ended, terminated);
        cluster.wait_jsonpath(&[&format!("pod/{name}")], disrupted, "TerminationByKubelet");
    }
    assert_eq!(std::fs::read_to_string(share.join("ended")).unwrap(), "ordinary\ncritical\n");
    assert!(cluster.end(Signal::SIGTERM).success(), "{}", cluster.log());
}
