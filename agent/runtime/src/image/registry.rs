//! The client's side of the registry API. Source: OCI distribution specification, "Pull"; Docker's token authentication
//! specification. Words of errors are containerd's, because that is what people search for.

mod auth;
mod transport;

use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::{Mutex, mpsc};

use self::auth::Authorization;
use super::{
    Credential, Digest,
    manifest::{ACCEPT, DOCUMENT_MAX, Descriptor},
    registries::Endpoint,
};

/// How often what fails for a passing reason is tried; what made progress in between counts anew.
const ATTEMPTS: u32 = 4;

/// How long a registry may keep a pull waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Until a connection stands.
    pub connect: Duration,
    /// Without a single byte of an answer.
    pub idle: Duration,
    /// Before the first repetition of what failed for a passing reason; doubled each time.
    pub backoff: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(30), idle: Duration::from_secs(60), backoff: Duration::from_millis(500) }
    }
}

/// What a registry answers when it does not give what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// There is no such repository, tag or digest.
    #[error("{0}: not found")]
    NotFound(String),
    /// None of the credentials, nor anonymous access, is enough.
    #[error("pull access denied, repository does not exist or may require authorization: {0}")]
    Denied(String),
    /// An answer that is no success.
    #[error("unexpected status from {method} request to {url}: {status}{detail}")]
    Status {
        /// The request's method.
        method: Method,
        /// The request's URL.
        url: String,
        /// The answer's status.
        status: StatusCode,
        /// The registry's reason, after a colon and a space; empty when it gave none.
        detail: String,
    },
    /// No answer, or one that broke off.
    #[error("failed to do request: {method} \"{url}\": {reason}")]
    Request {
        /// The request's method.
        method: Method,
        /// The request's URL.
        url: String,
        /// What happened.
        reason: String,
        /// Whether trying again may help at once.
        passing: bool,
    },
    /// An answer that is not what was asked for.
    #[error("unexpected content from {url}: {reason}")]
    Content {
        /// The request's URL.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// A certificate file cannot be used.
    #[error("certificates: {0}")]
    Certificates(String),
    /// Whoever wanted the content does not any more.
    #[error("interrupted")]
    Interrupted,
}

impl RegistryError {
    /// Whether the registry says that there is no such thing.
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::NotFound(_) => true,
            Self::Denied(_)
            | Self::Status { .. }
            | Self::Request { .. }
            | Self::Content { .. }
            | Self::Certificates(_)
            | Self::Interrupted => false,
        }
    }

    fn is_passing(&self) -> bool {
        match self {
            Self::Request { passing, .. } => *passing,
            Self::Status { status, .. } => status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS,
            Self::NotFound(_) | Self::Denied(_) | Self::Content { .. } | Self::Certificates(_) | Self::Interrupted => {
                false
            }
        }
    }
}

/// One repository at one endpoint, for one pull.
pub(super) struct Repository {
    endpoint: Endpoint,
    client: transport::Client,
    timeouts: Timeouts,
    /// The name of the image, for errors.
    image: String,
    authorization: Mutex<Authorization>,
}

/// A manifest or index as it came.
pub(super) struct RawManifest {
    pub(super) digest: Digest,
    pub(super) media_type: String,
    pub(super) bytes: Bytes,
}

impl Repository {
    pub(super) fn new(
        endpoint: Endpoint,
        image: String,
        credentials: &[Credential],
        timeouts: Timeouts,
    ) -> Result<Self, RegistryError> {
        let client = transport::client(&endpoint.tls, timeouts.connect)?;
        let all = credentials.iter().cloned().chain(endpoint.credential.clone());
        let authorization = Mutex::new(Authorization::new(all.collect()));
        Ok(Self { endpoint, client, timeouts, image, authorization })
    }

    /// With whose credential the registry has let us in; `None` for anybody.
    pub(super) async fn whose(&self) -> Option<Credential> {
        self.authorization.lock().await.whose()
    }

    /// The digest a tag has now; `None` when the registry does not say without sending the manifest.
    pub(super) async fn head(&self, selector: &str) -> Result<Option<Digest>, RegistryError> {
        let url = self.url(&format!("manifests/{selector}"));
        let (_, response) = self.retried(Method::HEAD, &url, Some(ACCEPT), 0).await?;
        let digest = response.headers().get("docker-content-digest").and_then(|value| value.to_str().ok());
        Ok(digest.and_then(|digest| digest.parse().ok()))
    }

    /// A manifest or index by tag or digest; `wanted` is checked.
    pub(super) async fn manifest(&self, selector: &str, wanted: Option<&Digest>) -> Result<RawManifest, RegistryError> {
        let url = self.url(&format!("manifests/{selector}"));
        let (url, response) = self.retried(Method::GET, &url, Some(ACCEPT), 0).await?;
        let media_type = response
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        let bytes = self.collect(&url, response, DOCUMENT_MAX).await?;
        let digest = wanted.map_or_else(|| Digest::of(&bytes), |wanted| wanted.same_kind_of(&bytes));
        if let Some(wanted) = wanted.filter(|wanted| **wanted != digest) {
            return Err(RegistryError::Content { url, reason: format!("digest {digest} instead of {wanted}") });
        }
        Ok(RawManifest { digest, media_type, bytes })
    }

    /// A small blob, checked.
    pub(super) async fn document(&self, descriptor: &Descriptor) -> Result<Bytes, RegistryError> {
        let url = self.url(&format!("blobs/{}", descriptor.digest));
        let (url, response) = self.retried(Method::GET, &url, None, 0).await?;
        let bytes = self.collect(&url, response, descriptor.size.min(DOCUMENT_MAX)).await?;
        let digest = descriptor.digest.same_kind_of(&bytes);
        if digest != descriptor.digest {
            let reason = format!("digest {digest} instead of {}", descriptor.digest);
            return Err(RegistryError::Content { url, reason });
        }
        Ok(bytes)
    }

    /// Sends a blob's bytes on as they come, and goes on where it broke off. Size and digest are the receiver's to check,
    /// but no more is sent than the descriptor declares, and one byte.
    pub(super) async fn blob(
        &self,
        descriptor: &Descriptor,
        sink: &mpsc::Sender<Bytes>,
        mut progress: impl FnMut(u64),
    ) -> Result<(), RegistryError> {
        let url = self.url(&format!("blobs/{}", descriptor.digest));
        let mut offset = 0;
        let mut attempt = 0;
        loop {
            let before = offset;
            match self.blob_part(&url, descriptor, &mut offset, sink, &mut progress).await {
                Ok(()) => return Ok(()),
                Err(error) if error.is_passing() => {
                    attempt = if offset > before { 1 } else { attempt + 1 };
                    if attempt >= ATTEMPTS {
                        return Err(error);
                    }
                    self.pause(attempt).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn blob_part(
        &self,
        url: &str,
        descriptor: &Descriptor,
        offset: &mut u64,
        sink: &mpsc::Sender<Bytes>,
        progress: &mut impl FnMut(u64),
    ) -> Result<(), RegistryError> {
        let (url, response) = self.authorized(Method::GET, url, None, *offset).await?;
        // A server that does not know ranges starts anew; what was had is passed over.
        let mut pass_over = if response.status() == StatusCode::PARTIAL_CONTENT { 0 } else { *offset };
        let mut body = response.into_body();
        loop {
            let frame = tokio::time::timeout(self.timeouts.idle, body.frame())
                .await
                .map_err(|_| self.silent(Method::GET, &url))?;
            let Some(frame) = frame else {
                if *offset < descriptor.size {
                    return Err(broken(&url, "connection closed before the end", true));
                }
                return Ok(());
            };
            let frame = frame.map_err(|error| broken(&url, &transport::reason(&error), true))?;
            let Ok(mut data) = frame.into_data() else {
                continue;
            };
            let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
            let skip = pass_over.min(length);
            pass_over -= skip;
            data = data.split_off(usize::try_from(skip).unwrap_or(data.len()));
            if data.is_empty() {
                continue;
            }
            *offset = offset.saturating_add(length - skip);
            sink.send(data).await.map_err(|_| RegistryError::Interrupted)?;
            if *offset > descriptor.size {
                // The receiver sees that it is too long.
                return Ok(());
            }
            progress(*offset);
        }
    }

    async fn collect(&self, url: &str, response: http::Response<Incoming>, most: u64) -> Result<Bytes, RegistryError> {
        let mut bytes = Vec::new();
        let mut body = response.into_body();
        loop {
            let frame = tokio::time::timeout(self.timeouts.idle, body.frame())
                .await
                .map_err(|_| self.silent(Method::GET, url))?;
            let Some(frame) = frame else {
                return Ok(bytes.into());
            };
            let frame = frame.map_err(|error| broken(url, &transport::reason(&error), true))?;
            if let Ok(data) = frame.into_data() {
                bytes.extend_from_slice(&data);
            }
            if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > most {
                let reason = format!("more than {most} bytes");
                return Err(RegistryError::Content { url: url.to_owned(), reason });
            }
        }
    }

    async fn retried(
        &self,
        method: Method,
        url: &str,
        accept: Option<&str>,
        offset: u64,
    ) -> Result<(String, http::Response<Incoming>), RegistryError> {
        let mut attempt = 0;
        loop {
            match self.authorized(method.clone(), url, accept, offset).await {
                Err(error) if error.is_passing() && attempt + 1 < ATTEMPTS => {
                    attempt += 1;
                    self.pause(attempt).await;
                }
                answer => return answer,
            }
        }
    }

    /// One request with the authorization it takes. Answers the URL that answered, and the answer if it is a success.
    async fn authorized(
        &self,
        method: Method,
        url: &str,
        accept: Option<&str>,
        offset: u64,
    ) -> Result<(String, http::Response<Incoming>), RegistryError> {
        let mut used = self.authorization.lock().await.header();
        loop {
            let (answered, response) = self.follow(&method, url, accept, offset, used.as_deref()).await?;
            let status = response.status();
            if status.is_success() {
                self.authorization.lock().await.proven(used.as_deref());
                return Ok((answered, response));
            }
            if status == StatusCode::UNAUTHORIZED || (status == StatusCode::FORBIDDEN && used.is_some()) {
                let challenge = auth::Challenge::of(response.headers());
                let detail = self.detail(&method, &answered, response).await;
                let mut authorization = self.authorization.lock().await;
                if authorization.header() == used {
                    authorization.advance(self, challenge.as_ref(), &detail).await?;
                }
                used = authorization.header();
                continue;
            }
            if status == StatusCode::NOT_FOUND {
                return Err(RegistryError::NotFound(self.image.clone()));
            }
            let detail = self.detail(&method, &answered, response).await;
            let detail = if detail.is_empty() { detail } else { format!(": {detail}") };
            return Err(RegistryError::Status { method, url: answered, status, detail });
        }
    }

    /// Follows redirects. Authorization goes to the registry's own host only: blobs are often at a stranger's, with a
    /// signature in the URL.
    async fn follow(
        &self,
        method: &Method,
        url: &str,
        accept: Option<&str>,
        offset: u64,
        authorization: Option<&str>,
    ) -> Result<(String, http::Response<Incoming>), RegistryError> {
        let mut url = url.to_owned();
        for _ in 0..5 {
            let mut request = http::Request::builder().method(method.clone()).uri(url.as_str());
            if let Some(accept) = accept {
                request = request.header(header::ACCEPT, accept);
            }
            if offset > 0 {
                request = request.header(header::RANGE, format!("bytes={offset}-"));
            }
            let same_host = transport::origin(&url) == Some((self.endpoint.scheme, self.endpoint.host.as_str()));
            if let Some(authorization) = authorization.filter(|_| same_host) {
                request = request.header(header::AUTHORIZATION, authorization);
            }
            let response = self.send(method, &url, request).await?;
            if !response.status().is_redirection() || response.status() == StatusCode::NOT_MODIFIED {
                return Ok((url, response));
            }
            let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
            let next = location
                .and_then(|location| transport::join(&url, location))
                .ok_or_else(|| RegistryError::Content { url: url.clone(), reason: "redirect to nowhere".to_owned() })?;
            if url.starts_with("https:") && !next.starts_with("https:") {
                return Err(RegistryError::Content { url, reason: "redirect from https to http".to_owned() });
            }
            url = next;
        }
        Err(RegistryError::Content { url, reason: "too many redirects".to_owned() })
    }

    async fn send(
        &self,
        method: &Method,
        url: &str,
        request: http::request::Builder,
    ) -> Result<http::Response<Incoming>, RegistryError> {
        let failed = |reason: String, passing| RegistryError::Request {
            method: method.clone(),
            url: url.to_owned(),
            reason,
            passing,
        };
        let request = request
            .header(header::USER_AGENT, concat!("coracle/", env!("CARGO_PKG_VERSION")))
            .body(http_body_util::Empty::new())
            .map_err(|error| failed(error.to_string(), false))?;
        match tokio::time::timeout(self.timeouts.idle, self.client.request(request)).await {
            Ok(Ok(response)) => Ok(response),
            // What cannot be reached now is the pull's back-off's business, not this one's.
            Ok(Err(error)) => Err(failed(transport::reason(&error), !error.is_connect())),
            Err(_) => Err(self.silent(method.clone(), url)),
        }
    }

    fn silent(&self, method: Method, url: &str) -> RegistryError {
        let reason = format!("no answer within {} s", self.timeouts.idle.as_secs_f32());
        RegistryError::Request { method, url: url.to_owned(), reason, passing: false }
    }

    /// The registry's own words: `{"errors":[{"code":…,"message":…}]}`.
    async fn detail(&self, method: &Method, url: &str, response: http::Response<Incoming>) -> String {
        if *method == Method::HEAD {
            return String::new();
        }
        let Ok(bytes) = self.collect(url, response, 1 << 16).await else {
            return String::new();
        };
        let Ok(value) = serde_json::from_slice::<serde_json::Value>(&bytes) else {
            return String::new();
        };
        let first = value.pointer("/errors/0");
        let text =
            |key: &str| first.and_then(|error| error.get(key)).and_then(|value| value.as_str()).unwrap_or_default();
        let (code, message) = (text("code").to_lowercase().replace('_', " "), text("message"));
        let whole = match (code.is_empty(), message.is_empty()) {
            (false, false) => format!("{code}: {message}"),
            _ => format!("{code}{message}"),
        };
        whole.chars().filter(|c| !c.is_control()).take(300).collect()
    }

    fn url(&self, rest: &str) -> String {
        let Endpoint { scheme, host, prefix, repository, mirror_of, .. } = &self.endpoint;
        let namespace = mirror_of.as_ref().map(|name| format!("?ns={}", transport::escape(name))).unwrap_or_default();
        format!("{scheme}://{host}{prefix}/v2/{repository}/{rest}{namespace}")
    }

    async fn pause(&self, attempt: u32) {
        let backoff = self.timeouts.backoff.saturating_mul(1 << attempt.saturating_sub(1).min(6));
        tokio::time::sleep(backoff).await;
    }
}

fn broken(url: &str, reason: &str, passing: bool) -> RegistryError {
    RegistryError::Request { method: Method::GET, url: url.to_owned(), reason: reason.to_owned(), passing }
}
