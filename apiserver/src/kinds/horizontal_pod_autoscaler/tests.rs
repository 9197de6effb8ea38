//! Autoscalers: defaults in both versions, the way between them, faults, rows.

use expect_test::expect;
use serde_json::{Value, json};

use super::{Autoscalers, AutoscalersV1};
use crate::{
    kind::Strategy,
    kinds::testing::{created, defaulted, faults, lines, merged, refusals, row, shown},
};

fn base() -> Value {
    json!({
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}, "maxReplicas": 5},
    })
}

fn metric(kind: &str, field: &str, source: Value) -> Value {
    json!({"type": kind, field: source})
}

/// One metric of every kind.
fn all_metrics() -> Vec<Value> {
    vec![
        metric(
            "Resource",
            "resource",
            json!({"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}),
        ),
        metric(
            "Resource",
            "resource",
            json!({"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}}),
        ),
        metric(
            "ContainerResource",
            "containerResource",
            json!({"name": "cpu", "container": "c",
            "target": {"type": "Utilization", "averageUtilization": 60}}),
        ),
        metric(
            "Pods",
            "pods",
            json!({"metric": {"name": "rps", "selector": {"matchLabels": {"a": "b"}}},
            "target": {"type": "AverageValue", "averageValue": "10"}}),
        ),
        metric(
            "Object",
            "object",
            json!({"describedObject": {"apiVersion": "v1", "kind": "Service", "name": "s"},
            "metric": {"name": "hits"}, "target": {"type": "Value", "value": "100"}}),
        ),
        metric(
            "External",
            "external",
            json!({"metric": {"name": "queue"},
            "target": {"type": "AverageValue", "averageValue": "30"}}),
        ),
    ]
}

#[test]
fn a_minimal_autoscaler_is_completed() {
    let behavior = json!({"spec": {"behavior": {"scaleDown": {"selectPolicy": "Disabled"}}}});
    expect![[""]].assert_eq(&shown(&Autoscalers, &created(&Autoscalers, &merged(&base(), &behavior))));
    let old = merged(&base(), &json!({"spec": {"targetCPUUtilizationPercentage": 40}}));
    expect![[""]].assert_eq(&shown(&AutoscalersV1, &created(&AutoscalersV1, &old)));
}

#[test]
fn an_autoscaler_survives_the_way_to_the_older_version_and_back() {
    let current = json!([
        {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 45, "averageValue": "90m"}}},
        {"type": "External", "external": {"metric": {"name": "queue"}, "current": {"averageValue": "7", "value": "0"}}},
    ]);
    let conditions = json!([{"type": "AbleToScale", "status": "True", "reason": "ok",
        "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
    let patch = json!({
        "metadata": {"annotations": {"mine": "1"}},
        "spec": {"metrics": all_metrics(), "behavior": {"scaleUp": {"tolerance": "50m"}}},
        "status": {"currentReplicas": 2, "desiredReplicas": 3, "currentMetrics": current, "conditions": conditions},
    });
    let whole = defaulted(&Autoscalers, &merged(&base(), &patch));
    let old = super::to_v1(whole.clone());
    assert_eq!(old.spec.target_cpu_utilization_percentage, Some(50));
    assert_eq!(old.status.as_ref().unwrap().current_cpu_utilization_percentage, Some(45));
    expect![[""]].assert_eq(&serde_json::to_string_pretty(&old.metadata.annotations).unwrap());
    let mut back = serde_json::to_value(super::from_v1(old)).unwrap();
    let mut there = serde_json::to_value(&whole).unwrap();
    // The CPU target has a field of its own and so comes last.
    for object in [&mut back, &mut there] {
        let metrics = object["spec"]["metrics"].as_array_mut().unwrap();
        metrics.sort_by_key(ToString::to_string);
    }
    assert_eq!(back, there);
}

#[test]
fn what_older_clients_write_is_stored_in_the_newer_version() {
    let old = created(&AutoscalersV1, &merged(&base(), &json!({"spec": {"targetCPUUtilizationPercentage": 40}})));
    let stored = serde_json::to_vec(&AutoscalersV1.to_stored(&old).unwrap()).unwrap();
    let new = Autoscalers.from_stored(&stored).unwrap();
    let json = serde_json::to_value(&new).unwrap();
    assert_eq!(json["apiVersion"], "autoscaling/v2");
    assert_eq!(json["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 40);
    assert_eq!(AutoscalersV1.from_stored(&stored).unwrap(), old);
}

#[test]
fn annotations_that_cannot_be_read_are_passed_over() {
    let broken = json!({"metadata": {"annotations": {
        "autoscaling.alpha.kubernetes.io/metrics": "{", "autoscaling.alpha.kubernetes.io/behavior": "[1]",
        "autoscaling.alpha.kubernetes.io/conditions": "7", "kept": "yes"}}});
    let object = created(&AutoscalersV1, &merged(&base(), &broken));
    assert_eq!(object.spec.target_cpu_utilization_percentage, Some(80));
    assert_eq!(object.metadata.annotations.unwrap().into_keys().collect::<Vec<_>>(), ["kept"]);
}

#[test]
fn faults_are_named() {
    let metrics = |metrics: Value| json!({"spec": {"metrics": [metrics]}});
    let patches = [
        json!({"spec": {"minReplicas": 0, "maxReplicas": 0}}),
        json!({"spec": {"minReplicas": 7, "maxReplicas": -1}}),
        json!({"spec": {"scaleTargetRef": {"apiVersion": "v1", "kind": "", "name": "a/b"}}}),
        json!({"spec": {"scaleTargetRef": {"apiVersion": "a/b/c"}}}),
        json!({"spec": {"scaleTargetRef": {"apiVersion": null, "kind": "ReplicationController"}}}),
        metrics(json!({"type": ""})),
        metrics(json!({"type": "Resource"})),
        metrics(json!({"type": "Resource", "resource": {"name": "", "target": {"type": "Some"}}})),
        metrics(json!({"type": "Resource", "resource": {"name": "cpu", "target":
            {"type": "Utilization", "averageUtilization": 0, "averageValue": "-1"}}})),
        metrics(
            json!({"type": "Pods", "pods": {"metric": {"name": "a/b"}, "target": {"type": "Value", "value": "1"}}}),
        ),
        metrics(
            json!({"type": "Object", "object": {"describedObject": {"kind": "", "name": ""}, "metric": {"name": ""},
            "target": {"type": "Value"}}}),
        ),
        metrics(json!({"type": "External", "external": {"metric": {"name": "q"},
            "target": {"type": "Value", "value": "1", "averageValue": "1"}}})),
        metrics(json!({"type": "ContainerResource", "containerResource": {"name": "gpu", "container": "A",
            "target": {"type": "Utilization"}}})),
        json!({"spec": {"behavior": {"scaleUp": {"stabilizationWindowSeconds": 3601, "selectPolicy": "Any",
            "policies": [{"type": "Nodes", "value": 0, "periodSeconds": 1801}], "tolerance": "-1"},
            "scaleDown": {"stabilizationWindowSeconds": -1, "policies": []}}}}),
    ];
    expect![[""]].assert_eq(&faults(&Autoscalers, &base(), &patches));
}

#[test]
fn an_old_reference_is_not_held_against_a_change() {
    let odd = merged(&base(), &json!({"spec": {"scaleTargetRef": {"apiVersion": "v1"}}}));
    assert_eq!(
        refusals(&Autoscalers, &odd, &[json!({"spec": {"maxReplicas": 6}})]),
        "{\"spec\":{\"maxReplicas\":6}}\n"
    );
    let status = merged(&base(), &json!({"status": {"currentReplicas": -1, "desiredReplicas": -2}}));
    let object = defaulted(&Autoscalers, &status);
    expect![[""]].assert_eq(&lines(&Autoscalers.validate_status(&object, &object)));
}

#[test]
fn a_row_shows_targets() {
    let created_at = json!({"metadata": {"creationTimestamp": "2026-01-01T00:58:00Z"}});
    let object = merged(
        &base(),
        &merged(
            &created_at,
            &json!({"spec": {"minReplicas": 2, "metrics": all_metrics()},
        "status": {"currentReplicas": 3, "desiredReplicas": 3, "currentMetrics": [
            {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 45}}}]}}),
        ),
    );
    assert_eq!(
        row(&Autoscalers, &object),
        "web | Deployment/web | cpu: 45%/50%, memory: <unknown>/1Gi + 4 more... | 2 | 5 | 3 | 2m"
    );
    let old = merged(&base(), &json!({"spec": {"targetCPUUtilizationPercentage": 40}}));
    assert_eq!(row(&AutoscalersV1, &old), "web | Deployment/web | cpu: <unknown>/40% | <unset> | 5 | 0 | <unknown>");
}
