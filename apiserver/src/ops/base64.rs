//! Bytes in JSON, as Go's `encoding/base64` reads them: it passes over line ends, which manifests with certificates have,
//! and over what is left of the last character. Rust's types want neither.

use ::base64::{
    Engine, alphabet,
    engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD},
};
use coracle_proto::schema::{Field, Shape, Type};
use serde_json::Value;

const LENIENT: GeneralPurpose =
    GeneralPurpose::new(&alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));

/// The first byte of a text that makes it no base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("illegal base64 data at input byte {0}")]
pub(super) struct Corrupt(usize);

/// Writes the bytes of a document of the type as everybody reads them, and says whether any were not.
///
/// # Errors
/// Where one of them is no base64.
pub(super) fn tidy(value: &mut Value, ty: &Type) -> Result<bool, Corrupt> {
    let Value::Object(map) = value else { return Ok(false) };
    let mut is_changed = false;
    for (name, value) in map {
        if let Some(field) = ty.field(name) {
            is_changed |= tidy_field(value, field)?;
        }
    }
    Ok(is_changed)
}

fn tidy_field(value: &mut Value, field: &Field) -> Result<bool, Corrupt> {
    if field.is_bytes {
        return match value {
            Value::Object(map) => any(map.values_mut(), tidy_text),
            text => tidy_text(text),
        };
    }
    let Some(child) = field.child() else { return Ok(false) };
    match (field.shape, value) {
        (Shape::List, Value::Array(list)) => any(list.iter_mut(), |value| tidy(value, child)),
        (Shape::Map, Value::Object(map)) => any(map.values_mut(), |value| tidy(value, child)),
        (Shape::Object, value) => tidy(value, child),
        _ => Ok(false),
    }
}

fn any<'v>(
    values: impl Iterator<Item = &'v mut Value>,
    tidy: impl Fn(&mut Value) -> Result<bool, Corrupt>,
) -> Result<bool, Corrupt> {
    let mut is_changed = false;
    for value in values {
        is_changed |= tidy(value)?;
    }
    Ok(is_changed)
}

fn tidy_text(value: &mut Value) -> Result<bool, Corrupt> {
    let Value::String(text) = value else { return Ok(false) };
    if STANDARD.decode(text.as_bytes()).is_ok() {
        return Ok(false);
    }
    let joined: Vec<u8> = text.bytes().filter(|byte| !is_line_end(*byte)).collect();
    let bytes = LENIENT.decode(joined).map_err(|_| Corrupt(fault(text.as_bytes())))?;
    *text = STANDARD.encode(bytes);
    Ok(true)
}

const fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

/// Where Go says that a text which is no base64 is corrupt: at the first wrong character, at the group of four that is cut
/// short, or after padding that should have been the end.
fn fault(text: &[u8]) -> usize {
    let past_line_ends = |mut at: usize| {
        while text.get(at).copied().is_some_and(is_line_end) {
            at += 1;
        }
        at
    };
    let (mut at, mut in_group) = (0, 0);
    while let Some(byte) = text.get(at) {
        at += 1;
        match byte {
            b'=' if in_group < 2 => return at - 1,
            b'=' if in_group == 2 => {
                at = past_line_ends(at);
                return match text.get(at) {
                    None => text.len(),
                    Some(b'=') => past_line_ends(at + 1),
                    Some(_) => at - 1,
                };
            }
            b'=' => return past_line_ends(at),
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'+' | b'/' => in_group = (in_group + 1) % 4,
            byte if is_line_end(*byte) => {}
            _ => return at - 1,
        }
    }
    at.saturating_sub(in_group)
}

#[cfg(test)]
mod tests {
    use coracle_proto::schema;
    use proptest::prelude::{any as any_of, prop_assert, prop_assert_eq, proptest};
    use serde_json::json;

    use super::*;

    fn tidied(kind: &str, mut value: Value) -> Result<Value, String> {
        let group = if kind == "ValidatingWebhookConfiguration" { "admissionregistration.k8s.io" } else { "" };
        let root = schema::of_kind(group, "v1", kind).unwrap();
        tidy(&mut value, root).map(|_| value).map_err(|corrupt| corrupt.to_string())
    }

    #[test]
    fn line_ends_and_what_is_left_over_are_passed_over() {
        for (given, expected) in [
            ("aGVsbG8=", "aGVsbG8="),
            ("aGVs\nbG8=\n", "aGVsbG8="),
            ("aGVs\r\nbG8\r\n=\r\n", "aGVsbG8="),
            ("aGl=", "aGk="),
            ("\n", ""),
            ("", ""),
        ] {
            let secret = json!({"data": {"a": given}, "stringData": {"a": "x\n"}});
            let tidy = json!({"data": {"a": expected}, "stringData": {"a": "x\n"}});
            assert_eq!(tidied("Secret", secret).unwrap(), tidy, "{given:?}");
        }
        let webhooks = json!({"webhooks": [{"clientConfig": {"caBundle": "aGk=\n", "url": "a\nb"}}]});
        assert_eq!(
            tidied("ValidatingWebhookConfiguration", webhooks).unwrap(),
            json!({"webhooks": [{"clientConfig": {"caBundle": "aGk=", "url": "a\nb"}}]})
        );
    }

    #[test]
    fn what_is_no_base64_is_told_where_go_tells_it() {
        for (given, at) in [
            ("*", 0),
            ("aGk*", 3),
            ("a", 0),
            ("aG", 0),
            ("aGVsbG8", 4),
            ("aGVsbG", 4),
            ("=", 0),
            ("a=", 1),
            ("aG=", 3),
            ("aG=x", 2),
            ("aG==x", 4),
            ("aGk=x", 4),
            ("aGVs bG8=", 4),
            ("ü", 0),
        ] {
            assert_eq!(
                tidied("Secret", json!({"data": {"a": given}})).unwrap_err(),
                format!("illegal base64 data at input byte {at}"),
                "{given:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_and_bytes_are_kept(
            text in "[a-zA-Z0-9+/=\n*]{0,12}", bytes in any_of::<Vec<u8>>(), cut in 1_usize..9,
        ) {
            let _ = tidied("Secret", json!({"data": {"a": text}}));
            prop_assert!(fault(text.as_bytes()) <= text.len());
            let written = STANDARD.encode(&bytes);
            let lines = written.as_bytes().chunks(cut).map(|line| std::str::from_utf8(line).unwrap());
            let wrapped = lines.collect::<Vec<_>>().join("\n");
            let read = tidied("Secret", json!({"data": {"a": wrapped}})).unwrap();
            prop_assert_eq!(&read["data"]["a"], &json!(written));
        }
    }
}
