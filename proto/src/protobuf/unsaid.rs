//! What Go's JSON leaves out: zeros of fields that are no pointers, and empty lists and maps (`omitempty`).
//!
//! Who writes `caBundle: ""` or `namespaces: []` reads the object back without them, and so do all who compare the two.

use serde_json::{Map, Value};

use super::{
    decode::is_unsaid,
    table::{Field, SCHEMA, TABLES, Type, message_of},
};

mod look;

pub use look::has_unsaid;

/// Lists that mean something else when they are empty than when they are not there, and are refused then.
const TOLD_APART: &[(&str, &str)] = &[("io.k8s.api.autoscaling.v2.HPAScalingRules", "policies")];

/// Selectors that a workload must have: what was given and says nothing is refused in other words than what was not given, and
/// so keeps a field to be known by.
const MUST_BE_GIVEN: &[(&str, &str)] = &[
    ("io.k8s.api.apps.v1.DaemonSetSpec", "selector"),
    ("io.k8s.api.apps.v1.DeploymentSpec", "selector"),
    ("io.k8s.api.apps.v1.ReplicaSetSpec", "selector"),
    ("io.k8s.api.apps.v1.StatefulSetSpec", "selector"),
];

/// Drops from an object in JSON what Go leaves out, and says whether that was anything. Of kinds without a table, custom ones
/// above all, nothing is known and nothing dropped.
pub fn drop_unsaid(api_version: &str, kind: &str, object: &mut Value) -> bool {
    match (message_of(api_version, kind), object) {
        (Some(message), Value::Object(object)) => of_message(&message, object),
        _ => false,
    }
}

fn of_message(message: &str, object: &mut Map<String, Value>) -> bool {
    let mut has_dropped = false;
    for field in TABLES.get(message).into_iter().flatten() {
        let Some(name) = field.name else {
            if let Type::Message(inner) = &field.content {
                has_dropped |= of_message(inner, object);
            }
            continue;
        };
        let Some(value) = object.get_mut(name) else { continue };
        if is_kept(message, name) {
            if let Value::Object(selector) = value
                && selector.is_empty()
            {
                selector.insert("matchLabels".to_owned(), Map::new().into());
                has_dropped = true;
            }
            continue;
        }
        has_dropped |= of_value(&field.content, value);
        if is_left_out(field, value) && !TOLD_APART.contains(&(message, name)) {
            object.remove(name);
            has_dropped = true;
        }
    }
    has_dropped
}

fn of_value(content: &Type, value: &mut Value) -> bool {
    match (content, value) {
        (Type::Message(inner), Value::Object(object)) => of_message(inner, object),
        (Type::List(element), Value::Array(items)) => {
            items.iter_mut().filter_map(|item| of_value(element, item).then_some(())).count() > 0
        }
        (Type::Map(element), Value::Object(entries)) => {
            entries.values_mut().filter_map(|entry| of_value(element, entry).then_some(())).count() > 0
        }
        (Type::SchemaOrArray | Type::SchemaOrBool, Value::Object(object)) => of_message(SCHEMA, object),
        _ => false,
    }
}

fn is_kept(message: &str, name: &str) -> bool {
    MUST_BE_GIVEN.contains(&(message, name))
}

fn is_left_out(field: &Field, value: &Value) -> bool {
    if field.keeps_empty {
        return false;
    }
    match (&field.content, value) {
        (Type::List(_), Value::Array(items)) => items.is_empty(),
        (Type::Map(_), Value::Object(entries)) => entries.is_empty(),
        (Type::Bytes, value) => value == "",
        (Type::Text { .. } | Type::Integer { .. } | Type::Boolean { .. }, value) => is_unsaid(&field.content, value),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_go_leaves_out_is_dropped_and_nothing_else() {
        for (version, kind, said, expected) in [
            (
                "v1",
                "Service",
                json!({"spec": {"type": "", "clusterIP": "None"}}),
                json!({"spec": {"clusterIP": "None"}}),
            ),
            // Pointers have their zeros, and values of messages are always there.
            (
                "apps/v1",
                "Deployment",
                json!({"spec": {"replicas": 0, "minReadySeconds": 0, "selector": {}, "strategy": {}}}),
                json!({"spec": {"replicas": 0, "selector": {"matchLabels": {}}, "strategy": {}}}),
            ),
            (
                "policy/v1",
                "PodDisruptionBudget",
                json!({"spec": {"selector": {"matchLabels": {}}}}),
                json!({"spec": {"selector": {}}}),
            ),
            // Fields that stand in place of a message; lists in lists.
            (
                "v1",
                "Pod",
                json!({"spec": {"hostNetwork": false, "enableServiceLinks": false, "containers": [{"name": "", "args": []}],
                    "volumes": [{"name": "v", "secret": {"secretName": "", "items": []}}, {"name": "w", "emptyDir": {}}]}}),
                json!({"spec": {"enableServiceLinks": false, "containers": [{"name": ""}],
                    "volumes": [{"name": "v", "secret": {}}, {"name": "w", "emptyDir": {}}]}}),
            ),
            (
                "admissionregistration.k8s.io/v1",
                "ValidatingWebhookConfiguration",
                json!({"webhooks": [{"clientConfig": {"caBundle": ""}, "admissionReviewVersions": []}]}),
                json!({"webhooks": [{"clientConfig": {}, "admissionReviewVersions": []}]}),
            ),
            (
                "apiextensions.k8s.io/v1",
                "CustomResourceDefinition",
                json!({"spec": {"versions": [{"name": "v1", "served": false, "schema": {"openAPIV3Schema": {
                    "properties": {"a": {"required": [], "items": {"oneOf": []}, "default": {"x": ""}}}}}}]}}),
                json!({"spec": {"versions": [{"name": "v1", "served": false, "schema": {"openAPIV3Schema": {
                    "properties": {"a": {"items": {}, "default": {"x": ""}}}}}}]}}),
            ),
            ("rbac.authorization.k8s.io/v1", "Role", json!({"rules": []}), json!({"rules": []})),
            (
                "autoscaling/v2",
                "HorizontalPodAutoscaler",
                json!({"spec": {"behavior": {"scaleUp": {"policies": []}}}}),
                json!({"spec": {"behavior": {"scaleUp": {"policies": []}}}}),
            ),
            // What is of another type than it should be is for the decoder to tell.
            (
                "v1",
                "Service",
                json!({"spec": {"ports": {}, "selector": []}}),
                json!({"spec": {"ports": {}, "selector": []}}),
            ),
            ("example.com/v1", "Foo", json!({"spec": {"a": ""}}), json!({"spec": {"a": ""}})),
        ] {
            let mut object = said.clone();
            assert_eq!(has_unsaid(version, kind, said.to_string().as_bytes()), said != expected, "{said}");
            assert!(!has_unsaid(version, kind, expected.to_string().as_bytes()), "{expected}");
            assert_eq!(drop_unsaid(version, kind, &mut object), said != expected, "{said}");
            assert_eq!(object, expected);
            assert!(!drop_unsaid(version, kind, &mut object), "once is enough: {object}");
        }
    }
}
