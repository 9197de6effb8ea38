//! How volumes may be mounted: what volumes and claims for them say in the same words.

use coracle_proto::{
    field::{Error, Errors, Path},
    name,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::rules;

/// The access modes with their short names, in the order tables show them.
const MODES: &[(&str, &str)] =
    &[("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];

/// How a class was named before there was a field for it.
pub(super) const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

/// Everything wrong with access modes, of which there is one at least.
pub(super) fn validate_modes(errors: &mut Errors, path: &Path, modes: &[String]) {
    let mut names: Vec<&str> = MODES.iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    for mode in modes {
        rules::known_word(errors, path, mode, &names);
    }
    let is_exclusive = |mode: &String| mode == "ReadWriteOncePod";
    let is_other = |mode: &String| !is_exclusive(mode) && names.contains(&mode.as_str());
    if modes.iter().any(is_exclusive) && modes.iter().any(is_other) {
        errors.push(Error::forbidden(path, "may not use ReadWriteOncePod with other access modes"));
    }
}

/// Whether it is mounted as files or given as a device.
pub(super) fn validate_volume_mode(errors: &mut Errors, path: &Path, mode: Option<&String>) {
    if let Some(mode) = mode {
        rules::known_word(errors, path, mode, &["Block", "Filesystem"]);
    }
}

/// The name of a class.
pub(super) fn validate_class(errors: &mut Errors, path: &Path, class: &str) {
    rules::messages(errors, path, class, name::dns1123_subdomain(class));
}

/// Access modes as a table shows them: `RWO,ROX`, each once.
pub(super) fn shown(modes: &[String]) -> String {
    let short = MODES.iter().filter(|(name, _)| modes.iter().any(|mode| mode == name)).map(|(_, short)| *short);
    short.collect::<Vec<_>>().join(",")
}

/// The class that the object names: by annotation, or else by field.
pub(super) fn class(meta: &ObjectMeta, field: Option<&String>) -> String {
    let annotation = meta.annotations.as_ref().and_then(|annotations| annotations.get(CLASS_ANNOTATION));
    annotation.or(field).cloned().unwrap_or_default()
}
