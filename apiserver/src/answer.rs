//! Answers: stored objects in the form and encoding a client likes.

use axum::body::Body;
use bytes::Bytes;
use coracle_proto::{field, protobuf, status::Status, yaml};
use coracle_store::{Entry, Revision};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    accept::{self, Accepted, Encoding, Form, MetaVersion},
    ops::KindOps,
    pretty,
    registry::Listed,
    request::RequestInfo,
    status_of::{self, Result},
    stored,
};

/// What accompanies a table's cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Include {
    /// Nothing.
    Nothing,
    /// The object's metadata.
    Metadata,
    /// The whole object.
    Object,
}

impl Include {
    /// Reads the query's word, which only tables have a use for.
    ///
    /// # Errors
    /// 400 for a word that is none of them, where a table is asked for.
    pub fn of(info: &RequestInfo, form: Form) -> Result<Self> {
        match (info.query.get("includeObject"), form) {
            ("None", _) => Ok(Self::Nothing),
            ("Object", _) => Ok(Self::Object),
            ("" | "Metadata", _) | (_, Form::Whole | Form::Metadata(_)) => Ok(Self::Metadata),
            (other, Form::Table(_)) => {
                let detail = "must be 'Metadata', 'Object', 'None', or empty";
                let why = field::Error::invalid(&field::Path::new("includeObject"), other, detail);
                Err(Box::new(Status::bad_request(format!("Unable to convert to Table as requested: {why}"))))
            }
        }
    }
}

/// An answer of bytes.
#[must_use]
pub fn bytes(code: StatusCode, media: &'static str, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    response
}

/// An answer of JSON bytes, which [`settle`] indents for who likes that.
#[must_use]
pub fn json_bytes(code: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = bytes(code, Encoding::Json.media(), body.into());
    response.extensions_mut().insert(Compact);
    response
}

/// Marks answers that are JSON because nobody has asked yet what the client likes.
#[derive(Clone)]
struct Unsettled;

/// Marks an answer of JSON that is written without any space and is in memory.
#[derive(Clone, Copy)]
struct Compact;

/// An answer of a JSON value, which [`settle`] may still write differently.
#[must_use]
pub fn json_value(code: StatusCode, value: &impl serde::Serialize) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(bytes) => {
            let mut response = json_bytes(code, bytes);
            response.extensions_mut().insert(Unsettled);
            response
        }
        Err(error) => status(&status_of::broken("an answer cannot be encoded", &error)),
    }
}

/// An answer that is a status.
#[must_use]
pub fn status(status: &Status) -> Response<Body> {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json_value(code, status);
    if let Some(seconds) = status.details.as_ref().map(|d| d.retry_after_seconds).filter(|seconds| *seconds > 0) {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// How a client likes its answers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Liking {
    /// None of what is there.
    encoding: Option<Encoding>,
    is_pretty: bool,
}

impl Liking {
    /// Reads what a request says about it.
    pub(crate) fn of(info: &RequestInfo, headers: &HeaderMap) -> Self {
        Self { encoding: Encoding::of(headers), is_pretty: pretty::is_liked(&info.query, headers) }
    }
}

/// Writes an answer as the client likes it. One of [`json_value`] is encoded so, if it is an object of a kind that can be.
/// Others stay as they are: those of objects are written in their encoding from the start, and what is no object is JSON to
/// everyone. A review that its client does not take is refused; a status or a document is told in JSON then.
pub(crate) async fn settle(response: Response<Body>, liking: Liking) -> Response<Body> {
    let mut response = encoded(response, liking.encoding).await;
    if response.extensions_mut().remove::<Compact>().is_none() || !liking.is_pretty {
        return response;
    }
    let (head, body) = response.into_parts();
    let json = in_memory(body).await;
    Response::from_parts(head, pretty::indented(&json).into())
}

/// The bytes of a body that is in memory and cannot fail to be read.
async fn in_memory(body: Body) -> Bytes {
    body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default()
}

async fn encoded(mut response: Response<Body>, encoding: Option<Encoding>) -> Response<Body> {
    if response.extensions_mut().remove::<Unsettled>().is_none() {
        return response;
    }
    let encoding = match encoding {
        Some(Encoding::Json) => return response,
        Some(encoding) => encoding,
        None if response.status() == StatusCode::CREATED => return status(&accept::not_acceptable()),
        None => return response,
    };
    let (mut head, body) = response.into_parts();
    let json = in_memory(body).await;
    let object = serde_json::from_slice::<Value>(&json).ok().filter(|value| value.get("kind").is_some());
    let object = object.map(|mut object| {
        // The oldest documents of discovery do not say it in JSON.
        if let (Value::Object(object), Encoding::Protobuf) = (&mut object, encoding) {
            object.entry("apiVersion").or_insert_with(|| "v1".into());
        }
        object
    });
    match object.and_then(|object| encode(&object, encoding).ok()) {
        Some(bytes) => {
            head.extensions.remove::<Compact>();
            head.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(encoding.media()));
            Response::from_parts(head, bytes.into())
        }
        None => Response::from_parts(head, json.into()),
    }
}

fn broken(error: &(dyn std::error::Error + 'static)) -> Box<Status> {
    status_of::broken("an answer cannot be encoded", error)
}

/// An object's JSON in another encoding.
fn encode(object: &Value, encoding: Encoding) -> Result<Vec<u8>> {
    match encoding {
        Encoding::Json => serde_json::to_vec(object).map_err(|error| broken(&error)),
        Encoding::Yaml => Ok(yaml::to_string(object).into_bytes()),
        Encoding::Protobuf => protobuf::from_json(object).map_err(|error| broken(&error)),
    }
}

/// Appends an event of a watch about an object in JSON.
///
/// # Errors
/// 500 when the object cannot be written in the encoding.
pub(crate) fn write_event(kind: &str, object: &[u8], encoding: Encoding, out: &mut Vec<u8>) -> Result<()> {
    match encoding {
        Encoding::Json | Encoding::Yaml => {
            out.reserve(object.len() + 40);
            out.extend_from_slice(b"{\"type\":\"");
            out.extend_from_slice(kind.as_bytes());
            out.extend_from_slice(b"\",\"object\":");
            out.extend_from_slice(object);
            out.extend_from_slice(b"}\n");
        }
        Encoding::Protobuf => {
            let object: Value = serde_json::from_slice(object).map_err(|error| broken(&error))?;
            let object = encode(&object, encoding)?;
            protobuf::write_event(kind, object, out).map_err(|error| broken(&error))?;
        }
    }
    Ok(())
}

/// Adds a `Warning` header a sentence (RFC 7234, 5.5; code 299 and no agent).
pub fn warn(response: &mut Response<Body>, sentences: &[String]) {
    // Kubernetes sends 4 KiB of warnings at most.
    let mut room = 4096_usize;
    for sentence in sentences {
        let text: String = sentence.chars().filter(|c| !c.is_control()).collect();
        let value = format!("299 - \"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
        let Some(left) = room.checked_sub(value.len()) else { return };
        room = left;
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
}

/// Appends the object as this kind shows it.
pub(crate) fn write_shown(kind: &dyn KindOps, entry: &Entry, revision: Revision, out: &mut Vec<u8>) -> Result<()> {
    if kind.is_stored_as_shown() {
        stored::write_at(entry, revision, out);
        return Ok(());
    }
    let broken = |error| status_of::broken("a stored object cannot be read", &error);
    let mut object = kind.from_stored(&entry.value).map_err(broken)?;
    object.meta_mut().resource_version = (revision != Revision::NONE).then(|| revision.to_string());
    out.extend_from_slice(&kind.to_shown(&*object).map_err(broken)?);
    Ok(())
}

fn write_metadata(entry: &Entry, revision: Revision, version: MetaVersion, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"kind":"PartialObjectMetadata","apiVersion":""#);
    out.extend_from_slice(version.api_version().as_bytes());
    out.extend_from_slice(br#"","metadata":"#);
    stored::write_metadata(entry, revision, out);
    out.push(b'}');
}

fn write_row(
    kind: &dyn KindOps,
    entry: &Entry,
    revision: Revision,
    (include, version): (Include, MetaVersion),
    now: Timestamp,
    out: &mut Vec<u8>,
) -> Result<()> {
    let broken = |error| status_of::broken("a stored object cannot be read", &error);
    let object = kind.from_stored(&entry.value).map_err(broken)?;
    out.extend_from_slice(b"{\"cells\":");
    out.extend_from_slice(&serde_json::to_vec(&kind.row(&*object, now)).map_err(broken)?);
    match include {
        Include::Nothing => {}
        Include::Metadata => {
            out.extend_from_slice(b",\"object\":");
            write_metadata(entry, revision, version, out);
        }
        Include::Object => {
            out.extend_from_slice(b",\"object\":");
            write_shown(kind, entry, revision, out)?;
        }
    }
    out.push(b'}');
    Ok(())
}

/// Begins a table; rows and `]}` follow.
fn begin_table(kind: Option<&dyn KindOps>, version: MetaVersion, meta: &Value, out: &mut Vec<u8>) {
    let version = version.api_version();
    let columns = kind.map_or(Value::Array(Vec::new()), KindOps::column_definitions);
    let head = format!(
        "{{\"kind\":\"Table\",\"apiVersion\":\"{version}\",\"metadata\":{meta},\"columnDefinitions\":{columns},\"rows\":["
    );
    out.extend_from_slice(head.as_bytes());
}

/// Stored objects in the form of one request.
#[derive(Clone, Copy)]
pub struct Shape<'a> {
    /// Their kind.
    pub kind: &'a dyn KindOps,
    /// The form and encoding.
    pub accepted: Accepted,
    /// What accompanies a row.
    pub include: Include,
    /// The time ages are counted to.
    pub now: Timestamp,
}

impl Shape<'_> {
    /// One object, in JSON.
    pub(crate) fn object(&self, entry: &Entry, revision: Revision, is_first: bool) -> Result<Vec<u8>> {
        let mut out = Vec::with_capacity(entry.value.len() + 64);
        match self.accepted.form {
            Form::Whole => write_shown(self.kind, entry, revision, &mut out)?,
            Form::Metadata(version) => write_metadata(entry, revision, version, &mut out),
            Form::Table(version) => {
                let meta = json!({"resourceVersion": revision.to_string()});
                begin_table(is_first.then_some(self.kind), version, &meta, &mut out);
                write_row(self.kind, entry, revision, (self.include, version), self.now, &mut out)?;
                out.extend_from_slice(b"]}");
            }
        }
        Ok(out)
    }

    /// The answer of one object.
    ///
    /// # Errors
    /// 500 when the stored object cannot be read.
    pub fn one(&self, code: StatusCode, entry: &Entry) -> Result<Response<Body>> {
        self.answer(code, self.object(entry, entry.mod_revision, true)?)
    }

    fn answer(&self, code: StatusCode, json: Vec<u8>) -> Result<Response<Body>> {
        let encoding = self.accepted.encoding;
        if encoding == Encoding::Json {
            return Ok(json_bytes(code, json));
        }
        let object: Value = serde_json::from_slice(&json).map_err(|error| broken(&error))?;
        Ok(bytes(code, encoding.media(), encode(&object, encoding)?))
    }

    /// The answer of a list.
    ///
    /// # Errors
    /// 500 when a stored object cannot be read.
    pub fn list(&self, listed: &Listed) -> Result<Response<Body>> {
        let mut meta = json!({});
        if let Value::Object(meta) = &mut meta {
            // What is not stored has no version, nor has a list of it.
            if listed.revision != Revision::NONE {
                meta.insert("resourceVersion".to_owned(), listed.revision.to_string().into());
            }
            if !listed.next.is_empty() {
                meta.insert("continue".to_owned(), listed.next.clone().into());
            }
            if let Some(remaining) = listed.remaining.filter(|remaining| *remaining > 0) {
                meta.insert("remainingItemCount".to_owned(), remaining.into());
            }
        }
        let size: usize = match self.accepted.form {
            Form::Whole => listed.entries.iter().map(|entry| entry.value.len() + 48).sum(),
            Form::Table(_) | Form::Metadata(_) => listed.entries.len() * 800,
        };
        if self.accepted.encoding == Encoding::Protobuf {
            return self.protobuf_list(listed, &meta, size);
        }
        let mut out = Vec::with_capacity(size + 512);
        if let Form::Table(version) = self.accepted.form {
            begin_table(Some(self.kind), version, &meta, &mut out);
        } else {
            let ((version, kind), _) = self.kinds();
            let head = format!("{{\"kind\":\"{kind}\",\"apiVersion\":\"{version}\",\"metadata\":{meta},\"items\":[");
            out.extend_from_slice(head.as_bytes());
        }
        for (index, entry) in listed.entries.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            self.write_item(entry, &mut out)?;
        }
        out.extend_from_slice(b"]}");
        self.answer(StatusCode::OK, out)
    }

    /// Version and kind of a list, and those of its items.
    fn kinds(&self) -> ((String, &'static str), (String, &'static str)) {
        let resource = self.kind.resource();
        let of = |version: MetaVersion| version.api_version().to_owned();
        match self.accepted.form {
            Form::Metadata(meta) => ((of(meta), "PartialObjectMetadataList"), (of(meta), "PartialObjectMetadata")),
            Form::Table(meta) => ((of(meta), "Table"), (of(meta), "TableRow")),
            Form::Whole => ((resource.api_version(), resource.list_kind), (resource.api_version(), resource.kind)),
        }
    }

    fn write_item(&self, entry: &Entry, out: &mut Vec<u8>) -> Result<()> {
        let revision = entry.mod_revision;
        match self.accepted.form {
            Form::Whole => write_shown(self.kind, entry, revision, out)?,
            Form::Metadata(version) => write_metadata(entry, revision, version, out),
            Form::Table(version) => {
                write_row(self.kind, entry, revision, (self.include, version), self.now, out)?;
            }
        }
        Ok(())
    }

    /// The list in protobuf, one item after the other, so that it takes no more memory than in JSON.
    fn protobuf_list(&self, listed: &Listed, meta: &Value, size: usize) -> Result<Response<Body>> {
        let wrong = |error: protobuf::Error| broken(&error);
        let ((list_version, list_kind), (version, kind)) = self.kinds();
        let mut list =
            protobuf::List::new((&list_version, list_kind), meta, (&version, kind), size + 512).map_err(wrong)?;
        let mut json = Vec::new();
        for entry in &listed.entries {
            json.clear();
            self.write_item(entry, &mut json)?;
            let object: Value = serde_json::from_slice(&json).map_err(|error| broken(&error))?;
            list.push(&object).map_err(wrong)?;
        }
        Ok(bytes(StatusCode::OK, Encoding::Protobuf.media(), list.finish()))
    }

    /// The object of a bookmark, in JSON.
    pub(crate) fn bookmark(&self, revision: Revision, ends_initial: bool) -> Bytes {
        let mut meta = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if let (Value::Object(meta), true) = (&mut meta, ends_initial) {
            meta.insert("annotations".to_owned(), json!({"k8s.io/initial-events-end": "true"}));
        }
        let resource = self.kind.resource();
        let object = match self.accepted.form {
            Form::Table(version) => {
                let mut out = Vec::new();
                begin_table(None, version, &json!({"resourceVersion": revision.to_string()}), &mut out);
                out.extend_from_slice(b"]}");
                return out.into();
            }
            Form::Metadata(version) => {
                json!({"kind": "PartialObjectMetadata", "apiVersion": version.api_version(), "metadata": meta})
            }
            Form::Whole => {
                json!({"kind": resource.kind, "apiVersion": resource.api_version(), "metadata": meta})
            }
        };
        object.to_string().into()
    }
}
