//! From JSON to protobuf: Kubernetes' JSON becomes the crate's message, and that its bytes.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use prost::{
    Message as _,
    encoding::{WireType, encode_key, encode_varint, message},
};
use prost_reflect::{DynamicMessage, FieldDescriptor, Value as Held};
use serde::Deserialize as _;
use serde_json::{Map, Value};

use super::{
    Error, MAGIC,
    descriptors::{Member, Message},
    messages::{Raw, TypeMeta, Unknown, WatchEvent},
    table::{Type, message_of},
};
use crate::go_duration;

/// An object's JSON as a protobuf body. Fields that its kind does not have are left out.
///
/// # Errors
/// [`Error::UnknownKind`] for a kind there is no table for, [`Error::Malformed`] for a field that is of another type.
pub fn from_json(object: &Value) -> Result<Vec<u8>, Error> {
    let word = |name: &str| object.get(name).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (word("apiVersion"), word("kind"));
    let held = hold(message_named(api_version, kind)?, object).map_err(|error| error.within(kind))?;
    let mut out = begin(api_version, kind);
    // (Bytes that are a message are written as that message.)
    message::encode(2, &held, &mut out);
    end(&mut out);
    Ok(out)
}

fn message_named(api_version: &str, kind: &str) -> Result<&'static Message, Error> {
    let name = message_of(api_version, kind);
    name.and_then(|name| Message::named(&name)).ok_or_else(|| Error::unknown(api_version, kind))
}

/// The head of a `runtime.Unknown`: which kind it holds. What is written of a message one part after the other is one
/// message.
fn begin(api_version: &str, kind: &str) -> Vec<u8> {
    let type_meta = TypeMeta { api_version: Some(api_version.to_owned()), kind: Some(kind.to_owned()) };
    let head = Unknown { type_meta: Some(type_meta), ..Unknown::default() };
    [MAGIC.as_slice(), &head.encode_to_vec()].concat()
}

/// Its end: the content is protobuf, and not encoded further.
fn end(out: &mut Vec<u8>) {
    let (content_encoding, content_type) = (Some(String::new()), Some(String::new()));
    out.extend(Unknown { content_encoding, content_type, ..Unknown::default() }.encode_to_vec());
}

/// A list, written item by item, so that only one item at a time is there as JSON and as a message as well.
pub struct List {
    head: Vec<u8>,
    /// The list's own message.
    content: Vec<u8>,
    item: &'static Message,
    /// The number of the items.
    items: u32,
}

impl List {
    /// Begins a list: of which kind it is, its metadata, the version and kind of its items, and about how many bytes it will
    /// have.
    ///
    /// # Errors
    /// [`Error::UnknownKind`] for a kind there is no table for.
    pub fn new(list: (&str, &str), meta: &Value, item: (&str, &str), size: usize) -> Result<Self, Error> {
        let item = message_named(item.0, item.1)?;
        let message = message_named(list.0, list.1)?;
        let member = |name: &str| message.members.iter().find(|member| member.field.name == Some(name));
        let (metadata, items) =
            member("metadata").zip(member("items")).ok_or_else(|| Error::unknown(list.0, list.1))?;
        let mut content = Vec::with_capacity(size);
        if let Some(inner) = metadata.inner() {
            message::encode(metadata.field.number, &hold(inner, meta)?, &mut content);
        }
        Ok(Self { head: begin(list.0, list.1), content, item, items: items.field.number })
    }

    /// Adds an object.
    ///
    /// # Errors
    /// [`Error::Malformed`] for a field that is of another type.
    pub fn push(&mut self, object: &Value) -> Result<(), Error> {
        let item = hold(self.item, object).map_err(|error| error.within("items"))?;
        message::encode(self.items, &item, &mut self.content);
        Ok(())
    }

    /// The list's body.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        let Self { mut head, mut content, .. } = self;
        encode_key(2, WireType::LengthDelimited, &mut head);
        encode_varint(content.len() as u64, &mut head);
        end(&mut content);
        content.splice(0..0, head);
        content
    }
}

/// Appends an event of a watch about an object's body: a `WatchEvent` behind its length in four bytes, the highest first.
///
/// # Errors
/// [`Error::Malformed`] beyond four gigabytes.
pub fn write_event(kind: &str, object: Vec<u8>, out: &mut Vec<u8>) -> Result<(), Error> {
    let event = WatchEvent { kind: Some(kind.to_owned()), object: Some(Raw { raw: Some(object.into()) }) };
    let length = u32::try_from(event.encoded_len()).map_err(|_| Error::wrong("the event is too large"))?;
    out.extend_from_slice(&length.to_be_bytes());
    event.encode(out).map_err(|_| Error::wrong("the event is too large"))
}

fn mismatch() -> Error {
    Error::wrong("the field is of another type")
}

/// The message of a JSON object; null is one without fields.
fn hold(message: &'static Message, object: &Value) -> Result<DynamicMessage, Error> {
    match object {
        Value::Object(object) => hold_fields(message, object),
        Value::Null => hold_fields(message, &Map::new()),
        _ => Err(Error::wrong("the field is no object")),
    }
}

fn hold_fields(message: &'static Message, object: &Map<String, Value>) -> Result<DynamicMessage, Error> {
    let mut held = DynamicMessage::new(message.descriptor.clone());
    for member in &message.members {
        let Some(name) = member.field.name else {
            // Its fields stand in its place.
            if let Some(inner) = member.inner() {
                set(&mut held, &member.descriptor, written(&hold_fields(inner, object)?))?;
            }
            continue;
        };
        let content = &member.field.content;
        let value = match object.get(name) {
            None | Some(Value::Null) if member.field.is_value => hold_value(content, member, &Value::Null),
            None | Some(Value::Null) => continue,
            Some(value) => hold_value(content, member, value),
        };
        value.and_then(|value| set(&mut held, &member.descriptor, value)).map_err(|error| error.within(name))?;
    }
    Ok(held)
}

/// A message as what is around it holds it. (How long it will be is not asked first: that takes as long as writing it.)
fn written(message: &DynamicMessage) -> Held {
    let mut bytes = Vec::new();
    message.encode_raw(&mut bytes);
    Held::Bytes(bytes.into())
}

/// Sets a field; a message's bytes are the first of those it may have.
fn set(held: &mut DynamicMessage, field: &FieldDescriptor, value: Held) -> Result<(), Error> {
    let value = match value {
        value @ Held::Bytes(_) if field.is_list() => Held::List(vec![value]),
        value => value,
    };
    held.try_set_field(field, value).map_err(|_| mismatch())
}

/// A field's value, or one in its list or map; null is the type's zero.
fn hold_value(content: &Type, member: &'static Member, value: &Value) -> Result<Held, Error> {
    Ok(match (content, value) {
        (Type::Text { .. }, Value::String(text)) => Held::String(text.clone()),
        (Type::Text { .. }, Value::Null) => Held::String(String::new()),
        (Type::Integer { .. }, Value::Number(n)) => Held::I64(n.as_i64().ok_or_else(mismatch)?),
        (Type::Integer { .. }, Value::Null) => Held::I64(0),
        (Type::Boolean { .. }, Value::Bool(value)) => Held::Bool(*value),
        (Type::Boolean { .. }, Value::Null) => Held::Bool(false),
        (Type::Double, Value::Number(n)) => Held::F64(n.as_f64().unwrap_or_default()),
        (Type::Bytes, value @ (Value::String(_) | Value::Null)) => {
            let bytes = Option::<ByteString>::deserialize(value).map_err(|_| mismatch())?;
            Held::Bytes(bytes.unwrap_or_default().0.into())
        }
        (Type::List(element), Value::Array(items)) => {
            Held::List(items.iter().map(|item| hold_value(element, member, item)).collect::<Result<_, _>>()?)
        }
        (Type::Map(content), Value::Object(entries)) => {
            // Go's encoder sorts them by their bytes.
            let entries: BTreeMap<&str, &Value> = entries.iter().map(|(key, value)| (key.as_str(), value)).collect();
            let entry = |(key, value)| hold_entry(content, member, key, value).map_err(|error| error.within(key));
            Held::List(entries.into_iter().map(entry).collect::<Result<_, _>>()?)
        }
        (Type::Message(_), value) => written(&hold(member.inner().ok_or_else(mismatch)?, value)?),
        (content, value) => written(&hold_single(content, member, value)?),
    })
}

/// An entry of a map.
fn hold_entry(content: &Type, member: &'static Member, key: &str, value: &Value) -> Result<Held, Error> {
    let fields = member.entry.as_ref().ok_or_else(mismatch)?;
    let mut entry = DynamicMessage::new(fields.descriptor.clone());
    set(&mut entry, &fields.key, Held::String(key.to_owned()))?;
    set(&mut entry, &fields.value, hold_value(content, member, value)?)?;
    Ok(written(&entry))
}

/// A message that is a single value in JSON.
fn hold_single(content: &Type, member: &'static Member, value: &Value) -> Result<DynamicMessage, Error> {
    let message = member.inner().ok_or_else(mismatch)?;
    let mut held = DynamicMessage::new(message.descriptor.clone());
    let mut set = |member: &Member, value| set(&mut held, &member.descriptor, value);
    match (content, message.members.as_slice(), value) {
        (Type::Time | Type::MicroTime | Type::Raw, _, Value::Null) => {}
        (Type::Time, [seconds, nanos], Value::String(text)) => {
            set(seconds, Held::I64(time(text)?.as_second()))?;
            set(nanos, Held::I64(0))?;
        }
        (Type::MicroTime, [seconds, nanos], Value::String(text)) => {
            let time = time(text)?;
            set(seconds, Held::I64(time.as_second()))?;
            // Go's JSON has no more than microseconds.
            set(nanos, Held::I64(i64::from(time.subsec_nanosecond() / 1000 * 1000)))?;
        }
        (Type::Duration, [nanos], Value::String(text)) => {
            let duration = go_duration::parse(text).map_err(|_| Error::wrong("the field is no duration"))?;
            // What is read so has no more nanoseconds than these.
            set(nanos, Held::I64(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)))?;
        }
        (Type::Duration, [nanos], Value::Null) => set(nanos, Held::I64(0))?,
        (Type::Quantity, [amount], Value::String(text)) => set(amount, Held::String(text.clone()))?,
        (Type::Quantity, [amount], Value::Number(n)) => set(amount, Held::String(n.to_string()))?,
        (Type::Quantity, [amount], Value::Null) => set(amount, Held::String("0".to_owned()))?,
        (Type::IntOrString, [kind, number, text], value) => {
            let (says, n, word) = match value {
                Value::Number(n) => (0, n.as_i64().filter(|n| i32::try_from(*n).is_ok()).ok_or_else(mismatch)?, ""),
                Value::String(text) => (1, 0, text.as_str()),
                Value::Null => (0, 0, ""),
                _ => return Err(mismatch()),
            };
            set(kind, Held::I64(says))?;
            set(number, Held::I64(n))?;
            set(text, Held::String(word.to_owned()))?;
        }
        (Type::Raw, [raw], value) => set(raw, Held::Bytes(value.to_string().into()))?,
        (Type::Items, [items], value @ Value::Array(_)) => set(items, hold_value(&items.field.content, items, value)?)?,
        (Type::SchemaOrArray, [_, schemas], value @ Value::Array(_)) => {
            set(schemas, hold_value(&schemas.field.content, schemas, value)?)?;
        }
        (Type::SchemaOrArray, [schema, _], value @ Value::Object(_)) => {
            set(schema, hold_value(&schema.field.content, schema, value)?)?;
        }
        (Type::SchemaOrBool, [allows, _], Value::Bool(value)) => set(allows, Held::Bool(*value))?,
        (Type::SchemaOrBool, [allows, schema], value @ Value::Object(_)) => {
            set(allows, Held::Bool(true))?;
            set(schema, hold_value(&schema.field.content, schema, value)?)?;
        }
        _ => return Err(mismatch()),
    }
    Ok(held)
}

fn time(text: &str) -> Result<Timestamp, Error> {
    text.parse().map_err(|_| Error::wrong("the field is no time"))
}
