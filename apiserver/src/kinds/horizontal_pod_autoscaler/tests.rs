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
    expect![[r#"
        {
          "apiVersion": "autoscaling/v2",
          "kind": "HorizontalPodAutoscaler",
          "metadata": {
            "name": "web",
            "namespace": "default"
          },
          "spec": {
            "behavior": {
              "scaleDown": {
                "policies": [
                  {
                    "periodSeconds": 15,
                    "type": "Percent",
                    "value": 100
                  }
                ],
                "selectPolicy": "Disabled"
              },
              "scaleUp": {
                "policies": [
                  {
                    "periodSeconds": 15,
                    "type": "Pods",
                    "value": 4
                  },
                  {
                    "periodSeconds": 15,
                    "type": "Percent",
                    "value": 100
                  }
                ],
                "selectPolicy": "Max",
                "stabilizationWindowSeconds": 0
              }
            },
            "maxReplicas": 5,
            "metrics": [
              {
                "resource": {
                  "name": "cpu",
                  "target": {
                    "averageUtilization": 80,
                    "type": "Utilization"
                  }
                },
                "type": "Resource"
              }
            ],
            "minReplicas": 1,
            "scaleTargetRef": {
              "apiVersion": "apps/v1",
              "kind": "Deployment",
              "name": "web"
            }
          },
          "status": {
            "desiredReplicas": 0
          }
        }"#]]
    .assert_eq(&shown(&Autoscalers, &created(&Autoscalers, &merged(&base(), &behavior))));
    let old = merged(&base(), &json!({"spec": {"targetCPUUtilizationPercentage": 40}}));
    expect![[r#"
        {
          "apiVersion": "autoscaling/v1",
          "kind": "HorizontalPodAutoscaler",
          "metadata": {
            "name": "web",
            "namespace": "default"
          },
          "spec": {
            "maxReplicas": 5,
            "minReplicas": 1,
            "scaleTargetRef": {
              "apiVersion": "apps/v1",
              "kind": "Deployment",
              "name": "web"
            },
            "targetCPUUtilizationPercentage": 40
          },
          "status": {
            "currentReplicas": 0,
            "desiredReplicas": 0
          }
        }"#]]
    .assert_eq(&shown(&AutoscalersV1, &created(&AutoscalersV1, &old)));
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
    expect![[r#"
        {
          "autoscaling.alpha.kubernetes.io/behavior": "{\"ScaleDown\":{\"Policies\":[{\"PeriodSeconds\":15,\"Type\":\"Percent\",\"Value\":100}],\"SelectPolicy\":\"Max\"},\"ScaleUp\":{\"Policies\":[{\"PeriodSeconds\":15,\"Type\":\"Pods\",\"Value\":4},{\"PeriodSeconds\":15,\"Type\":\"Percent\",\"Value\":100}],\"SelectPolicy\":\"Max\",\"StabilizationWindowSeconds\":0,\"Tolerance\":\"50m\"}}",
          "autoscaling.alpha.kubernetes.io/conditions": "[{\"lastTransitionTime\":\"2026-01-01T00:00:00Z\",\"reason\":\"ok\",\"status\":\"True\",\"type\":\"AbleToScale\"}]",
          "autoscaling.alpha.kubernetes.io/current-metrics": "[{\"resource\":{\"currentAverageUtilization\":45,\"currentAverageValue\":\"90m\",\"name\":\"cpu\"},\"type\":\"Resource\"},{\"external\":{\"currentAverageValue\":\"7\",\"currentValue\":\"0\",\"metricName\":\"queue\"},\"type\":\"External\"}]",
          "autoscaling.alpha.kubernetes.io/metrics": "[{\"resource\":{\"name\":\"memory\",\"targetAverageValue\":\"1Gi\"},\"type\":\"Resource\"},{\"containerResource\":{\"container\":\"c\",\"name\":\"cpu\",\"targetAverageUtilization\":60},\"type\":\"ContainerResource\"},{\"pods\":{\"metricName\":\"rps\",\"selector\":{\"matchLabels\":{\"a\":\"b\"}},\"targetAverageValue\":\"10\"},\"type\":\"Pods\"},{\"object\":{\"metricName\":\"hits\",\"target\":{\"apiVersion\":\"v1\",\"kind\":\"Service\",\"name\":\"s\"},\"targetValue\":\"100\"},\"type\":\"Object\"},{\"external\":{\"metricName\":\"queue\",\"targetAverageValue\":\"30\"},\"type\":\"External\"}]",
          "mine": "1"
        }"#]].assert_eq(&serde_json::to_string_pretty(&old.metadata.annotations).unwrap());
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
    expect![[r#"
        {"spec":{"maxReplicas":0,"minReplicas":0}}
            spec.minReplicas: Invalid value: 0: must be greater than or equal to 1
            spec.maxReplicas: Required value: must be set and greater than 0
            spec.metrics: Forbidden: must specify at least one Object or External metric to support scaling to zero replicas
        {"spec":{"maxReplicas":-1,"minReplicas":7}}
            spec.maxReplicas: Invalid value: -1: must be greater than or equal to 1
            spec.maxReplicas: Invalid value: -1: must be greater than or equal to `minReplicas`
        {"spec":{"scaleTargetRef":{"apiVersion":"v1","kind":"","name":"a/b"}}}
            spec.scaleTargetRef.kind: Required value
            spec.scaleTargetRef.name: Invalid value: "a/b": may not contain '/'
            spec.scaleTargetRef.apiVersion: Invalid value: "v1": apiVersion must specify API group
        {"spec":{"scaleTargetRef":{"apiVersion":"a/b/c"}}}
            spec.scaleTargetRef.apiVersion: Invalid value: "a/b/c": unexpected GroupVersion string: a/b/c
        {"spec":{"scaleTargetRef":{"apiVersion":null,"kind":"ReplicationController"}}}
        {"spec":{"metrics":[{"type":""}]}}
            spec.metrics[0].type: Required value: must specify a metric source type
            spec.metrics[0].type: Unsupported value: "": supported values: "ContainerResource", "External", "Object", "Pods", "Resource"
        {"spec":{"metrics":[{"type":"Resource"}]}}
            spec.metrics[0].resource: Required value: must populate information for the given metric source
        {"spec":{"metrics":[{"resource":{"name":"","target":{"type":"Some"}},"type":"Resource"}]}}
            spec.metrics[0].resource.name: Required value: must specify a resource name
            spec.metrics[0].resource.target.type: Invalid value: "Some": must be either Utilization, Value, or AverageValue
            spec.metrics[0].resource.target.averageUtilization: Required value: must set either a target raw value or a target utilization
        {"spec":{"metrics":[{"resource":{"name":"cpu","target":{"averageUtilization":0,"averageValue":"-1","type":"Utilization"}},"type":"Resource"}]}}
            spec.metrics[0].resource.target.averageValue: Invalid value: "-1": must be positive
            spec.metrics[0].resource.target.averageUtilization: Invalid value: 0: must be greater than 0
            spec.metrics[0].resource.target.averageValue: Forbidden: may not set both a target raw value and a target utilization
        {"spec":{"metrics":[{"pods":{"metric":{"name":"a/b"},"target":{"type":"Value","value":"1"}},"type":"Pods"}]}}
            spec.metrics[0].pods.metric.name: Invalid value: "a/b": may not contain '/'
            spec.metrics[0].pods.target.averageValue: Required value: must specify a positive target averageValue
        {"spec":{"metrics":[{"object":{"describedObject":{"kind":"","name":""},"metric":{"name":""},"target":{"type":"Value"}},"type":"Object"}]}}
            spec.metrics[0].object.describedObject.kind: Required value
            spec.metrics[0].object.describedObject.name: Required value
            spec.metrics[0].object.metric.name: Required value: must specify a metric name
            spec.metrics[0].object.target.averageValue: Required value: must set either a target value or averageValue
        {"spec":{"metrics":[{"external":{"metric":{"name":"q"},"target":{"averageValue":"1","type":"Value","value":"1"}},"type":"External"}]}}
            spec.metrics[0].external.target.value: Forbidden: may not set both a target value for metric and a per-pod target
        {"spec":{"metrics":[{"containerResource":{"container":"A","name":"gpu","target":{"type":"Utilization"}},"type":"ContainerResource"}]}}
            spec.metrics[0].containerResource.name: Invalid value: "gpu": must be a standard resource type or fully qualified
            spec.metrics[0].containerResource.name: Invalid value: "gpu": must be a standard resource for containers
            spec.metrics[0].containerResource.container: Invalid value: "A": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
            spec.metrics[0].containerResource.target.averageUtilization: Required value: must set either a target raw value or a target utilization
        {"spec":{"behavior":{"scaleDown":{"policies":[],"stabilizationWindowSeconds":-1},"scaleUp":{"policies":[{"periodSeconds":1801,"type":"Nodes","value":0}],"selectPolicy":"Any","stabilizationWindowSeconds":3601,"tolerance":"-1"}}}}
            spec.behavior.scaleUp.stabilizationWindowSeconds: Invalid value: 3601: must be less than or equal to 3600
            spec.behavior.scaleUp.selectPolicy: Unsupported value: "Any": supported values: "Disabled", "Max", "Min"
            spec.behavior.scaleUp.policies[0].type: Unsupported value: "Nodes": supported values: "Percent", "Pods"
            spec.behavior.scaleUp.policies[0].value: Invalid value: 0: must be greater than zero
            spec.behavior.scaleUp.policies[0].periodSeconds: Invalid value: 1801: must be less than or equal to 1800
            spec.behavior.scaleUp.tolerance: Invalid value: "-1": must be greater than or equal to 0
            spec.behavior.scaleDown.stabilizationWindowSeconds: Invalid value: -1: must be greater than or equal to zero
            spec.behavior.scaleDown.policies: Required value: must specify at least one Policy
    "#]].assert_eq(&faults(&Autoscalers, &base(), &patches));
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
    expect![[r#"
        status.currentReplicas: Invalid value: -1: must be greater than or equal to 0
        status.desiredReplicas: Invalid value: -2: must be greater than or equal to 0
    "#]]
    .assert_eq(&lines(&Autoscalers.validate_status(&object, &object)));
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
