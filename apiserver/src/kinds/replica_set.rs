//! ReplicaSets: a number of like pods.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};

use super::{
    blank::{drop_blank, fill},
    cells,
    pod_template::default_pod_template,
};
use crate::kind::{AGE, Column, Context, NAME, Scale, Strategy, age};
use coracle_proto::resource::Resource;

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
