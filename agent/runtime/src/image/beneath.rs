//! A directory that paths from strangers cannot leave: every path is resolved by the kernel with the directory as its root
//! (`openat2(2)`, `RESOLVE_IN_ROOT`), so that `..`, absolute links and links that change meanwhile stay inside.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2},
    sys::stat::{Mode, SFlag, fstatat, mkdirat},
    unistd::{UnlinkatFlags, unlinkat},
};

/// Longest path (`PATH_MAX`).
const PATH_MAX: usize = 4096;

/// The directory.
pub(super) struct Beneath {
    root: OwnedFd,
    /// The directory opened last: archives list a directory's files one after the other.
    last: Option<(PathBuf, OwnedFd)>,
}

/// A name in an open directory.
pub(super) struct Place<'a> {
    pub(super) directory: BorrowedFd<'a>,
    pub(super) name: OsString,
}

impl Beneath {
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        let root = File::open(root)?;
        Ok(Self { root: root.into(), last: None })
    }

    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Where a path's last part goes; directories before it are made when absent. The path must be a [`clean`] one.
    pub(super) fn place(&mut self, path: &Path) -> io::Result<Place<'_>> {
        let name = path.file_name().ok_or(Errno::EINVAL)?.to_owned();
        let parent = path.parent().unwrap_or(Path::new(""));
        if self.last.as_ref().is_none_or(|(known, _)| known != parent) {
            let directory = self.directory(parent)?;
            self.last = Some((parent.to_owned(), directory));
        }
        let directory = self.last.as_ref().map_or(self.root.as_fd(), |(_, directory)| directory.as_fd());
        Ok(Place { directory, name })
    }

    /// Forgets open directories: one of them may have been replaced.
    pub(super) fn forget(&mut self) {
        self.last = None;
    }

    /// Opens a file for reading.
    pub(super) fn open_file(&self, path: &Path) -> io::Result<File> {
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = File::from(self.resolve(path, flags)?);
        if file.metadata()?.is_file() { Ok(file) } else { Err(Errno::EINVAL.into()) }
    }

    fn directory(&self, path: &Path) -> io::Result<OwnedFd> {
        if path.as_os_str().is_empty() {
            return self.root.try_clone();
        }
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        match self.resolve(path, flags) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            answer => return answer,
        }
        // Recursion is bounded by the path's length, which `clean` bounds.
        let parent = self.directory(path.parent().unwrap_or(Path::new("")))?;
        let name = path.file_name().ok_or(Errno::EINVAL)?;
        match mkdirat(&parent, name, Mode::from_bits_truncate(0o755)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        self.resolve(path, flags)
    }

    fn resolve(&self, path: &Path, flags: OFlag) -> io::Result<OwnedFd> {
        let how =
            OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        loop {
            match openat2(&self.root, path, how) {
                // The kernel saw a rename while it resolved (openat2(2)); nobody else renames here, but another layer of
                // the file system may.
                Err(Errno::EAGAIN) => {}
                answer => return Ok(answer?),
            }
        }
    }
}

impl Place<'_> {
    /// What is there: file type and device, links not followed.
    pub(super) fn kind(&self) -> io::Result<Option<(SFlag, u64)>> {
        match fstatat(self.directory, self.name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some((SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()), stat.st_rdev))),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Removes what is there, with everything in it.
    pub(super) fn remove(&self) -> io::Result<()> {
        match self.kind()? {
            None => Ok(()),
            Some((SFlag::S_IFDIR, _)) => std::fs::remove_dir_all(self.through_proc()),
            Some(_) => Ok(unlinkat(self.directory, self.name.as_os_str(), UnlinkatFlags::NoRemoveDir)?),
        }
    }

    /// A path to it by way of the open directory, for calls that take only paths.
    pub(super) fn through_proc(&self) -> PathBuf {
        let directory = format!("/proc/self/fd/{}", self.directory.as_raw_fd());
        Path::new(&directory).join(&self.name)
    }
}

/// A path from an archive, relative and without `.`; an error when it has `..`, a NUL, or is too long.
pub(super) fn clean(path: &[u8]) -> Result<PathBuf, &'static str> {
    if path.len() >= PATH_MAX {
        return Err("path is too long");
    }
    if path.contains(&0) {
        return Err("path holds a NUL");
    }
    let mut clean = PathBuf::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err("path leaves its directory"),
            part if part.len() > 255 => return Err("path has a part that is too long"),
            part => clean.push(OsStr::from_bytes(part)),
        }
    }
    Ok(clean)
}
