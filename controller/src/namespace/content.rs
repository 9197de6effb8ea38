//! What is in a namespace: finding it by discovery, deleting it, counting what is left.

use std::collections::BTreeMap;

use coracle_proto::resource::old;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResourceList;
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Preconditions},
    core::{ApiResource, DynamicObject, GroupVersionKind},
};

use super::conditions::Findings;

/// A resource whose objects live in namespaces and can be deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) resource: ApiResource,
    verbs: Vec<String>,
}

impl Content {
    fn serves(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }

    /// Pods go before everything else (KEP-5080): what protects them must not go first.
    pub(crate) fn is_pods(&self) -> bool {
        self.resource.group.is_empty() && self.resource.plural == "pods"
    }
}

/// A resource's objects, after they were deleted as far as they could be.
#[derive(Debug, Default)]
pub(crate) struct Left {
    count: usize,
    finalizers: BTreeMap<String, usize>,
}

/// Finds all resources whose objects may be in a namespace; what fails is noted in `found`.
pub(crate) async fn discover(client: &Client, found: &mut Findings) -> Vec<Content> {
    let mut all = Vec::new();
    let mut failed = Vec::new();
    match client.list_core_api_resources("v1").await {
        Ok(list) => all.extend(contents(&list, found)),
        Err(error) => failed.push(undiscovered("v1", &error)),
    }
    let groups = match client.list_api_groups().await {
        Ok(list) => list.groups,
        Err(error) => {
            found.undiscovered.push(text(&error));
            Vec::new()
        }
    };
    for group in groups {
        let version = group.preferred_version.as_ref().or(group.versions.first());
        let Some(version) = version.map(|v| v.group_version.clone()) else { continue };
        match client.list_api_group_resources(&version).await {
            Ok(list) => all.extend(contents(&list, found)),
            Err(error) => failed.push(undiscovered(&version, &error)),
        }
    }
    if !failed.is_empty() {
        let failed = failed.join(", ");
        found.undiscovered.push(format!("unable to retrieve the complete list of server APIs: {failed}"));
    }
    all
}

/// What is said of a group and version that discovery does not tell about. Another server may serve it, which is not there.
fn undiscovered(version: &str, error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if status.code == 503 => format!("{version}: stale GroupVersion discovery: {version}"),
        error => format!("{version}: {}", text(error)),
    }
}

fn contents(list: &APIResourceList, found: &mut Findings) -> Vec<Content> {
    let (group, version) = match list.group_version.split('/').collect::<Vec<_>>().as_slice() {
        [version] => ("", *version),
        [group, version] => (*group, *version),
        _ => {
            found.unparsed.push(format!("unexpected GroupVersion string: {}", list.group_version));
            return Vec::new();
        }
    };
    let own = list.resources.iter().filter(|r| r.namespaced && !r.name.contains('/'));
    // What is there under an old name is there under today's as well, and one object is one.
    own.filter(|r| r.verbs.iter().any(|verb| verb == "delete") && old::modern(group, version, &r.kind).is_none())
        .map(|r| {
            let kind = GroupVersionKind::gvk(group, version, &r.kind);
            Content { resource: ApiResource::from_gvk_with_plural(&kind, &r.name), verbs: r.verbs.clone() }
        })
        .collect()
}

/// An API error in its own words.
fn text(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// Deletes all objects of one resource in the namespace, each with the grace it asks for, and notes in `found` what is
/// left of them.
pub(crate) async fn delete(client: &Client, namespace: &str, content: &Content, found: &mut Findings) {
    match delete_and_count(client, namespace, content).await {
        Ok(left) => {
            if left.count > 0 {
                let name = format!("{}.{}", content.resource.plural, content.resource.group);
                found.remaining.insert(name, left.count);
            }
            for (finalizer, count) in left.finalizers {
                *found.finalizers.entry(finalizer).or_default() += count;
            }
        }
        // A resource that is served no longer has nothing left.
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => found.undeleted.push(text(&error)),
    }
}

async fn delete_and_count(client: &Client, namespace: &str, content: &Content) -> Result<Left, kube::Error> {
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &content.resource);
    let deletion = DeleteParams::background();
    if content.serves("deletecollection") {
        match api.delete_collection(&deletion, &ListParams::default()).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 405 => delete_each(&api, &deletion).await?,
            Err(error) => return Err(error),
        }
    } else {
        delete_each(&api, &deletion).await?;
    }
    let mut left = Left::default();
    if content.serves("list") {
        for object in api.list_metadata(&ListParams::default()).await? {
            left.count += 1;
            for finalizer in object.metadata.finalizers.unwrap_or_default() {
                *left.finalizers.entry(finalizer).or_default() += 1;
            }
        }
    }
    Ok(left)
}

async fn delete_each(api: &Api<DynamicObject>, deletion: &DeleteParams) -> Result<(), kube::Error> {
    for object in api.list_metadata(&ListParams::default()).await? {
        let preconditions = Some(Preconditions { uid: object.metadata.uid, resource_version: None });
        let deletion = DeleteParams { preconditions, ..deletion.clone() };
        match api.delete(&object.metadata.name.unwrap_or_default(), &deletion).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lives_in_namespaces_and_can_be_deleted_is_content() {
        let list = |version: &str| -> APIResourceList {
            serde_json::from_value(serde_json::json!({
                "groupVersion": version,
                "resources": [
                    {"name": "pods", "namespaced": true, "kind": "Pod", "singularName": "", "verbs": ["delete", "list"]},
                    {"name": "pods/status", "namespaced": true, "kind": "Pod", "singularName": "", "verbs": ["delete"]},
                    {"name": "nodes", "namespaced": false, "kind": "Node", "singularName": "", "verbs": ["delete"]},
                    {"name": "bindings", "namespaced": true, "kind": "Binding", "singularName": "", "verbs": ["create"]},
                ],
            }))
            .unwrap()
        };
        let mut found = Findings::default();
        let core = contents(&list("v1"), &mut found);
        assert_eq!(core.iter().map(|c| c.resource.plural.as_str()).collect::<Vec<_>>(), ["pods"]);
        assert!(core.iter().all(Content::is_pods));
        assert!(!contents(&list("example.com/v1"), &mut found).iter().any(Content::is_pods));
        let deployments = |version: &str| -> APIResourceList {
            serde_json::from_value(serde_json::json!({"groupVersion": version, "resources": [
                {"name": "deployments", "namespaced": true, "kind": "Deployment", "singularName": "", "verbs": ["delete"]},
            ]}))
            .unwrap()
        };
        assert_eq!(contents(&deployments("apps/v1"), &mut found).len(), 1);
        assert!(contents(&deployments("extensions/v1beta1"), &mut found).is_empty(), "the same objects once more");
        assert!(found.is_clean() && contents(&list("a/b/c"), &mut found).is_empty());
        assert_eq!(found.unparsed, ["unexpected GroupVersion string: a/b/c"]);
    }
}
