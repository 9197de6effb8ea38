//! ComponentStatuses, worked out when somebody asks. Of its own knowledge the server can tell of its store alone; the other
//! components have health paths of their own, and no ComponentStatus.

use axum::body::Body;
use coracle_proto::status::Status;
use coracle_store::Revision;
use http::{Response, StatusCode};
use k8s_openapi::{
    api::core::v1::{ComponentCondition, ComponentStatus},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::Call;
use crate::{
    registry::{Listed, Selection, unstored},
    status_of::{self, Result},
};

/// The name under which Kubernetes tells of its store.
const STORE: &str = "etcd-0";

fn store(call: &Call) -> ComponentStatus {
    let refusing = call.registry().store().status().refusing;
    let is_well = call.server.progress.is_running() && refusing.is_none();
    let error = (!is_well).then(|| match refusing {
        Some(why) => format!("the store refuses writes: {why}"),
        None => "the store does not take writes".to_owned(),
    });
    ComponentStatus {
        metadata: ObjectMeta { name: Some(STORE.to_owned()), ..ObjectMeta::default() },
        conditions: Some(vec![ComponentCondition {
            type_: "Healthy".to_owned(),
            status: if is_well { "True" } else { "False" }.to_owned(),
            message: is_well.then(|| "ok".to_owned()),
            error,
        }]),
    }
}

pub(super) fn answer(call: &Call) -> Result<Response<Body>> {
    let broken = |error: serde_json::Error| status_of::broken("an answer cannot be encoded", &error);
    let value = serde_json::to_vec(&store(call)).map_err(broken)?;
    let entry = unstored(STORE.into(), value, Revision::NONE);
    match (call.info.verb.as_str(), call.info.names_object) {
        ("get", true) if call.info.name == STORE => call.shape().one(StatusCode::OK, &entry),
        ("get", true) => Err(Box::new(Status::not_found("", "componentstatuses", &call.info.name))),
        ("list", false) => {
            let selection = Selection::of(&call.kind, &call.info)?;
            let entries = Some(entry).filter(|entry| selection.takes(entry)).into_iter().collect();
            let revision = call.registry().revision();
            call.shape().list(&Listed { entries, revision, next: String::new(), remaining: None })
        }
        _ => Err(Box::new(Status::method_not_allowed())),
    }
}
