//! ReplicationControllers: what ReplicaSets were before they could select by more than equal labels.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ReplicationController, ReplicationControllerSpec, ReplicationControllerStatus};

use super::{
    blank::{drop_blank, fill},
    cells,
    pod_template::{self, default_pod_template},
    replica_set, rules,
};
use crate::kind::{AGE, Column, Context, NAME, Scale, Strategy, age};
use coracle_proto::{
    field::{Error, Errors, Path},
    resource::Resource,
    selector::LabelSelector,
};

/// The strategy of `replicationcontrollers`.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReplicationControllers;

const COLUMNS: &[Column] = &[
    NAME,
    cells::integer("Desired", "Number of pods wanted."),
    cells::integer("Current", "Number of pods there are."),
    cells::integer("Ready", "Number of pods that are ready."),
    AGE,
    cells::wide("Containers", "Names of each container in the template."),
    cells::wide("Images", "Images referenced by each container in the template."),
    cells::wide("Selector", "Labels of the pods."),
];

fn validate_spec(errors: &mut Errors, path: &Path, spec: &ReplicationControllerSpec) {
    rules::not_negative(errors, &path.child("minReadySeconds"), spec.min_ready_seconds.unwrap_or(0).into());
    let selector = spec.selector.clone().unwrap_or_default();
    if selector.is_empty() {
        errors.push(Error::required(&path.child("selector"), ""));
    }
    rules::not_negative(errors, &path.child("replicas"), spec.replicas.unwrap_or(0).into());
    let at = path.child("template");
    let Some(template) = &spec.template else {
        errors.push(Error::required(&at, ""));
        return;
    };
    if !selector.is_empty() {
        pod_template::validate_labels(errors, &at, template, &LabelSelector::from_labels(&selector));
    }
    pod_template::validate(errors, &at, template);
    pod_template::validate_endless(errors, &at, template, "ReplicationController");
}

impl Strategy for ReplicationControllers {
    type Object = ReplicationController;

    fn resource(&self) -> &'static Resource {
        super::row_of("", "replicationcontrollers")
    }

    fn default(&self, object: &mut ReplicationController) {
        let spec = object.spec.get_or_insert_default();
        fill(&mut spec.replicas, 1);
        drop_blank(&mut spec.min_ready_seconds);
        drop_blank(&mut spec.selector);
        drop_blank(&mut object.metadata.labels);
        if let Some(template) = &mut spec.template {
            default_pod_template(template);
            let labels = pod_template::labels(template);
            if !labels.is_empty() {
                spec.selector.get_or_insert_with(|| labels.clone());
                object.metadata.labels.get_or_insert(labels);
            }
        }
        object.status.get_or_insert_default();
    }

    fn prepare_create(&self, object: &mut ReplicationController, _: &Context<'_>) {
        object.status = Some(ReplicationControllerStatus::default());
    }

    fn prepare_update(&self, new: &mut ReplicationController, old: &ReplicationController, _: &Context<'_>) {
        new.status.clone_from(&old.status);
    }

    fn prepare_status(&self, new: &mut ReplicationController, old: &ReplicationController, _: &Context<'_>) {
        new.spec.clone_from(&old.spec);
    }

    fn validate(&self, object: &ReplicationController) -> Errors {
        let mut errors = Errors::new();
        validate_spec(&mut errors, &Path::new("spec"), &object.spec.clone().unwrap_or_default());
        errors
    }

    fn validate_status(&self, new: &ReplicationController, _: &ReplicationController) -> Errors {
        let status = new.status.clone().unwrap_or_default();
        replica_set::validate_counts(&replica_set::Counts {
            all: status.replicas,
            labelled: status.fully_labeled_replicas.unwrap_or(0),
            ready: status.ready_replicas.unwrap_or(0),
            available: status.available_replicas.unwrap_or(0),
            terminating: 0,
            observed_generation: status.observed_generation.unwrap_or(0),
        })
    }

    fn warnings(&self, object: &ReplicationController) -> Vec<String> {
        let template = object.spec.as_ref().and_then(|spec| spec.template.as_ref());
        template.into_iter().flat_map(|template| pod_template::warnings(&object.metadata, template)).collect()
    }

    fn counts_generations(&self) -> bool {
        true
    }

    fn orphans_by_default(&self) -> bool {
        true
    }

    fn fields(&self, object: &ReplicationController) -> Vec<(&'static str, String)> {
        vec![("status.replicas", object.status.as_ref().map_or(0, |s| s.replicas).to_string())]
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &ReplicationController, now: Timestamp) -> Vec<serde_json::Value> {
        let (spec, status) = (object.spec.as_ref(), object.status.clone().unwrap_or_default());
        let template = spec.and_then(|s| s.template.as_ref()).and_then(|t| t.spec.as_ref());
        let (names, images) = cells::containers(template.map_or(&[][..], |t| &t.containers));
        vec![
            cells::name(&object.metadata),
            spec.and_then(|s| s.replicas).unwrap_or(0).into(),
            status.replicas.into(),
            status.ready_replicas.unwrap_or(0).into(),
            age(&object.metadata, now).into(),
            names.into(),
            images.into(),
            cells::labels(spec.and_then(|s| s.selector.as_ref())).into(),
        ]
    }

    fn scale(&self, object: &ReplicationController) -> Option<Scale> {
        let spec = object.spec.as_ref()?;
        let pairs = spec.selector.iter().flatten().map(|(key, value)| format!("{key}={value}"));
        Some(Scale {
            replicas: spec.replicas.unwrap_or(1),
            current: object.status.as_ref().map_or(0, |s| s.replicas),
            selector: pairs.collect::<Vec<_>>().join(","),
        })
    }

    fn set_scale(&self, object: &mut ReplicationController, replicas: i32) {
        object.spec.get_or_insert_default().replicas = Some(replicas);
    }
}

#[cfg(test)]
mod tests;
