//! The API server as a process of its own.

use std::process::ExitCode;

use clap::Parser as _;
use coracle_apiserver::{config::Args, server::ApiServer};
use tokio_util::sync::CancellationToken;

#[derive(clap::Parser)]
#[command(name = "coracle-apiserver", version, about = "The Kubernetes API over Coracle's store")]
struct Cli {
    #[command(flatten)]
    args: Args,
}

/// SIGTERM is what service managers stop with, SIGINT what terminals do.
async fn asked_to_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    let interrupted = tokio::signal::ctrl_c();
    match signal(SignalKind::terminate()) {
        Ok(mut terminated) => tokio::select! {
            _ = interrupted => {}
            _ = terminated.recv() => {}
        },
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "SIGTERM cannot be caught");
            let _ = interrupted.await;
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let shutdown = CancellationToken::new();
    let run = async {
        let (_, runner) = ApiServer::open(Cli::parse().args.config()).await?;
        runner.run(shutdown.clone()).await
    };
    tokio::pin!(run);
    let ended = tokio::select! {
        ended = &mut run => ended,
        () = asked_to_stop() => {
            shutdown.cancel();
            run.await
        }
    };
    ended.map_or_else(
        |error| {
            tracing::error!(error = &error as &dyn std::error::Error, "the server ended");
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}
