//! MutatingWebhookConfigurations: who is asked over HTTPS before an object is written.

use coracle_proto::{field::Errors, resource::Resource};
use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use serde_json::Value;

use super::{
    blank::{drop_blank, items_mut, list},
    webhooks::{self, Defaulted},
};
use crate::kind::{Column, Strategy};

/// The strategy of `mutatingwebhookconfigurations.admissionregistration.k8s.io`.
#[derive(Clone, Copy, Debug, Default)]
pub struct MutatingWebhookConfigurations;

impl Strategy for MutatingWebhookConfigurations {
    type Object = MutatingWebhookConfiguration;

    fn resource(&self) -> &'static Resource {
        super::row_of("admissionregistration.k8s.io", "mutatingwebhookconfigurations")
    }

    fn default(&self, object: &mut MutatingWebhookConfiguration) {
        drop_blank(&mut object.webhooks);
        for hook in items_mut(&mut object.webhooks) {
            Defaulted {
                client_config: &mut hook.client_config,
                failure_policy: &mut hook.failure_policy,
                match_policy: &mut hook.match_policy,
                namespace_selector: &mut hook.namespace_selector,
                object_selector: &mut hook.object_selector,
                rules: &mut hook.rules,
                timeout_seconds: &mut hook.timeout_seconds,
            }
            .fill();
            drop_blank(&mut hook.match_conditions);
            hook.reinvocation_policy.get_or_insert_with(|| "Never".to_owned());
        }
    }

    fn validate(&self, object: &MutatingWebhookConfiguration) -> Errors {
        webhooks::validate(list(&object.webhooks).iter())
    }

    fn counts_generations(&self) -> bool {
        true
    }

    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        webhooks::COLUMNS
    }

    fn row(&self, object: &MutatingWebhookConfiguration, now: Timestamp) -> Vec<Value> {
        webhooks::row(&object.metadata, list(&object.webhooks).len(), now)
    }
}

#[cfg(test)]
mod tests;
