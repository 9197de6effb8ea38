//! Leases: who holds what, and since when; nodes say with them that they live.

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;

use super::{blank::text, cells, rules};
use crate::kind::{AGE, Column, NAME, Strategy, age};
use coracle_proto::{
    field::{Error, Errors, Path},
    name,
    resource::Resource,
};

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

    fn validate(&self, object: &Lease) -> Errors {
        let (mut errors, path) = (Errors::new(), Path::new("spec"));
        let spec = object.spec.clone().unwrap_or_default();
        if let Some(seconds) = spec.lease_duration_seconds {
            rules::positive(&mut errors, &path.child("leaseDurationSeconds"), seconds.into());
        }
        if let Some(count) = spec.lease_transitions {
            rules::not_negative(&mut errors, &path.child("leaseTransitions"), count.into());
        }
        if let Some(strategy) = &spec.strategy {
            let at = path.child("strategy").child("strategy");
            if strategy.contains('/') {
                rules::messages(&mut errors, &at, strategy, name::qualified_name(strategy));
            } else {
                rules::known_word(&mut errors, &at, strategy, &["OldestEmulationVersion"]);
            }
        }
        if !text(&spec.preferred_holder).is_empty() && text(&spec.strategy).is_empty() {
            let detail = "may only be specified if `strategy` is defined";
            errors.push(Error::forbidden(&path.child("preferredHolder"), detail));
        }
        errors
    }

    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Lease, now: Timestamp) -> Vec<serde_json::Value> {
        let holder = object.spec.as_ref().and_then(|s| s.holder_identity.as_deref()).unwrap_or_default();
        vec![cells::name(&object.metadata), holder.into(), age(&object.metadata, now).into()]
    }
}

#[cfg(test)]
mod tests;
