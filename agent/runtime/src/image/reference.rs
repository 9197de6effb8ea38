//! Image references as people write them, and their full form. Grammar: distribution/reference, which containerd, Docker and
//! the kubelet share.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::Digest;

/// The registry of names without one.
const DEFAULT_REGISTRY: &str = "docker.io";

/// Longest repository name, registry included.
const NAME_MAX: usize = 255;

/// A full image name: registry, repository, and a tag, a digest, or both.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is no image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidReference {
    /// It does not follow the grammar.
    #[error("invalid reference format")]
    Format,
    /// Only its capital letters are wrong.
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    Uppercase(String),
    /// It is longer than 255 bytes.
    #[error("invalid reference format: repository name must not be more than 255 characters")]
    TooLong,
}

impl Reference {
    /// The registry's host and port, for example `docker.io` or `localhost:5000`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path of the repository in its registry, for example `library/nginx`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Registry and repository, for example `docker.io/library/nginx`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The tag; references without tag and digest have `latest`.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest of the manifest or index.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// What goes into the manifest's URL: the digest if there is one, otherwise the tag.
    pub(crate) fn selector(&self) -> &str {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.as_str(),
            (None, Some(tag)) => tag,
            (None, None) => "latest",
        }
    }

    /// The same repository by this digest alone, as in a pod's `imageID`.
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { registry: self.registry.clone(), repository: self.repository.clone(), tag: None, digest: Some(digest) }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let digest = digest.parse().map_err(|_| InvalidReference::Format)?;
                (rest, Some(digest))
            }
            None => (text, None),
        };
        // A bare 64-digit hexadecimal name would be taken for an image id.
        if rest.len() == 64 && rest.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(InvalidReference::Format);
        }
        let (registry, path) = split_registry(rest);
        if !valid_registry(registry) {
            return Err(InvalidReference::Format);
        }
        let (repository, tag) = match path.rsplit_once(':') {
            Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag)),
            _ => (path, None),
        };
        if tag.is_some_and(|tag| !valid_tag(tag)) {
            return Err(InvalidReference::Format);
        }
        if !repository.split('/').all(valid_component) {
            let lower = repository.to_lowercase();
            if lower != repository && lower.split('/').all(valid_component) {
                return Err(InvalidReference::Uppercase(repository.to_owned()));
            }
            return Err(InvalidReference::Format);
        }
        let registry = match registry {
            "index.docker.io" => DEFAULT_REGISTRY,
            other => other,
        };
        let repository = if registry == DEFAULT_REGISTRY && !repository.contains('/') {
            format!("library/{repository}")
        } else {
            repository.to_owned()
        };
        if registry.len() + 1 + repository.len() > NAME_MAX {
            return Err(InvalidReference::TooLong);
        }
        let tag = match (tag, &digest) {
            (Some(tag), _) => Some(tag.to_owned()),
            (None, Some(_)) => None,
            (None, None) => Some("latest".to_owned()),
        };
        Ok(Self { registry: registry.to_owned(), repository, tag, digest })
    }
}

/// The first part is a registry when it could not be a repository's: it has a dot, a port or a capital, or is `localhost`.
fn split_registry(text: &str) -> (&str, &str) {
    match text.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':']) || first == "localhost" || first.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => (DEFAULT_REGISTRY, text),
    }
}

fn valid_registry(registry: &str) -> bool {
    let (host, port) = if let Some(rest) = registry.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else {
            return false;
        };
        if address.parse::<std::net::Ipv6Addr>().is_err() {
            return false;
        }
        (None, port)
    } else {
        match registry.find(':') {
            Some(at) => {
                let (host, port) = registry.split_at(at);
                (Some(host), port)
            }
            None => (Some(registry), ""),
        }
    };
    let host_ok = host.is_none_or(|host| {
        host.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        })
    });
    let port_ok = match port.strip_prefix(':') {
        Some(digits) => digits.bytes().all(|b| b.is_ascii_digit()) && digits.parse::<u16>().is_ok(),
        None => port.is_empty(),
    };
    host_ok && port_ok
}

fn valid_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=128).contains(&tag.len())
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

/// Lower-case words joined by one dot, one or two underscores, or any number of dashes.
fn valid_component(component: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let mut separator = String::new();
    let mut seen_word = false;
    for byte in component.bytes() {
        if word(byte) {
            let separator_ok = match separator.as_str() {
                "" | "." | "_" | "__" => true,
                dashes => dashes.bytes().all(|b| b == b'-'),
            };
            if !separator_ok || (!seen_word && !separator.is_empty()) {
                return false;
            }
            separator.clear();
            seen_word = true;
        } else if matches!(byte, b'.' | b'_' | b'-') {
            separator.push(char::from(byte));
        } else {
            return false;
        }
    }
    seen_word && separator.is_empty()
}

impl TryFrom<String> for Reference {
    type Error = InvalidReference;

    fn try_from(text: String) -> Result<Self, InvalidReference> {
        text.parse()
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> Self {
        reference.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SHA: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn short_names_get_their_full_form() {
        for (short, full) in [
            ("nginx", "docker.io/library/nginx:latest"),
            ("nginx:1.27", "docker.io/library/nginx:1.27"),
            ("grafana/grafana", "docker.io/grafana/grafana:latest"),
            ("docker.io/nginx", "docker.io/library/nginx:latest"),
            ("index.docker.io/nginx", "docker.io/library/nginx:latest"),
            ("localhost/app", "localhost/app:latest"),
            ("localhost:5000/a/b:v1", "localhost:5000/a/b:v1"),
            ("127.0.0.1:5000/app", "127.0.0.1:5000/app:latest"),
            ("[::1]:5000/app", "[::1]:5000/app:latest"),
            ("quay.io/a/b_c__d-e--f.g", "quay.io/a/b_c__d-e--f.g:latest"),
            ("Registry/app", "Registry/app:latest"),
        ] {
            let reference: Reference = short.parse().unwrap();
            assert_eq!(reference.to_string(), full);
            assert_eq!(full.parse::<Reference>().unwrap(), reference);
        }
    }

    #[test]
    fn a_digest_stands_with_and_without_a_tag() {
        let by_digest: Reference = format!("nginx@{SHA}").parse().unwrap();
        assert_eq!(by_digest.to_string(), format!("docker.io/library/nginx@{SHA}"));
        assert_eq!(by_digest.tag(), None);
        let both: Reference = format!("nginx:1@{SHA}").parse().unwrap();
        assert_eq!(both.selector(), SHA);
        assert_eq!(both.tag(), Some("1"));
    }

    #[test]
    fn what_the_grammar_forbids_is_an_invalid_reference() {
        for wrong in [
            "",
            ":",
            "/",
            "a/",
            "/a",
            "a//b",
            "nginx:",
            "nginx: x",
            "a b",
            "nginx@sha256:12",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "host:port/a",
            "host:99999/a",
            "a:b:c",
            "../etc",
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "https://docker.io/nginx",
            "nginx:.x",
            "exa_mple.com/a",
        ] {
            assert_eq!(wrong.parse::<Reference>(), Err(InvalidReference::Format), "{wrong}");
        }
        assert_eq!(
            "library/Nginx".parse::<Reference>().unwrap_err().to_string(),
            "invalid reference format: repository name (library/Nginx) must be lowercase"
        );
        assert_eq!("a".repeat(256).parse::<Reference>(), Err(InvalidReference::TooLong));
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_survives_its_full_form(text in "[a-zA-Z0-9:/@._-]{0,40}") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference);
            }
        }
    }
}
