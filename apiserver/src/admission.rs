//! Admission: what is refused or completed after the writer was allowed, by rules that look at more than the object.
//!
//! ```text
//!   mutate:    plugins ─► policies ─► webhooks ─► (once more, if one of the latter changed something) ─► nobody grants more than he holds
//!   then the kind's own defaults and validation
//!   validate:  plugins ─► policies ─► webhooks
//! ```

mod certificates;
pub(crate) mod connect;
mod default_class;
mod escalation;
pub(crate) mod figures;
mod limit_ranger;
mod matching;
mod namespace_lifecycle;
mod node_restriction;
mod node_taint;
mod notes;
mod pod_security;
pub(crate) mod policy;
mod priority;
mod runtime_class;
mod service_account;
mod storage_protection;
pub(crate) mod stored_objects;
mod tolerations;
pub(crate) mod topology_labels;
pub(crate) mod webhook;

use coracle_proto::status::Status;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;

pub(crate) use self::figures::{CallKind, Calls, Figures, Step};
pub use self::notes::Notes;
use self::{figures::Clock, webhook::Reinvocation};
use crate::{
    ops::{AnyObject, BoxObject, KindOps},
    registry::Registry,
    status_of::Result,
    user::User,
};

/// What a write does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// A new object.
    Create,
    /// Another version of an object.
    Update,
    /// A deletion.
    Delete,
    /// A connection to a part of an object.
    Connect,
}

impl Operation {
    /// All of them, in their order.
    pub(crate) const ALL: [Self; 4] = [Self::Create, Self::Update, Self::Delete, Self::Connect];

    /// As webhooks and their rules call it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }
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
    /// The object's name; empty while it is to be made of `generate_name`.
    pub name: &'a str,
    /// What the name is to begin with, where it is to be made.
    pub generate_name: &'a str,
    /// `status`, …; empty for the object itself.
    pub subresource: &'a str,
    /// The object as it is stored.
    pub old: Option<&'a dyn AnyObject>,
    /// Whether nothing will be stored.
    pub dry_run: bool,
    /// What a deletion was asked with.
    pub delete_options: Option<&'a DeleteOptions>,
    /// What the client and the audit are told.
    pub notes: &'a Notes,
}

impl Write<'_> {
    /// The 403 with this reason.
    #[must_use]
    pub fn forbidden(&self, why: &str) -> Box<Status> {
        let resource = self.kind.resource();
        // A name that is to be made is not there yet while objects are changed.
        let name = if self.name.is_empty() { self.generate_name } else { self.name };
        Box::new(Status::forbidden(resource.group, resource.plural, name, why))
    }

    fn is_of(&self, group: &str, plural: &str) -> bool {
        let resource = self.kind.resource();
        resource.group == group && resource.plural == plural
    }

    fn creates_pod(&self) -> bool {
        self.operation == Operation::Create && self.subresource.is_empty() && self.is_of("", "pods")
    }
}

/// A plugin that may complete the object (none at a deletion) or refuse. It may be asked twice about one write and must
/// not do twice what it does.
type Mutating = fn(&Write<'_>, Option<&mut dyn AnyObject>) -> Result<()>;

/// A plugin that may refuse.
type Validating = fn(&Write<'_>, Option<&dyn AnyObject>) -> Result<()>;

/// The plugins before validation, in their order, as Kubernetes calls them.
const MUTATING: &[(&str, Mutating)] = &[
    // First, because nothing else matters in a namespace that is not there.
    ("NamespaceLifecycle", namespace_lifecycle::admit),
    ("LimitRanger", limit_ranger::complete),
    // Before whatever looks at volumes, since it adds one.
    ("ServiceAccount", service_account::admit),
    ("NodeRestriction", node_restriction::admit),
    ("TaintNodesByCondition", node_taint::admit),
    ("Priority", priority::admit),
    ("DefaultTolerationSeconds", tolerations::admit),
    ("DefaultStorageClass", default_class::admit),
    ("StorageObjectInUseProtection", storage_protection::admit),
    // After the tolerations that every pod gets, which a class' own may cover.
    ("RuntimeClass", runtime_class::admit),
    ("PodTopologyLabels", topology_labels::admit),
];

/// The plugins after validation, in their order.
const VALIDATING: &[(&str, Validating)] = &[
    ("LimitRanger", limit_ranger::check),
    ("PodSecurity", pod_security::admit),
    ("Priority", priority::check),
    ("DefaultStorageClass", default_class::check),
    ("RuntimeClass", runtime_class::check),
    ("CertificateSubjectRestriction", certificates::check),
];

/// Those who are asked after the plugins.
const POLICIES: [&str; 2] = ["MutatingAdmissionPolicy", "ValidatingAdmissionPolicy"];
const WEBHOOKS: [&str; 2] = ["MutatingAdmissionWebhook", "ValidatingAdmissionWebhook"];

/// Nothing counted yet.
pub(crate) fn figures() -> Figures {
    let mutating = MUTATING.iter().map(|(name, _)| *name).chain([POLICIES[0], WEBHOOKS[0]]);
    let validating = VALIDATING.iter().map(|(name, _)| *name).chain([POLICIES[1], WEBHOOKS[1]]);
    Figures::new(mutating.map(|name| (name, Step::Admit)).chain(validating.map(|name| (name, Step::Validate))))
}

fn part<'a>(object: &'a mut Option<&mut BoxObject>) -> Option<&'a mut dyn AnyObject> {
    object.as_deref_mut().map(|object| &mut **object)
}

/// Runs all that may change the object; whether somebody outside the server did.
///
/// # Errors
/// The first refusal.
pub async fn mutate(write: &Write<'_>, object: Option<&mut BoxObject>) -> Result<bool> {
    let mut clock = write.registry.figures().begin(Step::Admit, write.operation);
    let result = mutate_all(write, object, &mut clock).await;
    clock.end(result)
}

fn ask_plugins(write: &Write<'_>, object: &mut Option<&mut BoxObject>, clock: &mut Clock<'_>) -> Result<()> {
    MUTATING.iter().try_for_each(|(name, plugin)| clock.lap(name, plugin(write, part(object))))
}

async fn mutate_all(write: &Write<'_>, mut object: Option<&mut BoxObject>, clock: &mut Clock<'_>) -> Result<bool> {
    let mut state = Reinvocation::default();
    ask_plugins(write, &mut object, clock)?;
    let mut ruled = Reinvocation::default();
    let (policies, webhooks) = (write.registry.mutating_policies(), write.registry.webhooks());
    let by_policies = clock.lap(POLICIES[0], policies.mutate(write, object.as_deref_mut(), &mut ruled).await)?;
    let by_webhooks = clock.lap(WEBHOOKS[0], webhooks.mutate(write, object.as_deref_mut(), &mut state).await)?;
    let changed = by_policies || by_webhooks;
    if changed {
        // What was added has not been seen by those whose turn was before.
        let before = object.as_deref().map(|object| object.to_json().ok());
        ask_plugins(write, &mut object, clock)?;
        let again = object.as_deref().map(|object| object.to_json().ok()) != before;
        if again || by_webhooks {
            ruled.changed();
        }
        ruled.is_second = true;
        let by_policies = clock.lap(POLICIES[0], policies.mutate(write, object.as_deref_mut(), &mut ruled).await)?;
        if again || by_policies {
            state.changed();
        }
        state.is_second = true;
        if state.is_due() {
            clock.lap(WEBHOOKS[0], webhooks.mutate(write, object.as_deref_mut(), &mut state).await)?;
        }
    }
    // Last, since what is granted must be known whole.
    escalation::admit(write, part(&mut object))?;
    Ok(changed)
}

/// Runs all that only judge the object.
///
/// # Errors
/// A refusal: the first plugin's, else the first policy's, else that of the first webhook in their order.
pub async fn validate(write: &Write<'_>, object: Option<&dyn AnyObject>) -> Result<()> {
    let mut clock = write.registry.figures().begin(Step::Validate, write.operation);
    let ask = async {
        VALIDATING.iter().try_for_each(|(name, plugin)| clock.lap(name, plugin(write, object)))?;
        clock.lap(POLICIES[1], write.registry.policies().validate(write, object).await)?;
        clock.lap(WEBHOOKS[1], write.registry.webhooks().validate(write, object).await)
    };
    let result = ask.await;
    clock.end(result)
}
