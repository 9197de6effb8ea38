//! Acting as others, and compressed answers.

use axum::body::Body;
use coracle_apiserver::user::User;
use http::{Request, Response, header};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::harness::Cluster;

const PODS: &str = "/api/v1/namespaces/default/pods";

async fn ask(c: &Cluster, user: &User, path: &str, headers: &[(&str, &str)]) -> Response<Body> {
    let mut request = Request::get(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    c.server.service(user.clone()).oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
}

async fn refusal(response: Response<Body>) -> (u16, String) {
    let code = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let status: Value = serde_json::from_slice(&body).unwrap_or_default();
    (code, status["message"].as_str().unwrap_or_default().to_owned())
}

/// Invariant 6: acting as another takes the right to do so, and gives that one's rights and no more.
#[tokio::test]
async fn one_acts_as_another_only_if_he_may() {
    let c = Cluster::start().await;
    let (admin, bob) = (User::new("admin", &["system:masters"]), User::new("bob", &[]));
    let as_alice = [("impersonate-user", "alice")];
    assert_eq!(
        refusal(ask(&c, &admin, PODS, &as_alice).await).await,
        (403, "pods is forbidden: User \"alice\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\"".to_owned())
    );
    assert_eq!(
        refusal(ask(&c, &bob, PODS, &as_alice).await).await,
        (403, "users \"alice\" is forbidden: User \"bob\" cannot impersonate resource \"users\" in API group \"\" at the cluster scope".to_owned())
    );
    let as_root = [("impersonate-user", "alice"), ("impersonate-group", "system:masters")];
    assert_eq!(ask(&c, &admin, PODS, &as_root).await.status(), 200);
    let as_group = [("impersonate-group", "system:masters")];
    assert_eq!(ask(&c, &admin, PODS, &as_group).await.status(), 500, "a group without a user");
    c.stop().await;
}

#[tokio::test]
async fn large_answers_are_compressed_for_who_takes_it() {
    let c = Cluster::start().await;
    let admin = User::new("admin", &["system:masters"]);
    let maps = "/api/v1/namespaces/default/configmaps";
    let body = json!({"metadata": {"name": "x"}, "data": {"a": "x".repeat(200_000)}});
    assert_eq!(c.post(maps, &body).await.code, 201);
    let gzip = [("accept-encoding", "gzip")];
    for path in [maps, "/openapi/v3/api/v1", "/openapi/v2"] {
        let plain = ask(&c, &admin, path, &[]).await;
        assert!(!plain.headers().contains_key(header::CONTENT_ENCODING), "{path}");
        let plain = plain.into_body().collect().await.unwrap().to_bytes();
        let packed = ask(&c, &admin, path, &gzip).await;
        assert_eq!(packed.headers()[header::CONTENT_ENCODING], "gzip", "{path}");
        let packed = packed.into_body().collect().await.unwrap().to_bytes();
        let mut unpacked = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&packed[..]), &mut unpacked).unwrap();
        assert!(unpacked == plain && packed.len() * 3 < plain.len(), "{path}");
    }
    assert_eq!(ask(&c, &admin, "/openapi/v2", &[("accept", "application/cbor")]).await.status(), 406);
    let either = [("accept", "application/cbor,application/json")];
    assert_eq!(ask(&c, &admin, "/openapi/v2", &either).await.status(), 200);
    c.stop().await;
}

const MAPS: &str = "/api/v1/namespaces/kube-public/configmaps";

#[tokio::test]
async fn an_object_of_two_megabytes_is_refused_as_too_large_and_leaves_nothing() {
    let c = Cluster::start().await;
    let object = |bytes: usize| serde_json::json!({"metadata": {"name": "large"}, "binaryData": {"a": "A".repeat(bytes / 4 * 4)}});
    let refused = c.post(MAPS, &object(2_000_000)).await;
    let (code, reason, why) = refused.refusal();
    // ConfigMaps have a limit of their own below that, so kinds without one are asked, too.
    assert!(matches!((code, reason), (413, "RequestEntityTooLarge") | (422, "Invalid")), "{code} {reason} {why}");
    let annotation = "x".repeat(100_000);
    let mut leases = serde_json::json!({"metadata": {"name": "large", "annotations": {"a": annotation}}, "spec": {}});
    leases["spec"]["holderIdentity"] = serde_json::json!("h".repeat(2_000_000));
    let refused = c.post("/apis/coordination.k8s.io/v1/namespaces/kube-public/leases", &leases).await;
    let (code, reason, why) = refused.refusal();
    assert_eq!((code, reason), (413, "RequestEntityTooLarge"), "{why}");
    assert!(why.contains("is larger than the limit of 1572864"), "{why}");
    assert_eq!(c.get("/apis/coordination.k8s.io/v1/namespaces/kube-public/leases/large").await.code, 404);
    leases["spec"]["holderIdentity"] = serde_json::json!("h".repeat(1_000_000));
    assert_eq!(c.post("/apis/coordination.k8s.io/v1/namespaces/kube-public/leases", &leases).await.code, 201);
    c.stop().await;
}

#[tokio::test]
async fn a_list_with_limit_0_is_whole_and_a_huge_limit_asks_for_no_memory() {
    let c = Cluster::start().await;
    for at in 0..5 {
        c.post(MAPS, &serde_json::json!({"metadata": {"name": format!("m{at}")}})).await;
    }
    let count = |answer: &crate::harness::Answer| answer.body["items"].as_array().map_or(0, Vec::len);
    let all = count(&c.get(MAPS).await);
    for limit in ["0", "9223372036854775807", "1000000000000"] {
        let answer = c.get(&format!("{MAPS}?limit={limit}")).await;
        assert_eq!((answer.code, count(&answer)), (200, all), "{limit}");
        let selected = c.get(&format!("{MAPS}?limit={limit}&fieldSelector=metadata.name=m3")).await;
        assert_eq!((selected.code, count(&selected)), (200, 1), "{limit}");
    }
    for limit in ["x", "99999999999999999999"] {
        assert_eq!(c.get(&format!("{MAPS}?limit={limit}")).await.code, 400, "{limit}");
    }
    c.stop().await;
}
