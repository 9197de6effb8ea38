//! Namespaces: what names are unique within, and what goes away together.
//!
//! A namespace is deleted in two steps. DELETE marks it (`deletionTimestamp`) and sets `status.phase` to `Terminating`;
//! it stays as long as `spec.finalizers` holds anything. Who empties it (the namespace controller for `kubernetes`)
//! takes its own finalizer out through the `finalize` subresource; with the last one gone the object is removed.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceStatus};

use super::{
    blank::{drop_blank, fill_text, list, text},
    cells, rules,
};
use crate::kind::{AGE, Column, Context, Deletion, NAME, Strategy, age};
use coracle_proto::{
    field::{Error, Errors, Path},
    name::{self, NameRule, label_rule},
    resource::Resource,
};

/// The strategy of `namespaces`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Namespaces;

/// The label that carries the namespace's own name, so that selectors can use it.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// The finalizer of the namespace controller.
pub const FINALIZER: &str = "kubernetes";

const COLUMNS: &[Column] = &[NAME, cells::column("Status", "The status of the namespace"), AGE];

/// Whether nothing holds the namespace any more: no finalizer in its spec and none in its metadata.
#[must_use]
pub fn is_finalized(object: &Namespace) -> bool {
    object.spec.as_ref().is_none_or(|spec| list(&spec.finalizers).is_empty())
        && list(&object.metadata.finalizers).is_empty()
}

fn phase(object: &Namespace) -> &str {
    object.status.as_ref().map_or("", |status| text(&status.phase))
}

/// Everything wrong with finalizers; `indexed` says whether errors name the item.
fn validate_finalizers(object: &Namespace, indexed: bool) -> Errors {
    let mut errors = Errors::new();
    let path = Path::new("spec").child("finalizers");
    let finalizers = object.spec.as_ref().map_or(&[][..], |spec| list(&spec.finalizers));
    for (i, finalizer) in finalizers.iter().enumerate() {
        let at = if indexed { path.index(i) } else { path.clone() };
        rules::messages(&mut errors, &at, finalizer, name::qualified_name(finalizer));
        let is_standard = matches!(finalizer.as_str(), FINALIZER | "orphan" | "foregroundDeletion");
        if !finalizer.contains('/') && !is_standard {
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            errors.push(Error::invalid(&at, finalizer.as_str(), detail));
        }
    }
    errors
}

impl Strategy for Namespaces {
    type Object = Namespace;

    fn resource(&self) -> &'static Resource {
        super::row_of("", "namespaces")
    }

    fn default(&self, object: &mut Namespace) {
        let name = text(&object.metadata.name).to_owned();
        if !name.is_empty() {
            object.metadata.labels.get_or_insert_default().insert(NAME_LABEL.to_owned(), name);
        }
        drop_blank(&mut object.spec.get_or_insert_default().finalizers);
        fill_text(&mut object.status.get_or_insert_default().phase, "Active");
    }

    fn prepare_create(&self, object: &mut Namespace, _: &Context<'_>) {
        object.status = Some(NamespaceStatus { phase: Some("Active".to_owned()), ..NamespaceStatus::default() });
        let finalizers = object.spec.get_or_insert_default().finalizers.get_or_insert_default();
        if !finalizers.iter().any(|f| f == FINALIZER) {
            finalizers.push(FINALIZER.to_owned());
        }
        self.default(object);
    }

    fn prepare_update(&self, new: &mut Namespace, old: &Namespace, _: &Context<'_>) {
        new.spec.clone_from(&old.spec);
        new.status.clone_from(&old.status);
    }

    fn prepare_status(&self, new: &mut Namespace, old: &Namespace, _: &Context<'_>) {
        new.spec.clone_from(&old.spec);
    }

    fn prepare_finalize(&self, new: &mut Namespace, old: &Namespace, _: &Context<'_>) {
        new.status.clone_from(&old.status);
    }

    fn name_rule(&self) -> NameRule {
        label_rule
    }

    fn validate(&self, object: &Namespace) -> Errors {
        validate_finalizers(object, false)
    }

    fn validate_status(&self, new: &Namespace, _: &Namespace) -> Errors {
        let (allowed, detail) = match new.metadata.deletion_timestamp {
            None => ("Active", "may only be 'Active' if `deletionTimestamp` is empty"),
            Some(_) => ("Terminating", "may only be 'Terminating' if `deletionTimestamp` is not empty"),
        };
        // The capital is Kubernetes'.
        let at = Path::new("status").child("Phase");
        if phase(new) == allowed { Errors::new() } else { vec![Error::invalid(&at, phase(new), detail)] }
    }

    fn validate_finalize(&self, new: &Namespace, _: &Namespace) -> Errors {
        validate_finalizers(new, true)
    }

    fn begin_deletion(&self, object: &mut Namespace, _: Option<i64>) -> Deletion {
        if is_finalized(object) {
            return Deletion::Immediate;
        }
        object.status.get_or_insert_default().phase = Some("Terminating".to_owned());
        Deletion::Graceful { seconds: 0 }
    }

    fn is_finalized(&self, object: &Namespace) -> bool {
        is_finalized(object)
    }

    fn fields(&self, object: &Namespace) -> Vec<(&'static str, String)> {
        // `name` is served beside `metadata.name` because Kubernetes once did and clients use it.
        vec![("status.phase", phase(object).to_owned()), ("name", text(&object.metadata.name).to_owned())]
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Namespace, now: Timestamp) -> Vec<serde_json::Value> {
        vec![cells::name(&object.metadata), phase(object).into(), age(&object.metadata, now).into()]
    }
}

#[cfg(test)]
mod tests;
