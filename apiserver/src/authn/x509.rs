//! Client certificates: the common name is the user's name, organizations are groups.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;

use crate::{
    pki::{Pki, subject, validity},
    user::User,
};

/// Certificates remembered as verified: many more than a home has clients. When it is full all are forgotten.
const REMEMBERED: usize = 1024;

struct Verified {
    user: Arc<User>,
    not_before: Timestamp,
    not_after: Timestamp,
}

pub(super) struct X509 {
    pki: Arc<Pki>,
    /// By the certificate's SHA-256; only certificates that the authority signed itself.
    verified: Mutex<HashMap<[u8; 32], Arc<Verified>>>,
}

impl X509 {
    pub(super) fn new(pki: Arc<Pki>) -> Self {
        Self { pki, verified: Mutex::default() }
    }

    /// Whose certificate it is, and until when it is valid.
    ///
    /// # Errors
    /// Why it is nobody's.
    pub(super) fn authenticate(
        &self,
        chain: &[CertificateDer<'_>],
        now: Timestamp,
    ) -> Result<(Arc<User>, Timestamp), String> {
        let leaf = chain.first().ok_or("no certificate")?;
        let digest = ring::digest::digest(&ring::digest::SHA256, leaf);
        let key: [u8; 32] = digest.as_ref().try_into().map_err(|_| "no digest")?;
        let known = self.verified.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(known) = known.filter(|k| k.not_before <= now && now <= k.not_after) {
            return Ok((Arc::clone(&known.user), known.not_after));
        }
        self.pki.client_verifier().verify(chain, now).map_err(|error| error.to_string())?;
        let (_, parsed) = x509_parser::parse_x509_certificate(leaf).map_err(|error| error.to_string())?;
        let (name, mut groups) = subject(&parsed).ok_or("the certificate has no common name")?;
        groups.push("system:authenticated".to_owned());
        let id = format!("X509SHA256={}", hex::encode(key));
        let extra = [("authentication.kubernetes.io/credential-id".to_owned(), vec![id])].into();
        let user = Arc::new(User { name, groups, extra, uid: String::new() });
        let validity = validity(&parsed);
        if let (1, Some((not_before, not_after))) = (chain.len(), validity) {
            let mut verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
            if verified.len() >= REMEMBERED {
                verified.clear();
            }
            verified.insert(key, Arc::new(Verified { user: Arc::clone(&user), not_before, not_after }));
        }
        Ok((user, validity.map_or(now, |(_, not_after)| not_after)))
    }
}
