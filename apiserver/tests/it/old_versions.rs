//! Manifests from before: written in an old version, read in today's, and the other way round.

use serde_json::{Value, json};

use crate::harness::Cluster;

const OLD: &str = "/apis/extensions/v1beta1/namespaces/default/deployments";
const NEW: &str = "/apis/apps/v1/namespaces/default/deployments";

fn deployment() -> Value {
    let template =
        json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    json!({"apiVersion": "extensions/v1beta1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {"template": template}})
}

#[tokio::test]
async fn an_old_deployment_is_todays_under_another_name() {
    let c = Cluster::start().await;
    let created = c.post(OLD, &deployment()).await;
    assert_eq!((created.code, &created.body["apiVersion"]), (201, &json!("extensions/v1beta1")), "{}", created.body);
    let told =
        "299 - \"extensions/v1beta1 Deployment is deprecated in v1.9+, unavailable in v1.16+; use apps/v1 Deployment\"";
    assert_eq!(created.warnings, [told]);

    let today = c.get(&format!("{NEW}/web")).await;
    assert_eq!((today.code, &today.body["apiVersion"]), (200, &json!("apps/v1")));
    assert_eq!(today.body["spec"]["selector"], json!({"matchLabels": {"app": "web"}}));
    assert_eq!(today.version(), created.version(), "it is one object");
    assert!(today.warnings.is_empty());

    let list = c.get(OLD).await;
    assert_eq!(
        (&list.body["kind"], &list.body["apiVersion"]),
        (&json!("DeploymentList"), &json!("extensions/v1beta1"))
    );
    assert_eq!(list.body["items"][0]["apiVersion"], "extensions/v1beta1");
    assert_eq!(list.warnings, [told]);

    let scaled = c.merge(&format!("{OLD}/web/scale"), &json!({"spec": {"replicas": 3}})).await;
    assert_eq!((scaled.code, &scaled.body["spec"]["replicas"]), (200, &json!(3)), "{}", scaled.body);
    let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "j"}]}}}});
    let strategic = "application/strategic-merge-patch+json";
    let patched = c.send("PATCH", &format!("{OLD}/web"), strategic, patch.to_string()).await;
    assert_eq!(patched.code, 200, "{}", patched.body);
    let containers = &patched.body["spec"]["template"]["spec"]["containers"];
    assert_eq!((containers.as_array().unwrap().len(), &containers[0]["image"]), (1, &json!("j")));
    assert_eq!(c.get(&format!("{NEW}/web")).await.body["spec"]["replicas"], 3);

    let refused = c.post(OLD, &json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}})).await;
    assert_eq!((refused.code, refused.refusal().1), (400, "BadRequest"));
    assert_eq!(c.delete(&format!("{OLD}/web")).await.code, 200);
    assert_eq!(c.get(&format!("{NEW}/web")).await.code, 404);
    c.stop().await;
}

#[tokio::test]
async fn an_old_ingress_is_read_with_todays_backends() {
    let c = Cluster::start().await;
    let paths = json!([{"path": "/", "backend": {"serviceName": "web", "servicePort": 80}}]);
    let old = json!({"apiVersion": "networking.k8s.io/v1beta1", "kind": "Ingress", "metadata": {"name": "i"},
        "spec": {"rules": [{"http": {"paths": paths}}]}});
    let at = |version: &str| format!("/apis/networking.k8s.io/{version}/namespaces/default/ingresses");
    let strict = format!("{}?fieldValidation=Strict", at("v1beta1"));
    let created = c.post(&strict, &old).await;
    assert_eq!(created.code, 201, "{}", created.body);
    assert_eq!(created.body["spec"]["rules"][0]["http"]["paths"][0]["backend"]["serviceName"], "web");
    let today = c.get(&format!("{}/i", at("v1"))).await;
    let path = &today.body["spec"]["rules"][0]["http"]["paths"][0];
    assert_eq!(path["backend"], json!({"service": {"name": "web", "port": {"number": 80}}}));
    assert_eq!(path["pathType"], "ImplementationSpecific");
    let mut wrong = old.clone();
    wrong["metadata"]["name"] = "j".into();
    wrong["spec"]["rulez"] = json!([]);
    let refused = c.post(&strict, &wrong).await;
    assert!(refused.refusal().2.contains("strict decoding error: unknown field \"spec.rulez\""), "{}", refused.body);
    c.stop().await;
}

#[tokio::test]
async fn discovery_names_todays_version_first() {
    let c = Cluster::start().await;
    let groups = c.get("/apis").await;
    let names: Vec<&str> =
        groups.body["groups"].as_array().unwrap().iter().map(|group| group["name"].as_str().unwrap()).collect();
    // Those that are beta and stay so come last.
    let (today, beta) = names.split_at(names.len() - 2);
    assert_eq!(beta, ["extensions", "metrics.k8s.io"], "{names:?}");
    for group in groups.body["groups"].as_array().unwrap().iter().take(today.len()) {
        let preferred = group["preferredVersion"]["version"].as_str().unwrap();
        assert!(preferred.starts_with('v') && !preferred.contains("beta"), "{group}");
    }
    let apps = c.get("/apis/apps").await;
    let versions: Vec<&Value> = apps.body["versions"].as_array().unwrap().iter().map(|v| &v["version"]).collect();
    assert_eq!(versions, ["v1", "v1beta2", "v1beta1"]);
    let document = c.get("/openapi/v3/apis/extensions/v1beta1").await;
    let schemas = document.body["components"]["schemas"].as_object().unwrap();
    assert!(schemas.contains_key("io.k8s.api.extensions.v1beta1.Deployment"));
    c.stop().await;
}

#[tokio::test]
async fn an_old_definition_serves_its_resources() {
    let c = Cluster::start().await;
    let old = "/apis/apiextensions.k8s.io/v1beta1/customresourcedefinitions";
    let manifest = json!({
        "apiVersion": "apiextensions.k8s.io/v1beta1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "crontabs.stable.example.com"},
        "spec": {
            "group": "stable.example.com", "version": "v1", "scope": "Namespaced",
            "names": {"plural": "crontabs", "singular": "crontab", "kind": "CronTab", "shortNames": ["ct"]},
            "subresources": {"status": {}},
            "additionalPrinterColumns": [{"name": "Spec", "type": "string", "JSONPath": ".spec.cronSpec"}],
            "validation": {"openAPIV3Schema": {"properties": {"spec": {"type": "object", "properties": {
                "cronSpec": {"type": "string"}, "replicas": {"type": "integer", "minimum": 1}}}}}},
        },
    });
    let made = c.post(old, &manifest).await;
    assert_eq!((made.code, &made.body["apiVersion"]), (201, &manifest["apiVersion"]), "{}", made.body);
    let told = "299 - \"apiextensions.k8s.io/v1beta1 CustomResourceDefinition is deprecated in v1.16+, unavailable in \
                v1.22+; use apiextensions.k8s.io/v1 CustomResourceDefinition\"";
    assert_eq!(made.warnings, [told]);
    let shown = &made.body["spec"];
    assert_eq!((&shown["version"], &shown["preserveUnknownFields"]), (&json!("v1"), &json!(true)));
    assert_eq!(shown["additionalPrinterColumns"][0]["JSONPath"], ".spec.cronSpec");
    let replicas = &shown["validation"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["replicas"];
    assert_eq!(replicas["minimum"].as_f64(), Some(1.0));
    let name = "crontabs.stable.example.com";
    crate::definitions::until(&c, name, |d| d["status"]["conditions"][1]["type"] == "Established").await;
    let path = "/apis/stable.example.com/v1/namespaces/default/crontabs";
    let tab = |replicas: i64| {
        json!({"apiVersion": "stable.example.com/v1", "kind": "CronTab", "metadata": {"name": "t"},
               "spec": {"cronSpec": "* * * * *", "replicas": replicas, "other": true}})
    };
    let refused = c.post(path, &tab(0)).await;
    assert_eq!(refused.refusal().1, "Invalid", "{}", refused.body);
    let made = c.post(path, &tab(1)).await;
    assert_eq!((made.code, &made.body["spec"]["other"]), (201, &json!(true)), "unknown fields are kept, as they were");
    let patched = c.merge(&format!("{old}/{name}"), &json!({"spec": {"additionalPrinterColumns": null}})).await;
    assert_eq!((patched.code, patched.body["spec"].get("additionalPrinterColumns")), (200, None), "{}", patched.body);
    let today = c.get(&format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}")).await;
    assert_eq!(today.body["spec"]["versions"][0]["name"], "v1");
    assert_eq!(today.body["spec"]["versions"][0].get("additionalPrinterColumns"), None);
    assert_eq!(c.delete(&format!("{old}/{name}")).await.code, 200);
    c.stop().await;
}

#[tokio::test]
async fn an_old_deployment_is_applied_by_the_server_with_the_defaults_of_its_version() {
    let c = Cluster::start().await;
    let at = format!("{OLD}/web");
    let made = c.apply(&at, "fieldManager=me&fieldValidation=Strict", &deployment()).await;
    assert_eq!((made.code, &made.body["apiVersion"]), (201, &json!("extensions/v1beta1")), "{}", made.body);
    assert!(made.warnings.iter().any(|warning| warning.contains("use apps/v1 Deployment")), "{:?}", made.warnings);
    let today = c.get(&format!("{NEW}/web")).await.body;
    assert_eq!(today["spec"]["selector"], json!({"matchLabels": {"app": "web"}}));
    assert_eq!(today["spec"]["strategy"]["rollingUpdate"], json!({"maxSurge": 1, "maxUnavailable": 1}));
    let entry = &today["metadata"]["managedFields"][0];
    assert_eq!(
        (&entry["manager"], &entry["operation"], &entry["apiVersion"]),
        (&json!("me"), &json!("Apply"), &json!("apps/v1"))
    );
    assert_eq!(entry["fieldsV1"]["f:spec"].get("f:selector"), None, "what the version fills in is nobody's");

    // Once more it changes nothing; another is told who has what, in either version.
    let again = c.apply(&at, "fieldManager=me", &deployment()).await;
    assert_eq!((again.code, again.version()), (200, made.version()));
    let mut other = deployment();
    other["spec"]["template"]["spec"]["containers"][0]["image"] = "j".into();
    for (path, version) in [(&at, "extensions/v1beta1"), (&format!("{NEW}/web"), "apps/v1")] {
        other["apiVersion"] = version.into();
        let refused = c.apply(path, "fieldManager=you", &other).await;
        assert_eq!((refused.code, refused.refusal().1), (409, "Conflict"), "{}", refused.body);
        assert!(refused.refusal().2.contains("conflict with \"me\""), "{}", refused.body);
    }
    other["apiVersion"] = "extensions/v1beta1".into();
    assert_eq!(c.apply(&at, "fieldManager=you&force=true", &other).await.code, 200);

    // What is no longer applied goes, and what only the old version had is kept as today's keeps it.
    let mut config = deployment();
    config["spec"]["rollbackTo"] = json!({"revision": 3});
    config["spec"]["template"]["spec"]["containers"][0]["image"] = "j".into();
    let kept = c.apply(&at, "fieldManager=me", &config).await;
    assert_eq!(kept.body["spec"]["rollbackTo"], json!({"revision": 3}), "{}", kept.body);
    config["spec"].as_object_mut().unwrap().remove("rollbackTo");
    assert_eq!(c.apply(&at, "fieldManager=me", &config).await.body["spec"].get("rollbackTo"), None);

    // The scale and the status are applied in the same way.
    let scale =
        json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "web"}, "spec": {"replicas": 4}});
    let scaled = c.apply(&format!("{at}/scale"), "fieldManager=hpa&force=true", &scale).await;
    assert_eq!((scaled.code, &scaled.body["spec"]["replicas"]), (200, &json!(4)), "{}", scaled.body);
    let status = json!({"apiVersion": "extensions/v1beta1", "kind": "Deployment", "metadata": {"name": "web"},
        "status": {"observedGeneration": 1}});
    let told = c.apply(&format!("{at}/status"), "fieldManager=controller", &status).await;
    assert_eq!((told.code, &told.body["status"]["observedGeneration"]), (200, &json!(1)), "{}", told.body);

    let wrong = c
        .apply(
            &at,
            "fieldManager=me",
            &json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}}),
        )
        .await;
    assert_eq!((wrong.code, wrong.refusal().2), (400, "invalid object type: apps/v1, Kind=Deployment"));
    c.stop().await;
}

#[tokio::test]
async fn old_ingresses_and_definitions_are_applied_by_the_server_in_their_own_shape() {
    let c = Cluster::start().await;
    let at = |version: &str| format!("/apis/networking.k8s.io/{version}/namespaces/default/ingresses/i");
    let ingress = |port: i64| {
        json!({"apiVersion": "networking.k8s.io/v1beta1", "kind": "Ingress", "metadata": {"name": "i"},
            "spec": {"backend": {"serviceName": "all", "servicePort": "http"},
                "rules": [{"http": {"paths": [{"path": "/", "backend": {"serviceName": "web", "servicePort": port}}]}}]}})
    };
    for port in [80, 8080] {
        let applied = c.apply(&at("v1beta1"), "fieldManager=me", &ingress(port)).await;
        assert!([200, 201].contains(&applied.code), "{}", applied.body);
        assert_eq!(applied.body["spec"]["rules"][0]["http"]["paths"][0]["backend"]["servicePort"], port);
        let today = c.get(&at("v1")).await.body;
        let path = &today["spec"]["rules"][0]["http"]["paths"][0];
        assert_eq!(path["backend"], json!({"service": {"name": "web", "port": {"number": port}}}));
        assert_eq!(path["pathType"], "ImplementationSpecific");
        assert_eq!(today["spec"]["defaultBackend"]["service"]["port"], json!({"name": "http"}));
    }
    // A part of it, by another: it is the whole that must be right.
    let part = json!({"apiVersion": "networking.k8s.io/v1beta1", "kind": "Ingress", "metadata": {"name": "i", "labels": {"a": "b"}}});
    let labelled = c.apply(&at("v1beta1"), "fieldManager=you", &part).await;
    assert_eq!(
        (labelled.code, &labelled.body["spec"]["backend"]["serviceName"]),
        (200, &json!("all")),
        "{}",
        labelled.body
    );
    let mut wrong = ingress(80);
    wrong["spec"]["rulez"] = json!([]);
    let refused = c.apply(&at("v1beta1"), "fieldManager=me", &wrong).await;
    assert_eq!(refused.code, 500, "{}", refused.body);
    assert!(refused.refusal().2.contains(".spec.rulez: field not declared in schema"), "{}", refused.body);

    let definition = "/apis/apiextensions.k8s.io/v1beta1/customresourcedefinitions/tabs.e.com";
    let mut manifest = json!({
        "apiVersion": "apiextensions.k8s.io/v1beta1", "kind": "CustomResourceDefinition", "metadata": {"name": "tabs.e.com"},
        "spec": {"group": "e.com", "version": "v1", "names": {"plural": "tabs", "kind": "Tab"},
            "validation": {"openAPIV3Schema": {"properties": {"spec": {"type": "object"}}}}},
    });
    let made = c.apply(definition, "fieldManager=me", &manifest).await;
    assert_eq!((made.code, &made.body["spec"]["scope"]), (201, &json!("Namespaced")), "{}", made.body);
    let again = c.apply(definition, "fieldManager=me&dryRun=All", &manifest).await;
    assert_eq!((again.code, &again.body["metadata"]["generation"]), (200, &json!(1)), "{}", again.body);
    // What is said of all versions is said of none when none are named.
    manifest["spec"].as_object_mut().unwrap().remove("version");
    let refused = c.apply(definition, "fieldManager=me", &manifest).await;
    assert!(refused.refusal().2.contains(".spec.validation: field not declared in schema"), "{}", refused.body);
    c.stop().await;
}

#[tokio::test]
async fn who_applied_an_old_manifest_by_himself_may_leave_it_to_the_server() {
    let c = Cluster::start().await;
    let annotation = "kubectl.kubernetes.io/last-applied-configuration";
    let mut manifest = deployment();
    manifest["metadata"]["annotations"] = json!({annotation: deployment().to_string()});
    let made = c.post(&format!("{OLD}?fieldManager=kubectl-client-side-apply"), &manifest).await;
    assert_eq!(made.code, 201, "{}", made.body);
    let mut changed = deployment();
    changed["spec"]["template"]["spec"]["containers"][0]["image"] = "j".into();
    // Somebody else conflicts with the one who created it; kubectl goes on with what it had applied.
    assert_eq!(c.apply(&format!("{OLD}/web"), "fieldManager=other", &changed).await.code, 409);
    let applied = c.apply(&format!("{OLD}/web"), "fieldManager=kubectl", &changed).await;
    assert_eq!(applied.code, 200, "{}", applied.body);
    let text = applied.body["metadata"]["annotations"][annotation].as_str().unwrap();
    assert_eq!(serde_json::from_str::<Value>(text).unwrap(), changed, "as it was written");
    c.stop().await;
}
