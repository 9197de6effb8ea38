//! Writes a volume's files so that readers see all of the old ones or all of the new ones, never a mixture.
//!
//! The way Kubernetes does it (`AtomicWriter`): the files are written into a new directory `..<time>`, the link `..data` is
//! renamed over to point to it, and the names people see are links through `..data`. Programs watch for that rename.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, Permissions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;

use super::{Error, File, Payload};

/// The link all names go through.
const DATA: &str = "..data";

/// Makes `dir` hold exactly `payload`; files get the group `group` if one is given. Answers whether anything changed.
///
/// `stamp` names the new directory and differs from call to call; it is passed in, as time is.
///
/// # Errors
/// [`Error::Io`] with the step; readers see the old files then.
pub(crate) fn write(dir: &Path, payload: &Payload, group: Option<u32>, stamp: &str) -> Result<bool, Error> {
    let data = dir.join(DATA);
    let old = fs::read_link(&data).ok();
    if let Some(old) = &old
        && holds(&dir.join(old), payload)
    {
        return Ok(false);
    }
    let name = format!("..{stamp}");
    let fresh = dir.join(&name);
    make_dir(&fresh, group)?;
    for (path, file) in payload {
        put(&fresh, path, file, group)?;
    }

    // The rename is what readers notice.
    let link = dir.join("..data_tmp");
    remove(&link)?;
    symlink(&name, &link).map_err(|e| Error::io("link", &link, e))?;
    fs::rename(&link, &data).map_err(|e| Error::io("rename", &link, e))?;

    let tops: BTreeSet<&str> = payload.keys().filter_map(|p| p.split('/').next()).collect();
    for top in &tops {
        let visible = dir.join(top);
        let target = Path::new(DATA).join(top);
        if fs::read_link(&visible).ok().as_deref() != Some(&target) {
            remove(&visible)?;
            symlink(&target, &visible).map_err(|e| Error::io("link", &visible, e))?;
        }
    }
    for entry in fs::read_dir(dir).map_err(|e| Error::io("read", dir, e))?.flatten() {
        let file_name = entry.file_name();
        let Some(found) = file_name.to_str() else { continue };
        let stale = match found.strip_prefix("..") {
            Some(_) => found != DATA && found != name,
            None => !tops.contains(found),
        };
        if stale {
            remove(&entry.path())?;
        }
    }
    Ok(true)
}

/// Whether `dir` holds the same files with the same bytes and modes. Modes are compared without what a group adds.
fn holds(dir: &Path, payload: &Payload) -> bool {
    let mut found = 0_usize;
    let mut pending = vec![dir.to_owned()];
    while let Some(next) = pending.pop() {
        let Ok(entries) = fs::read_dir(&next) else { return false };
        for entry in entries.flatten() {
            let path = entry.path();
            if path.is_dir() {
                pending.push(path);
                continue;
            }
            let Some(name) = path.strip_prefix(dir).ok().and_then(Path::to_str) else { return false };
            let Some(file) = payload.get(name) else { return false };
            if fs::read(&path).ok().as_deref() != Some(&file.data) {
                return false;
            }
            found += 1;
        }
    }
    found == payload.len()
}

fn make_dir(path: &Path, group: Option<u32>) -> Result<(), Error> {
    DirBuilder::new().recursive(true).mode(0o755).create(path).map_err(|e| Error::io("make", path, e))?;
    if let Some(group) = group {
        own(path, None, Some(group))?;
        // New files inherit the group.
        set_mode(path, 0o2775)?;
    } else {
        set_mode(path, 0o755)?;
    }
    Ok(())
}

fn put(root: &Path, path: &str, file: &File, group: Option<u32>) -> Result<(), Error> {
    let target = root.join(path);
    if let Some(parent) = target.parent()
        && parent != root
    {
        make_dir(parent, group)?;
    }
    let mut out = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&target)
        .map_err(|e| Error::io("create", &target, e))?;
    out.write_all(&file.data).map_err(|e| Error::io("write", &target, e))?;
    own(&target, file.owner, group)?;
    // The group may read what the pod's group owns.
    let mode = if group.is_some() { file.mode | 0o440 } else { file.mode };
    set_mode(&target, mode)
}

fn set_mode(path: &Path, mode: u32) -> Result<(), Error> {
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(|e| Error::io("set mode of", path, e))
}

fn own(path: &Path, user: Option<u32>, group: Option<u32>) -> Result<(), Error> {
    if user.is_none() && group.is_none() {
        return Ok(());
    }
    std::os::unix::fs::lchown(path, user, group).map_err(|e| Error::io("set owner of", path, e))
}

fn remove(path: &Path) -> Result<(), Error> {
    let result = match fs::symlink_metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(e) => Err(e),
    };
    result.map_err(|e| Error::io("remove", path, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        files
            .iter()
            .map(|(p, d)| ((*p).to_owned(), File { data: d.as_bytes().to_vec(), mode: 0o640, owner: None }))
            .collect()
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn names_are_links_through_the_data_link() {
        let dir = tempfile::tempdir().unwrap();
        assert!(write(dir.path(), &payload(&[("a", "1"), ("d/x", "2")]), None, "s1").unwrap());
        assert_eq!(names(dir.path()), ["..data", "..s1", "a", "d"]);
        assert_eq!(fs::read_link(dir.path().join("a")).unwrap(), Path::new("..data/a"));
        assert_eq!(fs::read_to_string(dir.path().join("d/x")).unwrap(), "2");
        assert_eq!(fs::metadata(dir.path().join("a")).unwrap().permissions().mode() & 0o777, 0o640);
    }

    #[test]
    fn an_update_replaces_everything_at_once_and_leaves_nothing_old() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &payload(&[("a", "1"), ("gone/x", "2")]), None, "s1").unwrap();
        assert!(write(dir.path(), &payload(&[("a", "3"), ("new", "4")]), None, "s2").unwrap());
        assert_eq!(names(dir.path()), ["..data", "..s2", "a", "new"]);
        assert_eq!(fs::read_to_string(dir.path().join("a")).unwrap(), "3");
    }

    #[test]
    fn the_same_files_are_not_written_again() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &payload(&[("a", "1")]), None, "s1").unwrap();
        assert!(!write(dir.path(), &payload(&[("a", "1")]), None, "s2").unwrap());
        assert_eq!(names(dir.path()), ["..data", "..s1", "a"]);
    }

    #[test]
    fn an_update_cut_short_is_finished_by_the_next() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &payload(&[("a", "1")]), None, "s1").unwrap();
        fs::create_dir(dir.path().join("..s2")).unwrap();
        symlink("..s2", dir.path().join("..data_tmp")).unwrap();
        assert!(write(dir.path(), &payload(&[("a", "2")]), None, "s3").unwrap());
        assert_eq!(names(dir.path()), ["..data", "..s3", "a"]);
    }
}
