//! Named formats: `format.dns1123Label().validate(x)`.

use coracle_proto::name;

/// A format and how texts are checked against it.
#[derive(Debug)]
pub struct Named {
    /// As expressions name it.
    pub name: &'static str,
    check: fn(&str) -> Vec<String>,
}

impl Named {
    /// What is wrong with a text; nothing of one in this format.
    #[must_use]
    pub fn check(&self, text: &str) -> Vec<String> {
        (self.check)(text)
    }
}

fn or(is: bool, message: &str) -> Vec<String> {
    if is { Vec::new() } else { vec![message.to_owned()] }
}

/// A prefix may end in a dash, as what is generated behind it does not.
fn prefix(text: &str, check: fn(&str) -> Vec<String>) -> Vec<String> {
    match text.strip_suffix('-') {
        Some(head) => check(&format!("{head}a")),
        None => check(text),
    }
}

fn is_base64(text: &str) -> bool {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).is_ok()
}

/// An UUID with or without dashes, in any case.
#[must_use]
pub fn is_uuid(text: &str) -> bool {
    let bare: String = text.chars().filter(|c| *c != '-').collect();
    let dashes_at = [8, 13, 18, 23];
    let bytes = text.as_bytes();
    bare.len() == 32
        && bare.bytes().all(|b| b.is_ascii_hexdigit())
        && (text.len() == 32 || (text.len() == 36 && dashes_at.iter().all(|i| bytes.get(*i) == Some(&b'-'))))
}

/// All formats there are.
const FORMATS: &[Named] = &[
    Named { name: "dns1123Label", check: name::dns1123_label },
    Named { name: "dns1123Subdomain", check: name::dns1123_subdomain },
    Named { name: "dns1035Label", check: name::dns1035_label },
    Named { name: "qualifiedName", check: name::qualified_name },
    Named { name: "dns1123LabelPrefix", check: |text| prefix(text, name::dns1123_label) },
    Named { name: "dns1123SubdomainPrefix", check: |text| prefix(text, name::dns1123_subdomain) },
    Named { name: "dns1035LabelPrefix", check: |text| prefix(text, name::dns1035_label) },
    Named { name: "labelValue", check: name::label_value },
    Named { name: "uri", check: |text| or(super::library::url::Url::parse(text).is_some(), "invalid URI") },
    Named { name: "uuid", check: |text| or(is_uuid(text), "does not match the UUID format") },
    Named { name: "byte", check: |text| or(is_base64(text), "invalid base64") },
    Named { name: "date", check: |text| or(super::time::date(text).is_ok(), "invalid date") },
    Named { name: "datetime", check: |text| or(super::time::timestamp(text).is_ok(), "invalid datetime") },
];

/// The format of this name.
#[must_use]
pub fn named(name: &str) -> Option<&'static Named> {
    FORMATS.iter().find(|format| format.name == name)
}

/// Whether a text is a point in time as RFC 3339 has it.
#[must_use]
pub fn is_datetime(text: &str) -> bool {
    super::time::timestamp(text).is_ok()
}

/// Whether a text is a day as RFC 3339 has it.
#[must_use]
pub fn is_date(text: &str) -> bool {
    super::time::date(text).is_ok()
}

/// Whether a text is a span of time as Go reads it.
#[must_use]
pub fn is_duration(text: &str) -> bool {
    super::time::duration(text).is_ok()
}

/// Whether a text is an URI as Go's `url.ParseRequestURI` takes it.
#[must_use]
pub fn is_uri(text: &str) -> bool {
    super::library::url::Url::parse(text).is_some()
}
