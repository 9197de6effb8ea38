//! `coracle up`: control plane and one node in this process.

use std::{
    io::Write,
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use coracle_apiserver::{
    pki::Profile,
    server::{ApiServer, Runner},
    user::User,
};
use k8s_openapi::{api::core::v1::Node, jiff::Timestamp};
use kube::{Api, Client, runtime::wait::await_condition};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{
    commands::Signals,
    components::Components,
    instance::Instance,
    kubeconfig,
    node::{self, NodeArgs},
};

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
    /// Write the admin kubeconfig to this file, which then holds nothing else, instead of merging it into
    /// ~/.kube/config.
    #[arg(long, env = "CORACLE_KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Run the control plane only.
    #[arg(long, env = "CORACLE_NO_AGENT")]
    no_agent: bool,
}

/// A `kube::Client` that talks to the API server in this process as `user`.
pub(crate) fn client(server: &ApiServer, user: User) -> Client {
    Client::new(server.service(user), "default")
}

/// The control plane's parts beside the API server.
pub(crate) fn start_control(
    components: &mut Components,
    server: &ApiServer,
    scheduler: coracle_scheduler::Args,
    controller: coracle_controller::Args,
) -> anyhow::Result<()> {
    let as_scheduler = client(server, User::new("system:kube-scheduler", &[]));
    components.start("scheduler", |shutdown| async move {
        Ok(coracle_scheduler::run(scheduler.config(), as_scheduler, shutdown).await?)
    });
    let as_controller = client(server, User::new("system:kube-controller-manager", &[]));
    let mut controller = controller.config()?;
    controller.root_ca.get_or_insert_with(|| server.pki().authority().pem().to_owned());
    components.start("controllers", |shutdown| async move {
        Ok(coracle_controller::run(controller, as_controller, shutdown).await?)
    });
    Ok(())
}

/// Opens the API server: takes the port and the data directory, or says in one sentence why not.
pub(crate) async fn open(
    server: coracle_apiserver::config::Args,
    instance: &Instance,
) -> anyhow::Result<(ApiServer, Runner)> {
    let mut config = server.config();
    config.data_dir = instance.data_dir().to_path_buf();
    config.hostname = node::hostname()?;
    Ok(ApiServer::open(config).await?)
}

/// The kubeconfig the user gets: the admin's, in a file of its own or merged into theirs. Returns what to call that file.
pub(crate) fn give_kubeconfig(server: &ApiServer, file: Option<&PathBuf>) -> anyhow::Result<String> {
    let ours = std::fs::read_to_string(server.pki().admin_kubeconfig()).context("reading the admin kubeconfig")?;
    if let Some(file) = file {
        kubeconfig::write(file, &ours)?;
        return Ok(file.display().to_string());
    }
    match kubeconfig::default_path() {
        Some(file) => {
            kubeconfig::merge_into(&file, &ours)?;
            Ok("~/.kube/config".to_owned())
        }
        None => Ok(server.pki().admin_kubeconfig().display().to_string()),
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
    let instance = Instance::new(&args.server.data_dir)?;
    if !args.no_agent {
        node::check_rights()?;
    }
    let node_config = (!args.no_agent).then(|| args.node.config(&instance, &args.server.dns_domain)).transpose()?;
    let (server, runner) = open(args.server, &instance).await?;
    let mut components = Components::default();
    components.start("API server", |shutdown| async move { Ok(runner.run(shutdown).await?) });
    let started = async {
        tokio::select! {
            () = server.ready() => {}
            error = components.broken() => return Err(error),
        }
        let shown = give_kubeconfig(&server, args.kubeconfig.as_ref())?;
        start_control(&mut components, &server, args.scheduler, args.controller)?;
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
        error = components.broken() => Some(error),
        () = shutdown.cancelled() => None,
    };
    info!("stopping");
    let stopped = components.stop().await;
    match broken {
        Some(error) => Err(error),
        None => stopped,
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
    let identity = server.pki().issue(&Profile::node_server(&name, &addresses), Timestamp::now())?;
    config.serving = coracle_agent::Serving {
        certificate: identity.chain_pem(),
        key: identity.key_pem().to_owned(),
        client_ca: server.pki().authority().pem().to_owned(),
    };
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
