//! The controllers' flags.

use std::time::Duration;

use crate::Config;

/// Flags of `coracle-controller`, and of the controllers inside `coracle`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Seconds without a heartbeat after which a node counts as gone.
    #[arg(long, env = "CORACLE_NODE_MONITOR_GRACE_PERIOD", default_value_t = 50, value_name = "SECONDS")]
    pub node_monitor_grace_period: u32,
}

impl Args {
    /// The configuration these flags ask for.
    #[must_use]
    pub fn config(self) -> Config {
        Config { node_grace: Duration::from_secs(self.node_monitor_grace_period.into()) }
    }
}
