//! Service account tokens: JSON Web Tokens (RFC 7519) that name an account and what they are bound to.
//!
//! A token is valid as long as its time has not come, and its account and the object it is bound to exist with the uids
//! they had, and are not to be gone by now: what is being deleted has until its `deletionTimestamp` (with a pod, the end
//! of its grace period) and a minute. Signatures are checked once and remembered, existence is looked up
//! every time.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use coracle_store::Store;
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, Header, Validation};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    pki::{Pki, SigningKey},
    stored,
    user::User,
};

/// Tokens whose signature is remembered as right. When it is full all are forgotten.
const REMEMBERED: usize = 4096;

/// How long after its `deletionTimestamp` an object's tokens still hold: clocks differ (`jwt.DefaultLeeway`).
const LEEWAY: jiff::SignedDuration = jiff::SignedDuration::from_mins(1);

/// No token is longer; the longest that names everything is some two kilobytes.
const LONGEST: usize = 16 * 1024;

/// An object named by a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    /// Its name.
    pub name: String,
    /// Its uid.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

/// What a token is bound to besides its account.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// The namespace of account, pod and secret.
    pub namespace: String,
    /// The account.
    pub serviceaccount: Option<Reference>,
    /// The pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Reference>,
    /// The secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Reference>,
    /// The node; beside a pod, the one it runs on, which is told and not checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Reference>,
    /// When the token should have been replaced (seconds since the epoch).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warnafter: Option<i64>,
}

/// A token's content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// For whom it is.
    pub aud: Vec<String>,
    /// When it ends (seconds since the epoch, as all times here).
    pub exp: i64,
    /// When it was made.
    pub iat: i64,
    /// Who made it.
    pub iss: String,
    /// Its own id.
    #[serde(default)]
    pub jti: String,
    /// What it is bound to.
    #[serde(rename = "kubernetes.io")]
    pub bound: Bound,
    /// From when it is valid.
    #[serde(default)]
    pub nbf: i64,
    /// Whose it is: `system:serviceaccount:<namespace>:<name>`.
    pub sub: String,
}

/// Makes and checks service account tokens.
pub struct Tokens {
    pki: Arc<Pki>,
    store: Store,
    /// The issuer, which is also the server's own audience.
    own: Vec<String>,
    /// By the token's SHA-256.
    checked: Mutex<HashMap<[u8; 32], Arc<Claims>>>,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").field("issuer", &self.own).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    #[serde(default)]
    uid: String,
    deletion_timestamp: Option<String>,
}

#[derive(Deserialize)]
struct Object {
    metadata: Meta,
}

impl Tokens {
    /// Tokens of the cluster with this domain.
    #[must_use]
    pub fn new(pki: Arc<Pki>, store: Store) -> Self {
        let own = vec![format!("https://kubernetes.default.svc.{}", pki.config().domain)];
        Self { pki, store, own, checked: Mutex::default() }
    }

    /// Who issues the tokens.
    #[must_use]
    pub fn issuer(&self) -> &str {
        self.own.first().map_or("", String::as_str)
    }

    /// The audiences of the server itself.
    #[must_use]
    pub fn audiences(&self) -> &[String] {
        &self.own
    }

    /// A signed token.
    ///
    /// # Errors
    /// The key cannot sign.
    pub fn sign(&self, claims: &Claims) -> Result<String, jsonwebtoken::errors::Error> {
        let key = self.pki.signing_key();
        let header = Header { alg: Algorithm::ES256, typ: None, kid: Some(key.id().to_owned()), ..Header::default() };
        jsonwebtoken::encode(&header, claims, key.encoding())
    }

    /// Whose token it is, and for which of `wanted` audiences (the server's own when there are none).
    pub(super) fn authenticate(
        &self,
        token: &str,
        wanted: &[String],
        now: Timestamp,
    ) -> Result<(User, Vec<String>), String> {
        let claims = self.checked(token)?;
        let (time, now) = (now, now.as_second());
        if claims.iss != self.issuer() {
            return Err("the token was issued by somebody else".to_owned());
        }
        if now >= claims.exp {
            return Err("service account token has expired".to_owned());
        }
        if now < claims.nbf || now < claims.iat {
            return Err("service account token is not valid yet".to_owned());
        }
        let wanted = if wanted.is_empty() { &self.own } else { wanted };
        let audiences: Vec<String> = wanted.iter().filter(|w| claims.aud.contains(w)).cloned().collect();
        if audiences.is_empty() {
            return Err(format!("token audiences {:?} is invalid for the target audiences {wanted:?}", claims.aud));
        }
        self.user_of(&claims, time).map(|user| (user, audiences))
    }

    /// The key that signs.
    pub(super) fn key(&self) -> &SigningKey {
        self.pki.signing_key()
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// The content of a token that the key has signed. Times, issuer and audience are for the caller to check, against its
    /// own clock.
    pub(super) fn signed<T: DeserializeOwned>(&self, token: &str) -> Result<T, String> {
        if token.len() > LONGEST {
            return Err("the token is too long".to_owned());
        }
        let mut validation = Validation::new(Algorithm::ES256);
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        let decoded = jsonwebtoken::decode::<T>(token, self.key().decoding(), &validation);
        decoded.map(|decoded| decoded.claims).map_err(|error| error.to_string())
    }

    /// The content of a token whose signature is right.
    fn checked(&self, token: &str) -> Result<Arc<Claims>, String> {
        if token.len() > LONGEST {
            return Err("the token is too long".to_owned());
        }
        let digest = ring::digest::digest(&ring::digest::SHA256, token.as_bytes());
        let key: [u8; 32] = digest.as_ref().try_into().map_err(|_| "no digest")?;
        if let Some(claims) = self.checked.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(claims.clone());
        }
        let claims: Arc<Claims> = Arc::new(self.signed(token)?);
        let mut checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        if checked.len() >= REMEMBERED {
            checked.clear();
        }
        checked.insert(key, claims.clone());
        Ok(claims)
    }

    /// Whether the object is still there, is still the same, and is not on its way out.
    pub(super) fn is_there(
        &self,
        storage: &str,
        namespace: &str,
        wanted: &Reference,
        now: Timestamp,
    ) -> Result<(), String> {
        let gone = || "service account token has been invalidated".to_owned();
        let entry = self.store.get(&stored::key(storage, namespace, &wanted.name)).ok_or_else(gone)?;
        let object: Object = serde_json::from_slice(&entry.value).map_err(|_| gone())?;
        if object.metadata.uid != wanted.uid {
            return Err(format!("{storage} UID ({}) does not match claim ({})", object.metadata.uid, wanted.uid));
        }
        let deleted = object.metadata.deletion_timestamp.and_then(|time| time.parse::<Timestamp>().ok());
        if deleted.is_some_and(|deleted| now.duration_since(deleted) > LEEWAY) { Err(gone()) } else { Ok(()) }
    }

    fn user_of(&self, claims: &Claims, now: Timestamp) -> Result<User, String> {
        let bound = &claims.bound;
        let account = bound.serviceaccount.as_ref().ok_or("the token names no account")?;
        let namespace = bound.namespace.as_str();
        let name = format!("system:serviceaccount:{namespace}:{}", account.name);
        if claims.sub != name {
            return Err("the token's subject is not its account".to_owned());
        }
        self.is_there("serviceaccounts", namespace, account, now)?;
        let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut tell = |key: &str, value: &str| {
            if !value.is_empty() {
                extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value.to_owned()]);
            }
        };
        if let Some(secret) = &bound.secret {
            self.is_there("secrets", namespace, secret, now)?;
        }
        if let Some(pod) = &bound.pod {
            self.is_there("pods", namespace, pod, now)?;
            tell("pod-name", &pod.name);
            tell("pod-uid", &pod.uid);
        }
        if let Some(node) = &bound.node {
            if bound.pod.is_none() {
                self.is_there("nodes", "", node, now)?;
            }
            tell("node-name", &node.name);
            tell("node-uid", &node.uid);
        }
        if !claims.jti.is_empty() {
            tell("credential-id", &format!("JTI={}", claims.jti));
        }
        let groups = ["system:serviceaccounts", &format!("system:serviceaccounts:{namespace}"), "system:authenticated"];
        Ok(User { name, uid: account.uid.clone(), groups: groups.iter().map(|g| (*g).to_owned()).collect(), extra })
    }
}
