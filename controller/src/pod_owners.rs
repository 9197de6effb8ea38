//! What controllers that own pods share: which owner a change of a pod is news for, which pods are whose, and making and
//! deleting many of them.

use std::sync::Arc;

use coracle_proto::selector::LabelSelector;
use futures::future::join_all;
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kube::{Resource, ResourceExt};

use crate::{
    events::Events,
    informer::{Change, Reader, version_of},
    object_key::ObjectKey,
    pod_control::{PodControl, managing_owner},
    pod_index::{managed_by, orphans_of},
    reconcile::{ReconcileError, is_namespace_going},
    view::{PodView, controller_of},
    work_queue::WorkQueue,
    written::Written,
};

/// At most so many pods are made or deleted in one go; the next reconcile goes on.
pub(crate) const BURST: usize = 500;

/// Queues the owners of kind `K` that a change of a pod is news for: those that it names, before or after, and, while it
/// has none, those whose selector selects it.
pub(crate) fn on_pod<K: Resource<DynamicType = ()>>(
    queue: &WorkQueue<ObjectKey>,
    owners: &Reader<K>,
    selector_of: fn(&K) -> Option<LabelSelector>,
    change: &Change<'_, PodView>,
) {
    let (pod, old) = match change {
        Change::Updated { old, new } => (*new, Some(*old)),
        Change::Added(pod) | Change::Deleted(pod) => (*pod, None),
    };
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let named = [Some(pod), old].into_iter().flatten().filter_map(|p| controller_of(&p.metadata));
    for owner in named.filter(|o| o.kind == K::kind(&()) && o.api_version == K::api_version(&())) {
        queue.add(ObjectKey::new(&namespace, &owner.name));
    }
    if controller_of(&pod.metadata).is_none() && !matches!(change, Change::Deleted(_)) {
        let labels = pod.labels();
        let selects = |owner: &K| {
            owner.meta().namespace.as_deref() == Some(&namespace)
                && selector_of(owner).is_some_and(|selector| selector.matches_labels(labels))
        };
        owners.list(selects).iter().for_each(|owner| queue.add(ObjectKey::of(owner.as_ref())));
    }
}

/// Makes, deletes and claims pods for the owners of one kind.
#[derive(Clone)]
pub(crate) struct PodOwners {
    pub(crate) control: PodControl,
    pub(crate) pods: Reader<PodView>,
    pub(crate) events: Events,
    /// The last pod written for each owner: pods older than that are not acted on.
    pub(crate) written: Arc<Written>,
}

impl PodOwners {
    pub(crate) fn new(control: PodControl, pods: Reader<PodView>, events: Events) -> Self {
        Self { control, pods, events, written: Arc::default() }
    }

    /// The pods that are this owner's: its own, less those it no longer selects, plus orphans it selects that
    /// `is_wanted`.
    pub(crate) async fn claim<K: Resource<DynamicType = ()>>(
        &self,
        owner: &K,
        selector: &LabelSelector,
        is_wanted: impl Fn(&PodView) -> bool,
    ) -> Result<Vec<Arc<PodView>>, ReconcileError> {
        let meta = owner.meta();
        let uid = meta.uid.clone().unwrap_or_default();
        let leaving = meta.deletion_timestamp.is_some();
        let mut mine = Vec::new();
        for pod in self.pods.indexed(&managed_by(&uid)) {
            if selector.matches_labels(pod.labels()) {
                mine.push(pod);
            } else if !leaving && pod.metadata.deletion_timestamp.is_none() {
                self.control.release(&pod, &uid).await.map_err(ReconcileError::api("releasing a pod"))?;
            }
        }
        if !leaving {
            for pod in self.pods.indexed(&orphans_of(meta.namespace.as_deref().unwrap_or_default())) {
                if pod.is_active() && selector.matches_labels(pod.labels()) && is_wanted(&pod) {
                    let owner = managing_owner(owner);
                    self.control.adopt(&pod, &owner).await.map_err(ReconcileError::api("adopting a pod"))?;
                    mine.push(pod);
                }
            }
        }
        Ok(mine)
    }

    /// Makes pods, in batches that double as long as they succeed: if creating fails, it mostly fails for all. Says how
    /// many were made, and why the others were not; in a namespace that is going nothing is missed.
    pub(crate) async fn create(
        &self,
        key: &ObjectKey,
        about: &ObjectReference,
        pods: Vec<Pod>,
    ) -> (usize, Result<(), String>) {
        let mut left = pods.into_iter().take(BURST);
        let (mut made, mut batch) = (0, 1);
        loop {
            let creations: Vec<_> =
                left.by_ref().take(batch).map(|pod| self.control.create(&key.namespace, pod)).collect();
            if creations.is_empty() {
                return (made, Ok(()));
            }
            let mut failure = None;
            for result in join_all(creations).await {
                match result {
                    Ok(pod) => {
                        made += 1;
                        self.written.note(key, version_of(&pod));
                        let note = format!("Created pod: {}", pod.name_any());
                        self.events.normal(about, "SuccessfulCreate", note).await;
                    }
                    Err(error) => failure = Some(error),
                }
            }
            if let Some(error) = failure {
                if matches!(&error, kube::Error::Api(status) if is_namespace_going(status)) {
                    return (made, Ok(()));
                }
                let why = ReconcileError::api("creating a pod")(error).reason();
                self.events.warning(about, "FailedCreate", format!("Error creating: {why}")).await;
                return (made, Err(why));
            }
            batch *= 2;
        }
    }

    /// Deletes pods. Says why those are still there that could not be deleted.
    pub(crate) async fn delete(
        &self,
        key: &ObjectKey,
        about: &ObjectReference,
        doomed: &[Arc<PodView>],
    ) -> Result<(), String> {
        let deletions = doomed.iter().take(BURST).map(|pod| async {
            let result = self.control.delete(pod).await;
            (pod.name_any(), result)
        });
        let mut failure = None;
        for (name, result) in join_all(deletions).await {
            match result {
                Ok(marked) => {
                    self.written.note(key, marked.unwrap_or_default());
                    self.events.normal(about, "SuccessfulDelete", format!("Deleted pod: {name}")).await;
                }
                Err(error) => {
                    self.events.warning(about, "FailedDelete", format!("Error deleting: {error}")).await;
                    failure = Some(error.to_string());
                }
            }
        }
        failure.map_or(Ok(()), Err)
    }
}
