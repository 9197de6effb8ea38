//! A new node takes no pods before it is known to be ready; the node lifecycle controller takes the taint off.

use k8s_openapi::api::core::v1::{Node, Taint};

use super::{Operation, Write};
use crate::{ops::AnyObject, status_of::Result};

const KEY: &str = "node.kubernetes.io/not-ready";
const EFFECT: &str = "NoSchedule";

pub(super) fn admit(write: &Write<'_>, object: Option<&mut dyn AnyObject>) -> Result<()> {
    if write.operation != Operation::Create || !write.subresource.is_empty() {
        return Ok(());
    }
    let Some(node) = object.and_then(|o| o.as_any_mut().downcast_mut::<Node>()) else { return Ok(()) };
    let taints = node.spec.get_or_insert_default().taints.get_or_insert_default();
    if !taints.iter().any(|taint| taint.key == KEY && taint.effect == EFFECT) {
        taints.push(Taint { key: KEY.to_owned(), effect: EFFECT.to_owned(), ..Taint::default() });
    }
    Ok(())
}
