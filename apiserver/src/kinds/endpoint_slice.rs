//! Endpoint slices: the addresses behind a service, a part of them each.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointHints, EndpointPort, EndpointSlice};

use super::{
    addresses,
    blank::{drop_blank, fill, items_mut, list, text},
    cells, rules,
};
use crate::kind::{AGE, Column, Context, NAME, Strategy, age};
use coracle_proto::{
    field::{Error, Errors, Path},
    name,
    resource::Resource,
};

/// The strategy of `endpointslices.discovery.k8s.io`.
#[derive(Clone, Copy, Debug, Default)]
pub struct EndpointSlices;

const COLUMNS: &[Column] = &[
    NAME,
    cells::column("AddressType", "The type of address carried by this EndpointSlice."),
    cells::column("Ports", "The list of network ports exposed by each endpoint in this slice."),
    cells::column("Endpoints", "The list of unique endpoints in this slice."),
    AGE,
];

const MAX_ENDPOINTS: usize = 1000;
const MAX_ADDRESSES: usize = 100;
const MAX_PORTS: usize = 20_000;
const MAX_HINTS: usize = 8;

/// Who writes slices from pods; their addresses are as the nodes told them.
const CONTROLLERS: &[&str] = &["endpointslice-controller.k8s.io", "endpointslicemirroring-controller.k8s.io"];

fn validate_ports(errors: &mut Errors, path: &Path, ports: &[EndpointPort]) {
    if ports.len() > MAX_PORTS {
        return errors.push(Error::too_many(path, ports.len(), MAX_PORTS));
    }
    let mut names = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let (at, named) = (path.index(i), text(&port.name));
        if !named.is_empty() {
            rules::messages(errors, &at.child("name"), named, name::dns1123_label(named));
        }
        if !names.insert(named) {
            errors.push(Error::duplicate(&at.child("name"), named));
        }
        let protocol = text(&port.protocol);
        rules::known_word(errors, &at.child("protocol"), protocol, &["SCTP", "TCP", "UDP"]);
        if let Some(application) = &port.app_protocol {
            rules::label_name(errors, &at.child("appProtocol"), application);
        }
    }
}

fn validate_domain(errors: &mut Errors, path: &Path, given: &str) {
    if given.is_empty() {
        return errors.push(Error::required(path, ""));
    }
    let domain = given.strip_suffix('.').unwrap_or(given);
    let wrong = name::dns1123_subdomain(domain);
    if !wrong.is_empty() {
        return errors.push(Error::invalid(path, domain, &wrong.join(",")));
    }
    if !domain.contains('.') {
        let detail = "should be a domain with at least two segments separated by dots";
        return errors.push(Error::invalid(path, domain, detail));
    }
    for label in domain.split('.') {
        let wrong = name::dns1123_label(label);
        if !wrong.is_empty() {
            return errors.push(Error::invalid(path, label, &wrong.join(",")));
        }
    }
}

fn validate_address(errors: &mut Errors, list_at: &Path, i: usize, address: &str, kind: &str) {
    let path = list_at.index(i);
    let before = errors.len();
    match kind {
        "IPv4" => addresses::legacy_ip(errors, &path, address, &[]),
        "IPv6" => addresses::ip(errors, &path, address),
        "FQDN" => return validate_domain(errors, &path, address),
        _ => return,
    }
    if errors.len() > before {
        return;
    }
    let is_v4 = addresses::sloppy(address).is_some_and(|ip| ip.is_ipv4());
    if is_v4 != (kind == "IPv4") {
        errors.push(Error::invalid(list_at, address, &format!("must be an {kind} address")));
    }
    addresses::endpoint_ip(errors, &path, address, address);
}

fn validate_hints(errors: &mut Errors, path: &Path, hints: &EndpointHints) {
    let zones: Vec<&str> = list(&hints.for_zones).iter().map(|zone| zone.name.as_str()).collect();
    let nodes: Vec<&str> = list(&hints.for_nodes).iter().map(|node| node.name.as_str()).collect();
    let rules: [(&str, &[&str], rules::Rule); 2] =
        [("forZones", &zones, name::label_value), ("forNodes", &nodes, name::dns1123_subdomain)];
    for (field, names, rule) in rules {
        let at = path.child(field);
        if names.len() > MAX_HINTS {
            return errors.push(Error::too_many(&at, names.len(), MAX_HINTS));
        }
        let mut seen = BTreeSet::new();
        for (i, name) in names.iter().enumerate() {
            let at = at.index(i).child("name");
            if !seen.insert(*name) {
                errors.push(Error::duplicate(&at, *name));
            }
            rules::messages(errors, &at, name, rule(name));
        }
    }
}

fn validate_endpoints(object: &EndpointSlice) -> Errors {
    let (mut errors, path) = (Errors::new(), Path::new("endpoints"));
    let endpoints = list(&object.endpoints);
    if endpoints.len() > MAX_ENDPOINTS {
        errors.push(Error::too_many(&path, endpoints.len(), MAX_ENDPOINTS));
        return errors;
    }
    for (i, endpoint) in endpoints.iter().enumerate() {
        validate_endpoint(&mut errors, &path.index(i), endpoint, &object.address_type);
    }
    errors
}

fn validate_endpoint(errors: &mut Errors, path: &Path, endpoint: &Endpoint, kind: &str) {
    let at = path.child("addresses");
    match endpoint.addresses.len() {
        0 => errors.push(Error::required(&at, "must contain at least 1 address")),
        count if count > MAX_ADDRESSES => errors.push(Error::too_many(&at, count, MAX_ADDRESSES)),
        _ => {}
    }
    for (i, address) in endpoint.addresses.iter().enumerate() {
        validate_address(errors, &at, i, address, kind);
    }
    if let Some(node) = &endpoint.node_name {
        rules::messages(errors, &path.child("nodeName"), node, name::dns1123_subdomain(node));
    }
    if let Some(host) = &endpoint.hostname {
        rules::messages(errors, &path.child("hostname"), host, name::dns1123_label(host));
    }
    if let Some(hints) = &endpoint.hints {
        validate_hints(errors, &path.child("hints"), hints);
    }
}

fn validate(object: &EndpointSlice) -> Errors {
    let mut errors = Errors::new();
    rules::one_of(&mut errors, &Path::new("addressType"), &object.address_type, &["FQDN", "IPv4", "IPv6"]);
    validate_ports(&mut errors, &Path::new("ports"), list(&object.ports));
    errors
}

/// `deprecatedTopology` is of the beta version only.
fn drop_topology(object: &mut EndpointSlice) {
    for endpoint in items_mut(&mut object.endpoints) {
        endpoint.deprecated_topology = None;
    }
}

impl Strategy for EndpointSlices {
    type Object = EndpointSlice;

    fn resource(&self) -> &'static Resource {
        super::row_of("discovery.k8s.io", "endpointslices")
    }

    fn default(&self, object: &mut EndpointSlice) {
        // Both lists are written out even when there is nothing in them.
        object.endpoints.get_or_insert_default();
        for port in items_mut(&mut object.ports) {
            fill(&mut port.name, String::new());
            fill(&mut port.protocol, "TCP".to_owned());
        }
        for endpoint in items_mut(&mut object.endpoints) {
            endpoint.conditions.get_or_insert_default();
            if let Some(hints) = &mut endpoint.hints {
                drop_blank(&mut hints.for_zones);
                drop_blank(&mut hints.for_nodes);
            }
        }
    }

    fn prepare_create(&self, object: &mut EndpointSlice, _: &Context<'_>) {
        drop_topology(object);
    }

    fn prepare_update(&self, new: &mut EndpointSlice, old: &EndpointSlice, _: &Context<'_>) {
        if new.endpoints != old.endpoints {
            drop_topology(new);
        }
    }

    fn validate(&self, object: &EndpointSlice) -> Errors {
        let mut errors = validate(object);
        errors.extend(validate_endpoints(object));
        errors
    }

    fn validate_update(&self, new: &EndpointSlice, old: &EndpointSlice) -> Errors {
        let mut errors = validate(new);
        if new.endpoints != old.endpoints {
            errors.extend(validate_endpoints(new));
        }
        rules::immutable(&mut errors, &Path::new("addressType"), &new.address_type, &old.address_type);
        errors
    }

    fn warnings(&self, object: &EndpointSlice) -> Vec<String> {
        let mut warnings = Vec::new();
        if object.address_type == "FQDN" {
            warnings.push("spec.addressType: FQDN endpoints are deprecated".to_owned());
            return warnings;
        }
        let labels = object.metadata.labels.as_ref();
        let manager = labels.and_then(|labels| labels.get("endpointslice.kubernetes.io/managed-by"));
        if manager.is_some_and(|manager| CONTROLLERS.contains(&manager.as_str())) {
            return warnings;
        }
        for (i, endpoint) in list(&object.endpoints).iter().enumerate() {
            let at = Path::new("endpoints").index(i).child("addresses");
            let found = endpoint.addresses.iter().enumerate();
            warnings.extend(found.filter_map(|(j, address)| addresses::ip_warnings(&at.index(j), address)));
        }
        warnings
    }

    fn counts_generations(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &EndpointSlice, now: Timestamp) -> Vec<serde_json::Value> {
        let port = |port: &EndpointPort| match (port.port, &port.name) {
            (Some(number), _) => number.to_string(),
            (None, Some(name)) => name.clone(),
            (None, None) => "*".to_owned(),
        };
        let ports: Vec<String> = list(&object.ports).iter().map(port).collect();
        let addresses: Vec<&String> = list(&object.endpoints).iter().flat_map(|e| &e.addresses).collect();
        vec![
            cells::name(&object.metadata),
            object.address_type.as_str().into(),
            cells::first_three(&ports).into(),
            cells::first_three(&addresses).into(),
            age(&object.metadata, now).into(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kinds::testing::{created, faults, refusals, row, shown};

    fn base() -> Value {
        json!({
            "metadata": {"name": "s", "namespace": "default"}, "addressType": "IPv4", "ports": [{"port": 80}],
            "endpoints": [{"addresses": ["10.0.0.1"]}],
        })
    }

    #[test]
    fn faults_are_named() {
        let endpoint = |endpoint: Value| json!({"endpoints": [endpoint]});
        let patches = [
            json!({"addressType": ""}),
            json!({"addressType": "IPX"}),
            json!({"ports": [{"name": "A"}, {"protocol": "X"}, {}]}),
            endpoint(json!({"addresses": []})),
            endpoint(json!({"addresses": ["127.0.0.1", "x", "2001:db8::1"]})),
            endpoint(json!({"addresses": ["10.0.0.1"], "nodeName": "_", "hostname": "a.b"})),
            endpoint(
                json!({"addresses": ["10.0.0.1"], "hints": {"forZones": [{"name": "z"}, {"name": "z"}], "forNodes": [{"name": "_"}]}}),
            ),
            json!({"addressType": "FQDN", "endpoints": [{"addresses": ["host", "a.b.", ""]}]}),
            json!({"addressType": "IPv6", "endpoints": [{"addresses": ["2001:DB8::1", "fe80::1"]}]}),
        ];
        let text = faults(&EndpointSlices, &base(), &patches);
        for needle in [
            "addressType: Required value",
            "addressType: Unsupported value: \"IPX\": supported values: \"FQDN\", \"IPv4\", \"IPv6\"",
            "ports[0].name: Invalid value: \"A\"",
            "ports[1].protocol: Unsupported value: \"X\"",
            "ports[2].name: Duplicate value: \"\"",
            "endpoints[0].addresses: Required value: must contain at least 1 address",
            "endpoints[0].addresses[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range",
            "endpoints[0].addresses[1]: Invalid value: \"x\": must be a valid IP address",
            "endpoints[0].addresses: Invalid value: \"2001:db8::1\": must be an IPv4 address",
            "endpoints[0].nodeName: Invalid value: \"_\"",
            "endpoints[0].hostname: Invalid value: \"a.b\"",
            "endpoints[0].hints.forZones[1].name: Duplicate value: \"z\"",
            "endpoints[0].hints.forNodes[0].name: Invalid value: \"_\"",
            "endpoints[0].addresses[0]: Invalid value: \"host\": should be a domain with at least two segments",
            "endpoints[0].addresses[2]: Required value",
            "endpoints[0].addresses[0]: Invalid value: \"2001:DB8::1\": must be in canonical form (\"2001:db8::1\")",
            "endpoints[0].addresses[1]: Invalid value: \"fe80::1\": may not be in the link-local range",
        ] {
            assert!(text.contains(needle), "{needle}\n{text}");
        }
    }

    #[test]
    fn the_type_of_addresses_stays() {
        let text = refusals(&EndpointSlices, &base(), &[json!({"addressType": "FQDN", "endpoints": []})]);
        assert!(text.contains("addressType: Invalid value: \"FQDN\": field is immutable"), "{text}");
    }

    #[test]
    fn ports_have_a_name_and_a_protocol() {
        let text = shown(&EndpointSlices, &created(&EndpointSlices, &base()));
        assert!(text.contains("\"name\": \"\"") && text.contains("\"protocol\": \"TCP\""), "{text}");
    }

    #[test]
    fn a_row_shows_three_of_each() {
        assert_eq!(row(&EndpointSlices, &base()), "s | IPv4 | 80 | 10.0.0.1 | <unknown>");
        let many = json!({
            "metadata": {"name": "s"}, "addressType": "IPv4",
            "endpoints": [{"addresses": ["a", "b"]}, {"addresses": ["c", "d", "e"]}],
        });
        assert_eq!(row(&EndpointSlices, &many), "s | IPv4 | <unset> | a,b,c + 2 more... | <unknown>");
    }
}
