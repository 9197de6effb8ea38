//! Times that Rust reads and Kubernetes refuses: which fields of an object in JSON hold a time is known of the tables.

use std::{collections::HashSet, sync::LazyLock};

use serde_json::{Map, Value};

use super::table::{SCHEMA, TABLES, Type, message_of};
use crate::go_time::{Form, check};

/// The messages that hold a `metav1.MicroTime`, themselves or in another.
static MICROS: LazyLock<HashSet<&'static str>> = LazyLock::new(|| {
    let mut known = HashSet::new();
    loop {
        let holds = |content: &Type| match within(content) {
            Type::MicroTime => true,
            Type::Message(inner) => known.contains(inner.as_str()),
            _ => false,
        };
        let found = TABLES.iter().filter(|(_, fields)| fields.iter().any(|field| holds(&field.content)));
        let found: HashSet<&str> = found.map(|(name, _)| name.as_str()).collect();
        if found.len() == known.len() {
            return found;
        }
        known = found;
    }
});

/// What a list or a map is of.
fn within(content: &Type) -> &Type {
    match content {
        Type::List(element) | Type::Map(element) => within(element),
        content => content,
    }
}

/// Whether an object's JSON may have a time that [`wrong_time`] finds: hardly any has, and the others need not be looked at
/// closely.
#[must_use]
pub fn may_have_wrong_time(api_version: &str, kind: &str, json: &[u8]) -> bool {
    let form = match message_of(api_version, kind) {
        Some(message) if MICROS.contains(message.as_str()) => Form::Micros,
        Some(_) => Form::Seconds,
        None => return false,
    };
    // (Each quotation mark may be the one before a time: it costs less to look than to tell them apart.)
    let texts = json.iter().enumerate().filter(|(_, byte)| **byte == b'"').filter_map(|(at, _)| json.get(at + 1..));
    texts.filter(|rest| is_like_time(rest)).any(|rest| {
        let text = rest.split(|byte| *byte == b'"').next().unwrap_or_default();
        std::str::from_utf8(text).is_ok_and(|text| check(text, form).is_err())
    })
}

/// Whether bytes begin as what Rust reads as a time: with a day that has hyphens, or is eight digits before the hour, or whose
/// year has a sign; or with what says any of these otherwise.
fn is_like_time(bytes: &[u8]) -> bool {
    let are_digits =
        |range: std::ops::Range<usize>| bytes.get(range).is_some_and(|digits| digits.iter().all(u8::is_ascii_digit));
    match bytes.first() {
        Some(b'\\') => true,
        Some(b'+' | b'-') => are_digits(1..7),
        _ if !are_digits(0..4) => false,
        _ if bytes.get(4) == Some(&b'-') => are_digits(5..6),
        _ => are_digits(4..8) && bytes.get(8).is_some_and(|byte| b"Tt ".contains(byte)),
    }
}

/// A text that is no time as Go reads them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrongTime {
    /// The field: `metadata.creationTimestamp`, `status.conditions[0].lastTransitionTime`.
    pub path: String,
    /// What Go says of it.
    pub why: String,
}

impl WrongTime {
    /// The same, seen from what has it within: in a field, or at a place in a list.
    fn within(mut self, outer: &str) -> Self {
        let dot = if self.path.is_empty() || self.path.starts_with('[') { "" } else { "." };
        self.path.insert_str(0, &format!("{outer}{dot}"));
        self
    }
}

/// The first time of an object in JSON that Go does not read. Of what is no text nothing is said, nor of kinds without a table.
#[must_use]
pub fn wrong_time(api_version: &str, kind: &str, object: &Map<String, Value>) -> Option<WrongTime> {
    of_message(&message_of(api_version, kind)?, object)
}

fn of_message(message: &str, object: &Map<String, Value>) -> Option<WrongTime> {
    TABLES.get(message)?.iter().find_map(|field| match (field.name, &field.content) {
        (Some(name), content) => of_value(content, object.get(name)?).map(|wrong| wrong.within(name)),
        (None, Type::Message(inner)) => of_message(inner, object),
        (None, _) => None,
    })
}

fn of_value(content: &Type, value: &Value) -> Option<WrongTime> {
    let time = |text: &str, form| check(text, form).err().map(|why| WrongTime { path: String::new(), why });
    match (content, value) {
        (Type::Time, Value::String(text)) => time(text, Form::Seconds),
        (Type::MicroTime, Value::String(text)) => time(text, Form::Micros),
        // (Schemas have no times, but schemas.)
        (Type::Message(inner), Value::Object(object)) if inner != SCHEMA => of_message(inner, object),
        (Type::List(element), Value::Array(items)) => {
            let mut items = items.iter().enumerate();
            items.find_map(|(index, item)| of_value(element, item).map(|wrong| wrong.within(&format!("[{index}]"))))
        }
        (Type::Map(element), Value::Object(entries)) => {
            let mut entries = entries.iter();
            entries.find_map(|(key, entry)| of_value(element, entry).map(|wrong| wrong.within(key)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(api_version: &str, kind: &str, object: &Value) -> Option<WrongTime> {
        let told = wrong_time(api_version, kind, object.as_object().unwrap());
        let may_have = may_have_wrong_time(api_version, kind, object.to_string().as_bytes());
        assert!(may_have || told.is_none(), "{object}");
        told
    }

    #[test]
    fn a_time_is_found_wherever_it_is() {
        let day =
            r#"parsing time "2026-01-01 00:00:00Z" as "2006-01-02T15:04:05Z07:00": cannot parse " 00:00:00Z" as "T""#;
        let wrong = "2026-01-01 00:00:00Z";
        for (api_version, kind, path, object) in [
            ("v1", "Pod", "metadata.creationTimestamp", json!({"metadata": {"creationTimestamp": wrong}})),
            (
                "v1",
                "Pod",
                "metadata.managedFields[1].time",
                json!({"metadata": {"managedFields": [{"manager": "m"}, {"time": wrong}]}}),
            ),
            (
                "v1",
                "Pod",
                "status.containerStatuses[0].state.running.startedAt",
                json!({"status": {"containerStatuses": [{"state": {"running": {"startedAt": wrong}}}]}}),
            ),
            (
                "apps/v1beta1",
                "Deployment",
                "status.conditions[0].lastUpdateTime",
                json!({"status": {"conditions": [{"lastUpdateTime": wrong}]}}),
            ),
            (
                "meta.k8s.io/v1",
                "PartialObjectMetadata",
                "metadata.deletionTimestamp",
                json!({"metadata": {"deletionTimestamp": wrong}}),
            ),
        ] {
            let expected = WrongTime { path: path.to_owned(), why: day.to_owned() };
            assert_eq!(told(api_version, kind, &object), Some(expected), "{object}");
        }
        let micro = told("coordination.k8s.io/v1", "Lease", &json!({"spec": {"renewTime": "2026-01-01T00:00:00Z"}}));
        assert!(micro.unwrap().why.ends_with(r#"cannot parse "Z" as ".000000""#));
        for (api_version, kind, object) in [
            (
                "v1",
                "Pod",
                json!({"metadata": {"creationTimestamp": "2026-01-01T00:00:00Z", "annotations": {"a": wrong}}}),
            ),
            ("v1", "Pod", json!({"metadata": {"creationTimestamp": null, "deletionTimestamp": 5}})),
            ("v1", "ConfigMap", json!({"data": {"creationTimestamp": wrong}})),
            ("coordination.k8s.io/v1", "Lease", json!({"spec": {"renewTime": "2026-01-01T00:00:00.000001Z"}})),
            ("example.com/v1", "Thing", json!({"metadata": {"creationTimestamp": wrong}})),
        ] {
            assert_eq!(told(api_version, kind, &object), None, "{object}");
        }
    }

    #[test]
    fn most_documents_need_not_be_looked_at() {
        let plain = json!({"metadata": {"resourceVersion": "20260101", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"nodeName": "10.0.0.1", "containers": [{"image": "1234/a:2026"}]}});
        for (text, may_have) in [
            (plain.to_string(), false),
            ("\"".to_owned(), false),
            ("\"20260101T00".to_owned(), true),
            (r#"{"a":"\u0032026-01-01 00:00:00Z"}"#.to_owned(), true),
        ] {
            assert_eq!(may_have_wrong_time("v1", "Pod", text.as_bytes()), may_have, "{text}");
        }
    }
}
