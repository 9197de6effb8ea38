//! Deployments: a ReplicaSet for each pod template there ever was, and rollouts from one to the next.

mod rollout;
mod status;
pub(crate) mod template;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use coracle_proto::selector::LabelSelector;
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentStatus, ReplicaSet, ReplicaSetSpec},
        core::v1::PodTemplateSpec,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
    jiff::Timestamp,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde_json::json;

pub(crate) use self::rollout::scaled;
use self::{
    rollout::{Resize, Rollout, asked, limits, recreates, replicas},
    status::{NEW_AVAILABLE, condition, find},
};
use crate::{
    events::{Events, reference},
    informer::{Change, Reader, version_of},
    informers::Informers,
    object_key::ObjectKey,
    pod_control::managing_owner,
    pod_index::managed_by,
    reconcile::{Control, Next, Reconcile, ReconcileError, is_namespace_going},
    status_patch::status_patch,
    view::{PodView, controller_of},
    work_queue::WorkQueue,
};

const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// The Deployment's replicas when its ReplicaSets were last sized.
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
/// The most pods there might be then, surge included.
const MOST: &str = "deployment.kubernetes.io/max-replicas";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Annotations of a Deployment that its ReplicaSets do not take over.
const OWN_ANNOTATIONS: [&str; 6] =
    [LAST_APPLIED, REVISION, REVISION_HISTORY, DESIRED, MOST, "deprecated.deployment.rollback.to"];

fn annotation<'a>(meta: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    meta.annotations.as_ref().and_then(|a| a.get(name)).map(String::as_str)
}

fn revision_of(set: &ReplicaSet) -> i64 {
    annotation(&set.metadata, REVISION).and_then(|r| r.parse().ok()).unwrap_or_default()
}

/// See the module.
pub(crate) struct Deployments {
    client: Client,
    deployments: Reader<Deployment>,
    replica_sets: Reader<ReplicaSet>,
    pods: Reader<PodView>,
    events: Events,
    /// The resourceVersion of the last ReplicaSet and Deployment written for each Deployment.
    written: Mutex<HashMap<ObjectKey, (u64, u64)>>,
}

/// The values ReplicaSets are indexed by: their managing owner's uid, or that they have none.
pub(crate) fn index_replica_sets(set: &ReplicaSet) -> Vec<String> {
    match controller_of(&set.metadata) {
        Some(owner) => vec![owner.uid.clone()],
        None => vec![format!("orphans of {}", set.namespace().unwrap_or_default())],
    }
}

/// Which Deployments a change of a ReplicaSet is news for.
fn on_replica_set(queue: &WorkQueue<ObjectKey>, deployments: &Reader<Deployment>, change: &Change<'_, ReplicaSet>) {
    let set = change.object();
    let namespace = set.namespace().unwrap_or_default();
    match controller_of(&set.metadata) {
        Some(owner) if owner.kind == "Deployment" => queue.add(ObjectKey::new(namespace, &owner.name)),
        Some(_) => {}
        None => {
            let selects = |d: &Deployment| {
                d.namespace().as_deref() == Some(&namespace)
                    && selector_of(d).is_some_and(|s| s.matches_labels(set.labels()))
            };
            deployments.list(selects).iter().for_each(|d| queue.add(ObjectKey::of(d.as_ref())));
        }
    }
}

/// A Deployment that recreates waits for the last of its old pods.
fn on_pod_end(queue: &WorkQueue<ObjectKey>, replica_sets: &Reader<ReplicaSet>, change: &Change<'_, PodView>) {
    let pod = change.object();
    if !matches!(change, Change::Deleted(_)) && !pod.is_over() {
        return;
    }
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let Some(owner) = controller_of(&pod.metadata).filter(|owner| owner.kind == "ReplicaSet") else { return };
    let Some(set) = replica_sets.get(&ObjectKey::new(&namespace, &owner.name)) else { return };
    if let Some(owner) = controller_of(&set.metadata).filter(|owner| owner.kind == "Deployment") {
        queue.add(ObjectKey::new(namespace, &owner.name));
    }
}

fn selector_of(deployment: &Deployment) -> Option<LabelSelector> {
    let selector = deployment.spec.as_ref().map(|spec| &spec.selector);
    LabelSelector::from_api(selector).ok().filter(|s| !s.is_everything())
}

impl Deployments {
    pub(crate) fn over(informers: &mut Informers) -> Control<Self> {
        let queue: Arc<WorkQueue<ObjectKey>> = Arc::default();
        let (changed, all) = (Arc::clone(&queue), informers.deployments.reader());
        informers.replica_sets.on_change(move |change| on_replica_set(&changed, &all, change));
        let changed = Arc::clone(&queue);
        informers
            .deployments
            .on_change(move |change: &Change<'_, Deployment>| changed.add(ObjectKey::of(change.object())));
        let (changed, sets) = (Arc::clone(&queue), informers.replica_sets.reader());
        informers.pods.on_change(move |change| on_pod_end(&changed, &sets, change));
        let controller = Self {
            events: Events::new(informers.client.clone(), "deployment-controller"),
            client: informers.client.clone(),
            deployments: informers.deployments.reader(),
            replica_sets: informers.replica_sets.reader(),
            pods: informers.pods.reader(),
            written: Mutex::default(),
        };
        Control::new(controller, queue)
    }

    fn sets_api(&self, namespace: &str) -> Api<ReplicaSet> {
        Api::namespaced(self.client.clone(), namespace)
    }

    fn api(&self, namespace: &str) -> Api<Deployment> {
        Api::namespaced(self.client.clone(), namespace)
    }

    fn note_written(&self, key: &ObjectKey, set: u64, deployment: u64) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let last = written.entry(key.clone()).or_default();
        *last = (last.0.max(set), last.1.max(deployment));
    }

    /// The ReplicaSets of a Deployment, oldest first: its own, less those it no longer selects, plus orphans it selects.
    async fn claim(&self, key: &ObjectKey, deployment: &Deployment) -> Result<Vec<Arc<ReplicaSet>>, ReconcileError> {
        let Some(selector) = selector_of(deployment) else { return Ok(Vec::new()) };
        let uid = deployment.uid().unwrap_or_default();
        let mut sets = Vec::new();
        let leaving = deployment.metadata.deletion_timestamp.is_some();
        for set in self.replica_sets.indexed(&uid) {
            if selector.matches_labels(set.labels()) {
                sets.push(set);
            } else if !leaving {
                let release =
                    json!({"metadata": {"uid": set.uid(), "ownerReferences": [{"$patch": "delete", "uid": uid}]}});
                self.patch_set(key, &set.name_any(), release).await?;
            }
        }
        if !leaving {
            for set in self.replica_sets.indexed(&format!("orphans of {}", key.namespace)) {
                if selector.matches_labels(set.labels()) && set.metadata.deletion_timestamp.is_none() {
                    let adopt =
                        json!({"metadata": {"uid": set.uid(), "ownerReferences": [managing_owner(deployment)]}});
                    self.patch_set(key, &set.name_any(), adopt).await?;
                    sets.push(set);
                }
            }
        }
        sets.sort_by_key(|set| (set.metadata.creation_timestamp.clone(), set.name_any()));
        Ok(sets)
    }

    async fn patch_set(&self, key: &ObjectKey, name: &str, patch: serde_json::Value) -> Result<(), ReconcileError> {
        let api = self.sets_api(&key.namespace);
        match api.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await {
            Ok(set) => {
                self.note_written(key, version_of(&set), 0);
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(ReconcileError::api("changing a ReplicaSet")(error)),
        }
    }

    /// Sizes a ReplicaSet, and notes on it what the Deployment asked for at that time.
    async fn resize(
        &self,
        key: &ObjectKey,
        deployment: &Deployment,
        sets: &[Arc<ReplicaSet>],
        resize: &Resize,
    ) -> Result<(), ReconcileError> {
        let before = sets.iter().find(|set| set.name_any() == resize.name).map(|set| asked(set)).unwrap_or_default();
        let annotations = sizes(deployment);
        let patch = json!({"metadata": {"annotations": annotations}, "spec": {"replicas": resize.to}});
        self.patch_set(key, &resize.name, patch).await?;
        if before != resize.to {
            let direction = if resize.to > before { "up" } else { "down" };
            let note = format!("Scaled {direction} replica set {} from {before} to {}", resize.name, resize.to);
            self.events.normal(&reference(deployment), "ScalingReplicaSet", note).await;
        }
        Ok(())
    }

    async fn resize_all(
        &self,
        key: &ObjectKey,
        deployment: &Deployment,
        sets: &[Arc<ReplicaSet>],
        resizes: &[Resize],
    ) -> Result<(), ReconcileError> {
        for resize in resizes {
            self.resize(key, deployment, sets, resize).await?;
        }
        Ok(())
    }

    /// Gives the new ReplicaSet the latest revision and the Deployment's annotations, and the Deployment its number.
    async fn sync_revision(
        &self,
        key: &ObjectKey,
        deployment: &Deployment,
        new: &ReplicaSet,
        old: &[&ReplicaSet],
    ) -> Result<(), ReconcileError> {
        let latest_old = old.iter().map(|set| revision_of(set)).max().unwrap_or_default();
        let current = revision_of(new);
        let revision = if current > latest_old { current } else { latest_old + 1 };
        let mut wanted = taken_over(deployment);
        wanted.insert(REVISION.to_owned(), revision.to_string());
        wanted.extend(sizes(deployment));
        if revision != current && current > 0 {
            let history = annotation(&new.metadata, REVISION_HISTORY);
            let history = history.map_or(current.to_string(), |h| format!("{h},{current}"));
            wanted.insert(REVISION_HISTORY.to_owned(), history);
        }
        if wanted.iter().any(|(name, value)| annotation(&new.metadata, name) != Some(value)) {
            self.patch_set(key, &new.name_any(), json!({"metadata": {"annotations": wanted}})).await?;
        }
        self.note_revision(key, deployment, revision).await
    }

    async fn note_revision(
        &self,
        key: &ObjectKey,
        deployment: &Deployment,
        revision: i64,
    ) -> Result<(), ReconcileError> {
        if annotation(&deployment.metadata, REVISION) == Some(&revision.to_string()) {
            return Ok(());
        }
        let patch = json!({"metadata": {"uid": deployment.uid(), "annotations": {REVISION: revision.to_string()}}});
        let patched = self.api(&key.namespace).patch(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await;
        let patched = patched.map_err(ReconcileError::api("noting the revision of a Deployment"))?;
        self.note_written(key, 0, version_of(&patched));
        Ok(())
    }

    /// Makes the ReplicaSet of the current template. `None` when its name was taken: the collision is counted, and the
    /// next reconcile uses another name.
    async fn create_new(
        &self,
        key: &ObjectKey,
        deployment: &Deployment,
        old: &[&ReplicaSet],
        size: i32,
    ) -> Result<Option<ReplicaSet>, ReconcileError> {
        let Some(spec) = deployment.spec.as_ref() else { return Ok(None) };
        let collisions = deployment.status.as_ref().and_then(|s| s.collision_count).unwrap_or_default();
        let hash = template::hash(&spec.template, collisions);
        let with_hash = |labels: Option<BTreeMap<String, String>>| {
            let mut labels = labels.unwrap_or_default();
            labels.insert(template::HASH_LABEL.to_owned(), hash.clone());
            Some(labels)
        };
        let template_meta = spec.template.metadata.clone().unwrap_or_default();
        let labels = with_hash(template_meta.labels.clone());
        let template = PodTemplateSpec {
            metadata: Some(ObjectMeta { labels: labels.clone(), ..template_meta }),
            spec: spec.template.spec.clone(),
        };
        let mut selector = spec.selector.clone();
        selector.match_labels = with_hash(selector.match_labels);
        let revision = old.iter().map(|set| revision_of(set)).max().unwrap_or_default() + 1;
        let mut annotations = taken_over(deployment);
        annotations.insert(REVISION.to_owned(), revision.to_string());
        annotations.extend(sizes(deployment));
        let set = ReplicaSet {
            metadata: ObjectMeta {
                name: Some(format!("{}-{hash}", key.name)),
                labels,
                annotations: Some(annotations),
                owner_references: Some(vec![managing_owner(deployment)]),
                ..ObjectMeta::default()
            },
            spec: Some(ReplicaSetSpec {
                replicas: Some(size),
                min_ready_seconds: spec.min_ready_seconds,
                selector,
                template: Some(template),
            }),
            status: None,
        };
        let api = self.sets_api(&key.namespace);
        match api.create(&PostParams::default(), &set).await {
            Ok(created) => {
                self.note_written(key, version_of(&created), 0);
                if size > 0 {
                    let note = format!("Scaled up replica set {} from 0 to {size}", created.name_any());
                    self.events.normal(&reference(deployment), "ScalingReplicaSet", note).await;
                }
                self.note_revision(key, deployment, revision).await?;
                Ok(Some(created))
            }
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
                let name = set.name_any();
                let taken = api.get_opt(&name).await.map_err(ReconcileError::api("looking at a ReplicaSet"))?;
                let ours = taken.filter(|taken| {
                    let template = taken.spec.as_ref().and_then(|s| s.template.as_ref());
                    controller_of(&taken.metadata).map(|o| &o.uid) == deployment.metadata.uid.as_ref()
                        && template.is_some_and(|t| template::same(t, &spec.template))
                });
                if ours.is_none() {
                    let mut status = deployment.status.clone().unwrap_or_default();
                    status.collision_count = Some(collisions + 1);
                    self.update_status(key, deployment, &status).await?;
                }
                Ok(ours)
            }
            // It will not be missed; the Deployment goes with its namespace.
            Err(kube::Error::Api(status)) if is_namespace_going(&status) => Ok(None),
            Err(error) => {
                let why = match &error {
                    kube::Error::Api(status) => status.message.clone(),
                    other => other.to_string(),
                };
                let message = format!("Failed to create new replica set {:?}: {why}", set.name_any());
                self.events.warning(&reference(deployment), "ReplicaSetCreateError", message.clone()).await;
                let mut status = deployment.status.clone().unwrap_or_default();
                let failed = condition("Progressing", "False", "ReplicaSetCreateError", message, Timestamp::now());
                status::set(status.conditions.get_or_insert_default(), failed);
                self.update_status(key, deployment, &status).await?;
                Err(ReconcileError::api("creating a ReplicaSet")(error))
            }
        }
    }

    async fn update_status(
        &self,
        key: &ObjectKey,
        deployment: &Deployment,
        status: &DeploymentStatus,
    ) -> Result<(), ReconcileError> {
        if deployment.status.as_ref() == Some(status) {
            return Ok(());
        }
        let counts = ["replicas", "updatedReplicas", "readyReplicas", "availableReplicas", "unavailableReplicas"];
        let patch = status_patch(deployment.metadata.uid.as_deref(), status, &counts);
        let patched =
            self.api(&key.namespace).patch_status(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await;
        match patched {
            Ok(patched) => {
                self.note_written(key, 0, version_of(&patched));
                Ok(())
            }
            Err(kube::Error::Api(answer)) if answer.code == 404 => Ok(()),
            Err(error) => Err(ReconcileError::api("updating the status of a Deployment")(error)),
        }
    }

    /// Deletes old ReplicaSets beyond the history that is kept.
    async fn clean_up(
        &self,
        key: &ObjectKey,
        deployment: &Deployment,
        old: &[&ReplicaSet],
    ) -> Result<(), ReconcileError> {
        let kept = deployment.spec.as_ref().and_then(|s| s.revision_history_limit).unwrap_or(10);
        let kept = usize::try_from(kept).unwrap_or_default();
        let mut idle: Vec<&&ReplicaSet> = old
            .iter()
            .filter(|set| {
                let status = set.status.clone().unwrap_or_default();
                asked(set) == 0
                    && status.replicas == 0
                    && set.metadata.deletion_timestamp.is_none()
                    && set.metadata.generation <= status.observed_generation
            })
            .collect();
        idle.sort_by_key(|set| revision_of(set));
        let surplus = idle.len().saturating_sub(kept);
        for set in idle.into_iter().take(surplus) {
            let preconditions = Some(Preconditions { uid: set.uid(), resource_version: None });
            let params = DeleteParams { preconditions, ..DeleteParams::background() };
            match self.sets_api(&key.namespace).delete(&set.name_any(), &params).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
                Err(error) => return Err(ReconcileError::api("deleting an old ReplicaSet")(error)),
            }
        }
        Ok(())
    }

    /// Whether pods of old templates still run; a Deployment that recreates waits for them.
    fn old_pods_run(&self, old: &[&ReplicaSet]) -> bool {
        let uids = old.iter().filter_map(|set| set.uid());
        uids.flat_map(|uid| self.pods.indexed(&managed_by(&uid))).any(|pod| !pod.is_over())
    }
}

/// The annotations that say what a Deployment asked for when its ReplicaSets were sized.
fn sizes(deployment: &Deployment) -> BTreeMap<String, String> {
    let most = replicas(deployment) + limits(deployment).0;
    let pairs = [(DESIRED, replicas(deployment)), (MOST, most)];
    pairs.into_iter().map(|(name, count)| (name.to_owned(), count.to_string())).collect()
}

/// The Deployment's annotations that its ReplicaSets take over.
fn taken_over(deployment: &Deployment) -> BTreeMap<String, String> {
    let annotations = deployment.metadata.annotations.clone().unwrap_or_default();
    annotations.into_iter().filter(|(name, _)| !OWN_ANNOTATIONS.contains(&name.as_str())).collect()
}

impl Reconcile for Deployments {
    type Key = ObjectKey;

    const NAME: &'static str = "deployment";

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ReconcileError> {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner).get(key).copied().unwrap_or_default();
        if !self.replica_sets.caught_up(written.0).await || !self.deployments.caught_up(written.1).await {
            return Ok(Next::OnChange);
        }
        let Some(deployment) = self.deployments.get(key) else {
            self.written.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
            return Ok(Next::OnChange);
        };
        let Some(spec) = deployment.spec.as_ref() else { return Ok(Next::OnChange) };
        let sets = self.claim(key, &deployment).await?;
        let is_new = |set: &ReplicaSet| {
            let template = set.spec.as_ref().and_then(|s| s.template.as_ref());
            template.is_some_and(|t| template::same(t, &spec.template))
        };
        let found = sets.iter().find(|set| is_new(set)).map(Arc::clone);
        let new_name = found.as_ref().map(|set| set.name_any());
        let old: Vec<&ReplicaSet> =
            sets.iter().map(AsRef::as_ref).filter(|set| Some(set.name_any()) != new_name).collect();
        let rollout = Rollout { deployment: &deployment, new: found.as_deref(), old: old.clone() };
        let now = Timestamp::now();
        let mut noted: Option<(&str, String)> = None;
        let paused = spec.paused == Some(true);
        let mut made = None;
        if deployment.metadata.deletion_timestamp.is_some() {
            // Only the status is kept true while its children are collected.
        } else if paused || rollout.was_scaled() {
            if let Some(new) = rollout.new {
                self.sync_revision(key, &deployment, new, &old).await?;
            }
            self.resize_all(key, &deployment, &sets, &rollout.scale()).await?;
            if paused {
                self.clean_up(key, &deployment, &old).await?;
            }
        } else {
            let stopping = if recreates(&deployment) { rollout.stop_old() } else { Vec::new() };
            let waits = recreates(&deployment) && (!stopping.is_empty() || self.old_pods_run(&old));
            self.resize_all(key, &deployment, &sets, &stopping).await?;
            match rollout.new {
                Some(new) => {
                    self.sync_revision(key, &deployment, new, &old).await?;
                    if find(&deployment.status.clone().unwrap_or_default(), "Progressing").is_none() {
                        noted = Some(("FoundNewReplicaSet", format!("Found new replica set {:?}", new.name_any())));
                    }
                    if !waits {
                        match rollout.resize_new() {
                            Some(resize) => self.resize(key, &deployment, &sets, &resize).await?,
                            None => self.resize_all(key, &deployment, &sets, &rollout.shrink_old()).await?,
                        }
                    }
                }
                None if waits => {}
                None => match self.create_new(key, &deployment, &old, rollout.new_size()).await? {
                    Some(created) => {
                        noted =
                            Some(("NewReplicaSetCreated", format!("Created new replica set {:?}", created.name_any())));
                        made = Some(created);
                    }
                    None => return Ok(Next::OnChange),
                },
            }
        }
        let new = made.as_ref().or(rollout.new);
        let all: Vec<&ReplicaSet> = old.iter().copied().chain(new).collect();
        let mut status = status::counted(&deployment, new, &all, now);
        let conditions = status.conditions.get_or_insert_default();
        let was_paused = conditions.iter().any(|c| c.reason.as_deref() == Some("DeploymentPaused"));
        if let Some((reason, message)) = noted {
            status::set(conditions, condition("Progressing", "True", reason, message, now));
        } else if paused && !was_paused {
            let message = "Deployment is paused".to_owned();
            status::set(conditions, condition("Progressing", "Unknown", "DeploymentPaused", message, now));
        } else if !paused && was_paused {
            let message = "Deployment is resumed".to_owned();
            status::set(conditions, condition("Progressing", "Unknown", "DeploymentResumed", message, now));
        }
        if !paused {
            status::judge_progress(&deployment, new, &mut status, now);
        }
        let complete = find(&status, "Progressing").is_none_or(|c| c.reason.as_deref() == Some(NEW_AVAILABLE));
        if complete && status::is_complete(&deployment, &status) && deployment.metadata.deletion_timestamp.is_none() {
            self.clean_up(key, &deployment, &old).await?;
        }
        self.update_status(key, &deployment, &status).await?;
        Ok(match status::until_stuck(&deployment, &status, now) {
            Some(left) if !paused => Next::After(Duration::from_secs(u64::try_from(left + 1).unwrap_or(1).max(1))),
            _ => Next::OnChange,
        })
    }
}
