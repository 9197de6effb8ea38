//! Custom resources in several versions, between which a webhook converts.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::{
    definitions::{DEFINITIONS, establish, foos, open},
    harness::Cluster,
    watching::Following,
    webhook_server::{Hook, Reply},
};

const V1: &str = "/apis/example.com/v1/namespaces/default/foos";
const V2: &str = "/apis/example.com/v2/namespaces/default/foos";

/// How the webhook answers next; it converts when there is nothing here.
type Mood = Arc<Mutex<Option<fn(&Value) -> Reply>>>;

/// `spec.address` of v1 is `spec.host` and `spec.port` of v2.
fn convert(object: &Value, to: &str) -> Value {
    let mut object = object.clone();
    if object["apiVersion"] == to {
        return object;
    }
    object["apiVersion"] = to.into();
    let spec = object["spec"].as_object_mut().unwrap();
    if to == "example.com/v2" {
        let address = spec.remove("address").unwrap();
        let (host, port) = address.as_str().unwrap().split_once(':').unwrap();
        spec.insert("host".to_owned(), host.into());
        spec.insert("port".to_owned(), port.into());
    } else {
        let text = |value: Option<Value>| value.and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default();
        let address = format!("{}:{}", text(spec.remove("host")), text(spec.remove("port")));
        spec.insert("address".to_owned(), address.into());
    }
    object
}

fn all(request: &Value) -> Value {
    let to = request["desiredAPIVersion"].as_str().unwrap();
    request["objects"].as_array().unwrap().iter().map(|object| convert(object, to)).collect()
}

async fn hook(mood: &Mood) -> Hook {
    let mood = Arc::clone(mood);
    Hook::start(move |request| match *mood.lock().unwrap() {
        Some(answer) => answer(request),
        None => Reply::Response(json!({"result": {"status": "Success"}, "convertedObjects": all(request)})),
    })
    .await
}

fn schema(fields: &[&str]) -> Value {
    let fields: serde_json::Map<String, Value> =
        fields.iter().map(|name| ((*name).to_owned(), json!({"type": "string"}))).collect();
    json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": fields},
        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}})
}

fn definition(hook: &Hook, reviews: &[&str], storage: &str) -> Value {
    let mut definition = foos(&open());
    definition["spec"]["conversion"] = json!({"strategy": "Webhook", "webhook": {
        "conversionReviewVersions": reviews, "clientConfig": {"url": hook.url(), "caBundle": hook.bundle()}}});
    let version = |name: &str, schema: Value, fields: Value| {
        json!({"name": name, "served": true, "storage": name == storage, "schema": {"openAPIV3Schema": schema},
               "subresources": {"status": {}}, "selectableFields": fields})
    };
    definition["spec"]["versions"] = json!([
        version("v1", schema(&["address"]), json!([{"jsonPath": ".spec.address"}])),
        version("v2", schema(&["host", "port"]), json!([{"jsonPath": ".spec.host"}])),
    ]);
    definition
}

fn one(name: &str, address: &str) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Foo", "metadata": {"name": name}, "spec": {"address": address}})
}

fn two(name: &str, host: &str, port: &str) -> Value {
    json!({"apiVersion": "example.com/v2", "kind": "Foo", "metadata": {"name": name},
           "spec": {"host": host, "port": port}})
}

/// What a stored definition changes is served; watches of what was served before end then.
async fn replaced(c: &Cluster, path: &str, definition: &Value) {
    let mut before = Following::begin(c, &format!("{path}?watch=1&resourceVersion=1")).await;
    let name = definition["metadata"]["name"].as_str().unwrap();
    let change = json!({"spec": definition["spec"]});
    let changed = c.merge(&format!("{DEFINITIONS}/{name}"), &change).await;
    assert_eq!(changed.code, 200, "{}", changed.body);
    while before.next().await.is_some() {}
}

#[tokio::test]
async fn objects_are_read_written_and_watched_in_any_version() {
    let c = Cluster::start().await;
    let mood = Mood::default();
    let hook = hook(&mood).await;
    establish(&c, &definition(&hook, &["v1"], "v1")).await;
    for name in ["a", "b"] {
        assert_eq!(c.post(V1, &one(name, &format!("{name}:80"))).await.code, 201);
    }
    assert!(hook.seen().is_empty(), "what is written and read as it is stored needs no conversion");
    let made = c.post(V2, &two("c", "c", "443")).await;
    assert_eq!((made.code, &made.body["spec"]), (201, &json!({"host": "c", "port": "443"})), "{}", made.body);
    assert_eq!(made.body["apiVersion"], "example.com/v2");
    assert_eq!(c.get(&format!("{V1}/c")).await.body["spec"], json!({"address": "c:443"}));
    assert_eq!(c.get(&format!("{V2}/a")).await.body["spec"], json!({"host": "a", "port": "80"}));

    // A list is one review, of those alone that are of another version.
    let before = hook.seen().len();
    let listed = c.get(V2).await;
    let hosts = |list: &Value| -> Vec<String> {
        list["items"].as_array().unwrap().iter().map(|o| o["spec"]["host"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!((listed.code, hosts(&listed.body)), (200, vec!["a".to_owned(), "b".to_owned(), "c".to_owned()]));
    let asked = hook.seen();
    assert_eq!(asked.len(), before + 1);
    assert_eq!(asked[before]["objects"].as_array().map(Vec::len), Some(3));
    assert_eq!(asked[before]["desiredAPIVersion"], "example.com/v2");
    // Selectors see the version they are asked in.
    let selected = c.get(&format!("{V2}?fieldSelector=spec.host%3Db")).await;
    assert_eq!(hosts(&selected.body), ["b"]);
    assert_eq!(c.get(&format!("{V2}?fieldSelector=spec.address%3Db")).await.code, 400);

    // Watches of both versions see the same change, each in its own words.
    let version = listed.version();
    let mut first = Following::begin(&c, &format!("{V1}?watch=1&resourceVersion={version}")).await;
    let mut second = Following::begin(&c, &format!("{V2}?watch=1&resourceVersion={version}")).await;
    let mut chosen =
        Following::begin(&c, &format!("{V2}?watch=1&resourceVersion={version}&fieldSelector=spec.host%3Da")).await;
    let changed = c.merge(&format!("{V2}/a"), &json!({"spec": {"port": "81"}})).await;
    assert_eq!((changed.code, &changed.body["metadata"]["generation"]), (200, &json!(2)), "{}", changed.body);
    assert_eq!(first.next().await.unwrap()["object"]["spec"], json!({"address": "a:81"}));
    let event = second.next().await.unwrap();
    assert_eq!((&event["type"], &event["object"]["spec"]["port"]), (&json!("MODIFIED"), &json!("81")));
    assert_eq!(chosen.next().await.unwrap()["object"]["spec"]["port"], "81");
    assert_eq!(c.merge(&format!("{V2}/a"), &json!({"spec": {"host": "z"}})).await.code, 200);
    let event = chosen.next().await.unwrap();
    assert_eq!((&event["type"], &event["object"]["spec"]["host"]), (&json!("DELETED"), &json!("a")));

    // A change that changes nothing is none, in whichever version.
    let now = c.get(&format!("{V2}/a")).await;
    let same = c.put(&format!("{V2}/a"), &now.body).await;
    assert_eq!((same.code, same.version()), (200, now.version()), "{}", same.body);
    // Status, JSON Patch, apply, dry run.
    let status = c.merge(&format!("{V2}/a/status"), &json!({"status": {"ready": "yes"}})).await;
    assert_eq!(status.body["status"]["ready"], "yes", "{}", status.body);
    assert_eq!(c.get(&format!("{V1}/a")).await.body["status"]["ready"], "yes");
    let steps = json!([{"op": "replace", "path": "/spec/host", "value": "y"}]).to_string();
    let stepped = c.send("PATCH", &format!("{V2}/a"), "application/json-patch+json", steps).await;
    assert_eq!((stepped.code, &stepped.body["spec"]["host"]), (200, &json!("y")));
    let config = two("d", "d", "1").to_string();
    let applied = c.send("PATCH", &format!("{V2}/d?fieldManager=m"), "application/apply-patch+yaml", config).await;
    assert_eq!((applied.code, &applied.body["spec"]["host"]), (201, &json!("d")), "{}", applied.body);
    assert_eq!(c.get(&format!("{V1}/d")).await.body["spec"]["address"], "d:1");
    let dry = c.post(&format!("{V2}?dryRun=All"), &two("e", "e", "1")).await;
    assert_eq!((dry.code, &dry.body["spec"]["host"]), (201, &json!("e")));
    assert_eq!(c.get(&format!("{V1}/e")).await.code, 404);
    // Marked, then gone, as v2.
    let held = json!({"metadata": {"finalizers": ["example.com/hold"]}});
    assert_eq!(c.merge(&format!("{V2}/b"), &held).await.code, 200);
    let marked = c.delete(&format!("{V2}/b")).await;
    assert!(marked.body["metadata"]["deletionTimestamp"].is_string(), "{}", marked.body);
    assert_eq!(c.merge(&format!("{V2}/b"), &json!({"metadata": {"finalizers": null}})).await.code, 200);
    assert_eq!(c.get(&format!("{V1}/b")).await.code, 404);
    assert_eq!(c.send("DELETE", V2, "application/json", "{}").await.code, 200);
    assert_eq!(c.get(V1).await.body["items"], json!([]));
    c.stop().await;
}

#[tokio::test]
async fn what_is_stored_in_an_old_version_is_stored_anew_with_the_next_write() {
    let c = Cluster::start().await;
    let mood = Mood::default();
    let hook = hook(&mood).await;
    establish(&c, &definition(&hook, &["v1"], "v1")).await;
    assert_eq!(c.post(V1, &one("a", "a:80")).await.code, 201);
    replaced(&c, V1, &definition(&hook, &["v1"], "v2")).await;
    let stored = c.get(&format!("{DEFINITIONS}/foos.example.com")).await;
    assert_eq!(stored.body["status"]["storedVersions"], json!(["v1", "v2"]));
    let seen = |since: usize| hook.seen().len() - since;
    let old = c.get(&format!("{V2}/a")).await;
    assert_eq!((seen(0), &old.body["spec"]["host"]), (1, &json!("a")));
    // As v1 it is still stored, and so are not converted those that ask for it.
    assert_eq!(c.get(&format!("{V1}/a")).await.body["spec"]["address"], "a:80");
    assert_eq!(seen(0), 1);
    let written = c.put(&format!("{V2}/a"), &old.body).await;
    assert_ne!(written.version(), old.version(), "the same object, but in the version to store");
    let now = seen(0);
    assert_eq!(c.get(&format!("{V2}/a")).await.body["spec"]["host"], "a");
    assert_eq!(seen(now), 0);
    let again = c.put(&format!("{V2}/a"), &written.body).await;
    assert_eq!(again.version(), written.version());
    c.stop().await;
}

#[tokio::test]
async fn a_webhook_that_does_not_convert_is_an_error_in_its_own_words() {
    let c = Cluster::start().await;
    let mood = Mood::default();
    let hook = hook(&mood).await;
    establish(&c, &definition(&hook, &["v2alpha1", "v1", "v1beta1"], "v1")).await;
    for name in ["a", "b"] {
        assert_eq!(c.post(V1, &one(name, &format!("{name}:80"))).await.code, 201);
    }
    let url = format!("{}?timeout=30s", hook.url());
    let what = "conversion webhook for example.com/v1, Kind=Foo";
    type Answer = fn(&Value) -> Reply;
    let moods: [(Answer, String); 9] = [
        (
            |_| Reply::Response(json!({"result": {"status": "Failure", "message": "cannot"}})),
            format!("{what} failed: cannot"),
        ),
        (
            |_| Reply::Response(json!({"uid": "x", "result": {"status": "Success"}})),
            format!("{what} failed: expected response.uid="),
        ),
        (
            |_| Reply::Response(json!({"result": {"status": "Success"}, "convertedObjects": []})),
            format!("{what} returned 0 objects, expected 1"),
        ),
        (
            |request| {
                let mut objects = all(request);
                objects[0]["metadata"]["name"] = "other".into();
                Reply::Response(json!({"result": {"status": "Success"}, "convertedObjects": objects}))
            },
            format!("{what} returned invalid object: must have the same name: a != other"),
        ),
        (|_| Reply::Raw(200, "{\"kind\": [".to_owned()), format!("{what} failed: the answer cannot be read: ")),
        (
            |_| Reply::Raw(404, String::new()),
            format!("{what} failed: the server could not find the requested resource"),
        ),
        (
            |_| Reply::Raw(302, String::new()),
            format!("{what} failed: the server responded with the status code 302 but did not return more information"),
        ),
        (|_| Reply::Endless, format!("{what} failed: Post {url:?}: the answer is larger than ")),
        (|_| Reply::Response(json!(null)), format!("{what} failed: ")),
    ];
    for (answer, why) in moods {
        *mood.lock().unwrap() = Some(answer);
        let got = c.get(&format!("{V2}/a")).await;
        let (code, reason, message) = got.refusal();
        assert_eq!((code, reason), (500, ""), "{why}: {}", got.body);
        assert!(message.starts_with(&why), "{message} is not {why}");
        assert_eq!(c.get(&format!("{V1}/a")).await.code, 200, "who reads what is stored is not concerned");
        assert_eq!(c.merge(&format!("{V2}/a"), &json!({"spec": {"port": "1"}})).await.code, 500);
    }
    assert_eq!(c.get(&format!("{V1}/a")).await.body["metadata"]["generation"], 1, "nothing was written");
    // A watch ends with the error.
    let mut watch = Following::begin(&c, &format!("{V2}?watch=1&resourceVersion={}", c.get(V1).await.version())).await;
    assert_eq!(c.merge(&format!("{V1}/b"), &json!({"spec": {"address": "b:2"}})).await.code, 200);
    assert_eq!(watch.next().await.unwrap()["type"], "ERROR");
    assert_eq!(watch.next().await, None);
    // The definition goes with its objects whatever its webhook does.
    let mut gone = Following::begin(&c, &format!("{DEFINITIONS}?watch=1")).await;
    assert_eq!(c.delete(&format!("{DEFINITIONS}/foos.example.com")).await.code, 200);
    while gone.next().await.unwrap()["type"] != "DELETED" {}
    c.stop().await;
}

#[tokio::test]
async fn the_older_review_and_a_service_serve_as_well() {
    let c = Cluster::start().await;
    let mood = Mood::default();
    let hook = hook(&mood).await;
    let mut by_service = definition(&hook, &["v1beta1"], "v1");
    by_service["spec"]["conversion"]["webhook"]["clientConfig"] =
        json!({"service": {"name": "hook", "namespace": "default", "path": "/convert"}, "caBundle": hook.bundle()});
    establish(&c, &by_service).await;
    assert_eq!(c.post(V1, &one("a", "a:80")).await.code, 201);
    let missing = c.get(&format!("{V2}/a")).await;
    assert_eq!(
        missing.refusal().2,
        "conversion webhook for example.com/v1, Kind=Foo failed: Post \
         \"https://hook.default.svc:443/convert?timeout=30s\": service \"hook\" not found"
    );
    let service = json!({"metadata": {"name": "hook"}, "spec": {"selector": {"app": "hook"}, "ports": [
        {"port": 443, "targetPort": hook.port()}]}});
    assert_eq!(c.post("/api/v1/namespaces/default/services", &service).await.code, 201);
    hook.serves(&c, "hook", "", true).await;
    assert_eq!(c.get(&format!("{V2}/a")).await.body["spec"]["host"], "a");
    assert_eq!(hook.seen().len(), 1);
    c.stop().await;
}

/// Manager, version and fields of each entry.
fn owners(object: &Value) -> Vec<(String, String, Value)> {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let text = |entry: &Value, name: &str| entry[name].as_str().unwrap_or_default().to_owned();
    entries.iter().map(|e| (text(e, "manager"), text(e, "apiVersion"), e["fieldsV1"]["f:spec"].clone())).collect()
}

#[tokio::test]
async fn who_applied_in_one_version_owns_what_it_is_in_the_other() {
    let c = Cluster::start().await;
    let mood = Mood::default();
    let hook = hook(&mood).await;
    establish(&c, &definition(&hook, &["v1"], "v1")).await;
    let apply = async |path: &str, object: &Value, query: &str| {
        let path = format!("{path}/{}?{query}", object["metadata"]["name"].as_str().unwrap());
        c.send("PATCH", &path, "application/apply-patch+yaml", object.to_string()).await
    };
    let own = |manager: &str, version: &str, fields: &[&str]| {
        let fields = fields.iter().map(|field| (format!("f:{field}"), json!({}))).collect();
        (manager.to_owned(), format!("example.com/{version}"), Value::Object(fields))
    };
    let first = apply(V1, &one("a", "a:80"), "fieldManager=one").await;
    assert_eq!((first.code, owners(&first.body)), (201, vec![own("one", "v1", &["address"])]), "{}", first.body);
    // What does not touch it leaves it, whichever version it is written in.
    let labelled = c.merge(&format!("{V2}/a?fieldManager=x"), &json!({"metadata": {"labels": {"a": "b"}}})).await;
    assert_eq!(owners(&labelled.body)[0], own("one", "v1", &["address"]), "{}", labelled.body);
    // The other version's port is part of the address.
    let refused = apply(V2, &two("a", "a", "81"), "fieldManager=two").await;
    let (code, reason, message) = refused.refusal();
    assert_eq!((code, reason), (409, "Conflict"), "{}", refused.body);
    assert!(message.contains("conflict with \"one\": .spec.address"), "{message}");
    // The same address in other words is owned by both.
    let shared = apply(V2, &two("a", "a", "80"), "fieldManager=two").await;
    assert_eq!(shared.code, 200, "{}", shared.body);
    let known = owners(&shared.body);
    assert!(known.contains(&own("one", "v1", &["address"])) && known.contains(&own("two", "v2", &["host", "port"])));
    let taken = apply(V2, &two("a", "a", "81"), "fieldManager=two&force=true").await;
    assert_eq!((taken.code, &taken.body["spec"]["port"]), (200, &json!("81")), "{}", taken.body);
    assert!(!owners(&taken.body).iter().any(|(manager, ..)| manager == "one"), "{}", taken.body);
    // A plain write takes what it changes, in the words of its version.
    let written = c.merge(&format!("{V1}/a?fieldManager=three"), &json!({"spec": {"address": "b:81"}})).await;
    let known = owners(&written.body);
    assert!(known.contains(&own("three", "v1", &["address"])), "{known:?}");
    assert!(known.contains(&own("two", "v2", &["port"])), "{known:?}");
    // Where nobody converts, the owners cannot be told, and are forgotten rather than wrong.
    *mood.lock().unwrap() = Some(|_| Reply::Response(json!({"result": {"status": "Failure", "message": "no"}})));
    let alone = c.merge(&format!("{V1}/a"), &json!({"spec": {"address": "c:82"}})).await;
    assert_eq!((alone.code, owners(&alone.body)), (200, Vec::new()), "{}", alone.body);
    c.stop().await;
}
