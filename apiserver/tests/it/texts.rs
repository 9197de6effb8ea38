//! Texts in every script wherever texts may stand, and names as long as they may be and one letter longer.

use http::{Request, header};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::{
    definitions::{establish, foos, open},
    harness::Cluster,
};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// Letters of one to four bytes, such that are two code points, that turn the direction of writing, that end a line for some
/// and not for others, and that JSON and YAML write with a backslash.
const TEXTS: &[&str] = &[
    "größe",
    "名前",
    "\u{1f980}\u{1f3fd}",
    "e\u{301}",
    "\u{202e}txet",
    "\u{feff}",
    "a\u{2028}b\u{85}c",
    "\t\"quoted\"\\\r\n",
    "\u{1}\u{7f}",
    "yes",
    "0644",
    "~",
    ": #",
    " ",
];

#[tokio::test]
async fn texts_come_back_as_they_went_in_every_encoding() {
    let c = Cluster::start().await;
    establish(&c, &foos(&open())).await;
    for (index, text) in TEXTS.iter().enumerate() {
        let name = format!("t{index}");
        let one = format!("{MAPS}/{name}");
        let annotations = json!({"note": text});
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "annotations": annotations},
            "data": {"k": text}});
        let made = c.post(MAPS, &map).await;
        assert_eq!((made.code, &made.body["data"]["k"]), (201, &json!(text)), "{text:?}: {}", made.body);
        for (accept, read) in [
            ("application/yaml", yaml as fn(&[u8]) -> Value),
            ("application/vnd.kubernetes.protobuf", protobuf),
            ("application/json", json),
        ] {
            let request = Request::get(&one).header(header::ACCEPT, accept).body(axum::body::Body::empty()).unwrap();
            let bytes = c.service().oneshot(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
            assert_eq!(read(&bytes), made.body, "{text:?} as {accept}");
            // And back again, as a body: nothing changes, so nothing is written.
            let same = c.send("PUT", &one, accept, bytes).await;
            assert_eq!((same.code, same.version()), (200, made.version()), "{text:?} as {accept}: {}", same.body);
        }
        for (media, patch) in [
            ("application/merge-patch+json", json!({"data": {"k": format!("{text}1")}})),
            ("application/strategic-merge-patch+json", json!({"data": {"k": format!("{text}2")}})),
            ("application/json-patch+json", json!([{"op": "replace", "path": "/data/k", "value": format!("{text}3")}])),
        ] {
            let patched = c.send("PATCH", &one, media, patch.to_string()).await;
            assert!(
                patched.body["data"]["k"].as_str().is_some_and(|k| k.starts_with(text)),
                "{text:?}: {}",
                patched.body
            );
        }
        let foo =
            json!({"apiVersion": "example.com/v1", "kind": "Foo", "metadata": {"name": name}, "spec": {*text: text}});
        let path = format!("/apis/example.com/v1/namespaces/default/foos/{name}?fieldManager=m");
        let applied = c.send("PATCH", &path, "application/apply-patch+yaml", foo.to_string()).await;
        assert_eq!((applied.code, &applied.body["spec"]), (201, &foo["spec"]), "{text:?}: {}", applied.body);
        let owned = &applied.body["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"];
        assert_eq!(owned[format!("f:{text}")], json!({}), "{text:?}: {owned}");
        let again = c.send("PATCH", &path, "application/apply-patch+yaml", foo.to_string()).await;
        assert_eq!(again.version(), applied.version(), "{text:?}");
    }
    c.stop().await;
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

fn yaml(bytes: &[u8]) -> Value {
    coracle_proto::yaml::parse_one(std::str::from_utf8(bytes).unwrap()).unwrap()
}

fn protobuf(bytes: &[u8]) -> Value {
    coracle_proto::protobuf::to_json(bytes).unwrap()
}

#[tokio::test]
async fn where_only_plain_letters_may_stand_others_are_refused() {
    let c = Cluster::start().await;
    for text in ["größe", "名前", "\u{1f980}", "a\u{301}"] {
        for (map, field) in [
            (json!({"metadata": {"name": text}}), "metadata.name"),
            (json!({"metadata": {"name": "a", "labels": {"k": text}}}), "metadata.labels"),
            (json!({"metadata": {"name": "a", "labels": {text: "v"}}}), "metadata.labels"),
            (json!({"metadata": {"name": "a", "annotations": {text: "v"}}}), "metadata.annotations"),
            (json!({"metadata": {"name": "a", "finalizers": [text]}}), "metadata.finalizers"),
            (json!({"metadata": {"name": "a"}, "data": {text: "v"}}), "data["),
        ] {
            let refused = c.post(MAPS, &map).await;
            let causes = refused.body["details"]["causes"].as_array().cloned().unwrap_or_default();
            let named = causes.iter().any(|cause| cause["field"].as_str().is_some_and(|f| f.starts_with(field)));
            assert!(refused.code == 422 && named, "{text:?}, {field}: {} {}", refused.code, refused.body);
        }
        let encoded: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
        assert_eq!(c.get(&format!("{MAPS}/{encoded}")).await.code, 404, "{text:?}");
        assert_eq!(c.get(&format!("{MAPS}?labelSelector=a%3D{encoded}")).await.code, 400, "{text:?}");
        let selected = c.get(&format!("{MAPS}?fieldSelector=metadata.name%3D{encoded}")).await;
        assert_eq!((selected.code, &selected.body["items"]), (200, &json!([])), "{text:?}");
    }
    c.stop().await;
}

/// Kinds' names with the most letters they may have: where, how many, and an object.
fn longest() -> Vec<(&'static str, usize, Value)> {
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let once = json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}});
    let selected = json!({"selector": {"matchLabels": {"a": "b"}}, "template": template});
    vec![
        ("/api/v1/namespaces/default/configmaps", 253, json!({})),
        ("/api/v1/namespaces/default/secrets", 253, json!({})),
        ("/api/v1/namespaces/default/pods", 253, template.clone()),
        ("/api/v1/namespaces/default/services", 63, json!({"spec": {"ports": [{"port": 80}]}})),
        ("/api/v1/namespaces", 63, json!({})),
        ("/apis/apps/v1/namespaces/default/deployments", 253, json!({"spec": selected})),
        (
            "/apis/batch/v1/namespaces/default/cronjobs",
            52,
            json!({"spec": {"schedule": "@daily", "jobTemplate": {"spec": {"template": once}}}}),
        ),
        ("/apis/batch/v1/namespaces/default/jobs", 63, json!({"spec": {"template": once}})),
    ]
}

#[tokio::test]
async fn names_are_as_long_as_they_may_be_and_no_longer() {
    let c = Cluster::start().await;
    for (path, most, mut object) in longest() {
        for (length, code) in [(most, 201), (most + 1, 422)] {
            object["metadata"]["name"] = "n".repeat(length).into();
            let told = c.post(&format!("{path}?dryRun=All"), &object).await;
            assert_eq!(told.code, code, "{path}, {length} letters: {}", told.body);
            let fits = format!("must be no more than {most} ");
            assert!(code == 201 || told.body["message"].as_str().unwrap().contains(&fits), "{path}: {}", told.body);
        }
    }
    let (label, prefix) = ("l".repeat(63), format!("{}.{}", "p".repeat(126), "p".repeat(126)));
    for (labels, code) in [
        (json!({format!("{prefix}/{label}"): label}), 201),
        (json!({format!("{prefix}p/{label}"): ""}), 422),
        (json!({format!("{prefix}/{label}l"): ""}), 422),
        (json!({"k": format!("{label}l")}), 422),
    ] {
        let told = c.post(&format!("{MAPS}?dryRun=All"), &json!({"metadata": {"name": "a", "labels": labels}})).await;
        assert_eq!(told.code, code, "{labels}: {}", told.body);
    }
    for (length, code) in [(256 * 1024 - 1, 201), (256 * 1024, 422)] {
        let annotations = json!({"k": "a".repeat(length)});
        let told = c
            .post(&format!("{MAPS}?dryRun=All"), &json!({"metadata": {"name": "a", "annotations": annotations}}))
            .await;
        assert_eq!(told.code, code, "{length} bytes of annotations");
    }
    let named = c.post(MAPS, &json!({"metadata": {"generateName": "g".repeat(200)}})).await;
    assert_eq!(named.body["metadata"]["name"].as_str().map(str::len), Some(63), "{}", named.body);
    c.stop().await;
}
