//! Pods that do not tolerate a taint `NoExecute` of their node, or no longer: they are deleted when their time is up.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use coracle_proto::placement::tolerates;
use k8s_openapi::{
    api::core::v1::{Taint, Toleration},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::json;

use crate::{
    events::{Events, reference},
    informer::{Change, Reader},
    informers::Informers,
    object_key::ObjectKey,
    pod_control::PodControl,
    pod_index::on_node,
    reconcile::{Control, Next, Reconcile, ReconcileError},
    view::{NodeView, PodView},
    work_queue::WorkQueue,
};

/// What taints mean for a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It tolerates them all, for ever.
    Stays,
    /// It tolerates them for so much longer; zero: no longer.
    GoesIn(Duration),
}

fn no_execute(node: &NodeView) -> impl Iterator<Item = &Taint> {
    node.spec.taints.iter().filter(|taint| taint.effect == "NoExecute")
}

/// The first toleration that fits a taint counts. Its seconds run from when the taint was put on, so that a restart
/// gives no pod more time.
fn fate<'a>(taints: impl Iterator<Item = &'a Taint>, tolerations: &[Toleration], now: Timestamp) -> Fate {
    let mut soonest: Option<Duration> = None;
    for taint in taints {
        let Some(toleration) = tolerations.iter().find(|toleration| tolerates(toleration, taint)) else {
            return Fate::GoesIn(Duration::ZERO);
        };
        if let Some(seconds) = toleration.toleration_seconds {
            let since = taint.time_added.as_ref().map_or(now, |time| time.0);
            let left = seconds.saturating_sub(now.duration_since(since).as_secs());
            let left = Duration::from_secs(u64::try_from(left).unwrap_or_default());
            soonest = Some(soonest.map_or(left, |soonest| soonest.min(left)));
        }
    }
    soonest.map_or(Fate::Stays, Fate::GoesIn)
}

/// See the module.
pub(crate) struct TaintEviction {
    client: Client,
    nodes: Reader<NodeView>,
    pods: Reader<PodView>,
    control: PodControl,
    events: Events,
    /// Pods whose time runs.
    doomed: Mutex<HashSet<ObjectKey>>,
}

impl TaintEviction {
    pub(crate) fn over(informers: &mut Informers) -> Control<Self> {
        let queue: Arc<WorkQueue<ObjectKey>> = Arc::default();
        let (changed, pods) = (Arc::clone(&queue), informers.pods.reader());
        informers.nodes.on_change(move |change: &Change<'_, NodeView>| {
            let before = match change {
                Change::Updated { old, .. } => no_execute(old).collect(),
                Change::Added(_) | Change::Deleted(_) => Vec::new(),
            };
            let node = change.object();
            if no_execute(node).collect::<Vec<_>>() != before {
                let pods = pods.indexed(&on_node(&node.name_any()));
                pods.iter().for_each(|pod| changed.add(ObjectKey::of(pod.as_ref())));
            }
        });
        let (changed, nodes) = (Arc::clone(&queue), informers.nodes.reader());
        informers.pods.on_change(move |change: &Change<'_, PodView>| {
            let pod = change.object();
            let moved = match change {
                Change::Updated { old, new } => {
                    old.spec.node_name != new.spec.node_name || old.spec.tolerations != new.spec.tolerations
                }
                Change::Added(_) => true,
                Change::Deleted(_) => return,
            };
            let node = nodes.get(&ObjectKey::new("", &pod.spec.node_name));
            if moved && node.is_some_and(|node| no_execute(&node).next().is_some()) {
                changed.add(ObjectKey::of(pod));
            }
        });
        let controller = Self {
            client: informers.client.clone(),
            nodes: informers.nodes.reader(),
            pods: informers.pods.reader(),
            control: PodControl::new(informers.client.clone()),
            events: Events::new(informers.client.clone(), "taint-eviction-controller"),
            doomed: Mutex::default(),
        };
        Control::new(controller, queue)
    }

    fn set_doomed(&self, key: &ObjectKey, doomed: bool) -> bool {
        let mut all = self.doomed.lock().unwrap_or_else(PoisonError::into_inner);
        if doomed { !all.insert(key.clone()) } else { all.remove(key) }
    }

    async fn evict(&self, pod: &PodView, key: &ObjectKey) -> Result<(), ReconcileError> {
        let note = format!("Marking for deletion Pod {key}");
        self.events.normal(&reference(pod), "TaintManagerEviction", note).await;
        let why = json!({
            "type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
            "message": "Taint manager: deleting due to NoExecute taint",
            "lastTransitionTime": Time(Timestamp::now()),
        });
        let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [why]}});
        let pods: Api<PodView> = Api::namespaced(self.client.clone(), &key.namespace);
        match pods.patch_status(&key.name, &PatchParams::default(), &Patch::Strategic(patch)).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
            Err(error) => return Err(ReconcileError::api("marking a pod for eviction")(error)),
        }
        self.control.delete(pod).await.map(drop).map_err(ReconcileError::api("evicting a pod"))
    }
}

impl Reconcile for TaintEviction {
    type Key = ObjectKey;

    const NAME: &'static str = "taint-eviction";

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ReconcileError> {
        let pod = self.pods.get(key).filter(|pod| pod.metadata.deletion_timestamp.is_none());
        let Some(pod) = pod else {
            self.set_doomed(key, false);
            return Ok(Next::OnChange);
        };
        let Some(node) = self.nodes.get(&ObjectKey::new("", &pod.spec.node_name)) else { return Ok(Next::OnChange) };
        match fate(no_execute(&node), &pod.spec.tolerations, Timestamp::now()) {
            Fate::Stays => {
                if self.set_doomed(key, false) {
                    let note = format!("Cancelling deletion of Pod {key}");
                    self.events.normal(&reference(pod.as_ref()), "TaintManagerEviction", note).await;
                }
                Ok(Next::OnChange)
            }
            Fate::GoesIn(left) if left.is_zero() => {
                self.evict(&pod, key).await?;
                self.set_doomed(key, false);
                Ok(Next::OnChange)
            }
            Fate::GoesIn(left) => {
                self.set_doomed(key, true);
                Ok(Next::After(left))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taint(key: &str, added: &str) -> Taint {
        serde_json::from_value(json!({"key": key, "effect": "NoExecute", "timeAdded": added})).unwrap()
    }

    fn toleration(json: serde_json::Value) -> Toleration {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn fates() {
        const T0: &str = "2026-01-01T00:00:00Z";
        let now: Timestamp = "2026-01-01T00:01:40Z".parse().unwrap();
        let for_ever = toleration(json!({"operator": "Exists"}));
        let a_while = toleration(json!({"key": "a", "operator": "Exists", "tolerationSeconds": 300}));
        let short = toleration(json!({"key": "b", "operator": "Exists", "tolerationSeconds": 60}));
        let other_value = toleration(json!({"key": "a", "value": "x"}));
        let other_effect = toleration(json!({"key": "a", "operator": "Exists", "effect": "NoSchedule"}));
        let (a, b) = (taint("a", T0), taint("b", T0));
        let secs = Duration::from_secs;
        let cases: [(&str, Vec<&Taint>, Vec<&Toleration>, Fate); 8] = [
            ("no taints", vec![], vec![], Fate::Stays),
            ("tolerates nothing", vec![&a], vec![], Fate::GoesIn(secs(0))),
            ("tolerates everything", vec![&a, &b], vec![&for_ever], Fate::Stays),
            ("for a while", vec![&a], vec![&a_while], Fate::GoesIn(secs(200))),
            ("the shortest counts", vec![&a, &b], vec![&a_while, &short], Fate::GoesIn(secs(0))),
            ("one is not tolerated", vec![&a, &b], vec![&a_while], Fate::GoesIn(secs(0))),
            ("the first that fits counts", vec![&a], vec![&for_ever, &a_while], Fate::Stays),
            ("neither value nor effect fit", vec![&a], vec![&other_value, &other_effect], Fate::GoesIn(secs(0))),
        ];
        for (name, taints, tolerations, expected) in cases {
            let tolerations: Vec<Toleration> = tolerations.into_iter().cloned().collect();
            assert_eq!(fate(taints.into_iter(), &tolerations, now), expected, "{name}");
        }
    }
}
