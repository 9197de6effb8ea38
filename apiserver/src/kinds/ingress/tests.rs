//! Ingresses: faults, tolerated old values and rows.

use expect_test::expect;
use serde_json::{Value, json};

use super::Ingresses;
use crate::kinds::testing::{created, faults, merged, refusals, row, shown};

fn path(path: &str, kind: &str) -> Value {
    json!({"path": path, "pathType": kind, "backend": {"service": {"name": "s", "port": {"number": 80}}}})
}

fn base() -> Value {
    json!({
        "metadata": {"name": "i", "namespace": "default"},
        "spec": {"rules": [{"host": "a.example.com", "http": {"paths": [path("/", "Prefix")]}}]},
    })
}

fn rules(rules: Value) -> Value {
    json!({"spec": {"rules": rules}})
}

#[test]
fn faults_are_named() {
    let backend = |backend: Value| json!({"spec": {"defaultBackend": backend}});
    let patches = [
        json!({"spec": {"rules": null}}),
        rules(json!([{"host": "1.2.3.4"}, {"host": "*.*.x"}, {"host": "A"}, {"http": {"paths": []}}])),
        rules(
            json!([{"http": {"paths": [path("x", "Exact"), path("/a//b/..", "Prefix"), path("/", "Suffix"), {"backend": {}}]}}]),
        ),
        backend(json!({})),
        backend(json!({"service": {"name": "", "port": {"name": "http", "number": 1}}})),
        backend(json!({"service": {"name": "A", "port": {"number": 70000}}})),
        backend(json!({"resource": {"kind": "a/b", "name": "", "apiGroup": "_"}})),
        json!({"spec": {"tls": [{"hosts": ["_"], "secretName": "_"}], "ingressClassName": "_"}}),
        json!({"metadata": {"annotations": {"kubernetes.io/ingress.class": "x"}}, "spec": {"ingressClassName": "y"}}),
    ];
    let text = faults(&Ingresses, &base(), &patches);
    let count = |needle: &str| text.matches(needle).count();
    for (needle, times) in [
        ("spec: Invalid value: null: either `defaultBackend` or `rules` must be specified", 1),
        ("spec.rules[0].host: Invalid value: \"1.2.3.4\": must be a DNS name, not an IP address", 1),
        ("spec.rules[1].host: Invalid value: \"*.*.x\": a wildcard DNS-1123 subdomain", 1),
        ("spec.rules[3].http.paths: Required value", 1),
        ("spec.rules[0].http.paths[0].path: Invalid value: \"x\": must be an absolute path", 1),
        ("paths[1].path: Invalid value: \"/a//b/..\": must not contain '//'", 1),
        ("paths[1].path: Invalid value: \"/a//b/..\": cannot end with '/..'", 1),
        (
            "paths[2].pathType: Unsupported value: \"Suffix\": supported values: \"Exact\", \"ImplementationSpecific\", \"Prefix\"",
            1,
        ),
        ("paths[3].pathType: Required value: pathType must be specified", 1),
        ("spec.defaultBackend: Invalid value: \"\": resource or service backend is required", 1),
        ("spec.defaultBackend.service.name: Required value", 1),
        ("spec.defaultBackend: Invalid value: \"\": cannot set both port name & port number", 1),
        ("spec.defaultBackend.service.port.number: Invalid value: 70000: must be between 1 and 65535, inclusive", 1),
        ("spec.defaultBackend.resource.kind: Invalid value: \"a/b\": may not contain '/'", 1),
        ("spec.defaultBackend.resource.name: Required value", 1),
        ("spec.tls[0].hosts[0]: Invalid value: \"_\"", 1),
        ("spec.tls[0].secretName: Invalid value: \"_\"", 1),
        ("spec.ingressClassName: Invalid value: \"_\"", 1),
        (
            "annotations.kubernetes.io/ingress.class: Invalid value: \"x\": must match `ingressClassName` when both are specified",
            1,
        ),
    ] {
        assert_eq!(count(needle), times, "{needle}\n{text}");
    }
}

#[test]
fn a_minimal_one_has_an_empty_balancer() {
    let object =
        created(&Ingresses, &merged(&base(), &json!({"status": {"loadBalancer": {"ingress": [{"ip": "1.1.1.1"}]}}})));
    assert!(shown(&Ingresses, &object).contains("\"loadBalancer\": {}"));
}

#[test]
fn a_class_may_change_and_the_annotation_is_no_longer_compared() {
    let patch =
        json!({"metadata": {"annotations": {"kubernetes.io/ingress.class": "x"}}, "spec": {"ingressClassName": "y"}});
    expect![[r#"
        {"metadata":{"annotations":{"kubernetes.io/ingress.class":"x"}},"spec":{"ingressClassName":"y"}}
    "#]]
    .assert_eq(&refusals(&Ingresses, &base(), &[patch]));
}

#[test]
fn a_row_shows_three_hosts() {
    let many = rules(json!([{"host": "a"}, {"host": "b"}, {"host": "c"}, {"host": "d"}, {}]));
    let status = json!({"spec": {"tls": [{}], "ingressClassName": "nginx"}, "status": {"loadBalancer": {"ingress": [{"ip": "2.2.2.2"}, {"hostname": "h"}]}}});
    assert_eq!(row(&Ingresses, &merged(&base(), &json!({}))), "i | <none> | a.example.com |  | 80 | <unknown>");
    assert_eq!(
        row(&Ingresses, &merged(&merged(&base(), &many), &status)),
        "i | nginx | a,b,c + 2 more... | 2.2.2.2,h | 80, 443 | <unknown>"
    );
    assert_eq!(row(&Ingresses, &json!({"metadata": {"name": "e"}})), "e | <none> | * |  | 80 | <unknown>");
}
