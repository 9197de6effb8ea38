//! What makes a pod invalid, a change of a pod forbidden, a status impossible.

use std::borrow::Cow;

use coracle_proto::{
    field::{Error, Errors, Path},
    name,
};
use k8s_openapi::api::core::v1::{Affinity, Container, ContainerStatus, Pod, PodSpec, PodStatus};

use super::annotations;
use crate::kinds::{
    affinity,
    blank::{list, text},
    difference,
    pod_spec::{
        containers::validate_image_spaces,
        validation::{Holder, validate as validate_spec},
    },
    rules, tolerations,
};

fn spec_of(pod: &Pod) -> Cow<'_, PodSpec> {
    pod.spec.as_ref().map_or_else(|| Cow::Owned(PodSpec::default()), Cow::Borrowed)
}

/// Everything wrong with a new pod.
pub(super) fn validate(pod: &Pod) -> Errors {
    let (spec, path) = (spec_of(pod), Path::new("spec"));
    let mut errors = Errors::new();
    validate_both(&mut errors, pod, &spec);
    if !list(&spec.ephemeral_containers).is_empty() {
        errors.push(Error::forbidden(&path.child("ephemeralContainers"), "cannot be set on create"));
    }
    if !text(&spec.node_name).is_empty() && !list(&spec.scheduling_gates).is_empty() {
        let detail = "cannot be set until all schedulingGates have been cleared";
        errors.push(Error::forbidden(&path.child("nodeName"), detail));
    }
    errors
}

/// What is asked of a pod both when it is new and when it changes.
pub(super) fn validate_both(errors: &mut Errors, pod: &Pod, spec: &PodSpec) {
    let path = Path::new("spec");
    annotations::validate(errors, pod, spec);
    validate_spec(errors, &path, spec, Holder::Pod(text(&pod.metadata.name)));
    if text(&spec.service_account_name).is_empty() {
        for (i, volume) in list(&spec.volumes).iter().enumerate() {
            let sources = volume.projected.as_ref().map_or(&[][..], |p| list(&p.sources));
            for (j, _) in sources.iter().enumerate().filter(|(_, s)| s.service_account_token.is_some()) {
                let at = path.child("volumes").index(i).child("projected").child("sources").index(j);
                let detail = "must not be specified when serviceAccountName is not set";
                errors.push(Error::forbidden(&at.child("serviceAccountToken"), detail));
            }
        }
    }
    for (field, containers) in both_lists(spec) {
        for (i, container) in containers.iter().enumerate() {
            validate_image_spaces(errors, &path.child(field).index(i), container);
        }
    }
}

fn both_lists(spec: &PodSpec) -> [(&'static str, &[Container]); 2] {
    [("containers", spec.containers.as_slice()), ("initContainers", list(&spec.init_containers))]
}

/// The fields of a spec that may change, as Kubernetes lists them.
const CHANGEABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
                          `spec.tolerations` (only additions to existing tolerations),\
                          `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// Everything wrong with changing `old` into `new`.
pub(super) fn validate_update(new: &Pod, old: &Pod) -> Errors {
    let (after, before, path) = (spec_of(new), spec_of(old), Path::new("spec"));
    let mut errors = Errors::new();
    annotations::validate_update(&mut errors, new, old);
    validate_both(&mut errors, new, &after);
    for ((field, now), (_, then)) in both_lists(&after).into_iter().zip(both_lists(&before)) {
        let at = path.child(field);
        if now.len() != then.len() {
            errors.push(Error::forbidden(&at, "pod updates may not add or remove containers"));
            return errors;
        }
        for (i, container) in now.iter().enumerate() {
            if text(&container.image).is_empty() {
                errors.push(Error::required(&at.index(i).child("image"), ""));
            }
            validate_image_spaces(&mut errors, &at.index(i), container);
        }
    }
    if !validate_deadline(&mut errors, &path.child("activeDeadlineSeconds"), &after, &before) {
        return errors;
    }
    let at = path.child("tolerations");
    tolerations::validate_only_added(&mut errors, &at, list(&after.tolerations), list(&before.tolerations));
    let gates = list(&before.scheduling_gates);
    for (i, gate) in list(&after.scheduling_gates).iter().enumerate() {
        if !gates.iter().any(|known| known.name == gate.name) {
            let detail = format!("only deletion is allowed, but found new scheduling gate '{}'", gate.name);
            errors.push(Error::forbidden(&path.child("schedulingGates").index(i).child("name"), &detail));
        }
    }
    if after == before {
        return errors;
    }
    let rest = without_allowed_changes(&mut errors, &path, after.into_owned(), &before);
    if rest != *before {
        let difference = difference::between(&rules::json(&before), &rules::json(&rest));
        let detail = format!("pod updates may not change fields other than {CHANGEABLE}\n{difference}");
        errors.push(Error::forbidden(&path, &detail));
    }
    errors
}

/// The deadline may be set and shortened; whether it makes sense to go on.
fn validate_deadline(errors: &mut Errors, path: &Path, new: &PodSpec, old: &PodSpec) -> bool {
    match (new.active_deadline_seconds, old.active_deadline_seconds) {
        (Some(seconds), _) if !(0..=i64::from(i32::MAX)).contains(&seconds) => {
            let detail = format!("must be between 0 and {}, inclusive", i32::MAX);
            errors.push(Error::invalid(path, seconds, &detail));
            false
        }
        (Some(seconds), Some(before)) if before < seconds => {
            errors.push(Error::invalid(path, seconds, "must be less than or equal to previous value"));
            false
        }
        (None, Some(_)) => {
            let detail = "must not update from a positive integer to nil value";
            errors.push(Error::invalid(path, serde_json::Value::Null, detail));
            true
        }
        _ => true,
    }
}

/// The new spec with every change undone that is allowed (or reported here).
fn without_allowed_changes(errors: &mut Errors, path: &Path, mut new: PodSpec, old: &PodSpec) -> PodSpec {
    for (container, before) in new.containers.iter_mut().zip(&old.containers) {
        container.image.clone_from(&before.image);
    }
    for (container, before) in new.init_containers.iter_mut().flatten().zip(list(&old.init_containers)) {
        container.image.clone_from(&before.image);
    }
    new.active_deadline_seconds = old.active_deadline_seconds;
    new.scheduling_gates.clone_from(&old.scheduling_gates);
    new.tolerations.clone_from(&old.tolerations);
    let was_negative = old.termination_grace_period_seconds.is_some_and(|seconds| seconds < 0);
    if was_negative && new.termination_grace_period_seconds == Some(1) {
        new.termination_grace_period_seconds = old.termination_grace_period_seconds;
    }
    if list(&old.scheduling_gates).is_empty() {
        return new;
    }
    // A pod that waits behind gates may still be narrowed down to fewer nodes (KEP-3838).
    if new.node_selector != old.node_selector {
        let selector = new.node_selector.clone().unwrap_or_default();
        if old.node_selector.iter().flatten().any(|(key, value)| selector.get(key) != Some(value)) {
            let detail = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
            errors.push(Error::invalid(&path.child("nodeSelector"), rules::json(&selector), detail));
        }
        new.node_selector.clone_from(&old.node_selector);
    }
    let before = old.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
    let after = new.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
    if before != after {
        affinity::validate_narrowed(errors, &path.child("affinity").child("nodeAffinity"), after, before);
        let mut rest = new.affinity.take().unwrap_or_default();
        rest.node_affinity = before.cloned();
        let is_nothing = old.affinity.is_none() && rest == Affinity::default();
        new.affinity = (!is_nothing).then_some(rest);
    }
    new
}

/// Everything wrong with a new status.
pub(super) fn validate_status(new: &Pod, old: &Pod) -> Errors {
    let (after, before) = (new.status.clone().unwrap_or_default(), old.status.clone().unwrap_or_default());
    let (spec, path) = (spec_of(old), Path::new("status"));
    let mut errors = Errors::new();
    for (i, condition) in list(&after.conditions).iter().enumerate() {
        let at = path.child("conditions").index(i);
        if condition.observed_generation.is_some_and(|generation| generation < 0) {
            let generation = condition.observed_generation;
            errors.push(Error::invalid(&at.child("observedGeneration"), generation, "must be a non-negative integer"));
        }
        if !matches!(condition.type_.as_str(), "PodScheduled" | "Ready" | "Initialized") {
            rules::label_name(&mut errors, &at.child("Type"), &condition.type_);
        }
    }
    let nominated = text(&after.nominated_node_name);
    if !nominated.is_empty() && nominated != text(&before.nominated_node_name) {
        let at = path.child("nominatedNodeName");
        rules::messages(&mut errors, &at, nominated, name::dns1123_subdomain(nominated));
        if !text(&spec.node_name).is_empty() {
            errors.push(Error::forbidden(&at, "may not be set on pods that are already bound to a node"));
        }
    }
    if let Some(generation) = after.observed_generation.filter(|generation| *generation < 0) {
        let detail = "must be a non-negative integer";
        errors.push(Error::invalid(&path.child("observedGeneration"), generation, detail));
    }
    rules::immutable(&mut errors, &path.child("qosClass"), &after.qos_class, &before.qos_class);
    let (new, old) = (list(&after.container_statuses), list(&before.container_statuses));
    validate_no_revival(&mut errors, &path.child("containerStatuses"), new, old, &spec);
    let (new, old) = (list(&after.init_container_statuses), list(&before.init_container_statuses));
    validate_no_revival(&mut errors, &path.child("initContainerStatuses"), new, old, &spec);
    validate_addresses(&mut errors, &path, &after);
    errors
}

/// A container that has ended for good does not run again.
fn validate_no_revival(
    errors: &mut Errors,
    path: &Path,
    new: &[ContainerStatus],
    old: &[ContainerStatus],
    spec: &PodSpec,
) {
    for (i, before) in old.iter().enumerate() {
        let Some(ended) = before.state.as_ref().and_then(|s| s.terminated.as_ref()) else { continue };
        let revived = new.iter().find(|status| {
            status.name == before.name && status.state.as_ref().is_none_or(|state| state.terminated.is_none())
        });
        if revived.is_some() && !may_restart(spec, &before.name, ended.exit_code) {
            let detail = "may not be transitioned to non-terminated state";
            errors.push(Error::forbidden(&path.index(i).child("state"), detail));
        }
    }
}

/// Whether a container that ended with this code may be started again: by its own rules, its own policy, or the pod's.
fn may_restart(spec: &PodSpec, name: &str, code: i32) -> bool {
    let init = list(&spec.init_containers);
    let all = || spec.containers.iter().chain(init);
    let restarts_all = |c: &Container| list(&c.restart_policy_rules).iter().any(|r| r.action == "RestartAllContainers");
    if all().any(restarts_all) {
        return true;
    }
    let Some(container) = all().find(|c| c.name == name) else { return false };
    for rule in list(&container.restart_policy_rules) {
        let Some(codes) = &rule.exit_codes else { continue };
        let listed = list(&codes.values).contains(&code);
        if listed == (codes.operator == "In") {
            return true;
        }
    }
    let own = container.restart_policy.as_deref();
    let policy = own.unwrap_or(text(&spec.restart_policy));
    let is_init = init.iter().any(|c| c.name == name);
    match policy {
        // An init container that ended well is done; one that failed is tried again unless the pod never restarts.
        "Always" if is_init && own.is_none() => code != 0,
        "Always" => true,
        "OnFailure" => code != 0,
        _ => false,
    }
}

fn validate_addresses(errors: &mut Errors, path: &Path, status: &PodStatus) {
    let pod: Vec<&str> = list(&status.pod_ips).iter().map(|ip| ip.ip.as_str()).collect();
    let host: Vec<&str> = list(&status.host_ips).iter().map(|ip| ip.ip.as_str()).collect();
    for (field, addresses) in [("podIPs", pod), ("hostIPs", host)] {
        let at = path.child(field);
        for (i, address) in addresses.iter().enumerate() {
            rules::messages(errors, &at.index(i), address, name::ip_address(address));
            if addresses.iter().take(i).any(|a| a == address) {
                errors.push(Error::duplicate(&at.index(i), *address));
            }
        }
        let is_v6 = |address: &&&str| address.parse::<std::net::Ipv6Addr>().is_ok();
        let v6 = addresses.iter().filter(is_v6).count();
        if v6 > 1 || addresses.len() - v6 > 1 {
            let shown: Vec<serde_json::Value> = addresses.iter().map(|ip| serde_json::json!({"ip": ip})).collect();
            errors.push(Error::invalid(&at, shown, "may specify no more than one IP for each IP family"));
        }
    }
}

#[cfg(test)]
mod tests;
