//! Server-side apply and `metadata.managedFields`, as clients see them.

use http::{Request, header};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::harness::{Answer, Cluster};

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const D: &str = "/apis/apps/v1/namespaces/default/deployments/d";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const APPLY: &str = "application/apply-patch+yaml";

fn deployment(replicas: u32, image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": "x"}},
            "template": {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": image}]}},
        },
    })
}

fn map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": data})
}

impl Cluster {
    /// Server-side apply of a configuration.
    pub(crate) async fn apply(&self, path: &str, query: &str, config: &Value) -> Answer {
        self.send("PATCH", &format!("{path}?{query}"), APPLY, config.to_string()).await
    }
}

/// The owners of an object: `manager operation subresource` with the fields.
fn owners(answer: &Answer) -> Vec<(String, Value)> {
    let entries = answer.body["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let text = |entry: &Value, name: &str| entry[name].as_str().unwrap_or_default().to_owned();
    let named = |entry: &Value| {
        let words = ["manager", "operation", "subresource"].map(|name| text(entry, name));
        (words.join(" ").trim_end().to_owned(), entry["fieldsV1"].clone())
    };
    entries.iter().map(named).collect()
}

fn owner<'a>(owners: &'a [(String, Value)], name: &str) -> &'a Value {
    &owners.iter().find(|(owner, _)| owner == name).unwrap_or_else(|| panic!("no {name} in {owners:?}")).1
}

#[tokio::test]
async fn applying_creates_then_changes_then_does_nothing() {
    let c = Cluster::start().await;
    let made = c.apply(D, "fieldManager=me", &deployment(1, "one")).await;
    assert_eq!(made.code, 201, "{}", made.body);
    let had = owners(&made);
    assert_eq!(had.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["me Apply"]);
    assert_eq!(
        had[0].1,
        json!({"f:spec": {
            "f:replicas": {}, "f:selector": {},
            "f:template": {
                "f:metadata": {"f:labels": {"f:app": {}}},
                "f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:name": {}, "f:image": {}}}},
            },
        }})
    );
    assert_eq!(made.body["spec"]["strategy"]["type"], "RollingUpdate", "defaults are there, and nobody's");
    let again = c.apply(D, "fieldManager=me", &deployment(1, "one")).await;
    assert_eq!((again.code, again.version()), (200, made.version()), "{}", again.body);
    let dry = c.apply(D, "fieldManager=me&dryRun=All", &deployment(5, "one")).await;
    assert_eq!((dry.code, &dry.body["spec"]["replicas"]), (200, &json!(5)));
    let changed = c.apply(D, "fieldManager=me", &deployment(2, "one")).await;
    assert_eq!((changed.code, &changed.body["spec"]["replicas"]), (200, &json!(2)));
    assert_eq!(changed.body["metadata"]["generation"], 2);
    let mut without = deployment(0, "one");
    without["spec"].as_object_mut().unwrap().remove("replicas");
    let without = c.apply(D, "fieldManager=me", &without).await;
    assert_eq!(without.body["spec"]["replicas"], 1, "what is applied no more goes back to its default");
    c.stop().await;
}

#[tokio::test]
async fn conflicts_are_told_by_manager_and_can_be_forced() {
    let c = Cluster::start().await;
    let made = c
        .send(
            "POST",
            &format!("{DEPLOYMENTS}?fieldManager=kubectl-client-side-apply"),
            "application/json",
            deployment(1, "one").to_string(),
        )
        .await;
    assert_eq!(made.code, 201);
    assert_eq!(owners(&made)[0].0, "kubectl-client-side-apply Update");
    let refused = c.apply(D, "fieldManager=me", &deployment(2, "one")).await;
    assert_eq!(
        refused.refusal(),
        (
            409,
            "Conflict",
            "Apply failed with 1 conflict: conflict with \"kubectl-client-side-apply\" using apps/v1: .spec.replicas"
        )
    );
    assert_eq!(
        refused.body["details"]["causes"],
        json!([{
            "reason": "FieldManagerConflict", "field": ".spec.replicas",
            "message": "conflict with \"kubectl-client-side-apply\" using apps/v1",
        }])
    );
    let forced = c.apply(D, "fieldManager=me&force=true", &deployment(2, "one")).await;
    assert_eq!((forced.code, &forced.body["spec"]["replicas"]), (200, &json!(2)));
    let had = owners(&forced);
    assert_eq!(owner(&had, "me Apply")["f:spec"]["f:replicas"], json!({}));
    assert!(owner(&had, "kubectl-client-side-apply Update")["f:spec"].get("f:replicas").is_none());
    let other = c.apply(D, "fieldManager=you", &deployment(3, "one")).await;
    assert_eq!(other.refusal().2, "Apply failed with 1 conflict: conflict with \"me\": .spec.replicas");
    c.stop().await;
}

#[tokio::test]
async fn two_appliers_share_an_object_and_each_takes_back_its_own() {
    let c = Cluster::start().await;
    let m = format!("{MAPS}/m");
    c.apply(&m, "fieldManager=a", &map(json!({"one": "1", "both": "x"}))).await;
    let shared = c.apply(&m, "fieldManager=b", &map(json!({"two": "2", "both": "x"}))).await;
    assert_eq!(shared.body["data"], json!({"one": "1", "two": "2", "both": "x"}), "{}", shared.body);
    let left = c.apply(&m, "fieldManager=a", &map(json!({}))).await;
    assert_eq!(left.body["data"], json!({"two": "2", "both": "x"}));
    let last = c.apply(&m, "fieldManager=b", &map(json!({"two": "2"}))).await;
    assert_eq!(last.body["data"], json!({"two": "2"}));
    c.stop().await;
}

#[tokio::test]
async fn plain_writes_own_what_they_change() {
    let c = Cluster::start().await;
    let request = Request::post(MAPS)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::USER_AGENT, "tool/1.2 (linux)")
        .body(axum::body::Body::from(map(json!({"a": "1", "b": "1"})).to_string()))
        .unwrap();
    let response = c.service().oneshot(request).await.unwrap();
    let made: Value = serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap();
    let entry = &made["metadata"]["managedFields"][0];
    assert_eq!((&entry["manager"], &entry["apiVersion"]), (&json!("tool"), &json!("v1")));
    assert_eq!(entry["fieldsV1"], json!({"f:data": {".": {}, "f:a": {}, "f:b": {}}}));
    let m = format!("{MAPS}/m");
    let patched = c.merge(&format!("{m}?fieldManager=p"), &json!({"data": {"a": "2", "c": "3"}})).await;
    let had = owners(&patched);
    assert_eq!(*owner(&had, "tool Update"), json!({"f:data": {".": {}, "f:b": {}}}));
    assert_eq!(*owner(&had, "p Update"), json!({"f:data": {"f:a": {}, "f:c": {}}}));
    // Who knows nothing of owners and sends none leaves them as they are.
    let mut bare = patched.body.clone();
    bare["metadata"].as_object_mut().unwrap().remove("managedFields");
    bare["data"]["b"] = "9".into();
    let put = c.put(&format!("{m}?fieldManager=q"), &bare).await;
    assert_eq!(owners(&put).len(), 3, "{}", put.body);
    // One empty entry forgets all of them; then nobody is kept track of until somebody applies.
    let reset = c.merge(&m, &json!({"metadata": {"managedFields": [{}]}})).await;
    assert_eq!((reset.code, owners(&reset).len()), (200, 0), "{}", reset.body);
    let silent = c.merge(&m, &json!({"data": {"a": "5"}})).await;
    assert!(owners(&silent).is_empty());
    let applied = c.apply(&m, "fieldManager=z&force=true", &map(json!({"a": "6"}))).await;
    let had = owners(&applied);
    assert_eq!(had.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["z Apply", "before-first-apply Update"]);
    assert!(owner(&had, "before-first-apply Update")["f:data"].get("f:a").is_none());
    // What no one can read is not taken; what is there stays.
    let bad = json!({"metadata": {"managedFields": [{"manager": "x", "operation": "Jump", "apiVersion": "v1"}]}});
    assert_eq!(owners(&c.merge(&m, &bad).await).len(), 2);
    c.stop().await;
}

#[tokio::test]
async fn status_and_scale_have_owners_of_their_own() {
    let c = Cluster::start().await;
    c.apply(D, "fieldManager=me", &deployment(1, "one")).await;
    let status = json!({
        "metadata": {"labels": {"no": "label"}}, "status": {"replicas": 1, "observedGeneration": 1},
        "spec": {"replicas": 7},
    });
    let written = c.merge(&format!("{D}/status?fieldManager=controller"), &status).await;
    assert_eq!(written.code, 200, "{}", written.body);
    assert_eq!((&written.body["spec"]["replicas"], &written.body["metadata"]["labels"]), (&json!(1), &Value::Null));
    let had = owners(&written);
    assert_eq!(
        *owner(&had, "controller Update status"),
        json!({"f:status": {"f:observedGeneration": {}, "f:replicas": {}}})
    );
    let main = c.apply(D, "fieldManager=me", &json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": deployment(1, "one")["spec"],
        "status": {"replicas": 9},
    }))
    .await;
    assert_eq!((main.code, &main.body["status"]["replicas"]), (200, &json!(1)), "{}", main.body);
    assert!(owner(&owners(&main), "me Apply").get("f:status").is_none());
    let scaled = c.merge(&format!("{D}/scale?fieldManager=scaler"), &json!({"spec": {"replicas": 4}})).await;
    assert_eq!((scaled.code, &scaled.body["spec"]["replicas"]), (200, &json!(4)), "{}", scaled.body);
    let had = owners(&c.get(D).await);
    assert_eq!(*owner(&had, "scaler Update scale"), json!({"f:spec": {"f:replicas": {}}}));
    assert!(owner(&had, "me Apply")["f:spec"].get("f:replicas").is_none());
    let refused = c.apply(D, "fieldManager=me", &deployment(1, "one")).await;
    assert_eq!(
        refused.refusal().2,
        "Apply failed with 1 conflict: conflict with \"scaler\" with subresource \"scale\" using apps/v1: .spec.replicas"
    );
    let scale =
        json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "d"}, "spec": {"replicas": 2}});
    assert_eq!(c.apply(&format!("{D}/scale"), "fieldManager=hpa", &scale).await.code, 409);
    let forced = c.apply(&format!("{D}/scale"), "fieldManager=hpa&force=true", &scale).await;
    assert_eq!((forced.code, &forced.body["spec"]["replicas"]), (200, &json!(2)), "{}", forced.body);
    assert_eq!(*owner(&owners(&c.get(D).await), "hpa Apply scale"), json!({"f:spec": {"f:replicas": {}}}));
    let absent = "/apis/apps/v1/namespaces/default/deployments/none/status";
    assert_eq!(c.apply(absent, "fieldManager=me", &deployment(1, "one")).await.code, 404);
    c.stop().await;
}

#[tokio::test]
async fn what_cannot_be_applied_is_refused_in_kubernetes_words() {
    let c = Cluster::start().await;
    let m = format!("{MAPS}/m");
    let good = map(json!({"a": "1"}));
    let mut unknown = good.clone();
    unknown["foo"] = 1.into();
    let mut managed = good.clone();
    managed["metadata"]["managedFields"] = json!([]);
    let mut elsewhere = good.clone();
    elsewhere["metadata"]["namespace"] = "other".into();
    let mut uid = good.clone();
    uid["metadata"]["uid"] = "u".into();
    let mut other = good.clone();
    other["metadata"]["name"] = "o".into();
    let typed = map(json!({"a": 1}));
    for (query, config, code, message) in [
        (
            "",
            good.to_string(),
            422,
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
        ),
        (
            "fieldManager=a",
            unknown.to_string(),
            500,
            "failed to create typed patch object (/m; /v1, Kind=ConfigMap): .foo: field not declared in schema",
        ),
        ("fieldManager=a", managed.to_string(), 400, "metadata.managedFields must be nil"),
        (
            "fieldManager=a",
            elsewhere.to_string(),
            400,
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
        (
            "fieldManager=a",
            uid.to_string(),
            409,
            "Operation cannot be fulfilled on configmaps \"m\": uid mismatch: the provided object specified uid u, and no \
             existing object was found",
        ),
        ("fieldManager=a", other.to_string(), 400, "the name of the object (o) does not match the name on the URL (m)"),
        ("fieldManager=a", "kind: Pod".to_owned(), 400, "invalid object type: /, Kind=Pod"),
        (
            "fieldManager=a&fieldValidation=Strict",
            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: m\ndata:\n  a: x\n  a: z\n".to_owned(),
            400,
            "error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal errors:\n  line 7: key \"a\" \
             already set in map",
        ),
    ] {
        let answer = c.send("PATCH", &format!("{m}?{query}"), APPLY, config.clone()).await;
        assert_eq!((answer.code, answer.refusal().2), (code, message), "{config}");
    }
    let wrong = c.apply(&m, "fieldManager=a", &typed).await;
    assert_eq!((wrong.code, wrong.refusal().1), (500, ""), "{}", wrong.body);
    assert!(wrong.refusal().2.starts_with("failed to create typed patch object (/m; /v1, Kind=ConfigMap): .data.a: "));
    let bad = c.send("PATCH", &format!("{m}?fieldManager=a"), APPLY, "a: [").await;
    assert_eq!(bad.code, 400);
    assert!(
        bad.refusal().2.starts_with("error decoding YAML: error converting YAML to JSON: yaml: line "),
        "{}",
        bad.body
    );
    let forced = c.send("PATCH", &format!("{m}?force=true"), "application/merge-patch+json", "{}").await;
    assert_eq!(
        forced.refusal().2,
        "PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be specified for non-apply patch"
    );
    let cbor = c.send("PATCH", &format!("{m}?fieldManager=a"), "application/apply-patch+cbor", "").await;
    assert_eq!(cbor.code, 415);
    assert_eq!(c.get(&m).await.code, 404, "nothing of all this was made");
    let made = c
        .send(
            "PATCH",
            &format!("{m}?fieldManager=a&fieldValidation=Warn"),
            APPLY,
            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: m\ndata:\n  a: x\n  a: z\n",
        )
        .await;
    assert_eq!(made.code, 201, "{}", made.body);
    assert!(made.warnings[0].contains("line 7: key \\\"a\\\" already set in map"), "{:?}", made.warnings);
    let mut stale = map(json!({"a": "z"}));
    stale["metadata"]["resourceVersion"] = "1".into();
    assert_eq!(c.apply(&m, "fieldManager=a", &stale).await.refusal().1, "Conflict");
    c.stop().await;
}

#[tokio::test]
async fn kubectl_goes_over_from_client_side_apply_without_conflict() {
    let c = Cluster::start().await;
    let last = map(json!({"a": "1", "b": "1"})).to_string();
    let mut live = map(json!({"a": "1", "b": "1"}));
    live["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/last-applied-configuration": last});
    let path = format!("{MAPS}?fieldManager=kubectl-client-side-apply");
    assert_eq!(c.post(&path, &live).await.code, 201);
    let m = format!("{MAPS}/m");
    let other = c.apply(&m, "fieldManager=me", &map(json!({"a": "2", "b": "1"}))).await;
    assert_eq!(other.code, 409, "only kubectl owns what the annotation says");
    let applied = c.apply(&m, "fieldManager=kubectl", &map(json!({"a": "2", "b": "1"}))).await;
    assert_eq!((applied.code, &applied.body["data"]["a"]), (200, &json!("2")), "{}", applied.body);
    let annotation = &applied.body["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"];
    assert_eq!(*annotation, format!("{}\n", map(json!({"a": "2", "b": "1"}))));
    // What somebody else changed meanwhile is no longer as the annotation has it.
    c.merge(&format!("{m}?fieldManager=you"), &json!({"data": {"b": "9"}})).await;
    let refused = c.apply(&m, "fieldManager=kubectl", &map(json!({"a": "3", "b": "1"}))).await;
    assert_eq!(refused.refusal().2, "Apply failed with 1 conflict: conflict with \"you\" using v1: .data.b");
    c.stop().await;
}

/// Who owns what, as manager, version and fields of the specification.
fn owners_of_spec(object: &Value) -> Vec<(String, String, Vec<String>)> {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let of = |entry: &Value| {
        let spec = entry["fieldsV1"]["f:spec"].as_object().cloned().unwrap_or_default();
        let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
        (text("manager"), text("apiVersion"), spec.keys().cloned().collect())
    };
    let mut all: Vec<_> = entries.iter().map(of).collect();
    all.sort();
    all
}

#[tokio::test]
async fn who_applied_in_one_version_still_owns_after_writes_in_another() {
    let c = Cluster::start().await;
    let (one, two) = ("autoscaling/v1", "autoscaling/v2");
    let path = |version: &str| format!("/apis/{version}/namespaces/default/horizontalpodautoscalers/h");
    let config = json!({"apiVersion": two, "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"}, "spec": {
        "minReplicas": 2, "maxReplicas": 5, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"},
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}]}});
    assert_eq!(c.apply(&path(two), "fieldManager=a", &config).await.code, 201);
    let changed = c.merge(&format!("{}?fieldManager=b", path(one)), &json!({"spec": {"maxReplicas": 6}})).await;
    assert_eq!(changed.code, 200, "{}", changed.body);
    let owned = |manager: &str, version: &str, fields: &[&str]| {
        (manager.to_owned(), version.to_owned(), fields.iter().map(|f| (*f).to_owned()).collect::<Vec<_>>())
    };
    assert_eq!(
        owners_of_spec(&changed.body),
        [owned("a", two, &["f:metrics", "f:minReplicas", "f:scaleTargetRef"]), owned("b", one, &["f:maxReplicas"])]
    );
    let refused = c.apply(&path(two), "fieldManager=a", &config).await;
    let why = "Apply failed with 1 conflict: conflict with \"b\" using autoscaling/v1";
    assert!(refused.code == 409 && refused.refusal().2.starts_with(why), "{}", refused.body);
    // What v1 calls otherwise is the same field.
    let other = json!({"spec": {"targetCPUUtilizationPercentage": 70}});
    let changed = c.merge(&format!("{}?fieldManager=b", path(one)), &other).await;
    let now = owners_of_spec(&changed.body);
    assert_eq!(now.first(), Some(&owned("a", two, &["f:minReplicas", "f:scaleTargetRef"])), "{}", changed.body);
    c.stop().await;
}
