//! The messages of the Container Runtime Interface, as its `api.proto` (v1, of Kubernetes 1.36) names and numbers their
//! fields. What nobody here looks at is left out: readers skip fields they do not know.

mod container;
mod image;
mod node;
mod sandbox;
mod stats;

pub(super) use self::{container::*, image::*, node::*, sandbox::*, stats::*};

macro_rules! messages {
    ($($(#[$about:meta])* $name:ident { $($(#[$field:meta])* $member:ident: $type:ty,)* })*) => {
        $(
            $(#[$about])*
            #[derive(Clone, PartialEq, prost::Message)]
            pub(in crate::cri) struct $name { $($(#[$field])* pub(in crate::cri) $member: $type,)* }
        )*
    };
}
use messages;

macro_rules! enums {
    ($($(#[$about:meta])* $name:ident { $($variant:ident = $number:literal,)* })*) => {
        $(
            $(#[$about])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
            #[repr(i32)]
            pub(in crate::cri) enum $name { $($variant = $number,)* }
        )*
    };
}

enums! {
    MountPropagation { Private = 0, HostToContainer = 1, Bidirectional = 2, }
    /// Whose namespace.
    NamespaceMode { Pod = 0, Container = 1, Node = 2, Target = 3, }
    SupplementalGroupsPolicy { Merge = 0, Strict = 1, }
    ProfileType { RuntimeDefault = 0, Unconfined = 1, Localhost = 2, }
    PodSandboxState { Ready = 0, NotReady = 1, }
    ContainerState { Created = 0, Running = 1, Exited = 2, Unknown = 3, }
    ContainerEventType { Created = 0, Started = 1, Stopped = 2, Deleted = 3, }
    CgroupDriver { Systemd = 0, Cgroupfs = 1, }
    MetricType { Counter = 0, Gauge = 1, }
}

messages! {
    Nothing {}
}
