//! Fields that the schema does not know are dropped, and named; nothing where something has to be is dropped silently, unless
//! it was applied.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Map, Value};

use super::schema::{Additional, Schema};
use crate::ops::dotted;

/// What every resource has whatever its schema says.
pub(super) const META: &[&str] = &["apiVersion", "kind", "metadata"];

/// How many dropped fields are named: an answer names no more either.
const NAMED: usize = 100;

/// What becomes of a null that may not be and has no default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Nulls {
    /// It is dropped.
    #[default]
    Dropped,
    /// It is left to the checks, which refuse it.
    Checked,
}

/// What was dropped.
#[derive(Debug, Default)]
pub(super) struct Dropped {
    nulls: Nulls,
    path: String,
    pub(super) fields: Vec<String>,
}

impl Dropped {
    fn field(&mut self, name: &str) {
        if self.fields.len() < NAMED {
            let path = if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
            self.fields.push(path);
        }
    }

    fn within(&mut self, part: &str, look: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        if !self.path.is_empty() && !part.starts_with('[') {
            self.path.push('.');
        }
        self.path.push_str(part);
        look(self);
        self.path.truncate(length);
    }
}

/// Prunes a whole object.
pub(super) fn object(content: &mut Map<String, Value>, schema: &Schema, nulls: Nulls) -> Vec<String> {
    let mut dropped = Dropped { nulls, ..Dropped::default() };
    map(content, schema, true, &mut dropped);
    dropped.fields
}

/// Prunes what is no whole object: a default.
pub(super) fn value(value: &mut Value, schema: &Schema) -> Vec<String> {
    let mut dropped = Dropped::default();
    any(value, schema, &mut dropped);
    dropped.fields
}

fn any(value: &mut Value, schema: &Schema, dropped: &mut Dropped) {
    match value {
        Value::Object(content) => map(content, schema, schema.embedded, dropped),
        Value::Array(items) => {
            let Some(of) = &schema.items else { return };
            for (index, item) in items.iter_mut().enumerate() {
                dropped.within(&format!("[{index}]"), |dropped| any(item, of, dropped));
            }
        }
        _ => {}
    }
}

/// Prunes the metadata of a resource within a resource; what is none is left to the checks.
fn metadata(value: &mut Value, dropped: &mut Dropped) {
    let mut unknown = Vec::new();
    let see = |path: serde_ignored::Path<'_>| unknown.push(dotted(&path));
    let read: Result<ObjectMeta, _> = serde_ignored::deserialize(&*value, see);
    if unknown.is_empty() {
        return;
    }
    if let Ok(known) = read.and_then(serde_json::to_value) {
        unknown.iter().for_each(|name| dropped.field(name));
        *value = known;
    }
}

fn map(content: &mut Map<String, Value>, schema: &Schema, is_resource: bool, dropped: &mut Dropped) {
    let keeps_all = schema.preserves || matches!(schema.additional, Additional::Anything);
    content.retain(|name, value| {
        if is_resource && META.contains(&name.as_str()) {
            if schema.embedded && name == "metadata" {
                dropped.within(name, |dropped| metadata(value, dropped));
            }
            return true;
        }
        match schema.under(name) {
            // Those with a default get it later.
            Some(of) if value.is_null() && !of.nullable && of.default.is_none() => {
                return dropped.nulls == Nulls::Checked;
            }
            Some(of) => dropped.within(name, |dropped| any(value, of, dropped)),
            None if keeps_all => {}
            None => {
                dropped.field(name);
                return false;
            }
        }
        true
    });
}
