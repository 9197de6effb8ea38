//! A pod's priority is worked out from its class; at most one class is for pods that name none.

use std::sync::Arc;

use coracle_store::{Entry, Range};
use k8s_openapi::api::{core::v1::Pod, scheduling::v1::PriorityClass};
use memchr::memmem;

use super::{Operation, Write};
use crate::{
    ops::AnyObject,
    status_of::{self, Result},
    stored,
};

const PREEMPTS: &str = "PreemptLowerPriority";

/// What a class makes of a pod.
struct Rank {
    class: Option<String>,
    value: i32,
    policy: String,
}

impl From<PriorityClass> for Rank {
    fn from(class: PriorityClass) -> Self {
        Self {
            class: class.metadata.name,
            value: class.value.unwrap_or(0),
            policy: class.preemption_policy.unwrap_or_else(|| PREEMPTS.to_owned()),
        }
    }
}

/// The class of pods that name none: there should be one at most, and of several it is the lowest.
///
/// Every new pod asks, and mostly there is none, so that only what looks like it is decoded.
fn default_class(write: &Write<'_>) -> Result<Option<PriorityClass>> {
    const MARK: &[u8] = br#""globalDefault":true"#;
    let range = Range::prefix(stored::prefix("priorityclasses", ""));
    let found = write.registry.store().range(&range).map_err(|error| status_of::store(&error))?;
    let marked = found.entries.iter().filter(|entry| memmem::find(&entry.value, MARK).is_some());
    let decode = |entry: &Arc<Entry>| serde_json::from_slice::<PriorityClass>(&entry.value);
    let classes: Vec<PriorityClass> = marked
        .map(decode)
        .collect::<Result<_, _>>()
        .map_err(|error| status_of::broken("a stored object cannot be read", &error))?;
    Ok(classes.into_iter().filter(|class| class.global_default == Some(true)).min_by_key(|class| class.value))
}

/// What the class that a pod names makes of it, or the one for those that name none.
fn rank(write: &Write<'_>, name: &str) -> Result<Rank> {
    if name.is_empty() {
        let none = Rank { class: None, value: 0, policy: PREEMPTS.to_owned() };
        return Ok(default_class(write)?.map_or(none, Rank::from));
    }
    let class = write.registry.get_typed::<PriorityClass>("", name)?;
    let missing = || write.forbidden(&format!("no PriorityClass with name {name} was found"));
    class.map(Rank::from).ok_or_else(missing)
}

pub(super) fn admit(write: &Write<'_>, object: Option<&mut dyn AnyObject>) -> Result<()> {
    let Some(pod) = object.and_then(|o| o.as_any_mut().downcast_mut::<Pod>()) else { return Ok(()) };
    if !write.subresource.is_empty() {
        return Ok(());
    }
    let spec = pod.spec.get_or_insert_default();
    let old = write.old.and_then(|old| old.as_any().downcast_ref::<Pod>()?.spec.as_ref());
    match (write.operation, old) {
        (Operation::Update, Some(old)) => {
            // Clients of before priorities leave them out.
            spec.priority = spec.priority.or(old.priority);
            spec.preemption_policy = spec.preemption_policy.take().or_else(|| old.preemption_policy.clone());
            return Ok(());
        }
        (Operation::Create, _) => {}
        (Operation::Update | Operation::Delete | Operation::Connect, _) => return Ok(()),
    }
    let rank = rank(write, spec.priority_class_name.as_deref().unwrap_or_default())?;
    spec.priority_class_name = rank.class;
    if let Some(given) = spec.priority.filter(|given| *given != rank.value) {
        return Err(write.forbidden(&format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller \
             computed {} from the given PriorityClass name",
            rank.value
        )));
    }
    spec.priority = Some(rank.value);
    if let Some(given) = spec.preemption_policy.as_ref().filter(|given| **given != rank.policy) {
        return Err(write.forbidden(&format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission \
             controller computed {} from the given PriorityClass name",
            rank.policy
        )));
    }
    spec.preemption_policy = Some(rank.policy);
    Ok(())
}

/// Only one class may be for pods that name none.
pub(super) fn check(write: &Write<'_>, object: Option<&dyn AnyObject>) -> Result<()> {
    let Some(class) = object.and_then(|object| object.as_any().downcast_ref::<PriorityClass>()) else { return Ok(()) };
    if class.global_default != Some(true) {
        return Ok(());
    }
    let other = default_class(write)?.and_then(|class| class.metadata.name);
    match other.filter(|other| write.operation == Operation::Create || other != write.name) {
        Some(other) => {
            let why = format!("PriorityClass {other} is already marked as default. Only one default can exist");
            Err(write.forbidden(&why))
        }
        None => Ok(()),
    }
}
