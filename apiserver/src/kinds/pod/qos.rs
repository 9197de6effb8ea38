//! The quality of service class of a pod: who is the last to go when a node runs out.

use coracle_proto::pod_resources::{Amounts, ResourceList, add as plus, parse};
use k8s_openapi::api::core::v1::{PodSpec, ResourceRequirements};

use crate::kinds::blank::list;

/// Only these two count.
const COUNTED: [&str; 2] = ["cpu", "memory"];

fn counted(amounts: &Option<ResourceList>) -> Amounts {
    let mut found = Amounts::new();
    for name in COUNTED {
        let amount = amounts.as_ref().and_then(|list| list.get(name)).and_then(parse);
        if let Some(amount) = amount.filter(|amount| !amount.is_zero()) {
            found.insert(name.to_owned(), amount);
        }
    }
    found
}

/// `Guaranteed` when every container limits both CPU and memory and requests all of it, `BestEffort` when none asks for
/// anything, `Burstable` in between. Resources of the whole pod, where given, count instead of the containers'.
pub(super) fn class(spec: &PodSpec) -> &'static str {
    let (mut requests, mut limits) = (Amounts::default(), Amounts::default());
    let mut is_guaranteed = true;
    let mut add = |resources: &ResourceRequirements| {
        let limited = counted(&resources.limits);
        is_guaranteed &= COUNTED.iter().all(|name| limited.contains_key(*name));
        plus(&mut requests, &counted(&resources.requests));
        plus(&mut limits, &limited);
    };
    let of_pod = spec.resources.as_ref().filter(|r| r.requests.is_some() || r.limits.is_some());
    if let Some(resources) = of_pod {
        add(resources);
    } else {
        for container in spec.containers.iter().chain(list(&spec.init_containers)) {
            add(&container.resources.clone().unwrap_or_default());
        }
    }
    match () {
        () if requests.is_empty() && limits.is_empty() => "BestEffort",
        () if is_guaranteed && requests == limits => "Guaranteed",
        () => "Burstable",
    }
}
