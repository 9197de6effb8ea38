//! Validation of what counts as failure and success of a Job: pod failure policy (KEP-3329), success policy (KEP-3998).

use std::collections::BTreeSet;

use coracle_proto::field::{Error, Errors, Path};
use k8s_openapi::api::batch::v1::{
    JobSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern,
    PodFailurePolicyRule, SuccessPolicy, SuccessPolicyRule,
};

use super::indexes;
use crate::kinds::{
    blank::{list, text},
    rules,
};

const RULES: usize = 20;
const EXIT_CODES: usize = 255;
const PATTERNS: usize = 20;
const INDEXES_SIZE: usize = 64 * 1024;

const ACTIONS: &[&str] = &["Count", "FailIndex", "FailJob", "Ignore"];
const OPERATORS: &[&str] = &["In", "NotIn"];
const STATUSES: &[&str] = &["False", "True", "Unknown"];

/// A word of a known few; when it is missing, the message lists them as Go prints a list of texts.
fn one_of(errors: &mut Errors, path: &Path, value: &str, known: &[&str]) {
    if value.is_empty() {
        let quoted: Vec<String> = known.iter().map(|word| format!("{word:?}")).collect();
        errors.push(Error::required(path, &format!("valid values: [{}]", quoted.join(" "))));
    } else {
        rules::known_word(errors, path, value, known);
    }
}

/// Everything wrong with the rules that say what a pod's failure means.
pub(super) fn validate_failure(errors: &mut Errors, path: &Path, policy: &PodFailurePolicy, spec: &JobSpec) {
    let at = path.child("rules");
    if policy.rules.len() > RULES {
        errors.push(Error::too_many(&at, policy.rules.len(), RULES));
    }
    let pod = spec.template.spec.as_ref();
    let containers = pod.into_iter().flat_map(|pod| pod.containers.iter().chain(list(&pod.init_containers)));
    let containers: BTreeSet<&str> = containers.map(|container| container.name.as_str()).collect();
    for (i, rule) in policy.rules.iter().enumerate() {
        validate_failure_rule(errors, &at.index(i), rule, spec, &containers);
    }
}

fn validate_failure_rule(
    errors: &mut Errors,
    path: &Path,
    rule: &PodFailurePolicyRule,
    spec: &JobSpec,
    containers: &BTreeSet<&str>,
) {
    let at = path.child("action");
    one_of(errors, &at, &rule.action, ACTIONS);
    if rule.action == "FailIndex" && spec.backoff_limit_per_index.is_none() {
        errors.push(Error::invalid(&at, "FailIndex", "requires the backoffLimitPerIndex to be set"));
    }
    if let Some(codes) = &rule.on_exit_codes {
        validate_exit_codes(errors, &path.child("onExitCodes"), codes, containers);
    }
    let patterns = list(&rule.on_pod_conditions);
    validate_patterns(errors, &path.child("onPodConditions"), patterns);
    match (rule.on_exit_codes.is_some(), !patterns.is_empty()) {
        (true, true) => {
            let detail = "specifying both OnExitCodes and OnPodConditions is not supported";
            errors.push(Error::invalid_untold(path, detail));
        }
        (false, false) => {
            let detail = "specifying one of OnExitCodes and OnPodConditions is required";
            errors.push(Error::invalid_untold(path, detail));
        }
        _ => {}
    }
}

fn validate_patterns(errors: &mut Errors, path: &Path, patterns: &[PodFailurePolicyOnPodConditionsPattern]) {
    if patterns.len() > PATTERNS {
        errors.push(Error::too_many(path, patterns.len(), PATTERNS));
    }
    for (i, pattern) in patterns.iter().enumerate() {
        let at = path.index(i);
        rules::label_name(errors, &at.child("type"), &pattern.type_);
        one_of(errors, &at.child("status"), text(&pattern.status), STATUSES);
    }
}

fn validate_exit_codes(
    errors: &mut Errors,
    path: &Path,
    codes: &PodFailurePolicyOnExitCodesRequirement,
    containers: &BTreeSet<&str>,
) {
    one_of(errors, &path.child("operator"), &codes.operator, OPERATORS);
    if let Some(container) = codes.container_name.as_ref().filter(|name| !containers.contains(name.as_str())) {
        let detail = "must be one of the container or initContainer names in the pod template";
        errors.push(Error::invalid(&path.child("containerName"), container.as_str(), detail));
    }
    let at = path.child("values");
    if codes.values.is_empty() {
        errors.push(Error::invalid(&at, codes.values.clone(), "at least one value is required"));
    } else if codes.values.len() > EXIT_CODES {
        errors.push(Error::too_many(&at, codes.values.len(), EXIT_CODES));
    }
    let mut seen = BTreeSet::new();
    for (i, code) in codes.values.iter().enumerate() {
        if codes.operator == "In" && *code == 0 {
            errors.push(Error::invalid(&at.index(i), *code, "must not be 0 for the In operator"));
        }
        if !seen.insert(code) {
            errors.push(Error::duplicate(&at.index(i), *code));
        }
    }
    if !codes.values.is_sorted() {
        errors.push(Error::invalid(&at, codes.values.clone(), "must be ordered"));
    }
}

/// Everything wrong with the rules that say when an indexed Job has done well enough.
pub(super) fn validate_success(errors: &mut Errors, path: &Path, policy: &SuccessPolicy, spec: &JobSpec) {
    let at = path.child("rules");
    if policy.rules.is_empty() {
        let detail = "at least one rules must be specified when the successPolicy is specified";
        errors.push(Error::required(&at, detail));
    }
    if policy.rules.len() > RULES {
        errors.push(Error::too_many(&at, policy.rules.len(), RULES));
    }
    for (i, rule) in policy.rules.iter().enumerate() {
        validate_success_rule(errors, &at.index(i), rule, spec.completions.unwrap_or(0));
    }
}

fn validate_success_rule(errors: &mut Errors, path: &Path, rule: &SuccessPolicyRule, completions: i32) {
    if rule.succeeded_count.is_none() && rule.succeeded_indexes.is_none() {
        let detail = "at least one of succeededCount or succeededIndexes must be specified";
        errors.push(Error::required(path, detail));
    }
    let mut named = 0;
    if let Some(text) = &rule.succeeded_indexes {
        let at = path.child("succeededIndexes");
        if text.len() > INDEXES_SIZE {
            errors.push(Error::too_long(&at, INDEXES_SIZE));
        }
        match indexes::count(text, completions) {
            Ok(count) => named = count,
            Err(why) => {
                let detail = format!("error parsing succeededIndexes: {why}");
                errors.push(Error::invalid(&at, text.as_str(), &detail));
            }
        }
    }
    let Some(count) = rule.succeeded_count else { return };
    let at = path.child("succeededCount");
    rules::not_negative(errors, &at, count.into());
    if count > completions {
        let detail = format!("must be less than or equal to {completions} (the number of specified completions)");
        errors.push(Error::invalid(&at, count, &detail));
    }
    if rule.succeeded_indexes.is_some() && count > named {
        let what = "the number of indexes in the specified succeededIndexes field";
        errors.push(Error::invalid(&at, count, &format!("must be less than or equal to {named} ({what})")));
    }
}
