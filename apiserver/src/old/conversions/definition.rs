//! `apiextensions.k8s.io/v1beta1`: definitions as they were before schemas had to be structural.
//!
//! What was said once for all versions is said in each today, and once again on the way out where all say the same. A
//! definition without a schema gets one that keeps everything; one that did not say `preserveUnknownFields: false` keeps
//! unknown fields in every object of its schema, as it did then.

use serde_json::{Map, Value, json};

use super::{Object, fill, inner, inner_or_new, is_unset, rename};

/// What is said of all versions, and what the same is called in one.
const SHARED: &[(&str, &str)] = &[
    ("validation", "schema"),
    ("subresources", "subresources"),
    ("additionalPrinterColumns", "additionalPrinterColumns"),
    ("selectableFields", "selectableFields"),
];

const KEEPS: &str = "x-kubernetes-preserve-unknown-fields";

fn versions(spec: &mut Object) -> impl Iterator<Item = &mut Object> {
    let all = spec.get_mut("versions").and_then(Value::as_array_mut);
    all.into_iter().flatten().filter_map(Value::as_object_mut)
}

/// What `v1beta1` has by default.
pub(super) fn defaults(object: &mut Object) {
    if let Some(spec) = inner_or_new(object, "spec") {
        fill(spec, "scope", "Namespaced".into());
    }
}

/// From `v1beta1`. What is said of all versions stays where it is when none are named, for decoding to complain of.
pub(super) fn to_modern(object: &mut Object) {
    let Some(spec) = inner(object, "spec") else { return };
    let keeps = spec.remove("preserveUnknownFields") != Some(Value::Bool(false));
    let version = spec.remove("version");
    if let (Some(name), true) = (version, spec.get("versions").and_then(Value::as_array).is_none_or(Vec::is_empty)) {
        spec.insert("versions".to_owned(), json!([{"name": name, "served": true, "storage": true}]));
    }
    let names_versions = versions(spec).next().is_some();
    for (whole, each) in SHARED.iter().filter(|_| names_versions) {
        let Some(value) = spec.remove(*whole).filter(|value| !value.is_null()) else { continue };
        versions(spec).for_each(|version| drop(version.insert((*each).to_owned(), value.clone())));
    }
    for version in versions(spec) {
        rename_columns(version, "JSONPath", "jsonPath");
        if let Some(schema) = inner_or_new(version, "schema").and_then(|schema| inner_or_new(schema, "openAPIV3Schema"))
        {
            let is_empty = schema.is_empty();
            fill(schema, "type", "object".into());
            if keeps || is_empty {
                keep_unknown(schema);
            }
        }
    }
    let Some(conversion) = inner(spec, "conversion") else { return };
    if conversion.get("strategy").and_then(Value::as_str) == Some("Webhook") {
        fill(conversion, "conversionReviewVersions", json!(["v1beta1"]));
    }
    let parts = [("webhookClientConfig", "clientConfig"), ("conversionReviewVersions", "conversionReviewVersions")];
    let webhook: Map<String, Value> =
        parts.into_iter().filter_map(|(old, new)| Some((new.to_owned(), conversion.remove(old)?))).collect();
    if webhook.contains_key("clientConfig") {
        conversion.insert("webhook".to_owned(), webhook.into());
    }
}

/// Whether a schema is of objects that prune what they do not know.
fn prunes(schema: &Object) -> bool {
    schema.get("type").and_then(Value::as_str) == Some("object") && is_unset(schema, "additionalProperties")
}

fn below(schema: &mut Object) -> impl Iterator<Item = &mut Object> {
    let (mut one, mut many) = (Vec::new(), Vec::new());
    for (name, value) in schema.iter_mut() {
        match (name.as_str(), value) {
            ("items" | "additionalProperties", Value::Object(of)) => one.push(of),
            ("properties", Value::Object(all)) => many.push(all),
            _ => {}
        }
    }
    one.into_iter().chain(many.into_iter().flat_map(|all| all.values_mut().filter_map(Value::as_object_mut)))
}

/// Marks every object of a schema as one that keeps what it does not know.
fn keep_unknown(schema: &mut Object) {
    if prunes(schema) {
        schema.insert(KEEPS.to_owned(), true.into());
    }
    below(schema).for_each(keep_unknown);
}

/// Whether [`keep_unknown`] would change nothing.
fn keeps_unknown(schema: &mut Object) -> bool {
    (!prunes(schema) || schema.get(KEEPS) == Some(&Value::Bool(true))) && below(schema).all(keeps_unknown)
}

fn rename_columns(version: &mut Object, from: &str, to: &str) {
    let columns = version.get_mut("additionalPrinterColumns").and_then(Value::as_array_mut);
    for column in columns.into_iter().flatten().filter_map(Value::as_object_mut) {
        rename(column, from, to);
    }
}

/// Into `v1beta1`.
pub(super) fn to_old(object: &mut Object) {
    let Some(spec) = inner(object, "spec") else { return };
    let mut keeps = true;
    for version in versions(spec) {
        rename_columns(version, "jsonPath", "JSONPath");
        let schema = inner(version, "schema").and_then(|schema| inner(schema, "openAPIV3Schema"));
        keeps &= schema.is_none_or(keeps_unknown);
    }
    spec.insert("preserveUnknownFields".to_owned(), keeps.into());
    for (whole, each) in SHARED {
        let values: Vec<Option<Value>> = versions(spec).map(|version| version.get(*each).cloned()).collect();
        let Some(Some(first)) = values.first().cloned() else { continue };
        if values.iter().all(|value| value.as_ref() == Some(&first)) {
            versions(spec).for_each(|version| drop(version.remove(*each)));
            spec.insert((*whole).to_owned(), first);
        }
    }
    let name = versions(spec).next().and_then(|version| version.get("name").cloned());
    spec.extend(name.map(|name| ("version".to_owned(), name)));
    if let Some(conversion) = inner(spec, "conversion")
        && let Some(Value::Object(mut webhook)) = conversion.remove("webhook")
    {
        rename(&mut webhook, "clientConfig", "webhookClientConfig");
        conversion.extend(webhook);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(change: fn(&mut Object), value: &Value) -> Value {
        let mut object = value.as_object().unwrap().clone();
        change(&mut object);
        object.into()
    }

    #[test]
    fn what_was_said_of_all_versions_is_said_of_each_and_back() {
        let columns = |path: &str| json!([{"name": "Age", "type": "date", path: ".metadata.creationTimestamp"}]);
        let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "string"}}}});
        let old = json!({"spec": {
            "group": "e.com", "scope": "Namespaced", "version": "v1", "preserveUnknownFields": false, "validation": schema,
            "versions": [{"name": "v1", "served": true, "storage": true}, {"name": "v2", "served": true, "storage": false}],
            "subresources": {"status": {}}, "additionalPrinterColumns": columns("JSONPath"),
            "conversion": {"strategy": "Webhook", "webhookClientConfig": {"url": "https://x"},
                           "conversionReviewVersions": ["v1beta1"]}}});
        let version = |name: &str, storage: bool| {
            json!({"name": name, "served": true, "storage": storage, "schema": schema,
                   "subresources": {"status": {}}, "additionalPrinterColumns": columns("jsonPath")})
        };
        let new = json!({"spec": {
            "group": "e.com", "scope": "Namespaced", "versions": [version("v1", true), version("v2", false)],
            "conversion": {"strategy": "Webhook", "webhook": {"clientConfig": {"url": "https://x"},
                           "conversionReviewVersions": ["v1beta1"]}}}});
        assert_eq!(changed(to_modern, &old), new);
        assert_eq!(changed(to_old, &new), old);
    }

    #[test]
    fn what_differs_between_versions_stays_with_them() {
        let mut new = json!({"spec": {"versions": [
            {"name": "v1", "schema": {"openAPIV3Schema": {"type": "object"}}},
            {"name": "v2", "schema": {"openAPIV3Schema": {"type": "object", "properties": {"a": {"type": "string"}}}}}]}});
        let old = changed(to_old, &new);
        assert_eq!((&old["spec"]["versions"], old["spec"].get("validation")), (&new["spec"]["versions"], None));
        assert_eq!(changed(to_modern, &old), new, "what is not said stays unsaid");
        new["spec"]["scope"] = "Namespaced".into();
        assert_eq!(changed(defaults, &changed(to_modern, &old)), new);
    }

    #[test]
    fn unknown_fields_are_kept_unless_it_is_said_otherwise() {
        let old = json!({"spec": {"version": "v1", "scope": "Cluster", "validation": {"openAPIV3Schema": {"properties": {
            "list": {"type": "array", "items": {"type": "object"}},
            "map": {"type": "object", "additionalProperties": {"type": "object"}}}}}}});
        let new = changed(to_modern, &old);
        assert_eq!(
            new["spec"]["versions"],
            json!([{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", KEEPS: true, "properties": {
                    "list": {"type": "array", "items": {"type": "object", KEEPS: true}},
                    "map": {"type": "object", "additionalProperties": {"type": "object", KEEPS: true}}}}}}])
        );
        assert_eq!(changed(to_old, &new)["spec"]["preserveUnknownFields"], true);
        // Without a schema everything is kept, whatever is said.
        let bare = json!({"spec": {"version": "v1", "scope": "Cluster", "preserveUnknownFields": false}});
        let schema = &changed(to_modern, &bare)["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        assert_eq!(*schema, json!({"type": "object", KEEPS: true}));
        // What is no definition is left to decoding.
        for odd in [json!({"spec": 5}), json!({"spec": {"versions": [1], "conversion": []}}), json!({})] {
            changed(defaults, &changed(to_modern, &odd));
            changed(to_old, &odd);
        }
    }
}
