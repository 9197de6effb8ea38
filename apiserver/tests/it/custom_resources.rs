//! Objects of kinds that definitions make: checked, pruned, defaulted, shown and changed by their schemas.

use serde_json::{Value, json};

use crate::{
    definitions::{DEFINITIONS, establish, foos, open},
    harness::Cluster,
    watching::Following,
};

const FOOS: &str = "/apis/example.com/v1/namespaces/default/foos";

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "spec": {
                "type": "object",
                "properties": {
                    "replicas": {"type": "integer", "minimum": 0, "default": 1},
                    "color": {"type": "string", "enum": ["red", "blue"]},
                    "port": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
                    "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                    "nested": {"type": "object", "default": {}, "properties": {"deep": {"type": "string", "default": "d"}}},
                    "maybe": {"type": "string", "nullable": true},
                    "fixed": {"type": "string", "x-kubernetes-validations": [
                        {"rule": "self == oldSelf", "message": "fixed is immutable"}]},
                    "list": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
                    "template": {"type": "object", "x-kubernetes-embedded-resource": true,
                                 "x-kubernetes-preserve-unknown-fields": true},
                },
                "x-kubernetes-validations": [
                    {"rule": "!has(self.color) || self.color != 'red' || self.replicas < 3",
                     "messageExpression": "'red ones are few, not ' + string(self.replicas)", "fieldPath": ".replicas",
                     "reason": "FieldValueForbidden"},
                ],
            },
            "status": {"type": "object", "properties": {"replicas": {"type": "integer"}, "selector": {"type": "string"}}},
        },
    })
}

fn definition() -> Value {
    let mut definition = foos(&schema());
    let version = &mut definition["spec"]["versions"][0];
    version["subresources"] = json!({"status": {}, "scale": {
        "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector"}});
    version["additionalPrinterColumns"] = json!([
        {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas"},
        {"name": "Color", "type": "string", "jsonPath": ".spec.color", "priority": 1},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    ]);
    version["selectableFields"] = json!([{"jsonPath": ".spec.color"}, {"jsonPath": ".spec.replicas"}]);
    definition
}

fn foo(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Foo", "metadata": {"name": name}, "spec": spec})
}

#[tokio::test]
async fn objects_are_defaulted_pruned_and_checked() {
    let c = Cluster::start().await;
    establish(&c, &definition()).await;
    let mut sent = foo(
        "a",
        json!({
            "color": null, "maybe": null, "free": {"any": {"thing": [1]}}, "unknown": 1, "port": "http",
            "template": {"apiVersion": "v1", "kind": "X", "metadata": {"name": "n"}, "other": true},
        }),
    );
    sent["status"] = json!({"replicas": 9});
    // `color` may not be null and has no default: it is dropped.
    let made = c.post(FOOS, &sent).await;
    assert_eq!(made.code, 201, "{}", made.body);
    assert_eq!(made.warnings, ["299 - \"unknown field \\\"spec.unknown\\\"\""]);
    let expected = json!({
        "replicas": 1, "maybe": null, "free": {"any": {"thing": [1]}}, "port": "http", "nested": {"deep": "d"},
        "template": {"apiVersion": "v1", "kind": "X", "metadata": {"name": "n"}, "other": true},
    });
    assert_eq!(made.body["spec"], expected);
    assert!(made.body.get("status").is_none() && made.body["metadata"]["generation"] == 1);
    // Any finalizer will do, as those of Argo CD do without a path.
    let mut kept = foo("kept", json!({}));
    kept["metadata"]["finalizers"] = json!(["resources-finalizer.argocd.argoproj.io", "example.com/x"]);
    let made = c.post(FOOS, &kept).await;
    assert_eq!(made.code, 201, "{}", made.body);
    let told = "299 - \"metadata.finalizers: \\\"resources-finalizer.argocd.argoproj.io\\\": prefer a domain-qualified \
                finalizer name including a path (/) to avoid accidental conflicts with other finalizer writers\"";
    assert_eq!(made.warnings, [told]);
    let changed = c.merge(&format!("{FOOS}/kept"), &json!({"metadata": {"labels": {"a": "b"}}})).await;
    assert_eq!((changed.code, changed.warnings.len()), (200, 0), "{}", changed.body);
    // All errors at once.
    let wrong = foo("b", json!({"replicas": "x", "color": "green", "list": ["a", "a"], "template": {}}));
    let refused = c.post(FOOS, &wrong).await;
    let (code, reason, message) = refused.refusal();
    assert_eq!((code, reason), (422, "Invalid"));
    for part in [
        "Foo.example.com \"b\" is invalid: [",
        "spec.replicas: Invalid value: \"string\": spec.replicas in body must be of type integer: \"string\"",
        "spec.color: Unsupported value: \"green\": supported values: \"red\", \"blue\"",
        "spec.list[1]: Duplicate value: \"a\"",
        "spec.template.apiVersion: Required value: must not be empty",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
    // Strictly, what is unknown and what stands twice is refused.
    let text = r#"{"apiVersion":"example.com/v1","kind":"Foo","metadata":{"name":"c","unknownMeta":1},
        "spec":{"replicas":1,"replicas":2,"x":1,
        "template":{"apiVersion":"v1","kind":"X","metadata":{"unknownSubMeta":1}}}}"#;
    let strict = c.send("POST", &format!("{FOOS}?fieldValidation=Strict"), "application/json", text).await;
    let (code, _, message) = strict.refusal();
    assert_eq!(code, 400);
    for part in [
        "strict decoding error: ",
        "duplicate field \"spec.replicas\"",
        "unknown field \"metadata.unknownMeta\"",
        "unknown field \"spec.x\"",
        "unknown field \"spec.template.metadata.unknownSubMeta\"",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
    c.stop().await;
}

#[tokio::test]
async fn metadata_of_another_type_is_told_as_of_any_kind() {
    let c = Cluster::start().await;
    establish(&c, &definition()).await;
    for (metadata, words) in [
        (json!({"name": 1}), "json: cannot unmarshal number into Go struct field ObjectMeta.name of type string"),
        (
            json!({"name": "a", "labels": {"tier": 1}}),
            "json: cannot unmarshal number into Go struct field ObjectMeta.labels of type string",
        ),
        (
            json!({"name": "a", "annotations": -1}),
            "json: cannot unmarshal number into Go struct field ObjectMeta.annotations of type map[string]string",
        ),
        (json!("a"), "json: cannot unmarshal string into Go value of type v1.ObjectMeta"),
        (
            json!({"name": "x", "creationTimestamp": "2026-01-01 00:00:00Z"}),
            "parsing time \"2026-01-01 00:00:00Z\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \" 00:00:00Z\" as \"T\"",
        ),
    ] {
        let sent = json!({"apiVersion": "example.com/v1", "kind": "Foo", "metadata": metadata});
        let refused = c.post(FOOS, &sent).await;
        let expected = format!("Foo in version \"v1\" cannot be handled as a Foo: {words}");
        assert_eq!(refused.refusal(), (400, "BadRequest", expected.as_str()));
    }
    c.stop().await;
}

#[tokio::test]
async fn rules_in_cel_hold_at_creation_and_over_changes() {
    let c = Cluster::start().await;
    establish(&c, &definition()).await;
    let refused = c.post(FOOS, &foo("a", json!({"color": "red", "replicas": 5}))).await;
    assert_eq!(
        refused.refusal().2,
        "Foo.example.com \"a\" is invalid: spec.replicas: Forbidden: red ones are few, not 5"
    );
    assert_eq!(c.post(FOOS, &foo("a", json!({"color": "red", "replicas": 2, "fixed": "x"}))).await.code, 201);
    let path = format!("{FOOS}/a");
    let refused = c.merge(&path, &json!({"spec": {"fixed": "y"}})).await;
    assert!(refused.refusal().2.contains("spec.fixed: Invalid value: \"y\": fixed is immutable"), "{}", refused.body);
    assert_eq!(c.merge(&path, &json!({"spec": {"replicas": 1}})).await.code, 200);
    c.stop().await;
}

#[tokio::test]
async fn a_rule_that_breaks_or_cannot_be_worked_out_says_where_and_why() {
    let c = Cluster::start().await;
    let limits = json!({"type": "object", "additionalProperties": {
        "type": "integer", "x-kubernetes-validations": [{"rule": "self < 10", "message": "is at most 9"}]}});
    let wait = json!({"type": "string", "maxLength": 9, "minLength": 2, "pattern": "^[1-9]", "x-kubernetes-validations": [
        {"rule": "duration(self) < duration('1h')", "message": "must be less than an hour"}]});
    let link = json!({"type": "string", "format": "link", "maxLength": 99, "x-kubernetes-validations": [{"rule": "isURL(self)"}]});
    let size = json!({"type": "integer", "format": "int32"});
    let properties = json!({"limits": limits, "wait": wait, "link": link, "size": size});
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": properties}}});
    let definition = foos(&schema);
    let made = c.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions?dryRun=All", &definition).await;
    assert_eq!((made.code, made.warnings), (201, vec!["299 - \"unrecognized format \\\"link\\\"\"".to_owned()]));
    establish(&c, &definition).await;
    for (spec, words) in [
        (json!({"limits": {"a": 10}}), "spec.limits[a]: Invalid value: 10: is at most 9"),
        (
            json!({"wait": "5 apples"}),
            "spec.wait: Invalid value: \"string\": type conversion error from 'string' to 'google.protobuf.Duration' \
             evaluating rule: must be less than an hour",
        ),
        (json!({"wait": "0"}), "spec.wait: Invalid value: \"0\": spec.wait in body should be at least 2 chars long"),
        (
            json!({"link": "http://#%blah$#@"}),
            "spec.link: Invalid value: \"http://#%blah$#@\": failed rule: isURL(self)",
        ),
        (
            json!({"size": 3_000_000_000_u32}),
            "<nil>: Invalid value: \"\": Checked value must be of type integer with format int32 in spec.size",
        ),
    ] {
        let refused = c.post(FOOS, &foo("a", spec)).await;
        assert_eq!(refused.refusal().2, format!("Foo.example.com \"a\" is invalid: {words}"));
    }
    c.stop().await;
}

#[tokio::test]
async fn who_replaces_an_object_says_which_version_of_it() {
    let c = Cluster::start().await;
    establish(&c, &definition()).await;
    let made = c.post(FOOS, &foo("a", json!({"size": 1}))).await;
    assert_eq!(made.code, 201, "{}", made.body);
    let mut blind = made.body.clone();
    blind["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    let refused = c.put(&format!("{FOOS}/a"), &blind).await;
    let why = "foos.example.com \"a\" is invalid: metadata.resourceVersion: Invalid value: 0: must be specified for \
               an update";
    assert_eq!(refused.refusal(), (422, "Invalid", why), "{}", refused.body);
    assert_eq!(c.put(&format!("{FOOS}/a"), &made.body).await.code, 200);
    assert_eq!(c.merge(&format!("{FOOS}/a"), &json!({"metadata": {"labels": {"a": "b"}}})).await.code, 200);
    c.stop().await;
}

#[tokio::test]
async fn status_and_scale_are_apart() {
    let c = Cluster::start().await;
    establish(&c, &definition()).await;
    assert_eq!(c.post(FOOS, &foo("a", json!({"replicas": 2}))).await.code, 201);
    let path = format!("{FOOS}/a");
    let status = c
        .merge(
            &format!("{path}/status"),
            &json!({"status": {"replicas": 2, "selector": "a=b"}, "spec": {"replicas": 7}}),
        )
        .await;
    assert_eq!((status.code, status.body["spec"]["replicas"].as_i64()), (200, Some(2)), "{}", status.body);
    assert_eq!(status.body["metadata"]["generation"], 1);
    let refused = c.merge(&format!("{path}/status"), &json!({"status": {"replicas": "x"}})).await;
    assert!(refused.refusal().2.contains("status.replicas in body must be of type integer"), "{}", refused.body);
    let scale = c.get(&format!("{path}/scale")).await.body;
    assert_eq!((scale["spec"]["replicas"].as_i64(), scale["status"]["selector"].as_str()), (Some(2), Some("a=b")));
    let scaled = c.merge(&format!("{path}/scale"), &json!({"spec": {"replicas": 4}})).await;
    assert_eq!(scaled.body["spec"]["replicas"], 4, "{}", scaled.body);
    let whole = c.get(&path).await.body;
    assert_eq!((whole["spec"]["replicas"].as_i64(), whole["metadata"]["generation"].as_i64()), (Some(4), Some(2)));
    assert_eq!(whole["status"]["replicas"], 2);
    c.stop().await;
}

#[tokio::test]
async fn tables_and_selectors_follow_the_definition() {
    let c = Cluster::start().await;
    establish(&c, &definition()).await;
    for (name, color) in [("a", "red"), ("b", "blue")] {
        assert_eq!(c.post(FOOS, &foo(name, json!({"color": color}))).await.code, 201);
    }
    let request = http::Request::get(FOOS)
        .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
        .body(axum::body::Body::empty())
        .unwrap();
    let response = tower::ServiceExt::oneshot(c.service(), request).await.unwrap();
    let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
    let table: Value = serde_json::from_slice(&body).unwrap();
    let names: Vec<&str> =
        table["columnDefinitions"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["Name", "Replicas", "Color", "Age"]);
    let cells = table["rows"][0]["cells"].as_array().unwrap();
    assert_eq!(cells[..3], [json!("a"), json!(1), json!("red")]);
    let found = c.get(&format!("{FOOS}?fieldSelector=spec.color%3Dblue")).await.body;
    assert_eq!(found["items"].as_array().unwrap().len(), 1);
    assert_eq!(found["items"][0]["metadata"]["name"], "b");
    let refused = c.get(&format!("{FOOS}?fieldSelector=spec.port%3D1")).await;
    assert_eq!(refused.refusal(), (400, "BadRequest", "field label not supported: spec.port"));
    // An object that stops being selected is told as gone.
    let mut watch = Following::begin(&c, &format!("{FOOS}?watch=1&fieldSelector=spec.color%3Dred")).await;
    assert_eq!(watch.next().await.unwrap()["type"], "ADDED");
    c.merge(&format!("{FOOS}/a"), &json!({"spec": {"color": "blue"}})).await;
    assert_eq!(watch.next().await.unwrap()["type"], "DELETED");
    c.stop().await;
}

#[tokio::test]
async fn what_was_stored_earlier_is_read_by_the_schema_of_now() {
    let c = Cluster::start().await;
    let old = json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}});
    establish(&c, &foos(&old)).await;
    let mut object = foo("x", json!({}));
    object.as_object_mut().unwrap().remove("spec");
    object["a"] = json!("too long");
    object["b"] = json!("b");
    assert_eq!(c.post(FOOS, &object).await.code, 201);
    // A watch tells when the new schema is in place: it ends.
    let mut watch = Following::begin(&c, &format!("{FOOS}?watch=1")).await;
    watch.next().await.unwrap();
    let new = json!({"type": "object", "properties": {
        "a": {"type": "string", "maxLength": 3}, "c": {"type": "string", "default": "here"}}});
    let patch = json!([{"op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema", "value": new}]);
    let path = format!("{DEFINITIONS}/foos.example.com");
    let changed = c.send("PATCH", &path, "application/json-patch+json", patch.to_string()).await;
    assert_eq!(changed.code, 200, "{}", changed.body);
    assert!(watch.next().await.is_none());
    let seen = c.get(&format!("{FOOS}/x")).await.body;
    assert_eq!((seen.get("b"), seen["c"].as_str()), (None, Some("here")));
    // What is wrong by the new schema but was there before is let be.
    let labelled = c.merge(&format!("{FOOS}/x"), &json!({"metadata": {"labels": {"l": "1"}}})).await;
    assert_eq!(labelled.code, 200, "{}", labelled.body);
    let refused = c.merge(&format!("{FOOS}/x"), &json!({"a": "too long as well"})).await;
    assert!(refused.refusal().2.contains("a: Too long: may not be more than 3 bytes"), "{}", refused.body);
    c.stop().await;
}

#[tokio::test]
async fn rules_that_came_later_are_warned_of_until_what_they_are_about_changes() {
    let c = Cluster::start().await;
    let schema = |rules: &Value| {
        let text = json!({"type": "string", "maxLength": 9, "x-kubernetes-validations": rules});
        json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "a": text, "b": {"type": "string"}, "list": {"type": "array", "maxItems": 5, "items": text}}}}})
    };
    establish(&c, &foos(&schema(&json!([])))).await;
    assert_eq!(c.post(FOOS, &foo("x", json!({"a": "bad", "list": ["bad", "ok"]}))).await.code, 201);
    let mut watch = Following::begin(&c, &format!("{FOOS}?watch=1")).await;
    watch.next().await.unwrap();
    let new = schema(&json!([{"rule": "self != 'bad'", "message": "may not be bad"}]));
    let patch = json!([{"op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema", "value": new}]);
    let path = format!("{DEFINITIONS}/foos.example.com");
    let changed = c.send("PATCH", &path, "application/json-patch+json", patch.to_string()).await;
    assert_eq!(changed.code, 200, "{}", changed.body);
    assert!(watch.next().await.is_none());
    // Items of a list that is one whole are as they were while the list is.
    let told = [
        "299 - \"spec.a: Invalid value: \\\"bad\\\": may not be bad\"",
        "299 - \"spec.list[0]: Invalid value: \\\"bad\\\": may not be bad\"",
    ];
    let other = c.merge(&format!("{FOOS}/x"), &json!({"spec": {"b": "new"}})).await;
    assert_eq!((other.code, other.warnings.as_slice()), (200, told.map(str::to_owned).as_slice()), "{}", other.body);
    let longer = c.merge(&format!("{FOOS}/x"), &json!({"spec": {"list": ["bad", "ok", "more"]}})).await;
    let (code, _, message) = longer.refusal();
    assert!(code == 422 && message.contains("spec.list[0]: Invalid value: \"bad\": may not be bad"), "{message}");
    assert!(!message.contains("spec.a"), "{message}");
    let mended = c.merge(&format!("{FOOS}/x"), &json!({"spec": {"a": "good", "list": null}})).await;
    assert_eq!((mended.code, mended.warnings.len()), (200, 0), "{}", mended.body);
    c.stop().await;
}

#[tokio::test]
async fn fields_of_custom_resources_have_owners() {
    let c = Cluster::start().await;
    establish(&c, &definition()).await;
    let apply = async |manager: &str, config: Value| {
        let path = format!("{FOOS}/a?fieldManager={manager}");
        c.send("PATCH", &path, "application/apply-patch+yaml", config.to_string()).await
    };
    let made = apply("one", foo("a", json!({"color": "red", "list": ["x"]}))).await;
    assert_eq!((made.code, made.body["spec"]["replicas"].as_i64()), (201, Some(1)), "{}", made.body);
    // A set has an owner an item, so that two managers add to it.
    let joined = apply("two", foo("a", json!({"list": ["y"]}))).await;
    assert_eq!(joined.body["spec"]["list"], json!(["x", "y"]), "{}", joined.body);
    let conflict = apply("two", foo("a", json!({"color": "blue"}))).await;
    let (code, reason, message) = conflict.refusal();
    assert!(code == 409 && reason == "Conflict" && message.contains("conflict with \"one\": .spec.color"), "{message}");
    let unknown = apply("one", foo("a", json!({"nope": 1}))).await;
    assert!(unknown.refusal().2.contains(".spec.nope: field not declared in schema"), "{}", unknown.body);
    // What its only owner no longer applies goes.
    let less = apply("one", foo("a", json!({"color": "red"}))).await;
    assert_eq!(less.body["spec"]["list"], json!(["y"]), "{}", less.body);
    // A null that may not be is dropped of other writes, but refused of an apply unless there is a default.
    let nothing = apply("one", foo("a", json!({"color": "red", "free": null}))).await;
    let (code, _, message) = nothing.refusal();
    let words = "spec.free: Invalid value: \"null\": spec.free in body must be of type object: \"null\"";
    assert!(code == 422 && message.contains(words), "{message}");
    let filled = apply("one", foo("a", json!({"color": "red", "replicas": null}))).await;
    assert_eq!((filled.code, &filled.body["spec"]["replicas"]), (200, &json!(1)), "{}", filled.body);
    c.stop().await;
}

#[tokio::test]
async fn patches_of_custom_resources_are_of_two_kinds() {
    let c = Cluster::start().await;
    establish(&c, &foos(&open())).await;
    assert_eq!(c.post(FOOS, &foo("a", json!({"n": 1}))).await.code, 201);
    let path = format!("{FOOS}/a");
    let patch = json!([{"op": "replace", "path": "/spec/n", "value": 2}]);
    let patched = c.send("PATCH", &path, "application/json-patch+json", patch.to_string()).await;
    assert_eq!(patched.body["spec"]["n"], 2);
    let strategic = c.send("PATCH", &path, "application/strategic-merge-patch+json", "{}").await;
    assert_eq!(strategic.code, 415);
    // Namespaced objects are not created in a namespace that is not there.
    let nowhere = c.post("/apis/example.com/v1/namespaces/nowhere/foos", &foo("a", json!({}))).await;
    assert_eq!(nowhere.code, 404, "{}", nowhere.body);
    let wrong = json!({"apiVersion": "example.com/v1", "kind": "Bar", "metadata": {"name": "b"}});
    assert_eq!(c.post(FOOS, &wrong).await.code, 400);
    assert_eq!(c.delete(FOOS).await.code, 200);
    assert_eq!(c.get(FOOS).await.body["items"], json!([]));
    c.stop().await;
}
