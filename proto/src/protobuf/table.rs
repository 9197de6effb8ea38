//! The tables: which field of which message has which number and type.
//!
//! ```text
//! package io.k8s.api.core.v1
//! Volume                          a message; its fields follow as `number name type;`
//!   1 name s; 2 ^ VolumeSource;   `^`: in JSON the message's fields stand in place of itself
//!
//! s text   i integer   b boolean   f double   y bytes
//! [T] list   {T} map from texts   Name: a message of this package   pkg.Name: of another
//!
//! of s, i and b:  `?`: a pointer in Go, whose zero counts as said   `!`: without `omitempty`, so that Go's JSON has its zero
//! of lists, maps and y: `!`: without `omitempty`, so that Go's JSON has it though it is empty
//! of others:      `!`: no pointer in Go, so that its protobuf always has it
//! ```

use std::{collections::HashMap, sync::LazyLock};

use crate::resource::{RESOURCES, old};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Text {
        keeps_zero: bool,
    },
    Integer {
        keeps_zero: bool,
    },
    Boolean {
        keeps_zero: bool,
    },
    Double,
    Bytes,
    List(Box<Type>),
    Map(Box<Type>),
    Message(String),
    Time,
    MicroTime,
    /// A text in JSON, as Go writes durations.
    Duration,
    Quantity,
    IntOrString,
    /// JSON inside.
    Raw,
    /// A list of texts in a message of its own.
    Items,
    /// A schema, or several.
    SchemaOrArray,
    /// A schema, or whether anything is allowed.
    SchemaOrBool,
}

/// The message of schemas, which hold schemas.
pub(super) const SCHEMA: &str = "io.k8s.api.apiextensions.v1.JSONSchemaProps";

#[derive(Debug)]
pub(super) struct Field {
    pub(super) number: u32,
    /// `None`: the message's fields stand in place of itself.
    pub(super) name: Option<&'static str>,
    pub(super) content: Type,
    /// Whether Go has the value itself there, which is written even if it is zero.
    pub(super) is_value: bool,
    /// Whether Go's JSON has it though it is an empty list, map or text of bytes.
    pub(super) keeps_empty: bool,
}

pub(super) type Tables = HashMap<String, Vec<Field>>;

const FILES: &[&str] = &[
    include_str!("wire/admissionregistration.txt"),
    include_str!("wire/apiextensions.txt"),
    include_str!("wire/apiregistration.txt"),
    include_str!("wire/apps.txt"),
    include_str!("wire/authentication.txt"),
    include_str!("wire/authorization.txt"),
    include_str!("wire/autoscaling.txt"),
    include_str!("wire/autoscaling2.txt"),
    include_str!("wire/batch.txt"),
    include_str!("wire/certificates.txt"),
    include_str!("wire/coordination.txt"),
    include_str!("wire/core.txt"),
    include_str!("wire/discovery.txt"),
    include_str!("wire/events.txt"),
    include_str!("wire/flowcontrol.txt"),
    include_str!("wire/meta.txt"),
    include_str!("wire/meta1beta1.txt"),
    include_str!("wire/metrics.txt"),
    include_str!("wire/networking.txt"),
    include_str!("wire/node.txt"),
    include_str!("wire/policy.txt"),
    include_str!("wire/rbac.txt"),
    include_str!("wire/resource.txt"),
    include_str!("wire/scheduling.txt"),
    include_str!("wire/storage.txt"),
    // Of old versions, the messages that are not as today's.
    include_str!("wire/old/apiextensions.txt"),
    include_str!("wire/old/apps.txt"),
    include_str!("wire/old/extensions.txt"),
    include_str!("wire/old/networking.txt"),
];

pub(super) static TABLES: LazyLock<Tables> = LazyLock::new(|| read_tables(FILES));

/// The messages that are a single value in JSON, so that no names of theirs are there: those of the types from [`Type::Time`]
/// on.
pub(super) static VALUES: LazyLock<Tables> = LazyLock::new(|| read_tables(&[include_str!("wire/values.txt")]));

fn read_tables(files: &[&'static str]) -> Tables {
    let mut tables: Tables = files.iter().flat_map(|file| read_table(file)).collect();
    // Go's encoder writes fields in the order of their numbers.
    tables.values_mut().for_each(|fields| fields.sort_by_key(|field| field.number));
    tables
}

fn read_table(text: &'static str) -> Tables {
    let mut lines = text.lines();
    let package = lines.next().and_then(|line| line.strip_prefix("package ")).unwrap_or_default();
    let mut tables = Tables::new();
    let mut message = String::new();
    for line in lines {
        if !line.starts_with(' ') {
            message = format!("{package}.{line}");
            tables.entry(message.clone()).or_default();
            continue;
        }
        for item in line.split(';') {
            let mut words = item.split_whitespace();
            let (Some(number), Some(name), Some(content)) = (words.next(), words.next(), words.next()) else {
                continue;
            };
            let Ok(number) = number.parse() else { continue };
            let kind = read_type(content, package);
            let is_value = match kind {
                Type::Text { .. } | Type::Integer { .. } | Type::Boolean { .. } => !content.ends_with('?'),
                Type::Bytes | Type::List(_) | Type::Map(_) => false,
                _ => name == "^" || content.ends_with('!'),
            };
            let keeps_empty = content.ends_with('!');
            let field = Field { number, name: (name != "^").then_some(name), content: kind, is_value, keeps_empty };
            tables.entry(message.clone()).or_default().push(field);
        }
    }
    tables
}

fn read_type(word: &str, package: &str) -> Type {
    let bare = word.trim_end_matches('!');
    let inside = |open: char, close: char| bare.strip_prefix(open).and_then(|rest| rest.strip_suffix(close));
    if let Some(element) = inside('[', ']') {
        return Type::List(Box::new(read_type(element, package)));
    }
    if let Some(value) = inside('{', '}') {
        return Type::Map(Box::new(read_type(value, package)));
    }
    let keeps_zero = word.ends_with(['?', '!']);
    match word.trim_end_matches(['?', '!']) {
        "s" => Type::Text { keeps_zero },
        "i" => Type::Integer { keeps_zero },
        "b" => Type::Boolean { keeps_zero },
        "f" => Type::Double,
        "y" => Type::Bytes,
        "Time" => Type::Time,
        "MicroTime" => Type::MicroTime,
        "Duration" => Type::Duration,
        "Quantity" => Type::Quantity,
        "IntOrString" => Type::IntOrString,
        "Raw" | "FieldsV1" => Type::Raw,
        "Items" => Type::Items,
        "OrArray" => Type::SchemaOrArray,
        "OrBool" => Type::SchemaOrBool,
        qualified if qualified.contains('.') => Type::Message(qualified.to_owned()),
        own => Type::Message(format!("{package}.{own}")),
    }
}

/// Kubernetes' own groups that have protobuf, and the packages their messages are in; with those of the built-in resources
/// that is all. Any other group, `apps.example.com` too, is somebody else's and has none.
const GROUPS: &[(&str, &str)] = &[
    ("", "core"),
    ("apps", "apps"),
    ("authentication.k8s.io", "authentication"),
    ("authorization.k8s.io", "authorization"),
    ("autoscaling", "autoscaling"),
    ("batch", "batch"),
    ("certificates.k8s.io", "certificates"),
    ("coordination.k8s.io", "coordination"),
    ("discovery.k8s.io", "discovery"),
    ("events.k8s.io", "events"),
    ("extensions", "extensions"),
    ("networking.k8s.io", "networking"),
    ("node.k8s.io", "node"),
    ("policy", "policy"),
    ("rbac.authorization.k8s.io", "rbac"),
    ("scheduling.k8s.io", "scheduling"),
    ("storage.k8s.io", "storage"),
];

/// Kinds of meta/v1 that answers are made of, in the versions they are said to be of.
const ANSWERS: &[(&str, &str)] = &[
    ("v1", "APIGroup"),
    ("v1", "APIGroupList"),
    ("v1", "APIResourceList"),
    ("v1", "APIVersions"),
    ("v1", "Status"),
    ("meta.k8s.io/v1", "PartialObjectMetadata"),
    ("meta.k8s.io/v1", "PartialObjectMetadataList"),
    // Alike in both versions.
    ("meta.k8s.io/v1beta1", "PartialObjectMetadata"),
];

/// Kinds of meta/v1 that every group, whosever it is, takes as its own.
const SHARED: &[&str] =
    &["CreateOptions", "DeleteOptions", "GetOptions", "ListOptions", "PatchOptions", "UpdateOptions"];

/// The message that a field of another stands in, though JSON does not show it: `ProbeHandler`, for `httpGet` of
/// `io.k8s.api.core.v1.Probe`. Go names it where it says which field is wrong.
#[must_use]
pub fn embedded_in(message: &str, field: &str) -> Option<&'static str> {
    TABLES.get(message)?.iter().find_map(|inlined| match (inlined.name, &inlined.content) {
        (None, Type::Message(inner)) => {
            let has_it = TABLES.get(inner)?.iter().any(|inside| inside.name == Some(field));
            has_it.then(|| inner.rsplit('.').next()).flatten()
        }
        _ => None,
    })
}

/// The name of a kind's message, if there is a table for it: `io.k8s.api.networking.v1.Ingress`.
pub(super) fn message_of(api_version: &str, kind: &str) -> Option<String> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let built_in =
        || RESOURCES.iter().any(|resource| resource.group == group).then(|| group.split('.').next()).flatten();
    let package = GROUPS.iter().find(|(own, _)| *own == group).map(|(_, package)| *package).or_else(built_in);
    let own = package.map(|package| format!("io.k8s.api.{package}.{version}.{kind}"));
    let is_shared = SHARED.contains(&kind) || ANSWERS.contains(&(api_version, kind));
    let shared = is_shared.then(|| format!("meta.v1.{kind}"));
    // Its fields have other numbers than today's.
    let old = (api_version == "meta.k8s.io/v1beta1").then(|| format!("meta.v1beta1.{kind}"));
    let of_today = || message_of_today(group, version, kind);
    [own, shared, old].into_iter().flatten().find(|name| TABLES.contains_key(name)).or_else(of_today)
}

/// The name of today's message of a kind, or of its list, that an old group and version names.
fn message_of_today(group: &str, version: &str, kind: &str) -> Option<String> {
    let mut rows = old::rows().iter().filter(|row| row.group == group && row.version == version);
    let row = rows.find(|row| row.kind == kind || row.list_kind == kind)?;
    message_of(&old::modern(group, version, row.kind)?.api_version(), kind)
}
