//! The data directory: whose it is, who has it, and what format it is in.
//!
//! ```text
//! lock       held by the process that has the store open (flock(2)); says its number
//! format     "coracle-store 1"
//! identity   cluster, member, founder, and whether it is a witness; a member's number is never used again after the directory is lost
//! life       how often the store was opened
//! log/       the Raft log
//! state/     the last checkpoint; while it is written anew, state.new/ and state.old/ beside it
//! ```

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use nix::fcntl::{Flock, FlockArg};

use crate::{
    disk::sync_directory,
    error::{Error, Result},
    log::segment::ClusterId,
    store::Joining,
};

/// The format this version writes, and the only one it reads.
const FORMAT: u32 = 1;

/// The line of a witness's identity.
const WITNESS: &str = "witness";

/// Who a member is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Its cluster.
    pub(crate) cluster: ClusterId,
    /// Its Raft id.
    pub(crate) member: u64,
    /// The cluster's first member.
    pub(crate) founder: u64,
    /// It keeps votes and where the log stands, and nothing of what is stored.
    pub(crate) witness: bool,
}

impl Identity {
    fn is_of(&self, joining: Joining) -> bool {
        (joining.own.0, joining.cluster, joining.witness) == (self.member, self.cluster, self.witness)
    }
}

/// An opened, locked data directory.
#[derive(Debug)]
pub(crate) struct DataDir {
    dir: PathBuf,
    pub(crate) identity: Identity,
    /// One more than when it was opened before.
    pub(crate) life: u64,
    /// Unlocked when dropped.
    _lock: Flock<File>,
}

impl DataDir {
    /// Opens a data directory, or makes that of a member that joins a cluster, or of a new cluster's first.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::Format`], [`Error::Corrupt`], [`Error::Occupied`], [`Error::Io`].
    pub(crate) fn open(dir: &Path, joining: Option<Joining>) -> Result<Self> {
        let shown = dir.display();
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(Error::io(format!("make {shown}")))?;
        // It may have been made by hand, and holds every secret of the cluster.
        fs::set_permissions(dir, Permissions::from_mode(0o700)).map_err(Error::io(format!("restrict {shown}")))?;
        let lock = lock(dir)?;
        match read(&dir.join("format"))? {
            Some(found) if found.trim() == format_line().trim() => {}
            Some(found) => {
                let found = found.trim().chars().take(64).collect();
                return Err(Error::Format { dir: dir.to_owned(), found, supported: FORMAT });
            }
            None => make(dir, joining)?,
        }
        let identity = match read(&dir.join("identity"))? {
            Some(text) => parse(&text).ok_or_else(|| corrupt("identity", "not a member's identity"))?,
            None => return Err(corrupt("identity", "is missing")),
        };
        if joining.is_some_and(|joining| !identity.is_of(joining)) {
            return Err(Error::Occupied { dir: dir.to_owned() });
        }
        let life = match read(&dir.join("life"))? {
            Some(text) => text.trim().parse::<u64>().map_err(|_| corrupt("life", "not a number"))? + 1,
            None => 1,
        };
        write(dir, "life", &format!("{life}\n"))?;
        Ok(Self { dir: dir.to_owned(), identity, life, _lock: lock })
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.dir.join("state")
    }
}

/// Makes the directory's contents; `format` comes last, so that an interrupted making begins anew.
fn make(dir: &Path, joining: Option<Joining>) -> Result<()> {
    let identity = match joining {
        Some(Joining { cluster, founder, own, witness }) => {
            Identity { cluster, member: own.0, founder: founder.0, witness }
        }
        None => {
            let member = rand::random_range(1 << 48..1 << 62);
            Identity { cluster: rand::random(), member, founder: member, witness: false }
        }
    };
    for part in ["log", "state"] {
        let part = dir.join(part);
        let holds = part.read_dir().is_ok_and(|mut entries| entries.next().is_some());
        if holds {
            return Err(corrupt("format", "is missing, but the directory holds data"));
        }
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&part);
        made.map_err(Error::io(format!("make {}", part.display())))?;
    }
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let Identity { cluster, member, founder, witness } = identity;
    let mut text = format!("cluster {}\nmember {member:016x}\nfounder {founder:016x}\n", hex(&cluster));
    if witness {
        text.push_str(WITNESS);
        text.push('\n');
    }
    write(dir, "identity", &text)?;
    write(dir, "format", &format_line())?;
    if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        sync_directory(parent).map_err(Error::io(format!("sync {}", parent.display())))?;
    }
    Ok(())
}

fn format_line() -> String {
    format!("coracle-store {FORMAT}\n")
}

fn parse(text: &str) -> Option<Identity> {
    let mut lines = text.lines();
    let cluster = lines.next()?.strip_prefix("cluster ")?;
    let member = lines.next()?.strip_prefix("member ")?;
    let cluster = (cluster.len() == 32).then(|| u128::from_str_radix(cluster, 16).ok()).flatten()?.to_be_bytes();
    let id = |text| u64::from_str_radix(text, 16).ok().filter(|id| *id != 0);
    let member = id(member)?;
    // A directory without this line was made when every cluster had one member.
    let founder = match lines.next() {
        Some(line) => id(line.strip_prefix("founder ")?)?,
        None => member,
    };
    let witness = match lines.next() {
        Some(WITNESS) => true,
        Some(_) => return None,
        None => false,
    };
    Some(Identity { cluster, member, founder, witness })
}

/// The process that has the store in `dir` open now, if one has: its number, as far as the lock file says it. Nothing is
/// made where no store is.
#[must_use]
pub fn holder(dir: &Path) -> Option<Option<u32>> {
    let mut file = File::open(dir.join("lock")).ok()?;
    let mut pid = String::new();
    let known = file.read_to_string(&mut pid).is_ok().then(|| pid.trim().parse().ok()).flatten();
    match Flock::lock(file, FlockArg::LockSharedNonblock) {
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Some(known),
        Ok(_) | Err(_) => None,
    }
}

fn lock(dir: &Path) -> Result<Flock<File>> {
    let path = dir.join("lock");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(Error::io(format!("open {}", path.display())))?;
    let mut pid = String::new();
    let known = file.read_to_string(&mut pid).is_ok().then(|| pid.trim().parse().ok()).flatten();
    let mut lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => lock,
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => return Err(Error::Locked { dir: dir.to_owned(), pid: known }),
        Err((_, errno)) => return Err(Error::io(format!("lock {}", path.display()))(errno.into())),
    };
    // Only told to people, so neither synced nor relied upon.
    let told = lock.set_len(0).and_then(|()| io::Seek::rewind(&mut *lock)).and_then(|()| {
        let pid = format!("{}\n", std::process::id());
        lock.write_all(pid.as_bytes())
    });
    if let Err(error) = told {
        tracing::debug!(error = &error as &dyn std::error::Error, "the lock file does not say who holds it");
    }
    Ok(lock)
}

fn read(path: &Path) -> Result<Option<String>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(format!("read {}", path.display()))(error)),
    }
}

/// Writes a file as a whole: beside, synced, renamed, and the directory synced.
fn write(dir: &Path, name: &str, text: &str) -> Result<()> {
    let (beside, path) = (dir.join(format!("{name}.new")), dir.join(name));
    let written =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        });
    written
        .and_then(|()| fs::rename(&beside, &path))
        .and_then(|()| sync_directory(dir))
        .map_err(Error::io(format!("write {}", path.display())))
}

fn corrupt(file: &str, what: &str) -> Error {
    Error::Corrupt { file: file.to_owned(), offset: 0, what: what.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_keeps_its_identity_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let first = DataDir::open(&path, None).unwrap().identity;
        assert_eq!(DataDir::open(&path, None).unwrap().identity, first);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_second_process_is_told_who_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let held = DataDir::open(dir.path(), None).unwrap();
        let Err(Error::Locked { pid: Some(pid), .. }) = DataDir::open(dir.path(), None) else { panic!() };
        assert_eq!(pid, std::process::id());
        assert_eq!(holder(dir.path()), Some(Some(pid)));
        drop(held);
        assert_eq!(holder(dir.path()), None);
        DataDir::open(dir.path(), None).unwrap();
    }

    #[test]
    fn another_format_and_a_lost_or_broken_identity_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        drop(DataDir::open(dir.path(), None).unwrap());
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        write("format", "coracle-store 2\n");
        let Err(Error::Format { found, supported: 1, .. }) = DataDir::open(dir.path(), None) else { panic!() };
        assert_eq!(found, "coracle-store 2");
        write("format", "coracle-store 1\n");
        write("identity", "cluster 00\n");
        assert!(matches!(DataDir::open(dir.path(), None), Err(Error::Corrupt { .. })));
        fs::remove_file(dir.path().join("identity")).unwrap();
        assert!(matches!(DataDir::open(dir.path(), None), Err(Error::Corrupt { .. })));
    }

    #[test]
    fn data_without_a_format_is_not_taken_for_an_empty_directory() {
        let dir = tempfile::tempdir().unwrap();
        drop(DataDir::open(dir.path(), None).unwrap());
        fs::write(dir.path().join("log/0000000000000001.log"), "x").unwrap();
        fs::remove_file(dir.path().join("format")).unwrap();
        assert!(matches!(DataDir::open(dir.path(), None), Err(Error::Corrupt { .. })));
    }
}
