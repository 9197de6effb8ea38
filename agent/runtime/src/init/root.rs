//! The container's root: layers, kernel file systems, mounts, masks.
//!
//! The order makes it safe. What comes from the host is opened first, as detached mounts; then the process changes its root
//! and lets go of the host's; only then are places to mount on looked up, in a tree whose links cannot lead out of it any
//! more.

mod devices;
mod overlay;

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::stat::{Mode, SFlag},
};

use super::{
    Plan, Users,
    file::{self, Kind},
};
use crate::{
    error::StartError,
    spec::{ContainerSpec, IpcNamespace, Mount, MountKind, Propagation},
    step::{AtStep, refuse},
    sys,
};

/// What was opened on the host for the container.
pub(super) struct Sources {
    /// One a mount, in order; `None` for file systems made later.
    mounts: Vec<Option<Source>>,
    shm: OwnedFd,
    devices: Vec<devices::Node>,
}

struct Source {
    tree: OwnedFd,
    kind: Kind,
}

/// Opens what comes from the host.
pub(super) fn open_sources(plan: &Plan<'_>) -> Result<Sources, StartError> {
    let spec = plan.spec;
    let mut mounts = Vec::with_capacity(spec.mounts.len());
    for wanted in &spec.mounts {
        check(wanted)?;
        mounts.push(match &wanted.kind {
            MountKind::Tmpfs { .. } | MountKind::Layers { .. } => None,
            MountKind::Bind { source } => Some(bind_source(source, plan.users)?),
        });
    }
    // From here on what is mounted is not seen by the host. Copies made before still belong with the originals, which is what
    // propagation to the host needs.
    leave_mounts()?;
    for (place, (wanted, source)) in spec.mounts.iter().zip(&mut mounts).enumerate() {
        if let MountKind::Layers { layers, sub_path } = &wanted.kind {
            let at = plan.directory.join(format!("volume-{place}"));
            *source = Some(overlay::volume(layers, sub_path.as_deref(), &at, plan.users)?);
        }
    }
    let shm = match plan.sandbox.ipc {
        IpcNamespace::Pod => plan.shm,
        IpcNamespace::Host => Path::new("/dev/shm"),
    };
    let shm = sys::clone_mount(shm, false).at("mount", || format!("open {}", shm.display()))?;
    let devices = if spec.privileged { devices::of_host()? } else { devices::named(&spec.devices, plan.users)? };
    Ok(Sources { mounts, shm, devices })
}

fn leave_mounts() -> Result<(), StartError> {
    let slave = MsFlags::MS_SLAVE | MsFlags::MS_REC;
    mount(None::<&str>, "/", None::<&str>, slave, None::<&str>).at("mount", || "leave the host's mounts".to_owned())
}

fn check(wanted: &Mount) -> Result<(), StartError> {
    let path = Path::new(&wanted.destination);
    if !path.is_absolute() || path == Path::new("/") {
        return Err(refuse("mount", format!("{:?} is no place to mount on", wanted.destination)));
    }
    Ok(())
}

fn bind_source(source: &Path, users: Option<Users<'_>>) -> Result<Source, StartError> {
    let what = || format!("open {} to mount it", source.display());
    let tree = sys::clone_mount(source, true).at("mount", what)?;
    map_ids(&tree, source, users)?;
    let mode = nix::sys::stat::fstat(&tree).at("mount", what)?.st_mode;
    let kind = if mode & libc::S_IFMT == libc::S_IFDIR { Kind::Directory } else { Kind::File };
    Ok(Source { tree, kind })
}

/// Shows the files of a detached mount to the pod's own users as theirs. Not every file system can (mount_setattr(2)).
fn map_ids(tree: &OwnedFd, source: &Path, users: Option<Users<'_>>) -> Result<(), StartError> {
    let Some(users) = users else { return Ok(()) };
    sys::map_mount(tree.as_fd(), users.namespace.as_fd()).map_err(|error| StartError {
        step: "mount".to_owned(),
        message: format!(
            "failed to set MOUNT_ATTR_IDMAP on {}: {} (maybe the filesystem used doesn't support idmap mounts on this kernel?)",
            source.display(),
            crate::step::describe(&error)
        ),
        errno: error.raw_os_error(),
    })
}

/// From here on what this process makes in the root belongs to root of the pod's own users. The rights to make it stay
/// (capabilities(7), "Effect of user ID changes on capabilities").
pub(super) fn make_files_as(owner: u32) -> Result<(), StartError> {
    let what = || "make files as the pod's root".to_owned();
    nix::unistd::setfsgid(owner.into());
    nix::unistd::setfsuid(owner.into());
    let own = sys::permitted_capabilities().at("capabilities", what)?;
    sys::set_capabilities(own, own, 0).at("capabilities", what)
}

/// Makes the root of layers and changes to it.
pub(super) fn enter(plan: &Plan<'_>) -> Result<(), StartError> {
    let merged = plan.directory.join("merged");
    // What keeps host devices away is the cgroup. Where that does not, an image with a disk in it must not open it.
    let devices = plan.devices_restricted || plan.spec.privileged;
    overlay::mount_root(&plan.spec.layers, plan.directory, &merged, devices, plan.users)?;
    change_root(&merged)
}

/// An empty read-only root, for a process that needs no files.
pub(super) fn enter_empty() -> Result<(), StartError> {
    leave_mounts()?;
    let tree = sys::new_mount(c"tmpfs", &[("size", Some("4096"))], sys::ATTR_RDONLY | sys::ATTR_NODEV)
        .at("mount", || "make an empty root".to_owned())?;
    let place = nix::fcntl::open("/proc", nix::fcntl::OFlag::O_PATH | nix::fcntl::OFlag::O_CLOEXEC, Mode::empty())
        .at("mount", || "open /proc".to_owned())?;
    sys::attach_mount(tree.as_fd(), place.as_fd()).at("mount", || "mount the empty root".to_owned())?;
    change_root(Path::new("/proc"))
}

fn change_root(new: &Path) -> Result<(), StartError> {
    nix::unistd::chdir(new).at("pivot_root", || format!("enter {}", new.display()))?;
    // The new root is put over the old one, which is then taken away from under it (pivot_root(2), "pivot_root(".", ".")").
    match nix::unistd::pivot_root(".", ".") {
        Ok(()) => {
            umount2(".", MntFlags::MNT_DETACH).at("pivot_root", || "let go of the host's root".to_owned())?;
        }
        // A host that runs from its initial RAM file system has a root that cannot be put aside (pivot_root(2)): it is
        // covered instead.
        Err(nix::errno::Errno::EINVAL) => {
            mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>)
                .at("pivot_root", || "cover the host's root".to_owned())?;
            nix::unistd::chroot(".").at("pivot_root", || "change the root".to_owned())?;
        }
        Err(error) => return Err(error).at("pivot_root", || "change the root".to_owned()),
    }
    nix::unistd::chdir("/").at("pivot_root", || "enter the new root".to_owned())
}

pub(super) const QUIET: u64 = sys::ATTR_NOSUID | sys::ATTR_NODEV | sys::ATTR_NOEXEC;

/// What is needed of the kernel's file systems later, when volumes may lie over them.
pub(super) struct Kernel {
    /// The null device.
    pub(super) null: OwnedFd,
    /// The number of the `/proc` that is the container's own.
    proc: u64,
}

/// Mounts `/proc`, `/dev` and `/sys`. An image that has a link in one of these places is refused: what is mounted there
/// would be somewhere else than where the masks are.
///
/// `proc` is a `/proc` to be taken instead of one of the pid namespace this process is in.
pub(super) fn mount_kernel_file_systems(plan: &Plan<'_>, proc: Option<OwnedFd>) -> Result<Kernel, StartError> {
    let privileged = plan.spec.privileged;
    match proc {
        Some(proc) => attach(&proc, "/proc").at("mount", || "mount proc on /proc".to_owned())?,
        None => mount_new(c"proc", &[], QUIET, "/proc")?,
    }
    mount_new(c"tmpfs", &[("mode", Some("755")), ("size", Some("65536k"))], sys::ATTR_NOSUID, "/dev")?;
    devices::make_defaults()?;
    let gid = Users::on_host(plan.users, 5).to_string();
    let terminals =
        [("newinstance", None), ("ptmxmode", Some("0666")), ("mode", Some("0620")), ("gid", Some(gid.as_str()))];
    mount_new(c"devpts", &terminals, sys::ATTR_NOSUID | sys::ATTR_NOEXEC, "/dev/pts")?;
    mount_new(c"mqueue", &[], QUIET, "/dev/mqueue")?;
    let lock = if privileged { 0 } else { sys::ATTR_RDONLY };
    mount_new(c"sysfs", &[], QUIET | lock, "/sys")?;
    let proc = file::open_plain(Path::new("/proc"), libc::O_PATH).at("mount", || "open /proc".to_owned())?;
    Ok(Kernel {
        null: file::null().at("device", || "open /dev/null".to_owned())?,
        proc: nix::sys::stat::fstat(&proc).at("mount", || "look at /proc".to_owned())?.st_dev,
    })
}

fn mount_new(kind: &std::ffi::CStr, options: &[(&str, Option<&str>)], flags: u64, at: &str) -> Result<(), StartError> {
    let what = || format!("mount {} on {at}", kind.to_string_lossy());
    let tree = sys::new_mount(kind, options, flags).at("mount", what)?;
    attach(&tree, at).at("mount", what)
}

fn attach(tree: &OwnedFd, at: &str) -> io::Result<()> {
    let place = match file::open_plain(Path::new(at), libc::O_PATH | libc::O_DIRECTORY) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => file::open_or_make(Path::new(at), Kind::Directory),
        result => result,
    };
    sys::attach_mount(tree.as_fd(), place?.as_fd())
}

/// The cgroups this process is in, one a hierarchy, of the host's `/proc`: not every container's has this process.
pub(super) fn memberships() -> Result<String, StartError> {
    std::fs::read_to_string("/proc/self/cgroup").at("cgroup", || "read /proc/self/cgroup".to_owned())
}

/// The container's own part of the cgroup tree: the namespace makes it look like the whole. Of `memberships` the hierarchies
/// alone count.
pub(super) fn mount_cgroups(spec: &ContainerSpec, memberships: &str) -> Result<(), StartError> {
    let lock = if spec.privileged { 0 } else { sys::ATTR_RDONLY };
    const AT: &str = "/sys/fs/cgroup";
    let v1: Vec<&str> = memberships
        .lines()
        .filter_map(|line| line.split(':').nth(1))
        .filter(|controllers| !controllers.is_empty())
        .collect();
    if v1.is_empty() {
        return mount_new(c"cgroup2", &[], QUIET | lock, AT);
    }
    mount_new(c"tmpfs", &[("mode", Some("755"))], QUIET, AT)?;
    for controllers in v1 {
        let at = format!("{AT}/{}", controllers.strip_prefix("name=").unwrap_or(controllers));
        let options: Vec<(&str, Option<&str>)> = match controllers.strip_prefix("name=") {
            Some(name) => vec![("none", None), ("name", Some(name))],
            None => controllers.split(',').map(|controller| (controller, None)).collect(),
        };
        mount_new(c"cgroup", &options, QUIET | lock, &at)?;
        if controllers.contains(',') {
            for controller in controllers.split(',') {
                std::os::unix::fs::symlink(controllers, format!("{AT}/{controller}"))
                    .at("mount", || format!("link {controller}"))?;
            }
        }
    }
    if lock == 0 {
        return Ok(());
    }
    let place = file::open_plain(Path::new(AT), libc::O_PATH).at("mount", || format!("open {AT}"))?;
    sys::change_mount(place.as_fd(), false, lock, 0).at("mount", || format!("make {AT} read-only"))
}

/// Makes devices and mounts.
pub(super) fn mount_all(plan: &Plan<'_>, sources: Sources, kernel: &Kernel) -> Result<(), StartError> {
    let shm = || "mount /dev/shm".to_owned();
    let place = file::open_plain(Path::new("/dev/shm"), libc::O_PATH).at("mount", shm)?;
    sys::attach_mount(sources.shm.as_fd(), place.as_fd()).at("mount", shm)?;
    for node in &sources.devices {
        node.make()?;
    }
    for (wanted, source) in plan.spec.mounts.iter().zip(sources.mounts) {
        mount_one(wanted, source, plan.devices_restricted || plan.spec.privileged, kernel)?;
    }
    Ok(())
}

fn mount_one(wanted: &Mount, source: Option<Source>, devices: bool, kernel: &Kernel) -> Result<(), StartError> {
    let what = || format!("mount {}", wanted.destination);
    let mut flags = 0;
    for option in &wanted.options {
        flags |= match option.as_str() {
            "nosuid" => sys::ATTR_NOSUID,
            "nodev" => sys::ATTR_NODEV,
            "noexec" => sys::ATTR_NOEXEC,
            other => return Err(refuse("mount", format!("{}: unknown option {other:?}", what()))),
        };
    }
    let destination = PathBuf::from(&wanted.destination);
    let Some(Source { tree, kind }) = source else {
        let (size, mode) = match &wanted.kind {
            MountKind::Tmpfs { size, mode } => (size.map(|size| size.to_string()), mode.unwrap_or(0o1777)),
            MountKind::Bind { .. } | MountKind::Layers { .. } => (None, 0o755),
        };
        let mode = format!("{mode:o}");
        let mut options = vec![("mode", Some(mode.as_str()))];
        options.extend(size.as_deref().map(|size| ("size", Some(size))));
        flags |= sys::ATTR_NOSUID | sys::ATTR_NODEV | if wanted.readonly { sys::ATTR_RDONLY } else { 0 };
        let tree = sys::new_mount(c"tmpfs", &options, flags).at("mount", what)?;
        let place = file::open_or_make(&destination, Kind::Directory).at("mount", what)?;
        leave_proc_alone(wanted, &place, None, kernel)?;
        return sys::attach_mount(tree.as_fd(), place.as_fd()).at("mount", what);
    };
    let propagation = match wanted.propagation {
        Propagation::Private => MsFlags::MS_PRIVATE,
        Propagation::HostToContainer => MsFlags::MS_SLAVE,
        Propagation::Bidirectional => MsFlags::MS_SHARED,
    };
    sys::change_mount(tree.as_fd(), true, 0, propagation.bits()).at("mount", what)?;
    if !devices && kind == Kind::Directory {
        flags |= sys::ATTR_NODEV;
    }
    if wanted.readonly {
        flags |= sys::ATTR_RDONLY;
    }
    if flags != 0 {
        sys::change_mount(tree.as_fd(), wanted.recursive_readonly, flags, 0).at("mount", what)?;
    }
    let place = file::open_or_make(&destination, kind).at("mount", what)?;
    leave_proc_alone(wanted, &place, Some(&tree), kernel)?;
    sys::attach_mount(tree.as_fd(), place.as_fd()).at("mount", what)
}

/// What may be mounted in a container's own `/proc`, as other runtimes have it: files that tell figures of the host, which
/// somebody may want to show differently.
const COVERABLE: &[&str] = &[
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/net/dev",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
];

/// Refuses mounts in the container's own `/proc`, by whatever way their path leads there: what is hidden and protected
/// there would not be any more (CVE-2019-16884). Another `/proc` may lie over the whole of it.
fn leave_proc_alone(
    wanted: &Mount,
    place: &OwnedFd,
    tree: Option<&OwnedFd>,
    kernel: &Kernel,
) -> Result<(), StartError> {
    const ROOT: u64 = 1;
    let what = || format!("look at {}", wanted.destination);
    let found = nix::sys::stat::fstat(place).at("mount", what)?;
    if found.st_dev != kernel.proc || COVERABLE.contains(&wanted.destination.as_str()) {
        return Ok(());
    }
    let path = &wanted.destination;
    if found.st_ino != ROOT {
        return Err(refuse("mount", format!("{path:?} cannot be mounted because it is inside /proc")));
    }
    let kind = tree.map(nix::sys::statfs::fstatfs).transpose().at("mount", what)?.map(|found| found.filesystem_type());
    if kind == Some(nix::sys::statfs::PROC_SUPER_MAGIC) {
        return Ok(());
    }
    Err(refuse("mount", format!("{path:?} cannot be mounted because it is not of type proc")))
}

/// The last changes to the root: what is read-only and what is hidden. After this nothing more can be made in it.
pub(super) fn seal(spec: &ContainerSpec, kernel: &Kernel) -> Result<(), StartError> {
    if !spec.privileged {
        for path in &spec.readonly_paths {
            protect(path, |found| {
                let tree = sys::clone_mount_of(found.as_fd(), true)?;
                sys::change_mount(tree.as_fd(), true, sys::ATTR_RDONLY, 0)?;
                Ok(tree)
            })?;
        }
        for path in &spec.masked_paths {
            protect(path, |found| {
                let mode = nix::sys::stat::fstat(found)?.st_mode;
                if SFlag::from_bits_truncate(mode & libc::S_IFMT) == SFlag::S_IFDIR {
                    sys::new_mount(c"tmpfs", &[("size", Some("4096"))], QUIET | sys::ATTR_RDONLY)
                } else {
                    sys::clone_mount_of(kernel.null.as_fd(), false)
                }
            })?;
        }
    }
    if spec.readonly_rootfs {
        let root = file::root().at("mount", || "open the root".to_owned())?;
        sys::change_mount(root.as_fd(), false, sys::ATTR_RDONLY, 0)
            .at("mount", || "make the root read-only".to_owned())?;
    }
    Ok(())
}

/// Puts something over a path; a path that is not there needs no protection.
fn protect(path: &str, cover: impl FnOnce(&OwnedFd) -> io::Result<OwnedFd>) -> Result<(), StartError> {
    let what = || format!("protect {path}");
    let found = match file::open(Path::new(path), libc::O_PATH) {
        Ok(found) => found,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(()),
        Err(error) => return Err(error).at("mount", what),
    };
    let tree = cover(&found).at("mount", what)?;
    sys::attach_mount(tree.as_fd(), found.as_fd()).at("mount", what)
}
