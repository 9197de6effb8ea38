//! The order of a merged list's elements.

use serde_json::Value;

use crate::patch::PatchError;

/// Whether two elements are the same one: by key for objects, by value for scalars.
fn same(a: &Value, b: &Value, key: Option<&str>) -> bool {
    match key {
        Some(key) => a.get(key).is_some_and(|value| b.get(key) == Some(value)),
        None => a == b,
    }
}

fn position(list: &[Value], item: &Value, key: Option<&str>) -> Option<usize> {
    list.iter().position(|other| same(other, item, key))
}

/// A patch's list must hold its elements in the order that its `$setElementOrder` gives; deleted ones need not be in it.
pub(super) fn check(patch: &[Value], wanted: &[Value], key: Option<&str>) -> Result<(), PatchError> {
    let mut next = 0;
    for item in patch.iter().filter(|item| item.get("$patch").is_none()) {
        match position(wanted, item, key).filter(|at| *at >= next) {
            Some(at) => next = at,
            None => {
                let (patch, wanted) = (Value::from(patch.to_vec()), Value::from(wanted.to_vec()));
                return Err(PatchError::Malformed(format!(
                    "The order in patch list:\n{patch}\n doesn't match $setElementOrder list:\n{wanted}\n"
                )));
            }
        }
    }
    Ok(())
}

/// Puts `merged` in order: what `wanted` names as it stands there; what only the server has goes between, before the first
/// wanted element that followed it in the `live` list.
pub(super) fn arrange(merged: Vec<Value>, wanted: &[Value], live: &[Value], key: Option<&str>) -> Vec<Value> {
    let mut patch: Vec<(usize, Value)> = Vec::new();
    let mut server: Vec<(usize, Value)> = Vec::new();
    for item in merged {
        match position(wanted, &item, key) {
            Some(at) => patch.push((at, item)),
            None => server.push((position(live, &item, key).unwrap_or(usize::MAX), item)),
        }
    }
    patch.sort_by_key(|(at, _)| *at);
    server.sort_by_key(|(at, _)| *at);
    let mut arranged = Vec::with_capacity(patch.len() + server.len());
    let mut server = server.into_iter().peekable();
    for (_, item) in patch {
        if let Some(at) = position(live, &item, key) {
            while let Some((_, left)) = server.next_if(|(left, _)| *left < at) {
                arranged.push(left);
            }
        }
        arranged.push(item);
    }
    arranged.extend(server.map(|(_, item)| item));
    arranged
}
