//! What a budget amounts to: the pure part.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use coracle_proto::meta::set_condition;
use k8s_openapi::{
    api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec, PodDisruptionBudgetStatus},
    apimachinery::pkg::{
        apis::meta::v1::{Condition, Time},
        util::intstr::IntOrString,
    },
    jiff::Timestamp,
};

use crate::view::PodView;

/// How long a pod whose eviction was allowed counts as gone: if it is still there then, nobody deleted it.
const DELETION_TIMEOUT: Duration = Duration::from_secs(120);

/// Whether the budget is told in parts of what the pods' owners want, rather than of the pods there are.
pub(super) fn needs_scale(spec: &PodDisruptionBudgetSpec) -> bool {
    spec.max_unavailable.is_some() || matches!(spec.min_available, Some(IntOrString::String(_)))
}

/// The number, or that part of the whole, rounded up.
fn of_whole(count: &IntOrString, whole: i32) -> i32 {
    match count {
        IntOrString::Int(number) => *number,
        IntOrString::String(text) => {
            let percent: i64 = text.strip_suffix('%').and_then(|percent| percent.parse().ok()).unwrap_or(0);
            let part = (i64::from(whole) * percent + 99).div_euclid(100);
            i32::try_from(part).unwrap_or(i32::MAX)
        }
    }
}

/// How many pods must stay healthy, of those expected.
fn desired(spec: &PodDisruptionBudgetSpec, expected: i32) -> i32 {
    match (&spec.max_unavailable, &spec.min_available) {
        (Some(most), _) => expected.saturating_sub(of_whole(most, expected)).max(0),
        (None, Some(least)) => of_whole(least, expected),
        (None, None) => 0,
    }
}

fn left(since: Timestamp, now: Timestamp) -> Option<Duration> {
    let passed = now.duration_since(since);
    let passed = Duration::try_from(passed).unwrap_or_default();
    DELETION_TIMEOUT.checked_sub(passed).filter(|left| !left.is_zero())
}

fn condition(
    kind: &str,
    is_so: bool,
    (reason, message): (&str, String),
    generation: Option<i64>,
    now: Timestamp,
) -> Condition {
    Condition {
        type_: kind.to_owned(),
        status: if is_so { "True" } else { "False" }.to_owned(),
        reason: reason.to_owned(),
        message,
        observed_generation: generation,
        last_transition_time: Time(now),
    }
}

/// The status the pods amount to, and after what time it must be looked at again.
pub(super) fn status(
    budget: &PodDisruptionBudget,
    pods: &[Arc<PodView>],
    expected: i32,
    now: Timestamp,
) -> (PodDisruptionBudgetStatus, Option<Duration>) {
    let (old, spec) = (budget.status.clone().unwrap_or_default(), budget.spec.clone().unwrap_or_default());
    let noted = old.disrupted_pods.unwrap_or_default();
    let (mut disrupted, mut healthy, mut again) = (BTreeMap::new(), 0, None);
    for pod in pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
        let name = pod.metadata.name.clone().unwrap_or_default();
        let going = noted.get(&name).and_then(|time| left(time.0, now).map(|left| (time.clone(), left)));
        match going {
            Some((time, left)) => {
                disrupted.insert(name, time);
                again = Some(again.map_or(left, |soonest: Duration| soonest.min(left)));
            }
            None => healthy += i32::from(pod.is_ready()),
        }
    }
    let desired = desired(&spec, expected);
    // A budget that covers no pods yet allows nothing: when the first one comes, it may be looked at before this is.
    let allowed = if expected > 0 { healthy.saturating_sub(desired).max(0) } else { 0 };
    let generation = budget.metadata.generation;
    let reason = if allowed > 0 { "SufficientPods" } else { "InsufficientPods" };
    let mut conditions = old.conditions.unwrap_or_default();
    let told = condition("DisruptionAllowed", allowed > 0, (reason, String::new()), generation, now);
    set_condition(&mut conditions, told);
    let status = PodDisruptionBudgetStatus {
        conditions: Some(conditions),
        current_healthy: Some(healthy),
        desired_healthy: Some(desired),
        disrupted_pods: Some(disrupted).filter(|pods| !pods.is_empty()),
        disruptions_allowed: Some(allowed),
        expected_pods: Some(expected),
        observed_generation: generation,
    };
    (status, again)
}

/// The status of a budget that cannot be worked out: it allows nothing, and says why.
pub(super) fn failed(budget: &PodDisruptionBudget, why: String, now: Timestamp) -> PodDisruptionBudgetStatus {
    let mut status = budget.status.clone().unwrap_or_default();
    status.disruptions_allowed = Some(0);
    let told = condition("DisruptionAllowed", false, ("SyncFailed", why), status.observed_generation, now);
    set_condition(status.conditions.get_or_insert_default(), told);
    status
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn now() -> Timestamp {
        "2026-01-01T00:10:00Z".parse().unwrap()
    }

    fn budget(spec: Value, status: Value) -> PodDisruptionBudget {
        let meta = json!({"name": "b", "generation": 3});
        serde_json::from_value(json!({"metadata": meta, "spec": spec, "status": status})).unwrap()
    }

    fn pods(count: usize, ready: usize) -> Vec<Arc<PodView>> {
        let pod = |i: usize| {
            let ready = if i < ready { "True" } else { "False" };
            json!({"metadata": {"name": format!("p{i}")}, "status": {"conditions": [{"type": "Ready", "status": ready}]}})
        };
        (0..count).map(|i| Arc::new(serde_json::from_value(pod(i)).unwrap())).collect()
    }

    #[test]
    fn what_is_allowed_is_what_is_healthy_beyond_what_must_be() {
        for (spec, expected, ready, desired, allowed) in [
            (json!({"minAvailable": 2}), 3, 3, 2, 1),
            (json!({"minAvailable": 2}), 3, 1, 2, 0),
            (json!({"minAvailable": "50%"}), 3, 3, 2, 1),
            (json!({"minAvailable": "100%"}), 3, 3, 3, 0),
            (json!({"maxUnavailable": 1}), 3, 3, 2, 1),
            (json!({"maxUnavailable": "34%"}), 3, 3, 1, 2),
            (json!({"maxUnavailable": 5}), 3, 3, 0, 3),
            (json!({"minAvailable": 0}), 0, 3, 0, 0),
            (json!({}), 3, 2, 0, 2),
        ] {
            let (status, again) = status(&budget(spec.clone(), json!({})), &pods(3, ready), expected, now());
            let found = (status.desired_healthy, status.disruptions_allowed, status.observed_generation, again);
            assert_eq!(found, (Some(desired), Some(allowed), Some(3), None), "{spec}");
            let reason = if allowed > 0 { "SufficientPods" } else { "InsufficientPods" };
            assert_eq!(status.conditions.unwrap()[0].reason, reason);
        }
    }

    #[test]
    fn evicted_pods_count_as_gone_until_they_should_be() {
        let noted = json!({"disruptedPods": {"p0": "2026-01-01T00:09:00Z", "p1": "2026-01-01T00:07:00Z",
            "gone": "2026-01-01T00:09:59Z"}});
        let (status, again) = status(&budget(json!({"minAvailable": 1}), noted), &pods(3, 3), 3, now());
        assert_eq!(status.disrupted_pods.unwrap().into_keys().collect::<Vec<_>>(), ["p0"]);
        assert_eq!((status.current_healthy, status.disruptions_allowed), (Some(2), Some(1)));
        assert_eq!(again, Some(Duration::from_secs(60)));
    }

    #[test]
    fn what_cannot_be_worked_out_allows_nothing_and_says_why() {
        let old = json!({"disruptionsAllowed": 2, "observedGeneration": 2});
        let status = failed(&budget(json!({}), old), "no scale".to_owned(), now());
        assert_eq!(status.disruptions_allowed, Some(0));
        let condition = status.conditions.unwrap().remove(0);
        assert_eq!((condition.reason.as_str(), condition.message.as_str()), ("SyncFailed", "no scale"));
    }
}
