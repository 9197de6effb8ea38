//! Where JSON cannot be read as a kind, and how deep it is nested.

use coracle_proto::{
    protobuf,
    resource::Resource,
    schema::{self, Shape, Type},
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

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
pub(super) fn explain(resource: &Resource, json: &[u8], error: &serde_json::Error) -> DecodeError {
    let (kind, at) = (resource.kind, offset(json, error));
    let within = place_at(json, at);
    let (path, why) = (path_of(&within), error.to_string());
    let root = schema::of_kind(resource.group, resource.version, kind);
    DecodeError {
        path: if path.is_empty() { kind.to_owned() } else { format!("{kind}.{path}") },
        in_go: root.and_then(|root| in_go(root, &within, &why, number_at(json, at))),
        why,
    }
}

/// Says what is wrong with the metadata of a kind that has no type of its own.
pub(crate) fn explain_metadata(kind: &str, metadata: &serde_json::Value, error: &serde_json::Error) -> DecodeError {
    // Read from text again it tells where.
    let json = serde_json::to_vec(metadata).unwrap_or_default();
    let again = serde_json::from_slice::<ObjectMeta>(&json).err();
    let error = again.as_ref().unwrap_or(error);
    let (at, why) = (offset(&json, error), error.to_string());
    let within = place_at(&json, at);
    let root = schema::definition("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta");
    let path = path_of(&within);
    let dot = if path.is_empty() { "" } else { "." };
    DecodeError {
        path: format!("{kind}.metadata{dot}{path}"),
        in_go: root.and_then(|root| in_go(root, &within, &why, number_at(&json, at))),
        why,
    }
}

/// What server-side apply says of a scalar of the wrong type, which Kubernetes finds before it reads the object.
pub(crate) fn in_apply(why: &str) -> Option<String> {
    let (got, expected) = unexpected(why)?;
    let (what, literal) = got.split_once(' ').unwrap_or((got, ""));
    let literal = literal.trim_start_matches("point ").trim_matches(['`', '"']);
    let is_scalar = matches!(what, "string" | "boolean" | "integer" | "floating");
    match expected {
        "a string" if is_scalar => Some(format!("expected string, got &value.valueUnstructured{{Value:{literal}}}")),
        "a boolean" if is_scalar => Some(format!("expected boolean, got &{{{literal}}}")),
        "i32" | "i64" | "f64" => {
            let ty = match what {
                "string" => "string",
                "boolean" => "bool",
                "map" => "map[string]interface {}",
                "sequence" => "[]interface {}",
                // A number, though not one that fits.
                _ => return None,
            };
            Some(format!("expected numeric (int or float), got {ty}"))
        }
        _ => None,
    }
}

/// What there was, and what was expected, in serde's words.
fn unexpected(why: &str) -> Option<(&str, &str)> {
    let (wrong, rest) = why.split_once(", expected ")?;
    let (expected, _) = rest.rsplit_once(" at line ")?;
    let got = wrong.strip_prefix("invalid type: ").or_else(|| wrong.strip_prefix("invalid value: "))?;
    Some((got, expected))
}

/// What Go's package `encoding/json` says of a value of the wrong type: `json: cannot unmarshal string into Go struct field
/// ContainerPort.spec.containers.ports.hostPort of type int32`. Where a whole number is wanted, `number` is told as it stands.
fn in_go(root: &'static Type, within: &[Within], why: &str, number: &str) -> Option<String> {
    let (got, expected) = unexpected(why)?;
    // (A port's name or number is read as a number when it is no text.)
    let is_whole = matches!(expected, "i32" | "i64" | "IntOrString" | "a 32-bit integer");
    let got = match got.split(' ').next().unwrap_or_default() {
        "string" => "string".to_owned(),
        "boolean" => "bool".to_owned(),
        "map" => "object".to_owned(),
        "sequence" => "array".to_owned(),
        "integer" | "floating" if is_whole => format!("number {number}"),
        "integer" | "floating" => "number".to_owned(),
        _ => return None,
    };
    // What holds the value, and what of the path are fields of types.
    let (mut inner, mut next, mut fields, mut held) = (root, Some(root), Vec::new(), None);
    let (mut shape, mut is_element) = (Shape::Object, true);
    for place in within {
        match place {
            Within::Object { key, .. } if is_element && matches!(shape, Shape::Object | Shape::List | Shape::Map) => {
                inner = next?;
                let field = inner.field(key)?;
                fields.extend(protobuf::embedded_in(&inner.name, key));
                fields.push(key.as_str());
                held = Some(field);
                (next, shape, is_element) = (field.child(), field.shape, field.shape == Shape::Object);
            }
            _ => is_element = true,
        }
    }
    let named = |ty: &Type| {
        let mut parts = ty.name.rsplit('.');
        let (name, package) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        format!("{package}.{name}")
    };
    let element = || next.map_or_else(|| "string".to_owned(), named);
    let ty = match expected {
        "i32" | "IntOrString" | "a 32-bit integer" => "int32".to_owned(),
        "i64" => "int64".to_owned(),
        "f64" => "float64".to_owned(),
        "a string" => "string".to_owned(),
        "a boolean" => "bool".to_owned(),
        "a sequence" => format!("[]{}", element()),
        "a base64-encoded string" => "[]uint8".to_owned(),
        "a map" if held.is_some_and(|field| field.is_bytes) => "map[string][]uint8".to_owned(),
        "a map" if held.is_some_and(|field| field.is_amounts) => "v1.ResourceList".to_owned(),
        "a map" => format!("map[string]{}", element()),
        name => next.filter(|ty| ty.name.ends_with(&format!(".{name}"))).map(named)?,
    };
    if fields.is_empty() {
        return Some(format!("json: cannot unmarshal {got} into Go value of type {ty}"));
    }
    let holder = inner.name.rsplit('.').next().unwrap_or_default();
    Some(format!("json: cannot unmarshal {got} into Go struct field {holder}.{} of type {ty}", fields.join(".")))
}

/// The byte that serde_json names by line and column, both counted from 1, as the last one it read.
fn offset(json: &[u8], error: &serde_json::Error) -> usize {
    let before = json.split_inclusive(|byte| *byte == b'\n').take(error.line().saturating_sub(1));
    before.map(<[u8]>::len).sum::<usize>() + error.column().saturating_sub(1)
}

/// The number that the byte is of, or comes right behind.
fn number_at(json: &[u8], at: usize) -> &str {
    let is_of_number = |byte: &&u8| byte.is_ascii_digit() || b"+-.eE".contains(byte);
    let length = |bytes: &mut dyn Iterator<Item = &u8>| bytes.take_while(is_of_number).count();
    let before = json.get(..at).unwrap_or_default();
    let (back, on) = (length(&mut before.iter().rev()), length(&mut json.iter().skip(at)));
    json.get(at - back..at + on).and_then(|number| std::str::from_utf8(number).ok()).unwrap_or_default()
}

/// The list or the object that a value is in, and which of its values it is.
enum Within {
    Object { key: String, is_key_next: bool },
    List { index: usize },
}

/// Where the value is that a byte of some JSON belongs to; what cannot be read ends it.
fn place_at(json: &[u8], at: usize) -> Vec<Within> {
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
    within
}

fn path_of(within: &[Within]) -> String {
    let mut path = String::new();
    for place in within {
        match place {
            Within::Object { key, .. } if path.is_empty() => path.push_str(key),
            Within::Object { key, .. } => path.extend([".", key]),
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
    fn applied_scalars_of_another_type_are_told_as_kubernetes_tells_them() {
        for (json, words) in [
            (r#"{"metadata":{"name":1}}"#, "expected string, got &value.valueUnstructured{Value:1}"),
            (r#"{"metadata":{"labels":{"a":true}}}"#, "expected string, got &value.valueUnstructured{Value:true}"),
            (r#"{"spec":{"hostNetwork":"yes"}}"#, "expected boolean, got &{yes}"),
            (r#"{"spec":{"priority":"high"}}"#, "expected numeric (int or float), got string"),
            (r#"{"spec":{"priority":{}}}"#, "expected numeric (int or float), got map[string]interface {}"),
        ] {
            let error = Typed::shared(Pods).decode(json.as_bytes()).err().unwrap();
            assert_eq!(in_apply(&error.why).as_deref(), Some(words), "{json}: {}", error.why);
        }
        assert_eq!(in_apply("quantities must match"), None);
    }

    #[test]
    fn a_path_is_found_in_anything() {
        for json in ["", "{", "}]", "\"", "{\"a\\", "[,,{\"a\":", "{\"a\":1}}}"] {
            for at in 0..10 {
                path_of(&place_at(json.as_bytes(), at));
            }
        }
        assert_eq!(path_of(&place_at(br#"{"a":{"b":[1,{"c":2}]}}"#, 18)), "a.b[1].c");
    }

    #[test]
    fn what_is_of_the_wrong_type_is_said_as_go_says_it() {
        for (json, said) in [
            (
                r#"{"spec":{"containers":[{"ports":[{"hostPort":"x"}]}]}}"#,
                "json: cannot unmarshal string into Go struct field ContainerPort.spec.containers.ports.hostPort of type int32",
            ),
            (
                r#"{"spec":{"containers":[{"command":["a",[1]]}]}}"#,
                "json: cannot unmarshal array into Go struct field Container.spec.containers.command of type string",
            ),
            (
                r#"{"spec":{"containers":"x"}}"#,
                "json: cannot unmarshal string into Go struct field PodSpec.spec.containers of type []v1.Container",
            ),
            (
                r#"{"spec":{"containers":[5]}}"#,
                "json: cannot unmarshal number into Go struct field PodSpec.spec.containers of type v1.Container",
            ),
            (r#"{"spec":true}"#, "json: cannot unmarshal bool into Go struct field Pod.spec of type v1.PodSpec"),
            (
                r#"{"metadata":{"labels":{"a.b/c":1}}}"#,
                "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
            ),
            (
                r#"{"spec":{"activeDeadlineSeconds":1.5}}"#,
                "json: cannot unmarshal number 1.5 into Go struct field PodSpec.spec.activeDeadlineSeconds of type int64",
            ),
            (
                r#"{"spec":{"activeDeadlineSeconds":99999999999999999999999}}"#,
                "json: cannot unmarshal number 99999999999999999999999 into Go struct field PodSpec.spec.activeDeadlineSeconds of type int64",
            ),
            (
                r#"{"spec":{"containers":[{"ports":[{"hostPort":3000000000}]}]}}"#,
                "json: cannot unmarshal number 3000000000 into Go struct field ContainerPort.spec.containers.ports.hostPort of type int32",
            ),
            (
                r#"{"spec":{"containers":[{"ports":[{"hostPort": 8e1 }]}]}}"#,
                "json: cannot unmarshal number 8e1 into Go struct field ContainerPort.spec.containers.ports.hostPort of type int32",
            ),
            (
                r#"{"spec":{"containers":[{"livenessProbe":{"httpGet":{"port":3000000000}}}]}}"#,
                "json: cannot unmarshal number 3000000000 into Go struct field HTTPGetAction.spec.containers.livenessProbe.ProbeHandler.httpGet.port of type int32",
            ),
            (
                r#"{"spec":{"containers":[{"livenessProbe":{"httpGet":{"port":80.5}}}]}}"#,
                "json: cannot unmarshal number 80.5 into Go struct field HTTPGetAction.spec.containers.livenessProbe.ProbeHandler.httpGet.port of type int32",
            ),
            (
                r#"{"spec":{"containers":[{"livenessProbe":{"exec":true}}]}}"#,
                "json: cannot unmarshal bool into Go struct field Probe.spec.containers.livenessProbe.ProbeHandler.exec of type v1.ExecAction",
            ),
            (
                r#"{"metadata":{"creationTimestamp":"2026-01-01T00:00:00+01"}}"#,
                "parsing time \"2026-01-01T00:00:00+01\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"+01\" as \"Z07:00\"",
            ),
            // What Go cannot parse at all is told before what is of the wrong type.
            (
                r#"{"metadata":{"labels":1,"creationTimestamp":"x"}}"#,
                "parsing time \"x\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"x\" as \"2006\"",
            ),
            ("[]", "json: cannot unmarshal array into Go value of type v1.Pod"),
        ] {
            assert_eq!(Typed::shared(Pods).decode(json.as_bytes()).err().unwrap().to_string(), said, "{json}");
        }
    }
}
