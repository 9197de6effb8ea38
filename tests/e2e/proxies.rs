//! Requests that the API server passes on: to pods, nodes, and API servers that are not there.

use crate::{
    cluster::{Cluster, LONG},
    wait::wait_for,
};

const WEB: &str = "apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: c
    image: busybox:1
    command: [sh, -c, 'mkdir -p /www && echo \"<a href=/next>go</a>\" > /www/index.html && exec httpd -f -p 8080 -h /www']
    ports: [{containerPort: 8080}]
";

#[test]
fn pods_and_nodes_are_reached_through_the_api_server() {
    let cluster = Cluster::start();
    cluster.import("busybox", "busybox:1");
    cluster.apply(WEB);
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/web", "--timeout=60s"]);
    let raw = |path: &str| {
        let output = cluster.kubectl_output(&["get", "--raw", path]);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if output.status.success() { Ok(out.into_owned()) } else { Err(err.into_owned()) }
    };
    for name in ["pods/web", "pods/http:web:8080"] {
        let proxy = format!("/api/v1/namespaces/default/{name}/proxy");
        // The server in the container begins a moment after the container does.
        let page = wait_for(name, LONG, || raw(&format!("{proxy}/")));
        assert_eq!(page, format!("<a href={proxy}/next>go</a>\n"), "{name}");
    }
    let refused = raw("/api/v1/namespaces/default/pods/web:81/proxy/").unwrap_err();
    assert!(refused.contains("error trying to reach service: dial tcp"), "{refused}");
    assert_eq!(raw("/api/v1/nodes/node-1/proxy/healthz").unwrap(), "ok");
    assert!(raw("/api/v1/nodes/node-1/proxy/pods").unwrap().contains("\"name\":\"web\""));
}

const GONE: &str = "apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1.sea.example}
spec:
  group: sea.example
  version: v1
  groupPriorityMinimum: 100
  versionPriority: 100
  insecureSkipTLSVerify: true
  service: {namespace: default, name: sea}
";

#[test]
fn a_namespace_waits_for_a_group_that_is_not_there() {
    let cluster = Cluster::start();
    cluster.apply(GONE);
    let available = "{.status.conditions[?(@.type==\"Available\")].reason}";
    cluster.wait_jsonpath(&["apiservice", "v1.sea.example"], available, "ServiceNotFound");
    let line = cluster.kubectl(&["get", "apiservice", "v1.sea.example", "--no-headers"]);
    assert!(line.contains("default/sea") && line.contains("False (ServiceNotFound)"), "{line}");
    cluster.kubectl(&["create", "namespace", "left"]);
    cluster.kubectl(&["delete", "namespace", "left", "--wait=false"]);
    let said = "{.status.conditions[?(@.type==\"NamespaceDeletionDiscoveryFailure\")].message}";
    let why = "Discovery failed for some groups, 1 failing: unable to retrieve the complete list of server APIs: \
               sea.example/v1: stale GroupVersion discovery: sea.example/v1";
    cluster.wait_jsonpath(&["namespace", "left"], said, why);
    cluster.kubectl(&["delete", "apiservice", "v1.sea.example"]);
    cluster.kubectl(&["wait", "--for=delete", "namespace/left", "--timeout=90s"]);
}
