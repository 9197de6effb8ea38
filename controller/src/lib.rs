//! The controllers: the loops that make the cluster what its objects ask for.
//!
//! Each controller looks at one kind of object, compares what is asked for with what is there, and takes the next step.
//! None keeps anything of its own: all it knows it reads from the API through shared informers, and all it does is
//! write to the API. Nothing polls: work comes from watches.
//!
//! ```text
//!   watch ──▶ Informer ──handlers──▶ WorkQueue ──▶ reconcile(key) ──▶ writes through kube::Client
//!               │                      ▲   (a bounded number at once; failures come again later)
//!               └── Reader ────────────┴── plan: a pure function of what the readers show
//! ```
//!
//! **Invariants.** Every reconcile can be cut off at any line and run again. A controller never acts on a picture older
//! than its own last write (`informer`'s `caught_up`). What an object owns is found by owner references with uids,
//! never by names.

mod object_key;
mod view;

mod figures;
mod informer;
mod informers;
mod reconcile;
mod work_queue;
mod written;

mod events;
mod pod_control;
mod pod_index;
mod pod_owners;
mod status_patch;
mod storage_protection;

mod cron_job;
mod daemon_set;
mod deployment;
mod disruption;
mod history;
mod job;
mod replica_set;
mod resource_quota;
mod stateful_set;

mod endpoint_slice_mirroring;
mod endpoint_slices;
mod endpoints;
mod service_cidr;
mod service_pods;

mod garbage_collector;
mod namespace;
mod root_ca;
mod service_account;
mod token_cleaner;

mod node_ipam;
mod node_lifecycle;
mod pod_gc;
mod taint_eviction;

mod args;
mod controllers;
#[cfg(test)]
mod fake_api;

use std::{path::PathBuf, time::Duration};

pub use args::Args;
pub use controllers::run;
pub use figures::figures;
pub use node_ipam::{ClusterCidr, ClusterCidrError};

/// What the controllers need to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// How long a node may stay without a heartbeat before it counts as gone.
    pub node_grace: Duration,
    /// The certificates that authenticate the API server, PEM, for `kube-root-ca.crt`. Without them they are read once
    /// from that ConfigMap in `kube-public` or `kube-system`.
    pub root_ca: Option<String>,
    /// The range of all pods, of which every node is given a part; without it nodes get none from here.
    pub cluster_cidr: Option<ClusterCidr>,
    /// A node that registers itself with a range which was chosen for it by [`ClusterCidr::free`] already, and that range,
    /// so that no other node is given it in between.
    pub given_range: Option<(String, String)>,
}

/// How the controllers can end before they are told to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A task of a controller panicked.
    #[error("a task of a controller broke")]
    Task(#[from] tokio::task::JoinError),
    /// A file the flags name cannot be read.
    #[error("--root-ca-file {}", path.display())]
    RootCaFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}
