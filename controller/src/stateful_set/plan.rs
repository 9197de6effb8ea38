//! The next step of a StatefulSet: pure. One step at a time, in the order of ordinals, unless pods may be managed in
//! parallel.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::{
    api::apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetStatus},
    jiff::Timestamp,
};
use kube::ResourceExt;

use crate::{history::HASH, view::PodView};

/// What to do with the pod of one ordinal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Make it, from the template it is to have.
    Create { ordinal: i32, is_new: bool },
    /// Delete it: it is one too many, of an old revision, or over.
    Delete { name: String, is_over: bool },
}

/// What is to be done, and how it stands.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) steps: Vec<Step>,
    pub(super) status: StatefulSetStatus,
    /// When a pod will have been ready for long enough.
    pub(super) wake: Option<Duration>,
}

/// The pod's ordinal in this set.
pub(super) fn ordinal(set: &StatefulSet, pod: &PodView) -> Option<i32> {
    let name = pod.name_any();
    let digits = name.strip_prefix(&set.name_any())?.strip_prefix('-')?;
    let is_plain = digits == "0" || !digits.starts_with('0');
    digits.parse().ok().filter(|ordinal| is_plain && *ordinal >= 0)
}

/// What is looked at.
pub(super) struct Picture<'a> {
    pub(super) set: &'a StatefulSet,
    pub(super) spec: &'a StatefulSetSpec,
    pub(super) pods: &'a [Arc<PodView>],
    /// The names of the revision most pods have, and of that they shall have.
    pub(super) current: &'a str,
    pub(super) update: &'a str,
    pub(super) collisions: i32,
    pub(super) now: Timestamp,
}

fn is_going(pod: &PodView) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

fn is_running_and_ready(pod: &PodView) -> bool {
    pod.status.phase == "Running" && pod.is_ready()
}

fn revision(pod: &PodView) -> &str {
    pod.labels().get(HASH).map_or("", String::as_str)
}

impl Picture<'_> {
    fn strategy(&self) -> &str {
        let strategy = self.spec.update_strategy.as_ref().and_then(|strategy| strategy.type_.as_deref());
        strategy.filter(|name| !name.is_empty()).unwrap_or("RollingUpdate")
    }

    fn partition(&self) -> Option<i32> {
        self.spec.update_strategy.as_ref()?.rolling_update.as_ref()?.partition
    }

    fn is_parallel(&self) -> bool {
        self.spec.pod_management_policy.as_deref() == Some("Parallel")
    }

    /// How long until a ready pod is available; zero when it is.
    fn until_available(&self, pod: &PodView) -> Option<Duration> {
        let since = pod.ready_since().filter(|_| is_running_and_ready(pod))?;
        let wanted = i64::from(self.spec.min_ready_seconds.unwrap_or_default());
        let left = wanted - self.now.duration_since(since).as_secs();
        Some(Duration::from_secs(if wanted == 0 { 0 } else { u64::try_from(left).unwrap_or_default() }))
    }

    fn is_available(&self, pod: &PodView) -> bool {
        self.until_available(pod) == Some(Duration::ZERO)
    }

    /// The status as the pods are now.
    fn count(&self, wake: &mut Option<Duration>) -> StatefulSetStatus {
        let (mut replicas, mut counts) = (0, [0; 4]);
        let [ready, available, current, updated] = &mut counts;
        for pod in self.pods {
            replicas += 1;
            match self.until_available(pod) {
                None => {}
                Some(left) => {
                    *ready += 1;
                    *available += i32::from(left.is_zero());
                    if !left.is_zero() {
                        *wake = Some(wake.map_or(left, |known| known.min(left)));
                    }
                }
            }
            if !is_going(pod) {
                *current += i32::from(revision(pod) == self.current);
                *updated += i32::from(revision(pod) == self.update);
            }
        }
        let old = self.set.status.clone().unwrap_or_default();
        let some = |count: i32| (count > 0).then_some(count);
        StatefulSetStatus {
            replicas,
            ready_replicas: some(*ready),
            available_replicas: Some(*available),
            current_replicas: some(*current),
            updated_replicas: some(*updated),
            current_revision: Some(self.current.to_owned()),
            update_revision: Some(self.update.to_owned()),
            collision_count: Some(self.collisions),
            observed_generation: self.set.metadata.generation,
            conditions: old.conditions,
        }
    }

    /// Whether the pod of this ordinal is to be of the new revision when it is made.
    fn is_new(&self, ordinal: i32, start: i32, current_replicas: i32) -> bool {
        if self.strategy() != "RollingUpdate" {
            return true;
        }
        match self.partition() {
            Some(partition) => ordinal >= start.saturating_add(partition),
            None => ordinal >= start.saturating_add(current_replicas),
        }
    }

    pub(super) fn plan(&self) -> Plan {
        let mut wake = None;
        let mut status = self.count(&mut wake);
        let start = self.spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or_default();
        let end = start.saturating_add(self.spec.replicas.unwrap_or(1));
        let by_ordinal: BTreeMap<i32, &Arc<PodView>> =
            self.pods.iter().filter_map(|pod| Some((ordinal(self.set, pod)?, pod))).collect();
        let mut steps = Vec::new();
        let before = self.set.status.clone().unwrap_or_default();
        if self.set.metadata.deletion_timestamp.is_none() {
            let current_replicas = before.current_replicas.unwrap_or_default();
            let range = (start, end);
            let is_busy = self.fill(&by_ordinal, range, current_replicas, &mut steps)
                || self.shrink(&by_ordinal, range, &mut steps);
            if !is_busy {
                self.roll(&by_ordinal, range, &mut steps);
            }
        }
        self.foresee(&steps, &mut status);
        // All have the new revision, and are well: it is the current one now.
        let wanted = self.spec.replicas.unwrap_or(1);
        let all = |count: Option<i32>| count.unwrap_or_default() == status.replicas;
        if self.strategy() == "RollingUpdate"
            && status.replicas == wanted
            && all(status.updated_replicas)
            && all(status.ready_replicas)
        {
            status.current_replicas = status.updated_replicas;
            status.current_revision.clone_from(&status.update_revision);
        }
        Plan { steps, status, wake }
    }

    /// Counts as if the steps were done: the next reconcile decides by how many have the current revision.
    fn foresee(&self, steps: &[Step], status: &mut StatefulSetStatus) {
        for step in steps {
            let (name, more) = match step {
                Step::Create { is_new, .. } => {
                    status.replicas += 1;
                    (if *is_new { self.update } else { self.current }, 1)
                }
                Step::Delete { name, .. } => {
                    let pod = self.pods.iter().find(|pod| pod.name_any() == *name);
                    (pod.map_or("", |pod| revision(pod)), -1)
                }
            };
            let counts = [(self.current, &mut status.current_replicas), (self.update, &mut status.updated_replicas)];
            for (_, count) in counts.into_iter().filter(|(revision, _)| *revision == name) {
                *count = Some(count.unwrap_or_default() + more).filter(|count| *count > 0);
            }
        }
    }

    /// Makes what is missing and replaces what is over; true when nothing else is to be done now.
    fn fill(
        &self,
        pods: &BTreeMap<i32, &Arc<PodView>>,
        (start, end): (i32, i32),
        current_replicas: i32,
        steps: &mut Vec<Step>,
    ) -> bool {
        for ordinal in start..end {
            if steps.len() >= crate::pod_owners::BURST {
                return true;
            }
            let Some(pod) = pods.get(&ordinal) else {
                steps.push(Step::Create { ordinal, is_new: self.is_new(ordinal, start, current_replicas) });
                if self.is_parallel() {
                    continue;
                }
                return true;
            };
            if pod.is_over() && !is_going(pod) {
                steps.push(Step::Delete { name: pod.name_any(), is_over: true });
                if self.is_parallel() {
                    continue;
                }
                return true;
            }
            // The next waits until this one is well.
            if !self.is_parallel() && (is_going(pod) || !self.is_available(pod)) {
                return true;
            }
        }
        // Nothing is rolled while pods are being made.
        !steps.is_empty()
    }

    /// Takes away what is too much, from the last; true when nothing else is to be done now.
    fn shrink(&self, pods: &BTreeMap<i32, &Arc<PodView>>, (start, end): (i32, i32), steps: &mut Vec<Step>) -> bool {
        for pod in pods.iter().rev().filter(|(ordinal, _)| !(start..end).contains(ordinal)).map(|(_, pod)| pod) {
            if is_going(pod) {
                if self.is_parallel() {
                    continue;
                }
                return true;
            }
            steps.push(Step::Delete { name: pod.name_any(), is_over: false });
            if !self.is_parallel() || steps.len() >= crate::pod_owners::BURST {
                return true;
            }
        }
        false
    }

    /// Replaces the last pod of an old revision, once those behind it are well.
    fn roll(&self, pods: &BTreeMap<i32, &Arc<PodView>>, (start, end): (i32, i32), steps: &mut Vec<Step>) {
        if self.strategy() != "RollingUpdate" {
            return;
        }
        let first = start.saturating_add(self.partition().unwrap_or_default());
        for ordinal in (first..end).rev() {
            let Some(pod) = pods.get(&ordinal) else { return };
            if revision(pod) != self.update && !is_going(pod) {
                steps.push(Step::Delete { name: pod.name_any(), is_over: false });
                return;
            }
            if is_going(pod) || !self.is_available(pod) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn set(spec: Value, status: Value) -> StatefulSet {
        let mut whole = json!({"replicas": 3, "selector": {}, "template": {}, "serviceName": "s"});
        for (key, value) in spec.as_object().unwrap() {
            whole[key] = value.clone();
        }
        serde_json::from_value(json!({"metadata": {"name": "db", "generation": 2}, "spec": whole, "status": status}))
            .unwrap()
    }

    /// `name:revision:state`, where the state is `ok`, `starting`, `going` or `failed`.
    fn pod(words: &str) -> Arc<PodView> {
        let [name, revision, state] = words.split(':').collect::<Vec<_>>().try_into().unwrap();
        let ready = if state == "ok" || state == "going" { "True" } else { "False" };
        let phase = if state == "failed" { "Failed" } else { "Running" };
        let deleted = if state == "going" { json!("2026-01-01T00:00:00Z") } else { Value::Null };
        let condition = json!({"type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let pod = json!({"metadata": {"name": name, "labels": {(HASH): revision}, "deletionTimestamp": deleted},
                         "status": {"phase": phase, "conditions": [condition]}});
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn plan(set: &StatefulSet, pods: &str) -> Plan {
        let pods: Vec<Arc<PodView>> = pods.split_whitespace().map(pod).collect();
        let now = "2026-01-01T00:00:05Z".parse().unwrap();
        let spec = set.spec.as_ref().unwrap();
        Picture { set, spec, pods: &pods, current: "a", update: "b", collisions: 0, now }.plan()
    }

    fn steps(set: &StatefulSet, pods: &str) -> String {
        let step = |step: &Step| match step {
            Step::Create { ordinal, is_new } => format!("+{ordinal}{}", if *is_new { "b" } else { "a" }),
            Step::Delete { name, .. } => format!("-{name}"),
        };
        plan(set, pods).steps.iter().map(step).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn pods_come_and_go_one_after_the_other() {
        let three = set(json!({}), json!({}));
        let one = set(json!({"replicas": 1}), json!({}));
        for (set, pods, expected) in [
            (&three, "", "+0b"),
            (&three, "db-0:b:starting", ""),
            (&three, "db-0:b:ok", "+1b"),
            (&three, "db-0:b:ok db-1:b:ok db-2:b:ok", ""),
            (&three, "db-1:b:ok", "+0b"),
            (&three, "db-0:b:going db-1:b:ok", ""),
            (&three, "db-0:b:failed db-1:b:ok", "-db-0"),
            (&one, "db-0:b:ok db-1:b:ok db-2:b:ok", "-db-2"),
            (&one, "db-0:b:ok db-1:b:ok db-2:b:going", ""),
            (&one, "db-0:b:ok db-1:b:starting db-2:b:ok", "-db-2"),
            (&one, "db-0:b:ok db-1:b:starting db-2:b:starting", "-db-2"),
            (&one, "db-0:b:ok db-x:b:ok db-01:b:ok", ""),
        ] {
            assert_eq!(steps(set, pods), expected, "{pods}");
        }
    }

    #[test]
    fn in_parallel_all_come_and_go_at_once() {
        let parallel = |replicas: i32| set(json!({"podManagementPolicy": "Parallel", "replicas": replicas}), json!({}));
        assert_eq!(steps(&parallel(3), "db-1:b:starting"), "+0b +2b");
        assert_eq!(steps(&parallel(1), "db-0:b:starting db-1:b:ok db-2:b:starting"), "-db-2 -db-1");
    }

    #[test]
    fn ordinals_may_begin_anywhere() {
        let set = set(json!({"ordinals": {"start": 5}, "replicas": 2}), json!({}));
        assert_eq!(steps(&set, "db-5:b:ok"), "+6b");
        assert_eq!(steps(&set, "db-4:b:ok db-5:b:ok db-6:b:ok"), "-db-4");
    }

    #[test]
    fn a_new_template_is_rolled_out_from_the_last() {
        let rolling = set(json!({}), json!({"currentReplicas": 3}));
        let partition = |partition: i32| {
            set(json!({"updateStrategy": {"rollingUpdate": {"partition": partition}}}), json!({"currentReplicas": 3}))
        };
        let on_delete = set(json!({"updateStrategy": {"type": "OnDelete"}}), json!({}));
        let two = set(json!({}), json!({"currentReplicas": 2}));
        for (set, pods, expected) in [
            (&rolling, "db-0:a:ok db-1:a:ok db-2:a:ok", "-db-2"),
            (&rolling, "db-0:a:ok db-1:a:ok db-2:a:going", ""),
            (&two, "db-0:a:ok db-1:a:ok", "+2b"),
            (&two, "db-0:a:ok db-1:a:ok db-2:b:starting", ""),
            (&two, "db-0:a:ok db-1:a:ok db-2:b:ok", "-db-1"),
            (&partition(2), "db-0:a:ok db-1:a:ok db-2:b:ok", ""),
            (&partition(2), "db-0:a:ok db-2:b:ok", "+1a"),
            (&partition(0), "db-0:a:ok db-1:b:ok db-2:b:ok", "-db-0"),
            (&on_delete, "db-0:a:ok db-1:a:ok db-2:a:ok", ""),
            (&on_delete, "db-0:a:ok db-1:a:ok", "+2b"),
        ] {
            assert_eq!(steps(set, pods), expected, "{pods}");
        }
    }

    #[test]
    fn the_new_revision_is_current_when_all_have_it() {
        let set = set(json!({}), json!({"currentReplicas": 0}));
        let done = plan(&set, "db-0:b:ok db-1:b:ok db-2:b:ok").status;
        assert_eq!((done.current_revision.as_deref(), done.current_replicas), (Some("b"), Some(3)));
        let half = plan(&set, "db-0:a:ok db-1:b:ok db-2:b:ok").status;
        assert_eq!(half.current_revision.as_deref(), Some("a"));
        assert_eq!((half.current_replicas, half.updated_replicas), (None, Some(2)), "the last old one is deleted now");
    }

    #[test]
    fn a_pod_is_available_once_it_was_ready_for_long_enough() {
        let set = set(json!({"minReadySeconds": 9}), json!({}));
        let waiting = plan(&set, "db-0:b:ok");
        assert_eq!((waiting.steps.len(), waiting.wake), (0, Some(Duration::from_secs(4))));
        assert_eq!((waiting.status.ready_replicas, waiting.status.available_replicas), (Some(1), Some(0)));
    }
}
