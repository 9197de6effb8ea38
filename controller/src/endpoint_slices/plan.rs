//! Which slices a Service shall have: pure. Slices are changed as little as possible, since every change of one is sent
//! to every node.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::api::{
    core::v1::Service,
    discovery::v1::{Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice, ForNode, ForZone},
};

use super::{
    MANAGED_BY, MANAGER, SERVICE_NAME,
    changes::{Changes, Endpoints, PortsKey, endpoint_key, endpoints_of, is_owned, new_slice, ports_key, ports_of},
};
use crate::{
    pod_control::managing_owner,
    service_pods::{self, HEADLESS},
    view::PodView,
};

/// So many endpoints are in a slice at most.
const FULL: usize = 100;

/// The families a Service has addresses of; a headless one that does not say may have both.
fn families(service: &Service) -> BTreeSet<&'static str> {
    let spec = service.spec.clone().unwrap_or_default();
    let named: BTreeSet<&str> = spec
        .ip_families
        .iter()
        .flatten()
        .filter_map(|family| ["IPv4", "IPv6"].into_iter().find(|known| known == family))
        .collect();
    if !named.is_empty() {
        return named;
    }
    match spec.cluster_ip.as_deref() {
        Some("" | "None") | None => ["IPv4", "IPv6"].into(),
        Some(address) if address.contains(':') => ["IPv6"].into(),
        Some(_) => ["IPv4"].into(),
    }
}

/// The labels of a Service's slices: its own, and those that say whose and what they are.
fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    if service_pods::is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels.insert(SERVICE_NAME.to_owned(), service.metadata.name.clone().unwrap_or_default());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    labels
}

fn ports(service: &Service, pod: &PodView) -> Vec<EndpointPort> {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    let port = |port: &k8s_openapi::api::core::v1::ServicePort| {
        Some(EndpointPort {
            app_protocol: port.app_protocol.clone(),
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(service_pods::port_of(pod, port)?),
            protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
        })
    };
    ports.iter().filter_map(port).collect()
}

/// To whom an endpoint is near, for a Service that wants its traffic to stay near (KEP-4444, KEP-3015).
fn hints(service: &Service, endpoint: &Endpoint) -> Option<EndpointHints> {
    let near = service.spec.as_ref()?.traffic_distribution.as_deref()?;
    if !matches!(near, "PreferClose" | "PreferSameZone" | "PreferSameNode") {
        return None;
    }
    let zones = endpoint.zone.clone().map(|name| vec![ForZone { name }]);
    let nodes = endpoint.node_name.clone().filter(|_| near == "PreferSameNode").map(|name| vec![ForNode { name }]);
    (zones.is_some() || nodes.is_some()).then_some(EndpointHints { for_nodes: nodes, for_zones: zones })
}

fn endpoint(service: &Service, pod: &PodView, zone: Option<String>, addresses: Vec<String>) -> Endpoint {
    let (serving, terminating) = (pod.is_ready(), pod.metadata.deletion_timestamp.is_some());
    let ready = service_pods::publishes_unready(service) || (serving && !terminating);
    let mut endpoint = Endpoint {
        addresses,
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: service_pods::hostname(pod, service),
        node_name: Some(pod.spec.node_name.clone()).filter(|node| !node.is_empty()),
        target_ref: Some(service_pods::target(pod)),
        zone,
        ..Endpoint::default()
    };
    endpoint.hints = hints(service, &endpoint).filter(|_| ready);
    endpoint
}

/// The endpoints there shall be, by their ports: pods whose ports have other numbers are in slices of their own.
fn wanted(
    service: &Service,
    pods: &[Arc<PodView>],
    zones: &BTreeMap<String, Option<String>>,
    family: &str,
) -> BTreeMap<PortsKey, (Vec<EndpointPort>, Endpoints)> {
    let mut groups: BTreeMap<PortsKey, (Vec<EndpointPort>, Endpoints)> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| service_pods::has_endpoints(pod)) {
        let zone = zones.get(&pod.spec.node_name);
        // A node that is gone takes its pods with it; its coming is news.
        if zone.is_none() && !service_pods::publishes_unready(service) {
            continue;
        }
        let addresses = service_pods::addresses(pod, family == "IPv6");
        if addresses.is_empty() {
            continue;
        }
        let ports = ports(service, pod);
        let endpoint = endpoint(service, pod, zone.cloned().flatten(), addresses);
        let (_, endpoints) = groups.entry(ports_key(&ports)).or_insert_with(|| (ports, Endpoints::new()));
        endpoints.insert(endpoint_key(&endpoint), endpoint);
    }
    groups
}

/// One family's slices with the same ports, while they are being filled.
struct Group<'a> {
    wanted: Endpoints,
    update: Vec<EndpointSlice>,
    same: Vec<&'a Arc<EndpointSlice>>,
}

fn fill(slice: &mut EndpointSlice, wanted: &mut Endpoints) {
    let endpoints = slice.endpoints.get_or_insert_default();
    while endpoints.len() < FULL
        && let Some((_, endpoint)) = wanted.pop_first()
    {
        endpoints.push(endpoint);
    }
}

impl<'a> Group<'a> {
    /// Keeps in each slice what is wanted in it; slices of which nothing is left are to be deleted.
    fn keep(
        wanted: Endpoints,
        existing: &[&'a Arc<EndpointSlice>],
        labels: &BTreeMap<String, String>,
        delete: &mut Vec<Arc<EndpointSlice>>,
    ) -> Self {
        let mut group = Self { wanted, update: Vec::new(), same: Vec::new() };
        for slice in existing {
            let before = endpoints_of(slice);
            let kept: Vec<Endpoint> =
                before.iter().filter_map(|endpoint| group.wanted.remove(&endpoint_key(endpoint))).collect();
            if kept.is_empty() && !before.is_empty() {
                delete.push(Arc::clone(slice));
            } else if kept != before || slice.metadata.labels.as_ref() != Some(labels) {
                let mut changed = EndpointSlice::clone(slice);
                changed.endpoints = Some(kept);
                changed.metadata.labels = Some(labels.clone());
                group.update.push(changed);
            } else {
                group.same.push(slice);
            }
        }
        group
    }

    /// Places what is left: into slices that change anyway, the fullest first; into the one it fits into best; into new
    /// ones.
    fn place(mut self, empty: &EndpointSlice, changes: &mut Changes) {
        self.update.sort_by_key(|slice| Reverse(endpoints_of(slice).len()));
        for slice in &mut self.update {
            fill(slice, &mut self.wanted);
        }
        while !self.wanted.is_empty() {
            let room = |slice: &EndpointSlice| (FULL - self.wanted.len()).checked_sub(endpoints_of(slice).len());
            let best = if self.wanted.len() < FULL {
                let fitting = self.same.iter().enumerate().filter_map(|(at, slice)| Some((room(slice)?, at)));
                fitting.min().map(|(_, at)| at)
            } else {
                None
            };
            let mut slice = best.map_or_else(|| empty.clone(), |at| EndpointSlice::clone(self.same.swap_remove(at)));
            fill(&mut slice, &mut self.wanted);
            let list = if best.is_some() { &mut self.update } else { &mut changes.create };
            list.push(slice);
        }
        changes.update.append(&mut self.update);
    }
}

/// What is to be done so that the Service's slices show its pods. `zones` has the nodes there are.
pub(super) fn plan(
    service: &Service,
    pods: &[Arc<PodView>],
    zones: &BTreeMap<String, Option<String>>,
    existing: &[Arc<EndpointSlice>],
) -> Changes {
    let (families, labels) = (families(service), labels(service));
    let uid = service.metadata.uid.as_deref();
    let mut all = Changes::default();
    all.delete.extend(existing.iter().filter(|slice| !families.contains(slice.address_type.as_str())).cloned());
    for family in families {
        let mut changes = Changes::default();
        let (own, others): (Vec<_>, Vec<_>) =
            existing.iter().filter(|slice| slice.address_type == family).partition(|slice| is_owned(slice, uid));
        let count = own.len() + others.len();
        changes.delete.extend(others.into_iter().cloned());
        let mut by_ports: BTreeMap<PortsKey, Vec<&Arc<EndpointSlice>>> = BTreeMap::new();
        for slice in own {
            by_ports.entry(ports_key(ports_of(slice))).or_default().push(slice);
        }
        let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
        let empty = |ports| new_slice(managing_owner(service), namespace, labels.clone(), family, ports);
        for (key, (ports, endpoints)) in wanted(service, pods, zones, family) {
            let there = by_ports.remove(&key).unwrap_or_default();
            Group::keep(endpoints, &there, &labels, &mut changes.delete).place(&empty(ports), &mut changes);
        }
        changes.delete.extend(by_ports.into_values().flatten().cloned());
        // A Service without pods has a slice all the same: it says that there are none.
        if changes.delete.len() == count && changes.create.is_empty() {
            let is_placeholder = |slice: &EndpointSlice| {
                is_owned(slice, uid)
                    && slice.metadata.labels.as_ref() == Some(&labels)
                    && ports_of(slice).is_empty()
                    && endpoints_of(slice).is_empty()
            };
            match changes.delete.as_slice() {
                [only] if is_placeholder(only) => changes.delete.clear(),
                _ => changes.create.push(empty(Vec::new())),
            }
        }
        changes.recycle(uid);
        all.create.append(&mut changes.create);
        all.update.append(&mut changes.update);
        all.delete.append(&mut changes.delete);
    }
    all
}

#[cfg(test)]
mod tests;
