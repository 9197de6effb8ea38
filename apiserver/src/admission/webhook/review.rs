//! AdmissionReview: what a webhook is asked, and what it answers.

use std::collections::BTreeMap;

use base64::Engine as _;
use bytes::Bytes;
use coracle_proto::{
    resource::Resource,
    status::{Details, Status},
};
use k8s_openapi::{api::authentication::v1::UserInfo, apimachinery::pkg::apis::meta::v1::DeleteOptions};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json, value::RawValue};

use crate::{
    admission::{Operation, Write},
    ops::{AnyObject, BoxObject, KindOps},
    registry::versions::between,
    security::user_info,
    status_of::{self, Result},
    webhook::Answer,
};

#[derive(Serialize)]
struct Kind {
    group: &'static str,
    version: &'static str,
    kind: &'static str,
}

#[derive(Serialize)]
struct Plural {
    group: &'static str,
    version: &'static str,
    resource: &'static str,
}

/// `request` of an AdmissionReview.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    uid: &'a str,
    kind: Kind,
    resource: Plural,
    #[serde(skip_serializing_if = "str::is_empty")]
    sub_resource: &'a str,
    request_kind: Kind,
    request_resource: Plural,
    #[serde(skip_serializing_if = "str::is_empty")]
    request_sub_resource: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    namespace: &'a str,
    operation: &'static str,
    user_info: UserInfo,
    object: Option<Box<RawValue>>,
    old_object: Option<Box<RawValue>>,
    dry_run: bool,
    options: Value,
}

fn kind_of(resource: &Resource) -> Kind {
    Kind { group: resource.group, version: resource.version, kind: resource.kind }
}

fn plural_of(resource: &Resource) -> Plural {
    Plural { group: resource.group, version: resource.version, resource: resource.plural }
}

/// An object as a webhook about `kind` sees it, which may be another version than the one written.
pub(in crate::admission) async fn shown(
    write: &Write<'_>,
    kind: &dyn KindOps,
    object: &dyn AnyObject,
) -> Result<Bytes> {
    let broken = |error| status_of::broken("an object cannot be encoded", &error);
    if write.operation == Operation::Connect {
        // Options have no metadata.
        let mut options = object.to_json().map_err(broken)?;
        if let Some(options) = options.as_object_mut() {
            options.remove("metadata");
        }
        return serde_json::to_vec(&options).map(Bytes::from).map_err(broken);
    }
    if kind.resource() == write.kind.resource() {
        return kind.to_shown(object).map(Bytes::from).map_err(broken);
    }
    let stored = between(kind, write.kind.to_stored(object).map_err(broken)?).await?;
    let other = kind.from_stored(&stored).map_err(broken)?;
    kind.to_shown(&*other).map(Bytes::from).map_err(broken)
}

/// The object that JSON of `kind` is in the version written, with its defaults.
pub(in crate::admission) async fn decoded(write: &Write<'_>, kind: &dyn KindOps, json: &Value) -> Result<BoxObject> {
    let internal = |why: &dyn std::fmt::Display| Box::new(Status::internal(why.to_string()));
    let bytes = serde_json::to_vec(json).map_err(|error| internal(&error))?;
    let mut object = kind.decode(&bytes).map_err(|error| internal(&error))?.object;
    if kind.resource() != write.kind.resource() {
        let stored = kind.to_stored(&*object).map_err(|error| internal(&error))?;
        let stored = between(write.kind, stored).await?;
        object = write.kind.from_stored(&stored).map_err(|error| internal(&error))?;
    }
    write.kind.default(&mut *object);
    Ok(object)
}

fn raw(json: &Bytes) -> Result<Box<RawValue>> {
    serde_json::from_slice(json).map_err(|error| status_of::broken("an object cannot be encoded", &error))
}

fn options(write: &Write<'_>) -> Value {
    let kind = match write.operation {
        Operation::Create => "CreateOptions",
        Operation::Update => "UpdateOptions",
        Operation::Delete => "DeleteOptions",
        Operation::Connect => return Value::Null,
    };
    let mut options = match write.operation {
        Operation::Delete => serde_json::to_value(write.delete_options.unwrap_or(&DeleteOptions::default())),
        Operation::Create | Operation::Update | Operation::Connect => Ok(json!({})),
    }
    .unwrap_or_default();
    if let Some(options) = options.as_object_mut() {
        options.insert("kind".to_owned(), kind.into());
        options.insert("apiVersion".to_owned(), "meta.k8s.io/v1".into());
        if write.dry_run {
            options.insert("dryRun".to_owned(), json!(["All"]));
        }
    }
    options
}

/// What `request` is in expressions: all that a webhook is told but the objects.
pub(in crate::admission) fn described(write: &Write<'_>, kind: &dyn KindOps) -> Result<Value> {
    let mut value = serde_json::to_value(request_of(write, kind, ""))
        .map_err(|error| status_of::broken("a review cannot be encoded", &error))?;
    if let Some(fields) = value.as_object_mut() {
        for name in ["uid", "object", "oldObject"] {
            fields.remove(name);
        }
    }
    Ok(value)
}

/// The request without its objects.
fn request_of<'a>(write: &'a Write<'_>, kind: &dyn KindOps, uid: &'a str) -> Request<'a> {
    let (own, seen) = (write.kind.resource(), kind.resource());
    let is_namespace = write.is_of("", "namespaces");
    Request {
        uid,
        kind: kind_of(seen),
        resource: plural_of(seen),
        sub_resource: write.subresource,
        request_kind: kind_of(own),
        request_resource: plural_of(own),
        request_sub_resource: write.subresource,
        name: write.name,
        namespace: if is_namespace { write.name } else { write.namespace },
        operation: write.operation.as_str(),
        user_info: user_info(write.user.clone()),
        object: None,
        old_object: None,
        dry_run: write.dry_run,
        options: options(write),
    }
}

/// The review that a webhook about `kind` is sent, in AdmissionReview's `version`.
pub(super) async fn request(
    write: &Write<'_>,
    kind: &dyn KindOps,
    version: &str,
    uid: &str,
    object: Option<&Bytes>,
) -> Result<Bytes> {
    let old = match write.old {
        Some(old) => Some(shown(write, kind, old).await?),
        None => None,
    };
    let request = Request {
        object: object.map(raw).transpose()?,
        old_object: old.as_ref().map(raw).transpose()?,
        ..request_of(write, kind, uid)
    };
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Review<'a> {
        kind: &'static str,
        api_version: String,
        request: Request<'a>,
    }
    let review = Review { kind: "AdmissionReview", api_version: format!("admission.k8s.io/{version}"), request };
    serde_json::to_vec(&review)
        .map(Bytes::from)
        .map_err(|error| status_of::broken("a review cannot be encoded", &error))
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Response {
    uid: String,
    allowed: bool,
    status: Option<Outcome>,
    patch: Option<String>,
    patch_type: Option<String>,
    audit_annotations: Option<BTreeMap<String, String>>,
    warnings: Option<Vec<String>>,
}

/// The status with which a webhook says why not.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Outcome {
    message: String,
    reason: String,
    code: i64,
    details: Option<Details>,
}

/// What a webhook answered, checked.
pub(super) struct Verdict {
    /// Why not; `None` when it lets the request pass.
    pub(super) denied: Option<Box<Status>>,
    /// A JSON Patch; empty when there is none.
    pub(super) patch: Vec<u8>,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) warnings: Vec<String>,
}

/// The 4xx or 5xx of a webhook that said no.
fn denial(webhook: &str, outcome: Option<Outcome>) -> Box<Status> {
    let outcome = outcome.unwrap_or_default();
    let denied = format!("admission webhook {webhook:?} denied the request");
    let message = match (outcome.message.as_str(), outcome.reason.as_str()) {
        ("", "") => format!("{denied} without explanation"),
        ("", reason) => format!("{denied}: {reason}"),
        (message, _) => format!("{denied}: {message}"),
    };
    let code = u16::try_from(outcome.code.clamp(400, 599)).unwrap_or(400);
    let mut status = Status::failure(code, &outcome.reason, message);
    status.details = outcome.details;
    Box::new(status)
}

/// Reads and checks an answer to the review `uid` in `version`.
///
/// # Errors
/// Why it is no answer to this review.
pub(super) fn verdict(webhook: &str, version: &str, uid: &str, mutating: bool, body: &[u8]) -> Result<Verdict, String> {
    let invalid = |why: String| format!("received invalid webhook response: {why}");
    let answer: Answer<Response> = serde_json::from_slice(body)
        .map_err(|error| format!("failed to call webhook: the answer cannot be read: {error}"))?;
    let named = answer.is_of(&format!("admission.k8s.io/{version}"), "AdmissionReview");
    let response = answer.response.ok_or_else(|| invalid("webhook response was absent".to_owned()))?;
    let strict = version == "v1";
    if strict && response.uid != uid {
        return Err(invalid(format!("expected response.uid={uid:?}, got {:?}", response.uid)));
    }
    named.map_err(invalid)?;
    let patch = response.patch.unwrap_or_default();
    let kind = response.patch_type;
    let fault = match (mutating, patch.is_empty(), &kind) {
        (true, false, None) if strict => Some("webhook returned response.patch but not response.patchType".to_owned()),
        (true, true, Some(_)) if strict => {
            Some("webhook returned response.patchType but not response.patch".to_owned())
        }
        (true, false, Some(kind)) if kind.is_empty() => {
            Some(format!("webhook returned invalid response.patchType of {kind:?}"))
        }
        (false, false, _) if strict => Some("validating webhook may not return response.patch".to_owned()),
        (false, _, Some(_)) if strict => Some("validating webhook may not return response.patchType".to_owned()),
        _ => None,
    };
    if let Some(fault) = fault {
        return Err(invalid(fault));
    }
    if let Some(kind) = kind.filter(|kind| mutating && !patch.is_empty() && kind != "JSONPatch") {
        return Err(format!("unsupported patch type {kind:?}"));
    }
    let patch = if mutating { patch } else { String::new() };
    let patch = base64::engine::general_purpose::STANDARD
        .decode(&patch)
        .map_err(|error| format!("received undecodable patch in webhook response: {error}"))?;
    Ok(Verdict {
        denied: (!response.allowed).then(|| denial(webhook, response.status)),
        patch,
        annotations: response.audit_annotations.unwrap_or_default(),
        warnings: response.warnings.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(mutating: bool, response: Value) -> Result<(Option<(u16, String)>, String), String> {
        let body = json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response});
        let verdict = verdict("a.example.com", "v1", "u", mutating, body.to_string().as_bytes())?;
        let denied = verdict.denied.map(|status| (status.code, status.message));
        Ok((denied, String::from_utf8(verdict.patch).unwrap()))
    }

    #[test]
    fn denials_have_the_webhooks_words_and_codes() {
        for (status, code, message) in [
            (Value::Null, 400, "admission webhook \"a.example.com\" denied the request without explanation"),
            (
                json!({"code": 418, "message": "no tea"}),
                418,
                "admission webhook \"a.example.com\" denied the request: no tea",
            ),
            (json!({"code": 200, "reason": "Bad"}), 400, "admission webhook \"a.example.com\" denied the request: Bad"),
            (json!({"code": 9999}), 599, "admission webhook \"a.example.com\" denied the request without explanation"),
        ] {
            let (denied, _) = read(true, json!({"uid": "u", "allowed": false, "status": status})).unwrap();
            assert_eq!(denied, Some((code, message.to_owned())));
        }
    }

    #[test]
    fn answers_that_are_none_are_told_apart() {
        let invalid = "received invalid webhook response: ";
        for (mutating, response, why) in [
            (true, Value::Null, "webhook response was absent"),
            (true, json!({"uid": "x", "allowed": true}), "expected response.uid=\"u\", got \"x\""),
            (true, json!({"uid": "u", "patch": "W10="}), "webhook returned response.patch but not response.patchType"),
            (
                true,
                json!({"uid": "u", "patchType": "JSONPatch"}),
                "webhook returned response.patchType but not response.patch",
            ),
            (
                true,
                json!({"uid": "u", "patch": "W10=", "patchType": ""}),
                "webhook returned invalid response.patchType of \"\"",
            ),
            (false, json!({"uid": "u", "patch": "W10="}), "validating webhook may not return response.patch"),
            (
                false,
                json!({"uid": "u", "patchType": "JSONPatch"}),
                "validating webhook may not return response.patchType",
            ),
        ] {
            assert_eq!(read(mutating, response).unwrap_err(), format!("{invalid}{why}"));
        }
        let merge = json!({"uid": "u", "patch": "W10=", "patchType": "MergePatch"});
        assert_eq!(read(true, merge).unwrap_err(), "unsupported patch type \"MergePatch\"");
        let no_base64 = json!({"uid": "u", "patch": "!", "patchType": "JSONPatch"});
        assert!(read(true, no_base64).unwrap_err().starts_with("received undecodable patch in webhook response: "));
        let patch = json!({"uid": "u", "allowed": true, "patch": "W10=", "patchType": "JSONPatch"});
        assert_eq!(read(true, patch).unwrap(), (None, "[]".to_owned()));
        let other = br#"{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1beta1","response":{"uid":"u"}}"#;
        assert_eq!(
            verdict("a.example.com", "v1", "u", false, other).err().unwrap(),
            format!(
                "{invalid}expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got admission.k8s.io/v1beta1, Kind=AdmissionReview"
            )
        );
        assert!(
            verdict("a.example.com", "v1", "u", false, b"<html>")
                .err()
                .unwrap()
                .starts_with("failed to call webhook: ")
        );
    }
}
