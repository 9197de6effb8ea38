//! Limits and weights of a cgroup, in the words Kubernetes and the Container Runtime Interface use.

use serde::{Deserialize, Serialize};

/// Which branch of the cgroup tree a pod lives in (`kubepods`, `kubepods/burstable`, `kubepods/besteffort`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum QosClass {
    /// Requests equal limits for every container.
    Guaranteed,
    /// Something is requested.
    Burstable,
    /// Nothing is requested.
    BestEffort,
}

/// What a cgroup may use. `None` leaves the kernel's default, which is no limit.
///
/// The same fields serve cgroup v1 and v2; shares become `cpu.weight` on v2 as runc converts them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Relative weight, 2 to 262144; 1024 stands for one CPU.
    pub cpu_shares: Option<u64>,
    /// Microseconds of CPU time allowed in each period; -1 is no limit.
    pub cpu_quota: Option<i64>,
    /// Length of the period in microseconds; 100000 when a quota is given without it.
    pub cpu_period: Option<u64>,
    /// CPUs that may be used, in the kernel's list format (`0-2,7`).
    pub cpuset_cpus: Option<String>,
    /// Memory nodes that may be used, in the kernel's list format.
    pub cpuset_mems: Option<String>,
    /// Bytes of memory; -1 is no limit.
    pub memory_limit: Option<i64>,
    /// Bytes of memory above which the kernel slows the cgroup down (v2 `memory.high`).
    pub memory_high: Option<i64>,
    /// Bytes of memory that are not reclaimed (v2 `memory.min`).
    pub memory_min: Option<i64>,
    /// Bytes of swap beside the memory limit; 0 is no swap, -1 is no limit.
    pub swap_limit: Option<i64>,
    /// Number of processes and threads; -1 is no limit.
    pub pids_limit: Option<i64>,
    /// Huge page limits by page size. Nothing is limited on a host whose cgroups do not count huge pages.
    pub hugepages: Vec<HugePageLimit>,
    /// Whether huge pages of the sizes that are not in [`Resources::hugepages`] may not be used at all.
    pub no_other_hugepages: bool,
}

/// How much of one size of huge pages may be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HugePageLimit {
    /// The size as the kernel names it: `2MB`, `1GB`.
    pub page_size: String,
    /// Bytes.
    pub limit: u64,
}
