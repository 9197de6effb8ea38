//! What a ReplicaSet's pods ask for: the pure part.

use std::{cmp::Ordering, collections::HashMap, sync::Arc, time::Duration};

use k8s_openapi::{
    api::apps::v1::{ReplicaSetCondition, ReplicaSetStatus},
    jiff::Timestamp,
};

use super::Replicated;
use crate::view::PodView;

/// What to do about the number of pods.
#[derive(Debug)]
pub(super) enum Steps {
    /// It is right.
    Nothing,
    /// So many are missing.
    Create(usize),
    /// These are too many.
    Delete(Vec<Arc<PodView>>),
}

/// Compares what is there with what is asked for.
pub(super) fn steps(wanted: usize, pods: &[Arc<PodView>]) -> Steps {
    let mut active: Vec<Arc<PodView>> = pods.iter().filter(|p| p.is_active()).cloned().collect();
    match active.len().cmp(&wanted) {
        Ordering::Equal => Steps::Nothing,
        Ordering::Less => Steps::Create(wanted - active.len()),
        Ordering::Greater => {
            let surplus = active.len() - wanted;
            let mut on_node: HashMap<String, usize> = HashMap::new();
            for pod in &active {
                *on_node.entry(pod.spec.node_name.clone()).or_default() += 1;
            }
            active.sort_by(|a, b| doom(a, b, &on_node));
            active.truncate(surplus);
            Steps::Delete(active)
        }
    }
}

fn deletion_cost(pod: &PodView) -> i32 {
    let annotations = pod.metadata.annotations.as_ref();
    let cost = annotations.and_then(|a| a.get("controller.kubernetes.io/pod-deletion-cost"));
    cost.and_then(|c| c.parse().ok()).unwrap_or_default()
}

/// Which of two pods is deleted first (`Less`), as Kubernetes' `ActivePodsWithRanks` orders them: the one that is of
/// less use (not placed, not started, not ready, cheaper by annotation), then the one with more siblings on its node,
/// then the younger.
pub(crate) fn doom(a: &PodView, b: &PodView, on_node: &HashMap<String, usize>) -> Ordering {
    let phase = |p: &PodView| match p.status.phase.as_str() {
        "Pending" | "" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    let siblings = |p: &PodView| on_node.get(&p.spec.node_name).copied().unwrap_or_default();
    let restarts = |p: &PodView| p.status.container_statuses.iter().map(|c| c.restart_count).max().unwrap_or_default();
    let created = |p: &PodView| p.metadata.creation_timestamp.as_ref().map(|t| t.0);
    (a.spec.node_name.is_empty().cmp(&b.spec.node_name.is_empty()).reverse())
        .then_with(|| phase(a).cmp(&phase(b)))
        .then_with(|| a.is_ready().cmp(&b.is_ready()))
        .then_with(|| deletion_cost(a).cmp(&deletion_cost(b)))
        .then_with(|| siblings(b).cmp(&siblings(a)))
        .then_with(|| b.ready_since().cmp(&a.ready_since()))
        .then_with(|| restarts(b).cmp(&restarts(a)))
        .then_with(|| created(b).cmp(&created(a)))
}

/// The status the pods amount to, and after what time it changes by itself.
pub(super) fn status(
    set: &impl Replicated,
    pods: &[Arc<PodView>],
    failure: Option<ReplicaSetCondition>,
    now: Timestamp,
) -> (ReplicaSetStatus, Option<Duration>) {
    let template_labels = set.template().metadata.and_then(|m| m.labels).unwrap_or_default();
    let min_ready = i64::from(set.min_ready_seconds());
    let mut counts = [0_i32; 4];
    let mut terminating = 0;
    let mut soon: Option<Duration> = None;
    let [replicas, labelled, ready, available] = &mut counts;
    for pod in pods {
        if !pod.is_active() {
            terminating += i32::from(!pod.is_over());
            continue;
        }
        *replicas += 1;
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        *labelled += i32::from(template_labels.iter().all(|(key, value)| labels.get(key) == Some(value)));
        if let Some(since) = pod.ready_since() {
            *ready += 1;
            let left = min_ready - now.duration_since(since).as_secs();
            if min_ready == 0 || left <= 0 {
                *available += 1;
            } else {
                let left = Duration::from_secs(u64::try_from(left).unwrap_or_default());
                soon = Some(soon.map_or(left, |s| s.min(left)));
            }
        }
    }
    let mut conditions = set.status().conditions.unwrap_or_default();
    let known = conditions.iter().find(|c| c.type_ == "ReplicaFailure").cloned();
    conditions.retain(|c| c.type_ != "ReplicaFailure");
    if let Some(failure) = failure {
        // The same again stays as it was: the message names a pod that differs with each try, and to write that each time
        // would bring the next try about.
        conditions.push(known.filter(|known| known.reason == failure.reason).unwrap_or(failure));
    }
    let some = |count: i32| (count > 0).then_some(count);
    let status = ReplicaSetStatus {
        replicas: *replicas,
        fully_labeled_replicas: some(*labelled),
        ready_replicas: some(*ready),
        available_replicas: some(*available),
        terminating_replicas: Some(terminating),
        observed_generation: set.meta().generation,
        conditions: (!conditions.is_empty()).then_some(conditions),
    };
    (status, soon)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::ReplicaSet;

    use super::*;

    fn set(replicas: i32, min_ready: i32) -> ReplicaSet {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "s", "namespace": "d", "generation": 3},
            "spec": {"replicas": replicas, "minReadySeconds": min_ready,
                     "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}}},
        }))
        .unwrap()
    }

    fn pod(name: &str, json: serde_json::Value) -> Arc<PodView> {
        let mut whole = serde_json::json!({
            "metadata": {"name": name, "labels": {"a": "b"}, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"nodeName": "n"}, "status": {"phase": "Running"},
        });
        for (key, value) in json.as_object().unwrap() {
            for (inner, value) in value.as_object().unwrap() {
                whole[key][inner] = value.clone();
            }
        }
        Arc::new(serde_json::from_value(whole).unwrap())
    }

    fn ready(name: &str, since: &str) -> Arc<PodView> {
        let conditions = serde_json::json!([{"type": "Ready", "status": "True", "lastTransitionTime": since}]);
        pod(name, serde_json::json!({"status": {"conditions": conditions}}))
    }

    #[test]
    fn pods_that_are_over_or_going_do_not_count() {
        let pods = [
            pod("over", serde_json::json!({"status": {"phase": "Failed"}})),
            pod("going", serde_json::json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}})),
            pod("here", serde_json::json!({})),
        ];
        assert!(matches!(steps(3, &pods), Steps::Create(2)));
        assert!(matches!(steps(1, &pods), Steps::Nothing));
        let (status, _) = status(&set(3, 0), &pods, None, Timestamp::UNIX_EPOCH);
        assert_eq!((status.replicas, status.terminating_replicas), (1, Some(1)));
    }

    #[test]
    fn the_least_useful_pods_go_first() {
        let cost = serde_json::json!({"controller.kubernetes.io/pod-deletion-cost": "-5"});
        let pods = [
            ready("old", "2026-01-01T00:00:00Z"),
            ready("young", "2026-01-02T00:00:00Z"),
            pod("cheap", serde_json::json!({"metadata": {"annotations": cost}})),
            pod("unready", serde_json::json!({})),
            pod("pending", serde_json::json!({"status": {"phase": "Pending"}})),
            pod("unplaced", serde_json::json!({"spec": {"nodeName": ""}})),
        ];
        let Steps::Delete(doomed) = steps(1, &pods) else { panic!() };
        let names: Vec<_> = doomed.iter().map(|p| p.metadata.name.clone().unwrap()).collect();
        assert_eq!(names, ["unplaced", "pending", "cheap", "unready", "young"]);
    }

    #[test]
    fn a_pod_is_available_once_it_was_ready_for_long_enough() {
        let pods = [ready("a", "2026-01-01T00:00:00Z"), ready("b", "2026-01-01T00:00:08Z")];
        let now: Timestamp = "2026-01-01T00:00:11Z".parse().unwrap();
        let (status, soon) = status(&set(2, 10), &pods, None, now);
        assert_eq!((status.ready_replicas, status.available_replicas), (Some(2), Some(1)));
        assert_eq!(soon, Some(Duration::from_secs(7)));
    }
}
