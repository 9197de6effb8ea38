//! What pods are found by: their managing owner, that they have none, their node.

use crate::view::{PodView, controller_of};

/// The index value of the pods that `uid` manages.
pub(crate) fn managed_by(uid: &str) -> String {
    uid.to_owned()
}

/// The index value of a namespace's pods that nobody manages.
pub(crate) fn orphans_of(namespace: &str) -> String {
    format!("orphans of {namespace}")
}

/// The index value of the pods on a node.
pub(crate) fn on_node(node: &str) -> String {
    format!("on node {node}")
}

/// The values a pod is found by.
pub(crate) fn values(pod: &PodView) -> Vec<String> {
    let owner = match controller_of(&pod.metadata) {
        Some(owner) => managed_by(&owner.uid),
        None => orphans_of(pod.metadata.namespace.as_deref().unwrap_or_default()),
    };
    let node = Some(&pod.spec.node_name).filter(|node| !node.is_empty());
    [Some(owner), node.map(|node| on_node(node))].into_iter().flatten().collect()
}
