//! Lasting claims: which images' layers containers stand on. They outlive the process that made them, as containers do.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use super::{Digest, Error, exclusive::Exclusive, io_error, session::Session, write_synced};

/// Bytes of an owner's name: a file name of at most 255 with its ending.
const OWNER_MAX: usize = 200;

/// All owners' claims.
pub(super) fn all(root: &Path) -> Result<BTreeMap<String, BTreeSet<Digest>>, Error> {
    let directory = root.join("claims");
    let failed = |source| io_error("list", &directory, source);
    let entries = match fs::read_dir(&directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        entries => entries.map_err(failed)?,
    };
    let mut claims = BTreeMap::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if let Some(owner) = name.and_then(|name| name.strip_suffix(".json")) {
            let images = read(&path)?;
            if !images.is_empty() {
                claims.insert(owner.to_owned(), images);
            }
        }
    }
    Ok(claims)
}

/// One owner's claims.
pub(super) fn of(root: &Path, owner: &str) -> Result<BTreeSet<Digest>, Error> {
    read(&path(root, owner)?)
}

/// Makes these the owner's claims.
pub(super) fn set(
    _exclusive: &Exclusive,
    session: &Session,
    root: &Path,
    owner: &str,
    images: &BTreeSet<Digest>,
) -> Result<(), Error> {
    let path = path(root, owner)?;
    if read(&path)? == *images {
        return Ok(());
    }
    let directory = root.join("claims");
    if images.is_empty() {
        return fs::remove_file(&path).map_err(|source| io_error("remove", &path, source));
    }
    fs::create_dir_all(&directory).map_err(|source| io_error("create", &directory, source))?;
    let bytes = serde_json::to_vec(images).map_err(|error| io_error("encode", &path, error.into()))?;
    // Whole, for processes that go on after this one. What a power cut takes back nobody needs: it ended the containers.
    let made = session.name("claim-");
    write_synced(&made, &bytes)?;
    fs::rename(&made, &path).map_err(|source| io_error("write", &path, source))
}

fn read(path: &Path) -> Result<BTreeSet<Digest>, Error> {
    match fs::read(path) {
        // What cannot be read is not taken for nothing: layers would be pulled from under containers.
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| io_error("read", path, error.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeSet::new()),
        Err(source) => Err(io_error("read", path, source)),
    }
}

fn path(root: &Path, owner: &str) -> Result<PathBuf, Error> {
    let good = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    if owner.is_empty() || owner.len() > OWNER_MAX || owner.starts_with('.') || !owner.bytes().all(good) {
        return Err(Error::Owner(owner.to_owned()));
    }
    Ok(root.join("claims").join(format!("{owner}.json")))
}
