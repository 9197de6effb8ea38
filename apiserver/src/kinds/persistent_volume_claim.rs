//! PersistentVolumeClaims: what a pod asks of a volume.

mod validation;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeClaimStatus, TypedLocalObjectReference,
    TypedObjectReference,
};

pub(super) use validation::validate_spec;

use super::{
    blank::{drop_blank, fill, fill_text, list, text},
    cells, resources, volume_access,
};
use crate::kind::{AGE, Column, Context, NAME, Strategy, age};
use coracle_proto::{
    field::{Errors, Path},
    resource::Resource,
};

/// The strategy of `persistentvolumeclaims`.
#[derive(Clone, Copy, Debug, Default)]
pub struct PersistentVolumeClaims;

const COLUMNS: &[Column] = &[
    NAME,
    cells::column("Status", "Whether it is bound to a volume."),
    cells::column("Volume", "The volume it is bound to."),
    cells::column("Capacity", "How much the volume holds."),
    cells::column("Access Modes", "How the volume may be mounted."),
    cells::column("StorageClass", "StorageClass of the pvc"),
    cells::column("VolumeAttributesClass", "VolumeAttributesClass of the pvc"),
    AGE,
    cells::wide("VolumeMode", "Whether the volume is mounted as files or given as a device."),
];

/// Fills in what the claim left out; claims stand in StatefulSets as well.
pub(super) fn default(claim: &mut PersistentVolumeClaim) {
    let spec = claim.spec.get_or_insert_default();
    fill(&mut spec.volume_mode, "Filesystem".to_owned());
    drop_blank(&mut spec.access_modes);
    drop_blank(&mut spec.volume_name);
    let amounts = spec.resources.get_or_insert_default();
    for list in [&mut amounts.limits, &mut amounts.requests] {
        drop_blank(list);
        list.iter_mut().for_each(resources::canonical);
    }
    let status = claim.status.get_or_insert_default();
    fill_text(&mut status.phase, "Pending");
    drop_blank(&mut status.access_modes);
    for list in [&mut status.capacity, &mut status.allocated_resources] {
        drop_blank(list);
        list.iter_mut().for_each(resources::canonical);
    }
}

/// The warnings about a claim's spec.
pub(super) fn spec_warnings(path: &Path, spec: Option<&PersistentVolumeClaimSpec>) -> Vec<String> {
    let Some(amounts) = spec.and_then(|spec| spec.resources.as_ref()) else { return Vec::new() };
    let halves = [("requests", &amounts.requests), ("limits", &amounts.limits)];
    let storage = halves.into_iter().filter_map(|(half, list)| Some((half, list.as_ref()?.get("storage")?)));
    storage
        .filter(|(_, quantity)| resources::parse(quantity).is_some_and(|amount| amount.milli_value() % 1000 != 0))
        .map(|(half, quantity)| {
            let at = path.child("resources").child(half).key("storage");
            format!("{at}: fractional byte value {:?} is invalid, must be an integer", quantity.0)
        })
        .collect()
}

/// A source may be named in two fields; what stands in the one is copied to the other (KEP-1495). In the older field
/// nothing but claims and snapshots was ever taken.
fn settle_sources(new: &mut PersistentVolumeClaimSpec, old: Option<&PersistentVolumeClaimSpec>) {
    let is_used = |spec: &PersistentVolumeClaimSpec| spec.data_source.is_some() || spec.data_source_ref.is_some();
    // Sources in other namespaces are behind a gate that is off (KEP-3294).
    let crosses = |source: &TypedObjectReference| !text(&source.namespace).is_empty();
    if new.data_source_ref.as_ref().is_some_and(crosses) && old.is_none_or(|old| old.data_source_ref.is_none()) {
        new.data_source_ref = None;
    }
    if !old.is_some_and(is_used) && new.data_source_ref.is_none() {
        let is_taken = |source: &TypedLocalObjectReference| {
            matches!(
                (text(&source.api_group), source.kind.as_str()),
                ("", "PersistentVolumeClaim") | ("snapshot.storage.k8s.io", "VolumeSnapshot")
            )
        };
        new.data_source = new.data_source.take().filter(is_taken);
    }
    match (&new.data_source, &new.data_source_ref) {
        (Some(source), None) => {
            new.data_source_ref = Some(TypedObjectReference {
                api_group: source.api_group.clone(),
                kind: source.kind.clone(),
                name: source.name.clone(),
                namespace: None,
            });
        }
        (None, Some(source)) if !crosses(source) => {
            new.data_source = Some(TypedLocalObjectReference {
                api_group: source.api_group.clone(),
                kind: source.kind.clone(),
                name: source.name.clone(),
            });
        }
        _ => {}
    }
}

impl Strategy for PersistentVolumeClaims {
    type Object = PersistentVolumeClaim;

    fn resource(&self) -> &'static Resource {
        super::row_of("", "persistentvolumeclaims")
    }

    fn default(&self, object: &mut PersistentVolumeClaim) {
        default(object);
    }

    fn prepare_create(&self, object: &mut PersistentVolumeClaim, _: &Context<'_>) {
        let status = PersistentVolumeClaimStatus { phase: Some("Pending".to_owned()), ..Default::default() };
        object.status = Some(status);
        settle_sources(object.spec.get_or_insert_default(), None);
    }

    fn prepare_update(&self, new: &mut PersistentVolumeClaim, old: &PersistentVolumeClaim, _: &Context<'_>) {
        new.status.clone_from(&old.status);
        settle_sources(new.spec.get_or_insert_default(), old.spec.as_ref());
    }

    fn prepare_status(&self, new: &mut PersistentVolumeClaim, old: &PersistentVolumeClaim, _: &Context<'_>) {
        new.spec.clone_from(&old.spec);
    }

    fn validate(&self, object: &PersistentVolumeClaim) -> Errors {
        let mut errors = Errors::new();
        validate_spec(&mut errors, &Path::new("spec"), &object.spec.clone().unwrap_or_default());
        errors
    }

    fn validate_update(&self, new: &PersistentVolumeClaim, old: &PersistentVolumeClaim) -> Errors {
        let mut errors = self.validate(new);
        validation::validate_update(&mut errors, new, old);
        errors
    }

    fn validate_status(&self, new: &PersistentVolumeClaim, _: &PersistentVolumeClaim) -> Errors {
        validation::validate_status(&new.status.clone().unwrap_or_default())
    }

    fn warnings(&self, object: &PersistentVolumeClaim) -> Vec<String> {
        let mut warnings = Vec::new();
        let annotations = object.metadata.annotations.as_ref();
        if annotations.is_some_and(|annotations| annotations.contains_key(volume_access::CLASS_ANNOTATION)) {
            let at = Path::new("metadata").child("annotations").key(volume_access::CLASS_ANNOTATION);
            warnings.push(format!("{at}: deprecated since v1.8; use \"storageClassName\" attribute instead"));
        }
        warnings.extend(spec_warnings(&Path::new("spec"), object.spec.as_ref()));
        warnings
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &PersistentVolumeClaim, now: Timestamp) -> Vec<serde_json::Value> {
        let (spec, status) = (object.spec.clone().unwrap_or_default(), object.status.clone().unwrap_or_default());
        let is_deleting = object.metadata.deletion_timestamp.is_some();
        let phase = if is_deleting { "Terminating" } else { text(&status.phase) };
        let (mut capacity, mut modes) = (String::new(), String::new());
        if !text(&spec.volume_name).is_empty() {
            capacity = cells::storage(status.capacity.as_ref());
            modes = volume_access::shown(list(&status.access_modes));
        }
        vec![
            cells::name(&object.metadata),
            phase.into(),
            text(&spec.volume_name).into(),
            capacity.into(),
            modes.into(),
            volume_access::class(&object.metadata, spec.storage_class_name.as_ref()).into(),
            spec.volume_attributes_class_name.unwrap_or_else(|| cells::UNSET.to_owned()).into(),
            age(&object.metadata, now).into(),
            spec.volume_mode.unwrap_or_else(|| cells::UNSET.to_owned()).into(),
        ]
    }
}

#[cfg(test)]
mod tests;
