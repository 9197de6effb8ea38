//! Machines that are a server and a node each: `coracle up --join`.

use nix::sys::signal::Signal;

use super::text;
use crate::{cluster::Cluster, host::Host};

const FIRST: &str = "https://192.0.2.1:6443";
const READY: &str = "{.status.conditions[?(@.type=='Ready')].status}";

/// A pod that is bound to a node.
fn pod(name: &str, node: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  nodeName: {node}\n  \
         terminationGracePeriodSeconds: 0\n  containers:\n  \
         - {{name: c, image: 'busybox:1', command: [sh, -c, 'echo here; exec sleep 1000003']}}\n"
    )
}

#[test]
fn a_further_machine_is_a_server_and_a_node_by_one_command() {
    let (one, other) = (Host::new(), Host::new());
    one.link(&other, "192.0.2.1/24", "192.0.2.2/24");
    let own = ["--server-name", "cellar", "--node-ip", "192.0.2.1"];
    let first = Cluster::start_at(one, ("192.0.2.1:6443", "cellar"), &own);
    let token = first.coracle_does(&["token", "create", "--server"]);
    let token = token.trim();

    // What is refused costs no token.
    let refused = |flags: &[&str], words: &str| {
        let dir = first.scratch().join("refused");
        let mut command = other.command(env!("CARGO_BIN_EXE_coracle"));
        command.args(["up", "--listen", "192.0.2.2:6443", "--server-name", "attic", "--node-ip", "192.0.2.2"]);
        command.arg("--kubeconfig").arg(first.scratch().join("refused.kubeconfig")).arg("--data-dir").arg(&dir);
        let output = command.args(["--join", FIRST]).args(flags).output().unwrap();
        assert!(output.status.code() == Some(1) && text(&output).contains(words), "{flags:?}: {}", text(&output));
        assert!(!dir.join("member.json").exists(), "{flags:?}: it has not joined");
    };
    let nodes = first.coracle_does(&["token", "create"]);
    refused(&["--token", nodes.trim(), "--node-name", "attic"], "the token is not one for a server");
    refused(&["--token", token, "--node-name", "cellar"], "there is a node \"cellar\" already");
    refused(&["--token", token, "--node-name", "attic", "--service-cidr", "10.99.0.0/16"], "--service-cidr");

    let flags = ["--server-name", "attic", "--node-ip", "192.0.2.2", "--keep-pods"];
    let joining = [&flags[..], &["--join", FIRST, "--token", token]].concat();
    let mut second = Cluster::start_at(other, ("192.0.2.2:6443", "attic"), &joining);
    assert!(second.ready.contains(": 2 nodes, https://192.0.2.2:6443"), "{}", second.ready);
    let servers = |at: &Cluster| {
        let shown = at.coracle_does(&["server", "members"]);
        shown.lines().skip(1).map(|line| line.split_whitespace().nth(1).unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(servers(&first).len(), 2);

    // Both are nodes with ranges of their own, and each server reaches both.
    for at in [&first, &second] {
        for node in ["cellar", "attic"] {
            at.wait_jsonpath(&["node", node], READY, "True");
        }
    }
    let ranges = first.kubectl(&["get", "nodes", "-o", "jsonpath={.items[*].spec.podCIDR}"]);
    let ranges: std::collections::BTreeSet<&str> = ranges.split_whitespace().collect();
    assert_eq!(ranges.len(), 2, "{ranges:?}");
    second.import("busybox", "busybox:1");
    first.apply(&pod("web", "attic"));
    first.wait_jsonpath(&["pod", "web"], "{.status.phase}", "Running");
    for at in [&first, &second] {
        assert_eq!(at.kubectl(&["logs", "web"]), "here\n");
        assert_eq!(at.kubectl(&["exec", "web", "--", "cat", "/proc/1/comm"]), "sleep\n");
    }

    // It comes back as what it was, and is told nothing again.
    let uid = first.kubectl(&["get", "node", "attic", "-o", "jsonpath={.metadata.uid}"]);
    assert!(second.end(Signal::SIGTERM).success());
    second.flags = flags.map(str::to_owned).to_vec();
    second.up();
    assert!(second.ready.contains(": 2 nodes,"), "{}", second.ready);
    assert_eq!(first.kubectl(&["get", "node", "attic", "-o", "jsonpath={.metadata.uid}"]), uid);
    second.wait_jsonpath(&["pod", "web"], "{.status.containerStatuses[0].restartCount}", "0");
    assert_eq!(second.kubectl(&["exec", "web", "--", "cat", "/proc/1/comm"]), "sleep\n");

    // It leaves: the server and the node, and with it its pods, although they outlive the process otherwise.
    let left = second.coracle_does(&["server", "leave"]);
    assert!(left.starts_with("attic has left the cluster, and ends; 1 stay"), "{left}");
    let status = second.ended();
    assert!(status.success(), "{status}:\n{}", second.log());
    assert_eq!(second.processes("sleep 1000003").len(), 0, "nothing of the node runs");
    assert_eq!(servers(&first), ["cellar"]);
    assert_eq!(first.kubectl(&["get", "nodes", "-o", "name"]), "node/cellar\n");
    first.kubectl(&["create", "configmap", "after", "--from-literal=the=leave"]);
}
