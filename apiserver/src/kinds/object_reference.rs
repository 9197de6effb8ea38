//! References from one object to another.

use k8s_openapi::api::core::v1::ObjectReference;

use super::blank::drop_blank;

/// Makes empty parts of a reference absent.
pub(super) fn drop_blanks(reference: &mut ObjectReference) {
    for part in [
        &mut reference.api_version,
        &mut reference.field_path,
        &mut reference.kind,
        &mut reference.name,
        &mut reference.namespace,
        &mut reference.resource_version,
        &mut reference.uid,
    ] {
        drop_blank(part);
    }
}
