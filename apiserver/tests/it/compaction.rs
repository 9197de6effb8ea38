//! What is told about versions that are gone.

use coracle_store::Revision;
use serde_json::{Value, json};

use crate::{harness::Cluster, watching::Following};

const MAPS: &str = "/api/v1/namespaces/kube-public/configmaps";

async fn compact(c: &Cluster) {
    let store = c.server.registry().store();
    let now = store.revision();
    store.compact(Revision(now.0)).await.unwrap();
}

/// Invariant 2: a watcher sees every event after its revision, or gets 410 Gone.
#[tokio::test]
async fn a_watch_from_a_version_that_is_gone_ends_in_an_error_event() {
    let c = Cluster::start().await;
    let begin = c.get(MAPS).await.version().to_owned();
    for name in ["a", "b"] {
        assert_eq!(c.post(MAPS, &json!({"metadata": {"name": name}})).await.code, 201);
    }
    compact(&c).await;
    let mut watch = Following::begin(&c, &format!("{MAPS}?watch=1&resourceVersion={begin}")).await;
    let event = watch.next().await.unwrap();
    assert_eq!(event["type"], "ERROR");
    let status = &event["object"];
    assert_eq!(
        (&status["kind"], &status["code"], &status["reason"]),
        (&json!("Status"), &json!(410), &json!("Expired"))
    );
    let words = format!("too old resource version: {begin} (");
    assert!(status["message"].as_str().unwrap().starts_with(&words), "{status}");
    assert_eq!(watch.next().await, None, "the error is the last event");
    c.stop().await;
}

#[tokio::test]
async fn a_page_of_a_version_that_is_gone_comes_with_a_token_to_go_on_with_the_newest() {
    let c = Cluster::start().await;
    let first = c.get(&format!("{MAPS}?limit=1")).await;
    for name in ["a", "z"] {
        assert_eq!(c.post(MAPS, &json!({"metadata": {"name": name}})).await.code, 201);
    }
    let second = c.get(&format!("{MAPS}?limit=1")).await;
    assert_eq!(second.body["items"][0]["metadata"]["name"], "a");
    let token = second.body["metadata"]["continue"].as_str().unwrap().to_owned();
    assert_eq!(c.post(MAPS, &json!({"metadata": {"name": "zz"}})).await.code, 201);
    compact(&c).await;
    let exact = format!("{MAPS}?resourceVersion={}&resourceVersionMatch=Exact", first.version());
    let gone = c.get(&exact).await;
    assert_eq!(gone.refusal(), (410, "Expired", "The resourceVersion for the provided list is too old."));
    let gone = c.get(&format!("{MAPS}?limit=9&continue={token}")).await;
    assert_eq!((gone.code, gone.refusal().1), (410, "Expired"));
    assert!(gone.refusal().2.starts_with("The provided continue parameter is too old"), "{}", gone.body);
    let fresh = gone.body["metadata"]["continue"].as_str().unwrap();
    let rest = c.get(&format!("{MAPS}?limit=9&continue={fresh}")).await;
    let names: Vec<&Value> =
        rest.body["items"].as_array().unwrap().iter().map(|item| &item["metadata"]["name"]).collect();
    assert_eq!(names, ["kube-root-ca.crt", "z", "zz"], "the newest, from where the page before ended");
    c.stop().await;
}
