//! Kinds made of definitions: one a version.

use std::sync::Arc;

use coracle_proto::resource::{CUSTOM_VERBS, Described, Scope, TERMINATING_VERBS, interned};
use coracle_store::{Revision, Store};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition as Definition, CustomResourceDefinitionVersion as Version,
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    Converter, CustomKind, SimplePath,
    follow::{STORAGE, is_true},
    kind::{Column, ScalePaths, Schemas, Shared},
    rules,
    schema::Schema,
    version_order,
};
use crate::{stored, upstream::connect::Tasks};

/// The names of a dotted path that is made of names alone.
fn steps(path: &str) -> Option<Vec<String>> {
    let path = SimplePath::parse(path)?;
    Some(path.names()?.into_iter().map(str::to_owned).collect())
}

/// What a version's objects are made of, with its rules compiled.
fn schema_of(definition: &Definition, version: &Version) -> Schema {
    let props = version.schema.as_ref().and_then(|schema| schema.open_api_v3_schema.as_ref());
    let mut schema = props.map(Schema::of).unwrap_or_default();
    if let Some(props) = props {
        // What is wrong was told when the definition was written; a rule that cannot be compiled is not run.
        let _ = rules::compile(&mut schema, props, &coracle_proto::field::Path::default());
    }
    schema.preserves |= definition.spec.preserve_unknown_fields.unwrap_or(false) || props.is_none();
    schema
}

/// One served version of a definition.
fn kind_of(definition: &Definition, version: &Version, shared: &Arc<Shared>) -> Option<CustomKind> {
    let (spec, names) = (&definition.spec, definition.status.as_ref()?.accepted_names.as_ref()?);
    let subresources = version.subresources.as_ref();
    let has_status = subresources.is_some_and(|sub| sub.status.is_some());
    let scale = subresources.and_then(|sub| sub.scale.as_ref());
    let is_leaving = definition.metadata.deletion_timestamp.is_some();
    let row = interned(&Described {
        group: &spec.group,
        version: &version.name,
        kind: &names.kind,
        list_kind: names.list_kind.as_deref().unwrap_or_default(),
        plural: &names.plural,
        singular: names.singular.as_deref().unwrap_or_default(),
        short_names: names.short_names.as_deref().unwrap_or_default(),
        categories: names.categories.as_deref().unwrap_or_default(),
        scope: if spec.scope == "Cluster" { Scope::Cluster } else { Scope::Namespaced },
        verbs: if is_leaving { TERMINATING_VERBS } else { CUSTOM_VERBS },
        has_status,
        has_scale: scale.is_some(),
    })?;
    let api_version = format!("{}/{}", spec.group, version.name);
    let schema = Arc::clone(shared.schemas.get(&api_version)?);
    let deprecation = version.deprecated.unwrap_or(false).then(|| {
        version.deprecation_warning.clone().unwrap_or_else(|| {
            let better = spec.versions.iter().filter(|other| {
                other.served
                    && !other.deprecated.unwrap_or(false)
                    && version_order(&other.name) > version_order(&version.name)
            });
            let advice = better
                .max_by_key(|other| version_order(&other.name))
                .map_or_else(String::new, |other| format!("; use {}/{} {}", spec.group, other.name, names.kind));
            format!("{api_version} {} is deprecated{advice}", names.kind)
        })
    });
    let columns = version.additional_printer_columns.iter().flatten();
    let columns = columns
        .filter_map(|column| Some(Column { path: SimplePath::parse(&column.json_path)?, definition: column.clone() }))
        .collect();
    let selectable = version
        .selectable_fields
        .iter()
        .flatten()
        .filter_map(|field| {
            let path = SimplePath::parse(&field.json_path)?;
            Some((path.names()?.join("."), path))
        })
        .collect();
    Some(CustomKind {
        row,
        api_version,
        shared: Arc::clone(shared),
        schema,
        has_status,
        scale: scale.and_then(|scale| {
            Some(ScalePaths {
                wanted: steps(&scale.spec_replicas_path)?,
                current: steps(&scale.status_replicas_path)?,
                selector: scale.label_selector_path.as_deref().filter(|path| !path.is_empty()).and_then(steps),
            })
        }),
        columns,
        selectable,
        deprecation,
        ended: CancellationToken::new(),
    })
}

/// All versions of a definition that is established; those that are served, or all of them.
pub(super) fn kinds_of(
    definition: &Definition,
    since: Revision,
    only_served: bool,
    (store, tasks): (&Store, &Tasks),
) -> Vec<Arc<CustomKind>> {
    if !is_true(definition, "Established") {
        return Vec::new();
    }
    let spec = &definition.spec;
    let storage = spec.versions.iter().find(|version| version.storage).map(|version| version.name.clone());
    let storage = storage.unwrap_or_default();
    let name = |version: &str| format!("{}/{version}", spec.group);
    let schemas = spec.versions.iter().map(|version| (name(&version.name), Arc::new(schema_of(definition, version))));
    let schemas: Arc<Schemas> = Arc::new(schemas.collect());
    let shared = Arc::new(Shared {
        key: stored::key(STORAGE, "", definition.metadata.name.as_deref().unwrap_or_default()),
        since,
        converter: Converter::new(definition, name(&storage), Arc::clone(&schemas), store, tasks),
        schemas,
        storage,
    });
    let wanted = spec.versions.iter().filter(|version| version.served || !only_served);
    wanted
        .filter_map(|version| {
            let kind = kind_of(definition, version, &shared);
            if kind.is_none() {
                warn!(definition = definition.metadata.name, version = version.name, "a version cannot be served");
            }
            kind.map(Arc::new)
        })
        .collect()
}
