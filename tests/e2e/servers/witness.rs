//! Two servers and a witness: each of the three may die, and nothing that was acknowledged is lost.

use std::{collections::BTreeSet, path::Path};

use super::*;

/// What no witness may have.
const HIDDEN: &str = "kept-by-servers-alone";

impl Servers {
    fn start_witness(&mut self, flags: &[&str]) {
        let command = self.member("witness", "c", flags);
        self.spawn("c", command);
    }

    /// Writes that are under way while a member dies.
    fn writes(&self, at: &[&str], round: usize) -> Vec<(String, Child)> {
        let mut under_way = Vec::new();
        for number in 0..2 {
            for at in at {
                let name = format!("round-{round}-{at}-{number}");
                let mut command = self.kubectl_command(at, &["create", "configmap", &name, "--request-timeout=60s"]);
                command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
                under_way.push((name, command.spawn().unwrap()));
            }
        }
        under_way
    }
}

/// Whether a file below `dir` has these bytes in it.
fn is_in(dir: &Path, bytes: &[u8]) -> bool {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).any(|path| {
        if path.is_dir() {
            return is_in(&path, bytes);
        }
        // A file of the log may be gone by now.
        fs::read(&path).unwrap_or_default().windows(bytes.len()).any(|window| window == bytes)
    })
}

#[test]
fn two_servers_and_a_witness_go_on_without_any_one() {
    let mut servers = Servers::new();
    let first = "https://192.0.2.1:6443";
    servers.start("a", &[]);
    let token = servers.token(&["--witness"]);
    let flags = ["--join", first, "--token", &token];
    refused(servers.member("witness", "c", &flags), "a witness is of use beside two servers");
    refused(servers.member("witness", "c", &[]), "its first start needs --join and --token");
    servers.refused("b", &flags, "the token is not one for a server");
    let server = servers.token(&["--server"]);
    servers.join("b", &server);
    let server = servers.token(&["--server"]);
    refused(
        servers.member("witness", "c", &["--join", first, "--token", &server]),
        "the token is not one for a witness",
    );
    servers.start_witness(&flags);
    servers.wait_voters("a", &["a", "b", "c"]);
    let shown = text(&servers.coracle("b", &["server", "members"]));
    let role = |name| {
        shown.lines().find_map(|line| {
            line.split_whitespace().skip(1).take(2).collect::<Vec<_>>().strip_prefix(&[name]).map(|role| role.concat())
        })
    };
    assert_eq!(role("c").as_deref(), Some("witness"), "{shown}");
    refused(servers.member("witness", "d", &flags), "the token is not valid");
    refused(
        servers.member("witness", "d", &["--join", first, "--token", &servers.token(&["--witness"])]),
        "there is a witness already",
    );

    // Each dies while writes are under way: the witness, who leads, and then the other, which leads by then.
    let mut acknowledged = BTreeSet::from([HIDDEN.to_owned()]);
    servers.done("a", &["create", "configmap", HIDDEN]);
    let leader = servers.wait_voters("a", &["a", "b", "c"]);
    let other = if leader == "a" { "b" } else { "a" };
    for (round, lost) in ["c", leader.as_str(), other].into_iter().enumerate() {
        let under_way = servers.writes(&["a", "b"], round);
        servers.end(lost, Signal::SIGKILL);
        let left: Vec<&str> = ["a", "b"].into_iter().filter(|name| *name != lost).collect();
        for at in &left {
            let name = format!("round-{round}-without-{lost}-at-{at}");
            wait_for(&format!("a write at {at} without {lost}"), LONG, || {
                match servers.kubectl(at, &["create", "configmap", &name]) {
                    // An attempt whose outcome nobody knew.
                    Err(said) if said.contains("already exists") => Ok(()),
                    done => done.map(drop),
                }
            });
            acknowledged.insert(name);
        }
        for (name, mut child) in under_way {
            if child.wait().unwrap().success() {
                acknowledged.insert(name);
            }
        }
        if lost == "c" {
            servers.start_witness(&[]);
        } else {
            servers.start(lost, &[]);
        }
        servers.wait_voters("a", &["a", "b", "c"]);
        servers.wait_voters("b", &["a", "b", "c"]);
        for at in ["a", "b"] {
            let list = servers.done(at, &["get", "configmaps", "-o", "jsonpath={.items[*].metadata.name}"]);
            let found: BTreeSet<&str> = list.split(' ').collect();
            let gone: Vec<&String> = acknowledged.iter().filter(|name| !found.contains(name.as_str())).collect();
            assert!(gone.is_empty(), "acknowledged, and not there at {at} after {lost} died: {gone:?}");
        }
    }

    // It serves nobody else, has no key but its own, and nothing of what is stored; and a server does not begin there.
    assert!(is_in(&servers.dir("a"), HIDDEN.as_bytes()) && !is_in(&servers.dir("c"), HIDDEN.as_bytes()));
    let keys: BTreeSet<_> = fs::read_dir(servers.dir("c/pki")).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(keys, ["ca.crt", "member.pem"].map(Into::into).into());
    servers.wait_endpoints("a", &["a", "b"]);
    let witness = servers.running.get("c").unwrap().id();
    let status = fs::read_to_string(format!("/proc/{witness}/status")).unwrap();
    let anonymous =
        status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap().trim().trim_end_matches(" kB");
    let anonymous: u64 = anonymous.parse().unwrap();
    assert!(anonymous < 16 << 10, "the witness keeps {anonymous} kB in memory");
    assert!(servers.end("c", Signal::SIGTERM).success(), "{}", servers.log("c"));
    servers.refused("c", &[], "a witness and a server each keep a data directory of their own");

    // Gone for good, it is removed as a server is, and another takes its place.
    servers.remove("b", "c");
    refused(servers.member("witness", "c", &[]), "this server was removed from the cluster");
    fs::remove_dir_all(servers.dir("c")).unwrap();
    let token = servers.token(&["--witness"]);
    servers.start_witness(&["--join", "https://192.0.2.2:6443", "--token", &token]);
    servers.wait_voters("b", &["a", "b", "c"]);
    servers.stop();
}
