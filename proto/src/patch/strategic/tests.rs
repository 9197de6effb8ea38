//! Strategic merge patch, by example and by law.

use proptest::prelude::*;
use serde_json::json;

use super::super::merge;
use super::super::merge::tests::{any_json, any_object};
use super::*;
use crate::schema;

fn patched(kind: &str, original: Value, patch: Value) -> Result<Value, PatchError> {
    let root = schema::of_kind("", "v1", kind).or_else(|| schema::of_kind("apps", "v1", kind)).unwrap();
    apply(original, patch, Some(root))
}

fn spec(original: Value, patch: Value) -> Value {
    patched("Pod", json!({"spec": original}), json!({"spec": patch})).unwrap()["spec"].clone()
}

#[test]
fn lists_merge_by_their_key() {
    let merged = spec(
        json!({"containers": [{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]}, {"name": "b"}]}),
        json!({"containers": [{"name": "a", "image": "2", "env": [{"name": "Y", "value": "2"}]}]}),
    );
    assert_eq!(
        merged,
        json!({"containers": [
            {"name": "a", "image": "2", "env": [{"name": "Y", "value": "2"}, {"name": "X", "value": "1"}]}, {"name": "b"}
        ]})
    );
}

#[test]
fn atomic_lists_and_scalars_are_replaced_and_null_removes() {
    let merged = spec(
        json!({"tolerations": [{"key": "a"}], "nodeName": "n", "hostNetwork": true, "nodeSelector": {"a": "b", "c": "d"}}),
        json!({"tolerations": [{"key": "b"}], "nodeName": null, "nodeSelector": {"a": null}}),
    );
    assert_eq!(merged, json!({"tolerations": [{"key": "b"}], "hostNetwork": true, "nodeSelector": {"c": "d"}}));
}

#[test]
fn directives_in_lists_delete_and_replace() {
    let original = json!({"containers": [{"name": "a"}, {"name": "b"}]});
    assert_eq!(
        spec(original.clone(), json!({"containers": [{"$patch": "delete", "name": "a"}, {"name": "c"}]})),
        json!({"containers": [{"name": "c"}, {"name": "b"}]})
    );
    assert_eq!(
        spec(original, json!({"containers": [{"name": "c"}, {"$patch": "replace"}]})),
        json!({"containers": [{"name": "c"}]})
    );
}

#[test]
fn directives_in_objects_delete_replace_and_merge() {
    let original = json!({"securityContext": {"runAsUser": 1, "fsGroup": 2}});
    let with =
        |directive: &str| spec(original.clone(), json!({"securityContext": {"$patch": directive, "runAsGroup": 3}}));
    assert_eq!(with("replace"), json!({"securityContext": {"runAsGroup": 3}}));
    assert_eq!(with("delete"), json!({"securityContext": {}}));
    assert_eq!(with("merge"), json!({"securityContext": {"runAsUser": 1, "fsGroup": 2, "runAsGroup": 3}}));
    let error = patched("Pod", json!({"spec": {}}), json!({"$patch": "grow"})).unwrap_err();
    assert!(matches!(error, PatchError::Malformed(_)), "{error}");
}

#[test]
fn retained_keys_drop_the_others() {
    let original = json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
    let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
    let merged = patched("Deployment", original.clone(), patch).unwrap();
    assert_eq!(merged, json!({"spec": {"strategy": {"type": "Recreate"}}}));
    let outside = json!({"spec": {"strategy": {"$retainKeys": ["type"], "rollingUpdate": {}}}});
    let error = patched("Deployment", original, outside).unwrap_err();
    assert_eq!(error, PatchError::Malformed("invalid patch format of retainKeys".to_owned()));
}

#[test]
fn the_order_directive_orders_what_the_patch_knows() {
    let merged = spec(
        json!({"containers": [{"name": "server"}, {"name": "a"}, {"name": "b"}]}),
        json!({
            "$setElementOrder/containers": [{"name": "b"}, {"name": "a"}, {"name": "c"}],
            "containers": [{"name": "c", "image": "3"}]
        }),
    );
    assert_eq!(
        merged,
        json!({"containers": [{"name": "server"}, {"name": "b"}, {"name": "a"}, {"name": "c", "image": "3"}]})
    );
    let moved = spec(
        json!({"containers": [{"name": "a"}, {"name": "b"}]}),
        json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}),
    );
    assert_eq!(moved, json!({"containers": [{"name": "b"}, {"name": "a"}]}));
}

#[test]
fn primitive_lists_merge_as_sets() {
    let metadata = |patch: Value| {
        let original = json!({"metadata": {"finalizers": ["a", "b", "c"]}});
        patched("Pod", original, json!({"metadata": patch})).unwrap()["metadata"]["finalizers"].clone()
    };
    assert_eq!(metadata(json!({"finalizers": ["d", "b"]})), json!(["d", "a", "b", "c"]));
    assert_eq!(metadata(json!({"$deleteFromPrimitiveList/finalizers": ["b"]})), json!(["a", "c"]));
    assert_eq!(
        metadata(json!({
            "$deleteFromPrimitiveList/finalizers": ["b"], "$setElementOrder/finalizers": ["c", "a"], "finalizers": ["a"]
        })),
        json!(["c", "a"])
    );
}

#[test]
fn what_is_new_carries_no_directives() {
    let merged = spec(
        json!({}),
        json!({
            "$setElementOrder/volumes": [{"name": "v"}],
            "volumes": [{"name": "v", "$retainKeys": ["name", "emptyDir"], "emptyDir": {"medium": null}}],
            "containers": [{"name": "a", "$setElementOrder/ports": []}, {"$patch": "delete", "name": "b"}]
        }),
    );
    assert_eq!(merged, json!({"volumes": [{"name": "v", "emptyDir": {}}], "containers": [{"name": "a"}]}));
}

#[test]
fn an_element_without_its_key_is_refused() {
    let original = json!({"spec": {"containers": [{"name": "a"}]}});
    let error = patched("Pod", original, json!({"spec": {"containers": [{"image": "x"}]}})).unwrap_err();
    assert_eq!(error.to_string(), "map: {\"image\":\"x\"} does not contain declared merge key: name");
}

proptest! {
    #[test]
    fn without_a_type_it_is_a_merge_patch(original in any_object(false), patch in any_object(false)) {
        let mut expected = original.clone();
        merge::apply(&mut expected, patch.clone());
        prop_assert_eq!(apply(original, patch, None).unwrap(), expected);
    }

    #[test]
    fn an_empty_patch_changes_nothing(original in any_object(true)) {
        prop_assert_eq!(patched("Pod", original.clone(), json!({})).unwrap(), original);
    }

    #[test]
    fn merging_a_list_twice_is_merging_it_once(old in prop::collection::btree_map("[a-e]", 0..3i32, 0..5), new in prop::collection::btree_map("[a-e]", 0..3i32, 0..5)) {
        let list = |items: std::collections::BTreeMap<String, i32>| -> Vec<Value> {
            items.into_iter().map(|(k, v)| json!({"name": k, "image": v})).collect()
        };
        let patch = json!({"containers": list(new)});
        let once = spec(json!({"containers": list(old)}), patch.clone());
        prop_assert_eq!(spec(once.clone(), patch), once);
    }

    #[test]
    fn nothing_panics(a in any_json(true), b in any_json(true), key in "\\$(patch|retainKeys|setElementOrder/containers|deleteFromPrimitiveList/containers)") {
        let _ = patched("Pod", json!({"spec": {"containers": a.clone()}}), json!({"spec": {"containers": b.clone(), key: a.clone()}}));
        let _ = patched("Pod", a, b);
    }
}

#[test]
fn large_lists_merge_in_linear_time() {
    // Compared pairwise, these would be forty billion comparisons: the test would not end.
    let list = |from: i32| -> Vec<Value> { (from..from + 200_000).map(|i| json!({"name": i})).collect() };
    let merged = spec(json!({"containers": list(0)}), json!({"containers": list(100_000)}));
    assert_eq!(merged["containers"].as_array().unwrap().len(), 300_000);
    let texts = |from: i32| -> Vec<String> { (from..from + 200_000).map(|i| i.to_string()).collect() };
    let original = json!({"metadata": {"finalizers": texts(0)}});
    let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": texts(100_000)}});
    let left = patched("Pod", original, patch).unwrap();
    assert_eq!(left["metadata"]["finalizers"].as_array().unwrap().len(), 100_000);
}
