//! Control groups: one tree, whichever version of cgroups the host has.
//!
//! ```text
//! <cgroup root>/kubepods/{,burstable/,besteffort/}pod<uid>/{supervisor-<attempt>,<container>}
//! ```
//!
//! Paths here are relative to the root of each hierarchy. On v2 the supervisor needs a leaf of its own, because a group
//! with controllers for its children holds no processes itself (cgroups(7), "no internal processes").

mod device_program;
mod devices;
mod ending;
mod processes;
mod v1;
mod v2;

pub(crate) use devices::DeviceRule;
pub(crate) use ending::{KILL_PATIENCE, lift_cpu_bound, remove, remove_if_empty};

use std::{
    collections::BTreeSet,
    fmt::Debug,
    fs, io,
    path::{Path, PathBuf},
    time::Instant,
};

use nix::unistd::Pid;

use crate::{
    spec::{QosClass, Resources, SandboxSpec},
    state::{Details, DeviceUse, Stats},
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
    /// The processes of a group and of those below it.
    fn processes_below(&self, group: &Path) -> io::Result<Vec<Pid>>;
    /// Kills every process of a group and of those below it, those they fork meanwhile included.
    fn kill(&self, group: &Path) -> io::Result<()>;
    /// Waits until a group and those below it have no process; false when they still have at the deadline.
    fn wait_empty(&self, group: &Path, deadline: Instant) -> io::Result<bool>;
    /// How many processes of a group the out-of-memory killer has killed.
    fn oom_kills(&self, group: &Path) -> u64;
    /// What a group uses, with those below it.
    fn stats(&self, group: &Path) -> io::Result<Stats>;
    /// The same in more detail.
    fn details(&self, group: &Path) -> io::Result<Details>;
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
        Some(mount) => Ok(Box::new(mount.with_device_programs())),
        None => Err(io::Error::new(io::ErrorKind::NotFound, "no cgroup file system is mounted")),
    }
}

/// A tree without a single hierarchy, in which nothing is.
#[cfg(test)]
pub(crate) fn none() -> impl Tree {
    v1::Mounts::default()
}

/// Lets a group that has used more CPU time than its bound go on at once, instead of when it has paid for that.
///
/// Since Linux 6.18 a process that has used up its group's time is stopped when it leaves the kernel and not before, so
/// hundreds that all work in the kernel take seconds more than theirs, and below a bound of a fifth of a CPU the group stands
/// still for five times that. Setting any part of a bound begins its account anew (`tg_set_cfs_bandwidth` in
/// kernel/sched/core.c); the burst, which nobody else sets, is set to what it is (Documentation/scheduler/sched-bwc.rst).
/// Kernels before 5.14 have none, and no such debts.
pub(crate) fn forgive_cpu_debt(tree: &dyn Tree, group: &Path) {
    for directory in tree.directories(group) {
        for file in ["cpu.max.burst", "cpu.cfs_burst_us"] {
            if let Ok(burst) = fs::read_to_string(directory.join(file)) {
                let _ = write(&directory, file, burst.trim());
            }
        }
    }
}

/// The group that holds all pods', below the runtime's own.
pub(crate) const PODS: &str = "kubepods";

/// The group of a pod: below the runtime's own, or in the group its specification names.
pub(crate) fn pod_group(root: &Path, spec: &SandboxSpec) -> PathBuf {
    let name = format!("pod{}", spec.pod_uid);
    if let Some(parent) = &spec.cgroup_parent {
        return parent.join(name);
    }
    let branch = match spec.qos {
        QosClass::Guaranteed => PODS,
        QosClass::Burstable => "kubepods/burstable",
        QosClass::BestEffort => "kubepods/besteffort",
    };
    root.join(branch).join(name)
}

/// The groups that hold nothing but pods' groups, the innermost first, the runtime's own last.
pub(crate) fn groups_above_pods(root: &Path) -> [PathBuf; 4] {
    [root.join("kubepods/besteffort"), root.join("kubepods/burstable"), root.join(PODS), root.to_owned()]
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

/// Limits huge pages: those in use, and those that are set aside for who has mapped them (`rsvd`, since Linux 5.7). The files
/// are `hugetlb.<size>.max` and `hugetlb.<size>.rsvd.max`, or end otherwise in v1; a group that is not asked for any has none.
fn limit_huge_pages(directory: &Path, resources: &Resources, ending: &str) -> io::Result<()> {
    if resources.hugepages.is_empty() && !resources.no_other_hugepages {
        return Ok(());
    }
    let mut sizes = BTreeSet::new();
    for entry in fs::read_dir(directory)? {
        let Ok(file) = entry?.file_name().into_string() else { continue };
        let Some(size) = file.strip_prefix("hugetlb.").and_then(|file| file.strip_suffix(ending)) else { continue };
        let size = size.strip_suffix(".rsvd").unwrap_or(size);
        let asked = resources.hugepages.iter().find(|huge| huge.page_size == size).map(|huge| huge.limit);
        if let Some(limit) = asked.or(resources.no_other_hugepages.then_some(0)) {
            write(directory, &file, limit)?;
        }
        sizes.insert(size.to_owned());
    }
    match resources.hugepages.iter().find(|huge| !sizes.is_empty() && !sizes.contains(&huge.page_size)) {
        Some(huge) => {
            let why = format!("there are no huge pages of {:?} in {}", huge.page_size, directory.display());
            Err(io::Error::new(io::ErrorKind::InvalidInput, why))
        }
        None => Ok(()),
    }
}

/// Huge pages by size: bytes in use and the most there ever were, from the files with these endings
/// (`hugetlb.2MB.current`). Where the kernel keeps no peak, the most is what there is.
fn huge_pages(directory: &Path, (now, most): (&str, &str)) -> Vec<(String, u64, u64)> {
    let mut found = Vec::new();
    for file in
        fs::read_dir(directory).into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().into_string().ok())
    {
        let size = file.strip_prefix("hugetlb.").and_then(|file| file.strip_suffix(now));
        // Those that are set aside have files of their own (`2MB.rsvd`).
        if let Some(size) = size.filter(|size| !size.contains('.')) {
            let used = number(directory, &file).unwrap_or(0);
            found.push((size.to_owned(), used, number(directory, &format!("hugetlb.{size}{most}")).unwrap_or(used)));
        }
    }
    found.sort();
    found
}

/// A number in one file of a group; none where there is no such file or it holds a word (`max`).
fn number(directory: &Path, file: &str) -> Option<u64> {
    read_number(directory, file).ok()
}

/// What is counted of the device with these numbers (`8:0`), which comes to be there with it.
fn device<'a>(devices: &'a mut Vec<DeviceUse>, numbers: &str) -> Option<&'a mut DeviceUse> {
    let (major, minor) = numbers.split_once(':')?;
    let device = (major.parse().ok()?, minor.parse().ok()?);
    let place = devices.iter().position(|found| found.device == device).unwrap_or(devices.len());
    if place == devices.len() {
        devices.push(DeviceUse { device, ..DeviceUse::default() });
    }
    devices.get_mut(place)
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
