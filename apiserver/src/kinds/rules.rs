//! Rules that fields of many kinds share, in Kubernetes' words.

use std::collections::BTreeMap;

use coracle_proto::{
    field::{Error, Errors, Path},
    name,
};

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
