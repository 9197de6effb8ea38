//! The pod network of one node, made with nothing but netlink.
//!
//! Each pod gets a pair of connected interfaces (veth): one end named `eth0` in the pod's network namespace with the
//! pod's address as a /32, the other end on the host, with a /32 route towards the pod. There is no bridge between pods:
//! every packet passes the host's IP stack. That was chosen over a bridge because
//!
//! - services rewrite addresses in the host's IP stack; on a bridge, traffic between two pods of one node never gets there
//!   unless `br_netfilter` is loaded, and a pod that reaches itself through its own service needs hairpin ports;
//! - policies see one place, the forward hook, for pods of this node and of others alike;
//! - pods of other nodes are one more route (through a VXLAN device), not a second layer 2 domain;
//! - there is nothing to flood or to learn, and a pod cannot take another's address: reverse path filtering on the
//!   host's end drops what does not come from the pod's own address.
//!
//! ```text
//!  pod netns                    host
//!  eth0 10.42.0.7/32 ───veth─── c<mark>-<hash>   10.42.0.7/32 dev c<mark>-<hash> src 10.42.0.1
//!  default via 10.42.0.1        cor-<mark>       an empty bridge that carries 10.42.0.1/32, the gateway's address
//!                               unreachable 10.42.0.0/24, so that free addresses answer at once and never leave the host
//!                               nftables table `coracle-<mark>`: masquerade for what leaves the cluster, and the host's
//!                               ports that lead to pods
//! ```
//!
//! Entry points: [`Network::open`], [`Network::attach`], [`Network::publish`], [`Network::detach`],
//! [`Network::reconcile`], [`Network::purge`].
//!
//! **Invariant:** everything this crate makes carries the mark in its name, and nothing of it is left after a purge.
//!
//! **Invariant:** an address belongs to a pod exactly while the pod's record is in the state directory.
//!
//! **Invariant:** nothing here talks to the API server, resolves names, or runs a program.

mod config;
mod error;
mod ipam;
mod link;
mod network;
mod ports;
mod records;
mod sysctl;

pub mod nft;

pub use config::{Config, Ipv4Net};
pub use error::Error;
pub use network::{Attachment, Netns, Network, Purged};
pub use ports::{HostPort, Protocol};
