//! `hostPath` volumes: the path's type is checked, and made where the type says so.

use std::fs::{self, DirBuilder, FileType, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

use super::Error;

/// Checks (and for `DirectoryOrCreate` and `FileOrCreate` makes) `path`.
///
/// # Errors
/// [`Error::HostPath`] when it is something else, [`Error::Io`].
pub(crate) fn check(path: &Path, kind: &str) -> Result<(), Error> {
    let is = |wanted: &'static str, test: fn(&FileType) -> bool| -> Result<(), Error> {
        match fs::metadata(path) {
            Ok(meta) if test(&meta.file_type()) => Ok(()),
            _ => Err(Error::HostPath { path: path.display().to_string(), wanted }),
        }
    };
    match kind {
        // Nothing is checked; what is not there is made a directory, as container runtimes do for bind mounts.
        "" => {
            if fs::metadata(path).is_err() {
                make_dir(path)?;
            }
            Ok(())
        }
        "DirectoryOrCreate" => {
            if fs::metadata(path).is_err() {
                make_dir(path)?;
            }
            is("a directory", FileType::is_dir)
        }
        "FileOrCreate" => {
            if fs::metadata(path).is_err() {
                OpenOptions::new()
                    .write(true)
                    .create(true)
                    .truncate(false)
                    .mode(0o644)
                    .open(path)
                    .map_err(|e| Error::io("create", path, e))?;
            }
            is("a file", FileType::is_file)
        }
        "Directory" => is("a directory", FileType::is_dir),
        "File" => is("a file", FileType::is_file),
        "Socket" => is("a socket file", FileType::is_socket),
        "CharDevice" => is("a character device", FileType::is_char_device),
        "BlockDevice" => is("a block device", FileType::is_block_device),
        other => Err(Error::Unsupported { kind: format!("hostPath with type {other}") }),
    }
}

fn make_dir(path: &Path) -> Result<(), Error> {
    DirBuilder::new().recursive(true).mode(0o755).create(path).map_err(|e| Error::io("make", path, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_checked_and_made_where_said() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "x").unwrap();
        let none = dir.path().join("none");
        for (path, kind, ok) in [
            (dir.path(), "Directory", true),
            (&file, "Directory", false),
            (&file, "File", true),
            (dir.path(), "File", false),
            (&none, "Directory", false),
            (&none, "File", false),
            (&file, "Socket", false),
            (Path::new("/dev/null"), "CharDevice", true),
            (Path::new("/dev/null"), "BlockDevice", false),
            (&file, "Other", false),
        ] {
            assert_eq!(check(path, kind).is_ok(), ok, "{} {kind}", path.display());
        }
        check(&dir.path().join("d/e"), "DirectoryOrCreate").unwrap();
        check(&dir.path().join("f"), "FileOrCreate").unwrap();
        assert!(dir.path().join("d/e").is_dir() && dir.path().join("f").is_file());
        assert!(check(&file, "DirectoryOrCreate").is_err());
    }
}
