//! The plugins together, as a client meets them.

use serde_json::{Value, json};

use crate::harness::Cluster;

const PODS: &str = "/api/v1/namespaces/strict/pods";

fn pod(name: &str, security: &Value) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i", "securityContext": security}]}})
}

#[tokio::test]
async fn pods_are_as_the_standard_of_their_namespace_wants_them() {
    let c = Cluster::start().await;
    let labels =
        json!({"pod-security.kubernetes.io/enforce": "baseline", "pod-security.kubernetes.io/warn": "restricted"});
    let created = c.post("/api/v1/namespaces", &json!({"metadata": {"name": "strict", "labels": labels}})).await;
    assert_eq!(created.code, 201);
    let refused = c.post(PODS, &pod("p", &json!({"privileged": true}))).await;
    assert_eq!(
        refused.refusal(),
        (
            403,
            "Forbidden",
            "pods \"p\" is forbidden: violates PodSecurity \"baseline:latest\": privileged (container \"c\" must not set \
             securityContext.privileged=true)"
        )
    );
    let warned = c.post(PODS, &pod("p", &json!({}))).await;
    assert_eq!((warned.code, warned.warnings.len()), (201, 1));
    let would = "299 - \"would violate PodSecurity \\\"restricted:latest\\\": allowPrivilegeEscalation != false";
    assert!(warned.warnings[0].starts_with(would), "{:?}", warned.warnings);
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": pod("d", &json!({}))["spec"]});
    let deployment =
        json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}});
    let warned = c.post("/apis/apps/v1/namespaces/strict/deployments", &deployment).await;
    assert_eq!((warned.code, warned.warnings.len()), (201, 1), "{}", warned.body);
    let labelled = c.merge(&format!("{PODS}/p"), &json!({"metadata": {"labels": {"x": "y"}}})).await;
    assert_eq!((labelled.code, labelled.warnings.len()), (200, 0), "labels are nobody's concern");

    let tighter = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
    let warned = c.merge("/api/v1/namespaces/strict", &tighter).await;
    let first = "299 - \"existing pods in namespace \\\"strict\\\" violate the new PodSecurity enforce level \\\"restricted:latest\\\"\"";
    assert_eq!((warned.code, warned.warnings[0].as_str()), (200, first));
    assert!(warned.warnings[1].starts_with("299 - \"p: allowPrivilegeEscalation != false, "), "{:?}", warned.warnings);
    let wrong = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "strict"}}});
    let refused = c.merge("/api/v1/namespaces/strict", &wrong).await;
    assert_eq!((refused.code, refused.refusal().1), (422, "Invalid"));
    c.stop().await;
}

#[tokio::test]
async fn a_new_node_takes_no_pods_yet() {
    let c = Cluster::start().await;
    let created = c.post("/api/v1/nodes", &json!({"metadata": {"name": "n"}})).await;
    let taints = json!([{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]);
    assert_eq!((created.code, &created.body["spec"]["taints"]), (201, &taints));
    c.stop().await;
}
