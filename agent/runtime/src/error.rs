//! What can go wrong, one variant a decision the caller can make.

use std::{io, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::id::{ContainerId, SandboxId};

/// Why an operation of the runtime did not happen.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The specification cannot be carried out, whatever is tried again.
    #[error("{field}: {reason}")]
    InvalidSpec {
        /// The field, in the specification's words.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// No such sandbox, or its supervisor is gone.
    #[error("sandbox {id} not found")]
    SandboxNotFound {
        /// The sandbox asked for.
        id: SandboxId,
    },
    /// No such container in this sandbox.
    #[error("container {id} not found")]
    ContainerNotFound {
        /// The container asked for.
        id: ContainerId,
    },
    /// The container is not running, so it cannot be signalled, entered or attached to.
    #[error("container {id} is not running")]
    ContainerNotRunning {
        /// The container asked for.
        id: ContainerId,
    },
    /// The container is running, so it cannot be removed.
    #[error("container {id} is running")]
    ContainerRunning {
        /// The container asked for.
        id: ContainerId,
    },
    /// The container was killed and has not ended: one of its processes sleeps and cannot be woken, as on a device or a
    /// file server that does not answer. It ends when that does.
    #[error("container {id} was killed and is still running {after:?} later")]
    StillRunning {
        /// The container.
        id: ContainerId,
        /// How long was waited.
        after: std::time::Duration,
    },
    /// The container's first process could not be started; the container exists and has exited (`StartError`).
    #[error(transparent)]
    Start(#[from] StartError),
    /// The process to run in a container could not be started.
    #[error("{0}")]
    Exec(#[source] StartError),
    /// A command in a container did not end in its time and was killed.
    #[error("command timed out after {after:?}")]
    ExecTimeout {
        /// The time it had.
        after: std::time::Duration,
    },
    /// This kernel or this version cannot do it.
    #[error("{what} is not supported: {why}")]
    Unsupported {
        /// What was asked for.
        what: &'static str,
        /// Why not.
        why: String,
    },
    /// The supervisor of a sandbox cannot be reached or answers nonsense.
    #[error("supervisor of sandbox {id}: {step}")]
    Supervisor {
        /// The sandbox.
        id: SandboxId,
        /// What was being done.
        step: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The supervisor is of a later version than this agent and does not serve it: the agent was replaced by an earlier one.
    #[error(
        "the supervisor of sandbox {id} speaks version {version} of the runtime's protocol and serves agents from version \
         {serves_from} on, this one speaks {agent}: run a later agent, or remove the sandbox"
    )]
    Version {
        /// The sandbox.
        id: SandboxId,
        /// What the supervisor speaks.
        version: u32,
        /// The earliest agent it serves.
        serves_from: u32,
        /// What this agent speaks.
        agent: u32,
    },
    /// The supervisor could not set up the sandbox.
    #[error("sandbox {id}: {reason}")]
    Sandbox {
        /// The sandbox.
        id: SandboxId,
        /// The step and what the kernel said.
        reason: String,
    },
    /// A step on a file or directory of the host.
    #[error("{step} {}", path.display())]
    Io {
        /// What was being done.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// Whether what was asked for does not exist (any more).
    pub fn is_not_found(&self) -> bool {
        match self {
            Error::SandboxNotFound { .. } | Error::ContainerNotFound { .. } => true,
            Error::InvalidSpec { .. }
            | Error::ContainerNotRunning { .. }
            | Error::ContainerRunning { .. }
            | Error::StillRunning { .. }
            | Error::Start(_)
            | Error::Exec(_)
            | Error::ExecTimeout { .. }
            | Error::Unsupported { .. }
            | Error::Supervisor { .. }
            | Error::Version { .. }
            | Error::Sandbox { .. }
            | Error::Io { .. } => false,
        }
    }
}

/// Why a process could not be started in a container: the step that failed and what a person can do about it.
///
/// The message is in the words of the OCI runtimes (`exec: "foo": executable file not found in $PATH`).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct StartError {
    /// The step: `cgroup`, `overlay`, `mount`, `user`, `seccomp`, `exec`, ….
    pub step: String,
    /// The whole sentence.
    pub message: String,
    /// The kernel's error number, when there was one.
    pub errno: Option<i32>,
}

impl StartError {
    /// The exit code a shell gives for it: 127 for a program that is not there, 126 for one that cannot be executed, 128
    /// for everything else. A container whose start failed shows 128 whatever the cause, as kubelet does.
    pub fn exit_code(&self) -> i32 {
        match (self.step.as_str(), self.errno) {
            ("exec", Some(libc::ENOENT) | None) => 127,
            ("exec", Some(_)) => 126,
            _ => 128,
        }
    }
}
