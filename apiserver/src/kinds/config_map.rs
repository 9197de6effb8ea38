//! ConfigMaps: configuration as keys and values.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;

use super::{blank::drop_blank, cells};
use crate::kind::{AGE, Column, NAME, Strategy, age};
use coracle_proto::resource::Resource;

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

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &ConfigMap, now: Timestamp) -> Vec<serde_json::Value> {
        let keys = object.data.as_ref().map_or(0, |d| d.len()) + object.binary_data.as_ref().map_or(0, |d| d.len());
        vec![cells::name(&object.metadata), keys.into(), age(&object.metadata, now).into()]
    }
}
