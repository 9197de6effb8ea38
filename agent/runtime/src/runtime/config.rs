//! Where the runtime keeps things and how it starts supervisors.

use std::{ffi::OsString, path::PathBuf};

/// Where the runtime keeps things and how it starts supervisors.
#[derive(Debug, Clone)]
pub struct Config {
    /// Directory for what is large: the containers' writable layers. On a file system overlayfs can write to.
    pub root: PathBuf,
    /// Directory for sockets and records; on tmpfs if possible, since nothing in it outlives a boot.
    pub run: PathBuf,
    /// The cluster's mark: names everything the runtime leaves on the host. Letters, digits and `-`.
    pub mark: String,
    /// The program that is the supervisor; `/proc/self/exe` for the running one.
    pub exe: PathBuf,
    /// What it is called with before the supervisor's own argument; its `main` passes what follows to
    /// [`crate::supervise`].
    pub args: Vec<OsString>,
    /// The cgroup below which `kubepods` is made, relative to each hierarchy's root (`coracle-<mark>`).
    pub cgroup_root: PathBuf,
}

impl Config {
    /// The running program as the supervisor, called as `<program> supervise`, and cgroups below the mark.
    pub fn new(root: impl Into<PathBuf>, run: impl Into<PathBuf>, mark: impl Into<String>) -> Config {
        let mark = mark.into();
        Config {
            root: root.into(),
            run: run.into(),
            exe: PathBuf::from("/proc/self/exe"),
            args: vec![OsString::from(crate::SUPERVISE)],
            cgroup_root: PathBuf::from(&mark),
            mark,
        }
    }
}
