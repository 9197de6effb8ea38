//! The socket pair between the supervisor and a process it starts: go one way, a report and a terminal the other.
//!
//! Its end in the child is close-on-exec: when the supervisor reads its end without a report of failure, the program runs.

use std::{
    io::{self, IoSlice, IoSliceMut},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixCredentials, recvmsg,
    sendmsg, setsockopt, socketpair, sockopt,
};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::{error::StartError, sys};

/// What a process tells before it becomes its program.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// As whom it will run.
    Identity {
        /// User.
        uid: u32,
        /// Group.
        gid: u32,
        /// Supplementary groups.
        groups: Vec<u32>,
    },
    /// The outer side of its terminal comes along.
    Terminal,
    /// The pid namespace this process is the first of, a mount namespace and the `/proc` in it come along.
    Pids,
    /// Whoever tells this is the process in the container, and waits to be let go.
    Begun,
    /// It will not run.
    Failed(StartError),
}

/// Longest report: a message holds at most a path and an argument.
const MAX_REPORT: usize = 64 << 10;

/// Both ends, the supervisor's first; packets keep their borders, and the kernel says who sent them.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    setsockopt(&ours, sockopt::PassCred, &true)?;
    Ok((ours, theirs))
}

/// What was told, by whom, and the descriptors that came along.
pub(crate) struct Told {
    /// What.
    pub(crate) report: Report,
    /// Who sent it, as this process numbers them; none is 0.
    pub(crate) sender: Pid,
    /// What came along.
    pub(crate) fds: Vec<OwnedFd>,
}

/// Tells, with descriptors if there are any.
pub(crate) fn send(channel: BorrowedFd<'_>, report: &Report, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut text = serde_json::to_vec(report)?;
    text.truncate(MAX_REPORT);
    let fds: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    let messages = if fds.is_empty() { &[][..] } else { &rights[..] };
    sendmsg::<()>(channel.as_raw_fd(), &[IoSlice::new(&text)], messages, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

/// What has been told, without waiting; `None` at the end.
///
/// # Errors
/// `WouldBlock` when there is nothing yet.
pub(crate) fn receive(channel: BorrowedFd<'_>) -> io::Result<Option<Told>> {
    match receive_once(channel) {
        // A process that failed before it was told to go leaves that unread, which the kernel says first, and once; what it
        // has told comes after (unix(7), `ECONNRESET`).
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => receive_once(channel),
        received => received,
    }
}

fn receive_once(channel: BorrowedFd<'_>) -> io::Result<Option<Told>> {
    let mut text = vec![0; MAX_REPORT];
    let mut space = nix::cmsg_space!([RawFd; 3], UnixCredentials);
    let (length, sender, fds) = {
        let mut parts = [IoSliceMut::new(&mut text)];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(channel.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
        let (mut sender, mut fds) = (0, Vec::new());
        for part in message.cmsgs()? {
            match part {
                ControlMessageOwned::ScmRights(sent) => fds.extend(sys::adopt(sent)),
                ControlMessageOwned::ScmCredentials(credentials) => sender = credentials.pid(),
                _ => {}
            }
        }
        (message.bytes, Pid::from_raw(sender), fds)
    };
    if length == 0 {
        return Ok(None);
    }
    text.truncate(length);
    Ok(Some(Told { report: serde_json::from_slice(&text)?, sender, fds }))
}

/// Tells that this is the process in the container. A plain write: a filter of system calls may be in force already.
pub(crate) fn send_begun(channel: BorrowedFd<'_>) -> io::Result<()> {
    let text = serde_json::to_vec(&Report::Begun)?;
    nix::unistd::write(channel, &text)?;
    Ok(())
}

/// Waits until the other end says go.
pub(crate) fn wait_for_go(channel: BorrowedFd<'_>) -> io::Result<()> {
    let mut byte = [0];
    loop {
        match nix::unistd::read(channel, &mut byte) {
            Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
            Ok(_) => return Ok(()),
            Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// A new terminal of the container's own `/dev/pts`: the outer side is sent away, the inner one is returned.
pub(crate) fn take_terminal(channel: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let root = nix::fcntl::open("/", nix::fcntl::OFlag::O_PATH, nix::sys::stat::Mode::empty())?;
    let resolve = sys::RESOLVE_IN_ROOT | sys::RESOLVE_NO_SYMLINKS;
    let flags = libc::O_RDWR | libc::O_NOCTTY;
    let master = sys::open_beneath(root.as_fd(), std::path::Path::new("dev/pts/ptmx"), flags, resolve)?;
    // A container may have put something else in its place.
    let device = nix::sys::stat::fstat(&master)?.st_rdev;
    if (nix::sys::stat::major(device), nix::sys::stat::minor(device)) != (5, 2) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "/dev/pts/ptmx is no terminal multiplexer"));
    }
    let inner = sys::open_terminal_peer(&master)?;
    send(channel, &Report::Terminal, &[master.as_fd()])?;
    Ok(inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_before_the_end_is_heard_though_go_was_never_read() {
        let (ours, theirs) = pair().unwrap();
        let failed = StartError { step: "mount".into(), message: "no".into(), errno: None };
        nix::unistd::write(&ours, &[1]).unwrap();
        send(theirs.as_fd(), &Report::Failed(failed.clone()), &[]).unwrap();
        drop(theirs);
        let Some(Told { report: Report::Failed(heard), sender, .. }) = receive(ours.as_fd()).unwrap() else {
            panic!("something else")
        };
        assert_eq!(sender, Pid::this());
        assert_eq!(heard, failed);
        assert!(receive(ours.as_fd()).unwrap().is_none());
    }
}
