//! The keys that Secrets are sealed with, exchanged on all servers by one command, or on none.

use nix::sys::signal::Signal;

use super::{Servers, text};
use crate::{cluster::LONG, wait::wait_for};

impl Servers {
    /// The names of a server's keys, as its file has them: the first seals.
    fn keys(&self, name: &str) -> Vec<String> {
        let file = std::fs::read_to_string(self.dir(name).join("pki/encryption.yaml")).expect("a file");
        let names = file.lines().filter_map(|line| line.trim_start_matches([' ', '-']).strip_prefix("name: "));
        names.map(str::to_owned).collect()
    }

    fn make_secret(&self, at: &str, name: &str) {
        self.done(at, &["create", "secret", "generic", name, "--from-literal=said=hunter2"]);
    }
}

#[test]
fn one_command_exchanges_the_keys_of_all_servers_or_of_none() {
    let mut servers = Servers::three();
    servers.wait_voters("a", &["a", "b", "c"]);
    servers.make_secret("a", "first");
    let before = servers.keys("a");
    assert_eq!(before.len(), 1);

    // One of them is gone: nothing changes anywhere.
    servers.end("c", Signal::SIGKILL);
    let output = servers.coracle("b", &["encryption", "rotate"]);
    let said = text(&output);
    assert!(!output.status.success() && said.contains("server c did not take the new key: "), "{said}");
    for name in ["a", "b", "c"] {
        assert_eq!(servers.keys(name), before, "{name}: {said}");
    }
    servers.make_secret("b", "second");
    servers.start("c", &[]);
    servers.wait_voters("a", &["a", "b", "c"]);

    // All are there, whoever leads and whoever is asked.
    let output = servers.coracle("b", &["encryption", "rotate"]);
    let said = text(&output);
    assert!(output.status.success() && said.contains("otherwise  0 values"), "{said}");
    let after = servers.keys("b");
    assert_eq!((after.len(), &after[1]), (2, &before[0]), "{said}");
    for name in ["a", "c"] {
        assert_eq!(servers.keys(name), after, "{name}");
    }
    // Each seals with the new key, and opens what the others seal.
    for name in ["a", "b", "c"] {
        servers.make_secret(name, &format!("of-{name}"));
    }
    for name in ["a", "b", "c"] {
        let path = ["get", "secrets", "-o", "jsonpath={.items[*].data.said}"];
        wait_for(&format!("{name} to open all Secrets"), LONG, || {
            let said = servers.kubectl(name, &path)?;
            if said == ["aHVudGVyMg=="; 5].join(" ") { Ok(()) } else { Err(said) }
        });
        let status = text(&servers.coracle(name, &["encryption", "status"]));
        assert!(status.contains(&format!("keys       {} (the first seals)", after.join(", "))), "{status}");
        assert!(status.contains("otherwise  0 values"), "{status}");
    }
    // A server that starts anew, and one that joins, have what they need.
    servers.end("a", Signal::SIGKILL);
    servers.start("a", &[]);
    assert_eq!(servers.done("a", &["get", "secret", "first", "-o", "jsonpath={.data.said}"]), "aHVudGVyMg==");
    let token = servers.token(&["--server"]);
    servers.join("d", &token);
    assert_eq!(servers.keys("d"), after);
    assert_eq!(servers.done("d", &["get", "secret", "of-c", "-o", "jsonpath={.data.said}"]), "aHVudGVyMg==");
    servers.stop();
}
