//! MutatingAdmissionPolicyBindings: which requests a mutating policy is for, and with which parameters.

use coracle_proto::{
    field::{Error, Errors, Path},
    name::subdomain_rule,
    resource::Resource,
};
use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::MutatingAdmissionPolicyBinding;
use serde_json::Value;

use super::{
    admission_match::{default_match, validate_match, validate_param_ref},
    blank::text,
    cells, rules,
    validating_admission_policy_binding::param_cell,
};
use crate::kind::{AGE, Column, NAME, Strategy, age};

/// The strategy of `mutatingadmissionpolicybindings.admissionregistration.k8s.io`.
#[derive(Clone, Copy, Debug, Default)]
pub struct MutatingAdmissionPolicyBindings;

const COLUMNS: &[Column] = &[
    NAME,
    cells::column("PolicyName", "PolicyName indicates the policy definition which the policy binding binded to"),
    cells::column("ParamRef", "ParamRef indicates the param resource which sets the configuration param"),
    AGE,
];

impl Strategy for MutatingAdmissionPolicyBindings {
    type Object = MutatingAdmissionPolicyBinding;

    fn resource(&self) -> &'static Resource {
        super::row_of("admissionregistration.k8s.io", "mutatingadmissionpolicybindings")
    }

    fn default(&self, object: &mut MutatingAdmissionPolicyBinding) {
        if let Some(resources) = &mut object.spec.get_or_insert_default().match_resources {
            default_match(resources);
        }
    }

    fn validate(&self, object: &MutatingAdmissionPolicyBinding) -> Errors {
        let (mut errors, path) = (Errors::new(), Path::new("spec"));
        let spec = object.spec.clone().unwrap_or_default();
        let (at, name) = (path.child("policyName"), text(&spec.policy_name));
        if name.is_empty() {
            errors.push(Error::required(&at, ""));
        } else {
            rules::messages(&mut errors, &at, name, subdomain_rule(name, false));
        }
        if let Some(wanted) = &spec.param_ref {
            validate_param_ref(&mut errors, &path.child("paramRef"), wanted);
        }
        if let Some(resources) = &spec.match_resources {
            validate_match(&mut errors, &path.child("matchResources"), resources);
        }
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

    fn row(&self, object: &MutatingAdmissionPolicyBinding, now: Timestamp) -> Vec<Value> {
        let spec = object.spec.clone().unwrap_or_default();
        vec![
            cells::name(&object.metadata),
            text(&spec.policy_name).into(),
            param_cell(spec.param_ref.as_ref()).into(),
            age(&object.metadata, now).into(),
        ]
    }
}

#[cfg(test)]
mod tests;
