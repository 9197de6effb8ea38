//! From protobuf to JSON.

use std::borrow::Cow;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use prost::{
    DecodeError, Message,
    encoding::{DecodeContext, WireType, decode_key, decode_varint, double, skip_field},
};
use serde_json::{Map, Value};

use super::{
    Error, MAGIC, MEDIA,
    messages::{IntOrString, Items, Quantity, Raw, Time, Unknown},
    table::{SCHEMA, TABLES, Type, message_of},
};

/// Messages may be nested this deep; Kubernetes' own go down to about twenty.
const MAX_DEPTH: u32 = 64;

/// The seconds of the years 1 to 9999.
const YEARS: std::ops::Range<i64> = -62_135_596_800..253_402_300_800;

/// A protobuf body as the JSON of its object, with `apiVersion` and `kind`.
///
/// # Errors
/// [`Error`]; whatever the bytes are, nothing panics, and what is allocated is in proportion to them.
pub fn to_json(body: &[u8]) -> Result<Value, Error> {
    let envelope = body.strip_prefix(MAGIC.as_slice()).ok_or(Error::Magic)?;
    let at = Path::new("Unknown");
    let Unknown { type_meta, raw, content_encoding, content_type } = at.decode(envelope)?;
    if content_encoding.is_some_and(|encoding| !encoding.is_empty()) {
        return Err(at.wrong("the content is encoded"));
    }
    if content_type.is_some_and(|media| !media.is_empty() && media != MEDIA) {
        return Err(at.wrong("the content is not protobuf"));
    }
    let type_meta = type_meta.unwrap_or_default();
    let (api_version, kind) = (type_meta.api_version.unwrap_or_default(), type_meta.kind.unwrap_or_default());
    let message = message_of(&api_version, &kind).ok_or_else(|| Error::unknown(&api_version, &kind))?;
    let mut object = Map::new();
    object.insert("apiVersion".to_owned(), api_version.into());
    object.insert("kind".to_owned(), kind.as_str().into());
    read_message(&message, &raw.unwrap_or_default(), &mut object, &mut Path::new(&kind))?;
    Ok(Value::Object(object))
}

/// Where in the object the reader is.
struct Path<'n> {
    names: Vec<&'n str>,
}

impl<'n> Path<'n> {
    fn new(kind: &'n str) -> Self {
        Self { names: vec![kind] }
    }

    fn wrong(&self, why: impl Into<Cow<'static, str>>) -> Error {
        Error::Malformed { path: self.names.join("."), why: why.into() }
    }

    fn broken(&self, error: &DecodeError) -> Error {
        self.wrong(error.to_string())
    }

    /// One of the messages that have a type.
    fn decode<M: Message + Default>(&self, bytes: &[u8]) -> Result<M, Error> {
        M::decode(bytes).map_err(|error| self.broken(&error))
    }

    /// The next field off a message's bytes: its number and what it holds; none at their end.
    fn field<'a>(&self, rest: &mut &'a [u8]) -> Result<Option<(u32, Wire<'a>)>, Error> {
        if rest.is_empty() {
            return Ok(None);
        }
        let broken = |error| self.broken(&error);
        let (number, wire) = decode_key(rest).map_err(broken)?;
        let wire = match wire {
            WireType::Varint => Wire::Varint(decode_varint(rest).map_err(broken)?.cast_signed()),
            WireType::SixtyFourBit => {
                let mut value = 0.0;
                double::merge(wire, &mut value, rest, DecodeContext::default()).map_err(broken)?;
                Wire::Double(value)
            }
            WireType::LengthDelimited => {
                let length = decode_varint(rest).map_err(broken)?;
                let split = usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length));
                let (bytes, behind) = split.ok_or_else(|| self.wrong("the content is cut short"))?;
                *rest = behind;
                Wire::Bytes(bytes)
            }
            WireType::ThirtyTwoBit | WireType::StartGroup | WireType::EndGroup => {
                skip_field(wire, number, rest, DecodeContext::default()).map_err(broken)?;
                Wire::Skipped
            }
        };
        Ok(Some((number, wire)))
    }
}

/// What a field holds.
enum Wire<'a> {
    /// A number, signed as those of all Kubernetes' types are.
    Varint(i64),
    Double(f64),
    Bytes(&'a [u8]),
    /// What no type of Kubernetes' is written as.
    Skipped,
}

fn text(bytes: &[u8], at: &Path<'_>) -> Result<String, Error> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| at.wrong("a text is not UTF-8"))
}

/// Reads a message's fields into `object`.
fn read_message(
    message: &str,
    mut bytes: &[u8],
    object: &mut Map<String, Value>,
    at: &mut Path<'_>,
) -> Result<(), Error> {
    if at.names.len() > MAX_DEPTH as usize {
        return Err(at.wrong("the object is nested too deeply"));
    }
    let Some(fields) = TABLES.get(message) else { return Err(at.wrong("nothing is known of the message")) };
    while let Some((number, wire)) = at.field(&mut bytes)? {
        // Fields of a newer Kubernetes are passed over, as protobuf has it.
        let Some(field) = fields.iter().find(|field| field.number == number) else { continue };
        let Some(name) = field.name else {
            if let (Type::Message(inner), Wire::Bytes(bytes)) = (&field.content, wire) {
                at.names.push("");
                read_message(inner, bytes, object, at)?;
                at.names.pop();
            }
            continue;
        };
        at.names.push(name);
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
    at: &mut Path<'_>,
) -> Result<(), Error> {
    match content {
        Type::List(element) => {
            let mut items = match object.remove(name) {
                Some(Value::Array(items)) => items,
                _ => Vec::new(),
            };
            match (element.as_ref(), wire) {
                // Numbers may come packed.
                (Type::Integer { .. }, Wire::Bytes(mut bytes)) => {
                    while !bytes.is_empty() {
                        let value = decode_varint(&mut bytes).map_err(|error| at.broken(&error))?;
                        items.push(value.cast_signed().into());
                    }
                }
                (element, wire) => items.push(read_value(element, wire, at)?.unwrap_or_default()),
            }
            object.insert(name.to_owned(), items.into());
        }
        Type::Map(value) => {
            let Wire::Bytes(mut bytes) = wire else { return Err(at.wrong("a map's entry is no message")) };
            let (mut key, mut found) = (String::new(), None);
            while let Some((number, wire)) = at.field(&mut bytes)? {
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

fn read_value(content: &Type, wire: Wire<'_>, at: &mut Path<'_>) -> Result<Option<Value>, Error> {
    Ok(Some(match (content, wire) {
        (Type::Text { .. }, Wire::Bytes(bytes)) => text(bytes, at)?.into(),
        (Type::Integer { .. }, Wire::Varint(value)) => value.into(),
        (Type::Boolean { .. }, Wire::Varint(value)) => (value != 0).into(),
        (Type::Double, Wire::Double(value)) => value.into(),
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
        (Type::Quantity, Wire::Bytes(bytes)) => at.decode::<Quantity>(bytes)?.text.unwrap_or_default().into(),
        (Type::IntOrString, Wire::Bytes(bytes)) => match at.decode::<IntOrString>(bytes)? {
            IntOrString { kind: Some(1), text, .. } => text.unwrap_or_default().into(),
            IntOrString { kind: None | Some(0), number, .. } => number.unwrap_or_default().into(),
            IntOrString { .. } => 0.into(),
        },
        (Type::Raw, Wire::Bytes(bytes)) => match at.decode::<Raw>(bytes)?.raw.unwrap_or_default() {
            json if json.is_empty() => return Ok(None),
            json => serde_json::from_slice(&json).map_err(|_| at.wrong("the JSON inside is none"))?,
        },
        (Type::Items, Wire::Bytes(bytes)) => at.decode::<Items>(bytes)?.items.into(),
        (Type::SchemaOrArray, Wire::Bytes(mut bytes)) => {
            let mut items = Vec::new();
            while let Some((number, wire)) = at.field(&mut bytes)? {
                match (number, wire) {
                    (1, Wire::Bytes(bytes)) => return schema(bytes, at).map(Some),
                    (2, Wire::Bytes(bytes)) => items.push(schema(bytes, at)?),
                    _ => {}
                }
            }
            items.into()
        }
        (Type::SchemaOrBool, Wire::Bytes(mut bytes)) => {
            let mut allows = false;
            while let Some((number, wire)) = at.field(&mut bytes)? {
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
fn schema(bytes: &[u8], at: &mut Path<'_>) -> Result<Value, Error> {
    let mut object = Map::new();
    at.names.push("");
    read_message(SCHEMA, bytes, &mut object, at)?;
    at.names.pop();
    Ok(object.into())
}

/// A time; Go writes its zero time, which is long before 1970, as no bytes at all.
fn time(bytes: &[u8], at: &Path<'_>, show: impl FnOnce(Timestamp) -> String) -> Result<Option<Value>, Error> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let Time { seconds, nanos } = at.decode(bytes)?;
    // JSON has years of four digits only.
    let time = Some(seconds.unwrap_or_default()).filter(|seconds| YEARS.contains(seconds));
    let time = time.and_then(|seconds| Timestamp::new(seconds, nanos.unwrap_or_default()).ok());
    let time = time.ok_or_else(|| at.wrong("a time is out of range"))?;
    Ok(Some(show(time).into()))
}
