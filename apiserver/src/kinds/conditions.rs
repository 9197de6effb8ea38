//! Validation of the conditions that all newer kinds share.

use std::collections::BTreeSet;

use coracle_proto::{
    field::{Error, Errors, Path},
    name, schema,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::rules;

/// As many bytes as a reason and a message may have.
const REASON_SIZE: usize = 1024;
const MESSAGE_SIZE: usize = 32 * 1024;

/// Everything wrong with a status' conditions, of which there is one a type.
pub(super) fn validate(errors: &mut Errors, path: &Path, conditions: &[Condition]) {
    let mut seen = BTreeSet::new();
    for (i, condition) in conditions.iter().enumerate() {
        let at = path.index(i);
        if !seen.insert(&condition.type_) {
            errors.push(Error::duplicate(&at.child("type"), condition.type_.as_str()));
        }
        validate_one(errors, &at, condition);
    }
}

fn validate_one(errors: &mut Errors, path: &Path, condition: &Condition) {
    rules::label_name(errors, &path.child("type"), &condition.type_);
    rules::known_word(errors, &path.child("status"), &condition.status, &["False", "True", "Unknown"]);
    if let Some(generation) = condition.observed_generation.filter(|generation| *generation < 0) {
        let at = path.child("observedGeneration");
        errors.push(Error::invalid(&at, generation, "must be greater than or equal to zero"));
    }
    if schema::zero::is_zero(&condition.last_transition_time) {
        errors.push(Error::required(&path.child("lastTransitionTime"), "must be set"));
    }
    let at = path.child("reason");
    if condition.reason.is_empty() {
        errors.push(Error::required(&at, ""));
    } else {
        rules::messages(errors, &at, &condition.reason, name::condition_reason(&condition.reason));
        if condition.reason.len() > REASON_SIZE {
            errors.push(Error::too_long(&at, REASON_SIZE));
        }
    }
    if condition.message.len() > MESSAGE_SIZE {
        errors.push(Error::too_long(&path.child("message"), MESSAGE_SIZE));
    }
}
