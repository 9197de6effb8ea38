//! Node affinity, pod affinity and anti-affinity.

use coracle_proto::{
    field::{Error, Errors, Path},
    name,
};
use k8s_openapi::{
    api::core::v1::{Affinity, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodAffinityTerm},
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};

use super::{blank::list, label_selector, rules};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// Everything wrong with a pod's affinity.
pub(super) fn validate(errors: &mut Errors, path: &Path, affinity: &Affinity) {
    if let Some(node) = &affinity.node_affinity {
        validate_node(errors, &path.child("nodeAffinity"), node);
    }
    if let Some(pod) = &affinity.pod_affinity {
        let at = path.child("podAffinity");
        for (i, term) in list(&pod.required_during_scheduling_ignored_during_execution).iter().enumerate() {
            validate_pod_term(errors, &at.child(REQUIRED).index(i), term);
        }
        for (i, term) in list(&pod.preferred_during_scheduling_ignored_during_execution).iter().enumerate() {
            let at = at.child(PREFERRED).index(i);
            validate_weight(errors, &at, term.weight);
            validate_pod_term(errors, &at.child("podAffinityTerm"), &term.pod_affinity_term);
        }
    }
    if let Some(pod) = &affinity.pod_anti_affinity {
        let at = path.child("podAntiAffinity");
        for (i, term) in list(&pod.required_during_scheduling_ignored_during_execution).iter().enumerate() {
            validate_pod_term(errors, &at.child(REQUIRED).index(i), term);
        }
        for (i, term) in list(&pod.preferred_during_scheduling_ignored_during_execution).iter().enumerate() {
            let at = at.child(PREFERRED).index(i);
            validate_weight(errors, &at, term.weight);
            validate_pod_term(errors, &at.child("podAffinityTerm"), &term.pod_affinity_term);
        }
    }
}

fn validate_weight(errors: &mut Errors, path: &Path, weight: i32) {
    if !(1..=100).contains(&weight) {
        errors.push(Error::invalid(&path.child("weight"), weight, "must be in the range 1-100"));
    }
}

fn validate_node(errors: &mut Errors, path: &Path, affinity: &NodeAffinity) {
    if let Some(required) = &affinity.required_during_scheduling_ignored_during_execution {
        validate_node_selector(errors, &path.child(REQUIRED), required);
    }
    for (i, term) in list(&affinity.preferred_during_scheduling_ignored_during_execution).iter().enumerate() {
        let at = path.child(PREFERRED).index(i);
        validate_weight(errors, &at, term.weight);
        validate_node_term(errors, &at.child("preference"), &term.preference, Values::Free);
    }
}

/// Everything wrong with a node selector, whose terms are alternatives.
pub(super) fn validate_node_selector(errors: &mut Errors, path: &Path, selector: &NodeSelector) {
    let at = path.child("nodeSelectorTerms");
    if selector.node_selector_terms.is_empty() {
        errors.push(Error::required(&at, "must have at least one node selector term"));
    }
    for (i, term) in selector.node_selector_terms.iter().enumerate() {
        validate_node_term(errors, &at.index(i), term, Values::Checked);
    }
}

/// Whether values must be label values; Kubernetes never asked it of preferences.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Values {
    Checked,
    Free,
}

fn validate_node_term(errors: &mut Errors, path: &Path, term: &NodeSelectorTerm, values: Values) {
    for (i, requirement) in list(&term.match_expressions).iter().enumerate() {
        validate_node_requirement(errors, &path.child("matchExpressions").index(i), requirement, values);
    }
    for (i, requirement) in list(&term.match_fields).iter().enumerate() {
        validate_field_requirement(errors, &path.child("matchFields").index(i), requirement);
    }
}

fn validate_node_requirement(errors: &mut Errors, path: &Path, requirement: &NodeSelectorRequirement, rule: Values) {
    let (values, at) = (list(&requirement.values), path.child("values"));
    match requirement.operator.as_str() {
        "In" | "NotIn" if values.is_empty() => {
            errors.push(Error::required(&at, "must be specified when `operator` is 'In' or 'NotIn'"));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            errors.push(Error::forbidden(&at, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"));
        }
        "Gt" | "Lt" if values.len() != 1 => {
            errors.push(Error::required(&at, "must be specified single value when `operator` is 'Lt' or 'Gt'"));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => errors.push(Error::invalid(&path.child("operator"), other, "not a valid selector operator")),
    }
    rules::label_name(errors, &path.child("key"), &requirement.key);
    if rule == Values::Checked {
        for (i, value) in values.iter().enumerate() {
            rules::messages(errors, &at.index(i), value, name::label_value(value));
        }
    }
}

fn validate_field_requirement(errors: &mut Errors, path: &Path, requirement: &NodeSelectorRequirement) {
    let (values, at) = (list(&requirement.values), path.child("values"));
    match requirement.operator.as_str() {
        "In" | "NotIn" if values.len() != 1 => {
            let detail = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
            errors.push(Error::required(&at, detail));
        }
        "In" | "NotIn" => {}
        other => errors.push(Error::invalid(&path.child("operator"), other, "not a valid selector operator")),
    }
    if requirement.key == "metadata.name" {
        for (i, value) in values.iter().enumerate() {
            rules::messages(errors, &at.index(i), value, name::dns1123_subdomain(value));
        }
    } else {
        let key = requirement.key.as_str();
        errors.push(Error::invalid(&path.child("key"), key, "not a valid field selector key"));
    }
}

fn validate_pod_term(errors: &mut Errors, path: &Path, term: &PodAffinityTerm) {
    if let Some(selector) = &term.label_selector {
        label_selector::validate(errors, &path.child("labelSelector"), selector);
    }
    if let Some(selector) = &term.namespace_selector {
        label_selector::validate(errors, &path.child("namespaceSelector"), selector);
    }
    for namespace in list(&term.namespaces) {
        rules::messages(errors, &path.child("namespace"), namespace, name::dns1123_label(namespace));
    }
    let (same, other) = (list(&term.match_label_keys), list(&term.mismatch_label_keys));
    validate_label_keys(errors, path, same, other, term.label_selector.as_ref());
    if term.topology_key.is_empty() {
        errors.push(Error::required(&path.child("topologyKey"), "can not be empty"));
    }
    rules::label_name(errors, &path.child("topologyKey"), &term.topology_key);
}

/// Everything wrong with `matchLabelKeys` and `mismatchLabelKeys` beside their selector (KEP-3633).
pub(super) fn validate_label_keys(
    errors: &mut Errors,
    path: &Path,
    same: &[String],
    other: &[String],
    selector: Option<&LabelSelector>,
) {
    for (field, keys) in [("matchLabelKeys", same), ("mismatchLabelKeys", other)] {
        let at = path.child(field);
        if !keys.is_empty() && selector.is_none() {
            errors.push(Error::forbidden(&at, "must not be specified when labelSelector is not set"));
            continue;
        }
        for (i, key) in keys.iter().enumerate() {
            rules::label_name(errors, &at.index(i), key);
        }
    }
    if let Some(selector) = selector {
        // The keys are written into the selector on creation, so that one mention is theirs.
        let mut seen: Vec<&str> = selector.match_labels.iter().flatten().map(|(key, _)| key.as_str()).collect();
        for requirement in list(&selector.match_expressions) {
            let key = requirement.key.as_str();
            if let Some(i) = same.iter().position(|k| k == key)
                && seen.contains(&key)
            {
                let detail = "exists in both matchLabelKeys and labelSelector";
                errors.push(Error::invalid(&path.index(i), key, detail));
            }
            seen.push(key);
        }
    }
    for (i, key) in same.iter().enumerate().filter(|(_, key)| other.contains(key)) {
        let detail = "exists in both matchLabelKeys and mismatchLabelKeys";
        errors.push(Error::invalid(&path.child("matchLabelKeys").index(i), key.as_str(), detail));
    }
}

/// What an update may do to the node affinity of a pod that waits behind scheduling gates: only narrow it down.
pub(super) fn validate_narrowed(
    errors: &mut Errors,
    path: &Path,
    new: Option<&NodeAffinity>,
    old: Option<&NodeAffinity>,
) {
    let required = |affinity: Option<&NodeAffinity>| {
        let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
        required.map(|selector| selector.node_selector_terms.clone())
    };
    let Some(old) = required(old).filter(|terms| !terms.is_empty()) else { return };
    let new = required(new).unwrap_or_default();
    let at = path.child(REQUIRED).child("nodeSelectorTerms");
    if new.len() != old.len() {
        let detail = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        errors.push(Error::invalid(&at, rules::json(&new), detail));
        return;
    }
    for (i, (new, old)) in new.iter().zip(&old).enumerate() {
        let (fields, expressions) = (list(&old.match_fields), list(&old.match_expressions));
        let was_empty = fields.is_empty() && expressions.is_empty();
        let is_empty = list(&new.match_fields).is_empty() && list(&new.match_expressions).is_empty();
        let only_added =
            list(&new.match_fields).starts_with(fields) && list(&new.match_expressions).starts_with(expressions);
        if !only_added || (was_empty && !is_empty) {
            let detail = "only additions are allowed (no mutations or deletions)";
            errors.push(Error::invalid(&at.index(i), rules::json(new), detail));
        }
    }
}
