//! Who a container runs as: users and groups looked up in the image's own files, through the order of its layers.

use std::{
    fs,
    io::{self, Read},
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

/// More of a passwd or group file than this is not read.
const FILE_MAX: u64 = 4 << 20;

/// As many symbolic links as the kernel follows (`path_resolution(7)`).
const LINKS_MAX: usize = 40;

/// A user as the kernel knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Groups that `/etc/group` puts the user in, without the primary one.
    pub groups: Vec<u32>,
    /// The user's home directory, `/` when the image does not say.
    pub home: String,
    /// The user's name, if the image has one.
    pub name: Option<String>,
}

/// Why a user cannot be found.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// `/etc/passwd` has no such user.
    #[error("unable to find user {0}: no matching entries in passwd file")]
    User(String),
    /// `/etc/group` has no such group.
    #[error("unable to find group {0}: no matching entries in group file")]
    Group(String),
    /// The files cannot be read.
    #[error("read {path} in the image: {source}")]
    Io {
        /// The file.
        path: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// Looks up `user`, `uid`, `user:group` or `uid:gid`; `layers` are directories, lowest first.
pub(crate) fn identity(layers: &[PathBuf], spec: &str) -> Result<Identity, UserError> {
    let passwd = read_text(layers, "/etc/passwd")?;
    let group = read_text(layers, "/etc/group")?;
    resolve(&passwd, &group, spec)
}

fn read_text(layers: &[PathBuf], path: &'static str) -> Result<String, UserError> {
    let wrap = |source| UserError::Io { path, source };
    let Some(file) = find(layers, path).map_err(wrap)?.filter(|found| found.is_file()) else {
        return Ok(String::new());
    };
    let mut bytes = Vec::new();
    fs::File::open(file).and_then(|file| file.take(FILE_MAX).read_to_end(&mut bytes)).map_err(wrap)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn resolve(passwd: &str, group: &str, spec: &str) -> Result<Identity, UserError> {
    let (user, wanted_group) = match spec.split_once(':') {
        Some((user, group)) => (user, group),
        None => (spec, ""),
    };
    let user = if user.is_empty() { "0" } else { user };
    let entries = || {
        passwd.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            let uid: u32 = fields.nth(1)?.parse().ok()?;
            let gid: u32 = fields.next()?.parse().ok()?;
            let home = fields.nth(1).unwrap_or_default();
            Some((name, uid, gid, home))
        })
    };
    let number: Option<u32> = user.parse().ok();
    // A name of digits is a name first, as in runc.
    let entry = entries()
        .find(|(name, ..)| *name == user)
        .or_else(|| number.and_then(|number| entries().find(|(_, uid, ..)| *uid == number)));
    let (uid, mut gid) = match (entry, number) {
        (Some((_, uid, gid, _)), _) => (uid, gid),
        (None, Some(uid)) => (uid, 0),
        (None, None) => return Err(UserError::User(user.to_owned())),
    };
    let name = entry.map(|(name, ..)| name.to_owned());
    let groups_of = || {
        group.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            let gid: u32 = fields.nth(1)?.parse().ok()?;
            Some((name, gid, fields.next().unwrap_or_default()))
        })
    };
    if !wanted_group.is_empty() {
        let number: Option<u32> = wanted_group.parse().ok();
        gid = groups_of()
            .find(|(name, ..)| *name == wanted_group)
            .map(|(_, gid, _)| gid)
            .or(number)
            .ok_or_else(|| UserError::Group(wanted_group.to_owned()))?;
    }
    let mut groups: Vec<u32> = groups_of()
        .filter(|(_, id, members)| {
            *id != gid && name.as_deref().is_some_and(|name| members.split(',').any(|member| member == name))
        })
        .map(|(_, id, _)| id)
        .collect();
    groups.sort_unstable();
    groups.dedup();
    let home = match entry {
        Some((.., home)) if !home.is_empty() => home,
        _ => "/",
    };
    Ok(Identity { uid, gid, groups, home: home.to_owned(), name })
}

/// What a container would see at a path of the image, in the highest layer that has it: upper layers hide lower ones, whiteouts
/// and opaque directories hide what is below, symbolic links are followed inside the image only. `layers` are directories,
/// lowest first.
pub(crate) fn find(layers: &[PathBuf], path: &str) -> io::Result<Option<PathBuf>> {
    let mut todo: Vec<String> = components(path);
    let mut at: Vec<String> = Vec::new();
    let mut links = 0;
    'restart: loop {
        // Layers, highest first, in which the path walked so far is a real directory.
        let mut active: Vec<&Path> = layers.iter().rev().map(PathBuf::as_path).collect();
        let walked: Vec<String> = std::mem::take(&mut at);
        let mut rest = walked.into_iter().chain(std::mem::take(&mut todo)).peekable();
        let mut prefix = PathBuf::new();
        while let Some(component) = rest.next() {
            if component == ".." {
                let parent = prefix.parent().map(Path::to_path_buf).unwrap_or_default();
                at = components(&parent.to_string_lossy());
                todo = rest.collect();
                continue 'restart;
            }
            prefix.push(&component);
            let mut next: Vec<&Path> = Vec::new();
            for layer in &active {
                let full = layer.join(&prefix);
                let meta = match fs::symlink_metadata(&full) {
                    Ok(meta) => meta,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(error),
                };
                if meta.is_dir() {
                    next.push(layer);
                    if is_opaque(&full) {
                        break;
                    }
                    continue;
                }
                if !next.is_empty() || (meta.file_type().is_char_device() && meta.rdev() == 0) {
                    break;
                }
                if meta.is_symlink() {
                    links += 1;
                    if links > LINKS_MAX {
                        return Ok(None);
                    }
                    let target = fs::read_link(&full)?;
                    let target = target.to_string_lossy();
                    at = if target.starts_with('/') {
                        Vec::new()
                    } else {
                        let parent = prefix.parent().map(Path::to_path_buf).unwrap_or_default();
                        components(&parent.to_string_lossy())
                    };
                    todo = components(&target).into_iter().chain(rest).collect();
                    continue 'restart;
                }
                return Ok(rest.peek().is_none().then_some(full));
            }
            if next.is_empty() {
                return Ok(None);
            }
            active = next;
        }
        return Ok(active.first().map(|layer| layer.join(&prefix)));
    }
}

fn components(path: &str) -> Vec<String> {
    path.split('/').filter(|part| !part.is_empty() && *part != ".").map(str::to_owned).collect()
}

fn is_opaque(directory: &Path) -> bool {
    matches!(xattr::get(directory, "trusted.overlay.opaque"), Ok(Some(value)) if value == b"y")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nwww:x:33:34::/var/www:/bin/false\nbroken\n1000:x:7:7::/seven:\n";
    const GROUP: &str = "root:x:0:\nwww:x:34:\nadm:x:4:other,www\nssl:x:5:www\n";

    #[test]
    fn users_are_found_by_name_and_number() {
        for (spec, uid, gid, groups, home) in [
            ("", 0, 0, vec![], "/root"),
            ("www", 33, 34, vec![4, 5], "/var/www"),
            ("33", 33, 34, vec![4, 5], "/var/www"),
            ("www:adm", 33, 4, vec![5], "/var/www"),
            ("www:77", 33, 77, vec![4, 5], "/var/www"),
            ("12345", 12345, 0, vec![], "/"),
            ("12345:6", 12345, 6, vec![], "/"),
            ("1000", 7, 7, vec![], "/seven"),
        ] {
            let found = resolve(PASSWD, GROUP, spec).unwrap();
            assert_eq!((found.uid, found.gid, found.groups, found.home.as_str()), (uid, gid, groups, home), "{spec}");
        }
        assert_eq!(
            resolve(PASSWD, GROUP, "nobody").unwrap_err().to_string(),
            "unable to find user nobody: no matching entries in passwd file"
        );
        assert!(matches!(resolve(PASSWD, GROUP, "www:nope"), Err(UserError::Group(_))));
        assert_eq!(resolve("", "", "").unwrap().uid, 0);
    }

    #[test]
    fn files_are_found_through_the_layers_and_links_stay_inside() {
        let dir = tempfile::tempdir().unwrap();
        let layers: Vec<PathBuf> = ["low", "high"].iter().map(|l| dir.path().join(l)).collect();
        for layer in &layers {
            fs::create_dir_all(layer.join("etc")).unwrap();
        }
        fs::write(layers[0].join("etc/passwd"), "low").unwrap();
        assert_eq!(find(&layers, "/etc/passwd").unwrap().unwrap(), layers[0].join("etc/passwd"));
        fs::create_dir_all(layers[0].join("usr/lib")).unwrap();
        fs::write(layers[0].join("usr/lib/passwd"), "linked").unwrap();
        assert_eq!(find(&layers, "usr/lib").unwrap().unwrap(), layers[0].join("usr/lib"));
        assert_eq!(find(&layers, "etc").unwrap().unwrap(), layers[1].join("etc"));
        assert_eq!(find(&layers, "usr/lib/passwd/more").unwrap(), None);
        assert_eq!(find(&layers, "usr/bin").unwrap(), None);
        std::os::unix::fs::symlink("../usr/lib/passwd", layers[1].join("etc/passwd")).unwrap();
        assert_eq!(find(&layers, "/etc/passwd").unwrap().unwrap(), layers[0].join("usr/lib/passwd"));
        fs::remove_file(layers[1].join("etc/passwd")).unwrap();
        std::os::unix::fs::symlink("/../../../../etc/hostname", layers[1].join("etc/passwd")).unwrap();
        assert_eq!(find(&layers, "/etc/passwd").unwrap(), None);
        fs::remove_file(layers[1].join("etc/passwd")).unwrap();
        std::os::unix::fs::symlink("passwd", layers[1].join("etc/passwd")).unwrap();
        assert_eq!(find(&layers, "/etc/passwd").unwrap(), None);
    }
}
