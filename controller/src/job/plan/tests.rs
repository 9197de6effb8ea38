//! What a Job does next, step by step to its end.

use serde_json::{Value, json};

use super::*;

const NOW: i64 = 1_000_000;

fn at(second: i64) -> Value {
    json!(Timestamp::from_second(second).unwrap().to_string())
}

fn job(spec: Value, status: Value) -> Job {
    let mut whole = json!({"parallelism": 2, "completions": 3, "backoffLimit": 6, "template": {}});
    for (key, value) in spec.as_object().unwrap() {
        whole[key] = value.clone();
    }
    serde_json::from_value(json!({"metadata": {"name": "j", "uid": "u"}, "spec": whole, "status": status})).unwrap()
}

/// A pod that has not been counted: its name (and uid), phase, and further fields.
fn pod(name: &str, phase: &str, more: Value) -> Arc<PodView> {
    let mut pod = json!({
        "metadata": {"name": name, "uid": name, "finalizers": [tracked::FINALIZER], "creationTimestamp": at(NOW - 1000)},
        "status": {"phase": phase, "conditions": [{"type": "Ready", "status": if phase == "Running" {"True"} else {"False"}}]},
    });
    for (key, value) in more.as_object().unwrap() {
        for (inner, value) in value.as_object().unwrap() {
            pod[key][inner] = value.clone();
        }
    }
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn indexed(name: &str, phase: &str, index: i32) -> Arc<PodView> {
    pod(name, phase, json!({"metadata": {"annotations": {(tracked::INDEX): index.to_string()}}}))
}

fn going(name: &str) -> Arc<PodView> {
    pod(name, "Running", json!({"metadata": {"deletionTimestamp": at(NOW)}}))
}

fn plan(job: &Job, pods: &[Arc<PodView>]) -> Plan {
    let now = Timestamp::from_second(NOW).unwrap();
    Picture { job, spec: job.spec.as_ref().unwrap(), pods, backoff: Backoff::default(), now }.plan()
}

fn names(pods: &[Arc<PodView>]) -> Vec<&str> {
    pods.iter().map(|pod| pod.metadata.name.as_deref().unwrap()).collect()
}

fn reason(plan: &Plan) -> Option<&str> {
    plan.outcome.as_ref().map(|outcome| outcome.reason.as_str())
}

fn conditions(status: &JobStatus) -> Vec<&str> {
    status.conditions.iter().flatten().filter(|c| c.status == "True").map(|c| c.type_.as_str()).collect()
}

#[test]
fn as_many_run_as_may_and_are_still_needed() {
    let run = |n: usize| (0..n).map(|n| pod(&format!("r{n}"), "Running", json!({}))).collect::<Vec<_>>();
    for (spec, succeeded, running, created, dropped) in [
        (json!({}), 0, 0, 2, 0),
        (json!({}), 0, 1, 1, 0),
        (json!({}), 2, 0, 1, 0),
        (json!({}), 2, 1, 0, 0),
        (json!({"parallelism": 0}), 0, 2, 0, 2),
        (json!({"completions": null}), 0, 1, 1, 0),
        (json!({"completions": null}), 1, 1, 0, 0),
        (json!({"suspend": true}), 0, 2, 0, 2),
    ] {
        let plan = plan(&job(spec.clone(), json!({"succeeded": succeeded, "startTime": at(NOW)})), &run(running));
        assert_eq!((plan.create.len(), plan.drop.len()), (created, dropped), "{spec} {succeeded} {running}");
        assert_eq!(plan.status.active.unwrap_or_default(), number(running + created - dropped));
    }
}

#[test]
fn a_pod_is_noted_then_let_go_then_counted() {
    let pods = [pod("good", "Succeeded", json!({})), pod("bad", "Failed", json!({}))];
    let first = plan(&job(json!({}), json!({"startTime": at(NOW)})), &pods);
    let uncounted = first.status.uncounted_terminated_pods.clone().unwrap();
    assert_eq!(uncounted.succeeded.unwrap(), ["good"]);
    assert_eq!(uncounted.failed.unwrap(), ["bad"]);
    assert_eq!((first.status.succeeded, first.status.failed), (None, None));
    assert_eq!(names(&first.untrack), ["bad", "good"]);
    // Cut here, and begun again: nothing is noted twice.
    let noted = serde_json::to_value(&first.status).unwrap();
    let second = plan(&job(json!({}), noted.clone()), &pods);
    assert!(is_same(&second.status, &first.status), "{:?}", second.status);
    // Let go of: they become numbers.
    let third = plan(&job(json!({}), noted), &[]);
    assert_eq!((third.status.succeeded, third.status.failed), (Some(1), Some(1)));
    assert_eq!(third.status.uncounted_terminated_pods, Some(UncountedTerminatedPods::default()));
}

#[test]
fn enough_successes_end_it_once_nothing_runs() {
    let done: Vec<_> = ["a", "b", "c"].map(|name| pod(name, "Succeeded", json!({}))).to_vec();
    let plan_ = plan(&job(json!({}), json!({"startTime": at(NOW)})), &done);
    assert_eq!(reason(&plan_), Some("CompletionsReached"));
    assert_eq!(conditions(&plan_.status), ["SuccessCriteriaMet"]);
    let outcome = plan_.outcome.unwrap();
    let mut status = plan_.status.clone();
    assert!(!finish(&mut status, &outcome, Timestamp::UNIX_EPOCH), "three are not counted yet");
    settle(&mut status, &BTreeSet::new());
    assert!(finish(&mut status, &outcome, Timestamp::UNIX_EPOCH));
    assert_eq!((conditions(&status), status.succeeded), (vec!["SuccessCriteriaMet", "Complete"], Some(3)));
    assert!(status.completion_time.is_some());
    let still = [&done[..], &[pod("d", "Running", json!({}))]].concat();
    assert_eq!(names(&plan(&job(json!({}), json!({})), &still).drop), ["d"], "what is too much is stopped first");
}

#[test]
fn too_many_failures_end_it() {
    let failed: Vec<_> = ["a", "b"].map(|name| pod(name, "Failed", json!({}))).to_vec();
    let with = |limit: i32, more: &[Arc<PodView>]| {
        plan(&job(json!({"backoffLimit": limit}), json!({"startTime": at(NOW)})), &[&failed[..], more].concat())
    };
    assert_eq!(reason(&with(2, &[])), None);
    let over = with(1, &[pod("r", "Running", json!({}))]);
    assert_eq!((reason(&over), names(&over.stop)), (Some("BackoffLimitExceeded"), vec!["r"]));
    assert_eq!(conditions(&over.status), ["FailureTarget"]);
    assert_eq!(
        over.status.uncounted_terminated_pods.unwrap().failed.unwrap(),
        ["a", "b", "r"],
        "what runs has failed too"
    );
    let mut status = plan(&job(json!({}), json!({})), &[]).status;
    status.terminating = Some(1);
    assert!(!finish(&mut status, over.outcome.as_ref().unwrap(), Timestamp::UNIX_EPOCH), "one is still ending");
    status.terminating = None;
    assert!(finish(&mut status, over.outcome.as_ref().unwrap(), Timestamp::UNIX_EPOCH));
    assert_eq!((conditions(&status), &status.completion_time), (vec!["Failed"], &None));
}

#[test]
fn restarts_count_where_pods_are_kept() {
    let template = json!({"spec": {"restartPolicy": "OnFailure", "containers": []}});
    let restarted =
        |count: i32| pod("r", "Running", json!({"status": {"containerStatuses": [{"restartCount": count}]}}));
    let ends = |limit: i32, count: i32| {
        let job = job(json!({"backoffLimit": limit, "template": template}), json!({}));
        plan(&job, &[restarted(count)]).outcome.is_some()
    };
    assert_eq!([(0, 0), (0, 1), (3, 2), (3, 3)].map(|(limit, count)| ends(limit, count)), [false, true, false, true]);
}

#[test]
fn failures_put_off_the_next_pod() {
    let failed = |ago: i64| {
        let ended = json!({"terminated": {"exitCode": 1, "finishedAt": at(NOW - ago)}});
        pod("f", "Failed", json!({"status": {"containerStatuses": [{"state": ended}]}}))
    };
    let soon = plan(&job(json!({"parallelism": 1}), json!({})), &[failed(3)]);
    assert_eq!((soon.create.len(), soon.wake), (0, Some(Duration::from_secs(7))));
    let later = plan(&job(json!({"parallelism": 1}), json!({})), &[failed(11)]);
    assert_eq!((later.create.len(), later.wake), (1, None));
}

#[test]
fn a_deadline_is_waited_for_and_kept() {
    let with = |started: i64| plan(&job(json!({"activeDeadlineSeconds": 60}), json!({"startTime": at(started)})), &[]);
    assert_eq!((with(NOW - 10).wake, reason(&with(NOW - 10))), (Some(Duration::from_secs(50)), None));
    assert_eq!(reason(&with(NOW - 60)), Some("DeadlineExceeded"));
}

#[test]
fn what_is_ending_counts_as_failed_unless_only_failures_are_replaced() {
    let now = plan(&job(json!({"parallelism": 1}), json!({})), &[going("g")]);
    assert_eq!(now.status.uncounted_terminated_pods.unwrap().failed.unwrap(), ["g"]);
    let patient = plan(&job(json!({"parallelism": 1, "podReplacementPolicy": "Failed"}), json!({})), &[going("g")]);
    assert_eq!((patient.create.len(), patient.untrack.len(), patient.status.terminating), (0, 0, Some(1)));
}

#[test]
fn a_suspended_job_stops_and_begins_anew() {
    let running = [pod("r", "Running", json!({}))];
    let stopped = plan(&job(json!({"suspend": true}), json!({"startTime": at(5)})), &running);
    assert_eq!((names(&stopped.drop), stopped.untrack.len(), stopped.event.unwrap().0), (vec!["r"], 0, "Suspended"));
    assert_eq!((conditions(&stopped.status), stopped.status.start_time.clone()), (vec!["Suspended"], None));
    let status = serde_json::to_value(&stopped.status).unwrap();
    let again = plan(&job(json!({}), status.clone()), &[]);
    assert_eq!((conditions(&again.status), again.event.unwrap().0, again.create.len()), (vec![], "Resumed", 2));
    assert_eq!(again.status.start_time.unwrap().0.as_second(), NOW);
    assert!(plan(&job(json!({"suspend": true}), status), &[]).event.is_none());
}

#[test]
fn each_index_has_one_pod_until_it_has_succeeded() {
    let spec = json!({"completionMode": "Indexed", "completions": 5, "parallelism": 3});
    let pods = [indexed("a", "Succeeded", 0), indexed("b", "Running", 2), indexed("c", "Succeeded", 9)];
    let next = plan(&job(spec.clone(), json!({"completedIndexes": "3", "succeeded": 1})), &pods);
    assert_eq!(next.create.iter().map(|new| new.index.unwrap()).collect::<Vec<_>>(), [1, 4]);
    assert_eq!((next.status.completed_indexes.as_deref(), next.status.succeeded), (Some("0,3"), Some(2)));
    let twice = [indexed("a", "Running", 1), indexed("b", "Pending", 1), indexed("c", "Running", 7)];
    let mut dropped = plan(&job(spec, json!({})), &twice).drop;
    dropped.sort_by_key(|pod| pod.metadata.name.clone());
    assert_eq!(names(&dropped), ["b", "c"], "the more useful of two stays, and none beyond the last");
}

#[test]
fn an_index_may_fail_by_itself() {
    let spec = json!({"completionMode": "Indexed", "completions": 2, "parallelism": 2, "backoffLimitPerIndex": 1, "backoffLimit": 1000});
    let failed = |name: &str, index: i32, before: i32| {
        let notes = json!({(tracked::INDEX): index.to_string(), (tracked::FAILURES): before.to_string()});
        pod(name, "Failed", json!({"metadata": {"annotations": notes}}))
    };
    let once = plan(&job(spec.clone(), json!({})), &[failed("a", 0, 0), indexed("b", "Running", 1)]);
    assert_eq!(once.create, [NewPod { index: Some(0), failures: Some((1, 0)) }]);
    assert!(once.untrack.is_empty(), "the pod stays until the next one says that it failed");
    let replaced = [failed("a", 0, 0), failed_running("a2", 0, 1), indexed("b", "Running", 1)];
    assert_eq!(names(&plan(&job(spec.clone(), json!({})), &replaced).untrack), ["a"]);
    let used_up = plan(&job(spec.clone(), json!({})), &[failed("a2", 0, 1), indexed("b", "Running", 1)]);
    assert_eq!(
        (used_up.status.failed_indexes.as_deref(), reason(&used_up), used_up.create.len()),
        (Some("0"), None, 0)
    );
    let all = plan(&job(spec, json!({"failedIndexes": "0"})), &[indexed("b", "Succeeded", 1)]);
    assert_eq!(reason(&all), Some("FailedIndexes"));
}

fn failed_running(name: &str, index: i32, before: i32) -> Arc<PodView> {
    let notes = json!({(tracked::INDEX): index.to_string(), (tracked::FAILURES): before.to_string()});
    pod(name, "Running", json!({"metadata": {"annotations": notes}}))
}

#[test]
fn policies_end_it_early() {
    let rules = json!({"rules": [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}]});
    let ended = json!([{"name": "c", "state": {"terminated": {"exitCode": 42}}}]);
    let fatal = pod("f", "Failed", json!({"status": {"containerStatuses": ended}}));
    let failed = plan(&job(json!({"podFailurePolicy": rules}), json!({})), std::slice::from_ref(&fatal));
    assert_eq!(reason(&failed), Some("PodFailurePolicy"));
    let ignored = json!({"rules": [{"action": "Ignore", "onExitCodes": {"operator": "In", "values": [42]}}]});
    let spared = plan(&job(json!({"podFailurePolicy": ignored, "backoffLimit": 0}), json!({})), &[fatal]);
    assert_eq!((reason(&spared), spared.untrack.len()), (None, 1));
    assert_eq!(spared.status.uncounted_terminated_pods, Some(UncountedTerminatedPods::default()));
    let spec = json!({"completionMode": "Indexed", "completions": 5,
                      "successPolicy": {"rules": [{"succeededIndexes": "0"}]}});
    let pods = [indexed("a", "Succeeded", 0), indexed("b", "Running", 1)];
    let met = plan(&job(spec, json!({})), &pods);
    assert_eq!((reason(&met), names(&met.stop)), (Some("SuccessPolicy"), vec!["b"]));
    assert_eq!(met.status.uncounted_terminated_pods.unwrap().failed, None, "what is not needed has not failed");
}

#[test]
fn a_finished_job_lives_as_long_as_it_says() {
    let ended =
        |ago: i64| json!({"conditions": [{"type": "Complete", "status": "True", "lastTransitionTime": at(NOW - ago)}]});
    let left = |ttl: Value, ago: i64| {
        life_left(&job(json!({"ttlSecondsAfterFinished": ttl}), ended(ago)), Timestamp::from_second(NOW).unwrap())
    };
    assert_eq!(left(Value::Null, 5), None);
    assert_eq!(left(json!(60), 5), Some(Duration::from_secs(55)));
    assert_eq!(left(json!(60), 61), Some(Duration::ZERO));
    assert_eq!(life_left(&job(json!({"ttlSecondsAfterFinished": 0}), json!({})), Timestamp::UNIX_EPOCH), None);
}
