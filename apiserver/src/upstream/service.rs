//! Where a Service is reached: a ready pod's own address, as the Service's endpoints would lead to.

use coracle_store::{Range, Store};
use k8s_openapi::{
    api::{
        core::v1::{Pod, Service, ServicePort},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::util::intstr::IntOrString,
};
use serde::de::DeserializeOwned;

use crate::stored;

/// Which Service's port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) port: u16,
}

fn all<T: DeserializeOwned>(store: &Store, storage: &str, namespace: &str) -> Vec<T> {
    let Ok(found) = store.range(&Range::prefix(stored::prefix(storage, namespace))) else { return Vec::new() };
    found.entries.iter().filter_map(|entry| serde_json::from_slice(&entry.value).ok()).collect()
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    pod.metadata.deletion_timestamp.is_none()
        && conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn target_port(pod: &Pod, port: &ServicePort) -> Option<u16> {
    match &port.target_port {
        None | Some(IntOrString::Int(0)) => u16::try_from(port.port).ok(),
        Some(IntOrString::Int(number)) => u16::try_from(*number).ok(),
        Some(IntOrString::String(name)) => {
            let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
            let mut ports = containers.flat_map(|container| container.ports.iter().flatten());
            let named = ports.find(|port| port.name.as_ref() == Some(name))?;
            u16::try_from(named.container_port).ok()
        }
    }
}

/// Addresses and ports behind a Service without a selector, as its EndpointSlices have them.
fn from_slices(store: &Store, place: &Place, port: &ServicePort) -> Vec<(String, u16)> {
    let slices: Vec<EndpointSlice> = all(store, "endpointslices", &place.namespace);
    let own = slices.into_iter().filter(|slice| {
        let labels = slice.metadata.labels.as_ref();
        labels.and_then(|labels| labels.get("kubernetes.io/service-name")) == Some(&place.name)
    });
    let mut found = Vec::new();
    for slice in own {
        let name = port.name.as_deref().unwrap_or_default();
        let ports = slice.ports.as_deref().unwrap_or_default();
        let number = ports.iter().find(|p| p.name.as_deref().unwrap_or_default() == name).and_then(|p| p.port);
        let Some(number) = number.and_then(|number| u16::try_from(number).ok()) else { continue };
        for endpoint in slice.endpoints.into_iter().flatten() {
            if endpoint.conditions.and_then(|conditions| conditions.ready).unwrap_or(true) {
                found.extend(endpoint.addresses.into_iter().map(|address| (address, number)));
            }
        }
    }
    found
}

/// Host and port to connect to, one of the ready ones at random.
///
/// # Errors
/// Why there is none, in Kubernetes' words.
pub(crate) fn resolve(store: &Store, place: &Place) -> Result<(String, u16), String> {
    let Place { namespace, name, port } = place;
    let service: Option<Service> = store
        .get(&stored::key("services", namespace, name))
        .and_then(|entry| serde_json::from_slice(&entry.value).ok());
    let spec = service.and_then(|service| service.spec).ok_or_else(|| format!("service {name:?} not found"))?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return Ok((spec.external_name.unwrap_or_default(), *port));
    }
    let ports = spec.ports.unwrap_or_default();
    let entry = ports
        .iter()
        .find(|entry| entry.port == i32::from(*port))
        .ok_or_else(|| format!("no service port {port} found for service {name:?}"))?;
    let found = match spec.selector.filter(|selector| !selector.is_empty()) {
        None => from_slices(store, place, entry),
        Some(selector) => {
            let pods: Vec<Pod> = all(store, "pods", namespace);
            let selected = pods.iter().filter(|pod| {
                let labels = pod.metadata.labels.as_ref();
                is_ready(pod) && selector.iter().all(|(k, v)| labels.and_then(|labels| labels.get(k)) == Some(v))
            });
            let place = |pod: &Pod| Some((pod.status.as_ref()?.pod_ip.clone()?, target_port(pod, entry)?));
            selected.filter_map(place).collect()
        }
    };
    let chosen = (!found.is_empty()).then(|| rand::random_range(0..found.len()));
    chosen
        .and_then(|index| found.into_iter().nth(index))
        .ok_or_else(|| format!("no endpoints available for service {name:?}"))
}
