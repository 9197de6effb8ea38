//! What makes a StatefulSet or its status invalid.

use coracle_proto::{
    field::{Error, Errors, Path},
    name,
    selector::LabelSelector,
};
use k8s_openapi::api::{
    apps::v1::{
        RollingUpdateStatefulSetStrategy, StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec,
        StatefulSetStatus, StatefulSetUpdateStrategy,
    },
    core::v1::{PersistentVolumeClaimVolumeSource, PodTemplateSpec, Volume},
};

use crate::kinds::{
    blank::{list, text},
    int_or_percent, label_selector, persistent_volume_claim, pod_template, rules,
};

/// At which moment a spec is looked at: what cannot change any more is not held against an old object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// It is new.
    Created,
    /// It takes an older one's place.
    Updated,
}

/// Everything wrong with a spec.
pub(super) fn validate_spec(errors: &mut Errors, path: &Path, spec: &StatefulSetSpec, when: When) {
    let at = path.child("podManagementPolicy");
    match text(&spec.pod_management_policy) {
        "" => errors.push(Error::required(&at, "")),
        "OrderedReady" | "Parallel" => {}
        other => errors.push(Error::invalid(&at, other, "must be 'OrderedReady' or 'Parallel'")),
    }
    let strategy = spec.update_strategy.clone().unwrap_or_default();
    validate_update_strategy(errors, &path.child("updateStrategy"), &strategy);
    if let Some(policy) = &spec.persistent_volume_claim_retention_policy {
        validate_retention(errors, &path.child("persistentVolumeClaimRetentionPolicy"), policy);
    }
    if when == When::Created {
        for (i, claim) in list(&spec.volume_claim_templates).iter().enumerate() {
            let at = path.child("volumeClaimTemplates").index(i).child("spec");
            persistent_volume_claim::validate_spec(errors, &at, &claim.spec.clone().unwrap_or_default());
        }
    }
    rules::not_negative(errors, &path.child("replicas"), spec.replicas.unwrap_or(0).into());
    rules::not_negative(errors, &path.child("minReadySeconds"), spec.min_ready_seconds.unwrap_or(0).into());
    if let Some(ordinals) = &spec.ordinals {
        rules::not_negative(errors, &path.child("ordinals.start"), ordinals.start.unwrap_or(0).into());
    }
    let service = text(&spec.service_name);
    if when == When::Created && !service.is_empty() {
        rules::messages(errors, &path.child("serviceName"), service, name::dns1123_label(service));
    }
    let at = path.child("selector");
    label_selector::validate(errors, &at, &spec.selector);
    pod_template::validate_not_empty(errors, &at, &spec.selector, "statefulset");
    let at_template = path.child("template");
    match LabelSelector::from_api(Some(&spec.selector)) {
        Err(_) => errors.push(Error::invalid(&at, rules::json(&spec.selector), "")),
        Ok(selector) => {
            pod_template::validate_choice(errors, &at_template, &spec.template, (&spec.selector, &selector));
            pod_template::validate(errors, &at_template, &template_of_pods(spec));
        }
    }
    pod_template::validate_endless(errors, &at_template, &spec.template, "StatefulSet");
}

/// The template as the pods get it: with the claims' volumes, and without the names that the controller gives.
fn template_of_pods(spec: &StatefulSetSpec) -> PodTemplateSpec {
    let mut template = spec.template.clone();
    let Some(pod) = &mut template.spec else { return template };
    pod.subdomain = None;
    pod.hostname = None;
    let claims: Vec<String> = list(&spec.volume_claim_templates)
        .iter()
        .map(|claim| claim.metadata.name.clone().unwrap_or_default())
        .collect();
    if claims.is_empty() {
        return template;
    }
    let others: Vec<Volume> =
        list(&pod.volumes).iter().filter(|volume| !claims.contains(&volume.name)).cloned().collect();
    let mut volumes = Vec::with_capacity(claims.len() + others.len());
    let mut known = std::collections::BTreeSet::new();
    for name in claims.into_iter().filter(|name| known.insert(name.clone())) {
        let source = PersistentVolumeClaimVolumeSource { claim_name: name.clone(), read_only: None };
        volumes.push(Volume { name, persistent_volume_claim: Some(source), ..Volume::default() });
    }
    volumes.extend(others);
    pod.volumes = Some(volumes);
    template
}

fn validate_update_strategy(errors: &mut Errors, path: &Path, strategy: &StatefulSetUpdateStrategy) {
    let at = path.child("rollingUpdate");
    match (text(&strategy.type_), &strategy.rolling_update) {
        ("", _) => errors.push(Error::required(path, "")),
        ("OnDelete", Some(rolling)) => {
            let detail = "only allowed for updateStrategy 'RollingUpdate'";
            errors.push(Error::invalid(&at, rules::json(rolling), detail));
        }
        ("OnDelete" | "RollingUpdate", None) => {}
        ("RollingUpdate", Some(rolling)) => validate_rolling_update(errors, &at, rolling),
        _ => errors.push(Error::invalid(path, rules::json(strategy), "must be 'RollingUpdate' or 'OnDelete'")),
    }
}

fn validate_rolling_update(errors: &mut Errors, path: &Path, rolling: &RollingUpdateStatefulSetStrategy) {
    rules::not_negative(errors, &path.child("partition"), rolling.partition.unwrap_or(0).into());
    if let Some(unavailable) = &rolling.max_unavailable {
        let at = path.child("maxUnavailable");
        int_or_percent::validate(errors, &at, unavailable);
        if int_or_percent::amount(unavailable) == 0 {
            errors.push(Error::invalid(&at, rules::json(unavailable), "cannot be 0"));
        }
        int_or_percent::at_most_all(errors, &at, unavailable);
    }
}

fn validate_retention(errors: &mut Errors, path: &Path, policy: &StatefulSetPersistentVolumeClaimRetentionPolicy) {
    for (field, word) in [("whenDeleted", &policy.when_deleted), ("whenScaled", &policy.when_scaled)] {
        rules::known_word(errors, &path.child(field), text(word), &["Retain", "Delete"]);
    }
}

/// Everything wrong with changing `old` into `new`.
pub(super) fn validate_update(new: &StatefulSetSpec, old: &StatefulSetSpec) -> Errors {
    let (mut errors, path) = (Errors::new(), Path::new("spec"));
    validate_spec(&mut errors, &path, new, When::Updated);
    let unchangeable = |spec: &StatefulSetSpec| StatefulSetSpec {
        replicas: None,
        template: PodTemplateSpec::default(),
        update_strategy: None,
        min_ready_seconds: None,
        ordinals: None,
        revision_history_limit: None,
        persistent_volume_claim_retention_policy: None,
        ..spec.clone()
    };
    if unchangeable(new) != unchangeable(old) {
        let detail = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
                      'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
                      'minReadySeconds' are forbidden";
        errors.push(Error::forbidden(&path, detail));
    }
    errors
}

/// Everything wrong with a new status.
pub(super) fn validate_status(new: &StatefulSetStatus, old: &StatefulSetStatus) -> Errors {
    let (mut errors, path) = (Errors::new(), Path::new("status"));
    let ready = new.ready_replicas.unwrap_or(0);
    let available = new.available_replicas.unwrap_or(0);
    let parts = [
        ("readyReplicas", ready),
        ("currentReplicas", new.current_replicas.unwrap_or(0)),
        ("updatedReplicas", new.updated_replicas.unwrap_or(0)),
        ("availableReplicas", available),
    ];
    rules::not_negative(&mut errors, &path.child("replicas"), new.replicas.into());
    for (field, number) in parts {
        rules::not_negative(&mut errors, &path.child(field), number.into());
    }
    rules::not_negative(&mut errors, &path.child("observedGeneration"), new.observed_generation.unwrap_or(0));
    rules::not_negative(&mut errors, &path.child("collisionCount"), new.collision_count.unwrap_or(0).into());
    for (field, number) in parts {
        if number > new.replicas {
            errors.push(Error::invalid(&path.child(field), number, "cannot be greater than status.replicas"));
        }
    }
    if available > ready {
        let at = path.child("availableReplicas");
        errors.push(Error::invalid(&at, available, "cannot be greater than status.readyReplicas"));
    }
    rules::not_decremented(&mut errors, &path.child("collisionCount"), new.collision_count, old.collision_count);
    errors
}
