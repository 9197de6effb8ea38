//! All controllers together, against an API that fails now and then.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};

use super::*;
use crate::fake_api::{Call, FakeApi};

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/shop/deployments";
const WEB: &str = "/apis/apps/v1/namespaces/shop/deployments/web";

/// Runs the controllers while `story` goes on, and returns what is there at its end.
async fn during(api: &FakeApi, story: impl AsyncFn(&FakeApi)) -> BTreeMap<String, usize> {
    let config = Config {
        node_grace: Duration::from_secs(50),
        root_ca: Some("certificates".to_owned()),
        cluster_cidr: Some("10.42.0.0/16".parse().unwrap()),
        given_range: None,
    };
    let shutdown = CancellationToken::new();
    let controllers = run(config, api.client(), shutdown.clone());
    let told = async {
        story(api).await;
        let furnished = |api: &FakeApi| api.all("namespaces").len() == api.all("serviceaccounts").len();
        api.until("every namespace has its ServiceAccount", furnished).await;
        shutdown.cancel();
    };
    let (result, ()) = tokio::join!(controllers, told);
    result.unwrap();
    there(api)
}

/// How many objects there are of each resource; events come and go with luck.
fn there(api: &FakeApi) -> BTreeMap<String, usize> {
    let resources = ["configmaps", "deployments", "namespaces", "nodes", "pods", "replicasets", "serviceaccounts"];
    resources.map(|resource| (resource.to_owned(), api.all(resource).len())).into()
}

/// Tells the story without a fault, and then again with the first call failing, the second, and so on to the last.
async fn whatever_fails(namespaces: &[&str], story: impl AsyncFn(&FakeApi)) -> BTreeMap<String, usize> {
    whatever_fails_of(Call::Act, namespaces, story).await
}

async fn whatever_fails_of(call: Call, namespaces: &[&str], story: impl AsyncFn(&FakeApi)) -> BTreeMap<String, usize> {
    let expected = during(&FakeApi::new(namespaces), &story).await;
    for number in 1.. {
        let api = FakeApi::new(namespaces);
        api.fail(call, number);
        let same = |api: &FakeApi| there(api) == expected;
        during(&api, async |api: &FakeApi| {
            story(api).await;
            api.until(&format!("the same end although {call:?} {number} failed"), same).await;
        })
        .await;
        if api.calls(call) < number {
            assert!(number > 3, "only {number} calls: the controllers cannot have done it all");
            break;
        }
    }
    expected
}

fn deployment(replicas: i32) -> Value {
    json!({
        "metadata": {"name": "web"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": template("one"),
        },
    })
}

fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "web", "image": image}]}})
}

/// Whether the Deployment has rolled out so many pods, all of this image, and says so.
fn is_rolled_out(api: &FakeApi, image: &str, replicas: usize) -> bool {
    let image_of = |pod: &Value| pod["spec"]["containers"][0]["image"] == json!(image);
    let pods = api.all("pods");
    let status = api.all("deployments").first().map(|web| web["status"].clone()).unwrap_or_default();
    let complete = ["replicas", "updatedReplicas", "availableReplicas"].iter().all(|f| status[f] == json!(replicas));
    pods.len() == replicas && pods.iter().all(image_of) && complete
}

fn revision(api: &FakeApi) -> String {
    let web = api.all("deployments").remove(0);
    web["metadata"]["annotations"]["deployment.kubernetes.io/revision"].as_str().unwrap_or_default().to_owned()
}

async fn roll(api: &FakeApi) {
    api.create(DEPLOYMENTS, deployment(2));
    api.until("two pods run", |api| is_rolled_out(api, "one", 2)).await;
    api.patch(WEB, json!({"spec": {"replicas": 3}}));
    api.until("three pods run", |api| is_rolled_out(api, "one", 3)).await;
    api.patch(WEB, json!({"spec": {"template": template("two")}}));
    api.until("three pods of the new image run", |api| is_rolled_out(api, "two", 3) && revision(api) == "2").await;
    api.patch(WEB, json!({"spec": {"template": template("one")}}));
    api.until("three pods of the old image run", |api| is_rolled_out(api, "one", 3) && revision(api) == "3").await;
}

#[tokio::test(start_paused = true)]
async fn a_deployment_is_made_scaled_rolled_and_rolled_back() {
    let api = FakeApi::new(&["shop"]);
    let end = during(&api, roll).await;
    assert_eq!((end["replicasets"], end["pods"]), (2, 3));
}

/// Invariant 3: every reconcile can be cut at any line and run again.
#[tokio::test(start_paused = true)]
async fn a_deployment_gets_there_whichever_call_fails() {
    let end = whatever_fails(&["shop"], async |api: &FakeApi| {
        api.create(DEPLOYMENTS, deployment(2));
        api.until("two pods run", |api| is_rolled_out(api, "one", 2)).await;
        api.patch(WEB, json!({"spec": {"template": template("two")}}));
        api.until("two pods of the new image run", |api| is_rolled_out(api, "two", 2) && revision(api) == "2").await;
    })
    .await;
    assert_eq!((end["replicasets"], end["pods"]), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn what_a_deployment_leaves_is_collected_whichever_call_fails() {
    for propagation in ["Background", "Foreground"] {
        let end = whatever_fails(&["shop"], async |api: &FakeApi| {
            api.create(DEPLOYMENTS, deployment(2));
            api.until("two pods run", |api| is_rolled_out(api, "one", 2)).await;
            api.delete(WEB, propagation);
            let gone = |api: &FakeApi| ["deployments", "replicasets", "pods"].iter().all(|r| api.all(r).is_empty());
            api.until("nothing is left of it", gone).await;
        })
        .await;
        assert_eq!(end["pods"], 0, "{propagation}");
    }
}

#[tokio::test(start_paused = true)]
async fn orphans_stay_without_their_owner() {
    let api = FakeApi::new(&["shop"]);
    let end = during(&api, async |api: &FakeApi| {
        api.create(DEPLOYMENTS, deployment(2));
        api.until("two pods run", |api| is_rolled_out(api, "one", 2)).await;
        api.delete(WEB, "Orphan");
        api.until("it is gone", |api| api.all("deployments").is_empty()).await;
    })
    .await;
    assert_eq!((end["replicasets"], end["pods"]), (1, 2));
    let owners = &api.all("replicasets")[0]["metadata"]["ownerReferences"];
    assert!(owners.as_array().is_none_or(Vec::is_empty), "{owners}");
}

#[tokio::test(start_paused = true)]
async fn a_namespace_is_emptied_whichever_call_fails() {
    let end = whatever_fails(&["shop", "other"], async |api: &FakeApi| {
        api.create(DEPLOYMENTS, deployment(2));
        let held = json!({"metadata": {"name": "held", "finalizers": ["example.com/hold"]}});
        api.create("/api/v1/namespaces/shop/configmaps", held);
        api.until("two pods run", |api| is_rolled_out(api, "one", 2)).await;
        api.delete("/api/v1/namespaces/shop", "Background");
        api.until("the namespace says what holds it", |api| {
            let status = api.all("namespaces").into_iter().find(|n| n["metadata"]["name"] == "shop").unwrap();
            status["status"]["conditions"].as_array().is_some_and(|all| {
                all.iter().any(|c| c["type"] == "NamespaceFinalizersRemaining" && c["status"] == "True")
            })
        })
        .await;
        api.patch("/api/v1/namespaces/shop/configmaps/held", json!({"metadata": {"finalizers": null}}));
        let complete = |api: &FakeApi| {
            let end = there(api);
            (end["namespaces"], end["configmaps"], end["serviceaccounts"]) == (1, 1, 1)
        };
        api.until("only the other namespace is left, with what it must have", complete).await;
    })
    .await;
    assert_eq!((end["namespaces"], end["pods"], end["deployments"]), (1, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_falls_silent_is_marked_and_its_pods_go() {
    let node = |name: &str| {
        let ready = json!({"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-01T00:00:00Z"});
        json!({"metadata": {"name": name}, "status": {"conditions": [ready]}})
    };
    let api = FakeApi::new(&["shop", "kube-node-lease"]);
    during(&api, async |api: &FakeApi| {
        api.create("/api/v1/nodes", node("silent"));
        api.create("/api/v1/nodes", node("lively"));
        let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "silent", "containers": []}});
        api.create("/api/v1/namespaces/shop/pods", pod);
        api.until("both have addresses", |api| {
            let mut ranges: Vec<Value> = api.all("nodes").iter().map(|n| n["spec"]["podCIDR"].clone()).collect();
            ranges.sort_by_key(Value::to_string);
            ranges == [json!("10.42.0.0/24"), json!("10.42.1.0/24")]
        })
        .await;
        // The lease of one is renewed all the time, the other's never.
        let lease = json!({"metadata": {"name": "lively"}, "spec": {"renewTime": "2026-01-01T00:00:00.000000Z"}});
        api.create("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases", lease);
        let renewals = async {
            let mut clock = tokio::time::interval(Duration::from_secs(10));
            for minute in 0..60 {
                clock.tick().await;
                let renewed = format!("2026-01-01T01:{minute:02}:00.000000Z");
                let path = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/lively";
                api.patch(path, json!({"spec": {"renewTime": renewed}}));
            }
            panic!("ten minutes are over");
        };
        tokio::select! {
            () = renewals => {}
            () = api.until("the pod was driven off", |api| api.all("pods").is_empty()) => {}
        }
    })
    .await;
    let taints = |name: &str| {
        let node = api.all("nodes").into_iter().find(|n| n["metadata"]["name"] == name).unwrap();
        let taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
        taints.iter().map(|t| format!("{}:{}", t["key"], t["effect"]).replace('"', "")).collect::<Vec<_>>()
    };
    let unreachable = ["node.kubernetes.io/unreachable:NoSchedule", "node.kubernetes.io/unreachable:NoExecute"];
    assert_eq!(taints("silent"), unreachable);
    assert_eq!(taints("lively"), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn what_every_namespace_must_have_comes_back_whichever_call_fails() {
    whatever_fails(&["shop"], async |api: &FakeApi| {
        let right = |api: &FakeApi| {
            let data = json!({"ca.crt": "certificates"});
            let maps = api.all("configmaps");
            api.all("serviceaccounts").len() == 1 && maps.len() == 1 && maps.iter().all(|map| map["data"] == data)
        };
        api.until("all is there", right).await;
        api.delete("/api/v1/namespaces/shop/serviceaccounts/default", "Background");
        let map = "/api/v1/namespaces/shop/configmaps/kube-root-ca.crt";
        api.patch(map, json!({"data": {"ca.crt": "others", "more": "x"}}));
        api.until("all is there again", right).await;
        api.delete(map, "Background");
        api.until("all is there once more", right).await;
    })
    .await;
}

/// Every informer looks in the same way, so that one short story will do for what becomes of one that cannot.
#[tokio::test(start_paused = true)]
async fn the_controllers_come_to_themselves_whichever_look_fails() {
    whatever_fails_of(Call::Look, &["shop"], async |api: &FakeApi| {
        api.until("there is an account", |api| api.all("serviceaccounts").len() == 1).await;
        api.delete("/api/v1/namespaces/shop/serviceaccounts/default", "Background");
        api.until("there is an account again", |api| api.all("serviceaccounts").len() == 1).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn pods_of_a_node_that_is_gone_are_collected_whichever_call_fails() {
    let end = whatever_fails(&["shop"], async |api: &FakeApi| {
        api.create("/api/v1/nodes", json!({"metadata": {"name": "here"}}));
        for node in ["here", "gone"] {
            let pod = json!({"metadata": {"name": node}, "spec": {"nodeName": node, "containers": []}});
            api.create("/api/v1/namespaces/shop/pods", pod);
        }
        api.until("one pod is gone", |api| api.all("pods").len() == 1).await;
    })
    .await;
    assert_eq!((end["pods"], end["nodes"]), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn an_owner_in_another_namespace_is_none() {
    let api = FakeApi::new(&["shop", "other"]);
    during(&api, async |api: &FakeApi| {
        let owner = api.create("/api/v1/namespaces/other/configmaps", json!({"metadata": {"name": "owner"}}));
        api.until("the owner's namespace is complete", |api| api.all("configmaps").len() == 3).await;
        let owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]});
        let secret = json!({"metadata": {"name": "dependent", "ownerReferences": [owner]}});
        api.create("/api/v1/namespaces/shop/secrets", secret);
        api.until("the dependent is gone", |api| api.all("secrets").is_empty()).await;
    })
    .await;
    let notes: Vec<Value> = api.all("events").into_iter().map(|event| event["note"].clone()).collect();
    let uid = api.all("configmaps").into_iter().find(|map| map["metadata"]["name"] == "owner").unwrap();
    let uid = uid["metadata"]["uid"].as_str().unwrap().to_owned();
    let ours = format!(
        "ownerRef [v1/ConfigMap, namespace: shop, name: owner, uid: {uid}] does not exist in namespace \"shop\""
    );
    assert!(notes.contains(&json!(ours)), "{notes:#?}");
}

#[tokio::test(start_paused = true)]
async fn expired_tokens_go_and_other_secrets_stay() {
    let api = FakeApi::new(&["kube-system"]);
    let secret = |name: &str, type_: &str, expiration: Option<&str>| json!({"metadata": {"name": name}, "type": type_, "data": {"expiration": expiration}});
    // 2025-12-31T00:00:00Z and 2999-01-01T00:00:00Z.
    let (past, future) = (Some("MjAyNS0xMi0zMVQwMDowMDowMFo="), Some("Mjk5OS0wMS0wMVQwMDowMDowMFo="));
    let token = "bootstrap.kubernetes.io/token";
    during(&api, async |api: &FakeApi| {
        for (name, type_, expiration) in
            [("old", token, past), ("new", token, future), ("endless", token, None), ("other", "Opaque", past)]
        {
            api.create("/api/v1/namespaces/kube-system/secrets", secret(name, type_, expiration));
        }
        api.until("one is gone", |api| api.all("secrets").len() < 4).await;
    })
    .await;
    let left: Vec<Value> = api.all("secrets").into_iter().map(|secret| secret["metadata"]["name"].clone()).collect();
    assert_eq!(left, ["endless", "new", "other"]);
}

#[tokio::test(start_paused = true)]
async fn a_budget_is_worked_out_whichever_call_fails() {
    const BUDGET: &str = "/apis/policy/v1/namespaces/shop/poddisruptionbudgets/web";
    let allows = |count: i64, healthy: i64| {
        move |api: &FakeApi| {
            let status = api.all("poddisruptionbudgets").first().map(|b| b["status"].clone()).unwrap_or_default();
            status["disruptionsAllowed"] == json!(count) && status["currentHealthy"] == json!(healthy)
        }
    };
    whatever_fails(&["shop"], async |api: &FakeApi| {
        let budget = json!({"metadata": {"name": "web"}, "spec": {
            "maxUnavailable": 1, "selector": {"matchLabels": {"app": "web"}}}});
        api.create("/apis/policy/v1/namespaces/shop/poddisruptionbudgets", budget);
        api.until("nothing is allowed of nothing", allows(0, 0)).await;
        api.create(DEPLOYMENTS, deployment(3));
        api.until("one of three may go", allows(1, 3)).await;
        api.patch(BUDGET, json!({"spec": {"maxUnavailable": "67%"}}));
        api.until("all three of 67%, rounded up", allows(3, 3)).await;
    })
    .await;
}

/// Invariant 3: every reconcile can be cut at any line and run again.
#[tokio::test(start_paused = true)]
async fn a_claim_stays_while_a_pod_has_it_whichever_call_fails() {
    const CLAIMS: &str = "/api/v1/namespaces/shop/persistentvolumeclaims";
    const VOLUMES: &str = "/api/v1/persistentvolumes";
    let held = |api: &FakeApi, kind: &str, by: &str| {
        api.all(kind).first().is_some_and(|object| object["metadata"]["finalizers"] == json!([by]))
    };
    whatever_fails(&["shop"], async |api: &FakeApi| {
        api.create(CLAIMS, json!({"metadata": {"name": "data"}, "spec": {"volumeAttributesClassName": "fast"}}));
        api.create(VOLUMES, json!({"metadata": {"name": "disk"}, "status": {"phase": "Bound"}}));
        api.create("/apis/storage.k8s.io/v1/volumeattributesclasses", json!({"metadata": {"name": "fast"}}));
        let volume = json!({"name": "v", "persistentVolumeClaim": {"claimName": "data"}});
        let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n", "containers": [], "volumes": [volume]}});
        api.create("/api/v1/nodes", json!({"metadata": {"name": "n"}}));
        api.create("/api/v1/namespaces/shop/pods", pod);
        api.until("all are protected", |api| {
            held(api, "persistentvolumeclaims", "kubernetes.io/pvc-protection")
                && held(api, "persistentvolumes", "kubernetes.io/pv-protection")
                && held(api, "volumeattributesclasses", "kubernetes.io/vac-protection")
        })
        .await;
        api.delete("/apis/storage.k8s.io/v1/volumeattributesclasses/fast", "Background");
        api.delete(&format!("{CLAIMS}/data"), "Background");
        api.delete(&format!("{VOLUMES}/disk"), "Background");
        api.patch(&format!("{VOLUMES}/disk"), json!({"status": {"phase": "Released"}}));
        api.until("what is bound no more is gone", |api| api.all("persistentvolumes").is_empty()).await;
        assert_eq!(api.all("persistentvolumeclaims").len(), 1, "a pod has it");
        assert_eq!(api.all("volumeattributesclasses").len(), 1, "a claim is of it");
        api.delete("/api/v1/namespaces/shop/pods/p", "Background");
        let gone = |api: &FakeApi| {
            ["pods", "persistentvolumeclaims", "volumeattributesclasses"].iter().all(|r| api.all(r).is_empty())
        };
        api.until("claim and class have gone with their last user", gone).await;
    })
    .await;
}

/// Invariant 3: every reconcile can be cut at any line and run again.
#[tokio::test(start_paused = true)]
async fn a_quota_is_counted_whichever_call_fails() {
    let used = |api: &FakeApi, pods: &str| {
        api.all("resourcequotas").first().is_some_and(|quota| quota["status"]["used"] == json!({"pods": pods}))
    };
    let end = whatever_fails(&["shop"], async |api: &FakeApi| {
        api.create(DEPLOYMENTS, deployment(2));
        api.until("two pods run", |api| is_rolled_out(api, "one", 2)).await;
        let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {"pods": "5"}}});
        api.create("/api/v1/namespaces/shop/resourcequotas", quota);
        api.until("both pods are counted", |api| used(api, "2")).await;
        api.patch(WEB, json!({"spec": {"replicas": 1}}));
        api.until("what is gone is given back", |api| used(api, "1")).await;
    })
    .await;
    assert_eq!(end["pods"], 1);
}
