//! DaemonSets: a pod on every node that is meant.

use jiff::Timestamp;
use k8s_openapi::{
    api::apps::v1::{DaemonSet, DaemonSetSpec, DaemonSetStatus, DaemonSetUpdateStrategy, RollingUpdateDaemonSet},
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};

use super::{
    blank::{drop_blank, fill, fill_text, text},
    cells, int_or_percent, label_selector,
    pod_template::{self, default_pod_template},
    rules,
};
use crate::kind::{AGE, Column, Context, NAME, Strategy, age};
use coracle_proto::{
    field::{Error, Errors, Path},
    resource::Resource,
    selector::LabelSelector,
};

/// The strategy of `daemonsets.apps`.
#[derive(Clone, Copy, Debug, Default)]
pub struct DaemonSets;

/// Counts the templates a DaemonSet has had. It was a field once; of that this annotation is left, which the server writes.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

const COLUMNS: &[Column] = &[
    NAME,
    cells::integer("Desired", "Number of nodes that should have the pod."),
    cells::integer("Current", "Number of nodes that have the pod and should."),
    cells::integer("Ready", "Number of nodes whose pod is ready."),
    cells::integer("Up-to-date", "Number of nodes whose pod has the wanted template."),
    cells::integer("Available", "Number of nodes whose pod has been ready for at least minReadySeconds."),
    cells::column("Node Selector", "Labels that nodes must have to get the pod."),
    AGE,
    cells::wide("Containers", "Names of each container in the template."),
    cells::wide("Images", "Images referenced by each container in the template."),
    cells::wide("Selector", "Label selector of the pods."),
];

fn template_generation(meta: &ObjectMeta) -> i64 {
    let written = meta.annotations.as_ref().and_then(|annotations| annotations.get(TEMPLATE_GENERATION));
    written.and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn set_template_generation(meta: &mut ObjectMeta, generation: i64) {
    meta.annotations.get_or_insert_default().insert(TEMPLATE_GENERATION.to_owned(), generation.to_string());
}

fn validate_spec(errors: &mut Errors, path: &Path, spec: &DaemonSetSpec) {
    let (at, template) = (path.child("selector"), path.child("template"));
    label_selector::validate(errors, &at, &spec.selector);
    if pod_template::is_missing(&spec.selector) {
        pod_template::mismatch(errors, &template, &spec.template);
    } else if let Ok(selector) = LabelSelector::from_api(Some(&spec.selector)) {
        pod_template::validate_labels(errors, &template, &spec.template, &selector);
    }
    pod_template::validate_not_empty(errors, &at, &spec.selector, "daemonset");
    pod_template::validate(errors, &template, &spec.template);
    pod_template::validate_endless(errors, &template, &spec.template, "DaemonSet");
    rules::not_negative(errors, &path.child("minReadySeconds"), spec.min_ready_seconds.unwrap_or(0).into());
    let strategy = spec.update_strategy.clone().unwrap_or_default();
    validate_update_strategy(errors, &path.child("updateStrategy"), &strategy);
    if let Some(limit) = spec.revision_history_limit {
        rules::not_negative(errors, &path.child("revisionHistoryLimit"), limit.into());
    }
}

fn validate_update_strategy(errors: &mut Errors, path: &Path, strategy: &DaemonSetUpdateStrategy) {
    let at = path.child("rollingUpdate");
    match (text(&strategy.type_), &strategy.rolling_update) {
        ("OnDelete", _) => {}
        ("RollingUpdate", Some(rolling)) => validate_rolling_update(errors, &at, rolling),
        ("RollingUpdate", None) => errors.push(Error::required(&at, "")),
        _ => errors.push(Error::not_supported(path, rules::json(strategy), &["RollingUpdate", "OnDelete"])),
    }
}

/// A node's old pod goes before the new one comes, or the other way round, but not both.
fn validate_rolling_update(errors: &mut Errors, path: &Path, rolling: &RollingUpdateDaemonSet) {
    let zero = IntOrString::Int(0);
    let unavailable = rolling.max_unavailable.as_ref().unwrap_or(&zero);
    let surge = rolling.max_surge.as_ref().unwrap_or(&zero);
    let (unavailable_at, surge_at) = (path.child("maxUnavailable"), path.child("maxSurge"));
    int_or_percent::validate(errors, &unavailable_at, unavailable);
    int_or_percent::validate(errors, &surge_at, surge);
    int_or_percent::at_most_all(errors, &unavailable_at, unavailable);
    int_or_percent::at_most_all(errors, &surge_at, surge);
    match (int_or_percent::amount(unavailable) != 0, int_or_percent::amount(surge) != 0) {
        (true, true) => {
            let detail = "may not be set when maxUnavailable is non-zero";
            errors.push(Error::invalid(&surge_at, rules::json(surge), detail));
        }
        (false, false) => errors.push(Error::required(&unavailable_at, "cannot be 0 when maxSurge is 0")),
        _ => {}
    }
}

fn validate_status(new: &DaemonSetStatus, old: &DaemonSetStatus) -> Errors {
    let (mut errors, path) = (Errors::new(), Path::new("status"));
    for (field, number) in [
        ("currentNumberScheduled", i64::from(new.current_number_scheduled)),
        ("numberMisscheduled", new.number_misscheduled.into()),
        ("desiredNumberScheduled", new.desired_number_scheduled.into()),
        ("numberReady", new.number_ready.into()),
        ("observedGeneration", new.observed_generation.unwrap_or(0)),
        ("updatedNumberScheduled", new.updated_number_scheduled.unwrap_or(0).into()),
        ("numberAvailable", new.number_available.unwrap_or(0).into()),
        ("numberUnavailable", new.number_unavailable.unwrap_or(0).into()),
        ("collisionCount", new.collision_count.unwrap_or(0).into()),
    ] {
        rules::not_negative(&mut errors, &path.child(field), number);
    }
    rules::not_decremented(&mut errors, &path.child("collisionCount"), new.collision_count, old.collision_count);
    errors
}

impl Strategy for DaemonSets {
    type Object = DaemonSet;

    fn resource(&self) -> &'static Resource {
        super::row_of("apps", "daemonsets")
    }

    fn default(&self, object: &mut DaemonSet) {
        let spec = object.spec.get_or_insert_default();
        let strategy = spec.update_strategy.get_or_insert_default();
        fill_text(&mut strategy.type_, "RollingUpdate");
        if strategy.type_.as_deref() == Some("RollingUpdate") {
            let rolling = strategy.rolling_update.get_or_insert_default();
            fill(&mut rolling.max_unavailable, IntOrString::Int(1));
            fill(&mut rolling.max_surge, IntOrString::Int(0));
        }
        fill(&mut spec.revision_history_limit, 10);
        drop_blank(&mut spec.min_ready_seconds);
        default_pod_template(&mut spec.template);
        object.status.get_or_insert_default();
    }

    fn prepare_create(&self, object: &mut DaemonSet, _: &Context<'_>) {
        object.status = Some(DaemonSetStatus::default());
        let generation = template_generation(&object.metadata).max(1);
        set_template_generation(&mut object.metadata, generation);
    }

    fn prepare_update(&self, new: &mut DaemonSet, old: &DaemonSet, _: &Context<'_>) {
        new.status.clone_from(&old.status);
        let template = |object: &DaemonSet| object.spec.as_ref().map(|spec| spec.template.clone());
        let is_new = template(new) != template(old);
        set_template_generation(&mut new.metadata, template_generation(&old.metadata) + i64::from(is_new));
    }

    fn prepare_status(&self, new: &mut DaemonSet, old: &DaemonSet, _: &Context<'_>) {
        new.spec.clone_from(&old.spec);
        set_template_generation(&mut new.metadata, template_generation(&old.metadata));
    }

    fn validate(&self, object: &DaemonSet) -> Errors {
        let mut errors = Errors::new();
        validate_spec(&mut errors, &Path::new("spec"), &object.spec.clone().unwrap_or_default());
        errors
    }

    fn validate_update(&self, new: &DaemonSet, old: &DaemonSet) -> Errors {
        let mut errors = Errors::new();
        let selector = |object: &DaemonSet| object.spec.as_ref().map(|s| s.selector.clone());
        let at = Path::new("spec").child("selector");
        rules::immutable(&mut errors, &at, &selector(new), &selector(old));
        errors.extend(self.validate(new));
        errors
    }

    fn validate_status(&self, new: &DaemonSet, old: &DaemonSet) -> Errors {
        validate_status(&new.status.clone().unwrap_or_default(), &old.status.clone().unwrap_or_default())
    }

    fn warnings(&self, object: &DaemonSet) -> Vec<String> {
        object.spec.iter().flat_map(|spec| pod_template::spec_warnings(&spec.template)).collect()
    }

    fn counts_generations(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &DaemonSet, now: Timestamp) -> Vec<serde_json::Value> {
        let (spec, status) = (object.spec.as_ref(), object.status.clone().unwrap_or_default());
        let template = spec.and_then(|s| s.template.spec.as_ref());
        let (names, images) = cells::containers(template.map_or(&[][..], |t| &t.containers));
        vec![
            cells::name(&object.metadata),
            status.desired_number_scheduled.into(),
            status.current_number_scheduled.into(),
            status.number_ready.into(),
            status.updated_number_scheduled.unwrap_or(0).into(),
            status.number_available.unwrap_or(0).into(),
            cells::labels(template.and_then(|t| t.node_selector.as_ref())).into(),
            age(&object.metadata, now).into(),
            names.into(),
            images.into(),
            cells::or_none(&spec.map(|s| cells::selector(&s.selector)).unwrap_or_default()).into(),
        ]
    }
}

#[cfg(test)]
mod tests;
