//! Discovery: what is served, as the documents clients learn it from.
//!
//! Two forms of the same table of resources: one document a group and version (`APIGroupList`, `APIResourceList`), and the
//! aggregated form that has all in one (`apidiscovery.k8s.io/v2`, KEP-3352). Pure: the HTTP side caches what it needs.

use coracle_proto::resource::{Resource, Scope, Subresource};
use serde_json::{Map, Value, json};

/// All resources there are, in discovery's order.
pub type Rows<'a> = &'a [&'static Resource];

/// The groups, in the table's order, each with its versions, the preferred one first. The core group's name is empty.
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

/// `/api/v1` or `/apis/<group>/<version>`, if it is served.
#[must_use]
pub fn resource_list(rows: Rows<'_>, group: &str, version: &str) -> Option<Value> {
    let mut resources = Vec::new();
    for resource in in_version(rows, group, version) {
        let mut row = json!({
            "name": resource.plural, "singularName": resource.singular, "namespaced": is_namespaced(resource),
            "kind": resource.kind, "verbs": resource.verbs,
        });
        if let Some(row) = row.as_object_mut() {
            add_names(row, resource);
        }
        resources.push(row);
        for sub in resource.subresources {
            let mut row = json!({
                "name": format!("{}/{}", resource.plural, sub.name), "singularName": "",
                "namespaced": is_namespaced(resource), "kind": sub.kind, "verbs": sub.verbs,
            });
            if let (false, Some(row)) = (is_at_home(resource, sub), row.as_object_mut()) {
                row.insert("group".to_owned(), sub.group.into());
                row.insert("version".to_owned(), sub.version.into());
            }
            resources.push(row);
        }
    }
    let name = |r: &Value| r.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    resources.sort_by_key(name);
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    let document = json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources,
    });
    (!resources_of(&document).is_empty()).then_some(document)
}

fn resources_of(document: &Value) -> &[Value] {
    document.get("resources").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
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
                let list = resource_list(&rows(), group, version).unwrap();
                plain.extend(
                    resources_of(&list).iter().map(|r| format!("{group}/{version}/{}", r["name"].as_str().unwrap())),
                );
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
        let list = resource_list(&rows(), "apps", "v1").unwrap();
        let scale = resources_of(&list).iter().find(|r| r["name"] == "deployments/scale").unwrap();
        assert_eq!(
            (&scale["group"], &scale["version"], &scale["kind"]),
            (&json!("autoscaling"), &json!("v1"), &json!("Scale"))
        );
    }

    #[test]
    fn what_is_not_served_has_no_document() {
        assert!(
            resource_list(&rows(), "apps", "v9").is_none()
                && group(&rows(), "nope").is_none()
                && group(&rows(), "").is_none()
        );
    }
}
