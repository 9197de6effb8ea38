//! A node writes itself, its lease and its pods.

use super::{Operation, Write};
use crate::{
    authz::{self, restrict_node},
    ops::AnyObject,
    status_of::{self, Result},
};

pub(super) fn admit(write: &Write<'_>, object: Option<&mut dyn AnyObject>) -> Result<()> {
    if !write.user.is_in("system:nodes") {
        return Ok(());
    }
    let json = |object: &dyn AnyObject| {
        object.to_json().map_err(|error| status_of::broken("an object cannot be encoded", &error))
    };
    let (old, new) = (write.old.map(json).transpose()?, object.map(|o| json(o)).transpose()?);
    let resource = write.kind.resource();
    let facts = authz::Write {
        operation: match write.operation {
            Operation::Create => authz::Operation::Create,
            Operation::Update => authz::Operation::Update,
            Operation::Delete => authz::Operation::Delete,
            // Nothing is written.
            Operation::Connect => return Ok(()),
        },
        group: resource.group,
        resource: resource.plural,
        subresource: write.subresource,
        name: write.name,
        old: old.as_ref(),
        new: new.as_ref(),
        pod: None,
    };
    restrict_node(write.user, &facts).map_err(|why| write.forbidden(&why))
}
