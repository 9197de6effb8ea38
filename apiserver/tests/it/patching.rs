//! Patches, collections, propagation of deletions, and kinds served by two groups.

use serde_json::{Value, json};

use crate::harness::Cluster;

const PODS: &str = "/api/v1/namespaces/default/pods";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn a_strategic_patch_merges_lists_by_their_keys() {
    let c = Cluster::start().await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [
        {"name": "a", "image": "i:1"}, {"name": "b", "image": "i:1"}]}});
    assert_eq!(c.post(PODS, &pod).await.code, 201);
    let patch = json!({"metadata": {"labels": {"l": "v"}}, "spec": {"containers": [{"name": "b", "image": "i:2"}]}});
    let media = "application/strategic-merge-patch+json";
    let patched = c.send("PATCH", &format!("{PODS}/p"), media, patch.to_string()).await;
    assert_eq!(patched.code, 200, "{}", patched.body);
    let image = |n: usize| patched.body["spec"]["containers"][n]["image"].clone();
    let mut images = [image(0), image(1)].map(|image| image.as_str().unwrap().to_owned());
    images.sort();
    assert_eq!((images, &patched.body["metadata"]["labels"]["l"]), (["i:1".into(), "i:2".into()], &json!("v")));
    let refused = c.send("PATCH", &format!("{PODS}/p"), media, r#"{"spec":{"containers":null}}"#).await;
    assert_eq!((refused.code, refused.refusal().1), (422, "Invalid"), "{}", refused.body);
    c.stop().await;
}

#[tokio::test]
async fn a_json_patch_is_done_whole_or_not_at_all() {
    let c = Cluster::start().await;
    let map = json!({"metadata": {"name": "x"}, "data": {"a": "1"}});
    assert_eq!(c.post(MAPS, &map).await.code, 201);
    let patch = async |steps: Value| {
        c.send("PATCH", &format!("{MAPS}/x"), "application/json-patch+json", steps.to_string()).await
    };
    let done = patch(json!([
        {"op": "test", "path": "/data/a", "value": "1"},
        {"op": "replace", "path": "/data/a", "value": "2"},
        {"op": "add", "path": "/data/b", "value": "3"},
    ]))
    .await;
    assert_eq!((done.code, &done.body["data"]), (200, &json!({"a": "2", "b": "3"})));
    let refused = patch(json!([
        {"op": "replace", "path": "/data/a", "value": "9"},
        {"op": "test", "path": "/data/b", "value": "no"},
    ]))
    .await;
    assert_eq!((refused.code, refused.refusal().1), (422, "Invalid"), "{}", refused.body);
    let malformed = patch(json!([{"op": "jump", "path": "/data"}])).await;
    assert_eq!(malformed.code, 400, "{}", malformed.body);
    let mistyped = patch(json!([{"op": "replace", "path": "/data", "value": "x"}])).await;
    assert_eq!(mistyped.code, 422, "{}", mistyped.body);
    let words = "}\": json: cannot unmarshal string into Go struct field ConfigMap.data of type map[string]string";
    assert!(mistyped.refusal().2.ends_with(words), "{}", mistyped.body);
    assert_eq!(c.get(&format!("{MAPS}/x")).await.body["data"], json!({"a": "2", "b": "3"}));
    // As in Kubernetes, what is to be replaced need not be there.
    let added = patch(json!([{"op": "replace", "path": "/data/c", "value": "4"}])).await;
    assert_eq!((added.code, &added.body["data"]), (200, &json!({"a": "2", "b": "3", "c": "4"})));
    c.stop().await;
}

#[tokio::test]
async fn a_collection_is_deleted_as_far_as_it_is_selected() {
    let c = Cluster::start().await;
    for (name, label) in [("a", "x"), ("b", "y"), ("d", "x")] {
        assert_eq!(c.post(MAPS, &json!({"metadata": {"name": name, "labels": {"l": label}}})).await.code, 201);
    }
    let dry = c.delete(&format!("{MAPS}?labelSelector=l%3Dx&dryRun=All")).await;
    assert_eq!((dry.code, dry.body["items"].as_array().unwrap().len()), (200, 2));
    let deleted = c.delete(&format!("{MAPS}?labelSelector=l%3Dx")).await;
    assert_eq!((deleted.code, &deleted.body["kind"]), (200, &json!("ConfigMapList")));
    let left = c.get(MAPS).await.body;
    let names: Vec<&Value> = left["items"].as_array().unwrap().iter().map(|i| &i["metadata"]["name"]).collect();
    assert_eq!(names, ["b", "kube-root-ca.crt"]);
    c.stop().await;
}

#[tokio::test]
async fn a_foreground_deletion_waits_for_the_dependents() {
    let c = Cluster::start().await;
    assert_eq!(c.post(MAPS, &json!({"metadata": {"name": "x"}})).await.code, 201);
    let options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Foreground"});
    let marked = c.send("DELETE", &format!("{MAPS}/x"), "application/json", options.to_string()).await;
    assert_eq!(marked.code, 200);
    assert_eq!(marked.body["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    assert!(marked.body["metadata"]["deletionTimestamp"].is_string());
    let again = c.delete(&format!("{MAPS}/x?propagationPolicy=Foreground")).await;
    assert_eq!((again.code, again.version()), (200, marked.version()), "it is marked already");
    let other = json!({"metadata": {"finalizers": ["foregroundDeletion", "example.com/new"]}});
    let refused = c.merge(&format!("{MAPS}/x"), &other).await;
    assert_eq!((refused.code, refused.refusal().1), (422, "Invalid"), "nobody may hold what is going");
    let done = c.merge(&format!("{MAPS}/x"), &json!({"metadata": {"finalizers": []}})).await;
    assert_eq!(done.code, 200);
    assert_eq!(c.get(&format!("{MAPS}/x")).await.code, 404);
    c.stop().await;
}

#[tokio::test]
async fn an_event_is_the_same_in_both_groups() {
    let c = Cluster::start().await;
    let (core, named) = ("/api/v1/namespaces/default/events", "/apis/events.k8s.io/v1/namespaces/default/events");
    let old = json!({
        "metadata": {"name": "e1"}, "reason": "Started", "message": "it runs", "type": "Normal", "count": 3,
        "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"},
        "source": {"component": "agent", "host": "n1"},
        "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:00:05Z",
    });
    let made = c.post(core, &old).await;
    assert_eq!(made.code, 201, "{}", made.body);
    let seen = c.get(&format!("{named}/e1")).await.body;
    assert_eq!((&seen["apiVersion"], &seen["note"]), (&json!("events.k8s.io/v1"), &json!("it runs")));
    assert_eq!((&seen["regarding"]["name"], &seen["deprecatedCount"]), (&json!("p"), &json!(3)));
    assert_eq!(seen["metadata"]["resourceVersion"], made.version());
    let new = json!({
        "metadata": {"name": "e2"}, "eventTime": "2026-01-01T00:00:00.000000Z", "reason": "Pulled", "action": "Pull",
        "note": "it is here", "type": "Normal", "reportingController": "example.com/agent", "reportingInstance": "n1",
        "regarding": {"kind": "Pod", "namespace": "default", "name": "p"},
    });
    let made = c.post(named, &new).await;
    assert_eq!(made.code, 201, "{}", made.body);
    let seen = c.get(&format!("{core}/e2")).await.body;
    assert_eq!((&seen["apiVersion"], &seen["message"]), (&json!("v1"), &json!("it is here")));
    assert_eq!(seen["involvedObject"]["name"], "p");
    let selected = c.get(&format!("{core}?fieldSelector=involvedObject.name%3Dp,reason%3DPulled")).await.body;
    assert_eq!(selected["items"].as_array().unwrap().len(), 1);
    c.stop().await;
}

#[tokio::test]
async fn events_hang_on_a_lease_that_ends_and_other_objects_do_not() {
    let c = Cluster::start().await;
    let event = |name: &str| {
        json!({
            "metadata": {"name": name, "namespace": "default"}, "reason": "Told", "message": "it runs",
            "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"},
        })
    };
    for name in ["one", "two"] {
        let made = c.post("/api/v1/namespaces/default/events", &event(name)).await;
        assert_eq!(made.code, 201, "{}", made.body);
    }
    let registry = c.server.registry();
    let lease = |plural: &str, name: &str| {
        let resource = coracle_proto::resource::find("", "v1", plural).unwrap();
        registry.entry(resource, "default", name).unwrap().lease
    };
    let shared = lease("events", "one");
    assert!(shared.is_some() && shared == lease("events", "two"));
    assert_eq!(lease("configmaps", "kube-root-ca.crt"), None);
    let left = registry.store().lease_left(shared.unwrap()).await.unwrap();
    assert!(left.as_secs() > 3500, "{left:?}");

    // Ended, it takes its events along.
    registry.store().lease_revoke(shared.unwrap()).await.unwrap();
    assert_eq!(c.get("/api/v1/namespaces/default/events/one").await.code, 404);
}
