//! Pod Security: what pods of a namespace may ask for, by the standard its labels name.
//!
//! `pod-security.kubernetes.io/enforce` refuses pods, `…/warn` tells who writes one (or a workload that will make one),
//! `…/audit` notes it for the audit; each with a version beside it (KEP-2579).

mod checks;

use std::collections::{BTreeMap, BTreeSet};

use coracle_proto::{
    field::{Error, Errors, Path},
    status::Status,
};
use k8s_openapi::{
    api::{
        apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet},
        batch::v1::{CronJob, Job},
        core::v1::{Pod, PodSpec, PodTemplate, PodTemplateSpec, ReplicationController},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use self::checks::{Subject, Violation, violations};
use super::{Operation, Write};
use crate::{ops::AnyObject, status_of::Result, stored::Header};

/// A standard; each allows less than the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Privileged,
    Baseline,
    Restricted,
}

impl Level {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Privileged => "privileged",
            Self::Baseline => "baseline",
            Self::Restricted => "restricted",
        }
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        [Self::Privileged, Self::Baseline, Self::Restricted]
            .into_iter()
            .find(|level| level.as_str() == text)
            .ok_or("must be one of privileged, baseline, restricted")
    }
}

/// A standard as of a version; `None` is the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Standard {
    level: Level,
    minor: Option<u32>,
}

impl std::fmt::Display for Standard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.minor {
            Some(minor) => write!(f, "{}:v1.{minor}", self.level.as_str()),
            None => write!(f, "{}:latest", self.level.as_str()),
        }
    }
}

fn parse_version(text: &str) -> Result<Option<u32>, &'static str> {
    const WRONG: &str = "must be \"latest\" or \"v1.x\"";
    if text == "latest" {
        return Ok(None);
    }
    let digits = text.strip_prefix("v1.").ok_or(WRONG)?;
    let is_number = digits.bytes().all(|b| b.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    if is_number { digits.parse().map(Some).map_err(|_| WRONG) } else { Err(WRONG) }
}

/// What a namespace wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Policy {
    enforce: Standard,
    audit: Standard,
    warn: Standard,
}

const ENFORCE: &str = "pod-security.kubernetes.io/enforce";
const AUDIT: &str = "pod-security.kubernetes.io/audit";
const WARN: &str = "pod-security.kubernetes.io/warn";

impl Policy {
    /// What the labels say, and what is wrong with them. Where they cannot be read, enforcing is strict and telling is
    /// silent.
    fn of(labels: &BTreeMap<String, String>) -> (Self, Errors) {
        let none = Standard { level: Level::Privileged, minor: None };
        let mut policy = Self { enforce: none, audit: none, warn: none };
        let mut errors = Errors::new();
        let path = Path::new("metadata").child("labels");
        let mut enforces = false;
        for (label, standard, otherwise) in [
            (ENFORCE, &mut policy.enforce, Level::Restricted),
            (AUDIT, &mut policy.audit, Level::Privileged),
            (WARN, &mut policy.warn, Level::Privileged),
        ] {
            if let Some(text) = labels.get(label) {
                match Level::parse(text) {
                    Ok(level) => {
                        standard.level = level;
                        enforces |= label == ENFORCE;
                    }
                    Err(why) => {
                        standard.level = otherwise;
                        errors.push(Error::invalid(&path.key(label), text.as_str(), why));
                    }
                }
            }
            let label = format!("{label}-version");
            if let Some(text) = labels.get(&label) {
                match parse_version(text) {
                    Ok(minor) => standard.minor = minor,
                    Err(why) => errors.push(Error::invalid(&path.key(&label), text.as_str(), why)),
                }
            }
        }
        // Who is refused pods wants to read of it where the workload is written.
        if enforces && !labels.contains_key(WARN) && policy.enforce.level > policy.warn.level {
            policy.warn.level = policy.enforce.level;
            if !labels.contains_key(&format!("{WARN}-version")) {
                policy.warn.minor = policy.enforce.minor;
            }
        }
        (policy, errors)
    }

    fn is_nothing(&self) -> bool {
        [self.enforce, self.audit, self.warn].iter().all(|standard| standard.level == Level::Privileged)
    }
}

fn found(standard: Standard, pod: &Subject<'_>) -> Vec<Violation> {
    if standard.level == Level::Privileged { Vec::new() } else { violations(standard.level, standard.minor, pod) }
}

/// `hostPort (container "a" uses hostPort 80), privileged (…)`.
fn details(violations: &[Violation]) -> String {
    let one = |v: &Violation| {
        if v.detail.is_empty() { v.reason.clone() } else { format!("{} ({})", v.reason, v.detail) }
    };
    violations.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// The template of a workload.
fn template(object: &dyn AnyObject) -> Option<&PodTemplateSpec> {
    let object = object.as_any();
    if let Some(o) = object.downcast_ref::<PodTemplate>() {
        return o.template.as_ref();
    }
    if let Some(o) = object.downcast_ref::<ReplicationController>() {
        return o.spec.as_ref()?.template.as_ref();
    }
    if let Some(o) = object.downcast_ref::<ReplicaSet>() {
        return o.spec.as_ref()?.template.as_ref();
    }
    if let Some(o) = object.downcast_ref::<Deployment>() {
        return o.spec.as_ref().map(|spec| &spec.template);
    }
    if let Some(o) = object.downcast_ref::<DaemonSet>() {
        return o.spec.as_ref().map(|spec| &spec.template);
    }
    if let Some(o) = object.downcast_ref::<StatefulSet>() {
        return o.spec.as_ref().map(|spec| &spec.template);
    }
    if let Some(o) = object.downcast_ref::<Job>() {
        return o.spec.as_ref().map(|spec| &spec.template);
    }
    let job = &object.downcast_ref::<CronJob>()?.spec.job_template;
    job.spec.as_ref().map(|spec| &spec.template)
}

pub(super) fn admit(write: &Write<'_>, object: Option<&dyn AnyObject>) -> Result<()> {
    let Some(object) = object.filter(|_| write.operation != Operation::Delete) else { return Ok(()) };
    if write.is_of("", "namespaces") {
        return if write.subresource.is_empty() { namespace(write, object) } else { Ok(()) };
    }
    if let Some(pod) = object.as_any().downcast_ref::<Pod>() {
        return if matches!(write.subresource, "" | "ephemeralcontainers" | "resize") {
            admit_pod(write, pod)
        } else {
            Ok(())
        };
    }
    match template(object).filter(|_| write.subresource.is_empty()) {
        Some(template) => workload(write, template),
        None => Ok(()),
    }
}

fn policy(write: &Write<'_>) -> (Policy, Errors) {
    let labels = write.registry.namespace_entry(write.namespace).map(|entry| Header::of(&entry));
    Policy::of(labels.as_ref().map_or(&BTreeMap::new(), |header| &header.labels))
}

/// Labels, annotations and finalizers of a pod may change whatever its namespace wants by now.
fn is_significant(new: &Pod, old: &Pod) -> bool {
    let (new, old) = (new.spec.as_ref(), old.spec.as_ref());
    let images = |spec: Option<&PodSpec>| -> (Vec<Option<String>>, Vec<Option<String>>) {
        let main = spec.iter().flat_map(|s| &s.containers).map(|c| c.image.clone()).collect();
        let init = spec.iter().flat_map(|s| s.init_containers.iter().flatten()).map(|c| c.image.clone()).collect();
        (main, init)
    };
    let ephemeral = |spec: Option<&PodSpec>| -> BTreeSet<(String, Option<String>)> {
        let containers = spec.iter().flat_map(|s| s.ephemeral_containers.iter().flatten());
        containers.map(|c| (c.name.clone(), c.image.clone())).collect()
    };
    images(new) != images(old) || !ephemeral(new).is_subset(&ephemeral(old))
}

fn admit_pod(write: &Write<'_>, pod: &Pod) -> Result<()> {
    let (policy, errors) = policy(write);
    if errors.is_empty() && policy.is_nothing() {
        return Ok(());
    }
    let old = write.old.and_then(|old| old.as_any().downcast_ref::<Pod>());
    if old.is_some_and(|old| !is_significant(pod, old)) {
        return Ok(());
    }
    let spec = pod.spec.clone().unwrap_or_default();
    evaluate(write, policy, &errors, &Subject::new(&pod.metadata, &spec), true)
}

fn workload(write: &Write<'_>, template: &PodTemplateSpec) -> Result<()> {
    let (policy, errors) = policy(write);
    if errors.is_empty() && policy.warn.level == Level::Privileged && policy.audit.level == Level::Privileged {
        return Ok(());
    }
    let (meta, spec) = (ObjectMeta::default(), PodSpec::default());
    let subject = Subject::new(template.metadata.as_ref().unwrap_or(&meta), template.spec.as_ref().unwrap_or(&spec));
    evaluate(write, policy, &errors, &subject, false)
}

fn evaluate(write: &Write<'_>, policy: Policy, errors: &Errors, pod: &Subject<'_>, enforces: bool) -> Result<()> {
    let note = |key: &str, value: String| write.notes.annotate(format!("pod-security.kubernetes.io/{key}"), value);
    if !errors.is_empty() {
        note("error", format!("Failed to parse policy: {}", coracle_proto::field::aggregate(errors)));
    }
    let audited = found(policy.audit, pod);
    if !audited.is_empty() {
        note("audit-violations", format!("would violate PodSecurity \"{}\": {}", policy.audit, details(&audited)));
    }
    if enforces {
        note("enforce-policy", policy.enforce.to_string());
        let violated = found(policy.enforce, pod);
        if !violated.is_empty() {
            let why = format!("violates PodSecurity \"{}\": {}", policy.enforce, details(&violated));
            return Err(write.forbidden(&why));
        }
    }
    let warned = found(policy.warn, pod);
    if !warned.is_empty() {
        write.notes.warn(format!("would violate PodSecurity \"{}\": {}", policy.warn, details(&warned)));
    }
    Ok(())
}

/// Pods looked at when a namespace becomes stricter; the rest is only counted.
const MOST_PODS: usize = 3000;

fn namespace(write: &Write<'_>, object: &dyn AnyObject) -> Result<()> {
    let labels = |object: &dyn AnyObject| object.meta().labels.clone().unwrap_or_default();
    let (new, errors) = Policy::of(&labels(object));
    let old = write.old.filter(|_| write.operation == Operation::Update).map(|old| Policy::of(&labels(old)));
    if !errors.is_empty() && old.as_ref().is_none_or(|(_, before)| *before != errors) {
        return Err(Box::new(Status::invalid("", "Namespace", write.name, &errors)));
    }
    let Some((old, _)) = old else { return Ok(()) };
    let is_stricter = new.enforce != old.enforce
        && new.enforce.level != Level::Privileged
        && (new.enforce.minor != old.enforce.minor || new.enforce.level > old.enforce.level);
    if is_stricter {
        for warning in existing(&write.registry.list_typed::<Pod>(write.name)?, write.name, new.enforce) {
            write.notes.warn(warning);
        }
    }
    Ok(())
}

/// What is to be said of the pods that are there already.
fn existing(pods: &[Pod], namespace: &str, enforce: Standard) -> Vec<String> {
    // One pod of each controller first: its others are like it.
    let mut seen = BTreeSet::new();
    let (first, rest): (Vec<&Pod>, Vec<&Pod>) = pods.iter().partition(|pod| {
        let mut owners = pod.metadata.owner_references.iter().flatten();
        owners.find(|owner| owner.controller == Some(true)).is_none_or(|owner| seen.insert(owner.uid.clone()))
    });
    let mut by_reason: BTreeMap<String, (String, usize)> = BTreeMap::new();
    for pod in first.into_iter().chain(rest).take(MOST_PODS) {
        let spec = pod.spec.clone().unwrap_or_default();
        let violated = found(enforce, &Subject::new(&pod.metadata, &spec));
        if violated.is_empty() {
            continue;
        }
        let reasons: Vec<&str> = violated.iter().map(|v| v.reason.as_str()).collect();
        let name = pod.metadata.name.clone().unwrap_or_default();
        let (first, count) = by_reason.entry(reasons.join(", ")).or_insert((name.clone(), 0));
        *count += 1;
        if name < *first {
            *first = name;
        }
    }
    let mut warnings = Vec::new();
    if pods.len() > MOST_PODS {
        warnings.push(format!(
            "new PodSecurity enforce level only checked against the first {MOST_PODS} of {} existing pods",
            pods.len()
        ));
    }
    if !by_reason.is_empty() {
        warnings.push(format!(
            "existing pods in namespace {namespace:?} violate the new PodSecurity enforce level \"{enforce}\""
        ));
    }
    let mut lines: Vec<String> = by_reason
        .into_iter()
        .map(|(reason, (pod, count))| match count {
            1 => format!("{pod}: {reason}"),
            2 => format!("{pod} (and 1 other pod): {reason}"),
            more => format!("{pod} (and {} other pods): {reason}", more - 1),
        })
        .collect();
    lines.sort();
    warnings.extend(lines);
    warnings
}

#[cfg(test)]
mod tests;
