//! `coracle server`: the control plane without a node, alone or as one of several; and what is done about the others.

use std::{io::Write, path::PathBuf, time::Instant};

use anyhow::{Context, bail};
use clap::Subcommand;
use coracle_apiserver::servers::{Join, List};
use coracle_process::{Signals, WrongUse};
use http::Method;
use tokio_util::sync::CancellationToken;

use super::reach::{self, Reach};
use crate::{commands::up, components::Components, instance::Instance};

/// Where the servers are asked about.
const SERVERS: &str = "/coracle/v1/servers";

/// Flags of `server`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) server: coracle_apiserver::config::Args,
    #[command(flatten)]
    scheduler: coracle_scheduler::Args,
    #[command(flatten)]
    controller: coracle_controller::Args,
    /// Write the admin kubeconfig to this file, which then holds nothing else, instead of merging it into the first file
    /// of KUBECONFIG or ~/.kube/config.
    #[arg(long, env = "CORACLE_KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    #[command(flatten)]
    join: JoinArgs,
    #[command(subcommand)]
    what: Option<What>,
}

/// The cluster that a server joins.
#[derive(clap::Args)]
pub(crate) struct JoinArgs {
    /// A server of the cluster to join, as in https://192.0.2.1:6443; without effect once this server has joined.
    #[arg(long, env = "CORACLE_JOIN", value_name = "URL")]
    join: Option<String>,
    /// The token to join with (`coracle token create --server`); needed only to join.
    #[arg(long, env = "CORACLE_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

impl JoinArgs {
    /// The cluster to join, if one was named, with `node` beside the server.
    pub(super) fn join(self, node: Option<String>) -> anyhow::Result<Option<Join>> {
        let join = join(self.join, self.token.as_deref(), "--server")?;
        Ok(join.map(|join| Join { node, ..join }))
    }
}

/// What to do about the servers of a cluster.
#[derive(Subcommand)]
pub(crate) enum What {
    /// List the servers of the cluster.
    Members(Reach),
    /// Have the server of this data directory leave the cluster and end; the others go on without it.
    Leave(Reach),
    /// Remove a server, dead or alive.
    Remove {
        /// Its name or id, as `coracle server members` shows it.
        name: String,
        #[command(flatten)]
        reach: Reach,
    },
}

/// Asks about the servers, or for one less.
async fn ask(what: What) -> anyhow::Result<()> {
    match what {
        What::Members(reach) => {
            let list: List = reach::json(&reach.client().await?, Method::GET, SERVERS).await?;
            show(&list)
        }
        What::Leave(reach) => {
            let client = reach.client().await?;
            let list: List = reach::json(&client, Method::GET, SERVERS).await?;
            let own = list.servers.iter().find(|server| server.own).context("the server does not know itself")?;
            let left: List = reach::json(&client, Method::DELETE, &format!("{SERVERS}/{}", own.id)).await?;
            writeln!(std::io::stdout(), "{} has left the cluster, and ends; {} stay", own.name, left.servers.len())?;
            Ok(())
        }
        What::Remove { name, reach } => {
            if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.') {
                bail!("{name:?} is neither a name nor an id of a server");
            }
            let client = reach.client().await?;
            let left: List = reach::json(&client, Method::DELETE, &format!("{SERVERS}/{name}")).await?;
            writeln!(std::io::stdout(), "{name} was removed; {} stay", left.servers.len())?;
            Ok(())
        }
    }
}

fn show(list: &List) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{:<16} {:<20} {:<10} {:<8} ADDRESS", "ID", "NAME", "ROLE", "REACHED")?;
    for server in &list.servers {
        let role = match (server.leads, server.votes) {
            (true, _) => "leader",
            (false, true) if server.witness => "witness",
            (false, true) => "voter",
            (false, false) => "learner",
        };
        let reached = if server.reached { "yes" } else { "no" };
        let addresses = server.addresses.join(",");
        writeln!(out, "{:<16} {:<20} {role:<10} {reached:<8} {addresses}", server.id, server.name)?;
    }
    Ok(())
}

/// Runs until a signal or until a part breaks.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    if let Some(what) = args.what {
        return ask(what).await;
    }
    let start = Instant::now();
    let signals = Signals::new()?;
    let shutdown = CancellationToken::new();
    signals.guard(&shutdown, serve(args, start, shutdown.clone())).await
}

/// The cluster to join, if one was named; `kind` is the flag that its token is made with.
pub(super) fn join(server: Option<String>, token: Option<&str>, kind: &str) -> anyhow::Result<Option<Join>> {
    let Some(server) = server else { return Ok(None) };
    let Some(token) = token else {
        return Err(WrongUse(format!("--join: needs --token (coracle token create {kind})")).into());
    };
    let token = token.parse().map_err(|error| WrongUse(format!("--token: {error}")))?;
    Ok(Some(Join { server, token, node: None }))
}

async fn serve(args: Args, start: Instant, shutdown: CancellationToken) -> anyhow::Result<()> {
    let instance = Instance::new(&args.server.whereabouts.data_dir)?;
    let controller = args.controller.config()?;
    let join = args.join.join(None)?;
    let (server, runner) = up::open(args.server, &instance, join).await?;
    let mut components = Components::default();
    components.start("API server", |shutdown| async move { Ok(runner.run(shutdown).await?) });
    tokio::select! {
        () = server.ready() => {}
        error = components.broken() => return Err(error),
        () = shutdown.cancelled() => return components.stop().await,
    }
    let shown = up::give_kubeconfig(&mut components, &server, args.kubeconfig)?;
    up::start_control(&mut components, &server, args.scheduler, controller);
    let (seconds, port) = (start.elapsed().as_secs_f64(), server.address().port());
    writeln!(
        std::io::stdout(),
        "coracle is ready in {seconds:.2} s: no node yet, https://127.0.0.1:{port}, kubeconfig {shown}"
    )?;
    let broken = tokio::select! {
        error = components.broken() => Some(error).filter(|_| !server.has_left()),
        () = shutdown.cancelled() => None,
    };
    let stopped = components.stop().await;
    broken.map_or(stopped, Err)
}
