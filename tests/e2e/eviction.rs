//! A node that runs short of something: it says so, and one pod after the other goes, in the order that is kubelet's.

use nix::sys::signal::Signal;

use crate::{cluster::Cluster, disk::Disk};

fn pod(name: &str, priority: &str, script: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 0\n  \
         priorityClassName: {priority}\n  containers:\n  - name: c\n    image: busybox:1\n    \
         command: [sh, -c, '{script}; exec sleep 1000000']\n    volumeMounts: [{{name: data, mountPath: /data}}]\n  \
         volumes: [{{name: data, emptyDir: {{}}}}]\n"
    )
}

const CLASSES: &str = "apiVersion: scheduling.k8s.io/v1\nkind: PriorityClass\nmetadata: {name: plain}\nvalue: 0\n---\n\
                       apiVersion: scheduling.k8s.io/v1\nkind: PriorityClass\nmetadata: {name: dear}\nvalue: 1000\n";

const ENDED: &str = "{.status.phase} {.status.reason}";

#[test]
fn the_pod_that_takes_the_most_inodes_goes_and_what_it_took_is_there_again() {
    let disk = Disk::of("size=2g,nr_inodes=8000");
    {
        let flags = ["--eviction-hard", "nodefs.inodesFree<3000", "--eviction-pressure-transition-period", "1s"];
        let cluster = Cluster::start_in(disk.path().join("data"), &flags);
        cluster.import("busybox", "busybox:1");
        cluster.import("nginx", "unused:1");
        cluster.apply(CLASSES);
        cluster.apply(&pod("modest", "plain", "true"));
        cluster.kubectl(&["wait", "--for=condition=Ready", "pod/modest", "--timeout=60s"]);
        // What takes the most goes before what matters less and takes little: nobody can request inodes.
        cluster.apply(&pod(
            "greedy",
            "plain",
            "mkdir /data/d /d; for i in $(seq 3000); do : > /data/d/$i && : > /d/$i || break; done",
        ));
        cluster.wait_jsonpath(&["pod/greedy"], ENDED, "Failed Evicted");
        let told = cluster.kubectl(&["get", "pod", "greedy", "-o", "jsonpath={.status.message}"]);
        assert!(
            told.starts_with("The node was low on resource: inodes. Threshold quantity: 3k, available: "),
            "{told}"
        );
        let disrupted = "{.status.conditions[?(@.type==\"DisruptionTarget\")].reason}";
        cluster.wait_jsonpath(&["pod/greedy"], disrupted, "TerminationByKubelet");
        let events =
            cluster.kubectl(&["get", "events", "-o", "jsonpath={range .items[*]}{.reason}: {.message}{\"\\n\"}{end}"]);
        for event in ["EvictionThresholdMet: Attempting to reclaim inodes", "NodeHasDiskPressure"] {
            assert!(events.contains(event), "{event}: {events}");
        }
        let pressure = "{.status.conditions[?(@.type==\"DiskPressure\")].status}";
        cluster.wait_jsonpath(&["node/node-1"], pressure, "False");
        // Images that nobody uses went before any pod did.
        let images = cluster.coracle_does(&["image", "list"]);
        assert!(images.contains("busybox:1") && !images.contains("unused:1"), "{images}");
        let modest = "{.status.phase} {.status.containerStatuses[0].restartCount}";
        cluster.wait_jsonpath(&["pod/modest"], modest, "Running 0");
    }
}

/// Checks that these have gone one after the other.
#[track_caller]
fn in_order(cluster: &Cluster, names: [&str; 3]) {
    let at = "jsonpath={.status.conditions[?(@.type==\"DisruptionTarget\")].lastTransitionTime}";
    let order = names.map(|name| cluster.kubectl(&["get", "pod", name, "-o", at]));
    assert!(order.is_sorted() && order[0] != order[2], "{names:?}: {order:?}");
}

#[test]
fn of_pods_that_matter_as_little_the_one_with_the_most_processes_goes_first() {
    let mut cluster = Cluster::start();
    cluster.import("busybox", "busybox:1");
    cluster.apply(CLASSES);
    let many = "for i in $(seq 100); do sleep 1000001 & done";
    cluster.apply(&pod("few", "plain", "true"));
    cluster.apply(&pod("many", "plain", many));
    cluster.apply(&pod("dear", "dear", many));
    cluster.apply(&pod("critical", "system-node-critical", "true"));
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod", "--all", "--timeout=90s"]);
    cluster.wait_processes("sleep 1000001", 200);
    // Pods that run are not asked again whether they may: so the node is short of what it has enough of.
    cluster.end(Signal::SIGKILL);
    cluster.flags.extend(["--eviction-hard".to_owned(), "pid.available<99.999%".to_owned()]);
    cluster.up();
    for name in ["many", "few", "dear"] {
        cluster.wait_jsonpath(&[&format!("pod/{name}")], ENDED, "Failed Evicted");
        let told = cluster.kubectl(&["get", "pod", name, "-o", "jsonpath={.status.message}"]);
        assert!(told.starts_with("The node was low on resource: pids. Threshold quantity: "), "{told}");
    }
    in_order(&cluster, ["many", "few", "dear"]);
    cluster.wait_jsonpath(&["pod/critical"], "{.status.phase}", "Running");
    let pressure = "{.status.conditions[?(@.type==\"PIDPressure\")].status}";
    cluster.wait_jsonpath(&["node/node-1"], pressure, "True");
    cluster.apply(&pod("late", "plain", "true").replace("spec:", "spec:\n  nodeName: node-1"));
    cluster.wait_jsonpath(&["pod/late"], ENDED, "Failed Evicted");
    let told = cluster.kubectl(&["get", "pod", "late", "-o", "jsonpath={.status.message}"]);
    assert!(told.contains("The node had condition: [PIDPressure]"), "{told}");
}

#[test]
fn who_takes_more_memory_than_was_asked_for_goes_first_and_is_told_how_much() {
    let mut cluster = Cluster::start();
    cluster.import("busybox", "busybox:1");
    cluster.apply(CLASSES);
    let requests = "resources: {requests: {memory: 64Mi}}\n    volumeMounts:";
    let in_memory = |pod: String| pod.replace("emptyDir: {}", "emptyDir: {medium: Memory}");
    cluster.apply(&pod("modest", "plain", "true").replace("volumeMounts:", requests));
    cluster.apply(&pod("small", "plain", "true"));
    cluster.apply(&in_memory(pod("hog", "plain", "head -c 40000000 /dev/zero > /data/file")));
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod", "--all", "--timeout=90s"]);
    cluster.wait_processes("sleep 1000000", 3);
    cluster.end(Signal::SIGKILL);
    cluster.flags.extend(["--eviction-hard".to_owned(), "memory.available<99.999%".to_owned()]);
    cluster.up();
    for name in ["hog", "small", "modest"] {
        cluster.wait_jsonpath(&[&format!("pod/{name}")], ENDED, "Failed Evicted");
    }
    in_order(&cluster, ["hog", "small", "modest"]);
    let told = |name: &str| cluster.kubectl(&["get", "pod", name, "-o", "jsonpath={.status.message}"]);
    let (hog, modest) = (told("hog"), told("modest"));
    assert!(hog.starts_with("The node was low on resource: memory. Threshold quantity: "), "{hog}");
    assert!(
        hog.contains("Container c was using ") && hog.contains("request is 0, has larger consumption of memory. "),
        "{hog}"
    );
    assert!(!modest.contains("Container c"), "{modest}");
}
