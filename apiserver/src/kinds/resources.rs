//! Resource lists: requests and limits of containers and pods, capacity of nodes.

use coracle_proto::{
    field::{Error, Errors, Path},
    name,
    pod_resources::{Amounts, LIMITS, REQUESTS, amounts, of_containers},
    quantity::Quantity as Amount,
};
use k8s_openapi::{
    api::core::v1::{PodSpec, ResourceRequirements},
    apimachinery::pkg::api::resource::Quantity,
};

use super::rules;

pub(super) use coracle_proto::pod_resources::{ResourceList, canonical, canonical_quantity, parse};

/// Whose resources they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    /// A container's.
    Container,
    /// A whole pod's (KEP-2837).
    Pod,
}

/// Resources that Kubernetes has a word for outside containers as well (in quotas).
const STANDARD: &[&str] = &[
    "configmaps",
    "cpu",
    "ephemeral-storage",
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "memory",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
    "requests.storage",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
    "storage",
];

fn is_huge(name: &str) -> bool {
    name.starts_with("hugepages-")
}

/// Whether quotas count a resource of this name, or requests or limits of it.
pub(super) fn is_quota(name: &str) -> bool {
    (STANDARD.contains(&name) && name != "storage") || is_huge(name) || name.starts_with("requests.hugepages-")
}

/// The name of a resource that a quota or a limit range may be about.
pub(super) fn validate_any_name(errors: &mut Errors, path: &Path, name: &str) {
    let wrong = name::qualified_name(name);
    if !wrong.is_empty() {
        rules::messages(errors, path, name, wrong);
    } else if !name.contains('/') && !STANDARD.contains(&name) && !is_quota(name) {
        errors.push(Error::invalid(path, name, "must be a standard resource type or fully qualified"));
    }
}

/// Kubernetes' own resources; those of others carry a domain of their own.
fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

fn is_extended(name: &str) -> bool {
    !is_native(name) && !name.starts_with("requests.") && name::qualified_name(&format!("requests.{name}")).is_empty()
}

/// Only whole numbers of these exist.
fn is_counted(name: &str) -> bool {
    let counts = [
        "configmaps",
        "persistentvolumeclaims",
        "pods",
        "replicationcontrollers",
        "resourcequotas",
        "secrets",
        "services",
        "services.loadbalancers",
        "services.nodeports",
    ];
    counts.contains(&name) || is_extended(name)
}

/// Whether more may be promised than there is.
pub(super) fn may_be_overcommitted(name: &str) -> bool {
    is_native(name) && !is_huge(name)
}

/// Everything wrong with the name of a resource of a container or a pod.
pub(super) fn validate_name(errors: &mut Errors, path: &Path, name: &str, holder: Holder) {
    let wrong = name::qualified_name(name);
    if !wrong.is_empty() {
        rules::messages(errors, path, name, wrong);
        if holder == Holder::Pod || name.contains('/') {
            return;
        }
    } else if !name.contains('/') && !STANDARD.contains(&name) && !is_huge(name) {
        errors.push(Error::invalid(path, name, "must be a standard resource type or fully qualified"));
        if holder == Holder::Pod {
            return;
        }
    }
    match holder {
        Holder::Pod if !matches!(name, "cpu" | "memory") && !is_huge(name) => {
            errors.push(Error::not_supported(path, name, &["cpu", "hugepages-", "memory"]));
        }
        Holder::Pod => {}
        Holder::Container if !name.contains('/') => {
            if !matches!(name, "cpu" | "memory" | "ephemeral-storage") && !is_huge(name) {
                errors.push(Error::invalid(path, name, "must be a standard resource for containers"));
            }
        }
        Holder::Container if !is_native(name) && !is_extended(name) => {
            errors.push(Error::invalid(path, name, "doesn't follow extended resource name standard"));
        }
        Holder::Container => {}
    }
}

/// The amount, or an error that it cannot be read.
pub(super) fn read(errors: &mut Errors, path: &Path, quantity: &Quantity) -> Option<Amount> {
    match Amount::try_from(quantity) {
        Ok(amount) => Some(amount),
        Err(error) => {
            errors.push(Error::unreadable(path, &error.to_string()));
            None
        }
    }
}

/// Whether an amount is one that there can be.
pub(super) fn validate_basic(errors: &mut Errors, path: &Path, quantity: &Quantity) -> bool {
    let amount = read(errors, path, quantity);
    if let Some(amount) = amount.filter(|amount| amount.is_negative()) {
        errors.push(Error::invalid(path, amount.value(), "must be a valid resource quantity"));
    }
    amount.is_some_and(|amount| !amount.is_negative())
}

/// Everything wrong with the amount of a resource.
pub(super) fn validate_amount(errors: &mut Errors, path: &Path, name: &str, quantity: &Quantity) -> Option<Amount> {
    let amount = read(errors, path, quantity)?;
    let shown = || amount.to_string();
    if amount.is_negative() {
        errors.push(Error::invalid(path, shown(), "must be greater than or equal to 0"));
    }
    if is_counted(name) && amount.milli_value() % 1000 != 0 {
        errors.push(Error::invalid(path, shown(), "must be an integer"));
    }
    if let Some(size) = name.strip_prefix("hugepages-").and_then(|size| Amount::parse(size).ok())
        && size.value() > 0
        && amount.value() % size.value() != 0
    {
        let detail = format!("{amount} is not positive integer multiple of {name}");
        errors.push(Error::invalid(path, shown(), &detail));
    }
    Some(amount)
}

/// Everything wrong with one list of resources by itself.
pub(super) fn validate_list(errors: &mut Errors, path: &Path, list: &ResourceList, holder: Holder) -> Amounts {
    let mut found = Amounts::default();
    for (name, quantity) in list {
        let at = path.key(name);
        validate_name(errors, &at, name, holder);
        if let Some(amount) = validate_amount(errors, &at, name, quantity) {
            found.insert(name.clone(), amount);
        }
    }
    found
}

/// Everything wrong with requests and limits.
pub(super) fn validate(errors: &mut Errors, path: &Path, resources: &ResourceRequirements, holder: Holder) {
    let none = ResourceList::new();
    let limits_at = path.child("limits");
    let limits = validate_list(errors, &limits_at, resources.limits.as_ref().unwrap_or(&none), holder);
    let at = path.child("requests");
    let requests = validate_list(errors, &at, resources.requests.as_ref().unwrap_or(&none), holder);
    for (name, amount) in &requests {
        match limits.get(name) {
            Some(limit) if amount != limit && !may_be_overcommitted(name) => {
                let detail = format!("must be equal to {name} limit of {limit}");
                errors.push(Error::invalid(&at, amount.to_string(), &detail));
            }
            Some(limit) if amount > limit => {
                let detail = format!("must be less than or equal to {name} limit of {limit}");
                errors.push(Error::invalid(&at, amount.to_string(), &detail));
            }
            Some(_) => {}
            None if !may_be_overcommitted(name) => {
                errors.push(Error::required(&limits_at, "Limit must be set for non overcommitable resources"));
            }
            None => {}
        }
    }
    let names = || limits.keys().chain(requests.keys());
    if names().any(|name| is_huge(name)) && !names().any(|name| matches!(name.as_str(), "cpu" | "memory")) {
        errors.push(Error::forbidden(path, "HugePages require cpu or memory"));
    }
}

/// Everything wrong with the resources of a whole pod, by themselves and beside its containers'. `path` is the spec's.
pub(super) fn validate_pod(errors: &mut Errors, path: &Path, spec: &PodSpec) {
    let Some(resources) = &spec.resources else { return };
    let path = path.child("resources");
    if spec.os.as_ref().is_some_and(|os| os.name == "windows") {
        errors.push(Error::forbidden(&path, "may not be set for a windows pod"));
        return;
    }
    if resources.claims.is_some() {
        let detail = "claims may not be set for Resources at pod-level";
        errors.push(Error::forbidden(&path.child("claims"), detail));
    }
    validate(errors, &path, resources, Holder::Pod);
    let (requests, limits) = (amounts(resources.requests.as_ref()), amounts(resources.limits.as_ref()));
    for (name, needed) in of_containers(spec, REQUESTS) {
        if let Some(given) = requests.get(&name).filter(|given| needed > **given) {
            let detail = format!("must be greater than or equal to aggregate container requests of {needed}");
            errors.push(Error::invalid(&path.child("requests").key(&name), given.to_string(), &detail));
        }
    }
    for (name, needed) in of_containers(spec, LIMITS).into_iter().filter(|(name, _)| is_huge(name)) {
        if let Some(given) = limits.get(&name).filter(|given| needed > **given) {
            let detail = format!("must be greater than or equal to aggregate container limits of {needed}");
            errors.push(Error::invalid(&path.child("limits").key(&name), given.to_string(), &detail));
        }
    }
    for (i, container) in spec.containers.iter().enumerate() {
        let own = amounts(container.resources.as_ref().and_then(|r| r.limits.as_ref()));
        for (name, own) in own {
            if let Some(given) = limits.get(&name).filter(|given| own > **given) {
                let detail = format!("must be less than or equal to pod limits of {given}");
                let at = path.child("containers").index(i).key(&name).child("limits");
                errors.push(Error::invalid(&at, own.to_string(), &detail));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_rounded_up_to_thousandths() {
        let mut list = ResourceList::from([("cpu".to_owned(), Quantity("0.1234".to_owned()))]);
        canonical(&mut list);
        assert_eq!(list["cpu"].0, "124m");
    }
}
