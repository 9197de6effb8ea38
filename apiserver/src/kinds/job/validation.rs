//! What makes a Job invalid, and which changes of it are forbidden.

use std::collections::BTreeMap;

use coracle_proto::{
    field::{Error, Errors, Path},
    meta::is_condition_true,
    name,
    selector::LabelSelector,
};
use k8s_openapi::api::{
    batch::v1::{Job, JobSpec, JobTemplateSpec},
    core::v1::{Affinity, PodSpec, PodTemplateSpec},
};

use super::{NAME_LABEL, NAME_LABELS, UID_LABEL, UID_LABELS, conditions, policies};
use crate::kinds::{
    blank::{items_mut, list, text},
    label_selector, pod_template, rules,
};

/// An indexed Job may have this many pods at a time, and this many failed indexes.
const PARALLELISM: i32 = 100_000;
const FAILED_INDEXES: i32 = 100_000;

/// With more completions than these and a limit for each index, the status would grow too long.
const MANY_COMPLETIONS: i32 = 100_000;
const PARALLELISM_OF_MANY: i32 = 10_000;
const FAILED_INDEXES_OF_MANY: i32 = 10_000;

const MANAGED_BY_SIZE: usize = 63;

/// Which of the generated labels the pods must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Labels {
    /// Those with a prefix and those without.
    Both,
    /// Those without a prefix; Jobs of long ago have no others.
    Old,
}

/// Everything wrong with a Job.
pub(super) fn validate(job: &Job, wanted: Labels) -> Errors {
    let (mut errors, path) = (Errors::new(), Path::new("spec"));
    let spec = job.spec.clone().unwrap_or_default();
    validate_generated(&mut errors, job, &spec, wanted);
    validate_spec(&mut errors, &path, &spec);
    let completions = spec.completions.unwrap_or(0);
    if is_indexed(&spec) && completions > 0 {
        // Pods are named after the Job with their index, and hosts after pods.
        let (at, name) = (Path::new("metadata").child("name"), text(&job.metadata.name));
        let host = format!("{name}-{}", completions - 1);
        if !name::dns1123_label(&host).is_empty() {
            let detail = format!("will not able to create pod with invalid DNS label: {host}");
            errors.push(Error::invalid(&at, name, &detail));
        }
    }
    errors
}

fn is_indexed(spec: &JobSpec) -> bool {
    spec.completion_mode.as_deref() == Some("Indexed")
}

/// The generated labels are there, are this Job's, and are what the selector goes by.
fn validate_generated(errors: &mut Errors, job: &Job, spec: &JobSpec, wanted: Labels) {
    let (Some(selector), false) = (&spec.selector, spec.manual_selector == Some(true)) else { return };
    let (uid, name) = (text(&job.metadata.uid), text(&job.metadata.name));
    if uid.is_empty() {
        errors.push(Error::required(&Path::new("metadata").child("uid"), ""));
    }
    let path = Path::new("spec").child("template").child("metadata").child("labels");
    let labels = pod_template::labels(&spec.template);
    let mut expected = BTreeMap::new();
    let all = [(UID_LABELS, uid), (NAME_LABELS, name)];
    let old = all.iter().map(|([old, _], value)| (*old, *value));
    let prefixed = [(UID_LABEL, uid), (NAME_LABEL, name)].into_iter().filter(|_| wanted == Labels::Both);
    for (key, value) in old.chain(prefixed) {
        expected.insert(key.to_owned(), value.to_owned());
        let (at, detail) = (path.key(key), format!("must be '{value}'"));
        match labels.get(key) {
            None => errors.push(Error::required(&at, &detail)),
            Some(label) if label != value => errors.push(Error::invalid(&at, rules::json(&labels), &detail)),
            Some(_) => {}
        }
    }
    if let Ok(parsed) = LabelSelector::from_api(Some(selector))
        && !parsed.matches_labels(&expected)
    {
        let at = Path::new("spec").child("selector");
        errors.push(Error::invalid(&at, rules::json(selector), "`selector` not auto-generated"));
    }
}

/// Everything wrong with a Job's spec.
fn validate_spec(errors: &mut Errors, path: &Path, spec: &JobSpec) {
    validate_rules(errors, path, spec);
    let at = path.child("selector");
    match &spec.selector {
        None => errors.push(Error::required(&at, "")),
        Some(selector) => label_selector::validate(errors, &at, selector),
    }
    // Nobody's pods are selected by a selector that is not there.
    if let Ok(selector) = LabelSelector::from_api(spec.selector.as_ref()) {
        pod_template::validate_labels(errors, &path.child("template"), &spec.template, &selector);
    }
}

/// Everything wrong with what a CronJob makes Jobs from.
pub(in crate::kinds) fn validate_template_spec(errors: &mut Errors, path: &Path, template: &JobTemplateSpec) {
    let spec = template.spec.clone().unwrap_or_default();
    let path = path.child("spec");
    validate_rules(errors, &path, &spec);
    if let Some(selector) = &spec.selector {
        let detail = "`selector` will be auto-generated";
        errors.push(Error::invalid(&path.child("selector"), rules::json(selector), detail));
    }
    if spec.manual_selector == Some(true) {
        errors.push(Error::not_supported(&path.child("manualSelector"), true, &["nil", "false"]));
    }
}

/// Everything wrong with a spec but its selector.
fn validate_rules(errors: &mut Errors, path: &Path, spec: &JobSpec) {
    let count = |number: Option<i32>| number.map(i64::from);
    for (field, number) in [
        ("parallelism", count(spec.parallelism)),
        ("completions", count(spec.completions)),
        ("activeDeadlineSeconds", spec.active_deadline_seconds),
        ("backoffLimit", count(spec.backoff_limit)),
        ("ttlSecondsAfterFinished", count(spec.ttl_seconds_after_finished)),
        ("backoffLimitPerIndex", count(spec.backoff_limit_per_index)),
        ("maxFailedIndexes", count(spec.max_failed_indexes)),
    ] {
        if let Some(number) = number {
            rules::not_negative(errors, &path.child(field), number);
        }
    }
    if spec.max_failed_indexes.is_some() && spec.backoff_limit_per_index.is_none() {
        errors.push(Error::required(&path.child("backoffLimitPerIndex"), "when maxFailedIndexes is specified"));
    }
    if let Some(manager) = &spec.managed_by {
        validate_manager(errors, &path.child("managedBy"), manager);
    }
    if let Some(mode) = &spec.completion_mode {
        rules::known_word(errors, &path.child("completionMode"), mode, &["NonIndexed", "Indexed"]);
    }
    if is_indexed(spec) {
        validate_indexed(errors, path, spec);
    }
    if spec.completion_mode.as_deref().is_none_or(|mode| mode == "NonIndexed") {
        for (field, number) in
            [("backoffLimitPerIndex", spec.backoff_limit_per_index), ("maxFailedIndexes", spec.max_failed_indexes)]
        {
            if let Some(number) = number {
                errors.push(Error::invalid(&path.child(field), number, "requires indexed completion mode"));
            }
        }
    }
    if let Some(policy) = &spec.pod_failure_policy {
        policies::validate_failure(errors, &path.child("podFailurePolicy"), policy, spec);
    }
    match &spec.success_policy {
        Some(policy) if is_indexed(spec) => {
            policies::validate_success(errors, &path.child("successPolicy"), policy, spec);
        }
        Some(policy) => {
            let detail = "requires indexed completion mode";
            errors.push(Error::invalid(&path.child("successPolicy"), rules::json(policy), detail));
        }
        None => {}
    }
    if let Some(policy) = &spec.pod_replacement_policy {
        let known: &[&str] =
            if spec.pod_failure_policy.is_some() { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
        rules::known_word(errors, &path.child("podReplacementPolicy"), policy, known);
    }
    pod_template::validate(errors, &path.child("template"), &spec.template);
    validate_restart_policy(errors, path, spec);
}

fn validate_restart_policy(errors: &mut Errors, path: &Path, spec: &JobSpec) {
    let at = path.child("template").child("spec").child("restartPolicy");
    match spec.template.spec.as_ref().map_or("", |pod| text(&pod.restart_policy)) {
        // What is not said is Always by default, which a Job must not have.
        "" | "Always" => errors.push(Error::required(&at, "valid values: \"OnFailure\", \"Never\"")),
        "OnFailure" if spec.pod_failure_policy.is_some() => {
            let detail = "only \"Never\" is supported when podFailurePolicy is specified";
            errors.push(Error::invalid(&at, "OnFailure", detail));
        }
        "OnFailure" | "Never" => {}
        other => errors.push(Error::not_supported(&at, other, &["OnFailure", "Never"])),
    }
}

/// A name with a domain of its own before it: `acme.io/foo`.
fn validate_manager(errors: &mut Errors, path: &Path, manager: &str) {
    match manager.split_once('/') {
        _ if manager.is_empty() => errors.push(Error::required(path, "")),
        Some((host, rest)) if !host.is_empty() && !rest.is_empty() => {
            rules::messages(errors, path, host, name::dns1123_subdomain(host));
            rules::messages(errors, path, rest, name::http_path(rest));
        }
        _ => {
            let detail = "must be a domain-prefixed path (such as \"acme.io/foo\")";
            errors.push(Error::invalid(path, manager, detail));
        }
    }
    if manager.len() > MANAGED_BY_SIZE {
        errors.push(Error::too_long(path, MANAGED_BY_SIZE));
    }
}

fn validate_indexed(errors: &mut Errors, path: &Path, spec: &JobSpec) {
    if spec.completions.is_none() {
        errors.push(Error::required(&path.child("completions"), "when completion mode is Indexed"));
    }
    let completions = spec.completions.unwrap_or(0);
    let mut at_most = |field: &str, number: Option<i32>, most: i32, rest: &str| {
        if let Some(number) = number.filter(|number| *number > most) {
            let detail = format!("must be less than or equal to {most}{rest}");
            errors.push(Error::invalid(&path.child(field), number, &detail));
        }
    };
    at_most("parallelism", spec.parallelism, PARALLELISM, " when completion mode is Indexed");
    let failed = spec.max_failed_indexes;
    if let Some(number) = failed.filter(|number| spec.completions.is_some() && *number > completions) {
        let detail = "must be less than or equal to completions";
        errors.push(Error::invalid(&path.child("maxFailedIndexes"), number, detail));
    }
    let mut at_most = |field: &str, number: Option<i32>, most: i32, rest: &str| {
        if let Some(number) = number.filter(|number| *number > most) {
            let detail = format!("must be less than or equal to {most}{rest}");
            errors.push(Error::invalid(&path.child(field), number, &detail));
        }
    };
    at_most("maxFailedIndexes", failed, FAILED_INDEXES, "");
    if completions <= MANY_COMPLETIONS || spec.backoff_limit_per_index.is_none() {
        return;
    }
    let rest = format!(" when completions are above {MANY_COMPLETIONS} and used with backoff limit per index");
    at_most("parallelism", spec.parallelism, PARALLELISM_OF_MANY, &rest);
    at_most("maxFailedIndexes", failed, FAILED_INDEXES_OF_MANY, &rest);
    if failed.is_none() {
        let detail = format!("must be specified when completions is above {MANY_COMPLETIONS}");
        errors.push(Error::required(&path.child("maxFailedIndexes"), &detail));
    }
}

/// Everything wrong with the new Job, and with changing the old one into it.
pub(super) fn validate_update(new: &Job, old: &Job) -> Errors {
    let (after, before) = (new.spec.clone().unwrap_or_default(), old.spec.clone().unwrap_or_default());
    let had = pod_template::labels(&before.template);
    let is_new_enough = had.contains_key(NAME_LABEL) && had.contains_key(UID_LABEL);
    let mut errors = validate(new, if is_new_enough { Labels::Both } else { Labels::Old });
    let path = Path::new("spec");
    validate_completions(&mut errors, &path.child("completions"), &after, &before);
    rules::immutable(&mut errors, &path.child("selector"), &after.selector, &before.selector);
    validate_template_change(&mut errors, &path, &after, &before, old);
    rules::immutable(&mut errors, &path.child("completionMode"), &after.completion_mode, &before.completion_mode);
    let (now, then) = (&after.pod_failure_policy, &before.pod_failure_policy);
    rules::immutable(&mut errors, &path.child("podFailurePolicy"), now, then);
    let (now, then) = (&after.backoff_limit_per_index, &before.backoff_limit_per_index);
    rules::immutable(&mut errors, &path.child("backoffLimitPerIndex"), now, then);
    rules::immutable(&mut errors, &path.child("managedBy"), &after.managed_by, &before.managed_by);
    rules::immutable(&mut errors, &path.child("successPolicy"), &after.success_policy, &before.success_policy);
    errors
}

/// Only an indexed Job can be given more or fewer completions, and then it has them all at once (KEP-3715).
fn validate_completions(errors: &mut Errors, path: &Path, new: &JobSpec, old: &JobSpec) {
    if !is_indexed(new) {
        rules::immutable(errors, path, &new.completions, &old.completions);
    } else if let Some(completions) = new.completions.filter(|_| new.completions != old.completions)
        && Some(completions) != new.parallelism
    {
        let detail = "can only be modified in tandem with spec.parallelism";
        errors.push(Error::invalid(path, completions, detail));
    }
}

/// The template stays; only that of a suspended Job without pods may say otherwise where they go and what they get
/// (KEP-2926, KEP-5440).
fn validate_template_change(errors: &mut Errors, path: &Path, new: &JobSpec, old: &JobSpec, job: &Job) {
    let at = path.child("template");
    let is_suspended = old.suspend == Some(true);
    let status = job.status.clone().unwrap_or_default();
    let is_idle = (status.start_time.is_none() || is_condition_true(conditions(job), "Suspended"))
        && status.active.unwrap_or(0) == 0;
    if !is_suspended || !is_idle {
        rules::immutable(errors, &at, &new.template, &old.template);
        return;
    }
    let mut kept = old.template.clone();
    take_directives(&mut kept, &new.template);
    let none = PodSpec::default();
    let (now, then) = (new.template.spec.as_ref().unwrap_or(&none), kept.spec.as_mut());
    if let Some(then) = then {
        take_resources(then, now);
        rules::immutable(errors, &path.child("template.spec"), now, then);
    }
}

/// Takes over from `new` what says where pods go.
fn take_directives(kept: &mut PodTemplateSpec, new: &PodTemplateSpec) {
    let (Some(then), Some(now)) = (&mut kept.spec, &new.spec) else { return };
    let node = now.affinity.as_ref().and_then(|affinity| affinity.node_affinity.clone());
    match (&mut then.affinity, &now.affinity) {
        (None, None) => {}
        (None, Some(_)) => then.affinity = Some(Affinity { node_affinity: node, ..Affinity::default() }),
        (Some(affinity), other) => {
            affinity.node_affinity = node;
            if other.is_none() && *affinity == Affinity::default() {
                then.affinity = None;
            }
        }
    }
    then.node_selector.clone_from(&now.node_selector);
    then.tolerations.clone_from(&now.tolerations);
    then.scheduling_gates.clone_from(&now.scheduling_gates);
}

/// Takes over from `new` what containers get, where they are the same ones.
fn take_resources(kept: &mut PodSpec, new: &PodSpec) {
    if kept.containers.len() == new.containers.len() {
        for (then, now) in kept.containers.iter_mut().zip(&new.containers).filter(|(a, b)| a.name == b.name) {
            then.resources.clone_from(&now.resources);
        }
    }
    let now = list(&new.init_containers);
    if list(&kept.init_containers).len() == now.len() {
        for (then, now) in items_mut(&mut kept.init_containers).iter_mut().zip(now).filter(|(a, b)| a.name == b.name) {
            then.resources.clone_from(&now.resources);
        }
    }
}
