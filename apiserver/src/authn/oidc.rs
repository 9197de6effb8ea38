//! Tokens of other issuers (OpenID Connect), as a configuration file or the `--oidc-…` flags say (KEP-3331).
//!
//! ```text
//!   token ─► whose? (iss, not yet believed) ─► keys of that issuer ─► signature, audience, times
//!         ─► claims, and those asked for elsewhere ─► mapping ─► user ─► rules about claims, and about the user
//! ```
//!
//! **Invariants:** only algorithms with a public key are taken, never one that a token chooses otherwise; keys come from
//! the configured issuer alone; how often they are fetched is not for who sends tokens to say.

pub mod config;
mod distributed;
mod keys;
mod mapping;
pub(crate) mod reload;
mod validation;
mod web;

use std::sync::Arc;

use jiff::Timestamp;
use jsonwebtoken::{Algorithm, Validation};
use serde::Deserialize;
use serde_json::{Map, Value};

use self::{config::Issuer, distributed::Distributed, keys::Keys, mapping::Mapping, web::Web};
use crate::{upstream::connect::Tasks, user::User};

/// No token is longer: who is in very many groups has tens of kilobytes.
const LONGEST: usize = 64 * 1024;

/// How far clocks may differ for `nbf`, as in Kubernetes.
const LEEWAY: i64 = 300;

/// What a token says of itself before it is believed.
#[derive(Deserialize)]
struct Said {
    #[serde(default)]
    iss: String,
}

/// For whom a token is: one, or several.
#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

/// What of a token's claims is checked here.
#[derive(Deserialize)]
struct Standard {
    #[serde(default)]
    iss: String,
    aud: Option<Audience>,
    exp: Option<f64>,
    nbf: Option<f64>,
}

/// Tells whether a token is of an issuer, and for whom it has to be.
struct Verifier {
    url: String,
    audiences: Vec<String>,
    algorithms: Vec<Algorithm>,
    keys: Keys,
}

/// One issuer whose tokens are taken.
struct Authority {
    verifier: Arc<Verifier>,
    distributed: Option<Distributed>,
    mapping: Mapping,
}

/// All issuers whose tokens are taken.
pub struct Issuers {
    authorities: Vec<Authority>,
    tasks: Tasks,
}

impl std::fmt::Debug for Issuers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issuers").field("count", &self.authorities.len()).finish_non_exhaustive()
    }
}

/// The issuer a token names, which is not to be believed.
fn untrusted_issuer(token: &str) -> Result<String, String> {
    let mut parts = token.split('.');
    let (Some(_), Some(payload), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err("malformed token".to_owned());
    };
    let bytes = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, payload)
        .map_err(|error| format!("error decoding token: {error}"))?;
    let said: Said = serde_json::from_slice(&bytes).map_err(|error| format!("while unmarshaling token: {error}"))?;
    // Google's tokens name it without a scheme as well.
    Ok(if said.iss == "accounts.google.com" { "https://accounts.google.com".to_owned() } else { said.iss })
}

impl Issuers {
    /// Nobody.
    pub(super) fn none() -> Self {
        Self { authorities: Vec::new(), tasks: Tasks::new() }
    }

    /// The issuers of a configuration; `disallowed` are those of the cluster's own tokens. Their connections end with
    /// those of the issuers before them, whose place they take.
    ///
    /// # Errors
    /// All that is wrong with the configuration.
    pub(super) fn instead(&self, issuers: Vec<Issuer>, disallowed: &[String]) -> Result<Self, String> {
        let mappings = validation::compile(&issuers, disallowed)?;
        let tasks = self.tasks.clone();
        let mut authorities = Vec::new();
        for (issuer, mapping) in issuers.into_iter().zip(mappings) {
            let web = Arc::new(Web::new(&issuer, &tasks)?);
            let distributed = Distributed::new(&issuer, &web);
            let keys = Keys::new(&issuer.url, issuer.discovery_url.as_deref(), web);
            let Issuer { url, audiences, algorithms, .. } = issuer;
            let verifier = Arc::new(Verifier { url, audiences, algorithms, keys });
            authorities.push(Authority { verifier, distributed, mapping });
        }
        Ok(Self { authorities, tasks })
    }

    /// Ends all connections.
    pub(super) async fn stop(&self) {
        self.tasks.stop().await;
    }

    /// Who shows the token; none when it is nobody's here.
    ///
    /// # Errors
    /// Why it is not valid.
    pub(super) async fn authenticate(&self, token: &str, now: Timestamp) -> Result<Option<User>, String> {
        if self.authorities.is_empty() || token.len() > LONGEST {
            return Ok(None);
        }
        let Ok(claimed) = untrusted_issuer(token) else { return Ok(None) };
        let Some(authority) = self.authorities.iter().find(|a| a.verifier.url == claimed) else { return Ok(None) };
        authority.authenticate(token, now).await.map(Some).map_err(|why| format!("oidc: {why}"))
    }
}

impl Authority {
    async fn authenticate(&self, token: &str, now: Timestamp) -> Result<User, String> {
        let mut claims = self.verifier.verify(token, now).await?;
        if let Some(distributed) = &self.distributed {
            let expanded = distributed.expand(token, &mut claims, &self.verifier, now).await;
            expanded.map_err(|why| format!("could not expand distributed claims: {why}"))?;
        }
        self.mapping.user(&claims)
    }
}

impl Verifier {
    /// The claims of a token, if it is a valid one of this issuer.
    async fn verify(&self, token: &str, now: Timestamp) -> Result<Map<String, Value>, String> {
        let header = jsonwebtoken::decode_header(token).map_err(|error| format!("malformed jwt: {error}"))?;
        if !self.algorithms.contains(&header.alg) {
            return Err(format!("id token signed with unsupported algorithm {:?}", header.alg));
        }
        let claims = self.verified(token, header.alg, header.kid.as_deref()).await?;
        self.check(&claims, now)?;
        Ok(claims)
    }

    /// The claims of a token whose signature is right. Keys that are not known are asked for once.
    async fn verified(
        &self,
        token: &str,
        algorithm: Algorithm,
        kid: Option<&str>,
    ) -> Result<Map<String, Value>, String> {
        let known = self.keys.known();
        if let Some(claims) = known.verify(token, algorithm, kid) {
            return Ok(claims);
        }
        let fresh = self.keys.after(&known).await?;
        let verified = fresh.verify(token, algorithm, kid);
        verified.ok_or_else(|| "failed to verify signature: failed to verify id token signature".to_owned())
    }

    fn check(&self, claims: &Map<String, Value>, now: Timestamp) -> Result<(), String> {
        let standard: Standard = serde_json::from_value(Value::Object(claims.clone()))
            .map_err(|error| format!("failed to unmarshal claims: {error}"))?;
        let is_google = standard.iss == "accounts.google.com" && self.url == "https://accounts.google.com";
        if standard.iss != self.url && !is_google {
            return Err(format!(
                "id token issued by a different provider, expected {:?} got {:?}",
                self.url, standard.iss
            ));
        }
        let audiences = match standard.aud {
            Some(Audience::One(one)) => vec![one],
            Some(Audience::Several(several)) => several,
            None => Vec::new(),
        };
        if !audiences.iter().any(|audience| self.audiences.contains(audience)) {
            return Err(format!("expected audience in {:?} got {audiences:?}", self.audiences));
        }
        #[expect(clippy::cast_precision_loss, reason = "seconds since the epoch are exact for millions of years")]
        let (seconds, leeway) = (now.as_second() as f64, LEEWAY as f64);
        if standard.exp.is_none_or(|exp| exp <= seconds) {
            return Err("token is expired".to_owned());
        }
        if standard.nbf.is_some_and(|nbf| nbf > seconds + leeway) {
            return Err("current time before the nbf (not before) time".to_owned());
        }
        Ok(())
    }
}

/// What is checked by the library: the signature, and nothing that the clock or the configuration has a say in.
fn signature_only(algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation
}

#[cfg(test)]
mod tests;
