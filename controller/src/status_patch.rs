//! Status as a merge patch: what a controller writes of an object it does not own otherwise.

use serde::Serialize;
use serde_json::{Map, Value, json};

/// The merge patch that makes the object's status this one, for exactly the object with this uid. The fields named are
/// taken away where the status leaves them out: a merge patch alone would keep their old values.
pub(crate) fn status_patch(uid: Option<&str>, status: &impl Serialize, fields: &[&str]) -> Value {
    let mut members = match serde_json::to_value(status) {
        Ok(Value::Object(members)) => members,
        // Statuses are structs: they always become objects.
        Ok(_) | Err(_) => Map::new(),
    };
    for field in fields {
        members.entry(*field).or_insert(Value::Null);
    }
    json!({"metadata": {"uid": uid}, "status": members})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_are_gone_are_taken_away() {
        let patch = status_patch(Some("u"), &json!({"replicas": 2}), &["replicas", "readyReplicas"]);
        let expected = json!({"metadata": {"uid": "u"}, "status": {"replicas": 2, "readyReplicas": null}});
        assert_eq!(patch, expected);
    }
}
