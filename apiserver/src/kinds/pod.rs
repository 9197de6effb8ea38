//! Pods: containers that run together on one node.
//!
//! # Deletion
//!
//! A DELETE of a pod that a node has marks it with its grace period and leaves the rest to that node, which removes it
//! with grace 0 when its processes are gone. A pod that no node has, or whose containers have all ended, is removed at
//! once. A later DELETE with a shorter grace shortens it; that rule is the same for every kind and not written here.

pub(in crate::kinds) mod annotations;
mod parts;
mod printing;
mod qos;
mod selectable;
mod validation;

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Pod, PodCondition, PodSpec, PodStatus},
    apimachinery::pkg::apis::meta::v1::{LabelSelectorRequirement, ObjectMeta, Time},
};

use super::{
    blank::{drop_blank, items_mut, list, text},
    pod_spec,
};
use crate::{
    kind::{Column, Context, Deletion, Strategy},
    ops::Part,
    ownership::{SPEC_AND_OWNERS, reset_by},
};
use coracle_proto::{
    apply::Set,
    field::{Errors, Path},
    name,
    pod_defaults::{default_pod, default_pod_spec},
    resource::Resource,
};

/// The strategy of `pods`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pods;

/// A pod that waits for its scheduling gates to be lifted says so from its first moment.
fn mark_gated(spec: &PodSpec, status: &mut PodStatus, now: Timestamp) {
    if list(&spec.scheduling_gates).is_empty() {
        return;
    }
    status.conditions.get_or_insert_default().push(PodCondition {
        type_: "PodScheduled".to_owned(),
        status: "False".to_owned(),
        reason: Some("SchedulingGated".to_owned()),
        message: Some("Scheduling is blocked due to non-empty scheduling gates".to_owned()),
        last_transition_time: Some(Time(now)),
        ..PodCondition::default()
    });
}

/// Writes `matchLabelKeys` and `mismatchLabelKeys` of (anti-)affinity terms and spread constraints out as requirements
/// of their selectors (KEP-3633, KEP-3243), so that nobody after has to know the pod's labels.
fn merge_label_keys(spec: &mut PodSpec, meta: &ObjectMeta) {
    let labels = meta.labels.clone().unwrap_or_default();
    let requirement = |key: &String, operator: &str| {
        labels.get(key).map(|value| LabelSelectorRequirement {
            key: key.clone(),
            operator: operator.to_owned(),
            values: Some(vec![value.clone()]),
        })
    };
    let mut terms = Vec::new();
    if let Some(affinity) = &mut spec.affinity {
        if let Some(affinity) = &mut affinity.pod_affinity {
            terms.extend(items_mut(&mut affinity.required_during_scheduling_ignored_during_execution));
            let preferred = items_mut(&mut affinity.preferred_during_scheduling_ignored_during_execution);
            terms.extend(preferred.iter_mut().map(|weighted| &mut weighted.pod_affinity_term));
        }
        if let Some(affinity) = &mut affinity.pod_anti_affinity {
            terms.extend(items_mut(&mut affinity.required_during_scheduling_ignored_during_execution));
            let preferred = items_mut(&mut affinity.preferred_during_scheduling_ignored_during_execution);
            terms.extend(preferred.iter_mut().map(|weighted| &mut weighted.pod_affinity_term));
        }
    }
    for term in terms {
        let Some(selector) = &mut term.label_selector else { continue };
        let added = list(&term.match_label_keys)
            .iter()
            .filter_map(|key| requirement(key, "In"))
            .chain(list(&term.mismatch_label_keys).iter().filter_map(|key| requirement(key, "NotIn")));
        let added: Vec<_> = added.collect();
        if !added.is_empty() {
            selector.match_expressions.get_or_insert_default().extend(added);
        }
    }
    for constraint in items_mut(&mut spec.topology_spread_constraints) {
        let Some(selector) = &mut constraint.label_selector else { continue };
        let added: Vec<_> =
            list(&constraint.match_label_keys).iter().filter_map(|key| requirement(key, "In")).collect();
        if !added.is_empty() {
            selector.match_expressions.get_or_insert_default().extend(added);
        }
    }
}

/// A status writer that knows nothing of `observedGeneration` does not clear it.
fn keep_observed_generation(new: &mut PodStatus, old: &PodStatus) {
    if new.observed_generation.unwrap_or(0) == 0 {
        new.observed_generation = old.observed_generation;
    }
    let mut before: Vec<&PodCondition> = list(&old.conditions).iter().collect();
    for condition in items_mut(&mut new.conditions) {
        let Some(at) = before.iter().position(|b| b.type_ == condition.type_) else { continue };
        let same = before.remove(at);
        if condition.observed_generation.unwrap_or(0) == 0 {
            condition.observed_generation = same.observed_generation;
        }
    }
}

impl Strategy for Pods {
    type Object = Pod;

    fn resource(&self) -> &'static Resource {
        super::row_of("", "pods")
    }

    fn default(&self, object: &mut Pod) {
        let spec = object.spec.get_or_insert_default();
        default_pod(spec);
        default_pod_spec(spec);
        let status = object.status.get_or_insert_default();
        drop_blank(&mut status.conditions);
        drop_blank(&mut status.pod_ips);
        // The first of `podIPs` and `podIP` are one thing under two names.
        match (text(&status.pod_ip), list(&status.pod_ips).first()) {
            ("", Some(first)) => status.pod_ip = Some(first.ip.clone()),
            (only, None) if !only.is_empty() => {
                let only = only.to_owned();
                status.pod_ips = Some(vec![k8s_openapi::api::core::v1::PodIP { ip: only }]);
            }
            _ => {}
        }
    }

    fn prepare_create(&self, object: &mut Pod, context: &Context<'_>) {
        let spec = object.spec.get_or_insert_default();
        let mut status = PodStatus {
            phase: Some("Pending".to_owned()),
            qos_class: Some(qos::class(spec).to_owned()),
            ..PodStatus::default()
        };
        mark_gated(spec, &mut status, context.now);
        merge_label_keys(spec, &object.metadata);
        object.status = Some(status);
        annotations::app_armor_to_fields(object);
    }

    fn prepare_update(&self, new: &mut Pod, old: &Pod, _: &Context<'_>) {
        new.status.clone_from(&old.status);
    }

    fn prepare_status(&self, new: &mut Pod, old: &Pod, _: &Context<'_>) {
        new.spec.clone_from(&old.spec);
        new.metadata.owner_references.clone_from(&old.metadata.owner_references);
        let status = new.status.get_or_insert_default();
        let before = old.status.clone().unwrap_or_default();
        if text(&status.qos_class).is_empty() {
            status.qos_class.clone_from(&before.qos_class);
        }
        keep_observed_generation(status, &before);
    }

    fn reset_fields(&self, part: Part) -> &'static Set {
        if part == Part::Status { &SPEC_AND_OWNERS } else { reset_by(self.resource(), part) }
    }

    fn prepare_ephemeral_containers(&self, new: &mut Pod, old: &Pod, _: &Context<'_>) {
        parts::keep_but_ephemeral(new, old);
    }

    fn validate_ephemeral_containers(&self, new: &Pod, old: &Pod) -> Errors {
        parts::validate_ephemeral(new, old)
    }

    fn prepare_resize(&self, new: &mut Pod, old: &Pod, _: &Context<'_>) {
        parts::keep_but_resources(new, old);
    }

    fn validate_resize(&self, new: &Pod, old: &Pod) -> Errors {
        parts::validate_resize(new, old)
    }

    fn validate(&self, object: &Pod) -> Errors {
        validation::validate(object)
    }

    fn validate_update(&self, new: &Pod, old: &Pod) -> Errors {
        validation::validate_update(new, old)
    }

    fn validate_status(&self, new: &Pod, old: &Pod) -> Errors {
        validation::validate_status(new, old)
    }

    fn warnings(&self, object: &Pod) -> Vec<String> {
        let mut warnings = Vec::new();
        let wrong = name::dns1123_label(text(&object.metadata.name));
        if !wrong.is_empty() {
            let what = "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior";
            warnings.push(format!("{what}; a DNS label is recommended: [{}]", wrong.join(" ")));
        }
        if let Some(spec) = &object.spec {
            warnings.extend(pod_spec::warnings::of(&Path::default(), Some(&object.metadata), spec));
        }
        warnings
    }

    fn counts_generations(&self) -> bool {
        true
    }

    fn begin_deletion(&self, object: &mut Pod, grace: Option<i64>) -> Deletion {
        let spec = object.spec.as_ref();
        let phase = object.status.as_ref().map_or("", |s| text(&s.phase));
        let is_on_a_node = spec.is_some_and(|s| !text(&s.node_name).is_empty());
        if !is_on_a_node || matches!(phase, "Failed" | "Succeeded") {
            return Deletion::Immediate;
        }
        let own = spec.and_then(|s| s.termination_grace_period_seconds).unwrap_or(0);
        match grace.unwrap_or(own) {
            0 => Deletion::Immediate,
            seconds if seconds < 0 => Deletion::Graceful { seconds: 1 },
            seconds => Deletion::Graceful { seconds },
        }
    }

    fn fields(&self, object: &Pod) -> Vec<(&'static str, String)> {
        selectable::fields(object)
    }

    fn fields_of_stored(&self, stored: &[u8]) -> serde_json::Result<Vec<(&'static str, String)>> {
        selectable::fields_of_stored(stored)
    }

    fn columns(&self) -> &'static [Column] {
        printing::COLUMNS
    }

    fn row(&self, object: &Pod, now: Timestamp) -> Vec<serde_json::Value> {
        printing::row(object, now)
    }
}

#[cfg(test)]
mod tests;
