//! kubectl with manifests from before, and with what a cluster has from its first start on.

use crate::cluster::Cluster;

const OLD: &str = r#"
apiVersion: extensions/v1beta1
kind: Ingress
metadata: {name: shop}
spec:
  backend: {serviceName: fallback, servicePort: http}
  rules:
  - host: shop.example.com
    http:
      paths:
      - path: /
        pathType: Prefix
        backend: {serviceName: web, servicePort: 80}
---
apiVersion: extensions/v1beta1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 0
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: example.com/web}]}
"#;

#[test]
fn kubectl_applies_a_manifest_from_years_ago_and_shows_todays_object() {
    let cluster = Cluster::start();
    let applied = cluster.kubectl_stdin(&["apply", "-f", "-"], OLD);
    assert!(applied.contains("ingress.extensions/shop created"), "{applied}");
    assert!(applied.contains("deployment.extensions/web created"), "{applied}");

    // kubectl prefers today's version, and asks for it without a word about old ones.
    let version = cluster.kubectl(&["get", "ingress", "shop", "-o", "jsonpath={.apiVersion}"]);
    assert_eq!(version, "networking.k8s.io/v1");
    let port = "jsonpath={.spec.rules[0].http.paths[0].backend.service.port.number}";
    assert_eq!(cluster.kubectl(&["get", "ingress", "shop", "-o", port]), "80");
    let deployment = cluster.kubectl(&["get", "deploy", "web", "-o", "jsonpath={.apiVersion} {.spec.selector}"]);
    assert_eq!(deployment, r#"apps/v1 {"matchLabels":{"app":"web"}}"#);
    let shown = cluster.kubectl(&["get", "ingress"]);
    assert!(shown.contains("shop.example.com"), "{shown}");

    // The same manifest again is a patch, and changes nothing; a changed one changes today's object.
    let again = cluster.kubectl_stdin(&["apply", "-f", "-"], OLD);
    assert!(again.contains("ingress.extensions/shop unchanged"), "{again}");
    cluster.kubectl_stdin(&["apply", "-f", "-"], &OLD.replace("servicePort: 80", "servicePort: 8080"));
    assert_eq!(cluster.kubectl(&["get", "ingress", "shop", "-o", port]), "8080");

    // The server applies it as well, and kubectl goes over to that without a conflict.
    let manifest = OLD.replace("servicePort: 80", "servicePort: 9090");
    let applied = cluster.kubectl_stdin(&["apply", "--server-side", "-f", "-"], &manifest);
    assert!(applied.contains("deployment.extensions/web serverside-applied"), "{applied}");
    assert_eq!(cluster.kubectl(&["get", "ingress", "shop", "-o", port]), "9090");

    let output = cluster.kubectl_output(&["get", "ingresses.v1beta1.extensions", "shop", "-o", "yaml"]);
    let told = String::from_utf8_lossy(&output.stderr);
    let warning = "Warning: extensions/v1beta1 Ingress is deprecated in v1.14+, unavailable in v1.22+; use \
                   networking.k8s.io/v1 Ingress";
    assert!(told.contains(warning), "{told}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("serviceName: web"));

    let classes = cluster.kubectl(&["get", "pc"]);
    assert!(classes.contains("system-node-critical") && classes.contains("2000001000"), "{classes}");
    let services = cluster.kubectl(&["get", "apiservices"]);
    assert!(services.contains("v1.networking.k8s.io") && services.contains("Local"), "{services}");
    let explained = cluster.kubectl(&["explain", "networkpolicy.spec.podSelector"]);
    assert!(explained.contains("KIND:       NetworkPolicy"), "{explained}");
}
