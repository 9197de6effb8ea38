//! RoleBindings: who may do what a role says.

use jiff::Timestamp;
use k8s_openapi::{
    api::rbac::v1::{RoleBinding, RoleRef, Subject},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::{
    blank::{drop_blank, fill_text, items_mut, list, text},
    cells,
};
use crate::kind::{AGE, Column, NAME, Strategy, age};
use coracle_proto::resource::Resource;

/// The strategy of `rolebindings.rbac.authorization.k8s.io`.
#[derive(Clone, Copy, Debug, Default)]
pub struct RoleBindings;

const COLUMNS: &[Column] = &[
    NAME,
    cells::column("Role", "The role that is bound."),
    AGE,
    cells::wide("Users", "Users in the roleBinding"),
    cells::wide("Groups", "Groups in the roleBinding"),
    cells::wide("ServiceAccounts", "ServiceAccounts in the roleBinding"),
];

/// The API group of roles, users and groups.
pub(super) const GROUP: &str = "rbac.authorization.k8s.io";

/// Users and groups are of RBAC's group, service accounts of the core group.
pub(super) fn default_subject(subject: &mut Subject) {
    if matches!(subject.kind.as_str(), "User" | "Group") {
        fill_text(&mut subject.api_group, GROUP);
    }
    drop_blank(&mut subject.api_group);
    drop_blank(&mut subject.namespace);
}

/// The row of a binding of either scope.
pub(super) fn binding_row(
    meta: &ObjectMeta,
    role: &RoleRef,
    subjects: &[Subject],
    now: Timestamp,
) -> Vec<serde_json::Value> {
    let (mut users, mut groups, mut accounts) = (Vec::new(), Vec::new(), Vec::new());
    for subject in subjects {
        match subject.kind.as_str() {
            "User" => users.push(subject.name.clone()),
            "Group" => groups.push(subject.name.clone()),
            "ServiceAccount" => accounts.push(format!("{}/{}", text(&subject.namespace), subject.name)),
            _ => {}
        }
    }
    vec![
        cells::name(meta),
        format!("{}/{}", role.kind, role.name).into(),
        age(meta, now).into(),
        users.join(", ").into(),
        groups.join(", ").into(),
        accounts.join(", ").into(),
    ]
}

impl Strategy for RoleBindings {
    type Object = RoleBinding;

    fn resource(&self) -> &'static Resource {
        super::row_of("rbac.authorization.k8s.io", "rolebindings")
    }

    fn default(&self, object: &mut RoleBinding) {
        fill_text(&mut object.role_ref.api_group, GROUP);
        drop_blank(&mut object.subjects);
        for subject in items_mut(&mut object.subjects) {
            default_subject(subject);
        }
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &RoleBinding, now: Timestamp) -> Vec<serde_json::Value> {
        binding_row(&object.metadata, &object.role_ref, list(&object.subjects), now)
    }
}
