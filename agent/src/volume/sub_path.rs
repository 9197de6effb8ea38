//! `subPath`: a part of a volume, found without ever leaving the volume, whatever links its owner put there.
//!
//! The pod owns the volume and may swap a directory for a link between a check and a use (CVE-2017-1002101,
//! CVE-2021-25741). So the part is opened once with `openat2(RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS)`, and what was
//! opened – not its name – is bind-mounted to a place of the node's own, from where containers get it.

use std::fs::{self, OpenOptions};
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, mkdirat};

use super::Error;

/// Mounts `sub_path` of `volume` at `target`; makes missing directories of it first.
///
/// # Errors
/// [`Error::Path`] when the path is absolute or climbs, [`Error::Io`] with the step.
pub(crate) fn bind(volume: &Path, sub_path: &str, target: &Path) -> Result<(), Error> {
    let parts: Vec<&str> = sub_path.split('/').filter(|p| !p.is_empty() && *p != ".").collect();
    if sub_path.starts_with('/') || parts.contains(&"..") || parts.is_empty() {
        return Err(Error::Path { path: sub_path.to_owned() });
    }
    let relative: PathBuf = parts.iter().collect();
    let root = open_root(volume)?;
    let opened = match open_beneath(&root, &relative) {
        Ok(opened) => opened,
        Err(nix::Error::ENOENT) => {
            make_beneath(&root, volume, &relative)?;
            open_beneath(&root, &relative).map_err(|e| Error::io("open", &volume.join(&relative), e))?
        }
        Err(e) => return Err(Error::io("open", &volume.join(&relative), e)),
    };
    let source = opened_path(&opened);
    unbind(target)?;
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent).map_err(|e| Error::io("make", parent, e))?;
    }
    let directory = fs::metadata(&source).map_err(|e| Error::io("stat", &source, e))?.is_dir();
    if directory {
        fs::create_dir_all(target).map_err(|e| Error::io("make", target, e))?;
    } else {
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(target)
            .map_err(|e| Error::io("create", target, e))?;
    }
    mount(Some(&source), target, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .map_err(|e| Error::io("mount", target, e))
}

/// The text of a file of `volume`, found without ever leaving it; none if it is not there.
///
/// # Errors
/// [`Error::Path`] when the path is absolute or climbs, [`Error::Io`] with the step, also for what is no file or too large.
pub(crate) fn read(volume: &Path, path: &str) -> Result<Option<String>, Error> {
    /// More than an environment can hold (execve(2): a variable has 128 KiB at most).
    const LARGEST: u64 = 1 << 20;
    if path.starts_with('/') || path.split('/').any(|part| part == "..") {
        return Err(Error::Path { path: path.to_owned() });
    }
    let shown = volume.join(path);
    let io = |step, error: std::io::Error| Error::io(step, &shown, error);
    // Whoever has the volume may put a pipe there, which is not waited for.
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let opened = match openat2(open_root(volume)?, Path::new(path), how) {
        Ok(opened) => fs::File::from(opened),
        Err(nix::Error::ENOENT) => return Ok(None),
        Err(error) => return Err(io("open", error.into())),
    };
    let about = opened.metadata().map_err(|error| io("stat", error))?;
    if !about.is_file() || about.len() > LARGEST {
        return Err(io("read", std::io::Error::other("no regular file of at most 1 MiB")));
    }
    let mut text = String::new();
    opened.take(LARGEST).read_to_string(&mut text).map_err(|error| io("read", error))?;
    Ok(Some(text))
}

/// Takes away what [`bind`] mounted; nothing there is no error.
///
/// # Errors
/// [`Error::Io`].
pub(crate) fn unbind(target: &Path) -> Result<(), Error> {
    match umount2(target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        // EINVAL: not a mount point.
        Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => Ok(()),
        Err(e) => Err(Error::io("unmount", target, e)),
    }
}

/// What is open, by a name that is its alone.
fn opened_path(opened: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd()))
}

fn open_root(volume: &Path) -> Result<OwnedFd, Error> {
    nix::fcntl::open(volume, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).map_err(|e| Error::io("open", volume, e))
}

fn open_beneath(root: &OwnedFd, relative: &Path) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(root, relative, how)
}

/// Makes the missing directories of `relative` with the volume's own mode, one step at a time, each opened before the next is
/// made in it.
fn make_beneath(root: &OwnedFd, volume: &Path, relative: &Path) -> Result<(), Error> {
    let mode = nix::sys::stat::fstat(root).map_err(|e| Error::io("stat", volume, e))?.st_mode & 0o777;
    let mut made = PathBuf::new();
    for part in relative.components() {
        let Component::Normal(name) = part else { continue };
        let parent = if made.as_os_str().is_empty() {
            None
        } else {
            Some(open_beneath(root, &made).map_err(|e| Error::io("open", &volume.join(&made), e))?)
        };
        match mkdirat(parent.as_ref().unwrap_or(root), Path::new(name), Mode::from_bits_truncate(0o750)) {
            Ok(()) => {
                made.push(name);
                let opened = open_beneath(root, &made).map_err(|e| Error::io("open", &volume.join(&made), e))?;
                let metadata =
                    fs::metadata(opened_path(&opened)).map_err(|e| Error::io("stat", &volume.join(&made), e))?;
                // After the fact, because the process' umask would take bits away; the bit that gives files the volume's
                // group was inherited.
                let mode = (metadata.permissions().mode() & 0o7000) | mode;
                fs::set_permissions(opened_path(&opened), fs::Permissions::from_mode(mode))
                    .map_err(|e| Error::io("set mode of", &volume.join(&made), e))?;
                continue;
            }
            Err(nix::Error::EEXIST) => {}
            Err(e) => return Err(Error::io("make", &volume.join(relative), e)),
        }
        made.push(name);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a hostile pod would put into its volume.
    fn hostile(volume: &Path, name: &str, to: &str) {
        std::os::unix::fs::symlink(to, volume.join(name)).unwrap();
    }

    #[test]
    fn paths_that_climb_or_follow_links_out_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (volume, target) = (dir.path().join("v"), dir.path().join("t"));
        fs::create_dir(&volume).unwrap();
        hostile(&volume, "out", "/etc");
        hostile(&volume, "up", "../..");
        for path in ["../x", "/etc", "a/../../x", "", "out", "out/passwd", "up/x"] {
            assert!(bind(&volume, path, &target).is_err(), "{path}");
        }
        assert!(!target.exists());
    }

    #[test]
    fn a_file_is_read_inside_only_and_a_pipe_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path();
        fs::write(volume.join("env"), "A='1'").unwrap();
        hostile(volume, "out", "/etc/passwd");
        nix::unistd::mkfifo(&volume.join("pipe"), Mode::S_IRWXU).unwrap();
        assert_eq!(read(volume, "env").unwrap().as_deref(), Some("A='1'"));
        assert_eq!(read(volume, "absent").unwrap(), None);
        for path in ["../env", "/etc/passwd", "out", "pipe", "."] {
            assert!(read(volume, path).is_err(), "{path}");
        }
    }

    #[test]
    fn missing_directories_are_made_inside_only() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("v");
        fs::create_dir(&volume).unwrap();
        let root = open_root(&volume).unwrap();
        make_beneath(&root, &volume, Path::new("a/b")).unwrap();
        assert!(volume.join("a/b").is_dir());
        fs::set_permissions(&volume, fs::Permissions::from_mode(0o2777)).unwrap();
        make_beneath(&root, &volume, Path::new("open/to/all")).unwrap();
        assert_eq!(fs::metadata(volume.join("open/to/all")).unwrap().permissions().mode() & 0o7777, 0o2777);
        hostile(&volume, "out", "..");
        assert!(make_beneath(&root, &volume, Path::new("out/evil")).is_err());
        assert!(!dir.path().join("evil").exists());
    }

    /// CVE-2017-1002101, CVE-2021-25741: the owner of a volume swaps a directory for a link while it is looked up.
    #[test]
    fn what_is_swapped_meanwhile_leads_nowhere_outside() {
        use std::sync::atomic::{AtomicBool, Ordering};

        use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

        if !nix::unistd::geteuid().is_root() {
            println!("Skipped: mounting needs root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (volume, outside, target) = (dir.path().join("v"), dir.path().join("outside"), dir.path().join("t"));
        for path in [volume.join("part/inner"), outside.join("inner")] {
            fs::create_dir_all(path).unwrap();
        }
        fs::write(outside.join("inner/secret"), "x").unwrap();
        let mode = || fs::metadata(&outside).unwrap().permissions().mode();
        let before = mode();
        hostile(&volume, "link", outside.to_str().unwrap());
        let over = AtomicBool::new(false);
        let (mut inside, mut refused, mut reached) = (0, 0, 0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (part, link) = (volume.join("part"), volume.join("link"));
                while !over.load(Ordering::Relaxed) {
                    renameat2(AT_FDCWD, &part, AT_FDCWD, &link, RenameFlags::RENAME_EXCHANGE).unwrap();
                }
            });
            // On a busy machine the one or the other is in its place for long: it goes on until both were found there.
            for round in 0.. {
                // Now one that is there, now one that is to be made.
                let path = if round % 2 == 0 { "part/inner".to_owned() } else { format!("part/new-{round}/deep") };
                let bound = bind(&volume, &path, &target).is_ok();
                inside += u32::from(bound);
                refused += u32::from(!bound);
                reached += u32::from(bound && target.join("secret").exists());
                unbind(&target).unwrap();
                if round >= 2000 && inside > 0 && refused > 0 {
                    break;
                }
            }
            over.store(true, Ordering::Relaxed);
        });
        assert_eq!(reached, 0);
        let left: Vec<_> = fs::read_dir(&outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!((left, mode()), (vec!["inner".into()], before), "something was made or changed outside");
    }
}
