//! `metrics.k8s.io`: what nodes and pods use, as nodes tell.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::body::{Body, Bytes};
use coracle_apiserver::{pki::Profile, user::User};
use coracle_proto::protobuf;
use http::{Request, Response, header};
use http_body_util::BodyExt as _;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};
use tower::ServiceExt as _;

use crate::{
    aggregation::{API_SERVICES, aggregated_group, availability, extension},
    harness::{Cluster, acceptor},
    watching::Following,
};

const METRICS: &str = "/apis/metrics.k8s.io/v1beta1";
const NAME: &str = "v1beta1.metrics.k8s.io";
const PODS: &str = "/api/v1/namespaces/default/pods";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

/// What a node's server answers.
#[derive(Clone)]
enum Manner {
    /// A summary with these pods: namespace, name, uid and containers. Each container uses half a core, the node one and a
    /// half.
    Tells(Vec<(String, String, String, Vec<&'static str>)>),
    /// Nothing, ever.
    Hangs,
    /// A summary that does not end.
    Floods,
    /// This.
    Says(&'static str),
}

/// A node's server.
struct Kubelet {
    address: SocketAddr,
    asked: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

/// A summary as of now. Time goes by this process's clock that nobody sets, from a fixed day on.
fn summary(began: Instant, pods: &[(String, String, String, Vec<&'static str>)]) -> String {
    let day = jiff::Timestamp::from_second(1_767_225_600).unwrap();
    let passed = began.elapsed();
    let nanos = u64::try_from(passed.as_nanos()).unwrap();
    let cpu = |nanos: u64| json!({"time": (day + passed).to_string(), "usageCoreNanoSeconds": nanos});
    let memory = json!({"time": (day + passed).to_string(), "workingSetBytes": 12_288});
    let container = |name: &&str| json!({"name": name, "startTime": "2025-12-31T00:00:00Z", "cpu": cpu(nanos / 2), "memory": memory});
    let pod = |(namespace, name, uid, containers): &(String, String, String, Vec<&str>)| {
        let containers: Vec<Value> = containers.iter().map(container).collect();
        json!({"podRef": {"namespace": namespace, "name": name, "uid": uid}, "containers": containers})
    };
    let pods: Vec<Value> = pods.iter().map(pod).collect();
    json!({"node": {"nodeName": "n", "cpu": cpu(nanos / 2 * 3), "memory": memory}, "pods": pods}).to_string()
}

impl Manner {
    async fn answer(self, began: Instant, request: Request<Incoming>) -> Response<Body> {
        assert_eq!(request.uri().path(), "/stats/summary");
        Response::new(match self {
            Self::Tells(pods) => summary(began, &pods).into(),
            Self::Hangs => std::future::pending().await,
            Self::Floods => Body::from_stream(futures::stream::repeat_with(|| {
                Ok::<_, Infallible>(Bytes::from_static(&[b' '; 64 * 1024]))
            })),
            Self::Says(text) => text.into(),
        })
    }
}

impl Kubelet {
    /// The server of a node that the cluster comes to know.
    async fn start(c: &Cluster, node: &str, manner: Manner) -> Self {
        let identity = c.server.pki().issue(&Profile::node_server(node, &[]), jiff::Timestamp::now()).unwrap();
        let acceptor = acceptor(identity.chain().to_vec(), identity.key().clone_key());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(AtomicU64::new(0));
        let (counted, began) = (Arc::clone(&asked), Instant::now());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let (acceptor, manner, counted) = (acceptor.clone(), manner.clone(), Arc::clone(&counted));
                connections.spawn(async move {
                    let Ok(stream) = acceptor.accept(socket).await else { return };
                    let service = service_fn(move |request| {
                        counted.fetch_add(1, Ordering::SeqCst);
                        let manner = manner.clone();
                        async move { Ok::<_, Infallible>(manner.answer(began, request).await) }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        let kubelet = Self { address, asked, _tasks: tasks };
        kubelet.register(c, node).await;
        kubelet
    }

    async fn register(&self, c: &Cluster, node: &str) {
        let object = json!({"metadata": {"name": node, "labels": {"disk": "fast"}}});
        assert_eq!(c.post("/api/v1/nodes", &object).await.code, 201);
        let status = json!({"status": {
            "addresses": [{"type": "InternalIP", "address": self.address.ip().to_string()}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self.address.port()}},
        }});
        assert_eq!(c.merge(&format!("/api/v1/nodes/{node}/status"), &status).await.code, 200);
    }

    fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }
}

/// A pod on a node, with the containers `app` and `beside`; its uid.
async fn pod(c: &Cluster, node: &str, name: &str) -> String {
    let container = |name: &str| json!({"name": name, "image": "i"});
    let mut beside = container("beside");
    beside["restartPolicy"] = "Always".into();
    let made = c
        .post(PODS, &json!({
            "metadata": {"name": name, "labels": {"app": name}},
            "spec": {"nodeName": node, "containers": [container("app")], "initContainers": [container("first"), beside]},
        }))
        .await;
    assert_eq!(made.code, 201, "{}", made.body);
    made.body["metadata"]["uid"].as_str().unwrap().to_owned()
}

fn line(name: &str, uid: &str, containers: &[&'static str]) -> (String, String, String, Vec<&'static str>) {
    ("default".to_owned(), name.to_owned(), uid.to_owned(), containers.to_vec())
}

/// A cluster of a node with two pods, and of one that tells of its own pod and of others'.
async fn cluster() -> (Cluster, [Kubelet; 2]) {
    let c = Cluster::start().await;
    let (a, b, of_other) = (pod(&c, "n1", "a").await, pod(&c, "n1", "b").await, pod(&c, "n2", "c").await);
    let own = vec![line("a", &a, &["app", "beside", "first"]), line("b", &b, &["beside"])];
    let all =
        vec![line("a", &a, &["beside", "app"]), line("c", "of-another-time", &["app"]), line("d", &of_other, &["app"])];
    let kubelets =
        [Kubelet::start(&c, "n1", Manner::Tells(own)).await, Kubelet::start(&c, "n2", Manner::Tells(all)).await];
    (c, kubelets)
}

fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().unwrap();
    items.iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
}

/// Thousandths of a core, of an amount such as `499876543n` or `500m`.
fn millicores(usage: &Value) -> i64 {
    usage["cpu"].as_str().unwrap().parse::<coracle_proto::quantity::Quantity>().unwrap().milli_value()
}

/// Time passes between the clock of the test's node and the answer to who asks, so figures are about right.
fn is_about(usage: &Value, expected: i64) -> bool {
    (expected - 20..=expected + 20).contains(&millicores(usage)) && usage["memory"] == "12Ki"
}

async fn accepting(c: &Cluster, path: &str, accept: &str) -> (u16, Bytes) {
    let request = Request::get(path).header(header::ACCEPT, accept).body(Body::empty()).unwrap();
    let response = c.service().oneshot(request).await.unwrap();
    (response.status().as_u16(), response.into_body().collect().await.unwrap().to_bytes())
}

#[tokio::test]
async fn what_nodes_tell_is_served() {
    let (c, kubelets) = cluster().await;
    assert_eq!(kubelets.each_ref().map(Kubelet::asked), [0, 0], "nobody is asked before somebody wants to know");
    let nodes = c.get(&format!("{METRICS}/nodes")).await;
    assert_eq!((nodes.code, names(&nodes.body)), (200, vec!["n1", "n2"]), "{}", nodes.body);
    assert_eq!((&nodes.body["kind"], &nodes.body["metadata"]), (&json!("NodeMetricsList"), &json!({})));
    let node = &nodes.body["items"][0];
    assert!(is_about(&node["usage"], 1500), "{node}");
    assert_eq!((&node["kind"], &node["metadata"]["labels"]), (&json!("NodeMetrics"), &json!({"disk": "fast"})));
    let window = coracle_proto::go_duration::parse(node["window"].as_str().unwrap()).unwrap();
    assert!(window >= jiff::SignedDuration::from_secs(1) && window < jiff::SignedDuration::from_secs(30), "{window}");
    let timestamp: jiff::Timestamp = node["timestamp"].as_str().unwrap().parse().unwrap();
    assert!(timestamp.to_string().starts_with("2026-01-01T00:0"), "by the node's clock: {timestamp}");
    assert_eq!(c.get(&format!("{METRICS}/nodes/n2")).await.body["metadata"]["name"], "n2");

    let pods = c.get(&format!("{METRICS}/pods")).await;
    assert_eq!((pods.code, names(&pods.body)), (200, vec!["a", "b"]), "a node says something of its own pods only");
    let a = &pods.body["items"][0];
    assert_eq!(a["containers"].as_array().unwrap().len(), 2, "no init containers: {a}");
    for (container, name) in a["containers"].as_array().unwrap().iter().zip(["app", "beside"]) {
        assert!(container["name"] == name && is_about(&container["usage"], 500), "{container}");
    }
    let own = format!("{METRICS}/namespaces/default/pods");
    for (query, expected) in [
        ("", vec!["a", "b"]),
        ("?labelSelector=app%3Db", vec!["b"]),
        ("?labelSelector=app%20in%20(b,c)", vec!["b"]),
        ("?labelSelector=none", vec![]),
        ("?fieldSelector=metadata.name%3Da", vec!["a"]),
        ("?fieldSelector=metadata.namespace!%3Ddefault", vec![]),
        ("?limit=1", vec!["a", "b"]),
    ] {
        let listed = c.get(&format!("{own}{query}")).await;
        assert_eq!((listed.code, names(&listed.body)), (200, expected), "{query}");
    }
    assert_eq!(names(&c.get(&format!("{METRICS}/namespaces/other/pods")).await.body), Vec::<&str>::new());
    assert_eq!(names(&c.get(&format!("{METRICS}/nodes?labelSelector=disk!%3Dfast")).await.body), Vec::<&str>::new());
    assert_eq!(c.get(&format!("{own}/b")).await.body["containers"][0]["name"], "beside");
    // Two looks, and one more a second at most.
    assert!(kubelets.iter().all(|kubelet| kubelet.asked() < 10), "{:?}", kubelets.each_ref().map(Kubelet::asked));
    c.stop().await;
}

#[tokio::test]
async fn figures_come_in_the_forms_that_clients_like() {
    let (c, _kubelets) = cluster().await;
    let own = format!("{METRICS}/namespaces/default/pods");
    let (code, body) = accepting(&c, &own, TABLE).await;
    let table: Value = serde_json::from_slice(&body).unwrap();
    let columns = table["columnDefinitions"].as_array().unwrap().iter();
    let columns: Vec<_> =
        columns.map(|column| (column["name"].as_str().unwrap(), column["format"].as_str().unwrap())).collect();
    assert_eq!(
        (code, columns),
        (200, vec![("Name", "name"), ("cpu", "quantity"), ("memory", "quantity"), ("Window", "duration")])
    );
    let cells = &table["rows"][0]["cells"];
    assert_eq!((&cells[0], &cells[2]), (&json!("a"), &json!("24Ki")), "sums of its containers: {cells}");
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");

    let (code, body) = accepting(&c, &own, "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io").await;
    let list: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((code, names(&list), &list["items"][0]["containers"]), (200, vec!["a", "b"], &Value::Null));

    // As kubectl likes it.
    let (code, body) = accepting(&c, &format!("{METRICS}/nodes/n1"), "application/vnd.kubernetes.protobuf, */*").await;
    let node = protobuf::to_json(&body).unwrap();
    assert_eq!((code, &node["kind"], &node["metadata"]["name"]), (200, &json!("NodeMetrics"), &json!("n1")));
    assert!(is_about(&node["usage"], 1500) && node["window"].as_str().unwrap().ends_with('s'), "{node}");
    let (code, body) = accepting(&c, &own, "application/yaml").await;
    assert!(code == 200 && body.starts_with(b"apiVersion: metrics.k8s.io/v1beta1\n"), "{body:?}");
    c.stop().await;
}

#[tokio::test]
async fn what_is_not_there_and_cannot_be_done_is_refused_in_metrics_servers_words() {
    let (c, _kubelets) = cluster().await;
    let own = format!("{METRICS}/namespaces/default/pods");
    pod(&c, "", "unplaced").await;
    assert_eq!(c.post("/api/v1/nodes", &json!({"metadata": {"name": "mute"}})).await.code, 201);
    for (path, message) in [
        (format!("{own}/x"), "pods \"x\" not found"),
        (format!("{own}/c"), "podmetrics.metrics.k8s.io \"default/c\" not found"),
        (format!("{own}/unplaced"), "podmetrics.metrics.k8s.io \"default/unplaced\" not found"),
        (format!("{METRICS}/nodes/x"), "node \"x\" not found"),
        (format!("{METRICS}/nodes/mute"), "nodemetrics.metrics.k8s.io \"mute\" not found"),
    ] {
        assert_eq!(c.get(&path).await.refusal(), (404, "NotFound", message), "{path}");
    }
    for path in ["/pods/a", "/namespaces/default/nodes", "/namespaces/default/nodes/n1", "/services", "/pods/a/log"] {
        assert_eq!(c.get(&format!("{METRICS}{path}")).await.code, 404, "{path}");
    }
    assert_eq!(c.get("/apis/metrics.k8s.io/v1/nodes").await.code, 404);
    for query in ["labelSelector=%2C%2C", "fieldSelector=spec.nodeName%3Dn1", "limit=x"] {
        assert_eq!(c.get(&format!("{own}?{query}")).await.code, 400, "{query}");
    }
    let watch = c.get(&format!("{own}?watch=1")).await;
    let message = "watch is not supported on resources of kind \"pods.metrics.k8s.io\"";
    assert_eq!(watch.refusal(), (405, "MethodNotAllowed", message));
    let object = json!({"metadata": {"name": "a"}});
    for (method, path) in [
        ("POST", own.clone()),
        ("DELETE", own.clone()),
        ("PUT", format!("{own}/a")),
        ("PATCH", format!("{own}/a")),
        ("DELETE", format!("{own}/a")),
        ("POST", format!("{METRICS}/nodes")),
        ("DELETE", format!("{METRICS}/nodes/n1")),
    ] {
        let refused = c.send(method, &path, "application/json", object.to_string()).await;
        assert_eq!((refused.code, refused.refusal().1), (405, "MethodNotAllowed"), "{method} {path}");
    }
    // Rights are those of any resource; who may view a namespace may know what its pods use.
    let viewer = json!({"metadata": {"name": "v"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "viewer"}]});
    let bindings = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";
    assert_eq!(c.post(bindings, &viewer).await.code, 201);
    let get = async |user: &str, path: &str| {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = c.server.service(User::new(user, &[])).oneshot(request).await.unwrap();
        let code = response.status().as_u16();
        (code, response.into_body().collect().await.unwrap().to_bytes())
    };
    let roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:aggregated-metrics-reader";
    let role = c.get(roles).await.body;
    assert_eq!(role["rules"][0]["verbs"], json!(["get", "list", "watch"]), "{role}");
    // What is gathered is gathered by and by.
    let mut following = Following::begin(
        &c,
        "/apis/rbac.authorization.k8s.io/v1/clusterroles?watch=1&fieldSelector=metadata.name%3Dview",
    )
    .await;
    while !following.next().await.unwrap()["object"]["rules"].to_string().contains("metrics.k8s.io") {}
    while get("viewer", &own).await.0 == 403 {
        tokio::task::yield_now().await;
    }
    assert_eq!(get("viewer", &own).await.0, 200);
    let (code, body) = get("viewer", &format!("{METRICS}/nodes")).await;
    let refused: Value = serde_json::from_slice(&body).unwrap();
    let message = "nodes.metrics.k8s.io is forbidden: User \"viewer\" cannot list resource \"nodes\" in API group \"metrics.k8s.io\" at the cluster scope";
    assert_eq!((code, refused["message"].as_str().unwrap()), (403, message));
    c.stop().await;
}

#[tokio::test]
async fn nodes_that_mean_ill_delay_nobody_for_long_and_are_left_out() {
    let c = Cluster::start().await;
    let uid = pod(&c, "well", "p").await;
    let well = Kubelet::start(&c, "well", Manner::Tells(vec![line("p", &uid, &["app"])])).await;
    let mut others = Vec::new();
    for (name, manner) in [
        ("hangs", Manner::Hangs),
        ("floods", Manner::Floods),
        ("babbles", Manner::Says("<html>")),
        (
            "lies",
            Manner::Says(
                r#"{"node":{"cpu":{"time":"2026-01-01T00:00:00Z","usageCoreNanoSeconds":-7},"memory":{"workingSetBytes":1}}}"#,
            ),
        ),
        (
            "stands",
            Manner::Says(
                r#"{"node":{"cpu":{"time":"2026-01-01T00:00:00Z","usageCoreNanoSeconds":7},"memory":{"workingSetBytes":1}}}"#,
            ),
        ),
        ("empty", Manner::Says("{}")),
    ] {
        pod(&c, name, &format!("p-{name}")).await;
        others.push(Kubelet::start(&c, name, manner).await);
    }
    // One shows another's certificate, one is not there any more, and one has not been heard of: it is not even asked.
    well.register(&c, "poses").await;
    let gone = Kubelet::start(&c, "gone", Manner::Hangs).await;
    drop(gone);
    let silent = Kubelet::start(&c, "silent", Manner::Hangs).await;
    let unknown = json!({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}});
    assert_eq!(c.merge("/api/v1/nodes/silent/status", &unknown).await.code, 200);

    let began = Instant::now();
    let nodes = c.get(&format!("{METRICS}/nodes")).await;
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    assert_eq!((nodes.code, names(&nodes.body)), (200, vec!["well"]), "{}", nodes.body);
    let pods = c.get(&format!("{METRICS}/pods")).await;
    assert_eq!((pods.code, names(&pods.body)), (200, vec!["p"]), "{}", pods.body);
    assert_eq!(silent.asked(), 0);
    c.stop().await;
}

#[tokio::test]
async fn the_group_is_told_of_and_who_installs_metrics_server_has_it_instead() {
    let (c, _kubelets) = cluster().await;
    // What discovery tells follows what is served.
    let is_told = async |server: &str, names: &[&str]| {
        let version = loop {
            let version = aggregated_group(&c, "metrics.k8s.io").await["versions"][0].clone();
            let rows = version["resources"].as_array().into_iter().flatten();
            if rows.map(|row| row["resource"].as_str().unwrap()).eq(names.iter().copied()) {
                break version;
            }
            tokio::task::yield_now().await;
        };
        assert_eq!((&version["version"], &version["freshness"]), (&json!("v1beta1"), &json!("Current")), "{server}");
        let listed = c.get("/apis").await.body;
        let groups: Vec<&str> =
            listed["groups"].as_array().unwrap().iter().map(|group| group["name"].as_str().unwrap()).collect();
        assert_eq!(groups.iter().filter(|group| **group == "metrics.k8s.io").count(), 1, "{server}");
        let resources = c.get(METRICS).await.body["resources"].clone();
        let resources: Vec<&str> =
            resources.as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect();
        assert_eq!(resources, names, "{server}");
    };
    is_told("this server", &["nodes", "pods"]).await;
    let rows = c.get(METRICS).await.body["resources"].clone();
    let nodes = json!({"name": "nodes", "singularName": "", "namespaced": false, "kind": "NodeMetrics", "verbs": ["get", "list"]});
    let pods =
        json!({"name": "pods", "singularName": "", "namespaced": true, "kind": "PodMetrics", "verbs": ["get", "list"]});
    assert_eq!(rows, json!([nodes, pods]));
    let groups = c.get("/apis").await.body;
    assert_eq!(groups["groups"].as_array().unwrap().last().unwrap()["name"], "metrics.k8s.io", "core pods come first");

    let schema = "io.k8s.metrics.pkg.apis.metrics.v1beta1.PodMetrics";
    let v3 = c.get("/openapi/v3/apis/metrics.k8s.io/v1beta1").await.body;
    assert!(v3["components"]["schemas"][schema]["properties"]["containers"].is_object());
    let list = "/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods";
    assert_eq!(v3["paths"][list]["get"]["x-kubernetes-group-version-kind"]["kind"], "PodMetrics");
    let v2 = c.get("/openapi/v2").await.body;
    assert!(v2["definitions"][schema].is_object() && v2["paths"][list].is_object());

    let path = format!("{API_SERVICES}/{NAME}");
    let own = c.get(&path).await.body;
    assert_eq!(own["status"]["conditions"][0]["reason"], "Local", "{own}");
    assert_eq!(own["metadata"]["labels"]["kube-aggregator.kubernetes.io/automanaged"], "onstart");

    // As its manifest says it.
    let theirs = extension(&c).await;
    let spec = json!({"service": {"name": "sea", "namespace": "default", "port": theirs.port()}, "group": "metrics.k8s.io",
        "version": "v1beta1", "caBundle": theirs.bundle(), "groupPriorityMinimum": 100, "versionPriority": 100});
    let listed = async || {
        names(&c.get(&format!("{METRICS}/nodes")).await.body).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let taken = c.merge(&path, &json!({"metadata": {"labels": {"k8s-app": "metrics-server"}}, "spec": spec})).await;
    assert_eq!(taken.code, 200, "{}", taken.body);
    availability(&c, NAME, "Passed").await;
    assert_eq!(listed().await, ["theirs"]);
    is_told("metrics-server", &["nodes"]).await;
    assert!(c.get("/openapi/v2").await.body["definitions"][schema].is_null());

    // Local again: it is this server's at once.
    assert_eq!(c.merge(&path, &json!({"spec": {"service": null, "caBundle": null}})).await.code, 200);
    assert_eq!(listed().await, ["n1", "n2"]);
    is_told("this server again", &["nodes", "pods"]).await;
    assert_eq!(availability(&c, NAME, "Local").await.0, "True");

    // Likewise when what took over is deleted.
    assert_eq!(c.merge(&path, &json!({"spec": spec})).await.code, 200);
    availability(&c, NAME, "Passed").await;
    assert_eq!(listed().await, ["theirs"]);
    assert_eq!(c.delete(&path).await.code, 200);
    assert_eq!(listed().await, ["n1", "n2"]);
    is_told("this server, after theirs is gone", &["nodes", "pods"]).await;
    c.stop().await;
}
