//! Jobs: defaults, generated labels, faults, changes, statuses, rows.

use expect_test::expect;
use serde_json::{Value, json};

use super::Jobs;
use crate::{
    kind::Strategy,
    kinds::testing::{created, defaulted, faults, lines, merged, refusals, row, shown},
};

fn base() -> Value {
    json!({
        "metadata": {"name": "pi", "namespace": "default", "uid": "u-1"},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "perl:5"}]}}},
    })
}

fn indexed() -> Value {
    merged(&base(), &json!({"spec": {"completionMode": "Indexed", "completions": 10, "parallelism": 10}}))
}

#[test]
fn a_minimal_job_is_completed_and_selects_its_own_pods() {
    expect![[""]].assert_eq(&shown(&Jobs, &created(&Jobs, &base())));
}

#[test]
fn defaults_depend_on_each_other() {
    for (patch, expected) in [
        (json!({"completions": 3}), json!([3, 1, 6, "TerminatingOrFailed"])),
        (json!({"parallelism": 4}), json!([null, 4, 6, "TerminatingOrFailed"])),
        (json!({"backoffLimitPerIndex": 1}), json!([1, 1, i32::MAX, "TerminatingOrFailed"])),
        (json!({"podFailurePolicy": {"rules": []}}), json!([1, 1, 6, "Failed"])),
    ] {
        let object = created(&Jobs, &merged(&base(), &json!({"spec": patch})));
        let spec = object.spec.unwrap();
        let found = json!([spec.completions, spec.parallelism, spec.backoff_limit, spec.pod_replacement_policy]);
        assert_eq!(found, expected, "{patch}");
    }
}

#[test]
fn a_job_with_labels_of_its_own_keeps_to_them() {
    let object = created(&Jobs, &merged(&base(), &json!({"metadata": {"labels": {"a": "b"}}})));
    assert_eq!(object.metadata.labels.unwrap().len(), 1);
    let manual = json!({"spec": {"manualSelector": true, "selector": {"matchLabels": {"x": "y"}},
        "template": {"metadata": {"labels": {"x": "y"}}}}});
    let object = created(&Jobs, &merged(&base(), &manual));
    assert_eq!(lines(&Jobs.validate(&object)), "");
    assert_eq!(serde_json::to_value(object.metadata.labels).unwrap(), json!({"x": "y"}));
}

#[test]
fn faults_are_named() {
    let labels = |labels: Value| json!({"spec": {"template": {"metadata": {"labels": labels}}}});
    let patches = [
        json!({"spec": {"parallelism": -1, "completions": -1, "activeDeadlineSeconds": -1, "backoffLimit": -1,
            "ttlSecondsAfterFinished": -1}}),
        json!({"spec": {"backoffLimitPerIndex": 1, "maxFailedIndexes": 1}}),
        json!({"spec": {"maxFailedIndexes": 1}}),
        json!({"spec": {"completionMode": "Some"}}),
        json!({"spec": {"managedBy": "me"}}),
        json!({"spec": {"managedBy": "acme.io/a b"}}),
        json!({"spec": {"podReplacementPolicy": "Never"}}),
        json!({"spec": {"successPolicy": {"rules": [{"succeededCount": 1}]}}}),
        json!({"spec": {"template": {"spec": {"restartPolicy": null}}}}),
        json!({"spec": {"manualSelector": true}}),
        json!({"spec": {"selector": {"matchLabels": {"a": "b"}}}}),
        labels(json!({"controller-uid": "other"})),
        labels(json!({"batch.kubernetes.io/job-name": "other"})),
    ];
    expect![[""]].assert_eq(&faults(&Jobs, &base(), &patches));
}

#[test]
fn faults_of_indexed_jobs_are_named() {
    let long = "x".repeat(62);
    let success = |rule: Value| json!({"spec": {"successPolicy": {"rules": [rule]}}});
    let patches = [
        json!({"metadata": {"name": long}}),
        json!({"spec": {"completions": null}}),
        json!({"spec": {"parallelism": 100_001}}),
        json!({"spec": {"backoffLimitPerIndex": 1, "maxFailedIndexes": 11}}),
        json!({"spec": {"backoffLimitPerIndex": 1, "completions": 100_001, "parallelism": 10_001}}),
        json!({"spec": {"backoffLimitPerIndex": 1, "completions": 200_000, "maxFailedIndexes": 100_001}}),
        success(json!({})),
        success(json!({"succeededIndexes": "1,0"})),
        success(json!({"succeededIndexes": "0-3", "succeededCount": 5})),
        success(json!({"succeededCount": 11})),
        json!({"spec": {"successPolicy": {"rules": []}}}),
    ];
    expect![[""]].assert_eq(&faults(&Jobs, &indexed(), &patches));
}

#[test]
fn faults_of_failure_policies_are_named() {
    let rule = |rule: Value| json!({"spec": {"podFailurePolicy": {"rules": [rule]}}});
    let patches = [
        rule(json!({"action": "FailJob", "onExitCodes": {"operator": "In", "values": [1, 42], "containerName": "c"}})),
        rule(json!({"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget"}]})),
        rule(json!({"action": "", "onExitCodes": {"operator": "", "values": []}})),
        rule(json!({"action": "Panic", "onExitCodes": {"operator": "Near", "values": [1]}})),
        rule(json!({"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [2, 1, 1, 0]}})),
        rule(json!({"action": "Ignore", "onExitCodes": {"operator": "In", "values": [1], "containerName": "d"}})),
        rule(json!({"action": "Ignore"})),
        rule(json!({"action": "Ignore", "onExitCodes": {"operator": "In", "values": [1]},
            "onPodConditions": [{"type": "a b", "status": "Maybe"}]})),
        json!({"spec": {"podFailurePolicy": {"rules": []}, "podReplacementPolicy": "TerminatingOrFailed",
            "template": {"spec": {"restartPolicy": "OnFailure"}}}}),
    ];
    expect![[""]].assert_eq(&faults(&Jobs, &base(), &patches));
}

#[test]
fn the_template_and_the_mode_stay() {
    let patches = [
        json!({"spec": {"parallelism": 5, "suspend": true, "activeDeadlineSeconds": 9, "ttlSecondsAfterFinished": 5}}),
        json!({"spec": {"completions": 2}}),
        json!({"spec": {"selector": {"matchLabels": {"more": "labels"}}}}),
        json!({"spec": {"template": {"spec": {"nodeSelector": {"a": "b"}}}}}),
        json!({"spec": {"managedBy": "acme.io/controller", "podFailurePolicy": {"rules": []},
            "podReplacementPolicy": "Failed"}}),
    ];
    expect![[""]].assert_eq(&refusals(&Jobs, &base(), &patches));
    let patches = [
        json!({"spec": {"completions": 4, "parallelism": 4}}),
        json!({"spec": {"completions": 4}}),
        json!({"spec": {"completionMode": "NonIndexed"}}),
    ];
    expect![[""]].assert_eq(&refusals(&Jobs, &indexed(), &patches));
}

#[test]
fn a_suspended_job_may_be_sent_elsewhere() {
    let suspended = merged(&base(), &json!({"spec": {"suspend": true}}));
    let patches = [
        json!({"spec": {"suspend": false, "template": {"spec": {"nodeSelector": {"a": "b"},
            "tolerations": [{"operator": "Exists"}], "containers": [
                {"name": "c", "image": "perl:5", "resources": {"limits": {"cpu": "1"}}}]}}}}),
        json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "perl:6"}]}}}}),
    ];
    let said = refusals(&Jobs, &suspended, &patches);
    assert_eq!(said.matches("spec.template.spec: Invalid value").count(), 1, "{said}");
    assert!(said.contains("field is immutable"), "{said}");
}

fn status(base: &Value, status: Value) -> <Jobs as Strategy>::Object {
    defaulted(&Jobs, &merged(base, &json!({"status": status})))
}

fn condition(kind: &str) -> Value {
    json!({"type": kind, "status": "True"})
}

#[test]
fn a_status_tells_one_story() {
    let start = "2026-01-01T00:00:00Z";
    let end = "2026-01-01T00:01:00Z";
    let running = json!({"startTime": start, "active": 1, "ready": 1});
    let done = json!({"startTime": start, "completionTime": end, "succeeded": 1,
        "conditions": [condition("SuccessCriteriaMet"), condition("Complete")]});
    let changes = [
        (running.clone(), done.clone()),
        (running.clone(), json!({"active": 2, "ready": 3, "terminating": -1})),
        (running.clone(), json!({"startTime": start, "conditions": [condition("Complete")]})),
        (
            running.clone(),
            json!({"startTime": start, "active": 1, "terminating": 1, "conditions": [condition("Failed")]}),
        ),
        (running.clone(), json!({"startTime": end, "completionTime": start})),
        (running.clone(), json!({"startTime": start, "completedIndexes": "0", "failedIndexes": "1"})),
        (running, json!({"startTime": start, "uncountedTerminatedPods": {"succeeded": ["a", ""], "failed": ["a"]}})),
        (done, json!({"startTime": start, "succeeded": 0})),
        (json!({"failed": 2}), json!({"failed": 1})),
    ];
    let mut text = String::new();
    for (old, new) in changes {
        let (old, now) = (status(&base(), old), status(&base(), new.clone()));
        text.push_str(&format!("{new}\n"));
        text.push_str(
            &lines(&Jobs.validate_status(&now, &old)).lines().map(|l| format!("    {l}\n")).collect::<String>(),
        );
    }
    expect![[""]].assert_eq(&text);
}

#[test]
fn indexes_are_completed_or_failed_and_below_completions() {
    let limited = merged(&indexed(), &json!({"spec": {"backoffLimitPerIndex": 1}}));
    let old = status(&limited, json!({}));
    let new = status(&limited, json!({"completedIndexes": "0-3,12", "failedIndexes": "3,x"}));
    expect![[""]].assert_eq(&lines(&Jobs.validate_status(&new, &old)));
}

#[test]
fn a_row_shows_how_far_it_is() {
    let at = |patch: Value| row(&Jobs, &merged(&base(), &patch));
    let start = json!({"spec": {"completions": 3, "selector": {"matchLabels": {"x": "y"}}},
        "metadata": {"creationTimestamp": "2026-01-01T00:57:00Z"},
        "status": {"succeeded": 1, "startTime": "2026-01-01T00:58:00Z"}});
    assert_eq!(at(start), "pi | Running | 1/3 | 2m | 3m | c | perl:5 | x=y");
    let parallel = json!({"spec": {"parallelism": 4}, "status": {"conditions": [condition("Suspended")]}});
    assert_eq!(at(parallel), "pi | Suspended | 0/1 of 4 |  | <unknown> | c | perl:5 | <none>");
    let done = json!({"status": {"conditions": [condition("Complete")], "succeeded": 1,
        "startTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T00:00:07Z"}});
    assert_eq!(at(done), "pi | Complete | 1/1 | 7s | <unknown> | c | perl:5 | <none>");
}
