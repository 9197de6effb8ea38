//! Ingresses: which service answers for which host and path.

mod validation;

use jiff::Timestamp;
use k8s_openapi::api::networking::v1::{Ingress, IngressBackend, IngressLoadBalancerStatus, IngressStatus};

use super::{
    addresses,
    blank::{drop_blank, items_mut, list, text},
    cells,
};
use crate::kind::{AGE, Column, Context, NAME, Strategy, age};
use coracle_proto::{
    field::{Errors, Path},
    resource::Resource,
};

/// The strategy of `ingresses.networking.k8s.io`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ingresses;

/// How an Ingress named its class before there was a field.
const CLASS: &str = "kubernetes.io/ingress.class";

/// A table shows so many hosts.
const SHOWN_HOSTS: usize = 3;

const COLUMNS: &[Column] = &[
    NAME,
    cells::column("Class", "The name of the IngressClass resource that should be used for additional configuration"),
    cells::column("Hosts", "Hosts that incoming requests are matched against before the ingress rule"),
    cells::column("Address", "Address is a list containing ingress points for the load-balancer"),
    cells::column("Ports", "Ports of TLS configurations that open"),
    AGE,
];

fn drop_backend_blanks(backend: &mut IngressBackend) {
    if let Some(port) = backend.service.as_mut().and_then(|service| service.port.as_mut()) {
        drop_blank(&mut port.name);
        drop_blank(&mut port.number);
    }
}

fn hosts(object: &Ingress) -> String {
    let rules = object.spec.as_ref().map_or(&[][..], |spec| list(&spec.rules));
    let named: Vec<&str> = rules.iter().map(|rule| text(&rule.host)).filter(|host| !host.is_empty()).collect();
    let shown = named.iter().take(SHOWN_HOSTS).copied().collect::<Vec<_>>().join(",");
    // Kubernetes counts every rule after the third name, with and without a host.
    let third = rules.iter().enumerate().filter(|(_, rule)| !text(&rule.host).is_empty()).nth(SHOWN_HOSTS - 1);
    match third {
        _ if shown.is_empty() => "*".to_owned(),
        Some((i, _)) if i + 1 < rules.len() => format!("{shown} + {} more...", rules.len() - SHOWN_HOSTS),
        _ => shown,
    }
}

fn addresses(object: &Ingress) -> String {
    let balancer = object.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.map_or(&[][..], |balancer| list(&balancer.ingress));
    let mut found: Vec<&str> = ingress
        .iter()
        .map(|entry| if text(&entry.ip).is_empty() { text(&entry.hostname) } else { text(&entry.ip) })
        .filter(|address| !address.is_empty())
        .collect();
    found.sort_unstable();
    found.dedup();
    found.join(",")
}

impl Strategy for Ingresses {
    type Object = Ingress;

    fn resource(&self) -> &'static Resource {
        super::row_of("networking.k8s.io", "ingresses")
    }

    fn default(&self, object: &mut Ingress) {
        let spec = object.spec.get_or_insert_default();
        drop_blank(&mut spec.rules);
        drop_blank(&mut spec.tls);
        if let Some(backend) = &mut spec.default_backend {
            drop_backend_blanks(backend);
        }
        for rule in items_mut(&mut spec.rules) {
            drop_blank(&mut rule.host);
            for path in rule.http.iter_mut().flat_map(|http| &mut http.paths) {
                drop_blank(&mut path.path);
                drop_backend_blanks(&mut path.backend);
            }
        }
        for tls in items_mut(&mut spec.tls) {
            drop_blank(&mut tls.hosts);
            drop_blank(&mut tls.secret_name);
        }
        let balancer = object.status.get_or_insert_default().load_balancer.get_or_insert_default();
        drop_blank(&mut balancer.ingress);
        for entry in items_mut(&mut balancer.ingress) {
            drop_blank(&mut entry.ip);
            drop_blank(&mut entry.hostname);
        }
    }

    fn prepare_create(&self, object: &mut Ingress, _: &Context<'_>) {
        object.status = Some(IngressStatus { load_balancer: Some(IngressLoadBalancerStatus::default()) });
    }

    fn prepare_update(&self, new: &mut Ingress, old: &Ingress, _: &Context<'_>) {
        new.status.clone_from(&old.status);
    }

    fn prepare_status(&self, new: &mut Ingress, old: &Ingress, _: &Context<'_>) {
        new.spec.clone_from(&old.spec);
    }

    fn validate(&self, object: &Ingress) -> Errors {
        validation::validate_new(object)
    }

    fn validate_update(&self, new: &Ingress, old: &Ingress) -> Errors {
        validation::validate_update(new, old)
    }

    fn validate_status(&self, new: &Ingress, old: &Ingress) -> Errors {
        validation::validate_status(new, old)
    }

    fn warnings(&self, object: &Ingress) -> Vec<String> {
        let mut warnings = Vec::new();
        let is_annotated = object.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(CLASS));
        if is_annotated && object.spec.as_ref().is_none_or(|spec| spec.ingress_class_name.is_none()) {
            warnings.push(format!("annotation {CLASS:?} is deprecated, please use 'spec.ingressClassName' instead"));
        }
        let path = Path::new("status").child("loadBalancer").child("ingress");
        let balancer = object.status.as_ref().and_then(|status| status.load_balancer.as_ref());
        for (i, entry) in balancer.map_or(&[][..], |balancer| list(&balancer.ingress)).iter().enumerate() {
            warnings.extend(entry.ip.as_ref().and_then(|ip| addresses::ip_warnings(&path.index(i), ip)));
        }
        warnings
    }

    fn counts_generations(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Ingress, now: Timestamp) -> Vec<serde_json::Value> {
        let spec = object.spec.clone().unwrap_or_default();
        let ports = if list(&spec.tls).is_empty() { "80" } else { "80, 443" };
        vec![
            cells::name(&object.metadata),
            spec.ingress_class_name.as_deref().unwrap_or(cells::NONE).into(),
            hosts(object).into(),
            addresses(object).into(),
            ports.into(),
            age(&object.metadata, now).into(),
        ]
    }
}

#[cfg(test)]
mod tests;
