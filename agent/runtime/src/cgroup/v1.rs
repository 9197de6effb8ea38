//! cgroup v1: a hierarchy for each controller, as hosts with `systemd.unified_cgroup_hierarchy=0` and hybrids have.
//!
//! A hybrid has the unified hierarchy beside, without controllers. It limits nothing, but it kills a group at once and tells
//! when one is empty, so every group is made in it too.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::Instant,
};

use nix::unistd::Pid;

use super::{
    DeviceRule, Tree, annotate, device, ending, huge_pages, keyed, limit_huge_pages, number, processes, read_keyed,
    read_number, read_processes, write,
};
use crate::{
    spec::Resources,
    state::{Details, DeviceUse, Stats},
};

/// The controllers that are used when they are there.
const CONTROLLERS: &[&str] = &["cpu", "cpuacct", "cpuset", "memory", "pids", "devices", "freezer", "blkio", "hugetlb"];

/// Where each controller is mounted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Mounts {
    controllers: BTreeMap<&'static str, PathBuf>,
    /// The unified hierarchy of a hybrid, if it can be written to.
    unified: Option<PathBuf>,
}

impl Mounts {
    /// Reads the mount table (proc(5), `/proc/pid/mountinfo`).
    pub(super) fn find(mountinfo: &str) -> Mounts {
        let mut controllers = BTreeMap::new();
        let mut unified = None;
        for line in mountinfo.lines() {
            let Some((mount, file_system)) = line.split_once(" - ") else { continue };
            let (mut mount, mut words) = (mount.split(' ').skip(4), file_system.split(' '));
            let (Some(path), Some(flags)) = (mount.next(), mount.next()) else { continue };
            match words.next() {
                Some("cgroup") => {}
                Some("cgroup2") if unified.is_none() && !flags.split(',').any(|flag| flag == "ro") => {
                    unified = Some(PathBuf::from(path));
                    continue;
                }
                _ => continue,
            }
            let options = words.nth(1).unwrap_or_default();
            for option in options.split(',') {
                if let Some(name) = CONTROLLERS.iter().find(|name| **name == option) {
                    controllers.entry(*name).or_insert_with(|| PathBuf::from(path));
                }
            }
        }
        Mounts { controllers, unified }
    }

    /// Whether memory and processes can be limited here; a host with v2 has neither in v1.
    pub(super) fn has_limits(&self) -> bool {
        self.controllers.contains_key("memory") && self.controllers.contains_key("pids")
    }

    fn directory(&self, controller: &str, group: &Path) -> Option<PathBuf> {
        self.controllers.get(controller).map(|root| root.join(group))
    }

    fn set(&self, controller: &'static str, group: &Path, file: &str, value: impl ToString) -> io::Result<()> {
        match self.directory(controller, group) {
            Some(directory) => write(&directory, file, value),
            None => Err(io::Error::new(io::ErrorKind::Unsupported, format!("no cgroup controller {controller}"))),
        }
    }

    /// Limit and limit with swap must never cross, so the order depends on the direction.
    fn set_memory(&self, group: &Path, limit: Option<i64>, swap: Option<i64>) -> io::Result<()> {
        let both = match (limit, swap) {
            (Some(limit), Some(swap)) if limit >= 0 && swap >= 0 => Some(limit.saturating_add(swap)),
            (_, Some(-1)) | (Some(-1), _) => Some(-1),
            _ => None,
        };
        let has_swap = self
            .directory("memory", group)
            .is_some_and(|directory| directory.join("memory.memsw.limit_in_bytes").exists());
        let both = both.filter(|_| has_swap);
        let set_both = || both.map_or(Ok(()), |both| self.set("memory", group, "memory.memsw.limit_in_bytes", both));
        let Some(limit) = limit else { return set_both() };
        match self.set("memory", group, "memory.limit_in_bytes", limit) {
            Ok(()) => set_both(),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput && both.is_some() => {
                set_both()?;
                self.set("memory", group, "memory.limit_in_bytes", limit)
            }
            Err(error) => Err(error),
        }
    }

    /// A new group of `cpuset` has no CPUs and takes no process until it is given some.
    fn inherit_cpuset(directory: &Path) -> io::Result<()> {
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if fs::read_to_string(directory.join(file))?.trim().is_empty()
                && let Some(parent) = directory.parent()
            {
                write(directory, file, fs::read_to_string(parent.join(file))?.trim())?;
            }
        }
        Ok(())
    }

    fn unified(&self, group: &Path) -> Option<PathBuf> {
        self.unified.as_ref().map(|root| root.join(group))
    }

    /// Every hierarchy a group is in, once.
    fn roots(&self) -> impl Iterator<Item = (Option<&'static str>, &PathBuf)> {
        let controllers = self.controllers.iter().map(|(controller, root)| (Some(*controller), root));
        controllers.chain(self.unified.iter().map(|root| (None, root)))
    }

    fn set_frozen(&self, group: &Path, frozen: bool) {
        // Freezing only stops forks from outrunning the kills; without it they are outrun by repetition.
        let _ = self.set("freezer", group, "freezer.state", if frozen { "FROZEN" } else { "THAWED" });
    }
}

/// Reads what went to block devices: lines as `8:0 Read 1` of bytes, and of how often, with all groups below.
fn device_uses(bytes: &str, times: &str) -> Vec<DeviceUse> {
    let mut devices = Vec::new();
    for (text, is_bytes) in [(bytes, true), (times, false)] {
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [numbers, way, value] = words[..] else { continue };
            let Some(found) = device(&mut devices, numbers) else { continue };
            let value = value.parse().unwrap_or(0);
            match (way, is_bytes) {
                ("Read", true) => found.read_bytes = value,
                ("Write", true) => found.written_bytes = value,
                ("Read", false) => found.reads = value,
                ("Write", false) => found.writes = value,
                _ => {}
            }
        }
    }
    devices
}

impl Tree for Mounts {
    fn create(&self, group: &Path) -> io::Result<()> {
        for (controller, root) in self.roots() {
            let mut directory = root.clone();
            for part in group.components() {
                directory.push(part);
                match fs::create_dir(&directory) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    Err(error) => return Err(annotate(&error, &format!("create {}", directory.display()))),
                }
                if controller == Some("cpuset") {
                    Mounts::inherit_cpuset(&directory)?;
                }
            }
        }
        Ok(())
    }

    fn apply(&self, group: &Path, resources: &Resources) -> io::Result<()> {
        if let Some(shares) = resources.cpu_shares {
            self.set("cpu", group, "cpu.shares", shares)?;
        }
        if let Some(period) = resources.cpu_period.or(resources.cpu_quota.filter(|quota| *quota > 0).map(|_| 100_000)) {
            self.set("cpu", group, "cpu.cfs_period_us", period)?;
        }
        if let Some(quota) = resources.cpu_quota {
            self.set("cpu", group, "cpu.cfs_quota_us", if quota <= 0 { -1 } else { quota })?;
        }
        if let Some(cpus) = &resources.cpuset_cpus {
            self.set("cpuset", group, "cpuset.cpus", cpus)?;
        }
        if let Some(mems) = &resources.cpuset_mems {
            self.set("cpuset", group, "cpuset.mems", mems)?;
        }
        self.set_memory(group, resources.memory_limit, resources.swap_limit)?;
        if let Some(limit) = resources.pids_limit {
            self.set("pids", group, "pids.max", if limit < 0 { "max".to_owned() } else { limit.to_string() })?;
        }
        match self.directory("hugetlb", group) {
            Some(directory) => limit_huge_pages(&directory, resources, ".limit_in_bytes"),
            None => Ok(()),
        }
    }

    fn allow_devices(&self, group: &Path, rules: &[DeviceRule]) -> io::Result<()> {
        if !self.restricts_devices() {
            return Ok(());
        }
        self.set("devices", group, "devices.deny", "a")?;
        rules.iter().try_for_each(|rule| self.set("devices", group, "devices.allow", rule))
    }

    fn restricts_devices(&self) -> bool {
        self.controllers.contains_key("devices")
    }

    fn join(&self, group: &Path, pid: Pid) -> io::Result<()> {
        self.roots().try_for_each(|(_, root)| write(&root.join(group), "cgroup.procs", pid))
    }

    fn processes(&self, group: &Path) -> io::Result<Vec<Pid>> {
        match self.directory("pids", group) {
            Some(directory) => read_processes(&directory),
            None => Ok(Vec::new()),
        }
    }

    fn processes_below(&self, group: &Path) -> io::Result<Vec<Pid>> {
        match self.directory("pids", group) {
            Some(directory) => ending::processes_below(&directory),
            None => Ok(Vec::new()),
        }
    }

    fn kill(&self, group: &Path) -> io::Result<()> {
        ending::lift_cpu_bound(self, group);
        let at_once = self.unified(group).is_some_and(|directory| write(&directory, "cgroup.kill", 1).is_ok());
        // Thawed it is in any case: a signal does not wake what somebody has frozen.
        let freeze = |frozen: bool| {
            if !(frozen && at_once) {
                self.set_frozen(group, frozen);
            }
        };
        self.directory("pids", group).map_or(Ok(()), |directory| ending::kill_listed(&directory, freeze))
    }

    fn wait_empty(&self, group: &Path, deadline: Instant) -> io::Result<bool> {
        if let Some(directory) = self.unified(group)
            && !ending::wait_for_event(&directory, deadline)?
        {
            return Ok(false);
        }
        match self.directory("pids", group) {
            Some(directory) => ending::wait_for_each(&directory, deadline),
            None => Ok(true),
        }
    }

    fn oom_kills(&self, group: &Path) -> u64 {
        self.directory("memory", group)
            .and_then(|directory| read_keyed(&directory, "memory.oom_control", "oom_kill"))
            .unwrap_or(0)
    }

    fn stats(&self, group: &Path) -> io::Result<Stats> {
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        let memory = self.directory("memory", group).ok_or_else(missing)?;
        let detail = fs::read_to_string(memory.join("memory.stat"))?;
        let get = |key| keyed(&detail, key).unwrap_or(0);
        let usage = read_number(&memory, "memory.usage_in_bytes")?;
        let limit = keyed(&detail, "hierarchical_memory_limit").filter(|limit| *limit < i64::MAX as u64 / 2);
        Ok(Stats {
            cpu_usage_ns: read_number(&self.directory("cpuacct", group).ok_or_else(missing)?, "cpuacct.usage")?,
            memory_usage: usage,
            memory_working_set: usage.saturating_sub(get("total_inactive_file")),
            memory_rss: get("total_rss"),
            page_faults: get("total_pgfault"),
            major_page_faults: get("total_pgmajfault"),
            memory_limit: limit,
            pids: read_number(&self.directory("pids", group).ok_or_else(missing)?, "pids.current")?,
        })
    }

    fn details(&self, group: &Path) -> io::Result<Details> {
        let stats = self.stats(group)?;
        let place = |controller: &str| self.directory(controller, group).unwrap_or_default();
        let (cpu, cpuacct, memory, blkio) = (place("cpu"), place("cpuacct"), place("memory"), place("blkio"));
        let read = |directory: &Path, file: &str| fs::read_to_string(directory.join(file)).unwrap_or_default();
        let (throttling, pages) = (read(&cpu, "cpu.stat"), read(&memory, "memory.stat"));
        let of = |text: &str, key: &str| keyed(text, key).unwrap_or(0);
        // Without a limit it is the most there can be in pages.
        let limit = |file: &str| number(&memory, file).filter(|limit| *limit < i64::MAX as u64 / 2);
        Ok(Details {
            stats,
            cpu_shares: number(&cpu, "cpu.shares").unwrap_or(0),
            cpu_user_ns: number(&cpuacct, "cpuacct.usage_user").unwrap_or(0),
            cpu_system_ns: number(&cpuacct, "cpuacct.usage_sys").unwrap_or(0),
            // Without a limit it is -1.
            cpu_quota: number(&cpu, "cpu.cfs_quota_us"),
            cpu_period: number(&cpu, "cpu.cfs_period_us").unwrap_or(0),
            cpu_periods: of(&throttling, "nr_periods"),
            cpu_throttled_periods: of(&throttling, "nr_throttled"),
            cpu_throttled_ns: of(&throttling, "throttled_time"),
            memory_limit: limit("memory.limit_in_bytes"),
            memory_reservation: limit("memory.soft_limit_in_bytes"),
            // Both together are limited.
            swap_limit: limit("memory.memsw.limit_in_bytes")
                .map(|both| both.saturating_sub(limit("memory.limit_in_bytes").unwrap_or(0))),
            own_page_faults: (of(&pages, "pgfault"), of(&pages, "pgmajfault")),
            memory_kernel: number(&memory, "memory.kmem.usage_in_bytes").unwrap_or(0),
            memory_cache: of(&pages, "total_cache"),
            memory_mapped_file: of(&pages, "total_mapped_file"),
            memory_active_file: of(&pages, "total_active_file"),
            memory_inactive_file: of(&pages, "total_inactive_file"),
            memory_swap: of(&pages, "total_swap"),
            memory_peak: number(&memory, "memory.max_usage_in_bytes").unwrap_or(0),
            memory_limit_hits: number(&memory, "memory.failcnt").unwrap_or(0),
            oom_kills: self.oom_kills(group),
            pids_limit: number(&place("pids"), "pids.max"),
            hugepages: huge_pages(&place("hugetlb"), (".usage_in_bytes", ".max_usage_in_bytes")),
            processes: processes::look(&self.processes_below(group).unwrap_or_default()),
            devices: device_uses(
                &read(&blkio, "blkio.throttle.io_service_bytes_recursive"),
                &read(&blkio, "blkio.throttle.io_serviced_recursive"),
            ),
            pressure: None,
        })
    }

    fn directories(&self, group: &Path) -> Vec<PathBuf> {
        let mut directories: Vec<_> = self.roots().map(|(_, root)| root.join(group)).collect();
        directories.sort();
        directories.dedup();
        directories
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_are_found_apart_and_mounted_together() {
        let mounts = Mounts::find(
            "31 28 0:27 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
             32 28 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
             33 28 0:29 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
             34 28 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
        );
        assert!(mounts.has_limits());
        assert_eq!(mounts.directories(Path::new("a")).len(), 4);
        assert_eq!(mounts.unified(Path::new("a")), Some("/sys/fs/cgroup/unified/a".into()));
        assert_eq!(mounts.directory("cpuacct", Path::new("a")), Some("/sys/fs/cgroup/cpu,cpuacct/a".into()));
    }

    #[test]
    fn what_went_to_devices_is_read_as_the_kernel_writes_it() {
        let bytes = "8:0 Read 1\n8:0 Write 2\n8:0 Sync 9\n8:0 Total 3\nTotal 3\n";
        let times = "8:0 Read 3\n8:0 Write 4\nTotal 7\n";
        let want = DeviceUse { device: (8, 0), read_bytes: 1, written_bytes: 2, reads: 3, writes: 4 };
        assert_eq!(device_uses(bytes, times), [want]);
    }

    #[test]
    fn a_host_with_v2_alone_has_no_v1_limits() {
        assert!(!Mounts::find("30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n").has_limits());
    }

    #[test]
    fn a_unified_hierarchy_that_cannot_be_written_to_is_left_alone() {
        let mounts = Mounts::find("34 28 0:30 / /sys/fs/cgroup/unified ro,nosuid - cgroup2 cgroup2 rw\n");
        assert_eq!(mounts.unified, None);
    }

    /// The groups of a test, on a host that has v1: as it is, and as if it had no unified hierarchy.
    fn hosts() -> Vec<Mounts> {
        let found = Mounts::find(&fs::read_to_string("/proc/self/mountinfo").unwrap());
        if !found.has_limits() || !nix::unistd::geteuid().is_root() {
            println!("Skipped: making cgroups takes root and a host with cgroup v1");
            return Vec::new();
        }
        vec![Mounts { unified: None, ..found.clone() }, found]
    }

    /// A group with processes that fork without end and are given next to no time to die in.
    fn bomb(mounts: &Mounts, group: &Path) -> std::process::Child {
        mounts.create(group).unwrap();
        let resources = Resources {
            cpu_quota: Some(1000),
            cpu_period: Some(100_000),
            pids_limit: Some(300),
            ..Resources::default()
        };
        let mut bomb = std::process::Command::new("sh");
        bomb.args(["-c", "read go; b() { while :; do b & done; }; b"]).stdin(std::process::Stdio::piped());
        let mut child = bomb.stderr(std::process::Stdio::null()).spawn().unwrap();
        mounts.join(group, Pid::from_raw(child.id().cast_signed())).unwrap();
        io::Write::write_all(&mut child.stdin.take().unwrap(), b"go\n").unwrap();
        while mounts.processes(group).unwrap().len() < 30 {
            std::thread::yield_now();
        }
        mounts.apply(group, &resources).unwrap();
        child
    }

    #[test]
    fn what_forks_without_end_and_has_no_cpu_time_is_killed_at_once() {
        for (place, mounts) in hosts().into_iter().enumerate() {
            let top = PathBuf::from(format!("coracle-test-v1-{}-{place}", std::process::id()));
            let mut child = bomb(&mounts, &top.join("pod/container"));
            let deadline = Instant::now() + super::super::KILL_PATIENCE;
            super::super::remove(&mounts, &top, deadline).unwrap();
            child.wait().unwrap();
            assert!(mounts.directories(&top).iter().all(|directory| !directory.exists()));
        }
    }

    #[test]
    fn what_does_not_die_is_named_in_time() {
        for (place, mounts) in hosts().into_iter().enumerate() {
            let name = |what: &str| PathBuf::from(format!("coracle-test-{what}-{}-{place}", std::process::id()));
            let (top, ice) = (name("stuck"), name("ice"));
            mounts.create(&top).unwrap();
            mounts.create(&ice).unwrap();
            let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
            let pid = Pid::from_raw(child.id().cast_signed());
            mounts.join(&top, pid).unwrap();
            // A frozen process is as deaf to SIGKILL as one that waits for a device; frozen elsewhere, killing does not thaw it.
            mounts.set("freezer", &ice, "cgroup.procs", pid).unwrap();
            mounts.set_frozen(&ice, true);
            while fs::read_to_string(mounts.directory("freezer", &ice).unwrap().join("freezer.state")).unwrap()
                != "FROZEN\n"
            {
                std::thread::yield_now();
            }
            let error = super::super::remove(&mounts, &top, Instant::now()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            assert!(
                error.to_string().contains(&format!("process {pid} (sleep), which sleeps uninterruptibly")),
                "{error}"
            );
            mounts.set_frozen(&ice, false);
            let soon = || Instant::now() + super::super::KILL_PATIENCE;
            super::super::remove(&mounts, &top, soon()).unwrap();
            super::super::remove(&mounts, &ice, soon()).unwrap();
            child.wait().unwrap();
        }
    }
}
