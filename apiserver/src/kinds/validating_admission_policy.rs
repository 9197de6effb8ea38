//! ValidatingAdmissionPolicies: rules in CEL that requests must keep.

use std::collections::BTreeSet;

use coracle_proto::{
    field::{Error, Errors, Path},
    name,
    resource::Resource,
};
use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::{
    AuditAnnotation, ValidatingAdmissionPolicy, ValidatingAdmissionPolicySpec, Validation, Variable,
};
use serde_json::Value;

use super::{
    admission_match::{default_match, validate_conditions, validate_match, validate_param_kind},
    blank::{drop_blank, fill, items_mut, list, text},
    cells, rules,
};
use crate::{
    admission::policy::expressions::{Names, Wanted, compile, environment, with_variables},
    cel::{Environment, Type},
    kind::{AGE, Column, Context, NAME, Strategy, age},
};

/// The strategy of `validatingadmissionpolicies.admissionregistration.k8s.io`.
#[derive(Clone, Copy, Debug, Default)]
pub struct ValidatingAdmissionPolicies;

const COLUMNS: &[Column] = &[
    NAME,
    cells::integer("Validations", "Validations indicates the number of validation rules defined in this configuration"),
    cells::column("ParamKind", "ParamKind specifies the kind of resources used to parameterize this policy"),
    AGE,
];

const MAX_ANNOTATIONS: usize = 20;
const MAX_ANNOTATION: usize = 5 * 1024;

/// Words that are none of the language's, so that a variable can be called so.
const RESERVED: &[&str] = &[
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

fn is_identifier(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b == b'_' || b.is_ascii_alphabetic())
        && bytes.all(|b| b == b'_' || b.is_ascii_alphanumeric())
        && !RESERVED.contains(&name)
}

fn has_line_break(text: &str) -> bool {
    text.contains(['\n', '\r'])
}

impl Strategy for ValidatingAdmissionPolicies {
    type Object = ValidatingAdmissionPolicy;

    fn resource(&self) -> &'static Resource {
        super::row_of("admissionregistration.k8s.io", "validatingadmissionpolicies")
    }

    fn default(&self, object: &mut ValidatingAdmissionPolicy) {
        let spec = object.spec.get_or_insert_default();
        fill(&mut spec.failure_policy, "Fail".to_owned());
        if let Some(resources) = &mut spec.match_constraints {
            default_match(resources);
        }
        for validation in items_mut(&mut spec.validations) {
            drop_blank(&mut validation.message);
            drop_blank(&mut validation.message_expression);
        }
        drop_blank(&mut spec.validations);
        drop_blank(&mut spec.variables);
        drop_blank(&mut spec.match_conditions);
        drop_blank(&mut spec.audit_annotations);
        object.status.get_or_insert_default();
    }

    fn prepare_create(&self, object: &mut ValidatingAdmissionPolicy, _: &Context<'_>) {
        object.status = Some(Default::default());
    }

    fn prepare_update(&self, new: &mut ValidatingAdmissionPolicy, old: &ValidatingAdmissionPolicy, _: &Context<'_>) {
        new.status.clone_from(&old.status);
    }

    fn prepare_status(&self, new: &mut ValidatingAdmissionPolicy, old: &ValidatingAdmissionPolicy, _: &Context<'_>) {
        new.spec.clone_from(&old.spec);
        new.metadata.labels.clone_from(&old.metadata.labels);
        new.metadata.annotations.clone_from(&old.metadata.annotations);
        new.metadata.owner_references.clone_from(&old.metadata.owner_references);
    }

    fn validate(&self, object: &ValidatingAdmissionPolicy) -> Errors {
        let mut errors = Errors::new();
        let spec = object.spec.clone().unwrap_or_default();
        validate_spec(&mut errors, text(&object.metadata.name), &spec);
        errors
    }

    fn validate_status(&self, new: &ValidatingAdmissionPolicy, _: &ValidatingAdmissionPolicy) -> Errors {
        let mut errors = Errors::new();
        let status = new.status.clone().unwrap_or_default();
        let path = Path::new("status").child("typeChecking").child("expressionWarnings");
        for (i, warning) in list(&status.type_checking.unwrap_or_default().expression_warnings).iter().enumerate() {
            for (name, value) in [("warning", &warning.warning), ("fieldRef", &warning.field_ref)] {
                if value.trim().is_empty() {
                    errors.push(Error::required(&path.index(i).child(name), ""));
                }
            }
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

    fn row(&self, object: &ValidatingAdmissionPolicy, now: Timestamp) -> Vec<Value> {
        let spec = object.spec.clone().unwrap_or_default();
        let kind = spec.param_kind.map(|kind| format!("{}/{}", text(&kind.api_version), text(&kind.kind)));
        vec![
            cells::name(&object.metadata),
            list(&spec.validations).len().into(),
            kind.unwrap_or_else(|| "<unset>".to_owned()).into(),
            age(&object.metadata, now).into(),
        ]
    }
}

fn validate_spec(errors: &mut Errors, name: &str, spec: &ValidatingAdmissionPolicySpec) {
    let path = Path::new("spec");
    rules::one_of(errors, &path.child("failurePolicy"), text(&spec.failure_policy), &["Fail", "Ignore"]);
    if let Some(kind) = &spec.param_kind {
        validate_param_kind(errors, &path.child("paramKind"), kind);
    }
    let at = path.child("matchConstraints");
    match &spec.match_constraints {
        None => errors.push(Error::required(&at, "")),
        Some(resources) => {
            validate_match(errors, &at, resources);
            if list(&resources.resource_rules).is_empty() {
                errors.push(Error::required(&at.child("resourceRules"), ""));
            }
        }
    }
    let params = spec.param_kind.is_some();
    validate_conditions(errors, &path.child("matchConditions"), list(&spec.match_conditions), params);
    let names = Names { params, authorizer: true };
    let variables = validate_variables(errors, &path.child("variables"), list(&spec.variables), names);
    let all = with_variables(environment(names), &variables);
    let quiet = with_variables(environment(Names { authorizer: false, ..names }), &variables);
    let (validations, annotations) = (list(&spec.validations), list(&spec.audit_annotations));
    if validations.is_empty() && annotations.is_empty() {
        for name in ["validations", "auditAnnotations"] {
            let detail = "validations or auditAnnotations must contain at least one item";
            errors.push(Error::required(&path.child(name), detail));
        }
    }
    for (i, validation) in validations.iter().enumerate() {
        validate_validation(errors, &path.child("validations").index(i), validation, &all, &quiet);
    }
    validate_annotations(errors, &path.child("auditAnnotations"), name, annotations, &all);
}

/// The variables with their types, each of which the next ones may use.
pub(super) fn validate_variables(
    errors: &mut Errors,
    path: &Path,
    variables: &[Variable],
    names: Names,
) -> Vec<(String, Type)> {
    let mut types: Vec<(String, Type)> = Vec::new();
    for (i, variable) in variables.iter().enumerate() {
        let at = path.index(i);
        if variable.name.trim().is_empty() {
            errors.push(Error::required(&at.child("name"), "name is not specified"));
        } else if !is_identifier(&variable.name) {
            errors.push(Error::invalid(&at.child("name"), variable.name.as_str(), "must be a valid CEL identifier"));
        }
        let at = at.child("expression");
        if variable.expression.trim().is_empty() {
            errors.push(Error::required(&at, "expression is not specified"));
            continue;
        }
        let environment = with_variables(environment(names), &types);
        match compile(&variable.expression, &environment, Wanted::Anything) {
            Ok(program) => types.push((variable.name.clone(), program.result().clone())),
            Err(why) => errors.push(Error::invalid(&at, variable.expression.as_str(), &why)),
        }
    }
    types
}

fn validate_validation(
    errors: &mut Errors,
    path: &Path,
    validation: &Validation,
    all: &Environment,
    quiet: &Environment,
) {
    let at = path.child("expression");
    if validation.expression.trim().is_empty() {
        errors.push(Error::required(&at, "expression is not specified"));
    } else if let Err(why) = compile(&validation.expression, all, Wanted::Bool) {
        errors.push(Error::invalid(&at, validation.expression.as_str(), &why));
    }
    if let Some(expression) = &validation.message_expression {
        let at = path.child("messageExpression");
        if expression.trim().is_empty() {
            errors.push(Error::invalid(&at, expression.as_str(), "must be non-empty if specified"));
        } else if let Err(why) = compile(expression, quiet, Wanted::Text) {
            errors.push(Error::invalid(&at, expression.as_str(), &why));
        }
    }
    if let Some(message) = &validation.message {
        let at = path.child("message");
        if message.trim().is_empty() {
            errors.push(Error::invalid(&at, message.as_str(), "must be non-empty if specified"));
        } else if has_line_break(message.trim()) {
            errors.push(Error::invalid(&at, message.as_str(), "must not contain line breaks"));
        }
    }
    if let Some(reason) = &validation.reason {
        let known = &["Forbidden", "Invalid", "RequestEntityTooLarge"];
        rules::known_word(errors, &path.child("reason"), reason, known);
    }
}

fn validate_annotations(
    errors: &mut Errors,
    path: &Path,
    name: &str,
    annotations: &[AuditAnnotation],
    environment: &Environment,
) {
    if annotations.len() > MAX_ANNOTATIONS {
        let detail = format!("must not have more than {MAX_ANNOTATIONS} auditAnnotations");
        errors.push(Error::invalid(path, rules::json(&annotations), &detail));
    }
    let mut keys = BTreeSet::new();
    for (i, annotation) in annotations.iter().enumerate() {
        let (key, expression) = (path.index(i).child("key"), path.index(i).child("valueExpression"));
        let full = format!("{name}/{}", annotation.key);
        rules::messages(errors, &key, &full, name::qualified_name(&full));
        let source = annotation.value_expression.trim();
        if source.is_empty() {
            errors.push(Error::required(&expression, "valueExpression is not specified"));
        } else if source.len() > MAX_ANNOTATION {
            let detail = format!("must not exceed {MAX_ANNOTATION} bytes in length");
            errors.push(Error::required(&expression, &detail));
        } else if let Err(why) = compile(source, environment, Wanted::TextOrNull) {
            errors.push(Error::invalid(&expression, source, &why));
        }
        if !keys.insert(annotation.key.as_str()) {
            errors.push(Error::duplicate(&key, annotation.key.as_str()));
        }
    }
}

#[cfg(test)]
mod tests;
