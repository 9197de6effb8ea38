//! The store's directory: which images and layers there are. `index.json` is the truth; it is replaced whole, after what it
//! names is on stable storage.
//!
//! ```text
//! lock                    held by the one process that has the store open
//! index.json              images: id, names, layers
//! configs/<id>.json       images' configurations
//! layers/<diff id>/fs     layers' files
//! layers/<diff id>/size   bytes of them
//! tmp/                    what is being made; emptied at every opening
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::{Collected, Digest, Error, Image, ImageConfig, LayerRecord, Reference};

/// The directory's format; another number is another program's.
const FORMAT: u64 = 1;

#[derive(Serialize, Deserialize)]
struct IndexFile {
    format: u64,
    #[serde(default)]
    images: Vec<ImageRecord>,
}

#[derive(Serialize, Deserialize)]
struct ImageRecord {
    id: Digest,
    tags: Vec<String>,
    digests: Vec<String>,
    layers: Vec<LayerRecord>,
}

/// The open store's directory.
pub(super) struct Index {
    root: PathBuf,
    state: Mutex<State>,
    next_temporary: AtomicU64,
    _lock: Flock<File>,
}

#[derive(Default)]
struct State {
    images: BTreeMap<Digest, Image>,
    /// Layers that pulls are making or count on, with how many of them.
    pinned: BTreeMap<Digest, usize>,
}

/// Keeps layers from being collected.
pub(super) struct Pin<'a> {
    index: &'a Index,
    layers: Vec<Digest>,
}

/// A directory of its own below `tmp/`, removed with everything in it when dropped.
pub(super) struct Temporary(PathBuf);

impl Index {
    pub(super) fn open(root: &Path) -> Result<Self, Error> {
        for directory in ["configs", "layers"] {
            let path = root.join(directory);
            fs::create_dir_all(&path).map_err(|source| io_error("create", &path, source))?;
        }
        let path = root.join("lock");
        let file = File::create(&path).map_err(|source| io_error("create", &path, source))?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
            nix::errno::Errno::EWOULDBLOCK => Error::Locked(root.to_owned()),
            errno => io_error("lock", &path, errno.into()),
        })?;
        let temporary = root.join("tmp");
        match fs::remove_dir_all(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_error("sweep", &temporary, error)),
            _ => {}
        }
        fs::create_dir(&temporary).map_err(|source| io_error("create", &temporary, source))?;
        let index =
            Self { root: root.to_owned(), state: Mutex::default(), next_temporary: AtomicU64::new(0), _lock: lock };
        index.state().images = index.load()?;
        Ok(index)
    }

    pub(super) fn layer(&self, diff_id: &Digest) -> PathBuf {
        self.root.join("layers").join(diff_id.hex())
    }

    /// A layer's size, if the layer is there.
    pub(super) fn layer_size(&self, diff_id: &Digest) -> Option<u64> {
        fs::read_to_string(self.layer(diff_id).join("size")).ok()?.trim().parse().ok()
    }

    pub(super) fn temporary(&self) -> Result<Temporary, Error> {
        let number = self.next_temporary.fetch_add(1, Ordering::Relaxed);
        let path = self.root.join("tmp").join(number.to_string());
        fs::create_dir(&path).map_err(|source| io_error("create", &path, source))?;
        Ok(Temporary(path))
    }

    pub(super) fn pin(&self, layers: Vec<Digest>) -> Pin<'_> {
        let mut state = self.state();
        for layer in &layers {
            *state.pinned.entry(layer.clone()).or_default() += 1;
        }
        Pin { index: self, layers }
    }

    /// Gives an unpacked layer its name. `made` has `fs`, which is on stable storage.
    pub(super) fn adopt(&self, made: &Temporary, diff_id: &Digest, size: u64) -> Result<(), Error> {
        write_synced(&made.0.join("size"), size.to_string().as_bytes())?;
        sync_directory(&made.0)?;
        let target = self.layer(diff_id);
        match fs::rename(&made.0, &target) {
            Ok(()) => sync_directory(&self.root.join("layers")),
            // Somebody was faster with the same content.
            Err(error) if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists) => {
                Ok(())
            }
            Err(source) => Err(io_error("name layer", &target, source)),
        }
    }

    /// Adds an image, or names to one that is there. Tags leave the image that had them.
    pub(super) fn add(
        &self,
        config: &[u8],
        parsed: ImageConfig,
        layers: Vec<LayerRecord>,
        tags: &[Reference],
        digests: &[Reference],
    ) -> Result<Image, Error> {
        let id = Digest::of(config);
        // Under the lock, so that no collection takes the file before the index names it.
        let mut state = self.state();
        write_synced(&self.root.join("configs").join(format!("{}.json", id.hex())), config)?;
        sync_directory(&self.root.join("configs"))?;
        let mut images = state.images.clone();
        let tags: Vec<String> = tags.iter().map(Reference::to_string).collect();
        for image in images.values_mut() {
            image.repo_tags.retain(|tag| !tags.contains(tag));
        }
        let image = images.entry(id.clone()).or_insert_with(|| Image {
            id,
            repo_tags: Vec::new(),
            repo_digests: Vec::new(),
            size: layers.iter().map(|layer| layer.size).sum(),
            config: Arc::new(parsed),
            layers,
        });
        image.repo_tags.extend(tags);
        for digest in digests.iter().map(Reference::to_string) {
            if !image.repo_digests.contains(&digest) {
                image.repo_digests.push(digest);
            }
        }
        let image = image.clone();
        self.commit(&mut state, images)?;
        Ok(image)
    }

    /// Gives names to an image that is there.
    pub(super) fn name(&self, image: &Image, tags: &[Reference], digests: &[Reference]) -> Result<Image, Error> {
        let path = self.root.join("configs").join(format!("{}.json", image.id.hex()));
        let config = fs::read(&path).map_err(|source| io_error("read", &path, source))?;
        self.add(&config, (*image.config).clone(), image.layers.clone(), tags, digests)
    }

    pub(super) fn images(&self) -> Vec<Image> {
        self.state().images.values().cloned().collect()
    }

    pub(super) fn find(&self, name: &str) -> Option<Image> {
        let state = self.state();
        let hex = name.strip_prefix("sha256:").unwrap_or(name);
        if hex.len() >= 12 && hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            let mut matching = state.images.values().filter(|image| image.id.hex().starts_with(hex));
            if let (Some(image), None) = (matching.next(), matching.next()) {
                return Some(image.clone());
            }
        }
        let reference: Reference = name.parse().ok()?;
        let full = match reference.digest() {
            Some(digest) => reference.with_digest(digest.clone()).to_string(),
            None => reference.to_string(),
        };
        state
            .images
            .values()
            .find(|image| image.repo_tags.contains(&full) || image.repo_digests.contains(&full))
            .cloned()
    }

    pub(super) fn remove(&self, name: &str, in_use: &BTreeSet<Digest>) -> Result<(), Error> {
        let found = self.find(name).ok_or_else(|| Error::NotFound(name.to_owned()))?;
        let mut state = self.state();
        let mut images = state.images.clone();
        let tag = name.parse::<Reference>().ok().map(|reference| reference.to_string());
        let others: Vec<String> =
            found.repo_tags.iter().filter(|known| Some(*known) != tag.as_ref()).cloned().collect();
        let named_by_tag = others.len() < found.repo_tags.len();
        if named_by_tag && !others.is_empty() {
            if let Some(image) = images.get_mut(&found.id) {
                image.repo_tags = others;
            }
        } else {
            if in_use.contains(&found.id) {
                return Err(Error::InUse(name.to_owned()));
            }
            images.remove(&found.id);
        }
        self.commit(&mut state, images)
    }

    pub(super) fn collect(&self, in_use: &BTreeSet<Digest>, unused: bool) -> Result<Collected, Error> {
        let mut collected = Collected::default();
        let doomed = self.temporary()?;
        {
            let mut state = self.state();
            let mut images = state.images.clone();
            images.retain(|id, image| {
                let nameless = image.repo_tags.is_empty() && image.repo_digests.is_empty();
                let keep = in_use.contains(id) || !(unused || nameless);
                if !keep {
                    collected.images.push(id.clone());
                }
                keep
            });
            if !collected.images.is_empty() {
                self.commit(&mut state, images)?;
            }
            let kept: BTreeSet<&str> = state
                .images
                .values()
                .flat_map(|image| &image.layers)
                .map(|layer| layer.diff_id.hex())
                .chain(state.pinned.keys().map(Digest::hex))
                .collect();
            let layers = self.root.join("layers");
            for entry in fs::read_dir(&layers).map_err(|source| io_error("list", &layers, source))? {
                let name = entry.map_err(|source| io_error("list", &layers, source))?.file_name();
                let Some(hex) = name.to_str().filter(|hex| !kept.contains(hex)) else {
                    continue;
                };
                let kind = if hex.len() == 128 { "sha512" } else { "sha256" };
                if let Ok(diff_id) = format!("{kind}:{hex}").parse::<Digest>() {
                    collected.bytes += self.layer_size(&diff_id).unwrap_or_default();
                    collected.layers.push(diff_id);
                }
                // Out of the way while the lock is held; the slow removal comes after it.
                let path = layers.join(hex);
                fs::rename(&path, doomed.0.join(hex)).map_err(|source| io_error("remove", &path, source))?;
            }
            let configs = self.root.join("configs");
            let images: BTreeSet<&str> = state.images.keys().map(Digest::hex).collect();
            for entry in fs::read_dir(&configs).map_err(|source| io_error("list", &configs, source))? {
                let path = entry.map_err(|source| io_error("list", &configs, source))?.path();
                let id = path.file_stem().and_then(|stem| stem.to_str());
                if !id.is_some_and(|id| images.contains(id)) {
                    fs::remove_file(&path).map_err(|source| io_error("remove", &path, source))?;
                }
            }
        }
        drop(doomed);
        Ok(collected)
    }

    fn load(&self) -> Result<BTreeMap<Digest, Image>, Error> {
        let path = self.root.join("index.json");
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            Err(source) => return Err(io_error("read", &path, source)),
        };
        let file: IndexFile = serde_json::from_slice(&bytes).map_err(|error| io_error("read", &path, error.into()))?;
        if file.format != FORMAT {
            return Err(Error::Format { path: self.root.clone(), found: file.format, known: FORMAT });
        }
        let mut images = BTreeMap::new();
        for record in file.images {
            match self.load_image(&record) {
                Ok(image) => {
                    images.insert(record.id, image);
                }
                Err(reason) => tracing::warn!(image = %record.id, reason, "forgetting an image that is not whole"),
            }
        }
        Ok(images)
    }

    fn load_image(&self, record: &ImageRecord) -> Result<Image, String> {
        let path = self.root.join("configs").join(format!("{}.json", record.id.hex()));
        let bytes = fs::read(&path).map_err(|error| error.to_string())?;
        if record.id.same_kind_of(&bytes) != record.id {
            return Err("its configuration was changed".to_owned());
        }
        if let Some(missing) = record.layers.iter().find(|layer| self.layer_size(&layer.diff_id).is_none()) {
            return Err(format!("layer {} is missing", missing.diff_id));
        }
        Ok(Image {
            id: record.id.clone(),
            repo_tags: record.tags.clone(),
            repo_digests: record.digests.clone(),
            size: record.layers.iter().map(|layer| layer.size).sum(),
            config: Arc::new(ImageConfig::parse(&bytes)?),
            layers: record.layers.clone(),
        })
    }

    /// Makes the images the store's, on disk first.
    fn commit(&self, state: &mut State, images: BTreeMap<Digest, Image>) -> Result<(), Error> {
        if images == state.images {
            return Ok(());
        }
        let file = IndexFile {
            format: FORMAT,
            images: images
                .values()
                .map(|image| ImageRecord {
                    id: image.id.clone(),
                    tags: image.repo_tags.clone(),
                    digests: image.repo_digests.clone(),
                    layers: image.layers.clone(),
                })
                .collect(),
        };
        let path = self.root.join("index.json");
        let bytes = serde_json::to_vec(&file).map_err(|error| io_error("encode", &path, error.into()))?;
        let temporary = self.root.join("tmp").join("index.json");
        write_synced(&temporary, &bytes)?;
        fs::rename(&temporary, &path).map_err(|source| io_error("write", &path, source))?;
        sync_directory(&self.root)?;
        state.images = images;
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        let mut state = self.index.state();
        for layer in &self.layers {
            if let Some(count) = state.pinned.get_mut(layer) {
                *count -= 1;
                if *count == 0 {
                    state.pinned.remove(layer);
                }
            }
        }
    }
}

impl Temporary {
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %self.0.display(), error = &error as &dyn std::error::Error, "temporary files stay until the store is opened again");
            }
            _ => {}
        }
    }
}

fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    File::create(path)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_data()
        })
        .map_err(|source| io_error("write", path, source))
}

fn sync_directory(path: &Path) -> Result<(), Error> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(|source| io_error("sync", path, source))
}

pub(super) fn io_error(action: &'static str, path: &Path, source: io::Error) -> Error {
    Error::Io { action, path: path.to_owned(), source }
}
