//! Layers' archives become directories, as overlayfs wants its lower ones. Sources: OCI image specification, `layer.md`
//! (whiteouts); `Documentation/filesystems/overlayfs.rst` ("whiteouts and opaque directories").

use std::{
    cell::Cell,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom, Write},
    os::{fd::AsFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
    rc::Rc,
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, openat},
    sys::{
        stat::{FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmodat, futimens, makedev, mkdirat, mknodat, utimensat},
        time::TimeSpec,
    },
    unistd::{Gid, Uid, fchown, fchownat, linkat, symlinkat, syncfs},
};
use tar::EntryType;
use xattr::FileExt as _;

use super::{
    Digest,
    archive::{Archive, Entry},
    beneath::{Beneath, Place, clean},
    decompress::decompress,
    digest::Hasher,
};

/// A layer may grow by any ratio until it is this large.
const RATIO_FREE: u64 = 64 << 20;

/// Runs of zeros of this length become holes: the block size of most file systems.
const HOLE: usize = 4096;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE_MARK: &[u8] = b".wh..wh..opq";
const OPAQUE: &str = "trusted.overlay.opaque";

/// How large one layer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the uncompressed archive, and of all files with their holes.
    pub bytes: u64,
    /// Files, directories, links.
    pub entries: u64,
    /// How many times larger than its compressed form a layer may grow, once it is larger than 64 MiB.
    pub ratio: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 64 << 30, entries: 4_000_000, ratio: 1_000 }
    }
}

/// Why a layer was not unpacked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnpackError {
    /// The archive cannot be read, or the disk refused.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// An entry of the archive may not be, or could not be, made.
    #[error("entry {path:?}: {reason}")]
    Entry {
        /// Its name in the archive.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// The stream is longer than its descriptor says.
    #[error("layer is larger than the {declared} bytes its manifest declares")]
    Oversized {
        /// What the manifest says.
        declared: u64,
    },
    /// The stream is shorter than its descriptor says.
    #[error("layer has {found} bytes, its manifest declares {declared}")]
    Short {
        /// What the manifest says.
        declared: u64,
        /// What there was.
        found: u64,
    },
    /// The archive or its content passes a bound.
    #[error("layer is larger than allowed: {reason}")]
    Limit {
        /// Which bound.
        reason: String,
    },
    /// The compressed bytes are not what the manifest says.
    #[error("failed to verify: digest {found} of the layer, its manifest says {wanted}")]
    Digest {
        /// What the manifest says.
        wanted: Digest,
        /// What it is.
        found: Digest,
    },
    /// The uncompressed bytes are not what the configuration says.
    #[error("wrong diff id calculated on extraction: {found}, the image says {wanted}")]
    DiffId {
        /// What the configuration says.
        wanted: Digest,
        /// What it is.
        found: Digest,
    },
}

/// What the stream must turn out to be.
#[derive(Debug, Clone, Default)]
pub(super) struct Expected {
    /// Bytes and digest as it comes.
    pub(super) blob: Option<(u64, Digest)>,
    /// Digest of the plain archive.
    pub(super) diff_id: Option<Digest>,
}

/// What an unpacked layer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unpacked {
    pub(super) diff_id: Digest,
    /// Bytes of all files.
    pub(super) size: u64,
}

/// Unpacks a stream into a directory, which is made. What was made stays on an error: the caller removes the directory.
///
/// # Guarantees
/// Nothing outside the directory is read, made or changed. On success the content has the expected digests and is on
/// stable storage.
pub(super) fn unpack(
    stream: impl Read,
    expected: &Expected,
    limits: &Limits,
    target: &Path,
) -> Result<Unpacked, UnpackError> {
    fs::create_dir(target)?;
    let arrived = Rc::new(Cell::new(0));
    let hasher = || Digest::of(b"").hasher();
    let mut blob = Metered {
        reader: stream,
        count: Rc::clone(&arrived),
        hasher: expected.blob.as_ref().map_or_else(hasher, |(_, digest)| digest.hasher()),
        check: |count: u64| match &expected.blob {
            Some((declared, _)) if count > *declared => Err(UnpackError::Oversized { declared: *declared }),
            _ => Ok(()),
        },
        failure: None,
    };
    let compressed = Rc::clone(&arrived);
    let result = {
        let plain = decompress(&mut blob);
        plain.map_err(UnpackError::from).and_then(|plain| {
            let mut plain = Metered {
                reader: plain,
                count: Rc::default(),
                hasher: expected.diff_id.as_ref().map_or_else(hasher, Digest::hasher),
                check: move |count: u64| within(limits, count, compressed.get()),
                failure: None,
            };
            let size = extract(Archive::new(&mut plain), limits, target);
            match plain.failure.take() {
                Some(failure) => Err(failure),
                None => Ok(Unpacked { size: size?, diff_id: plain.hasher.finish() }),
            }
        })
    };
    if let Some(failure) = blob.failure.take() {
        return Err(failure);
    }
    let unpacked = result?;
    // What follows the compressed data belongs to the blob.
    let rest = io::copy(&mut blob, &mut io::sink());
    if let Some(failure) = blob.failure.take() {
        return Err(failure);
    }
    rest?;
    if let Some((declared, wanted)) = &expected.blob {
        if arrived.get() != *declared {
            return Err(UnpackError::Short { declared: *declared, found: arrived.get() });
        }
        let found = blob.hasher.finish();
        if found != *wanted {
            return Err(UnpackError::Digest { wanted: wanted.clone(), found });
        }
    }
    if let Some(wanted) = expected.diff_id.as_ref().filter(|wanted| **wanted != unpacked.diff_id) {
        return Err(UnpackError::DiffId { wanted: wanted.clone(), found: unpacked.diff_id });
    }
    syncfs(File::open(target)?).map_err(io::Error::from)?;
    Ok(unpacked)
}

fn within(limits: &Limits, count: u64, compressed: u64) -> Result<(), UnpackError> {
    if count > limits.bytes {
        return Err(UnpackError::Limit { reason: format!("more than {} bytes uncompressed", limits.bytes) });
    }
    if count > RATIO_FREE && count / limits.ratio > compressed {
        let reason = format!("{count} bytes from {compressed}, more than {} for one", limits.ratio);
        return Err(UnpackError::Limit { reason });
    }
    Ok(())
}

/// Counts and hashes what is read through it.
struct Metered<R, C> {
    reader: R,
    count: Rc<Cell<u64>>,
    hasher: Hasher,
    check: C,
    failure: Option<UnpackError>,
}

impl<R: Read, C: FnMut(u64) -> Result<(), UnpackError>> Read for Metered<R, C> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.hasher.update(buffer.get(..count).unwrap_or_default());
        self.count.set(self.count.get().saturating_add(u64::try_from(count).unwrap_or(u64::MAX)));
        if let Err(failure) = (self.check)(self.count.get()) {
            self.failure = Some(failure);
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(count)
    }
}

fn extract<R: Read>(mut archive: Archive<R>, limits: &Limits, target: &Path) -> Result<u64, UnpackError> {
    let mut layer = Layer {
        beneath: Beneath::open(target)?,
        directories: Vec::new(),
        size: 0,
        buffer: vec![0; 1 << 16],
        replaced: false,
    };
    let mut entries = 0;
    while let Some(entry) = archive.next_entry()? {
        entries += 1;
        if entries > limits.entries {
            return Err(UnpackError::Limit { reason: format!("more than {} files", limits.entries) });
        }
        layer.size = layer.size.saturating_add(entry.size);
        if layer.size > limits.bytes {
            return Err(UnpackError::Limit { reason: format!("files of more than {} bytes", limits.bytes) });
        }
        layer.add(&entry, &mut archive)?;
    }
    archive.finish()?;
    layer.finish()
}

/// A layer's directory being filled.
struct Layer {
    beneath: Beneath,
    /// Directories whose times are set last: filling them changes them.
    directories: Vec<(PathBuf, (i64, i64))>,
    size: u64,
    buffer: Vec<u8>,
    /// Something that stood was replaced: directories opened through it are not what they were.
    replaced: bool,
}

impl Layer {
    fn add<R: Read>(&mut self, entry: &Entry, archive: &mut Archive<R>) -> Result<(), UnpackError> {
        let wrap = |reason: String| UnpackError::Entry {
            path: String::from_utf8_lossy(&entry.path).chars().take(256).collect(),
            reason,
        };
        let path = clean(&entry.path).map_err(|reason| wrap(reason.into()))?;
        if std::mem::take(&mut self.replaced) {
            self.beneath.forget();
        }
        match self.make(&path, entry, archive) {
            Ok(()) => Ok(()),
            // The disk's own troubles are told as they are.
            Err(Refused::Io(error)) if error.kind() == io::ErrorKind::StorageFull => Err(error.into()),
            Err(Refused::Io(error)) => Err(wrap(error.to_string())),
            Err(Refused::Content(reason)) => Err(wrap(reason)),
        }
    }

    fn make<R: Read>(&mut self, path: &Path, entry: &Entry, archive: &mut Archive<R>) -> Result<(), Refused> {
        let Some(name) = path.file_name().map(OsStrExt::as_bytes) else {
            return self.root(entry);
        };
        if name.starts_with(WHITEOUT) {
            return self.whiteout(path, name);
        }
        // An ancestor that this very layer has as a whiteout or a file becomes a directory by what is put into it.
        match entry.kind {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let place = self.beneath.place(path)?;
                self.replaced |= clear(&place)?;
                let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                let fd = openat(place.directory, place.name.as_os_str(), flags, Mode::from_bits_truncate(0o600))?;
                let mut file = File::from(fd);
                write_data(&mut file, entry, archive, &mut self.buffer)?;
                fchown(&file, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))?;
                file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(entry.mode))?;
                set_xattrs(&file, entry)?;
                let time = timespec(entry.mtime);
                Ok(futimens(&file, &time, &time)?)
            }
            EntryType::Directory => self.directory(path, entry),
            EntryType::Symlink => {
                let place = self.beneath.place(path)?;
                self.replaced |= clear(&place)?;
                symlinkat(entry.link.as_slice(), place.directory, place.name.as_os_str())?;
                own(&place, entry)
            }
            EntryType::Link => self.hard_link(path, entry),
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                let place = self.beneath.place(path)?;
                self.replaced |= clear(&place)?;
                let (kind, device) = match entry.kind {
                    EntryType::Char => (SFlag::S_IFCHR, entry.device),
                    EntryType::Block => (SFlag::S_IFBLK, entry.device),
                    _ => (SFlag::S_IFIFO, (0, 0)),
                };
                if kind == SFlag::S_IFCHR && device == (0, 0) {
                    return Err(Refused::Content("a device of number 0:0 would be a whiteout".into()));
                }
                let device = makedev(u64::from(device.0), u64::from(device.1));
                let mode = Mode::from_bits_truncate(entry.mode);
                mknodat(place.directory, place.name.as_os_str(), kind, mode, device)?;
                fchownat_entry(&place, entry)?;
                // The umask took bits away, and so may the change of owner have.
                fchmodat(place.directory, place.name.as_os_str(), mode, FchmodatFlags::FollowSymlink)?;
                set_times(&place, entry.mtime)
            }
            kind => Err(Refused::Content(format!("kind {:?} is not supported", char::from(kind.as_byte())))),
        }
    }

    fn root(&mut self, entry: &Entry) -> Result<(), Refused> {
        if entry.kind != EntryType::Directory {
            return Err(Refused::Content("the root is not a directory".into()));
        }
        let root = File::from(self.beneath.root().try_clone_to_owned()?);
        finish_directory(&root, entry)?;
        self.directories.push((PathBuf::new(), entry.mtime));
        Ok(())
    }

    fn directory(&mut self, path: &Path, entry: &Entry) -> Result<(), Refused> {
        let place = self.beneath.place(path)?;
        let mut hides = false;
        match place.kind()? {
            Some((SFlag::S_IFDIR, _)) => {}
            other => {
                // A whiteout before hides what lower layers have; the directory goes on hiding it.
                hides = other == Some((SFlag::S_IFCHR, 0));
                self.replaced |= clear(&place)?;
                mkdirat(place.directory, place.name.as_os_str(), Mode::from_bits_truncate(0o700))?;
            }
        }
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let directory = File::from(openat(place.directory, place.name.as_os_str(), flags, Mode::empty())?);
        if hides {
            directory.set_xattr(OPAQUE, b"y")?;
        }
        finish_directory(&directory, entry)?;
        self.directories.push((path.to_owned(), entry.mtime));
        Ok(())
    }

    fn whiteout(&mut self, path: &Path, name: &[u8]) -> Result<(), Refused> {
        if name == OPAQUE_MARK {
            let parent = path.parent().unwrap_or(Path::new(""));
            let place = self.beneath.place(path)?;
            let directory = match parent.file_name() {
                None => File::from(self.beneath.root().try_clone_to_owned()?),
                Some(_) => {
                    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
                    File::from(openat(place.directory, ".", flags, Mode::empty())?)
                }
            };
            return Ok(directory.set_xattr(OPAQUE, b"y")?);
        }
        // AUFS's own files, of which the specification says to make nothing.
        if name.starts_with(b".wh..wh.") {
            return Ok(());
        }
        let hidden = name.get(WHITEOUT.len()..).unwrap_or_default();
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(Refused::Content("whiteout of no name".into()));
        }
        let hidden = path.with_file_name(std::ffi::OsStr::from_bytes(hidden));
        let place = self.beneath.place(&hidden)?;
        match place.kind()? {
            None => Ok(mknodat(place.directory, place.name.as_os_str(), SFlag::S_IFCHR, Mode::empty(), makedev(0, 0))?),
            // Whiteouts hide lower layers' files, never this layer's own.
            Some((SFlag::S_IFDIR, _)) => {
                let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                let directory = File::from(openat(place.directory, place.name.as_os_str(), flags, Mode::empty())?);
                Ok(directory.set_xattr(OPAQUE, b"y")?)
            }
            Some(_) => Ok(()),
        }
    }

    fn hard_link(&mut self, path: &Path, entry: &Entry) -> Result<(), Refused> {
        let target = clean(&entry.link).map_err(|reason| Refused::Content(format!("link target: {reason}")))?;
        if target.file_name().is_none() {
            return Err(Refused::Content("link to the root".into()));
        }
        if target == path {
            return Err(Refused::Content("link to itself".into()));
        }
        let place = self.beneath.place(&target)?;
        let from = place.directory.try_clone_to_owned()?;
        let from_name = place.name.clone();
        match place.kind()? {
            None => return Err(Refused::Content("link to a file that is not in the layer".into())),
            Some((SFlag::S_IFDIR, _)) => return Err(Refused::Content("link to a directory".into())),
            Some((SFlag::S_IFCHR, 0)) => return Err(Refused::Content("link to a whiteout".into())),
            Some(_) => {}
        }
        let place = self.beneath.place(path)?;
        self.replaced |= clear(&place)?;
        // Without AT_SYMLINK_FOLLOW the link itself gets the second name.
        Ok(linkat(from.as_fd(), from_name.as_os_str(), place.directory, place.name.as_os_str(), AtFlags::empty())?)
    }

    fn finish(mut self) -> Result<u64, UnpackError> {
        self.beneath.forget();
        for (path, mtime) in std::mem::take(&mut self.directories).into_iter().rev() {
            if path.file_name().is_none() {
                let time = timespec(mtime);
                let root = File::from(self.beneath.root().try_clone_to_owned()?);
                futimens(&root, &time, &time).map_err(io::Error::from)?;
                continue;
            }
            let place = self.beneath.place(&path)?;
            // A later entry may have put something else there.
            if matches!(place.kind()?, Some((SFlag::S_IFDIR, _))) {
                match set_times(&place, mtime) {
                    Ok(()) | Err(Refused::Content(_)) => {}
                    Err(Refused::Io(error)) => return Err(error.into()),
                }
            }
        }
        Ok(self.size)
    }
}

/// Why an entry was not made.
enum Refused {
    Io(io::Error),
    Content(String),
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Errno> for Refused {
    fn from(errno: Errno) -> Self {
        Self::Io(errno.into())
    }
}

/// Makes way for a file. Directories go too, with all in them, as in Docker and containerd.
fn clear(place: &Place<'_>) -> Result<bool, Refused> {
    let there = place.kind()?.is_some();
    if there {
        place.remove()?;
    }
    Ok(there)
}

fn write_data<R: Read>(
    file: &mut File,
    entry: &Entry,
    archive: &mut Archive<R>,
    buffer: &mut [u8],
) -> Result<(), Refused> {
    if let Some(pieces) = &entry.pieces {
        for (offset, length) in pieces {
            file.seek(SeekFrom::Start(*offset))?;
            let mut left = *length;
            while left > 0 {
                let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
                let window = buffer.get_mut(..most).unwrap_or_default();
                let count = archive.read_data(window)?;
                if count == 0 {
                    return Err(Refused::Content("sparse file without its data".into()));
                }
                file.write_all(window.get(..count).unwrap_or_default())?;
                left -= u64::try_from(count).unwrap_or(left);
            }
        }
        return Ok(file.set_len(entry.size)?);
    }
    let mut hole_at_end = false;
    loop {
        let mut filled = 0;
        while filled < buffer.len() {
            match archive.read_data(buffer.get_mut(filled..).unwrap_or_default())? {
                0 => break,
                count => filled += count,
            }
        }
        if filled == 0 {
            break;
        }
        for block in buffer.get(..filled).unwrap_or_default().chunks(HOLE) {
            hole_at_end = block.len() == HOLE && block.iter().all(|byte| *byte == 0);
            if hole_at_end {
                file.seek(SeekFrom::Current(i64::try_from(block.len()).unwrap_or_default()))?;
            } else {
                file.write_all(block)?;
            }
        }
    }
    if hole_at_end {
        file.set_len(entry.size)?;
    }
    Ok(())
}

fn finish_directory(directory: &File, entry: &Entry) -> Result<(), Refused> {
    fchown(directory, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))?;
    directory.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(entry.mode))?;
    set_xattrs(directory, entry)
}

/// Sets what images legitimately carry: capabilities and users' attributes. Overlayfs's own (`trusted.overlay.*`) would let a
/// layer redirect names, and labels of the builder's security module mean nothing here.
fn set_xattrs(file: &File, entry: &Entry) -> Result<(), Refused> {
    for (name, value) in &entry.xattrs {
        if name != "security.capability" && !name.starts_with("user.") && !name.starts_with("system.posix_acl_") {
            continue;
        }
        match file.set_xattr(name, value) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported && name != "security.capability" => {}
            Err(error) => return Err(Refused::Content(format!("attribute {name}: {error}"))),
            Ok(()) => {}
        }
    }
    Ok(())
}

fn own(place: &Place<'_>, entry: &Entry) -> Result<(), Refused> {
    fchownat_entry(place, entry)?;
    set_times(place, entry.mtime)
}

fn fchownat_entry(place: &Place<'_>, entry: &Entry) -> Result<(), Refused> {
    let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
    Ok(fchownat(place.directory, place.name.as_os_str(), Some(uid), Some(gid), flags)?)
}

fn set_times(place: &Place<'_>, mtime: (i64, i64)) -> Result<(), Refused> {
    let time = timespec(mtime);
    Ok(utimensat(place.directory, place.name.as_os_str(), &time, &time, UtimensatFlags::NoFollowSymlink)?)
}

fn timespec((seconds, nanos): (i64, i64)) -> TimeSpec {
    TimeSpec::new(seconds, nanos)
}

#[cfg(test)]
mod tests;
