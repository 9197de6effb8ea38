//! Rules that fields of many kinds share, in Kubernetes' words.

use std::{collections::BTreeMap, net::IpAddr};

use coracle_proto::{
    field::{Error, Errors, Path},
    name,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// What is wrong with a text, in sentences; none when nothing is.
pub(crate) type Rule = fn(&str) -> Vec<String>;

/// Adds one error a message of a name rule.
pub(super) fn messages(errors: &mut Errors, path: &Path, value: &str, messages: Vec<String>) {
    errors.extend(messages.into_iter().map(|message| Error::invalid(path, value, &message)));
}

/// A number that may be zero but not less.
pub(super) fn not_negative(errors: &mut Errors, path: &Path, value: i64) {
    if value < 0 {
        errors.push(Error::invalid(path, value, "must be greater than or equal to 0"));
    }
}

/// A count that only goes up.
pub(super) fn not_decremented(errors: &mut Errors, path: &Path, new: Option<i32>, old: Option<i32>) {
    if old.is_some_and(|before| new.is_none_or(|now| now < before)) {
        errors.push(Error::invalid(path, new.unwrap_or(0), "cannot be decremented"));
    }
}

/// A number that must be more than zero.
pub(super) fn positive(errors: &mut Errors, path: &Path, value: i64) {
    if value <= 0 {
        errors.push(Error::invalid(path, value, "must be greater than 0"));
    }
}

/// A word that must be given and be one of the known ones.
pub(super) fn one_of(errors: &mut Errors, path: &Path, value: &str, known: &[&str]) {
    if value.is_empty() {
        errors.push(Error::required(path, ""));
    } else {
        known_word(errors, path, value, known);
    }
}

/// A word that must be one of the known ones.
pub(super) fn known_word(errors: &mut Errors, path: &Path, value: &str, known: &[&str]) {
    if !known.contains(&value) {
        errors.push(Error::not_supported(path, value, known));
    }
}

/// A value that may not change.
pub(super) fn immutable<T: PartialEq + serde::Serialize>(errors: &mut Errors, path: &Path, new: &T, old: &T) {
    if new != old {
        errors.push(Error::immutable(path, json(new)));
    }
}

/// A value as errors print it.
pub(super) fn json<T: serde::Serialize>(value: &T) -> serde_json::Value {
    serde_json::to_value(value).unwrap_or(serde_json::Value::Null)
}

/// The name of a CSI driver, in large or small letters.
pub(super) fn csi_driver(errors: &mut Errors, path: &Path, driver: &str) {
    if driver.is_empty() {
        errors.push(Error::required(path, ""));
        return;
    }
    if driver.len() > 63 {
        errors.push(Error::too_long(path, 63));
    }
    messages(errors, path, driver, name::dns1123_subdomain(&driver.to_lowercase()));
}

/// An address that traffic may be sent to: none of those that mean the sender itself, or its link.
pub(super) fn not_special_ip(errors: &mut Errors, path: &Path, text: &str, address: IpAddr) {
    let is_link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || (v4.is_multicast() && v4.octets().starts_with(&[224, 0, 0])),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || (v6.octets().starts_with(&[0xff, 0x02])),
    };
    let unspecified = format!("may not be unspecified ({text})");
    for (is_so, detail) in [
        (address.is_unspecified(), unspecified.as_str()),
        (address.is_loopback(), "may not be in the loopback range (127.0.0.0/8, ::1/128)"),
        (is_link_local && !address.is_multicast(), "may not be in the link-local range (169.254.0.0/16, fe80::/10)"),
        (
            is_link_local && address.is_multicast(),
            "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)",
        ),
    ] {
        if is_so {
            errors.push(Error::invalid(path, text, detail));
        }
    }
}

/// The key of a label.
pub(super) fn label_name(errors: &mut Errors, path: &Path, key: &str) {
    messages(errors, path, key, name::qualified_name(key));
}

/// Labels; the path of every error is that of the whole map.
pub(super) fn labels(errors: &mut Errors, path: &Path, labels: Option<&BTreeMap<String, String>>) {
    for (key, value) in labels.into_iter().flatten() {
        label_name(errors, path, key);
        messages(errors, path, value, name::label_value(value));
    }
}

/// All annotations of an object together, in bytes.
const ANNOTATIONS_SIZE: usize = 256 * 1024;

/// Annotations; the path of every error is that of the whole map.
pub(super) fn annotations(errors: &mut Errors, path: &Path, annotations: Option<&BTreeMap<String, String>>) {
    let mut size = 0;
    for (key, value) in annotations.into_iter().flatten() {
        messages(errors, path, key, name::qualified_name(&key.to_lowercase()));
        size += key.len() + value.len();
    }
    if size > ANNOTATIONS_SIZE {
        errors.push(Error::too_long(path, ANNOTATIONS_SIZE));
    }
}

/// A relative path without `..`.
pub(super) fn descending_path(errors: &mut Errors, path: &Path, value: &str) {
    if value.starts_with('/') {
        errors.push(Error::invalid(path, value, "must be a relative path"));
    }
    no_backsteps(errors, path, value);
}

/// A path without `..`.
pub(super) fn no_backsteps(errors: &mut Errors, path: &Path, value: &str) {
    if value.split('/').any(|part| part == "..") {
        errors.push(Error::invalid(path, value, "must not contain '..'"));
    }
}

/// A relative path without `..` that does not even start with two dots, as the names of the links that make volumes
/// change at one stroke do.
pub(super) fn unreserved_path(errors: &mut Errors, path: &Path, value: &str) {
    descending_path(errors, path, value);
    if value.starts_with("..") && !value.starts_with("../") && value != ".." {
        errors.push(Error::invalid(path, value, "must not start with '..'"));
    }
}

/// Permission bits of a file.
pub(super) fn file_mode(errors: &mut Errors, path: &Path, mode: Option<i32>) {
    if let Some(mode) = mode
        && !(0..=0o777).contains(&mode)
    {
        let detail = "must be a number between 0 and 0777 (octal), both inclusive";
        errors.push(Error::invalid(path, mode, detail));
    }
}

/// A name that must be given and may stand as one segment of a URL's path.
pub(super) fn required_segment(errors: &mut Errors, path: &Path, value: &str) {
    if value.is_empty() {
        errors.push(Error::required(path, ""));
    } else {
        messages(errors, path, value, name::path_segment(value));
    }
}

/// The name of a CSI driver.
pub(super) fn csi_driver_name(errors: &mut Errors, path: &Path, value: &str) {
    if value.is_empty() {
        return errors.push(Error::required(path, ""));
    }
    if value.len() > 63 {
        errors.push(Error::too_long(path, 63));
    }
    messages(errors, path, value, name::dns1123_subdomain(&value.to_lowercase()));
}

/// A path behind a domain: `acme.io/foo`.
pub(super) fn domain_prefixed_path(errors: &mut Errors, path: &Path, value: &str) {
    if value.is_empty() {
        return errors.push(Error::required(path, ""));
    }
    match value.split_once('/') {
        Some((host, rest)) if !host.is_empty() && !rest.is_empty() => {
            messages(errors, path, host, name::dns1123_subdomain(host));
            let is_path = |b: u8| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b);
            if !rest.bytes().all(is_path) {
                let detail = r"Invalid path (regex used for validation is '[A-Za-z0-9/\-._~%!$&'()*+,;=:]+')";
                errors.push(Error::invalid(path, rest, detail));
            }
        }
        _ => {
            let detail = "must be a domain-prefixed path (such as \"acme.io/foo\")";
            errors.push(Error::invalid(path, value, detail));
        }
    }
}

/// An update of the status keeps what of the metadata is not its own.
pub(super) fn keep_meta_for_status(new: &mut ObjectMeta, old: &ObjectMeta) {
    new.labels.clone_from(&old.labels);
    new.annotations.clone_from(&old.annotations);
    new.finalizers.clone_from(&old.finalizers);
    new.owner_references.clone_from(&old.owner_references);
}

/// The types of a status' conditions: given, and each once.
pub(super) fn condition_types<'a>(types: impl Iterator<Item = &'a str>) -> Errors {
    let (mut errors, path) = (Errors::new(), Path::new("status").child("conditions"));
    let mut seen = std::collections::BTreeSet::new();
    for (i, kind) in types.enumerate() {
        let at = path.index(i).child("type");
        if !seen.insert(kind) {
            errors.push(Error::duplicate(&at, kind));
        }
        if kind.is_empty() {
            errors.push(Error::required(&at, ""));
        }
    }
    errors
}

/// A DNS label that must be given.
pub(super) fn required_label(errors: &mut Errors, path: &Path, value: &str) {
    if value.is_empty() {
        errors.push(Error::required(path, ""));
    } else {
        messages(errors, path, value, name::dns1123_label(value));
    }
}

/// The name of a pool of devices: DNS subdomains separated by slashes.
pub(super) fn pool_name(errors: &mut Errors, path: &Path, value: &str) {
    if value.is_empty() {
        return errors.push(Error::required(path, ""));
    }
    if value.len() > 253 {
        errors.push(Error::too_long(path, 253));
    }
    for part in value.split('/') {
        messages(errors, path, part, name::dns1123_subdomain(part));
    }
}

/// The name of a signer: a domain and a path, `example.com/signer`.
pub(super) fn signer_name(errors: &mut Errors, path: &Path, signer: &str) {
    if signer.is_empty() {
        return errors.push(Error::required(path, ""));
    }
    let Some((domain, rest)) = signer.split_once('/').filter(|(_, rest)| !rest.contains('/')) else {
        let detail = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        return errors.push(Error::invalid(path, signer, detail));
    };
    if domain.len() > 253 {
        errors.push(Error::too_long(path, 253));
    }
    let rules: [(&str, Rule); 2] = [(domain, name::dns1123_label), (rest, name::dns1123_subdomain)];
    for (part, rule) in rules {
        let wrong = part.split('.').map(|label| (label, rule(label))).find(|(_, wrong)| !wrong.is_empty());
        if let Some((label, wrong)) = wrong {
            let details = wrong.iter().map(|why| format!("validating label {label:?}: {why}"));
            errors.extend(details.map(|detail| Error::invalid(path, part, &detail)));
        }
        if part == domain && !domain.contains('.') {
            let detail = "should be a domain with at least two segments separated by dots";
            errors.push(Error::invalid(path, domain, detail));
        }
    }
    let longest = 253 + 1 + 253 + 63 + 1;
    if signer.len() > longest {
        errors.push(Error::too_long(path, longest));
    }
}
