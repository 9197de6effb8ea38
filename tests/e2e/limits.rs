//! What a pod says of its resources, the kernel holds it to: its cgroups from its start over a change to its end.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    cluster::{Cluster, LONG},
    wait::wait_for,
};

/// Files of a cgroup by what they say, with the hierarchy they are in where there are several (cgroups(7)).
const FILES: &[(&str, &str, &str)] = &[
    ("cpu.weight", "cpu", "cpu.shares"),
    ("cpu.max", "cpu", "cpu.cfs_quota_us"),
    ("memory.max", "memory", "memory.limit_in_bytes"),
    ("pids.max", "pids", "pids.max"),
];

/// Whether this machine has cgroup v2 alone.
fn is_unified() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// The directory of the cluster's cgroup with `controller`.
fn root(cluster: &Cluster, controller: &str) -> PathBuf {
    let mut groups = cluster.groups().into_iter();
    let is_it = |path: &PathBuf| is_unified() || path.parent().unwrap().ends_with(controller);
    groups.find(is_it).unwrap_or_else(|| panic!("no cgroup with {controller}"))
}

/// What the kernel has of these files of a group below the cluster's own: weight or shares, quota, bytes, processes.
fn limits(cluster: &Cluster, group: &str) -> Vec<String> {
    let read = |(v2, controller, v1): &(&str, &str, &str)| {
        let file = root(cluster, controller).join(group).join(if is_unified() { v2 } else { v1 });
        let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        text.trim().to_owned()
    };
    FILES.iter().map(read).collect()
}

/// With the figures that KEP-2254 and kubelet's own code give: requests are weights, limits are quotas and bytes.
#[test]
fn the_kernel_holds_a_pod_to_what_it_says() {
    let cluster = Cluster::start();
    cluster.import("busybox", "busybox:1");
    let mib = |count: u64| (count << 20).to_string();
    let both = |v2: [&str; 2], v1: [&str; 2]| (if is_unified() { v2 } else { v1 }).map(str::to_owned);

    cluster.apply(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: held}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers:\n  \
         - name: c\n    image: busybox:1\n    \
         command: [sh, -c, 'head -c 30000000 /dev/zero > /memory/file; touch /tmp/up; exec sleep 1000000']\n    \
         resources: {requests: {cpu: 250m, memory: 64Mi}, limits: {cpu: 500m, memory: 128Mi}}\n    \
         readinessProbe: {exec: {command: [test, -e, /tmp/up]}, periodSeconds: 1}\n    \
         volumeMounts: [{name: memory, mountPath: /memory}]\n  \
         volumes: [{name: memory, emptyDir: {medium: Memory, sizeLimit: 40Mi}}]\n",
    );
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/held", "--timeout=90s"]);
    let uid = cluster.kubectl(&["get", "pod", "held", "-o", "jsonpath={.metadata.uid}"]);
    let pod = format!("kubepods/burstable/pod{uid}");
    let container = fs::read_dir(root(&cluster, "memory").join(&pod)).unwrap().map(|entry| entry.unwrap());
    let container = container.filter(|entry| entry.file_type().unwrap().is_dir()).map(|entry| entry.file_name());
    let container = container.map(|name| name.into_string().unwrap()).find(|name| !name.starts_with("supervisor"));
    let container = format!("{pod}/{}", container.expect("the container's group"));
    // 250m are 256 shares, which are the weight 1 + (256 - 2) * 9999 / 262142.
    let [weight, quota] = both(["10", "50000 100000"], ["256", "50000"]);
    assert_eq!(limits(&cluster, &pod), [&*weight, &*quota, &*mib(128), "4096"]);
    assert_eq!(limits(&cluster, &container), [&*weight, &*quota, &*mib(128), "max"]);

    // What it keeps in its memory volume is its own, and is told of it.
    let node = |path: &str| cluster.kubectl(&["get", "--raw", &format!("/api/v1/nodes/node-1/proxy/{path}")]);
    let summary: serde_json::Value = serde_json::from_str(&node("stats/summary")).unwrap();
    let used = &summary["pods"][0]["containers"][0];
    assert!(used["memory"]["workingSetBytes"].as_u64().unwrap() > 30_000_000, "{summary}");
    assert!(used["cpu"]["usageCoreNanoSeconds"].as_u64().unwrap() > 0, "{summary}");

    let patch = r#"{"spec": {"containers": [{"name": "c", "resources":
        {"requests": {"cpu": "100m"}, "limits": {"cpu": "200m", "memory": "192Mi"}}}]}}"#;
    cluster.kubectl(&["patch", "pod", "held", "--subresource", "resize", "-p", patch]);
    let told = "--for=jsonpath={.status.containerStatuses[0].resources.limits.memory}=192Mi";
    cluster.kubectl(&["wait", told, "pod/held", "--timeout=90s"]);
    let [weight, quota] = both(["4", "20000 100000"], ["102", "20000"]);
    assert_eq!(limits(&cluster, &container)[..3], [&*weight, &*quota, &*mib(192)]);
    assert_eq!(limits(&cluster, &pod)[..3], [&*weight, &*quota, &*mib(192)]);

    cluster.kubectl(&["delete", "pod", "held", "--timeout=90s"]);
    wait_for("the pod's cgroups to be gone", LONG, || {
        let left: Vec<PathBuf> = FILES.iter().map(|file| root(&cluster, file.1).join(&pod)).collect();
        if left.iter().any(|path| path.exists()) { Err(left) } else { Ok(()) }
    });
    let places = cluster.places_of_groups();
    drop(cluster);
    let left: Vec<PathBuf> = places.into_iter().filter(|place| place.exists()).collect();
    assert_eq!(left, Vec::<PathBuf>::new(), "cgroups left behind");
}

#[test]
fn a_container_that_takes_more_memory_than_it_may_is_killed_and_the_reason_is_told() {
    let cluster = Cluster::start();
    cluster.import("busybox", "busybox:1");
    cluster.apply(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: greedy}\nspec:\n  restartPolicy: Never\n  containers:\n  \
         - name: c\n    image: busybox:1\n    command: [tail, /dev/zero]\n    resources: {limits: {memory: 32Mi}}\n",
    );
    cluster.kubectl(&["wait", "--for=jsonpath={.status.phase}=Failed", "pod/greedy", "--timeout=90s"]);
    let ended = "jsonpath={.status.containerStatuses[0].state.terminated.reason} \
                 {.status.containerStatuses[0].state.terminated.exitCode}";
    assert_eq!(cluster.kubectl(&["get", "pod", "greedy", "-o", ended]), "OOMKilled 137");
}

/// As kubelet has it unless it is told otherwise (KEP-2400, `NoSwap`); with cgroup v1 nothing can be said of one without a limit.
#[test]
fn no_container_swaps_whether_its_memory_is_limited_or_not() {
    let cluster = Cluster::start();
    cluster.import("busybox", "busybox:1");
    let sleeps = "image: 'busybox:1', command: [sh, -c, exec sleep 1000000]";
    cluster.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: both}}\nspec:\n  terminationGracePeriodSeconds: 0\n  containers:\n  \
         - {{name: limited, {sleeps}, resources: {{limits: {{memory: 64Mi}}}}}}\n  - {{name: free, {sleeps}}}\n"
    ));
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/both", "--timeout=90s"]);
    let uid = cluster.kubectl(&["get", "pod", "both", "-o", "jsonpath={.metadata.uid}"]);
    let pod = root(&cluster, "memory").join(format!("kubepods/burstable/pod{uid}"));
    let file = if is_unified() { "memory.swap.max" } else { "memory.memsw.limit_in_bytes" };
    let swap = |name: &str| {
        let path = format!("jsonpath={{.status.containerStatuses[?(@.name==\"{name}\")].containerID}}");
        let id = cluster.kubectl(&["get", "pod", "both", "-o", &path]);
        let group = pod.join(id.split("://").nth(1).expect("an id"));
        assert!(group.is_dir(), "{}", group.display());
        // A kernel may count no swap.
        fs::read_to_string(group.join(file)).ok().map(|text| text.trim().to_owned())
    };
    let (limited, free) = (swap("limited"), swap("free"));
    if is_unified() {
        assert!(
            [&limited, &free].iter().all(|swap| swap.as_ref().is_none_or(|swap| swap == "0")),
            "{limited:?} {free:?}"
        );
    } else {
        assert!(limited.as_ref().is_none_or(|both| *both == (64 << 20).to_string()), "{limited:?}");
    }
}
