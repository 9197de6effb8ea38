//! Layers over one another: the container's root, and image volumes.

use std::{
    fs, io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::fs::{DirBuilderExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use nix::{
    fcntl::OFlag,
    mount::{MsFlags, mount},
    sys::stat::Mode,
};

use super::{Kind, Source, Users};
use crate::{
    error::StartError,
    step::{AtStep, refuse},
    sys,
};

/// Layers are named by descriptor: a page of mount options (mount(2)) then holds some two hundred of them, wherever they
/// are, and a container's mount table tells no paths of the host. For users of a pod's own they are mounted with their
/// numbers, one over the other on `at`: only what is mounted somewhere can be a layer on kernels before 6.15.
fn open_layers(layers: &[PathBuf], at: &Path, users: Option<Users<'_>>) -> Result<(Vec<OwnedFd>, String), StartError> {
    if layers.is_empty() {
        return Err(refuse("overlay", "no layers"));
    }
    let open = |layer: &PathBuf| {
        nix::fcntl::open(layer, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
            .at("overlay", || format!("open layer {}", layer.display()))
    };
    let map = |layer: &PathBuf| {
        let what = || format!("open layer {}", layer.display());
        let tree = sys::clone_mount(layer, false).at("overlay", what)?;
        super::map_ids(&tree, layer, users)?;
        sys::attach_mount(tree.as_fd(), open_at(at)?.as_fd()).at("overlay", what)?;
        Ok(tree)
    };
    if users.is_some() {
        fs::create_dir_all(at).at("overlay", || format!("make {}", at.display()))?;
    }
    let fds = layers
        .iter()
        .map(|layer| if users.is_some() { map(layer) } else { open(layer) })
        .collect::<Result<Vec<_>, _>>()?;
    let names: Vec<String> = fds.iter().map(name).collect();
    Ok((fds, names.join(":")))
}

fn name(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Mounts a container's root on `merged`, with its writable layer beside it; `devices` in it can be opened.
pub(super) fn mount_root(
    layers: &[PathBuf],
    directory: &Path,
    merged: &Path,
    devices: bool,
    users: Option<Users<'_>>,
) -> Result<(), StartError> {
    let make = |name: &str, mode: u32| {
        let path = directory.join(name);
        match fs::DirBuilder::new().mode(mode).create(&path) {
            Ok(()) => fs::set_permissions(&path, fs::Permissions::from_mode(mode)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
        }
        .and_then(|()| {
            Ok(nix::fcntl::open(&path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?)
        })
        .at("overlay", || format!("make {}", path.display()))
    };
    let upper = make("upper", 0o755)?;
    let work = make("work", 0o700)?;
    drop(make("merged", 0o700)?);
    if let Some(users) = users {
        let owner = Some(users.mapping.host);
        std::os::unix::fs::chown(directory.join("upper"), owner, owner)
            .at("overlay", || "give the writable layer away".to_owned())?;
    }
    let (_layers, lower) = open_layers(layers, merged, users)?;
    let basic = format!("lowerdir={lower},upperdir={},workdir={}", name(&upper), name(&work));
    // A writable layer is thrown away with its container, so nothing in it need be synced to disk; and what indexes and
    // metadata copies are for (NFS export, id-mapped layers) is not used. A kernel without these options does without.
    let quick = format!("{basic},index=off,metacopy=off,volatile");
    let attempt = |options: &str| {
        if options.len() > 4095 {
            return Err(nix::errno::Errno::E2BIG);
        }
        let flags = if devices { MsFlags::empty() } else { MsFlags::MS_NODEV };
        mount(Some("overlay"), merged, Some("overlay"), flags, Some(options))
    };
    match attempt(&quick) {
        Err(nix::errno::Errno::EINVAL | nix::errno::Errno::E2BIG) => attempt(&basic),
        result => result,
    }
    .at("overlay", || format!("mount {} layers", layers.len()))
}

/// An image volume as a detached mount, read-only; `at` is a place of this mount namespace to make it on.
pub(super) fn volume(
    layers: &[PathBuf],
    sub_path: Option<&str>,
    at: &Path,
    users: Option<Users<'_>>,
) -> Result<Source, StartError> {
    let what = || "mount an image volume".to_owned();
    let (mut fds, lower) = open_layers(layers, at, users)?;
    // Overlayfs wants two layers when it has nothing to write to; one is shown as it is.
    let whole = if fds.len() == 1
        && let Some(only) = fds.pop()
    {
        only
    } else {
        fs::create_dir_all(at).at("overlay", what)?;
        let options = format!("lowerdir={lower}");
        mount(Some("overlay"), at, Some("overlay"), MsFlags::MS_RDONLY, Some(options.as_str())).at("overlay", what)?;
        open_at(at)?
    };
    let resolve = sys::RESOLVE_IN_ROOT | sys::RESOLVE_NO_MAGICLINKS;
    let path = Path::new(sub_path.filter(|path| !path.is_empty()).unwrap_or("."));
    let found = sys::open_beneath(whole.as_fd(), path, libc::O_PATH, resolve)
        .at("overlay", || format!("find {path:?} in an image volume"))?;
    let tree = sys::clone_mount_of(found.as_fd(), false).at("overlay", what)?;
    sys::change_mount(tree.as_fd(), false, sys::ATTR_RDONLY, 0).at("overlay", what)?;
    let mode = nix::sys::stat::fstat(&tree).at("overlay", what)?.st_mode;
    let kind = if mode & libc::S_IFMT == libc::S_IFDIR { Kind::Directory } else { Kind::File };
    Ok(Source { tree, kind })
}

fn open_at(path: &Path) -> Result<OwnedFd, StartError> {
    nix::fcntl::open(path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
        .at("overlay", || format!("open {}", path.display()))
}
