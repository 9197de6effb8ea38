//! API services whose groups other servers serve.

use axum::body::Body;
use coracle_apiserver::{pki::Profile, user::User};
use http::{HeaderMap, Request, header};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tower::ServiceExt as _;

use crate::{
    definitions::{DEFINITIONS, establish, foos, open},
    extension_server::Extension,
    harness::Cluster,
    watching::Following,
};

pub(crate) const API_SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const NAME: &str = "v1.sea.example";
const FISH: &str = "/apis/sea.example/v1/namespaces/default/fish";
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

async fn trusted(c: &Cluster) -> Value {
    let map = c.get("/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication").await;
    assert_eq!(map.code, 200);
    map.body["data"].clone()
}

fn api_service(port: u16, change: &Value) -> Value {
    let mut spec = json!({
        "group": "sea.example", "version": "v1", "groupPriorityMinimum": 1500, "versionPriority": 20,
        "service": {"namespace": "default", "name": "sea", "port": port},
    });
    spec.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    json!({"metadata": {"name": NAME}, "spec": spec})
}

async fn available(c: &Cluster, reason: &str) -> (String, String) {
    availability(c, NAME, reason).await
}

/// Waits until the condition `Available` of an API service has this reason; its status and message.
pub(crate) async fn availability(c: &Cluster, name: &str, reason: &str) -> (String, String) {
    let path = format!("{API_SERVICES}?watch=1&fieldSelector=metadata.name%3D{name}");
    let mut following = Following::begin(c, &path).await;
    loop {
        let event = following.next().await.unwrap();
        let conditions = event["object"]["status"]["conditions"].as_array().cloned().unwrap_or_default();
        if let Some(found) = conditions.iter().find(|c| c["type"] == "Available" && c["reason"] == reason) {
            return (found["status"].as_str().unwrap().to_owned(), found["message"].as_str().unwrap().to_owned());
        }
    }
}

/// A server behind the Service `sea`.
pub(crate) async fn extension(c: &Cluster) -> Extension {
    let trust = trusted(c).await;
    let extension = Extension::start("sea", trust["requestheader-client-ca-file"].as_str().unwrap()).await;
    let service = json!({"metadata": {"name": "sea"}, "spec": {"type": "ExternalName", "externalName": "localhost"}});
    assert_eq!(c.post("/api/v1/namespaces/default/services", &service).await.code, 201);
    extension
}

/// A server of the group, registered and available.
async fn registered(c: &Cluster) -> Extension {
    let extension = extension(c).await;
    let made = c.post(API_SERVICES, &api_service(extension.port(), &json!({"caBundle": extension.bundle()}))).await;
    assert_eq!(made.code, 201, "{}", made.body);
    assert_eq!(available(c, "Passed").await, ("True".to_owned(), "all checks passed".to_owned()));
    extension
}

async fn aggregated(c: &Cluster) -> Value {
    aggregated_group(c, "sea.example").await
}

/// A group in aggregated discovery.
pub(crate) async fn aggregated_group(c: &Cluster, name: &str) -> Value {
    let request = Request::get("/apis").header(header::ACCEPT, AGGREGATED).body(Body::empty()).unwrap();
    let response = c.service().oneshot(request).await.unwrap();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let document: Value = serde_json::from_slice(&body).unwrap();
    let items = document["items"].as_array().unwrap();
    items.iter().find(|item| item["metadata"]["name"] == name).cloned().unwrap_or(Value::Null)
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
}

#[tokio::test]
async fn requests_are_passed_on_in_the_users_name() {
    let c = Cluster::start().await;
    let extension = registered(&c).await;
    let trust = trusted(&c).await;
    for (key, value) in [
        ("requestheader-allowed-names", "[\"front-proxy-client\"]"),
        ("requestheader-username-headers", "[\"X-Remote-User\"]"),
        ("requestheader-group-headers", "[\"X-Remote-Group\"]"),
        ("requestheader-extra-headers-prefix", "[\"X-Remote-Extra-\"]"),
    ] {
        assert_eq!(trust[key], value);
    }
    assert_ne!(trust["client-ca-file"], trust["requestheader-client-ca-file"], "not everybody's certificate will do");
    let mut jane = User::new("jane", &["system:masters"]);
    jane.extra.insert("example.com/why".to_owned(), vec!["because".to_owned()]);
    let request = Request::post(format!("{FISH}?dryRun=All&x=%20y"))
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::AUTHORIZATION, "Bearer secret")
        .header("x-remote-user", "root")
        .header("x-remote-group", "everyone")
        .header("x-remote-extra-own", "1")
        .body(Body::from("{\"kind\":\"Fish\"}"))
        .unwrap();
    let response = c.server.service(jane).oneshot(request).await.unwrap();
    assert_eq!(response.status().as_u16(), 201);
    let asked = extension.asked(FISH).pop().unwrap();
    assert_eq!((asked.method.as_str(), asked.path.as_str()), ("POST", format!("{FISH}?dryRun=All&x=%20y").as_str()));
    assert_eq!(asked.body, "{\"kind\":\"Fish\"}");
    assert_eq!(text(&asked.headers, "x-remote-user"), ["jane"]);
    assert_eq!(text(&asked.headers, "x-remote-group"), ["system:masters", "system:authenticated"]);
    assert_eq!(text(&asked.headers, "x-remote-extra-example.com%2fwhy"), ["because"]);
    assert!(!asked.headers.contains_key("x-remote-extra-own") && !asked.headers.contains_key(header::AUTHORIZATION));
    // Who may not do it here is not passed on.
    let nobody = Request::get(FISH).body(Body::empty()).unwrap();
    let refused = c.server.service(User::new("nobody", &[])).oneshot(nobody).await.unwrap();
    assert_eq!(refused.status().as_u16(), 403);
    let away = c.get(&format!("{FISH}/away")).await;
    assert_eq!(away.code, 502);
    c.stop().await;
}

#[tokio::test]
async fn watches_stream_and_connections_are_upgraded() {
    let c = Cluster::start().await;
    let extension = registered(&c).await;
    let mut following = Following::begin(&c, &format!("{FISH}?watch=1")).await;
    assert_eq!(following.next().await.unwrap()["object"]["metadata"]["name"], "f0");
    extension.tell();
    assert_eq!(following.next().await.unwrap()["object"]["metadata"]["name"], "f1");
    drop(following);
    // Upgrades need a connection, so this one goes through the socket.
    let mut stream = c.connect(&Profile::client("admin", Some("system:masters"))).await;
    let request = format!("GET {FISH}/f/talk HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 101 ") && head.to_ascii_lowercase().contains("upgrade: echo"), "{head}");
    for word in [b"ping", b"pong"] {
        stream.write_all(word).await.unwrap();
        let mut back = [0; 4];
        stream.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, word);
    }
    drop(stream);
    c.stop().await;
}

#[tokio::test]
async fn discovery_and_openapi_tell_of_it_and_that_it_is_gone() {
    let c = Cluster::start().await;
    let extension = registered(&c).await;
    let groups = c.get("/apis").await.body;
    let group = groups["groups"].as_array().unwrap().iter().find(|group| group["name"] == "sea.example").unwrap();
    assert_eq!(group["preferredVersion"], json!({"groupVersion": "sea.example/v1", "version": "v1"}));
    assert_eq!(c.get("/apis/sea.example").await.body["kind"], "APIGroup");
    assert_eq!(c.get("/apis/sea.example/v1").await.body["resources"][0]["name"], "fish");
    let version = aggregated(&c).await["versions"][0].clone();
    assert_eq!((&version["freshness"], &version["resources"][0]["resource"]), (&json!("Current"), &json!("fish")));
    let url = &c.get("/openapi/v3").await.body["paths"]["apis/sea.example/v1"]["serverRelativeURL"];
    assert_eq!(url, "/openapi/v3/apis/sea.example/v1?hash=AB");
    assert_eq!(c.get(url.as_str().unwrap()).await.body["info"]["title"], "sea");
    let v2 = c.get("/openapi/v2").await.body;
    assert_eq!(v2["definitions"]["example.sea.v1.Fish"]["description"], "It swims.");
    assert!(v2["paths"]["/apis/sea.example/v1/fish"].is_object() && v2["paths"]["/api/v1/pods"].is_object());

    extension.be_well(false);
    // Any change of its service has it looked at.
    let service = "/api/v1/namespaces/default/services/sea";
    assert_eq!(c.merge(service, &json!({"metadata": {"labels": {"a": "b"}}})).await.code, 200);
    let (status, message) = available(&c, "FailedDiscoveryCheck").await;
    assert_eq!(status, "False");
    let port = extension.port();
    let url = format!("https://localhost:{port}/apis/sea.example/v1");
    assert_eq!(message, format!("failing or missing response from {url}: bad status from {url}: 500"));
    let version = aggregated(&c).await["versions"][0].clone();
    assert_eq!((&version["freshness"], &version["resources"][0]["resource"]), (&json!("Stale"), &json!("fish")));
    assert_eq!(c.get(FISH).await.code, 503);
    assert_eq!(c.get("/apis/sea.example/v1").await.code, 503);
    assert_eq!(c.get("/apis/apps/v1").await.code, 200);

    // It is asked again by itself, and forgotten with its API service.
    extension.be_well(true);
    available(&c, "Passed").await;
    assert_eq!(c.get(FISH).await.code, 200);
    let mut following =
        Following::begin(&c, &format!("{API_SERVICES}?watch=1&fieldSelector=metadata.name%3D{NAME}")).await;
    assert_eq!(c.delete(&format!("{API_SERVICES}/{NAME}")).await.code, 200);
    while following.next().await.unwrap()["type"] != "DELETED" {}
    while c.get(FISH).await.code != 404 {
        tokio::task::yield_now().await;
    }
    assert_eq!(aggregated(&c).await, Value::Null);
    c.stop().await;
}

#[tokio::test]
async fn what_is_missing_is_said_and_seen_when_it_comes() {
    let c = Cluster::start().await;
    let bundle = json!({"insecureSkipTLSVerify": true});
    assert_eq!(c.post(API_SERVICES, &api_service(443, &bundle)).await.code, 201);
    let (status, message) = available(&c, "ServiceNotFound").await;
    assert_eq!((status.as_str(), message.as_str()), ("False", "service/sea in \"default\" is not present"));
    assert_eq!(c.get(FISH).await.code, 503);
    let services = "/api/v1/namespaces/default/services";
    let service = json!({"metadata": {"name": "sea"}, "spec": {"ports": [{"name": "other", "port": 80}]}});
    assert_eq!(c.post(services, &service).await.code, 201);
    let (_, message) = available(&c, "ServicePortError").await;
    assert_eq!(message, "service/sea in \"default\" is not listening on port 443");
    let ports = json!({"spec": {"ports": [{"name": "https", "port": 443}]}});
    assert_eq!(c.merge(&format!("{services}/sea"), &ports).await.code, 200);
    let (_, message) = available(&c, "EndpointsNotFound").await;
    assert_eq!(message, "cannot find endpointslices for service/sea in \"default\"");
    let slice = json!({
        "metadata": {"name": "sea-1", "labels": {"kubernetes.io/service-name": "sea"}}, "addressType": "IPv4",
        "endpoints": [{"addresses": ["192.0.2.1"], "conditions": {"ready": false}}],
        "ports": [{"name": "https", "port": 1}],
    });
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    assert_eq!(c.post(slices, &slice).await.code, 201);
    let (_, message) = available(&c, "MissingEndpoints").await;
    assert_eq!(message, "endpointslices for service/sea in \"default\" have no addresses with port name \"https\"");
    c.stop().await;
}

#[tokio::test]
async fn groups_of_definitions_have_api_services_for_as_long_as_they_are_served() {
    let c = Cluster::start().await;
    let name = "v1.example.com";
    let mut following =
        Following::begin(&c, &format!("{API_SERVICES}?watch=1&fieldSelector=metadata.name%3D{name}")).await;
    establish(&c, &foos(&open())).await;
    let made = following.next().await.unwrap();
    assert_eq!(
        (&made["type"], &made["object"]["status"]["conditions"][0]["reason"]),
        (&json!("ADDED"), &json!("Local"))
    );
    assert_eq!(made["object"]["metadata"]["labels"]["kube-aggregator.kubernetes.io/automanaged"], "true");
    assert_eq!(made["object"]["spec"]["groupPriorityMinimum"], 1000);
    // Who deletes it finds it again.
    assert_eq!(c.delete(&format!("{API_SERVICES}/{name}")).await.code, 200);
    assert_eq!(following.next().await.unwrap()["type"], "DELETED");
    assert_eq!(following.next().await.unwrap()["type"], "ADDED");
    assert_eq!(c.delete(&format!("{DEFINITIONS}/foos.example.com")).await.code, 200);
    assert_eq!(following.next().await.unwrap()["type"], "DELETED");
    c.stop().await;
}

#[tokio::test]
async fn a_server_whose_certificate_is_not_trusted_is_not_available() {
    let c = Cluster::start().await;
    let trust = trusted(&c).await;
    let extension = Extension::start("sea", trust["requestheader-client-ca-file"].as_str().unwrap()).await;
    let service = json!({"metadata": {"name": "sea"}, "spec": {"type": "ExternalName", "externalName": "localhost"}});
    assert_eq!(c.post("/api/v1/namespaces/default/services", &service).await.code, 201);
    assert_eq!(c.post(API_SERVICES, &api_service(extension.port(), &json!({}))).await.code, 201);
    let (_, message) = available(&c, "FailedDiscoveryCheck").await;
    assert!(message.ends_with("x509: certificate signed by unknown authority"), "{message}");
    let insecure = json!({"spec": {"insecureSkipTLSVerify": true}});
    assert_eq!(c.merge(&format!("{API_SERVICES}/{NAME}"), &insecure).await.code, 200);
    available(&c, "Passed").await;
    // Once it is served from here, it is not asked any more.
    let local = json!({"spec": {"service": null, "insecureSkipTLSVerify": null}});
    assert_eq!(c.merge(&format!("{API_SERVICES}/{NAME}"), &local).await.code, 200);
    assert_eq!(available(&c, "Local").await.0, "True");
    c.stop().await;
}
