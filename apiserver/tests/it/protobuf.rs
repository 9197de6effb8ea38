//! Answers in protobuf: the same objects as in JSON, for who likes them so.

use axum::body::Body;
use bytes::{Buf as _, Bytes, BytesMut};
use coracle_proto::protobuf;
use http::{Request, header};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::{
    definitions::{establish, foos, open},
    harness::Cluster,
};

const MAPS: &str = "/api/v1/namespaces/kube-public/configmaps";
const GO: &str = "application/vnd.kubernetes.protobuf,application/json";

/// Sends a request and tells code, media type and body.
async fn ask(c: &Cluster, method: &str, path: &str, accept: &str, body: &Value) -> (u16, String, Bytes) {
    let body = if body.is_null() { Body::empty() } else { body.to_string().into() };
    let request = Request::builder().method(method).uri(path).header(header::ACCEPT, accept);
    let response = c.service().oneshot(request.body(body).unwrap()).await.unwrap();
    let media = response.headers()[header::CONTENT_TYPE].to_str().unwrap().to_owned();
    (response.status().as_u16(), media, response.into_body().collect().await.unwrap().to_bytes())
}

async fn read(c: &Cluster, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let (code, media, bytes) = ask(c, method, path, GO, body).await;
    assert_eq!(media, protobuf::MEDIA, "{method} {path}: {}", String::from_utf8_lossy(&bytes));
    (code, protobuf::to_json(&bytes).unwrap_or_else(|error| panic!("{method} {path}: {error}")))
}

/// What JSON may leave out and protobuf cannot say, and the other way round.
fn plain(value: &Value) -> Value {
    match value {
        Value::Object(entries) => Value::Object(
            entries
                .iter()
                .map(|(key, value)| (key.clone(), plain(value)))
                .filter(|(_, value)| !matches!(value, Value::Null) && *value != json!([]) && *value != json!({}))
                .collect(),
        ),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().into(),
        other => other.clone(),
    }
}

/// The items of a list say their kind in JSON alone.
fn without_kinds(mut list: Value) -> Value {
    for item in list["items"].as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        item.remove("kind");
        item.remove("apiVersion");
    }
    list
}

#[tokio::test]
async fn what_every_cluster_has_is_the_same_in_protobuf_as_in_json() {
    let c = Cluster::start().await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "nginx", "env": [{"name": "A", "value": "größe"}], "ports": [
        {"containerPort": 80}], "resources": {"limits": {"cpu": "100m"}}, "livenessProbe": {"httpGet": {"port": "http"}}}]}});
    assert_eq!(c.post("/api/v1/namespaces/default/pods", &pod).await.code, 201);
    let mut seen = 0;
    for resource in coracle_proto::resource::RESOURCES {
        if !resource.serves("list") {
            continue;
        }
        let group =
            if resource.group.is_empty() { "/api/v1".to_owned() } else { format!("/apis/{}", resource.api_version()) };
        let path = format!("{group}/{}", resource.plural);
        let expected = c.get(&path).await;
        let (code, list) = read(&c, "GET", &path, &Value::Null).await;
        assert_eq!((code, expected.code), (200, 200), "{path}");
        let items = |list: &Value| plain(&without_kinds(list.clone())["items"]).as_array().cloned().unwrap_or_default();
        assert_eq!(items(&list), items(&expected.body), "{path}");
        seen += list["items"].as_array().map_or(0, Vec::len);
        assert_eq!(list["kind"], resource.list_kind);
    }
    assert!(seen > 50, "{seen} objects were looked at");
    c.stop().await;
}

#[tokio::test]
async fn writes_statuses_subresources_and_discovery_are_answered_in_protobuf() {
    let c = Cluster::start().await;
    let (code, made) = read(&c, "POST", MAPS, &json!({"metadata": {"name": "a"}, "data": {"k": "v"}})).await;
    assert_eq!((code, &made["data"]["k"]), (201, &json!("v")));
    let (code, status) = read(&c, "POST", MAPS, &json!({"metadata": {"name": "a"}})).await;
    assert_eq!((code, &status["reason"], &status["details"]["name"]), (409, &json!("AlreadyExists"), &json!("a")));
    let (code, status) = read(&c, "GET", &format!("{MAPS}/b"), &Value::Null).await;
    assert_eq!((code, &status["kind"], &status["reason"]), (404, &json!("Status"), &json!("NotFound")));
    let (code, status) = read(&c, "DELETE", &format!("{MAPS}/a"), &Value::Null).await;
    assert_eq!((code, &status["status"]), (200, &json!("Success")));
    let deployment = json!({"metadata": {"name": "d"}, "spec": {"replicas": 3, "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    assert_eq!(read(&c, "POST", deployments, &deployment).await.0, 201);
    let (_, scale) = read(&c, "GET", &format!("{deployments}/d/scale"), &Value::Null).await;
    assert_eq!((&scale["kind"], &scale["spec"]["replicas"]), (&json!("Scale"), &json!(3)));
    let review = json!({"spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}});
    let reviews = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    assert_eq!(read(&c, "POST", reviews, &review).await.1["status"]["allowed"], true);
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    assert_eq!(ask(&c, "POST", reviews, table, &review).await.0, 406);
    for (path, kind) in
        [("/api", "APIVersions"), ("/apis", "APIGroupList"), ("/apis/apps", "APIGroup"), ("/api/v1", "APIResourceList")]
    {
        let (_, answer) = read(&c, "GET", path, &Value::Null).await;
        let mut expected = c.get(path).await.body;
        // In JSON some of these have never said their version.
        expected["apiVersion"] = "v1".into();
        assert_eq!(plain(&answer), plain(&expected), "{path}");
        assert_eq!(answer["kind"], kind);
    }
    let (code, media, _) = ask(&c, "GET", "/version", GO, &Value::Null).await;
    assert_eq!((code, media.as_str()), (200, "application/json"));
    let (code, media, body) = ask(&c, "GET", &format!("{MAPS}/b"), "application/yaml", &Value::Null).await;
    assert_eq!((code, media.as_str()), (404, "application/yaml"));
    assert!(String::from_utf8_lossy(&body).contains("reason: NotFound"));
    c.stop().await;
}

#[tokio::test]
async fn custom_resources_have_no_protobuf_but_their_metadata() {
    let c = Cluster::start().await;
    establish(&c, &foos(&open())).await;
    let things = "/apis/example.com/v1/namespaces/default/foos";
    let thing = json!({"apiVersion": "example.com/v1", "kind": "Foo", "metadata": {"name": "t"}});
    assert_eq!(c.post(things, &thing).await.code, 201);
    let path = format!("{things}/t");
    let (code, media, body) = ask(&c, "GET", &path, protobuf::MEDIA, &Value::Null).await;
    let status = protobuf::to_json(&body).unwrap();
    assert_eq!((code, media.as_str(), &status["reason"]), (406, protobuf::MEDIA, &json!("NotAcceptable")));
    for accept in [GO, "application/vnd.kubernetes.protobuf, */*"] {
        let (code, media, _) = ask(&c, "GET", &path, accept, &Value::Null).await;
        assert_eq!((code, media.as_str()), (200, "application/json"), "{accept}");
    }
    let metadata = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let (code, media, body) = ask(&c, "GET", things, metadata, &Value::Null).await;
    let list = protobuf::to_json(&body).unwrap();
    assert_eq!((code, media.as_str(), &list["kind"]), (200, protobuf::MEDIA, &json!("PartialObjectMetadataList")));
    assert_eq!(list["items"][0]["metadata"]["name"], "t");
    c.stop().await;
}

/// What is in a protobuf message whose fields are all of bytes: numbers and contents.
fn fields(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut found = Vec::new();
    while let Some(first) = bytes.first() {
        let number = first >> 3;
        found.push((number, field(&mut bytes)));
    }
    found
}

#[tokio::test]
async fn metadata_alone_is_read_listed_and_watched_in_protobuf_in_both_versions() {
    let c = Cluster::start().await;
    let accept = |kind: &str, version: &str| {
        let tail = format!("as={kind};g=meta.k8s.io;v={version}");
        // As metadata informers of client-go ask.
        format!("application/vnd.kubernetes.protobuf;{tail},application/json;{tail},application/json")
    };
    let made = c.post(MAPS, &json!({"metadata": {"name": "a", "labels": {"x": "y"}}, "data": {"k": "v"}})).await;
    let other = c.post(MAPS, &json!({"metadata": {"name": "b", "labels": {"x": "y"}}, "data": {"k": "v"}})).await;
    for (version, numbers) in [("v1", [1, 2, 2]), ("v1beta1", [2, 1, 1])] {
        let group = format!("meta.k8s.io/{version}");
        let one = accept("PartialObjectMetadata", version);
        let (code, media, body) = ask(&c, "GET", &format!("{MAPS}/a"), &one, &Value::Null).await;
        let told = protobuf::to_json(&body).unwrap();
        assert_eq!((code, media.as_str()), (200, protobuf::MEDIA));
        let expected = json!({"kind": "PartialObjectMetadata", "apiVersion": group, "metadata": made.body["metadata"]});
        assert_eq!(told, expected);
        let list = accept("PartialObjectMetadataList", version);
        let (code, media, body) = ask(&c, "GET", &format!("{MAPS}?labelSelector=x%3Dy"), &list, &Value::Null).await;
        assert_eq!((code, media.as_str()), (200, protobuf::MEDIA));
        let told = protobuf::to_json(&body).unwrap();
        assert_eq!((&told["kind"], &told["apiVersion"]), (&json!("PartialObjectMetadataList"), &json!(group)));
        assert_eq!(told["metadata"]["resourceVersion"], other.body["metadata"]["resourceVersion"]);
        let names = told["items"].as_array().unwrap().iter().map(|item| item["metadata"].clone());
        assert_eq!(names.collect::<Vec<_>>(), [made.body["metadata"].clone(), other.body["metadata"].clone()]);
        // The two versions number a list's fields otherwise; the whole is `k8s` and an envelope, whose second field it is.
        let envelope = fields(&body[4..]);
        let content = &envelope.iter().find(|(number, _)| *number == 2).unwrap().1;
        assert_eq!(fields(content).iter().map(|(number, _)| *number).collect::<Vec<_>>(), numbers, "{version}");
        let since = format!("{MAPS}?watch=1&allowWatchBookmarks=1&labelSelector=x%3Dy");
        let mut watch = Following::begin(&c, &format!("{since}&resourceVersion=0"), &one).await;
        for expected in [&made, &other] {
            let (kind, told) = watch.next().await;
            assert_eq!((kind.as_str(), &told["apiVersion"]), ("ADDED", &json!(group)));
            assert_eq!(told["metadata"], expected.body["metadata"]);
        }
        let mut initial =
            Following::begin(&c, &format!("{since}&sendInitialEvents=1&resourceVersionMatch=NotOlderThan"), &one).await;
        assert_eq!([initial.next().await.0, initial.next().await.0], ["ADDED", "ADDED"]);
        let (kind, told) = initial.next().await;
        assert_eq!((kind.as_str(), &told["kind"]), ("BOOKMARK", &json!("PartialObjectMetadata")));
        assert_eq!(told["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
        // Tables have no protobuf, but who asks for one takes something else too.
        let (_, media, body) = ask(&c, "GET", MAPS, &accept("Table", version), &Value::Null).await;
        let table: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((media.as_str(), &table["apiVersion"]), ("application/json", &json!(group)));
        let only = format!("application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v={version}");
        assert_eq!(ask(&c, "GET", MAPS, &only, &Value::Null).await.0, 406);
    }
    let table = "application/json;as=Table;g=meta.k8s.io;v=v1";
    let (code, _, body) = ask(&c, "GET", &format!("{MAPS}?includeObject=All"), table, &Value::Null).await;
    let status: Value = serde_json::from_slice(&body).unwrap();
    let words = "Unable to convert to Table as requested: includeObject: Invalid value: \"All\": must be 'Metadata', \
                 'Object', 'None', or empty";
    assert_eq!((code, &status["message"]), (400, &json!(words)));
    assert_eq!(ask(&c, "GET", &format!("{MAPS}?includeObject=All"), GO, &Value::Null).await.0, 200);
    c.stop().await;
}

/// A watch in protobuf.
struct Following {
    body: Body,
    held: BytesMut,
}

/// A field of a message whose fields are all of bytes.
fn field(bytes: &mut &[u8]) -> Vec<u8> {
    assert_eq!(bytes.get_u8() & 7, 2);
    let (mut length, mut shift) = (0_usize, 0);
    loop {
        let byte = bytes.get_u8();
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let (content, rest) = bytes.split_at(length);
    *bytes = rest;
    content.to_vec()
}

impl Following {
    async fn begin(c: &Cluster, path: &str, accept: &str) -> Self {
        let request = Request::get(path).header(header::ACCEPT, accept).body(Body::empty()).unwrap();
        let response = c.service().oneshot(request).await.unwrap();
        assert_eq!(response.status().as_u16(), 200);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/vnd.kubernetes.protobuf;stream=watch");
        Self { body: response.into_body(), held: BytesMut::new() }
    }

    /// The next event's type and object.
    async fn next(&mut self) -> (String, Value) {
        loop {
            if let Some(head) = self.held.first_chunk::<4>().copied() {
                let length = usize::try_from(u32::from_be_bytes(head)).unwrap();
                if self.held.len() >= length + 4 {
                    let frame = self.held.split_to(length + 4);
                    let mut event = &frame[4..];
                    let kind = String::from_utf8(field(&mut event)).unwrap();
                    let raw = field(&mut event);
                    assert!(event.is_empty());
                    return (kind, protobuf::to_json(&field(&mut raw.as_slice())).unwrap());
                }
            }
            self.held.extend_from_slice(&self.body.frame().await.unwrap().unwrap().into_data().unwrap());
        }
    }
}

#[tokio::test]
async fn a_watch_is_events_behind_their_lengths() {
    let c = Cluster::start().await;
    let query = "watch=1&allowWatchBookmarks=1&sendInitialEvents=1&resourceVersionMatch=NotOlderThan";
    let mut watch = Following::begin(&c, &format!("{MAPS}?{query}&fieldSelector=metadata.name%3Da"), GO).await;
    let metadata = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
    let mut outline = Following::begin(&c, &format!("{MAPS}?watch=1&fieldSelector=metadata.name%3Da"), metadata).await;
    let (kind, bookmark) = watch.next().await;
    assert_eq!((kind.as_str(), &bookmark["kind"]), ("BOOKMARK", &json!("ConfigMap")));
    assert_eq!(bookmark["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    let made = c.post(MAPS, &json!({"metadata": {"name": "a"}, "data": {"k": "ü".repeat(5000)}})).await;
    let changed = c.merge(&format!("{MAPS}/a"), &json!({"data": {"k": "w"}})).await;
    assert_eq!(c.delete(&format!("{MAPS}/a")).await.code, 200);
    for (expected, object) in [("ADDED", &made.body), ("MODIFIED", &changed.body)] {
        let (kind, told) = watch.next().await;
        assert_eq!((kind.as_str(), &told), (expected, object));
        let (kind, told) = outline.next().await;
        assert_eq!((kind.as_str(), &told["kind"]), (expected, &json!("PartialObjectMetadata")));
        assert_eq!(told["metadata"], object["metadata"]);
    }
    assert_eq!(watch.next().await.0, "DELETED");
    assert_eq!(outline.next().await.0, "DELETED");
    c.stop().await;
}

#[tokio::test]
async fn a_watch_in_yaml_is_refused() {
    let c = Cluster::start().await;
    let (code, _, body) = ask(&c, "GET", &format!("{MAPS}?watch=1"), "application/yaml", &Value::Null).await;
    assert_eq!(code, 406);
    assert!(String::from_utf8_lossy(&body).contains("application/json;stream=watch"));
    c.stop().await;
}

#[tokio::test]
async fn old_versions_are_written_read_and_watched_in_protobuf() {
    let c = Cluster::start().await;
    let ingresses = "/apis/extensions/v1beta1/namespaces/default/ingresses";
    let backend = json!({"serviceName": "web", "servicePort": 80});
    let ingress = json!({"apiVersion": "extensions/v1beta1", "kind": "Ingress", "metadata": {"name": "i"},
        "spec": {"backend": backend, "rules": [{"http": {"paths": [{"backend": {"serviceName": "a", "servicePort": "b"}}]}}]}});
    let body = protobuf::from_json(&ingress).unwrap();
    let request = Request::post(ingresses).header(header::CONTENT_TYPE, protobuf::MEDIA).header(header::ACCEPT, GO);
    let made = c.service().oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
    assert_eq!(made.status(), 201);
    let made = protobuf::to_json(&made.into_body().collect().await.unwrap().to_bytes()).unwrap();
    assert_eq!((&made["apiVersion"], &made["spec"]["backend"]), (&json!("extensions/v1beta1"), &backend));
    assert_eq!(c.get("/apis/networking.k8s.io/v1/namespaces/default/ingresses/i").await.code, 200);

    let (code, list) = read(&c, "GET", ingresses, &Value::Null).await;
    assert_eq!((code, &list["kind"], &list["apiVersion"]), (200, &json!("IngressList"), &json!("extensions/v1beta1")));
    let paths = &list["items"][0]["spec"]["rules"][0]["http"]["paths"];
    assert_eq!(
        *paths,
        json!([{"pathType": "ImplementationSpecific", "backend": {"serviceName": "a", "servicePort": "b"}}])
    );
    let watch = format!("{ingresses}?watch=true&resourceVersion=0&timeoutSeconds=1");
    let (code, media, bytes) = ask(&c, "GET", &watch, GO, &Value::Null).await;
    assert_eq!((code, media.as_str()), (200, "application/vnd.kubernetes.protobuf;stream=watch"));
    assert!(bytes.windows(18).any(|part| part == b"extensions/v1beta1"), "the event's object is of the old version");
    c.stop().await;
}
