//! Joining a cluster: from a token to the node's certificates, by `POST /coracle/v1/join`.
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
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
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
pub enum JoinError {
    /// The server's address is not of the form `https://host:port`.
    #[error("server {url:?} must be an address such as https://192.0.2.1:6443")]
    Address {
        /// What was given.
        url: String,
    },
    /// The token cannot be read.
    #[error("join token")]
    Token(#[from] coracle_proto::join_token::Error),
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
    /// The server did not answer in time.
    #[error("the server did not answer within {LIMIT:?}")]
    Timeout,
    /// A client cannot be made of what the server answered.
    #[error("use the certificates the server gave")]
    Client(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Who wants to join, and where.
#[derive(Clone, Debug)]
pub struct JoinRequest {
    /// `https://host:port`.
    pub server: String,
    /// The join token.
    pub token: JoinToken,
    /// The node's name.
    pub node: String,
    /// The addresses the node's server is reached at.
    pub addresses: Vec<IpAddr>,
}

/// A node's certificates and keys, all in PEM.
#[derive(Clone)]
pub struct Joined {
    /// The cluster's authority.
    pub authority: String,
    /// The certificate the node shows the API server (`system:node:<name>`).
    pub client_certificate: String,
    /// Its key.
    pub client_key: String,
    /// The certificate of the node's own server.
    pub server_certificate: String,
    /// Its key.
    pub server_key: String,
    /// When to join again, with new keys.
    pub renew_after: Timestamp,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    authority: String,
    client_certificate: String,
    server_certificate: String,
    renew_after: Timestamp,
}

impl Joined {
    /// What the node's own server needs.
    #[must_use]
    pub fn serving(&self) -> Serving {
        Serving {
            certificate: self.server_certificate.clone(),
            key: self.server_key.clone(),
            client_ca: self.authority.clone(),
        }
    }

    /// A client of the API server with the node's identity.
    ///
    /// # Errors
    /// [`JoinError::Address`] and [`JoinError::Client`].
    pub fn client(&self, server: &str) -> Result<kube::Client, JoinError> {
        let wrong = |e: Box<dyn std::error::Error + Send + Sync>| JoinError::Client(e);
        let address = |_| JoinError::Address { url: server.to_owned() };
        let mut config = kube::Config::new(server.parse::<Uri>().map_err(address)?);
        let der = |pem: &str| -> Result<Vec<Vec<u8>>, JoinError> {
            use rustls::pki_types::pem::PemObject;
            CertificateDer::pem_slice_iter(pem.as_bytes())
                .map(|c| c.map(|c| c.to_vec()).map_err(|e| wrong(e.to_string().into())))
                .collect()
        };
        config.root_cert = Some(der(&self.authority)?);
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
pub async fn join(request: &JoinRequest) -> Result<Joined, JoinError> {
    let client_key = rcgen::KeyPair::generate()?;
    let server_key = rcgen::KeyPair::generate()?;
    let mut names = vec![request.node.clone()];
    names.extend(request.addresses.iter().map(ToString::to_string));
    let body = serde_json::json!({
        "node": request.node,
        "clientRequest": rcgen::CertificateParams::new(Vec::new())?.serialize_request(&client_key)?.pem()?,
        "serverRequest": rcgen::CertificateParams::new(names)?.serialize_request(&server_key)?.pem()?,
    });
    let answer =
        tokio::time::timeout(LIMIT, post(request, body.to_string())).await.map_err(|_| JoinError::Timeout)??;
    Ok(Joined {
        authority: answer.authority,
        client_certificate: answer.client_certificate,
        client_key: client_key.serialize_pem(),
        server_certificate: answer.server_certificate,
        server_key: server_key.serialize_pem(),
        renew_after: answer.renew_after,
    })
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
