//! What makes a quota invalid.

use std::collections::BTreeSet;

use coracle_proto::field::{Error, Errors, Path};
use k8s_openapi::api::core::v1::{ResourceQuotaSpec, ScopedResourceSelectorRequirement};

use crate::kinds::{
    blank::list,
    resources::{self, ResourceList},
    rules,
};

/// Scopes that are there or not, and have no values to choose from.
const PLAIN_SCOPES: &[&str] =
    &["BestEffort", "NotBestEffort", "Terminating", "NotTerminating", "CrossNamespacePodAffinity"];

fn is_scope(scope: &str) -> bool {
    PLAIN_SCOPES.contains(&scope) || matches!(scope, "PriorityClass" | "VolumeAttributesClass")
}

/// Whether what a scope is about asks for the resource at all.
fn applies(scope: &str, resource: &str) -> bool {
    let is_compute =
        matches!(resource, "cpu" | "memory" | "limits.cpu" | "limits.memory" | "requests.cpu" | "requests.memory");
    match scope {
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => matches!(resource, "persistentvolumeclaims" | "requests.storage"),
        scope if is_scope(scope) => resource == "pods" || is_compute,
        _ => true,
    }
}

/// Everything wrong with a list of amounts that are counted together.
pub(super) fn validate_amounts(errors: &mut Errors, path: &Path, amounts: Option<&ResourceList>) {
    for (name, quantity) in amounts.into_iter().flatten() {
        let at = path.key(name);
        resources::validate_any_name(errors, &at, name);
        if !name.contains('/') && !resources::is_quota(name) {
            errors.push(Error::invalid(&at, name.as_str(), "must be a standard resource for quota"));
        }
        resources::validate_amount(errors, &at, name, quantity);
    }
}

/// Everything wrong with a quota's spec.
pub(super) fn validate_spec(errors: &mut Errors, path: &Path, spec: &ResourceQuotaSpec) {
    validate_amounts(errors, &path.child("hard"), spec.hard.as_ref());
    let none = ResourceList::new();
    let counted: Vec<&String> = spec.hard.as_ref().unwrap_or(&none).keys().filter(|n| resources::is_quota(n)).collect();
    let scopes = list(&spec.scopes);
    let at = path.child("scopes");
    for scope in scopes {
        if !is_scope(scope) {
            errors.push(Error::invalid(&at, scopes.to_vec(), "unsupported scope"));
        }
        for _ in counted.iter().filter(|resource| !applies(scope, resource)) {
            errors.push(Error::invalid(&at, scopes.to_vec(), "unsupported scope applied to resource"));
        }
    }
    let named: Vec<&str> = scopes.iter().map(String::as_str).collect();
    validate_conflicts(errors, &at, &named, scopes);
    let Some(selector) = &spec.scope_selector else { return };
    let at = path.child("scopeSelector").child("matchExpressions");
    let requirements = list(&selector.match_expressions);
    for requirement in requirements {
        let scope = requirement.scope_name.as_str();
        if !is_scope(scope) {
            errors.push(Error::invalid(&at.child("scopeName"), scope, "unsupported scope"));
        }
        for _ in counted.iter().filter(|resource| !applies(scope, resource)) {
            errors.push(Error::invalid(&at, rules::json(selector), "unsupported scope applied to resource"));
        }
        validate_requirement(errors, &at, requirement);
    }
    let named: Vec<&str> = requirements.iter().map(|requirement| requirement.scope_name.as_str()).collect();
    validate_conflicts(errors, &at, &named, scopes);
}

fn validate_requirement(errors: &mut Errors, path: &Path, requirement: &ScopedResourceSelectorRequirement) {
    let (operator, values) = (requirement.operator.as_str(), list(&requirement.values));
    if PLAIN_SCOPES.contains(&requirement.scope_name.as_str()) && operator != "Exists" {
        let detail = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, \
                      ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, \
                      ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";
        errors.push(Error::invalid(&path.child("operator"), operator, detail));
    }
    match operator {
        "In" | "NotIn" if values.is_empty() => {
            let detail = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
            errors.push(Error::required(&path.child("values"), detail));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let detail = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
            errors.push(Error::invalid(&path.child("values"), values.to_vec(), detail));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        _ => errors.push(Error::invalid(&path.child("operator"), operator, "not a valid selector operator")),
    }
}

/// Scopes that leave nothing when taken together; the value in the message is the plain list, as Kubernetes has it.
fn validate_conflicts(errors: &mut Errors, path: &Path, named: &[&str], shown: &[String]) {
    for pair in [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]] {
        if pair.iter().all(|scope| named.contains(scope)) {
            errors.push(Error::invalid(path, shown.to_vec(), "conflicting scopes"));
        }
    }
}

/// A quota counts what it always counted.
pub(super) fn validate_scopes_stay(errors: &mut Errors, new: &ResourceQuotaSpec, old: &ResourceQuotaSpec) {
    let set = |spec: &ResourceQuotaSpec| list(&spec.scopes).iter().cloned().collect::<BTreeSet<String>>();
    if set(new) != set(old) {
        let at = Path::new("spec").child("scopes");
        errors.push(Error::immutable(&at, list(&new.scopes).to_vec()));
    }
}
