//! What holds data stays while it is in use: claims while a pod on a node has them mounted, volumes while they are bound,
//! volumes' attribute classes while a claim or a volume is of them. A finalizer keeps them, which goes when they are
//! deleted and nothing needs them any more.

use std::{collections::BTreeSet, fmt, fmt::Debug, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use serde::de::DeserializeOwned;
use serde_json::json;
use tracing::info;

use crate::{
    informer::{Change, Reader},
    informers::Informers,
    object_key::ObjectKey,
    reconcile::{Control, Next, Reconcile, ReconcileError},
    view::{AttributesClassView, ClaimUse, ClaimView, PodView, VolumeView},
    work_queue::WorkQueue,
};

const OF_CLAIMS: &str = "kubernetes.io/pvc-protection";
const OF_VOLUMES: &str = "kubernetes.io/pv-protection";
const OF_CLASSES: &str = "kubernetes.io/vac-protection";

/// What is protected.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Guarded {
    /// A PersistentVolumeClaim.
    Claim(ObjectKey),
    /// The PersistentVolume of this name.
    Volume(String),
    /// The VolumeAttributesClass of this name.
    Class(String),
}

impl fmt::Display for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Claim(key) => write!(f, "claim {key}"),
            Self::Volume(name) => write!(f, "volume {name}"),
            Self::Class(name) => write!(f, "attributes class {name}"),
        }
    }
}

/// See the module.
pub(crate) struct StorageProtection {
    client: Client,
    pods: Reader<PodView>,
    claims: Reader<ClaimView>,
    volumes: Reader<VolumeView>,
    classes: Reader<AttributesClassView>,
}

/// What an object's finalizers are to be.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// As they are.
    Leave,
    /// As they are, or without this one if nobody uses the object.
    TakeOffUnlessUsed,
    /// With this one as well.
    PutOn,
}

fn step(meta: &ObjectMeta, finalizer: &str) -> Step {
    let is_held = meta.finalizers.iter().flatten().any(|name| name == finalizer);
    match (meta.deletion_timestamp.is_some(), is_held) {
        (true, true) => Step::TakeOffUnlessUsed,
        (false, false) => Step::PutOn,
        (true, false) | (false, true) => Step::Leave,
    }
}

/// Whether the pod may have the claim mounted. A pod that is on no node cannot: its node would not mount what is going.
fn uses(pod: &PodView, claim: &ClaimView) -> bool {
    let of_this_pod = || {
        let mut owners = claim.metadata.owner_references.iter().flatten();
        owners.any(|owner| owner.controller == Some(true) && Some(&owner.uid) == pod.metadata.uid.as_ref())
    };
    let name = claim.name_any();
    let pod_name = pod.name_any();
    !pod.spec.node_name.is_empty()
        && pod.spec.claims.iter().any(|used| match used {
            ClaimUse::Named(used) => *used == name,
            ClaimUse::Own(volume) => !is_shut_down(pod) && format!("{pod_name}-{volume}") == name && of_this_pod(),
        })
}

/// Whether the node is done with the pod: it is being deleted, and no grace is left to it.
fn is_shut_down(pod: &PodView) -> bool {
    pod.metadata.deletion_timestamp.is_some() && pod.metadata.deletion_grace_period_seconds == Some(0)
}

/// The attribute classes a claim is of, was of, or is to become.
fn classes_of(claim: &ClaimView) -> impl Iterator<Item = &str> {
    let status = &claim.status;
    let target = status.modify_volume_status.as_ref().map(|status| &status.target_volume_attributes_class_name);
    [Some(&claim.spec.volume_attributes_class_name), Some(&status.current_volume_attributes_class_name), target]
        .into_iter()
        .flatten()
        .map(String::as_str)
        .filter(|name| !name.is_empty())
}

/// The claims a pod names or has of its own.
fn claims_of(pod: &PodView) -> impl Iterator<Item = ObjectKey> {
    let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
    pod.spec.claims.iter().map(move |used| match used {
        ClaimUse::Named(claim) => ObjectKey::new(&namespace, claim),
        ClaimUse::Own(volume) => ObjectKey::new(&namespace, format!("{name}-{volume}")),
    })
}

impl StorageProtection {
    pub(crate) fn over(informers: &mut Informers) -> Control<Self> {
        let queue: Arc<WorkQueue<Guarded>> = Arc::default();
        let wanted = Arc::clone(&queue);
        informers.claims.on_change(move |change: &Change<'_, ClaimView>| {
            let claim = change.object();
            if step(&claim.metadata, OF_CLAIMS) != Step::Leave {
                wanted.add(Guarded::Claim(ObjectKey::of(claim)));
            }
            // What it was of may have become free.
            let before: BTreeSet<&str> = match change {
                Change::Updated { old, .. } => classes_of(old).collect(),
                Change::Deleted(claim) => classes_of(claim).collect(),
                Change::Added(_) => BTreeSet::new(),
            };
            before.into_iter().for_each(|class| wanted.add(Guarded::Class(class.to_owned())));
        });
        let wanted = Arc::clone(&queue);
        informers.volumes.on_change(move |change: &Change<'_, VolumeView>| {
            let volume = change.object();
            if step(&volume.metadata, OF_VOLUMES) != Step::Leave {
                wanted.add(Guarded::Volume(volume.name_any()));
            }
            let (Change::Updated { old: before, .. } | Change::Deleted(before)) = change else { return };
            let class = &before.spec.volume_attributes_class_name;
            if !class.is_empty() {
                wanted.add(Guarded::Class(class.clone()));
            }
        });
        let wanted = Arc::clone(&queue);
        informers.attributes_classes.on_change(move |change: &Change<'_, AttributesClassView>| {
            let class = change.object();
            if step(&class.metadata, OF_CLASSES) != Step::Leave {
                wanted.add(Guarded::Class(class.name_any()));
            }
        });
        let wanted = Arc::clone(&queue);
        informers.pods.on_change(move |change: &Change<'_, PodView>| {
            let is_done = matches!(change, Change::Deleted(_)) || is_shut_down(change.object());
            if is_done {
                claims_of(change.object()).for_each(|claim| wanted.add(Guarded::Claim(claim)));
            }
        });
        let controller = Self {
            client: informers.client.clone(),
            pods: informers.pods.reader(),
            claims: informers.claims.reader(),
            volumes: informers.volumes.reader(),
            classes: informers.attributes_classes.reader(),
        };
        Control::new(controller, queue)
    }

    /// Whether a pod uses the claim: as the watch shows it and, since that may be behind, as the API has it now.
    async fn is_claim_used(&self, claim: &ClaimView) -> Result<bool, ReconcileError> {
        let namespace = claim.namespace().unwrap_or_default();
        let is_there = |pod: &PodView| pod.namespace().as_deref() == Some(&*namespace);
        if !self.pods.list(|pod| is_there(pod) && uses(pod, claim)).is_empty() {
            return Ok(true);
        }
        let api: Api<PodView> = Api::namespaced(self.client.clone(), &namespace);
        let pods = api.list(&ListParams::default()).await.map_err(ReconcileError::api("listing the claim's pods"))?;
        Ok(pods.items.iter().any(|pod| uses(pod, claim)))
    }

    fn is_class_used(&self, name: &str) -> bool {
        let by_volume = |volume: &VolumeView| volume.spec.volume_attributes_class_name == name;
        let by_claim = |claim: &ClaimView| classes_of(claim).any(|class| class == name);
        !self.volumes.list(by_volume).is_empty() || !self.claims.list(by_claim).is_empty()
    }
}

/// Writes the object's finalizers with or without ours, if it is still the one that was looked at.
async fn write<K>(api: Api<K>, object: &K, finalizer: &str, is_held: bool) -> Result<(), ReconcileError>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    let meta = object.meta();
    let mut names: Vec<&str> = meta.finalizers.iter().flatten().map(String::as_str).collect();
    names.retain(|name| *name != finalizer);
    if is_held {
        names.push(finalizer);
    }
    let names = (!names.is_empty()).then_some(names);
    let patch = json!({"metadata": {"resourceVersion": meta.resource_version, "uid": meta.uid, "finalizers": names}});
    match api.patch(&object.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await {
        Ok(_) => {
            info!(object = object.name_any(), finalizer, held = is_held, "changed the protection of what holds data");
            Ok(())
        }
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(ReconcileError::api("changing a protection")(error)),
    }
}

impl Reconcile for StorageProtection {
    type Key = Guarded;

    const NAME: &'static str = "storage-protection";

    async fn reconcile(&self, key: &Guarded) -> Result<Next, ReconcileError> {
        match key {
            Guarded::Claim(key) => {
                let Some(claim) = self.claims.get(key) else { return Ok(Next::OnChange) };
                let step = step(&claim.metadata, OF_CLAIMS);
                if step == Step::PutOn || (step == Step::TakeOffUnlessUsed && !self.is_claim_used(&claim).await?) {
                    let api = Api::namespaced(self.client.clone(), &key.namespace);
                    write(api, &*claim, OF_CLAIMS, step == Step::PutOn).await?;
                }
            }
            Guarded::Volume(name) => {
                let Some(volume) = self.volumes.get(&ObjectKey::new("", name)) else { return Ok(Next::OnChange) };
                let step = step(&volume.metadata, OF_VOLUMES);
                if step == Step::PutOn || (step == Step::TakeOffUnlessUsed && volume.status.phase != "Bound") {
                    write(Api::all(self.client.clone()), &*volume, OF_VOLUMES, step == Step::PutOn).await?;
                }
            }
            Guarded::Class(name) => {
                let Some(class) = self.classes.get(&ObjectKey::new("", name)) else { return Ok(Next::OnChange) };
                let step = step(&class.metadata, OF_CLASSES);
                if step == Step::PutOn || (step == Step::TakeOffUnlessUsed && !self.is_class_used(name)) {
                    write(Api::all(self.client.clone()), &*class, OF_CLASSES, step == Step::PutOn).await?;
                }
            }
        }
        Ok(Next::OnChange)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_used_by_pods_on_nodes_that_name_it_or_own_it() {
        let claim: ClaimView = serde_json::from_value(json!({"metadata": {"name": "p-scratch", "ownerReferences": [
            {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "controller": true},
        ]}}))
        .unwrap();
        let used = |node: &str, uid: &str, grace: Option<i64>, volume: serde_json::Value| {
            let deleted = grace.map(|_| "2026-01-01T00:00:00Z");
            let meta =
                json!({"name": "p", "uid": uid, "deletionTimestamp": deleted, "deletionGracePeriodSeconds": grace});
            let pod = json!({"metadata": meta, "spec": {"nodeName": node, "volumes": [{"name": "x"}, volume]}});
            uses(&serde_json::from_value(pod).unwrap(), &claim)
        };
        let named = |claim: &str| json!({"name": "a", "persistentVolumeClaim": {"claimName": claim}});
        let own = json!({"name": "scratch", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}});
        assert!(used("n", "other", Some(0), named("p-scratch")));
        assert!(!used("", "other", None, named("p-scratch")), "it is on no node");
        assert!(!used("n", "other", None, named("another")));
        assert!(used("n", "u", Some(30), own.clone()));
        assert!(!used("n", "u", Some(0), own.clone()), "its node is done with it");
        assert!(!used("n", "other", None, own), "it is another pod of that name");
    }

    #[test]
    fn what_goes_is_let_go_and_what_stays_is_held() {
        let with = |deleted: Option<&str>, finalizers: &[&str]| {
            step(&serde_json::from_value(json!({"deletionTimestamp": deleted, "finalizers": finalizers})).unwrap(), "f")
        };
        let then = Some("2026-01-01T00:00:00Z");
        assert_eq!(with(None, &[]), Step::PutOn);
        assert_eq!(with(None, &["f"]), Step::Leave);
        assert_eq!(with(then, &["f", "g"]), Step::TakeOffUnlessUsed);
        assert_eq!(with(then, &["g"]), Step::Leave);
    }

    #[test]
    fn a_claim_is_of_all_the_classes_it_has_had() {
        let claim = json!({"metadata": {}, "spec": {"volumeAttributesClassName": "new"}, "status": {
            "currentVolumeAttributesClassName": "old", "modifyVolumeStatus": {"targetVolumeAttributesClassName": "next"}}});
        let claim: ClaimView = serde_json::from_value(claim).unwrap();
        assert_eq!(classes_of(&claim).collect::<Vec<_>>(), ["new", "old", "next"]);
    }
}
