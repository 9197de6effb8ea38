//! StatefulSets: defaults, faults, changes, rows and scale.

use expect_test::expect;
use serde_json::{Value, json};

use super::StatefulSets;
use crate::{
    kind::{Scale, Strategy},
    kinds::testing::{created, defaulted, faults, lines, merged, refusals, row, shown},
};

fn base() -> Value {
    json!({
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "serviceName": "web",
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [
                    {"name": "c", "image": "nginx:1", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}]},
            },
            "volumeClaimTemplates": [{
                "metadata": {"name": "data"},
                "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1024Mi"}}},
            }],
        },
    })
}

#[test]
fn a_minimal_stateful_set_is_completed() {
    expect![[r#"
        {
          "apiVersion": "apps/v1",
          "kind": "StatefulSet",
          "metadata": {
            "name": "web",
            "namespace": "default"
          },
          "spec": {
            "persistentVolumeClaimRetentionPolicy": {
              "whenDeleted": "Retain",
              "whenScaled": "Retain"
            },
            "podManagementPolicy": "OrderedReady",
            "replicas": 1,
            "revisionHistoryLimit": 10,
            "selector": {
              "matchLabels": {
                "app": "web"
              }
            },
            "serviceName": "web",
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
                    "terminationMessagePolicy": "File",
                    "volumeMounts": [
                      {
                        "mountPath": "/data",
                        "name": "data"
                      }
                    ]
                  }
                ],
                "dnsPolicy": "ClusterFirst",
                "restartPolicy": "Always",
                "schedulerName": "default-scheduler",
                "securityContext": {},
                "terminationGracePeriodSeconds": 30
              }
            },
            "updateStrategy": {
              "rollingUpdate": {
                "partition": 0
              },
              "type": "RollingUpdate"
            },
            "volumeClaimTemplates": [
              {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {
                  "name": "data"
                },
                "spec": {
                  "accessModes": [
                    "ReadWriteOnce"
                  ],
                  "resources": {
                    "requests": {
                      "storage": "1Gi"
                    }
                  },
                  "volumeMode": "Filesystem"
                },
                "status": {
                  "phase": "Pending"
                }
              }
            ]
          },
          "status": {
            "availableReplicas": 0,
            "replicas": 0
          }
        }"#]]
    .assert_eq(&shown(&StatefulSets, &created(&StatefulSets, &base())));
}

#[test]
fn what_is_behind_a_gate_that_is_off_is_dropped() {
    let rolling = json!({"spec": {"updateStrategy": {"rollingUpdate": {"maxUnavailable": 2}}}});
    let object = created(&StatefulSets, &merged(&base(), &rolling));
    let strategy = serde_json::to_value(object.spec.unwrap().update_strategy).unwrap();
    assert_eq!(strategy, json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}));
}

#[test]
fn faults_are_named() {
    let patches = [
        json!({"spec": {"replicas": -1, "minReadySeconds": -1, "ordinals": {"start": -1}, "serviceName": "a.b"}}),
        json!({"spec": {"podManagementPolicy": "Random", "updateStrategy": {"type": "Slowly"}}}),
        json!({"spec": {"updateStrategy": {"type": "OnDelete", "rollingUpdate": {"partition": 1}}}}),
        json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": -1}}}}),
        json!({"spec": {"persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Keep", "whenScaled": "Delete"}}}),
        json!({"spec": {"selector": {"matchLabels": null}}}),
        json!({"spec": {"selector": {"matchLabels": {"app": "other"}}}}),
        json!({"spec": {"template": {"spec": {"restartPolicy": "Never", "activeDeadlineSeconds": 5}}}}),
        json!({"spec": {"volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["Once"]}}]}}),
        json!({"spec": {"volumeClaimTemplates": null}}),
    ];
    expect![[r#"
        {"spec":{"minReadySeconds":-1,"ordinals":{"start":-1},"replicas":-1,"serviceName":"a.b"}}
            spec.replicas: Invalid value: -1: must be greater than or equal to 0
            spec.minReadySeconds: Invalid value: -1: must be greater than or equal to 0
            spec.ordinals.start: Invalid value: -1: must be greater than or equal to 0
            spec.serviceName: Invalid value: "a.b": must not contain dots
        {"spec":{"podManagementPolicy":"Random","updateStrategy":{"type":"Slowly"}}}
            spec.podManagementPolicy: Invalid value: "Random": must be 'OrderedReady' or 'Parallel'
            spec.updateStrategy: Invalid value: {"type":"Slowly"}: must be 'RollingUpdate' or 'OnDelete'
        {"spec":{"updateStrategy":{"rollingUpdate":{"partition":1},"type":"OnDelete"}}}
            spec.updateStrategy.rollingUpdate: Invalid value: {"partition":1}: only allowed for updateStrategy 'RollingUpdate'
        {"spec":{"updateStrategy":{"rollingUpdate":{"partition":-1}}}}
            spec.updateStrategy.rollingUpdate.partition: Invalid value: -1: must be greater than or equal to 0
        {"spec":{"persistentVolumeClaimRetentionPolicy":{"whenDeleted":"Keep","whenScaled":"Delete"}}}
            spec.persistentVolumeClaimRetentionPolicy.whenDeleted: Unsupported value: "Keep": supported values: "Retain", "Delete"
        {"spec":{"selector":{"matchLabels":null}}}
            spec.selector: Required value
            spec.template.metadata.labels: Invalid value: {"app":"web"}: `selector` does not match template `labels`
        {"spec":{"selector":{"matchLabels":{"app":"other"}}}}
            spec.template.metadata.labels: Invalid value: {"app":"web"}: `selector` does not match template `labels`
        {"spec":{"template":{"spec":{"activeDeadlineSeconds":5,"restartPolicy":"Never"}}}}
            spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"
            spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in StatefulSet is not Supported
        {"spec":{"volumeClaimTemplates":[{"metadata":{"name":"data"},"spec":{"accessModes":["Once"]}}]}}
            spec.volumeClaimTemplates[0].spec.accessModes: Unsupported value: "Once": supported values: "ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"
            spec.volumeClaimTemplates[0].spec.resources[storage]: Required value
        {"spec":{"volumeClaimTemplates":null}}
            spec.template.spec.containers[0].volumeMounts[0].name: Not found: "data"
    "#]].assert_eq(&faults(&StatefulSets, &base(), &patches));
}

#[test]
fn most_of_the_spec_stays() {
    let patches = [
        json!({"spec": {"replicas": 3, "minReadySeconds": 5, "ordinals": {"start": 2}, "revisionHistoryLimit": 1}}),
        json!({"spec": {"template": {"metadata": {"labels": {"more": "labels"}}}}}),
        json!({"spec": {"serviceName": "other"}}),
        json!({"spec": {"podManagementPolicy": "Parallel"}}),
        json!({"spec": {"volumeClaimTemplates": []}}),
    ];
    expect![[r#"
        {"spec":{"minReadySeconds":5,"ordinals":{"start":2},"replicas":3,"revisionHistoryLimit":1}}
        {"spec":{"template":{"metadata":{"labels":{"more":"labels"}}}}}
        {"spec":{"serviceName":"other"}}
            spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden
        {"spec":{"podManagementPolicy":"Parallel"}}
            spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden
        {"spec":{"volumeClaimTemplates":[]}}
            spec.template.spec.containers[0].volumeMounts[0].name: Not found: "data"
            spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden
    "#]].assert_eq(&refusals(&StatefulSets, &base(), &patches));
}

#[test]
fn counts_of_a_status_add_up() {
    let status = |status: Value| defaulted(&StatefulSets, &merged(&base(), &json!({"status": status})));
    let old = status(json!({"replicas": 1, "collisionCount": 2}));
    let new = status(json!({"replicas": 1, "readyReplicas": 2, "currentReplicas": 2, "updatedReplicas": 2,
        "availableReplicas": 3, "collisionCount": 1}));
    expect![[r#"
        status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas
        status.currentReplicas: Invalid value: 2: cannot be greater than status.replicas
        status.updatedReplicas: Invalid value: 2: cannot be greater than status.replicas
        status.availableReplicas: Invalid value: 3: cannot be greater than status.replicas
        status.availableReplicas: Invalid value: 3: cannot be greater than status.readyReplicas
        status.collisionCount: Invalid value: 1: cannot be decremented
    "#]]
    .assert_eq(&lines(&StatefulSets.validate_status(&new, &old)));
}

#[test]
fn a_row_shows_how_many_are_ready() {
    let object = merged(
        &base(),
        &json!({"spec": {"replicas": 3}, "status": {"replicas": 2, "readyReplicas": 1},
        "metadata": {"creationTimestamp": "2026-01-01T00:58:00Z"}}),
    );
    assert_eq!(row(&StatefulSets, &object), "web | 1/3 | 2m | c | nginx:1");
    let mut object = defaulted(&StatefulSets, &object);
    StatefulSets.set_scale(&mut object, 5);
    let expected = Scale { replicas: 5, current: 2, selector: "app=web".to_owned() };
    assert_eq!(StatefulSets.scale(&object), Some(expected));
}
