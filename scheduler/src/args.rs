//! The scheduler's flags.

use crate::Config;

/// Flags of `coracle-scheduler`, and of the scheduler inside `coracle`.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct Args {
    /// Which pods to schedule: those whose spec.schedulerName is this.
    #[arg(long, env = "CORACLE_SCHEDULER_NAME", default_value = "default-scheduler")]
    pub scheduler_name: String,
}

impl Args {
    /// The configuration these flags ask for.
    #[must_use]
    pub fn config(self) -> Config {
        Config { name: self.scheduler_name }
    }
}
