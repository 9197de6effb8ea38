//! All RBAC objects, indexed by whom they give something.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use k8s_openapi::{
    api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject},
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};

use super::{Attributes, Decision, rule};
use crate::user::User;

/// The four kinds, as the names their objects are stored under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    ClusterRoles,
    ClusterRoleBindings,
    Roles,
    RoleBindings,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [Self::ClusterRoles, Self::ClusterRoleBindings, Self::Roles, Self::RoleBindings];

    /// Where its objects are in the store.
    pub(crate) const fn prefix(self) -> &'static str {
        match self {
            Self::ClusterRoles => "/registry/clusterroles/",
            Self::ClusterRoleBindings => "/registry/clusterrolebindings/",
            Self::Roles => "/registry/roles/",
            Self::RoleBindings => "/registry/rolebindings/",
        }
    }
}

/// Who is named by a binding. Service accounts are users by another spelling.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Who {
    User(String),
    Group(String),
}

fn who(subject: &Subject, namespace: &str) -> Option<Who> {
    match subject.kind.as_str() {
        "User" => Some(Who::User(subject.name.clone())),
        "Group" => Some(Who::Group(subject.name.clone())),
        "ServiceAccount" => {
            let namespace = subject.namespace.as_deref().filter(|n| !n.is_empty()).unwrap_or(namespace);
            (!namespace.is_empty()).then(|| Who::User(format!("system:serviceaccount:{namespace}:{}", subject.name)))
        }
        _ => None,
    }
}

/// The roles given within one scope (a namespace, or the cluster), by who has them.
#[derive(Debug, Default)]
struct Given {
    bindings: BTreeMap<String, (RoleRef, Vec<Subject>)>,
    by_who: HashMap<Who, Vec<RoleRef>>,
}

impl Given {
    fn set(&mut self, name: &str, binding: Option<(RoleRef, Vec<Subject>)>, namespace: &str) {
        match binding {
            Some(binding) => self.bindings.insert(name.to_owned(), binding),
            None => self.bindings.remove(name),
        };
        // Bindings change rarely and are few within one scope.
        self.by_who.clear();
        for (role, subjects) in self.bindings.values() {
            for who in subjects.iter().filter_map(|s| who(s, namespace)) {
                self.by_who.entry(who).or_default().push(role.clone());
            }
        }
    }

    fn of<'a>(&'a self, user: &'a User) -> impl Iterator<Item = &'a RoleRef> {
        std::iter::once(Who::User(user.name.clone()))
            .chain(user.groups.iter().map(|g| Who::Group(g.clone())))
            .filter_map(|who| self.by_who.get(&who))
            .flatten()
    }
}

#[derive(Debug)]
struct HeldClusterRole {
    object: ClusterRole,
    /// The object's own rules, or the union of what it aggregates.
    rules: Arc<Vec<PolicyRule>>,
}

/// All RBAC objects.
#[derive(Debug, Default)]
pub(crate) struct Policy {
    cluster_roles: BTreeMap<String, HeldClusterRole>,
    roles: HashMap<String, BTreeMap<String, Arc<Vec<PolicyRule>>>>,
    cluster: Given,
    namespaces: HashMap<String, Given>,
}

impl Policy {
    /// Takes over what is stored at `namespace/name` of `kind`: `None` when it was deleted. What cannot be decoded gives
    /// nobody anything.
    pub(crate) fn apply(&mut self, kind: Kind, namespace: &str, name: &str, value: Option<&[u8]>) {
        fn decode<T: serde::de::DeserializeOwned>(value: Option<&[u8]>) -> Option<T> {
            value.and_then(|bytes| serde_json::from_slice(bytes).ok())
        }
        match kind {
            Kind::ClusterRoles => self.set_cluster_role(name, decode(value)),
            Kind::Roles => {
                let rules = decode(value).map(|r: Role| Arc::new(r.rules.unwrap_or_default()));
                let roles = self.roles.entry(namespace.to_owned()).or_default();
                match rules {
                    Some(rules) => roles.insert(name.to_owned(), rules),
                    None => roles.remove(name),
                };
                if roles.is_empty() {
                    self.roles.remove(namespace);
                }
            }
            Kind::ClusterRoleBindings => {
                let binding = decode(value).map(|b: ClusterRoleBinding| (b.role_ref, b.subjects.unwrap_or_default()));
                self.cluster.set(name, binding, "");
            }
            Kind::RoleBindings => {
                let binding = decode(value).map(|b: RoleBinding| (b.role_ref, b.subjects.unwrap_or_default()));
                let given = self.namespaces.entry(namespace.to_owned()).or_default();
                given.set(name, binding, namespace);
                if given.bindings.is_empty() {
                    self.namespaces.remove(namespace);
                }
            }
        }
    }

    fn set_cluster_role(&mut self, name: &str, object: Option<ClusterRole>) {
        match object {
            Some(object) => {
                let rules = Arc::new(object.rules.clone().unwrap_or_default());
                self.cluster_roles.insert(name.to_owned(), HeldClusterRole { object, rules });
            }
            None => {
                self.cluster_roles.remove(name);
            }
        }
        self.aggregate();
    }

    /// Computes the rules of aggregating roles anew. A role may aggregate one that aggregates itself (`admin` takes
    /// `edit`, which takes `view`), so this repeats until nothing changes; circles end because rules only grow.
    fn aggregate(&mut self) {
        let selectors: Vec<(String, Vec<LabelSelector>)> = self
            .cluster_roles
            .iter()
            .filter_map(|(name, role)| {
                let rule = role.object.aggregation_rule.as_ref()?;
                Some((name.clone(), rule.cluster_role_selectors.clone().unwrap_or_default()))
            })
            .collect();
        for (name, _) in &selectors {
            if let Some(role) = self.cluster_roles.get_mut(name) {
                role.rules = Arc::default();
            }
        }
        loop {
            let mut changed = false;
            for (name, selectors) in &selectors {
                let mut union: Vec<PolicyRule> = Vec::new();
                for (other, role) in &self.cluster_roles {
                    let labels = role.object.metadata.labels.as_ref();
                    if other == name || !selectors.iter().any(|s| selects(s, labels)) {
                        continue;
                    }
                    for rule in role.rules.iter() {
                        if !union.contains(rule) {
                            union.push(rule.clone());
                        }
                    }
                }
                if let Some(role) = self.cluster_roles.get_mut(name)
                    && union.iter().any(|rule| !role.rules.contains(rule))
                {
                    role.rules = Arc::new(union);
                    changed = true;
                }
            }
            if !changed {
                return;
            }
        }
    }

    /// Aggregating roles whose stored rules are not what they aggregate: name, and the rules to store.
    pub(crate) fn stale_aggregates(&self) -> Vec<(String, Vec<PolicyRule>)> {
        self.cluster_roles
            .iter()
            .filter(|(_, role)| role.object.aggregation_rule.is_some())
            .filter(|(_, role)| role.object.rules.as_deref().unwrap_or_default() != role.rules.as_slice())
            .map(|(name, role)| (name.clone(), role.rules.to_vec()))
            .collect()
    }

    /// The rules a reference stands for; an error as Kubernetes words it when the role is not there.
    pub(crate) fn resolve(&self, role: &RoleRef, namespace: &str) -> Result<Arc<Vec<PolicyRule>>, String> {
        let found = match role.kind.as_str() {
            "Role" => self.roles.get(namespace).and_then(|roles| roles.get(&role.name)).cloned(),
            "ClusterRole" => self.cluster_roles.get(&role.name).map(|r| r.rules.clone()),
            other => return Err(format!("unsupported role reference kind: {other:?}")),
        };
        let resource = if role.kind == "Role" { "role" } else { "clusterrole" };
        found.ok_or_else(|| format!("{resource}.rbac.authorization.k8s.io {:?} not found", role.name))
    }

    /// The rules of every role the user has in `namespace` (cluster-wide ones included), and why some are missing.
    pub(crate) fn rules_of(&self, user: &User, namespace: &str) -> (Vec<Arc<Vec<PolicyRule>>>, Vec<String>) {
        let (mut rules, mut errors) = (Vec::new(), Vec::new());
        let local = self.namespaces.get(namespace).filter(|_| !namespace.is_empty());
        for role in self.cluster.of(user).chain(local.into_iter().flat_map(|given| given.of(user))) {
            match self.resolve(role, namespace) {
                Ok(found) => rules.push(found),
                Err(error) if !errors.contains(&error) => errors.push(error),
                Err(_) => {}
            }
        }
        (rules, errors)
    }

    /// The binding by which it is allowed, as Kubernetes describes it.
    pub(crate) fn reason(&self, asked: &Attributes<'_>) -> Option<String> {
        let local = self.namespaces.get(asked.namespace).filter(|_| !asked.namespace.is_empty());
        let scopes = [("ClusterRoleBinding", "", Some(&self.cluster)), ("RoleBinding", asked.namespace, local)];
        scopes.into_iter().find_map(|(kind, namespace, given)| {
            given?.bindings.iter().find_map(|(name, (role, subjects))| {
                let subject = subjects.iter().find(|subject| match who(subject, namespace) {
                    Some(Who::User(user)) => user == asked.user.name,
                    Some(Who::Group(group)) => asked.user.is_in(&group),
                    None => false,
                })?;
                let rules = self.resolve(role, asked.namespace).ok()?;
                let in_namespace = |name: &str, of: &str| {
                    if of.is_empty() { name.to_owned() } else { format!("{name}/{of}") }
                };
                let of = if subject.kind == "ServiceAccount" {
                    subject.namespace.as_deref().filter(|own| !own.is_empty()).unwrap_or(namespace)
                } else {
                    ""
                };
                rules.iter().any(|rule| rule::allows(rule, asked)).then(|| {
                    let (binding, subject_name) = (in_namespace(name, namespace), in_namespace(&subject.name, of));
                    let (role_kind, role_name, subject_kind) = (&role.kind, &role.name, &subject.kind);
                    format!("{kind} {binding:?} of {role_kind} {role_name:?} to {subject_kind} {subject_name:?}")
                })
            })
        })
    }

    /// Whether RBAC allows what is asked.
    pub(crate) fn authorize(&self, asked: &Attributes<'_>) -> Decision {
        let (rules, errors) = self.rules_of(asked.user, asked.namespace);
        if rules.iter().flat_map(|rules| rules.iter()).any(|r| rule::allows(r, asked)) {
            return Decision::Allow;
        }
        Decision::NoOpinion(match errors.as_slice() {
            [] => String::new(),
            [only] => format!("RBAC: {only}"),
            many => format!("RBAC: [{}]", many.join(", ")),
        })
    }
}

fn selects(selector: &LabelSelector, labels: Option<&BTreeMap<String, String>>) -> bool {
    let value = |key: &str| labels.and_then(|l| l.get(key)).map(String::as_str);
    let matches = selector.match_labels.as_ref().is_none_or(|m| m.iter().all(|(k, v)| value(k) == Some(v)));
    let expressions = selector.match_expressions.as_deref().unwrap_or_default();
    matches
        && expressions.iter().all(|e| {
            let listed = |v: &str| e.values.as_deref().unwrap_or_default().iter().any(|x| x == v);
            match e.operator.as_str() {
                "In" => value(&e.key).is_some_and(listed),
                "NotIn" => !value(&e.key).is_some_and(listed),
                "Exists" => value(&e.key).is_some(),
                "DoesNotExist" => value(&e.key).is_none(),
                _ => false,
            }
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn put(policy: &mut Policy, kind: Kind, namespace: &str, name: &str, value: &serde_json::Value) {
        policy.apply(kind, namespace, name, Some(value.to_string().as_bytes()));
    }

    fn role(labels: serde_json::Value, verb: &str, resource: &str) -> serde_json::Value {
        json!({"metadata": {"name": "x", "labels": labels},
            "rules": [{"apiGroups": [""], "resources": [resource], "verbs": [verb]}]})
    }

    fn can(policy: &Policy, user: &User, verb: &str, resource: &str, namespace: &str) -> bool {
        let asked = Attributes { resource, namespace, ..Attributes::new(user, verb) };
        policy.authorize(&asked) == Decision::Allow
    }

    #[test]
    fn bindings_give_roles_to_users_groups_and_service_accounts_where_they_stand() {
        let mut policy = Policy::default();
        put(&mut policy, Kind::ClusterRoles, "", "reader", &role(json!({}), "get", "pods"));
        put(&mut policy, Kind::Roles, "a", "writer", &role(json!({}), "create", "pods"));
        let reference = |kind, name| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name});
        let alice = User::new("alice", &["crew"]);
        let robot = User::new("system:serviceaccount:a:robot", &[]);
        put(
            &mut policy,
            Kind::ClusterRoleBindings,
            "",
            "b1",
            &json!({"metadata": {}, "roleRef": reference("ClusterRole", "reader"),
            "subjects": [{"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": "crew"}]}),
        );
        put(
            &mut policy,
            Kind::RoleBindings,
            "a",
            "b2",
            &json!({"metadata": {}, "roleRef": reference("Role", "writer"),
            "subjects": [{"kind": "User", "name": "alice"}, {"kind": "ServiceAccount", "name": "robot"}]}),
        );
        put(
            &mut policy,
            Kind::RoleBindings,
            "b",
            "b3",
            &json!({"metadata": {}, "roleRef": reference("ClusterRole", "reader"),
            "subjects": [{"kind": "ServiceAccount", "name": "robot", "namespace": "a"}]}),
        );
        for (user, verb, namespace, allowed) in [
            (&alice, "get", "a", true),
            (&alice, "get", "", true),
            (&alice, "create", "a", true),
            (&alice, "create", "b", false),
            (&alice, "create", "", false),
            (&robot, "create", "a", true),
            (&robot, "get", "a", false),
            (&robot, "get", "b", true),
            (&robot, "get", "", false),
        ] {
            assert_eq!(can(&policy, user, verb, "pods", namespace), allowed, "{} {verb} in {namespace:?}", user.name);
        }
        let why = |user, verb, namespace| {
            policy
                .reason(&Attributes { resource: "pods", namespace, ..Attributes::new(user, verb) })
                .unwrap_or_default()
        };
        assert_eq!(why(&alice, "get", "a"), r#"ClusterRoleBinding "b1" of ClusterRole "reader" to Group "crew""#);
        assert_eq!(why(&alice, "create", "a"), r#"RoleBinding "b2/a" of Role "writer" to User "alice""#);
        assert_eq!(
            why(&robot, "get", "b"),
            r#"RoleBinding "b3/b" of ClusterRole "reader" to ServiceAccount "robot/a""#
        );
        assert_eq!(why(&robot, "get", "a"), "");
        policy.apply(Kind::RoleBindings, "a", "b2", None);
        assert!(!can(&policy, &alice, "create", "pods", "a"), "a deleted binding gives nothing");
        policy.apply(Kind::ClusterRoles, "", "reader", None);
        assert_eq!(
            policy.authorize(&Attributes { resource: "pods", ..Attributes::new(&alice, "get") }),
            Decision::NoOpinion("RBAC: clusterrole.rbac.authorization.k8s.io \"reader\" not found".to_owned())
        );
    }

    #[test]
    fn aggregating_roles_follow_what_they_select_through_several_steps() {
        let mut policy = Policy::default();
        let aggregating = |label: &str, own: serde_json::Value| {
            json!({"metadata": {"labels": own},
                "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {label: "true"}}]}})
        };
        put(&mut policy, Kind::ClusterRoles, "", "edit", &aggregating("to-edit", json!({})));
        put(&mut policy, Kind::ClusterRoles, "", "view", &aggregating("to-view", json!({"to-edit": "true"})));
        put(&mut policy, Kind::ClusterRoles, "", "v1", &role(json!({"to-view": "true"}), "get", "pods"));
        put(&mut policy, Kind::ClusterRoles, "", "e1", &role(json!({"to-edit": "true"}), "create", "pods"));
        let stale = policy.stale_aggregates();
        assert_eq!(stale.iter().map(|(n, r)| (n.as_str(), r.len())).collect::<Vec<_>>(), [("edit", 2), ("view", 1)]);
        policy.apply(Kind::ClusterRoles, "", "v1", None);
        let counts: Vec<usize> = ["edit", "view"].iter().map(|n| policy.cluster_roles[*n].rules.len()).collect();
        assert_eq!(counts, [1, 0]);
    }
}
