//! What stands in a document where nothing does: Go gives every field that was left out, and everything that is `null`,
//! its type's zero, where Rust's types want a value.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;

use super::{Field, Shape, Type};

/// The zero of a time that the type has to have; Go takes it for one that was never set.
pub const TIME: &str = "0001-01-01T00:00:00Z";

/// [`TIME`] in seconds from 1970 on.
const SECONDS: i64 = -62_135_596_800;

/// Whether the time is [`TIME`].
#[must_use]
pub fn is_zero(time: &Time) -> bool {
    time.0.as_second() == SECONDS && time.0.subsec_nanosecond() == 0
}

/// Puts in the zeros that reading a document as `ty` asks for, and says whether there were any: of the times that must be
/// there, and of what is `null` within lists and maps.
pub fn fill(value: &mut Value, ty: &Type) -> bool {
    let Value::Object(map) = value else { return false };
    let mut is_changed = false;
    for field in ty.fields().iter().filter(|field| field.is_required_time) {
        if map.get(field.name).is_none_or(Value::is_null) {
            map.insert(field.name.to_owned(), TIME.into());
            is_changed = true;
        }
    }
    for (name, value) in map {
        if let Some(field) = ty.field(name) {
            is_changed |= fill_field(value, field);
        }
    }
    is_changed
}

fn fill_field(value: &mut Value, field: &Field) -> bool {
    let child = field.child();
    match (field.shape, value) {
        (Shape::Object, value) => child.is_some_and(|child| fill(value, child)),
        (Shape::List, Value::Array(list)) => fill_each(list.iter_mut(), field),
        (Shape::Map, Value::Object(map)) => fill_each(map.values_mut(), field),
        (Shape::Scalar | Shape::Any | Shape::List | Shape::Map, _) => false,
    }
}

fn fill_each<'v>(values: impl Iterator<Item = &'v mut Value>, field: &Field) -> bool {
    let child = field.child();
    let scalar = if field.is_amounts { "0" } else { "" };
    let mut is_changed = false;
    for value in values {
        if value.is_null() {
            *value = if child.is_some() { Value::Object(serde_json::Map::new()) } else { scalar.into() };
            is_changed = true;
        }
        is_changed |= child.is_some_and(|child| fill(value, child));
    }
    is_changed
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema::of_kind;

    #[test]
    fn the_zero_of_time_is_known() {
        assert!(is_zero(&Time(TIME.parse().unwrap())));
        assert!(!is_zero(&Time("0001-01-01T00:00:01Z".parse().unwrap())));
    }

    #[test]
    fn what_is_left_out_or_null_gets_its_zero() {
        for (group, kind, given, filled) in [
            (
                "",
                "Service",
                json!({"status": {"conditions": [{"type": "A", "lastTransitionTime": null}, {"type": "B"}, null]}}),
                json!({"status": {"conditions": [
                    {"type": "A", "lastTransitionTime": TIME}, {"type": "B", "lastTransitionTime": TIME},
                    {"lastTransitionTime": TIME},
                ]}}),
            ),
            (
                "",
                "Pod",
                json!({"metadata": {"labels": {"a": null}}, "spec": {"containers": [null, {"command": ["x", null]}]}}),
                json!({"metadata": {"labels": {"a": ""}}, "spec": {"containers": [{}, {"command": ["x", ""]}]}}),
            ),
            ("", "ResourceQuota", json!({"spec": {"hard": {"cpu": null}}}), json!({"spec": {"hard": {"cpu": "0"}}})),
            (
                "events.k8s.io",
                "Event",
                json!({"series": {"count": 2}}),
                json!({"series": {"count": 2, "lastObservedTime": TIME}}),
            ),
            // What may be missing stays so,
            (
                "",
                "Pod",
                json!({"spec": null, "status": {"startTime": null}}),
                json!({"spec": null, "status": {"startTime": null}}),
            ),
            // and what is of another type is for the decoder to refuse.
            ("", "Service", json!({"status": {"conditions": 7}}), json!({"status": {"conditions": 7}})),
        ] {
            let mut value = given.clone();
            let is_changed = fill(&mut value, of_kind(group, "v1", kind).unwrap());
            assert_eq!((&value, is_changed), (&filled, given != filled), "{kind}");
        }
    }
}
