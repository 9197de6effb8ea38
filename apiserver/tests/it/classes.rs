//! Classes of pods, claims and ingresses: what a class gives to what names it, and to what names none.

use serde_json::{Value, json};

use crate::harness::Cluster;

fn pod(name: &str, change: &Value) -> Value {
    let mut pod = json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    pod["spec"].as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    pod
}

#[tokio::test]
async fn a_pods_class_gives_it_its_priority() {
    let c = Cluster::start().await;
    let classes = "/apis/scheduling.k8s.io/v1/priorityclasses";
    let class = |name: &str, value: i32, default: bool| json!({"metadata": {"name": name}, "value": value, "globalDefault": default});
    assert_eq!(c.post(classes, &class("high", 1000, false)).await.code, 201);
    let pods = "/api/v1/namespaces/default/pods";
    let of_class = |name: &str, class: &str| pod(name, &json!({"priorityClassName": class}));
    let high = c.post(pods, &of_class("h", "high")).await;
    assert_eq!((high.code, &high.body["spec"]["priority"]), (201, &json!(1000)));
    let critical = c.post(pods, &of_class("c", "system-node-critical")).await;
    assert_eq!(critical.body["spec"]["priority"], 2_000_001_000);
    let unknown = c.post(pods, &of_class("u", "none")).await;
    let why = "pods \"u\" is forbidden: no PriorityClass with name none was found";
    assert_eq!(unknown.refusal(), (403, "Forbidden", why));
    let plain = c.post(pods, &pod("p", &json!({}))).await;
    assert_eq!((&plain.body["spec"]["priority"], &plain.body["spec"]["priorityClassName"]), (&json!(0), &Value::Null));
    assert_eq!(c.post(classes, &class("usual", 7, true)).await.code, 201);
    let plain = c.post(pods, &pod("q", &json!({}))).await;
    assert_eq!(
        (&plain.body["spec"]["priority"], &plain.body["spec"]["priorityClassName"]),
        (&json!(7), &json!("usual"))
    );
    let second = c.post(classes, &class("second", 8, true)).await;
    let why = "priorityclasses.scheduling.k8s.io \"second\" is forbidden: PriorityClass usual is already marked as default. Only one default can exist";
    assert_eq!(second.refusal(), (403, "Forbidden", why));
    c.stop().await;
}

#[tokio::test]
async fn a_runtime_class_brings_overhead_and_where_to_run() {
    let c = Cluster::start().await;
    let class = json!({
        "metadata": {"name": "boxed"}, "handler": "box", "overhead": {"podFixed": {"memory": "64Mi"}},
        "scheduling": {"nodeSelector": {"box": "yes"}, "tolerations": [{"key": "box", "operator": "Exists"}]},
    });
    assert_eq!(c.post("/apis/node.k8s.io/v1/runtimeclasses", &class).await.code, 201);
    let pods = "/api/v1/namespaces/default/pods";
    let boxed = |name: &str, change: &Value| {
        let mut pod = pod(name, change);
        pod["spec"]["runtimeClassName"] = "boxed".into();
        pod
    };
    let created = c.post(pods, &boxed("p", &json!({}))).await;
    assert_eq!(created.code, 201, "{}", created.body);
    let spec = &created.body["spec"];
    assert_eq!((&spec["overhead"], &spec["nodeSelector"]), (&json!({"memory": "64Mi"}), &json!({"box": "yes"})));
    assert!(spec["tolerations"].as_array().unwrap().iter().any(|t| t["key"] == "box"));
    let otherwise = c.post(pods, &boxed("o", &json!({"overhead": {"memory": "67108864"}}))).await;
    assert_eq!((otherwise.code, &otherwise.body["spec"]["overhead"]), (201, &json!({"memory": "64Mi"})));
    let more = c.post(pods, &boxed("m", &json!({"overhead": {"memory": "65Mi"}}))).await;
    let why = "pods \"m\" is forbidden: pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";
    assert_eq!(more.refusal(), (403, "Forbidden", why));
    let elsewhere = c.post(pods, &boxed("q", &json!({"nodeSelector": {"box": "no"}}))).await;
    assert_eq!(elsewhere.code, 403, "{}", elsewhere.body);
    let unknown = c.post(pods, &pod("r", &json!({"runtimeClassName": "none"}))).await;
    let why = "pods \"r\" is forbidden: pod rejected: RuntimeClass \"none\" not found";
    assert_eq!(unknown.refusal(), (403, "Forbidden", why));
    let own = c.post(pods, &pod("s", &json!({"overhead": {"memory": "1Mi"}}))).await;
    let why =
        "pods \"s\" is forbidden: pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";
    assert_eq!(own.refusal(), (403, "Forbidden", why));
    c.stop().await;
}

#[tokio::test]
async fn claims_and_ingresses_get_the_default_class() {
    let c = Cluster::start().await;
    let storage = json!({"metadata": {"name": "disk", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}, "provisioner": "example.com/disk"});
    assert_eq!(c.post("/apis/storage.k8s.io/v1/storageclasses", &storage).await.code, 201);
    let ingress = json!({"metadata": {"name": "door", "annotations": {"ingressclass.kubernetes.io/is-default-class": "true"}}, "spec": {"controller": "example.com/door"}});
    assert_eq!(c.post("/apis/networking.k8s.io/v1/ingressclasses", &ingress).await.code, 201);
    let claim = json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    let claims = "/api/v1/namespaces/default/persistentvolumeclaims";
    let created = c.post(claims, &claim).await;
    assert_eq!((created.code, &created.body["spec"]["storageClassName"]), (201, &json!("disk")), "{}", created.body);
    let bound = c.merge(&format!("{claims}/c/status"), &json!({"status": {"phase": "Bound"}})).await;
    assert_eq!(bound.code, 200, "{}", bound.body);
    let larger = json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}});
    let grown = c.merge(&format!("{claims}/c"), &larger).await;
    let why = "persistentvolumeclaims \"c\" is forbidden: only dynamically provisioned pvc can be resized and the \
               storageclass that provisions the pvc must support resize";
    assert_eq!(grown.refusal(), (403, "Forbidden", why));
    let growing = c.merge("/apis/storage.k8s.io/v1/storageclasses/disk", &json!({"allowVolumeExpansion": true})).await;
    assert_eq!(growing.code, 200, "{}", growing.body);
    assert_eq!(c.merge(&format!("{claims}/c"), &larger).await.code, 200);
    let door = json!({"metadata": {"name": "i"}, "spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}}});
    let created = c.post("/apis/networking.k8s.io/v1/namespaces/default/ingresses", &door).await;
    assert_eq!((created.code, &created.body["spec"]["ingressClassName"]), (201, &json!("door")), "{}", created.body);
    c.stop().await;
}

#[tokio::test]
async fn what_holds_data_is_made_with_a_finalizer() {
    let c = Cluster::start().await;
    let claim = json!({"metadata": {"name": "c", "finalizers": ["example.com/mine"]},
                       "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    let claims = "/api/v1/namespaces/default/persistentvolumeclaims";
    let made = c.post(claims, &claim).await;
    assert_eq!(made.body["metadata"]["finalizers"], json!(["example.com/mine", "kubernetes.io/pvc-protection"]));
    let volume = json!({"metadata": {"name": "v"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/tmp"}}});
    let made = c.post("/api/v1/persistentvolumes", &volume).await;
    assert_eq!(made.body["metadata"]["finalizers"], json!(["kubernetes.io/pv-protection"]), "{}", made.body);
    let deleted = c.delete("/api/v1/persistentvolumes/v").await;
    assert!(deleted.body["metadata"]["deletionTimestamp"].is_string(), "{}", deleted.body);
    let class = json!({"metadata": {"name": "a"}, "driverName": "example.com/disk", "parameters": {"iops": "1"}});
    let made = c.post("/apis/storage.k8s.io/v1/volumeattributesclasses", &class).await;
    assert_eq!(made.body["metadata"]["finalizers"], json!(["kubernetes.io/vac-protection"]), "{}", made.body);
    c.stop().await;
}

#[tokio::test]
async fn a_pod_says_in_which_zone_its_node_is() {
    let c = Cluster::start().await;
    let labels = json!({"topology.kubernetes.io/zone": "z", "topology.kubernetes.io/region": "r", "other": "o"});
    assert_eq!(c.post("/api/v1/nodes", &json!({"metadata": {"name": "n", "labels": labels}})).await.code, 201);
    let pods = "/api/v1/namespaces/default/pods";
    let there = c.post(pods, &pod("there", &json!({"nodeName": "n"}))).await;
    let place = json!({"topology.kubernetes.io/zone": "z", "topology.kubernetes.io/region": "r"});
    assert_eq!((there.code, &there.body["metadata"]["labels"]), (201, &place));
    assert_eq!(c.post(pods, &pod("bound", &json!({}))).await.code, 201);
    let binding = json!({"metadata": {"name": "bound"}, "target": {"kind": "Node", "name": "n"}});
    assert_eq!(c.post(&format!("{pods}/bound/binding"), &binding).await.code, 201);
    assert_eq!(c.get(&format!("{pods}/bound")).await.body["metadata"]["labels"], place);
    c.stop().await;
}
