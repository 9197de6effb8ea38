//! Which requests a flow schema is about.

use k8s_openapi::api::flowcontrol::v1::{
    FlowSchemaSpec, NonResourcePolicyRule, PolicyRulesWithSubjects, ResourcePolicyRule, Subject,
};

use crate::{request::RequestInfo, user::User};

/// The rules of a flow schema, compiled: a request that one of them is about belongs to the schema.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rules(Vec<Rule>);

#[derive(Debug, PartialEq, Eq)]
struct Rule {
    subjects: Vec<Who>,
    resources: Vec<Resources>,
    paths: Vec<Paths>,
}

#[derive(Debug, PartialEq, Eq)]
enum Who {
    Everybody,
    User(String),
    Group(String),
    /// Every service account of the namespace: how their names begin.
    Accounts(String),
}

/// Some words, or all there are.
#[derive(Debug, PartialEq, Eq)]
enum Words {
    All,
    These(Vec<String>),
}

#[derive(Debug, PartialEq, Eq)]
struct Resources {
    verbs: Words,
    groups: Words,
    resources: Words,
    namespaces: Words,
    is_of_cluster: bool,
}

#[derive(Debug, PartialEq, Eq)]
struct Paths {
    verbs: Words,
    paths: Vec<Path>,
}

#[derive(Debug, PartialEq, Eq)]
enum Path {
    All,
    /// This one, and all below it.
    At(String),
    /// All below it: it ends with a slash.
    Below(String),
}

impl Words {
    fn of(words: &[String]) -> Self {
        match words {
            [only] if only == "*" => Self::All,
            words => Self::These(words.to_vec()),
        }
    }

    fn any(&self, is_it: impl Fn(&str) -> bool) -> bool {
        match self {
            Self::All => true,
            Self::These(words) => words.iter().any(|word| is_it(word)),
        }
    }

    fn hold(&self, word: &str) -> bool {
        self.any(|own| own == word)
    }
}

impl Who {
    fn of(subject: &Subject) -> Option<Self> {
        match subject.kind.as_str() {
            "User" => subject.user.as_ref().map(|user| match user.name.as_str() {
                "*" => Self::Everybody,
                name => Self::User(name.to_owned()),
            }),
            "Group" => subject.group.as_ref().map(|group| match group.name.as_str() {
                "*" => Self::Everybody,
                name => Self::Group(name.to_owned()),
            }),
            "ServiceAccount" => subject.service_account.as_ref().map(|account| {
                let begin = format!("system:serviceaccount:{}:", account.namespace);
                match account.name.as_str() {
                    "*" => Self::Accounts(begin),
                    name => Self::User(begin + name),
                }
            }),
            _ => None,
        }
    }

    fn is(&self, user: &User) -> bool {
        match self {
            Self::Everybody => true,
            Self::User(name) => *name == user.name,
            Self::Group(group) => user.is_in(group),
            Self::Accounts(begin) => user.name.starts_with(begin.as_str()),
        }
    }
}

/// Whether `wanted` is the resource, or the subresource, as rules name them: `pods`, `pods/log`.
fn is_resource(wanted: &str, info: &RequestInfo) -> bool {
    match wanted.split_once('/') {
        Some((resource, subresource)) => resource == info.resource && subresource == info.subresource,
        None => wanted == info.resource && info.subresource.is_empty(),
    }
}

impl Resources {
    fn of(rule: &ResourcePolicyRule) -> Self {
        Self {
            verbs: Words::of(&rule.verbs),
            groups: Words::of(&rule.api_groups),
            resources: Words::of(&rule.resources),
            namespaces: Words::of(rule.namespaces.as_deref().unwrap_or_default()),
            is_of_cluster: rule.cluster_scope == Some(true),
        }
    }

    fn hold(&self, info: &RequestInfo) -> bool {
        self.verbs.hold(&info.verb)
            && self.resources.any(|wanted| is_resource(wanted, info))
            && self.groups.hold(&info.group)
            && if info.namespace.is_empty() { self.is_of_cluster } else { self.namespaces.hold(&info.namespace) }
    }
}

impl Path {
    fn of(text: &str) -> Self {
        match text {
            "*" => Self::All,
            text => match text.strip_suffix('*').unwrap_or(text) {
                below if below.ends_with('/') => Self::Below(below.to_owned()),
                at => Self::At(at.to_owned()),
            },
        }
    }

    fn holds(&self, path: &str) -> bool {
        match self {
            Self::All => true,
            Self::At(at) => path.strip_prefix(at.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
            Self::Below(below) => path.starts_with(below.as_str()),
        }
    }
}

impl Paths {
    fn of(rule: &NonResourcePolicyRule) -> Self {
        let paths = rule.non_resource_urls.iter().map(|path| Path::of(path)).collect();
        Self { verbs: Words::of(&rule.verbs), paths }
    }

    fn hold(&self, info: &RequestInfo) -> bool {
        self.verbs.hold(&info.verb) && self.paths.iter().any(|path| path.holds(&info.path))
    }
}

impl Rule {
    fn of(rule: &PolicyRulesWithSubjects) -> Self {
        Self {
            subjects: rule.subjects.iter().filter_map(Who::of).collect(),
            resources: rule.resource_rules.iter().flatten().map(Resources::of).collect(),
            paths: rule.non_resource_rules.iter().flatten().map(Paths::of).collect(),
        }
    }

    fn is_about(&self, user: &User, info: &RequestInfo) -> bool {
        let is_what = if info.is_resource {
            self.resources.iter().any(|resources| resources.hold(info))
        } else {
            self.paths.iter().any(|paths| paths.hold(info))
        };
        is_what && self.subjects.iter().any(|who| who.is(user))
    }
}

impl Rules {
    /// Compiles a schema's rules.
    pub(super) fn of(spec: &FlowSchemaSpec) -> Self {
        Self(spec.rules.iter().flatten().map(Rule::of).collect())
    }

    /// Whether one of them is about this user's request.
    pub(super) fn are_about(&self, user: &User, info: &RequestInfo) -> bool {
        self.0.iter().any(|rule| rule.is_about(user, info))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn matches(rule: &Value, user: &User, method: &str, uri: &str) -> bool {
        let spec = json!({"priorityLevelConfiguration": {"name": "l"}, "rules": [rule]});
        let info = RequestInfo::new(&method.parse().unwrap(), &uri.parse().unwrap());
        Rules::of(&serde_json::from_value(spec).unwrap()).are_about(user, &info)
    }

    #[test]
    fn subjects_are_users_groups_and_accounts() {
        let user = |name: &str| json!({"kind": "User", "user": {"name": name}});
        let group = |name: &str| json!({"kind": "Group", "group": {"name": name}});
        let account = |namespace: &str, name: &str| json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": namespace, "name": name}});
        let (alice, robot) = (User::new("alice", &["crew"]), User::new("system:serviceaccount:n:robot", &[]));
        for (subject, is_alice, is_robot) in [
            (user("alice"), true, false),
            (user("*"), true, true),
            (group("crew"), true, false),
            (group("system:authenticated"), true, true),
            (group("*"), true, true),
            (account("n", "robot"), false, true),
            (account("n", "*"), false, true),
            (account("n", "other"), false, false),
            (account("m", "*"), false, false),
            (user("system:serviceaccount:n:robot"), false, true),
        ] {
            let rule = json!({"subjects": [subject], "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]});
            let found = [&alice, &robot].map(|user| matches(&rule, user, "GET", "/version"));
            assert_eq!(found, [is_alice, is_robot], "{rule}");
        }
    }

    #[test]
    fn resources_are_matched_by_verb_group_scope_and_subresource() {
        let alice = User::new("alice", &[]);
        let base = json!({"verbs": ["get", "list"], "apiGroups": ["", "apps"], "resources": ["pods", "pods/log", "nodes"],
            "namespaces": ["a"], "clusterScope": true});
        let with = |name: &str, value: Value| {
            let mut rule = base.clone();
            rule[name] = value;
            rule
        };
        for (rule, method, uri, expected) in [
            (base.clone(), "GET", "/api/v1/namespaces/a/pods/p", true),
            (base.clone(), "GET", "/api/v1/namespaces/b/pods/p", false),
            (base.clone(), "GET", "/api/v1/namespaces/a/pods/p/log", true),
            (base.clone(), "GET", "/api/v1/namespaces/a/pods/p/status", false),
            (base.clone(), "POST", "/api/v1/namespaces/a/pods", false),
            (base.clone(), "GET", "/api/v1/nodes", true),
            (base.clone(), "GET", "/apis/batch/v1/namespaces/a/pods", false),
            (base.clone(), "GET", "/version", false),
            (with("clusterScope", json!(false)), "GET", "/api/v1/nodes", false),
            (with("namespaces", json!(["*"])), "GET", "/api/v1/namespaces/b/pods/p", true),
            (with("resources", json!(["*"])), "GET", "/api/v1/namespaces/a/pods/p/status", true),
            (with("verbs", json!(["*"])), "POST", "/api/v1/namespaces/a/pods", true),
            (with("apiGroups", json!(["*"])), "GET", "/apis/batch/v1/namespaces/a/pods", true),
        ] {
            let rule = json!({"subjects": [{"kind": "User", "user": {"name": "*"}}], "resourceRules": [rule]});
            assert_eq!(matches(&rule, &alice, method, uri), expected, "{method} {uri} by {rule}");
        }
    }

    #[test]
    fn paths_hold_what_is_below_them() {
        let alice = User::new("alice", &[]);
        for (path, uri, expected) in [
            ("/healthz", "/healthz", true),
            ("/healthz", "/healthz/store", true),
            ("/healthz", "/healthzz", false),
            ("/apis/*", "/apis/apps", true),
            ("/apis/*", "/apis", false),
            ("*", "/anything", true),
        ] {
            let rule = json!({"verbs": ["get"], "nonResourceURLs": [path]});
            let rule = json!({"subjects": [{"kind": "User", "user": {"name": "*"}}], "nonResourceRules": [rule]});
            assert_eq!(matches(&rule, &alice, "GET", uri), expected, "{path} {uri}");
            assert!(!matches(&rule, &alice, "POST", uri), "{path} {uri}");
        }
    }
}
