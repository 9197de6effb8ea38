//! The few things the log asks of a disk, so that a simulated one can stand in for the real one.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// A directory of files that grow, are written over where they hold zeros, and are cut or removed as a whole. What was not synced may be lost, in whole or
/// in part and in any order, when the power goes.
pub(crate) trait Disk: Send + 'static {
    /// The names of the files, sorted.
    fn list(&self) -> io::Result<Vec<String>>;
    /// A file's length.
    fn len(&self, name: &str) -> io::Result<u64>;
    /// Reads at a position; less than `len` bytes only at the end of the file.
    fn read(&self, name: &str, at: u64, len: usize) -> io::Result<Vec<u8>>;
    /// Makes an empty file; it lasts once the directory is synced.
    fn create(&mut self, name: &str) -> io::Result<()>;
    /// Writes at a position: the file's end, or over zeros or the same bytes.
    fn write(&mut self, name: &str, at: u64, bytes: &[u8]) -> io::Result<()>;
    /// Puts a file's contents and length on stable storage; tells how long that took.
    fn sync(&mut self, name: &str) -> io::Result<Duration>;
    /// Cuts a file.
    fn truncate(&mut self, name: &str, len: u64) -> io::Result<()>;
    /// Removes a file; it stays away once the directory is synced.
    fn remove(&mut self, name: &str) -> io::Result<()>;
    /// Puts the list of files on stable storage.
    fn sync_dir(&mut self) -> io::Result<()>;
}

/// Bytes written at once.
const PAGE: usize = 4096;

/// Whether the disk, or the owner's share of it, is full.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Syncs a directory: what was created, renamed or removed in it stays so (fsync(2), NOTES).
pub(crate) fn sync_directory(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// A directory of the file system.
#[derive(Debug)]
pub(crate) struct RealDisk {
    dir: PathBuf,
    open: BTreeMap<String, File>,
}

impl RealDisk {
    pub(crate) const fn new(dir: PathBuf) -> Self {
        Self { dir, open: BTreeMap::new() }
    }

    fn file(&mut self, name: &str) -> io::Result<&File> {
        if !self.open.contains_key(name) {
            let file = OpenOptions::new().read(true).write(true).open(self.dir.join(name))?;
            self.open.insert(name.to_owned(), file);
        }
        self.open.get(name).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Disk for RealDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            names.extend(entry?.file_name().into_string());
        }
        names.sort_unstable();
        Ok(names)
    }

    fn len(&self, name: &str) -> io::Result<u64> {
        fs::metadata(self.dir.join(name)).map(|metadata| metadata.len())
    }

    fn read(&self, name: &str, at: u64, len: usize) -> io::Result<Vec<u8>> {
        let opened;
        let file = match self.open.get(name) {
            Some(file) => file,
            None => {
                opened = File::open(self.dir.join(name))?;
                &opened
            }
        };
        let mut buffer = vec![0; len];
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match file.read_at(rest, at + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        buffer.truncate(filled);
        Ok(buffer)
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(self.dir.join(name))?;
        // Only the last segment is written to; older ones are opened again when they are read.
        self.open.clear();
        self.open.insert(name.to_owned(), file);
        Ok(())
    }

    fn write(&mut self, name: &str, at: u64, bytes: &[u8]) -> io::Result<()> {
        // The page cache keeps what is written at once as one piece, and counts all of it as written whenever a part of it is.
        let file = self.file(name)?;
        let mut places = (at..).step_by(PAGE);
        bytes.chunks(PAGE).try_for_each(|page| file.write_all_at(page, places.next().unwrap_or(at)))
    }

    fn sync(&mut self, name: &str) -> io::Result<Duration> {
        let (file, begun) = (self.file(name)?, Instant::now());
        file.sync_data()?;
        Ok(begun.elapsed())
    }

    fn truncate(&mut self, name: &str, len: u64) -> io::Result<()> {
        self.file(name)?.set_len(len)
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.open.remove(name);
        fs::remove_file(self.dir.join(name))
    }

    fn sync_dir(&mut self) -> io::Result<()> {
        sync_directory(&self.dir)
    }
}
