//! OpenAPI schemas of the built-in kinds: k8s-openapi's JSON schemas (`build.rs` writes them down) with Kubernetes'
//! extensions put in.
//!
//! Building a document takes milliseconds and much memory: callers build once, keep the bytes and drop the value.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read,
};

use flate2::read::ZlibDecoder;
use serde::Deserialize;
use serde_json::{Map, Value, json, value::RawValue};

use super::{Field, ListType, definition, definition_name};
use crate::resource::{RESOURCES, Resource, old};

/// Which of OpenAPI's two versions a document is written in; they refer to other schemas in different ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    V2,
    V3,
}

/// The `components` of the OpenAPI v3 document of one group and version: `{"schemas": {…}}`, with every schema that its
/// resources, their lists and their subresources need. `None` when no built-in resource is in it.
#[must_use]
pub fn components_v3(group: &str, version: &str) -> Option<Value> {
    let rows = || old::all().filter(|r| r.group == group && r.version == version);
    rows().next()?;
    let is_of = |r: &Resource, g: &str, v: &str, k: &str| {
        (r.group, r.version, r.kind) == (g, v, k)
            || r.subresources.iter().any(|s| (s.group, s.version, s.kind) == (g, v, k))
    };
    let served = |g: &str, v: &str, k: &str| {
        g == "meta.k8s.io"
            || rows().any(|r| {
                let modern = old::modern(r.group, r.version, r.kind);
                is_of(r, g, v, k) || modern.is_some_and(|modern| is_of(modern, g, v, k))
            })
    };
    let mut schemas = schemas(Dialect::V3, served);
    for row in rows() {
        add_old(&mut schemas, row);
    }
    Some(json!({"schemas": schemas}))
}

/// Puts in the schemas of an old version's kind and list, which are today's under the old names.
fn add_old(schemas: &mut Map<String, Value>, row: &Resource) {
    let Some(modern) = old::modern(row.group, row.version, row.kind) else { return };
    for kind in [row.kind, row.list_kind] {
        let today = definition_name(modern.group, modern.version, kind);
        let Some(mut schema) = schemas.get(&today).cloned() else { continue };
        let name = definition_name(row.group, row.version, kind);
        let gvk = json!([{"group": row.group, "version": row.version, "kind": kind}]);
        if let Value::Object(schema) = &mut schema {
            schema.insert("x-kubernetes-group-version-kind".to_owned(), gvk);
            let note =
                format!("{kind} of {}/{}, an old name of {} {kind}.", row.group, row.version, modern.api_version());
            schema.insert("description".to_owned(), note.into());
        }
        if let (Some(fields), "Ingress") = (schema.get_mut("properties").and_then(Value::as_object_mut), kind) {
            // Backends looked different then.
            let spec = json!({"description": "Rules and backends of the Ingress.", "type": "object",
                "x-kubernetes-preserve-unknown-fields": true});
            fields.insert("spec".to_owned(), spec);
        }
        if let Some(items) = schema.pointer_mut("/properties/items/items/$ref") {
            let item = definition_name(row.group, row.version, row.kind);
            *items = format!("#/components/schemas/{item}").into();
        }
        schemas.insert(name, schema);
    }
}

/// The `components` of a group and version that has no built-in resource: what all objects share, and scales.
#[must_use]
pub fn shared_components_v3() -> Value {
    let served = |g: &str, _: &str, k: &str| g == "meta.k8s.io" || (g, k) == ("autoscaling", "Scale");
    let mut schemas = schemas(Dialect::V3, served);
    // Lists of built-in kinds have no place among them.
    schemas.retain(|name, _| name.contains(".apimachinery.") || name.contains(".Scale"));
    json!({"schemas": schemas})
}

/// The `definitions` of the OpenAPI v2 document, of every built-in resource.
#[must_use]
pub fn definitions_v2() -> Value {
    let served = |g: &str, v: &str, k: &str| {
        g == "meta.k8s.io"
            || RESOURCES.iter().any(|r| {
                (r.group, r.version, r.kind) == (g, v, k)
                    || r.subresources.iter().any(|s| (s.group, s.version, s.kind) == (g, v, k))
            })
    };
    Value::Object(schemas(Dialect::V2, served))
}

/// What `build.rs` wrote down.
static WRITTEN: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/schemas.json.z"));

#[derive(Deserialize)]
struct Written<'a> {
    #[serde(borrow)]
    kinds: Vec<(&'a str, &'a str, &'a str)>,
    /// Unread, as most of them are not wanted at a time.
    #[serde(borrow)]
    schemas: BTreeMap<&'a str, &'a RawValue>,
}

/// How schemas refer to each other where they are written down.
const REFERENCE: &str = "#/components/schemas/";

/// The names of the schemas that one refers to.
fn references(text: &str) -> impl Iterator<Item = &str> {
    text.split(REFERENCE).skip(1).filter_map(|rest| rest.split_once('"').map(|(name, _)| name))
}

/// The schemas of the kinds that are wanted, and of all they refer to.
fn written(dialect: Dialect, mut wanted: impl FnMut(&str, &str, &str) -> bool) -> Map<String, Value> {
    let mut text = String::new();
    // It is part of the program, and a test reads all of it.
    if ZlibDecoder::new(WRITTEN).read_to_string(&mut text).is_err() {
        return Map::new();
    }
    let Ok(Written { kinds, schemas }) = serde_json::from_str::<Written<'_>>(&text) else { return Map::new() };
    let kinds = kinds.into_iter().filter(|(group, version, kind)| wanted(group, version, kind));
    let mut left: Vec<String> = kinds.map(|(group, version, kind)| definition_name(group, version, kind)).collect();
    let mut seen: BTreeSet<String> = left.iter().cloned().collect();
    let mut found = Map::new();
    while let Some(name) = left.pop() {
        let Some(schema) = schemas.get(name.as_str()) else { continue };
        left.extend(references(schema.get()).map(str::to_owned).filter(|name| seen.insert(name.clone())));
        let value = match dialect {
            Dialect::V2 => serde_json::from_str(&schema.get().replace(REFERENCE, "#/definitions/")),
            Dialect::V3 => serde_json::from_str(schema.get()),
        };
        found.extend(value.ok().map(|value| (name, value)));
    }
    found
}

fn schemas(dialect: Dialect, served: impl Fn(&str, &str, &str) -> bool) -> Map<String, Value> {
    let mut roots: BTreeMap<String, Value> = BTreeMap::new();
    let mut schemas = written(dialect, |group, version, kind| {
        let wanted = served(group, version, kind);
        if wanted && group != "meta.k8s.io" {
            let name = definition_name(group, version, kind);
            roots.insert(name, json!([{"group": group, "version": version, "kind": kind}]));
        }
        wanted
    });
    for resource in RESOURCES.iter().filter(|r| !r.list_kind.is_empty()) {
        let (group, version, list_kind) = (resource.group, resource.version, resource.list_kind);
        if let Some(item) = schemas.get(&definition_name(group, version, resource.kind)) {
            let name = definition_name(group, version, list_kind);
            let list = list_schema(dialect, resource, item);
            roots.insert(name.clone(), json!([{"group": group, "version": version, "kind": list_kind}]));
            schemas.insert(name, list);
        }
    }
    for (name, schema) in &mut schemas {
        dress(dialect, name, schema);
        if let (Some(root), Value::Object(schema)) = (roots.remove(name), schema) {
            schema.insert("x-kubernetes-group-version-kind".to_owned(), root);
            // k8s-openapi's Rust types always have metadata; the API does not ask for it.
            if let Some(Value::Array(required)) = schema.get_mut("required") {
                required.retain(|name| name != "metadata");
                if required.is_empty() {
                    schema.remove("required");
                }
            }
        }
    }
    schemas
}

/// The schema of a resource's list, which k8s-openapi has no JSON schema of; `item` is the schema of one object.
fn list_schema(dialect: Dialect, resource: &Resource, item: &Value) -> Value {
    let base = match dialect {
        Dialect::V2 => "#/definitions/",
        Dialect::V3 => "#/components/schemas/",
    };
    let of = |field: &str| item.pointer(&format!("/properties/{field}")).cloned().unwrap_or_default();
    let item_name = definition_name(resource.group, resource.version, resource.kind);
    let meta_name = definition_name("meta.k8s.io", "v1", "ListMeta");
    json!({
        "description": format!("{} is a list of {} objects.", resource.list_kind, resource.kind),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": of("apiVersion"),
            "kind": of("kind"),
            "metadata": {"description": "Standard list metadata.", "$ref": format!("{base}{meta_name}")},
            "items": {
                "description": "Items is the list of objects.",
                "type": "array",
                "items": {"$ref": format!("{base}{item_name}")},
            },
        },
    })
}

/// Puts a type's facts into its schema.
fn dress(dialect: Dialect, name: &str, schema: &mut Value) {
    let Value::Object(schema) = schema else { return };
    if schema.remove("x-kubernetes-int-or-string").is_some() {
        schema.insert("format".to_owned(), "int-or-string".into());
        match dialect {
            Dialect::V2 => schema.insert("type".to_owned(), "string".into()),
            Dialect::V3 => schema.insert("oneOf".to_owned(), json!([{"type": "integer"}, {"type": "string"}])),
        };
    }
    let facts = definition(name);
    if facts.is_some_and(|facts| facts.atomic) {
        schema.insert("x-kubernetes-map-type".to_owned(), "atomic".into());
    }
    let Some(Value::Object(properties)) = schema.get_mut("properties") else { return };
    for (name, property) in properties {
        refer(dialect, property);
        if let (Some(field), Value::Object(property)) = (facts.and_then(|facts| facts.field(name)), property) {
            extend(property, field);
        }
    }
}

/// In OpenAPI v3 nothing may stand beside a `$ref`, so that one with a description goes into an `allOf`.
fn refer(dialect: Dialect, property: &mut Value) {
    let Value::Object(property) = property else { return };
    if dialect == Dialect::V3
        && property.len() > 1
        && let Some(reference) = property.remove("$ref")
    {
        property.insert("allOf".to_owned(), json!([{"$ref": reference}]));
    }
}

fn extend(property: &mut Map<String, Value>, field: &Field) {
    let strategies = [("merge", field.strategy.merge), ("replace", field.strategy.replace)];
    let mut words: Vec<&str> = strategies.iter().filter(|(_, is)| *is).map(|(word, _)| *word).collect();
    if field.strategy.retain_keys {
        words.push("retainKeys");
    }
    if !words.is_empty() {
        property.insert("x-kubernetes-patch-strategy".to_owned(), words.join(",").into());
    }
    if let Some(key) = field.merge_key {
        property.insert("x-kubernetes-patch-merge-key".to_owned(), key.into());
    }
    if let Some(list_type) = &field.list_type {
        property.insert("x-kubernetes-list-type".to_owned(), list_type.as_str().into());
        if let ListType::Map(keys) = list_type {
            property.insert("x-kubernetes-list-map-keys".to_owned(), keys.clone().into());
        }
    }
    if field.atomic {
        property.insert("x-kubernetes-map-type".to_owned(), "atomic".into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    if let ("$ref", Value::String(target)) = (key.as_str(), value) {
                        found.insert(target.clone());
                    }
                    references(value, found);
                }
            }
            Value::Array(list) => list.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    #[test]
    fn every_resource_has_its_schema_and_every_reference_leads_to_one() {
        let groups: BTreeSet<(&str, &str)> = old::all().map(|r| (r.group, r.version)).collect();
        for (group, version) in groups {
            let components = components_v3(group, version).unwrap();
            for resource in old::all().filter(|r| (r.group, r.version) == (group, version)) {
                let name = definition_name(group, version, resource.kind);
                let schema = &components["schemas"][&name];
                let expected = json!([{"group": group, "version": version, "kind": resource.kind}]);
                assert_eq!(schema["x-kubernetes-group-version-kind"], expected, "{name}");
                assert!(schema["description"].is_string(), "{name}");
                if !resource.list_kind.is_empty() {
                    let list = definition_name(group, version, resource.list_kind);
                    assert!(components["schemas"][&list].is_object(), "{list}");
                }
            }
            let mut found = BTreeSet::new();
            references(&components, &mut found);
            for target in found {
                let name = target.strip_prefix("#/components/schemas/").unwrap();
                assert!(components["schemas"][name].is_object(), "{target}");
            }
        }
        assert!(components_v3("none", "v1").is_none());
    }

    #[test]
    fn fields_carry_their_extensions() {
        let components = components_v3("", "v1").unwrap();
        assert_eq!(components["schemas"]["io.k8s.api.core.v1.Pod"].get("required"), None);
        assert_eq!(components["schemas"]["io.k8s.api.core.v1.PodSpec"]["required"], json!(["containers"]));
        let pod = &components["schemas"]["io.k8s.api.core.v1.PodSpec"]["properties"];
        let containers = &pod["containers"];
        assert_eq!(containers["x-kubernetes-patch-strategy"], "merge");
        assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
        assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
        assert_eq!(containers["items"]["$ref"], "#/components/schemas/io.k8s.api.core.v1.Container");
        assert_eq!(pod["volumes"]["x-kubernetes-patch-strategy"], "merge,retainKeys");
        assert_eq!(pod["affinity"]["allOf"][0]["$ref"], "#/components/schemas/io.k8s.api.core.v1.Affinity");
        let number = &components["schemas"]["io.k8s.apimachinery.pkg.util.intstr.IntOrString"];
        assert_eq!(number["format"], "int-or-string");
    }

    #[test]
    fn the_second_version_refers_to_definitions() {
        let definitions = definitions_v2();
        let affinity = &definitions["io.k8s.api.core.v1.PodSpec"]["properties"]["affinity"];
        assert_eq!(affinity["$ref"], "#/definitions/io.k8s.api.core.v1.Affinity");
        assert!(affinity["description"].is_string());
        assert_eq!(definitions["io.k8s.apimachinery.pkg.util.intstr.IntOrString"]["type"], "string");
    }

    #[test]
    fn the_facts_know_the_fields_that_the_schemas_know() {
        for (name, schema) in schemas(Dialect::V3, |_, _, _| true) {
            let Some(properties) = schema["properties"].as_object() else { continue };
            let is_answer = ["Status", "ListMeta", "ShardInfo"].iter().any(|n| name.contains(&format!(".meta.v1.{n}")));
            if name.ends_with("List") || is_answer {
                continue;
            }
            let facts = definition(&name).unwrap_or_else(|| panic!("no facts for {name}"));
            let theirs: BTreeSet<&str> = properties.keys().map(String::as_str).collect();
            let ours: BTreeSet<&str> = facts.fields().iter().map(|f| f.name).collect();
            assert_eq!(theirs, ours, "{name}");
            let required = schema["required"].as_array().map(Vec::as_slice).unwrap_or_default();
            for field in facts.fields() {
                let is_time = properties[field.name]["format"] == "date-time" || {
                    let text = properties[field.name].to_string();
                    text.contains(".meta.v1.Time\"") || text.contains(".meta.v1.MicroTime\"")
                };
                let is_required = required.iter().any(|name| *name == field.name);
                assert_eq!(field.is_required_time, is_time && is_required, "{name}.{}: {schema}", field.name);
                let values = properties[field.name]["additionalProperties"].to_string();
                assert_eq!(field.is_amounts, values.contains(".resource.Quantity\""), "{name}.{}", field.name);
                let is_bytes = [&properties[field.name], &properties[field.name]["additionalProperties"]]
                    .iter()
                    .any(|schema| schema["format"] == "byte");
                assert_eq!(field.is_bytes, is_bytes, "{name}.{}", field.name);
                let is_list = properties[field.name]["type"] == "array";
                assert_eq!(field.shape == super::super::Shape::List, is_list, "{name}.{}", field.name);
                let text = properties[field.name].to_string();
                if let Some(child) = field.child() {
                    assert!(text.contains(&format!("/{}\"", child.name)), "{name}.{}: {}", field.name, child.name);
                }
            }
        }
    }
}
