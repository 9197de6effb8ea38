//! The way to a webhook: reviews posted over TLS, on pooled connections, in bounded time and space.
//!
//! Who asks (admission, conversion between versions) says what is posted and reads the answer.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use coracle_store::Store;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use k8s_openapi::api::admissionregistration::v1::WebhookClientConfig;
use rustls::pki_types::ServerName;
use serde::Deserialize;

use crate::upstream::{
    connect::{Connector, Pool, Protection, Reached, Tasks, Trusted, pool, tls},
    root,
    service::Place,
};

/// As large as an answer about one object may be: a patch that writes the largest object there may be, in base64, and
/// room to spare.
pub(crate) const MAX_ANSWER: usize = 4 * 1024 * 1024;

/// A review as a webhook sends it back.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default, bound(deserialize = "R: Deserialize<'de>"))]
pub(crate) struct Answer<R> {
    api_version: String,
    kind: String,
    pub(crate) response: Option<R>,
}

impl<R> Default for Answer<R> {
    fn default() -> Self {
        Self { api_version: String::new(), kind: String::new(), response: None }
    }
}

impl<R> Answer<R> {
    /// Checks that it says it is what was asked for.
    ///
    /// # Errors
    /// What it says it is, in Kubernetes' words.
    pub(crate) fn is_of(&self, api_version: &str, kind: &str) -> Result<(), String> {
        if (self.api_version.as_str(), self.kind.as_str()) == (api_version, kind) {
            return Ok(());
        }
        let (version, is) = (&self.api_version, &self.kind);
        Err(format!("expected webhook response of {api_version}, Kind={kind}, got {version}, Kind={is}"))
    }
}

/// As much of a webhook's error as is told.
const MAX_ERROR: usize = 2048;

/// The way to one webhook.
pub(crate) struct Client {
    config: WebhookClientConfig,
    url: String,
    http: Pool<Full<Bytes>>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Client {
    /// The way that a configuration describes; nothing is connected yet.
    ///
    /// # Errors
    /// The configuration cannot be used.
    pub(crate) fn new(config: &WebhookClientConfig, store: &Store, tasks: &Tasks) -> Result<Self, String> {
        let (place, host, url) = match (&config.service, &config.url) {
            (Some(service), _) => {
                let port = service.port.and_then(|port| u16::try_from(port).ok()).unwrap_or(443);
                let host = format!("{}.{}.svc", service.name, service.namespace);
                let path = service.path.as_deref().unwrap_or_default();
                let slash = if path.starts_with('/') { "" } else { "/" };
                let url = format!("https://{host}:{port}{slash}{path}");
                let place = Place { namespace: service.namespace.clone(), name: service.name.clone(), port };
                (Reached::Service(store.clone(), place), host, url)
            }
            (None, Some(url)) => {
                let uri: Uri = url.parse().map_err(|error| format!("Unparsable URL: {error}"))?;
                let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
                let url = if uri.path() == "/" && !url.ends_with('/') { format!("{url}/") } else { url.clone() };
                (Reached::Host(host.clone(), uri.port_u16().unwrap_or(443)), host, url)
            }
            (None, None) => return Err("webhook configuration must have either service or URL".to_owned()),
        };
        let bundle = config.ca_bundle.as_ref().map(|bytes| bytes.0.as_slice()).unwrap_or_default();
        let tls = tls(&Trusted::Bundle(bundle), None)?;
        let name = ServerName::try_from(host).map_err(|error| error.to_string())?;
        let http = pool(tasks, Connector { place, protection: Protection::Tls(tls, name) });
        Ok(Self { config: config.clone(), url, http })
    }

    /// Whether it is the way of this configuration.
    pub(crate) fn is_of(&self, config: &WebhookClientConfig) -> bool {
        self.config == *config
    }

    /// Posts JSON and returns the answer's body, which may have `room` bytes.
    ///
    /// # Errors
    /// Why there is no answer, in the words of Kubernetes' client. Redirects are not followed.
    ///
    /// # Cancel safety
    /// Safe; the webhook may have had the request.
    pub(crate) async fn post(&self, body: Bytes, limit: Duration, room: usize) -> Result<Bytes, String> {
        let url = format!("{}?timeout={}s", self.url, limit.as_secs());
        let failed = |why: &dyn std::fmt::Display| format!("Post {url:?}: {why}");
        let request = Request::post(&url)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json, */*")
            .header(header::USER_AGENT, "kube-apiserver-admission")
            .body(Full::new(body))
            .map_err(|error| failed(&error))?;
        let exchange = async {
            let response = self.http.request(request).await.map_err(|error| failed(&root(&error)))?;
            let code = response.status();
            let body = read(response.into_body(), room).await.map_err(|why| failed(&why))?;
            if code.is_success() { Ok(body) } else { Err(refused(code, &body)) }
        };
        tokio::time::timeout(limit, exchange).await.unwrap_or_else(|_| Err(failed(&"context deadline exceeded")))
    }
}

async fn read(mut body: Incoming, room: usize) -> Result<Bytes, String> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| root(&error))?;
        if let Some(data) = frame.data_ref() {
            if bytes.len() + data.len() > room {
                return Err(format!("the answer is larger than {room} bytes"));
            }
            bytes.extend_from_slice(data);
        }
    }
    Ok(bytes.freeze())
}

/// An answer that is none, as Kubernetes' generic client words it.
fn refused(code: StatusCode, body: &Bytes) -> String {
    let text: String = String::from_utf8_lossy(body.get(..MAX_ERROR).unwrap_or(body)).trim().to_owned();
    let text = if text.is_empty() { "unknown".to_owned() } else { text };
    match code {
        StatusCode::NOT_FOUND => "the server could not find the requested resource".to_owned(),
        StatusCode::UNAUTHORIZED => "the server has asked for the client to provide credentials".to_owned(),
        StatusCode::FORBIDDEN => text,
        StatusCode::METHOD_NOT_ALLOWED => "the server does not allow this method on the requested resource".to_owned(),
        StatusCode::BAD_REQUEST => "the server rejected our request for an unknown reason".to_owned(),
        code if code.is_server_error() => {
            format!("an error on the server ({text:?}) has prevented the request from succeeding")
        }
        code => {
            format!("the server responded with the status code {} but did not return more information", code.as_u16())
        }
    }
}
