//! Pod templates, as Deployments and ReplicaSets carry them.

use std::collections::BTreeMap;

use coracle_proto::{
    field::{Error, Errors, Path},
    name,
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
        defaults::default_pod_spec,
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

/// Everything wrong with the template of a workload whose pods run until they are stopped.
pub(super) fn validate(
    errors: &mut Errors,
    path: &Path,
    template: &PodTemplateSpec,
    selector: Option<&coracle_proto::selector::LabelSelector>,
) {
    let meta = template.metadata.clone().unwrap_or_default();
    let spec = template.spec.clone().unwrap_or_default();
    let labels = meta.labels.clone().unwrap_or_default();
    if selector.is_some_and(|selector| !selector.is_everything() && !selector.matches_labels(&labels)) {
        let detail = "`selector` does not match template `labels`";
        errors.push(Error::invalid(&path.child("metadata").child("labels"), rules::json(&labels), detail));
    }
    rules::labels(errors, &path.child("labels"), meta.labels.as_ref());
    rules::annotations(errors, &path.child("annotations"), meta.annotations.as_ref());
    let at = path.child("spec");
    validate_spec(errors, &at, &spec, Holder::Template);
    if !list(&spec.ephemeral_containers).is_empty() {
        let detail = "ephemeral containers not allowed in pod template";
        errors.push(Error::forbidden(&at.child("ephemeralContainers"), detail));
    }
    rules::known_word(errors, &at.child("restartPolicy"), text(&spec.restart_policy), &["Always"]);
    if spec.active_deadline_seconds.is_some() {
        let detail = "activeDeadlineSeconds in ReplicaSet is not Supported";
        errors.push(Error::forbidden(&at.child("activeDeadlineSeconds"), detail));
    }
}

/// Everything wrong with a workload's selector and its template together.
pub(super) fn validate_selected(
    errors: &mut Errors,
    path: &Path,
    selector: &LabelSelector,
    template: &PodTemplateSpec,
) {
    let at = path.child("selector");
    label_selector::validate(errors, &at, selector);
    let is_empty =
        selector.match_labels.as_ref().is_none_or(BTreeMap::is_empty) && list(&selector.match_expressions).is_empty();
    if is_empty {
        errors.push(Error::invalid(&at, rules::json(selector), "empty selector is invalid for deployment"));
    }
    match coracle_proto::selector::LabelSelector::from_api(Some(selector)) {
        Ok(parsed) => validate(errors, &path.child("template"), template, Some(&parsed)),
        Err(_) => errors.push(Error::invalid(&at, rules::json(selector), "invalid label selector")),
    }
}

/// The warnings about a workload and its template.
pub(super) fn warnings(meta: &ObjectMeta, template: &PodTemplateSpec) -> Vec<String> {
    let mut warnings = Vec::new();
    let wrong = name::dns1123_label(text(&meta.name));
    if !wrong.is_empty() {
        let what = "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior";
        warnings.push(format!("{what}; a DNS label is recommended: [{}]", wrong.join(" ")));
    }
    if let Some(spec) = &template.spec {
        let path = Path::new("spec").child("template");
        warnings.extend(pod_spec::warnings::of(&path, template.metadata.as_ref(), spec));
    }
    warnings
}
