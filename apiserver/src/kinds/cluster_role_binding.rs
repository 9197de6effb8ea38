//! ClusterRoleBindings: who may do what a cluster role says, everywhere.

use jiff::Timestamp;
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;

use super::{
    blank::{drop_blank, fill_text, items_mut, list},
    cells,
    role::RoleScope,
    role_binding::{GROUP, binding_row, default_subject, validate_binding},
    rules,
};
use crate::kind::{AGE, Column, NAME, Strategy};
use coracle_proto::{
    field::{Error, Errors, Path},
    name::{NameRule, path_segment_rule},
    resource::Resource,
};

/// The strategy of `clusterrolebindings.rbac.authorization.k8s.io`.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClusterRoleBindings;

const COLUMNS: &[Column] = &[
    NAME,
    cells::column("Role", "The role that is bound."),
    AGE,
    cells::wide("Users", "Users in the clusterRoleBinding"),
    cells::wide("Groups", "Groups in the clusterRoleBinding"),
    cells::wide("ServiceAccounts", "ServiceAccounts in the clusterRoleBinding"),
];

impl Strategy for ClusterRoleBindings {
    type Object = ClusterRoleBinding;

    fn resource(&self) -> &'static Resource {
        super::row_of("rbac.authorization.k8s.io", "clusterrolebindings")
    }

    fn default(&self, object: &mut ClusterRoleBinding) {
        fill_text(&mut object.role_ref.api_group, GROUP);
        drop_blank(&mut object.subjects);
        for subject in items_mut(&mut object.subjects) {
            default_subject(subject);
        }
    }

    fn name_rule(&self) -> NameRule {
        path_segment_rule
    }

    fn validate(&self, object: &ClusterRoleBinding) -> Errors {
        let mut errors = Errors::new();
        validate_binding(&mut errors, &object.role_ref, list(&object.subjects), &["ClusterRole"], RoleScope::Cluster);
        errors
    }

    fn validate_update(&self, new: &ClusterRoleBinding, old: &ClusterRoleBinding) -> Errors {
        let mut errors = self.validate(new);
        if new.role_ref != old.role_ref {
            let path = Path::new("roleRef");
            errors.push(Error::invalid(&path, rules::json(&new.role_ref), "cannot change roleRef"));
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &ClusterRoleBinding, now: Timestamp) -> Vec<serde_json::Value> {
        binding_row(&object.metadata, &object.role_ref, list(&object.subjects), now)
    }
}
