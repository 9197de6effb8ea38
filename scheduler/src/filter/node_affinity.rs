//! Node selectors and required node affinity: the labels a pod wants of its node.

use coracle_proto::placement::matches_required;

use super::{Reasons, refuse};
use crate::cluster::{Node, Pod};

pub(super) fn check(pod: &Pod, node: &Node) -> Result<(), Reasons> {
    let selected = pod.node_selector.iter().all(|(key, value)| node.labels.get(key) == Some(value));
    let required = pod.node_affinity.required.as_ref();
    match selected && required.is_none_or(|r| matches_required(r, &node.name, &node.labels)) {
        true => Ok(()),
        false => refuse("node(s) didn't match Pod's node affinity/selector"),
    }
}
