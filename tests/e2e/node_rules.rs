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

/// A directory in the host's `/dev` with devices of a test's own; gone with it.
struct Sticks(std::path::PathBuf);

impl Sticks {
    fn plug(&self, name: &str) {
        use nix::sys::stat::{Mode, SFlag, makedev, mknod};
        // The kernel's log: a device that every host has and no container may use, and that anybody who may can open.
        mknod(&self.0.join(name), SFlag::S_IFCHR, Mode::from_bits_truncate(0o600), makedev(1, 11)).expect("a device");
    }
}

impl Drop for Sticks {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_stick_is_used_by_one_pod_that_asks_for_it_by_name() {
    let sticks = Sticks(format!("/dev/coracle-e2e-{}", std::process::id()).into());
    let flag = format!("home.example/stick={}/usb-*", sticks.0.display());
    let cluster = Cluster::start_on(Host::new(), &["--device", &flag]);
    cluster.import("busybox", "busybox:1");
    let capacity = "{.status.capacity.home\\.example/stick} {.status.allocatable.home\\.example/stick}";
    cluster.wait_jsonpath(&["node/node-1"], capacity, "0 0");
    // With no time to end the object would be gone before the pod, and the next one would come too early.
    let pod = |name: &str, rest: &str, limits: &str| {
        cluster.apply(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 1\n  {rest}\n  \
             containers:\n  - name: c\n    image: busybox:1\n    command: [sh, -c, exec sleep 1000000]\n    \
             resources: {{limits: {limits}}}\n"
        ));
    };
    let stick = "{home.example/stick: 1}";
    pod("one", "restartPolicy: Always", stick);
    let why = "0/1 nodes are available: 1 Insufficient home.example/stick.";
    wait_for("the word that there is none", Duration::from_secs(60), || {
        let message = "jsonpath={.status.conditions[?(@.type==\"PodScheduled\")].message}";
        let message = cluster.kubectl(&["get", "pod/one", "-o", message]);
        if message.starts_with(why) { Ok(()) } else { Err(message) }
    });

    // Neither the directory nor the device were there when the node began.
    std::fs::create_dir(&sticks.0).unwrap();
    sticks.plug("usb-a");
    sticks.plug("other");
    cluster.wait_jsonpath(&["node/node-1"], capacity, "1 1");
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/one", "--timeout=60s"]);
    let path = sticks.0.join("usb-a").display().to_string();
    let open = |pod: &str, path: &str| {
        let script = format!("test -c {path} && : > {path} && echo opened");
        cluster.try_kubectl(&["exec", pod, "--", "sh", "-c", &script])
    };
    assert_eq!(open("one", &path), Ok("opened\n".to_owned()));
    let other = sticks.0.join("other").display().to_string();
    assert!(open("one", &other).is_err(), "only what was asked for is there");

    // Who asks for nothing can make the node, as Kubernetes' default capabilities allow, and not open it.
    pod("none", "restartPolicy: Always", "{}");
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/none", "--timeout=60s"]);
    assert!(open("none", &path).is_err());
    cluster.kubectl(&["exec", "none", "--", "mknod", "/made", "c", "1", "11"]);
    let refused = open("none", "/made").unwrap_err();
    assert!(refused.contains("Operation not permitted"), "{refused}");

    // It is given to the next one when it is free, also to one whose root is nobody on the host.
    pod("two", "hostUsers: false", stick);
    wait_for("the word that it is taken", Duration::from_secs(60), || {
        let message = "jsonpath={.status.conditions[?(@.type==\"PodScheduled\")].message}";
        let message = cluster.kubectl(&["get", "pod/two", "-o", message]);
        if message.starts_with(why) { Ok(()) } else { Err(message) }
    });
    cluster.kubectl(&["delete", "pod/one", "--wait=true"]);
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/two", "--timeout=60s"]);
    assert_eq!(open("two", &path), Ok("opened\n".to_owned()));

    std::fs::remove_file(&path).unwrap();
    cluster.wait_jsonpath(&["node/node-1"], capacity, "0 0");
}
