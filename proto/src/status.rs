//! `Status`: the answer to a request that did not get what it asked for (and to some that did).
//!
//! Constructors carry Kubernetes' own codes, reasons and sentences (apimachinery `api/errors`), since clients match on
//! them.

use serde::{Deserialize, Serialize};

use crate::field;

/// One cause among several, each about one field.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// `FieldValueInvalid`, …
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The field's path.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
}

/// What the status is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    /// Name of the object.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its API group.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// Its resource (`pods`) or kind, as Kubernetes gives it for that error.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Its uid.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// The single causes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    /// Seconds after which trying again makes sense.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retry_after_seconds: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// A complete `v1.Status`, always with `kind` and `apiVersion`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    kind: String,
    api_version: String,
    metadata: serde_json::Map<String, serde_json::Value>,
    /// `Success` or `Failure`.
    pub status: String,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// For programs: `NotFound`, …
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// What it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Details>,
    /// The HTTP status code.
    #[serde(default)]
    pub code: u16,
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Status {}

/// A group and resource, as messages name it: `deployments.apps "x" not found`.
fn qualified(group: &str, resource: &str) -> String {
    if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") }
}

impl Status {
    /// A failure with the given code, reason and message and no details.
    #[must_use]
    pub fn failure(code: u16, reason: &str, message: impl Into<String>) -> Self {
        Self {
            kind: "Status".to_owned(),
            api_version: "v1".to_owned(),
            metadata: serde_json::Map::new(),
            status: "Failure".to_owned(),
            message: message.into(),
            reason: reason.to_owned(),
            details: None,
            code,
        }
    }

    /// The answer to a deletion (and its like) that is done: `details` names what was deleted.
    #[must_use]
    pub fn success(details: Option<Details>) -> Self {
        Self { status: "Success".to_owned(), details, code: 200, reason: String::new(), ..Self::failure(200, "", "") }
    }

    /// Gives the client a token to go on listing with.
    pub fn set_continue(&mut self, token: &str) {
        self.metadata.insert("continue".to_owned(), token.into());
    }

    fn about(mut self, group: &str, kind: &str, name: &str) -> Self {
        let details = self.details.get_or_insert_with(Details::default);
        group.clone_into(&mut details.group);
        kind.clone_into(&mut details.kind);
        name.clone_into(&mut details.name);
        self
    }

    /// 404: the object is not there.
    #[must_use]
    pub fn not_found(group: &str, resource: &str, name: &str) -> Self {
        let message = format!("{} {name:?} not found", qualified(group, resource));
        Self::failure(404, "NotFound", message).about(group, resource, name)
    }

    /// 404 for a path no API is served at.
    #[must_use]
    pub fn no_such_path() -> Self {
        let mut status = Self::failure(404, "NotFound", "the server could not find the requested resource");
        status.details = Some(Details::default());
        status
    }

    /// 409: the name is taken.
    #[must_use]
    pub fn already_exists(group: &str, resource: &str, name: &str) -> Self {
        let message = format!("{} {name:?} already exists", qualified(group, resource));
        Self::failure(409, "AlreadyExists", message).about(group, resource, name)
    }

    /// 409: the object changed meanwhile, or a precondition does not hold.
    #[must_use]
    pub fn conflict(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} {name:?}: {why}", qualified(group, resource));
        Self::failure(409, "Conflict", message).about(group, resource, name)
    }

    /// 409 for an update with a resourceVersion that is no longer the object's.
    #[must_use]
    pub fn stale(group: &str, resource: &str, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(group, resource, name, why)
    }

    /// 422: validation failed; `kind` is the kind (`Deployment`), not the resource.
    #[must_use]
    pub fn invalid(group: &str, kind: &str, name: &str, errors: &[field::Error]) -> Self {
        let shown = qualified(group, kind);
        let message = format!("{shown} {name:?} is invalid: {}", field::aggregate(errors));
        let mut status = Self::failure(422, "Invalid", message).about(group, kind, name);
        if let Some(details) = &mut status.details {
            details.causes = errors
                .iter()
                .map(|e| Cause {
                    reason: e.kind.reason().to_owned(),
                    message: e.message.clone(),
                    field: e.path.to_string(),
                })
                .collect();
        }
        status
    }

    /// 403: not allowed. `why` is the authorizer's or admission's sentence.
    #[must_use]
    pub fn forbidden(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let shown = qualified(group, resource);
        let message = match (shown.as_str(), name) {
            ("", _) => format!("forbidden: {why}"),
            (_, "") => format!("{shown} is forbidden: {why}"),
            _ => format!("{shown} {name:?} is forbidden: {why}"),
        };
        Self::failure(403, "Forbidden", message).about(group, resource, name)
    }

    /// 401.
    #[must_use]
    pub fn unauthorized() -> Self {
        Self::failure(401, "Unauthorized", "Unauthorized")
    }

    /// 400 with the given sentence.
    #[must_use]
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::failure(400, "BadRequest", message)
    }

    /// 405: the resource does not serve this verb.
    #[must_use]
    pub fn method_not_allowed() -> Self {
        let mut status =
            Self::failure(405, "MethodNotAllowed", "the server does not allow this method on the requested resource");
        status.details = Some(Details::default());
        status
    }

    /// 405: the resource is served by the same method, but not to do this with it (a watch of what is only listed).
    #[must_use]
    pub fn method_not_supported(group: &str, resource: &str, verb: &str) -> Self {
        let whole = if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") };
        let message = format!("{verb} is not supported on resources of kind {whole:?}");
        let mut status = Self::failure(405, "MethodNotAllowed", message);
        status.details = Some(Details { group: group.to_owned(), kind: resource.to_owned(), ..Details::default() });
        status
    }

    /// 406: none of the accepted media types is served.
    #[must_use]
    pub fn not_acceptable(supported: &[&str]) -> Self {
        let message = format!("only the following media types are accepted: {}", supported.join(", "));
        Self::failure(406, "NotAcceptable", message)
    }

    /// 415: the body's media type is not taken.
    #[must_use]
    pub fn unsupported_media_type(given: &str, supported: &[&str]) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            supported.join(", ")
        );
        let _ = given;
        Self::failure(415, "UnsupportedMediaType", message)
    }

    /// 410: that revision is no longer (or was never) kept; list again.
    #[must_use]
    pub fn expired(message: impl Into<String>) -> Self {
        Self::failure(410, "Expired", message)
    }

    /// 409: every name that was made of a `generateName` was taken; a client may simply try again.
    #[must_use]
    pub fn generate_name_conflict(group: &str, resource: &str, name: &str) -> Self {
        let message = format!(
            "{} {name:?} already exists, the server was not able to generate a unique name for the object",
            qualified(group, resource)
        );
        let mut status = Self::failure(409, "AlreadyExists", message).about(group, resource, name);
        if let Some(details) = &mut status.details {
            details.retry_after_seconds = 1;
        }
        status
    }

    /// 422 for a well-formed patch that the object cannot take; the sentence stands in the cause.
    #[must_use]
    pub fn unprocessable(why: impl Into<String>) -> Self {
        let message = "the server rejected our request due to an error in our request";
        let mut status = Self::failure(422, "Invalid", message);
        let cause = Cause { reason: "UnexpectedServerResponse".to_owned(), message: why.into(), field: String::new() };
        status.details = Some(Details { causes: vec![cause], ..Details::default() });
        status
    }

    /// 413.
    #[must_use]
    pub fn too_large(message: impl Into<String>) -> Self {
        let message = format!("Request entity too large: {}", message.into());
        Self::failure(413, "RequestEntityTooLarge", message)
    }

    /// 429 with the seconds after which to try again.
    #[must_use]
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        let mut status = Self::failure(429, "TooManyRequests", message);
        status.details = Some(Details { retry_after_seconds, ..Details::default() });
        status
    }

    /// 500; `message` must hold nothing that an outsider may not read.
    #[must_use]
    pub fn internal(message: impl Into<String>) -> Self {
        let message = message.into();
        let mut status = Self::failure(500, "InternalError", format!("Internal error occurred: {message}"));
        let cause = Cause { message, ..Cause::default() };
        status.details = Some(Details { causes: vec![cause], ..Details::default() });
        status
    }

    /// 503 that may be tried again.
    #[must_use]
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::failure(503, "ServiceUnavailable", message)
    }

    /// 501: what Kubernetes has and this version of Coracle does not serve; the sentence names it.
    #[must_use]
    pub fn not_here_yet(what: &str) -> Self {
        Self::failure(501, "NotImplemented", format!("{what} is not served by this version of Coracle"))
    }

    /// 504: the request took longer than it may.
    #[must_use]
    pub fn timeout(message: impl Into<String>) -> Self {
        Self::failure(504, "Timeout", format!("Timeout: {}", message.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_are_kubernetes_own() {
        for (status, code, reason, message) in [
            (Status::not_found("", "pods", "x"), 404, "NotFound", "pods \"x\" not found"),
            (
                Status::already_exists("apps", "deployments", "x"),
                409,
                "AlreadyExists",
                "deployments.apps \"x\" already exists",
            ),
            (
                Status::stale("", "pods", "x"),
                409,
                "Conflict",
                "Operation cannot be fulfilled on pods \"x\": the object has been modified; please apply your changes to \
                 the latest version and try again",
            ),
            (Status::forbidden("", "pods", "", "no"), 403, "Forbidden", "pods is forbidden: no"),
            (Status::forbidden("", "", "", "no"), 403, "Forbidden", "forbidden: no"),
            (
                Status::too_large("limit is 3145728"),
                413,
                "RequestEntityTooLarge",
                "Request entity too large: limit is 3145728",
            ),
            (Status::timeout("slow"), 504, "Timeout", "Timeout: slow"),
            (Status::internal("x"), 500, "InternalError", "Internal error occurred: x"),
            (
                Status::unprocessable("testing value /a failed: test failed"),
                422,
                "Invalid",
                "the server rejected our request due to an error in our request",
            ),
        ] {
            assert_eq!((status.code, status.reason.as_str(), status.message.as_str()), (code, reason, message));
        }
    }

    #[test]
    fn an_invalid_object_names_each_cause() {
        let path = field::Path::new("spec").child("replicas");
        let status =
            Status::invalid("apps", "Deployment", "x", &[field::Error::invalid(&path, -1, "must be positive")]);
        let json = serde_json::to_value(status).unwrap();
        assert_eq!(
            json["message"],
            "Deployment.apps \"x\" is invalid: spec.replicas: Invalid value: -1: must be positive"
        );
        let cause = serde_json::json!({"reason": "FieldValueInvalid", "message": "Invalid value: -1: must be positive",
            "field": "spec.replicas"});
        assert_eq!(json["details"]["causes"][0], cause);
    }

    #[test]
    fn a_failure_is_a_whole_object() {
        let json = serde_json::to_value(Status::not_found("apps", "deployments", "x")).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": "deployments.apps \"x\" not found", "reason": "NotFound",
                "details": {"name": "x", "group": "apps", "kind": "deployments"}, "code": 404
            })
        );
    }
}
