//! What controllers read of pods, nodes, leases, volumes and tokens: the few fields they decide by.

use std::borrow::Cow;

use k8s_openapi::{
    ByteString, ClusterResourceScope, NamespaceResourceScope,
    api::core::v1::{ContainerPort, NodeCondition, NodeSelector, PodIP, Taint, Toleration},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference, Time},
    jiff::Timestamp,
};
use serde::{Deserialize, Deserializer, de::IgnoredAny};

/// A pod, as far as controllers go.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct PodView {
    #[serde(default, deserialize_with = "coracle_proto::meta::lean")]
    pub(crate) metadata: ObjectMeta,
    #[serde(default)]
    pub(crate) spec: PodSpecView,
    #[serde(default)]
    pub(crate) status: PodStatusView,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PodSpecView {
    pub(crate) node_name: String,
    pub(crate) hostname: String,
    pub(crate) subdomain: String,
    pub(crate) affinity: Option<AffinityView>,
    pub(crate) tolerations: Vec<Toleration>,
    /// The claims among its volumes.
    #[serde(rename = "volumes", deserialize_with = "claims")]
    pub(crate) claims: Vec<ClaimUse>,
    pub(crate) containers: Vec<ContainerView>,
    pub(crate) init_containers: Vec<ContainerView>,
}

/// How a pod has a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ClaimUse {
    /// By this name.
    Named(String),
    /// As its own, for its volume of this name.
    Own(String),
}

/// Of all that volumes say, only what few of them do: which claim they are.
fn claims<'de, D: Deserializer<'de>>(reader: D) -> Result<Vec<ClaimUse>, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Volume {
        #[serde(default)]
        name: String,
        persistent_volume_claim: Option<Source>,
        ephemeral: Option<IgnoredAny>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Source {
        #[serde(default)]
        claim_name: String,
    }
    let volumes = Option::<Vec<Volume>>::deserialize(reader)?.unwrap_or_default();
    let claim = |volume: Volume| match (volume.persistent_volume_claim, volume.ephemeral) {
        (Some(source), _) => Some(ClaimUse::Named(source.claim_name)),
        (None, Some(_)) => Some(ClaimUse::Own(volume.name)),
        (None, None) => None,
    };
    Ok(volumes.into_iter().filter_map(claim).collect())
}

/// What a pod's affinity says of the node it must be on.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct AffinityView {
    pub(crate) node_affinity: Option<NodeAffinityView>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct NodeAffinityView {
    #[serde(rename = "requiredDuringSchedulingIgnoredDuringExecution")]
    pub(crate) required: Option<NodeSelector>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ContainerView {
    pub(crate) name: String,
    pub(crate) ports: Vec<ContainerPort>,
    pub(crate) restart_policy: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PodStatusView {
    pub(crate) phase: String,
    pub(crate) reason: String,
    #[serde(rename = "podIPs")]
    pub(crate) pod_ips: Vec<PodIP>,
    pub(crate) conditions: Vec<PodConditionView>,
    pub(crate) container_statuses: Vec<ContainerStatusView>,
    pub(crate) init_container_statuses: Vec<ContainerStatusView>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PodConditionView {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) status: String,
    pub(crate) last_transition_time: Option<Time>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ContainerStatusView {
    pub(crate) name: String,
    pub(crate) restart_count: i32,
    pub(crate) state: ContainerStateView,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ContainerStateView {
    pub(crate) terminated: Option<TerminatedView>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct TerminatedView {
    pub(crate) exit_code: i32,
    pub(crate) finished_at: Option<Time>,
}

impl PodView {
    /// Neither over nor being deleted.
    pub(crate) fn is_active(&self) -> bool {
        !self.is_over() && self.metadata.deletion_timestamp.is_none()
    }

    /// Succeeded or failed: nothing of it runs any more.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.status.phase.as_str(), "Succeeded" | "Failed")
    }

    /// Since when it has been ready, if it is.
    pub(crate) fn ready_since(&self) -> Option<Timestamp> {
        let ready = self.status.conditions.iter().find(|c| c.kind == "Ready" && c.status == "True")?;
        Some(ready.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0))
    }

    /// When it last became ready or ceased to be, if that is known.
    pub(crate) fn readiness_changed(&self) -> Option<Timestamp> {
        let ready = self.status.conditions.iter().find(|c| c.kind == "Ready")?;
        ready.last_transition_time.as_ref().map(|time| time.0)
    }

    /// Whether it has a condition Ready that is true.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready_since().is_some()
    }
}

/// The one owner of an object that manages it.
pub(crate) fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// A node, as far as controllers go.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct NodeView {
    #[serde(default, deserialize_with = "coracle_proto::meta::lean")]
    pub(crate) metadata: ObjectMeta,
    #[serde(default)]
    pub(crate) spec: NodeSpecView,
    #[serde(default)]
    pub(crate) status: NodeStatusView,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct NodeSpecView {
    pub(crate) unschedulable: bool,
    pub(crate) taints: Vec<Taint>,
    #[serde(rename = "podCIDR")]
    pub(crate) pod_cidr: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct NodeStatusView {
    pub(crate) conditions: Vec<NodeCondition>,
}

impl NodeView {
    /// Its condition of this type.
    pub(crate) fn condition(&self, type_: &str) -> Option<&NodeCondition> {
        self.status.conditions.iter().find(|condition| condition.type_ == type_)
    }
}

/// A lease, as far as it shows that its holder lives.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct LeaseView {
    #[serde(default, deserialize_with = "coracle_proto::meta::lean")]
    pub(crate) metadata: ObjectMeta,
    #[serde(default)]
    pub(crate) spec: LeaseSpecView,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct LeaseSpecView {
    pub(crate) renew_time: Option<MicroTime>,
}

/// A claim of a volume, as far as it is protected and protects.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct ClaimView {
    pub(crate) metadata: ObjectMeta,
    #[serde(default)]
    pub(crate) spec: OfClass,
    #[serde(default)]
    pub(crate) status: ClaimStatusView,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct OfClass {
    pub(crate) volume_attributes_class_name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ClaimStatusView {
    pub(crate) current_volume_attributes_class_name: String,
    pub(crate) modify_volume_status: Option<ModifyVolumeView>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ModifyVolumeView {
    pub(crate) target_volume_attributes_class_name: String,
}

/// A volume, as far as it is protected and protects.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct VolumeView {
    pub(crate) metadata: ObjectMeta,
    #[serde(default)]
    pub(crate) spec: OfClass,
    #[serde(default)]
    pub(crate) status: PhaseView,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct PhaseView {
    pub(crate) phase: String,
}

/// A class of volumes' attributes, as far as it is protected.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct AttributesClassView {
    pub(crate) metadata: ObjectMeta,
}

/// A Secret of a bootstrap token, without the token itself.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct TokenView {
    #[serde(default, deserialize_with = "coracle_proto::meta::lean")]
    pub(crate) metadata: ObjectMeta,
    #[serde(default)]
    pub(crate) data: TokenDataView,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct TokenDataView {
    /// A timestamp as RFC 3339 writes it.
    pub(crate) expiration: Option<ByteString>,
}

macro_rules! resource {
    ($view:ty, $group:literal, $kind:literal, $plural:literal, $scope:ty) => {
        impl kube::Resource for $view {
            type DynamicType = ();
            type Scope = $scope;

            fn kind(_: &()) -> Cow<'_, str> {
                $kind.into()
            }
            fn group(_: &()) -> Cow<'_, str> {
                $group.into()
            }
            fn version(_: &()) -> Cow<'_, str> {
                "v1".into()
            }
            fn plural(_: &()) -> Cow<'_, str> {
                $plural.into()
            }
            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }
            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

resource!(PodView, "", "Pod", "pods", NamespaceResourceScope);
resource!(NodeView, "", "Node", "nodes", ClusterResourceScope);
resource!(LeaseView, "coordination.k8s.io", "Lease", "leases", NamespaceResourceScope);
resource!(ClaimView, "", "PersistentVolumeClaim", "persistentvolumeclaims", NamespaceResourceScope);
resource!(VolumeView, "", "PersistentVolume", "persistentvolumes", ClusterResourceScope);
resource!(
    AttributesClassView,
    "storage.k8s.io",
    "VolumeAttributesClass",
    "volumeattributesclasses",
    ClusterResourceScope
);
resource!(TokenView, "", "Secret", "secrets", NamespaceResourceScope);
