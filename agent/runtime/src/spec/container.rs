//! One container: what is run, as whom, on which files, and what it may do.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{PidNamespace, Resources};

/// Paths that a container must not read, as the OCI runtimes mask them by default (`procMount: Default`).
pub const DEFAULT_MASKED_PATHS: &[&str] = &[
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// Paths that a container must not write, as the OCI runtimes protect them by default (`procMount: Default`).
pub const DEFAULT_READONLY_PATHS: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Everything one container is made of. Missing fields in JSON take the default.
///
/// `ContainerSpec::new` gives what an unprivileged pod container has; callers then set what differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// The container's name in the pod.
    pub name: String,
    /// How often a container of this name was started before in this sandbox: 0 at first.
    pub attempt: u32,
    /// Read-only directories the root is made of, the top one first. At least one.
    pub layers: Vec<PathBuf>,
    /// The program and its arguments. The first is looked up in the container's `PATH` unless it holds a slash.
    pub argv: Vec<String>,
    /// Environment, in order; of equal names the last counts. `PATH` and `HOME` are added when missing.
    #[serde(default)]
    pub env: Vec<(String, String)>,
    /// Working directory, made when missing; `/` when empty.
    #[serde(default)]
    pub cwd: String,
    /// As whom.
    #[serde(default)]
    pub user: User,
    /// Supplementary groups beside those the user has in the image's `/etc/group`.
    #[serde(default)]
    pub additional_gids: Vec<u32>,
    /// Do not add the groups the user has in the image's `/etc/group` (`supplementalGroupsPolicy: Strict`).
    #[serde(default)]
    pub strict_groups: bool,
    /// Changes to the default set of capabilities.
    #[serde(default)]
    pub capabilities: CapabilityChange,
    /// Every capability, every device, no masks, no seccomp, writable `/sys` and cgroups.
    #[serde(default)]
    pub privileged: bool,
    /// Executing a file grants nothing (`allowPrivilegeEscalation: false`).
    #[serde(default)]
    pub no_new_privileges: bool,
    /// The root is read-only; mounts are not affected.
    #[serde(default)]
    pub readonly_rootfs: bool,
    /// Which system calls are allowed.
    #[serde(default)]
    pub seccomp: SeccompProfile,
    /// The AppArmor profile, by the name it is loaded under on the host; `None` is none. The runtime's own
    /// ([`crate::DEFAULT_APPARMOR_PROFILE`]) is loaded when it is asked for.
    #[serde(default)]
    pub apparmor: Option<String>,
    /// Paths covered by something empty. `ContainerSpec::new` gives [`DEFAULT_MASKED_PATHS`]; privileged ignores it.
    #[serde(default)]
    pub masked_paths: Vec<String>,
    /// Paths made read-only. `ContainerSpec::new` gives [`DEFAULT_READONLY_PATHS`]; privileged ignores it.
    #[serde(default)]
    pub readonly_paths: Vec<String>,
    /// Mounts, in the order they are made.
    #[serde(default)]
    pub mounts: Vec<Mount>,
    /// Host devices beside the ones every container has.
    #[serde(default)]
    pub devices: Vec<Device>,
    /// Limits of the container's cgroup.
    #[serde(default)]
    pub resources: Resources,
    /// What the out-of-memory killer adds, -1000 to 1000; `None` is 0. Lowering it needs `CAP_SYS_RESOURCE`; without, it stays.
    #[serde(default)]
    pub oom_score_adj: Option<i32>,
    /// Resource limits (`RLIMIT_*`).
    #[serde(default)]
    pub rlimits: Vec<RLimit>,
    /// A terminal instead of three pipes.
    #[serde(default)]
    pub tty: bool,
    /// Keep standard input open for `attach`; otherwise it is `/dev/null`.
    #[serde(default)]
    pub stdin: bool,
    /// Close standard input when the first attached client leaves.
    #[serde(default)]
    pub stdin_once: bool,
    /// What asks the container to stop: a number, or a name as in `STOPSIGNAL` (`SIGQUIT`, `QUIT`, `3`, `RTMIN+3`).
    /// `SIGTERM` when empty.
    #[serde(default)]
    pub stop_signal: String,
    /// Which processes it sees; the sandbox's choice when `None`.
    #[serde(default)]
    pub pid: Option<PidNamespace>,
    /// The file its output goes to; `None` is `<name>/<attempt>.log` in the sandbox's directory of logs.
    #[serde(default)]
    pub log_path: Option<PathBuf>,
    /// Free words the caller finds again after a restart (image name, hash of the specification).
    #[serde(default)]
    pub annotations: Vec<(String, String)>,
}

impl ContainerSpec {
    /// An unprivileged container with the default masks and no mounts of its own.
    pub fn new(name: impl Into<String>, layers: Vec<PathBuf>, argv: Vec<String>) -> ContainerSpec {
        ContainerSpec {
            name: name.into(),
            attempt: 0,
            layers,
            argv,
            env: Vec::new(),
            cwd: String::new(),
            user: User::default(),
            additional_gids: Vec::new(),
            strict_groups: false,
            capabilities: CapabilityChange::default(),
            privileged: false,
            no_new_privileges: false,
            readonly_rootfs: false,
            seccomp: SeccompProfile::default(),
            apparmor: None,
            masked_paths: DEFAULT_MASKED_PATHS.iter().map(|path| (*path).to_owned()).collect(),
            readonly_paths: DEFAULT_READONLY_PATHS.iter().map(|path| (*path).to_owned()).collect(),
            mounts: Vec::new(),
            devices: Vec::new(),
            resources: Resources::default(),
            oom_score_adj: None,
            rlimits: Vec::new(),
            tty: false,
            stdin: false,
            stdin_once: false,
            stop_signal: String::new(),
            pid: None,
            log_path: None,
            annotations: Vec::new(),
        }
    }
}

/// As whom a process runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum User {
    /// By number. Without a group it is the one `/etc/passwd` in the root names for the user, or 0.
    Ids {
        /// User.
        uid: u32,
        /// Group.
        gid: Option<u32>,
    },
    /// As an image says it: `user`, `uid`, `user:group`, `uid:gid`; names are looked up in the root's own files.
    /// A group given beside a name replaces the one found.
    Name(String),
}

impl Default for User {
    fn default() -> Self {
        User::Ids { uid: 0, gid: None }
    }
}

/// Changes to the capabilities every container has, by names without `CAP_` (or with). `ALL` is every one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapabilityChange {
    /// Added after dropping.
    #[serde(default)]
    pub add: Vec<String>,
    /// Dropped.
    #[serde(default)]
    pub drop: Vec<String>,
    /// Raised in the ambient set as well, so that a user other than root keeps them over `execve`.
    #[serde(default)]
    pub ambient: Vec<String>,
}

/// Which system calls are allowed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SeccompProfile {
    /// The container runtimes' common default profile.
    RuntimeDefault,
    /// Every one (Kubernetes' default unless the pod says otherwise).
    #[default]
    Unconfined,
    /// A profile in the common JSON format, from a file of the host.
    Localhost(PathBuf),
}

/// Something mounted into the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Where, in the container; symbolic links are followed inside the root only. Made when missing: a directory, or
    /// an empty file when the source is no directory.
    pub destination: String,
    /// What.
    pub kind: MountKind,
    /// Cannot be written through this mount.
    #[serde(default)]
    pub readonly: bool,
    /// Mounts below the source become read-only as well (`recursiveReadOnly`).
    #[serde(default)]
    pub recursive_readonly: bool,
    /// Whether later mounts on one side appear on the other.
    #[serde(default)]
    pub propagation: Propagation,
    /// `nosuid`, `nodev`, `noexec`.
    #[serde(default)]
    pub options: Vec<String>,
}

impl Mount {
    /// A file or directory of the host, writable and private.
    pub fn bind(source: impl Into<PathBuf>, destination: impl Into<String>) -> Mount {
        Mount {
            destination: destination.into(),
            kind: MountKind::Bind { source: source.into() },
            readonly: false,
            recursive_readonly: false,
            propagation: Propagation::Private,
            options: Vec::new(),
        }
    }

    /// The same, read-only.
    #[must_use]
    pub fn readonly(mut self) -> Mount {
        self.readonly = true;
        self
    }
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountKind {
    /// A file or directory of the host with everything mounted below it. The source's last steps are the caller's to
    /// check: it is resolved as the host sees it.
    Bind {
        /// Absolute path on the host.
        source: PathBuf,
    },
    /// A file system in memory that lives as long as the container.
    Tmpfs {
        /// Bytes; half of the memory when `None`.
        size: Option<u64>,
        /// Mode of the top directory, as in `0o1777`.
        mode: Option<u32>,
    },
    /// Read-only directories laid over one another, the top one first (image volumes).
    Layers {
        /// The directories.
        layers: Vec<PathBuf>,
        /// A directory below the top to show instead of the whole.
        sub_path: Option<String>,
    },
}

/// Whether mounts made later on one side of a bind mount appear on the other (mount_namespaces(7)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    /// Neither way (`None` in Kubernetes).
    #[default]
    Private,
    /// From the host to the container.
    HostToContainer,
    /// Both ways.
    Bidirectional,
}

/// A host device shown in the container and allowed by its cgroup.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Path on the host; a device node.
    pub host_path: PathBuf,
    /// Path in the container.
    pub container_path: String,
    /// `r`, `w` and `m` in any combination; nothing is allowed beyond what every container may when it is empty.
    pub permissions: String,
    /// The mode of its node, as in `0o660`; the host's when `None`.
    #[serde(default)]
    pub mode: Option<u32>,
    /// Whose it is in the container; whose it is on the host when `None`.
    #[serde(default)]
    pub uid: Option<u32>,
    /// Its group, likewise.
    #[serde(default)]
    pub gid: Option<u32>,
}

/// One resource limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RLimit {
    /// Its name, such as `RLIMIT_NOFILE`.
    pub name: String,
    /// What a process has; it may raise it up to `hard`.
    pub soft: u64,
    /// The most it may have.
    pub hard: u64,
}
