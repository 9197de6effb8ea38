//! ReplicaSets: as many pods as asked for, no more, no fewer.

mod plan;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use coracle_proto::selector::LabelSelector;
use futures::future::join_all;
use k8s_openapi::{
    api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
};

use crate::{
    events::{Events, reference},
    informer::{Change, Reader, version_of},
    informers::Informers,
    object_key::ObjectKey,
    pod_control::{PodControl, managing_owner},
    pod_index::{managed_by, orphans_of},
    reconcile::{Control, Next, Reconcile, ReconcileError, is_namespace_going},
    status_patch::status_patch,
    view::{PodView, controller_of},
    work_queue::WorkQueue,
};

/// At most so many pods are made or deleted in one go; the next reconcile goes on.
const BURST: usize = 500;

/// See the module.
pub(crate) struct ReplicaSets {
    client: Client,
    replica_sets: Reader<ReplicaSet>,
    pods: Reader<PodView>,
    control: PodControl,
    events: Events,
    /// The resourceVersion of the last pod written for each ReplicaSet: pods older than that are not acted on.
    written: Mutex<HashMap<ObjectKey, u64>>,
}

/// Which ReplicaSets a change of a pod is news for.
fn on_pod(queue: &WorkQueue<ObjectKey>, replica_sets: &Reader<ReplicaSet>, change: &Change<'_, PodView>) {
    let (pod, old) = match change {
        Change::Updated { old, new } => (*new, Some(*old)),
        Change::Added(pod) | Change::Deleted(pod) => (*pod, None),
    };
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let owners = [Some(pod), old].into_iter().flatten().filter_map(|p| controller_of(&p.metadata));
    for owner in owners.filter(|o| o.kind == "ReplicaSet") {
        queue.add(ObjectKey::new(&namespace, &owner.name));
    }
    if controller_of(&pod.metadata).is_none() && !matches!(change, Change::Deleted(_)) {
        let labels = pod.labels();
        let selects = |set: &ReplicaSet| {
            set.namespace().as_deref() == Some(&namespace) && selector_of(set).is_some_and(|s| s.matches_labels(labels))
        };
        replica_sets.list(selects).iter().for_each(|set| queue.add(ObjectKey::of(set.as_ref())));
    }
}

fn selector_of(set: &ReplicaSet) -> Option<LabelSelector> {
    let spec = set.spec.as_ref()?;
    LabelSelector::from_api(Some(&spec.selector)).ok().filter(|s| !s.is_everything())
}

impl ReplicaSets {
    pub(crate) fn over(informers: &mut Informers) -> Control<Self> {
        let queue: Arc<WorkQueue<ObjectKey>> = Arc::default();
        let (changed, sets) = (Arc::clone(&queue), informers.replica_sets.reader());
        informers.pods.on_change(move |change| on_pod(&changed, &sets, change));
        let changed = Arc::clone(&queue);
        informers
            .replica_sets
            .on_change(move |change: &Change<'_, ReplicaSet>| changed.add(ObjectKey::of(change.object())));
        let (client, replica_sets, pods) =
            (informers.client.clone(), informers.replica_sets.reader(), informers.pods.reader());
        let controller = Self {
            control: PodControl::new(client.clone()),
            events: Events::new(client.clone(), "replicaset-controller"),
            client,
            replica_sets,
            pods,
            written: Mutex::default(),
        };
        Control::new(controller, queue)
    }

    fn written(&self, key: &ObjectKey) -> u64 {
        self.written.lock().unwrap_or_else(PoisonError::into_inner).get(key).copied().unwrap_or_default()
    }

    fn note_written(&self, key: &ObjectKey, version: u64) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let last = written.entry(key.clone()).or_default();
        *last = (*last).max(version);
    }

    /// The pods that are this set's: its own, less those it no longer selects, plus orphans it selects.
    async fn claim(&self, set: &ReplicaSet, selector: &LabelSelector) -> Result<Vec<Arc<PodView>>, ReconcileError> {
        let uid = set.uid().unwrap_or_default();
        let leaving = set.metadata.deletion_timestamp.is_some();
        let mut mine = Vec::new();
        for pod in self.pods.indexed(&managed_by(&uid)) {
            if selector.matches_labels(pod.labels()) {
                mine.push(pod);
            } else if !leaving && pod.metadata.deletion_timestamp.is_none() {
                self.control.release(&pod, &uid).await.map_err(ReconcileError::api("releasing a pod"))?;
            }
        }
        if !leaving {
            for pod in self.pods.indexed(&orphans_of(&set.namespace().unwrap_or_default())) {
                if pod.is_active() && selector.matches_labels(pod.labels()) {
                    let owner = managing_owner(set);
                    self.control.adopt(&pod, &owner).await.map_err(ReconcileError::api("adopting a pod"))?;
                    mine.push(pod);
                }
            }
        }
        Ok(mine)
    }

    /// Makes pods, in batches that double as long as they succeed: if creating fails, it mostly fails for all.
    async fn create(&self, key: &ObjectKey, set: &ReplicaSet, count: usize) -> Result<(), String> {
        let (Some(spec), about) = (set.spec.as_ref(), reference(set)) else { return Ok(()) };
        let template = spec.template.clone().unwrap_or_default();
        let mut left = count.min(BURST);
        let mut batch = 1;
        while left > 0 {
            let size = batch.min(left);
            let creations = (0..size).map(|_| self.control.create(&key.namespace, &template, managing_owner(set)));
            let mut failure = None;
            for result in join_all(creations).await {
                match result {
                    Ok(pod) => {
                        self.note_written(key, version_of(&pod));
                        let note = format!("Created pod: {}", pod.name_any());
                        self.events.normal(&about, "SuccessfulCreate", note).await;
                    }
                    Err(error) => failure = Some(error),
                }
            }
            if let Some(error) = failure {
                if matches!(&error, kube::Error::Api(status) if is_namespace_going(status)) {
                    return Ok(());
                }
                let why = match &error {
                    kube::Error::Api(status) => status.message.clone(),
                    other => other.to_string(),
                };
                self.events.warning(&about, "FailedCreate", format!("Error creating: {why}")).await;
                return Err(why);
            }
            left -= size;
            batch *= 2;
        }
        Ok(())
    }

    async fn delete(&self, key: &ObjectKey, set: &ReplicaSet, doomed: Vec<Arc<PodView>>) -> Result<(), String> {
        let about = reference(set);
        let deletions = doomed.iter().take(BURST).map(|pod| async {
            let result = self.control.delete(pod).await;
            (pod.name_any(), result)
        });
        let mut failure = None;
        for (name, result) in join_all(deletions).await {
            match result {
                Ok(marked) => {
                    self.note_written(key, marked.unwrap_or_default());
                    self.events.normal(&about, "SuccessfulDelete", format!("Deleted pod: {name}")).await;
                }
                Err(error) => {
                    self.events.warning(&about, "FailedDelete", format!("Error deleting: {error}")).await;
                    failure = Some(error.to_string());
                }
            }
        }
        failure.map_or(Ok(()), Err)
    }

    async fn update_status(&self, set: &ReplicaSet, status: &ReplicaSetStatus) -> Result<(), ReconcileError> {
        if set.status.as_ref() == Some(status) {
            return Ok(());
        }
        let api = Api::<ReplicaSet>::namespaced(self.client.clone(), &set.namespace().unwrap_or_default());
        let fields = ["conditions", "readyReplicas", "availableReplicas", "fullyLabeledReplicas"];
        let patch = status_patch(set.metadata.uid.as_deref(), status, &fields);
        match api.patch_status(&set.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(answer)) if answer.code == 404 => Ok(()),
            Err(error) => Err(ReconcileError::api("updating the status of a ReplicaSet")(error)),
        }
    }
}

impl Reconcile for ReplicaSets {
    type Key = ObjectKey;

    const NAME: &'static str = "replicaset";

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ReconcileError> {
        if !self.pods.caught_up(self.written(key)).await {
            return Ok(Next::OnChange);
        }
        let Some(set) = self.replica_sets.get(key) else {
            self.written.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
            return Ok(Next::OnChange);
        };
        let Some(selector) = selector_of(&set) else { return Ok(Next::OnChange) };
        let pods = self.claim(&set, &selector).await?;
        let mut failure = None;
        if set.metadata.deletion_timestamp.is_none() {
            let steps = plan::steps(&set, &pods);
            let result = match steps {
                plan::Steps::Nothing => Ok(()),
                plan::Steps::Create(count) => self.create(key, &set, count).await,
                plan::Steps::Delete(doomed) => self.delete(key, &set, doomed).await,
            };
            if let Err(message) = result {
                let creating = pods.iter().filter(|p| p.is_active()).count() < plan::wanted(&set);
                let reason = if creating { "FailedCreate" } else { "FailedDelete" };
                failure = Some(ReplicaSetCondition {
                    type_: "ReplicaFailure".to_owned(),
                    status: "True".to_owned(),
                    reason: Some(reason.to_owned()),
                    message: Some(message),
                    last_transition_time: Some(Time(Timestamp::now())),
                });
            }
        }
        let (status, soon) = plan::status(&set, &pods, failure.clone(), Timestamp::now());
        self.update_status(&set, &status).await?;
        match failure {
            Some(condition) => Err(ReconcileError::Several { count: 1, first: condition.message.unwrap_or_default() }),
            None => Ok(soon.map_or(Next::OnChange, |wait: Duration| Next::After(wait))),
        }
    }
}
