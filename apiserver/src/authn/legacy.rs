//! Tokens that stand in Secrets of type `kubernetes.io/service-account-token`, as they were made before tokens could be
//! asked for: they have no end, and hold as long as their Secret does.

use coracle_store::Store;
use jsonwebtoken::{Algorithm, Header};
use k8s_openapi::api::core::v1::Secret;
use serde::{Deserialize, Serialize};

use super::{Reference, service_account::Tokens};
use crate::{stored, user::User};

/// Who issues them.
const ISSUER: &str = "kubernetes/serviceaccount";

/// The type of their Secrets.
pub(crate) const TYPE: &str = "kubernetes.io/service-account-token";

/// Such a token's content.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Claims {
    iss: String,
    #[serde(rename = "kubernetes.io/serviceaccount/namespace")]
    namespace: String,
    #[serde(rename = "kubernetes.io/serviceaccount/secret.name")]
    secret: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.name")]
    account: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.uid")]
    uid: String,
    sub: String,
}

/// Who issued a token, as it says.
#[derive(Deserialize)]
struct Said {
    #[serde(default)]
    iss: String,
}

/// Whether the token says that it is one of these.
pub(super) fn looks_like(token: &str) -> bool {
    let payload = token.split('.').nth(1).unwrap_or_default();
    let bytes = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, payload);
    bytes.is_ok_and(|bytes| serde_json::from_slice::<Said>(&bytes).is_ok_and(|said| said.iss == ISSUER))
}

impl Tokens {
    /// The token of a Secret for an account.
    ///
    /// # Errors
    /// The key cannot sign.
    pub(crate) fn sign_for_secret(
        &self,
        namespace: &str,
        secret: &str,
        account: &Reference,
    ) -> Result<String, jsonwebtoken::errors::Error> {
        let key = self.key();
        let header = Header { alg: Algorithm::ES256, typ: None, kid: Some(key.id().to_owned()), ..Header::default() };
        let claims = Claims {
            iss: ISSUER.to_owned(),
            namespace: namespace.to_owned(),
            secret: secret.to_owned(),
            account: account.name.clone(),
            uid: account.uid.clone(),
            sub: format!("system:serviceaccount:{namespace}:{}", account.name),
        };
        jsonwebtoken::encode(&header, &claims, key.encoding())
    }

    /// Whose token it is, if its Secret still holds it.
    pub(super) fn authenticate_of_secret(&self, token: &str, now: jiff::Timestamp) -> Result<User, String> {
        let claims: Claims = self.signed(token)?;
        let Claims { iss, namespace, secret, account, uid, sub } = claims;
        let name = format!("system:serviceaccount:{namespace}:{account}");
        if iss != ISSUER || sub != name {
            return Err("the token's subject is not its account".to_owned());
        }
        holds(self.store(), &namespace, &secret, token)?;
        self.is_there("serviceaccounts", &namespace, &Reference { name: account, uid: uid.clone() }, now)?;
        let groups = ["system:serviceaccounts", &format!("system:serviceaccounts:{namespace}"), "system:authenticated"];
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        Ok(User { name, uid, groups, ..User::default() })
    }
}

/// Whether the Secret is there and holds the token.
fn holds(store: &Store, namespace: &str, name: &str, token: &str) -> Result<(), String> {
    let gone = || "service account token has been invalidated".to_owned();
    let entry = store.get(&stored::key("secrets", namespace, name)).ok_or_else(gone)?;
    let secret: Secret = serde_json::from_slice(&entry.value).map_err(|_| gone())?;
    if secret.metadata.deletion_timestamp.is_some() {
        return Err(gone());
    }
    let held = secret.data.as_ref().and_then(|data| data.get("token"));
    if held.is_some_and(|held| held.0 == token.as_bytes()) {
        Ok(())
    } else {
        Err("token does not match server's copy".to_owned())
    }
}
