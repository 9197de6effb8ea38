//! A cluster of several servers: joining, losing the leader, losing the majority, coming back, leaving. Control planes only.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::PathBuf,
    process::{Child, ExitStatus, Output, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::{cluster::LONG, host::Host, wait::wait_for};

mod homes;
mod keys;
mod lost;
mod witness;

/// Servers on one host, each with an address and a data directory of its own.
struct Servers {
    host: Host,
    folder: tempfile::TempDir,
    /// Where each listens.
    addresses: BTreeMap<String, String>,
    running: BTreeMap<String, Child>,
}

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Runs what must not come up, and say why.
#[track_caller]
fn refused(mut command: std::process::Command, words: &str) {
    let output = command.output().unwrap();
    let said = text(&output);
    assert!(output.status.code() == Some(1) && said.contains(words), "{command:?}: {}: {said}", output.status);
}

impl Servers {
    fn new() -> Self {
        let host = Host::new();
        let mut servers =
            Self { host, folder: tempfile::tempdir().unwrap(), addresses: BTreeMap::new(), running: BTreeMap::new() };
        for (number, name) in (1..).zip(NAMES) {
            servers.moves(name, &format!("192.0.2.{number}"));
        }
        servers
    }

    /// Three of them, `a` and those that joined it, which may not all vote yet.
    fn three() -> Self {
        let mut servers = Self::new();
        servers.start("a", &[]);
        for name in ["b", "c"] {
            let token = servers.token(&["--server"]);
            servers.join(name, &token);
        }
        servers
    }

    /// From now on it is found at another address.
    fn moves(&mut self, name: &str, address: &str) {
        self.host.stdout("ip", &["address", "add", &format!("{address}/32"), "dev", "lo"]);
        self.addresses.insert(name.to_owned(), address.to_owned());
    }

    fn dir(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn log(&self, name: &str) -> String {
        fs::read_to_string(self.dir(&format!("{name}.log"))).unwrap_or_default()
    }

    fn command(&self, name: &str, flags: &[&str]) -> std::process::Command {
        let kubeconfig = self.dir(&format!("{name}.kubeconfig"));
        let mut command = self.member("server", name, &["--kubeconfig", kubeconfig.to_str().unwrap()]);
        command.args(flags);
        command
    }

    /// A member of the store: a server, or a witness.
    fn member(&self, verb: &str, name: &str, flags: &[&str]) -> std::process::Command {
        let mut command = self.host.command(env!("CARGO_BIN_EXE_coracle"));
        command.args([verb, "--listen", &format!("{}:6443", self.addresses[name])]).env("CORACLE_SERVER_NAME", name);
        command.arg("--data-dir").arg(self.dir(name)).args(flags).stdin(Stdio::null());
        command
    }

    fn spawn(&mut self, name: &str, mut command: std::process::Command) {
        let log = File::options().create(true).append(true).open(self.dir(&format!("{name}.log"))).unwrap();
        let child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        self.running.insert(name.to_owned(), child);
    }

    fn start(&mut self, name: &str, flags: &[&str]) {
        let command = self.command(name, flags);
        self.spawn(name, command);
        wait_for(&format!("server {name} to be ready"), LONG, || {
            self.kubectl(name, &["get", "--raw", "/readyz"]).map_err(|error| (error, self.log(name)))
        });
    }

    /// Has a server join through the first.
    fn join(&mut self, name: &str, token: &str) {
        self.start(name, &["--join", "https://192.0.2.1:6443", "--token", token]);
    }

    /// Runs a server that must not come up; what it says.
    #[track_caller]
    fn refused(&self, name: &str, flags: &[&str], words: &str) {
        refused(self.command(name, flags), words);
    }

    fn end(&mut self, name: &str, signal: Signal) -> ExitStatus {
        let mut child = self.running.remove(name).unwrap();
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
        child.wait().unwrap()
    }

    fn kubectl_command(&self, at: &str, arguments: &[&str]) -> std::process::Command {
        let mut command = self.host.command("kubectl");
        command.arg("--kubeconfig").arg(self.dir(at).join("admin.kubeconfig"));
        command.arg("--cache-dir").arg(self.dir(&format!("{at}.cache"))).args(arguments);
        command
    }

    fn kubectl(&self, at: &str, arguments: &[&str]) -> Result<String, String> {
        let output = self.kubectl_command(at, arguments).output().unwrap();
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(text(&output))
        }
    }

    #[track_caller]
    fn done(&self, at: &str, arguments: &[&str]) -> String {
        self.kubectl(at, arguments).unwrap_or_else(|error| panic!("at {at}: kubectl {arguments:?}: {error}"))
    }

    fn coracle(&self, at: &str, arguments: &[&str]) -> Output {
        let mut command = self.host.command(env!("CARGO_BIN_EXE_coracle"));
        command.args(arguments).arg("--data-dir").arg(self.dir(at)).output().unwrap()
    }

    /// Removes a server, as soon as those that stay answer: without that it is refused.
    #[track_caller]
    fn remove(&self, at: &str, name: &str) {
        wait_for(&format!("{name} to be removed"), LONG, || {
            let removed = self.coracle(at, &["server", "remove", name]);
            if removed.status.success() { Ok(()) } else { Err(text(&removed)) }
        });
    }

    #[track_caller]
    fn token(&self, flags: &[&str]) -> String {
        let output = self.coracle("a", &[&["token", "create"], flags].concat());
        assert!(output.status.success(), "{}", text(&output));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn list(&self, at: &str) -> Result<Value, String> {
        Ok(serde_json::from_str(&self.kubectl(at, &["get", "--raw", "/coracle/v1/servers"])?).unwrap())
    }

    /// The servers as one of them sees them, by name: role and whether it is reached.
    fn members(&self, at: &str) -> Result<BTreeMap<String, (String, bool)>, String> {
        let list = self.list(at)?;
        let role = |server: &Value| match (server["leads"] == true, server["votes"] == true) {
            (true, _) => "leader",
            (false, true) => "voter",
            (false, false) => "learner",
        };
        let servers = list["servers"].as_array().unwrap().iter();
        let servers = servers.map(|server| {
            let name = server["name"].as_str().unwrap().to_owned();
            (name, (role(server).to_owned(), server["reached"] == true))
        });
        Ok(servers.collect())
    }

    /// Waits until all of these vote and are reached as one of them sees it; says who leads.
    #[track_caller]
    fn wait_voters(&self, at: &str, names: &[&str]) -> String {
        wait_for(&format!("{names:?} to vote"), LONG, || {
            let members = self.members(at)?;
            let all = names.len() == members.len()
                && names
                    .iter()
                    .all(|name| members.get(*name).is_some_and(|(role, reached)| role != "learner" && *reached));
            let leader = members.iter().find(|(_, (role, _))| role == "leader").map(|(name, _)| name.clone());
            leader.filter(|_| all).ok_or_else(|| format!("{members:?}"))
        })
    }

    #[track_caller]
    fn wait_endpoints(&self, at: &str, names: &[&str]) {
        let mut wanted: Vec<&str> = names.iter().map(|name| self.addresses[*name].as_str()).collect();
        wanted.sort_unstable();
        let wanted = wanted.join(" ");
        for (what, path) in [
            ("endpoints", "jsonpath={.subsets[*].addresses[*].ip}"),
            ("endpointslices", "jsonpath={.endpoints[*].addresses[0]}"),
        ] {
            wait_for(&format!("the Service's {what} to be {wanted}"), LONG, || {
                let seen = self.kubectl(at, &["get", what, "kubernetes", "-o", path])?;
                if seen == wanted { Ok(()) } else { Err(seen) }
            });
        }
    }

    /// Stops all, which must go well, and looks whether anything went wrong.
    fn stop(mut self) {
        for name in self.running.keys().cloned().collect::<Vec<_>>() {
            let status = self.end(&name, Signal::SIGTERM);
            assert!(status.success(), "{name} ended with {status}:\n{}", self.log(&name));
        }
        for name in NAMES {
            let log = self.log(name);
            let errors: Vec<&str> = log.lines().filter(|line| line.contains(" ERROR ")).collect();
            assert_eq!(errors, Vec::<&str>::new(), "errors in the log of {name}");
        }
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        let names: Vec<String> = self.running.keys().cloned().collect();
        for name in names {
            self.end(&name, Signal::SIGKILL);
            if std::thread::panicking() {
                eprintln!("log of {name}:\n{}", self.log(&name));
            }
        }
    }
}

#[test]
fn three_servers_are_one_cluster_and_each_may_die() {
    let mut servers = Servers::new();
    servers.start("a", &[]);
    servers.done("a", &["create", "secret", "generic", "before", "--from-literal=key=value"]);
    for name in ["b", "c"] {
        let token = servers.token(&["--server"]);
        servers.join(name, &token);
    }
    servers.wait_voters("a", &["a", "b", "c"]);
    servers.wait_endpoints("a", &["a", "b", "c"]);
    let shown = servers.coracle("b", &["server", "members"]);
    assert!(shown.status.success() && text(&shown).lines().count() == 4, "{}", text(&shown));

    // What is written at one is read at all, and what is sealed too.
    for name in ["a", "b", "c"] {
        servers.done(name, &["create", "configmap", name, "--from-literal=at=here"]);
        for other in ["a", "b", "c"] {
            servers.done(other, &["get", "configmap", name]);
        }
        let value = servers.done(name, &["get", "secret", "before", "-o", "jsonpath={.data.key}"]);
        assert_eq!(value, "dmFsdWU=", "at {name}");
    }

    // The leader dies; the others go on, the controllers among them.
    let leader = servers.wait_voters("a", &["a", "b", "c"]);
    let rest: Vec<&str> = ["a", "b", "c"].into_iter().filter(|name| *name != leader).collect();
    servers.end(&leader, Signal::SIGKILL);
    let create = ["create", "deployment", "late", "--image=busybox:1"];
    wait_for("a write without the first leader", LONG, || servers.kubectl(rest[0], &create));
    wait_for("the controllers on another server", LONG, || {
        let seen = servers.kubectl(rest[1], &["get", "pods", "-l", "app=late", "-o", "name"])?;
        if seen.starts_with("pod/late-") { Ok(()) } else { Err(seen) }
    });
    servers.wait_endpoints(rest[0], &rest);
    servers.start(&leader, &[]);
    servers.wait_voters(&leader, &["a", "b", "c"]);
    servers.done(&leader, &["get", "deployment", "late"]);
    servers.wait_endpoints(&leader, &["a", "b", "c"]);

    // An orderly end hands the lead over.
    let leader = servers.wait_voters("a", &["a", "b", "c"]);
    let rest: Vec<&str> = ["a", "b", "c"].into_iter().filter(|name| *name != leader).collect();
    assert!(servers.end(&leader, Signal::SIGTERM).success());
    // By then another leads: nobody has to miss this one first.
    let leads = |at: &&str| {
        let members = servers.members(at).unwrap_or_default();
        members.into_iter().find_map(|(name, (role, _))| (role == "leader" && name != leader).then_some(name))
    };
    assert!(rest.iter().find_map(leads).is_some(), "nobody leads when {leader} has ended");
    wait_for("another leader", LONG, || servers.kubectl(rest[0], &["create", "configmap", "orderly"]));

    // Without a majority nothing is written, and what is there is read by who says so.
    servers.end(rest[1], Signal::SIGKILL);
    let raw = |path: &str| servers.kubectl(rest[0], &["get", "--raw", path]);
    // Both at once, for kubectl tries each again for most of a minute.
    let (newest, written) = std::thread::scope(|scope| {
        let newest = scope.spawn(|| {
            wait_for("reads to be refused", LONG, || match raw("/api/v1/namespaces/default/configmaps") {
                Ok(found) => Err(found),
                Err(said) => Ok(said),
            })
        });
        let written = scope.spawn(|| servers.kubectl(rest[0], &["create", "configmap", "refused"]).unwrap_err());
        (newest.join().unwrap(), written.join().unwrap())
    });
    assert!(newest.contains("majority"), "{newest}");
    assert!(written.contains("majority") || written.contains("may or may not have been made"), "{written}");
    let any = raw("/api/v1/namespaces/default/configmaps?resourceVersion=0").unwrap();
    assert!(any.contains("orderly"), "{any}");
    servers.start(&leader, &[]);
    servers.done(&leader, &["get", "configmap", "a"]);

    // One that starts alone says what it waits for, shows what it has, and takes nothing.
    let only = rest[0];
    servers.end(&leader, Signal::SIGKILL);
    servers.end(only, Signal::SIGKILL);
    let command = servers.command(only, &[]);
    servers.spawn(only, command);
    let (read, ready, written) = std::thread::scope(|scope| {
        let raw = |path: &str| servers.kubectl(only, &["get", "--raw", path]);
        let read = scope.spawn(move || {
            wait_for("what it has", LONG, || raw("/api/v1/namespaces/default/configmaps?resourceVersion=0"))
        });
        let ready = scope.spawn(move || {
            wait_for("what it waits for", LONG, || match raw("/readyz/etcd") {
                Err(said) if said.contains("no server leads") => Ok(said),
                other => Err(other),
            })
        });
        let written = wait_for("a write to be refused", LONG, || {
            match servers.kubectl(only, &["create", "configmap", "refused"]) {
                Err(said) if said.contains("refused -") => Err(said),
                other => Ok(other),
            }
        });
        (read.join().unwrap(), ready.join().unwrap(), written.unwrap_err())
    });
    assert!(read.contains("orderly"), "{read}");
    assert!(ready.contains("1 of the 3 that vote are there, and 2 have to agree"), "{ready}");
    assert!(written.contains("majority") || written.contains("may or may not have been made"), "{written}");
    servers.start(&leader, &[]);
    servers.wait_endpoints(only, &[only, &leader]);
    servers.stop();
}

#[test]
fn five_servers_go_on_without_two_and_one_comes_back_at_another_address() {
    let mut servers = Servers::new();
    servers.start("a", &[]);
    for name in &NAMES[1..] {
        let token = servers.token(&["--server"]);
        servers.join(name, &token);
    }
    let leader = servers.wait_voters("a", &NAMES);
    let mut rest: Vec<&str> = NAMES.into_iter().filter(|name| *name != leader).collect();
    let moved = rest.pop().unwrap();
    // Where it is found, and who it is.
    let found = |servers: &Servers, at: &str| {
        let list = servers.list(at)?;
        let found = list["servers"].as_array().unwrap().iter().find(|server| server["name"] == moved);
        found.map(|found| (found["addresses"][0].clone(), found["id"].clone())).ok_or_else(|| list.to_string())
    };
    let (_, id) = found(&servers, &leader).unwrap();

    servers.end(&leader, Signal::SIGKILL);
    servers.end(moved, Signal::SIGKILL);
    for at in &rest {
        let create = ["create", "configmap", &format!("at-{at}")];
        wait_for("a write without two of five", LONG, || match servers.kubectl(at, &create) {
            Err(said) if !said.contains("already exists") => Err(said),
            _ => Ok(()),
        });
    }

    // Another address makes it no other member, also to one that only knew where it was before.
    servers.moves(moved, "192.0.2.9");
    servers.start(moved, &[]);
    servers.start(&leader, &[]);
    for at in NAMES {
        wait_for(&format!("{at} to know where {moved} is"), LONG, || match found(&servers, at)? {
            known if known == ("192.0.2.9:6443".into(), id.clone()) => Ok(()),
            (address, id) => Err(format!("{id} at {address}")),
        });
        servers.wait_voters(at, &NAMES);
    }
    servers.wait_endpoints(&leader, &NAMES);
    servers.done(moved, &["get", "configmap", &format!("at-{}", rest[0])]);
    servers.done(moved, &["create", "configmap", "moved"]);
    servers.stop();
}

#[test]
fn servers_leave_are_removed_and_come_back_as_others() {
    let mut servers = Servers::three();
    servers.wait_voters("a", &["a", "b", "c"]);

    // The disk of one is lost. It is not what it was any more, and says so; it comes back as another.
    servers.end("c", Signal::SIGKILL);
    fs::remove_dir_all(servers.dir("c/store")).unwrap();
    servers.refused("c", &[], "this server's store is gone");
    fs::remove_dir_all(servers.dir("c")).unwrap();
    let token = servers.token(&["--server"]);
    let flags = ["--join", "https://192.0.2.2:6443", "--token", &token];
    servers.refused("c", &flags, "there is a server \"c\" already");
    servers.remove("a", "c");
    servers.start("c", &flags);
    servers.wait_voters("c", &["a", "b", "c"]);

    // One is removed while it is away, and learns of it when it is back.
    servers.end("b", Signal::SIGTERM);
    servers.remove("c", "b");
    servers.refused("b", &[], "this server was removed from the cluster");
    let nobody = servers.coracle("c", &["server", "remove", "b"]);
    assert!(!nobody.status.success() && text(&nobody).contains("not found"), "{}", text(&nobody));

    // The one that leads leaves.
    let leader = servers.wait_voters("a", &["a", "c"]);
    let other = if leader == "a" { "c" } else { "a" };
    let left = servers.coracle(&leader, &["server", "leave"]);
    assert!(left.status.success(), "{}", text(&left));
    let status = servers.running.remove(&leader).unwrap().wait().unwrap();
    assert!(status.success(), "{status}: {}", servers.log(&leader));
    servers.wait_voters(other, &[other]);
    servers.done(other, &["create", "configmap", "alone"]);
    servers.wait_endpoints(other, &[other]);
    let only = servers.coracle(other, &["server", "leave"]);
    assert!(!only.status.success() && text(&only).contains("the only server"), "{}", text(&only));
    servers.stop();
}

#[test]
fn who_may_not_join_is_told_why() {
    let mut servers = Servers::new();
    servers.start("a", &[]);
    let first = "https://192.0.2.1:6443";
    let refused = |servers: &Servers, token: &str, flags: &[&str], words: &str| {
        servers.refused("b", &[&["--join", first, "--token", token], flags].concat(), words);
        assert!(!servers.dir("b/store").exists() && !servers.dir("b/pki/ca.key").exists(), "nothing is given away");
    };
    let nodes = servers.token(&[]);
    refused(&servers, &nodes, &[], "the token is not one for a server");
    let token = servers.token(&["--server"]);
    let (start, last) = token.split_at(token.len() - 1);
    let wrong = format!("{start}{}", if last == "a" { "b" } else { "a" });
    refused(&servers, &wrong, &[], "the token is not valid");
    let id = |token: &str| token.split('.').nth(2).unwrap().to_owned();
    let expired = servers.token(&["--server"]);
    let past = r#"{"stringData":{"expiration":"2020-01-01T00:00:00Z"}}"#;
    let secret = format!("bootstrap-token-{}", id(&expired));
    servers.done("a", &["patch", "secret", "-n", "kube-system", &secret, "-p", past]);
    refused(&servers, &expired, &[], "the token is not valid");
    let revoked = servers.token(&["--server"]);
    assert!(servers.coracle("a", &["token", "revoke", &id(&revoked)]).status.success());
    refused(&servers, &revoked, &[], "the token is not valid");
    refused(&servers, &token, &["--service-cidr", "10.99.0.0/16"], "--service-cidr");
    refused(&servers, &token, &["--server-name", "a"], "there is a server \"a\" already");
    // The token is for another cluster's authority.
    let foreign = token.replacen(&token[9..73], &"0".repeat(64), 1);
    refused(&servers, &foreign, &[], "trust https://192.0.2.1:6443");

    // What was used once is used up; the flags of a service may stay.
    servers.join("b", &token);
    servers.wait_voters("a", &["a", "b"]);
    servers.refused("c", &["--join", first, "--token", &token], "the token is not valid");
    // Another process with its data directory, which listens elsewhere, touches nothing there.
    let kept = fs::read_to_string(servers.dir("b/admin.kubeconfig")).unwrap();
    let mut second = servers.host.command(env!("CARGO_BIN_EXE_coracle"));
    second.args(["server", "--listen", "192.0.2.3:6443", "--data-dir"]).arg(servers.dir("b"));
    let second = second.arg("--kubeconfig").arg(servers.dir("second.kubeconfig")).output().unwrap();
    assert!(second.status.code() == Some(1) && text(&second).contains("is in use by process"), "{}", text(&second));
    assert_eq!(fs::read_to_string(servers.dir("b/admin.kubeconfig")).unwrap(), kept);
    assert!(servers.end("b", Signal::SIGTERM).success());
    servers.join("b", &token);
    servers.wait_voters("a", &["a", "b"]);

    // A server of another cluster stays that.
    servers.start("d", &[]);
    assert!(servers.end("d", Signal::SIGTERM).success());
    let fresh = servers.token(&["--server"]);
    servers.refused("d", &["--join", first, "--token", &fresh], "holds a server of another cluster");
    fs::remove_dir_all(servers.dir("d/store")).unwrap();
    servers.refused("d", &["--join", first, "--token", &fresh], "holds the keys of a cluster");
    servers.stop();
}

/// What the agent of a node leaves on its host goes with this.
struct Node<'a> {
    servers: &'a Servers,
    agent: Child,
}

impl Drop for Node<'_> {
    fn drop(&mut self) {
        kill(Pid::from_raw(i32::try_from(self.agent.id()).unwrap()), Signal::SIGTERM).unwrap();
        self.agent.wait().unwrap();
        let down = self.servers.coracle("node", &["down", "--purge"]);
        if std::thread::panicking() {
            eprintln!("log of the node:\n{}", self.servers.log("node"));
        } else {
            assert!(down.status.success(), "{}", text(&down));
        }
    }
}

#[test]
fn a_node_goes_on_with_other_servers() {
    let mut servers = Servers::three();
    servers.wait_endpoints("a", &["a", "b", "c"]);
    let token = servers.token(&[]);
    let log = File::create(servers.dir("node.log")).unwrap();
    let mut command = servers.host.command(env!("CARGO_BIN_EXE_coracle"));
    command.args(["agent", "--server", "https://192.0.2.1:6443", "--token", &token, "--node-name", "attic"]);
    command.args(["--node-ip", "192.0.2.4", "--data-dir"]).arg(servers.dir("node"));
    let agent = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
    let mut first = servers.running.remove("a").unwrap();
    {
        let node = Node { servers: &servers, agent };
        let kept = servers.dir("node/agent/membership.json");
        wait_for("the node to know all servers", LONG, || {
            let kept = fs::read_to_string(&kept).unwrap_or_default();
            if NAMES[..3].iter().all(|name| kept.contains(&servers.addresses[*name])) {
                Ok(())
            } else {
                Err(servers.log("node"))
            }
        });
        first.kill().unwrap();
        first.wait().unwrap();
        let ready = ["get", "node", "attic", "-o", "jsonpath={.status.conditions[?(@.type=='Ready')].status}"];
        wait_for("the node to be Ready", LONG, || match servers.kubectl("b", &ready) {
            Ok(ready) if ready == "True" => Ok(()),
            other => Err(other),
        });
        let renewed = || {
            servers
                .kubectl("b", &["get", "lease", "-n", "kube-node-lease", "attic", "-o", "jsonpath={.spec.renewTime}"])
        };
        let before = wait_for("its Lease", LONG, renewed);
        wait_for("its Lease to be renewed through another server", LONG, || match renewed() {
            Ok(now) if now != before => Ok(()),
            other => Err(other),
        });
        drop(node);
    }
    servers.stop();
}
