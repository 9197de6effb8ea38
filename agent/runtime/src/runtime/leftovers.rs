//! What is left of sandboxes on the host's file systems: finding and removing it.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use nix::mount::{MntFlags, umount2};

use super::{Config, io_error};
use crate::{error::Error, id::SandboxId, record::SandboxRecord};

/// The sandboxes that have a directory.
pub(super) fn sandboxes(run: &Path) -> Result<BTreeSet<SandboxId>, Error> {
    let directory = run.join("sandboxes");
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(error) => return Err(io_error("read", &directory)(error)),
    };
    let mut found = BTreeSet::new();
    for entry in entries {
        let name = entry.map_err(io_error("read", &directory))?.file_name();
        found.extend(name.to_str().and_then(SandboxId::parse));
    }
    Ok(found)
}

/// Removes what was begun of sandboxes, or is left of them, without a record: nothing was ever started in one, or nothing runs
/// any more, and nobody would find it later. What cannot be removed now is tried again at the next start.
pub(super) fn remove_unrecorded(config: &Config, sandboxes: &mut BTreeSet<SandboxId>) {
    sandboxes.retain(|id| {
        let of = |place: &Path| place.join("sandboxes").join(id.as_str());
        if SandboxRecord::read(&of(&config.run)).is_ok() {
            return true;
        }
        let removed = remove_files(&of(&config.run), &of(&config.root));
        if let Err(error) = &removed {
            tracing::warn!(error = error as &(dyn std::error::Error + 'static), "a sandbox without a record is left");
        }
        removed.is_err()
    });
}

/// After a boot the run directory is empty and the writable layers of then belong to nobody. What cannot be removed now is
/// tried again at the next start.
pub(super) fn remove_orphaned_layers(config: &Config, living: &BTreeSet<SandboxId>) {
    let Ok(entries) = fs::read_dir(config.root.join("sandboxes")) else { return };
    for entry in entries.flatten() {
        let id = entry.file_name().to_str().and_then(SandboxId::parse);
        if id.is_some_and(|id| !living.contains(&id))
            && let Err(error) = remove_tree(&entry.path())
        {
            tracing::warn!(error = &error as &(dyn std::error::Error + 'static), "an old writable layer is left");
        }
    }
}

/// Removes directories of sandboxes and what is mounted in them. Run directories last: while they are there, the sandbox is
/// found.
pub(super) fn remove_files(run: &Path, layers: &Path) -> Result<(), Error> {
    unmount_below(run)?;
    unmount_below(layers)?;
    let layers = remove_tree(layers);
    layers.and(remove_tree(run))
}

pub(super) fn remove_tree(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", path)(error)),
        _ => Ok(()),
    }
}

fn unmount_below(directory: &Path) -> Result<(), Error> {
    const TABLE: &str = "/proc/self/mountinfo";
    let table = fs::read_to_string(TABLE).map_err(io_error("read", Path::new(TABLE)))?;
    // The path is given as it was asked for, the table tells it without links.
    let Ok(directory) = directory.canonicalize() else { return Ok(()) };
    for mount in mounts_below(&table, &directory).iter().rev() {
        match umount2(mount, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) | Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => {}
            Err(error) => return Err(io_error("unmount", mount)(error.into())),
        }
    }
    Ok(())
}

/// Mounts in a directory, in the order they were made (proc(5), `/proc/pid/mountinfo`).
fn mounts_below(table: &str, directory: &Path) -> Vec<PathBuf> {
    let places = table.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape);
    places.filter(|place| place.starts_with(directory)).collect()
}

/// Spaces and the like are written as octal numbers.
fn unescape(text: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..3).filter(|_| *first == b'\\');
        let code = code.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(code.unwrap_or(*first));
        rest = after.get(if code.is_some() { 3 } else { 0 }..).unwrap_or_default();
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_found_by_whole_names_and_with_spaces() {
        let table = "1 2 0:1 / /run/a\\040b/shm rw - tmpfs shm rw\n\
                     1 2 0:1 / /run/a\\040bc rw - tmpfs shm rw\n\
                     1 2 0:1 / /run/a\\040b/shm/x rw - tmpfs shm rw\n";
        assert_eq!(
            mounts_below(table, Path::new("/run/a b")),
            [Path::new("/run/a b/shm"), Path::new("/run/a b/shm/x")]
        );
    }
}
