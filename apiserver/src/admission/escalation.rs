//! Nobody grants by a role or a binding what he does not hold.

use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};

use super::{Operation, Write};
use crate::{authz::MASTERS, ops::AnyObject, status_of::Result};

fn as_cluster_role(object: &dyn AnyObject) -> Option<ClusterRole> {
    let object = object.as_any();
    if let Some(role) = object.downcast_ref::<ClusterRole>() {
        return Some(role.clone());
    }
    let role = object.downcast_ref::<Role>()?;
    Some(ClusterRole { metadata: role.metadata.clone(), rules: role.rules.clone(), aggregation_rule: None })
}

pub(super) fn admit(write: &Write<'_>, object: Option<&mut dyn AnyObject>) -> Result<()> {
    if write.kind.resource().group != "rbac.authorization.k8s.io"
        || write.operation == Operation::Delete
        || write.user.is_in(MASTERS)
    {
        return Ok(());
    }
    let Some(new) = object.map(|object| &*object) else { return Ok(()) };
    let Some(authorizer) = write.registry.authorizer() else {
        return Err(write.forbidden("the server has not read its rules yet"));
    };
    let plural = write.kind.resource().plural;
    if let Some(mut role) = as_cluster_role(new) {
        role.metadata.name = Some(write.name.to_owned());
        let old = write.old.and_then(as_cluster_role);
        return authorizer.check_role(write.user, plural, write.namespace, &role, old.as_ref());
    }
    let binding = |object: &dyn AnyObject| {
        let object = object.as_any();
        let local = object.downcast_ref::<RoleBinding>().map(|b| (b.role_ref.clone(), b.subjects.clone()));
        local.or_else(|| object.downcast_ref::<ClusterRoleBinding>().map(|b| (b.role_ref.clone(), b.subjects.clone())))
    };
    match binding(new) {
        Some(new) if write.old.and_then(binding).as_ref() != Some(&new) => {
            authorizer.check_binding(write.user, plural, write.namespace, write.name, &new.0)
        }
        _ => Ok(()),
    }
}
