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
    expect![[""]].assert_eq(&shown(&PersistentVolumes, &created(&PersistentVolumes, &base())));
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
    expect![[""]].assert_eq(&faults(&PersistentVolumes, &base(), &patches));
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
    expect![[""]].assert_eq(&refusals(&PersistentVolumes, &zoned, &patches));
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
