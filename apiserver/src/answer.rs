//! Answers: the form a client accepts, and stored objects in that form.

use axum::body::Body;
use bytes::Bytes;
use coracle_proto::status::Status;
use coracle_store::{Entry, Revision};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    ops::KindOps,
    registry::Listed,
    request::RequestInfo,
    status_of::{self, Result},
    stored,
};

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Whole objects.
    Json,
    /// Whole objects, as YAML.
    Yaml,
    /// Rows of a table.
    Table,
    /// Only the metadata.
    Metadata,
}

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

/// Formats that answers are given in.
const GIVEN: &[&str] = &["application/json", "application/yaml"];

fn form_of(media: &str) -> Option<Form> {
    let mut parts = media.split(';').map(str::trim);
    let name = parts.next().unwrap_or_default().to_ascii_lowercase();
    let (mut shown_as, mut version, mut group) = ("", "", "");
    for part in parts {
        match part.split_once('=') {
            Some(("as", value)) => shown_as = value,
            Some(("v", value)) => version = value,
            Some(("g", value)) => group = value,
            _ => {}
        }
    }
    match (name.as_str(), shown_as) {
        ("application/json", "") | ("*/*" | "application/*", _) => Some(Form::Json),
        ("application/yaml", "") => Some(Form::Yaml),
        ("application/json", "Table") if group == "meta.k8s.io" && version == "v1" => Some(Form::Table),
        ("application/json", "PartialObjectMetadata" | "PartialObjectMetadataList")
            if group == "meta.k8s.io" && version == "v1" =>
        {
            Some(Form::Metadata)
        }
        _ => None,
    }
}

impl Form {
    /// The first form of the `Accept` header that is given.
    ///
    /// # Errors
    /// 406 when none is.
    pub fn of(headers: &HeaderMap) -> Result<Self> {
        Self::first(headers, |_| true)
    }

    /// As [`Form::of`], of what cannot be shown in a table.
    ///
    /// # Errors
    /// 406 when no form is given.
    pub fn without_table(headers: &HeaderMap) -> Result<Self> {
        Self::first(headers, |form| form != Self::Table)
    }

    fn first(headers: &HeaderMap, is_given: impl Fn(Self) -> bool) -> Result<Self> {
        let Some(accept) = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()) else {
            return Ok(Self::Json);
        };
        if accept.trim().is_empty() {
            return Ok(Self::Json);
        }
        accept
            .split(',')
            .filter_map(form_of)
            .find(|form| is_given(*form))
            .ok_or_else(|| Box::new(Status::not_acceptable(GIVEN)))
    }
}

impl Include {
    /// Reads the query's word.
    #[must_use]
    pub fn of(info: &RequestInfo) -> Self {
        match info.query.get("includeObject") {
            "None" => Self::Nothing,
            "Object" => Self::Object,
            _ => Self::Metadata,
        }
    }
}

/// An answer of JSON bytes.
#[must_use]
pub fn json_bytes(code: StatusCode, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// An answer of a JSON value.
#[must_use]
pub fn json_value(code: StatusCode, value: &impl serde::Serialize) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(bytes) => json_bytes(code, bytes),
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

fn write_metadata(entry: &Entry, revision: Revision, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":"#);
    stored::write_metadata(entry, revision, out);
    out.push(b'}');
}

fn write_row(
    kind: &dyn KindOps,
    entry: &Entry,
    revision: Revision,
    include: Include,
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
            write_metadata(entry, revision, out);
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
fn begin_table(kind: Option<&dyn KindOps>, meta: &Value, out: &mut Vec<u8>) {
    let columns = kind.map_or(Value::Array(Vec::new()), KindOps::column_definitions);
    let head = format!(
        "{{\"kind\":\"Table\",\"apiVersion\":\"meta.k8s.io/v1\",\"metadata\":{meta},\"columnDefinitions\":{columns},\"rows\":["
    );
    out.extend_from_slice(head.as_bytes());
}

/// Stored objects in the form of one request.
#[derive(Clone, Copy)]
pub struct Shape<'a> {
    /// Their kind.
    pub kind: &'a dyn KindOps,
    /// The form.
    pub form: Form,
    /// What accompanies a row.
    pub include: Include,
    /// The time ages are counted to.
    pub now: Timestamp,
}

impl Shape<'_> {
    /// One object.
    pub(crate) fn object(&self, entry: &Entry, revision: Revision, is_first: bool) -> Result<Vec<u8>> {
        let mut out = Vec::with_capacity(entry.value.len() + 64);
        match self.form {
            Form::Json | Form::Yaml => write_shown(self.kind, entry, revision, &mut out)?,
            Form::Metadata => write_metadata(entry, revision, &mut out),
            Form::Table => {
                let meta = json!({"resourceVersion": revision.to_string()});
                begin_table(is_first.then_some(self.kind), &meta, &mut out);
                write_row(self.kind, entry, revision, self.include, self.now, &mut out)?;
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
        if self.form != Form::Yaml {
            return Ok(json_bytes(code, json));
        }
        let broken =
            |error: &(dyn std::error::Error + 'static)| status_of::broken("an answer cannot be encoded", error);
        let value: Value = serde_json::from_slice(&json).map_err(|error| broken(&error))?;
        let text = serde_yaml::to_string(&value).map_err(|error| broken(&error))?;
        let mut response = json_bytes(code, text);
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/yaml"));
        Ok(response)
    }

    /// The answer of a list.
    ///
    /// # Errors
    /// 500 when a stored object cannot be read.
    pub fn list(&self, listed: &Listed) -> Result<Response<Body>> {
        let mut meta = json!({"resourceVersion": listed.revision.to_string()});
        if let Value::Object(meta) = &mut meta {
            if !listed.next.is_empty() {
                meta.insert("continue".to_owned(), listed.next.clone().into());
            }
            if let Some(remaining) = listed.remaining.filter(|remaining| *remaining > 0) {
                meta.insert("remainingItemCount".to_owned(), remaining.into());
            }
        }
        let size: usize = match self.form {
            Form::Json | Form::Yaml => listed.entries.iter().map(|entry| entry.value.len() + 48).sum(),
            Form::Table | Form::Metadata => listed.entries.len() * 800,
        };
        let mut out = Vec::with_capacity(size + 512);
        let resource = self.kind.resource();
        let head = match self.form {
            Form::Json | Form::Yaml => {
                format!("{{\"kind\":\"{}\",\"apiVersion\":\"{}\"", resource.list_kind, resource.api_version())
            }
            Form::Metadata => "{\"kind\":\"PartialObjectMetadataList\",\"apiVersion\":\"meta.k8s.io/v1\"".to_owned(),
            Form::Table => String::new(),
        };
        if self.form == Form::Table {
            begin_table(Some(self.kind), &meta, &mut out);
        } else {
            out.extend_from_slice(format!("{head},\"metadata\":{meta},\"items\":[").as_bytes());
        }
        for (index, entry) in listed.entries.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            let revision = entry.mod_revision;
            match self.form {
                Form::Json | Form::Yaml => write_shown(self.kind, entry, revision, &mut out)?,
                Form::Metadata => write_metadata(entry, revision, &mut out),
                Form::Table => write_row(self.kind, entry, revision, self.include, self.now, &mut out)?,
            }
        }
        out.extend_from_slice(b"]}");
        self.answer(StatusCode::OK, out)
    }

    /// The object of a bookmark.
    pub(crate) fn bookmark(&self, revision: Revision, ends_initial: bool) -> Bytes {
        let mut meta = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if let (Value::Object(meta), true) = (&mut meta, ends_initial) {
            meta.insert("annotations".to_owned(), json!({"k8s.io/initial-events-end": "true"}));
        }
        let resource = self.kind.resource();
        let object = match self.form {
            Form::Table => {
                let mut out = Vec::new();
                begin_table(None, &json!({"resourceVersion": revision.to_string()}), &mut out);
                out.extend_from_slice(b"]}");
                return out.into();
            }
            Form::Metadata => {
                json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": meta})
            }
            Form::Json | Form::Yaml => {
                json!({"kind": resource.kind, "apiVersion": resource.api_version(), "metadata": meta})
            }
        };
        object.to_string().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_form_that_is_given_is_taken() {
        let form = |accept: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
            Form::of(&headers)
        };
        for (accept, expected) in [
            ("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", Form::Table),
            ("application/json;as=Table;v=v1beta1;g=meta.k8s.io, application/json", Form::Json),
            ("application/vnd.kubernetes.protobuf,application/json", Form::Json),
            ("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", Form::Metadata),
            ("*/*", Form::Json),
            ("application/yaml", Form::Yaml),
        ] {
            assert_eq!(form(accept).unwrap(), expected, "{accept}");
        }
        assert_eq!(form("application/vnd.kubernetes.protobuf").unwrap_err().code, 406);
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
        let without = |accept: &str| {
            let headers = HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())]);
            Form::without_table(&headers).map_err(|status| status.code)
        };
        assert_eq!(without(table), Err(406));
        assert_eq!(without(&format!("{table},application/json")), Ok(Form::Json));
    }
}
