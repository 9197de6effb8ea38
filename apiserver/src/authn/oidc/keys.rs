//! An issuer's keys, fetched when a token needs them (OpenID Connect Discovery 1.0, RFC 7517).

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{Jwk, KeyAlgorithm, PublicKeyUse},
};
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::{sync::Mutex, time::Instant};

use super::{signature_only, web::Web};

/// How many keys are kept.
const MAX_KEYS: usize = 256;

/// Between two fetches, however many tokens come with keys that nobody knows.
const PAUSE: Duration = Duration::from_secs(10);

struct Key {
    id: Option<String>,
    algorithm: Option<KeyAlgorithm>,
    key: DecodingKey,
}

/// The keys as of one fetch.
#[derive(Default)]
pub(super) struct KeySet(Vec<Key>);

impl KeySet {
    /// The keys of a document; those that cannot be used here are left out.
    pub(super) fn of(document: Document) -> Self {
        let keys = document.keys.into_iter().take(MAX_KEYS).filter_map(|key| {
            let key: Jwk = serde_json::from_value(key).ok()?;
            if matches!(key.common.public_key_use, Some(PublicKeyUse::Encryption)) {
                return None;
            }
            let decoding = DecodingKey::from_jwk(&key).ok()?;
            Some(Key { id: key.common.key_id, algorithm: key.common.key_algorithm, key: decoding })
        });
        Self(keys.collect())
    }

    /// The claims of a token that one of the keys has signed: the one the token names, or any if it names none.
    pub(super) fn verify(&self, token: &str, algorithm: Algorithm, kid: Option<&str>) -> Option<Map<String, Value>> {
        let validation = signature_only(algorithm);
        let is_meant = |key: &&Key| {
            kid.is_none_or(|kid| kid.is_empty() || key.id.as_deref() == Some(kid))
                && key.algorithm.is_none_or(|own| own.to_string() == format!("{algorithm:?}"))
        };
        let verified =
            |key: &Key| jsonwebtoken::decode(token, &key.key, &validation).ok().map(|decoded| decoded.claims);
        self.0.iter().filter(is_meant).find_map(verified)
    }
}

/// See the module.
pub(super) struct Keys {
    issuer: String,
    discovery: String,
    web: Arc<Web>,
    current: RwLock<Arc<KeySet>>,
    /// When they were fetched last, or were tried to. Who holds it fetches.
    fetched: Mutex<Option<Instant>>,
}

/// A document of keys. Each is read by itself, since a kind of key that is not known here is no reason to refuse the others.
#[derive(Deserialize)]
pub(super) struct Document {
    keys: Vec<Value>,
}

/// What the discovery document says, as far as it is needed.
#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

impl Keys {
    /// The keys of an issuer; nothing is fetched yet.
    pub(super) fn new(issuer: &str, discovery: Option<&str>, web: Arc<Web>) -> Self {
        let well_known = || format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        Self {
            issuer: issuer.to_owned(),
            discovery: discovery.map_or_else(well_known, str::to_owned),
            web,
            current: RwLock::default(),
            fetched: Mutex::new(None),
        }
    }

    /// Keys that are known already and are not fetched.
    #[cfg(test)]
    pub(super) fn put(&self, document: Document) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(KeySet::of(document));
    }

    /// The keys as they are known.
    pub(super) fn known(&self) -> Arc<KeySet> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Newer keys than those. Of many who want them one fetches, and not too often.
    ///
    /// # Errors
    /// They cannot be had.
    ///
    /// # Cancel safety
    /// Safe; the next one fetches.
    pub(super) async fn after(&self, old: &Arc<KeySet>) -> Result<Arc<KeySet>, String> {
        let mut fetched = self.fetched.lock().await;
        let known = self.known();
        if !Arc::ptr_eq(&known, old) {
            return Ok(known);
        }
        if fetched.is_some_and(|last| last.elapsed() < PAUSE) {
            return Err("the key is not known, and the issuer was asked a moment ago".to_owned());
        }
        *fetched = Some(Instant::now());
        let set = Arc::new(KeySet::of(self.fetch().await?));
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&set);
        Ok(set)
    }

    async fn fetch(&self) -> Result<Document, String> {
        let discovery: Discovery = self.web.json(&self.discovery).await?;
        if discovery.issuer != self.issuer {
            let (expected, got) = (&self.issuer, &discovery.issuer);
            return Err(format!(
                "issuer did not match the issuer returned by provider, expected {expected:?} got {got:?}"
            ));
        }
        if !discovery.jwks_uri.starts_with("https://") {
            return Err(format!("jwks_uri {:?} must begin with https://", discovery.jwks_uri));
        }
        self.web.json(&discovery.jwks_uri).await
    }
}
