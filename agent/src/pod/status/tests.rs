//! Status tables: facts in, the fields people look at out.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::json;

use super::super::facts::{Probed, Sandbox};
use super::super::testing::{one, pod};
use super::*;

fn at(secs: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + secs).unwrap()
}

fn host() -> Host {
    Host { ips: vec!["192.0.2.1".parse().unwrap()] }
}

fn attempt(n: u32, phase: Phase, code: Option<i32>) -> Attempt {
    Attempt {
        id: format!("c{n}"),
        attempt: n,
        sandbox: 0,
        round: None,
        phase,
        image: "docker.io/library/busybox:latest".into(),
        image_id: "docker.io/library/busybox@sha256:0".into(),
        stop_signal: Some("SIGQUIT".into()),
        log: "/log".into(),
        user: Some((0, 0, vec![10])),
        started: Some(at(0)),
        finished: code.map(|_| at(1)),
        exit_code: code,
        reason: None,
        message: None,
    }
}

fn facts(attempts: Vec<Attempt>) -> Facts {
    let mut facts = Facts {
        sandbox: Some(Sandbox { attempt: 0, ready: true, ips: vec!["10.42.0.2".parse().unwrap()] }),
        ..Facts::default()
    };
    if !attempts.is_empty() {
        facts.attempts.insert("app".into(), attempts);
    }
    facts
}

/// `phase | state (last) restarts | Ready reason message`.
fn summary(pod: &Pod, facts: &Facts) -> String {
    let status = compute(pod, facts, &host(), at(5));
    let state = |s: Option<&ContainerState>| match s {
        Some(ContainerState { running: Some(_), .. }) => "running".to_owned(),
        Some(ContainerState { waiting: Some(w), .. }) => w.reason.clone().unwrap_or_default(),
        Some(ContainerState { terminated: Some(t), .. }) => {
            format!("{} {}", t.reason.clone().unwrap_or_default(), t.exit_code)
        }
        _ => "-".to_owned(),
    };
    let app = &status.container_statuses.as_ref().unwrap()[0];
    let ready = status.conditions.as_ref().unwrap().iter().find(|c| c.type_ == "Ready").unwrap();
    format!(
        "{} | {} ({}) {} | {} {} {}",
        status.phase.as_deref().unwrap(),
        state(app.state.as_ref()),
        state(app.last_state.as_ref()),
        app.restart_count,
        ready.status,
        ready.reason.as_deref().unwrap_or("-"),
        ready.message.as_deref().unwrap_or("-"),
    )
}

#[test]
fn a_pod_that_begins_waits_for_its_containers() {
    assert_eq!(
        summary(&one("Always"), &Facts::default()),
        "Pending | ContainerCreating (-) 0 | False ContainersNotReady containers with unready status: [app]"
    );
}

#[test]
fn a_running_container_is_ready_when_its_probes_say_so() {
    let mut facts = facts(vec![attempt(0, Phase::Running, None)]);
    assert_eq!(
        summary(&one("Always"), &facts),
        "Running | running (-) 0 | False ContainersNotReady containers with unready status: [app]"
    );
    facts.probed.insert("app".into(), Probed { started: true, ready: true, id: "c0".into() });
    assert_eq!(summary(&one("Always"), &facts), "Running | running (-) 0 | True - -");
    facts.probed.insert("app".into(), Probed { started: true, ready: true, id: "of an attempt before".into() });
    assert_eq!(
        summary(&one("Always"), &facts),
        "Running | running (-) 0 | False ContainersNotReady containers with unready status: [app]"
    );
}

#[test]
fn ends_follow_the_restart_policy() {
    for (policy, code, want) in [
        ("Never", 0, "Succeeded | Completed 0 (-) 0 | False PodCompleted -"),
        ("Never", 3, "Failed | Error 3 (-) 0 | False PodFailed -"),
        ("OnFailure", 3, "Running | Error 3 (-) 0 | False ContainersNotReady containers with unready status: [app]"),
        ("Always", 0, "Running | Completed 0 (-) 0 | False ContainersNotReady containers with unready status: [app]"),
    ] {
        let facts = facts(vec![attempt(0, Phase::Exited, Some(code))]);
        assert_eq!(summary(&one(policy), &facts), want);
    }
}

#[test]
fn a_crash_loop_shows_its_last_end() {
    let mut ended = attempt(1, Phase::Exited, Some(137));
    ended.reason = Some("OOMKilled".into());
    let mut facts = facts(vec![attempt(0, Phase::Exited, Some(1)), ended]);
    facts.waiting.insert("app".into(), Waiting { reason: "CrashLoopBackOff".into(), message: "m".into() });
    assert_eq!(
        summary(&one("Always"), &facts),
        "Running | CrashLoopBackOff (OOMKilled 137) 1 | False ContainersNotReady containers with unready status: [app]"
    );
}

#[test]
fn an_image_that_cannot_be_pulled_keeps_the_pod_pending() {
    let mut facts = facts(vec![]);
    facts.waiting.insert("app".into(), Waiting { reason: "ImagePullBackOff".into(), message: "m".into() });
    assert_eq!(
        summary(&one("Always"), &facts),
        "Pending | ImagePullBackOff (-) 0 | False ContainersNotReady containers with unready status: [app]"
    );
}

#[test]
fn apps_wait_for_init_containers() {
    let pod = pod(json!({"initContainers": [{"name": "setup"}], "containers": [{"name": "app"}]}));
    let mut facts = facts(vec![]);
    facts.attempts.insert("setup".into(), vec![attempt(0, Phase::Running, None)]);
    assert!(summary(&pod, &facts).starts_with("Pending | PodInitializing"));
    let status = compute(&pod, &facts, &host(), at(0));
    let initialized = status.conditions.as_ref().unwrap().iter().find(|c| c.type_ == "Initialized").unwrap();
    assert_eq!(initialized.message.as_deref(), Some("containers with incomplete status: [setup]"));
}

#[test]
fn a_pod_past_its_deadline_is_failed_once_nothing_runs() {
    let mut facts = facts(vec![attempt(0, Phase::Running, None)]);
    facts.ending = Some(Ending::Failed { reason: "DeadlineExceeded".into(), message: "m".into(), grace: None });
    assert!(summary(&one("Always"), &facts).starts_with("Running"));
    facts.attempts.insert("app".into(), vec![attempt(0, Phase::Exited, Some(143))]);
    let status = compute(&one("Always"), &facts, &host(), at(0));
    assert_eq!(status.phase.as_deref(), Some("Failed"));
    assert_eq!(status.reason.as_deref(), Some("DeadlineExceeded"));
}

#[test]
fn a_readiness_gate_holds_the_pod_back() {
    let pod = pod(json!({"readinessGates": [{"conditionType": "x/y"}], "containers": [{"name": "app"}]}));
    let mut facts = facts(vec![attempt(0, Phase::Running, None)]);
    facts.probed.insert("app".into(), Probed { started: true, ready: true, id: "c0".into() });
    assert_eq!(
        summary(&pod, &facts),
        "Running | running (-) 0 | False ReadinessGatesNotReady \
         corresponding condition of pod readiness gate \"x/y\" does not exist."
    );
}

#[test]
fn a_status_that_is_there_already_is_not_written_again() {
    let mut pod = one("Always");
    let mut facts = facts(vec![attempt(0, Phase::Running, None)]);
    let first = compute(&pod, &facts, &host(), at(0));
    let body = patch(&pod, "u1", &first).unwrap();
    assert_eq!(body["metadata"]["uid"], "u1");
    assert_eq!(body["status"]["podIPs"], json!([{"$patch": "replace"}, {"ip": "10.42.0.2"}]));
    pod.status = Some(first);
    assert_eq!(patch(&pod, "u1", &compute(&pod, &facts, &host(), at(60))), None);
    facts.probed.insert("app".into(), Probed { started: true, ready: true, id: "c0".into() });
    let body = patch(&pod, "u1", &compute(&pod, &facts, &host(), at(60))).unwrap();
    let keys: Vec<&String> = body["status"].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["conditions", "containerStatuses"]);
    let types: Vec<&str> =
        body["status"]["conditions"].as_array().unwrap().iter().map(|c| c["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["Ready", "ContainersReady"]);
}

#[test]
fn an_ephemeral_container_has_a_status_and_no_say_in_the_pods() {
    let pod = pod(json!({"restartPolicy": "Always", "containers": [{"name": "app", "image": "busybox"}],
        "ephemeralContainers": [{"name": "debug", "image": "busybox"}]}));
    let shown = |facts: &Facts| {
        let status = compute(&pod, facts, &host(), at(5));
        let debug = status.ephemeral_container_statuses.as_ref().unwrap()[0].clone();
        (summary(&pod, facts), serde_json::to_value(debug.state).unwrap(), debug.ready, debug.started)
    };
    let mut facts = facts(vec![attempt(0, Phase::Running, None)]);
    facts.probed.insert("app".into(), Probed { started: true, ready: true, id: "c0".into() });
    let of_the_pod = summary(&pod, &facts);
    let waits = json!({"waiting": {"reason": "ContainerCreating"}});
    assert_eq!(shown(&facts), (of_the_pod.clone(), waits, false, None));
    facts.attempts.insert("debug".into(), vec![attempt(0, Phase::Running, None)]);
    let (pods, state, ready, started) = shown(&facts);
    assert!(state["running"].is_object() && pods == of_the_pod && !ready && started.is_none(), "{state}");
    // It has ended for good, though the pod's other containers would be started again.
    facts.attempts.insert("debug".into(), vec![attempt(0, Phase::Exited, Some(3))]);
    let (pods, state, ..) = shown(&facts);
    assert_eq!((pods, &state["terminated"]["exitCode"]), (of_the_pod, &json!(3)));
    let patch = patch(&pod, "u1", &compute(&pod, &facts, &host(), at(5))).unwrap();
    assert_eq!(patch["status"]["ephemeralContainerStatuses"][0]["name"], "debug");
}

/// A container that is made again has not ended again, whatever its rules said of the end before.
#[test]
fn a_pod_whose_containers_are_being_made_anew_is_not_over() {
    for action in ["Restart", "RestartAllContainers"] {
        let rules = json!([{"action": action, "exitCodes": {"operator": "In", "values": [42]}}]);
        let pod = pod(json!({"restartPolicy": "Never",
            "containers": [{"name": "app", "image": "busybox", "restartPolicyRules": rules}]}));
        let round = (action == "RestartAllContainers").then(|| at(1));
        let next = |phase, code| Attempt { round, ..attempt(1, phase, code) };
        let ended = attempt(0, Phase::Exited, Some(42));
        let mut phases = Vec::new();
        for attempts in [
            vec![ended.clone()],
            vec![ended.clone(), next(Phase::Created, None)],
            vec![ended.clone(), next(Phase::Running, None)],
            vec![ended, next(Phase::Exited, Some(1))],
        ] {
            let mut facts = facts(attempts);
            facts.round = restart::round(&pod, &facts);
            phases.push(compute(&pod, &facts, &host(), at(5)).phase.unwrap());
        }
        assert_eq!(phases, ["Running", "Running", "Running", "Failed"], "{action}");
    }
}

#[test]
fn a_container_that_was_ended_for_another_says_so_until_it_begins_anew() {
    let pod = pod(json!({"restartPolicy": "Never", "containers": [{"name": "app", "image": "busybox"}]}));
    let mut facts = facts(vec![attempt(0, Phase::Exited, Some(137))]);
    facts.round = Some(at(1));
    let shown = summary(&pod, &facts);
    assert!(shown.starts_with("Running | RestartingAllContainers (Error 137) 0 | False"), "{shown}");
}

#[test]
fn amounts_of_the_pod_are_written_when_they_change_and_what_is_gone_is_taken_away() {
    let mut pod = pod(json!({"containers": [{"name": "app", "image": "busybox",
        "resources": {"requests": {"cpu": "100m"}, "limits": {"memory": "1Gi"}}}]}));
    let facts = facts(vec![attempt(0, Phase::Running, None)]);
    let write = |pod: &Pod| patch(pod, "u1", &compute(pod, &facts, &host(), at(5)));
    let first = write(&pod).unwrap();
    assert_eq!(first["status"]["allocatedResources"], json!({"cpu": "100m"}));
    assert_eq!(first["status"]["resources"], json!({"limits": {"memory": "1Gi"}, "requests": {"cpu": "100m"}}));
    pod.status = Some(compute(&pod, &facts, &host(), at(5)));
    assert_eq!(write(&pod), None);
    pod.status.as_mut().unwrap().allocated_resources =
        Some([("cpu".to_owned(), Quantity("200m".into())), ("memory".to_owned(), Quantity("1Gi".into()))].into());
    assert_eq!(write(&pod).unwrap()["status"], json!({"allocatedResources": {"cpu": "100m", "memory": null}}));
}
