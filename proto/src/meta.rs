//! What all objects share: checks of `metadata`, owner references, conditions.

mod condition;
mod lean;
mod validation;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

pub use self::condition::{Condition, find_condition, is_condition_true, remove_condition, set_condition};
pub use self::lean::lean;
pub use self::validation::{
    ANNOTATIONS_SIZE_LIMIT, is_qualified_finalizer, validate_annotations, validate_finalizers, validate_labels,
    validate_object_meta, validate_object_meta_update, validate_owner_references, validate_qualified_finalizers,
};

/// The finalizer of a deletion that leaves the dependents alone.
pub const ORPHAN_FINALIZER: &str = "orphan";

/// The finalizer of a deletion that waits until the dependents are gone.
pub const FOREGROUND_FINALIZER: &str = "foregroundDeletion";

/// The owner reference that says which object manages this one, if any.
#[must_use]
pub fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// Whether the object with this uid manages the one with `meta`.
#[must_use]
pub fn is_controlled_by(meta: &ObjectMeta, uid: &str) -> bool {
    controller_of(meta).is_some_and(|owner| owner.uid == uid)
}

/// Whether the object with this uid owns the one with `meta`, managing it or not.
#[must_use]
pub fn is_owned_by(meta: &ObjectMeta, uid: &str) -> bool {
    meta.owner_references.iter().flatten().any(|owner| owner.uid == uid)
}

/// The reference a controller puts on what it makes; deleting the owner in the foreground waits for it.
#[must_use]
pub fn controller_reference(api_version: &str, kind: &str, owner: &ObjectMeta) -> OwnerReference {
    OwnerReference {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        name: owner.name.clone().unwrap_or_default(),
        uid: owner.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Whether the object is on its way out: it has a deletion timestamp.
#[must_use]
pub fn is_deleting(meta: &ObjectMeta) -> bool {
    meta.deletion_timestamp.is_some()
}

/// The group and version of an `apiVersion`: `("apps", "v1")`, `("", "v1")`.
#[must_use]
pub fn group_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

/// A `resourceVersion` as clients send it: absent or empty is `None`, `0` is `Some(0)`.
///
/// # Errors
/// Kubernetes' sentence, for a text that is no unsigned number.
pub fn parse_resource_version(text: &str) -> Result<Option<u64>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!(
            "invalid resource version \"{text}\": strconv.ParseUint: parsing {text:?}: invalid syntax"
        ));
    }
    let out_of_range =
        |_| format!("invalid resource version \"{text}\": strconv.ParseUint: parsing {text:?}: value out of range");
    text.parse().map(Some).map_err(out_of_range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_controller_is_told_from_an_owner() {
        let owner = ObjectMeta { name: Some("o".into()), uid: Some("u".into()), ..ObjectMeta::default() };
        let reference = controller_reference("apps/v1", "ReplicaSet", &owner);
        let mut meta = ObjectMeta { owner_references: Some(vec![reference]), ..ObjectMeta::default() };
        assert!(is_controlled_by(&meta, "u") && is_owned_by(&meta, "u") && !is_controlled_by(&meta, "v"));
        meta.owner_references.as_mut().unwrap()[0].controller = None;
        assert!(!is_controlled_by(&meta, "u") && is_owned_by(&meta, "u"));
    }

    #[test]
    fn resource_versions_are_unsigned_numbers() {
        assert_eq!(parse_resource_version(""), Ok(None));
        assert_eq!(parse_resource_version("0"), Ok(Some(0)));
        assert_eq!(parse_resource_version("18446744073709551615"), Ok(Some(u64::MAX)));
        for bad in ["-1", "+1", "x", "1.0", "18446744073709551616"] {
            assert!(parse_resource_version(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_core_group_has_no_slash() {
        assert_eq!(group_version("v1"), ("", "v1"));
        assert_eq!(group_version("apps/v1"), ("apps", "v1"));
    }
}
