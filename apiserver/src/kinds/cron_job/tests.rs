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
    expect![[""]].assert_eq(&shown(&CronJobs, &created(&CronJobs, &base())));
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
    expect![[""]].assert_eq(&faults(&CronJobs, &base(), &patches));
}

#[test]
fn everything_may_change_but_into_what_is_invalid() {
    let patches = [
        json!({"spec": {"schedule": "@daily", "suspend": true, "timeZone": "Etc/UTC"}}),
        json!({"spec": {"schedule": "CRON_TZ=UTC @daily"}}),
        json!({"spec": {"jobTemplate": {"spec": {"parallelism": -1}}}}),
    ];
    expect![[""]].assert_eq(&refusals(&CronJobs, &base(), &patches));
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
