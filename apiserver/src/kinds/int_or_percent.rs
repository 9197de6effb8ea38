//! Numbers that may be given as a part of a hundred: `3`, `25%`.

use coracle_proto::{
    field::{Error, Errors, Path},
    name,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::rules;

/// A number that is not negative, or a percentage.
pub(super) fn validate(errors: &mut Errors, path: &Path, count: &IntOrString) {
    match count {
        IntOrString::Int(number) => rules::not_negative(errors, path, (*number).into()),
        IntOrString::String(percent) => rules::messages(errors, path, percent, name::percent(percent)),
    }
}

/// A percentage of a hundred at most; plain numbers are not looked at.
pub(super) fn at_most_all(errors: &mut Errors, path: &Path, count: &IntOrString) {
    if percentage(count).is_some_and(|percent| percent > 100) {
        errors.push(Error::invalid(path, rules::json(count), "must not be greater than 100%"));
    }
}

/// The percentage, if it is one.
pub(super) fn percentage(count: &IntOrString) -> Option<i64> {
    match count {
        IntOrString::Int(_) => None,
        IntOrString::String(text) => text.strip_suffix('%')?.parse().ok(),
    }
}

/// The number, whichever way it is given; what cannot be read counts as nothing.
pub(super) fn amount(count: &IntOrString) -> i64 {
    match count {
        IntOrString::Int(number) => (*number).into(),
        IntOrString::String(_) => percentage(count).unwrap_or(0),
    }
}

/// As a table shows it.
pub(super) fn shown(count: &IntOrString) -> String {
    match count {
        IntOrString::Int(number) => number.to_string(),
        IntOrString::String(text) => text.clone(),
    }
}
