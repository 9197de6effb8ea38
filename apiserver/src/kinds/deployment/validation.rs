//! What makes a Deployment or its status invalid.

use coracle_proto::field::{Error, Errors, Path};
use k8s_openapi::{
    api::apps::v1::{DeploymentSpec, DeploymentStatus, DeploymentStrategy, RollingUpdateDeployment},
    apimachinery::pkg::util::intstr::IntOrString,
};

use crate::kinds::{blank::text, int_or_percent, pod_template, rules};

/// Everything wrong with a spec.
pub(super) fn validate_spec(errors: &mut Errors, path: &Path, spec: &DeploymentSpec) {
    rules::not_negative(errors, &path.child("replicas"), spec.replicas.unwrap_or(0).into());
    pod_template::validate_selected(errors, path, &spec.selector, &spec.template);
    validate_strategy(errors, &path.child("strategy"), &spec.strategy.clone().unwrap_or_default());
    let ready = spec.min_ready_seconds.unwrap_or(0);
    rules::not_negative(errors, &path.child("minReadySeconds"), ready.into());
    if let Some(limit) = spec.revision_history_limit {
        rules::not_negative(errors, &path.child("revisionHistoryLimit"), limit.into());
    }
    if let Some(deadline) = spec.progress_deadline_seconds {
        let at = path.child("progressDeadlineSeconds");
        rules::not_negative(errors, &at, deadline.into());
        if deadline <= ready {
            errors.push(Error::invalid(&at, deadline, "must be greater than minReadySeconds"));
        }
    }
}

fn validate_strategy(errors: &mut Errors, path: &Path, strategy: &DeploymentStrategy) {
    let at = path.child("rollingUpdate");
    match (text(&strategy.type_), &strategy.rolling_update) {
        ("Recreate", Some(_)) => {
            errors.push(Error::forbidden(&at, "may not be specified when strategy `type` is 'Recreate'"));
        }
        ("Recreate", None) => {}
        ("RollingUpdate", Some(rolling)) => validate_rolling_update(errors, &at, rolling),
        ("RollingUpdate", None) => {
            errors.push(Error::required(&at, "this should be defaulted and never be nil"));
        }
        _ => errors.push(Error::not_supported(path, rules::json(strategy), &["Recreate", "RollingUpdate"])),
    }
}

fn validate_rolling_update(errors: &mut Errors, path: &Path, rolling: &RollingUpdateDeployment) {
    let zero = IntOrString::Int(0);
    let unavailable = rolling.max_unavailable.as_ref().unwrap_or(&zero);
    let surge = rolling.max_surge.as_ref().unwrap_or(&zero);
    let at = path.child("maxUnavailable");
    int_or_percent::validate(errors, &at, unavailable);
    int_or_percent::validate(errors, &path.child("maxSurge"), surge);
    if int_or_percent::amount(unavailable) == 0 && int_or_percent::amount(surge) == 0 {
        errors.push(Error::invalid(&at, rules::json(unavailable), "may not be 0 when `maxSurge` is 0"));
    }
    int_or_percent::at_most_all(errors, &at, unavailable);
}

/// Everything wrong with a new status.
pub(super) fn validate_status(new: &DeploymentStatus, old: &DeploymentStatus) -> Errors {
    let (mut errors, path) = (Errors::new(), Path::new("status"));
    let all = new.replicas.unwrap_or(0);
    let (updated, ready) = (new.updated_replicas.unwrap_or(0), new.ready_replicas.unwrap_or(0));
    let available = new.available_replicas.unwrap_or(0);
    let collisions = new.collision_count.unwrap_or(0);
    for (field, number) in [
        ("observedGeneration", new.observed_generation.unwrap_or(0)),
        ("replicas", all.into()),
        ("updatedReplicas", updated.into()),
        ("readyReplicas", ready.into()),
        ("availableReplicas", available.into()),
        ("unavailableReplicas", new.unavailable_replicas.unwrap_or(0).into()),
        ("terminatingReplicas", new.terminating_replicas.unwrap_or(0).into()),
        ("collisionCount", collisions.into()),
    ] {
        rules::not_negative(&mut errors, &path.child(field), number);
    }
    for (field, number) in [("updatedReplicas", updated), ("readyReplicas", ready), ("availableReplicas", available)] {
        if number > all {
            errors.push(Error::invalid(&path.child(field), number, "cannot be greater than status.replicas"));
        }
    }
    if available > ready {
        let at = path.child("availableReplicas");
        errors.push(Error::invalid(&at, available, "cannot be greater than readyReplicas"));
    }
    rules::not_decremented(&mut errors, &path.child("collisionCount"), new.collision_count, old.collision_count);
    errors
}
