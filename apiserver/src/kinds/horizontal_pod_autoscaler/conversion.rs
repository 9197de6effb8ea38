//! The two versions of an autoscaler: what `v1` has no fields for travels in annotations, in shapes of their own.

use k8s_openapi::{
    api::autoscaling::{v1, v2},
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta},
};
use serde_json::{Map, Value, json};

use super::cpu;
use crate::kinds::resources;

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const CARRIED: &[&str] = &[
    METRICS,
    CURRENT_METRICS,
    CONDITIONS,
    BEHAVIOR,
    "autoscaling.alpha.kubernetes.io/scale-down-tolerance",
    "autoscaling.alpha.kubernetes.io/scale-up-tolerance",
];

/// Takes away what is only for the way to `v1` and back.
pub(super) fn drop_carried(meta: &mut ObjectMeta) {
    if let Some(annotations) = &mut meta.annotations {
        annotations.retain(|key, _| !CARRIED.contains(&key.as_str()));
        if annotations.is_empty() {
            meta.annotations = None;
        }
    }
}

/// The CPU target, if the metric is nothing else.
fn cpu_target(metric: &v2::MetricSpec) -> Option<i32> {
    let resource = metric.resource.as_ref().filter(|resource| metric.type_ == "Resource" && resource.name == "cpu")?;
    resource.target.average_utilization
}

/// Where the value of a target, a current value, a metric's name or its selector is called otherwise in the annotations.
struct Names {
    field: &'static str,
    renamed: &'static [(&'static str, &'static str)],
}

/// The kinds of metrics: their field in both shapes, and paths in `v2` with names in the annotations.
const SPECS: &[Names] = &[
    Names {
        field: "object",
        renamed: &[
            ("/describedObject", "target"),
            ("/metric/name", "metricName"),
            ("/target/value", "targetValue"),
            ("/metric/selector", "selector"),
            ("/target/averageValue", "averageValue"),
        ],
    },
    Names {
        field: "pods",
        renamed: &[
            ("/metric/name", "metricName"),
            ("/target/averageValue", "targetAverageValue"),
            ("/metric/selector", "selector"),
        ],
    },
    Names {
        field: "resource",
        renamed: &[
            ("/name", "name"),
            ("/target/averageUtilization", "targetAverageUtilization"),
            ("/target/averageValue", "targetAverageValue"),
        ],
    },
    Names {
        field: "containerResource",
        renamed: &[
            ("/name", "name"),
            ("/target/averageUtilization", "targetAverageUtilization"),
            ("/target/averageValue", "targetAverageValue"),
            ("/container", "container"),
        ],
    },
    Names {
        field: "external",
        renamed: &[
            ("/metric/name", "metricName"),
            ("/metric/selector", "metricSelector"),
            ("/target/value", "targetValue"),
            ("/target/averageValue", "targetAverageValue"),
        ],
    },
];

const STATUSES: &[Names] = &[
    Names {
        field: "object",
        renamed: &[
            ("/describedObject", "target"),
            ("/metric/name", "metricName"),
            ("/current/value", "currentValue"),
            ("/metric/selector", "selector"),
            ("/current/averageValue", "averageValue"),
        ],
    },
    Names {
        field: "pods",
        renamed: &[
            ("/metric/name", "metricName"),
            ("/current/averageValue", "currentAverageValue"),
            ("/metric/selector", "selector"),
        ],
    },
    Names {
        field: "resource",
        renamed: &[
            ("/name", "name"),
            ("/current/averageUtilization", "currentAverageUtilization"),
            ("/current/averageValue", "currentAverageValue"),
        ],
    },
    Names {
        field: "containerResource",
        renamed: &[
            ("/name", "name"),
            ("/current/averageUtilization", "currentAverageUtilization"),
            ("/current/averageValue", "currentAverageValue"),
            ("/container", "container"),
        ],
    },
    Names {
        field: "external",
        renamed: &[
            ("/metric/name", "metricName"),
            ("/metric/selector", "metricSelector"),
            ("/current/value", "currentValue"),
            ("/current/averageValue", "currentAverageValue"),
        ],
    },
];

/// Quantities that the annotations' shape cannot leave out, and writes as zero.
fn always_told(field: &str, name: &str) -> bool {
    matches!(
        (field, name),
        ("object", "targetValue" | "currentValue")
            | ("pods", "targetAverageValue" | "currentAverageValue")
            | ("resource" | "containerResource", "currentAverageValue")
            | ("external", "currentValue")
    )
}

/// A metric as the annotations have it.
fn flatten(metric: &Value, shapes: &[Names]) -> Value {
    let mut flat = Map::new();
    flat.insert("type".to_owned(), metric.get("type").cloned().unwrap_or_default());
    for shape in shapes {
        let Some(source) = metric.get(shape.field) else { continue };
        let mut inner = Map::new();
        for (path, name) in shape.renamed {
            match source.pointer(path) {
                Some(value) => inner.insert((*name).to_owned(), value.clone()),
                None if always_told(shape.field, name) => inner.insert((*name).to_owned(), "0".into()),
                None => None,
            };
        }
        flat.insert(shape.field.to_owned(), inner.into());
    }
    flat.into()
}

/// Sets the value at a path of two parts at most, making the object it is in.
fn put(object: &mut Map<String, Value>, path: &str, value: Value) {
    let mut parts = path.trim_start_matches('/').split('/');
    let (Some(first), second) = (parts.next(), parts.next()) else { return };
    match second {
        None => {
            object.insert(first.to_owned(), value);
        }
        Some(second) => {
            let inner = object.entry(first).or_insert_with(|| json!({}));
            if let Some(inner) = inner.as_object_mut() {
                inner.insert(second.to_owned(), value);
            }
        }
    }
}

fn is_zero(value: &Value) -> bool {
    value
        .as_str()
        .is_some_and(|text| resources::parse(&Quantity(text.to_owned())).is_some_and(|amount| amount.is_zero()))
}

/// A metric of the annotations as `v2` has it.
fn raise(flat: &Value, shapes: &[Names], is_spec: bool) -> Value {
    let mut metric = Map::new();
    metric.insert("type".to_owned(), flat.get("type").cloned().unwrap_or_default());
    for shape in shapes {
        let Some(source) = flat.get(shape.field).and_then(Value::as_object) else { continue };
        let mut inner = Map::new();
        let has = |name: &str| source.get(name).is_some_and(|value| !value.is_null());
        for (path, name) in shape.renamed.iter().filter(|(_, name)| has(name)) {
            let value = source.get(*name).cloned().unwrap_or_default();
            // A target value beside an average that is only there because it cannot be left out is none.
            let is_filler = is_spec && shape.field == "object" && *name == "targetValue" && has("averageValue");
            if !(is_filler && is_zero(&value)) {
                put(&mut inner, path, value);
            }
        }
        if is_spec {
            let kind = match shape.field {
                "object" if has("averageValue") => "AverageValue",
                "object" => "Value",
                "external" if has("targetValue") => "Value",
                "resource" | "containerResource" if has("targetAverageUtilization") => "Utilization",
                _ => "AverageValue",
            };
            put(&mut inner, "/target/type", kind.into());
        }
        metric.insert(shape.field.to_owned(), inner.into());
    }
    metric.into()
}

/// Behavior is carried in the shape of Kubernetes' internal types, whose fields have large first letters.
fn recase(value: &Value, change: fn(&str) -> String) -> Value {
    match value {
        Value::Object(map) => map.iter().map(|(key, value)| (change(key), recase(value, change))).collect(),
        Value::Array(items) => items.iter().map(|item| recase(item, change)).collect(),
        other => other.clone(),
    }
}

fn with_first(text: &str, change: fn(&char) -> char) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| change(&first)).into_iter().chain(letters).collect()
}

fn large(text: &str) -> String {
    with_first(text, char::to_ascii_uppercase)
}

fn small(text: &str) -> String {
    with_first(text, char::to_ascii_lowercase)
}

fn value_of<T: serde::Serialize>(value: &T) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

/// The autoscaler as `v1` shows it.
#[must_use]
pub fn to_v1(object: v2::HorizontalPodAutoscaler) -> v1::HorizontalPodAutoscaler {
    let mut metadata = object.metadata;
    drop_carried(&mut metadata);
    let (spec, status) = (object.spec, object.status.unwrap_or_default());
    let metrics = spec.metrics.unwrap_or_default();
    let mut carry = |key: &str, value: &Value| {
        metadata.annotations.get_or_insert_default().insert(key.to_owned(), value.to_string());
    };
    let others: Vec<Value> = metrics
        .iter()
        .filter(|metric| cpu_target(metric).is_none())
        .map(|metric| flatten(&value_of(metric), SPECS))
        .collect();
    if !others.is_empty() {
        carry(METRICS, &others.into());
    }
    let current = status.current_metrics.unwrap_or_default();
    if !current.is_empty() {
        carry(CURRENT_METRICS, &current.iter().map(|metric| flatten(&value_of(metric), STATUSES)).collect());
    }
    if let Some(behavior) = &spec.behavior {
        carry(BEHAVIOR, &recase(&value_of(behavior), large));
    }
    if let Some(conditions) = status.conditions.filter(|conditions| !conditions.is_empty()) {
        carry(CONDITIONS, &value_of(&conditions));
    }
    let used = current
        .iter()
        .filter(|metric| metric.type_ == "Resource")
        .filter_map(|metric| metric.resource.as_ref().filter(|resource| resource.name == "cpu"))
        .filter_map(|resource| resource.current.average_utilization)
        .next_back();
    v1::HorizontalPodAutoscaler {
        metadata,
        spec: v1::HorizontalPodAutoscalerSpec {
            max_replicas: spec.max_replicas,
            min_replicas: spec.min_replicas,
            scale_target_ref: v1::CrossVersionObjectReference {
                api_version: spec.scale_target_ref.api_version,
                kind: spec.scale_target_ref.kind,
                name: spec.scale_target_ref.name,
            },
            target_cpu_utilization_percentage: metrics.iter().find_map(cpu_target),
        },
        status: Some(v1::HorizontalPodAutoscalerStatus {
            current_cpu_utilization_percentage: used,
            current_replicas: status.current_replicas.unwrap_or(0),
            desired_replicas: status.desired_replicas,
            last_scale_time: status.last_scale_time,
            observed_generation: status.observed_generation,
        }),
    }
}

/// What an annotation carries; what cannot be read is passed over, as Kubernetes does.
fn carried<T: serde::de::DeserializeOwned>(meta: &ObjectMeta, key: &str, raise: impl Fn(Value) -> Value) -> Option<T> {
    let text = meta.annotations.as_ref()?.get(key)?;
    let value: Value = serde_json::from_str(text).ok()?;
    serde_json::from_value(raise(value)).ok()
}

fn raise_all(list: Value, shapes: &[Names], is_spec: bool) -> Value {
    list.as_array().into_iter().flatten().map(|flat| raise(flat, shapes, is_spec)).collect()
}

/// The autoscaler as `v2` shows it.
#[must_use]
pub fn from_v1(object: v1::HorizontalPodAutoscaler) -> v2::HorizontalPodAutoscaler {
    let (spec, status, mut metadata) = (object.spec, object.status.unwrap_or_default(), object.metadata);
    let mut metrics: Vec<v2::MetricSpec> =
        carried(&metadata, METRICS, |list| raise_all(list, SPECS, true)).unwrap_or_default();
    metrics.extend(spec.target_cpu_utilization_percentage.map(cpu));
    if metrics.is_empty() {
        metrics.push(cpu(super::CPU_TARGET));
    }
    let behavior = carried(&metadata, BEHAVIOR, |value| recase(&value, small))
        .filter(|behavior: &v2::HorizontalPodAutoscalerBehavior| *behavior != Default::default());
    let current: Option<Vec<v2::MetricStatus>> =
        carried(&metadata, CURRENT_METRICS, |list| raise_all(list, STATUSES, false));
    let current = current.or_else(|| status.current_cpu_utilization_percentage.map(|percent| vec![used_cpu(percent)]));
    let conditions = carried(&metadata, CONDITIONS, |value| value);
    drop_carried(&mut metadata);
    v2::HorizontalPodAutoscaler {
        metadata,
        spec: v2::HorizontalPodAutoscalerSpec {
            behavior,
            max_replicas: spec.max_replicas,
            metrics: Some(metrics),
            min_replicas: spec.min_replicas,
            scale_target_ref: v2::CrossVersionObjectReference {
                api_version: spec.scale_target_ref.api_version,
                kind: spec.scale_target_ref.kind,
                name: spec.scale_target_ref.name,
            },
        },
        status: Some(v2::HorizontalPodAutoscalerStatus {
            conditions,
            current_metrics: current,
            current_replicas: Some(status.current_replicas),
            desired_replicas: status.desired_replicas,
            last_scale_time: status.last_scale_time,
            observed_generation: status.observed_generation,
        }),
    }
}

fn used_cpu(percent: i32) -> v2::MetricStatus {
    v2::MetricStatus {
        type_: "Resource".to_owned(),
        resource: Some(v2::ResourceMetricStatus {
            name: "cpu".to_owned(),
            current: v2::MetricValueStatus { average_utilization: Some(percent), ..v2::MetricValueStatus::default() },
        }),
        ..v2::MetricStatus::default()
    }
}
