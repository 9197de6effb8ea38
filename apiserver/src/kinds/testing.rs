//! What the tests of all kinds use: objects by merge patch, errors as lines, rows as one line.

use coracle_proto::field::Errors;
use jiff::Timestamp;
use serde_json::Value;

use crate::{
    kind::{Context, Strategy},
    user::User,
};

/// The moment at which the tests are.
pub(super) fn now() -> Timestamp {
    "2026-01-01T01:00:00Z".parse().unwrap()
}

/// `base` with a JSON merge patch (RFC 7396) applied.
pub(crate) fn merged(base: &Value, patch: &Value) -> Value {
    let Value::Object(fields) = patch else { return patch.clone() };
    let mut result = base.as_object().cloned().unwrap_or_default();
    for (key, value) in fields {
        if value.is_null() {
            result.remove(key);
        } else {
            let before = result.get(key).cloned().unwrap_or(Value::Null);
            result.insert(key.clone(), merged(&before, value));
        }
    }
    result.into()
}

/// The object that a creator's JSON becomes: defaulted and prepared.
pub(super) fn created<S: Strategy>(strategy: &S, json: &Value) -> S::Object {
    let user = User::new("alice", &[]);
    let context = Context { user: &user, now: now() };
    let mut object = defaulted(strategy, json);
    strategy.prepare_create(&mut object, &context);
    object
}

/// The object with what was left out.
pub(super) fn defaulted<S: Strategy>(strategy: &S, json: &Value) -> S::Object {
    let mut object: S::Object = serde_json::from_value(json.clone()).unwrap();
    strategy.default(&mut object);
    object
}

/// The object as JSON, after checking that defaulting it again changes nothing.
pub(super) fn shown<S: Strategy>(strategy: &S, object: &S::Object) -> String {
    let json = serde_json::to_value(object).unwrap();
    let again = serde_json::to_value(defaulted(strategy, &json)).unwrap();
    assert_eq!(again, json, "defaulting is idempotent");
    serde_json::to_string_pretty(&json).unwrap()
}

/// One error a line.
pub(super) fn lines(errors: &Errors) -> String {
    errors.iter().map(|error| format!("{error}\n")).collect()
}

/// What is said of each patch to a new object, under the patch itself.
pub(super) fn faults<S: Strategy>(strategy: &S, base: &Value, patches: &[Value]) -> String {
    let mut text = String::new();
    assert_eq!(lines(&strategy.validate(&created(strategy, base))), "", "the base is valid");
    for patch in patches {
        let object = created(strategy, &merged(base, patch));
        text.push_str(&format!("{patch}\n"));
        text.extend(strategy.validate(&object).iter().map(|error| format!("    {error}\n")));
    }
    text
}

/// What is said of updating the object with each patch, under the patch itself.
pub(super) fn refusals<S: Strategy>(strategy: &S, base: &Value, patches: &[Value]) -> String {
    let user = User::new("alice", &[]);
    let context = Context { user: &user, now: now() };
    let old = created(strategy, base);
    let stored = serde_json::to_value(&old).unwrap();
    let mut text = String::new();
    for patch in patches {
        let mut new = defaulted(strategy, &merged(&stored, patch));
        strategy.prepare_update(&mut new, &old, &context);
        text.push_str(&format!("{patch}\n"));
        text.extend(strategy.validate_update(&new, &old).iter().map(|error| format!("    {error}\n")));
    }
    text
}

/// The cells of an object's row, which are as many as there are columns.
pub(super) fn row<S: Strategy>(strategy: &S, json: &Value) -> String {
    let object: S::Object = serde_json::from_value(json.clone()).unwrap();
    let cells = strategy.row(&object, now());
    assert_eq!(cells.len(), strategy.columns().len());
    let cells: Vec<String> =
        cells.iter().map(|cell| cell.as_str().map_or_else(|| cell.to_string(), ToOwned::to_owned)).collect();
    cells.join(" | ")
}
