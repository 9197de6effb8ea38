//! StatefulSets: pods with names and volumes of their own, one after the other.

mod validation;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetStatus};

use super::{
    blank::{drop_blank, fill, fill_text, items_mut, list},
    cells, persistent_volume_claim,
    pod_template::{self, default_pod_template},
};
use crate::kind::{AGE, Column, Context, NAME, Scale, Strategy, age};
use coracle_proto::{
    field::{Errors, Path},
    name::{NameRule, label_rule},
    resource::Resource,
};

/// The strategy of `statefulsets.apps`.
#[derive(Clone, Copy, Debug, Default)]
pub struct StatefulSets;

const COLUMNS: &[Column] = &[
    NAME,
    cells::column("Ready", "Number of the pod with ready state"),
    AGE,
    cells::wide("Containers", "Names of each container in the template."),
    cells::wide("Images", "Images referenced by each container in the template."),
];

fn default_spec(spec: &mut StatefulSetSpec) {
    fill_text(&mut spec.pod_management_policy, "OrderedReady");
    let strategy = spec.update_strategy.get_or_insert_default();
    if strategy.type_.as_deref().unwrap_or_default().is_empty() {
        strategy.type_ = Some("RollingUpdate".to_owned());
        strategy.rolling_update.get_or_insert_default();
    }
    if let (Some("RollingUpdate"), Some(rolling)) = (strategy.type_.as_deref(), &mut strategy.rolling_update) {
        fill(&mut rolling.partition, 0);
    }
    let retention = spec.persistent_volume_claim_retention_policy.get_or_insert_default();
    fill_text(&mut retention.when_deleted, "Retain");
    fill_text(&mut retention.when_scaled, "Retain");
    fill(&mut spec.replicas, 1);
    fill(&mut spec.revision_history_limit, 10);
    drop_blank(&mut spec.min_ready_seconds);
    // `serviceName` is written out even when there is nothing in it.
    spec.service_name.get_or_insert_default();
    if let Some(ordinals) = &mut spec.ordinals {
        fill(&mut ordinals.start, 0);
    }
    default_pod_template(&mut spec.template);
    drop_blank(&mut spec.volume_claim_templates);
    for claim in items_mut(&mut spec.volume_claim_templates) {
        persistent_volume_claim::default(claim);
    }
}

fn default_status(object: &mut StatefulSet) {
    fill(&mut object.status.get_or_insert_default().available_replicas, 0);
}

/// `maxUnavailable` is behind a gate that is off (KEP-961): what is not there already is dropped.
fn drop_disabled(new: &mut StatefulSetSpec, old: Option<&StatefulSetSpec>) {
    let rolling = |spec: &StatefulSetSpec| spec.update_strategy.as_ref().and_then(|s| s.rolling_update.clone());
    let is_used = old.and_then(rolling).is_some_and(|rolling| rolling.max_unavailable.is_some());
    if !is_used && let Some(rolling) = new.update_strategy.as_mut().and_then(|s| s.rolling_update.as_mut()) {
        rolling.max_unavailable = None;
    }
}

impl Strategy for StatefulSets {
    type Object = StatefulSet;

    fn resource(&self) -> &'static Resource {
        super::row_of("apps", "statefulsets")
    }

    fn name_rule(&self) -> NameRule {
        label_rule
    }

    fn default(&self, object: &mut StatefulSet) {
        default_spec(object.spec.get_or_insert_default());
        default_status(object);
    }

    fn prepare_create(&self, object: &mut StatefulSet, _: &Context<'_>) {
        object.status = Some(StatefulSetStatus::default());
        default_status(object);
        drop_disabled(object.spec.get_or_insert_default(), None);
    }

    fn prepare_update(&self, new: &mut StatefulSet, old: &StatefulSet, _: &Context<'_>) {
        new.status.clone_from(&old.status);
        drop_disabled(new.spec.get_or_insert_default(), old.spec.as_ref());
    }

    fn prepare_status(&self, new: &mut StatefulSet, old: &StatefulSet, _: &Context<'_>) {
        new.spec.clone_from(&old.spec);
    }

    fn validate(&self, object: &StatefulSet) -> Errors {
        let mut errors = Errors::new();
        let spec = object.spec.clone().unwrap_or_default();
        validation::validate_spec(&mut errors, &Path::new("spec"), &spec, validation::When::Created);
        errors
    }

    fn validate_update(&self, new: &StatefulSet, old: &StatefulSet) -> Errors {
        let (new, old) = (new.spec.clone().unwrap_or_default(), old.spec.clone().unwrap_or_default());
        validation::validate_update(&new, &old)
    }

    fn validate_status(&self, new: &StatefulSet, old: &StatefulSet) -> Errors {
        let (new, old) = (new.status.clone().unwrap_or_default(), old.status.clone().unwrap_or_default());
        validation::validate_status(&new, &old)
    }

    fn warnings(&self, object: &StatefulSet) -> Vec<String> {
        let Some(spec) = &object.spec else { return Vec::new() };
        let mut warnings = pod_template::spec_warnings(&spec.template);
        let path = Path::new("spec").child("volumeClaimTemplates");
        for (i, claim) in list(&spec.volume_claim_templates).iter().enumerate() {
            warnings.extend(persistent_volume_claim::spec_warnings(&path.index(i), claim.spec.as_ref()));
        }
        if spec.revision_history_limit.is_some_and(|limit| limit < 0) {
            let why = "a negative value retains all historical revisions; a value >= 0 is recommended";
            warnings.push(format!("spec.revisionHistoryLimit: {why}"));
        }
        warnings
    }

    fn counts_generations(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &StatefulSet, now: Timestamp) -> Vec<serde_json::Value> {
        let (spec, status) = (object.spec.as_ref(), object.status.clone().unwrap_or_default());
        let template = spec.and_then(|s| s.template.spec.as_ref());
        let (names, images) = cells::containers(template.map_or(&[][..], |t| &t.containers));
        let wanted = spec.and_then(|s| s.replicas).unwrap_or(0);
        vec![
            cells::name(&object.metadata),
            format!("{}/{wanted}", status.ready_replicas.unwrap_or(0)).into(),
            age(&object.metadata, now).into(),
            names.into(),
            images.into(),
        ]
    }

    fn scale(&self, object: &StatefulSet) -> Option<Scale> {
        let spec = object.spec.as_ref()?;
        Some(Scale {
            replicas: spec.replicas.unwrap_or(1),
            current: object.status.as_ref().map_or(0, |s| s.replicas),
            selector: cells::selector(&spec.selector),
        })
    }

    fn set_scale(&self, object: &mut StatefulSet, replicas: i32) {
        object.spec.get_or_insert_default().replicas = Some(replicas);
    }
}

#[cfg(test)]
mod tests;
