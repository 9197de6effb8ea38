//! What every cluster has from its first start on.

use coracle_apiserver::config::Config;

use crate::harness::Cluster;

#[tokio::test]
async fn a_new_cluster_has_its_classes_levels_and_api_services() {
    let c = Cluster::start().await;
    let names = async |path: &str| -> Vec<String> {
        let list = c.get(path).await;
        assert_eq!(list.code, 200, "{path}");
        let items = list.body["items"].as_array().unwrap().iter();
        items.map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    let classes = names("/apis/scheduling.k8s.io/v1/priorityclasses").await;
    assert_eq!(classes, ["system-cluster-critical", "system-node-critical"]);
    let levels = names("/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations").await;
    assert_eq!(levels.len(), 8, "{levels:?}");
    let schemas = names("/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas").await;
    assert_eq!(schemas.len(), 11, "{schemas:?}");
    let services = names("/apis/apiregistration.k8s.io/v1/apiservices").await;
    for service in ["v1.", "v1.apps", "v1beta1.extensions", "v1.flowcontrol.apiserver.k8s.io"] {
        assert!(services.iter().any(|name| name == service), "{service}: {services:?}");
    }
    let apps = c.get("/apis/apiregistration.k8s.io/v1/apiservices/v1.apps").await;
    assert_eq!(apps.body["status"]["conditions"][0]["reason"], "Local");
    assert_eq!(names("/apis/networking.k8s.io/v1/servicecidrs").await, ["kubernetes"]);
    let patch = serde_json::json!({"spec": {"matchingPrecedence": 9999}});
    let fixed = c.merge("/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas/catch-all", &patch).await;
    assert!(fixed.refusal().2.contains("spec of 'catch-all' must equal the fixed value"), "{}", fixed.body);
    c.stop().await;
}

#[tokio::test]
async fn the_service_of_the_server_leads_to_it() {
    let c = Cluster::start_with(|config| Config { advertise: Some("192.0.2.7".parse().unwrap()), ..config }).await;
    let endpoints = c.get("/api/v1/namespaces/default/endpoints/kubernetes").await;
    let subset = &endpoints.body["subsets"][0];
    assert_eq!(subset["addresses"][0]["ip"], "192.0.2.7", "{}", endpoints.body);
    assert_eq!(endpoints.body["metadata"]["labels"]["endpointslice.kubernetes.io/skip-mirror"], "true");
    let slice = c.get("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes").await;
    assert_eq!(slice.body["endpoints"][0]["addresses"][0], "192.0.2.7", "{}", slice.body);
    assert_eq!(slice.body["ports"][0]["port"], subset["ports"][0]["port"]);
    c.stop().await;
}
