//! Whose pods may use an image that is here already: those of anybody, if it was pulled as nobody in particular, or else those
//! that show a credential it was pulled with. Others have to be let in by its registry first (KEP-2535).
//!
//! Images that this node has not pulled, imported ones among them, are anybody's. Which those are is known by a note that is
//! made before each pull: what a killed agent had begun to pull was not imported.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error as StdError;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use coracle_runtime::image::{Credential, Reference};
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

/// What outlives the agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    /// Makes traces of equal credentials differ from node to node.
    salt: String,
    /// Names that are being pulled, or were when an agent was killed.
    pulling: BTreeSet<String>,
    /// By image and then by registry and repository.
    pulled: BTreeMap<String, BTreeMap<String, Allowed>>,
}

/// The images' users.
pub(crate) struct ImageRights {
    file: PathBuf,
    state: Mutex<State>,
}

struct State {
    kept: Kept,
    /// How many pulls of each name are under way.
    under_way: BTreeMap<String, usize>,
}

/// A pull that has begun. What becomes of it is told by [`Pull::done`]; one that is dropped has failed.
pub(crate) struct Pull {
    rights: Arc<ImageRights>,
    reference: Reference,
    ended: bool,
}

impl ImageRights {
    /// Reads what is known; `is_here` says whether there is an image of a name.
    ///
    /// # Errors
    /// The file can neither be read nor be written anew.
    pub(crate) fn open(data_dir: &Path, is_here: impl Fn(&str) -> bool) -> io::Result<Arc<Self>> {
        let file = data_dir.join("image-rights.json");
        let mut kept: Kept = match fs::read(&file) {
            // Images of which nothing is known are anybody's, so a file that is there and cannot be read is no trifle.
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
                let message = format!("{} is not readable: {error}", file.display());
                io::Error::new(io::ErrorKind::InvalidData, message)
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Kept { salt: format!("{:032x}", rand::random::<u128>()), ..Kept::default() }
            }
            Err(error) => return Err(error),
        };
        kept.pulling.retain(|name| is_here(name));
        write(&file, &kept)?;
        Ok(Arc::new(Self { file, state: Mutex::new(State { kept, under_way: BTreeMap::new() }) }))
    }

    /// Where it is noted.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// Whether a pod that has these credentials for it may use the image `id`, which is here, under this name.
    pub(crate) fn may(&self, reference: &Reference, id: &str, credentials: &[Credential]) -> bool {
        self.with(|state| match state.kept.pulled.get(id) {
            None => !state.kept.pulling.contains(&reference.to_string()),
            Some(names) => names.get(&reference.name()).is_some_and(|allowed| {
                allowed.everybody || credentials.iter().any(|one| allowed.with.contains(&trace(&state.kept.salt, one)))
            }),
        })
    }

    /// Notes that a pull begins.
    ///
    /// # Errors
    /// It cannot be noted; then nothing may be pulled.
    pub(crate) fn begin(self: &Arc<Self>, reference: &Reference) -> io::Result<Pull> {
        let name = reference.to_string();
        self.change(|state| {
            *state.under_way.entry(name.clone()).or_default() += 1;
            state.kept.pulling.insert(name);
        })?;
        Ok(Pull { rights: Arc::clone(self), reference: reference.clone(), ended: false })
    }

    fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes what is known, in memory also if the file cannot be written.
    fn change(&self, change: impl FnOnce(&mut State)) -> io::Result<()> {
        self.with(|state| {
            let before = state.kept.clone();
            change(state);
            if state.kept == before { Ok(()) } else { write(&self.file, &state.kept) }
        })
    }
}

impl Pull {
    /// The image is here, pulled with this credential of the pod's or with none. Of images that `stays` denies nothing is
    /// known any more.
    ///
    /// # Errors
    /// It cannot be noted.
    pub(crate) fn done(
        mut self,
        id: &str,
        credential: Option<&Credential>,
        stays: impl Fn(&str) -> bool,
    ) -> io::Result<()> {
        self.ended = true;
        self.rights.change(|state| {
            state.end(&self.reference);
            state.kept.pulled.retain(|image, _| image == id || stays(image));
            let allowed = state.kept.pulled.entry(id.to_owned()).or_default().entry(self.reference.name()).or_default();
            match credential {
                None => allowed.everybody = true,
                Some(credential) => {
                    if allowed.with.len() >= MOST {
                        allowed.with.pop_first();
                    }
                    allowed.with.insert(trace(&state.kept.salt, credential));
                }
            }
        })
    }
}

impl State {
    /// One pull less is under way.
    fn end(&mut self, reference: &Reference) {
        let name = reference.to_string();
        match self.under_way.remove(&name).unwrap_or(0).saturating_sub(1) {
            0 => drop(self.kept.pulling.remove(&name)),
            others => drop(self.under_way.insert(name, others)),
        }
    }
}

impl Drop for Pull {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        if let Err(error) = self.rights.change(|state| state.end(&self.reference)) {
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

fn write(file: &Path, kept: &Kept) -> io::Result<()> {
    let new = file.with_extension("new");
    let bytes = serde_json::to_vec(kept)?;
    let mut opened = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    opened.write_all(&bytes)?;
    // Images outlive a power cut, and so must what is known of them.
    opened.sync_all()?;
    fs::rename(&new, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> Credential {
        Credential { username: name.to_owned(), password: "p".to_owned() }
    }

    fn open(folder: &Path) -> Arc<ImageRights> {
        ImageRights::open(folder, |name| name.contains("here")).unwrap()
    }

    fn name(text: &str) -> Reference {
        text.parse().unwrap()
    }

    #[test]
    fn an_image_is_for_who_shows_what_it_was_pulled_with() {
        let folder = tempfile::tempdir().unwrap();
        let rights = open(folder.path());
        let (one, other) = (name("r.test/a/b:1"), name("r.test/a/c:1"));
        assert!(rights.may(&one, "id", &[]), "what was not pulled here is anybody's");
        rights.begin(&one).unwrap().done("id", Some(&user("me")), |_| true).unwrap();
        for rights in [rights, open(folder.path())] {
            assert!(rights.may(&one, "id", &[user("you"), user("me")]));
            assert!(rights.may(&name("r.test/a/b:2"), "id", &[user("me")]), "tags are no borders");
            assert!(!rights.may(&one, "id", &[]) && !rights.may(&one, "id", &[user("you")]));
            assert!(!rights.may(&other, "id", &[user("me")]), "another repository is");
        }
        let rights = open(folder.path());
        rights.begin(&one).unwrap().done("id", None, |_| true).unwrap();
        assert!(rights.may(&one, "id", &[]));
        let text = fs::read_to_string(folder.path().join("image-rights.json")).unwrap();
        assert!(!text.contains("\"me\""), "{text}");
    }

    #[test]
    fn what_an_agent_was_pulling_when_it_was_killed_is_not_anybodys() {
        let folder = tempfile::tempdir().unwrap();
        let rights = open(folder.path());
        let (here, failed) = (name("r.test/here:1"), name("r.test/failed:1"));
        drop(rights.begin(&failed).unwrap());
        assert!(rights.may(&failed, "id", &[]), "a pull that failed has brought nothing");
        let (first, second) = (rights.begin(&here).unwrap(), rights.begin(&here).unwrap());
        drop(first);
        assert!(!rights.may(&here, "id", &[]));
        std::mem::forget(second);
        std::mem::forget(rights.begin(&failed).unwrap());
        let next = open(folder.path());
        assert!(!next.may(&here, "id", &[]) && next.may(&failed, "id", &[]));
        next.begin(&here).unwrap().done("id", None, |_| true).unwrap();
        assert!(next.may(&here, "id", &[]));
    }

    #[test]
    fn images_that_are_gone_are_forgotten_and_a_broken_file_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let rights = open(folder.path());
        let one = name("r.test/a:1");
        rights.begin(&one).unwrap().done("old", Some(&user("me")), |_| true).unwrap();
        for number in 0..=MOST {
            rights.begin(&one).unwrap().done("new", Some(&user(&number.to_string())), |_| false).unwrap();
        }
        rights.with(|state| {
            assert_eq!(state.kept.pulled.keys().collect::<Vec<_>>(), ["new"]);
            assert_eq!(state.kept.pulled["new"]["r.test/a"].with.len(), MOST);
        });
        fs::write(folder.path().join("image-rights.json"), "{").unwrap();
        assert!(ImageRights::open(folder.path(), |_| true).is_err());
    }
}
