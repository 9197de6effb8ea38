//! What the scheduler reads of pods and nodes: the few fields it decides by, so that watching ten thousand pods costs
//! megabytes rather than the hundreds that whole typed pods would.

use std::{borrow::Cow, collections::BTreeMap};

use k8s_openapi::{
    ClusterResourceScope, NamespaceResourceScope,
    api::core::v1::{NodeSelector, PreferredSchedulingTerm, Taint, Toleration},
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta},
};
use serde::Deserialize;

/// A pod, as far as scheduling goes.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct PodView {
    /// Name, namespace, uid, labels.
    #[serde(default, deserialize_with = "coracle_proto::meta::lean")]
    pub(crate) metadata: ObjectMeta,
    /// What it asks for.
    #[serde(default)]
    pub(crate) spec: PodSpecView,
    /// Whether it still runs.
    #[serde(default)]
    pub(crate) status: PodStatusView,
}

/// The part of a pod's spec that decides where it may run.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PodSpecView {
    pub(crate) node_name: String,
    pub(crate) scheduler_name: String,
    pub(crate) priority: i32,
    pub(crate) node_selector: BTreeMap<String, String>,
    pub(crate) affinity: AffinityView,
    pub(crate) tolerations: Vec<Toleration>,
    pub(crate) containers: Vec<ContainerView>,
    pub(crate) init_containers: Vec<ContainerView>,
    pub(crate) overhead: BTreeMap<String, Quantity>,
    pub(crate) resources: ResourcesView,
    pub(crate) scheduling_gates: Vec<GateView>,
    pub(crate) host_network: bool,
}

/// The part of a pod's affinity that is honoured: that to nodes.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct AffinityView {
    pub(crate) node_affinity: NodeAffinityView,
}

/// Required and preferred node labels.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct NodeAffinityView {
    #[serde(rename = "requiredDuringSchedulingIgnoredDuringExecution")]
    pub(crate) required: Option<NodeSelector>,
    #[serde(rename = "preferredDuringSchedulingIgnoredDuringExecution")]
    pub(crate) preferred: Vec<PreferredSchedulingTerm>,
}

/// A container's requests and host ports.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ContainerView {
    pub(crate) restart_policy: String,
    pub(crate) resources: ResourcesView,
    pub(crate) ports: Vec<PortView>,
}

/// Requests alone: limits do not decide where a pod runs.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ResourcesView {
    pub(crate) requests: BTreeMap<String, Quantity>,
}

/// A port of a container.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PortView {
    pub(crate) host_port: i32,
    #[serde(rename = "hostIP")]
    pub(crate) host_ip: String,
    pub(crate) protocol: String,
    pub(crate) container_port: i32,
}

/// A gate that holds a pod back from scheduling (KEP-3521). Only whether there are any matters, not what they are called.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct GateView {}

/// Phase and conditions.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct PodStatusView {
    pub(crate) phase: String,
    pub(crate) conditions: Vec<ConditionView>,
}

/// One condition of a pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ConditionView {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) status: String,
    pub(crate) reason: String,
    pub(crate) message: String,
}

/// A node, as far as scheduling goes.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct NodeView {
    /// Name and labels.
    #[serde(default, deserialize_with = "coracle_proto::meta::lean")]
    pub(crate) metadata: ObjectMeta,
    /// Taints and whether it is cordoned.
    #[serde(default)]
    pub(crate) spec: NodeSpecView,
    /// What it has to give.
    #[serde(default)]
    pub(crate) status: NodeStatusView,
}

/// Taints and whether the node is cordoned.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct NodeSpecView {
    pub(crate) unschedulable: bool,
    pub(crate) taints: Vec<Taint>,
}

/// What the node has to give.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct NodeStatusView {
    pub(crate) allocatable: BTreeMap<String, Quantity>,
}

impl kube::Resource for PodView {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind(_: &()) -> Cow<'_, str> {
        "Pod".into()
    }
    fn group(_: &()) -> Cow<'_, str> {
        "".into()
    }
    fn version(_: &()) -> Cow<'_, str> {
        "v1".into()
    }
    fn plural(_: &()) -> Cow<'_, str> {
        "pods".into()
    }
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl kube::Resource for NodeView {
    type DynamicType = ();
    type Scope = ClusterResourceScope;

    fn kind(_: &()) -> Cow<'_, str> {
        "Node".into()
    }
    fn group(_: &()) -> Cow<'_, str> {
        "".into()
    }
    fn version(_: &()) -> Cow<'_, str> {
        "v1".into()
    }
    fn plural(_: &()) -> Cow<'_, str> {
        "nodes".into()
    }
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
