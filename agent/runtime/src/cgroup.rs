//! Control groups: one tree, whichever version of cgroups the host has.
//!
//! ```text
//! <cgroup root>/kubepods/{,burstable/,besteffort/}pod<uid>/{supervisor-<attempt>,<container>}
//! ```
//!
//! Paths here are relative to the root of each hierarchy. On v2 the supervisor needs a leaf of its own, because a group
//! with controllers for its children holds no processes itself (cgroups(7), "no internal processes").

mod devices;
mod v1;
mod v2;

pub(crate) use devices::DeviceRule;

use std::{
    fmt::Debug,
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use nix::{sys::signal, unistd::Pid};

use crate::{
    spec::{QosClass, Resources},
    state::Stats,
};

/// What the two versions have in common.
pub(crate) trait Tree: Debug + Send + Sync {
    /// Makes a group and those above it. A group that is there is made.
    fn create(&self, group: &Path) -> io::Result<()>;
    /// Sets limits; what is `None` stays.
    fn apply(&self, group: &Path, resources: &Resources) -> io::Result<()>;
    /// Allows these devices and no others.
    fn allow_devices(&self, group: &Path, rules: &[DeviceRule]) -> io::Result<()>;
    /// Whether [`Tree::allow_devices`] keeps other devices away. Where it does not, containers get no `CAP_MKNOD`.
    fn restricts_devices(&self) -> bool;
    /// Moves a process into a group.
    fn join(&self, group: &Path, pid: Pid) -> io::Result<()>;
    /// The processes of a group alone, not of those below it.
    fn processes(&self, group: &Path) -> io::Result<Vec<Pid>>;
    /// Kills every process of a group.
    fn kill(&self, group: &Path) -> io::Result<()>;
    /// How many processes of a group the out-of-memory killer has killed.
    fn oom_kills(&self, group: &Path) -> u64;
    /// What a group uses, with those below it.
    fn stats(&self, group: &Path) -> io::Result<Stats>;
    /// The directories a group has, one a hierarchy.
    fn directories(&self, group: &Path) -> Vec<PathBuf>;
}

/// The tree of this host.
///
/// # Errors
/// When no cgroup file system is mounted.
pub(crate) fn open() -> io::Result<Box<dyn Tree>> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let v1 = v1::Mounts::find(&mounts);
    if v1.has_limits() {
        return Ok(Box::new(v1));
    }
    match v2::Mount::find(&mounts) {
        Some(mount) => Ok(Box::new(mount)),
        None => Err(io::Error::new(io::ErrorKind::NotFound, "no cgroup file system is mounted")),
    }
}

/// The group of a pod, below the runtime's own.
pub(crate) fn pod_group(root: &Path, qos: QosClass, uid: &str) -> PathBuf {
    let branch = match qos {
        QosClass::Guaranteed => "kubepods",
        QosClass::Burstable => "kubepods/burstable",
        QosClass::BestEffort => "kubepods/besteffort",
    };
    root.join(branch).join(format!("pod{uid}"))
}

/// The groups that hold nothing but pods' groups, the innermost first, the runtime's own last.
pub(crate) fn groups_above_pods(root: &Path) -> [PathBuf; 4] {
    [root.join("kubepods/besteffort"), root.join("kubepods/burstable"), root.join("kubepods"), root.to_owned()]
}

/// Removes a group and those below it, killing what is left in them. A group that is not there is removed.
///
/// The kernel says EBUSY until the last process is quite gone, which v1 has no event for: a few short waits, bounded.
pub(crate) fn remove(tree: &dyn Tree, group: &Path) -> io::Result<()> {
    const TRIES: u32 = 200;
    let mut result = Ok(());
    for directory in tree.directories(group) {
        let mut tries = 0;
        loop {
            match remove_below(tree, &directory, group) {
                Ok(()) => break,
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy && tries < TRIES => {
                    tries += 1;
                    thread::sleep(Duration::from_millis(u64::from(tries.min(20))));
                }
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
    }
    result
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

fn remove_below(tree: &dyn Tree, directory: &Path, group: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            match remove_below(tree, &entry.path(), &group.join(entry.file_name())) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    match fs::remove_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
            tree.kill(group)?;
            Err(error)
        }
        result => result,
    }
}

/// Writes one value into one file of a group; the error names the file.
fn write(directory: &Path, file: &str, value: impl ToString) -> io::Result<()> {
    let path = directory.join(file);
    let value = value.to_string();
    fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes()))
        .map_err(|error| annotate(&error, &format!("write {value} to {}", path.display())))
}

/// Keeps an error's kind and says what was being done.
fn annotate(error: &io::Error, what: &str) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

fn read_number(directory: &Path, file: &str) -> io::Result<u64> {
    let text = fs::read_to_string(directory.join(file))?;
    text.trim().parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, format!("{file} holds {text:?}")))
}

/// A number from a file of `name number` lines.
fn read_keyed(directory: &Path, file: &str, key: &str) -> Option<u64> {
    let text = fs::read_to_string(directory.join(file)).ok()?;
    keyed(&text, key)
}

fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(' ')?;
        (name == key).then(|| value.trim().parse().ok())?
    })
}

fn read_processes(directory: &Path) -> io::Result<Vec<Pid>> {
    let text = fs::read_to_string(directory.join("cgroup.procs"))?;
    Ok(text.lines().filter_map(|line| line.parse().ok()).map(Pid::from_raw).collect())
}

fn kill_all(pids: &[Pid]) {
    for pid in pids {
        // A process of 0 is one of a pid namespace that is not ours to see; it cannot be named, so not be killed.
        if pid.as_raw() > 0 {
            let _ = signal::kill(*pid, signal::Signal::SIGKILL);
        }
    }
}
