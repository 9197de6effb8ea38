//! What is written of a status: the difference to the one there is.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use serde_json::{Value, json};

use super::{OWNED, PASSING};

/// The strategic merge patch that takes the API server's status of `pod` to `new`; `None` when it is there already.
///
/// It names the uid of the object with the status, so that a pod of the same name that came after is refused (409), and only
/// conditions the node owns, so that others' are kept.
pub(crate) fn patch(pod: &Pod, object: &str, new: &PodStatus) -> Option<Value> {
    let old = serde_json::to_value(pod.status.clone().unwrap_or_default()).ok()?;
    let mut wanted = serde_json::to_value(new).ok()?;
    let wanted = wanted.as_object_mut()?;
    let empty = serde_json::Map::new();
    let old = old.as_object().unwrap_or(&empty);
    let mut fields: BTreeMap<String, Value> = BTreeMap::new();
    for key in ["phase", "reason", "message", "hostIP", "podIP", "startTime", "qosClass", "observedGeneration"] {
        let value = wanted.remove(key).unwrap_or(Value::Null);
        if old.get(key).unwrap_or(&Value::Null) != &value {
            fields.insert(key.to_owned(), value);
        }
    }
    for key in ["hostIPs", "podIPs"] {
        let value = wanted.remove(key).unwrap_or_else(|| json!([]));
        if old.get(key).unwrap_or(&json!([])) != &value {
            // A list with a merge key: without the directive an old address would stay.
            let mut items = vec![json!({"$patch": "replace"})];
            items.extend(value.as_array().into_iter().flatten().cloned());
            fields.insert(key.to_owned(), Value::Array(items));
        }
    }
    for key in ["allocatedResources", "resources"] {
        let value = wanted.remove(key).unwrap_or_else(|| json!({}));
        let before = old.get(key).cloned().unwrap_or_else(|| json!({}));
        if before != value {
            // What is not in the amounts any more must be taken away by name.
            fields.insert(key.to_owned(), with_nulls(&before, value));
        }
    }
    for key in ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"] {
        if let Some(value) = wanted.remove(key)
            && old.get(key) != Some(&value)
        {
            fields.insert(key.to_owned(), value);
        }
    }
    let before = old.get("conditions").and_then(Value::as_array);
    let mut changed = Vec::new();
    for condition in wanted.get("conditions").and_then(Value::as_array).into_iter().flatten() {
        let type_ = condition.get("type").and_then(Value::as_str).unwrap_or_default();
        let same = before.into_iter().flatten().any(|c| same_condition(c, condition));
        let ours = OWNED.contains(&type_) || PASSING.contains(&type_) || type_ == "DisruptionTarget";
        if ours && !same {
            let mut condition = condition.clone();
            if let Some(map) = condition.as_object_mut() {
                // What no longer holds must be taken away by name.
                for key in ["reason", "message"] {
                    map.entry(key).or_insert(Value::Null);
                }
            }
            changed.push(condition);
        }
    }
    let now: Vec<&str> =
        new.conditions.iter().flatten().map(|c| c.type_.as_str()).filter(|t| PASSING.contains(t)).collect();
    for condition in before.into_iter().flatten() {
        let type_ = condition.get("type").and_then(Value::as_str).unwrap_or_default();
        if PASSING.contains(&type_) && !now.contains(&type_) {
            changed.push(json!({"$patch": "delete", "type": type_}));
        }
    }
    if !changed.is_empty() {
        fields.insert("conditions".into(), Value::Array(changed));
    }
    if fields.is_empty() {
        return None;
    }
    Some(json!({"metadata": {"uid": object}, "status": fields}))
}

/// An object as a patch of another one: what only that one has is null.
fn with_nulls(before: &Value, mut after: Value) -> Value {
    if let (Value::Object(before), Value::Object(after)) = (before, &mut after) {
        for (name, old) in before {
            let new = after.remove(name).map_or(Value::Null, |new| with_nulls(old, new));
            after.insert(name.clone(), new);
        }
    }
    after
}

fn same_condition(a: &Value, b: &Value) -> bool {
    ["type", "status", "reason", "message", "lastTransitionTime", "observedGeneration"]
        .iter()
        .all(|k| a.get(k).filter(|v| !v.is_null()) == b.get(k).filter(|v| !v.is_null()))
}
