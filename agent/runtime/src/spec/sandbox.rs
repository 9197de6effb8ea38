//! The pod's share: names, namespaces, sysctls, its cgroup and where its logs go.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{QosClass, Resources};

/// Everything a sandbox is made of. Written to disk for the supervisor, so a later version of the agent reads it too:
/// fields are only ever added, with defaults.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// The pod's `metadata.uid`.
    pub pod_uid: String,
    /// The pod's name.
    pub pod_name: String,
    /// The pod's namespace.
    pub pod_namespace: String,
    /// Which sandbox of this pod it is, from 0; a pod whose sandbox died gets the next.
    pub attempt: u32,
    /// The host name in an own UTS namespace.
    pub hostname: String,
    /// Whose network the pod has.
    #[serde(default)]
    pub network: NetworkNamespace,
    /// Which processes containers see, unless a container says otherwise.
    #[serde(default)]
    pub pid: PidNamespace,
    /// Whose System V and POSIX message objects, and whose `/dev/shm`.
    #[serde(default)]
    pub ipc: IpcNamespace,
    /// Whose host name.
    #[serde(default)]
    pub uts: UtsNamespace,
    /// Whose users.
    #[serde(default)]
    pub users: UserNamespace,
    /// Kernel parameters in the pod's namespaces, in dotted names (`net.core.somaxconn`), in the order they are set.
    #[serde(default)]
    pub sysctls: Vec<(String, String)>,
    /// The branch of the cgroup tree.
    pub qos: QosClass,
    /// The cgroup the pod's own is made in, relative to each hierarchy's root, instead of that branch. It is the caller's: it
    /// stays when the pod goes.
    #[serde(default)]
    pub cgroup_parent: Option<PathBuf>,
    /// Limits of the pod as a whole.
    #[serde(default)]
    pub resources: Resources,
    /// The directory of the pod's logs, `<log root>/<namespace>_<name>_<uid>`; made when missing, removed by the caller.
    pub log_directory: PathBuf,
    /// When log files are rotated and how many are kept.
    #[serde(default)]
    pub log_limits: LogLimits,
    /// Bytes of the pod's `/dev/shm`; 64 MiB when 0.
    #[serde(default)]
    pub shm_size: u64,
    /// Free words the caller finds again after a restart (labels, annotations).
    #[serde(default)]
    pub annotations: Vec<(String, String)>,
}

/// Whose network stack a pod has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetworkNamespace {
    /// A namespace of its own, with the loopback link up and nothing else.
    #[default]
    Own,
    /// The host's.
    Host,
}

/// Which processes a container sees.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PidNamespace {
    /// Each container its own; its first process is process 1.
    #[default]
    Container,
    /// One for the pod (`shareProcessNamespace`); a small process of the sandbox is process 1 and reaps.
    Pod,
    /// The host's.
    Host,
    /// That of another container of the sandbox, by id (`kubectl debug --target`). Not allowed for a sandbox.
    Target(crate::id::ContainerId),
}

/// Whose System V IPC objects, POSIX message queues and `/dev/shm` a pod has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum IpcNamespace {
    /// The pod's own, shared by its containers.
    #[default]
    Pod,
    /// The host's.
    Host,
}

/// Whose users a pod has: which numbers its processes have on the host (user_namespaces(7), KEP-127).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum UserNamespace {
    /// The host's: root in a container is root of the host, with fewer capabilities.
    #[default]
    Host,
    /// The pod's own (`hostUsers: false`): 65536 numbers that are nobody's on the host, chosen by the runtime. Files of images
    /// and volumes keep their owners through id-mapped mounts. Not together with the host's network, processes or IPC.
    Own,
    /// Likewise, with these numbers, which the caller gives to nobody else.
    Range(IdMapping),
}

/// Numbers of users and groups in a pod, and what they are on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMapping {
    /// The first on the host; that of the pod is 0.
    pub host: u32,
    /// How many.
    pub size: u32,
}

/// Whose host name a pod has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum UtsNamespace {
    /// The pod's own.
    #[default]
    Pod,
    /// The host's.
    Host,
}

/// When log files are rotated and how many are kept (kubelet's `containerLogMaxSize` and `containerLogMaxFiles`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLimits {
    /// Bytes after which a file is renamed and a new one begun.
    pub max_size: u64,
    /// Files kept for one container, the one being written included; at least 2.
    pub max_files: u32,
}

impl Default for LogLimits {
    fn default() -> Self {
        LogLimits { max_size: 10 << 20, max_files: 5 }
    }
}
