//! A Deployment's status: counts over its ReplicaSets, and the conditions Available, Progressing, ReplicaFailure.

use k8s_openapi::{
    api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};

use super::rollout::{limits, replicas};

/// `progressDeadlineSeconds` that means none.
const NO_DEADLINE: i32 = i32::MAX;

pub(crate) const NEW_AVAILABLE: &str = "NewReplicaSetAvailable";
pub(crate) const TIMED_OUT: &str = "ProgressDeadlineExceeded";

/// The condition of this type.
pub(crate) fn find<'a>(status: &'a DeploymentStatus, kind: &str) -> Option<&'a DeploymentCondition> {
    status.conditions.iter().flatten().find(|c| c.type_ == kind)
}

/// A condition as of `now`.
pub(crate) fn condition(
    kind: &str,
    status: &str,
    reason: &str,
    message: String,
    now: Timestamp,
) -> DeploymentCondition {
    DeploymentCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    }
}

/// Sets a condition. One that says the same stays as it is; one that only gives another reason keeps the time it came
/// true or false.
pub(crate) fn set(conditions: &mut Vec<DeploymentCondition>, mut new: DeploymentCondition) {
    if let Some(old) = conditions.iter().find(|c| c.type_ == new.type_) {
        if old.status == new.status && old.reason == new.reason {
            return;
        }
        if old.status == new.status {
            new.last_transition_time.clone_from(&old.last_transition_time);
        }
    }
    conditions.retain(|c| c.type_ != new.type_);
    conditions.push(new);
}

fn sum(sets: &[&ReplicaSet], count: impl Fn(&k8s_openapi::api::apps::v1::ReplicaSetStatus) -> i32) -> i32 {
    sets.iter().filter_map(|set| set.status.as_ref()).map(count).sum()
}

/// The status that the ReplicaSets amount to, `Progressing` aside.
pub(crate) fn counted(
    deployment: &Deployment,
    new: Option<&ReplicaSet>,
    all: &[&ReplicaSet],
    now: Timestamp,
) -> DeploymentStatus {
    let old = deployment.status.clone().unwrap_or_default();
    let mut conditions = old.conditions.unwrap_or_default();
    let available = sum(all, |s| s.available_replicas.unwrap_or_default());
    let asked: i32 = all.iter().map(|set| super::rollout::asked(set)).sum();
    let some = |count: i32| (count > 0).then_some(count);
    let minimum = replicas(deployment) - limits(deployment).1;
    set(
        &mut conditions,
        if available >= minimum {
            let message = "Deployment has minimum availability.".to_owned();
            condition("Available", "True", "MinimumReplicasAvailable", message, now)
        } else {
            let message = "Deployment does not have minimum availability.".to_owned();
            condition("Available", "False", "MinimumReplicasUnavailable", message, now)
        },
    );
    let failure = new.and_then(|n| n.status.as_ref()).and_then(|s| s.conditions.as_ref());
    match failure.and_then(|c| c.iter().find(|c| c.type_ == "ReplicaFailure" && c.status == "True")) {
        Some(failure) => {
            let (reason, message) = (failure.reason.as_deref().unwrap_or_default(), failure.message.clone());
            let own = condition("ReplicaFailure", "True", reason, message.unwrap_or_default(), now);
            set(&mut conditions, own);
        }
        None => conditions.retain(|c| c.type_ != "ReplicaFailure"),
    }
    DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: some(sum(all, |s| s.replicas)),
        updated_replicas: some(new.and_then(|n| n.status.as_ref()).map_or(0, |s| s.replicas)),
        ready_replicas: some(sum(all, |s| s.ready_replicas.unwrap_or_default())),
        available_replicas: some(available),
        unavailable_replicas: some(asked - available),
        terminating_replicas: Some(sum(all, |s| s.terminating_replicas.unwrap_or_default())),
        collision_count: old.collision_count,
        conditions: Some(conditions),
    }
}

/// Whether the rollout is over: every pod is new and available, none is left over.
pub(crate) fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = replicas(deployment);
    status.updated_replicas.unwrap_or_default() == wanted
        && status.replicas.unwrap_or_default() == wanted
        && status.available_replicas.unwrap_or_default() == wanted
        && status.observed_generation >= deployment.metadata.generation
}

fn progressed(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let count = Option::<i32>::unwrap_or_default;
    let outdated = |s: &DeploymentStatus| count(s.replicas) - count(s.updated_replicas);
    count(new.updated_replicas) > count(old.updated_replicas)
        || outdated(new) < outdated(old)
        || count(new.ready_replicas) > count(old.ready_replicas)
        || count(new.available_replicas) > count(old.available_replicas)
}

/// The deadline in seconds, unless there is none.
fn deadline(deployment: &Deployment) -> Option<i64> {
    let seconds = deployment.spec.as_ref().and_then(|spec| spec.progress_deadline_seconds)?;
    (seconds != NO_DEADLINE).then(|| i64::from(seconds))
}

/// Seconds until the rollout counts as stuck; 0 or less when it does already.
pub(crate) fn until_stuck(deployment: &Deployment, status: &DeploymentStatus, now: Timestamp) -> Option<i64> {
    let progressing = find(status, "Progressing")?;
    if matches!(progressing.reason.as_deref(), Some(NEW_AVAILABLE | TIMED_OUT)) || is_complete(deployment, status) {
        return None;
    }
    let since = progressing.last_update_time.as_ref()?.0;
    Some(deadline(deployment)? - now.duration_since(since).as_secs())
}

/// Brings `Progressing` up to date.
pub(crate) fn judge_progress(
    deployment: &Deployment,
    new: Option<&ReplicaSet>,
    status: &mut DeploymentStatus,
    now: Timestamp,
) {
    if deadline(deployment).is_none() {
        if let Some(conditions) = &mut status.conditions {
            conditions.retain(|c| c.type_ != "Progressing");
        }
        return;
    }
    let subject = match new.and_then(|n| n.metadata.name.as_deref()) {
        Some(name) => format!("ReplicaSet {name:?}"),
        None => format!("Deployment {:?}", deployment.metadata.name.as_deref().unwrap_or_default()),
    };
    let old = deployment.status.clone().unwrap_or_default();
    let current = find(status, "Progressing").cloned();
    let at_rest = status.replicas == status.updated_replicas
        && current.as_ref().is_some_and(|c| c.reason.as_deref() == Some(NEW_AVAILABLE));
    if at_rest {
        return;
    }
    let verdict = if is_complete(deployment, status) {
        condition("Progressing", "True", NEW_AVAILABLE, format!("{subject} has successfully progressed."), now)
    } else if progressed(&old, status) {
        let mut condition =
            condition("Progressing", "True", "ReplicaSetUpdated", format!("{subject} is progressing."), now);
        if let Some(current) = current.filter(|c| c.status == "True") {
            condition.last_transition_time = current.last_transition_time;
        }
        // Progress counts even when the reason stays: the deadline starts anew.
        let conditions = status.conditions.get_or_insert_default();
        conditions.retain(|c| c.type_ != "Progressing");
        conditions.push(condition);
        return;
    } else if until_stuck(deployment, status, now).is_some_and(|left| left < 0) {
        condition("Progressing", "False", TIMED_OUT, format!("{subject} has timed out progressing."), now)
    } else {
        return;
    };
    set(status.conditions.get_or_insert_default(), verdict);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(status: serde_json::Value) -> Deployment {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "d", "generation": 1},
            "spec": {"replicas": 2, "progressDeadlineSeconds": 600, "selector": {}, "template": {},
                     "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}},
            "status": status,
        }))
        .unwrap()
    }

    fn set_of(count: i32) -> ReplicaSet {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "d-1"}, "spec": {"replicas": 2, "selector": {}},
            "status": {"replicas": count, "readyReplicas": count, "availableReplicas": count},
        }))
        .unwrap()
    }

    fn judge(deployment: &Deployment, new: &ReplicaSet, now: &str) -> DeploymentStatus {
        let now = now.parse().unwrap();
        let mut status = counted(deployment, Some(new), &[new], now);
        judge_progress(deployment, Some(new), &mut status, now);
        status
    }

    fn reason(status: &DeploymentStatus, kind: &str) -> String {
        find(status, kind).and_then(|c| c.reason.clone()).unwrap_or_default()
    }

    #[test]
    fn a_rollout_progresses_completes_and_stays_complete() {
        let halfway = judge(&deployment(serde_json::json!({})), &set_of(1), "2026-01-01T00:00:00Z");
        assert_eq!(reason(&halfway, "Progressing"), "ReplicaSetUpdated");
        assert_eq!(reason(&halfway, "Available"), "MinimumReplicasUnavailable");
        let started = deployment(serde_json::to_value(&halfway).unwrap());
        let done = judge(&started, &set_of(2), "2026-01-01T00:00:09Z");
        assert_eq!(reason(&done, "Progressing"), NEW_AVAILABLE);
        assert_eq!(
            find(&done, "Progressing").unwrap().last_transition_time,
            find(&halfway, "Progressing").unwrap().last_transition_time
        );
        let at_rest = deployment(serde_json::to_value(&done).unwrap());
        assert_eq!(judge(&at_rest, &set_of(2), "2026-01-01T01:00:00Z"), done);
    }

    #[test]
    fn a_rollout_without_progress_is_stuck_after_its_deadline() {
        let halfway = judge(&deployment(serde_json::json!({})), &set_of(1), "2026-01-01T00:00:00Z");
        let started = deployment(serde_json::to_value(&halfway).unwrap());
        let later = judge(&started, &set_of(1), "2026-01-01T00:09:59Z");
        assert_eq!(reason(&later, "Progressing"), "ReplicaSetUpdated");
        assert_eq!(until_stuck(&started, &later, "2026-01-01T00:09:59Z".parse().unwrap()), Some(1));
        let stuck = judge(&started, &set_of(1), "2026-01-01T00:10:01Z");
        assert_eq!(reason(&stuck, "Progressing"), TIMED_OUT);
        assert_eq!(find(&stuck, "Progressing").unwrap().status, "False");
    }
}
