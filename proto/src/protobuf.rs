//! Kubernetes' protobuf as JSON: bodies that typed clients send.
//!
//! client-go's typed clients, and kubectl's commands that are built on them (`create`, `scale`, …), send objects of built-in
//! kinds as protobuf and take JSON in answer. A body is `k8s\0` and a `runtime.Unknown` around the object's own message.
//! Objects are decoded to JSON by tables of field numbers, one file an API group below `protobuf/wire/`, so that from here
//! on there is one way of reading objects only.
//!
//! ```text
//! package io.k8s.api.core.v1
//! Volume                          a message; its fields follow as `number name type;`
//!   1 name s; 2 ^ VolumeSource;   `^`: in JSON the message's fields stand in place of itself
//!
//! s text   i integer   b boolean   f double   y bytes
//! `?`: a pointer in Go, whose zero counts as said   `!`: without `omitempty`, so that Go's JSON has its zero too
//! [T] list   {T} map from texts   Name: a message of this package   pkg.Name: of another
//! ```
//!
//! Go's encoder writes zeros of fields that are no pointers although nobody said them; they are left out here where Go's
//! JSON leaves them out, so that an object is the same one whichever way it came.

use std::{collections::HashMap, sync::LazyLock};

use jiff::Timestamp;
use k8s_openapi::ByteString;
use serde_json::{Map, Value};

use crate::resource::RESOURCES;

/// What every body begins with.
pub const MAGIC: &[u8; 4] = b"k8s\0";

/// The media type of such bodies, and of what is in them.
pub const MEDIA: &str = "application/vnd.kubernetes.protobuf";

/// Messages may be nested this deep; Kubernetes' own go down to about twenty.
const MAX_DEPTH: u32 = 64;

/// Why bytes are not an object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// They do not begin as Kubernetes' protobuf does.
    #[error("the body is not Kubernetes' protobuf: it does not begin with k8s\\0")]
    Magic,
    /// They are not protobuf, or not of the kind.
    #[error("{path}: {why}")]
    Malformed {
        /// The field, from the kind's name on.
        path: String,
        /// What is wrong there.
        why: &'static str,
    },
    /// A kind there is no table for.
    #[error("objects of {api_version:?}, kind {kind:?} are not taken as protobuf")]
    UnknownKind {
        /// Its group and version.
        api_version: String,
        /// The kind.
        kind: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Type {
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
const SCHEMA: &str = "io.k8s.api.apiextensions.v1.JSONSchemaProps";

#[derive(Debug)]
struct Field {
    number: u64,
    /// `None`: the message's fields stand in place of itself.
    name: Option<&'static str>,
    content: Type,
}

type Tables = HashMap<String, Vec<Field>>;

const FILES: &[&str] = &[
    include_str!("protobuf/wire/admissionregistration.txt"),
    include_str!("protobuf/wire/apiextensions.txt"),
    include_str!("protobuf/wire/apiregistration.txt"),
    include_str!("protobuf/wire/apps.txt"),
    include_str!("protobuf/wire/authentication.txt"),
    include_str!("protobuf/wire/authorization.txt"),
    include_str!("protobuf/wire/autoscaling.txt"),
    include_str!("protobuf/wire/autoscaling2.txt"),
    include_str!("protobuf/wire/batch.txt"),
    include_str!("protobuf/wire/certificates.txt"),
    include_str!("protobuf/wire/coordination.txt"),
    include_str!("protobuf/wire/core.txt"),
    include_str!("protobuf/wire/discovery.txt"),
    include_str!("protobuf/wire/events.txt"),
    include_str!("protobuf/wire/flowcontrol.txt"),
    include_str!("protobuf/wire/meta.txt"),
    include_str!("protobuf/wire/networking.txt"),
    include_str!("protobuf/wire/node.txt"),
    include_str!("protobuf/wire/policy.txt"),
    include_str!("protobuf/wire/rbac.txt"),
    include_str!("protobuf/wire/resource.txt"),
    include_str!("protobuf/wire/scheduling.txt"),
    include_str!("protobuf/wire/storage.txt"),
];

static TABLES: LazyLock<Tables> = LazyLock::new(|| FILES.iter().flat_map(|file| read_table(file)).collect());

fn read_table(text: &'static str) -> Tables {
    let mut lines = text.lines();
    let package = lines.next().and_then(|line| line.strip_prefix("package ")).unwrap_or_default();
    let mut tables = Tables::new();
    let mut message = String::new();
    for line in lines {
        if !line.starts_with(' ') {
            message = format!("{package}.{line}");
            continue;
        }
        for item in line.split(';') {
            let mut words = item.split_whitespace();
            let (Some(number), Some(name), Some(content)) = (words.next(), words.next(), words.next()) else {
                continue;
            };
            let Ok(number) = number.parse() else { continue };
            let field = Field { number, name: (name != "^").then_some(name), content: read_type(content, package) };
            tables.entry(message.clone()).or_default().push(field);
        }
    }
    tables
}

fn read_type(word: &str, package: &str) -> Type {
    let inside = |open: char, close: char| word.strip_prefix(open).and_then(|rest| rest.strip_suffix(close));
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
    ("networking.k8s.io", "networking"),
    ("node.k8s.io", "node"),
    ("policy", "policy"),
    ("rbac.authorization.k8s.io", "rbac"),
    ("scheduling.k8s.io", "scheduling"),
    ("storage.k8s.io", "storage"),
];

/// Kinds of meta/v1 that every group, whosever it is, takes as its own.
const SHARED: &[&str] =
    &["CreateOptions", "DeleteOptions", "GetOptions", "ListOptions", "PatchOptions", "UpdateOptions"];

/// The name of a kind's message, if there is a table for it: `io.k8s.api.networking.v1.Ingress`.
fn message_of(api_version: &str, kind: &str) -> Option<String> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let built_in =
        || RESOURCES.iter().any(|resource| resource.group == group).then(|| group.split('.').next()).flatten();
    let package = GROUPS.iter().find(|(own, _)| *own == group).map(|(_, package)| *package).or_else(built_in);
    let own = package.map(|package| format!("io.k8s.api.{package}.{version}.{kind}"));
    let shared = SHARED.contains(&kind).then(|| format!("meta.v1.{kind}"));
    [own, shared].into_iter().flatten().find(|name| TABLES.contains_key(name))
}

/// A protobuf body as the JSON of its object, with `apiVersion` and `kind`.
///
/// # Errors
/// [`Error`]; whatever the bytes are, nothing panics, and what is allocated is in proportion to them.
pub fn to_json(body: &[u8]) -> Result<Value, Error> {
    let envelope = body.strip_prefix(MAGIC.as_slice()).ok_or(Error::Magic)?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    let mut reader = Reader { rest: envelope };
    let mut at = Path::new("Unknown");
    while let Some((number, wire)) = reader.field(&at)? {
        match (number, wire) {
            (1, Wire::Bytes(bytes)) => {
                let mut reader = Reader { rest: bytes };
                while let Some((number, wire)) = reader.field(&at)? {
                    match (number, wire) {
                        (1, Wire::Bytes(bytes)) => api_version = text(bytes, &at)?,
                        (2, Wire::Bytes(bytes)) => kind = text(bytes, &at)?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(bytes)) => raw = bytes,
            (3, Wire::Bytes(encoding)) if !encoding.is_empty() => return Err(at.wrong("the content is encoded")),
            (4, Wire::Bytes(media)) if !media.is_empty() && media != MEDIA.as_bytes() => {
                return Err(at.wrong("the content is not protobuf"));
            }
            _ => {}
        }
    }
    let message = message_of(&api_version, &kind)
        .ok_or_else(|| Error::UnknownKind { api_version: api_version.clone(), kind: kind.clone() })?;
    at = Path::new(&kind);
    let mut object = Map::new();
    object.insert("apiVersion".to_owned(), api_version.into());
    object.insert("kind".to_owned(), kind.into());
    read_message(&message, raw, &mut object, &mut at)?;
    Ok(Value::Object(object))
}

/// Where in the object the reader is.
struct Path {
    names: Vec<String>,
}

impl Path {
    fn new(kind: &str) -> Self {
        Self { names: vec![kind.to_owned()] }
    }

    fn wrong(&self, why: &'static str) -> Error {
        Error::Malformed { path: self.names.join("."), why }
    }
}

enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32,
}

/// Reads fields off protobuf's wire format (protobuf.dev, "Encoding").
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn varint(&mut self, at: &Path) -> Result<u64, Error> {
        let mut value = 0_u64;
        for (index, byte) in self.rest.iter().enumerate().take(10) {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                self.rest = self.rest.get(index + 1..).unwrap_or_default();
                return Ok(value);
            }
        }
        Err(at.wrong("a number is cut short or too long"))
    }

    fn take(&mut self, length: u64, at: &Path) -> Result<&'a [u8], Error> {
        let split = usize::try_from(length).ok().and_then(|length| self.rest.split_at_checked(length));
        let (taken, rest) = split.ok_or_else(|| at.wrong("the content is cut short"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn field(&mut self, at: &Path) -> Result<Option<(u64, Wire<'a>)>, Error> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint(at)?;
        let wire = match tag & 7 {
            0 => Wire::Varint(self.varint(at)?),
            1 => {
                let bytes = self.take(8, at)?;
                Wire::Fixed64(bytes.try_into().map(u64::from_le_bytes).unwrap_or_default())
            }
            2 => {
                let length = self.varint(at)?;
                Wire::Bytes(self.take(length, at)?)
            }
            5 => {
                self.take(4, at)?;
                Wire::Fixed32
            }
            _ => return Err(at.wrong("a field is of no wire type there is")),
        };
        match tag >> 3 {
            0 => Err(at.wrong("a field has the number 0")),
            number => Ok(Some((number, wire))),
        }
    }
}

fn text(bytes: &[u8], at: &Path) -> Result<String, Error> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| at.wrong("a text is not UTF-8"))
}

/// Reads a message's fields into `object`.
fn read_message(message: &str, bytes: &[u8], object: &mut Map<String, Value>, at: &mut Path) -> Result<(), Error> {
    if at.names.len() > MAX_DEPTH as usize {
        return Err(at.wrong("the object is nested too deeply"));
    }
    let Some(fields) = TABLES.get(message) else { return Err(at.wrong("nothing is known of the message")) };
    let mut reader = Reader { rest: bytes };
    while let Some((number, wire)) = reader.field(at)? {
        // Fields of a newer Kubernetes are passed over, as protobuf has it.
        let Some(field) = fields.iter().find(|field| field.number == number) else { continue };
        let Some(name) = field.name else {
            if let (Type::Message(inner), Wire::Bytes(bytes)) = (&field.content, wire) {
                at.names.push(String::new());
                read_message(inner, bytes, object, at)?;
                at.names.pop();
            }
            continue;
        };
        at.names.push(name.to_owned());
        read_field(&field.content, wire, name, object, at)?;
        at.names.pop();
    }
    Ok(())
}

fn read_field(
    content: &Type,
    wire: Wire<'_>,
    name: &str,
    object: &mut Map<String, Value>,
    at: &mut Path,
) -> Result<(), Error> {
    match content {
        Type::List(element) => {
            let mut items = match object.remove(name) {
                Some(Value::Array(items)) => items,
                _ => Vec::new(),
            };
            match (element.as_ref(), wire) {
                // Numbers may come packed.
                (Type::Integer { .. }, Wire::Bytes(bytes)) => {
                    let mut reader = Reader { rest: bytes };
                    while !reader.rest.is_empty() {
                        items.push(signed(reader.varint(at)?).into());
                    }
                }
                (element, wire) => items.push(read_value(element, wire, at)?.unwrap_or_default()),
            }
            object.insert(name.to_owned(), items.into());
        }
        Type::Map(value) => {
            let Wire::Bytes(bytes) = wire else { return Err(at.wrong("a map's entry is no message")) };
            let (mut key, mut found) = (String::new(), None);
            let mut reader = Reader { rest: bytes };
            while let Some((number, wire)) = reader.field(at)? {
                match (number, wire) {
                    (1, Wire::Bytes(bytes)) => key = text(bytes, at)?,
                    (2, wire) => found = read_value(value, wire, at)?,
                    _ => {}
                }
            }
            let entries = object.entry(name.to_owned()).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(entries) = entries {
                entries.insert(key, found.unwrap_or_else(|| zero(value)));
            }
        }
        _ => {
            let value = read_value(content, wire, at)?;
            match value.filter(|value| !is_unsaid(content, value)) {
                Some(value) => object.insert(name.to_owned(), value),
                None => object.remove(name),
            };
        }
    }
    Ok(())
}

/// What a map's entry without a value means.
fn zero(content: &Type) -> Value {
    match content {
        Type::Text { .. } | Type::Bytes => "".into(),
        Type::Quantity => "0".into(),
        Type::Items => Value::Array(Vec::new()),
        _ => Value::Object(Map::new()),
    }
}

/// Whether a value is the zero that Go writes for what nobody said.
fn is_unsaid(content: &Type, value: &Value) -> bool {
    match content {
        Type::Text { keeps_zero: false } => value == "",
        Type::Integer { keeps_zero: false } => *value == 0,
        Type::Boolean { keeps_zero: false } => *value == false,
        Type::Quantity => value == "",
        _ => false,
    }
}

/// A varint as the signed number it is in every type of Kubernetes'.
const fn signed(value: u64) -> i64 {
    value.cast_signed()
}

fn read_value(content: &Type, wire: Wire<'_>, at: &mut Path) -> Result<Option<Value>, Error> {
    Ok(Some(match (content, wire) {
        (Type::Text { .. }, Wire::Bytes(bytes)) => text(bytes, at)?.into(),
        (Type::Integer { .. }, Wire::Varint(value)) => signed(value).into(),
        (Type::Boolean { .. }, Wire::Varint(value)) => (value != 0).into(),
        (Type::Double, Wire::Fixed64(bits)) => f64::from_bits(bits).into(),
        (Type::Bytes, Wire::Bytes(bytes)) => {
            serde_json::to_value(ByteString(bytes.to_vec())).map_err(|_| at.wrong("bytes cannot be written"))?
        }
        (Type::Message(inner), Wire::Bytes(bytes)) => {
            let mut object = Map::new();
            read_message(inner, bytes, &mut object, at)?;
            object.into()
        }
        (Type::Time, Wire::Bytes(bytes)) => return time(bytes, at, |t| t.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
        (Type::MicroTime, Wire::Bytes(bytes)) => {
            return time(bytes, at, |t| t.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string());
        }
        (Type::Duration, Wire::Bytes(bytes)) => {
            let nanoseconds = numbers(bytes, at)?.first().copied().unwrap_or_default();
            format!("{nanoseconds}ns").into()
        }
        (Type::Quantity, Wire::Bytes(bytes)) => first_text(bytes, 1, at)?.into(),
        (Type::IntOrString, Wire::Bytes(bytes)) => match numbers(bytes, at)?.as_slice() {
            [1, ..] => first_text(bytes, 3, at)?.into(),
            [_, number, ..] => (*number).into(),
            _ => 0.into(),
        },
        (Type::Raw, Wire::Bytes(bytes)) => match first_bytes(bytes, 1, at)? {
            [] => return Ok(None),
            json => {
                crate::json::parse(json).map(|(value, _)| value).map_err(|_| at.wrong("the JSON inside is none"))?
            }
        },
        (Type::Items, Wire::Bytes(bytes)) => {
            let (mut reader, mut items) = (Reader { rest: bytes }, Vec::new());
            while let Some((number, wire)) = reader.field(at)? {
                if let (1, Wire::Bytes(bytes)) = (number, wire) {
                    items.push(Value::from(text(bytes, at)?));
                }
            }
            items.into()
        }
        (Type::SchemaOrArray, Wire::Bytes(bytes)) => {
            let (mut reader, mut items) = (Reader { rest: bytes }, Vec::new());
            while let Some((number, wire)) = reader.field(at)? {
                match (number, wire) {
                    (1, Wire::Bytes(bytes)) => return schema(bytes, at).map(Some),
                    (2, Wire::Bytes(bytes)) => items.push(schema(bytes, at)?),
                    _ => {}
                }
            }
            items.into()
        }
        (Type::SchemaOrBool, Wire::Bytes(bytes)) => {
            let (mut reader, mut allows) = (Reader { rest: bytes }, false);
            while let Some((number, wire)) = reader.field(at)? {
                match (number, wire) {
                    (1, Wire::Varint(value)) => allows = value != 0,
                    (2, Wire::Bytes(bytes)) => return schema(bytes, at).map(Some),
                    _ => {}
                }
            }
            allows.into()
        }
        _ => return Err(at.wrong("the field is of another type")),
    }))
}

/// A schema within a schema.
fn schema(bytes: &[u8], at: &mut Path) -> Result<Value, Error> {
    let mut object = Map::new();
    at.names.push(String::new());
    read_message(SCHEMA, bytes, &mut object, at)?;
    at.names.pop();
    Ok(object.into())
}

/// The first two varint fields of a small message, those not there as 0.
fn numbers(bytes: &[u8], at: &Path) -> Result<[i64; 2], Error> {
    let (mut reader, mut found) = (Reader { rest: bytes }, [0; 2]);
    while let Some((number, wire)) = reader.field(at)? {
        if let Wire::Varint(value) = wire
            && let Some(slot) = usize::try_from(number - 1).ok().and_then(|index| found.get_mut(index))
        {
            *slot = signed(value);
        }
    }
    Ok(found)
}

fn first_bytes<'a>(bytes: &'a [u8], wanted: u64, at: &Path) -> Result<&'a [u8], Error> {
    let mut reader = Reader { rest: bytes };
    while let Some((number, wire)) = reader.field(at)? {
        if let (true, Wire::Bytes(bytes)) = (number == wanted, wire) {
            return Ok(bytes);
        }
    }
    Ok(&[])
}

fn first_text(bytes: &[u8], wanted: u64, at: &Path) -> Result<String, Error> {
    text(first_bytes(bytes, wanted, at)?, at)
}

/// A time; the zero time is none.
fn time(bytes: &[u8], at: &Path, show: impl FnOnce(Timestamp) -> String) -> Result<Option<Value>, Error> {
    let [seconds, nanoseconds] = numbers(bytes, at)?;
    if seconds == 0 && nanoseconds == 0 {
        return Ok(None);
    }
    let nanoseconds = i32::try_from(nanoseconds).map_err(|_| at.wrong("a time has too many nanoseconds"))?;
    let time = Timestamp::new(seconds, nanoseconds).map_err(|_| at.wrong("a time is out of range"))?;
    Ok(Some(show(time).into()))
}

#[cfg(test)]
mod tests;
