//! `coracle agent`: one node of a cluster whose API server runs elsewhere.

use std::path::PathBuf;

use anyhow::Context;
use tokio_util::sync::CancellationToken;

use crate::{
    commands::{Signals, WrongUse},
    instance::Instance,
    node::{self, NodeArgs},
};

/// Flags of `agent`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The API server's URL.
    #[arg(long, env = "CORACLE_SERVER", value_name = "URL")]
    server: String,
    /// The token to join with (`coracle token create`).
    #[arg(long, env = "CORACLE_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Where everything is kept.
    #[arg(long, env = "CORACLE_DATA_DIR", default_value = "/var/lib/coracle")]
    data_dir: PathBuf,
    /// The cluster's DNS domain.
    #[arg(long, env = "CORACLE_DNS_DOMAIN", default_value = "cluster.local")]
    dns_domain: String,
    #[command(flatten)]
    node: NodeArgs,
}

/// Runs until a signal.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    node::check_rights()?;
    let signals = Signals::new()?;
    let shutdown = CancellationToken::new();
    let work = async {
        let instance = Instance::new(&args.data_dir)?;
        let mut config = args.node.config(&instance, &args.dns_domain)?;
        let Some(token) = args.token else {
            return Err(WrongUse(
                "--token: a node joins with a token; `coracle token create` on the server makes one".to_owned(),
            )
            .into());
        };
        let request = coracle_agent::JoinRequest {
            server: args.server.clone(),
            token: token.parse().map_err(|error| WrongUse(format!("--token: {error}")))?,
            node: config.node_name.clone(),
            addresses: vec![config.node_ip],
        };
        let joined = coracle_agent::join(&request).await.with_context(|| format!("joining {}", args.server))?;
        config.serving = joined.serving();
        let client = joined.client(&args.server)?;
        Ok(coracle_agent::run(config, client, shutdown.clone()).await?)
    };
    signals.guard(&shutdown, work).await
}
