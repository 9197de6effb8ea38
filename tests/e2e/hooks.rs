//! What happens around a container's life at its pod's wish: hooks, deadlines, gates, and what its processes share.

use std::time::Duration;

use crate::{cluster::Cluster, wait::wait_for};

fn cluster() -> Cluster {
    let cluster = Cluster::start();
    cluster.import("busybox", "busybox:1");
    cluster
}

fn ready(cluster: &Cluster, name: &str) {
    cluster.kubectl(&["wait", "--for=condition=Ready", &format!("pod/{name}"), "--timeout=60s"]);
}

#[test]
fn hooks_run_after_the_start_and_before_the_signal() {
    let cluster = cluster();
    cluster.apply(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: server}\nspec:\n  terminationGracePeriodSeconds: 0\n  containers:\n  \
         - name: c\n    image: busybox:1\n    command: [sh, -c, 'exec httpd -f -vv -p 8080 -h /etc']\n    \
         readinessProbe: {httpGet: {port: 8080, path: /passwd}, periodSeconds: 1}\n",
    );
    ready(&cluster, "server");
    let address = cluster.kubectl(&["get", "pod", "server", "-o", "jsonpath={.status.podIP}"]);
    let script = "trap \"echo term >> /data/log; exit 0\" TERM; touch /tmp/up; while true; do sleep 0.1; done";
    let container = |name: &str, hooks: &str| {
        format!(
            "  - name: {name}\n    image: busybox:1\n    command: [sh, -c, '{script}']\n    lifecycle: {{{hooks}}}\n    \
             readinessProbe: {{exec: {{command: [test, -e, /tmp/up]}}, periodSeconds: 1}}\n    \
             volumeMounts: [{{name: data, mountPath: /data, subPath: {name}}}]\n"
        )
    };
    let write = |word: &str| format!("{{exec: {{command: [sh, -c, 'echo {word} >> /data/log']}}}}");
    let data = cluster.scratch().join("hooks");
    cluster.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: hooked}}\nspec:\n  containers:\n{}{}{}  \
         volumes: [{{name: data, hostPath: {{path: {}, type: DirectoryOrCreate}}}}]\n",
        container("exec", &format!("postStart: {}, preStop: {}", write("post"), write("pre"))),
        container("sleep", "preStop: {sleep: {seconds: 1}}"),
        container("http", &format!("preStop: {{httpGet: {{host: {address}, port: 8080, path: /group}}}}")),
        data.display()
    ));
    ready(&cluster, "hooked");
    cluster.kubectl(&["delete", "pod", "hooked", "--timeout=60s"]);
    let log = |name: &str| std::fs::read_to_string(data.join(name).join("log")).unwrap();
    assert_eq!(log("exec"), "post\npre\nterm\n");
    assert_eq!((log("sleep").as_str(), log("http").as_str()), ("term\n", "term\n"));
    let asked = cluster.kubectl(&["logs", "server"]);
    assert!(asked.contains("url:/group"), "{asked}");

    // A container whose first hook fails is not one that runs.
    cluster.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: broken}}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers:\n{}  \
         volumes: [{{name: data, emptyDir: {{}}}}]\n",
        container("c", "postStart: {httpGet: {port: 9, path: /}}")
    ));
    wait_for("the event about the hook", Duration::from_secs(60), || {
        let about = "involvedObject.name=broken,reason=FailedPostStartHook";
        let events = cluster.kubectl(&["get", "events", "--field-selector", about]);
        if events.contains("PostStartHook failed") { Ok(()) } else { Err(events) }
    });
    let killed = cluster.kubectl(&["get", "events", "--field-selector", "involvedObject.name=broken,reason=Killing"]);
    assert!(killed.contains("FailedPostStartHook"), "{killed}");
}

#[test]
fn a_deadline_ends_a_pod_and_a_gate_holds_it_back() {
    let cluster = cluster();
    let pod = |name: &str, more: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 1\n  {more}\n  \
             containers: [{{name: c, image: 'busybox:1', command: [sh, -c, exec sleep 1000000]}}]\n"
        )
    };
    cluster.apply(&pod("late", "activeDeadlineSeconds: 2"));
    let ended = "{.status.phase} {.status.reason}: {.status.message}";
    let why = "Failed DeadlineExceeded: Pod was active on the node longer than the specified deadline";
    cluster.wait_jsonpath(&["pod/late"], ended, why);

    cluster.apply(&pod("gated", "readinessGates: [{conditionType: example.org/open}]"));
    cluster.kubectl(&["wait", "--for=condition=ContainersReady", "pod/gated", "--timeout=60s"]);
    let shown = "{.status.conditions[?(@.type==\"Ready\")].status} {.status.conditions[?(@.type==\"Ready\")].reason}";
    cluster.wait_jsonpath(&["pod/gated"], shown, "False ReadinessGatesNotReady");
    let patch = r#"{"status": {"conditions": [{"type": "example.org/open", "status": "True"}]}}"#;
    cluster.kubectl(&["patch", "pod", "gated", "--subresource", "status", "-p", patch]);
    ready(&cluster, "gated");
}

#[test]
fn processes_and_names_are_shared_as_far_as_the_pod_says() {
    let cluster = cluster();
    cluster.kubectl(&["create", "service", "clusterip", "linked", "--tcp=80"]);
    let own = |kind: &str| std::fs::read_link(format!("/proc/{}/ns/{kind}", cluster.pid())).unwrap();
    let pod = |name: &str, more: &str| {
        cluster.apply(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 0\n{more}  \
             containers:\n  - {{name: c, image: 'busybox:1', command: [sh, -c, exec sleep 1000001]}}\n  \
             - {{name: d, image: 'busybox:1', command: [sh, -c, exec sleep 1000002]}}\n"
        ));
        ready(&cluster, name);
        let name = name.to_owned();
        let cluster = &cluster;
        move |line: &str| cluster.kubectl(&["exec", &name, "-c", "c", "--", "sh", "-c", line])
    };
    let sees = "ps -o args | grep -c '^slee[p] 100000[12]'";
    let alone = pod("alone", "");
    assert_eq!(alone(sees), "1\n");
    assert!(alone("env").contains("LINKED_SERVICE_PORT=80"));
    let shares = pod("shares", "  shareProcessNamespace: true\n  enableServiceLinks: false\n");
    assert_eq!(shares(sees), "2\n");
    assert!(!shares("env").contains("LINKED_"));
    let host = pod("host", "  hostPID: true\n  hostIPC: true\n");
    for (kind, is_hosts) in [("pid", true), ("ipc", true), ("net", false), ("mnt", false)] {
        let inside = host(&format!("readlink /proc/self/ns/{kind}"));
        assert_eq!(inside.trim() == own(kind).to_str().unwrap(), is_hosts, "{kind}");
    }
    let named = pod(
        "named",
        "  hostAliases: [{ip: 192.0.2.7, hostnames: [printer.home, printer]}]\n  dnsPolicy: None\n  \
         dnsConfig: {nameservers: [192.0.2.53], searches: [home], options: [{name: ndots, value: '2'}]}\n",
    );
    assert_eq!(named("cat /etc/resolv.conf"), "search home\nnameserver 192.0.2.53\noptions ndots:2\n");
    assert!(named("cat /etc/hosts").contains("192.0.2.7\tprinter.home\tprinter"));
}
