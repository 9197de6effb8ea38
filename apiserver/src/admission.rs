//! Admission: what is refused or completed after the writer was allowed, by rules that look at more than the object.

mod escalation;
mod namespace_lifecycle;
mod node_restriction;
mod priority;
mod service_account;
mod tolerations;

use coracle_proto::status::Status;

use crate::{
    ops::{AnyObject, KindOps},
    registry::Registry,
    status_of::Result,
    user::User,
};

/// What a write does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A new object.
    Create,
    /// Another version of an object.
    Update,
    /// A deletion.
    Delete,
}

/// A write as admission sees it.
pub struct Write<'a> {
    /// The objects there are.
    pub registry: &'a Registry,
    /// Who writes.
    pub user: &'a User,
    /// What is done.
    pub operation: Operation,
    /// The object's kind.
    pub kind: &'a dyn KindOps,
    /// The object's namespace.
    pub namespace: &'a str,
    /// The object's name.
    pub name: &'a str,
    /// `status`, …; empty for the object itself.
    pub subresource: &'a str,
    /// The object as it is stored.
    pub old: Option<&'a dyn AnyObject>,
}

impl Write<'_> {
    /// The 403 with this reason.
    #[must_use]
    pub fn forbidden(&self, why: &str) -> Box<Status> {
        let resource = self.kind.resource();
        Box::new(Status::forbidden(resource.group, resource.plural, self.name, why))
    }

    fn is_of(&self, group: &str, plural: &str) -> bool {
        let resource = self.kind.resource();
        resource.group == group && resource.plural == plural
    }

    fn creates_pod(&self) -> bool {
        self.operation == Operation::Create && self.subresource.is_empty() && self.is_of("", "pods")
    }
}

/// One plugin: it may complete the object (none at a deletion) or refuse.
type Plugin = fn(&Write<'_>, Option<&mut dyn AnyObject>) -> Result<()>;

/// All plugins, in their order.
const PLUGINS: &[Plugin] = &[
    // First, because nothing else matters in a namespace that is not there.
    namespace_lifecycle::admit,
    // Before whatever looks at volumes, since it adds one.
    service_account::admit,
    tolerations::admit,
    priority::admit,
    // Last of those that refuse, since what is granted must be known whole.
    node_restriction::admit,
    escalation::admit,
];

/// Runs all plugins.
///
/// # Errors
/// The first refusal.
pub fn admit(write: &Write<'_>, mut object: Option<&mut dyn AnyObject>) -> Result<()> {
    PLUGINS.iter().try_for_each(|plugin| plugin(write, object.as_mut().map(|o| &mut **o as &mut dyn AnyObject)))
}
