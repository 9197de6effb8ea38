//! JSON Patch (RFC 6902) over JSON Pointers (RFC 6901), with bounds on what one patch may cost.
//!
//! Where Kubernetes (evanphx/json-patch, version 4) takes more than the RFC does, so do we, as patches in use rely on it:
//! `replace` of a field that is not there adds it, and indices may have signs and leading zeros.

use serde::Deserialize;
use serde_json::Value;

use super::PatchError;

/// As many operations as Kubernetes takes in one patch.
pub const MAX_OPERATIONS: usize = 10_000;

/// As many bytes as all `copy` operations of one patch may add, so that a small patch cannot make a huge object.
pub const MAX_COPIED_BYTES: usize = 3 * 1024 * 1024;

/// A parsed patch.
#[derive(Clone, Debug, PartialEq)]
pub struct Patch {
    operations: Vec<Operation>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Operation {
    op: String,
    path: String,
    from: Option<String>,
    /// Absent is `None`, null is `Some(Null)`.
    #[serde(default, deserialize_with = "present")]
    value: Option<Value>,
}

fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

const MISSING: &str = "missing value";

fn missing(what: String) -> PatchError {
    PatchError::Inapplicable(format!("{what}: {MISSING}"))
}

impl Patch {
    /// Reads a patch from its JSON.
    ///
    /// # Errors
    /// [`PatchError::Malformed`] when it is no list of operations, [`PatchError::TooLarge`] when there are too many.
    pub fn new(patch: Value) -> Result<Self, PatchError> {
        if let Value::Array(list) = &patch
            && list.len() > MAX_OPERATIONS
        {
            let message =
                format!("The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}", list.len());
            return Err(PatchError::TooLarge(message));
        }
        let operations: Vec<Operation> =
            serde_json::from_value(patch).map_err(|e| PatchError::Malformed(format!("error decoding patch: {e}")))?;
        Ok(Self { operations })
    }

    /// Applies every operation in order, or none of them.
    ///
    /// # Errors
    /// What the first operation that does not apply says.
    pub fn apply(&self, document: &Value) -> Result<Value, PatchError> {
        let mut patched = document.clone();
        let mut copied = 0;
        for operation in &self.operations {
            apply_one(&mut patched, operation, &mut copied)?;
        }
        Ok(patched)
    }
}

fn apply_one(document: &mut Value, operation: &Operation, copied: &mut usize) -> Result<(), PatchError> {
    let path = operation.path.as_str();
    let value = || operation.value.clone().unwrap_or(Value::Null);
    let from = || {
        let message = || format!("{} operation missing from", operation.op);
        operation.from.as_deref().ok_or_else(|| PatchError::Malformed(message()))
    };
    match operation.op.as_str() {
        "add" => {
            let (container, key) =
                place(document, path).ok_or_else(|| gone("add operation", "", &format!("\"{path}\"")))?;
            add(container, &key, value()).map_err(|why| failed("add", path, &why))
        }
        "remove" => {
            let (container, key) =
                place(document, path).ok_or_else(|| gone("remove operation", "", &format!("\"{path}\"")))?;
            remove(container, &key).map(drop).map_err(|why| failed("remove", path, &why))
        }
        "replace" => replace(document, path, value()),
        "move" => {
            let from = from()?;
            let (container, key) = place(document, from).ok_or_else(|| gone("move operation", "from ", from))?;
            let value = remove(container, &key).map_err(|why| failed("move", &key, &why))?;
            let (container, key) = place(document, path).ok_or_else(|| gone("move operation", "destination ", path))?;
            add(container, &key, value).map_err(|why| failed("move", path, &why))
        }
        "copy" => {
            let from = from()?;
            let (container, key) = place(document, from).ok_or_else(|| gone("copy operation", "from ", from))?;
            let value = get(container, &key)
                .map_err(|why| inapplicable(format!("error in copy for from: '{from}': {why}")))?
                .cloned()
                // What an object does not have is copied as null.
                .unwrap_or(Value::Null);
            *copied += weight(&value);
            if *copied > MAX_COPIED_BYTES {
                let message = format!(
                    "Unable to copy, the accumulated size increase of copy is {copied}, exceeding the limit \
                     {MAX_COPIED_BYTES}"
                );
                return Err(PatchError::TooLarge(message));
            }
            let (container, key) = place(document, path).ok_or_else(|| gone("copy operation", "destination ", path))?;
            add(container, &key, value)
                .map_err(|why| inapplicable(format!("error while adding value during copy: {why}")))
        }
        "test" => {
            let expected = value();
            let is_there = if path.is_empty() {
                same(document, &expected)
            } else {
                let (container, key) = place(document, path)
                    .ok_or_else(|| missing(format!("test operation does not apply: is missing path: {path}")))?;
                let found = get(container, &key).map_err(|why| failed("test", path, &why))?;
                // A field that is not there passes for null.
                same(found.unwrap_or(&Value::Null), &expected)
            };
            if is_there { Ok(()) } else { Err(PatchError::TestFailed { path: path.to_owned() }) }
        }
        other => Err(PatchError::Malformed(format!("Unexpected kind: {other}"))),
    }
}

/// Equality in which 1 and 1.0 are the same number, as RFC 6902 section 4.6 asks.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64() && (a.is_f64() || b.is_f64()),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

/// About as many bytes as the value takes as JSON.
fn weight(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) => 4,
        Value::Number(_) => 8,
        Value::String(text) => text.len() + 2,
        Value::Array(list) => 2 + list.iter().map(|v| weight(v) + 1).sum::<usize>(),
        Value::Object(map) => 2 + map.iter().map(|(k, v)| k.len() + weight(v) + 4).sum::<usize>(),
    }
}

fn inapplicable(message: String) -> PatchError {
    PatchError::Inapplicable(message)
}

fn gone(operation: &str, which: &str, path: &str) -> PatchError {
    missing(format!("{operation} does not apply: doc is missing {which}path: {path}"))
}

fn failed(op: &str, path: &str, why: &str) -> PatchError {
    inapplicable(format!("error in {op} for path: '{path}': {why}"))
}

/// The object or list that a pointer's last token is in, and that token. `None` where there is none: a pointer to the
/// whole document has no such place either.
fn place<'a>(document: &'a mut Value, pointer: &str) -> Option<(&'a mut Value, String)> {
    let mut tokens = pointer.split('/').skip(1).map(|token| token.replace("~1", "/").replace("~0", "~"));
    let mut key = tokens.next()?;
    let mut container = document;
    for token in tokens {
        container = match container {
            Value::Object(map) => map.get_mut(&key)?,
            Value::Array(list) => {
                let at = at(&key, list.len()).ok()?;
                list.get_mut(at)?
            }
            _ => return None,
        };
        key = token;
    }
    (container.is_object() || container.is_array()).then_some((container, key))
}

/// The index that a token means in a list of this length: a sign and leading zeros are as good as in Go's `Atoi`, and a
/// negative one counts from the end.
fn at(token: &str, length: usize) -> Result<usize, String> {
    let index: i64 = token.parse().map_err(|_| format!("strconv.Atoi: parsing {token:?}: invalid syntax"))?;
    let at = if index < 0 {
        usize::try_from(index.unsigned_abs()).ok().and_then(|back| length.checked_sub(back))
    } else {
        usize::try_from(index).ok()
    };
    at.filter(|at| *at < length)
        .ok_or_else(|| format!("Unable to access invalid index: {index}: invalid index referenced"))
}

/// What stands at a token; `None` where an object does not have it.
fn get<'a>(container: &'a Value, key: &str) -> Result<Option<&'a Value>, String> {
    match container {
        Value::Array(list) => Ok(list.get(at(key, list.len())?)),
        _ => Ok(container.get(key)),
    }
}

fn add(container: &mut Value, key: &str, value: Value) -> Result<(), String> {
    match container {
        Value::Array(list) if key == "-" => list.push(value),
        Value::Array(list) => {
            // One past the last is a place to add at.
            let at = at(key, list.len() + 1).map_err(|why| {
                if key.parse::<i64>().is_ok() {
                    why
                } else {
                    format!("value was not a proper array index: '{key}': {why}")
                }
            })?;
            list.insert(at, value);
        }
        Value::Object(map) => {
            map.insert(key.to_owned(), value);
        }
        _ => {}
    }
    Ok(())
}

fn remove(container: &mut Value, key: &str) -> Result<Value, String> {
    match container {
        Value::Array(list) => Ok(list.remove(at(key, list.len())?)),
        _ => container
            .as_object_mut()
            .and_then(|map| map.remove(key))
            .ok_or_else(|| format!("Unable to remove nonexistent key: {key}: {MISSING}")),
    }
}

/// Puts a value where one is, or where an object could have one: in Kubernetes a field need not be there to be replaced.
fn replace(document: &mut Value, pointer: &str, value: Value) -> Result<(), PatchError> {
    if pointer.is_empty() {
        if !(value.is_object() || value.is_array()) {
            return Err(inapplicable("replace operation value must be object or array".to_owned()));
        }
        *document = value;
        return Ok(());
    }
    let (container, key) = place(document, pointer).ok_or_else(|| gone("replace operation", "", pointer))?;
    match container {
        Value::Array(list) => {
            let at = at(&key, list.len())
                .map_err(|_| missing(format!("replace operation does not apply: doc is missing key: {pointer}")))?;
            if let Some(slot) = list.get_mut(at) {
                *slot = value;
            }
        }
        _ => drop(container.as_object_mut().and_then(|map| map.insert(key, value))),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::merge::tests::{any_json, any_object};
    use super::*;

    fn patched(document: &Value, patch: Value) -> Result<Value, PatchError> {
        Patch::new(patch)?.apply(document)
    }

    #[test]
    fn the_examples_of_the_rfc_hold() {
        for (document, patch, result) in [
            (
                json!({"foo": "bar"}),
                json!([{"op": "add", "path": "/baz", "value": "qux"}]),
                json!({"foo": "bar", "baz": "qux"}),
            ),
            (
                json!({"foo": ["a", "b"]}),
                json!([{"op": "add", "path": "/foo/1", "value": "q"}]),
                json!({"foo": ["a", "q", "b"]}),
            ),
            (json!({"baz": 1, "foo": 2}), json!([{"op": "remove", "path": "/baz"}]), json!({"foo": 2})),
            (json!({"foo": [1, 2, 3]}), json!([{"op": "remove", "path": "/foo/1"}]), json!({"foo": [1, 3]})),
            (json!({"baz": 1}), json!([{"op": "replace", "path": "/baz", "value": 2}]), json!({"baz": 2})),
            (
                json!({"foo": {"bar": 1, "waldo": 2}, "qux": {}}),
                json!([{"op": "move", "from": "/foo/waldo", "path": "/qux/thud"}]),
                json!({"foo": {"bar": 1}, "qux": {"thud": 2}}),
            ),
            (
                json!({"foo": [1, 2, 3, 4]}),
                json!([{"op": "move", "from": "/foo/1", "path": "/foo/3"}]),
                json!({"foo": [1, 3, 4, 2]}),
            ),
            (json!({"baz": "qux"}), json!([{"op": "test", "path": "/baz", "value": "qux"}]), json!({"baz": "qux"})),
            (
                json!({"foo": "bar"}),
                json!([{"op": "add", "path": "/child", "value": {"g": {}}}]),
                json!({"foo": "bar", "child": {"g": {}}}),
            ),
            (
                json!({"foo": "bar"}),
                json!([{"op": "add", "path": "/b", "value": null, "x": 1}]),
                json!({"foo": "bar", "b": null}),
            ),
            (
                json!({"/": 9, "~1": 10}),
                json!([{"op": "test", "path": "/~01", "value": 10.0}]),
                json!({"/": 9, "~1": 10}),
            ),
            (
                json!({"foo": ["bar"]}),
                json!([{"op": "add", "path": "/foo/-", "value": [1]}]),
                json!({"foo": ["bar", [1]]}),
            ),
            (
                json!({"a": {"b": 1}}),
                json!([{"op": "copy", "from": "/a", "path": "/c"}]),
                json!({"a": {"b": 1}, "c": {"b": 1}}),
            ),
            (json!({}), json!([{"op": "test", "path": "/a", "value": null}]), json!({})),
            (json!({"a": 1}), json!([{"op": "replace", "path": "", "value": {"b": 2}}]), json!({"b": 2})),
        ] {
            assert_eq!(patched(&document, patch.clone()).unwrap(), result, "{document} with {patch}");
        }
    }

    #[test]
    fn what_kubernetes_takes_beyond_the_rfc_is_taken() {
        let document = json!({"a": [1, 2], "b": "x"});
        for (operation, result) in [
            (json!({"op": "replace", "path": "/c", "value": 1}), json!({"a": [1, 2], "b": "x", "c": 1})),
            (json!({"op": "add", "path": "/a/01", "value": 3}), json!({"a": [1, 3, 2], "b": "x"})),
            (json!({"op": "add", "path": "/a/-1", "value": 3}), json!({"a": [1, 2, 3], "b": "x"})),
            (json!({"op": "remove", "path": "/a/-1"}), json!({"a": [1], "b": "x"})),
            (json!({"op": "replace", "path": "/a/+1", "value": 3}), json!({"a": [1, 3], "b": "x"})),
            (json!({"op": "add", "path": "/b"}), json!({"a": [1, 2], "b": null})),
            (json!({"op": "copy", "from": "/c", "path": "/d"}), json!({"a": [1, 2], "b": "x", "d": null})),
        ] {
            assert_eq!(patched(&document, json!([operation])).unwrap(), result, "{operation}");
        }
    }

    #[test]
    fn what_does_not_apply_says_why() {
        let document = json!({"a": [1], "b": "x"});
        for (operation, sentence) in [
            (
                json!({"op": "add", "path": "/c/d", "value": 1}),
                "add operation does not apply: doc is missing path: \"/c/d\": missing value",
            ),
            (
                json!({"op": "add", "path": "/a/2", "value": 1}),
                "error in add for path: '/a/2': Unable to access invalid index: 2: invalid index referenced",
            ),
            (
                json!({"op": "add", "path": "/a/-3", "value": 1}),
                "error in add for path: '/a/-3': Unable to access invalid index: -3: invalid index referenced",
            ),
            (
                json!({"op": "add", "path": "", "value": 1}),
                "add operation does not apply: doc is missing path: \"\": missing value",
            ),
            (
                json!({"op": "remove", "path": "/a/x"}),
                "error in remove for path: '/a/x': strconv.Atoi: parsing \"x\": invalid syntax",
            ),
            (
                json!({"op": "remove", "path": "/c"}),
                "error in remove for path: '/c': Unable to remove nonexistent key: c: missing value",
            ),
            (
                json!({"op": "replace", "path": "/a/1", "value": 1}),
                "replace operation does not apply: doc is missing key: /a/1: missing value",
            ),
            (
                json!({"op": "replace", "path": "/c/d", "value": 1}),
                "replace operation does not apply: doc is missing path: /c/d: missing value",
            ),
            (json!({"op": "replace", "path": "", "value": 1}), "replace operation value must be object or array"),
            (
                json!({"op": "test", "path": "/c/d", "value": null}),
                "test operation does not apply: is missing path: /c/d: missing value",
            ),
            (json!({"op": "test", "path": "/b", "value": "y"}), "testing value /b failed: test failed"),
            (json!({"op": "test", "path": "/c", "value": "y"}), "testing value /c failed: test failed"),
            (
                json!({"op": "move", "from": "/a", "path": "/a/0"}),
                "move operation does not apply: doc is missing destination path: /a/0: missing value",
            ),
            (
                json!({"op": "copy", "from": "/c/d", "path": "/d"}),
                "copy operation does not apply: doc is missing from path: /c/d: missing value",
            ),
            (json!({"op": "jump", "path": "/c"}), "Unexpected kind: jump"),
        ] {
            assert_eq!(patched(&document, json!([operation])).unwrap_err().to_string(), sentence);
        }
        assert!(matches!(Patch::new(json!({"a": 1})), Err(PatchError::Malformed(_))));
        let unchanged = json!([{"op": "remove", "path": "/b"}, {"op": "test", "path": "/a", "value": 2}]);
        assert!(matches!(patched(&document, unchanged), Err(PatchError::TestFailed { .. })));
    }

    #[test]
    fn a_patch_is_bounded() {
        let many: Vec<Value> = (0..=MAX_OPERATIONS).map(|_| json!({"op": "test", "path": "/a"})).collect();
        let error = Patch::new(Value::Array(many)).unwrap_err();
        assert_eq!(
            error,
            PatchError::TooLarge("The allowed maximum operations in a JSON patch is 10000, got 10001".to_owned())
        );
        // Each copy doubles the document.
        let doubling: Vec<Value> =
            (0..60).map(|i| json!({"op": "copy", "from": "/a", "path": format!("/a/{i}")})).collect();
        let document = json!({"a": {"x": "0123456789"}});
        assert!(matches!(patched(&document, Value::Array(doubling)), Err(PatchError::TooLarge(_))));
    }

    proptest! {
        #[test]
        fn adding_and_removing_is_nothing(document in any_object(true), value in any_json(true)) {
            let patch = json!([{"op": "add", "path": "/new", "value": value}, {"op": "test", "path": "/new", "value": value}, {"op": "remove", "path": "/new"}]);
            prop_assert_eq!(patched(&document, patch).unwrap(), document);
        }

        #[test]
        fn no_patch_panics(
            document in any_json(true), value in any_json(true), path in "[/a-d0-2~-]{0,6}", from in "[/a-d0-2~-]{0,6}",
            op in "add|remove|replace|move|copy|test",
        ) {
            let _ = patched(&document, json!([{"op": op, "path": path, "from": from, "value": value}]));
        }
    }
}
