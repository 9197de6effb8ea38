//! kubectl's annotation with what it applied last, from before there was server-side apply.
//!
//! Who applied with kubectl on the client's side owns those fields by a plain update. When the same person goes over to
//! server-side apply, that is no conflict: fields that are still as the annotation has them are kubectl's own.

use coracle_proto::{apply::Set, meta::ANNOTATIONS_SIZE_LIMIT};
use serde_json::Value;

use super::Owners;
use crate::ops::KindOps;

/// The manager whose annotation it is.
pub(super) const KUBECTL: &str = "kubectl";

const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The fields kubectl applied last that are still so; none without a readable annotation in the object's own version.
pub(super) fn still_so(owners: &dyn Owners, kind: &dyn KindOps, live: &Value) -> Option<Set> {
    let text = live.pointer("/metadata/annotations")?.get(ANNOTATION)?.as_str()?;
    let last: Value = serde_json::from_str(text).ok()?;
    if last.get("apiVersion")?.as_str()? != kind.resource().api_version() {
        return None;
    }
    let last = kind.modernized(&last).unwrap_or(last);
    owners.check(&last).ok()?;
    Some(owners.still_so(live, &last))
}

/// Puts the annotation up to date where there is one, so that going back to client-side apply is safe.
pub(super) fn sync(object: &mut Value, config: &Value) {
    let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) else { return };
    if annotations.get(ANNOTATION).and_then(Value::as_str).is_none_or(str::is_empty) {
        return;
    }
    let mut config = config.clone();
    if let Some(annotations) = config.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.remove(ANNOTATION);
    }
    annotations.remove(ANNOTATION);
    let text = format!("{config}\n");
    let others: usize = annotations.iter().map(|(key, value)| key.len() + value.as_str().map_or(0, str::len)).sum();
    if others + ANNOTATION.len() + text.len() <= ANNOTATIONS_SIZE_LIMIT {
        annotations.insert(ANNOTATION.to_owned(), text.into());
    }
}
