//! Which directory may be a store. Whatever lies in a store's `tmp` and is nobody's is swept, so a directory that somebody else
//! has is not taken for one.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::Path,
};

use super::{Error, io_error};

/// What there is in a store, and in a disk of its own.
const PARTS: [&str; 8] = ["lock", "index.json", "configs", "layers", "claims", "tmp", "rights", "lost+found"];

/// Says whether the directory is a store, or empty, or not there.
pub(in crate::image) fn check(root: &Path) -> Result<(), Error> {
    let failed = |source| io_error("list", root, source);
    let entries = match fs::read_dir(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed)?,
    };
    let mut swept = None;
    for entry in entries {
        let name = entry.map_err(failed)?.file_name();
        if name == "tmp" {
            swept = Some(name);
        } else if !PARTS.iter().any(|part| name == *part) {
            return Err(Error::NotAStore { path: root.to_owned(), entry: name });
        }
    }
    // The lock is there before anything is swept.
    match swept.filter(|_| !root.join("lock").exists()) {
        Some(entry) => Err(Error::NotAStore { path: root.to_owned(), entry }),
        None => Ok(()),
    }
}

/// Makes it one; for its owner alone, because layers have programs that run as root for everybody.
pub(super) fn make(root: &Path) -> Result<(), Error> {
    check(root)?;
    let failed = |source| io_error("create", root, source);
    DirBuilder::new().recursive(true).mode(0o700).create(root).map_err(failed)?;
    for part in ["configs", "layers", "claims"] {
        let path = root.join(part);
        fs::create_dir_all(&path).map_err(|source| io_error("create", &path, source))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_directory_with_other_things_in_it_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        for foreign in [&["tmp"][..], &["lost+found", "tmp"], &["index.json", "blobs"], &["lock", "layers", "home"]] {
            let root = folder.path().join(foreign.join("-"));
            for name in foreign {
                fs::create_dir_all(root.join(name).join("kept")).unwrap();
            }
            let error = make(&root).unwrap_err();
            let last = foreign.last().unwrap();
            assert!(error.to_string().ends_with(&format!("holds {last:?}, which no image store has")), "{error}");
            assert_eq!(fs::read_dir(&root).unwrap().count(), foreign.len());
        }
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(matches!(check(&file), Err(Error::Io { .. })));
    }

    #[test]
    fn what_is_made_is_a_store_for_root_alone_also_in_a_disk_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("a/b");
        check(&root).unwrap();
        make(&root).unwrap();
        make(&root).unwrap();
        assert_eq!(fs::metadata(&root).unwrap().permissions().mode() & 0o777, 0o700);
        let disk = folder.path().join("disk");
        fs::create_dir_all(disk.join("lost+found")).unwrap();
        make(&disk).unwrap();
    }
}
