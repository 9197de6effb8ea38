//! etcd's own client against `--etcd-listen`: the real etcdctl, where there is one.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::{cluster::Cluster, host::Host};

/// A cluster that serves etcd's clients, with an administrator's certificate as files.
struct Etcd {
    cluster: Cluster,
    certificates: PathBuf,
}

/// None where there is no etcdctl.
fn start() -> Option<Etcd> {
    if Command::new("etcdctl").arg("version").env("ETCDCTL_API", "3").output().is_err() {
        eprintln!("Skipped: there is no etcdctl on this machine");
        return None;
    }
    let cluster = Cluster::start_on(Host::new(), &["--no-agent", "--etcd-listen", "127.0.0.1:2379"]);
    let certificates = cluster.scratch().to_owned();
    let etcd = Etcd { cluster, certificates };
    etcd.extract(&etcd.cluster.kubeconfig(), "admin");
    etcd.extract(&etcd.cluster.data_dir().join("scheduler.kubeconfig"), "scheduler");
    Some(etcd)
}

impl Etcd {
    /// Writes a kubeconfig's certificate and key to files.
    fn extract(&self, kubeconfig: &Path, name: &str) {
        for (field, end) in [("client-certificate-data", "crt"), ("client-key-data", "key")] {
            let path = format!("jsonpath={{.users[0].user.{field}}}");
            let mut shown = self.cluster.kubectl_command(&["config", "view", "--raw", "-o", &path]);
            let output = shown.arg("--kubeconfig").arg(kubeconfig).output().expect("kubectl runs");
            let bytes = STANDARD.decode(output.stdout.trim_ascii()).expect("base64");
            std::fs::write(self.certificates.join(format!("{name}.{end}")), bytes).expect("a file");
        }
    }

    fn command(&self, who: &str, arguments: &[&str]) -> Command {
        let mut command = self.cluster.host.command("etcdctl");
        command.env("ETCDCTL_API", "3").arg("--endpoints=https://127.0.0.1:2379").arg("--command-timeout=20s");
        command.arg("--cacert").arg(self.cluster.data_dir().join("pki/ca.crt"));
        for (flag, end) in [("--cert", "crt"), ("--key", "key")] {
            command.arg(flag).arg(self.certificates.join(format!("{who}.{end}")));
        }
        command.args(arguments);
        command
    }

    fn run(&self, who: &str, arguments: &[&str], input: &str) -> Result<String, String> {
        let mut command = self.command(who, arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().expect("etcdctl runs");
        let mut stdin = process.stdin.take().expect("a pipe");
        // One that refuses its arguments does not read.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        let output = process.wait_with_output().expect("etcdctl ends");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    fn does(&self, arguments: &[&str]) -> String {
        self.run("admin", arguments, "").unwrap_or_else(|error| panic!("etcdctl {arguments:?}: {error}"))
    }

    fn refuses(&self, arguments: &[&str], why: &str) {
        let refused = self.run("admin", arguments, "").expect_err("it was done");
        assert!(refused.contains(why), "etcdctl {arguments:?}: {refused}");
    }
}

#[test]
fn etcdctl_reads_writes_and_follows_keys() {
    let Some(etcd) = start() else { return };
    assert_eq!(etcd.does(&["put", "a", "1"]), "OK\n");
    assert_eq!(etcd.does(&["put", "b", "2", "--prev-kv"]), "OK\n");
    assert_eq!(etcd.does(&["put", "a", "3", "--prev-kv"]), "OK\na\n1\n");
    assert_eq!(etcd.does(&["get", "a", "c"]), "a\n3\nb\n2\n");
    assert_eq!(etcd.does(&["get", "a", "c", "--sort-by=modify", "--order=descend", "--print-value-only"]), "3\n2\n");
    assert!(etcd.does(&["get", "a", "c", "--keys-only", "--write-out=fields"]).contains("\"Count\" : 2"));
    assert_eq!(etcd.does(&["put", "a", "--ignore-value"]), "OK\n");
    assert_eq!(etcd.does(&["get", "a", "--print-value-only"]), "3\n");

    // At an earlier revision, and when that is gone.
    let fields = etcd.does(&["get", "a", "--write-out=fields"]);
    let revision: u64 = fields
        .lines()
        .find_map(|line| line.strip_prefix("\"Revision\" : "))
        .and_then(|text| text.parse().ok())
        .expect("a revision");
    etcd.does(&["put", "a", "4"]);
    let at = format!("--rev={revision}");
    assert_eq!(etcd.does(&["get", "a", &at, "--print-value-only"]), "3\n");
    etcd.refuses(&["get", "a", "--rev=999999999"], "required revision is a future revision");
    etcd.does(&["compaction", &(revision + 1).to_string()]);
    etcd.refuses(&["get", "a", &at], "required revision has been compacted");
    etcd.refuses(&["compaction", &revision.to_string()], "required revision has been compacted");

    // Transactions.
    let done =
        etcd.run("admin", &["txn"], "value(\"a\") = \"4\"\nmod(\"c\") = \"0\"\n\nput c 5\nget a\n\nget b\n\n").unwrap();
    assert!(done.contains("SUCCESS") && done.contains("OK") && done.contains("a\n4"), "{done}");
    let done = etcd.run("admin", &["txn"], "version(\"c\") > \"7\"\n\nput c 6\n\ndel b\n\n").unwrap();
    assert!(done.contains("FAILURE") && done.contains('1'), "{done}");
    assert_eq!(etcd.does(&["get", "b"]), "");
    assert_eq!(etcd.does(&["del", "a", "d", "--prev-kv"]), "2\na\n4\nc\n5\n");

    // What the API server owns is read and not written.
    etcd.cluster.kubectl(&["create", "secret", "generic", "s", "--from-literal=password=hunter2"]);
    assert!(etcd.does(&["get", "/registry/secrets/default/s"]).contains("k8s:enc:aesgcm:v1:"));
    assert!(
        etcd.does(&["get", "--prefix", "/registry/namespaces/", "--keys-only"])
            .contains("/registry/namespaces/default\n")
    );
    etcd.refuses(&["put", "/registry/namespaces/x", "{}"], "written through the Kubernetes API");
    etcd.refuses(&["del", "--prefix", ""], "written through the Kubernetes API");
    let as_scheduler = etcd.run("scheduler", &["get", "a"], "").unwrap_err();
    assert!(as_scheduler.contains("permission denied"), "{as_scheduler}");

    // Bounds.
    let large = "x".repeat(2_000_000);
    let refused = etcd.run("admin", &["put", "large"], &large).unwrap_err();
    assert!(refused.contains("request is too large"), "{refused}");
    let puts: String = (0..2000).map(|at| format!("put k{at} v\n")).collect();
    let refused = etcd.run("admin", &["txn"], &format!("\n{puts}\n\n")).unwrap_err();
    assert!(refused.contains("too many operations in txn request"), "{refused}");
}

#[test]
fn etcdctl_watches_leases_and_asks_after_the_server() {
    let Some(etcd) = start() else { return };
    let first = etcd.does(&["put", "w/0", "before", "--write-out=fields"]);
    let first: u64 = first
        .lines()
        .find_map(|line| line.strip_prefix("\"Revision\" : "))
        .and_then(|text| text.parse().ok())
        .expect("a revision");
    let mut watch = etcd
        .command("admin", &["watch", "--prefix", "w/", "--prev-kv", &format!("--rev={first}")])
        .stdout(Stdio::piped())
        .spawn()
        .expect("etcdctl runs");
    let mut told = BufReader::new(watch.stdout.take().expect("a pipe")).lines().map(|line| line.expect("text"));
    let mut next = |count: usize| -> Vec<String> { told.by_ref().take(count).collect() };
    assert_eq!(next(3), ["PUT", "w/0", "before"]);
    etcd.does(&["put", "w/0", "after"]);
    assert_eq!(next(5), ["PUT", "w/0", "before", "w/0", "after"]);
    etcd.does(&["del", "w/0"]);
    assert_eq!(next(5), ["DELETE", "w/0", "after", "w/0", ""]);

    // A lease takes its keys with it.
    let granted = etcd.does(&["lease", "grant", "1000"]);
    let id = granted.split_whitespace().nth(1).expect("an id").to_owned();
    etcd.does(&["put", "w/1", "held", &format!("--lease={id}")]);
    assert_eq!(next(3), ["PUT", "w/1", "held"]);
    let left = etcd.does(&["lease", "timetolive", &id, "--keys"]);
    assert!(left.contains("granted with TTL(1000s)") && left.contains("w/1"), "{left}");
    assert!(etcd.does(&["lease", "list"]).contains(&id));
    assert!(etcd.does(&["lease", "keep-alive", "--once", &id]).contains("keepalived with TTL(1000)"));
    etcd.does(&["lease", "revoke", &id]);
    assert_eq!(next(5)[..2], ["DELETE", "w/1"]);
    etcd.refuses(&["lease", "revoke", &id], "requested lease not found");
    let granted = etcd.does(&["lease", "grant", "1"]);
    let id = granted.split_whitespace().nth(1).expect("an id").to_owned();
    etcd.does(&["put", "w/2", "short", &format!("--lease={id}")]);
    assert_eq!(next(3), ["PUT", "w/2", "short"]);
    assert_eq!(next(5)[..2], ["DELETE", "w/2"], "its time was up");
    watch.kill().expect("it is ours");
    watch.wait().expect("it ends");

    // The server.
    // It says so where it says errors.
    etcd.does(&["endpoint", "health"]);
    let status = etcd.does(&["endpoint", "status", "--write-out=json"]);
    assert!(status.contains("\"version\":\"3.5.0\"") && status.contains("\"dbSize\":"), "{status}");
    assert!(etcd.does(&["member", "list"]).contains("started"));
    assert_eq!(etcd.does(&["endpoint", "hashkv"]).split(", ").count(), 2);
    assert_eq!(etcd.does(&["alarm", "list"]), "");
    let file = etcd.certificates.join("saved");
    etcd.does(&["snapshot", "save", file.to_str().expect("a path of text")]);
    let shown =
        etcd.cluster.host.command(env!("CARGO_BIN_EXE_coracle")).args(["snapshot", "inspect"]).arg(&file).output();
    let shown = shown.expect("coracle runs");
    assert!(String::from_utf8_lossy(&shown.stdout).starts_with("format    1, whole and unaltered"), "{shown:?}");
    etcd.refuses(&["user", "add", "x:y"], "unknown method");
}
