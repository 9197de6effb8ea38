//! First contact with a server that is known by nothing but the hash of its authority's certificate, as a join token has it.
//!
//! The last certificate the server shows in the handshake must have that hash, and the server's own certificate must hang
//! on it. Only then is anything sent, the secret above all.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// The longest answer: some keys and certificates.
const ANSWER: usize = 256 << 10;

/// Whom to ask, and what the asker knows.
#[derive(Clone)]
pub struct FirstContact<'a> {
    /// `https://host:port`.
    pub server: &'a str,
    /// SHA-256 of the certificate (DER) of its authority.
    pub authority: [u8; 32],
    /// What stands behind `Authorization: Bearer`.
    pub bearer: &'a str,
    /// How long the server may take for all of it.
    pub limit: Duration,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ContactError {
    /// The server's address is not of the form `https://host:port`.
    #[error("server {url:?} must be an address such as https://192.0.2.1:6443")]
    Address {
        /// What was given.
        url: String,
    },
    /// The server cannot be reached, or is not the one that was meant.
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
    #[error("the server did not answer within {limit:?}")]
    Timeout {
        /// How long it had.
        limit: Duration,
    },
}

/// Host and port of `https://host:port`.
///
/// # Errors
/// [`ContactError::Address`].
pub fn host_and_port(server: &str) -> Result<(String, u16), ContactError> {
    let address = || ContactError::Address { url: server.to_owned() };
    let uri: Uri = server.parse().map_err(|_| address())?;
    let host = uri.host().filter(|_| uri.scheme_str() == Some("https")).ok_or_else(address)?;
    Ok((host.trim_matches(['[', ']']).to_owned(), uri.port_u16().unwrap_or(443)))
}

/// What the one who asks is told, and where it was when it asked.
#[derive(Clone, Debug)]
pub struct Contacted {
    /// The answer's body.
    pub body: Bytes,
    /// The asker's own address towards the server.
    pub own_address: Option<std::net::IpAddr>,
}

/// Posts JSON that is made of the asker's own address towards the server, which is known only when there is a connection.
///
/// # Errors
/// [`ContactError`].
///
/// # Cancel safety
/// Dropping the future breaks the connection off; whether the server did what it was asked is then not known.
pub async fn post(
    contact: FirstContact<'_>,
    path: &str,
    body: impl FnOnce(Option<std::net::IpAddr>) -> String,
) -> Result<Contacted, ContactError> {
    let limit = contact.limit;
    let asked = tokio::time::timeout(limit, ask(contact, path, body)).await;
    asked.map_err(|_| ContactError::Timeout { limit })?
}

async fn ask(
    contact: FirstContact<'_>,
    path: &str,
    body: impl FnOnce(Option<std::net::IpAddr>) -> String,
) -> Result<Contacted, ContactError> {
    let (host, port) = host_and_port(contact.server)?;
    let failed = |step: &'static str, source: Box<dyn std::error::Error + Send + Sync>| ContactError::Connect {
        step,
        server: contact.server.to_owned(),
        source,
    };
    let stream = TcpStream::connect((host.as_str(), port)).await.map_err(|e| failed("connect to", e.into()))?;
    let own_address = stream.local_addr().ok().map(|address| address.ip());
    let name =
        ServerName::try_from(host.clone()).map_err(|_| ContactError::Address { url: contact.server.to_owned() })?;
    let tls = pinned(contact.authority).map_err(|e| failed("prepare TLS for", e.into()))?;
    let stream =
        TlsConnector::from(Arc::new(tls)).connect(name, stream).await.map_err(|e| failed("trust", e.into()))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| failed("speak HTTP with", e.into()))?;
    let shown = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let http = Request::post(path)
        .header(header::HOST, shown)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::AUTHORIZATION, format!("Bearer {}", contact.bearer))
        .body(Full::new(Bytes::from(body(own_address))))
        .map_err(|e| failed("ask", e.into()))?;
    let answer = async {
        let response = sender.send_request(http).await.map_err(|e| failed("ask", e.into()))?;
        let code = response.status();
        let body = Limited::new(response.into_body(), ANSWER)
            .collect()
            .await
            .map_err(|e| failed("read the answer of", e))?
            .to_bytes();
        if !code.is_success() {
            let status: Option<kube::core::Status> = serde_json::from_slice(&body).ok();
            let message = status.map(|s| s.message).unwrap_or_else(|| "no reason given".to_owned());
            return Err(ContactError::Refused { code: code.as_u16(), message });
        }
        Ok(Contacted { body, own_address })
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
