//! From JSON to protobuf.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use serde::Deserialize as _;
use serde_json::{Map, Value};

use super::{
    Error, MAGIC,
    table::{Field, SCHEMA, TABLES, Type, list_numbers, message_of},
};

/// The wire types (protobuf.dev, "Encoding").
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const LENGTH: u64 = 2;

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

/// The head of a `runtime.Unknown`: which kind it holds.
fn begin(api_version: &str, kind: &str) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    let mut type_meta = Vec::with_capacity(api_version.len() + kind.len() + 8);
    write_bytes(1, api_version.as_bytes(), &mut type_meta);
    write_bytes(2, kind.as_bytes(), &mut type_meta);
    write_bytes(1, &type_meta, &mut out);
    out
}

/// Its end: the content is protobuf, and not encoded further.
fn end(out: &mut Vec<u8>) {
    write_bytes(3, b"", out);
    write_bytes(4, b"", out);
}

/// A list, written item by item, so that only one item at a time is there as JSON as well.
pub struct List {
    head: Vec<u8>,
    /// The list's own message.
    content: Vec<u8>,
    item: String,
    /// The number of the items.
    items: u64,
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
        write_tag(2, LENGTH, &mut head);
        write_varint(content.len() as u64, &mut head);
        end(&mut content);
        content.splice(0..0, head);
        content
    }
}

/// Appends an event of a watch about an object's body: a `WatchEvent` behind its length in four bytes, the highest first.
///
/// # Errors
/// [`Error::Malformed`] beyond four gigabytes.
pub fn write_event(kind: &str, object: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
    let mut event = Vec::with_capacity(object.len() + kind.len() + 16);
    write_bytes(1, kind.as_bytes(), &mut event);
    nested(2, &mut event, |out| {
        write_bytes(1, object, out);
        Ok(())
    })?;
    let length = u32::try_from(event.len()).map_err(|_| Error::wrong("the event is too large"))?;
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&event);
    Ok(())
}

fn write_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

fn write_tag(number: u64, wire: u64, out: &mut Vec<u8>) {
    write_varint(number << 3 | wire, out);
}

fn write_bytes(number: u64, bytes: &[u8], out: &mut Vec<u8>) {
    write_tag(number, LENGTH, out);
    write_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn write_number(number: u64, value: i64, out: &mut Vec<u8>) {
    write_tag(number, VARINT, out);
    write_varint(value.cast_unsigned(), out);
}

/// Writes a message within a message. Most are shorter than 128 bytes, so room is left for a length of one byte, and longer
/// ones are moved.
fn nested(number: u64, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>) -> Result<(), Error>) -> Result<(), Error> {
    write_tag(number, LENGTH, out);
    let start = out.len();
    out.push(0);
    write(out)?;
    let mut length = Vec::with_capacity(5);
    write_varint((out.len() - start - 1) as u64, &mut length);
    out.splice(start..=start, length);
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
fn write_value(number: u64, content: &Type, value: &Value, out: &mut Vec<u8>) -> Result<(), Error> {
    let wrong = || Error::wrong("the field is of another type");
    match (content, value) {
        (Type::Text { .. }, Value::String(text)) => write_bytes(number, text.as_bytes(), out),
        (Type::Text { .. }, Value::Null) | (Type::Time | Type::MicroTime | Type::Raw, Value::Null) => {
            write_bytes(number, b"", out);
        }
        (Type::Integer { .. }, Value::Number(n)) => write_number(number, n.as_i64().ok_or_else(wrong)?, out),
        (Type::Boolean { .. }, Value::Bool(value)) => write_number(number, (*value).into(), out),
        (Type::Integer { .. } | Type::Boolean { .. }, Value::Null) => write_number(number, 0, out),
        (Type::Double, Value::Number(n)) => {
            write_tag(number, FIXED64, out);
            out.extend_from_slice(&n.as_f64().unwrap_or_default().to_le_bytes());
        }
        (Type::Bytes, value @ (Value::String(_) | Value::Null)) => {
            let bytes = Option::<ByteString>::deserialize(value).map_err(|_| wrong())?.unwrap_or_default();
            write_bytes(number, &bytes.0, out);
        }
        (Type::Message(inner), value) => nested(number, out, |out| write_message(inner, value, out))?,
        (Type::Time, Value::String(text)) => write_time(number, text, |_| 0, out)?,
        // Go's JSON has no more than microseconds.
        (Type::MicroTime, Value::String(text)) => {
            write_time(number, text, |time| time.subsec_nanosecond() / 1000 * 1000, out)?;
        }
        (Type::Quantity, Value::String(text)) => nested(number, out, |out| {
            write_bytes(1, text.as_bytes(), out);
            Ok(())
        })?,
        (Type::Quantity, Value::Number(_) | Value::Null) => {
            let text = value.as_number().map_or_else(|| "0".to_owned(), ToString::to_string);
            write_value(number, content, &text.into(), out)?;
        }
        (Type::IntOrString, Value::Number(n)) => {
            write_int_or_string(number, 0, n.as_i64().ok_or_else(wrong)?, "", out)?;
        }
        (Type::IntOrString, Value::String(text)) => write_int_or_string(number, 1, 0, text, out)?,
        (Type::IntOrString, Value::Null) => write_int_or_string(number, 0, 0, "", out)?,
        (Type::Raw, value) => nested(number, out, |out| {
            write_bytes(1, value.to_string().as_bytes(), out);
            Ok(())
        })?,
        (Type::Items, Value::Array(items)) => nested(number, out, |out| {
            items.iter().try_for_each(|item| write_value(1, &Type::Text { keeps_zero: true }, item, out))
        })?,
        (Type::SchemaOrArray, Value::Array(schemas)) => nested(number, out, |out| {
            schemas.iter().try_for_each(|schema| nested(2, out, |out| write_message(SCHEMA, schema, out)))
        })?,
        (Type::SchemaOrArray, schema @ Value::Object(_)) => {
            nested(number, out, |out| nested(1, out, |out| write_message(SCHEMA, schema, out)))?;
        }
        (Type::SchemaOrBool, Value::Bool(allows)) => nested(number, out, |out| {
            write_number(1, (*allows).into(), out);
            Ok(())
        })?,
        (Type::SchemaOrBool, schema @ Value::Object(_)) => nested(number, out, |out| {
            write_number(1, 1, out);
            nested(2, out, |out| write_message(SCHEMA, schema, out))
        })?,
        _ => return Err(wrong()),
    }
    Ok(())
}

fn write_int_or_string(number: u64, kind: i64, int: i64, text: &str, out: &mut Vec<u8>) -> Result<(), Error> {
    nested(number, out, |out| {
        write_number(1, kind, out);
        write_number(2, int, out);
        write_bytes(3, text.as_bytes(), out);
        Ok(())
    })
}

fn write_time(
    number: u64,
    text: &str,
    nanoseconds: impl FnOnce(Timestamp) -> i32,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    let time: Timestamp = text.parse().map_err(|_| Error::wrong("the field is no time"))?;
    nested(number, out, |out| {
        write_number(1, time.as_second(), out);
        write_number(2, nanoseconds(time).into(), out);
        Ok(())
    })
}
