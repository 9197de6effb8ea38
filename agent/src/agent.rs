//! Putting the agent together: opens what it stands on, registers the node, runs its tasks, and ends them.

use std::error::Error as StdError;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use coracle_network::{Ipv4Net, Network};
use coracle_runtime::image::{self, ImageStore, Limits, StoreConfig, Timeouts};
use coracle_runtime::{Runtime, SandboxStatus};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Node, Service};
use kube::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clear;
use crate::config::Config;
use crate::context::{Context, PodTable, Services};
use crate::cri;
use crate::devices::{self, DeviceError, Devices};
use crate::eviction::{self, Eviction, Pressure};
use crate::figures::Figures;
use crate::hold::{Hold, HoldError};
use crate::image_rights::ImageRights;
use crate::images;
use crate::manifests;
use crate::node::{self, Readiness, enforcement, machine};
use crate::objects::ObjectCache;
use crate::place;
use crate::pod::host_files::Names;
use crate::pod::resources;
use crate::pod::status::Host;
use crate::power::{self, Power};
use crate::server::{self, Server};
use crate::{event, pods};

mod range;

/// The longest wait between two tries to register the node.
const REGISTER_MOST: Duration = Duration::from_secs(5);

/// Why an agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A node makes containers.
    #[error("a node makes containers, which needs root: run it with sudo")]
    NotRoot,
    /// Another agent works in the data directory.
    #[error(transparent)]
    Hold(#[from] HoldError),
    /// The range of addresses the cluster gave is none.
    #[error("the cluster gave this node the pod range {text:?}, which is no IPv4 range")]
    Range {
        /// What it gave.
        text: String,
    },
    /// The node was told to use another range than it has, which cannot be changed while it is there.
    #[error("this node's pod range is {given} in the cluster and cannot become {range}: delete the Node object first")]
    OtherRange {
        /// What was asked for.
        range: Ipv4Net,
        /// What the cluster has.
        given: Ipv4Net,
    },
    /// The range the node had before is not the one it has now, and pods run with addresses of the old one.
    #[error("the cluster gave this node the pod range {given} instead of {range}: the next start uses it")]
    RangeChanged {
        /// What it had.
        range: Ipv4Net,
        /// What the cluster has.
        given: Ipv4Net,
    },
    /// A directory cannot be made.
    #[error("make directory {path}")]
    Directory {
        /// The directory.
        path: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The machine cannot be read.
    #[error("read what this machine is")]
    Machine {
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Devices cannot be given out.
    #[error("look at the host's devices")]
    Devices(#[source] DeviceError),
    /// Containers cannot be run here.
    #[error("open the container runtime")]
    Runtime(#[source] coracle_runtime::Error),
    /// The image store cannot be opened.
    #[error("open the image store")]
    Images(#[source] image::Error),
    /// Pods run that stand on images of another store.
    #[error(
        "pods of this node run with images of {}, so it cannot use those of {}: `coracle down` stops them",
        former.display(),
        wanted.display()
    )]
    OtherImages {
        /// The store it had.
        former: PathBuf,
        /// The one it was told to use.
        wanted: PathBuf,
    },
    /// Whose images there are cannot be known.
    #[error("read which pods may use which images")]
    Rights(#[source] image::Error),
    /// What is left on the host cannot be noted beside the data.
    #[error("note what this node leaves on its host")]
    Note(#[source] clear::ClearError),
    /// The pod network cannot be made.
    #[error("open the pod network")]
    Network(#[source] coracle_network::Error),
    /// The node's server cannot be started.
    #[error(transparent)]
    Server(#[from] server::Error),
    /// The kernel does not tell of signals.
    #[error("listen for the machine to go down")]
    Signal(#[source] io::Error),
    /// The Container Runtime Interface cannot be served.
    #[error("serve the Container Runtime Interface")]
    Cri(#[from] cri::Error),
    /// A task of the agent ended although nobody asked it to.
    #[error("a task of the agent ended: {reason}")]
    Task {
        /// How.
        reason: String,
    },
}

/// Says at once what only root can do.
///
/// # Errors
/// [`Error::NotRoot`].
pub fn check_rights() -> Result<(), Error> {
    if nix::unistd::geteuid().is_root() { Ok(()) } else { Err(Error::NotRoot) }
}

/// Runs the node until `shutdown`, and returns when all its tasks have ended: with its pods stopped, or left as they are
/// with `keep_pods`. Static pods run before the API server answers, once the node has had a range of addresses; one that is
/// told to end while it waits for its first range leaves pods of an earlier run as they are.
///
/// # Errors
/// [`Error`], when it cannot begin or one of its tasks fails.
pub async fn run(mut config: Config, client: kube::Client, shutdown: CancellationToken) -> Result<(), Error> {
    let own = [config.data_dir.clone(), config.run_dir.clone(), config.pods_dir(), config.logs_dir()];
    for dir in own.into_iter().chain(config.manifest_dir.clone()) {
        tokio::fs::create_dir_all(&dir)
            .await
            .map_err(|source| Error::Directory { path: dir.display().to_string(), source })?;
    }
    let _hold = Hold::take(&config.data_dir)?;
    let server = Server::bind(config.listen, config.serving.clone()).await?;
    let port = server.port();
    let cri = match &config.cri_listen {
        Some(path) => Some(cri::Server::bind(path).await?),
        None => None,
    };
    let mut machine = read_machine(&config).await?;
    let devices = Devices::open(config.devices.clone(), &config.data_dir).map_err(Error::Devices)?;
    machine.devices = devices.counts();

    // The range the node asks for is its own wish, or what the cluster gives it. What it had before it has until the cluster
    // says otherwise: its static pods need no API server.
    let kept = if config.pod_cidr.is_none() { clear::range(&config.data_dir) } else { None };
    let range = match config.pod_cidr.or(kept) {
        Some(range) => range,
        None => match range::wait(&config, &client, &machine, port, &shutdown).await? {
            Some(range) => range,
            None => return Ok(()),
        },
    };
    config.pod_cidr = Some(range);
    let wanted = node::node(&config, &machine, port, Some(range), Readiness::Ready);
    let fails = power_fails(&config)?;
    let Opened { context, writer, found, tracker, objects_end, pressure, power, evictions } =
        open(config, range, &machine, devices, client, wanted.clone()).await?;

    let mut tasks = JoinSet::new();
    // The order of the end: pods first, while status, events and the server still work; then the rest.
    let (pods_end, rest) = (CancellationToken::new(), CancellationToken::new());
    let ends = power::Ends { told: shutdown.clone(), pods: pods_end.clone(), all: rest.clone() };
    spawn(&mut tasks, "power", power::run(Arc::clone(&context), power, fails, ends));
    spawn(&mut tasks, "server", server.run(Arc::clone(&context), rest.clone()));
    spawn(&mut tasks, "services", watch_services(Arc::clone(&context), rest.clone()));
    spawn(&mut tasks, "events", writer.run(rest.clone()));
    spawn(&mut tasks, "eviction", eviction::run(Arc::clone(&context), pressure, rest.clone()));
    spawn(&mut tasks, "images", images::run(Arc::clone(&context), rest.clone()));
    spawn(&mut tasks, "enforcement", enforcement::run(Arc::clone(&context), machine.clone(), rest.clone()));
    spawn(&mut tasks, "devices", devices::run(Arc::clone(&context), rest.clone()));
    let (give, manifests) = watch::channel(None);
    spawn(&mut tasks, "manifests", manifests::run(Arc::clone(&context), give, rest.clone()));
    let (foreign, found): (Vec<_>, Vec<_>) = found.into_iter().partition(|sandbox| cri::is_made_here(&sandbox.spec));
    if let Some(cri) = cri {
        spawn(&mut tasks, "CRI", cri.run(Arc::clone(&context), foreign, rest.clone()));
    }
    let mut pods = JoinSet::new();
    let found = pods::found::by_pod(found);
    spawn(&mut pods, "pods", pods::run(Arc::clone(&context), found, manifests, evictions, pods_end));

    // Registering needs the API server, which may come up after the agent.
    let joining = join(&context, &machine, (port, range, kept.is_some()), &wanted, &shutdown);
    let joined = tokio::select! {
        joined = joining => joined,
        done = tasks.join_next() => Err(Error::Task { reason: ended(done) }),
        done = pods.join_next() => {
            if shutdown.is_cancelled() { Ok(false) } else { Err(Error::Task { reason: ended(done) }) }
        }
    };
    let result = match joined {
        Ok(true) => {
            spawn(&mut tasks, "lease", keep_lease(Arc::clone(&context), rest.clone()));
            spawn(&mut tasks, "status", node::keep_status(Arc::clone(&context), port, range, rest.clone()));
            let early = tokio::select! {
                done = tasks.join_next() => Some(ended(done)),
                done = pods.join_next() => (!shutdown.is_cancelled()).then(|| ended(done)),
            };
            early.map_or(Ok(()), |reason| Err(Error::Task { reason }))
        }
        Ok(false) => Ok(()),
        Err(error) => Err(error),
    };
    shutdown.cancel();
    while pods.join_next().await.is_some() {}
    rest.cancel();
    objects_end.cancel();
    while tasks.join_next().await.is_some() {}
    tracker.close();
    tracker.wait().await;
    leave(&context).await;
    result
}

/// Registers the node; false when the agent is told to end before. A range of addresses that was only `kept` from an earlier
/// run is not asked for, since it may be another node's by now: the cluster says whether it is still this one's.
async fn join(
    context: &Context,
    machine: &machine::Machine,
    (port, range, kept): (u16, Ipv4Net, bool),
    wanted: &Node,
    shutdown: &CancellationToken,
) -> Result<bool, Error> {
    if kept {
        let Some(given) = range::wait(&context.config, &context.client, machine, port, shutdown).await? else {
            return Ok(false);
        };
        if given != range {
            let next = Config { pod_cidr: Some(given), ..context.config.clone() };
            clear::note(&next).map_err(Error::Note)?;
            return Err(Error::RangeChanged { range, given });
        }
    }
    let Some(registered) = register(&context.config, &context.client, wanted, shutdown).await else { return Ok(false) };
    if let Some(given) = range::of(&registered)?
        && given != range
    {
        return Err(Error::OtherRange { range, given });
    }
    *context.node.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::new(registered);
    node::announce(context, machine).await;
    Ok(true)
}

async fn keep_lease(context: Arc<Context>, shutdown: CancellationToken) {
    let owner = || context.node().metadata.uid.clone();
    node::keep_lease(&context.config, context.client.clone(), owner, shutdown).await;
}

/// Leaves nothing on the host that holds nothing.
async fn leave(context: &Context) {
    if let Err(error) = context.runtime.remove_empty_groups().await {
        tracing::warn!(error = &error as &(dyn StdError + 'static), "cgroups left on the host");
    }
}

fn spawn(tasks: &mut JoinSet<&'static str>, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
    tasks.spawn(async move {
        task.await;
        name
    });
}

fn ended(done: Option<Result<&'static str, tokio::task::JoinError>>) -> String {
    match done {
        Some(Ok(name)) => name.to_owned(),
        Some(Err(error)) => error.to_string(),
        None => "none".to_owned(),
    }
}

/// What the agent stands on.
struct Opened {
    context: Arc<Context>,
    writer: event::Writer,
    found: Vec<SandboxStatus>,
    tracker: TaskTracker,
    objects_end: CancellationToken,
    pressure: watch::Sender<Pressure>,
    power: watch::Sender<Power>,
    evictions: mpsc::Receiver<Eviction>,
}

async fn open(
    config: Config,
    range: Ipv4Net,
    machine: &machine::Machine,
    devices: Devices,
    client: kube::Client,
    wanted: Node,
) -> Result<Opened, Error> {
    let former = clear::former_images(&config);
    // What pods that are found stand on is known until it is given back.
    let images_dir = former.clone().unwrap_or_else(|| config.images_dir.clone());
    clear::note(&Config { images_dir, ..config.clone() }).map_err(Error::Note)?;
    let runtime = Runtime::open(coracle_runtime::Config {
        exe: config.supervisor.clone(),
        args: config.supervisor_args.clone(),
        cgroup_root: config.cgroup_root.clone(),
        ..coracle_runtime::Config::new(config.data_dir.join("runtime"), config.run_dir.join("runtime"), &config.mark)
    })
    .await
    .map_err(Error::Runtime)?;
    let images = ImageStore::open(StoreConfig {
        root: config.images_dir.clone(),
        registries: config.registries.clone(),
        timeouts: Timeouts::default(),
        limits: Limits::default(),
    })
    .await
    .map_err(Error::Images)?;
    let found = runtime.list().await.map_err(Error::Runtime)?;
    if let Some(former) = former {
        leave_images(&config, former, &found).await?;
        clear::note(&config).map_err(Error::Note)?;
    }
    let image_rights = open_rights(&config, images.clone()).await?;
    let network = Network::open(coracle_network::Config {
        mark: config.mark.clone(),
        pod_cidr: range,
        cluster_cidr: config.cluster_cidr,
        mtu: config.mtu,
        state_dir: config.data_dir.join("network"),
        masquerade: true,
    })
    .await
    .map_err(Error::Network)?;

    let tracker = TaskTracker::new();
    let objects_end = CancellationToken::new();
    let (events, writer) = event::channel(client.clone(), &config.node_name);
    let objects = ObjectCache::new(client.clone(), tracker.clone(), objects_end.clone());
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let names = Names {
        cluster_dns: config.cluster_dns.clone(),
        cluster_domain: config.cluster_domain.clone(),
        host_resolv: read("/etc/resolv.conf"),
        host_hosts: read("/etc/hosts"),
        host_name: read("/proc/sys/kernel/hostname").trim().to_owned(),
    };
    let allocatable = node::allocatable(machine, config.max_pods, &config.reserved, &config.thresholds)
        .iter()
        .filter(|(name, _)| !machine.devices.contains_key(*name))
        .map(|(name, quantity)| (name.clone(), resources::milli(quantity)))
        .collect();
    let (pressure, seen) = watch::channel(Pressure::of(machine, &config.thresholds));
    let (power, stays) = watch::channel(Power::Up);
    let (evict, evictions) = eviction::channel();
    let context = Arc::new(Context {
        evict,
        pressure: seen,
        power: stays,
        host: Host { ips: vec![config.node_ip] },
        memory: machine.memory,
        allocatable,
        devices,
        node: RwLock::new(Arc::new(wanted)),
        services: RwLock::new(Arc::new(Services::new())),
        table: PodTable::default(),
        images_changed: Notify::new(),
        beginning: tokio::sync::RwLock::default(),
        pulls: Semaphore::new(config.pulls),
        client,
        runtime,
        network,
        images,
        image_rights,
        objects,
        events,
        figures: Figures::default(),
        names,
        config,
    });
    Ok(Opened { context, writer, found, tracker, objects_end, pressure, power, evictions })
}

/// Listens for the signal that the machine goes down, if pods are to have any time then.
fn power_fails(config: &Config) -> Result<Option<Signal>, Error> {
    let kind = SignalKind::from_raw(nix::sys::signal::Signal::SIGPWR as i32);
    config.shutdown_grace.map(|_| signal(kind)).transpose().map_err(Error::Signal)
}

/// Gives back the images of another store that the node had before, if no pod stands on them any more.
async fn leave_images(config: &Config, former: PathBuf, found: &[SandboxStatus]) -> Result<(), Error> {
    if !found.is_empty() {
        return Err(Error::OtherImages { former, wanted: config.images_dir.clone() });
    }
    clear::release_images(&former, &config.mark).await.map_err(Error::Images)
}

async fn open_rights(config: &Config, images: ImageStore) -> Result<Arc<ImageRights>, Error> {
    let own = config.images_dir == place::images_dir(&config.data_dir);
    let former = own.then(|| config.data_dir.join("image-rights.json"));
    let open = tokio::task::spawn_blocking(move || ImageRights::open(images, former.as_deref()));
    open.await.map_err(|_| image::Error::Interrupted).flatten().map_err(Error::Rights)
}

async fn read_machine(config: &Config) -> Result<machine::Machine, Error> {
    let dir = config.data_dir.clone();
    match tokio::task::spawn_blocking(move || machine::read(&dir)).await {
        Ok(read) => read.map_err(|source| Error::Machine { source }),
        Err(error) => Err(Error::Machine { source: io::Error::other(error) }),
    }
}

/// Registers the node, trying again until it is done; `None` when the agent is told to end before.
async fn register(config: &Config, client: &kube::Client, wanted: &Node, shutdown: &CancellationToken) -> Option<Node> {
    let mut wait = Duration::from_millis(50);
    loop {
        let result = tokio::select! {
            () = shutdown.cancelled() => return None,
            result = node::register(config, client, wanted) => result,
        };
        match result {
            Ok(node) => return Some(node),
            Err(error) => {
                tracing::warn!(error = &error as &(dyn StdError + 'static), "node not registered yet");
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return None,
            () = tokio::time::sleep(wait) => {}
        }
        wait = (wait * 2).min(REGISTER_MOST);
    }
}

/// Keeps the services that containers are told of.
async fn watch_services(context: Arc<Context>, shutdown: CancellationToken) {
    let api: Api<Service> = Api::all(context.client.clone());
    let mut events = Box::pin(watcher(api, watcher::Config::default()).default_backoff());
    let mut services = Services::new();
    let mut fresh: Option<Services> = None;
    let key =
        |s: &Service| (s.metadata.namespace.clone().unwrap_or_default(), s.metadata.name.clone().unwrap_or_default());
    loop {
        let event = tokio::select! {
            () = shutdown.cancelled() => return,
            event = events.next() => event,
        };
        match event {
            Some(Ok(Event::Init)) => fresh = Some(Services::new()),
            Some(Ok(Event::InitApply(service))) => {
                if let Some(fresh) = &mut fresh {
                    fresh.insert(key(&service), slim(service));
                }
                continue;
            }
            Some(Ok(Event::InitDone)) => services = fresh.take().unwrap_or_default(),
            Some(Ok(Event::Apply(service))) => drop(services.insert(key(&service), slim(service))),
            Some(Ok(Event::Delete(service))) => drop(services.remove(&key(&service))),
            Some(Err(error)) => {
                tracing::debug!(error = &error as &(dyn StdError + 'static), "watch of services failed");
                continue;
            }
            None => return,
        }
        *context.services.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::new(services.clone());
    }
}

/// A service without what the environment does not tell.
fn slim(mut service: Service) -> Service {
    service.metadata.managed_fields = None;
    service.metadata.annotations = None;
    service.status = None;
    service
}
