//! Usage, constraints and scopes, each against objects in JSON.

use serde_json::{Value, json};

use super::*;

fn now() -> Timestamp {
    "2026-01-01T01:00:00Z".parse().unwrap()
}

fn pod(change: Value) -> Pod {
    let mut pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [
        {"name": "a", "resources": {"requests": {"cpu": "1", "memory": "1Gi", "example.com/gpu": "2"}, "limits": {"cpu": "2"}}},
        {"name": "b", "resources": {"requests": {"cpu": "500m", "hugepages-2Mi": "2Mi"}}},
    ]}});
    for (pointer, value) in change.as_object().unwrap() {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        if pod.pointer(parent).is_none() {
            pod[parent.trim_start_matches('/')] = json!({});
        }
        pod.pointer_mut(parent).unwrap()[key] = value.clone();
    }
    serde_json::from_value(pod).unwrap()
}

fn shown(used: &Amounts) -> String {
    used.iter().map(|(name, amount)| format!("{name}={amount}")).collect::<Vec<_>>().join(",")
}

#[test]
fn pods_use_what_they_request_until_they_end() {
    let all = "count/pods=1,cpu=1500m,hugepages-2Mi=2Mi,limits.cpu=2,memory=1Gi,pods=1,requests.cpu=1500m,\
               requests.example.com/gpu=2,requests.hugepages-2Mi=2Mi,requests.memory=1Gi";
    let leaving =
        |time: &str| pod(json!({"/metadata/deletionTimestamp": time, "/metadata/deletionGracePeriodSeconds": 30}));
    for (pod, expected) in [
        (pod(json!({})), all),
        (pod(json!({"/status/phase": "Succeeded"})), "count/pods=1"),
        (pod(json!({"/status/phase": "Failed"})), "count/pods=1"),
        (leaving("2026-01-01T00:59:40Z"), all),
        (leaving("2026-01-01T00:59:20Z"), "count/pods=1"),
    ] {
        let used = usage("", "pods", Counted::Pod(&pod), now());
        assert_eq!(shown(&used), expected);
        assert!(used.keys().all(|name| concerns("", "pods", name)), "{used:?}");
    }
}

#[test]
fn services_claims_and_others_use_what_their_kind_does() {
    let service = |spec: Value| -> Service { serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap() };
    let ports = json!([{"port": 1, "nodePort": 30000}, {"port": 2}]);
    for (spec, expected) in [
        (json!({"type": "ClusterIP", "ports": ports}), "services.loadbalancers=0,services.nodeports=0"),
        (json!({"type": "NodePort", "ports": ports}), "services.loadbalancers=0,services.nodeports=2"),
        (json!({"type": "LoadBalancer", "ports": ports}), "services.loadbalancers=1,services.nodeports=2"),
        (
            json!({"type": "LoadBalancer", "ports": ports, "allocateLoadBalancerNodePorts": false}),
            "services.loadbalancers=1,services.nodeports=1",
        ),
    ] {
        let used = usage("", "services", Counted::Service(&service(spec)), now());
        assert_eq!(shown(&used), format!("count/services=1,services=1,{expected}"));
    }
    let claim: PersistentVolumeClaim = serde_json::from_value(json!({"metadata": {}, "spec": {
        "storageClassName": "gold", "resources": {"requests": {"storage": "1500m"}},
    }}))
    .unwrap();
    let used = usage("", "persistentvolumeclaims", Counted::Claim(&claim), now());
    assert_eq!(
        shown(&used),
        "count/persistentvolumeclaims=1,gold.storageclass.storage.k8s.io/persistentvolumeclaims=1,\
         gold.storageclass.storage.k8s.io/requests.storage=2,persistentvolumeclaims=1,requests.storage=2"
    );
    assert!(used.keys().all(|name| concerns("", "persistentvolumeclaims", name)));
    assert_eq!(shown(&usage("", "secrets", Counted::Other, now())), "count/secrets=1,secrets=1");
    assert_eq!(shown(&usage("apps", "deployments", Counted::Other, now())), "count/deployments.apps=1");
    assert!(!concerns("apps", "secrets", "secrets") && !concerns("", "configmaps", "secrets"));
}

#[test]
fn what_a_quota_counts_must_be_said() {
    let check = |names: &[&str]| check_constraints(names.iter().copied(), &pod(json!({})));
    assert_eq!(check(&["pods", "requests.cpu", "services"]), Ok(()));
    assert_eq!(
        check(&["limits.cpu", "memory", "limits.ephemeral-storage"]),
        Err("must specify limits.cpu for: b; memory for: b".to_owned())
    );
}

#[test]
fn scopes_leave_some_of_the_objects() {
    let spec = |value: Value| -> ResourceQuotaSpec { serde_json::from_value(value).unwrap() };
    let scopes = |names: &[&str]| spec(json!({"scopes": names}));
    let classes = |operator: &str, values: &[&str]| {
        let expression = json!({"scopeName": "PriorityClass", "operator": operator, "values": values});
        spec(json!({"scopeSelector": {"matchExpressions": [expression]}}))
    };
    let plain = pod(json!({}));
    let ending = pod(json!({"/spec/activeDeadlineSeconds": 5}));
    let effort = pod(json!({"/spec/containers": [{"name": "a"}]}));
    let high = pod(json!({"/spec/priorityClassName": "high"}));
    let term = json!({"topologyKey": "k", "namespaces": ["x"]});
    let far =
        pod(json!({"/spec/affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}));
    for (quota, pod, is_in) in [
        (scopes(&[]), &plain, true),
        (scopes(&["Terminating"]), &plain, false),
        (scopes(&["Terminating"]), &ending, true),
        (scopes(&["NotTerminating", "NotBestEffort"]), &plain, true),
        (scopes(&["BestEffort"]), &effort, true),
        (scopes(&["BestEffort"]), &plain, false),
        (scopes(&["PriorityClass"]), &high, true),
        (classes("In", &["high", "low"]), &high, true),
        (classes("In", &["low"]), &high, false),
        (classes("In", &["low"]), &plain, false),
        (classes("NotIn", &["low"]), &high, true),
        (classes("DoesNotExist", &[]), &plain, true),
        (scopes(&["CrossNamespacePodAffinity"]), &far, true),
        (scopes(&["CrossNamespacePodAffinity"]), &plain, false),
    ] {
        assert_eq!(is_in_scope(&quota, Counted::Pod(pod)), is_in, "{quota:?}");
    }
    assert!(is_in_scope(&scopes(&[]), Counted::Other) && !is_in_scope(&scopes(&["BestEffort"]), Counted::Other));
}
