//! Deployments: defaults, faults, changes, rows and scale.

use expect_test::expect;
use serde_json::{Value, json};

use super::Deployments;
use crate::{
    kind::{Scale, Strategy},
    kinds::testing::{created, defaulted, faults, lines, merged, refusals, row, shown},
};

fn base() -> Value {
    json!({
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": "nginx:1"}]},
            },
        },
    })
}

#[test]
fn a_minimal_deployment_is_completed() {
    expect![[r#"
        {
          "apiVersion": "apps/v1",
          "kind": "Deployment",
          "metadata": {
            "name": "web",
            "namespace": "default"
          },
          "spec": {
            "progressDeadlineSeconds": 600,
            "replicas": 1,
            "revisionHistoryLimit": 10,
            "selector": {
              "matchLabels": {
                "app": "web"
              }
            },
            "strategy": {
              "rollingUpdate": {
                "maxSurge": "25%",
                "maxUnavailable": "25%"
              },
              "type": "RollingUpdate"
            },
            "template": {
              "metadata": {
                "labels": {
                  "app": "web"
                }
              },
              "spec": {
                "containers": [
                  {
                    "image": "nginx:1",
                    "imagePullPolicy": "IfNotPresent",
                    "name": "c",
                    "resources": {},
                    "terminationMessagePath": "/dev/termination-log",
                    "terminationMessagePolicy": "File"
                  }
                ],
                "dnsPolicy": "ClusterFirst",
                "restartPolicy": "Always",
                "schedulerName": "default-scheduler",
                "securityContext": {},
                "terminationGracePeriodSeconds": 30
              }
            }
          },
          "status": {}
        }"#]]
    .assert_eq(&shown(&Deployments, &created(&Deployments, &base())));
}

#[test]
fn a_template_leaves_to_the_pod_what_only_pods_are_completed_with() {
    let limited = json!({"spec": {"template": {"spec": {"hostNetwork": true, "containers": [
        {"name": "c", "image": "i", "ports": [{"containerPort": 80}], "resources": {"limits": {"cpu": "1"}}}]}}}});
    let object = created(&Deployments, &merged(&base(), &limited));
    let container = serde_json::to_value(&object.spec.unwrap().template.spec.unwrap().containers[0]).unwrap();
    assert_eq!(container["resources"], json!({"limits": {"cpu": "1"}}));
    assert_eq!(container["ports"], json!([{"containerPort": 80, "protocol": "TCP"}]));
}

#[test]
fn faults_are_named() {
    let rolling = |rolling: Value| json!({"spec": {"strategy": {"rollingUpdate": rolling}}});
    let patches = [
        json!({"spec": {"replicas": -1, "minReadySeconds": -1, "revisionHistoryLimit": -1}}),
        json!({"spec": {"selector": {"matchLabels": null}}}),
        json!({"spec": {"selector": {"matchLabels": {"app": "other"}}}}),
        json!({"spec": {"selector": {"matchExpressions": [{"key": "app", "operator": "Near"}]}}}),
        json!({"spec": {"strategy": {"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}}}),
        json!({"spec": {"strategy": {"type": "Slowly"}}}),
        rolling(json!({"maxSurge": 0, "maxUnavailable": 0})),
        rolling(json!({"maxSurge": "some", "maxUnavailable": "101%"})),
        rolling(json!({"maxSurge": -1})),
        json!({"spec": {"progressDeadlineSeconds": 5, "minReadySeconds": 5}}),
        json!({"spec": {"template": {"spec": {"restartPolicy": "Never", "activeDeadlineSeconds": 5}}}}),
        json!({"spec": {"template": {"spec": {"containers": [{"name": "c"}]}}}}),
    ];
    expect![[r#"
        {"spec":{"minReadySeconds":-1,"replicas":-1,"revisionHistoryLimit":-1}}
            spec.replicas: Invalid value: -1: must be greater than or equal to 0
            spec.minReadySeconds: Invalid value: -1: must be greater than or equal to 0
            spec.revisionHistoryLimit: Invalid value: -1: must be greater than or equal to 0
        {"spec":{"selector":{"matchLabels":null}}}
            spec.selector: Required value
            spec.template.metadata.labels: Invalid value: {"app":"web"}: `selector` does not match template `labels`
        {"spec":{"selector":{"matchLabels":{"app":"other"}}}}
            spec.template.metadata.labels: Invalid value: {"app":"web"}: `selector` does not match template `labels`
        {"spec":{"selector":{"matchExpressions":[{"key":"app","operator":"Near"}]}}}
            spec.selector.matchExpressions[0].operator: Invalid value: "Near": not a valid selector operator
            spec.selector: Invalid value: {"matchExpressions":[{"key":"app","operator":"Near"}],"matchLabels":{"app":"web"}}: invalid label selector
        {"spec":{"strategy":{"rollingUpdate":{"maxSurge":1},"type":"Recreate"}}}
            spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'
        {"spec":{"strategy":{"type":"Slowly"}}}
            spec.strategy: Unsupported value: {"type":"Slowly"}: supported values: "Recreate", "RollingUpdate"
        {"spec":{"strategy":{"rollingUpdate":{"maxSurge":0,"maxUnavailable":0}}}}
            spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0
        {"spec":{"strategy":{"rollingUpdate":{"maxSurge":"some","maxUnavailable":"101%"}}}}
            spec.strategy.rollingUpdate.maxSurge: Invalid value: "some": a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')
            spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "101%": must not be greater than 100%
        {"spec":{"strategy":{"rollingUpdate":{"maxSurge":-1}}}}
            spec.strategy.rollingUpdate.maxSurge: Invalid value: -1: must be greater than or equal to 0
        {"spec":{"minReadySeconds":5,"progressDeadlineSeconds":5}}
            spec.progressDeadlineSeconds: Invalid value: 5: must be greater than minReadySeconds
        {"spec":{"template":{"spec":{"activeDeadlineSeconds":5,"restartPolicy":"Never"}}}}
            spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"
            spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicaSet is not Supported
        {"spec":{"template":{"spec":{"containers":[{"name":"c"}]}}}}
            spec.template.spec.containers[0].image: Required value
    "#]].assert_eq(&faults(&Deployments, &base(), &patches));
}

#[test]
fn the_selector_stays() {
    let patch = json!({"spec": {"selector": {"matchLabels": {"tier": "front"}},
        "template": {"metadata": {"labels": {"tier": "front"}}}}});
    expect![[r#"
        {"spec":{"selector":{"matchLabels":{"tier":"front"}},"template":{"metadata":{"labels":{"tier":"front"}}}}}
            spec.selector: Invalid value: {"matchLabels":{"app":"web","tier":"front"}}: field is immutable
        {"spec":{"replicas":3}}
    "#]]
    .assert_eq(&refusals(&Deployments, &base(), &[patch, json!({"spec": {"replicas": 3}})]));
}

#[test]
fn counts_of_a_status_add_up() {
    let status = |status: Value| defaulted(&Deployments, &merged(&base(), &json!({"status": status})));
    let old = status(json!({"collisionCount": 2}));
    let new = status(json!({"replicas": 1, "updatedReplicas": 2, "readyReplicas": 2, "availableReplicas": 3,
        "unavailableReplicas": -1, "collisionCount": 1}));
    expect![[r#"
        status.unavailableReplicas: Invalid value: -1: must be greater than or equal to 0
        status.updatedReplicas: Invalid value: 2: cannot be greater than status.replicas
        status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas
        status.availableReplicas: Invalid value: 3: cannot be greater than status.replicas
        status.availableReplicas: Invalid value: 3: cannot be greater than readyReplicas
        status.collisionCount: Invalid value: 1: cannot be decremented
    "#]]
    .assert_eq(&lines(&Deployments.validate_status(&new, &old)));
}

#[test]
fn a_row_shows_how_far_it_is() {
    let object = merged(
        &base(),
        &json!({"metadata": {"creationTimestamp": "2026-01-01T00:58:00Z"}, "spec": {"replicas": 3},
            "status": {"readyReplicas": 1, "updatedReplicas": 2, "availableReplicas": 1, "replicas": 3}}),
    );
    assert_eq!(row(&Deployments, &object), "web | 1/3 | 2 | 1 | 2m | c | nginx:1 | app=web");
}

#[test]
fn the_scale_is_what_is_wanted_and_there() {
    let mut object = defaulted(&Deployments, &merged(&base(), &json!({"status": {"replicas": 1}})));
    Deployments.set_scale(&mut object, 5);
    let expected = Scale { replicas: 5, current: 1, selector: "app=web".to_owned() };
    assert_eq!(Deployments.scale(&object), Some(expected));
}
