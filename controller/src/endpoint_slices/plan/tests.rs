//! Slices as they shall be, and how little of them changes.

use serde_json::{Value, json};

use super::*;

fn service(spec: Value) -> Service {
    let meta = json!({"name": "web", "namespace": "d", "uid": "u", "labels": {"a": "b"}});
    let mut whole = json!({"clusterIP": "10.0.0.1", "ipFamilies": ["IPv4"], "selector": {"app": "web"},
                           "ports": [{"name": "http", "port": 80, "targetPort": "http"}]});
    for (key, value) in spec.as_object().unwrap() {
        whole[key] = value.clone();
    }
    serde_json::from_value(json!({"metadata": meta, "spec": whole})).unwrap()
}

fn pod_with(name: &str, port: u16, change: Value) -> Arc<PodView> {
    let number: u16 = name.trim_start_matches(|c: char| c.is_alphabetic()).parse().unwrap();
    let ips = json!([{"ip": format!("10.1.{}.{}", number / 250, number % 250)}, {"ip": format!("fd00::{number:x}")}]);
    let mut pod = json!({
        "metadata": {"name": name, "namespace": "d", "uid": name},
        "spec": {"nodeName": "n", "containers": [{"ports": [{"name": "http", "containerPort": port}]}]},
        "status": {"podIPs": ips, "conditions": [{"type": "Ready", "status": "True"}]},
    });
    for (key, value) in change.as_object().unwrap() {
        for (inner, value) in value.as_object().unwrap() {
            pod[key][inner] = value.clone();
        }
    }
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn pods(count: usize) -> Vec<Arc<PodView>> {
    (0..count).map(|n| pod_with(&format!("p{n}"), 8080, json!({}))).collect()
}

fn zones() -> BTreeMap<String, Option<String>> {
    [("n".to_owned(), Some("z".to_owned()))].into()
}

/// What is there after a plan: names are given to what is new.
fn after(before: &[Arc<EndpointSlice>], changes: Changes) -> Vec<Arc<EndpointSlice>> {
    let mut all: BTreeMap<String, Arc<EndpointSlice>> =
        before.iter().map(|slice| (slice.metadata.name.clone().unwrap(), Arc::clone(slice))).collect();
    for gone in changes.delete {
        all.remove(gone.metadata.name.as_ref().unwrap()).unwrap();
    }
    for changed in changes.update {
        let name = changed.metadata.name.clone().unwrap();
        assert!(all.insert(name.clone(), Arc::new(changed)).is_some(), "{name}");
    }
    for (n, mut new) in changes.create.into_iter().enumerate() {
        assert_eq!(new.metadata.generate_name.as_deref(), Some("web-"));
        let name = format!("made-{}-{n}", all.len());
        new.metadata.name = Some(name.clone());
        all.insert(name, Arc::new(new));
    }
    all.into_values().collect()
}

fn settled(service: &Service, pods: &[Arc<PodView>], before: &[Arc<EndpointSlice>]) -> Vec<Arc<EndpointSlice>> {
    let now = after(before, plan(service, pods, &zones(), before));
    let again = plan(service, pods, &zones(), &now);
    assert!(again.create.is_empty() && again.update.is_empty() && again.delete.is_empty(), "{again:?}");
    now
}

fn sizes(slices: &[Arc<EndpointSlice>]) -> Vec<usize> {
    let mut sizes: Vec<usize> = slices.iter().map(|slice| endpoints_of(slice).len()).collect();
    sizes.sort_unstable();
    sizes
}

#[test]
fn an_endpoint_says_what_there_is_to_know_of_its_pod() {
    let named = json!({"spec": {"hostname": "h", "subdomain": "web"}});
    let slices = settled(&service(json!({})), &[pod_with("p1", 8080, named)], &[]);
    let expected = json!({
        "addresses": ["10.1.0.1"], "conditions": {"ready": true, "serving": true, "terminating": false},
        "hostname": "h", "nodeName": "n", "zone": "z",
        "targetRef": {"kind": "Pod", "namespace": "d", "name": "p1", "uid": "p1"},
    });
    assert_eq!(serde_json::to_value(&slices[0].endpoints).unwrap(), json!([expected]));
    let ports = serde_json::to_value(&slices[0].ports).unwrap();
    assert_eq!(ports, json!([{"name": "http", "port": 8080, "protocol": "TCP"}]));
    let labels: Vec<_> = slices[0].metadata.labels.clone().unwrap().into_iter().collect();
    let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    assert_eq!(labels, [label("a", "b"), label(MANAGED_BY, MANAGER), label(SERVICE_NAME, "web")]);
}

#[test]
fn conditions_follow_readiness_and_deletion() {
    let unready = json!({"status": {"conditions": []}});
    let going = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
    for (spec, pod, expected) in [
        (json!({}), unready.clone(), [false, false, false]),
        (json!({}), going.clone(), [false, true, true]),
        (json!({"publishNotReadyAddresses": true}), unready, [true, false, false]),
        (json!({"publishNotReadyAddresses": true}), going, [true, true, true]),
    ] {
        let slices = settled(&service(spec.clone()), &[pod_with("p1", 80, pod)], &[]);
        let is = endpoints_of(&slices[0])[0].conditions.clone().unwrap();
        assert_eq!([is.ready, is.serving, is.terminating], expected.map(Some), "{spec}");
    }
}

#[test]
fn a_service_without_pods_has_one_empty_slice() {
    let service = service(json!({}));
    let empty = settled(&service, &[], &[]);
    assert_eq!(sizes(&empty), [0]);
    let filled = settled(&service, &pods(1), &empty);
    assert_eq!((sizes(&filled), &filled[0].metadata.name), (vec![1], &empty[0].metadata.name), "it is used again");
    let emptied = settled(&service, &[], &filled);
    assert_eq!((sizes(&emptied), &emptied[0].metadata.name), (vec![0], &empty[0].metadata.name));
}

#[test]
fn a_slice_has_a_hundred_endpoints_and_few_slices_change() {
    let service = service(json!({}));
    let many = pods(251);
    let slices = settled(&service, &many, &[]);
    assert_eq!(sizes(&slices), [51, 100, 100]);
    let fewer = plan(&service, &many[1..], &zones(), &slices);
    assert_eq!((fewer.create.len(), fewer.update.len(), fewer.delete.len()), (0, 1, 0));
    let slices = after(&slices, fewer);
    // What comes back fits into the slice that has the least room left for it.
    let back = plan(&service, &many, &zones(), &slices);
    assert_eq!((back.create.len(), back.update.len()), (0, 1));
    assert_eq!(sizes(&after(&slices, back)).iter().sum::<usize>(), 251);
}

#[test]
fn pods_with_other_numbers_for_a_name_are_in_a_slice_of_their_own() {
    let pods = [pod_with("p1", 8080, json!({})), pod_with("p2", 9090, json!({})), pod_with("p3", 8080, json!({}))];
    let slices = settled(&service(json!({})), &pods, &[]);
    assert_eq!(sizes(&slices), [1, 2]);
}

#[test]
fn each_family_has_its_slices() {
    let slices = settled(&service(json!({"ipFamilies": ["IPv4", "IPv6"]})), &pods(2), &[]);
    let of = |family: &str| slices.iter().find(|slice| slice.address_type == family).unwrap();
    assert_eq!(endpoints_of(of("IPv4"))[0].addresses, ["10.1.0.0"]);
    assert_eq!(endpoints_of(of("IPv6"))[0].addresses, ["fd00::"]);
    let single = settled(&service(json!({})), &pods(2), &slices);
    assert!(single.iter().all(|slice| slice.address_type == "IPv4"), "the other family's go");
}

#[test]
fn slices_of_an_earlier_service_of_the_name_go() {
    let service = service(json!({}));
    let mut earlier = settled(&service, &pods(1), &[]);
    for slice in &mut earlier {
        Arc::make_mut(slice).metadata.owner_references.as_mut().unwrap()[0].uid = "other".to_owned();
    }
    let changes = plan(&service, &pods(1), &zones(), &earlier);
    assert_eq!((changes.create.len(), changes.update.len(), changes.delete.len()), (1, 0, 1));
}

#[test]
fn pods_that_are_over_or_on_no_node_are_not_shown() {
    let pods = [
        pod_with("p1", 80, json!({"status": {"phase": "Succeeded"}})),
        pod_with("p2", 80, json!({"spec": {"nodeName": "gone"}})),
        pod_with("p3", 80, json!({"status": {"podIPs": []}})),
    ];
    assert_eq!(sizes(&settled(&service(json!({})), &pods, &[])), [0]);
}

#[test]
fn traffic_that_shall_stay_near_is_hinted_at() {
    for (near, expected) in [
        ("PreferClose", json!({"forZones": [{"name": "z"}]})),
        ("PreferSameZone", json!({"forZones": [{"name": "z"}]})),
        ("PreferSameNode", json!({"forZones": [{"name": "z"}], "forNodes": [{"name": "n"}]})),
        ("Else", Value::Null),
    ] {
        let slices = settled(&service(json!({"trafficDistribution": near})), &pods(1), &[]);
        assert_eq!(serde_json::to_value(&endpoints_of(&slices[0])[0].hints).unwrap(), expected, "{near}");
    }
}

#[test]
fn the_services_labels_are_followed() {
    let slices = settled(&service(json!({})), &pods(1), &[]);
    let mut changed = service(json!({}));
    changed.metadata.labels = Some([("c".to_owned(), "d".to_owned())].into());
    let slices = settled(&changed, &pods(1), &slices);
    assert!(slices[0].metadata.labels.as_ref().unwrap().contains_key("c"));
}
