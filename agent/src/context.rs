//! What every part of the agent holds: the handles to runtime, network, images and API server, and the table of pods.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use coracle_network::Network;
use coracle_runtime::image::ImageStore;
use coracle_runtime::{Runtime, Sandbox};
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use tokio::sync::{Notify, Semaphore, mpsc, watch};

use crate::config::Config;
use crate::devices::Devices;
use crate::event::Recorder;
use crate::eviction::{Eviction, Pressure};
use crate::figures::Figures;
use crate::image_rights::ImageRights;
use crate::objects::ObjectCache;
use crate::pod::facts::Attempt;
use crate::pod::host_files::Names;
use crate::pod::resources::Amounts;
use crate::pod::status::Host;
use crate::power::Power;

/// Services by namespace and name.
pub(crate) type Services = BTreeMap<(String, String), Service>;

/// The agent's handles, shared by all its tasks.
pub(crate) struct Context {
    /// What it was told.
    pub(crate) config: Config,
    /// The API server.
    pub(crate) client: kube::Client,
    /// Sandboxes and containers.
    pub(crate) runtime: Runtime,
    /// Pods' interfaces.
    pub(crate) network: Network,
    /// Images.
    pub(crate) images: ImageStore,
    /// Whose pods may use which of them.
    pub(crate) image_rights: Arc<ImageRights>,
    /// ConfigMaps and Secrets pods use.
    pub(crate) objects: ObjectCache,
    /// Where events are told.
    pub(crate) events: Recorder,
    /// What is counted of all this.
    pub(crate) figures: Figures,
    /// Services, for environment variables.
    pub(crate) services: RwLock<Arc<Services>>,
    /// What the node knows of names.
    pub(crate) names: Names,
    /// What of the node goes into every pod's status.
    pub(crate) host: Host,
    /// The node's memory in bytes.
    pub(crate) memory: u64,
    /// What the node has for pods, in thousandths, but for devices.
    pub(crate) allocatable: Amounts,
    /// Devices of the host, and which pods have them.
    pub(crate) devices: Devices,
    /// The node as it was registered.
    pub(crate) node: RwLock<Arc<Node>>,
    /// The pods on this node.
    pub(crate) table: PodTable,
    /// Where it is said which pods are to go.
    pub(crate) evict: mpsc::Sender<Eviction>,
    /// What the node is short of.
    pub(crate) pressure: watch::Receiver<Pressure>,
    /// Whether the machine stays.
    pub(crate) power: watch::Receiver<Power>,
    /// Images came, or may go that could not before.
    pub(crate) images_changed: Notify,
    /// Held together by those who begin something that is no pod's, and alone by who removes what belongs to nobody.
    pub(crate) beginning: tokio::sync::RwLock<()>,
    /// Room for so many images to be pulled at once.
    pub(crate) pulls: Semaphore,
}

impl Context {
    /// The node as it was registered.
    pub(crate) fn node(&self) -> Arc<Node> {
        Arc::clone(&self.node.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The services as they are now.
    pub(crate) fn services(&self) -> Arc<Services> {
        Arc::clone(&self.services.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What the node's server and admission know of one pod.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// The pod.
    pub(crate) pod: Arc<Pod>,
    /// Its sandbox, while it lives.
    pub(crate) sandbox: Option<Sandbox>,
    /// Its containers' attempts.
    pub(crate) attempts: BTreeMap<String, Vec<Attempt>>,
    /// What it takes of the node; nothing once it is over.
    pub(crate) requests: Amounts,
    /// It is over and takes no room.
    pub(crate) over: bool,
}

/// The pods on this node by uid; bounded by `max_pods` and those being refused.
#[derive(Debug, Default)]
pub(crate) struct PodTable {
    entries: Mutex<BTreeMap<String, Entry>>,
    freed: watch::Sender<()>,
    came: Notify,
}

impl PodTable {
    /// Looks at the table.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut BTreeMap<String, Entry>) -> T) -> T {
        look(&mut self.entries.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Tells that there is another pod.
    pub(crate) fn tell_came(&self) {
        self.came.notify_one();
    }

    /// Ends when another pod has come since this was waited for last.
    ///
    /// # Cancel safety
    /// Safe: one that came meanwhile is told the next time.
    pub(crate) async fn came(&self) {
        self.came.notified().await;
    }

    /// Tells that a pod takes less of the node than before.
    pub(crate) fn room_freed(&self) {
        self.freed.send_replace(());
    }

    /// Changes whenever a pod takes less of the node than before.
    pub(crate) fn freed(&self) -> watch::Receiver<()> {
        self.freed.subscribe()
    }

    /// The pod of this name; the newest if one of the same name is still going.
    pub(crate) fn find(&self, namespace: &str, name: &str) -> Option<Entry> {
        self.with(|table| {
            table
                .values()
                .filter(|e| crate::pod::namespace(&e.pod) == namespace && crate::pod::name(&e.pod) == name)
                .max_by_key(|e| e.pod.metadata.creation_timestamp.as_ref().map(|t| t.0))
                .cloned()
        })
    }
}
