//! One event of the audit, as `audit.k8s.io/v1` writes it.

use std::{borrow::Cow, collections::BTreeMap};

use coracle_proto::status::Status;
use jiff::Timestamp;
use serde::{Serialize, Serializer};
use serde_json::{Value, value::RawValue};

use super::policy::{Level, Stage};
use crate::{request::RequestInfo, user::User};

/// Longer names of programs are cut, as in Kubernetes.
const MAX_AGENT: usize = 1024;

#[derive(Clone, Debug, Serialize)]
struct Who {
    #[serde(skip_serializing_if = "String::is_empty")]
    username: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    uid: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    groups: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    extra: BTreeMap<String, Vec<String>>,
}

impl Who {
    fn of(user: &User) -> Self {
        let User { name, uid, groups, extra } = user.clone();
        Self { username: name, uid, groups, extra }
    }
}

/// The object a request is about.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct ObjectRef {
    #[serde(skip_serializing_if = "String::is_empty")]
    resource: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    uid: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    api_group: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    api_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    resource_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    subresource: String,
}

/// How the request ended: a code, or a whole status.
#[derive(Clone, Debug)]
enum Ending {
    Code(u16),
    Status(Box<Status>),
}

impl Serialize for Ending {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Code(code) => serde_json::json!({"metadata": {}, "code": code}).serialize(serializer),
            Self::Status(status) => {
                // Kubernetes leaves kind and version out here.
                let mut value = serde_json::to_value(status).map_err(serde::ser::Error::custom)?;
                if let Value::Object(fields) = &mut value {
                    fields.remove("kind");
                    fields.remove("apiVersion");
                }
                value.serialize(serializer)
            }
        }
    }
}

/// See the module. It grows while its request is worked on.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Event {
    kind: &'static str,
    api_version: &'static str,
    level: &'static str,
    #[serde(rename = "auditID")]
    audit_id: String,
    stage: &'static str,
    #[serde(rename = "requestURI")]
    request_uri: String,
    verb: String,
    user: Who,
    #[serde(skip_serializing_if = "Option::is_none")]
    impersonated_user: Option<Who>,
    #[serde(rename = "sourceIPs", skip_serializing_if = "Vec::is_empty")]
    source_ips: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    user_agent: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    object_ref: Option<ObjectRef>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_status: Option<Ending>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_object: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_object: Option<Box<RawValue>>,
    request_received_timestamp: String,
    stage_timestamp: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) annotations: BTreeMap<String, String>,
}

/// A time as `MicroTime` writes it.
fn micro(time: Timestamp) -> String {
    format!("{time:.6}")
}

/// What an object says of itself that the reference to it holds.
#[derive(serde::Deserialize, Default)]
#[serde(default)]
struct Said<'a> {
    #[serde(borrow)]
    metadata: SaidMeta<'a>,
}

#[derive(serde::Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct SaidMeta<'a> {
    #[serde(borrow)]
    namespace: Cow<'a, str>,
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    uid: Cow<'a, str>,
    #[serde(borrow)]
    resource_version: Cow<'a, str>,
}

/// The object without `metadata.managedFields`, or a list whose items have none.
fn without_managed_fields(json: &[u8]) -> Option<Box<RawValue>> {
    fn strip(object: &mut Value) {
        if let Some(Value::Object(meta)) = object.get_mut("metadata") {
            meta.remove("managedFields");
        }
    }
    let mut value: Value = serde_json::from_slice(json).ok()?;
    strip(&mut value);
    if let Some(Value::Array(items)) = value.get_mut("items") {
        items.iter_mut().for_each(strip);
    }
    if let Some(Value::Array(rows)) = value.get_mut("rows") {
        rows.iter_mut().filter_map(|row| row.get_mut("object")).for_each(strip);
    }
    serde_json::value::to_raw_value(&value).ok()
}

/// JSON as it is recorded; none for what is no JSON.
fn recorded(json: &[u8], omits_managed_fields: bool) -> Option<Box<RawValue>> {
    if omits_managed_fields {
        return without_managed_fields(json);
    }
    let text = std::str::from_utf8(json).ok()?;
    // A line is one event, so what is spread over lines is gathered.
    if text.contains(['\n', '\r']) {
        let value: Value = serde_json::from_str(text).ok()?;
        return serde_json::value::to_raw_value(&value).ok();
    }
    RawValue::from_string(text.to_owned()).ok()
}

/// The circumstances of a request.
pub(crate) struct Request<'a> {
    pub(crate) id: &'a str,
    pub(crate) uri: String,
    pub(crate) agent: &'a str,
    pub(crate) sources: Vec<String>,
    pub(crate) user: &'a User,
    pub(crate) info: &'a RequestInfo,
    pub(crate) received: Timestamp,
}

impl Event {
    pub(super) fn new(level: Level, request: Request<'_>) -> Self {
        let Request { id, uri, agent, sources, user, info, received } = request;
        let agent = match agent.char_indices().map(|(at, _)| at).take_while(|at| *at <= MAX_AGENT).last() {
            Some(end) if agent.len() > MAX_AGENT => {
                format!("{}...TRUNCATED", agent.get(..end).unwrap_or_default())
            }
            _ => agent.to_owned(),
        };
        Self {
            kind: "Event",
            api_version: "audit.k8s.io/v1",
            level: level.as_str(),
            audit_id: id.to_owned(),
            stage: Stage::RequestReceived.as_str(),
            request_uri: uri,
            verb: info.verb.clone(),
            user: Who::of(user),
            impersonated_user: None,
            source_ips: sources,
            user_agent: agent,
            object_ref: info.is_resource.then(|| ObjectRef {
                resource: info.resource.clone(),
                namespace: info.namespace.clone(),
                name: info.name.clone(),
                api_group: info.group.clone(),
                api_version: info.version.clone(),
                subresource: info.subresource.clone(),
                ..ObjectRef::default()
            }),
            response_status: None,
            request_object: None,
            response_object: None,
            request_received_timestamp: micro(received),
            stage_timestamp: String::new(),
            annotations: BTreeMap::new(),
        }
    }

    pub(super) fn impersonates(&mut self, user: &User) {
        self.impersonated_user = Some(Who::of(user));
    }

    /// What was sent, as JSON; the reference holds what that says of itself, unless it is a patch.
    pub(super) fn sent(&mut self, json: &[u8], is_object: bool, records: bool, omits_managed_fields: bool) {
        if is_object && let (Some(about), Ok(said)) = (&mut self.object_ref, serde_json::from_slice::<Said<'_>>(json)) {
            for (place, said) in [
                (&mut about.namespace, said.metadata.namespace),
                (&mut about.name, said.metadata.name),
                (&mut about.uid, said.metadata.uid),
                (&mut about.resource_version, said.metadata.resource_version),
            ] {
                if place.is_empty() {
                    *place = said.into_owned();
                }
            }
        }
        if records {
            self.request_object = recorded(json, omits_managed_fields && is_object);
        }
    }

    /// What was answered, as JSON.
    pub(super) fn answered(&mut self, json: &[u8], omits_managed_fields: bool) {
        self.response_object = recorded(json, omits_managed_fields);
    }

    pub(super) fn ended(&mut self, code: u16, status: Option<Status>) {
        self.response_status = Some(status.map_or(Ending::Code(code), |status| Ending::Status(Box::new(status))));
    }

    pub(super) fn is_ended(&self) -> bool {
        self.response_status.is_some()
    }

    /// The event at this stage as a line of JSON.
    pub(super) fn line(&mut self, stage: Stage, now: Timestamp) -> Vec<u8> {
        self.stage = stage.as_str();
        self.stage_timestamp = micro(now);
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(method: &str, uri: &str) -> Event {
        let info = RequestInfo::new(&method.parse().unwrap(), &uri.parse().unwrap());
        let agent = "é".repeat(2000);
        let request = Request {
            id: "7",
            uri: uri.to_owned(),
            agent: &agent,
            sources: vec!["10.0.0.1".to_owned()],
            user: &User::new("alice", &["crew"]),
            info: &info,
            received: Timestamp::UNIX_EPOCH,
        };
        Event::new(Level::Request, request)
    }

    #[test]
    fn an_event_reads_as_kubernetes_writes_it() {
        let mut event = event("POST", "/api/v1/namespaces/a/configmaps?x=y");
        event.sent(br#"{"metadata":{"name":"m","managedFields":[{}]},"data":{}}"#, true, true, true);
        event.ended(201, None);
        event.impersonates(&User::new("bob", &[]));
        event.annotations.insert("authorization.k8s.io/decision".to_owned(), "allow".to_owned());
        let line = event.line(Stage::ResponseComplete, Timestamp::from_millisecond(1500).unwrap());
        assert_eq!(line.iter().filter(|b| **b == b'\n').count(), 1);
        let mut value: Value = serde_json::from_slice(&line).unwrap();
        let agent = value.as_object_mut().unwrap().remove("userAgent").unwrap();
        assert!(agent.as_str().unwrap().ends_with("é...TRUNCATED") && agent.as_str().unwrap().len() < 1100);
        assert_eq!(
            value,
            json!({
                "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Request", "auditID": "7",
                "stage": "ResponseComplete", "requestURI": "/api/v1/namespaces/a/configmaps?x=y", "verb": "create",
                "user": {"username": "alice", "groups": ["crew", "system:authenticated"]},
                "impersonatedUser": {"username": "bob", "groups": ["system:authenticated"]},
                "sourceIPs": ["10.0.0.1"],
                "objectRef": {"resource": "configmaps", "namespace": "a", "name": "m", "apiVersion": "v1"},
                "responseStatus": {"metadata": {}, "code": 201},
                "requestObject": {"metadata": {"name": "m"}, "data": {}},
                "requestReceivedTimestamp": "1970-01-01T00:00:00.000000Z",
                "stageTimestamp": "1970-01-01T00:00:01.500000Z",
                "annotations": {"authorization.k8s.io/decision": "allow"}
            })
        );
    }

    #[test]
    fn patches_are_recorded_as_they_are_and_endings_hold_the_status() {
        let mut event = event("PATCH", "/api/v1/namespaces/a/configmaps/m");
        event.sent(b"[\n{\"op\": \"remove\", \"path\": \"/data\"}]", false, true, true);
        event.ended(404, Some(Status::not_found("", "configmaps", "m")));
        event.answered(b"no JSON", false);
        let value: Value = serde_json::from_slice(&event.line(Stage::ResponseComplete, Timestamp::UNIX_EPOCH)).unwrap();
        assert_eq!(value["requestObject"], json!([{"op": "remove", "path": "/data"}]));
        assert_eq!(value["responseStatus"]["reason"], "NotFound");
        assert!(value["responseStatus"].get("kind").is_none() && value.get("responseObject").is_none());
    }

    #[test]
    fn managed_fields_are_left_out_of_lists_and_tables_too() {
        let list = br#"{"metadata":{},"items":[{"metadata":{"managedFields":[1],"name":"a"}}]}"#;
        assert!(!without_managed_fields(list).unwrap().get().contains("managedFields"));
        let table = br#"{"metadata":{},"rows":[{"cells":[],"object":{"metadata":{"managedFields":[1]}}}]}"#;
        assert!(!without_managed_fields(table).unwrap().get().contains("managedFields"));
    }
}
