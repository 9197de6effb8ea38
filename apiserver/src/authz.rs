//! Authorization: may this user do this?
//!
//! ```text
//!   system:masters ──yes──► allow          (works when RBAC's objects are broken)
//!        │ no
//!   node authorizer ─yes──► allow          (what a node may do follows from the pods bound to it)
//!        │ no opinion
//!   RBAC ────────────yes──► allow
//!        │ no opinion
//!   403, with the reasons of all who had one
//! ```
//!
//! Decisions are made from memory: RBAC's objects are held compiled and follow the store by watch ([`rbac`]), the node
//! authorizer looks at the store's entries. Besides requests, writes of RBAC objects themselves are checked here: nobody
//! grants what he does not hold ([`Authorizer::check_role`], [`Authorizer::check_binding`]).

pub(crate) mod defaults;
mod node;
mod node_restriction;
mod policy;
mod rbac;
mod rule;

use std::sync::Arc;

use coracle_proto::status::Status;
use coracle_store::Store;
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule, RoleRef};

pub use self::{
    node_restriction::{Operation, Write, restrict_node},
    rbac::{Error, Rbac},
};
use crate::{request::RequestInfo, user::User};

/// What is asked of the authorizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes<'a> {
    /// Who asks.
    pub user: &'a User,
    /// `get`, `list`, …; for paths the method in lower case.
    pub verb: &'a str,
    /// The namespace, empty at cluster scope.
    pub namespace: &'a str,
    /// The API group, empty for the core group.
    pub group: &'a str,
    /// `pods`.
    pub resource: &'a str,
    /// `log`; empty for the resource itself.
    pub subresource: &'a str,
    /// The object's name, as far as the request names one (lists and watches by a field selector on `metadata.name`).
    pub name: &'a str,
    /// The field selector of a list, watch or deletecollection.
    pub field_selector: &'a str,
    /// The path of a request that is not about a resource; the resource fields then mean nothing.
    pub path: Option<&'a str>,
}

impl<'a> Attributes<'a> {
    /// The user and verb, all else empty.
    #[must_use]
    pub const fn new(user: &'a User, verb: &'a str) -> Self {
        Self {
            user,
            verb,
            namespace: "",
            group: "",
            resource: "",
            subresource: "",
            name: "",
            field_selector: "",
            path: None,
        }
    }

    /// What a request asks for.
    #[must_use]
    pub fn of(user: &'a User, info: &'a RequestInfo) -> Self {
        Self {
            namespace: &info.namespace,
            group: &info.group,
            resource: &info.resource,
            subresource: &info.subresource,
            name: &info.name,
            field_selector: info.field_selector(),
            path: (!info.is_resource).then_some(info.path.as_str()),
            ..Self::new(user, &info.verb)
        }
    }

    /// The value the field selector demands of `field`.
    fn selected(&self, field: &str) -> Option<&'a str> {
        self.field_selector.split(',').find_map(|requirement| {
            let (name, value) = requirement.split_once('=')?;
            (name.trim() == field).then(|| value.strip_prefix('=').unwrap_or(value).trim())
        })
    }

    /// The 403 for what was asked, in Kubernetes' words. `reason` may be empty.
    #[must_use]
    pub fn forbidden(&self, reason: &str) -> Status {
        let user = &self.user.name;
        let verb = self.verb;
        let mut why = match self.path {
            Some(path) => format!("User {user:?} cannot {verb} path {path:?}"),
            None => {
                let slash = if self.subresource.is_empty() { "" } else { "/" };
                let resource = format!("{}{slash}{}", self.resource, self.subresource);
                let scope = match self.namespace {
                    "" => "at the cluster scope".to_owned(),
                    namespace => format!("in the namespace {namespace:?}"),
                };
                let group = self.group;
                format!("User {user:?} cannot {verb} resource {resource:?} in API group {group:?} {scope}")
            }
        };
        if !reason.is_empty() {
            why.push_str(": ");
            why.push_str(reason);
        }
        match self.path {
            Some(_) => Status::forbidden("", "", "", &why),
            None => Status::forbidden(self.group, self.resource, self.name, &why),
        }
    }
}

/// What an authorizer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It may be done.
    Allow,
    /// Nothing allows it; the reason may be empty.
    NoOpinion(String),
}

/// All authorizers of the server in their order.
#[derive(Clone, Debug)]
pub struct Authorizer {
    rbac: Arc<Rbac>,
    store: Store,
}

/// The group that may do everything.
pub const MASTERS: &str = "system:masters";

impl Authorizer {
    /// The server's authorizers over its store.
    #[must_use]
    pub fn new(store: Store, rbac: Arc<Rbac>) -> Self {
        Self { rbac, store }
    }

    /// Whether it may be done.
    #[must_use]
    pub fn decide(&self, asked: &Attributes<'_>) -> Decision {
        if asked.user.is_in(MASTERS) {
            return Decision::Allow;
        }
        let mut reasons = Vec::new();
        for decide in [Self::node, Self::rbac] {
            match decide(self, asked) {
                Decision::Allow => return Decision::Allow,
                Decision::NoOpinion(reason) if reason.is_empty() => {}
                Decision::NoOpinion(reason) => reasons.push(reason),
            }
        }
        Decision::NoOpinion(reasons.join("\n"))
    }

    /// Why it may be done, where a rule says so; for reviews and the audit.
    #[must_use]
    pub fn reason(&self, asked: &Attributes<'_>) -> String {
        if asked.user.is_in(MASTERS) || self.node(asked) == Decision::Allow {
            return String::new();
        }
        let found = self.rbac.read(|policy| policy.reason(asked));
        found.map(|source| format!("RBAC: allowed by {source}")).unwrap_or_default()
    }

    /// Whether the request may go on.
    ///
    /// # Errors
    /// 403 that says why when nothing allows it.
    pub fn check(&self, user: &User, info: &RequestInfo) -> Result<(), Box<Status>> {
        self.check_asked(&Attributes::of(user, info))
    }

    /// Goes on, or stops with the 403 that says why.
    ///
    /// # Errors
    /// Nothing allows it.
    pub fn check_asked(&self, asked: &Attributes<'_>) -> Result<(), Box<Status>> {
        match self.decide(asked) {
            Decision::Allow => Ok(()),
            Decision::NoOpinion(reason) => Err(Box::new(asked.forbidden(&reason))),
        }
    }

    fn node(&self, asked: &Attributes<'_>) -> Decision {
        node::decide(&self.store, asked)
    }

    fn rbac(&self, asked: &Attributes<'_>) -> Decision {
        self.rbac.read(|policy| policy.authorize(asked))
    }

    /// The rules the user has in `namespace`, and why some may be missing.
    #[must_use]
    pub fn rules_of(&self, user: &User, namespace: &str) -> (Vec<PolicyRule>, Vec<String>) {
        let (rules, mut errors) = self.rbac.read(|policy| policy.rules_of(user, namespace));
        let mut rules: Vec<PolicyRule> = rules.iter().flat_map(|rules| rules.iter().cloned()).collect();
        if user.is_in(MASTERS) {
            rules.extend([defaults::rule("* * *"), defaults::rule("* url *")]);
        }
        if node::name(user).is_some() {
            errors.push("node authorizer does not support user rule resolution".to_owned());
        }
        (rules, errors)
    }

    /// May the user write a role or cluster role with these rules? Only what he holds himself, unless he is allowed the
    /// verb `escalate` on it. `old` is the role before an update; for a Role, pass its rules in a `ClusterRole`.
    /// An update of nothing but metadata asks for nothing.
    ///
    /// # Errors
    /// 403 that names what he does not hold.
    pub fn check_role(
        &self,
        user: &User,
        resource: &str,
        namespace: &str,
        new: &ClusterRole,
        old: Option<&ClusterRole>,
    ) -> Result<(), Box<Status>> {
        let name = new.metadata.name.as_deref().unwrap_or_default();
        let asked = Attributes { group: RBAC_GROUP, resource, namespace, name, ..Attributes::new(user, "escalate") };
        if old.is_some_and(|old| old.rules == new.rules && old.aggregation_rule == new.aggregation_rule)
            || self.decide(&asked) == Decision::Allow
        {
            return Ok(());
        }
        let forbidden = |why: &str| Box::new(Status::forbidden(RBAC_GROUP, resource, name, why));
        self.holds(user, namespace, new.rules.as_deref().unwrap_or_default()).map_err(|why| forbidden(&why))?;
        let aggregates = |role: &ClusterRole| {
            let rule = role.aggregation_rule.as_ref();
            rule.and_then(|r| r.cluster_role_selectors.as_ref()).is_some_and(|s| !s.is_empty())
        };
        // What an aggregation will gather is not known, so setting or changing one takes all there is.
        if aggregates(new) || old.is_some_and(aggregates) {
            self.holds(user, namespace, &[defaults::rule("* * *"), defaults::rule("* url *")])
                .map_err(|_| forbidden("must have cluster-admin privileges to use the aggregationRule"))?;
        }
        Ok(())
    }

    /// May the user write a binding (`rolebindings` in a namespace, `clusterrolebindings`) to this role? Only if he
    /// holds what it gives, or is allowed the verb `bind` on the role.
    ///
    /// # Errors
    /// 403 that names what he does not hold; 404 when the role is not there to see what it gives.
    pub fn check_binding(
        &self,
        user: &User,
        resource: &str,
        namespace: &str,
        name: &str,
        role: &RoleRef,
    ) -> Result<(), Box<Status>> {
        let roles = if role.kind == "Role" { "roles" } else { "clusterroles" };
        let asked = Attributes {
            group: role.api_group.as_deref().unwrap_or(RBAC_GROUP),
            resource: roles,
            namespace,
            name: &role.name,
            ..Attributes::new(user, "bind")
        };
        if self.decide(&asked) == Decision::Allow {
            return Ok(());
        }
        let rules = self
            .rbac
            .read(|policy| policy.resolve(role, namespace))
            .map_err(|_| Box::new(Status::not_found(RBAC_GROUP, roles.trim_end_matches('s'), &role.name)))?;
        self.holds(user, namespace, &rules).map_err(|why| Box::new(Status::forbidden(RBAC_GROUP, resource, name, &why)))
    }

    fn holds(&self, user: &User, namespace: &str, wanted: &[PolicyRule]) -> Result<(), String> {
        let (held, errors) = self.rbac.read(|policy| policy.rules_of(user, namespace));
        let held: Vec<&PolicyRule> = held.iter().flat_map(|rules| rules.iter()).collect();
        let missing = rule::missing(&held, wanted);
        if missing.is_empty() {
            return Ok(());
        }
        let mut why = format!(
            "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
            user.name,
            rule::quoted(&user.groups),
            rule::lines(&rule::compact(missing))
        );
        if !errors.is_empty() {
            why.push_str(&format!("; resolution errors: [{}]", errors.join(", ")));
        }
        Err(why)
    }
}

const RBAC_GROUP: &str = "rbac.authorization.k8s.io";

#[cfg(test)]
mod tests;
