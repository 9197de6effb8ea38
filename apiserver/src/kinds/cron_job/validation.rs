//! What makes a CronJob invalid.

use coracle_proto::{
    cron::{self, Schedule},
    field::{Error, Errors, Path},
};
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec};

use crate::kinds::{blank::text, job, rules};

/// A Job is named after its CronJob with eleven letters more, and its name may have 63.
const NAME_SIZE: usize = 52;

/// Everything wrong with a new CronJob.
pub(super) fn validate(object: &CronJob) -> Errors {
    let mut errors = Errors::new();
    validate_spec(&mut errors, &Path::new("spec"), &object.spec, None);
    let name = text(&object.metadata.name);
    if name.len() > NAME_SIZE {
        let at = Path::new("metadata").child("name");
        errors.push(Error::invalid(&at, name, "must be no more than 52 characters"));
    }
    errors
}

/// Everything wrong with a CronJob that takes an older one's place, whose name and time zone are not held against it.
pub(super) fn validate_update(new: &CronJob, old: &CronJob) -> Errors {
    let mut errors = Errors::new();
    validate_spec(&mut errors, &Path::new("spec"), &new.spec, Some(&old.spec));
    errors
}

fn validate_spec(errors: &mut Errors, path: &Path, spec: &CronJobSpec, old: Option<&CronJobSpec>) {
    let at = path.child("schedule");
    if spec.schedule.is_empty() {
        errors.push(Error::required(&at, ""));
    } else {
        validate_schedule(errors, &at, spec, old.is_some_and(|old| old.schedule.contains("TZ")));
    }
    if let Some(seconds) = spec.starting_deadline_seconds {
        rules::not_negative(errors, &path.child("startingDeadlineSeconds"), seconds);
    }
    if let Some(zone) = &spec.time_zone
        && old.is_none_or(|old| old.time_zone.as_ref() != Some(zone))
    {
        validate_time_zone(errors, &path.child("timeZone"), zone);
    }
    let known = &["Allow", "Forbid", "Replace"];
    rules::one_of(errors, &path.child("concurrencyPolicy"), text(&spec.concurrency_policy), known);
    job::validate_template_spec(errors, &path.child("jobTemplate"), &spec.job_template);
    for (field, limit) in [
        ("successfulJobsHistoryLimit", spec.successful_jobs_history_limit),
        ("failedJobsHistoryLimit", spec.failed_jobs_history_limit),
    ] {
        if let Some(limit) = limit {
            rules::not_negative(errors, &path.child(field), limit.into());
        }
    }
}

/// A time zone in the schedule itself was never meant to be; who has one may keep it, but not along with the field.
fn validate_schedule(errors: &mut Errors, path: &Path, spec: &CronJobSpec, may_have_zone: bool) {
    let schedule = spec.schedule.as_str();
    if let Err(error) = Schedule::parse(schedule) {
        errors.push(Error::invalid(path, schedule, &error.to_string()));
    }
    if !schedule.contains("TZ") {
        return;
    }
    if !may_have_zone {
        let detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        errors.push(Error::invalid(path, schedule, detail));
    } else if spec.time_zone.is_some() {
        let detail = "cannot use both timeZone field and TZ or CRON_TZ in schedule";
        errors.push(Error::invalid(path, schedule, detail));
    }
}

/// Names of zones are paths below a directory, of parts that IANA's rules for names allow.
fn validate_time_zone(errors: &mut Errors, path: &Path, zone: &str) {
    if zone.is_empty() {
        errors.push(Error::invalid(path, zone, "timeZone must be nil or non-empty string"));
        return;
    }
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_+".contains(&byte);
    let is_part = |part: &str| {
        !matches!(part, "" | "." | "..") && !part.starts_with('-') && part.len() <= 14 && part.bytes().all(is_allowed)
    };
    let unknown = format!("unknown time zone {zone}");
    if !zone.split('/').all(is_part) {
        errors.push(Error::invalid(path, zone, &unknown));
        return;
    }
    if zone.eq_ignore_ascii_case("Local") {
        let detail = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        errors.push(Error::invalid(path, zone, detail));
    }
    if zone != "Local" && cron::time_zone(zone).is_none() {
        errors.push(Error::invalid(path, zone, &unknown));
    }
}
