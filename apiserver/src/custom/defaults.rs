//! Defaults are filled in where nothing, or a null that may not be, stands.

use serde_json::{Map, Value};

use super::schema::Schema;

/// Fills in an object's defaults, and those within what was filled in.
pub(super) fn fill(content: &mut Map<String, Value>, schema: &Schema) {
    if !schema.has_defaults {
        return;
    }
    for (name, of) in &schema.properties {
        let Some(default) = &of.default else { continue };
        let is_missing = match content.get(&**name) {
            None => true,
            Some(Value::Null) => !of.nullable,
            Some(_) => false,
        };
        if is_missing {
            content.insert(name.to_string(), (**default).clone());
        }
    }
    for (name, value) in content {
        if let Some(of) = schema.under(name) {
            fill_value(value, of);
        }
    }
}

/// Fills in the defaults within any value.
pub(super) fn fill_value(value: &mut Value, schema: &Schema) {
    if !schema.has_defaults {
        return;
    }
    match value {
        Value::Object(content) => fill(content, schema),
        Value::Array(items) => {
            if let Some(of) = &schema.items {
                for item in items {
                    if item.is_null()
                        && !of.nullable
                        && let Some(default) = &of.default
                    {
                        *item = (**default).clone();
                    }
                    fill_value(item, of);
                }
            }
        }
        _ => {}
    }
}
