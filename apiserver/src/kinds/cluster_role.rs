//! ClusterRoles: what may be done in any namespace, or in none.

use jiff::Timestamp;
use k8s_openapi::api::rbac::v1::ClusterRole;

use super::role::{CREATED_AT, created_at};
use crate::kind::{Column, Strategy};
use coracle_proto::resource::Resource;

/// The strategy of `clusterroles.rbac.authorization.k8s.io`.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClusterRoles;

impl Strategy for ClusterRoles {
    type Object = ClusterRole;

    fn resource(&self) -> &'static Resource {
        super::row_of("rbac.authorization.k8s.io", "clusterroles")
    }

    fn columns(&self) -> &'static [Column] {
        CREATED_AT
    }

    fn row(&self, object: &ClusterRole, _: Timestamp) -> Vec<serde_json::Value> {
        created_at(&object.metadata)
    }
}
