//! Rows of pods in each of the states kubectl shows a word for.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::row;

fn check(pod: Value, expected: &str) {
    let now: Timestamp = "2026-01-01T01:00:00Z".parse().unwrap();
    let pod = serde_json::from_value(pod).unwrap();
    let cells: Vec<String> =
        row(&pod, now).iter().map(|c| c.as_str().map_or_else(|| c.to_string(), ToOwned::to_owned)).collect();
    assert_eq!(cells.join(" | "), expected);
}

fn pod(spec: Value, status: Value) -> Value {
    json!({
        "metadata": {"name": "p", "creationTimestamp": "2026-01-01T00:55:00Z"},
        "spec": spec, "status": status,
    })
}

fn one() -> Value {
    json!({"containers": [{"name": "c"}]})
}

fn with_init() -> Value {
    json!({"containers": [{"name": "c"}], "initContainers": [{"name": "a"}, {"name": "b"}]})
}

#[test]
fn a_new_pod_is_pending() {
    check(pod(one(), json!({"phase": "Pending"})), "p | 0/1 | Pending | 0 | 5m | <none> | <none> | <none> | <none>");
}

#[test]
fn a_gated_pod_says_so() {
    let status = json!({"phase": "Pending", "conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]});
    check(pod(one(), status), "p | 0/1 | SchedulingGated | 0 | 5m | <none> | <none> | <none> | <none>");
}

#[test]
fn a_running_pod_shows_where_it_is() {
    let spec = json!({"containers": [{"name": "c"}], "nodeName": "n1", "readinessGates": [{"conditionType": "x"}]});
    let status = json!({"phase": "Running", "podIPs": [{"ip": "10.42.0.5"}], "containerStatuses": [
        {"name": "c", "ready": true, "restartCount": 0, "state": {"running": {}}}]});
    check(pod(spec, status), "p | 1/1 | Running | 0 | 5m | 10.42.0.5 | n1 | <none> | 0/1");
}

#[test]
fn a_waiting_container_gives_its_reason_and_restarts_their_age() {
    let status = json!({"phase": "Running", "containerStatuses": [
        {"name": "c", "ready": false, "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
         "lastState": {"terminated": {"exitCode": 1, "finishedAt": "2026-01-01T00:58:00Z"}}}]});
    check(pod(one(), status), "p | 0/1 | CrashLoopBackOff | 3 (2m ago) | 5m | <none> | <none> | <none> | <none>");
}

#[test]
fn ended_containers_show_their_reason_signal_or_code() {
    for (ended, word) in [
        (json!({"exitCode": 0, "reason": "Completed"}), "Completed"),
        (json!({"exitCode": 137, "reason": "OOMKilled"}), "OOMKilled"),
        (json!({"exitCode": 137, "signal": 9}), "Signal:9"),
        (json!({"exitCode": 3}), "ExitCode:3"),
    ] {
        let status = json!({"phase": "Failed", "containerStatuses": [
            {"name": "c", "ready": false, "restartCount": 0, "state": {"terminated": ended}}]});
        check(pod(one(), status), &format!("p | 0/1 | {word} | 0 | 5m | <none> | <none> | <none> | <none>"));
    }
}

#[test]
fn one_ended_container_beside_a_running_one_is_not_ready() {
    let spec = json!({"containers": [{"name": "a"}, {"name": "b"}]});
    let statuses = json!([
        {"name": "a", "ready": false, "restartCount": 0, "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}},
        {"name": "b", "ready": true, "restartCount": 0, "state": {"running": {}}}]);
    let status = json!({"phase": "Running", "containerStatuses": statuses});
    check(pod(spec.clone(), status), "p | 1/2 | NotReady | 0 | 5m | <none> | <none> | <none> | <none>");
    let status = json!({"phase": "Running", "containerStatuses": statuses,
        "conditions": [{"type": "Ready", "status": "True"}]});
    check(pod(spec, status), "p | 1/2 | Running | 0 | 5m | <none> | <none> | <none> | <none>");
}

#[test]
fn init_containers_count_up_and_show_what_is_wrong() {
    let done = json!({"name": "a", "ready": true, "restartCount": 0, "state": {"terminated": {"exitCode": 0}}});
    for (second, word) in [
        (json!({"running": {}}), "Init:1/2"),
        (json!({"waiting": {"reason": "PodInitializing"}}), "Init:1/2"),
        (json!({"waiting": {"reason": "ImagePullBackOff"}}), "Init:ImagePullBackOff"),
        (json!({"terminated": {"exitCode": 1, "reason": "Error"}}), "Init:Error"),
        (json!({"terminated": {"exitCode": 1}}), "Init:ExitCode:1"),
        (json!({"terminated": {"exitCode": 137, "signal": 9}}), "Init:Signal:9"),
    ] {
        let status = json!({"phase": "Pending", "initContainerStatuses": [
            done, {"name": "b", "ready": false, "restartCount": 0, "state": second}]});
        check(pod(with_init(), status), &format!("p | 0/1 | {word} | 0 | 5m | <none> | <none> | <none> | <none>"));
    }
}

#[test]
fn after_initialization_the_containers_wait() {
    let status = json!({"phase": "Pending",
        "initContainerStatuses": [
            {"name": "a", "ready": true, "restartCount": 2, "state": {"terminated": {"exitCode": 0}}},
            {"name": "b", "ready": true, "restartCount": 0, "state": {"terminated": {"exitCode": 0}}}],
        "containerStatuses": [
            {"name": "c", "ready": false, "restartCount": 0, "state": {"waiting": {"reason": "PodInitializing"}}}]});
    check(pod(with_init(), status), "p | 0/1 | PodInitializing | 0 | 5m | <none> | <none> | <none> | <none>");
}

#[test]
fn sidecars_count_as_containers() {
    let spec = json!({"containers": [{"name": "c"}], "initContainers": [{"name": "s", "restartPolicy": "Always"}]});
    let status = json!({"phase": "Running",
        "initContainerStatuses": [
            {"name": "s", "ready": true, "started": true, "restartCount": 1, "state": {"running": {}},
             "lastState": {"terminated": {"exitCode": 1, "finishedAt": "2026-01-01T00:59:00Z"}}}],
        "containerStatuses": [{"name": "c", "ready": true, "restartCount": 0, "state": {"running": {}}}]});
    check(pod(spec, status), "p | 2/2 | Running | 1 (60s ago) | 5m | <none> | <none> | <none> | <none>");
}

#[test]
fn a_deleted_pod_terminates_unless_it_has_ended_or_its_node_is_lost() {
    for (status, word) in [
        (json!({"phase": "Running"}), "Terminating"),
        (json!({"phase": "Succeeded"}), "Succeeded"),
        (json!({"phase": "Running", "reason": "NodeLost"}), "Unknown"),
    ] {
        let mut pod = pod(one(), status);
        pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:59:30Z");
        check(pod, &format!("p | 0/1 | {word} | 0 | 5m | <none> | <none> | <none> | <none>"));
    }
}
