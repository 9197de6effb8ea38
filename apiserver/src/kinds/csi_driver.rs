//! CSI drivers that are installed, and what they want of the cluster.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::storage::v1::{CSIDriver, TokenRequest};

use super::{
    blank::{drop_blank, fill, list},
    cells, rules,
};
use crate::kind::{AGE, Column, NAME, Strategy, age};
use coracle_proto::{
    field::{Error, Errors, Path},
    resource::Resource,
};

/// The strategy of `csidrivers.storage.k8s.io`.
#[derive(Clone, Copy, Debug, Default)]
pub struct CsiDrivers;

const COLUMNS: &[Column] = &[
    NAME,
    cells::boolean("AttachRequired", "Whether volumes are attached to a node before they are mounted."),
    cells::boolean("PodInfoOnMount", "Whether the driver is told of the pod when it mounts."),
    cells::boolean("StorageCapacity", "Whether the driver tells how much it can still provide where."),
    cells::column("TokenRequests", "Audiences of the service account tokens that the driver gets."),
    cells::boolean("RequiresRepublish", "Whether the driver is called again and again to renew a mount."),
    cells::column("Modes", "Kinds of volumes that the driver has."),
    AGE,
];

fn validate_tokens(errors: &mut Errors, path: &Path, tokens: &[TokenRequest]) {
    let mut audiences = BTreeSet::new();
    for (i, token) in tokens.iter().enumerate() {
        let at = path.index(i);
        if !audiences.insert(token.audience.as_str()) {
            errors.push(Error::duplicate(&at.child("audience"), token.audience.as_str()));
            continue;
        }
        let Some(seconds) = token.expiration_seconds else { continue };
        let at = at.child("expirationSeconds");
        if seconds < 600 {
            errors.push(Error::invalid(&at, seconds, "may not specify a duration less than 10 minutes"));
        }
        if seconds > 1 << 32 {
            errors.push(Error::invalid(&at, seconds, "may not specify a duration larger than 2^32 seconds"));
        }
    }
}

impl Strategy for CsiDrivers {
    type Object = CSIDriver;

    fn resource(&self) -> &'static Resource {
        super::row_of("storage.k8s.io", "csidrivers")
    }

    fn default(&self, object: &mut CSIDriver) {
        let spec = &mut object.spec;
        fill(&mut spec.attach_required, true);
        fill(&mut spec.pod_info_on_mount, false);
        fill(&mut spec.storage_capacity, false);
        fill(&mut spec.fs_group_policy, "ReadWriteOnceWithFSType".to_owned());
        fill(&mut spec.requires_republish, false);
        fill(&mut spec.se_linux_mount, false);
        drop_blank(&mut spec.token_requests);
        // Behind a feature that Kubernetes 1.36 has off by default (VolumeLimitScaling).
        spec.prevent_pod_scheduling_if_missing = None;
        if list(&spec.volume_lifecycle_modes).is_empty() {
            spec.volume_lifecycle_modes = Some(vec!["Persistent".to_owned()]);
        }
    }

    fn validate(&self, object: &CSIDriver) -> Errors {
        let (mut errors, path, spec) = (Errors::new(), Path::new("spec"), &object.spec);
        if let Some(policy) = &spec.fs_group_policy {
            let known = &["File", "None", "ReadWriteOnceWithFSType"];
            rules::known_word(&mut errors, &path.child("fsGroupPolicy"), policy, known);
        }
        let tokens = list(&spec.token_requests);
        validate_tokens(&mut errors, &path.child("tokenRequests"), tokens);
        for mode in list(&spec.volume_lifecycle_modes) {
            let at = path.child("volumeLifecycleModes");
            rules::known_word(&mut errors, &at, mode, &["Persistent", "Ephemeral"]);
        }
        if let Some(seconds) = spec.node_allocatable_update_period_seconds.filter(|seconds| *seconds < 10) {
            let at = path.child("nodeAllocatableUpdatePeriodSeconds");
            errors.push(Error::invalid(&at, seconds, "must be greater than or equal to 10 seconds"));
        }
        if let (Some(given), true) = (spec.service_account_token_in_secrets, tokens.is_empty()) {
            let at = path.child("serviceAccountTokenInSecrets");
            let detail = "serviceAccountTokenInSecrets is set but no tokenRequests are specified";
            errors.push(Error::invalid(&at, given, detail));
        }
        errors
    }

    fn validate_update(&self, new: &CSIDriver, old: &CSIDriver) -> Errors {
        let (mut errors, path) = (self.validate(new), Path::new("spec"));
        let (new, old) = (&new.spec, &old.spec);
        let at = path.child("attachedRequired");
        rules::immutable(&mut errors, &at, &new.attach_required, &old.attach_required);
        let at = path.child("volumeLifecycleModes");
        rules::immutable(&mut errors, &at, &new.volume_lifecycle_modes, &old.volume_lifecycle_modes);
        errors
    }

    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &CSIDriver, now: Timestamp) -> Vec<serde_json::Value> {
        let spec = &object.spec;
        let audiences = spec.token_requests.as_ref().map_or_else(
            || "<unset>".to_owned(),
            |tokens| tokens.iter().map(|token| token.audience.as_str()).collect::<Vec<_>>().join(","),
        );
        vec![
            cells::name(&object.metadata),
            spec.attach_required.unwrap_or(true).into(),
            spec.pod_info_on_mount.unwrap_or(false).into(),
            spec.storage_capacity.unwrap_or(false).into(),
            audiences.into(),
            spec.requires_republish.unwrap_or(false).into(),
            cells::or_none(&list(&spec.volume_lifecycle_modes).join(",")).into(),
            age(&object.metadata, now).into(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kinds::testing::{created, faults, refusals, row};

    fn base() -> Value {
        json!({"metadata": {"name": "d.example.com"}, "spec": {}})
    }

    #[test]
    fn faults_are_named() {
        let tokens = json!([{"audience": "a", "expirationSeconds": 1}, {"audience": "a"}]);
        let patches = [
            json!({"spec": {"fsGroupPolicy": "x", "volumeLifecycleModes": ["y"], "nodeAllocatableUpdatePeriodSeconds": 5}}),
            json!({"spec": {"tokenRequests": tokens}}),
            json!({"spec": {"serviceAccountTokenInSecrets": true}}),
        ];
        let text = faults(&CsiDrivers, &base(), &patches);
        for needle in [
            "spec.fsGroupPolicy: Unsupported value: \"x\": supported values: \"File\", \"None\", \"ReadWriteOnceWithFSType\"",
            "spec.volumeLifecycleModes: Unsupported value: \"y\"",
            "spec.nodeAllocatableUpdatePeriodSeconds: Invalid value: 5: must be greater than or equal to 10 seconds",
            "spec.tokenRequests[0].expirationSeconds: Invalid value: 1: may not specify a duration less than 10 minutes",
            "spec.tokenRequests[1].audience: Duplicate value: \"a\"",
            "spec.serviceAccountTokenInSecrets: Invalid value: true",
        ] {
            assert!(text.contains(needle), "{needle}\n{text}");
        }
    }

    #[test]
    fn attaching_stays_as_it_is() {
        let text =
            refusals(&CsiDrivers, &base(), &[json!({"spec": {"attachRequired": false, "podInfoOnMount": true}})]);
        assert_eq!(text.matches("field is immutable").count(), 1, "{text}");
    }

    #[test]
    fn a_minimal_driver_attaches() {
        let object = serde_json::to_value(created(&CsiDrivers, &base())).unwrap();
        assert_eq!(
            row(&CsiDrivers, &object),
            "d.example.com | true | false | false | <unset> | false | Persistent | <unknown>"
        );
    }
}
