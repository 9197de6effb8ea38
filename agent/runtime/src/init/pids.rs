//! The processes containers share: a pid namespace, and a `/proc` of it for containers to come.
//!
//! Only a process in a pid namespace can make its `/proc`, and one that may do that may everything: a container that traces
//! what it sees there (`CAP_SYS_PTRACE`) would have it all. So the first process makes one while it is alone, in a mount
//! namespace where nobody stays. Who starts a container among those processes later copies it from outside.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use nix::sched::{CloneFlags, setns, unshare};

use super::{
    channel::{Report, send},
    file,
    root::QUIET,
};
use crate::{error::StartError, step::AtStep, sys};

/// A pid namespace and its `/proc`.
#[derive(Debug)]
pub(crate) struct Pids {
    /// The pid namespace.
    namespace: OwnedFd,
    /// The mount namespace `proc` is mounted in, and nobody is.
    mounts: OwnedFd,
    proc: OwnedFd,
}

impl Pids {
    /// Of what came along with [`Report::Pids`].
    pub(crate) fn of(fds: Vec<OwnedFd>) -> Option<Pids> {
        let [namespace, mounts, proc] = fds.try_into().ok()?;
        Some(Pids { namespace, mounts, proc })
    }

    /// Has the children of this process born among these.
    pub(super) fn choose(&self) -> Result<(), StartError> {
        setns(&self.namespace, CloneFlags::CLONE_NEWPID).at("namespace", || "enter the pid namespace".to_owned())
    }

    /// A copy of `/proc` as a detached mount. `own` is the mount namespace of this process, whose root is its own.
    pub(super) fn proc(&self, own: &OwnedFd) -> Result<OwnedFd, StartError> {
        let what = || "copy /proc of the pid namespace".to_owned();
        setns(&self.mounts, CloneFlags::CLONE_NEWNS).at("mount", what)?;
        let copy = sys::clone_mount_of(self.proc.as_fd(), false);
        setns(own, CloneFlags::CLONE_NEWNS).at("mount", what)?;
        copy.at("mount", what)
    }
}

/// The mount namespace of this process, of the host's `/proc`.
pub(super) fn own_mounts() -> Result<OwnedFd, StartError> {
    Ok(File::open("/proc/self/ns/mnt").at("mount", || "open the mount namespace".to_owned())?.into())
}

/// Gives the supervisor the pid namespace this process is the first of.
///
/// # Assumptions
/// The root is that of the mount namespace, which holds nothing of the host any more: the supervisor keeps a copy of it.
pub(super) fn offer(channel: &OwnedFd) -> Result<(), StartError> {
    let offer = || -> io::Result<()> {
        let proc = sys::new_mount(c"proc", &[], QUIET)?;
        let namespace =
            |name: &str| sys::open_beneath(proc.as_fd(), &Path::new("self/ns").join(name), libc::O_RDONLY, 0);
        let own = namespace("mnt")?;
        unshare(CloneFlags::CLONE_NEWNS)?;
        sys::attach_mount(proc.as_fd(), file::root()?.as_fd())?;
        let (pids, mounts) = (namespace("pid")?, namespace("mnt")?);
        send(channel.as_fd(), &Report::Pids, &[pids.as_fd(), mounts.as_fd(), proc.as_fd()])?;
        setns(own, CloneFlags::CLONE_NEWNS)?;
        Ok(())
    };
    offer().at("namespace", || "show the pid namespace to the supervisor".to_owned())
}
