//! Disruption budgets: defaults, faults, rows.

use expect_test::expect;
use serde_json::{Value, json};

use super::PodDisruptionBudgets;
use crate::{
    kind::Strategy,
    kinds::testing::{created, defaulted, faults, lines, merged, row, shown},
};

fn base() -> Value {
    json!({"metadata": {"name": "web", "namespace": "d"},
        "spec": {"minAvailable": "50%", "selector": {"matchLabels": {"app": "web"}}}})
}

#[test]
fn a_budget_begins_with_nothing_worked_out() {
    expect![[r#"
        {
          "apiVersion": "policy/v1",
          "kind": "PodDisruptionBudget",
          "metadata": {
            "name": "web",
            "namespace": "d"
          },
          "spec": {
            "minAvailable": "50%",
            "selector": {
              "matchLabels": {
                "app": "web"
              }
            }
          },
          "status": {
            "currentHealthy": 0,
            "desiredHealthy": 0,
            "disruptionsAllowed": 0,
            "expectedPods": 0
          }
        }"#]]
    .assert_eq(&shown(&PodDisruptionBudgets, &created(&PodDisruptionBudgets, &base())));
}

#[test]
fn faults_are_named() {
    let patches = [
        json!({"spec": {"maxUnavailable": 1}}),
        json!({"spec": {"minAvailable": "101%"}}),
        json!({"spec": {"minAvailable": null, "maxUnavailable": -1}}),
        json!({"spec": {"minAvailable": "some"}}),
        json!({"spec": {"selector": {"matchLabels": {"a b": "c"}}}}),
        json!({"spec": {"unhealthyPodEvictionPolicy": "Never"}}),
    ];
    expect![[r#"
        {"spec":{"maxUnavailable":1}}
            spec: Invalid value: {"maxUnavailable":1,"minAvailable":"50%","selector":{"matchLabels":{"app":"web"}}}: minAvailable and maxUnavailable cannot be both set
        {"spec":{"minAvailable":"101%"}}
            spec.minAvailable: Invalid value: "101%": must not be greater than 100%
        {"spec":{"maxUnavailable":-1,"minAvailable":null}}
            spec.maxUnavailable: Invalid value: -1: must be greater than or equal to 0
        {"spec":{"minAvailable":"some"}}
            spec.minAvailable: Invalid value: "some": a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')
        {"spec":{"selector":{"matchLabels":{"a b":"c"}}}}
            spec.selector.matchLabels: Invalid value: "a b": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
        {"spec":{"unhealthyPodEvictionPolicy":"Never"}}
            spec.unhealthyPodEvictionPolicy: Unsupported value: "Never": supported values: "AlwaysAllow", "IfHealthyBudget"
    "#]].assert_eq(&faults(&PodDisruptionBudgets, &base(), &patches));
}

#[test]
fn a_status_has_one_well_formed_condition_a_type() {
    let condition = json!({"type": "DisruptionAllowed", "status": "Maybe", "reason": "", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": -1});
    let status = json!({"status": {"disruptionsAllowed": -1, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1,
        "conditions": [condition, merged(&condition, &json!({"status": "True", "reason": "not a word"}))]}});
    let object = defaulted(&PodDisruptionBudgets, &merged(&base(), &status));
    expect![[r#"
        status.conditions[0].status: Unsupported value: "Maybe": supported values: "False", "True", "Unknown"
        status.conditions[0].observedGeneration: Invalid value: -1: must be greater than or equal to zero
        status.conditions[0].reason: Required value
        status.conditions[1].type: Duplicate value: "DisruptionAllowed"
        status.conditions[1].observedGeneration: Invalid value: -1: must be greater than or equal to zero
        status.conditions[1].reason: Invalid value: "not a word": a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric characters or '_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')
        status.disruptionsAllowed: Invalid value: -1: must be greater than or equal to 0
    "#]].assert_eq(&lines(&PodDisruptionBudgets.validate_status(&object, &object)));
}

#[test]
fn a_row_shows_what_is_allowed() {
    let object = merged(
        &base(),
        &json!({"metadata": {"creationTimestamp": "2026-01-01T00:58:00Z"},
        "status": {"disruptionsAllowed": 2}}),
    );
    assert_eq!(row(&PodDisruptionBudgets, &object), "web | 50% | N/A | 2 | 2m");
    let object = merged(&base(), &json!({"spec": {"minAvailable": null, "maxUnavailable": 1}}));
    assert_eq!(row(&PodDisruptionBudgets, &object), "web | N/A | 1 | 0 | <unknown>");
}
