//! The parts as programs of their own, four processes that talk TLS; and nodes that join a cluster elsewhere.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::OnceLock,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    cluster::{Cluster, LONG},
    host::Host,
    wait::wait_for,
};

/// The program of one part. Cargo builds only this package's own for its tests, so the others are built here, once.
fn program(name: &str) -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    let folder = Path::new(env!("CARGO_BIN_EXE_coracle")).parent().unwrap();
    BUILT.get_or_init(|| {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--locked", "--workspace", "--bins"]).current_dir(env!("CARGO_MANIFEST_DIR"));
        if folder.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().unwrap().success(), "the parts are not built");
    });
    folder.join(name)
}

/// Processes on hosts, each with a log of its own; all are stopped and what they left is removed when this is dropped.
struct Apart {
    folder: tempfile::TempDir,
    processes: BTreeMap<String, Child>,
    /// Where nodes are: host's index and data directory.
    nodes: Vec<(usize, PathBuf)>,
    hosts: Vec<Host>,
}

impl Apart {
    fn new(hosts: Vec<Host>) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), processes: BTreeMap::new(), nodes: Vec::new(), hosts }
    }

    fn dir(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn log(&self, name: &str) -> String {
        fs::read_to_string(self.dir(&format!("{name}.log"))).unwrap_or_default()
    }

    /// Starts a process; its log goes on where an earlier one of the name stopped.
    fn start(&mut self, host: usize, name: &str, program: &Path, arguments: &[&str]) {
        let log = File::options().create(true).append(true).open(self.dir(&format!("{name}.log"))).unwrap();
        let mut command = self.hosts[host].command(program);
        let child = command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        self.processes.insert(name.to_owned(), child);
    }

    fn end(&mut self, name: &str, signal: Signal) -> ExitStatus {
        let mut child = self.processes.remove(name).unwrap();
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
        child.wait().unwrap()
    }

    fn kubectl_output(&self, arguments: &[&str]) -> Output {
        let mut command = self.hosts[0].command("kubectl");
        command.arg("--kubeconfig").arg(self.dir("server/admin.kubeconfig")).arg("--cache-dir").arg(self.dir("cache"));
        command.args(arguments).output().unwrap()
    }

    fn try_kubectl(&self, arguments: &[&str]) -> Result<String, String> {
        let output = self.kubectl_output(arguments);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if output.status.success() { Ok(out.into_owned()) } else { Err(format!("{out}{err}")) }
    }

    #[track_caller]
    fn kubectl(&self, arguments: &[&str]) -> String {
        self.try_kubectl(arguments).unwrap_or_else(|error| panic!("kubectl {arguments:?}: {error}"))
    }

    #[track_caller]
    fn apply(&self, manifest: &str) {
        let file = self.dir("manifest.yaml");
        fs::write(&file, manifest).unwrap();
        self.kubectl(&["apply", "-f", file.to_str().unwrap()]);
    }

    #[track_caller]
    fn wait_jsonpath(&self, get: &[&str], path: &str, expected: &str) {
        let output = format!("jsonpath={path}");
        let arguments = [&["get"], get, &["-o", &output]].concat();
        wait_for(&format!("{get:?} {path} to be {expected:?}"), LONG, || {
            let seen = self.try_kubectl(&arguments);
            if seen.as_deref() == Ok(expected) { Ok(()) } else { Err(seen) }
        });
    }

    /// Runs `coracle` on the server's host.
    fn coracle(&self, arguments: &[&str]) -> Output {
        self.hosts[0].command(env!("CARGO_BIN_EXE_coracle")).args(arguments).output().unwrap()
    }

    fn token(&self, arguments: &[&str]) -> String {
        let server = self.dir("server");
        let output = self.coracle(&[&["token"], arguments, &["--data-dir", server.to_str().unwrap()]].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn wait_ready(&self) {
        wait_for("the API server to be ready", LONG, || self.try_kubectl(&["get", "--raw", "/readyz"]));
    }

    /// Starts the three programs of a control plane.
    fn start_control(&mut self, flags: &[&str]) {
        self.start_part("apiserver", flags);
        self.wait_ready();
        self.start_part("scheduler", &[]);
        self.start_part("controller", &[]);
    }

    fn start_part(&mut self, part: &str, flags: &[&str]) {
        let program = program(&format!("coracle-{part}"));
        let server = self.dir("server");
        let file = |name: &str| server.join(name).to_str().unwrap().to_owned();
        let own = match part {
            "apiserver" => {
                ["--data-dir", server.to_str().unwrap(), "--listen", "127.0.0.1:6443"].map(str::to_owned).to_vec()
            }
            "scheduler" => vec!["--kubeconfig".to_owned(), file("scheduler.kubeconfig")],
            _ => vec!["--kubeconfig".to_owned(), file("controller-manager.kubeconfig")],
        };
        let own: Vec<&str> = own.iter().map(String::as_str).collect();
        self.start(0, part, &program, &[&own, flags].concat());
    }

    /// Starts a node of its own data directory.
    fn start_node(&mut self, host: usize, name: &str, program: &[&str], flags: &[&str]) {
        let dir = self.dir(name);
        if !self.nodes.contains(&(host, dir.clone())) {
            self.nodes.push((host, dir.clone()));
        }
        let arguments = [&program[1..], &["--data-dir", dir.to_str().unwrap(), "--node-name", name], flags].concat();
        self.start(host, name, Path::new(program[0]), &arguments);
    }

    fn import(&self, node: &str) {
        let (dir, layout) = (self.dir(node), crate::images::layout_of("busybox"));
        let layout = layout.to_str().unwrap();
        let output =
            self.coracle(&["image", "import", layout, "--name", "busybox:1", "--data-dir", dir.to_str().unwrap()]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        let names: Vec<String> = self.processes.keys().cloned().collect();
        // Nodes first: they say goodbye to the API server, which goes last.
        let is_server = |name: &String| name == "apiserver" || name == "server";
        let (servers, others): (Vec<_>, Vec<_>) = names.into_iter().partition(is_server);
        let ended: Vec<(String, ExitStatus)> =
            others.into_iter().chain(servers).map(|name| (name.clone(), self.end(&name, Signal::SIGTERM))).collect();
        for (host, dir) in &self.nodes {
            let mut down = self.hosts[*host].command(env!("CARGO_BIN_EXE_coracle"));
            let output = down.args(["down", "--purge", "--data-dir"]).arg(dir).output().unwrap();
            if !std::thread::panicking() {
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            }
        }
        let logs: Vec<String> = ended.iter().map(|(name, _)| name.clone()).collect();
        if std::thread::panicking() {
            for name in logs {
                eprintln!("log of {name}:\n{}", self.log(&name));
            }
            return;
        }
        for (name, status) in &ended {
            assert!(status.success(), "{name} ended with {status}:\n{}", self.log(name));
        }
        for name in logs {
            let log = self.log(&name);
            let errors: Vec<&str> = log.lines().filter(|line| line.contains(" ERROR ")).collect();
            assert_eq!(errors, Vec::<&str>::new(), "errors in the log of {name}");
        }
    }
}

/// A Deployment whose containers say something and wait.
fn deployment(name: &str, replicas: u32) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}}}\nspec:\n  replicas: {replicas}\n  \
         selector: {{matchLabels: {{app: {name}}}}}\n  template:\n    metadata: {{labels: {{app: {name}}}}}\n    spec:\n      \
         terminationGracePeriodSeconds: 0\n      containers:\n      \
         - {{name: c, image: 'busybox:1', command: [sh, -c, 'echo here; exec sleep 1000000']}}\n"
    )
}

const READY: &str = "{.status.readyReplicas}";
/// Where a node that joins finds the server in these tests.
const SERVER: &str = "https://127.0.0.1:6443";

#[test]
fn four_programs_are_a_cluster_and_each_may_die() {
    let mut apart = Apart::new(vec![Host::new()]);
    apart.start_control(&[]);
    let token = apart.token(&["create", "--description", "for the attic"]);
    let agent = program("coracle-agent");
    let agent = [agent.to_str().unwrap()];
    apart.start_node(0, "attic", &agent, &["--server", SERVER, "--token", &token, "--node-ip", "127.0.0.1"]);
    apart.wait_jsonpath(&["node", "attic"], "{.status.conditions[?(@.type=='Ready')].status}", "True");
    apart.wait_jsonpath(&["node", "attic"], "{.spec.podCIDR}", "10.42.0.0/24");
    apart.import("attic");
    apart.apply(&deployment("web", 2));
    apart.wait_jsonpath(&["deployment", "web"], READY, "2");
    let exec = |apart: &Apart| apart.kubectl(&["exec", "deployment/web", "--", "cat", "/proc/1/comm"]);
    assert_eq!((apart.kubectl(&["logs", "deployment/web"]).as_str(), exec(&apart).as_str()), ("here\n", "sleep\n"));

    // Without one of them its part of the work waits; with it again the work goes on.
    for (part, replicas) in [("controller", "3"), ("scheduler", "4")] {
        apart.end(part, Signal::SIGKILL);
        apart.kubectl(&["scale", "deployment/web", "--replicas", replicas]);
        apart.start_part(part, &[]);
        apart.wait_jsonpath(&["deployment", "web"], READY, replicas);
    }
    // One that waits beside it goes on in its place.
    let kubeconfig = apart.dir("server/scheduler.kubeconfig");
    apart.start(0, "standby", &program("coracle-scheduler"), &["--kubeconfig", kubeconfig.to_str().unwrap()]);
    let lease = ["lease", "-n", "kube-system", "kube-scheduler"];
    let holder = [&["get"], &lease[..], &["-o", "jsonpath={.spec.holderIdentity}"]].concat();
    let before = apart.kubectl(&holder);
    apart.end("scheduler", Signal::SIGKILL);
    apart.kubectl(&["scale", "deployment/web", "--replicas", "5"]);
    apart.wait_jsonpath(&["deployment", "web"], READY, "5");
    assert_ne!(apart.kubectl(&holder), before);
    apart.start_part("scheduler", &[]);
    apart.end("apiserver", Signal::SIGKILL);
    apart.start_part("apiserver", &[]);
    apart.wait_ready();
    apart.kubectl(&["scale", "deployment/web", "--replicas", "3"]);
    apart.wait_jsonpath(&["deployment", "web"], "{.status.replicas}", "3");

    // The node comes back as what it was, at once, and needs neither token nor server.
    apart.token(&["revoke", token.split('.').nth(2).unwrap_or_default()]);
    let pods = ["get", "pods", "-o", "jsonpath={range .items[*]}{.metadata.uid} {.status.podIP};{end}"];
    let before = apart.kubectl(&pods);
    apart.end("attic", Signal::SIGKILL);
    apart.start_node(0, "attic", &agent, &["--node-ip", "127.0.0.1"]);
    wait_for("exec by way of the new agent", LONG, || apart.try_kubectl(&["exec", "deployment/web", "--", "true"]));
    assert_eq!(apart.kubectl(&pods), before, "the pods are the same");
    apart.wait_jsonpath(&["pods"], "{.items[*].status.containerStatuses[0].restartCount}", "0 0 0");
    let membership = apart.dir("attic/agent/membership.json");
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(membership).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);

    // Who has no credential, or somebody else's name, stays outside.
    let refused = |flags: &[&str], code: i32, words: &str| {
        let dir = apart.dir("stranger");
        let own = ["--data-dir", dir.to_str().unwrap(), "--node-listen", "127.0.0.1:0", "--node-ip", "127.0.0.1"];
        let output = apart.hosts[0].command(agent[0]).args(own).args(flags).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(code) && said.contains(words), "{flags:?}: {}: {said}", output.status);
    };
    let fresh = apart.token(&["create"]);
    refused(&[], 2, "--token: this node is no member of a cluster yet");
    refused(&["--token", &fresh], 2, "--server: a node that joins must be told its server");
    refused(&["--token", "nonsense"], 2, "--token: ");
    refused(&["--server", SERVER, "--token", &token], 1, "the server answered 401");
    refused(&["--server", SERVER, "--token", &fresh, "--node-name", "attic"], 1, "the server answered 409: ");
}

#[test]
fn tokens_are_made_listed_and_revoked() {
    let mut apart = Apart::new(vec![Host::new()]);
    apart.start_part("apiserver", &[]);
    apart.wait_ready();
    let token = apart.token(&["create", "--ttl", "2", "--description", "for the attic"]);
    let forever = apart.token(&["create", "--ttl", "0"]);
    let id = |token: &str| -> String { token.split('.').nth(2).unwrap().to_owned() };
    let listed = apart.token(&["list"]);
    let line = |id: &str| listed.lines().find(|line| line.starts_with(id)).unwrap_or_default().to_owned();
    assert!(line(&id(&token)).ends_with("for the attic"), "{listed}");
    assert!(line(&id(&forever)).contains("never"), "{listed}");
    for whole in [&token, &forever] {
        let secret = whole.split('.').nth(3).unwrap();
        assert!(!listed.contains(secret), "a list shows no secrets: {listed}");
    }
    let said = apart.token(&["revoke", &id(&token)]);
    assert_eq!(said, format!("{} is worthless now", id(&token)));
    assert!(!apart.token(&["list"]).contains(&id(&token)));
    let (server, id) = (apart.dir("server"), id(&token));
    let again = apart.coracle(&["token", "revoke", &id, "--data-dir", server.to_str().unwrap()]);
    assert_eq!(again.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&again.stderr), format!("coracle: there is no token {id}\n"));
}

/// Certificates that live for half a minute: after a minute nobody works with the first ones any more.
#[test]
fn all_processes_outlive_their_certificates() {
    let mut apart = Apart::new(vec![Host::new()]);
    apart.start_control(&["--cluster-signing-duration", "30s"]);
    let token = apart.token(&["create"]);
    let agent = program("coracle-agent");
    let flags = ["--server", SERVER, "--token", &token, "--node-ip", "127.0.0.1"];
    apart.start_node(0, "attic", &[agent.to_str().unwrap()], &flags);
    apart.wait_jsonpath(&["node", "attic"], "{.status.conditions[?(@.type=='Ready')].status}", "True");
    apart.import("attic");
    let ends = |apart: &Apart| {
        let kept = fs::read(apart.dir("attic/agent/membership.json")).unwrap();
        let kept: serde_json::Value = serde_json::from_slice(&kept).unwrap();
        end_of(kept["credentials"]["clientCertificate"].as_str().unwrap().as_bytes())
    };
    let first = ends(&apart);
    wait_for("the first certificates to have ended", LONG, || until(first + 1));
    assert!(ends(&apart) > first);
    // The controllers, the scheduler and the agent each do their part for this, and the server asks the node.
    apart.apply(&deployment("late", 1));
    apart.wait_jsonpath(&["deployment", "late"], READY, "1");
    assert_eq!(apart.kubectl(&["logs", "deployment/late"]), "here\n");
    assert_eq!(apart.kubectl(&["exec", "deployment/late", "--", "cat", "/proc/1/comm"]), "sleep\n");
}

/// The same for one process: its own kubeconfig, the one it gave its user, and its node's server.
#[test]
fn a_whole_cluster_outlives_its_certificates() {
    let cluster = Cluster::start_on(Host::new(), &["--cluster-signing-duration", "30s"]);
    cluster.import("busybox", "busybox:1");
    let ends = || {
        let path = "jsonpath={.users[0].user.client-certificate-data}";
        let data = cluster.kubectl(&["config", "view", "--raw", "-o", path]);
        end_of(&base64(&data))
    };
    let first = ends();
    wait_for("the first certificates to have ended", LONG, || until(first + 1));
    assert!(ends() > first);
    cluster.apply(&deployment("late", 1));
    cluster.wait_jsonpath(&["deployment", "late"], READY, "1");
    assert_eq!(cluster.kubectl(&["logs", "deployment/late"]), "here\n");
    assert_eq!(cluster.kubectl(&["exec", "deployment/late", "--", "cat", "/proc/1/comm"]), "sleep\n");
}

/// Whether it is later than that, in seconds; or what time it is.
fn until(end: i64) -> Result<(), i64> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let now = i64::try_from(now).unwrap();
    if now > end { Ok(()) } else { Err(now) }
}

fn base64(text: &str) -> Vec<u8> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(text).unwrap()
}

/// When a certificate ends, in seconds.
fn end_of(pem: &[u8]) -> i64 {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem).unwrap();
    pem.parse_x509().unwrap().validity().not_after.timestamp()
}

#[test]
fn nodes_on_two_machines_have_ranges_of_their_own() {
    let (one, two) = (Host::new(), Host::new());
    one.link(&two, "198.51.100.1/24", "198.51.100.2/24");
    let mut apart = Apart::new(vec![one, two]);
    let (coracle, server) = (Path::new(env!("CARGO_BIN_EXE_coracle")), apart.dir("server"));
    let kubeconfig = apart.dir("kubeconfig");
    let flags = [
        "server",
        "--data-dir",
        server.to_str().unwrap(),
        "--kubeconfig",
        kubeconfig.to_str().unwrap(),
        "--advertise",
        "198.51.100.1",
    ];
    apart.start(0, "server", coracle, &flags);
    apart.wait_ready();
    let token = apart.token(&["create"]);
    for (host, name, address) in [(0, "left", "198.51.100.1"), (1, "right", "198.51.100.2")] {
        let flags = ["--server", "https://198.51.100.1:6443", "--token", &token, "--node-ip", address];
        apart.start_node(host, name, &[coracle.to_str().unwrap(), "agent"], &flags);
        apart.wait_jsonpath(&["node", name], "{.status.conditions[?(@.type=='Ready')].status}", "True");
        apart.import(name);
    }
    apart.wait_jsonpath(&["nodes", "left", "right"], "{.items[*].spec.podCIDR}", "10.42.0.0/24 10.42.1.0/24");
    for name in ["left", "right"] {
        apart.apply(
            &deployment(name, 1).replace(
                "    spec:\n",
                &format!("    spec:\n      nodeSelector: {{kubernetes.io/hostname: {name}}}\n"),
            ),
        );
        apart.wait_jsonpath(&["deployment", name], READY, "1");
        assert_eq!(apart.kubectl(&["logs", &format!("deployment/{name}")]), "here\n");
    }
    // The way between the nodes' ranges is the network's; with these routes it is there.
    apart.hosts[0].stdout("ip", &["route", "add", "10.42.1.0/24", "via", "198.51.100.2"]);
    apart.hosts[1].stdout("ip", &["route", "add", "10.42.0.0/24", "via", "198.51.100.1"]);
    let address = apart.kubectl(&["get", "pods", "-l", "app=right", "-o", "jsonpath={.items[0].status.podIP}"]);
    assert!(address.starts_with("10.42.1."), "{address}");
    apart.kubectl(&["exec", "deployment/left", "--", "ping", "-c", "1", "-W", "5", &address]);
}

/// What a node runs of its own it runs without a server: taken over, or begun.
#[test]
fn a_node_whose_server_is_gone_runs_its_static_pods() {
    let mut apart = Apart::new(vec![Host::new()]);
    let (coracle, server) = (env!("CARGO_BIN_EXE_coracle"), apart.dir("server"));
    let kubeconfig = apart.dir("kubeconfig");
    let flags = ["server", "--data-dir", server.to_str().unwrap(), "--kubeconfig", kubeconfig.to_str().unwrap()];
    let flags = [&flags[..], &["--listen", "127.0.0.1:6443"]].concat();
    apart.start(0, "server", Path::new(coracle), &flags);
    apart.wait_ready();
    let token = apart.token(&["create"]);
    let agent = [coracle, "agent"];
    apart.start_node(0, "attic", &agent, &["--server", SERVER, "--token", &token, "--node-ip", "127.0.0.1"]);
    apart.wait_jsonpath(&["node", "attic"], "{.status.conditions[?(@.type=='Ready')].status}", "True");
    apart.import("attic");
    apart.end("server", Signal::SIGTERM);
    apart.end("attic", Signal::SIGTERM);
    let out = apart.dir("out");
    fs::create_dir(&out).unwrap();
    let manifest = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: own}}\nspec:\n  terminationGracePeriodSeconds: 0\n  containers:\n  \
         - name: c\n    image: busybox:1\n    command: [sh, -c, 'hostname > /out/name; exec sleep 1000000']\n    \
         volumeMounts: [{{name: out, mountPath: /out}}]\n  volumes: [{{name: out, hostPath: {{path: {}}}}}]\n",
        out.display()
    );
    fs::write(apart.dir("attic/manifests/own.yaml"), manifest).unwrap();
    apart.start_node(0, "attic", &agent, &["--node-ip", "127.0.0.1"]);
    let name = wait_for("what the pod wrote", LONG, || {
        fs::read_to_string(out.join("name")).ok().filter(|name| !name.is_empty()).ok_or("nothing")
    });
    assert_eq!(name, "own-attic\n");
    // With the server again it is shown, and has never been away.
    apart.start(0, "server", Path::new(coracle), &flags);
    apart.wait_ready();
    apart.wait_jsonpath(
        &["pod", "own-attic"],
        "{.status.phase} {.status.containerStatuses[0].restartCount}",
        "Running 0",
    );
    assert_eq!(apart.kubectl(&["exec", "own-attic", "--", "hostname"]), name);
}

#[test]
fn wrong_flags_of_the_parts_are_named() {
    for (name, arguments, words) in [
        ("coracle-apiserver", &["--listen", "nonsense"][..], "--listen"),
        ("coracle-apiserver", &["--cluster-signing-duration", "1s"], "must be from 10s to 87600h"),
        ("coracle-scheduler", &[], "--kubeconfig"),
        ("coracle-controller", &["--kubeconfig", "/x", "--pod-cidr", "10.42.0.0/30"], "--pod-cidr"),
        ("coracle-agent", &["--taint", "a:Never"], "NoSchedule, PreferNoSchedule, NoExecute"),
        ("coracle-scheduler", &["--kubeconfig", "/x", "--log", "no=such=level"], "--log"),
    ] {
        let output = Command::new(program(name)).args(arguments).env_remove("KUBECONFIG").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{name} {arguments:?}: {said}");
        assert!(said.contains(words) && output.stdout.is_empty(), "{name} {arguments:?}: {said}");
    }
    let output = Command::new(program("coracle-scheduler")).args(["--kubeconfig", "/no/such"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.code() == Some(1) && said.starts_with("coracle-scheduler: --kubeconfig /no/such: "),
        "{said}"
    );
}
