//! ValidatingWebhookConfigurations: who is asked over HTTPS before an object is written.

use coracle_proto::{field::Errors, resource::Resource};
use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use serde_json::Value;

use super::{
    blank::{drop_blank, items_mut, list},
    webhooks::{self, Defaulted},
};
use crate::kind::{Column, Strategy};

/// The strategy of `validatingwebhookconfigurations.admissionregistration.k8s.io`.
#[derive(Clone, Copy, Debug, Default)]
pub struct ValidatingWebhookConfigurations;

impl Strategy for ValidatingWebhookConfigurations {
    type Object = ValidatingWebhookConfiguration;

    fn resource(&self) -> &'static Resource {
        super::row_of("admissionregistration.k8s.io", "validatingwebhookconfigurations")
    }

    fn default(&self, object: &mut ValidatingWebhookConfiguration) {
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
        }
    }

    fn validate(&self, object: &ValidatingWebhookConfiguration) -> Errors {
        let hooks: Vec<_> = list(&object.webhooks).iter().map(webhooks::widened).collect();
        webhooks::validate(hooks.iter())
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

    fn row(&self, object: &ValidatingWebhookConfiguration, now: Timestamp) -> Vec<Value> {
        webhooks::row(&object.metadata, list(&object.webhooks).len(), now)
    }
}

#[cfg(test)]
mod tests;
