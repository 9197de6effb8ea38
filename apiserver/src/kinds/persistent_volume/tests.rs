//! Volumes: defaults, faults, changes, statuses, rows.

use expect_test::expect;
use serde_json::{Value, json};

use super::PersistentVolumes;
use crate::{
    kind::{Context, Strategy},
    kinds::testing::{created, defaulted, faults, merged, now, refusals, row, shown},
    user::User,
};

fn base() -> Value {
    json!({"metadata": {"name": "pv"}, "spec": {"capacity": {"storage": "1024Mi"}, "accessModes": ["ReadWriteOnce"],
        "hostPath": {"path": "/data"}}})
}

#[test]
fn a_minimal_volume_is_completed() {
    expect![[r#"
        {
          "apiVersion": "v1",
          "kind": "PersistentVolume",
          "metadata": {
            "name": "pv"
          },
          "spec": {
            "accessModes": [
              "ReadWriteOnce"
            ],
            "capacity": {
              "storage": "1Gi"
            },
            "hostPath": {
              "path": "/data",
              "type": ""
            },
            "persistentVolumeReclaimPolicy": "Retain",
            "volumeMode": "Filesystem"
          },
          "status": {
            "lastPhaseTransitionTime": "2026-01-01T01:00:00Z",
            "phase": "Pending"
          }
        }"#]]
    .assert_eq(&shown(&PersistentVolumes, &created(&PersistentVolumes, &base())));
}

#[test]
fn faults_are_named() {
    let no_source = json!({"spec": {"hostPath": null}});
    let local = json!({"spec": {"hostPath": null, "local": {"path": ""}}});
    let patches = [
        json!({"spec": {"accessModes": [], "capacity": null}}),
        json!({"spec": {"accessModes": ["Once", "ReadWriteOncePod", "ReadOnlyMany"], "capacity": {"storage": "0", "cpu": "1"}}}),
        json!({"spec": {"persistentVolumeReclaimPolicy": "Burn", "volumeMode": "Tape", "storageClassName": "A b"}}),
        no_source,
        local,
        json!({"spec": {"nfs": {"server": "", "path": "x"}}}),
        json!({"spec": {"hostPath": {"path": "/./"}, "persistentVolumeReclaimPolicy": "Recycle"}}),
        json!({"spec": {"hostPath": {"path": "/a/../b", "type": "Some"}}}),
        json!({"spec": {"hostPath": null, "csi": {"driver": "", "volumeHandle": "", "nodePublishSecretRef": {"name": ""}}}}),
        json!({"spec": {"nodeAffinity": {}, "volumeAttributesClassName": ""}}),
        json!({"spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": []}}}}),
    ];
    expect![[r#"
        {"spec":{"accessModes":[],"capacity":null}}
            spec.accessModes: Required value
            spec.capacity: Required value
            spec.capacity: Unsupported value: {}: supported values: "storage"
        {"spec":{"accessModes":["Once","ReadWriteOncePod","ReadOnlyMany"],"capacity":{"cpu":"1","storage":"0"}}}
            spec.accessModes: Unsupported value: "Once": supported values: "ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"
            spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes
            spec.capacity: Unsupported value: {"cpu":"1","storage":"0"}: supported values: "storage"
            spec.capacity[storage]: Invalid value: "0": must be greater than zero
        {"spec":{"persistentVolumeReclaimPolicy":"Burn","storageClassName":"A b","volumeMode":"Tape"}}
            spec.persistentVolumeReclaimPolicy: Unsupported value: "Burn": supported values: "Delete", "Recycle", "Retain"
            spec.storageClassName: Invalid value: "A b": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
            spec.volumeMode: Unsupported value: "Tape": supported values: "Block", "Filesystem"
        {"spec":{"hostPath":null}}
            spec: Required value: must specify a volume type
        {"spec":{"hostPath":null,"local":{"path":""}}}
            spec.local.path: Required value
            spec.nodeAffinity: Required value: Local volume requires node affinity
        {"spec":{"nfs":{"path":"x","server":""}}}
            spec.nfs: Forbidden: may not specify more than 1 volume type
        {"spec":{"hostPath":{"path":"/./"},"persistentVolumeReclaimPolicy":"Recycle"}}
            spec.persistentVolumeReclaimPolicy: Forbidden: may not be 'recycle' for a hostPath mount of '/'
        {"spec":{"hostPath":{"path":"/a/../b","type":"Some"}}}
            spec.hostPath.path: Invalid value: "/a/../b": must not contain '..'
            spec.hostPath.type: Unsupported value: "Some": supported values: "", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"
        {"spec":{"csi":{"driver":"","nodePublishSecretRef":{"name":""},"volumeHandle":""},"hostPath":null}}
            spec.csi.driver: Required value
            spec.csi.volumeHandle: Required value
            spec.csi.nodePublishSecretRef.name: Required value
            spec.csi.nodePublishSecretRef.namespace: Required value
        {"spec":{"nodeAffinity":{},"volumeAttributesClassName":""}}
            spec.nodeAffinity.required: Required value: must specify required node constraints
            spec.volumeAttributesClassName: Required value: an empty string is disallowed
            spec.csi: Required value: has to be specified when using volumeAttributesClassName
        {"spec":{"nodeAffinity":{"required":{"nodeSelectorTerms":[]}}}}
            spec.nodeAffinity.required.nodeSelectorTerms: Required value: must have at least one node selector term
    "#]].assert_eq(&faults(&PersistentVolumes, &base(), &patches));
}

#[test]
fn where_the_data_is_stays() {
    let zone = |key: &str| {
        json!({"spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
        {"key": key, "operator": "In", "values": ["a"]}]}]}}}})
    };
    let zoned = merged(&base(), &zone("failure-domain.beta.kubernetes.io/zone"));
    let patches = [
        json!({"spec": {"capacity": {"storage": "2Gi"}, "persistentVolumeReclaimPolicy": "Delete"}}),
        json!({"spec": {"claimRef": {"namespace": "d", "name": "c"}}}),
        json!({"spec": {"hostPath": {"path": "/other"}}}),
        json!({"spec": {"volumeMode": "Block"}}),
        zone("topology.kubernetes.io/zone"),
        zone("kubernetes.io/hostname"),
    ];
    expect![[r#"
        {"spec":{"capacity":{"storage":"2Gi"},"persistentVolumeReclaimPolicy":"Delete"}}
        {"spec":{"claimRef":{"name":"c","namespace":"d"}}}
        {"spec":{"hostPath":{"path":"/other"}}}
            spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation
        - spec.hostPath.path: "/data"
        + spec.hostPath.path: "/other"
        {"spec":{"volumeMode":"Block"}}
            volumeMode: Invalid value: "Block": field is immutable
        {"spec":{"nodeAffinity":{"required":{"nodeSelectorTerms":[{"matchExpressions":[{"key":"topology.kubernetes.io/zone","operator":"In","values":["a"]}]}]}}}}
        {"spec":{"nodeAffinity":{"required":{"nodeSelectorTerms":[{"matchExpressions":[{"key":"kubernetes.io/hostname","operator":"In","values":["a"]}]}]}}}}
            nodeAffinity: Invalid value: {"required":{"nodeSelectorTerms":[{"matchExpressions":[{"key":"kubernetes.io/hostname","operator":"In","values":["a"]}]}]}}: field is immutable, except for updating from beta label to GA
    "#]].assert_eq(&refusals(&PersistentVolumes, &zoned, &patches));
}

#[test]
fn the_time_of_a_new_phase_is_written_down() {
    let user = User::new("alice", &[]);
    let context = Context { user: &user, now: now() };
    let before = "2026-01-01T00:00:00Z";
    let old = defaulted(
        &PersistentVolumes,
        &merged(&base(), &json!({"status": {"phase": "Available", "lastPhaseTransitionTime": before}})),
    );
    for (status, time) in [
        (json!({"phase": "Available"}), before),
        (json!({"phase": "Bound"}), "2026-01-01T01:00:00Z"),
        (json!({"phase": "Bound", "lastPhaseTransitionTime": before}), "2026-01-01T01:00:00Z"),
        (json!({"phase": "Bound", "lastPhaseTransitionTime": "2026-01-01T00:30:00Z"}), "2026-01-01T00:30:00Z"),
    ] {
        let mut new = defaulted(&PersistentVolumes, &merged(&base(), &json!({"status": status})));
        PersistentVolumes.prepare_status(&mut new, &old, &context);
        let json = serde_json::to_value(new.status.unwrap()).unwrap();
        assert_eq!(json["lastPhaseTransitionTime"], time, "{status}");
    }
}

#[test]
fn a_row_shows_whose_it_is() {
    let object = merged(
        &base(),
        &json!({"metadata": {"creationTimestamp": "2026-01-01T00:58:00Z"},
        "spec": {"claimRef": {"namespace": "d", "name": "c"}, "storageClassName": "fast", "volumeMode": "Filesystem",
            "persistentVolumeReclaimPolicy": "Retain", "accessModes": ["ReadWriteMany", "ReadWriteOnce"]},
        "status": {"phase": "Bound"}}),
    );
    assert_eq!(
        row(&PersistentVolumes, &object),
        "pv | 1024Mi | RWO,RWX | Retain | Bound | d/c | fast | <unset> |  | 2m | Filesystem"
    );
}
