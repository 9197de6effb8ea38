//! Paths of a container, resolved where no link can lead out of it.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Component, Path, PathBuf},
};

use nix::{
    fcntl::OFlag,
    sys::stat::{Mode, SFlag, fstat, major, minor, mkdirat, mknodat},
};

use crate::sys;

/// The root this process has.
pub(super) fn root() -> io::Result<OwnedFd> {
    Ok(nix::fcntl::open("/", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?)
}

/// Opens a path as the container sees it. Links are followed inside the root; those of `/proc` that lead to descriptors
/// are not.
pub(super) fn open(path: &Path, flags: i32) -> io::Result<OwnedFd> {
    sys::open_beneath(root()?.as_fd(), path, flags, sys::RESOLVE_IN_ROOT | sys::RESOLVE_NO_MAGICLINKS)
}

/// The same for places that must be what they are called: no links at all.
pub(super) fn open_plain(path: &Path, flags: i32) -> io::Result<OwnedFd> {
    let resolve = sys::RESOLVE_IN_ROOT | sys::RESOLVE_NO_SYMLINKS;
    sys::open_beneath(root()?.as_fd(), path, flags, resolve)
}

/// What is to be where something is mounted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    File,
}

/// Opens a place to mount on, making it and what is above it when missing.
pub(super) fn open_or_make(path: &Path, kind: Kind) -> io::Result<OwnedFd> {
    match open(path, libc::O_PATH) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        result => return result,
    }
    let parts: Vec<_> = path.components().filter(|part| !matches!(part, Component::RootDir)).collect();
    let Some((last, above)) = parts.split_last() else { return root() };
    let mut sofar = PathBuf::new();
    let mut parent = root()?;
    for part in above {
        sofar.push(part);
        parent = make_directory(&parent, &sofar, part)?;
    }
    sofar.push(last);
    match kind {
        Kind::Directory => make_directory(&parent, &sofar, last),
        Kind::File => {
            match mknodat(&parent, last.as_os_str(), SFlag::S_IFREG, Mode::from_bits_truncate(0o644), 0) {
                Ok(()) | Err(nix::errno::Errno::EEXIST) => {}
                Err(error) => return Err(error.into()),
            }
            open(&sofar, libc::O_PATH)
        }
    }
}

fn make_directory(parent: &OwnedFd, path: &Path, name: &Component<'_>) -> io::Result<OwnedFd> {
    match open(path, libc::O_PATH | libc::O_DIRECTORY) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        result => return result,
    }
    match mkdirat(parent, name.as_os_str(), Mode::from_bits_truncate(0o755)) {
        Ok(()) | Err(nix::errno::Errno::EEXIST) => {}
        Err(error) => return Err(error.into()),
    }
    open(path, libc::O_PATH | libc::O_DIRECTORY)
}

/// The container's `/dev/null`, found to be that device and nothing a container has put there: what is opened by this name
/// becomes somebody's input, and what is mounted from it hides things (CVE-2025-31133).
pub(super) fn null() -> io::Result<OwnedFd> {
    let null = open_plain(Path::new("/dev/null"), libc::O_RDWR | libc::O_NOCTTY | libc::O_NONBLOCK)?;
    let found = fstat(&null)?;
    let number = (major(found.st_rdev), minor(found.st_rdev));
    let is_null = found.st_mode & libc::S_IFMT == libc::S_IFCHR && number == (1, 3);
    if !is_null {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not the null device"));
    }
    nix::fcntl::fcntl(&null, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_RDWR))?;
    Ok(null)
}

/// Reads a small regular file of the container; one that is not there is empty.
pub(super) fn read(path: &str) -> io::Result<String> {
    const LIMIT: u64 = 4 << 20;
    let file = match open(Path::new(path), libc::O_RDONLY | libc::O_NONBLOCK) {
        Ok(file) => std::fs::File::from(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(error),
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a regular file"));
    }
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(file, LIMIT), &mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
