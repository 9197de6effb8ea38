//! Groups that a token does not carry itself but says where to ask for (OpenID Connect Core 1.0, 5.6.2).
//!
//! A token of a user in very many groups names an endpoint instead of the groups; what that answers is a token again, and is
//! believed only as such: signed by who it says has issued it, and for the same audiences. Aggregated claims (a token inside the
//! token) are passed over, as in Kubernetes.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use jsonwebtoken::Algorithm;
use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use tokio::{sync::OnceCell, time::Instant};

use super::{Verifier, config::Issuer, keys::Keys, untrusted_issuer, web::Web};

/// How long what an endpoint said of a token holds: as long as Kubernetes believes a token without looking again.
const HELD: Duration = Duration::from_secs(10);

/// Of how many tokens is held what an endpoint said.
const MOST_HELD: usize = 1024;

/// Issuers of such claims beside the configured one whose keys are known at a time.
const MOST_ISSUERS: usize = 16;

/// Where a claim is to be had.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Source {
    endpoint: Option<String>,
    access_token: Option<String>,
}

/// What is known of one token.
struct Held {
    since: Instant,
    claim: Arc<OnceCell<Value>>,
}

/// See the module.
pub(super) struct Distributed {
    claim: String,
    audiences: Vec<String>,
    algorithms: Vec<Algorithm>,
    web: Arc<Web>,
    issuers: Mutex<Vec<Arc<Verifier>>>,
    held: Mutex<HashMap<[u8; 32], Held>>,
}

/// Where the claim is to be asked for; none if it is in the token, or nowhere.
fn source(claims: &Map<String, Value>, claim: &str) -> Result<Option<(String, Option<String>)>, String> {
    let None = claims.get(claim) else { return Ok(None) };
    let Some(names) = claims.get("_claim_names") else { return Ok(None) };
    let names = Option::<BTreeMap<String, Option<String>>>::deserialize(names)
        .map_err(|error| format!("oidc: error parsing distributed claim names: {error}"))?;
    let sources = claims.get("_claim_sources").ok_or_else(|| "oidc: no claim sources".to_owned())?;
    let sources = Option::<BTreeMap<String, Option<Source>>>::deserialize(sources)
        .map_err(|error| format!("oidc: could not parse claim sources: {error}"))?;
    let Some(name) = names.unwrap_or_default().remove(claim) else { return Ok(None) };
    let name = name.unwrap_or_default();
    let Some(source) = sources.unwrap_or_default().remove(&name) else {
        return Err(format!("id token _claim_names contained a source {name} missing in _claims_sources"));
    };
    let Source { endpoint, access_token } = source.unwrap_or_default();
    let endpoint = endpoint.filter(|endpoint| !endpoint.is_empty());
    Ok(endpoint.map(|endpoint| (endpoint, access_token.filter(|token| !token.is_empty()))))
}

impl Distributed {
    /// What resolves the claim of groups, if that is configured by name.
    pub(super) fn new(issuer: &Issuer, web: &Arc<Web>) -> Option<Self> {
        let claim = issuer.claim_mappings.groups.claim.clone();
        (!claim.is_empty()).then(|| Self {
            claim,
            audiences: issuer.audiences.clone(),
            algorithms: issuer.algorithms.clone(),
            web: Arc::clone(web),
            issuers: Mutex::default(),
            held: Mutex::default(),
        })
    }

    /// Puts the claim among the `claims` of a valid `token` if they say where it is. `own` is who has issued that token.
    ///
    /// # Errors
    /// It is to be asked for, and cannot be had or is not to be believed.
    ///
    /// # Cancel safety
    /// Safe; whoever shows the token next asks again.
    pub(super) async fn expand(
        &self,
        token: &str,
        claims: &mut Map<String, Value>,
        own: &Arc<Verifier>,
        now: Timestamp,
    ) -> Result<(), String> {
        let Some((endpoint, access_token)) = source(claims, &self.claim)? else { return Ok(()) };
        // Of many requests with the token one asks.
        let held = self.held(token);
        let ask = || self.resolve(&endpoint, access_token.as_deref(), own, now);
        let value = held.get_or_try_init(ask).await?.clone();
        claims.insert(self.claim.clone(), value);
        Ok(())
    }

    fn held(&self, token: &str) -> Arc<OnceCell<Value>> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let key = Sha256::digest(token.as_bytes()).into();
        if held.len() >= MOST_HELD {
            held.retain(|_, one| one.since.elapsed() < HELD);
        }
        // So many users at once are asked about again sooner.
        if held.len() >= MOST_HELD {
            held.clear();
        }
        let fresh = || Held { since: Instant::now(), claim: Arc::default() };
        let one = held.entry(key).or_insert_with(fresh);
        if one.since.elapsed() >= HELD {
            *one = fresh();
        }
        Arc::clone(&one.claim)
    }

    async fn resolve(
        &self,
        endpoint: &str,
        access_token: Option<&str>,
        own: &Arc<Verifier>,
        now: Timestamp,
    ) -> Result<Value, String> {
        let claim = &self.claim;
        let token = self.web.text(endpoint, access_token).await;
        let token = token.map_err(|why| format!("while getting distributed claim {claim:?}: {why}"))?;
        let token = token.trim_ascii();
        let issuer = untrusted_issuer(token).map_err(|why| {
            format!("getting untrusted issuer from endpoint {endpoint} failed for claim {claim:?}: {why}")
        })?;
        let verifier = self.verifier(&issuer, own);
        let verifier = verifier.map_err(|why| format!("verifying untrusted issuer {issuer} failed: {why}"))?;
        let verified = verifier.verify(token, now).await;
        let mut claims = verified.map_err(|why| format!("verify distributed claim token: {why}"))?;
        claims.remove(claim).ok_or_else(|| {
            format!("jwt returned by distributed claim endpoint {endpoint:?} did not contain claim: {claim}")
        })
    }

    /// Who can tell whether a token is of the issuer. Its discovery document says so, and who may answer for it is known by
    /// the same certificates as the configured one.
    fn verifier(&self, url: &str, own: &Arc<Verifier>) -> Result<Arc<Verifier>, String> {
        if url == own.url {
            return Ok(Arc::clone(own));
        }
        if !url.starts_with("https://") {
            return Err(format!("issuer {url:?} must begin with https://"));
        }
        let mut issuers = self.issuers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = issuers.iter().find(|known| known.url == url) {
            return Ok(Arc::clone(known));
        }
        if issuers.len() >= MOST_ISSUERS {
            issuers.remove(0);
        }
        let verifier = Arc::new(Verifier {
            url: url.to_owned(),
            audiences: self.audiences.clone(),
            algorithms: self.algorithms.clone(),
            keys: Keys::new(url, None, Arc::clone(&self.web)),
        });
        issuers.push(Arc::clone(&verifier));
        Ok(verifier)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_claims_say_where_the_groups_are() {
        let there = |token: Option<&str>| Ok(Some(("https://e/g".to_owned(), token.map(str::to_owned))));
        let src = json!({"a": {"endpoint": "https://e/g"}});
        for (claims, expected) in [
            (json!({}), Ok(None)),
            (json!({"groups": ["x"], "_claim_names": 7}), Ok(None)),
            (json!({"groups": null, "_claim_names": {"groups": "a"}, "_claim_sources": src}), Ok(None)),
            (json!({"_claim_names": {"groups": "a"}, "_claim_sources": src}), there(None)),
            (
                json!({"_claim_names": {"groups": "a"}, "_claim_sources": {"a": {"endpoint": "https://e/g", "access_token": "t"}}}),
                there(Some("t")),
            ),
            (
                json!({"_claim_names": {"groups": "a"}, "_claim_sources": {"a": {"endpoint": "https://e/g", "access_token": ""}}}),
                there(None),
            ),
            (json!({"_claim_names": {"roles": "a"}, "_claim_sources": src}), Ok(None)),
            (json!({"_claim_names": null, "_claim_sources": null}), Ok(None)),
            (json!({"_claim_names": {"groups": "a"}, "_claim_sources": {"a": {"JWT": "x.y.z"}}}), Ok(None)),
            (json!({"_claim_names": {"groups": "a"}}), Err("oidc: no claim sources")),
            (json!({"_claim_names": "a", "_claim_sources": src}), Err("oidc: error parsing distributed claim names: ")),
            (
                json!({"_claim_names": {"groups": "a"}, "_claim_sources": {"a": "https://e/g"}}),
                Err("oidc: could not parse claim sources: "),
            ),
            (
                json!({"_claim_names": {"groups": "b"}, "_claim_sources": src}),
                Err("id token _claim_names contained a source b missing in _claims_sources"),
            ),
        ] {
            let found = source(claims.as_object().unwrap(), "groups");
            match expected {
                Ok(expected) => assert_eq!(found, Ok(expected), "{claims}"),
                Err(words) => assert!(found.clone().unwrap_err().starts_with(words), "{claims}\n{found:?}"),
            }
        }
    }
}
