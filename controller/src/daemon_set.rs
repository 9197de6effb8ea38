//! DaemonSets: a pod on every node that is one for it.

mod plan;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use coracle_proto::selector::LabelSelector;
use k8s_openapi::{
    api::{
        apps::v1::{DaemonSet, DaemonSetSpec},
        core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, ObjectReference, Pod},
    },
    jiff::Timestamp,
};
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
};
use tokio::time::Instant;

use self::plan::{Picture, node_of};
use crate::{
    events::{Events, reference},
    history::{self, HASH, History},
    informer::{Change, Reader},
    informers::Informers,
    object_key::ObjectKey,
    pod_control::{PodControl, managing_owner, pod_of},
    pod_owners::{PodOwners, on_pod},
    reconcile::{Control, Next, Reconcile, ReconcileError},
    status_patch::status_patch,
    view::{NodeView, PodView},
    work_queue::WorkQueue,
};

/// The wait before a pod that failed on a node is replaced a second time; it doubles.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest.
const LONGEST_WAIT: Duration = Duration::from_secs(900);
/// The label with the number of the template, for clients of old.
const GENERATION: &str = "pod-template-generation";

/// When pods failed on nodes last, and how often in a row.
type Failures = BTreeMap<String, (u32, Instant)>;

/// See the module.
pub(crate) struct DaemonSets {
    client: Client,
    sets: Reader<DaemonSet>,
    nodes: Reader<NodeView>,
    owners: PodOwners,
    history: History,
    failures: Mutex<HashMap<ObjectKey, Failures>>,
}

fn selector_of(set: &DaemonSet) -> Option<LabelSelector> {
    let spec = set.spec.as_ref()?;
    LabelSelector::from_api(Some(&spec.selector)).ok().filter(|selector| !selector.is_everything())
}

/// What of a node decides whether pods are to be there.
fn shown(node: &NodeView) -> impl PartialEq + '_ {
    let taints: Vec<_> = node.spec.taints.iter().map(|taint| (&taint.key, &taint.value, &taint.effect)).collect();
    (node.metadata.labels.as_ref(), taints, node.metadata.uid.as_ref())
}

impl DaemonSets {
    pub(crate) fn over(informers: &mut Informers) -> Control<Self> {
        let queue: Arc<WorkQueue<ObjectKey>> = Arc::default();
        let (changed, sets) = (Arc::clone(&queue), informers.daemon_sets.reader());
        informers.pods.on_change(move |change| on_pod(&changed, &sets, selector_of, change));
        let changed = Arc::clone(&queue);
        informers
            .daemon_sets
            .on_change(move |change: &Change<'_, DaemonSet>| changed.add(ObjectKey::of(change.object())));
        let (changed, sets) = (Arc::clone(&queue), informers.daemon_sets.reader());
        informers.nodes.on_change(move |change: &Change<'_, NodeView>| {
            if matches!(change, Change::Updated { old, new } if shown(old) == shown(new)) {
                return;
            }
            sets.list(|_| true).iter().for_each(|set| changed.add(ObjectKey::of(set.as_ref())));
        });
        let client = informers.client.clone();
        let events = Events::new(client.clone(), "daemonset-controller");
        let controller = Self {
            owners: PodOwners::new(PodControl::new(client.clone()), informers.pods.reader(), events),
            sets: informers.daemon_sets.reader(),
            nodes: informers.nodes.reader(),
            history: History::new(client.clone(), informers.revisions.reader()),
            client,
            failures: Mutex::default(),
        };
        Control::new(controller, queue)
    }

    fn failures(&self) -> MutexGuard<'_, HashMap<ObjectKey, Failures>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long a pod that is over stays where it is, so that one that fails at once is not replaced all the time; zero:
    /// it goes now, and that is noted.
    fn patience(&self, key: &ObjectKey, node: &str) -> Duration {
        let mut all = self.failures();
        let failures = all.entry(key.clone()).or_default();
        failures.retain(|_, (_, last)| last.elapsed() < 2 * LONGEST_WAIT);
        let (count, last) = failures.get(node).copied().unwrap_or((0, Instant::now()));
        let wait = match count {
            0 => Duration::ZERO,
            _ => FIRST_WAIT.saturating_mul(1 << (count - 1).min(16)).min(LONGEST_WAIT).saturating_sub(last.elapsed()),
        };
        if wait.is_zero() {
            failures.insert(node.to_owned(), (count.saturating_add(1), Instant::now()));
        }
        wait
    }

    /// Of pods that are over those that go now, and how long until the next does.
    async fn overdue(
        &self,
        key: &ObjectKey,
        about: &ObjectReference,
        over: Vec<Arc<PodView>>,
        wake: &mut Option<Duration>,
    ) -> Vec<Arc<PodView>> {
        let mut now = Vec::new();
        for pod in over {
            let node = node_of(&pod).unwrap_or_default();
            let wait = self.patience(key, node);
            if !wait.is_zero() {
                *wake = Some(wake.map_or(wait, |known| known.min(wait)));
                continue;
            }
            let name = ObjectKey::of(pod.as_ref());
            if pod.status.phase == "Failed" {
                let note = format!("Found failed daemon pod {name} on node {node}, will try to kill it");
                self.owners.events.warning(about, "FailedDaemonPod", note).await;
            } else {
                let note = format!("Found succeeded daemon pod {name} on node {node}, will try to delete it");
                self.owners.events.normal(about, "SucceededDaemonPod", note).await;
            }
            now.push(pod);
        }
        now
    }

    async fn sync(
        &self,
        key: &ObjectKey,
        set: &DaemonSet,
        spec: &DaemonSetSpec,
        selector: &LabelSelector,
    ) -> Result<Next, ReconcileError> {
        let pods = self.owners.claim(set, selector, |_| true).await?;
        let collisions = set.status.as_ref().and_then(|status| status.collision_count).unwrap_or_default();
        let revisions = self.history.sync(key, set, &spec.template, collisions).await?;
        let hash = history::hash_of(&revisions.update).to_owned();
        let nodes = self.nodes.list(|_| true);
        let picture = Picture {
            set,
            spec,
            nodes: &nodes,
            pods: &pods,
            hash: &hash,
            collisions: revisions.collisions,
            now: Timestamp::now(),
        };
        let mut plan = picture.plan();
        let about = reference(set);
        let over = self.overdue(key, &about, std::mem::take(&mut plan.over), &mut plan.wake).await;
        plan.delete.extend(over);
        let new: Vec<Pod> = plan.create.iter().map(|node| pod(set, spec, &hash, node)).collect();
        let (_, created) = self.owners.create(key, &about, new).await;
        let deleted = self.owners.delete(key, &about, &plan.delete).await;
        if set.status.as_ref() != Some(&plan.status) {
            let api: Api<DaemonSet> = Api::namespaced(self.client.clone(), &key.namespace);
            let fields =
                ["conditions", "numberAvailable", "numberUnavailable", "updatedNumberScheduled", "collisionCount"];
            let patch = status_patch(set.metadata.uid.as_deref(), &plan.status, &fields);
            match api.patch_status(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await {
                Ok(_) => {}
                Err(kube::Error::Api(answer)) if answer.code == 404 => {}
                Err(error) => return Err(ReconcileError::api("updating the status of a DaemonSet")(error)),
            }
        }
        created.and(deleted).map_err(|first| ReconcileError::Several { count: 1, first })?;
        let in_use = |hash: &str| pods.iter().any(|pod| pod.labels().get(HASH).is_some_and(|label| label == hash));
        let limit = spec.revision_history_limit;
        self.history.clean_up(key, &revisions, limit, |revision| in_use(history::hash_of(revision))).await?;
        Ok(plan.wake.map_or(Next::OnChange, Next::After))
    }
}

/// The pod for a node: the scheduler binds it to that one and to no other.
fn pod(set: &DaemonSet, spec: &DaemonSetSpec, hash: &str, node: &str) -> Pod {
    let mut pod = pod_of(spec.template.clone(), managing_owner(set));
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(HASH.to_owned(), hash.to_owned());
    if let Some(generation) = set.annotations().get("deprecated.daemonset.template.generation") {
        labels.insert(GENERATION.to_owned(), generation.clone());
    }
    let spec = pod.spec.get_or_insert_default();
    spec.tolerations = Some(plan::tolerations(spec));
    let name = NodeSelectorRequirement {
        key: "metadata.name".to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    let term = NodeSelectorTerm { match_fields: Some(vec![name]), match_expressions: None };
    let affinity = spec.affinity.get_or_insert_default().node_affinity.get_or_insert_default();
    affinity.required_during_scheduling_ignored_during_execution =
        Some(NodeSelector { node_selector_terms: vec![term] });
    pod
}

impl Reconcile for DaemonSets {
    type Key = ObjectKey;

    const NAME: &'static str = "daemonset";

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ReconcileError> {
        if !self.owners.pods.caught_up(self.owners.written.of(key)).await || !self.history.caught_up(key).await {
            return Ok(Next::OnChange);
        }
        let Some(set) = self.sets.get(key) else {
            self.owners.written.forget(key);
            self.history.forget(key);
            self.failures().remove(key);
            return Ok(Next::OnChange);
        };
        let (Some(spec), Some(selector)) = (set.spec.as_ref(), selector_of(&set)) else { return Ok(Next::OnChange) };
        self.sync(key, &set, spec, &selector).await
    }
}
