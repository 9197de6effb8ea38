//! CronJobs: Jobs made by the clock.

mod validation;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus};

use super::{
    blank::{drop_blank, fill, fill_text, items_mut, list},
    cells, job, object_reference, pod_template,
};
use crate::kind::{AGE, Column, Context, NAME, Strategy, age};
use coracle_proto::{
    field::{Errors, Path},
    resource::Resource,
};

/// The strategy of `cronjobs.batch`.
#[derive(Clone, Copy, Debug, Default)]
pub struct CronJobs;

const COLUMNS: &[Column] = &[
    NAME,
    cells::column("Schedule", "The schedule in Cron format, see https://en.wikipedia.org/wiki/Cron."),
    cells::column("Timezone", "The time zone of the schedule."),
    Column { kind: "boolean", ..cells::column("Suspend", "Whether no more Jobs are made for now.") },
    cells::integer("Active", "Number of Jobs that run now."),
    cells::column("Last Schedule", "When a Job was last made."),
    AGE,
    cells::wide("Containers", "Names of each container in the template."),
    cells::wide("Images", "Images referenced by each container in the template."),
    cells::wide("Selector", "Label selector of the pods."),
];

impl Strategy for CronJobs {
    type Object = CronJob;

    fn resource(&self) -> &'static Resource {
        super::row_of("batch", "cronjobs")
    }

    fn default(&self, object: &mut CronJob) {
        let spec = &mut object.spec;
        fill_text(&mut spec.concurrency_policy, "Allow");
        fill(&mut spec.suspend, false);
        fill(&mut spec.successful_jobs_history_limit, 3);
        fill(&mut spec.failed_jobs_history_limit, 1);
        let meta = spec.job_template.metadata.get_or_insert_default();
        drop_blank(&mut meta.labels);
        drop_blank(&mut meta.annotations);
        job::default_template_spec(spec.job_template.spec.get_or_insert_default());
        let status = object.status.get_or_insert_default();
        drop_blank(&mut status.active);
        items_mut(&mut status.active).iter_mut().for_each(object_reference::drop_blanks);
    }

    fn prepare_create(&self, object: &mut CronJob, _: &Context<'_>) {
        object.status = Some(CronJobStatus::default());
    }

    fn prepare_update(&self, new: &mut CronJob, old: &CronJob, _: &Context<'_>) {
        new.status.clone_from(&old.status);
    }

    fn prepare_status(&self, new: &mut CronJob, old: &CronJob, _: &Context<'_>) {
        new.spec.clone_from(&old.spec);
    }

    fn validate(&self, object: &CronJob) -> Errors {
        validation::validate(object)
    }

    fn validate_update(&self, new: &CronJob, old: &CronJob) -> Errors {
        validation::validate_update(new, old)
    }

    fn warnings(&self, object: &CronJob) -> Vec<String> {
        let mut warnings = pod_template::name_warnings(&object.metadata);
        let spec = &object.spec;
        let path = Path::new("spec").child("jobTemplate").child("spec");
        warnings.extend(spec.job_template.spec.iter().flat_map(|spec| job::spec_warnings(&path, spec)));
        if spec.schedule.contains("TZ") {
            let more = "https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/";
            warnings.push(format!(
                "cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, see {more} for more details"
            ));
        }
        warnings
    }

    fn counts_generations(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &CronJob, now: Timestamp) -> Vec<serde_json::Value> {
        let (spec, status) = (object.spec.clone(), object.status.clone().unwrap_or_default());
        let job = spec.job_template.spec.unwrap_or_default();
        let (names, images) = cells::containers(job.template.spec.as_ref().map_or(&[][..], |pod| &pod.containers));
        let last = status.last_schedule_time.map(|time| cells::since(Some(time.0), now));
        let suspend = spec.suspend.map_or_else(
            || cells::UNSET.to_owned(),
            |suspend| if suspend { "True".to_owned() } else { "False".to_owned() },
        );
        vec![
            cells::name(&object.metadata),
            spec.schedule.into(),
            spec.time_zone.unwrap_or_else(|| cells::NONE.to_owned()).into(),
            suspend.into(),
            list(&status.active).len().into(),
            last.unwrap_or_else(|| cells::NONE.to_owned()).into(),
            age(&object.metadata, now).into(),
            names.into(),
            images.into(),
            cells::or_none(&job.selector.as_ref().map(cells::selector).unwrap_or_default()).into(),
        ]
    }
}

#[cfg(test)]
mod tests;
