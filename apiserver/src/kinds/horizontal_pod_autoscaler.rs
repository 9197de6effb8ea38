//! HorizontalPodAutoscalers: as many replicas as the load needs.
//!
//! The same autoscalers are served in two versions. `v1` knows nothing but a target for the use of CPU; what else there is
//! it carries in annotations. They are stored as `v2`, and `conversion` translates.

mod conversion;
mod metrics;
mod validation;

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::{
    v1::HorizontalPodAutoscaler as AutoscalerV1,
    v2::{
        HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscaler, HorizontalPodAutoscalerStatus, MetricSpec,
        MetricTarget, ResourceMetricSource,
    },
};

pub use conversion::{from_v1, to_v1};

use super::{
    blank::{drop_blank, fill, list},
    cells, resources,
};
use crate::kind::{AGE, Column, Context, NAME, Strategy, age};
use coracle_proto::{field::Errors, resource::Resource};

/// The strategy of `autoscaling/v2`'s autoscalers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Autoscalers;

/// The strategy of `autoscaling/v1`'s autoscalers.
#[derive(Clone, Copy, Debug, Default)]
pub struct AutoscalersV1;

const COLUMNS: &[Column] = &[
    NAME,
    cells::column("Reference", "What is scaled."),
    cells::column("Targets", "The metrics, each as it is and as it should be."),
    cells::column("MinPods", "The lower limit for the number of replicas."),
    cells::column("MaxPods", "The upper limit for the number of replicas."),
    cells::column("Replicas", "The number of replicas as last seen."),
    AGE,
];

/// How much of what it requests a pod should use when nobody says, in percent.
const CPU_TARGET: i32 = 80;

/// The metric of an autoscaler that names none.
fn cpu(utilization: i32) -> MetricSpec {
    MetricSpec {
        type_: "Resource".to_owned(),
        resource: Some(ResourceMetricSource {
            name: "cpu".to_owned(),
            target: MetricTarget {
                type_: "Utilization".to_owned(),
                average_utilization: Some(utilization),
                ..MetricTarget::default()
            },
        }),
        ..MetricSpec::default()
    }
}

fn policy(kind: &str, value: i32) -> HPAScalingPolicy {
    HPAScalingPolicy { type_: kind.to_owned(), value, period_seconds: 15 }
}

fn default_rules(
    given: Option<HPAScalingRules>,
    policies: Vec<HPAScalingPolicy>,
    window: Option<i32>,
) -> HPAScalingRules {
    let mut rules = given.unwrap_or_default();
    fill(&mut rules.select_policy, "Max".to_owned());
    fill(&mut rules.policies, policies);
    rules.stabilization_window_seconds = rules.stabilization_window_seconds.or(window);
    if let Some(tolerance) = &mut rules.tolerance {
        resources::canonical_quantity(tolerance);
    }
    rules
}

/// Fills in what was left out, in either version.
fn default(object: &mut HorizontalPodAutoscaler) {
    let spec = &mut object.spec;
    fill(&mut spec.min_replicas, 1);
    drop_blank(&mut spec.scale_target_ref.api_version);
    drop_blank(&mut spec.metrics);
    fill(&mut spec.metrics, vec![cpu(CPU_TARGET)]);
    for metric in spec.metrics.iter_mut().flatten() {
        metrics::targets_mut(metric).for_each(|target| {
            target.value.iter_mut().for_each(resources::canonical_quantity);
            target.average_value.iter_mut().for_each(resources::canonical_quantity);
        });
    }
    if let Some(behavior) = &mut spec.behavior {
        let up = vec![policy("Pods", 4), policy("Percent", 100)];
        behavior.scale_up = Some(default_rules(behavior.scale_up.take(), up, Some(0)));
        // How long it waits before it scales down is the controller's to say when nobody else does.
        behavior.scale_down = Some(default_rules(behavior.scale_down.take(), vec![policy("Percent", 100)], None));
    }
    let status = object.status.get_or_insert_default();
    drop_blank(&mut status.current_replicas);
    drop_blank(&mut status.current_metrics);
    drop_blank(&mut status.conditions);
    conversion::drop_carried(&mut object.metadata);
}

fn row(object: &HorizontalPodAutoscaler, now: Timestamp) -> Vec<serde_json::Value> {
    let (spec, status) = (&object.spec, object.status.clone().unwrap_or_default());
    let target = &spec.scale_target_ref;
    vec![
        cells::name(&object.metadata),
        format!("{}/{}", target.kind, target.name).into(),
        metrics::shown(list(&spec.metrics), list(&status.current_metrics)).into(),
        spec.min_replicas.map_or_else(|| cells::UNSET.to_owned(), |count| count.to_string()).into(),
        spec.max_replicas.into(),
        status.current_replicas.unwrap_or(0).into(),
        age(&object.metadata, now).into(),
    ]
}

impl Strategy for Autoscalers {
    type Object = HorizontalPodAutoscaler;

    fn resource(&self) -> &'static Resource {
        super::row_at("autoscaling", "v2", "horizontalpodautoscalers")
    }

    fn default(&self, object: &mut HorizontalPodAutoscaler) {
        default(object);
    }

    fn prepare_create(&self, object: &mut HorizontalPodAutoscaler, _: &Context<'_>) {
        object.status = Some(HorizontalPodAutoscalerStatus::default());
    }

    fn prepare_update(&self, new: &mut HorizontalPodAutoscaler, old: &HorizontalPodAutoscaler, _: &Context<'_>) {
        new.status.clone_from(&old.status);
    }

    fn prepare_status(&self, new: &mut HorizontalPodAutoscaler, old: &HorizontalPodAutoscaler, _: &Context<'_>) {
        new.spec.clone_from(&old.spec);
    }

    fn validate(&self, object: &HorizontalPodAutoscaler) -> Errors {
        validation::validate(object, None)
    }

    fn validate_update(&self, new: &HorizontalPodAutoscaler, old: &HorizontalPodAutoscaler) -> Errors {
        validation::validate(new, Some(old))
    }

    fn validate_status(&self, new: &HorizontalPodAutoscaler, _: &HorizontalPodAutoscaler) -> Errors {
        validation::validate_status(new)
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &HorizontalPodAutoscaler, now: Timestamp) -> Vec<serde_json::Value> {
        row(object, now)
    }
}

impl Strategy for AutoscalersV1 {
    type Object = AutoscalerV1;

    fn resource(&self) -> &'static Resource {
        super::row_at("autoscaling", "v1", "horizontalpodautoscalers")
    }

    fn default(&self, object: &mut AutoscalerV1) {
        let mut whole = from_v1(std::mem::take(object));
        default(&mut whole);
        *object = to_v1(whole);
    }

    fn is_stored_as_shown(&self) -> bool {
        false
    }

    fn to_stored(&self, object: &AutoscalerV1) -> serde_json::Result<serde_json::Value> {
        let mut whole = from_v1(object.clone());
        default(&mut whole);
        serde_json::to_value(whole)
    }

    fn from_stored(&self, stored: &[u8]) -> serde_json::Result<AutoscalerV1> {
        serde_json::from_slice(stored).map(to_v1)
    }

    fn prepare_create(&self, object: &mut AutoscalerV1, context: &Context<'_>) {
        let mut whole = from_v1(std::mem::take(object));
        Autoscalers.prepare_create(&mut whole, context);
        *object = to_v1(whole);
    }

    fn prepare_update(&self, new: &mut AutoscalerV1, old: &AutoscalerV1, context: &Context<'_>) {
        let mut whole = from_v1(std::mem::take(new));
        Autoscalers.prepare_update(&mut whole, &from_v1(old.clone()), context);
        *new = to_v1(whole);
    }

    fn prepare_status(&self, new: &mut AutoscalerV1, old: &AutoscalerV1, context: &Context<'_>) {
        let mut whole = from_v1(std::mem::take(new));
        Autoscalers.prepare_status(&mut whole, &from_v1(old.clone()), context);
        *new = to_v1(whole);
    }

    fn validate(&self, object: &AutoscalerV1) -> Errors {
        validation::validate(&from_v1(object.clone()), None)
    }

    fn validate_update(&self, new: &AutoscalerV1, old: &AutoscalerV1) -> Errors {
        validation::validate(&from_v1(new.clone()), Some(&from_v1(old.clone())))
    }

    fn validate_status(&self, new: &AutoscalerV1, _: &AutoscalerV1) -> Errors {
        validation::validate_status(&from_v1(new.clone()))
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &AutoscalerV1, now: Timestamp) -> Vec<serde_json::Value> {
        row(&from_v1(object.clone()), now)
    }
}

#[cfg(test)]
mod tests;
