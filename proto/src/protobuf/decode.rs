//! From protobuf to JSON: bytes become the crate's message, and that is shown as Kubernetes' JSON.

use std::borrow::Cow;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use prost::{Message as _, bytes::Bytes};
use prost_reflect::{DynamicMessage, MessageDescriptor, Value as Held};
use serde_json::{Map, Value};

use super::{
    Error, MAGIC, MEDIA,
    descriptors::{Member, Message},
    messages::Unknown,
    place,
    table::{Type, message_of},
};
use crate::go_duration;

/// The seconds of the years 1 to 9999.
const YEARS: std::ops::Range<i64> = -62_135_596_800..253_402_300_800;

/// Messages may be nested this deep in an object's own, as deep as prost's own reader would have it.
const MAX_DEPTH: usize = 100;

/// A protobuf body as the JSON of its object, with `apiVersion` and `kind`.
///
/// # Errors
/// [`Error`]; whatever the bytes are, nothing panics, and what is allocated is in proportion to them (the JSON takes about
/// 240 bytes for each where all are messages of one short field). Messages may be nested a hundred deep: a definition's schema
/// may have forty-eight properties in one another.
pub fn to_json(body: &[u8]) -> Result<Value, Error> {
    let envelope = body.strip_prefix(MAGIC.as_slice()).ok_or(Error::Magic)?;
    let at = Path::new("Unknown");
    let Unknown { type_meta, raw, content_encoding, content_type } =
        Unknown::decode(envelope).map_err(|error| at.wrong(error.to_string()))?;
    if content_encoding.is_some_and(|encoding| !encoding.is_empty()) {
        return Err(at.wrong("the content is encoded"));
    }
    if content_type.is_some_and(|media| !media.is_empty() && media != MEDIA) {
        return Err(at.wrong("the content is not protobuf"));
    }
    let type_meta = type_meta.unwrap_or_default();
    let (api_version, kind) = (type_meta.api_version.unwrap_or_default(), type_meta.kind.unwrap_or_default());
    let name = message_of(&api_version, &kind).ok_or_else(|| Error::unknown(&api_version, &kind))?;
    let mut at = Path::new(&kind);
    let message = Message::named(&name).ok_or_else(|| at.unknown())?;
    let mut object = Map::new();
    object.insert("apiVersion".to_owned(), api_version.into());
    object.insert("kind".to_owned(), kind.as_str().into());
    show(message, raw.unwrap_or_default(), &mut object, &mut at)?;
    Ok(Value::Object(object))
}

/// Where in the object the reader is.
struct Path<'n> {
    names: Vec<&'n str>,
    /// How many messages are around.
    depth: usize,
}

impl<'n> Path<'n> {
    fn new(kind: &'n str) -> Self {
        Self { names: vec![kind], depth: 0 }
    }

    fn wrong(&self, why: impl Into<Cow<'static, str>>) -> Error {
        Error::Malformed { path: self.names.join("."), why: why.into() }
    }

    fn unknown(&self) -> Error {
        self.wrong("nothing is known of the message")
    }

    /// Reads a message that is in another.
    fn within<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        if self.depth == MAX_DEPTH {
            return Err(self.wrong("the object is nested too deeply"));
        }
        self.depth += 1;
        let read = read(self);
        self.depth -= 1;
        read
    }
}

/// One message, as the crate reads it: what it holds of others are bytes still.
fn read(
    descriptor: &MessageDescriptor,
    bytes: Bytes,
    at: &Path<'_>,
    fault: impl FnOnce(&[u8]) -> Option<&'static str>,
) -> Result<DynamicMessage, Error> {
    DynamicMessage::decode(descriptor.clone(), bytes.clone()).map_err(|error| {
        let names = at.names.iter().copied().chain(fault(&bytes));
        Error::Malformed { path: names.collect::<Vec<_>>().join("."), why: error.to_string().into() }
    })
}

fn read_message(message: &'static Message, bytes: Bytes, at: &Path<'_>) -> Result<DynamicMessage, Error> {
    read(&message.descriptor, bytes, at, |bytes| place::of_fault(message, bytes))
}

/// Shows a message's fields in `object`. Fields of a newer Kubernetes are passed over, as protobuf has it.
fn show(
    message: &'static Message,
    bytes: Bytes,
    object: &mut Map<String, Value>,
    at: &mut Path<'_>,
) -> Result<(), Error> {
    // Both go by the fields' numbers.
    let mut members = message.members.iter();
    for (descriptor, held) in read_message(message, bytes, at)?.take_fields() {
        let number = descriptor.number();
        let Some(member) = members.find(|member| member.field.number == number) else { break };
        let Some(name) = member.field.name else {
            if let (Some(inner), Held::List(parts)) = (member.inner(), held) {
                at.within(|at| show(inner, joined(parts), object, at))?;
            }
            continue;
        };
        at.names.push(name);
        let content = &member.field.content;
        if let Some(shown) = shown(content, member, held, at)?.filter(|shown| !is_unsaid(content, shown)) {
            object.insert(name.to_owned(), shown);
        }
        at.names.pop();
    }
    Ok(())
}

/// The bytes of a message that may stand in several parts.
fn joined(mut parts: Vec<Held>) -> Bytes {
    if let (1, Some(Held::Bytes(_))) = (parts.len(), parts.last())
        && let Some(Held::Bytes(bytes)) = parts.pop()
    {
        return bytes;
    }
    parts.iter().filter_map(Held::as_bytes).flatten().copied().collect()
}

/// What a map's entry without a value means.
fn zero(content: &Type) -> Value {
    match content {
        Type::Text { .. } | Type::Bytes => "".into(),
        Type::Duration => "0s".into(),
        Type::Quantity => "0".into(),
        Type::Items => Value::Array(Vec::new()),
        Type::Time | Type::MicroTime | Type::Raw => Value::Null,
        _ => Value::Object(Map::new()),
    }
}

/// Whether a value is the zero that Go writes for what nobody said.
pub(super) fn is_unsaid(content: &Type, value: &Value) -> bool {
    match content {
        Type::Text { keeps_zero: false } => value == "",
        Type::Integer { keeps_zero: false } => *value == 0,
        Type::Boolean { keeps_zero: false } => *value == false,
        Type::Quantity => value == "",
        _ => false,
    }
}

/// A field's value, or one in its list or map; none for what JSON leaves out.
fn shown(content: &Type, member: &'static Member, held: Held, at: &mut Path<'_>) -> Result<Option<Value>, Error> {
    Ok(Some(match (content, held) {
        (Type::Text { .. }, Held::String(text)) => text.into(),
        (Type::Integer { .. }, Held::I64(value)) => value.into(),
        (Type::Boolean { .. }, Held::Bool(value)) => value.into(),
        (Type::Double, Held::F64(value)) => value.into(),
        (Type::Bytes, Held::Bytes(bytes)) => {
            serde_json::to_value(ByteString(bytes.to_vec())).map_err(|_| at.wrong("bytes cannot be written"))?
        }
        (Type::List(element), Held::List(items)) => {
            let items = items.into_iter().map(|item| Ok(shown(element, member, item, at)?.unwrap_or_default()));
            items.collect::<Result<Vec<_>, Error>>()?.into()
        }
        (Type::Map(value), Held::List(entries)) => {
            let mut shown = Map::new();
            for entry in entries {
                let (key, value) = map_entry(value, member, entry, at)?;
                shown.insert(key, value);
            }
            shown.into()
        }
        (content, Held::Bytes(bytes)) => return at.within(|at| inside(content, member, bytes, at)),
        (content, Held::List(parts)) => return at.within(|at| inside(content, member, joined(parts), at)),
        _ => return Err(at.wrong("the field is of another type")),
    }))
}

/// A message that a field holds, itself or in a list or a map.
fn inside(content: &Type, member: &'static Member, bytes: Bytes, at: &mut Path<'_>) -> Result<Option<Value>, Error> {
    let message = member.inner().ok_or_else(|| at.unknown())?;
    let Type::Message(_) = content else { return single(content, message, bytes, at) };
    let mut object = Map::new();
    show(message, bytes, &mut object, at)?;
    Ok(Some(object.into()))
}

/// An entry of a map: of two equal keys the last counts.
fn map_entry(
    content: &Type,
    member: &'static Member,
    entry: Held,
    at: &mut Path<'_>,
) -> Result<(String, Value), Error> {
    let (Some(fields), Held::Bytes(bytes)) = (&member.entry, entry) else { return Err(at.unknown()) };
    at.within(|at| {
        let mut entry = read(&fields.descriptor, bytes, at, |_| None)?;
        let key = match entry.take_field(&fields.key) {
            Some(Held::String(key)) => key,
            _ => String::new(),
        };
        let value = entry.take_field(&fields.value).map(|held| shown(content, member, held, at)).transpose()?.flatten();
        Ok((key, value.unwrap_or_else(|| zero(content))))
    })
}

/// A message that is a single value in JSON; none where it is as good as not there.
fn single(content: &Type, message: &'static Message, bytes: Bytes, at: &mut Path<'_>) -> Result<Option<Value>, Error> {
    let mut read = read_message(message, bytes, at)?;
    let mut take = |member: &'static Member| {
        let held = read.take_field(&member.descriptor);
        held.map(|held| shown(&member.field.content, member, held, at)).transpose().map(Option::flatten)
    };
    Ok(match (content, message.members.as_slice()) {
        (Type::Time, [seconds, nanos]) => time(take(seconds)?, take(nanos)?, "%Y-%m-%dT%H:%M:%SZ", at)?,
        (Type::MicroTime, [seconds, nanos]) => time(take(seconds)?, take(nanos)?, "%Y-%m-%dT%H:%M:%S%.6fZ", at)?,
        (Type::Duration, [nanos]) => {
            let nanos = take(nanos)?.and_then(|nanos| nanos.as_i64()).unwrap_or_default();
            Some(go_duration::show(SignedDuration::from_nanos(nanos)).into())
        }
        (Type::Quantity, [text]) => take(text)?.or_else(|| Some("".into())),
        (Type::IntOrString, [kind, number, text]) => match take(kind)? {
            Some(kind) if kind == 1 => take(text)?.or_else(|| Some("".into())),
            _ => match take(number)? {
                Some(number) if number.as_i64().is_none_or(|number| i32::try_from(number).is_err()) => {
                    return Err(at.wrong("a number is out of range"));
                }
                number => number.or_else(|| Some(0.into())),
            },
        },
        (Type::Raw, [raw]) => match read.take_field(&raw.descriptor) {
            Some(Held::Bytes(json)) if !json.is_empty() => {
                Some(serde_json::from_slice(&json).map_err(|_| at.wrong("the JSON inside is none"))?)
            }
            _ => None,
        },
        (Type::Items, [items]) => take(items)?.or_else(|| Some(Value::Array(Vec::new()))),
        (Type::SchemaOrArray, [schema, schemas]) => match take(schema)? {
            None => take(schemas)?.or_else(|| Some(Value::Array(Vec::new()))),
            schema => schema,
        },
        (Type::SchemaOrBool, [allows, schema]) => match take(schema)? {
            None => take(allows)?.or(Some(Value::Bool(false))),
            schema => schema,
        },
        _ => return Err(at.unknown()),
    })
}

/// A time; Go writes its zero time, which is long before 1970, as no bytes at all.
fn time(seconds: Option<Value>, nanos: Option<Value>, form: &str, at: &Path<'_>) -> Result<Option<Value>, Error> {
    if seconds.is_none() && nanos.is_none() {
        return Ok(None);
    }
    let number = |value: Option<Value>| value.and_then(|value| value.as_i64()).unwrap_or_default();
    // JSON has years of four digits only.
    let seconds = Some(number(seconds)).filter(|seconds| YEARS.contains(seconds));
    let nanos = i32::try_from(number(nanos)).ok();
    let time = seconds.zip(nanos).and_then(|(seconds, nanos)| Timestamp::new(seconds, nanos).ok());
    let time = time.ok_or_else(|| at.wrong("a time is out of range"))?;
    Ok(Some(time.strftime(form).to_string().into()))
}
