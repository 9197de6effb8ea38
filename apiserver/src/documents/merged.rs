//! The documents of discovery and OpenAPI when other servers serve groups and versions too.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use axum::body::Body;
use http::{HeaderMap, Response, StatusCode};
use serde_json::{Map, Value, json};

use super::{AGGREGATED, Document, definition, takes_json, wants_aggregated, wants_protobuf};
use crate::{
    aggregation::Told,
    answer::json_value,
    bootstrap::api_services::{DEFINED, is_built_in, priority},
    custom::{Catalog, version_order},
    discovery::{self, Rows},
    openapi,
    server::Inner,
};

/// A version of a group and who serves it: this server, or the remote at that place.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Version {
    name: String,
    priority: i32,
    remote: Option<usize>,
}

/// A group as it is told of.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    name: String,
    priority: i32,
    versions: Vec<Version>,
}

impl Group {
    fn version_names(&self) -> Vec<&str> {
        self.versions.iter().map(|version| version.name.as_str()).collect()
    }
}

/// The documents that go with one catalog of definitions, each built when first asked for.
struct Made {
    catalog: Arc<Catalog>,
    groups: Vec<Group>,
    named: OnceLock<Document>,
    v2: OnceLock<Document>,
    v2_protobuf: OnceLock<Document>,
    v3_index: OnceLock<Document>,
}

/// What remotes are told to serve, merged with what this server serves.
#[derive(Default)]
pub(crate) struct Merged {
    told: Vec<Told>,
    made: Mutex<Option<Arc<Made>>>,
}

/// All named groups in the order of their priorities, with who serves which version.
fn groups(rows: Rows<'_>, told: &[Told]) -> Vec<Group> {
    let mut all: Vec<Group> = Vec::new();
    for (group, versions) in discovery::groups(rows).into_iter().filter(|(group, _)| !group.is_empty()) {
        let version = |name: &&str| Version {
            name: (*name).to_owned(),
            priority: if is_built_in(group, name) { priority(group, name).1 } else { DEFINED.1 },
            remote: None,
        };
        let versions: Vec<Version> = versions.iter().map(version).collect();
        all.push(Group { name: group.to_owned(), priority: priority(group, "v1").0, versions });
    }
    for (place, remote) in told.iter().enumerate().filter(|(_, remote)| !remote.group.is_empty()) {
        let version = Version { name: remote.version.clone(), priority: remote.version_priority, remote: Some(place) };
        let known = all.iter().position(|group| group.name == remote.group);
        let mut group = match known {
            Some(at) => all.remove(at),
            None => Group { name: remote.group.clone(), priority: 0, versions: Vec::new() },
        };
        group.versions.retain(|other| other.name != version.name);
        group.versions.push(version);
        group.versions.sort_by(|a, b| {
            b.priority.cmp(&a.priority).then_with(|| version_order(&b.name).cmp(&version_order(&a.name)))
        });
        group.priority = group.priority.max(remote.group_priority);
        let behind = |other: &Group| {
            other.priority < group.priority || (other.priority == group.priority && other.name > group.name)
        };
        let at = all.iter().position(behind).unwrap_or(all.len());
        all.insert(at, group);
    }
    all
}

impl Merged {
    /// What these remotes serve besides this server.
    pub(crate) fn of(told: Vec<Told>) -> Self {
        Self { told, made: Mutex::default() }
    }

    fn made(&self, catalog: &Arc<Catalog>) -> Arc<Made> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = made.as_ref().filter(|made| Arc::ptr_eq(&made.catalog, catalog)) {
            return Arc::clone(known);
        }
        let new = Arc::new(Made {
            catalog: Arc::clone(catalog),
            groups: groups(&catalog.documents().rows, &self.told),
            named: OnceLock::new(),
            v2: OnceLock::new(),
            v2_protobuf: OnceLock::new(),
            v3_index: OnceLock::new(),
        });
        *made = Some(Arc::clone(&new));
        new
    }

    fn aggregated(&self, made: &Made) -> Value {
        let rows = &made.catalog.documents().rows;
        let version = |group: &Group, version: &Version| match version.remote.and_then(|place| self.told.get(place)) {
            None => discovery::aggregated_version(rows, &group.name, &version.name),
            Some(told) => {
                let mut row = json!({
                    "version": told.version, "freshness": if told.is_fresh { "Current" } else { "Stale" },
                });
                if let (Some(resources), Some(row)) = (&told.learned.resources, row.as_object_mut()) {
                    row.insert("resources".to_owned(), resources.clone().into());
                }
                row
            }
        };
        let item = |group: &Group| {
            let versions = group.versions.iter().map(|one| version(group, one)).collect();
            discovery::aggregated_group(&group.name, versions)
        };
        discovery::aggregated_list(made.groups.iter().map(item).collect())
    }

    fn v2(&self, server: &Inner, made: &Made) -> Value {
        let rows = &made.catalog.documents().rows;
        let mut document = openapi::v2(rows, &|row| definition(&server.registry, row), super::VERSION);
        for told in &self.told {
            drop_v2(&mut document, told);
            if let Some(theirs) = &told.learned.v2 {
                add_v2(&mut document, theirs);
            }
        }
        document
    }

    /// Answers what remotes have a part in; none for all other paths.
    pub(super) fn answer(
        &self,
        server: &Inner,
        catalog: &Arc<Catalog>,
        parts: &[&str],
        headers: &HeaderMap,
    ) -> Option<Response<Body>> {
        let made = self.made(catalog);
        let ok = |value: &Value| Some(json_value(StatusCode::OK, value));
        match parts {
            [] => ok(&self.paths(catalog)),
            ["apis"] if wants_aggregated(headers) => {
                let document = made.named.get_or_init(|| Document::new(&self.aggregated(&made)));
                Some(document.answer(headers, AGGREGATED))
            }
            ["apis"] => {
                let of = |group: &Group| discovery::group_document(&group.name, &group.version_names()).into();
                ok(&discovery::list_of_groups(made.groups.iter().map(of).collect()))
            }
            ["apis", name] => {
                let group = made.groups.iter().find(|group| group.name == *name)?;
                ok(&discovery::single_group(name, &group.version_names()))
            }
            ["openapi", "v2"] if wants_protobuf(headers) => {
                let encode = || Document::of(openapi::protobuf::encode(&self.v2(server, &made)).into());
                Some(made.v2_protobuf.get_or_init(encode).answer(headers, openapi::protobuf::MEDIA))
            }
            ["openapi", "v2"] if takes_json(headers) => {
                let document = made.v2.get_or_init(|| Document::new(&self.v2(server, &made)));
                Some(document.answer(headers, "application/json"))
            }
            ["openapi", "v3"] => {
                let index = made.v3_index.get_or_init(|| Document::new(&self.v3_index(server, catalog)));
                Some(index.answer(headers, "application/json"))
            }
            _ => None,
        }
    }

    fn v3_index(&self, server: &Inner, catalog: &Catalog) -> Value {
        let mut index = catalog.documents().v3_index(server);
        if let Some(paths) = index.get_mut("paths").and_then(Value::as_object_mut) {
            for told in &self.told {
                let path = format!("apis/{}/{}", told.group, told.version);
                paths.remove(&path);
                if let Some(url) = &told.learned.v3 {
                    paths.insert(path, json!({"serverRelativeURL": url}));
                }
            }
        }
        index
    }

    fn paths(&self, catalog: &Catalog) -> Value {
        let mut document = catalog.documents().paths();
        if let Some(paths) = document.get_mut("paths").and_then(Value::as_array_mut) {
            for told in &self.told {
                for path in [format!("/apis/{}", told.group), format!("/apis/{}/{}", told.group, told.version)] {
                    let path = Value::from(path);
                    if !paths.contains(&path) {
                        paths.push(path);
                    }
                }
            }
        }
        document
    }
}

/// Has every reference to a schema lead to its new name, if it has one.
fn renamed(value: &mut Value, names: &Map<String, Value>) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(to)) = fields.get_mut("$ref")
                && let Some(Value::String(name)) = to.strip_prefix("#/definitions/").and_then(|name| names.get(name))
            {
                *to = format!("#/definitions/{name}");
            }
            fields.values_mut().for_each(|value| renamed(value, names));
        }
        Value::Array(items) => items.iter_mut().for_each(|value| renamed(value, names)),
        _ => {}
    }
}

/// Takes out what this server says of a group and version that another one serves.
fn drop_v2(document: &mut Value, told: &Told) {
    let base = format!("/apis/{}/{}", told.group, told.version);
    let is_theirs = |path: &str| path.strip_prefix(&base).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if let Some(paths) = document.get_mut("paths").and_then(Value::as_object_mut) {
        paths.retain(|path, _| !is_theirs(path));
    }
    let is_of = |mark: &Value| mark["group"] == *told.group && mark["version"] == *told.version;
    if let Some(schemas) = document.get_mut("definitions").and_then(Value::as_object_mut) {
        schemas.retain(|_, schema| {
            let marks = schema.get("x-kubernetes-group-version-kind").and_then(Value::as_array);
            marks.is_none_or(|marks| !marks.iter().all(is_of))
        });
    }
}

/// Adds paths and schemas of another document; a schema whose name stands for another one here gets a new name.
fn add_v2(document: &mut Value, theirs: &Value) {
    let mut theirs = theirs.clone();
    let own = document.get("definitions").and_then(Value::as_object).cloned().unwrap_or_default();
    let mut names = Map::new();
    for (name, schema) in theirs.get("definitions").and_then(Value::as_object).into_iter().flatten() {
        if own.get(name).is_some_and(|known| known != schema) {
            let free = (2_u32..).map(|n| format!("{name}_v{n}")).find(|new| !own.contains_key(new));
            names.insert(name.clone(), free.into());
        }
    }
    renamed(&mut theirs, &names);
    for field in ["paths", "definitions"] {
        let Some(into) = document.get_mut(field).and_then(Value::as_object_mut) else { continue };
        for (name, value) in
            theirs.get_mut(field).and_then(Value::as_object_mut).map(std::mem::take).into_iter().flatten()
        {
            let name = names
                .get(&name)
                .filter(|_| field == "definitions")
                .and_then(Value::as_str)
                .map_or(name.clone(), str::to_owned);
            into.insert(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use coracle_proto::resource::old;

    use super::*;

    fn told(group: &str, version: &str, group_priority: i32, version_priority: i32) -> Told {
        Told {
            group: group.to_owned(),
            version: version.to_owned(),
            group_priority,
            version_priority,
            is_fresh: true,
            learned: Arc::default(),
        }
    }

    #[test]
    fn groups_stand_by_priority_and_versions_by_theirs() {
        let rows: Vec<_> = old::all().collect();
        let remotes = [
            told("sea.example", "v1", 500, 10),
            told("sea.example", "v2", 600, 20),
            told("river.example", "v1", 17_850, 15),
            told("apps", "v2", 100, 1),
        ];
        let merged = groups(&rows, &remotes);
        let names: Vec<&str> = merged.iter().map(|group| group.name.as_str()).collect();
        assert_eq!(names[..2], ["river.example", "apps"], "before all of a lower priority");
        assert_eq!(names[names.len() - 2..], ["sea.example", "metrics.k8s.io"]);
        let of = |name: &str| merged.iter().find(|group| group.name == name).unwrap().version_names();
        assert_eq!(of("sea.example"), ["v2", "v1"]);
        assert_eq!(of("apps").first(), Some(&"v1"));
        assert!(of("apps").contains(&"v2"));
        // Nothing else moves.
        let before: Vec<&str> =
            discovery::groups(&rows).into_iter().map(|(group, _)| group).filter(|g| !g.is_empty()).collect();
        let kept: Vec<&str> = names.into_iter().filter(|name| before.contains(name)).collect();
        assert_eq!(kept, before);
    }

    #[test]
    fn what_another_server_serves_is_told_of_as_it_tells() {
        let marked = |group: &str| json!({"x-kubernetes-group-version-kind": [{"group": group, "version": "v1"}]});
        let mut document = json!({
            "paths": {"/apis/sea.example/v1/fish": {}, "/apis/sea.example/v1": {}, "/apis/sea.example/v10/fish": {}},
            "definitions": {"Fish": marked("sea.example"), "Pod": marked(""), "Plain": {}},
        });
        drop_v2(&mut document, &told("sea.example", "v1", 1, 1));
        let kept =
            json!({"paths": {"/apis/sea.example/v10/fish": {}}, "definitions": {"Pod": marked(""), "Plain": {}}});
        assert_eq!(document, kept);
    }

    #[test]
    fn a_schema_of_another_meaning_gets_another_name() {
        let mut document = json!({"paths": {}, "definitions": {"A": {"type": "string"}, "B": {"type": "string"}}});
        let theirs = json!({
            "paths": {"/x": {"schema": {"$ref": "#/definitions/A"}, "other": {"$ref": "#/definitions/B"}}},
            "definitions": {"A": {"type": "object"}, "B": {"type": "string"}},
        });
        add_v2(&mut document, &theirs);
        assert_eq!(
            document,
            json!({
                "paths": {"/x": {"schema": {"$ref": "#/definitions/A_v2"}, "other": {"$ref": "#/definitions/B"}}},
                "definitions": {"A": {"type": "string"}, "A_v2": {"type": "object"}, "B": {"type": "string"}},
            })
        );
    }
}
