//! Starting a supervisor: the running program again, through a mount that cannot be written to.

use std::{
    fs,
    io::{self, BufRead, BufReader},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::Path,
    process::{Command, Stdio},
};

use serde::{Deserialize, Serialize};

use super::Config;
use crate::sys;

/// The line a supervisor says on its standard output.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Readiness {
    /// It listens.
    Ready {
        /// Its process id.
        pid: u32,
    },
    /// There will be no sandbox; nothing of it runs.
    Failed(String),
}

/// The program supervisors are, opened so that nobody can write to it by way of a process's `/proc/<pid>/exe`
/// (CVE-2019-5736): as a detached read-only mount, or on a kernel or host that has none, as a sealed copy in memory.
#[derive(Debug)]
pub(super) struct Executable {
    fd: OwnedFd,
}

impl Executable {
    pub(super) fn open(path: &Path) -> io::Result<Executable> {
        let shown = || -> io::Result<OwnedFd> {
            let mount = sys::clone_mount(path, false)?;
            sys::change_mount(mount.as_fd(), false, sys::ATTR_RDONLY, 0)?;
            Ok(mount)
        };
        Ok(Executable { fd: shown().or_else(|_| sealed_copy(path))? })
    }
}

fn sealed_copy(path: &Path) -> io::Result<OwnedFd> {
    use nix::{
        fcntl::{FcntlArg, SealFlag, fcntl},
        sys::memfd::{MFdFlags, memfd_create},
    };
    let memory = memfd_create(c"supervisor", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    let mut copy = fs::File::from(memory);
    io::copy(&mut fs::File::open(path)?, &mut copy)?;
    let seals = SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE;
    fcntl(&copy, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(copy.into())
}

/// Starts a supervisor and waits until it says that it listens.
///
/// # Errors
/// The sentence it said, or why it could not be started.
pub(super) fn start(config: &Config, executable: &Executable, directory: &Path) -> Result<u32, String> {
    let mut child = Command::new(format!("/proc/self/fd/{}", executable.fd.as_raw_fd()))
        .arg0("coracle-supervisor")
        .args(&config.args)
        .arg(directory)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("start the supervisor: {error}"))?;
    let mut line = String::new();
    let read = match child.stdout.take() {
        // A line longer than a page is none of ours.
        Some(output) => BufReader::new(io::Read::take(output, 4096)).read_line(&mut line),
        None => Ok(0),
    };
    // Its parent half ends at once; the supervisor goes on without one.
    let ended = child.wait();
    read.and(ended.map(drop)).map_err(|error| format!("hear from the supervisor: {error}"))?;
    match serde_json::from_str(&line) {
        Ok(Readiness::Ready { pid }) => Ok(pid),
        Ok(Readiness::Failed(reason)) => Err(reason),
        Err(_) => Err(format!("the supervisor said {line:?}")),
    }
}
