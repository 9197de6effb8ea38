//! What makes a Job's status impossible: clients rely on it, and others than our own controller may write it (KEP-4368).
//!
//! Rules about a field are asked only when the field, or what it is held against, has changed: a spec that was changed just
//! now may not fit the status for a moment.

use std::collections::BTreeSet;

use coracle_proto::{
    field::{Error, Errors, Path},
    meta::is_condition_true,
};
use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus};

use super::{conditions, indexes};
use crate::kinds::{
    blank::{list, text},
    rules,
};

/// A Job as its status tells of it.
struct Told<'a> {
    job: &'a Job,
    status: JobStatus,
}

impl<'a> Told<'a> {
    fn new(job: &'a Job) -> Self {
        Self { job, status: job.status.clone().unwrap_or_default() }
    }

    fn is(&self, kind: &str) -> bool {
        is_condition_true(conditions(self.job), kind)
    }

    fn is_finished(&self) -> bool {
        self.is("Complete") || self.is("Failed")
    }

    fn is_resumed(&self) -> bool {
        conditions(self.job).iter().any(|c| c.type_ == "Suspended" && c.status == "False")
    }
}

/// Everything wrong with changing the status of `old` into that of `new`.
pub(super) fn validate(new: &Job, old: &Job) -> Errors {
    let (now, then) = (Told::new(new), Told::new(old));
    let spec = new.spec.clone().unwrap_or_default();
    let mut errors = Errors::new();
    validate_numbers(&mut errors, &now.status);
    validate_end(&mut errors, &now, &then, &spec);
    validate_indexes(&mut errors, &now.status, &then.status, &spec);
    validate_success(&mut errors, &now, &then, &spec);
    validate_history(&mut errors, &now, &then, &spec);
    errors
}

fn path(field: &str) -> Path {
    Path::new("status").child(field)
}

fn refuse_conditions(errors: &mut Errors, detail: &str) {
    errors.push(Error::invalid_untold(&path("conditions"), detail));
}

fn validate_numbers(errors: &mut Errors, status: &JobStatus) {
    for (field, number) in [
        ("active", status.active),
        ("succeeded", status.succeeded),
        ("failed", status.failed),
        ("ready", status.ready),
        ("terminating", status.terminating),
    ] {
        rules::not_negative(errors, &path(field), number.unwrap_or(0).into());
    }
    let Some(uncounted) = &status.uncounted_terminated_pods else { return };
    let mut seen = BTreeSet::new();
    for (field, uids) in [("succeeded", &uncounted.succeeded), ("failed", &uncounted.failed)] {
        for (i, uid) in list(uids).iter().enumerate() {
            let at = path("uncountedTerminatedPods").child(field).index(i);
            if uid.is_empty() {
                errors.push(Error::invalid(&at, "", "must not be empty"));
            } else if !seen.insert(uid) {
                errors.push(Error::duplicate(&at, uid.as_str()));
            }
        }
    }
}

/// What goes with a Job's end, and only with it.
fn validate_end(errors: &mut Errors, now: &Told<'_>, then: &Told<'_>, spec: &JobSpec) {
    let (status, before) = (&now.status, &then.status);
    let changed = |kind: &str| now.is(kind) != then.is(kind);
    let (complete_changed, failed_changed) = (changed("Complete"), changed("Failed"));
    let (is_complete, is_failed) = (now.is("Complete"), now.is("Failed"));
    if (complete_changed || failed_changed) && is_complete && is_failed {
        refuse_conditions(errors, "cannot set Complete=True and Failed=true conditions");
    }
    if (complete_changed || changed("FailureTarget")) && is_complete && now.is("FailureTarget") {
        refuse_conditions(errors, "cannot set Complete=True and FailureTarget=true conditions");
    }
    let (start, end) = (&status.start_time, &status.completion_time);
    let (start_changed, end_changed) = (*start != before.start_time, *end != before.completion_time);
    if complete_changed || end_changed {
        let at = path("completionTime");
        if end.is_some() && !is_complete {
            let detail = "cannot set completionTime when there is no Complete=True condition";
            errors.push(Error::invalid(&at, rules::json(end), detail));
        }
        if end.is_none() && is_complete {
            errors.push(Error::required(&at, "completionTime is required for Complete jobs"));
        }
    }
    if (start_changed || end_changed) && start.as_ref().zip(end.as_ref()).is_some_and(|(start, end)| end.0 < start.0) {
        let detail = "must be equal to or after `startTime`";
        errors.push(Error::invalid(&path("completionTime"), rules::json(end), detail));
    }
    let indexes_changed = status.failed_indexes != before.failed_indexes;
    if (failed_changed || indexes_changed) && is_failed && !now.is("FailureTarget") {
        refuse_conditions(errors, "cannot set Failed=True condition without the FailureTarget=true condition");
    }
    let succeeds = now.is("SuccessCriteriaMet");
    if (complete_changed || changed("SuccessCriteriaMet")) && is_complete && !succeeds {
        refuse_conditions(errors, "cannot set Complete=True condition without the SuccessCriteriaMet=true condition");
    }
    let is_finished = now.is_finished();
    let finished_changed = is_finished != then.is_finished();
    let active = status.active.unwrap_or(0);
    let active_changed = active != before.active.unwrap_or(0);
    if (finished_changed || active_changed) && is_finished && active > 0 {
        errors.push(Error::invalid(&path("active"), active, "active>0 is invalid for finished job"));
    }
    let never_starts = spec.suspend == Some(true) && spec.completions == Some(0);
    if (finished_changed || start_changed) && !never_starts && is_finished && start.is_none() {
        errors.push(Error::required(&path("startTime"), "startTime is required for finished job"));
    }
    let uncounted = &status.uncounted_terminated_pods;
    let is_left =
        uncounted.as_ref().is_some_and(|pods| !list(&pods.failed).is_empty() || !list(&pods.succeeded).is_empty());
    if (finished_changed || *uncounted != before.uncounted_terminated_pods) && is_finished && is_left {
        let detail = "must be empty for finished job";
        errors.push(Error::invalid(&path("uncountedTerminatedPods"), rules::json(uncounted), detail));
    }
    let terminating = status.terminating.unwrap_or(0);
    if (finished_changed || status.terminating != before.terminating) && is_finished && terminating > 0 {
        let detail = "terminating>0 is invalid for finished job";
        errors.push(Error::invalid(&path("terminating"), terminating, detail));
    }
    if let Some(ready) = status.ready
        && (status.ready != before.ready || active_changed)
        && ready > active
    {
        errors.push(Error::invalid(&path("ready"), ready, "cannot set more ready pods than active"));
    }
}

/// The lists of completed and failed indexes.
fn validate_indexes(errors: &mut Errors, status: &JobStatus, before: &JobStatus, spec: &JobSpec) {
    let completed = text(&status.completed_indexes);
    let completed_changed = completed != text(&before.completed_indexes);
    let failed_changed = status.failed_indexes != before.failed_indexes;
    let at = path("completedIndexes");
    if completed_changed {
        if let Some(Err(why)) = spec.completions.map(|completions| indexes::count(completed, completions)) {
            errors.push(Error::invalid(&at, completed, &format!("error parsing completedIndexes: {why}")));
        }
        if !completed.is_empty() && spec.completion_mode.as_deref() != Some("Indexed") {
            let detail = "cannot set non-empty completedIndexes when non-indexed completion mode";
            errors.push(Error::invalid(&at, completed, detail));
        }
    }
    let Some(failed) = status.failed_indexes.as_deref() else { return };
    let at = path("failedIndexes");
    if failed_changed {
        match (spec.backoff_limit_per_index, spec.completions) {
            (None, _) => {
                let detail = "cannot set non-null failedIndexes when backoffLimitPerIndex is null";
                errors.push(Error::invalid(&at, failed, detail));
            }
            (Some(_), Some(completions)) => {
                if let Err(why) = indexes::count(failed, completions) {
                    errors.push(Error::invalid(&at, failed, &format!("error parsing failedIndexes: {why}")));
                }
            }
            (Some(_), None) => {}
        }
    }
    if completed_changed || failed_changed {
        let both = spec.completions.and_then(|completions| indexes::overlap(completed, failed, completions));
        if let Some(index) = both {
            let detail = format!("failedIndexes and completedIndexes overlap at index: {index}");
            errors.push(Error::invalid(&at, failed, &detail));
        }
    }
}

/// What goes with having done well enough.
fn validate_success(errors: &mut Errors, now: &Told<'_>, then: &Told<'_>, spec: &JobSpec) {
    let (succeeds, succeeded) = (now.is("SuccessCriteriaMet"), then.is("SuccessCriteriaMet"));
    if succeeds && now.is("Failed") {
        refuse_conditions(errors, "cannot set SuccessCriteriaMet=True and Failed=true conditions");
    }
    if succeeds && now.is("FailureTarget") {
        refuse_conditions(errors, "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions");
    }
    if spec.success_policy.is_some() && !succeeds && now.is("Complete") {
        let detail = "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True";
        refuse_conditions(errors, detail);
    }
    if succeeded && !succeeds {
        refuse_conditions(errors, "cannot disable the SuccessCriteriaMet=True condition");
    }
    if then.is("Complete") && !succeeded && succeeds {
        let detail = "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions";
        refuse_conditions(errors, detail);
    }
}

/// What does not go back once it was so.
fn validate_history(errors: &mut Errors, now: &Told<'_>, then: &Told<'_>, spec: &JobSpec) {
    let (status, before) = (&now.status, &then.status);
    for kind in ["Failed", "Complete", "FailureTarget"] {
        if then.is(kind) && !now.is(kind) {
            refuse_conditions(errors, &format!("cannot disable the terminal {kind}=True condition"));
        }
    }
    let failed = status.failed.unwrap_or(0);
    if failed < before.failed.unwrap_or(0) {
        errors.push(Error::invalid(&path("failed"), failed, "cannot decrease the failed counter"));
    }
    // An indexed Job that can be made smaller may lose completions that are counted already.
    let shrinks = spec.completion_mode.as_deref() == Some("Indexed") && spec.completions == spec.parallelism;
    let succeeded = status.succeeded.unwrap_or(0);
    if !shrinks && succeeded < before.succeeded.unwrap_or(0) {
        errors.push(Error::invalid(&path("succeeded"), succeeded, "cannot decrease the succeeded counter"));
    }
    let end = &status.completion_time;
    if end.is_some() && before.completion_time.is_some() && *end != before.completion_time {
        errors.push(Error::immutable(&path("completionTime"), rules::json(end)));
    }
    let resumes = then.is("Suspended") && now.is_resumed();
    let restarts = before.start_time.is_some() && status.start_time != before.start_time;
    if restarts && !resumes && spec.suspend != Some(true) {
        let detail = "field is immutable for unsuspended job once set";
        errors.push(Error::invalid(&path("startTime"), rules::json(&status.start_time), detail));
    }
}
