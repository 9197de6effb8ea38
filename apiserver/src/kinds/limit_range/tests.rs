//! LimitRanges: defaults and faults.

use expect_test::expect;
use serde_json::{Value, json};

use super::LimitRanges;
use crate::kinds::testing::{created, faults, row};

fn base() -> Value {
    json!({"metadata": {"name": "limits", "namespace": "d"}, "spec": {"limits": []}})
}

fn limit(item: Value) -> Value {
    json!({"spec": {"limits": [item]}})
}

#[test]
fn what_is_not_said_follows_from_what_is() {
    for (item, expected) in [
        (
            json!({"type": "Container", "max": {"cpu": "2000m"}, "min": {"cpu": "1", "memory": "1024Ki"}}),
            json!({"type": "Container", "max": {"cpu": "2"}, "min": {"cpu": "1", "memory": "1Mi"},
                "default": {"cpu": "2"}, "defaultRequest": {"cpu": "2", "memory": "1Mi"}}),
        ),
        (
            json!({"type": "Container", "default": {"cpu": "1"}, "defaultRequest": {"cpu": "500m"}}),
            json!({"type": "Container", "default": {"cpu": "1"}, "defaultRequest": {"cpu": "500m"}}),
        ),
        (json!({"type": "Pod", "max": {"cpu": "2"}}), json!({"type": "Pod", "max": {"cpu": "2"}})),
    ] {
        let object = created(&LimitRanges, &limit(item));
        assert_eq!(serde_json::to_value(&object.spec.unwrap().limits[0]).unwrap(), expected);
    }
}

#[test]
fn faults_are_named() {
    let patches = [
        limit(json!({"type": "Thing"})),
        json!({"spec": {"limits": [{"type": "Pod"}, {"type": "Pod"}]}}),
        limit(json!({"type": "Pod", "default": {"cpu": "1"}, "defaultRequest": {"cpu": "1"}})),
        limit(json!({"type": "PersistentVolumeClaim", "max": {"cpu": "1"}})),
        limit(json!({"type": "Container", "max": {"gpu": "1"}})),
        limit(json!({"type": "Container", "min": {"cpu": "3"}, "max": {"cpu": "2"}})),
        limit(json!({"type": "Container", "min": {"cpu": "1"}, "max": {"cpu": "4"}, "default": {"cpu": "5"},
            "defaultRequest": {"cpu": "500m"}})),
        limit(json!({"type": "Container", "default": {"cpu": "1"}, "defaultRequest": {"cpu": "2"}})),
        limit(json!({"type": "Container", "maxLimitRequestRatio": {"cpu": "500m"}})),
        limit(json!({"type": "Pod", "min": {"cpu": "1"}, "max": {"cpu": "2"}, "maxLimitRequestRatio": {"cpu": "3"}})),
        limit(json!({"type": "Container", "default": {"acme.io/gpu": "2"}, "defaultRequest": {"acme.io/gpu": "1"}})),
    ];
    expect![[""]].assert_eq(&faults(&LimitRanges, &base(), &patches));
    assert_eq!(row(&LimitRanges, &base()), "limits | null");
}
