//! Pod templates, as workloads carry them.

use std::collections::BTreeMap;

use coracle_proto::{
    field::{Error, Errors, Path},
    name,
    pod_defaults::default_pod_spec,
};
use k8s_openapi::{
    api::core::v1::PodTemplateSpec,
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
};

use super::{
    blank::{drop_blank, list, text},
    label_selector,
    pod_spec::{
        self,
        validation::{Holder, validate as validate_spec},
    },
    rules,
};

/// Completes a template.
pub(super) fn default_pod_template(template: &mut PodTemplateSpec) {
    let metadata = template.metadata.get_or_insert_default();
    drop_blank(&mut metadata.labels);
    drop_blank(&mut metadata.annotations);
    default_pod_spec(template.spec.get_or_insert_default());
}

/// Everything wrong with a template by itself.
pub(super) fn validate(errors: &mut Errors, path: &Path, template: &PodTemplateSpec) {
    let meta = template.metadata.clone().unwrap_or_default();
    let spec = template.spec.clone().unwrap_or_default();
    rules::labels(errors, &path.child("labels"), meta.labels.as_ref());
    rules::annotations(errors, &path.child("annotations"), meta.annotations.as_ref());
    let at = path.child("spec");
    validate_spec(errors, &at, &spec, Holder::Template);
    if !list(&spec.ephemeral_containers).is_empty() {
        let detail = "ephemeral containers not allowed in pod template";
        errors.push(Error::forbidden(&at.child("ephemeralContainers"), detail));
    }
}

/// What is wrong with a template of pods that run until they are stopped; `kind` is the kind that has it.
pub(super) fn validate_endless(errors: &mut Errors, path: &Path, template: &PodTemplateSpec, kind: &str) {
    let at = path.child("spec");
    let (restarts, deadline) =
        template.spec.as_ref().map_or(("", None), |spec| (text(&spec.restart_policy), spec.active_deadline_seconds));
    rules::known_word(errors, &at.child("restartPolicy"), restarts, &["Always"]);
    if deadline.is_some() {
        let detail = format!("activeDeadlineSeconds in {kind} is not Supported");
        errors.push(Error::forbidden(&at.child("activeDeadlineSeconds"), &detail));
    }
}

/// The labels of the template's pods.
pub(super) fn labels(template: &PodTemplateSpec) -> BTreeMap<String, String> {
    template.metadata.as_ref().and_then(|meta| meta.labels.clone()).unwrap_or_default()
}

/// A workload's selector selects the pods made from its template.
pub(super) fn validate_labels(
    errors: &mut Errors,
    path: &Path,
    template: &PodTemplateSpec,
    selector: &coracle_proto::selector::LabelSelector,
) {
    if !selector.matches_labels(&labels(template)) {
        mismatch(errors, path, template);
    }
}

/// A workload's selector, as it is and as it was read, selects the pods made from its template: one that is not there selects
/// nothing, and one that says nothing is refused for that.
pub(super) fn validate_choice(
    errors: &mut Errors,
    path: &Path,
    template: &PodTemplateSpec,
    (selector, parsed): (&LabelSelector, &coracle_proto::selector::LabelSelector),
) {
    if is_missing(selector) {
        mismatch(errors, path, template);
    } else if !parsed.is_everything() {
        validate_labels(errors, path, template, parsed);
    }
}

/// The template's labels are none the selector selects.
pub(super) fn mismatch(errors: &mut Errors, path: &Path, template: &PodTemplateSpec) {
    let (labels, detail) = (labels(template), "`selector` does not match template `labels`");
    let shown = if labels.is_empty() { serde_json::Value::Null } else { rules::json(&labels) };
    errors.push(Error::invalid(&path.child("metadata").child("labels"), shown, detail));
}

/// Whether there is no selector: the type has one always, and one that was given has a field, be it empty.
pub(super) fn is_missing(selector: &LabelSelector) -> bool {
    selector.match_labels.is_none() && selector.match_expressions.is_none()
}

/// A selector says at least something; `kind` is the kind that has it, in small letters.
pub(super) fn validate_not_empty(errors: &mut Errors, path: &Path, selector: &LabelSelector, kind: &str) {
    let is_empty =
        selector.match_labels.as_ref().is_none_or(BTreeMap::is_empty) && list(&selector.match_expressions).is_empty();
    if is_missing(selector) && kind != "daemonset" {
        errors.push(Error::required(path, ""));
    } else if is_empty && !is_missing(selector) {
        let detail = format!("empty selector is invalid for {kind}");
        errors.push(Error::invalid(path, serde_json::json!({}), &detail));
    }
}

/// Everything wrong with the selector and the template of a Deployment or a ReplicaSet together.
pub(super) fn validate_selected(
    errors: &mut Errors,
    path: &Path,
    selector: &LabelSelector,
    template: &PodTemplateSpec,
) {
    let at = path.child("selector");
    label_selector::validate(errors, &at, selector);
    validate_not_empty(errors, &at, selector, "deployment");
    match coracle_proto::selector::LabelSelector::from_api(Some(selector)) {
        Ok(parsed) => {
            let path = path.child("template");
            validate_choice(errors, &path, template, (selector, &parsed));
            validate(errors, &path, template);
            validate_endless(errors, &path, template, "ReplicaSet");
        }
        Err(_) => errors.push(Error::invalid(&at, rules::json(selector), "invalid label selector")),
    }
}

/// The warnings about a workload and its template.
pub(super) fn warnings(meta: &ObjectMeta, template: &PodTemplateSpec) -> Vec<String> {
    let mut warnings = name_warnings(meta);
    warnings.extend(spec_warnings(template));
    warnings
}

/// The warnings about the name of a workload that names its pods after itself.
pub(super) fn name_warnings(meta: &ObjectMeta) -> Vec<String> {
    let wrong = name::dns1123_label(text(&meta.name));
    if wrong.is_empty() {
        return Vec::new();
    }
    let what = "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior";
    vec![format!("{what}; a DNS label is recommended: [{}]", wrong.join(" "))]
}

/// The warnings about a template at `spec.template`.
pub(super) fn spec_warnings(template: &PodTemplateSpec) -> Vec<String> {
    warnings_at(&Path::new("spec").child("template"), template)
}

/// The warnings about a template.
pub(super) fn warnings_at(path: &Path, template: &PodTemplateSpec) -> Vec<String> {
    let spec = template.spec.as_ref();
    spec.map(|spec| pod_spec::warnings::of(path, template.metadata.as_ref(), spec)).unwrap_or_default()
}
