//! Device nodes in the container's `/dev`.

use std::{
    fs,
    os::unix::{fs::MetadataExt, fs::symlink},
    path::{Path, PathBuf},
};

use nix::{
    sys::stat::{Mode, SFlag, makedev, mknod},
    unistd::{Gid, Uid},
};

use super::Users;
use super::file::{self, Kind};
use crate::{
    error::StartError,
    spec::Device,
    step::{AtStep, refuse},
};

/// A device node to be made.
pub(super) struct Node {
    path: PathBuf,
    kind: SFlag,
    mode: u32,
    number: u64,
    owner: (u32, u32),
}

/// What every container has (OCI runtime specification, "Default Devices").
const DEFAULTS: &[(&str, u64, u64)] =
    &[("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

const LINKS: &[(&str, &str)] = &[
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("pts/ptmx", "ptmx"),
];

/// Fills the new `/dev`, which is empty and holds nothing of the image.
pub(super) fn make_defaults() -> Result<(), StartError> {
    let dev = Path::new("/dev");
    for (name, major, minor) in DEFAULTS {
        mknod(&dev.join(name), SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(*major, *minor))
            .at("device", || format!("make /dev/{name}"))?;
    }
    for (target, name) in LINKS {
        symlink(target, dev.join(name)).at("device", || format!("make /dev/{name}"))?;
    }
    for name in ["pts", "shm", "mqueue"] {
        fs::create_dir(dev.join(name)).at("device", || format!("make /dev/{name}"))?;
    }
    Ok(())
}

/// The devices a container asks for by name. Whose each is on the host it is in the container unless it says otherwise, also if
/// that has users of its own.
pub(super) fn named(devices: &[Device], users: Option<Users<'_>>) -> Result<Vec<Node>, StartError> {
    let on_host = |id| Users::on_host(users, id);
    devices
        .iter()
        .map(|device| {
            let what = || format!("look at device {}", device.host_path.display());
            let found = fs::metadata(&device.host_path).at("device", what)?;
            node(PathBuf::from(&device.container_path), &found)
                .map(|node| Node {
                    mode: device.mode.unwrap_or(node.mode),
                    owner: (on_host(device.uid.unwrap_or(node.owner.0)), on_host(device.gid.unwrap_or(node.owner.1))),
                    ..node
                })
                .ok_or_else(|| refuse("device", format!("{} is no device", device.host_path.display())))
        })
        .collect()
}

/// Every device of the host, for a privileged container.
pub(super) fn of_host() -> Result<Vec<Node>, StartError> {
    let mut nodes = Vec::new();
    collect(Path::new("/dev"), 0, &mut nodes).at("device", || "list the host's devices".to_owned())?;
    Ok(nodes)
}

/// Terminals, shared memory and message queues are the container's own; deeper than a few directories nothing is.
fn collect(directory: &Path, depth: u32, nodes: &mut Vec<Node>) -> std::io::Result<()> {
    const OWN: &[&str] = &["pts", "shm", "fd", "mqueue", "console", "ptmx"];
    const DEEPEST: u32 = 8;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let is_own = OWN.iter().any(|own| entry.file_name() == *own);
        let is_default = DEFAULTS.iter().any(|(name, ..)| entry.file_name() == *name);
        if is_own || (is_default && depth == 0) {
            continue;
        }
        // A device that was unplugged meanwhile is not there to be shown.
        let Ok(found) = fs::symlink_metadata(entry.path()) else { continue };
        if found.is_dir() && depth < DEEPEST {
            match collect(&entry.path(), depth + 1, nodes) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                other => other?,
            }
        } else {
            nodes.extend(node(entry.path(), &found));
        }
    }
    Ok(())
}

fn node(path: PathBuf, found: &fs::Metadata) -> Option<Node> {
    let kind = SFlag::from_bits_truncate(found.mode() & libc::S_IFMT);
    let is_device = kind == SFlag::S_IFCHR || kind == SFlag::S_IFBLK;
    is_device.then(|| Node {
        path,
        kind,
        mode: found.mode() & 0o7777,
        number: found.rdev(),
        owner: (found.uid(), found.gid()),
    })
}

impl Node {
    /// Makes it. Its directory is resolved in the root; the node itself is new, or is what was there.
    pub(super) fn make(&self) -> Result<(), StartError> {
        let what = || format!("make device {}", self.path.display());
        let (Some(parent), Some(name)) = (self.path.parent(), self.path.file_name()) else {
            return Err(refuse("device", format!("{:?} is no place for a device", self.path)));
        };
        let parent = file::open_or_make(parent, Kind::Directory).at("device", what)?;
        match nix::sys::stat::mknodat(&parent, name, self.kind, Mode::from_bits_truncate(self.mode), self.number) {
            Ok(()) => {}
            Err(nix::errno::Errno::EEXIST) => return Ok(()),
            Err(error) => return Err(error).at("device", what),
        }
        let (uid, gid) = (Uid::from_raw(self.owner.0), Gid::from_raw(self.owner.1));
        nix::unistd::fchownat(&parent, name, Some(uid), Some(gid), nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW)
            .at("device", what)
    }
}
