//! Defaults and bounds, against objects in JSON.

use serde_json::{Value, json};

use super::*;

fn range(item: &Value) -> LimitRange {
    serde_json::from_value(json!({"metadata": {"name": "r"}, "spec": {"limits": [item]}})).unwrap()
}

fn pod(resources: &Value) -> Pod {
    let container = |name: &str| json!({"name": name, "resources": resources});
    serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {
        "containers": [container("a")], "initContainers": [container("i")],
    }}))
    .unwrap()
}

#[test]
fn containers_get_what_they_leave_out_and_the_pod_says_so() {
    let item = json!({"type": "Container", "default": {"cpu": "2", "memory": "1Gi"}, "defaultRequest": {"cpu": "1", "memory": "1Gi"}});
    let mut one = pod(&json!({"requests": {"cpu": "100m"}}));
    fill(&range(&item), &mut one);
    let shown = serde_json::to_value(&one).unwrap();
    let resources = json!({"requests": {"cpu": "100m", "memory": "1Gi"}, "limits": {"cpu": "2", "memory": "1Gi"}});
    assert_eq!(shown["spec"]["containers"][0]["resources"], resources);
    assert_eq!(shown["spec"]["initContainers"][0]["resources"], resources);
    assert_eq!(
        shown["metadata"]["annotations"][ANNOTATION],
        "LimitRanger plugin set: memory request for container a; cpu, memory limit for container a; \
         memory request for init container i; cpu, memory limit for init container i"
    );
    let before = one.clone();
    fill(&range(&item), &mut one);
    assert_eq!(one, before, "asked again, it changes nothing");
}

#[test]
fn what_is_out_of_bounds_is_told_in_kubernetes_words() {
    let said = |cpu: &str, limit: &str| json!({"requests": {"cpu": cpu}, "limits": {"cpu": limit}});
    let min = json!({"type": "Container", "min": {"cpu": "500m"}});
    let max = json!({"type": "Container", "max": {"cpu": "1"}});
    let ratio = json!({"type": "Container", "maxLimitRequestRatio": {"cpu": "2"}});
    let whole = json!({"type": "Pod", "max": {"cpu": "1"}, "min": {"cpu": "900m"}});
    for (item, resources, expected) in [
        (&min, said("1", "1"), ""),
        (&min, json!({}), "minimum cpu usage per Container is 500m.  No request is specified"),
        (&min, said("100m", "1"), "minimum cpu usage per Container is 500m, but request is 100m"),
        (&min, said("500m", "400m"), "minimum cpu usage per Container is 500m, but limit is 400m"),
        (&max, said("1", "1"), ""),
        (&max, json!({}), "maximum cpu usage per Container is 1.  No limit is specified"),
        (&max, said("1", "1100m"), "maximum cpu usage per Container is 1, but limit is 1100m"),
        (&max, said("2", "1"), "maximum cpu usage per Container is 1, but request is 2"),
        (&ratio, said("1", "2"), ""),
        (&ratio, said("1", "3"), "cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000"),
        (
            &ratio,
            said("0", "3"),
            "cpu max limit to request ratio per Container is 2, but no request is specified or request is 0",
        ),
        (
            &whole,
            said("800m", "2"),
            "minimum cpu usage per Pod is 900m, but request is 800m; maximum cpu usage per Pod is 1, but limit is 2",
        ),
    ] {
        assert_eq!(pod_faults(&[range(item)], &pod(&resources)).join("; "), expected);
    }
    let claim = |storage: &str| -> PersistentVolumeClaim {
        serde_json::from_value(json!({"metadata": {}, "spec": {"resources": {"requests": {"storage": storage}}}}))
            .unwrap()
    };
    let storage = json!({"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}, "max": {"storage": "2Gi"}});
    for (size, expected) in [
        ("1Gi", ""),
        ("1Mi", "minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 1Mi"),
        ("3Gi", "maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi"),
    ] {
        assert_eq!(claim_faults(&[range(&storage)], &claim(size)).join("; "), expected);
    }
}
