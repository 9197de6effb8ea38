//! The N-to-M form of Endpoints: addresses that offer the same ports stand together. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, ServicePort};

use crate::{service_pods::target, view::PodView};

/// So many addresses fit into one Endpoints; with more it is truncated.
const CAPACITY: usize = 1000;

/// One port at one address.
#[derive(Clone, Debug)]
pub(crate) struct Flat {
    pub(crate) address: EndpointAddress,
    /// `None` for an address of which no port is known.
    pub(crate) port: Option<EndpointPort>,
    pub(crate) is_ready: bool,
}

/// A pod's address.
pub(crate) fn address(ip: String, pod: &PodView, hostname: Option<String>) -> EndpointAddress {
    let node_name = Some(pod.spec.node_name.clone()).filter(|node| !node.is_empty());
    EndpointAddress { hostname, ip, node_name, target_ref: Some(target(pod)) }
}

/// A Service's port, by its number at the pod.
pub(crate) fn port(port: &ServicePort, number: i32) -> EndpointPort {
    EndpointPort {
        app_protocol: port.app_protocol.clone(),
        name: port.name.clone().filter(|name| !name.is_empty()),
        port: number,
        protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
    }
}

/// Address and uid: pods on a node's own network share an address and are still two.
type AddressKey = (String, Option<String>);
type PortKey = (Option<String>, i32, Option<String>, Option<String>);
/// The addresses that offer a port, and whether they are ready.
type Offers = BTreeMap<AddressKey, bool>;

fn address_key(address: &EndpointAddress) -> AddressKey {
    (address.ip.clone(), address.target_ref.as_ref().and_then(|target| target.uid.clone()))
}

fn port_key(port: &EndpointPort) -> PortKey {
    (port.name.clone(), port.port, port.protocol.clone(), port.app_protocol.clone())
}

/// The subsets apart.
pub(crate) fn unpack(subsets: &[EndpointSubset]) -> Vec<Flat> {
    let mut flat = Vec::new();
    for subset in subsets {
        let ready = subset.addresses.iter().flatten().map(|address| (address, true));
        let unready = subset.not_ready_addresses.iter().flatten().map(|address| (address, false));
        let mut ports: Vec<Option<EndpointPort>> = subset.ports.iter().flatten().cloned().map(Some).collect();
        if ports.is_empty() {
            ports.push(None);
        }
        for (address, is_ready) in ready.chain(unready) {
            flat.extend(ports.iter().map(|port| Flat { address: address.clone(), port: port.clone(), is_ready }));
        }
    }
    flat
}

/// Puts together what offers the same ports: each port is mapped to its addresses, and ports with the same addresses (in
/// the same readiness) make a subset. Not ready beats ready. The result is sorted, so that equal ones compare equal.
pub(crate) fn pack(flat: Vec<Flat>) -> Vec<EndpointSubset> {
    let mut addresses: BTreeMap<AddressKey, EndpointAddress> = BTreeMap::new();
    let mut by_port: BTreeMap<Option<PortKey>, (Option<EndpointPort>, Offers)> = BTreeMap::new();
    for Flat { mut address, port, is_ready } in flat {
        if let Some(target) = &mut address.target_ref {
            target.resource_version = None;
        }
        let key = address_key(&address);
        addresses.entry(key.clone()).or_insert(address);
        let (_, offers) = by_port.entry(port.as_ref().map(port_key)).or_insert_with(|| (port, Offers::new()));
        let ready = offers.entry(key).or_insert(true);
        *ready = *ready && is_ready;
    }
    let mut groups: BTreeMap<Offers, Vec<EndpointPort>> = BTreeMap::new();
    for (port, offers) in by_port.into_values() {
        groups.entry(offers).or_default().extend(port);
    }
    let group = |(offers, ports): (Offers, Vec<EndpointPort>)| {
        let of = |wanted: bool| -> Option<Vec<EndpointAddress>> {
            let keys = offers.iter().filter(|(_, ready)| **ready == wanted).map(|(key, _)| key);
            let found: Vec<EndpointAddress> = keys.filter_map(|key| addresses.get(key)).cloned().collect();
            (!found.is_empty()).then_some(found)
        };
        let (ready, unready) = (of(true), of(false));
        EndpointSubset { addresses: ready, not_ready_addresses: unready, ports: (!ports.is_empty()).then_some(ports) }
    };
    groups.into_iter().map(group).collect()
}

/// Takes away what is too much, from the addresses that are not ready first, from each subset its share; whether
/// anything was.
pub(crate) fn truncate(mut subsets: Vec<EndpointSubset>) -> (Vec<EndpointSubset>, bool) {
    let count = |list: &Option<Vec<EndpointAddress>>| list.as_ref().map_or(0, Vec::len);
    let ready: usize = subsets.iter().map(|subset| count(&subset.addresses)).sum();
    let unready: usize = subsets.iter().map(|subset| count(&subset.not_ready_addresses)).sum();
    if ready + unready <= CAPACITY {
        return (subsets, false);
    }
    let cuts_ready = ready > CAPACITY;
    let (room, total) = if cuts_ready { (CAPACITY, ready) } else { (CAPACITY - ready, unready) };
    let mut left = room;
    for subset in &mut subsets {
        let list = if cuts_ready { &mut subset.addresses } else { &mut subset.not_ready_addresses };
        let share = (count(list) * room).div_ceil(total.max(1)).min(left);
        if let Some(addresses) = list {
            addresses.truncate(share);
            left -= addresses.len();
        }
        if cuts_ready {
            subset.not_ready_addresses = None;
        }
        for list in [&mut subset.addresses, &mut subset.not_ready_addresses] {
            if list.as_ref().is_some_and(Vec::is_empty) {
                *list = None;
            }
        }
    }
    subsets.retain(|subset| subset.addresses.is_some() || subset.not_ready_addresses.is_some());
    (subsets, true)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn flat(ip: &str, port: i32, is_ready: bool) -> Flat {
        let address = EndpointAddress { ip: ip.to_owned(), ..EndpointAddress::default() };
        let port = (port > 0).then(|| EndpointPort { port, ..EndpointPort::default() });
        Flat { address, port, is_ready }
    }

    fn packed(flat: Vec<Flat>) -> Value {
        let subsets = pack(flat);
        assert_eq!(pack(unpack(&subsets)), subsets, "packing again changes nothing");
        serde_json::to_value(subsets).unwrap()
    }

    #[test]
    fn what_offers_the_same_ports_stands_together() {
        let both = packed(vec![flat("b", 80, true), flat("a", 443, true), flat("a", 80, true), flat("b", 443, true)]);
        let expected = json!([{"addresses": [{"ip": "a"}, {"ip": "b"}], "ports": [{"port": 80}, {"port": 443}]}]);
        assert_eq!(both, expected);
        let apart = packed(vec![flat("a", 80, true), flat("b", 443, false)]);
        let expected = json!([{"addresses": [{"ip": "a"}], "ports": [{"port": 80}]},
                              {"notReadyAddresses": [{"ip": "b"}], "ports": [{"port": 443}]}]);
        assert_eq!(apart, expected);
        assert_eq!(packed(vec![flat("a", 0, true)]), json!([{"addresses": [{"ip": "a"}]}]));
    }

    #[test]
    fn not_ready_beats_ready() {
        let packed = packed(vec![flat("a", 80, true), flat("a", 80, false)]);
        assert_eq!(packed, json!([{"notReadyAddresses": [{"ip": "a"}], "ports": [{"port": 80}]}]));
    }

    #[test]
    fn what_is_too_much_is_cut_from_each_its_share() {
        let many = |ready: usize, unready: usize| {
            let addresses = |count: usize, kind: &str| {
                (0..count).map(|n| flat(&format!("{kind}{n}"), 80, kind == "r")).collect::<Vec<_>>()
            };
            pack([addresses(ready, "r"), addresses(unready, "u")].concat())
        };
        for (ready, unready, left, is_cut) in
            [(600, 400, (600, 400), false), (600, 401, (600, 400), true), (1200, 5, (1000, 0), true)]
        {
            let (subsets, cut) = truncate(many(ready, unready));
            let count = |of: fn(&EndpointSubset) -> &Option<Vec<EndpointAddress>>| {
                subsets.iter().map(|s| of(s).as_ref().map_or(0, Vec::len)).sum::<usize>()
            };
            assert_eq!(((count(|s| &s.addresses), count(|s| &s.not_ready_addresses)), cut), (left, is_cut));
        }
        let two = [vec![flat("a", 1, true)], (0..1999).map(|n| flat(&format!("b{n}"), 2, true)).collect()].concat();
        let (subsets, _) = truncate(pack(two));
        let counts: Vec<usize> = subsets.iter().map(|s| s.addresses.as_ref().map_or(0, Vec::len)).collect();
        assert_eq!(counts, [1, 999]);
    }
}
