//! The process killed while it starts and stops many pods, at one instant after the other: what was begun is finished by
//! the next one, nothing is done twice, and nothing is left behind.

use std::{fmt::Write, fs, path::Path, thread, time::Duration};

use nix::sys::signal::Signal;

use crate::{cluster::Cluster, host::Host, wait::wait_for};

const PODS: usize = 10;
const SLEEP: &str = "sleep 535353";

/// When the process is killed, in milliseconds after it was given the pods: from before the first sandbox is made until
/// after the last container runs.
const INSTANTS: [u64; 6] = [20, 120, 300, 550, 900, 1600];

fn pods() -> String {
    let mut manifest = String::new();
    for number in 0..PODS {
        writeln!(
            manifest,
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: p-{number}}}\nspec:\n  terminationGracePeriodSeconds: 1\n  \
             volumes: [{{name: data, emptyDir: {{medium: Memory}}}}]\n  containers:\n  - name: c\n    image: busybox:1\n    \
             command: [sh, -c, 'echo started; exec {SLEEP}']\n    volumeMounts: [{{name: data, mountPath: /data}}]"
        )
        .unwrap();
    }
    manifest
}

/// What each container of the cluster has written to its log, one log an attempt.
fn logs(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            found.extend(logs(&entry.path()));
        } else {
            found.push(fs::read_to_string(entry.path()).unwrap());
        }
    }
    found
}

/// Every pod runs, each in one sandbox with one interface, and no attempt of a container was started twice.
fn check_running(cluster: &Cluster) {
    if let Err(error) = cluster.try_kubectl(&["wait", "--for=condition=Ready", "pod", "--all", "--timeout=90s"]) {
        let shown = [&["get", "pods", "-o", "yaml"][..], &["get", "events"]].map(|asked| cluster.try_kubectl(asked));
        panic!(
            "{error}\n{}\nlog:\n{}",
            shown.map(|shown| shown.unwrap_or_else(|error| error)).join("\n"),
            cluster.log()
        );
    }
    cluster.wait_processes(SLEEP, PODS);
    wait_for("each log to say what its container said", Duration::from_secs(60), || {
        let logs = logs(&cluster.data_dir().join("agent/logs"));
        let counts = logs.iter().map(|log| log.lines().filter(|line| line.ends_with(" started")).count());
        let counts: Vec<usize> = counts.collect();
        assert!(counts.iter().all(|count| *count < 2), "{logs:?}");
        if counts.iter().all(|count| *count == 1) { Ok(()) } else { Err(counts) }
    });
    // Containers outlive the process, so none had to be restarted.
    let counts =
        cluster.kubectl(&["get", "pods", "-o", "jsonpath={.items[*].status.containerStatuses[*].restartCount}"]);
    assert_eq!(counts, ["0"; PODS].join(" "));
    assert_eq!(fs::read_dir(cluster.run_dir().join("runtime/sandboxes")).unwrap().count(), PODS);
    assert_eq!(cluster.host.stdout("ip", &["-o", "link"]).matches("@if").count(), PODS);
}

/// Nothing of any pod is left.
fn check_gone(cluster: &Cluster) {
    cluster.kubectl(&["wait", "--for=delete", "pod", "--all", "--timeout=60s"]);
    assert!(cluster.processes(SLEEP).is_empty());
    // A pod is gone for the API server once its containers are; its last files go with it or right after.
    wait_for("the pods' files and interfaces to be gone", Duration::from_secs(60), || {
        let sandboxes = fs::read_dir(cluster.run_dir().join("runtime/sandboxes")).unwrap().count();
        let links = cluster.host.stdout("ip", &["-o", "link"]).matches("@if").count();
        let left = (sandboxes, links, cluster.mounts());
        if left == (0, 0, Vec::new()) { Ok(()) } else { Err(left) }
    });
}

fn kill_after(cluster: &mut Cluster, milliseconds: u64) {
    // The instant is what is tested, not something that is waited for.
    thread::sleep(Duration::from_millis(milliseconds));
    cluster.end(Signal::SIGKILL);
}

/// Invariant 4: no container is started twice for one attempt, and none is left behind.
#[test]
fn killed_at_any_instant_of_starting_and_stopping_pods_nothing_is_started_twice_or_left() {
    let host = Host::new();
    let links_before = host.stdout("ip", &["-o", "link"]);
    let mut cluster = Cluster::start_on(host, &[]);
    cluster.import("busybox", "busybox:1");
    for (round, instant) in INSTANTS.into_iter().enumerate() {
        cluster.apply(&pods());
        kill_after(&mut cluster, instant);
        cluster.flags = if round % 2 == 0 { vec!["--keep-pods".to_owned()] } else { Vec::new() };
        cluster.up();
        check_running(&cluster);
        cluster.kubectl(&["delete", "pods", "--all", "--wait=false"]);
        kill_after(&mut cluster, instant);
        cluster.up();
        check_gone(&cluster);
    }
    cluster.apply(&pods());
    kill_after(&mut cluster, INSTANTS[2]);
    let (groups, run_dir) = (cluster.places_of_groups(), cluster.run_dir());
    let purged = cluster.purge();
    assert!(purged.status.success(), "{}", String::from_utf8_lossy(&purged.stderr));
    assert!(cluster.processes(SLEEP).is_empty());
    assert_eq!(groups.iter().filter(|group| group.exists()).count(), 0, "{groups:?}");
    assert_eq!(cluster.mounts(), Vec::<String>::new());
    assert_eq!(cluster.host.stdout("ip", &["-o", "link"]), links_before);
    assert_eq!(cluster.host.stdout("nft", &["list", "tables"]), "");
    assert!(!run_dir.exists() && !cluster.data_dir().exists());
    assert!(!cluster.log().contains("panicked"), "{}", cluster.log());
}
