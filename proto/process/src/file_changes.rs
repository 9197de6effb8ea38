//! Files and directories that somebody else changes, told by the kernel (inotify(7)): nobody looks while nothing happens.

use std::{
    error::Error as StdError,
    io,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::net::unix::pipe::Receiver;
use tokio_util::sync::CancellationToken;

/// Wakes when something happens to what it was told to look at.
#[derive(Debug)]
pub struct FileChanges {
    inotify: Inotify,
    /// The same inotify instance, readable as tokio wants it: a stream of bytes is all that is asked of it.
    events: Receiver,
}

impl FileChanges {
    /// Looks at nothing yet. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The kernel has no instance to give (`fs.inotify.max_user_instances`).
    pub fn new() -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let events = Receiver::from_owned_fd_unchecked(inotify.as_fd().try_clone_to_owned()?)?;
        Ok(Self { inotify, events })
    }

    /// Wakes also when something is written to the file.
    ///
    /// # Errors
    /// There is no such file, or no watch left (`fs.inotify.max_user_watches`).
    pub fn of_file(&self, file: &Path) -> io::Result<()> {
        self.inotify.add_watch(file, AddWatchFlags::IN_MODIFY)?;
        Ok(())
    }

    /// Wakes also when something in the directory has come or is whole: made, moved there, or closed by who wrote it.
    ///
    /// # Errors
    /// As [`Self::of_file`].
    pub fn of_directory(&self, directory: &Path) -> io::Result<()> {
        let flags = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_CLOSE_WRITE;
        self.inotify.add_watch(directory, flags)?;
        Ok(())
    }

    /// Wakes also when the directory has other whole files than before: one was moved there or away, removed, or closed
    /// by who wrote it; or when the directory itself goes.
    ///
    /// # Errors
    /// As [`Self::of_file`].
    pub fn of_entries(&self, directory: &Path) -> io::Result<()> {
        let flags = AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_ONLYDIR;
        self.inotify.add_watch(directory, flags)?;
        Ok(())
    }

    /// Wakes also when another name is in the directory or one is gone, or when the directory itself goes; not when its
    /// files are written.
    ///
    /// # Errors
    /// As [`Self::of_file`].
    pub fn of_names(&self, directory: &Path) -> io::Result<()> {
        let flags = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_ONLYDIR;
        self.inotify.add_watch(directory, flags)?;
        Ok(())
    }

    /// Wakes whenever the text of a file may be another one, whether it is written in place, replaced, or a link that is
    /// changed somewhere on the way, as a mounted ConfigMap is.
    ///
    /// # Errors
    /// As [`Self::of_file`].
    pub fn of_text(&self, file: &Path) -> io::Result<()> {
        let parent = |file: &Path| match file.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        self.of_directory(&parent(file))?;
        self.of_directory(&parent(&file.canonicalize()?))
    }

    /// Waits until something happened to what `looked` looks at, or until `end`; whether something happened. A kernel that
    /// does not tell is `lost`: nothing happens from then on.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn next_until(
        looked: io::Result<Self>,
        end: &CancellationToken,
        lost: impl FnOnce(&(dyn StdError + 'static)),
    ) -> bool {
        let told = match &looked {
            Ok(changes) => end.run_until_cancelled(changes.next()).await,
            Err(_) => None,
        };
        match (told, looked) {
            (Some(Ok(())), _) => return true,
            (Some(Err(error)), _) | (None, Err(error)) => lost(&error),
            (None, Ok(_)) => {}
        }
        end.cancelled().await;
        false
    }

    /// Ends when something happened; what exactly is to be found in the files.
    ///
    /// # Errors
    /// The instance cannot be read.
    ///
    /// # Cancel safety
    /// Safe: what was not read yet is read by the next call.
    pub async fn next(&self) -> io::Result<()> {
        // Room for several events with the longest names (inotify(7)).
        let mut events = [0; 4096];
        loop {
            self.events.readable().await?;
            match self.events.try_read(&mut events) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[tokio::test]
    async fn a_text_that_is_written_replaced_or_linked_elsewhere_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("text"), "a").unwrap();
        let changes = FileChanges::new().unwrap();
        changes.of_text(&path("text")).unwrap();
        fs::write(path("text"), "b").unwrap();
        changes.next().await.unwrap();
        fs::write(path("new"), "c").unwrap();
        fs::rename(path("new"), path("text")).unwrap();
        changes.next().await.unwrap();
        // As ConfigMaps are mounted: text → ..data/text, ..data → a directory of one version.
        for version in ["one", "two"] {
            fs::create_dir(path(version)).unwrap();
            fs::write(path(version).join("text"), version).unwrap();
        }
        symlink("one", path("..data")).unwrap();
        fs::remove_file(path("text")).unwrap();
        symlink("..data/text", path("text")).unwrap();
        let changes = FileChanges::new().unwrap();
        changes.of_text(&path("text")).unwrap();
        symlink("two", path("..new")).unwrap();
        fs::rename(path("..new"), path("..data")).unwrap();
        changes.next().await.unwrap();
        assert_eq!(fs::read_to_string(path("text")).unwrap(), "two");
    }

    #[tokio::test]
    async fn changes_are_waited_for_until_the_end_and_a_loss_is_told_once() {
        let (dir, end) = (tempfile::tempdir().unwrap(), CancellationToken::new());
        let look = || {
            let changes = FileChanges::new()?;
            changes.of_entries(dir.path())?;
            Ok(changes)
        };
        let looked = look();
        fs::write(dir.path().join("a"), "a").unwrap();
        assert!(FileChanges::next_until(looked, &end, |error| panic!("{error}")).await);
        let changed = FileChanges::next_until(look(), &end, |error| panic!("{error}"));
        let ended = async {
            tokio::task::yield_now().await;
            end.cancel();
        };
        assert!(!tokio::join!(changed, ended).0, "nothing has happened");

        let (end, mut told) = (CancellationToken::new(), String::new());
        let lost = FileChanges::next_until(Err(io::ErrorKind::NotFound.into()), &end, |error| told = error.to_string());
        let ended = async {
            tokio::task::yield_now().await;
            end.cancel();
        };
        assert!(!tokio::join!(lost, ended).0);
        assert_eq!(told, "entity not found");
    }

    #[tokio::test]
    async fn what_is_not_there_is_not_looked_at() {
        let changes = FileChanges::new().unwrap();
        assert!(changes.of_file(Path::new("/nonexistent/file")).is_err());
        assert!(changes.of_text(Path::new("/nonexistent/file")).is_err());
    }
}
