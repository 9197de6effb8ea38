//! Connections to other servers: plain or TLS, kept for the next request, their tasks owned and ended.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use coracle_store::Store;
use http::Uri;
use hyper_util::{
    client::legacy::{
        self,
        connect::{Connected, Connection},
    },
    rt::TokioIo,
};
use rustls::{
    ClientConfig, RootCertStore,
    client::ResolvesClientCert,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    service::{self, Place},
    trust::Trust,
};

/// Connections kept for the next request to the same server.
const IDLE: usize = 8;

/// How long such a connection is trusted to be there still.
const IDLE_FOR: Duration = Duration::from_secs(90);

/// How long a server may take to accept a connection and greet.
const PATIENCE: Duration = Duration::from_secs(10);

/// Owns the tasks of all connections.
#[derive(Clone, Debug)]
pub(crate) struct Tasks {
    tracker: TaskTracker,
    end: CancellationToken,
}

impl Tasks {
    pub(crate) fn new() -> Self {
        Self { tracker: TaskTracker::new(), end: CancellationToken::new() }
    }

    /// Runs something until it ends or all end.
    pub(crate) fn spawn(&self, future: impl Future<Output: Send> + Send + 'static) {
        let end = self.end.clone();
        self.tracker.spawn(async move {
            tokio::select! {
                () = end.cancelled() => {}
                _ = future => {}
            }
        });
    }

    /// Ends all connections and waits for them.
    pub(crate) async fn stop(&self) {
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
        self.spawn(future);
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Dial(String);

/// What there is to connect to.
#[derive(Clone)]
pub(crate) enum Reached {
    /// What the URI names.
    Uri,
    /// A host and port, whatever the URI.
    Host(String, u16),
    /// Whatever is behind a Service when the connection is made.
    Service(Store, Place),
}

/// How connections are protected.
#[derive(Clone)]
pub(crate) enum Protection {
    /// As the URI's scheme says; under `https` whoever answers is taken for the right one.
    Scheme(TlsConnector),
    /// TLS, and the other end must show a certificate for this name.
    Tls(TlsConnector, ServerName<'static>),
}

/// Opens connections.
#[derive(Clone)]
pub(crate) struct Connector {
    pub(crate) place: Reached,
    pub(crate) protection: Protection,
}

/// A connection that the pool can hold.
pub(crate) enum Stream {
    Plain(TokioIo<TcpStream>),
    Tls(Box<TokioIo<TlsStream<TcpStream>>>),
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl hyper::rt::Read for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_read(context, buffer),
        }
    }
}

impl hyper::rt::Write for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(context),
        }
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

/// Host and port of a URI; an IPv6 address without its brackets.
fn named(uri: &Uri) -> Result<(String, u16), Dial> {
    let host = uri.host().ok_or_else(|| Dial("no Host in request URL".to_owned()))?;
    let usual = if uri.scheme_str() == Some("https") { 443 } else { 80 };
    Ok((host.trim_start_matches('[').trim_end_matches(']').to_owned(), uri.port_u16().unwrap_or(usual)))
}

/// Host and port as URIs and messages have them.
pub(crate) fn joined(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

impl Connector {
    async fn connect(self, uri: Uri) -> Result<Stream, Dial> {
        let (host, port) = match self.place {
            Reached::Uri => named(&uri)?,
            Reached::Host(host, port) => (host, port),
            Reached::Service(store, place) => service::resolve(&store, &place).map_err(Dial)?,
        };
        let tls = match self.protection {
            Protection::Tls(connector, name) => Some((connector, name)),
            Protection::Scheme(connector) if uri.scheme_str() == Some("https") => {
                let name = ServerName::try_from(host.clone()).map_err(|error| Dial(error.to_string()))?;
                Some((connector, name))
            }
            Protection::Scheme(_) => None,
        };
        let address = joined(&host, port);
        let connect = async {
            let socket = TcpStream::connect((host.as_str(), port)).await.map_err(|error| dialed(&address, &error))?;
            socket.set_nodelay(true).map_err(|error| dialed(&address, &error))?;
            Ok(match tls {
                Some((connector, name)) => {
                    let stream = connector.connect(name, socket).await.map_err(|error| shaken(&error))?;
                    Stream::Tls(Box::new(TokioIo::new(stream)))
                }
                None => Stream::Plain(TokioIo::new(socket)),
            })
        };
        let late = |_| Err(Dial(format!("dial tcp {address}: i/o timeout")));
        tokio::time::timeout(PATIENCE, connect).await.unwrap_or_else(late)
    }
}

impl tower::Service<Uri> for Connector {
    type Response = Stream;
    type Error = Dial;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, Dial>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Dial>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

/// Connections with a pool around them.
pub(crate) type Pool<B> = legacy::Client<Connector, B>;

/// A pool whose connections are made so.
pub(crate) fn pool<B>(tasks: &Tasks, connector: Connector) -> Pool<B>
where
    B: http_body::Body + Send,
    B::Data: Send,
{
    legacy::Client::builder(tasks.clone()).pool_idle_timeout(IDLE_FOR).pool_max_idle_per_host(IDLE).build(connector)
}

/// Whom to trust at the other end.
pub(crate) enum Trusted<'a> {
    /// The certificates in this bundle (PEM); without any, the authorities of the public web.
    Bundle(&'a [u8]),
    /// Whoever answers.
    Anybody,
}

/// TLS towards a server, with a certificate of our own to show if there is one.
///
/// # Errors
/// The bundle is none.
pub(crate) fn tls(trusted: &Trusted<'_>, own: Option<Arc<dyn ResolvesClientCert>>) -> Result<TlsConnector, String> {
    let verifier = match trusted {
        Trusted::Anybody => Trust::anybody(),
        Trusted::Bundle(bundle) => trust_in(bundle)?,
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let config = match own {
        Some(own) => config.with_client_cert_resolver(own),
        None => config.with_no_client_auth(),
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

fn trust_in(bundle: &[u8]) -> Result<Trust, String> {
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
    Trust::new(roots, own)
}
