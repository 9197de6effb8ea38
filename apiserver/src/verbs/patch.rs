//! PATCH: JSON Patch, merge patch and strategic merge patch.

use axum::body::Body;
use bytes::Bytes;
use coracle_proto::{
    field::{self, Path},
    patch::{self, json},
    resource::Resource,
    schema,
    status::Status,
};
use http::{Request, Response, StatusCode};
use serde_json::Value;

use super::Call;
use crate::{
    body::{self, FieldValidation},
    ops::{BoxObject, KindOps, Part},
    registry::{Change, Current},
    status_of::{self, Result},
};

const JSON: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

/// A patch that is well formed.
pub(super) enum Patch {
    Json(json::Patch),
    Merge(Value),
    Strategic(Value),
}

impl Patch {
    /// Reads a patch of the media type.
    pub(super) fn read(media: &str, bytes: &Bytes) -> Result<Self> {
        let parse = || {
            serde_json::from_slice::<Value>(bytes)
                .map_err(|error| Box::new(Status::bad_request(format!("error decoding patch: {error}"))))
        };
        match media {
            JSON => {
                let patch = json::Patch::new(parse()?);
                patch.map(Self::Json).map_err(|error| Box::new(Status::bad_request(error.to_string())))
            }
            MERGE => Ok(Self::Merge(parse()?)),
            STRATEGIC => Ok(Self::Strategic(parse()?)),
            APPLY | "application/apply-patch+cbor" => {
                let message = "server-side apply is not served by this version of Coracle; send a JSON, merge or \
                               strategic merge patch";
                Err(Box::new(Status::failure(415, "UnsupportedMediaType", message)))
            }
            _ => Err(Box::new(Status::unsupported_media_type(media, &[JSON, MERGE, STRATEGIC]))),
        }
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

/// The patched object, read as strictly as asked.
fn patched(
    patch: &Patch,
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
    body::decode(kind, &json, validation).map_err(|status| {
        if status.message.contains("strict decoding error") {
            return status;
        }
        let error = field::Error::invalid(&Path::new("patch"), result.to_string(), &status.message);
        Box::new(Status::invalid(resource.group, resource.kind, &name, &[error]))
    })
}

pub(super) async fn patch(call: &Call, part: Part, request: Request<Body>) -> Result<Response<Body>> {
    let query = call.write_query("PatchOptions")?;
    let media = body::media_type(request.headers());
    let patch = Patch::read(&media, &body::read(request).await?)?;
    let (own, writer) = (call.clone(), call.writer(query.dry_run));
    let noting = writer.clone();
    let (written, warnings) = call
        .to_its_end(async move {
            let mut warnings = Vec::new();
            let change = |current: &Current<'_>| {
                let (object, told) = patched(&patch, &*own.kind, current, query.validation)?;
                warnings = told;
                Ok(object)
            };
            let written = own.registry().update(&own.kind, own.at(), Change::Of(part), &writer, change).await?;
            Ok((written, warnings))
        })
        .await?;
    call.written(StatusCode::OK, &written, &noting, warnings)
}
