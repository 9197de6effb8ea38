//! TLS configurations over identities that change while they are in use.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use jiff::Timestamp;
use rustls::{
    DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme,
    client::{ResolvesClientCert, danger::HandshakeSignatureValid},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, UnixTime},
    server::{
        ClientHello, ParsedCertificate, ResolvesServerCert, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
};

use super::{Error, Identity};

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// An identity that can be exchanged under running connections; new handshakes use the new one.
#[derive(Debug)]
pub(super) struct Swap(RwLock<Arc<CertifiedKey>>);

impl Swap {
    pub(super) fn new(identity: &Identity) -> Result<Self, Error> {
        Ok(Self(RwLock::new(certified(identity)?)))
    }

    pub(super) fn set(&self, identity: &Identity) -> Result<(), Error> {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = certified(identity)?;
        Ok(())
    }

    fn get(&self) -> Arc<CertifiedKey> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn certified(identity: &Identity) -> Result<Arc<CertifiedKey>, Error> {
    let key = ring::sign::any_supported_type(identity.key())
        .map_err(|source| Error::Tls { what: "a private key", source })?;
    let certified = CertifiedKey::new(identity.chain().to_vec(), key);
    certified.keys_match().map_err(|source| Error::Tls { what: "a certificate with its key", source })?;
    Ok(Arc::new(certified))
}

impl ResolvesServerCert for Swap {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.get())
    }
}

impl ResolvesClientCert for Swap {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.get())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Decides whether a client's certificate was issued by this cluster for clients and is valid at a given time.
#[derive(Clone, Debug)]
pub struct ClientVerifier {
    chain: Arc<dyn ClientCertVerifier>,
}

fn roots(authority: &CertificateDer<'static>) -> Result<Arc<RootCertStore>, Error> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone()).map_err(|source| Error::Tls { what: "the authority's certificate", source })?;
    Ok(Arc::new(roots))
}

impl ClientVerifier {
    pub(super) fn new(authority: &CertificateDer<'static>) -> Result<Self, Error> {
        let chain = WebPkiClientVerifier::builder_with_provider(roots(authority)?, provider())
            .build()
            .map_err(|error| Error::Malformed(format!("the authority cannot be trusted: {error}")))?;
        Ok(Self { chain })
    }

    /// Checks signatures, validity and usage of a chain whose first certificate is the client's.
    ///
    /// # Errors
    /// Why it is not to be trusted: another authority's, expired, not yet valid, not a client's.
    pub fn verify(&self, chain: &[CertificateDer<'_>], now: Timestamp) -> Result<(), rustls::Error> {
        let seconds = u64::try_from(now.as_second()).unwrap_or(0);
        let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let (leaf, between) = chain.split_first().ok_or(rustls::Error::NoCertificatesPresented)?;
        self.chain.verify_client_cert(leaf, between, now).map(|_| ())
    }
}

/// Asks for a client certificate and takes any, as Go's `RequestClientCert`: that the client holds the key is checked
/// here, whose it is in authentication.
#[derive(Debug)]
struct AnyCertificate {
    hints: Vec<DistinguishedName>,
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for AnyCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        ParsedCertificate::try_from(leaf).map(|_| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Shows peers of the store another certificate than clients of the API, on the same port.
#[derive(Debug)]
struct ByProtocol {
    clients: Arc<Swap>,
    peers: Arc<Swap>,
}

impl ResolvesServerCert for ByProtocol {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let is_peer =
            hello.alpn().is_some_and(|mut offered| offered.any(|protocol| protocol == PEERS || protocol == KEYS));
        Some(if is_peer { self.peers.get() } else { self.clients.get() })
    }
}

/// The protocol (ALPN, RFC 7301) that members of the store speak on the API's port.
pub(crate) const PEERS: &[u8] = b"coracle-peer/1";
/// The protocol in which servers give each other the keys that values are sealed with, on the same port.
pub(crate) const KEYS: &[u8] = b"coracle-keys/1";

/// A port for clients of the API, and for peers of the store.
pub(super) fn shared(
    clients: Arc<Swap>,
    peers: Arc<Swap>,
    verifier: &ClientVerifier,
) -> Result<rustls::ServerConfig, Error> {
    let mut config = server(clients.clone(), verifier)?;
    config.cert_resolver = Arc::new(ByProtocol { clients, peers });
    config.alpn_protocols.extend([PEERS.to_vec(), KEYS.to_vec()]);
    Ok(config)
}

/// Towards a peer's port, to speak this protocol.
pub(super) fn towards_peers(
    identity: Arc<Swap>,
    authority: &CertificateDer<'static>,
    protocol: &[u8],
) -> Result<rustls::ClientConfig, Error> {
    let mut config = client(identity, authority)?;
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(config)
}

pub(super) fn server(identity: Arc<Swap>, verifier: &ClientVerifier) -> Result<rustls::ServerConfig, Error> {
    let clients = AnyCertificate { hints: verifier.chain.root_hint_subjects().to_vec(), provider: provider() };
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|source| Error::Tls { what: "the default versions", source })?
        .with_client_cert_verifier(Arc::new(clients))
        .with_cert_resolver(identity);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// For a port that nobody uses without a certificate of the cluster's.
pub(super) fn mutual(identity: Arc<Swap>, verifier: &ClientVerifier) -> Result<rustls::ServerConfig, Error> {
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|source| Error::Tls { what: "the default versions", source })?
        .with_client_cert_verifier(Arc::clone(&verifier.chain))
        .with_cert_resolver(identity);
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

pub(super) fn client(identity: Arc<Swap>, authority: &CertificateDer<'static>) -> Result<rustls::ClientConfig, Error> {
    let config = rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|source| Error::Tls { what: "the default versions", source })?
        .with_root_certificates(roots(authority)?)
        .with_client_cert_resolver(identity);
    Ok(config)
}

#[cfg(test)]
impl Swap {
    pub(super) fn certificate(&self) -> CertificateDer<'static> {
        self.get().cert[0].clone()
    }
}
