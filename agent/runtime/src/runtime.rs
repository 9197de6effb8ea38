//! The agent's side: making sandboxes, finding them again, and asking their supervisors.

mod client;
mod config;
mod events;
mod exec;
mod leftovers;
mod sandbox;
mod supervisor_process;
mod users;

pub use config::Config;
pub use events::Events;
pub use exec::{AttachSession, ExecOutput, ExecSession, ExecSpec, Stream, Terminal, WindowSize};
pub use sandbox::{Sandbox, Signal};
pub(crate) use supervisor_process::Readiness;

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Component, Path, PathBuf},
    pin::pin,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::watch;

use self::{
    client::{Client, Greeting},
    supervisor_process::Executable,
};
use crate::{
    cgroup::{self, KILL_PATIENCE, Tree},
    error::Error,
    id::{ContainerId, SandboxId},
    protocol::{Request, Spoken, VERSION},
    record::{self, SandboxRecord},
    spec::{Resources, SandboxSpec},
    state::{Details, SandboxStatus, Stats},
};

/// All sandboxes of one cluster on this host. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Runtime {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: Config,
    tree: Box<dyn Tree>,
    executable: Executable,
    users: users::Users,
    /// Whether the runtime's own AppArmor profile was loaded since this was opened.
    confines: tokio::sync::Mutex<bool>,
    /// The sandboxes that should live; whoever wants events listens to these.
    sandboxes: watch::Sender<BTreeSet<SandboxId>>,
}

/// Work on files and cgroups, off the threads that serve.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

fn io_error(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Io { step, path: path.to_owned(), source }
}

fn stranger(id: &SandboxId, spoken: Spoken) -> Error {
    let Spoken { version, serves_from } = spoken;
    Error::Version { id: id.clone(), version, serves_from, agent: VERSION }
}

impl Runtime {
    /// Prepares directories and the cgroup tree. Starts nothing and keeps whatever sandboxes are there.
    ///
    /// # Errors
    /// When a directory or cgroup cannot be made, as without root.
    pub async fn open(config: Config) -> Result<Runtime, Error> {
        if config.mark.is_empty() || !config.mark.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            let reason = format!("{:?} is not made of letters, digits and -", config.mark);
            return Err(Error::InvalidSpec { field: "mark", reason });
        }
        let inner = blocking(move || {
            for directory in [config.run.join("sandboxes"), config.root.join("sandboxes")] {
                fs::DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(&directory)
                    .map_err(io_error("create", &directory))?;
            }
            let tree = cgroup::open().map_err(io_error("find cgroups in", Path::new("/proc/self/mountinfo")))?;
            let executable = Executable::open(&config.exe).map_err(io_error("open", &config.exe))?;
            let mut found = leftovers::sandboxes(&config.run)?;
            leftovers::remove_unrecorded(&config, &mut found);
            leftovers::remove_orphaned_layers(&config, &found);
            Ok::<_, Error>(Inner {
                config,
                tree,
                executable,
                users: users::Users::default(),
                confines: tokio::sync::Mutex::default(),
                sandboxes: watch::Sender::new(found),
            })
        })
        .await?;
        Ok(Runtime { inner: Arc::new(inner) })
    }

    /// Where it keeps things.
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    fn watch(&self) -> watch::Receiver<BTreeSet<SandboxId>> {
        self.inner.sandboxes.subscribe()
    }

    fn directory(&self, id: &SandboxId) -> PathBuf {
        self.inner.config.run.join("sandboxes").join(id.as_str())
    }

    fn layers(&self, id: &SandboxId) -> PathBuf {
        self.inner.config.root.join("sandboxes").join(id.as_str())
    }

    /// Makes a sandbox: cgroup, namespaces, supervisor. Asked again for a sandbox that lives, it answers with that one.
    ///
    /// # Assumptions
    /// Not called twice at once for one pod and attempt, nor while that sandbox is being removed.
    ///
    /// # Errors
    /// [`Error::Sandbox`] with the step that failed; nothing is left of the sandbox then. One that has died must be removed
    /// or followed by the next attempt: its exits would be lost otherwise.
    pub async fn create_sandbox(&self, spec: &SandboxSpec) -> Result<Sandbox, Error> {
        if spec.pod_uid.is_empty() || spec.pod_uid.contains('/') || spec.pod_uid.contains("..") {
            return Err(Error::InvalidSpec { field: "pod_uid", reason: format!("{:?} is no name", spec.pod_uid) });
        }
        if let Some(parent) = &spec.cgroup_parent {
            let plain = parent.components().all(|part| matches!(part, Component::Normal(_)));
            if !plain || parent.as_os_str().is_empty() {
                let reason = format!("{} is no path below the root of cgroups", parent.display());
                return Err(Error::InvalidSpec { field: "cgroup_parent", reason });
            }
        }
        users::check(spec)?;
        let id = SandboxId::of(&spec.pod_uid, spec.attempt);
        match self.sandbox(&id).await {
            Ok(sandbox) => return Ok(sandbox),
            Err(Error::SandboxNotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        let directory = self.directory(&id);
        if !record::read_containers(&directory).map_err(io_error("read", &directory))?.is_empty() {
            let reason = "its supervisor has died; remove it or make the next attempt".to_owned();
            return Err(Error::Sandbox { id, reason });
        }
        // What was begun and never had a container is begun anew.
        self.remove_sandbox(&id).await?;
        let record = SandboxRecord {
            version: VERSION,
            id: id.clone(),
            spec: spec.clone(),
            containers: self.layers(&id),
            cgroup: cgroup::pod_group(&self.inner.config.cgroup_root, spec),
            created_at: SystemTime::now(),
            users: None,
        };
        let inner = Arc::clone(&self.inner);
        let started = blocking({
            let directory = directory.clone();
            move || inner.start(record, &directory)
        })
        .await;
        match started {
            Ok(supervisor) => {
                self.inner.sandboxes.send_modify(|sandboxes| {
                    let _ = sandboxes.insert(id.clone());
                });
                Ok(Sandbox::new(self.clone(), id, spec.clone(), supervisor))
            }
            Err(error) => {
                if let Err(error) = self.remove_sandbox(&id).await {
                    tracing::warn!(
                        error = &error as &(dyn std::error::Error + 'static),
                        sandbox = %id,
                        "what was begun of a sandbox is left"
                    );
                }
                Err(error)
            }
        }
    }

    /// A living sandbox by its name.
    ///
    /// # Errors
    /// [`Error::SandboxNotFound`] when there is none or its supervisor is gone, [`Error::Version`] when it is of a version
    /// that does not serve this one.
    pub async fn sandbox(&self, id: &SandboxId) -> Result<Sandbox, Error> {
        let not_found = |_| Error::SandboxNotFound { id: id.clone() };
        let directory = self.directory(id);
        let mut client = Client::connect(&directory).await.map_err(not_found)?;
        let record = SandboxRecord::read(&directory).map_err(not_found)?;
        match self.inner.hear(&record.cgroup, client.greet()).await {
            Ok(Greeting::Status { pid, .. }) => Ok(Sandbox::new(self.clone(), id.clone(), record.spec, pid)),
            Ok(Greeting::Stranger(spoken)) => Err(stranger(id, spoken)),
            Err(error) => Err(not_found(error)),
        }
    }

    /// Every sandbox with the mark: living ones as their supervisors tell, dead ones as their records on disk tell
    /// (their containers are all exited). A supervisor that does not serve this version is as good as dead: its sandbox can
    /// be removed, and nothing else.
    ///
    /// # Errors
    /// When the directory of sandboxes cannot be read.
    pub async fn list(&self) -> Result<Vec<SandboxStatus>, Error> {
        let run = self.inner.config.run.clone();
        let mut found = Vec::new();
        for id in blocking(move || leftovers::sandboxes(&run)).await? {
            found.extend(self.status(&id).await?);
        }
        found.sort_by_key(|sandbox| sandbox.created_at);
        Ok(found)
    }

    /// One sandbox, as [`Runtime::list`] tells of all; `None` when there is none.
    ///
    /// # Errors
    /// When its records cannot be read.
    pub async fn status(&self, id: &SandboxId) -> Result<Option<SandboxStatus>, Error> {
        let directory = self.directory(id);
        // Without a record nothing was ever started: a creation that was cut, or a removal that is nearly done.
        let Ok(record) = SandboxRecord::read(&directory) else { return Ok(None) };
        let greeting = match Client::connect(&directory).await {
            Ok(mut client) => self.inner.hear(&record.cgroup, client.greet()).await.ok(),
            Err(_) => None,
        };
        if let Some(Greeting::Stranger(spoken)) = greeting {
            let error = stranger(id, spoken);
            tracing::error!(error = &error as &(dyn std::error::Error + 'static), "sandbox of a later version");
        }
        let (supervisor_pid, containers) = match greeting {
            Some(Greeting::Status { pid, containers }) => (Some(pid), containers),
            _ => (None, record::read_containers(&directory).map_err(io_error("read", &directory))?),
        };
        Ok(Some(SandboxStatus {
            id: id.clone(),
            spec: record.spec,
            alive: supervisor_pid.is_some(),
            supervisor_pid,
            created_at: record.created_at,
            containers,
        }))
    }

    /// A directory of the sandbox's where the caller may keep what it wants to find again; it goes with the sandbox. The
    /// caller makes it.
    pub fn notes(&self, id: &SandboxId) -> PathBuf {
        self.directory(id).join("notes")
    }

    /// Removes an exited container of a sandbox whether that lives or has died, as [`Sandbox::remove_container`] does in one
    /// that lives. One that is not there is removed.
    ///
    /// # Errors
    /// [`Error::ContainerRunning`], [`Error::Version`].
    pub async fn remove_container(&self, id: &SandboxId, container: &ContainerId) -> Result<(), Error> {
        match self.sandbox(id).await {
            Ok(sandbox) => return sandbox.remove_container(container).await,
            Err(Error::SandboxNotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        let directory = self.directory(id);
        let Ok(record) = SandboxRecord::read(&directory) else { return Ok(()) };
        let (inner, container) = (Arc::clone(&self.inner), container.clone());
        let layers = self.layers(id).join(container.as_str());
        blocking(move || {
            let group = record.cgroup.join(container.as_str());
            let deadline = Instant::now() + KILL_PATIENCE;
            cgroup::remove(inner.tree.as_ref(), &group, deadline).map_err(io_error("remove cgroup", &group))?;
            leftovers::remove_tree(&layers)?;
            // The record goes last, as long as it is there the container is found.
            let path = record::container_path(&directory, &container);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", &path)(error)),
                _ => Ok(()),
            }
        })
        .await
    }

    /// What happens from now on, beginning with the state of every container there is.
    pub fn events(&self) -> Events {
        Events::new(self.clone())
    }

    /// Kills every container of a sandbox and ends its supervisor; records stay until it is removed. A sandbox that is not
    /// there is stopped.
    ///
    /// # Errors
    /// When processes do not die of it; the error names them, and it may be called again.
    pub async fn stop_sandbox(&self, id: &SandboxId) -> Result<(), Error> {
        self.inner.sandboxes.send_modify(|sandboxes| {
            let _ = sandboxes.remove(id);
        });
        let directory = self.directory(id);
        let record = SandboxRecord::read(&directory).ok();
        if let Some(record) = record.clone() {
            let (inner, directory) = (Arc::clone(&self.inner), directory.clone());
            blocking(move || inner.lift_cpu_bounds(&record, &directory)).await;
        }
        let shut_down = async {
            if let Ok(mut client) = Client::connect(&directory).await {
                match client.ask(&Request::Shutdown).await {
                    // Its end is the answer too, when it was killed meanwhile.
                    Ok(_) | Err(_) => drop(client),
                }
            }
        };
        // One that waits for a process which does not die is killed with the rest, and the error names that process.
        let _ = tokio::time::timeout(KILL_PATIENCE, shut_down).await;
        let Some(record) = record else { return Ok(()) };
        let inner = Arc::clone(&self.inner);
        blocking(move || {
            let tree = inner.tree.as_ref();
            let deadline = Instant::now() + KILL_PATIENCE;
            let mut result = Ok(());
            for group in record.groups(&directory).map_err(io_error("read", &directory))? {
                let removed = cgroup::remove(tree, &group, deadline).map_err(io_error("remove cgroup", &group));
                result = result.and(removed);
            }
            result?;
            // The pod's own group stays as long as another sandbox of the pod is in it.
            cgroup::remove_if_empty(tree, &record.cgroup).map_err(io_error("remove cgroup", &record.cgroup))
        })
        .await
    }

    /// Removes what the containers of a sandbox that was stopped have written; their records stay, and their logs.
    ///
    /// # Errors
    /// What could not be removed; it may be called again.
    pub async fn discard_layers(&self, id: &SandboxId) -> Result<(), Error> {
        let layers = self.layers(id);
        blocking(move || leftovers::remove_tree(&layers)).await
    }

    /// Stops a sandbox and removes everything of it but its logs: processes, cgroups, mounts, writable layers, records.
    /// A sandbox that is not there is removed.
    ///
    /// # Errors
    /// The first thing that could not be removed; it may be called again. What still runs keeps its records, since it could
    /// not be found again without.
    pub async fn remove_sandbox(&self, id: &SandboxId) -> Result<(), Error> {
        self.stop_sandbox(id).await?;
        let (directory, layers) = (self.directory(id), self.layers(id));
        blocking(move || leftovers::remove_files(&directory, &layers)).await
    }

    /// Limits what all pods have together, until their groups are removed ([`Runtime::remove_empty_groups`]). Pods whose
    /// specification names another group than the runtime's own are not counted.
    ///
    /// # Errors
    /// When the kernel refuses, as it does in cgroup v1 when pods have more memory than that already.
    pub async fn limit_pods(&self, resources: &Resources) -> Result<(), Error> {
        let (inner, resources) = (Arc::clone(&self.inner), resources.clone());
        blocking(move || {
            let (tree, root) = (inner.tree.as_ref(), &inner.config.cgroup_root);
            let pods = root.join(cgroup::PODS);
            // Beside the rest of the host stands the runtime's own group: its weight is what the pods' counts for there.
            let weight = Resources { cpu_shares: resources.cpu_shares, ..Resources::default() };
            tree.create(&pods).map_err(io_error("create cgroup", &pods))?;
            tree.apply(root, &weight).map_err(io_error("limit cgroup", root))?;
            tree.apply(&pods, &resources).map_err(io_error("limit cgroup", &pods))
        })
        .await
    }

    /// What all pods have together, and what [`Runtime::limit_pods`] limits.
    ///
    /// # Errors
    /// When the kernel does not count, or there is no group yet.
    pub async fn pods_stats(&self) -> Result<Stats, Error> {
        let inner = Arc::clone(&self.inner);
        blocking(move || {
            let pods = inner.config.cgroup_root.join(cgroup::PODS);
            inner.tree.stats(&pods).map_err(io_error("read cgroup", &pods))
        })
        .await
    }

    /// The same in detail.
    ///
    /// # Errors
    /// When there are no pods and never were.
    pub async fn pods_details(&self) -> Result<Details, Error> {
        let inner = Arc::clone(&self.inner);
        blocking(move || {
            let pods = inner.config.cgroup_root.join(cgroup::PODS);
            inner.tree.details(&pods).map_err(io_error("read cgroup", &pods))
        })
        .await
    }

    /// Removes the groups above those of pods that have no pod in them any more, the runtime's own included; they are made
    /// again with the next sandbox.
    ///
    /// # Errors
    /// When the kernel refuses for another reason than that something is in a group.
    pub async fn remove_empty_groups(&self) -> Result<(), Error> {
        let inner = Arc::clone(&self.inner);
        blocking(move || {
            for group in cgroup::groups_above_pods(&inner.config.cgroup_root) {
                cgroup::remove_if_empty(inner.tree.as_ref(), &group).map_err(io_error("remove cgroup", &group))?;
            }
            Ok(())
        })
        .await
    }

    /// Removes every sandbox, and the cgroup tree and directories of sandboxes.
    ///
    /// # Errors
    /// The first thing that could not be removed; the rest is removed anyway, and it may be called again.
    pub async fn purge(&self) -> Result<(), Error> {
        let run = self.inner.config.run.clone();
        let mut result = Ok(());
        for id in blocking(move || leftovers::sandboxes(&run)).await? {
            result = result.and(self.remove_sandbox(&id).await);
        }
        let inner = Arc::clone(&self.inner);
        let rest = blocking(move || {
            let group = &inner.config.cgroup_root;
            let deadline = Instant::now() + KILL_PATIENCE;
            let groups = cgroup::remove(inner.tree.as_ref(), group, deadline).map_err(io_error("remove cgroup", group));
            let files =
                leftovers::remove_files(&inner.config.run.join("sandboxes"), &inner.config.root.join("sandboxes"));
            groups.and(files)
        })
        .await;
        result.and(rest)
    }
}

impl Inner {
    /// Waits for what a pod's supervisor has to say. It shares the pod's CPU time with the containers; where their debt leaves
    /// it none, it is let through.
    async fn hear<T>(self: &Arc<Inner>, pod: &Path, answer: impl Future<Output = T>) -> T {
        const SILENCE: Duration = Duration::from_millis(500);
        let mut answer = pin!(answer);
        loop {
            if let Ok(answer) = tokio::time::timeout(SILENCE, &mut answer).await {
                return answer;
            }
            let (inner, pod) = (Arc::clone(self), pod.to_owned());
            blocking(move || cgroup::forgive_cpu_debt(inner.tree.as_ref(), &pod)).await;
        }
    }

    /// What is to die does so with all the CPU time there is, its supervisor included, which is asked first.
    fn lift_cpu_bounds(&self, record: &SandboxRecord, directory: &Path) {
        let groups = record.groups(directory).unwrap_or_default();
        for group in groups.iter().chain([&record.cgroup]) {
            cgroup::lift_cpu_bound(self.tree.as_ref(), group);
        }
    }

    /// Everything of a new sandbox; the record first, so that what follows is found whenever this is cut.
    fn start(&self, mut record: SandboxRecord, directory: &Path) -> Result<u32, Error> {
        let id = record.id.clone();
        let failed =
            |step: &str, error: &io::Error| Error::Sandbox { id: id.clone(), reason: format!("{step}: {error}") };
        for directory in [directory, &record.containers] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(directory)
                .map_err(io_error("create", directory))?;
        }
        self.users.record(&self.config.run, &mut record, directory)?;
        let tree = self.tree.as_ref();
        tree.create(&record.supervisor_group()).map_err(|error| failed("make the cgroup", &error))?;
        tree.apply(&record.cgroup, &record.spec.resources).map_err(|error| failed("set limits", &error))?;
        supervisor_process::start(&self.config, &self.executable, directory)
            .map_err(|reason| Error::Sandbox { id, reason })
    }
}

#[cfg(test)]
mod tests;
