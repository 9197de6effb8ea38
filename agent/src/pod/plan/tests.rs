//! The planner, as tables of facts and steps.

use serde_json::json;

use super::super::facts::{Probed, Sandbox};
use super::super::testing::{one, pod};
use super::*;

fn at(secs: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + secs).unwrap()
}

fn up() -> Facts {
    Facts { sandbox: Some(Sandbox { attempt: 0, ready: true, ips: vec![] }), ..Facts::default() }
}

fn attempt(n: u32, phase: Phase, code: Option<i32>) -> Attempt {
    Attempt {
        id: format!("c{n}"),
        attempt: n,
        sandbox: 0,
        round: None,
        phase,
        image: "busybox".into(),
        image_id: "sha256:0".into(),
        stop_signal: Some("SIGQUIT".into()),
        log: "/log".into(),
        user: None,
        started: Some(at(0)),
        finished: code.map(|_| at(1)),
        exit_code: code,
        reason: None,
        message: None,
    }
}

fn with(mut facts: Facts, name: &str, attempts: Vec<Attempt>) -> Facts {
    facts.attempts.insert(name.into(), attempts);
    facts
}

fn running(facts: Facts, name: &str) -> Facts {
    let mut facts = with(facts, name, vec![attempt(0, Phase::Running, None)]);
    facts.probed.insert(name.into(), Probed { started: true, ready: true, id: "c0".into() });
    facts
}

/// The steps in short words.
fn steps(pod: &Pod, facts: &Facts, now: i64) -> String {
    let plan = plan(pod, facts, at(now));
    let mut words: Vec<String> = plan
        .actions
        .iter()
        .map(|a| match a {
            Action::CreateSandbox { attempt } => format!("sandbox {attempt}"),
            Action::Start { container, attempt, .. } => format!("start {container} {attempt}"),
            Action::Stop { container, grace, .. } => format!("stop {container} {grace}"),
            Action::BackOff { container, delay } => format!("backoff {container} {}", backoff::show(*delay)),
            Action::TearDown => "teardown".into(),
            Action::Confirm => "confirm".into(),
            Action::Fail { reason, .. } => format!("fail {reason}"),
        })
        .collect();
    if let Some(wake) = plan.wake {
        words.push(format!("wake {}", wake.duration_since(at(0)).as_secs()));
    }
    words.join(", ")
}

#[test]
fn a_new_pod_gets_a_sandbox_then_its_container() {
    assert_eq!(steps(&one("Always"), &Facts::default(), 0), "sandbox 0");
    assert_eq!(steps(&one("Always"), &up(), 0), "start app 0");
    assert_eq!(steps(&one("Always"), &running(up(), "app"), 0), "");
}

#[test]
fn a_failed_sandbox_waits_before_the_next() {
    let facts = Facts { sandbox_not_before: Some(at(10)), ..Facts::default() };
    assert_eq!(steps(&one("Always"), &facts, 3), "wake 10");
    assert_eq!(steps(&one("Always"), &facts, 10), "sandbox 0");
}

#[test]
fn init_containers_run_one_after_the_other_before_the_apps() {
    let pod = pod(json!({"restartPolicy": "Always",
        "initContainers": [{"name": "a"}, {"name": "b"}],
        "containers": [{"name": "x"}, {"name": "y"}]}));
    assert_eq!(steps(&pod, &up(), 0), "start a 0");
    let facts = with(up(), "a", vec![attempt(0, Phase::Running, None)]);
    assert_eq!(steps(&pod, &facts, 0), "");
    let facts = with(up(), "a", vec![attempt(0, Phase::Exited, Some(0))]);
    assert_eq!(steps(&pod, &facts, 0), "start b 0");
    let facts = with(facts, "b", vec![attempt(0, Phase::Exited, Some(0))]);
    assert_eq!(steps(&pod, &facts, 0), "start x 0, start y 0");
}

#[test]
fn a_failed_init_container_is_tried_again_unless_nothing_is_restarted() {
    let spec = |policy: &str| {
        pod(json!({"restartPolicy": policy, "initContainers": [{"name": "a"}], "containers": [{"name": "x"}]}))
    };
    let facts = with(up(), "a", vec![attempt(0, Phase::Exited, Some(1))]);
    assert_eq!(steps(&spec("Always"), &facts, 1), "start a 1");
    assert_eq!(steps(&spec("Never"), &facts, 1), "teardown");
}

#[test]
fn a_sidecar_starts_in_its_turn_and_holds_the_next_until_it_is_started() {
    let pod = pod(json!({"initContainers": [{"name": "s", "restartPolicy": "Always"}, {"name": "b"}],
        "containers": [{"name": "x"}]}));
    assert_eq!(steps(&pod, &up(), 0), "start s 0");
    let facts = with(up(), "s", vec![attempt(0, Phase::Running, None)]);
    assert_eq!(steps(&pod, &facts, 0), "");
    assert_eq!(steps(&pod, &running(up(), "s"), 0), "start b 0");
}

#[test]
fn restarts_follow_the_policy() {
    for (policy, code, want) in [
        ("Always", 0, "start app 1"),
        ("Always", 1, "start app 1"),
        ("OnFailure", 1, "start app 1"),
        ("OnFailure", 0, "teardown"),
        ("Never", 1, "teardown"),
        ("Never", 0, "teardown"),
    ] {
        let facts = with(up(), "app", vec![attempt(0, Phase::Exited, Some(code))]);
        assert_eq!(steps(&one(policy), &facts, 1), want, "{policy} {code}");
    }
}

#[test]
fn a_crash_loop_backs_off_and_then_starts_again() {
    let mut facts = with(up(), "app", vec![attempt(0, Phase::Exited, Some(1))]);
    facts.crashes.next("app", at(1), at(1));
    facts.attempts.insert("app".into(), vec![attempt(0, Phase::Exited, Some(1)), attempt(1, Phase::Exited, Some(1))]);
    assert_eq!(steps(&one("Always"), &facts, 2), "backoff app 10s, wake 11");
    assert_eq!(steps(&one("Always"), &facts, 11), "start app 2");
}

#[test]
fn a_failed_start_waits_for_its_time() {
    let mut facts = up();
    facts.not_before.insert("app".into(), at(20));
    assert_eq!(steps(&one("Always"), &facts, 5), "wake 20");
    assert_eq!(steps(&one("Always"), &facts, 20), "start app 0");
}

#[test]
fn a_container_its_probe_condemned_is_stopped_once() {
    let mut facts = running(up(), "app");
    facts.doomed.insert("app".into(), Doom { id: "c0".into(), message: "m".into(), grace: Some(3), anew: false });
    assert_eq!(steps(&one("Always"), &facts, 1), "stop app 3");
    facts.stopping.insert("c0".into());
    assert_eq!(steps(&one("Always"), &facts, 1), "");
}

#[test]
fn deletion_stops_tears_down_and_confirms() {
    let mut facts = running(up(), "app");
    facts.ending = Some(Ending::Deleted { grace: 5 });
    assert_eq!(steps(&one("Always"), &facts, 1), "stop app 5");
    facts.attempts.insert("app".into(), vec![attempt(0, Phase::Exited, Some(143))]);
    assert_eq!(steps(&one("Always"), &facts, 1), "teardown");
    facts.torn_down = true;
    facts.sandbox = None;
    assert_eq!(steps(&one("Always"), &facts, 1), "confirm");
}

#[test]
fn a_pod_deleted_by_force_gets_no_time() {
    let mut facts = running(up(), "app");
    facts.ending = Some(Ending::Gone);
    let mut pod = one("Always");
    assert_eq!(steps(&pod, &facts, 1), "stop app 30");
    pod.metadata.deletion_grace_period_seconds = Some(0);
    assert_eq!(steps(&pod, &facts, 1), "stop app 0");
}

#[test]
fn sidecars_stop_after_the_apps_in_reverse_order() {
    let pod = pod(
        json!({"initContainers": [{"name": "s", "restartPolicy": "Always"}, {"name": "t", "restartPolicy": "Always"}],
        "containers": [{"name": "x"}]}),
    );
    let mut facts = running(running(running(up(), "s"), "t"), "x");
    facts.ending = Some(Ending::Deleted { grace: 5 });
    assert_eq!(steps(&pod, &facts, 1), "stop x 5");
    facts.attempts.insert("x".into(), vec![attempt(0, Phase::Exited, Some(0))]);
    assert_eq!(steps(&pod, &facts, 1), "stop t 5");
    facts.attempts.insert("t".into(), vec![attempt(0, Phase::Exited, Some(0))]);
    assert_eq!(steps(&pod, &facts, 1), "stop s 5");
}

#[test]
fn a_dead_sandbox_is_replaced_and_the_container_restarts_with_the_next_count() {
    let mut facts = with(up(), "app", vec![attempt(0, Phase::Exited, Some(137))]);
    facts.sandbox = Some(Sandbox { attempt: 0, ready: false, ips: vec![] });
    assert_eq!(steps(&one("Always"), &facts, 1), "sandbox 1");
    facts.sandbox = Some(Sandbox { attempt: 1, ready: true, ips: vec![] });
    assert_eq!(steps(&one("Always"), &facts, 1), "start app 1");
}

#[test]
fn a_pod_past_its_deadline_fails() {
    let mut pod = pod(json!({"activeDeadlineSeconds": 30, "containers": [{"name": "app"}]}));
    pod.status = Some(serde_json::from_value(json!({"startTime": at(0).to_string()})).unwrap());
    assert_eq!(steps(&pod, &running(up(), "app"), 10), "wake 30");
    assert_eq!(steps(&pod, &running(up(), "app"), 30), "fail DeadlineExceeded");
}

#[test]
fn an_ephemeral_container_is_started_once_whatever_the_others_do() {
    let pod = pod(json!({"restartPolicy": "Always", "initContainers": [{"name": "a"}],
        "containers": [{"name": "x"}], "ephemeralContainers": [{"name": "debug"}]}));
    assert_eq!(steps(&pod, &Facts::default(), 0), "sandbox 0");
    assert_eq!(steps(&pod, &up(), 0), "start debug 0, start a 0");
    let failing = with(up(), "a", vec![attempt(0, Phase::Running, None)]);
    let mut facts = failing.clone();
    facts.not_before.insert("debug".into(), at(10));
    assert_eq!(steps(&pod, &facts, 3), "wake 10");
    for ended in [attempt(0, Phase::Running, None), attempt(0, Phase::Exited, Some(1))] {
        assert_eq!(steps(&pod, &with(failing.clone(), "debug", vec![ended]), 0), "");
    }
}

#[test]
fn an_ephemeral_container_keeps_no_pod_and_ends_with_it() {
    let pod = pod(json!({"restartPolicy": "Never", "terminationGracePeriodSeconds": 5,
        "containers": [{"name": "x"}], "ephemeralContainers": [{"name": "debug"}]}));
    let facts = with(up(), "x", vec![attempt(0, Phase::Exited, Some(0))]);
    let facts = with(facts, "debug", vec![attempt(1, Phase::Running, None)]);
    assert_eq!(steps(&pod, &facts, 0), "stop debug 5");
}

/// KEP-5532.
#[test]
fn one_whose_rules_say_so_has_all_containers_begin_anew_in_their_order() {
    let rules = json!([{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}}]);
    let pod = pod(json!({"restartPolicy": "Never",
        "initContainers": [{"name": "i"}],
        "containers": [{"name": "a", "restartPolicy": "Never", "restartPolicyRules": rules}, {"name": "b"}]}));
    // The second attempt of each is of the round that begins at 5.
    let ran = |n: u32, from: i64, to: i64, code: i32| {
        let whole = attempt(n, Phase::Exited, Some(code));
        let round = (n > 0).then(|| at(5));
        Attempt { id: format!("c{n}-{from}"), started: Some(at(from)), finished: Some(at(to)), round, ..whole }
    };
    let mut facts = with(up(), "i", vec![ran(0, 0, 1, 0)]);
    let mut turn = |name: &str, attempts: Vec<Attempt>, now: i64| {
        facts.attempts.insert(name.into(), attempts);
        facts.round = restart::round(&pod, &facts);
        steps(&pod, &facts, now)
    };
    let b = Attempt { started: Some(at(2)), ..attempt(0, Phase::Running, None) };
    turn("b", vec![b], 3);
    assert_eq!(turn("a", vec![ran(0, 2, 5, 42)], 5), "stop b 0");
    let done = turn("b", vec![ran(0, 2, 6, 137)], 6);
    assert_eq!(done, "start i 1", "a container that was ended for it has not failed");
    assert_eq!(turn("i", vec![ran(0, 0, 1, 0), ran(1, 7, 8, 0)], 8), "start a 1, start b 1");
    assert_eq!(turn("a", vec![ran(0, 2, 5, 42), ran(1, 9, 10, 0)], 10), "start b 1");
    assert_eq!(turn("b", vec![ran(0, 2, 6, 137), ran(1, 9, 11, 0)], 11), "teardown", "this round is the last");
}

/// The clocks tell nothing: a container may begin to run after the end that it is to be ended for.
#[test]
fn a_start_under_way_is_of_the_round_it_was_decided_in() {
    let rules = json!([{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}}]);
    let pod = pod(json!({"restartPolicy": "Never", "initContainers": [{"name": "i"}],
        "containers": [{"name": "a", "restartPolicyRules": rules}, {"name": "b"}],
        "ephemeralContainers": [{"name": "debug"}]}));
    let mut facts = with(up(), "i", vec![attempt(0, Phase::Exited, Some(0))]);
    facts = with(facts, "a", vec![Attempt { finished: Some(at(5)), ..attempt(0, Phase::Exited, Some(42)) }]);
    facts = with(facts, "debug", vec![Attempt { id: "d0".into(), ..attempt(0, Phase::Running, None) }]);
    facts.starting.insert("b".into(), None);
    facts.round = restart::round(&pod, &facts);
    assert_eq!(facts.round, Some(at(5)));
    assert_eq!(steps(&pod, &facts, 6), "", "its start comes to its end first");
    let b = Attempt { started: Some(at(7)), ..attempt(0, Phase::Running, None) };
    facts = with(facts, "b", vec![b.clone()]);
    assert_eq!(steps(&pod, &facts, 7), "stop b 0", "whether or not it is known to have started");
    facts.starting.clear();
    assert_eq!(steps(&pod, &facts, 7), "stop b 0");
    let b = Attempt { phase: Phase::Exited, finished: Some(at(8)), exit_code: Some(137), ..b };
    facts = with(facts, "b", vec![b.clone()]);
    assert_eq!(steps(&pod, &facts, 8), "start i 1", "and the ephemeral container stays");

    // The end that the round began with is no longer on record: what was started since tells of it.
    facts = with(facts, "i", vec![Attempt { round: Some(at(5)), ..attempt(1, Phase::Exited, Some(0)) }]);
    facts = with(facts, "a", vec![Attempt { round: Some(at(5)), ..attempt(3, Phase::Exited, Some(0)) }]);
    facts.round = restart::round(&pod, &facts);
    assert_eq!(facts.round, Some(at(5)));
    assert_eq!(steps(&pod, &facts, 9), "start b 1");
}

#[test]
fn a_negative_grace_period_is_one_second() {
    for (given, seconds) in [(json!(null), 30), (json!(-5), 1), (json!(0), 0), (json!(7), 7)] {
        let pod = pod(json!({"terminationGracePeriodSeconds": given, "containers": [{"name": "app"}]}));
        assert_eq!(grace(&pod), seconds, "{given}");
    }
}
