//! Whether a node still shows signs of life: pure.
//!
//! Clocks of other machines are not trusted: what counts is when, by our own clock, a heartbeat was last seen to change.

use k8s_openapi::{api::core::v1::NodeCondition, apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use tokio::time::Instant;

use crate::view::{LeaseView, NodeView};

/// What was last seen of a node's heartbeats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Heartbeat {
    /// The heartbeat time in its condition Ready.
    posted: Option<Timestamp>,
    /// The renewal time of its lease.
    renewed: Option<Timestamp>,
    /// When one of the two last changed, by our clock.
    pub(crate) at: Instant,
}

impl Heartbeat {
    /// What is seen now, given what was seen before.
    pub(crate) fn observed(before: Option<&Self>, node: &NodeView, lease: Option<&LeaseView>, now: Instant) -> Self {
        let posted = node.condition("Ready").and_then(|ready| ready.last_heartbeat_time.as_ref()).map(|time| time.0);
        let renewed = lease.and_then(|lease| lease.spec.renew_time.as_ref()).map(|time| time.0);
        let at = match before {
            // A lease that vanished is no sign of life.
            Some(before) if before.posted == posted && (before.renewed >= renewed) => before.at,
            _ => now,
        };
        Self { posted, renewed: renewed.max(before.and_then(|before| before.renewed)), at }
    }
}

/// Conditions that nobody but the node itself can know.
const POSTED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// The conditions of a node that fell silent, if they do not say so already.
pub(crate) fn silenced(node: &NodeView, now: Timestamp) -> Option<Vec<NodeCondition>> {
    let mut conditions = node.status.conditions.clone();
    for type_ in POSTED {
        match conditions.iter_mut().find(|c| c.type_ == type_) {
            Some(known) if known.status == "Unknown" => {}
            Some(known) => {
                known.status = "Unknown".to_owned();
                known.reason = Some("NodeStatusUnknown".to_owned());
                known.message = Some("Kubelet stopped posting node status.".to_owned());
                known.last_transition_time = Some(Time(now));
            }
            None => conditions.push(NodeCondition {
                type_: type_.to_owned(),
                status: "Unknown".to_owned(),
                reason: Some("NodeStatusNeverUpdated".to_owned()),
                message: Some("Kubelet never posted node status.".to_owned()),
                last_heartbeat_time: node.metadata.creation_timestamp.clone(),
                last_transition_time: Some(Time(now)),
            }),
        }
    }
    (conditions != node.status.conditions).then_some(conditions)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    fn node(status: &str, heartbeat: &str) -> NodeView {
        let ready = json!({"type": "Ready", "status": status, "lastHeartbeatTime": heartbeat});
        serde_json::from_value(json!({"metadata": {"name": "n"}, "status": {"conditions": [ready]}})).unwrap()
    }

    fn lease(renewed: &str) -> LeaseView {
        serde_json::from_value(json!({"metadata": {"name": "n"}, "spec": {"renewTime": renewed}})).unwrap()
    }

    #[test]
    fn only_a_change_of_status_or_lease_is_a_sign_of_life() {
        const EARLY: &str = "2026-01-01T00:00:00Z";
        const LATE: &str = "2026-01-01T00:00:10Z";
        let start = Instant::now();
        let first = Heartbeat::observed(None, &node("True", EARLY), Some(&lease(EARLY)), start);
        let later = start + Duration::from_secs(30);
        let cases = [
            ("nothing changed", node("True", EARLY), Some(lease(EARLY)), start),
            ("the status was posted", node("True", LATE), Some(lease(EARLY)), later),
            ("the lease was renewed", node("True", EARLY), Some(lease(LATE)), later),
            ("the lease is gone", node("True", EARLY), None, start),
        ];
        for (name, node, lease, at) in cases {
            assert_eq!(Heartbeat::observed(Some(&first), &node, lease.as_ref(), later).at, at, "{name}");
        }
    }

    #[test]
    fn what_a_silent_node_said_is_no_longer_known() {
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
        let mut node = node("True", "2026-01-01T00:00:00Z");
        let conditions = silenced(&node, now).unwrap();
        let short: Vec<_> =
            conditions.iter().map(|c| (c.type_.as_str(), c.status.as_str(), c.reason.as_deref().unwrap())).collect();
        let expected = [
            ("Ready", "Unknown", "NodeStatusUnknown"),
            ("MemoryPressure", "Unknown", "NodeStatusNeverUpdated"),
            ("DiskPressure", "Unknown", "NodeStatusNeverUpdated"),
            ("PIDPressure", "Unknown", "NodeStatusNeverUpdated"),
        ];
        assert_eq!(short, expected);
        node.status.conditions = conditions;
        assert_eq!(silenced(&node, now), None);
    }
}
