//! NodeMetrics: what a node uses, asked of it when somebody wants to know and never stored.

use coracle_proto::resource::Resource;
use jiff::Timestamp;
use k8s_openapi::{
    ClusterResourceScope,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use serde::Deserialize;

use super::{
    cells,
    usage::{self, Usage},
};
use crate::kind::{Column, Strategy};

/// What a node uses.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct NodeMetrics {
    /// The node's name and labels.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// When the figures were taken, by the node's clock.
    pub timestamp: Time,
    /// How long before that the time began over which the CPU's is the average, as Go writes durations.
    pub window: String,
    /// What is used.
    pub usage: Usage,
}

usage::metrics_kind!(NodeMetrics, "nodes", ClusterResourceScope, usage);

/// The strategy of `nodes.metrics.k8s.io`.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodesFigures;

impl Strategy for NodesFigures {
    type Object = NodeMetrics;

    fn resource(&self) -> &'static Resource {
        super::row_at("metrics.k8s.io", "v1beta1", "nodes")
    }

    fn columns(&self) -> &'static [Column] {
        usage::COLUMNS
    }

    fn row(&self, object: &NodeMetrics, _: Timestamp) -> Vec<serde_json::Value> {
        usage::cells(cells::name(&object.metadata), [&object.usage], &object.window)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::row;

    #[test]
    fn a_row_is_metrics_servers() {
        let node = json!({"apiVersion": "metrics.k8s.io/v1beta1", "kind": "NodeMetrics", "metadata": {"name": "n"},
            "timestamp": "2026-01-01T00:00:00Z", "window": "15.25s", "usage": {"cpu": "123456789n", "memory": "12Ki"}});
        assert_eq!(row(&NodesFigures, &node), "n | 123456789n | 12Ki | 15.25s");
        let read: NodeMetrics = serde_json::from_value(node.clone()).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), node);
    }
}
