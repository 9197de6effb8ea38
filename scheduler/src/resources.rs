//! Amounts of what pods ask for and nodes have: plain integers, so that fitting is a comparison.

use std::collections::BTreeMap;

use coracle_proto::quantity::Quantity;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as WireQuantity;

use crate::view::{ContainerView, PodSpecView};

/// What an empty request counts as when nodes are ranked (not when they are filtered), so that pods that ask for nothing
/// still spread: a tenth of a core and 200 MiB, as Kubernetes takes.
pub(crate) const UNASKED: (i64, i64) = (100, 200 << 20);

/// An amount of each resource: CPU in thousandths of a core, all others in their own unit (bytes, counts).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Resources {
    pub(crate) milli_cpu: i64,
    pub(crate) memory: i64,
    pub(crate) ephemeral_storage: i64,
    pub(crate) pods: i64,
    /// Huge pages and extended resources by name.
    pub(crate) others: BTreeMap<String, i64>,
}

impl Resources {
    /// Reads a resource list. An amount that does not parse counts as nothing: the API server has refused such objects.
    pub(crate) fn read(list: &BTreeMap<String, WireQuantity>) -> Self {
        let mut sum = Self::default();
        for (name, amount) in list {
            let Ok(quantity) = amount.0.parse::<Quantity>() else { continue };
            match name.as_str() {
                "cpu" => sum.milli_cpu = quantity.milli_value(),
                "memory" => sum.memory = quantity.value(),
                "ephemeral-storage" => sum.ephemeral_storage = quantity.value(),
                "pods" => sum.pods = quantity.value(),
                _ => {
                    sum.others.insert(name.clone(), quantity.value());
                }
            }
        }
        sum
    }

    /// Adds `other`.
    pub(crate) fn add(&mut self, other: &Self) {
        self.milli_cpu = self.milli_cpu.saturating_add(other.milli_cpu);
        self.memory = self.memory.saturating_add(other.memory);
        self.ephemeral_storage = self.ephemeral_storage.saturating_add(other.ephemeral_storage);
        self.pods = self.pods.saturating_add(other.pods);
        for (name, amount) in &other.others {
            let sum = self.others.entry(name.clone()).or_default();
            *sum = sum.saturating_add(*amount);
        }
    }

    /// Takes `other` away again after an `add`.
    pub(crate) fn subtract(&mut self, other: &Self) {
        self.milli_cpu -= other.milli_cpu;
        self.memory -= other.memory;
        self.ephemeral_storage -= other.ephemeral_storage;
        self.pods -= other.pods;
        for (name, amount) in &other.others {
            if let Some(sum) = self.others.get_mut(name) {
                *sum -= amount;
                if *sum == 0 {
                    self.others.remove(name);
                }
            }
        }
    }

    /// The larger of both, resource by resource.
    fn raise_to(&mut self, other: &Self) {
        self.milli_cpu = self.milli_cpu.max(other.milli_cpu);
        self.memory = self.memory.max(other.memory);
        self.ephemeral_storage = self.ephemeral_storage.max(other.ephemeral_storage);
        for (name, amount) in &other.others {
            let most = self.others.entry(name.clone()).or_default();
            *most = (*most).max(*amount);
        }
    }

    /// What a pod asks of a node: the sum of its containers and sidecars, or the most that any init container needs
    /// beside the sidecars started before it, whichever is more; requests of the pod as a whole override that; its
    /// overhead on top; and one of the node's pod places. (Kubernetes' `PodRequests`; KEP-753, KEP-2837.)
    pub(crate) fn of_pod(spec: &PodSpecView) -> Self {
        let requests = |c: &ContainerView| Self::read(&c.resources.requests);
        let mut running = Self::default();
        for container in &spec.containers {
            running.add(&requests(container));
        }
        let mut sidecars = Self::default();
        let mut starting = Self::default();
        for container in &spec.init_containers {
            let own = requests(container);
            if container.restart_policy == "Always" {
                running.add(&own);
                sidecars.add(&own);
                starting.raise_to(&sidecars);
            } else {
                let mut beside = sidecars.clone();
                beside.add(&own);
                starting.raise_to(&beside);
            }
        }
        running.raise_to(&starting);
        let whole = Self::read(&spec.resources.requests);
        for name in spec.resources.requests.keys() {
            match name.as_str() {
                "cpu" => running.milli_cpu = whole.milli_cpu,
                "memory" => running.memory = whole.memory,
                other => {
                    if let Some(amount) = whole.others.get(other) {
                        running.others.insert(other.to_owned(), *amount);
                    }
                }
            }
        }
        running.add(&Self::read(&spec.overhead));
        running.pods = 1;
        running
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(json: serde_json::Value) -> PodSpecView {
        serde_json::from_value(json).unwrap()
    }

    fn asks(cpu: &str, memory: &str) -> serde_json::Value {
        serde_json::json!({"requests": {"cpu": cpu, "memory": memory}})
    }

    #[test]
    fn containers_add_up_and_init_containers_only_raise() {
        let pod = spec(serde_json::json!({
            "containers": [{"resources": asks("100m", "1Gi")}, {"resources": asks("0.5", "1Gi")}],
            "initContainers": [{"resources": asks("2", "1Gi")}],
            "overhead": {"memory": "1Mi"},
        }));
        let sum = Resources::of_pod(&pod);
        assert_eq!((sum.milli_cpu, sum.memory, sum.pods), (2000, (2 << 30) + (1 << 20), 1));
    }

    #[test]
    fn sidecars_count_beside_later_init_containers_and_beside_containers() {
        let pod = spec(serde_json::json!({
            "containers": [{"resources": asks("100m", "0")}],
            "initContainers": [
                {"restartPolicy": "Always", "resources": asks("300m", "0")},
                {"resources": asks("250m", "0")},
            ],
        }));
        assert_eq!(Resources::of_pod(&pod).milli_cpu, 550);
    }

    #[test]
    fn requests_of_the_pod_as_a_whole_override_the_sum() {
        let pod = spec(serde_json::json!({
            "containers": [{"resources": asks("100m", "1Gi")}], "resources": {"requests": {"cpu": "1"}},
        }));
        let sum = Resources::of_pod(&pod);
        assert_eq!((sum.milli_cpu, sum.memory), (1000, 1 << 30));
    }

    #[test]
    fn what_is_added_can_be_taken_away_without_a_trace() {
        let pod = spec(serde_json::json!({
            "containers": [{"resources": {"requests": {"cpu": "1", "example.com/gpu": "2"}}}],
        }));
        let mut sum = Resources::default();
        sum.add(&Resources::of_pod(&pod));
        assert_eq!(sum.others.get("example.com/gpu"), Some(&2));
        sum.subtract(&Resources::of_pod(&pod));
        assert_eq!(sum, Resources::default());
    }
}
