//! Backing up, losing everything, and having it again; a copy to try things on; what a disk shows of Secrets.

use std::{path::Path, process::Command, time::Duration};

use nix::sys::signal::Signal;

use crate::{cluster::Cluster, wait::wait_for};

const OBJECTS: &str = "\
apiVersion: v1
kind: ConfigMap
metadata: {name: kept}
data: {a: b}
---
apiVersion: v1
kind: Secret
metadata: {name: kept}
stringData: {password: correct-horse-battery}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: kept}
spec:
  selector: {matchLabels: {app: kept}}
  template:
    metadata: {labels: {app: kept}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {name: c, image: 'busybox:1', command: [sleep, '535353']}
";

/// What is looked for on the disk: the password in base64.
const PASSWORD: &[u8] = b"Y29ycmVjdC1ob3JzZS1iYXR0ZXJ5";

impl Cluster {
    fn coracle_refuses(&self, arguments: &[&str]) -> String {
        let output = self.coracle(arguments);
        assert!(!output.status.success(), "coracle {arguments:?} did it");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}

fn holds(dir: &Path, what: &[u8]) -> bool {
    let mut entries = std::fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path());
    entries.any(|path| {
        if path.is_dir() {
            return holds(&path, what);
        }
        std::fs::read(&path).expect("a file").windows(what.len()).any(|part| part == what)
    })
}

#[test]
fn a_cluster_that_was_saved_and_lost_is_there_again() {
    let mut cluster = Cluster::start();
    cluster.import("busybox", "busybox:1");
    cluster.apply(OBJECTS);
    cluster.kubectl(&["rollout", "status", "deployment/kept", "--timeout=90s"]);
    let uid = cluster.kubectl(&["get", "configmap/kept", "-o", "jsonpath={.metadata.uid}"]);
    let file = cluster.scratch().join("snapshot");
    let file = file.to_str().expect("a path of text");
    let told = cluster.coracle_does(&["snapshot", "save", file]);
    assert!(told.starts_with("saved ") && told.contains(" entries at revision "), "{told}");
    assert!(cluster.coracle_refuses(&["snapshot", "save", file]).contains("is there already"));
    let shown = cluster.coracle_does(&["snapshot", "inspect", file]);
    for line in
        ["format    1, whole and unaltered", "file      pki/ca.key", "file      pki/encryption.yaml", "1 deployments"]
    {
        assert!(shown.contains(line), "no {line:?} in\n{shown}");
    }
    let refused = cluster.coracle_refuses(&["snapshot", "restore", file]);
    assert!(refused.contains("a server is running there"), "{refused}");

    cluster.end(Signal::SIGTERM);
    let purged = cluster.purge();
    assert!(purged.status.success(), "{}", String::from_utf8_lossy(&purged.stderr));
    assert!(!cluster.data_dir().exists());
    let told = cluster.coracle_does(&["snapshot", "restore", file]);
    assert!(told.starts_with("restored "), "{told}");
    assert!(cluster.coracle_refuses(&["snapshot", "restore", file]).contains("it is not empty"));

    cluster.flags = vec!["--tls-san".to_owned(), "elsewhere.example".to_owned()];
    cluster.up();
    assert_eq!(
        cluster.kubectl(&["get", "configmap/kept", "-o", "jsonpath={.metadata.uid} {.data.a}"]),
        format!("{uid} b")
    );
    let password = cluster.kubectl(&["get", "secret/kept", "-o", "jsonpath={.data.password}"]);
    assert_eq!(password.as_bytes(), PASSWORD);
    cluster.import("busybox", "busybox:1");
    cluster.kubectl(&["rollout", "restart", "deployment/kept"]);
    cluster.kubectl(&["rollout", "status", "deployment/kept", "--timeout=90s"]);
}

#[test]
fn a_snapshot_is_encrypted_for_a_key_or_with_a_passphrase() {
    let mut cluster = Cluster::start_on(crate::host::Host::new(), &["--no-agent"]);
    cluster.kubectl(&["create", "configmap", "kept", "--from-literal=a=in-the-open"]);
    let place = |name: &str| cluster.scratch().join(name).to_str().expect("a path of text").to_owned();
    // Made for this test; it opens nothing else.
    let to = "age1qhpw4kd66pnragmr4gj6zx6k28gr7gffl8fh6n73adqr6s73pc9sfsr4ec";
    let (key, word, file, other) = (place("key"), place("word"), place("file"), place("other"));
    std::fs::write(&key, "AGE-SECRET-KEY-1TNJVKTRFLSY8NN3SCA2P32AJA8GXV93RQ2GH0TQ6KHCAQHN8748QD8GSJY\n")
        .expect("a file");
    std::fs::write(&word, "correct horse\n").expect("a file");
    let told = cluster.coracle_does(&["snapshot", "save", &file, "--encrypt-to", to]);
    assert!(told.starts_with("saved ") && told.contains("encrypted"), "{told}");
    cluster.coracle_does(&["snapshot", "save", &other, "--passphrase-file", &word]);
    for (file, flags) in [(&file, ["--identity", &key]), (&other, ["--passphrase-file", &word])] {
        let bytes = std::fs::read(file).expect("a file");
        assert!(bytes.starts_with(b"age-encryption.org/v1\n"));
        assert!(!bytes.windows(11).any(|part| part == b"in-the-open" || part == b"PRIVATE KEY"));
        let shown = cluster.coracle_does(&["snapshot", "inspect", file, flags[0], flags[1]]);
        assert!(shown.starts_with("format    1, whole and unaltered"), "{shown}");
        let refused = cluster.coracle_refuses(&["snapshot", "inspect", file]);
        assert!(refused.contains("the snapshot is encrypted: name its key"), "{refused}");
    }
    let bytes = std::fs::read(&file).expect("a file");
    let cut = place("cut");
    std::fs::write(&cut, &bytes[..bytes.len() - 1]).expect("a file");
    let refused = cluster.coracle_refuses(&["snapshot", "inspect", &cut, "--identity", &key]);
    assert!(refused.contains("altered, or is cut short"), "{refused}");

    cluster.end(Signal::SIGTERM);
    let purged = cluster.purge();
    assert!(purged.status.success(), "{}", String::from_utf8_lossy(&purged.stderr));
    let told = cluster.coracle_does(&["snapshot", "restore", &file, "--identity", &key]);
    assert!(told.starts_with("restored "), "{told}");
    cluster.up();
    assert_eq!(cluster.kubectl(&["get", "configmap/kept", "-o", "jsonpath={.data.a}"]), "in-the-open");
}

#[test]
fn secrets_are_sealed_on_the_disk_and_a_new_key_seals_them_anew() {
    let mut cluster = Cluster::start_on(crate::host::Host::new(), &["--no-agent"]);
    cluster.kubectl(&["create", "secret", "generic", "kept", "--from-literal=password=correct-horse-battery"]);
    let before = cluster.coracle_does(&["encryption", "status"]);
    assert!(before.contains("otherwise  0 values"), "{before}");
    let after = cluster.coracle_does(&["encryption", "rotate"]);
    assert!(after.contains("rewritten") && after.contains("otherwise  0 values"), "{after}");

    let copy = cluster.scratch().join("copy");
    let told = cluster.coracle_does(&["fork", copy.to_str().expect("a path of text")]);
    assert!(told.starts_with("forked "), "{told}");
    let fork = Cluster::start_in(copy, &["--no-agent"]);
    fork.kubectl(&["delete", "secret/kept"]);
    let password = cluster.kubectl(&["get", "secret/kept", "-o", "jsonpath={.data.password}"]);
    assert_eq!(password.as_bytes(), PASSWORD, "the original is another one");
    drop(fork);

    cluster.end(Signal::SIGKILL);
    assert!(!holds(&cluster.data_dir().join("store"), PASSWORD));
    cluster.up();
    let password = cluster.kubectl(&["get", "secret/kept", "-o", "jsonpath={.data.password}"]);
    assert_eq!(password.as_bytes(), PASSWORD);
}

#[test]
fn objects_are_shown_as_they_were() {
    let cluster = Cluster::start_on(crate::host::Host::new(), &["--no-agent"]);
    cluster.kubectl(&["create", "configmap", "kept", "--from-literal=a=before"]);
    let then = cluster.kubectl(&["get", "--raw", "/api/v1/namespaces/default/configmaps?limit=1"]);
    let then: serde_json::Value = serde_json::from_str(&then).expect("JSON");
    let then = then["metadata"]["resourceVersion"].as_str().expect("a version").to_owned();
    cluster.kubectl(&["delete", "configmap/kept"]);
    let shown = cluster.coracle_does(&["get", "cm", "kept", "--revision", &then, "-o", "yaml"]);
    assert!(shown.contains("a: before") && shown.contains("kind: ConfigMap"), "{shown}");
    cluster.kubectl_stdin(&["apply", "-f", "-"], &shown.replace("resourceVersion", "# resourceVersion"));
    assert_eq!(cluster.kubectl(&["get", "configmap/kept", "-o", "jsonpath={.data.a}"]), "before");
    let shown = cluster.coracle_does(&["get", "configmaps", "--revision", &then]);
    assert!(shown.starts_with("NAME ") && shown.contains("\nkept "), "{shown}");
    // A cluster has to be so old to tell what it was then; a time in whole seconds is up to one more ago.
    wait_for("two seconds of history", Duration::from_secs(60), || {
        let output = cluster.coracle(&["get", "ns", "--as-of", "2s", "-o", "name"]);
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        if shown.contains("namespaces/default\n") { Ok(()) } else { Err(output) }
    });
    let clock = |when: &str| {
        let told = Command::new("date").args(["-u", "-d", when, "+%FT%TZ"]).output().expect("date runs").stdout;
        String::from_utf8(told).expect("text").trim().to_owned()
    };
    let shown = cluster.coracle_does(&["get", "ns", "--as-of", &clock("1 second ago"), "-o", "name"]);
    assert!(shown.contains("namespaces/default\n"), "{shown}");
    let refused = cluster.coracle_refuses(&["get", "ns", "--as-of", &clock("1 hour")]);
    assert!(refused.contains("is yet to come"), "{refused}");
    let refused = cluster.coracle_refuses(&["get", "ns", "--as-of", "2020-01-01T00:00:00+02:00"]);
    assert!(refused.contains("not known any more"), "{refused}");
    let refused = cluster.coracle_refuses(&["get", "ns", "--as-of", "yesterday"]);
    assert!(refused.contains("such as 1h, 10m or 90s, or a time such as"), "{refused}");
    let refused = cluster.coracle_refuses(&["get", "cm", "--as-of", "100h"]);
    assert!(refused.contains("not known any more"), "{refused}");
    let refused = cluster.coracle_refuses(&["get", "cms", "--as-of", "1s"]);
    assert!(refused.contains("doesn't have a resource type"), "{refused}");
    let refused = cluster.coracle_refuses(&["get", "cm", "other", "--as-of", "1s"]);
    assert!(refused.contains("was not there"), "{refused}");
}
