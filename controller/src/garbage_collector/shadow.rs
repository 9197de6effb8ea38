//! What garbage collection needs of an object of any kind: who it is, whom it belongs to, how it is being deleted.

use std::{fmt, sync::Arc};

use coracle_proto::resource::{RESOURCES, Resource, find_kind, old};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::core::{ApiResource, GroupVersionKind};

/// The finalizer of an object that goes only after its dependents.
pub(crate) const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer of an object whose dependents stay.
pub(crate) const ORPHAN: &str = "orphan";

/// What names an object for ever, unlike its name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Uid(Arc<str>);

impl Uid {
    pub(crate) fn new(uid: &str) -> Self {
        Self(uid.into())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One owner of an object, as the object names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Owner {
    pub(crate) uid: Uid,
    pub(crate) api_version: String,
    pub(crate) kind: String,
    pub(crate) name: String,
    /// An owner that is deleted in the foreground waits for this dependent.
    pub(crate) blocks: bool,
}

impl Owner {
    fn of(reference: &OwnerReference) -> Self {
        Self {
            uid: Uid::new(&reference.uid),
            api_version: reference.api_version.clone(),
            kind: reference.kind.clone(),
            name: reference.name.clone(),
            blocks: reference.block_owner_deletion == Some(true),
        }
    }

    /// The API group its kind is in; empty for the core group.
    pub(crate) fn group(&self) -> &str {
        self.api_version.split_once('/').map_or("", |(group, _)| group)
    }
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shadow {
    pub(crate) resource: &'static Resource,
    /// Empty for cluster-scoped kinds.
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: Uid,
    pub(crate) owners: Vec<Owner>,
    /// It has a deletionTimestamp.
    pub(crate) deleting: bool,
    /// It has the finalizer that makes it wait for its dependents.
    pub(crate) awaits_dependents: bool,
    /// It has the finalizer that makes its dependents stay.
    pub(crate) orphans_dependents: bool,
}

impl Shadow {
    /// The shadow of an object of this kind.
    pub(crate) fn of(resource: &'static Resource, meta: &ObjectMeta) -> Self {
        let has = |finalizer| meta.finalizers.iter().flatten().any(|f| f == finalizer);
        Self {
            resource,
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            uid: Uid::new(meta.uid.as_deref().unwrap_or_default()),
            owners: meta.owner_references.iter().flatten().map(Owner::of).collect(),
            deleting: meta.deletion_timestamp.is_some(),
            awaits_dependents: has(FOREGROUND),
            orphans_dependents: has(ORPHAN),
        }
    }

    /// Being deleted, and gone only after its dependents.
    pub(crate) fn is_awaiting_dependents(&self) -> bool {
        self.deleting && self.awaits_dependents
    }

    /// Whether `owner`, as a dependent in `namespace` names it, means this object.
    pub(crate) fn is_meant_by(&self, owner: &Owner, namespace: &str) -> bool {
        // Under an old group it is the same object.
        let is_of = || self.resource.group == owner.group() || resource_of(owner) == Some(self.resource);
        self.uid == owner.uid
            && self.resource.kind == owner.kind
            && is_of()
            && self.name == owner.name
            && (self.namespace.is_empty() || self.namespace == namespace)
    }
}

/// How the client names a built-in resource.
pub(crate) fn api_resource(resource: &Resource) -> ApiResource {
    let kind = GroupVersionKind::gvk(resource.group, resource.version, resource.kind);
    ApiResource::from_gvk_with_plural(&kind, resource.plural)
}

/// The kinds that are collected: all that are stored and can be deleted, but not events, which own and are owned by
/// nothing and of which there are many.
pub(crate) fn collected() -> impl Iterator<Item = &'static Resource> {
    let is_collected =
        |r: &Resource| r.kind != "Event" && ["list", "watch", "delete"].iter().all(|verb| r.serves(verb));
    // What is served in several versions is one object all the same: it is watched in the first of them.
    let is_first = |place: usize, r: &Resource| !RESOURCES.iter().take(place).any(|before| before.storage == r.storage);
    RESOURCES.iter().enumerate().filter(move |(place, r)| is_collected(r) && is_first(*place, r)).map(|(_, r)| r)
}

/// Whether a resource is one of the table's, not of a definition's making.
pub(crate) fn is_built_in(resource: &Resource) -> bool {
    find_kind(resource.group, resource.version, resource.kind) == Some(resource)
}

/// The built-in resource an owner reference speaks of, by today's version or by an old one.
pub(crate) fn resource_of(owner: &Owner) -> Option<&'static Resource> {
    let version = owner.api_version.rsplit('/').next().unwrap_or_default();
    find_kind(owner.group(), version, &owner.kind).or_else(|| old::modern(owner.group(), version, &owner.kind))
}
