//! The image store: what is there, and the directory it is in.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::{
    Credential, Digest, Error, Identity, ImageConfig, ImportSource, Limits, Platform, Reference, Registries, Timeouts,
    UserError,
};

/// What [`ImageStore::open`] needs to know.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// The directory of the store; made when absent.
    pub root: PathBuf,
    /// Mirrors, plain-HTTP hosts, certificates and standing credentials.
    pub registries: Registries,
    /// How long a registry may keep a pull waiting.
    pub timeouts: Timeouts,
    /// How large layers may be.
    pub limits: Limits,
}

/// One image of the store.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// The digest of the image's configuration, as in `kubectl`'s and `crictl`'s image id.
    pub id: Digest,
    /// Full names with tags, for example `docker.io/library/nginx:latest`.
    pub repo_tags: Vec<String>,
    /// Full names with the digest they were pulled by, for example `docker.io/library/nginx@sha256:…`.
    pub repo_digests: Vec<String>,
    /// Bytes of the layers, unpacked.
    pub size: u64,
    /// What the image says of itself.
    pub config: Arc<ImageConfig>,
    /// The layers, lowest first; each one's directory is [`ImageStore::layer_path`].
    pub layers: Vec<LayerRecord>,
}

/// One layer of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRecord {
    /// The digest of the uncompressed archive.
    pub diff_id: Digest,
    /// Bytes of its files.
    pub size: u64,
}

impl Image {
    /// What a pod's status shows as `imageID`: a repository with the digest, or the image's own id for imported ones.
    pub fn image_id(&self) -> String {
        match self.repo_digests.first() {
            Some(digest) => digest.clone(),
            None => self.id.to_string(),
        }
    }
}

/// One pull.
#[derive(Debug, Clone)]
pub struct PullRequest {
    /// What to pull.
    pub reference: Reference,
    /// The pod's credentials, in the order they are tried; those of `registries.yaml` follow, and anonymous access is last.
    pub credentials: Vec<Credential>,
    /// Whose manifest of an index to take; this machine's when `None`.
    pub platform: Option<Platform>,
    /// Where progress goes. Events that find the channel full are dropped.
    pub progress: Option<mpsc::Sender<PullEvent>>,
}

impl PullRequest {
    /// A pull for this machine without credentials and progress.
    pub fn new(reference: Reference) -> Self {
        Self { reference, credentials: Vec::new(), platform: None, progress: None }
    }
}

/// Progress of a pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PullEvent {
    /// The reference was resolved.
    Resolved {
        /// The digest of the manifest or index.
        digest: Digest,
    },
    /// A layer is already in the store.
    LayerExists {
        /// The digest of the uncompressed layer.
        diff_id: Digest,
    },
    /// A layer is arriving.
    LayerProgress {
        /// The digest of the uncompressed layer.
        diff_id: Digest,
        /// Bytes that arrived.
        received: u64,
        /// Bytes in all, compressed.
        total: u64,
    },
    /// A layer is unpacked and checked.
    LayerDone {
        /// The digest of the uncompressed layer.
        diff_id: Digest,
    },
}

/// What a garbage collection removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collected {
    /// Images' ids.
    pub images: Vec<Digest>,
    /// Layers' digests.
    pub layers: Vec<Digest>,
    /// Bytes that were freed, about.
    pub bytes: u64,
}

/// What the store takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Images.
    pub images: usize,
    /// Layers, each counted once.
    pub layers: usize,
    /// Bytes of the layers.
    pub bytes: u64,
}

/// The image store of one data directory. Cheap to clone.
#[derive(Clone)]
pub struct ImageStore {
    inner: Arc<Inner>,
}

struct Inner {
    config: StoreConfig,
}

impl ImageStore {
    /// Opens or makes the store, and sweeps what an earlier process left unfinished.
    ///
    /// # Errors
    /// [`Error::Locked`] when another process has it open, [`Error::Format`], [`Error::Io`].
    pub async fn open(config: StoreConfig) -> Result<Self, Error> {
        Err(Error::Locked(config.root))
    }

    /// Pulls an image, or makes sure it is the one its registry has. Two pulls of one reference are one.
    ///
    /// # Errors
    /// The registry's reason ([`Error::Resolve`], [`Error::Fetch`]), or what is wrong with the content or the disk. The
    /// store is as it was then.
    pub async fn pull(&self, request: PullRequest) -> Result<Image, Error> {
        Err(Error::NotFound(request.reference.to_string()))
    }

    /// Imports every image of an archive or directory that is for this machine. `name` is given to the image when there is
    /// exactly one, besides the names the archive has.
    ///
    /// # Errors
    /// [`Error::Import`] when nothing of it is an image, and what is wrong with the content or the disk.
    pub async fn import(&self, source: ImportSource, name: Option<Reference>) -> Result<Vec<Image>, Error> {
        let _ = name;
        Err(Error::Import { origin: format!("{source:?}"), reason: "not readable".into() })
    }

    /// Makes an image of one layer from an archive of a root file system, as `docker import` does.
    ///
    /// # Errors
    /// What is wrong with the archive or the disk.
    pub async fn import_rootfs(&self, tar: ImportSource, name: Reference, config: ImageConfig) -> Result<Image, Error> {
        let _ = (tar, config);
        Err(Error::NotFound(name.to_string()))
    }

    /// The image with this name in any form: a reference, short or full, or an image id.
    pub fn get(&self, name: &str) -> Option<Image> {
        let _ = name;
        None
    }

    /// All images, by id.
    pub fn list(&self) -> Vec<Image> {
        Vec::new()
    }

    /// Takes a name away from its image, and the image with its last name or when `name` is an id. Layers stay until
    /// [`ImageStore::collect_garbage`].
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::InUse`] when the image's id is in `in_use`.
    pub async fn remove(&self, name: &str, in_use: &BTreeSet<Digest>) -> Result<(), Error> {
        let _ = in_use;
        Err(Error::NotFound(name.to_owned()))
    }

    /// Removes images that are neither in `in_use` nor have a name, all images not in use when `unused` is set, and
    /// layers that no image has.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub async fn collect_garbage(&self, in_use: &BTreeSet<Digest>, unused: bool) -> Result<Collected, Error> {
        let _ = (in_use, unused);
        Ok(Collected::default())
    }

    /// What the store takes on disk.
    pub fn usage(&self) -> Usage {
        Usage::default()
    }

    /// The directory of a layer's files, for overlayfs.
    pub fn layer_path(&self, diff_id: &Digest) -> PathBuf {
        self.inner.config.root.join("layers").join(diff_id.hex()).join("fs")
    }

    /// The image's layer directories, highest first, as overlayfs's `lowerdir` wants them.
    pub fn lower_dirs(&self, image: &Image) -> Vec<PathBuf> {
        image.layers.iter().rev().map(|layer| self.layer_path(&layer.diff_id)).collect()
    }

    /// Looks up `user`, `uid`, `user:group` or `uid:gid` in the image's `/etc/passwd` and `/etc/group`. Reads files.
    ///
    /// # Errors
    /// [`UserError`].
    pub fn identity(&self, image: &Image, spec: &str) -> Result<Identity, UserError> {
        let layers: Vec<PathBuf> = image.layers.iter().map(|layer| self.layer_path(&layer.diff_id)).collect();
        super::user::identity(&layers, spec)
    }
}
