//! What a witness has: the certificate of the cluster's authority, and a key of its own whose certificate says which member
//! it is. None of the cluster's keys.

use std::{path::Path, sync::Arc};

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};

use super::{
    AUTHORITY, ClientVerifier, Error, Identity, files,
    tls::{self, PEERS, Swap},
};

/// Its certificate and key.
const MEMBER: &str = "member.pem";

/// See the module.
pub(crate) struct WitnessKeys {
    authority: CertificateDer<'static>,
    verifier: ClientVerifier,
    shown: Arc<Swap>,
}

impl WitnessKeys {
    /// A new key, and what asks for a certificate for it, both PEM.
    ///
    /// # Errors
    /// The key cannot be made.
    pub(crate) fn request() -> Result<(String, String), Error> {
        let made = |source| Error::Make { what: "the witness's key".to_owned(), source };
        let key = KeyPair::generate().map_err(made)?;
        let request = CertificateParams::default().serialize_request(&key).map_err(made)?;
        Ok((key.serialize_pem(), request.pem().map_err(made)?))
    }

    /// Keeps what the cluster gave for the key: all of it, or, if it is cut off, nothing that counts.
    ///
    /// # Errors
    /// It cannot be written, or is not what it should be.
    pub(crate) fn keep(dir: &Path, authority: &str, key: &str, certificate: &str) -> Result<(), Error> {
        let pem = format!("{certificate}{key}");
        Swap::new(&Identity::parse(&pem)?)?;
        files::make_filled_dir(dir, &[(AUTHORITY, authority.to_owned()), (MEMBER, pem)])
    }

    /// What was kept.
    ///
    /// # Errors
    /// It cannot be read, or is not what it should be.
    pub(crate) fn open(dir: &Path) -> Result<Self, Error> {
        let damaged = |name: &str, why: String| Error::Damaged { path: dir.join(name), why };
        let authority = CertificateDer::from_pem_slice(files::read(&dir.join(AUTHORITY))?.as_bytes())
            .map_err(|error| damaged(AUTHORITY, error.to_string()))?;
        let identity = Identity::parse(&files::read(&dir.join(MEMBER))?);
        let identity = identity.map_err(|error| damaged(MEMBER, error.to_string()))?;
        Ok(Self { verifier: ClientVerifier::new(&authority)?, shown: Arc::new(Swap::new(&identity)?), authority })
    }

    pub(crate) const fn verifier(&self) -> &ClientVerifier {
        &self.verifier
    }

    /// TLS for a port where members of the store are let in, and nobody else.
    ///
    /// # Errors
    /// The TLS library refuses the configuration.
    pub(crate) fn server_tls(&self) -> Result<rustls::ServerConfig, Error> {
        let mut config = tls::mutual(Arc::clone(&self.shown), &self.verifier)?;
        config.alpn_protocols = vec![PEERS.to_vec()];
        Ok(config)
    }

    /// TLS towards the other members.
    ///
    /// # Errors
    /// The TLS library refuses the configuration.
    pub(crate) fn peer_tls(&self) -> Result<rustls::ClientConfig, Error> {
        tls::towards_peers(Arc::clone(&self.shown), &self.authority, PEERS)
    }
}
