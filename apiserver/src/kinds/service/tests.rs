//! Services: defaults, faults, changes and rows.

use expect_test::expect;
use serde_json::{Value, json};

use super::{Services, set_cluster_ip, wants_cluster_ip, wants_node_ports};
use crate::kinds::testing::{created, faults, merged, refusals, row, shown};

fn base() -> Value {
    json!({
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]},
    })
}

fn with_address() -> Value {
    merged(&base(), &json!({"spec": {"clusterIP": "10.43.0.5"}}))
}

#[test]
fn a_minimal_service_is_completed() {
    let mut object = created(&Services, &base());
    assert!(wants_cluster_ip(&object));
    assert!(!wants_node_ports(object.spec.as_ref().unwrap()));
    set_cluster_ip(&mut object, "10.43.0.9".parse().unwrap());
    assert!(!wants_cluster_ip(&object));
    expect![[r#"
        {
          "apiVersion": "v1",
          "kind": "Service",
          "metadata": {
            "name": "web",
            "namespace": "default"
          },
          "spec": {
            "clusterIP": "10.43.0.9",
            "clusterIPs": [
              "10.43.0.9"
            ],
            "internalTrafficPolicy": "Cluster",
            "ipFamilies": [
              "IPv4"
            ],
            "ipFamilyPolicy": "SingleStack",
            "ports": [
              {
                "port": 80,
                "protocol": "TCP",
                "targetPort": 80
              }
            ],
            "selector": {
              "app": "web"
            },
            "sessionAffinity": "None",
            "type": "ClusterIP"
          },
          "status": {
            "loadBalancer": {}
          }
        }"#]]
    .assert_eq(&shown(&Services, &object));
}

#[test]
fn types_bring_their_own_defaults() {
    let balanced = json!({"spec": {"type": "LoadBalancer", "sessionAffinity": "ClientIP"}});
    let object = created(&Services, &merged(&base(), &balanced));
    assert!(wants_node_ports(object.spec.as_ref().unwrap()));
    let spec = serde_json::to_value(object.spec).unwrap();
    assert_eq!(spec["externalTrafficPolicy"], "Cluster");
    assert_eq!(spec["allocateLoadBalancerNodePorts"], true);
    assert_eq!(spec["sessionAffinityConfig"], json!({"clientIP": {"timeoutSeconds": 10800}}));
    let external = json!({"spec": {"type": "ExternalName", "externalName": "a.example", "ports": null}});
    let object = created(&Services, &merged(&base(), &external));
    assert!(!wants_cluster_ip(&object));
    let spec = serde_json::to_value(object.spec).unwrap();
    assert_eq!(spec.get("internalTrafficPolicy"), None);
    assert_eq!(spec.get("ipFamilies"), None);
}

#[test]
fn faults_are_named() {
    let patches = [
        json!({"spec": {"ports": null}}),
        json!({"spec": {"ports": null, "clusterIP": "None"}}),
        json!({"spec": {"ports": [{"port": 0, "protocol": "ICMP", "targetPort": 70000}]}}),
        json!({"spec": {"ports": [{"port": 80}, {"port": 80, "name": "a", "nodePort": 30000}]}}),
        json!({"spec": {"type": "NodePort", "clusterIP": "None"}}),
        json!({"spec": {"type": "ExternalName", "clusterIP": "10.43.0.5"}}),
        json!({"spec": {"type": "Tunnel", "sessionAffinity": "Sticky"}}),
        json!({"spec": {"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 0}}}}),
        json!({"spec": {"clusterIP": "ten", "clusterIPs": ["10.43.0.5"]}}),
        json!({"spec": {"clusterIP": "10.43.0.5", "ipFamilies": ["IPv6", "IPv6"], "ipFamilyPolicy": "Both"}}),
        json!({"spec": {"externalIPs": ["127.0.0.1", "x"]}}),
        json!({"spec": {"externalTrafficPolicy": "Local", "healthCheckNodePort": 30001}}),
        json!({"spec": {"loadBalancerClass": "a/b", "loadBalancerSourceRanges": ["10.0.0.0/33"]}}),
        json!({"spec": {"trafficDistribution": "Anywhere", "internalTrafficPolicy": "Nowhere"}}),
        json!({"spec": {"selector": {"a b": "c"}}}),
    ];
    expect![[r#"
        {"spec":{"ports":null}}
            spec.ports: Required value
        {"spec":{"clusterIP":"None","ports":null}}
        {"spec":{"ports":[{"port":0,"protocol":"ICMP","targetPort":70000}]}}
            spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive
            spec.ports[0].protocol: Unsupported value: "ICMP": supported values: "SCTP", "TCP", "UDP"
            spec.ports[0].targetPort: Invalid value: 70000: must be between 1 and 65535, inclusive
        {"spec":{"ports":[{"port":80},{"name":"a","nodePort":30000,"port":80}]}}
            spec.ports[0].name: Required value
            spec.ports[1].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'
            spec.ports[1]: Duplicate value: {"port":80,"protocol":"TCP"}
        {"spec":{"clusterIP":"None","type":"NodePort"}}
            spec.clusterIPs[0]: Invalid value: "None": may not be set to 'None' for NodePort services
        {"spec":{"clusterIP":"10.43.0.5","type":"ExternalName"}}
            spec.clusterIPs: Forbidden: may not be set for ExternalName services
            spec.externalName: Required value
        {"spec":{"sessionAffinity":"Sticky","type":"Tunnel"}}
            spec.sessionAffinity: Unsupported value: "Sticky": supported values: "ClientIP", "None"
            spec.type: Unsupported value: "Tunnel": supported values: "ClusterIP", "NodePort", "LoadBalancer", "ExternalName"
            spec.internalTrafficPolicy: Required value
        {"spec":{"sessionAffinity":"ClientIP","sessionAffinityConfig":{"clientIP":{"timeoutSeconds":0}}}}
            spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 0: must be greater than 0 and less than 86400
        {"spec":{"clusterIP":"ten","clusterIPs":["10.43.0.5"]}}
            spec.clusterIPs: Invalid value: ["10.43.0.5"]: first value must match `clusterIP`
        {"spec":{"clusterIP":"10.43.0.5","ipFamilies":["IPv6","IPv6"],"ipFamilyPolicy":"Both"}}
            spec.ipFamilies[1]: Duplicate value: "IPv6"
            spec.ipFamilyPolicy: Unsupported value: "Both": supported values: "PreferDualStack", "RequireDualStack", "SingleStack"
            spec.clusterIPs[0]: Invalid value: "10.43.0.5": expected an IPv6 value as indicated by `ipFamilies[0]`
        {"spec":{"externalIPs":["127.0.0.1","x"]}}
            spec.externalIPs[0]: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)
            spec.externalIPs[1]: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)
        {"spec":{"externalTrafficPolicy":"Local","healthCheckNodePort":30001}}
            spec.externalTrafficPolicy: Invalid value: "Local": may only be set for externally-accessible services
            spec.healthCheckNodePort: Invalid value: 30001: may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'
        {"spec":{"loadBalancerClass":"a/b","loadBalancerSourceRanges":["10.0.0.0/33"]}}
            spec.LoadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'
            spec.LoadBalancerSourceRanges[0]: Invalid value: "10.0.0.0/33": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)
            spec.loadBalancerClass: Forbidden: may only be used when `type` is 'LoadBalancer'
        {"spec":{"internalTrafficPolicy":"Nowhere","trafficDistribution":"Anywhere"}}
            spec.internalTrafficPolicy: Unsupported value: "Nowhere": supported values: "Cluster", "Local"
            spec.trafficDistribution: Unsupported value: "Anywhere": supported values: "PreferClose", "PreferSameNode", "PreferSameZone"
        {"spec":{"selector":{"a b":"c"}}}
            spec.selector: Invalid value: "a b": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
    "#]].assert_eq(&faults(&Services, &base(), &patches));
}

#[test]
fn addresses_stay_and_are_kept_when_left_out() {
    let patches = [
        json!({"spec": {"clusterIP": "10.43.0.6", "clusterIPs": ["10.43.0.6"]}}),
        json!({"spec": {"clusterIP": "10.43.0.6"}}),
        json!({"spec": {"clusterIPs": ["10.43.0.6"]}}),
        json!({"spec": {"clusterIP": null, "clusterIPs": null, "ipFamilies": null}}),
        json!({"spec": {"clusterIP": null}}),
        json!({"spec": {"type": "NodePort"}}),
        json!({"spec": {"type": "ExternalName", "externalName": "a.example"}}),
    ];
    expect![[r#"
        {"spec":{"clusterIP":"10.43.0.6","clusterIPs":["10.43.0.6"]}}
            spec.clusterIPs[0]: Invalid value: ["10.43.0.6"]: may not change once set
        {"spec":{"clusterIP":"10.43.0.6"}}
            spec.clusterIPs[0]: Invalid value: ["10.43.0.6"]: may not change once set
        {"spec":{"clusterIPs":["10.43.0.6"]}}
            spec.clusterIPs[0]: Invalid value: ["10.43.0.6"]: may not change once set
            spec.clusterIPs: Invalid value: ["10.43.0.6"]: first value must match `clusterIP`
        {"spec":{"clusterIP":null,"clusterIPs":null,"ipFamilies":null}}
        {"spec":{"clusterIP":null}}
        {"spec":{"type":"NodePort"}}
        {"spec":{"externalName":"a.example","type":"ExternalName"}}
    "#]]
    .assert_eq(&refusals(&Services, &with_address(), &patches));
}

#[test]
fn rows_show_addresses_and_ports() {
    for (patch, expected) in [
        (json!({"type": "ClusterIP", "clusterIPs": ["10.43.0.5"]}), "ClusterIP | 10.43.0.5 | <none> | 80/TCP"),
        (json!({"type": "ClusterIP", "clusterIPs": ["None"], "ports": null}), "ClusterIP | None | <none> | <none>"),
        (
            json!({"type": "NodePort", "ports": [
                {"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]}),
            "NodePort | <none> | <none> | 80:30080/TCP,53/UDP",
        ),
        (json!({"type": "LoadBalancer"}), "LoadBalancer | <none> | <pending> | 80/TCP"),
        (json!({"type": "ExternalName", "externalName": "a.b"}), "ExternalName | <none> | a.b | 80/TCP"),
    ] {
        let base = merged(&base(), &json!({"spec": {"ports": [{"port": 80, "protocol": "TCP"}]}}));
        let object = merged(&base, &json!({"spec": patch}));
        assert_eq!(row(&Services, &object), format!("web | {expected} | <unknown> | app=web"));
    }
}

#[test]
fn a_status_says_where_a_balanced_service_is_reached() {
    let faults = |kind: &str, entries: Value| -> Vec<String> {
        let object = json!({"spec": {"type": kind}, "status": {"loadBalancer": {"ingress": entries}}});
        let object: k8s_openapi::api::core::v1::Service = serde_json::from_value(object).unwrap();
        super::validation::validate_status(&object, &Default::default()).iter().map(ToString::to_string).collect()
    };
    let at = "status.loadBalancer.ingress";
    assert!(faults("LoadBalancer", json!([{"ip": "1.2.3.4", "ipMode": "VIP"}, {"hostname": "a.example"}])).is_empty());
    for (kind, entries, expected) in [
        ("ClusterIP", json!([{"hostname": "a"}]), ": Forbidden: may only be used when `spec.type` is 'LoadBalancer'"),
        ("LoadBalancer", json!([{"ip": "1.2.3.4"}]), "[0].ipMode: Required value: must be specified when `ip` is set"),
        (
            "LoadBalancer",
            json!([{"hostname": "a", "ipMode": "VIP"}]),
            "[0].ipMode: Forbidden: may not be specified when `ip` is not set",
        ),
        (
            "LoadBalancer",
            json!([{"ip": "1.2.3.4", "ipMode": "x"}]),
            "[0].ipMode: Unsupported value: \"x\": supported values: \"Proxy\", \"VIP\"",
        ),
        (
            "LoadBalancer",
            json!([{"hostname": "1.2.3.4"}]),
            "[0].hostname: Invalid value: \"1.2.3.4\": must be a DNS name, not an IP address",
        ),
    ] {
        assert_eq!(faults(kind, entries), [format!("{at}{expected}")]);
    }
}

#[test]
fn what_does_nothing_is_told() {
    let told = |spec: Value| {
        let object = json!({"metadata": {"name": "a"}, "spec": spec});
        super::validation::warnings(&serde_json::from_value(object).unwrap())
    };
    assert!(told(json!({"type": "ClusterIP", "clusterIP": "10.43.0.5", "sessionAffinity": "None"})).is_empty());
    for (spec, expected) in [
        (
            json!({"type": "ClusterIP", "clusterIP": "None", "sessionAffinity": "ClientIP"}),
            "spec.SessionAffinity is ignored for headless services",
        ),
        (
            json!({"type": "ClusterIP", "externalIPs": ["1.2.3.4"]}),
            "spec.externalIPs is deprecated and may no longer be implemented in some clusters",
        ),
        (
            json!({"type": "ClusterIP", "externalName": "a"}),
            "spec.externalName is ignored when spec.type is not \"ExternalName\"",
        ),
        (
            json!({"type": "ClusterIP", "trafficDistribution": "PreferClose"}),
            "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"",
        ),
    ] {
        assert_eq!(told(spec), [expected]);
    }
}
