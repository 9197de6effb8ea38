//! The right to change the store: one process at a time has it, for the moments a change takes.

use std::{
    fs::{File, OpenOptions},
    io::Read,
    os::unix::fs::FileExt,
    path::Path,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

use super::{Error, io_error};

/// How long a change waits for those of other processes. Each holds the lock for a few synchronous writes, which on a worn card
/// take seconds; downloads and unpacking happen outside of it.
pub(in crate::image) const LOCK_WAIT: Duration = Duration::from_secs(30);

/// Between two attempts at the lock: `flock(2)` either does not wait or waits without an end.
const PAUSE_MAX: Duration = Duration::from_millis(50);

/// Held while the store is changed; `flock(2)` on a file opened for this, so that it also keeps out this process' other
/// threads, and ends with the process.
pub(super) struct Exclusive {
    _lock: Flock<File>,
}

impl Exclusive {
    /// Waits for the lock on a thread that may. [`Error::Locked`] when it is not had within `wait`.
    pub(super) fn take(root: &Path, wait: Duration) -> Result<Self, Error> {
        let path = root.join("lock");
        let failed = |source| io_error("lock", &path, source);
        let begin = Instant::now();
        let mut pause = Duration::from_millis(1);
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = options.map_err(failed)?;
        loop {
            file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => {
                    // For whoever waits in vain; as wide as any number before it.
                    let pid = format!("{:<10}\n", std::process::id());
                    lock.write_all_at(pid.as_bytes(), 0).map_err(failed)?;
                    return Ok(Self { _lock: lock });
                }
                Err((file, Errno::EWOULDBLOCK)) if begin.elapsed() < wait => file,
                Err((mut file, Errno::EWOULDBLOCK)) => {
                    let mut holder = String::new();
                    // Another program may have left anything there: the message does without it.
                    let holder = file.read_to_string(&mut holder).ok().and_then(|_| holder.trim().parse().ok());
                    return Err(Error::Locked { path: root.to_owned(), holder, waited: wait });
                }
                Err((_, errno)) => return Err(failed(errno.into())),
            };
            std::thread::sleep(pause);
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}
