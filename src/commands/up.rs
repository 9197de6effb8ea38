//! `coracle up`: control plane and one node in this process.

use std::{
    io::Write,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use coracle_agent::{NodeArgs, Serving, Surroundings};
use coracle_apiserver::{
    pki::{self, Identity, Profile},
    server::{ApiServer, Runner},
    servers::Join,
    user::User,
};
use coracle_controller::ClusterCidr;
use coracle_process::Signals;
use k8s_openapi::{api::core::v1::Node, jiff::Timestamp};
use kube::{Api, Client, runtime::wait::await_condition};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::server::JoinArgs;
use crate::{components::Components, instance::Instance, kubeconfig};

mod leaving;

/// How long the node may take to be Ready before the start counts as failed; it takes well under a second.
const NODE_PATIENCE: Duration = Duration::from_secs(60);

/// Flags of `up`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) server: coracle_apiserver::config::Args,
    #[command(flatten)]
    scheduler: coracle_scheduler::Args,
    #[command(flatten)]
    controller: coracle_controller::Args,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
    /// Write the admin kubeconfig to this file, which then holds nothing else, instead of merging it into the first file
    /// of KUBECONFIG or ~/.kube/config.
    #[arg(long, env = "CORACLE_KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Run the control plane only.
    #[arg(long, env = "CORACLE_NO_AGENT")]
    no_agent: bool,
    #[command(flatten)]
    join: JoinArgs,
}

/// A `kube::Client` that talks to the API server in this process as `user`.
pub(crate) fn client(server: &ApiServer, user: User) -> Client {
    Client::new(server.service(user).without_owners(), "default")
}

/// The control plane's parts beside the API server: they work on one server of a cluster at a time.
pub(crate) fn start_control(
    components: &mut Components,
    server: &ApiServer,
    scheduler: coracle_scheduler::Args,
    mut controller: coracle_controller::Config,
) {
    let as_scheduler = client(server, User::new("system:kube-scheduler", &[]));
    let leader = server.clone();
    components.start("scheduler", |shutdown| async move {
        let run = |own| coracle_scheduler::run(scheduler.clone().config(), as_scheduler.clone(), own);
        Ok(leader.while_leading(shutdown, run).await?)
    });
    let as_controller = client(server, User::new("system:kube-controller-manager", &[]));
    controller.root_ca.get_or_insert_with(|| server.pki().authority().pem().to_owned());
    let leader = server.clone();
    components.start("controllers", |shutdown| async move {
        let run = |own| coracle_controller::run(controller.clone(), as_controller.clone(), own);
        Ok(leader.while_leading(shutdown, run).await?)
    });
}

/// Opens the API server: takes the port and the data directory, or says in one sentence why not.
pub(crate) async fn open(
    server: coracle_apiserver::config::Args,
    instance: &Instance,
    join: Option<Join>,
) -> anyhow::Result<(ApiServer, Runner)> {
    let mut config = server.config()?;
    config.data_dir = instance.data_dir().to_path_buf();
    config.join = join;
    config.hostname = nix::unistd::gethostname().context("the host's name")?.to_string_lossy().to_lowercase();
    Ok(ApiServer::open(config).await?)
}

/// The kubeconfig the user gets: the admin's, in a file of its own or merged into theirs, and kept fresh there. Returns
/// what to call that file.
pub(crate) fn give_kubeconfig(
    components: &mut Components,
    server: &ApiServer,
    file: Option<PathBuf>,
) -> anyhow::Result<String> {
    let admin = server.pki().admin_kubeconfig();
    let renewals = server.pki().admin_renewals();
    let ours = std::fs::read_to_string(&admin).context("reading the admin kubeconfig")?;
    let (target, write): (PathBuf, Give) = match (file, kubeconfig::default_path()) {
        (Some(file), _) => {
            kubeconfig::write(&file, &ours)?;
            (file, kubeconfig::write)
        }
        (None, Some(file)) => {
            kubeconfig::merge_into(&file, &ours)?;
            (file, kubeconfig::refresh)
        }
        (None, None) => return Ok(admin.display().to_string()),
    };
    let shown = kubeconfig::shown(&target);
    components.start("kubeconfig", |shutdown| async move {
        keep_kubeconfig(admin, renewals, target, write, shutdown).await;
        Ok(())
    });
    Ok(shown)
}

/// Writes a kubeconfig's text to a file, or into one.
type Give = fn(&Path, &str) -> anyhow::Result<()>;

/// Gives the admin's credential to the user again whenever it was renewed. A user's file that cannot be written is no
/// reason to end.
async fn keep_kubeconfig(
    admin: PathBuf,
    mut renewals: watch::Receiver<()>,
    target: PathBuf,
    write: Give,
    shutdown: CancellationToken,
) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            renewed = renewals.changed() => if renewed.is_err() {
                return shutdown.cancelled().await;
            },
        }
        let (from, to) = (admin.clone(), target.clone());
        let written = tokio::task::spawn_blocking(move || write(&to, &std::fs::read_to_string(from)?)).await;
        if let Err(error) = written.map_err(anyhow::Error::from).flatten() {
            let error: &(dyn std::error::Error + 'static) = error.as_ref();
            tracing::warn!(error, path = %target.display(), "renewed kubeconfig not written");
        }
    }
}

/// Runs until a signal or until a part breaks.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let start = Instant::now();
    let signals = Signals::new()?;
    let shutdown = CancellationToken::new();
    signals.guard(&shutdown, up(args, start, shutdown.clone())).await
}

async fn up(args: Args, start: Instant, shutdown: CancellationToken) -> anyhow::Result<()> {
    let instance = Instance::new(&args.server.whereabouts.data_dir)?;
    if !args.no_agent {
        coracle_agent::check_rights()
            .map_err(|error| anyhow::anyhow!("{error}, or with --no-agent for the control plane only"))?;
    }
    let mut controller = args.controller.clone().config()?;
    let mut node_config = (!args.no_agent).then(|| node_config(&args, &instance)).transpose()?;
    let node = node_config.as_ref().map(|config| config.node_name.clone());
    let (server, runner) = open(args.server, &instance, args.join.join(node.clone())?).await?;
    let mut components = Components::default();
    components.start("API server", |shutdown| async move { Ok(runner.run(shutdown).await?) });
    let started = async {
        tokio::select! {
            () = server.ready() => {}
            error = components.broken() => return Err(error),
        }
        let shown = give_kubeconfig(&mut components, &server, args.kubeconfig)?;
        if let Some(config) = &mut node_config {
            // Among several servers the controllers may run on another one, and give a range to another node meanwhile.
            if !server.is_among_several() {
                controller.given_range = choose_range(&server, &args.controller.pod_cidr, config).await?;
            }
            server.reached_at(own_address(config)).await?;
        }
        server.tell_also(coracle_controller::figures);
        start_control(&mut components, &server, args.scheduler, controller);
        let nodes = match node_config {
            Some(config) => start_node(&mut components, &server, config).await?,
            None => 0,
        };
        announce(start, nodes, server.address(), &shown)
    };
    let result = tokio::select! {
        result = started => result,
        () = shutdown.cancelled() => Ok(()),
    };
    if result.is_err() {
        // The reason for the failure is what counts; what went wrong in stopping is in the log.
        let _ = components.stop().await;
        return result;
    }
    let broken = tokio::select! {
        error = components.broken() => Some(error).filter(|_| !server.has_left()),
        () = shutdown.cancelled() => None,
    };
    info!("stopping");
    let stopped = components.stop().await;
    match (broken, node) {
        (Some(error), _) => Err(error),
        (None, Some(node)) if server.has_left() => leaving::node(&instance, &node, &server.others()).await,
        (None, _) => stopped,
    }
}

/// Where pods reach this machine: at its address, or, as long as it is in no network, at the one it has towards its pods.
fn own_address(config: &coracle_agent::Config) -> IpAddr {
    match config.pod_cidr {
        Some(range) if config.node_ip.is_loopback() => {
            IpAddr::V4(Ipv4Addr::from(u32::from(range.network()).saturating_add(1)))
        }
        _ => config.node_ip,
    }
}

/// The node's configuration; certificates and range come when the API server is there.
fn node_config(args: &Args, instance: &Instance) -> anyhow::Result<coracle_agent::Config> {
    let range = args.controller.pod_cidr.to_string();
    let pod_cidr = range.parse().map_err(|error| anyhow::anyhow!("--pod-cidr {range}: {error}"))?;
    let around = Surroundings { pod_cidr, dns_domain: args.server.dns_domain.clone() };
    let none = watch::channel(Serving::none()).1;
    Ok(args.node.config(instance.place(), args.node.name(None)?, &around, none)?)
}

/// Chooses the node's range of pod addresses while no controller runs yet that could give it to another node, so that the
/// node need not wait for one. Tells what was chosen; nothing when the node has its range or was told one.
async fn choose_range(
    server: &ApiServer,
    cluster: &ClusterCidr,
    config: &mut coracle_agent::Config,
) -> anyhow::Result<Option<(String, String)>> {
    if config.pod_cidr.is_some() {
        return Ok(None);
    }
    let nodes: Api<Node> = Api::all(client(server, User::new("system:admin", &["system:masters"])));
    let nodes = nodes.list(&kube::api::ListParams::default()).await?.items;
    let range_of = |node: &Node| node.spec.as_ref().and_then(|spec| spec.pod_cidr.clone()).unwrap_or_default();
    let own = nodes.iter().find(|node| node.metadata.name.as_deref() == Some(&config.node_name)).map(range_of);
    if let Some(own) = own.filter(|range| !range.is_empty()) {
        config.pod_cidr =
            Some(own.parse().map_err(|error| anyhow::anyhow!("the node's spec.podCIDR {own:?}: {error}"))?);
        return Ok(None);
    }
    let taken: Vec<String> = nodes.iter().map(range_of).collect();
    let Some(range) = cluster.free(taken.iter().map(String::as_str)) else {
        bail!("--pod-cidr {cluster}: other nodes have all of it");
    };
    config.pod_cidr = Some(range.parse().map_err(|error| anyhow::anyhow!("the range {range:?}: {error}"))?);
    Ok(Some((config.node_name.clone(), range)))
}

/// What the node's own server shows, of the identity the control plane beside it gave it.
fn serving(server: &ApiServer, identity: &Identity) -> Serving {
    Serving {
        certificate: identity.chain_pem(),
        key: identity.key_pem().to_owned(),
        client_ca: server.pki().authority().pem().to_owned(),
    }
}

/// Starts the node and waits until it is Ready. Returns how many nodes there are then.
async fn start_node(
    components: &mut Components,
    server: &ApiServer,
    mut config: coracle_agent::Config,
) -> anyhow::Result<usize> {
    let name = config.node_name.clone();
    let addresses = [config.node_ip.to_string(), "127.0.0.1".to_owned(), "localhost".to_owned()];
    let profile = Profile::node_server(&name, &addresses);
    let identity = server.pki().issue(&profile, Timestamp::now())?;
    let (give, taken) = watch::channel(serving(server, &identity));
    config.serving = taken;
    let (renewed, due) = (server.clone(), identity.renew_at());
    components.start("node's certificate", |shutdown| async move {
        let take = |identity: &Identity| drop(give.send_replace(serving(&renewed, identity)));
        pki::keep_issued(Arc::clone(renewed.pki()), profile, due, Timestamp::now, take, shutdown).await;
        Ok(())
    });
    let as_node = client(server, User::new(format!("system:node:{name}"), &["system:nodes"]));
    components.start("node", |shutdown| async move { Ok(coracle_agent::run(config, as_node, shutdown).await?) });
    let nodes: Api<Node> = Api::all(client(server, User::new("system:admin", &["system:masters"])));
    let ready = |node: Option<&Node>| {
        let conditions = node.and_then(|n| n.status.as_ref()).and_then(|s| s.conditions.as_ref());
        conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
    };
    tokio::select! {
        result = tokio::time::timeout(NODE_PATIENCE, await_condition(nodes.clone(), &name, ready)) => {
            result.with_context(|| format!("node {name} is not Ready after {} s", NODE_PATIENCE.as_secs()))??;
        }
        error = components.broken() => return Err(error),
    }
    Ok(nodes.list_metadata(&kube::api::ListParams::default()).await?.items.len())
}

fn announce(start: Instant, nodes: usize, address: SocketAddr, kubeconfig: &str) -> anyhow::Result<()> {
    let host = match address.ip() {
        ip if ip.is_unspecified() => "127.0.0.1".to_owned(),
        std::net::IpAddr::V6(ip) => format!("[{ip}]"),
        std::net::IpAddr::V4(ip) => ip.to_string(),
    };
    let nodes = if nodes == 1 { "1 node".to_owned() } else { format!("{nodes} nodes") };
    let seconds = start.elapsed().as_secs_f64();
    let mut out = std::io::stdout().lock();
    let port = address.port();
    writeln!(out, "coracle is ready in {seconds:.2} s: {nodes}, https://{host}:{port}, kubeconfig {kubeconfig}")?;
    if let Err(error) = out.flush() {
        bail!("nobody reads stdout: {error}");
    }
    Ok(())
}
