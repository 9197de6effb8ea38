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
    let status = call.registry().store().status();
    let message = message(&status);
    let refusing = status.refusing;
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
            message: is_well.then_some(message),
            error,
        }]),
    }
}

/// What is to be said of a store that is well: a slow disk is, but somebody may want to know.
fn message(status: &coracle_store::Status) -> String {
    if status.is_disk_slow() {
        let seconds = status.slowest_sync.as_secs_f64();
        format!("ok, but the disk is slow: a sync took {seconds:.1} s within the last minute, and writes take as long")
    } else {
        "ok".to_owned()
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use coracle_store::{Status, Work};

    use super::*;

    #[test]
    fn a_slow_disk_is_told_of_and_is_no_illness() {
        let status = |millis| Status {
            refusing: None,
            revision: Revision::NONE,
            compacted: Revision::NONE,
            keys: 0,
            work: Work::default(),
            slowest_sync: Duration::from_millis(millis),
        };
        assert_eq!(message(&status(499)), "ok");
        let said = "ok, but the disk is slow: a sync took 2.3 s within the last minute, and writes take as long";
        assert_eq!(message(&status(2300)), said);
    }
}
