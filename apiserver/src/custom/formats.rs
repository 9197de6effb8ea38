//! Formats of texts that schemas name; others are ignored, as in Kubernetes.

use std::collections::BTreeMap;

use coracle_proto::name;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};

use crate::{cel::format, go_regex};

fn matches(pattern: &str, text: &str) -> bool {
    go_regex::compile(pattern).is_ok_and(|regex| regex.is_match(text))
}

/// An UUID of one version (`None`: of any).
fn is_uuid(text: &str, version: Option<u8>) -> bool {
    let bare: Vec<u8> = text.bytes().filter(|b| *b != b'-').map(|b| b.to_ascii_lowercase()).collect();
    format::is_uuid(text)
        && version.is_none_or(|version| {
            let variant = version == b'3' || bare.get(16).is_some_and(|b| b"89ab".contains(b));
            bare.get(12) == Some(&version) && variant
        })
}

fn is_isbn10(text: &str) -> bool {
    let digits: Vec<u32> = text
        .chars()
        .filter(|c| !matches!(c, '-' | ' '))
        .map(|c| if matches!(c, 'X' | 'x') { 10 } else { c.to_digit(10).unwrap_or(99) })
        .collect();
    let is_digits = digits.iter().enumerate().all(|(i, d)| *d < 10 || (i == 9 && *d == 10));
    digits.len() == 10 && is_digits && digits.iter().zip((1..=10).rev()).map(|(d, w)| d * w).sum::<u32>() % 11 == 0
}

fn is_isbn13(text: &str) -> bool {
    let digits: Vec<u32> =
        text.chars().filter(|c| !matches!(c, '-' | ' ')).map(|c| c.to_digit(10).unwrap_or(99)).collect();
    let sum: u32 = digits.iter().zip([1, 3].into_iter().cycle()).map(|(d, w)| d * w).sum();
    digits.len() == 13 && digits.iter().all(|d| *d < 10) && sum.is_multiple_of(10)
}

fn is_email(text: &str) -> bool {
    let address = match (text.rfind('<'), text.strip_suffix('>')) {
        (Some(at), Some(inner)) => inner.get(at + 1..).unwrap_or_default(),
        _ => text,
    };
    let Some((local, domain)) = address.rsplit_once('@') else { return false };
    let is_atom = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(c) || !c.is_ascii();
    let is_dotted =
        |part: &str| !part.is_empty() && !part.starts_with('.') && !part.ends_with('.') && !part.contains("..");
    is_dotted(local) && local.chars().all(is_atom) && is_dotted(domain) && domain.chars().all(is_atom)
}

fn is_mac(text: &str) -> bool {
    let groups = |separator: char, width: usize, counts: &[usize]| {
        let parts: Vec<&str> = text.split(separator).collect();
        counts.contains(&parts.len())
            && parts.iter().all(|part| part.len() == width && part.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    groups(':', 2, &[6, 8, 20]) || groups('-', 2, &[6, 8, 20]) || groups('.', 4, &[3, 4, 10])
}

fn is_cidr(text: &str) -> bool {
    let Some((ip, bits)) = text.split_once('/') else { return false };
    let Ok(ip) = ip.parse::<std::net::IpAddr>() else { return false };
    let most = if ip.is_ipv4() { 32 } else { 128 };
    bits.bytes().all(|b| b.is_ascii_digit()) && bits.parse::<u8>().is_ok_and(|bits| bits <= most)
}

/// Labels of letters, digits and dashes; of several the last is of letters.
fn is_hostname(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.chars().count())
            && label.chars().all(|c| c.is_alphanumeric() || c == '-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = text.rsplit_once('.').is_none_or(|(_, last)| last.len() > 1 && last.chars().all(char::is_alphabetic));
    text.len() <= 255 && last && text.split('.').all(is_label)
}

fn is_base64(text: &str) -> bool {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).is_ok()
}

/// Formats that texts may have; of others nothing is checked.
const TEXTS: &[&str] = &[
    "bsonobjectid",
    "uri",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "cidr",
    "mac",
    "uuid",
    "uuid3",
    "uuid4",
    "uuid5",
    "isbn",
    "isbn10",
    "isbn13",
    "creditcard",
    "ssn",
    "hexcolor",
    "rgbcolor",
    "byte",
    "password",
    "date",
    "duration",
    "datetime",
    "k8sshortname",
    "k8slongname",
];

/// The formats in a schema that nothing is checked of, each once: who wrote them may think otherwise.
pub(crate) fn unknown(schema: &JSONSchemaProps, found: &mut Vec<String>) {
    if let Some(format) = schema.format.as_ref().filter(|format| !format.is_empty()) {
        let is_known = match schema.type_.as_deref().unwrap_or_default() {
            "" | "string" => TEXTS.contains(&format.replace('-', "").as_str()),
            "integer" => ["int32", "int64"].contains(&format.as_str()),
            "number" => ["float", "double"].contains(&format.as_str()),
            _ => false,
        };
        if !is_known && !found.contains(format) {
            found.push(format.clone());
        }
    }
    let (items, more) = match &schema.items {
        None => (None, None),
        Some(JSONSchemaPropsOrArray::Schema(one)) => (Some(&**one), None),
        Some(JSONSchemaPropsOrArray::Schemas(all)) => (None, Some(all)),
    };
    let lists = [&schema.all_of, &schema.any_of, &schema.one_of].into_iter().flatten().chain(more).flatten();
    let maps = [&schema.properties, &schema.pattern_properties, &schema.definitions].into_iter().flatten();
    let bools = [&schema.additional_properties, &schema.additional_items].into_iter().flatten();
    let bools = bools.filter_map(|of| match of {
        JSONSchemaPropsOrBool::Schema(schema) => Some(&**schema),
        JSONSchemaPropsOrBool::Bool(_) => None,
    });
    let parts = items.into_iter().chain(schema.not.as_deref()).chain(bools).chain(lists);
    parts.chain(maps.flat_map(BTreeMap::values)).for_each(|part| unknown(part, found));
}

/// Whether a text is of the format; anything is of a format that is not known.
pub(super) fn is_of(format: &str, text: &str) -> bool {
    match format.replace('-', "").as_str() {
        "bsonobjectid" => text.len() == 24 && text.bytes().all(|b| b.is_ascii_hexdigit()),
        "uri" => format::is_uri(text),
        "email" => is_email(text),
        "hostname" => is_hostname(text),
        "ipv4" => text.parse::<std::net::Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<std::net::Ipv6Addr>().is_ok(),
        "cidr" => is_cidr(text),
        "mac" => is_mac(text),
        "uuid" => is_uuid(text, None),
        "uuid3" => is_uuid(text, Some(b'3')),
        "uuid4" => is_uuid(text, Some(b'4')),
        "uuid5" => is_uuid(text, Some(b'5')),
        "isbn" => is_isbn10(text) || is_isbn13(text),
        "isbn10" => is_isbn10(text),
        "isbn13" => is_isbn13(text),
        "creditcard" => {
            let digits: String = text.chars().filter(char::is_ascii_digit).collect();
            matches(
                r"^(?:4[0-9]{12}(?:[0-9]{3})?|5[1-5][0-9]{14}|6(?:011|5[0-9][0-9])[0-9]{12}|3[47][0-9]{13}|3(?:0[0-5]|[68][0-9])[0-9]{11}|(?:2131|1800|35\d{3})\d{11})$",
                &digits,
            )
        }
        "ssn" => matches(r"^\d{3}[- ]?\d{2}[- ]?\d{4}$", text),
        "hexcolor" => matches(r"^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$", text),
        "rgbcolor" => matches(
            r"^rgb\(\s*(0|[1-9]\d?|1\d\d?|2[0-4]\d|25[0-5])\s*,\s*(0|[1-9]\d?|1\d\d?|2[0-4]\d|25[0-5])\s*,\s*(0|[1-9]\d?|1\d\d?|2[0-4]\d|25[0-5])\s*\)$",
            text,
        ),
        "byte" => is_base64(text),
        "date" => format::is_date(text),
        "duration" => format::is_duration(text),
        "datetime" => format::is_datetime(text),
        "k8sshortname" => name::dns1123_label(text).is_empty(),
        "k8slongname" => name::dns1123_subdomain(text).is_empty(),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn formats_that_are_not_known_are_found_wherever_they_are() {
        let schema = serde_json::from_value(json!({"type": "object", "properties": {
            "a": {"type": "string", "format": "int64"},
            "b": {"type": "integer", "format": "int64"},
            "c": {"type": "array", "items": {"type": "string", "format": "k8s-short-name"}},
            "d": {"type": "object", "additionalProperties": {"anyOf": [{"format": "odd"}, {"format": "cidr"}]}},
            "e": {"type": "number", "format": "decimal"},
            "f": {"type": "string", "format": "odd", "not": {"format": "even"}},
        }}));
        let mut found = Vec::new();
        unknown(&schema.unwrap(), &mut found);
        assert_eq!(found, ["int64", "odd", "decimal", "even"]);
    }

    #[test]
    fn texts_are_checked_by_their_formats() {
        for (format, good, bad) in [
            ("ipv4", "10.0.0.1", "10.0.0"),
            ("ipv6", "::1", "10.0.0.1"),
            ("cidr", "10.0.0.0/8", "10.0.0.0/33"),
            ("mac", "00:11:22:aa:bb:cc", "00:11"),
            ("uuid", "7f3b1f1e-8f3c-4d2a-9a51-6f8f8f8f8f8f", "7f3b"),
            ("uuid4", "7f3b1f1e-8f3c-4d2a-9a51-6f8f8f8f8f8f", "7f3b1f1e-8f3c-3d2a-9a51-6f8f8f8f8f8f"),
            ("date-time", "2024-01-02T03:04:05Z", "2024-01-02"),
            ("date", "2024-01-02", "2024-13-02"),
            ("duration", "1h5m", "5 minutes"),
            ("byte", "aGk=", "!"),
            ("email", "a@b.example", "a.b"),
            ("hostname", "a.example.com", "-"),
            ("uri", "https://a.example/b", "a b"),
            ("isbn10", "0321751043", "0321751044"),
            ("isbn13", "978-0321751041", "978-0321751042"),
            ("ssn", "123-45-6789", "123"),
            ("hexcolor", "#FFFFFF", "#FF"),
            ("rgbcolor", "rgb(1, 2, 255)", "rgb(1, 2, 256)"),
            ("creditcard", "4111-1111-1111-1111", "1234"),
        ] {
            assert!(is_of(format, good), "{format} {good}");
            assert!(!is_of(format, bad), "{format} {bad}");
        }
        assert!(is_of("no-such-format", "anything") && is_of("password", "x"));
    }
}
