//! `kubectl debug`: a person beside a container, in a copy of a pod, on a node.

use crate::{cluster::Cluster, console::Console};

fn cluster() -> Cluster {
    let cluster = Cluster::start();
    cluster.import("busybox", "busybox:1");
    cluster.apply(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: app}\nspec:\n  terminationGracePeriodSeconds: 0\n  containers:\n  \
         - {name: main, image: 'busybox:1', command: [sleep, '987654']}\n",
    );
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/app", "--timeout=60s"]);
    cluster
}

#[test]
fn a_container_beside_a_running_one_sees_its_processes() {
    let cluster = cluster();
    let debug = ["debug", "-it", "app", "--image=busybox:1", "--image-pull-policy=Never", "--profile=general"];
    let command = ["--", "sh"];
    let mut console =
        Console::open(&cluster.kubectl_command(&[&debug[..], &["--target=main", "-c", "beside"], &command].concat()));
    console.types("\n");
    console.until("#");
    console.types("ps -o args | grep '^slee[p]'; stty size; exit 4\n");
    console.until("sleep 987654");
    console.until("33 99");
    drop(console.ends());
    cluster.wait_jsonpath(
        &["pod/app"],
        "{.status.ephemeralContainerStatuses[?(@.name=='beside')].state.terminated.exitCode}",
        "4",
    );
    // The pod is none the worse for it.
    assert_eq!(
        cluster.kubectl(&["get", "pod/app", "-o", "jsonpath={.status.phase} {.status.containerStatuses[0].ready}"]),
        "Running true"
    );
    assert!(cluster.kubectl(&["logs", "app", "-c", "beside"]).contains("sleep 987654"));
    let events = cluster.kubectl(&["get", "events", "-o", "jsonpath={.items[*].involvedObject.fieldPath}"]);
    assert!(events.contains("spec.ephemeralContainers{beside}"), "{events}");

    // Without a target it is alone with itself, in the pod's network.
    let said = cluster.kubectl(&[&debug[..1], &["-i"], &debug[2..], &["-c", "alone", "--", "ps"]].concat());
    assert!(!said.contains("987654"), "{said}");
    let patch = "{\"spec\": {\"ephemeralContainers\": [{\"name\": \"beside\", \"$patch\": \"delete\"}]}}";
    let refused = cluster.kubectl_refused(&["patch", "pod/app", "--subresource=ephemeralcontainers", "-p", patch]);
    assert!(refused.contains("existing ephemeral containers \"beside\" may not be removed"), "{refused}");
}

#[test]
fn a_copy_of_a_pod_is_a_pod_to_try_things_in() {
    let cluster = cluster();
    let copy = ["debug", "app", "--copy-to=tried", "--container=main", "-i", "--", "sh", "-c", "echo tried; sleep 1"];
    cluster.kubectl(&copy);
    cluster.wait_jsonpath(&["pod/tried"], "{.spec.containers[0].command[2]}", "echo tried; sleep 1");
    assert!(cluster.kubectl(&["logs", "tried", "-c", "main", "--tail=1"]).contains("tried"));
    cluster.kubectl(&["delete", "pod/tried", "--timeout=60s", "--grace-period=0", "--force"]);
}

#[test]
fn a_node_is_looked_at_from_a_pod_that_shares_it() {
    let cluster = cluster();
    let node = cluster.kubectl(&["get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"]);
    let target = format!("node/{node}");
    let mut console = Console::open(&cluster.kubectl_command(&[
        "debug",
        "-it",
        &target,
        "--image=busybox:1",
        "--image-pull-policy=Never",
        "--profile=general",
        "--",
        "sh",
    ]));
    console.types("\n");
    console.until("#");
    // The node's processes and files.
    console.types("ps -o args | grep '^slee[p]'; test -d /host/etc && echo files of the $((1+1))nd; exit\n");
    console.until("sleep 987654");
    console.until("files of the 2nd");
    drop(console.ends());
}
