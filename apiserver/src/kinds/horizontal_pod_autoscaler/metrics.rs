//! Metrics as a table shows them.

use k8s_openapi::{
    api::autoscaling::v2::{MetricSpec, MetricStatus, MetricTarget, MetricValueStatus},
    apimachinery::pkg::api::resource::Quantity,
};

use crate::kinds::cells;

/// As many metrics as a row shows.
const SHOWN: usize = 2;

/// The targets that a metric has: one, if it is well formed.
pub(super) fn targets_mut(metric: &mut MetricSpec) -> impl Iterator<Item = &mut MetricTarget> {
    let parts = [
        metric.object.as_mut().map(|source| &mut source.target),
        metric.pods.as_mut().map(|source| &mut source.target),
        metric.resource.as_mut().map(|source| &mut source.target),
        metric.container_resource.as_mut().map(|source| &mut source.target),
        metric.external.as_mut().map(|source| &mut source.target),
    ];
    parts.into_iter().flatten()
}

fn unknown() -> String {
    "<unknown>".to_owned()
}

fn quantity(quantity: Option<&Quantity>) -> String {
    quantity.map_or_else(unknown, |quantity| quantity.0.clone())
}

/// A metric of the whole, or its average over the pods.
fn value(target: &MetricTarget, current: Option<&MetricValueStatus>) -> String {
    match &target.average_value {
        Some(wanted) => {
            let current = quantity(current.and_then(|current| current.average_value.as_ref()));
            format!("{current}/{} (avg)", wanted.0)
        }
        None => {
            let current = quantity(current.and_then(|current| current.value.as_ref()));
            format!("{current}/{}", target.value.as_ref().map_or("0", |wanted| wanted.0.as_str()))
        }
    }
}

/// A resource that the pods use, in amounts or in percent of what they request.
fn usage(name: &str, target: &MetricTarget, current: Option<&MetricValueStatus>) -> String {
    if let Some(wanted) = &target.average_value {
        let current = quantity(current.and_then(|current| current.average_value.as_ref()));
        return format!("{name}: {current}/{}", wanted.0);
    }
    let percent = |number: Option<i32>| number.map(|number| format!("{number}%"));
    let current = percent(current.and_then(|current| current.average_utilization)).unwrap_or_else(unknown);
    let wanted = percent(target.average_utilization).unwrap_or_else(|| "<auto>".to_owned());
    format!("{name}: {current}/{wanted}")
}

fn one(spec: &MetricSpec, status: Option<&MetricStatus>) -> String {
    match spec.type_.as_str() {
        "External" => spec
            .external
            .as_ref()
            .map(|source| value(&source.target, status.and_then(|s| s.external.as_ref()).map(|s| &s.current))),
        "Object" => spec
            .object
            .as_ref()
            .map(|source| value(&source.target, status.and_then(|s| s.object.as_ref()).map(|s| &s.current))),
        "Pods" => spec.pods.as_ref().map(|source| {
            let current = status.and_then(|s| s.pods.as_ref()).and_then(|s| s.current.average_value.as_ref());
            let wanted = source.target.average_value.as_ref().map_or("0", |wanted| wanted.0.as_str());
            format!("{}/{wanted}", quantity(current))
        }),
        "Resource" => spec.resource.as_ref().map(|source| {
            usage(&source.name, &source.target, status.and_then(|s| s.resource.as_ref()).map(|s| &s.current))
        }),
        "ContainerResource" => spec.container_resource.as_ref().map(|source| {
            let current = status.and_then(|s| s.container_resource.as_ref()).map(|s| &s.current);
            usage(&source.name, &source.target, current)
        }),
        _ => None,
    }
    .unwrap_or_else(|| "<unknown type>".to_owned())
}

/// The first metrics, each as it is and as it should be, and how many more there are.
pub(super) fn shown(specs: &[MetricSpec], statuses: &[MetricStatus]) -> String {
    if specs.is_empty() {
        return cells::NONE.to_owned();
    }
    let first: Vec<String> = specs.iter().enumerate().take(SHOWN).map(|(i, spec)| one(spec, statuses.get(i))).collect();
    let first = first.join(", ");
    match specs.len().checked_sub(SHOWN) {
        Some(more) if more > 0 => format!("{first} + {more} more..."),
        _ => first,
    }
}
