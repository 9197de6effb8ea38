//! ComponentStatuses: how the cluster's components are, worked out when somebody asks and never stored.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ComponentCondition, ComponentStatus};

use super::{
    blank::{list, text},
    cells,
};
use crate::kind::{Column, NAME, Strategy};
use coracle_proto::resource::Resource;

/// The strategy of `componentstatuses`.
#[derive(Clone, Copy, Debug, Default)]
pub struct ComponentStatuses;

const COLUMNS: &[Column] = &[
    NAME,
    cells::column("Status", "Status of the component conditions"),
    cells::column("Message", "Message of the component conditions"),
    cells::column("Error", "Error of the component conditions"),
];

impl Strategy for ComponentStatuses {
    type Object = ComponentStatus;

    fn resource(&self) -> &'static Resource {
        super::row_of("", "componentstatuses")
    }

    fn deprecation(&self) -> Option<&'static str> {
        Some("v1 ComponentStatus is deprecated in v1.19+")
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &ComponentStatus, _: Timestamp) -> Vec<serde_json::Value> {
        let healthy = list(&object.conditions).iter().find(|condition| condition.type_ == "Healthy");
        let word = |condition: &ComponentCondition| match condition.status.as_str() {
            "True" => "Healthy",
            _ => "Unhealthy",
        };
        vec![
            cells::name(&object.metadata),
            healthy.map_or("Unknown", word).into(),
            healthy.map_or("", |condition| text(&condition.message)).into(),
            healthy.map_or("", |condition| text(&condition.error)).into(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::row;

    #[test]
    fn a_row_tells_how_a_component_is() {
        let component = |conditions| json!({"metadata": {"name": "etcd-0"}, "conditions": conditions});
        let healthy = component(json!([{"type": "Healthy", "status": "True", "message": "ok"}]));
        assert_eq!(row(&ComponentStatuses, &healthy), "etcd-0 | Healthy | ok | ");
        let broken = component(json!([{"type": "Healthy", "status": "False", "error": "no answer"}]));
        assert_eq!(row(&ComponentStatuses, &broken), "etcd-0 | Unhealthy |  | no answer");
        assert_eq!(row(&ComponentStatuses, &component(json!([]))), "etcd-0 | Unknown |  | ");
    }
}
