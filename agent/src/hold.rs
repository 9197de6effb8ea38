//! One process at a time works in a node's data directory.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// The directory is this process's while this lives; the kernel gives it back however the process ends.
#[derive(Debug)]
pub(crate) struct Hold {
    _file: Flock<File>,
}

/// Why a directory is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// Another process works in it.
    #[error("{} is in use by {holder}; stop that first", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
        /// `process 42`.
        holder: String,
    },
    /// The lock's file cannot be used.
    #[error("lock {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl Hold {
    /// Takes a directory, which must exist.
    pub(crate) fn take(dir: &Path) -> Result<Self, HoldError> {
        let path = dir.join("lock");
        let wrong = |source: io::Error| HoldError::File { path: path.clone(), source };
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(wrong)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut file) => {
                // Who it is, for the one that comes second; nothing depends on it.
                let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
                Ok(Self { _file: file })
            }
            Err((mut file, Errno::EWOULDBLOCK)) => {
                let mut text = String::new();
                let pid = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse::<u32>().ok());
                let holder = pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
                Err(HoldError::InUse { path: dir.to_owned(), holder })
            }
            Err((_, error)) => Err(wrong(error.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_one_is_told_who_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let first = Hold::take(folder.path()).unwrap();
        let error = Hold::take(folder.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("in use by process {}", std::process::id())), "{error}");
        drop(first);
        drop(Hold::take(folder.path()).unwrap());
    }
}
