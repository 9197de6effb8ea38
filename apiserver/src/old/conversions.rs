//! The table of old versions' conversions, and the functions it is made of.
//!
//! What each does is what Kubernetes did while it still served the version (its `zz_generated.conversion.go`,
//! `conversion.go` and `defaults.go` of 1.15 and 1.21). A version that is not in the table has today's shape.

mod definition;

use serde_json::{Map, Value, json};

use super::Conversion;

type Object = Map<String, Value>;

/// An annotation that keeps what today's Deployment has no field for.
const ROLLBACK: &str = "deprecated.deployment.rollback.to";

/// The same for a DaemonSet.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

/// What stands for the empty selector of an old budget, which meant no pods at all.
const NOTHING: &str = "pdb.kubernetes.io/deprecated-v1beta1-empty-selector-match";

/// How the old version of a kind is converted.
pub(super) fn find(group: &str, version: &str, kind: &str) -> Conversion {
    let conversion = |deprecated, to_modern, defaults, to_old| Conversion { deprecated, to_modern, defaults, to_old };
    match (group, version, kind) {
        ("extensions", _, "Deployment") => conversion(("1.9", "1.16"), deployment, first_deployment, to_old_deployment),
        ("extensions", _, "DaemonSet") => conversion(("1.9", "1.16"), daemon_set, first_workload, to_old_daemon_set),
        ("extensions", _, "ReplicaSet") => conversion(("1.9", "1.16"), same, labelled_by_template, same),
        ("extensions", _, "NetworkPolicy") => conversion(("1.9", "1.16"), same, same, same),
        ("extensions" | "networking.k8s.io", _, "Ingress") => {
            let deprecated = if group == "extensions" { ("1.14", "1.22") } else { ("1.19", "1.22") };
            conversion(deprecated, ingress, paths_as_the_controller_likes, to_old_ingress)
        }
        ("networking.k8s.io", ..) => conversion(("1.19", "1.22"), same, same, same),
        ("apps", "v1beta1", "Deployment") => {
            conversion(("1.9", "1.16"), deployment, second_deployment, to_old_deployment)
        }
        ("apps", "v1beta1", "StatefulSet") => conversion(("1.9", "1.16"), same, first_workload, same),
        ("apps", "v1beta2", "DaemonSet") => conversion(("1.9", "1.16"), daemon_set, same, to_old_daemon_set),
        ("apps", ..) => conversion(("1.9", "1.16"), same, same, same),
        ("policy", ..) => conversion(("1.21", "1.25"), budget, same, to_old_budget),
        ("apiextensions.k8s.io", ..) => {
            conversion(("1.16", "1.22"), definition::to_modern, definition::defaults, definition::to_old)
        }
        ("batch", ..) => conversion(("1.21", "1.25"), same, same, same),
        ("rbac.authorization.k8s.io", ..) => conversion(("1.17", "1.22"), same, same, same),
        _ => conversion(("1.16", "1.22"), same, same, same),
    }
}

fn same(_: &mut Object) {}

/// The object in a field, if it is one.
fn inner<'a>(object: &'a mut Object, field: &str) -> Option<&'a mut Object> {
    object.get_mut(field).and_then(Value::as_object_mut)
}

/// The object in a field, made when it is missing; what is there and no object stays, for decoding to complain of.
fn inner_or_new<'a>(object: &'a mut Object, field: &str) -> Option<&'a mut Object> {
    let value = object.entry(field).or_insert(Value::Null);
    if value.is_null() {
        *value = json!({});
    }
    value.as_object_mut()
}

fn is_unset(object: &Object, field: &str) -> bool {
    match object.get(field) {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(_) => false,
    }
}

fn fill(object: &mut Object, field: &str, default: Value) {
    if is_unset(object, field) {
        object.insert(field.to_owned(), default);
    }
}

fn rename(object: &mut Object, from: &str, to: &str) {
    if let Some(value) = object.remove(from) {
        object.insert(to.to_owned(), value);
    }
}

/// Before `apps/v1beta2`, a workload without selector and labels of its own had its template's labels.
fn labelled_by_template(object: &mut Object) {
    let labels = object.get("spec").and_then(|spec| spec.pointer("/template/metadata/labels")).cloned();
    let Some(labels) = labels.filter(|labels| labels.as_object().is_some_and(|labels| !labels.is_empty())) else {
        return;
    };
    if let Some(spec) = inner(object, "spec") {
        fill(spec, "selector", json!({"matchLabels": labels}));
    }
    if let Some(meta) = inner_or_new(object, "metadata") {
        let is_bare = meta.get("labels").and_then(Value::as_object).is_none_or(Map::is_empty);
        if is_bare {
            meta.insert("labels".to_owned(), labels);
        }
    }
}

/// Keeps a number of the old spec in an annotation.
fn keep(object: &mut Object, take: impl FnOnce(&mut Object) -> Option<i64>, annotation: &str) {
    let Some(number) = inner(object, "spec").and_then(take) else { return };
    let annotations = inner_or_new(object, "metadata").and_then(|meta| inner_or_new(meta, "annotations"));
    if let Some(annotations) = annotations {
        annotations.insert(annotation.to_owned(), number.to_string().into());
    }
}

/// The number that is kept in an annotation, which goes.
fn kept(object: &mut Object, annotation: &str) -> Option<i64> {
    let meta = inner(object, "metadata")?;
    let annotations = inner(meta, "annotations")?;
    let number = annotations.remove(annotation)?.as_str()?.parse().ok();
    if annotations.is_empty() {
        meta.remove("annotations");
    }
    number
}

fn deployment(object: &mut Object) {
    let revision = |spec: &mut Object| {
        let to = spec.get("rollbackTo")?.as_object()?.get("revision").and_then(Value::as_i64).unwrap_or(0);
        spec.remove("rollbackTo");
        Some(to)
    };
    keep(object, revision, ROLLBACK);
}

/// What the defaults of a Deployment have in common in all old versions.
fn fill_deployment(object: &mut Object, defaults: &[(&str, i64)], step: &Value) {
    labelled_by_template(object);
    let Some(spec) = inner(object, "spec") else { return };
    for (field, default) in defaults {
        fill(spec, field, (*default).into());
    }
    if let Some(strategy) = inner_or_new(spec, "strategy") {
        fill(strategy, "type", "RollingUpdate".into());
        if strategy.get("type") == Some(&json!("RollingUpdate"))
            && let Some(rolling) = inner_or_new(strategy, "rollingUpdate")
        {
            fill(rolling, "maxSurge", step.clone());
            fill(rolling, "maxUnavailable", step.clone());
        }
    }
}

/// `extensions/v1beta1`: one pod at a time, every ReplicaSet kept, no deadline.
fn first_deployment(object: &mut Object) {
    let never = i64::from(i32::MAX);
    fill_deployment(object, &[("progressDeadlineSeconds", never), ("revisionHistoryLimit", never)], &json!(1));
}

/// `apps/v1beta1`: two ReplicaSets kept.
fn second_deployment(object: &mut Object) {
    fill_deployment(object, &[("progressDeadlineSeconds", 600), ("revisionHistoryLimit", 2)], &json!("25%"));
}

fn to_old_deployment(object: &mut Object) {
    let Some(revision) = kept(object, ROLLBACK) else { return };
    if let Some(spec) = inner(object, "spec") {
        spec.insert("rollbackTo".to_owned(), json!({"revision": revision}));
    }
}

fn daemon_set(object: &mut Object) {
    let generation = |spec: &mut Object| {
        let generation = spec.get("templateGeneration")?.as_i64()?;
        spec.remove("templateGeneration");
        Some(generation)
    };
    keep(object, generation, TEMPLATE_GENERATION);
}

fn to_old_daemon_set(object: &mut Object) {
    let Some(generation) = kept(object, TEMPLATE_GENERATION) else { return };
    if let Some(spec) = inner(object, "spec") {
        spec.insert("templateGeneration".to_owned(), generation.into());
    }
}

/// The first DaemonSets and StatefulSets: pods are only replaced when somebody deletes them.
fn first_workload(object: &mut Object) {
    labelled_by_template(object);
    if let Some(strategy) = inner(object, "spec").and_then(|spec| inner_or_new(spec, "updateStrategy")) {
        fill(strategy, "type", "OnDelete".into());
    }
}

/// Every backend below a rule, and how the rule's paths look.
fn each_path(spec: &mut Object, mut change: impl FnMut(&mut Object)) {
    let rules = spec.get_mut("rules").and_then(Value::as_array_mut).into_iter().flatten();
    for rule in rules {
        let paths = rule.pointer_mut("/http/paths").and_then(Value::as_array_mut).into_iter().flatten();
        paths.filter_map(Value::as_object_mut).for_each(&mut change);
    }
}

/// `{serviceName, servicePort}` as `{service: {name, port}}`.
fn backend(old: &mut Object) {
    let (name, port) = (old.remove("serviceName"), old.remove("servicePort"));
    let is_empty =
        |value: &Option<Value>| value.as_ref().is_none_or(|v| v.is_null() || *v == json!("") || *v == json!(0));
    if is_empty(&name) && is_empty(&port) {
        return;
    }
    let port = match port {
        None | Some(Value::Null) => json!({}),
        Some(Value::String(name)) => json!({"name": name}),
        Some(number) => json!({"number": number}),
    };
    old.insert("service".to_owned(), json!({"name": name.unwrap_or_else(|| json!("")), "port": port}));
}

fn old_backend(new: &mut Object) {
    let Some(Value::Object(mut service)) = new.remove("service") else { return };
    if let Some(name) = service.remove("name") {
        new.insert("serviceName".to_owned(), name);
    }
    let port = service.get("port").and_then(Value::as_object);
    let port = port.and_then(|port| port.get("name").or_else(|| port.get("number"))).cloned();
    new.insert("servicePort".to_owned(), port.unwrap_or_else(|| json!(0)));
}

fn ingress(object: &mut Object) {
    let Some(spec) = inner(object, "spec") else { return };
    rename(spec, "backend", "defaultBackend");
    if let Some(default) = inner(spec, "defaultBackend") {
        backend(default);
    }
    each_path(spec, |path| {
        if let Some(own) = inner(path, "backend") {
            backend(own);
        }
    });
}

fn paths_as_the_controller_likes(object: &mut Object) {
    if let Some(spec) = inner(object, "spec") {
        each_path(spec, |path| fill(path, "pathType", "ImplementationSpecific".into()));
    }
}

fn to_old_ingress(object: &mut Object) {
    let Some(spec) = inner(object, "spec") else { return };
    if let Some(default) = inner(spec, "defaultBackend") {
        old_backend(default);
    }
    rename(spec, "defaultBackend", "backend");
    each_path(spec, |path| {
        if let Some(own) = inner(path, "backend") {
            old_backend(own);
        }
    });
}

/// A selector of one requirement on the key that no pod has.
fn on_nothing(operator: &str) -> Value {
    json!({"matchExpressions": [{"key": NOTHING, "operator": operator}]})
}

fn is_empty_selector(selector: &Value) -> bool {
    selector.as_object().is_some_and(|selector| {
        selector.values().all(|part| part.is_null() || *part == json!({}) || *part == json!([]))
    })
}

/// An empty selector meant nothing where it means everything today.
fn budget(object: &mut Object) {
    let Some(selector) = inner(object, "spec").and_then(|spec| spec.get_mut("selector")) else { return };
    if is_empty_selector(selector) {
        *selector = on_nothing("Exists");
    } else if *selector == on_nothing("DoesNotExist") {
        *selector = json!({});
    }
}

fn to_old_budget(object: &mut Object) {
    let Some(selector) = inner(object, "spec").and_then(|spec| spec.get_mut("selector")) else { return };
    if is_empty_selector(selector) {
        *selector = on_nothing("DoesNotExist");
    } else if *selector == on_nothing("Exists") {
        *selector = json!({});
    }
}
