//! Pods that nobody else will delete: bound to nodes that are no more, terminating but never placed, and the oldest of
//! too many that are over.

use std::{cmp::Ordering, fmt, sync::Arc, time::Duration};

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tracing::info;

use crate::{
    informer::{Change, Reader},
    informers::Informers,
    object_key::ObjectKey,
    pod_control::PodControl,
    pod_index::on_node,
    reconcile::{Control, Next, Reconcile, ReconcileError},
    view::{NodeView, PodView},
    work_queue::WorkQueue,
};

/// So many pods that are over are kept (`--terminated-pod-gc-threshold`).
const KEPT: usize = 12_500;

/// A node that is missing may only be registering itself anew.
const QUARANTINE: Duration = Duration::from_secs(40);

/// Pods end in bursts; they are counted once for many.
const COUNT_AFTER: Duration = Duration::from_secs(20);

/// A piece of work.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Doubt {
    /// This node may be gone, with pods on it.
    Node(String),
    /// This pod is terminating and on no node.
    Pod(ObjectKey),
    /// There may be too many pods that are over.
    Ended,
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(name) => write!(f, "node {name}"),
            Self::Pod(key) => write!(f, "pod {key}"),
            Self::Ended => f.write_str("ended pods"),
        }
    }
}

/// See the module.
pub(crate) struct PodGc {
    client: Client,
    pods: Reader<PodView>,
    nodes: Reader<NodeView>,
    control: PodControl,
}

fn is_stranded(pod: &PodView) -> bool {
    pod.metadata.deletion_timestamp.is_some() && pod.spec.node_name.is_empty()
}

fn on_pod(queue: &WorkQueue<Doubt>, nodes: &Reader<NodeView>, change: &Change<'_, PodView>) {
    let pod = change.object();
    if matches!(change, Change::Deleted(_)) {
        return;
    }
    let node = &pod.spec.node_name;
    if is_stranded(pod) {
        queue.add(Doubt::Pod(ObjectKey::of(pod)));
    }
    if !node.is_empty() && nodes.get(&ObjectKey::new("", node)).is_none() {
        queue.add_after(Doubt::Node(node.clone()), QUARANTINE);
    }
    let was_over = matches!(change, Change::Updated { old, .. } if old.is_over());
    if pod.is_over() && !was_over {
        queue.add_after(Doubt::Ended, COUNT_AFTER);
    }
}

/// The pods to delete so that `kept` remain of those that are over: the evicted first, then the oldest.
fn surplus(mut ended: Vec<Arc<PodView>>, kept: usize) -> Vec<Arc<PodView>> {
    let created = |pod: &PodView| pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let order = |a: &Arc<PodView>, b: &Arc<PodView>| -> Ordering {
        let evicted = |pod: &PodView| pod.status.reason == "Evicted";
        evicted(b).cmp(&evicted(a)).then(created(a).cmp(&created(b))).then_with(|| a.name_any().cmp(&b.name_any()))
    };
    ended.sort_by(order);
    ended.truncate(ended.len().saturating_sub(kept));
    ended
}

impl PodGc {
    pub(crate) fn over(informers: &mut Informers) -> Control<Self> {
        let queue: Arc<WorkQueue<Doubt>> = Arc::default();
        let (doubted, nodes) = (Arc::clone(&queue), informers.nodes.reader());
        informers.pods.on_change(move |change: &Change<'_, PodView>| on_pod(&doubted, &nodes, change));
        let doubted = Arc::clone(&queue);
        informers.nodes.on_change(move |change: &Change<'_, NodeView>| {
            if let Change::Deleted(node) = change {
                doubted.add_after(Doubt::Node(node.name_any()), QUARANTINE);
            }
        });
        let controller = Self {
            client: informers.client.clone(),
            pods: informers.pods.reader(),
            nodes: informers.nodes.reader(),
            control: PodControl::new(informers.client.clone()),
        };
        Control::new(controller, queue)
    }

    /// Deletes a pod of which nothing runs any more, and says so in it first if it did not end by itself.
    async fn delete(&self, pod: &PodView, lost_node: bool) -> Result<(), ReconcileError> {
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        if lost_node && !pod.is_over() {
            let why = json!({
                "type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC",
                "message": "PodGC: node no longer exists", "lastTransitionTime": Time(Timestamp::now()),
            });
            let status = json!({"phase": "Failed", "conditions": [why]});
            let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": status});
            let pods: Api<PodView> = Api::namespaced(self.client.clone(), &namespace);
            match pods.patch_status(&name, &PatchParams::default(), &Patch::Strategic(patch)).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
                Err(error) => return Err(ReconcileError::api("marking a lost pod")(error)),
            }
        }
        self.control.delete_at_once(pod).await.map_err(ReconcileError::api("deleting a lost pod"))?;
        info!(pod = name, namespace, node = pod.spec.node_name, "deleted a pod that nobody else would");
        Ok(())
    }
}

impl Reconcile for PodGc {
    type Key = Doubt;

    const NAME: &'static str = "pod-garbage-collector";

    async fn reconcile(&self, doubt: &Doubt) -> Result<Next, ReconcileError> {
        match doubt {
            Doubt::Node(name) => {
                let pods = self.pods.indexed(&on_node(name));
                if pods.is_empty() || self.nodes.get(&ObjectKey::new("", name)).is_some() {
                    return Ok(Next::OnChange);
                }
                let api: Api<NodeView> = Api::all(self.client.clone());
                let node = api.get_metadata_opt(name).await.map_err(ReconcileError::api("looking for a node"))?;
                if node.is_none() {
                    for pod in pods {
                        self.delete(&pod, true).await?;
                    }
                }
            }
            Doubt::Pod(key) => {
                if let Some(pod) = self.pods.get(key).filter(|pod| is_stranded(pod)) {
                    self.delete(&pod, false).await?;
                }
            }
            Doubt::Ended => {
                for pod in surplus(self.pods.list(PodView::is_over), KEPT) {
                    self.delete(&pod, false).await?;
                }
            }
        }
        Ok(Next::OnChange)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_evicted_go_first_then_the_oldest() {
        let pod = |name: &str, created: &str, reason: &str| -> Arc<PodView> {
            let meta = json!({"name": name, "creationTimestamp": created});
            let pod = json!({"metadata": meta, "status": {"phase": "Failed", "reason": reason}});
            Arc::new(serde_json::from_value(pod).unwrap())
        };
        let ended = vec![
            pod("young", "2026-01-03T00:00:00Z", ""),
            pod("old", "2026-01-01T00:00:00Z", ""),
            pod("evicted", "2026-01-02T00:00:00Z", "Evicted"),
        ];
        let names = |kept| surplus(ended.clone(), kept).iter().map(|pod| pod.name_any()).collect::<Vec<_>>();
        assert_eq!(names(1), ["evicted", "old"]);
        assert_eq!(names(3), Vec::<String>::new());
        assert_eq!(names(9), Vec::<String>::new());
    }
}
