//! A real cluster: `coracle up` on a host of its own, driven with the real kubectl.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Output, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{host::Host, wait::wait_for};

/// Long enough for what takes seconds on a slow machine with other tests beside it.
pub(crate) const LONG: Duration = Duration::from_secs(90);

/// Where a cluster listens that is alone on its host, and its node's name.
const ALONE: (&str, &str) = ("127.0.0.1:6443", "node-1");

/// A cluster that runs; stopped, purged and checked for leftovers when dropped.
pub(crate) struct Cluster {
    pub(crate) host: Host,
    folder: tempfile::TempDir,
    data_dir: PathBuf,
    /// Where it listens, and its node's name.
    place: (&'static str, &'static str),
    process: Option<Child>,
    log: Arc<Mutex<String>>,
    /// Further flags of the next start.
    pub(crate) flags: Vec<String>,
    /// What the one kind of error in the log is about that a test provokes.
    pub(crate) expected_error: Option<&'static str>,
    /// The ready line.
    pub(crate) ready: String,
}

impl Cluster {
    /// Starts one and waits for its ready line.
    pub(crate) fn start() -> Self {
        Self::start_on(Host::new(), &[])
    }

    /// Starts one on a host that may have a registry already, with further flags.
    pub(crate) fn start_on(host: Host, flags: &[&str]) -> Self {
        Self::start_at(host, ALONE, flags)
    }

    /// Starts one that listens at an address and has a node of a name.
    pub(crate) fn start_at(host: Host, place: (&'static str, &'static str), flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let data_dir = folder.path().join("data");
        Self::start_with(host, folder, data_dir, place, flags)
    }

    /// Starts one with this data directory.
    pub(crate) fn start_in(data_dir: PathBuf, flags: &[&str]) -> Self {
        Self::start_with(Host::new(), tempfile::tempdir().expect("a temporary folder"), data_dir, ALONE, flags)
    }

    fn start_with(
        host: Host,
        folder: tempfile::TempDir,
        data_dir: PathBuf,
        place: (&'static str, &'static str),
        flags: &[&str],
    ) -> Self {
        let flags = flags.iter().map(|f| (*f).to_owned()).collect();
        let mut cluster = Self {
            host,
            folder,
            data_dir,
            place,
            process: None,
            log: Arc::default(),
            flags,
            expected_error: None,
            ready: String::new(),
        };
        cluster.up();
        cluster
    }

    /// The data directory.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.data_dir.clone()
    }

    /// A folder for a test's own files, gone with the cluster.
    pub(crate) fn scratch(&self) -> &Path {
        self.folder.path()
    }

    /// The admin kubeconfig.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    /// The process id of `coracle up`.
    pub(crate) fn pid(&self) -> u32 {
        self.process.as_ref().expect("the cluster runs").id()
    }

    /// What `coracle up` has logged so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().expect("no reader panicked").clone()
    }

    /// Starts `coracle up` (again) and waits for its ready line.
    pub(crate) fn up(&mut self) {
        let mut process = self
            .host
            .command(env!("CARGO_BIN_EXE_coracle"))
            .args(["up", "--listen", self.place.0, "--node-name", self.place.1])
            .arg("--data-dir")
            .arg(self.data_dir())
            .arg("--kubeconfig")
            .arg(self.kubeconfig())
            .args(&self.flags)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("coracle starts");
        let stderr = process.stderr.take().expect("its stderr is a pipe");
        let log = Arc::clone(&self.log);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut log = log.lock().expect("no reader panicked");
                log.push_str(&line);
                log.push('\n');
            }
        });
        let mut line = String::new();
        let stdout = process.stdout.as_mut().expect("its stdout is a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("its stdout is text");
        self.process = Some(process);
        assert!(line.starts_with("coracle is ready in "), "no ready line but {line:?}; log:\n{}", self.log());
        self.ready = line;
    }

    /// Sends a signal to `coracle up` and waits for its end; says how it ended.
    pub(crate) fn end(&mut self, signal: Signal) -> std::process::ExitStatus {
        let mut process = self.process.take().expect("the cluster runs");
        kill(Pid::from_raw(i32::try_from(process.id()).expect("a pid")), signal).expect("the process is ours");
        process.wait().expect("it is our child")
    }

    /// Waits until `coracle up` has ended by itself; says how.
    pub(crate) fn ended(&mut self) -> std::process::ExitStatus {
        self.process.take().expect("the cluster runs").wait().expect("it is our child")
    }

    /// Runs `coracle` on its host and for its data directory, to its end.
    pub(crate) fn coracle(&self, arguments: &[&str]) -> Output {
        let mut command = self.host.command(env!("CARGO_BIN_EXE_coracle"));
        command.args(arguments).arg("--data-dir").arg(&self.data_dir).output().expect("coracle runs")
    }

    /// What such a run of `coracle` prints; it must succeed.
    #[track_caller]
    pub(crate) fn coracle_does(&self, arguments: &[&str]) -> String {
        let output = self.coracle(arguments);
        let (told, complaint) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "coracle {arguments:?}: {complaint}");
        told.into_owned()
    }

    /// Runs kubectl to its end.
    pub(crate) fn kubectl_output(&self, arguments: &[&str]) -> Output {
        self.kubectl_command(arguments).output().expect("kubectl runs")
    }

    /// A kubectl command, not yet started.
    pub(crate) fn kubectl_command(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = self.host.command("kubectl");
        // Its caches live with the cluster: two clusters under one address must not share them.
        command.arg("--kubeconfig").arg(self.kubeconfig()).arg("--cache-dir").arg(self.folder.path().join("cache"));
        command.args(arguments);
        command
    }

    /// What kubectl prints; it must succeed.
    #[track_caller]
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> String {
        match self.try_kubectl(arguments) {
            Ok(out) => out,
            Err(error) => panic!("kubectl {arguments:?}: {error}\nlog:\n{}", self.log()),
        }
    }

    /// What kubectl prints, or how it failed.
    pub(crate) fn try_kubectl(&self, arguments: &[&str]) -> Result<String, String> {
        let output = self.kubectl_output(arguments);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if output.status.success() { Ok(out.into_owned()) } else { Err(format!("{}\n{out}{err}", output.status)) }
    }

    /// What kubectl says on stderr when it must fail.
    #[track_caller]
    pub(crate) fn kubectl_refused(&self, arguments: &[&str]) -> String {
        let output = self.kubectl_output(arguments);
        assert!(
            !output.status.success(),
            "kubectl {arguments:?} succeeded: {}",
            String::from_utf8_lossy(&output.stdout)
        );
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// `kubectl apply -f -` of the manifest.
    #[track_caller]
    pub(crate) fn apply(&self, manifest: &str) -> String {
        self.kubectl_stdin(&["apply", "-f", "-"], manifest)
    }

    /// What kubectl prints when given `input`; it must succeed.
    #[track_caller]
    pub(crate) fn kubectl_stdin(&self, arguments: &[&str], input: &str) -> String {
        let mut command = self.kubectl_command(arguments);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kubectl starts");
        child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("kubectl reads its input");
        let output = child.wait_with_output().expect("kubectl ends");
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "kubectl {arguments:?}: {out}{err}\nlog:\n{}", self.log());
        out.into_owned()
    }

    /// Waits until `kubectl get … -o jsonpath=…` prints `expected`.
    #[track_caller]
    pub(crate) fn wait_jsonpath(&self, get: &[&str], path: &str, expected: &str) {
        let output = format!("jsonpath={path}");
        let mut arguments = vec!["get"];
        arguments.extend_from_slice(get);
        arguments.extend_from_slice(&["-o", &output]);
        wait_for(&format!("{get:?} {path} to be {expected:?}"), LONG, || {
            let seen = self.try_kubectl(&arguments);
            if seen.as_deref() == Ok(expected) { Ok(()) } else { Err(seen) }
        });
    }

    /// Imports a test image into the node's image store.
    #[track_caller]
    pub(crate) fn import(&self, layout: &str, name: &str) {
        let folder = crate::images::layout_of(layout);
        let output = self
            .host
            .command(env!("CARGO_BIN_EXE_coracle"))
            .args(["image", "import"])
            .arg(folder)
            .args(["--name", name])
            .arg("--data-dir")
            .arg(self.data_dir())
            .output()
            .expect("coracle runs");
        assert!(output.status.success(), "coracle image import: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// `coracle down --purge` for this cluster.
    pub(crate) fn purge(&self) -> Output {
        self.host
            .command(env!("CARGO_BIN_EXE_coracle"))
            .args(["down", "--purge", "--data-dir"])
            .arg(self.data_dir())
            .arg("--kubeconfig")
            .arg(self.kubeconfig())
            .output()
            .expect("coracle runs")
    }

    /// What the node has noted about its host: its cgroup, its run directory.
    fn note(&self, field: &str) -> PathBuf {
        let note = fs::read_to_string(self.data_dir().join("agent/host.json")).expect("the node has noted its host");
        let note: serde_json::Value = serde_json::from_str(&note).expect("the note is JSON");
        PathBuf::from(note[field].as_str().expect("a path"))
    }

    /// The cluster's cgroup in every hierarchy, whether it is there or not.
    pub(crate) fn places_of_groups(&self) -> Vec<PathBuf> {
        let root = self.note("cgroup_root");
        let hierarchies = fs::read_dir("/sys/fs/cgroup").expect("cgroups are mounted");
        let hierarchies = hierarchies.map(|entry| entry.expect("a hierarchy").path());
        hierarchies.chain([PathBuf::from("/sys/fs/cgroup")]).map(|place| place.join(&root)).collect()
    }

    /// The cgroups that carry the cluster's mark.
    pub(crate) fn groups(&self) -> Vec<PathBuf> {
        self.places_of_groups().into_iter().filter(|place| place.exists()).collect()
    }

    /// The node's directory of sockets and records.
    pub(crate) fn run_dir(&self) -> PathBuf {
        self.note("run_dir")
    }

    /// The processes with this command line in the cluster's containers.
    pub(crate) fn processes(&self, command: &str) -> BTreeSet<i32> {
        let numbers = fs::read_dir("/proc").expect("/proc is mounted");
        let numbers = numbers.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let matching = |pid: &i32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).replace('\0', " ").trim() == command && self.mounts_in(*pid)
        };
        numbers.filter(matching).collect()
    }

    /// The same once there are so many: a container runs before its shell has become the program.
    #[track_caller]
    pub(crate) fn wait_processes(&self, command: &str, count: usize) -> BTreeSet<i32> {
        wait_for(&format!("{count} processes {command:?}"), LONG, || {
            let now = self.processes(command);
            if now.len() == count { Ok(now) } else { Err(now) }
        })
    }

    /// Whether one of a process's mounts lies in the cluster's folder, wherever that is mounted itself.
    pub(crate) fn mounts_in(&self, pid: i32) -> bool {
        let name = self.folder.path().file_name().expect("a name").to_string_lossy();
        fs::read_to_string(format!("/proc/{pid}/mountinfo")).is_ok_and(|mounts| mounts.contains(name.as_ref()))
    }

    /// The mounts of this machine below the cluster's folder.
    pub(crate) fn mounts(&self) -> Vec<String> {
        let folder = self.folder.path().to_string_lossy().into_owned();
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("/proc is mounted");
        mounts.lines().filter(|line| line.contains(&folder)).map(str::to_owned).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.process.is_some() {
            if std::thread::panicking() {
                // What a person would look at first.
                for look in [["get", "pods", "-A", "-o", "wide"], ["get", "events", "-A", "-o", "wide"]] {
                    eprintln!("{}", self.try_kubectl(&look).unwrap_or_else(|error| error));
                }
            }
            self.end(Signal::SIGTERM);
        }
        let output = self.purge();
        if std::thread::panicking() {
            eprintln!("log of the cluster:\n{}", self.log());
            return;
        }
        assert!(output.status.success(), "coracle down --purge: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(self.mounts(), Vec::<String>::new(), "mounts left behind");
        let unexpected = |line: &&str| {
            line.contains(" ERROR ") && !self.expected_error.is_some_and(|expected| line.contains(expected))
        };
        let errors: Vec<String> = self.log().lines().filter(unexpected).map(str::to_owned).collect();
        assert_eq!(errors, Vec::<String>::new(), "errors in the log");
    }
}
