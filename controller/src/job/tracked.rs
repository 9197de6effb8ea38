//! What a Job sees in its pods: their index, their finalizer, whether they failed, when they ended. Pure.

use std::{collections::BTreeSet, time::Duration};

use k8s_openapi::{
    api::batch::v1::{Job, JobSpec},
    jiff::{SignedDuration, Timestamp},
};

use crate::view::{ContainerStatusView, PodView};

/// Keeps a pod until it has been counted.
pub(super) const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
/// Which completion a pod is for.
pub(super) const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// How often the index had failed before this pod.
pub(super) const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
/// How often that did not count.
pub(super) const IGNORED_FAILURES: &str = "batch.kubernetes.io/job-index-ignored-failure-count";

/// The first wait after a failure; it doubles with each.
const FIRST_WAIT: u64 = 10;
/// The longest.
const LONGEST_WAIT: u64 = 600;

/// Whether each completion has an index.
pub(super) fn is_indexed(spec: &JobSpec) -> bool {
    spec.completion_mode.as_deref() == Some("Indexed")
}

/// Whether pods are replaced only once they have failed, not as soon as they are ending.
pub(super) fn replaces_only_failed(job: &Job) -> bool {
    let spec = job.spec.as_ref();
    spec.is_some_and(|s| s.pod_replacement_policy.as_deref() == Some("Failed") || s.pod_failure_policy.is_some())
}

/// Whether it has not been counted yet.
pub(super) fn is_tracked(pod: &PodView) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER)
}

fn annotation(pod: &PodView, key: &str) -> Option<i32> {
    pod.metadata.annotations.as_ref()?.get(key)?.parse().ok().filter(|number| *number >= 0)
}

/// Which completion it is for.
pub(super) fn index(pod: &PodView) -> Option<i32> {
    annotation(pod, INDEX)
}

/// How often its index failed before it: what counts, and what does not.
pub(super) fn failures_before(pod: &PodView) -> (i32, i32) {
    (annotation(pod, FAILURES).unwrap_or_default(), annotation(pod, IGNORED_FAILURES).unwrap_or_default())
}

pub(super) fn has_succeeded(pod: &PodView) -> bool {
    pod.status.phase == "Succeeded"
}

/// Being deleted, and not over yet.
pub(super) fn is_terminating(pod: &PodView) -> bool {
    !pod.is_over() && pod.metadata.deletion_timestamp.is_some()
}

/// Whether a pod is a failure of the Job's: failed, or ending before it could succeed.
pub(super) fn has_failed(job: &Job, pod: &PodView) -> bool {
    pod.status.phase == "Failed"
        || (!replaces_only_failed(job) && pod.metadata.deletion_timestamp.is_some() && !has_succeeded(pod))
}

/// When the last of its containers ended; or when it ceased to be ready, was deleted, was made.
pub(super) fn ended(pod: &PodView) -> Timestamp {
    let sidecars: BTreeSet<&str> = pod
        .spec
        .init_containers
        .iter()
        .filter(|container| container.restart_policy.as_deref() == Some("Always"))
        .map(|container| container.name.as_str())
        .collect();
    let sidecars = pod.status.init_container_statuses.iter().filter(|status| sidecars.contains(status.name.as_str()));
    let end = |status: &ContainerStatusView| Some(status.state.terminated.as_ref()?.finished_at.as_ref()?.0);
    let ends: Option<Vec<Timestamp>> = pod.status.container_statuses.iter().chain(sidecars).map(end).collect();
    let unready = || pod.readiness_changed().filter(|_| !pod.is_ready());
    let deleted = || {
        let grace = SignedDuration::from_secs(pod.metadata.deletion_grace_period_seconds.unwrap_or_default());
        pod.metadata.deletion_timestamp.as_ref()?.0.checked_sub(grace).ok()
    };
    let made = || pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    ends.and_then(|ends| ends.into_iter().max()).or_else(unready).or_else(deleted).or_else(made).unwrap_or_default()
}

/// How long to wait after so many failures in a row, the last of them at `last`.
pub(super) fn wait(failures: i32, last: Option<Timestamp>, now: Timestamp) -> Duration {
    let (Some(last), Ok(failures @ 1..)) = (last, u32::try_from(failures)) else { return Duration::ZERO };
    let wait = FIRST_WAIT.saturating_mul(1 << (failures - 1).min(16)).min(LONGEST_WAIT);
    let passed = now.duration_since(last);
    Duration::from_secs(wait).saturating_sub(Duration::try_from(passed).unwrap_or_default())
}

/// How often pods of a Job failed since one last succeeded. Kept in memory alone: after a restart the next pod comes
/// sooner, which does no harm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Backoff {
    failures: i32,
    last: Option<Timestamp>,
}

impl Backoff {
    /// What it becomes by these ends.
    pub(super) fn with(self, succeeded: &[&PodView], failed: &[&PodView]) -> Self {
        let last_success = succeeded.iter().map(|pod| ended(pod)).max();
        let since = failed.iter().map(|pod| ended(pod)).filter(|at| last_success.is_none_or(|success| *at > success));
        let before = if succeeded.is_empty() { self } else { Self::default() };
        since.fold(before, |so_far, at| Self { failures: so_far.failures + 1, last: so_far.last.max(Some(at)) })
    }

    /// How long until the next pod.
    pub(super) fn wait(self, now: Timestamp) -> Duration {
        wait(self.failures, self.last, now)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(json: Value) -> PodView {
        serde_json::from_value(json).unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn ended_at(second: i64) -> PodView {
        let time = at(second).to_string();
        pod(json!({"metadata": {"name": "p"}, "status": {
            "containerStatuses": [{"state": {"terminated": {"finishedAt": time}}}]}}))
    }

    #[test]
    fn a_pod_ends_with_its_last_container() {
        let terminated = |second: i64| json!({"terminated": {"finishedAt": at(second).to_string()}});
        let meta = json!({"name": "p", "creationTimestamp": at(1).to_string()});
        let spec = json!({"initContainers": [{"name": "setup"}, {"name": "side", "restartPolicy": "Always"}]});
        let init = json!([{"name": "setup", "state": terminated(99)}, {"name": "side", "state": terminated(30)}]);
        let statuses = json!([{"state": terminated(10)}, {"state": terminated(20)}]);
        let whole = json!({"metadata": meta, "spec": spec,
                           "status": {"containerStatuses": statuses, "initContainerStatuses": init}});
        assert_eq!(ended(&pod(whole)), at(30));
        let unready = json!([{"type": "Ready", "status": "False", "lastTransitionTime": at(5).to_string()}]);
        let lost = json!({"metadata": meta, "status": {"containerStatuses": [{"state": {}}], "conditions": unready}});
        assert_eq!(ended(&pod(lost)), at(5));
        assert_eq!(ended(&pod(json!({"metadata": meta}))), at(1));
    }

    #[test]
    fn waits_double_up_to_ten_minutes() {
        let waits: Vec<u64> = [0, 1, 2, 3, 6, 7, 40].map(|n| wait(n, Some(at(100)), at(100)).as_secs()).to_vec();
        assert_eq!(waits, [0, 10, 20, 40, 320, 600, 600]);
        assert_eq!(wait(1, Some(at(100)), at(104)).as_secs(), 6);
        assert_eq!(wait(1, Some(at(100)), at(500)).as_secs(), 0);
    }

    #[test]
    fn a_success_forgets_the_failures_before_it() {
        let (early, success, late) = (ended_at(10), ended_at(20), ended_at(30));
        let twice = Backoff::default().with(&[], &[&early]).with(&[], &[&late]);
        assert_eq!(twice, Backoff { failures: 2, last: Some(at(30)) });
        assert_eq!(twice.with(&[&success], &[]), Backoff::default());
        let mixed = twice.with(&[&success], &[&early, &late]);
        assert_eq!(mixed, Backoff { failures: 1, last: Some(at(30)) });
    }
}
