//! Rules by which admission's objects say which requests they are about: operations, groups, versions, resources, scope.

use std::collections::BTreeSet;

use coracle_proto::field::{Error, Errors, Path};
use k8s_openapi::api::admissionregistration::v1::{NamedRuleWithOperations, RuleWithOperations};

use super::blank::{fill_text, list, text};

const ALL: &str = "*";

/// What a rule says.
pub(super) struct Rule<'a> {
    groups: &'a [String],
    versions: &'a [String],
    resources: &'a [String],
    operations: &'a [String],
    scope: &'a str,
}

impl<'a> Rule<'a> {
    /// A webhook's rule.
    pub(super) fn of(rule: &'a RuleWithOperations) -> Self {
        Self {
            groups: list(&rule.api_groups),
            versions: list(&rule.api_versions),
            resources: list(&rule.resources),
            operations: list(&rule.operations),
            scope: text(&rule.scope),
        }
    }

    /// A policy's rule.
    pub(super) fn named(rule: &'a NamedRuleWithOperations) -> Self {
        Self {
            groups: list(&rule.api_groups),
            versions: list(&rule.api_versions),
            resources: list(&rule.resources),
            operations: list(&rule.operations),
            scope: text(&rule.scope),
        }
    }

    /// Everything wrong with it.
    pub(super) fn validate(&self, errors: &mut Errors, path: &Path) {
        let at = path.child("operations");
        required(errors, &at, self.operations);
        alone(errors, &at, self.operations, "if '*' is present, must not specify other operations");
        for (i, operation) in self.operations.iter().enumerate() {
            let known = &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
            if !known.contains(&operation.as_str()) {
                errors.push(Error::not_supported(&at.index(i), operation.as_str(), known));
            }
        }
        let at = path.child("apiGroups");
        required(errors, &at, self.groups);
        alone(errors, &at, self.groups, "if '*' is present, must not specify other API groups");
        let at = path.child("apiVersions");
        required(errors, &at, self.versions);
        alone(errors, &at, self.versions, "if '*' is present, must not specify other API versions");
        for (i, _) in self.versions.iter().enumerate().filter(|(_, version)| version.is_empty()) {
            errors.push(Error::required(&at.index(i), ""));
        }
        validate_resources(errors, &path.child("resources"), self.resources);
        let known = &["*", "Cluster", "Namespaced"];
        if !self.scope.is_empty() && !known.contains(&self.scope) {
            errors.push(Error::not_supported(&path.child("scope"), self.scope, known));
        }
    }
}

/// A rule that says no scope is about both.
pub(super) fn default_scope(scope: &mut Option<String>) {
    fill_text(scope, ALL);
}

fn required(errors: &mut Errors, path: &Path, values: &[String]) {
    if values.is_empty() {
        errors.push(Error::required(path, ""));
    }
}

fn alone(errors: &mut Errors, path: &Path, values: &[String], detail: &str) {
    if values.len() > 1 && values.iter().any(|value| value == ALL) {
        errors.push(Error::invalid(path, values.to_vec(), detail));
    }
}

fn validate_resources(errors: &mut Errors, path: &Path, resources: &[String]) {
    required(errors, path, resources);
    let (mut with_all_below, mut below_all) = (BTreeSet::new(), BTreeSet::new());
    let mut plain = false;
    for (i, resource) in resources.iter().enumerate() {
        if resource.is_empty() {
            errors.push(Error::required(&path.index(i), ""));
            continue;
        }
        let Some((main, sub)) = resource.split_once('/') else {
            plain = resource != ALL;
            continue;
        };
        if with_all_below.contains(main) {
            let detail = format!("if '{main}/*' is present, must not specify {resource}");
            errors.push(Error::invalid(&path.index(i), resource.as_str(), &detail));
        }
        if below_all.contains(sub) {
            let detail = format!("if '*/{sub}' is present, must not specify {resource}");
            errors.push(Error::invalid(&path.index(i), resource.as_str(), &detail));
        }
        if sub == ALL {
            with_all_below.insert(main);
        }
        if main == ALL {
            below_all.insert(sub);
        }
    }
    let has = |name: &str| resources.iter().any(|resource| resource == name);
    if resources.len() > 1 && has("*/*") {
        let detail = "if '*/*' is present, must not specify other resources";
        errors.push(Error::invalid(path, resources.to_vec(), detail));
    }
    if has(ALL) && plain {
        let detail = "if '*' is present, must not specify other resources without subresources";
        errors.push(Error::invalid(path, resources.to_vec(), detail));
    }
}
