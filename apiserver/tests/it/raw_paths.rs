//! Paths that are about no object: health, OpenAPI, keys, the version.

use axum::body::Body;
use http::{HeaderMap, Request, header};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tower::ServiceExt as _;

use crate::harness::Cluster;

async fn get(c: &Cluster, path: &str, headers: &[(header::HeaderName, &str)]) -> (u16, HeaderMap, String) {
    let mut request = Request::get(path);
    for (name, value) in headers {
        request = request.header(name, *value);
    }
    let response = c.service().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (head.status.as_u16(), head.headers, String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test]
async fn health_is_told_check_by_check() {
    let c = Cluster::start().await;
    for (path, expected) in [
        ("/healthz", (200, "ok")),
        ("/livez/ping", (200, "ok")),
        ("/readyz/etcd", (200, "ok")),
        ("/livez?verbose", (200, "[+]ping ok\nlivez check passed\n")),
        (
            "/readyz?verbose&exclude=etcd&exclude=nothing",
            (
                200,
                "[+]ping ok\n[+]etcd excluded: ok\n[+]bootstrap ok\n[+]shutdown ok\nwarn: some health checks cannot be excluded: no matches for \"nothing\"\nreadyz check passed\n",
            ),
        ),
    ] {
        let (code, headers, body) = get(&c, path, &[]).await;
        assert_eq!((code, body.as_str()), expected, "{path}");
        assert_eq!(headers[header::CONTENT_TYPE], "text/plain; charset=utf-8");
    }
    for path in ["/readyz/nothing", "/debug/pprof/", "/debug/flags/v", "/logs/", "/nothing"] {
        assert_eq!(get(&c, path, &[]).await.0, 404, "{path}");
    }
    c.stop().await;
}

#[tokio::test]
async fn openapi_documents_may_be_kept_under_their_hash() {
    let c = Cluster::start().await;
    let (_, headers, body) = get(&c, "/openapi/v3", &[]).await;
    let index: Value = serde_json::from_str(&body).unwrap();
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap();
    let tag = headers[header::ETAG].to_str().unwrap().to_owned();
    assert_eq!(get(&c, "/openapi/v3", &[(header::IF_NONE_MATCH, &tag)]).await.0, 304);
    let (code, headers, _) = get(&c, url, &[]).await;
    assert_eq!((code, &headers[header::CACHE_CONTROL]), (200, &"public, immutable".parse().unwrap()));
    assert!(headers[header::EXPIRES].to_str().unwrap().ends_with(" GMT"));
    let tag = headers[header::ETAG].to_str().unwrap().to_owned();
    assert_eq!(url, format!("/openapi/v3/apis/apps/v1?hash={}", tag.trim_matches('"')));
    let (code, headers, _) = get(&c, "/openapi/v3/apis/apps/v1?hash=OLD", &[]).await;
    assert_eq!((code, headers[header::LOCATION].to_str().unwrap()), (301, url));
    let (code, headers, _) = get(&c, "/openapi/v3/apis/apps/v1", &[]).await;
    assert_eq!((code, &headers[header::CACHE_CONTROL]), (200, &"no-cache, private".parse().unwrap()));
    c.stop().await;
}

#[tokio::test]
async fn keys_may_be_kept_for_an_hour() {
    let c = Cluster::start().await;
    for (path, media) in
        [("/openid/v1/jwks", "application/jwk-set+json"), ("/.well-known/openid-configuration", "application/json")]
    {
        let (code, headers, body) = get(&c, path, &[]).await;
        assert_eq!((code, &headers[header::CONTENT_TYPE]), (200, &media.parse().unwrap()), "{body}");
        assert_eq!(headers[header::CACHE_CONTROL], "public, max-age=3600");
    }
    c.stop().await;
}

#[tokio::test]
async fn people_get_their_json_indented_and_programs_do_not() {
    let c = Cluster::start().await;
    let (curl, kubectl) = ([(header::USER_AGENT, "curl/8.0")], [(header::USER_AGENT, "kubectl/v1.36.0")]);
    let path = "/api/v1/namespaces/default";
    let (_, headers, compact) = get(&c, path, &kubectl).await;
    let (_, _, pretty) = get(&c, path, &curl).await;
    assert!(!compact.contains("\n ") && pretty.contains("\n  \"metadata\": {\n    "), "{pretty}");
    assert_eq!(headers[header::CONTENT_TYPE], "application/json");
    let read = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    assert_eq!(read(&compact), read(&pretty));
    assert_eq!(get(&c, &format!("{path}?pretty=false"), &curl).await.2, compact);
    assert_eq!(get(&c, &format!("{path}?pretty=true"), &kubectl).await.2, pretty);
    for path in ["/api/v1/namespaces", "/apis/apps/v1", "/api/v1/namespaces/none"] {
        let (_, _, text) = get(&c, path, &curl).await;
        assert!(text.starts_with("{\n  \"") && text.ends_with("\n}"), "{path}: {text}");
        let (_, _, yaml) =
            get(&c, path, &[(header::USER_AGENT, "curl/8.0"), (header::ACCEPT, "application/yaml")]).await;
        assert!(yaml.contains("kind: ") && !yaml.contains("{\n"), "{path}: {yaml}");
    }
}
