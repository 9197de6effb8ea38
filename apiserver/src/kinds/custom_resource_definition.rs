//! CustomResourceDefinitions: kinds that users add to the API.
//!
//! Here is what makes a definition one; what it does to the API is in [`crate::custom`]. A DELETE marks it, for its
//! objects go first: who follows definitions removes them and then the finalizer that is added here.

mod validation;

use jiff::Timestamp;
use k8s_openapi::{
    apiextensions_apiserver::pkg::apis::apiextensions::v1::{
        CustomResourceConversion, CustomResourceDefinition, CustomResourceDefinitionCondition,
        CustomResourceDefinitionStatus,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};

use super::{
    blank::{drop_blank, fill_text, list},
    cells,
};
use crate::{
    custom::formats,
    kind::{Column, Context, Deletion, NAME, Strategy},
};
use coracle_proto::{field::Errors, resource::Resource};

/// The strategy of `customresourcedefinitions.apiextensions.k8s.io`.
#[derive(Clone, Copy, Debug, Default)]
pub struct CustomResourceDefinitions;

/// What keeps a definition until its objects are gone.
pub const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

const COLUMNS: &[Column] = &[
    NAME,
    cells::column(
        "Created At",
        "CreationTimestamp is a timestamp representing the server time when this object was created.",
    ),
];

/// Sets a condition; its time stays as long as its status does.
pub(crate) fn set_condition(status: &mut CustomResourceDefinitionStatus, new: CustomResourceDefinitionCondition) {
    let conditions = status.conditions.get_or_insert_default();
    match conditions.iter_mut().find(|known| known.type_ == new.type_) {
        Some(known) => {
            let is_same = known.status == new.status && known.last_transition_time.is_some();
            let since = if is_same { known.last_transition_time.clone() } else { new.last_transition_time.clone() };
            *known = CustomResourceDefinitionCondition { last_transition_time: since, ..new };
        }
        None => conditions.push(new),
    }
}

/// Whether a condition is true.
fn is_true(object: &CustomResourceDefinition, condition: &str) -> bool {
    let conditions = object.status.as_ref().map_or(&[][..], |status| list(&status.conditions));
    conditions.iter().any(|known| known.type_ == condition && known.status == "True")
}

/// The version that is stored is among those that ever were.
fn note_stored(object: &mut CustomResourceDefinition) {
    let Some(storage) = object.spec.versions.iter().find(|version| version.storage) else { return };
    let stored = object.status.get_or_insert_default().stored_versions.get_or_insert_default();
    if !stored.contains(&storage.name) {
        stored.push(storage.name.clone());
    }
}

impl Strategy for CustomResourceDefinitions {
    type Object = CustomResourceDefinition;

    fn resource(&self) -> &'static Resource {
        super::row_of("apiextensions.k8s.io", "customresourcedefinitions")
    }

    fn default(&self, object: &mut CustomResourceDefinition) {
        let names = &mut object.spec.names;
        if !names.kind.is_empty() {
            fill_text(&mut names.singular, &names.kind.to_lowercase());
            fill_text(&mut names.list_kind, &format!("{}List", names.kind));
        }
        drop_blank(&mut names.short_names);
        drop_blank(&mut names.categories);
        let conversion = object.spec.conversion.get_or_insert_with(CustomResourceConversion::default);
        if conversion.strategy.is_empty() {
            "None".clone_into(&mut conversion.strategy);
        }
        let service = conversion.webhook.as_mut().and_then(|webhook| webhook.client_config.as_mut()?.service.as_mut());
        if let Some(service) = service {
            service.port.get_or_insert(443);
        }
        if object.spec.preserve_unknown_fields == Some(false) {
            object.spec.preserve_unknown_fields = None;
        }
        for version in &mut object.spec.versions {
            drop_blank(&mut version.additional_printer_columns);
            drop_blank(&mut version.deprecated);
        }
    }

    fn prepare_create(&self, object: &mut CustomResourceDefinition, _: &Context<'_>) {
        object.status = None;
        note_stored(object);
    }

    fn counts_generations(&self) -> bool {
        true
    }

    fn validate(&self, object: &CustomResourceDefinition) -> Errors {
        validation::whole(object, None)
    }

    fn prepare_update(&self, new: &mut CustomResourceDefinition, old: &CustomResourceDefinition, _: &Context<'_>) {
        new.status.clone_from(&old.status);
        note_stored(new);
    }

    fn validate_update(&self, new: &CustomResourceDefinition, old: &CustomResourceDefinition) -> Errors {
        validation::whole(new, Some(old))
    }

    fn prepare_status(&self, new: &mut CustomResourceDefinition, old: &CustomResourceDefinition, _: &Context<'_>) {
        new.spec.clone_from(&old.spec);
        let owned = (new.metadata.managed_fields.take(), new.metadata.resource_version.take());
        new.metadata.clone_from(&old.metadata);
        (new.metadata.managed_fields, new.metadata.resource_version) = owned;
    }

    fn validate_status(&self, new: &CustomResourceDefinition, _: &CustomResourceDefinition) -> Errors {
        validation::stored_versions(new)
    }

    fn begin_deletion(&self, object: &mut CustomResourceDefinition, _: Option<i64>) -> Deletion {
        let finalizers = object.metadata.finalizers.get_or_insert_default();
        if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
            finalizers.push(FINALIZER.to_owned());
        }
        let message = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
        let condition = CustomResourceDefinitionCondition {
            type_: "Terminating".to_owned(),
            status: "True".to_owned(),
            reason: Some("InstanceDeletionPending".to_owned()),
            message: Some(message.to_owned()),
            ..CustomResourceDefinitionCondition::default()
        };
        set_condition(object.status.get_or_insert_default(), condition);
        Deletion::Immediate
    }

    fn warnings(&self, object: &CustomResourceDefinition) -> Vec<String> {
        let schemas =
            object.spec.versions.iter().filter_map(|version| version.schema.as_ref()?.open_api_v3_schema.as_ref());
        let mut unknown = Vec::new();
        schemas.for_each(|schema| formats::unknown(schema, &mut unknown));
        unknown.into_iter().map(|format| format!("unrecognized format {format:?}")).collect()
    }

    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &CustomResourceDefinition, _: Timestamp) -> Vec<serde_json::Value> {
        let created = |time: &Time| time.0.to_string();
        let created = object.metadata.creation_timestamp.as_ref().map(created).unwrap_or_default();
        vec![cells::name(&object.metadata), created.into()]
    }
}

#[cfg(test)]
mod tests;
