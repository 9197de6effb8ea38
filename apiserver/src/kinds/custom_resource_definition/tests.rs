//! What is filled in, what may not change, what a row tells.

use serde_json::json;

use super::CustomResourceDefinitions;
use crate::kinds::testing::{created, refusals, row};

fn base() -> serde_json::Value {
    json!({
        "metadata": {"name": "foos.example.com", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": "foos", "kind": "Foo"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}],
        },
    })
}

#[test]
fn names_and_conversion_are_filled_in() {
    let object = created(&CustomResourceDefinitions, &base());
    assert_eq!(object.spec.names.singular.as_deref(), Some("foo"));
    assert_eq!(object.spec.names.list_kind.as_deref(), Some("FooList"));
    assert_eq!(object.spec.conversion.unwrap().strategy, "None");
    assert_eq!(object.status.unwrap().stored_versions.unwrap(), ["v1"]);
}

#[test]
fn what_decides_where_objects_are_cannot_change() {
    let text = refusals(
        &CustomResourceDefinitions,
        &base(),
        &[json!({"spec": {"group": "example.org"}}), json!({"spec": {"names": {"plural": "bars"}}})],
    );
    assert!(text.contains("spec.group: Invalid value: \"example.org\": field is immutable"), "{text}");
    assert!(text.contains("spec.names.plural: Invalid value: \"bars\": field is immutable"), "{text}");
}

#[test]
fn a_row_tells_since_when_it_is_there() {
    assert_eq!(row(&CustomResourceDefinitions, &base()), "foos.example.com | 2026-01-01T00:00:00Z");
}
