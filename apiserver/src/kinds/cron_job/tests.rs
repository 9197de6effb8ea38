//! CronJobs: defaults, faults, changes, rows.

use expect_test::expect;
use serde_json::{Value, json};

use super::CronJobs;
use crate::kinds::testing::{created, faults, merged, refusals, row, shown};

fn base() -> Value {
    json!({
        "metadata": {"name": "report", "namespace": "default"},
        "spec": {"schedule": "*/5 * * * *", "jobTemplate": {"spec": {"template": {"spec": {
            "restartPolicy": "OnFailure", "containers": [{"name": "c", "image": "busybox:1"}]}}}}},
    })
}

#[test]
fn a_minimal_cron_job_is_completed_but_not_its_job() {
    expect![[r#"
        {
          "apiVersion": "batch/v1",
          "kind": "CronJob",
          "metadata": {
            "name": "report",
            "namespace": "default"
          },
          "spec": {
            "concurrencyPolicy": "Allow",
            "failedJobsHistoryLimit": 1,
            "jobTemplate": {
              "metadata": {},
              "spec": {
                "template": {
                  "metadata": {},
                  "spec": {
                    "containers": [
                      {
                        "image": "busybox:1",
                        "imagePullPolicy": "IfNotPresent",
                        "name": "c",
                        "resources": {},
                        "terminationMessagePath": "/dev/termination-log",
                        "terminationMessagePolicy": "File"
                      }
                    ],
                    "dnsPolicy": "ClusterFirst",
                    "restartPolicy": "OnFailure",
                    "schedulerName": "default-scheduler",
                    "securityContext": {},
                    "terminationGracePeriodSeconds": 30
                  }
                }
              }
            },
            "schedule": "*/5 * * * *",
            "successfulJobsHistoryLimit": 3,
            "suspend": false
          },
          "status": {}
        }"#]]
    .assert_eq(&shown(&CronJobs, &created(&CronJobs, &base())));
}

#[test]
fn faults_are_named() {
    let long = "x".repeat(53);
    let patches = [
        json!({"metadata": {"name": long}}),
        json!({"spec": {"schedule": ""}}),
        json!({"spec": {"schedule": "61 * * * *"}}),
        json!({"spec": {"schedule": "TZ=Europe/Berlin 0 0 * * *"}}),
        json!({"spec": {"timeZone": ""}}),
        json!({"spec": {"timeZone": "Local"}}),
        json!({"spec": {"timeZone": "Mars/Crater"}}),
        json!({"spec": {"timeZone": "../etc"}}),
        json!({"spec": {"timeZone": "Europe/Berlin", "concurrencyPolicy": "Maybe"}}),
        json!({"spec": {"startingDeadlineSeconds": -1, "successfulJobsHistoryLimit": -1, "failedJobsHistoryLimit": -1}}),
        json!({"spec": {"jobTemplate": {"spec": {"manualSelector": true, "selector": {"matchLabels": {"a": "b"}}}}}}),
        json!({"spec": {"jobTemplate": {"spec": {"template": {"spec": {"restartPolicy": null}}}}}}),
    ];
    expect![[r#"
        {"metadata":{"name":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}}
            metadata.name: Invalid value: "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx": must be no more than 52 characters
        {"spec":{"schedule":""}}
            spec.schedule: Required value
        {"spec":{"schedule":"61 * * * *"}}
            spec.schedule: Invalid value: "61 * * * *": end of range (61) above maximum (59): 61
        {"spec":{"schedule":"TZ=Europe/Berlin 0 0 * * *"}}
            spec.schedule: Invalid value: "TZ=Europe/Berlin 0 0 * * *": cannot use TZ or CRON_TZ in schedule, use timeZone field instead
        {"spec":{"timeZone":""}}
            spec.timeZone: Invalid value: "": timeZone must be nil or non-empty string
        {"spec":{"timeZone":"Local"}}
            spec.timeZone: Invalid value: "Local": timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones
        {"spec":{"timeZone":"Mars/Crater"}}
            spec.timeZone: Invalid value: "Mars/Crater": unknown time zone Mars/Crater
        {"spec":{"timeZone":"../etc"}}
            spec.timeZone: Invalid value: "../etc": unknown time zone ../etc
        {"spec":{"concurrencyPolicy":"Maybe","timeZone":"Europe/Berlin"}}
            spec.concurrencyPolicy: Unsupported value: "Maybe": supported values: "Allow", "Forbid", "Replace"
        {"spec":{"failedJobsHistoryLimit":-1,"startingDeadlineSeconds":-1,"successfulJobsHistoryLimit":-1}}
            spec.startingDeadlineSeconds: Invalid value: -1: must be greater than or equal to 0
            spec.successfulJobsHistoryLimit: Invalid value: -1: must be greater than or equal to 0
            spec.failedJobsHistoryLimit: Invalid value: -1: must be greater than or equal to 0
        {"spec":{"jobTemplate":{"spec":{"manualSelector":true,"selector":{"matchLabels":{"a":"b"}}}}}}
            spec.jobTemplate.spec.selector: Invalid value: {"matchLabels":{"a":"b"}}: `selector` will be auto-generated
            spec.jobTemplate.spec.manualSelector: Unsupported value: true: supported values: "nil", "false"
        {"spec":{"jobTemplate":{"spec":{"template":{"spec":{"restartPolicy":null}}}}}}
            spec.jobTemplate.spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"
    "#]].assert_eq(&faults(&CronJobs, &base(), &patches));
}

#[test]
fn everything_may_change_but_into_what_is_invalid() {
    let patches = [
        json!({"spec": {"schedule": "@daily", "suspend": true, "timeZone": "Etc/UTC"}}),
        json!({"spec": {"schedule": "CRON_TZ=UTC @daily"}}),
        json!({"spec": {"jobTemplate": {"spec": {"parallelism": -1}}}}),
    ];
    expect![[r#"
        {"spec":{"schedule":"@daily","suspend":true,"timeZone":"Etc/UTC"}}
        {"spec":{"schedule":"CRON_TZ=UTC @daily"}}
            spec.schedule: Invalid value: "CRON_TZ=UTC @daily": cannot use TZ or CRON_TZ in schedule, use timeZone field instead
        {"spec":{"jobTemplate":{"spec":{"parallelism":-1}}}}
            spec.jobTemplate.spec.parallelism: Invalid value: -1: must be greater than or equal to 0
    "#]].assert_eq(&refusals(&CronJobs, &base(), &patches));
}

#[test]
fn a_row_shows_when_it_ran() {
    let object = merged(
        &base(),
        &json!({"metadata": {"creationTimestamp": "2026-01-01T00:58:00Z"},
        "spec": {"suspend": false, "timeZone": "Etc/UTC"},
        "status": {"active": [{"name": "report-1"}], "lastScheduleTime": "2026-01-01T00:59:00Z"}}),
    );
    assert_eq!(
        row(&CronJobs, &object),
        "report | */5 * * * * | Etc/UTC | False | 1 | 60s | 2m | c | busybox:1 | <none>"
    );
    assert_eq!(
        row(&CronJobs, &base()),
        "report | */5 * * * * | <none> | <unset> | 0 | <none> | <unknown> | c | busybox:1 | <none>"
    );
}
