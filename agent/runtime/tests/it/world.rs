//! A runtime in a directory of its own, a root made of busybox, and their removal whatever happens.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use coracle_runtime::{
    Config, ContainerId, ContainerSpec, ContainerState, ContainerStatus, ExecSpec, Exit, Mount, QosClass, Resources,
    Runtime, Sandbox, SandboxSpec,
};

pub(crate) struct World {
    pub(crate) runtime: Runtime,
    pub(crate) directory: tempfile::TempDir,
    mark: String,
}

const APPLETS: &[&str] = &[
    "sh", "cat", "ls", "echo", "sleep", "id", "env", "pwd", "true", "false", "mount", "umount", "touch", "mkdir",
    "mknod", "rm", "grep", "head", "tail", "dd", "stty", "printf", "seq", "ps", "kill", "hostname", "ip", "readlink",
    "stat", "wc", "unshare", "chmod", "ln", "tty", "yes", "test", "sed", "ping", "su", "setsid", "nc", "cut", "usleep",
    "chroot", "sync", "tr", "find", "mv", "mkfifo", "chown",
];

impl World {
    pub(crate) async fn new() -> World {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        assert!(nix::unistd::geteuid().is_root(), "these tests make namespaces and cgroups: run them as root");
        let directory = tempfile::tempdir().unwrap();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let mark = format!("coracle-test-{}-{number}", std::process::id());
        make_layer(&directory.path().join("layer"));
        let runtime = open(directory.path(), &mark).await;
        World { runtime, directory, mark }
    }

    /// The runtime of an agent that was started again.
    pub(crate) async fn reopen(&mut self) {
        self.runtime = open(self.directory.path(), &self.mark).await;
    }

    pub(crate) fn mark(&self) -> &str {
        &self.mark
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn layer(&self) -> PathBuf {
        self.path("layer")
    }

    pub(crate) fn sandbox_spec(&self, name: &str) -> SandboxSpec {
        SandboxSpec {
            pod_uid: format!("uid-{name}"),
            pod_name: name.to_owned(),
            pod_namespace: "default".to_owned(),
            attempt: 0,
            hostname: format!("host-{name}"),
            network: Default::default(),
            pid: Default::default(),
            ipc: Default::default(),
            uts: Default::default(),
            users: Default::default(),
            sysctls: Vec::new(),
            cgroup_parent: None,
            qos: QosClass::Burstable,
            resources: Resources::default(),
            log_directory: self.path("logs").join(format!("default_{name}_uid-{name}")),
            log_limits: Default::default(),
            shm_size: 0,
            annotations: Vec::new(),
        }
    }

    pub(crate) async fn sandbox(&self, name: &str) -> Sandbox {
        self.runtime.create_sandbox(&self.sandbox_spec(name)).await.unwrap()
    }

    pub(crate) fn container(&self, name: &str, argv: &[&str]) -> ContainerSpec {
        ContainerSpec::new(name, vec![self.layer()], argv.iter().map(|word| (*word).to_owned()).collect())
    }

    /// A container that runs a line of shell.
    pub(crate) fn shell(&self, name: &str, line: &str) -> ContainerSpec {
        self.container(name, &["/bin/sh", "-c", line])
    }

    /// Gives a container the host's `/usr`, read-only, for programs busybox has not.
    pub(crate) fn with_usr(&self, spec: &mut ContainerSpec) {
        let layer = self.path("usr-links");
        if !layer.exists() {
            fs::create_dir(&layer).unwrap();
            for name in ["lib", "lib64"] {
                symlink(format!("usr/{name}"), layer.join(name)).unwrap();
            }
        }
        spec.layers.push(layer);
        spec.mounts.push(Mount::bind("/usr", "/usr").readonly());
    }

    /// Runs a container to its end; what it said, without times.
    pub(crate) async fn run(&self, sandbox: &Sandbox, spec: &ContainerSpec) -> (Exit, String) {
        let status = sandbox.start_container(spec).await.unwrap();
        let exit = sandbox.wait(&status.id).await.unwrap();
        (exit, log_text(&status.log_path))
    }

    /// Runs a line of shell in a sandbox of its own, as a specification that was changed.
    pub(crate) async fn say(&self, line: &str, change: impl FnOnce(&mut ContainerSpec)) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let sandbox = self.sandbox(&format!("say-{}", NUMBER.fetch_add(1, Ordering::Relaxed))).await;
        let mut spec = self.shell("c", line);
        change(&mut spec);
        let (exit, text) = self.run(&sandbox, &spec).await;
        self.runtime.remove_sandbox(sandbox.id()).await.unwrap();
        assert!(exit.start_error.is_none());
        text
    }
}

async fn open(directory: &Path, mark: &str) -> Runtime {
    let mut config = Config::new(directory.join("root"), directory.join("run"), mark);
    config.exe = PathBuf::from(env!("CARGO_BIN_EXE_coracle-runtime-supervisor"));
    Runtime::open(config).await.unwrap()
}

impl Drop for World {
    /// Removed from a thread of its own, as a test that fails is dropped in the middle of a runtime.
    fn drop(&mut self) {
        let runtime = self.runtime.clone();
        let purge = move || {
            let driver = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            driver.block_on(runtime.purge())
        };
        let result = std::thread::spawn(purge).join();
        if !std::thread::panicking() {
            result.unwrap().unwrap();
        }
    }
}

fn make_layer(layer: &Path) {
    for name in ["bin", "etc", "proc", "sys", "dev", "tmp", "root", "home/app", "var"] {
        fs::create_dir_all(layer.join(name)).unwrap();
    }
    fs::copy("/bin/busybox", layer.join("bin/busybox")).unwrap();
    for applet in APPLETS {
        symlink("busybox", layer.join("bin").join(applet)).unwrap();
    }
    fs::write(layer.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n").unwrap();
    fs::write(layer.join("etc/group"), "root:x:0:\napp:x:1001:\nwheel:x:10:app\n").unwrap();
    fs::set_permissions(layer.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
}

/// A log without times and streams: whole lines end, parts do not.
pub(crate) fn log_text(path: &Path) -> String {
    let mut text = String::new();
    for line in String::from_utf8_lossy(&fs::read(path).unwrap()).lines() {
        let mut words = line.splitn(4, ' ');
        let (tag, rest) = (words.nth(2).unwrap(), words.next().unwrap());
        text.push_str(rest);
        if tag == "F" {
            text.push('\n');
        }
    }
    text
}

pub(crate) fn pid_of(status: &ContainerStatus) -> u32 {
    match &status.state {
        ContainerState::Running { pid, .. } => *pid,
        other => panic!("not running: {other:?}"),
    }
}

/// Runs a line of shell in a running container.
pub(crate) async fn exec(sandbox: &Sandbox, id: &ContainerId, line: &str) -> (i32, String) {
    let spec = ExecSpec { argv: ["sh", "-c", line].map(str::to_owned).to_vec(), ..ExecSpec::default() };
    let output = sandbox.exec_collect(id, &spec, Duration::from_secs(20), 1 << 20).await.unwrap();
    (output.code, String::from_utf8_lossy(&output.output).into_owned())
}
