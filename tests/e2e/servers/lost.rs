//! A cluster of which most is gone for good: what was saved of it lives again, elsewhere and alone.

use nix::sys::signal::Signal;

use super::{Servers, text};
use crate::{cluster::LONG, wait::wait_for};

#[test]
fn what_was_saved_of_three_servers_is_one_at_another_address_and_grows_again() {
    let mut servers = Servers::three();
    servers.wait_voters("a", &["a", "b", "c"]);
    servers.done("b", &["create", "secret", "generic", "kept", "--from-literal=said=hunter2"]);
    let uid = servers.done("b", &["get", "secret", "kept", "-o", "jsonpath={.metadata.uid}"]);
    let file = servers.dir("saved");
    let file = file.to_str().unwrap();
    // Any of them has everything.
    let saved = servers.coracle("c", &["snapshot", "save", file]);
    assert!(saved.status.success(), "{}", text(&saved));
    servers.done("a", &["create", "configmap", "later"]);
    let old = std::fs::read(servers.dir("a/admin.kubeconfig")).unwrap();
    for name in ["a", "b", "c"] {
        servers.end(name, Signal::SIGKILL);
        std::fs::remove_dir_all(servers.dir(name)).unwrap();
    }

    let restored = servers.coracle("d", &["snapshot", "restore", file]);
    assert!(restored.status.success(), "{}", text(&restored));
    servers.start("d", &[]);
    assert_eq!(servers.wait_voters("d", &["d"]), "d", "of the others nothing is waited for");
    servers.wait_endpoints("d", &["d"]);
    let secret = servers.done("d", &["get", "secret", "kept", "-o", "jsonpath={.metadata.uid} {.data.said}"]);
    assert_eq!(secret, format!("{uid} aHVudGVyMg=="));
    let later = servers.kubectl("d", &["get", "configmap", "later"]).unwrap_err();
    assert!(later.contains("not found"), "{later}");
    // Whoever was known is known: only the address is another.
    std::fs::write(servers.dir("old"), old).unwrap();
    let mut asked = servers.host.command("kubectl");
    asked.arg("--kubeconfig").arg(servers.dir("old")).args(["--server", "https://192.0.2.4:6443", "get", "namespaces"]);
    let asked = asked.output().unwrap();
    assert!(asked.status.success(), "{}", text(&asked));

    // It is a cluster again, and those that come are new.
    let token = servers.coracle("d", &["token", "create", "--server"]);
    let token = String::from_utf8(token.stdout).unwrap();
    servers.start("a", &["--join", "https://192.0.2.4:6443", "--token", token.trim()]);
    servers.wait_voters("d", &["a", "d"]);
    servers.done("a", &["create", "configmap", "again"]);
    wait_for("the Secret on the new server", LONG, || {
        servers.kubectl("a", &["get", "secret", "kept", "-o", "jsonpath={.data.said}"])
    });
    servers.stop();
}
