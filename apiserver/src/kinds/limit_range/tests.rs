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
    expect![[r#"
        {"spec":{"limits":[{"type":"Thing"}]}}
            spec.limits[0].type: Invalid value: "Thing": must be a standard limit type or fully qualified
        {"spec":{"limits":[{"type":"Pod"},{"type":"Pod"}]}}
            spec.limits[1].type: Duplicate value: "Pod"
        {"spec":{"limits":[{"default":{"cpu":"1"},"defaultRequest":{"cpu":"1"},"type":"Pod"}]}}
            spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'
            spec.limits[0].defaultRequest: Forbidden: may not be specified when `type` is 'Pod'
        {"spec":{"limits":[{"max":{"cpu":"1"},"type":"PersistentVolumeClaim"}]}}
            spec.limits[0].limits: Required value: either minimum or maximum storage value is required, but neither was provided
        {"spec":{"limits":[{"max":{"gpu":"1"},"type":"Container"}]}}
            spec.limits[0].max[gpu]: Invalid value: "gpu": must be a standard resource type or fully qualified
            spec.limits[0].max[gpu]: Invalid value: "gpu": must be a standard resource for containers
            spec.limits[0].default[gpu]: Invalid value: "gpu": must be a standard resource type or fully qualified
            spec.limits[0].default[gpu]: Invalid value: "gpu": must be a standard resource for containers
            spec.limits[0].defaultRequest[gpu]: Invalid value: "gpu": must be a standard resource type or fully qualified
            spec.limits[0].defaultRequest[gpu]: Invalid value: "gpu": must be a standard resource for containers
        {"spec":{"limits":[{"max":{"cpu":"2"},"min":{"cpu":"3"},"type":"Container"}]}}
            spec.limits[0].min[cpu]: Invalid value: "3": min value 3 is greater than max value 2
            spec.limits[0].defaultRequest[cpu]: Invalid value: "2": min value 3 is greater than default request value 2
            spec.limits[0].default[cpu]: Invalid value: "3": min value 3 is greater than default value 2
        {"spec":{"limits":[{"default":{"cpu":"5"},"defaultRequest":{"cpu":"500m"},"max":{"cpu":"4"},"min":{"cpu":"1"},"type":"Container"}]}}
            spec.limits[0].defaultRequest[cpu]: Invalid value: "500m": min value 1 is greater than default request value 500m
            spec.limits[0].default[cpu]: Invalid value: "4": default value 5 is greater than max value 4
        {"spec":{"limits":[{"default":{"cpu":"1"},"defaultRequest":{"cpu":"2"},"type":"Container"}]}}
            spec.limits[0].defaultRequest[cpu]: Invalid value: "2": default request value 2 is greater than default limit value 1
        {"spec":{"limits":[{"maxLimitRequestRatio":{"cpu":"500m"},"type":"Container"}]}}
            spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: "500m": ratio 500m is less than 1
        {"spec":{"limits":[{"max":{"cpu":"2"},"maxLimitRequestRatio":{"cpu":"3"},"min":{"cpu":"1"},"type":"Pod"}]}}
            spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: "3": ratio 3 is greater than max/min = 2.000000
        {"spec":{"limits":[{"default":{"acme.io/gpu":"2"},"defaultRequest":{"acme.io/gpu":"1"},"type":"Container"}]}}
            spec.limits[0].defaultRequest[acme.io/gpu]: Invalid value: "1": default value 2 must equal to defaultRequest value 1 in acme.io/gpu
    "#]].assert_eq(&faults(&LimitRanges, &base(), &patches));
    assert_eq!(row(&LimitRanges, &base()), "limits | null");
}
