//! A pod that already names its node fits no other.

use super::{Reasons, refuse};
use crate::cluster::{Node, Pod};

pub(super) fn check(pod: &Pod, node: &Node) -> Result<(), Reasons> {
    if pod.node_name.is_empty() || pod.node_name == node.name {
        Ok(())
    } else {
        refuse("node(s) didn't match the requested node name")
    }
}
