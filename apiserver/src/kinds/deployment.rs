//! Deployments: a number of like pods, changed by rolling over to a new template.

mod validation;

use jiff::Timestamp;
use k8s_openapi::{
    api::apps::v1::{Deployment, DeploymentStatus},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{
    blank::{drop_blank, fill, fill_text},
    cells,
    pod_template::{self, default_pod_template},
    rules,
};
use crate::{
    kind::{AGE, Column, Context, NAME, Scale, Strategy, age},
    ops::Part,
    ownership::{SPEC_AND_LABELS, reset_by},
};
use coracle_proto::{
    apply::Set,
    field::{Errors, Path},
    resource::Resource,
};

/// The strategy of `deployments.apps`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Deployments;

const COLUMNS: &[Column] = &[
    NAME,
    cells::column("Ready", "Number of the pod with ready state"),
    cells::column("Up-to-date", "Number of pods that have the wanted template."),
    cells::column("Available", "Number of pods that have been ready for at least minReadySeconds."),
    AGE,
    cells::wide("Containers", "Names of each container in the template."),
    cells::wide("Images", "Images referenced by each container in the template."),
    cells::wide("Selector", "Label selector of the pods."),
];

impl Strategy for Deployments {
    type Object = Deployment;

    fn resource(&self) -> &'static Resource {
        super::row_of("apps", "deployments")
    }

    fn default(&self, object: &mut Deployment) {
        let spec = object.spec.get_or_insert_default();
        fill(&mut spec.replicas, 1);
        fill(&mut spec.revision_history_limit, 10);
        fill(&mut spec.progress_deadline_seconds, 600);
        drop_blank(&mut spec.paused);
        drop_blank(&mut spec.min_ready_seconds);
        let strategy = spec.strategy.get_or_insert_default();
        fill_text(&mut strategy.type_, "RollingUpdate");
        if strategy.type_.as_deref() == Some("RollingUpdate") {
            let rolling = strategy.rolling_update.get_or_insert_default();
            fill(&mut rolling.max_unavailable, IntOrString::String("25%".to_owned()));
            fill(&mut rolling.max_surge, IntOrString::String("25%".to_owned()));
        }
        default_pod_template(&mut spec.template);
        object.status.get_or_insert_default();
    }

    fn prepare_create(&self, object: &mut Deployment, _: &Context<'_>) {
        object.status = Some(DeploymentStatus::default());
    }

    fn prepare_update(&self, new: &mut Deployment, old: &Deployment, _: &Context<'_>) {
        new.status.clone_from(&old.status);
    }

    fn prepare_status(&self, new: &mut Deployment, old: &Deployment, _: &Context<'_>) {
        new.spec.clone_from(&old.spec);
        new.metadata.labels.clone_from(&old.metadata.labels);
    }

    fn reset_fields(&self, part: Part) -> &'static Set {
        if part == Part::Status { &SPEC_AND_LABELS } else { reset_by(self.resource(), part) }
    }

    fn validate(&self, object: &Deployment) -> Errors {
        let mut errors = Errors::new();
        validation::validate_spec(&mut errors, &Path::new("spec"), &object.spec.clone().unwrap_or_default());
        errors
    }

    fn validate_update(&self, new: &Deployment, old: &Deployment) -> Errors {
        let mut errors = self.validate(new);
        let selector = |object: &Deployment| object.spec.as_ref().map(|s| s.selector.clone());
        let at = Path::new("spec").child("selector");
        rules::immutable(&mut errors, &at, &selector(new), &selector(old));
        errors
    }

    fn validate_status(&self, new: &Deployment, old: &Deployment) -> Errors {
        let (new, old) = (new.status.clone().unwrap_or_default(), old.status.clone().unwrap_or_default());
        validation::validate_status(&new, &old)
    }

    fn warnings(&self, object: &Deployment) -> Vec<String> {
        object.spec.iter().flat_map(|spec| pod_template::warnings(&object.metadata, &spec.template)).collect()
    }

    fn counts_generations(&self) -> bool {
        true
    }

    fn generation_counts_annotations(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Deployment, now: Timestamp) -> Vec<serde_json::Value> {
        let (spec, status) = (object.spec.as_ref(), object.status.clone().unwrap_or_default());
        let template = spec.and_then(|s| s.template.spec.as_ref());
        let (names, images) = cells::containers(template.map_or(&[][..], |t| &t.containers));
        let wanted = spec.and_then(|s| s.replicas).unwrap_or(0);
        vec![
            cells::name(&object.metadata),
            format!("{}/{wanted}", status.ready_replicas.unwrap_or(0)).into(),
            status.updated_replicas.unwrap_or(0).into(),
            status.available_replicas.unwrap_or(0).into(),
            age(&object.metadata, now).into(),
            names.into(),
            images.into(),
            spec.map(|s| cells::selector(&s.selector)).unwrap_or_default().into(),
        ]
    }

    fn scale(&self, object: &Deployment) -> Option<Scale> {
        let spec = object.spec.as_ref()?;
        Some(Scale {
            replicas: spec.replicas.unwrap_or(1),
            current: object.status.as_ref().and_then(|s| s.replicas).unwrap_or(0),
            selector: cells::selector(&spec.selector),
        })
    }

    fn set_scale(&self, object: &mut Deployment, replicas: i32) {
        object.spec.get_or_insert_default().replicas = Some(replicas);
    }
}

#[cfg(test)]
mod tests;
