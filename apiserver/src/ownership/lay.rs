//! Fields laid over an object by somebody who becomes nobody's owner: the server itself, as a policy tells it.

use coracle_proto::apply::{Is, ListIs, Place, merge};
use serde_json::Value;

/// Why fields cannot be laid over an object; in Kubernetes' words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayError {
    /// They name what would be replaced as a whole, with all that others have said there.
    #[error("invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {}", .0.join(", "))]
    Whole(Vec<String>),
    /// They do not fit.
    #[error("failed to merge patch: {0}")]
    Unmergeable(String),
}

/// The object with the fields; none when nothing is left of it.
pub(super) fn lay<'a, P: Place<'a>>(root: P, live: &Value, fields: &Value) -> Result<Option<Value>, LayError> {
    let mut whole = Vec::new();
    find_atomics(root, fields, &mut String::new(), &mut whole);
    if !whole.is_empty() {
        return Err(LayError::Whole(whole));
    }
    merge(root, Some(live), Some(fields)).map_err(LayError::Unmergeable)
}

/// Paths of what the fields would replace as a whole.
fn find_atomics<'a, P: Place<'a>>(place: P, value: &Value, path: &mut String, found: &mut Vec<String>) {
    let length = path.len();
    match (place.is(), value) {
        (Is::Map { atomic }, Value::Object(fields)) => {
            if atomic {
                found.push(path.clone());
            }
            for (name, value) in fields {
                if let Some(inner) = place.field(name).map(|(_, inner)| inner).or_else(|| place.rest()) {
                    path.push('.');
                    path.push_str(name);
                    find_atomics(inner, value, path, found);
                    path.truncate(length);
                }
            }
        }
        (Is::List(list), Value::Array(items)) => {
            if list == ListIs::Atomic {
                found.push(path.clone());
            }
            for (index, item) in items.iter().enumerate() {
                if let Some(inner) = place.element() {
                    path.push_str(&format!("[{index}]"));
                    find_atomics(inner, item, path, found);
                    path.truncate(length);
                }
            }
        }
        _ => {}
    }
}
