//! RoleBindings: who may do what a role says.

use jiff::Timestamp;
use k8s_openapi::{
    api::rbac::v1::{RoleBinding, RoleRef, Subject},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::{
    blank::{drop_blank, fill_text, items_mut, list, text},
    cells,
    role::RoleScope,
    rules,
};
use crate::kind::{AGE, Column, NAME, Strategy, age};
use coracle_proto::{
    field::{Error, Errors, Path},
    name::{self, NameRule, path_segment_rule},
    resource::Resource,
};

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

/// Everything wrong with a binding of either scope; `kinds` are the kinds of roles it may bind.
pub(super) fn validate_binding(
    errors: &mut Errors,
    role: &RoleRef,
    subjects: &[Subject],
    kinds: &[&str],
    scope: RoleScope,
) {
    let path = Path::new("roleRef");
    rules::known_word(errors, &path.child("apiGroup"), text(&role.api_group), &[GROUP]);
    rules::known_word(errors, &path.child("kind"), &role.kind, kinds);
    if role.name.is_empty() {
        errors.push(Error::required(&path.child("name"), ""));
    } else {
        rules::messages(errors, &path.child("name"), &role.name, name::path_segment(&role.name));
    }
    for (i, subject) in subjects.iter().enumerate() {
        validate_subject(errors, &Path::new("subjects").index(i), subject, scope);
    }
}

fn validate_subject(errors: &mut Errors, path: &Path, subject: &Subject, scope: RoleScope) {
    if subject.name.is_empty() {
        errors.push(Error::required(&path.child("name"), ""));
    }
    let group = path.child("apiGroup");
    match subject.kind.as_str() {
        "ServiceAccount" => {
            if !subject.name.is_empty() {
                rules::messages(errors, &path.child("name"), &subject.name, name::dns1123_subdomain(&subject.name));
            }
            rules::known_word(errors, &group, text(&subject.api_group), &[""]);
            if scope == RoleScope::Cluster && text(&subject.namespace).is_empty() {
                errors.push(Error::required(&path.child("namespace"), ""));
            }
        }
        "User" | "Group" => rules::known_word(errors, &group, text(&subject.api_group), &[GROUP]),
        other => {
            let known = &["ServiceAccount", "User", "Group"];
            errors.push(Error::not_supported(&path.child("kind"), other, known));
        }
    }
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

    fn name_rule(&self) -> NameRule {
        path_segment_rule
    }

    fn validate(&self, object: &RoleBinding) -> Errors {
        let mut errors = Errors::new();
        validate_binding(
            &mut errors,
            &object.role_ref,
            list(&object.subjects),
            &["Role", "ClusterRole"],
            RoleScope::Namespace,
        );
        errors
    }

    fn validate_update(&self, new: &RoleBinding, old: &RoleBinding) -> Errors {
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

    fn row(&self, object: &RoleBinding, now: Timestamp) -> Vec<serde_json::Value> {
        binding_row(&object.metadata, &object.role_ref, list(&object.subjects), now)
    }
}

#[cfg(test)]
mod tests;
