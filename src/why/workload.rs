//! What a Deployment, ReplicaSet, StatefulSet, DaemonSet or Job waits for: its own conditions first, then the pod of its that is
//! worst off.

use k8s_openapi::{
    api::{
        apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet},
        batch::v1::Job,
        core::v1::Event,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
    jiff::Timestamp,
};

use super::{Answer, latest, message, time_of};

/// What counts of a workload, whichever kind it is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    /// Pods it is to have.
    pub(crate) wanted: i32,
    /// Pods it has made.
    pub(crate) made: i32,
    /// Pods of its newest form.
    pub(crate) updated: i32,
    /// Pods that can be used.
    pub(crate) available: i32,
    /// Why it does nothing at all, if so, and what to do.
    pub(crate) held: Option<(String, &'static str)>,
    /// What its controller says went wrong.
    pub(crate) trouble: Option<(String, Option<Timestamp>)>,
    /// Its controller has not looked at it as it is now.
    pub(crate) unseen: bool,
    /// What it waits for when it has fewer pods than it is to have and nothing is wrong.
    pub(crate) turn: &'static str,
}

fn unseen(meta: &ObjectMeta, observed: Option<i64>) -> bool {
    meta.generation.unwrap_or(0) > observed.unwrap_or(0)
}

/// The pod of a workload that is worst off: what it is called, and what it waits for.
pub(crate) type Worst = (String, Answer);

/// What a workload with these counts waits for.
pub(crate) fn why(counts: &Counts, created: Option<Timestamp>, events: &[Event], worst: Option<Worst>) -> Answer {
    if let Some((held, advice)) = &counts.held {
        return Answer::new(held.clone(), None).advising(*advice);
    }
    let Counts { wanted, made, updated, available, .. } = counts;
    if counts.unseen {
        return Answer::new("waits for its controller to look at it as it is now", created)
            .advising("See that the controllers run (coracle up, coracle server or coracle-controller).");
    }
    if *wanted == 0 && *made == 0 {
        return Answer::new("is to have no pods; it waits for nothing", None);
    }
    if made < wanted
        && let Some(event) = latest(events, &["FailedCreate"])
    {
        return Answer::new(format!("has {made} of {wanted} pods and cannot make more"), time_of(event))
            .saying(message(Some(event)))
            .advising("See the quotas, limits and admission rules of its namespace; it is tried again by itself.");
    }
    if available >= wanted && updated >= wanted && made <= wanted {
        return Answer::new(format!("has all of its {wanted} pods available; it waits for nothing"), None);
    }
    let state = format!("has {available} of {wanted} pods available and {updated} of its newest form");
    let (words, since) = counts.trouble.clone().map_or((None, None), |(words, since)| (Some(words), since));
    match worst {
        Some((name, pod)) => Answer {
            since: pod.since.or(since),
            state: format!("{state}; its pod {name} {}", pod.state),
            words: pod.words.or(words),
            advice: pod.advice,
        },
        None => Answer::new(format!("{state}; {}", counts.turn), since).saying(words.as_deref()),
    }
}

const SCALED: &str = "it waits for its controller to make or end pods";

/// A Deployment's counts.
pub(crate) fn deployment(deployment: &Deployment) -> Counts {
    let status = deployment.status.clone().unwrap_or_default();
    let spec = deployment.spec.as_ref();
    let conditions = status.conditions.unwrap_or_default();
    let stuck = conditions.iter().find(|condition| {
        (condition.type_ == "ReplicaFailure" && condition.status == "True")
            || (condition.type_ == "Progressing" && condition.status == "False")
    });
    let paused = spec.and_then(|spec| spec.paused) == Some(true);
    Counts {
        wanted: spec.and_then(|spec| spec.replicas).unwrap_or(1),
        made: status.replicas.unwrap_or(0),
        updated: status.updated_replicas.unwrap_or(0),
        available: status.available_replicas.unwrap_or(0),
        held: paused.then(|| {
            ("is paused: changes to it wait".to_owned(), "Let it go on with kubectl rollout resume deployment NAME.")
        }),
        trouble: stuck.map(|condition| {
            let words = condition.message.clone().unwrap_or_default();
            (words, condition.last_transition_time.as_ref().map(|time| time.0))
        }),
        unseen: unseen(&deployment.metadata, status.observed_generation),
        turn: SCALED,
    }
}

/// A ReplicaSet's.
pub(crate) fn replica_set(set: &ReplicaSet) -> Counts {
    let status = set.status.clone().unwrap_or_default();
    let mut conditions = status.conditions.unwrap_or_default().into_iter();
    let failure = conditions.find(|condition| condition.type_ == "ReplicaFailure" && condition.status == "True");
    Counts {
        wanted: set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1),
        made: status.replicas,
        updated: status.replicas,
        available: status.available_replicas.unwrap_or(0),
        trouble: failure.map(|condition| {
            (condition.message.unwrap_or_default(), condition.last_transition_time.map(|time| time.0))
        }),
        unseen: unseen(&set.metadata, status.observed_generation),
        turn: SCALED,
        ..Counts::default()
    }
}

/// A StatefulSet's.
pub(crate) fn stateful_set(set: &StatefulSet) -> Counts {
    let status = set.status.clone().unwrap_or_default();
    let spec = set.spec.as_ref();
    let on_delete = spec.and_then(|spec| spec.update_strategy.as_ref()?.type_.as_deref()) == Some("OnDelete");
    let updated = status.updated_replicas.unwrap_or(0);
    Counts {
        wanted: spec.and_then(|spec| spec.replicas).unwrap_or(1),
        made: status.replicas,
        updated: if on_delete { status.replicas } else { updated },
        available: status.available_replicas.unwrap_or(0),
        unseen: unseen(&set.metadata, status.observed_generation),
        turn: "its pods are made one after the other, each when the one before it is available",
        ..Counts::default()
    }
}

/// A DaemonSet's.
pub(crate) fn daemon_set(set: &DaemonSet) -> Counts {
    let status = set.status.clone().unwrap_or_default();
    let spec = set.spec.as_ref();
    let on_delete = spec.and_then(|spec| spec.update_strategy.as_ref()?.type_.as_deref()) == Some("OnDelete");
    let held = (status.desired_number_scheduled == 0).then(|| {
        (
            "has no node to run on".to_owned(),
            "Label a node as its nodeSelector wants it, give its pods tolerations for the nodes' taints, or add a node.",
        )
    });
    let is_unseen = unseen(&set.metadata, status.observed_generation);
    Counts {
        wanted: status.desired_number_scheduled,
        made: status.current_number_scheduled,
        updated: if on_delete { status.current_number_scheduled } else { status.updated_number_scheduled.unwrap_or(0) },
        available: status.number_available.unwrap_or(0),
        held: held.filter(|_| !is_unseen),
        unseen: is_unseen,
        turn: SCALED,
        ..Counts::default()
    }
}

/// What a Job waits for.
pub(crate) fn job(job: &Job, events: &[Event], worst: Option<Worst>) -> Answer {
    let status = job.status.clone().unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let is = |kind: &str| conditions.iter().find(|condition| condition.type_ == kind && condition.status == "True");
    let since = |at: &Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>| at.as_ref().map(|time| time.0);
    if let Some(done) = is("Complete") {
        return Answer::new("is complete; it waits for nothing", since(&done.last_transition_time));
    }
    if let Some(failed) = is("Failed").or_else(|| is("FailureTarget")) {
        let words = [failed.reason.as_deref(), failed.message.as_deref()];
        let words: Vec<&str> = words.into_iter().flatten().collect();
        return Answer::new("has failed and makes no more pods", since(&failed.last_transition_time))
            .saying(Some(&words.join(": ")))
            .advising(
                "The logs of its pods may say why: kubectl logs job/NAME. To try again, delete it and make it anew.",
            );
    }
    if let Some(suspended) = is("Suspended") {
        return Answer::new("is suspended", since(&suspended.last_transition_time))
            .advising("Let it go on by setting spec.suspend to false.");
    }
    let (active, succeeded, failed) =
        (status.active.unwrap_or(0), status.succeeded.unwrap_or(0), status.failed.unwrap_or(0));
    let begun = since(&status.start_time);
    let state = format!("has {active} pods at work, {succeeded} that succeeded and {failed} that failed");
    if active == 0
        && let Some(event) = latest(events, &["FailedCreate"])
    {
        return Answer::new(format!("{state}, and cannot make more"), time_of(event)).saying(message(Some(event)));
    }
    match worst {
        Some((name, pod)) => {
            Answer { state: format!("{state}; its pod {name} {}", pod.state), since: pod.since.or(begun), ..pod }
        }
        None if active == 0 && failed > 0 => {
            Answer::new(format!("{state}; it waits longer after each failure before it tries again"), begun)
        }
        None => Answer::new(state, begun),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const AT: &str = "2026-01-01T00:00:00Z";

    fn say(answer: &Answer) -> String {
        answer.paragraph("It", AT.parse().unwrap())
    }

    #[test]
    fn a_workload_says_its_counts_and_what_its_worst_pod_waits_for() {
        let read = |status, paused: bool| -> Counts {
            deployment(
                &serde_json::from_value(json!({"metadata": {"generation": 1},
                    "spec": {"replicas": 3, "paused": paused, "selector": {}, "template": {}}, "status": status}))
                .unwrap(),
            )
        };
        let full = json!({"observedGeneration": 1, "replicas": 3, "updatedReplicas": 3, "availableReplicas": 3});
        let short = json!({"observedGeneration": 1, "replicas": 3, "updatedReplicas": 3, "availableReplicas": 1});
        let worst = || Some(("web-1".to_owned(), Answer::new("waits for a node", None).advising("Add one.")));
        for (counts, worst, want) in [
            (read(full.clone(), false), None, "It has all of its 3 pods available; it waits for nothing."),
            (read(full, true), None, "It is paused: changes to it wait. Let it go on"),
            (read(json!({}), false), None, "It waits for its controller to look at it as it is now"),
            (
                read(short.clone(), false),
                None,
                "It has 1 of 3 pods available and 3 of its newest form; it waits for its",
            ),
            (
                read(short, false),
                worst(),
                "It has 1 of 3 pods available and 3 of its newest form; its pod web-1 waits for a node. Add one.",
            ),
        ] {
            let said = say(&why(&counts, None, &[], worst));
            assert!(said.starts_with(want), "{said}");
        }
    }

    #[test]
    fn pods_that_may_not_be_made_and_nodes_that_are_not_there_are_told() {
        let event: Event =
            serde_json::from_value(json!({"metadata": {}, "involvedObject": {}, "reason": "FailedCreate",
            "message": "exceeded quota: small", "lastTimestamp": AT}))
            .unwrap();
        let set: ReplicaSet = serde_json::from_value(
            json!({"metadata": {}, "spec": {"replicas": 2, "selector": {}}, "status": {"replicas": 0}}),
        )
        .unwrap();
        let said = say(&why(&replica_set(&set), None, &[event], None));
        assert!(
            said.starts_with(
                "It has 0 of 2 pods and cannot make more, for 0s (since 2026-01-01T00:00:00Z): exceeded quota: small."
            ),
            "{said}"
        );
        let set: DaemonSet = serde_json::from_value(json!({"metadata": {}, "status": {"currentNumberScheduled": 0,
            "desiredNumberScheduled": 0, "numberMisscheduled": 0, "numberReady": 0}}))
        .unwrap();
        assert!(say(&why(&daemon_set(&set), None, &[], None)).starts_with("It has no node to run on. Label a node"));
    }

    #[test]
    fn a_job_says_how_far_it_is() {
        let of = |status| {
            let read: Job = serde_json::from_value(json!({"metadata": {}, "status": status})).unwrap();
            say(&job(&read, &[], None))
        };
        let condition = |kind| {
            json!({"conditions": [{"type": kind, "status": "True", "lastTransitionTime": AT,
            "reason": "BackoffLimitExceeded", "message": "too often"}]})
        };
        for (status, want) in [
            (condition("Complete"), "It is complete; it waits for nothing"),
            (
                condition("Failed"),
                "It has failed and makes no more pods, for 0s (since 2026-01-01T00:00:00Z): BackoffLimitExceeded: too often. The logs",
            ),
            (condition("Suspended"), "It is suspended, "),
            (json!({"active": 2, "succeeded": 1}), "It has 2 pods at work, 1 that succeeded and 0 that failed."),
            (json!({"failed": 1}), "It has 0 pods at work, 0 that succeeded and 1 that failed; it waits longer"),
        ] {
            assert!(of(status).starts_with(want), "{want}");
        }
    }
}
