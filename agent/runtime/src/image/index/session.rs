//! One process' share of `tmp/`: what it is making, and the layers it counts on. It lasts as long as the lock in it is held, so
//! that what a killed process left is known from what a living one makes.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use nix::fcntl::{Flock, FlockArg};

use super::{Digest, Error, exclusive::Exclusive, io_error};

/// The file in a session's directory whose lock says that the process lives.
const LOCK: &str = "lock";

/// What the names of files that list counted-on layers begin with.
const PIN: &str = "pin-";

/// The directory of one open store below `tmp/`, removed with everything in it when dropped.
pub(super) struct Session {
    path: PathBuf,
    next: AtomicU64,
    _lock: Flock<File>,
}

/// A directory of its own, removed with everything in it when dropped.
pub(in crate::image) struct Temporary {
    path: PathBuf,
    _session: Arc<Session>,
}

/// Keeps layers from being collected, by this process or another.
pub(in crate::image) struct Pin {
    path: PathBuf,
    _session: Arc<Session>,
}

impl Session {
    /// Makes a session, and takes what dead ones left into it: the answer's second part, to be dropped when `exclusive` no
    /// longer is held, because removing large trees takes long.
    pub(super) fn begin(exclusive: &Exclusive, root: &Path) -> Result<(Arc<Self>, Temporary), Error> {
        let tmp = root.join("tmp");
        fs::create_dir_all(&tmp).map_err(|source| io_error("create", &tmp, source))?;
        let dead = Self::survey(exclusive, root)?.dead;
        let path = tmp.join(format!("{}-{:016x}", std::process::id(), rand::random::<u64>()));
        fs::create_dir(&path).map_err(|source| io_error("create", &path, source))?;
        let lock = path.join(LOCK);
        let file = File::create(&lock).map_err(|source| io_error("create", &lock, source))?;
        let held = Flock::lock(file, FlockArg::LockExclusiveNonblock);
        let held = held.map_err(|(_, errno)| io_error("lock", &lock, errno.into()))?;
        let session = Arc::new(Self { path, next: AtomicU64::new(0), _lock: held });
        let swept = session.temporary()?;
        for left in dead {
            let name = left.file_name().unwrap_or_default();
            match fs::rename(&left, swept.path.join(name)) {
                Ok(()) => tracing::info!(path = %left.display(), "removing what an ended process left"),
                // Its process was about to remove it itself.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(io_error("sweep", &left, source)),
            }
        }
        Ok((session, swept))
    }

    pub(super) fn temporary(self: &Arc<Self>) -> Result<Temporary, Error> {
        let path = self.name("");
        fs::create_dir(&path).map_err(|source| io_error("create", &path, source))?;
        Ok(Temporary { path, _session: Arc::clone(self) })
    }

    /// A path of its own for a file.
    pub(super) fn name(&self, prefix: &str) -> PathBuf {
        self.path.join(format!("{prefix}{}", self.next.fetch_add(1, Ordering::Relaxed)))
    }

    /// Counts on layers. With the lock, because a collection that has read the pins already removes what it has not read of.
    pub(super) fn pin(self: &Arc<Self>, _exclusive: &Exclusive, layers: &[Digest]) -> Result<Pin, Error> {
        let pin = Pin { path: self.name(PIN), _session: Arc::clone(self) };
        let lines: Vec<&str> = layers.iter().map(Digest::hex).collect();
        // Not for after a crash: the lock in the session's directory does not outlive one either.
        fs::write(&pin.path, lines.join("\n")).map_err(|source| io_error("write", &pin.path, source))?;
        Ok(pin)
    }

    /// What it is called among all sessions.
    pub(super) fn name_of(&self) -> String {
        name_of(&self.path)
    }

    /// The names of the sessions whose processes live.
    pub(super) fn living(exclusive: &Exclusive, root: &Path) -> Result<BTreeSet<String>, Error> {
        Ok(Self::survey(exclusive, root)?.living.iter().map(|path| name_of(path)).collect())
    }

    /// The hex digests of the layers that living processes count on.
    pub(super) fn pinned(exclusive: &Exclusive, root: &Path) -> Result<BTreeSet<String>, Error> {
        let mut pinned = BTreeSet::new();
        for session in Self::survey(exclusive, root)?.living {
            for path in list(&session)? {
                let name = path.file_name().and_then(|name| name.to_str());
                if name.is_some_and(|name| name.starts_with(PIN)) {
                    match fs::read_to_string(&path) {
                        Ok(lines) => pinned.extend(lines.lines().map(str::to_owned)),
                        // Pins go without the lock.
                        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                        Err(source) => return Err(io_error("read", &path, source)),
                    }
                }
            }
        }
        Ok(pinned)
    }

    /// Tells living sessions from dead ones. With the lock, because a session that is being made has no lock of its own yet.
    fn survey(_exclusive: &Exclusive, root: &Path) -> Result<Survey, Error> {
        let mut survey = Survey::default();
        for path in list(&root.join("tmp"))? {
            let lives = match File::open(path.join(LOCK)) {
                Ok(file) => Flock::lock(file, FlockArg::LockExclusiveNonblock).is_err(),
                Err(_) => false,
            };
            if lives { survey.living.push(path) } else { survey.dead.push(path) }
        }
        Ok(survey)
    }
}

#[derive(Default)]
struct Survey {
    living: Vec<PathBuf>,
    dead: Vec<PathBuf>,
}

fn name_of(session: &Path) -> String {
    session.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The entries of a directory, which may be gone.
fn list(path: &Path) -> Result<Vec<PathBuf>, Error> {
    let read = fs::read_dir(path).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        read => read.map_err(|source| io_error("list", path, source)),
    }
}

impl Temporary {
    pub(in crate::image) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        remove(fs::remove_dir_all(&self.path), &self.path);
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        remove(fs::remove_file(&self.path), &self.path);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Its lock goes after this: nobody takes it for dead before.
        remove(fs::remove_dir_all(&self.path), &self.path);
    }
}

fn remove(removed: io::Result<()>, path: &Path) {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), error = &error as &dyn std::error::Error, "temporary files stay until the store is opened again");
        }
        _ => {}
    }
}
