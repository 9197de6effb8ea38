//! sled 0.34 as the engine.
//!
//! sled's own flush calls `sync_file_range`, which commits neither the file's length and extents nor the disk's cache
//! (sync_file_range(2), Warning): a flush alone loses everything in a power cut. So a sync here is a flush followed by a
//! real sync of sled's data file and, once, of its settings and directories. Nor is making a new one atomic: killed halfway
//! it leaves settings that cannot be read. So a file `made` says that a first sync was completed; without it the directory
//! is emptied and made anew, which loses nothing, since nothing was ever promised. And what sled was killed in the middle of
//! writing (`snap.….generating`) it takes for the newest of its snapshots when it is opened again, and for a broken one: so
//! such files go first. Nor does its file ever become much shorter, however little is left in it: so a new one may be begun
//! beside it (`….new`) and take its place; while it does, the other one is called `….old`. sled runs without sled's periodic flush, and only while
//! a checkpoint is read or written: its threads and page cache cost nothing in between.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use nix::fcntl::{Flock, FlockArg};

use super::{Change, Engine, Visit};
use crate::{
    disk::sync_directory,
    error::{Error, Result},
};

/// Bytes of sled's page cache. Checkpoints stream; nothing is read twice.
const CACHE: u64 = 1 << 20;

/// Says that a first sync was completed.
const MADE: &str = "made";
/// How the names end of one that was begun anew, and of the one whose place it takes.
const NEW: &str = ".new";
const OLD: &str = ".old";
/// How the name of a snapshot ends that sled has not finished.
const UNFINISHED: &[u8] = b".generating";
/// How often sled is opened once more, with pauses of 1, 2, 4 … milliseconds: two seconds in all.
const TRIES: u32 = 11;
/// How often it is looked whether sled has closed it, and how long is waited in between: two minutes in all.
const CLOSING: u32 = 24_000;
const PAUSE: Duration = Duration::from_millis(5);

/// See the module.
#[derive(Debug)]
pub(crate) struct Sled {
    dir: PathBuf,
    open: Option<::sled::Db>,
    /// Whether the first sync is known to have been completed.
    made: bool,
    /// Whether what an interrupted replacement left behind is known to be gone.
    tidy: bool,
    /// The one that was begun anew beside it.
    anew: Option<Box<Self>>,
}

impl Sled {
    /// An engine in a directory of its own, which need not exist.
    pub(crate) const fn new(dir: PathBuf) -> Self {
        Self { dir, open: None, made: false, tidy: false, anew: None }
    }

    fn db(&mut self) -> Result<&::sled::Db> {
        let db = match self.open.take() {
            Some(db) => db,
            None => self.open()?,
        };
        Ok(self.open.insert(db))
    }

    /// sled's own threads may hold its file's lock for a moment after the last handle was dropped, so a lock that is held
    /// is tried again for a while. Nobody else can hold it: the data directory has a lock of its own.
    fn open(&mut self) -> Result<::sled::Db> {
        self.settle()?;
        if !self.is_made() {
            self.clear().map_err(Error::io(format!("empty {}", self.dir.display())))?;
        }
        self.drop_unfinished().map_err(Error::io(format!("tidy {}", self.dir.display())))?;
        let config = ::sled::Config::new()
            .path(&self.dir)
            .cache_capacity(CACHE)
            .flush_every_ms(None)
            .mode(::sled::Mode::LowSpace);
        for attempt in 0..TRIES {
            match config.open() {
                Err(::sled::Error::Io(error)) if error.to_string().contains("could not acquire lock") => {
                    thread::sleep(Duration::from_millis(1 << attempt));
                }
                opened => return opened.map_err(engine("open")),
            }
        }
        config.open().map_err(engine("open"))
    }
}

impl Sled {
    fn beside(&self, end: &str) -> PathBuf {
        let mut name = self.dir.file_name().unwrap_or_default().to_owned();
        name.push(end);
        self.dir.with_file_name(name)
    }

    fn sync_parent(&self) -> io::Result<()> {
        self.dir.parent().map_or(Ok(()), sync_directory)
    }

    /// Ends a replacement that was interrupted, one way or the other. The old one is moved aside only when the new one is
    /// complete.
    fn settle(&mut self) -> Result<()> {
        if self.tidy {
            return Ok(());
        }
        let (old, new) = (self.beside(OLD), self.beside(NEW));
        let settled = || {
            if old.exists() && !self.dir.exists() {
                fs::rename(&new, &self.dir)?;
                self.sync_parent()?;
            }
            remove(&new)?;
            remove(&old)
        };
        settled().map_err(Error::io(format!("settle {}", self.dir.display())))?;
        self.tidy = true;
        Ok(())
    }

    /// Closes it, and waits until sled's own threads are gone too: they know their files by name.
    fn close(&mut self) -> Result<()> {
        self.open = None;
        let path = self.dir.join("db");
        let shown = format!("close {}", path.display());
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(Error::io(shown)(error)),
        };
        for _ in 0..CLOSING {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(_free) => return Ok(()),
                Err((given_back, _)) => file = given_back,
            }
            thread::sleep(PAUSE);
        }
        Err(Error::io(shown)(io::ErrorKind::ResourceBusy.into()))
    }

    fn is_made(&mut self) -> bool {
        self.made = self.made || self.dir.join(MADE).exists();
        self.made
    }

    fn clear(&self) -> io::Result<()> {
        remove(&self.dir)?;
        DirBuilder::new().mode(0o700).create(&self.dir)
    }

    fn drop_unfinished(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            if entry.file_name().as_encoded_bytes().ends_with(UNFINISHED) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    fn finish_making(&mut self) -> io::Result<()> {
        File::open(self.dir.join("conf"))?.sync_all()?;
        File::create(self.dir.join(MADE))?.sync_all()?;
        sync_directory(&self.dir)?;
        self.sync_parent()?;
        self.made = true;
        Ok(())
    }
}

impl Engine for Sled {
    fn scan(&mut self, prefix: &[u8], visit: &mut Visit<'_>) -> Result<()> {
        if let Some(anew) = &mut self.anew {
            return anew.scan(prefix, visit);
        }
        self.settle()?;
        if self.open.is_none() && !self.is_made() {
            return Ok(());
        }
        for item in self.db()?.scan_prefix(prefix) {
            let (key, value) = item.map_err(engine("read"))?;
            visit(&key, &value)?;
        }
        Ok(())
    }

    fn write(&mut self, changes: &[Change]) -> Result<()> {
        if let Some(anew) = &mut self.anew {
            return anew.write(changes);
        }
        let db = self.db()?;
        for (key, value) in changes {
            match value {
                Some(value) => db.insert(key, value.as_slice()),
                None => db.remove(key),
            }
            .map_err(engine("write"))?;
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        if let Some(anew) = &mut self.anew {
            return anew.sync();
        }
        self.db()?.flush().map_err(engine("flush"))?;
        let file = self.dir.join("db");
        File::open(&file).and_then(|file| file.sync_data()).map_err(Error::io(format!("sync {}", file.display())))?;
        if !self.is_made() {
            self.finish_making().map_err(Error::io(format!("finish {}", self.dir.display())))?;
        }
        Ok(())
    }

    fn size(&mut self) -> Result<u64> {
        size(&self.dir).map_err(Error::io(format!("measure {}", self.dir.display())))
    }

    fn begin_anew(&mut self) -> Result<()> {
        self.settle()?;
        let new = self.beside(NEW);
        remove(&new).map_err(Error::io(format!("remove {}", new.display())))?;
        self.anew = Some(Box::new(Self::new(new)));
        Ok(())
    }

    fn replace(&mut self) -> Result<()> {
        let Some(mut anew) = self.anew.take() else { return Ok(()) };
        anew.close()?;
        self.close()?;
        let (old, new) = (self.beside(OLD), self.beside(NEW));
        let replaced = || {
            fs::rename(&self.dir, &old)?;
            self.sync_parent()?;
            fs::rename(&new, &self.dir)?;
            self.sync_parent()?;
            remove(&old)
        };
        replaced().map_err(Error::io(format!("replace {}", self.dir.display())))
    }

    fn rest(&mut self) {
        self.open = None;
        if self.anew.take().is_some() {
            // Removed before it is opened again, or another one is begun.
            self.tidy = false;
        }
    }
}

fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Bytes of the files in a directory, which need not exist.
fn size(dir: &Path) -> io::Result<u64> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        entries => entries?,
    };
    let mut sum = 0;
    for entry in entries {
        let entry = entry?;
        sum += match entry.metadata() {
            Ok(about) if about.is_dir() => size(&entry.path())?,
            Ok(about) => about.len(),
            // sled's own threads remove some.
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
    }
    Ok(sum)
}

fn engine(action: &'static str) -> impl FnOnce(::sled::Error) -> Error {
    move |source| match source {
        ::sled::Error::Io(source) if crate::disk::is_full(&source) => Error::DiskFull,
        source => Error::Engine { action, source: Arc::new(source) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(value: &str) -> [Change; 1] {
        [(b"a".to_vec(), Some(value.as_bytes().to_vec()))]
    }

    fn found(path: &Path) -> Vec<u8> {
        let mut found = Vec::new();
        Sled::new(path.to_owned())
            .scan(b"a", &mut |_, value| {
                found = value.to_vec();
                Ok(())
            })
            .unwrap();
        found
    }

    /// Killed between any two of its steps, a replacement has happened or has not.
    #[test]
    fn a_replacement_that_was_interrupted_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let (old, new) = (dir.path().join("state.old"), dir.path().join("state.new"));
        let make = |path: &Path, value: &str| {
            let mut engine = Sled::new(path.to_owned());
            engine.write(&one(value)).unwrap();
            engine.sync().unwrap();
            engine.close().unwrap();
        };
        make(&path, "before");
        make(&new, "half of it");
        assert_eq!(found(&path), b"before");
        assert!(!new.exists());

        make(&new, "after");
        fs::rename(&path, &old).unwrap();
        assert_eq!(found(&path), b"after");
        assert!(!new.exists() && !old.exists());

        make(&old, "before");
        assert_eq!(found(&path), b"after");
        assert!(!old.exists());
    }

    #[test]
    fn what_sled_was_killed_in_the_middle_of_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let mut engine = Sled::new(path.clone());
        engine.write(&[(b"a".to_vec(), Some(b"1".to_vec()))]).unwrap();
        engine.sync().unwrap();
        engine.rest();
        fs::write(path.join("snap.7FFFFFFFFFFFFFFF.generating"), b"half of a snaps").unwrap();
        let mut engine = Sled::new(path.clone());
        let mut found = Vec::new();
        engine
            .scan(b"", &mut |key, value| {
                found.push((key.to_vec(), value.to_vec()));
                Ok(())
            })
            .unwrap();
        assert_eq!(found, [(b"a".to_vec(), b"1".to_vec())]);
        assert!(!path.join("snap.7FFFFFFFFFFFFFFF.generating").exists());
    }
}
