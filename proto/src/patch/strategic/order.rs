//! The order of a merged list's elements.

use std::collections::HashMap;

use serde_json::Value;

use crate::patch::PatchError;

/// What tells an element from others, as a text: its key's value for objects, itself for scalars. An object without the
/// key has none.
pub(super) fn identity(item: &Value, key: Option<&str>) -> Option<String> {
    match key {
        Some(key) => item.get(key).map(Value::to_string),
        None => Some(item.to_string()),
    }
}

/// The first position of each element, so that large lists merge in linear time.
pub(super) fn positions(list: &[Value], key: Option<&str>) -> HashMap<String, usize> {
    let mut positions = HashMap::with_capacity(list.len());
    for (at, item) in list.iter().enumerate() {
        if let Some(identity) = identity(item, key) {
            positions.entry(identity).or_insert(at);
        }
    }
    positions
}

/// A patch's list must hold its elements in the order that its `$setElementOrder` gives; deleted ones need not be in it.
pub(super) fn check(patch: &[Value], wanted: &[Value], key: Option<&str>) -> Result<(), PatchError> {
    let places = positions(wanted, key);
    let mut next = 0;
    for item in patch.iter().filter(|item| item.get("$patch").is_none()) {
        match identity(item, key).and_then(|id| places.get(&id)).copied().filter(|at| *at >= next) {
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
    let (wanted, live) = (positions(wanted, key), positions(live, key));
    let mut patch: Vec<(usize, Option<usize>, Value)> = Vec::new();
    let mut server: Vec<(usize, Value)> = Vec::new();
    for item in merged {
        let identity = identity(&item, key);
        let place = |places: &HashMap<String, usize>| identity.as_ref().and_then(|id| places.get(id)).copied();
        match place(&wanted) {
            Some(at) => patch.push((at, place(&live), item)),
            None => server.push((place(&live).unwrap_or(usize::MAX), item)),
        }
    }
    patch.sort_by_key(|(at, _, _)| *at);
    server.sort_by_key(|(at, _)| *at);
    let mut arranged = Vec::with_capacity(patch.len() + server.len());
    let mut server = server.into_iter().peekable();
    for (_, at, item) in patch {
        if let Some(at) = at {
            while let Some((_, left)) = server.next_if(|(left, _)| *left < at) {
                arranged.push(left);
            }
        }
        arranged.push(item);
    }
    arranged.extend(server.map(|(_, item)| item));
    arranged
}
