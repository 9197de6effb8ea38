//! Strategic merge patch: a merge patch that knows which lists merge by which key.
//!
//! Directives: `$patch: replace|delete|merge` in objects and list elements, `$retainKeys`, `$setElementOrder/<list>` and
//! `$deleteFromPrimitiveList/<list>`. The order of a merged list is that of the patch (or of `$setElementOrder`), with the
//! elements only the server has put between them where they stood.

mod order;

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::PatchError;
use crate::schema::{Field, Shape, Type};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const ORDER_PREFIX: &str = "$setElementOrder/";
const DELETE_PREFIX: &str = "$deleteFromPrimitiveList/";

/// Applies `patch` to `original`, an object of type `root`. Without a type, objects merge and lists are replaced.
///
/// # Errors
/// A directive or list that is malformed, or a merging list's element without its key.
pub fn apply(original: Value, patch: Value, root: Option<&Type>) -> Result<Value, PatchError> {
    match (original, patch) {
        (Value::Object(original), Value::Object(patch)) => Ok(Value::Object(merge_map(original, patch, root)?)),
        _ => Err(PatchError::Malformed("invalid JSON document".to_owned())),
    }
}

fn malformed(text: impl Into<String>) -> PatchError {
    PatchError::Malformed(text.into())
}

fn no_merge_key(element: &Value, key: &str) -> PatchError {
    PatchError::Inapplicable(format!("map: {element} does not contain declared merge key: {key}"))
}

/// What the walk knows of the value below a field.
struct Below<'a> {
    ty: Option<&'a Type>,
    merges: bool,
    replaces: bool,
    key: Option<&'a str>,
}

fn below<'a>(ty: Option<&'a Type>, name: &str) -> Below<'a> {
    match ty.and_then(|ty| ty.field(name)) {
        None => Below { ty: None, merges: false, replaces: false, key: None },
        Some(field) => Below {
            ty: child(field),
            merges: field.strategy.merge,
            replaces: field.strategy.replace,
            key: field.merge_key,
        },
    }
}

/// The type below a field; a map's values are reached by a key that is no field, so they merge as untyped objects.
fn child(field: &Field) -> Option<&'static Type> {
    if field.shape == Shape::Map { None } else { field.child() }
}

fn merge_map(
    mut original: Map<String, Value>,
    mut patch: Map<String, Value>,
    ty: Option<&Type>,
) -> Result<Map<String, Value>, PatchError> {
    if let Some(directive) = patch.remove(DIRECTIVE) {
        match directive.as_str() {
            Some("replace") => return Ok(without_directives_in_map(patch)),
            Some("delete") => return Ok(Map::new()),
            Some("merge") => {}
            _ => return Err(malformed(format!("unknown patch type: {directive} in map: {}", Value::Object(patch)))),
        }
    }
    retain_keys(&mut original, &mut patch)?;
    merge_ordered_lists(&mut original, &mut patch, ty)?;
    for (key, value) in patch {
        if let Some(list) = key.strip_prefix(DELETE_PREFIX) {
            let Value::Array(gone) = value else { return Err(malformed("invalid patch format of primitive list")) };
            if let Some(Value::Array(kept)) = original.get_mut(list) {
                remove_all(kept, &gone);
            }
            continue;
        }
        if value.is_null() {
            original.remove(&key);
            continue;
        }
        let Below { ty, merges, replaces, key: merge_key } = below(ty, &key);
        let merged = match (original.remove(&key), value) {
            (Some(Value::Object(old)), Value::Object(new)) if !replaces => Value::Object(merge_map(old, new, ty)?),
            (Some(Value::Array(old)), Value::Array(new)) if merges => {
                Value::Array(merge_list(old, new, ty, merge_key)?)
            }
            (_, new) => without_directives(new),
        };
        original.insert(key, merged);
    }
    Ok(original)
}

/// `$retainKeys` names every key that may stay; the patch itself must keep to it.
fn retain_keys(original: &mut Map<String, Value>, patch: &mut Map<String, Value>) -> Result<(), PatchError> {
    let Some(keys) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let bad = || malformed("invalid patch format of retainKeys");
    let Value::Array(keys) = keys else { return Err(bad()) };
    let keys: Vec<&str> = keys.iter().map(|key| key.as_str().ok_or_else(bad)).collect::<Result<_, _>>()?;
    let is_free = |key: &str| key.starts_with(DELETE_PREFIX) || key.starts_with(ORDER_PREFIX);
    if patch.iter().any(|(key, value)| !value.is_null() && !is_free(key) && !keys.contains(&key.as_str())) {
        return Err(bad());
    }
    original.retain(|key, _| keys.contains(&key.as_str()));
    Ok(())
}

/// Merges the lists that have a `$setElementOrder` and takes both out of the patch.
fn merge_ordered_lists(
    original: &mut Map<String, Value>,
    patch: &mut Map<String, Value>,
    ty: Option<&Type>,
) -> Result<(), PatchError> {
    let directives: Vec<String> = patch.keys().filter(|key| key.starts_with(ORDER_PREFIX)).cloned().collect();
    for directive in directives {
        let bad = || malformed("invalid patch format of setElementOrder list");
        let Some(Value::Array(wanted)) = patch.remove(&directive) else { return Err(bad()) };
        let name = directive.strip_prefix(ORDER_PREFIX).unwrap_or_default();
        let Below { ty, merges, key, .. } = below(ty, name);
        let deleted: Vec<Value> = match patch.get_mut(&format!("{DELETE_PREFIX}{name}")) {
            Some(Value::Array(deleted)) => deleted.clone(),
            _ => Vec::new(),
        };
        let new = match patch.remove(name) {
            None => None,
            Some(Value::Array(new)) => Some(new),
            // The list is removed or is none: the order has nothing to say.
            Some(other) => {
                patch.insert(name.to_owned(), other);
                continue;
            }
        };
        if let Some(new) = &new {
            order::check(new, &wanted, key)?;
        }
        let live = match original.get(name) {
            None | Some(Value::Null) => None,
            Some(Value::Array(list)) => Some(list.clone()),
            Some(_) => return Err(bad()),
        };
        let mut merged = match (live.clone(), new) {
            (None, None) => continue,
            (Some(live), None) => live,
            (None, Some(new)) => without_directives_in_list(new),
            (Some(live), Some(new)) if merges => merge_list(live, new, ty, key)?,
            (Some(_), Some(new)) => without_directives_in_list(new),
        };
        remove_all(&mut merged, &deleted);
        original.insert(name.to_owned(), Value::Array(order::arrange(merged, &wanted, &live.unwrap_or_default(), key)));
    }
    Ok(())
}

/// Takes scalars out of a list.
fn remove_all(list: &mut Vec<Value>, gone: &[Value]) {
    let gone = order::positions(gone, None);
    list.retain(|item| order::identity(item, None).is_none_or(|id| !gone.contains_key(&id)));
}

fn merge_list(
    mut original: Vec<Value>,
    patch: Vec<Value>,
    ty: Option<&Type>,
    key: Option<&str>,
) -> Result<Vec<Value>, PatchError> {
    if original.iter().chain(&patch).any(Value::is_array) {
        return Err(PatchError::Inapplicable("lists of lists are not supported".to_owned()));
    }
    let live = original.clone();
    let objects = original.iter().chain(&patch).filter(|item| item.is_object()).count();
    if objects == 0 {
        let wanted = patch.clone();
        let mut seen: HashSet<String> = HashSet::new();
        original.extend(patch);
        original.retain(|item| order::identity(item, None).is_some_and(|id| seen.insert(id)));
        return Ok(order::arrange(original, &wanted, &live, None));
    }
    if objects != original.len() + patch.len() {
        return Err(PatchError::Inapplicable("list element types are not identical".to_owned()));
    }
    let Some(key) = key else {
        let name = ty.map_or("", |ty| ty.name.as_str());
        return Err(PatchError::Inapplicable(format!("cannot merge lists without merge key for {name}")));
    };
    let mut replaced = false;
    let mut elements = Vec::new();
    let mut deleted: HashSet<String> = HashSet::new();
    let of = |element: &Value| order::identity(element, Some(key)).ok_or_else(|| no_merge_key(element, key));
    for element in patch {
        match element.get(DIRECTIVE).map(Value::as_str) {
            None => elements.push(element),
            Some(Some("delete")) => {
                deleted.insert(of(&element)?);
            }
            Some(Some("replace")) => replaced = true,
            Some(Some("merge")) => return Err(malformed("merging lists cannot yet be specified in the patch")),
            Some(_) => return Err(malformed(format!("unknown patch type in map: {element}"))),
        }
    }
    if replaced {
        return Ok(without_directives_in_list(elements));
    }
    original.retain(|item| order::identity(item, Some(key)).is_none_or(|id| !deleted.contains(&id)));
    let wanted = elements.clone();
    let mut places = order::positions(&original, Some(key));
    for element in elements {
        let place = places.entry(of(&element)?).or_insert(original.len());
        match (original.get_mut(*place), element) {
            (Some(Value::Object(slot)), Value::Object(element)) => {
                *slot = merge_map(std::mem::take(slot), element, ty)?;
            }
            (_, element) => original.push(without_directives(element)),
        }
    }
    Ok(order::arrange(original, &wanted, &live, Some(key)))
}

/// What a value that is put in whole means: directives have nothing to act on, nulls nothing to remove.
fn without_directives(value: Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(without_directives_in_map(map)),
        Value::Array(list) => Value::Array(without_directives_in_list(list)),
        scalar => scalar,
    }
}

fn without_directives_in_map(map: Map<String, Value>) -> Map<String, Value> {
    if map.get(DIRECTIVE).and_then(Value::as_str) == Some("delete") {
        return Map::new();
    }
    let is_directive = |key: &str| {
        key == DIRECTIVE || key == RETAIN_KEYS || key.starts_with(ORDER_PREFIX) || key.starts_with(DELETE_PREFIX)
    };
    map.into_iter()
        .filter(|(key, value)| !is_directive(key) && !value.is_null())
        .map(|(key, value)| (key, without_directives(value)))
        .collect()
}

fn without_directives_in_list(list: Vec<Value>) -> Vec<Value> {
    let stays = |item: &Value| !matches!(item.get(DIRECTIVE).and_then(Value::as_str), Some("delete" | "replace"));
    list.into_iter().filter(stays).map(without_directives).collect()
}

#[cfg(test)]
mod tests;
