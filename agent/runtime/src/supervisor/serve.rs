//! The loop: what became readable, who died, what was asked.

mod attach;

use std::{
    fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixListener,
    },
    path::PathBuf,
    time::Instant,
};

use nix::{
    errno::Errno,
    fcntl::Flock,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signalfd::SignalFd,
    unistd::Pid,
};

use super::{
    connection::{Connection, ConnectionId},
    container::{Container, Surroundings},
    exec::{Exec, News},
};
use crate::{
    cgroup::{Tree, lift_cpu_bound},
    error::StartError,
    id::ContainerId,
    init::{Among, Pids, Users},
    protocol::{Failure, Reply, Request, SERVES_FROM, VERSION},
    record::SandboxRecord,
    runtime::ExecSpec,
    spec::{ContainerSpec, PidNamespace, Resources},
    state::ContainerState,
    step::{describe, refuse},
    sys::{self, End},
};

/// Reads of one stream in one turn.
const CHUNKS_A_TURN: usize = 8;
/// Connections at once; a node has one agent, with some execs.
const MAX_CONNECTIONS: usize = 1024;

pub(super) struct Supervisor {
    directory: PathBuf,
    record: SandboxRecord,
    tree: Box<dyn Tree>,
    listener: UnixListener,
    signals: SignalFd,
    pod_pids: Option<Pids>,
    /// The user namespace, when the pod has its own.
    users: Option<OwnedFd>,
    containers: Vec<Container>,
    execs: Vec<Exec>,
    connections: Vec<Connection>,
    next_connection: ConnectionId,
    /// Who asked to end.
    ending: Vec<ConnectionId>,
    done: bool,
    /// Held as long as this process lives, so that there is one supervisor.
    _lock: Flock<fs::File>,
}

/// What a descriptor in the poll set belongs to.
#[derive(Clone, Copy)]
enum Source {
    Listener,
    Signals,
    Connection(usize),
    Channel(usize),
    Output(usize, usize),
    /// An attached client takes again.
    Taps(usize),
    /// An attached client is gone.
    TapGone(usize, usize, usize),
    Exec(usize),
}

impl Supervisor {
    #[expect(clippy::too_many_arguments, reason = "called once, with everything a supervisor holds")]
    pub(super) fn new(
        directory: PathBuf,
        record: SandboxRecord,
        tree: Box<dyn Tree>,
        listener: UnixListener,
        signals: SignalFd,
        pod_pids: Option<Pids>,
        users: Option<OwnedFd>,
        lock: Flock<fs::File>,
    ) -> Supervisor {
        Supervisor {
            directory,
            record,
            tree,
            listener,
            signals,
            pod_pids,
            users,
            containers: Vec::new(),
            execs: Vec::new(),
            connections: Vec::new(),
            next_connection: 0,
            ending: Vec::new(),
            done: false,
            _lock: lock,
        }
    }

    /// Serves until told to end.
    pub(super) fn run(&mut self) -> io::Result<()> {
        while !self.done {
            let ready = self.wait()?;
            let now = Instant::now();
            // Reports before deaths, and both before requests: who asks is answered with what is already known. Outputs
            // are taken from the last, since one that ends is removed.
            for source in ready.iter().rev() {
                match *source {
                    Source::Output(container, output) => {
                        if let Some(container) = self.containers.get_mut(container) {
                            container.pump(output, CHUNKS_A_TURN);
                        }
                    }
                    Source::TapGone(container, output, tap) => {
                        let output =
                            self.containers.get_mut(container).and_then(|container| container.outputs.get_mut(output));
                        if let Some(output) = output.filter(|output| tap < output.taps.len()) {
                            output.taps.remove(tap);
                        }
                    }
                    Source::Channel(container) => self.hear_container(container),
                    Source::Exec(exec) => self.hear_exec(exec),
                    Source::Taps(_) | Source::Listener | Source::Signals | Source::Connection(_) => {}
                }
            }
            for (place, container) in self.containers.iter_mut().enumerate() {
                let takes = ready.iter().any(|source| matches!(source, Source::Taps(ready) if *ready == place));
                if takes || container.tap_deadline().is_some_and(|deadline| deadline <= now) {
                    container.flush_taps(now);
                }
            }
            for source in &ready {
                match *source {
                    Source::Signals => self.reap(),
                    Source::Connection(place) => self.serve(place),
                    Source::Listener => self.accept(),
                    Source::Output(..)
                    | Source::Taps(_)
                    | Source::TapGone(..)
                    | Source::Channel(_)
                    | Source::Exec(_) => {}
                }
            }
            self.leave_broken();
            self.end_if_asked();
        }
        Ok(())
    }

    fn wait(&self) -> io::Result<Vec<Source>> {
        let mut sources = vec![Source::Signals];
        let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        if self.connections.len() < MAX_CONNECTIONS {
            sources.push(Source::Listener);
            fds.push(PollFd::new(self.listener.as_fd(), PollFlags::POLLIN));
        }
        for (place, connection) in self.connections.iter().enumerate() {
            let write = if connection.wants_to_write() { PollFlags::POLLOUT } else { PollFlags::empty() };
            sources.push(Source::Connection(place));
            fds.push(PollFd::new(connection.fd(), PollFlags::POLLIN | write));
        }
        for (place, container) in self.containers.iter().enumerate() {
            for (number, output) in container.outputs.iter().enumerate() {
                if !output.is_held() {
                    sources.push(Source::Output(place, number));
                    fds.push(PollFd::new(output.fd.as_fd(), PollFlags::POLLIN));
                }
                for (tap, client) in output.taps.iter().enumerate() {
                    sources.push(Source::TapGone(place, number, tap));
                    fds.push(PollFd::new(client.fd(), attach::wanted(client)));
                }
            }
            for tap in &container.leaving {
                sources.push(Source::Taps(place));
                fds.push(PollFd::new(tap.fd(), attach::wanted(tap)));
            }
            if let Some(channel) = &container.channel {
                sources.push(Source::Channel(place));
                fds.push(PollFd::new(channel.as_fd(), PollFlags::POLLIN));
            }
        }
        for (place, exec) in self.execs.iter().enumerate() {
            if let Some(channel) = &exec.channel {
                sources.push(Source::Exec(place));
                fds.push(PollFd::new(channel.as_fd(), PollFlags::POLLIN));
            }
        }
        let patience =
            self.containers.iter().filter_map(Container::tap_deadline).min().map_or(PollTimeout::NONE, |at| {
                // Rounded up, so that the time is over when poll returns.
                let left = at.saturating_duration_since(Instant::now()).as_millis().saturating_add(1);
                PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
            });
        match poll(&mut fds, patience) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        }
        let mut ready = Vec::new();
        for (source, fd) in sources.into_iter().zip(&fds) {
            let events = fd.revents().unwrap_or(PollFlags::empty());
            match source {
                _ if events.is_empty() => {}
                Source::TapGone(place, ..) if !events.contains(PollFlags::POLLERR) => ready.push(Source::Taps(place)),
                source => ready.push(source),
            }
        }
        Ok(ready)
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            if let Ok(connection) = Connection::accept(self.next_connection, stream) {
                self.next_connection += 1;
                self.connections.push(connection);
            }
        }
    }

    fn serve(&mut self, place: usize) {
        let Some(connection) = self.connections.get_mut(place) else { return };
        connection.flush();
        let id = connection.id;
        for request in connection.read() {
            match request {
                Ok(request) => self.handle(id, request),
                Err(reason) => self.answer(id, &Reply::Failed(Failure::Unsupported(reason))),
            }
        }
    }

    /// Closes connections whose peer has left; processes started on them end.
    fn leave_broken(&mut self) {
        for connection in &self.connections {
            if connection.broken
                && let Some(exec) = self.execs.iter().find(|exec| exec.connection == connection.id)
            {
                exec.kill();
            }
        }
        self.connections.retain(|connection| !connection.broken);
    }

    fn answer(&mut self, id: ConnectionId, reply: &Reply) {
        self.answer_with(id, reply, &[]);
    }

    fn answer_with(&mut self, id: ConnectionId, reply: &Reply, fds: &[OwnedFd]) {
        if let Some(connection) = self.connections.iter_mut().find(|connection| connection.id == id) {
            connection.send_with(reply, fds);
        }
    }

    fn handle(&mut self, from: ConnectionId, request: Request) {
        let reply = match request {
            Request::Status => Ok(Some(Reply::Status {
                version: VERSION,
                serves_from: SERVES_FROM,
                pid: std::process::id(),
                containers: self.containers.iter().map(|container| container.status.clone()).collect(),
            })),
            Request::Start(spec) => Ok(self.start(from, *spec)),
            Request::Signal { container, signal } => self.signal(&container, |_| signal),
            Request::Stop { container } => self.signal(&container, Container::stop_signal),
            Request::Kill { container } => self.kill(&container),
            Request::Wait { container } => self.wait_for(from, &container),
            Request::Forget { container } => self.forget(&container),
            Request::Exec { container, spec } => self.exec(from, &container, &spec),
            Request::ExecSignal { signal } => self.signal_exec(from, signal),
            Request::Attach { container, output_only } => self.attach(from, &container, output_only),
            Request::ReopenLog { container } => self.reopen_log(&container),
            Request::Subscribe => {
                self.subscribe(from);
                Ok(None)
            }
            Request::Shutdown => {
                self.shutdown(from);
                Ok(None)
            }
        };
        match reply {
            Ok(None) => {}
            Ok(Some(reply)) => self.answer(from, &reply),
            Err(failure) => self.answer(from, &Reply::Failed(failure)),
        }
    }

    fn place_of(&self, id: &ContainerId) -> Option<usize> {
        self.containers.iter().position(|container| container.status.id == *id)
    }

    fn find(&self, id: &ContainerId) -> Result<&Container, Failure> {
        self.containers.iter().find(|container| container.status.id == *id).ok_or(Failure::NotFound)
    }

    /// Starts a container once: whoever asks again is told how that one fares.
    fn start(&mut self, from: ConnectionId, spec: ContainerSpec) -> Option<Reply> {
        let id = ContainerId::of(&self.record.id, &spec.name, spec.attempt);
        if let Some(place) = self.place_of(&id) {
            let container = self.containers.get_mut(place)?;
            if container.status.state == ContainerState::Creating {
                container.starters.push(from);
                return None;
            }
            return Some(told(container));
        }
        if !self.ending.is_empty() {
            return Some(Reply::Failed(Failure::Start(refuse("process", "the sandbox is being stopped"))));
        }
        let group = self.record.cgroup.join(id.as_str());
        let mut container = Container::new(id, spec, group, &self.record.spec, &self.directory);
        container.starters.push(from);
        if let Err(error) = self.among(&container.spec).and_then(|among| {
            let around = Surroundings {
                tree: self.tree.as_ref(),
                sandbox: &self.record.spec,
                directory: &self.directory,
                layers: &self.record.containers,
                among,
                users: Users::of(self.users.as_ref(), self.record.users),
            };
            container.launch(&around, self.record.spec.log_limits)
        }) {
            container.fail(error);
        }
        let over = container.is_over();
        self.containers.push(container);
        if over {
            self.tell_state(self.containers.len() - 1);
        }
        None
    }

    /// Among which processes a container is to begin.
    fn among(&self, spec: &ContainerSpec) -> Result<Among<'_>, StartError> {
        match spec.pid.as_ref().unwrap_or(&self.record.spec.pid) {
            PidNamespace::Container => Ok(Among::Own),
            PidNamespace::Host => Ok(Among::Host),
            PidNamespace::Pod => match &self.pod_pids {
                Some(pids) => Ok(Among::Others(pids)),
                None => Err(refuse("namespace", "the sandbox has no pid namespace of its own")),
            },
            PidNamespace::Target(id) => {
                // One that has not become its program yet may more than a container may be shown.
                let runs = |target: &&Container| {
                    matches!(target.status.state, ContainerState::Running { .. }) && target.is_alive()
                };
                let target = self.find(id).ok().filter(runs);
                let target = target.ok_or_else(|| refuse("namespace", format!("container {id} is not running")))?;
                if let Some(pids) = &target.pids {
                    return Ok(Among::Others(pids));
                }
                match self.among(&target.spec)? {
                    Among::Own => Err(refuse("namespace", format!("container {id} shows its processes to none"))),
                    among => Ok(among),
                }
            }
        }
    }

    fn hear_container(&mut self, place: usize) {
        let tree = self.tree.as_ref();
        let Some(container) = self.containers.get_mut(place) else { return };
        if container.hear() {
            self.tell_state(place);
        } else if container.end_unborn(tree) {
            self.bind_cpu();
            self.tell_state(place);
        }
    }

    /// Tells everybody who wants to know, after it is on disk.
    fn tell_state(&mut self, place: usize) {
        let Some(container) = self.containers.get_mut(place) else { return };
        let state = Reply::Container(container.status.clone());
        let started = told(container);
        let starters = std::mem::take(&mut container.starters);
        let exit = match &container.status.state {
            ContainerState::Exited(exit) => Some(exit.clone()),
            ContainerState::Creating | ContainerState::Running { .. } => None,
        };
        let waiters = if exit.is_some() { std::mem::take(&mut container.waiters) } else { Vec::new() };
        for id in starters {
            self.answer(id, &started);
        }
        if let Some(exit) = exit {
            for id in waiters {
                self.answer(id, &Reply::Exited(exit.clone()));
            }
        }
        for connection in self.connections.iter_mut().filter(|connection| connection.subscribed) {
            connection.send(&state);
        }
    }

    fn hear_exec(&mut self, place: usize) {
        let Some(exec) = self.execs.get_mut(place) else { return };
        let (id, news) = (exec.connection, exec.hear(self.tree.as_ref()));
        match news {
            News::Nothing => {}
            News::Failed(error) => self.answer(id, &Reply::Failed(Failure::Start(error))),
            News::Runs(kinds, fds) => self.answer_with(id, &Reply::Exec { fds: kinds }, &fds),
        }
        self.leave_exec(place);
    }

    /// Leaves a process that has ended, and says how.
    fn leave_exec(&mut self, place: usize) {
        if !self.execs.get(place).is_some_and(Exec::is_over) {
            return;
        }
        let exec = self.execs.remove(place);
        // What it said at the end is still in its pipes, which the agent has.
        if let Some(code) = exec.code {
            self.answer_code_once(exec.connection, code);
        }
    }

    /// Takes every dead child, ours or left to us, and says so where somebody waits.
    fn reap(&mut self) {
        while let Ok(Some(_)) = self.signals.read_signal() {}
        loop {
            match sys::reap_one() {
                Ok(Some((pid, End::Exited(code)))) => self.reaped(pid, code, None),
                Ok(Some((pid, End::Signalled(signal)))) => self.reaped(pid, 128 + signal, Some(signal)),
                Ok(None) | Err(_) => return,
            }
        }
    }

    fn reaped(&mut self, pid: Pid, code: i32, signal: Option<i32>) {
        if let Some(place) = self.containers.iter().position(|container| container.helper == Some(pid)) {
            let tree = self.tree.as_ref();
            if self.containers.get_mut(place).is_some_and(|container| container.helper_reaped(tree)) {
                self.bind_cpu();
                self.tell_state(place);
            }
        } else if let Some(place) = self.containers.iter().position(|container| container.init == Some(pid)) {
            let tree = self.tree.as_ref();
            if self.containers.get_mut(place).is_some_and(|container| container.reaped(code, signal, tree)) {
                self.bind_cpu();
                self.tell_state(place);
            }
        } else if let Some(place) = self.execs.iter().position(|exec| exec.helper == Some(pid)) {
            if let Some(exec) = self.execs.get_mut(place) {
                exec.helper = None;
            }
            // What it prepared has begun, or has yet to say so, or never will.
            self.hear_exec(place);
        } else if let Some(place) = self.execs.iter().position(|exec| exec.running() == Some(pid)) {
            if let Some(exec) = self.execs.get_mut(place) {
                exec.code = Some(code);
            }
            self.hear_exec(place);
        }
    }

    fn answer_code_once(&mut self, id: ConnectionId, code: i32) {
        if let Some(connection) = self.connections.iter_mut().find(|connection| connection.id == id)
            && std::mem::take(&mut connection.exec)
        {
            connection.send(&Reply::Code(code));
        }
    }

    fn signal(&mut self, id: &ContainerId, number: impl Fn(&Container) -> i32) -> Result<Option<Reply>, Failure> {
        let container = self.find(id)?;
        match container.signal(number(container)) {
            Ok(()) => Ok(Some(Reply::Done)),
            Err(Errno::ESRCH) => Err(Failure::NotRunning),
            Err(error) => Err(kernel("signal", &error.into())),
        }
    }

    fn kill(&mut self, id: &ContainerId) -> Result<Option<Reply>, Failure> {
        let place = self.place_of(id).ok_or(Failure::NotFound)?;
        let container = self.containers.get_mut(place).ok_or(Failure::NotFound)?;
        if container.is_alive() {
            lift_cpu_bound(self.tree.as_ref(), &self.record.cgroup);
            container.kill(self.tree.as_ref()).map_err(|error| kernel("kill", &error))?;
        }
        Ok(Some(Reply::Done))
    }

    fn reopen_log(&mut self, id: &ContainerId) -> Result<Option<Reply>, Failure> {
        let place = self.place_of(id).ok_or(Failure::NotFound)?;
        self.containers.get_mut(place).ok_or(Failure::NotFound)?.reopen_log().map(|()| Some(Reply::Done))
    }

    /// The pod is bound again when nothing of it is dying any more.
    fn bind_cpu(&self) {
        if self.ending.is_empty() && !self.containers.iter().any(Container::is_dying) {
            // What it is to have may have changed since it was made.
            let record = SandboxRecord::read(&self.directory);
            let Resources { cpu_quota, cpu_period, .. } = record.as_ref().unwrap_or(&self.record).spec.resources;
            // The kernel took these once.
            let _ = self.tree.apply(&self.record.cgroup, &Resources { cpu_quota, cpu_period, ..Resources::default() });
        }
    }

    fn wait_for(&mut self, from: ConnectionId, id: &ContainerId) -> Result<Option<Reply>, Failure> {
        let place = self.place_of(id).ok_or(Failure::NotFound)?;
        let container = self.containers.get_mut(place).ok_or(Failure::NotFound)?;
        if let ContainerState::Exited(exit) = &container.status.state {
            return Ok(Some(Reply::Exited(exit.clone())));
        }
        container.waiters.push(from);
        Ok(None)
    }

    fn forget(&mut self, id: &ContainerId) -> Result<Option<Reply>, Failure> {
        let place = self.place_of(id).ok_or(Failure::NotFound)?;
        let container = self.find(id)?;
        if !container.is_over() {
            return Err(Failure::Running);
        }
        container.remove_record().map_err(|error| kernel("remove the record", &error))?;
        self.containers.remove(place);
        Ok(Some(Reply::Done))
    }

    fn exec(&mut self, from: ConnectionId, id: &ContainerId, spec: &ExecSpec) -> Result<Option<Reply>, Failure> {
        let container = self.find(id)?;
        if !matches!(container.status.state, ContainerState::Running { .. }) {
            return Err(Failure::NotRunning);
        }
        let users = Users::of(self.users.as_ref(), self.record.users);
        let exec = Exec::launch(from, container, spec, self.tree.restricts_devices(), users).map_err(Failure::Start)?;
        if let Some(connection) = self.connections.iter_mut().find(|connection| connection.id == from) {
            connection.exec = true;
        }
        let helper = exec.maker;
        self.execs.push(exec);
        // What it prepares is moved to the container's cgroup when it is born. Moving takes the kernel some ten milliseconds,
        // nearly all of them a wait that serves every move that follows soon (kernel/rcu/sync.c): so the wait goes on while the
        // helper prepares, for a move to where it is already.
        let _ = self.tree.join(&self.record.supervisor_group(), helper);
        Ok(None)
    }

    fn signal_exec(&mut self, from: ConnectionId, signal: i32) -> Result<Option<Reply>, Failure> {
        let exec = self.execs.iter().find(|exec| exec.connection == from).ok_or(Failure::NotRunning)?;
        let pid = exec.running().ok_or(Failure::NotRunning)?;
        sys::send_signal(pid, signal).map_err(|error| kernel("signal", &error.into()))?;
        Ok(None)
    }

    fn subscribe(&mut self, from: ConnectionId) {
        let states: Vec<Reply> =
            self.containers.iter().map(|container| Reply::Container(container.status.clone())).collect();
        if let Some(connection) = self.connections.iter_mut().find(|connection| connection.id == from) {
            connection.subscribed = true;
            for state in &states {
                connection.send(state);
            }
        }
    }

    fn shutdown(&mut self, from: ConnectionId) {
        self.ending.push(from);
        lift_cpu_bound(self.tree.as_ref(), &self.record.cgroup);
        for container in self.containers.iter_mut().filter(|container| container.is_alive()) {
            let _ = container.kill(self.tree.as_ref());
        }
    }

    fn end_if_asked(&mut self) {
        if self.ending.is_empty() || !self.containers.iter().all(Container::is_over) {
            return;
        }
        for id in std::mem::take(&mut self.ending) {
            self.answer(id, &Reply::Done);
        }
        self.done = true;
    }
}

/// How a start went.
fn told(container: &Container) -> Reply {
    match &container.status.state {
        ContainerState::Exited(exit) => match &exit.start_error {
            Some(error) => Reply::Failed(Failure::Start(error.clone())),
            None => Reply::Container(container.status.clone()),
        },
        ContainerState::Creating | ContainerState::Running { .. } => Reply::Container(container.status.clone()),
    }
}

fn kernel(step: &str, error: &io::Error) -> Failure {
    Failure::Kernel { step: step.to_owned(), message: describe(error) }
}
