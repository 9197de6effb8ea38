//! A pod's runtime class brings what running it costs besides its containers, and where it can run.

use std::collections::BTreeMap;

use coracle_proto::quantity::Quantity as Exact;
use k8s_openapi::{
    api::{
        core::v1::{Pod, Toleration},
        node::v1::RuntimeClass,
    },
    apimachinery::pkg::api::resource::Quantity,
};

use super::Write;
use crate::{ops::AnyObject, status_of::Result};

fn class_of(write: &Write<'_>, pod: &Pod) -> Result<Option<RuntimeClass>> {
    let Some(name) = pod.spec.as_ref().and_then(|spec| spec.runtime_class_name.as_ref()) else { return Ok(None) };
    let class = write.registry.get_typed::<RuntimeClass>("", name)?;
    let missing = || write.forbidden(&format!("pod rejected: RuntimeClass {name:?} not found"));
    class.ok_or_else(missing).map(Some)
}

type Amounts = BTreeMap<String, Quantity>;

/// Whether both are the same amounts, however they are written.
fn is_same(a: &Amounts, b: &Amounts) -> bool {
    let amount = |quantity: &Quantity| Exact::try_from(quantity).ok();
    a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| a == b || amount(a) == amount(b)))
}

const OTHER_OVERHEAD: &str = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";

pub(super) fn admit(write: &Write<'_>, object: Option<&mut dyn AnyObject>) -> Result<()> {
    if !write.creates_pod() {
        return Ok(());
    }
    let Some(pod) = object.and_then(|o| o.as_any_mut().downcast_mut::<Pod>()) else { return Ok(()) };
    let Some(class) = class_of(write, pod)? else { return Ok(()) };
    let Some(spec) = &mut pod.spec else { return Ok(()) };
    if let Some(overhead) = class.overhead {
        let fixed = overhead.pod_fixed.unwrap_or_default();
        if spec.overhead.as_ref().is_some_and(|given| !given.is_empty() && !is_same(given, &fixed)) {
            return Err(write.forbidden(OTHER_OVERHEAD));
        }
        spec.overhead = Some(fixed);
    }
    let Some(scheduling) = class.scheduling else { return Ok(()) };
    for (key, value) in scheduling.node_selector.into_iter().flatten() {
        let selector = spec.node_selector.get_or_insert_default();
        if let Some(own) = selector.get(&key).filter(|own| **own != value) {
            let why = format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; pod.spec.nodeSelector[{key}] = {own}"
            );
            return Err(write.forbidden(&why));
        }
        selector.insert(key, value);
    }
    if let Some(more) = scheduling.tolerations {
        let all = spec.tolerations.take().unwrap_or_default().into_iter().chain(more).collect();
        spec.tolerations = Some(without_the_covered(all));
    }
    Ok(())
}

/// Whether whoever has `wide` needs `narrow` no more.
fn covers(wide: &Toleration, narrow: &Toleration) -> bool {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let word = |operator: &Option<String>| operator.clone().filter(|word| !word.is_empty());
    if wide == narrow {
        return true;
    }
    let operator = word(&wide.operator);
    let takes_any_key = text(&wide.key).is_empty() && operator.as_deref() == Some("Exists");
    let is_over_before = match (wide.toleration_seconds, narrow.toleration_seconds) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some(wide), Some(narrow)) => narrow > wide,
    };
    if (wide.key != narrow.key && !takes_any_key)
        || (wide.effect != narrow.effect && !text(&wide.effect).is_empty())
        || (text(&wide.effect) == "NoExecute" && is_over_before)
    {
        return false;
    }
    match operator.as_deref() {
        Some("Exists") => true,
        None | Some("Equal") => {
            word(&narrow.operator).as_deref() == Some("Equal") && text(&narrow.value) == text(&wide.value)
        }
        Some(_) => false,
    }
}

/// The tolerations without those that another of them covers; of equal ones the first stays.
fn without_the_covered(all: Vec<Toleration>) -> Vec<Toleration> {
    let mut kept: Vec<Toleration> = Vec::new();
    for (at, toleration) in all.iter().enumerate() {
        let mut later = all.iter().skip(at + 1);
        let is_covered = kept.iter().any(|other| covers(other, toleration))
            || later.any(|other| other != toleration && covers(other, toleration));
        if !is_covered {
            kept.push(toleration.clone());
        }
    }
    kept
}

/// An overhead comes from a class and from nowhere else.
pub(super) fn check(write: &Write<'_>, object: Option<&dyn AnyObject>) -> Result<()> {
    if !write.creates_pod() {
        return Ok(());
    }
    let Some(pod) = object.and_then(|object| object.as_any().downcast_ref::<Pod>()) else { return Ok(()) };
    let given = pod.spec.as_ref().and_then(|spec| spec.overhead.as_ref());
    match class_of(write, pod)?.and_then(|class| class.overhead) {
        Some(overhead) => {
            let none = Amounts::new();
            let is_same = is_same(given.unwrap_or(&none), overhead.pod_fixed.as_ref().unwrap_or(&none));
            if is_same { Ok(()) } else { Err(write.forbidden(OTHER_OVERHEAD)) }
        }
        None if given.is_some() => {
            let why = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";
            Err(write.forbidden(why))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_toleration_that_another_covers_is_left_out() {
        let any = json!({"operator": "Exists"});
        let exists = json!({"key": "a", "operator": "Exists", "effect": "NoExecute"});
        let short = json!({"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5});
        let long = json!({"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 9});
        let equal = json!({"key": "a", "operator": "Equal", "value": "x", "effect": "NoExecute"});
        let other = json!({"key": "b", "operator": "Equal", "value": "x"});
        for (all, kept) in [
            (json!([other, exists, other]), json!([other, exists])),
            (json!([short, long]), json!([long])),
            (json!([long, exists, short]), json!([exists])),
            (json!([equal, exists]), json!([exists])),
            (json!([equal, other]), json!([equal, other])),
            (json!([equal, other, any, short]), json!([any])),
        ] {
            let read: Vec<Toleration> = serde_json::from_value(all.clone()).unwrap();
            let left: Value = serde_json::to_value(without_the_covered(read)).unwrap();
            assert_eq!(left, kept, "{all}");
        }
    }
}
