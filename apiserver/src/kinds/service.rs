//! Services: one name and address for several pods.

mod validation;

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec, ServiceStatus},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{
    blank::{drop_blank, fill, fill_text, items_mut, list, text},
    cells,
};
use crate::kind::{AGE, Column, Context, NAME, Strategy, age};
use coracle_proto::{
    field::Errors,
    name::{NameRule, label_rule},
    resource::Resource,
};

/// The strategy of `services`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Services;

const COLUMNS: &[Column] = &[
    NAME,
    cells::column("Type", "How the service is exposed: ExternalName, ClusterIP, NodePort or LoadBalancer."),
    cells::column("Cluster-IP", "The service's address inside the cluster."),
    cells::column("External-IP", "Addresses at which nodes accept the service's traffic from outside."),
    cells::column("Port(s)", "The ports of the service."),
    AGE,
    cells::wide("Selector", "Labels of the pods that traffic is sent to."),
];

/// How long a client stays with one pod when nothing else is said, in seconds.
const AFFINITY_SECONDS: i32 = 10_800;

/// Whether the service has an address inside the cluster that somebody must allocate: every type but `ExternalName`,
/// unless it is headless (`clusterIP: None`) or has one already.
#[must_use]
pub fn wants_cluster_ip(object: &Service) -> bool {
    object.spec.as_ref().is_some_and(|spec| text(&spec.type_) != "ExternalName" && text(&spec.cluster_ip).is_empty())
}

/// Whether ports of this service need a port on every node.
#[must_use]
pub fn wants_node_ports(spec: &ServiceSpec) -> bool {
    match text(&spec.type_) {
        "NodePort" => true,
        "LoadBalancer" => spec.allocate_load_balancer_node_ports != Some(false),
        _ => false,
    }
}

/// Whether balancers ask each node of this service whether it has a pod of it.
#[must_use]
pub fn needs_health_check(spec: &ServiceSpec) -> bool {
    text(&spec.type_) == "LoadBalancer" && text(&spec.external_traffic_policy) == "Local"
}

/// Gives the service its allocated address.
pub fn set_cluster_ip(object: &mut Service, address: std::net::IpAddr) {
    let spec = object.spec.get_or_insert_default();
    spec.cluster_ip = Some(address.to_string());
    spec.cluster_ips = Some(vec![address.to_string()]);
    spec.ip_families = Some(vec![if address.is_ipv4() { "IPv4" } else { "IPv6" }.to_owned()]);
    fill_text(&mut spec.ip_family_policy, "SingleStack");
}

fn type_of(object: &Service) -> &str {
    object.spec.as_ref().map_or("", |spec| text(&spec.type_))
}

fn is_externally_accessible(spec: &ServiceSpec) -> bool {
    match text(&spec.type_) {
        "NodePort" | "LoadBalancer" => true,
        "ClusterIP" => !list(&spec.external_ips).is_empty(),
        _ => false,
    }
}

fn default_port(port: &mut ServicePort) {
    fill_text(&mut port.protocol, "TCP");
    drop_blank(&mut port.name);
    drop_blank(&mut port.node_port);
    let unset = match &port.target_port {
        None | Some(IntOrString::Int(0)) => true,
        Some(IntOrString::String(name)) => name.is_empty(),
        Some(IntOrString::Int(_)) => false,
    };
    if unset {
        port.target_port = Some(IntOrString::Int(port.port));
    }
}

/// The address inside the cluster and the first of `clusterIPs` are one thing under two names, of which old clients know
/// the first alone.
fn same_cluster_ip(spec: &mut ServiceSpec) {
    drop_blank(&mut spec.cluster_ip);
    drop_blank(&mut spec.cluster_ips);
    if let (Some(only), []) = (&spec.cluster_ip, list(&spec.cluster_ips)) {
        spec.cluster_ips = Some(vec![only.clone()]);
    }
}

/// Who changes one of the two names and leaves the other as it was means both.
fn change_both(new: &mut ServiceSpec, old: &ServiceSpec) {
    if new.cluster_ip != old.cluster_ip && new.cluster_ips == old.cluster_ips {
        new.cluster_ips = new.cluster_ip.clone().map(|only| vec![only]);
    }
}

/// An address that is known says which family it is of; a headless service without pods of its own to select may have
/// both.
fn default_families(spec: &mut ServiceSpec) {
    if text(&spec.type_) == "ExternalName" {
        return;
    }
    fill_text(&mut spec.ip_family_policy, "SingleStack");
    if list(&spec.ip_families).is_empty() {
        let is_v6 = text(&spec.cluster_ip).parse::<std::net::Ipv6Addr>().is_ok();
        spec.ip_families = Some(vec![if is_v6 { "IPv6" } else { "IPv4" }.to_owned()]);
    }
}

/// What a service of this type cannot have goes away when the type changes and the writer kept it from the old one.
fn drop_what_the_type_has_not(new: &mut ServiceSpec, old: &ServiceSpec) {
    if text(&old.type_) != "ExternalName" && text(&new.type_) == "ExternalName" {
        if new.cluster_ip == old.cluster_ip {
            new.cluster_ip = None;
            new.cluster_ips = None;
        }
        if new.ip_families == old.ip_families {
            new.ip_families = None;
        }
        if new.ip_family_policy == old.ip_family_policy {
            new.ip_family_policy = None;
        }
    }
    let has_node_ports = |spec: &ServiceSpec| matches!(text(&spec.type_), "NodePort" | "LoadBalancer");
    if has_node_ports(old) && !has_node_ports(new) {
        let before = list(&old.ports);
        for port in items_mut(&mut new.ports) {
            if before.iter().any(|b| b.node_port.is_some() && b.node_port == port.node_port) {
                port.node_port = None;
            }
        }
    }
    if is_externally_accessible(old)
        && !is_externally_accessible(new)
        && new.external_traffic_policy == old.external_traffic_policy
    {
        new.external_traffic_policy = None;
    }
    let had_health_check = needs_health_check(old) && !needs_health_check(new);
    if had_health_check && new.health_check_node_port == old.health_check_node_port {
        new.health_check_node_port = None;
    }
    if text(&old.type_) == "LoadBalancer" && text(&new.type_) != "LoadBalancer" {
        new.allocate_load_balancer_node_ports = None;
        if new.load_balancer_class == old.load_balancer_class {
            new.load_balancer_class = None;
        }
    }
}

/// What was allocated stays when an update leaves it out.
fn keep_allocated(new: &mut ServiceSpec, old: &ServiceSpec) {
    if text(&old.type_) != "ExternalName" && text(&new.type_) != "ExternalName" {
        if text(&new.cluster_ip).is_empty() {
            new.cluster_ip.clone_from(&old.cluster_ip);
        }
        if list(&new.cluster_ips).is_empty() {
            new.cluster_ips.clone_from(&old.cluster_ips);
        }
        if list(&new.ip_families).is_empty() {
            new.ip_families.clone_from(&old.ip_families);
        }
    }
    if needs_health_check(new) && needs_health_check(old) && new.health_check_node_port.is_none() {
        new.health_check_node_port = old.health_check_node_port;
    }
    if matches!(text(&new.type_), "NodePort" | "LoadBalancer") {
        let key = |port: &ServicePort| (port.protocol.clone(), port.port);
        for port in items_mut(&mut new.ports) {
            if port.node_port.is_none() {
                let same = list(&old.ports).iter().find(|before| key(before) == key(port));
                port.node_port = same.and_then(|before| before.node_port);
            }
        }
    }
}

fn external_ip(object: &Service) -> String {
    let Some(spec) = &object.spec else { return "<unknown>".to_owned() };
    let external = list(&spec.external_ips).join(",");
    match text(&spec.type_) {
        "ClusterIP" | "NodePort" => cells::or_none(&external).to_owned(),
        "LoadBalancer" => {
            let ingress = object.status.as_ref().and_then(|s| s.load_balancer.as_ref());
            let mut addresses: Vec<&str> = ingress
                .map_or(&[][..], |status| list(&status.ingress))
                .iter()
                .map(|i| if text(&i.ip).is_empty() { text(&i.hostname) } else { text(&i.ip) })
                .filter(|address| !address.is_empty())
                .collect();
            addresses.sort_unstable();
            addresses.dedup();
            addresses.extend(list(&spec.external_ips).iter().map(String::as_str));
            if addresses.is_empty() { "<pending>".to_owned() } else { addresses.join(",") }
        }
        "ExternalName" => text(&spec.external_name).to_owned(),
        _ => "<unknown>".to_owned(),
    }
}

fn ports(spec: &ServiceSpec) -> String {
    let ports: Vec<String> = list(&spec.ports)
        .iter()
        .map(|port| match port.node_port {
            Some(node) if node > 0 => format!("{}:{node}/{}", port.port, text(&port.protocol)),
            _ => format!("{}/{}", port.port, text(&port.protocol)),
        })
        .collect();
    cells::or_none(&ports.join(",")).to_owned()
}

impl Strategy for Services {
    type Object = Service;

    fn resource(&self) -> &'static Resource {
        super::row_of("", "services")
    }

    fn default(&self, object: &mut Service) {
        let spec = object.spec.get_or_insert_default();
        fill_text(&mut spec.session_affinity, "None");
        match text(&spec.session_affinity) {
            "None" => spec.session_affinity_config = None,
            "ClientIP" => {
                let config = spec.session_affinity_config.get_or_insert_default();
                fill(&mut config.client_ip.get_or_insert_default().timeout_seconds, AFFINITY_SECONDS);
            }
            _ => {}
        }
        fill_text(&mut spec.type_, "ClusterIP");
        drop_blank(&mut spec.ports);
        drop_blank(&mut spec.selector);
        drop_blank(&mut spec.external_ips);
        drop_blank(&mut spec.external_name);
        drop_blank(&mut spec.load_balancer_ip);
        drop_blank(&mut spec.load_balancer_source_ranges);
        drop_blank(&mut spec.publish_not_ready_addresses);
        drop_blank(&mut spec.external_traffic_policy);
        drop_blank(&mut spec.health_check_node_port);
        drop_blank(&mut spec.ip_families);
        for port in items_mut(&mut spec.ports) {
            default_port(port);
        }
        if is_externally_accessible(spec) {
            fill_text(&mut spec.external_traffic_policy, "Cluster");
        }
        if matches!(text(&spec.type_), "NodePort" | "LoadBalancer" | "ClusterIP") {
            fill(&mut spec.internal_traffic_policy, "Cluster".to_owned());
        }
        let is_balanced = text(&spec.type_) == "LoadBalancer";
        if is_balanced {
            fill(&mut spec.allocate_load_balancer_node_ports, true);
        }
        same_cluster_ip(spec);
        let status = object.status.get_or_insert_default();
        let ingress = &mut status.load_balancer.get_or_insert_default().ingress;
        if is_balanced {
            for entry in items_mut(ingress).iter_mut().filter(|entry| !text(&entry.ip).is_empty()) {
                fill(&mut entry.ip_mode, "VIP".to_owned());
            }
        }
    }

    fn prepare_create(&self, object: &mut Service, _: &Context<'_>) {
        object.status = Some(ServiceStatus { load_balancer: Some(Default::default()), ..ServiceStatus::default() });
        default_families(object.spec.get_or_insert_default());
    }

    fn prepare_update(&self, new: &mut Service, old: &Service, _: &Context<'_>) {
        new.status.clone_from(&old.status);
        if let (Some(new), Some(old)) = (&mut new.spec, &old.spec) {
            keep_allocated(new, old);
            change_both(new, old);
            drop_what_the_type_has_not(new, old);
            same_cluster_ip(new);
            default_families(new);
        }
        if type_of(old) == "LoadBalancer" && type_of(new) != "LoadBalancer" {
            new.status.get_or_insert_default().load_balancer = Some(Default::default());
        }
    }

    fn prepare_status(&self, new: &mut Service, old: &Service, _: &Context<'_>) {
        new.spec.clone_from(&old.spec);
    }

    /// Since Kubernetes 1.36 (KEP-5311) a service's name may begin with a digit.
    fn name_rule(&self) -> NameRule {
        label_rule
    }

    fn validate(&self, object: &Service) -> Errors {
        validation::validate(object)
    }

    fn validate_update(&self, new: &Service, old: &Service) -> Errors {
        validation::validate_update(new, old)
    }

    fn validate_status(&self, new: &Service, old: &Service) -> Errors {
        validation::validate_status(new, old)
    }

    fn warnings(&self, object: &Service) -> Vec<String> {
        validation::warnings(object)
    }

    fn fields(&self, object: &Service) -> Vec<(&'static str, String)> {
        let cluster_ip = object.spec.as_ref().map_or("", |spec| text(&spec.cluster_ip));
        vec![("spec.clusterIP", cluster_ip.to_owned()), ("spec.type", type_of(object).to_owned())]
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Service, now: Timestamp) -> Vec<serde_json::Value> {
        let spec = object.spec.clone().unwrap_or_default();
        vec![
            cells::name(&object.metadata),
            text(&spec.type_).into(),
            list(&spec.cluster_ips).first().map_or(cells::NONE, String::as_str).into(),
            external_ip(object).into(),
            ports(&spec).into(),
            age(&object.metadata, now).into(),
            cells::labels(spec.selector.as_ref()).into(),
        ]
    }
}

#[cfg(test)]
mod tests;
