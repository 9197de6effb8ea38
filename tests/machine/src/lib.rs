//! Virtual machines for tests: Debian's kernel, cgroup v2 alone, and what a test puts into their memory.
//!
//! ```text
//!   Memory: /init, busybox, programs with their libraries, kernel modules ──▶ qemu, every instruction emulated ──▶ what it said
//! ```
//!
//! `tests/run` fetches the kernel and names its directory in `CORACLE_TEST_KERNEL`; without that there is no machine, and a
//! test says so. Whatever fails here fails the test: it panics.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "for tests")]

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

/// How the script of every machine begins: what a kernel without an initramfs of a distribution has to be given.
const BEGIN: &str = "#!/bin/sh
export PATH=/bin HOME=/root RUST_BACKTRACE=1
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts -o ptmxmode=0666 devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs scratch /scratch
export TMPDIR=/scratch
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ip link set lo up
";

/// The directory of the kernel, if `tests/run` made one; says so if not.
#[must_use]
pub fn kernel() -> Option<PathBuf> {
    let kernel = std::env::var_os("CORACLE_TEST_KERNEL").map(PathBuf::from);
    if kernel.is_none() {
        println!("Skipped: CORACLE_TEST_KERNEL does not name the directory tests/run puts a kernel in");
    }
    kernel
}

/// What a machine's processes wait for, and where in the kernel those are that cannot be interrupted.
const WAITS: &str = "for p in /proc/[0-9]*; do read -r name < $p/comm; read -r wait < $p/wchan; \
    echo \"${p#/proc/} $name waits: $wait\"; done; echo 8 > /proc/sys/kernel/printk; echo w > /proc/sysrq-trigger";

/// What a machine finds in its memory when it starts: an archive of files as the kernel unpacks it (Linux, `initramfs
/// buffer format`; `newc`).
#[derive(Debug, Default)]
pub struct Memory {
    bytes: Vec<u8>,
    entries: u32,
    made: Vec<PathBuf>,
    script: String,
}

impl Memory {
    /// With busybox under the names of these of its applets.
    #[must_use]
    pub fn new(applets: &[&str]) -> Self {
        let mut memory = Self { script: BEGIN.to_owned(), ..Self::default() };
        for directory in ["/proc", "/sys", "/dev", "/tmp", "/root", "/scratch", "/run", "/etc", "/var/lib"] {
            memory.directory(Path::new(directory));
        }
        memory.file("/bin/busybox", &fs::read("/bin/busybox").expect("Debian's busybox-static"));
        for applet in ["sh", "mount", "mkdir", "insmod", "ip", "poweroff"].iter().chain(applets) {
            memory.entry(&Path::new("/bin").join(applet), 0o120_777, b"busybox");
        }
        memory
    }

    fn entry(&mut self, path: &Path, mode: u32, content: &[u8]) {
        self.directory(path.parent().expect("not the root"));
        self.append(path.strip_prefix("/").expect("an absolute path").to_str().expect("UTF-8"), mode, content);
    }

    fn append(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        let length = |bytes: usize| u32::try_from(bytes).expect("below 4 GB");
        let fields = [self.entries, mode, 0, 0, 1, 0, length(content.len()), 0, 0, 0, 0, length(name.len() + 1), 0];
        self.bytes.extend(b"070701");
        for field in fields {
            write!(self.bytes, "{field:08x}").unwrap();
        }
        self.bytes.extend(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn directory(&mut self, path: &Path) {
        if path == Path::new("/") || self.made.iter().any(|made| made == path) {
            return;
        }
        self.entry(path, 0o040_755, b"");
        self.made.push(path.to_owned());
    }

    /// Adds a file that may be run.
    pub fn file(&mut self, path: impl AsRef<Path>, content: &[u8]) {
        if !self.made.iter().any(|made| made == path.as_ref()) {
            self.entry(path.as_ref(), 0o100_755, content);
            self.made.push(path.as_ref().to_owned());
        }
    }

    /// Adds a program of this machine under another path, with the libraries it is linked with, which may lie beside it, and
    /// without the symbols that nobody there reads.
    pub fn program(&mut self, path: impl AsRef<Path>, from: &Path) {
        let folder = tempfile::tempdir().unwrap();
        let bare = folder.path().join("bare");
        let stripped = Command::new("strip").arg("-o").args([&bare, from]).status().expect("binutils, which gcc needs");
        assert!(stripped.success(), "strip {}", from.display());
        self.file(path, &fs::read(&bare).unwrap());
        let beside = from.parent().expect("a file");
        let output = Command::new("ldd").arg(from).env("LD_LIBRARY_PATH", beside).output().expect("libc-bin");
        // A program that is linked with nothing has no libraries, which ldd calls an error.
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(!text.contains("not found"), "{}: {text}", from.display());
        for library in text.split_whitespace().filter(|word| word.starts_with('/')).map(Path::new) {
            let name = Path::new("/lib").join(library.file_name().expect("a file"));
            let path = if library.parent() == Some(beside) { &name } else { library };
            self.file(path, &fs::read(library).unwrap());
        }
    }

    /// Has the kernel take these modules of its own, in this order, before anything else.
    pub fn modules(&mut self, kernel: &Path, names: &[&str]) {
        for name in names {
            let path = format!("/{name}.ko");
            self.file(&path, &fs::read(kernel.join(&path[1..])).unwrap_or_else(|error| panic!("{path}: {error}")));
            self.script.push_str(&format!("insmod {path}\n"));
        }
    }

    /// Runs a machine that does what `script` says and then ends, and gives what was said meanwhile, by the kernel as well.
    /// One that takes nearly all of `patience` says what each of its processes waits for.
    #[must_use]
    pub fn run(mut self, kernel: &Path, script: &str, megabytes: u32, patience: Duration) -> String {
        let late = patience.as_secs() * 9 / 10;
        let script = format!("{}(sleep {late}; {WAITS}) &\n{script}\npoweroff -f\n", self.script);
        self.file("/init", script.as_bytes());
        self.append("TRAILER!!!", 0, b"");
        let folder = tempfile::tempdir().unwrap();
        let memory = folder.path().join("memory");
        fs::write(&memory, &self.bytes).unwrap();
        let mut machine = Command::new("qemu-system-x86_64")
            .args(["-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", &megabytes.to_string()])
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot", "-kernel"])
            .arg(kernel.join("vmlinuz"))
            .arg("-initrd")
            .arg(&memory)
            .args(["-append", "console=ttyS0 quiet panic=-1 mitigations=off cgroup_no_v1=all"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("qemu-system-x86_64 starts");
        let output = BufReader::new(machine.stdout.take().unwrap());
        // A few lines while the other end looks at the clock.
        let (sender, lines) = mpsc::sync_channel(64);
        let reader = std::thread::spawn(move || {
            for line in output.split(b'\n').map_while(Result::ok) {
                if sender.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                    return;
                }
            }
        });
        let (mut said, deadline) = (String::new(), Instant::now() + patience);
        // The lines end with the machine.
        while let Ok(line) = lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            said.push_str(&line);
            said.push('\n');
        }
        machine.kill().unwrap();
        machine.wait().unwrap();
        drop(lines);
        reader.join().unwrap();
        println!("{said}");
        said
    }
}
