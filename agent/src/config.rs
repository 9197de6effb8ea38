//! What an agent is told.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use coracle_network::Ipv4Net;
use coracle_runtime::image::Registries;
use k8s_openapi::api::core::v1::Taint;
use tokio::sync::watch;

use crate::devices::class::DeviceClass;
use crate::eviction::threshold::Thresholds;

/// Everything the node agent needs to know; nothing is read from the environment.
#[derive(Clone, Debug)]
pub struct Config {
    /// The node's name in the cluster; a lower-case DNS name.
    pub node_name: String,
    /// Directory of what outlives a boot: pods' volumes, logs, writable layers.
    pub data_dir: PathBuf,
    /// Directory of the image store, which other nodes of this host may share.
    pub images_dir: PathBuf,
    /// Directory of sockets and records, on tmpfs if possible.
    pub run_dir: PathBuf,
    /// Directory of the manifests of static pods; there are none without one.
    pub manifest_dir: Option<PathBuf>,
    /// Where the node's HTTPS server listens; port 0 takes any free one.
    pub listen: SocketAddr,
    /// The unix socket the Container Runtime Interface is served on; it is not without one.
    pub cri_listen: Option<PathBuf>,
    /// The address other nodes and the API server reach this node at.
    pub node_ip: IpAddr,
    /// Labels besides the standard ones.
    pub labels: BTreeMap<String, String>,
    /// Taints the node registers with.
    pub taints: Vec<Taint>,
    /// The range this node's pods get addresses from; without it the one the cluster gives the node (`spec.podCIDR`).
    pub pod_cidr: Option<Ipv4Net>,
    /// The range all pods of the cluster live in.
    pub cluster_cidr: Ipv4Net,
    /// Addresses of the cluster's DNS; without one, pods use the host's resolver.
    pub cluster_dns: Vec<IpAddr>,
    /// `cluster.local`.
    pub cluster_domain: String,
    /// Certificates of the node's HTTPS server; new ones are taken over when they come.
    pub serving: watch::Receiver<Serving>,
    /// Mirrors, plain-HTTP hosts and credentials of image registries.
    pub registries: Registries,
    /// Leave pods running when the agent ends.
    pub keep_pods: bool,
    /// The program that is started as a pod's supervisor; `/proc/self/exe` for the running one.
    pub supervisor: PathBuf,
    /// Its first arguments; what its `main` sees before it calls [`coracle_runtime::supervise`].
    pub supervisor_args: Vec<OsString>,
    /// The cgroup below which pods' cgroups are made, relative to each hierarchy's root.
    pub cgroup_root: PathBuf,
    /// The cluster's mark on everything left on the host: one to five of `a-z0-9`.
    pub mark: String,
    /// How many pods may be here at once.
    pub max_pods: usize,
    /// How many processes and threads one pod may have, so that no pod takes all there are; no limit when `None`.
    pub pod_pids_limit: Option<u32>,
    /// Kernel parameters pods may set besides the safe ones: names with dots, or beginnings that end in `.*`.
    pub allowed_unsafe_sysctls: Vec<String>,
    /// How many images may be pulled at once. A small disk and a home's line do not get faster with more than a few.
    pub pulls: usize,
    /// What of the machine is not for pods, in thousandths: `cpu`, `memory`, `ephemeral-storage`.
    pub reserved: BTreeMap<String, i128>,
    /// Devices of the host that pods may ask for by name.
    pub devices: Vec<DeviceClass>,
    /// How long pods get when the machine goes down; it is not listened for without.
    pub shutdown_grace: Option<ShutdownGrace>,
    /// When images that nobody uses go.
    pub image_limits: ImageLimits,
    /// When the node is short of something; then it takes no more pods and sends some away.
    pub thresholds: Thresholds,
    /// How often the node's lease is renewed; it lasts twice as long. See [`LEASE_RENEWAL`].
    pub lease_renewal: Duration,
    /// Largest packet on pods' interfaces, in bytes; that of the default route's interface when `None`.
    pub mtu: Option<u32>,
}

/// How long pods get when the machine goes down: one sort after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShutdownGrace {
    /// Ordinary ones.
    pub ordinary: Duration,
    /// Those of a critical priority, which the others may need to end well.
    pub critical: Duration,
}

/// How full the disk of images may get, and which of them go then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageLimits {
    /// From so many hundredths on images go; at 100 none do.
    pub high: u64,
    /// Until it is so many.
    pub low: u64,
    /// How long an image is here before it goes: what was just pulled is about to be used.
    pub age: Duration,
}

impl ImageLimits {
    /// Kubelet's.
    pub const USUAL: Self = Self { high: 85, low: 80, age: Duration::from_secs(120) };
}

/// How often a node's lease is renewed unless a caller knows better. The lease lasts 40 s, as with Kubernetes. The kubelet
/// renews it every 10 s; here a renewal that fails is tried again after 2 s and not only with the next one, so that half
/// the writes tell as reliably that the node lives. They are what an idle cluster writes to its disk.
pub const LEASE_RENEWAL: Duration = Duration::from_secs(20);

/// Certificates of the node's HTTPS server, in PEM.
#[derive(Clone)]
pub struct Serving {
    /// The server's certificate, and those between it and the authority.
    pub certificate: String,
    /// Its private key.
    pub key: String,
    /// The authority that signs the API server's client certificate.
    pub client_ca: String,
}

impl Serving {
    /// No certificates yet; nothing can be served with them.
    #[must_use]
    pub const fn none() -> Self {
        Self { certificate: String::new(), key: String::new(), client_ca: String::new() }
    }
}

impl std::fmt::Debug for Serving {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Serving").finish_non_exhaustive()
    }
}

impl Config {
    /// Where pods' volumes and files are.
    pub(crate) fn pods_dir(&self) -> PathBuf {
        self.data_dir.join("pods")
    }

    /// Where pods' logs are: `<namespace>_<name>_<uid>/<container>/<attempt>.log` below it.
    pub(crate) fn logs_dir(&self) -> PathBuf {
        self.data_dir.join("logs")
    }

    /// Where `Localhost` seccomp profiles are.
    pub(crate) fn seccomp_dir(&self) -> PathBuf {
        self.data_dir.join("seccomp")
    }
}
