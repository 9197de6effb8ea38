//! OpenAPI documents: the schemas of all kinds with the paths they are served at.
//!
//! `kubectl explain` reads the schemas and finds them through the paths; `kubectl apply` and `diff` look whether PATCH
//! takes `dryRun` and `fieldValidation`. Building a document takes milliseconds and megabytes, so the HTTP side builds
//! each once, keeps it compressed, and drops the rest.

pub(crate) mod protobuf;

use coracle_proto::{
    resource::{Resource, Scope, old},
    schema::openapi,
};
use serde_json::{Map, Value, json};

use crate::{custom::publish, discovery::Rows};

/// Which of OpenAPI's two versions a document is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    V2,
    V3,
}

const MEDIA: &str = "application/json";

/// Query parameters by verb, as far as they mean something to this server.
fn parameters(dialect: Dialect, verb: &str) -> Value {
    let names: &[(&str, &str)] = match verb {
        "get" => &[],
        "list" | "watch" => &[
            ("allowWatchBookmarks", "boolean"),
            ("continue", "string"),
            ("fieldSelector", "string"),
            ("labelSelector", "string"),
            ("limit", "integer"),
            ("resourceVersion", "string"),
            ("resourceVersionMatch", "string"),
            ("sendInitialEvents", "boolean"),
            ("timeoutSeconds", "integer"),
            ("watch", "boolean"),
        ],
        "delete" | "deletecollection" => &[
            ("dryRun", "string"),
            ("gracePeriodSeconds", "integer"),
            ("orphanDependents", "boolean"),
            ("propagationPolicy", "string"),
        ],
        "patch" => {
            &[("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string"), ("force", "boolean")]
        }
        _ => &[("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string")],
    };
    let parameter = |(name, kind): &(&str, &str)| match dialect {
        Dialect::V2 => json!({"name": name, "in": "query", "type": kind, "uniqueItems": true}),
        Dialect::V3 => json!({"name": name, "in": "query", "schema": {"type": kind, "uniqueItems": true}}),
    };
    names.iter().map(parameter).collect()
}

/// One operation: which kind it is about, what it takes, and that it answers.
fn operation(dialect: Dialect, verb: &str, id: String, gvk: (&str, &str, &str), is_custom: bool) -> Value {
    let (group, version, kind) = gvk;
    let action = match verb {
        "create" => "post",
        "update" => "put",
        other => other,
    };
    let mut operation = json!({
        "operationId": id,
        "responses": {"200": {"description": "OK"}, "401": {"description": "Unauthorized"}},
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": kind},
    });
    let Some(fields) = operation.as_object_mut() else { return operation };
    let query = parameters(dialect, verb);
    let body = matches!(verb, "create" | "update" | "patch");
    let taken = if verb == "patch" { patch_types(is_custom) } else { &["*/*"] };
    match dialect {
        Dialect::V2 => {
            let mut all = query.as_array().cloned().unwrap_or_default();
            if body {
                all.insert(0, json!({"name": "body", "in": "body", "required": true, "schema": {"type": "object"}}));
            }
            fields.insert("parameters".to_owned(), all.into());
            fields.insert("produces".to_owned(), json!([MEDIA]));
            fields.insert("consumes".to_owned(), taken.into());
        }
        Dialect::V3 => {
            fields.insert("parameters".to_owned(), query);
            if body {
                let schema = || json!({"schema": {"type": "object"}});
                let content: Map<String, Value> = taken.iter().map(|media| ((*media).to_owned(), schema())).collect();
                fields.insert("requestBody".to_owned(), json!({"content": content, "required": true}));
            }
        }
    }
    operation
}

/// What PATCH takes. kubectl asks here whether it may send a strategic merge patch: for that the server has to know how
/// each list is merged, which no definition says.
const PATCH_TYPES: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/apply-patch+yaml",
    "application/strategic-merge-patch+json",
];

fn patch_types(is_custom: bool) -> &'static [&'static str] {
    match PATCH_TYPES {
        [others @ .., _] if is_custom => others,
        all => all,
    }
}

/// The operations of one path by HTTP method, and the parameters that its braces stand for.
fn path_item(
    dialect: Dialect,
    path: &str,
    verbs: &[&str],
    id: &str,
    gvk: (&str, &str, &str),
    is_custom: bool,
) -> Value {
    let mut item = Map::new();
    for verb in verbs {
        let method = match *verb {
            "get" | "list" => "get",
            "create" => "post",
            "update" => "put",
            "patch" => "patch",
            "delete" | "deletecollection" => "delete",
            _ => continue,
        };
        item.insert(method.to_owned(), operation(dialect, verb, format!("{verb}{id}"), gvk, is_custom));
    }
    let in_path = |name: &str| match dialect {
        Dialect::V2 => json!({"name": name, "in": "path", "required": true, "type": "string", "uniqueItems": true}),
        Dialect::V3 => {
            json!({"name": name, "in": "path", "required": true, "schema": {"type": "string", "uniqueItems": true}})
        }
    };
    let named = ["namespace", "name"].into_iter().filter(|name| path.contains(&format!("{{{name}}}")));
    item.insert("parameters".to_owned(), named.map(in_path).collect());
    item.into()
}

fn add_paths(dialect: Dialect, resource: &Resource, is_custom: bool, paths: &mut Map<String, Value>) {
    let base = if resource.group.is_empty() {
        format!("/api/{}", resource.version)
    } else {
        format!("/apis/{}/{}", resource.group, resource.version)
    };
    let id: String = format!("{}{}{}", resource.group.replace(['.', '-'], ""), resource.version, resource.kind);
    let gvk = (resource.group, resource.version, resource.kind);
    let (whole, namespace) = match resource.scope {
        Scope::Cluster => (format!("{base}/{}", resource.plural), String::new()),
        Scope::Namespaced => {
            let across = format!("{base}/{}", resource.plural);
            if resource.serves("list") {
                paths.insert(
                    across.clone(),
                    path_item(dialect, &across, &["list"], &format!("{id}ForAllNamespaces"), gvk, is_custom),
                );
            }
            (format!("{base}/namespaces/{{namespace}}/{}", resource.plural), "Namespaced".to_owned())
        }
    };
    let served = |verbs: &[&'static str]| verbs.iter().copied().filter(|v| resource.serves(v)).collect::<Vec<_>>();
    let item = path_item(
        dialect,
        &whole,
        &served(&["list", "create", "deletecollection"]),
        &format!("{namespace}{id}"),
        gvk,
        is_custom,
    );
    paths.insert(whole.clone(), item);
    let single = served(&["get", "update", "patch", "delete"]);
    let one = format!("{whole}/{{name}}");
    if !single.is_empty() {
        paths.insert(one.clone(), path_item(dialect, &one, &single, &format!("{namespace}{id}"), gvk, is_custom));
    }
    for sub in resource.subresources {
        let path = format!("{one}/{}", sub.name);
        let capital: String =
            sub.name.chars().take(1).flat_map(char::to_uppercase).chain(sub.name.chars().skip(1)).collect();
        let sub_id = format!("{namespace}{id}{capital}");
        paths.insert(
            path.clone(),
            path_item(dialect, &path, sub.verbs, &sub_id, (sub.group, sub.version, sub.kind), is_custom),
        );
    }
}

fn info(version: &str) -> Value {
    json!({"title": "Kubernetes", "version": version})
}

/// The groups and versions that have an OpenAPI v3 document, as `/openapi/v3` names them: `api/v1`, `apis/apps/v1`.
#[must_use]
pub fn v3_names(rows: Rows<'_>) -> Vec<(String, &'static str, &'static str)> {
    let mut names = Vec::new();
    for (group, versions) in crate::discovery::groups(rows) {
        for version in versions {
            let name = if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") };
            names.push((name, group, version));
        }
    }
    names
}

/// Finds the stored definition that made a resource, as JSON; none for what is built in.
pub type Definitions<'a> = &'a dyn Fn(&Resource) -> Option<Value>;

/// Puts what is to be said of a resource into a document: its paths, and its schemas if a definition made it.
fn add(
    dialect: Dialect,
    resource: &Resource,
    definitions: Definitions<'_>,
    paths: &mut Map<String, Value>,
    schemas: Option<&mut Value>,
) {
    let definition = definitions(resource);
    add_paths(dialect, resource, definition.is_some(), paths);
    if let (Some(definition), Some(schemas)) = (definition, schemas.and_then(Value::as_object_mut)) {
        schemas.extend(publish::schemas(dialect, resource, &definition));
    }
}

/// The OpenAPI v3 document of one group and version, if it is served. `git_version` is the server's (`v1.36.0`).
#[must_use]
pub fn v3(
    rows: Rows<'_>,
    definitions: Definitions<'_>,
    (group, version): (&str, &str),
    git_version: &str,
) -> Option<Value> {
    let own = || rows.iter().filter(|r| r.group == group && r.version == version);
    own().next()?;
    let mut components = openapi::components_v3(group, version).unwrap_or_else(openapi::shared_components_v3);
    let mut paths = Map::new();
    for resource in own() {
        add(Dialect::V3, resource, definitions, &mut paths, components.get_mut("schemas"));
    }
    Some(json!({"openapi": "3.0.0", "info": info(git_version), "paths": paths, "components": components}))
}

/// The OpenAPI v2 document of everything.
#[must_use]
pub fn v2(rows: Rows<'_>, definitions: Definitions<'_>, git_version: &str) -> Value {
    let mut paths = Map::new();
    let mut schemas = openapi::definitions_v2();
    // Old versions are not in it: it holds every schema once, and theirs are today's.
    for resource in rows.iter().filter(|r| old::modern(r.group, r.version, r.kind).is_none()) {
        add(Dialect::V2, resource, definitions, &mut paths, Some(&mut schemas));
    }
    json!({"swagger": "2.0", "info": info(git_version), "paths": paths, "definitions": schemas})
}

#[cfg(test)]
mod tests {
    use coracle_proto::resource::{CUSTOM_VERBS, Described, interned};

    use super::*;

    fn rows() -> Vec<&'static Resource> {
        old::all().collect()
    }

    fn v3_of(group: &str, version: &str) -> Option<Value> {
        v3(&rows(), &|_| None, (group, version), "v1.36.0")
    }

    #[test]
    fn every_served_patch_tells_what_kubectl_asks_about() {
        for (name, group, version) in v3_names(&rows()) {
            let document = v3_of(group, version).unwrap();
            for (path, item) in document["paths"].as_object().unwrap() {
                let Some(patch) = item.get("patch") else { continue };
                let names: Vec<&str> =
                    patch["parameters"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
                assert!(names.contains(&"dryRun") && names.contains(&"fieldValidation"), "{name} {path}");
                assert!(patch["x-kubernetes-group-version-kind"]["kind"].is_string(), "{name} {path}");
            }
        }
    }

    #[test]
    fn only_built_in_kinds_take_strategic_merge_patches() {
        let strategic = "application/strategic-merge-patch+json";
        let described = Described {
            group: "example.com",
            version: "v1",
            kind: "Foo",
            list_kind: "FooList",
            plural: "foos",
            singular: "foo",
            short_names: &[],
            categories: &[],
            scope: Scope::Namespaced,
            verbs: CUSTOM_VERBS,
            has_status: true,
            has_scale: true,
        };
        let rows: Vec<&'static Resource> = rows().into_iter().chain(interned(&described)).collect();
        let definitions = |row: &Resource| (row.group == "example.com").then(|| json!({"spec": {}}));
        let mut custom = 0;
        for (name, group, version) in v3_names(&rows) {
            let document = v3(&rows, &definitions, (group, version), "v1.36.0").unwrap();
            for (path, item) in document["paths"].as_object().unwrap() {
                let Some(patch) = item.get("patch") else { continue };
                let content = patch["requestBody"]["content"].as_object().unwrap();
                custom += usize::from(group == "example.com");
                assert_eq!(content.contains_key(strategic), group != "example.com", "{name} {path}");
                assert!(content.contains_key("application/apply-patch+yaml"), "{name} {path}");
            }
        }
        assert_eq!(custom, 3);
    }

    #[test]
    fn explain_finds_a_kind_through_its_path() {
        let document = v3_of("apps", "v1").unwrap();
        let item = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"];
        let gvk = json!({"group": "apps", "version": "v1", "kind": "Deployment"});
        assert_eq!(item["get"]["x-kubernetes-group-version-kind"], gvk);
        let schemas = document["components"]["schemas"].as_object().unwrap();
        assert!(schemas.contains_key("io.k8s.api.apps.v1.Deployment"));
        assert_eq!(v3_of("apps", "v2"), None);
    }

    #[test]
    fn operation_ids_are_told_apart() {
        let document = v2(&rows(), &|_| None, "v1.36.0");
        let mut seen = std::collections::BTreeSet::new();
        for item in document["paths"].as_object().unwrap().values() {
            for operation in item.as_object().unwrap().values().filter_map(|o| o.get("operationId")) {
                assert!(seen.insert(operation.as_str().unwrap().to_owned()), "{operation} twice");
            }
        }
    }
}
