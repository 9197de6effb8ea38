//! Jobs: pods that run until enough of them have succeeded, or too many have failed.

mod indexes;
mod plan;
mod policy;
mod tracked;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use coracle_proto::selector::LabelSelector;
use futures::future::join_all;
use k8s_openapi::{
    api::{
        batch::v1::{Job, JobSpec, JobStatus},
        core::v1::{Container, EnvVar, EnvVarSource, ObjectFieldSelector, ObjectReference, Pod},
    },
    jiff::Timestamp,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, PostParams, Preconditions, PropagationPolicy},
};

pub(crate) use self::plan::finished;
use self::{
    plan::{NewPod, Picture, Plan},
    tracked::{Backoff, FAILURES, FINALIZER, IGNORED_FAILURES, INDEX, is_tracked},
};
use crate::{
    events::{Events, reference},
    informer::{Change, Reader, version_of},
    informers::Informers,
    object_key::ObjectKey,
    pod_control::{PodControl, managing_owner, pod_of},
    pod_owners::{PodOwners, on_pod},
    reconcile::{Control, Next, Reconcile, ReconcileError},
    view::{PodView, controller_of},
    work_queue::WorkQueue,
    written::Written,
};

/// The value of `managedBy` that means us; a Job with another is somebody else's.
const CONTROLLER: &str = "kubernetes.io/job-controller";
/// The longest name that letters are put behind.
const LONGEST_PREFIX: usize = 58;
/// The variable that tells a container its index.
const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";

/// See the module. A key without a name means the namespace's pods that no Job owns any more.
pub(crate) struct Jobs {
    client: Client,
    jobs: Reader<Job>,
    owners: PodOwners,
    /// The last version written of each Job.
    written: Written,
    backoffs: Mutex<HashMap<ObjectKey, Backoff>>,
}

fn selector_of(job: &Job) -> Option<LabelSelector> {
    let spec = job.spec.as_ref().filter(|spec| is_ours(spec))?;
    LabelSelector::from_api(spec.selector.as_ref()).ok().filter(|s| !s.is_everything() && !s.is_nothing())
}

fn is_ours(spec: &JobSpec) -> bool {
    spec.managed_by.as_deref().is_none_or(|by| by == CONTROLLER)
}

/// Whether a pod's controller is a Job.
fn is_of_job(pod: &PodView) -> bool {
    controller_of(&pod.metadata).is_some_and(|owner| owner.kind == "Job" && owner.api_version == "batch/v1")
}

impl Jobs {
    pub(crate) fn over(informers: &mut Informers) -> Control<Self> {
        let queue: Arc<WorkQueue<ObjectKey>> = Arc::default();
        let (changed, jobs) = (Arc::clone(&queue), informers.jobs.reader());
        informers.pods.on_change(move |change: &Change<'_, PodView>| {
            on_pod(&changed, &jobs, selector_of, change);
            let pod = change.object();
            if is_tracked(pod) && controller_of(&pod.metadata).is_none() {
                changed.add(ObjectKey::new(pod.namespace().unwrap_or_default(), ""));
            }
        });
        let changed = Arc::clone(&queue);
        informers.jobs.on_change(move |change: &Change<'_, Job>| changed.add(ObjectKey::of(change.object())));
        let client = informers.client.clone();
        let events = Events::new(client.clone(), "job-controller");
        let controller = Self {
            owners: PodOwners::new(PodControl::new(client.clone()), informers.pods.reader(), events),
            jobs: informers.jobs.reader(),
            client,
            written: Written::default(),
            backoffs: Mutex::default(),
        };
        Control::new(controller, queue)
    }

    fn api(&self, key: &ObjectKey) -> Api<Job> {
        Api::namespaced(self.client.clone(), &key.namespace)
    }

    fn backoffs(&self) -> MutexGuard<'_, HashMap<ObjectKey, Backoff>> {
        self.backoffs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the finalizer off these pods, and says of which.
    async fn untrack(&self, key: &ObjectKey, pods: &[Arc<PodView>]) -> Result<(), ReconcileError> {
        let removals = pods.iter().filter(|pod| is_tracked(pod)).map(|pod| self.owners.control.let_go(pod, FINALIZER));
        let mut failure = None;
        for result in join_all(removals).await {
            match result {
                Ok(version) => self.owners.written.note(key, version),
                Err(error) => failure = Some(error),
            }
        }
        failure.map_or(Ok(()), |error| Err(ReconcileError::api("letting go of a pod that was counted")(error)))
    }

    /// Lets go of pods whose Job is gone, or has ended: nobody will count them.
    async fn untrack_left(&self, key: &ObjectKey, job: Option<&Job>) -> Result<(), ReconcileError> {
        let uid = job.and_then(|job| job.metadata.uid.as_ref());
        let left = self.owners.pods.list(|pod| {
            let owner = controller_of(&pod.metadata);
            is_tracked(pod)
                && pod.metadata.namespace.as_deref() == Some(&key.namespace)
                && match owner {
                    None => key.name.is_empty() && !self.is_selected(pod),
                    Some(owner) => is_of_job(pod) && owner.name == key.name && uid.is_none_or(|uid| *uid == owner.uid),
                }
        });
        self.untrack(key, &left).await
    }

    /// Whether a Job is about to adopt this pod.
    fn is_selected(&self, pod: &PodView) -> bool {
        let selects = |job: &Job| {
            job.metadata.namespace == pod.metadata.namespace
                && plan::finished(job).is_none()
                && selector_of(job).is_some_and(|selector| selector.matches_labels(pod.labels()))
        };
        !self.jobs.list(selects).is_empty()
    }

    /// A Job that has ended is deleted in its time, and its pods go before it.
    async fn after_end(&self, key: &ObjectKey, job: &Job) -> Result<Next, ReconcileError> {
        self.untrack_left(key, Some(job)).await?;
        match plan::life_left(job, Timestamp::now()) {
            _ if job.metadata.deletion_timestamp.is_some() => Ok(Next::OnChange),
            None => Ok(Next::OnChange),
            Some(left) if !left.is_zero() => Ok(Next::After(left)),
            Some(_) => {
                let preconditions =
                    Preconditions { uid: job.uid(), resource_version: job.metadata.resource_version.clone() };
                let params = DeleteParams {
                    preconditions: Some(preconditions),
                    propagation_policy: Some(PropagationPolicy::Foreground),
                    ..DeleteParams::default()
                };
                match self.api(key).delete(&key.name, &params).await {
                    Ok(_) => Ok(Next::OnChange),
                    Err(kube::Error::Api(status)) if status.code == 404 => Ok(Next::OnChange),
                    Err(error) => Err(ReconcileError::api("deleting a Job whose time is over")(error)),
                }
            }
        }
    }

    async fn write(&self, key: &ObjectKey, job: &Job, status: &JobStatus) -> Result<Job, ReconcileError> {
        let new = Job { status: Some(status.clone()), ..job.clone() };
        let written = self.api(key).replace_status(&key.name, &PostParams::default(), &new).await;
        let written = written.map_err(ReconcileError::api("updating the status of a Job"))?;
        self.written.note(key, version_of(&written));
        Ok(written)
    }

    /// Deletes and makes pods. What could not be made is taken off the status's count, and said at the end.
    async fn manage(
        &self,
        key: &ObjectKey,
        job: &Job,
        about: &ObjectReference,
        plan: &mut Plan,
    ) -> Result<Result<(), String>, ReconcileError> {
        let failed = |first| ReconcileError::Several { count: 1, first };
        self.owners.delete(key, about, &plan.stop).await.map_err(failed)?;
        self.untrack(key, &plan.drop).await?;
        self.owners.delete(key, about, &plan.drop).await.map_err(failed)?;
        if plan.create.is_empty() {
            return Ok(Ok(()));
        }
        let pods: Vec<Pod> = plan.create.iter().map(|new| pod(job, new)).collect();
        let (made, result) = self.owners.create(key, about, pods).await;
        let missing = i32::try_from(plan.create.len() - made).unwrap_or_default();
        plan.status.active = plan.status.active.map(|active| active - missing).filter(|active| *active != 0);
        Ok(result)
    }

    async fn sync(&self, key: &ObjectKey, job: &Job, spec: &JobSpec) -> Result<Next, ReconcileError> {
        let Some(selector) = selector_of(job) else { return Ok(Next::OnChange) };
        let pods = self.owners.claim(job, &selector, |_| true).await?;
        let backoff = self.backoffs().get(key).copied().unwrap_or_default();
        let mut plan = Picture { job, spec, pods: &pods, backoff, now: Timestamp::now() }.plan();
        let about = reference(job);
        let made = self.manage(key, job, &about, &mut plan).await?;
        let mut job = job.clone();
        let before = plan::normal(job.status.clone().unwrap_or_default());
        if !plan::is_same(&before, &plan.status) || job.status.is_none() {
            job = self.write(key, &job, &plan.status).await?;
        }
        self.backoffs().insert(key.clone(), plan.backoff);
        if let Some((reason, note)) = plan.event {
            self.owners.events.normal(&about, reason, note.to_owned()).await;
        }
        self.untrack(key, &plan.untrack).await?;
        let mut held = plan::held(&pods);
        for pod in plan.untrack.iter().chain(&plan.drop) {
            held.remove(pod.metadata.uid.as_deref().unwrap_or_default());
        }
        let mut status = plan.status.clone();
        plan::settle(&mut status, &held);
        let outcome = plan.outcome.as_ref().filter(|_| plan.wake != Some(std::time::Duration::ZERO));
        let ended = outcome.filter(|outcome| plan::finish(&mut status, outcome, Timestamp::now()));
        let status = plan::normal(status);
        if !plan::is_same(&status, &plan.status) {
            self.write(key, &job, &status).await?;
        }
        if let Some(outcome) = ended {
            match outcome.is_success {
                true => self.owners.events.normal(&about, "Completed", "Job completed".to_owned()).await,
                false => self.owners.events.warning(&about, &outcome.reason, outcome.message.clone()).await,
            }
        }
        made.map_err(|first| ReconcileError::Several { count: 1, first })?;
        Ok(plan.wake.map_or(Next::OnChange, Next::After))
    }
}

/// The pod to be made.
fn pod(job: &Job, new: &NewPod) -> Pod {
    let template = job.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
    let mut pod = pod_of(template, managing_owner(job));
    let finalizers = pod.metadata.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
        finalizers.push(FINALIZER.to_owned());
    }
    let Some(index) = new.index else { return pod };
    let name = job.name_any();
    let behind = format!("-{index}-");
    let room = name.floor_char_boundary(LONGEST_PREFIX.saturating_sub(behind.len()));
    pod.metadata.generate_name = Some(format!("{}{behind}", name.get(..room).unwrap_or_default()));
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(INDEX.to_owned(), index.to_string());
    if let Some((counted, ignored)) = new.failures {
        annotations.insert(FAILURES.to_owned(), counted.to_string());
        if ignored > 0 {
            annotations.insert(IGNORED_FAILURES.to_owned(), ignored.to_string());
        }
    }
    pod.metadata.labels.get_or_insert_default().insert(INDEX.to_owned(), index.to_string());
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(format!("{name}-{index}"));
    spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()).for_each(tell_index);
    pod
}

fn tell_index(container: &mut Container) {
    let variables = container.env.get_or_insert_default();
    if variables.iter().any(|variable| variable.name == INDEX_VARIABLE) {
        return;
    }
    let field =
        ObjectFieldSelector { field_path: format!("metadata.labels['{INDEX}']"), ..ObjectFieldSelector::default() };
    variables.push(EnvVar {
        name: INDEX_VARIABLE.to_owned(),
        value: None,
        value_from: Some(EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() }),
    });
}

impl Reconcile for Jobs {
    type Key = ObjectKey;

    const NAME: &'static str = "job";

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ReconcileError> {
        if !self.owners.pods.caught_up(self.owners.written.of(key)).await
            || !self.jobs.caught_up(self.written.of(key)).await
        {
            return Ok(Next::OnChange);
        }
        let Some(job) = self.jobs.get(key) else {
            self.untrack_left(key, None).await?;
            self.owners.written.forget(key);
            self.written.forget(key);
            self.backoffs().remove(key);
            return Ok(Next::OnChange);
        };
        let Some(spec) = job.spec.as_ref().filter(|spec| is_ours(spec)) else { return Ok(Next::OnChange) };
        if plan::finished(&job).is_some() {
            self.backoffs().remove(key);
            return self.after_end(key, &job).await;
        }
        self.sync(key, &job, spec).await
    }
}
