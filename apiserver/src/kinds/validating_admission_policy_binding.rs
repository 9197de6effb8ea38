//! ValidatingAdmissionPolicyBindings: for which requests a policy is asked, with which parameters, and what follows.

use std::collections::BTreeSet;

use coracle_proto::{
    field::{Error, Errors, Path},
    name::subdomain_rule,
    resource::Resource,
};
use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::{ParamRef, ValidatingAdmissionPolicyBinding};
use serde_json::Value;

use super::{
    admission_match::{default_match, validate_match, validate_param_ref},
    blank::text,
    cells, rules,
};
use crate::kind::{AGE, Column, NAME, Strategy, age};

/// The strategy of `validatingadmissionpolicybindings.admissionregistration.k8s.io`.
#[derive(Clone, Copy, Debug, Default)]
pub struct ValidatingAdmissionPolicyBindings;

const COLUMNS: &[Column] = &[
    NAME,
    cells::column("PolicyName", "PolicyName indicates the policy definition which the policy binding binded to"),
    cells::column("ParamRef", "ParamRef indicates the param resource which sets the configuration param"),
    AGE,
];

/// The cell of a binding's parameters.
pub(super) fn param_cell(wanted: Option<&ParamRef>) -> String {
    match wanted {
        None => "<unset>".to_owned(),
        Some(wanted) => match (text(&wanted.namespace), text(&wanted.name), &wanted.selector) {
            ("", "", None) => "<unset>".to_owned(),
            (_, "", Some(selector)) => cells::selector(selector),
            ("", name, _) => format!("*/{name}"),
            (namespace, name, _) => format!("{namespace}/{name}"),
        },
    }
}

impl Strategy for ValidatingAdmissionPolicyBindings {
    type Object = ValidatingAdmissionPolicyBinding;

    fn resource(&self) -> &'static Resource {
        super::row_of("admissionregistration.k8s.io", "validatingadmissionpolicybindings")
    }

    fn default(&self, object: &mut ValidatingAdmissionPolicyBinding) {
        if let Some(resources) = &mut object.spec.match_resources {
            default_match(resources);
        }
    }

    fn validate(&self, object: &ValidatingAdmissionPolicyBinding) -> Errors {
        let (mut errors, path) = (Errors::new(), Path::new("spec"));
        let spec = object.spec.clone();
        let at = path.child("policyName");
        if spec.policy_name.is_empty() {
            errors.push(Error::required(&at, ""));
        } else {
            rules::messages(&mut errors, &at, &spec.policy_name, subdomain_rule(&spec.policy_name, false));
        }
        if let Some(wanted) = &spec.param_ref {
            validate_param_ref(&mut errors, &path.child("paramRef"), wanted);
        }
        if let Some(resources) = &spec.match_resources {
            validate_match(&mut errors, &path.child("matchResources"), resources);
        }
        validate_actions(&mut errors, &path.child("validationActions"), &spec.validation_actions);
        errors
    }

    fn counts_generations(&self) -> bool {
        true
    }

    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &ValidatingAdmissionPolicyBinding, now: Timestamp) -> Vec<Value> {
        let spec = object.spec.clone();
        vec![
            cells::name(&object.metadata),
            spec.policy_name.into(),
            param_cell(spec.param_ref.as_ref()).into(),
            age(&object.metadata, now).into(),
        ]
    }
}

fn validate_actions(errors: &mut Errors, path: &Path, actions: &[String]) {
    let mut seen = BTreeSet::new();
    for (i, action) in actions.iter().enumerate() {
        rules::known_word(errors, &path.index(i), action, &["Audit", "Deny", "Warn"]);
        if !seen.insert(action.as_str()) {
            errors.push(Error::duplicate(&path.index(i), action.as_str()));
        }
    }
    if seen.contains("Deny") && seen.contains("Warn") {
        let detail = "must not contain both Deny and Warn (repeating the same validation failure information in the API \
                      response and headers serves no purpose)";
        errors.push(Error::invalid(path, actions.to_vec(), detail));
    }
    if actions.is_empty() {
        errors.push(Error::required(path, "at least one validation action is required"));
    }
}

#[cfg(test)]
mod tests;
