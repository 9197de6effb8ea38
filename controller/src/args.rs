//! The controllers' flags.

use std::{path::PathBuf, time::Duration};

use crate::{ClusterCidr, Config, Error};

/// Flags of `coracle-controller`, and of the controllers inside `coracle`.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct Args {
    /// Seconds without a heartbeat after which a node counts as gone.
    #[arg(long, env = "CORACLE_NODE_MONITOR_GRACE_PERIOD", default_value_t = 50, value_name = "SECONDS")]
    pub node_monitor_grace_period: u32,
    /// Certificates (PEM) that authenticate the API server, given to every namespace as ConfigMap kube-root-ca.crt.
    /// Without it they are read from the cluster.
    #[arg(long, env = "CORACLE_ROOT_CA_FILE", value_name = "FILE")]
    pub root_ca_file: Option<PathBuf>,
    /// Range of all pods' addresses, 8 to 24 bits: every node is given a /24 of it.
    #[arg(long, env = "CORACLE_POD_CIDR", default_value = "10.42.0.0/16", value_name = "CIDR")]
    pub pod_cidr: ClusterCidr,
}

impl Args {
    /// The configuration these flags ask for.
    ///
    /// # Errors
    /// When a file they name cannot be read.
    pub fn config(self) -> Result<Config, Error> {
        let read = |path: PathBuf| {
            std::fs::read_to_string(&path).map_err(|source| Error::RootCaFile { path: path.clone(), source })
        };
        Ok(Config {
            node_grace: Duration::from_secs(self.node_monitor_grace_period.into()),
            cluster_cidr: Some(self.pod_cidr),
            given_range: None,
            root_ca: self.root_ca_file.map(read).transpose()?,
        })
    }
}
