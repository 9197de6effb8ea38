//! A host of its own for each cluster under test: a network namespace with only loopback in it, held open by one
//! process, so that clusters run side by side and nothing they do to the network reaches this machine.

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
};

/// Where a program of this machine is, if it has it.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").expect("a PATH");
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.exists())
}

/// A network namespace; gone when dropped.
pub(crate) struct Host {
    holder: Child,
}

impl Host {
    /// Makes one with loopback up.
    pub(crate) fn new() -> Self {
        let mut holder = Command::new("unshare")
            .args(["--net", "sh", "-c", "ip link set lo up && echo up && exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare of util-linux starts");
        let mut line = String::new();
        let stdout = holder.stdout.as_mut().expect("its stdout is a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("the holder says when it is ready");
        assert_eq!(line, "up\n", "a network namespace needs root and iproute2");
        Self { holder }
    }

    /// A cable to another host, with an address at each end.
    pub(crate) fn link(&self, other: &Self, here: &str, there: &str) {
        let pid = other.holder.id().to_string();
        self.stdout("ip", &["link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", &pid]);
        for (host, address) in [(self, here), (other, there)] {
            host.stdout("ip", &["address", "add", address, "dev", "cable"]);
            host.stdout("ip", &["link", "set", "cable", "up"]);
        }
    }

    /// A command that runs inside.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.holder.id())).arg("--").arg(program);
        command
    }

    /// Runs something of this process inside, in a thread of its own: a network namespace is a thread's.
    pub(crate) fn within<T: Send>(&self, run: impl FnOnce() -> T + Send) -> T {
        let namespace = std::fs::File::open(format!("/proc/{}/ns/net", self.holder.id())).expect("the holder runs");
        let inside = || {
            nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).expect("a thread may move");
            run()
        };
        std::thread::scope(|scope| scope.spawn(inside).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Runs a command inside to its end.
    pub(crate) fn output(&self, program: &str, arguments: &[&str]) -> Output {
        self.command(program).args(arguments).output().unwrap_or_else(|e| panic!("{program}: {e}"))
    }

    /// What a command prints; it must succeed.
    pub(crate) fn stdout(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.output(program, arguments);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{program} {arguments:?}: {}\n{out}{err}", output.status);
        out.into_owned()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // The namespace goes with its last process. A holder that is gone already is what is wanted.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
