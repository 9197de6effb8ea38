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
    expect![[r#"
        {
          "apiVersion": "batch/v1",
          "kind": "Job",
          "metadata": {
            "labels": {
              "batch.kubernetes.io/controller-uid": "u-1",
              "batch.kubernetes.io/job-name": "pi",
              "controller-uid": "u-1",
              "job-name": "pi"
            },
            "name": "pi",
            "namespace": "default",
            "uid": "u-1"
          },
          "spec": {
            "backoffLimit": 6,
            "completionMode": "NonIndexed",
            "completions": 1,
            "manualSelector": false,
            "parallelism": 1,
            "podReplacementPolicy": "TerminatingOrFailed",
            "selector": {
              "matchLabels": {
                "batch.kubernetes.io/controller-uid": "u-1"
              }
            },
            "suspend": false,
            "template": {
              "metadata": {
                "labels": {
                  "batch.kubernetes.io/controller-uid": "u-1",
                  "batch.kubernetes.io/job-name": "pi",
                  "controller-uid": "u-1",
                  "job-name": "pi"
                }
              },
              "spec": {
                "containers": [
                  {
                    "image": "perl:5",
                    "imagePullPolicy": "IfNotPresent",
                    "name": "c",
                    "resources": {},
                    "terminationMessagePath": "/dev/termination-log",
                    "terminationMessagePolicy": "File"
                  }
                ],
                "dnsPolicy": "ClusterFirst",
                "restartPolicy": "Never",
                "schedulerName": "default-scheduler",
                "securityContext": {},
                "terminationGracePeriodSeconds": 30
              }
            }
          },
          "status": {}
        }"#]]
    .assert_eq(&shown(&Jobs, &created(&Jobs, &base())));
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
    expect![[r#"
        {"spec":{"activeDeadlineSeconds":-1,"backoffLimit":-1,"completions":-1,"parallelism":-1,"ttlSecondsAfterFinished":-1}}
            spec.parallelism: Invalid value: -1: must be greater than or equal to 0
            spec.completions: Invalid value: -1: must be greater than or equal to 0
            spec.activeDeadlineSeconds: Invalid value: -1: must be greater than or equal to 0
            spec.backoffLimit: Invalid value: -1: must be greater than or equal to 0
            spec.ttlSecondsAfterFinished: Invalid value: -1: must be greater than or equal to 0
        {"spec":{"backoffLimitPerIndex":1,"maxFailedIndexes":1}}
            spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode
            spec.maxFailedIndexes: Invalid value: 1: requires indexed completion mode
        {"spec":{"maxFailedIndexes":1}}
            spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified
            spec.maxFailedIndexes: Invalid value: 1: requires indexed completion mode
        {"spec":{"completionMode":"Some"}}
            spec.completionMode: Unsupported value: "Some": supported values: "NonIndexed", "Indexed"
        {"spec":{"managedBy":"me"}}
            spec.managedBy: Invalid value: "me": must be a domain-prefixed path (such as "acme.io/foo")
        {"spec":{"managedBy":"acme.io/a b"}}
            spec.managedBy: Invalid value: "a b": Invalid path (regex used for validation is '[A-Za-z0-9/\-._~%!$&'()*+,;=:]+')
        {"spec":{"podReplacementPolicy":"Never"}}
            spec.podReplacementPolicy: Unsupported value: "Never": supported values: "Failed", "TerminatingOrFailed"
        {"spec":{"successPolicy":{"rules":[{"succeededCount":1}]}}}
            spec.successPolicy: Invalid value: {"rules":[{"succeededCount":1}]}: requires indexed completion mode
        {"spec":{"template":{"spec":{"restartPolicy":null}}}}
            spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"
        {"spec":{"manualSelector":true}}
            spec.selector: Required value
            spec.template.metadata.labels: Invalid value: null: `selector` does not match template `labels`
        {"spec":{"selector":{"matchLabels":{"a":"b"}}}}
            spec.selector: Invalid value: {"matchLabels":{"a":"b","batch.kubernetes.io/controller-uid":"u-1"}}: `selector` not auto-generated
            spec.template.metadata.labels: Invalid value: {"batch.kubernetes.io/controller-uid":"u-1","batch.kubernetes.io/job-name":"pi","controller-uid":"u-1","job-name":"pi"}: `selector` does not match template `labels`
        {"spec":{"template":{"metadata":{"labels":{"controller-uid":"other"}}}}}
            spec.template.metadata.labels[controller-uid]: Invalid value: {"batch.kubernetes.io/controller-uid":"u-1","batch.kubernetes.io/job-name":"pi","controller-uid":"other","job-name":"pi"}: must be 'u-1'
        {"spec":{"template":{"metadata":{"labels":{"batch.kubernetes.io/job-name":"other"}}}}}
            spec.template.metadata.labels[batch.kubernetes.io/job-name]: Invalid value: {"batch.kubernetes.io/controller-uid":"u-1","batch.kubernetes.io/job-name":"other","controller-uid":"u-1","job-name":"pi"}: must be 'pi'
    "#]].assert_eq(&faults(&Jobs, &base(), &patches));
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
    expect![[r#"
        {"metadata":{"name":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}}
            metadata.name: Invalid value: "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx": will not able to create pod with invalid DNS label: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx-9
        {"spec":{"completions":null}}
            spec.completions: Required value: when completion mode is Indexed
        {"spec":{"parallelism":100001}}
            spec.parallelism: Invalid value: 100001: must be less than or equal to 100000 when completion mode is Indexed
        {"spec":{"backoffLimitPerIndex":1,"maxFailedIndexes":11}}
            spec.maxFailedIndexes: Invalid value: 11: must be less than or equal to completions
        {"spec":{"backoffLimitPerIndex":1,"completions":100001,"parallelism":10001}}
            spec.parallelism: Invalid value: 10001: must be less than or equal to 10000 when completions are above 100000 and used with backoff limit per index
            spec.maxFailedIndexes: Required value: must be specified when completions is above 100000
        {"spec":{"backoffLimitPerIndex":1,"completions":200000,"maxFailedIndexes":100001}}
            spec.maxFailedIndexes: Invalid value: 100001: must be less than or equal to 100000
            spec.maxFailedIndexes: Invalid value: 100001: must be less than or equal to 10000 when completions are above 100000 and used with backoff limit per index
        {"spec":{"successPolicy":{"rules":[{}]}}}
            spec.successPolicy.rules[0]: Required value: at least one of succeededCount or succeededIndexes must be specified
        {"spec":{"successPolicy":{"rules":[{"succeededIndexes":"1,0"}]}}}
            spec.successPolicy.rules[0].succeededIndexes: Invalid value: "1,0": error parsing succeededIndexes: non-increasing order, previous: 1, current: 0
        {"spec":{"successPolicy":{"rules":[{"succeededCount":5,"succeededIndexes":"0-3"}]}}}
            spec.successPolicy.rules[0].succeededCount: Invalid value: 5: must be less than or equal to 4 (the number of indexes in the specified succeededIndexes field)
        {"spec":{"successPolicy":{"rules":[{"succeededCount":11}]}}}
            spec.successPolicy.rules[0].succeededCount: Invalid value: 11: must be less than or equal to 10 (the number of specified completions)
        {"spec":{"successPolicy":{"rules":[]}}}
            spec.successPolicy.rules: Required value: at least one rules must be specified when the successPolicy is specified
    "#]].assert_eq(&faults(&Jobs, &indexed(), &patches));
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
    expect![[r#"
        {"spec":{"podFailurePolicy":{"rules":[{"action":"FailJob","onExitCodes":{"containerName":"c","operator":"In","values":[1,42]}}]}}}
        {"spec":{"podFailurePolicy":{"rules":[{"action":"FailJob","onPodConditions":[{"type":"DisruptionTarget"}]}]}}}
        {"spec":{"podFailurePolicy":{"rules":[{"action":"","onExitCodes":{"operator":"","values":[]}}]}}}
            spec.podFailurePolicy.rules[0].action: Required value: valid values: ["Count" "FailIndex" "FailJob" "Ignore"]
            spec.podFailurePolicy.rules[0].onExitCodes.operator: Required value: valid values: ["In" "NotIn"]
            spec.podFailurePolicy.rules[0].onExitCodes.values: Invalid value: []: at least one value is required
        {"spec":{"podFailurePolicy":{"rules":[{"action":"Panic","onExitCodes":{"operator":"Near","values":[1]}}]}}}
            spec.podFailurePolicy.rules[0].action: Unsupported value: "Panic": supported values: "Count", "FailIndex", "FailJob", "Ignore"
            spec.podFailurePolicy.rules[0].onExitCodes.operator: Unsupported value: "Near": supported values: "In", "NotIn"
        {"spec":{"podFailurePolicy":{"rules":[{"action":"FailIndex","onExitCodes":{"operator":"In","values":[2,1,1,0]}}]}}}
            spec.podFailurePolicy.rules[0].action: Invalid value: "FailIndex": requires the backoffLimitPerIndex to be set
            spec.podFailurePolicy.rules[0].onExitCodes.values[2]: Duplicate value: 1
            spec.podFailurePolicy.rules[0].onExitCodes.values[3]: Invalid value: 0: must not be 0 for the In operator
            spec.podFailurePolicy.rules[0].onExitCodes.values: Invalid value: [2,1,1,0]: must be ordered
        {"spec":{"podFailurePolicy":{"rules":[{"action":"Ignore","onExitCodes":{"containerName":"d","operator":"In","values":[1]}}]}}}
            spec.podFailurePolicy.rules[0].onExitCodes.containerName: Invalid value: "d": must be one of the container or initContainer names in the pod template
        {"spec":{"podFailurePolicy":{"rules":[{"action":"Ignore"}]}}}
            spec.podFailurePolicy.rules[0]: Invalid value: specifying one of OnExitCodes and OnPodConditions is required
        {"spec":{"podFailurePolicy":{"rules":[{"action":"Ignore","onExitCodes":{"operator":"In","values":[1]},"onPodConditions":[{"status":"Maybe","type":"a b"}]}]}}}
            spec.podFailurePolicy.rules[0].onPodConditions[0].type: Invalid value: "a b": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
            spec.podFailurePolicy.rules[0].onPodConditions[0].status: Unsupported value: "Maybe": supported values: "False", "True", "Unknown"
            spec.podFailurePolicy.rules[0]: Invalid value: specifying both OnExitCodes and OnPodConditions is not supported
        {"spec":{"podFailurePolicy":{"rules":[]},"podReplacementPolicy":"TerminatingOrFailed","template":{"spec":{"restartPolicy":"OnFailure"}}}}
            spec.podReplacementPolicy: Unsupported value: "TerminatingOrFailed": supported values: "Failed"
            spec.template.spec.restartPolicy: Invalid value: "OnFailure": only "Never" is supported when podFailurePolicy is specified
    "#]].assert_eq(&faults(&Jobs, &base(), &patches));
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
    expect![[r#"
        {"spec":{"activeDeadlineSeconds":9,"parallelism":5,"suspend":true,"ttlSecondsAfterFinished":5}}
        {"spec":{"completions":2}}
            spec.completions: Invalid value: 2: field is immutable
        {"spec":{"selector":{"matchLabels":{"more":"labels"}}}}
            spec.selector: Invalid value: {"matchLabels":{"batch.kubernetes.io/controller-uid":"u-1","more":"labels"}}: `selector` not auto-generated
            spec.template.metadata.labels: Invalid value: {"batch.kubernetes.io/controller-uid":"u-1","batch.kubernetes.io/job-name":"pi","controller-uid":"u-1","job-name":"pi"}: `selector` does not match template `labels`
            spec.selector: Invalid value: {"matchLabels":{"batch.kubernetes.io/controller-uid":"u-1","more":"labels"}}: field is immutable
        {"spec":{"template":{"spec":{"nodeSelector":{"a":"b"}}}}}
            spec.template: Invalid value: {"metadata":{"labels":{"batch.kubernetes.io/controller-uid":"u-1","batch.kubernetes.io/job-name":"pi","controller-uid":"u-1","job-name":"pi"}},"spec":{"containers":[{"image":"perl:5","imagePullPolicy":"IfNotPresent","name":"c","resources":{},"terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File"}],"dnsPolicy":"ClusterFirst","nodeSelector":{"a":"b"},"restartPolicy":"Never","schedulerName":"default-scheduler","securityContext":{},"terminationGracePeriodSeconds":30}}: field is immutable
        {"spec":{"managedBy":"acme.io/controller","podFailurePolicy":{"rules":[]},"podReplacementPolicy":"Failed"}}
            spec.podFailurePolicy: Invalid value: {"rules":[]}: field is immutable
            spec.managedBy: Invalid value: "acme.io/controller": field is immutable
    "#]].assert_eq(&refusals(&Jobs, &base(), &patches));
    let patches = [
        json!({"spec": {"completions": 4, "parallelism": 4}}),
        json!({"spec": {"completions": 4}}),
        json!({"spec": {"completionMode": "NonIndexed"}}),
    ];
    expect![[r#"
        {"spec":{"completions":4,"parallelism":4}}
        {"spec":{"completions":4}}
            spec.completions: Invalid value: 4: can only be modified in tandem with spec.parallelism
        {"spec":{"completionMode":"NonIndexed"}}
            spec.completionMode: Invalid value: "NonIndexed": field is immutable
    "#]]
    .assert_eq(&refusals(&Jobs, &indexed(), &patches));
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
    expect![[r#"
        {"completionTime":"2026-01-01T00:01:00Z","conditions":[{"status":"True","type":"SuccessCriteriaMet"},{"status":"True","type":"Complete"}],"startTime":"2026-01-01T00:00:00Z","succeeded":1}
        {"active":2,"ready":3,"terminating":-1}
            status.terminating: Invalid value: -1: must be greater than or equal to 0
            status.ready: Invalid value: 3: cannot set more ready pods than active
            status.startTime: Invalid value: null: field is immutable for unsuspended job once set
        {"conditions":[{"status":"True","type":"Complete"}],"startTime":"2026-01-01T00:00:00Z"}
            status.completionTime: Required value: completionTime is required for Complete jobs
            status.conditions: Invalid value: cannot set Complete=True condition without the SuccessCriteriaMet=true condition
        {"active":1,"conditions":[{"status":"True","type":"Failed"}],"startTime":"2026-01-01T00:00:00Z","terminating":1}
            status.conditions: Invalid value: cannot set Failed=True condition without the FailureTarget=true condition
            status.active: Invalid value: 1: active>0 is invalid for finished job
            status.terminating: Invalid value: 1: terminating>0 is invalid for finished job
        {"completionTime":"2026-01-01T00:00:00Z","startTime":"2026-01-01T00:01:00Z"}
            status.completionTime: Invalid value: "2026-01-01T00:00:00Z": cannot set completionTime when there is no Complete=True condition
            status.completionTime: Invalid value: "2026-01-01T00:00:00Z": must be equal to or after `startTime`
            status.startTime: Invalid value: "2026-01-01T00:01:00Z": field is immutable for unsuspended job once set
        {"completedIndexes":"0","failedIndexes":"1","startTime":"2026-01-01T00:00:00Z"}
            status.completedIndexes: Invalid value: "0": cannot set non-empty completedIndexes when non-indexed completion mode
            status.failedIndexes: Invalid value: "1": cannot set non-null failedIndexes when backoffLimitPerIndex is null
        {"startTime":"2026-01-01T00:00:00Z","uncountedTerminatedPods":{"failed":["a"],"succeeded":["a",""]}}
            status.uncountedTerminatedPods.succeeded[1]: Invalid value: "": must not be empty
            status.uncountedTerminatedPods.failed[0]: Duplicate value: "a"
        {"startTime":"2026-01-01T00:00:00Z","succeeded":0}
            status.conditions: Invalid value: cannot disable the SuccessCriteriaMet=True condition
            status.conditions: Invalid value: cannot disable the terminal Complete=True condition
            status.succeeded: Invalid value: 0: cannot decrease the succeeded counter
        {"failed":1}
            status.failed: Invalid value: 1: cannot decrease the failed counter
    "#]].assert_eq(&text);
}

#[test]
fn indexes_are_completed_or_failed_and_below_completions() {
    let limited = merged(&indexed(), &json!({"spec": {"backoffLimitPerIndex": 1}}));
    let old = status(&limited, json!({}));
    let new = status(&limited, json!({"completedIndexes": "0-3,12", "failedIndexes": "3,x"}));
    expect![[r#"
        status.completedIndexes: Invalid value: "0-3,12": error parsing completedIndexes: too large index: "12"
        status.failedIndexes: Invalid value: "3,x": error parsing failedIndexes: cannot convert string to integer for index: "x"
        status.failedIndexes: Invalid value: "3,x": failedIndexes and completedIndexes overlap at index: 3
    "#]].assert_eq(&lines(&Jobs.validate_status(&new, &old)));
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
