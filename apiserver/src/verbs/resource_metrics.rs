//! `nodes` and `pods` of `metrics.k8s.io`, which are asked of the nodes.

use axum::body::Body;
use coracle_proto::status::Status;
use coracle_store::Revision;
use http::{Response, StatusCode};

use super::Call;
use crate::{
    registry::{ListOptions, Listed, Selection, Wanted},
    status_of::Result,
};

pub(super) async fn answer(call: &Call) -> Result<Response<Body>> {
    let metrics = &call.server.resource_metrics;
    let is_of_nodes = call.kind.resource().plural == "nodes";
    let (namespace, name) = call.at();
    match (call.info.verb.as_str(), call.info.names_object) {
        ("get", true) => {
            call.registry().settle(Wanted::Newest).await?;
            let entry = if is_of_nodes { metrics.node(name).await? } else { metrics.pod(namespace, name).await? };
            call.shape().one(StatusCode::OK, &entry)
        }
        ("list", false) => {
            // Lists are whole and of now, whatever is asked for; what cannot be asked for is refused as anywhere.
            ListOptions::of(&call.info)?;
            let selection = Selection::of(&call.kind, &call.info)?;
            call.registry().settle(Wanted::Newest).await?;
            let entries = if is_of_nodes {
                metrics.nodes(&selection).await?
            } else {
                metrics.pods(namespace, &selection).await?
            };
            call.shape().list(&Listed { entries, revision: Revision::NONE, next: String::new(), remaining: None })
        }
        _ => Err(Box::new(Status::method_not_allowed())),
    }
}
