//! Where JSON cannot be read as a kind, and how deep it is nested.

use super::DecodeError;

/// As deep as JSON of a built-in kind may be nested. Reading a type takes stack for each level, most of all the schema of a
/// definition, which may be its own part; schemas of real definitions end at half of this.
pub(super) const MAX_NESTING: usize = 100;

/// How deep the JSON's lists and objects are nested.
pub(super) fn nesting(json: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut in_text, mut is_escaped) = (false, false);
    for byte in json {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = in_text,
            b'"' => in_text = !in_text,
            b'{' | b'[' if !in_text => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// Says where the JSON of a kind cannot be read.
pub(super) fn explain(kind: &str, json: &[u8], error: &serde_json::Error) -> DecodeError {
    let path = path_at(json, offset(json, error));
    DecodeError {
        path: if path.is_empty() { kind.to_owned() } else { format!("{kind}.{path}") },
        why: error.to_string(),
    }
}

/// The byte that serde_json names by line and column, both counted from 1, as the last one it read.
fn offset(json: &[u8], error: &serde_json::Error) -> usize {
    let before = json.split_inclusive(|byte| *byte == b'\n').take(error.line().saturating_sub(1));
    before.map(<[u8]>::len).sum::<usize>() + error.column().saturating_sub(1)
}

/// The list or the object that a value is in, and which of its values it is.
enum Within {
    Object { key: String, is_key_next: bool },
    List { index: usize },
}

/// The path of the value that a byte of some JSON belongs to: `spec.containers[0].name`. What cannot be read ends the
/// path.
fn path_at(json: &[u8], at: usize) -> String {
    let mut within: Vec<Within> = Vec::new();
    let mut from = 0;
    while let Some(byte) = json.get(from).filter(|_| from <= at) {
        match byte {
            b'{' | b'[' if from == at => break,
            b'{' => within.push(Within::Object { key: String::new(), is_key_next: true }),
            b'[' => within.push(Within::List { index: 0 }),
            b'}' | b']' => drop(within.pop()),
            b',' => match within.last_mut() {
                Some(Within::Object { is_key_next, .. }) => *is_key_next = true,
                Some(Within::List { index }) => *index += 1,
                None => {}
            },
            b'"' => {
                let length = string_length(json.get(from..).unwrap_or_default());
                if let Some(Within::Object { key, is_key_next: is_key @ true }) = within.last_mut() {
                    let text = json.get(from..from + length).unwrap_or_default();
                    *key = serde_json::from_slice(text).unwrap_or_default();
                    *is_key = false;
                } else if from + length > at {
                    break;
                }
                from += length - 1;
            }
            _ => {}
        }
        from += 1;
    }
    let mut path = String::new();
    for place in within {
        match place {
            Within::Object { key, .. } if path.is_empty() => path.push_str(&key),
            Within::Object { key, .. } => path.extend([".", &key]),
            Within::List { index } => path.push_str(&format!("[{index}]")),
        }
    }
    path
}

/// How many bytes the string has that `json` begins with, its quotes included.
fn string_length(json: &[u8]) -> usize {
    let mut is_escaped = false;
    for (at, byte) in json.iter().enumerate().skip(1) {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    json.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{kinds::pod::Pods, ops::Typed};

    #[test]
    fn what_is_nested_too_deep_is_not_read() {
        for (json, deep) in [("", 0), ("1", 0), (r#"{"a":[{"b":"]}[{\\\"{"}]}"#, 3), ("[[]][", 2), ("]]{", 1)] {
            assert_eq!(nesting(json.as_bytes()), deep, "{json}");
        }
        let json = format!(r#"{{"metadata":{}1"#, "[".repeat(MAX_NESTING));
        assert_eq!(Typed::shared(Pods).decode(json.as_bytes()).err().unwrap().why, "exceeded max depth");
    }

    #[test]
    fn a_path_is_found_in_anything() {
        for json in ["", "{", "}]", "\"", "{\"a\\", "[,,{\"a\":", "{\"a\":1}}}"] {
            for at in 0..10 {
                path_at(json.as_bytes(), at);
            }
        }
        assert_eq!(path_at(br#"{"a":{"b":[1,{"c":2}]}}"#, 18), "a.b[1].c");
    }
}
