//! cgroup v1: a hierarchy for each controller, as hosts with `systemd.unified_cgroup_hierarchy=0` and hybrids have.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use nix::unistd::Pid;

use super::{DeviceRule, Tree, annotate, keyed, kill_all, read_keyed, read_number, read_processes, write};
use crate::{spec::Resources, state::Stats};

/// The controllers that are used when they are there.
const CONTROLLERS: &[&str] = &["cpu", "cpuacct", "cpuset", "memory", "pids", "devices", "freezer", "blkio", "hugetlb"];

/// Where each controller is mounted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Mounts {
    controllers: BTreeMap<&'static str, PathBuf>,
}

impl Mounts {
    /// Reads the mount table (proc(5), `/proc/pid/mountinfo`).
    pub(super) fn find(mountinfo: &str) -> Mounts {
        let mut controllers = BTreeMap::new();
        for line in mountinfo.lines() {
            let Some((mount, file_system)) = line.split_once(" - ") else { continue };
            let mut words = file_system.split(' ');
            if words.next() != Some("cgroup") {
                continue;
            }
            let options = words.nth(1).unwrap_or_default();
            let Some(path) = mount.split(' ').nth(4) else { continue };
            for option in options.split(',') {
                if let Some(name) = CONTROLLERS.iter().find(|name| **name == option) {
                    controllers.entry(*name).or_insert_with(|| PathBuf::from(path));
                }
            }
        }
        Mounts { controllers }
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

    fn set_frozen(&self, group: &Path, frozen: bool) {
        // Freezing only stops forks from outrunning the kills; without it they are outrun by repetition.
        let _ = self.set("freezer", group, "freezer.state", if frozen { "FROZEN" } else { "THAWED" });
    }
}

impl Tree for Mounts {
    fn create(&self, group: &Path) -> io::Result<()> {
        for (controller, root) in &self.controllers {
            let mut directory = root.clone();
            for part in group.components() {
                directory.push(part);
                match fs::create_dir(&directory) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    Err(error) => return Err(annotate(&error, &format!("create {}", directory.display()))),
                }
                if *controller == "cpuset" {
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
        for huge in &resources.hugepages {
            self.set("hugetlb", group, &format!("hugetlb.{}.limit_in_bytes", huge.page_size), huge.limit)?;
        }
        Ok(())
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
        self.controllers.keys().try_for_each(|controller| self.set(controller, group, "cgroup.procs", pid))
    }

    fn processes(&self, group: &Path) -> io::Result<Vec<Pid>> {
        match self.directory("pids", group) {
            Some(directory) => read_processes(&directory),
            None => Ok(Vec::new()),
        }
    }

    fn kill(&self, group: &Path) -> io::Result<()> {
        self.set_frozen(group, true);
        let result = self.processes(group).map(|pids| kill_all(&pids));
        self.set_frozen(group, false);
        result
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

    fn directories(&self, group: &Path) -> Vec<PathBuf> {
        let mut directories: Vec<_> = self.controllers.values().map(|root| root.join(group)).collect();
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
        assert_eq!(mounts.directories(Path::new("a")).len(), 3);
        assert_eq!(mounts.directory("cpuacct", Path::new("a")), Some("/sys/fs/cgroup/cpu,cpuacct/a".into()));
    }

    #[test]
    fn a_host_with_v2_alone_has_no_v1_limits() {
        assert!(!Mounts::find("30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n").has_limits());
    }
}
