//! What is refused: codes, reasons and words.

use serde_json::json;

use crate::harness::Cluster;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn bad_bodies_are_refused_with_the_reason() {
    let c = Cluster::start().await;
    let json = "application/json";
    let deep = format!("{{\"data\":{}", "[".repeat(10_000));
    let large = format!("{{\"data\":{{\"a\":\"{}\"}}}}", "x".repeat(4 << 20));
    for (media, body, code, words) in [
        (json, "{".to_owned(), 400, "json parse error"),
        (json, deep, 400, "json parse error"),
        (json, large, 413, "limit is 3145728"),
        (json, r#"{"metadata":{"name":"x"},"data":{"a":1}}"#.to_owned(), 400, "field ConfigMap.data of type string"),
        (json, r#"{"kind":"Pod","metadata":{"name":"x"}}"#.to_owned(), 400, "cannot be handled as a ConfigMap"),
        (
            json,
            r#"{"apiVersion":"v2","metadata":{"name":"x"}}"#.to_owned(),
            400,
            "does not match the expected API version",
        ),
        (json, r#"{"metadata":{"name":"X_"}}"#.to_owned(), 422, "metadata.name: Invalid value"),
        (json, r#"{"metadata":{}}"#.to_owned(), 422, "name or generateName is required"),
        (json, r#"{"metadata":{"name":"x","labels":{"-":"b"}}}"#.to_owned(), 422, "metadata.labels"),
        (json, r#"{"metadata":{"name":"x","namespace":"other"}}"#.to_owned(), 400, "does not match the namespace"),
        ("application/yaml", "a: [".to_owned(), 400, "yaml"),
        ("application/cbor", "x".to_owned(), 415, "accepted media types"),
    ] {
        let shown: String = body.chars().take(60).collect();
        let answer = c.send("POST", MAPS, media, body).await;
        assert_eq!(answer.code, code, "{shown}: {}", answer.body);
        assert!(answer.refusal().2.contains(words), "{shown}: {}", answer.body);
        assert_eq!(answer.body["kind"], "Status");
    }
    c.stop().await;
}

#[tokio::test]
async fn unknown_and_duplicate_fields_are_told_or_refused_as_asked() {
    let c = Cluster::start().await;
    let body = r#"{"metadata":{"name":"x"},"foo":1,"data":{"a":"1","a":"2"}}"#;
    let strict = c.send("POST", &format!("{MAPS}?fieldValidation=Strict"), "application/json", body).await;
    let words = "strict decoding error: unknown field \"foo\", duplicate field \"data.a\"";
    assert!(strict.code == 400 && strict.refusal().2.ends_with(words), "{}", strict.body);
    let warned = c.send("POST", MAPS, "application/json", body).await;
    assert_eq!(warned.code, 201);
    assert!(warned.warnings.contains(&"299 - \"unknown field \\\"foo\\\"\"".to_owned()), "{:?}", warned.warnings);
    let refused = c.send("POST", MAPS, "application/json", r#"{"metadata":{"name":"X_"},"foo":1}"#).await;
    let told = vec!["299 - \"unknown field \\\"foo\\\"\"".to_owned()];
    assert_eq!((refused.code, refused.warnings), (422, told), "who is refused is warned all the same");
    let body = body.replace("\"x\"", "\"y\"");
    let ignored = c.send("POST", &format!("{MAPS}?fieldValidation=Ignore"), "application/json", body).await;
    assert_eq!((ignored.code, ignored.warnings.len()), (201, 0));
    c.stop().await;
}

#[tokio::test]
async fn bytes_are_read_as_manifests_write_them() {
    const SECRETS: &str = "/api/v1/namespaces/default/secrets";
    let c = Cluster::start().await;
    let wrapped = json!({"metadata": {"name": "x"}, "data": {"a": "aGVs\nbG8=\n"}});
    let made = c.post(SECRETS, &wrapped).await;
    assert_eq!((made.code, &made.body["data"]), (201, &json!({"a": "aGVsbG8="})), "{}", made.body);
    let corrupt = c.post(SECRETS, &json!({"metadata": {"name": "y"}, "data": {"a": "aGVs*"}})).await;
    let words = "Secret in version \"v1\" cannot be handled as a Secret: illegal base64 data at input byte 4";
    assert_eq!(corrupt.refusal(), (400, "BadRequest", words));
    let number = c.post(SECRETS, &json!({"metadata": {"name": "y"}, "data": {"a": 1}})).await;
    assert!(number.refusal().2.ends_with("struct field Secret.data of type []uint8"), "{}", number.body);
    c.stop().await;
}

#[tokio::test]
async fn some_kinds_are_only_replaced_as_they_were_read() {
    const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
    let c = Cluster::start().await;
    let lease = json!({"metadata": {"name": "x"}, "spec": {"holderIdentity": "a"}});
    let made = c.post(LEASES, &lease).await;
    assert_eq!(made.code, 201, "{}", made.body);
    let words = "leases.coordination.k8s.io \"x\" is invalid: metadata.resourceVersion: Invalid value: 0: must be \
                 specified for an update";
    assert_eq!(c.put(&format!("{LEASES}/x"), &lease).await.refusal(), (422, "Invalid", words));
    assert_eq!(c.put(&format!("{LEASES}/x"), &made.body).await.code, 200);
    // Which object it is comes first.
    let other = c.put(&format!("{LEASES}/x"), &json!({"metadata": {"name": "y"}})).await;
    let words = "the name of the object (y) does not match the name on the URL (x)";
    assert_eq!(other.refusal(), (400, "BadRequest", words));
    c.stop().await;
}

#[tokio::test]
async fn what_is_not_there_and_what_is_not_served_differ() {
    let c = Cluster::start().await;
    let body = json!({"metadata": {"name": "x"}});
    let missing = "the server could not find the requested resource";
    for (method, path, code, words) in [
        ("GET", "/api/v1/namespaces/default/configmaps/x", 404, "configmaps \"x\" not found"),
        ("POST", "/api/v1/namespaces/nowhere/configmaps", 404, "namespaces \"nowhere\" not found"),
        ("GET", "/api/v1/namespaces/default/configmaps/100%", 400, "a % that two hexadecimal digits do not follow"),
        ("GET", "/api/v1/nothings", 404, missing),
        ("GET", "/api/v9/pods", 404, missing),
        ("POST", "/api/v1/configmaps", 404, missing),
        ("DELETE", "/api/v1/namespaces", 405, "does not allow this method"),
        ("DELETE", "/api/v1/namespaces/kube-system", 403, "this namespace may not be deleted"),
        ("PUT", "/api/v1/namespaces/default/configmaps/y", 404, "configmaps \"y\" not found"),
    ] {
        let mut sent = body.clone();
        if path.ends_with("/y") {
            sent["metadata"]["name"] = "y".into();
        }
        let text = if method == "DELETE" { String::new() } else { sent.to_string() };
        let answer = c.send(method, path, "application/json", text).await;
        assert_eq!(answer.code, code, "{method} {path}: {}", answer.body);
        assert!(answer.refusal().2.contains(words), "{method} {path}: {}", answer.body);
    }
    c.stop().await;
}

#[tokio::test]
async fn a_user_without_rules_is_refused_in_kubernetes_words() {
    use tower::ServiceExt as _;
    let c = Cluster::start().await;
    let service = c.server.service(coracle_apiserver::user::User::new("alice", &[]));
    let request = http::Request::get("/api/v1/namespaces/default/pods").body(axum::body::Body::empty()).unwrap();
    let response = service.oneshot(request).await.unwrap();
    assert_eq!(response.status().as_u16(), 403);
    c.stop().await;
}

#[tokio::test]
async fn what_a_patch_has_too_much_is_told_or_refused() {
    let c = Cluster::start().await;
    let map = json!({"metadata": {"name": "x"}, "data": {"a": "1"}});
    assert_eq!(c.post(MAPS, &map).await.code, 201);
    let path = format!("{MAPS}/x?fieldValidation=");
    for (media, patch, words) in [
        ("merge", r#"{"foo": 1, "data": {"a": "2", "a": "3"}}"#, r#"duplicate field "data.a", unknown field "foo""#),
        ("strategic-merge", r#"{"foo": 1, "foo": 2}"#, r#"duplicate field "foo", unknown field "foo""#),
        (
            "json",
            r#"[{"op": "add", "path": "/foo", "value": 1, "why": 1, "why": 2}]"#,
            r#"json patch duplicate field "[0].why", json patch unknown field "[0].why", unknown field "foo""#,
        ),
    ] {
        let media = if media == "json" {
            "application/json-patch+json".to_owned()
        } else {
            format!("application/{media}-patch+json")
        };
        let strict = c.send("PATCH", &format!("{path}Strict"), &media, patch).await;
        let (code, reason, message) = strict.refusal();
        assert_eq!((code, reason), (422, "Invalid"), "{message}");
        assert!(message.starts_with(" \"\" is invalid: patch: Invalid value: "), "{message}");
        assert!(message.ends_with(&format!(": strict decoding error: {words}")), "{message}");
        let warned = c.send("PATCH", &format!("{path}Warn"), &media, patch).await;
        assert_eq!(warned.code, 200, "{}", warned.body);
        assert_eq!(warned.warnings.len(), words.split(", ").count(), "{:?}", warned.warnings);
        let ignored = c.send("PATCH", &format!("{path}Ignore"), &media, patch).await;
        assert_eq!((ignored.code, ignored.warnings.len()), (200, 0));
    }
    c.stop().await;
}

#[tokio::test]
async fn keys_that_stand_twice_in_yaml_are_told_with_their_lines() {
    let c = Cluster::start().await;
    let yaml = "metadata:\n  name: x\nfoo: 1\ndata:\n  a: x\n  a: z\n";
    let strict = c.send("POST", &format!("{MAPS}?fieldValidation=Strict"), "application/yaml", yaml).await;
    let words = "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: yaml: unmarshal \
                 errors:\n  line 6: key \"a\" already set in map, unknown field \"foo\"";
    assert_eq!(strict.refusal(), (400, "BadRequest", words));
    let warned = c.send("POST", MAPS, "application/yaml", yaml).await;
    assert_eq!((warned.code, &warned.body["data"]), (201, &json!({"a": "z"})));
    assert_eq!(warned.warnings.len(), 2, "{:?}", warned.warnings);
    c.stop().await;
}
