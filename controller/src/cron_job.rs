//! CronJobs: a Job at each time of a schedule.
//!
//! A Job's name says for which time it is, so that none is made twice for one time, wherever this was cut.

mod schedule;

use std::{cmp::Ordering, sync::Arc};

use k8s_openapi::{
    api::{
        batch::v1::{CronJob, CronJobSpec, CronJobStatus, Job},
        core::v1::ObjectReference,
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    jiff::{SignedDuration, Timestamp},
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, PostParams, Preconditions, PropagationPolicy},
};

use self::schedule::Times;
use crate::{
    events::{Events, reference},
    informer::{Change, Reader, version_of},
    informers::Informers,
    job::finished,
    object_key::ObjectKey,
    pod_control::managing_owner,
    reconcile::{Control, Next, Reconcile, ReconcileError, is_namespace_going},
    view::controller_of,
    work_queue::WorkQueue,
    written::Written,
};

/// For which time a Job was made.
const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

/// See the module.
pub(crate) struct CronJobs {
    client: Client,
    cron_jobs: Reader<CronJob>,
    jobs: Reader<Job>,
    events: Events,
    /// The last Job, and the last CronJob, written for each.
    jobs_written: Written,
    written: Written,
}

/// Jobs are found by the uid of what manages them.
pub(crate) fn index_jobs(job: &Job) -> Vec<String> {
    controller_of(&job.metadata).map(|owner| owner.uid.clone()).into_iter().collect()
}

/// The CronJob that made a Job.
fn owner(job: &Job) -> Option<ObjectKey> {
    let owner = controller_of(&job.metadata).filter(|o| o.kind == "CronJob" && o.api_version == "batch/v1")?;
    Some(ObjectKey::new(job.namespace().unwrap_or_default(), &owner.name))
}

impl CronJobs {
    pub(crate) fn over(informers: &mut Informers) -> Control<Self> {
        let queue: Arc<WorkQueue<ObjectKey>> = Arc::default();
        let changed = Arc::clone(&queue);
        informers.cron_jobs.on_change(move |change: &Change<'_, CronJob>| changed.add(ObjectKey::of(change.object())));
        let changed = Arc::clone(&queue);
        informers.jobs.on_change(move |change: &Change<'_, Job>| {
            let old = if let Change::Updated { old, .. } = change { owner(old) } else { None };
            [old, owner(change.object())].into_iter().flatten().for_each(|key| changed.add(key));
        });
        let client = informers.client.clone();
        let controller = Self {
            events: Events::new(client.clone(), "cronjob-controller"),
            client,
            cron_jobs: informers.cron_jobs.reader(),
            jobs: informers.jobs.reader(),
            jobs_written: Written::default(),
            written: Written::default(),
        };
        Control::new(controller, queue)
    }

    fn jobs_api(&self, key: &ObjectKey) -> Api<Job> {
        Api::namespaced(self.client.clone(), &key.namespace)
    }

    /// Deletes a Job with its pods, and takes it off the list of active ones.
    async fn delete(
        &self,
        key: &ObjectKey,
        about: &ObjectReference,
        job: &Job,
        status: &mut CronJobStatus,
    ) -> Result<(), ReconcileError> {
        let preconditions = Preconditions { uid: job.uid(), resource_version: None };
        let params = DeleteParams {
            preconditions: Some(preconditions),
            propagation_policy: Some(PropagationPolicy::Background),
            ..DeleteParams::default()
        };
        match self.jobs_api(key).delete(&job.name_any(), &params).await {
            Ok(answer) => {
                self.jobs_written.note(key, answer.left().map(|marked| version_of(&marked)).unwrap_or_default());
                let note = format!("Deleted job {}", job.name_any());
                self.events.normal(about, "SuccessfulDelete", note).await;
            }
            // Gone, or another one by now.
            Err(kube::Error::Api(answer)) if matches!(answer.code, 404 | 409) => {}
            Err(error) => {
                let error = ReconcileError::api("deleting a Job")(error);
                self.events.warning(about, "FailedDelete", format!("Deleted job: {}", error.reason())).await;
                return Err(error);
            }
        }
        status.active.get_or_insert_default().retain(|active| active.uid != job.metadata.uid);
        Ok(())
    }

    /// Brings the status up to what has become of the Jobs.
    async fn observe(
        &self,
        key: &ObjectKey,
        about: &ObjectReference,
        jobs: &[Arc<Job>],
        status: &mut CronJobStatus,
    ) -> Result<(), ReconcileError> {
        for job in jobs {
            let is_listed = is_active(status, job);
            let Some(condition) = finished(job) else {
                if !is_listed {
                    let note = format!("Saw a job that the controller did not create or forgot: {}", job.name_any());
                    self.events.warning(about, "UnexpectedJob", note).await;
                }
                continue;
            };
            if is_listed {
                status.active.get_or_insert_default().retain(|active| active.uid != job.metadata.uid);
                let note = format!("Saw completed job: {}, condition: {}", job.name_any(), condition.type_);
                self.events.normal(about, "SawCompletedJob", note).await;
            }
            let completed = job.status.as_ref().and_then(|status| status.completion_time.clone());
            if condition.type_ == "Complete" && completed > status.last_successful_time {
                status.last_successful_time = completed;
            }
        }
        for active in status.active.clone().unwrap_or_default() {
            if jobs.iter().any(|job| job.metadata.uid == active.uid) {
                continue;
            }
            let name = active.name.unwrap_or_default();
            let there = self.jobs_api(key).get_opt(&name).await.map_err(ReconcileError::api("looking for a Job"))?;
            if there.is_none_or(|job| job.metadata.uid != active.uid) {
                self.events.normal(about, "MissingJob", format!("Active job went missing: {name}")).await;
                status.active.get_or_insert_default().retain(|other| other.uid != active.uid);
            }
        }
        Ok(())
    }

    /// Deletes the oldest of those that have ended, beyond what is to be kept of either kind.
    async fn clean_up(
        &self,
        key: &ObjectKey,
        about: &ObjectReference,
        spec: &CronJobSpec,
        jobs: &[Arc<Job>],
        status: &mut CronJobStatus,
    ) -> Result<(), ReconcileError> {
        for (end, limit) in
            [("Complete", spec.successful_jobs_history_limit), ("Failed", spec.failed_jobs_history_limit)]
        {
            let Some(limit) = limit.map(|limit| usize::try_from(limit).unwrap_or_default()) else { continue };
            let mut ended: Vec<&Arc<Job>> = jobs
                .iter()
                .filter(|job| job.metadata.deletion_timestamp.is_none())
                .filter(|job| finished(job).is_some_and(|condition| condition.type_ == end))
                .collect();
            ended.sort_by(|a, b| older(a, b));
            let surplus = ended.len().saturating_sub(limit);
            for job in ended.into_iter().take(surplus) {
                self.delete(key, about, job, status).await?;
            }
        }
        Ok(())
    }

    /// Makes the Job for this time, or finds the one that was made before this was cut.
    async fn start(
        &self,
        key: &ObjectKey,
        about: &ObjectReference,
        cron: &CronJob,
        at: Timestamp,
        shown: String,
    ) -> Result<Option<Job>, ReconcileError> {
        let job = job_for(cron, at, shown);
        match self.jobs_api(key).create(&PostParams::default(), &job).await {
            Ok(made) => {
                self.jobs_written.note(key, version_of(&made));
                self.events.normal(about, "SuccessfulCreate", format!("Created job {}", made.name_any())).await;
                Ok(Some(made))
            }
            Err(kube::Error::Api(status)) if is_namespace_going(&status) => Ok(None),
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
                let there = self.jobs_api(key).get_opt(&job.name_any()).await;
                let there = there.map_err(ReconcileError::api("reading the Job for this time"))?;
                let is_ours = |job: &Job| controller_of(&job.metadata).map(|o| &o.uid) == cron.metadata.uid.as_ref();
                Ok(there.filter(is_ours))
            }
            Err(error) => {
                let error = ReconcileError::api("creating a Job")(error);
                let note = format!("Error creating job: {}", error.reason());
                self.events.warning(about, "FailedCreate", note).await;
                Err(error)
            }
        }
    }

    /// Starts what is due, and says when to look again.
    async fn schedule(
        &self,
        key: &ObjectKey,
        about: &ObjectReference,
        cron: &CronJob,
        status: &mut CronJobStatus,
    ) -> Result<Next, ReconcileError> {
        let spec = cron.spec.clone();
        if cron.metadata.deletion_timestamp.is_some() || spec.suspend == Some(true) {
            return Ok(Next::OnChange);
        }
        let now = Timestamp::now();
        let found = Times::of(cron).and_then(|times| Ok((times.due(cron, now)?, times)));
        let (due, times) = match found {
            Ok(found) => found,
            Err((reason, note)) => {
                self.events.warning(about, reason, note).await;
                return Ok(Next::OnChange);
            }
        };
        let again = |cron: &CronJob| times.wait(cron, now).map_or(Next::OnChange, Next::After);
        let Some(due) = due else { return Ok(again(cron)) };
        if due.missed_many {
            let note = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
            self.events.warning(about, "TooManyMissedTimes", note.to_owned()).await;
        }
        let late = spec
            .starting_deadline_seconds
            .is_some_and(|seconds| now.duration_since(due.at) > SignedDuration::from_secs(seconds));
        if late {
            let note =
                format!("Missed scheduled time to start a job: {}", due.at.strftime("%a, %d %b %Y %H:%M:%S UTC"));
            self.events.warning(about, "MissSchedule", note).await;
            return Ok(again(cron));
        }
        let name = name_for(cron, due.at);
        let is_done = status.last_schedule_time.as_ref().is_some_and(|last| last.0 == due.at);
        if is_done || status.active.iter().flatten().any(|active| active.name.as_ref() == Some(&name)) {
            return Ok(again(cron));
        }
        let active = status.active.clone().unwrap_or_default();
        match spec.concurrency_policy.as_deref() {
            Some("Forbid") if !active.is_empty() => {
                let note =
                    "Not starting job because prior execution is running and concurrency policy is Forbid".to_owned();
                self.events.normal(about, "JobAlreadyActive", note).await;
                return Ok(again(cron));
            }
            Some("Replace") => {
                for reference in active {
                    let job = Job {
                        metadata: ObjectMeta { name: reference.name, uid: reference.uid, ..ObjectMeta::default() },
                        ..Job::default()
                    };
                    self.delete(key, about, &job, status).await?;
                }
            }
            _ => {}
        }
        if let Some(job) = self.start(key, about, cron, due.at, times.shown(due.at)).await? {
            if !is_active(status, &job) {
                status.active.get_or_insert_default().push(reference(&job));
            }
            status.last_schedule_time = Some(Time(due.at));
        }
        Ok(again(&CronJob { status: Some(status.clone()), ..cron.clone() }))
    }
}

fn is_active(status: &CronJobStatus, job: &Job) -> bool {
    status.active.iter().flatten().any(|active| active.uid == job.metadata.uid)
}

fn older(a: &Job, b: &Job) -> Ordering {
    let start = |job: &Job| job.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|time| time.0);
    let never = |job: &Job| start(job).is_none();
    (never(a), start(a), a.name_any()).cmp(&(never(b), start(b), b.name_any()))
}

fn name_for(cron: &CronJob, at: Timestamp) -> String {
    format!("{}-{}", cron.name_any(), at.as_second() / 60)
}

fn job_for(cron: &CronJob, at: Timestamp, shown: String) -> Job {
    let template = cron.spec.job_template.clone();
    let meta = template.metadata.unwrap_or_default();
    let mut annotations = meta.annotations.unwrap_or_default();
    annotations.insert(SCHEDULED.to_owned(), shown);
    Job {
        metadata: ObjectMeta {
            name: Some(name_for(cron, at)),
            labels: meta.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![managing_owner(cron)]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    }
}

impl Reconcile for CronJobs {
    type Key = ObjectKey;

    const NAME: &'static str = "cronjob";

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ReconcileError> {
        if !self.jobs.caught_up(self.jobs_written.of(key)).await
            || !self.cron_jobs.caught_up(self.written.of(key)).await
        {
            return Ok(Next::OnChange);
        }
        let Some(cron) = self.cron_jobs.get(key) else {
            self.jobs_written.forget(key);
            self.written.forget(key);
            return Ok(Next::OnChange);
        };
        let jobs = self.jobs.indexed(cron.metadata.uid.as_deref().unwrap_or_default());
        let about = reference(cron.as_ref());
        let mut status = cron.status.clone().unwrap_or_default();
        self.observe(key, &about, &jobs, &mut status).await?;
        let scheduled = self.schedule(key, &about, &cron, &mut status).await;
        // What was done is told even if something else failed.
        status.active = status.active.filter(|active| !active.is_empty());
        if cron.status.clone().unwrap_or_default() != status {
            let new = CronJob { status: Some(status.clone()), ..CronJob::clone(&cron) };
            let api: Api<CronJob> = Api::namespaced(self.client.clone(), &key.namespace);
            match api.replace_status(&key.name, &PostParams::default(), &new).await {
                Ok(written) => self.written.note(key, version_of(&written)),
                Err(kube::Error::Api(answer)) if answer.code == 404 => {}
                Err(error) => return Err(ReconcileError::api("updating the status of a CronJob")(error)),
            }
        }
        // Only what is told of may go: of a Job that is gone nobody knows how it ended.
        self.clean_up(key, &about, &cron.spec, &jobs, &mut status).await?;
        scheduled
    }
}
