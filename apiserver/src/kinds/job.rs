//! Jobs: pods that run until a number of them has done well.

mod indexes;
mod policies;
mod status;
mod validation;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus};

pub(super) use validation::validate_template_spec;

use super::{
    blank::{drop_blank, fill, fill_text, items_mut, list},
    cells,
    pod_template::{self, default_pod_template},
};
use crate::kind::{AGE, Column, Context, NAME, Strategy, age, human_duration};
use coracle_proto::{
    field::{Errors, Path},
    meta::is_condition_true,
    resource::Resource,
};

/// The strategy of `jobs.batch`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Jobs;

const COLUMNS: &[Column] = &[
    NAME,
    cells::column("Status", "Status of the job."),
    cells::column("Completions", "Number of pods that have done well, of those wanted."),
    cells::column("Duration", "Time required to complete the job."),
    AGE,
    cells::wide("Containers", "Names of each container in the template."),
    cells::wide("Images", "Images referenced by each container in the template."),
    cells::wide("Selector", "Label selector of the pods."),
];

/// The labels by which a Job's pods are known, each under the name it has now and the one it had first.
const UID_LABELS: [&str; 2] = ["controller-uid", UID_LABEL];
const NAME_LABELS: [&str; 2] = ["job-name", NAME_LABEL];
const UID_LABEL: &str = "batch.kubernetes.io/controller-uid";
const NAME_LABEL: &str = "batch.kubernetes.io/job-name";

/// Fills in what a spec left out that a CronJob's template leaves out, too: what Kubernetes does wherever pods and their
/// rules stand.
pub(super) fn default_template_spec(spec: &mut JobSpec) {
    default_pod_template(&mut spec.template);
    if let Some(policy) = &mut spec.pod_failure_policy {
        for rule in &mut policy.rules {
            drop_blank(&mut rule.on_pod_conditions);
            for pattern in items_mut(&mut rule.on_pod_conditions) {
                fill_text(&mut pattern.status, "True");
            }
        }
    }
}

/// Fills in what a Job's own spec left out.
fn default_spec(spec: &mut JobSpec) {
    if spec.completions.is_none() && spec.parallelism.is_none() {
        spec.completions = Some(1);
    }
    fill(&mut spec.parallelism, 1);
    let backoff = if spec.backoff_limit_per_index.is_some() { i32::MAX } else { 6 };
    fill(&mut spec.backoff_limit, backoff);
    fill(&mut spec.completion_mode, "NonIndexed".to_owned());
    fill(&mut spec.suspend, false);
    fill(&mut spec.manual_selector, false);
    let policy = if spec.pod_failure_policy.is_some() { "Failed" } else { "TerminatingOrFailed" };
    fill(&mut spec.pod_replacement_policy, policy.to_owned());
    default_template_spec(spec);
}

/// Labels the pods with the Job's uid and selects them by it, so that no two Jobs ever have the same pods. What the
/// writer set already is left, and refused later if it is something else.
fn select_own_pods(job: &mut Job) {
    let (uid, name) = (job.metadata.uid.clone().unwrap_or_default(), job.metadata.name.clone().unwrap_or_default());
    let spec = job.spec.get_or_insert_default();
    if spec.manual_selector == Some(true) {
        return;
    }
    let labels = spec.template.metadata.get_or_insert_default().labels.get_or_insert_default();
    for (keys, value) in [(NAME_LABELS, &name), (UID_LABELS, &uid)] {
        for key in keys {
            labels.entry(key.to_owned()).or_insert_with(|| value.clone());
        }
    }
    let selected = spec.selector.get_or_insert_default().match_labels.get_or_insert_default();
    selected.entry(UID_LABEL.to_owned()).or_insert(uid);
}

/// A Job without labels has those of its pods, as soon as these are complete.
fn label_like_pods(job: &mut Job) {
    let Some(spec) = &job.spec else { return };
    let labels = pod_template::labels(&spec.template);
    let is_complete = spec.manual_selector == Some(true) || labels.contains_key(UID_LABEL);
    if is_complete && !labels.is_empty() {
        job.metadata.labels.get_or_insert(labels);
    }
}

fn conditions(job: &Job) -> &[JobCondition] {
    job.status.as_ref().map_or(&[][..], |status| list(&status.conditions))
}

fn phase(job: &Job) -> &'static str {
    let is = |kind: &str| is_condition_true(conditions(job), kind);
    let is_deleting = job.metadata.deletion_timestamp.is_some();
    match () {
        () if is("Complete") => "Complete",
        () if is("Failed") => "Failed",
        () if is_deleting => "Terminating",
        () if is("Suspended") => "Suspended",
        () if is("FailureTarget") => "FailureTarget",
        () if is("SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    }
}

fn completions(spec: &JobSpec, status: &JobStatus) -> String {
    let done = status.succeeded.unwrap_or(0);
    match (spec.completions, spec.parallelism.unwrap_or(0)) {
        (Some(wanted), _) => format!("{done}/{wanted}"),
        (None, parallel) if parallel > 1 => format!("{done}/1 of {parallel}"),
        (None, _) => format!("{done}/1"),
    }
}

fn duration(status: &JobStatus, now: Timestamp) -> String {
    let Some(start) = &status.start_time else { return String::new() };
    let end = status.completion_time.as_ref().map_or(now, |time| time.0);
    human_duration(end.duration_since(start.0).as_secs())
}

/// The warnings about a spec at `path`.
pub(super) fn spec_warnings(path: &Path, spec: &JobSpec) -> Vec<String> {
    let mut warnings = Vec::new();
    let (completions, parallelism) = (spec.completions.unwrap_or(0), spec.parallelism.unwrap_or(0));
    if spec.completion_mode.as_deref() == Some("Indexed") && completions > 100_000 && parallelism > 10_000 {
        let why = "In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, \
                   Kubernetes might not be able to track completedIndexes when a big number of indexes fail";
        warnings.push(format!("{path}: {why}"));
    }
    warnings.extend(pod_template::warnings_at(&path.child("template"), &spec.template));
    warnings
}

impl Strategy for Jobs {
    type Object = Job;

    fn resource(&self) -> &'static Resource {
        super::row_of("batch", "jobs")
    }

    fn default(&self, object: &mut Job) {
        default_spec(object.spec.get_or_insert_default());
        drop_blank(&mut object.metadata.labels);
        label_like_pods(object);
        object.status.get_or_insert_default();
    }

    fn prepare_create(&self, object: &mut Job, _: &Context<'_>) {
        select_own_pods(object);
        label_like_pods(object);
        object.status = Some(JobStatus::default());
    }

    fn prepare_update(&self, new: &mut Job, old: &Job, _: &Context<'_>) {
        new.status.clone_from(&old.status);
    }

    fn prepare_status(&self, new: &mut Job, old: &Job, _: &Context<'_>) {
        new.spec.clone_from(&old.spec);
    }

    fn validate(&self, object: &Job) -> Errors {
        validation::validate(object, validation::Labels::Both)
    }

    fn validate_update(&self, new: &Job, old: &Job) -> Errors {
        validation::validate_update(new, old)
    }

    fn validate_status(&self, new: &Job, old: &Job) -> Errors {
        status::validate(new, old)
    }

    fn warnings(&self, object: &Job) -> Vec<String> {
        let mut warnings = pod_template::name_warnings(&object.metadata);
        warnings.extend(object.spec.iter().flat_map(|spec| spec_warnings(&Path::new("spec"), spec)));
        warnings
    }

    fn counts_generations(&self) -> bool {
        true
    }

    fn orphans_by_default(&self) -> bool {
        true
    }

    fn fields(&self, object: &Job) -> Vec<(&'static str, String)> {
        let succeeded = object.status.as_ref().and_then(|status| status.succeeded).unwrap_or(0);
        vec![("status.successful", succeeded.to_string())]
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Job, now: Timestamp) -> Vec<serde_json::Value> {
        let (spec, status) = (object.spec.clone().unwrap_or_default(), object.status.clone().unwrap_or_default());
        let (names, images) = cells::containers(spec.template.spec.as_ref().map_or(&[][..], |pod| &pod.containers));
        vec![
            cells::name(&object.metadata),
            phase(object).into(),
            completions(&spec, &status).into(),
            duration(&status, now).into(),
            age(&object.metadata, now).into(),
            names.into(),
            images.into(),
            cells::or_none(&spec.selector.as_ref().map(cells::selector).unwrap_or_default()).into(),
        ]
    }
}

#[cfg(test)]
mod tests;
