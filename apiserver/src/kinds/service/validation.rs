//! What makes a Service invalid, and which of its changes are forbidden.

use std::collections::BTreeSet;

use coracle_proto::{
    field::{Error, Errors, Path},
    name,
};
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};

use super::{is_externally_accessible, needs_health_check};
use crate::kinds::{
    addresses,
    blank::{list, text},
    pod_spec::probes::validate_port,
    rules,
};

/// The longest a client may stay with one pod, in seconds: a day.
const AFFINITY_SECONDS: i32 = 86_400;

pub(super) fn is_headless(spec: &ServiceSpec) -> bool {
    matches!(list(&spec.cluster_ips), [only] if only == "None")
}

/// Everything wrong with a service.
pub(super) fn validate(object: &Service) -> Errors {
    let (mut errors, path) = (Errors::new(), Path::new("spec"));
    let spec = object.spec.clone().unwrap_or_default();
    let kind = text(&spec.type_);
    let ports = list(&spec.ports);
    if ports.is_empty() && !is_headless(&spec) && kind != "ExternalName" {
        errors.push(Error::required(&path.child("ports"), ""));
    }
    validate_for_type(&mut errors, &path, &spec);
    validate_ports(&mut errors, &path.child("ports"), ports, kind);
    rules::labels(&mut errors, &path.child("selector"), spec.selector.as_ref());
    validate_affinity(&mut errors, &path, &spec);
    if kind != "ExternalName" {
        validate_addresses(&mut errors, &path, &spec);
    }
    for (i, address) in list(&spec.external_ips).iter().enumerate() {
        validate_external_ip(&mut errors, &path.child("externalIPs").index(i), address);
    }
    let kinds = &["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"];
    rules::one_of(&mut errors, &path.child("type"), kind, kinds);
    validate_balancer(&mut errors, &path, &spec);
    validate_traffic(&mut errors, &path, &spec);
    errors
}

/// Everything wrong with a new status.
pub(super) fn validate_status(new: &Service, old: &Service) -> Errors {
    let entries = |object: &Service| {
        let balancer = object.status.clone().unwrap_or_default().load_balancer.unwrap_or_default();
        balancer.ingress.unwrap_or_default()
    };
    let (mut errors, path) = (Errors::new(), Path::new("status").child("loadBalancer").child("ingress"));
    let (now, before) = (entries(new), entries(old));
    let kind = new.spec.as_ref().map_or("", |spec| text(&spec.type_));
    if kind != "LoadBalancer" && !now.is_empty() {
        errors.push(Error::forbidden(&path, "may only be used when `spec.type` is 'LoadBalancer'"));
        return errors;
    }
    let before: Vec<&str> = before.iter().map(|entry| text(&entry.ip)).filter(|ip| !ip.is_empty()).collect();
    for (i, entry) in now.iter().enumerate() {
        let (at, has_ip) = (path.index(i), !text(&entry.ip).is_empty());
        let mode = at.child("ipMode");
        match entry.ip_mode.as_deref() {
            None if has_ip => errors.push(Error::required(&mode, "must be specified when `ip` is set")),
            None => {}
            Some(_) if !has_ip => {
                errors.push(Error::forbidden(&mode, "may not be specified when `ip` is not set"));
            }
            Some(given) => rules::known_word(&mut errors, &mode, given, &["Proxy", "VIP"]),
        }
        addresses::reached_at(&mut errors, &at, text(&entry.ip), text(&entry.hostname), &before);
    }
    errors
}

/// What is odd about a service, or will not do what it seems to.
pub(super) fn warnings(object: &Service) -> Vec<String> {
    let (mut warnings, path) = (Vec::new(), Path::new("spec"));
    let spec = object.spec.clone().unwrap_or_default();
    let hints = "service.kubernetes.io/topology-aware-hints";
    if object.metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(hints)) {
        warnings
            .push(format!("annotation {hints} is deprecated, please use service.kubernetes.io/topology-mode instead"));
    }
    let is_external = text(&spec.type_) == "ExternalName";
    let headless = text(&spec.type_) == "ClusterIP" && text(&spec.cluster_ip) == "None";
    let odd = |at: &Path, ip: &String| addresses::ip_warnings(at, ip);
    if !headless && !is_external {
        let at = path.child("clusterIPs");
        let own = list(&spec.cluster_ips).iter().enumerate().filter(|(_, ip)| !ip.is_empty());
        warnings.extend(own.filter_map(|(i, ip)| odd(&at.index(i), ip)));
    }
    let (balancer, external) = (text(&spec.load_balancer_ip), list(&spec.external_ips));
    if headless {
        for (field, is_set) in [
            ("loadBalancerIP", !balancer.is_empty()),
            ("externalIPs", !external.is_empty()),
            // Kubernetes' spelling.
            ("SessionAffinity", text(&spec.session_affinity) != "None"),
        ] {
            if is_set {
                warnings.push(format!("spec.{field} is ignored for headless services"));
            }
        }
    }
    let at = path.child("externalIPs");
    warnings.extend(external.iter().enumerate().filter_map(|(i, ip)| odd(&at.index(i), ip)));
    if !external.is_empty() && !headless && !is_external {
        warnings.push("spec.externalIPs is deprecated and may no longer be implemented in some clusters".to_owned());
    }
    if let Some(ip) = spec.load_balancer_ip.as_ref().filter(|ip| !ip.is_empty()) {
        warnings.extend(odd(&path.child("loadBalancerIP"), ip));
    }
    let at = path.child("loadBalancerSourceRanges");
    let ranges = list(&spec.load_balancer_source_ranges).iter().enumerate();
    warnings.extend(ranges.filter_map(|(i, range)| addresses::cidr_warnings(&at.index(i), range)));
    if is_external && !external.is_empty() {
        warnings.push("spec.externalIPs is ignored when spec.type is \"ExternalName\"".to_owned());
    }
    if !is_external && !text(&spec.external_name).is_empty() {
        warnings.push("spec.externalName is ignored when spec.type is not \"ExternalName\"".to_owned());
    }
    if spec.traffic_distribution.as_deref() == Some("PreferClose") {
        let sentence = "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"";
        warnings.push(sentence.to_owned());
    }
    warnings
}

fn validate_for_type(errors: &mut Errors, path: &Path, spec: &ServiceSpec) {
    match text(&spec.type_) {
        kind @ ("LoadBalancer" | "NodePort") if is_headless(spec) => {
            let detail = format!("may not be set to 'None' for {kind} services");
            errors.push(Error::invalid(&path.child("clusterIPs").index(0), "None", &detail));
        }
        "ExternalName" => {
            for (field, is_set) in [
                ("clusterIPs", !list(&spec.cluster_ips).is_empty()),
                ("ipFamilies", !list(&spec.ip_families).is_empty()),
                ("ipFamilyPolicy", spec.ip_family_policy.is_some()),
            ] {
                if is_set {
                    errors.push(Error::forbidden(&path.child(field), "may not be set for ExternalName services"));
                }
            }
            let at = path.child("externalName");
            let given = text(&spec.external_name);
            let host = given.strip_suffix('.').unwrap_or(given);
            if host.is_empty() {
                errors.push(Error::required(&at, ""));
            } else {
                rules::messages(errors, &at, host, name::dns1123_subdomain(host));
            }
        }
        _ => {}
    }
}

fn validate_ports(errors: &mut Errors, path: &Path, ports: &[ServicePort], kind: &str) {
    let mut names = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let at = path.index(i);
        let name = text(&port.name);
        if !name.is_empty() {
            rules::messages(errors, &at.child("name"), name, name::dns1123_label(name));
            if !names.insert(name) {
                errors.push(Error::duplicate(&at.child("name"), name));
            }
        } else if ports.len() > 1 {
            errors.push(Error::required(&at.child("name"), ""));
        }
        for message in name::port_number(port.port.into()) {
            errors.push(Error::invalid(&at.child("port"), port.port, &message));
        }
        let protocol = text(&port.protocol);
        rules::one_of(errors, &at.child("protocol"), protocol, &["SCTP", "TCP", "UDP"]);
        if let Some(target) = &port.target_port {
            validate_port(errors, &at.child("targetPort"), target);
        }
        if let Some(application) = &port.app_protocol {
            rules::label_name(errors, &at.child("appProtocol"), application);
        }
    }
    if kind == "ClusterIP" {
        for (i, _) in ports.iter().enumerate().filter(|(_, port)| port.node_port.is_some_and(|number| number != 0)) {
            let detail = "may not be used when `type` is 'ClusterIP'";
            errors.push(Error::forbidden(&path.index(i).child("nodePort"), detail));
        }
    }
    let (mut on_nodes, mut inside) = (BTreeSet::new(), BTreeSet::new());
    for (i, port) in ports.iter().enumerate() {
        let number = port.node_port.unwrap_or(0);
        if number != 0 && !on_nodes.insert((text(&port.protocol), number)) {
            errors.push(Error::duplicate(&path.index(i).child("nodePort"), number));
        }
    }
    for (i, port) in ports.iter().enumerate() {
        if !inside.insert((text(&port.protocol), port.port)) {
            let shown = serde_json::json!({"port": port.port, "protocol": text(&port.protocol)});
            errors.push(Error::duplicate(&path.index(i), shown));
        }
    }
}

fn validate_affinity(errors: &mut Errors, path: &Path, spec: &ServiceSpec) {
    let affinity = text(&spec.session_affinity);
    rules::one_of(errors, &path.child("sessionAffinity"), affinity, &["ClientIP", "None"]);
    let at = path.child("sessionAffinityConfig");
    match (affinity, &spec.session_affinity_config) {
        ("ClientIP", config) => {
            let seconds = config.as_ref().and_then(|c| c.client_ip.as_ref()).and_then(|c| c.timeout_seconds);
            match seconds {
                None => errors.push(Error::required(&at, "when session affinity type is ClientIP")),
                Some(seconds) if !(1..=AFFINITY_SECONDS).contains(&seconds) => {
                    let detail = format!("must be greater than 0 and less than {AFFINITY_SECONDS}");
                    errors.push(Error::invalid(&at.child("clientIP").child("timeoutSeconds"), seconds, &detail));
                }
                Some(_) => {}
            }
        }
        ("None", Some(_)) => {
            errors.push(Error::forbidden(&at, "must not be set when session affinity is None"));
        }
        _ => {}
    }
}

fn validate_addresses(errors: &mut Errors, path: &Path, spec: &ServiceSpec) {
    let (only, all, families) = (text(&spec.cluster_ip), list(&spec.cluster_ips), list(&spec.ip_families));
    let at = path.child("clusterIPs");
    match (only, all.first()) {
        ("", Some(_)) => {
            errors.push(Error::invalid(&at, all.to_vec(), "must be empty when `clusterIP` is not specified"));
        }
        ("", None) => {}
        (_, None) => errors.push(Error::required(&at, "")),
        (only, Some(first)) if only != first => {
            errors.push(Error::invalid(&at, all.to_vec(), "first value must match `clusterIP`"));
        }
        _ => {}
    }
    for (i, family) in families.iter().enumerate() {
        let at = path.child("ipFamilies").index(i);
        rules::known_word(errors, &at, family, &["IPv4", "IPv6"]);
        if families.iter().take(i).any(|before| before == family) {
            errors.push(Error::duplicate(&at, family.as_str()));
        }
    }
    if let Some(policy) = &spec.ip_family_policy {
        let known = &["PreferDualStack", "RequireDualStack", "SingleStack"];
        rules::known_word(errors, &path.child("ipFamilyPolicy"), policy, known);
    }
    let before = errors.len();
    for (i, address) in all.iter().enumerate() {
        if i == 0 && address == "None" {
            if all.len() > 1 {
                errors.push(Error::invalid(&at, all.to_vec(), "'None' must be the first and only value"));
            }
            continue;
        }
        rules::messages(errors, &at.index(i), address, name::ip_address(address));
    }
    let is_wrong = errors.len() > before;
    if all.len() > 2 {
        errors.push(Error::invalid(&at, all.to_vec(), "may only hold up to 2 values"));
    }
    if is_wrong || is_headless(spec) {
        return;
    }
    let is_v6 = |address: &String| address.parse::<std::net::Ipv6Addr>().is_ok();
    let v6 = all.iter().filter(|address| is_v6(address)).count();
    if all.len() > 1 && (v6 == 0 || v6 == all.len()) {
        errors.push(Error::invalid(&at, all.to_vec(), "may specify no more than one IP for each IP family"));
    }
    for (i, (address, family)) in all.iter().zip(families).enumerate() {
        let expected = if is_v6(address) { "IPv6" } else { "IPv4" };
        if matches!(family.as_str(), "IPv4" | "IPv6") && family != expected {
            let detail = format!("expected an {family} value as indicated by `ipFamilies[{i}]`");
            errors.push(Error::invalid(&at.index(i), address.as_str(), &detail));
        }
    }
}

fn validate_external_ip(errors: &mut Errors, path: &Path, address: &str) {
    let Ok(parsed) = address.parse::<std::net::IpAddr>() else {
        rules::messages(errors, path, address, name::ip_address(address));
        return;
    };
    rules::not_special_ip(errors, path, address, parsed);
}

fn validate_balancer(errors: &mut Errors, path: &Path, spec: &ServiceSpec) {
    let is_balanced = text(&spec.type_) == "LoadBalancer";
    let only = "may only be used when `type` is 'LoadBalancer'";
    let ranges = list(&spec.load_balancer_source_ranges);
    // The capital is Kubernetes'.
    let at = path.child("LoadBalancerSourceRanges");
    if !ranges.is_empty() && !is_balanced {
        errors.push(Error::forbidden(&at, only));
    }
    for (i, range) in ranges.iter().enumerate() {
        let range = range.trim();
        let is_network = range.split_once('/').is_some_and(|(address, bits)| {
            let most = match address.parse::<std::net::IpAddr>() {
                Ok(address) if address.is_ipv6() => 128,
                Ok(_) => 32,
                Err(_) => return false,
            };
            bits.parse::<u8>().is_ok_and(|bits| bits <= most)
        });
        if !is_network {
            let detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
            errors.push(Error::invalid(&at.index(i), range, detail));
        }
    }
    if spec.allocate_load_balancer_node_ports.is_some() && !is_balanced {
        errors.push(Error::forbidden(&path.child("allocateLoadBalancerNodePorts"), only));
    }
    if let Some(class) = &spec.load_balancer_class {
        let at = path.child("loadBalancerClass");
        if is_balanced {
            rules::label_name(errors, &at, class);
        } else {
            errors.push(Error::forbidden(&at, only));
        }
    }
}

fn validate_traffic(errors: &mut Errors, path: &Path, spec: &ServiceSpec) {
    let policy = text(&spec.external_traffic_policy);
    let at = path.child("externalTrafficPolicy");
    if is_externally_accessible(spec) {
        rules::one_of(errors, &at, policy, &["Cluster", "Local"]);
    } else if !policy.is_empty() {
        errors.push(Error::invalid(&at, policy, "may only be set for externally-accessible services"));
    }
    let port = spec.health_check_node_port.unwrap_or(0);
    let at = path.child("healthCheckNodePort");
    if needs_health_check(spec) {
        if port != 0 {
            for message in name::port_number(port.into()) {
                errors.push(Error::invalid(&at, port, &message));
            }
        }
    } else if port != 0 {
        let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        errors.push(Error::invalid(&at, port, detail));
    }
    let at = path.child("internalTrafficPolicy");
    match &spec.internal_traffic_policy {
        Some(policy) => rules::known_word(errors, &at, policy, &["Cluster", "Local"]),
        None if text(&spec.type_) == "ExternalName" => {}
        None => errors.push(Error::required(&at, "")),
    }
    if let Some(distribution) = &spec.traffic_distribution {
        let known = &["PreferClose", "PreferSameNode", "PreferSameZone"];
        rules::known_word(errors, &path.child("trafficDistribution"), distribution, known);
    }
}

/// Everything wrong with changing `old` into `new`, the new service's own faults included.
pub(super) fn validate_update(new: &Service, old: &Service) -> Errors {
    let (mut errors, path) = (Errors::new(), Path::new("spec"));
    let (after, before) = (new.spec.clone().unwrap_or_default(), old.spec.clone().unwrap_or_default());
    let is_external = |spec: &ServiceSpec| text(&spec.type_) == "ExternalName";
    if !is_external(&after) && !is_external(&before) {
        validate_kept(&mut errors, &path, &after, &before);
    }
    let is_balanced = |spec: &ServiceSpec| text(&spec.type_) == "LoadBalancer";
    if is_balanced(&after) && is_balanced(&before) && after.load_balancer_class != before.load_balancer_class {
        let at = path.child("loadBalancerClass");
        errors.push(Error::invalid(&at, rules::json(&after.load_balancer_class), "may not change once set"));
    }
    let is_checked = needs_health_check(&before) && needs_health_check(&after);
    if is_checked && after.health_check_node_port != before.health_check_node_port {
        errors.push(Error::forbidden(&path.child("healthCheckNodePort"), "field is immutable"));
    }
    errors.extend(validate(new));
    errors
}

/// Addresses and families that are given away stay; a second one may come and go.
fn validate_kept(errors: &mut Errors, path: &Path, new: &ServiceSpec, old: &ServiceSpec) {
    let (was_headless, is_headless) = (is_headless(old), is_headless(new));
    for (field, now, then, singular) in [
        ("clusterIPs", list(&new.cluster_ips), list(&old.cluster_ips), "clusterIP"),
        ("ipFamilies", list(&new.ip_families), list(&old.ip_families), "ipFamily"),
    ] {
        let skips = match field {
            "clusterIPs" => was_headless && is_headless,
            _ => was_headless || is_headless,
        };
        if skips {
            continue;
        }
        let at = path.child(field);
        if then.len() > now.len() && now.is_empty() {
            let detail = format!("primary {singular} can not be unset");
            errors.push(Error::invalid(&at.index(0), now.to_vec(), &detail));
        }
        let compared = if then.len() == now.len() { then.len() } else { 1 };
        for (i, (before, after)) in then.iter().zip(now).take(compared).enumerate() {
            if before != after {
                errors.push(Error::invalid(&at.index(i), now.to_vec(), "may not change once set"));
            }
        }
        if then.len() > now.len() && now.len() == 1 && text(&new.ip_family_policy) != "SingleStack" {
            let detail = format!("must be set to 'SingleStack' when releasing the secondary {singular}");
            let shown = rules::json(&new.ip_family_policy);
            errors.push(Error::invalid(&path.child("ipFamilyPolicy"), shown, &detail));
        }
    }
}
