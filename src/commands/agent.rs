//! `coracle agent`: one node of a cluster whose API server runs elsewhere.

use coracle_agent::MemberArgs;
use coracle_process::Signals;
use tokio_util::sync::CancellationToken;

/// Flags of `agent`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    member: MemberArgs,
}

/// Runs until a signal.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let signals = Signals::new()?;
    let shutdown = CancellationToken::new();
    signals.guard(&shutdown, coracle_agent::run_member(args.member, shutdown.clone())).await
}
