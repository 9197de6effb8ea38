//! Values against a schema, every error at once, in the words of Kubernetes' validator (go-openapi's).
//!
//! An update is checked against the old value as well: what was wrong before and did not change is let be ("ratcheting",
//! KEP-4008), so that a definition may become stricter while its objects live.

use coracle_proto::field::{Error, ErrorKind, Errors, Path};
use serde_json::{Map, Value};

use super::{
    formats,
    schema::{Additional, Checks, Kind, ListType, Schema},
};
use crate::go_regex;

/// As many errors are told; more help nobody.
const MAX_ERRORS: usize = 100;

/// Checks a value that takes the place of another one, if there is one.
pub(super) fn check(schema: &Schema, new: &Value, old: Option<&Value>, path: &str, errors: &mut Errors) {
    if errors.len() >= MAX_ERRORS || old == Some(new) {
        return;
    }
    if new.is_null() && schema.nullable {
        return;
    }
    if !is_of_type(schema, new) {
        errors.push(wrong_type(schema, new, path));
        return;
    }
    if let Some(checks) = &schema.checks {
        combined(checks, new, path, errors);
        one(schema, checks, new, path, errors);
    }
    match new {
        Value::Object(map) => object(schema, map, old, path, errors),
        Value::Array(items) => list(schema, items, old, path, errors),
        _ => {}
    }
}

fn error(kind: ErrorKind, path: &str, message: String) -> Error {
    Error { path: Path::new(path), kind, message }
}

/// `Invalid value: <value>: <path> in body <why>`.
fn invalid(path: &str, value: &Value, why: &str) -> Error {
    let shown = match value {
        Value::Number(n) if n.is_f64() => number(n.as_f64().unwrap_or_default()),
        other => other.to_string(),
    };
    error(ErrorKind::Invalid, path, format!("Invalid value: {shown}: {path} in body {why}"))
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn is_whole(value: &Value) -> bool {
    value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|n| n.fract() == 0.0)
}

fn is_of_type(schema: &Schema, value: &Value) -> bool {
    if schema.int_or_string {
        return value.is_string() || (value.is_number() && is_whole(value));
    }
    match schema.kind {
        None => true,
        Some(Kind::Object) => value.is_object(),
        Some(Kind::Array) => value.is_array(),
        Some(Kind::String) => value.is_string(),
        Some(Kind::Integer) => value.is_number() && is_whole(value),
        Some(Kind::Number) => value.is_number(),
        Some(Kind::Boolean) => value.is_boolean(),
    }
}

fn wrong_type(schema: &Schema, value: &Value, path: &str) -> Error {
    let wanted = if schema.int_or_string { "integer,string" } else { schema.kind.map_or("", Kind::as_str) };
    let given = type_name(value);
    let message = format!("Invalid value: {given:?}: {path} in body must be of type {wanted}: {given:?}");
    error(ErrorKind::TypeInvalid, path, message)
}

fn below(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// Whether a value is of a schema.
fn holds(schema: &Schema, value: &Value, path: &str) -> Result<(), Errors> {
    let mut errors = Errors::new();
    check(schema, value, None, path, &mut errors);
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// `allOf`, `anyOf`, `oneOf` and `not`. Their own errors have no path, as in Kubernetes.
fn combined(checks: &Checks, value: &Value, path: &str, errors: &mut Errors) {
    let mut tell = |why: String| {
        errors.push(error(ErrorKind::Invalid, "<nil>", format!("Invalid value: \"\": \"{path}\" {why}")));
    };
    let mut further = Errors::new();
    if !checks.any_of.is_empty() {
        let failures: Vec<Errors> = checks.any_of.iter().filter_map(|s| holds(s, value, path).err()).collect();
        if failures.len() == checks.any_of.len() {
            tell("must validate at least one schema (anyOf)".to_owned());
            further.extend(failures.into_iter().min_by_key(Vec::len).unwrap_or_default());
        }
    }
    if !checks.one_of.is_empty() {
        let failures: Vec<Errors> = checks.one_of.iter().filter_map(|s| holds(s, value, path).err()).collect();
        match checks.one_of.len() - failures.len() {
            1 => {}
            0 => {
                tell("must validate one and only one schema (oneOf). Found none valid".to_owned());
                further.extend(failures.into_iter().min_by_key(Vec::len).unwrap_or_default());
            }
            n => tell(format!("must validate one and only one schema (oneOf). Found {n} valid alternatives")),
        }
    }
    if !checks.all_of.is_empty() {
        let failures: Vec<Errors> = checks.all_of.iter().filter_map(|s| holds(s, value, path).err()).collect();
        match failures.len() {
            0 => {}
            n if n == checks.all_of.len() => tell("must validate all the schemas (allOf). None validated".to_owned()),
            _ => tell("must validate all the schemas (allOf)".to_owned()),
        }
        further.extend(failures.into_iter().flatten());
    }
    if let Some(not) = &checks.not
        && holds(not, value, path).is_ok()
    {
        tell("must not validate the schema (not)".to_owned());
    }
    errors.extend(further);
}

/// A number as Go's `%v` shows it.
fn number(n: f64) -> String {
    crate::cel::show_number(n)
}

fn one(schema: &Schema, checks: &Checks, value: &Value, path: &str, errors: &mut Errors) {
    if let Some(allowed) = &checks.one_of_values
        && !allowed.iter().any(|a| a == value)
    {
        let shown = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
        let names: Vec<String> = allowed.iter().map(shown).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        errors.push(Error::not_supported(&Path::new(path), value.clone(), &names));
    }
    match value {
        Value::String(text) => self::text(checks, text, value, path, errors),
        Value::Number(n) => numeric(schema, checks, n.as_f64().unwrap_or_default(), value, path, errors),
        Value::Array(items) => {
            let count = items.len();
            if let Some(most) = checks.max_items.and_then(|n| usize::try_from(n).ok()).filter(|most| count > *most) {
                errors.push(Error::too_many(&Path::new(path), count, most));
            }
            if let Some(least) = checks.min_items.filter(|least| i64::try_from(count).is_ok_and(|n| n < *least)) {
                errors.push(invalid(path, &count.into(), &format!("should have at least {least} items")));
            }
        }
        Value::Object(map) => {
            let count = map.len();
            if let Some(most) = checks.max_properties.and_then(|n| usize::try_from(n).ok()).filter(|most| count > *most)
            {
                errors.push(Error::too_many(&Path::new(path), count, most));
            }
            if let Some(least) = checks.min_properties.filter(|least| i64::try_from(count).is_ok_and(|n| n < *least)) {
                errors.push(invalid(path, &count.into(), &format!("should have at least {least} properties")));
            }
            for name in &checks.required {
                if !map.contains_key(&**name) {
                    errors.push(Error::required(&Path::new(below(path, name)), ""));
                }
            }
        }
        _ => {}
    }
}

fn text(checks: &Checks, text: &str, value: &Value, path: &str, errors: &mut Errors) {
    let length = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
    // Of these the first that does not hold is told.
    if let Some(most) = checks.max_length.filter(|most| length > *most) {
        errors.push(Error::too_long(&Path::new(path), usize::try_from(most).unwrap_or(0)));
    } else if let Some(least) = checks.min_length.filter(|least| length < *least) {
        errors.push(invalid(path, value, &format!("should be at least {least} chars long")));
    } else if let Some(pattern) = &checks.pattern
        && !go_regex::compile(pattern).is_ok_and(|regex| regex.is_match(text))
    {
        errors.push(invalid(path, value, &format!("should match '{pattern}'")));
    }
    if !checks.format.is_empty() && !formats::is_of(&checks.format, text) {
        let format = &checks.format;
        let message = format!("Invalid value: {value}: {path} in body must be of type {format}: {value}");
        errors.push(error(ErrorKind::TypeInvalid, path, message));
    }
}

fn numeric(schema: &Schema, checks: &Checks, n: f64, value: &Value, path: &str, errors: &mut Errors) {
    if let Some(most) = checks.maximum {
        let (breaks, words) =
            if checks.exclusive_maximum { (n >= most, "less than") } else { (n > most, "less than or equal to") };
        if breaks {
            errors.push(invalid(path, value, &format!("should be {words} {}", number(most))));
        }
    }
    if let Some(least) = checks.minimum {
        let (breaks, words) = if checks.exclusive_minimum {
            (n <= least, "greater than")
        } else {
            (n < least, "greater than or equal to")
        };
        if breaks {
            errors.push(invalid(path, value, &format!("should be {words} {}", number(least))));
        }
    }
    if let Some(of) = checks.multiple_of.filter(|of| *of > 0.0) {
        let times = n / of;
        if (times - times.round()).abs() > 1e-9 {
            errors.push(invalid(path, value, &format!("should be a multiple of {}", number(of))));
        }
    }
    let fits = match (schema.kind, &*checks.format) {
        (Some(Kind::Integer), "int32") => (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&n),
        (Some(Kind::Number), "float") => n.abs() <= f64::from(f32::MAX),
        _ => true,
    };
    if !fits {
        let message = format!(
            "Checked value must be of type {} with format {}",
            schema.kind.map_or("", Kind::as_str),
            checks.format
        );
        // It has no path, as those of combined schemas have none.
        errors.push(error(ErrorKind::Invalid, "<nil>", format!("Invalid value: \"\": {message} in {path}")));
    }
}

fn object(schema: &Schema, map: &Map<String, Value>, old: Option<&Value>, path: &str, errors: &mut Errors) {
    if schema.embedded {
        embedded(map, path, errors);
    }
    let before = |name: &str| old.and_then(|old| old.get(name));
    for (name, value) in map {
        match (schema.under(name), &schema.additional) {
            (Some(of), _) => check(of, value, before(name), &below(path, name), errors),
            (None, Additional::Nothing) => {
                errors.push(error(
                    ErrorKind::Invalid,
                    &below(path, name),
                    format!("Invalid value: \"\": {} in body is a forbidden property", below(path, name)),
                ));
            }
            _ => {}
        }
    }
}

/// What a resource within a resource must have.
fn embedded(map: &Map<String, Value>, path: &str, errors: &mut Errors) {
    for name in ["apiVersion", "kind"] {
        match map.get(name) {
            Some(Value::String(text)) if !text.is_empty() => {}
            _ => errors.push(Error::required(&Path::new(below(path, name)), "must not be empty")),
        }
    }
    if let Some(meta) = map.get("metadata")
        && let Err(why) =
            serde_json::from_value::<k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta>(meta.clone())
    {
        errors.push(Error::invalid(&Path::new(below(path, "metadata")), meta.clone(), &why.to_string()));
    }
}

/// The value of an entry's keys, as text; missing ones count as missing.
fn entry(item: &Value, keys: &[String]) -> Vec<Option<String>> {
    keys.iter().map(|key| item.get(key).map(ToString::to_string)).collect()
}

fn list(schema: &Schema, items: &[Value], old: Option<&Value>, path: &str, errors: &mut Errors) {
    repeats(schema, items, path, errors);
    let Some(of) = &schema.items else { return };
    let before = old.and_then(Value::as_array);
    let known: std::collections::HashMap<Vec<Option<String>>, &Value> = match &schema.list_type {
        ListType::Map(keys) => before.into_iter().flatten().map(|item| (entry(item, keys), item)).collect(),
        _ => std::collections::HashMap::new(),
    };
    for (index, item) in items.iter().enumerate() {
        // Items of other lists cannot be told to be the same one.
        let before = match &schema.list_type {
            ListType::Map(keys) => known.get(&entry(item, keys)).copied(),
            _ => None,
        };
        check(of, item, before, &format!("{path}[{index}]"), errors);
    }
}

/// Items that stand twice in a set or a map.
fn repeats(schema: &Schema, items: &[Value], path: &str, errors: &mut Errors) {
    let mut seen = std::collections::HashSet::new();
    for (index, item) in items.iter().enumerate() {
        let (key, shown) = match &schema.list_type {
            ListType::Atomic => return,
            ListType::Map(_) if !item.is_object() => {
                let why = "must be an object for an array of list-type map";
                errors.push(Error::invalid(&Path::new(format!("{path}[{index}]")), item.clone(), why));
                continue;
            }
            ListType::Set => (vec![Some(item.to_string())], item.clone()),
            ListType::Map(keys) => {
                let own = keys.iter().filter_map(|key| Some((key.clone(), item.get(key)?.clone())));
                (entry(item, keys), Value::Object(own.collect()))
            }
        };
        if !seen.insert(key) {
            errors.push(Error::duplicate(&Path::new(format!("{path}[{index}]")), shown));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema(json: Value) -> Schema {
        Schema::of(&serde_json::from_value(json).unwrap())
    }

    fn errors(of: Value, new: &Value, old: Option<&Value>) -> Vec<String> {
        let mut found = Errors::new();
        check(&schema(of), new, old, "", &mut found);
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn errors_are_worded_as_kubernetes_words_them() {
        let of = json!({"type": "object", "properties": {"spec": {
            "type": "object", "required": ["name"],
            "properties": {
                "name": {"type": "string", "maxLength": 3, "minLength": 2, "pattern": "^a"},
                "replicas": {"type": "integer", "minimum": 1, "maximum": 5},
                "mode": {"type": "string", "enum": ["A", "B"]},
                "port": {"x-kubernetes-int-or-string": true},
                "when": {"type": "string", "format": "date-time"},
                "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
                "list": {"type": "array", "maxItems": 1, "items": {"type": "object", "properties": {"n": {"type": "number"}}}},
                "nil": {"type": "string", "nullable": true},
            },
            "oneOf": [{"required": ["name"]}, {"required": ["mode"]}],
        }}});
        for (spec, expected) in [
            (json!({"name": "ab", "replicas": 2, "port": "http", "nil": null}), vec![]),
            (
                json!({"name": "ab", "replicas": "x"}),
                vec![
                    r#"spec.replicas: Invalid value: "string": spec.replicas in body must be of type integer: "string""#,
                ],
            ),
            (
                json!({"name": "b", "replicas": 0}),
                vec![
                    r#"spec.name: Invalid value: "b": spec.name in body should be at least 2 chars long"#,
                    "spec.replicas: Invalid value: 0: spec.replicas in body should be greater than or equal to 1",
                ],
            ),
            (json!({"name": "abcd"}), vec!["spec.name: Too long: may not be more than 3 bytes"]),
            (
                json!({"mode": "C"}),
                vec!["spec.name: Required value", r#"spec.mode: Unsupported value: "C": supported values: "A", "B""#],
            ),
            (
                json!({"name": "ab", "mode": "A"}),
                vec![
                    r#"<nil>: Invalid value: "": "spec" must validate one and only one schema (oneOf). Found 2 valid alternatives"#,
                ],
            ),
            (
                json!({"name": "ab", "port": true}),
                vec![
                    r#"spec.port: Invalid value: "boolean": spec.port in body must be of type integer,string: "boolean""#,
                ],
            ),
            (
                json!({"name": "ab", "when": "x"}),
                vec![r#"spec.when: Invalid value: "x": spec.when in body must be of type date-time: "x""#],
            ),
            (json!({"name": "ab", "set": ["a", "b", "a"]}), vec![r#"spec.set[2]: Duplicate value: "a""#]),
            (
                json!({"name": "ab", "list": [{"n": 1}, {"n": "x"}]}),
                vec![
                    "spec.list: Too many: 2: must have at most 1 item",
                    r#"spec.list[1].n: Invalid value: "string": spec.list[1].n in body must be of type number: "string""#,
                ],
            ),
            (
                json!({"name": null}),
                vec![r#"spec.name: Invalid value: "null": spec.name in body must be of type string: "null""#],
            ),
        ] {
            let mut found = errors(of.clone(), &json!({"spec": spec}), None);
            let mut expected: Vec<String> = expected.into_iter().map(str::to_owned).collect();
            found.sort();
            expected.sort();
            assert_eq!(found, expected, "{spec}");
        }
    }

    #[test]
    fn what_was_wrong_before_and_is_the_same_is_let_be() {
        let of = json!({"type": "object", "properties": {
            "a": {"type": "string", "maxLength": 1},
            "l": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": {
                "type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "string", "maxLength": 1}}}},
        }});
        let old = json!({"a": "long", "l": [{"k": "x", "v": "long"}]});
        assert!(errors(of.clone(), &json!({"a": "long", "b": 1}), Some(&old)).is_empty());
        assert_eq!(errors(of.clone(), &json!({"a": "other"}), Some(&old)).len(), 1);
        let moved = json!({"l": [{"k": "y", "v": "l"}, {"k": "x", "v": "long"}]});
        assert!(errors(of.clone(), &moved, Some(&old)).is_empty());
        assert_eq!(errors(of, &moved, None).len(), 1);
    }
}
