//! ReplicaSets, and ReplicationControllers before them: as many pods as asked for, no more, no fewer.

mod plan;
mod replicated;

use std::{sync::Arc, time::Duration};

use k8s_openapi::{
    api::apps::v1::{ReplicaSetCondition, ReplicaSetStatus},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
};

pub(crate) use self::{plan::doom, replicated::Replicated};
use crate::{
    events::{Events, reference},
    informer::{Change, Reader},
    informers::Informers,
    object_key::ObjectKey,
    pod_control::{PodControl, managing_owner, pod_of},
    pod_owners::{BURST, PodOwners, on_pod},
    reconcile::{Control, Next, Reconcile, ReconcileError},
    status_patch::status_patch,
    work_queue::WorkQueue,
};

/// See the module.
pub(crate) struct Replicas<K> {
    client: Client,
    sets: Reader<K>,
    owners: PodOwners,
}

impl<K: Replicated> Replicas<K> {
    pub(crate) fn over(informers: &mut Informers) -> Control<Self> {
        let queue: Arc<WorkQueue<ObjectKey>> = Arc::default();
        let (changed, sets) = (Arc::clone(&queue), K::informer(informers).reader());
        informers.pods.on_change(move |change| on_pod(&changed, &sets, K::selector, change));
        let changed = Arc::clone(&queue);
        K::informer(informers).on_change(move |change: &Change<'_, K>| changed.add(ObjectKey::of(change.object())));
        let client = informers.client.clone();
        let events = Events::new(client.clone(), K::TOLD_BY);
        let controller = Self {
            owners: PodOwners::new(PodControl::new(client.clone()), informers.pods.reader(), events),
            client,
            sets: K::informer(informers).reader(),
        };
        Control::new(controller, queue)
    }

    async fn update_status(&self, set: &K, status: &ReplicaSetStatus) -> Result<(), ReconcileError> {
        if set.status() == *status {
            return Ok(());
        }
        let api = Api::<K>::namespaced(self.client.clone(), &set.namespace().unwrap_or_default());
        let fields = ["conditions", "readyReplicas", "availableReplicas", "fullyLabeledReplicas"];
        let patch = status_patch(set.meta().uid.as_deref(), status, &fields);
        match api.patch_status(&set.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(answer)) if answer.code == 404 => Ok(()),
            Err(error) => Err(ReconcileError::api("updating the status of a set of pods")(error)),
        }
    }
}

impl<K: Replicated> Reconcile for Replicas<K> {
    type Key = ObjectKey;

    const NAME: &'static str = K::CONTROLLER;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ReconcileError> {
        if !self.owners.pods.caught_up(self.owners.written.of(key)).await {
            return Ok(Next::OnChange);
        }
        let Some(set) = self.sets.get(key) else {
            self.owners.written.forget(key);
            return Ok(Next::OnChange);
        };
        let Some(selector) = set.selector() else { return Ok(Next::OnChange) };
        let pods = self.owners.claim(set.as_ref(), &selector, |_| true).await?;
        let mut failure = None;
        if set.meta().deletion_timestamp.is_none() {
            let steps = plan::steps(set.wanted(), &pods);
            let about = reference(set.as_ref());
            let result = match steps {
                plan::Steps::Nothing => Ok(()),
                plan::Steps::Create(count) => {
                    let (template, owner) = (set.template(), managing_owner(set.as_ref()));
                    let pods = (0..count.min(BURST)).map(|_| pod_of(template.clone(), owner.clone())).collect();
                    self.owners.create(key, &about, pods).await.1
                }
                plan::Steps::Delete(doomed) => self.owners.delete(key, &about, &doomed).await,
            };
            if let Err(message) = result {
                let creating = pods.iter().filter(|p| p.is_active()).count() < set.wanted();
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
        let (mut status, soon) = plan::status(set.as_ref(), &pods, failure.clone(), Timestamp::now());
        if !K::COUNTS_TERMINATING {
            status.terminating_replicas = None;
        }
        self.update_status(&set, &status).await?;
        match failure {
            Some(condition) => Err(ReconcileError::Several { count: 1, first: condition.message.unwrap_or_default() }),
            None => Ok(soon.map_or(Next::OnChange, |wait: Duration| Next::After(wait))),
        }
    }
}
