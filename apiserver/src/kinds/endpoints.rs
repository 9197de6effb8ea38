//! Endpoints: the addresses behind a Service, all in one object; EndpointSlices have taken their place.

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, Endpoints};

use super::{
    blank::{drop_blank, fill_text, items_mut, list, text},
    cells, object_reference, rules,
};
use crate::kind::{AGE, Column, NAME, Strategy, age};
use coracle_proto::{
    field::{Error, Errors, Path},
    name,
    resource::Resource,
};

/// The strategy of `endpoints`.
#[derive(Clone, Copy, Debug, Default)]
pub struct EndpointsLists;

const COLUMNS: &[Column] =
    &[NAME, cells::column("Endpoints", "The addresses, each with each port, by readiness."), AGE];

/// As many addresses as a row shows.
const SHOWN: usize = 3;

fn shown(object: &Endpoints) -> String {
    let subsets = list(&object.subsets);
    if subsets.is_empty() {
        return cells::NONE.to_owned();
    }
    let mut all = Vec::new();
    for subset in subsets {
        let addresses = list(&subset.addresses).iter().map(|address| address.ip.as_str());
        let ports = list(&subset.ports);
        if ports.is_empty() {
            // A headless Service may have no ports.
            all.extend(addresses.map(str::to_owned));
            continue;
        }
        for port in ports {
            all.extend(addresses.clone().map(|ip| match ip.contains(':') {
                true => format!("[{ip}]:{}", port.port),
                false => format!("{ip}:{}", port.port),
            }));
        }
    }
    let text = all.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(",");
    match all.len().checked_sub(SHOWN) {
        Some(more) if more > 0 => format!("{text} + {more} more..."),
        _ => text,
    }
}

fn validate_address(errors: &mut Errors, path: &Path, address: &EndpointAddress) {
    let at = path.child("ip");
    let ip = address.ip.as_str();
    rules::messages(errors, &at, ip, name::ip_address(ip));
    let host = text(&address.hostname);
    if !host.is_empty() {
        rules::messages(errors, &path.child("hostname"), host, name::dns1123_label(host));
    }
    if let Some(node) = &address.node_name {
        rules::messages(errors, &path.child("nodeName"), node, name::dns1123_subdomain(node));
    }
    match ip.parse::<IpAddr>() {
        Ok(parsed) => rules::not_special_ip(errors, &at, ip, parsed),
        Err(_) => errors.push(Error::invalid(&at, ip, "must be a valid IP address")),
    }
}

fn validate_port(errors: &mut Errors, path: &Path, port: &EndpointPort, is_alone: bool) {
    let word = text(&port.name);
    if word.is_empty() && !is_alone {
        errors.push(Error::required(&path.child("name"), ""));
    } else if !word.is_empty() {
        rules::messages(errors, &path.child("name"), word, name::dns1123_label(word));
    }
    for why in name::port_number(port.port.into()) {
        errors.push(Error::invalid(&path.child("port"), port.port, &why));
    }
    rules::one_of(errors, &path.child("protocol"), text(&port.protocol), &["SCTP", "TCP", "UDP"]);
    if let Some(protocol) = &port.app_protocol {
        rules::label_name(errors, &path.child("appProtocol"), protocol);
    }
}

impl Strategy for EndpointsLists {
    type Object = Endpoints;

    fn resource(&self) -> &'static Resource {
        super::row_of("", "endpoints")
    }

    fn deprecation(&self) -> Option<&'static str> {
        Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice")
    }

    fn default(&self, object: &mut Endpoints) {
        drop_blank(&mut object.subsets);
        for subset in items_mut(&mut object.subsets) {
            drop_blank(&mut subset.addresses);
            drop_blank(&mut subset.not_ready_addresses);
            drop_blank(&mut subset.ports);
            for address in subset.addresses.iter_mut().chain(&mut subset.not_ready_addresses).flatten() {
                drop_blank(&mut address.hostname);
                if let Some(target) = &mut address.target_ref {
                    object_reference::drop_blanks(target);
                }
            }
            for port in items_mut(&mut subset.ports) {
                drop_blank(&mut port.name);
                fill_text(&mut port.protocol, "TCP");
            }
        }
    }

    fn validate(&self, object: &Endpoints) -> Errors {
        let (mut errors, path) = (Errors::new(), Path::new("subsets"));
        for (i, subset) in list(&object.subsets).iter().enumerate() {
            let at = path.index(i);
            let (ready, not_ready) = (list(&subset.addresses), list(&subset.not_ready_addresses));
            if ready.is_empty() && not_ready.is_empty() {
                errors.push(Error::required(&at, "must specify `addresses` or `notReadyAddresses`"));
            }
            for (field, addresses) in [("addresses", ready), ("notReadyAddresses", not_ready)] {
                for (j, address) in addresses.iter().enumerate() {
                    validate_address(&mut errors, &at.child(field).index(j), address);
                }
            }
            let ports = list(&subset.ports);
            for (j, port) in ports.iter().enumerate() {
                validate_port(&mut errors, &at.child("ports").index(j), port, ports.len() == 1);
            }
        }
        errors
    }

    fn validate_update(&self, new: &Endpoints, old: &Endpoints) -> Errors {
        // What was taken once is not held against a change of something else.
        if new.subsets == old.subsets { Errors::new() } else { self.validate(new) }
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Endpoints, now: Timestamp) -> Vec<serde_json::Value> {
        vec![cells::name(&object.metadata), shown(object).into(), age(&object.metadata, now).into()]
    }
}

#[cfg(test)]
mod tests;
