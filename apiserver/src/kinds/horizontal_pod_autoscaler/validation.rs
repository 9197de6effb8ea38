//! What makes an autoscaler invalid.

use coracle_proto::{
    field::{Error, Errors, Path},
    name,
    quantity::Quantity as Amount,
};
use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricSource, CrossVersionObjectReference, HPAScalingPolicy, HPAScalingRules,
    HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec, MetricIdentifier, MetricSpec, MetricTarget,
};

use crate::kinds::{
    blank::{list, text},
    resources, rules,
};

/// Longest period of a policy, and longest time to look back, in seconds.
const PERIOD: i32 = 1800;
const WINDOW: i32 = 3600;

const TYPES: &[&str] = &["ContainerResource", "External", "Object", "Pods", "Resource"];

/// How a reference's group may be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Group {
    /// It must be.
    Told,
    /// It may be the core group, which has no name.
    MayBeCore,
    /// It was so before and is not asked again.
    Unasked,
}

/// Everything wrong with an autoscaler; what an older one in its place said is not held against it.
pub(super) fn validate(object: &HorizontalPodAutoscaler, old: Option<&HorizontalPodAutoscaler>) -> Errors {
    let (mut errors, path, spec) = (Errors::new(), Path::new("spec"), &object.spec);
    let had_zero = old.is_some_and(|old| old.spec.min_replicas == Some(0));
    let least = i32::from(!had_zero);
    if let Some(replicas) = spec.min_replicas.filter(|replicas| *replicas < least) {
        let detail = format!("must be greater than or equal to {least}");
        errors.push(Error::invalid(&path.child("minReplicas"), replicas, &detail));
    }
    let at = path.child("maxReplicas");
    match spec.max_replicas {
        0 => errors.push(Error::required(&at, "must be set and greater than 0")),
        most if most < 0 => errors.push(Error::invalid(&at, most, "must be greater than or equal to 1")),
        _ => {}
    }
    if spec.min_replicas.is_some_and(|least| spec.max_replicas < least) {
        let detail = "must be greater than or equal to `minReplicas`";
        errors.push(Error::invalid(&at, spec.max_replicas, detail));
    }
    let (target, at) = (&spec.scale_target_ref, path.child("scaleTargetRef"));
    let is_same = |old: &HorizontalPodAutoscaler| {
        let before = &old.spec.scale_target_ref;
        (text(&before.api_version), &before.kind) == (text(&target.api_version), &target.kind)
    };
    let group = match old {
        Some(old) if is_same(old) => Group::Unasked,
        _ if target.kind == "ReplicationController" => Group::MayBeCore,
        _ => Group::Told,
    };
    validate_reference(&mut errors, &at, target, group);
    validate_metrics(&mut errors, &path.child("metrics"), spec, old);
    if let Some(behavior) = &spec.behavior {
        let at = path.child("behavior");
        for (field, scaling) in [("scaleUp", &behavior.scale_up), ("scaleDown", &behavior.scale_down)] {
            if let Some(scaling) = scaling {
                validate_scaling(&mut errors, &at.child(field), scaling);
            }
        }
    }
    errors
}

/// Everything wrong with a new status.
pub(super) fn validate_status(object: &HorizontalPodAutoscaler) -> Errors {
    let (mut errors, path) = (Errors::new(), Path::new("status"));
    let status = object.status.clone().unwrap_or_default();
    rules::not_negative(&mut errors, &path.child("currentReplicas"), status.current_replicas.unwrap_or(0).into());
    rules::not_negative(&mut errors, &path.child("desiredReplicas"), status.desired_replicas.into());
    errors
}

fn validate_reference(errors: &mut Errors, path: &Path, reference: &CrossVersionObjectReference, group: Group) {
    for (field, value) in [("kind", &reference.kind), ("name", &reference.name)] {
        let at = path.child(field);
        if value.is_empty() {
            errors.push(Error::required(&at, ""));
        } else {
            rules::messages(errors, &at, value, name::path_segment(value));
        }
    }
    let version = text(&reference.api_version);
    let wrong = match version.split('/').collect::<Vec<_>>().as_slice() {
        _ if group == Group::Unasked => return,
        [_, _, _, ..] => format!("unexpected GroupVersion string: {version}"),
        [named, _] if !named.is_empty() => return,
        _ if group == Group::MayBeCore => return,
        _ => "apiVersion must specify API group".to_owned(),
    };
    errors.push(Error::invalid(&path.child("apiVersion"), version, &wrong));
}

fn validate_metrics(
    errors: &mut Errors,
    path: &Path,
    spec: &HorizontalPodAutoscalerSpec,
    old: Option<&HorizontalPodAutoscaler>,
) {
    let metrics = list(&spec.metrics);
    let had_wrong_group = old.is_some_and(|old| {
        let objects = list(&old.spec.metrics).iter().filter(|metric| metric.type_ == "Object");
        objects.filter_map(|metric| metric.object.as_ref()).any(|source| {
            let mut found = Errors::new();
            validate_reference(&mut found, path, &source.described_object, Group::MayBeCore);
            found.iter().any(|error| error.path == path.child("apiVersion"))
        })
    });
    let group = if had_wrong_group { Group::Unasked } else { Group::MayBeCore };
    for (i, metric) in metrics.iter().enumerate() {
        validate_metric(errors, &path.index(i), metric, group);
    }
    let outlives_pods = |metric: &MetricSpec| matches!(metric.type_.as_str(), "Object" | "External");
    if spec.min_replicas == Some(0) && !metrics.iter().any(outlives_pods) {
        let detail = "must specify at least one Object or External metric to support scaling to zero replicas";
        errors.push(Error::forbidden(path, detail));
    }
}

/// The fields of the sources a metric has, in the order Kubernetes looks at them.
fn sources(metric: &MetricSpec) -> Vec<&'static str> {
    let all = [
        (metric.object.is_some(), "object"),
        (metric.external.is_some(), "external"),
        (metric.pods.is_some(), "pods"),
        (metric.resource.is_some(), "resource"),
        (metric.container_resource.is_some(), "containerResource"),
    ];
    all.into_iter().filter_map(|(is_there, field)| is_there.then_some(field)).collect()
}

fn validate_metric(errors: &mut Errors, path: &Path, metric: &MetricSpec, group: Group) {
    let at = path.child("type");
    if metric.type_.is_empty() {
        errors.push(Error::required(&at, "must specify a metric source type"));
    }
    rules::known_word(errors, &at, &metric.type_, TYPES);
    let sources = sources(metric);
    if let Some(first) = sources.first() {
        validate_source(errors, &path.child(first), metric, first, group);
    }
    let expected = match metric.type_.as_str() {
        "Object" => "object",
        "Pods" => "pods",
        "Resource" => "resource",
        "External" => "external",
        "ContainerResource" => "containerResource",
        _ => "",
    };
    if !expected.is_empty() && !sources.contains(&expected) {
        let detail = "must populate information for the given metric source";
        errors.push(Error::required(&path.child(expected), detail));
    }
    if sources.len() != 1 {
        for other in sources.iter().filter(|source| **source != expected) {
            errors.push(Error::forbidden(&path.child(other), "must populate the given metric source only"));
        }
    }
}

fn validate_source(errors: &mut Errors, path: &Path, metric: &MetricSpec, field: &str, group: Group) {
    match field {
        "object" => {
            let Some(source) = &metric.object else { return };
            validate_reference(errors, &path.child("describedObject"), &source.described_object, group);
            validate_identifier(errors, &path.child("metric"), &source.metric);
            let at = path.child("target");
            validate_target(errors, &at, &source.target);
            if source.target.value.is_none() && source.target.average_value.is_none() {
                let detail = "must set either a target value or averageValue";
                errors.push(Error::required(&at.child("averageValue"), detail));
            }
        }
        "external" => {
            let Some(source) = &metric.external else { return };
            validate_identifier(errors, &path.child("metric"), &source.metric);
            let at = path.child("target");
            validate_target(errors, &at, &source.target);
            match (&source.target.value, &source.target.average_value) {
                (None, None) => {
                    let detail = "must set either a target value for metric or a per-pod target";
                    errors.push(Error::required(&at.child("averageValue"), detail));
                }
                (Some(_), Some(_)) => {
                    let detail = "may not set both a target value for metric and a per-pod target";
                    errors.push(Error::forbidden(&at.child("value"), detail));
                }
                _ => {}
            }
        }
        "pods" => {
            let Some(source) = &metric.pods else { return };
            validate_identifier(errors, &path.child("metric"), &source.metric);
            let at = path.child("target");
            validate_target(errors, &at, &source.target);
            if source.target.average_value.is_none() {
                let detail = "must specify a positive target averageValue";
                errors.push(Error::required(&at.child("averageValue"), detail));
            }
        }
        "resource" => {
            let Some(source) = &metric.resource else { return };
            if source.name.is_empty() {
                errors.push(Error::required(&path.child("name"), "must specify a resource name"));
            }
            validate_usage(errors, &path.child("target"), &source.target);
        }
        _ => {
            let Some(source) = &metric.container_resource else { return };
            validate_container(errors, path, source);
        }
    }
}

fn validate_container(errors: &mut Errors, path: &Path, source: &ContainerResourceMetricSource) {
    let at = path.child("name");
    if source.name.is_empty() {
        errors.push(Error::required(&at, "must specify a resource name"));
    } else {
        resources::validate_name(errors, &at, &source.name, resources::Holder::Container);
    }
    let at = path.child("container");
    if source.container.is_empty() {
        errors.push(Error::required(&at, "must specify a container"));
    } else {
        rules::messages(errors, &at, &source.container, name::dns1123_label(&source.container));
    }
    validate_usage(errors, &path.child("target"), &source.target);
}

/// The target of a resource is an amount or a part of what is requested.
fn validate_usage(errors: &mut Errors, path: &Path, target: &MetricTarget) {
    validate_target(errors, path, target);
    match (target.average_utilization, &target.average_value) {
        (None, None) => {
            let detail = "must set either a target raw value or a target utilization";
            errors.push(Error::required(&path.child("averageUtilization"), detail));
        }
        (Some(_), Some(_)) => {
            let detail = "may not set both a target raw value and a target utilization";
            errors.push(Error::forbidden(&path.child("averageValue"), detail));
        }
        _ => {}
    }
}

fn validate_target(errors: &mut Errors, path: &Path, target: &MetricTarget) {
    let at = path.child("type");
    if target.type_.is_empty() {
        errors.push(Error::required(&at, "must specify a metric target type"));
    }
    if !matches!(target.type_.as_str(), "Utilization" | "Value" | "AverageValue") {
        let detail = "must be either Utilization, Value, or AverageValue";
        errors.push(Error::invalid(&at, target.type_.as_str(), detail));
    }
    for (field, value) in [("value", &target.value), ("averageValue", &target.average_value)] {
        let at = path.child(field);
        if let Some(value) = value
            && resources::read(errors, &at, value).is_some_and(|amount| amount <= Amount::ZERO)
        {
            errors.push(Error::invalid(&at, value.0.as_str(), "must be positive"));
        }
    }
    if let Some(percent) = target.average_utilization.filter(|percent| *percent < 1) {
        errors.push(Error::invalid(&path.child("averageUtilization"), percent, "must be greater than 0"));
    }
}

fn validate_identifier(errors: &mut Errors, path: &Path, metric: &MetricIdentifier) {
    let at = path.child("name");
    if metric.name.is_empty() {
        errors.push(Error::required(&at, "must specify a metric name"));
    } else {
        rules::messages(errors, &at, &metric.name, name::path_segment(&metric.name));
    }
}

fn validate_scaling(errors: &mut Errors, path: &Path, scaling: &HPAScalingRules) {
    let at = path.child("stabilizationWindowSeconds");
    if let Some(window) = scaling.stabilization_window_seconds {
        if window < 0 {
            errors.push(Error::invalid(&at, window, "must be greater than or equal to zero"));
        }
        if window > WINDOW {
            errors.push(Error::invalid(&at, window, &format!("must be less than or equal to {WINDOW}")));
        }
    }
    if let Some(policy) = &scaling.select_policy {
        rules::known_word(errors, &path.child("selectPolicy"), policy, &["Disabled", "Max", "Min"]);
    }
    let at = path.child("policies");
    let policies = list(&scaling.policies);
    if policies.is_empty() {
        errors.push(Error::required(&at, "must specify at least one Policy"));
    }
    for (i, policy) in policies.iter().enumerate() {
        validate_policy(errors, &at.index(i), policy);
    }
    if let Some(tolerance) = &scaling.tolerance {
        let at = path.child("tolerance");
        if resources::read(errors, &at, tolerance).is_some_and(|amount| amount.is_negative()) {
            errors.push(Error::invalid(&at, tolerance.0.as_str(), "must be greater than or equal to 0"));
        }
    }
}

fn validate_policy(errors: &mut Errors, path: &Path, policy: &HPAScalingPolicy) {
    rules::known_word(errors, &path.child("type"), &policy.type_, &["Percent", "Pods"]);
    if policy.value <= 0 {
        errors.push(Error::invalid(&path.child("value"), policy.value, "must be greater than zero"));
    }
    let at = path.child("periodSeconds");
    if policy.period_seconds <= 0 {
        errors.push(Error::invalid(&at, policy.period_seconds, "must be greater than zero"));
    }
    if policy.period_seconds > PERIOD {
        let detail = format!("must be less than or equal to {PERIOD}");
        errors.push(Error::invalid(&at, policy.period_seconds, &detail));
    }
}
