//! Which kinds are sealed and with which keys, as Kubernetes has it: a file of kind `EncryptionConfiguration`.
//!
//! Of the providers there are two: `aesgcm` (keys of 16 or 32 bytes) and `identity` (nothing is sealed). Within a list of
//! providers the first one seals; all of them open. The first entry that names a kind is the one that counts.

use std::{fmt, path::Path as FilePath};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use coracle_proto::field::{self, Path};
use serde::{Deserialize, Serialize};

/// What a configuration's file holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct EncryptionConfiguration {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    /// The entries, the first that names a kind before the others.
    #[serde(default)]
    pub(crate) resources: Vec<Rule>,
}

/// How some kinds are sealed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Rule {
    /// The kinds: `secrets`, `deployments.apps`, `*.apps`, `*.` (all of the core group), `*.*`.
    #[serde(default)]
    pub(crate) resources: Vec<String>,
    /// What seals (the first) and opens (all).
    #[serde(default)]
    pub(crate) providers: Vec<Provider>,
}

/// One of the fields, and no more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Provider {
    /// AES in Galois/counter mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) aesgcm: Option<Keys>,
    /// Values are kept as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) identity: Option<Identity>,
    #[serde(default, skip_serializing)]
    aescbc: Option<serde_yaml::Value>,
    #[serde(default, skip_serializing)]
    secretbox: Option<serde_yaml::Value>,
    #[serde(default, skip_serializing)]
    kms: Option<serde_yaml::Value>,
}

/// `{}`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Identity {}

/// The keys of a provider: the first seals, all open.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Keys {
    #[serde(default)]
    pub(crate) keys: Vec<Key>,
}

/// A key.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Key {
    /// Stands before everything sealed with it.
    #[serde(default)]
    pub(crate) name: String,
    /// Its bytes in base64.
    #[serde(default)]
    secret: String,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Key {
    /// A key of these bytes.
    pub(crate) fn new(name: String, secret: &[u8]) -> Self {
        Self { name, secret: STANDARD.encode(secret) }
    }

    /// Its bytes; none if they are not base64.
    pub(crate) fn bytes(&self) -> Option<Vec<u8>> {
        STANDARD.decode(&self.secret).ok()
    }
}

impl EncryptionConfiguration {
    /// What a cluster has that nobody configured: Secrets are sealed with this key.
    pub(crate) fn of_secrets(key: Key) -> Self {
        let sealed = Provider { aesgcm: Some(Keys { keys: vec![key] }), ..Provider::default() };
        let plain = Provider { identity: Some(Identity {}), ..Provider::default() };
        Self {
            api_version: "apiserver.config.k8s.io/v1".to_owned(),
            kind: "EncryptionConfiguration".to_owned(),
            resources: vec![Rule { resources: vec!["secrets".to_owned()], providers: vec![sealed, plain] }],
        }
    }

    /// Reads a file's text.
    ///
    /// # Errors
    /// All that is wrong with it, in one sentence.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let config: Self = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
        if config.api_version != "apiserver.config.k8s.io/v1" || config.kind != "EncryptionConfiguration" {
            return Err(format!(
                "it holds {:?} of {:?} rather than \"EncryptionConfiguration\" of \"apiserver.config.k8s.io/v1\"",
                config.kind, config.api_version
            ));
        }
        let wrong = config.validate();
        if wrong.is_empty() {
            return Ok(config);
        }
        Err(wrong.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
    }

    /// The text [`EncryptionConfiguration::read`] reads.
    ///
    /// # Errors
    /// None are known.
    pub(crate) fn write(&self) -> Result<String, serde_yaml::Error> {
        let text = serde_yaml::to_string(self)?;
        Ok(format!(
            "# The keys that stored values are sealed with. Whoever has them and the data reads the Secrets; without\n\
                    # them nobody does. Every snapshot has a copy.\n{text}"
        ))
    }

    fn validate(&self) -> Vec<field::Error> {
        let root = Path::new("resources");
        if self.resources.is_empty() {
            return vec![field::Error::required(&root, "at least one resources is required")];
        }
        let mut wrong = Vec::new();
        for (at, rule) in self.resources.iter().enumerate() {
            let (names, providers) = (root.index(at).child("resources"), root.index(at).child("providers"));
            if rule.resources.is_empty() {
                wrong.push(field::Error::required(&names, &format!("at least one {names} is required")));
            }
            validate_names(&rule.resources, &names, &mut wrong);
            if rule.providers.is_empty() {
                wrong.push(field::Error::required(&providers, &format!("at least one {providers} is required")));
            }
            for (at, provider) in rule.providers.iter().enumerate() {
                provider.validate(&providers.index(at), &mut wrong);
            }
        }
        wrong
    }

    /// The keys, in the order they are tried.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &Key> {
        let providers = self.resources.iter().flat_map(|rule| &rule.providers);
        providers.filter_map(|provider| provider.aesgcm.as_ref()).flat_map(|keys| &keys.keys)
    }

    /// Adds a key to every provider that seals, in this place: it seals with the first, and opens with all. Of those before
    /// it stay the first, with which others may seal at this moment, and what is in use.
    pub(crate) fn add(&mut self, key: &Key, place: usize, is_used: impl Fn(&str) -> bool) {
        for provider in self.resources.iter_mut().flat_map(|rule| &mut rule.providers) {
            if let Some(keys) = &mut provider.aesgcm {
                let first = keys.keys.first().map(|first| first.name.clone());
                keys.keys.retain(|key| is_used(&key.name) || Some(&key.name) == first.as_ref());
                keys.keys.insert(place.min(keys.keys.len()), key.clone());
            }
        }
    }

    /// Reads the file.
    ///
    /// # Errors
    /// It cannot be read or used; none if it is not there.
    pub(crate) fn load(file: &FilePath) -> Result<Option<Self>, String> {
        match std::fs::read_to_string(file) {
            Ok(text) => Self::read(&text).map(Some).map_err(|why| format!("{}: {why}", file.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("{}: {error}", file.display())),
        }
    }
}

fn validate_names(names: &[String], path: &Path, wrong: &mut Vec<field::Error>) {
    let all = || serde_json::Value::from(names);
    let parts: Vec<(&str, &str)> = names.iter().map(|name| group_resource(name)).collect();
    let pairs = || parts.iter().enumerate().flat_map(|(i, a)| parts.iter().skip(i + 1).map(move |b| (a, b)));
    if pairs().any(|(a, b)| a == b) {
        wrong.push(field::Error::invalid(path, all(), "the same resource cannot be specified multiple times"));
    }
    let is_everything = |of: &(&str, &str)| *of == ("*", "*");
    let masks = |a: &(&str, &str), b: &(&str, &str)| {
        is_everything(a) || is_everything(b) || (a.1 == b.1 && (a.0 == "*" || b.0 == "*"))
    };
    if pairs().any(|(a, b)| a != b && masks(a, b)) {
        let detail = "using overlapping resources such as 'secrets' and '*.' in the same resource list is not allowed \
                      as they will be masked";
        wrong.push(field::Error::invalid(path, all(), detail));
    }
    for (at, name) in names.iter().enumerate() {
        let (resource, group) = group_resource(name);
        let detail = if name.chars().any(char::is_uppercase) {
            "resource name should not contain capital letters"
        } else if name == "*" {
            "use '*.' to encrypt all the resources from core API group or *.* to encrypt all resources"
        } else if ["apiserveripinfo", "serviceipallocations", "servicenodeportallocations"].contains(&name.as_str()) {
            "resources which do not have REST API/s cannot be encrypted"
        } else if group == "events.k8s.io" {
            "'*.events.k8s.io' objects are stored using the 'events' API group in etcd. Use 'events' instead in the \
             config file"
        } else if group == "extensions" {
            "'extensions' group has been removed and cannot be used for encryption"
        } else if group == "*" && resource != "*" {
            "encrypting the same resource across groups is not supported"
        } else {
            continue;
        };
        wrong.push(field::Error::invalid(&path.index(at), name.as_str(), detail));
    }
}

/// The resource and the group that a name means: `deployments.apps` are those of `apps`.
pub(crate) fn group_resource(name: &str) -> (&str, &str) {
    name.split_once('.').unwrap_or((name, ""))
}

impl Provider {
    fn validate(&self, path: &Path, wrong: &mut Vec<field::Error>) {
        let others = [("aescbc", &self.aescbc), ("secretbox", &self.secretbox), ("kms", &self.kms)];
        let unknown = others.iter().find(|(_, value)| value.is_some()).map(|(name, _)| *name);
        let found = usize::from(self.aesgcm.is_some())
            + usize::from(self.identity.is_some())
            + others.iter().filter(|(_, value)| value.is_some()).count();
        match (found, unknown) {
            (0, _) => wrong.push(field::Error::required(path, "one of aesgcm and identity")),
            (1, Some(name)) => wrong.push(field::Error::invalid_untold(
                &path.child(name),
                "this provider is not served; there are aesgcm and identity",
            )),
            (1, None) => {}
            _ => wrong.push(field::Error::invalid_untold(
                path,
                "more than one provider specified in a single element, should split into different list elements",
            )),
        }
        let Some(keys) = &self.aesgcm else { return };
        let path = path.child("aesgcm").child("keys");
        if keys.keys.is_empty() {
            wrong.push(field::Error::required(&path, "at least one keys is required"));
        }
        for (at, key) in keys.keys.iter().enumerate() {
            let path = path.index(at);
            let (name, secret) = (path.child("name"), path.child("secret"));
            if key.name.is_empty() {
                wrong.push(field::Error::required(&name, "name is a mandatory field for a key"));
            } else if key.name.contains(':') || key.name.len() > 128 {
                let detail = "must be no longer than 128 bytes and hold no ':'";
                wrong.push(field::Error::invalid(&name, key.name.as_str(), detail));
            } else if keys.keys.iter().take(at).any(|other| other.name == key.name) {
                wrong.push(field::Error::duplicate(&name, key.name.as_str()));
            }
            match key.bytes() {
                _ if key.secret.is_empty() => {
                    wrong.push(field::Error::required(&secret, "secret is a mandatory field for a key"));
                }
                None => wrong.push(field::Error::invalid_untold(&secret, "secrets must be base64 encoded")),
                Some(bytes) if ![16, 32].contains(&bytes.len()) => {
                    let detail =
                        format!("secret is not of the expected length, got {}, expected one of [16 32]", bytes.len());
                    wrong.push(field::Error::invalid_untold(&secret, &detail));
                }
                Some(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\n";

    #[test]
    fn what_is_written_can_be_read() {
        let mut config = EncryptionConfiguration::of_secrets(Key::new("one".to_owned(), &[1; 32]));
        assert_eq!(EncryptionConfiguration::read(&config.write().unwrap()).unwrap(), config);
        config.add(&Key::new("two".to_owned(), &[2; 32]), 0, |_| true);
        config.add(&Key::new("three".to_owned(), &[3; 32]), 0, |name| name == "two");
        let names: Vec<&str> = config.keys().map(|key| key.name.as_str()).collect();
        assert_eq!(names, ["three", "two"]);
        assert_eq!(EncryptionConfiguration::read(&config.write().unwrap()).unwrap(), config);
        assert!(!format!("{config:?}").contains("AwMD"), "keys are not shown");
    }

    #[test]
    fn what_is_wrong_is_said_by_its_path() {
        let good = "AAAAAAAAAAAAAAAAAAAAAA==";
        for (rest, words) in [
            ("resources: []", "resources: Required value: at least one resources is required"),
            ("resurces: []", "unknown field `resurces`"),
            ("resources: [{resources: [], providers: [{identity: {}}]}]", "resources[0].resources: Required value"),
            ("resources: [{resources: [secrets], providers: []}]", "resources[0].providers: Required value"),
            ("resources: [{resources: [secrets], providers: [{}]}]", "one of aesgcm and identity"),
            (
                "resources: [{resources: [secrets], providers: [{kms: {name: x}}]}]",
                "providers[0].kms: Invalid value: this",
            ),
            ("resources: [{resources: [secrets], providers: [{identity: {}, aesgcm: {keys: []}}]}]", "more than one"),
            ("resources: [{resources: [secrets], providers: [{aesgcm: {keys: []}}]}]", "aesgcm.keys: Required value"),
            (
                "resources: [{resources: [secrets], providers: [{aesgcm: {keys: [{name: a, secret: AAAA}]}}]}]",
                "keys[0].secret: Invalid value: secret is not of the expected length, got 3, expected one of [16 32]",
            ),
            (
                "resources: [{resources: [secrets], providers: [{aesgcm: {keys: [{name: a, secret: '%'}]}}]}]",
                "secrets must be base64 encoded",
            ),
            ("resources: [{resources: [secrets, '*.'], providers: [{identity: {}}]}]", "overlapping"),
            ("resources: [{resources: [secrets, '*.*'], providers: [{identity: {}}]}]", "overlapping"),
            ("resources: [{resources: [secrets, secrets], providers: [{identity: {}}]}]", "multiple times"),
            ("resources: [{resources: [Secrets], providers: [{identity: {}}]}]", "capital letters"),
            ("resources: [{resources: ['*'], providers: [{identity: {}}]}]", "use '*.'"),
            ("resources: [{resources: [events.events.k8s.io], providers: [{identity: {}}]}]", "Use 'events'"),
            ("resources: [{resources: ['secrets.*'], providers: [{identity: {}}]}]", "across groups"),
        ] {
            let refused = EncryptionConfiguration::read(&format!("{HEAD}{rest}\n")).unwrap_err();
            assert!(refused.contains(words), "{rest}: {refused}");
        }
        let twice = format!("{{name: a, secret: {good}}}, {{name: a, secret: {good}}}");
        let text = format!("{HEAD}resources: [{{resources: [secrets], providers: [{{aesgcm: {{keys: [{twice}]}}}}]}}]");
        assert!(EncryptionConfiguration::read(&text).unwrap_err().contains("keys[1].name: Duplicate value: \"a\""));
        assert!(EncryptionConfiguration::read("kind: Config").unwrap_err().contains("rather than"));
    }
}
