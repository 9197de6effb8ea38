//! Where the Service `kubernetes` leads to: this server, as an Endpoints and as an EndpointSlice.

use std::net::{IpAddr, SocketAddr};

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

/// Has the Service lead to this address.
///
/// # Errors
/// The first refusal.
pub(crate) async fn publish(registry: &Registry, address: SocketAddr, writer: &Writer) -> Result<()> {
    let (endpoints, slice) = (endpoints(address), slice(address));
    match registry.get_typed::<Endpoints>("default", OWN)? {
        None => drop(registry.create_typed("default", endpoints, writer).await?),
        Some(old) if old.subsets == endpoints.subsets && old.metadata.labels == endpoints.metadata.labels => {}
        Some(old) => {
            drop(
                registry
                    .update_typed(
                        Endpoints { metadata: with_labels(old.metadata, endpoints.metadata), ..endpoints },
                        writer,
                    )
                    .await?,
            );
        }
    }
    match registry.get_typed::<EndpointSlice>("default", OWN)? {
        None => drop(registry.create_typed("default", slice, writer).await?),
        Some(old) if old.address_type != slice.address_type => {
            registry.delete_typed::<EndpointSlice>("default", OWN, writer).await?;
            drop(registry.create_typed("default", slice, writer).await?);
        }
        Some(old) if old.endpoints == slice.endpoints && old.ports == slice.ports => {}
        Some(old) => {
            drop(
                registry
                    .update_typed(
                        EndpointSlice { metadata: with_labels(old.metadata, slice.metadata), ..slice },
                        writer,
                    )
                    .await?,
            );
        }
    }
    Ok(())
}

type Meta = k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

fn with_labels(old: Meta, new: Meta) -> Meta {
    Meta { labels: new.labels, ..old }
}

fn labelled(key: &str, value: &str) -> Meta {
    Meta { labels: Some([(key.to_owned(), value.to_owned())].into()), ..named(OWN, Some("default")) }
}

/// They are not mirrored: the slice is written here.
fn endpoints(address: SocketAddr) -> Endpoints {
    Endpoints {
        metadata: labelled("endpointslice.kubernetes.io/skip-mirror", "true"),
        subsets: Some(vec![EndpointSubset {
            addresses: Some(vec![EndpointAddress { ip: address.ip().to_string(), ..EndpointAddress::default() }]),
            ports: Some(vec![EndpointPort {
                name: Some(PORT.to_owned()),
                protocol: Some("TCP".to_owned()),
                port: i32::from(address.port()),
                app_protocol: None,
            }]),
            ..EndpointSubset::default()
        }]),
    }
}

fn slice(address: SocketAddr) -> EndpointSlice {
    let ready = EndpointConditions { ready: Some(true), ..EndpointConditions::default() };
    EndpointSlice {
        metadata: labelled("kubernetes.io/service-name", OWN),
        address_type: if address.is_ipv4() { "IPv4" } else { "IPv6" }.to_owned(),
        endpoints: Some(vec![Endpoint {
            addresses: vec![address.ip().to_string()],
            conditions: Some(ready),
            ..Endpoint::default()
        }]),
        ports: Some(vec![discovery::EndpointPort {
            name: Some(PORT.to_owned()),
            protocol: Some("TCP".to_owned()),
            port: Some(i32::from(address.port())),
            app_protocol: None,
        }]),
    }
}
