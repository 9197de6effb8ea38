//! Many writers of one object.

use axum::body::Body;
use http::{Request, header};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tower::ServiceExt as _;

use crate::harness::Cluster;

const MAP: &str = "/api/v1/namespaces/default/configmaps/x";
const WRITERS: usize = 8;
const ROUNDS: usize = 12;

async fn send(service: coracle_apiserver::service::Service, method: &str, media: &str, body: &Value) -> (u16, Value) {
    let text = if method == "GET" { String::new() } else { body.to_string() };
    let request = Request::builder().method(method).uri(MAP).header(header::CONTENT_TYPE, media);
    let response = service.oneshot(request.body(Body::from(text)).unwrap()).await.unwrap();
    let code = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (code, serde_json::from_slice(&bytes).unwrap())
}

/// Invariant 1, as far as writers can harm each other: what was acknowledged is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_lost_among_writers_who_name_the_version_they_change() {
    let c = Cluster::start().await;
    let map = json!({"metadata": {"name": "x"}, "data": {"n": "0"}});
    assert_eq!(c.post("/api/v1/namespaces/default/configmaps", &map).await.code, 201);
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let service = c.service();
        writers.spawn(async move {
            let mut conflicts = 0;
            for round in 0..ROUNDS {
                // A patch without a version is for the server to bring together with all others.
                let patch = json!({"data": {format!("w{writer}"): round.to_string()}});
                let (code, body) = send(service.clone(), "PATCH", "application/merge-patch+json", &patch).await;
                assert_eq!(code, 200, "{body}");
                loop {
                    let (_, mut map) = send(service.clone(), "GET", "", &Value::Null).await;
                    let n: usize = map["data"]["n"].as_str().unwrap().parse().unwrap();
                    map["data"]["n"] = (n + 1).to_string().into();
                    match send(service.clone(), "PUT", "application/json", &map).await {
                        (200, _) => break,
                        (409, status) => {
                            assert_eq!(status["reason"], "Conflict");
                            conflicts += 1;
                        }
                        (code, body) => panic!("{code}: {body}"),
                    }
                }
            }
            conflicts
        });
    }
    let mut conflicts = 0;
    while let Some(ended) = writers.join_next().await {
        conflicts += ended.unwrap();
    }
    let map = c.get(MAP).await.body;
    assert_eq!(map["data"]["n"], (WRITERS * ROUNDS).to_string(), "{conflicts} conflicts");
    for writer in 0..WRITERS {
        assert_eq!(map["data"][format!("w{writer}")], (ROUNDS - 1).to_string());
    }
    c.stop().await;
}
