//! cgroup v2: the unified hierarchy.
//!
//! Which devices a group may use is a BPF program on v2. Where the kernel or whoever runs us does not allow one, a container
//! has no `CAP_MKNOD`, whatever it asks for, unless it is privileged: the nodes in its `/dev` are all it can open, and its
//! mounts of host directories are `nodev`.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Instant,
};

use nix::unistd::Pid;

use super::{
    DeviceRule, Tree, annotate, device, device_program, ending, huge_pages, keyed, limit_huge_pages, number, processes,
    read_keyed, read_number, read_processes, write,
};
use crate::{
    spec::Resources,
    state::{Details, DeviceUse, Stalls, Stats},
};

/// The controllers children are given when the host has them.
const CONTROLLERS: &[&str] = &["cpu", "cpuset", "memory", "pids", "io", "hugetlb"];

/// Where the hierarchy is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    root: PathBuf,
    /// Whether groups can be given programs that say which devices they may use.
    device_programs: bool,
}

impl Mount {
    /// Reads the mount table (proc(5), `/proc/pid/mountinfo`).
    pub(super) fn find(mountinfo: &str) -> Option<Mount> {
        mountinfo.lines().find_map(|line| {
            let (mount, file_system) = line.split_once(" - ")?;
            let root = PathBuf::from(mount.split(' ').nth(4)?);
            file_system.starts_with("cgroup2 ").then_some(Mount { root, device_programs: false })
        })
    }

    /// Uses programs for devices if the kernel takes one.
    pub(super) fn with_device_programs(self) -> Mount {
        Mount { device_programs: device_program::load(&[]).is_ok(), ..self }
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

/// The least shares that become this weight.
fn shares(weight: u64) -> u64 {
    2 + (weight.clamp(1, 10_000) - 1).saturating_mul(262_142).div_ceil(9999)
}

fn limit(value: i64) -> String {
    if value < 0 { "max".to_owned() } else { value.to_string() }
}

/// Reads `io.stat`: lines as `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0`.
fn device_uses(text: &str) -> Vec<DeviceUse> {
    let mut devices = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let Some(found) = words.next().and_then(|numbers| device(&mut devices, numbers)) else { continue };
        for (name, value) in words.filter_map(|word| word.split_once('=')) {
            let value = value.parse().unwrap_or(0);
            match name {
                "rbytes" => found.read_bytes = value,
                "wbytes" => found.written_bytes = value,
                "rios" => found.reads = value,
                "wios" => found.writes = value,
                _ => {}
            }
        }
    }
    devices
}

/// Reads a file of pressure: lines as `some avg10=0.00 avg60=0.00 avg300=0.00 total=12`, and likewise `full`.
fn stalled(directory: &Path, file: &str) -> Option<(u64, u64)> {
    let text = fs::read_to_string(directory.join(file)).ok()?;
    let total = |whose: &str| {
        let line = text.lines().find(|line| line.starts_with(whose))?;
        line.rsplit_once("total=")?.1.trim().parse().ok()
    };
    // Older kernels tell of the processor only how long some waited.
    Some((total("some")?, total("full").unwrap_or(0)))
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
        limit_huge_pages(&directory, resources, ".max")
    }

    fn allow_devices(&self, group: &Path, rules: &[DeviceRule]) -> io::Result<()> {
        if !self.device_programs {
            return Ok(());
        }
        device_program::attach(&device_program::load(rules)?, &self.root.join(group))
    }

    fn restricts_devices(&self) -> bool {
        self.device_programs
    }

    fn join(&self, group: &Path, pid: Pid) -> io::Result<()> {
        write(&self.root.join(group), "cgroup.procs", pid)
    }

    fn processes(&self, group: &Path) -> io::Result<Vec<Pid>> {
        read_processes(&self.root.join(group))
    }

    fn processes_below(&self, group: &Path) -> io::Result<Vec<Pid>> {
        ending::processes_below(&self.root.join(group))
    }

    fn kill(&self, group: &Path) -> io::Result<()> {
        ending::lift_cpu_bound(self, group);
        let directory = self.root.join(group);
        match write(&directory, "cgroup.kill", 1) {
            // Before Linux 5.14 there is no such file.
            Err(error) if error.kind() == io::ErrorKind::NotFound => ending::kill_listed(&directory, |_| {}),
            result => result,
        }
    }

    fn wait_empty(&self, group: &Path, deadline: Instant) -> io::Result<bool> {
        ending::wait_for_event(&self.root.join(group), deadline)
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

    fn details(&self, group: &Path) -> io::Result<Details> {
        let stats = self.stats(group)?;
        let directory = self.root.join(group);
        let read = |file: &str| fs::read_to_string(directory.join(file)).unwrap_or_default();
        let (cpu, memory) = (read("cpu.stat"), read("memory.stat"));
        let of = |text: &str, key: &str| keyed(text, key).unwrap_or(0);
        let (quota, period) =
            read("cpu.max").trim().split_once(' ').map_or((None, 0), |(q, p)| (q.parse().ok(), p.parse().unwrap_or(0)));
        let stalls = || {
            let file = |name| stalled(&directory, name);
            Some(Stalls { cpu: file("cpu.pressure")?, memory: file("memory.pressure")?, io: file("io.pressure")? })
        };
        Ok(Details {
            stats,
            cpu_shares: number(&directory, "cpu.weight").map_or(0, shares),
            cpu_user_ns: of(&cpu, "user_usec").saturating_mul(1000),
            cpu_system_ns: of(&cpu, "system_usec").saturating_mul(1000),
            cpu_quota: quota,
            cpu_period: period,
            cpu_periods: of(&cpu, "nr_periods"),
            cpu_throttled_periods: of(&cpu, "nr_throttled"),
            cpu_throttled_ns: of(&cpu, "throttled_usec").saturating_mul(1000),
            memory_limit: stats.memory_limit,
            memory_reservation: number(&directory, "memory.low").filter(|bytes| *bytes > 0),
            swap_limit: number(&directory, "memory.swap.max"),
            own_page_faults: (stats.page_faults, stats.major_page_faults),
            memory_kernel: of(&memory, "kernel"),
            memory_cache: of(&memory, "file"),
            memory_mapped_file: of(&memory, "file_mapped"),
            memory_active_file: of(&memory, "active_file"),
            memory_inactive_file: of(&memory, "inactive_file"),
            memory_swap: number(&directory, "memory.swap.current").unwrap_or(0),
            memory_peak: number(&directory, "memory.peak").unwrap_or(0),
            memory_limit_hits: read_keyed(&directory, "memory.events", "max").unwrap_or(0),
            oom_kills: self.oom_kills(group),
            pids_limit: number(&directory, "pids.max"),
            hugepages: huge_pages(&directory, (".current", ".peak")),
            processes: processes::look(&self.processes_below(group).unwrap_or_default()),
            devices: device_uses(&read("io.stat")),
            pressure: stalls(),
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
        assert_eq!([1, 39, 10000].map(shares), [2, 999, 262_144]);
        assert!((1..=10_000).all(|number| weight(shares(number)) == number));
    }

    #[test]
    fn what_went_to_devices_and_how_long_tasks_waited_is_read_as_the_kernel_writes_it() {
        let text = "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n254:16 \n";
        let first = DeviceUse { device: (8, 0), read_bytes: 1, written_bytes: 2, reads: 3, writes: 4 };
        assert_eq!(device_uses(text), [first, DeviceUse { device: (254, 16), ..DeviceUse::default() }]);
        let folder = tempfile::tempdir().unwrap();
        let some = "some avg10=0.00 avg60=0.00 avg300=0.00 total=12\n";
        for (text, want) in [
            (format!("{some}full avg10=0.00 avg60=0.00 avg300=0.00 total=7\n"), Some((12, 7))),
            (some.to_owned(), Some((12, 0))),
            (String::new(), None),
        ] {
            fs::write(folder.path().join("cpu.pressure"), text).unwrap();
            assert_eq!(stalled(folder.path(), "cpu.pressure"), want);
        }
        assert_eq!(stalled(folder.path(), "io.pressure"), None);
    }

    #[test]
    fn the_unified_mount_is_found() {
        let found = Mount::find("30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n");
        assert_eq!(found, Some(Mount { root: "/sys/fs/cgroup".into(), device_programs: false }));
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
        let soon = || Instant::now() + super::super::KILL_PATIENCE;
        assert!(!mount.wait_empty(&top, Instant::now()).unwrap());
        mount.kill(&top).unwrap();
        assert!(mount.wait_empty(&top, soon()).unwrap());
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&child.wait().unwrap()), Some(9));
        super::super::remove(&mount, &top, soon()).unwrap();
        super::super::remove(&mount, &top, soon()).unwrap();
        assert!(!mount.directories(&top)[0].exists());
    }

    #[test]
    fn a_group_uses_the_devices_it_is_allowed_and_no_others() {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let Some(mount) = Mount::find(&mounts).map(Mount::with_device_programs).filter(Tree::restricts_devices) else {
            println!("Skipped: no cgroup v2 with programs for devices here");
            return;
        };
        let group = PathBuf::from(format!("coracle-test-devices-{}", std::process::id()));
        mount.create(&group).unwrap();
        let rule = |minor, permissions: &str| DeviceRule {
            kind: 'c',
            major: Some(1),
            minor: Some(minor),
            permissions: permissions.to_owned(),
        };
        // Null may be written to, zero be read, and full neither.
        mount.allow_devices(&group, &[rule(3, "w"), rule(5, "rm")]).unwrap();
        let tries =
            ["echo x > /dev/null", "cat /dev/null", "head -c 1 /dev/zero", "echo x > /dev/zero", "head -c 1 /dev/full"];
        let line: String = tries.iter().map(|line| format!("({line}) > /proc/self/fd/2; echo $?;")).collect();
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &format!("read go; {line}")]).stdin(std::process::Stdio::piped());
        shell.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        let mut child = shell.spawn().unwrap();
        mount.join(&group, Pid::from_raw(child.id().cast_signed())).unwrap();
        io::Write::write_all(&mut child.stdin.take().unwrap(), b"go\n").unwrap();
        let output = child.wait_with_output().unwrap();
        let codes =
            String::from_utf8_lossy(&output.stdout).split_whitespace().map(|code| code == "0").collect::<Vec<_>>();
        super::super::remove(&mount, &group, Instant::now() + super::super::KILL_PATIENCE).unwrap();
        assert_eq!(codes, [true, false, true, false, false], "{}", String::from_utf8_lossy(&output.stderr));
    }
}
