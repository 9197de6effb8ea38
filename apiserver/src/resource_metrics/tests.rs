//! From stored objects and figures to what is told.

use jiff::SignedDuration;
use serde_json::{Value, json};

use super::{rate::Used, *};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_767_225_600 + second).unwrap()
}

fn figures(uid: &str, containers: &[&str]) -> Figures {
    let window = Window { end: at(0) + SignedDuration::from_millis(750), length: SignedDuration::from_millis(15_250) };
    let used = Used { cpu: 123_456_789, memory: 12_288 };
    let containers = containers.iter().map(|name| ((*name).to_owned(), used)).collect();
    let pod = PodFigures { uid: uid.to_owned(), window, containers };
    Figures { node: Some((window, used)), pods: [(("a".to_owned(), "p".to_owned()), pod)].into() }
}

fn stored_pod(change: &Value) -> Arc<Entry> {
    let mut pod = json!({
        "metadata": {"name": "p", "namespace": "a", "uid": "u", "labels": {"app": "x"}, "annotations": {"b": "\"c\""}},
        "spec": {"nodeName": "n", "containers": [{"name": "app"}, {"name": "\u{e4}"}],
            "initContainers": [{"name": "first"}, {"name": "beside", "restartPolicy": "Always"}],
            "ephemeralContainers": [{"name": "debugger"}]},
        "status": {"phase": "Running"},
    });
    for (path, value) in change.as_object().unwrap() {
        *pod.pointer_mut(path).unwrap() = value.clone();
    }
    unstored("k".into(), pod.to_string().into_bytes(), Revision(7))
}

fn shown(change: &Value, figures: &Figures) -> Option<Value> {
    let entry = stored_pod(change);
    let (header, pod) = (Header::of(&entry), PodView::of(&entry).unwrap());
    let made = pod_metrics(&header, &pod, figures, at(60))?.unwrap();
    Some(serde_json::from_slice(&made.value).unwrap())
}

#[test]
fn a_pods_application_containers_and_those_beside_are_told_of() {
    let usage = json!({"cpu": "123456789n", "memory": "12Ki"});
    let all = ["beside", "app", "first", "debugger", "none-of-its"];
    let expected = json!({
        "kind": "PodMetrics", "apiVersion": "metrics.k8s.io/v1beta1",
        "metadata": {"name": "p", "namespace": "a", "labels": {"app": "x"}, "creationTimestamp": "2026-01-01T00:01:00Z"},
        "timestamp": "2026-01-01T00:00:00Z", "window": "15.25s",
        "containers": [{"name": "app", "usage": usage}, {"name": "beside", "usage": usage}],
    });
    assert_eq!(shown(&json!({}), &figures("u", &all)), Some(expected));
    assert_eq!(shown(&json!({}), &figures("u", &["first", "debugger"])), None, "none of its own runs");
}

#[test]
fn a_node_is_believed_about_the_pod_itself_only() {
    assert!(shown(&json!({}), &figures("u", &["app"])).is_some());
    assert_eq!(shown(&json!({}), &figures("another", &["app"])), None);
    assert_eq!(shown(&json!({"/metadata/name": "q"}), &figures("u", &["app"])), None);
    assert_eq!(shown(&json!({"/metadata/namespace": "b"}), &figures("u", &["app"])), None);
    let mirror = json!({"/metadata/annotations": {"kubernetes.io/config.mirror": "another"}});
    assert!(shown(&mirror, &figures("another", &["app"])).is_some(), "a node knows a static pod by a uid of its own");
}

#[test]
fn the_node_of_a_pod_that_is_placed_and_not_over_is_asked() {
    for (change, node) in [
        (json!({}), Some("n")),
        (json!({"/status/phase": "Pending"}), Some("n")),
        (json!({"/status": {}}), Some("n")),
        (json!({"/status/phase": "Succeeded"}), None),
        (json!({"/status/phase": "Failed"}), None),
        (json!({"/spec/nodeName": ""}), None),
    ] {
        let entry = stored_pod(&change);
        assert_eq!(PodView::of(&entry).unwrap().node(), node, "{change}");
    }
}

#[test]
fn a_node_is_told_of_with_its_labels() {
    let node = json!({"metadata": {"name": "n", "labels": {"a": "b"}, "annotations": {"c": "d"}}, "status": {}});
    let entry = unstored("k".into(), node.to_string().into_bytes(), Revision(7));
    let told = |figures: &Figures| {
        let made = node_metrics(&Header::of(&entry), figures, at(60))?.unwrap();
        serde_json::from_slice::<Value>(&made.value).ok()
    };
    let expected = json!({
        "kind": "NodeMetrics", "apiVersion": "metrics.k8s.io/v1beta1",
        "metadata": {"name": "n", "labels": {"a": "b"}, "creationTimestamp": "2026-01-01T00:01:00Z"},
        "timestamp": "2026-01-01T00:00:00Z", "window": "15.25s", "usage": {"cpu": "123456789n", "memory": "12Ki"},
    });
    assert_eq!(told(&figures("u", &[])), Some(expected));
    assert_eq!(told(&Figures::default()), None);
}

#[test]
fn a_node_that_the_cluster_has_given_up_is_not_waited_for() {
    let node =
        |conditions: Value| serde_json::from_value::<Node>(json!({"status": {"conditions": conditions}})).unwrap();
    let condition = |kind: &str, status: &str| json!([{"type": kind, "status": status}]);
    assert!(is_silent(&node(condition("Ready", "Unknown"))));
    for conditions in [json!([]), condition("Ready", "True"), condition("Ready", "False"), condition("Odd", "Unknown")]
    {
        assert!(!is_silent(&node(conditions.clone())), "{conditions}");
    }
    assert!(!is_silent(&Node::default()));
}
