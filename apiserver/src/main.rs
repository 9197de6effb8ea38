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
        _ = tokio::signal::ctrl_c() => {
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
