//! Paths that are not objects: discovery, OpenAPI, the version, the list of paths.

use std::sync::{LazyLock, OnceLock};

use axum::body::Body;
use bytes::Bytes;
use coracle_proto::status::Status;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha512};

use crate::{
    answer::{json_bytes, json_value},
    compression,
    discovery::{self, Half},
    health, metrics, openapi,
    request::RequestInfo,
    server::Inner,
    status_of::Result,
};

/// The Kubernetes release whose API this is.
pub(crate) const VERSION: &str = concat!("v1.36.0+coracle", env!("CARGO_PKG_VERSION"));

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// A document that does not change while the process runs, compressed, and its hash. Most who ask take it compressed, and
/// a home's server rather unpacks it once for the others than keeps megabytes.
struct Document {
    packed: Bytes,
    tag: String,
}

impl Document {
    fn new(value: &Value) -> Self {
        Self::of(value.to_string().into())
    }

    fn of(body: Bytes) -> Self {
        let tag = hex::encode_upper(Sha512::digest(&body));
        Self { packed: compression::gzip(&body, 6).into(), tag }
    }

    /// The document, or that the client has it already.
    fn answer(&self, headers: &HeaderMap, media: &'static str) -> Response<Body> {
        let tag = format!("\"{}\"", self.tag);
        let is_known = headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
        let mut response = if is_known {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response
        } else {
            let is_packed = compression::is_taken(headers);
            let body = if is_packed { self.packed.clone() } else { compression::gunzip(&self.packed).into() };
            let mut response = json_bytes(StatusCode::OK, body);
            if is_packed {
                compression::mark(response.headers_mut());
            }
            response
        };
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
        headers.append(header::VARY, HeaderValue::from_static("Accept"));
        if let Ok(tag) = HeaderValue::from_str(&tag) {
            headers.insert(header::ETAG, tag);
        }
        response
    }
}

static CORE: LazyLock<Document> = LazyLock::new(|| Document::new(&discovery::aggregated(Half::Core)));
static NAMED: LazyLock<Document> = LazyLock::new(|| Document::new(&discovery::aggregated(Half::Named)));

/// A document's name, the document, and its group and version.
type Slot = (String, OnceLock<Document>, &'static str, &'static str);

/// OpenAPI documents, each built when first asked for.
static V3: LazyLock<Vec<Slot>> = LazyLock::new(|| {
    let names = openapi::v3_names();
    names.into_iter().map(|(name, group, version)| (name, OnceLock::new(), group, version)).collect()
});
static V2: LazyLock<Document> = LazyLock::new(|| Document::new(&openapi::v2(VERSION)));

static V2_PROTOBUF: LazyLock<Document> =
    LazyLock::new(|| Document::of(openapi::protobuf::encode(&openapi::v2(VERSION)).into()));

/// Whether the OpenAPI v2 document is wanted in protobuf: the first known form counts.
fn wants_protobuf(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let known = accept.split(',').map(|media| media.trim().replace('@', ".")).find(|media| {
        media == openapi::protobuf::MEDIA || media.starts_with("application/json") || media.starts_with("*/*")
    });
    known.is_some_and(|media| media == openapi::protobuf::MEDIA)
}

fn wants_aggregated(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    accept.split(',').any(|media| {
        let media = media.replace(' ', "");
        media.starts_with("application/json")
            && media.contains(";g=apidiscovery.k8s.io")
            && media.split(';').any(|part| part == "v=v2")
            && media.contains(";as=APIGroupDiscoveryList")
    })
}

/// The second version of OpenAPI is asked for as protobuf as well, by who takes JSON too.
fn takes_json(headers: &HeaderMap) -> bool {
    let mut accept = headers.get_all(header::ACCEPT).into_iter().filter_map(|value| value.to_str().ok()).peekable();
    accept.peek().is_none()
        || accept.flat_map(|value| value.split(',')).any(|media| {
            let name = media.split(';').next().unwrap_or_default().trim();
            matches!(name, "" | "*/*" | "application/*" | "application/json")
        })
}

fn v3(name: &str) -> Option<&'static Document> {
    let (_, slot, group, version) = V3.iter().find(|(n, ..)| n == name)?;
    Some(slot.get_or_init(|| Document::new(&openapi::v3(group, version, VERSION).unwrap_or(Value::Null))))
}

/// Where the group and version's document is; the hash lets clients keep it.
fn v3_index() -> Value {
    let mut paths = serde_json::Map::new();
    for (name, ..) in V3.iter() {
        let tag = v3(name).map_or("", |document| document.tag.as_str());
        let url = format!("/openapi/v3/{name}?hash={tag}");
        paths.insert(name.clone(), json!({"serverRelativeURL": url}));
    }
    json!({"paths": paths})
}

fn paths() -> Value {
    let mut paths = vec!["/api".to_owned(), "/api/v1".to_owned(), "/apis".to_owned(), "/apis/".to_owned()];
    for (group, versions) in discovery::groups().iter().filter(|(group, _)| !group.is_empty()) {
        paths.push(format!("/apis/{group}"));
        paths.extend(versions.iter().map(|version| format!("/apis/{group}/{version}")));
    }
    for path in ["/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/openapi/v3/", "/readyz", "/version"]
    {
        paths.push(path.to_owned());
    }
    json!({"paths": paths})
}

fn version() -> Value {
    json!({
        "major": "1", "minor": "36", "emulationMajor": "1", "emulationMinor": "36",
        "minCompatibilityMajor": "1", "minCompatibilityMinor": "35", "gitVersion": VERSION, "gitCommit": "",
        "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    })
}

/// Answers a path that is about no object.
pub(crate) fn answer(
    server: &Inner,
    method: &Method,
    info: &RequestInfo,
    headers: &HeaderMap,
) -> Result<Response<Body>> {
    if let Some(response) = health::answer(server, info) {
        return Ok(response);
    }
    let missing = || Box::new(Status::no_such_path());
    if !matches!(*method, Method::GET | Method::HEAD) {
        return Err(missing());
    }
    let ok = |value: &Value| Ok(json_value(StatusCode::OK, value));
    let parts: Vec<&str> = info.path.split('/').filter(|part| !part.is_empty()).collect();
    match parts.as_slice() {
        [] => ok(&paths()),
        ["version"] => ok(&version()),
        ["metrics"] => Ok(metrics::answer(server)),
        ["api"] if wants_aggregated(headers) => Ok(CORE.answer(headers, AGGREGATED)),
        ["apis"] if wants_aggregated(headers) => Ok(NAMED.answer(headers, AGGREGATED)),
        ["api"] => ok(&discovery::core_versions(&server.address.to_string())),
        ["apis"] => ok(&discovery::group_list()),
        ["api", version] => discovery::resource_list("", version).as_ref().map_or_else(|| Err(missing()), ok),
        ["apis", group] => discovery::group(group).as_ref().map_or_else(|| Err(missing()), ok),
        ["apis", group, version] => {
            discovery::resource_list(group, version).as_ref().map_or_else(|| Err(missing()), ok)
        }
        ["openapi", "v2"] if wants_protobuf(headers) => Ok(V2_PROTOBUF.answer(headers, openapi::protobuf::MEDIA)),
        ["openapi", "v2"] if !takes_json(headers) => Err(Box::new(Status::not_acceptable(&["application/json"]))),
        ["openapi", "v2"] => Ok(V2.answer(headers, "application/json")),
        ["openapi", "v3"] => ok(&v3_index()),
        ["openapi", "v3", name @ ..] => match v3(&name.join("/")) {
            Some(document) => Ok(document.answer(headers, "application/json")),
            None => Err(missing()),
        },
        _ => Err(missing()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openapi_v2_is_protobuf_for_whoever_asks_so_first() {
        let wants = |accept: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
            wants_protobuf(&headers)
        };
        let (asked, answered) = (
            "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
            "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
        );
        assert!(wants(asked) && wants(answered));
        assert!(wants("text/html, application/com.github.proto-openapi.spec.v2@v1.0+protobuf, application/json"));
        assert!(!wants("application/json, application/com.github.proto-openapi.spec.v2@v1.0+protobuf"));
        assert!(!wants("*/*") && !wants("application/json"));
        assert!(!wants_protobuf(&HeaderMap::new()));
    }
}
