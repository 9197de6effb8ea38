//! What can go wrong with the pod network, one variant a decision or a kernel step.

use std::{io, path::PathBuf};

use crate::Ipv4Net;

/// Why the pod network could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration cannot work.
    #[error("network configuration: {reason}")]
    Config {
        /// The field, its value and what is allowed.
        reason: String,
    },
    /// The host already routes (a part of) the pods' range elsewhere.
    #[error(
        "pod CIDR {pod_cidr} overlaps with {existing} on {device}, which this host already uses: choose another range"
    )]
    Overlap {
        /// The range asked for.
        pod_cidr: Ipv4Net,
        /// What the host has.
        existing: Ipv4Net,
        /// The interface it is on, or the kind of route.
        device: String,
    },
    /// No address is free.
    #[error("no free address in pod CIDR {pod_cidr}: all {capacity} are in use")]
    Exhausted {
        /// The range.
        pod_cidr: Ipv4Net,
        /// How many pods fit.
        capacity: usize,
    },
    /// A pod's name cannot be a file name.
    #[error("pod uid {uid:?} must be 1 to 128 letters, digits, '-', '_' or '.'")]
    PodUid {
        /// What was given.
        uid: String,
    },
    /// Two pods' names hash to the same interface.
    #[error("interface {interface} of pod {uid} already belongs to pod {owner}")]
    NameTaken {
        /// The interface.
        interface: String,
        /// The pod that asked.
        uid: String,
        /// The pod that has it.
        owner: String,
    },
    /// A pod is to be reached by ports of the host before it has an address.
    #[error("pod {uid} has no address that ports of the host could lead to")]
    NotAttached {
        /// The pod.
        uid: String,
    },
    /// The pod's network namespace cannot be opened or entered.
    #[error("network namespace {namespace}")]
    Namespace {
        /// Its path.
        namespace: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A record cannot be read or written.
    #[error("{action} {}", path.display())]
    Record {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A kernel setting cannot be changed.
    #[error("set {} to {value}", path.display())]
    Sysctl {
        /// The file below `/proc/sys`.
        path: PathBuf,
        /// The value it was to get.
        value: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel refused a change of links, addresses or routes.
    #[error("{step} {object}")]
    Link {
        /// What was tried.
        step: &'static str,
        /// The interface, address or route.
        object: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// An interface that must be there is not.
    #[error("interface {name} is gone")]
    LinkGone {
        /// The interface.
        name: String,
    },
    /// A socket to the kernel cannot be made.
    #[error("netlink socket")]
    Socket {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel refused a change of the packet filter.
    #[error(transparent)]
    Nft(#[from] crate::nft::NftError),
    /// The network's thread has ended.
    #[error("the pod network is closed")]
    Closed,
}
