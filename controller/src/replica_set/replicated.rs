//! The kinds that ask for a number of equal pods, and what tells them apart.

use std::fmt::Debug;

use coracle_proto::selector::LabelSelector;
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus},
        core::v1::{PodTemplateSpec, ReplicationController},
    },
};
use serde::de::DeserializeOwned;

use crate::{informer::Informer, informers::Informers};

/// A kind that asks for a number of equal pods.
pub(crate) trait Replicated:
    kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
    /// The controller's name in logs.
    const CONTROLLER: &'static str;
    /// Its name in events.
    const TOLD_BY: &'static str;
    /// Whether the status says how many pods are ending.
    const COUNTS_TERMINATING: bool;

    /// Where its objects are seen.
    fn informer(informers: &mut Informers) -> &mut Informer<Self>;

    /// Which pods are its; `None` for an object that would select all, or makes no sense.
    fn selector(&self) -> Option<LabelSelector>;

    /// How many pods are asked for.
    fn wanted(&self) -> usize;

    /// How many seconds a pod must have been ready to be available.
    fn min_ready_seconds(&self) -> i32;

    /// What pods are made from.
    fn template(&self) -> PodTemplateSpec;

    /// The status, in the words of a ReplicaSet's.
    fn status(&self) -> ReplicaSetStatus;
}

impl Replicated for ReplicaSet {
    const CONTROLLER: &'static str = "replicaset";
    const TOLD_BY: &'static str = "replicaset-controller";
    const COUNTS_TERMINATING: bool = true;

    fn informer(informers: &mut Informers) -> &mut Informer<Self> {
        &mut informers.replica_sets
    }

    fn selector(&self) -> Option<LabelSelector> {
        let spec = self.spec.as_ref()?;
        LabelSelector::from_api(Some(&spec.selector)).ok().filter(|selector| !selector.is_everything())
    }

    fn wanted(&self) -> usize {
        number(self.spec.as_ref().and_then(|spec| spec.replicas))
    }

    fn min_ready_seconds(&self) -> i32 {
        self.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or_default()
    }

    fn template(&self) -> PodTemplateSpec {
        self.spec.as_ref().and_then(|spec| spec.template.clone()).unwrap_or_default()
    }

    fn status(&self) -> ReplicaSetStatus {
        self.status.clone().unwrap_or_default()
    }
}

impl Replicated for ReplicationController {
    const CONTROLLER: &'static str = "replicationcontroller";
    const TOLD_BY: &'static str = "replication-controller";
    const COUNTS_TERMINATING: bool = false;

    fn informer(informers: &mut Informers) -> &mut Informer<Self> {
        &mut informers.replication_controllers
    }

    fn selector(&self) -> Option<LabelSelector> {
        let labels = self.spec.as_ref()?.selector.as_ref().filter(|labels| !labels.is_empty())?;
        Some(LabelSelector::from_labels(labels))
    }

    fn wanted(&self) -> usize {
        number(self.spec.as_ref().and_then(|spec| spec.replicas))
    }

    fn min_ready_seconds(&self) -> i32 {
        self.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or_default()
    }

    fn template(&self) -> PodTemplateSpec {
        self.spec.as_ref().and_then(|spec| spec.template.clone()).unwrap_or_default()
    }

    fn status(&self) -> ReplicaSetStatus {
        let status = self.status.clone().unwrap_or_default();
        let conditions = status.conditions.map(|conditions| {
            let condition = |c: k8s_openapi::api::core::v1::ReplicationControllerCondition| ReplicaSetCondition {
                type_: c.type_,
                status: c.status,
                reason: c.reason,
                message: c.message,
                last_transition_time: c.last_transition_time,
            };
            conditions.into_iter().map(condition).collect()
        });
        ReplicaSetStatus {
            replicas: status.replicas,
            fully_labeled_replicas: status.fully_labeled_replicas,
            ready_replicas: status.ready_replicas,
            available_replicas: status.available_replicas,
            observed_generation: status.observed_generation,
            terminating_replicas: None,
            conditions,
        }
    }
}

fn number(replicas: Option<i32>) -> usize {
    usize::try_from(replicas.unwrap_or(1)).unwrap_or_default()
}
