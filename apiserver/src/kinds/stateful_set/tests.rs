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
    expect![[""]].assert_eq(&shown(&StatefulSets, &created(&StatefulSets, &base())));
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
    expect![[""]].assert_eq(&faults(&StatefulSets, &base(), &patches));
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
    expect![[""]].assert_eq(&refusals(&StatefulSets, &base(), &patches));
}

#[test]
fn counts_of_a_status_add_up() {
    let status = |status: Value| defaulted(&StatefulSets, &merged(&base(), &json!({"status": status})));
    let old = status(json!({"replicas": 1, "collisionCount": 2}));
    let new = status(json!({"replicas": 1, "readyReplicas": 2, "currentReplicas": 2, "updatedReplicas": 2,
        "availableReplicas": 3, "collisionCount": 1}));
    expect![[""]].assert_eq(&lines(&StatefulSets.validate_status(&new, &old)));
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
