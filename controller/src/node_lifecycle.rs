//! Nodes' lives: a node that falls silent is marked, tainted, and its pods are told apart; all of it is undone when it
//! comes back.
//!
//! A node shows life by its Lease in `kube-node-lease` or by posting its status. Each sign sets the time of the next
//! look; nothing is looked at in between.

mod health;
mod taints;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use k8s_openapi::{api::core::v1::NodeCondition, apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::time::Instant;
use tracing::warn;

use self::{health::Heartbeat, taints::Eviction};
use crate::{
    events::{Events, reference},
    informer::{Change, Reader},
    informers::Informers,
    object_key::ObjectKey,
    pod_index::on_node,
    reconcile::{Control, Next, Reconcile, ReconcileError},
    view::{LeaseView, NodeView, PodView},
    work_queue::WorkQueue,
};

/// Where nodes' leases are.
pub(crate) const LEASES: &str = "kube-node-lease";

/// How long a node may take to post its first status (`--node-startup-grace-period`).
const STARTUP_GRACE: Duration = Duration::from_secs(60);

/// What is known of a node beside the object itself.
#[derive(Clone, Debug)]
struct Known {
    heartbeat: Heartbeat,
    /// It was silent for too long when last looked at.
    silent: bool,
    /// The status of its condition Ready when it was last dealt with.
    ready: Option<String>,
    node: Arc<NodeView>,
}

type Nodes = Arc<Mutex<HashMap<String, Known>>>;

fn lock(nodes: &Nodes) -> MutexGuard<'_, HashMap<String, Known>> {
    // Nothing under the lock can panic half-way through a change.
    nodes.lock().unwrap_or_else(PoisonError::into_inner)
}

/// See the module.
pub(crate) struct NodeLifecycle {
    client: Client,
    nodes: Reader<NodeView>,
    leases: Reader<LeaseView>,
    pods: Reader<PodView>,
    events: Events,
    grace: Duration,
    known: Nodes,
    /// When pods were last begun to be driven off a node.
    last_eviction: Mutex<Option<Instant>>,
}

fn ready_status(node: &NodeView) -> Option<&str> {
    node.condition("Ready").map(|ready| ready.status.as_str())
}

impl NodeLifecycle {
    pub(crate) fn over(informers: &mut Informers, grace: Duration) -> Control<Self> {
        let queue: Arc<WorkQueue<ObjectKey>> = Arc::default();
        let known = Nodes::default();
        let (changed, all) = (Arc::clone(&queue), informers.nodes.reader());
        informers.nodes.on_change(move |change: &Change<'_, NodeView>| {
            changed.add(ObjectKey::of(change.object()));
            let turned = match change {
                Change::Updated { old, new } => ready_status(old) != ready_status(new),
                Change::Added(_) | Change::Deleted(_) => true,
            };
            if turned {
                // How many are ready decides what happens to those that are not.
                let unready = all.list(|node| ready_status(node) != Some("True"));
                unready.iter().for_each(|node| changed.add(ObjectKey::of(node.as_ref())));
            }
        });
        let (changed, heard) = (Arc::clone(&queue), Arc::clone(&known));
        informers.leases.on_change(move |change: &Change<'_, LeaseView>| {
            let lease = change.object();
            let mut nodes = lock(&heard);
            let Some(node) = nodes.get_mut(&lease.name_any()) else { return };
            if !matches!(change, Change::Deleted(_)) {
                let seen = Arc::clone(&node.node);
                node.heartbeat = Heartbeat::observed(Some(&node.heartbeat), &seen, Some(lease), Instant::now());
            }
            if node.silent {
                changed.add(ObjectKey::new("", lease.name_any()));
            }
        });
        let controller = Self {
            client: informers.client.clone(),
            nodes: informers.nodes.reader(),
            leases: informers.leases.reader(),
            pods: informers.pods.reader(),
            events: Events::new(informers.client.clone(), "node-controller"),
            grace,
            known,
            last_eviction: Mutex::default(),
        };
        Control::new(controller, queue)
    }

    fn api(&self) -> Api<NodeView> {
        Api::all(self.client.clone())
    }

    async fn tell(&self, node: &NodeView, reason: &str, what: &str) {
        let note = format!("Node {} event: {what}", node.name_any());
        self.events.normal(&reference(node), reason, note).await;
    }

    /// Takes in what is seen of the node now, and returns it with how it was before.
    async fn observe(&self, node: &Arc<NodeView>) -> Known {
        let name = node.name_any();
        let lease = self.leases.get(&ObjectKey::new(LEASES, &name));
        let (known, is_new) = {
            let mut nodes = lock(&self.known);
            let before = nodes.get(&name).filter(|known| known.node.metadata.uid == node.metadata.uid);
            let heartbeat = Heartbeat::observed(before.map(|b| &b.heartbeat), node, lease.as_deref(), Instant::now());
            let is_new = before.is_none();
            let (silent, ready) = before.map_or((false, None), |before| (before.silent, before.ready.clone()));
            let known = Known { heartbeat, silent, ready, node: Arc::clone(node) };
            nodes.insert(name.clone(), known.clone());
            (known, is_new)
        };
        if is_new {
            self.tell(node, "RegisteredNode", &format!("Registered Node {name} in Controller")).await;
        }
        known
    }

    /// Writes that a silent node's state is not known. Returns its conditions as they are then.
    async fn mark_silent(&self, node: &NodeView) -> Result<Vec<NodeCondition>, ReconcileError> {
        let Some(conditions) = health::silenced(node, Timestamp::now()) else {
            return Ok(node.status.conditions.clone());
        };
        // The list is written whole: a heartbeat that comes between makes this a conflict.
        let meta = json!({"uid": node.metadata.uid, "resourceVersion": node.metadata.resource_version});
        let patch = json!({"metadata": meta, "status": {"conditions": conditions}});
        let result = self.api().patch_status(&node.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await;
        let patched = result.map_err(ReconcileError::api("updating the status of a node"))?;
        Ok(patched.status.conditions)
    }

    /// Puts the right taints on. Returns when to look again, if pods are to be driven off but not yet.
    async fn taint(&self, node: &NodeView, conditions: &[NodeCondition]) -> Result<Option<Duration>, ReconcileError> {
        let ready = conditions.iter().find(|c| c.type_ == "Ready").map(|c| c.status.clone());
        let is_ready = |node: &NodeView| ready_status(node) == Some("True");
        // This node counts as it is now, the others as they were last seen.
        let own = node.name_any();
        let others = self.nodes.list(|other| other.name_any() != own);
        let is_up = ready.as_deref() == Some("True");
        let up = others.iter().filter(|other| is_ready(other)).count() + usize::from(is_up);
        let down = others.len() + 1 - up;
        let begins = ready.as_deref().is_some_and(|ready| taints::begins_eviction(&node.spec.taints, ready));
        let (evict, wait) = match taints::eviction(up, down) {
            Eviction::Off => (false, None),
            Eviction::Held => (!begins, None),
            Eviction::Every(pause) if begins => {
                let wait = self.wait_for_turn(pause);
                (wait.is_none(), wait)
            }
            Eviction::Every(_) => (true, None),
        };
        let now = Timestamp::now();
        let Some(taints) = taints::updated(&node.spec.taints, conditions, node.spec.unschedulable, evict, now) else {
            return Ok(wait);
        };
        let latest = self.api().get(&own).await.map_err(ReconcileError::api("looking at a node"))?;
        let latest_taints =
            taints::updated(&latest.spec.taints, conditions, latest.spec.unschedulable, evict, now).unwrap_or(taints);
        let meta = json!({"uid": node.metadata.uid, "resourceVersion": latest.metadata.resource_version});
        let patch = json!({"metadata": meta, "spec": {"taints": latest_taints}});
        let result = self.api().patch(&own, &PatchParams::default(), &Patch::Merge(patch)).await;
        result.map_err(ReconcileError::api("tainting a node"))?;
        Ok(wait)
    }

    /// `None` if pods may be driven off one more node now, else how long not yet.
    fn wait_for_turn(&self, pause: Duration) -> Option<Duration> {
        let mut last = self.last_eviction.lock().unwrap_or_else(PoisonError::into_inner);
        let left = last.map(|last| pause.saturating_sub(last.elapsed())).filter(|left| !left.is_zero());
        if left.is_none() {
            *last = Some(Instant::now());
        }
        left
    }

    /// Marks the pods of a node that is not ready: nobody should send them requests.
    async fn mark_pods(&self, node: &str) -> Result<(), ReconcileError> {
        for pod in self.pods.indexed(&on_node(node)).iter().filter(|pod| pod.is_ready() && !pod.is_over()) {
            let ready = json!({"type": "Ready", "status": "False", "lastTransitionTime": Time(Timestamp::now())});
            let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [ready]}});
            let pods: Api<PodView> = Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
            match pods.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(patch)).await {
                Ok(_) => {
                    self.events.warning(&reference(pod.as_ref()), "NodeNotReady", "Node is not ready".into()).await
                }
                // Gone, or another has its name.
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
                Err(error) => return Err(ReconcileError::api("marking a pod as not ready")(error)),
            }
        }
        Ok(())
    }

    async fn forget(&self, name: &str) {
        let known = lock(&self.known).remove(name);
        if let Some(known) = known {
            self.tell(&known.node, "RemovingNode", &format!("Removing Node {name} from Controller")).await;
        }
    }
}

impl Reconcile for NodeLifecycle {
    type Key = ObjectKey;

    const NAME: &'static str = "node-lifecycle";

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ReconcileError> {
        let Some(node) = self.nodes.get(key) else {
            self.forget(&key.name).await;
            return Ok(Next::OnChange);
        };
        let known = self.observe(&node).await;
        let grace = if node.condition("Ready").is_some() { self.grace } else { STARTUP_GRACE.max(self.grace) };
        let left = grace.checked_sub(known.heartbeat.at.elapsed()).filter(|left| !left.is_zero());
        let mut conditions = node.status.conditions.clone();
        if left.is_none() {
            if !known.silent {
                warn!(node = key.name, grace = ?grace, "the node has fallen silent");
            }
            conditions = self.mark_silent(&node).await?;
        }
        let wait = self.taint(&node, &conditions).await?;
        let ready = conditions.iter().find(|c| c.type_ == "Ready").map(|c| c.status.clone());
        let fell = known.ready.as_deref() == Some("True") && ready.as_deref() != Some("True");
        if fell {
            let note = format!("Node {} status is now: NodeNotReady", key.name);
            self.events.normal(&reference(node.as_ref()), "NodeNotReady", note).await;
        }
        if fell || ready.as_deref() == Some("Unknown") {
            self.mark_pods(&key.name).await?;
        }
        if let Some(known) = lock(&self.known).get_mut(&key.name) {
            known.silent = left.is_none();
            known.ready = ready;
        }
        Ok([left, wait].into_iter().flatten().min().map_or(Next::OnChange, Next::After))
    }
}
