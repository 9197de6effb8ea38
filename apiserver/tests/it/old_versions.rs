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
    assert_eq!(names.last(), Some(&"extensions"), "{names:?}");
    for group in groups.body["groups"].as_array().unwrap().iter().filter(|group| group["name"] != "extensions") {
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
