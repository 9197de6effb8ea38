//! Nodes: the machines pods run on.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;

use super::{
    addresses,
    blank::{drop_blank, list},
    cells, resources, rules, tolerations,
};
use crate::kind::{AGE, Column, Context, NAME, Strategy, age};
use coracle_proto::{
    field::{Error, Errors, Path},
    resource::Resource,
};

/// The strategy of `nodes`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nodes;

const ADDRESSES: &str = "List of addresses reachable to the node.";

const COLUMNS: &[Column] = &[
    NAME,
    cells::column("Status", "The status of the node"),
    cells::column("Roles", "The roles of the node"),
    AGE,
    cells::column("Version", "Version the node's agent reports."),
    cells::wide("Internal-IP", ADDRESSES),
    cells::wide("External-IP", ADDRESSES),
    cells::wide("OS-Image", "OS image the node reports from /etc/os-release."),
    cells::wide("Kernel-Version", "Kernel version the node reports from uname."),
    cells::wide("Container-Runtime", "Container runtime and its version, as the node reports them."),
];

const ROLE_PREFIX: &str = "node-role.kubernetes.io/";
const ROLE_LABEL: &str = "kubernetes.io/role";

fn status(node: &Node) -> String {
    let conditions = node.status.as_ref().map_or(&[][..], |s| list(&s.conditions));
    let mut words = vec![match conditions.iter().rev().find(|c| c.type_ == "Ready") {
        Some(ready) if ready.status == "True" => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }];
    if is_unschedulable(node) {
        words.push("SchedulingDisabled");
    }
    words.join(",")
}

fn is_unschedulable(node: &Node) -> bool {
    node.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true))
}

fn roles(node: &Node) -> String {
    let mut roles = BTreeSet::new();
    for (label, value) in node.metadata.labels.iter().flatten() {
        match label.strip_prefix(ROLE_PREFIX) {
            Some("") => {}
            Some(role) => {
                roles.insert(role);
            }
            None if label == ROLE_LABEL && !value.is_empty() => {
                roles.insert(value);
            }
            None => {}
        }
    }
    cells::or_none(&roles.into_iter().collect::<Vec<_>>().join(",")).to_owned()
}

fn address(node: &Node, kind: &str) -> String {
    let addresses = node.status.as_ref().map_or(&[][..], |s| list(&s.addresses));
    addresses.iter().find(|a| a.type_ == kind).map_or(cells::NONE, |a| a.address.as_str()).to_owned()
}

fn or_unknown(text: &str) -> &str {
    if text.is_empty() { "<unknown>" } else { text }
}

fn validate(node: &Node) -> Errors {
    let mut errors = validate_node_status(node);
    let spec = node.spec.clone().unwrap_or_default();
    // The path is Kubernetes', whose taints were annotations once.
    let at = Path::new("metadata").child("taints");
    tolerations::validate_taints(&mut errors, &at, list(&spec.taints));
    let at = Path::new("spec").child("podCIDRs");
    let cidrs = list(&spec.pod_cidrs);
    let mut families = BTreeSet::new();
    for (i, cidr) in cidrs.iter().enumerate() {
        addresses::legacy_cidr(&mut errors, &at.index(i), cidr, &[]);
        families.extend(is_v6_network(cidr));
    }
    if cidrs.len() > 1 && (families.len() < 2 || cidrs.len() > 2) {
        let detail = "may specify no more than one CIDR for each IP family";
        errors.push(Error::invalid(&at, cidrs.to_vec(), detail));
    }
    errors
}

/// Whether a network (`10.42.0.0/24`) is of IPv6; nothing when it is none.
fn is_v6_network(cidr: &str) -> Option<bool> {
    let (address, bits) = cidr.split_once('/')?;
    let address: std::net::IpAddr = address.parse().ok()?;
    let bits: u8 = bits.parse().ok()?;
    (bits <= if address.is_ipv6() { 128 } else { 32 }).then_some(address.is_ipv6())
}

fn validate_node_status(node: &Node) -> Errors {
    let (mut errors, path) = (Errors::new(), Path::new("status"));
    let Some(status) = &node.status else { return errors };
    for (field, amounts) in [("capacity", &status.capacity), ("allocatable", &status.allocatable)] {
        for (name, quantity) in amounts.iter().flatten() {
            resources::validate_amount(&mut errors, &path.child(field).child(name), name, quantity);
        }
    }
    let addresses = list(&status.addresses);
    for (i, address) in addresses.iter().enumerate() {
        if addresses.iter().take(i).any(|before| before == address) {
            errors.push(Error::duplicate(&path.child("addresses").index(i), rules::json(address)));
        }
    }
    errors
}

impl Strategy for Nodes {
    type Object = Node;

    fn resource(&self) -> &'static Resource {
        super::row_of("", "nodes")
    }

    fn default(&self, object: &mut Node) {
        let spec = object.spec.get_or_insert_default();
        drop_blank(&mut spec.unschedulable);
        drop_blank(&mut spec.taints);
        drop_blank(&mut spec.provider_id);
        drop_blank(&mut spec.pod_cidr);
        drop_blank(&mut spec.pod_cidrs);
        // `podCIDR` and the first of `podCIDRs` are one thing under two names.
        match (&spec.pod_cidr, list(&spec.pod_cidrs).first()) {
            (Some(only), None) => spec.pod_cidrs = Some(vec![only.clone()]),
            (None, Some(first)) => spec.pod_cidr = Some(first.clone()),
            _ => {}
        }
        let status = object.status.get_or_insert_default();
        if let Some(capacity) = &mut status.capacity {
            resources::canonical(capacity);
        }
        if status.allocatable.is_none() {
            status.allocatable.clone_from(&status.capacity);
        }
        if let Some(allocatable) = &mut status.allocatable {
            resources::canonical(allocatable);
        }
        // The port of the node's HTTPS server and the node's description are always there, if only as zeros.
        status.daemon_endpoints.get_or_insert_default().kubelet_endpoint.get_or_insert_default();
        status.node_info.get_or_insert_default();
    }

    fn prepare_create(&self, object: &mut Node, _: &Context<'_>) {
        // A node registers itself with its status; only the long-gone dynamic configuration may not be set.
        if let Some(spec) = &mut object.spec {
            spec.config_source = None;
        }
        if let Some(status) = &mut object.status {
            status.config = None;
        }
    }

    fn prepare_update(&self, new: &mut Node, old: &Node, _: &Context<'_>) {
        new.status.clone_from(&old.status);
        if let Some(spec) = &mut new.spec
            && old.spec.as_ref().is_none_or(|spec| spec.config_source.is_none())
        {
            spec.config_source = None;
        }
    }

    fn prepare_status(&self, new: &mut Node, old: &Node, _: &Context<'_>) {
        new.spec.clone_from(&old.spec);
    }

    fn warnings(&self, object: &Node) -> Vec<String> {
        let id = object.spec.as_ref().and_then(|spec| spec.external_id.as_ref()).filter(|id| !id.is_empty());
        let unused = "spec.externalID: this field is deprecated, and is unused by Kubernetes";
        id.map(|_| unused.to_owned()).into_iter().collect()
    }

    fn validate(&self, object: &Node) -> Errors {
        validate(object)
    }

    fn validate_update(&self, new: &Node, old: &Node) -> Errors {
        let mut errors = validate(new);
        let (spec, before) = (new.spec.clone().unwrap_or_default(), old.spec.clone().unwrap_or_default());
        let path = Path::new("spec");
        let (cidrs, cidrs_before) = (list(&spec.pod_cidrs), list(&before.pod_cidrs));
        if !cidrs_before.is_empty() && cidrs != cidrs_before {
            let detail = "node updates may not change podCIDR except from \"\" to valid";
            errors.push(Error::forbidden(&path.child("podCIDRs"), detail));
        }
        if before.provider_id.is_some() && spec.provider_id != before.provider_id {
            let detail = "node updates may not change providerID except from \"\" to valid";
            errors.push(Error::forbidden(&path.child("providerID"), detail));
        }
        if spec.external_id != before.external_id {
            errors.push(Error::forbidden(&path.child("externalID"), "may not be updated"));
        }
        errors
    }

    fn validate_status(&self, new: &Node, old: &Node) -> Errors {
        let _ = old;
        validate_node_status(new)
    }

    fn fields(&self, object: &Node) -> Vec<(&'static str, String)> {
        vec![("spec.unschedulable", is_unschedulable(object).to_string())]
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Node, now: Timestamp) -> Vec<serde_json::Value> {
        let info = object.status.as_ref().and_then(|s| s.node_info.clone()).unwrap_or_default();
        let mut kernel = or_unknown(&info.kernel_version).to_owned();
        if !info.architecture.is_empty() {
            kernel = format!("{kernel} ({})", info.architecture);
        }
        vec![
            cells::name(&object.metadata),
            status(object).into(),
            roles(object).into(),
            age(&object.metadata, now).into(),
            info.kubelet_version.into(),
            address(object, "InternalIP").into(),
            address(object, "ExternalIP").into(),
            or_unknown(&info.os_image).into(),
            kernel.into(),
            or_unknown(&info.container_runtime_version).into(),
        ]
    }
}

#[cfg(test)]
mod tests;
