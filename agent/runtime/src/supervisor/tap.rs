//! Copies of a container's output on their way to attached clients.
//!
//! Each goes through a pipe of its own. What does not fit into a pipe waits, and until it has gone nothing more is read of the
//! container, so that a client misses nothing in the middle. A client that takes nothing for [`PATIENCE`] is left: it must
//! not keep a container, and its log, from going on.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    unistd::pipe2,
};

use super::container::set_nonblocking;

/// How long a container waits for a client that takes nothing.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Clients attached to one stream at once; each costs a descriptor.
pub(super) const MAX_TAPS: usize = 64;

/// What a pipe is asked to hold: as much as the kernel gives everybody (pipe(7), `/proc/sys/fs/pipe-max-size`). It takes
/// memory only for what is in it.
const PIPE: i32 = 1 << 20;

/// One client's copy of one stream.
#[derive(Debug)]
pub(super) struct Tap {
    fd: OwnedFd,
    /// What did not fit: at most what was read at once, and at the end of the container what was left in its pipe.
    waiting: Vec<u8>,
    /// When the client last took something.
    moved: Instant,
}

impl Tap {
    /// The client's end, and ours.
    pub(super) fn open() -> nix::Result<(OwnedFd, Tap)> {
        let (theirs, ours) = pipe2(OFlag::O_CLOEXEC)?;
        set_nonblocking(&ours)?;
        // A smaller pipe does as well, only sooner.
        let _ = fcntl(&ours, FcntlArg::F_SETPIPE_SZ(PIPE));
        Ok((theirs, Tap { fd: ours, waiting: Vec::new(), moved: Instant::now() }))
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Whether something waits to be taken.
    pub(super) fn is_behind(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// When the client is left, unless it takes something before.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.is_behind().then(|| self.moved + PATIENCE)
    }

    /// Copies bytes to the client; false when it is gone.
    pub(super) fn give(&mut self, bytes: &[u8]) -> bool {
        if !self.is_behind() {
            self.moved = Instant::now();
        }
        self.waiting.extend_from_slice(bytes);
        self.flush()
    }

    /// Writes what waits, as much as goes; false when the client is gone.
    pub(super) fn flush(&mut self) -> bool {
        while self.is_behind() {
            match nix::unistd::write(&self.fd, &self.waiting) {
                Ok(count) => {
                    self.waiting.drain(..count);
                    self.moved = Instant::now();
                }
                Err(Errno::EINTR) => {}
                Err(error) => return error == Errno::EAGAIN,
            }
        }
        self.waiting = Vec::new();
        true
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn what_does_not_fit_waits_and_nothing_is_missing() {
        let (theirs, mut tap) = Tap::open().unwrap();
        let bytes: Vec<u8> = (0..3 << 20).map(|n: u32| n.to_le_bytes()[0]).collect();
        assert!(tap.give(&bytes) && tap.is_behind() && tap.deadline().is_some());
        let reader = std::thread::spawn(move || {
            let mut seen = Vec::new();
            std::fs::File::from(theirs).read_to_end(&mut seen).unwrap();
            seen
        });
        while tap.is_behind() {
            assert!(tap.flush());
            std::thread::yield_now();
        }
        assert!(tap.deadline().is_none());
        drop(tap);
        assert_eq!(reader.join().unwrap(), bytes);
    }

    #[test]
    fn a_client_that_is_gone_is_seen() {
        let (theirs, mut tap) = Tap::open().unwrap();
        drop(theirs);
        assert!(!tap.give(b"x"));
    }
}
