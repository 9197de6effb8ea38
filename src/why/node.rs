//! What a Node waits for.

use k8s_openapi::api::core::v1::Node;

use super::Answer;

/// Whether the node takes part in the cluster.
pub(crate) fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
}

/// What `node` waits for.
pub(crate) fn why(node: &Node) -> Answer {
    let created = node.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let conditions = node.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let Some(ready) = conditions.iter().find(|condition| condition.type_ == "Ready") else {
        return Answer::new("has not told of itself yet", created).advising("Start its agent: coracle agent.");
    };
    let time = |at: &Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>| at.as_ref().map(|time| time.0);
    if ready.status == "Unknown" {
        return Answer::new("does not answer", time(&ready.last_transition_time))
            .saying(ready.message.as_deref())
            .advising("See that the machine is on, that its agent runs, and that it reaches the API server.");
    }
    if ready.status != "True" {
        return Answer::new("answers, but takes no pods", time(&ready.last_transition_time))
            .saying(ready.message.as_deref());
    }
    let short = conditions.iter().find(|c| c.type_ != "Ready" && c.status == "True");
    if let Some(condition) = short {
        let advice = match condition.type_.as_str() {
            "MemoryPressure" => "End pods, give them lower limits, or give the machine more memory.",
            "DiskPressure" => "Remove what is not needed from its disk: files, images (coracle image prune), old pods.",
            "PIDPressure" => {
                "Some program starts more and more processes: find it on the machine, or lower --pod-pids-limit."
            }
            _ => "See what wrote this condition.",
        };
        return Answer::new(
            format!("is ready, but has the condition {}", condition.type_),
            time(&condition.last_transition_time),
        )
        .saying(condition.message.as_deref())
        .advising(advice);
    }
    let spec = node.spec.clone().unwrap_or_default();
    if spec.unschedulable == Some(true) {
        return Answer::new("is ready, but is to take no new pods (cordoned)", None)
            .advising("Let it take pods again with kubectl uncordon NAME.");
    }
    let taints = spec.taints.unwrap_or_default().into_iter().filter(|taint| taint.effect != "PreferNoSchedule");
    let taints: Vec<String> = taints.map(|taint| format!("{}:{}", taint.key, taint.effect)).collect();
    if taints.is_empty() {
        Answer::new("is ready; it waits for nothing", time(&ready.last_transition_time))
    } else {
        Answer::new(
            format!("is ready, for pods that tolerate {}", taints.join(", ")),
            time(&ready.last_transition_time),
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_node_says_why_it_takes_no_pods() {
        let with = |spec: Value, conditions: &[(&str, &str)]| {
            let conditions: Vec<Value> = conditions.iter().map(|(t, s)| json!({"type": t, "status": s})).collect();
            let node = json!({"metadata": {}, "spec": spec, "status": {"conditions": conditions}});
            why(&serde_json::from_value(node).unwrap()).state
        };
        let ready = [("Ready", "True"), ("DiskPressure", "False")];
        for (spec, conditions, want) in [
            (json!({}), &[][..], "has not told of itself yet"),
            (json!({}), &[("Ready", "Unknown")], "does not answer"),
            (json!({}), &[("Ready", "False")], "answers, but takes no pods"),
            (json!({}), &[("DiskPressure", "True"), ("Ready", "True")], "is ready, but has the condition DiskPressure"),
            (json!({"unschedulable": true}), &ready, "is ready, but is to take no new pods (cordoned)"),
            (
                json!({"taints": [{"key": "a", "effect": "NoSchedule"}]}),
                &ready,
                "is ready, for pods that tolerate a:NoSchedule",
            ),
            (json!({}), &ready, "is ready; it waits for nothing"),
        ] {
            assert_eq!(with(spec, conditions), want);
        }
    }
}
