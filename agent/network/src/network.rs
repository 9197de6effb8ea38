//! The pod network's handle: a thread of its own does the work, one request after the other.

use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
};

use tokio::sync::{mpsc, oneshot};

use crate::{Config, Error, HostPort};

mod worker;

use worker::Worker;

/// Requests that may wait for the network's thread; more wait in their callers.
const QUEUE: usize = 64;

/// The pod network of one node. Cheap to clone; the last clone's drop ends the thread and leaves the network as it is.
#[derive(Clone)]
pub struct Network {
    inner: Arc<Inner>,
}

/// What a pod got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// The pod's address.
    pub ip: Ipv4Addr,
    /// The address the pod's default route goes through, which is the node's own towards its pods.
    pub gateway: Ipv4Addr,
    /// The hardware address of the pod's `eth0`, as `02:…`.
    pub mac: String,
    /// The name of the host's end of the pair.
    pub host_if: String,
}

/// Where a pod's network namespace is.
#[derive(Debug)]
pub enum Netns {
    /// A path such as `/proc/<pid>/ns/net`.
    Path(PathBuf),
    /// An open namespace.
    Fd(OwnedFd),
}

impl From<&Path> for Netns {
    fn from(path: &Path) -> Self {
        Self::Path(path.to_owned())
    }
}

impl From<PathBuf> for Netns {
    fn from(path: PathBuf) -> Self {
        Self::Path(path)
    }
}

impl From<OwnedFd> for Netns {
    fn from(fd: OwnedFd) -> Self {
        Self::Fd(fd)
    }
}

/// What a purge did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Purged {
    /// What was removed or set back, in words for a person.
    pub removed: Vec<String>,
    /// What was left on purpose, with the reason.
    pub left: Vec<String>,
}

type Job = Box<dyn FnOnce(&mut Worker) + Send>;

struct Inner {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Network {
    /// Makes the node's part of the network (gateway device, routes, table, forwarding), or takes over what is there.
    ///
    /// The network is made in the network namespace of the calling thread.
    ///
    /// # Errors
    /// [`Error::Config`] for values that cannot work, [`Error::Overlap`] when the host already uses the range, and the
    /// kernel's refusals. Nothing that was made is left behind by [`Error::Config`] and [`Error::Overlap`].
    pub async fn open(config: Config) -> Result<Self, Error> {
        Self::start(config, Worker::open).await
    }

    /// Takes what an earlier process left of the network, for [`Network::purge`]: nothing is made first only to be removed,
    /// and a range that has come to be used by something else is in nobody's way.
    ///
    /// # Errors
    /// [`Error::Config`], and records that cannot be read.
    pub async fn find(config: Config) -> Result<Self, Error> {
        Self::start(config, Worker::find).await
    }

    async fn start(config: Config, make: fn(Config) -> Result<Worker, Error>) -> Result<Self, Error> {
        config.validate()?;
        let (jobs, mut queue) = mpsc::channel::<Job>(QUEUE);
        let (ready, opened) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("network".into())
            .spawn(move || {
                let mut worker = match make(config) {
                    Ok(worker) => {
                        if ready.send(Ok(())).is_err() {
                            return;
                        }
                        worker
                    }
                    Err(error) => {
                        // Nobody waits any more: the opener was dropped, and the error with it.
                        drop(ready.send(Err(error)));
                        return;
                    }
                };
                while let Some(job) = queue.blocking_recv() {
                    job(&mut worker);
                }
            })
            .map_err(|source| Error::Socket { source })?;
        let inner = Inner { jobs: Some(jobs), thread: Mutex::new(Some(thread)) };
        opened.await.map_err(|_| Error::Closed)??;
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Gives the pod its interface, address, routes and loopback.
    ///
    /// # Guarantees
    /// Idempotent: the same pod gets the same address and hardware address, also after the agent was restarted, and also
    /// when its network namespace is a new one. What an interrupted call left half done, the next one completes.
    ///
    /// # Errors
    /// [`Error::Exhausted`], [`Error::PodUid`], [`Error::Namespace`], and the kernel's refusals; then the pod keeps its
    /// address until [`Network::detach`].
    ///
    /// # Cancel safety
    /// A dropped call is still carried out.
    pub async fn attach(&self, pod_uid: &str, netns: impl Into<Netns>) -> Result<Attachment, Error> {
        let uid = pod_uid.to_owned();
        let netns = netns.into();
        self.run(move |worker| worker.attach(&uid, &netns)).await
    }

    /// Makes these ports of the host, and no others, lead to the pod, which is attached. They do until it is detached, also
    /// after the agent was restarted.
    ///
    /// # Guarantees
    /// Idempotent. Who had one of them before has it no more: whoever calls decides who may.
    ///
    /// # Errors
    /// [`Error::NotAttached`], and the kernel's refusals.
    ///
    /// # Cancel safety
    /// A dropped call is still carried out.
    pub async fn publish(&self, pod_uid: &str, ports: Vec<HostPort>) -> Result<(), Error> {
        let uid = pod_uid.to_owned();
        self.run(move |worker| worker.publish(&uid, ports)).await
    }

    /// Takes the pod's interface and routes away and frees its address. Nothing to do is no error.
    ///
    /// # Errors
    /// The kernel's refusals; the address then stays the pod's.
    ///
    /// # Cancel safety
    /// A dropped call is still carried out.
    pub async fn detach(&self, pod_uid: &str) -> Result<(), Error> {
        let uid = pod_uid.to_owned();
        self.run(move |worker| worker.detach(&uid)).await
    }

    /// Detaches every pod that is not in `live` and removes interfaces that no record knows. Answers the pods' UIDs, or
    /// the interfaces' names, that were removed.
    ///
    /// # Errors
    /// The kernel's refusals, after everything else was tried.
    pub async fn reconcile(&self, live: BTreeSet<String>) -> Result<Vec<String>, Error> {
        self.run(move |worker| worker.reconcile(&live)).await
    }

    /// What the pod has, if it is attached.
    ///
    /// # Errors
    /// Only [`Error::Closed`].
    pub async fn attachment(&self, pod_uid: &str) -> Result<Option<Attachment>, Error> {
        let uid = pod_uid.to_owned();
        self.run(move |worker| Ok(worker.attachment(&uid))).await
    }

    /// Removes everything this cluster's network has on the host: interfaces, routes, table, records; settings that were
    /// changed are set back unless another Coracle network still needs them.
    ///
    /// # Errors
    /// The first of the kernel's refusals, after everything else was tried.
    pub async fn purge(&self) -> Result<Purged, Error> {
        self.run(Worker::purge).await
    }

    async fn run<T, F>(&self, job: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&mut Worker) -> Result<T, Error> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |worker| {
            // The caller may have gone; the work is done all the same.
            drop(answer.send(job(worker)));
        });
        let jobs = self.inner.jobs.as_ref().ok_or(Error::Closed)?;
        jobs.send(job).await.map_err(|_| Error::Closed)?;
        answered.await.map_err(|_| Error::Closed)?
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.jobs = None;
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A panic in the thread was already reported by the panic hook.
            drop(thread.join());
        }
    }
}
