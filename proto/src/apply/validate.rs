//! Whether an object fits its kind's schema, and which fields it mentions.

use std::{collections::BTreeSet, fmt};

use serde_json::Value;

use super::{
    element::Element,
    place::{Is, ListIs, Place, Scalar},
    set::Set,
};
use crate::json::type_name;

/// As many problems as are told: a hostile object must not fill the answer.
const MAX_PROBLEMS: usize = 100;

/// Whether a list may hold two elements that its keys do not tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duplicates {
    /// It may: what is stored already may have such.
    Allowed,
    /// It may not: what is applied must be unambiguous.
    Refused,
}

/// Everything that does not fit, with its path, in Kubernetes' words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems(Vec<(String, String)>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one = |f: &mut fmt::Formatter<'_>, (path, why): &(String, String)| {
            if path.is_empty() { f.write_str(why) } else { write!(f, "{path}: {why}") }
        };
        if let [problem] = self.0.as_slice() {
            return one(f, problem);
        }
        f.write_str("errors:")?;
        for problem in &self.0 {
            f.write_str("\n  ")?;
            one(f, problem)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Where the walk is: a list on the stack, so that a path costs nothing until it is printed.
enum At<'a> {
    Root,
    Element(&'a At<'a>, &'a dyn fmt::Display),
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Element(parent, element) => write!(f, "{parent}{element}"),
        }
    }
}

/// Checks that the value fits: no undeclared fields, the right types, lists whose elements can be told apart.
///
/// # Errors
/// Everything that does not.
pub fn validate<'a>(place: impl Place<'a>, value: &Value, duplicates: Duplicates) -> Result<(), Problems> {
    let mut problems = Problems::default();
    check(place, value, duplicates, &At::Root, &mut problems);
    if problems.0.is_empty() { Ok(()) } else { Err(problems) }
}

/// A value as Go prints the pointer that holds it.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => format!("&{{{text}}}"),
        other => format!("&{{{other}}}"),
    }
}

fn scalar_problem(scalar: Scalar, value: &Value) -> Option<String> {
    match (scalar, value) {
        (_, Value::Null)
        | (Scalar::Leaf, _)
        | (Scalar::String | Scalar::Untyped, Value::String(_))
        | (Scalar::Number | Scalar::Untyped, Value::Number(_))
        | (Scalar::Boolean | Scalar::Untyped, Value::Bool(_)) => None,
        (Scalar::Number, _) => Some(format!("expected numeric (int or float), got {}", type_name(value))),
        (Scalar::String, _) => Some(format!("expected string, got {}", shown(value))),
        (Scalar::Boolean, _) => Some(format!("expected boolean, got {}", shown(value))),
        (Scalar::Untyped, _) => Some(format!("expected any scalar, got {}", shown(value))),
    }
}

fn check<'a>(place: impl Place<'a>, value: &Value, duplicates: Duplicates, at: &At<'_>, problems: &mut Problems) {
    if problems.0.len() >= MAX_PROBLEMS {
        return;
    }
    let mut tell = |why: String| problems.0.push((at.to_string(), why));
    match (place.is(), value) {
        (_, Value::Null) => {}
        (Is::Scalar(scalar), value) => {
            if let Some(why) = scalar_problem(scalar, value) {
                tell(why);
            }
        }
        (Is::List(list), Value::Array(items)) => check_list(place, list, items, duplicates, at, problems),
        (Is::List(_), other) => tell(format!("expected list, got {}", shown(other))),
        (Is::Map { .. } | Is::Any, Value::Object(fields)) => {
            for (name, value) in fields {
                let element = Element::field(name);
                let at = At::Element(at, &element);
                match place.field(name).map(|(_, inner)| inner).or_else(|| place.rest()) {
                    Some(inner) => check(inner, value, duplicates, &at, problems),
                    None => {
                        problems.0.push((at.to_string(), "field not declared in schema".to_owned()));
                        break;
                    }
                }
            }
        }
        (Is::Map { .. }, other) => tell(format!("expected map, got {}", shown(other))),
        (Is::Any, _) => {}
    }
}

fn check_list<'a>(
    place: impl Place<'a>,
    list: ListIs,
    items: &[Value],
    duplicates: Duplicates,
    at: &At<'_>,
    problems: &mut Problems,
) {
    let mut seen = BTreeSet::new();
    for (index, item) in items.iter().enumerate() {
        let element = match list {
            ListIs::Atomic => Element::Index(i64::try_from(index).unwrap_or(i64::MAX)),
            ListIs::Set | ListIs::Map => match Element::of_item(place, list == ListIs::Map, item) {
                Ok(element) => element,
                Err(why) => {
                    problems.0.push((at.to_string(), format!("element {index}: {why}")));
                    return;
                }
            },
        };
        if let Some(inner) = place.element() {
            check(inner, item, duplicates, &At::Element(at, &element), problems);
        }
        if list != ListIs::Atomic && duplicates == Duplicates::Refused && !seen.insert(element.clone()) {
            problems.0.push((at.to_string(), format!("duplicate entries for key {element}")));
        }
    }
}

/// The fields a value mentions: its leaves, the elements of its lists, the keys of its maps.
#[must_use]
pub fn field_set<'a>(place: impl Place<'a>, value: &Value) -> Set {
    below(place, value).below
}

/// What is mentioned at and below a place.
struct Mentioned {
    itself: bool,
    below: Set,
}

fn below<'a>(place: impl Place<'a>, value: &Value) -> Mentioned {
    let leaf = || Mentioned { itself: true, below: Set::default() };
    let nothing = || Mentioned { itself: false, below: Set::default() };
    match (place.is(), value) {
        (Is::Scalar(_), _)
        | (Is::List(ListIs::Atomic) | Is::Map { atomic: true }, _)
        | (Is::Any, Value::Array(_) | Value::String(_) | Value::Number(_) | Value::Bool(_)) => leaf(),
        (Is::Map { .. } | Is::Any, Value::Object(fields)) => {
            let mut set = Set::default();
            for (name, value) in fields {
                let declared = place.field(name);
                let is_declared = declared.is_some();
                let (known, inner) = match declared {
                    Some((known, inner)) => (known, Some(inner)),
                    None => (None, place.rest()),
                };
                let Some(inner) = inner else { continue };
                let element = known.map_or_else(|| Element::field(name), |name| Element::Field(name.into()));
                let found = below(inner, value);
                let is_nothing = value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty);
                set.add(element, found.itself || is_nothing || !is_declared, found.below);
            }
            Mentioned { itself: false, below: set }
        }
        (Is::List(list), Value::Array(items)) => {
            let mut set = Set::default();
            let is_map = list == ListIs::Map;
            let elements: Vec<_> = items.iter().filter_map(|item| Element::of_item(place, is_map, item).ok()).collect();
            let mut seen = BTreeSet::new();
            let twice: BTreeSet<&Element> = elements.iter().filter(|element| !seen.insert(*element)).collect();
            for item in items {
                let Ok(element) = Element::of_item(place, is_map, item) else { continue };
                let inner = match place.element() {
                    Some(inner) if !twice.contains(&element) => below(inner, item).below,
                    _ => Set::default(),
                };
                set.add(element, true, inner);
            }
            Mentioned { itself: false, below: set }
        }
        (Is::Map { .. } | Is::List(_) | Is::Any, _) => nothing(),
    }
}
