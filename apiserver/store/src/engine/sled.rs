//! sled 0.34 as the engine.
//!
//! sled's own flush calls `sync_file_range`, which commits neither the file's length and extents nor the disk's cache
//! (sync_file_range(2), Warning): a flush alone loses everything in a power cut. So a sync here is a flush followed by a
//! real sync of sled's data file and, once, of its settings and directories. Nor is making a new one atomic: killed halfway
//! it leaves settings that cannot be read. So a file `made` says that a first sync was completed; without it the directory
//! is emptied and made anew, which loses nothing, since nothing was ever promised. And what sled was killed in the middle of
//! writing (`snap.….generating`) it takes for the newest of its snapshots when it is opened again, and for a broken one: so
//! such files go first. sled runs without sled's periodic flush, and only while
//! a checkpoint is read or written: its threads and page cache cost nothing in between.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::PathBuf,
    sync::Arc,
    thread,
    time::Duration,
};

use super::{Change, Engine, Visit};
use crate::{
    disk::sync_directory,
    error::{Error, Result},
};

/// Bytes of sled's page cache. Checkpoints stream; nothing is read twice.
const CACHE: u64 = 1 << 20;

/// Says that a first sync was completed.
const MADE: &str = "made";
/// How the name of a snapshot ends that sled has not finished.
const UNFINISHED: &[u8] = b".generating";
/// How often sled is opened once more, with pauses of 1, 2, 4 … milliseconds: two seconds in all.
const TRIES: u32 = 11;

/// See the module.
#[derive(Debug)]
pub(crate) struct Sled {
    dir: PathBuf,
    open: Option<::sled::Db>,
    /// Whether the first sync is known to have been completed.
    made: bool,
}

impl Sled {
    /// An engine in a directory of its own, which need not exist.
    pub(crate) const fn new(dir: PathBuf) -> Self {
        Self { dir, open: None, made: false }
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
    fn is_made(&mut self) -> bool {
        self.made = self.made || self.dir.join(MADE).exists();
        self.made
    }

    fn clear(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
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
        self.dir.parent().map_or(Ok(()), sync_directory)?;
        self.made = true;
        Ok(())
    }
}

impl Engine for Sled {
    fn scan(&mut self, prefix: &[u8], visit: &mut Visit<'_>) -> Result<()> {
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
        self.db()?.flush().map_err(engine("flush"))?;
        let file = self.dir.join("db");
        File::open(&file).and_then(|file| file.sync_data()).map_err(Error::io(format!("sync {}", file.display())))?;
        if !self.is_made() {
            self.finish_making().map_err(Error::io(format!("finish {}", self.dir.display())))?;
        }
        Ok(())
    }

    fn rest(&mut self) {
        self.open = None;
    }
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
