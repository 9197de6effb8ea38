//! Volume attributes classes: what of a volume may be changed while it is in use.

use jiff::Timestamp;
use k8s_openapi::api::storage::v1::VolumeAttributesClass;

use super::{
    cells,
    storage_class::{validate_parameters, validate_provisioner},
};
use crate::kind::{AGE, Column, NAME, Strategy, age};
use coracle_proto::{
    field::{Error, Errors, Path},
    resource::Resource,
};

/// The strategy of `volumeattributesclasses.storage.k8s.io`.
#[derive(Clone, Copy, Debug, Default)]
pub struct VolumeAttributesClasses;

const COLUMNS: &[Column] = &[NAME, cells::column("DriverName", "Name of the CSI driver"), AGE];

impl Strategy for VolumeAttributesClasses {
    type Object = VolumeAttributesClass;

    fn resource(&self) -> &'static Resource {
        super::row_of("storage.k8s.io", "volumeattributesclasses")
    }

    fn validate(&self, object: &VolumeAttributesClass) -> Errors {
        let mut errors = Errors::new();
        validate_provisioner(&mut errors, &Path::new("driverName"), &object.driver_name);
        let path = Path::new("parameters");
        validate_parameters(&mut errors, &path, object.parameters.as_ref());
        if object.parameters.as_ref().is_none_or(|parameters| parameters.is_empty()) {
            errors.push(Error::required(&path, "must contain at least one key/value pair"));
        }
        errors
    }

    fn validate_update(&self, new: &VolumeAttributesClass, old: &VolumeAttributesClass) -> Errors {
        let mut errors = Errors::new();
        if new.driver_name != old.driver_name {
            errors.push(Error::forbidden(&Path::new("driverName"), "updates to driverName are forbidden."));
        }
        if new.parameters != old.parameters {
            errors.push(Error::forbidden(&Path::new("parameters"), "updates to parameters are forbidden."));
        }
        errors.extend(self.validate(new));
        errors
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &VolumeAttributesClass, now: Timestamp) -> Vec<serde_json::Value> {
        vec![cells::name(&object.metadata), object.driver_name.as_str().into(), age(&object.metadata, now).into()]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{faults, refusals, row};

    #[test]
    fn a_class_has_parameters_and_keeps_them() {
        let base = json!({"metadata": {"name": "v"}, "driverName": "d.example.com", "parameters": {"iops": "100"}});
        let text = faults(&VolumeAttributesClasses, &base, &[json!({"driverName": "", "parameters": null})]);
        assert!(text.contains("driverName: Required value"), "{text}");
        assert!(text.contains("parameters: Required value: must contain at least one key/value pair"), "{text}");
        let patches = [json!({"driverName": "x", "parameters": {"iops": "1"}})];
        let text = refusals(&VolumeAttributesClasses, &base, &patches);
        assert!(text.contains("driverName: Forbidden: updates to driverName are forbidden."), "{text}");
        assert!(text.contains("parameters: Forbidden: updates to parameters are forbidden."), "{text}");
        assert_eq!(row(&VolumeAttributesClasses, &base), "v | d.example.com | <unknown>");
    }
}
