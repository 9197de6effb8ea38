//! Who a registry is asked as: the credentials there are, one after the other, and anonymous access last. Sources: RFC 9110, section
//! 11 (challenges); distribution, "Token Authentication Specification".

use http::{HeaderMap, Method, StatusCode, header};
use serde::Deserialize;

use super::{RegistryError, Repository, transport};
use crate::image::{Credential, credentials};

/// Largest answer of a token server.
const TOKEN_MAX: u64 = 1 << 20;

/// What a registry wants to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

/// What requests are sent with, and what is left to try.
pub(super) struct Authorization {
    /// Who to be, in order; `None` is nobody.
    candidates: Vec<Option<Credential>>,
    /// The candidate in use.
    current: usize,
    header: Option<String>,
    /// The current candidate was accepted once: a refusal means that its token ran out.
    proven: bool,
    /// Why the last token server said no.
    refusal: Option<String>,
}

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
}

impl Authorization {
    pub(super) fn new(credentials: Vec<Credential>) -> Self {
        let candidates = credentials.into_iter().map(Some).chain([None]).collect();
        Self { candidates, current: 0, header: None, proven: false, refusal: None }
    }

    pub(super) fn header(&self) -> Option<String> {
        self.header.clone()
    }

    /// Who the registry takes us for; nobody in particular when it has not asked.
    pub(super) fn whose(&self) -> Option<Credential> {
        self.header.as_ref().and(self.candidates.get(self.current)).cloned().flatten()
    }

    pub(super) fn proven(&mut self, used: Option<&str>) {
        self.proven |= used.is_some() && used == self.header.as_deref();
    }

    /// Takes the next way to be let in, after a refusal.
    pub(super) async fn advance(
        &mut self,
        repository: &Repository,
        challenge: Option<&Challenge>,
        detail: &str,
    ) -> Result<(), RegistryError> {
        let had_header = self.header.take().is_some();
        if had_header && !std::mem::take(&mut self.proven) {
            self.current += 1;
        }
        loop {
            let Some(candidate) = self.candidates.get(self.current) else {
                let reason = match (self.refusal.take(), detail.is_empty()) {
                    (Some(refusal), _) => refusal,
                    (None, false) => format!("server message: {detail}"),
                    (None, true) => "authorization failed".to_owned(),
                };
                return Err(RegistryError::Denied(reason));
            };
            match (challenge, candidate) {
                (Some(Challenge::Basic), Some(credential)) => {
                    self.header = Some(credentials::basic(credential));
                    return Ok(());
                }
                (Some(Challenge::Basic), None) => {
                    self.refusal.get_or_insert_with(|| {
                        if self.candidates.len() == 1 {
                            "authorization failed: no basic auth credentials".to_owned()
                        } else {
                            "authorization failed: unexpected status: 401 Unauthorized".to_owned()
                        }
                    });
                }
                (Some(Challenge::Bearer { realm, service, scope }), credential) => {
                    match token(repository, realm, service.as_deref(), scope.as_deref(), credential.as_ref()).await {
                        Ok(token) => {
                            self.header = Some(format!("Bearer {token}"));
                            return Ok(());
                        }
                        Err(RegistryError::Status { status, .. })
                            if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) =>
                        {
                            self.refusal = Some(format!(
                                "authorization failed: failed to fetch token: unexpected status: {status}"
                            ));
                        }
                        Err(error) => return Err(error),
                    }
                }
                (None, _) => {}
            }
            self.current += 1;
        }
    }
}

/// Asks a token server.
async fn token(
    repository: &Repository,
    realm: &str,
    service: Option<&str>,
    scope: Option<&str>,
    credential: Option<&Credential>,
) -> Result<String, RegistryError> {
    let secure = realm.starts_with("https://");
    let plain = realm.starts_with("http://") && repository.endpoint.scheme == "http";
    if !secure && !plain {
        return Err(RegistryError::Content { url: realm.to_owned(), reason: "token server without TLS".to_owned() });
    }
    let wanted = format!("repository:{}:pull", repository.endpoint.repository);
    let mut url = format!(
        "{realm}{}scope={}",
        if realm.contains('?') { '&' } else { '?' },
        transport::escape(scope.unwrap_or(&wanted))
    );
    if let Some(service) = service {
        url.push_str(&format!("&service={}", transport::escape(service)));
    }
    let mut request = http::Request::builder().method(Method::GET).uri(url.as_str());
    if let Some(credential) = credential {
        request = request.header(header::AUTHORIZATION, credentials::basic(credential));
    }
    let response = repository.send(&Method::GET, &url, request).await?;
    let status = response.status();
    if !status.is_success() {
        let detail = repository.detail(&Method::GET, &url, response).await;
        let detail = if detail.is_empty() { detail } else { format!(": {detail}") };
        return Err(RegistryError::Status { method: Method::GET, url: realm.to_owned(), status, detail });
    }
    let bytes = repository.collect(&url, response, TOKEN_MAX).await?;
    let wrong = |reason: &str| RegistryError::Content { url: realm.to_owned(), reason: reason.to_owned() };
    let answer: TokenAnswer = serde_json::from_slice(&bytes).map_err(|_| wrong("no token"))?;
    let token = if answer.token.is_empty() { answer.access_token } else { answer.token };
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(wrong("no token"));
    }
    Ok(token)
}

impl Challenge {
    /// The challenge of an answer; a token is preferred to a password.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let challenges: Vec<Self> = headers
            .get_all(header::WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .filter_map(Self::parse)
            .collect();
        challenges.iter().find(|challenge| matches!(challenge, Self::Bearer { .. })).or(challenges.first()).cloned()
    }

    fn parse(value: &str) -> Option<Self> {
        let (scheme, rest) = value.trim().split_once(' ').unwrap_or((value.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let (mut realm, mut service, mut scope) = (None, None, None);
        for (key, value) in parameters(rest) {
            match key.to_ascii_lowercase().as_str() {
                "realm" => realm = Some(value),
                "service" => service = Some(value),
                "scope" => scope = Some(value),
                _ => {}
            }
        }
        Some(Self::Bearer { realm: realm?, service, scope })
    }
}

/// `key=value` and `key="quoted value"`, joined by commas.
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((key, after)) = rest.split_once('=') {
        let key = key.trim_matches([' ', ',', '\t']).to_owned();
        let mut value = String::new();
        if let Some(quoted) = after.strip_prefix('"') {
            let mut characters = quoted.char_indices();
            let mut end = quoted.len();
            while let Some((at, character)) = characters.next() {
                match character {
                    '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
                    '"' => {
                        end = at + 1;
                        break;
                    }
                    other => value.push(other),
                }
            }
            rest = quoted.get(end..).unwrap_or_default();
        } else {
            let end = after.find(',').unwrap_or(after.len());
            value.push_str(after.get(..end).unwrap_or_default().trim());
            rest = after.get(end..).unwrap_or_default();
        }
        found.push((key, value));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read_as_registries_write_them() {
        let bearer = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#;
        assert_eq!(
            Challenge::parse(bearer).unwrap(),
            Challenge::Bearer {
                realm: "https://auth.docker.io/token".into(),
                service: Some("registry.docker.io".into()),
                scope: Some("repository:a/b:pull,push".into()),
            }
        );
        assert_eq!(Challenge::parse("Basic realm=\"x\""), Some(Challenge::Basic));
        assert_eq!(Challenge::parse("basic"), Some(Challenge::Basic));
        assert_eq!(Challenge::parse("Negotiate"), None);
        assert_eq!(Challenge::parse("Bearer service=x"), None);
        assert_eq!(parameters(r#"a="x\"y", b=z,c="unended"#).len(), 3);
    }
}
