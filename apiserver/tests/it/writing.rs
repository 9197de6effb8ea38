//! Creating, changing and deleting.

use serde_json::{Value, json};

use crate::harness::Cluster;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn map(name: &str) -> Value {
    json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name}, "data": {"a": "1"}})
}

fn pod(name: &str) -> Value {
    json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": name},
           "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

#[tokio::test]
async fn an_object_is_created_read_changed_and_deleted() {
    let c = Cluster::start().await;
    let created = c.post(MAPS, &map("x")).await;
    assert_eq!(created.code, 201, "{}", created.body);
    assert_eq!(created.body["metadata"]["namespace"], "default");
    assert!(created.body["metadata"]["uid"].as_str().is_some_and(|uid| uid.len() == 36));
    let read = c.get(&format!("{MAPS}/x")).await;
    assert_eq!((read.code, &read.body), (200, &created.body));

    let same = c.put(&format!("{MAPS}/x"), &map("x")).await;
    assert_eq!((same.code, same.version()), (200, created.version()), "nothing changed, so nothing is written");
    let changed = c.merge(&format!("{MAPS}/x"), &json!({"data": {"b": "2"}})).await;
    assert_eq!(changed.body["data"], json!({"a": "1", "b": "2"}));
    assert_ne!(changed.version(), created.version());
    let mut stale = map("x");
    stale["metadata"]["resourceVersion"] = created.version().into();
    let refused = c.put(&format!("{MAPS}/x"), &stale).await;
    assert_eq!((refused.code, refused.refusal().1), (409, "Conflict"));

    let deleted = c.delete(&format!("{MAPS}/x")).await;
    assert_eq!((deleted.code, &deleted.body["status"]), (200, &json!("Success")));
    assert_eq!(deleted.body["details"]["kind"], "configmaps");
    assert_eq!(c.get(&format!("{MAPS}/x")).await.refusal(), (404, "NotFound", "configmaps \"x\" not found"));
    c.stop().await;
}

#[tokio::test]
async fn names_are_generated() {
    let c = Cluster::start().await;
    let body = json!({"metadata": {"generateName": "g-"}});
    let (a, b) = (c.post(MAPS, &body).await, c.post(MAPS, &body).await);
    let name = |answer: &crate::harness::Answer| answer.body["metadata"]["name"].as_str().unwrap().to_owned();
    assert!(name(&a).starts_with("g-") && name(&a).len() == 7 && name(&a) != name(&b));
    c.stop().await;
}

#[tokio::test]
async fn a_dry_run_leaves_nothing_behind() {
    let c = Cluster::start().await;
    let before = c.get("/api/v1/pods").await;
    assert_eq!(c.post(&format!("{MAPS}?dryRun=All"), &map("x")).await.code, 201);
    assert_eq!(c.get(&format!("{MAPS}/x")).await.code, 404);
    c.post(MAPS, &map("y")).await;
    assert_eq!(c.merge(&format!("{MAPS}/y?dryRun=All"), &json!({"data": {"a": "2"}})).await.body["data"]["a"], "2");
    assert_eq!(c.delete(&format!("{MAPS}/y?dryRun=All")).await.code, 200);
    assert_eq!(c.get(&format!("{MAPS}/y")).await.body["data"]["a"], "1");
    assert_eq!(c.post(&format!("{MAPS}?dryRun=x"), &map("x")).await.code, 422);
    let after: u64 = c.get("/api/v1/pods").await.version().parse().unwrap();
    assert_eq!(after, before.version().parse::<u64>().unwrap() + 1, "only the creation of y was written");
    c.stop().await;
}

#[tokio::test]
async fn finalizers_hold_what_is_deleted() {
    let c = Cluster::start().await;
    let mut held = map("x");
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    c.post(MAPS, &held).await;
    let marked = c.delete(&format!("{MAPS}/x")).await;
    assert_eq!(marked.code, 200);
    assert!(marked.body["metadata"]["deletionTimestamp"].is_string(), "{}", marked.body);
    let done = c.merge(&format!("{MAPS}/x"), &json!({"metadata": {"finalizers": null}})).await;
    assert_eq!(done.code, 200);
    assert_eq!(c.get(&format!("{MAPS}/x")).await.code, 404);
    c.post(MAPS, &map("y")).await;
    let orphaned = c.delete(&format!("{MAPS}/y?propagationPolicy=Orphan")).await;
    assert_eq!(orphaned.body["metadata"]["finalizers"], json!(["orphan"]));
    c.stop().await;
}

#[tokio::test]
async fn preconditions_protect_from_deleting_another_object() {
    let c = Cluster::start().await;
    c.post(MAPS, &map("x")).await;
    let body = json!({"preconditions": {"uid": "other"}}).to_string();
    let refused = c.send("DELETE", &format!("{MAPS}/x"), "application/json", body).await;
    assert_eq!((refused.code, refused.refusal().1), (409, "Conflict"));
    assert!(refused.refusal().2.contains("Precondition failed: UID in precondition: other"), "{}", refused.body);
    c.stop().await;
}

#[tokio::test]
async fn a_namespace_comes_with_its_account_and_certificate_and_goes_when_finalized() {
    let c = Cluster::start().await;
    assert_eq!(c.post("/api/v1/namespaces", &json!({"metadata": {"name": "n"}})).await.code, 201);
    assert_eq!(c.get("/api/v1/namespaces/n/serviceaccounts/default").await.code, 200);
    assert_eq!(c.get("/api/v1/namespaces/n/configmaps/kube-root-ca.crt").await.code, 200);
    assert_eq!(c.delete("/api/v1/namespaces/n").await.body["status"]["phase"], "Terminating");
    let refused = c.post("/api/v1/namespaces/n/configmaps", &map("x")).await;
    assert_eq!((refused.code, refused.refusal().1), (403, "Forbidden"));
    assert_eq!(refused.body["details"]["causes"][0]["reason"], "NamespaceTerminating");
    let mut namespace = c.get("/api/v1/namespaces/n").await.body;
    namespace["spec"]["finalizers"] = json!([]);
    assert_eq!(c.put("/api/v1/namespaces/n/finalize", &namespace).await.code, 200);
    assert_eq!(c.get("/api/v1/namespaces/n").await.code, 404);
    c.stop().await;
}

#[tokio::test]
async fn a_pod_is_bound_once_and_deleted_in_grace() {
    let c = Cluster::start().await;
    let pods = "/api/v1/namespaces/default/pods";
    let created = c.post(pods, &pod("p")).await;
    assert_eq!(created.code, 201, "{}", created.body);
    assert_eq!(created.body["spec"]["serviceAccountName"], "default");
    let binding = json!({"kind": "Binding", "apiVersion": "v1", "metadata": {"name": "p"},
                         "target": {"kind": "Node", "name": "n1"}});
    assert_eq!(c.post(&format!("{pods}/p/binding"), &binding).await.code, 201);
    assert_eq!(c.post(&format!("{pods}/p/binding"), &binding).await.code, 409);
    let bound = c.get(&format!("{pods}/p")).await;
    assert_eq!(bound.body["spec"]["nodeName"], "n1");
    assert_eq!(bound.body["status"]["conditions"][0]["type"], "PodScheduled");
    let marked = c.delete(&format!("{pods}/p")).await;
    assert_eq!(marked.body["metadata"]["deletionGracePeriodSeconds"], 30);
    assert_eq!(c.delete(&format!("{pods}/p?gracePeriodSeconds=0")).await.code, 200);
    assert_eq!(c.get(&format!("{pods}/p")).await.code, 404);
    c.stop().await;
}

#[tokio::test]
async fn a_service_has_an_address_and_ports_of_its_own() {
    let c = Cluster::start().await;
    let services = "/api/v1/namespaces/default/services";
    let service = |name: &str| json!({"metadata": {"name": name}, "spec": {"type": "NodePort", "ports": [{"port": 80}], "selector": {"a": "b"}}});
    let first = c.post(services, &service("a")).await;
    let (address, port) = (first.body["spec"]["clusterIP"].clone(), first.body["spec"]["ports"][0]["nodePort"].clone());
    assert!(address.as_str().is_some_and(|a| a.starts_with("10.43.")), "{}", first.body);
    let mut second = service("b");
    second["spec"]["clusterIP"] = address.clone();
    let refused = c.post(services, &second).await;
    assert!(refused.refusal().2.contains("provided IP is already allocated"), "{}", refused.body);
    let mut second = service("b");
    second["spec"]["ports"][0]["nodePort"] = port;
    assert!(c.post(services, &second).await.refusal().2.contains("provided port is already allocated"));
    assert_eq!(c.delete(&format!("{services}/a")).await.code, 200);
    second["spec"]["clusterIP"] = address;
    assert_eq!(c.post(services, &second).await.code, 201, "what was deleted gave its numbers back");
    c.stop().await;
}

#[tokio::test]
async fn an_address_is_held_by_an_object_and_comes_out_of_ranges_that_are_ready() {
    const RANGES: &str = "/apis/networking.k8s.io/v1/servicecidrs";
    const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";
    let c = Cluster::start().await;
    let services = "/api/v1/namespaces/default/services";
    let own = c.get(&format!("{ADDRESSES}/10.43.0.1")).await;
    assert_eq!(own.body["spec"]["parentRef"]["name"], "kubernetes", "{}", own.body);
    let web = json!({"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}});
    let made = c.post(services, &web).await;
    let address = made.body["spec"]["clusterIP"].as_str().unwrap().to_owned();
    let held = c.get(&format!("{ADDRESSES}/{address}")).await;
    let parent = json!({"resource": "services", "namespace": "default", "name": "web"});
    assert_eq!(held.body["spec"]["parentRef"], parent, "{}", held.body);
    assert_eq!(held.body["metadata"]["labels"]["ipaddress.kubernetes.io/managed-by"], "ipallocator.k8s.io");
    assert_eq!(c.delete(&format!("{services}/web")).await.code, 200);
    assert_eq!(c.get(&format!("{ADDRESSES}/{address}")).await.code, 404, "it went with the Service");

    let mut other = web.clone();
    other["spec"]["clusterIP"] = json!("10.90.0.7");
    let refused = c.post(services, &other).await;
    assert!(refused.refusal().2.contains("is not in the valid range"), "{}", refused.body);
    let range = json!({"metadata": {"name": "more"}, "spec": {"cidrs": ["10.90.0.0/24"]}});
    assert_eq!(c.post(RANGES, &range).await.code, 201);
    assert_eq!(c.post(services, &other).await.code, 422, "nobody has said that it is ready");
    let ready = json!([{"type": "Ready", "status": "True", "reason": "", "message": "",
                        "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
    let told = c.merge(&format!("{RANGES}/more/status"), &json!({"status": {"conditions": ready}})).await;
    assert_eq!(told.code, 200, "{}", told.body);
    let made = c.post(services, &other).await;
    assert_eq!(made.code, 201, "{}", made.body);
    c.stop().await;
}

#[tokio::test]
async fn a_deployment_is_scaled_and_counts_generations() {
    let c = Cluster::start().await;
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let deployment = json!({"metadata": {"name": "d"}, "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let created = c.post(path, &deployment).await;
    assert_eq!((created.code, &created.body["metadata"]["generation"]), (201, &json!(1)), "{}", created.body);
    let scaled = c.merge(&format!("{path}/d/scale"), &json!({"spec": {"replicas": 3}})).await;
    assert_eq!((scaled.code, &scaled.body["spec"]["replicas"]), (200, &json!(3)), "{}", scaled.body);
    assert_eq!(c.get(&format!("{path}/d")).await.body["metadata"]["generation"], 2);
    c.merge(&format!("{path}/d"), &json!({"metadata": {"labels": {"x": "y"}}})).await;
    assert_eq!(c.get(&format!("{path}/d")).await.body["metadata"]["generation"], 2);
    c.stop().await;
}

#[tokio::test]
async fn events_hang_on_a_lease_and_nothing_else_does() {
    let c = Cluster::start().await;
    let about = json!({"kind": "Pod", "namespace": "default", "name": "p"});
    let event = json!({"metadata": {"name": "e"}, "involvedObject": about, "reason": "Tested", "type": "Normal"});
    for (path, object, leased) in [
        ("/api/v1/namespaces/default/events", event, true),
        ("/api/v1/namespaces/default/configmaps", json!({"metadata": {"name": "e"}}), false),
    ] {
        assert_eq!(c.post(path, &object).await.code, 201);
        let resource = path.rsplit('/').next().unwrap();
        let row = coracle_proto::resource::find("", "v1", resource).unwrap();
        let entry = c.server.registry().entry(row, "default", "e").unwrap();
        assert_eq!(entry.lease.is_some(), leased, "{resource}");
        // A later write hangs on one too.
        assert_eq!(c.merge(&format!("{path}/e"), &json!({"metadata": {"labels": {"a": "b"}}})).await.code, 200);
        let entry = c.server.registry().entry(row, "default", "e").unwrap();
        assert_eq!(entry.lease.is_some(), leased, "{resource}");
    }
    c.stop().await;
}

#[tokio::test]
async fn what_has_no_namespace_may_be_said_to_be_in_one() {
    let c = Cluster::start().await;
    let roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
    let role = json!({"metadata": {"name": "r", "namespace": "kube-system"}, "rules": []});
    let made = c.post(roles, &role).await;
    assert_eq!((made.code, made.body["metadata"].get("namespace")), (201, None), "{}", made.body);
    let replaced = c.put(&format!("{roles}/r"), &role).await;
    assert_eq!((replaced.code, replaced.body["metadata"].get("namespace")), (200, None), "{}", replaced.body);
    c.stop().await;
}

#[tokio::test]
async fn a_version_is_not_given_to_what_is_created() {
    let c = Cluster::start().await;
    let mut given = map("x");
    given["metadata"]["resourceVersion"] = "7".into();
    let words = "resourceVersion should not be set on objects to be created";
    assert_eq!(c.post(MAPS, &given).await.refusal(), (500, "InternalError", words));
    // What is invalid is told first, and what is not stored may have one.
    assert_eq!(c.post(&format!("{MAPS}?dryRun=All"), &given).await.code, 201);
    given["data"] = json!({"a/b": "1"});
    assert_eq!(c.post(MAPS, &given).await.code, 422);
    c.stop().await;
}

#[tokio::test]
async fn a_name_that_is_to_be_made_is_not_told_before_it_is() {
    let c = Cluster::start().await;
    let mut asked = pod("");
    asked["metadata"] = json!({"generateName": "p-"});
    asked["spec"]["priority"] = 10.into();
    let answer = c.post("/api/v1/namespaces/default/pods", &asked).await;
    let (code, _, message) = answer.refusal();
    assert!(code == 403 && message.starts_with("pods \"p-\" is forbidden: "), "{message}");
    c.stop().await;
}

#[tokio::test]
async fn a_text_that_is_no_amount_cannot_be_read_and_nothing_is_zero() {
    let c = Cluster::start().await;
    let quotas = "/api/v1/namespaces/default/resourcequotas";
    let of = |spec: Value| json!({"metadata": {"name": "q"}, "spec": spec});
    let pod = |more: Value| {
        let mut spec = json!({"containers": [{"name": "c", "image": "i"}]});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        of(spec)
    };
    let container = |more: Value| {
        let mut container = json!({"name": "c", "image": "i"});
        container.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        pod(json!({"containers": [container]}))
    };
    let limits = |field: &str| of(json!({"limits": [{"type": "Container", field: {"cpu": "many"}}]}));
    let volume = |claim: Value| {
        of(json!({"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/x"}})
            .as_object()
            .unwrap()
            .clone()
            .into_iter()
            .chain(claim.as_object().unwrap().clone())
            .collect())
    };
    let (core, space) = ("/api/v1", "/api/v1/namespaces/default");
    for (path, kind, version, object) in [
        (space, "ResourceQuota", "v1", of(json!({"hard": {"pods": "many"}}))),
        (space, "LimitRange", "v1", limits("min")),
        (space, "LimitRange", "v1", limits("max")),
        (space, "LimitRange", "v1", limits("default")),
        (space, "LimitRange", "v1", limits("defaultRequest")),
        (space, "LimitRange", "v1", limits("maxLimitRequestRatio")),
        (
            space,
            "PersistentVolumeClaim",
            "v1",
            of(json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "many"}}})),
        ),
        (
            space,
            "PersistentVolumeClaim",
            "v1",
            of(
                json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1"}, "limits": {"storage": "many"}}}),
            ),
        ),
        (core, "PersistentVolume", "v1", volume(json!({"capacity": {"storage": "many"}}))),
        (core, "Node", "v1", json!({"metadata": {"name": "q"}, "status": {"capacity": {"cpu": "many"}}})),
        (core, "Node", "v1", json!({"metadata": {"name": "q"}, "status": {"allocatable": {"cpu": "many"}}})),
        (space, "Pod", "v1", pod(json!({"overhead": {"cpu": "many"}}))),
        (space, "Pod", "v1", pod(json!({"resources": {"limits": {"cpu": "many"}}}))),
        (space, "Pod", "v1", pod(json!({"volumes": [{"name": "v", "emptyDir": {"sizeLimit": "many"}}]}))),
        (space, "Pod", "v1", container(json!({"resources": {"requests": {"cpu": "many"}}}))),
        (
            space,
            "Pod",
            "v1",
            container(json!({"env": [{"name": "A", "valueFrom": {
            "resourceFieldRef": {"resource": "limits.cpu", "divisor": "many"}}}]})),
        ),
        (
            "/apis/node.k8s.io/v1",
            "RuntimeClass",
            "v1",
            json!({"metadata": {"name": "q"}, "handler": "h", "overhead": {"podFixed": {"cpu": "many"}}}),
        ),
        (
            "/apis/storage.k8s.io/v1/namespaces/default",
            "CSIStorageCapacity",
            "v1",
            json!({"metadata": {"name": "q"}, "storageClassName": "s", "capacity": "many"}),
        ),
        (
            "/apis/storage.k8s.io/v1/namespaces/default",
            "CSIStorageCapacity",
            "v1",
            json!({"metadata": {"name": "q"}, "storageClassName": "s", "maximumVolumeSize": "many"}),
        ),
        (
            "/apis/autoscaling/v2/namespaces/default",
            "HorizontalPodAutoscaler",
            "v2",
            of(
                json!({"maxReplicas": 2, "scaleTargetRef": {"kind": "Deployment", "name": "d"}, "metrics": [{"type": "External",
             "external": {"metric": {"name": "m"}, "target": {"type": "Value", "value": "many"}}}]}),
            ),
        ),
    ] {
        let plural = match kind {
            "RuntimeClass" => "runtimeclasses".to_owned(),
            "CSIStorageCapacity" => "csistoragecapacities".to_owned(),
            kind => format!("{}s", kind.to_lowercase()),
        };
        let answer = c.post(&format!("{path}/{plural}"), &object).await;
        let words = format!(
            "{kind} in version \"{version}\" cannot be handled as a {kind}: quantities must match the regular expression \
             '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
        );
        assert_eq!(answer.refusal(), (400, "BadRequest", words.as_str()), "{object}");
    }
    let made = c.post(quotas, &json!({"metadata": {"name": "q"}, "spec": {"hard": {"limits.cpu": null}}})).await;
    assert_eq!((made.code, &made.body["spec"]["hard"]), (201, &json!({"limits.cpu": "0"})), "{}", made.body);
    // What is sent to a part has to be readable as a whole.
    let mut sent = made.body.clone();
    sent["spec"]["hard"] = json!({"limits.cpu": "many"});
    let answer = c.put(&format!("{quotas}/q/status"), &sent).await;
    let words = "ResourceQuota in version \"v1\" cannot be handled as a ResourceQuota: quantities must match the regular \
                 expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
    assert_eq!(answer.refusal(), (400, "BadRequest", words));
    c.stop().await;
}

#[tokio::test]
async fn times_are_those_that_go_reads() {
    let c = Cluster::start().await;
    let day = "2026-01-01 00:00:00Z";
    let words = |kind: &str| {
        format!(
            "{kind} in version \"v1\" cannot be handled as a {kind}: parsing time \"{day}\" as \
             \"2006-01-02T15:04:05Z07:00\": cannot parse \" 00:00:00Z\" as \"T\""
        )
    };
    let mut sent = map("t");
    sent["metadata"]["creationTimestamp"] = json!(day);
    let told = c.post(MAPS, &sent).await;
    assert_eq!(told.refusal(), (400, "BadRequest", words("ConfigMap").as_str()));
    let mut sent = pod("t");
    assert_eq!(c.post("/api/v1/namespaces/default/pods", &sent).await.code, 201);
    sent["status"] = json!({"startTime": day});
    let told = c.put("/api/v1/namespaces/default/pods/t/status", &sent).await;
    assert_eq!(told.refusal(), (400, "BadRequest", words("Pod").as_str()));
    let leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
    let lease = |time: &str| json!({"metadata": {"name": "l"}, "spec": {"renewTime": time}});
    let told = c.post(leases, &lease("2026-01-01T00:00:00Z")).await;
    let words = "Lease in version \"v1\" cannot be handled as a Lease: parsing time \"2026-01-01T00:00:00Z\" as \
                 \"2006-01-02T15:04:05.000000Z07:00\": cannot parse \"Z\" as \".000000\"";
    assert_eq!(told.refusal(), (400, "BadRequest", words));
    assert_eq!(c.post(leases, &lease("2026-01-01T00:00:00.000001+01:00")).await.code, 201);
    c.stop().await;
}

#[tokio::test]
async fn ports_of_one_number_share_a_port_of_the_nodes_and_balancers_get_one_to_ask() {
    let c = Cluster::start().await;
    let services = "/api/v1/namespaces/default/services";
    let service = json!({"metadata": {"name": "s"}, "spec": {
        "type": "LoadBalancer", "externalTrafficPolicy": "Local",
        "ports": [{"name": "t", "port": 53, "nodePort": 30053}, {"name": "u", "port": 53, "protocol": "UDP"},
                  {"name": "w", "port": 80}],
    }});
    let made = c.post(services, &service).await;
    assert_eq!(made.code, 201, "{}", made.body);
    let number = |pointer: &str| made.body.pointer(pointer).and_then(Value::as_u64).unwrap_or_default();
    let [tcp, udp, web] = [0, 1, 2].map(|i| number(&format!("/spec/ports/{i}/nodePort")));
    let health = number("/spec/healthCheckNodePort");
    assert_eq!((tcp, udp), (30053, 30053));
    assert!((30000..32768).contains(&health) && ![tcp, web].contains(&health), "{}", made.body);
    let kept = c.merge(&format!("{services}/s"), &json!({"metadata": {"labels": {"a": "b"}}})).await;
    assert_eq!(kept.body["spec"], made.body["spec"]);
    let other =
        json!({"metadata": {"name": "o"}, "spec": {"type": "NodePort", "ports": [{"port": 1, "nodePort": health}]}});
    assert_eq!(c.post(services, &other).await.code, 422, "it is taken");
    let plain = c.merge(&format!("{services}/s"), &json!({"spec": {"externalTrafficPolicy": "Cluster"}})).await;
    assert_eq!((plain.code, plain.body["spec"].get("healthCheckNodePort")), (200, None), "{}", plain.body);
    assert_eq!(c.post(services, &other).await.code, 201, "it is free again");
    c.stop().await;
}

#[tokio::test]
async fn profiles_of_annotations_become_fields() {
    let c = Cluster::start().await;
    let mut asked = pod("p");
    asked["metadata"]["annotations"] = json!({"container.apparmor.security.beta.kubernetes.io/c": "localhost/mine"});
    let made = c.post("/api/v1/namespaces/default/pods", &asked).await;
    let profile = &made.body["spec"]["containers"][0]["securityContext"]["appArmorProfile"];
    assert_eq!(profile, &json!({"type": "Localhost", "localhostProfile": "mine"}), "{}", made.body);
    c.stop().await;
}

#[tokio::test]
async fn reviews_are_read_as_strictly_as_asked() {
    let c = Cluster::start().await;
    let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
    let review = json!({"spec": {"token": "x", "extra": 1}});
    assert_eq!(c.post(reviews, &review).await.code, 201);
    let words = "TokenReview in version \"v1\" cannot be handled as a TokenReview: strict decoding error: unknown field \
                 \"spec.extra\"";
    let strict = c.post(&format!("{reviews}?fieldValidation=Strict"), &review).await;
    assert_eq!(strict.refusal(), (400, "BadRequest", words));
    c.stop().await;
}
