//! Volume attachments: which volume shall be at which node, and whether it is.

use jiff::Timestamp;
use k8s_openapi::api::storage::v1::{VolumeAttachment, VolumeAttachmentStatus, VolumeError};

use super::{blank::drop_blank, cells, rules};
use crate::kind::{AGE, Column, Context, NAME, Strategy, age};
use coracle_proto::{
    field::{Error, Errors, Path},
    name,
    resource::Resource,
};

/// The strategy of `volumeattachments.storage.k8s.io`.
#[derive(Clone, Copy, Debug, Default)]
pub struct VolumeAttachments;

const COLUMNS: &[Column] = &[
    NAME,
    cells::column("Attacher", "The name of the volume driver that MUST handle this request."),
    cells::column("PV", "The name of the persistent volume to attach."),
    cells::column("Node", "The node that the volume should be attached to."),
    cells::boolean("Attached", "Indicates the volume is successfully attached."),
    AGE,
];

const METADATA_SIZE: usize = 256 * 1024;
const MESSAGE_LENGTH: usize = 1024;

fn validate_error(errors: &mut Errors, path: &Path, error: &VolumeError) {
    if error.message.as_ref().is_some_and(|message| message.len() > MESSAGE_LENGTH) {
        errors.push(Error::too_long(&path.child("message"), METADATA_SIZE));
    }
    if let Some(code) = error.error_code.filter(|code| *code < 0) {
        let detail = "must be between 0 and 2147483647, inclusive";
        errors.push(Error::invalid(&path.child("errorCode"), code, detail));
    }
}

fn validate_status(errors: &mut Errors, status: &VolumeAttachmentStatus) {
    let path = Path::new("status");
    let pairs = status.attachment_metadata.iter().flatten();
    if pairs.map(|(key, value)| key.len() + value.len()).sum::<usize>() > METADATA_SIZE {
        errors.push(Error::too_long(&path.child("attachmentMetadata"), METADATA_SIZE));
    }
    for (field, error) in [("attachError", &status.attach_error), ("detachError", &status.detach_error)] {
        if let Some(error) = error {
            validate_error(errors, &path.child(field), error);
        }
    }
}

impl Strategy for VolumeAttachments {
    type Object = VolumeAttachment;

    fn resource(&self) -> &'static Resource {
        super::row_of("storage.k8s.io", "volumeattachments")
    }

    fn default(&self, object: &mut VolumeAttachment) {
        let status = object.status.get_or_insert_default();
        drop_blank(&mut status.attachment_metadata);
    }

    fn prepare_create(&self, object: &mut VolumeAttachment, _: &Context<'_>) {
        object.status = Some(VolumeAttachmentStatus::default());
    }

    fn prepare_update(&self, new: &mut VolumeAttachment, old: &VolumeAttachment, _: &Context<'_>) {
        new.status.clone_from(&old.status);
    }

    fn prepare_status(&self, new: &mut VolumeAttachment, old: &VolumeAttachment, _: &Context<'_>) {
        new.spec.clone_from(&old.spec);
        rules::keep_meta_for_status(&mut new.metadata, &old.metadata);
    }

    fn validate(&self, object: &VolumeAttachment) -> Errors {
        let (mut errors, path) = (Errors::new(), Path::new("spec"));
        let spec = &object.spec;
        rules::csi_driver_name(&mut errors, &path.child("attacher"), &spec.attacher);
        let source = path.child("source");
        let one = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
        match (&spec.source.persistent_volume_name, &spec.source.inline_volume_spec) {
            (None, None) => errors.push(Error::required(&source, one)),
            (Some(_), Some(_)) => errors.push(Error::forbidden(&source, one)),
            (Some(volume), None) => {
                let at = source.child("persistentVolumeName");
                if volume.is_empty() {
                    errors.push(Error::required(&at, "must specify non empty persistentVolumeName"));
                }
                rules::messages(&mut errors, &at, volume, name::dns1123_subdomain(volume));
            }
            (None, Some(inline)) => {
                // Inline volumes are there for drivers that stand in for in-tree volumes; only CSI can be one.
                if inline.csi.is_none() {
                    let at = source.child("inlineVolumeSpec").child("csi");
                    errors.push(Error::required(&at, "only CSI volumes can be attached inline"));
                }
            }
        }
        let node = spec.node_name.as_str();
        rules::messages(&mut errors, &path.child("nodeName"), node, name::dns1123_subdomain(node));
        validate_status(&mut errors, &object.status.clone().unwrap_or_default());
        errors
    }

    fn validate_update(&self, new: &VolumeAttachment, old: &VolumeAttachment) -> Errors {
        let mut errors = self.validate(new);
        rules::immutable(&mut errors, &Path::new("spec"), &new.spec, &old.spec);
        errors
    }

    fn validate_status(&self, new: &VolumeAttachment, _: &VolumeAttachment) -> Errors {
        self.validate(new)
    }

    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &VolumeAttachment, now: Timestamp) -> Vec<serde_json::Value> {
        let spec = &object.spec;
        vec![
            cells::name(&object.metadata),
            spec.attacher.as_str().into(),
            spec.source.persistent_volume_name.as_deref().unwrap_or_default().into(),
            spec.node_name.as_str().into(),
            object.status.as_ref().is_some_and(|status| status.attached).into(),
            age(&object.metadata, now).into(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kinds::testing::{created, faults, refusals, row};

    fn base() -> Value {
        let source = json!({"persistentVolumeName": "pv"});
        json!({"metadata": {"name": "a"}, "spec": {"attacher": "d.example.com", "source": source, "nodeName": "n"}})
    }

    #[test]
    fn faults_are_named() {
        let patches = [
            json!({"spec": {"attacher": "", "source": {"persistentVolumeName": null}, "nodeName": ""}}),
            json!({"spec": {"source": {"inlineVolumeSpec": {}}}}),
            json!({"spec": {"source": {"persistentVolumeName": "_"}}}),
        ];
        let text = faults(&VolumeAttachments, &base(), &patches);
        for needle in [
            "spec.attacher: Required value",
            "spec.source: Required value: must specify exactly one of",
            "spec.source: Forbidden: must specify exactly one of",
            "spec.nodeName: Invalid value: \"\"",
            "spec.source.persistentVolumeName: Invalid value: \"_\"",
        ] {
            assert!(text.contains(needle), "{needle}\n{text}");
        }
        let mut object = created(&VolumeAttachments, &base());
        let error = VolumeError { error_code: Some(-1), message: Some("x".repeat(2000)), ..VolumeError::default() };
        object.status.get_or_insert_default().attach_error = Some(error);
        assert_eq!(VolumeAttachments.validate_status(&object, &object).len(), 2);
    }

    #[test]
    fn the_spec_stays() {
        let text = refusals(&VolumeAttachments, &base(), &[json!({"spec": {"nodeName": "m"}})]);
        assert!(text.contains("field is immutable"), "{text}");
    }

    #[test]
    fn a_row_tells_what_is_where() {
        assert_eq!(row(&VolumeAttachments, &base()), "a | d.example.com | pv | n | false | <unknown>");
    }
}
