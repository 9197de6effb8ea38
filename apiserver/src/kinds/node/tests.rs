//! Nodes: defaults, faults, changes and rows.

use expect_test::expect;
use serde_json::{Value, json};

use super::Nodes;
use crate::{
    kind::Strategy as _,
    kinds::testing::{created, faults, merged, refusals, row, shown},
};

fn base() -> Value {
    json!({"metadata": {"name": "n1"}, "spec": {"podCIDR": "10.42.0.0/24"},
        "status": {"capacity": {"cpu": "2000m", "memory": "2048Mi", "pods": "110"}}})
}

#[test]
fn what_nobody_uses_any_more_is_told() {
    let told = |spec: serde_json::Value| Nodes.warnings(&created(&Nodes, &merged(&base(), &json!({"spec": spec}))));
    assert_eq!(told(json!({})), [""; 0]);
    assert_eq!(told(json!({"externalID": ""})), [""; 0]);
    let unused = "spec.externalID: this field is deprecated, and is unused by Kubernetes";
    assert_eq!(told(json!({"externalID": "x", "configSource": {}})), [unused]);
}

#[test]
fn a_registering_node_keeps_its_status() {
    expect![[r#"
        {
          "apiVersion": "v1",
          "kind": "Node",
          "metadata": {
            "name": "n1"
          },
          "spec": {
            "podCIDR": "10.42.0.0/24",
            "podCIDRs": [
              "10.42.0.0/24"
            ]
          },
          "status": {
            "allocatable": {
              "cpu": "2",
              "memory": "2Gi",
              "pods": "110"
            },
            "capacity": {
              "cpu": "2",
              "memory": "2Gi",
              "pods": "110"
            },
            "daemonEndpoints": {
              "kubeletEndpoint": {
                "Port": 0
              }
            },
            "nodeInfo": {
              "architecture": "",
              "bootID": "",
              "containerRuntimeVersion": "",
              "kernelVersion": "",
              "kubeProxyVersion": "",
              "kubeletVersion": "",
              "machineID": "",
              "operatingSystem": "",
              "osImage": "",
              "systemUUID": ""
            }
          }
        }"#]]
    .assert_eq(&shown(&Nodes, &created(&Nodes, &base())));
}

#[test]
fn faults_are_named() {
    let patches = [
        json!({"spec": {"taints": [
            {"key": "a b", "effect": "Maybe", "value": "c d"}, {"key": "k", "effect": "NoExecute"},
            {"key": "k", "effect": "NoExecute", "value": "v"}]}}),
        json!({"spec": {"podCIDRs": ["10.42.0.0/24", "10.43.0.0/33", "10.44.0.0/24"]}}),
        json!({"spec": {"podCIDR": null, "podCIDRs": ["10.42.0.1/24"]}}),
        json!({"status": {"capacity": {"cpu": "-1", "pods": "1500m"}, "addresses": [
            {"type": "InternalIP", "address": "a"}, {"type": "InternalIP", "address": "a"}]}}),
    ];
    expect![[r#"
        {"spec":{"taints":[{"effect":"Maybe","key":"a b","value":"c d"},{"effect":"NoExecute","key":"k"},{"effect":"NoExecute","key":"k","value":"v"}]}}
            metadata.taints[0].key: Invalid value: "a b": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
            metadata.taints[0].value: Invalid value: "c d": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')
            metadata.taints[0].effect: Unsupported value: "Maybe": supported values: "NoSchedule", "PreferNoSchedule", "NoExecute"
            metadata.taints[2]: Duplicate value: {"effect":"NoExecute","key":"k","value":"v"}: taints must be unique by key and effect pair
        {"spec":{"podCIDRs":["10.42.0.0/24","10.43.0.0/33","10.44.0.0/24"]}}
            spec.podCIDRs[1]: Invalid value: "10.43.0.0/33": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)
            spec.podCIDRs: Invalid value: ["10.42.0.0/24","10.43.0.0/33","10.44.0.0/24"]: may specify no more than one CIDR for each IP family
        {"spec":{"podCIDR":null,"podCIDRs":["10.42.0.1/24"]}}
            spec.podCIDRs[0]: Invalid value: "10.42.0.1/24": must not have bits set beyond the prefix length
        {"status":{"addresses":[{"address":"a","type":"InternalIP"},{"address":"a","type":"InternalIP"}],"capacity":{"cpu":"-1","pods":"1500m"}}}
            status.capacity.cpu: Invalid value: "-1": must be greater than or equal to 0
            status.capacity.pods: Invalid value: "1500m": must be an integer
            status.allocatable.cpu: Invalid value: "-1": must be greater than or equal to 0
            status.allocatable.pods: Invalid value: "1500m": must be an integer
            status.addresses[1]: Duplicate value: {"address":"a","type":"InternalIP"}
    "#]].assert_eq(&faults(&Nodes, &base(), &patches));
}

#[test]
fn what_is_assigned_once_stays() {
    let base = merged(&base(), &json!({"spec": {"providerID": "coracle://n1"}}));
    let patches = [
        json!({"spec": {"podCIDR": "10.42.1.0/24", "podCIDRs": ["10.42.1.0/24"]}}),
        json!({"spec": {"providerID": "other://n1"}}),
        json!({"spec": {"unschedulable": true, "taints": [{"key": "k", "effect": "NoSchedule"}]}}),
    ];
    expect![[r#"
        {"spec":{"podCIDR":"10.42.1.0/24","podCIDRs":["10.42.1.0/24"]}}
            spec.podCIDRs: Forbidden: node updates may not change podCIDR except from "" to valid
        {"spec":{"providerID":"other://n1"}}
            spec.providerID: Forbidden: node updates may not change providerID except from "" to valid
        {"spec":{"taints":[{"effect":"NoSchedule","key":"k"}],"unschedulable":true}}
    "#]]
    .assert_eq(&refusals(&Nodes, &base, &patches));
}

#[test]
fn a_row_shows_state_roles_and_machine() {
    assert_eq!(
        row(&Nodes, &json!({"metadata": {"name": "n"}})),
        "n | Unknown | <none> | <unknown> |  | <none> | <none> | <unknown> | <unknown> | <unknown>"
    );
    let node = json!({
        "metadata": {"name": "n", "labels": {"node-role.kubernetes.io/worker": "",
            "node-role.kubernetes.io/control-plane": "", "kubernetes.io/role": "master"}},
        "spec": {"unschedulable": true},
        "status": {
            "conditions": [{"type": "MemoryPressure", "status": "False"}, {"type": "Ready", "status": "True"}],
            "addresses": [{"type": "Hostname", "address": "n"}, {"type": "InternalIP", "address": "10.0.0.1"}],
            "nodeInfo": {"kubeletVersion": "v1.36.0", "osImage": "Debian", "kernelVersion": "6.18",
                "containerRuntimeVersion": "coracle://0.1.0", "architecture": "amd64"},
        },
    });
    assert_eq!(
        row(&Nodes, &node),
        "n | Ready,SchedulingDisabled | control-plane,master,worker | <unknown> | v1.36.0 | 10.0.0.1 | <none> | Debian | \
         6.18 (amd64) | coracle://0.1.0"
    );
    let lost =
        merged(&node, &json!({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}, "spec": null}));
    assert!(row(&Nodes, &lost).starts_with("n | NotReady | "));
}
