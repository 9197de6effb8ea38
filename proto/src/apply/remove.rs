//! Taking fields out of an object.

use serde_json::{Map, Value};

use super::{
    compare::{View, view},
    element::Element,
    place::{ListIs, Place},
    set::Set,
};

/// The value without the fields of the set; lists and maps that lose all they had stay, empty.
///
/// What is owned as a whole is not looked into: it goes when it is a member itself.
#[must_use]
pub fn remove<'a>(place: impl Place<'a>, value: &Value, fields: &Set) -> Value {
    if fields.is_empty() {
        return value.clone();
    }
    match (view(place, Some(value)), value) {
        (View::Map, Value::Object(map)) => Value::Object(remove_from_map(place, map, fields)),
        (View::List(list), Value::Array(items)) => Value::Array(remove_from_list(place, list, items, fields)),
        _ => value.clone(),
    }
}

fn remove_from_map<'a>(place: impl Place<'a>, map: &Map<String, Value>, fields: &Set) -> Map<String, Value> {
    let mut left = Map::new();
    for (name, value) in map {
        let (is_member, below) = fields.at(&Element::field(name));
        if is_member {
            continue;
        }
        let inner = place.field(name).map(|(_, inner)| inner).or_else(|| place.rest());
        let value = match (below, inner) {
            (Some(below), Some(inner)) => remove(inner, value, below),
            _ => value.clone(),
        };
        left.insert(name.clone(), value);
    }
    left
}

fn remove_from_list<'a>(place: impl Place<'a>, list: ListIs, items: &[Value], fields: &Set) -> Vec<Value> {
    let mut left = Vec::with_capacity(items.len());
    for item in items {
        let Ok(element) = Element::of_item(place, list == ListIs::Map, item) else {
            left.push(item.clone());
            continue;
        };
        let (is_member, below) = fields.at(&element);
        if is_member {
            continue;
        }
        left.push(match (below, place.element()) {
            (Some(below), Some(inner)) => remove(inner, item, below),
            _ => item.clone(),
        });
    }
    left
}
