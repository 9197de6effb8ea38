//! The end of a group: what is in it killed, waited for, and its directories removed.
//!
//! What dies needs CPU time to do it, so a group that is killed loses its bound on that; a group full of processes that
//! fork without end would take minutes otherwise, a slice of a few milliseconds at a time.

use std::{
    collections::{BTreeSet, HashSet},
    fs, io,
    os::{fd::AsFd, unix::fs::FileExt},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal,
    unistd::Pid,
};

use super::{Tree, keyed};
use crate::{spec::Resources, sys};

/// How long what was killed may take to be gone. A process that waits for a device or a dead file server without being
/// interruptible takes as long as it likes; whoever stops it is told so instead of waiting with it.
pub(crate) const KILL_PATIENCE: Duration = Duration::from_secs(5);

/// Lets a group use all the CPU time there is, because it is to die. A host that cannot bound it has nothing to lift.
pub(crate) fn lift_cpu_bound(tree: &dyn Tree, group: &Path) {
    let _ = tree.apply(group, &Resources { cpu_quota: Some(-1), ..Resources::default() });
}

/// Removes a group and those below it, killing what is left in them. A group that is not there is removed.
///
/// # Errors
/// [`io::ErrorKind::TimedOut`] with the names of processes that did not die by `deadline`.
pub(crate) fn remove(tree: &dyn Tree, group: &Path, deadline: Instant) -> io::Result<()> {
    loop {
        for below in subtree(tree, group)? {
            lift_cpu_bound(tree, &below);
        }
        match tree.kill(group) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        if !tree.wait_empty(group, deadline)? {
            return Err(left_over(&tree.processes_below(group)?));
        }
        match remove_directories(tree, group) {
            // A process that is dead to every list may hold its group for an instant yet, which nothing tells the end of.
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(1));
            }
            result => return result,
        }
    }
}

/// Removes a group unless something is in it. A group that is not there is removed.
pub(crate) fn remove_if_empty(tree: &dyn Tree, group: &Path) -> io::Result<()> {
    use io::ErrorKind::{DirectoryNotEmpty, NotFound, ResourceBusy};
    for directory in tree.directories(group) {
        match fs::remove_dir(&directory) {
            Err(error) if !matches!(error.kind(), NotFound | ResourceBusy | DirectoryNotEmpty) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// A group and all below it, in any hierarchy.
fn subtree(tree: &dyn Tree, group: &Path) -> io::Result<BTreeSet<PathBuf>> {
    let mut groups = BTreeSet::new();
    for top in tree.directories(group) {
        for directory in directories_below(&top)? {
            if let Ok(rest) = directory.strip_prefix(&top) {
                groups.insert(group.join(rest));
            }
        }
    }
    Ok(groups)
}

/// A directory and those below it, the outermost first; none when it is not there.
fn directories_below(top: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = vec![top.to_owned()];
    let mut place = 0;
    while let Some(directory) = found.get(place) {
        match fs::read_dir(directory) {
            Ok(entries) => {
                for entry in entries {
                    let entry = entry?;
                    if entry.file_type()?.is_dir() {
                        found.push(entry.path());
                    }
                }
                place += 1;
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound) => {
                found.remove(place);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

fn remove_directories(tree: &dyn Tree, group: &Path) -> io::Result<()> {
    for top in tree.directories(group) {
        for directory in directories_below(&top)?.iter().rev() {
            match fs::remove_dir(directory) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

/// The processes of a group's directory and of those below it.
pub(super) fn processes_below(directory: &Path) -> io::Result<Vec<Pid>> {
    let mut all = Vec::new();
    for directory in directories_below(directory)? {
        match super::read_processes(&directory) {
            Ok(pids) => all.extend(pids),
            Err(error) if gone(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

/// A group that is removed while it is looked at says one or the other.
fn gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

/// Kills what is listed until nothing new is: what was killed forks no more, and while a group is frozen nothing does.
pub(super) fn kill_listed(directory: &Path, freeze: impl Fn(bool)) -> io::Result<()> {
    /// A group that is not frozen is emptied in a few rounds; one that is, in two.
    const ROUNDS: u32 = 64;
    let mut killed = HashSet::new();
    for _ in 0..ROUNDS {
        freeze(true);
        let found = processes_below(directory);
        for pid in found.iter().flatten() {
            // A process of 0 is one of a pid namespace that is not ours to see; it cannot be named, so not be killed.
            if pid.as_raw() > 0 {
                let _ = signal::kill(*pid, signal::Signal::SIGKILL);
            }
        }
        freeze(false);
        let before = killed.len();
        killed.extend(found?);
        if killed.len() == before {
            break;
        }
    }
    Ok(())
}

/// Waits for the kernel to say that a group of the unified hierarchy and those below it are empty (cgroups(7),
/// `cgroup.events`).
pub(super) fn wait_for_event(directory: &Path, deadline: Instant) -> io::Result<bool> {
    let file = match fs::File::open(directory.join("cgroup.events")) {
        Ok(file) => file,
        Err(error) if gone(&error) => return Ok(true),
        Err(error) => return Err(error),
    };
    let mut text = [0; 256];
    loop {
        let count = match file.read_at(&mut text, 0) {
            Ok(count) => count,
            Err(error) if gone(&error) => return Ok(true),
            Err(error) => return Err(error),
        };
        let shown = String::from_utf8_lossy(text.get(..count).unwrap_or_default());
        if keyed(&shown, "populated") != Some(1) {
            return Ok(true);
        }
        if !poll_until(&file, PollFlags::POLLPRI, deadline)? {
            return Ok(false);
        }
    }
}

/// The same where nothing tells: waits for each process that is listed (pidfd_open(2)).
pub(super) fn wait_for_each(directory: &Path, deadline: Instant) -> io::Result<bool> {
    loop {
        let listed = processes_below(directory)?;
        if listed.is_empty() {
            return Ok(true);
        }
        for pid in listed {
            match sys::pidfd(pid) {
                Ok(process) if !poll_until(&process, PollFlags::POLLIN, deadline)? => return Ok(false),
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                Err(error) => return Err(error),
            }
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
    }
}

/// Whether it is ready before the deadline.
fn poll_until(fd: &impl AsFd, flags: PollFlags, deadline: Instant) -> io::Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let millis = i32::try_from(left.as_millis()).unwrap_or(i32::MAX).saturating_add(1);
        let timeout = PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(fd.as_fd(), flags)], timeout) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Names what would not die, for a person to look at.
fn left_over(pids: &[Pid]) -> io::Error {
    const NAMED: usize = 3;
    let mut names: Vec<String> = pids.iter().take(NAMED).map(|pid| describe(*pid)).collect();
    if pids.len() > NAMED {
        names.push(format!("{} more", pids.len() - NAMED));
    }
    let names = names.join(", ");
    io::Error::new(io::ErrorKind::TimedOut, format!("killed, and still there {KILL_PATIENCE:?} later: {names}"))
}

/// A process with its name and what it is doing (proc(5), `/proc/pid/stat`).
fn describe(pid: Pid) -> String {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let name = stat.split_once('(').and_then(|(_, rest)| rest.rsplit_once(") "));
    match name {
        Some((name, rest)) if rest.starts_with('D') => format!("process {pid} ({name}), which sleeps uninterruptibly"),
        Some((name, rest)) => format!("process {pid} ({name}) in state {}", rest.get(..1).unwrap_or("?")),
        None => format!("process {pid}"),
    }
}
