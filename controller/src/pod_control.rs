//! Creating, deleting, adopting and releasing pods on behalf of an owner, with the events that tell of it.

use k8s_openapi::{
    api::core::v1::{ObjectReference, Pod, PodTemplateSpec},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use serde_json::json;
use tracing::warn;

use crate::view::PodView;

/// Tells of what a controller did, as events about its objects.
#[derive(Clone)]
pub(crate) struct Events {
    recorder: Recorder,
}

impl Events {
    /// Events in the name of `controller` (`deployment-controller`).
    pub(crate) fn new(client: Client, controller: &str) -> Self {
        let reporter = Reporter { controller: controller.to_owned(), instance: None };
        Self { recorder: Recorder::new(client, reporter) }
    }

    /// Tells that something normal happened.
    pub(crate) async fn normal(&self, about: &ObjectReference, reason: &str, note: String) {
        self.publish(about, EventType::Normal, reason, note).await;
    }

    /// Tells that something went wrong.
    pub(crate) async fn warning(&self, about: &ObjectReference, reason: &str, note: String) {
        self.publish(about, EventType::Warning, reason, note).await;
    }

    async fn publish(&self, about: &ObjectReference, type_: EventType, reason: &str, note: String) {
        let event =
            Event { type_, reason: reason.to_owned(), note: Some(note), action: reason.to_owned(), secondary: None };
        if let Err(error) = self.recorder.publish(&event, about).await {
            // In a namespace that is going away nobody will read it.
            if matches!(&error, kube::Error::Api(status) if matches!(status.code, 403 | 404)) {
                return;
            }
            let error: &(dyn std::error::Error + 'static) = &error;
            warn!(error, reason, name = ?about.name, namespace = ?about.namespace, "an event was lost");
        }
    }
}

/// A reference to an object, for events about it.
pub(crate) fn reference<K: kube::Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    let meta = object.meta();
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        ..ObjectReference::default()
    }
}

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

/// Writes pods.
#[derive(Clone)]
pub(crate) struct PodControl {
    client: Client,
}

impl PodControl {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// Creates a pod from the template, owned by `owner`, named `<owner>-<random>`. Returns it as created.
    pub(crate) async fn create(
        &self,
        namespace: &str,
        template: &PodTemplateSpec,
        owner: OwnerReference,
    ) -> Result<Pod, kube::Error> {
        let from = template.metadata.clone().unwrap_or_default();
        let pod = Pod {
            metadata: ObjectMeta {
                generate_name: Some(format!("{}-", owner.name)),
                labels: from.labels,
                annotations: from.annotations,
                finalizers: from.finalizers,
                owner_references: Some(vec![owner]),
                ..ObjectMeta::default()
            },
            spec: template.spec.clone(),
            status: None,
        };
        Api::<Pod>::namespaced(self.client.clone(), namespace).create(&PostParams::default(), &pod).await
    }

    /// Deletes exactly this pod: not one of the same name that came after it. One that is gone already is fine.
    pub(crate) async fn delete(&self, pod: &PodView) -> Result<(), kube::Error> {
        self.delete_with(pod, DeleteParams::default()).await
    }

    /// The same without the pod's grace: nothing of it runs.
    pub(crate) async fn delete_at_once(&self, pod: &PodView) -> Result<(), kube::Error> {
        self.delete_with(pod, DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() }).await
    }

    async fn delete_with(&self, pod: &PodView, params: DeleteParams) -> Result<(), kube::Error> {
        let meta = &pod.metadata;
        let preconditions = Preconditions { uid: meta.uid.clone(), resource_version: None };
        let params = DeleteParams { preconditions: Some(preconditions), ..params };
        let pods = Api::<PodView>::namespaced(self.client.clone(), meta.namespace.as_deref().unwrap_or_default());
        match pods.delete(meta.name.as_deref().unwrap_or_default(), &params).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Makes `owner` the managing owner of an orphan.
    pub(crate) async fn adopt(&self, pod: &PodView, owner: &OwnerReference) -> Result<(), kube::Error> {
        self.patch(pod, json!({"metadata": {"uid": pod.metadata.uid, "ownerReferences": [owner]}})).await
    }

    /// Takes `owner` off a pod that it no longer selects.
    pub(crate) async fn release(&self, pod: &PodView, owner_uid: &str) -> Result<(), kube::Error> {
        let owners = json!([{"$patch": "delete", "uid": owner_uid}]);
        self.patch(pod, json!({"metadata": {"uid": pod.metadata.uid, "ownerReferences": owners}})).await
    }

    async fn patch(&self, pod: &PodView, patch: serde_json::Value) -> Result<(), kube::Error> {
        let meta = &pod.metadata;
        let pods = Api::<PodView>::namespaced(self.client.clone(), meta.namespace.as_deref().unwrap_or_default());
        let name = meta.name.as_deref().unwrap_or_default();
        match pods.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(error),
        }
    }
}
