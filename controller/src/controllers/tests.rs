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

#[tokio::test(start_paused = true)]
async fn who_is_to_end_does_not_wait_for_an_api_that_never_answers() {
    let api = FakeApi::new(&["shop"]);
    let furnished = |api: &FakeApi| !api.all("serviceaccounts").is_empty();
    during(&api, async |api: &FakeApi| {
        api.until("the namespace is furnished", furnished).await;
        let calls = api.calls(Call::Act);
        api.fall_silent(Call::Act, calls);
        api.create(DEPLOYMENTS, deployment(2));
        api.until("something waits for its answer", |api| api.calls(Call::Act) > calls).await;
    })
    .await;
    assert!(api.all("pods").is_empty());
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

/// The addresses in all EndpointSlices, each with whether it is ready.
fn in_slices(api: &FakeApi) -> Vec<(Value, Value)> {
    let slices = api.all("endpointslices");
    let endpoints = slices.iter().flat_map(|slice| slice["endpoints"].as_array().cloned().unwrap_or_default());
    endpoints.map(|endpoint| (endpoint["addresses"][0].clone(), endpoint["conditions"]["ready"].clone())).collect()
}

/// How many addresses are in all Endpoints: ready and not.
fn in_endpoints(api: &FakeApi) -> (usize, usize) {
    let subsets: Vec<Value> =
        api.all("endpoints").iter().flat_map(|e| e["subsets"].as_array().cloned().unwrap_or_default()).collect();
    let count = |field: &str| subsets.iter().filter_map(|subset| subset[field].as_array()).map(Vec::len).sum();
    (count("addresses"), count("notReadyAddresses"))
}

/// Invariant 3: every reconcile can be cut at any line and run again.
#[tokio::test(start_paused = true)]
async fn the_addresses_behind_a_service_are_there_whichever_call_fails() {
    whatever_fails(&["shop"], async |api: &FakeApi| {
        api.create("/api/v1/nodes", json!({"metadata": {"name": "here"}}));
        let service = json!({"metadata": {"name": "web"}, "spec": {
            "clusterIP": "10.43.0.9", "ipFamilies": ["IPv4"], "selector": {"app": "web"}, "ports": [{"port": 80}]}});
        api.create("/api/v1/namespaces/shop/services", service);
        api.until("there is an empty slice, and empty Endpoints", |api| {
            api.all("endpointslices").len() == 1 && api.all("endpoints").len() == 1
        })
        .await;
        for name in ["a", "b"] {
            let pod = json!({"metadata": {"name": name, "labels": {"app": "web"}}, "spec": {"nodeName": "here"}});
            api.create("/api/v1/namespaces/shop/pods", pod);
        }
        api.until("both are there", |api| in_endpoints(api) == (2, 0) && in_slices(api).len() == 2).await;
        let unready = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
        api.patch("/api/v1/namespaces/shop/pods/a", unready);
        api.until("one is not ready", |api| {
            in_endpoints(api) == (1, 1) && in_slices(api).iter().filter(|(_, ready)| *ready == json!(true)).count() == 1
        })
        .await;
        api.delete("/api/v1/namespaces/shop/services/web", "Background");
        let gone = |api: &FakeApi| api.all("endpointslices").is_empty() && api.all("endpoints").is_empty();
        api.until("all is gone with the Service", gone).await;
    })
    .await;
}

/// Invariant 3: every reconcile can be cut at any line and run again.
#[tokio::test(start_paused = true)]
async fn endpoints_written_by_hand_are_mirrored_whichever_call_fails() {
    const OWN: &str = "/api/v1/namespaces/shop/endpoints/own";
    let shown = |addresses: &'static [&'static str]| {
        move |api: &FakeApi| in_slices(api).iter().map(|(address, _)| address.clone()).collect::<Vec<_>>() == addresses
    };
    let subsets = |ip: &str| json!([{"addresses": [{"ip": ip}], "ports": [{"port": 80, "protocol": "TCP"}]}]);
    whatever_fails(&["shop"], async |api: &FakeApi| {
        let service = json!({"metadata": {"name": "own"}, "spec": {"ports": [{"port": 80}]}});
        api.create("/api/v1/namespaces/shop/services", service);
        let own = json!({"metadata": {"name": "own"}, "subsets": subsets("192.0.2.1")});
        api.create("/api/v1/namespaces/shop/endpoints", own);
        api.until("the address is in a slice", shown(&["192.0.2.1"])).await;
        api.patch(OWN, json!({"subsets": subsets("192.0.2.2")}));
        api.until("the other address is in a slice", shown(&["192.0.2.2"])).await;
        let skipped = |skip: &str| json!({"metadata": {"labels": {"endpointslice.kubernetes.io/skip-mirror": skip}}});
        api.patch(OWN, skipped("true"));
        api.until("nothing is mirrored that shall not be", |api| api.all("endpointslices").is_empty()).await;
        api.patch(OWN, skipped("false"));
        api.until("it is mirrored again", shown(&["192.0.2.2"])).await;
        api.delete(OWN, "Background");
        api.until("the mirror is gone too", |api| api.all("endpointslices").is_empty()).await;
    })
    .await;
}

/// Invariant 3: every reconcile can be cut at any line and run again.
#[tokio::test(start_paused = true)]
async fn a_replication_controller_has_its_pods_whichever_call_fails() {
    const WEB: &str = "/api/v1/namespaces/shop/replicationcontrollers/web";
    let says = |replicas: i64| {
        move |api: &FakeApi| {
            let status = api.all("replicationcontrollers").first().map(|web| web["status"].clone()).unwrap_or_default();
            api.all("pods").len() == usize::try_from(replicas).unwrap()
                && status["readyReplicas"] == json!((replicas > 0).then_some(replicas))
                && status["terminatingReplicas"].is_null()
        }
    };
    whatever_fails(&["shop"], async |api: &FakeApi| {
        let web = json!({"metadata": {"name": "web"}, "spec": {
            "replicas": 2, "selector": {"app": "web"}, "template": template("one")}});
        api.create("/api/v1/namespaces/shop/replicationcontrollers", web);
        api.until("two pods run", says(2)).await;
        let pod = api.all("pods").remove(0);
        let path = format!("/api/v1/namespaces/shop/pods/{}", pod["metadata"]["name"].as_str().unwrap());
        api.patch(&path, json!({"metadata": {"labels": {"app": "mine"}}}));
        api.until("what is not selected any more is released and replaced", |api| {
            let owned = |pod: &&Value| pod["metadata"]["ownerReferences"].as_array().is_some_and(|o| !o.is_empty());
            let pods = api.all("pods");
            pods.len() == 3 && pods.iter().filter(owned).count() == 2
        })
        .await;
        api.delete(&path, "Background");
        api.patch(WEB, json!({"spec": {"replicas": 1}}));
        api.until("one pod runs", says(1)).await;
        api.delete(WEB, "Background");
        api.until("nothing is left", |api| api.all("pods").is_empty()).await;
    })
    .await;
}

/// Invariant 3: every reconcile can be cut at any line and run again.
#[tokio::test(start_paused = true)]
async fn a_job_counts_each_pod_once_whichever_call_fails() {
    const JOB: &str = "/apis/batch/v1/namespaces/shop/jobs/once";
    let status = |api: &FakeApi| api.all("jobs").first().map(|job| job["status"].clone()).unwrap_or_default();
    let names = |api: &FakeApi, phase: &str| -> Vec<String> {
        let pods = api.all("pods");
        let of = pods.iter().filter(|pod| pod["status"]["phase"] == json!(phase));
        of.map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    whatever_fails(&["shop"], async |api: &FakeApi| {
        let labels = json!({"batch.kubernetes.io/controller-uid": "x"});
        let template = json!({"metadata": {"labels": labels}, "spec": {"containers": [], "restartPolicy": "Never"}});
        let job = json!({"metadata": {"name": "once"}, "spec": {"completions": 3, "parallelism": 2, "backoffLimit": 6,
            "ttlSecondsAfterFinished": 60, "selector": {"matchLabels": labels}, "template": template}});
        api.create("/apis/batch/v1/namespaces/shop/jobs", job);
        for round in 0..4 {
            api.until("pods run", |api| !names(api, "Running").is_empty()).await;
            let phase = if round == 1 { "Failed" } else { "Succeeded" };
            let path = format!("/api/v1/namespaces/shop/pods/{}", names(api, "Running").remove(0));
            api.patch(&path, json!({"status": {"phase": phase, "conditions": []}}));
        }
        api.until("it is complete", |api| {
            let (status, pods) = (status(api), api.all("pods"));
            let held = |pod: &&Value| pod["metadata"]["finalizers"].as_array().is_some_and(|f| !f.is_empty());
            status["succeeded"] == json!(3)
                && status["failed"] == json!(1)
                && status["conditions"].as_array().is_some_and(|c| c.iter().any(|c| c["type"] == "Complete"))
                && !pods.iter().any(|pod| held(&pod))
        })
        .await;
        // Its time is real, not the test's: it is over at once instead.
        api.patch(JOB, json!({"spec": {"ttlSecondsAfterFinished": 0}}));
        api.until("it is deleted with its pods", |api| api.all("jobs").is_empty() && api.all("pods").is_empty()).await;
    })
    .await;
}

/// Invariant 3: every reconcile can be cut at any line and run again.
#[tokio::test(start_paused = true)]
async fn a_cron_job_makes_one_job_for_a_time_whichever_call_fails() {
    const CRON: &str = "/apis/batch/v1/namespaces/shop/cronjobs/daily";
    whatever_fails(&["shop"], async |api: &FakeApi| {
        let template =
            json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [], "restartPolicy": "Never"}});
        // It was made long ago, so the latest time is due at once, and the next is hours away: or it is midnight.
        let spec = json!({"schedule": "0 0 1 1 *", "successfulJobsHistoryLimit": 0, "jobTemplate": {"spec": {
            "completions": 1, "parallelism": 1, "selector": {"matchLabels": {"a": "b"}}, "template": template}}});
        let meta = json!({"name": "daily"});
        api.create(
            "/apis/batch/v1/namespaces/shop/cronjobs",
            json!({"metadata": meta, "spec": spec, "status": {
            "lastScheduleTime": "2025-06-01T00:00:00Z"}}),
        );
        api.until("its Job runs", |api| {
            let active = api.all("cronjobs").first().map(|cron| cron["status"]["active"].clone()).unwrap_or_default();
            active.as_array().is_some_and(|active| active.len() == 1) && api.all("pods").len() == 1
        })
        .await;
        let job = api.all("jobs").remove(0);
        let minutes: i64 = job["metadata"]["name"].as_str().unwrap().strip_prefix("daily-").unwrap().parse().unwrap();
        assert_eq!(minutes % (24 * 60), 0, "its name is for a midnight");
        let pod = api.all("pods").remove(0);
        let path = format!("/api/v1/namespaces/shop/pods/{}", pod["metadata"]["name"].as_str().unwrap());
        api.patch(&path, json!({"status": {"phase": "Succeeded", "conditions": []}}));
        api.until("it is complete, and not kept", |api| {
            let status = api.all("cronjobs").first().map(|cron| cron["status"].clone()).unwrap_or_default();
            api.all("jobs").is_empty()
                && api.all("pods").is_empty()
                && status["active"].as_array().is_none_or(Vec::is_empty)
                && !status["lastSuccessfulTime"].is_null()
        })
        .await;
        api.delete(CRON, "Background");
    })
    .await;
}

/// Invariant 3: every reconcile can be cut at any line and run again.
#[tokio::test(start_paused = true)]
async fn a_stateful_set_is_made_rolled_and_shrunk_whichever_call_fails() {
    const DB: &str = "/apis/apps/v1/namespaces/shop/statefulsets/db";
    let pods = |api: &FakeApi| -> Vec<String> {
        let pods = api.all("pods");
        let words = pods.iter().map(|pod| {
            let image = pod["spec"]["containers"][0]["image"].as_str().unwrap();
            format!("{} {image}", pod["metadata"]["name"].as_str().unwrap())
        });
        words.collect()
    };
    let settled = |api: &FakeApi, replicas: i64| {
        let status = api.all("statefulsets").first().map(|db| db["status"].clone()).unwrap_or_default();
        ["replicas", "readyReplicas", "currentReplicas", "updatedReplicas"].iter().all(|f| status[f] == json!(replicas))
            && status["currentRevision"] == status["updateRevision"]
    };
    whatever_fails(&["shop"], async |api: &FakeApi| {
        let spec = json!({"replicas": 2, "serviceName": "db", "selector": {"matchLabels": {"app": "web"}},
                          "template": template("one"), "updateStrategy": {"type": "RollingUpdate"},
                          "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {}}]});
        api.create("/apis/apps/v1/namespaces/shop/statefulsets", json!({"metadata": {"name": "db"}, "spec": spec}));
        api.until("two pods run", |api| settled(api, 2) && pods(api) == ["db-0 one", "db-1 one"]).await;
        api.patch(DB, json!({"spec": {"template": template("two")}}));
        api.until("both are new", |api| settled(api, 2) && pods(api) == ["db-0 two", "db-1 two"]).await;
        api.patch(DB, json!({"spec": {"replicas": 1}}));
        api.until("the last is gone", |api| settled(api, 1) && pods(api) == ["db-0 two"]).await;
        let claims = api.all("persistentvolumeclaims");
        let names: Vec<&Value> = claims.iter().map(|claim| &claim["metadata"]["name"]).collect();
        assert_eq!(names, ["data-db-0", "data-db-1"], "claims stay");
        assert_eq!(api.all("controllerrevisions").len(), 2);
    })
    .await;
}

/// Invariant 3: every reconcile can be cut at any line and run again.
#[tokio::test(start_paused = true)]
async fn a_daemon_set_is_on_every_node_whichever_call_fails() {
    const LOG: &str = "/apis/apps/v1/namespaces/shop/daemonsets/log";
    let on = |api: &FakeApi, image: &str| -> Vec<String> {
        let pods = api.all("pods");
        let field = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/0/matchFields/0/values/0";
        let of = pods.iter().filter(|pod| pod["spec"]["containers"][0]["image"] == json!(image));
        let mut nodes: Vec<String> = of.map(|pod| pod.pointer(field).unwrap().as_str().unwrap().to_owned()).collect();
        nodes.sort_unstable();
        nodes
    };
    let says = |api: &FakeApi, count: i64| {
        let status = api.all("daemonsets").first().map(|set| set["status"].clone()).unwrap_or_default();
        ["desiredNumberScheduled", "numberAvailable", "updatedNumberScheduled"]
            .iter()
            .all(|f| status[f] == json!(count))
    };
    whatever_fails(&["shop"], async |api: &FakeApi| {
        for name in ["n1", "n2"] {
            api.create("/api/v1/nodes", json!({"metadata": {"name": name}}));
        }
        let spec = json!({"selector": {"matchLabels": {"app": "web"}}, "template": template("one"),
                          "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}}});
        api.create("/apis/apps/v1/namespaces/shop/daemonsets", json!({"metadata": {"name": "log"}, "spec": spec}));
        api.until("a pod on each node", |api| says(api, 2) && on(api, "one") == ["n1", "n2"]).await;
        api.patch(LOG, json!({"spec": {"template": template("two")}}));
        api.until("a new pod on each node", |api| says(api, 2) && on(api, "two") == ["n1", "n2"]).await;
        api.create("/api/v1/nodes", json!({"metadata": {"name": "n3"}}));
        api.until("one on the new node too", |api| says(api, 3) && on(api, "two") == ["n1", "n2", "n3"]).await;
        api.delete(LOG, "Background");
        api.until("nothing is left", |api| api.all("pods").is_empty()).await;
    })
    .await;
}

/// Invariant 3: every reconcile can be cut at any line and run again.
#[tokio::test(start_paused = true)]
async fn a_range_stays_while_it_is_used_whichever_call_fails() {
    const MORE: &str = "/apis/networking.k8s.io/v1/servicecidrs/more";
    const HELD: &str = "/apis/networking.k8s.io/v1/ipaddresses/10.90.0.7";
    let ready = |api: &FakeApi, status: &str| {
        let ranges = api.all("servicecidrs");
        let conditions = ranges.first().map(|range| range["status"]["conditions"].clone()).unwrap_or_default();
        conditions
            .as_array()
            .is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] == json!(status)))
    };
    whatever_fails(&["shop"], async |api: &FakeApi| {
        let range = json!({"metadata": {"name": "more"}, "spec": {"cidrs": ["10.90.0.0/24"]}});
        api.create("/apis/networking.k8s.io/v1/servicecidrs", range);
        api.until("it is ready", |api| ready(api, "True")).await;
        let labels = json!({"ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"});
        let parent = json!({"resource": "services", "namespace": "shop", "name": "web"});
        let held = json!({"metadata": {"name": "10.90.0.7", "labels": labels}, "spec": {"parentRef": parent}});
        api.create("/apis/networking.k8s.io/v1/ipaddresses", held);
        api.delete(MORE, "Background");
        api.until("it says why it stays", |api| ready(api, "False")).await;
        api.delete(HELD, "Background");
        api.until("it is gone", |api| api.all("servicecidrs").is_empty()).await;
    })
    .await;
}
