//! Reading requests' bodies: how large, which format, which fields.

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use coracle_proto::{json::dropped, protobuf, status::Status};
use http::{HeaderMap, Request, header};
use http_body_util::BodyExt as _;

use crate::{
    ops::{BoxObject, KindOps, TypeMeta},
    status_of::Result,
};

/// As large as a body may be: Kubernetes' own limit.
pub const MAX_BODY: usize = 3 * 1024 * 1024;

/// Formats that objects are taken in,
const TAKEN: &[&str] = &["application/json", "application/yaml", protobuf::MEDIA];

/// and those of kinds that have no protobuf.
const TEXTUAL: &[&str] = &["application/json", "application/yaml"];

/// What is read and thrown away of a body that is too large, so that its sender gets to the answer instead of a connection
/// that is reset while it still sends.
const MAX_DRAINED: usize = 64 * 1024 * 1024;

/// Reads the whole body.
///
/// # Errors
/// 413 beyond [`MAX_BODY`], 400 when the client stops in the middle.
pub async fn read(request: Request<Body>) -> Result<Bytes> {
    let mut body = request.into_body();
    let (mut kept, mut length) = (BytesMut::new(), 0_usize);
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|error| Box::new(Status::bad_request(format!("the body could not be read: {error}"))))?;
        let Ok(data) = frame.into_data() else { continue };
        length = length.saturating_add(data.len());
        if length <= MAX_BODY {
            kept.extend_from_slice(&data);
        } else if length > MAX_DRAINED {
            break;
        }
    }
    if length > MAX_BODY {
        return Err(Box::new(Status::too_large(format!("limit is {MAX_BODY}"))));
    }
    Ok(kept.freeze())
}

/// The media type of the body, without parameters, in lower case.
#[must_use]
pub fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The body as JSON.
///
/// # Errors
/// 415 for another format, 400 for what is not of the format it says.
pub fn to_json(media: &str, body: Bytes) -> Result<Bytes> {
    match media {
        "" | "application/json" => Ok(body),
        media if is_yaml(media) => yaml(&body),
        protobuf::MEDIA => match protobuf::to_json(&body) {
            Ok(object) => Ok(object.to_string().into()),
            // Kinds without tables, custom ones above all, are taken in the other formats.
            Err(protobuf::Error::UnknownKind { .. }) => Err(Box::new(Status::unsupported_media_type(media, TEXTUAL))),
            Err(error) => Err(Box::new(Status::bad_request(error.to_string()))),
        },
        _ => Err(Box::new(Status::unsupported_media_type(media, TAKEN))),
    }
}

/// YAML as JSON.
pub(crate) fn yaml(body: &[u8]) -> Result<Bytes> {
    let bad = |why: String| Box::new(Status::bad_request(why));
    let text = std::str::from_utf8(body).map_err(|_| bad("the body is not UTF-8".to_owned()))?;
    let value = coracle_proto::yaml::parse_one(text)
        .map_err(|error| bad(format!("error converting YAML to JSON: yaml: {error}")))?;
    serde_json::to_vec(&value).map(Bytes::from).map_err(|error| bad(error.to_string()))
}

/// What is done about fields that the kind does not have or that stand twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldValidation {
    /// They are dropped silently.
    Ignore,
    /// They are dropped, and the client is told.
    Warn,
    /// The request is refused.
    Strict,
}

impl FieldValidation {
    /// Reads the query's word; `None` for any other.
    #[must_use]
    pub fn of(text: &str) -> Option<Self> {
        match text {
            "Ignore" => Some(Self::Ignore),
            "" | "Warn" => Some(Self::Warn),
            "Strict" => Some(Self::Strict),
            _ => None,
        }
    }
}

/// Reads a body as an object of `kind`, with sentences about fields that were dropped.
///
/// # Errors
/// 400 for what is no object of the kind, or is not as strictly one as asked; 415 for another format.
pub fn object(
    kind: &dyn KindOps,
    media: &str,
    body: Bytes,
    validation: FieldValidation,
) -> Result<(BoxObject, Vec<String>)> {
    let twice = match std::str::from_utf8(&body) {
        Ok(text) if is_yaml(media) && validation != FieldValidation::Ignore => coracle_proto::yaml::duplicates(text),
        _ => Vec::new(),
    };
    let (object, found) = decode(kind, &to_json(media, body)?, validation)?;
    if validation == FieldValidation::Strict && !(found.is_empty() && twice.is_empty()) {
        let yaml = (!twice.is_empty()).then(|| format!("yaml: unmarshal errors:\n  {}", twice.join("\n  ")));
        let all: Vec<String> = yaml.into_iter().chain(found).collect();
        let resource = kind.resource();
        return Err(Box::new(Status::bad_request(format!(
            "{} in version \"{}\" cannot be handled as a {}: strict decoding error: {}",
            resource.kind,
            resource.version,
            resource.kind,
            all.join(", ")
        ))));
    }
    Ok((object, twice.iter().map(|line| format!("yaml: {line}")).chain(found).collect()))
}

fn is_yaml(media: &str) -> bool {
    matches!(media, "application/yaml" | "application/x-yaml" | "text/yaml")
}

/// Reads an object of `kind`, with sentences about fields that were dropped, unless those are to be ignored.
///
/// # Errors
/// 400 for what is no object of the kind.
pub fn decode(kind: &dyn KindOps, json: &[u8], validation: FieldValidation) -> Result<(BoxObject, Vec<String>)> {
    let resource = kind.resource();
    let bad = |why: String| Box::new(Status::bad_request(why));
    let unreadable = |why: &dyn std::fmt::Display| {
        bad(format!(
            "the object provided is unrecognized (must be of type {}): couldn't get version/kind; json parse error: \
             {why}",
            resource.kind
        ))
    };
    let said: TypeMeta = serde_json::from_slice(json).map_err(|error| unreadable(&error))?;
    let version = resource.api_version();
    if !said.api_version.is_empty() && said.api_version != version {
        return Err(bad(format!(
            "the API version in the data ({}) does not match the expected API version ({version})",
            said.api_version
        )));
    }
    if !said.kind.is_empty() && said.kind != resource.kind {
        return Err(bad(format!(
            "{} in version \"{}\" cannot be handled as a {}: converting ({}.{}) to ({}.{}): unknown conversion",
            said.kind, resource.version, resource.kind, resource.version, said.kind, resource.version, resource.kind
        )));
    }
    let decoded = kind.decode(json).map_err(|error| {
        bad(format!(
            "{} in version \"{}\" cannot be handled as a {}: {error}",
            resource.kind, resource.version, resource.kind
        ))
    })?;
    if validation == FieldValidation::Ignore {
        return Ok((decoded.object, Vec::new()));
    }
    // What is of a definition's kind is read as it stands, and measured against the definition afterwards.
    let at_once = if kind.is_custom() { &[][..] } else { &decoded.unknown };
    let mut found = dropped(json, at_once).map_err(|error| unreadable(&error))?;
    if kind.is_custom() {
        found.extend(decoded.unknown.iter().map(|path| format!("unknown field \"{path}\"")));
    }
    Ok((decoded.object, found))
}
