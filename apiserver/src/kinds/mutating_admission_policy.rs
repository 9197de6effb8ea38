//! MutatingAdmissionPolicies: changes that requests undergo, in CEL.

use coracle_proto::{
    field::{Error, Errors, Path},
    resource::Resource,
};
use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::{
    MatchResources, MutatingAdmissionPolicy, MutatingAdmissionPolicySpec, Mutation,
};
use serde_json::Value;

use super::{
    admission_match::{default_match, validate_conditions, validate_match, validate_param_kind},
    blank::{drop_blank, fill, list, text},
    cells, rules,
    validating_admission_policy::validate_variables,
};
use crate::{
    admission::policy::expressions::{Names, Wanted, compile, environment, with_variables},
    cel::Environment,
    kind::{AGE, Column, NAME, Strategy, age},
};

/// The strategy of `mutatingadmissionpolicies.admissionregistration.k8s.io`.
#[derive(Clone, Copy, Debug, Default)]
pub struct MutatingAdmissionPolicies;

const COLUMNS: &[Column] = &[
    NAME,
    cells::integer("Mutations", "Mutation indicates the number of mutations rules defined in this configuration"),
    cells::column("ParamKind", "ParamKind specifies the kind of resources used to parameterize this policy"),
    AGE,
];

impl Strategy for MutatingAdmissionPolicies {
    type Object = MutatingAdmissionPolicy;

    fn resource(&self) -> &'static Resource {
        super::row_of("admissionregistration.k8s.io", "mutatingadmissionpolicies")
    }

    fn default(&self, object: &mut MutatingAdmissionPolicy) {
        let spec = object.spec.get_or_insert_default();
        fill(&mut spec.failure_policy, "Fail".to_owned());
        if let Some(resources) = &mut spec.match_constraints {
            default_match(resources);
        }
        drop_blank(&mut spec.variables);
        drop_blank(&mut spec.mutations);
        drop_blank(&mut spec.match_conditions);
    }

    fn validate(&self, object: &MutatingAdmissionPolicy) -> Errors {
        let mut errors = Errors::new();
        validate_spec(&mut errors, &object.spec.clone().unwrap_or_default());
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

    fn row(&self, object: &MutatingAdmissionPolicy, now: Timestamp) -> Vec<Value> {
        let spec = object.spec.clone().unwrap_or_default();
        let kind = spec.param_kind.map(|kind| format!("{}/{}", text(&kind.api_version), text(&kind.kind)));
        vec![
            cells::name(&object.metadata),
            list(&spec.mutations).len().into(),
            kind.unwrap_or_else(|| "<unset>".to_owned()).into(),
            age(&object.metadata, now).into(),
        ]
    }
}

fn validate_constraints(errors: &mut Errors, path: &Path, resources: &MatchResources) {
    validate_match(errors, path, resources);
    let at = path.child("resourceRules");
    if list(&resources.resource_rules).is_empty() {
        errors.push(Error::required(&at, ""));
    }
    // What is deleted has nothing left to change.
    for operation in list(&resources.resource_rules).iter().flat_map(|rule| list(&rule.operations)) {
        rules::known_word(errors, &at.child("operations"), operation, &["*", "CONNECT", "CREATE", "UPDATE"]);
    }
}

fn validate_spec(errors: &mut Errors, spec: &MutatingAdmissionPolicySpec) {
    let path = Path::new("spec");
    rules::one_of(errors, &path.child("failurePolicy"), text(&spec.failure_policy), &["Fail", "Ignore"]);
    if let Some(kind) = &spec.param_kind {
        validate_param_kind(errors, &path.child("paramKind"), kind);
    }
    let at = path.child("matchConstraints");
    match &spec.match_constraints {
        None => errors.push(Error::required(&at, "")),
        Some(resources) => validate_constraints(errors, &at, resources),
    }
    let names = Names { params: spec.param_kind.is_some(), authorizer: true };
    validate_conditions(errors, &path.child("matchConditions"), list(&spec.match_conditions), names.params);
    let variables = validate_variables(errors, &path.child("variables"), list(&spec.variables), names);
    let all = with_variables(environment(names), &variables);
    let at = path.child("mutations");
    if list(&spec.mutations).is_empty() {
        errors.push(Error::required(&at, "mutations must contain at least one item"));
    }
    for (i, mutation) in list(&spec.mutations).iter().enumerate() {
        validate_mutation(errors, &at.index(i), mutation, &all);
    }
    let known = &["IfNeeded", "Never"];
    rules::one_of(errors, &path.child("reinvocationPolicy"), text(&spec.reinvocation_policy), known);
}

fn validate_mutation(errors: &mut Errors, path: &Path, mutation: &Mutation, environment: &Environment) {
    let patch = ("jsonPatch", mutation.json_patch.as_ref().map(|patch| text(&patch.expression)), Wanted::List);
    let config = mutation.apply_configuration.as_ref().map(|config| text(&config.expression));
    let config = ("applyConfiguration", config, Wanted::Object);
    let kind = mutation.patch_type.as_str();
    let ((name, expression, wanted), other) = match kind {
        "" => {
            errors.push(Error::required(&path.child("patchType"), ""));
            return;
        }
        "JSONPatch" => (patch, config),
        "ApplyConfiguration" => (config, patch),
        _ => {
            let known = &["ApplyConfiguration", "JSONPatch"];
            errors.push(Error::not_supported(&path.child("patchType"), kind, known));
            return;
        }
    };
    match expression.map(str::trim) {
        None => {
            let detail = format!("must be specified when patchType is {kind}");
            errors.push(Error::required(&path.child(name), &detail));
        }
        Some("") => errors.push(Error::required(&path.child(name).child("expression"), "")),
        Some(expression) => {
            if let Err(why) = compile(expression, environment, wanted) {
                errors.push(Error::invalid(&path.child(name).child("expression"), expression, &why));
            }
        }
    }
    if other.1.is_some() {
        let detail = format!("must not be specified when patchType is {kind}");
        errors.push(Error::invalid(&path.child(other.0), format!("{{{}}}", other.0), &detail));
    }
}

#[cfg(test)]
mod tests;
