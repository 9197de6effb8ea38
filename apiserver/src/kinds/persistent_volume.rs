//! PersistentVolumes: storage that outlives pods.

mod validation;

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{PersistentVolume, PersistentVolumeSpec, PersistentVolumeStatus},
    apimachinery::pkg::apis::meta::v1::Time,
};

use super::{
    blank::{drop_blank, fill, fill_text, list, text},
    cells, object_reference, resources, volume_access,
};
use crate::kind::{AGE, Column, Context, NAME, Strategy, age};
use coracle_proto::{field::Errors, resource::Resource};

/// The strategy of `persistentvolumes`.
#[derive(Clone, Copy, Debug, Default)]
pub struct PersistentVolumes;

const COLUMNS: &[Column] = &[
    NAME,
    cells::column("Capacity", "How much the volume holds."),
    cells::column("Access Modes", "How the volume may be mounted."),
    cells::column("Reclaim Policy", "What becomes of the volume when its claim is deleted."),
    cells::column("Status", "Whether it is available, bound to a claim, or released by a claim."),
    cells::column("Claim", "The claim it is bound to, or set aside for."),
    cells::column("StorageClass", "StorageClass of the pv"),
    cells::column("VolumeAttributesClass", "VolumeAttributesClass of the pv"),
    cells::column("Reason", "Why it is in its state, in one word for machines."),
    AGE,
    cells::wide("VolumeMode", "Whether the volume is mounted as files or given as a device."),
];

/// Kinds of volumes that Kubernetes no longer knows how to mount: field, since when deprecated, since when gone.
fn gone_sources(spec: &PersistentVolumeSpec) -> impl Iterator<Item = String> {
    let all = [
        (spec.cephfs.is_some(), "cephfs", "1.28", "1.31"),
        (spec.photon_persistent_disk.is_some(), "photonPersistentDisk", "1.11", "1.16"),
        (spec.scale_io.is_some(), "scaleIO", "1.16", "1.22"),
        (spec.storageos.is_some(), "storageOS", "1.22", "1.25"),
        (spec.glusterfs.is_some(), "glusterfs", "1.25", "1.26"),
        (spec.rbd.is_some(), "rbd", "1.28", "1.31"),
    ];
    all.into_iter()
        .filter(|(is_there, ..)| *is_there)
        .map(|(_, field, since, gone)| format!("spec.{field}: deprecated in v{since}, non-functional in v{gone}+"))
}

impl Strategy for PersistentVolumes {
    type Object = PersistentVolume;

    fn resource(&self) -> &'static Resource {
        super::row_of("", "persistentvolumes")
    }

    fn default(&self, object: &mut PersistentVolume) {
        fill_text(&mut object.status.get_or_insert_default().phase, "Pending");
        let spec = object.spec.get_or_insert_default();
        fill_text(&mut spec.persistent_volume_reclaim_policy, "Retain");
        fill(&mut spec.volume_mode, "Filesystem".to_owned());
        drop_blank(&mut spec.access_modes);
        drop_blank(&mut spec.mount_options);
        drop_blank(&mut spec.storage_class_name);
        drop_blank(&mut spec.capacity);
        spec.capacity.iter_mut().for_each(resources::canonical);
        if let Some(claim) = &mut spec.claim_ref {
            object_reference::drop_blanks(claim);
        }
        if let Some(source) = &mut spec.host_path {
            source.type_.get_or_insert_default();
        }
        if let Some(source) = &mut spec.csi {
            drop_blank(&mut source.read_only);
            drop_blank(&mut source.fs_type);
            drop_blank(&mut source.volume_attributes);
        }
        if let Some(source) = &mut spec.nfs {
            drop_blank(&mut source.read_only);
        }
    }

    fn prepare_create(&self, object: &mut PersistentVolume, context: &Context<'_>) {
        object.status = Some(PersistentVolumeStatus {
            phase: Some("Pending".to_owned()),
            last_phase_transition_time: Some(Time(context.now)),
            ..PersistentVolumeStatus::default()
        });
    }

    fn prepare_update(&self, new: &mut PersistentVolume, old: &PersistentVolume, _: &Context<'_>) {
        new.status.clone_from(&old.status);
    }

    fn prepare_status(&self, new: &mut PersistentVolume, old: &PersistentVolume, context: &Context<'_>) {
        new.spec.clone_from(&old.spec);
        let before = old.status.clone().unwrap_or_default();
        let status = new.status.get_or_insert_default();
        let is_same_time = status.last_phase_transition_time == before.last_phase_transition_time;
        let is_untold = status.last_phase_transition_time.is_none();
        // Who does not write the time has it written (KEP-3762).
        if status.phase == before.phase {
            if is_untold {
                status.last_phase_transition_time = before.last_phase_transition_time;
            }
        } else if is_untold || is_same_time {
            status.last_phase_transition_time = Some(Time(context.now));
        }
    }

    fn validate(&self, object: &PersistentVolume) -> Errors {
        validation::validate(object)
    }

    fn validate_update(&self, new: &PersistentVolume, old: &PersistentVolume) -> Errors {
        let mut errors = validation::validate(new);
        validation::validate_update(&mut errors, new, old);
        errors
    }

    fn warnings(&self, object: &PersistentVolume) -> Vec<String> {
        let mut warnings = Vec::new();
        for (key, why) in [
            (volume_access::CLASS_ANNOTATION, "deprecated since v1.8; use \"storageClassName\" attribute instead"),
            (
                "volume.beta.kubernetes.io/mount-options",
                "deprecated since v1.31; use \"mountOptions\" attribute instead",
            ),
        ] {
            if object.metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(key)) {
                warnings.push(format!("metadata.annotations[{key}]: {why}"));
            }
        }
        let Some(spec) = &object.spec else { return warnings };
        if text(&spec.persistent_volume_reclaim_policy) == "Recycle" {
            let why = "The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic \
                       provisioning.";
            warnings.push(format!("spec.persistentVolumeReclaimPolicy: {why}"));
        }
        warnings.extend(gone_sources(spec));
        warnings
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &PersistentVolume, now: Timestamp) -> Vec<serde_json::Value> {
        let (spec, status) = (object.spec.clone().unwrap_or_default(), object.status.clone().unwrap_or_default());
        let is_deleting = object.metadata.deletion_timestamp.is_some();
        let phase = if is_deleting { "Terminating" } else { text(&status.phase) };
        let claim = spec.claim_ref.as_ref().map(|claim| format!("{}/{}", text(&claim.namespace), text(&claim.name)));
        vec![
            cells::name(&object.metadata),
            cells::storage(spec.capacity.as_ref()).into(),
            volume_access::shown(list(&spec.access_modes)).into(),
            text(&spec.persistent_volume_reclaim_policy).into(),
            phase.into(),
            claim.unwrap_or_default().into(),
            volume_access::class(&object.metadata, spec.storage_class_name.as_ref()).into(),
            spec.volume_attributes_class_name.unwrap_or_else(|| cells::UNSET.to_owned()).into(),
            text(&status.reason).into(),
            age(&object.metadata, now).into(),
            spec.volume_mode.unwrap_or_else(|| cells::UNSET.to_owned()).into(),
        ]
    }
}

#[cfg(test)]
mod tests;
