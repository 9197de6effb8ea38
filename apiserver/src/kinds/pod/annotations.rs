//! Annotations of pods that mean something.

use std::collections::BTreeMap;

use coracle_proto::field::{Error, Errors, Path};
use k8s_openapi::api::core::v1::{Pod, PodSpec};

use crate::kinds::blank::{list, text};

const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Marks what a node shows of a pod that it was given by a file.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// How AppArmor's profiles were given before there was a field; the container's name follows.
const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

fn at(key: &str) -> Path {
    Path::new("metadata").child("annotations").key(key)
}

fn of(pod: &Pod) -> impl Iterator<Item = (&str, &str)> {
    pod.metadata.annotations.iter().flatten().map(|(key, value)| (key.as_str(), value.as_str()))
}

fn has_container(spec: &PodSpec, name: &str) -> bool {
    let mut named = spec.containers.iter().chain(list(&spec.init_containers)).map(|container| container.name.as_str());
    named.any(|own| own == name) || list(&spec.ephemeral_containers).iter().any(|container| container.name == name)
}

/// Everything wrong with those a pod has.
pub(super) fn validate(errors: &mut Errors, pod: &Pod, spec: &PodSpec) {
    for (key, value) in of(pod) {
        if key == MIRROR && text(&spec.node_name).is_empty() {
            let detail = "must set spec.nodeName if mirror pod annotation is set";
            errors.push(Error::invalid(&at(key), value, detail));
        }
        if key == DELETION_COST && value.parse::<i32>().map_or(true, |number| number.to_string() != value) {
            errors.push(Error::invalid(&at(key), value, "must be a 32bit integer"));
        }
        if let Some(container) = key.strip_prefix(APP_ARMOR) {
            if !has_container(spec, container) {
                errors.push(Error::invalid(&at(key), container, "container not found"));
            }
            let is_profile = matches!(value, "" | "runtime/default" | "unconfined") || value.starts_with("localhost/");
            if !is_profile {
                errors.push(Error::invalid(&at(key), value, &format!("invalid AppArmor profile name: {value:?}")));
            }
        }
    }
}

/// Those that a change may not touch.
pub(super) fn validate_update(errors: &mut Errors, new: &Pod, old: &Pod) {
    let (after, before): (BTreeMap<_, _>, BTreeMap<_, _>) = (of(new).collect(), of(old).collect());
    let mut forbid = |key: &str, app_armor: &str, mirror: &str| {
        if key.starts_with(APP_ARMOR) {
            errors.push(Error::forbidden(&at(key), app_armor));
        } else if key == MIRROR {
            errors.push(Error::forbidden(&at(key), mirror));
        }
    };
    for (key, _) in before.iter().filter(|(key, value)| after.get(*key) != Some(value)) {
        forbid(key, "may not remove or update AppArmor annotations", "may not remove or update mirror pod annotation");
    }
    for key in after.keys().filter(|key| !before.contains_key(*key)) {
        forbid(key, "may not add AppArmor annotations", "may not add mirror pod annotation");
    }
}
