//! Carrying out decisions: binding a pod, or telling it why not.

use k8s_openapi::{
    api::core::v1::{Binding, ObjectReference},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use serde_json::json;
use tracing::warn;

use crate::{cluster::Pod, scheduler::CALL_TIMEOUT, view::PodView};

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The pod is bound.
    Bound,
    /// No node fits, and the pod says so.
    Refused,
    /// The pod is not there any more, or bound by somebody else.
    Gone,
    /// The API did not take it; to be tried again.
    Failed,
}

/// Tells the API what was decided.
#[derive(Clone)]
pub(crate) struct Outcomes {
    client: Client,
    events: Recorder,
}

impl Outcomes {
    pub(crate) fn new(client: Client, name: &str) -> Self {
        let reporter = Reporter { controller: name.to_owned(), instance: None };
        Self { events: Recorder::new(client.clone(), reporter), client }
    }

    /// Binds the pod to the node, and says so in an event.
    pub(crate) async fn bind(&self, pod: &Pod, node: &str) -> Verdict {
        let verdict = match tokio::time::timeout(CALL_TIMEOUT, self.post_binding(pod, node)).await {
            Ok(Ok(())) => Verdict::Bound,
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => Verdict::Gone,
            Ok(Err(error)) => {
                let error: &(dyn std::error::Error + 'static) = &error;
                warn!(error, pod = %pod.name, namespace = %pod.namespace, node = %node, "binding failed");
                Verdict::Failed
            }
            Err(_) => {
                warn!(pod = %pod.name, namespace = %pod.namespace, node = %node, "binding took too long");
                Verdict::Failed
            }
        };
        if verdict == Verdict::Bound {
            let note = format!("Successfully assigned {}/{} to {node}", pod.namespace, pod.name);
            self.event(pod, EventType::Normal, "Scheduled", "Binding", note).await;
        }
        verdict
    }

    async fn post_binding(&self, pod: &Pod, node: &str) -> Result<(), kube::Error> {
        let binding = Binding {
            metadata: ObjectMeta {
                name: Some(pod.name.clone()),
                namespace: Some(pod.namespace.clone()),
                uid: Some(pod.uid.clone()),
                ..ObjectMeta::default()
            },
            target: ObjectReference {
                kind: Some("Node".to_owned()),
                name: Some(node.to_owned()),
                ..ObjectReference::default()
            },
        };
        let body = serde_json::to_vec(&binding).map_err(kube::Error::SerdeError)?;
        let path = format!("/api/v1/namespaces/{}/pods/{}/binding", pod.namespace, pod.name);
        let request = http::Request::post(path).header("content-type", "application/json").body(body);
        let request = request.map_err(kube::Error::HttpError)?;
        self.client.request_text(request).await.map(drop)
    }

    /// Notes on the pod why no node takes it, and says so in an event.
    pub(crate) async fn refuse(&self, pod: &Pod, why: &str) -> Verdict {
        if pod.refusal.as_deref() != Some(why)
            && let Err(error) = self.patch_condition(pod, why).await
        {
            if matches!(&error, kube::Error::Api(status) if status.code == 404) {
                return Verdict::Gone;
            }
            let error: &(dyn std::error::Error + 'static) = &error;
            warn!(error, pod = %pod.name, namespace = %pod.namespace, "the pod could not be told why it waits");
        }
        self.event(pod, EventType::Warning, "FailedScheduling", "Scheduling", why.to_owned()).await;
        Verdict::Refused
    }

    async fn patch_condition(&self, pod: &Pod, why: &str) -> Result<(), kube::Error> {
        let mut condition = json!({
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": why,
            "observedGeneration": pod.generation,
        });
        // The time of the transition is that of the first refusal; a new sentence is no transition.
        if pod.refusal.is_none()
            && let Some(fields) = condition.as_object_mut()
        {
            fields.insert(
                "lastTransitionTime".to_owned(),
                jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into(),
            );
        }
        let patch = json!({"metadata": {"uid": pod.uid}, "status": {"conditions": [condition]}});
        let pods = Api::<PodView>::namespaced(self.client.clone(), &pod.namespace);
        pods.patch_status(&pod.name, &PatchParams::default(), &Patch::Strategic(patch)).await.map(drop)
    }

    async fn event(&self, pod: &Pod, kind: EventType, reason: &str, action: &str, note: String) {
        let about = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(pod.namespace.clone()),
            name: Some(pod.name.clone()),
            uid: Some(pod.uid.clone()),
            resource_version: Some(pod.resource_version.clone()),
            ..ObjectReference::default()
        };
        let event = Event {
            type_: kind,
            reason: reason.to_owned(),
            note: Some(note),
            action: action.to_owned(),
            secondary: None,
        };
        if let Err(error) = self.events.publish(&event, &about).await {
            let error: &(dyn std::error::Error + 'static) = &error;
            warn!(error, pod = %pod.name, namespace = %pod.namespace, reason, "an event was lost");
        }
    }
}
