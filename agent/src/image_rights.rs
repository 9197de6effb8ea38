//! Whose pods may use an image that is here already: those of anybody, if it was pulled as nobody in particular, or else those
//! that show a credential it was pulled with. Others have to be let in by its registry first (KEP-2535).
//!
//! Images that no node has pulled, imported ones among them, are anybody's. Which those are is known by a note that is made
//! before each pull: what a killed agent had begun to pull was not imported.
//!
//! It is kept with the images, so that nodes that share a store share this. Whoever changes it does so while no other process
//! does, from what the file says then; a pull's note counts for as long as its process has the store open.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error as StdError;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coracle_runtime::image::{Credential, Error, ImageStore, Reference};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// The most credentials that are kept for one repository of one image; with more the oldest knowledge is no loss, for whoever
/// is not known asks the registry.
const MOST: usize = 100;

/// Who may use an image under one name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Allowed {
    /// It was pulled without a credential of a pod's.
    everybody: bool,
    /// Traces of the credentials it was pulled with.
    with: BTreeSet<String>,
}

/// What outlives the agents.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    /// Makes traces of equal credentials differ from store to store.
    salt: String,
    /// Names of images that are here and were being pulled when an agent was killed.
    pulling: BTreeSet<String>,
    /// By the session of the store in which they are: names that are being pulled, and by how many pulls each.
    #[serde(default)]
    under_way: BTreeMap<String, BTreeMap<String, usize>>,
    /// By image and then by registry and repository.
    pulled: BTreeMap<String, BTreeMap<String, Allowed>>,
}

/// The images' users.
pub(crate) struct ImageRights {
    images: ImageStore,
    file: PathBuf,
}

/// A pull that has begun. What becomes of it is told by [`Pull::done`]; one that is dropped has failed.
pub(crate) struct Pull {
    rights: Arc<ImageRights>,
    reference: Reference,
    ended: bool,
}

impl ImageRights {
    /// Opens what is known of the store's images; at first that is what is said by `former`, where earlier versions kept it.
    /// Waits for the disk.
    ///
    /// # Errors
    /// The file can neither be read nor be written anew.
    pub(crate) fn open(images: ImageStore, former: Option<&Path>) -> Result<Arc<Self>, Error> {
        let dir = images.rights_dir();
        fs::create_dir_all(&dir).map_err(|source| failed("create", &dir, source))?;
        let rights = Self { file: dir.join("pulled.json"), images };
        rights.images.exclusively(|living| {
            let known = match (read(&rights.file)?, former) {
                (Some(known), _) => Some(known),
                (None, Some(former)) => read(former)?,
                (None, None) => None,
            };
            let mut kept =
                known.unwrap_or_else(|| Kept { salt: format!("{:032x}", rand::random::<u128>()), ..Kept::default() });
            rights.settle(&mut kept, living);
            write(&rights.file, &kept)
        })??;
        Ok(Arc::new(rights))
    }

    /// Whether a pod that has these credentials for it may use the image `id`, which is here, under this name.
    pub(crate) fn may(&self, reference: &Reference, id: &str, credentials: &[Credential]) -> bool {
        let kept = match self.kept() {
            Ok(kept) => kept,
            Err(error) => {
                tracing::warn!(error = &error as &(dyn StdError + 'static), "image is not given without its registry");
                return false;
            }
        };
        match kept.pulled.get(id) {
            None => !kept.is_pulled(&reference.to_string()),
            Some(names) => names.get(&reference.name()).is_some_and(|allowed| {
                allowed.everybody || credentials.iter().any(|one| allowed.with.contains(&trace(&kept.salt, one)))
            }),
        }
    }

    /// Notes that a pull begins. Waits for the disk.
    ///
    /// # Errors
    /// It cannot be noted; then nothing may be pulled.
    pub(crate) fn begin(self: &Arc<Self>, reference: &Reference) -> Result<Pull, Error> {
        let session = self.images.session();
        self.change(|kept| {
            *kept.under_way.entry(session).or_default().entry(reference.to_string()).or_default() += 1;
        })?;
        Ok(Pull { rights: Arc::clone(self), reference: reference.clone(), ended: false })
    }

    /// What is known. Images of which nothing is known are anybody's, so a file that cannot be read is no trifle.
    fn kept(&self) -> Result<Kept, Error> {
        read(&self.file)?.ok_or_else(|| failed("read", &self.file, io::ErrorKind::NotFound.into()))
    }

    /// Changes what is known, for all processes.
    fn change(&self, change: impl FnOnce(&mut Kept)) -> Result<(), Error> {
        self.images.exclusively(|living| {
            let before = self.kept()?;
            let mut kept = before.clone();
            self.settle(&mut kept, living);
            change(&mut kept);
            if kept == before { Ok(()) } else { write(&self.file, &kept) }
        })?
    }

    /// Takes stock of pulls whose processes were killed: what they have brought was not imported.
    fn settle(&self, kept: &mut Kept, living: &BTreeSet<String>) {
        let dead = kept.under_way.extract_if(.., |session, _| !living.contains(session));
        let left: Vec<String> = dead.flat_map(|(_, names)| names.into_keys()).collect();
        kept.pulling.extend(left);
        kept.pulling.retain(|name| self.images.get(name).is_some());
    }
}

impl Kept {
    /// Whether the image of this name came, or comes, by a pull.
    fn is_pulled(&self, name: &str) -> bool {
        self.pulling.contains(name) || self.under_way.values().any(|names| names.contains_key(name))
    }

    /// One pull less is under way in a session.
    fn end(&mut self, session: &str, reference: &Reference) {
        let name = reference.to_string();
        let Some(names) = self.under_way.get_mut(session) else { return };
        match names.remove(&name).unwrap_or(0).saturating_sub(1) {
            0 => {}
            others => drop(names.insert(name, others)),
        }
        if names.is_empty() {
            self.under_way.remove(session);
        }
    }
}

impl Pull {
    /// The image is here, pulled with this credential of the pod's or with none. Of images that are gone nothing is known any
    /// more. Waits for the disk.
    ///
    /// # Errors
    /// It cannot be noted.
    pub(crate) fn done(mut self, id: &str, credential: Option<&Credential>) -> Result<(), Error> {
        self.ended = true;
        let images = &self.rights.images;
        self.rights.change(|kept| {
            kept.end(&images.session(), &self.reference);
            kept.pulling.remove(&self.reference.to_string());
            kept.pulled.retain(|image, _| image == id || images.get(image).is_some());
            let allowed = kept.pulled.entry(id.to_owned()).or_default().entry(self.reference.name()).or_default();
            match credential {
                None => allowed.everybody = true,
                Some(credential) => {
                    if allowed.with.len() >= MOST {
                        allowed.with.pop_first();
                    }
                    allowed.with.insert(trace(&kept.salt, credential));
                }
            }
        })
    }
}

impl Drop for Pull {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let session = self.rights.images.session();
        if let Err(error) = self.rights.change(|kept| kept.end(&session, &self.reference)) {
            tracing::warn!(error = &error as &(dyn StdError + 'static), "the end of a pull is not noted");
        }
    }
}

/// What of a credential is kept: enough to know it again, and nothing to pull with.
fn trace(salt: &str, credential: &Credential) -> String {
    let mut hash = Sha256::new();
    for part in [salt, &credential.username, &credential.password] {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> Error {
    Error::Io { action, path: path.to_owned(), source }
}

/// What a file says, if it is there.
fn read(file: &Path) -> Result<Option<Kept>, Error> {
    match fs::read(file) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| failed("read", file, error.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(failed("read", file, source)),
    }
}

fn write(file: &Path, kept: &Kept) -> Result<(), Error> {
    let new = file.with_extension("new");
    let replace = || {
        let bytes = serde_json::to_vec(kept)?;
        let mut opened = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        opened.write_all(&bytes)?;
        // Images outlive a power cut, and so must what is known of them.
        opened.sync_all()?;
        fs::rename(&new, file)
    };
    replace().map_err(|source| failed("write", file, source))
}

#[cfg(test)]
mod tests;
