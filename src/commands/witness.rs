//! `coracle witness`: a member of the store that votes, and keeps nothing of what is stored.

use std::io::Write;

use anyhow::Context;
use coracle_apiserver::{
    config::{Config, Whereabouts},
    witness::Witness,
};
use coracle_process::Signals;
use tokio_util::sync::CancellationToken;

use super::server::join;

/// Flags of `witness`.
#[derive(clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    #[command(flatten)]
    whereabouts: Whereabouts,
    /// A server of the cluster to join, as in https://192.0.2.1:6443; without effect once this witness has joined.
    #[arg(long, env = "CORACLE_JOIN", value_name = "URL")]
    join: Option<String>,
    /// The token to join with (`coracle token create --witness`); needed only to join.
    #[arg(long, env = "CORACLE_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

/// Runs until a signal, or until it is removed from the cluster.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let signals = Signals::new()?;
    let shutdown = CancellationToken::new();
    signals.guard(&shutdown, serve(args, shutdown.clone())).await
}

async fn serve(args: Args, shutdown: CancellationToken) -> anyhow::Result<()> {
    let join = join(args.join, args.token.as_deref(), "--witness")?;
    let hostname = nix::unistd::gethostname().context("the host's name")?.to_string_lossy().to_lowercase();
    let config = Config { hostname, join, ..args.whereabouts.config() };
    let witness = Witness::open(config).await?;
    writeln!(std::io::stdout(), "coracle is a witness now, on {}", witness.address())?;
    Ok(witness.run(shutdown).await?)
}
