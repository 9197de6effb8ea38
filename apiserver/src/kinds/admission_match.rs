//! What admission policies and their bindings share: which requests they are about, parameters, conditions.

use std::collections::BTreeSet;

use coracle_proto::{
    field::{Error, Errors, Path},
    name,
};
use k8s_openapi::{
    api::admissionregistration::v1::{MatchCondition, MatchResources, NamedRuleWithOperations, ParamKind, ParamRef},
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};

use super::{
    admission_rules::{Rule, default_scope},
    blank::{drop_blank, fill, items_mut, list, text},
    label_selector, rules,
};
use crate::admission::policy::expressions::{Names, Wanted, compile, environment};

/// As many conditions as one webhook or policy may have.
const MAX_CONDITIONS: usize = 64;

/// Fills in what is left out.
pub(super) fn default_match(resources: &mut MatchResources) {
    fill(&mut resources.match_policy, "Equivalent".to_owned());
    fill(&mut resources.namespace_selector, LabelSelector::default());
    fill(&mut resources.object_selector, LabelSelector::default());
    for rules in [&mut resources.resource_rules, &mut resources.exclude_resource_rules] {
        drop_blank(rules);
        for rule in items_mut(rules) {
            default_scope(&mut rule.scope);
            drop_blank(&mut rule.resource_names);
        }
    }
}

/// Everything wrong with what a policy or binding is about.
pub(super) fn validate_match(errors: &mut Errors, path: &Path, resources: &MatchResources) {
    if let Some(policy) = &resources.match_policy {
        rules::known_word(errors, &path.child("matchPolicy"), policy, &["Equivalent", "Exact"]);
    }
    for (name, selector) in
        [("namespaceSelector", &resources.namespace_selector), ("objectSelector", &resources.object_selector)]
    {
        if let Some(selector) = selector {
            label_selector::validate(errors, &path.child(name), selector);
        }
    }
    for (name, all) in
        [("resourceRules", &resources.resource_rules), ("excludeResourceRules", &resources.exclude_resource_rules)]
    {
        for (i, rule) in list(all).iter().enumerate() {
            validate_rule(errors, &path.child(name).index(i), rule);
        }
    }
}

fn validate_rule(errors: &mut Errors, path: &Path, rule: &NamedRuleWithOperations) {
    let mut seen = BTreeSet::new();
    for (i, given) in list(&rule.resource_names).iter().enumerate() {
        let at = path.child("resourceNames").index(i);
        rules::messages(errors, &at, given, name::path_segment(given));
        if !seen.insert(given) {
            errors.push(Error::duplicate(&at, given.as_str()));
        }
    }
    Rule::named(rule).validate(errors, path);
}

/// Everything wrong with match conditions.
pub(super) fn validate_conditions(errors: &mut Errors, path: &Path, conditions: &[MatchCondition], params: bool) {
    if conditions.len() > MAX_CONDITIONS {
        errors.push(Error::too_many(path, conditions.len(), MAX_CONDITIONS));
    }
    let environment = environment(Names { params, authorizer: true });
    let mut names = BTreeSet::new();
    for (i, condition) in conditions.iter().enumerate().take(MAX_CONDITIONS) {
        let (at, expression) = (path.index(i), condition.expression.trim());
        if expression.is_empty() {
            errors.push(Error::required(&at.child("expression"), ""));
        } else if let Err(why) = compile(expression, &environment, Wanted::Bool) {
            errors.push(Error::invalid(&at.child("expression"), expression, &why));
        }
        if condition.name.is_empty() {
            errors.push(Error::required(&at.child("name"), ""));
            continue;
        }
        rules::messages(errors, &at.child("name"), &condition.name, name::qualified_name(&condition.name));
        if !names.insert(condition.name.as_str()) {
            errors.push(Error::duplicate(&at.child("name"), condition.name.as_str()));
        }
    }
}

/// Everything wrong with the kind of a policy's parameters.
pub(super) fn validate_param_kind(errors: &mut Errors, path: &Path, kind: &ParamKind) {
    let (at, version) = (path.child("apiVersion"), text(&kind.api_version));
    match version.split('/').collect::<Vec<_>>().as_slice() {
        _ if version.is_empty() => errors.push(Error::required(&at, "")),
        [version] => rules::messages(errors, &at, version, name::dns1035_label(version)),
        [group, name] => {
            if !group.is_empty() {
                rules::messages(errors, &at, group, name::dns1123_subdomain(group));
            }
            if name.is_empty() {
                errors.push(Error::invalid(&at, version, "version must be specified"));
            } else {
                rules::messages(errors, &at, name, name::dns1035_label(name));
            }
        }
        _ => errors.push(Error::invalid(&at, version, &format!("unexpected GroupVersion string: {version}"))),
    }
    let (at, kind) = (path.child("kind"), text(&kind.kind));
    if kind.is_empty() {
        errors.push(Error::required(&at, ""));
        return;
    }
    let faults = name::dns1035_label(&kind.to_lowercase());
    if !faults.is_empty() {
        let detail = format!("may have mixed case, but should otherwise match: {}", faults.join(","));
        errors.push(Error::invalid(&at, kind, &detail));
    }
}

/// Everything wrong with a binding's parameters.
pub(super) fn validate_param_ref(errors: &mut Errors, path: &Path, wanted: &ParamRef) {
    let given = text(&wanted.name);
    if !given.is_empty() {
        rules::messages(errors, &path.child("name"), given, name::path_segment(given));
    }
    if let Some(selector) = &wanted.selector {
        if !given.is_empty() {
            errors.push(Error::forbidden(&path.child("name"), "name and selector are mutually exclusive"));
        }
        label_selector::validate(errors, &path.child("selector"), selector);
        if !given.is_empty() {
            errors.push(Error::forbidden(&path.child("selector"), "name and selector are mutually exclusive"));
        }
    } else if given.is_empty() {
        errors.push(Error::required(path, "one of name or selector must be specified"));
    }
    let action = text(&wanted.parameter_not_found_action);
    rules::one_of(errors, &path.child("parameterNotFoundAction"), action, &["Deny", "Allow"]);
}
