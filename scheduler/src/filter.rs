//! The filters: each says whether a node can take a pod, and if not, why.
//!
//! One file a filter, one line each in [`FILTERS`]. The reasons are Kubernetes' own words, since people search for them.

mod node_affinity;
mod node_name;
mod node_ports;
mod node_resources;
mod node_unschedulable;
mod taint_toleration;

pub(crate) use taint_toleration::tolerates;

use crate::cluster::{Node, Pod};

/// Why a node cannot take a pod; several sentences where several resources are short.
pub(crate) type Reasons = Vec<String>;

/// One filter.
pub(crate) struct Filter {
    /// Kubernetes' name of the plugin.
    pub(crate) name: &'static str,
    /// The check.
    pub(crate) check: fn(&Pod, &Node) -> Result<(), Reasons>,
}

/// All filters, cheapest and most telling first: a node is charged with the reasons of the first that refuses it.
pub(crate) const FILTERS: &[Filter] = &[
    // A cordoned node takes nothing new, whatever else holds.
    Filter { name: "NodeUnschedulable", check: node_unschedulable::check },
    // A pod that names its node fits no other.
    Filter { name: "NodeName", check: node_name::check },
    // Taints before affinity: the taint is the node owner's word, affinity the pod owner's.
    Filter { name: "TaintToleration", check: taint_toleration::check },
    Filter { name: "NodeAffinity", check: node_affinity::check },
    Filter { name: "NodePorts", check: node_ports::check },
    // Last, since its reasons are only worth telling for nodes the pod would otherwise fit.
    Filter { name: "NodeResourcesFit", check: node_resources::check },
];

fn refuse(reason: &str) -> Result<(), Reasons> {
    Err(vec![reason.to_owned()])
}
