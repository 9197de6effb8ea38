//! Leases: who holds what, and since when; nodes say with them that they live.

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;

use super::cells;
use crate::kind::{AGE, Column, NAME, Strategy, age};
use coracle_proto::resource::Resource;

/// The strategy of `leases.coordination.k8s.io`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Leases;

const COLUMNS: &[Column] = &[NAME, cells::column("Holder", "The identity of the current holder of the lease."), AGE];

impl Strategy for Leases {
    type Object = Lease;

    fn resource(&self) -> &'static Resource {
        super::row_of("coordination.k8s.io", "leases")
    }

    fn default(&self, object: &mut Lease) {
        object.spec.get_or_insert_default();
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Lease, now: Timestamp) -> Vec<serde_json::Value> {
        let holder = object.spec.as_ref().and_then(|s| s.holder_identity.as_deref()).unwrap_or_default();
        vec![cells::name(&object.metadata), holder.into(), age(&object.metadata, now).into()]
    }
}
