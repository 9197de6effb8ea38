//! Registry credentials from Kubernetes' image pull secrets, and which of them an image is pulled with. Source of the matching:
//! `k8s.io/kubernetes/pkg/credentialprovider/keyring.go` (behaviour, as documented under "Pull an image from a private registry").

use std::{collections::BTreeMap, fmt};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;

use super::Reference;

/// A user's name and password at a registry.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// The user.
    pub username: String,
    /// The password or token; never shown.
    pub password: String,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("username", &self.username).finish_non_exhaustive()
    }
}

/// Credentials by the registries and paths they are for.
#[derive(Debug, Clone, Default)]
pub struct Keyring {
    entries: BTreeMap<String, Vec<Credential>>,
}

/// Why a secret holds no credentials.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// It is no JSON of the documented shape.
    #[error("registry credentials: {0}")]
    Json(#[from] serde_json::Error),
    /// A registry's `auth` is not base64 of `user:password`.
    #[error("registry credentials: auth of {0:?} is not base64 of user:password")]
    Auth(String),
}

#[derive(Deserialize)]
struct ConfigJson {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password: Option<String>,
    #[serde(default)]
    auth: Option<String>,
}

impl Keyring {
    /// Adds the content of a secret's `.dockerconfigjson` (type `kubernetes.io/dockerconfigjson`).
    ///
    /// # Errors
    /// [`KeyringError`]; nothing was added then.
    pub fn add_dockerconfigjson(&mut self, bytes: &[u8]) -> Result<(), KeyringError> {
        let config: ConfigJson = serde_json::from_slice(bytes)?;
        self.add(config.auths)
    }

    /// Adds the content of a secret's `.dockercfg` (type `kubernetes.io/dockercfg`).
    ///
    /// # Errors
    /// [`KeyringError`]; nothing was added then.
    pub fn add_dockercfg(&mut self, bytes: &[u8]) -> Result<(), KeyringError> {
        self.add(serde_json::from_slice(bytes)?)
    }

    /// The credentials for an image, in the order they are tried: longer and later-sorting keys first, as in Kubernetes.
    pub fn lookup(&self, reference: &Reference) -> Vec<Credential> {
        let name = reference.name();
        let mut found: Vec<Credential> = self
            .entries
            .iter()
            .rev()
            .filter(|(key, _)| matches(key, &name))
            .flat_map(|(_, credentials)| credentials.clone())
            .collect();
        if found.is_empty() && reference.registry() == "docker.io" {
            // `docker login` without a registry writes the hub under this name.
            found = self.entries.get("index.docker.io").cloned().unwrap_or_default();
        }
        found
    }

    fn add(&mut self, entries: BTreeMap<String, Entry>) -> Result<(), KeyringError> {
        let mut parsed = Vec::with_capacity(entries.len());
        for (registry, entry) in entries {
            let credential = match entry.auth.filter(|auth| !auth.is_empty()) {
                Some(auth) => decode_auth(&auth).ok_or(KeyringError::Auth(registry.clone()))?,
                None => Credential {
                    username: entry.username.unwrap_or_default(),
                    password: entry.password.unwrap_or_default(),
                },
            };
            parsed.push((key_of(&registry), credential));
        }
        for (key, credential) in parsed {
            self.entries.entry(key).or_default().push(credential);
        }
        Ok(())
    }
}

/// `user:password` in base64, with or without padding; some tools end it with a NUL or a line feed.
pub(crate) fn decode_auth(auth: &str) -> Option<Credential> {
    let unpadded = auth.trim().trim_end_matches('=');
    let engine = base64::engine::GeneralPurpose::new(
        &base64::alphabet::STANDARD,
        base64::engine::GeneralPurposeConfig::new()
            .with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent),
    );
    let bytes = engine.decode(unpadded).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (username, password) = text.split_once(':')?;
    Some(Credential { username: username.to_owned(), password: password.trim_end_matches('\0').to_owned() })
}

/// The `Basic` credentials of RFC 7617.
pub(crate) fn basic(credential: &Credential) -> String {
    let pair = format!("{}:{}", credential.username, credential.password);
    format!("Basic {}", STANDARD.encode(pair))
}

/// Host, port and path, without scheme; the registry API's own `/v1/` and `/v2/` are no part of the path.
fn key_of(registry: &str) -> String {
    let rest = registry.strip_prefix("https://").or_else(|| registry.strip_prefix("http://")).unwrap_or(registry);
    let (host, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let path = path
        .strip_prefix("/v1")
        .or_else(|| path.strip_prefix("/v2"))
        .filter(|rest| rest.starts_with('/'))
        .unwrap_or(path);
    if path.is_empty() || path == "/" { host.to_owned() } else { format!("{host}{path}") }
}

/// Whether a key covers an image name: ports equal, as many labels with globs in each, and the key's path a prefix.
fn matches(key: &str, name: &str) -> bool {
    let (key_host, key_path) = split_path(key);
    let (host, path) = split_path(name);
    let (key_host, key_port) = split_port(key_host);
    let (host, port) = split_port(host);
    let labels = |host: &str| host.split('.').count();
    key_port == port
        && path.starts_with(key_path)
        && labels(key_host) == labels(host)
        && key_host.split('.').zip(host.split('.')).all(|(pattern, label)| glob(pattern.as_bytes(), label.as_bytes()))
}

fn split_path(text: &str) -> (&str, &str) {
    match text.find('/') {
        Some(at) => text.split_at(at),
        None => (text, ""),
    }
}

fn split_port(host: &str) -> (&str, &str) {
    if host.ends_with(']') {
        return (host, "");
    }
    host.rsplit_once(':').unwrap_or((host, ""))
}

/// Shell-like match of `*`, `?` and `[…]` in one label (Go's `filepath.Match`).
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => (0..=text.len()).any(|skip| text.get(skip..).is_some_and(|text| glob(rest, text))),
        Some((b'?', rest)) => text.split_first().is_some_and(|(_, text)| glob(rest, text)),
        Some((b'[', rest)) => {
            let Some(end) = rest.iter().position(|b| *b == b']') else {
                return false;
            };
            let (Some(class), Some(rest), Some((first, text))) =
                (rest.get(..end), rest.get(end + 1..), text.split_first())
            else {
                return false;
            };
            let (negated, class) = match class.split_first() {
                Some((b'^', class)) => (true, class),
                _ => (false, class),
            };
            in_class(class, *first) != negated && glob(rest, text)
        }
        Some((expected, rest)) => text.split_first().is_some_and(|(first, text)| first == expected && glob(rest, text)),
    }
}

fn in_class(class: &[u8], byte: u8) -> bool {
    match class {
        [low, b'-', high, rest @ ..] => (*low..=*high).contains(&byte) || in_class(rest, byte),
        [one, rest @ ..] => *one == byte || in_class(rest, byte),
        [] => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users(config: &str, image: &str) -> Vec<String> {
        let mut ring = Keyring::default();
        ring.add_dockerconfigjson(config.as_bytes()).unwrap();
        ring.lookup(&image.parse().unwrap()).into_iter().map(|credential| credential.username).collect()
    }

    #[test]
    fn keys_match_by_host_port_path_and_glob() {
        for (key, image, matched) in [
            ("quay.io", "quay.io/a/b", true),
            ("https://quay.io/v2/", "quay.io/a/b", true),
            ("http://quay.io/v1/", "quay.io/a/b", true),
            ("quay.io/a", "quay.io/a/b", true),
            ("quay.io/c", "quay.io/a/b", false),
            ("quay.io:443", "quay.io/a/b", false),
            ("reg.local:5000", "reg.local:5000/x", true),
            ("*.local:5000", "reg.local:5000/x", true),
            ("*.local:5000", "a.reg.local:5000/x", false),
            ("r?g.[a-l]ocal", "reg.local/x", true),
            ("r?g.[^a-l]ocal", "reg.local/x", false),
            ("https://index.docker.io/v1/", "nginx", true),
            ("docker.io", "nginx", true),
            ("registry-1.docker.io", "nginx", false),
        ] {
            let config = format!(r#"{{"auths":{{"{key}":{{"username":"u","password":"p"}}}}}}"#);
            assert_eq!(users(&config, image).len(), usize::from(matched), "{key} {image}");
        }
    }

    #[test]
    fn longer_paths_are_tried_first_and_auth_wins_over_username() {
        let config = r#"{"auths":{
            "quay.io":{"username":"host","password":"p"},
            "quay.io/team/app":{"auth":"YXBwOnB3"},
            "quay.io/team":{"auth":"dGVhbTpwdw==","username":"ignored"}}}"#;
        assert_eq!(users(config, "quay.io/team/app:1"), ["app", "team", "host"]);
        assert_eq!(users(config, "quay.io/other"), ["host"]);
    }

    #[test]
    fn the_older_format_and_broken_secrets_are_told_apart() {
        let mut ring = Keyring::default();
        ring.add_dockercfg(br#"{"quay.io":{"username":"u","password":"p:q"}}"#).unwrap();
        assert_eq!(ring.lookup(&"quay.io/a".parse().unwrap())[0].password, "p:q");
        assert!(ring.add_dockerconfigjson(b"{").is_err());
        assert!(ring.add_dockerconfigjson(br#"{"auths":{"a.b":{"auth":"!!"}}}"#).is_err());
        assert!(!format!("{:?}", ring).contains("p:q"));
    }
}
