//! What makes a claim invalid, and which changes of it are forbidden.

use coracle_proto::{
    field::{Error, Errors, Path},
    name,
    quantity::Quantity as Amount,
};
use k8s_openapi::{
    api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeClaimStatus},
    apimachinery::pkg::api::resource::Quantity,
};

use crate::kinds::{
    blank::{list, text},
    difference, label_selector, resources, rules, volume_access,
};

/// Everything wrong with a claim's spec.
pub(in crate::kinds) fn validate_spec(errors: &mut Errors, path: &Path, spec: &PersistentVolumeClaimSpec) {
    let modes = list(&spec.access_modes);
    let at = path.child("accessModes");
    if modes.is_empty() {
        errors.push(Error::required(&at, "at least 1 access mode is required"));
    }
    if let Some(selector) = &spec.selector {
        label_selector::validate(errors, &path.child("selector"), selector);
    }
    volume_access::validate_modes(errors, &at, modes);
    validate_request(errors, &path.child("resources").key("storage"), requested(spec));
    for (name, quantity) in spec.resources.iter().filter_map(|resources| resources.limits.as_ref()).flatten() {
        let _ = resources::read(errors, &path.child("resources").child("limits").key(name), quantity);
    }
    if let Some(class) = spec.storage_class_name.as_ref().filter(|class| !class.is_empty()) {
        volume_access::validate_class(errors, &path.child("storageClassName"), class);
    }
    volume_access::validate_volume_mode(errors, &path.child("volumeMode"), spec.volume_mode.as_ref());
    validate_sources(errors, path, spec);
    if let Some(class) = spec.volume_attributes_class_name.as_ref().filter(|class| !class.is_empty()) {
        volume_access::validate_class(errors, &path.child("volumeAttributesClassName"), class);
    }
}

fn requested(spec: &PersistentVolumeClaimSpec) -> Option<&Quantity> {
    spec.resources.as_ref()?.requests.as_ref()?.get("storage")
}

fn validate_request(errors: &mut Errors, path: &Path, quantity: Option<&Quantity>) {
    let Some(quantity) = quantity else {
        errors.push(Error::required(path, ""));
        return;
    };
    if let Some(amount) = resources::parse(quantity)
        && amount <= Amount::ZERO
    {
        errors.push(Error::invalid(path, amount.to_string(), "must be greater than zero"));
    } else {
        resources::validate_amount(errors, path, "storage", quantity);
    }
}

fn validate_source(errors: &mut Errors, path: &Path, (group, kind, name): (&str, &str, &str)) {
    if name.is_empty() {
        errors.push(Error::required(&path.child("name"), ""));
    }
    if kind.is_empty() {
        errors.push(Error::required(&path.child("kind"), ""));
    }
    if group.is_empty() && kind != "PersistentVolumeClaim" {
        let detail = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
        errors.push(Error::invalid(path, kind, detail));
    }
    if !group.is_empty() {
        rules::messages(errors, &path.child("apiGroup"), group, name::dns1123_subdomain(group));
    }
}

fn validate_sources(errors: &mut Errors, path: &Path, spec: &PersistentVolumeClaimSpec) {
    if let Some(source) = &spec.data_source {
        let parts = (text(&source.api_group), source.kind.as_str(), source.name.as_str());
        validate_source(errors, &path.child("dataSource"), parts);
    }
    let Some(other) = &spec.data_source_ref else { return };
    let (at, namespace) = (path.child("dataSourceRef"), text(&other.namespace));
    validate_source(errors, &at, (text(&other.api_group), &other.kind, &other.name));
    if !namespace.is_empty() {
        rules::messages(errors, &at.child("namespace"), namespace, name::dns1123_label(namespace));
    }
    let Some(source) = &spec.data_source else { return };
    let are_same =
        text(&source.api_group) == text(&other.api_group) && source.kind == other.kind && source.name == other.name;
    // The value in the message is the path's text, as Kubernetes has it.
    let named = path.child("dataSource");
    if !namespace.is_empty() {
        let detail = "may not be specified when dataSourceRef.namespace is specified";
        errors.push(Error::invalid(path, named.as_str(), detail));
    } else if !are_same {
        errors.push(Error::invalid(path, named.as_str(), "must match dataSourceRef"));
    }
}

fn amount(quantity: Option<&Quantity>) -> Amount {
    quantity.and_then(resources::parse).unwrap_or(Amount::ZERO)
}

/// Everything wrong with changing `old` into `new`, beside what is wrong with `new` itself.
pub(super) fn validate_update(errors: &mut Errors, new: &PersistentVolumeClaim, old: &PersistentVolumeClaim) {
    let (after, before) = (new.spec.clone().unwrap_or_default(), old.spec.clone().unwrap_or_default());
    let path = Path::new("spec");
    let (mut rest, mut kept) = (after.clone(), before.clone());
    if text(&before.volume_name).is_empty() {
        // A volume is bound once.
        kept.volume_name.clone_from(&after.volume_name);
    }
    validate_class_change(errors, new, old, &mut rest, &kept);
    let is_bound = new.status.as_ref().is_some_and(|status| text(&status.phase) == "Bound");
    if is_bound {
        // A bound claim may ask for more; whether it gets it is up to the class.
        let asked = rest.resources.as_mut().and_then(|amounts| amounts.requests.as_mut());
        if let Some(asked) = asked {
            match requested(&before) {
                Some(quantity) => asked.insert("storage".to_owned(), quantity.clone()),
                None => asked.remove("storage"),
            };
        }
        rest.volume_attributes_class_name.clone_from(&kept.volume_attributes_class_name);
    }
    if rest != kept {
        let difference = difference::between(&rules::json(&kept), &rules::json(&rest));
        let detail = format!(
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound \
             claims\n{difference}"
        );
        errors.push(Error::forbidden(&path, &detail));
    }
    let holds = old.status.as_ref().and_then(|status| status.capacity.as_ref()).and_then(|list| list.get("storage"));
    let (now, then) = (amount(requested(&after)), amount(requested(&before)));
    // An expansion that failed may be taken back, but not below what the volume holds already (KEP-1790).
    if now < then && now <= amount(holds) {
        let at = path.child("resources").child("requests").child("storage");
        errors.push(Error::forbidden(&at, "field can not be less than status.capacity"));
    }
    rules::immutable(errors, &Path::new("volumeMode"), &after.volume_mode, &before.volume_mode);
    let (class, class_before) = (&after.volume_attributes_class_name, &before.volume_attributes_class_name);
    let is_applied = old.status.as_ref().is_some_and(|s| s.current_volume_attributes_class_name.is_some());
    if class != class_before && is_applied {
        let at = path.child("volumeAttributesClassName");
        let what = match class {
            None => "nil",
            Some(class) if class.is_empty() => "empty string",
            Some(_) => return,
        };
        let detail = format!("update to {what} is forbidden when status.currentVolumeAttributesClassName is not nil");
        errors.push(Error::forbidden(&at, &detail));
    }
}

/// The class stays, but may move from its annotation to its field, and be filled in where there was none.
fn validate_class_change(
    errors: &mut Errors,
    new: &PersistentVolumeClaim,
    old: &PersistentVolumeClaim,
    rest: &mut PersistentVolumeClaimSpec,
    kept: &PersistentVolumeClaimSpec,
) {
    let annotation = |claim: &PersistentVolumeClaim| {
        claim.metadata.annotations.as_ref().and_then(|a| a.get(volume_access::CLASS_ANNOTATION)).cloned()
    };
    let (now, then) = (annotation(new), annotation(old));
    let field = rest.storage_class_name.clone();
    let moves = then.is_some()
        && kept.storage_class_name.is_none()
        && now.as_ref().is_none_or(|now| Some(now) == then.as_ref())
        && field == then;
    if moves {
        rest.storage_class_name = None;
        return;
    }
    if now != then {
        let at = Path::new("metadata").child("annotations").child(volume_access::CLASS_ANNOTATION);
        errors.push(Error::immutable(&at, now.clone().unwrap_or_default()));
    }
    if then.is_none() && kept.storage_class_name.is_none() && field.is_some() {
        rest.storage_class_name = None;
    }
}

const RESIZE_STATUSES: &[&str] = &[
    "ControllerResizeInProgress",
    "ControllerResizeInfeasible",
    "NodeResizeInProgress",
    "NodeResizeInfeasible",
    "NodeResizePending",
];

fn validate_key(errors: &mut Errors, path: &Path, key: &str) -> bool {
    let before = errors.len();
    rules::label_name(errors, path, key);
    let is_native = !key.contains('/') || key.contains("kubernetes.io/");
    if errors.len() == before && is_native && key != "storage" {
        errors.push(Error::not_supported(path, key, &["storage"]));
    }
    errors.len() == before
}

/// Everything wrong with a new status.
pub(super) fn validate_status(status: &PersistentVolumeClaimStatus) -> Errors {
    let (mut errors, path) = (Errors::new(), Path::new("status"));
    for (name, quantity) in status.capacity.iter().flatten() {
        resources::validate_basic(&mut errors, &path.child("capacity").key(name), quantity);
    }
    let at = path.child("allocatedResourceStatuses");
    for (name, word) in status.allocated_resource_statuses.iter().flatten() {
        validate_key(&mut errors, &at, name);
        if !RESIZE_STATUSES.contains(&word.as_str()) {
            // The value in the message is the resource's name, as Kubernetes has it.
            errors.push(Error::not_supported(&at, name.as_str(), RESIZE_STATUSES));
        }
    }
    let at = path.child("allocatedResources");
    for (name, quantity) in status.allocated_resources.iter().flatten() {
        if !validate_key(&mut errors, &at, name) {
            continue;
        }
        if resources::validate_basic(&mut errors, &at.key(name), quantity) {
            resources::validate_amount(&mut errors, &at.key(name), "storage", quantity);
        }
    }
    errors
}
