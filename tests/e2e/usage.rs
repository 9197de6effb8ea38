//! What containers take of their node: logs and disk, bounded, and the figures of both and of what runs.

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

/// The columns of the lines of a table without its heading.
fn lines(table: &str) -> Vec<Vec<&str>> {
    table.lines().skip(1).map(|line| line.split_whitespace().collect()).collect()
}

/// Thousandths of a core: `998m`.
fn millicores(cell: &str) -> u64 {
    cell.strip_suffix('m')
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("{cell} is no amount of CPU"))
}

#[test]
fn top_tells_what_nodes_and_pods_use_with_nothing_installed() {
    let cluster = cluster();
    let pod = |name: &str, containers: &[(&str, &str)]| {
        let container = |(name, script): &(&str, &str)| serde_json::json!({"name": name, "image": "busybox:1", "command": ["sh", "-c", script]});
        let containers: Vec<_> = containers.iter().map(container).collect();
        serde_json::json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
            "spec": {"terminationGracePeriodSeconds": 0, "containers": containers},
        })
    };
    let sleeps = "exec sleep 1000000";
    // One core at most is burned, however many there are.
    cluster.apply(&pod("burns", &[("fire", "while :; do :; done"), ("beside", sleeps)]).to_string());
    cluster.apply(&pod("sleeps", &[("c", sleeps)]).to_string());
    cluster
        .apply(&pod("holds", &[("c", "head -c 30000000 /dev/zero > /dev/shm/file; exec sleep 1000000")]).to_string());
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s"]);
    let top = |arguments: &[&str]| cluster.kubectl(&[&["top"], arguments].concat());

    let burned = |table: &str| {
        let fire = lines(table).into_iter().find(|line| line.contains(&"fire")).map(|line| line[3].to_owned());
        millicores(&fire.unwrap_or_else(|| panic!("nothing burns: {table}")))
    };
    // Others may be using the machine; what is used of a whole core is what they leave of it.
    let table = wait_for("most of a core", Duration::from_secs(60), || {
        let table = top(&["pod", "--containers", "-A"]);
        if (700..=1100).contains(&burned(&table)) { Ok(table) } else { Err(table) }
    });
    let of = |pod: &str| lines(&table).into_iter().filter(|line| line[1] == pod).collect::<Vec<_>>();
    assert_eq!((of("burns").len(), of("sleeps").len(), of("holds").len()), (2, 1, 1), "{table}");
    for idle in [&of("burns")[0], &of("sleeps")[0], &of("holds")[0]] {
        assert!(idle[0] == "default" && millicores(idle[3]) < 20, "{table}");
    }
    let held = of("holds")[0][4].strip_suffix("Mi").and_then(|number| number.parse::<u64>().ok());
    assert!(held.is_some_and(|held| (28..60).contains(&held)), "{table}");

    let selected = top(&["pod", "-l", "app in (sleeps, burns)", "--sort-by=cpu", "--sum"]);
    let names: Vec<&str> = lines(&selected).iter().map(|line| line[0]).collect();
    assert_eq!(names[..2], ["burns", "sleeps"], "{selected}");
    assert!(!selected.contains("holds") && millicores(lines(&selected)[0][1]) > 500, "{selected}");
    assert_eq!(lines(&top(&["pod", "sleeps", "--use-protocol-buffers=false"]))[0][0], "sleeps");

    let nodes = top(&["node"]);
    let node = &lines(&nodes)[0];
    assert!(node[0] == "node-1" && millicores(node[1]) > 500, "the node burns what its pod does: {nodes}");
    assert!(node[2].ends_with('%') && node[3].ends_with("Mi") && node[4].ends_with('%'), "{nodes}");

    let raw = cluster.kubectl(&["get", "--raw", "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods/burns"]);
    let raw: serde_json::Value = serde_json::from_str(&raw).unwrap();
    let containers: Vec<&str> =
        raw["containers"].as_array().unwrap().iter().map(|container| container["name"].as_str().unwrap()).collect();
    assert_eq!(containers, ["beside", "fire"]);
    assert!(raw["window"].as_str().is_some_and(|window| window.ends_with('s')), "{raw}");
    let table = cluster.kubectl(&["get", "pods.metrics.k8s.io", "burns"]);
    assert!(table.starts_with("NAME ") && table.contains("MEMORY") && table.contains("WINDOW"), "{table}");
    let explained = cluster.kubectl(&["explain", "podmetrics", "--api-version=metrics.k8s.io/v1beta1"]);
    assert!(explained.contains("PodMetrics is what the containers of a pod use"), "{explained}");
    // The names that core resources have stay theirs.
    assert!(cluster.kubectl(&["get", "pods,nodes"]).contains("pod/burns"));
    let missing = cluster.kubectl_refused(&["top", "pod", "none"]);
    assert!(missing.contains("pods \"none\" not found"), "{missing}");

    // What is gone is told of no more, nor does it hold up that its namespace goes.
    cluster.kubectl(&["delete", "pod", "burns"]);
    assert!(!top(&["pod"]).contains("burns"));
    cluster.kubectl(&["create", "namespace", "short"]);
    cluster.kubectl(&[
        "-n",
        "short",
        "run",
        "p",
        "--image=busybox:1",
        "--restart=Never",
        "--command",
        "--",
        "sleep",
        "1000",
    ]);
    cluster.kubectl(&["-n", "short", "wait", "--for=condition=Ready", "pod/p", "--timeout=60s"]);
    cluster.kubectl(&["delete", "namespace", "short", "--timeout=60s"]);
}

/// metrics-server's manifest makes the group its own; what is behind it is for tests of the API server.
#[test]
fn who_takes_the_group_over_has_it_until_it_is_given_back() {
    let cluster = cluster();
    let services = || cluster.kubectl(&["get", "apiservice", "v1beta1.metrics.k8s.io", "--no-headers"]);
    assert!(services().contains(" Local "), "{}", services());
    wait_for("the node's figures", Duration::from_secs(60), || {
        cluster
            .try_kubectl(&["top", "node"])
            .and_then(|table| if table.contains("node-1 ") { Ok(()) } else { Err(table) })
    });
    let manifest = "apiVersion: apiregistration.k8s.io/v1\nkind: APIService\nmetadata: {name: v1beta1.metrics.k8s.io, labels: {k8s-app: metrics-server}}\n\
        spec:\n  service: {name: metrics-server, namespace: kube-system}\n  group: metrics.k8s.io\n  version: v1beta1\n  \
        insecureSkipTLSVerify: true\n  groupPriorityMinimum: 100\n  versionPriority: 100\n";
    let taken_and_given_back = |give_back: &dyn Fn()| {
        cluster.apply(manifest);
        // Nothing is behind it, and so there are no figures.
        let missing = "{.status.conditions[?(@.type==\"Available\")].reason}";
        cluster.wait_jsonpath(&["apiservice/v1beta1.metrics.k8s.io"], missing, "ServiceNotFound");
        assert!(services().contains(" kube-system/metrics-server "), "{}", services());
        let refused = cluster.kubectl_refused(&["get", "--raw", "/apis/metrics.k8s.io/v1beta1/nodes"]);
        assert!(
            refused.contains("unable to handle the request") || refused.contains("service unavailable"),
            "{refused}"
        );
        give_back();
        wait_for("this server's figures", Duration::from_secs(60), || cluster.try_kubectl(&["top", "node"]));
    };
    taken_and_given_back(&|| {
        let patch = "{\"spec\": {\"service\": null, \"insecureSkipTLSVerify\": null}}";
        cluster.kubectl(&["patch", "apiservice", "v1beta1.metrics.k8s.io", "--type=merge", "-p", patch]);
        assert!(services().contains(" Local "), "{}", services());
    });
    taken_and_given_back(&|| drop(cluster.kubectl(&["delete", "apiservice", "v1beta1.metrics.k8s.io"])));
    let resources = cluster.kubectl(&["api-resources", "--api-group=metrics.k8s.io"]);
    assert!(resources.contains("NodeMetrics") && resources.contains("PodMetrics"), "{resources}");
}
