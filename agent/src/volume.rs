//! Volumes: what each one is to hold (planned from the pod and the objects it names) and how it gets onto the host.
//!
//! ```text
//!   pod, objects, tokens ──▶ plan (pure) ──▶ Planned ──▶ set (mounts, files) ──▶ path on the host
//! ```

pub(crate) mod host_path;
mod nfs;
pub(crate) mod set;
pub(crate) mod sub_path;
pub(crate) mod writer;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, Secret, ServiceAccountTokenProjection, Volume,
};

use crate::pod;
use crate::pod::environment::{ConfigError, Downward, Objects};

/// One file of a volume made of data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct File {
    /// Its bytes.
    pub(crate) data: Vec<u8>,
    /// Its mode.
    pub(crate) mode: u32,
    /// Its owner, if it is not root.
    pub(crate) owner: Option<u32>,
}

/// Files by their path in the volume.
pub(crate) type Payload = BTreeMap<String, File>;

/// What a volume is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Planned {
    /// A directory of the pod's own.
    Directory,
    /// A file system in memory, at most this large (the node's memory if not said).
    Memory {
        /// Bytes.
        size: Option<u64>,
    },
    /// A file system of huge pages.
    HugePages {
        /// Bytes of one page.
        page: u64,
    },
    /// A file system of another machine (nfs(5)).
    Nfs {
        /// The machine's name or address.
        server: String,
        /// What of it.
        path: String,
        /// Nothing is to be written.
        read_only: bool,
    },
    /// A path of the host.
    HostPath {
        /// The path.
        path: String,
        /// `Directory`, `FileOrCreate`, … or empty.
        kind: String,
    },
    /// Files made of API objects.
    Files {
        /// The files.
        payload: Payload,
        /// They are secret: kept in memory only.
        secret: bool,
    },
}

/// Why a volume cannot be made; the words are kubelet's.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Its source is of a kind that is not supported.
    #[error("volume source {kind} is not supported")]
    Unsupported {
        /// The field of the volume.
        kind: String,
    },
    /// What it refers to is not there.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An item names a key that is not there.
    #[error("references non-existent {kind} key: {key}")]
    Key {
        /// `config` or `secret`.
        kind: &'static str,
        /// The key.
        key: String,
    },
    /// Two sources want the same file, or a path leaves the volume.
    #[error("invalid path \"{path}\" in volume")]
    Path {
        /// The path.
        path: String,
    },
    /// A token was not fetched yet.
    #[error("failed to fetch token: {reason}")]
    Token {
        /// The API server's words.
        reason: String,
    },
    /// The size of the huge pages is not known.
    #[error("medium HugePages: {why}")]
    HugePages {
        /// Why not.
        why: String,
    },
    /// The machine with the file system is not known.
    #[error("nfs server {server:?} has no address")]
    Server {
        /// Its name.
        server: String,
        /// Why not, if it was asked for.
        #[source]
        source: std::io::Error,
    },
    /// The host's path is not what was said.
    #[error("hostPath type check failed: {path} is not {wanted}")]
    HostPath {
        /// The path.
        path: String,
        /// `a directory`, `a socket file`, …
        wanted: &'static str,
    },
    /// A step on the host's file system.
    #[error("{step} {path}")]
    Io {
        /// What was being done.
        step: &'static str,
        /// On what.
        path: String,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
}

impl Error {
    /// An error of a step on `path`.
    pub(crate) fn io(step: &'static str, path: &std::path::Path, source: impl Into<std::io::Error>) -> Self {
        Self::Io { step, path: path.display().to_string(), source: source.into() }
    }
}

/// Tokens already fetched, by volume and path of the file.
pub(crate) type Tokens = BTreeMap<(String, String), Result<String, String>>;

/// The tokens the pod's volumes want: volume, and what of the token.
pub(crate) fn wanted_tokens(pod: &Pod) -> Vec<(String, ServiceAccountTokenProjection)> {
    volumes(pod)
        .iter()
        .filter_map(|v| v.projected.as_ref().map(|p| (v, p)))
        .flat_map(|(v, p)| {
            p.sources
                .iter()
                .flatten()
                .filter_map(|s| s.service_account_token.clone())
                .map(|t| (v.name.clone(), t))
                .collect::<Vec<_>>()
        })
        .collect()
}

/// Whether files in the pod's volumes show the pod itself, and so change with it.
pub(crate) fn shows_pod(pod: &Pod) -> bool {
    volumes(pod).iter().any(|v| {
        let projected = v.projected.iter().flat_map(|p| p.sources.iter().flatten());
        v.downward_api.is_some() || projected.into_iter().any(|s| s.downward_api.is_some())
    })
}

/// The pod's volumes.
pub(crate) fn volumes(pod: &Pod) -> &[Volume] {
    pod::spec(pod).0.and_then(|s| s.volumes.as_deref()).unwrap_or_default()
}

/// What `volume` of `pod` is to be.
pub(crate) fn plan(
    pod: &Pod,
    volume: &Volume,
    objects: &Objects,
    tokens: &Tokens,
    downward: &Downward,
) -> Result<Planned, Error> {
    if let Some(empty) = &volume.empty_dir {
        return match empty.medium.as_deref().unwrap_or_default() {
            "" => Ok(Planned::Directory),
            "Memory" => Ok(Planned::Memory {
                size: empty
                    .size_limit
                    .as_ref()
                    .map(pod::resources::whole)
                    .and_then(|b| u64::try_from(b).ok())
                    .filter(|b| *b > 0),
            }),
            medium => match medium.strip_prefix("HugePages") {
                Some(size) => huge_page(pod, size.strip_prefix('-')).map(|page| Planned::HugePages { page }),
                None => Err(Error::Unsupported { kind: format!("emptyDir with medium {medium}") }),
            },
        };
    }
    if let Some(host) = &volume.host_path {
        return Ok(Planned::HostPath { path: host.path.clone(), kind: host.type_.clone().unwrap_or_default() });
    }
    if let Some(nfs) = &volume.nfs {
        let (server, path) = (nfs.server.clone(), nfs.path.clone());
        return Ok(Planned::Nfs { server, path, read_only: nfs.read_only == Some(true) });
    }
    if let Some(source) = &volume.config_map {
        let mut files = Files::new(source.default_mode);
        files.config_map(objects, &source.name, source.items.as_deref(), source.optional)?;
        return Ok(Planned::Files { payload: files.payload, secret: false });
    }
    if let Some(source) = &volume.secret {
        let mut files = Files::new(source.default_mode);
        let name = source.secret_name.as_deref().unwrap_or_default();
        files.secret(objects, name, source.items.as_deref(), source.optional)?;
        return Ok(Planned::Files { payload: files.payload, secret: true });
    }
    if let Some(source) = &volume.downward_api {
        let mut files = Files::new(source.default_mode);
        files.downward(pod, source.items.as_deref().unwrap_or_default(), downward)?;
        return Ok(Planned::Files { payload: files.payload, secret: true });
    }
    if let Some(projected) = &volume.projected {
        let mut files = Files::new(projected.default_mode);
        for source in projected.sources.iter().flatten() {
            if let Some(s) = &source.config_map {
                files.config_map(objects, &s.name, s.items.as_deref(), s.optional)?;
            } else if let Some(s) = &source.secret {
                files.secret(objects, &s.name, s.items.as_deref(), s.optional)?;
            } else if let Some(s) = &source.downward_api {
                files.downward(pod, s.items.as_deref().unwrap_or_default(), downward)?;
            } else if let Some(s) = &source.service_account_token {
                files.token(pod, &volume.name, s, tokens)?;
            } else {
                let kind = match source.pod_certificate.is_some() {
                    true => "podCertificate",
                    false => "clusterTrustBundle",
                };
                return Err(Error::Unsupported { kind: format!("projected ({kind})") });
            }
        }
        return Ok(Planned::Files { payload: files.payload, secret: true });
    }
    let kind = serde_json::to_value(volume)
        .ok()
        .and_then(|v| v.as_object().and_then(|m| m.keys().find(|k| *k != "name").cloned()))
        .unwrap_or_else(|| "none".into());
    Err(Error::Unsupported { kind })
}

/// The size of a page: the one the medium names, or the one the pod's containers ask for.
fn huge_page(pod: &Pod, named: Option<&str>) -> Result<u64, Error> {
    let asked = || {
        let all = pod::spec(pod).all().flat_map(|c| pod::resources::requests(c).into_keys().collect::<Vec<_>>());
        let sizes: std::collections::BTreeSet<String> =
            all.filter_map(|name| name.strip_prefix(pod::resources::HUGE_PAGES).map(str::to_owned)).collect();
        sizes
    };
    let size = match named {
        Some(size) => size.to_owned(),
        None => {
            let mut asked = asked().into_iter();
            match (asked.next(), asked.next()) {
                (Some(size), None) => size,
                (None, _) => return Err(Error::HugePages { why: "no container requests any".into() }),
                (Some(_), Some(_)) => {
                    return Err(Error::HugePages {
                        why: "containers request several sizes: name one in the medium".into(),
                    });
                }
            }
        }
    };
    pod::resources::page_bytes(&size)
        .ok_or_else(|| Error::HugePages { why: format!("{size:?} is not the size of a page") })
}

/// Files being gathered.
struct Files {
    payload: Payload,
    mode: u32,
}

impl Files {
    fn new(default_mode: Option<i32>) -> Self {
        Self { payload: Payload::new(), mode: mode(default_mode).unwrap_or(0o644) }
    }

    fn put(&mut self, path: &str, data: Vec<u8>, mode: Option<u32>, owner: Option<u32>) -> Result<(), Error> {
        let safe = !path.is_empty()
            && !path.starts_with('/')
            && path.split('/').all(|part| !part.is_empty() && part != ".." && part != ".")
            && !path.starts_with("..");
        if !safe {
            return Err(Error::Path { path: path.to_owned() });
        }
        self.payload.insert(path.to_owned(), File { data, mode: mode.unwrap_or(self.mode), owner });
        Ok(())
    }

    fn config_map(
        &mut self,
        objects: &Objects,
        name: &str,
        items: Option<&[KeyToPath]>,
        optional: Option<bool>,
    ) -> Result<(), Error> {
        let optional = optional == Some(true);
        let Some(map) = objects.config_maps.get(name) else {
            return if optional {
                Ok(())
            } else {
                Err(ConfigError::ConfigMapNotFound { name: name.to_owned() }.into())
            };
        };
        self.keys("config", &config_map_data(map), items, optional)
    }

    fn secret(
        &mut self,
        objects: &Objects,
        name: &str,
        items: Option<&[KeyToPath]>,
        optional: Option<bool>,
    ) -> Result<(), Error> {
        let optional = optional == Some(true);
        let Some(secret) = objects.secrets.get(name) else {
            return if optional { Ok(()) } else { Err(ConfigError::SecretNotFound { name: name.to_owned() }.into()) };
        };
        self.keys("secret", &secret_data(secret), items, optional)
    }

    fn keys(
        &mut self,
        kind: &'static str,
        data: &BTreeMap<String, Vec<u8>>,
        items: Option<&[KeyToPath]>,
        optional: bool,
    ) -> Result<(), Error> {
        let Some(items) = items.filter(|i| !i.is_empty()) else {
            for (key, value) in data {
                self.put(key, value.clone(), None, None)?;
            }
            return Ok(());
        };
        for item in items {
            match data.get(&item.key) {
                Some(value) => self.put(&item.path, value.clone(), mode(item.mode), None)?,
                None if optional => {}
                None => return Err(Error::Key { kind, key: item.key.clone() }),
            }
        }
        Ok(())
    }

    fn downward(&mut self, pod: &Pod, items: &[DownwardAPIVolumeFile], downward: &Downward) -> Result<(), Error> {
        for item in items {
            let text = if let Some(field) = &item.field_ref {
                pod::environment::field(pod, field, downward)?
            } else if let Some(resource) = &item.resource_field_ref {
                let name = resource.container_name.clone().unwrap_or_default();
                let own = pod::spec(pod).container(&name).ok_or(ConfigError::Container { name })?;
                pod::environment::resource(pod, own, resource, downward)?
            } else {
                String::new()
            };
            self.put(&item.path, text.into_bytes(), mode(item.mode), None)?;
        }
        Ok(())
    }

    fn token(
        &mut self,
        pod: &Pod,
        volume: &str,
        projection: &ServiceAccountTokenProjection,
        tokens: &Tokens,
    ) -> Result<(), Error> {
        let key = (volume.to_owned(), projection.path.clone());
        let token = match tokens.get(&key) {
            Some(Ok(token)) => token.clone(),
            Some(Err(reason)) => return Err(Error::Token { reason: reason.clone() }),
            None => return Err(Error::Token { reason: "not asked for yet".into() }),
        };
        // A token is its container's alone where that can be said: one user for all, or a group for the volume.
        let owner = sole_user(pod);
        let group = pod::spec(pod).0.and_then(|s| s.security_context.as_ref()).and_then(|c| c.fs_group);
        let mode = (owner.is_some() || group.is_some()).then_some(0o600);
        self.put(&projection.path, token.into_bytes(), mode, owner)
    }
}

fn mode(mode: Option<i32>) -> Option<u32> {
    mode.and_then(|m| u32::try_from(m).ok()).map(|m| m & 0o7777)
}

fn config_map_data(map: &ConfigMap) -> BTreeMap<String, Vec<u8>> {
    let text = map.data.iter().flatten().map(|(k, v)| (k.clone(), v.clone().into_bytes()));
    let binary = map.binary_data.iter().flatten().map(|(k, v)| (k.clone(), v.0.clone()));
    text.chain(binary).collect()
}

fn secret_data(secret: &Secret) -> BTreeMap<String, Vec<u8>> {
    secret.data.iter().flatten().map(|(k, v)| (k.clone(), v.0.clone())).collect()
}

/// The one user every container of the pod runs as, if the pod says so.
fn sole_user(pod: &Pod) -> Option<u32> {
    let of_pod = pod::spec(pod).0.and_then(|s| s.security_context.as_ref()).and_then(|c| c.run_as_user);
    let mut users = pod::spec(pod).all().map(|c| c.security_context.as_ref().and_then(|s| s.run_as_user).or(of_pod));
    let first = users.next()??;
    users.all(|u| u == Some(first)).then_some(first).and_then(|u| u32::try_from(u).ok())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::pod::testing::pod as make;

    fn objects() -> Objects {
        Objects {
            config_maps: BTreeMap::from([(
                "cm".into(),
                serde_json::from_value(json!({"data": {"a": "1", "b": "2"}, "binaryData": {"c": "AA=="}})).unwrap(),
            )]),
            secrets: BTreeMap::from([("s".into(), serde_json::from_value(json!({"data": {"k": "aGk="}})).unwrap())]),
            ..Objects::default()
        }
    }

    /// `path=data mode` of the files, or the error.
    fn files(volume: Value) -> String {
        let mut volume = volume;
        volume["name"] = "v".into();
        let pod =
            make(json!({"containers": [{"name": "app", "resources": {"limits": {"cpu": "2"}}}], "volumes": [volume]}));
        let tokens = Tokens::from([(("v".into(), "token".into()), Ok("jwt".into()))]);
        match plan(&pod, &volumes(&pod)[0], &objects(), &tokens, &Downward::default()) {
            Ok(Planned::Files { payload, secret }) => {
                let list: Vec<String> = payload
                    .iter()
                    .map(|(p, f)| format!("{p}={} {:o}", String::from_utf8_lossy(&f.data).escape_default(), f.mode))
                    .collect();
                format!("{}{}", if secret { "secret: " } else { "" }, list.join(", "))
            }
            Ok(other) => format!("{other:?}"),
            Err(error) => format!("error: {error}"),
        }
    }

    #[test]
    fn objects_become_files() {
        assert_eq!(files(json!({"configMap": {"name": "cm"}})), "a=1 644, b=2 644, c=\\u{0} 644");
        assert_eq!(
            files(
                json!({"configMap": {"name": "cm", "defaultMode": 256, "items": [{"key": "a", "path": "x/y"}, {"key": "b", "path": "z", "mode": 511}]}})
            ),
            "x/y=1 400, z=2 777"
        );
        assert_eq!(files(json!({"secret": {"secretName": "s"}})), "secret: k=hi 644");
        assert_eq!(
            files(json!({"projected": {"sources": [
                {"serviceAccountToken": {"path": "token"}},
                {"configMap": {"name": "cm", "items": [{"key": "a", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [
                    {"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}},
                    {"path": "cpu", "resourceFieldRef": {"containerName": "app", "resource": "limits.cpu"}}]}}]}})),
            "secret: ca.crt=1 644, cpu=2 644, namespace=default 644, token=jwt 644"
        );
    }

    #[test]
    fn what_is_missing_or_not_supported_is_named() {
        assert_eq!(files(json!({"configMap": {"name": "no"}})), "error: configmap \"no\" not found");
        assert_eq!(files(json!({"configMap": {"name": "no", "optional": true}})), "");
        assert_eq!(
            files(json!({"secret": {"secretName": "s", "items": [{"key": "no", "path": "p"}]}})),
            "error: references non-existent secret key: no"
        );
        assert_eq!(
            files(json!({"iscsi": {"targetPortal": "a", "iqn": "b", "lun": 0}})),
            "error: volume source iscsi is not supported"
        );
        for (source, kind) in [
            (json!({"clusterTrustBundle": {"path": "x"}}), "clusterTrustBundle"),
            (json!({"podCertificate": {"keyType": "ED25519", "signerName": "a/b"}}), "podCertificate"),
        ] {
            let got = files(json!({"projected": {"sources": [source]}}));
            assert_eq!(got, format!("error: volume source projected ({kind}) is not supported"));
        }
        assert_eq!(
            files(json!({"projected": {"sources": [{"serviceAccountToken": {"path": "other"}}]}})),
            "error: failed to fetch token: not asked for yet"
        );
    }

    #[test]
    fn huge_pages_are_of_the_size_that_is_named_or_asked_for() {
        let page = |medium: &str, asked: &[&str]| {
            let limits: serde_json::Map<String, Value> =
                asked.iter().map(|size| (format!("hugepages-{size}"), "4Mi".into())).collect();
            let pod = make(json!({"containers": [{"name": "app", "resources": {"limits": limits}}],
                "volumes": [{"name": "v", "emptyDir": {"medium": medium}}]}));
            match plan(&pod, &volumes(&pod)[0], &objects(), &Tokens::new(), &Downward::default()) {
                Ok(Planned::HugePages { page }) => page.to_string(),
                Ok(other) => format!("{other:?}"),
                Err(error) => error.to_string(),
            }
        };
        assert_eq!(page("HugePages-2Mi", &[]), "2097152");
        assert_eq!(page("HugePages", &["1Gi"]), "1073741824");
        assert_eq!(page("HugePages", &[]), "medium HugePages: no container requests any");
        assert!(page("HugePages", &["1Gi", "2Mi"]).contains("several sizes"));
        assert!(page("HugePages-3", &[]).ends_with("\"3\" is not the size of a page"));
        assert_eq!(page("Tape", &[]), "volume source emptyDir with medium Tape is not supported");
    }

    #[test]
    fn a_path_cannot_leave_its_volume() {
        for path in ["../x", "/x", "a/../../x", "..data", ""] {
            let got = files(json!({"configMap": {"name": "cm", "items": [{"key": "a", "path": path}]}}));
            assert_eq!(got, format!("error: invalid path \"{path}\" in volume"));
        }
    }
}
