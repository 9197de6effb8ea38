//! Making a data directory of a snapshot.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use coracle_store::{Contents, Revision};

use super::format::{self, Decoder, Part, Summary};
use crate::pki;

/// Stands in a data directory while a restore is under way, so that nobody takes half of it for a cluster.
pub const UNFINISHED: &str = "restoring";

/// How far above the snapshot's own revision the restored store begins at least. The cluster that is gone may have written
/// on after the snapshot was made, and its clients know those revisions.
const AHEAD: u64 = 1_000_000_000;
/// And so much for every second since: more than any cluster writes.
const AHEAD_PER_SECOND: u64 = 1000;

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The snapshot cannot be read.
    #[error(transparent)]
    Snapshot(#[from] format::Error),
    /// There is something in the directory.
    #[error("{}: {why}", dir.display())]
    Refused {
        /// The directory.
        dir: PathBuf,
        /// What is there.
        why: String,
    },
    /// Reading or writing failed.
    #[error("{}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A secret could not be written.
    #[error("write keys")]
    Keys(#[source] pki::Error),
    /// The store could not be begun.
    #[error("begin the store")]
    Store(#[source] coracle_store::Error),
}

/// What was restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// What the snapshot held.
    pub summary: Summary,
    /// Where the store begins.
    pub revision: u64,
}

/// Where a restored store begins: above every revision that a client may know of the cluster it continues.
fn revision(snapshot: u64, age: Duration) -> u64 {
    snapshot.saturating_add(AHEAD).saturating_add(age.as_secs().saturating_mul(AHEAD_PER_SECOND))
}

/// Makes a data directory of what `snapshot` reads. The directory must not exist, or be empty. Blocks.
///
/// `now` tells how old the snapshot is; for a copy that shall stand where the original stands, none.
///
/// # Errors
/// See [`RestoreError`]. Unless it is [`RestoreError::Refused`], the directory is left with a file [`UNFINISHED`] in it, and
/// no server starts there.
pub fn restore(
    mut snapshot: impl io::Read,
    name: &Path,
    dir: &Path,
    now: Option<jiff::Timestamp>,
) -> Result<Restored, RestoreError> {
    check_empty(dir)?;
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| RestoreError::File { path, source }
    };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(at(dir))?;
    let mark = dir.join(UNFINISHED);
    fs::write(&mark, "A restore into this directory was not finished.\n").map_err(at(&mark))?;
    sync(dir).map_err(at(dir))?;
    let mut decoder = Decoder::default();
    let mut contents = Contents::default();
    let mut files = Vec::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        let read = match snapshot.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(at(name)(error)),
        };
        let take = |part| -> Result<(), format::Error> {
            match part {
                Part::Header(_) => {}
                Part::File(path, bytes) => files.push((path, bytes)),
                Part::Leases(leases) => contents.leases.extend(leases),
                Part::Entries(entries) => contents.entries.extend(entries),
            }
            Ok(())
        };
        decoder.push(buffer.get(..read).unwrap_or_default(), take)?;
    }
    // Nothing is made of it before all of it was checked.
    let summary = decoder.finish()?;
    let age = now.map(|now| now.duration_since(summary.header.created).unsigned_abs());
    let begins = age.map_or(summary.header.revision, |age| revision(summary.header.revision, age));
    contents.revision = Revision(begins);
    for (path, bytes) in files {
        write(&dir.join(&path), &bytes)?;
    }
    coracle_store::begin_with(&dir.join("store"), &contents).map_err(RestoreError::Store)?;
    fs::remove_file(&mark).and_then(|()| sync(dir)).map_err(at(&mark))?;
    Ok(Restored { summary, revision: begins })
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), RestoreError> {
    let text = std::str::from_utf8(bytes).map_err(|_| RestoreError::File {
        path: path.to_owned(),
        source: io::Error::other("keys, certificates and configuration are text, and this is not"),
    })?;
    pki::write_secret(path, text).map_err(RestoreError::Keys)
}

fn sync(dir: &Path) -> io::Result<()> {
    fs::File::open(dir)?.sync_all()
}

/// Refuses a directory in which there is anything, and says what.
fn check_empty(dir: &Path) -> Result<(), RestoreError> {
    let refused = |why: String| RestoreError::Refused { dir: dir.to_owned(), why };
    if let Some(holder) = coracle_store::holder(&dir.join("store")) {
        let process = holder.map(|pid| format!(" (process {pid})")).unwrap_or_default();
        return Err(refused(format!(
            "a server is running there{process}; a snapshot is restored into an empty directory"
        )));
    }
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(RestoreError::File { path: dir.to_owned(), source }),
    };
    for entry in entries {
        let entry = entry.map_err(|source| RestoreError::File { path: dir.to_owned(), source })?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        match &*name {
            // A file system's own.
            "lost+found" => {}
            UNFINISHED => {
                return Err(refused(
                    "a restore into this directory was not finished: remove it, and restore again".to_owned(),
                ));
            }
            name => {
                let why =
                    format!("it is not empty (there is {name:?}); a snapshot is restored into an empty directory");
                return Err(refused(why));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restored_store_begins_above_what_the_cluster_may_have_written_since() {
        let hour = Duration::from_secs(3600);
        assert_eq!(revision(7, Duration::ZERO), 1_000_000_007);
        assert_eq!(revision(7, hour), 1_003_600_007);
        assert_eq!(revision(u64::MAX, hour), u64::MAX);
    }

    #[test]
    fn only_an_empty_directory_is_restored_into() {
        let dir = tempfile::tempdir().unwrap();
        let refused = |why: &str| {
            let error = restore(&b""[..], Path::new("x"), dir.path(), None).unwrap_err();
            assert!(error.to_string().contains(why), "{error}");
        };
        std::fs::create_dir(dir.path().join("lost+found")).unwrap();
        refused("cut short");
        refused("was not finished");
        std::fs::remove_file(dir.path().join(UNFINISHED)).unwrap();
        std::fs::write(dir.path().join("x"), "").unwrap();
        refused("not empty (there is \"x\")");
    }
}
