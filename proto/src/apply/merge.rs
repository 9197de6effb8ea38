//! What becomes of an object when a configuration is laid over it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::{
    compare::{View, view},
    element::Element,
    place::{ListIs, Place},
};

/// Lays `over` on `base`: what it mentions has its values, all else stays. `None` when nothing is left to say.
///
/// Lists keep the order of `base` where `over` says nothing about it, else that of `over`.
///
/// # Errors
/// Elements of lists that no key tells apart, or that stand in `over` twice; in Kubernetes' words.
pub fn merge<'a>(place: impl Place<'a>, base: Option<&Value>, over: Option<&Value>) -> Result<Option<Value>, String> {
    let view = view(place, over.or(base));
    let leaf = || Ok(over.or(base).cloned());
    match view {
        View::Leaf => leaf(),
        View::Map => {
            let (below, above) = (base.and_then(Value::as_object), over.and_then(Value::as_object));
            if below.is_none_or(Map::is_empty) && above.is_none_or(Map::is_empty) {
                return leaf();
            }
            let merged = merge_maps(place, below, above)?;
            Ok((!merged.is_empty()).then_some(Value::Object(merged)))
        }
        View::List(list) => {
            let (below, above) = (base.and_then(Value::as_array), over.and_then(Value::as_array));
            if below.is_none_or(Vec::is_empty) && above.is_none_or(Vec::is_empty) {
                return leaf();
            }
            let empty = Vec::new();
            let merged = merge_lists(place, list, below.unwrap_or(&empty), above.unwrap_or(&empty))?;
            Ok((!merged.is_empty()).then_some(Value::Array(merged)))
        }
    }
}

fn merge_maps<'a>(
    place: impl Place<'a>,
    base: Option<&Map<String, Value>>,
    over: Option<&Map<String, Value>>,
) -> Result<Map<String, Value>, String> {
    let mut merged = base.cloned().unwrap_or_default();
    for (name, value) in over.into_iter().flatten() {
        let Some(inner) = place.field(name).map(|(_, inner)| inner).or_else(|| place.rest()) else { continue };
        let base = base.and_then(|base| base.get(name));
        match merge(inner, base, Some(value)).map_err(|why| format!(".{name}{}{why}", separator(&why)))? {
            Some(value) => merged.insert(name.clone(), value),
            None => merged.remove(name),
        };
    }
    Ok(merged)
}

/// Between a path and what is wrong there stands a colon; between two steps of a path nothing.
fn separator(why: &str) -> &'static str {
    if why.starts_with(['.', '[']) { "" } else { ": " }
}

fn elements<'a>(place: impl Place<'a>, list: ListIs, items: &[Value]) -> Result<Vec<Element>, String> {
    let element = |(index, item)| {
        Element::of_item(place, list == ListIs::Map, item).map_err(|why| format!("element {index}: {why}"))
    };
    items.iter().enumerate().map(element).collect()
}

fn merge_lists<'a>(place: impl Place<'a>, list: ListIs, base: &[Value], over: &[Value]) -> Result<Vec<Value>, String> {
    let (base_elements, over_elements) = (elements(place, list, base)?, elements(place, list, over)?);
    let mut over_items: BTreeMap<&Element, &Value> = BTreeMap::new();
    for (element, item) in over_elements.iter().zip(over) {
        if over_items.insert(element, item).is_some() {
            return Err(format!("duplicate entries for key {element}"));
        }
    }
    // Of elements that stand in the base twice none can be merged with.
    let mut base_items: BTreeMap<&Element, Option<&Value>> = BTreeMap::new();
    for (element, item) in base_elements.iter().zip(base) {
        base_items.entry(element).and_modify(|known| *known = None).or_insert(Some(item));
    }
    let Some(inner) = place.element() else { return Ok(base.to_vec()) };
    let one = |element: &Element, base: Option<&Value>, over: Option<&Value>| {
        merge(inner, base, over).map_err(|why| format!("{element}{}{why}", separator(&why)))
    };
    let mut shared = over_elements.iter().filter(|element| base_items.contains_key(element)).peekable();
    let mut merged = Vec::with_capacity(base.len().max(over.len()));
    let mut done: BTreeSet<&Element> = BTreeSet::new();
    let (mut left, mut right) = (base_elements.iter().zip(base).peekable(), over_elements.iter().zip(over).peekable());
    loop {
        if let (Some((element, _)), Some((wanted, _))) = (left.peek(), right.peek()) {
            let (element, wanted) = (*element, *wanted);
            if element == wanted {
                let over = over_items.get(element).copied();
                merged.extend(one(element, base_items.get(element).copied().flatten(), over)?);
                done.insert(element);
                left.next();
                right.next();
                shared.next();
                continue;
            }
            if over_items.contains_key(element) && shared.peek().is_some_and(|next| *next != element) {
                // It is in both, but its turn has not come: the order is that of the configuration.
                left.next();
                continue;
            }
        }
        if let Some((element, item)) = left.peek().copied() {
            if !over_items.contains_key(element) {
                merged.extend(one(element, Some(item), None)?);
                left.next();
                continue;
            }
            if done.contains(element) {
                left.next();
            }
        }
        match right.next() {
            Some((element, item)) => {
                done.insert(element);
                merged.extend(one(element, base_items.get(element).copied().flatten(), Some(item))?);
                if shared.peek().is_some_and(|next| *next == element) {
                    shared.next();
                }
            }
            None if left.peek().is_none() => return Ok(merged),
            None => {
                // Only elements that the configuration has too are left, and those are done.
                left.next();
            }
        }
    }
}
