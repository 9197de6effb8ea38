//! `coracle server`: the control plane without a node.

use std::{io::Write, path::PathBuf, time::Instant};

use coracle_process::{Signals, WrongUse};
use tokio_util::sync::CancellationToken;

use crate::{commands::up, components::Components, instance::Instance};

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
    /// A server of the cluster to join.
    #[arg(long, env = "CORACLE_JOIN", value_name = "URL", requires = "token")]
    join: Option<String>,
    /// The token to join with.
    #[arg(long, env = "CORACLE_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

/// Runs until a signal or until a part breaks.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    if args.join.is_some() {
        let text = "--join: clusters of several servers are not in this version; start one server without it";
        return Err(WrongUse(text.to_owned()).into());
    }
    let start = Instant::now();
    let signals = Signals::new()?;
    let shutdown = CancellationToken::new();
    signals.guard(&shutdown, serve(args, start, shutdown.clone())).await
}

async fn serve(args: Args, start: Instant, shutdown: CancellationToken) -> anyhow::Result<()> {
    let instance = Instance::new(&args.server.data_dir)?;
    let controller = args.controller.config()?;
    let (server, runner) = up::open(args.server, &instance).await?;
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
        error = components.broken() => Some(error),
        () = shutdown.cancelled() => None,
    };
    let stopped = components.stop().await;
    broken.map_or(stopped, Err)
}
