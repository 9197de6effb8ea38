//! Listing, paging, selecting and watching.

use std::time::Duration;

use axum::body::Body;
use coracle_apiserver::config::Config;
use http::Request;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::harness::Cluster;

const MAPS: &str = "/api/v1/namespaces/kube-public/configmaps";

async fn make(c: &Cluster, name: &str, label: &str) {
    let body = json!({"metadata": {"name": name, "labels": {"l": label}}});
    assert_eq!(c.post(MAPS, &body).await.code, 201);
}

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
}

/// The watch's next `count` events as type and name.
async fn events(c: &Cluster, path: &str, count: usize) -> Vec<(String, String)> {
    let request = Request::get(path).body(Body::empty()).unwrap();
    let mut body = c.service().oneshot(request).await.unwrap().into_body();
    let mut text = String::new();
    while text.lines().count() < count || !text.ends_with('\n') {
        let frame = body.frame().await.unwrap().unwrap();
        text.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
    }
    let event = |line: &str| {
        let event: Value = serde_json::from_str(line).unwrap();
        let name = event["object"]["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        (event["type"].as_str().unwrap().to_owned(), name)
    };
    text.lines().take(count).map(event).collect()
}

#[tokio::test]
async fn each_group_selects_events_by_its_own_names_of_fields() {
    let c = Cluster::start().await;
    let (core, named) = ("/api/v1/namespaces/default/events", "/apis/events.k8s.io/v1/namespaces/default/events");
    let event = json!({"metadata": {"name": "e"}, "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "r",
        "reportingInstance": "i", "action": "Do", "reason": "Because", "type": "Normal",
        "regarding": {"kind": "Pod", "name": "p", "namespace": "default"}});
    let made = c.post(named, &event).await;
    assert_eq!(made.code, 201, "{}", made.body);
    // What the one has asked for is no answer to the other.
    for path in [
        format!("{core}?fieldSelector=source%3Dr"),
        format!("{named}?fieldSelector=reportingController%3Dr"),
        format!("{core}?fieldSelector=involvedObject.name%3Dp"),
        format!("{named}?fieldSelector=regarding.name%3Dp"),
    ] {
        assert_eq!(names(&c.get(&path).await.body), ["e"], "{path}");
    }
    c.stop().await;
}

#[tokio::test]
async fn reviews_have_no_table() {
    let c = Cluster::start().await;
    let review = json!({"spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}}});
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let refused = c.post_accepting(path, &review, table).await;
    assert_eq!((refused.code, refused.refusal().1), (406, "NotAcceptable"));
    let plain = c.post_accepting(path, &review, &format!("{table}, application/json")).await;
    assert_eq!((plain.code, &plain.body["kind"]), (201, &json!("SelfSubjectAccessReview")));
    c.stop().await;
}

#[tokio::test]
async fn a_list_is_paged_at_one_version_and_selected() {
    let c = Cluster::start().await;
    for name in ["a", "b", "d"] {
        make(&c, name, if name == "b" { "y" } else { "x" }).await;
    }
    let first = c.get(&format!("{MAPS}?limit=2")).await;
    assert_eq!(names(&first.body), ["a", "b"]);
    assert_eq!(first.body["metadata"]["remainingItemCount"], 2);
    make(&c, "c", "x").await;
    let token = first.body["metadata"]["continue"].as_str().unwrap();
    let rest = c.get(&format!("{MAPS}?limit=9&continue={token}")).await;
    assert_eq!(names(&rest.body), ["d", "kube-root-ca.crt"], "the page is of the first one's version");
    let next = c.get(&format!("{MAPS}?limit=1&continue={token}")).await;
    assert_eq!((names(&next.body), &next.body["metadata"]["remainingItemCount"]), (vec!["d"], &json!(1)));
    assert_eq!(rest.version(), first.version());
    assert_eq!(names(&c.get(&format!("{MAPS}?labelSelector=l%3Dx&limit=2")).await.body), ["a", "c"]);
    assert_eq!(names(&c.get(&format!("{MAPS}?fieldSelector=metadata.name%3Db")).await.body), ["b"]);
    let refused = c.get(&format!("{MAPS}?fieldSelector=data%3Db")).await;
    assert_eq!(refused.refusal(), (400, "BadRequest", "field label not supported: data"));
    tokio::time::pause();
    let ahead = c.get(&format!("{MAPS}?resourceVersion=999999")).await;
    tokio::time::resume();
    assert_eq!((ahead.code, &ahead.body["details"]["causes"][0]["reason"]), (504, &json!("ResourceVersionTooLarge")));
    c.stop().await;
}

#[tokio::test]
async fn a_page_that_comes_too_late_says_how_to_go_on() {
    let c = Cluster::start_with(|config| Config { pages: Duration::ZERO, ..config }).await;
    for name in ["a", "b"] {
        make(&c, name, "x").await;
    }
    let first = c.get(&format!("{MAPS}?limit=1")).await;
    let token = first.body["metadata"]["continue"].as_str().unwrap();
    make(&c, "c", "x").await;
    let late = c.get(&format!("{MAPS}?limit=1&continue={token}")).await;
    let (code, reason, message) = late.refusal();
    assert!((code, reason) == (410, "Expired") && message.starts_with("The provided continue parameter is too old"));
    let token = late.body["metadata"]["continue"].as_str().unwrap();
    let rest = c.get(&format!("{MAPS}?limit=9&continue={token}")).await;
    assert_eq!(names(&rest.body), ["b", "c", "kube-root-ca.crt"]);
    // What was can be asked for as such all the same.
    let then = c.get(&format!("{MAPS}?resourceVersion={}&resourceVersionMatch=Exact", first.version())).await;
    assert_eq!(names(&then.body), ["a", "b", "kube-root-ca.crt"]);
    c.stop().await;
}

#[tokio::test]
async fn a_watch_tells_what_comes_into_and_goes_out_of_its_selection() {
    let c = Cluster::start().await;
    let begin = c.get(MAPS).await.version().to_owned();
    make(&c, "a", "x").await;
    for label in ["y", "x"] {
        c.merge(&format!("{MAPS}/a"), &json!({"metadata": {"labels": {"l": label}}})).await;
    }
    c.merge(&format!("{MAPS}/a"), &json!({"data": {"k": "v"}})).await;
    c.delete(&format!("{MAPS}/a")).await;
    let path = format!("{MAPS}?watch=1&labelSelector=l%3Dx&resourceVersion={begin}");
    let told: Vec<String> = events(&c, &path, 5).await.into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(told, ["ADDED", "DELETED", "ADDED", "MODIFIED", "DELETED"]);
    c.stop().await;
}

#[tokio::test]
async fn a_watch_list_ends_its_beginning_with_a_bookmark() {
    let c = Cluster::start().await;
    make(&c, "a", "x").await;
    let path =
        format!("{MAPS}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true");
    let told = events(&c, &path, 3).await;
    let kinds: Vec<&str> = told.iter().map(|(kind, _)| kind.as_str()).collect();
    assert_eq!(kinds, ["ADDED", "ADDED", "BOOKMARK"]);
    c.stop().await;
}

#[tokio::test]
async fn tables_and_metadata_are_shown_to_who_asks() {
    let c = Cluster::start().await;
    make(&c, "a", "x").await;
    let ask = async |accept: &str| {
        let request = Request::get(MAPS).header("accept", accept).body(Body::empty()).unwrap();
        let response = c.service().oneshot(request).await.unwrap();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        serde_json::from_slice::<Value>(&body).unwrap()
    };
    let table = ask("application/json;as=Table;v=v1;g=meta.k8s.io,application/json").await;
    assert_eq!((&table["kind"], &table["rows"][0]["cells"][0]), (&json!("Table"), &json!("a")));
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let partial = ask("application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io").await;
    assert_eq!(partial["items"][0]["metadata"]["labels"]["l"], "x");
    // In the version of before 2019 it is the same under another name.
    let old = ask("application/json;as=Table;v=v1beta1;g=meta.k8s.io, application/json").await;
    let row = &old["rows"][0];
    assert_eq!((&old["apiVersion"], &row["cells"][0]), (&json!("meta.k8s.io/v1beta1"), &json!("a")));
    assert_eq!(row["object"]["apiVersion"], "meta.k8s.io/v1beta1");
    let old = ask("application/json;as=PartialObjectMetadataList;v=v1beta1;g=meta.k8s.io").await;
    let versions = (&old["apiVersion"], &old["items"][0]["apiVersion"]);
    assert_eq!(versions, (&json!("meta.k8s.io/v1beta1"), &json!("meta.k8s.io/v1beta1")));
    c.stop().await;
}

#[tokio::test]
async fn an_event_is_selected_by_the_names_of_the_group_it_is_read_in() {
    let c = Cluster::start().await;
    let events = "/apis/events.k8s.io/v1/namespaces/default/events";
    let event = json!({"metadata": {"name": "e"}, "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "tests",
        "reportingInstance": "t-1", "action": "Test", "reason": "Tested", "type": "Normal",
        "regarding": {"kind": "Pod", "name": "p", "namespace": "default"}});
    assert_eq!(c.post(events, &event).await.code, 201);
    for path in [
        "/api/v1/namespaces/default/events?fieldSelector=reportingComponent%3Dtests,involvedObject.name%3Dp".to_owned(),
        format!("{events}?fieldSelector=reportingController%3Dtests,regarding.name%3Dp"),
        "/api/v1/namespaces/default/events?fieldSelector=source%3Dtests".to_owned(),
    ] {
        let listed = c.get(&path).await;
        assert_eq!(listed.body["items"][0]["metadata"]["name"], "e", "{path}: {}", listed.body);
    }
    c.stop().await;
}
