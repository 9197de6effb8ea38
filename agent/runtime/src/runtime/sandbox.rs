//! One living sandbox and what can be asked of it.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::TryFutureExt;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::{
    AttachSession, ExecOutput, ExecSession, ExecSpec, Runtime, Stream, blocking, client::Client, io_error, leftovers,
};
use crate::{
    apparmor::{self, DEFAULT_APPARMOR_PROFILE, apparmor_enabled},
    cgroup::{self, KILL_PATIENCE},
    error::Error,
    id::{ContainerId, SandboxId},
    protocol::{Failure, Reply, Request},
    record::SandboxRecord,
    spec::{ContainerSpec, Resources, SandboxSpec},
    state::{ContainerState, ContainerStatus, Details, Exit, Stats},
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
    runtime: Runtime,
    id: SandboxId,
    spec: Arc<SandboxSpec>,
    supervisor: u32,
}

impl Sandbox {
    pub(super) fn new(runtime: Runtime, id: SandboxId, spec: SandboxSpec, supervisor: u32) -> Sandbox {
        Sandbox { runtime, id, spec: Arc::new(spec), supervisor }
    }

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
    /// [`Error::Unsupported`] when the runtime's own AppArmor profile is asked for and cannot be loaded.
    pub async fn start_container(&self, spec: &ContainerSpec) -> Result<ContainerStatus, Error> {
        if spec.name.is_empty() || spec.name.contains('/') || spec.name.starts_with('.') {
            return Err(Error::InvalidSpec { field: "name", reason: format!("{:?} is no name", spec.name) });
        }
        if spec.apparmor.as_deref() == Some(DEFAULT_APPARMOR_PROFILE) && apparmor_enabled() {
            // One loads it, whoever asks meanwhile waits.
            let mut confines = self.runtime.inner.confines.lock().await;
            if !*confines {
                blocking(apparmor::load_default).await?;
                *confines = true;
            }
        }
        let id = self.container_id(&spec.name, spec.attempt);
        match self.ask("start a container", &id, &Request::Start(Box::new(spec.clone()))).await?.1 {
            Reply::Container(status) => Ok(status),
            _ => Err(self.nonsense("start a container")),
        }
    }

    /// Every container of the sandbox.
    ///
    /// # Errors
    /// [`Error::SandboxNotFound`] when the supervisor is gone.
    pub async fn containers(&self) -> Result<Vec<ContainerStatus>, Error> {
        let ask = async |mut client: Client| self.runtime.inner.hear(&self.group(), client.ask(&Request::Status)).await;
        let mut reply = ask(self.connect().await?).await;
        if reply.is_err() {
            // A supervisor that ends takes along connections it has not looked at. Asking again tells whether it did.
            reply = ask(self.connect().await?).await;
        }
        match reply.map_err(|source| self.broken("list containers", source))? {
            Reply::Status { containers, .. } => Ok(containers),
            _ => Err(self.nonsense("list containers")),
        }
    }

    /// One container.
    ///
    /// # Errors
    /// [`Error::ContainerNotFound`], [`Error::SandboxNotFound`].
    pub async fn container(&self, id: &ContainerId) -> Result<ContainerStatus, Error> {
        let found = self.containers().await?.into_iter().find(|container| container.id == *id);
        found.ok_or_else(|| Error::ContainerNotFound { id: id.clone() })
    }

    /// Sends a signal to a container's first process.
    ///
    /// # Errors
    /// [`Error::ContainerNotRunning`], [`Error::ContainerNotFound`].
    pub async fn signal(&self, id: &ContainerId, signal: Signal) -> Result<(), Error> {
        let request = Request::Signal { container: id.clone(), signal: signal.0 };
        self.ask("signal a container", id, &request).await.map(drop)
    }

    /// Kills everything in a container at once and does not wait.
    ///
    /// # Errors
    /// [`Error::ContainerNotFound`], [`Error::SandboxNotFound`].
    pub async fn kill(&self, id: &ContainerId) -> Result<(), Error> {
        // Before the supervisor is asked, which shares the pod's CPU time with what is to die. It binds the pod again.
        let (runtime, groups) = (self.runtime.clone(), [self.group(), self.group().join(id.as_str())]);
        blocking(move || {
            for group in groups {
                cgroup::lift_cpu_bound(runtime.inner.tree.as_ref(), &group);
            }
        })
        .await;
        self.ask("kill a container", id, &Request::Kill { container: id.clone() }).await.map(drop)
    }

    /// Asks a container to stop (with its stop signal), waits for `grace`, then kills everything in it. A container that
    /// has exited is stopped. A grace of zero kills at once.
    ///
    /// # Errors
    /// [`Error::StillRunning`] when it does not die of that, [`Error::ContainerNotFound`], [`Error::SandboxNotFound`].
    pub async fn stop(&self, id: &ContainerId, grace: Duration) -> Result<Exit, Error> {
        let gently = async {
            match self.ask("stop a container", id, &Request::Stop { container: id.clone() }).await {
                Ok(_) | Err(Error::ContainerNotRunning { .. }) => self.wait(id).await,
                Err(error) => Err(error),
            }
        };
        // The time it gets is not longer for a supervisor that does not answer.
        if !grace.is_zero()
            && let Ok(exit) = tokio::time::timeout(grace, gently).await
        {
            return exit;
        }
        match tokio::time::timeout(KILL_PATIENCE, self.kill(id).and_then(|()| self.wait(id))).await {
            Ok(exit) => exit,
            Err(_) => Err(Error::StillRunning { id: id.clone(), after: KILL_PATIENCE }),
        }
    }

    /// Waits until a container has exited.
    ///
    /// # Errors
    /// [`Error::ContainerNotFound`], [`Error::SandboxNotFound`].
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn wait(&self, id: &ContainerId) -> Result<Exit, Error> {
        match self.ask("wait for a container", id, &Request::Wait { container: id.clone() }).await?.1 {
            Reply::Exited(exit) => Ok(exit),
            _ => Err(self.nonsense("wait for a container")),
        }
    }

    /// Removes an exited container: its record, writable layer and cgroup, not its log. One that is not there is removed.
    ///
    /// # Errors
    /// [`Error::ContainerRunning`].
    pub async fn remove_container(&self, id: &ContainerId) -> Result<(), Error> {
        match self.container(id).await {
            Ok(status) if matches!(status.state, ContainerState::Exited(_)) => {}
            Ok(_) => return Err(Error::ContainerRunning { id: id.clone() }),
            Err(Error::ContainerNotFound { .. }) => return Ok(()),
            Err(error) => return Err(error),
        }
        let runtime = self.runtime.clone();
        let (group, layers) = (self.group().join(id.as_str()), self.runtime.layers(&self.id).join(id.as_str()));
        blocking(move || {
            let deadline = Instant::now() + KILL_PATIENCE;
            cgroup::remove(runtime.inner.tree.as_ref(), &group, deadline).map_err(io_error("remove cgroup", &group))?;
            leftovers::remove_tree(&layers)
        })
        .await?;
        // The record goes last: as long as it is there, the container is found and can be removed again.
        match self.ask("forget a container", id, &Request::Forget { container: id.clone() }).await {
            Ok(_) | Err(Error::ContainerNotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Runs a process in a running container, with the container's own limits, capabilities and filters.
    ///
    /// # Errors
    /// [`Error::Exec`] when it could not be started, [`Error::ContainerNotRunning`].
    pub async fn exec(&self, id: &ContainerId, spec: &ExecSpec) -> Result<ExecSession, Error> {
        let request = Request::Exec { container: id.clone(), spec: spec.clone() };
        match self.ask("run a process", id, &request).await {
            Ok((client, Reply::Exec { fds })) => {
                ExecSession::new(self.id.clone(), client, fds).map_err(|source| self.broken("run a process", source))
            }
            Ok(_) => Err(self.nonsense("run a process")),
            Err(Error::Start(error)) => Err(Error::Exec(error)),
            Err(error) => Err(error),
        }
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
        let begun = Instant::now();
        let mut output = Vec::new();
        let run = self.exec_told(id, spec, |_, chunk| keep(&mut output, chunk, limit));
        let ended = tokio::time::timeout(timeout, run).await;
        match ended {
            Ok(code) => Ok(ExecOutput { code: code?, output, took: begun.elapsed() }),
            Err(_) => Err(Error::ExecTimeout { after: timeout }),
        }
    }

    /// Runs a command to its end, telling `hear` all it says as it comes; answers its exit code. Dropping the future kills
    /// the command.
    ///
    /// # Errors
    /// Those of [`Sandbox::exec`].
    pub async fn exec_told(
        &self,
        id: &ContainerId,
        spec: &ExecSpec,
        mut hear: impl FnMut(Stream, &[u8]),
    ) -> Result<i32, Error> {
        let mut session = self.exec(id, spec).await?;
        session.stdin = None;
        let (mut stdout, mut stderr) = (session.stdout.take(), session.stderr.take());
        let mut terminal = session.terminal.take();
        // A process it left behind may hold its output open for ever, so its end is the end.
        let mut code = None;
        while code.is_none() {
            tokio::select! {
                biased;
                chunk = read_some(&mut stdout), if stdout.is_some() => hear(Stream::Output, &chunk),
                chunk = read_some(&mut stderr), if stderr.is_some() => hear(Stream::Error, &chunk),
                chunk = read_some(&mut terminal), if terminal.is_some() => hear(Stream::Output, &chunk),
                ended = session.wait() => code = Some(ended?),
            }
        }
        // What it said last is still in the pipes, whether or not anyone has been told that they can be read.
        let mut rest = |stream: Stream, fd: Option<BorrowedFd<'_>>| {
            let mut chunk = [0; 4096];
            while let Some(Ok(count @ 1..)) = fd.map(|fd| nix::unistd::read(fd, &mut chunk)) {
                hear(stream, chunk.get(..count).unwrap_or_default());
            }
        };
        rest(Stream::Output, stdout.as_ref().map(AsFd::as_fd));
        rest(Stream::Error, stderr.as_ref().map(AsFd::as_fd));
        rest(Stream::Output, terminal.as_ref().map(AsFd::as_fd));
        Ok(code.unwrap_or_default())
    }

    /// Goes on in a new log file of the same name, after the one it was has been renamed.
    ///
    /// # Errors
    /// [`Error::ContainerNotRunning`], [`Error::ContainerNotFound`], [`Error::Unsupported`] of a supervisor of an earlier
    /// version.
    pub async fn reopen_log(&self, id: &ContainerId) -> Result<(), Error> {
        self.ask("reopen a log", id, &Request::ReopenLog { container: id.clone() }).await.map(drop)
    }

    /// Attaches to a running container's own output, and to its input as well with `stdin`. Who has the input of a container
    /// made with `stdin_once` is the only one to have it.
    ///
    /// # Errors
    /// [`Error::ContainerNotRunning`], [`Error::ContainerNotFound`].
    pub async fn attach(&self, id: &ContainerId, stdin: bool) -> Result<AttachSession, Error> {
        match self.ask("attach", id, &Request::Attach { container: id.clone(), output_only: !stdin }).await? {
            (client, Reply::Attached { fds }) => {
                AttachSession::new(client, fds).map_err(|source| self.broken("attach", source))
            }
            _ => Err(self.nonsense("attach")),
        }
    }

    /// Changes a container's limits while it runs; fields that are `None` stay.
    ///
    /// # Errors
    /// When the kernel refuses, as for a memory limit below what is used.
    pub async fn update_container(&self, id: &ContainerId, resources: &Resources) -> Result<(), Error> {
        self.update(self.group().join(id.as_str()), resources).await
    }

    /// Changes the pod's limits; fields that are `None` stay.
    ///
    /// # Errors
    /// [`Error::SandboxNotFound`] when its record is gone; when the kernel refuses.
    pub async fn update_sandbox(&self, resources: &Resources) -> Result<(), Error> {
        let (directory, changed) = (self.runtime.directory(&self.id), resources.clone());
        let recorded = blocking(move || {
            // The supervisor reads there what to bind the pod to when nothing of it is dying any more.
            let mut record = SandboxRecord::read(&directory)?;
            let Resources { cpu_quota, cpu_period, .. } = &mut record.spec.resources;
            (*cpu_quota, *cpu_period) = (changed.cpu_quota.or(*cpu_quota), changed.cpu_period.or(*cpu_period));
            record.write(&directory)
        });
        recorded.await.map_err(|_| Error::SandboxNotFound { id: self.id.clone() })?;
        self.update(self.group(), resources).await
    }

    async fn update(&self, group: PathBuf, resources: &Resources) -> Result<(), Error> {
        let (runtime, resources) = (self.runtime.clone(), resources.clone());
        blocking(move || runtime.inner.tree.apply(&group, &resources).map_err(io_error("set limits of cgroup", &group)))
            .await
    }

    /// What a container uses.
    ///
    /// # Errors
    /// When its cgroup is gone.
    pub async fn container_stats(&self, id: &ContainerId) -> Result<Stats, Error> {
        self.stats(self.group().join(id.as_str())).await
    }

    /// What the pod as a whole uses, the supervisor included.
    ///
    /// # Errors
    /// When its cgroup is gone.
    pub async fn sandbox_stats(&self) -> Result<Stats, Error> {
        self.stats(self.group()).await
    }

    /// What a running container uses, in detail.
    ///
    /// # Errors
    /// When its cgroup is gone.
    pub async fn container_details(&self, id: &ContainerId) -> Result<Details, Error> {
        self.details(self.group().join(id.as_str())).await
    }

    /// What the pod as a whole uses, in detail.
    ///
    /// # Errors
    /// When its cgroup is gone.
    pub async fn sandbox_details(&self) -> Result<Details, Error> {
        self.details(self.group()).await
    }

    async fn details(&self, group: PathBuf) -> Result<Details, Error> {
        let runtime = self.runtime.clone();
        blocking(move || runtime.inner.tree.details(&group).map_err(io_error("read cgroup", &group))).await
    }

    async fn stats(&self, group: PathBuf) -> Result<Stats, Error> {
        let runtime = self.runtime.clone();
        blocking(move || runtime.inner.tree.stats(&group).map_err(io_error("read cgroup", &group))).await
    }

    /// The directory with what a container has written to its root (its size is the container's ephemeral storage).
    pub fn writable_layer(&self, id: &ContainerId) -> PathBuf {
        self.runtime.layers(&self.id).join(id.as_str()).join("upper")
    }

    /// The pod's cgroup, relative to the root of each hierarchy; those of its containers are below, named by their ids.
    pub fn group(&self) -> PathBuf {
        cgroup::pod_group(&self.runtime.inner.config.cgroup_root, &self.spec)
    }

    async fn connect(&self) -> Result<Client, Error> {
        let found = Client::connect(&self.runtime.directory(&self.id)).await;
        found.map_err(|_| Error::SandboxNotFound { id: self.id.clone() })
    }

    /// Asks on a connection of its own, so that no answer waits behind another's.
    async fn ask(&self, step: &'static str, id: &ContainerId, request: &Request) -> Result<(Client, Reply), Error> {
        let mut client = self.connect().await?;
        let reply = match request {
            // As long as the container runs there is nothing to say.
            Request::Wait { .. } => client.ask(request).await,
            _ => self.runtime.inner.hear(&self.group(), client.ask(request)).await,
        };
        match reply.map_err(|source| self.broken(step, source))? {
            Reply::Failed(failure) => Err(self.failed(id, failure)),
            reply => Ok((client, reply)),
        }
    }

    fn failed(&self, id: &ContainerId, failure: Failure) -> Error {
        let id = id.clone();
        match failure {
            Failure::NotFound => Error::ContainerNotFound { id },
            Failure::NotRunning => Error::ContainerNotRunning { id },
            Failure::Running => Error::ContainerRunning { id },
            Failure::Start(error) => Error::Start(error),
            Failure::Unsupported(why) => Error::Unsupported { what: "what this supervisor was asked", why },
            Failure::Kernel { step, message } => {
                Error::Sandbox { id: self.id.clone(), reason: format!("{step}: {message}") }
            }
        }
    }

    fn broken(&self, step: &'static str, source: io::Error) -> Error {
        Error::Supervisor { id: self.id.clone(), step, source }
    }

    fn nonsense(&self, step: &'static str) -> Error {
        self.broken(step, io::Error::new(io::ErrorKind::InvalidData, "an answer to another question"))
    }
}

/// Reads once; at the end there is nothing to read from any more.
///
/// # Cancel safety
/// Safe.
async fn read_some<R: AsyncRead + Unpin>(from: &mut Option<R>) -> Vec<u8> {
    let mut chunk = Vec::new();
    let Some(reader) = from else { return chunk };
    match reader.read_buf(&mut chunk).await {
        Ok(count) if count > 0 => {}
        Ok(_) | Err(_) => *from = None,
    }
    chunk
}

/// What is beyond the limit has been read, since the process would stop otherwise, and is thrown away.
fn keep(output: &mut Vec<u8>, chunk: &[u8], limit: usize) {
    let room = limit.saturating_sub(output.len()).min(chunk.len());
    output.extend_from_slice(chunk.get(..room).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_supervisor_that_ends_while_it_is_asked_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = crate::Config::new(folder.path().join("root"), folder.path().join("run"), "mark");
        config.exe = PathBuf::from("/proc/self/exe");
        let runtime = Runtime::open(config).await.unwrap();
        let id = SandboxId::of("uid", 0);
        let directory = runtime.directory(&id);
        std::fs::create_dir_all(&directory).unwrap();
        let listener = tokio::net::UnixListener::bind(directory.join("sock")).unwrap();
        let spec = serde_json::from_value(serde_json::json!({
            "pod_uid": "uid", "pod_name": "web", "pod_namespace": "default", "attempt": 0, "hostname": "web",
            "qos": "BestEffort", "log_directory": "/nowhere",
        }));
        let sandbox = Sandbox::new(runtime, id, spec.unwrap(), 1);
        let ends = async move {
            // Accepted or not, a connection is closed by the end.
            drop(listener.accept().await.unwrap());
        };
        let (asked, ()) = tokio::join!(sandbox.containers(), ends);
        assert!(asked.as_ref().is_err_and(Error::is_not_found), "{asked:?}");
    }

    #[test]
    fn signals_are_read_as_images_and_pods_write_them() {
        let numbers =
            ["SIGTERM", "TERM", "9", "SIGRTMIN+3", "RTMAX-1", "SIGUSR1"].map(|text| Signal::parse(text).unwrap().0);
        assert_eq!(numbers, [15, 15, 9, 37, 63, 10]);
        assert_eq!(["", "SIGNOPE", "0", "65", "RTMIN+99"].map(Signal::parse), [None; 5]);
    }
}
