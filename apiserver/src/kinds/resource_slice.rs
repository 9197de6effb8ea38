//! Resource slices: devices that a driver has, a part of a pool each.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::{
    api::resource::v1::{Device, DeviceAttribute, ResourceSlice},
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::Time},
};

use super::{
    blank::{items_mut, list, text},
    cells, devices, resources, rules,
};
use crate::kind::{AGE, Column, Context, NAME, Strategy, age};
use coracle_proto::{
    field::{Error, Errors, Path},
    name,
    resource::Resource,
};

/// The strategy of `resourceslices.resource.k8s.io`.
#[derive(Clone, Copy, Debug, Default)]
pub struct ResourceSlices;

const COLUMNS: &[Column] = &[
    NAME,
    cells::column("Node", "NodeName identifies the node which provides the resources in this pool."),
    cells::column("Driver", "Driver identifies the DRA driver providing the capacity information."),
    cells::column("Pool", "Name is used to identify the pool."),
    AGE,
];

const MAX_DEVICES: usize = 128;
const MAX_COUNTER_SETS: usize = 8;
const MAX_ATTRIBUTES: usize = 32;
const ATTRIBUTE_LENGTH: usize = 64;

fn validate_attribute(errors: &mut Errors, path: &Path, attribute: &DeviceAttribute) {
    let set = [
        attribute.int.is_some(),
        attribute.bool.is_some(),
        attribute.string.is_some(),
        attribute.version.is_some(),
        attribute.ints.is_some(),
        attribute.bools.is_some(),
        attribute.strings.is_some(),
        attribute.versions.is_some(),
    ];
    match set.into_iter().filter(|is_set| *is_set).count() {
        0 => errors.push(Error::required(path, "exactly one value must be specified")),
        1 => {}
        _ => errors.push(Error::invalid(path, rules::json(attribute), "exactly one value must be specified")),
    }
    for (field, value) in [("string", &attribute.string), ("version", &attribute.version)] {
        if value.as_ref().is_some_and(|value| value.len() > ATTRIBUTE_LENGTH) {
            errors.push(Error::too_long(&path.child(field), ATTRIBUTE_LENGTH));
        }
    }
}

/// The name of an attribute or capacity, with or without a domain.
fn validate_qualified(errors: &mut Errors, path: &Path, given: &str) {
    let identifier = match given.split_once('/') {
        Some((domain, identifier)) => {
            rules::csi_driver_name(errors, path, domain);
            identifier
        }
        None => given,
    };
    if identifier.is_empty() {
        errors.push(Error::required(path, "name required"));
    } else {
        rules::messages(errors, path, identifier, name::c_identifier(identifier));
    }
}

fn validate_device(errors: &mut Errors, path: &Path, device: &Device, per_device: bool) {
    rules::required_label(errors, &path.child("name"), &device.name);
    let count = device.attributes.as_ref().map_or(0, |a| a.len()) + device.capacity.as_ref().map_or(0, |c| c.len());
    if count > MAX_ATTRIBUTES {
        let detail = format!("the total number of attributes and capacities must not exceed {MAX_ATTRIBUTES}");
        errors.push(Error::invalid(path, count, &detail));
    }
    for (name, attribute) in device.attributes.iter().flatten() {
        let at = path.child("attributes").key(name);
        validate_qualified(errors, &at, name);
        validate_attribute(errors, &at, attribute);
    }
    for (name, capacity) in device.capacity.iter().flatten() {
        let at = path.child("capacity").key(name);
        validate_qualified(errors, &at, name);
        resources::validate_amount(errors, &at.child("value"), "", &capacity.value);
    }
    for (i, taint) in list(&device.taints).iter().enumerate() {
        let at = path.child("taints").index(i);
        rules::label_name(errors, &at.child("key"), &taint.key);
        let value = text(&taint.value);
        rules::messages(errors, &at.child("value"), value, name::label_value(value));
        rules::one_of(errors, &at.child("effect"), &taint.effect, &["NoExecute", "NoSchedule", "None"]);
    }
    let set = [device.node_name.is_some(), device.node_selector.is_some(), device.all_nodes.is_some()];
    let set = set.into_iter().filter(|is_set| *is_set).count();
    if per_device && set != 1 {
        let detail = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when \
                      `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
        errors.push(Error::required(path, detail));
    }
    if !per_device && set != 0 {
        for (field, is_set) in [
            ("nodeName", device.node_name.is_some()),
            ("nodeSelector", device.node_selector.is_some()),
            ("allNodes", device.all_nodes.is_some()),
        ] {
            if is_set {
                let detail = format!("`{field}` is only allowed when `perDeviceNodeSelection` is set to true");
                errors.push(Error::invalid(&path.child(field), serde_json::Value::Null, &detail));
            }
        }
    }
}

impl Strategy for ResourceSlices {
    type Object = ResourceSlice;

    fn resource(&self) -> &'static Resource {
        super::row_of("resource.k8s.io", "resourceslices")
    }

    fn default(&self, object: &mut ResourceSlice) {
        for device in items_mut(&mut object.spec.devices) {
            for mapping in device.node_allocatable_resource_mappings.iter_mut().flat_map(|m| m.values_mut()) {
                mapping.allocation_multiplier.get_or_insert_with(|| Quantity("1".to_owned()));
            }
        }
    }

    fn prepare_create(&self, object: &mut ResourceSlice, context: &Context<'_>) {
        stamp(object, context.now);
    }

    fn prepare_update(&self, new: &mut ResourceSlice, _: &ResourceSlice, context: &Context<'_>) {
        stamp(new, context.now);
    }

    fn validate(&self, object: &ResourceSlice) -> Errors {
        let (mut errors, path, spec) = (Errors::new(), Path::new("spec"), &object.spec);
        rules::csi_driver_name(&mut errors, &path.child("driver"), &spec.driver);
        let pool = path.child("pool");
        rules::pool_name(&mut errors, &pool.child("name"), &spec.pool.name);
        if spec.pool.resource_slice_count <= 0 {
            let at = pool.child("resourceSliceCount");
            errors.push(Error::invalid(&at, spec.pool.resource_slice_count, "must be greater than zero"));
        }
        if spec.pool.generation < 0 {
            let at = pool.child("generation");
            errors.push(Error::invalid(&at, spec.pool.generation, "must be greater than or equal to zero"));
        }
        let ways = [
            spec.node_name.as_ref().is_some_and(|node| !node.is_empty()),
            spec.node_selector.is_some(),
            spec.all_nodes == Some(true),
            spec.per_device_node_selection == Some(true),
        ];
        let one = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
        match ways.into_iter().filter(|is_set| *is_set).count() {
            0 if list(&spec.shared_counters).is_empty() => errors.push(Error::required(&path, one)),
            0 | 1 => {}
            _ => {
                let detail = format!("{one}, but multiple fields are set");
                errors.push(Error::invalid(&path, serde_json::Value::Null, &detail));
            }
        }
        if let Some(node) = &spec.node_name {
            rules::messages(&mut errors, &path.child("nodeName"), node, name::dns1123_subdomain(node));
        }
        let (at, given) = (path.child("devices"), list(&spec.devices));
        if devices::bounded(&mut errors, &at, given, MAX_DEVICES) {
            let mut names = BTreeSet::new();
            for (i, device) in given.iter().enumerate() {
                if !names.insert(device.name.as_str()) {
                    errors.push(Error::duplicate(&at.index(i).child("name"), device.name.as_str()));
                }
                validate_device(&mut errors, &at.index(i), device, spec.per_device_node_selection == Some(true));
            }
        }
        let (at, counters) = (path.child("sharedCounters"), list(&spec.shared_counters));
        if devices::bounded(&mut errors, &at, counters, MAX_COUNTER_SETS) {
            for (i, set) in counters.iter().enumerate() {
                rules::required_label(&mut errors, &at.index(i).child("name"), &set.name);
                if set.counters.is_empty() {
                    errors.push(Error::required(&at.index(i).child("counters"), ""));
                }
            }
        }
        errors
    }

    fn validate_update(&self, new: &ResourceSlice, old: &ResourceSlice) -> Errors {
        let (mut errors, path) = (self.validate(new), Path::new("spec"));
        let (new, old) = (&new.spec, &old.spec);
        rules::immutable(&mut errors, &path.child("driver"), &new.driver, &old.driver);
        rules::immutable(&mut errors, &path.child("pool").child("name"), &new.pool.name, &old.pool.name);
        rules::immutable(&mut errors, &path.child("nodeName"), &new.node_name, &old.node_name);
        errors
    }

    fn counts_generations(&self) -> bool {
        true
    }

    fn fields(&self, object: &ResourceSlice) -> Vec<(&'static str, String)> {
        let spec = &object.spec;
        vec![("spec.nodeName", text(&spec.node_name).to_owned()), ("spec.driver", spec.driver.clone())]
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &ResourceSlice, now: Timestamp) -> Vec<serde_json::Value> {
        let spec = &object.spec;
        vec![
            cells::name(&object.metadata),
            text(&spec.node_name).into(),
            spec.driver.as_str().into(),
            spec.pool.name.as_str().into(),
            age(&object.metadata, now).into(),
        ]
    }
}

/// Taints say since when.
fn stamp(object: &mut ResourceSlice, now: Timestamp) {
    for taint in items_mut(&mut object.spec.devices).iter_mut().flat_map(|device| items_mut(&mut device.taints)) {
        taint.time_added.get_or_insert(Time(now));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kinds::testing::{faults, refusals, row};

    fn base() -> Value {
        let pool = json!({"name": "p", "generation": 1, "resourceSliceCount": 1});
        json!({"metadata": {"name": "s"}, "spec": {"driver": "d.example.com", "pool": pool, "nodeName": "n", "devices": [{"name": "gpu-0"}]}})
    }

    #[test]
    fn faults_are_named() {
        let device = |device: Value| json!({"spec": {"devices": [device]}});
        let patches = [
            json!({"spec": {"driver": "", "pool": {"name": "", "generation": -1, "resourceSliceCount": 0}}}),
            json!({"spec": {"nodeName": null}}),
            json!({"spec": {"allNodes": true}}),
            json!({"spec": {"devices": [{"name": "a"}, {"name": "a"}]}}),
            device(json!({"name": "A", "nodeName": "n"})),
            device(
                json!({"name": "a", "attributes": {"x y": {}, "b": {"int": 1, "bool": true}}, "capacity": {"c": {"value": "-1"}}}),
            ),
            device(json!({"name": "a", "taints": [{"key": "k", "effect": "Sometimes"}]})),
            json!({"spec": {"nodeName": null, "perDeviceNodeSelection": true}}),
        ];
        let text = faults(&ResourceSlices, &base(), &patches);
        for needle in [
            "spec.driver: Required value",
            "spec.pool.name: Required value",
            "spec.pool.resourceSliceCount: Invalid value: 0: must be greater than zero",
            "spec.pool.generation: Invalid value: -1: must be greater than or equal to zero",
            "spec: Required value: exactly one of `nodeName`",
            "but multiple fields are set",
            "spec.devices[1].name: Duplicate value: \"a\"",
            "spec.devices[0].name: Invalid value: \"A\"",
            "spec.devices[0].nodeName: Invalid value: null: `nodeName` is only allowed when",
            "spec.devices[0].attributes[x y]: Required value: exactly one value must be specified",
            "spec.devices[0].attributes[b]: Invalid value:",
            "spec.devices[0].capacity[c].value: Invalid value: \"-1\": must be greater than or equal to 0",
            "spec.devices[0].taints[0].effect: Unsupported value: \"Sometimes\"",
            "spec.devices[0]: Required value: exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required",
        ] {
            assert!(text.contains(needle), "{needle}\n{text}");
        }
    }

    #[test]
    fn driver_pool_and_node_stay() {
        let patch = json!({"spec": {"driver": "e.example.com", "pool": {"name": "q"}, "nodeName": "m"}});
        assert_eq!(refusals(&ResourceSlices, &base(), &[patch]).matches("field is immutable").count(), 3);
        assert_eq!(row(&ResourceSlices, &base()), "s | n | d.example.com | p | <unknown>");
    }
}
