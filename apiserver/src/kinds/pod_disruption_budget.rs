//! PodDisruptionBudgets: how many of some pods may be evicted at a time.

use jiff::Timestamp;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec, PodDisruptionBudgetStatus};

use super::{blank::fill, cells, conditions, int_or_percent, label_selector, rules};
use crate::kind::{AGE, Column, Context, NAME, Strategy, age};
use coracle_proto::{
    field::{Error, Errors, Path},
    resource::Resource,
};

/// The strategy of `poddisruptionbudgets.policy`.
#[derive(Clone, Copy, Debug, Default)]
pub struct PodDisruptionBudgets;

const COLUMNS: &[Column] = &[
    NAME,
    cells::column("Min Available", "The minimum number of pods that must be available."),
    cells::column("Max Unavailable", "The maximum number of pods that may be unavailable."),
    cells::integer("Allowed Disruptions", "Calculated number of pods that may be disrupted at this time."),
    AGE,
];

fn default_status(object: &mut PodDisruptionBudget) {
    let status = object.status.get_or_insert_default();
    // These are written out even when there is nothing in them.
    for count in [
        &mut status.disruptions_allowed,
        &mut status.current_healthy,
        &mut status.desired_healthy,
        &mut status.expected_pods,
    ] {
        fill(count, 0);
    }
}

fn validate_spec(errors: &mut Errors, path: &Path, spec: &PodDisruptionBudgetSpec) {
    if spec.min_available.is_some() && spec.max_unavailable.is_some() {
        let detail = "minAvailable and maxUnavailable cannot be both set";
        errors.push(Error::invalid(path, rules::json(spec), detail));
    }
    for (field, count) in [("minAvailable", &spec.min_available), ("maxUnavailable", &spec.max_unavailable)] {
        if let Some(count) = count {
            int_or_percent::validate(errors, &path.child(field), count);
            int_or_percent::at_most_all(errors, &path.child(field), count);
        }
    }
    if let Some(selector) = &spec.selector {
        label_selector::validate(errors, &path.child("selector"), selector);
    }
    if let Some(policy) = &spec.unhealthy_pod_eviction_policy {
        let known = &["AlwaysAllow", "IfHealthyBudget"];
        rules::known_word(errors, &path.child("unhealthyPodEvictionPolicy"), policy, known);
    }
}

impl Strategy for PodDisruptionBudgets {
    type Object = PodDisruptionBudget;

    fn resource(&self) -> &'static Resource {
        super::row_of("policy", "poddisruptionbudgets")
    }

    fn name_rule(&self) -> coracle_proto::name::NameRule {
        coracle_proto::name::path_segment_rule
    }

    fn default(&self, object: &mut PodDisruptionBudget) {
        object.spec.get_or_insert_default();
        default_status(object);
    }

    fn prepare_create(&self, object: &mut PodDisruptionBudget, _: &Context<'_>) {
        object.status = Some(PodDisruptionBudgetStatus::default());
        default_status(object);
    }

    fn prepare_update(&self, new: &mut PodDisruptionBudget, old: &PodDisruptionBudget, _: &Context<'_>) {
        new.status.clone_from(&old.status);
    }

    fn prepare_status(&self, new: &mut PodDisruptionBudget, old: &PodDisruptionBudget, _: &Context<'_>) {
        new.spec.clone_from(&old.spec);
    }

    fn validate(&self, object: &PodDisruptionBudget) -> Errors {
        let mut errors = Errors::new();
        validate_spec(&mut errors, &Path::new("spec"), &object.spec.clone().unwrap_or_default());
        errors
    }

    fn validate_status(&self, new: &PodDisruptionBudget, _: &PodDisruptionBudget) -> Errors {
        let path = Path::new("status");
        let status = new.status.clone().unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        let mut errors = Errors::new();
        conditions::validate(&mut errors, &path.child("conditions"), &conditions);
        for (field, number) in [
            ("disruptionsAllowed", status.disruptions_allowed),
            ("currentHealthy", status.current_healthy),
            ("desiredHealthy", status.desired_healthy),
            ("expectedPods", status.expected_pods),
        ] {
            rules::not_negative(&mut errors, &path.child(field), number.unwrap_or(0).into());
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

    fn row(&self, object: &PodDisruptionBudget, now: Timestamp) -> Vec<serde_json::Value> {
        let spec = object.spec.clone().unwrap_or_default();
        let count = |count: Option<&_>| count.map_or_else(|| "N/A".to_owned(), int_or_percent::shown);
        vec![
            cells::name(&object.metadata),
            count(spec.min_available.as_ref()).into(),
            count(spec.max_unavailable.as_ref()).into(),
            object.status.as_ref().and_then(|status| status.disruptions_allowed).unwrap_or(0).into(),
            age(&object.metadata, now).into(),
        ]
    }
}

#[cfg(test)]
mod tests;
