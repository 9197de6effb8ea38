//! Manifests and indexes, and the choice among an index's manifests. Sources: OCI image specification, `manifest.md` and
//! `image-index.md`; Docker's image manifest version 2, schema 2.

use std::{collections::BTreeMap, fmt};

use serde::Deserialize;

use super::Digest;

/// As many layers as overlayfs can be given in one mount on every kernel this runs on.
pub(crate) const LAYERS_MAX: usize = 500;

/// Largest manifest, index or configuration in bytes.
pub(crate) const DOCUMENT_MAX: u64 = 4 << 20;

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// What a client accepts as a manifest.
pub(crate) const ACCEPT: &str = "application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, */*";

/// What an image runs on.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Platform {
    /// The processor, in Go's words: `amd64`, `arm64`, `arm`, …
    #[serde(default)]
    pub architecture: String,
    /// The operating system: `linux`.
    #[serde(default)]
    pub os: String,
    /// The processor's variant: `v7`, `v8`, or empty.
    #[serde(default)]
    pub variant: String,
}

impl Platform {
    /// The machine this program runs on.
    pub fn host() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", ""),
            "x86" => ("386", ""),
            "aarch64" => ("arm64", "v8"),
            "arm" => ("arm", "v7"),
            "powerpc64" => ("ppc64le", ""),
            other => (other, ""),
        };
        Self { architecture: architecture.into(), os: "linux".into(), variant: variant.into() }
    }

    /// How well an image for `other` runs here: `None` not at all, otherwise lower is better.
    fn rank(&self, other: &Self) -> Option<u32> {
        if self.os != other.os {
            return None;
        }
        if self.architecture != other.architecture {
            // A 64-bit ARM that has nothing of its own runs 32-bit ARM images, the newest variant first.
            return match (self.architecture.as_str(), other.architecture.as_str()) {
                ("arm64", "arm") => Some(100 + 10 - variant_number(&other.variant, 7).min(10)),
                _ => None,
            };
        }
        match self.architecture.as_str() {
            "arm64" => (variant_number(&other.variant, 8) <= variant_number(&self.variant, 8)).then_some(0),
            "arm" => {
                let (mine, theirs) = (variant_number(&self.variant, 7), variant_number(&other.variant, 7));
                mine.checked_sub(theirs)
            }
            "amd64" => {
                let (mine, theirs) = (variant_number(&self.variant, 1), variant_number(&other.variant, 1));
                mine.checked_sub(theirs)
            }
            _ => Some(u32::from(self.variant != other.variant)),
        }
    }
}

fn variant_number(variant: &str, default: u32) -> u32 {
    variant.strip_prefix('v').and_then(|digits| digits.parse().ok()).unwrap_or(default)
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if !self.variant.is_empty() {
            write!(f, "/{}", self.variant)?;
        }
        Ok(())
    }
}

/// What a manifest or an index points to.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(default)]
    pub(crate) platform: Option<Platform>,
    #[serde(default)]
    pub(crate) annotations: BTreeMap<String, String>,
}

/// One image's configuration and layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

/// What a manifest's bytes turn out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Document {
    Manifest(Manifest),
    Index(Vec<Descriptor>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    #[serde(default)]
    schema_version: u32,
    #[serde(default)]
    media_type: String,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
}

impl Document {
    /// Reads a manifest or an index; `content_type` is what the server or the descriptor called it.
    pub(crate) fn parse(bytes: &[u8], content_type: &str) -> Result<Self, String> {
        let wire: Wire = serde_json::from_slice(bytes).map_err(|error| format!("manifest: {error}"))?;
        if wire.schema_version != 2 {
            return Err(format!("manifest schema version {} is not supported, only 2 is", wire.schema_version));
        }
        let named = if wire.media_type.is_empty() {
            content_type.split(';').next().unwrap_or_default().trim()
        } else {
            wire.media_type.as_str()
        };
        // A document that could be read as both kinds would let one signature cover two contents (CVE-2021-41190).
        if wire.manifests.is_some() && (wire.layers.is_some() || wire.config.is_some()) {
            return Err("manifest: both an index and an image".into());
        }
        match (wire.manifests, wire.config, wire.layers) {
            (Some(manifests), None, None) if ![OCI_MANIFEST, DOCKER_MANIFEST].contains(&named) => {
                Ok(Self::Index(manifests))
            }
            (None, Some(config), Some(layers)) if ![OCI_INDEX, DOCKER_LIST].contains(&named) => {
                if layers.len() > LAYERS_MAX {
                    return Err(format!("manifest: {} layers, at most {LAYERS_MAX} can be stacked", layers.len()));
                }
                if config.size > DOCUMENT_MAX {
                    return Err(format!(
                        "manifest: configuration of {} bytes, at most {DOCUMENT_MAX} are read",
                        config.size
                    ));
                }
                Ok(Self::Manifest(Manifest { config, layers }))
            }
            _ => Err(format!("manifest: content is not what its media type {named:?} says")),
        }
    }
}

/// The entry of an index that suits the platform best; the first of equals. An index whose only image names no platform
/// is taken as it is.
pub(crate) fn choose<'a>(index: &'a [Descriptor], platform: &Platform) -> Option<&'a Descriptor> {
    let best = index
        .iter()
        .filter_map(|entry| {
            let rank = platform.rank(entry.platform.as_ref()?)?;
            Some((rank, entry))
        })
        .min_by_key(|(rank, _)| *rank)
        .map(|(_, entry)| entry);
    best.or_else(|| match index {
        [only] if only.platform.is_none() => Some(only),
        _ => None,
    })
}

/// The platforms an index has, for a person.
pub(crate) fn platforms(index: &[Descriptor]) -> String {
    let mut names: Vec<String> =
        index.iter().filter_map(|entry| entry.platform.as_ref().map(Platform::to_string)).collect();
    names.sort();
    names.dedup();
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(architecture: &str, variant: &str, at: u8) -> Descriptor {
        Descriptor {
            media_type: OCI_MANIFEST.into(),
            digest: Digest::of(&[at]),
            size: 1,
            platform: Some(Platform { architecture: architecture.into(), os: "linux".into(), variant: variant.into() }),
            annotations: BTreeMap::new(),
        }
    }

    fn platform(architecture: &str, variant: &str) -> Platform {
        entry(architecture, variant, 0).platform.unwrap()
    }

    #[test]
    fn the_nearest_platform_of_an_index_is_chosen() {
        let index = [
            entry("unknown", "", 0),
            entry("arm", "v6", 1),
            entry("arm", "v7", 2),
            entry("amd64", "", 3),
            entry("arm64", "v8", 4),
        ];
        for (wanted, found) in [
            (platform("amd64", ""), Some(3)),
            (platform("arm", "v7"), Some(2)),
            (platform("arm", "v6"), Some(1)),
            (platform("arm64", "v8"), Some(4)),
            (platform("s390x", ""), None),
            (platform("arm", "v5"), None),
        ] {
            let chosen = choose(&index, &wanted).map(|entry| entry.digest.clone());
            assert_eq!(chosen, found.map(|at: u8| Digest::of(&[at])), "{wanted}");
        }
        let without_64 = [entry("arm", "v6", 1), entry("arm", "v7", 2)];
        assert_eq!(choose(&without_64, &platform("arm64", "v8")).unwrap().digest, Digest::of(&[2]));
        assert_eq!(platforms(&without_64), "linux/arm/v6, linux/arm/v7");
    }

    #[test]
    fn a_manifest_that_is_two_things_at_once_is_refused() {
        let digest = Digest::of(b"x");
        let descriptor = format!(r#"{{"mediaType":"x","digest":"{digest}","size":1}}"#);
        let manifest = format!(r#"{{"schemaVersion":2,"config":{descriptor},"layers":[{descriptor}]}}"#);
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{descriptor}]}}"#);
        let both = format!(r#"{{"schemaVersion":2,"config":{descriptor},"layers":[],"manifests":[]}}"#);
        assert!(matches!(Document::parse(manifest.as_bytes(), OCI_MANIFEST), Ok(Document::Manifest(_))));
        assert!(matches!(Document::parse(index.as_bytes(), DOCKER_LIST), Ok(Document::Index(_))));
        assert!(Document::parse(both.as_bytes(), OCI_INDEX).is_err());
        assert!(Document::parse(index.as_bytes(), OCI_MANIFEST).is_err());
        assert!(Document::parse(manifest.as_bytes(), OCI_INDEX).is_err());
        assert!(Document::parse(br#"{"schemaVersion":1,"fsLayers":[]}"#, "").is_err());
        assert!(
            Document::parse(br#"{"schemaVersion":2,"config":{"digest":"sha256:x","size":-1},"layers":[]}"#, "")
                .is_err()
        );
    }
}
