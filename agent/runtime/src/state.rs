//! What is known about sandboxes and containers: states, exits, events and figures.

use std::{path::PathBuf, time::SystemTime};

use serde::{Deserialize, Serialize};

use crate::{
    error::StartError,
    id::{ContainerId, SandboxId},
    spec::SandboxSpec,
};

/// One sandbox as it is found.
#[derive(Debug, Clone)]
pub struct SandboxStatus {
    /// Its name.
    pub id: SandboxId,
    /// What it was made from.
    pub spec: SandboxSpec,
    /// Whether its supervisor lives. A dead sandbox is good for reading exits and for [`crate::Runtime::remove_sandbox`].
    pub alive: bool,
    /// Its supervisor, when alive.
    pub supervisor_pid: Option<u32>,
    /// When it was made.
    pub created_at: SystemTime,
    /// Its containers, exited ones included until they are removed.
    pub containers: Vec<ContainerStatus>,
}

/// One container as it is found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerStatus {
    /// Its name in the runtime.
    pub id: ContainerId,
    /// Its name in the pod.
    pub name: String,
    /// Its attempt.
    pub attempt: u32,
    /// When it was made.
    pub created_at: SystemTime,
    /// Where it stands.
    pub state: ContainerState,
    /// The file its output goes to.
    pub log_path: PathBuf,
    /// The words given in its specification.
    pub annotations: Vec<(String, String)>,
}

/// Where a container stands. Only the supervisor moves it on, and only downwards in this list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerState {
    /// Being set up; left by the supervisor when the program runs or a step failed.
    Creating,
    /// Its program runs; left by the supervisor when it ended.
    Running {
        /// Its first process, as the host counts.
        pid: u32,
        /// When the program was executed.
        started_at: SystemTime,
        /// As whom it runs.
        uid: u32,
        /// The first group.
        gid: u32,
        /// Supplementary groups.
        groups: Vec<u32>,
    },
    /// Its program ended, or never ran.
    Exited(Exit),
}

/// How a container ended. On disk before anyone is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The exit code; 128 and the signal's number when a signal ended it; 128 when it could not be started.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Whether the out-of-memory killer killed something in the container.
    pub oom_killed: bool,
    /// When the program was executed; `None` when it never was.
    pub started_at: Option<SystemTime>,
    /// When it ended.
    pub finished_at: SystemTime,
    /// Why it could not be started.
    pub start_error: Option<StartError>,
    /// The supervisor died and took the container along, so how it ended is not known; the code is 137.
    #[serde(default)]
    pub lost: bool,
}

/// Something that happened. Events are told at least once: after a reconnection the state of every container is told
/// again, so a reader compares with what it knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A container's program runs.
    Started {
        /// The sandbox.
        sandbox: SandboxId,
        /// The container.
        container: ContainerId,
        /// Its first process, as the host counts.
        pid: u32,
        /// Since when.
        at: SystemTime,
    },
    /// A container's program ended, or could not be started.
    Exited {
        /// The sandbox.
        sandbox: SandboxId,
        /// The container.
        container: ContainerId,
        /// How.
        exit: Exit,
    },
    /// The sandbox's supervisor is gone, without having been asked to end.
    SandboxDied {
        /// The sandbox.
        sandbox: SandboxId,
    },
}

/// What a container or sandbox uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// CPU time since the beginning, in nanoseconds.
    pub cpu_usage_ns: u64,
    /// Memory with all caches, in bytes.
    pub memory_usage: u64,
    /// Memory without inactive file pages, in bytes: what eviction and `kubectl top` look at.
    pub memory_working_set: u64,
    /// Anonymous memory, in bytes.
    pub memory_rss: u64,
    /// Page faults.
    pub page_faults: u64,
    /// Page faults that read from a disk.
    pub major_page_faults: u64,
    /// The memory limit in bytes, when there is one.
    pub memory_limit: Option<u64>,
    /// Processes and threads.
    pub pids: u64,
}

/// What the kernel counts of a container or sandbox in more detail, for who watches it over time. What a host does not count
/// is 0, or `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Details {
    /// What is looked at more often.
    pub stats: Stats,
    /// The weight against its neighbours, in the shares that Kubernetes counts by.
    pub cpu_shares: u64,
    /// CPU time outside the kernel since the beginning, in nanoseconds.
    pub cpu_user_ns: u64,
    /// CPU time in the kernel, in nanoseconds.
    pub cpu_system_ns: u64,
    /// Microseconds of CPU time in each period, when that is limited.
    pub cpu_quota: Option<u64>,
    /// How long such a period is, in microseconds.
    pub cpu_period: u64,
    /// Periods that have passed with something to run.
    pub cpu_periods: u64,
    /// Those in which the time was used up before the end.
    pub cpu_throttled_periods: u64,
    /// How long it waited for the next period, in nanoseconds, summed over processors.
    pub cpu_throttled_ns: u64,
    /// The limit of memory that is its own and not one of a group above, in bytes.
    pub memory_limit: Option<u64>,
    /// Memory that is left to it when there is little, in bytes, when that is said.
    pub memory_reservation: Option<u64>,
    /// The limit of what may be swapped out, in bytes, when there is one.
    pub swap_limit: Option<u64>,
    /// Page faults of its own processes, and those of them that read from a disk; v2 counts those below together with them.
    pub own_page_faults: (u64, u64),
    /// What the kernel keeps for it, in bytes.
    pub memory_kernel: u64,
    /// File pages, in bytes.
    pub memory_cache: u64,
    /// Those that are mapped.
    pub memory_mapped_file: u64,
    /// Those that were used lately.
    pub memory_active_file: u64,
    /// Those that were not.
    pub memory_inactive_file: u64,
    /// What is swapped out, in bytes.
    pub memory_swap: u64,
    /// The most memory there ever was, in bytes.
    pub memory_peak: u64,
    /// How often the memory limit was reached.
    pub memory_limit_hits: u64,
    /// Processes the out-of-memory killer has killed.
    pub oom_kills: u64,
    /// The most processes and threads there may be, when that is limited.
    pub pids_limit: Option<u64>,
    /// Huge pages by size (`2MB`): bytes in use, and the most there ever were.
    pub hugepages: Vec<(String, u64, u64)>,
    /// What its processes, and those of the groups below it, have open.
    pub processes: ProcessUse,
    /// What was read from and written to each block device.
    pub devices: Vec<DeviceUse>,
    /// How long tasks waited for what there was too little of, where the kernel counts it (PSI).
    pub pressure: Option<Stalls>,
}

/// What the processes of a group are and have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProcessUse {
    /// How many there are; threads are not counted.
    pub processes: u64,
    /// Open files.
    pub descriptors: u64,
    /// Those of them that are sockets.
    pub sockets: u64,
    /// How many files the oldest of them may have open, where that is limited (`RLIMIT_NOFILE`, the soft limit).
    pub most_files: Option<u64>,
}

/// What went to and from a block device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeviceUse {
    /// Its numbers.
    pub device: (u32, u32),
    /// Bytes.
    pub read_bytes: u64,
    /// Bytes.
    pub written_bytes: u64,
    /// How often.
    pub reads: u64,
    /// How often.
    pub writes: u64,
}

/// Since the beginning, in microseconds: how long some task waited, and how long all did (Linux, `accounting/psi`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stalls {
    /// For a processor.
    pub cpu: (u64, u64),
    /// For memory.
    pub memory: (u64, u64),
    /// For a device.
    pub io: (u64, u64),
}
