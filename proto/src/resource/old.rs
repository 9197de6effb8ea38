//! Old groups and versions that today's kinds are served at as well, for manifests from before.
//!
//! Nothing is stored in an old version; what an object looks like in one is the API server's to say. The rows are made
//! from today's ones, without short names and categories, so that `kubectl get all` and `kubectl get deploy` mean
//! today's.

use std::sync::LazyLock;

use super::{RESOURCES, Resource, Subresource, find_kind};

/// Group, version, kind, and the group that the kind is in today (at `v1`).
const KINDS: &[(&str, &str, &str, &str)] = &[
    ("apps", "v1beta2", "ControllerRevision", "apps"),
    ("apps", "v1beta2", "DaemonSet", "apps"),
    ("apps", "v1beta2", "Deployment", "apps"),
    ("apps", "v1beta2", "ReplicaSet", "apps"),
    ("apps", "v1beta2", "StatefulSet", "apps"),
    ("apps", "v1beta1", "ControllerRevision", "apps"),
    ("apps", "v1beta1", "Deployment", "apps"),
    ("apps", "v1beta1", "StatefulSet", "apps"),
    ("apiextensions.k8s.io", "v1beta1", "CustomResourceDefinition", "apiextensions.k8s.io"),
    ("batch", "v1beta1", "CronJob", "batch"),
    ("networking.k8s.io", "v1beta1", "IngressClass", "networking.k8s.io"),
    ("networking.k8s.io", "v1beta1", "Ingress", "networking.k8s.io"),
    ("policy", "v1beta1", "PodDisruptionBudget", "policy"),
    ("rbac.authorization.k8s.io", "v1beta1", "ClusterRole", "rbac.authorization.k8s.io"),
    ("rbac.authorization.k8s.io", "v1beta1", "ClusterRoleBinding", "rbac.authorization.k8s.io"),
    ("rbac.authorization.k8s.io", "v1beta1", "Role", "rbac.authorization.k8s.io"),
    ("rbac.authorization.k8s.io", "v1beta1", "RoleBinding", "rbac.authorization.k8s.io"),
    ("extensions", "v1beta1", "DaemonSet", "apps"),
    ("extensions", "v1beta1", "Deployment", "apps"),
    ("extensions", "v1beta1", "Ingress", "networking.k8s.io"),
    ("extensions", "v1beta1", "NetworkPolicy", "networking.k8s.io"),
    ("extensions", "v1beta1", "ReplicaSet", "apps"),
];

/// The version of every kind in its group of today.
const TODAY: &str = "v1";

static ROWS: LazyLock<Vec<Resource>> = LazyLock::new(|| {
    let row = |(group, version, kind, today): &(&'static str, &'static str, &'static str, &'static str)| {
        let modern = find_kind(today, TODAY, kind)?;
        let own = |sub: &Subresource| {
            let is_own = sub.group == modern.group && sub.version == modern.version;
            if is_own { Subresource { group, version, ..*sub } } else { *sub }
        };
        // Once a process, so that old rows are as static as today's.
        let subresources = Box::leak(modern.subresources.iter().map(own).collect::<Box<[_]>>());
        Some(Resource { group, version, short_names: &[], categories: &[], subresources, ..*modern })
    };
    KINDS.iter().filter_map(row).collect()
});

/// The rows of old groups and versions, in discovery's order: newer before older.
#[must_use]
pub fn rows() -> &'static [Resource] {
    &ROWS
}

/// Today's rows and behind them the old ones, so that today's version of a group is the preferred one.
pub fn all() -> impl Iterator<Item = &'static Resource> {
    RESOURCES.iter().chain(rows())
}

/// Today's row of a kind that an old group and version names.
#[must_use]
pub fn modern(group: &str, version: &str, kind: &str) -> Option<&'static Resource> {
    let (.., today) = KINDS.iter().find(|(g, v, k, _)| *g == group && *v == version && *k == kind)?;
    find_kind(today, TODAY, kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_rows_are_todays_under_other_names() {
        for row in rows() {
            let modern = modern(row.group, row.version, row.kind).unwrap();
            assert_eq!((row.plural, row.storage, row.scope), (modern.plural, modern.storage, modern.scope));
            assert!(super::super::find(row.group, row.version, row.plural).is_none(), "{} is served today", row.plural);
        }
        let deployment = rows().iter().find(|r| r.group == "extensions" && r.kind == "Deployment").unwrap();
        assert_eq!(deployment.subresource("status").unwrap().group, "extensions");
        assert_eq!(deployment.subresource("scale").unwrap().group, "autoscaling");
        assert!(deployment.short_names.is_empty() && deployment.categories.is_empty());
    }
}
