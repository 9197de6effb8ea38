//! What `/metrics` tells, and to whom.

use coracle_apiserver::user::User;
use http::{Request, StatusCode, header};
use http_body_util::BodyExt as _;
use serde_json::json;
use tower::ServiceExt as _;

use crate::harness::Cluster;

async fn page(cluster: &Cluster) -> String {
    let request = Request::get("/metrics").body(axum::body::Body::empty()).unwrap();
    let response = cluster.service().oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let media = response.headers()[header::CONTENT_TYPE].to_str().unwrap();
    assert!(media.starts_with("text/plain; version=0.0.4"), "{media}");
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().into()).unwrap()
}

/// The value of the one figure whose line begins so and holds all the words.
fn figure(page: &str, name: &str, words: &[&str]) -> f64 {
    let is_it = |line: &&str| line.starts_with(name) && words.iter().all(|word| line.contains(word));
    let found: Vec<&str> = page.lines().filter(is_it).collect();
    assert_eq!(found.len(), 1, "{name} {words:?}: {found:#?}");
    found[0].rsplit_once(' ').unwrap().1.parse().unwrap()
}

#[tokio::test]
async fn requests_objects_and_the_store_are_counted() {
    let cluster = Cluster::start().await;
    let before = page(&cluster).await;
    for name in ["a", "b"] {
        let map = json!({"metadata": {"name": name}, "data": {"x": "y"}});
        assert_eq!(cluster.post("/api/v1/namespaces/default/configmaps", &map).await.code, 201);
        assert_eq!(cluster.post("/api/v1/namespaces/default/configmaps", &map).await.code, 409);
    }
    let request = Request::get("/api/v1/configmaps?watch=1").body(axum::body::Body::empty()).unwrap();
    let watch = cluster.service().oneshot(request).await.unwrap();
    let page_now = page(&cluster).await;
    let maps = ["resource=\"configmaps\"", "scope=\"resource\"", "verb=\"POST\""];
    let of = |code: &'static str| [maps[0], maps[1], maps[2], code];
    assert_eq!(figure(&page_now, "apiserver_request_total{", &of("code=\"201\"")), 2.0);
    assert_eq!(figure(&page_now, "apiserver_request_total{", &of("code=\"409\"")), 2.0);
    assert_eq!(figure(&page_now, "apiserver_request_duration_seconds_count{", &maps), 4.0);
    assert_eq!(figure(&page_now, "apiserver_request_duration_seconds_bucket{", &of("le=\"+Inf\"")), 4.0);
    assert_eq!(figure(&page_now, "apiserver_current_inflight_requests{", &["readOnly"]), 1.0, "this one");
    let watches = ["resource=\"configmaps\"", "scope=\"cluster\"", "verb=\"WATCH\""];
    assert_eq!(figure(&page_now, "apiserver_longrunning_requests{", &watches), 1.0);
    let objects = |page: &str| figure(page, "apiserver_storage_objects{", &["resource=\"configmaps\""]);
    assert_eq!(objects(&page_now) - objects(&before), 2.0);
    let written = |page: &str| figure(page, "coracle_store_bytes_written_total{", &["to=\"log\""]);
    assert!(written(&page_now) > written(&before) + 100.0);
    assert_eq!(figure(&page_now, "coracle_store_writable", &[" 1"]), 1.0);
    assert!(figure(&page_now, "coracle_store_sync_seconds_total", &[" "]) > 0.0);
    assert!(figure(&page_now, "coracle_store_slowest_sync_seconds", &[" "]) > 0.0);
    assert!(figure(&page_now, "coracle_store_disk_slow", &[" "]) <= 1.0);
    assert!(figure(&page_now, "process_resident_memory_bytes ", &[]) > 1e6);
    // What dashboards and alerts made for Kubernetes ask for beside.
    assert_eq!(figure(&page_now, "apiserver_request_sli_duration_seconds_count{", &maps), 4.0);
    let created = ["operation=\"CREATE\"", "rejected=\"false\"", "type=\"admit\""];
    let steps = |page: &str| figure(page, "apiserver_admission_step_admission_duration_seconds_count{", &created);
    assert!(steps(&page_now) >= steps(&before) + 2.0);
    let plugin = [created[0], created[1], created[2], "name=\"NamespaceLifecycle\""];
    assert!(figure(&page_now, "apiserver_admission_controller_admission_duration_seconds_count{", &plugin) >= 2.0);
    let asked = |code: &str| figure(&page_now, "rest_client_requests_total{", &["method=\"POST\"", code]);
    assert_eq!((asked("code=\"201\""), asked("code=\"409\"")), (2.0, 2.0));
    assert_eq!(figure(&page_now, "apiserver_response_sizes_count{", &["subresource=\"/metrics\""]), 1.0);

    drop(watch);
    let after = page(&cluster).await;
    assert_eq!(figure(&after, "apiserver_longrunning_requests{", &watches), 0.0);
    for name in ["apiserver_request_total", "apiserver_storage_objects"] {
        assert_eq!(after.matches(&format!("# TYPE {name} ")).count(), 1, "{name}");
    }
    cluster.stop().await;
}

#[tokio::test]
async fn only_who_may_reads_them() {
    let cluster = Cluster::start().await;
    for (groups, code) in [
        (&["system:authenticated"][..], StatusCode::FORBIDDEN),
        (&["system:authenticated", "system:monitoring"], StatusCode::OK),
    ] {
        let request = Request::get("/metrics").body(axum::body::Body::empty()).unwrap();
        let answer = cluster.server.service(User::new("eve", groups)).oneshot(request).await.unwrap();
        assert_eq!(answer.status(), code, "{groups:?}");
    }
    cluster.stop().await;
}
