//! From JSON to protobuf.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use prost::{
    Message,
    encoding::{WireType, bool, double, encode_key, encode_varint, int64, message},
};
use serde::Deserialize as _;
use serde_json::{Map, Value};

use super::{
    Error, MAGIC,
    messages::{IntOrString, Items, Quantity, Raw, Time, TypeMeta, Unknown, WatchEvent},
    table::{Field, SCHEMA, TABLES, Type, list_numbers, message_of},
};

/// An object's JSON as a protobuf body. Fields that its kind does not have are left out.
///
/// # Errors
/// [`Error::UnknownKind`] for a kind there is no table for, [`Error::Malformed`] for a field that is of another type.
pub fn from_json(object: &Value) -> Result<Vec<u8>, Error> {
    let word = |name: &str| object.get(name).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (word("apiVersion"), word("kind"));
    let message = message_of(api_version, kind).ok_or_else(|| Error::unknown(api_version, kind))?;
    let mut out = begin(api_version, kind);
    nested(2, &mut out, |out| write_message(&message, object, out)).map_err(|error| error.within(kind))?;
    end(&mut out);
    Ok(out)
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

/// A list, written item by item, so that only one item at a time is there as JSON as well.
pub struct List {
    head: Vec<u8>,
    /// The list's own message.
    content: Vec<u8>,
    item: String,
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
        let known = |(version, kind)| message_of(version, kind).ok_or_else(|| Error::unknown(version, kind));
        let item = known(item)?;
        let (metadata, items) = list_numbers(&known(list)?);
        let mut content = Vec::with_capacity(size);
        nested(metadata, &mut content, |out| write_message("meta.v1.ListMeta", meta, out))?;
        Ok(Self { head: begin(list.0, list.1), content, item, items })
    }

    /// Adds an object.
    ///
    /// # Errors
    /// [`Error::Malformed`] for a field that is of another type.
    pub fn push(&mut self, object: &Value) -> Result<(), Error> {
        let item = &self.item;
        nested(self.items, &mut self.content, |out| write_message(item, object, out))
            .map_err(|error| error.within("items"))
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

fn write_bytes(number: u32, bytes: &[u8], out: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// Writes a message within a message. Most are shorter than 128 bytes, so room is left for a length of one byte, and longer
/// ones are moved.
fn nested(number: u32, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>) -> Result<(), Error>) -> Result<(), Error> {
    encode_key(number, WireType::LengthDelimited, out);
    let start = out.len();
    out.push(0);
    write(out)?;
    let mut length = [0; 10];
    let mut room = length.as_mut_slice();
    encode_varint((out.len() - start - 1) as u64, &mut room);
    let taken = 10 - room.len();
    out.splice(start..=start, length.into_iter().take(taken));
    Ok(())
}

/// Writes the fields of a message, without what is around it.
fn write_message(message: &str, object: &Value, out: &mut Vec<u8>) -> Result<(), Error> {
    match object {
        Value::Object(object) => write_fields(message, object, out),
        Value::Null => write_fields(message, &Map::new(), out),
        _ => Err(Error::wrong("the field is no object")),
    }
}

fn write_fields(message: &str, object: &Map<String, Value>, out: &mut Vec<u8>) -> Result<(), Error> {
    let fields = TABLES.get(message).ok_or_else(|| Error::wrong("nothing is known of the message"))?;
    for field in fields {
        match (field.name, &field.content) {
            (Some(name), _) => {
                let value = object.get(name).filter(|value| !value.is_null());
                write_field(field, value, out).map_err(|error| error.within(name))?;
            }
            (None, Type::Message(inner)) => nested(field.number, out, |out| write_fields(inner, object, out))?,
            (None, _) => {}
        }
    }
    Ok(())
}

fn write_field(field: &Field, value: Option<&Value>, out: &mut Vec<u8>) -> Result<(), Error> {
    let number = field.number;
    match (&field.content, value) {
        (Type::List(element), Some(Value::Array(items))) => {
            items.iter().try_for_each(|item| write_value(number, element, item, out))
        }
        (Type::Map(content), Some(Value::Object(entries))) => {
            // Go's encoder sorts them by their bytes.
            let entries: BTreeMap<&str, &Value> = entries.iter().map(|(key, value)| (key.as_str(), value)).collect();
            entries.into_iter().try_for_each(|(key, value)| {
                nested(number, out, |out| {
                    write_bytes(1, key.as_bytes(), out);
                    write_value(2, content, value, out)
                })
                .map_err(|error| error.within(key))
            })
        }
        (Type::List(_) | Type::Map(_), Some(_)) => Err(Error::wrong("the field is of another type")),
        (content, Some(value)) => write_value(number, content, value, out),
        (content, None) if field.is_value => write_value(number, content, &Value::Null, out),
        (_, None) => Ok(()),
    }
}

/// Writes one value; null is the type's zero.
fn write_value(number: u32, content: &Type, value: &Value, out: &mut Vec<u8>) -> Result<(), Error> {
    let wrong = || Error::wrong("the field is of another type");
    match (content, value) {
        (Type::Text { .. }, Value::String(text)) => write_bytes(number, text.as_bytes(), out),
        (Type::Text { .. }, Value::Null) | (Type::Time | Type::MicroTime | Type::Raw, Value::Null) => {
            write_bytes(number, b"", out);
        }
        (Type::Integer { .. }, Value::Number(n)) => int64::encode(number, &n.as_i64().ok_or_else(wrong)?, out),
        (Type::Boolean { .. }, Value::Bool(value)) => bool::encode(number, value, out),
        (Type::Integer { .. } | Type::Boolean { .. }, Value::Null) => int64::encode(number, &0, out),
        (Type::Double, Value::Number(n)) => double::encode(number, &n.as_f64().unwrap_or_default(), out),
        (Type::Bytes, value @ (Value::String(_) | Value::Null)) => {
            let bytes = Option::<ByteString>::deserialize(value).map_err(|_| wrong())?.unwrap_or_default();
            write_bytes(number, &bytes.0, out);
        }
        (Type::Message(inner), value) => nested(number, out, |out| write_message(inner, value, out))?,
        (Type::Time, Value::String(text)) => message::encode(number, &time(text, |_| 0)?, out),
        // Go's JSON has no more than microseconds.
        (Type::MicroTime, Value::String(text)) => {
            message::encode(number, &time(text, |time| time.subsec_nanosecond() / 1000 * 1000)?, out);
        }
        (Type::Quantity, Value::String(text)) => quantity(number, text.clone(), out),
        (Type::Quantity, Value::Number(amount)) => quantity(number, amount.to_string(), out),
        (Type::Quantity, Value::Null) => quantity(number, "0".to_owned(), out),
        (Type::IntOrString, Value::Number(n)) => {
            let n = n.as_i64().and_then(|n| i32::try_from(n).ok()).ok_or_else(wrong)?;
            int_or_string(number, 0, n, String::new(), out);
        }
        (Type::IntOrString, Value::String(text)) => int_or_string(number, 1, 0, text.clone(), out),
        (Type::IntOrString, Value::Null) => int_or_string(number, 0, 0, String::new(), out),
        (Type::Raw, value) => message::encode(number, &Raw { raw: Some(value.to_string().into()) }, out),
        (Type::Items, Value::Array(items)) => {
            let items = items.iter().map(|item| item.as_str().map(str::to_owned)).collect::<Option<_>>();
            message::encode(number, &Items { items: items.ok_or_else(wrong)? }, out);
        }
        (Type::SchemaOrArray, Value::Array(schemas)) => nested(number, out, |out| {
            schemas.iter().try_for_each(|schema| nested(2, out, |out| write_message(SCHEMA, schema, out)))
        })?,
        (Type::SchemaOrArray, schema @ Value::Object(_)) => {
            nested(number, out, |out| nested(1, out, |out| write_message(SCHEMA, schema, out)))?;
        }
        (Type::SchemaOrBool, Value::Bool(allows)) => nested(number, out, |out| {
            bool::encode(1, allows, out);
            Ok(())
        })?,
        (Type::SchemaOrBool, schema @ Value::Object(_)) => nested(number, out, |out| {
            bool::encode(1, &true, out);
            nested(2, out, |out| write_message(SCHEMA, schema, out))
        })?,
        _ => return Err(wrong()),
    }
    Ok(())
}

fn quantity(number: u32, text: String, out: &mut Vec<u8>) {
    message::encode(number, &Quantity { text: Some(text) }, out);
}

fn int_or_string(tag: u32, kind: i64, number: i32, text: String, out: &mut Vec<u8>) {
    message::encode(tag, &IntOrString { kind: Some(kind), number: Some(number), text: Some(text) }, out);
}

fn time(text: &str, nanoseconds: impl FnOnce(Timestamp) -> i32) -> Result<Time, Error> {
    let time: Timestamp = text.parse().map_err(|_| Error::wrong("the field is no time"))?;
    Ok(Time { seconds: Some(time.as_second()), nanos: Some(nanoseconds(time)) })
}
