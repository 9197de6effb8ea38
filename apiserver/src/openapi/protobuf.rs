//! The OpenAPI v2 document in protobuf, the only form `kubectl` takes it in.
//!
//! `kubectl` reads it when a manifest names a kind or version that is not served, before it says so. The messages are
//! those of gnostic's OpenAPIv2.proto. Operations are written with what clients look up in them: the kind they are
//! about and their query parameters; schemas as the document has them.

use serde_json::{Map, Value};

/// The media type of this form. Clients ask for it with `@` in the place of the last but one dot.
pub(crate) const MEDIA: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// A message being written.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        loop {
            let low = u8::try_from(value & 0x7f).unwrap_or_default();
            value >>= 7;
            if value == 0 {
                return self.0.push(low);
            }
            self.0.push(low | 0x80);
        }
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        // Wire type 2: a length and as many bytes.
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn message(&mut self, field: u64, message: &Self) {
        self.bytes(field, &message.0);
    }

    fn text(&mut self, field: u64, value: Option<&Value>) {
        if let Some(text) = value.and_then(Value::as_str) {
            self.bytes(field, text.as_bytes());
        }
    }

    fn texts(&mut self, field: u64, value: Option<&Value>) {
        for text in value.and_then(Value::as_array).into_iter().flatten() {
            self.text(field, Some(text));
        }
    }

    fn flag(&mut self, field: u64, value: Option<&Value>) {
        if value.and_then(Value::as_bool) == Some(true) {
            self.varint(field << 3);
            self.varint(1);
        }
    }

    /// One entry of what is a map in JSON and a list of names and values here.
    fn entry(&mut self, field: u64, name: &str, value: &Self) {
        let mut entry = Self::default();
        entry.bytes(1, name.as_bytes());
        entry.message(2, value);
        self.message(field, &entry);
    }

    /// All `x-…` fields.
    fn extensions(&mut self, field: u64, of: &Map<String, Value>) {
        for (name, value) in of.iter().filter(|(name, _)| name.starts_with("x-")) {
            self.entry(field, name, &any(value));
        }
    }
}

/// Any value: its YAML, and JSON is YAML.
fn any(value: &Value) -> Message {
    let mut message = Message::default();
    message.bytes(2, value.to_string().as_bytes());
    message
}

fn entries(value: Option<&Value>) -> impl Iterator<Item = (&String, &Value)> {
    value.and_then(Value::as_object).into_iter().flatten()
}

fn schema(value: &Value) -> Message {
    let mut message = Message::default();
    let Some(fields) = value.as_object() else { return message };
    message.text(1, fields.get("$ref"));
    message.text(2, fields.get("format"));
    message.text(4, fields.get("description"));
    if let Some(default) = fields.get("default") {
        message.message(5, &any(default));
    }
    message.texts(19, fields.get("required"));
    match fields.get("additionalProperties") {
        Some(Value::Bool(allowed)) => {
            let mut item = Message::default();
            // The second arm of a oneof is written also when it is false.
            item.varint(2 << 3);
            item.varint(u64::from(*allowed));
            message.message(21, &item);
        }
        Some(of) => {
            let mut item = Message::default();
            item.message(1, &schema(of));
            message.message(21, &item);
        }
        None => {}
    }
    if let Some(kind) = fields.get("type") {
        let mut item = Message::default();
        item.text(1, Some(kind));
        message.message(22, &item);
    }
    if let Some(of) = fields.get("items") {
        let mut item = Message::default();
        item.message(1, &schema(of));
        message.message(23, &item);
    }
    if let Some(of) = fields.get("properties") {
        let mut properties = Message::default();
        for (name, value) in entries(Some(of)) {
            properties.entry(1, name, &schema(value));
        }
        message.message(25, &properties);
    }
    message.extensions(31, fields);
    message
}

/// A query parameter as ParametersItem → Parameter → NonBodyParameter → QueryParameterSubSchema.
fn query_parameter(fields: &Map<String, Value>) -> Message {
    let mut message = Message::default();
    message.flag(1, fields.get("required"));
    message.text(2, fields.get("in"));
    message.text(4, fields.get("name"));
    message.text(6, fields.get("type"));
    message.flag(20, fields.get("uniqueItems"));
    [3, 2, 1].into_iter().fold(message, |inner, field| {
        let mut outer = Message::default();
        outer.message(field, &inner);
        outer
    })
}

fn operation(fields: &Map<String, Value>) -> Message {
    let mut message = Message::default();
    message.text(5, fields.get("operationId"));
    message.texts(6, fields.get("produces"));
    message.texts(7, fields.get("consumes"));
    let parameters = fields.get("parameters").and_then(Value::as_array).into_iter().flatten();
    for parameter in parameters.filter_map(Value::as_object) {
        if parameter.get("in").and_then(Value::as_str) == Some("query") {
            message.message(8, &query_parameter(parameter));
        }
    }
    message.extensions(13, fields);
    message
}

/// The document that [`super::v2`] made, in protobuf.
#[must_use]
pub(crate) fn encode(document: &Value) -> Vec<u8> {
    let mut message = Message::default();
    message.text(1, document.get("swagger"));
    let mut info = Message::default();
    info.text(1, document.pointer("/info/title"));
    info.text(2, document.pointer("/info/version"));
    message.message(2, &info);
    let mut paths = Message::default();
    for (path, methods) in entries(document.get("paths")) {
        let mut item = Message::default();
        for (method, field) in [("get", 2), ("put", 3), ("post", 4), ("delete", 5), ("patch", 8)] {
            if let Some(fields) = methods.get(method).and_then(Value::as_object) {
                item.message(field, &operation(fields));
            }
        }
        paths.entry(2, path, &item);
    }
    message.message(8, &paths);
    let mut definitions = Message::default();
    for (name, value) in entries(document.get("definitions")) {
        definitions.entry(1, name, &schema(value));
    }
    message.message(9, &definitions);
    message.0
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_document_is_written_as_gnostic_reads_it() {
        let document = json!({
            "swagger": "2.0",
            "info": {"title": "T", "version": "v"},
            "paths": {"/p": {"patch": {
                "operationId": "o",
                "parameters": [{"name": "body", "in": "body"}, {"name": "q", "in": "query", "type": "string"}],
                "x-k": {"kind": "K"},
            }}},
            "definitions": {"D": {"type": "object", "additionalProperties": false}},
        });
        let encoded = encode(&document);
        for part in [
            b"\x0a\x032.0\x12\x06\x0a\x01T\x12\x01v\x42".as_slice(),
            // The operation's id, then its query parameter in its four wrappers; the body is no query parameter.
            b"\x2a\x01o\x42\x18\x0a\x16\x12\x14\x1a\x12\x12\x05query\x22\x01q\x32\x06string\x6a",
            b"\x0a\x03x-k\x12\x0e\x12\x0c{\"kind\":\"K\"}",
            // additionalProperties is written though it is false.
            b"\x0a\x01D\x12\x10\xaa\x01\x02\x10\x00\xb2\x01\x08\x0a\x06object",
        ] {
            assert!(encoded.windows(part.len()).any(|window| window == part), "{part:?} in {encoded:?}");
        }
    }
}
