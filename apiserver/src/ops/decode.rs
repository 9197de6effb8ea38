//! An object's JSON as its type has it: what the type does not know is told, and what Go reads otherwise than Rust's types do is
//! read as Go reads it.

use coracle_proto::{protobuf, resource::Resource, schema};
use serde_json::Value;

use super::{
    DecodeError, Decoded, base64,
    explain::{MAX_NESTING, explain, nesting},
};
use crate::kind::Object;

pub(super) fn decode<T: Object>(resource: &'static Resource, json: &[u8]) -> Result<Decoded, DecodeError> {
    if nesting(json) > MAX_NESTING {
        let path = resource.kind.to_owned();
        return Err(DecodeError { path, why: "exceeded max depth".to_owned(), in_go: None });
    }
    let read_so = read::<T>(json);
    if read_so.is_err() || protobuf::may_have_wrong_time(&resource.api_version(), resource.kind, json) {
        check_times(resource, json)?;
    }
    let refusal = match read_so {
        Ok(decoded) => {
            return Ok(plain::<T>(resource, json, decoded));
        }
        Err(error) => explain(resource, json, &error),
    };
    // Go reads some documents that Rust's types do not.
    let mended = match as_go_reads(resource, json) {
        Ok(Some(mended)) => mended,
        Ok(None) => return Err(refusal),
        Err(corrupt) => return Err(DecodeError { in_go: Some(corrupt.to_string()), ..refusal }),
    };
    let decoded = read::<T>(&mended).map_err(|error| explain(resource, &mended, &error))?;
    Ok(plain::<T>(resource, &mended, decoded))
}

/// The path of a field that was ignored, as Kubernetes writes it: `spec.containers[0].imag`.
pub(crate) fn dotted(path: &serde_ignored::Path<'_>) -> String {
    use serde_ignored::Path;
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => format!("{}[{index}]", dotted(parent)),
        Path::Map { parent, key } => match dotted(parent).as_str() {
            "" => key.clone(),
            parent => format!("{parent}.{key}"),
        },
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => dotted(parent),
    }
}

/// Reads JSON as a type, and says what in it the type has no field for.
fn read<T: Object>(json: &[u8]) -> serde_json::Result<Decoded> {
    let mut unknown = Vec::new();
    let mut note = |path: serde_ignored::Path<'_>| unknown.push(dotted(&path));
    // Behind a pointer the closure is the same type for all kinds, and so is the code that reads what kinds share:
    // otherwise each kind with a pod template would bring its own copy of it.
    let note: &mut dyn FnMut(serde_ignored::Path<'_>) = &mut note;
    let mut reader = serde_json::Deserializer::from_slice(json);
    let object = serde_ignored::deserialize::<_, _, T>(&mut reader, note)?;
    Ok(Decoded { object: Box::new(object), unknown })
}

/// What Go says of a time that it does not read, before anything else that is wrong: Rust reads more texts as times.
fn check_times(resource: &Resource, json: &[u8]) -> Result<(), DecodeError> {
    let Ok(object) = serde_json::from_slice(json) else { return Ok(()) };
    let wrong = protobuf::wrong_time(&resource.api_version(), resource.kind, &object);
    wrong.map_or(Ok(()), |wrong| Err(DecodeError::of_time(resource.kind, wrong)))
}

/// The object without what Go leaves out; what the kind has not is told of the document as it is.
fn plain<T: Object>(resource: &Resource, json: &[u8], decoded: Decoded) -> Decoded {
    match without_zeros(resource, json).map(|said| read::<T>(&said)) {
        Some(Ok(Decoded { object, .. })) => Decoded { object, ..decoded },
        _ => decoded,
    }
}

/// Whether there may be a zero or something empty in a document: most have none, and need not be looked at closely.
fn may_have_zeros(json: &[u8]) -> bool {
    json.iter().enumerate().filter(|(_, byte)| **byte == b':').any(|(at, _)| {
        let value = json.get(at + 1..).unwrap_or_default().trim_ascii_start();
        match value.first() {
            Some(b'"') => value.get(1) == Some(&b'"'),
            // The brackets that close are two further on in ASCII.
            Some(open @ (b'[' | b'{')) => {
                value.get(1..).unwrap_or_default().trim_ascii_start().first() == Some(&(open + 2))
            }
            Some(b'0') => !value.get(1).is_some_and(|byte| byte.is_ascii_digit() || *byte == b'.'),
            Some(b'f') => true,
            _ => false,
        }
    })
}

/// The document without what Go leaves out, if there is any.
fn without_zeros(resource: &Resource, json: &[u8]) -> Option<Vec<u8>> {
    let (version, kind) = (resource.api_version(), resource.kind);
    if !may_have_zeros(json) || !protobuf::has_unsaid(&version, kind, json) {
        return None;
    }
    let mut value: Value = serde_json::from_slice(json).ok()?;
    let has_dropped = protobuf::drop_unsaid(&version, kind, &mut value);
    has_dropped.then(|| serde_json::to_vec(&value).ok()).flatten()
}

/// The document with zeros where it has nothing, and with its base64 in order, if there is anything to mend.
fn as_go_reads(resource: &Resource, json: &[u8]) -> Result<Option<Vec<u8>>, base64::Corrupt> {
    let Some(root) = schema::of_kind(resource.group, resource.version, resource.kind) else { return Ok(None) };
    let Ok(mut value) = serde_json::from_slice(json) else { return Ok(None) };
    let is_changed = schema::zero::fill(&mut value, root) | base64::tidy(&mut value, root)?;
    Ok(is_changed.then(|| serde_json::to_vec(&value).ok()).flatten())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        kinds::{config_map::ConfigMaps, pod::Pods},
        ops::{KindOps, Typed},
    };

    #[test]
    fn fields_that_the_kind_has_not_are_named_with_their_paths() {
        let json = br#"{"kind":"Pod","apiVersion":"v1","foo":1,"spec":{"containers":[{"name":"a","imag":"b"}]}}"#;
        assert_eq!(
            Typed::new(Pods).decode(json).unwrap_or_else(|e| panic!("{e}")).unknown,
            ["foo", "spec.containers[0].imag"]
        );
    }

    #[test]
    fn zeros_are_looked_for_where_they_may_be() {
        for (json, expected) in [
            (r#"{"a":"b","c":[1],"d":{"e":true},"f":10,"g":null}"#, false),
            (r#"{"a":""}"#, true),
            (r#"{"a": [ ]}"#, true),
            ("{\"a\":{\n}}", true),
            (r#"{"a":0}"#, true),
            (r#"{"a":0.5}"#, false),
            (r#"{"a" : false}"#, true),
            ("{\"a\":", false),
        ] {
            assert_eq!(may_have_zeros(json.as_bytes()), expected, "{json}");
        }
        let pod = br#"{"spec":{"hostNetwork":false,"foo":1,"containers":[],"volumes":[]}}"#;
        let decoded = Typed::new(Pods).decode(pod).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(decoded.unknown, ["spec.foo"]);
        assert_eq!(
            Typed::new(Pods).to_shown(&*decoded.object).unwrap(),
            br#"{"apiVersion":"v1","kind":"Pod","metadata":{},"spec":{"containers":[]}}"#
        );
    }

    #[test]
    fn a_value_of_the_wrong_type_is_named_with_its_path() {
        let error = Typed::new(ConfigMaps).decode(br#"{"data":{"a":{"b":1}}}"#).err().unwrap();
        assert_eq!(error.path, "ConfigMap.data.a");
        assert!(error.why.contains("invalid type: map, expected a string"), "{}", error.why);
        for (json, path) in [
            ("[]", "Pod"),
            ("{\"spec\": 5}", "Pod.spec"),
            ("{\n \"spec\": {\n  \"containers\": [{\"name\": \"a\"}, {\"name\": 17}]}}", "Pod.spec.containers[1].name"),
            (r#"{"metadata":{"labels":{"a,\"}b":"[{","c":true}}}"#, "Pod.metadata.labels.c"),
            (r#"{"metadata":{"creationTimestamp":"yesterday"}}"#, "Pod.metadata.creationTimestamp"),
            (
                r#"{"spec":{"containers":[{"ports":[{"containerPort":"x"}]}]}}"#,
                "Pod.spec.containers[0].ports[0].containerPort",
            ),
            (r#"{"spec":{"containers":[{"command":["a",[1]]}]}}"#, "Pod.spec.containers[0].command[1]"),
            // No integer: what is beyond 64 bits is a float to Kubernetes, too.
            (r#"{"spec":{"activeDeadlineSeconds":18446744073709551616}}"#, "Pod.spec.activeDeadlineSeconds"),
        ] {
            let error = Typed::new(Pods).decode(json.as_bytes()).err().unwrap();
            assert_eq!(error.path, path, "{json}: {}", error.why);
        }
    }

    #[test]
    fn what_is_left_out_is_its_types_zero() {
        use crate::kinds::service::Services;
        let conditions = r#"[{"type":"A","status":"True","lastTransitionTime":null},{"type":"B","foo":1}]"#;
        let json = format!(r#"{{"metadata":{{"annotations":{{"a":null}}}},"status":{{"conditions":{conditions}}}}}"#);
        let decoded = Typed::new(Services).decode(json.as_bytes()).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(decoded.unknown, ["status.conditions[1].foo"]);
        let json = decoded.object.to_json().unwrap();
        assert_eq!(json["metadata"]["annotations"]["a"], "");
        assert_eq!(json["status"]["conditions"][1]["lastTransitionTime"], schema::zero::TIME);
        let wrong = br#"{"metadata":{"annotations":{"a":null}},"spec":{"ports":5}}"#;
        assert_eq!(Typed::new(Services).decode(wrong).err().unwrap().path, "Service.spec.ports");
    }
}
