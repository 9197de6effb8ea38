//! The roles and bindings every cluster has, as one table.
//!
//! They are Kubernetes 1.36's (`rbac/bootstrappolicy`), without those for kinds and controllers that are only there by a
//! feature gate, and with Coracle's own two at the end. A rule is one line:
//!
//! ```text
//!   verbs groups resources [@names]      commas between several; `core` is the group without a name
//!   verbs url paths
//! ```
//!
//! `read`, `write` and `readwrite` stand for the usual verbs.

mod table;

use std::sync::OnceLock;

use k8s_openapi::{
    api::rbac::v1::{
        AggregationRule, ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
};

use self::table::{AGGREGATED, AGGREGATING, CONTROLLERS, NODE, ROLES, SYSTEM_ROLES};

/// The rule a line of the table stands for.
pub(crate) fn rule(line: &str) -> PolicyRule {
    let mut fields = line.split_ascii_whitespace();
    let mut next = || fields.next().unwrap_or_default();
    let split = |field: &str| -> Vec<String> {
        let mut values: Vec<String> = field.split(',').map(str::to_owned).collect();
        values.sort();
        values
    };
    let (verbs, groups, resources, names) = (next(), next(), next(), next());
    let verbs = split(&match verbs {
        "read" => "get,list,watch".to_owned(),
        "write" => "create,update,patch,delete,deletecollection".to_owned(),
        "readwrite" => "get,list,watch,create,update,patch,delete,deletecollection".to_owned(),
        verbs => verbs.to_owned(),
    });
    if groups == "url" {
        return PolicyRule { verbs, non_resource_urls: Some(split(resources)), ..PolicyRule::default() };
    }
    let groups = split(&groups.split(',').map(|g| if g == "core" { "" } else { g }).collect::<Vec<_>>().join(","));
    let names = names.strip_prefix('@').map(split);
    PolicyRule {
        verbs,
        api_groups: Some(groups),
        resources: Some(split(resources)),
        resource_names: names,
        non_resource_urls: None,
    }
}

/// The rules of the role `system:node`.
pub(super) fn node_rules() -> &'static [PolicyRule] {
    static RULES: OnceLock<Vec<PolicyRule>> = OnceLock::new();
    RULES.get_or_init(|| NODE.iter().map(|line| rule(line)).collect())
}

const SYSTEM: &str = "kube-system";
const GROUP: &str = "rbac.authorization.k8s.io";

/// The table's objects.
#[derive(Debug, Default)]
pub(super) struct Defaults {
    pub(super) cluster_roles: Vec<ClusterRole>,
    pub(super) cluster_role_bindings: Vec<ClusterRoleBinding>,
    pub(super) roles: Vec<Role>,
    pub(super) role_bindings: Vec<RoleBinding>,
}

fn meta(name: &str, namespace: Option<&str>) -> ObjectMeta {
    let pair = |key: &str, value: &str| Some([(key.to_owned(), value.to_owned())].into());
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: namespace.map(str::to_owned),
        labels: pair("kubernetes.io/bootstrapping", "rbac-defaults"),
        annotations: pair(AUTOUPDATE, "true"),
        ..ObjectMeta::default()
    }
}

/// `false` on an object keeps it as its owner wants it.
pub(super) const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

fn rules(lines: &[&str]) -> Option<Vec<PolicyRule>> {
    Some(lines.iter().map(|line| rule(line)).collect())
}

fn subject(text: &str) -> Subject {
    let (kind, name) = text.split_once(':').unwrap_or_default();
    let account = kind == "s";
    Subject {
        kind: match kind {
            "g" => "Group",
            "u" => "User",
            _ => "ServiceAccount",
        }
        .to_owned(),
        name: name.to_owned(),
        api_group: (!account).then(|| GROUP.to_owned()),
        namespace: account.then(|| SYSTEM.to_owned()),
    }
}

fn reference(kind: &str, name: &str) -> RoleRef {
    RoleRef { api_group: Some(GROUP.to_owned()), kind: kind.to_owned(), name: name.to_owned() }
}

impl Defaults {
    pub(super) fn new() -> Self {
        let mut all = Self::default();
        let label = |to: &str| format!("{GROUP}/aggregate-to-{to}");
        for (name, gathers, gathered_by) in AGGREGATING {
            let mut role = ClusterRole { metadata: meta(name, None), ..ClusterRole::default() };
            if !gathered_by.is_empty() {
                role.metadata.labels.get_or_insert_default().insert(label(gathered_by), "true".to_owned());
            }
            let selector = LabelSelector {
                match_labels: Some([(label(gathers), "true".to_owned())].into()),
                ..LabelSelector::default()
            };
            role.aggregation_rule = Some(AggregationRule { cluster_role_selectors: Some(vec![selector]) });
            all.cluster_roles.push(role);
        }
        for (name, by, lines) in AGGREGATED {
            let mut role = ClusterRole { metadata: meta(name, None), rules: rules(lines), ..ClusterRole::default() };
            let labels = by.split(',').map(|by| (label(by), "true".to_owned()));
            role.metadata.labels.get_or_insert_default().extend(labels);
            all.cluster_roles.push(role);
        }
        for (name, subjects, lines) in ROLES {
            all.add(name, subjects, lines);
        }
        for (name, lines) in CONTROLLERS {
            let account = format!("s:{name}");
            all.add(&format!("system:controller:{name}"), &[&account, "u:system:kube-controller-manager"], lines);
        }
        for (name, subjects, lines) in SYSTEM_ROLES {
            all.roles.push(Role { metadata: meta(name, Some(SYSTEM)), rules: rules(lines) });
            if !subjects.is_empty() {
                all.bind_in_system(name, name, subjects);
            }
        }
        let readers = ["u:system:kube-controller-manager", "u:system:kube-scheduler"];
        let reader = "extension-apiserver-authentication-reader";
        all.bind_in_system("system::extension-apiserver-authentication-reader", reader, &readers);
        all
    }

    fn add(&mut self, name: &str, subjects: &[&str], lines: &[&str]) {
        self.cluster_roles.push(ClusterRole {
            metadata: meta(name, None),
            rules: rules(lines),
            ..ClusterRole::default()
        });
        if !subjects.is_empty() {
            self.cluster_role_bindings.push(ClusterRoleBinding {
                metadata: meta(name, None),
                role_ref: reference("ClusterRole", name),
                subjects: Some(subjects.iter().map(|s| subject(s)).collect()),
            });
        }
    }

    fn bind_in_system(&mut self, name: &str, role: &str, subjects: &[&str]) {
        self.role_bindings.push(RoleBinding {
            metadata: meta(name, Some(SYSTEM)),
            role_ref: reference("Role", role),
            subjects: Some(subjects.iter().map(|s| subject(s)).collect()),
        });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_line_of_the_table_is_a_whole_rule_and_every_name_stands_once() {
        let all = Defaults::new();
        let mut names = BTreeSet::new();
        for role in &all.cluster_roles {
            assert!(names.insert(role.metadata.name.clone().unwrap()), "{:?} twice", role.metadata.name);
            for rule in role.rules.iter().flatten() {
                let lists = [&rule.api_groups, &rule.resources, &rule.non_resource_urls, &rule.resource_names];
                let strings = lists.iter().filter_map(|l| l.as_ref()).flatten().chain(&rule.verbs);
                let about = rule.resources.is_some() != rule.non_resource_urls.is_some();
                assert!(about && !rule.verbs.is_empty(), "{:?}: {rule:?}", role.metadata.name);
                for text in strings {
                    assert!(!text.contains(char::is_whitespace), "{:?}: {text:?}", role.metadata.name);
                }
                assert!(rule.resources.iter().flatten().all(|r| !r.is_empty()), "{:?}", role.metadata.name);
            }
        }
        for binding in &all.cluster_role_bindings {
            assert!(names.contains(&binding.role_ref.name), "{} is bound and not there", binding.role_ref.name);
        }
        let roles: BTreeSet<_> = all.roles.iter().map(|r| r.metadata.name.clone().unwrap()).collect();
        for binding in &all.role_bindings {
            assert!(roles.contains(&binding.role_ref.name), "{} is bound and not there", binding.role_ref.name);
        }
    }
}
