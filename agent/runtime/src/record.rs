//! What is on disk in the run directory, for whoever comes after a crash.
//!
//! ```text
//! <run>/sandboxes/<sandbox>/sandbox.json            what it was made from; written first
//!                          /containers/<container>.json   where it stands; renamed into place, exits before they are told
//!                          /sock  /shm  /supervisor.log
//! <root>/sandboxes/<sandbox>/<container>/{upper,work,merged}
//! ```
//!
//! Nothing is synced: the directory does not outlive a boot, and a rename survives the death of any process.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    id::{ContainerId, SandboxId},
    spec::{IdMapping, SandboxSpec},
    state::{ContainerState, ContainerStatus, Exit},
};

/// `sandbox.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SandboxRecord {
    pub(crate) version: u32,
    pub(crate) id: SandboxId,
    pub(crate) spec: SandboxSpec,
    /// Directory of the containers' writable layers.
    pub(crate) containers: PathBuf,
    /// The pod's cgroup, relative to each hierarchy's root.
    pub(crate) cgroup: PathBuf,
    pub(crate) created_at: SystemTime,
    /// The users it has, when they are its own.
    #[serde(default)]
    pub(crate) users: Option<IdMapping>,
}

impl SandboxRecord {
    /// The leaf of the pod's cgroup the supervisor lives in. Each attempt has its own, as the one before may not have been
    /// removed yet.
    pub(crate) fn supervisor_group(&self) -> PathBuf {
        self.cgroup.join(format!("supervisor-{}", self.spec.attempt))
    }

    /// Every cgroup that is this sandbox's alone: the supervisor's and those of containers with a record.
    pub(crate) fn groups(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        let mut groups = vec![self.supervisor_group()];
        match fs::read_dir(directory.join("containers")) {
            Ok(entries) => {
                for entry in entries {
                    let path = entry?.path();
                    let id = path.file_stem().and_then(|stem| stem.to_str()).and_then(ContainerId::parse);
                    groups.extend(id.map(|id| self.cgroup.join(id.as_str())));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(groups)
    }

    pub(crate) fn read(directory: &Path) -> io::Result<SandboxRecord> {
        read_json(&directory.join("sandbox.json"))
    }

    pub(crate) fn write(&self, directory: &Path) -> io::Result<()> {
        write_json(&directory.join("sandbox.json"), self)
    }
}

/// Where a container's record is.
pub(crate) fn container_path(directory: &Path, id: &ContainerId) -> PathBuf {
    directory.join("containers").join(format!("{id}.json"))
}

/// Records of a sandbox whose supervisor is dead. What was not exited then is exited now, and nobody knows how.
pub(crate) fn read_containers(directory: &Path) -> io::Result<Vec<ContainerStatus>> {
    let entries = match fs::read_dir(directory.join("containers")) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut containers = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let mut status: ContainerStatus = match read_json(&path) {
            // Removed meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            read => read?,
        };
        let started_at = match &status.state {
            ContainerState::Exited(_) => {
                containers.push(status);
                continue;
            }
            ContainerState::Running { started_at, .. } => Some(*started_at),
            ContainerState::Creating => None,
        };
        status.state = ContainerState::Exited(Exit {
            code: 137,
            signal: Some(libc::SIGKILL),
            oom_killed: false,
            started_at,
            finished_at: fs::metadata(&path).and_then(|found| found.modified()).unwrap_or_else(|_| SystemTime::now()),
            start_error: None,
            lost: true,
        });
        containers.push(status);
    }
    containers.sort_by_key(|container| container.created_at);
    Ok(containers)
}

/// Writes beside and renames, so that a reader finds all or nothing.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let beside = path.with_extension("new");
    fs::write(&beside, serde_json::to_vec(value)?)?;
    fs::rename(beside, path)
}

fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}
