//! Old versions: in, stored, and out again.

use serde_json::{Value, json};

use super::*;
use crate::kinds::{
    deployment::Deployments, ingress::Ingresses, network_policy::NetworkPolicies, replica_set::ReplicaSets,
};
use crate::ops::Typed;

fn kind(group: &str, version: &str, kind: &str) -> Arc<dyn KindOps> {
    let kinds = [
        Typed::shared(Deployments),
        Typed::shared(ReplicaSets),
        Typed::shared(Ingresses),
        Typed::shared(NetworkPolicies),
    ];
    let old = of(&kinds);
    let found = old.iter().find(|k| {
        let resource = k.resource();
        (resource.group, resource.version, resource.kind) == (group, version, kind)
    });
    Arc::clone(found.unwrap())
}

/// An old manifest as it is stored, and as it is shown again in the old version.
fn through(kind: &Arc<dyn KindOps>, manifest: &Value) -> (Value, Value) {
    let mut decoded = kind.decode(&serde_json::to_vec(manifest).unwrap()).unwrap_or_else(|error| panic!("{error}"));
    assert!(decoded.unknown.is_empty(), "{:?}", decoded.unknown);
    kind.default(&mut *decoded.object);
    let errors = kind.validate(&*decoded.object);
    assert!(errors.is_empty(), "{errors:?}");
    let read = |bytes: Vec<u8>| serde_json::from_slice(&bytes).unwrap();
    (read(kind.to_stored(&*decoded.object).unwrap()), read(kind.to_shown(&*decoded.object).unwrap()))
}

fn deployment(version: &str) -> Value {
    let template =
        json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    json!({"apiVersion": version, "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"replicas": 2, "rollbackTo": {"revision": 3}, "template": template}})
}

#[test]
fn a_deployment_of_extensions_gets_its_selector_and_old_defaults() {
    let (stored, shown) = through(&kind("extensions", "v1beta1", "Deployment"), &deployment("extensions/v1beta1"));
    assert_eq!(stored["apiVersion"], "apps/v1");
    assert_eq!(stored["spec"]["selector"], json!({"matchLabels": {"app": "web"}}));
    assert_eq!(stored["metadata"]["labels"], json!({"app": "web"}));
    assert_eq!(stored["spec"]["revisionHistoryLimit"], i32::MAX);
    assert_eq!(stored["spec"]["progressDeadlineSeconds"], i32::MAX);
    assert_eq!(stored["spec"]["strategy"]["rollingUpdate"], json!({"maxSurge": 1, "maxUnavailable": 1}));
    assert_eq!(stored["metadata"]["annotations"]["deprecated.deployment.rollback.to"], "3");
    assert_eq!(stored["spec"].get("rollbackTo"), None);
    assert_eq!((&shown["apiVersion"], &shown["kind"]), (&json!("extensions/v1beta1"), &json!("Deployment")));
    assert_eq!(shown["spec"]["rollbackTo"], json!({"revision": 3}));
    assert_eq!(shown["metadata"].get("annotations"), None);
}

#[test]
fn a_deployment_of_apps_has_the_defaults_of_its_version() {
    let (stored, _) = through(&kind("apps", "v1beta1", "Deployment"), &deployment("apps/v1beta1"));
    assert_eq!(stored["spec"]["revisionHistoryLimit"], 2);
    assert_eq!(stored["spec"]["strategy"]["rollingUpdate"]["maxSurge"], "25%");
    let beta2 = kind("apps", "v1beta2", "Deployment");
    let decoded =
        beta2.decode(&serde_json::to_vec(&deployment("apps/v1beta2")).unwrap()).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(decoded.unknown, ["spec.rollbackTo"], "it had gone by then");
    assert!(!beta2.validate(&*decoded.object).is_empty(), "and the selector was to be given");
}

#[test]
fn what_goes_out_comes_in_as_it_was() {
    for (group, version) in [("extensions", "v1beta1"), ("apps", "v1beta1")] {
        let kind = kind(group, version, "Deployment");
        let (stored, shown) = through(&kind, &deployment(&format!("{group}/{version}")));
        assert_eq!(through(&kind, &shown).0, stored, "{group}/{version}");
    }
}

#[test]
fn an_ingress_has_todays_backends() {
    let spec = json!({
        "backend": {"serviceName": "fallback", "servicePort": "http"},
        "rules": [{"host": "a.example.com", "http": {"paths": [
            {"path": "/", "backend": {"serviceName": "web", "servicePort": 80}},
            {"path": "/b", "pathType": "Exact", "backend": {"resource": {"kind": "Bucket", "name": "b"}}},
        ]}}],
    });
    for (group, api_version) in
        [("extensions", "extensions/v1beta1"), ("networking.k8s.io", "networking.k8s.io/v1beta1")]
    {
        let manifest = json!({"apiVersion": api_version, "kind": "Ingress", "metadata": {"name": "i"}, "spec": spec});
        let kind = kind(group, "v1beta1", "Ingress");
        let (stored, shown) = through(&kind, &manifest);
        assert_eq!(
            stored["spec"]["defaultBackend"],
            json!({"service": {"name": "fallback", "port": {"name": "http"}}})
        );
        let paths = &stored["spec"]["rules"][0]["http"]["paths"];
        assert_eq!(paths[0]["backend"], json!({"service": {"name": "web", "port": {"number": 80}}}));
        assert_eq!((&paths[0]["pathType"], &paths[1]["pathType"]), (&json!("ImplementationSpecific"), &json!("Exact")));
        assert_eq!(shown["spec"]["backend"], spec["backend"]);
        let old = &shown["spec"]["rules"][0]["http"]["paths"];
        assert_eq!(old[0]["backend"], json!({"serviceName": "web", "servicePort": 80}));
        assert_eq!(old[1]["backend"], json!({"resource": {"kind": "Bucket", "name": "b"}}));
        assert_eq!(through(&kind, &shown).0, stored);
    }
}

#[test]
fn an_empty_selector_of_an_old_budget_means_no_pods() {
    let conversion = conversions::find("policy", "v1beta1", "PodDisruptionBudget");
    let through = |change: Change, selector: Value| {
        let mut object = json!({"spec": {"selector": selector}}).as_object().cloned().unwrap();
        change(&mut object);
        object["spec"]["selector"].clone()
    };
    let nothing = through(conversion.to_modern, json!({}));
    assert_eq!(nothing["matchExpressions"][0]["operator"], "Exists");
    assert_eq!(through(conversion.to_old, nothing), json!({}));
    let everything = through(conversion.to_old, json!({}));
    assert_eq!(everything["matchExpressions"][0]["operator"], "DoesNotExist");
    assert_eq!(through(conversion.to_modern, everything), json!({}));
    let some = json!({"matchLabels": {"a": "b"}});
    assert_eq!(through(conversion.to_modern, some.clone()), some);
}

#[test]
fn old_workloads_replace_pods_as_they_did() {
    let through = |group: &str, version: &str, kind: &str, spec: Value| {
        let mut object = json!({"spec": spec}).as_object().cloned().unwrap();
        let conversion = conversions::find(group, version, kind);
        (conversion.to_modern)(&mut object);
        (conversion.defaults)(&mut object);
        object
    };
    let template = json!({"template": {"metadata": {"labels": {"a": "b"}}}, "templateGeneration": 4});
    let daemons = through("extensions", "v1beta1", "DaemonSet", template.clone());
    assert_eq!(daemons["spec"]["updateStrategy"]["type"], "OnDelete");
    assert_eq!(daemons["spec"]["selector"]["matchLabels"]["a"], "b");
    assert_eq!(daemons["metadata"]["annotations"]["deprecated.daemonset.template.generation"], "4");
    let daemons = through("apps", "v1beta2", "DaemonSet", template);
    assert_eq!(daemons["spec"].get("updateStrategy"), None, "today's default");
    let set = through("apps", "v1beta1", "StatefulSet", json!({"template": {"metadata": {"labels": {"a": "b"}}}}));
    assert_eq!(set["spec"]["updateStrategy"]["type"], "OnDelete");
}

#[test]
fn what_is_no_old_object_is_refused_and_nothing_panics() {
    for group in ["extensions", "networking.k8s.io"] {
        let kind = kind(group, "v1beta1", "Ingress");
        for json in [
            r#"[]"#,
            r#"{"spec":1}"#,
            r#"{"spec":{"rules":[1],"backend":[]}}"#,
            r#"{"spec":{"rules":[{"http":{"paths":[{"backend":1}]}}]}}"#,
        ] {
            assert!(kind.decode(json.as_bytes()).is_err(), "{json}");
        }
    }
    let deployment = kind("extensions", "v1beta1", "Deployment");
    for json in [r#"{"metadata":1}"#, r#"{"spec":{"strategy":[],"rollbackTo":1}}"#, r#"{"spec":{"template":1}}"#] {
        assert!(deployment.decode(json.as_bytes()).is_err(), "{json}");
    }
}

#[test]
fn the_deprecation_names_todays_version() {
    let kind = kind("extensions", "v1beta1", "Ingress");
    let expected =
        "extensions/v1beta1 Ingress is deprecated in v1.14+, unavailable in v1.22+; use networking.k8s.io/v1 Ingress";
    assert_eq!(kind.deprecation(), Some(expected));
}
