//! What a caller asks for: a sandbox, its containers, and their resources, as plain data.

mod container;
mod resources;
mod sandbox;

pub use container::{
    CapabilityChange, ContainerSpec, DEFAULT_MASKED_PATHS, DEFAULT_READONLY_PATHS, Device, Mount, MountKind,
    Propagation, RLimit, SeccompProfile, User,
};
pub use resources::{HugePageLimit, QosClass, Resources};
pub use sandbox::{
    IdMapping, IpcNamespace, LogLimits, NetworkNamespace, PidNamespace, SandboxSpec, UserNamespace, UtsNamespace,
};
