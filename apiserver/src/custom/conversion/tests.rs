//! What a webhook answers, taken or refused.

use super::*;

fn object(change: &Value) -> Map<String, Value> {
    let mut object = json!({"apiVersion": "e.com/v1", "kind": "Foo", "spec": {"host": "h"},
        "metadata": {"name": "a", "namespace": "n", "uid": "u", "generation": 3, "labels": {"x": "y"}}});
    coracle_proto::patch::merge::apply(&mut object, change.clone());
    object.as_object().unwrap().clone()
}

fn checked(before: &Value, after: Value, alone: bool) -> Result<Value, String> {
    let converter =
        Converter { client: Err(String::new()), review: None, storage: "e.com/v1".to_owned(), schemas: Arc::default() };
    let bytes = converter.checked("e.com/v2", &object(before), after, (0, alone))?;
    Ok(serde_json::from_slice(&bytes).unwrap())
}

#[test]
fn of_converted_metadata_only_labels_and_annotations_are_taken() {
    let after = json!({"apiVersion": "e.com/v2", "kind": "Foo", "spec": {"hostname": "h"}, "metadata": {
        "name": "a", "namespace": "n", "uid": "u", "generation": 9, "finalizers": ["f"], "labels": {"new": "l"},
        "annotations": {"a": "b"}, "ownerReferences": []}});
    let now = checked(&json!({}), after, true).unwrap();
    let meta = json!({"name": "a", "namespace": "n", "uid": "u", "generation": 3, "labels": {"new": "l"},
        "annotations": {"a": "b"}});
    assert_eq!((&now["metadata"], &now["spec"]), (&meta, &json!({"hostname": "h"})));
    let without = json!({"apiVersion": "e.com/v2", "kind": "Foo",
        "metadata": {"name": "a", "namespace": "n", "uid": "u", "labels": null}});
    assert_eq!(checked(&json!({}), without, true).unwrap()["metadata"].get("labels"), None);
}

#[test]
fn what_is_not_the_same_object_in_the_version_wanted_is_refused() {
    for (change, alone, several) in [
        (
            json!({"apiVersion": "e.com/v3"}),
            "returned invalid object at index 0: invalid groupVersion (expected e.com/v2, received e.com/v3)",
            "returned invalid converted object at index 0: invalid groupVersion (expected e.com/v2, received e.com/v3)",
        ),
        (
            json!({"kind": "Bar"}),
            "returned invalid object at index 0: invalid kind (expected Foo, received Bar)",
            "returned invalid converted object at index 0: invalid kind (expected Foo, received Bar)",
        ),
        (
            json!({"metadata": {"name": "b"}}),
            "returned invalid object: must have the same name: a != b",
            "returned invalid converted object at index 0: must have the same name: a != b",
        ),
        (
            json!({"metadata": {"uid": "v"}}),
            "returned invalid object: must have the same UID: u != v",
            "returned invalid converted object at index 0: must have the same UID: u != v",
        ),
        (
            json!({"metadata": {"labels": ["x"]}}),
            "returned invalid metadata: invalid metadata.labels of type []interface {} in converted object",
            "returned invalid metadata in object at index 0: invalid metadata.labels of type []interface {} in converted \
             object",
        ),
        (
            json!({"metadata": {"annotations": {"a": 1}}}),
            "returned invalid metadata: metadata.annotations[a] must be a string, but is int64 in converted object",
            "returned invalid metadata in object at index 0: metadata.annotations[a] must be a string, but is int64 in \
             converted object",
        ),
    ] {
        let mut after = Value::Object(object(&json!({"apiVersion": "e.com/v2"})));
        coracle_proto::patch::merge::apply(&mut after, change);
        assert_eq!(checked(&json!({}), after.clone(), true).unwrap_err(), alone);
        assert_eq!(checked(&json!({}), after, false).unwrap_err(), several);
    }
    let mut bad = Value::Object(object(&json!({"apiVersion": "e.com/v2"})));
    bad["metadata"]["labels"] = json!({"not valid!": "x"});
    let why = checked(&json!({}), bad.clone(), true).unwrap_err();
    assert!(why.starts_with("returned invalid metadata: metadata.labels: Invalid value: \"not valid!\""), "{why}");
    // What was so before is nobody's new mistake.
    assert!(checked(&json!({"metadata": {"labels": {"x": null, "not valid!": "x"}}}), bad, true).is_ok());
    let headless = json!({"apiVersion": "e.com/v2", "kind": "Foo"});
    assert!(
        checked(&json!({"metadata": null}), headless, true)
            .unwrap_err()
            .ends_with("missing metadata in converted object")
    );
}

#[test]
fn answers_that_are_none_are_told_apart() {
    let answer = |version: &str, response: Value| {
        let body = json!({"kind": "ConversionReview", "apiVersion": format!("apiextensions.k8s.io/{version}"),
            "response": response});
        converted("v1", "u", body.to_string().as_bytes())
    };
    let ok = json!({"uid": "u", "convertedObjects": [{"a": 1}], "result": {"status": "Success"}});
    assert_eq!(answer("v1", ok).unwrap(), [json!({"a": 1})]);
    for (response, why) in [
        (Value::Null, "failed: no response provided"),
        (json!({"uid": "x"}), "failed: expected response.uid=\"u\", got \"x\""),
        (json!({"uid": "u"}), "failed: response.result.status was '', not 'Success'"),
        (json!({"uid": "u", "result": {"status": "Failure", "message": "no idea"}}), "failed: no idea"),
    ] {
        assert_eq!(answer("v1", response).unwrap_err(), why);
    }
    assert_eq!(
        answer("v2", json!({})).unwrap_err(),
        "failed: expected webhook response of apiextensions.k8s.io/v1, Kind=ConversionReview, got \
         apiextensions.k8s.io/v2, Kind=ConversionReview"
    );
    assert!(converted("v1", "u", b"<html>").unwrap_err().starts_with("failed: the answer cannot be read: "));
    let old = br#"{"response": {"result": {"status": "Success"}}}"#;
    assert_eq!(converted("v1beta1", "u", old).unwrap(), [] as [Value; 0], "held to nothing then");
}
