//! Namespaces that are being deleted: their content goes first, pods before the rest, then they are finalized.

mod conditions;
mod content;

use std::{sync::Arc, time::Duration};

use k8s_openapi::{api::core::v1::Namespace, jiff::Timestamp};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use tracing::info;

use self::conditions::Findings;
use crate::{
    informer::{Change, Reader},
    informers::Informers,
    object_key::ObjectKey,
    reconcile::{Control, Next, Reconcile, ReconcileError},
    work_queue::WorkQueue,
};

/// The finalizer in a namespace's spec that this controller answers for.
const FINALIZER: &str = "kubernetes";

/// How soon a namespace is looked at again after something in it has gone: much goes at once, one look is enough.
const AFTER_A_LOSS: Duration = Duration::from_millis(50);

/// When it is looked at again although nothing was seen to go: a kind may have been defined a moment ago and not be
/// watched yet.
const RECHECK: Duration = Duration::from_secs(15);

/// See the module.
pub(crate) struct Namespaces {
    client: Client,
    namespaces: Reader<Namespace>,
}

fn is_leaving(namespace: &Namespace) -> bool {
    namespace.metadata.deletion_timestamp.is_some()
}

impl Namespaces {
    pub(crate) fn over(informers: &mut Informers) -> Control<Self> {
        let queue: Arc<WorkQueue<ObjectKey>> = Arc::default();
        let changed = Arc::clone(&queue);
        informers.namespaces.on_change(move |change: &Change<'_, Namespace>| {
            if is_leaving(change.object()) && !matches!(change, Change::Deleted(_)) {
                changed.add(ObjectKey::of(change.object()));
            }
        });
        let namespaces = informers.namespaces.reader();
        Control::new(Self { client: informers.client.clone(), namespaces }, queue)
    }

    /// What the garbage collector tells of an object that is gone from a namespace.
    pub(crate) fn on_loss(control: &Control<Self>) -> impl Fn(&str) + Send + Sync + use<> {
        let (queue, namespaces) = (Arc::clone(&control.queue), control.controller.namespaces.clone());
        move |namespace| {
            let key = ObjectKey::new("", namespace);
            if namespaces.get(&key).is_some_and(|namespace| is_leaving(&namespace)) {
                queue.add_after(key, AFTER_A_LOSS);
            }
        }
    }

    /// Deletes what is in the namespace. Whatever remains or fails is in the findings.
    async fn empty(&self, name: &str) -> Findings {
        let mut found = Findings::default();
        let contents = content::discover(&self.client, &mut found).await;
        for pods in contents.iter().filter(|content| content.is_pods()) {
            content::delete(&self.client, name, pods, &mut found).await;
        }
        if !found.remaining.is_empty() || !found.undeleted.is_empty() {
            return found;
        }
        for other in contents.iter().filter(|content| !content.is_pods()) {
            content::delete(&self.client, name, other, &mut found).await;
        }
        found
    }

    async fn update_status(&self, namespace: &Namespace, found: &Findings) -> Result<(), ReconcileError> {
        let before = namespace.status.clone().unwrap_or_default();
        let conditions = conditions::updated(&before.conditions.unwrap_or_default(), found, Timestamp::now());
        let terminating = before.phase.as_deref() == Some("Terminating");
        let status = match conditions {
            Some(conditions) => json!({"phase": "Terminating", "conditions": conditions}),
            None if terminating => return Ok(()),
            None => json!({"phase": "Terminating"}),
        };
        let meta = &namespace.metadata;
        let patch = json!({"metadata": {"uid": meta.uid}, "status": status});
        let name = meta.name.as_deref().unwrap_or_default();
        match self.api().patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(answer)) if answer.code == 404 => Ok(()),
            Err(error) => Err(ReconcileError::api("updating the status of a namespace")(error)),
        }
    }

    fn api(&self) -> Api<Namespace> {
        Api::all(self.client.clone())
    }

    /// Takes our finalizer off; the API server lets the namespace go with its last one.
    async fn finalize(&self, seen: &Namespace) -> Result<(), ReconcileError> {
        let name = seen.metadata.name.as_deref().unwrap_or_default();
        let latest = self.api().get_opt(name).await.map_err(ReconcileError::api("looking at a namespace"))?;
        let Some(mut latest) = latest.filter(|latest| latest.metadata.uid == seen.metadata.uid && is_leaving(latest))
        else {
            return Ok(());
        };
        let finalizers = latest.spec.get_or_insert_default().finalizers.get_or_insert_default();
        finalizers.retain(|finalizer| finalizer != FINALIZER);
        match self.api().replace_subresource("finalize", name, &PostParams::default(), &latest).await {
            Ok(_) => info!(namespace = name, "the namespace is empty and finalized"),
            Err(kube::Error::Api(answer)) if answer.code == 404 => {}
            Err(error) => return Err(ReconcileError::api("finalizing a namespace")(error)),
        }
        Ok(())
    }
}

impl Reconcile for Namespaces {
    type Key = ObjectKey;

    const NAME: &'static str = "namespace";

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ReconcileError> {
        let Some(namespace) = self.namespaces.get(key).filter(|namespace| is_leaving(namespace)) else {
            return Ok(Next::OnChange);
        };
        let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.as_deref()).unwrap_or_default();
        if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
            return Ok(Next::OnChange);
        }
        let found = self.empty(&key.name).await;
        self.update_status(&namespace, &found).await?;
        if found.is_clean() {
            self.finalize(&namespace).await?;
            return Ok(Next::OnChange);
        }
        if let Some(first) = found.failures().next() {
            let (count, first) = (found.failures().count(), first.clone());
            return Err(ReconcileError::Several { count, first });
        }
        Ok(Next::After(RECHECK))
    }
}
