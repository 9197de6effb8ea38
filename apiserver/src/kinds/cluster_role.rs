//! ClusterRoles: what may be done in any namespace, or in none.

use jiff::Timestamp;
use k8s_openapi::api::rbac::v1::ClusterRole;

use super::{
    blank::list,
    cells, label_selector,
    role::{RoleScope, drop_blanks, validate_rules},
};
use crate::kind::{Column, Strategy};
use coracle_proto::{
    field::{Error, Errors, Path},
    name::{NameRule, path_segment_rule},
    resource::Resource,
};

/// The strategy of `clusterroles.rbac.authorization.k8s.io`.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClusterRoles;

impl Strategy for ClusterRoles {
    type Object = ClusterRole;

    fn resource(&self) -> &'static Resource {
        super::row_of("rbac.authorization.k8s.io", "clusterroles")
    }

    fn name_rule(&self) -> NameRule {
        path_segment_rule
    }

    fn default(&self, object: &mut ClusterRole) {
        drop_blanks(&mut object.rules);
    }

    fn validate(&self, object: &ClusterRole) -> Errors {
        let mut errors = Errors::new();
        validate_rules(&mut errors, list(&object.rules), RoleScope::Cluster);
        if let Some(rule) = &object.aggregation_rule {
            let path = Path::new("aggregationRule").child("clusterRoleSelectors");
            let selectors = list(&rule.cluster_role_selectors);
            if selectors.is_empty() {
                let detail = "at least one clusterRoleSelector required if aggregationRule is non-nil";
                errors.push(Error::required(&path, detail));
            }
            for (i, selector) in selectors.iter().enumerate() {
                label_selector::validate(&mut errors, &path.index(i), selector);
            }
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        cells::CREATED_AT
    }

    fn row(&self, object: &ClusterRole, _: Timestamp) -> Vec<serde_json::Value> {
        cells::created_at(&object.metadata)
    }
}
