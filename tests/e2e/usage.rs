//! What containers take of their node: logs and disk, bounded, and the figures of both.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use crate::{cluster::Cluster, wait::wait_for};

fn cluster() -> Cluster {
    let cluster = Cluster::start();
    cluster.import("busybox", "busybox:1");
    cluster
}

/// The files of the one container's log, the oldest first.
fn files(logs: &Path) -> Vec<PathBuf> {
    let below = |path: &Path| fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    let pod = below(logs).pop().unwrap();
    let mut files = below(&pod.join("c"));
    // The one being written has no time in its name.
    files.sort_by_key(|path| (path.ends_with("0.log"), path.clone()));
    files
}

/// Kubelet's `containerLogMaxSize` and `containerLogMaxFiles`: 10Mi and 5.
#[test]
fn a_flood_of_output_is_followed_over_rotations_and_bounded_on_disk() {
    let cluster = cluster();
    // Numbered lines of a kilobyte, which come to twice the size of a file, and when told to more than all files hold.
    let lines = |from: u32, to: u32| {
        format!("busybox awk 'BEGIN {{for (i = {from}; i <= {to}; i++) printf \"%d %01000d\\n\", i, 0}}'")
    };
    let told = |file: &str| format!("until test -e /tmp/{file}; do sleep 0.1; done");
    let script = format!(
        "{}; {}; {}; {}; {}; exec sleep 1000000",
        lines(1, 1),
        told("follows"),
        lines(2, 25_000),
        told("more"),
        lines(25_001, 100_000)
    );
    let pod = serde_json::json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "flood"},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [
            {"name": "c", "image": "busybox:1", "command": ["sh", "-c", script]}]},
    });
    cluster.apply(&pod.to_string());
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/flood", "--timeout=60s"]);
    let followed = cluster.scratch().join("followed");
    let mut follower = cluster
        .kubectl_command(&["logs", "-f", "flood"])
        .stdout(Stdio::from(fs::File::create(&followed).unwrap()))
        .spawn()
        .unwrap();
    // It begins with the file being written then, as Kubernetes' do: there has to be one only.
    let length = || fs::metadata(&followed).unwrap().len();
    wait_for("the first line in the follower's hands", Duration::from_secs(60), || {
        if length() > 0 { Ok(()) } else { Err(()) }
    });
    cluster.kubectl(&["exec", "flood", "--", "touch", "/tmp/follows"]);
    let last = || cluster.kubectl(&["logs", "flood", "--tail=1"]).split(' ').next().unwrap_or_default().to_owned();
    let whole = 25_000 * 1002 + (1..=25_000_u64).map(|n| n.to_string().len() as u64).sum::<u64>();
    wait_for("all lines in the follower's hands", Duration::from_secs(120), || {
        if length() >= whole { Ok(()) } else { Err(length()) }
    });
    let text = fs::read_to_string(&followed).unwrap();
    for (place, line) in text.lines().enumerate() {
        assert_eq!(line.split(' ').next().unwrap(), (place + 1).to_string(), "a line is missing or there twice");
    }
    assert_eq!(last(), "25000");
    let logs = cluster.data_dir().join("agent/logs");
    assert_eq!(files(&logs).len(), 3);

    cluster.kubectl(&["exec", "flood", "--", "touch", "/tmp/more"]);
    wait_for("the last line", Duration::from_secs(120), || {
        let last = last();
        if last == "100000" { Ok(()) } else { Err(last) }
    });
    let sizes: Vec<u64> = files(&logs).iter().map(|file| fs::metadata(file).unwrap().len()).collect();
    assert!(sizes.len() == 5 && sizes.iter().all(|size| *size <= 10 << 20), "{sizes:?}");
    follower.kill().unwrap();
    follower.wait().unwrap();
}

#[test]
fn a_container_that_fills_its_writable_layer_is_evicted() {
    let cluster = cluster();
    let container = |name: &str, limit: &str, script: &str| {
        serde_json::json!({"name": name, "image": "busybox:1", "command": ["sh", "-c", format!("{script}exec sleep 1000000")],
            "resources": {"limits": {"ephemeral-storage": limit}}})
    };
    let fill = "head -c 3000000 /dev/zero > /file; ";
    for (pod, containers) in [
        ("one", vec![container("c", "1Mi", fill)]),
        ("two", vec![container("c", "1Mi", fill), container("idle", "100Mi", "")]),
    ] {
        let pod = serde_json::json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod}, "spec": {"containers": containers}});
        cluster.apply(&pod.to_string());
    }
    let ended = "{.status.phase} {.status.reason}: {.status.message}";
    let why = "Failed Evicted: Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. ";
    cluster.wait_jsonpath(&["pod/one"], ended, why);
    let why = "Failed Evicted: Container c exceeded its local ephemeral storage limit \"1Mi\". ";
    cluster.wait_jsonpath(&["pod/two"], ended, why);
    let events = cluster.kubectl(&["get", "events", "--field-selector", "involvedObject.name=two,reason=Evicted"]);
    assert!(events.contains("exceeded its local ephemeral storage limit"), "{events}");
}

/// What metrics-server asks each node for, by the ways it may.
#[test]
fn what_a_container_uses_is_told() {
    let cluster = cluster();
    cluster.apply(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: uses}\nspec:\n  terminationGracePeriodSeconds: 0\n  containers:\n  \
         - name: c\n    image: busybox:1\n    command: [sh, -c, 'head -c 30000000 /dev/zero > /memory/file; head -c 50000 /dev/zero > /file; touch /tmp/up; exec sleep 1000000']\n    \
         readinessProbe: {exec: {command: [test, -e, /tmp/up]}, periodSeconds: 1}\n    \
         volumeMounts: [{name: memory, mountPath: /memory}]\n  volumes: [{name: memory, emptyDir: {medium: Memory}}]\n",
    );
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/uses", "--timeout=60s"]);
    let node = |path: &str| cluster.kubectl(&["get", "--raw", &format!("/api/v1/nodes/node-1/proxy/{path}")]);
    let summary: serde_json::Value = serde_json::from_str(&node("stats/summary")).unwrap();
    let container = &summary["pods"][0]["containers"][0];
    assert_eq!((summary["pods"][0]["podRef"]["name"].as_str(), container["name"].as_str()), (Some("uses"), Some("c")));
    assert!(container["memory"]["workingSetBytes"].as_u64().unwrap() > 30_000_000, "{container}");
    assert!(container["cpu"]["usageCoreNanoSeconds"].as_u64().unwrap() > 0, "{container}");

    let metrics = node("metrics/resource");
    let sample = |name: &str| {
        let of = format!("{name}{{container=\"c\",namespace=\"default\",pod=\"uses\"}} ");
        let value =
            metrics.lines().find_map(|line| line.strip_prefix(&of)).unwrap_or_else(|| panic!("no {name}: {metrics}"));
        value.split(' ').next().unwrap().parse::<f64>().unwrap()
    };
    assert!(sample("container_memory_working_set_bytes") > 3e7, "{metrics}");
    assert!(sample("container_cpu_usage_seconds_total") > 0.0, "{metrics}");
    assert!(sample("container_start_time_seconds") > 1.7e9, "{metrics}");

    // What dashboards made for kubelet and cAdvisor ask for, by their labels.
    let metrics = node("metrics/cadvisor");
    let has = |start: &str, labels: &[&str]| {
        let has_all = |line: &&str| line.starts_with(&format!("{start}{{")) && labels.iter().all(|l| line.contains(l));
        let line = metrics.lines().find(has_all).unwrap_or_else(|| panic!("no {start} with {labels:?}: {metrics}"));
        line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()
    };
    let of = ["container=\"c\"", "namespace=\"default\"", "pod=\"uses\"", "image=\"docker.io/library/busybox:1\""];
    assert!(has("container_memory_working_set_bytes", &of) > 3e7, "{metrics}");
    assert!(has("container_cpu_usage_seconds_total", &of) > 0.0, "{metrics}");
    assert!(has("container_memory_cache", &of) > 3e7, "{metrics}");
    assert!(has("container_fs_usage_bytes", &of) >= 50_000.0, "{metrics}");
    // It has no limit, whatever all pods together have.
    assert_eq!(has("container_spec_memory_limit_bytes", &of).to_string(), "0", "{metrics}");
    let of = ["container=\"\"", "namespace=\"default\"", "pod=\"uses\""];
    assert!(has("container_memory_working_set_bytes", &of) > 3e7, "{metrics}");
    has("container_network_receive_bytes_total", &[of[1], of[2], "interface=\"eth0\""]);
    assert!(has("container_cpu_usage_seconds_total", &["id=\"/\""]) > 0.0, "{metrics}");
    assert!(has("machine_memory_bytes", &["boot_id="]) > 1e8, "{metrics}");

    let metrics = node("metrics");
    for sample in [
        "kubelet_node_name{node=\"node-1\"} 1",
        "kubelet_running_pods 1",
        "kubelet_running_containers{container_state=\"running\"} 1",
        "kubelet_runtime_operations_total{operation_type=\"run_podsandbox\"} 1",
        "kubelet_runtime_operations_errors_total{operation_type=\"start_container\"} 0",
        "kubelet_pod_start_duration_seconds_count{} 1",
        "kubelet_started_containers_total{container_type=\"container\"} 1",
    ] {
        assert!(metrics.lines().any(|line| line == sample), "{sample}: {metrics}");
    }
    let metrics = node("metrics/probes");
    let probed = metrics.lines().find(|line| line.starts_with("prober_probe_total{") && line.contains("successful"));
    let probed = probed.unwrap_or_else(|| panic!("no probe has passed: {metrics}"));
    assert!(["container=\"c\"", "pod=\"uses\"", "probe_type=\"Readiness\""].iter().all(|label| probed.contains(label)));

    cluster.kubectl(&["delete", "pod", "uses"]);
    let told = node("metrics/cadvisor") + &node("metrics/probes") + &node("metrics/resource");
    assert!(!told.contains("pod=\"uses\""), "{told}");
}

/// How metrics-server asks for it, and Prometheus: at the node itself, with a token and the cluster's authority.
#[test]
fn figures_are_told_to_whom_a_role_allows_it() {
    let cluster = cluster();
    cluster.kubectl(&["create", "serviceaccount", "metrics"]);
    cluster.kubectl(&["create", "serviceaccount", "other"]);
    cluster.kubectl(&["create", "clusterrole", "figures", "--verb=get", "--resource=nodes/metrics"]);
    cluster.kubectl(&[
        "create",
        "clusterrolebinding",
        "figures",
        "--clusterrole=figures",
        "--serviceaccount=default:metrics",
    ]);
    let authority = cluster.scratch().join("ca.crt");
    let path = "jsonpath={.data.ca\\.crt}";
    cluster.wait_jsonpath(&["configmap/kube-root-ca.crt"], "{.metadata.name}", "kube-root-ca.crt");
    fs::write(&authority, cluster.kubectl(&["get", "configmap", "kube-root-ca.crt", "-o", path])).unwrap();
    let node = |path: &str| {
        let path = format!("jsonpath={path}");
        cluster.kubectl(&["get", "node", "node-1", "-o", &path])
    };
    let address = node("{.status.addresses[?(@.type==\"InternalIP\")].address}");
    let port = node("{.status.daemonEndpoints.kubeletEndpoint.Port}");
    let ask = |account: &str, path: &str| {
        let token = cluster.kubectl(&["create", "token", account]);
        let header = format!("Authorization: Bearer {}", token.trim());
        let url = format!("https://{address}:{port}{path}");
        let authority = authority.display().to_string();
        cluster.host.stdout("curl", &["-s", "--cacert", &authority, "-H", &header, "-w", "\n%{http_code}", &url])
    };
    for (path, sample) in [
        ("/metrics/resource", "node_cpu_usage_seconds_total "),
        ("/metrics", "process_cpu_seconds_total "),
        ("/metrics/cadvisor", "container_memory_working_set_bytes{"),
        ("/metrics/probes", "# TYPE prober_probe_total counter"),
    ] {
        let told = ask("metrics", path);
        assert!(told.ends_with("\n200") && told.contains(&format!("\n{sample}")), "{path}: {told}");
    }
    for (account, path) in [
        ("metrics", "/pods"),
        ("metrics", "/exec/default/a/b?command=id"),
        ("other", "/metrics/resource"),
        ("other", "/metrics"),
    ] {
        let told = ask(account, path);
        let who = format!("Forbidden (user=system:serviceaccount:default:{account}, ");
        assert!(told.ends_with("\n403") && told.contains(&who), "{account} {path}: {told}");
    }
}
