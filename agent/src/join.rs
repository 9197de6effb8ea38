//! Joining a cluster: from a token to the node's certificates, by `POST /coracle/v1/join`; and new certificates for those
//! it has, by the same request.
//!
//! First contact trusts nothing but the token: the last certificate the server shows must have the hash the token
//! carries, and the server's own certificate must hang on it. Only then is the secret sent. Both private keys are made
//! here and never leave the machine.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coracle_proto::join_token::JoinToken;
use http::{Request, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use rcgen::{CertificateParams, KeyPair};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::config::Serving;

/// How long the server may take for all of it.
const LIMIT: Duration = Duration::from_secs(30);
/// The longest answer: three certificates.
const ANSWER: usize = 256 << 10;

/// Why a node could not join.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JoinError {
    /// The server's address is not of the form `https://host:port`.
    #[error("server {url:?} must be an address such as https://192.0.2.1:6443")]
    Address {
        /// What was given.
        url: String,
    },
    /// A key or signing request cannot be made.
    #[error("make a certificate request")]
    Request(#[from] rcgen::Error),
    /// The server cannot be reached, or is not the one the token was made for.
    #[error("{step} {server}")]
    Connect {
        /// What was being done.
        step: &'static str,
        /// The server.
        server: String,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The server refused.
    #[error("the server answered {code}: {message}")]
    Refused {
        /// The HTTP status.
        code: u16,
        /// The server's words.
        message: String,
    },
    /// New certificates were not to be had.
    #[error("ask for new certificates")]
    Renew(#[source] kube::Error),
    /// The server did not answer in time.
    #[error("the server did not answer within {LIMIT:?}")]
    Timeout,
    /// A client cannot be made of what the server answered.
    #[error("use the certificates the server gave")]
    Client(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Who wants to join, and where.
#[derive(Clone, Debug)]
pub(crate) struct JoinRequest {
    /// `https://host:port`.
    pub(crate) server: String,
    /// The join token.
    pub(crate) token: JoinToken,
    /// The node's name.
    pub(crate) node: String,
    /// The addresses the node's server is reached at.
    pub(crate) addresses: Vec<IpAddr>,
    /// The key (PEM) the cluster knows the node by, if it was a member before: with it the name is not refused.
    pub(crate) key: Option<String>,
}

/// A node's certificates and keys, all in PEM.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Credentials {
    /// The cluster's authority.
    pub(crate) authority: String,
    /// The certificate the node shows the API server (`system:node:<name>`).
    pub(crate) client_certificate: String,
    /// Its key.
    pub(crate) client_key: String,
    /// The certificate of the node's own server.
    pub(crate) server_certificate: String,
    /// Its key.
    pub(crate) server_key: String,
    /// When to ask for new ones.
    pub(crate) renew_after: Timestamp,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("renew_after", &self.renew_after).finish_non_exhaustive()
    }
}

/// Two keys that are to be certified.
struct Keys {
    client: KeyPair,
    server: KeyPair,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    authority: String,
    client_certificate: String,
    server_certificate: String,
    renew_after: Timestamp,
}

impl Keys {
    /// New ones, but for the client's if one is given.
    fn new(client: Option<&str>) -> Result<Self, rcgen::Error> {
        let client = client.map_or_else(KeyPair::generate, KeyPair::from_pem)?;
        Ok(Self { client, server: KeyPair::generate()? })
    }

    /// The body of the request.
    fn request(&self, node: &str, addresses: &[IpAddr]) -> Result<String, rcgen::Error> {
        let names = std::iter::once(node.to_owned()).chain(addresses.iter().map(ToString::to_string));
        let body = serde_json::json!({
            "node": node,
            "clientRequest": CertificateParams::new(Vec::new())?.serialize_request(&self.client)?.pem()?,
            "serverRequest":
                CertificateParams::new(names.collect::<Vec<_>>())?.serialize_request(&self.server)?.pem()?,
        });
        Ok(body.to_string())
    }

    fn certified(&self, answer: Answer) -> Credentials {
        Credentials {
            authority: answer.authority,
            client_certificate: answer.client_certificate,
            client_key: self.client.serialize_pem(),
            server_certificate: answer.server_certificate,
            server_key: self.server.serialize_pem(),
            renew_after: answer.renew_after,
        }
    }
}

impl Credentials {
    /// What the node's own server needs.
    pub(crate) fn serving(&self) -> Serving {
        Serving {
            certificate: self.server_certificate.clone(),
            key: self.server_key.clone(),
            client_ca: self.authority.clone(),
        }
    }

    /// When they end; `None` when what is there is no certificate.
    pub(crate) fn end(&self) -> Option<Timestamp> {
        let end = |pem: &str| coracle_process::not_after(pem.as_bytes());
        Some(end(&self.client_certificate)?.min(end(&self.server_certificate)?))
    }

    /// Whether their authority is the one a token names.
    pub(crate) fn is_of(&self, token: &JoinToken) -> bool {
        CertificateDer::from_pem_slice(self.authority.as_bytes())
            .is_ok_and(|der| Sha256::digest(&der).as_slice() == token.authority())
    }

    /// A client of the API server with the node's identity.
    ///
    /// # Errors
    /// [`JoinError::Address`] and [`JoinError::Client`].
    pub(crate) fn client(&self, server: &str) -> Result<kube::Client, JoinError> {
        let wrong = |e: Box<dyn std::error::Error + Send + Sync>| JoinError::Client(e);
        let address = |_| JoinError::Address { url: server.to_owned() };
        let mut config = kube::Config::new(server.parse::<Uri>().map_err(address)?);
        let roots: Result<Vec<Vec<u8>>, _> =
            CertificateDer::pem_slice_iter(self.authority.as_bytes()).map(|c| c.map(|c| c.to_vec())).collect();
        config.root_cert = Some(roots.map_err(|e| wrong(e.to_string().into()))?);
        let base64 = |pem: &str| {
            use base64::Engine;
            base64::engine::general_purpose::STANDARD.encode(pem)
        };
        config.auth_info.client_certificate_data = Some(base64(&self.client_certificate));
        config.auth_info.client_key_data = Some(base64(&self.client_key).into());
        kube::Client::try_from(config).map_err(|e| wrong(e.into()))
    }
}

/// Joins the node.
///
/// # Errors
/// [`JoinError`]; nothing was changed here, and it may be tried again with the same token.
pub(crate) async fn join(request: &JoinRequest) -> Result<Credentials, JoinError> {
    let keys = Keys::new(request.key.as_deref())?;
    let body = keys.request(&request.node, &request.addresses)?;
    let answer = tokio::time::timeout(LIMIT, post(request, body)).await.map_err(|_| JoinError::Timeout)??;
    Ok(keys.certified(answer))
}

/// New keys and certificates for a node that has some, asked for with those it has.
///
/// # Errors
/// [`JoinError`]; what the node has is still good.
pub(crate) async fn renew(client: &kube::Client, node: &str, addresses: &[IpAddr]) -> Result<Credentials, JoinError> {
    let keys = Keys::new(None)?;
    let body = keys.request(node, addresses)?.into_bytes();
    let request = Request::post("/coracle/v1/join").header(header::CONTENT_TYPE, "application/json").body(body);
    let request = request.map_err(|error| JoinError::Renew(kube::Error::HttpError(error)))?;
    let answer = tokio::time::timeout(LIMIT, client.request::<Answer>(request));
    Ok(keys.certified(answer.await.map_err(|_| JoinError::Timeout)?.map_err(JoinError::Renew)?))
}

async fn post(join: &JoinRequest, body: String) -> Result<Answer, JoinError> {
    let address = || JoinError::Address { url: join.server.clone() };
    let uri: Uri = join.server.parse().map_err(|_| address())?;
    let host = uri.host().filter(|_| uri.scheme_str() == Some("https")).ok_or_else(address)?;
    let host = host.trim_matches(['[', ']']).to_owned();
    let port = uri.port_u16().unwrap_or(443);
    let failed = |step: &'static str, source: Box<dyn std::error::Error + Send + Sync>| JoinError::Connect {
        step,
        server: join.server.clone(),
        source,
    };
    let stream = TcpStream::connect((host.as_str(), port)).await.map_err(|e| failed("connect to", e.into()))?;
    let name = ServerName::try_from(host.clone()).map_err(|_| address())?;
    let tls = pinned(*join.token.authority()).map_err(|e| failed("prepare TLS for", e.into()))?;
    let stream =
        TlsConnector::from(Arc::new(tls)).connect(name, stream).await.map_err(|e| failed("trust", e.into()))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| failed("speak HTTP with", e.into()))?;
    let http = Request::post("/coracle/v1/join")
        .header(header::HOST, format!("{host}:{port}"))
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::AUTHORIZATION, format!("Bearer {}", join.token.token().bearer()))
        .body(Full::new(Bytes::from(body)))
        .map_err(|e| failed("ask", e.into()))?;
    let answer = async {
        let response = sender.send_request(http).await.map_err(|e| failed("ask", e.into()))?;
        let code = response.status();
        let bytes = Limited::new(response.into_body(), ANSWER)
            .collect()
            .await
            .map_err(|e| failed("read the answer of", e))?
            .to_bytes();
        if !code.is_success() {
            let status: Option<kube::core::Status> = serde_json::from_slice(&bytes).ok();
            let message = status.map(|s| s.message).unwrap_or_else(|| "no reason given".to_owned());
            return Err(JoinError::Refused { code: code.as_u16(), message });
        }
        serde_json::from_slice(&bytes).map_err(|e| failed("understand the answer of", e.into()))
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

fn pinned(authority: [u8; 32]) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Arc::new(Pinned { authority, provider: Arc::clone(&provider) });
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth())
}

/// Trusts a server whose certificate hangs on the authority the token names, and on nothing else.
#[derive(Debug)]
struct Pinned {
    authority: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let unknown = || rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let (last, between) = intermediates.split_last().ok_or_else(unknown)?;
        if Sha256::digest(last).as_slice() != self.authority {
            return Err(unknown());
        }
        let mut roots = RootCertStore::empty();
        roots.add(last.clone().into_owned())?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
            .build()
            .map_err(|e| rustls::Error::General(e.to_string()))?
            .verify_server_cert(end_entity, between, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

    use super::*;

    /// A server's chain for `name`: its own certificate and its authority's.
    fn chain(name: &str) -> (CertificateDer<'static>, CertificateDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = params.self_signed(&key).unwrap();
        let issuer = Issuer::new(params, key);
        let leaf_key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec![name.into()]).unwrap().signed_by(&leaf_key, &issuer).unwrap();
        (leaf.der().clone(), authority.der().clone())
    }

    #[test]
    fn only_the_authority_the_token_names_is_trusted() {
        let (leaf, authority) = chain("server.test");
        let (foreign, other) = chain("server.test");
        let pinned = Pinned {
            authority: Sha256::digest(&authority).into(),
            provider: Arc::new(rustls::crypto::ring::default_provider()),
        };
        let check = |leaf: &CertificateDer<'_>, rest: &[CertificateDer<'_>], name: &str| {
            let name = ServerName::try_from(name.to_owned()).unwrap();
            pinned.verify_server_cert(leaf, rest, &name, &[], UnixTime::now()).is_ok()
        };
        assert!(check(&leaf, std::slice::from_ref(&authority), "server.test"));
        assert!(!check(&leaf, std::slice::from_ref(&authority), "other.test"), "the name must be the server's");
        assert!(!check(&foreign, std::slice::from_ref(&other), "server.test"), "another authority");
        assert!(
            !check(&foreign, std::slice::from_ref(&authority), "server.test"),
            "the authority shown but not the signer"
        );
        assert!(!check(&leaf, &[], "server.test"), "no authority shown");
    }
}
