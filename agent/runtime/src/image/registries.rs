//! What `registries.yaml` says: mirrors, plain-HTTP hosts, certificates and standing credentials.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::{Credential, credentials};

/// The whole of `registries.yaml`.
///
/// ```yaml
/// mirrors:
///   docker.io:
///     endpoint: ["http://192.168.1.5:5000", "https://mirror.gcr.io"]
///     rewrite: {"library/": "hub/library/"}
/// configs:
///   registry.home:5000:
///     plain_http: true
///     auth: {username: me, password: secret}
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Registries {
    /// Where to look before the registry itself, by the registry's host and port as in image names; `*` stands for all others.
    pub mirrors: BTreeMap<String, Mirror>,
    /// How to speak to a host, by host and port; it covers registries and mirrors alike.
    pub configs: BTreeMap<String, HostConfig>,
}

/// Where images of a registry are looked for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mirror {
    /// URLs or hosts in the order they are tried; the registry itself is tried last.
    pub endpoint: Vec<String>,
    /// Beginnings of repository paths and what replaces them at the mirrors; the longest that fits is taken.
    pub rewrite: BTreeMap<String, String>,
}

/// How to speak to a host.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HostConfig {
    /// Speak HTTP without TLS.
    #[serde(alias = "insecure")]
    pub plain_http: bool,
    /// Certificates.
    pub tls: TlsConfig,
    /// Credentials, tried after a pod's own.
    pub auth: Option<Auth>,
}

/// Which certificates are trusted.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// A PEM file of authorities that are trusted besides the usual ones.
    pub ca_file: Option<PathBuf>,
    /// Trust any certificate.
    pub insecure_skip_verify: bool,
}

/// Credentials of a host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// The user.
    pub username: String,
    /// The password.
    pub password: String,
    /// Both, as base64 of `user:password`.
    pub auth: String,
}

/// One place where a repository may be found.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Endpoint {
    /// `http` or `https`.
    pub(crate) scheme: &'static str,
    /// Host and port.
    pub(crate) host: String,
    /// What stands between the host and `/v2/`, without a slash at its end.
    pub(crate) prefix: String,
    /// The repository's path there.
    pub(crate) repository: String,
    /// The registry's name when this is a mirror of it (the `ns` parameter of pull-through caches).
    pub(crate) mirror_of: Option<String>,
    pub(crate) tls: TlsConfig,
    pub(crate) credential: Option<Credential>,
}

impl Registries {
    /// The places to look for a repository, in order.
    pub(crate) fn endpoints(&self, registry: &str, repository: &str) -> Vec<Endpoint> {
        let mut endpoints = Vec::new();
        let mirror = self.mirrors.get(registry).or_else(|| self.mirrors.get("*"));
        if let Some(mirror) = mirror {
            let rewritten = mirror.rewritten(repository);
            for url in &mirror.endpoint {
                let mut endpoint = self.endpoint(url, &rewritten);
                if endpoint.host != registry {
                    endpoint.mirror_of = Some(registry.to_owned());
                }
                endpoints.push(endpoint);
            }
        }
        let host = match registry {
            "docker.io" => "registry-1.docker.io",
            other => other,
        };
        let mut own = self.endpoint(host, repository);
        // Settings may be under the name people write as well as under the host that answers to it.
        if let Some(config) = self.configs.get(registry) {
            own.apply(config);
        }
        if !endpoints.iter().any(|known: &Endpoint| {
            known.scheme == own.scheme && known.host == own.host && known.repository == own.repository
        }) {
            endpoints.push(own);
        }
        endpoints
    }

    fn endpoint(&self, url: &str, repository: &str) -> Endpoint {
        let (scheme, rest) = match url.split_once("://") {
            Some(("http", rest)) => (Some("http"), rest),
            Some((_, rest)) => (Some("https"), rest),
            None => (None, url),
        };
        let rest = rest.trim_end_matches('/');
        let (host, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let prefix = path.strip_suffix("/v2").unwrap_or(path);
        let mut endpoint = Endpoint {
            // containerd speaks plain HTTP to this machine itself unless told otherwise.
            scheme: scheme.unwrap_or(if is_local(host) { "http" } else { "https" }),
            host: host.to_owned(),
            prefix: prefix.to_owned(),
            repository: repository.to_owned(),
            mirror_of: None,
            tls: TlsConfig::default(),
            credential: None,
        };
        if let Some(config) = self.configs.get(host) {
            endpoint.apply(config);
            // What the URL says holds; certificates for this machine itself say that it is to be spoken to over TLS.
            let certified = scheme.is_none() && !config.plain_http && config.tls != TlsConfig::default();
            if scheme == Some("https") || certified {
                endpoint.scheme = "https";
            }
        }
        endpoint
    }
}

impl Endpoint {
    fn apply(&mut self, config: &HostConfig) {
        if config.plain_http {
            self.scheme = "http";
        }
        self.tls = config.tls.clone();
        self.credential = config.auth.as_ref().and_then(|auth| {
            if auth.auth.is_empty() {
                Some(Credential { username: auth.username.clone(), password: auth.password.clone() })
            } else {
                credentials::decode_auth(&auth.auth)
            }
        });
    }
}

impl Mirror {
    fn rewritten(&self, repository: &str) -> String {
        self.rewrite
            .iter()
            .filter_map(|(from, to)| Some((from.len(), to, repository.strip_prefix(from.as_str())?)))
            .max_by_key(|(length, ..)| *length)
            .map_or_else(|| repository.to_owned(), |(_, to, rest)| format!("{to}{rest}"))
    }
}

/// Whether the host is this machine: `localhost` or a loopback address.
fn is_local(host: &str) -> bool {
    let name = if let Some(rest) = host.strip_prefix('[') {
        rest.split(']').next().unwrap_or_default()
    } else {
        host.split(':').next().unwrap_or_default()
    };
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(registries: &Registries, registry: &str, repository: &str) -> Vec<String> {
        registries
            .endpoints(registry, repository)
            .into_iter()
            .map(|e| format!("{}://{}{}/v2/{}", e.scheme, e.host, e.prefix, e.repository))
            .collect()
    }

    #[test]
    fn mirrors_come_first_in_order_and_the_registry_last() {
        let registries: Registries = serde_json::from_value(serde_json::json!({
            "mirrors": {
                "docker.io": {"endpoint": ["http://cache:5000", "https://mirror.example/hub/v2/"],
                              "rewrite": {"library/": "hub/", "library/nginx": "web/nginx"}},
                "*": {"endpoint": ["localhost:5001"]},
            },
            "configs": {"quay.io": {"plain_http": true, "auth": {"auth": "dTpw"}}},
        }))
        .unwrap();
        assert_eq!(
            urls(&registries, "docker.io", "library/nginx"),
            [
                "http://cache:5000/v2/web/nginx",
                "https://mirror.example/hub/v2/web/nginx",
                "https://registry-1.docker.io/v2/library/nginx",
            ]
        );
        assert_eq!(urls(&registries, "quay.io", "a/b"), ["http://localhost:5001/v2/a/b", "http://quay.io/v2/a/b"]);
        let own = registries.endpoints("quay.io", "a/b").pop().unwrap();
        assert_eq!(own.credential.unwrap().username, "u");
    }

    #[test]
    fn this_machine_is_spoken_to_in_plain_http_and_others_are_not() {
        let none = Registries::default();
        for (registry, scheme) in [
            ("localhost:5000", "http"),
            ("127.0.0.1:5000", "http"),
            ("[::1]:5000", "http"),
            ("192.168.1.5:5000", "https"),
            ("localhost.example", "https"),
        ] {
            assert_eq!(none.endpoints(registry, "a").first().unwrap().scheme, scheme, "{registry}");
        }
    }

    #[test]
    fn a_misspelt_key_is_an_error() {
        assert!(serde_json::from_str::<Registries>(r#"{"mirors":{}}"#).is_err());
    }
}
