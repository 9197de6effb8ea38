//! Network policies: which traffic a pod takes and sends.

use jiff::Timestamp;
use k8s_openapi::{
    api::networking::v1::{IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{
    addresses::{self, Network},
    blank::{drop_blank, fill, items_mut, list},
    cells, label_selector, rules,
};
use crate::kind::{AGE, Column, NAME, Strategy, age};
use coracle_proto::{
    field::{Error, Errors, Path},
    name,
    resource::Resource,
};

/// The strategy of `networkpolicies.networking.k8s.io`.
#[derive(Clone, Copy, Debug, Default)]
pub struct NetworkPolicies;

const COLUMNS: &[Column] =
    &[NAME, cells::column("Pod-Selector", "Selects the pods to which this NetworkPolicy object applies."), AGE];

const TYPES: &[&str] = &["Ingress", "Egress"];

/// The ports and peers of every rule, with the paths they stand at.
fn each_rule(
    spec: &NetworkPolicySpec,
) -> impl Iterator<Item = (Path, Path, &[NetworkPolicyPort], &[NetworkPolicyPeer])> {
    let path = Path::new("spec");
    let at = move |direction: &str, i: usize, peers: &str| {
        let rule = path.child(direction).index(i);
        (rule.child("ports"), rule.child(peers))
    };
    let outward = at.clone();
    let ingress = list(&spec.ingress).iter().enumerate().map(move |(i, rule)| {
        let (ports, peers) = at("ingress", i, "from");
        (ports, peers, list(&rule.ports), list(&rule.from))
    });
    let egress = list(&spec.egress).iter().enumerate().map(move |(i, rule)| {
        let (ports, peers) = outward("egress", i, "to");
        (ports, peers, list(&rule.ports), list(&rule.to))
    });
    ingress.chain(egress)
}

/// Every network of every block, with the path it stands at.
fn each_network(spec: &NetworkPolicySpec) -> Vec<(Path, &str)> {
    let mut found = Vec::new();
    for (_, path, _, peers) in each_rule(spec) {
        for (i, peer) in peers.iter().enumerate() {
            let Some(block) = &peer.ip_block else { continue };
            let at = path.index(i).child("ipBlock");
            found.push((at.child("cidr"), block.cidr.as_str()));
            let except = list(&block.except).iter().enumerate();
            found.extend(except.map(|(i, cidr)| (at.child("except").index(i), cidr.as_str())));
        }
    }
    found
}

fn validate_port(errors: &mut Errors, path: &Path, port: &NetworkPolicyPort) {
    if let Some(protocol) = &port.protocol {
        rules::known_word(errors, &path.child("protocol"), protocol, &["TCP", "UDP", "SCTP"]);
    }
    let (at, end_at) = (path.child("port"), path.child("endPort"));
    match (&port.port, port.end_port) {
        (None, None) => {}
        (None, Some(end)) => {
            errors.push(Error::invalid(&end_at, end, "may not be specified when `port` is not specified"));
        }
        (Some(IntOrString::Int(number)), end) => {
            let invalid = |path: &Path, number: i32| {
                let messages = name::port_number(number.into());
                messages.into_iter().map(|m| Error::invalid(path, number, &m)).collect::<Vec<_>>()
            };
            errors.extend(invalid(&at, *number));
            if let Some(end) = end {
                if end < *number {
                    errors.push(Error::invalid(&end_at, *number, "must be greater than or equal to `port`"));
                }
                errors.extend(invalid(&end_at, end));
            }
        }
        (Some(IntOrString::String(named)), end) => {
            if let Some(end) = end {
                errors.push(Error::invalid(&end_at, end, "may not be specified when `port` is non-numeric"));
            }
            rules::messages(errors, &at, named, name::port_name(named));
        }
    }
}

fn validate_block(errors: &mut Errors, path: &Path, block: &IPBlock, before: &[&str]) {
    if block.cidr.is_empty() {
        return errors.push(Error::required(&path.child("cidr"), ""));
    }
    addresses::legacy_cidr(errors, &path.child("cidr"), &block.cidr, before);
    let Some(network) = Network::sloppy(&block.cidr) else { return };
    for (i, except) in list(&block.except).iter().enumerate() {
        let at = path.child("except").index(i);
        addresses::legacy_cidr(errors, &at, except, before);
        if Network::sloppy(except).is_some_and(|part| !network.strictly_contains(&part)) {
            errors.push(Error::invalid(&at, except.as_str(), "must be a strict subset of `cidr`"));
        }
    }
}

fn validate_peer(errors: &mut Errors, path: &Path, peer: &NetworkPolicyPeer, before: &[&str]) {
    for (field, selector) in [("podSelector", &peer.pod_selector), ("namespaceSelector", &peer.namespace_selector)] {
        if let Some(selector) = selector {
            label_selector::validate(errors, &path.child(field), selector);
        }
    }
    if let Some(block) = &peer.ip_block {
        validate_block(errors, &path.child("ipBlock"), block, before);
    }
    let selects = peer.pod_selector.is_some() || peer.namespace_selector.is_some();
    match (selects, &peer.ip_block) {
        (false, None) => errors.push(Error::required(path, "must specify a peer")),
        (true, Some(_)) => errors.push(Error::forbidden(path, "may not specify both ipBlock and another peer")),
        _ => {}
    }
}

fn validate_spec(spec: &NetworkPolicySpec, before: &[&str]) -> Errors {
    let (mut errors, path) = (Errors::new(), Path::new("spec"));
    if let Some(selector) = &spec.pod_selector {
        label_selector::validate(&mut errors, &path.child("podSelector"), selector);
    }
    for (ports_at, peers_at, ports, peers) in each_rule(spec) {
        for (i, port) in ports.iter().enumerate() {
            validate_port(&mut errors, &ports_at.index(i), port);
        }
        for (i, peer) in peers.iter().enumerate() {
            validate_peer(&mut errors, &peers_at.index(i), peer, before);
        }
    }
    let (at, types) = (path.child("policyTypes"), list(&spec.policy_types));
    if types.len() > TYPES.len() {
        errors.push(Error::invalid(&at, types.to_vec(), "may not specify more than two policyTypes"));
        return errors;
    }
    for (i, direction) in types.iter().enumerate() {
        rules::known_word(&mut errors, &at.index(i), direction, TYPES);
    }
    errors
}

impl Strategy for NetworkPolicies {
    type Object = NetworkPolicy;

    fn resource(&self) -> &'static Resource {
        super::row_of("networking.k8s.io", "networkpolicies")
    }

    fn default(&self, object: &mut NetworkPolicy) {
        let spec = object.spec.get_or_insert_default();
        spec.pod_selector.get_or_insert_default();
        drop_blank(&mut spec.ingress);
        drop_blank(&mut spec.egress);
        let rules = items_mut(&mut spec.ingress).iter_mut().map(|rule| &mut rule.ports);
        for ports in rules.chain(items_mut(&mut spec.egress).iter_mut().map(|rule| &mut rule.ports)) {
            for port in items_mut(ports) {
                fill(&mut port.protocol, "TCP".to_owned());
            }
        }
        if list(&spec.policy_types).is_empty() {
            let sends = !list(&spec.egress).is_empty();
            let types = TYPES.iter().take(if sends { 2 } else { 1 });
            spec.policy_types = Some(types.map(|direction| (*direction).to_owned()).collect());
        }
    }

    fn validate(&self, object: &NetworkPolicy) -> Errors {
        validate_spec(&object.spec.clone().unwrap_or_default(), &[])
    }

    fn validate_update(&self, new: &NetworkPolicy, old: &NetworkPolicy) -> Errors {
        let old = old.spec.clone().unwrap_or_default();
        let before: Vec<&str> = each_network(&old).into_iter().map(|(_, network)| network).collect();
        validate_spec(&new.spec.clone().unwrap_or_default(), &before)
    }

    fn warnings(&self, object: &NetworkPolicy) -> Vec<String> {
        let networks = object.spec.iter().flat_map(each_network);
        networks.filter_map(|(path, network)| addresses::cidr_warnings(&path, network)).collect()
    }

    fn counts_generations(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &NetworkPolicy, now: Timestamp) -> Vec<serde_json::Value> {
        let selector = object.spec.as_ref().and_then(|spec| spec.pod_selector.as_ref()).map(cells::selector);
        vec![
            cells::name(&object.metadata),
            cells::or_none(&selector.unwrap_or_default()).into(),
            age(&object.metadata, now).into(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kinds::testing::{created, faults, row, shown};

    fn base() -> Value {
        json!({"metadata": {"name": "p", "namespace": "default"}, "spec": {"podSelector": {"matchLabels": {"a": "b"}}}})
    }

    #[test]
    fn faults_are_named() {
        let ingress = |rule: Value| json!({"spec": {"ingress": [rule]}});
        let from = |peer: Value| ingress(json!({"from": [peer]}));
        let port = |port: Value| ingress(json!({"ports": [port]}));
        let patches = [
            from(json!({})),
            from(json!({"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}})),
            from(json!({"ipBlock": {"cidr": "10.0.0.1/8", "except": ["11.0.0.0/16", "x"]}})),
            from(json!({"ipBlock": {"cidr": ""}})),
            port(json!({"port": 80, "endPort": 70})),
            port(json!({"port": "http", "endPort": 70})),
            port(json!({"endPort": 70, "protocol": "ICMP"})),
            json!({"spec": {"policyTypes": ["Ingress", "Sideways"]}}),
            json!({"spec": {"policyTypes": ["Ingress", "Egress", "Egress"]}}),
            json!({"spec": {"podSelector": {"matchLabels": {"a b": "c"}}}}),
        ];
        let text = faults(&NetworkPolicies, &base(), &patches);
        for needle in [
            "spec.ingress[0].from[0]: Required value: must specify a peer",
            "spec.ingress[0].from[0]: Forbidden: may not specify both ipBlock and another peer",
            "spec.ingress[0].from[0].ipBlock.cidr: Invalid value: \"10.0.0.1/8\": must not have bits set beyond the prefix length",
            "ipBlock.except[0]: Invalid value: \"11.0.0.0/16\": must be a strict subset of `cidr`",
            "ipBlock.except[1]: Invalid value: \"x\": must be a valid CIDR value",
            "ipBlock.cidr: Required value",
            "ports[0].endPort: Invalid value: 80: must be greater than or equal to `port`",
            "ports[0].endPort: Invalid value: 70: may not be specified when `port` is non-numeric",
            "ports[0].endPort: Invalid value: 70: may not be specified when `port` is not specified",
            "ports[0].protocol: Unsupported value: \"ICMP\": supported values: \"TCP\", \"UDP\", \"SCTP\"",
            "spec.policyTypes[1]: Unsupported value: \"Sideways\": supported values: \"Ingress\", \"Egress\"",
            "spec.policyTypes: Invalid value: [\"Ingress\",\"Egress\",\"Egress\"]: may not specify more than two policyTypes",
            "spec.podSelector.matchLabels: Invalid value: \"a b\"",
        ] {
            assert!(text.contains(needle), "{needle}\n{text}");
        }
    }

    #[test]
    fn what_was_odd_before_may_stay() {
        let block =
            json!({"metadata": {"name": "p"}, "spec": {"ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.1/8"}}]}]}});
        let object = created(&NetworkPolicies, &block);
        assert!(NetworkPolicies.validate_update(&object, &object).is_empty());
        assert_eq!(NetworkPolicies.validate(&object).len(), 1);
        assert_eq!(NetworkPolicies.warnings(&object).len(), 1);
    }

    #[test]
    fn a_policy_without_types_is_about_what_it_has_rules_for() {
        let egress = json!({"metadata": {"name": "p"}, "spec": {"egress": [{"ports": [{"port": 53}]}]}});
        let text = shown(&NetworkPolicies, &created(&NetworkPolicies, &egress));
        assert!(text.contains("\"protocol\": \"TCP\"") && text.contains("\"Egress\""), "{text}");
        let object = created(&NetworkPolicies, &json!({"metadata": {"name": "p"}}));
        assert_eq!(object.spec.unwrap().policy_types.unwrap(), ["Ingress"]);
    }

    #[test]
    fn a_row_shows_the_selector() {
        assert_eq!(row(&NetworkPolicies, &base()), "p | a=b | <unknown>");
        assert_eq!(row(&NetworkPolicies, &json!({"metadata": {"name": "p"}})), "p | <none> | <unknown>");
    }
}
