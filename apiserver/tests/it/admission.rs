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

#[tokio::test]
async fn containers_get_their_namespaces_defaults_and_stay_within_its_bounds() {
    let c = Cluster::start().await;
    let limits = json!({"metadata": {"name": "l"}, "spec": {"limits": [
        {"type": "Container", "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "100m"}, "max": {"cpu": "1"}},
    ]}});
    let created = c.post("/api/v1/namespaces/default/limitranges", &limits).await;
    assert_eq!(created.code, 201, "{}", created.body);
    let pods = "/api/v1/namespaces/default/pods";
    let created = c.post(pods, &pod("p", &json!({}))).await;
    let resources = json!({"limits": {"cpu": "500m"}, "requests": {"cpu": "100m"}});
    assert_eq!((created.code, &created.body["spec"]["containers"][0]["resources"]), (201, &resources));
    let mut large = pod("large", &json!({}));
    large["spec"]["containers"][0]["resources"] = json!({"limits": {"cpu": "2"}});
    let refused = c.post(pods, &large).await;
    let why = "pods \"large\" is forbidden: maximum cpu usage per Container is 1, but limit is 2";
    assert_eq!(refused.refusal(), (403, "Forbidden", why));
    c.stop().await;
}

/// A quota whose status somebody keeps, as the quota controller would.
async fn quota(c: &Cluster, spec: Value, used: Value) {
    let path = "/api/v1/namespaces/default/resourcequotas";
    let created = c.post(path, &json!({"metadata": {"name": "q"}, "spec": spec})).await;
    assert_eq!(created.code, 201, "{}", created.body);
    let status = json!({"status": {"hard": spec["hard"], "used": used}});
    assert_eq!(c.merge(&format!("{path}/q/status"), &status).await.code, 200);
}

async fn used(c: &Cluster) -> Value {
    c.get("/api/v1/namespaces/default/resourcequotas/q").await.body["status"]["used"].clone()
}

#[tokio::test]
async fn nothing_gets_in_above_a_quota_however_many_write_at_once() {
    let c = Cluster::start().await;
    quota(&c, json!({"hard": {"pods": "5", "count/configmaps": "2"}}), json!({"pods": "0", "count/configmaps": "1"}))
        .await;
    let pods = "/api/v1/namespaces/default/pods";
    let names: Vec<String> = (0..12).map(|i| format!("p{i}")).collect();
    let all = names.iter().map(|name| async { c.post(pods, &pod(name, &json!({}))).await });
    let answers = futures::future::join_all(all).await;
    let refused: Vec<_> = answers.iter().filter(|answer| answer.code != 201).collect();
    assert_eq!(refused.len(), 7);
    for answer in refused {
        let (code, reason, message) = answer.refusal();
        assert_eq!((code, reason), (403, "Forbidden"));
        let why = " is forbidden: exceeded quota: q, requested: pods=1, used: pods=5, limited: pods=5";
        assert!(message.ends_with(why), "{message}");
    }
    assert_eq!(used(&c).await["pods"], "5");
    let maps = "/api/v1/namespaces/default/configmaps";
    assert_eq!(c.post(&format!("{maps}?dryRun=All"), &json!({"metadata": {"name": "a"}})).await.code, 201);
    assert_eq!(used(&c).await["count/configmaps"], "1", "a dry run is not charged");
    assert_eq!(c.post(maps, &json!({"metadata": {"name": "a"}})).await.code, 201);
    assert_eq!(c.post(maps, &json!({"metadata": {"name": "b"}})).await.code, 403);
    assert_eq!(c.post(maps, &json!({"metadata": {"name": "a"}})).await.code, 409, "what is there costs nothing");
    c.stop().await;
}

#[tokio::test]
async fn a_quota_counts_what_it_is_about_and_wants_it_said() {
    let c = Cluster::start().await;
    let spec = json!({"hard": {"requests.cpu": "1", "pods": "9"}, "scopes": ["NotTerminating"]});
    quota(&c, spec, json!({"requests.cpu": "500m", "pods": "0"})).await;
    let pods = "/api/v1/namespaces/default/pods";
    let asking = |name: &str, cpu: &str| {
        let mut pod = pod(name, &json!({}));
        pod["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": cpu}});
        pod
    };
    let silent = c.post(pods, &pod("s", &json!({}))).await;
    let why = "pods \"s\" is forbidden: failed quota: q: must specify requests.cpu for: c";
    assert_eq!(silent.refusal(), (403, "Forbidden", why));
    let mut ending = pod("e", &json!({}));
    ending["spec"]["activeDeadlineSeconds"] = 60.into();
    assert_eq!(c.post(pods, &ending).await.code, 201, "it is in another scope");
    let much = c.post(pods, &asking("m", "600m")).await;
    let why = "pods \"m\" is forbidden: exceeded quota: q, requested: requests.cpu=600m, used: requests.cpu=500m, limited: requests.cpu=1";
    assert_eq!(much.refusal(), (403, "Forbidden", why));
    assert_eq!(c.post(pods, &asking("f", "500m")).await.code, 201);
    assert_eq!(used(&c).await, json!({"requests.cpu": "1", "pods": "1"}));
    c.stop().await;
}

#[tokio::test]
async fn tolerations_can_be_replaced_but_for_those_every_pod_has() {
    let c = Cluster::start().await;
    let created = c.post("/api/v1/namespaces/default/pods", &pod("p", &json!({}))).await;
    assert_eq!((created.code, created.body["spec"]["tolerations"].as_array().map(Vec::len)), (201, Some(2)));
    let own = json!({"key": "box", "operator": "Equal", "value": "yes", "effect": "NoSchedule"});
    let mut replaced = created.body.clone();
    replaced["spec"]["tolerations"] = json!([own]);
    let updated = c.put("/api/v1/namespaces/default/pods/p", &replaced).await;
    let keys = |body: &Value| -> Vec<String> {
        let list = body["spec"]["tolerations"].as_array().unwrap();
        list.iter().map(|t| t["key"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(updated.code, 200, "{}", updated.body);
    assert_eq!(keys(&updated.body), ["box", "node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"]);
    let mut taken = updated.body.clone();
    taken["spec"]["tolerations"] = json!([]);
    let refused = c.put("/api/v1/namespaces/default/pods/p", &taken).await;
    let why = "Pod \"p\" is invalid: spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds";
    assert_eq!(refused.refusal(), (422, "Invalid", why));
    c.stop().await;
}
