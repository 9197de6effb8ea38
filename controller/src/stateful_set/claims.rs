//! The volumes of a StatefulSet's pods: a claim for each pod and template, which outlives the pod unless it is to go with
//! it (KEP-1847). Pure.

use k8s_openapi::{
    api::{
        apps::v1::StatefulSet,
        core::v1::{PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, PodSpec, Volume},
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::ResourceExt;

use crate::{pod_control::managing_owner, view::PodView};

fn templates(set: &StatefulSet) -> &[PersistentVolumeClaim] {
    set.spec.as_ref().and_then(|spec| spec.volume_claim_templates.as_deref()).unwrap_or_default()
}

fn name(set: &StatefulSet, template: &PersistentVolumeClaim, ordinal: i32) -> String {
    format!("{}-{}-{ordinal}", template.name_any(), set.name_any())
}

/// The names of the claims of a pod.
pub(super) fn names(set: &StatefulSet, ordinal: i32) -> impl Iterator<Item = String> + '_ {
    templates(set).iter().map(move |template| name(set, template, ordinal))
}

/// The claims of a pod, as they are made.
pub(super) fn of(set: &StatefulSet, ordinal: i32) -> impl Iterator<Item = PersistentVolumeClaim> + '_ {
    let selected = set.spec.as_ref().and_then(|spec| spec.selector.match_labels.clone()).unwrap_or_default();
    templates(set).iter().map(move |template| {
        let mut labels = template.metadata.labels.clone().unwrap_or_default();
        labels.extend(selected.clone());
        let metadata = ObjectMeta {
            name: Some(name(set, template, ordinal)),
            labels: Some(labels),
            annotations: template.metadata.annotations.clone(),
            owner_references: goes_with_set(set, ordinal).then(|| vec![plain(managing_owner(set))]),
            ..ObjectMeta::default()
        };
        PersistentVolumeClaim { metadata, spec: template.spec.clone(), status: None }
    })
}

/// Has the pod use its claims, each under its template's name.
pub(super) fn mount(set: &StatefulSet, ordinal: i32, spec: &mut PodSpec) {
    let volumes = spec.volumes.get_or_insert_default();
    for template in templates(set) {
        let volume_name = template.name_any();
        volumes.retain(|volume| volume.name != volume_name);
        let claim_name = name(set, template, ordinal);
        volumes.push(Volume {
            name: volume_name,
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource { claim_name, read_only: None }),
            ..Volume::default()
        });
    }
}

/// An owner that others may go before.
fn plain(owner: OwnerReference) -> OwnerReference {
    OwnerReference { controller: None, block_owner_deletion: None, ..owner }
}

fn policy(set: &StatefulSet) -> (bool, bool) {
    let policy = set.spec.as_ref().and_then(|spec| spec.persistent_volume_claim_retention_policy.clone());
    let policy = policy.unwrap_or_default();
    let deletes = |when: Option<String>| when.as_deref() == Some("Delete");
    (deletes(policy.when_deleted), deletes(policy.when_scaled))
}

/// Whether the ordinal is one that the set wants.
fn is_wanted(set: &StatefulSet, ordinal: i32) -> bool {
    let spec = set.spec.clone().unwrap_or_default();
    let start = spec.ordinals.and_then(|ordinals| ordinals.start).unwrap_or_default();
    (start..start.saturating_add(spec.replicas.unwrap_or(1))).contains(&ordinal)
}

fn goes_with_set(set: &StatefulSet, ordinal: i32) -> bool {
    let (deleted, scaled) = policy(set);
    deleted && (!scaled || is_wanted(set, ordinal))
}

/// Whose deletion the claim is to go with: that of the set, that of a pod which is one too many, or nobody's. `None` when
/// the owners are right; owners that are others' stay.
pub(super) fn owners(
    set: &StatefulSet,
    pod: &PodView,
    ordinal: i32,
    current: &[OwnerReference],
) -> Option<Vec<OwnerReference>> {
    let (_, scaled) = policy(set);
    let set_owner = goes_with_set(set, ordinal).then(|| plain(managing_owner(set)));
    let pod_owner = (scaled && !is_wanted(set, ordinal)).then(|| plain(managing_owner(pod)));
    let ours = [set.metadata.uid.as_deref(), pod.metadata.uid.as_deref()];
    let mut wanted: Vec<OwnerReference> =
        current.iter().filter(|owner| !ours.contains(&Some(owner.uid.as_str()))).cloned().collect();
    wanted.extend([set_owner, pod_owner].into_iter().flatten());
    let uids = |owners: &[OwnerReference]| {
        let mut uids: Vec<String> = owners.iter().map(|owner| owner.uid.clone()).collect();
        uids.sort_unstable();
        uids
    };
    (uids(&wanted) != uids(current)).then_some(wanted)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn set(policy: Value) -> StatefulSet {
        let claims = json!([{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}]);
        serde_json::from_value(json!({"metadata": {"name": "db", "uid": "s"}, "spec": {
            "replicas": 2, "selector": {"matchLabels": {"app": "db"}}, "template": {}, "volumeClaimTemplates": claims,
            "persistentVolumeClaimRetentionPolicy": policy}}))
        .unwrap()
    }

    #[test]
    fn each_pod_has_its_claims() {
        let set = set(Value::Null);
        let claim = of(&set, 1).next().unwrap();
        assert_eq!(claim.name_any(), "data-db-1");
        assert_eq!(claim.labels()["app"], "db");
        assert!(claim.metadata.owner_references.is_none());
        let mut spec: PodSpec =
            serde_json::from_value(json!({"containers": [], "volumes": [{"name": "data", "emptyDir": {}}]})).unwrap();
        mount(&set, 1, &mut spec);
        let volumes = serde_json::to_value(&spec.volumes).unwrap();
        assert_eq!(volumes, json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data-db-1"}}]));
    }

    #[test]
    fn a_claim_goes_with_what_the_policy_says() {
        let pod: PodView = serde_json::from_value(json!({"metadata": {"name": "db-1", "uid": "p"}})).unwrap();
        let both = json!({"whenDeleted": "Delete", "whenScaled": "Delete"});
        for (policy, ordinal, expected) in [
            (Value::Null, 1, None),
            (json!({"whenDeleted": "Delete", "whenScaled": "Retain"}), 1, Some("s")),
            (json!({"whenDeleted": "Delete", "whenScaled": "Retain"}), 7, Some("s")),
            (json!({"whenDeleted": "Retain", "whenScaled": "Delete"}), 1, None),
            (json!({"whenDeleted": "Retain", "whenScaled": "Delete"}), 7, Some("p")),
            (both.clone(), 1, Some("s")),
            (both, 7, Some("p")),
        ] {
            let set = set(policy.clone());
            let owners = owners(&set, &pod, ordinal, &[]).map(|owners| owners[0].uid.clone());
            assert_eq!(owners.as_deref(), expected, "{policy} {ordinal}");
        }
        let foreign = OwnerReference { uid: "x".to_owned(), ..OwnerReference::default() };
        let mine = plain(managing_owner(&set(Value::Null)));
        let left = owners(&set(Value::Null), &pod, 1, &[foreign.clone(), mine]).unwrap();
        assert_eq!(left, [foreign], "what is no longer to go with the set does not");
    }
}
