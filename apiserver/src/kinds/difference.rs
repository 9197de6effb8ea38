//! The difference between two objects, for a person to read in an error message.

use std::collections::BTreeSet;

use serde_json::Value;

/// One line a field that is gone (`-`), new (`+`) or changed (both), with its path.
pub(super) fn between(old: &Value, new: &Value) -> String {
    let mut lines = Vec::new();
    compare("spec", Some(old), Some(new), &mut lines);
    lines.join("\n")
}

fn compare(path: &str, old: Option<&Value>, new: Option<&Value>, lines: &mut Vec<String>) {
    match (old, new) {
        (old, new) if old == new => {}
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            for key in keys {
                compare(&format!("{path}.{key}"), old.get(key), new.get(key), lines);
            }
        }
        (Some(Value::Array(old)), Some(Value::Array(new))) => {
            for i in 0..old.len().max(new.len()) {
                compare(&format!("{path}[{i}]"), old.get(i), new.get(i), lines);
            }
        }
        (old, new) => {
            lines.extend(old.map(|value| format!("- {path}: {value}")));
            lines.extend(new.map(|value| format!("+ {path}: {value}")));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::between;

    #[test]
    fn each_changed_field_has_its_lines() {
        let old = json!({"a": 1, "list": [{"x": "y"}], "same": true, "gone": "g"});
        let new = json!({"a": 2, "list": [{"x": "z"}, 3], "same": true});
        let expected = "- spec.a: 1\n+ spec.a: 2\n- spec.gone: \"g\"\n- spec.list[0].x: \"y\"\n\
                        + spec.list[0].x: \"z\"\n+ spec.list[1]: 3";
        assert_eq!(between(&old, &new), expected);
    }
}
