//! Where a proxied request goes.

use std::net::IpAddr;

use coracle_proto::status::Status;
use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service};

use crate::{
    registry::Registry,
    request::RequestInfo,
    security::node_address,
    status_of::Result,
    upstream::{
        connect::joined,
        service::{self, Endpoint},
    },
};

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A server somewhere in the cluster.
    Server { scheme: &'static str, host: String, port: u16 },
    /// A node's own server, which shows who it is.
    Kubelet { node: String, address: String },
}

impl Place {
    /// Host and port.
    pub(super) fn address(&self) -> String {
        match self {
            Self::Server { host, port, .. } => joined(host, *port),
            Self::Kubelet { address, .. } => address.clone(),
        }
    }
}

/// `NAME`, `NAME:PORT` or `SCHEME:NAME:PORT`; none for all else.
fn split(text: &str) -> Option<(&'static str, &str, &str)> {
    let parts: Vec<&str> = text.split(':').collect();
    let (scheme, name, port) = match parts.as_slice() {
        [name] => ("", *name, ""),
        [name, port] => ("", *name, *port),
        [scheme, name, port] => (*scheme, *name, *port),
        _ => return None,
    };
    let scheme = match scheme {
        "" | "http" => "http",
        "https" => "https",
        _ => return None,
    };
    (!name.is_empty()).then_some((scheme, name, port))
}

fn asked<'a>(info: &'a RequestInfo, what: &str) -> Result<(&'static str, &'a str, &'a str)> {
    split(&info.name).ok_or_else(|| Box::new(Status::bad_request(format!("invalid {what} request {:?}", info.name))))
}

/// Whether it is the address of one host that others may reach, as Go's `IsGlobalUnicast`.
fn is_allowed(address: &str) -> bool {
    match address.parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) => {
            !(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || ip.is_link_local() || ip.is_broadcast())
        }
        Ok(IpAddr::V6(ip)) => match ip.to_ipv4_mapped() {
            Some(ip) => is_allowed(&ip.to_string()),
            None => !(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || ip.is_unicast_link_local()),
        },
        Err(_) => false,
    }
}

fn refuse_unless_allowed(address: &str) -> Result<()> {
    if is_allowed(address) { Ok(()) } else { Err(Box::new(Status::bad_request("address not allowed"))) }
}

fn number(port: &str) -> Result<u16> {
    port.parse().map_err(|_| {
        let why = format!("error trying to reach service: dial tcp: lookup tcp/{port}: unknown port");
        Box::new(Status::unavailable(why))
    })
}

fn usual(scheme: &str) -> u16 {
    if scheme == "https" { 443 } else { 80 }
}

/// A pod's addresses, the first one its own.
fn addresses(pod: &Pod) -> Vec<&str> {
    let status = pod.status.as_ref();
    let first = status.and_then(|status| status.pod_ip.as_deref());
    let all = status.and_then(|status| status.pod_ips.as_deref()).unwrap_or_default();
    first.into_iter().chain(all.iter().map(|address| address.ip.as_str())).collect()
}

/// A pod's port: the one asked for, else the first that any of its containers has.
pub(super) fn pod(registry: &Registry, info: &RequestInfo) -> Result<Place> {
    let (scheme, name, port) = asked(info, "pod")?;
    let found: Option<Pod> = registry.get_typed(&info.namespace, name)?;
    let pod = found.ok_or_else(|| Box::new(Status::not_found("", "pods", name)))?;
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let first = containers.flat_map(|container| container.ports.iter().flatten()).next();
    let port = match (port, first) {
        ("", Some(first)) => u16::try_from(first.container_port).unwrap_or(usual(scheme)),
        ("", None) => usual(scheme),
        (port, _) => number(port)?,
    };
    let host = addresses(&pod).first().copied().unwrap_or_default().to_owned();
    refuse_unless_allowed(&host)?;
    Ok(Place::Server { scheme, host, port })
}

/// Whether the address is that of the pod it is said to be of.
fn is_pods(registry: &Registry, namespace: &str, address: &str, target: Option<&ObjectReference>) -> bool {
    let Some(target) = target.filter(|target| target.kind.as_deref() == Some("Pod")) else { return false };
    if target.namespace.as_deref().is_some_and(|other| other != namespace) {
        return false;
    }
    let name = target.name.as_deref().unwrap_or_default();
    let pod: Option<Pod> = registry.get_typed(namespace, name).ok().flatten();
    pod.is_some_and(|pod| addresses(&pod).contains(&address))
}

/// One of a service's ready endpoints at random.
pub(super) fn service(registry: &Registry, info: &RequestInfo) -> Result<Place> {
    let (scheme, name, port) = asked(info, "service")?;
    let object: Option<Service> = registry.get_typed(&info.namespace, name)?;
    let port = match (port.parse::<i32>(), object) {
        (Ok(_), None) => return Err(Box::new(Status::not_found("", "services", name))),
        (Err(_), None) => return Err(Box::new(Status::not_found("", "endpoints", name))),
        (Err(_), Some(_)) => port.to_owned(),
        (Ok(number), Some(service)) => {
            let ports = service.spec.and_then(|spec| spec.ports).unwrap_or_default();
            let Some(port) = ports.into_iter().find(|port| port.port == number) else {
                let why = format!("no service port {number} found for service {name:?}");
                return Err(Box::new(Status::unavailable(why)));
            };
            port.name.unwrap_or_default()
        }
    };
    let slices = service::slices(registry.store(), &info.namespace, name, None);
    let any = slices.iter().any(|slice| slice.endpoints.as_ref().is_some_and(|endpoints| !endpoints.is_empty()));
    let found = slices.into_iter().flat_map(|slice| service::ready(slice, &port)).collect();
    // Begun at a random one, so that a service with many endpoints costs one look at a pod as a rule.
    let good = service::shuffled(found).into_iter().find(|endpoint| {
        is_allowed(&endpoint.host) && is_pods(registry, &info.namespace, &endpoint.host, endpoint.target.as_ref())
    });
    match good {
        Some(Endpoint { host, port, .. }) => Ok(Place::Server { scheme, host, port }),
        None => {
            let named = if any { info.name.as_str() } else { name };
            Err(Box::new(Status::unavailable(format!("no endpoints available for service {named:?}"))))
        }
    }
}

/// A node's own server, or another port of the node.
pub(super) fn node(registry: &Registry, info: &RequestInfo) -> Result<Place> {
    let (scheme, name, port) = asked(info, "node")?;
    let (host, own) = node_address(registry, name)?;
    if port.is_empty() || port == own.to_string() {
        return Ok(Place::Kubelet { node: name.to_owned(), address: joined(&host, own) });
    }
    refuse_unless_allowed(&host)?;
    Ok(Place::Server { scheme, host, port: number(port)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_split_as_kubernetes_splits_them() {
        for (text, expected) in [
            ("web", Some(("http", "web", ""))),
            ("web:80", Some(("http", "web", "80"))),
            ("web:", Some(("http", "web", ""))),
            ("https:web:", Some(("https", "web", ""))),
            (":web:80", Some(("http", "web", "80"))),
            ("ftp:web:80", None),
            ("a:b:c:d", None),
            (":80", None),
            ("", None),
        ] {
            assert_eq!(split(text), expected, "{text:?}");
        }
    }

    #[test]
    fn only_hosts_that_others_may_reach_are_allowed() {
        for address in ["10.42.0.7", "192.168.1.1", "8.8.8.8", "fd00::1", "2001:db8::1"] {
            assert!(is_allowed(address), "{address}");
        }
        for address in [
            "127.0.0.1",
            "127.8.8.8",
            "0.0.0.0",
            "169.254.169.254",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "",
            "localhost",
        ] {
            assert!(!is_allowed(address), "{address}");
        }
    }
}
