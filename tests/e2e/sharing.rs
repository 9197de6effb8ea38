//! Several instances on one host with one image store: none takes anything from another, whatever becomes of it.

use std::process::Command;

use nix::sys::signal::Signal;

use crate::{cluster::Cluster, host::Host, registry::Registry};

fn sleeper(name: &str, image: &str, extra: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 0\n{extra}  containers:\n  \
         - {{name: c, image: '{image}', imagePullPolicy: IfNotPresent, command: [sleep, '1000000']}}\n"
    )
}

#[track_caller]
fn runs(cluster: &Cluster, name: &str) {
    cluster.kubectl(&["wait", "--for=condition=Ready", &format!("pod/{name}"), "--timeout=60s"]);
}

#[test]
fn instances_share_images_and_their_rights_and_neither_takes_them_from_the_other() {
    let store = tempfile::tempdir().unwrap();
    let dir = store.path().join("images");
    let flags = ["--image-store", dir.to_str().unwrap()];
    let host = Host::new();
    // Only the first one reaches the registry.
    let registry = Registry::start_private(&host, 5000);
    let first = Cluster::start_on(host, &flags);
    let mut second = Cluster::start_on(Host::new(), &flags);
    let private = format!("{}/busybox:1", registry.address);
    // auth is base64 of me:secret.
    let config = format!("{{\"auths\":{{\"{}\":{{\"auth\":\"bWU6c2VjcmV0\"}}}}}}", registry.address);
    let secret = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: pull}}\ntype: kubernetes.io/dockerconfigjson\nstringData:\n  .dockerconfigjson: '{config}'\n"
    );
    let shows = "  imagePullSecrets: [{name: pull}]\n";
    for cluster in [&first, &second] {
        cluster.apply(&secret);
    }

    first.apply(&sleeper("friend", &private, shows));
    runs(&first, "friend");
    assert!(second.coracle_does(&["image", "list"]).contains(&private), "the store its node uses is known");
    second.apply(&sleeper("friend", &private, shows));
    runs(&second, "friend");
    second.apply(&sleeper("stranger", &private, ""));
    let reason = "{.status.containerStatuses[0].state.waiting.reason}";
    second.wait_jsonpath(&["pod/stranger"], reason, "ImagePullBackOff");

    // What one imports the other has, and who uses it keeps it.
    first.import("nginx", "nginx:1");
    second.apply(&sleeper("own", "nginx:1", ""));
    runs(&second, "own");
    let refused = first.coracle(&["image", "remove", "nginx:1"]);
    let complaint = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && complaint.contains("is in use by"), "{complaint}");

    // One that is killed has its pods and their images still.
    let before = second.wait_processes("sleep 1000000", 2);
    second.end(Signal::SIGKILL);
    assert!(!first.coracle(&["image", "remove", "nginx:1"]).status.success());
    first.coracle_does(&["image", "prune"]);
    second.up();
    assert_eq!(second.kubectl(&["exec", "own", "--", "cat", "/etc/group"]).lines().next(), Some("root:x:0:"));
    assert_eq!(second.processes("sleep 1000000"), before);

    // Another store is not had while pods stand on this one.
    second.end(Signal::SIGKILL);
    let other = store.path().join("other");
    let kubeconfig = second.kubeconfig();
    let moved = second.coracle(&[
        "up",
        "--listen",
        "127.0.0.1:6443",
        "--node-name",
        "node-1",
        "--kubeconfig",
        kubeconfig.to_str().unwrap(),
        "--image-store",
        other.to_str().unwrap(),
    ]);
    let complaint = String::from_utf8_lossy(&moved.stderr);
    assert!(complaint.contains("`coracle down` stops them"), "{complaint}");
    second.up();

    // One that goes for good leaves the store to the others, and those that are left take it as it is.
    let purged = first.data_dir();
    drop(first);
    assert!(!purged.exists());
    second.apply(&sleeper("after", "nginx:1", ""));
    runs(&second, "after");
    second.kubectl(&["delete", "pod", "--all", "--now"]);
    second.coracle_does(&["image", "remove", "nginx:1"]);
    assert!(!second.coracle_does(&["image", "list"]).contains("nginx"));
    drop(second);
    assert!(dir.join("index.json").exists(), "a store that is shared is nobody's to remove");
}

#[test]
fn an_instances_own_store_stays_while_another_uses_it() {
    let mut first = Cluster::start();
    first.import("busybox", "busybox:1");
    let dir = first.data_dir().join("agent/images");
    let second = Cluster::start_on(Host::new(), &["--image-store", dir.to_str().unwrap()]);
    second.apply(&sleeper("own", "busybox:1", ""));
    runs(&second, "own");
    first.end(Signal::SIGTERM);
    let purged = first.purge();
    let told = String::from_utf8_lossy(&purged.stdout);
    assert!(purged.status.success() && told.contains("another instance uses them"), "{told}");
    assert!(!first.data_dir().join("store").exists());
    second.kubectl(&["exec", "own", "--", "cat", "/etc/passwd"]);
    second.apply(&sleeper("after", "busybox:1", ""));
    runs(&second, "after");
}

#[test]
fn a_directory_that_is_no_store_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("tmp/kept");
    std::fs::create_dir_all(&kept).unwrap();
    let dir = folder.path().to_str().unwrap();
    let data = tempfile::tempdir().unwrap();
    for verb in [&["up"][..], &["image", "list"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_coracle"));
        let output = command.args(verb).args(["--image-store", dir, "--data-dir"]).arg(data.path()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{verb:?}: {said}");
        assert!(
            said.contains(&format!("--image-store {dir}: {dir} holds \"tmp\", which no image store has")),
            "{said}"
        );
    }
    assert!(kept.exists());
}
