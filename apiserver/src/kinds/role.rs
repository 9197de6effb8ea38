//! Roles: what may be done.

use jiff::Timestamp;
use k8s_openapi::{api::rbac::v1::Role, apimachinery::pkg::apis::meta::v1::ObjectMeta};

use super::cells;
use crate::kind::{Column, NAME, Strategy};
use coracle_proto::resource::Resource;

/// The strategy of `roles.rbac.authorization.k8s.io`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Roles;

/// Roles have no printer of their own in Kubernetes and show the generic table: name and time of creation.
pub(super) const CREATED_AT: &[Column] =
    &[NAME, Column { kind: "date", ..cells::column("Created At", crate::kind::AGE.description) }];

/// The row under [`CREATED_AT`].
pub(super) fn created_at(meta: &ObjectMeta) -> Vec<serde_json::Value> {
    let time = meta.creation_timestamp.as_ref().map(|time| time.0.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    vec![cells::name(meta), time.into()]
}

impl Strategy for Roles {
    type Object = Role;

    fn resource(&self) -> &'static Resource {
        super::row_of("rbac.authorization.k8s.io", "roles")
    }

    fn columns(&self) -> &'static [Column] {
        CREATED_AT
    }

    fn row(&self, object: &Role, _: Timestamp) -> Vec<serde_json::Value> {
        created_at(&object.metadata)
    }
}
