//! HTTP probes: one GET, certificates not checked, redirects followed on the same host only.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{self, ClientConfig, DigitallySignedStruct, SignatureScheme};

use super::{Outcome, connect};

/// Redirects that are followed, as Go's client does.
const REDIRECTS: usize = 10;
/// How much of an answer is read.
const BODY: usize = 10 << 10;

/// What is asked.
#[derive(Clone, Debug)]
pub(super) struct Get {
    /// `http` or `https`.
    pub(super) scheme: String,
    /// Name or address.
    pub(super) host: String,
    /// Port.
    pub(super) port: u16,
    /// Path and query.
    pub(super) path: String,
    /// Headers; `Host` replaces the usual one.
    pub(super) headers: Vec<(String, String)>,
}

impl Get {
    fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        format!("{host}:{}", self.port)
    }

    fn url(&self) -> String {
        format!("{}://{}{}", self.scheme, self.authority(), self.target())
    }

    fn target(&self) -> String {
        if self.path.starts_with('/') { self.path.clone() } else { format!("/{}", self.path) }
    }
}

/// Asks; 200 to 399 is success.
pub(super) async fn get(request: &Get, timeout: Duration) -> Outcome {
    match tokio::time::timeout(timeout, follow(request.clone(), timeout)).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(why)) => Outcome::Failure(format!("Get \"{}\": {why}", request.url())),
        Err(_) => Outcome::Failure(format!(
            "Get \"{}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
            request.url()
        )),
    }
}

async fn follow(mut request: Get, timeout: Duration) -> Result<Outcome, String> {
    for _ in 0..=REDIRECTS {
        let (status, location) = once(&request, timeout).await?;
        if status.is_redirection()
            && let Some(next) = location.as_deref().and_then(|l| redirect(&request, l))
        {
            request = next;
            continue;
        }
        // Success is anything that is no error; where another host is named, that is the answer.
        return Ok(if status.is_success() || status.is_redirection() {
            Outcome::Success
        } else {
            Outcome::Failure(format!("HTTP probe failed with statuscode: {}", status.as_u16()))
        });
    }
    Err(format!("stopped after {REDIRECTS} redirects"))
}

/// Where a redirect leads, if it stays on the host.
fn redirect(from: &Get, location: &str) -> Option<Get> {
    let uri: Uri = location.parse().ok()?;
    let path = uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
    let mut next = Get { path, ..from.clone() };
    if let Some(host) = uri.host() {
        if host.trim_matches(['[', ']']) != from.host {
            return None;
        }
        next.scheme = uri.scheme_str().unwrap_or(&from.scheme).to_owned();
        next.port = uri.port_u16().unwrap_or(if next.scheme == "https" { 443 } else { 80 });
    }
    Some(next)
}

async fn once(request: &Get, timeout: Duration) -> Result<(StatusCode, Option<String>), String> {
    let stream = connect(&request.host, request.port, timeout).await?;
    if request.scheme == "https" {
        let name = ServerName::try_from(request.host.clone()).map_err(|e| e.to_string())?;
        let stream =
            TlsConnector::from(Arc::new(tls()?)).connect(name, stream).await.map_err(|e| format!("tls: {e}"))?;
        exchange(request, stream).await
    } else {
        exchange(request, stream).await
    }
}

async fn exchange<S>(get: &Get, stream: S) -> Result<(StatusCode, Option<String>), String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    let has = |name: &str| get.headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
    let mut request = Request::get(get.target());
    if !has("host") {
        request = request.header(http::header::HOST, get.authority());
    }
    if !has("user-agent") {
        request = request.header(http::header::USER_AGENT, "kube-probe/1.36");
    }
    if !has("accept") {
        request = request.header(http::header::ACCEPT, "*/*");
    }
    for (name, value) in &get.headers {
        request = request.header(name, value);
    }
    let request =
        request.header(http::header::CONNECTION, "close").body(Empty::<Bytes>::new()).map_err(|e| e.to_string())?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(|e| {
            // Go's word for a server that closes without an answer.
            if e.is_incomplete_message() { "EOF".to_owned() } else { e.to_string() }
        })?;
        let status = response.status();
        let location = response.headers().get(http::header::LOCATION).and_then(|l| l.to_str().ok()).map(str::to_owned);
        // The answer is read so far as it is short, so that the server is not cut off in the middle of it.
        drop(Limited::new(response.into_body(), BODY).collect().await);
        Ok((status, location))
    };
    tokio::pin!(connection, answer);
    let mut open = true;
    loop {
        tokio::select! {
            biased;
            result = &mut answer => return result,
            _ = &mut connection, if open => open = false,
        }
    }
}

fn tls() -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth())
}

/// Kubernetes probes do not check certificates: pods have their own, and the address they are asked by is in none.
#[derive(Debug)]
struct AnyCertificate(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
