//! etcd's own client against `--etcd-listen`: the real etcdctl, where there is one.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    cluster::{Cluster, LONG},
    host::Host,
    wait::wait_for,
};

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

/// The revision in an answer that was written as fields.
fn revision_in(fields: &str) -> u64 {
    let revision = fields.lines().find_map(|line| line.strip_prefix("\"Revision\" : "));
    revision.and_then(|text| text.parse().ok()).expect("a revision")
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

    /// Where the store stands when a key is read.
    fn revision(&self, key: &str) -> u64 {
        revision_in(&self.does(&["get", key, "--write-out=fields"]))
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
    let revision = etcd.revision("a");
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
    let mut nobody = etcd.cluster.host.command("etcdctl");
    nobody.env("ETCDCTL_API", "3").args(["--endpoints=https://127.0.0.1:2379", "--command-timeout=3s"]);
    nobody.arg("--cacert").arg(etcd.cluster.data_dir().join("pki/ca.crt")).args(["get", "a"]);
    let nobody = nobody.output().expect("etcdctl runs");
    assert!(!nobody.status.success() && nobody.stdout.is_empty(), "without a certificate: {nobody:?}");

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
    let first = revision_in(&etcd.does(&["put", "w/0", "before", "--write-out=fields"]));
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
    // It is done by itself, or is done at once by whoever is asked.
    assert!(etcd.does(&["defrag"]).starts_with("Finished defragmenting etcd member"));
    let table = etcd.does(&["member", "list", "--write-out=table"]);
    assert!(table.contains("| started |") && table.contains("https://127.0.0.1:2379"), "{table}");
    let id = etcd.does(&["member", "list"]).split(',').next().expect("an id").to_owned();
    assert_eq!(etcd.does(&["move-leader", &id]), format!("Leadership transferred from {id} to {id}\n"));
    etcd.refuses(&["move-leader", "1234"], "bad leader transferee");
    etcd.refuses(&["user", "add", "x:y"], "unknown method");
}

#[test]
fn a_snapshot_of_etcdctl_is_a_database_of_etcds() {
    let Some(etcd) = start() else { return };
    etcd.cluster.kubectl(&["create", "configmap", "kept", "--from-literal=a=b"]);
    let granted = etcd.does(&["lease", "grant", "1000"]);
    let lease = granted.split_whitespace().nth(1).expect("an id").to_owned();
    etcd.does(&["put", "own", "value", &format!("--lease={lease}")]);
    let large = "x".repeat(1_400_000);
    etcd.run("admin", &["put", "large"], &large).expect("it is put");
    for at in 0..300 {
        etcd.does(&["put", &format!("many/{at}"), "value"]);
    }
    let newest = etcd.revision("many/299");
    let place = |name: &str| etcd.certificates.join(name).to_str().expect("a path of text").to_owned();
    let file = place("saved");
    etcd.does(&["snapshot", "save", &file]);
    let local = |arguments: &[&str]| {
        let mut command = etcd.cluster.host.command("etcdctl");
        let output = command.env("ETCDCTL_API", "3").args(arguments).output().expect("etcdctl runs");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    // It checks that the file is whole: every page in its place, all keys in their order.
    let status: serde_json::Value =
        serde_json::from_str(&local(&["snapshot", "status", &file, "--write-out=json"])).expect("JSON");
    assert_eq!(status["revision"], newest, "{status}");
    let keys = etcd.does(&["get", "", "--prefix", "--keys-only", "--write-out=fields"]);
    let count = keys.lines().find_map(|line| line.strip_prefix("\"Count\" : ")).expect("a count");
    assert!(status["totalKey"].as_u64() > count.parse().ok(), "{status} of {count} keys");
    let inspected = etcd.cluster.coracle(&["snapshot", "inspect", &file]);
    let said = String::from_utf8_lossy(&inspected.stderr);
    assert!(!inspected.status.success() && said.contains("a database of etcd's: etcdctl reads it"), "{said}");

    // etcd takes it, and goes on from there.
    let restored = place("restored");
    local(&["snapshot", "restore", &file, "--data-dir", &restored]);
    let mut command = etcd.cluster.host.command("etcd");
    command.args(["--data-dir", &restored, "--listen-client-urls", "http://127.0.0.1:3379"]);
    command.args(["--advertise-client-urls", "http://127.0.0.1:3379", "--listen-peer-urls", "http://127.0.0.1:3380"]);
    let Ok(process) = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn() else {
        eprintln!("Skipped: there is no etcd on this machine");
        return;
    };
    let server = Ended(process);
    let there = |arguments: &[&str]| local(&[&["--endpoints=http://127.0.0.1:3379"], arguments].concat());
    wait_for("etcd to serve", LONG, || {
        let mut command = etcd.cluster.host.command("etcdctl");
        command.env("ETCDCTL_API", "3").args(["--endpoints=http://127.0.0.1:3379", "endpoint", "health"]);
        let output = command.output().expect("etcdctl runs");
        if output.status.success() { Ok(()) } else { Err(output) }
    });
    assert_eq!(there(&["get", "own"]), "own\nvalue\n");
    assert_eq!(there(&["get", "large", "--print-value-only"]).trim_end().len(), large.len());
    let same = ["get", "/registry/configmaps/default/kept", "--write-out=json"];
    let kvs = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("JSON")["kvs"].clone();
    assert_eq!(kvs(&there(&same)), kvs(&etcd.does(&same)), "revisions and versions too");
    assert!(there(&["lease", "timetolive", &lease, "--keys"]).contains("attached keys([own])"));
    there(&["lease", "revoke", &lease]);
    assert_eq!(there(&["get", "own"]), "");
    let fields = there(&["put", "more", "", "--write-out=fields"]);
    assert!(fields.contains(&format!("\"Revision\" : {}", newest + 2)), "{fields}");
    drop(server);
}

/// A process that ends with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.kill().expect("it is ours");
        self.0.wait().expect("it ends");
    }
}

/// What etcdctl makes of leases, transactions and watches: locks, elections, mirrors; and what it measures.
#[test]
fn etcdctl_locks_elects_mirrors_and_measures() {
    let Some(etcd) = start() else { return };
    let mut first = etcd.command("admin", &["lock", "door"]).stdout(Stdio::piped()).spawn().expect("etcdctl runs");
    let mut told = BufReader::new(first.stdout.take().expect("a pipe")).lines();
    let held = told.next().expect("a line").expect("text");
    assert!(held.starts_with("door/"), "{held}");
    let second = etcd.command("admin", &["lock", "door", "echo", "mine"]).stdout(Stdio::piped()).spawn();
    let second = Ended(second.expect("etcdctl runs"));
    wait_for("both to stand in line", LONG, || {
        let line = etcd.does(&["get", "--prefix", "door/", "--keys-only"]);
        if line.split_whitespace().count() == 2 { Ok(()) } else { Err(line) }
    });
    // SIGINT gives the lock back.
    kill(Pid::from_raw(i32::try_from(first.id()).expect("a pid")), Signal::SIGINT).expect("it is ours");
    first.wait().expect("it ends");
    let mut second = second;
    let mut said = String::new();
    second.0.stdout.take().expect("a pipe").read_to_string(&mut said).expect("text");
    assert_eq!(said, "mine\n");

    let leader = etcd.command("admin", &["elect", "post", "one"]).stdout(Stdio::piped()).spawn().expect("etcdctl runs");
    let mut leader = Ended(leader);
    let mut told = BufReader::new(leader.0.stdout.take().expect("a pipe")).lines();
    let key = told.next().expect("a line").expect("text");
    assert!(key.starts_with("post/") && told.next().expect("a line").expect("text") == "one", "{key}");
    let watching = etcd.command("admin", &["elect", "--listen", "post"]).stdout(Stdio::piped()).spawn();
    let mut watching = Ended(watching.expect("etcdctl runs"));
    let mut told = BufReader::new(watching.0.stdout.take().expect("a pipe")).lines();
    assert_eq!([told.next(), told.next()].map(|line| line.expect("a line").expect("text")), [key, "one".to_owned()]);

    // A mirror of a prefix in the same store: what is there, and what comes.
    etcd.does(&["put", "from/a", "1"]);
    let (ca, admin) = (etcd.cluster.data_dir().join("pki/ca.crt"), etcd.certificates.join("admin"));
    let mirror = etcd
        .command("admin", &["make-mirror", "--prefix=from/", "--dest-prefix=to/", "https://127.0.0.1:2379"])
        .arg("--dest-cacert")
        .arg(ca)
        .arg("--dest-cert")
        .arg(admin.with_extension("crt"))
        .arg("--dest-key")
        .arg(admin.with_extension("key"))
        .stdout(Stdio::null())
        .spawn();
    let mirror = Ended(mirror.expect("etcdctl runs"));
    let mirrored = |wanted: &str| {
        wait_for("the mirror", LONG, || {
            let found = etcd.does(&["get", "--prefix", "to/"]);
            if found == wanted { Ok(()) } else { Err(found) }
        });
    };
    mirrored("to/a\n1\n");
    let put = etcd.does(&["put", "from/b", "2", "--write-out=fields"]);
    let revision = revision_in(&put);
    etcd.does(&["del", "from/a"]);
    mirrored("to/b\n2\n");
    drop(mirror);

    // Watches as they are asked for at a prompt.
    let interactive = etcd.command("admin", &["watch", "-i"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut interactive = Ended(interactive.expect("etcdctl runs"));
    let asked = format!("watch from/b --rev={revision}\nwatch none\n");
    interactive.0.stdin.as_mut().expect("a pipe").write_all(asked.as_bytes()).expect("it reads");
    let told = BufReader::new(interactive.0.stdout.take().expect("a pipe")).lines();
    let told: Vec<String> = told.take(3).map(|line| line.expect("text")).collect();
    assert_eq!(told, ["PUT", "from/b", "2"]);

    // All that is to be read may be compacted, and waited for until it is gone.
    assert_eq!(
        etcd.does(&["compaction", &revision.to_string(), "--physical"]),
        format!("compacted revision {revision}\n")
    );
    // How quick it is, is this machine's affair.
    let measured = |what: &str| {
        let mut command = etcd.command("admin", &["check", what, "--load=s"]);
        // It reads the figures of the server's process, and trusts the system's authorities for that alone.
        let output = command.env("SSL_CERT_FILE", etcd.cluster.data_dir().join("pki/ca.crt")).output();
        String::from_utf8_lossy(&output.expect("etcdctl runs").stdout).into_owned()
    };
    let said = measured("perf");
    assert!(said.contains("Throughput") && said.contains("Slowest request took"), "{said}");
    let said = measured("datascale");
    assert!(said.contains("system memory used"), "{said}");
}
