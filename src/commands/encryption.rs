//! `coracle encryption`: the keys that stored Secrets are sealed with.

use std::io::Write as _;

use clap::Subcommand;
use coracle_apiserver::encryption::Report;
use http::Method;

use super::reach::{self, Reach};

/// Flags of `encryption`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
    #[command(flatten)]
    reach: Reach,
}

/// What to do with the keys.
#[derive(Clone, Copy, Subcommand)]
pub(crate) enum What {
    /// Show which keys there are and how much is sealed with the newest, never the keys themselves.
    Status,
    /// Make a new key and seal everything with it.
    Rotate,
    /// Seal everything as it is configured: after a change of --encryption-provider-config.
    Rewrite,
}

/// Does what is asked.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let client = args.reach.client().await?;
    let (method, path) = match args.what {
        What::Status => (Method::GET, "/coracle/v1/encryption"),
        What::Rotate => (Method::POST, "/coracle/v1/encryption/rotate"),
        What::Rewrite => (Method::POST, "/coracle/v1/encryption/rewrite"),
    };
    let report: Report = reach::json(&client, method, path).await?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "keys       {} (the first seals) in {}", report.keys.join(", "), report.file.display())?;
    writeln!(out, "sealed     {} values", report.sealed)?;
    writeln!(out, "otherwise  {} values are not kept as configured", report.stale)?;
    if !matches!(args.what, What::Status) {
        writeln!(out, "rewritten  {} values", report.rewritten)?;
    }
    Ok(())
}
