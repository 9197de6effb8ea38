//! Nothing is created in a namespace that is not there or on its way out, and the first namespaces stay.

use coracle_proto::{
    resource::Scope,
    status::{Cause, Status},
};

use super::{Operation, Write};
use crate::{ops::AnyObject, status_of::Result, stored::Header};

const KEPT: &[&str] = &["default", "kube-system", "kube-public"];

pub(super) fn admit(write: &Write<'_>, _: Option<&mut dyn AnyObject>) -> Result<()> {
    if write.operation == Operation::Delete && write.is_of("", "namespaces") && KEPT.contains(&write.name) {
        return Err(write.forbidden("this namespace may not be deleted"));
    }
    if write.operation != Operation::Create || write.kind.resource().scope != Scope::Namespaced {
        return Ok(());
    }
    let namespace = write.namespace;
    let Some(entry) = write.registry.namespace_entry(namespace) else {
        return Err(Box::new(Status::not_found("", "namespaces", namespace)));
    };
    if Header::of(&entry).is_deleting {
        let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
        let mut status = write.forbidden(&why);
        let cause = Cause {
            reason: "NamespaceTerminating".to_owned(),
            message: format!("namespace {namespace} is being terminated"),
            field: "metadata.namespace".to_owned(),
        };
        status.details.get_or_insert_default().causes.push(cause);
        return Err(status);
    }
    Ok(())
}
