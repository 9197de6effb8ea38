//! Paths that are not objects: discovery, OpenAPI, the version, the list of paths.

mod merged;

use std::sync::{Arc, LazyLock, OnceLock};

use axum::body::Body;
use bytes::Bytes;
use coracle_proto::{
    resource::{RESOURCES, Resource, old},
    status::Status,
};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha512};

pub(crate) use self::merged::Merged;
use crate::{
    answer::{bytes, json_value},
    compression,
    discovery::{self, Half},
    health, metrics, openapi,
    registry::Registry,
    request::RequestInfo,
    server::Inner,
    status_of::Result,
    stored,
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

    /// The document at a URL with the hash it had when the client learned of it: then it may be kept for good. A client
    /// with an old hash is sent to the new one.
    fn answer_hashed(&self, hash: &str, path: &str, headers: &HeaderMap) -> Response<Body> {
        if !hash.is_empty() && hash != self.tag {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
            if let Ok(to) = HeaderValue::from_str(&format!("{path}?hash={}", self.tag)) {
                response.headers_mut().insert(header::LOCATION, to);
            }
            return response;
        }
        let mut response = self.answer(headers, "application/json");
        if !hash.is_empty() {
            let year = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(365 * 24);
            let ends = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&year);
            let headers = response.headers_mut();
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
            if let Some(ends) = ends.ok().and_then(|ends| HeaderValue::from_str(&ends).ok()) {
                headers.insert(header::EXPIRES, ends);
            }
        }
        response
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
            let mut response = bytes(StatusCode::OK, media, body);
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

/// An OpenAPI document of one group and version: its name, the document when it was asked for, group and version.
struct Slot {
    name: String,
    /// Shared with the slots of later pictures in which the group and version are as they were.
    document: Arc<OnceLock<Document>>,
    group: &'static str,
    version: &'static str,
}

/// The documents about the resources there are at one time, each built when first asked for.
pub(crate) struct Documents {
    pub(crate) rows: Vec<&'static Resource>,
    named: OnceLock<Document>,
    v2: OnceLock<Document>,
    v2_protobuf: OnceLock<Document>,
    v3_index: OnceLock<Document>,
    v3: Vec<Slot>,
}

/// What is about built-in resources alone is the same whatever definitions there are.
static CORE: LazyLock<Document> =
    LazyLock::new(|| Document::new(&discovery::aggregated(&RESOURCES.iter().collect::<Vec<_>>(), Half::Core)));
static BUILT_IN: LazyLock<Documents> = LazyLock::new(|| Documents::new(old::all().collect(), |_, _| None));

impl Documents {
    /// The documents about these resources; `before` has those of an earlier picture in which a group and version was as
    /// it is now.
    pub(crate) fn new<'d>(
        rows: Vec<&'static Resource>,
        before: impl Fn(&'static str, &'static str) -> Option<&'d Self>,
    ) -> Self {
        let slot = |(name, group, version): (String, &'static str, &'static str)| {
            let known = before(group, version).and_then(|before| before.slot(&name));
            let document = known.map(|slot| Arc::clone(&slot.document)).unwrap_or_default();
            Slot { name, document, group, version }
        };
        let v3 = openapi::v3_names(&rows).into_iter().map(slot).collect();
        Self {
            rows,
            named: OnceLock::new(),
            v2: OnceLock::new(),
            v2_protobuf: OnceLock::new(),
            v3_index: OnceLock::new(),
            v3,
        }
    }

    fn slot(&self, name: &str) -> Option<&Slot> {
        self.v3.iter().find(|slot| slot.name == name)
    }

    fn named(&self) -> &Document {
        self.named.get_or_init(|| Document::new(&discovery::aggregated(&self.rows, Half::Named)))
    }

    fn v2(&self, server: &Inner) -> &Document {
        self.v2
            .get_or_init(|| Document::new(&openapi::v2(&self.rows, &|row| definition(&server.registry, row), VERSION)))
    }

    fn v2_protobuf(&self, server: &Inner) -> &Document {
        self.v2_protobuf.get_or_init(|| {
            let document = openapi::v2(&self.rows, &|row| definition(&server.registry, row), VERSION);
            Document::of(openapi::protobuf::encode(&document).into())
        })
    }

    fn v3(&self, server: &Inner, name: &str) -> Option<&Document> {
        let slot = self.slot(name)?;
        // The documents of built-in groups do not change with definitions, unless one adds to such a group.
        let same = BUILT_IN.slot(name).filter(|other| !std::ptr::eq(*other, slot)).filter(|_| {
            let own = |rows: &[&'static Resource]| {
                rows.iter().filter(|r| (r.group, r.version) == (slot.group, slot.version)).count()
            };
            own(&self.rows) == own(&BUILT_IN.rows)
        });
        let slot = same.unwrap_or(slot);
        Some(slot.document.get_or_init(|| {
            let of = (slot.group, slot.version);
            let document = openapi::v3(&self.rows, &|row| definition(&server.registry, row), of, VERSION);
            Document::new(&document.unwrap_or(Value::Null))
        }))
    }

    /// Where each group and version's document is; the hash lets clients keep it.
    fn v3_index(&self, server: &Inner) -> Value {
        let mut paths = serde_json::Map::new();
        for slot in &self.v3 {
            let tag = self.v3(server, &slot.name).map_or("", |document| document.tag.as_str());
            let url = format!("/openapi/v3/{}?hash={tag}", slot.name);
            paths.insert(slot.name.clone(), json!({"serverRelativeURL": url}));
        }
        json!({"paths": paths})
    }

    fn paths(&self) -> Value {
        let mut paths = vec!["/api".to_owned(), "/api/v1".to_owned(), "/apis".to_owned(), "/apis/".to_owned()];
        for (group, versions) in discovery::groups(&self.rows).iter().filter(|(group, _)| !group.is_empty()) {
            paths.push(format!("/apis/{group}"));
            paths.extend(versions.iter().map(|version| format!("/apis/{group}/{version}")));
        }
        for path in
            ["/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/openapi/v3/", "/readyz", "/version"]
        {
            paths.push(path.to_owned());
        }
        json!({"paths": paths})
    }
}

/// The OpenAPI v3 document of a group and version as it is now.
pub(crate) fn v3_of(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let rows = registry.custom().newest().rows();
    openapi::v3(&rows, &|row| definition(registry, row), (group, version), VERSION)
}

/// The stored definition that made a resource.
fn definition(registry: &Registry, row: &Resource) -> Option<Value> {
    if coracle_proto::resource::find(row.group, row.version, row.plural).is_some() {
        return None;
    }
    let key = stored::key("customresourcedefinitions", "", &row.group_resource());
    let entry = registry.store().get(&key)?;
    serde_json::from_slice(&entry.value).ok()
}

/// The version that objects of a stored definition are stored in.
fn stored_version(definition: &Value) -> Option<String> {
    let versions = definition.pointer("/spec/versions")?.as_array()?;
    let stored = versions.iter().find(|version| version.get("storage") == Some(&Value::Bool(true)))?;
    stored.get("name")?.as_str().map(str::to_owned)
}

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
    let found = |value: Option<Value>| value.as_ref().map_or_else(|| Err(missing()), ok);
    let stored_version = |row: &Resource| stored_version(&definition(&server.registry, row)?);
    let listed = |rows, group: &str, version: &str| {
        let list = discovery::resource_list(rows, group, version, &stored_version).ok_or_else(missing)?;
        Ok(json_value(StatusCode::OK, &list))
    };
    let parts: Vec<&str> = info.path.split('/').filter(|part| !part.is_empty()).collect();
    let catalog = server.registry.custom().newest();
    if let Some(merged) = server.aggregation.merged()
        && let Some(response) = merged.answer(server, &catalog, &parts, headers)
    {
        return Ok(response);
    }
    let documents = catalog.documents();
    let rows = documents.rows.as_slice();
    match parts.as_slice() {
        [] => ok(&documents.paths()),
        ["version"] => ok(&version()),
        ["metrics"] => Ok(metrics::answer(server)),
        ["api"] if wants_aggregated(headers) => Ok(CORE.answer(headers, AGGREGATED)),
        ["apis"] if wants_aggregated(headers) => Ok(documents.named().answer(headers, AGGREGATED)),
        ["api"] => ok(&discovery::core_versions(&server.address.to_string())),
        ["apis"] => ok(&discovery::group_list(rows)),
        ["api", version] => listed(rows, "", version),
        ["apis", group] => found(discovery::group(rows, group)),
        ["apis", group, version] => listed(rows, group, version),
        ["openapi", "v2"] if wants_protobuf(headers) => {
            Ok(documents.v2_protobuf(server).answer(headers, openapi::protobuf::MEDIA))
        }
        ["openapi", "v2"] if !takes_json(headers) => Err(Box::new(Status::not_acceptable(&["application/json"]))),
        ["openapi", "v2"] => Ok(documents.v2(server).answer(headers, "application/json")),
        ["openapi", "v3"] => {
            let index = documents.v3_index.get_or_init(|| Document::new(&documents.v3_index(server)));
            Ok(index.answer(headers, "application/json"))
        }
        ["openapi", "v3", name @ ..] => {
            let name = name.join("/");
            let document = documents.v3(server, &name).ok_or_else(missing)?;
            Ok(document.answer_hashed(info.query.get("hash"), &format!("/openapi/v3/{name}"), headers))
        }
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
