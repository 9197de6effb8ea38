//! The key that signs service account tokens (ES256, RFC 7518 §3.4) and its public face (JWK, RFC 7517).

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use jsonwebtoken::{DecodingKey, EncodingKey};
use rcgen::{KeyPair, PublicKeyData};
use serde_json::{Value, json};

use super::Error;

/// The token signing key.
pub struct SigningKey {
    pair: KeyPair,
    encoding: EncodingKey,
    decoding: DecodingKey,
    id: String,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey").field("id", &self.id).finish_non_exhaustive()
    }
}

impl SigningKey {
    /// A new key on P-256.
    pub(crate) fn make() -> Result<Self, Error> {
        let pair =
            KeyPair::generate().map_err(|source| Error::Make { what: "the token signing key".to_owned(), source })?;
        Ok(Self::new(pair))
    }

    pub(super) fn parse(pem: &str) -> Result<Self, Error> {
        let pair = KeyPair::from_pem(pem)
            .map_err(|source| Error::Make { what: "the token signing key from its file".to_owned(), source })?;
        if !pair.is_compatible(&rcgen::PKCS_ECDSA_P256_SHA256) {
            return Err(Error::Malformed("the key is not on the curve P-256".to_owned()));
        }
        Ok(Self::new(pair))
    }

    fn new(pair: KeyPair) -> Self {
        // As in Kubernetes, the id is the hash of the public key, so that it names the same key everywhere.
        let digest = ring::digest::digest(&ring::digest::SHA256, &pair.subject_public_key_info());
        Self {
            encoding: EncodingKey::from_ec_der(pair.serialized_der()),
            decoding: DecodingKey::from_ec_der(pair.public_key_raw()),
            id: BASE64URL.encode(digest),
            pair,
        }
    }

    pub(super) fn pem(&self) -> String {
        self.pair.serialize_pem()
    }

    /// The key's id, as tokens name it.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn encoding(&self) -> &EncodingKey {
        &self.encoding
    }

    pub(crate) fn decoding(&self) -> &DecodingKey {
        &self.decoding
    }

    /// The JSON Web Key Set others check tokens with.
    #[must_use]
    pub fn key_set(&self) -> Value {
        // An uncompressed point: 4, then both coordinates of 32 bytes (SEC 1 §2.3.3).
        let point = self.pair.public_key_raw();
        let coordinate = |range| BASE64URL.encode(point.get(range).unwrap_or_default());
        json!({"keys": [{
            "use": "sig", "kty": "EC", "kid": self.id, "crv": "P-256", "alg": "ES256",
            "x": coordinate(1..33), "y": coordinate(33..65),
        }]})
    }
}
