//! What the configurations of mutating and validating webhooks share.

use std::collections::BTreeSet;

use coracle_proto::{
    field::{Error, Errors, Path},
    name,
};
use k8s_openapi::{
    api::admissionregistration::v1::{
        MutatingWebhook, RuleWithOperations, ServiceReference, ValidatingWebhook, WebhookClientConfig,
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
};
use serde_json::Value;

use super::{
    admission_match::validate_conditions,
    admission_rules::{Rule, default_scope},
    blank::{drop_blank, fill, items_mut, list, text},
    cells, label_selector, rules,
};
use crate::kind::{AGE, Column, NAME, age};
use jiff::Timestamp;

/// The columns of both kinds.
pub(super) const COLUMNS: &[Column] = &[
    NAME,
    cells::integer("Webhooks", "Webhooks indicates the number of webhooks registered in this configuration"),
    AGE,
];

/// The cells of both kinds.
pub(super) fn row(meta: &ObjectMeta, count: usize, now: Timestamp) -> Vec<Value> {
    vec![cells::name(meta), count.into(), age(meta, now).into()]
}

/// Versions of AdmissionReview that the server speaks.
pub(crate) const REVIEW_VERSIONS: &[&str] = &["v1", "v1beta1"];

/// A validating webhook as the mutating one it would be: it is the same but for reinvocation.
#[must_use]
pub(crate) fn widened(hook: &ValidatingWebhook) -> MutatingWebhook {
    MutatingWebhook {
        admission_review_versions: hook.admission_review_versions.clone(),
        client_config: hook.client_config.clone(),
        failure_policy: hook.failure_policy.clone(),
        match_conditions: hook.match_conditions.clone(),
        match_policy: hook.match_policy.clone(),
        name: hook.name.clone(),
        namespace_selector: hook.namespace_selector.clone(),
        object_selector: hook.object_selector.clone(),
        reinvocation_policy: None,
        rules: hook.rules.clone(),
        side_effects: hook.side_effects.clone(),
        timeout_seconds: hook.timeout_seconds,
    }
}

/// The fields of either sort of webhook that have defaults.
pub(super) struct Defaulted<'a> {
    pub(super) client_config: &'a mut WebhookClientConfig,
    pub(super) failure_policy: &'a mut Option<String>,
    pub(super) match_policy: &'a mut Option<String>,
    pub(super) namespace_selector: &'a mut Option<LabelSelector>,
    pub(super) object_selector: &'a mut Option<LabelSelector>,
    pub(super) rules: &'a mut Option<Vec<RuleWithOperations>>,
    pub(super) timeout_seconds: &'a mut Option<i32>,
}

impl Defaulted<'_> {
    pub(super) fn fill(self) {
        fill(self.failure_policy, "Fail".to_owned());
        fill(self.match_policy, "Equivalent".to_owned());
        fill(self.namespace_selector, LabelSelector::default());
        fill(self.object_selector, LabelSelector::default());
        fill(self.timeout_seconds, 10);
        if let Some(service) = &mut self.client_config.service {
            fill(&mut service.port, 443);
        }
        drop_blank(self.rules);
        for rule in items_mut(self.rules) {
            default_scope(&mut rule.scope);
        }
    }
}

/// Everything wrong with a configuration's webhooks.
pub(super) fn validate<'a>(hooks: impl Iterator<Item = &'a MutatingWebhook>) -> Errors {
    let mut errors = Errors::new();
    let mut names = BTreeSet::new();
    for (i, hook) in hooks.enumerate() {
        let path = Path::new("webhooks").index(i);
        validate_hook(&mut errors, &path, hook);
        validate_versions(&mut errors, &path.child("admissionReviewVersions"), &hook.admission_review_versions);
        if !hook.name.is_empty() && !names.insert(hook.name.as_str()) {
            errors.push(Error::duplicate(&path.child("name"), hook.name.as_str()));
        }
    }
    errors
}

fn validate_hook(errors: &mut Errors, path: &Path, hook: &MutatingWebhook) {
    qualified_name(errors, &path.child("name"), &hook.name);
    for (i, rule) in list(&hook.rules).iter().enumerate() {
        Rule::of(rule).validate(errors, &path.child("rules").index(i));
    }
    known(errors, &path.child("failurePolicy"), &hook.failure_policy, &["Fail", "Ignore"]);
    known(errors, &path.child("matchPolicy"), &hook.match_policy, &["Equivalent", "Exact"]);
    let (at, effects) = (path.child("sideEffects"), &["None", "NoneOnDryRun"]);
    if hook.side_effects.is_empty() {
        errors.push(Error::required(&at, "must specify one of None, NoneOnDryRun"));
    } else {
        rules::known_word(errors, &at, &hook.side_effects, effects);
    }
    if let Some(seconds) = hook.timeout_seconds.filter(|seconds| !(1..=30).contains(seconds)) {
        let detail = "the timeout value must be between 1 and 30 seconds";
        errors.push(Error::invalid(&path.child("timeoutSeconds"), seconds, detail));
    }
    for (name, selector) in [("namespaceSelector", &hook.namespace_selector), ("objectSelector", &hook.object_selector)]
    {
        if let Some(selector) = selector {
            label_selector::validate(errors, &path.child(name), selector);
        }
    }
    known(errors, &path.child("reinvocationPolicy"), &hook.reinvocation_policy, &["IfNeeded", "Never"]);
    let (config, at) = (&hook.client_config, path.child("clientConfig"));
    match (&config.url, &config.service) {
        (Some(url), None) => validate_url(errors, &at.child("url"), url),
        (None, Some(service)) => validate_service(errors, &at.child("service"), service),
        _ => errors.push(Error::required(&at, "exactly one of url or service is required")),
    }
    validate_conditions(errors, &path.child("matchConditions"), list(&hook.match_conditions), false);
}

fn known(errors: &mut Errors, path: &Path, word: &Option<String>, known: &[&str]) {
    if let Some(word) = word {
        rules::known_word(errors, path, word, known);
    }
}

/// A name of at least three labels, as domains have.
fn qualified_name(errors: &mut Errors, path: &Path, value: &str) {
    if value.is_empty() {
        errors.push(Error::required(path, ""));
        return;
    }
    let faults = name::dns1123_subdomain(value);
    if !faults.is_empty() {
        errors.push(Error::invalid(path, value, &faults.join(",")));
    } else if value.split('.').count() < 3 {
        let detail = "should be a domain with at least three segments separated by dots";
        errors.push(Error::invalid(path, value, detail));
    }
}

fn validate_versions(errors: &mut Errors, path: &Path, versions: &[String]) {
    let accepted = REVIEW_VERSIONS.join(", ");
    if versions.is_empty() {
        errors.push(Error::required(path, &format!("must specify one of {accepted}")));
        return;
    }
    let mut seen = BTreeSet::new();
    for (i, version) in versions.iter().enumerate() {
        if !seen.insert(version.as_str()) {
            errors.push(Error::invalid(&path.index(i), version.as_str(), "duplicate version"));
            continue;
        }
        rules::messages(errors, &path.index(i), version, name::dns1035_label(version));
    }
    if !seen.iter().any(|version| REVIEW_VERSIONS.contains(version)) {
        errors.push(Error::invalid(path, versions.to_vec(), &format!("must include at least one of {accepted}")));
    }
}

fn validate_url(errors: &mut Errors, path: &Path, url: &str) {
    const FORM: &str = "; desired format: https://host[/path]";
    if url.parse::<http::Uri>().is_err() {
        errors.push(Error::required(path, &format!("url must be a valid URL: {url:?} cannot be read{FORM}")));
        return;
    }
    // By hand, since `Uri` forgets fragments.
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    if scheme != "https" {
        errors.push(Error::invalid(path, scheme, &format!("'https' is the only allowed URL scheme{FORM}")));
    }
    let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let authority = if scheme.is_empty() { "" } else { rest.split('/').next().unwrap_or_default() };
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    if host.is_empty() {
        errors.push(Error::invalid(path, host, &format!("host must be specified{FORM}")));
    }
    for (part, detail) in [
        (user, "user information is not permitted in the URL"),
        (fragment, "fragments are not permitted in the URL"),
        (query, "query parameters are not permitted in the URL"),
    ] {
        if !part.is_empty() {
            errors.push(Error::invalid(path, part, detail));
        }
    }
}

fn validate_service(errors: &mut Errors, path: &Path, service: &ServiceReference) {
    for (name, value) in [("name", &service.name), ("namespace", &service.namespace)] {
        if value.is_empty() {
            errors.push(Error::required(&path.child(name), ""));
        }
    }
    let port = service.port.unwrap_or(443);
    let faults = name::port_number(port.into());
    if !faults.is_empty() {
        let detail = format!("port is not valid: {}", faults.join(", "));
        errors.push(Error::invalid(&path.child("port"), port, &detail));
    }
    let (at, given) = (path.child("path"), text(&service.path));
    if matches!(given, "" | "/") {
        return;
    }
    if given == "//" {
        errors.push(Error::invalid(&at, given, "segment[0] may not be empty"));
        return;
    }
    if !given.starts_with('/') {
        errors.push(Error::invalid(&at, given, "must start with a '/'"));
    }
    let inner: String = given.chars().skip(1).collect();
    for (i, step) in inner.strip_suffix('/').unwrap_or(&inner).split('/').enumerate() {
        if step.is_empty() {
            errors.push(Error::invalid(&at, given, &format!("segment[{i}] may not be empty")));
            continue;
        }
        for fault in name::dns1123_subdomain(step) {
            errors.push(Error::invalid(&at, given, &format!("segment[{i}]: {fault}")));
        }
    }
}
