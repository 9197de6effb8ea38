//! Which slices show an Endpoints: one for each set of ports and family. Pure.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use k8s_openapi::api::{
    core::v1::{EndpointAddress, Endpoints as Object},
    discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice},
};
use kube::ResourceExt;

use super::MANAGER;
use crate::{
    endpoint_slices::{
        MANAGED_BY, SERVICE_NAME,
        changes::{Changes, Endpoints, PortsKey, endpoint_key, endpoints_of, is_owned, new_slice, ports_key, ports_of},
    },
    endpoints::subsets,
    pod_control::managing_owner,
    service_pods::TRIGGER,
};

/// So many addresses of a subset are mirrored.
pub(super) const MOST: usize = 1000;

/// What kubectl notes of an object is not about its mirror.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What is to be done, and what cannot be.
pub(super) struct Plan {
    pub(super) changes: Changes,
    /// Addresses that are none.
    pub(super) invalid: usize,
    /// Addresses that are not shown, those included.
    pub(super) skipped: usize,
}

/// An address and its family.
fn endpoint(address: &EndpointAddress, ready: bool) -> Option<(&'static str, Endpoint)> {
    let ip: IpAddr = address.ip.parse().ok()?;
    let endpoint = Endpoint {
        addresses: vec![ip.to_string()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
        hostname: address.hostname.clone().filter(|hostname| !hostname.is_empty()),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    };
    Some((if ip.is_ipv4() { "IPv4" } else { "IPv6" }, endpoint))
}

fn labels(object: &Object) -> BTreeMap<String, String> {
    let mut labels = object.labels().clone();
    labels.insert(SERVICE_NAME.to_owned(), object.name_any());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    labels
}

fn annotations(object: &Object) -> BTreeMap<String, String> {
    let mut annotations = object.annotations().clone();
    annotations.retain(|key, _| key != TRIGGER && key != LAST_APPLIED);
    annotations
}

/// Compares what is with what shall be.
pub(super) fn plan(object: &Object, existing: &[Arc<EndpointSlice>]) -> Plan {
    let mut plan = Plan { changes: Changes::default(), invalid: 0, skipped: 0 };
    let mut wanted: BTreeMap<(&str, PortsKey), (Vec<EndpointPort>, Endpoints)> = BTreeMap::new();
    for subset in subsets::pack(subsets::unpack(object.subsets.as_deref().unwrap_or_default())) {
        let port = |port: k8s_openapi::api::core::v1::EndpointPort| EndpointPort {
            app_protocol: port.app_protocol,
            name: Some(port.name.unwrap_or_default()),
            port: Some(port.port),
            protocol: Some(port.protocol.unwrap_or_else(|| "TCP".to_owned())),
        };
        let ports: Vec<EndpointPort> = subset.ports.unwrap_or_default().into_iter().map(port).collect();
        let ready = subset.addresses.unwrap_or_default().into_iter().map(|address| (address, true));
        let unready = subset.not_ready_addresses.unwrap_or_default().into_iter().map(|address| (address, false));
        let mut added = 0;
        for (address, is_ready) in ready.chain(unready) {
            if added >= MOST {
                plan.skipped += 1;
                continue;
            }
            let Some((family, endpoint)) = endpoint(&address, is_ready) else {
                (plan.invalid, plan.skipped) = (plan.invalid + 1, plan.skipped + 1);
                continue;
            };
            added += 1;
            let slot = wanted.entry((family, ports_key(&ports)));
            slot.or_insert_with(|| (ports.clone(), Endpoints::new())).1.insert(endpoint_key(&endpoint), endpoint);
        }
    }
    let mut there: BTreeMap<(&str, PortsKey), Vec<&Arc<EndpointSlice>>> = BTreeMap::new();
    for slice in existing {
        there.entry((slice.address_type.as_str(), ports_key(ports_of(slice)))).or_default().push(slice);
    }
    let (labels, annotations, uid) = (labels(object), annotations(object), object.metadata.uid.as_deref());
    for ((family, key), (ports, mut endpoints)) in wanted {
        let mut slices = there.remove(&(family, key)).unwrap_or_default().into_iter();
        let first = slices.next();
        plan.changes.delete.extend(slices.cloned());
        let is_right = |slice: &EndpointSlice| {
            let shown = endpoints_of(slice);
            slice.labels() == &labels
                && slice.annotations() == &annotations
                && is_owned(slice, uid)
                && shown.len() == endpoints.len()
                && shown.iter().all(|endpoint| endpoints.get(&endpoint_key(endpoint)) == Some(endpoint))
        };
        if first.is_some_and(|slice| is_right(slice)) {
            continue;
        }
        let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
        let mut slice = new_slice(managing_owner(object), namespace, labels.clone(), family, ports);
        slice.metadata.annotations = Some(annotations.clone());
        // Two subsets may share their ports, but a slice cannot hold more than one of them may.
        slice.endpoints =
            Some(std::iter::from_fn(|| endpoints.pop_first()).map(|(_, endpoint)| endpoint).take(MOST).collect());
        match first {
            None => plan.changes.create.push(slice),
            Some(old) => {
                slice.metadata.generate_name = None;
                slice.metadata.name.clone_from(&old.metadata.name);
                slice.metadata.uid.clone_from(&old.metadata.uid);
                slice.metadata.resource_version.clone_from(&old.metadata.resource_version);
                plan.changes.update.push(slice);
            }
        }
    }
    plan.changes.delete.extend(there.into_values().flatten().cloned());
    plan.changes.recycle(uid);
    plan
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn object(subsets: Value) -> Object {
        let annotations = json!({TRIGGER: "t", LAST_APPLIED: "l", "mine": "m"});
        let meta =
            json!({"name": "own", "namespace": "d", "uid": "u", "labels": {"a": "b"}, "annotations": annotations});
        serde_json::from_value(json!({"metadata": meta, "subsets": subsets})).unwrap()
    }

    fn done(object: &Object, before: &[Arc<EndpointSlice>]) -> Vec<Arc<EndpointSlice>> {
        let plan = plan(object, before);
        let mut after: Vec<Arc<EndpointSlice>> = before.to_vec();
        let name = |slice: &EndpointSlice| slice.metadata.name.clone();
        after.retain(|slice| !plan.changes.delete.iter().chain(&[]).any(|gone| name(gone) == name(slice)));
        after.retain(|slice| !plan.changes.update.iter().any(|new| name(new) == name(slice)));
        after.extend(plan.changes.update.into_iter().map(Arc::new));
        for (n, mut slice) in plan.changes.create.into_iter().enumerate() {
            slice.metadata.name = Some(format!("own-{}-{n}", before.len()));
            after.push(Arc::new(slice));
        }
        let again = super::plan(object, &after).changes;
        assert!(again.create.is_empty() && again.update.is_empty() && again.delete.is_empty(), "{again:?}");
        after
    }

    #[test]
    fn a_subset_is_a_slice_for_each_family() {
        let subset = json!({"addresses": [{"ip": "10.0.0.1", "hostname": "h"}, {"ip": "fd00::1"}],
                            "notReadyAddresses": [{"ip": "10.0.0.2"}], "ports": [{"port": 80, "protocol": "TCP"}]});
        let slices = done(&object(json!([subset])), &[]);
        let of = |family: &str| slices.iter().find(|slice| slice.address_type == family).unwrap();
        let expected = json!([
            {"addresses": ["10.0.0.1"], "conditions": {"ready": true}, "hostname": "h"},
            {"addresses": ["10.0.0.2"], "conditions": {"ready": false}},
        ]);
        assert_eq!(serde_json::to_value(&of("IPv4").endpoints).unwrap(), expected);
        assert_eq!(endpoints_of(of("IPv6")).len(), 1);
        let annotations: Vec<&String> = of("IPv4").annotations().keys().collect();
        assert_eq!(annotations, ["mine"]);
        let labels: Vec<&String> = of("IPv4").labels().keys().collect();
        assert_eq!(labels, ["a", MANAGED_BY, SERVICE_NAME]);
    }

    #[test]
    fn what_changes_is_changed_in_place() {
        let with = |ip: &str, port: u16| json!([{"addresses": [{"ip": ip}], "ports": [{"port": port}]}]);
        let first = done(&object(with("10.0.0.1", 80)), &[]);
        let other_address = done(&object(with("10.0.0.2", 80)), &first);
        assert_eq!(other_address[0].metadata.name, first[0].metadata.name);
        let other_port = done(&object(with("10.0.0.2", 81)), &other_address);
        assert_eq!((other_port.len(), &other_port[0].metadata.name), (1, &first[0].metadata.name));
        assert!(done(&object(json!([])), &other_port).is_empty());
    }

    #[test]
    fn what_cannot_be_shown_is_counted() {
        let addresses: Vec<Value> = (0..1002).map(|n| json!({"ip": format!("10.0.{}.{}", n / 250, n % 250)})).collect();
        let plan = plan(&object(json!([{"addresses": addresses, "notReadyAddresses": [{"ip": "x"}]}])), &[]);
        assert_eq!((plan.invalid, plan.skipped), (0, 3));
        assert_eq!(endpoints_of(&plan.changes.create[0]).len(), 1000);
        let plan = super::plan(&object(json!([{"addresses": [{"ip": "x"}]}])), &[]);
        assert_eq!((plan.invalid, plan.skipped, plan.changes.create.len()), (1, 1, 0));
    }
}
