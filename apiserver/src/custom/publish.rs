//! OpenAPI of the kinds that definitions make, written from the stored definitions when a document is asked for.

use coracle_proto::resource::Resource;
use serde_json::{Map, Value, json};

use crate::openapi::Dialect;

/// The schema's name: the group's parts the other way round, the version, the kind.
pub(crate) fn schema_name(resource: &Resource, kind: &str) -> String {
    let mut parts: Vec<&str> = resource.group.split('.').rev().collect();
    parts.extend([resource.version, kind]);
    parts.join(".")
}

const API_VERSION: &str = "APIVersion defines the versioned schema of this representation of an object. Servers should convert recognized schemas to the latest internal value, and may reject unrecognized values. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources";
const KIND: &str = "Kind is a string value representing the REST resource this object represents. Servers may infer this from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";
const METADATA: &str = "Standard object's metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";
const LIST_METADATA: &str = "Standard list metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

fn refer(dialect: Dialect, name: &str) -> String {
    match dialect {
        Dialect::V2 => format!("#/definitions/{name}"),
        Dialect::V3 => format!("#/components/schemas/{name}"),
    }
}

fn described(dialect: Dialect, description: &str, name: &str) -> Value {
    let reference = json!({"$ref": refer(dialect, name)});
    match dialect {
        Dialect::V2 => json!({"description": description, "$ref": refer(dialect, name)}),
        Dialect::V3 => json!({"description": description, "allOf": [reference]}),
    }
}

/// The stored schema of one version, as JSON.
fn stored<'d>(definition: &'d Value, version: &str) -> Option<&'d Value> {
    let versions = definition.pointer("/spec/versions")?.as_array()?;
    let own = versions.iter().find(|v| v.get("name").and_then(Value::as_str) == Some(version))?;
    own.pointer("/schema/openAPIV3Schema")
}

fn is(schema: &Map<String, Value>, flag: &str) -> bool {
    schema.get(flag) == Some(&Value::Bool(true))
}

/// The schema as OpenAPI's second version can say it (kubectl reads it): no junctors, nothing nullable, and nothing below
/// what keeps unknown fields.
fn narrowed(schema: &mut Value) {
    let Value::Object(map) = schema else { return };
    for term in ["allOf", "anyOf", "oneOf", "not", "x-kubernetes-validations"] {
        map.remove(term);
    }
    if is(map, "nullable") {
        // What is null is of no type that the second version knows.
        for term in ["type", "items", "properties", "additionalProperties"] {
            map.remove(term);
        }
    }
    map.remove("nullable");
    if is(map, "x-kubernetes-int-or-string") {
        map.remove("type");
    }
    if is(map, "x-kubernetes-preserve-unknown-fields") {
        for term in ["items", "properties", "additionalProperties", "required"] {
            map.remove(term);
        }
        if map.get("type").and_then(Value::as_str) != Some("object") {
            map.remove("type");
        }
    }
    for term in ["items", "additionalProperties"] {
        map.get_mut(term).map(narrowed);
    }
    if let Some(Value::Object(properties)) = map.get_mut("properties") {
        properties.values_mut().for_each(narrowed);
    }
}

/// Gives resources within a resource their names and metadata.
fn embed(dialect: Dialect, schema: &mut Value, is_root: bool) {
    let Value::Object(map) = schema else { return };
    if let Some(Value::Object(properties)) = map.get_mut("properties") {
        properties.values_mut().for_each(|schema| embed(dialect, schema, false));
    }
    for term in ["items", "additionalProperties"] {
        if let Some(schema) = map.get_mut(term) {
            embed(dialect, schema, false);
        }
    }
    if !is_root && !is(map, "x-kubernetes-embedded-resource") {
        return;
    }
    let properties = map.entry("properties").or_insert_with(|| json!({}));
    if let Some(properties) = properties.as_object_mut() {
        properties.insert("apiVersion".to_owned(), json!({"description": API_VERSION, "type": "string"}));
        properties.insert("kind".to_owned(), json!({"description": KIND, "type": "string"}));
        let meta = described(dialect, METADATA, &format!("{META}.ObjectMeta"));
        properties.insert("metadata".to_owned(), meta);
    }
}

/// The schemas of one version's objects and lists, by name.
pub(crate) fn schemas(dialect: Dialect, resource: &Resource, definition: &Value) -> Vec<(String, Value)> {
    let unknown = || json!({"type": "object"});
    let mut schema = stored(definition, resource.version).cloned().unwrap_or_else(unknown);
    let keeps_all = schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
    match dialect {
        // With a field more, the clients that read the second version would take every other one for unknown.
        Dialect::V2 if keeps_all => schema = unknown(),
        Dialect::V2 => {
            narrowed(&mut schema);
            embed(dialect, &mut schema, true);
        }
        Dialect::V3 => embed(dialect, &mut schema, true),
    }
    let gvk = |kind: &str| json!([{"group": resource.group, "version": resource.version, "kind": kind}]);
    if let Some(map) = schema.as_object_mut() {
        map.entry("type").or_insert_with(|| "object".into());
        map.insert("x-kubernetes-group-version-kind".to_owned(), gvk(resource.kind));
    }
    let (own, list) = (schema_name(resource, resource.kind), schema_name(resource, resource.list_kind));
    let items = format!(
        "List of {}. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#objects",
        resource.plural
    );
    let list_schema = json!({
        "description": format!("{} is a list of {}", resource.list_kind, resource.kind),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"description": API_VERSION, "type": "string"},
            "kind": {"description": KIND, "type": "string"},
            "metadata": described(dialect, LIST_METADATA, &format!("{META}.ListMeta")),
            "items": {"description": items, "type": "array", "items": {"$ref": refer(dialect, &own)}},
        },
        "x-kubernetes-group-version-kind": gvk(resource.list_kind),
    });
    vec![(own, schema), (list, list_schema)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_version_says_less() {
        let row = coracle_proto::resource::RESOURCES.first().copied().unwrap();
        let row = Resource { group: "stable.example.com", version: "v1", kind: "Foo", list_kind: "FooList", ..row };
        let definition = json!({"spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": {
            "type": "object", "description": "A foo.",
            "properties": {
                "spec": {"type": "object", "properties": {
                    "a": {"type": "string", "nullable": true},
                    "b": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"c": {"type": "string"}}},
                    "d": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
                }, "oneOf": [{"required": ["a"]}]},
            },
        }}}]}});
        let find = |dialect| schemas(dialect, &row, &definition).into_iter().next().unwrap();
        let (name, two) = find(Dialect::V2);
        assert_eq!(name, "com.example.stable.v1.Foo");
        let spec = &two["properties"]["spec"];
        assert!(spec.get("oneOf").is_none() && spec["properties"]["a"].get("type").is_none());
        assert_eq!(spec["properties"]["b"]["type"], "object");
        assert!(spec["properties"]["b"].get("properties").is_none());
        assert_eq!(
            two["properties"]["metadata"]["$ref"],
            "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
        );
        let (_, three) = find(Dialect::V3);
        assert!(three["properties"]["spec"].get("oneOf").is_some());
        assert_eq!(three["x-kubernetes-group-version-kind"][0]["kind"], "Foo");
    }

    #[test]
    fn of_what_keeps_all_its_fields_the_second_version_says_only_that_it_is_an_object() {
        let row = coracle_proto::resource::RESOURCES.first().copied().unwrap();
        let row = Resource { group: "stable.example.com", version: "v1", kind: "Foo", list_kind: "FooList", ..row };
        let schema = json!({"type": "object", "description": "A foo.", "x-kubernetes-preserve-unknown-fields": true});
        let definition = json!({"spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": schema}}]}});
        let (_, two) = schemas(Dialect::V2, &row, &definition).swap_remove(0);
        let gvk = json!([{"group": "stable.example.com", "version": "v1", "kind": "Foo"}]);
        assert_eq!(two, json!({"type": "object", "x-kubernetes-group-version-kind": gvk}));
        let (_, three) = schemas(Dialect::V3, &row, &definition).swap_remove(0);
        assert_eq!(three["x-kubernetes-preserve-unknown-fields"], true);
        assert!(three["properties"]["metadata"].is_object());
    }
}
