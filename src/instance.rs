//! What tells instances on one host apart: the data directory, and what lies where in it.

use std::path::{Path, PathBuf};

use anyhow::Context;
use coracle_agent::Place;

/// One instance on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Instance {
    place: Place,
}

impl Instance {
    /// The instance with this data directory, which need not exist yet.
    pub(crate) fn new(data_dir: &Path) -> anyhow::Result<Self> {
        let place = Place::new(data_dir).with_context(|| format!("--data-dir {}", data_dir.display()))?;
        Ok(Self { place })
    }

    /// What of it is the node's.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// Where everything is kept.
    pub(crate) fn data_dir(&self) -> &Path {
        self.place.data_dir()
    }

    /// Where the store is.
    pub(crate) fn store_dir(&self) -> PathBuf {
        self.data_dir().join("store")
    }

    /// The administrator's kubeconfig.
    pub(crate) fn admin_kubeconfig(&self) -> PathBuf {
        self.data_dir().join("admin.kubeconfig")
    }

    /// The URL of the API server, if there ever was one.
    pub(crate) fn server(&self) -> Option<String> {
        let kubeconfig = kube::config::Kubeconfig::read_from(self.admin_kubeconfig()).ok()?;
        kubeconfig.clusters.first()?.cluster.as_ref()?.server.clone()
    }

    /// Where its node's images are.
    pub(crate) fn images_dir(&self) -> PathBuf {
        coracle_agent::images_of(&self.place.agent_dir())
    }
}
