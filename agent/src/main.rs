//! The node agent by itself. Called as a supervisor, it is a pod's first process and nothing else.

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use coracle_agent::{Args, JoinRequest, join, run};
use coracle_runtime::image::Registries;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

#[derive(Parser)]
#[command(name = "coracle-agent", version, about = "One node of a Coracle cluster")]
struct Command {
    #[command(flatten)]
    args: Args,
}

fn main() -> anyhow::Result<ExitCode> {
    // Before anything else: a supervisor has one thread and nothing open.
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|first| first == coracle_runtime::SUPERVISE) {
        return Ok(coracle_runtime::supervise(args));
    }
    let args = Command::parse().args;
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    tokio::runtime::Runtime::new().context("start the runtime")?.block_on(node(args))?;
    Ok(ExitCode::SUCCESS)
}

async fn node(args: Args) -> anyhow::Result<()> {
    let shutdown = CancellationToken::new();
    let request = JoinRequest {
        server: args.server.clone(),
        token: args.token.clone(),
        node: args.node_name.clone(),
        addresses: vec![args.node_ip],
    };
    let joined = join(&request).await.context("join the cluster")?;
    let client = joined.client(&args.server)?;
    let agent = run(args.config(joined.serving(), Registries::default()), client, shutdown.clone());
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::pin!(agent);
    tokio::select! {
        result = &mut agent => return Ok(result?),
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    shutdown.cancel();
    Ok(agent.await?)
}
