//! One living sandbox and what can be asked of it.

use std::{path::PathBuf, sync::Arc, time::Duration};

use super::{AttachSession, Config, ExecOutput, ExecSession, ExecSpec};
use crate::{
    error::Error,
    id::{ContainerId, SandboxId},
    spec::{ContainerSpec, Resources, SandboxSpec},
    state::{ContainerStatus, Exit, Stats},
};

/// A signal's number on this architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Signal(pub i32);

impl Signal {
    /// Asks to stop.
    pub const TERM: Signal = Signal(libc::SIGTERM);
    /// Ends at once.
    pub const KILL: Signal = Signal(libc::SIGKILL);

    /// Reads a signal as images and pods write it: a number, or a name with or without `SIG` (`SIGQUIT`, `RTMIN+3`).
    pub fn parse(text: &str) -> Option<Signal> {
        let name = text.strip_prefix("SIG").unwrap_or(text);
        if let Ok(number) = name.parse::<i32>() {
            return (1..=64).contains(&number).then_some(Signal(number));
        }
        for (prefix, base, sign) in [("RTMIN", 34, 1), ("RTMAX", 64, -1)] {
            if let Some(rest) = name.strip_prefix(prefix) {
                let offset = match rest.trim_start_matches(['+', '-']) {
                    "" => 0,
                    digits => digits.parse::<i32>().ok()?,
                };
                let number = base + sign * offset;
                return (34..=64).contains(&number).then_some(Signal(number));
            }
        }
        format!("SIG{name}").parse::<nix::sys::signal::Signal>().ok().map(|signal| Signal(signal as i32))
    }
}

/// One sandbox. Cheap to clone; a handle, not the owner: dropping it changes nothing.
#[derive(Debug, Clone)]
pub struct Sandbox {
    config: Arc<Config>,
    id: SandboxId,
    spec: Arc<SandboxSpec>,
    supervisor: u32,
}

impl Sandbox {
    /// Its name.
    pub fn id(&self) -> &SandboxId {
        &self.id
    }

    /// What it was made from.
    pub fn spec(&self) -> &SandboxSpec {
        &self.spec
    }

    /// The supervisor's process id.
    pub fn supervisor_pid(&self) -> u32 {
        self.supervisor
    }

    /// A path whose opening gives the pod's network namespace.
    pub fn netns_path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.supervisor))
    }

    /// The name a container of this sandbox has.
    pub fn container_id(&self, name: &str, attempt: u32) -> ContainerId {
        ContainerId::of(&self.id, name, attempt)
    }

    /// Starts a container and answers when its program runs. Asked again for the same name and attempt, it answers with
    /// the container there is, running or exited, and starts nothing.
    ///
    /// # Errors
    /// [`Error::Start`] when a step or `execve` failed: the container then exists, exited with code 128.
    pub async fn start_container(&self, spec: &ContainerSpec) -> Result<ContainerStatus, Error> {
        Err(self.unsupported(&spec.name))
    }

    /// Every container of the sandbox.
    ///
    /// # Errors
    /// [`Error::SandboxNotFound`] when the supervisor is gone.
    pub async fn containers(&self) -> Result<Vec<ContainerStatus>, Error> {
        Err(self.unsupported("list"))
    }

    /// One container.
    ///
    /// # Errors
    /// [`Error::ContainerNotFound`], [`Error::SandboxNotFound`].
    pub async fn container(&self, id: &ContainerId) -> Result<ContainerStatus, Error> {
        Err(Error::ContainerNotFound { id: id.clone() })
    }

    /// Sends a signal to a container's first process.
    ///
    /// # Errors
    /// [`Error::ContainerNotRunning`], [`Error::ContainerNotFound`].
    pub async fn signal(&self, id: &ContainerId, signal: Signal) -> Result<(), Error> {
        Err(self.unsupported(&format!("{id} {signal:?}")))
    }

    /// Asks a container to stop (with its stop signal), waits for `grace`, then kills everything in it. A container that
    /// has exited is stopped. A grace of zero kills at once.
    ///
    /// # Errors
    /// [`Error::ContainerNotFound`], [`Error::SandboxNotFound`].
    pub async fn stop(&self, id: &ContainerId, grace: Duration) -> Result<Exit, Error> {
        Err(self.unsupported(&format!("{id} {grace:?}")))
    }

    /// Waits until a container has exited.
    ///
    /// # Errors
    /// [`Error::ContainerNotFound`], [`Error::SandboxNotFound`].
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn wait(&self, id: &ContainerId) -> Result<Exit, Error> {
        Err(self.unsupported(id.as_str()))
    }

    /// Removes an exited container: its record, writable layer and cgroup, not its log. One that is not there is removed.
    ///
    /// # Errors
    /// [`Error::ContainerRunning`].
    pub async fn remove_container(&self, id: &ContainerId) -> Result<(), Error> {
        Err(self.unsupported(id.as_str()))
    }

    /// Runs a process in a running container, with the container's own limits, capabilities and filters.
    ///
    /// # Errors
    /// [`Error::Exec`] when it could not be started, [`Error::ContainerNotRunning`].
    pub async fn exec(&self, id: &ContainerId, spec: &ExecSpec) -> Result<ExecSession, Error> {
        Err(self.unsupported(&format!("{id} {spec:?}")))
    }

    /// Runs a command to its end, keeping at most `limit` bytes of what it says, and kills it after `timeout`.
    ///
    /// # Errors
    /// [`Error::ExecTimeout`], and those of [`Sandbox::exec`].
    pub async fn exec_collect(
        &self,
        id: &ContainerId,
        spec: &ExecSpec,
        timeout: Duration,
        limit: usize,
    ) -> Result<ExecOutput, Error> {
        Err(self.unsupported(&format!("{id} {spec:?} {timeout:?} {limit}")))
    }

    /// Attaches to a running container's own input and output.
    ///
    /// # Errors
    /// [`Error::ContainerNotRunning`], [`Error::ContainerNotFound`].
    pub async fn attach(&self, id: &ContainerId) -> Result<AttachSession, Error> {
        Err(self.unsupported(id.as_str()))
    }

    /// Changes a container's limits while it runs; fields that are `None` stay.
    ///
    /// # Errors
    /// When the kernel refuses, as for a memory limit below what is used.
    pub async fn update_container(&self, id: &ContainerId, resources: &Resources) -> Result<(), Error> {
        Err(self.unsupported(&format!("{id} {resources:?}")))
    }

    /// Changes the pod's limits; fields that are `None` stay.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn update_sandbox(&self, resources: &Resources) -> Result<(), Error> {
        Err(self.unsupported(&format!("{resources:?}")))
    }

    /// What a container uses.
    ///
    /// # Errors
    /// When its cgroup is gone.
    pub async fn container_stats(&self, id: &ContainerId) -> Result<Stats, Error> {
        Err(self.unsupported(id.as_str()))
    }

    /// What the pod as a whole uses, the supervisor included.
    ///
    /// # Errors
    /// When its cgroup is gone.
    pub async fn sandbox_stats(&self) -> Result<Stats, Error> {
        Err(self.unsupported("stats"))
    }

    /// The directory with what a container has written to its root (its size is the container's ephemeral storage).
    pub fn writable_layer(&self, id: &ContainerId) -> PathBuf {
        self.config.root.join("sandboxes").join(self.id.as_str()).join(id.as_str()).join("upper")
    }

    fn unsupported(&self, what: &str) -> Error {
        Error::Unsupported { what: "containers", why: format!("{what} in {}", self.id) }
    }
}
