//! ReplicationControllers: defaults, faults, rows, scale.

use expect_test::expect;
use serde_json::{Value, json};

use super::ReplicationControllers;
use crate::{
    kind::{Scale, Strategy},
    kinds::testing::{created, defaulted, faults, lines, merged, row},
};

fn base() -> Value {
    json!({"metadata": {"name": "web", "namespace": "d"}, "spec": {"template": {
        "metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "nginx:1"}]}}}})
}

#[test]
fn selector_and_labels_are_those_of_the_template() {
    let object = created(&ReplicationControllers, &base());
    let (spec, labels) = (object.spec.unwrap(), json!({"app": "web"}));
    assert_eq!(spec.replicas, Some(1));
    assert_eq!(serde_json::to_value(spec.selector).unwrap(), labels);
    assert_eq!(serde_json::to_value(object.metadata.labels).unwrap(), labels);
    assert!(ReplicationControllers.orphans_by_default());
}

#[test]
fn faults_are_named() {
    let patches = [
        json!({"spec": {"replicas": -1, "minReadySeconds": -1}}),
        json!({"spec": {"template": null}}),
        json!({"spec": {"selector": {"app": "other"}}}),
        json!({"spec": {"template": {"spec": {"restartPolicy": "Never", "activeDeadlineSeconds": 5}}}}),
    ];
    expect![[r#"
        {"spec":{"minReadySeconds":-1,"replicas":-1}}
            spec.minReadySeconds: Invalid value: -1: must be greater than or equal to 0
            spec.replicas: Invalid value: -1: must be greater than or equal to 0
        {"spec":{"template":null}}
            spec.selector: Required value
            spec.template: Required value
        {"spec":{"selector":{"app":"other"}}}
            spec.template.metadata.labels: Invalid value: {"app":"web"}: `selector` does not match template `labels`
        {"spec":{"template":{"spec":{"activeDeadlineSeconds":5,"restartPolicy":"Never"}}}}
            spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"
            spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicationController is not Supported
    "#]].assert_eq(&faults(&ReplicationControllers, &base(), &patches));
    let status = json!({"status": {"replicas": 1, "readyReplicas": 2, "availableReplicas": 3}});
    let object = defaulted(&ReplicationControllers, &merged(&base(), &status));
    expect![[r#"
        status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas
        status.availableReplicas: Invalid value: 3: cannot be greater than status.replicas
        status.availableReplicas: Invalid value: 3: cannot be greater than readyReplicas
    "#]]
    .assert_eq(&lines(&ReplicationControllers.validate_status(&object, &object)));
}

#[test]
fn a_row_and_a_scale_show_how_many_there_are() {
    let object = merged(
        &base(),
        &json!({"spec": {"replicas": 3, "selector": {"app": "web"}}, "status": {"replicas": 2,
        "readyReplicas": 1}}),
    );
    assert_eq!(row(&ReplicationControllers, &object), "web | 3 | 2 | 1 | <unknown> | c | nginx:1 | app=web");
    let expected = Scale { replicas: 3, current: 2, selector: "app=web".to_owned() };
    assert_eq!(ReplicationControllers.scale(&defaulted(&ReplicationControllers, &object)), Some(expected));
}
