//! StatefulSets: pods with names and volumes of their own, made, replaced and taken away one after the other.

mod claims;
mod plan;

use std::sync::Arc;

use coracle_proto::selector::LabelSelector;
use k8s_openapi::{
    api::{
        apps::v1::{StatefulSet, StatefulSetSpec},
        core::v1::{ObjectReference, PersistentVolumeClaim, Pod, PodTemplateSpec},
    },
    jiff::Timestamp,
};
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams, PostParams},
};

use self::plan::{Picture, Step};
use crate::{
    events::{Events, reference},
    history::{self, HASH, History, Revisions},
    informer::{Change, Reader, version_of},
    informers::Informers,
    object_key::ObjectKey,
    pod_control::{PodControl, managing_owner, pod_of},
    pod_owners::{PodOwners, on_pod},
    reconcile::{Control, Next, Reconcile, ReconcileError, is_namespace_going},
    status_patch::status_patch,
    view::{ClaimView, PodView},
    work_queue::WorkQueue,
    written::Written,
};

/// The label with the pod's own name, for Services of one pod.
const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
/// The label with the pod's ordinal.
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

/// See the module.
pub(crate) struct StatefulSets {
    client: Client,
    sets: Reader<StatefulSet>,
    claims: Reader<ClaimView>,
    owners: PodOwners,
    history: History,
    /// The last version written of each set: what it says of the current revision is decided by.
    written: Written,
}

fn selector_of(set: &StatefulSet) -> Option<LabelSelector> {
    let spec = set.spec.as_ref()?;
    LabelSelector::from_api(Some(&spec.selector)).ok().filter(|selector| !selector.is_everything())
}

impl StatefulSets {
    pub(crate) fn over(informers: &mut Informers) -> Control<Self> {
        let queue: Arc<WorkQueue<ObjectKey>> = Arc::default();
        let (changed, sets) = (Arc::clone(&queue), informers.stateful_sets.reader());
        informers.pods.on_change(move |change| on_pod(&changed, &sets, selector_of, change));
        let changed = Arc::clone(&queue);
        informers
            .stateful_sets
            .on_change(move |change: &Change<'_, StatefulSet>| changed.add(ObjectKey::of(change.object())));
        let client = informers.client.clone();
        let events = Events::new(client.clone(), "statefulset-controller");
        let controller = Self {
            owners: PodOwners::new(PodControl::new(client.clone()), informers.pods.reader(), events),
            sets: informers.stateful_sets.reader(),
            claims: informers.claims.reader(),
            history: History::new(client.clone(), informers.revisions.reader()),
            client,
            written: Written::default(),
        };
        Control::new(controller, queue)
    }

    /// Makes the claims of a pod that are not there yet.
    async fn make_claims(
        &self,
        key: &ObjectKey,
        set: &StatefulSet,
        about: &ObjectReference,
        ordinal: i32,
    ) -> Result<(), ReconcileError> {
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &key.namespace);
        for claim in claims::of(set, ordinal) {
            let name = claim.name_any();
            if self.claims.get(&ObjectKey::new(&key.namespace, &name)).is_some() {
                continue;
            }
            let pod = format!("{}-{ordinal}", key.name);
            match api.create(&PostParams::default(), &claim).await {
                Ok(_) => {
                    let note = format!("create Claim {name} Pod {pod} in StatefulSet {} success", key.name);
                    self.owners.events.normal(about, "SuccessfulCreate", note).await;
                }
                Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {}
                Err(kube::Error::Api(status)) if is_namespace_going(&status) => {}
                Err(error) => {
                    let error = ReconcileError::api("creating a claim")(error);
                    let note = format!(
                        "create Claim {name} for Pod {pod} in StatefulSet {} failed error: {}",
                        key.name,
                        error.reason()
                    );
                    self.owners.events.warning(about, "FailedCreate", note).await;
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Has each claim go with what it is to go with: the set, its pod, or neither.
    async fn own_claims(
        &self,
        key: &ObjectKey,
        set: &StatefulSet,
        pods: &[Arc<PodView>],
    ) -> Result<(), ReconcileError> {
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &key.namespace);
        for pod in pods {
            let Some(ordinal) = plan::ordinal(set, pod) else { continue };
            for name in claims::names(set, ordinal) {
                let Some(claim) = self.claims.get(&ObjectKey::new(&key.namespace, &name)) else { continue };
                let Some(owners) = claims::owners(set, pod, ordinal, claim.owner_references()) else { continue };
                let meta = serde_json::json!({
                    "uid": claim.uid(), "resourceVersion": claim.metadata.resource_version, "ownerReferences": owners,
                });
                let patch = Patch::Merge(serde_json::json!({"metadata": meta}));
                match api.patch(&name, &PatchParams::default(), &patch).await {
                    Ok(_) => {}
                    Err(kube::Error::Api(status)) if status.code == 404 => {}
                    Err(error) => return Err(ReconcileError::api("changing the owners of a claim")(error)),
                }
            }
        }
        Ok(())
    }

    async fn step(
        &self,
        key: &ObjectKey,
        set: &StatefulSet,
        revisions: (&PodTemplateSpec, &str, &PodTemplateSpec, &str),
        pods: &[Arc<PodView>],
        step: &Step,
    ) -> Result<(), ReconcileError> {
        let about = reference(set);
        let (current, current_name, update, update_name) = revisions;
        let failed = |first| ReconcileError::Several { count: 1, first };
        match step {
            Step::Create { ordinal, is_new } => {
                self.make_claims(key, set, &about, *ordinal).await?;
                let (template, revision) = if *is_new { (update, update_name) } else { (current, current_name) };
                let pod = pod(set, template, revision, *ordinal);
                self.create(key, &about, pod).await
            }
            Step::Delete { name, is_over } => {
                let Some(pod) = pods.iter().find(|pod| pod.name_any() == *name) else { return Ok(()) };
                if *is_over {
                    let phase = pod.status.phase.to_lowercase();
                    let note = format!("StatefulSet {key} is recreating {phase} Pod {name}");
                    let reason = if phase == "failed" { "RecreatingFailedPod" } else { "RecreatingTerminatedPod" };
                    self.owners.events.warning(&about, reason, note).await;
                }
                match self.owners.control.delete(pod).await {
                    Ok(marked) => {
                        self.owners.written.note(key, marked.unwrap_or_default());
                        let note = format!("delete Pod {name} in StatefulSet {} successful", key.name);
                        self.owners.events.normal(&about, "SuccessfulDelete", note).await;
                        Ok(())
                    }
                    Err(error) => {
                        let note = format!("delete Pod {name} in StatefulSet {} failed error: {error}", key.name);
                        self.owners.events.warning(&about, "FailedDelete", note.clone()).await;
                        Err(failed(note))
                    }
                }
            }
        }
    }

    async fn create(&self, key: &ObjectKey, about: &ObjectReference, pod: Pod) -> Result<(), ReconcileError> {
        let name = pod.name_any();
        match self.owners.control.create(&key.namespace, pod).await {
            Ok(made) => {
                self.owners.written.note(key, version_of(&made));
                let note = format!("create Pod {name} in StatefulSet {} successful", key.name);
                self.owners.events.normal(about, "SuccessfulCreate", note).await;
                Ok(())
            }
            Err(kube::Error::Api(status)) if is_namespace_going(&status) => Ok(()),
            Err(error) => {
                let error = ReconcileError::api("creating a pod")(error);
                let note = format!("create Pod {name} in StatefulSet {} failed error: {}", key.name, error.reason());
                self.owners.events.warning(about, "FailedCreate", note).await;
                Err(error)
            }
        }
    }

    /// The template of the revision that most pods have, and its name.
    fn current(&self, set: &StatefulSet, spec: &StatefulSetSpec, revisions: &Revisions) -> (PodTemplateSpec, String) {
        let name = set.status.as_ref().and_then(|status| status.current_revision.clone()).unwrap_or_default();
        let found = revisions.all.iter().find(|revision| revision.name_any() == name);
        let template = found.and_then(|revision| history::template_of(revision));
        match template {
            Some(template) => (template, name),
            None => (spec.template.clone(), revisions.update.name_any()),
        }
    }

    async fn sync(
        &self,
        key: &ObjectKey,
        set: &StatefulSet,
        spec: &StatefulSetSpec,
        selector: &LabelSelector,
    ) -> Result<Next, ReconcileError> {
        let pods = self.owners.claim(set, selector, |pod| plan::ordinal(set, pod).is_some()).await?;
        let collisions = set.status.as_ref().and_then(|status| status.collision_count).unwrap_or_default();
        let revisions = self.history.sync(key, set, &spec.template, collisions).await?;
        let update = revisions.update.name_any();
        let (template, current) = self.current(set, spec, &revisions);
        let plan = Picture {
            set,
            spec,
            pods: &pods,
            current: &current,
            update: &update,
            collisions: revisions.collisions,
            now: Timestamp::now(),
        }
        .plan();
        self.own_claims(key, set, &pods).await?;
        let mut failure = None;
        for step in &plan.steps {
            let templates = (&template, current.as_str(), &spec.template, update.as_str());
            if let Err(error) = self.step(key, set, templates, &pods, step).await {
                failure.get_or_insert(error);
            }
        }
        // What failed has not become so: the counts are worked out anew then.
        if failure.is_none() && set.status.as_ref() != Some(&plan.status) {
            let api: Api<StatefulSet> = Api::namespaced(self.client.clone(), &key.namespace);
            let fields = ["conditions", "readyReplicas", "currentReplicas", "updatedReplicas"];
            let patch = status_patch(set.metadata.uid.as_deref(), &plan.status, &fields);
            match api.patch_status(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await {
                Ok(patched) => self.written.note(key, version_of(&patched)),
                Err(kube::Error::Api(answer)) if answer.code == 404 => {}
                Err(error) => return Err(ReconcileError::api("updating the status of a StatefulSet")(error)),
            }
        }
        if let Some(error) = failure {
            return Err(error);
        }
        let in_use = |name: &str| pods.iter().any(|pod| pod.labels().get(HASH).is_some_and(|label| label == name));
        let uses = |name: &str| name == current || in_use(name);
        self.history.clean_up(key, &revisions, spec.revision_history_limit, |r| uses(&r.name_any())).await?;
        Ok(plan.wake.map_or(Next::OnChange, Next::After))
    }
}

/// The pod of an ordinal.
fn pod(set: &StatefulSet, template: &PodTemplateSpec, revision: &str, ordinal: i32) -> Pod {
    let name = format!("{}-{ordinal}", set.name_any());
    let mut pod = pod_of(template.clone(), managing_owner(set));
    pod.metadata.generate_name = None;
    pod.metadata.name = Some(name.clone());
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(POD_NAME.to_owned(), name.clone());
    labels.insert(POD_INDEX.to_owned(), ordinal.to_string());
    labels.insert(HASH.to_owned(), revision.to_owned());
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(name);
    spec.subdomain = set.spec.as_ref().and_then(|spec| spec.service_name.clone()).filter(|name| !name.is_empty());
    claims::mount(set, ordinal, spec);
    pod
}

impl Reconcile for StatefulSets {
    type Key = ObjectKey;

    const NAME: &'static str = "statefulset";

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ReconcileError> {
        if !self.owners.pods.caught_up(self.owners.written.of(key)).await
            || !self.sets.caught_up(self.written.of(key)).await
            || !self.history.caught_up(key).await
        {
            return Ok(Next::OnChange);
        }
        let Some(set) = self.sets.get(key) else {
            self.owners.written.forget(key);
            self.written.forget(key);
            self.history.forget(key);
            return Ok(Next::OnChange);
        };
        let (Some(spec), Some(selector)) = (set.spec.as_ref(), selector_of(&set)) else { return Ok(Next::OnChange) };
        self.sync(key, &set, spec, &selector).await
    }
}
