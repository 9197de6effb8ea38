//! cgroup v2: the unified hierarchy.
//!
//! Which devices a group may use is a BPF program on v2, which this runtime does not load. So that a container makes no node
//! of a host device there, it has no `CAP_MKNOD`, whatever it asks for, unless it is privileged; the nodes in its `/dev` are
//! all it can open, and its mounts of host directories are `nodev`.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use nix::unistd::Pid;

use super::{DeviceRule, Tree, annotate, keyed, kill_all, read_keyed, read_number, read_processes, write};
use crate::{spec::Resources, state::Stats};

/// The controllers children are given when the host has them.
const CONTROLLERS: &[&str] = &["cpu", "cpuset", "memory", "pids", "io", "hugetlb"];

/// Where the hierarchy is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    root: PathBuf,
}

impl Mount {
    /// Reads the mount table (proc(5), `/proc/pid/mountinfo`).
    pub(super) fn find(mountinfo: &str) -> Option<Mount> {
        mountinfo.lines().find_map(|line| {
            let (mount, file_system) = line.split_once(" - ")?;
            let root = PathBuf::from(mount.split(' ').nth(4)?);
            file_system.starts_with("cgroup2 ").then_some(Mount { root })
        })
    }

    /// Gives the children of a group every controller it has itself.
    fn delegate(directory: &Path) -> io::Result<()> {
        let available = fs::read_to_string(directory.join("cgroup.controllers"))?;
        let enabled = fs::read_to_string(directory.join("cgroup.subtree_control"))?;
        for controller in CONTROLLERS {
            let has = |list: &str| list.split_whitespace().any(|name| name == *controller);
            if has(&available) && !has(&enabled) {
                write(directory, "cgroup.subtree_control", format!("+{controller}"))?;
            }
        }
        Ok(())
    }

    /// In a container the root of what we see is an ordinary group, and our own process in it forbids delegation: its
    /// processes go to a leaf first, as init programs do.
    fn delegate_root(&self) -> io::Result<()> {
        match Mount::delegate(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                let leaf = self.root.join("init");
                fs::create_dir_all(&leaf)?;
                for pid in read_processes(&self.root)? {
                    match write(&leaf, "cgroup.procs", pid) {
                        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                        _ => {}
                    }
                }
                Mount::delegate(&self.root)
            }
            result => result,
        }
    }
}

/// Shares (2 to 262144) as a weight (1 to 10000), with the line Kubernetes draws (KEP-2254).
fn weight(shares: u64) -> u64 {
    1 + shares.clamp(2, 262_144).saturating_sub(2) * 9999 / 262_142
}

fn limit(value: i64) -> String {
    if value < 0 { "max".to_owned() } else { value.to_string() }
}

impl Tree for Mount {
    fn create(&self, group: &Path) -> io::Result<()> {
        self.delegate_root()?;
        let mut directory = self.root.clone();
        let parts: Vec<_> = group.components().collect();
        for (place, part) in parts.iter().enumerate() {
            directory.push(part);
            match fs::create_dir(&directory) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(annotate(&error, &format!("create {}", directory.display()))),
            }
            if place + 1 < parts.len() {
                Mount::delegate(&directory)?;
            }
        }
        Ok(())
    }

    fn apply(&self, group: &Path, resources: &Resources) -> io::Result<()> {
        let directory = self.root.join(group);
        if let Some(shares) = resources.cpu_shares {
            write(&directory, "cpu.weight", weight(shares))?;
        }
        if resources.cpu_quota.is_some() || resources.cpu_period.is_some() {
            let quota = resources.cpu_quota.filter(|quota| *quota > 0).unwrap_or(-1);
            write(&directory, "cpu.max", format!("{} {}", limit(quota), resources.cpu_period.unwrap_or(100_000)))?;
        }
        if let Some(cpus) = &resources.cpuset_cpus {
            write(&directory, "cpuset.cpus", cpus)?;
        }
        if let Some(mems) = &resources.cpuset_mems {
            write(&directory, "cpuset.mems", mems)?;
        }
        for (file, value) in [
            ("memory.min", resources.memory_min),
            ("memory.high", resources.memory_high),
            ("memory.max", resources.memory_limit),
            ("memory.swap.max", resources.swap_limit),
        ] {
            if let Some(value) = value
                && (file != "memory.swap.max" || directory.join(file).exists())
            {
                write(&directory, file, limit(value))?;
            }
        }
        if let Some(value) = resources.pids_limit {
            write(&directory, "pids.max", limit(value))?;
        }
        for huge in &resources.hugepages {
            write(&directory, &format!("hugetlb.{}.max", huge.page_size), huge.limit)?;
        }
        Ok(())
    }

    fn allow_devices(&self, _group: &Path, _rules: &[DeviceRule]) -> io::Result<()> {
        Ok(())
    }

    fn restricts_devices(&self) -> bool {
        false
    }

    fn join(&self, group: &Path, pid: Pid) -> io::Result<()> {
        write(&self.root.join(group), "cgroup.procs", pid)
    }

    fn processes(&self, group: &Path) -> io::Result<Vec<Pid>> {
        read_processes(&self.root.join(group))
    }

    fn kill(&self, group: &Path) -> io::Result<()> {
        match write(&self.root.join(group), "cgroup.kill", 1) {
            // Before Linux 5.14 there is no such file.
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.processes(group).map(|pids| kill_all(&pids)),
            result => result,
        }
    }

    fn oom_kills(&self, group: &Path) -> u64 {
        read_keyed(&self.root.join(group), "memory.events", "oom_kill").unwrap_or(0)
    }

    fn stats(&self, group: &Path) -> io::Result<Stats> {
        let directory = self.root.join(group);
        let detail = fs::read_to_string(directory.join("memory.stat"))?;
        let get = |key| keyed(&detail, key).unwrap_or(0);
        let usage = read_number(&directory, "memory.current")?;
        Ok(Stats {
            cpu_usage_ns: read_keyed(&directory, "cpu.stat", "usage_usec").unwrap_or(0).saturating_mul(1000),
            memory_usage: usage,
            memory_working_set: usage.saturating_sub(get("inactive_file")),
            memory_rss: get("anon"),
            page_faults: get("pgfault"),
            major_page_faults: get("pgmajfault"),
            memory_limit: read_number(&directory, "memory.max").ok(),
            pids: read_number(&directory, "pids.current")?,
        })
    }

    fn directories(&self, group: &Path) -> Vec<PathBuf> {
        vec![self.root.join(group)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_weights_as_kubernetes_converts_them() {
        assert_eq!([2, 102, 1024, 2048, 262_144].map(weight), [1, 4, 39, 79, 10000]);
    }

    #[test]
    fn the_unified_mount_is_found() {
        let found = Mount::find("30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n");
        assert_eq!(found, Some(Mount { root: "/sys/fs/cgroup".into() }));
    }

    #[test]
    fn processes_are_moved_counted_killed_and_their_group_removed() {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let Some(mount) = Mount::find(&mounts) else {
            println!("Skipped: no cgroup v2 is mounted here");
            return;
        };
        if !nix::unistd::geteuid().is_root() {
            println!("Skipped: making cgroups takes root");
            return;
        }
        let top = PathBuf::from(format!("coracle-test-v2-{}", std::process::id()));
        let group = top.join("kubepods/pod1/container");
        mount.create(&group).unwrap();
        mount.create(&group).unwrap();
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        mount.join(&group, pid).unwrap();
        assert_eq!(mount.processes(&group).unwrap(), [pid]);
        mount.kill(&group).unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&child.wait().unwrap()), Some(9));
        super::super::remove(&mount, &top).unwrap();
        super::super::remove(&mount, &top).unwrap();
        assert!(!mount.directories(&top)[0].exists());
    }
}
