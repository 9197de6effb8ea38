//! PodMetrics: what a pod's containers use, asked of its node when somebody wants to know and never stored.

use coracle_proto::resource::Resource;
use jiff::Timestamp;
use k8s_openapi::{
    NamespaceResourceScope,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use serde::{Deserialize, Serialize};

use super::{
    cells,
    usage::{self, Usage},
};
use crate::kind::{Column, Strategy};

/// What a pod's containers use.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct PodMetrics {
    /// The pod's name, namespace and labels.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// When the figures were taken, by the clock of the pod's node.
    pub timestamp: Time,
    /// How long before that the time began over which the CPU's are averages, as Go writes durations.
    pub window: String,
    /// The running containers.
    pub containers: Vec<ContainerMetrics>,
}

/// What a container uses.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ContainerMetrics {
    /// Its name.
    pub name: String,
    /// What is used.
    pub usage: Usage,
}

usage::metrics_kind!(PodMetrics, "pods", NamespaceResourceScope, containers);

/// The strategy of `pods.metrics.k8s.io`.
#[derive(Clone, Copy, Debug, Default)]
pub struct PodsFigures;

impl Strategy for PodsFigures {
    type Object = PodMetrics;

    fn resource(&self) -> &'static Resource {
        super::row_at("metrics.k8s.io", "v1beta1", "pods")
    }

    fn columns(&self) -> &'static [Column] {
        usage::COLUMNS
    }

    fn row(&self, object: &PodMetrics, _: Timestamp) -> Vec<serde_json::Value> {
        let used = object.containers.iter().map(|container| &container.usage);
        usage::cells(cells::name(&object.metadata), used, &object.window)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::row;

    #[test]
    fn a_row_is_metrics_servers_and_sums_the_containers() {
        let pod = json!({"apiVersion": "metrics.k8s.io/v1beta1", "kind": "PodMetrics",
            "metadata": {"name": "p", "namespace": "a"}, "timestamp": "2026-01-01T00:00:00Z", "window": "1s",
            "containers": [{"name": "a", "usage": {"cpu": "123456789n", "memory": "12Ki"}},
                {"name": "b", "usage": {"cpu": "1m", "memory": "1Mi"}}]});
        assert_eq!(row(&PodsFigures, &pod), "p | 124456789n | 1036Ki | 1s");
        let read: PodMetrics = serde_json::from_value(pod.clone()).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), pod);
    }
}
