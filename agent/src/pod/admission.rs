//! Whether a pod that was bound here may run here, as kubelet checks once more before it starts anything.

use coracle_proto::placement::matches_required;
use k8s_openapi::api::core::v1::{Node, Pod};

use super::resources::{self, Amounts};
use super::spec;

/// Why a pod is refused: the reason and the message of its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// `OutOfcpu`, `NodeAffinity`, …
    pub(crate) reason: String,
    /// The words behind it.
    pub(crate) message: String,
}

/// What the node has, and what the pods on it have taken already.
#[derive(Clone, Debug, Default)]
pub(crate) struct Room {
    /// Allocatable amounts, in thousandths.
    pub(crate) allocatable: Amounts,
    /// Requested by the pods that were admitted.
    pub(crate) used: Amounts,
    /// How many those are.
    pub(crate) pods: usize,
    /// How many there may be.
    pub(crate) max_pods: usize,
}

/// Checks `pod` against the node.
pub(crate) fn admit(pod: &Pod, node: &Node, room: &Room) -> Result<(), Refusal> {
    if room.pods >= room.max_pods {
        return Err(out_of("pods", 1, room.pods, room.max_pods));
    }
    for (name, wanted) in resources::pod_requests(pod) {
        if wanted == 0 {
            continue;
        }
        // CPU is told in thousandths, everything else in whole units, as the scheduler does.
        let scale = |v: i128| if name == "cpu" { v } else { i128::from(resources::units(v)) };
        let have = room.allocatable.get(&name).copied().unwrap_or(0);
        let used = room.used.get(&name).copied().unwrap_or(0);
        if used + wanted > have {
            return Err(out_of(&name, scale(wanted), scale(used), scale(have)));
        }
    }
    if !matches_node(pod, node) {
        return Err(Refusal {
            reason: "NodeAffinity".into(),
            message:
                "Pod was rejected: Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"
                    .into(),
        });
    }
    Ok(())
}

fn out_of(
    name: &str,
    wanted: impl std::fmt::Display,
    used: impl std::fmt::Display,
    capacity: impl std::fmt::Display,
) -> Refusal {
    Refusal {
        reason: format!("OutOf{name}"),
        message: format!(
            "Pod was rejected: Node didn't have enough resource: {name}, requested: {wanted}, used: {used}, capacity: {capacity}"
        ),
    }
}

/// Whether the pod wants a node with such labels.
pub(crate) fn matches_node(pod: &Pod, node: &Node) -> bool {
    let empty = std::collections::BTreeMap::new();
    let labels = node.metadata.labels.as_ref().unwrap_or(&empty);
    let Some(spec) = spec(pod).0 else { return true };
    let selected = spec.node_selector.iter().flatten().all(|(k, v)| labels.get(k) == Some(v));
    let required = spec
        .affinity
        .as_ref()
        .and_then(|a| a.node_affinity.as_ref())
        .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    let name = node.metadata.name.as_deref().unwrap_or_default();
    selected && required.is_none_or(|required| matches_required(required, name, labels))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::pod;
    use super::*;

    fn check(spec: serde_json::Value) -> String {
        let node: Node =
            serde_json::from_value(json!({"metadata": {"name": "n1", "labels": {"disk": "ssd", "n": "5"}}})).unwrap();
        let room = Room {
            allocatable: Amounts::from([("cpu".into(), 2000), ("memory".into(), (1 << 30) * 1000)]),
            used: Amounts::from([("cpu".into(), 1500)]),
            pods: 3,
            max_pods: 110,
        };
        match admit(&pod(spec), &node, &room) {
            Ok(()) => "ok".into(),
            Err(refusal) => format!("{}: {}", refusal.reason, refusal.message),
        }
    }

    #[test]
    fn a_pod_that_does_not_fit_is_refused_in_kubelets_words() {
        let with = |r| json!({"containers": [{"name": "a", "resources": {"requests": r}}]});
        assert_eq!(check(with(json!({"cpu": "500m"}))), "ok");
        assert_eq!(
            check(with(json!({"cpu": "501m"}))),
            "OutOfcpu: Pod was rejected: Node didn't have enough resource: cpu, requested: 501, used: 1500, capacity: 2000"
        );
        assert!(check(with(json!({"memory": "2Gi"}))).starts_with("OutOfmemory: "));
        assert!(check(with(json!({"example.com/gpu": "1"}))).starts_with("OutOfexample.com/gpu: "));
    }

    #[test]
    fn node_selectors_and_affinity_are_checked_again() {
        let affinity = |operator: &str, values: serde_json::Value| {
            check(
                json!({"containers": [], "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
                {"nodeSelectorTerms": [{"matchExpressions": [{"key": "n", "operator": operator, "values": values}]}]}}}}),
            )
        };
        assert_eq!(check(json!({"containers": [], "nodeSelector": {"disk": "ssd"}})), "ok");
        assert!(check(json!({"containers": [], "nodeSelector": {"disk": "hdd"}})).starts_with("NodeAffinity: "));
        assert_eq!(affinity("Gt", json!(["4"])), "ok");
        assert!(affinity("Lt", json!(["4"])).starts_with("NodeAffinity"));
        assert_eq!(affinity("In", json!(["5", "6"])), "ok");
        assert!(affinity("NotIn", json!(["5"])).starts_with("NodeAffinity"));
    }
}
