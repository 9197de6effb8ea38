//! Events of both groups: faults, changes and rows.

use expect_test::expect;
use serde_json::{Value, json};

use super::{CoreEvents, Events};
use crate::kinds::testing::{defaulted, faults, merged, now, refusals, row};

fn old_style() -> Value {
    json!({
        "metadata": {"name": "e", "namespace": "default"},
        "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default", "fieldPath": "spec.containers{c}"},
        "reason": "Pulled", "message": " it is here\n", "type": "Normal", "count": 3,
        "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:59:00Z",
        "source": {"component": "kubelet", "host": "n1"},
    })
}

fn new_style() -> Value {
    json!({
        "metadata": {"name": "e", "namespace": "default"},
        "regarding": {"kind": "Pod", "name": "p", "namespace": "default"},
        "reason": "Scheduled", "note": "on n1", "type": "Normal", "action": "Binding",
        "eventTime": "2026-01-01T00:58:00.000000Z",
        "reportingController": "default-scheduler", "reportingInstance": "default-scheduler-n1",
    })
}

#[test]
fn old_events_need_only_the_right_namespace() {
    let patches = [
        json!({"involvedObject": {"namespace": "other"}}),
        json!({"involvedObject": {"namespace": null}}),
        json!({"involvedObject": {"namespace": null}, "metadata": {"namespace": "other"}}),
        json!({"eventTime": "2026-01-01T00:00:00.000000Z"}),
    ];
    expect![[r#"
        {"involvedObject":{"namespace":"other"}}
            involvedObject.namespace: Invalid value: "other": does not match event.namespace
        {"involvedObject":{"namespace":null}}
        {"involvedObject":{"namespace":null},"metadata":{"namespace":"other"}}
            involvedObject.namespace: Invalid value: "": does not match event.namespace
        {"eventTime":"2026-01-01T00:00:00.000000Z"}
            reportingComponent: Required value
            reportingComponent: Invalid value: "": name part must be non-empty
            reportingComponent: Invalid value: "": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
            reportingInstance: Required value
            action: Required value
    "#]].assert_eq(&faults(&CoreEvents, &old_style(), &patches));
}

#[test]
fn new_events_are_complete_and_nothing_but_new() {
    let patches = [
        json!({"eventTime": null}),
        json!({"metadata": {"name": "1Gi"}}),
        json!({"type": "Odd", "deprecatedCount": 1, "deprecatedSource": {"component": "x"},
            "deprecatedFirstTimestamp": "2026-01-01T00:00:00Z"}),
        json!({"action": "", "reason": "x".repeat(129), "reportingController": "a b", "reportingInstance": null}),
        json!({"series": {"count": 1, "lastObservedTime": "2026-01-01T00:00:00.000000Z"}}),
    ];
    expect![[r#"
        {"eventTime":null}
            eventTime: Required value
        {"metadata":{"name":"1Gi"}}
            metadata.name: Invalid value: "1Gi": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
        {"deprecatedCount":1,"deprecatedFirstTimestamp":"2026-01-01T00:00:00Z","deprecatedSource":{"component":"x"},"type":"Odd"}
            type: Invalid value: "": has invalid value: Odd
            firstTimestamp: Invalid value: "": needs to be unset
            count: Invalid value: "": needs to be unset
            source: Invalid value: "": needs to be unset
        {"action":"","reason":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx","reportingController":"a b","reportingInstance":null}
            reportingController: Invalid value: "a b": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
            reportingInstance: Required value
            action: Required value
            reason: Invalid value: "": can have at most 128 characters
        {"series":{"count":1,"lastObservedTime":"2026-01-01T00:00:00.000000Z"}}
            series.count: Invalid value: "": should be at least 2
    "#]].assert_eq(&faults(&Events, &new_style(), &patches));
}

#[test]
fn of_new_events_only_the_series_grows() {
    let patches = [
        json!({"series": {"count": 2, "lastObservedTime": "2026-01-01T00:59:00.000000Z"}}),
        json!({"note": "elsewhere", "eventTime": "2026-01-01T00:58:00.000001Z"}),
    ];
    expect![[r#"
        {"series":{"count":2,"lastObservedTime":"2026-01-01T00:59:00.000000Z"}}
        {"eventTime":"2026-01-01T00:58:00.000001Z","note":"elsewhere"}
            message: Invalid value: "elsewhere": field is immutable
            eventTime: Invalid value: "2026-01-01T00:58:00.000001Z": field is immutable
    "#]]
    .assert_eq(&refusals(&Events, &new_style(), &patches));
}

#[test]
fn rows_of_both_groups_are_alike() {
    assert_eq!(
        row(&CoreEvents, &old_style()),
        "60s | Normal | Pulled | pod/p | spec.containers{c} | kubelet, n1 | it is here | 60m | 3 | e"
    );
    assert_eq!(
        row(&Events, &new_style()),
        "2m | Normal | Scheduled | pod/p |  | default-scheduler, default-scheduler-n1 | on n1 | 2m | 1 | e"
    );
    let series = json!({"series": {"count": 7, "lastObservedTime": "2026-01-01T00:59:30.000000Z"}});
    assert!(row(&Events, &merged(&new_style(), &series)).starts_with("30s | "));
}

#[test]
fn both_groups_select_the_same_events_by_their_own_names() {
    use crate::kind::Strategy;
    let value = |fields: Vec<(&str, String)>, name: &str| {
        fields.into_iter().find(|(field, _)| *field == name).map(|(_, value)| value)
    };
    let core = CoreEvents.fields(&defaulted(&CoreEvents, &old_style()));
    assert_eq!(value(core.clone(), "involvedObject.name").as_deref(), Some("p"));
    assert_eq!(value(core, "source").as_deref(), Some("kubelet"));
    let new = Events.fields(&defaulted(&Events, &new_style()));
    assert_eq!(value(new.clone(), "regarding.name").as_deref(), Some("p"));
    assert_eq!(value(new, "reportingController").as_deref(), Some("default-scheduler"));
    assert!(now() > "2026-01-01T00:58:00Z".parse().unwrap());
}
