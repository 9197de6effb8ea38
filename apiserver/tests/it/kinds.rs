//! Kinds beside the first ones: what the table says of them is what is served.

use serde_json::{Value, json};

use crate::harness::Cluster;

fn template() -> Value {
    json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "1"}}}]}})
}

/// An object of each kind that is served without further ado: where, and what.
pub(crate) fn objects() -> Vec<(&'static str, Value)> {
    let selector = json!({"matchLabels": {"app": "web"}});
    let job = json!({"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}});
    let volume = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
    vec![
        (
            "apis/apps/v1/namespaces/default/statefulsets",
            json!({"spec": {"selector": selector, "template": template()}}),
        ),
        ("apis/apps/v1/namespaces/default/daemonsets", json!({"spec": {"selector": selector, "template": template()}})),
        ("apis/apps/v1/namespaces/default/controllerrevisions", json!({"revision": 1, "data": {}})),
        ("apis/batch/v1/namespaces/default/jobs", json!({"spec": job})),
        (
            "apis/batch/v1/namespaces/default/cronjobs",
            json!({"spec": {"schedule": "@daily", "jobTemplate": {"spec": job}}}),
        ),
        (
            "apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers",
            json!({"spec": {"maxReplicas": 3, "scaleTargetRef": target}}),
        ),
        (
            "apis/policy/v1/namespaces/default/poddisruptionbudgets",
            json!({"spec": {"minAvailable": 1, "selector": selector}}),
        ),
        ("api/v1/namespaces/default/replicationcontrollers", json!({"spec": {"template": template()}})),
        ("api/v1/namespaces/default/podtemplates", json!({"template": template()})),
        ("api/v1/namespaces/default/endpoints", json!({"subsets": [{"addresses": [{"ip": "10.0.0.1"}]}]})),
        (
            "api/v1/namespaces/default/limitranges",
            json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "1"}}]}}),
        ),
        ("api/v1/namespaces/default/resourcequotas", json!({"spec": {"hard": {"configmaps": "10"}}})),
        ("api/v1/namespaces/default/persistentvolumeclaims", json!({"spec": volume})),
        (
            "api/v1/persistentvolumes",
            json!({"spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
            "hostPath": {"path": "/data"}}}),
        ),
    ]
}

#[tokio::test]
async fn each_kind_is_created_listed_changed_and_deleted() {
    let c = Cluster::start().await;
    for (path, mut object) in objects() {
        object["metadata"] = json!({"name": "x"});
        let created = c.post(&format!("/{path}"), &object).await;
        assert_eq!(created.code, 201, "{path}: {}", created.body);
        let one = format!("/{path}/x");
        assert_eq!(c.get(&one).await.body, created.body, "{path}");
        let listed = c.get(&format!("/{path}")).await;
        assert_eq!(listed.body["items"][0]["metadata"]["name"], "x", "{path}");
        let same = c.put(&one, &created.body).await;
        assert_eq!((same.code, same.version()), (200, created.version()), "{path}: {}", same.body);
        let marked = c.merge(&one, &json!({"metadata": {"labels": {"a": "b"}}})).await;
        assert_eq!(marked.code, 200, "{path}: {}", marked.body);
        let generation = |answer: &crate::harness::Answer| answer.body["metadata"]["generation"].clone();
        assert_eq!(generation(&marked), generation(&created), "{path}: labels make no new generation");
        let deleted = c.delete(&format!("{one}?propagationPolicy=Background")).await;
        assert_eq!(deleted.code, 200, "{path}: {}", deleted.body);
        if deleted.body["metadata"]["deletionTimestamp"].is_string() {
            // What holds data waits for a controller, who finds that nobody uses it.
            assert_eq!(c.merge(&one, &json!({"metadata": {"finalizers": null}})).await.code, 200, "{path}");
        }
        assert_eq!(c.get(&one).await.code, 404, "{path}");
    }
    c.stop().await;
}

#[tokio::test]
async fn a_status_is_written_apart_from_its_spec() {
    let c = Cluster::start().await;
    let sets = "/apis/apps/v1/namespaces/default/statefulsets";
    let set = json!({"metadata": {"name": "web"}, "status": {"replicas": 9}, "spec": {"replicas": 3,
        "selector": {"matchLabels": {"app": "web"}}, "template": template()}});
    let created = c.post(sets, &set).await;
    assert_eq!(created.body["status"], json!({"availableReplicas": 0, "replicas": 0}));
    let status = json!({"spec": {"replicas": 7}, "status": {"replicas": 2, "readyReplicas": 1}});
    let changed = c.merge(&format!("{sets}/web/status"), &status).await;
    assert_eq!((changed.code, &changed.body["spec"]["replicas"]), (200, &json!(3)), "{}", changed.body);
    assert_eq!(changed.body["metadata"]["generation"], 1);
    let scaled = c.merge(&format!("{sets}/web/scale"), &json!({"spec": {"replicas": 5}})).await;
    assert_eq!(scaled.body["spec"]["replicas"], 5, "{}", scaled.body);
    assert_eq!(scaled.body["status"], json!({"replicas": 2, "selector": "app=web"}));
    assert_eq!(c.get(&format!("{sets}/web")).await.body["metadata"]["generation"], 2);
    c.stop().await;
}

#[tokio::test]
async fn an_autoscaler_is_the_same_in_both_versions() {
    let c = Cluster::start().await;
    let at = |version: &str| format!("/apis/autoscaling/{version}/namespaces/default/horizontalpodautoscalers");
    let body = json!({"metadata": {"name": "web"}, "spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 40,
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}}});
    let created = c.post(&at("v1"), &body).await;
    assert_eq!(created.code, 201, "{}", created.body);
    let new = c.get(&format!("{}/web", at("v2"))).await;
    assert_eq!(new.body["apiVersion"], "autoscaling/v2");
    assert_eq!(new.body["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 40, "{}", new.body);
    let memory = json!([{"type": "Resource", "resource": {"name": "memory",
        "target": {"type": "AverageValue", "averageValue": "1Gi"}}}]);
    c.merge(&format!("{}/web", at("v2")), &json!({"spec": {"metrics": memory}})).await;
    let old = c.get(&format!("{}/web", at("v1"))).await;
    assert_eq!(old.body["spec"]["targetCPUUtilizationPercentage"], Value::Null, "{}", old.body);
    let carried = &old.body["metadata"]["annotations"]["autoscaling.alpha.kubernetes.io/metrics"];
    assert!(carried.as_str().is_some_and(|text| text.contains("targetAverageValue")), "{carried}");
    let kept = c.merge(&format!("{}/web", at("v1")), &json!({"spec": {"maxReplicas": 9}})).await;
    assert_eq!(kept.code, 200, "{}", kept.body);
    let new = c.get(&format!("{}/web", at("v2"))).await;
    assert_eq!((&new.body["spec"]["metrics"], &new.body["spec"]["maxReplicas"]), (&memory, &json!(9)));
    c.stop().await;
}

#[tokio::test]
async fn an_update_of_a_budget_names_the_version_it_is_of() {
    let c = Cluster::start().await;
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    c.post(budgets, &json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 1}})).await;
    let refused =
        c.put(&format!("{budgets}/b"), &json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 2}})).await;
    let message = "poddisruptionbudgets.policy \"b\" is invalid: metadata.resourceVersion: Invalid value: 0: must be \
                   specified for an update";
    assert_eq!(refused.refusal(), (422, "Invalid", message));
    c.stop().await;
}

#[tokio::test]
async fn a_job_leaves_its_pods_behind_unless_told_otherwise() {
    let c = Cluster::start().await;
    let jobs = "/apis/batch/v1/namespaces/default/jobs";
    let job = json!({"metadata": {"name": "j"}, "spec": {"template": {"spec": {"restartPolicy": "Never",
        "containers": [{"name": "c", "image": "i"}]}}}});
    let created = c.post(jobs, &job).await;
    let uid = created.body["metadata"]["uid"].clone();
    assert_eq!(created.body["spec"]["selector"]["matchLabels"]["batch.kubernetes.io/controller-uid"], uid);
    assert_eq!(created.body["metadata"]["labels"]["batch.kubernetes.io/job-name"], "j");
    let deleted = c.delete(&format!("{jobs}/j")).await;
    assert_eq!(deleted.body["metadata"]["finalizers"], json!(["orphan"]), "{}", deleted.body);
    c.stop().await;
}

/// Runs a pod as far as the API sees it.
async fn run(c: &Cluster, name: &str) {
    let pods = "/api/v1/namespaces/default/pods";
    let created = c.post(pods, &pod(name)).await;
    assert_eq!(created.code, 201, "{}", created.body);
    let binding = json!({"metadata": {"name": name}, "target": {"kind": "Node", "name": "n"}});
    let bound = c.post("/api/v1/namespaces/default/bindings", &binding).await;
    assert_eq!(bound.code, 201, "{}", bound.body);
    let status = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    let running = c.merge(&format!("{pods}/{name}/status"), &status).await;
    assert_eq!((running.code, &running.body["spec"]["nodeName"]), (200, &json!("n")), "{}", running.body);
}

#[tokio::test]
async fn a_budget_holds_pods_that_it_cannot_spare() {
    let c = Cluster::start().await;
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let budget =
        json!({"metadata": {"name": "web"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}});
    assert_eq!(c.post(budgets, &budget).await.code, 201);
    run(&c, "a").await;
    run(&c, "b").await;
    let evict = async |name: &str, query: &str| {
        let path = format!("/api/v1/namespaces/default/pods/{name}/eviction{query}");
        c.post(&path, &json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}})).await
    };
    let refused = evict("a", "").await;
    let message = "Cannot evict pod as it would violate the pod's disruption budget.";
    assert_eq!(refused.refusal(), (429, "TooManyRequests", message));
    assert_eq!(refused.body["details"]["causes"][0]["reason"], "DisruptionBudget", "{}", refused.body);
    let status = json!({"status": {"observedGeneration": 1, "disruptionsAllowed": 1, "currentHealthy": 2,
        "desiredHealthy": 1, "expectedPods": 2}});
    assert_eq!(c.merge(&format!("{budgets}/web/status"), &status).await.code, 200);
    assert_eq!(evict("a", "?dryRun=All").await.code, 201);
    assert_eq!(c.get(&format!("{budgets}/web")).await.body["status"]["disruptionsAllowed"], 1);
    let evicted = evict("a", "").await;
    assert_eq!(evicted.code, 201, "{}", evicted.body);
    let gone = c.get("/api/v1/namespaces/default/pods/a").await;
    assert!(gone.body["metadata"]["deletionTimestamp"].is_string(), "{}", gone.body);
    let conditions = gone.body["status"]["conditions"].as_array().unwrap();
    assert!(conditions.iter().any(|condition| condition["reason"] == "EvictionByEvictionAPI"), "{}", gone.body);
    let left = c.get(&format!("{budgets}/web")).await;
    assert_eq!(left.body["status"]["disruptionsAllowed"], 0);
    assert!(left.body["status"]["disruptedPods"]["a"].is_string(), "{}", left.body);
    let refused = evict("b", "").await;
    assert_eq!(refused.code, 429);
    assert_eq!(
        refused.body["details"]["causes"][0]["message"],
        "The disruption budget web does not allow evicting pods currently"
    );
    c.stop().await;
}

#[tokio::test]
async fn a_running_pod_gets_ephemeral_containers_and_other_resources() {
    let c = Cluster::start().await;
    run(&c, "p").await;
    let pod = "/api/v1/namespaces/default/pods/p";
    let debugger = json!({"spec": {"ephemeralContainers": [{"name": "debug", "image": "busybox"}]}});
    let refused = c.merge(pod, &debugger).await;
    assert_eq!(refused.code, 422, "the pod itself does not take them: {}", refused.body);
    let added = c
        .send(
            "PATCH",
            &format!("{pod}/ephemeralcontainers"),
            "application/strategic-merge-patch+json",
            debugger.to_string(),
        )
        .await;
    assert_eq!(added.code, 200, "{}", added.body);
    assert_eq!(added.body["spec"]["ephemeralContainers"][0]["name"], "debug");
    assert_eq!(added.body["metadata"]["generation"], 2);
    let more = json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "2"}}}]}});
    let resized =
        c.send("PATCH", &format!("{pod}/resize"), "application/strategic-merge-patch+json", more.to_string()).await;
    assert_eq!(resized.code, 200, "{}", resized.body);
    assert_eq!(resized.body["spec"]["containers"][0]["resources"]["requests"]["cpu"], "2");
    c.stop().await;
}

#[tokio::test]
async fn the_store_tells_how_it_is_and_old_resources_that_they_are_old() {
    let c = Cluster::start().await;
    let listed = c.get("/api/v1/componentstatuses").await;
    assert_eq!(listed.body["items"][0]["conditions"][0]["status"], "True", "{}", listed.body);
    assert_eq!(listed.warnings, ["299 - \"v1 ComponentStatus is deprecated in v1.19+\""]);
    assert_eq!(c.get("/api/v1/componentstatuses/etcd-0").await.body["metadata"]["name"], "etcd-0");
    assert_eq!(c.get("/api/v1/componentstatuses/other").await.code, 404);
    assert_eq!(c.post("/api/v1/componentstatuses", &json!({"metadata": {"name": "x"}})).await.code, 405);
    let warnings = c.get("/api/v1/endpoints").await.warnings;
    assert_eq!(warnings, ["299 - \"v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice\""]);
    c.stop().await;
}
