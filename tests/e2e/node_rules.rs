//! What a node decides by itself about the pods it is given.

use std::time::Duration;

use crate::{cluster::Cluster, host::Host, wait::wait_for};

#[test]
fn a_critical_pod_that_only_lacks_room_gets_it() {
    let cluster = Cluster::start_on(Host::new(), &["--max-pods", "1"]);
    cluster.import("busybox", "busybox:1");
    let pod = |name: &str, rest: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: kube-system}}\nspec:\n  nodeName: node-1\n  \
             terminationGracePeriodSeconds: 0\n  {rest}\n  containers:\n  \
             - {{name: c, image: 'busybox:1', command: [sh, -c, exec sleep 1000000]}}\n"
        )
    };
    let ready = |name: &str| {
        cluster.kubectl(&["wait", "-n", "kube-system", "--for=condition=Ready", name, "--timeout=60s"]);
    };
    cluster.apply(&pod("plain", "restartPolicy: Always"));
    ready("pod/plain");
    let ended = "{.status.phase} {.status.reason}: {.status.message}";
    cluster.apply(&pod("another", "restartPolicy: Always"));
    let full = "Failed OutOfpods: Pod was rejected: Node didn't have enough resource: pods, requested: 1, used: 1, capacity: 1";
    cluster.wait_jsonpath(&["-n", "kube-system", "pod/another"], ended, full);
    cluster.apply(&pod("critical", "priorityClassName: system-node-critical"));
    ready("pod/critical");
    let gone = "Failed Preempting: Preempted in order to admit critical pod";
    cluster.wait_jsonpath(&["-n", "kube-system", "pod/plain"], ended, gone);
    let disrupted = "{.status.conditions[?(@.type==\"DisruptionTarget\")].reason}";
    cluster.wait_jsonpath(&["-n", "kube-system", "pod/plain"], disrupted, "TerminationByKubelet");
    let events = cluster.kubectl(&["get", "events", "-n", "kube-system", "--field-selector", "reason=Preempting"]);
    assert!(events.contains("pod/plain") && events.contains("Preempted in order to admit critical pod"), "{events}");
}

#[test]
fn a_class_of_runtimes_is_one_the_node_has() {
    let cluster = Cluster::start();
    cluster.import("busybox", "busybox:1");
    for (name, handler) in [("usual", "runc"), ("other", "gvisor")] {
        cluster.apply(&format!(
            "apiVersion: node.k8s.io/v1\nkind: RuntimeClass\nmetadata: {{name: {name}}}\nhandler: {handler}\n---\n\
             apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  runtimeClassName: {name}\n  \
             terminationGracePeriodSeconds: 0\n  containers:\n  \
             - {{name: c, image: 'busybox:1', command: [sh, -c, exec sleep 1000000]}}\n"
        ));
    }
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/usual", "--timeout=60s"]);
    let why = "Failed to create pod sandbox: failed to get sandbox runtime: no runtime for \"gvisor\" is configured";
    wait_for("the event about the other one", Duration::from_secs(60), || {
        let events = cluster.kubectl(&["get", "events", "--field-selector", "reason=FailedCreatePodSandBox"]);
        if events.contains(why) { Ok(()) } else { Err(events) }
    });
    cluster.wait_jsonpath(&["pod/other"], "{.status.phase}", "Pending");
    let handlers = cluster.kubectl(&["get", "node", "node-1", "-o", "jsonpath={.status.runtimeHandlers[*].name}"]);
    assert_eq!(handlers.split_whitespace().collect::<Vec<_>>(), ["runc", "coracle"]);
}

#[test]
fn variables_come_from_a_file_that_an_init_container_left() {
    let cluster = Cluster::start();
    cluster.import("busybox", "busybox:1");
    let pod = |name: &str, text: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  restartPolicy: Never\n  \
             terminationGracePeriodSeconds: 0\n  initContainers:\n  - name: setup\n    image: busybox:1\n    \
             command: [sh, -c, \"{text}\"]\n    volumeMounts: [{{name: left, mountPath: /left}}]\n  containers:\n  \
             - name: c\n    image: busybox:1\n    command: [sh, -c, 'echo colour is $COLOUR']\n    env:\n    \
             - {{name: COLOUR, valueFrom: {{fileKeyRef: {{volumeName: left, path: env/colours, key: COLOUR}}}}}}\n  \
             volumes: [{{name: left, emptyDir: {{}}}}]\n"
        )
    };
    cluster.apply(&pod("told", "mkdir /left/env; echo COLOUR=\\\"'light blue'\\\" > /left/env/colours"));
    cluster.apply(&pod("trick", "mkdir /left/env; ln -s /etc/passwd /left/env/colours"));
    cluster.wait_jsonpath(&["pod/told"], "{.status.phase}", "Succeeded");
    assert_eq!(cluster.kubectl(&["logs", "told", "-c", "c"]), "colour is light blue\n");
    let waits = "{.status.containerStatuses[0].state.waiting.reason}";
    cluster.wait_jsonpath(&["pod/trick"], waits, "CreateContainerConfigError");
}
