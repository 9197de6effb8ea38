//! What holds data is made with a finalizer, so that it stays while it is used; a controller takes the finalizer off.

use super::{Operation, Write};
use crate::{ops::AnyObject, status_of::Result};

/// Group, resource, finalizer.
const GUARDED: &[(&str, &str, &str)] = &[
    ("", "persistentvolumeclaims", "kubernetes.io/pvc-protection"),
    ("", "persistentvolumes", "kubernetes.io/pv-protection"),
    ("storage.k8s.io", "volumeattributesclasses", "kubernetes.io/vac-protection"),
];

pub(super) fn admit(write: &Write<'_>, object: Option<&mut dyn AnyObject>) -> Result<()> {
    if write.operation != Operation::Create || !write.subresource.is_empty() {
        return Ok(());
    }
    let guarded = GUARDED.iter().find(|(group, plural, _)| write.is_of(group, plural));
    if let (Some((.., finalizer)), Some(object)) = (guarded, object) {
        let finalizers = object.meta_mut().finalizers.get_or_insert_default();
        if !finalizers.iter().any(|known| known == finalizer) {
            finalizers.push((*finalizer).to_owned());
        }
    }
    Ok(())
}
