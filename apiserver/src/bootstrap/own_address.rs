//! Where the Service `kubernetes` leads to: this server, as an Endpoints and as an EndpointSlice.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use k8s_openapi::api::{
    core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints},
    discovery::v1::{self as discovery, Endpoint, EndpointConditions, EndpointSlice},
};

use super::{OWN, named};
use crate::{
    config::Config,
    registry::{Registry, Writer},
    status_of::Result,
};

/// The name of the server's port.
const PORT: &str = "https";

/// The address that others reach this server at, as far as it was told: the one to be advertised, or the one listened on.
/// Endpoints cannot be on a loopback address, since each pod has one of its own.
pub(super) fn known(config: &Config, address: SocketAddr) -> Option<IpAddr> {
    config.advertise.filter(is_reachable).or_else(|| Some(address.ip()).filter(is_reachable))
}

/// Whether somebody else than this machine itself may reach this address.
pub(crate) fn is_reachable(ip: &IpAddr) -> bool {
    !ip.is_unspecified() && !ip.is_loopback()
}

/// Servers on the same port and of the same family, which one slice can hold.
type Group = ((bool, u16), BTreeSet<IpAddr>);

/// The addresses by what one slice can hold, the largest group first.
fn groups(addresses: &BTreeSet<SocketAddr>) -> Vec<Group> {
    let mut groups: BTreeMap<(bool, u16), BTreeSet<IpAddr>> = BTreeMap::new();
    for address in addresses {
        groups.entry((address.is_ipv6(), address.port())).or_default().insert(address.ip());
    }
    let mut groups: Vec<Group> = groups.into_iter().collect();
    groups.sort_by_key(|(_, ips)| std::cmp::Reverse(ips.len()));
    groups
}

/// The first slice has the Service's name; further ones say what they are for.
fn slice_name(at: usize, (is_v6, port): (bool, u16)) -> String {
    let family = if is_v6 { "ipv6" } else { "ipv4" };
    if at == 0 { OWN.to_owned() } else { format!("{OWN}-{family}-{port}") }
}

/// Has the Service lead to these addresses, and nowhere else.
///
/// # Errors
/// The first refusal.
pub(crate) async fn publish(registry: &Registry, addresses: &BTreeSet<SocketAddr>, writer: &Writer) -> Result<()> {
    let groups = groups(addresses);
    let endpoints = endpoints(&groups);
    match registry.get_typed::<Endpoints>("default", OWN)? {
        None => drop(registry.create_typed("default", endpoints, writer).await?),
        Some(old) if old.subsets == endpoints.subsets && old.metadata.labels == endpoints.metadata.labels => {}
        Some(old) => {
            let new = Endpoints { metadata: with_labels(old.metadata, endpoints.metadata), ..endpoints };
            drop(registry.update_typed(new, writer).await?);
        }
    }
    let slices: Vec<EndpointSlice> = groups.iter().enumerate().map(|(at, group)| slice(at, group)).collect();
    for old in registry.list_typed::<EndpointSlice>("default")? {
        let name = old.metadata.name.clone().unwrap_or_default();
        let is_ours = name.strip_prefix(OWN).is_some_and(|rest| rest.starts_with("-ipv"));
        if is_ours && !slices.iter().any(|slice| slice.metadata.name.as_ref() == Some(&name)) {
            registry.delete_typed::<EndpointSlice>("default", &name, writer).await?;
        }
    }
    for slice in slices {
        publish_slice(registry, slice, writer).await?;
    }
    Ok(())
}

async fn publish_slice(registry: &Registry, slice: EndpointSlice, writer: &Writer) -> Result<()> {
    let name = slice.metadata.name.clone().unwrap_or_default();
    match registry.get_typed::<EndpointSlice>("default", &name)? {
        None => drop(registry.create_typed("default", slice, writer).await?),
        Some(old) if old.address_type != slice.address_type => {
            registry.delete_typed::<EndpointSlice>("default", &name, writer).await?;
            drop(registry.create_typed("default", slice, writer).await?);
        }
        Some(old) if old.endpoints == slice.endpoints && old.ports == slice.ports => {}
        Some(old) => {
            let new = EndpointSlice { metadata: with_labels(old.metadata, slice.metadata), ..slice };
            drop(registry.update_typed(new, writer).await?);
        }
    }
    Ok(())
}

type Meta = k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

fn with_labels(old: Meta, new: Meta) -> Meta {
    Meta { labels: new.labels, ..old }
}

fn labelled(name: &str, key: &str, value: &str) -> Meta {
    Meta { labels: Some([(key.to_owned(), value.to_owned())].into()), ..named(name, Some("default")) }
}

/// They are not mirrored: the slices are written here.
fn endpoints(groups: &[Group]) -> Endpoints {
    let subset = |((_, port), ips): &Group| EndpointSubset {
        addresses: Some(
            ips.iter().map(|ip| EndpointAddress { ip: ip.to_string(), ..EndpointAddress::default() }).collect(),
        ),
        ports: Some(vec![EndpointPort {
            name: Some(PORT.to_owned()),
            protocol: Some("TCP".to_owned()),
            port: i32::from(*port),
            app_protocol: None,
        }]),
        ..EndpointSubset::default()
    };
    Endpoints {
        metadata: labelled(OWN, "endpointslice.kubernetes.io/skip-mirror", "true"),
        subsets: Some(groups.iter().map(subset).collect()),
    }
}

fn slice(at: usize, (of, ips): &Group) -> EndpointSlice {
    let ready = EndpointConditions { ready: Some(true), ..EndpointConditions::default() };
    let endpoint = |ip: &IpAddr| Endpoint {
        addresses: vec![ip.to_string()],
        conditions: Some(ready.clone()),
        ..Endpoint::default()
    };
    EndpointSlice {
        metadata: labelled(&slice_name(at, *of), "kubernetes.io/service-name", OWN),
        address_type: if of.0 { "IPv6" } else { "IPv4" }.to_owned(),
        endpoints: Some(ips.iter().map(endpoint).collect()),
        ports: Some(vec![discovery::EndpointPort {
            name: Some(PORT.to_owned()),
            protocol: Some("TCP".to_owned()),
            port: Some(i32::from(of.1)),
            app_protocol: None,
        }]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_on_one_port_share_a_slice() {
        let addresses = ["192.0.2.2:7443", "192.0.2.1:6443", "192.0.2.3:7443", "[2001:db8::1]:6443"];
        let groups = groups(&addresses.iter().map(|address| address.parse().unwrap()).collect());
        let slices: Vec<_> = groups.iter().enumerate().map(|(at, group)| slice(at, group)).collect();
        let shown = slices.iter().map(|slice| {
            let ips: Vec<_> =
                slice.endpoints.iter().flatten().flat_map(|endpoint| endpoint.addresses.clone()).collect();
            let port = slice.ports.as_ref().unwrap()[0].port.unwrap();
            format!("{} {} {port} {}", slice.metadata.name.as_deref().unwrap(), slice.address_type, ips.join(","))
        });
        assert_eq!(
            shown.collect::<Vec<_>>(),
            [
                "kubernetes IPv4 7443 192.0.2.2,192.0.2.3",
                "kubernetes-ipv4-6443 IPv4 6443 192.0.2.1",
                "kubernetes-ipv6-6443 IPv6 6443 2001:db8::1",
            ]
        );
        assert_eq!(endpoints(&groups).subsets.unwrap().len(), 3);
    }
}
