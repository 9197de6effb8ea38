//! The image store: what is there, and the directory it is in.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::{
    Credential, Digest, Error, Identity, ImageConfig, Limits, Platform, Reference, Registries, Timeouts, UserError,
    index::{self, Index, LOCK_WAIT, Pin},
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
    /// The layers are known.
    Layers {
        /// Bytes of all of them together, compressed.
        total: u64,
    },
    /// A layer is already in the store.
    LayerExists {
        /// The digest of the uncompressed layer.
        diff_id: Digest,
        /// Bytes that need not arrive, compressed.
        total: u64,
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

/// An image store. Cheap to clone. Other processes may have the same one open: each sees at once what another added or removed,
/// and changes wait for each other's writes, not for downloads.
#[derive(Clone)]
pub struct ImageStore {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) config: StoreConfig,
    pub(super) index: Index,
    /// One pull of a reference at a time.
    pub(super) pulls: KeyedLocks<Reference>,
    /// One unpacking of a layer at a time.
    pub(super) layers: KeyedLocks<Digest>,
}

impl ImageStore {
    /// Opens or makes the store, and sweeps what processes that ended left unfinished.
    ///
    /// # Errors
    /// [`Error::Locked`] when another process is changing it and does not finish, [`Error::NotAStore`] when the directory is
    /// somebody else's, [`Error::Format`], [`Error::Io`].
    pub async fn open(config: StoreConfig) -> Result<Self, Error> {
        Self::open_within(config, LOCK_WAIT).await
    }

    /// Says whether a directory is a store or can become one, and changes nothing.
    ///
    /// # Errors
    /// [`Error::NotAStore`], [`Error::Io`].
    pub fn check(root: &Path) -> Result<(), Error> {
        index::check(root)
    }

    /// [`ImageStore::open`] with its own patience for other processes' changes.
    async fn open_within(config: StoreConfig, lock_wait: Duration) -> Result<Self, Error> {
        let root = config.root.clone();
        let index = blocking(move || Index::open(&root, lock_wait)).await??;
        let inner = Inner { config, index, pulls: KeyedLocks::default(), layers: KeyedLocks::default() };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The image with this name in any form: a reference, short or full, or an image id (whole, or at least 12 digits of it).
    /// Looks at the index file each time, and reads it when another process replaced it.
    pub fn get(&self, name: &str) -> Option<Image> {
        self.inner.index.find(name)
    }

    /// All images, by id.
    pub fn list(&self) -> Vec<Image> {
        self.inner.index.images()
    }

    /// Takes a name away from its image, and the image with its last tag, or when `name` is an id or has a digest. Layers stay
    /// until [`ImageStore::collect_garbage`].
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::InUse`] when the image would go and its id is in `in_use` or claimed by anybody;
    /// [`Error::Locked`].
    pub async fn remove(&self, name: &str, in_use: &BTreeSet<Digest>) -> Result<(), Error> {
        let store = self.clone();
        let (name, in_use) = (name.to_owned(), in_use.clone());
        blocking(move || store.inner.index.remove(&name, &in_use)).await?
    }

    /// Removes images that are neither in `in_use` nor claimed and have no name left, or all that are not in use when `unused`
    /// is set; then layers that no image has and no pull of any process is making.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::Io`].
    pub async fn collect_garbage(&self, in_use: &BTreeSet<Digest>, unused: bool) -> Result<Collected, Error> {
        let store = self.clone();
        let in_use = in_use.clone();
        blocking(move || store.inner.index.collect(&in_use, unused)).await?
    }

    /// Makes `images` the ones `owner` (a pod, an instance) needs, in place of those it claimed before; none of them ends the
    /// claim. No process removes or collects a claimed image. Claims outlive the process, as containers do: whoever makes
    /// them takes them back.
    ///
    /// Answers which of them are not in the store: removed before they were claimed, they protect nothing.
    ///
    /// # Errors
    /// [`Error::Owner`] when `owner` is no name, [`Error::Locked`], [`Error::Io`].
    pub async fn claim(&self, owner: &str, images: &BTreeSet<Digest>) -> Result<BTreeSet<Digest>, Error> {
        let store = self.clone();
        let (owner, images) = (owner.to_owned(), images.clone());
        blocking(move || store.inner.index.claim(&owner, &images)).await?
    }

    /// Adds one image to those `owner` claims. Answers whether it is in the store; if not, nothing is claimed.
    ///
    /// # Errors
    /// As of [`ImageStore::claim`].
    pub async fn claim_also(&self, owner: &str, image: &Digest) -> Result<bool, Error> {
        let store = self.clone();
        let (owner, image) = (owner.to_owned(), image.clone());
        blocking(move || store.inner.index.claim_also(&owner, &image)).await?
    }

    /// All claims, by owner.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub async fn claims(&self) -> Result<BTreeMap<String, BTreeSet<Digest>>, Error> {
        let store = self.clone();
        blocking(move || store.inner.index.claims()).await?
    }

    /// What tells this open store from those other processes have, for as long as it is open. No two ever have the same.
    pub fn session(&self) -> String {
        self.inner.index.session()
    }

    /// Does something while no other process does, or changes the store; for what is kept beside it. It is given the sessions
    /// of all open stores, this one's too. Waits for the disk and for other processes' changes.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::Io`].
    pub fn exclusively<T>(&self, work: impl FnOnce(&BTreeSet<String>) -> T) -> Result<T, Error> {
        self.inner.index.exclusively(work)
    }

    /// Where things that belong to the images and are not the store's own are kept: `rights` below the store's directory.
    pub fn rights_dir(&self) -> PathBuf {
        self.inner.config.root.join("rights")
    }

    /// Whether anybody else needs it: an image is claimed, or another process has it open.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::Io`].
    pub async fn is_wanted(&self) -> Result<bool, Error> {
        let store = self.clone();
        let others = blocking(move || store.exclusively(|living| living.iter().any(|one| *one != store.session())));
        Ok(others.await?? || !self.claims().await?.is_empty())
    }

    /// Keeps layers from every process' collections while the answer lives.
    pub(super) async fn pin(&self, layers: Vec<Digest>) -> Result<Pin, Error> {
        let store = self.clone();
        blocking(move || store.inner.index.pin(&layers)).await?
    }

    /// What the store takes on disk.
    pub fn usage(&self) -> Usage {
        let images = self.inner.index.images();
        let layers: BTreeMap<&Digest, u64> =
            images.iter().flat_map(|image| &image.layers).map(|layer| (&layer.diff_id, layer.size)).collect();
        Usage { images: images.len(), layers: layers.len(), bytes: layers.values().sum() }
    }

    /// The directory of a layer's files, for overlayfs.
    pub fn layer_path(&self, diff_id: &Digest) -> PathBuf {
        self.inner.index.layer(diff_id).join("fs")
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

    /// Whether a container would see anything at a path of the image. Reads directories.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn has(&self, image: &Image, path: &str) -> std::io::Result<bool> {
        let layers: Vec<PathBuf> = image.layers.iter().map(|layer| self.layer_path(&layer.diff_id)).collect();
        Ok(super::user::find(&layers, path)?.is_some())
    }
}

/// Runs work that waits for the disk where waiting is allowed.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Error::Interrupted)
}

/// Locks by key; a key without holders takes no room.
pub(super) struct KeyedLocks<K> {
    locks: Mutex<BTreeMap<K, Weak<tokio::sync::Mutex<()>>>>,
}

impl<K> Default for KeyedLocks<K> {
    fn default() -> Self {
        Self { locks: Mutex::new(BTreeMap::new()) }
    }
}

impl<K: Ord + Clone> KeyedLocks<K> {
    pub(super) async fn lock(&self, key: &K) -> tokio::sync::OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
            locks.retain(|_, lock| lock.strong_count() > 0);
            match locks.get(key).and_then(Weak::upgrade) {
                Some(lock) => lock,
                None => {
                    let lock = Arc::new(tokio::sync::Mutex::new(()));
                    locks.insert(key.clone(), Arc::downgrade(&lock));
                    lock
                }
            }
        };
        lock.lock_owned().await
    }
}

#[cfg(test)]
mod real;
#[cfg(test)]
mod sharing;
#[cfg(test)]
mod tests;
