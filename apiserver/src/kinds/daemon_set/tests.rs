//! DaemonSets: defaults, faults, changes, the count of templates, rows.

use expect_test::expect;
use serde_json::{Value, json};

use super::{DaemonSets, TEMPLATE_GENERATION};
use crate::{
    kind::{Context, Strategy},
    kinds::testing::{created, defaulted, faults, lines, merged, now, refusals, row, shown},
    user::User,
};

fn base() -> Value {
    json!({
        "metadata": {"name": "agent", "namespace": "default"},
        "spec": {
            "selector": {"matchLabels": {"app": "agent"}},
            "template": {
                "metadata": {"labels": {"app": "agent"}},
                "spec": {"containers": [{"name": "c", "image": "agent:1"}], "nodeSelector": {"disk": "ssd"}},
            },
        },
    })
}

#[test]
fn a_minimal_daemon_set_is_completed() {
    expect![[r#"
        {
          "apiVersion": "apps/v1",
          "kind": "DaemonSet",
          "metadata": {
            "annotations": {
              "deprecated.daemonset.template.generation": "1"
            },
            "name": "agent",
            "namespace": "default"
          },
          "spec": {
            "revisionHistoryLimit": 10,
            "selector": {
              "matchLabels": {
                "app": "agent"
              }
            },
            "template": {
              "metadata": {
                "labels": {
                  "app": "agent"
                }
              },
              "spec": {
                "containers": [
                  {
                    "image": "agent:1",
                    "imagePullPolicy": "IfNotPresent",
                    "name": "c",
                    "resources": {},
                    "terminationMessagePath": "/dev/termination-log",
                    "terminationMessagePolicy": "File"
                  }
                ],
                "dnsPolicy": "ClusterFirst",
                "nodeSelector": {
                  "disk": "ssd"
                },
                "restartPolicy": "Always",
                "schedulerName": "default-scheduler",
                "securityContext": {},
                "terminationGracePeriodSeconds": 30
              }
            },
            "updateStrategy": {
              "rollingUpdate": {
                "maxSurge": 0,
                "maxUnavailable": 1
              },
              "type": "RollingUpdate"
            }
          },
          "status": {
            "currentNumberScheduled": 0,
            "desiredNumberScheduled": 0,
            "numberMisscheduled": 0,
            "numberReady": 0
          }
        }"#]]
    .assert_eq(&shown(&DaemonSets, &created(&DaemonSets, &base())));
}

#[test]
fn templates_are_counted_whatever_the_writer_says() {
    let user = User::new("alice", &[]);
    let context = Context { user: &user, now: now() };
    let old = created(&DaemonSets, &base());
    let stored = serde_json::to_value(&old).unwrap();
    for (patch, generation) in [
        (json!({"metadata": {"annotations": null}}), "1"),
        (json!({"metadata": {"annotations": {TEMPLATE_GENERATION: "7"}}}), "1"),
        (json!({"spec": {"minReadySeconds": 3}}), "1"),
        (json!({"spec": {"template": {"spec": {"nodeSelector": null}}}}), "2"),
    ] {
        let mut new = defaulted(&DaemonSets, &merged(&stored, &patch));
        DaemonSets.prepare_update(&mut new, &old, &context);
        assert_eq!(new.metadata.annotations.unwrap()[TEMPLATE_GENERATION], generation, "{patch}");
    }
}

#[test]
fn faults_are_named() {
    let rolling = |rolling: Value| json!({"spec": {"updateStrategy": {"rollingUpdate": rolling}}});
    let patches = [
        json!({"spec": {"minReadySeconds": -1, "revisionHistoryLimit": -1}}),
        json!({"spec": {"selector": {"matchLabels": null}}}),
        json!({"spec": {"selector": {"matchLabels": {"app": null}}}}),
        json!({"spec": {"selector": {"matchLabels": {"app": "other"}}}}),
        json!({"spec": {"updateStrategy": {"type": "Slowly"}}}),
        rolling(json!({"maxUnavailable": 0, "maxSurge": 0})),
        rolling(json!({"maxUnavailable": 1, "maxSurge": "10%"})),
        rolling(json!({"maxUnavailable": "101%"})),
        rolling(json!({"maxUnavailable": -1})),
        json!({"spec": {"template": {"spec": {"restartPolicy": "OnFailure", "activeDeadlineSeconds": 1}}}}),
    ];
    expect![[r#"
        {"spec":{"minReadySeconds":-1,"revisionHistoryLimit":-1}}
            spec.minReadySeconds: Invalid value: -1: must be greater than or equal to 0
            spec.revisionHistoryLimit: Invalid value: -1: must be greater than or equal to 0
        {"spec":{"selector":{"matchLabels":null}}}
            spec.template.metadata.labels: Invalid value: {"app":"agent"}: `selector` does not match template `labels`
        {"spec":{"selector":{"matchLabels":{"app":null}}}}
            spec.selector: Invalid value: {}: empty selector is invalid for daemonset
        {"spec":{"selector":{"matchLabels":{"app":"other"}}}}
            spec.template.metadata.labels: Invalid value: {"app":"agent"}: `selector` does not match template `labels`
        {"spec":{"updateStrategy":{"type":"Slowly"}}}
            spec.updateStrategy: Unsupported value: {"type":"Slowly"}: supported values: "RollingUpdate", "OnDelete"
        {"spec":{"updateStrategy":{"rollingUpdate":{"maxSurge":0,"maxUnavailable":0}}}}
            spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0
        {"spec":{"updateStrategy":{"rollingUpdate":{"maxSurge":"10%","maxUnavailable":1}}}}
            spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: "10%": may not be set when maxUnavailable is non-zero
        {"spec":{"updateStrategy":{"rollingUpdate":{"maxUnavailable":"101%"}}}}
            spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: "101%": must not be greater than 100%
        {"spec":{"updateStrategy":{"rollingUpdate":{"maxUnavailable":-1}}}}
            spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: -1: must be greater than or equal to 0
        {"spec":{"template":{"spec":{"activeDeadlineSeconds":1,"restartPolicy":"OnFailure"}}}}
            spec.template.spec.restartPolicy: Unsupported value: "OnFailure": supported values: "Always"
            spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in DaemonSet is not Supported
    "#]].assert_eq(&faults(&DaemonSets, &base(), &patches));
}

#[test]
fn the_selector_stays() {
    let patches = [
        json!({"spec": {"selector": {"matchLabels": {"x": "y"}}, "template": {"metadata": {"labels": {"x": "y"}}}}}),
        json!({"spec": {"updateStrategy": {"type": "OnDelete", "rollingUpdate": null}}}),
    ];
    expect![[r#"
        {"spec":{"selector":{"matchLabels":{"x":"y"}},"template":{"metadata":{"labels":{"x":"y"}}}}}
            spec.selector: Invalid value: {"matchLabels":{"app":"agent","x":"y"}}: field is immutable
        {"spec":{"updateStrategy":{"rollingUpdate":null,"type":"OnDelete"}}}
    "#]]
    .assert_eq(&refusals(&DaemonSets, &base(), &patches));
}

#[test]
fn counts_of_a_status_are_not_negative() {
    let status = |status: Value| defaulted(&DaemonSets, &merged(&base(), &json!({"status": status})));
    let old = status(json!({"collisionCount": 2}));
    let new = status(json!({"currentNumberScheduled": -1, "numberAvailable": -1, "collisionCount": 1}));
    expect![[r#"
        status.currentNumberScheduled: Invalid value: -1: must be greater than or equal to 0
        status.numberAvailable: Invalid value: -1: must be greater than or equal to 0
        status.collisionCount: Invalid value: 1: cannot be decremented
    "#]]
    .assert_eq(&lines(&DaemonSets.validate_status(&new, &old)));
}

#[test]
fn a_row_counts_nodes() {
    let object = merged(
        &base(),
        &json!({"metadata": {"creationTimestamp": "2026-01-01T00:58:00Z"},
        "status": {"desiredNumberScheduled": 3, "currentNumberScheduled": 2, "numberReady": 1,
            "updatedNumberScheduled": 2, "numberAvailable": 1, "numberMisscheduled": 0}}),
    );
    assert_eq!(row(&DaemonSets, &object), "agent | 3 | 2 | 1 | 2 | 1 | disk=ssd | 2m | c | agent:1 | app=agent");
}
