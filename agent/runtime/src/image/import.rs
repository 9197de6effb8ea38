//! Images from files: `docker save` archives, OCI archives and layout directories, and archives of a root file system. Sources: OCI image
//! specification, `image-layout.md`; Docker image specification v1.2, "Combined Image JSON + Filesystem Changeset Format".

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{
    Digest, Error, Image, ImageConfig, ImageStore, LayerRecord, Platform, Reference,
    beneath::{Beneath, clean},
    index::Temporary,
    manifest::{DOCUMENT_MAX, Descriptor, Document, Manifest, choose, platforms},
    store::blocking,
    unpack::{Expected, unpack},
};

/// Annotations that name an image, the most telling first: containerd's full name, then the OCI tag or name.
const NAME: &str = "io.containerd.image.name";
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Where an image is imported from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImportSource {
    /// A `docker save` archive or an OCI archive, plain or compressed; or a directory in OCI image layout.
    Path(PathBuf),
    /// An archive on standard input.
    Stdin,
}

impl ImportSource {
    fn origin(&self) -> String {
        match self {
            Self::Path(path) => path.display().to_string(),
            Self::Stdin => "standard input".to_owned(),
        }
    }

    fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        match self {
            Self::Path(path) => Ok(Box::new(File::open(path)?)),
            Self::Stdin => Ok(Box::new(io::stdin())),
        }
    }
}

/// One image that was found in an archive.
struct Candidate {
    names: Vec<Reference>,
    digest: Option<Digest>,
    config: Vec<u8>,
    layers: Vec<(PathBuf, Option<Descriptor>)>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

#[derive(Deserialize)]
struct Layout {
    manifests: Vec<Descriptor>,
}

impl ImageStore {
    /// Imports every image of an archive or directory that is for this machine. `name` is given to the image when there is
    /// exactly one, besides the names the archive has.
    ///
    /// # Errors
    /// [`Error::Import`] when nothing of it is an image, and what is wrong with the content or the disk. Images before the
    /// one that failed stay imported.
    pub async fn import(&self, source: ImportSource, name: Option<Reference>) -> Result<Vec<Image>, Error> {
        let store = self.clone();
        let origin = source.origin();
        let (directory, candidates, kept) = blocking(move || store.open_archive(&source)).await??;
        if name.is_some() && candidates.len() != 1 {
            let reason = format!("it has {} images, so that a name cannot be given to one", candidates.len());
            return Err(Error::Import { origin, reason });
        }
        let mut images = Vec::new();
        for candidate in candidates {
            images.push(self.import_one(&directory, candidate, name.as_ref(), &origin).await?);
        }
        blocking(move || drop(kept)).await?;
        Ok(images)
    }

    /// Makes an image of one layer from an archive of a root file system, plain or compressed, as `docker import` does. What
    /// `config` does not say about the platform is this machine's.
    ///
    /// # Errors
    /// What is wrong with the archive or the disk.
    pub async fn import_rootfs(
        &self,
        tar: ImportSource,
        name: Reference,
        mut config: ImageConfig,
    ) -> Result<Image, Error> {
        let origin = tar.origin();
        let failed = |reason: String| Error::Import { origin: origin.clone(), reason };
        let stream = tar.open().map_err(|error| failed(error.to_string()))?;
        let (layer, _pin) = self.unpack_unknown(stream, &name.to_string()).await?;
        let host = Platform::host();
        if config.architecture.is_empty() {
            config.architecture = host.architecture;
            config.variant = host.variant;
        }
        if config.os.is_empty() {
            config.os = host.os;
        }
        config.rootfs.kind = "layers".to_owned();
        config.rootfs.diff_ids = vec![layer.diff_id.clone()];
        let bytes = serde_json::to_vec(&config).map_err(|error| failed(error.to_string()))?;
        let store = self.clone();
        blocking(move || store.inner.index.add(&bytes, config, vec![layer], &[name], &[])).await?
    }

    /// The directory of the archive's files, and the images in it. Archives are unpacked first, because their table of
    /// contents may come last, and with the same care as layers.
    fn open_archive(&self, source: &ImportSource) -> Result<(PathBuf, Vec<Candidate>, Option<Temporary>), Error> {
        let origin = source.origin();
        let failed = |reason: String| Error::Import { origin: origin.clone(), reason };
        let (directory, kept) = match source {
            ImportSource::Path(path) if path.is_dir() => (path.clone(), None),
            _ => {
                let stream = source.open().map_err(|error| failed(error.to_string()))?;
                let made = self.inner.index.temporary()?;
                let directory = made.path().join("archive");
                unpack(stream, &Expected::default(), &self.inner.config.limits, &directory)
                    .map_err(|error| failed(error.to_string()))?;
                (directory, Some(made))
            }
        };
        let files = Files { beneath: Beneath::open(&directory).map_err(|error| failed(error.to_string()))? };
        let candidates = files.candidates().map_err(failed)?;
        Ok((directory, candidates, kept))
    }

    async fn import_one(
        &self,
        directory: &Path,
        candidate: Candidate,
        name: Option<&Reference>,
        origin: &str,
    ) -> Result<Image, Error> {
        let failed = |reason: String| Error::Import { origin: origin.to_owned(), reason };
        let config = ImageConfig::parse(&candidate.config).map_err(failed)?;
        let diff_ids = &config.rootfs.diff_ids;
        if diff_ids.len() != candidate.layers.len() {
            return Err(failed(format!("{} layers, {} diff ids", candidate.layers.len(), diff_ids.len())));
        }
        let _pin = self.pin(diff_ids.clone()).await?;
        let mut layers = Vec::new();
        for ((path, descriptor), diff_id) in candidate.layers.iter().zip(diff_ids) {
            let _turn = self.inner.layers.lock(diff_id).await;
            if let Some(size) = self.inner.index.layer_size(diff_id) {
                layers.push(LayerRecord { diff_id: diff_id.clone(), size });
                continue;
            }
            let file = Beneath::open(directory).and_then(|beneath| beneath.open_file(path));
            let file = file.map_err(|error| failed(format!("layer {}: {error}", path.display())))?;
            let expected = Expected {
                blob: descriptor.as_ref().map(|descriptor| (descriptor.size, descriptor.digest.clone())),
                diff_id: Some(diff_id.clone()),
            };
            layers.push(self.unpack_layer(file, expected, origin).await?);
        }
        let names: Vec<Reference> = candidate.names.into_iter().chain(name.cloned()).collect();
        let tags: Vec<Reference> = names.iter().filter(|name| name.digest().is_none()).cloned().collect();
        let mut digests: Vec<Reference> = names.iter().filter(|name| name.digest().is_some()).cloned().collect();
        if let Some(digest) = &candidate.digest {
            digests.extend(tags.iter().map(|tag| tag.with_digest(digest.clone())));
        }
        let store = self.clone();
        blocking(move || store.inner.index.add(&candidate.config, config, layers, &tags, &digests)).await?
    }
}

/// The files of an archive, none of which can lead out of it.
struct Files {
    beneath: Beneath,
}

impl Files {
    fn candidates(&self) -> Result<Vec<Candidate>, String> {
        if let Some(bytes) = self.read_optional("index.json")? {
            return self.layout(&bytes);
        }
        if let Some(bytes) = self.read_optional("manifest.json")? {
            return self.docker(&bytes);
        }
        Err("it is neither a docker archive (no manifest.json) nor an OCI layout (no index.json)".to_owned())
    }

    fn docker(&self, bytes: &[u8]) -> Result<Vec<Candidate>, String> {
        let images: Vec<DockerImage> =
            serde_json::from_slice(bytes).map_err(|error| format!("manifest.json: {error}"))?;
        images
            .into_iter()
            .map(|image| {
                let names = image.repo_tags.unwrap_or_default();
                Ok(Candidate {
                    names: names.iter().map(|name| parse_name(name)).collect::<Result<_, _>>()?,
                    digest: None,
                    config: self.read(&image.config)?,
                    layers: image
                        .layers
                        .iter()
                        .map(|path| Ok((path_of(path)?, None)))
                        .collect::<Result<_, String>>()?,
                })
            })
            .collect()
    }

    /// An OCI layout; one that Docker made has its images' names in `manifest.json` as well.
    fn layout(&self, bytes: &[u8]) -> Result<Vec<Candidate>, String> {
        let layout: Layout = serde_json::from_slice(bytes).map_err(|error| format!("index.json: {error}"))?;
        let docker: Vec<DockerImage> = match self.read_optional("manifest.json")? {
            Some(bytes) => serde_json::from_slice(&bytes).map_err(|error| format!("manifest.json: {error}"))?,
            None => Vec::new(),
        };
        let host = Platform::host();
        let mut candidates: Vec<Candidate> = Vec::new();
        let mut other_platforms = Vec::new();
        // Several entries that differ only in platform are one image.
        for entry in &layout.manifests {
            if entry.platform.is_some() && choose(&layout.manifests, &host).is_some() {
                let same_name: Vec<Descriptor> = layout
                    .manifests
                    .iter()
                    .filter(|other| other.annotations == entry.annotations && other.platform.is_some())
                    .cloned()
                    .collect();
                if choose(&same_name, &host).is_some_and(|chosen| chosen.digest != entry.digest) {
                    continue;
                }
            }
            let mut names = Vec::new();
            if let Some(name) = entry.annotations.get(NAME).or_else(|| entry.annotations.get(REF_NAME)) {
                // A bare tag, as skopeo and buildah write it, names nothing by itself.
                if name.contains(['/', ':']) {
                    names.push(parse_name(name)?);
                }
            }
            let Some(manifest) = self.manifest(entry, &host)? else {
                other_platforms.push(entry.digest.to_string());
                continue;
            };
            for image in docker.iter().filter(|image| image.config.ends_with(manifest.config.digest.hex())) {
                for name in image.repo_tags.iter().flatten() {
                    names.push(parse_name(name)?);
                }
            }
            names.sort();
            names.dedup();
            let layers = manifest.layers.into_iter().map(|layer| (blob(&layer.digest), Some(layer))).collect();
            let config = self.checked(&manifest.config)?;
            let known = candidates.iter_mut().find(|known| known.config == config);
            match known {
                Some(known) => known.names.extend(names),
                None => candidates.push(Candidate { names, digest: Some(entry.digest.clone()), config, layers }),
            }
        }
        if candidates.is_empty() {
            return Err(format!("none of its {} images is for {host}", other_platforms.len()));
        }
        Ok(candidates)
    }

    /// The image's manifest, through an index if there is one; `None` when the index has none for this machine.
    fn manifest(&self, entry: &Descriptor, host: &Platform) -> Result<Option<Manifest>, String> {
        match Document::parse(&self.checked(entry)?, &entry.media_type)? {
            Document::Manifest(manifest) => Ok(Some(manifest)),
            Document::Index(entries) => {
                let Some(chosen) = choose(&entries, host) else {
                    tracing::info!(found = platforms(&entries), "an image of the archive is for other machines");
                    return Ok(None);
                };
                match Document::parse(&self.checked(chosen)?, &chosen.media_type)? {
                    Document::Manifest(manifest) => Ok(Some(manifest)),
                    Document::Index(_) => Err("index within an index".to_owned()),
                }
            }
        }
    }

    fn checked(&self, descriptor: &Descriptor) -> Result<Vec<u8>, String> {
        let bytes = self.read_path(&blob(&descriptor.digest))?;
        let found = descriptor.digest.same_kind_of(&bytes);
        if found == descriptor.digest {
            Ok(bytes)
        } else {
            Err(format!("blob {} has digest {found}", descriptor.digest))
        }
    }

    fn read(&self, path: &str) -> Result<Vec<u8>, String> {
        self.read_path(&path_of(path)?)
    }

    fn read_optional(&self, path: &str) -> Result<Option<Vec<u8>>, String> {
        match self.beneath.open_file(Path::new(path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            _ => self.read(path).map(Some),
        }
    }

    fn read_path(&self, path: &Path) -> Result<Vec<u8>, String> {
        let wrap = |error: io::Error| format!("{}: {error}", path.display());
        let file = self.beneath.open_file(path).map_err(wrap)?;
        if file.metadata().map_err(wrap)?.len() > DOCUMENT_MAX {
            return Err(format!("{}: more than {DOCUMENT_MAX} bytes", path.display()));
        }
        let mut bytes = Vec::new();
        file.take(DOCUMENT_MAX).read_to_end(&mut bytes).map_err(wrap)?;
        Ok(bytes)
    }
}

fn path_of(path: &str) -> Result<PathBuf, String> {
    clean(path.as_bytes()).map_err(|reason| format!("{path:?}: {reason}"))
}

fn blob(digest: &Digest) -> PathBuf {
    let (algorithm, hex) = digest.as_str().split_once(':').unwrap_or_default();
    ["blobs", algorithm, hex].iter().collect()
}

fn parse_name(name: &str) -> Result<Reference, String> {
    name.parse().map_err(|error| format!("image name {name:?}: {error}"))
}
