//! Telling of what controllers did, as events about the objects they did it to.

mod correlation;

use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::time::Instant;
use tracing::warn;

use self::correlation::{Correlation, Telling};

/// The longest note the API takes, in bytes.
const LONGEST_NOTE: usize = 1024;

/// Tells of what one controller did. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Events {
    client: Client,
    controller: Arc<str>,
    told: Arc<Mutex<Correlation>>,
}

impl Events {
    /// Events in the name of `controller` (`deployment-controller`).
    pub(crate) fn new(client: Client, controller: &str) -> Self {
        Self { client, controller: controller.into(), told: Arc::default() }
    }

    /// Tells that something normal happened.
    pub(crate) async fn normal(&self, about: &ObjectReference, reason: &str, note: String) {
        self.tell(about, "Normal", reason, note).await;
    }

    /// Tells that something went wrong.
    pub(crate) async fn warning(&self, about: &ObjectReference, reason: &str, note: String) {
        self.tell(about, "Warning", reason, note).await;
    }

    /// An event that cannot be written is lost: nothing depends on it.
    async fn tell(&self, about: &ObjectReference, type_: &str, reason: &str, note: String) {
        let now = Timestamp::now();
        // Events about what is in no namespace are in `default`.
        let namespace = about.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let name = format!("{}.{:x}", about.name.as_deref().unwrap_or_default(), now.as_nanosecond());
        let object = about.uid.clone().or_else(|| about.name.clone()).unwrap_or_default();
        let telling = {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            told.tell((object, reason.to_owned()), &note, name, Instant::now())
        };
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        let result = match telling {
            Telling::New { name, mut note } => {
                note.truncate(note.floor_char_boundary(LONGEST_NOTE));
                let event = self.event(
                    about,
                    type_,
                    reason,
                    note,
                    ObjectMeta { name: Some(name), namespace: Some(namespace), ..ObjectMeta::default() },
                );
                api.create(&PostParams::default(), &event).await
            }
            Telling::Again { name, count } => {
                let series = json!({"count": count, "lastObservedTime": MicroTime(now)});
                let patch = Patch::Merge(json!({"series": series}));
                api.patch(&name, &PatchParams::default(), &patch).await
            }
        };
        match result {
            Ok(_) => {}
            // In a namespace that is going away nobody will read it; one told often enough to be forgotten is fine.
            Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404) => {}
            Err(error) => {
                let error: &(dyn std::error::Error + 'static) = &error;
                warn!(error, reason, name = about.name, namespace = about.namespace, "an event was lost");
            }
        }
    }

    fn event(&self, about: &ObjectReference, type_: &str, reason: &str, note: String, metadata: ObjectMeta) -> Event {
        Event {
            metadata,
            type_: Some(type_.to_owned()),
            reason: Some(reason.to_owned()),
            action: Some(reason.to_owned()),
            note: Some(note),
            regarding: Some(about.clone()),
            event_time: Some(MicroTime(Timestamp::now())),
            reporting_controller: Some(self.controller.to_string()),
            reporting_instance: Some(self.controller.to_string()),
            ..Event::default()
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
