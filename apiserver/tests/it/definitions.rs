//! CustomResourceDefinitions: what they make of the API, and what becomes of it when they change and go.

use serde_json::{Value, json};

use crate::{harness::Cluster, watching::Following};

pub(crate) const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// A definition of `foos.example.com` with this schema.
pub(crate) fn foos(schema: &Value) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "foos.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "foos", "kind": "Foo", "shortNames": ["fo"], "categories": ["all"]},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        },
    })
}

/// A schema that keeps everything.
pub(crate) fn open() -> Value {
    json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

fn condition<'a>(definition: &'a Value, name: &str) -> &'a Value {
    let conditions = definition["status"]["conditions"].as_array();
    conditions.into_iter().flatten().find(|c| c["type"] == name).unwrap_or(&Value::Null)
}

/// Waits until the definition is as wanted.
pub(crate) async fn until(c: &Cluster, name: &str, is: impl Fn(&Value) -> bool) -> Value {
    let selector = format!("{DEFINITIONS}?watch=1&fieldSelector=metadata.name%3D{name}");
    let mut following = Following::begin(c, &selector).await;
    loop {
        let event = following.next().await.unwrap();
        if is(&event["object"]) {
            return event["object"].clone();
        }
    }
}

/// Creates a definition and waits until it is established.
pub(crate) async fn establish(c: &Cluster, definition: &Value) -> Value {
    let made = c.post(DEFINITIONS, definition).await;
    assert_eq!(made.code, 201, "{}", made.body);
    let name = definition["metadata"]["name"].as_str().unwrap();
    until(c, name, |d| condition(d, "Established")["status"] == "True").await
}

/// Waits until the definition is gone.
async fn gone(c: &Cluster, mut following: Following, name: &str) {
    while let Some(event) = following.next().await {
        if event["type"] == "DELETED" && event["object"]["metadata"]["name"] == name {
            break;
        }
    }
    assert_eq!(c.get(&format!("{DEFINITIONS}/{name}")).await.code, 404);
}

const FOOS: &str = "/apis/example.com/v1/namespaces/default/foos";

fn foo(name: &str) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Foo", "metadata": {"name": name}, "spec": {"a": 1}})
}

#[tokio::test]
async fn what_is_established_is_served_told_of_and_gone_with_its_objects() {
    let c = Cluster::start().await;
    assert_eq!(c.get(FOOS).await.code, 404);
    let definition = establish(&c, &foos(&open())).await;
    assert_eq!(condition(&definition, "NamesAccepted")["reason"], "NoConflicts");
    assert_eq!(definition["spec"]["names"]["listKind"], "FooList");
    assert_eq!(definition["spec"]["names"]["singular"], "foo");
    assert_eq!(definition["status"]["storedVersions"], json!(["v1"]));
    assert_eq!(definition["metadata"]["generation"], 1);
    // Who reads that it is established can use it at once.
    assert_eq!(c.post(FOOS, &foo("a")).await.code, 201);
    let list = c.get(FOOS).await;
    assert_eq!((list.body["kind"].as_str(), list.body["items"].as_array().unwrap().len()), (Some("FooList"), 1));
    // Discovery in both forms.
    let resources = c.get("/apis/example.com/v1").await.body;
    assert_eq!(resources["resources"][0]["shortNames"], json!(["fo"]));
    assert_eq!(c.get("/apis/example.com").await.body["preferredVersion"]["version"], "v1");
    let groups = c.get("/apis").await.body;
    assert!(groups["groups"].as_array().unwrap().iter().any(|g| g["name"] == "example.com"));
    // OpenAPI in both versions.
    let index = c.get("/openapi/v3").await.body;
    assert!(index["paths"]["apis/example.com/v1"].is_object());
    let three = c.get("/openapi/v3/apis/example.com/v1").await.body;
    assert_eq!(three["components"]["schemas"]["com.example.v1.Foo"]["type"], "object");
    let item = &three["paths"]["/apis/example.com/v1/namespaces/{namespace}/foos/{name}"];
    assert_eq!(item["get"]["x-kubernetes-group-version-kind"]["kind"], "Foo");
    let two = c.get("/openapi/v2").await.body;
    assert!(two["definitions"]["com.example.v1.FooList"].is_object());
    // A finalizer of an object keeps the definition, in which nothing new is created.
    let held = json!({"apiVersion": "example.com/v1", "kind": "Foo",
                      "metadata": {"name": "held", "finalizers": ["example.com/hold"]}});
    assert_eq!(c.post(FOOS, &held).await.code, 201);
    let watch = Following::begin(&c, &format!("{DEFINITIONS}?watch=1")).await;
    let deleted = c.delete(&format!("{DEFINITIONS}/foos.example.com")).await;
    assert_eq!(deleted.code, 200, "{}", deleted.body);
    until(&c, "foos.example.com", |d| condition(d, "Terminating")["reason"] == "InstanceDeletionInProgress").await;
    let refused = c.post(FOOS, &foo("b")).await;
    assert_eq!(refused.code, 405, "{}", refused.body);
    let freed = c.merge(&format!("{FOOS}/held"), &json!({"metadata": {"finalizers": null}})).await;
    assert_eq!(freed.code, 200, "{}", freed.body);
    gone(&c, watch, "foos.example.com").await;
    assert_eq!(c.get(FOOS).await.code, 404);
    assert_eq!(c.get("/apis/example.com").await.code, 404);
    // A new definition of the same name begins empty.
    establish(&c, &foos(&open())).await;
    assert_eq!(c.get(FOOS).await.body["items"], json!([]));
    c.stop().await;
}

#[tokio::test]
async fn names_that_are_taken_are_not_accepted_until_they_are_free() {
    let c = Cluster::start().await;
    establish(&c, &foos(&open())).await;
    let mut other = foos(&open());
    other["metadata"]["name"] = json!("bars.example.com");
    other["spec"]["names"]["plural"] = json!("bars");
    other["spec"]["names"]["shortNames"] = json!(["fo"]);
    other["spec"]["names"]["kind"] = json!("Bar");
    assert_eq!(c.post(DEFINITIONS, &other).await.code, 201);
    let refused = until(&c, "bars.example.com", |d| !condition(d, "NamesAccepted").is_null()).await;
    let accepted = condition(&refused, "NamesAccepted");
    assert_eq!((accepted["status"].as_str(), accepted["reason"].as_str()), (Some("False"), Some("ShortNamesConflict")));
    assert_eq!(accepted["message"], "\"fo\" is already in use");
    assert_eq!(condition(&refused, "Established")["reason"], "NotAccepted");
    assert_eq!(c.get("/apis/example.com/v1/bars").await.code, 404);
    c.delete(&format!("{DEFINITIONS}/foos.example.com")).await;
    until(&c, "bars.example.com", |d| condition(d, "Established")["status"] == "True").await;
    assert_eq!(c.get("/apis/example.com/v1/bars").await.code, 200);
    c.stop().await;
}

#[tokio::test]
async fn versions_are_converted_and_come_and_go() {
    let c = Cluster::start().await;
    let mut definition = foos(&open());
    let old = json!({"name": "v1beta1", "served": true, "storage": false, "deprecated": true,
                     "schema": {"openAPIV3Schema": open()}});
    definition["spec"]["versions"].as_array_mut().unwrap().push(old);
    establish(&c, &definition).await;
    assert_eq!(c.post(FOOS, &foo("a")).await.code, 201);
    let beta = "/apis/example.com/v1beta1/namespaces/default/foos";
    let seen = c.get(&format!("{beta}/a")).await;
    assert_eq!(seen.body["apiVersion"], "example.com/v1beta1");
    assert_eq!(seen.warnings, ["299 - \"example.com/v1beta1 Foo is deprecated; use example.com/v1 Foo\""]);
    let through = c.merge(&format!("{beta}/a"), &json!({"spec": {"a": 2}})).await;
    assert_eq!((through.code, through.body["metadata"]["generation"].as_i64()), (200, Some(2)));
    assert_eq!(c.get(&format!("{FOOS}/a")).await.body["spec"]["a"], 2);
    // So is who owns what: a conflict names who wrote in another version.
    let config = json!({"apiVersion": "example.com/v1", "kind": "Foo", "metadata": {"name": "a"}, "spec": {"a": 3}});
    let media = "application/apply-patch+yaml";
    let refused = c.send("PATCH", &format!("{FOOS}/a?fieldManager=m"), media, config.to_string()).await;
    let why = "Apply failed with 1 conflict: conflict with \"unknown\" using example.com/v1beta1";
    assert!(refused.code == 409 && refused.refusal().2.starts_with(why), "{}", refused.body);
    // A watch of a version ends when that version is served no longer.
    let mut watch = Following::begin(&c, &format!("{beta}?watch=1")).await;
    assert_eq!(watch.next().await.unwrap()["type"], "ADDED");
    let path = format!("{DEFINITIONS}/foos.example.com");
    let patch = json!([{"op": "replace", "path": "/spec/versions/1/served", "value": false}]);
    let changed = c.send("PATCH", &path, "application/json-patch+json", patch.to_string()).await;
    assert_eq!((changed.code, changed.body["metadata"]["generation"].as_i64()), (200, Some(2)), "{}", changed.body);
    assert!(watch.next().await.is_none());
    assert_eq!(c.get(beta).await.code, 404);
    let resources = c.get("/openapi/v2").await.body;
    assert!(resources["definitions"].get("com.example.v1beta1.Foo").is_none());
    // What was stored once must stay among the versions.
    let patch = json!([
        {"op": "replace", "path": "/spec/versions/0/storage", "value": false},
        {"op": "replace", "path": "/spec/versions/1/storage", "value": true},
    ]);
    let moved = c.send("PATCH", &path, "application/json-patch+json", patch.to_string()).await;
    assert_eq!(moved.body["status"]["storedVersions"], json!(["v1", "v1beta1"]));
    let patch = json!([{"op": "remove", "path": "/spec/versions/0"}]);
    let refused = c.send("PATCH", &path, "application/json-patch+json", patch.to_string()).await;
    let (code, _, message) = refused.refusal();
    assert!(code == 422 && message.contains("v1 was previously a storage version"), "{message}");
    c.stop().await;
}

#[tokio::test]
async fn status_is_written_beside_what_the_server_writes() {
    let c = Cluster::start().await;
    establish(&c, &foos(&open())).await;
    let path = format!("{DEFINITIONS}/foos.example.com/status");
    let condition = json!({"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "set"});
    let patch = json!([{"op": "add", "path": "/status/conditions/-", "value": condition}]);
    let written = c.send("PATCH", &path, "application/json-patch+json", patch.to_string()).await;
    assert_eq!(written.code, 200, "{}", written.body);
    let types: Vec<&str> =
        written.body["status"]["conditions"].as_array().unwrap().iter().map(|c| c["type"].as_str().unwrap()).collect();
    assert!(types.contains(&"StatusUpdate") && types.contains(&"Established"), "{types:?}");
    // The main resource leaves the status alone.
    let main = c.merge(&format!("{DEFINITIONS}/foos.example.com"), &json!({"status": {"conditions": []}})).await;
    assert_eq!(main.body["status"], written.body["status"]);
    c.stop().await;
}

#[tokio::test]
async fn definitions_that_are_none_are_refused_with_all_that_is_wrong() {
    let c = Cluster::start().await;
    for (change, expected) in [
        (
            json!({"metadata": {"name": "foo"}}),
            "metadata.name: Invalid value: \"foo\": must be spec.names.plural+\".\"+spec.group",
        ),
        (
            json!({"spec": {"group": "example"}}),
            "spec.group: Invalid value: \"example\": should be a domain with at least one dot",
        ),
        (
            json!({"spec": {"scope": "Here"}}),
            "spec.scope: Unsupported value: \"Here\": supported values: \"Cluster\", \"Namespaced\"",
        ),
        (
            json!({"spec": {"names": {"kind": "Foo-"}}}),
            "spec.names.kind: Invalid value: \"Foo-\": may have mixed case, but should otherwise match",
        ),
    ] {
        let mut definition = foos(&open());
        merge(&mut definition, &change);
        let refused = c.post(DEFINITIONS, &definition).await;
        let (code, reason, message) = refused.refusal();
        assert!(code == 422 && reason == "Invalid" && message.contains(expected), "{message}");
    }
    let bomb = (0..60).fold("self.l.size() > 0".to_owned(), |inner, n| format!("self.l.all(x{n}, {inner})"));
    for (schema, expected) in [
        (json!({}), "type: Required value: must not be empty at the root"),
        (json!({"type": "array"}), "must be object at the root"),
        (
            json!({"type": "object", "properties": {"a": {}}}),
            "openAPIV3Schema.properties[a].type: Required value: must not be empty for specified object fields",
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "array"}}}),
            "properties[a].items: Required value: must be specified",
        ),
        (
            json!({"type": "object", "properties": {"a": {"$ref": "#"}}}),
            "properties[a].$ref: Forbidden: $ref is not supported",
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "string", "pattern": "("}}}),
            "must be a valid regular expression",
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "string", "pattern": "((a{1000}){1000}){1000}"}}}),
            "too large",
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "string", "default": 1}}}),
            "properties[a].default: Invalid value: \"integer\"",
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "string", "anyOf": [{"type": "string"}]}}}),
            "anyOf[0].type: Forbidden: must be empty to be structural",
        ),
        (
            json!({"type": "object", "anyOf": [{"properties": {"a": {"minimum": 1}}}]}),
            "properties[a]: Required value: because it is defined in",
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "array", "uniqueItems": true, "items": {"type": "string"}}}}),
            "uniqueItems cannot be set to true",
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "array", "x-kubernetes-list-type": "map", "items": {"type": "string"}}}}),
            "x-kubernetes-list-map-keys: Required value",
        ),
        (
            json!({"type": "object", "x-kubernetes-validations": [{"rule": "self.nope"}]}),
            "compilation failed: ERROR: <input>:1:5: undefined field 'nope'",
        ),
        (json!({"type": "object", "x-kubernetes-validations": [{"rule": "1"}]}), "must evaluate to a bool"),
        (
            json!({"type": "object", "properties": {"l": {"type": "array", "items": {"type": "string"}}}, "x-kubernetes-validations": [{"rule": bomb}]}),
            "estimated rule cost exceeds budget by factor of more than 100x",
        ),
        (
            json!({"type": "object", "properties": {"l": {"type": "array", "items": {"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf"}]}}}}),
            "oldSelf cannot be used on the uncorrelatable portion",
        ),
    ] {
        let refused = c.post(DEFINITIONS, &foos(&schema)).await;
        let (code, _, message) = refused.refusal();
        assert!(code == 422 && message.contains(expected), "{schema}: {message}");
    }
    c.stop().await;
}

/// A merge patch applied.
fn merge(base: &mut Value, patch: &Value) {
    coracle_proto::patch::merge::apply(base, patch.clone());
}

#[tokio::test]
async fn names_at_the_edge_of_the_api_stay_where_they_are() {
    let c = Cluster::start().await;
    // A group that is Kubernetes' own needs leave, and built-in kinds keep their paths.
    let mut definition = foos(&open());
    merge(
        &mut definition,
        &json!({
            "metadata": {"name": "leases.coordination.k8s.io"},
            "spec": {"group": "coordination.k8s.io", "names": {"plural": "leases", "kind": "Lease", "shortNames": null}},
        }),
    );
    let refused = c.post(DEFINITIONS, &definition).await;
    assert!(refused.refusal().2.contains("protected groups must have approval annotation"), "{}", refused.body);
    definition["metadata"]["annotations"] = json!({"api-approved.kubernetes.io": "unapproved, a test"});
    assert_eq!(c.post(DEFINITIONS, &definition).await.code, 201);
    let seen = until(&c, "leases.coordination.k8s.io", |d| !condition(d, "NamesAccepted").is_null()).await;
    assert_eq!(condition(&seen, "NamesAccepted")["status"], "False");
    assert_eq!(condition(&seen, "KubernetesAPIApprovalPolicyConformant")["reason"], "UnapprovedAnnotation");
    assert_eq!(c.get("/apis/coordination.k8s.io/v1/namespaces/default/leases").await.code, 200);
    c.stop().await;
}

#[tokio::test]
async fn whole_numbers_are_shown_as_they_were_written() {
    let c = Cluster::start().await;
    let size = json!({"type": "number", "minimum": 1, "maximum": 2.5});
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"size": size}}}});
    let made = establish(&c, &foos(&schema)).await;
    let shown = &made["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["size"];
    assert_eq!(*shown, size);
    let foo = json!({"apiVersion": "example.com/v1", "kind": "Foo", "metadata": {"name": "f"}, "spec": {"size": 2.0}});
    let made = c.post("/apis/example.com/v1/namespaces/default/foos", &foo).await;
    assert_eq!((made.code, &made.body["spec"]["size"]), (201, &json!(2)));
    c.stop().await;
}

#[tokio::test]
async fn rules_within_lists_without_bounds_are_weighed_by_what_a_request_has_room_for() {
    let c = Cluster::start().await;
    let nested = |rule: &str| {
        let inner = json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
                           "x-kubernetes-validations": [{"rule": rule}]});
        let outer = json!({"type": "object", "properties": {"inner": {"type": "array", "items": inner}}});
        foos(&json!({"type": "object", "properties": {"outer": {"type": "array", "items": outer}}}))
    };
    let path = format!("{DEFINITIONS}?dryRun=All");
    let cheap = c.post(&path, &nested("has(self.a) || has(self.b)")).await;
    assert_eq!(cheap.code, 201, "{}", cheap.body);
    let dear = c.post(&path, &nested("self.a.matches(self.b)")).await;
    assert!(dear.code == 422 && dear.refusal().2.contains("estimated rule cost exceeds budget"), "{}", dear.body);
    c.stop().await;
}
