//! What may be changed of a running pod through paths of its own: ephemeral containers (KEP-277) and resources (KEP-1287).

use coracle_proto::field::{Error, Errors, Path};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};

use super::{qos, validation};
use crate::kinds::{
    blank::{list, text},
    difference,
    resources::ResourceList,
    rules,
};

/// Marks pods that a node runs from a file of its own.
const MIRROR: &str = "kubernetes.io/config.mirror";

fn is_mirror(pod: &Pod) -> bool {
    pod.metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(MIRROR))
}

fn spec_of(pod: &Pod) -> PodSpec {
    pod.spec.clone().unwrap_or_default()
}

/// Restores everything beside the spec.
fn keep_rest(new: &mut Pod, old: &Pod) {
    new.status.clone_from(&old.status);
    new.metadata.labels.clone_from(&old.metadata.labels);
    new.metadata.annotations.clone_from(&old.metadata.annotations);
    new.metadata.finalizers.clone_from(&old.metadata.finalizers);
    new.metadata.owner_references.clone_from(&old.metadata.owner_references);
}

/// Restores everything but the ephemeral containers.
pub(super) fn keep_but_ephemeral(new: &mut Pod, old: &Pod) {
    let ephemeral = new.spec.take().and_then(|spec| spec.ephemeral_containers);
    keep_rest(new, old);
    new.spec = Some(PodSpec { ephemeral_containers: ephemeral, ..spec_of(old) });
}

/// Everything wrong with new ephemeral containers: those that are there stay as they are.
pub(super) fn validate_ephemeral(new: &Pod, old: &Pod) -> Errors {
    if is_mirror(old) {
        return vec![Error::forbidden(&Path::default(), "static pods do not support ephemeral containers")];
    }
    let (after, before) = (spec_of(new), spec_of(old));
    let mut errors = Errors::new();
    validation::validate_both(&mut errors, new, &after);
    let path = Path::new("spec").child("ephemeralContainers");
    for then in list(&before.ephemeral_containers) {
        match list(&after.ephemeral_containers).iter().find(|now| now.name == then.name) {
            None => {
                let detail = format!("existing ephemeral containers {:?} may not be removed\n", then.name);
                errors.push(Error::forbidden(&path, &detail));
            }
            Some(now) if now != then => {
                let difference = difference::between(&rules::json(then), &rules::json(now));
                let detail = format!("existing ephemeral containers {:?} may not be changed\n{difference}", then.name);
                errors.push(Error::forbidden(&path, &detail));
            }
            Some(_) => {}
        }
    }
    errors
}

/// Restores everything but resources, of containers and of the pod, and what is to happen when they change. Containers that
/// were added, removed or renamed are left for validation to refuse.
pub(super) fn keep_but_resources(new: &mut Pod, old: &Pod) {
    let (mut after, before) = (spec_of(new), spec_of(old));
    keep_rest(new, old);
    let counts = |spec: &PodSpec| (spec.containers.len(), list(&spec.init_containers).len());
    if counts(&after) != counts(&before) {
        return;
    }
    let merged = |now: &[Container], then: &[Container]| -> Vec<Container> {
        now.iter()
            .zip(then)
            .map(|(now, then)| Container {
                name: now.name.clone(),
                resources: now.resources.clone(),
                resize_policy: now.resize_policy.clone(),
                ..then.clone()
            })
            .collect()
    };
    let containers = merged(&after.containers, &before.containers);
    let init = after.init_containers.take().map(|now| merged(&now, list(&before.init_containers)));
    new.spec = Some(PodSpec { containers, init_containers: init, resources: after.resources, ..before });
}

fn amounts<'a>(
    resources: Option<&'a ResourceRequirements>,
    half: fn(&'a ResourceRequirements) -> Option<&'a ResourceList>,
) -> impl Iterator<Item = &'a String> {
    resources.and_then(half).into_iter().flatten().map(|(name, _)| name)
}

/// What is asked for can be made more or less, but not unsaid.
fn validate_nothing_removed(
    errors: &mut Errors,
    path: &Path,
    (new, old): (Option<&ResourceRequirements>, Option<&ResourceRequirements>),
    words: (&str, &str),
) {
    let lost = |half: fn(&ResourceRequirements) -> Option<&ResourceList>| {
        amounts(old, half).any(|name| !amounts(new, half).any(|now| now == name))
    };
    if lost(|resources| resources.requests.as_ref()) {
        errors.push(Error::forbidden(&path.child("requests"), &format!("{} cannot be removed", words.0)));
    }
    if lost(|resources| resources.limits.as_ref()) {
        errors.push(Error::forbidden(&path.child("limits"), &format!("{} cannot be removed", words.1)));
    }
}

/// The resources with CPU and memory as they were before.
fn without_compute(new: Option<&ResourceRequirements>, old: Option<&ResourceRequirements>) -> ResourceRequirements {
    let half = |now: Option<&ResourceList>, then: Option<&ResourceList>| {
        let mut list = now.cloned().unwrap_or_default();
        for name in ["cpu", "memory"] {
            match then.and_then(|then| then.get(name)) {
                Some(quantity) => list.insert(name.to_owned(), quantity.clone()),
                None => list.remove(name),
            };
        }
        Some(list).filter(|list| !list.is_empty())
    };
    ResourceRequirements {
        claims: new.and_then(|new| new.claims.clone()),
        limits: half(new.and_then(|r| r.limits.as_ref()), old.and_then(|r| r.limits.as_ref())),
        requests: half(new.and_then(|r| r.requests.as_ref()), old.and_then(|r| r.requests.as_ref())),
    }
}

/// The resources, with empty lists as if they were not there.
fn plain(resources: Option<&ResourceRequirements>) -> ResourceRequirements {
    without_compute(resources, resources)
}

/// Whether the node says of running containers what they really have, without which nothing can be resized.
fn is_supported(pod: &Pod) -> bool {
    let statuses = pod.status.as_ref().map_or(&[][..], |status| list(&status.container_statuses));
    let running = statuses.iter().find(|s| s.state.as_ref().is_some_and(|state| state.running.is_some()));
    running.is_none_or(|status| status.resources.is_some())
}

/// Everything wrong with new resources.
pub(super) fn validate_resize(new: &Pod, old: &Pod) -> Errors {
    if is_mirror(old) {
        return vec![Error::forbidden(&Path::default(), "static pods cannot be resized")];
    }
    let (after, before, path) = (spec_of(new), spec_of(old), Path::new("spec"));
    if before.os.as_ref().is_some_and(|os| os.name == "windows") {
        return vec![Error::forbidden(&Path::default(), "windows pods cannot be resized")];
    }
    let mut errors = Errors::new();
    validation::validate_both(&mut errors, new, &after);
    let class = old.status.as_ref().map_or("", |status| text(&status.qos_class));
    if class != qos::class(&after) {
        errors.push(Error::invalid(&path, class, "Pod QOS Class may not change as a result of resizing"));
    }
    if !is_supported(old) {
        errors.push(Error::forbidden(&path, "Pod running on node without support for resize"));
    }
    validate_pod_resources(&mut errors, &path, &after, &before);
    if !validate_same_containers(&mut errors, &path, &after, &before) {
        return errors;
    }
    let lists = [
        ("initContainers", list(&after.init_containers), list(&before.init_containers)),
        ("containers", &after.containers, &before.containers),
    ];
    for (field, now, then) in lists {
        for (i, (now, then)) in now.iter().zip(then).enumerate() {
            let at = path.child(field).index(i);
            let both = (now.resources.as_ref(), then.resources.as_ref());
            validate_nothing_removed(
                &mut errors,
                &at.child("resources"),
                both,
                ("resource requests", "resource limits"),
            );
            let is_init = field == "initContainers";
            if without_compute(both.0, both.1) != plain(both.1) {
                let (at, detail) = match is_init {
                    true => (&at, "only cpu and memory resources for init or sidecar containers are mutable"),
                    false => (&path, "only cpu and memory resources are mutable"),
                };
                errors.push(Error::forbidden(at, detail));
            }
            let is_sidecar = now.restart_policy.as_deref() == Some("Always");
            let restarts = list(&now.resize_policy).iter().any(|policy| policy.restart_policy == "RestartContainer");
            if is_init && !is_sidecar && restarts && now != then {
                let detail = "non-sidecar init containers with a resize policy of RestartContainer cannot be resized";
                errors.push(Error::forbidden(&at, detail));
            }
            if now.resize_policy != then.resize_policy {
                errors.push(Error::forbidden(&path, "only cpu and memory resources are mutable"));
            }
        }
    }
    errors
}

fn validate_pod_resources(errors: &mut Errors, path: &Path, new: &PodSpec, old: &PodSpec) {
    let at = path.child("resources");
    let both = (new.resources.as_ref(), old.resources.as_ref());
    if both.1.is_some() && both.0.is_none() {
        errors.push(Error::forbidden(&at, "pod-level resources cannot be removed"));
        return;
    }
    validate_nothing_removed(errors, &at, both, ("pod-level resource requests", "pod-level resource limits"));
    if without_compute(both.0, both.1) != plain(both.1) {
        errors.push(Error::forbidden(path, "only cpu and memory resources are mutable at pod-level"));
    }
}

/// Whether the containers are the same ones, in the same order.
fn validate_same_containers(errors: &mut Errors, path: &Path, new: &PodSpec, old: &PodSpec) -> bool {
    let before = errors.len();
    for (field, now, then) in [
        ("containers", new.containers.as_slice(), old.containers.as_slice()),
        ("initContainers", list(&new.init_containers), list(&old.init_containers)),
    ] {
        let at = path.child(field);
        if now.len() != then.len() {
            errors.push(Error::forbidden(&at, &format!("{field} may not be added or removed on resize")));
            continue;
        }
        for (i, _) in now.iter().zip(then).enumerate().filter(|(_, (now, then))| now.name != then.name) {
            let detail = format!("{field} may not be renamed or reordered on resize");
            errors.push(Error::forbidden(&at.index(i).child("name"), &detail));
        }
    }
    errors.len() == before
}

#[cfg(test)]
mod tests;
