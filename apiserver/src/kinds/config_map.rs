//! ConfigMaps: configuration as keys and values.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;

use super::{blank::drop_blank, cells, rules};
use crate::kind::{AGE, Column, NAME, Strategy, age};
use coracle_proto::{
    field::{Error, Errors, Path},
    name,
    resource::Resource,
};

/// The strategy of `configmaps`.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConfigMaps;

const COLUMNS: &[Column] = &[NAME, cells::integer("Data", "Data contains the configuration data, a value a key."), AGE];

impl Strategy for ConfigMaps {
    type Object = ConfigMap;

    fn resource(&self) -> &'static Resource {
        super::row_of("", "configmaps")
    }

    fn default(&self, object: &mut ConfigMap) {
        drop_blank(&mut object.data);
        drop_blank(&mut object.binary_data);
    }

    fn validate(&self, object: &ConfigMap) -> Errors {
        let mut errors = Errors::new();
        let mut size = 0;
        for (key, value) in object.data.iter().flatten() {
            let at = Path::new("data").key(key);
            rules::messages(&mut errors, &at, key, name::config_map_key(key));
            if object.binary_data.as_ref().is_some_and(|data| data.contains_key(key)) {
                errors.push(Error::invalid(&at, key.as_str(), "duplicate of key present in binaryData"));
            }
            size += value.len();
        }
        for (key, value) in object.binary_data.iter().flatten() {
            rules::messages(&mut errors, &Path::new("binaryData").key(key), key, name::config_map_key(key));
            size += value.0.len();
        }
        if size > super::secret::SIZE {
            errors.push(Error::too_long(&Path::default(), super::secret::SIZE));
        }
        errors
    }

    fn validate_update(&self, new: &ConfigMap, old: &ConfigMap) -> Errors {
        let mut errors = Errors::new();
        if old.immutable == Some(true) {
            for (field, is_changed) in [
                ("immutable", new.immutable != Some(true)),
                ("data", new.data != old.data),
                ("binaryData", new.binary_data != old.binary_data),
            ] {
                if is_changed {
                    errors.push(Error::forbidden(&Path::new(field), super::secret::SEALED));
                }
            }
        }
        errors.extend(self.validate(new));
        errors
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &ConfigMap, now: Timestamp) -> Vec<serde_json::Value> {
        let keys = object.data.as_ref().map_or(0, |d| d.len()) + object.binary_data.as_ref().map_or(0, |d| d.len());
        vec![cells::name(&object.metadata), keys.into(), age(&object.metadata, now).into()]
    }
}

#[cfg(test)]
mod tests;
