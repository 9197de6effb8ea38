//! Words and columns that several kinds' tables share.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::Container,
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{LabelSelector, ObjectMeta},
    },
};

use super::blank::{list, text};
use crate::kind::{Column, NAME, human_duration};

/// What a cell says when there is nothing.
pub(super) const NONE: &str = "<none>";

/// What a cell says when a choice was not made.
pub(super) const UNSET: &str = "<unset>";

/// A column that is always shown.
pub(super) const fn column(name: &'static str, description: &'static str) -> Column {
    Column { name, kind: "string", format: "", priority: 0, description }
}

/// A column of numbers that is always shown.
pub(super) const fn integer(name: &'static str, description: &'static str) -> Column {
    Column { kind: "integer", ..column(name, description) }
}

/// A column of `-o wide`.
pub(super) const fn wide(name: &'static str, description: &'static str) -> Column {
    Column { priority: 1, ..column(name, description) }
}

/// The generic table, of kinds that have no printer of their own in Kubernetes: name and time of creation.
pub(super) const CREATED_AT: &[Column] =
    &[NAME, Column { kind: "date", ..column("Created At", crate::kind::AGE.description) }];

/// The row under [`CREATED_AT`].
pub(super) fn created_at(meta: &ObjectMeta) -> Vec<serde_json::Value> {
    let time = meta.creation_timestamp.as_ref().map(|time| time.0.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    vec![name(meta), time.into()]
}

/// The object's name.
pub(super) fn name(meta: &ObjectMeta) -> serde_json::Value {
    text(&meta.name).into()
}

/// How long ago `time` was.
pub(super) fn since(time: Option<Timestamp>, now: Timestamp) -> String {
    time.map_or_else(|| "<unknown>".to_owned(), |time| human_duration(now.duration_since(time).as_secs()))
}

/// The text, or `<none>`.
pub(super) fn or_none(text: &str) -> &str {
    if text.is_empty() { NONE } else { text }
}

/// How much is stored, or can be: `0` when the list does not say.
pub(super) fn storage(amounts: Option<&BTreeMap<String, Quantity>>) -> String {
    amounts.and_then(|list| list.get("storage")).map_or_else(|| "0".to_owned(), |quantity| quantity.0.clone())
}

/// Labels as `a=b,c=d`, or `<none>`.
pub(super) fn labels(labels: Option<&BTreeMap<String, String>>) -> String {
    let pairs: Vec<String> = labels.into_iter().flatten().map(|(key, value)| format!("{key}={value}")).collect();
    or_none(&pairs.join(",")).to_owned()
}

/// Names and images of the containers, each joined by commas.
pub(super) fn containers(containers: &[Container]) -> (String, String) {
    let names: Vec<&str> = containers.iter().map(|c| c.name.as_str()).collect();
    let images: Vec<&str> = containers.iter().map(|c| text(&c.image)).collect();
    (names.join(","), images.join(","))
}

/// A label selector as text: `a=b,c in (d,e),f,!g`; empty when it selects everything.
pub(super) fn selector(selector: &LabelSelector) -> String {
    let mut requirements: Vec<(&str, String)> = Vec::new();
    for (key, value) in selector.match_labels.iter().flatten() {
        requirements.push((key, format!("{key}={value}")));
    }
    for expression in list(&selector.match_expressions) {
        let key = expression.key.as_str();
        let mut values: Vec<&str> = list(&expression.values).iter().map(String::as_str).collect();
        values.sort_unstable();
        let values = values.join(",");
        let text = match expression.operator.as_str() {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            "DoesNotExist" => format!("!{key}"),
            _ => return "<invalid>".to_owned(),
        };
        requirements.push((key, text));
    }
    requirements.sort_by(|a, b| a.0.cmp(b.0));
    requirements.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join(",")
}

/// The object's name, and that it is the default where the annotation says so.
pub(super) fn marked_name(meta: &ObjectMeta, annotation: &str) -> serde_json::Value {
    let is_default = meta.annotations.as_ref().and_then(|a| a.get(annotation)).is_some_and(|value| value == "true");
    let name = text(&meta.name);
    if is_default { format!("{name} (default)").into() } else { name.into() }
}

/// The first three of a list, and how many more there are; `<unset>` for none.
pub(super) fn first_three<T: AsRef<str>>(items: &[T]) -> String {
    let shown = items.iter().take(3).map(AsRef::as_ref).collect::<Vec<_>>().join(",");
    match items.len() {
        0 => "<unset>".to_owned(),
        1..=3 => shown,
        more => format!("{shown} + {} more...", more - 3),
    }
}

/// A column of booleans that is always shown.
pub(super) const fn boolean(name: &'static str, description: &'static str) -> Column {
    Column { kind: "boolean", ..column(name, description) }
}
