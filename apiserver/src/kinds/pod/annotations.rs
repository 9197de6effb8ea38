//! Annotations of pods that mean something.

use std::collections::BTreeMap;

use coracle_proto::field::{Error, Errors, Path};
use k8s_openapi::{
    api::core::v1::{AppArmorProfile, Pod, PodSpec},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

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

/// Gives containers the AppArmor profiles that annotations say, where no field does (KEP-24).
pub(super) fn app_armor_to_fields(pod: &mut Pod) {
    let said: BTreeMap<String, String> =
        of(pod).filter_map(|(key, value)| Some((key.strip_prefix(APP_ARMOR)?.to_owned(), value.to_owned()))).collect();
    let Some(spec) = pod.spec.as_mut().filter(|_| !said.is_empty()) else { return };
    let whole = spec.security_context.as_ref().and_then(|context| context.app_armor_profile.clone());
    let containers = spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten());
    for container in containers {
        let Some(profile) = said.get(&container.name).and_then(|text| profile(text)) else { continue };
        if whole.as_ref() == Some(&profile) {
            continue;
        }
        container.security_context.get_or_insert_default().app_armor_profile.get_or_insert(profile);
    }
}

/// The warnings about annotations of containers that are older than the field for it: of a template at `path`, whose fields
/// nobody fills in, or of a pod, whose fields [`app_armor_to_fields`] has.
pub(in crate::kinds) fn app_armor_warnings(path: &Path, meta: Option<&ObjectMeta>, spec: &PodSpec) -> Vec<String> {
    let whole = spec.security_context.as_ref().and_then(|context| context.app_armor_profile.as_ref());
    let annotations = meta.and_then(|meta| meta.annotations.as_ref());
    let is_template = !path.as_str().is_empty();
    let contexts = list(&spec.init_containers).iter().chain(&spec.containers).map(|c| (&c.name, &c.security_context));
    let is_old = |name: &str, own: Option<&AppArmorProfile>| {
        let said = annotations.and_then(|all| all.get(&format!("{APP_ARMOR}{name}")));
        said.map(|text| profile(text)).is_some_and(|said| match (&said, own) {
            (None, own) => own.is_none(),
            (Some(said), None) => whole != Some(said),
            (Some(said), Some(own)) => !is_template && said == own,
        })
    };
    let old = contexts.filter(|(name, context)| {
        is_old(name, context.as_ref().and_then(|context| context.app_armor_profile.as_ref()))
    });
    let at = path.child("metadata").child("annotations");
    old.map(|(name, _)| {
        let at = at.key(&format!("{APP_ARMOR}{name}"));
        format!("{at}: deprecated since v1.30; use the \"appArmorProfile\" field instead")
    })
    .collect()
}

/// What an annotation's text is as a field.
fn profile(text: &str) -> Option<AppArmorProfile> {
    let of = |type_: &str, localhost_profile: Option<&str>| {
        let localhost_profile = localhost_profile.map(str::to_owned);
        Some(AppArmorProfile { type_: type_.to_owned(), localhost_profile })
    };
    match text {
        "unconfined" => of("Unconfined", None),
        "runtime/default" => of("RuntimeDefault", None),
        _ => {
            text.strip_prefix("localhost/").filter(|name| !name.is_empty()).and_then(|name| of("Localhost", Some(name)))
        }
    }
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
