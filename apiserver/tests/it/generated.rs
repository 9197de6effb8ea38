//! Requests nobody wrote: made from the server's own OpenAPI documents, whole, broken and mutated, thousands of them. None is
//! answered with an error of the server's, every refusal is a `Status`, and the server is as well afterwards as before.
//!
//! A usual run is short and begins at the same seed; `CORACLE_REQUESTS=200000 CORACLE_FUZZ_SEED=7 cargo test --workspace --test
//! it generated::` is a long one.

mod requests;

use std::{collections::BTreeMap, time::Duration};

use axum::body::Body;
use coracle_proto::protobuf;
use futures::{StreamExt as _, stream};
use http::{Method, header};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use self::requests::{Api, Sent};
use crate::{
    dice::{Dice, peak, setting},
    harness::Cluster,
};

/// As many requests a usual run has.
const REQUESTS: u64 = 5_000;

/// As many at once.
const AT_ONCE: usize = 16;

/// How long the longest may take: the server itself gives up after a minute.
const PATIENCE: Duration = Duration::from_secs(120);

/// How much more memory the server may hold after 200,000 requests, with all it created.
const GROWTH: u64 = 1 << 30;

/// What a request that is passed on has in its path.
const PASSED_ON: &[&str] = &["/proxy", "/log", "/exec", "/attach", "/portforward"];

/// How a request ends that panicked.
const PANICKED: &str = "the server could not handle this request";

/// Codes of the server's own that say what they should: what is not there yet, what did not come in time, and what a request
/// is passed on to and does not answer. And what Kubernetes calls its own fault, although it is the client's: an applied
/// configuration with another type than the field's.
fn is_honest(sent: &Sent, code: u16, body: &[u8]) -> bool {
    let is_passed_on = PASSED_ON.iter().any(|part| sent.path.contains(part));
    let says = |text: &str| String::from_utf8_lossy(body).contains(text);
    let has_panicked = says(PANICKED);
    let is_untyped = sent.media == "application/apply-patch+yaml" && says("failed to create typed patch object");
    matches!(code, 501 | 504)
        || (code == 500 && is_untyped)
        || (is_passed_on && matches!(code, 500 | 502 | 503) && !has_panicked)
}

async fn documents(c: &Cluster) -> Vec<Value> {
    let index = c.get("/openapi/v3").await.body;
    let mut documents = Vec::new();
    for place in index["paths"].as_object().unwrap().values() {
        documents.push(c.get(place["serverRelativeURL"].as_str().unwrap()).await.body);
    }
    documents
}

/// Sends one request and tells the answer's code, or what is wrong with it.
async fn ask(c: &Cluster, sent: Sent) -> Result<u16, String> {
    // A path that is no URI has nowhere to go.
    let Ok(uri) = sent.path.parse::<http::Uri>() else { return Ok(0) };
    let request = http::Request::builder()
        .method(sent.method.clone())
        .uri(uri)
        .header(header::CONTENT_TYPE, sent.media)
        .header(header::ACCEPT, sent.accept)
        .body(Body::from(sent.body.clone()))
        .unwrap();
    let answered = tokio::time::timeout(PATIENCE, c.service().oneshot(request)).await;
    let Ok(Ok(response)) = answered else { return Err(format!("no answer\n{sent}")) };
    let code = response.status().as_u16();
    let media = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media = media.to_owned();
    if sent.is_endless && code < 400 {
        return Ok(code);
    }
    let Ok(collected) = tokio::time::timeout(PATIENCE, response.into_body().collect()).await else {
        return Err(format!("an answer {code} without end\n{sent}"));
    };
    let body = collected.unwrap().to_bytes();
    let wrong = |what: &str| Err(format!("{what}: {code} {media} {}\n{sent}", body.escape_ascii()));
    if code >= 500 && !is_honest(&sent, code, &body) {
        return wrong("an error of the server's");
    }
    let object = match media.as_str() {
        "application/json" => serde_json::from_slice(&body).ok(),
        protobuf::MEDIA => protobuf::to_json(&body).ok(),
        _ => Some(Value::Null),
    };
    let Some(object) = object else { return wrong("what is not what it says") };
    let is_status = object["kind"] == "Status" && (object["code"] == code || object.get("code").is_none());
    if code >= 400 && sent.method != Method::HEAD && !object.is_null() && !is_status {
        return wrong("a refusal that is no status");
    }
    Ok(code)
}

#[tokio::test]
async fn no_request_breaks_the_server() {
    let (first, count) = (setting("CORACLE_FUZZ_SEED", 1), setting("CORACLE_REQUESTS", REQUESTS));
    let c = Cluster::start().await;
    for namespace in requests::NAMESPACES {
        c.post("/api/v1/namespaces", &json!({"metadata": {"name": namespace}})).await;
    }
    let api = Api::read(&documents(&c).await);
    let before = peak();
    let asked = stream::iter(first..first + count).map(|seed| {
        let sent = api.request(&mut Dice::new(seed));
        let c = &c;
        async move { ask(c, sent).await.map_err(|wrong| format!("seed {seed}: {wrong}")) }
    });
    let (mut codes, mut wrong) = (BTreeMap::<u16, u64>::new(), Vec::new());
    let mut answers = asked.buffer_unordered(AT_ONCE);
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(code) => *codes.entry(code).or_default() += 1,
            Err(what) => wrong.push(what),
        }
        if wrong.len() == 20 {
            break;
        }
    }
    drop(answers);
    println!("{codes:?}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    // Enough of them got where they wanted, and enough of the others all the way to validation.
    for (code, share) in [(200, 20), (201, 500), (422, 100)] {
        assert!(codes.get(&code).is_some_and(|answers| answers * share > count), "{codes:?}");
    }
    let grown = peak().saturating_sub(before);
    assert!(grown < GROWTH, "{grown} bytes more than before");
    let alive =
        c.post("/api/v1/namespaces/kube-public/configmaps", &json!({"metadata": {"generateName": "alive-"}})).await;
    assert_eq!(alive.code, 201, "{}", alive.body);
    c.stop().await;
}
