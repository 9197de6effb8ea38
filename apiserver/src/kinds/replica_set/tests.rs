//! ReplicaSets: defaults, faults, changes and rows.

use expect_test::expect;
use serde_json::{Value, json};

use super::ReplicaSets;
use crate::{
    kind::Strategy,
    kinds::testing::{created, defaulted, faults, lines, merged, refusals, row},
};

fn base() -> Value {
    json!({
        "metadata": {"name": "web-1", "namespace": "default"},
        "spec": {
            "selector": {"matchLabels": {"app": "web"},
                "matchExpressions": [{"key": "b", "operator": "NotIn", "values": ["y", "x"]},
                    {"key": "a", "operator": "DoesNotExist"}]},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": "nginx:1"}, {"name": "d", "image": "e"}]},
            },
        },
    })
}

#[test]
fn one_replica_is_the_default() {
    let object = created(&ReplicaSets, &base());
    let spec = object.spec.unwrap();
    assert_eq!(spec.replicas, Some(1));
    assert_eq!(spec.template.unwrap().spec.unwrap().dns_policy.as_deref(), Some("ClusterFirst"));
    assert_eq!(serde_json::to_value(object.status).unwrap(), json!({"replicas": 0}));
}

#[test]
fn faults_and_forbidden_changes_are_named() {
    let patches = [
        json!({"spec": {"replicas": -1, "minReadySeconds": -1}}),
        json!({"spec": {"template": {"metadata": {"labels": {"app": "other"}}}}}),
    ];
    expect![[r#"
        {"spec":{"minReadySeconds":-1,"replicas":-1}}
            spec.replicas: Invalid value: -1: must be greater than or equal to 0
            spec.minReadySeconds: Invalid value: -1: must be greater than or equal to 0
        {"spec":{"template":{"metadata":{"labels":{"app":"other"}}}}}
            spec.template.metadata.labels: Invalid value: {"app":"other"}: `selector` does not match template `labels`
    "#]]
    .assert_eq(&faults(&ReplicaSets, &base(), &patches));
    let patch = json!({"spec": {"selector": {"matchExpressions": null}}});
    expect![[r#"
        {"spec":{"selector":{"matchExpressions":null}}}
            spec.selector: Invalid value: {"matchLabels":{"app":"web"}}: field is immutable
    "#]]
    .assert_eq(&refusals(&ReplicaSets, &base(), &[patch]));
}

#[test]
fn counts_of_a_status_add_up() {
    let status = json!({"replicas": 1, "fullyLabeledReplicas": 2, "readyReplicas": 0, "availableReplicas": 1});
    let new = defaulted(&ReplicaSets, &merged(&base(), &json!({"status": status})));
    expect![[r#"
        status.fullyLabeledReplicas: Invalid value: 2: cannot be greater than status.replicas
        status.availableReplicas: Invalid value: 1: cannot be greater than readyReplicas
    "#]]
    .assert_eq(&lines(&ReplicaSets.validate_status(&new, &new)));
}

#[test]
fn a_row_shows_counts_and_the_selector() {
    let object = merged(&base(), &json!({"spec": {"replicas": 3}, "status": {"replicas": 2, "readyReplicas": 1}}));
    assert_eq!(
        row(&ReplicaSets, &object),
        "web-1 | 3 | 2 | 1 | <unknown> | c,d | nginx:1,e | !a,app=web,b notin (x,y)"
    );
}
