//! From protobuf to JSON.

use jiff::Timestamp;
use k8s_openapi::ByteString;
use serde_json::{Map, Value};

use super::{
    Error, MAGIC, MEDIA,
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
    let message = message_of(&api_version, &kind).ok_or_else(|| Error::unknown(&api_version, &kind))?;
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
        (Type::Quantity, Wire::Bytes(bytes)) => first_text(bytes, 1, at)?.into(),
        (Type::IntOrString, Wire::Bytes(bytes)) => match numbers(bytes, at)?.as_slice() {
            [1, ..] => first_text(bytes, 3, at)?.into(),
            [_, number, ..] => (*number).into(),
            _ => 0.into(),
        },
        (Type::Raw, Wire::Bytes(bytes)) => match first_bytes(bytes, 1, at)? {
            [] => return Ok(None),
            json => serde_json::from_slice(json).map_err(|_| at.wrong("the JSON inside is none"))?,
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

/// A time; Go writes its zero time, which is long before 1970, as no bytes at all.
fn time(bytes: &[u8], at: &Path, show: impl FnOnce(Timestamp) -> String) -> Result<Option<Value>, Error> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let [seconds, nanoseconds] = numbers(bytes, at)?;
    let nanoseconds = i32::try_from(nanoseconds).map_err(|_| at.wrong("a time has too many nanoseconds"))?;
    // JSON has years of four digits only.
    let time = Some(seconds).filter(|seconds| YEARS.contains(seconds));
    let time = time.and_then(|seconds| Timestamp::new(seconds, nanoseconds).ok());
    let time = time.ok_or_else(|| at.wrong("a time is out of range"))?;
    Ok(Some(show(time).into()))
}
