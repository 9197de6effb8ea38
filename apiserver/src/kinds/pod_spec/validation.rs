//! What makes a pod spec invalid.

use std::collections::BTreeSet;

use coracle_proto::{
    field::{Error, Errors, Path},
    name,
};
use k8s_openapi::api::core::v1::{PodDNSConfig, PodSchedulingGate, PodSpec, TopologySpreadConstraint};

use super::{containers, containers::Surroundings, env, security, volumes};
use crate::kinds::{
    affinity,
    blank::{list, text},
    label_selector, resources, rules, tolerations,
};

/// Where a pod spec stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kinds) enum Holder<'a> {
    /// In a pod of this name.
    Pod(&'a str),
    /// In a template that pods are made from.
    Template,
}

/// Everything wrong with a pod spec, defaults filled in.
pub(in crate::kinds) fn validate(errors: &mut Errors, path: &Path, spec: &PodSpec, holder: Holder<'_>) {
    let pod = match holder {
        Holder::Pod(name) => name,
        Holder::Template => "",
    };
    if spec.termination_grace_period_seconds.is_none() {
        errors.push(Error::required(&path.child("terminationGracePeriodSeconds"), ""));
    }
    let known = volumes::validate(errors, &path.child("volumes"), list(&spec.volumes), pod);
    let claims = validate_resource_claims(errors, &path.child("resourceClaims"), spec);
    let around = Surroundings { volumes: known, claims, spec };
    containers::validate(errors, &path.child("containers"), &around);
    containers::validate_init(errors, &path.child("initContainers"), &around);
    containers::validate_ephemeral(errors, &path.child("ephemeralContainers"), &around);
    resources::validate_pod(errors, path, spec);
    validate_host_network_ports(errors, path, spec, holder);

    let at = path.child("restartPolicy");
    rules::one_of(errors, &at, text(&spec.restart_policy), &["Always", "OnFailure", "Never"]);
    let known = &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    rules::one_of(errors, &path.child("dnsPolicy"), text(&spec.dns_policy), known);
    rules::labels(errors, &path.child("nodeSelector"), spec.node_selector.as_ref());
    security::validate_pod(errors, &path.child("securityContext"), spec);
    if let Some(affinity) = &spec.affinity {
        affinity::validate(errors, &path.child("affinity"), affinity);
    }
    validate_dns(errors, &path.child("dnsConfig"), spec.dns_config.as_ref(), text(&spec.dns_policy));
    for (i, gate) in list(&spec.readiness_gates).iter().enumerate() {
        rules::label_name(errors, &path.child("readinessGates").index(i).child("conditionType"), &gate.condition_type);
    }
    validate_scheduling_gates(errors, &path.child("schedulingGates"), list(&spec.scheduling_gates));
    let constraints = list(&spec.topology_spread_constraints);
    validate_spread(errors, &path.child("topologySpreadConstraints"), constraints);
    security::validate_host_users(errors, path, spec);
    validate_names(errors, path, spec);
    if let Some(seconds) = spec.active_deadline_seconds
        && !(1..=i64::from(i32::MAX)).contains(&seconds)
    {
        let detail = format!("must be between 1 and {}, inclusive", i32::MAX);
        errors.push(Error::invalid(&path.child("activeDeadlineSeconds"), seconds, &detail));
    }
    tolerations::validate(errors, &path.child("tolerations"), list(&spec.tolerations));
    for (i, alias) in list(&spec.host_aliases).iter().enumerate() {
        let at = path.child("hostAliases").index(i);
        rules::messages(errors, &at.child("ip"), &alias.ip, name::ip_address(&alias.ip));
        for (j, host) in list(&alias.hostnames).iter().enumerate() {
            rules::messages(errors, &at.child("hostnames").index(j), host, name::dns1123_subdomain(host));
        }
    }
    if let Some(policy) = &spec.preemption_policy {
        rules::one_of(errors, &path.child("preemptionPolicy"), policy, &["PreemptLowerPriority", "Never"]);
    }
    if let Some(overhead) = &spec.overhead {
        resources::validate_list(
            errors,
            &path.child("overhead").child("limits"),
            overhead,
            resources::Holder::Container,
        );
    }
    security::validate_os(errors, path, spec);
    env::validate_file_volumes(errors, path, spec);
}

/// The fields that hold a name each.
fn validate_names(errors: &mut Errors, path: &Path, spec: &PodSpec) {
    let subdomains = [
        ("serviceAccountName", &spec.service_account_name),
        ("nodeName", &spec.node_name),
        ("priorityClassName", &spec.priority_class_name),
        ("runtimeClassName", &spec.runtime_class_name),
    ];
    for (field, value) in subdomains {
        if !text(value).is_empty() {
            rules::messages(errors, &path.child(field), text(value), name::dns1123_subdomain(text(value)));
        }
    }
    for (field, value) in [("hostname", &spec.hostname), ("subdomain", &spec.subdomain)] {
        if !text(value).is_empty() {
            rules::messages(errors, &path.child(field), text(value), name::dns1123_label(text(value)));
        }
    }
    if let Some(host) = &spec.hostname_override {
        let at = path.child("hostnameOverride");
        if spec.set_hostname_as_fqdn == Some(true) {
            errors.push(Error::forbidden(&at, "may not be specified when setHostnameAsFQDN is true"));
        }
        if spec.host_network == Some(true) {
            errors.push(Error::forbidden(&at, "may not be specified when hostNetwork is true"));
        }
        if host.len() > 64 {
            errors.push(Error::too_long(&at, 64));
        }
        rules::messages(errors, &at, host, name::dns1123_subdomain(host));
    }
}

/// A pod in the host's network has the host's ports and no others.
fn validate_host_network_ports(errors: &mut Errors, path: &Path, spec: &PodSpec, holder: Holder<'_>) {
    if spec.host_network != Some(true) {
        return;
    }
    for (i, container) in spec.containers.iter().enumerate() {
        for (j, port) in list(&container.ports).iter().enumerate() {
            let host = port.host_port.unwrap_or(0);
            // In a template the port may be left out: it is filled in when the pod is made.
            let must_match = host != 0 || matches!(holder, Holder::Pod(_));
            if must_match && host != port.container_port {
                let at = path.child("containers").index(i).child("ports").index(j).child("hostPort");
                let detail = "must match `containerPort` when `hostNetwork` is true";
                errors.push(Error::invalid(&at, host, detail));
            }
        }
    }
}

fn validate_resource_claims<'a>(errors: &mut Errors, path: &Path, spec: &'a PodSpec) -> BTreeSet<&'a str> {
    let mut names = BTreeSet::new();
    for (i, claim) in list(&spec.resource_claims).iter().enumerate() {
        let at = path.index(i);
        let name = claim.name.as_str();
        if name.is_empty() {
            errors.push(Error::required(&at.child("name"), ""));
        } else if !names.insert(name) {
            errors.push(Error::duplicate(&at.child("name"), name));
        } else {
            rules::messages(errors, &at.child("name"), name, name::dns1123_label(name));
        }
        match (&claim.resource_claim_name, &claim.resource_claim_template_name) {
            (Some(_), Some(_)) => {
                let detail = "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified";
                errors.push(Error::invalid(&at, rules::json(claim), detail));
            }
            (None, None) => {
                let detail = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`";
                errors.push(Error::invalid(&at, rules::json(claim), detail));
            }
            _ => {}
        }
    }
    names
}

/// Limits of the resolvers in common C libraries, resolv.conf(5).
const NAMESERVERS: usize = 3;
const SEARCHES: usize = 32;
const SEARCH_BYTES: usize = 2048;

fn validate_dns(errors: &mut Errors, path: &Path, config: Option<&PodDNSConfig>, policy: &str) {
    let Some(config) = config else {
        if policy == "None" {
            errors.push(Error::required(path, "must provide `dnsConfig` when `dnsPolicy` is None"));
        }
        return;
    };
    let (servers, searches) = (list(&config.nameservers), list(&config.searches));
    if policy == "None" && servers.is_empty() {
        let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
        errors.push(Error::required(&path.child("nameservers"), detail));
        return;
    }
    if servers.len() > NAMESERVERS {
        let detail = format!("must not have more than {NAMESERVERS} nameservers");
        errors.push(Error::invalid(&path.child("nameservers"), servers.to_vec(), &detail));
    }
    for (i, server) in servers.iter().enumerate() {
        rules::messages(errors, &path.child("nameservers").index(i), server, name::ip_address(server));
    }
    let at = path.child("searches");
    if searches.len() > SEARCHES {
        let detail = format!("must not have more than {SEARCHES} search paths");
        errors.push(Error::invalid(&at, searches.to_vec(), &detail));
    }
    if searches.join(" ").len() > SEARCH_BYTES {
        let detail = format!("must not have more than {SEARCH_BYTES} characters (including spaces) in the search list");
        errors.push(Error::invalid(&at, searches.to_vec(), &detail));
    }
    for (i, search) in searches.iter().enumerate().filter(|(_, search)| *search != ".") {
        let domain = search.strip_suffix('.').unwrap_or(search);
        // Underscores may stand in search domains, as they do in the records of services.
        let checked = name::dns1123_subdomain(&domain.replace('_', "-"));
        let starts_so = domain.starts_with('_') || domain.contains("._");
        let checked = if starts_so { name::dns1123_subdomain(&domain.replace('_', "x")) } else { checked };
        rules::messages(errors, &at.index(i), domain, checked);
    }
    for (i, option) in list(&config.options).iter().enumerate() {
        if text(&option.name).is_empty() {
            errors.push(Error::required(&path.child("options").index(i), "must not be empty"));
        }
    }
}

fn validate_scheduling_gates(errors: &mut Errors, path: &Path, gates: &[PodSchedulingGate]) {
    let mut seen = BTreeSet::new();
    for (i, gate) in gates.iter().enumerate() {
        rules::label_name(errors, &path.index(i), &gate.name);
        if !seen.insert(&gate.name) {
            errors.push(Error::duplicate(&path.index(i), gate.name.as_str()));
        }
    }
}

fn validate_spread(errors: &mut Errors, path: &Path, constraints: &[TopologySpreadConstraint]) {
    for (i, constraint) in constraints.iter().enumerate() {
        let at = path.index(i);
        let (key, action) = (constraint.topology_key.as_str(), constraint.when_unsatisfiable.as_str());
        rules::positive(errors, &at.child("maxSkew"), constraint.max_skew.into());
        if key.is_empty() {
            errors.push(Error::required(&at.child("topologyKey"), "can not be empty"));
        }
        rules::known_word(errors, &at.child("whenUnsatisfiable"), action, &["DoNotSchedule", "ScheduleAnyway"]);
        let is_same =
            |other: &&TopologySpreadConstraint| other.topology_key == key && other.when_unsatisfiable == action;
        if constraints.iter().skip(i + 1).any(|other| is_same(&other)) {
            let at = at.child("{topologyKey, whenUnsatisfiable}");
            errors.push(Error::duplicate(&at, format!("{{{key}, {action}}}")));
        }
        if let Some(domains) = constraint.min_domains {
            rules::positive(errors, &at.child("minDomains"), domains.into());
            if action != "DoNotSchedule" {
                let detail = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
                errors.push(Error::invalid(&at.child("minDomains"), domains, &detail));
            }
        }
        let policies = [
            ("nodeAffinityPolicy", &constraint.node_affinity_policy),
            ("nodeTaintsPolicy", &constraint.node_taints_policy),
        ];
        for (field, policy) in policies {
            if let Some(policy) = policy {
                rules::known_word(errors, &at.child(field), policy, &["Honor", "Ignore"]);
            }
        }
        let keys = list(&constraint.match_label_keys);
        affinity::validate_label_keys(errors, &at, keys, &[], constraint.label_selector.as_ref());
        if let Some(selector) = &constraint.label_selector {
            label_selector::validate(errors, &at.child("labelSelector"), selector);
        }
    }
}

#[cfg(test)]
mod tests;
