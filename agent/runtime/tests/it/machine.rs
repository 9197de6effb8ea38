//! These tests once more on a machine that has cgroup v2 alone: a virtual one, of the distribution's kernel and this very
//! program as all there is in its memory.
//!
//! `tests/run` fetches the kernel and names its directory in `CORACLE_TEST_KERNEL`; without that there is no such machine.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

/// What the machine does: the first and last process of its life.
const INIT: &str = r#"#!/bin/sh
export PATH=/bin RUST_BACKTRACE=1
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts -o ptmxmode=0666 devpts /dev/pts
mount -t tmpfs shm /dev/shm
mkdir /scratch
mount -t tmpfs scratch /scratch
export TMPDIR=/scratch
mount -t cgroup2 cgroup2 /sys/fs/cgroup
insmod /overlay.ko
ip link set lo up
/it --test-threads=2 limits:: cleanup:: security:: lifecycle:: restart:: \
    --skip a_supervisor_does_not_listen_to_anybody_but_root --skip a_hundred_starts_and_removals_leak_no_descriptor
echo "verdict: $?"
poweroff -f
"#;

/// Longer than the machine needs by far where every instruction is emulated and others compute beside it.
const PATIENCE: Duration = Duration::from_secs(400);

/// An archive of files as the kernel unpacks it into its memory (Linux, `initramfs buffer format`; `newc`).
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
    directories: Vec<PathBuf>,
}

impl Archive {
    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        let fields = [self.entries, mode, 0, 0, 1, 0, content.len() as u32, 0, 0, 0, 0, name.len() as u32 + 1, 0];
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
        if path == Path::new("/") || self.directories.iter().any(|made| made == path) {
            return;
        }
        self.directory(path.parent().unwrap());
        self.entry(path.strip_prefix("/").unwrap().to_str().unwrap(), 0o040_755, b"");
        self.directories.push(path.to_owned());
    }

    fn file(&mut self, path: &Path, content: &[u8]) {
        self.directory(path.parent().unwrap());
        self.entry(path.strip_prefix("/").unwrap().to_str().unwrap(), 0o100_755, content);
    }

    fn link(&mut self, path: &Path, target: &str) {
        self.directory(path.parent().unwrap());
        self.entry(path.strip_prefix("/").unwrap().to_str().unwrap(), 0o120_777, target.as_bytes());
    }

    fn end(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, b"");
        self.bytes
    }
}

/// The libraries a program is linked with, the linker itself included.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let output = Command::new("ldd").arg(program).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

fn memory_of_the_machine(kernel: &Path) -> Vec<u8> {
    let mut archive = Archive::default();
    for directory in ["/proc", "/sys", "/dev", "/tmp", "/root"] {
        archive.directory(Path::new(directory));
    }
    archive.file(Path::new("/init"), INIT.as_bytes());
    archive.file(Path::new("/overlay.ko"), &fs::read(kernel.join("overlay.ko")).unwrap());
    archive.file(Path::new("/bin/busybox"), &fs::read("/bin/busybox").unwrap());
    for applet in ["sh", "mount", "mkdir", "insmod", "ip", "poweroff", "sleep", "head", "cat"] {
        archive.link(&Path::new("/bin").join(applet), "busybox");
    }
    let test = std::env::current_exe().unwrap();
    archive.file(Path::new("/it"), &fs::read(&test).unwrap());
    let supervisor = Path::new(env!("CARGO_BIN_EXE_coracle-runtime-supervisor"));
    archive.file(supervisor, &fs::read(supervisor).unwrap());
    let mut needed = libraries(&test);
    needed.extend(libraries(supervisor));
    needed.sort();
    needed.dedup();
    for library in needed {
        archive.file(&library, &fs::read(&library).unwrap());
    }
    archive.end()
}

#[test]
fn a_machine_with_cgroup_v2_alone_passes_these_tests_too() {
    let Some(kernel) = std::env::var_os("CORACLE_TEST_KERNEL").map(PathBuf::from) else {
        println!("Skipped: CORACLE_TEST_KERNEL does not name the directory tests/run puts a kernel in");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let memory = folder.path().join("memory");
    fs::write(&memory, memory_of_the_machine(&kernel)).unwrap();
    let mut machine = Command::new("qemu-system-x86_64")
        .args(["-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "1536"])
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
    let (sender, lines) = mpsc::sync_channel(64);
    let reader = std::thread::spawn(move || {
        for line in output.split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                return;
            }
        }
    });
    let (mut said, deadline) = (String::new(), Instant::now() + PATIENCE);
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
    assert!(said.contains("test result: ok. ") && said.contains("verdict: 0\n"), "the machine said:\n{said}");
    assert!(!said.contains("Skipped"), "a test had nothing to run on:\n{said}");
    assert!(!said.contains("test result: ok. 0 passed"), "nothing was run:\n{said}");
}
