//! Files with secrets in them: 0600, whole or absent.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use super::Error;

fn at(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File { step, path, source }
}

/// A path beside `path` for what is not finished.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    path.with_file_name(name)
}

fn sync_dir(dir: &Path) -> Result<(), Error> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(at("sync the directory", dir))
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes the directory (0700) and those above it.
pub(super) fn make_dir(dir: &Path) -> Result<(), Error> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(at("make the directory", dir))
}

/// Whether there is something at `path`.
pub(super) fn exists(path: &Path) -> Result<bool, Error> {
    path.try_exists().map_err(at("look for", path))
}

/// The file's text.
pub(super) fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(at("read", path))
}

fn write_synced(path: &Path, text: &str) -> Result<(), Error> {
    // What a cut-off write left is removed rather than truncated: its mode is not known.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at("remove", path)(error)),
        _ => {}
    }
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(at("create", path))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(at("write", path))
}

/// Puts `text` at `path`: after a cut at any moment there is the old file or the new one.
pub(super) fn write(path: &Path, text: &str) -> Result<(), Error> {
    let new = beside(path);
    write_synced(&new, text)?;
    fs::rename(&new, path).map_err(at("rename into", path))?;
    sync_dir(parent(path))
}

/// Puts the files into `dir`. All of them appear or none where `dir` is not there yet; where it is (somebody made it,
/// empty or with other things in it) they are written one by one, the first last, since its being there says all are.
pub(super) fn make_filled_dir(dir: &Path, contents: &[(&str, String)]) -> Result<(), Error> {
    if exists(dir)? {
        for (name, text) in contents.iter().rev() {
            write(&dir.join(name), text)?;
        }
        return Ok(());
    }
    make_dir(parent(dir))?;
    let new = beside(dir);
    match fs::remove_dir_all(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at("remove", &new)(error)),
        _ => {}
    }
    make_dir(&new)?;
    for (name, text) in contents {
        write_synced(&new.join(name), text)?;
    }
    sync_dir(&new)?;
    fs::rename(&new, dir).map_err(at("rename into", dir))?;
    sync_dir(parent(dir))
}
