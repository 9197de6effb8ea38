//! Resource claim templates: claims to be made for each pod of its own.

use k8s_openapi::api::resource::v1::ResourceClaimTemplate;

use super::{devices, rules};
use crate::kind::Strategy;
use coracle_proto::{
    field::{Errors, Path},
    resource::Resource,
};

/// The strategy of `resourceclaimtemplates.resource.k8s.io`.
#[derive(Clone, Copy, Debug, Default)]
pub struct ResourceClaimTemplates;

impl Strategy for ResourceClaimTemplates {
    type Object = ResourceClaimTemplate;

    fn resource(&self) -> &'static Resource {
        super::row_of("resource.k8s.io", "resourceclaimtemplates")
    }

    fn default(&self, object: &mut ResourceClaimTemplate) {
        // Both are written out even when there is nothing in them.
        object.spec.metadata.get_or_insert_default();
        devices::default_claim(object.spec.spec.devices.get_or_insert_default());
    }

    fn validate(&self, object: &ResourceClaimTemplate) -> Errors {
        let (mut errors, path) = (Errors::new(), Path::new("spec"));
        if let Some(meta) = &object.spec.metadata {
            let at = path.child("metadata");
            rules::labels(&mut errors, &at.child("labels"), meta.labels.as_ref());
            rules::annotations(&mut errors, &at.child("annotations"), meta.annotations.as_ref());
        }
        let claim = object.spec.spec.devices.clone().unwrap_or_default();
        devices::validate_claim(&mut errors, &path.child("spec").child("devices"), &claim);
        errors
    }

    fn validate_update(&self, new: &ResourceClaimTemplate, old: &ResourceClaimTemplate) -> Errors {
        let mut errors = Errors::new();
        rules::immutable(&mut errors, &Path::new("spec"), &new.spec, &old.spec);
        errors
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{faults, refusals};

    #[test]
    fn a_template_is_a_claim_and_stays() {
        let request = json!({"name": "a", "exactly": {"deviceClassName": "gpu"}});
        let base = json!({"metadata": {"name": "t"}, "spec": {"spec": {"devices": {"requests": [request]}}}});
        let patch =
            json!({"spec": {"metadata": {"labels": {"a b": ""}}, "spec": {"devices": {"requests": [{"name": "a"}]}}}});
        let text = faults(&ResourceClaimTemplates, &base, std::slice::from_ref(&patch));
        assert!(text.contains("spec.metadata.labels: Invalid value: \"a b\""), "{text}");
        assert!(text.contains("spec.spec.devices.requests[0]: Required value"), "{text}");
        assert!(refusals(&ResourceClaimTemplates, &base, &[patch]).contains("field is immutable"));
    }
}
