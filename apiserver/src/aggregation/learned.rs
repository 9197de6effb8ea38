//! What a remote told of what it serves, in the forms in which this server's own documents tell of it.

use std::{collections::BTreeSet, sync::Arc};

use serde_json::{Map, Value, json};

/// What is known of a remote from its own documents.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Learned {
    /// Its resources, as aggregated discovery lists them.
    pub(crate) resources: Option<Vec<Value>>,
    /// Where its OpenAPI v3 document is, with the hash that lets clients keep it.
    pub(crate) v3: Option<String>,
    /// The paths of its group and version and the schemas they need, as OpenAPI v2.
    pub(crate) v2: Option<Arc<Value>>,
}

/// What discovery tells of a remote.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) group_priority: i32,
    pub(crate) version_priority: i32,
    /// Whether the remote could be asked the last time.
    pub(crate) is_fresh: bool,
    pub(crate) learned: Arc<Learned>,
}

/// Where a group and version is.
pub(crate) fn path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") }
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// The group, version and kind of a row, empty where they are the list's own.
fn response_kind(row: &Value, (group, version): (&str, &str)) -> Value {
    let (own_group, own_version) = (text(row, "group"), text(row, "version"));
    let is_home = (own_group.is_empty() && own_version.is_empty()) || (own_group == group && own_version == version);
    let (own_group, own_version) = if is_home { ("", "") } else { (own_group, own_version) };
    json!({"group": own_group, "version": own_version, "kind": text(row, "kind")})
}

/// The resources of an `APIResourceList` as aggregated discovery has them; none if it is no such list.
pub(super) fn resources(list: &[u8], group: &str, version: &str) -> Option<Vec<Value>> {
    let list: Value = serde_json::from_slice(list).ok()?;
    let rows = list.get("resources")?.as_array()?;
    let mut all: Vec<Value> = Vec::new();
    for row in rows.iter().filter(|row| !text(row, "name").contains('/')) {
        let scope = if row.get("namespaced") == Some(&Value::Bool(true)) { "Namespaced" } else { "Cluster" };
        let mut told = json!({
            "resource": text(row, "name"), "scope": scope, "singularResource": text(row, "singularName"),
            "verbs": row.get("verbs").cloned().unwrap_or_else(|| json!([])),
            "responseKind": response_kind(row, (group, version)),
        });
        let below = format!("{}/", text(row, "name"));
        let subresources: Vec<Value> = rows
            .iter()
            .filter_map(|sub| {
                let name = text(sub, "name").strip_prefix(&below)?;
                let verbs = sub.get("verbs").cloned().unwrap_or_else(|| json!([]));
                let kind = response_kind(sub, (group, version));
                Some(json!({"subresource": name, "responseKind": kind, "verbs": verbs}))
            })
            .collect();
        if let Some(told) = told.as_object_mut() {
            for field in ["shortNames", "categories"] {
                if let Some(value) = row.get(field).filter(|value| value.is_array()) {
                    told.insert(field.to_owned(), value.clone());
                }
            }
            if !subresources.is_empty() {
                told.insert("subresources".to_owned(), subresources.into());
            }
        }
        all.push(told);
    }
    Some(all)
}

/// Where the OpenAPI v3 index has the document of a group and version.
pub(super) fn v3(index: &[u8], group: &str, version: &str) -> Option<String> {
    let index: Value = serde_json::from_slice(index).ok()?;
    let path = path(group, version);
    let url = text(index.get("paths")?.get(path.trim_start_matches('/'))?, "serverRelativeURL");
    // It is asked for at this server, so it must lead where this server passes it on.
    let known = format!("/openapi/v3{path}");
    (url == known || url.starts_with(&format!("{known}?"))).then(|| url.to_owned())
}

/// Notes the names of all schemas that a value refers to.
fn note_references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            let name = fields.get("$ref").and_then(Value::as_str).and_then(|to| to.strip_prefix("#/definitions/"));
            found.extend(name.map(str::to_owned));
            fields.values().for_each(|value| note_references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| note_references(value, found)),
        _ => {}
    }
}

/// The part of an OpenAPI v2 document that is about a group and version.
pub(super) fn v2(document: &[u8], group: &str, version: &str) -> Option<Arc<Value>> {
    let document: Value = serde_json::from_slice(document).ok()?;
    let base = path(group, version);
    let is_own = |path: &String| path.strip_prefix(&base).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let paths: Map<String, Value> = document
        .get("paths")?
        .as_object()?
        .iter()
        .filter(|(path, _)| is_own(path))
        .map(|(path, item)| (path.clone(), item.clone()))
        .collect();
    let all = document.get("definitions").and_then(Value::as_object);
    let mut needed = BTreeSet::new();
    paths.values().for_each(|item| note_references(item, &mut needed));
    // Kinds are found by the mark they carry, without a path that refers to them.
    for (name, schema) in all.into_iter().flatten() {
        let marks = schema.get("x-kubernetes-group-version-kind").and_then(Value::as_array);
        let mut marks = marks.into_iter().flatten();
        if marks.any(|mark| text(mark, "group") == group && text(mark, "version") == version) {
            needed.insert(name.clone());
        }
    }
    let mut definitions = Map::new();
    let mut open: Vec<String> = needed.into_iter().collect();
    while let Some(name) = open.pop() {
        let Some(schema) = all.and_then(|all| all.get(&name)).filter(|_| !definitions.contains_key(&name)) else {
            continue;
        };
        let mut further = BTreeSet::new();
        note_references(schema, &mut further);
        open.extend(further);
        definitions.insert(name, schema.clone());
    }
    Some(Arc::new(json!({"paths": paths, "definitions": definitions})))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_resources_is_told_as_aggregated_discovery_tells_it() {
        let list = json!({"resources": [
            {"name": "fish", "singularName": "", "namespaced": true, "kind": "Fish", "verbs": ["get"],
             "shortNames": ["f"]},
            {"name": "fish/scale", "namespaced": true, "kind": "Scale", "group": "autoscaling", "version": "v1",
             "verbs": ["get", "update"]},
            {"name": "seas", "namespaced": false, "kind": "Sea", "group": "sea.example", "version": "v1", "verbs": []},
        ]});
        let told = resources(list.to_string().as_bytes(), "sea.example", "v1").unwrap();
        assert_eq!(
            told,
            [
                json!({"resource": "fish", "scope": "Namespaced", "singularResource": "", "verbs": ["get"],
                    "responseKind": {"group": "", "version": "", "kind": "Fish"}, "shortNames": ["f"],
                    "subresources": [{"subresource": "scale", "verbs": ["get", "update"],
                        "responseKind": {"group": "autoscaling", "version": "v1", "kind": "Scale"}}]}),
                json!({"resource": "seas", "scope": "Cluster", "singularResource": "", "verbs": [],
                    "responseKind": {"group": "", "version": "", "kind": "Sea"}}),
            ]
        );
        assert_eq!(resources(b"<html>", "sea.example", "v1"), None);
    }

    #[test]
    fn of_openapi_only_what_is_about_the_group_is_kept() {
        let index = json!({"paths": {
            "apis/sea.example/v1": {"serverRelativeURL": "/openapi/v3/apis/sea.example/v1?hash=1"},
            "apis/sea.example/v2": {"serverRelativeURL": "https://elsewhere.example/"},
        }});
        let index = index.to_string();
        let url = v3(index.as_bytes(), "sea.example", "v1");
        assert_eq!(url.as_deref(), Some("/openapi/v3/apis/sea.example/v1?hash=1"));
        assert_eq!(v3(index.as_bytes(), "sea.example", "v2"), None);
        let reference = |name: &str| json!({"$ref": format!("#/definitions/{name}")});
        let document = json!({
            "paths": {"/apis/sea.example/v1/fish": {"get": {"schema": reference("FishList")}},
                "/apis/sea.example/v10/fish": {}, "/api/v1/pods": {"get": {"schema": reference("Pod")}}},
            "definitions": {"FishList": {"items": reference("Fish")}, "Fish": {"of": reference("Fish")}, "Pod": {},
                "Marked": {"x-kubernetes-group-version-kind": [{"group": "sea.example", "version": "v1"}]}},
        });
        let kept = v2(document.to_string().as_bytes(), "sea.example", "v1").unwrap();
        let keys = |field: &str| kept[field].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys("paths"), ["/apis/sea.example/v1/fish"]);
        assert_eq!(keys("definitions"), ["Fish", "FishList", "Marked"]);
    }
}
