//! Priority and fairness, as clients meet it.

use axum::body::Body;
use coracle_apiserver::{config::Config, user::User};
use futures::{FutureExt as _, future::BoxFuture};
use http::{Request, Response, header};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tower::ServiceExt as _;

use crate::harness::Cluster;

const LEVELS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations";
const SCHEMAS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas";
const REVIEWS: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";

fn level(name: &str, response: &Value) -> Value {
    let limited = json!({"nominalConcurrencyShares": 1, "borrowingLimitPercent": 0, "limitResponse": response});
    json!({"metadata": {"name": name}, "spec": {"type": "Limited", "limited": limited}})
}

fn schema(name: &str, level: &str, user: &str) -> Value {
    let resources =
        json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true, "namespaces": ["*"]});
    let rules = json!([{"subjects": [{"kind": "User", "user": {"name": user}}], "resourceRules": [resources],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]}]);
    json!({"metadata": {"name": name}, "spec": {"matchingPrecedence": 50, "distinguisherMethod": {"type": "ByUser"},
        "priorityLevelConfiguration": {"name": level}, "rules": rules}})
}

/// The uids an answer names: of the schema and of the level.
fn marks(response: &Response<Body>) -> (String, String) {
    let text = |name| response.headers().get(name).map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default();
    (text("x-kubernetes-pf-flowschema-uid"), text("x-kubernetes-pf-prioritylevel-uid"))
}

/// A cluster with so few seats that each level has one.
async fn narrow() -> Cluster {
    Cluster::start_with(|config| Config { max_requests_inflight: 1, max_mutating_requests_inflight: 1, ..config }).await
}

async fn get(c: &Cluster, user: &str) -> Response<Body> {
    let user = if user == "root" { User::new("root", &["system:masters"]) } else { User::new(user, &[]) };
    c.server.service(user).oneshot(Request::get("/version").body(Body::empty()).unwrap()).await.unwrap()
}

/// A request that is in work until its body comes.
struct Slow {
    answer: BoxFuture<'static, Response<Body>>,
    body: oneshot::Sender<()>,
}

impl Slow {
    fn new(c: &Cluster, user: &str) -> Self {
        let (body, come) = oneshot::channel();
        let text = json!({"spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}}).to_string();
        let stream = futures::stream::once(async move {
            let _ = come.await;
            Ok::<_, std::io::Error>(text)
        });
        let request = Request::post(REVIEWS).header(header::CONTENT_TYPE, "application/json");
        let request = request.body(Body::from_stream(stream)).unwrap();
        let service = c.server.service(User::new(user, &[]));
        Self { answer: async move { service.oneshot(request).await.unwrap() }.boxed(), body }
    }

    /// Goes on as far as it can; whether it is answered.
    fn goes_on(&mut self) -> bool {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        self.answer.as_mut().poll(&mut context).is_ready()
    }

    async fn finish(self) -> u16 {
        self.body.send(()).unwrap();
        self.answer.await.status().as_u16()
    }
}

/// Waits until requests of the user are of the schema with this uid.
async fn classified(c: &Cluster, user: &str, uid: &str) {
    while marks(&get(c, user).await).0 != uid {
        tokio::task::yield_now().await;
    }
}

async fn figures(c: &Cluster) -> String {
    let request = Request::get("/metrics").body(Body::empty()).unwrap();
    let answer = c.service().oneshot(request).await.unwrap();
    String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().into()).unwrap()
}

#[tokio::test]
async fn who_floods_his_level_is_refused_and_the_others_are_not() {
    let c = narrow().await;
    let made = c.post(LEVELS, &level("narrow", &json!({"type": "Reject"}))).await;
    assert_eq!(made.code, 201, "{}", made.body);
    let own = c.post(SCHEMAS, &schema("alice", "narrow", "alice")).await;
    assert_eq!(own.code, 201, "{}", own.body);
    let uid = |answer: &Value| answer["metadata"]["uid"].as_str().unwrap().to_owned();
    classified(&c, "alice", &uid(&own.body)).await;
    let expected = (uid(&own.body), uid(&made.body));

    let mut slow = Slow::new(&c, "alice");
    assert!(!slow.goes_on());
    let refused = get(&c, "alice").await;
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.headers()[header::RETRY_AFTER], "1");
    assert_eq!(marks(&refused), expected, "who is refused is told by whose rules");
    let status: Value = serde_json::from_slice(&refused.into_body().collect().await.unwrap().to_bytes()).unwrap();
    assert_eq!(status["reason"], "TooManyRequests");
    assert_eq!(status["message"], "Too many requests, please try again later.");
    let other = get(&c, "bob").await;
    assert_eq!(other.status(), 200);
    assert_ne!(marks(&other), expected);
    assert_eq!(get(&c, "root").await.status(), 200);
    let page = figures(&c).await;
    let labels = "flow_schema=\"alice\",priority_level=\"narrow\"";
    for line in [
        format!("apiserver_flowcontrol_rejected_requests_total{{{labels},reason=\"concurrency-limit\"}} 1"),
        format!("apiserver_flowcontrol_current_executing_requests{{{labels}}} 1"),
        "apiserver_flowcontrol_nominal_limit_seats{priority_level=\"narrow\"} 1".to_owned(),
    ] {
        assert!(page.contains(&line), "{line}\n{page}");
    }
    assert_eq!(slow.finish().await, 201);
    assert_eq!(get(&c, "alice").await.status(), 200);
    c.stop().await;
}

#[tokio::test]
async fn requests_queue_in_turn_until_the_queue_is_full() {
    let c = narrow().await;
    let queuing = json!({"queues": 1, "handSize": 1, "queueLengthLimit": 2});
    let made = c.post(LEVELS, &level("narrow", &json!({"type": "Queue", "queuing": queuing}))).await;
    assert_eq!(made.code, 201, "{}", made.body);
    let own = c.post(SCHEMAS, &schema("alice", "narrow", "alice")).await;
    classified(&c, "alice", own.body["metadata"]["uid"].as_str().unwrap()).await;

    let mut running = Slow::new(&c, "alice");
    assert!(!running.goes_on());
    let (mut first, mut gone) = (Slow::new(&c, "alice"), Slow::new(&c, "alice"));
    assert!(!first.goes_on() && !gone.goes_on());
    assert_eq!(get(&c, "alice").await.status(), 429, "one works, two wait, and that is all");
    drop(gone);
    let mut second = Slow::new(&c, "alice");
    assert!(!second.goes_on(), "the place of who is gone is free");
    assert_eq!(running.finish().await, 201);
    assert_eq!(first.finish().await, 201);
    assert_eq!(second.finish().await, 201);
    let page = figures(&c).await;
    let labels = "flow_schema=\"alice\",priority_level=\"narrow\"";
    for line in [
        format!("apiserver_flowcontrol_rejected_requests_total{{{labels},reason=\"queue-full\"}} 1"),
        format!("apiserver_flowcontrol_current_executing_requests{{{labels}}} 0"),
        format!("apiserver_flowcontrol_current_inqueue_requests{{{labels}}} 0"),
    ] {
        assert!(page.contains(&line), "{line}\n{page}");
    }
    c.stop().await;
}

#[tokio::test]
async fn what_goes_on_for_long_holds_no_seat_once_it_has_begun() {
    let c = narrow().await;
    let made = c.post(LEVELS, &level("narrow", &json!({"type": "Reject"}))).await;
    assert_eq!(made.code, 201, "{}", made.body);
    let mut own = schema("controller", "narrow", "system:kube-controller-manager");
    own["spec"]["matchingPrecedence"] = json!(3);
    let own = c.post(SCHEMAS, &own).await;
    let name = "system:kube-controller-manager";
    classified(&c, name, own.body["metadata"]["uid"].as_str().unwrap()).await;
    let watch = |_| Request::get("/api/v1/nodes?watch=1&resourceVersion=1").body(Body::empty()).unwrap();
    let mut watches = Vec::new();
    for n in 0..5 {
        let answer = c.server.service(User::new(name, &[])).oneshot(watch(n)).await.unwrap();
        assert_eq!(answer.status(), 200, "{n}");
        watches.push(answer);
    }
    assert_eq!(get(&c, name).await.status(), 200);
    drop(watches);
    c.stop().await;
}

#[tokio::test]
async fn a_schema_says_whether_its_level_is_there_and_those_that_must_be_there_come_back() {
    let c = narrow().await;
    let dangling = async |name: &str, expected: [&str; 2]| loop {
        let found = c.get(&format!("{SCHEMAS}/{name}")).await;
        let condition = &found.body["status"]["conditions"][0];
        if [&condition["status"], &condition["reason"]] == expected {
            assert_eq!(condition["type"], "Dangling");
            return condition["message"].as_str().unwrap().to_owned();
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(
        dangling("catch-all", ["False", "Found"]).await,
        "This FlowSchema references the PriorityLevelConfiguration object named \"catch-all\" and it exists"
    );
    assert_eq!(c.post(SCHEMAS, &schema("alice", "narrow", "alice")).await.code, 201);
    assert_eq!(
        dangling("alice", ["True", "NotFound"]).await,
        "This FlowSchema references the PriorityLevelConfiguration object named \"narrow\" but there is no such object"
    );
    assert_ne!(get(&c, "alice").await.status(), 429, "its requests are another schema's");
    assert_eq!(c.post(LEVELS, &level("narrow", &json!({"type": "Reject"}))).await.code, 201);
    dangling("alice", ["False", "Found"]).await;
    let before = c.get(&format!("{LEVELS}/catch-all")).await.body["metadata"]["uid"].clone();
    assert_eq!(c.delete(&format!("{LEVELS}/catch-all")).await.code, 200);
    loop {
        let now = c.get(&format!("{LEVELS}/catch-all")).await;
        if now.code == 200 && now.body["metadata"]["uid"] != before {
            break;
        }
        tokio::task::yield_now().await;
    }
    c.stop().await;
}
