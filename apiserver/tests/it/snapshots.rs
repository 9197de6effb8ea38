//! Snapshots of a running server, and servers begun with them.

use std::path::Path;

use axum::body::{Body, Bytes};
use coracle_apiserver::{
    config::Config,
    server::{ApiServer, Error},
    snapshot::{self, RestoreError},
    user::User,
};
use http::Request;
use http_body_util::BodyExt as _;
use serde_json::json;
use tower::ServiceExt as _;

use crate::{harness::Cluster, watching::Following};

const MAPS: &str = "/api/v1/namespaces/kube-public/configmaps";

async fn start(dir: &Path) -> Cluster {
    Cluster::start_with(|config| Config { data_dir: dir.to_owned(), ..config }).await
}

async fn save(c: &Cluster) -> Bytes {
    let request = Request::get("/coracle/v1/snapshot").body(Body::empty()).unwrap();
    let response = c.service().oneshot(request).await.unwrap();
    assert_eq!(response.status(), 200);
    response.into_body().collect().await.unwrap().to_bytes()
}

fn restore(bytes: &[u8], dir: &Path) -> Result<snapshot::Restored, RestoreError> {
    snapshot::restore(bytes, Path::new("snapshot"), dir, Some(jiff::Timestamp::now()))
}

#[tokio::test]
async fn a_server_begun_with_a_snapshot_is_the_same_cluster_and_old_watches_end() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("first"), dir.path().join("second"));
    let c = start(&first).await;
    let authority = c.server.pki().authority().pem().to_owned();
    c.post(MAPS, &json!({"metadata": {"name": "before"}, "data": {"a": "b"}})).await;
    let secrets = "/api/v1/namespaces/kube-public/secrets";
    c.post(secrets, &json!({"metadata": {"name": "s"}, "stringData": {"password": "x"}})).await;
    // Enough for several parts.
    let large = "x".repeat(100_000);
    for at in 0..8 {
        c.post(MAPS, &json!({"metadata": {"name": format!("large-{at}")}, "data": {"a": large}})).await;
    }
    let wanted = c.get(MAPS).await;
    let bytes = save(&c).await;
    let later = c.post(MAPS, &json!({"metadata": {"name": "after"}})).await;
    c.stop().await;

    let restored = restore(&bytes, &second).unwrap();
    assert!(restored.revision > 1_000_000_000);
    assert!(restored.summary.objects["configmaps"] >= 9 && restored.summary.objects["secrets"] >= 1);
    let c = start(&second).await;
    assert_eq!(c.server.pki().authority().pem(), authority);
    let found = c.get(MAPS).await;
    assert_eq!(found.body["items"], wanted.body["items"]);
    assert!(found.version().parse::<u64>().unwrap() >= restored.revision);
    assert_eq!(c.get(&format!("{secrets}/s")).await.body["data"]["password"], "eA==");
    // Whoever followed the cluster that is gone is told to begin anew, also from after the snapshot.
    for version in [wanted.version(), later.version()] {
        let mut watch = Following::begin(&c, &format!("{MAPS}?watch=1&resourceVersion={version}")).await;
        let event = watch.next().await.unwrap();
        assert_eq!((&event["type"], &event["object"]["code"]), (&json!("ERROR"), &json!(410)));
    }
    let exact = c.get(&format!("{MAPS}?resourceVersion={}&resourceVersionMatch=Exact", wanted.version())).await;
    assert_eq!(exact.code, 410);
    // And what he holds of before is still what it was.
    let mut map = found.body["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|item| item["metadata"]["name"] == "before")
        .unwrap()
        .clone();
    map["data"]["a"] = json!("c");
    assert_eq!(c.put(&format!("{MAPS}/before"), &map).await.code, 200);
    let refused = restore(&bytes, &second).unwrap_err();
    assert!(refused.to_string().contains("a server is running there"), "{refused}");
    c.stop().await;
    let refused = restore(&bytes, &second).unwrap_err();
    assert!(refused.to_string().contains("it is not empty"), "{refused}");
    let c = start(&second).await;
    assert_eq!(c.get(&format!("{MAPS}/before")).await.body["data"]["a"], "c");
    c.stop().await;
}

#[tokio::test]
async fn a_snapshot_that_is_cut_short_or_altered_makes_no_cluster() {
    let c = Cluster::start().await;
    c.post(MAPS, &json!({"metadata": {"name": "m"}})).await;
    let bytes = save(&c).await.to_vec();
    c.stop().await;
    let dir = tempfile::tempdir().unwrap();
    for (at, (broken, why)) in [
        (bytes[..bytes.len() / 2].to_vec(), "cut short: it ends at byte"),
        (bytes[..bytes.len() - 1].to_vec(), "cut short"),
        ([&bytes[..bytes.len() / 2], b"?", &bytes[bytes.len() / 2 + 1..]].concat(), "damaged or was altered at byte"),
        ([&bytes[..16], &[9][..], &bytes[17..]].concat(), "has format 9, and this version reads up to 1"),
        (b"PK\x03\x04".to_vec(), "no snapshot of Coracle"),
    ]
    .into_iter()
    .enumerate()
    {
        let into = dir.path().join(at.to_string());
        let refused = restore(&broken, &into).unwrap_err();
        assert!(refused.to_string().contains(why), "{refused}");
        let config = Config::new(&into, "127.0.0.1:0".parse().unwrap());
        let Err(Error::Unfinished { .. }) = ApiServer::open(config).await else { panic!("it started") };
    }
    restore(&bytes, &dir.path().join("whole")).unwrap();
}

#[tokio::test]
async fn a_snapshot_is_taken_while_others_write_and_shows_one_revision() {
    let c = Cluster::start().await;
    let service = c.service();
    let writes = async {
        for at in 0..200 {
            let body = json!({"metadata": {"name": format!("m{at}")}}).to_string();
            let request =
                Request::post(MAPS).header("content-type", "application/json").body(Body::from(body)).unwrap();
            assert_eq!(service.clone().oneshot(request).await.unwrap().status(), 201);
        }
    };
    let saves = async {
        let mut all = Vec::new();
        for _ in 0..5 {
            all.push(save(&c).await);
        }
        all
    };
    let ((), snapshots) = tokio::join!(writes, saves);
    for bytes in snapshots {
        let mut decoder = snapshot::Decoder::default();
        let mut newest = 0;
        let taken = decoder.push::<snapshot::Error>(&bytes, |part| {
            if let snapshot::Part::Entries(entries) = part {
                newest = entries.iter().map(|entry| entry.mod_revision.0).max().unwrap_or(0).max(newest);
            }
            Ok(())
        });
        taken.unwrap();
        assert_eq!(decoder.finish().unwrap().header.revision, newest, "what was written last is in it");
    }
    c.stop().await;
}

#[tokio::test]
async fn only_who_was_granted_it_gets_a_snapshot() {
    let c = Cluster::start().await;
    let somebody = c.server.service(User::new("somebody", &["system:authenticated"]));
    let request = Request::get("/coracle/v1/snapshot").body(Body::empty()).unwrap();
    assert_eq!(somebody.oneshot(request).await.unwrap().status(), 403);
    assert_eq!(c.post("/coracle/v1/snapshot", &json!(null)).await.code, 405);
    c.stop().await;
}

#[tokio::test]
async fn the_past_is_read_by_how_long_ago_it_was() {
    let c = Cluster::start().await;
    let created = c.post(MAPS, &json!({"metadata": {"name": "m"}, "data": {"a": "before"}})).await;
    let ago = |seconds: u64| format!("/coracle/v1/revision?ago={seconds}");
    let now = c.get(&ago(0)).await;
    assert!(now.body["revision"].as_u64().unwrap() >= created.version().parse().unwrap());
    c.merge(&format!("{MAPS}/m"), &json!({"data": {"a": "after"}})).await;
    let exact = format!("{MAPS}?resourceVersion={}&resourceVersionMatch=Exact", now.body["revision"]);
    let was = c.get(&exact).await;
    assert_eq!((was.code, was.version()), (200, now.body["revision"].to_string().as_str()));
    let item = was.body["items"].as_array().unwrap().iter().find(|item| item["metadata"]["name"] == "m").unwrap();
    assert_eq!(item["data"]["a"], "before");
    let selected = c.get(&format!("{exact}&fieldSelector=metadata.name=m")).await;
    assert_eq!(selected.body["items"][0]["data"]["a"], "before");
    // Longer ago than the server runs.
    assert_eq!(c.get(&ago(86_400)).await.refusal().0, 410);
    assert_eq!(c.get(&ago(u64::MAX)).await.refusal().0, 410);
    assert_eq!(c.get("/coracle/v1/revision?ago=soon").await.code, 400);
    assert_eq!(c.get("/coracle/v1/revision").await.code, 400);
    c.stop().await;
}
