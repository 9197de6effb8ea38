//! Creating, deleting, adopting and releasing pods on behalf of an owner.

use k8s_openapi::{
    api::core::v1::{Pod, PodTemplateSpec},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde_json::json;

use crate::{informer::version_of, view::PodView};

/// The owner reference that makes `object` the managing owner.
pub(crate) fn managing_owner<K: kube::Resource<DynamicType = ()>>(object: &K) -> OwnerReference {
    let meta = object.meta();
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// A pod of the template, owned by `owner`, to be named `<owner>-<random>`.
pub(crate) fn pod_of(template: PodTemplateSpec, owner: OwnerReference) -> Pod {
    let from = template.metadata.unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", owner.name)),
            labels: from.labels,
            annotations: from.annotations,
            finalizers: from.finalizers,
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    }
}

/// Writes pods.
#[derive(Clone)]
pub(crate) struct PodControl {
    client: Client,
}

impl PodControl {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// Creates a pod. Returns it as created.
    pub(crate) async fn create(&self, namespace: &str, pod: Pod) -> Result<Pod, kube::Error> {
        Api::<Pod>::namespaced(self.client.clone(), namespace).create(&PostParams::default(), &pod).await
    }

    /// Deletes exactly this pod: not one of the same name that came after it. One that is gone already is fine. Returns the
    /// version with the mark of deletion, unless the pod went at once.
    pub(crate) async fn delete(&self, pod: &PodView) -> Result<Option<u64>, kube::Error> {
        self.delete_with(pod, DeleteParams::default()).await
    }

    /// The same without the pod's grace: nothing of it runs.
    pub(crate) async fn delete_at_once(&self, pod: &PodView) -> Result<(), kube::Error> {
        let params = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        self.delete_with(pod, params).await.map(drop)
    }

    async fn delete_with(&self, pod: &PodView, params: DeleteParams) -> Result<Option<u64>, kube::Error> {
        let meta = &pod.metadata;
        let preconditions = Preconditions { uid: meta.uid.clone(), resource_version: None };
        let params = DeleteParams { preconditions: Some(preconditions), ..params };
        let pods = Api::<PodView>::namespaced(self.client.clone(), meta.namespace.as_deref().unwrap_or_default());
        match pods.delete(meta.name.as_deref().unwrap_or_default(), &params).await {
            Ok(answer) => Ok(answer.left().map(|marked| version_of(&marked))),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes `owner` the managing owner of an orphan.
    pub(crate) async fn adopt(&self, pod: &PodView, owner: &OwnerReference) -> Result<(), kube::Error> {
        self.patch(pod, json!({"metadata": {"uid": pod.metadata.uid, "ownerReferences": [owner]}})).await.map(drop)
    }

    /// Takes `owner` off a pod that it no longer selects.
    pub(crate) async fn release(&self, pod: &PodView, owner_uid: &str) -> Result<(), kube::Error> {
        let owners = json!([{"$patch": "delete", "uid": owner_uid}]);
        self.patch(pod, json!({"metadata": {"uid": pod.metadata.uid, "ownerReferences": owners}})).await.map(drop)
    }

    /// Takes a finalizer off a pod. Returns the version without it; 0 for a pod that is gone already.
    pub(crate) async fn let_go(&self, pod: &PodView, finalizer: &str) -> Result<u64, kube::Error> {
        let patch = json!({"metadata": {"uid": pod.metadata.uid, "$deleteFromPrimitiveList/finalizers": [finalizer]}});
        self.patch(pod, patch).await
    }

    async fn patch(&self, pod: &PodView, patch: serde_json::Value) -> Result<u64, kube::Error> {
        let meta = &pod.metadata;
        let pods = Api::<PodView>::namespaced(self.client.clone(), meta.namespace.as_deref().unwrap_or_default());
        let name = meta.name.as_deref().unwrap_or_default();
        match pods.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await {
            Ok(patched) => Ok(version_of(&patched)),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(0),
            Err(error) => Err(error),
        }
    }
}
