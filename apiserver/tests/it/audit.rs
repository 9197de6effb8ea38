//! The audit: what is recorded of requests, in a file and at a webhook.

use std::{path::Path, sync::Arc, time::Duration};

use axum::body::Body;
use coracle_apiserver::{
    audit::{
        self,
        config::{LogConfig, WebhookConfig},
    },
    config::Config,
    user::User,
};
use coracle_proto::protobuf;
use http::{Request, Response, header};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tower::ServiceExt as _;

use crate::{
    harness::Cluster,
    webhook_server::{Hook, Reply},
};

const POLICY: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
rules:
- level: None
  users: [quiet]
- level: RequestResponse
  resources: [{group: '', resources: [configmaps]}]
  omitManagedFields: true
  omitStages: [RequestReceived]
- level: Metadata
  resources: [{group: '', resources: [secrets, pods, pods/proxy]}]
- level: Metadata
  userGroups: [system:unauthenticated]
";

pub(crate) fn config(dir: &Path) -> audit::Config {
    std::fs::write(dir.join("policy.yaml"), POLICY).unwrap();
    let log = LogConfig { path: dir.join("audit.log"), max_size: 1 << 30, max_backups: 0, max_age_days: 0 };
    audit::Config { policy_file: Some(dir.join("policy.yaml")), log: Some(log), webhook: None }
}

async fn send(c: &Cluster, user: &User, request: http::request::Builder, body: impl Into<Body>) -> Response<Body> {
    let request = request.header(header::CONTENT_TYPE, "application/json").body(body.into()).unwrap();
    c.server.service(user.clone()).oneshot(request).await.unwrap()
}

pub(crate) fn events(dir: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(dir.join("audit.log")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn requests_are_recorded_as_the_policy_says() {
    let dir = tempfile::tempdir().unwrap();
    let c = Cluster::start_with(|config_| Config { audit: config(dir.path()), ..config_ }).await;
    let (admin, alice) = (User::new("admin", &["system:masters"]), User::new("alice", &[]));
    let maps = "/api/v1/namespaces/default/configmaps";
    let map = json!({"metadata": {"name": "m"}, "data": {"a": "b"}}).to_string();
    let created = send(&c, &admin, Request::post(maps).header("audit-id", "mine"), map).await;
    assert_eq!((created.status().as_u16(), created.headers()["audit-id"].to_str().unwrap()), (201, "mine"));
    let refused = Request::get("/api/v1/namespaces/default/secrets/s").header("impersonate-user", "bob");
    assert_eq!(send(&c, &admin, refused, Body::empty()).await.status(), 403);
    send(&c, &User::new("quiet", &[]), Request::get("/api/v1/namespaces/default/secrets"), Body::empty()).await;
    send(&c, &alice, Request::get("/version"), Body::empty()).await;
    let watch = Request::get("/api/v1/pods?watch=1").header("x-forwarded-for", "10.1.2.3, 10.4.5.6");
    let watch = send(&c, &admin, watch, Body::empty()).await;
    assert_eq!(watch.status(), 200);
    drop(watch);
    c.stop().await;

    let events = events(dir.path());
    let of = |user: &str, stage: &str| -> Vec<&Value> {
        let is_it = |event: &&Value| {
            let resource = event["objectRef"]["resource"].as_str().unwrap_or_default();
            event["user"]["username"] == user && event["stage"] == stage && resource != "namespaces"
        };
        events.iter().filter(is_it).collect()
    };
    let complete = of("admin", "ResponseComplete");
    let [write, read, watch] = complete.as_slice() else { panic!("{events:#?}") };
    assert_eq!(write["auditID"], "mine");
    assert_eq!(write["level"], "RequestResponse");
    assert_eq!(write["objectRef"]["name"], "m");
    assert_eq!(write["requestObject"]["data"], json!({"a": "b"}));
    assert_eq!(write["responseObject"]["metadata"]["name"], "m");
    assert!(write["responseObject"]["metadata"].get("managedFields").is_none(), "{write}");
    assert_eq!(write["responseStatus"]["code"], 201);
    assert_eq!(write["annotations"]["authorization.k8s.io/decision"], "allow");
    assert_eq!(read["impersonatedUser"]["username"], "bob");
    assert_eq!(read["responseStatus"]["reason"], "Forbidden");
    assert_eq!(read["annotations"]["authorization.k8s.io/decision"], "forbid");
    assert!(read.get("responseObject").is_none(), "{read}");
    assert_eq!(watch["sourceIPs"], json!(["10.1.2.3", "10.4.5.6", "127.0.0.1"]));
    assert_eq!(of("admin", "ResponseStarted").len(), 1, "only the watch goes on");
    assert_eq!(of("admin", "RequestReceived").len(), 2, "the write's is left out");
    assert!(of("quiet", "ResponseComplete").is_empty() && of("alice", "ResponseComplete").is_empty(), "{events:#?}");
}

#[tokio::test]
async fn what_is_said_in_protobuf_is_recorded_as_any_other() {
    let dir = tempfile::tempdir().unwrap();
    let c = Cluster::start_with(|config_| Config { audit: config(dir.path()), ..config_ }).await;
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"a": "b"}});
    let request = Request::post("/api/v1/namespaces/default/configmaps")
        .header(header::CONTENT_TYPE, protobuf::MEDIA)
        .header(header::ACCEPT, protobuf::MEDIA)
        .body(Body::from(protobuf::from_json(&map).unwrap()))
        .unwrap();
    let user = User::new("admin", &["system:masters"]);
    let created = c.server.service(user).oneshot(request).await.unwrap();
    assert_eq!(
        (created.status().as_u16(), created.headers()[header::CONTENT_TYPE].as_bytes()),
        (201, protobuf::MEDIA.as_bytes())
    );
    c.stop().await;
    let events = events(dir.path());
    let is_it = |event: &&Value| event["verb"] == "create" && event["objectRef"]["name"] == "m";
    let event = events.iter().find(is_it).unwrap_or_else(|| panic!("{events:#?}"));
    for recorded in ["requestObject", "responseObject"] {
        assert_eq!(
            (&event[recorded]["kind"], &event[recorded]["data"]),
            (&json!("ConfigMap"), &json!({"a": "b"})),
            "{event}"
        );
    }
}

#[tokio::test]
async fn who_is_not_let_in_and_what_admission_notes_are_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let policy =
        "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules: [{level: Metadata}]\n";
    let audit = config(dir.path());
    std::fs::write(dir.path().join("policy.yaml"), policy).unwrap();
    let c = Cluster::start_with(|config| Config { audit, ..config }).await;
    let labels = json!({"pod-security.kubernetes.io/audit": "restricted"});
    let namespace = json!({"metadata": {"name": "strict", "labels": labels}});
    assert_eq!(c.post("/api/v1/namespaces", &namespace).await.code, 201);
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let made = c.post("/api/v1/namespaces/strict/pods", &pod).await;
    assert_eq!(made.code, 201, "{}", made.body);
    let nobody = c.stranger(Request::get("/api/v1/pods").body(Body::empty()).unwrap()).await;
    assert_eq!(nobody.status(), 401);
    c.stop().await;
    let events = events(dir.path());
    let refused = events.iter().find(|event| event["responseStatus"]["code"] == 401).unwrap();
    assert_eq!((&refused["user"], &refused["requestURI"]), (&json!({}), &json!("/api/v1/pods")), "{refused}");
    let pod =
        events.iter().find(|event| event["objectRef"]["resource"] == "pods" && event["verb"] == "create").unwrap();
    let note = pod["annotations"]["pod-security.kubernetes.io/audit-violations"].as_str().unwrap_or_default();
    assert!(note.contains("restricted"), "{pod}");
}

#[tokio::test]
async fn events_are_sent_in_batches_and_once_more_when_they_do_not_arrive() {
    let come = Arc::new(Semaphore::new(0));
    let (told, first) = (Arc::clone(&come), std::sync::atomic::AtomicBool::new(true));
    let hook = Hook::start(move |_| {
        told.add_permits(1);
        let code = if first.swap(false, std::sync::atomic::Ordering::Relaxed) { 503 } else { 200 };
        Reply::Raw(code, String::new())
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let kubeconfig = dir.path().join("webhook.yaml");
    let text = format!(
        "current-context: c\ncontexts: [{{name: c, context: {{cluster: k, user: u}}}}]\nusers: [{{name: u, user: {{token: secret}}}}]\n\
         clusters: [{{name: k, cluster: {{server: '{}', certificate-authority-data: {}}}}}]\n",
        hook.url(),
        hook.bundle()
    );
    std::fs::write(&kubeconfig, text).unwrap();
    let webhook = WebhookConfig {
        kubeconfig,
        buffer_size: 100,
        batch_size: 2,
        batch_wait: Duration::from_hours(1),
        initial_backoff: Duration::from_millis(1),
    };
    let audit = audit::Config { webhook: Some(webhook), log: None, ..config(dir.path()) };
    let c = Cluster::start_with(|config| Config { audit, ..config }).await;
    let admin = User::new("admin", &["system:masters"]);
    for name in ["a", "b", "c"] {
        let secret = json!({"metadata": {"name": name}}).to_string();
        let path = "/api/v1/namespaces/default/configmaps";
        assert_eq!(send(&c, &admin, Request::post(path), secret).await.status(), 201);
    }
    // The first batch is full; it comes twice, since the first time it was not taken.
    come.acquire_many(2).await.unwrap().forget();
    // The third event waits for another, and is sent when the server stops.
    c.stop().await;
    let seen = hook.seen();
    let names = |list: &Value| -> Vec<String> {
        let items = list["items"].as_array().unwrap();
        items.iter().map(|event| event["objectRef"]["name"].as_str().unwrap().to_owned()).collect()
    };
    let shown: Vec<Vec<String>> = seen.iter().map(names).collect();
    assert_eq!(shown, [vec!["a", "b"], vec!["a", "b"], vec!["c"]]);
    assert_eq!(seen[0]["kind"], "EventList");
}

#[tokio::test]
async fn a_policy_that_is_none_stops_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let audit = config(dir.path());
    std::fs::write(dir.path().join("policy.yaml"), "rules: []").unwrap();
    let config = Config { audit, ..Config::new(dir.path(), "127.0.0.1:0".parse().unwrap()) };
    let refused = coracle_apiserver::server::ApiServer::open(config).await.err().unwrap();
    let why = std::error::Error::source(&refused).unwrap().to_string();
    assert!(why.contains("--audit-policy-file"), "{why}");
}

#[tokio::test]
async fn bodies_of_requests_without_objects_are_not_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let audit = config(dir.path());
    let policy = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: RequestResponse}]\n";
    std::fs::write(dir.path().join("policy.yaml"), policy).unwrap();
    let c = Cluster::start_with(|config| Config { audit, ..config }).await;
    assert_eq!(c.get("/version").await.code, 200);
    assert_eq!(c.post("/coracle/v1/servers", &json!({"name": "attic"})).await.code, 400);
    c.stop().await;
    let events = events(dir.path());
    for uri in ["/version", "/coracle/v1/servers"] {
        let found: Vec<&Value> = events.iter().filter(|event| event["requestURI"] == uri).collect();
        assert!(!found.is_empty() && found.iter().all(|event| event["level"] == "RequestResponse"), "{found:?}");
        let has_body = |event: &&Value| !event["requestObject"].is_null() || !event["responseObject"].is_null();
        assert!(!found.iter().any(has_body), "{found:?}");
    }
}
