//! A small disk for a test to fill.

use std::{path::Path, process::Command};

/// A small disk in memory; unmounted when dropped, also when a test fails.
pub(crate) struct Disk {
    folder: tempfile::TempDir,
}

impl Disk {
    /// With these options of tmpfs(5).
    pub(crate) fn of(options: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        let status = mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(folder.path()).status().unwrap();
        assert!(status.success(), "mount: {status}");
        Self { folder }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let status = Command::new("umount").arg(self.path()).status();
        let unmounted = status.is_ok_and(|status| status.success());
        assert!(unmounted || std::thread::panicking(), "the disk at {} is still in use", self.path().display());
    }
}
