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
    expect![[""]].assert_eq(&shown(&PodDisruptionBudgets, &created(&PodDisruptionBudgets, &base())));
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
    expect![[""]].assert_eq(&faults(&PodDisruptionBudgets, &base(), &patches));
}

#[test]
fn a_status_has_one_well_formed_condition_a_type() {
    let condition = json!({"type": "DisruptionAllowed", "status": "Maybe", "reason": "", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": -1});
    let status = json!({"status": {"disruptionsAllowed": -1, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1,
        "conditions": [condition, merged(&condition, &json!({"status": "True", "reason": "not a word"}))]}});
    let object = defaulted(&PodDisruptionBudgets, &merged(&base(), &status));
    expect![[""]].assert_eq(&lines(&PodDisruptionBudgets.validate_status(&object, &object)));
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
