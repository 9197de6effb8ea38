//! Kinds under their old groups and versions: converted to today's on the way in and back on the way out.
//!
//! One wrapper, [`Old`], around today's kind, and one table of conversions, a pair of functions over JSON each. Objects
//! are stored, admitted and validated as today's; only what a client sends and sees is in the old shape, and every answer
//! carries a warning that names today's version.

mod conversions;

use std::{borrow::Cow, sync::Arc};

use coracle_proto::{
    field,
    name::NameRule,
    resource::{self, Resource},
};
use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::{
    kind::{Context, Deletion, Scale},
    ops::{AnyObject, BoxObject, DecodeError, Decoded, KindOps, Part},
    ownership::{Owners, Versions},
};

/// Changes an object's JSON from one version's shape into another's.
type Change = fn(&mut Map<String, Value>);

/// How an old version's objects differ from today's, defaults included.
struct Conversion {
    /// Since when the version was deprecated in Kubernetes, and since when it was gone: `1.14`, `1.22`.
    deprecated: (&'static str, &'static str),
    /// From the old shape. What is not said stays unsaid, so that parts of objects can be converted as well.
    to_modern: Change,
    /// What the old version fills in where today's does otherwise, in today's shape.
    defaults: Change,
    /// Into the old shape.
    to_old: Change,
}

/// Today's kind under an old group and version.
struct Old {
    resource: &'static Resource,
    modern: Arc<dyn KindOps>,
    conversion: Conversion,
    deprecation: String,
}

/// Every old version of the kinds.
pub(crate) fn of(kinds: &[Arc<dyn KindOps>]) -> Vec<Arc<dyn KindOps>> {
    let wrap = |row: &'static Resource| -> Option<Arc<dyn KindOps>> {
        let today = resource::old::modern(row.group, row.version, row.kind)?;
        let modern = kinds.iter().find(|kind| kind.resource() == today)?;
        let conversion = conversions::find(row.group, row.version, row.kind);
        let (since, until) = conversion.deprecated;
        let deprecation = format!(
            "{} {} is deprecated in v{since}+, unavailable in v{until}+; use {} {}",
            row.api_version(),
            row.kind,
            today.api_version(),
            today.kind
        );
        Some(Arc::new(Old { resource: row, modern: Arc::clone(modern), conversion, deprecation }))
    };
    resource::old::rows().iter().filter_map(wrap).collect()
}

impl Old {
    fn unreadable(&self, error: &serde_json::Error) -> DecodeError {
        DecodeError { path: self.resource.kind.to_owned(), why: error.to_string(), in_go: None }
    }

    /// An object of today's shape, with the old version's own defaults filled in.
    fn filled(&self, mut object: Map<String, Value>) -> Result<Decoded, DecodeError> {
        (self.conversion.defaults)(&mut object);
        self.modern.decode(&serde_json::to_vec(&object).map_err(|error| self.unreadable(&error))?)
    }
}

impl KindOps for Old {
    fn resource(&self) -> &'static Resource {
        self.resource
    }

    fn modern(&self) -> Option<&Arc<dyn KindOps>> {
        Some(&self.modern)
    }

    fn deprecation(&self) -> Option<&str> {
        Some(&self.deprecation)
    }

    fn decode(&self, json: &[u8]) -> Result<Decoded, DecodeError> {
        let mut object: Map<String, Value> = serde_json::from_slice(json).map_err(|error| self.unreadable(&error))?;
        if object.contains_key("apiVersion") {
            object.insert("apiVersion".to_owned(), self.modern.resource().api_version().into());
        }
        (self.conversion.to_modern)(&mut object);
        self.filled(object)
    }

    fn decode_merged(&self, json: &[u8]) -> Result<Decoded, DecodeError> {
        self.filled(serde_json::from_slice(json).map_err(|error| self.unreadable(&error))?)
    }

    fn modernized(&self, config: &Value) -> Option<Value> {
        let mut config = config.as_object().cloned()?;
        if config.get("apiVersion")?.as_str()? != self.resource.api_version() {
            return None;
        }
        config.insert("apiVersion".to_owned(), self.modern.resource().api_version().into());
        (self.conversion.to_modern)(&mut config);
        Some(config.into())
    }

    fn from_stored(&self, stored: &[u8]) -> serde_json::Result<BoxObject> {
        self.modern.from_stored(stored)
    }

    fn to_stored(&self, object: &dyn AnyObject) -> serde_json::Result<Vec<u8>> {
        self.modern.to_stored(object)
    }

    fn to_shown(&self, object: &dyn AnyObject) -> serde_json::Result<Vec<u8>> {
        let mut shown: Map<String, Value> = serde_json::from_slice(&self.modern.to_shown(object)?)?;
        shown.insert("apiVersion".to_owned(), self.resource.api_version().into());
        (self.conversion.to_old)(&mut shown);
        serde_json::to_vec(&shown)
    }

    fn is_stored_as_shown(&self) -> bool {
        false
    }

    fn name_rule(&self) -> NameRule {
        self.modern.name_rule()
    }

    fn default(&self, object: &mut dyn AnyObject) {
        self.modern.default(object);
    }

    fn prepare_create(&self, object: &mut dyn AnyObject, context: &Context<'_>) {
        self.modern.prepare_create(object, context);
    }

    fn prepare(&self, part: Part, new: &mut dyn AnyObject, old: &dyn AnyObject, context: &Context<'_>) {
        self.modern.prepare(part, new, old, context);
    }

    fn validate(&self, object: &dyn AnyObject) -> field::Errors {
        self.modern.validate(object)
    }

    fn validate_change(&self, part: Part, new: &dyn AnyObject, old: &dyn AnyObject) -> field::Errors {
        self.modern.validate_change(part, new, old)
    }

    fn counts_generations(&self) -> bool {
        self.modern.counts_generations()
    }

    fn generation_counts_annotations(&self) -> bool {
        self.modern.generation_counts_annotations()
    }

    fn allows_unconditional_update(&self) -> bool {
        self.modern.allows_unconditional_update()
    }

    fn orphans_by_default(&self) -> bool {
        self.modern.orphans_by_default()
    }

    fn is_finalized(&self, object: &dyn AnyObject) -> bool {
        self.modern.is_finalized(object)
    }

    fn owners<'k>(&'k self, part: Part, versions: &'k Versions) -> Box<dyn Owners + 'k> {
        self.modern.owners(part, versions)
    }

    fn warnings(&self, object: &dyn AnyObject) -> Vec<String> {
        self.modern.warnings(object)
    }

    fn begin_deletion(&self, object: &mut dyn AnyObject, grace: Option<i64>) -> Deletion {
        self.modern.begin_deletion(object, grace)
    }

    fn fields(&self, stored: &[u8]) -> serde_json::Result<Vec<(Cow<'static, str>, String)>> {
        self.modern.fields(stored)
    }

    fn field_names(&self) -> Vec<Cow<'static, str>> {
        self.modern.field_names()
    }

    fn column_definitions(&self) -> Value {
        self.modern.column_definitions()
    }

    fn row(&self, object: &dyn AnyObject, now: Timestamp) -> Vec<Value> {
        self.modern.row(object, now)
    }

    fn scale(&self, object: &dyn AnyObject) -> Option<Scale> {
        self.modern.scale(object)
    }

    fn set_scale(&self, object: &mut dyn AnyObject, replicas: i32) {
        self.modern.set_scale(object, replicas);
    }
}

#[cfg(test)]
mod tests;
