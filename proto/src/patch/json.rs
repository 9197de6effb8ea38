//! JSON Patch (RFC 6902) over JSON Pointers (RFC 6901), with bounds on what one patch may cost.

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

fn missing(what: String) -> PatchError {
    PatchError::Inapplicable(format!("{what}: missing value"))
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
    let value = || {
        let message = || format!("{} operation missing value", operation.op);
        operation.value.clone().ok_or_else(|| PatchError::Malformed(message()))
    };
    let from = || {
        let message = || format!("{} operation missing from", operation.op);
        operation.from.as_deref().ok_or_else(|| PatchError::Malformed(message()))
    };
    match operation.op.as_str() {
        "add" => add(document, path, value()?, "add"),
        "remove" => remove(document, path, "remove").map(drop),
        "replace" => replace(document, path, value()?),
        "move" => {
            let from = from()?;
            if path.strip_prefix(from).is_some_and(|rest| rest.starts_with('/')) {
                let message = format!("error in move for path: '{path}': a value cannot be moved into itself");
                return Err(PatchError::Inapplicable(message));
            }
            let value = remove(document, from, "move")?;
            add(document, path, value, "move")
        }
        "copy" => {
            let from = from()?;
            let value = find(document, from)
                .ok_or_else(|| missing(format!("copy operation does not apply: doc is missing from path: {from}")))?
                .clone();
            *copied += weight(&value);
            if *copied > MAX_COPIED_BYTES {
                let message = format!(
                    "Unable to copy, the accumulated size increase of copy is {copied}, exceeding the limit \
                     {MAX_COPIED_BYTES}"
                );
                return Err(PatchError::TooLarge(message));
            }
            add(document, path, value, "copy")
        }
        "test" => {
            let expected = operation.value.clone().unwrap_or(Value::Null);
            // A field that is not there passes for null, as in Kubernetes.
            let found = find(document, path).unwrap_or(&Value::Null);
            if same(found, &expected) { Ok(()) } else { Err(PatchError::TestFailed { path: path.to_owned() }) }
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

fn tokens(pointer: &str) -> Option<Vec<String>> {
    if pointer.is_empty() {
        return Some(Vec::new());
    }
    let rest = pointer.strip_prefix('/')?;
    Some(rest.split('/').map(|token| token.replace("~1", "/").replace("~0", "~")).collect())
}

/// An index as RFC 6901 writes it: no sign, no leading zero.
fn index(token: &str) -> Option<usize> {
    let digits = !token.is_empty() && token.bytes().all(|b| b.is_ascii_digit());
    if !digits || (token.len() > 1 && token.starts_with('0')) { None } else { token.parse().ok() }
}

fn step<'a>(value: &'a mut Value, token: &str) -> Option<&'a mut Value> {
    match value {
        Value::Object(map) => map.get_mut(token),
        Value::Array(list) => list.get_mut(index(token)?),
        _ => None,
    }
}

fn find<'a>(document: &'a Value, pointer: &str) -> Option<&'a Value> {
    let mut value = document;
    for token in tokens(pointer)? {
        value = match value {
            Value::Object(map) => map.get(&token)?,
            Value::Array(list) => list.get(index(&token)?)?,
            _ => return None,
        };
    }
    Some(value)
}

/// The container a pointer's last token is in, and that token; `None` for the whole document.
fn parent<'a>(document: &'a mut Value, pointer: &str, op: &str) -> Result<Option<(&'a mut Value, String)>, PatchError> {
    let gone = || missing(format!("{op} operation does not apply: doc is missing path: \"{pointer}\""));
    let mut tokens = tokens(pointer).ok_or_else(gone)?;
    let Some(last) = tokens.pop() else { return Ok(None) };
    let mut value = document;
    for token in tokens {
        value = step(value, &token).ok_or_else(gone)?;
    }
    if value.is_object() || value.is_array() { Ok(Some((value, last))) } else { Err(gone()) }
}

fn bad_index(pointer: &str, op: &str, token: &str) -> PatchError {
    let message = format!(
        "error in {op} for path: '{pointer}': Unable to access invalid index: {token}: invalid index referenced"
    );
    PatchError::Inapplicable(message)
}

fn add(document: &mut Value, pointer: &str, value: Value, op: &str) -> Result<(), PatchError> {
    match parent(document, pointer, op)? {
        None => *document = value,
        Some((Value::Array(list), token)) => {
            let at = if token == "-" { Some(list.len()) } else { index(&token) };
            match at.filter(|at| *at <= list.len()) {
                Some(at) => list.insert(at, value),
                None => return Err(bad_index(pointer, op, &token)),
            }
        }
        Some((Value::Object(map), token)) => {
            map.insert(token, value);
        }
        Some(_) => {}
    }
    Ok(())
}

fn remove(document: &mut Value, pointer: &str, op: &str) -> Result<Value, PatchError> {
    match parent(document, pointer, op)? {
        Some((Value::Array(list), token)) => match index(&token).filter(|at| *at < list.len()) {
            Some(at) => Ok(list.remove(at)),
            None => Err(bad_index(pointer, op, &token)),
        },
        Some((Value::Object(map), token)) => map.remove(&token).ok_or_else(|| {
            missing(format!("error in {op} for path: '{pointer}': Unable to remove nonexistent key: {token}"))
        }),
        Some(_) | None => Err(missing(format!("{op} operation does not apply: doc is missing path: \"{pointer}\""))),
    }
}

fn replace(document: &mut Value, pointer: &str, value: Value) -> Result<(), PatchError> {
    let Some((container, token)) = parent(document, pointer, "replace")? else {
        *document = value;
        return Ok(());
    };
    match step(container, &token) {
        Some(slot) => {
            *slot = value;
            Ok(())
        }
        None => Err(missing(format!("replace operation does not apply: doc is missing key: {pointer}"))),
    }
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
            (json!({"a": 1}), json!([{"op": "replace", "path": "", "value": 2}]), json!(2)),
        ] {
            assert_eq!(patched(&document, patch.clone()).unwrap(), result, "{document} with {patch}");
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
                json!({"op": "add", "path": "/a/01", "value": 1}),
                "error in add for path: '/a/01': Unable to access invalid index: 01: invalid index referenced",
            ),
            (
                json!({"op": "remove", "path": "/c"}),
                "error in remove for path: '/c': Unable to remove nonexistent key: c: missing value",
            ),
            (
                json!({"op": "replace", "path": "/c", "value": 1}),
                "replace operation does not apply: doc is missing key: /c: missing value",
            ),
            (json!({"op": "test", "path": "/b", "value": "y"}), "testing value /b failed: test failed"),
            (json!({"op": "test", "path": "/c", "value": "y"}), "testing value /c failed: test failed"),
            (
                json!({"op": "move", "from": "/a", "path": "/a/0"}),
                "error in move for path: '/a/0': a value cannot be moved into itself",
            ),
            (
                json!({"op": "copy", "from": "/c", "path": "/d"}),
                "copy operation does not apply: doc is missing from path: /c: missing value",
            ),
            (json!({"op": "jump", "path": "/c"}), "Unexpected kind: jump"),
            (json!({"op": "add", "path": "/c"}), "add operation missing value"),
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
