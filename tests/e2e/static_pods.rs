//! Pods of a node's own: their manifests lie in a directory, the API server only shows them.

use std::{fs, path::Path};

use crate::{
    cluster::{Cluster, LONG},
    wait::wait_for,
};

fn manifest(name: &str, says: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: own}}}}\nspec:\n  \
         terminationGracePeriodSeconds: 0\n  containers:\n  - name: c\n    image: busybox:1\n    \
         command: [sh, -c, 'echo {says}; exec sleep 1000000']\n"
    )
}

/// Written beside and moved there, as careful people do.
fn put(dir: &Path, file: &str, text: &str) {
    let hidden = dir.join(format!(".{file}"));
    fs::write(&hidden, text).unwrap();
    fs::rename(hidden, dir.join(file)).unwrap();
}

#[test]
fn a_pod_of_the_manifest_directory_is_shown_and_follows_its_file_alone() {
    let mut cluster = Cluster::start();
    cluster.import("busybox", "busybox:1");
    let dir = cluster.data_dir().join("manifests");
    put(&dir, "web.yaml", &manifest("web", "one"));
    let pod = "web-node-1";
    wait_for("the mirror", LONG, || cluster.try_kubectl(&["get", "pod", pod]));
    cluster.kubectl(&["wait", "--for=condition=Ready", &format!("pod/{pod}"), "--timeout=60s"]);
    let get = |path: &str| cluster.kubectl(&["get", "pod", pod, "-o", &format!("jsonpath={path}")]);
    let (hash, uid) = (get("{.metadata.annotations.kubernetes\\.io/config\\.hash}"), get("{.metadata.uid}"));
    assert_eq!(get("{.metadata.annotations.kubernetes\\.io/config\\.mirror}"), hash);
    assert_eq!(get("{.metadata.annotations.kubernetes\\.io/config\\.source} {.metadata.labels.app}"), "file own");
    assert_eq!(get("{.metadata.ownerReferences[0].kind}/{.metadata.ownerReferences[0].name}"), "Node/node-1");
    cluster.wait_processes("sleep 1000000", 1);
    wait_for("the log of the first pod", LONG, || {
        let now = cluster.try_kubectl(&["logs", pod]);
        if now.as_deref() == Ok("one\n") { Ok(()) } else { Err(now) }
    });
    assert_eq!(cluster.kubectl(&["exec", pod, "--", "cat", "/proc/1/comm"]), "sleep\n");
    let described = cluster.kubectl(&["describe", "pod", pod]);
    assert!(described.contains("Started container c"), "events of the pod: {described}");

    // Whoever deletes what is shown sees it come back; the container runs on.
    let container = get("{.status.containerStatuses[0].containerID}");
    cluster.kubectl(&["delete", "pod", pod, "--wait=false"]);
    let shown = || cluster.try_kubectl(&["get", "pod", pod, "-o", "jsonpath={.metadata.uid} {.status.phase}"]);
    wait_for("another mirror of it", LONG, || {
        let now = shown();
        if now.as_ref().is_ok_and(|now| !now.starts_with(&uid) && now.ends_with(" Running")) {
            Ok(())
        } else {
            Err(now)
        }
    });
    assert_eq!(get("{.status.containerStatuses[0].containerID}"), container);
    assert_eq!(get("{.status.containerStatuses[0].restartCount}"), "0");

    // A file that says no pod is told of, and its pod stays as it was.
    put(&dir, "web.yaml", "kind: [");
    put(&dir, "bad.yaml", &manifest("bad", "x").replace("containers:", "serviceAccountName: x\n  containers:"));
    let events = ["get", "events", "--field-selector", "reason=InvalidStaticPod"];
    wait_for("events about both", LONG, || {
        let now = cluster.kubectl(&events);
        let both = now.contains("web.yaml refused: it is neither YAML nor JSON")
            && now.contains("bad.yaml refused: static pods may not reference serviceaccounts");
        if both { Ok(()) } else { Err(now) }
    });
    assert_eq!(get("{.status.containerStatuses[0].containerID}"), container);

    // Another text is another pod under the same name; no file is none.
    put(&dir, "web.yaml", &manifest("web", "two"));
    wait_for("the log of the second pod", LONG, || {
        let now = cluster.try_kubectl(&["logs", pod]);
        if now.as_deref() == Ok("two\n") { Ok(()) } else { Err(now) }
    });
    assert_ne!(get("{.metadata.annotations.kubernetes\\.io/config\\.hash}"), hash);
    cluster.wait_processes("sleep 1000000", 1);

    // The agent takes it over, as it does other pods.
    cluster.kubectl(&["wait", "--for=condition=Ready", &format!("pod/{pod}"), "--timeout=60s"]);
    let before = get("{.metadata.uid} {.status.containerStatuses[0].containerID}");
    cluster.end(nix::sys::signal::Signal::SIGKILL);
    cluster.up();
    let get = |path: &str| cluster.try_kubectl(&["get", "pod", pod, "-o", &format!("jsonpath={path}")]);
    wait_for("exec by way of the new agent", LONG, || cluster.try_kubectl(&["exec", pod, "--", "true"]));
    assert_eq!(get("{.metadata.uid} {.status.containerStatuses[0].containerID}"), Ok(before));

    fs::remove_file(dir.join("web.yaml")).unwrap();
    wait_for("the mirror to be gone", LONG, || match cluster.try_kubectl(&["get", "pod", pod]) {
        Err(said) if said.contains("NotFound") => Ok(()),
        other => Err(other),
    });
    wait_for("the process to be gone", LONG, || {
        let now = cluster.processes("sleep 1000000");
        if now.is_empty() { Ok(()) } else { Err(now) }
    });
}
