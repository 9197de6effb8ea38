//! What a ResourceQuota counts: which objects it is about, and how much each of them uses.
//!
//! The server asks before an object is written, the quota controller when it counts anew; both must agree.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{
    Container, PersistentVolumeClaim, Pod, PodAffinityTerm, ResourceQuotaSpec, ScopedResourceSelectorRequirement,
    Service,
};

use crate::{
    pod_resources::{Amounts, add, amounts, with_overhead},
    quantity::{Format, Quantity},
    selector::{LabelSelector, Operator, Requirement},
};

/// An object as quotas see it.
#[derive(Clone, Copy, Debug)]
pub enum Counted<'a> {
    /// Its containers' requests and limits count.
    Pod(&'a Pod),
    /// Its type and ports count.
    Service(&'a Service),
    /// Its storage counts.
    Claim(&'a PersistentVolumeClaim),
    /// One of its kind.
    Other,
}

/// Names by which objects of some kinds were counted before all could be.
const ALIASES: &[&str] = &["configmaps", "resourcequotas", "replicationcontrollers", "secrets"];

const POD_NAMES: &[&str] = &[
    "pods",
    "count/pods",
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
];

const SERVICE_NAMES: &[&str] = &["services", "count/services", "services.nodeports", "services.loadbalancers"];

const CLAIM_NAMES: &[&str] = &["persistentvolumeclaims", "requests.storage"];

const BY_CLASS: &str = ".storageclass.storage.k8s.io/";

/// The name under which all objects of a resource are counted: `count/deployments.apps`.
#[must_use]
pub fn count_name(group: &str, plural: &str) -> String {
    if group.is_empty() { format!("count/{plural}") } else { format!("count/{plural}.{group}") }
}

/// Whether objects of a resource use what a quota calls `name`.
#[must_use]
pub fn concerns(group: &str, plural: &str, name: &str) -> bool {
    if name == count_name(group, plural) {
        return true;
    }
    match (group, plural) {
        ("", "pods") => {
            let extended = name.strip_prefix("requests.").is_some_and(|rest| {
                rest.contains('/') && (!rest.contains("kubernetes.io/") || rest.starts_with("deviceclass."))
            });
            let huge = name.starts_with("hugepages-") || name.starts_with("requests.hugepages-");
            POD_NAMES.contains(&name) || huge || extended
        }
        ("", "services") => SERVICE_NAMES.contains(&name),
        ("", "persistentvolumeclaims") => {
            CLAIM_NAMES.iter().any(|own| name == *own || name.ends_with(&format!("{BY_CLASS}{own}")))
        }
        ("", plural) => name == plural && ALIASES.contains(&plural),
        _ => false,
    }
}

const ONE: Quantity = Quantity::new(1, Format::DecimalSi);

/// What an object uses, in quotas' names.
#[must_use]
pub fn usage(group: &str, plural: &str, object: Counted<'_>, now: Timestamp) -> Amounts {
    let mut used = Amounts::from([(count_name(group, plural), ONE)]);
    match object {
        Counted::Pod(pod) if runs(pod, now) => add(&mut used, &pod_usage(pod)),
        Counted::Pod(_) => {}
        Counted::Service(service) => add(&mut used, &service_usage(service)),
        Counted::Claim(claim) => add(&mut used, &claim_usage(claim)),
        Counted::Other if group.is_empty() && ALIASES.contains(&plural) => {
            used.insert(plural.to_owned(), ONE);
        }
        Counted::Other => {}
    }
    used
}

/// Whether a pod still uses anything: not when it has ended, nor when its node should have let it go.
fn runs(pod: &Pod, now: Timestamp) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    if matches!(phase, Some("Failed" | "Succeeded")) {
        return false;
    }
    match (&pod.metadata.deletion_timestamp, pod.metadata.deletion_grace_period_seconds) {
        (Some(time), Some(grace)) => {
            let end = time.0.checked_add(SignedDuration::from_secs(grace)).unwrap_or(time.0);
            now <= end
        }
        _ => true,
    }
}

/// Requests and limits in quotas' names.
fn named(requests: &Amounts, limits: &Amounts) -> Amounts {
    let mut used = Amounts::from([("pods".to_owned(), ONE)]);
    for (name, amount) in requests {
        match name.as_str() {
            "cpu" | "memory" | "ephemeral-storage" => {
                used.insert(name.clone(), *amount);
                used.insert(format!("requests.{name}"), *amount);
            }
            huge if huge.starts_with("hugepages-") => {
                used.insert(name.clone(), *amount);
                used.insert(format!("requests.{name}"), *amount);
            }
            extended if extended.contains('/') => {
                used.insert(format!("requests.{name}"), *amount);
            }
            _ => {}
        }
    }
    for (name, amount) in limits {
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") {
            used.insert(format!("limits.{name}"), *amount);
        }
    }
    used
}

fn pod_usage(pod: &Pod) -> Amounts {
    let Some(spec) = &pod.spec else { return Amounts::from([("pods".to_owned(), ONE)]) };
    let (requests, limits) = with_overhead(spec);
    named(&requests, &limits)
}

fn service_usage(service: &Service) -> Amounts {
    let mut used = Amounts::from([("services".to_owned(), ONE)]);
    let spec = service.spec.clone().unwrap_or_default();
    let ports = spec.ports.unwrap_or_default();
    let opened = || ports.iter().filter(|port| port.node_port.unwrap_or(0) != 0).count();
    let (balancers, nodes) = match spec.type_.as_deref() {
        Some("NodePort") => (0, ports.len()),
        Some("LoadBalancer") if spec.allocate_load_balancer_node_ports == Some(false) => (1, opened()),
        Some("LoadBalancer") => (1, ports.len()),
        _ => (0, 0),
    };
    let number = |count: usize| Quantity::new(i64::try_from(count).unwrap_or(i64::MAX), Format::DecimalSi);
    used.insert("services.loadbalancers".to_owned(), number(balancers));
    used.insert("services.nodeports".to_owned(), number(nodes));
    used
}

fn claim_usage(claim: &PersistentVolumeClaim) -> Amounts {
    let mut used = Amounts::from([("persistentvolumeclaims".to_owned(), ONE)]);
    let spec = claim.spec.clone().unwrap_or_default();
    let annotated = claim.metadata.annotations.as_ref().and_then(|a| a.get("volume.beta.kubernetes.io/storage-class"));
    let class = annotated.cloned().or(spec.storage_class_name).unwrap_or_default();
    if !class.is_empty() {
        used.insert(format!("{class}{BY_CLASS}persistentvolumeclaims"), ONE);
    }
    let requested = amounts(spec.resources.as_ref().and_then(|r| r.requests.as_ref())).get("storage").copied();
    let allocated = amounts(claim.status.as_ref().and_then(|s| s.allocated_resources.as_ref())).get("storage").copied();
    if let Some(requested) = requested {
        // Space that a volume has been given counts until it is given back.
        let most = allocated.map_or(requested, |allocated| allocated.max(requested));
        let rounded = Quantity::new(most.value(), most.format());
        used.insert("requests.storage".to_owned(), rounded);
        if !class.is_empty() {
            used.insert(format!("{class}{BY_CLASS}requests.storage"), rounded);
        }
    }
    used
}

/// What of `required` the pod's containers must say and do not, as Kubernetes words it.
///
/// # Errors
/// That sentence.
pub fn check_constraints<'a>(required: impl Iterator<Item = &'a str>, pod: &Pod) -> Result<(), String> {
    let Some(spec) = &pod.spec else { return Ok(()) };
    let whole = spec.resources.as_ref();
    if whole.is_some_and(|r| !amounts(r.requests.as_ref()).is_empty() || !amounts(r.limits.as_ref()).is_empty()) {
        return Ok(());
    }
    let must = ["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];
    let mut missing: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let containers: Vec<&Container> = spec.containers.iter().chain(spec.init_containers.iter().flatten()).collect();
    for name in required.filter(|name| must.contains(name)) {
        for container in &containers {
            let half = |list: fn(&k8s_openapi::api::core::v1::ResourceRequirements) -> Option<&BTreeMap<_, _>>| {
                amounts(container.resources.as_ref().and_then(list))
            };
            let said = named(&half(|r| r.requests.as_ref()), &half(|r| r.limits.as_ref()));
            if !said.contains_key(name) {
                missing.entry(name).or_default().push(&container.name);
            }
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let line = |(name, mut containers): (&str, Vec<&str>)| {
        containers.sort_unstable();
        containers.dedup();
        format!("{name} for: {}", containers.join(","))
    };
    Err(format!("must specify {}", missing.into_iter().map(line).collect::<Vec<_>>().join("; ")))
}

/// Whether the object is one of those that the quota's scopes leave.
#[must_use]
pub fn is_in_scope(quota: &ResourceQuotaSpec, object: Counted<'_>) -> bool {
    let plain = quota.scopes.iter().flatten().map(|scope| ScopedResourceSelectorRequirement {
        scope_name: scope.clone(),
        operator: "Exists".to_owned(),
        values: None,
    });
    let selectors =
        quota.scope_selector.iter().flat_map(|selector| selector.match_expressions.iter().flatten()).cloned();
    plain.chain(selectors).all(|scope| match object {
        Counted::Pod(pod) => pod_is_in(&scope, pod),
        Counted::Claim(claim) => claim_is_in(&scope, claim),
        Counted::Service(_) | Counted::Other => false,
    })
}

fn pod_is_in(scope: &ScopedResourceSelectorRequirement, pod: &Pod) -> bool {
    let spec = pod.spec.as_ref();
    match scope.scope_name.as_str() {
        "Terminating" => is_terminating(pod),
        "NotTerminating" => !is_terminating(pod),
        "BestEffort" => is_best_effort(pod),
        "NotBestEffort" => !is_best_effort(pod),
        "PriorityClass" => {
            let class = spec.and_then(|spec| spec.priority_class_name.as_deref()).filter(|class| !class.is_empty());
            selects(scope, class.into_iter())
        }
        "CrossNamespacePodAffinity" => reaches_other_namespaces(pod),
        _ => false,
    }
}

/// Whether the pod is to end by itself.
#[must_use]
pub fn is_terminating(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.active_deadline_seconds).is_some_and(|seconds| seconds >= 0)
}

fn is_best_effort(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return true };
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let all = containers.map(|c| c.resources.as_ref()).chain([spec.resources.as_ref()]).flatten();
    all.flat_map(|r| [amounts(r.requests.as_ref()), amounts(r.limits.as_ref())])
        .flatten()
        .all(|(name, amount)| !matches!(name.as_str(), "cpu" | "memory") || amount.is_zero())
}

/// Whether a scope with values picks one of the object's words (nothing, when it has none).
fn selects<'a>(scope: &ScopedResourceSelectorRequirement, words: impl Iterator<Item = &'a str>) -> bool {
    let operator = match scope.operator.as_str() {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        _ => return false,
    };
    let values = scope.values.clone().unwrap_or_default();
    let Ok(requirement) = Requirement::new(&scope.scope_name, operator, values) else { return false };
    let selector = LabelSelector::new(vec![requirement]);
    let mut words = words.peekable();
    if words.peek().is_none() {
        return selector.matches(|_| None);
    }
    words.any(|word| selector.matches(|_| Some(word)))
}

fn reaches_other_namespaces(pod: &Pod) -> bool {
    let reaches = |term: &PodAffinityTerm| {
        term.namespaces.as_ref().is_some_and(|names| !names.is_empty()) || term.namespace_selector.is_some()
    };
    let Some(affinity) = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref()) else { return false };
    let near = affinity.pod_affinity.iter().flat_map(|a| {
        let weighted = a.preferred_during_scheduling_ignored_during_execution.iter().flatten();
        a.required_during_scheduling_ignored_during_execution
            .iter()
            .flatten()
            .chain(weighted.map(|term| &term.pod_affinity_term))
    });
    let far = affinity.pod_anti_affinity.iter().flat_map(|a| {
        let weighted = a.preferred_during_scheduling_ignored_during_execution.iter().flatten();
        a.required_during_scheduling_ignored_during_execution
            .iter()
            .flatten()
            .chain(weighted.map(|term| &term.pod_affinity_term))
    });
    near.chain(far).any(reaches)
}

fn claim_is_in(scope: &ScopedResourceSelectorRequirement, claim: &PersistentVolumeClaim) -> bool {
    if scope.scope_name != "VolumeAttributesClass" {
        return false;
    }
    let status = claim.status.as_ref();
    let words = [
        claim.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.as_deref()),
        status.and_then(|status| status.current_volume_attributes_class_name.as_deref()),
        status
            .and_then(|status| status.modify_volume_status.as_ref())
            .and_then(|modify| modify.target_volume_attributes_class_name.as_deref()),
    ];
    selects(scope, words.into_iter().flatten().filter(|word| !word.is_empty()))
}

#[cfg(test)]
mod tests;
