//! Where a Service is reached: at a ready endpoint, as its EndpointSlices have them.

use coracle_store::{Entry, Range, Store};
use k8s_openapi::api::{
    core::v1::{ObjectReference, Service},
    discovery::v1::EndpointSlice,
};

use crate::stored;

/// Says of an EndpointSlice whose endpoints it has.
pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Which Service's port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) port: u16,
}

/// An address behind a Service that takes connections.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Endpoint {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// What it is the address of, a pod as a rule.
    pub(crate) target: Option<ObjectReference>,
}

/// A Service's slices, in an order of chance, but those of its first address family in front.
pub(crate) fn slices(store: &Store, namespace: &str, service: &str, family: Option<&str>) -> Vec<EndpointSlice> {
    let found = store.range(&Range::prefix(stored::prefix("endpointslices", namespace)));
    let entries = found.map(|found| found.entries).unwrap_or_default();
    let is_own = |entry: &Entry| stored::Header::of(entry).labels.get(SERVICE_NAME).is_some_and(|name| name == service);
    let own = entries.iter().filter(|entry| is_own(entry));
    let own = own.filter_map(|entry| serde_json::from_slice::<EndpointSlice>(&entry.value).ok()).collect();
    let mut own: Vec<EndpointSlice> = shuffled(own);
    own.sort_by_key(|slice| family.is_some_and(|family| slice.address_type != family));
    own
}

/// The slice's ready endpoints at the port of this name.
pub(crate) fn ready(slice: EndpointSlice, port: &str) -> Vec<Endpoint> {
    let ports = slice.ports.unwrap_or_default();
    let known = ports.iter().filter(|known| known.name.as_deref().unwrap_or_default() == port);
    let Some(port) = known.filter_map(|known| u16::try_from(known.port?).ok()).next() else { return Vec::new() };
    let endpoints = slice.endpoints.into_iter().flatten();
    // As Kubernetes has it, what is not known to be unready is ready, and only the first address counts.
    let ready = endpoints.filter(|one| one.conditions.as_ref().and_then(|known| known.ready).unwrap_or(true));
    ready
        .filter_map(|one| Some(Endpoint { host: one.addresses.into_iter().next()?, port, target: one.target_ref }))
        .collect()
}

/// The items, begun at a random one.
pub(crate) fn shuffled<T>(mut items: Vec<T>) -> Vec<T> {
    if !items.is_empty() {
        let begin = rand::random_range(0..items.len());
        items.rotate_left(begin);
    }
    items
}

/// Host and port to connect to: one of the ready endpoints at random, of the Service's first address family if there are
/// any.
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
    let family = spec.ip_families.as_deref().and_then(<[String]>::first).map(String::as_str);
    slices(store, namespace, name, family)
        .into_iter()
        .find_map(|slice| shuffled(ready(slice, entry.name.as_deref().unwrap_or_default())).into_iter().next())
        .map(|endpoint| (endpoint.host, endpoint.port))
        .ok_or_else(|| format!("no endpoints available for service {name:?}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ready_endpoints_of_a_named_port_are_found() {
        let slice: EndpointSlice = serde_json::from_value(json!({
            "metadata": {"name": "s"}, "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080}, {"name": "https", "port": 8443}, {"name": "any"}],
            "endpoints": [
                {"addresses": ["10.0.0.1", "10.9.9.9"]},
                {"addresses": ["10.0.0.2"], "conditions": {"ready": false}},
                {"addresses": ["10.0.0.3"], "conditions": {"ready": true}, "targetRef": {"kind": "Pod", "name": "p"}},
                {"addresses": []},
            ],
        }))
        .unwrap();
        let found = |port: &str| -> Vec<(String, u16, bool)> {
            let ready = ready(slice.clone(), port).into_iter();
            ready.map(|endpoint| (endpoint.host, endpoint.port, endpoint.target.is_some())).collect()
        };
        assert_eq!(found("https"), [("10.0.0.1".to_owned(), 8443, false), ("10.0.0.3".to_owned(), 8443, true)]);
        assert_eq!(found("http").len(), 2);
        // A port without a number takes all ports, and says nothing of where to connect to.
        assert!(found("any").is_empty() && found("").is_empty() && found("grpc").is_empty());
    }

    #[test]
    fn every_item_may_be_the_first() {
        let firsts: std::collections::BTreeSet<i32> = (0..1000).map(|_| shuffled(vec![1, 2, 3])[0]).collect();
        assert_eq!(firsts.len(), 3);
        assert!(shuffled(Vec::<i32>::new()).is_empty());
    }
}
