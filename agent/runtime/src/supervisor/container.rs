//! One container: its record, its first process, its pipes and log.

use std::{
    fs, io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    time::{Instant, SystemTime},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    sched::CloneFlags,
    sys::signal,
    unistd::{Pid, pipe2},
};

use super::{
    connection::ConnectionId,
    exec::is_child,
    log::{Lines, Log, now},
    tap::Tap,
};
use crate::{
    cgroup::{DeviceRule, Tree},
    error::StartError,
    id::ContainerId,
    init::{self, Among, Pids, Plan, Report, Stdio, Told, Users},
    protocol::Failure,
    record::{container_path, write_json},
    runtime::Signal,
    seccomp,
    spec::{ContainerSpec, LogLimits, SandboxSpec},
    state::{ContainerState, ContainerStatus, Exit},
    step::{AtStep, refuse},
    sys,
};

/// Read at once; as much as a pipe gives without being filled again.
const CHUNK: usize = 16 << 10;

pub(super) struct Container {
    pub(super) status: ContainerStatus,
    pub(super) spec: ContainerSpec,
    pub(super) group: PathBuf,
    record: PathBuf,
    /// Its first process, until it is reaped.
    pub(super) init: Option<Pid>,
    /// The process that prepares that one where no container sees it, until it is reaped; others' first process does so
    /// itself.
    pub(super) helper: Option<Pid>,
    /// Whichever of them was forked.
    maker: Option<Pid>,
    /// How its first process ended, while what prepared that one has not: that may be the slower of them.
    ended: Option<(i32, Option<i32>)>,
    /// Its processes, for containers that begin among them later, if it is their first.
    pub(super) pids: Option<Pids>,
    /// It was killed, and its end has not been seen yet.
    killed: bool,
    /// Where its first process reports, until it has become its program.
    pub(super) channel: Option<OwnedFd>,
    identity: (u32, u32, Vec<u32>),
    failure: Option<StartError>,
    /// Who waits for the start and who for the end.
    pub(super) starters: Vec<ConnectionId>,
    pub(super) waiters: Vec<ConnectionId>,
    pub(super) outputs: Vec<Output>,
    /// Copies of outputs that have ended, which their clients have not taken whole.
    pub(super) leaving: Vec<Tap>,
    /// The inner end of its input, kept open for clients to come.
    pub(super) stdin: Option<OwnedFd>,
    log: Option<Log>,
    /// The filter of system calls, for processes executed in it as well.
    pub(super) filter: Option<Vec<libc::sock_filter>>,
}

/// One stream of output.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) fd: OwnedFd,
    name: &'static str,
    lines: Lines,
    /// Attached clients.
    pub(super) taps: Vec<Tap>,
}

/// What a container is started with.
pub(super) struct Surroundings<'a> {
    pub(super) tree: &'a dyn Tree,
    pub(super) sandbox: &'a SandboxSpec,
    /// The sandbox's run directory.
    pub(super) directory: &'a Path,
    /// Where the containers' writable layers are.
    pub(super) layers: &'a Path,
    pub(super) among: Among<'a>,
    /// The pod's own users, if it has any.
    pub(super) users: Option<Users<'a>>,
}

impl Container {
    pub(super) fn new(
        id: ContainerId,
        spec: ContainerSpec,
        group: PathBuf,
        sandbox: &SandboxSpec,
        run: &Path,
    ) -> Container {
        let usual = || sandbox.log_directory.join(&spec.name).join(format!("{}.log", spec.attempt));
        let log_path = spec.log_path.clone().unwrap_or_else(usual);
        let record = container_path(run, &id);
        Container {
            status: ContainerStatus {
                id,
                name: spec.name.clone(),
                attempt: spec.attempt,
                created_at: SystemTime::now(),
                state: ContainerState::Creating,
                log_path,
                annotations: spec.annotations.clone(),
            },
            spec,
            group,
            record,
            init: None,
            helper: None,
            maker: None,
            ended: None,
            pids: None,
            killed: false,
            channel: None,
            identity: (0, 0, Vec::new()),
            failure: None,
            starters: Vec::new(),
            waiters: Vec::new(),
            outputs: Vec::new(),
            leaving: Vec::new(),
            stdin: None,
            log: None,
            filter: None,
        }
    }

    /// Writes the record. A full disk must not make a container unmanageable: what is in memory counts while we live.
    fn save(&self) {
        let _ = write_json(&self.record, &self.status);
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.status.state, ContainerState::Exited(_))
    }

    /// Starts its first process, which goes on by itself and reports by `channel`.
    pub(super) fn launch(&mut self, around: &Surroundings<'_>, limits: LogLimits) -> Result<(), StartError> {
        let record_directory = around.directory.join("containers");
        fs::create_dir_all(&record_directory).at("record", || "make the directory of records".to_owned())?;
        self.save();
        let directory = around.layers.join(self.status.id.as_str());
        fs::create_dir_all(&directory).at("overlay", || format!("make {}", directory.display()))?;
        let path = &self.status.log_path;
        self.log = Some(Log::open(path, limits).at("log", || format!("open {}", path.display()))?);

        around.tree.create(&self.group).at("cgroup", || "make the cgroup".to_owned())?;
        around.tree.apply(&self.group, &self.spec.resources).at("cgroup", || "set limits".to_owned())?;
        let rules = self.device_rules()?;
        around.tree.allow_devices(&self.group, &rules).at("cgroup", || "allow devices".to_owned())?;

        if !self.spec.privileged {
            let capabilities = init::bounding(&self.spec, around.tree.restricts_devices())?;
            self.filter = seccomp::program(&self.spec.seccomp, capabilities).map_err(|why| refuse("seccomp", why))?;
        }

        let pipe = || pipe2(OFlag::O_CLOEXEC).at("stdio", || "make a pipe".to_owned());
        let mut stdio = Stdio { stdin: None, stdout: None, stderr: None };
        let mut outputs = Vec::new();
        let mut stdin = None;
        if !self.spec.tty {
            for (name, end) in [("stdout", &mut stdio.stdout), ("stderr", &mut stdio.stderr)] {
                let (ours, theirs) = pipe()?;
                set_nonblocking(&ours).at("stdio", || "make a pipe".to_owned())?;
                outputs.push(Output::new(ours, name));
                *end = Some(theirs);
            }
            if self.spec.stdin {
                let (theirs, ours) = pipe()?;
                stdio.stdin = Some(theirs);
                stdin = Some(ours);
            }
        }
        let (ours, theirs) = init::pair().at("process", || "make a socket pair".to_owned())?;
        let mut namespaces = CloneFlags::CLONE_NEWNS;
        if matches!(around.among, Among::Own) {
            namespaces |= CloneFlags::CLONE_NEWPID;
        }
        let Some(pid) = sys::fork_into(namespaces.bits()).at("process", || "fork".to_owned())? else {
            drop(ours);
            init::container(Plan {
                spec: &self.spec,
                sandbox: around.sandbox,
                directory: &directory,
                among: around.among,
                shm: &around.directory.join("shm"),
                devices_restricted: around.tree.restricts_devices(),
                filter: self.filter.as_deref(),
                users: around.users,
                channel: theirs,
                stdio,
            });
        };
        self.maker = Some(pid);
        match around.among {
            Among::Own | Among::Host => self.init = Some(pid),
            Among::Others(_) => self.helper = Some(pid),
        }
        self.channel = Some(ours);
        self.outputs = outputs;
        self.stdin = stdin;
        let joined = around.tree.join(&self.group, pid).at("cgroup", || "join the cgroup".to_owned());
        let gone = joined.and_then(|()| self.channel.as_ref().map_or(Ok(()), go));
        if gone.is_err() {
            // A process that has failed and ended meanwhile says the better reason.
            self.hear();
        }
        gone.map_err(|error| self.failure.take().unwrap_or(error))
    }

    fn device_rules(&self) -> Result<Vec<DeviceRule>, StartError> {
        if self.spec.privileged {
            return Ok(DeviceRule::all());
        }
        let mut rules = DeviceRule::defaults();
        for device in self.spec.devices.iter().filter(|device| !device.permissions.is_empty()) {
            let what = || format!("look at device {}", device.host_path.display());
            let found = nix::sys::stat::stat(&device.host_path).at("device", what)?;
            let kind = match found.st_mode & libc::S_IFMT {
                libc::S_IFCHR => 'c',
                libc::S_IFBLK => 'b',
                _ => return Err(refuse("device", format!("{} is no device", device.host_path.display()))),
            };
            rules.push(DeviceRule {
                kind,
                major: Some(nix::sys::stat::major(found.st_rdev)),
                minor: Some(nix::sys::stat::minor(found.st_rdev)),
                permissions: device.permissions.clone(),
            });
        }
        Ok(rules)
    }

    /// Goes on in a new log file, after somebody has taken the old one away.
    pub(super) fn reopen_log(&mut self) -> Result<(), Failure> {
        let log = self.log.as_mut().ok_or(Failure::NotRunning)?;
        log.reopen().map_err(|error| Failure::Kernel { step: "reopen the log".to_owned(), message: error.to_string() })
    }

    /// Listens to the first process. True when the state has changed: the program runs.
    pub(super) fn hear(&mut self) -> bool {
        while let Some(channel) = &self.channel {
            match init::receive(channel.as_fd()) {
                Ok(Some(told)) => self.take(told),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Ok(None) | Err(_) => {
                    self.channel = None;
                    if self.failure.is_none()
                        && let Some(pid) = self.init
                    {
                        let (uid, gid, groups) = self.identity.clone();
                        self.status.state = ContainerState::Running {
                            pid: pid.as_raw().unsigned_abs(),
                            started_at: SystemTime::now(),
                            uid,
                            gid,
                            groups,
                        };
                        self.save();
                        return true;
                    }
                }
            }
        }
        false
    }

    /// Takes what was told: from the process that was forked anything, since no container sees it; from any other, which may
    /// have been taken over by one that traces it, that it begins or fails.
    fn take(&mut self, told: Told) {
        let made = Some(told.sender) == self.maker;
        match told.report {
            Report::Identity { uid, gid, groups } if made => self.identity = (uid, gid, groups),
            Report::Terminal if made => {
                for fd in told.fds {
                    let _ = set_nonblocking(&fd);
                    self.outputs = vec![Output::new(fd, "stdout")];
                }
            }
            Report::Pids if made => self.pids = Pids::of(told.fds),
            Report::Failed(error) => self.failure = Some(error),
            Report::Begun if self.init.is_none() && is_child(told.sender) => {
                self.init = Some(told.sender);
                if let Some(Err(error)) = self.channel.as_ref().map(go) {
                    self.fail(error);
                }
            }
            Report::Identity { .. } | Report::Terminal | Report::Pids | Report::Begun => {}
        }
    }

    /// What prepared its first process has been reaped. True when the state has changed.
    pub(super) fn helper_reaped(&mut self, tree: &dyn Tree) -> bool {
        let runs = self.hear();
        self.helper = None;
        match self.ended.take() {
            Some((code, killed_by)) => self.reaped(code, killed_by, tree),
            None => self.end_unborn(tree) || runs,
        }
    }

    /// Ends it when there is no process of it and none will come any more. True when it has.
    pub(super) fn end_unborn(&mut self, tree: &dyn Tree) -> bool {
        if self.is_over() || self.is_alive() {
            return false;
        }
        self.reaped(128, None, tree)
    }

    /// Whether there is a process of it, or one may come yet.
    pub(super) fn is_alive(&self) -> bool {
        self.init.is_some() || self.helper.is_some() || self.channel.is_some()
    }

    /// Fails before there is a process, or with one that must not go on.
    pub(super) fn fail(&mut self, error: StartError) {
        self.failure = Some(error);
        self.channel = None;
        match self.running().or(self.helper) {
            Some(pid) => drop(signal::kill(pid, signal::Signal::SIGKILL)),
            None => self.end(128, None, false),
        }
    }

    /// Its first process has been reaped: the rest of the output, the record, then whoever asks. True when it is over.
    pub(super) fn reaped(&mut self, code: i32, killed_by: Option<i32>, tree: &dyn Tree) -> bool {
        // What prepared it holds the channel until it ends, and with it the news that the program ran.
        if self.helper.is_some() {
            self.ended = Some((code, killed_by));
            return false;
        }
        // A process that dies by a signal between its last report and `execve` ran as far as anyone can tell.
        self.hear();
        (self.init, self.channel) = (None, None);
        // No other can begin among its processes, and its mounts go with it.
        self.pids = None;
        // In a pid namespace of its own everything is dead with the first process; elsewhere it is killed.
        if tree.processes(&self.group).is_ok_and(|left| !left.is_empty()) {
            let _ = tree.kill(&self.group);
        }
        // What is left in the pipes is bounded by them, so no client is waited for here.
        for place in (0..self.outputs.len()).rev() {
            self.pump(place, usize::MAX);
        }
        for place in (0..self.outputs.len()).rev() {
            self.finish_output(place);
        }
        self.stdin = None;
        let oom_killed = tree.oom_kills(&self.group) > 0;
        self.end(code, killed_by, oom_killed);
        true
    }

    /// Its first process, while the number is its own: once it is reaped, another may get that.
    pub(super) fn running(&self) -> Option<Pid> {
        self.init.filter(|_| self.ended.is_none())
    }

    fn end(&mut self, code: i32, signal: Option<i32>, oom_killed: bool) {
        let started_at = match &self.status.state {
            ContainerState::Running { started_at, .. } => Some(*started_at),
            ContainerState::Creating | ContainerState::Exited(_) => None,
        };
        let failure = self.failure.take().or_else(|| {
            started_at.is_none().then(|| refuse("process", format!("ended with {code} before its program ran")))
        });
        let code = if failure.is_some() { 128 } else { code };
        self.status.state = ContainerState::Exited(Exit {
            code,
            signal,
            oom_killed,
            started_at,
            finished_at: SystemTime::now(),
            start_error: failure,
            lost: false,
        });
        self.log = None;
        self.save();
    }

    /// Reads output into the log; at most `chunks` reads, so that one loud container leaves the others their turn.
    pub(super) fn pump(&mut self, place: usize, chunks: usize) {
        let mut buffer = vec![0; CHUNK];
        let mut records = Vec::new();
        for _ in 0..chunks {
            let Some(output) = self.outputs.get_mut(place) else { return };
            if output.is_held() && self.init.is_some() {
                return;
            }
            match nix::unistd::read(&output.fd, &mut buffer) {
                Ok(0) | Err(Errno::EIO) => {
                    self.finish_output(place);
                    return;
                }
                Ok(count) => {
                    let bytes = buffer.get(..count).unwrap_or_default();
                    output.lines.feed(output.name, &now(), bytes, &mut records);
                    output.tap(bytes);
                    if let Some(log) = &mut self.log
                        && !records.is_empty()
                    {
                        log.write(&records);
                    }
                    records.clear();
                }
                Err(Errno::EINTR) => {}
                Err(_) => return,
            }
        }
    }

    /// An output that has ended.
    fn finish_output(&mut self, place: usize) {
        if place >= self.outputs.len() {
            return;
        }
        let mut output = self.outputs.remove(place);
        let mut records = Vec::new();
        output.lines.finish(output.name, &now(), &mut records);
        self.leaving.extend(output.taps.into_iter().filter(Tap::is_behind));
        if let Some(log) = &mut self.log
            && !records.is_empty()
        {
            log.write(&records);
        }
    }

    /// Writes what attached clients were behind with, and leaves those that are gone or have taken nothing for too long.
    pub(super) fn flush_taps(&mut self, now: Instant) {
        let stays = |tap: &mut Tap| tap.flush() && tap.deadline().is_none_or(|deadline| now < deadline);
        for output in &mut self.outputs {
            output.taps.retain_mut(stays);
        }
        self.leaving.retain_mut(|tap| stays(tap) && tap.is_behind());
    }

    /// When the next of its clients is left.
    pub(super) fn tap_deadline(&self) -> Option<Instant> {
        let taps = self.outputs.iter().flat_map(|output| &output.taps).chain(&self.leaving);
        taps.filter_map(Tap::deadline).min()
    }

    /// Whether it was killed and has not ended yet.
    pub(super) fn is_dying(&self) -> bool {
        self.killed && self.is_alive()
    }

    /// Kills everything in it, with all the CPU time there is to die in.
    pub(super) fn kill(&mut self, tree: &dyn Tree) -> io::Result<()> {
        self.killed = true;
        let _ = self.signal(libc::SIGKILL);
        tree.kill(&self.group)
    }

    /// Sends its first process a signal.
    pub(super) fn signal(&self, number: i32) -> nix::Result<()> {
        let pid = self.running().or(self.helper).ok_or(Errno::ESRCH)?;
        sys::send_signal(pid, number)
    }

    /// The signal that asks it to stop.
    pub(super) fn stop_signal(&self) -> i32 {
        Signal::parse(&self.spec.stop_signal).unwrap_or(Signal::TERM).0
    }

    pub(super) fn remove_record(&self) -> io::Result<()> {
        match fs::remove_file(&self.record) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

impl Output {
    fn new(fd: OwnedFd, name: &'static str) -> Output {
        Output { fd, name, lines: Lines::default(), taps: Vec::new() }
    }

    pub(super) fn is_stderr(&self) -> bool {
        self.name == "stderr"
    }

    /// Copies to attached clients.
    fn tap(&mut self, bytes: &[u8]) {
        self.taps.retain_mut(|tap| tap.give(bytes));
    }

    /// Whether a client must take something before more is read.
    pub(super) fn is_held(&self) -> bool {
        self.taps.iter().any(Tap::is_behind)
    }
}

/// Lets a process go on that waits to be put into its cgroup.
pub(super) fn go(channel: &OwnedFd) -> Result<(), StartError> {
    nix::unistd::write(channel, &[1]).map(drop).at("process", || "let the process go".to_owned())
}

pub(super) fn set_nonblocking(fd: &OwnedFd) -> nix::Result<()> {
    let flags = OFlag::from_bits_truncate(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).map(drop)
}

#[cfg(test)]
mod tests;
