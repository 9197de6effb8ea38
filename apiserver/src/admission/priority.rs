//! A pod's priority is worked out from its class.

use k8s_openapi::api::core::v1::Pod;

use super::Write;
use crate::{ops::AnyObject, status_of::Result};

/// The classes every cluster has.
const CLASSES: &[(&str, i32)] = &[("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];

pub(super) fn admit(write: &Write<'_>, object: Option<&mut dyn AnyObject>) -> Result<()> {
    if !write.creates_pod() {
        return Ok(());
    }
    let Some(pod) = object.and_then(|o| o.as_any_mut().downcast_mut::<Pod>()) else { return Ok(()) };
    let spec = pod.spec.get_or_insert_default();
    let class = spec.priority_class_name.clone().unwrap_or_default();
    let priority = match CLASSES.iter().find(|(name, _)| *name == class) {
        Some((_, priority)) => *priority,
        None if class.is_empty() => 0,
        None => return Err(write.forbidden(&format!("no PriorityClass with name {class} was found"))),
    };
    if let Some(given) = spec.priority.filter(|given| *given != priority) {
        return Err(write.forbidden(&format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller \
             computed {priority} from the given PriorityClass name"
        )));
    }
    spec.priority = Some(priority);
    spec.preemption_policy.get_or_insert_with(|| "PreemptLowerPriority".to_owned());
    Ok(())
}
