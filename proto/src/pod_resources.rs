//! What a pod needs as a whole: sums over its containers, as quotas, limit ranges and the scheduler count them.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Container, PodSpec, ResourceRequirements},
    apimachinery::pkg::api::resource::Quantity as ApiQuantity,
};

use crate::quantity::Quantity;

/// Amounts by resource name, as objects carry them.
pub type ResourceList = BTreeMap<String, ApiQuantity>;

/// Amounts by resource name, to reckon with.
pub type Amounts = BTreeMap<String, Quantity>;

/// The amount a quantity names, nothing when it is not one.
#[must_use]
pub fn parse(quantity: &ApiQuantity) -> Option<Quantity> {
    Quantity::try_from(quantity).ok()
}

/// Amounts as the API has them; what is no quantity is left out, since validation has refused it.
#[must_use]
pub fn amounts(list: Option<&ResourceList>) -> Amounts {
    let parsed = |(name, quantity): (&String, &ApiQuantity)| Some((name.clone(), parse(quantity)?));
    list.into_iter().flatten().filter_map(parsed).collect()
}

/// Writes every amount in its canonical form, rounded up to thousandths.
pub fn canonical(list: &mut ResourceList) {
    for quantity in list.values_mut() {
        let Some(amount) = parse(quantity) else { continue };
        let thousandths = Quantity::from_millis(amount.milli_value());
        let rounded = if thousandths > amount { thousandths.with_format(amount.format()) } else { amount };
        *quantity = rounded.into();
    }
}

/// Writes the quantity in its canonical form.
pub fn canonical_quantity(quantity: &mut ApiQuantity) {
    if let Some(amount) = parse(quantity) {
        *quantity = amount.into();
    }
}

/// Requests what is limited and not requested.
pub fn default_requests(resources: &mut ResourceRequirements) {
    let Some(limits) = &resources.limits else { return };
    if limits.is_empty() {
        return;
    }
    let requests = resources.requests.get_or_insert_default();
    for (name, limit) in limits {
        if !requests.contains_key(name) {
            requests.insert(name.clone(), limit.clone());
        }
    }
}

/// Adds `more` to `sum`.
pub fn add(sum: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        match sum.get_mut(name) {
            Some(there) => *there += *amount,
            None => {
                sum.insert(name.clone(), *amount);
            }
        }
    }
}

fn raise(most: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        let there = most.entry(name.clone()).or_insert(*amount);
        *there = (*there).max(*amount);
    }
}

/// Requests or limits.
pub type Half = fn(&ResourceRequirements) -> Option<&ResourceList>;

/// What is requested.
pub const REQUESTS: Half = |resources| resources.requests.as_ref();
/// What is limited.
pub const LIMITS: Half = |resources| resources.limits.as_ref();

/// What the containers need: those that run side by side together, or the most that a step of the start needs; sidecars run
/// beside all that follows.
#[must_use]
pub fn of_containers(spec: &PodSpec, half: Half) -> Amounts {
    let of = |container: &Container| amounts(container.resources.as_ref().and_then(half));
    let mut sum = Amounts::new();
    for container in &spec.containers {
        add(&mut sum, &of(container));
    }
    let (mut sidecars, mut peak) = (Amounts::new(), Amounts::new());
    for container in spec.init_containers.iter().flatten() {
        let own = of(container);
        let mut step = sidecars.clone();
        add(&mut step, &own);
        if container.restart_policy.as_deref() == Some("Always") {
            add(&mut sum, &own);
            sidecars.clone_from(&step);
        }
        raise(&mut peak, &step);
    }
    raise(&mut sum, &peak);
    sum
}

/// What is said of the pod as a whole stands in for what its containers need (KEP-2837).
fn whole(spec: &PodSpec, half: Half) -> Amounts {
    let mut sum = of_containers(spec, half);
    for (name, amount) in amounts(spec.resources.as_ref().and_then(half)) {
        if matches!(name.as_str(), "cpu" | "memory") || name.starts_with("hugepages-") {
            sum.insert(name, amount);
        }
    }
    sum
}

/// What the pod's containers request.
#[must_use]
pub fn requests(spec: &PodSpec) -> Amounts {
    whole(spec, REQUESTS)
}

/// What the pod's containers are limited to.
#[must_use]
pub fn limits(spec: &PodSpec) -> Amounts {
    whole(spec, LIMITS)
}

/// Requests and limits with what running the pod costs besides its containers (RuntimeClass' overhead).
#[must_use]
pub fn with_overhead(spec: &PodSpec) -> (Amounts, Amounts) {
    let (mut requests, mut limits) = (requests(spec), limits(spec));
    let overhead = amounts(spec.overhead.as_ref());
    add(&mut requests, &overhead);
    for (name, amount) in &overhead {
        // What has no limit gets none by this.
        if let Some(limit) = limits.get_mut(name).filter(|limit| !limit.is_zero()) {
            *limit += *amount;
        }
    }
    (requests, limits)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn containers_run_side_by_side_and_steps_one_after_the_other() {
        let container =
            |cpu: &str| json!({"name": "c", "resources": {"requests": {"cpu": cpu}, "limits": {"cpu": cpu}}});
        let sidecar = |cpu: &str| {
            let mut container = container(cpu);
            container["restartPolicy"] = "Always".into();
            container
        };
        for (init, main, expected) in [
            (vec![], vec![container("1"), container("500m")], "1500m"),
            (vec![container("2")], vec![container("1")], "2"),
            (vec![sidecar("1"), container("2")], vec![container("1")], "3"),
            (vec![container("2"), sidecar("1")], vec![container("3")], "4"),
        ] {
            let spec: PodSpec = serde_json::from_value(json!({"initContainers": init, "containers": main})).unwrap();
            assert_eq!(requests(&spec)["cpu"].to_string(), expected);
            assert_eq!(limits(&spec)["cpu"].to_string(), expected);
        }
        let spec = json!({"containers": [container("1")], "overhead": {"cpu": "250m", "memory": "1Mi"}});
        let (requests, limits) = with_overhead(&serde_json::from_value(spec).unwrap());
        assert_eq!((requests["cpu"].to_string(), requests["memory"].to_string()), ("1250m".into(), "1Mi".into()));
        assert_eq!((limits["cpu"].to_string(), limits.get("memory")), ("1250m".into(), None));
        let spec = json!({"containers": [container("1")], "resources": {"requests": {"cpu": "4"}}});
        assert_eq!(super::requests(&serde_json::from_value(spec).unwrap())["cpu"].to_string(), "4");
    }
}
