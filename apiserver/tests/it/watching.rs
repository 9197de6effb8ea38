//! Watches: from versions to come, bookmarks, over TLS, and with readers who do not read.

use std::collections::VecDeque;

use axum::body::Body;
use coracle_apiserver::{pki::Profile, service::Service};
use coracle_store::{Op, Txn};
use futures::{StreamExt as _, TryStreamExt as _};
use http::Request;
use http_body_util::BodyExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    api::{PostParams, WatchEvent, WatchParams},
};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{self, Message, client::IntoClientRequest as _};
use tower::ServiceExt as _;

use crate::harness::Cluster;

const MAPS: &str = "/api/v1/namespaces/kube-public/configmaps";

/// A watch under way.
pub(crate) struct Following {
    body: Body,
    text: String,
    events: VecDeque<Value>,
}

impl Following {
    pub(crate) async fn begin(c: &Cluster, path: &str) -> Self {
        Self::through(c.service(), path).await
    }

    async fn through(service: Service, path: &str) -> Self {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = service.oneshot(request).await.unwrap();
        assert_eq!(response.status().as_u16(), 200);
        Self { body: response.into_body(), text: String::new(), events: VecDeque::new() }
    }

    pub(crate) async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            let frame = self.body.frame().await?.unwrap();
            self.text.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
            while let Some((line, rest)) = self.text.split_once('\n') {
                self.events.push_back(serde_json::from_str(line).unwrap());
                self.text = rest.to_owned();
            }
        }
    }

    /// The next event's type and its object's name.
    async fn told(&mut self) -> (String, String) {
        let event = self.next().await.unwrap();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (text(&event["type"]), text(&event["object"]["metadata"]["name"]))
    }
}

async fn make(c: &Cluster, name: &str) -> u64 {
    let made = c.post(MAPS, &json!({"metadata": {"name": name}})).await;
    assert_eq!(made.code, 201, "{}", made.body);
    made.version().parse().unwrap()
}

#[tokio::test]
async fn a_watch_from_a_version_to_come_tells_only_what_follows_it() {
    let c = Cluster::start().await;
    let now: u64 = c.get(MAPS).await.version().parse().unwrap();
    let mut watch = Following::begin(&c, &format!("{MAPS}?watch=1&resourceVersion={}", now + 2)).await;
    for name in ["a", "b", "c"] {
        make(&c, name).await;
    }
    assert_eq!(watch.told().await, ("ADDED".to_owned(), "c".to_owned()));
    c.stop().await;
}

#[tokio::test]
async fn components_are_not_told_who_owns_which_fields() {
    let c = Cluster::start().await;
    assert_eq!(c.post(MAPS, &json!({"metadata": {"name": "a"}, "data": {"k": "u"}})).await.code, 201);
    let query = "watch=1&resourceVersion=0&fieldSelector=metadata.name%3Da";
    let mut whole = Following::begin(&c, &format!("{MAPS}?{query}")).await;
    let mut lean = Following::through(c.service().without_owners(), &format!("{MAPS}?{query}")).await;
    let mut turn = 0;
    for expected in ["ADDED", "MODIFIED", "DELETED"] {
        let (mut whole, lean) = (whole.next().await.unwrap(), lean.next().await.unwrap());
        assert_eq!(whole["type"], expected);
        let owners = whole["object"]["metadata"].as_object_mut().unwrap().remove("managedFields").unwrap();
        assert_eq!(owners[0]["operation"], "Update");
        assert_eq!(lean, whole);
        turn += 1;
        match turn {
            1 => assert_eq!(c.merge(&format!("{MAPS}/a"), &json!({"data": {"k": "v"}})).await.code, 200),
            _ => drop(c.delete(&format!("{MAPS}/a")).await),
        }
    }
    c.stop().await;
}

#[tokio::test]
async fn a_read_of_a_version_to_come_waits_until_it_is_there() {
    let c = Cluster::start().await;
    let now: u64 = c.get(MAPS).await.version().parse().unwrap();
    let list = format!("{MAPS}?resourceVersion={}", now + 1);
    let (listed, ()) = tokio::join!(biased; c.get(&list), async {
        make(&c, "a").await;
    });
    assert_eq!((listed.code, listed.version()), (200, (now + 1).to_string().as_str()));
    let watch =
        format!("{MAPS}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion=999999");
    for path in [format!("{MAPS}/a?resourceVersion=999999"), watch] {
        tokio::time::pause();
        let ahead = c.get(&path).await;
        tokio::time::resume();
        let current = now + 1;
        let words = format!("Timeout: Too large resource version: 999999, current: {current}");
        assert_eq!(ahead.refusal(), (504, "Timeout", words.as_str()), "{path}");
        assert_eq!(ahead.body["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
        assert_eq!(ahead.body["details"]["retryAfterSeconds"], 1);
    }
    c.stop().await;
}

#[tokio::test]
async fn a_quiet_watch_is_told_from_time_to_time_how_far_it_is() {
    let c = Cluster::start().await;
    let version = make(&c, "a").await;
    let after = format!("{MAPS}?watch=1&resourceVersion={version}&timeoutSeconds=90");
    let mut watch = Following::begin(&c, &format!("{after}&allowWatchBookmarks=true")).await;
    let mut silent = Following::begin(&c, &after).await;
    // Something that is not watched makes the version grow all the same.
    let elsewhere = format!("/api/v1/namespaces?watch=1&resourceVersion={version}");
    let mut elsewhere = Following::begin(&c, &elsewhere).await;
    assert_eq!(c.post("/api/v1/namespaces", &json!({"metadata": {"name": "n"}})).await.code, 201);
    // Who is told of it knows that all watches are as far.
    assert_eq!(elsewhere.next().await.unwrap()["type"], "ADDED");
    drop(elsewhere);
    tokio::time::pause();
    let mark = watch.next().await.unwrap();
    assert_eq!((&mark["type"], &mark["object"]["kind"]), (&json!("BOOKMARK"), &json!("ConfigMap")));
    let marked: u64 = mark["object"]["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    assert!(marked > version, "{marked} after {version}");
    assert_eq!(watch.next().await.unwrap()["type"], "BOOKMARK", "one more at the end");
    assert_eq!((watch.next().await, silent.next().await), (None, None));
    tokio::time::resume();
    c.stop().await;
}

#[tokio::test]
async fn a_watch_over_tls_tells_what_happens() {
    let c = Cluster::start().await;
    let kubeconfig = std::fs::read_to_string(c.server.pki().admin_kubeconfig()).unwrap();
    let parsed = kube::config::Kubeconfig::from_yaml(&kubeconfig).unwrap();
    let config = kube::Config::from_custom_kubeconfig(parsed, &Default::default()).await.unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(Client::try_from(config).unwrap(), "kube-public");
    let now = c.get(MAPS).await.version().to_owned();
    let watch = maps.watch(&WatchParams::default(), &now).await.unwrap();
    futures::pin_mut!(watch);
    for name in ["a", "b"] {
        let mut map = ConfigMap::default();
        map.metadata.name = Some(name.to_owned());
        maps.create(&PostParams::default(), &map).await.unwrap();
        let told = watch.try_next().await.unwrap().unwrap();
        assert!(matches!(told, WatchEvent::Added(map) if map.metadata.name.as_deref() == Some(name)));
    }
    c.stop().await;
}

#[tokio::test]
async fn a_watch_over_a_websocket_is_a_message_an_event() {
    let c = Cluster::start().await;
    let open = async |path: &str| {
        let request = format!("wss://127.0.0.1{path}").into_client_request().unwrap();
        tokio_tungstenite::client_async(request, c.connect(&Profile::client("admin", Some("system:masters"))).await)
            .await
    };
    make(&c, "a").await;
    let (mut socket, answer) = open(&format!("{MAPS}?watch=1&fieldSelector=metadata.name%3Da")).await.unwrap();
    assert_eq!(answer.status().as_u16(), 101);
    c.merge(&format!("{MAPS}/a"), &json!({"data": {"k": "v"}})).await;
    c.delete(&format!("{MAPS}/a")).await;
    for expected in ["ADDED", "MODIFIED", "DELETED"] {
        let Some(Ok(Message::Text(text))) = socket.next().await else { panic!("a text is expected") };
        let event: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&event["type"], &event["object"]["metadata"]["name"]), (&json!(expected), &json!("a")));
    }
    socket.close(None).await.unwrap();
    let refused = open("/api/v1/namespaces/kube-public/pods/none/log").await.unwrap_err();
    assert!(matches!(refused, tungstenite::Error::Http(answer) if answer.status().as_u16() == 404));
    let refused = open(&format!("{MAPS}?watch=1&fieldSelector=spec.none%3Da")).await.unwrap_err();
    assert!(matches!(refused, tungstenite::Error::Http(answer) if answer.status().as_u16() == 400));
    // What is left open does not keep the server from stopping.
    let (_left, _) = open(&format!("{MAPS}?watch=1")).await.unwrap();
    c.stop().await;
}

#[tokio::test]
async fn a_watcher_who_does_not_read_is_dropped_and_costs_nobody() {
    const CHANGES: usize = 10_100;
    let c = Cluster::start().await;
    let path = format!("{MAPS}?watch=1&resourceVersion={}", c.get(MAPS).await.version());
    let (mut idle, mut busy) = (Following::begin(&c, &path).await, Following::begin(&c, &path).await);
    let object = br#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a","namespace":"kube-public"}}"#;
    let read = async {
        for _ in 0..CHANGES {
            assert_ne!(busy.told().await.0, "ERROR");
        }
    };
    let write = async {
        let store = c.server.registry().store();
        for n in 0..CHANGES / 100 {
            let key = |i: usize| format!("/registry/configmaps/kube-public/a{}", n * 100 + i);
            let then = (0..100).map(|i| Op::put(key(i), object.to_vec())).collect();
            store.txn(Txn { then, ..Txn::default() }).await.unwrap();
        }
    };
    tokio::join!(read, write);
    let mut last = Value::Null;
    while let Some(event) = idle.next().await {
        last = event;
    }
    assert_eq!((&last["type"], &last["object"]["code"]), (&json!("ERROR"), &json!(410)));
    c.stop().await;
}
