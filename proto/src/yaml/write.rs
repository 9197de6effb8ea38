//! JSON as YAML that is read the same by everyone, those included to whom `yes` is true and `0644` is 420.

use std::fmt::Write as _;

use serde_json::{Map, Value};

/// The words that some readers take for something other than a text.
const WORDS: &[&str] = &["y", "n", "yes", "no", "on", "off", "true", "false", "null"];

/// A JSON value as a YAML document, in blocks as Kubernetes writes them. A text that could be taken for anything else stands
/// in quotes, as in JSON.
#[must_use]
pub fn to_string(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(object) if !object.is_empty() => entries(object, 0, false, &mut out),
        Value::Array(list) if !list.is_empty() => items(list, 0, false, &mut out),
        value => scalar(value, &mut out),
    }
    out
}

fn entries(object: &Map<String, Value>, depth: usize, mut is_begun: bool, out: &mut String) {
    for (key, value) in object {
        indent(depth, &mut is_begun, out);
        let start = out.len();
        text(key, out);
        // A key of one line has 1024 letters at most (YAML 1.2, 7.4.2); longer ones say that they are keys.
        let is_long = out.len() - start > 1000;
        if is_long {
            out.insert_str(start, "? ");
            out.push('\n');
            indent(depth, &mut is_begun, out);
        }
        match value {
            Value::Object(object) if !object.is_empty() => {
                out.push_str(":\n");
                entries(object, depth + 2, false, out);
            }
            Value::Array(list) if !list.is_empty() => {
                out.push_str(":\n");
                items(list, if is_long { depth + 2 } else { depth }, false, out);
            }
            value => {
                out.push_str(": ");
                scalar(value, out);
            }
        }
    }
}

fn items(list: &[Value], depth: usize, mut is_begun: bool, out: &mut String) {
    for value in list {
        indent(depth, &mut is_begun, out);
        out.push_str("- ");
        match value {
            Value::Object(object) if !object.is_empty() => entries(object, depth + 2, true, out),
            Value::Array(list) if !list.is_empty() => items(list, depth + 2, true, out),
            value => scalar(value, out),
        }
    }
}

/// Begins a line, unless what stands before is the beginning of it.
fn indent(depth: usize, is_begun: &mut bool, out: &mut String) {
    if !std::mem::take(is_begun) {
        out.extend(std::iter::repeat_n(' ', depth));
    }
}

fn scalar(value: &Value, out: &mut String) {
    match value {
        Value::String(string) => text(string, out),
        // The rest is written as in JSON.
        value => out.push_str(&value.to_string()),
    }
    out.push('\n');
}

/// A text no reader takes for anything else: it begins with a letter, and holds nothing that means something in YAML.
fn is_plain(string: &str) -> bool {
    let is_known =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | ':' | ' ' | ',' | '(' | ')');
    string.starts_with(|c: char| c.is_ascii_alphabetic())
        && string.chars().all(is_known)
        && !string.ends_with([' ', ':'])
        && !string.contains(": ")
        && !WORDS.iter().any(|word| word.eq_ignore_ascii_case(string))
}

fn text(string: &str, out: &mut String) {
    if is_plain(string) {
        out.push_str(string);
        return;
    }
    for c in Value::from(string).to_string().chars() {
        match c {
            // What YAML does not print, and what it takes for the end of a line.
            '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => {
                // Writing to a text cannot fail.
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn blocks_are_as_kubernetes_writes_them() {
        let pod = json!({"apiVersion": "v1", "metadata": {"labels": {}, "name": "a"}, "spec": {"containers": [
            {"args": ["-c", "exit 1"], "image": "nginx:1.2", "ports": [{"containerPort": 80}]}, [[1], []]], "x": null}});
        let expected = "apiVersion: v1\nmetadata:\n  labels: {}\n  name: a\nspec:\n  containers:\n  - args:\n    - \"-c\"\n    \
                        - exit 1\n    image: nginx:1.2\n    ports:\n    - containerPort: 80\n  - - - 1\n    - []\n  x: null\n";
        assert_eq!(to_string(&pod), expected);
        assert_eq!(super::super::parse_one(expected), Ok(pod));
    }

    #[test]
    fn texts_stay_texts_for_every_reader() {
        for string in [
            "",
            " ",
            "a ",
            "yes",
            "No",
            "~",
            "null",
            "0644",
            "1_000",
            "1:30",
            "0x7f",
            "1e3",
            ".5",
            "2026-01-01",
            "<<",
            "=",
            "- a",
            "a: b",
            "a:",
            "a #b",
            "a\nb",
            "\t",
            "größe",
            "\u{1f980}",
            "\u{85}\u{2028}\u{feff}",
            "\u{1}",
            "\"'\\",
            "!a",
            "&a",
            "*a",
        ] {
            let value = json!({string: [string, {"k": string}]});
            assert_eq!(super::super::parse_one(&to_string(&value)), Ok(value), "{}", to_string(&json!(string)));
        }
        let long = json!({"k".repeat(3000): [1, {"k".repeat(3000): {"a": 1}}]});
        assert_eq!(super::super::parse_one(&to_string(&long)), Ok(long));
    }
}
