//! The policy file: what is recorded of which requests (`audit.k8s.io/v1`, kind `Policy`).

use coracle_proto::{
    field::{self, Error, Path},
    name::dns1123_subdomain,
};
use serde::Deserialize;

use crate::{request::RequestInfo, user::User};

/// How much is recorded of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// Nothing.
    #[default]
    None,
    /// Who, when, what, and how it ended.
    Metadata,
    /// And what was sent.
    Request,
    /// And what was answered.
    RequestResponse,
}

impl Level {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Metadata => "Metadata",
            Self::Request => "Request",
            Self::RequestResponse => "RequestResponse",
        }
    }

    fn of(text: &str) -> Option<Self> {
        [Self::None, Self::Metadata, Self::Request, Self::RequestResponse].into_iter().find(|l| l.as_str() == text)
    }
}

/// How far a request has come when an event is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Nothing is done yet.
    RequestReceived,
    /// What goes on for long has begun to be answered.
    ResponseStarted,
    /// All is answered.
    ResponseComplete,
    /// It ended in a panic.
    Panic,
}

impl Stage {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::RequestReceived => "RequestReceived",
            Self::ResponseStarted => "ResponseStarted",
            Self::ResponseComplete => "ResponseComplete",
            Self::Panic => "Panic",
        }
    }

    const ALL: [Self; 4] = [Self::RequestReceived, Self::ResponseStarted, Self::ResponseComplete, Self::Panic];
}

/// What the policy says of one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) level: Level,
    omitted: Vec<Stage>,
    pub(crate) omits_managed_fields: bool,
}

impl Extent {
    /// Whether there is an event of this stage.
    pub(crate) fn tells(&self, stage: Stage) -> bool {
        self.level != Level::None && !self.omitted.contains(&stage)
    }
}

/// Why a policy cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// It is no YAML, or not that of a policy.
    #[error("the audit policy cannot be read: {0}")]
    Unreadable(String),
    /// It is another kind of object.
    #[error("the audit policy must be apiVersion audit.k8s.io/v1, kind Policy")]
    OtherKind,
    /// Its values are wrong.
    #[error("the audit policy is invalid: {0}")]
    Invalid(String),
    /// It says nothing.
    #[error("loaded illegal policy with 0 rules")]
    Empty,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PolicyFile {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default, rename = "metadata")]
    _metadata: serde_json::Value,
    #[serde(default)]
    rules: Vec<RuleFile>,
    #[serde(default)]
    omit_stages: Vec<String>,
    #[serde(default)]
    omit_managed_fields: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct RuleFile {
    level: String,
    users: Vec<String>,
    user_groups: Vec<String>,
    verbs: Vec<String>,
    resources: Vec<ResourcesFile>,
    namespaces: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    non_resource_urls: Vec<String>,
    omit_stages: Vec<String>,
    omit_managed_fields: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct ResourcesFile {
    group: String,
    resources: Vec<String>,
    resource_names: Vec<String>,
}

#[derive(Debug)]
struct Rule {
    file: RuleFile,
    extent: Extent,
}

/// A policy: the first rule that is about a request says what is recorded of it; none, nothing.
#[derive(Debug)]
pub(super) struct Policy {
    rules: Vec<Rule>,
}

fn stages(names: &[String]) -> impl Iterator<Item = Stage> {
    names.iter().filter_map(|name| Stage::ALL.into_iter().find(|stage| stage.as_str() == name))
}

fn validate_stages(errors: &mut Vec<Error>, path: &Path, names: &[String]) {
    let known = Stage::ALL.map(Stage::as_str);
    for (at, name) in names.iter().enumerate().filter(|(_, name)| !known.contains(&name.as_str())) {
        errors.push(Error::invalid(&path.index(at), name.as_str(), &format!("allowed stages are {}", known.join(","))));
    }
}

fn validate(rule: &RuleFile, path: &Path, errors: &mut Vec<Error>) {
    let at = path.child("level");
    if rule.level.is_empty() {
        errors.push(Error::required(&at, ""));
    } else if Level::of(&rule.level).is_none() {
        errors.push(Error::not_supported(
            &at,
            rule.level.as_str(),
            &["None", "Metadata", "Request", "RequestResponse"],
        ));
    }
    let at = path.child("nonResourceURLs");
    for (index, url) in rule.non_resource_urls.iter().enumerate().filter(|(_, url)| *url != "*") {
        if !url.starts_with('/') {
            let detail = "non-resource URL rules must begin with a '/' character";
            errors.push(Error::invalid(&at.index(index), url.as_str(), detail));
        }
        if url.strip_suffix('*').unwrap_or(url).contains('*') {
            let detail = "non-resource URL wildcards '*' must be the final character of the rule";
            errors.push(Error::invalid(&at.index(index), url.as_str(), detail));
        }
    }
    let is_about_objects = !rule.resources.is_empty() || !rule.namespaces.is_empty();
    if !rule.non_resource_urls.is_empty() && is_about_objects {
        let detail = "rules cannot apply to both regular resources and non-resource URLs";
        errors.push(Error::invalid(&at, rule.non_resource_urls.clone(), detail));
    }
    let at = path.child("resources");
    for resources in &rule.resources {
        let group = resources.group.as_str();
        let faults = if matches!(group, "" | "*") { Vec::new() } else { dns1123_subdomain(group) };
        if !faults.is_empty() {
            errors.push(Error::invalid(&at.child("group"), group, &faults.join(",")));
        }
        if !resources.resource_names.is_empty() && resources.resources.is_empty() {
            let detail = "using resourceNames requires at least one resource";
            errors.push(Error::invalid(&at.child("resourceNames"), resources.resource_names.clone(), detail));
        }
    }
    validate_stages(errors, &path.child("omitStages"), &rule.omit_stages);
}

fn has(list: &[String], word: &str) -> bool {
    list.iter().any(|own| own == word)
}

/// Whether a rule's word for resources names this one: `pods`, `pods/log`, `pods/*`, `*/log`, `*`.
fn is_named(word: &str, info: &RequestInfo) -> bool {
    if word == "*" {
        return true;
    }
    match word.split_once('/') {
        None => info.subresource.is_empty() && word == info.resource,
        Some(("*", subresource)) => !info.subresource.is_empty() && subresource == info.subresource,
        Some((resource, "*")) => resource == info.resource,
        Some((resource, subresource)) => resource == info.resource && subresource == info.subresource,
    }
}

impl ResourcesFile {
    fn hold(&self, info: &RequestInfo) -> bool {
        (self.group == "*" || self.group == info.group)
            && (self.resources.is_empty()
                || (self.resource_names.is_empty() || has(&self.resource_names, &info.name))
                    && self.resources.iter().any(|word| is_named(word, info)))
    }
}

impl RuleFile {
    fn is_about(&self, user: &User, info: &RequestInfo) -> bool {
        if !self.users.is_empty() && !has(&self.users, &user.name)
            || !self.user_groups.is_empty() && !user.groups.iter().any(|group| has(&self.user_groups, group))
            || !self.verbs.is_empty() && !has(&self.verbs, &info.verb)
        {
            return false;
        }
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            return info.is_resource
                && (self.namespaces.is_empty() || has(&self.namespaces, &info.namespace))
                && (self.resources.is_empty() || self.resources.iter().any(|resources| resources.hold(info)));
        }
        self.non_resource_urls.is_empty()
            || !info.is_resource
                && self.non_resource_urls.iter().any(|url| match url.strip_suffix('*') {
                    Some(begin) => info.path.starts_with(begin),
                    None => *url == info.path,
                })
    }
}

impl Policy {
    /// Reads a policy file.
    ///
    /// # Errors
    /// It is no policy, or one that cannot be used; all that is wrong with it at once.
    pub(super) fn read(text: &str) -> Result<Self, PolicyError> {
        let file: PolicyFile =
            serde_saphyr::from_str(text).map_err(|error| PolicyError::Unreadable(error.to_string()))?;
        if (file.api_version.as_str(), file.kind.as_str()) != ("audit.k8s.io/v1", "Policy") {
            return Err(PolicyError::OtherKind);
        }
        let mut errors = Vec::new();
        validate_stages(&mut errors, &Path::new("omitStages"), &file.omit_stages);
        for (index, rule) in file.rules.iter().enumerate() {
            validate(rule, &Path::new("rules").index(index), &mut errors);
        }
        if !errors.is_empty() {
            return Err(PolicyError::Invalid(field::aggregate(&errors)));
        }
        if file.rules.is_empty() {
            return Err(PolicyError::Empty);
        }
        let everywhere: Vec<Stage> = stages(&file.omit_stages).collect();
        let rules = file.rules.into_iter().map(|rule| Rule {
            extent: Extent {
                level: Level::of(&rule.level).unwrap_or_default(),
                omitted: everywhere.iter().copied().chain(stages(&rule.omit_stages)).collect(),
                omits_managed_fields: rule.omit_managed_fields.unwrap_or(file.omit_managed_fields),
            },
            file: rule,
        });
        Ok(Self { rules: rules.collect() })
    }

    /// What is recorded of this user's request.
    pub(crate) fn extent(&self, user: &User, info: &RequestInfo) -> Extent {
        let rule = self.rules.iter().find(|rule| rule.file.is_about(user, info));
        rule.map(|rule| rule.extent.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
omitManagedFields: true
rules:
- level: None
  users: [system:kube-proxy]
  verbs: [watch]
  resources: [{group: '', resources: [endpoints, services]}]
- level: None
  nonResourceURLs: ['/healthz*', /version]
- level: Metadata
  resources: [{group: '', resources: [secrets, 'pods/log', '*/status']}]
- level: Request
  resources: [{group: '', resources: [configmaps], resourceNames: [only]}]
  namespaces: [kube-system]
  omitManagedFields: false
- level: RequestResponse
  userGroups: [crew]
  resources: [{group: apps}, {group: batch, resources: ['jobs/*']}]
  omitStages: [ResponseStarted]
- level: Metadata
  namespaces: ['']
";

    fn extent(policy: &Policy, user: &str, method: &str, uri: &str) -> Extent {
        let user = User::new(user, if user == "sailor" { &["crew"] } else { &[] });
        policy.extent(&user, &RequestInfo::new(&method.parse().unwrap(), &uri.parse().unwrap()))
    }

    #[test]
    fn the_first_rule_that_is_about_a_request_counts() {
        let policy = Policy::read(POLICY).unwrap();
        for (user, method, uri, expected) in [
            ("system:kube-proxy", "GET", "/api/v1/services?watch=1", Level::None),
            ("alice", "GET", "/healthz/store", Level::None),
            ("alice", "GET", "/version", Level::None),
            ("alice", "GET", "/version/", Level::None),
            ("alice", "GET", "/api/v1/namespaces/a/secrets/s", Level::Metadata),
            ("alice", "GET", "/api/v1/namespaces/a/pods/p/log", Level::Metadata),
            ("alice", "PUT", "/api/v1/namespaces/a/pods/p/status", Level::Metadata),
            ("alice", "GET", "/api/v1/namespaces/a/pods/p", Level::None),
            ("alice", "PUT", "/api/v1/namespaces/kube-system/configmaps/only", Level::Request),
            ("alice", "PUT", "/api/v1/namespaces/kube-system/configmaps/other", Level::None),
            ("sailor", "POST", "/apis/apps/v1/namespaces/a/deployments", Level::RequestResponse),
            ("sailor", "PUT", "/apis/batch/v1/namespaces/a/jobs/j/scale", Level::RequestResponse),
            ("alice", "POST", "/apis/apps/v1/namespaces/a/deployments", Level::None),
            ("alice", "GET", "/api/v1/nodes", Level::Metadata),
        ] {
            assert_eq!(extent(&policy, user, method, uri).level, expected, "{user} {method} {uri}");
        }
    }

    #[test]
    fn stages_and_managed_fields_are_left_out_as_asked() {
        let policy = Policy::read(POLICY).unwrap();
        let of = |uri| extent(&policy, "sailor", "PUT", uri);
        let deployments = of("/apis/apps/v1/namespaces/a/deployments/d");
        let tells = |extent: &Extent| Stage::ALL.map(|stage| extent.tells(stage));
        assert_eq!(tells(&deployments), [false, false, true, true]);
        assert!(deployments.omits_managed_fields);
        let maps = of("/api/v1/namespaces/kube-system/configmaps/only");
        assert_eq!(tells(&maps), [false, true, true, true]);
        assert!(!maps.omits_managed_fields);
        assert_eq!(tells(&Extent::default()), [false; 4]);
    }

    #[test]
    fn a_policy_that_is_none_says_why() {
        let with = |rules: &str| format!("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: {rules}\n");
        for (text, words) in [
            ("{".to_owned(), "cannot be read"),
            ("apiVersion: audit.k8s.io/v1beta1\nkind: Policy\n".to_owned(), "must be apiVersion audit.k8s.io/v1"),
            (with("[]"), "0 rules"),
            (with("[{}]"), "rules[0].level: Required value"),
            (with("[{level: Loud}]"), "rules[0].level: Unsupported value: \"Loud\""),
            (with("[{level: None, typo: 1}]"), "unknown field `typo`"),
            (with("[{level: None, omitStages: [Late]}]"), "rules[0].omitStages[0]: Invalid value: \"Late\""),
            (with("[{level: None, nonResourceURLs: [x]}]"), "must begin with a '/' character"),
            (with("[{level: None, nonResourceURLs: ['/*/x']}]"), "must be the final character"),
            (with("[{level: None, nonResourceURLs: [/x], namespaces: [a]}]"), "cannot apply to both"),
            (with("[{level: None, resources: [{group: apps/v1}]}]"), "rules[0].resources.group: Invalid value"),
            (with("[{level: None, resources: [{resourceNames: [a]}]}]"), "requires at least one resource"),
        ] {
            let error = Policy::read(&text).unwrap_err().to_string();
            assert!(error.contains(words), "{text}\n{error}");
        }
    }
}
