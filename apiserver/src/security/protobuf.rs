//! Bodies in Kubernetes' protobuf, for the kinds answered here.
//!
//! Since 1.32 `kubectl auth` and `kubectl create token` send these and nothing else; answers are JSON, which they accept.
//! A body is `k8s\0` and a `runtime.Unknown`; the messages' fields are in the tables below (generated.proto of
//! authentication/v1, authorization/v1 and meta/v1). Fields that no answer depends on are passed over.

use coracle_proto::status::Status;
use serde_json::{Map, Value};

use crate::status_of::Result;

pub(super) const MEDIA: &str = "application/vnd.kubernetes.protobuf";

/// What a field holds.
#[derive(Clone, Copy)]
enum Is {
    Text,
    Texts,
    Number,
    Message(Fields),
    Messages(Fields),
}

/// Number, JSON name and content of the fields of a message.
type Fields = &'static [(u64, &'static str, Is)];

const META: Fields = &[(1, "name", Is::Text), (3, "namespace", Is::Text), (5, "uid", Is::Text)];
const REQUIREMENT: Fields = &[(1, "key", Is::Text), (2, "operator", Is::Text), (3, "values", Is::Texts)];
const SELECTOR: Fields = &[(1, "rawSelector", Is::Text), (2, "requirements", Is::Messages(REQUIREMENT))];
const RESOURCE: Fields = &[
    (1, "namespace", Is::Text),
    (2, "verb", Is::Text),
    (3, "group", Is::Text),
    (4, "version", Is::Text),
    (5, "resource", Is::Text),
    (6, "subresource", Is::Text),
    (7, "name", Is::Text),
    (8, "fieldSelector", Is::Message(SELECTOR)),
];
const PATH: Fields = &[(1, "path", Is::Text), (2, "verb", Is::Text)];
const ACCESS: Fields = &[
    (1, "resourceAttributes", Is::Message(RESOURCE)),
    (2, "nonResourceAttributes", Is::Message(PATH)),
    (3, "user", Is::Text),
    (4, "groups", Is::Texts),
    (6, "uid", Is::Text),
];
const SELF_ACCESS: Fields =
    &[(1, "resourceAttributes", Is::Message(RESOURCE)), (2, "nonResourceAttributes", Is::Message(PATH))];
const BOUND: Fields =
    &[(1, "kind", Is::Text), (2, "apiVersion", Is::Text), (3, "name", Is::Text), (4, "uid", Is::Text)];
const TOKEN_REQUEST: Fields =
    &[(1, "audiences", Is::Texts), (3, "boundObjectRef", Is::Message(BOUND)), (4, "expirationSeconds", Is::Number)];
const TOKEN_REVIEW: Fields = &[(1, "token", Is::Text), (2, "audiences", Is::Texts)];

fn fields_of(kind: &str) -> Option<Fields> {
    const TYPE_META: Is = Is::Message(META);
    Some(match kind {
        "SelfSubjectReview" => &[(1, "metadata", TYPE_META)],
        "SelfSubjectAccessReview" => &[(1, "metadata", TYPE_META), (2, "spec", Is::Message(SELF_ACCESS))],
        "SubjectAccessReview" | "LocalSubjectAccessReview" => {
            &[(1, "metadata", TYPE_META), (2, "spec", Is::Message(ACCESS))]
        }
        "SelfSubjectRulesReview" => {
            &[(1, "metadata", TYPE_META), (2, "spec", Is::Message(&[(1, "namespace", Is::Text)]))]
        }
        "TokenReview" => &[(1, "metadata", TYPE_META), (2, "spec", Is::Message(TOKEN_REVIEW))],
        "TokenRequest" => &[(1, "metadata", TYPE_META), (2, "spec", Is::Message(TOKEN_REQUEST))],
        _ => return None,
    })
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f).checked_shl(shift)?;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

/// The next field: its number, and its number or bytes.
fn field<'a>(bytes: &mut &'a [u8]) -> Option<(u64, u64, &'a [u8])> {
    let tag = varint(bytes)?;
    match tag & 7 {
        0 => Some((tag >> 3, varint(bytes)?, &[])),
        1 => take(bytes, 8).map(|taken| (tag >> 3, 0, taken)),
        2 => {
            let length = usize::try_from(varint(bytes)?).ok()?;
            take(bytes, length).map(|taken| (tag >> 3, 0, taken))
        }
        5 => take(bytes, 4).map(|taken| (tag >> 3, 0, taken)),
        _ => None,
    }
}

/// The tables are three deep and not circular, so this ends whatever the bytes are.
fn message(mut bytes: &[u8], fields: Fields) -> Option<Map<String, Value>> {
    let mut object = Map::new();
    while !bytes.is_empty() {
        let (number, value, content) = field(&mut bytes)?;
        let Some((_, name, is)) = fields.iter().find(|(n, _, _)| *n == number) else { continue };
        let text = || std::str::from_utf8(content).ok().map(Value::from);
        let (value, repeats) = match is {
            Is::Text => (text()?, false),
            Is::Texts => (text()?, true),
            Is::Number => (Value::from(i64::from_ne_bytes(value.to_ne_bytes())), false),
            Is::Message(fields) => (Value::Object(message(content, fields)?), false),
            Is::Messages(fields) => (Value::Object(message(content, fields)?), true),
        };
        if repeats {
            if let Value::Array(values) = object.entry(*name).or_insert_with(|| Value::Array(Vec::new())) {
                values.push(value);
            }
        } else {
            object.insert((*name).to_owned(), value);
        }
    }
    Some(object)
}

fn object(body: &[u8]) -> Option<Result<Value>> {
    const TYPE: Fields = &[(1, "apiVersion", Is::Text), (2, "kind", Is::Text)];
    let mut bytes = body.strip_prefix(b"k8s\0")?;
    let (mut about, mut raw) = (None, &[][..]);
    while !bytes.is_empty() {
        match field(&mut bytes)? {
            (1, _, content) => about = Some(message(content, TYPE)?),
            (2, _, content) => raw = content,
            _ => {}
        }
    }
    let mut object = about?;
    let kind = object.get("kind")?.as_str()?.to_owned();
    let Some(fields) = fields_of(&kind) else {
        let why = format!("{kind} in the format {MEDIA}");
        return Some(Err(Box::new(Status::not_here_yet(&why))));
    };
    object.extend(message(raw, fields)?);
    // The kinds' specs are required, their metadata is too; empty messages are left out of the bytes by nobody.
    for part in ["metadata", "spec"] {
        if fields.iter().any(|(_, name, _)| *name == part) {
            object.entry(part).or_insert_with(|| Value::Object(Map::new()));
        }
    }
    Some(Ok(Value::Object(object)))
}

/// The body as JSON.
pub(super) fn to_json(body: &[u8]) -> Result<Value> {
    object(body).unwrap_or_else(|| Err(Box::new(Status::bad_request("the body is not Kubernetes' protobuf"))))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn text(number: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![number << 3 | 2, u8::try_from(content.len()).unwrap()];
        bytes.extend_from_slice(content);
        bytes
    }

    fn body(kind: &str, raw: &[u8]) -> Vec<u8> {
        let about = [text(1, b"x/v1"), text(2, kind.as_bytes())].concat();
        [b"k8s\0".to_vec(), text(1, &about), text(2, raw)].concat()
    }

    #[test]
    fn bodies_become_json_by_the_tables() {
        let bound = [text(1, b"Pod"), text(2, b"v1"), text(3, b"p"), text(4, b"u")].concat();
        // 3600 as a varint is 0x90 0x1c.
        let spec = [text(1, b"a"), text(1, b"b"), text(3, &bound), vec![4 << 3, 0x90, 0x1c]].concat();
        let raw = [text(1, &text(1, b"robot")), text(2, &spec)].concat();
        assert_eq!(
            to_json(&body("TokenRequest", &raw)).unwrap(),
            json!({"apiVersion": "x/v1", "kind": "TokenRequest", "metadata": {"name": "robot"},
                "spec": {"audiences": ["a", "b"], "expirationSeconds": 3600,
                    "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": "u"}}})
        );
        assert_eq!(to_json(&body("Pod", &[])).unwrap_err().code, 501);
    }

    #[test]
    fn cut_or_garbled_bodies_are_400() {
        let whole = body("TokenReview", &text(2, &text(1, b"token")));
        assert!(to_json(&whole).is_ok());
        for end in 0..whole.len() - 11 {
            assert_eq!(to_json(&whole[..end]).unwrap_err().code, 400, "{end}");
        }
        assert_eq!(to_json(&[b"k8s\0".to_vec(), vec![0xff; 64]].concat()).unwrap_err().code, 400);
    }
}
