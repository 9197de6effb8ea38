//! Device classes: devices of a sort, by an administrator's choice.

use k8s_openapi::api::resource::v1::DeviceClass;

use super::{blank::list, devices, rules};
use crate::kind::Strategy;
use coracle_proto::{
    field::{Errors, Path},
    resource::Resource,
};

/// The strategy of `deviceclasses.resource.k8s.io`.
#[derive(Clone, Copy, Debug, Default)]
pub struct DeviceClasses;

impl Strategy for DeviceClasses {
    type Object = DeviceClass;

    fn resource(&self) -> &'static Resource {
        super::row_of("resource.k8s.io", "deviceclasses")
    }

    fn validate(&self, object: &DeviceClass) -> Errors {
        let (mut errors, path) = (Errors::new(), Path::new("spec"));
        devices::validate_selectors(&mut errors, &path.child("selectors"), list(&object.spec.selectors));
        let (at, configs) = (path.child("config"), list(&object.spec.config));
        if devices::bounded(&mut errors, &at, configs, devices::MAX_CONFIGS) {
            for (i, config) in configs.iter().enumerate() {
                devices::validate_opaque(&mut errors, &at.index(i), config.opaque.as_ref());
            }
        }
        if let Some(resource) = &object.spec.extended_resource_name {
            rules::label_name(&mut errors, &path.child("extendedResourceName"), resource);
        }
        errors
    }

    fn counts_generations(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{faults, row};

    #[test]
    fn faults_are_named() {
        let base = json!({"metadata": {"name": "gpu"}, "spec": {"selectors": [{"cel": {"expression": "true"}}]}});
        let patches = [
            json!({"spec": {"selectors": [{}, {"cel": {"expression": "x".repeat(11_000)}}]}}),
            json!({"spec": {"selectors": [{"cel": {"expression": ""}}, {"cel": {"expression": "device.drivr == 'x'"}}]}}),
            json!({"spec": {"selectors": [{"cel": {"expression": "device.driver"}}, {"cel": {"expression": "never"}}]}}),
            json!({"spec": {"config": [{}, {"opaque": {"driver": "", "parameters": 1}}]}}),
            json!({"spec": {"extendedResourceName": "a b"}}),
        ];
        let text = faults(&DeviceClasses, &base, &patches);
        for needle in [
            "spec.selectors[0].cel: Required value",
            "spec.selectors[1].cel.expression: Too long: may not be more than 10240 bytes",
            "spec.selectors[0].cel.expression: Invalid value: \"\": compilation failed: ERROR: <input>:1:",
            "<input>:1:7: undefined field 'drivr'",
            "\"device.driver\": must evaluate to bool or the unknown type, not string",
            "<input>:1:1: undeclared reference to 'never' (in container '')",
            "spec.config[0].opaque: Required value",
            "spec.config[1].opaque.driver: Required value",
            "spec.config[1].opaque.parameters: Invalid value: \"<value omitted>\": must be a valid JSON object",
            "spec.extendedResourceName: Invalid value: \"a b\"",
        ] {
            assert!(text.contains(needle), "{needle}");
        }
        for fine in [
            "device.driver == 'gpu.example.com' && device.attributes['gpu.example.com'].model == 'a100'",
            "device.capacity['gpu.example.com'].memory.compareTo(quantity('1Gi')) >= 0",
            "cel.bind(gpu, device.attributes['gpu.example.com'], gpu.isFast && gpu.count > 3)",
            "device.attributes['gpu.example.com'].isFast",
            "device.allowMultipleAllocations",
        ] {
            let patch = json!({"spec": {"selectors": [{"cel": {"expression": fine}}]}});
            let told = faults(&DeviceClasses, &base, &[patch]);
            assert_eq!(told.lines().count(), 1, "{told}");
        }
        assert_eq!(row(&DeviceClasses, &base), "gpu | <unknown>");
    }
}
