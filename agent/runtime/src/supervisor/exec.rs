//! A process started in a running container, on behalf of one connection.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use nix::{fcntl::OFlag, sched::CloneFlags, sys::signal, unistd::Pid, unistd::pipe2};

use super::{
    connection::ConnectionId,
    container::{Container, fork_in, go},
};
use crate::{
    cgroup::Tree,
    error::StartError,
    init::{self, ExecPlan, Report, Stdio, Users},
    protocol::Fds,
    runtime::ExecSpec,
    step::AtStep,
    sys,
};

#[derive(Debug)]
pub(super) struct Exec {
    pub(super) connection: ConnectionId,
    pub(super) pid: Pid,
    /// Where it reports, until it has become its program.
    pub(super) channel: Option<OwnedFd>,
    failure: Option<StartError>,
    /// The ends that go to the agent, until they have gone.
    fds: Vec<OwnedFd>,
    kinds: Fds,
}

/// What is to be told.
pub(super) enum News {
    /// Nothing yet.
    Nothing,
    /// It runs; these descriptors go to the agent.
    Runs(Fds, Vec<OwnedFd>),
    /// It does not.
    Failed(StartError),
}

impl Exec {
    pub(super) fn launch(
        connection: ConnectionId,
        container: &Container,
        spec: &ExecSpec,
        tree: &dyn Tree,
        own_pids: &OwnedFd,
        users: Option<Users<'_>>,
    ) -> Result<Exec, StartError> {
        let init = container.init.ok_or_else(|| crate::step::refuse("namespace", "the container is not running"))?;
        let what = || "enter the container".to_owned();
        let target = sys::pidfd(init).at("namespace", what)?;
        let pids = OwnedFd::from(std::fs::File::open(format!("/proc/{init}/ns/pid")).at("namespace", what)?);
        let mut stdio = Stdio { stdin: None, stdout: None, stderr: None };
        let mut fds = Vec::new();
        let mut kinds = Fds::default();
        if !spec.tty {
            let pipe = || pipe2(OFlag::O_CLOEXEC).at("stdio", || "make a pipe".to_owned());
            if spec.stdin {
                let (theirs, ours) = pipe()?;
                stdio.stdin = Some(theirs);
                fds.push(ours);
                kinds.stdin = true;
            }
            for end in [&mut stdio.stdout, &mut stdio.stderr] {
                let (ours, theirs) = pipe()?;
                *end = Some(theirs);
                fds.push(ours);
            }
            (kinds.stdout, kinds.stderr) = (true, true);
        }
        let (ours, theirs) = init::pair().at("process", || "make a socket pair".to_owned())?;
        let Some(pid) = fork_in(Some(&pids), own_pids, CloneFlags::empty())? else {
            drop((ours, fds));
            init::exec(ExecPlan {
                spec: &container.spec,
                exec: spec,
                target,
                devices_restricted: tree.restricts_devices(),
                filter: container.filter.as_deref(),
                users,
                channel: theirs,
                stdio,
            });
        };
        let exec = Exec { connection, pid, channel: None, failure: None, fds, kinds };
        if let Err(error) =
            tree.join(&container.group, pid).at("cgroup", || "join the cgroup".to_owned()).and_then(|()| go(&ours))
        {
            exec.kill();
            let mut exec = Exec { channel: Some(ours), ..exec };
            return Err(match exec.hear() {
                News::Failed(reason) => reason,
                News::Nothing | News::Runs(..) => error,
            });
        }
        Ok(Exec { channel: Some(ours), ..exec })
    }

    /// Listens to it.
    pub(super) fn hear(&mut self) -> News {
        while let Some(channel) = &self.channel {
            match init::receive(channel.as_fd()) {
                Ok(Some((Report::Identity { .. }, _))) => {}
                Ok(Some((Report::Terminal, fds))) => {
                    self.kinds.terminal = true;
                    self.fds = fds;
                }
                Ok(Some((Report::Failed(error), _))) => self.failure = Some(error),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return News::Nothing,
                Ok(None) | Err(_) => {
                    self.channel = None;
                    return match self.failure.take() {
                        Some(error) => News::Failed(error),
                        None => News::Runs(self.kinds, std::mem::take(&mut self.fds)),
                    };
                }
            }
        }
        News::Nothing
    }

    pub(super) fn kill(&self) {
        let _ = signal::kill(self.pid, signal::Signal::SIGKILL);
    }
}
