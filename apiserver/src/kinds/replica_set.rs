//! ReplicaSets: a number of like pods.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};

use super::{
    blank::{drop_blank, fill},
    cells,
    pod_template::{self, default_pod_template},
    rules,
};
use crate::kind::{AGE, Column, Context, NAME, Scale, Strategy, age};
use coracle_proto::{
    field::{Error, Errors, Path},
    resource::Resource,
};

/// The strategy of `replicasets.apps`.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReplicaSets;

const COLUMNS: &[Column] = &[
    NAME,
    cells::integer("Desired", "Number of pods wanted."),
    cells::integer("Current", "Number of pods there are."),
    cells::integer("Ready", "Number of pods that are ready."),
    AGE,
    cells::wide("Containers", "Names of each container in the template."),
    cells::wide("Images", "Images referenced by each container in the template."),
    cells::wide("Selector", "Label selector of the pods."),
];

/// The counts of a status, which must add up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counts {
    /// Pods there are.
    pub(super) all: i32,
    /// Of these, with all labels of the template.
    pub(super) labelled: i32,
    /// Of these, ready.
    pub(super) ready: i32,
    /// Of these, ready for long enough.
    pub(super) available: i32,
    /// Pods that are on their way out.
    pub(super) terminating: i32,
    /// The generation the counts are of.
    pub(super) observed_generation: i64,
}

/// Everything wrong with the counts of a status.
pub(super) fn validate_counts(counts: &Counts) -> Errors {
    let (mut errors, path) = (Errors::new(), Path::new("status"));
    for (field, number) in [
        ("replicas", i64::from(counts.all)),
        ("fullyLabeledReplicas", counts.labelled.into()),
        ("readyReplicas", counts.ready.into()),
        ("availableReplicas", counts.available.into()),
        ("observedGeneration", counts.observed_generation),
        ("terminatingReplicas", counts.terminating.into()),
    ] {
        rules::not_negative(&mut errors, &path.child(field), number);
    }
    for (field, number) in [
        ("fullyLabeledReplicas", counts.labelled),
        ("readyReplicas", counts.ready),
        ("availableReplicas", counts.available),
    ] {
        if number > counts.all {
            errors.push(Error::invalid(&path.child(field), number, "cannot be greater than status.replicas"));
        }
    }
    if counts.available > counts.ready {
        let at = path.child("availableReplicas");
        errors.push(Error::invalid(&at, counts.available, "cannot be greater than readyReplicas"));
    }
    errors
}

impl Strategy for ReplicaSets {
    type Object = ReplicaSet;

    fn resource(&self) -> &'static Resource {
        super::row_of("apps", "replicasets")
    }

    fn default(&self, object: &mut ReplicaSet) {
        let spec = object.spec.get_or_insert_default();
        fill(&mut spec.replicas, 1);
        drop_blank(&mut spec.min_ready_seconds);
        default_pod_template(spec.template.get_or_insert_default());
        object.status.get_or_insert_default();
    }

    fn prepare_create(&self, object: &mut ReplicaSet, _: &Context<'_>) {
        object.status = Some(ReplicaSetStatus::default());
    }

    fn prepare_update(&self, new: &mut ReplicaSet, old: &ReplicaSet, _: &Context<'_>) {
        new.status.clone_from(&old.status);
    }

    fn prepare_status(&self, new: &mut ReplicaSet, old: &ReplicaSet, _: &Context<'_>) {
        new.spec.clone_from(&old.spec);
    }

    fn validate(&self, object: &ReplicaSet) -> Errors {
        let (mut errors, path) = (Errors::new(), Path::new("spec"));
        let spec = object.spec.clone().unwrap_or_default();
        rules::not_negative(&mut errors, &path.child("replicas"), spec.replicas.unwrap_or(0).into());
        rules::not_negative(&mut errors, &path.child("minReadySeconds"), spec.min_ready_seconds.unwrap_or(0).into());
        pod_template::validate_selected(&mut errors, &path, &spec.selector, &spec.template.unwrap_or_default());
        errors
    }

    fn validate_update(&self, new: &ReplicaSet, old: &ReplicaSet) -> Errors {
        let mut errors = self.validate(new);
        let selector = |object: &ReplicaSet| object.spec.as_ref().map(|s| s.selector.clone());
        let at = Path::new("spec").child("selector");
        rules::immutable(&mut errors, &at, &selector(new), &selector(old));
        errors
    }

    fn validate_status(&self, new: &ReplicaSet, _: &ReplicaSet) -> Errors {
        let status = new.status.clone().unwrap_or_default();
        validate_counts(&Counts {
            all: status.replicas,
            labelled: status.fully_labeled_replicas.unwrap_or(0),
            ready: status.ready_replicas.unwrap_or(0),
            available: status.available_replicas.unwrap_or(0),
            terminating: status.terminating_replicas.unwrap_or(0),
            observed_generation: status.observed_generation.unwrap_or(0),
        })
    }

    fn warnings(&self, object: &ReplicaSet) -> Vec<String> {
        let template = object.spec.as_ref().and_then(|spec| spec.template.as_ref());
        template.into_iter().flat_map(|template| pod_template::warnings(&object.metadata, template)).collect()
    }

    fn counts_generations(&self) -> bool {
        true
    }

    fn fields(&self, object: &ReplicaSet) -> Vec<(&'static str, String)> {
        vec![("status.replicas", object.status.as_ref().map_or(0, |s| s.replicas).to_string())]
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &ReplicaSet, now: Timestamp) -> Vec<serde_json::Value> {
        let (spec, status) = (object.spec.as_ref(), object.status.clone().unwrap_or_default());
        let template = spec.and_then(|s| s.template.as_ref()).and_then(|t| t.spec.as_ref());
        let (names, images) = cells::containers(template.map_or(&[][..], |t| &t.containers));
        let selector = spec.map(|s| cells::selector(&s.selector)).unwrap_or_default();
        vec![
            cells::name(&object.metadata),
            spec.and_then(|s| s.replicas).unwrap_or(0).into(),
            status.replicas.into(),
            status.ready_replicas.unwrap_or(0).into(),
            age(&object.metadata, now).into(),
            names.into(),
            images.into(),
            cells::or_none(&selector).into(),
        ]
    }

    fn scale(&self, object: &ReplicaSet) -> Option<Scale> {
        let spec = object.spec.as_ref()?;
        Some(Scale {
            replicas: spec.replicas.unwrap_or(1),
            current: object.status.as_ref().map_or(0, |s| s.replicas),
            selector: cells::selector(&spec.selector),
        })
    }

    fn set_scale(&self, object: &mut ReplicaSet, replicas: i32) {
        object.spec.get_or_insert_default().replicas = Some(replicas);
    }
}

#[cfg(test)]
mod tests;
