//! Checks of `metadata`, as apimachinery's `ValidateObjectMeta` words them.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde_json::Value;

use super::{FOREGROUND_FINALIZER, ORPHAN_FINALIZER};
use crate::field::{Error, Errors, Path};
use crate::name::{self, NameRule};
use crate::resource::Scope;

/// As many bytes as all keys and values of an object's annotations may have together.
pub const ANNOTATIONS_SIZE_LIMIT: usize = 256 * 1024;

const STANDARD_FINALIZERS: &[&str] = &["kubernetes", ORPHAN_FINALIZER, FOREGROUND_FINALIZER];

fn all_invalid(path: &Path, value: &str, messages: Vec<String>) -> impl Iterator<Item = Error> {
    messages.into_iter().map(move |message| Error::invalid(path, value, &message))
}

fn to_value(value: &impl serde::Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

/// Checks the metadata of a new object, whose name has been generated already if it was to be.
#[must_use]
pub fn validate_object_meta(meta: &ObjectMeta, scope: Scope, rule: NameRule, path: &Path) -> Errors {
    let mut errors = Errors::new();
    if let Some(prefix) = meta.generate_name.as_deref().filter(|p| !p.is_empty()) {
        errors.extend(all_invalid(&path.child("generateName"), prefix, rule(prefix, true)));
    }
    match meta.name.as_deref().unwrap_or_default() {
        "" => errors.push(Error::required(&path.child("name"), "name or generateName is required")),
        name => errors.extend(all_invalid(&path.child("name"), name, rule(name, false))),
    }
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let at = path.child("namespace");
    match (scope, namespace) {
        (Scope::Namespaced, "") => errors.push(Error::required(&at, "")),
        (Scope::Namespaced, namespace) => errors.extend(all_invalid(&at, namespace, name::dns1123_label(namespace))),
        (Scope::Cluster, "") => {}
        (Scope::Cluster, _) => errors.push(Error::forbidden(&at, "not allowed on this type")),
    }
    if let Some(generation) = meta.generation.filter(|g| *g < 0) {
        let detail = "must be greater than or equal to 0";
        errors.push(Error::invalid(&path.child("generation"), generation, detail));
    }
    errors.extend(validate_shared(meta, path));
    errors
}

/// What is checked at creation and at update alike.
fn validate_shared(meta: &ObjectMeta, path: &Path) -> Errors {
    let mut errors = Errors::new();
    if let Some(labels) = &meta.labels {
        errors.extend(validate_labels(labels, &path.child("labels")));
    }
    if let Some(annotations) = &meta.annotations {
        errors.extend(validate_annotations(annotations, &path.child("annotations")));
    }
    if let Some(owners) = &meta.owner_references {
        errors.extend(validate_owner_references(owners, &path.child("ownerReferences")));
    }
    if let Some(finalizers) = &meta.finalizers {
        errors.extend(validate_finalizers(finalizers, &path.child("finalizers")));
    }
    errors
}

/// Checks the metadata of an object against the one it takes the place of.
///
/// Assumes that what clients may leave out on update (uid, timestamps, generation) was filled in from `old` before.
#[must_use]
pub fn validate_object_meta_update(new: &ObjectMeta, old: &ObjectMeta, path: &Path) -> Errors {
    let mut errors = Errors::new();
    if old.deletion_timestamp.is_some() {
        let known = old.finalizers.as_deref().unwrap_or_default();
        let mut added: Vec<&String> = new.finalizers.iter().flatten().filter(|f| !known.contains(f)).collect();
        added.sort_unstable();
        added.dedup();
        if !added.is_empty() {
            let list: Vec<String> = added.iter().map(|f| format!("{f:?}")).collect();
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                list.join(", ")
            );
            errors.push(Error::forbidden(&path.child("finalizers"), &detail));
        }
    }
    if new.resource_version.as_deref().unwrap_or_default().is_empty() {
        errors.push(Error::invalid(&path.child("resourceVersion"), "", "must be specified for an update"));
    }
    if new.generation.unwrap_or_default() < old.generation.unwrap_or_default() {
        let generation = new.generation.unwrap_or_default();
        errors.push(Error::invalid(&path.child("generation"), generation, "must not be decremented"));
    }
    let texts =
        [("name", &new.name, &old.name), ("namespace", &new.namespace, &old.namespace), ("uid", &new.uid, &old.uid)];
    for (field, new, old) in texts {
        let (new, old) = (new.as_deref().unwrap_or_default(), old.as_deref().unwrap_or_default());
        if new != old {
            errors.push(Error::immutable(&path.child(field), new));
        }
    }
    if new.creation_timestamp != old.creation_timestamp {
        errors.push(Error::immutable(&path.child("creationTimestamp"), to_value(&new.creation_timestamp)));
    }
    if new.deletion_timestamp != old.deletion_timestamp {
        errors.push(Error::immutable(&path.child("deletionTimestamp"), to_value(&new.deletion_timestamp)));
    }
    if new.deletion_grace_period_seconds != old.deletion_grace_period_seconds {
        let value = to_value(&new.deletion_grace_period_seconds);
        errors.push(Error::immutable(&path.child("deletionGracePeriodSeconds"), value));
    }
    errors.extend(validate_shared(new, path));
    errors
}

/// Checks labels: keys are qualified names, values label values. Pod templates are checked with it as well.
#[must_use]
pub fn validate_labels(labels: &BTreeMap<String, String>, path: &Path) -> Errors {
    let mut errors = Errors::new();
    for (key, value) in labels {
        errors.extend(all_invalid(path, key, name::qualified_name(key)));
        errors.extend(all_invalid(path, value, name::label_value(value)));
    }
    errors
}

/// Checks annotations: keys are qualified names in any case, and the whole is bounded.
#[must_use]
pub fn validate_annotations(annotations: &BTreeMap<String, String>, path: &Path) -> Errors {
    let mut errors = Errors::new();
    let mut size = 0;
    for (key, value) in annotations {
        errors.extend(all_invalid(path, key, name::qualified_name(&key.to_lowercase())));
        size += key.len() + value.len();
    }
    if size > ANNOTATIONS_SIZE_LIMIT {
        errors.push(Error::too_long(path, ANNOTATIONS_SIZE_LIMIT));
    }
    errors
}

/// Checks owner references: each is complete, no event owns anything, and one at most is the controller.
#[must_use]
pub fn validate_owner_references(owners: &[OwnerReference], path: &Path) -> Errors {
    let mut errors = Errors::new();
    let mut controller: Option<String> = None;
    for owner in owners {
        // Kubernetes names the list here, not the element.
        let (_, version) = super::group_version(&owner.api_version);
        if version.is_empty() {
            errors.push(Error::invalid(
                &path.child("apiVersion"),
                owner.api_version.as_str(),
                "version must not be empty",
            ));
        }
        for (field, value) in [("kind", &owner.kind), ("name", &owner.name), ("uid", &owner.uid)] {
            if value.is_empty() {
                errors.push(Error::invalid(&path.child(field), "", "must not be empty"));
            }
        }
        if owner.api_version == "v1" && owner.kind == "Event" {
            let detail = "/v1, Kind=Event is disallowed from being an owner";
            errors.push(Error::invalid(path, to_value(owner), detail));
        }
        if owner.controller == Some(true) {
            let this = format!("{}/{}", owner.kind, owner.name);
            match &controller {
                None => controller = Some(this),
                Some(first) => {
                    let detail = format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} \
                         and {this}"
                    );
                    errors.push(Error::invalid(path, to_value(&owners), &detail));
                }
            }
        }
    }
    errors
}

/// Checks finalizers: qualified names, and not both ways to treat dependents.
#[must_use]
pub fn validate_finalizers(finalizers: &[String], path: &Path) -> Errors {
    let mut errors = Errors::new();
    for finalizer in finalizers {
        errors.extend(all_invalid(path, finalizer, name::qualified_name(finalizer)));
    }
    let has = |name: &str| finalizers.iter().any(|f| f == name);
    if has(ORPHAN_FINALIZER) && has(FOREGROUND_FINALIZER) {
        let detail = format!("finalizer {ORPHAN_FINALIZER} and {FOREGROUND_FINALIZER} cannot be both set");
        errors.push(Error::invalid(path, to_value(&finalizers), &detail));
    }
    errors
}

/// Whether a finalizer is one of Kubernetes' own, or has a domain.
#[must_use]
pub fn is_qualified_finalizer(finalizer: &str) -> bool {
    finalizer.contains('/') || STANDARD_FINALIZERS.contains(&finalizer)
}

/// Checks that all finalizers are Kubernetes' own or have a domain, as most built-in kinds want it. Custom resources take
/// any, and warn.
#[must_use]
pub fn validate_qualified_finalizers(finalizers: &[String], path: &Path) -> Errors {
    let mut errors = Errors::new();
    for (i, finalizer) in finalizers.iter().enumerate().filter(|(_, finalizer)| !is_qualified_finalizer(finalizer)) {
        let detail = "name is neither a standard finalizer name nor is it fully qualified";
        errors.push(Error::invalid(&path.index(i), finalizer.as_str(), detail));
    }
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn meta(value: Value) -> ObjectMeta {
        serde_json::from_value(value).unwrap()
    }

    fn created(value: Value, scope: Scope) -> Vec<String> {
        let errors = validate_object_meta(&meta(value), scope, name::subdomain_rule, &Path::new("metadata"));
        errors.iter().map(ToString::to_string).collect()
    }

    fn updated(new: Value, old: Value) -> Vec<String> {
        let errors = validate_object_meta_update(&meta(new), &meta(old), &Path::new("metadata"));
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_name_and_a_namespace_are_asked_for() {
        assert_eq!(created(json!({"name": "a", "namespace": "b"}), Scope::Namespaced), Vec::<String>::new());
        assert_eq!(
            created(json!({}), Scope::Namespaced),
            ["metadata.name: Required value: name or generateName is required", "metadata.namespace: Required value"]
        );
        assert_eq!(
            created(json!({"name": "a", "namespace": "b"}), Scope::Cluster),
            ["metadata.namespace: Forbidden: not allowed on this type"]
        );
        let errors = created(json!({"name": "A", "namespace": "b.c", "generateName": "x-"}), Scope::Namespaced);
        assert!(
            errors[0].starts_with("metadata.name: Invalid value: \"A\": a lowercase RFC 1123 subdomain"),
            "{errors:?}"
        );
        assert_eq!(errors[1..], ["metadata.namespace: Invalid value: \"b.c\": must not contain dots"]);
    }

    #[test]
    fn labels_and_annotations_are_checked_and_bounded() {
        let long = "x".repeat(ANNOTATIONS_SIZE_LIMIT);
        let errors = created(
            json!({"name": "a", "labels": {"a": "-", "/b": "c"}, "annotations": {"A.b/C": "ä", "k": long}}),
            Scope::Cluster,
        );
        assert_eq!(errors.len(), 3, "{errors:?}");
        assert_eq!(errors[0], "metadata.labels: Invalid value: \"/b\": prefix part must be non-empty");
        assert!(errors[1].starts_with("metadata.labels: Invalid value: \"-\": a valid label must be"));
        assert_eq!(errors[2], "metadata.annotations: Too long: may not be more than 262144 bytes");
    }

    #[test]
    fn one_owner_at_most_is_the_controller() {
        let owner =
            |name: &str| json!({"apiVersion": "apps/v1", "kind": "X", "name": name, "uid": "u", "controller": true});
        let errors = created(json!({"name": "a", "ownerReferences": [owner("b"), owner("c")]}), Scope::Cluster);
        assert_eq!(errors.len(), 1);
        assert!(errors[0].ends_with("Found \"true\" in references for X/b and X/c"), "{errors:?}");
        let empty = json!({"name": "a", "ownerReferences": [{"apiVersion": "", "kind": "", "name": "", "uid": ""}]});
        assert_eq!(
            created(empty, Scope::Cluster),
            [
                "metadata.ownerReferences.apiVersion: Invalid value: \"\": version must not be empty",
                "metadata.ownerReferences.kind: Invalid value: \"\": must not be empty",
                "metadata.ownerReferences.name: Invalid value: \"\": must not be empty",
                "metadata.ownerReferences.uid: Invalid value: \"\": must not be empty",
            ]
        );
    }

    #[test]
    fn finalizers_are_kubernetes_own_or_have_a_domain() {
        let finalizers = ["orphan", "x.io/y", "mine"].map(str::to_owned);
        let told = validate_qualified_finalizers(&finalizers, &Path::new("metadata.finalizers"));
        assert_eq!(
            told.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["metadata.finalizers[2]: Invalid value: \"mine\": name is neither a standard finalizer name nor is it \
                 fully qualified"]
        );
        assert!(created(json!({"name": "a", "finalizers": finalizers}), Scope::Cluster).is_empty());
        let both = created(json!({"name": "a", "finalizers": ["orphan", "foregroundDeletion"]}), Scope::Cluster);
        assert!(both[0].ends_with("finalizer orphan and foregroundDeletion cannot be both set"), "{both:?}");
    }

    #[test]
    fn an_update_changes_no_identity() {
        let old = json!({"name": "a", "uid": "u", "resourceVersion": "1", "generation": 2,
            "creationTimestamp": "2024-01-01T00:00:00Z"});
        assert_eq!(updated(old.clone(), old.clone()), Vec::<String>::new());
        let new = json!({"name": "b", "uid": "v", "generation": 1, "creationTimestamp": "2024-01-01T00:00:01Z"});
        assert_eq!(
            updated(new, old),
            [
                "metadata.resourceVersion: Invalid value: \"\": must be specified for an update",
                "metadata.generation: Invalid value: 1: must not be decremented",
                "metadata.name: Invalid value: \"b\": field is immutable",
                "metadata.uid: Invalid value: \"v\": field is immutable",
                "metadata.creationTimestamp: Invalid value: \"2024-01-01T00:00:01Z\": field is immutable",
            ]
        );
    }

    #[test]
    fn what_is_deleted_takes_no_new_finalizers() {
        let deleted = "2024-01-01T00:00:00Z";
        let old = json!({"name": "a", "resourceVersion": "1", "deletionTimestamp": deleted, "finalizers": ["a.io/a", "a.io/b"]});
        let fewer =
            json!({"name": "a", "resourceVersion": "1", "deletionTimestamp": deleted, "finalizers": ["a.io/b"]});
        assert_eq!(updated(fewer, old.clone()), Vec::<String>::new());
        let more = json!({"name": "a", "resourceVersion": "1", "deletionTimestamp": deleted, "finalizers": ["a.io/c"]});
        assert_eq!(
            updated(more, old),
            ["metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found \
                 new finalizers []string{\"a.io/c\"}"]
        );
    }
}
