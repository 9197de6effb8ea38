//! A process started in a running container, on behalf of one connection.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
};

use nix::{
    fcntl::OFlag,
    sys::{
        signal,
        wait::{Id, WaitPidFlag, waitid},
    },
    unistd::{Pid, pipe2},
};

use super::{
    connection::ConnectionId,
    container::{Container, go},
};
use crate::{
    cgroup::Tree,
    error::StartError,
    init::{self, ExecPlan, Report, Stdio, Users},
    protocol::Fds,
    runtime::ExecSpec,
    step::{AtStep, refuse},
    sys,
};

#[derive(Debug)]
pub(super) struct Exec {
    pub(super) connection: ConnectionId,
    /// The process that prepares it outside of the container, until it is reaped.
    pub(super) helper: Option<Pid>,
    /// The same, for good.
    pub(super) maker: Pid,
    /// The process itself, once it was born in the container.
    pub(super) pid: Option<Pid>,
    /// How that ended, once it is reaped.
    pub(super) code: Option<i32>,
    /// The container's cgroup.
    group: PathBuf,
    /// Where both report, until it has become its program.
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
        devices_restricted: bool,
        users: Option<Users<'_>>,
    ) -> Result<Exec, StartError> {
        let init = container.running().ok_or_else(|| refuse("namespace", "the container is not running"))?;
        let what = || "enter the container".to_owned();
        let target = sys::pidfd(init).at("namespace", what)?;
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
        let Some(helper) = sys::fork_into(0).at("process", || "fork".to_owned())? else {
            drop((ours, fds));
            init::exec(ExecPlan {
                spec: &container.spec,
                exec: spec,
                target,
                devices_restricted,
                filter: container.filter.as_deref(),
                users,
                channel: theirs,
                stdio,
            });
        };
        Ok(Exec {
            connection,
            helper: Some(helper),
            maker: helper,
            pid: None,
            code: None,
            group: container.group.clone(),
            channel: Some(ours),
            failure: None,
            fds,
            kinds,
        })
    }

    /// Listens to it.
    pub(super) fn hear(&mut self, tree: &dyn Tree) -> News {
        while let Some(channel) = &self.channel {
            match init::receive(channel.as_fd()) {
                Ok(Some(told)) => match told.report {
                    // From one in the container, which another may have taken over, this is nothing.
                    Report::Terminal if told.sender == self.maker => {
                        self.kinds.terminal = true;
                        self.fds = told.fds;
                    }
                    Report::Failed(error) => self.failure = Some(error),
                    // Told by a child of ours and once: who traces it in the container may send what it likes.
                    Report::Begun if self.pid.is_none() && is_child(told.sender) => {
                        self.pid = Some(told.sender);
                        let joined = tree.join(&self.group, told.sender);
                        if let Err(error) =
                            joined.at("cgroup", || "join the cgroup".to_owned()).and_then(|()| go(channel))
                        {
                            self.failure.get_or_insert(error);
                            self.kill();
                        }
                    }
                    Report::Identity { .. } | Report::Terminal | Report::Pids | Report::Begun => {}
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return News::Nothing,
                Ok(None) | Err(_) => {
                    self.channel = None;
                    return match (self.failure.take(), self.pid) {
                        (Some(error), _) => News::Failed(error),
                        (None, Some(_)) => News::Runs(self.kinds, std::mem::take(&mut self.fds)),
                        (None, None) => News::Failed(refuse("process", "ended before its program ran")),
                    };
                }
            }
        }
        News::Nothing
    }

    /// The process, while there is one.
    pub(super) fn running(&self) -> Option<Pid> {
        self.pid.filter(|_| self.code.is_none())
    }

    /// Whether nothing of it is left, nor will come. What prepared it may end last, and holds its end of the channel until
    /// then.
    pub(super) fn is_over(&self) -> bool {
        let ended = self.code.is_some() || (self.pid.is_none() && self.channel.is_none());
        self.helper.is_none() && ended
    }

    pub(super) fn kill(&self) {
        for pid in [self.helper, self.running()].into_iter().flatten() {
            let _ = signal::kill(pid, signal::Signal::SIGKILL);
        }
    }
}

/// Whether a process is a child of this one that has not been reaped.
pub(super) fn is_child(pid: Pid) -> bool {
    let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    pid.as_raw() > 0 && waitid(Id::Pid(pid), look).is_ok()
}
