//! Discovery: what is served, as the documents clients learn it from.
//!
//! Two forms of the same table of resources: one document a group and version (`APIGroupList`, `APIResourceList`), and the
//! aggregated form that has all in one (`apidiscovery.k8s.io/v2`, KEP-3352). Pure: the HTTP side caches what it needs.

use base64::prelude::{BASE64_STANDARD, Engine};
use coracle_proto::resource::{RESOURCES, Resource, Scope, Subresource};
use serde::Serialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

/// All resources there are, in discovery's order.
pub type Rows<'a> = &'a [&'static Resource];

/// The group that comes after all others, those of definitions too: its resources are called as core ones are.
const LAST: &str = "metrics.k8s.io";

/// The groups, in the table's order but for the last one, each with its versions, the preferred one first. The core group's
/// name is empty.
#[must_use]
pub fn groups(rows: Rows<'_>) -> Vec<(&'static str, Vec<&'static str>)> {
    let mut groups: Vec<(&'static str, Vec<&'static str>)> = Vec::new();
    for resource in rows {
        match groups.iter_mut().find(|(group, _)| *group == resource.group) {
            Some((_, versions)) if versions.contains(&resource.version) => {}
            Some((_, versions)) => versions.push(resource.version),
            None => groups.push((resource.group, vec![resource.version])),
        }
    }
    groups.sort_by_key(|(group, _)| *group == LAST);
    groups
}

/// `/api`: the core group's versions. `server` is the address clients reach this server at.
#[must_use]
pub fn core_versions(server: &str) -> Value {
    let by_client = json!([{"clientCIDR": "0.0.0.0/0", "serverAddress": server}]);
    json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": by_client})
}

pub(crate) fn group_document(group: &str, versions: &[&str]) -> Map<String, Value> {
    let version = |v: &&str| json!({"groupVersion": format!("{group}/{v}"), "version": v});
    let all: Vec<Value> = versions.iter().map(version).collect();
    let preferred = all.first().cloned().unwrap_or_default();
    let mut document = Map::new();
    document.insert("name".to_owned(), group.into());
    document.insert("versions".to_owned(), all.into());
    document.insert("preferredVersion".to_owned(), preferred);
    document
}

/// `/apis`: every group but the core one.
#[must_use]
pub fn group_list(rows: Rows<'_>) -> Value {
    let named = groups(rows).into_iter().filter(|(group, _)| !group.is_empty());
    let groups: Vec<Value> = named.map(|(group, versions)| group_document(group, &versions).into()).collect();
    list_of_groups(groups)
}

/// `/apis` of these groups.
pub(crate) fn list_of_groups(groups: Vec<Value>) -> Value {
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/<group>`, if it is served.
#[must_use]
pub fn group(rows: Rows<'_>, name: &str) -> Option<Value> {
    let (_, versions) = groups(rows).into_iter().find(|(group, _)| !group.is_empty() && *group == name)?;
    Some(single_group(name, &versions))
}

/// `/apis/<group>` of a group with these versions.
pub(crate) fn single_group(name: &str, versions: &[&str]) -> Value {
    let mut document = group_document(name, versions);
    document.insert("kind".to_owned(), "APIGroup".into());
    document.insert("apiVersion".to_owned(), "v1".into());
    document.into()
}

fn in_version<'a>(rows: Rows<'a>, group: &'a str, version: &'a str) -> impl Iterator<Item = &'static Resource> + 'a {
    rows.iter().copied().filter(move |r| r.group == group && r.version == version)
}

/// A resource or subresource in a list of them, its fields in Kubernetes' order.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    name: String,
    singular_name: &'static str,
    namespaced: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    group: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    version: &'static str,
    kind: &'static str,
    verbs: &'static [&'static str],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    short_names: &'static [&'static str],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    categories: &'static [&'static str],
    #[serde(skip_serializing_if = "Option::is_none")]
    storage_version_hash: Option<String>,
}

/// What is served at one group and version.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceList {
    kind: &'static str,
    api_version: &'static str,
    group_version: String,
    resources: Vec<Row>,
}

/// The hash that tells clients which version of a kind is stored, in Kubernetes' form.
fn storage_version_hash(group: &str, version: &str, kind: &str) -> String {
    let digest = Sha256::digest(format!("{group}/{version}/{kind}"));
    BASE64_STANDARD.encode(digest.get(..8).unwrap_or_default())
}

/// The version that a built-in resource's objects are stored in: that of the row of its storage's own name.
fn built_in_storage(resource: &Resource) -> Option<(&'static str, &'static str)> {
    let mut stored = RESOURCES.iter().filter(|row| row.storage == resource.storage);
    stored.next().map(|row| (row.group, row.version))
}

/// `/api/v1` or `/apis/<group>/<version>`, if it is served. `custom_storage` knows the version that objects of a custom
/// resource are stored in.
#[must_use]
pub fn resource_list(
    rows: Rows<'_>,
    group: &str,
    version: &str,
    custom_storage: &dyn Fn(&Resource) -> Option<String>,
) -> Option<ResourceList> {
    let mut resources = Vec::new();
    for resource in in_version(rows, group, version) {
        let hash = match built_in_storage(resource) {
            // Neither reviews are, nor figures.
            Some(_) if !resource.is_stored() => None,
            Some((group, version)) => Some(storage_version_hash(group, version, resource.kind)),
            None => custom_storage(resource).map(|version| storage_version_hash(group, &version, resource.kind)),
        };
        resources.push(Row {
            name: resource.plural.to_owned(),
            singular_name: resource.singular,
            namespaced: is_namespaced(resource),
            group: "",
            version: "",
            kind: resource.kind,
            verbs: resource.verbs,
            short_names: resource.short_names,
            categories: resource.categories,
            storage_version_hash: hash,
        });
        for sub in resource.subresources {
            let (group, version) = if is_at_home(resource, sub) { ("", "") } else { (sub.group, sub.version) };
            resources.push(Row {
                name: format!("{}/{}", resource.plural, sub.name),
                singular_name: "",
                namespaced: is_namespaced(resource),
                group,
                version,
                kind: sub.kind,
                verbs: sub.verbs,
                short_names: &[],
                categories: &[],
                storage_version_hash: None,
            });
        }
    }
    resources.sort_by(|a, b| a.name.cmp(&b.name));
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    let list = ResourceList { kind: "APIResourceList", api_version: "v1", group_version, resources };
    (!list.resources.is_empty()).then_some(list)
}

fn is_namespaced(resource: &Resource) -> bool {
    resource.scope == Scope::Namespaced
}

/// Whether the subresource's kind is of its parent's group and version, which then goes without saying.
fn is_at_home(resource: &Resource, sub: &Subresource) -> bool {
    sub.group == resource.group && sub.version == resource.version
}

fn add_names(row: &mut Map<String, Value>, resource: &Resource) {
    if !resource.short_names.is_empty() {
        row.insert("shortNames".to_owned(), resource.short_names.into());
    }
    if !resource.categories.is_empty() {
        row.insert("categories".to_owned(), resource.categories.into());
    }
}

/// Which half of the aggregated document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// `/api`: the core group.
    Core,
    /// `/apis`: all others.
    Named,
}

/// `APIGroupDiscoveryList`: groups, versions, resources and subresources in one.
#[must_use]
pub fn aggregated(rows: Rows<'_>, half: Half) -> Value {
    let wanted = |group: &str| group.is_empty() == (half == Half::Core);
    let items: Vec<Value> = groups(rows)
        .into_iter()
        .filter(|(group, _)| wanted(group))
        .map(|(group, versions)| {
            let versions = versions.into_iter().map(|version| aggregated_version(rows, group, version)).collect();
            aggregated_group(group, versions)
        })
        .collect();
    aggregated_list(items)
}

/// The aggregated document of these groups.
pub(crate) fn aggregated_list(items: Vec<Value>) -> Value {
    json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items,
    })
}

/// A group in the aggregated document.
pub(crate) fn aggregated_group(group: &str, versions: Vec<Value>) -> Value {
    let mut metadata = json!({"creationTimestamp": null});
    if let (false, Some(metadata)) = (group.is_empty(), metadata.as_object_mut()) {
        metadata.insert("name".to_owned(), group.into());
    }
    json!({"metadata": metadata, "versions": versions})
}

/// A version that this server serves, in the aggregated document.
pub(crate) fn aggregated_version(rows: Rows<'_>, group: &str, version: &str) -> Value {
    let resources: Vec<Value> = in_version(rows, group, version).map(aggregated_resource).collect();
    json!({"version": version, "resources": resources, "freshness": "Current"})
}

fn aggregated_resource(resource: &'static Resource) -> Value {
    let scope = if is_namespaced(resource) { "Namespaced" } else { "Cluster" };
    let mut row = json!({
        "resource": resource.plural, "scope": scope, "singularResource": resource.singular, "verbs": resource.verbs,
        "responseKind": {"group": "", "version": "", "kind": resource.kind},
    });
    let subresources: Vec<Value> = resource
        .subresources
        .iter()
        .map(|sub| {
            let (group, version) = if is_at_home(resource, sub) { ("", "") } else { (sub.group, sub.version) };
            let kind = json!({"group": group, "version": version, "kind": sub.kind});
            json!({"subresource": sub.name, "responseKind": kind, "verbs": sub.verbs})
        })
        .collect();
    if let Some(row) = row.as_object_mut() {
        add_names(row, resource);
        if !subresources.is_empty() {
            row.insert("subresources".to_owned(), subresources.into());
        }
    }
    row
}

#[cfg(test)]
mod tests {
    use coracle_proto::resource::old;

    use super::*;

    fn rows() -> Vec<&'static Resource> {
        old::all().collect()
    }

    #[test]
    fn both_forms_tell_of_every_resource() {
        let mut plain = Vec::new();
        for (group, versions) in groups(&rows()) {
            for version in versions {
                let list = resource_list(&rows(), group, version, &|_| None).unwrap();
                plain.extend(list.resources.iter().map(|row| format!("{group}/{version}/{}", row.name)));
            }
        }
        let mut aggregated_names = Vec::new();
        for half in [Half::Core, Half::Named] {
            for group in aggregated(&rows(), half)["items"].as_array().unwrap() {
                let name = group["metadata"].get("name").and_then(Value::as_str).unwrap_or_default();
                for version in group["versions"].as_array().unwrap() {
                    for resource in version["resources"].as_array().unwrap() {
                        let path = format!(
                            "{name}/{}/{}",
                            version["version"].as_str().unwrap(),
                            resource["resource"].as_str().unwrap()
                        );
                        for sub in resource.get("subresources").and_then(Value::as_array).into_iter().flatten() {
                            aggregated_names.push(format!("{path}/{}", sub["subresource"].as_str().unwrap()));
                        }
                        aggregated_names.push(path);
                    }
                }
            }
        }
        plain.sort();
        aggregated_names.sort();
        assert_eq!(plain, aggregated_names);
        assert!(plain.contains(&"apps/v1/deployments/scale".to_owned()));
    }

    #[test]
    fn a_scale_says_which_group_its_kind_is_of() {
        let list = resource_list(&rows(), "apps", "v1", &|_| None).unwrap();
        let scale = list.resources.iter().find(|row| row.name == "deployments/scale").unwrap();
        assert_eq!((scale.group, scale.version, scale.kind), ("autoscaling", "v1", "Scale"));
    }

    #[test]
    fn a_row_is_written_as_kubernetes_writes_it() {
        let text = |group, version, name| {
            let list = resource_list(&rows(), group, version, &|_| None).unwrap();
            let row = list.resources.iter().find(|row| row.name == name).unwrap();
            serde_json::to_string(row).unwrap()
        };
        assert_eq!(
            text("", "v1", "pods"),
            r#"{"name":"pods","singularName":"pod","namespaced":true,"kind":"Pod","verbs":["create","delete","deletecollection","get","list","patch","update","watch"],"shortNames":["po"],"categories":["all"],"storageVersionHash":"xPOwRZ+Yhw8="}"#
        );
        // One that is shown by two groups is stored in one version; so is one that old groups show.
        let hash = |row: &str| row.rsplit_once("storageVersionHash").map(|(_, hash)| hash.to_owned());
        assert_eq!(hash(&text("", "v1", "events")), hash(&text("events.k8s.io", "v1", "events")));
        assert_eq!(hash(&text("apps", "v1", "deployments")), hash(&text("extensions", "v1beta1", "deployments")));
        assert_eq!(hash(&text("authorization.k8s.io", "v1", "subjectaccessreviews")), None);
        assert_eq!(hash(&text("apps", "v1", "deployments/scale")), None);
    }

    #[test]
    fn what_is_not_served_has_no_document() {
        assert!(
            resource_list(&rows(), "apps", "v9", &|_| None).is_none()
                && group(&rows(), "nope").is_none()
                && group(&rows(), "").is_none()
        );
    }
}
