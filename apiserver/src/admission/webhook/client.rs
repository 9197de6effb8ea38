//! Posting a review to a webhook: over TLS, on pooled connections, in bounded time and space.

use std::{
    error::Error as StdError,
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use coracle_store::Store;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{
        self,
        connect::{Connected, Connection},
    },
    rt::TokioIo,
};
use k8s_openapi::api::admissionregistration::v1::WebhookClientConfig;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    service::{self, Place},
    trust::Trust,
};

/// As large as an answer may be: a patch that writes the largest object there may be, in base64, and room to spare.
const MAX_ANSWER: usize = 4 * 1024 * 1024;

/// As much of a webhook's error as is told.
const MAX_ERROR: usize = 2048;

/// Connections kept for the next review.
const IDLE: usize = 8;

/// How long such a connection is trusted to be there still.
const IDLE_FOR: Duration = Duration::from_secs(90);

/// Owns the tasks of all connections to webhooks.
#[derive(Clone)]
pub(super) struct Tasks {
    tracker: TaskTracker,
    end: CancellationToken,
}

impl Tasks {
    pub(super) fn new() -> Self {
        Self { tracker: TaskTracker::new(), end: CancellationToken::new() }
    }

    /// Ends all connections and waits for them.
    pub(super) async fn stop(&self) {
        self.end.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        let end = self.end.clone();
        self.tracker.spawn(async move {
            tokio::select! {
                () = end.cancelled() => {}
                _ = future => {}
            }
        });
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Dial(String);

/// What there is to connect to.
#[derive(Clone)]
enum Reached {
    /// A host and port.
    Host(String, u16),
    /// Whatever is behind a Service when the connection is made.
    Service(Store, Place),
}

/// Opens connections to one webhook, whatever the URI.
#[derive(Clone)]
struct Connector {
    place: Reached,
    name: ServerName<'static>,
    tls: TlsConnector,
}

/// A TLS connection that the pool can hold.
struct Stream(TokioIo<TlsStream<TcpStream>>);

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl hyper::rt::Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl hyper::rt::Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

/// A socket's error in the words of Go's `net`, which people search for.
fn dialed(address: &str, error: &io::Error) -> Dial {
    let why = match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        io::ErrorKind::TimedOut => "i/o timeout".to_owned(),
        io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        _ => error.to_string(),
    };
    Dial(format!("dial tcp {address}: {why}"))
}

/// A handshake's error, likewise.
fn shaken(error: &io::Error) -> Dial {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let why = match inner {
        Some(rustls::Error::InvalidCertificate(
            // Another authority of the same name is not the trusted one either.
            rustls::CertificateError::UnknownIssuer | rustls::CertificateError::BadSignature,
        )) => "tls: failed to verify certificate: x509: certificate signed by unknown authority".to_owned(),
        Some(rustls::Error::InvalidCertificate(why)) => format!("tls: failed to verify certificate: x509: {why}"),
        _ => format!("tls: {error}"),
    };
    Dial(why)
}

impl Connector {
    async fn connect(self) -> Result<Stream, Dial> {
        let (host, port) = match self.place {
            Reached::Host(host, port) => (host, port),
            Reached::Service(store, place) => service::resolve(&store, &place).map_err(Dial)?,
        };
        let address = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let socket = TcpStream::connect((host.as_str(), port)).await.map_err(|error| dialed(&address, &error))?;
        socket.set_nodelay(true).map_err(|error| dialed(&address, &error))?;
        let stream = self.tls.connect(self.name, socket).await.map_err(|error| shaken(&error))?;
        Ok(Stream(TokioIo::new(stream)))
    }
}

impl tower::Service<Uri> for Connector {
    type Response = Stream;
    type Error = Dial;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, Dial>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Dial>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        Box::pin(self.clone().connect())
    }
}

/// The way to one webhook.
pub(super) struct Client {
    config: WebhookClientConfig,
    url: String,
    http: legacy::Client<Connector, Full<Bytes>>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("url", &self.url).finish_non_exhaustive()
    }
}

fn tls_of(bundle: &[u8]) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    if bundle.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    let mut own = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(bundle) {
        let certificate = certificate.map_err(|error| format!("unable to load root certificates: {error:?}"))?;
        own.push(certificate.clone());
        roots.add(certificate).map_err(|error| format!("unable to load root certificates: {error}"))?;
    }
    if roots.is_empty() {
        return Err("unable to load root certificates: unable to parse bytes as PEM block".to_owned());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Trust::new(roots, own)?))
        .with_no_client_auth();
    Ok(config)
}

impl Client {
    /// The way that a configuration describes; nothing is connected yet.
    ///
    /// # Errors
    /// The configuration cannot be used.
    pub(super) fn new(config: &WebhookClientConfig, store: &Store, tasks: &Tasks) -> Result<Self, String> {
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
        let tls = TlsConnector::from(Arc::new(tls_of(bundle)?));
        let name = ServerName::try_from(host).map_err(|error| error.to_string())?;
        let http = legacy::Client::builder(tasks.clone())
            .pool_idle_timeout(IDLE_FOR)
            .pool_max_idle_per_host(IDLE)
            .build(Connector { place, name, tls });
        Ok(Self { config: config.clone(), url, http })
    }

    /// Whether it is the way of this configuration.
    pub(super) fn is_of(&self, config: &WebhookClientConfig) -> bool {
        self.config == *config
    }

    /// Posts JSON and returns the answer's body.
    ///
    /// # Errors
    /// Why there is no answer, in the words of Kubernetes' client. Redirects are not followed.
    ///
    /// # Cancel safety
    /// Safe; the webhook may have had the request.
    pub(super) async fn post(&self, body: Bytes, limit: Duration) -> Result<Bytes, String> {
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
            let body = read(response.into_body()).await.map_err(|why| failed(&why))?;
            if code.is_success() { Ok(body) } else { Err(refused(code, &body)) }
        };
        tokio::time::timeout(limit, exchange).await.unwrap_or_else(|_| Err(failed(&"context deadline exceeded")))
    }
}

/// The innermost cause, which says most.
fn root(error: &dyn StdError) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

async fn read(mut body: Incoming) -> Result<Bytes, String> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| root(&error))?;
        if let Some(data) = frame.data_ref() {
            if bytes.len() + data.len() > MAX_ANSWER {
                return Err(format!("the answer is larger than {MAX_ANSWER} bytes"));
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
