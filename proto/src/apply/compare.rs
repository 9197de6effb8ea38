//! Which fields differ between two versions of an object.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{
    element::{Element, same},
    place::{Is, ListIs, Place},
    set::Set,
};

/// The fields that differ, each in one of the three.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// There before and no more.
    pub removed: Set,
    /// There before and now, with another value.
    pub modified: Set,
    /// New.
    pub added: Set,
}

impl Comparison {
    /// Without the fields that do not count, and what is below them.
    #[must_use]
    pub fn excluding(self, fields: &Set) -> Self {
        Self {
            removed: self.removed.recursive_difference(fields),
            modified: self.modified.recursive_difference(fields),
            added: self.added.recursive_difference(fields),
        }
    }

    fn add(&mut self, element: &Element, mark: Mark, below: Self) {
        if mark.removed || !below.removed.is_empty() {
            self.removed.add(element.clone(), mark.removed, below.removed);
        }
        if mark.modified || !below.modified.is_empty() {
            self.modified.add(element.clone(), mark.modified, below.modified);
        }
        if mark.added || !below.added.is_empty() {
            self.added.add(element.clone(), mark.added, below.added);
        }
    }
}

/// What became of the place itself.
#[derive(Clone, Copy, Default)]
struct Mark {
    removed: bool,
    modified: bool,
    added: bool,
}

/// Compares two versions of an object; `None` where there is none.
#[must_use]
pub fn compare<'a>(place: impl Place<'a>, old: Option<&Value>, new: Option<&Value>) -> Comparison {
    let mut found = Comparison::default();
    visit(place, old, new, &mut found);
    found
}

/// Which way a place is looked at, which for [`Is::Any`] depends on the value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum View {
    Leaf,
    List(ListIs),
    Map,
}

pub(super) fn view<'a>(place: impl Place<'a>, value: Option<&Value>) -> View {
    match (place.is(), value) {
        (Is::Scalar(_), _) | (Is::List(ListIs::Atomic) | Is::Map { atomic: true }, _) => View::Leaf,
        (Is::List(list), _) => View::List(list),
        (Is::Map { .. }, _) | (Is::Any, None | Some(Value::Null | Value::Object(_))) => View::Map,
        (Is::Any, Some(_)) => View::Leaf,
    }
}

fn leaf(old: Option<&Value>, new: Option<&Value>) -> Mark {
    match (old, new) {
        (None, _) => Mark { added: true, ..Mark::default() },
        (_, None) => Mark { removed: true, ..Mark::default() },
        (Some(old), Some(new)) => Mark { modified: !same(old, new), ..Mark::default() },
    }
}

fn visit<'a>(place: impl Place<'a>, old: Option<&Value>, new: Option<&Value>, found: &mut Comparison) -> Mark {
    let (old_view, new_view) = (view(place, old), view(place, new));
    match (old, new) {
        (None, None) => Mark::default(),
        (_, None) => visit_as(place, old_view, old, new, found),
        (None, _) => visit_as(place, new_view, old, new, found),
        (Some(_), Some(_)) if old_view == new_view => visit_as(place, new_view, old, new, found),
        (Some(_), Some(_)) => {
            // It was one thing and is another now: what it was is gone.
            let was = visit_as(place, old_view, old, new, found);
            let is = visit_as(place, new_view, old, new, found);
            Mark {
                removed: was.removed || is.removed,
                modified: was.modified || is.modified,
                added: was.added || is.added,
            }
        }
    }
}

fn visit_as<'a>(
    place: impl Place<'a>,
    view: View,
    old: Option<&Value>,
    new: Option<&Value>,
    found: &mut Comparison,
) -> Mark {
    match view {
        View::Leaf => return leaf(old, new),
        View::Map => {
            let (old_fields, new_fields) = (old.and_then(Value::as_object), new.and_then(Value::as_object));
            if old_fields.is_none_or(Map::is_empty) && new_fields.is_none_or(Map::is_empty) {
                return leaf(old, new);
            }
            visit_map(place, old_fields, new_fields, found);
        }
        View::List(list) => {
            let (old_items, new_items) = (old.and_then(Value::as_array), new.and_then(Value::as_array));
            if old_items.is_none_or(Vec::is_empty) && new_items.is_none_or(Vec::is_empty) {
                return leaf(old, new);
            }
            visit_list(place, list, old_items, new_items, found);
        }
    }
    Mark { added: old.is_none(), removed: old.is_some() && new.is_none(), modified: false }
}

fn visit_map<'a>(
    place: impl Place<'a>,
    old: Option<&Map<String, Value>>,
    new: Option<&Map<String, Value>>,
    found: &mut Comparison,
) {
    let one = |name: &String, was: Option<&Value>, is: Option<&Value>, found: &mut Comparison| {
        let (known, inner) = match place.field(name) {
            Some((known, inner)) => (known, inner),
            None => match place.rest() {
                Some(inner) => (None, inner),
                None => return,
            },
        };
        // A field that is never absent has nothing to be added to or removed from.
        let always = if known.is_some() && was.is_some() != is.is_some() { place.always(name) } else { None };
        let was = was.or_else(|| old.and(always));
        let is = is.or_else(|| new.and(always));
        if let (Some(was), Some(is)) = (was, is)
            && std::ptr::eq(was, is)
        {
            return;
        }
        let mut below = Comparison::default();
        let mark = visit(inner, was, is, &mut below);
        let element = known.map_or_else(|| Element::field(name), |name| Element::Field(name.into()));
        found.add(&element, mark, below);
    };
    for (name, is) in new.into_iter().flatten() {
        one(name, old.and_then(|old| old.get(name)), Some(is), found);
    }
    for (name, was) in old.into_iter().flatten() {
        if new.is_none_or(|new| !new.contains_key(name)) {
            one(name, Some(was), None, found);
        }
    }
}

fn visit_list<'a>(
    place: impl Place<'a>,
    list: ListIs,
    old: Option<&Vec<Value>>,
    new: Option<&Vec<Value>>,
    found: &mut Comparison,
) {
    let Some(inner) = place.element() else { return };
    // Each element with its values before and now: mostly one each, more when keys do not tell elements apart.
    let mut items: BTreeMap<Element, (Vec<&Value>, Vec<&Value>)> = BTreeMap::new();
    for (side, values) in [(0, old), (1, new)] {
        for value in values.into_iter().flatten() {
            // What has no key cannot be owned.
            let Ok(element) = Element::of_item(place, list == ListIs::Map, value) else { continue };
            let (was, is) = items.entry(element).or_default();
            if side == 0 { was.push(value) } else { is.push(value) }
        }
    }
    for (element, (was, is)) in &items {
        let mut below = Comparison::default();
        let mut mark = match (was.as_slice(), is.as_slice()) {
            ([] | [_], [] | [_]) => visit(inner, was.first().copied(), is.first().copied(), &mut below),
            ([_, _, ..], [_, _, ..]) => {
                let equal = was.len() == is.len() && was.iter().zip(is).all(|(a, b)| same(a, b));
                Mark { modified: !equal, ..Mark::default() }
            }
            (_, [only]) => visit(inner, None, Some(*only), &mut below),
            ([only], _) => visit(inner, Some(*only), None, &mut below),
            _ => Mark::default(),
        };
        // Elements that share a key are owned as one.
        mark.removed |= was.len() > 1 && is.len() < 2;
        mark.added |= is.len() > 1 && was.len() < 2;
        found.add(element, mark, below);
    }
}
