//! How much storage of a class there still is, by where it can be reached from.

use jiff::Timestamp;
use k8s_openapi::api::storage::v1::CSIStorageCapacity;

use super::{cells, label_selector, resources, rules};
use crate::kind::{Column, NAME, Strategy};
use coracle_proto::{
    field::{Error, Errors, Path},
    name,
    resource::Resource,
};

/// The strategy of `csistoragecapacities.storage.k8s.io`.
#[derive(Clone, Copy, Debug, Default)]
pub struct CsiStorageCapacities;

const COLUMNS: &[Column] = &[
    NAME,
    cells::column("StorageClassName", "The name of the StorageClass that the reported capacity applies to."),
    cells::column("Capacity", "The value reported by the CSI driver for a topology and class."),
];

impl Strategy for CsiStorageCapacities {
    type Object = CSIStorageCapacity;

    fn resource(&self) -> &'static Resource {
        super::row_of("storage.k8s.io", "csistoragecapacities")
    }

    fn default(&self, object: &mut CSIStorageCapacity) {
        for quantity in [&mut object.capacity, &mut object.maximum_volume_size].into_iter().flatten() {
            resources::canonical_quantity(quantity);
        }
    }

    fn validate(&self, object: &CSIStorageCapacity) -> Errors {
        let mut errors = Errors::new();
        if let Some(selector) = &object.node_topology {
            label_selector::validate(&mut errors, &Path::new("nodeTopology"), selector);
        }
        let class = object.storage_class_name.as_str();
        rules::messages(&mut errors, &Path::new("storageClassName"), class, name::dns1123_subdomain(class));
        for (field, quantity) in [("capacity", &object.capacity), ("maximumVolumeSize", &object.maximum_volume_size)] {
            if let Some(quantity) = quantity {
                resources::validate_amount(&mut errors, &Path::new(field), "", quantity);
            }
        }
        errors
    }

    fn validate_update(&self, new: &CSIStorageCapacity, old: &CSIStorageCapacity) -> Errors {
        let mut errors = self.validate(new);
        if new.node_topology != old.node_topology {
            errors.push(Error::immutable(&Path::new("nodeTopology"), rules::json(&new.node_topology)));
        }
        let at = Path::new("storageClassName");
        rules::immutable(&mut errors, &at, &new.storage_class_name, &old.storage_class_name);
        errors
    }

    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &CSIStorageCapacity, _: Timestamp) -> Vec<serde_json::Value> {
        let capacity = object.capacity.as_ref().map_or("<unset>", |quantity| quantity.0.as_str());
        vec![cells::name(&object.metadata), object.storage_class_name.as_str().into(), capacity.into()]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{faults, refusals, row};

    #[test]
    fn the_capacity_alone_changes() {
        let base = json!({"metadata": {"name": "c", "namespace": "default"}, "storageClassName": "fast", "capacity": "1024Mi"});
        let text = faults(&CsiStorageCapacities, &base, &[json!({"storageClassName": "_", "capacity": "-1"})]);
        assert!(text.contains("storageClassName: Invalid value: \"_\""), "{text}");
        assert!(text.contains("capacity: Invalid value: \"-1\": must be greater than or equal to 0"), "{text}");
        let patches = [json!({"capacity": "2Gi"}), json!({"storageClassName": "slow", "nodeTopology": {}})];
        assert_eq!(refusals(&CsiStorageCapacities, &base, &patches).matches("field is immutable").count(), 2);
        assert_eq!(row(&CsiStorageCapacities, &base), "c | fast | 1024Mi");
    }
}
