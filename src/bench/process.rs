//! A cluster started to be measured, and what the kernel says it costs.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// A `coracle up` in a folder of its own, stopped and purged when dropped.
pub(crate) struct Subject {
    process: Child,
    folder: PathBuf,
    /// How long until the ready line.
    pub(crate) ready_after: Duration,
}

/// What a process has used so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// Processor time.
    pub(crate) cpu: Duration,
    /// Memory resident now, bytes.
    pub(crate) resident: u64,
    /// Bytes it caused to be written to disk.
    pub(crate) written: u64,
}

impl Subject {
    /// Starts one that listens on `port` of loopback and waits for its ready line.
    pub(crate) fn start(port: u16, flags: &[&str]) -> anyhow::Result<Self> {
        let folder = std::env::temp_dir().join(format!("coracle-bench-{}-{port}", std::process::id()));
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let started = Instant::now();
        let mut process = Command::new(std::env::current_exe()?)
            .args(["up", "--log", "warn", "--listen", &format!("127.0.0.1:{port}"), "--node-listen", "127.0.0.1:0"])
            .args(["--pod-cidr", "10.142.0.0/16", "--service-cidr", "10.143.0.0/16"])
            .arg("--data-dir")
            .arg(folder.join("data"))
            .arg("--kubeconfig")
            .arg(folder.join("kubeconfig"))
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting coracle up")?;
        let mut line = String::new();
        if let Some(stdout) = &mut process.stdout {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let subject = Self { process, folder, ready_after: started.elapsed() };
        if line.is_empty() {
            bail!("coracle up ended before it was ready; what it said stands above");
        }
        Ok(subject)
    }

    /// Its admin kubeconfig.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    /// Its data directory.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// What it has used so far.
    pub(crate) fn usage(&self) -> anyhow::Result<Usage> {
        usage(self.process.id())
    }

    /// Memory resident now, in millions of bytes.
    pub(crate) fn megabytes(&self) -> anyhow::Result<f64> {
        #[expect(clippy::cast_precision_loss, reason = "an amount of memory is far below 2^52")]
        Ok(self.usage()?.resident as f64 / 1e6)
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        // Whatever fails here, the purge below says so on stderr; there is nobody to return it to.
        if let Ok(pid) = i32::try_from(self.process.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let _ = self.process.wait();
        let purge = std::env::current_exe().and_then(|exe| {
            let mut command = Command::new(exe);
            command.args(["down", "--purge", "--data-dir"]).arg(self.data_dir());
            command.arg("--kubeconfig").arg(self.kubeconfig()).stdout(Stdio::null()).status()
        });
        if purge.is_ok() {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// Makes an image of this machine's static busybox in the images of the instance with this data directory. Returns its
/// name.
pub(crate) fn import_busybox(data_dir: &Path) -> anyhow::Result<&'static str> {
    const NAME: &str = "coracle-bench:1";
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
    let busybox = busybox.context("there is no busybox to make an image of: apt-get install busybox-static")?;
    let root = data_dir.join("bench-rootfs");
    fs::create_dir_all(root.join("bin")).with_context(|| root.display().to_string())?;
    fs::copy(busybox, root.join("bin/busybox")).context("copying busybox")?;
    std::os::unix::fs::symlink("busybox", root.join("bin/sleep")).context("linking sleep")?;
    let mut tar = Command::new("tar").arg("-C").arg(&root).args(["-c", "."]).stdout(Stdio::piped()).spawn()?;
    let archive = tar.stdout.take().map_or_else(Stdio::null, Stdio::from);
    let imported = Command::new(std::env::current_exe()?)
        .args(["image", "import", "-", "--rootfs", "--name", NAME, "--cmd", "sleep", "--data-dir"])
        .arg(data_dir)
        .stdin(archive)
        .stdout(Stdio::null())
        .status()
        .context("importing the image")?;
    let packed = tar.wait()?;
    anyhow::ensure!(imported.success() && packed.success(), "making an image of {busybox} failed");
    Ok(NAME)
}

/// What the kernel says a process has used (proc(5)).
pub(crate) fn usage(pid: u32) -> anyhow::Result<Usage> {
    let folder = Path::new("/proc").join(pid.to_string());
    let stat = fs::read_to_string(folder.join("stat"))?;
    // The name may hold blanks and parentheses; what follows the last one does not.
    let after = stat.rsplit_once(')').map(|(_, rest)| rest).context("/proc/PID/stat")?;
    let field = |n: usize| after.split_whitespace().nth(n).and_then(|f| f.parse::<u64>().ok()).unwrap_or_default();
    let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?.unwrap_or(100);
    let cpu = Duration::from_secs_f64(
        Duration::from_secs(field(11) + field(12)).as_secs_f64()
            / Duration::from_secs(u64::try_from(ticks)?).as_secs_f64(),
    );
    let named = |file: &str, name: &str| -> anyhow::Result<u64> {
        let text = fs::read_to_string(folder.join(file))?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("{file}: {name}"))?;
        Ok(line.split_whitespace().next().unwrap_or_default().parse()?)
    };
    Ok(Usage { cpu, resident: named("status", "VmRSS:")? * 1024, written: named("io", "write_bytes:")? })
}

/// A port of loopback that is free now.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
