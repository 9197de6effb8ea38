//! Deployments from `kubectl apply` to traffic: rollouts, rollbacks, scaling, children, garbage.

use crate::{cluster::Cluster, host::Host, registry::Registry, wait::wait_for};
use std::time::Duration;

use crate::cluster::LONG;

const QUICKSTART: &str = include_str!("manifests/quickstart.yaml");

fn with_registry() -> (Registry, Cluster) {
    let host = Host::new();
    let registry = Registry::start(&host, 5000);
    (registry, Cluster::start_on(host, &[]))
}

#[test]
fn a_manifest_of_many_kinds_becomes_running_containers() {
    let (_registry, cluster) = with_registry();
    let out = cluster.apply(QUICKSTART);
    for line in
        ["configmap/settings created", "secret/password created", "deployment.apps/nginx created", "pod/shell created"]
    {
        assert!(out.contains(line), "{line} is missing in:\n{out}");
    }
    cluster.kubectl(&["rollout", "status", "deployment/nginx", "--timeout=90s"]);
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/shell", "--timeout=90s"]);

    let pods = cluster.kubectl(&["get", "pods", "-l", "app=nginx", "-o", "wide", "--no-headers"]);
    assert_eq!(pods.lines().count(), 3, "{pods}");
    assert!(
        pods.lines().all(|line| line.contains("1/1") && line.contains("Running") && line.contains("node-1")),
        "{pods}"
    );

    // Each pod answers from the host and from another pod.
    let path = "jsonpath={range .items[*]}{.status.podIP}{\"\\n\"}{end}";
    let addresses = cluster.kubectl(&["get", "pods", "-l", "app=nginx", "-o", path]);
    assert_eq!(addresses.lines().count(), 3);
    for address in addresses.lines() {
        let url = format!("http://{address}/");
        wait_for("nginx to answer the host", LONG, || {
            let output = cluster.host.output("curl", &["-s", "--max-time", "2", &url]);
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            if text == "Welcome to nginx!\n" { Ok(()) } else { Err(text) }
        });
        // Not with wget: that of Debian's busybox-static ends in a segmentation fault.
        let ask = format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 {address} 80");
        let inside = cluster.kubectl(&["exec", "shell", "--", "sh", "-c", &ask]);
        assert!(inside.ends_with("\r\n\r\nWelcome to nginx!\n"), "{inside}");
    }

    // What was configured is there as environment and as files.
    let environment = cluster.kubectl(&["exec", "shell", "--", "sh", "-c", "echo $COLOUR $PASSWORD"]);
    assert_eq!(environment, "blue s3cret\n");
    let files = cluster.kubectl(&["exec", "shell", "--", "cat", "/settings/colour", "/secrets/password"]);
    assert_eq!(files, "blues3cret");

    // The same again changes nothing; from a file too. kubectl says "configured" of what it sent a patch for, and it
    // does that for a Secret's stringData and for lists that the server added to.
    let versions = || {
        let data = "jsonpath={.items[*].metadata.resourceVersion}";
        let specs = "jsonpath={.items[*].metadata.generation}";
        let data = cluster.kubectl(&["get", "configmap/settings", "secret/password", "-o", data]);
        data + " " + &cluster.kubectl(&["get", "deployment/nginx", "pod/shell", "-o", specs])
    };
    let before = versions();
    let file = cluster.scratch().join("all.yaml");
    std::fs::write(&file, QUICKSTART).unwrap();
    let again = cluster.kubectl(&["apply", "-f", file.to_str().unwrap()]);
    for line in ["configmap/settings unchanged", "deployment.apps/nginx unchanged"] {
        assert!(again.contains(line), "{line} is missing in:\n{again}");
    }
    assert_eq!(versions(), before);
}

#[test]
fn rollouts_replace_pods_step_by_step_and_can_be_undone() {
    let (registry, cluster) = with_registry();
    registry.push(&cluster.host, "nginx", "nginx:2");
    cluster.apply(QUICKSTART);
    cluster.kubectl(&["rollout", "status", "deployment/nginx", "--timeout=90s"]);
    cluster.kubectl(&["set", "image", "deployment/nginx", "nginx=127.0.0.1:5000/nginx:2"]);
    cluster.kubectl(&["rollout", "status", "deployment/nginx", "--timeout=90s"]);
    let image = "{.items[*].spec.containers[0].image}";
    let all_two = ["127.0.0.1:5000/nginx:2"; 3].join(" ");
    cluster.wait_jsonpath(&["pods", "-l", "app=nginx"], image, &all_two);

    let history = cluster.kubectl(&["rollout", "history", "deployment/nginx"]);
    let revisions: Vec<&str> =
        history.lines().filter_map(|l| l.split_whitespace().next()).filter(|w| w.parse::<u32>().is_ok()).collect();
    assert_eq!(revisions, ["1", "2"], "{history}");

    cluster.kubectl(&["rollout", "undo", "deployment/nginx"]);
    cluster.kubectl(&["rollout", "status", "deployment/nginx", "--timeout=90s"]);
    let all_one = ["127.0.0.1:5000/nginx:1"; 3].join(" ");
    cluster.wait_jsonpath(&["pods", "-l", "app=nginx"], image, &all_one);
    cluster.wait_jsonpath(&["deployment/nginx"], "{.metadata.annotations.deployment\\.kubernetes\\.io/revision}", "3");

    cluster.kubectl(&["rollout", "restart", "deployment/nginx"]);
    cluster.kubectl(&["rollout", "status", "deployment/nginx", "--timeout=90s"]);
    let sets = cluster.kubectl(&["get", "replicasets", "-l", "app=nginx", "--no-headers"]);
    assert_eq!(sets.lines().count(), 3, "{sets}");
}

#[test]
fn a_rollout_to_a_bad_image_stops_and_says_why() {
    let (_registry, cluster) = with_registry();
    cluster.apply(QUICKSTART);
    cluster.kubectl(&["rollout", "status", "deployment/nginx", "--timeout=90s"]);
    cluster.kubectl(&["set", "image", "deployment/nginx", "nginx=127.0.0.1:5000/no-such-image:1"]);
    let reasons = wait_for("the new pod to complain", LONG, || {
        let path = "jsonpath={.items[*].status.containerStatuses[*].state.waiting.reason}";
        let seen = cluster.kubectl(&["get", "pods", "-l", "app=nginx", "-o", path]);
        if seen.contains("ImagePullBackOff") { Ok(seen) } else { Err(seen) }
    });
    assert_eq!(reasons.trim(), "ImagePullBackOff");
    // maxUnavailable of 25 % of 3 is none: all three old pods still serve.
    cluster.wait_jsonpath(&["deployment/nginx"], "{.status.availableReplicas}", "3");
    let events = cluster.kubectl(&["get", "events", "--field-selector", "reason=Failed"]);
    assert!(
        events.contains("not found") || events.contains("manifest unknown"),
        "the registry's reason is missing:\n{events}"
    );
    cluster.kubectl(&["rollout", "undo", "deployment/nginx"]);
    cluster.kubectl(&["rollout", "status", "deployment/nginx", "--timeout=90s"]);
}

#[test]
fn scaling_and_deleting_make_and_unmake_pods() {
    let (_registry, cluster) = with_registry();
    cluster.apply(QUICKSTART);
    cluster.kubectl(&["rollout", "status", "deployment/nginx", "--timeout=90s"]);
    cluster.kubectl(&["scale", "deployment/nginx", "--replicas=5"]);
    cluster.wait_jsonpath(&["deployment/nginx"], "{.status.availableReplicas}", "5");
    cluster.kubectl(&["scale", "deployment/nginx", "--replicas=1"]);
    cluster.wait_jsonpath(&["deployment/nginx"], "{.status.replicas}", "1");

    // A Deployment does not count pods that are going; they are listed until they are gone.
    let only_pod_but = |gone: &str| {
        wait_for("the one pod that is asked for", LONG, || {
            let seen = cluster.kubectl(&["get", "pods", "-l", "app=nginx", "-o", "name"]);
            if seen.lines().count() == 1 && seen != gone { Ok(seen) } else { Err(seen) }
        })
    };
    let pod = only_pod_but("");
    cluster.kubectl(&["delete", pod.trim(), "--wait=false"]);
    only_pod_but(&pod);

    // Without its children a Deployment leaves a ReplicaSet that goes on.
    cluster.kubectl(&["delete", "deployment/nginx", "--cascade=orphan"]);
    let set = cluster.kubectl(&["get", "replicasets", "-l", "app=nginx", "-o", "name"]);
    assert_eq!(set.lines().count(), 1, "{set}");
    cluster.kubectl(&["delete", set.trim(), "--cascade=foreground"]);
    assert_eq!(cluster.kubectl(&["get", "pods", "-l", "app=nginx", "-o", "name"]), "");

    cluster.apply(QUICKSTART);
    cluster.kubectl(&["rollout", "status", "deployment/nginx", "--timeout=90s"]);
    cluster.kubectl(&["delete", "deployment/nginx"]);
    wait_for("the children to be collected", LONG, || {
        let seen = cluster.kubectl(&["get", "replicasets,pods", "-l", "app=nginx", "-o", "name"]);
        if seen.is_empty() { Ok(()) } else { Err(seen) }
    });
}

#[test]
fn deleting_a_namespace_removes_everything_in_it() {
    let (_registry, cluster) = with_registry();
    cluster.kubectl(&["create", "namespace", "short-lived"]);
    cluster.kubectl_stdin(&["apply", "-n", "short-lived", "-f", "-"], QUICKSTART);
    cluster.kubectl(&["rollout", "status", "-n", "short-lived", "deployment/nginx", "--timeout=90s"]);
    cluster.kubectl(&["delete", "namespace", "short-lived", "--timeout=90s"]);
    let refused = cluster.kubectl_refused(&["get", "namespace", "short-lived"]);
    assert!(refused.contains("namespaces \"short-lived\" not found"), "{refused}");
    for kind in ["pods", "deployments", "replicasets", "configmaps", "secrets", "events", "serviceaccounts"] {
        assert_eq!(cluster.kubectl(&["get", kind, "-n", "short-lived", "-o", "name"]), "", "{kind} are left");
    }
}

#[test]
fn pods_that_fit_nowhere_say_why_and_run_once_they_fit() {
    let (_registry, cluster) = with_registry();
    let pod = |name: &str, extra: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 0\n  containers:\n  \
             - {{name: c, image: '127.0.0.1:5000/busybox:1', command: [sleep, '1000000']{extra}}}\n"
        )
    };
    cluster.apply(&pod("greedy", ", resources: {requests: {cpu: '1000'}}"));
    wait_for("the refusal to be told", Duration::from_secs(60), || {
        let events = cluster.kubectl(&["get", "events", "--field-selector", "reason=FailedScheduling"]);
        if events.contains("0/1 nodes are available: 1 Insufficient cpu.") { Ok(()) } else { Err(events) }
    });
    cluster.kubectl(&["cordon", "node-1"]);
    cluster.apply(&pod("patient", ""));
    let why = "{.status.conditions[?(@.type==\"PodScheduled\")].message}";
    cluster.wait_jsonpath(&["pod/patient"], why, "0/1 nodes are available: 1 node(s) were unschedulable.");
    cluster.kubectl(&["uncordon", "node-1"]);
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/patient", "--timeout=60s"]);
}
