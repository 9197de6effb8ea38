//! Roles: what may be done.

use jiff::Timestamp;
use k8s_openapi::api::rbac::v1::{PolicyRule, Role};

use super::{
    blank::{items_mut, list},
    cells, rules,
};
use crate::kind::{Column, Strategy};
use coracle_proto::{
    field::{Error, Errors, Path},
    name::{NameRule, path_segment_rule},
    resource::Resource,
};

/// The strategy of `roles.rbac.authorization.k8s.io`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Roles;

/// Where the rules stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RoleScope {
    /// In a Role.
    Namespace,
    /// In a ClusterRole.
    Cluster,
}

/// Everything wrong with the rules of a role of either scope.
pub(super) fn validate_rules(errors: &mut Errors, given: &[PolicyRule], scope: RoleScope) {
    for (i, rule) in given.iter().enumerate() {
        let path = Path::new("rules").index(i);
        if rule.verbs.is_empty() {
            errors.push(Error::required(&path.child("verbs"), "verbs must contain at least one value"));
        }
        let urls = list(&rule.non_resource_urls);
        if !urls.is_empty() {
            let at = path.child("nonResourceURLs");
            if scope == RoleScope::Namespace {
                let detail = "namespaced rules cannot apply to non-resource URLs";
                errors.push(Error::invalid(&at, rules::json(&urls), detail));
            }
            let others = [&rule.api_groups, &rule.resources, &rule.resource_names];
            if others.into_iter().any(|others| !list(others).is_empty()) {
                let detail = "rules cannot apply to both regular resources and non-resource URLs";
                errors.push(Error::invalid(&at, rules::json(&urls), detail));
            }
            continue;
        }
        if list(&rule.api_groups).is_empty() {
            let detail = "resource rules must supply at least one api group";
            errors.push(Error::required(&path.child("apiGroups"), detail));
        }
        if list(&rule.resources).is_empty() {
            let detail = "resource rules must supply at least one resource";
            errors.push(Error::required(&path.child("resources"), detail));
        }
    }
}

/// Makes empty parts of rules absent.
pub(super) fn drop_blanks(given: &mut Option<Vec<PolicyRule>>) {
    for rule in items_mut(given) {
        for part in [&mut rule.api_groups, &mut rule.resources, &mut rule.resource_names, &mut rule.non_resource_urls] {
            super::blank::drop_blank(part);
        }
    }
    // The rules themselves are written out even when there are none.
    given.get_or_insert_default();
}

impl Strategy for Roles {
    type Object = Role;

    fn resource(&self) -> &'static Resource {
        super::row_of("rbac.authorization.k8s.io", "roles")
    }

    fn name_rule(&self) -> NameRule {
        path_segment_rule
    }

    fn default(&self, object: &mut Role) {
        drop_blanks(&mut object.rules);
    }

    fn validate(&self, object: &Role) -> Errors {
        let mut errors = Errors::new();
        validate_rules(&mut errors, list(&object.rules), RoleScope::Namespace);
        errors
    }

    fn columns(&self) -> &'static [Column] {
        cells::CREATED_AT
    }

    fn row(&self, object: &Role, _: Timestamp) -> Vec<serde_json::Value> {
        cells::created_at(&object.metadata)
    }
}
