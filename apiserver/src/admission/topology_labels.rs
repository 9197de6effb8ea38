//! A pod on a node says in which zone and region: it gets these labels of the node's when it is bound, or made there.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, Pod};

use super::Write;
use crate::{ops::AnyObject, registry::Registry, status_of::Result};

const LABELS: &[&str] = &["topology.kubernetes.io/region", "topology.kubernetes.io/zone"];

/// Where the node is, as far as it says.
///
/// # Errors
/// 500 when the stored node cannot be read.
pub(crate) fn of_node(registry: &Registry, node: &str) -> Result<BTreeMap<String, String>> {
    let labels = registry.get_typed::<Node>("", node)?.and_then(|node| node.metadata.labels).unwrap_or_default();
    Ok(labels.into_iter().filter(|(key, _)| LABELS.contains(&key.as_str())).collect())
}

pub(super) fn admit(write: &Write<'_>, object: Option<&mut dyn AnyObject>) -> Result<()> {
    if !write.creates_pod() {
        return Ok(());
    }
    let Some(pod) = object.and_then(|o| o.as_any_mut().downcast_mut::<Pod>()) else { return Ok(()) };
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default();
    if node.is_empty() {
        return Ok(());
    }
    let labels = of_node(write.registry, node)?;
    if !labels.is_empty() {
        pod.metadata.labels.get_or_insert_default().extend(labels);
    }
    Ok(())
}
