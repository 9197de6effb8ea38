//! Claims: defaults, sources, faults, changes, rows.

use expect_test::expect;
use serde_json::{Value, json};

use super::PersistentVolumeClaims;
use crate::{
    kind::Strategy,
    kinds::testing::{created, defaulted, faults, lines, merged, refusals, row, shown},
};

fn base() -> Value {
    json!({"metadata": {"name": "data", "namespace": "d"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1024Mi"}}}})
}

#[test]
fn a_minimal_claim_is_completed() {
    expect![[r#"
        {
          "apiVersion": "v1",
          "kind": "PersistentVolumeClaim",
          "metadata": {
            "name": "data",
            "namespace": "d"
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
        }"#]]
    .assert_eq(&shown(&PersistentVolumeClaims, &created(&PersistentVolumeClaims, &base())));
}

#[test]
fn a_source_stands_in_both_fields() {
    let snapshot = json!({"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "s"});
    let other = json!({"apiGroup": "acme.io", "kind": "Populator", "name": "p"});
    let elsewhere = merged(&snapshot, &json!({"namespace": "other"}));
    for (patch, expected) in [
        (json!({"dataSource": snapshot}), json!([snapshot, snapshot])),
        (json!({"dataSourceRef": other}), json!([other, other])),
        (json!({"dataSource": other}), json!([null, null])),
        (json!({"dataSourceRef": elsewhere}), json!([null, null])),
    ] {
        let spec = created(&PersistentVolumeClaims, &merged(&base(), &json!({"spec": patch}))).spec.unwrap();
        assert_eq!(json!([spec.data_source, spec.data_source_ref]), expected, "{patch}");
    }
}

#[test]
fn faults_are_named() {
    let patches = [
        json!({"spec": {"accessModes": [], "resources": null}}),
        json!({"spec": {"accessModes": ["ReadWriteOncePod", "ReadWriteOnce", "Once"]}}),
        json!({"spec": {"resources": {"requests": {"storage": "0"}}}}),
        json!({"spec": {"resources": {"requests": {"storage": "-1"}}}}),
        json!({"spec": {"storageClassName": "A b", "volumeMode": "Tape", "volumeAttributesClassName": "A"}}),
        json!({"spec": {"selector": {"matchExpressions": [{"key": "a", "operator": "Near"}]}}}),
        json!({"spec": {"dataSourceRef": {"kind": "", "name": ""}}}),
        json!({"spec": {"dataSourceRef": {"apiGroup": "A b", "kind": "X", "name": "x"}}}),
        json!({"spec": {"dataSource": {"kind": "PersistentVolumeClaim", "name": "x"},
            "dataSourceRef": {"kind": "PersistentVolumeClaim", "name": "y"}}}),
    ];
    expect![[r#"
        {"spec":{"accessModes":[],"resources":null}}
            spec.accessModes: Required value: at least 1 access mode is required
            spec.resources[storage]: Required value
        {"spec":{"accessModes":["ReadWriteOncePod","ReadWriteOnce","Once"]}}
            spec.accessModes: Unsupported value: "Once": supported values: "ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"
            spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes
        {"spec":{"resources":{"requests":{"storage":"0"}}}}
            spec.resources[storage]: Invalid value: "0": must be greater than zero
        {"spec":{"resources":{"requests":{"storage":"-1"}}}}
            spec.resources[storage]: Invalid value: "-1": must be greater than zero
        {"spec":{"storageClassName":"A b","volumeAttributesClassName":"A","volumeMode":"Tape"}}
            spec.storageClassName: Invalid value: "A b": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
            spec.volumeMode: Unsupported value: "Tape": supported values: "Block", "Filesystem"
            spec.volumeAttributesClassName: Invalid value: "A": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
        {"spec":{"selector":{"matchExpressions":[{"key":"a","operator":"Near"}]}}}
            spec.selector.matchExpressions[0].operator: Invalid value: "Near": not a valid selector operator
        {"spec":{"dataSourceRef":{"kind":"","name":""}}}
            spec.dataSource.name: Required value
            spec.dataSource.kind: Required value
            spec.dataSource: Invalid value: "": must be 'PersistentVolumeClaim' when referencing the default apiGroup
            spec.dataSourceRef.name: Required value
            spec.dataSourceRef.kind: Required value
            spec.dataSourceRef: Invalid value: "": must be 'PersistentVolumeClaim' when referencing the default apiGroup
        {"spec":{"dataSourceRef":{"apiGroup":"A b","kind":"X","name":"x"}}}
            spec.dataSource.apiGroup: Invalid value: "A b": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
            spec.dataSourceRef.apiGroup: Invalid value: "A b": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
        {"spec":{"dataSource":{"kind":"PersistentVolumeClaim","name":"x"},"dataSourceRef":{"kind":"PersistentVolumeClaim","name":"y"}}}
            spec: Invalid value: "spec.dataSource": must match dataSourceRef
    "#]].assert_eq(&faults(&PersistentVolumeClaims, &base(), &patches));
}

#[test]
fn a_claim_stays_what_it_is() {
    let patches = [
        json!({"spec": {"volumeName": "pv"}}),
        json!({"spec": {"storageClassName": "fast"}}),
        json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}}),
        json!({"spec": {"accessModes": ["ReadWriteMany"]}}),
        json!({"spec": {"volumeMode": "Block"}}),
    ];
    expect![[r#"
        {"spec":{"volumeName":"pv"}}
        {"spec":{"storageClassName":"fast"}}
        {"spec":{"resources":{"requests":{"storage":"2Gi"}}}}
            spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims
        - spec.resources.requests.storage: "1Gi"
        + spec.resources.requests.storage: "2Gi"
        {"spec":{"accessModes":["ReadWriteMany"]}}
            spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims
        - spec.accessModes[0]: "ReadWriteOnce"
        + spec.accessModes[0]: "ReadWriteMany"
        {"spec":{"volumeMode":"Block"}}
            spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims
        - spec.volumeMode: "Filesystem"
        + spec.volumeMode: "Block"
            volumeMode: Invalid value: "Block": field is immutable
    "#]].assert_eq(&refusals(&PersistentVolumeClaims, &base(), &patches));
}

/// What is said of changing a bound claim of 2 GiB, of which the volume has got one.
fn said_of_bound(patch: &Value) -> String {
    let bound = merged(
        &base(),
        &json!({
        "spec": {"volumeName": "pv", "storageClassName": "fast", "resources": {"requests": {"storage": "2Gi"}}},
        "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}, "currentVolumeAttributesClassName": "gold"}}),
    );
    let old =
        defaulted(&PersistentVolumeClaims, &merged(&bound, &json!({"spec": {"volumeAttributesClassName": "gold"}})));
    let json = serde_json::to_value(&old).unwrap();
    let new = defaulted(&PersistentVolumeClaims, &merged(&json, patch));
    lines(&PersistentVolumeClaims.validate_update(&new, &old))
}

#[test]
fn a_bound_claim_may_ask_for_more_and_give_up_what_it_did_not_get() {
    let storage = |amount: &str| json!({"spec": {"resources": {"requests": {"storage": amount}}}});
    assert_eq!(said_of_bound(&storage("5Gi")), "");
    assert_eq!(said_of_bound(&storage("1500Mi")), "");
    let shrunk = "spec.resources.requests.storage: Forbidden: field can not be less than status.capacity\n";
    assert_eq!(said_of_bound(&storage("1Gi")), shrunk);
    assert_eq!(said_of_bound(&json!({"spec": {"volumeAttributesClassName": "silver"}})), "");
    expect![[r#"
        spec.volumeAttributesClassName: Forbidden: update to nil is forbidden when status.currentVolumeAttributesClassName is not nil
    "#]].assert_eq(&said_of_bound(&json!({"spec": {"volumeAttributesClassName": null}})));
    expect![[r#"
        spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims
        - spec.storageClassName: "fast"
        + spec.storageClassName: "slow"
        - spec.volumeName: "pv"
        + spec.volumeName: "other"
    "#]].assert_eq(&said_of_bound(&json!({"spec": {"volumeName": "other", "storageClassName": "slow"}})));
}

#[test]
fn a_class_may_move_from_its_annotation_to_its_field() {
    let key = "volume.beta.kubernetes.io/storage-class";
    let annotated = merged(&base(), &json!({"metadata": {"annotations": {key: "fast"}}}));
    let patches = [
        json!({"spec": {"storageClassName": "fast"}}),
        json!({"spec": {"storageClassName": "slow"}}),
        json!({"metadata": {"annotations": {key: "slow"}}}),
    ];
    expect![[r#"
        {"spec":{"storageClassName":"fast"}}
        {"spec":{"storageClassName":"slow"}}
            spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims
        + spec.storageClassName: "slow"
        {"metadata":{"annotations":{"volume.beta.kubernetes.io/storage-class":"slow"}}}
            metadata.annotations.volume.beta.kubernetes.io/storage-class: Invalid value: "slow": field is immutable
    "#]].assert_eq(&refusals(&PersistentVolumeClaims, &annotated, &patches));
}

#[test]
fn a_status_knows_storage_alone() {
    let status = json!({"status": {"capacity": {"storage": "-1"}, "allocatedResources": {"cpu": "1", "storage": "-1"},
        "allocatedResourceStatuses": {"storage": "Growing"}}});
    let object = defaulted(&PersistentVolumeClaims, &merged(&base(), &status));
    expect![[r#"
        status.capacity[storage]: Invalid value: -1: must be a valid resource quantity
        status.allocatedResourceStatuses: Unsupported value: "storage": supported values: "ControllerResizeInProgress", "ControllerResizeInfeasible", "NodeResizeInProgress", "NodeResizeInfeasible", "NodeResizePending"
        status.allocatedResources: Unsupported value: "cpu": supported values: "storage"
        status.allocatedResources[storage]: Invalid value: -1: must be a valid resource quantity
    "#]].assert_eq(&lines(&PersistentVolumeClaims.validate_status(&object, &object)));
}

#[test]
fn a_row_shows_what_is_bound() {
    let object = merged(
        &base(),
        &json!({"metadata": {"creationTimestamp": "2026-01-01T00:58:00Z"},
        "spec": {"volumeName": "pv", "storageClassName": "fast", "volumeMode": "Filesystem"},
        "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"]}}),
    );
    assert_eq!(
        row(&PersistentVolumeClaims, &object),
        "data | Bound | pv | 1Gi | RWO | fast | <unset> | 2m | Filesystem"
    );
    assert_eq!(row(&PersistentVolumeClaims, &base()), "data |  |  |  |  |  | <unset> | <unknown> | <unset>");
}
