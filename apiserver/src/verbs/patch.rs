//! PATCH: JSON Patch, merge patch, strategic merge patch and server-side apply.

use axum::body::Body;
use bytes::Bytes;
use coracle_proto::{
    field::{self, Path},
    patch::{self, json},
    resource::Resource,
    schema,
    status::Status,
    yaml,
};
use http::{Request, Response, StatusCode};
use serde_json::Value;

use super::{
    Call,
    options::{PatchKind, WriteOptions},
};
use crate::{
    body::{self, FieldValidation},
    ops::{BoxObject, KindOps, Part},
    ownership::Config,
    registry::{Change, Current},
    status_of::{self, Result},
};

const JSON: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
pub(super) const APPLY: &str = "application/apply-patch+yaml";

/// A patch that is well formed.
pub(super) enum Patch {
    Json(json::Patch),
    Merge(Value),
    Strategic(Value),
}

impl Patch {
    /// Reads a patch of the media type, with sentences about fields that stand in it twice or mean nothing there.
    pub(super) fn read(media: &str, bytes: &Bytes) -> Result<(Self, Vec<String>)> {
        let bad = |why: String| Box::new(Status::bad_request(why));
        if !matches!(media, JSON | MERGE | STRATEGIC) {
            return Err(Box::new(Status::unsupported_media_type(media, &[JSON, MERGE, STRATEGIC, APPLY])));
        }
        let unreadable = |error| bad(format!("error decoding patch: {error}"));
        let patch: Value = serde_json::from_slice(bytes).map_err(unreadable)?;
        let mut found = coracle_proto::json::dropped(bytes, &[]).map_err(unreadable)?;
        match media {
            MERGE => return Ok((Self::Merge(patch), found)),
            STRATEGIC => return Ok((Self::Strategic(patch), found)),
            _ => {}
        }
        found.extend(unknown_in_steps(&patch));
        let found = found.into_iter().map(|sentence| format!("json patch {sentence}")).collect();
        let patch = json::Patch::new(patch).map_err(|error| bad(error.to_string()))?;
        Ok((Self::Json(patch), found))
    }

    /// What the patch makes of a document.
    pub(super) fn apply(&self, document: Value, resource: &Resource, name: &str) -> Result<Value> {
        let refused = |error| status_of::patch(&error, resource, name);
        match self {
            Self::Json(patch) => patch.apply(&document).map_err(refused),
            Self::Merge(patch) => {
                let mut document = document;
                patch::merge::apply(&mut document, patch.clone());
                Ok(document)
            }
            Self::Strategic(patch) => {
                let root = schema::of_kind(resource.group, resource.version, resource.kind);
                patch::strategic::apply(document, patch.clone(), root).map_err(refused)
            }
        }
    }
}

/// A sentence for every field of a JSON Patch's steps that no step has.
fn unknown_in_steps(patch: &Value) -> Vec<String> {
    let steps = patch.as_array().map(Vec::as_slice).unwrap_or_default();
    let fields = steps.iter().enumerate().flat_map(|(index, step)| {
        step.as_object().into_iter().flat_map(serde_json::Map::keys).map(move |name| (index, name))
    });
    let unknown = fields.filter(|(_, name)| !matches!(name.as_str(), "op" | "path" | "from" | "value"));
    unknown.map(|(index, name)| format!("unknown field \"[{index}].{name}\"")).collect()
}

/// The patched object, read as strictly as asked; `found` is what the patch itself has too much.
fn patched(
    patch: &Patch,
    found: &[String],
    kind: &dyn KindOps,
    current: &Current<'_>,
    validation: FieldValidation,
) -> Result<(BoxObject, Vec<String>)> {
    let resource = kind.resource();
    let name = current.object.meta().name.clone().unwrap_or_default();
    let shown = kind.to_shown(current.object).and_then(|json| serde_json::from_slice(&json));
    let document: Value = shown.map_err(|error| status_of::broken("a stored object cannot be read", &error))?;
    let result = patch.apply(document, resource, &name)?;
    let json =
        serde_json::to_vec(&result).map_err(|error| status_of::broken("a patched object cannot be encoded", &error))?;
    // Kubernetes names neither kind nor object here. It shows what came of the patch, but of a strategic one the patch.
    let invalid = |why: &str| {
        let path = Path::new("patch");
        let error = match patch {
            Patch::Strategic(patch) => {
                let words = restored(why);
                field::Error::invalid(&path, as_go_prints(patch), words.as_deref().unwrap_or(why))
            }
            Patch::Json(_) | Patch::Merge(_) => field::Error::invalid(&path, result.to_string(), why),
        };
        Box::new(Status::invalid("", "", "", &[error]))
    };
    let handled = format!("{0} in version \"{1}\" cannot be handled as a {0}: ", resource.kind, resource.version);
    let (object, unknown) = body::decode(kind, &json, validation)
        .map_err(|status| invalid(status.message.strip_prefix(&handled).unwrap_or(&status.message)))?;
    let faults = kind.validate(&*object);
    if let Some(unreadable) = faults.iter().find(|error| error.kind == field::ErrorKind::Unreadable) {
        return Err(invalid(&unreadable.message));
    }
    let told: Vec<String> = match validation {
        FieldValidation::Ignore => Vec::new(),
        FieldValidation::Warn | FieldValidation::Strict => found.iter().cloned().chain(unknown).collect(),
    };
    if validation == FieldValidation::Strict && !told.is_empty() {
        return Err(invalid(&format!("strict decoding error: {}", told.join(", "))));
    }
    Ok((object, told))
}

/// What Kubernetes says of a value of the wrong type in the result of a strategic merge patch, which it reads from a tree
/// (`runtime.DefaultUnstructuredConverter`), given what it says of one that it reads from text.
fn restored(why: &str) -> Option<String> {
    let (_, told) = why.split_once("json: cannot unmarshal ")?;
    let (got, place) = told.split_once(" into Go ")?;
    let (_, wanted) = place.rsplit_once(" of type ")?;
    let (kind, name) = match got {
        "string" => ("string", "string"),
        "bool" => ("bool", "bool"),
        "object" => ("map", "map[string]interface {}"),
        "array" => ("slice", "[]interface {}"),
        // Only where a whole number was wanted, the one that came is told.
        number if number.trim_start_matches("number").contains(['.', 'e', 'E']) => ("float64", "float64"),
        _ => ("int64", "int64"),
    };
    Some(if wanted.starts_with("map[") {
        format!("cannot restore map from {kind}")
    } else if wanted.starts_with("[]") {
        format!("cannot restore slice from {kind}")
    } else if wanted.contains('.') {
        format!("cannot restore struct from: {kind}")
    } else {
        format!("cannot convert {name} to {wanted}")
    })
}

/// A value as Go's `fmt` prints it with `%+v`: keys sorted, nothing quoted.
fn as_go_prints(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Array(items) => format!("[{}]", items.iter().map(as_go_prints).collect::<Vec<_>>().join(" ")),
        Value::Object(fields) => {
            let mut shown: Vec<(&String, String)> = fields.iter().map(|(k, v)| (k, as_go_prints(v))).collect();
            shown.sort();
            format!("map[{}]", shown.iter().map(|(k, v)| format!("{k}:{v}")).collect::<Vec<_>>().join(" "))
        }
    }
}

pub(super) async fn patch(call: &Call, part: Part, request: Request<Body>) -> Result<Response<Body>> {
    let media = body::media_type(request.headers());
    if media == APPLY {
        return apply(call, part, request).await;
    }
    if media == STRATEGIC && call.kind.is_custom() {
        // There are no Go structs whose tags would say how to merge.
        return Err(Box::new(Status::unsupported_media_type(&media, &[JSON, MERGE, APPLY])));
    }
    let options = WriteOptions::of_patch(&call.info.query, PatchKind::Other)?;
    let (patch, found) = Patch::read(&media, &body::read(request).await?)?;
    let (own, writer) = (call.clone(), call.writer(&options));
    let written = call
        .to_its_end(async move {
            let change = |current: &Current<'_>| {
                let (object, told) = patched(&patch, &found, &*own.kind, current, options.validation)?;
                told.into_iter().for_each(|sentence| own.notes.warn(sentence));
                Ok(object)
            };
            own.registry().update(&own.kind, own.at(), Change::Of(part), &writer, change).await
        })
        .await?;
    call.shape().one(StatusCode::OK, &written)
}

/// Reads a configuration to apply, with sentences about keys that stand in it twice.
pub(super) fn config(bytes: &[u8], options: &WriteOptions) -> Result<(Value, Vec<String>)> {
    let bad = |why: String| Box::new(Status::bad_request(why));
    let text = std::str::from_utf8(bytes)
        .map_err(|_| bad("error decoding YAML: error converting YAML to JSON: yaml: invalid UTF-8".to_owned()))?;
    let value = yaml::parse_json_or_yaml(text)
        .map_err(|error| bad(format!("error decoding YAML: error converting YAML to JSON: yaml: {error}")))?;
    if !value.is_object() {
        return Err(bad("error decoding YAML: the configuration is no object".to_owned()));
    }
    let twice = match options.validation {
        FieldValidation::Ignore => Vec::new(),
        FieldValidation::Warn | FieldValidation::Strict => yaml::duplicates(text),
    };
    Ok((value, twice))
}

async fn apply(call: &Call, part: Part, request: Request<Body>) -> Result<Response<Body>> {
    let options = WriteOptions::of_patch(&call.info.query, PatchKind::Apply)?;
    let (config, twice) = config(&body::read(request).await?, &options)?;
    if options.validation == FieldValidation::Strict && !twice.is_empty() {
        let why = twice.join("\n  ");
        return Err(Box::new(Status::bad_request(format!(
            "error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal errors:\n  {why}"
        ))));
    }
    let config = Config::new(&*call.kind, config, options.force);
    let (own, writer) = (call.clone(), call.writer(&options));
    twice.iter().for_each(|why| call.notes.warn(format!("yaml: {why}")));
    let (written, is_new) = call
        .to_its_end(async move {
            let may_create = || own.may_create();
            own.registry().apply(&own.kind, own.at(), part, &config, &writer, may_create).await
        })
        .await?;
    call.shape().one(if is_new { StatusCode::CREATED } else { StatusCode::OK }, &written)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_tree_has_wrong_is_said_in_kubernetes_words() {
        let told = |what: &str| restored(&format!("Pod in version \"v1\" cannot be handled as a Pod: json: {what}"));
        for (text, tree) in [
            (
                "cannot unmarshal string into Go struct field ObjectMeta.metadata.labels of type map[string]string",
                "cannot restore map from string",
            ),
            (
                "cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container",
                "cannot restore slice from map",
            ),
            (
                "cannot unmarshal array into Go struct field Pod.spec of type v1.PodSpec",
                "cannot restore struct from: slice",
            ),
            (
                "cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
                "cannot convert int64 to string",
            ),
            (
                "cannot unmarshal number 1.5 into Go struct field PodSpec.spec.activeDeadlineSeconds of type int64",
                "cannot convert float64 to int64",
            ),
        ] {
            assert_eq!(told(text).as_deref(), Some(tree), "{text}");
        }
        assert_eq!(restored("strict decoding error: unknown field \"x\""), None);
    }

    #[test]
    fn values_are_shown_as_go_prints_them() {
        let value = json!({"b": [1, 2.5, null, true], "a": {"x": "y z"}});
        assert_eq!(as_go_prints(&value), "map[a:map[x:y z] b:[1 2.5 <nil> true]]");
    }
}
