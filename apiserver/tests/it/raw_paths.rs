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
