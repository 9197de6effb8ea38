//! CSI drivers on a node, one object a node.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::storage::v1::{CSINode, CSINodeDriver};

use super::{
    blank::{drop_blank, list},
    cells, rules,
};
use crate::kind::{AGE, Column, NAME, Strategy, age};
use coracle_proto::{
    field::{Error, Errors, Path},
    resource::Resource,
};

/// The strategy of `csinodes.storage.k8s.io`.
#[derive(Clone, Copy, Debug, Default)]
pub struct CsiNodes;

const COLUMNS: &[Column] =
    &[NAME, cells::integer("Drivers", "Drivers indicates the number of CSI drivers registered on the node"), AGE];

/// The longest id that a driver has for a node.
const ID_LENGTH: usize = 256;

fn validate_driver(errors: &mut Errors, path: &Path, driver: &CSINodeDriver) {
    rules::csi_driver_name(errors, &path.child("name"), &driver.name);
    let at = path.child("nodeID");
    if driver.node_id.is_empty() {
        errors.push(Error::required(&at, ""));
    }
    if driver.node_id.len() > ID_LENGTH {
        let detail = format!("must be {ID_LENGTH} characters or less");
        errors.push(Error::invalid(&at, driver.node_id.as_str(), &detail));
    }
    if let Some(count) = driver.allocatable.as_ref().and_then(|allocatable| allocatable.count) {
        rules::not_negative(errors, &path.child("allocatable").child("count"), count.into());
    }
    let mut keys = BTreeSet::new();
    for key in list(&driver.topology_keys) {
        if key.is_empty() {
            errors.push(Error::required(path, ""));
        }
        if !keys.insert(key) {
            errors.push(Error::duplicate(path, key.as_str()));
        }
        rules::label_name(errors, path, key);
    }
}

impl Strategy for CsiNodes {
    type Object = CSINode;

    fn resource(&self) -> &'static Resource {
        super::row_of("storage.k8s.io", "csinodes")
    }

    fn default(&self, object: &mut CSINode) {
        for driver in &mut object.spec.drivers {
            drop_blank(&mut driver.topology_keys);
        }
    }

    fn validate(&self, object: &CSINode) -> Errors {
        let (mut errors, path) = (Errors::new(), Path::new("spec").child("drivers"));
        let mut names = BTreeSet::new();
        for (i, driver) in object.spec.drivers.iter().enumerate() {
            let at = path.index(i);
            validate_driver(&mut errors, &at, driver);
            if !names.insert(driver.name.as_str()) {
                errors.push(Error::duplicate(&at.child("name"), driver.name.as_str()));
            }
        }
        errors
    }

    /// Of a driver that stays only the number of volumes may change.
    fn validate_update(&self, new: &CSINode, old: &CSINode) -> Errors {
        let (mut errors, path) = (self.validate(new), Path::new("spec").child("drivers"));
        for before in &old.spec.drivers {
            for after in new.spec.drivers.iter().filter(|after| after.name == before.name) {
                let fixed = CSINodeDriver { allocatable: after.allocatable.clone(), ..before.clone() };
                rules::immutable(&mut errors, &path, after, &fixed);
            }
        }
        errors
    }

    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &CSINode, now: Timestamp) -> Vec<serde_json::Value> {
        vec![cells::name(&object.metadata), object.spec.drivers.len().into(), age(&object.metadata, now).into()]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kinds::testing::{faults, refusals, row};

    fn base() -> Value {
        json!({"metadata": {"name": "n"}, "spec": {"drivers": [{"name": "d.example.com", "nodeID": "1"}]}})
    }

    #[test]
    fn faults_are_named() {
        let driver = json!({"name": "a.b", "nodeID": "", "topologyKeys": ["k", "k", ""], "allocatable": {"count": -1}});
        let patches =
            [json!({"spec": {"drivers": [driver, {"name": "a.b", "nodeID": "1"}, {"name": "", "nodeID": "1"}]}})];
        let text = faults(&CsiNodes, &base(), &patches);
        for needle in [
            "spec.drivers[0].nodeID: Required value",
            "spec.drivers[0]: Duplicate value: \"k\"",
            "spec.drivers[0]: Required value",
            "spec.drivers[0].allocatable.count: Invalid value: -1",
            "spec.drivers[1].name: Duplicate value: \"a.b\"",
            "spec.drivers[2].name: Required value",
        ] {
            assert!(text.contains(needle), "{needle}\n{text}");
        }
    }

    #[test]
    fn a_driver_changes_its_capacity_alone() {
        let driver = |more: Value| json!({"spec": {"drivers": [crate::kinds::testing::merged(&json!({"name": "d.example.com", "nodeID": "1"}), &more)]}});
        let patches = [driver(json!({"allocatable": {"count": 3}})), driver(json!({"nodeID": "2"}))];
        assert_eq!(refusals(&CsiNodes, &base(), &patches).matches("field is immutable").count(), 1);
    }

    #[test]
    fn a_row_counts_drivers() {
        assert_eq!(row(&CsiNodes, &base()), "n | 1 | <unknown>");
    }
}
