//! The store's directory: which images and layers there are. `index.json` is the truth; it is replaced whole, after what it
//! names is on stable storage.
//!
//! Any number of processes have the store open. Whoever changes it does so under one short lock and from what the file says
//! then; whoever reads looks whether the file was replaced since.
//!
//! ```text
//! lock                    held while something is changed; has the holder's pid
//! index.json              images: id, names, layers
//! configs/<id>.json       images' configurations
//! layers/<diff id>/fs     layers' files
//! layers/<diff id>/size   bytes of them
//! claims/<owner>.json     ids of images that containers stand on
//! tmp/<pid>-<random>/     what one process is making, with a lock it holds; swept by others once it has ended
//! rights/                 an agent's: whose pods may use which image
//! ```

mod claims;
mod directory;
mod exclusive;
mod session;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, Metadata},
    io::{self, Read, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{Collected, Digest, Error, Image, ImageConfig, LayerRecord, Reference};
use exclusive::Exclusive;
use session::Session;

pub(super) use directory::check;
pub(super) use exclusive::LOCK_WAIT;
pub(super) use session::{Pin, Temporary};

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

/// How often an index that is replaced while it is read is read again before what was read will do.
const REREADS: usize = 16;

type Images = BTreeMap<Digest, Image>;

/// The open store's directory.
pub(super) struct Index {
    root: PathBuf,
    lock_wait: Duration,
    session: Arc<Session>,
    /// What `index.json` said when it was last looked at. Held for short reads of files, never while waiting for a process.
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    images: Images,
    /// The file that said so; none when there was none. It stays open, so that no later file gets its inode number.
    file: Option<(File, Stamp)>,
    /// It could not be read, and that was told.
    told: bool,
}

/// What tells one state of `index.json` from another.
#[derive(PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

impl Index {
    /// Opens or makes the directory and sweeps what ended processes left. `lock_wait` is how long a change, and this, wait for
    /// other processes' changes.
    pub(super) fn open(root: &Path, lock_wait: Duration) -> Result<Self, Error> {
        directory::make(root)?;
        let exclusive = Exclusive::take(root, lock_wait)?;
        let (session, swept) = Session::begin(&exclusive, root)?;
        drop(exclusive);
        drop(swept);
        let index = Self { root: root.to_owned(), lock_wait, session, seen: Mutex::default() };
        index.refresh(&mut index.seen())?;
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
        self.session.temporary()
    }

    /// Keeps layers, whether they are there already or not, until the pin is dropped. Waits for other processes' changes.
    pub(super) fn pin(&self, layers: &[Digest]) -> Result<Pin, Error> {
        self.session.pin(&self.exclusive()?, layers)
    }

    /// Gives an unpacked layer that is pinned its name. `made` has `fs`, which is on stable storage.
    pub(super) fn adopt(&self, made: &Temporary, diff_id: &Digest, size: u64) -> Result<(), Error> {
        write_synced(&made.path().join("size"), size.to_string().as_bytes())?;
        sync_directory(made.path())?;
        let target = self.layer(diff_id);
        match fs::rename(made.path(), &target) {
            Ok(()) => sync_directory(&self.root.join("layers")),
            // Somebody was faster with the same content.
            Err(error) if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists) => {
                Ok(())
            }
            Err(source) => Err(io_error("name layer", &target, source)),
        }
    }

    /// Adds an image, or names to one that is there. Tags leave the image that had them. Its layers are pinned.
    pub(super) fn add(
        &self,
        config: &[u8],
        parsed: ImageConfig,
        layers: Vec<LayerRecord>,
        tags: &[Reference],
        digests: &[Reference],
    ) -> Result<Image, Error> {
        let id = Digest::of(config);
        let path = self.config(&id);
        let exclusive = self.exclusive()?;
        // Under the lock, so that no collection takes the file before the index names it.
        if fs::read(&path).ok().as_deref() != Some(config) {
            replace(&self.session, &path, config)?;
        }
        let mut images = self.fresh()?;
        images.entry(id.clone()).or_insert_with(|| Image {
            id: id.clone(),
            repo_tags: Vec::new(),
            repo_digests: Vec::new(),
            size: layers.iter().map(|layer| layer.size).sum(),
            config: Arc::new(parsed),
            layers,
        });
        let image = give_names(&mut images, &id, tags, digests).ok_or_else(|| Error::NotFound(id.to_string()))?;
        self.commit(&exclusive, images)?;
        Ok(image)
    }

    /// Gives names to an image, if it is there.
    pub(super) fn name(&self, id: &Digest, tags: &[Reference], digests: &[Reference]) -> Result<Option<Image>, Error> {
        let exclusive = self.exclusive()?;
        let mut images = self.fresh()?;
        let image = give_names(&mut images, id, tags, digests);
        self.commit(&exclusive, images)?;
        Ok(image)
    }

    pub(super) fn images(&self) -> Vec<Image> {
        self.current().images.values().cloned().collect()
    }

    pub(super) fn find(&self, name: &str) -> Option<Image> {
        find(&self.current().images, name).cloned()
    }

    pub(super) fn remove(&self, name: &str, in_use: &BTreeSet<Digest>) -> Result<(), Error> {
        let exclusive = self.exclusive()?;
        let mut images = self.fresh()?;
        let found = find(&images, name).ok_or_else(|| Error::NotFound(name.to_owned()))?;
        let id = found.id.clone();
        let tag = name.parse::<Reference>().ok().map(|reference| reference.to_string());
        let others: Vec<String> =
            found.repo_tags.iter().filter(|known| Some(*known) != tag.as_ref()).cloned().collect();
        let named_by_tag = others.len() < found.repo_tags.len();
        if named_by_tag && !others.is_empty() {
            if let Some(image) = images.get_mut(&id) {
                image.repo_tags = others;
            }
        } else {
            let claims = claims::all(&self.root)?;
            let owner = claims.into_iter().find(|(_, claimed)| claimed.contains(&id)).map(|(owner, _)| owner);
            if owner.is_some() || in_use.contains(&id) {
                return Err(Error::InUse { image: name.to_owned(), owner });
            }
            images.remove(&id);
        }
        self.commit(&exclusive, images)
    }

    pub(super) fn collect(&self, in_use: &BTreeSet<Digest>, unused: bool) -> Result<Collected, Error> {
        let mut collected = Collected::default();
        let doomed = self.temporary()?;
        let exclusive = self.exclusive()?;
        let claimed: BTreeSet<Digest> = claims::all(&self.root)?.into_values().flatten().collect();
        let pinned = Session::pinned(&exclusive, &self.root)?;
        let mut images = self.fresh()?;
        images.retain(|id, image| {
            let nameless = image.repo_tags.is_empty() && image.repo_digests.is_empty();
            let keep = in_use.contains(id) || claimed.contains(id) || !(unused || nameless);
            if !keep {
                collected.images.push(id.clone());
            }
            keep
        });
        let layers: BTreeSet<String> = images
            .values()
            .flat_map(|image| &image.layers)
            .map(|layer| layer.diff_id.hex().to_owned())
            .chain(pinned)
            .collect();
        let configs: BTreeSet<String> = images.keys().map(|id| format!("{}.json", id.hex())).collect();
        // The index first: what reads it while its layers go finds that it was replaced.
        self.commit(&exclusive, images)?;
        for hex in strangers(&self.root.join("layers"), &layers)? {
            let kind = if hex.len() == 128 { "sha512" } else { "sha256" };
            if let Ok(diff_id) = format!("{kind}:{hex}").parse::<Digest>() {
                collected.bytes += self.layer_size(&diff_id).unwrap_or_default();
                collected.layers.push(diff_id);
            }
            // Out of the way while the lock is held; the slow removal comes after it.
            let path = self.root.join("layers").join(&hex);
            fs::rename(&path, doomed.path().join(&hex)).map_err(|source| io_error("remove", &path, source))?;
        }
        for name in strangers(&self.root.join("configs"), &configs)? {
            let path = self.root.join("configs").join(name);
            fs::remove_file(&path).map_err(|source| io_error("remove", &path, source))?;
        }
        drop(exclusive);
        drop(doomed);
        Ok(collected)
    }

    pub(super) fn claims(&self) -> Result<BTreeMap<String, BTreeSet<Digest>>, Error> {
        claims::all(&self.root)
    }

    /// Makes these the owner's claims; answers those that are not in the store.
    pub(super) fn claim(&self, owner: &str, claimed: &BTreeSet<Digest>) -> Result<BTreeSet<Digest>, Error> {
        let exclusive = self.exclusive()?;
        claims::set(&exclusive, &self.session, &self.root, owner, claimed)?;
        let images = self.fresh()?;
        Ok(claimed.iter().filter(|id| !images.contains_key(id)).cloned().collect())
    }

    /// Adds one image to the owner's claims, if it is there; answers whether it is.
    pub(super) fn claim_also(&self, owner: &str, image: &Digest) -> Result<bool, Error> {
        let exclusive = self.exclusive()?;
        let mut claimed = claims::of(&self.root, owner)?;
        if !self.fresh()?.contains_key(image) {
            return Ok(false);
        }
        claimed.insert(image.clone());
        claims::set(&exclusive, &self.session, &self.root, owner, &claimed)?;
        Ok(true)
    }

    /// What tells this open store from those of other processes.
    pub(super) fn session(&self) -> String {
        self.session.name_of()
    }

    /// Does something that no other process does meanwhile, given the sessions of the stores that are open.
    pub(super) fn exclusively<T>(&self, work: impl FnOnce(&BTreeSet<String>) -> T) -> Result<T, Error> {
        let exclusive = self.exclusive()?;
        let living = Session::living(&exclusive, &self.root)?;
        Ok(work(&living))
    }

    fn exclusive(&self) -> Result<Exclusive, Error> {
        Exclusive::take(&self.root, self.lock_wait)
    }

    fn config(&self, id: &Digest) -> PathBuf {
        self.root.join("configs").join(format!("{}.json", id.hex()))
    }

    /// The images as they are, for who changes them.
    fn fresh(&self) -> Result<Images, Error> {
        let mut seen = self.seen();
        self.refresh(&mut seen)?;
        Ok(seen.images.clone())
    }

    /// The images as they are, or as they were when the index could last be read.
    fn current(&self) -> MutexGuard<'_, Seen> {
        let mut seen = self.seen();
        match self.refresh(&mut seen) {
            Ok(()) => seen.told = false,
            Err(error) if !seen.told => {
                seen.told = true;
                tracing::error!(error = &error as &dyn std::error::Error, "the image store's index cannot be read");
            }
            Err(_) => {}
        }
        seen
    }

    /// Reads the index again if it is another file than the one that was read.
    fn refresh(&self, seen: &mut Seen) -> Result<(), Error> {
        let path = self.root.join("index.json");
        let mut broken = Vec::new();
        for _ in 0..REREADS {
            let stamp = match fs::metadata(&path) {
                Ok(metadata) => Some(Stamp::of(&metadata)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(source) => return Err(io_error("read", &path, source)),
            };
            if stamp.as_ref() == seen.file.as_ref().map(|(_, stamp)| stamp) {
                break;
            }
            (seen.images, seen.file, broken) = self.load(&seen.images)?;
        }
        for (id, reason) in broken {
            tracing::warn!(image = %id, reason, "forgetting an image that is not whole");
        }
        Ok(())
    }

    fn load(&self, known: &Images) -> Result<Loaded, Error> {
        let path = self.root.join("index.json");
        let failed = |source| io_error("read", &path, source);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Loaded::default()),
            Err(source) => return Err(failed(source)),
        };
        let stamp = Stamp::of(&file.metadata().map_err(failed)?);
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed)?;
        let parsed: IndexFile = serde_json::from_slice(&bytes).map_err(|error| failed(error.into()))?;
        if parsed.format != FORMAT {
            return Err(Error::Format { path: self.root.clone(), found: parsed.format, known: FORMAT });
        }
        let (mut images, mut broken) = (Images::new(), Vec::new());
        for record in parsed.images {
            match self.load_image(&record, known.get(&record.id)) {
                Ok(image) => drop(images.insert(record.id, image)),
                Err(reason) => broken.push((record.id, reason)),
            }
        }
        Ok((images, Some((file, stamp)), broken))
    }

    fn load_image(&self, record: &ImageRecord, known: Option<&Image>) -> Result<Image, String> {
        let config = match known {
            Some(known) => Arc::clone(&known.config),
            None => {
                let bytes = fs::read(self.config(&record.id)).map_err(|error| error.to_string())?;
                if record.id.same_kind_of(&bytes) != record.id {
                    return Err("its configuration was changed".to_owned());
                }
                Arc::new(ImageConfig::parse(&bytes)?)
            }
        };
        if let Some(missing) = record.layers.iter().find(|layer| self.layer_size(&layer.diff_id).is_none()) {
            return Err(format!("layer {} is missing", missing.diff_id));
        }
        Ok(Image {
            id: record.id.clone(),
            repo_tags: record.tags.clone(),
            repo_digests: record.digests.clone(),
            size: record.layers.iter().map(|layer| layer.size).sum(),
            config,
            layers: record.layers.clone(),
        })
    }

    /// Makes the images the store's, on disk first. They were made from [`Index::fresh`] ones with the lock held all along.
    fn commit(&self, _exclusive: &Exclusive, images: Images) -> Result<(), Error> {
        if images == self.seen().images {
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
        let file = replace(&self.session, &path, &bytes)?;
        let stamp = Stamp::of(&file.metadata().map_err(|source| io_error("read", &path, source))?);
        let mut seen = self.seen();
        seen.images = images;
        seen.file = Some((file, stamp));
        Ok(())
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an index says, the file itself, and what of it is not there as it says.
type Loaded = (Images, Option<(File, Stamp)>, Vec<(Digest, String)>);

fn find<'a>(images: &'a Images, name: &str) -> Option<&'a Image> {
    let hex = name.strip_prefix("sha256:").unwrap_or(name);
    if hex.len() >= 12 && hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        let mut matching = images.values().filter(|image| image.id.hex().starts_with(hex));
        if let (Some(image), None) = (matching.next(), matching.next()) {
            return Some(image);
        }
    }
    let reference: Reference = name.parse().ok()?;
    let full = match reference.digest() {
        Some(digest) => reference.with_digest(digest.clone()).to_string(),
        None => reference.to_string(),
    };
    images.values().find(|image| image.repo_tags.contains(&full) || image.repo_digests.contains(&full))
}

/// Gives names to an image, if it is there; tags leave the image that had them.
fn give_names(images: &mut Images, id: &Digest, tags: &[Reference], digests: &[Reference]) -> Option<Image> {
    if !images.contains_key(id) {
        return None;
    }
    let tags: Vec<String> = tags.iter().map(Reference::to_string).collect();
    for image in images.values_mut() {
        image.repo_tags.retain(|tag| !tags.contains(tag));
    }
    let image = images.get_mut(id)?;
    image.repo_tags.extend(tags);
    for digest in digests.iter().map(Reference::to_string) {
        if !image.repo_digests.contains(&digest) {
            image.repo_digests.push(digest);
        }
    }
    Some(image.clone())
}

/// The names of a directory's entries that are not known.
fn strangers(directory: &Path, known: &BTreeSet<String>) -> Result<Vec<String>, Error> {
    let failed = |source| io_error("list", directory, source);
    let mut strangers = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        match entry.map_err(failed)?.file_name().into_string() {
            Ok(name) if !known.contains(&name) => strangers.push(name),
            _ => {}
        }
    }
    Ok(strangers)
}

/// Replaces a file whole, on stable storage; answers the new one.
fn replace(session: &Session, path: &Path, bytes: &[u8]) -> Result<File, Error> {
    let made = session.name("file-");
    let file = write_synced(&made, bytes)?;
    fs::rename(&made, path).map_err(|source| io_error("write", path, source))?;
    if let Some(directory) = path.parent() {
        sync_directory(directory)?;
    }
    Ok(file)
}

fn write_synced(path: &Path, bytes: &[u8]) -> Result<File, Error> {
    File::create(path)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_data()?;
            Ok(file)
        })
        .map_err(|source| io_error("write", path, source))
}

fn sync_directory(path: &Path) -> Result<(), Error> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(|source| io_error("sync", path, source))
}

pub(super) fn io_error(action: &'static str, path: &Path, source: io::Error) -> Error {
    Error::Io { action, path: path.to_owned(), source }
}
