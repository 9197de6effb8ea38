//! Tolerations of taints, and taints.

use coracle_proto::{
    field::{Error, Errors, Path},
    name,
};
use k8s_openapi::api::core::v1::{Taint, Toleration};

use super::{blank::text, rules};

const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// Everything wrong with the tolerations.
pub(super) fn validate(errors: &mut Errors, path: &Path, tolerations: &[Toleration]) {
    for (i, toleration) in tolerations.iter().enumerate() {
        validate_one(errors, &path.index(i), toleration);
    }
}

fn validate_one(errors: &mut Errors, path: &Path, toleration: &Toleration) {
    let (key, operator) = (text(&toleration.key), text(&toleration.operator));
    let (value, effect) = (text(&toleration.value), text(&toleration.effect));
    let at = path.child("operator");
    if !key.is_empty() {
        rules::label_name(errors, &path.child("key"), key);
    } else if operator != "Exists" {
        let detail = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
        errors.push(Error::invalid(&at, operator, detail));
    }
    if toleration.toleration_seconds.is_some() && effect != "NoExecute" {
        let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        errors.push(Error::invalid(&path.child("effect"), effect, detail));
    }
    match operator {
        "" | "Equal" => {
            let wrong = name::label_value(value);
            if !wrong.is_empty() {
                errors.push(Error::invalid(&at, value, &wrong.join(";")));
            }
        }
        "Exists" if !value.is_empty() => {
            errors.push(Error::invalid(&at, value, "value must be empty when `operator` is 'Exists'"));
        }
        "Exists" => {}
        // These two have names in the API and are switched off by default in Kubernetes 1.36 (KEP-5471).
        "Lt" | "Gt" => errors.push(Error::not_supported(&at, operator, &["Equal", "Exists", "Lt", "Gt"])),
        other => errors.push(Error::not_supported(&at, other, &["Equal", "Exists"])),
    }
    if !effect.is_empty() {
        rules::known_word(errors, &path.child("effect"), effect, EFFECTS);
    }
}

/// What an update of a pod may do to its tolerations: add some, and change how long they last.
pub(super) fn validate_only_added(errors: &mut Errors, path: &Path, new: &[Toleration], old: &[Toleration]) {
    for before in old {
        let is_kept = new.iter().any(|toleration| {
            let same = Toleration { toleration_seconds: toleration.toleration_seconds, ..before.clone() };
            same == *toleration
        });
        if !is_kept {
            let detail = "existing toleration can not be modified except its tolerationSeconds";
            errors.push(Error::forbidden(path, detail));
            return;
        }
    }
    validate(errors, path, new);
}

/// Everything wrong with a node's taints.
pub(super) fn validate_taints(errors: &mut Errors, path: &Path, taints: &[Taint]) {
    for (i, taint) in taints.iter().enumerate() {
        let at = path.index(i);
        rules::label_name(errors, &at.child("key"), &taint.key);
        let value = text(&taint.value);
        let wrong = name::label_value(value);
        if !wrong.is_empty() {
            errors.push(Error::invalid(&at.child("value"), value, &wrong.join(";")));
        }
        rules::one_of(errors, &at.child("effect"), &taint.effect, EFFECTS);
        let is_repeated = taints.iter().take(i).any(|t| t.key == taint.key && t.effect == taint.effect);
        if is_repeated {
            let mut error = Error::duplicate(&at, rules::json(taint));
            error.message.push_str(": taints must be unique by key and effect pair");
            errors.push(error);
        }
    }
}
