//! Containers made with nothing but the kernel.
//!
//! The agent talks to a [`Runtime`]; the runtime starts one small *supervisor* process per pod, a re-execution of the
//! same binary, and talks to it over a unix socket. Containers are the supervisor's children, so an agent that is killed or
//! replaced finds every pod as it was.
//!
//! ```text
//!  agent (tokio, many threads)                     kernel
//!  ┌───────────────┐  requests, events   ┌─────────────────────────────┐
//!  │ Runtime       │ ───── socket ─────▶ │ supervisor (one per pod,    │ holds net, ipc, uts (pid) namespaces
//!  │  Sandbox      │ ◀─── fds of exec ── │  one thread, poll)          │ pumps logs, reaps, records exits
//!  │  Events       │                     └──────┬──────────────┬───────┘
//!  └──────┬────────┘                       fork │              │ fork
//!         │ reads                          ┌────▼─────┐   ┌────▼─────┐
//!         ▼                                │ container│   │ exec     │  mount, pid, cgroup namespaces
//!   cgroup files                           └──────────┘   └──────────┘
//! ```
//!
//! Entry points: [`supervise`] (the first thing `main` calls), [`Runtime::open`], [`Runtime::create_sandbox`],
//! [`Sandbox::start_container`], [`Runtime::events`], [`Runtime::list`].
//!
//! Invariants:
//!
//! - The agent's process never forks without executing at once: every set-up of a container happens in a process with
//!   one thread (fork in a threaded process leaves locks held, fork(2)).
//! - A container id is started at most once, whoever asks how often: the supervisor keeps the record.
//! - An exit is on disk before it is told.
//! - The supervisor trusts no peer but root and the agent trusts no name a container can change: paths in a container are
//!   resolved inside its root, without magic links.
//! - Nothing of the host is left open in a container: descriptors are close-on-exec and closed by range besides, the
//!   supervisor's executable is seen through a read-only mount.
//! - No two sandboxes have numbers of users of their own in common.
//! - What a sandbox left on the host can be found by the mark and removed by [`Runtime::purge`] alone.

mod error;
mod id;
pub mod image;
mod spec;
mod state;

mod runtime;

mod protocol;
mod record;
mod supervisor;

mod apparmor;
mod capability;
mod cgroup;
mod init;
mod seccomp;
mod step;
mod sys;

pub use apparmor::{DEFAULT_APPARMOR_PROFILE, apparmor_enabled, apparmor_loaded};
pub use error::{Error, StartError};
pub use id::{ContainerId, SandboxId};
pub use runtime::{
    AttachSession, Config, Events, ExecOutput, ExecSession, ExecSpec, Runtime, Sandbox, Signal, Stream, Terminal,
    WindowSize,
};
pub use spec::{
    CapabilityChange, ContainerSpec, DEFAULT_MASKED_PATHS, DEFAULT_READONLY_PATHS, Device, HugePageLimit, IdMapping,
    IpcNamespace, LogLimits, Mount, MountKind, NetworkNamespace, PidNamespace, Propagation, QosClass, RLimit,
    Resources, SandboxSpec, SeccompProfile, User, UserNamespace, UtsNamespace,
};
pub use state::{
    ContainerState, ContainerStatus, Details, DeviceUse, Event, Exit, ProcessUse, SandboxStatus, Stalls, Stats,
};
pub use supervisor::{SUPERVISE, supervise};
