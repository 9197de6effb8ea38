//! Validation of label selectors.

use coracle_proto::{
    field::{Error, Errors, Path},
    name,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

use super::{blank::list, rules};

/// Everything wrong with a selector.
pub(super) fn validate(errors: &mut Errors, path: &Path, selector: &LabelSelector) {
    rules::labels(errors, &path.child("matchLabels"), selector.match_labels.as_ref());
    for (i, requirement) in list(&selector.match_expressions).iter().enumerate() {
        validate_requirement(errors, &path.child("matchExpressions").index(i), requirement);
    }
}

fn validate_requirement(errors: &mut Errors, path: &Path, requirement: &LabelSelectorRequirement) {
    let values = list(&requirement.values);
    let at = path.child("values");
    match requirement.operator.as_str() {
        "In" | "NotIn" if values.is_empty() => {
            errors.push(Error::required(&at, "must be specified when `operator` is 'In' or 'NotIn'"));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            errors.push(Error::forbidden(&at, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        other => errors.push(Error::invalid(&path.child("operator"), other, "not a valid selector operator")),
    }
    rules::label_name(errors, &path.child("key"), &requirement.key);
    for (i, value) in values.iter().enumerate() {
        rules::messages(errors, &at.index(i), value, name::label_value(value));
    }
}
