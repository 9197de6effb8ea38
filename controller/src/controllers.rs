//! The list of controllers.

use std::time::Duration;

use k8s_openapi::api::{apps::v1::ReplicaSet, core::v1::ReplicationController};
use kube::Client;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{
    Config, Error,
    cron_job::CronJobs,
    daemon_set::DaemonSets,
    deployment::Deployments,
    disruption::Disruption,
    endpoint_slice_mirroring::EndpointSliceMirroring,
    endpoint_slices::EndpointSlices,
    endpoints::Endpoints,
    garbage_collector::GarbageCollector,
    informers::Informers,
    job::Jobs,
    namespace::Namespaces,
    node_ipam::NodeIpam,
    node_lifecycle::NodeLifecycle,
    pod_gc::PodGc,
    reconcile::{Control, Reconcile, Start},
    replica_set::Replicas,
    resource_quota::ResourceQuotas,
    root_ca::RootCa,
    service_account::ServiceAccounts,
    service_cidr::ServiceCidrs,
    stateful_set::StatefulSets,
    storage_protection::StorageProtection,
    taint_eviction::TaintEviction,
    token_cleaner::TokenCleaner,
};

/// Controllers that are ready to run, each until it is told to stop.
#[derive(Default)]
struct Controllers {
    all: Vec<Start>,
}

impl Controllers {
    fn add<R: Reconcile>(&mut self, control: Control<R>) {
        self.all.push(control.start());
    }
}

/// How long what is under way may take to get through when the controllers are told to end. Without a majority of the
/// servers each of its requests goes unanswered for a minute.
const LAST_STEPS: Duration = Duration::from_secs(3);

/// Runs every controller until `shutdown`, then waits a little for what is under way.
///
/// # Errors
/// When a task breaks; everything the API answers is dealt with inside.
pub async fn run(config: Config, client: Client, shutdown: CancellationToken) -> Result<(), Error> {
    let mut informers = Informers::new(client);
    let mut controllers = Controllers::default();

    // As many pods as each ReplicaSet asks for. Watches ReplicaSets and pods.
    controllers.add(Replicas::<ReplicaSet>::over(&mut informers));
    // The same for each ReplicationController. Watches ReplicationControllers and pods.
    controllers.add(Replicas::<ReplicationController>::over(&mut informers));
    // A ReplicaSet for each template of a Deployment, rolled over. Watches Deployments, ReplicaSets, and ends of pods.
    controllers.add(Deployments::over(&mut informers));
    // A pod on every node that is one for it, of the newest template. Watches DaemonSets, nodes, pods and revisions.
    controllers.add(DaemonSets::over(&mut informers));
    // Pods with names and volumes of their own. Watches StatefulSets, pods, claims and revisions.
    controllers.add(StatefulSets::over(&mut informers));
    // Pods until enough have succeeded, and the end of Jobs whose time is over. Watches Jobs and pods.
    controllers.add(Jobs::over(&mut informers));
    // A Job at each time of a schedule. Watches CronJobs and Jobs.
    controllers.add(CronJobs::over(&mut informers));
    // How many pods may be evicted. Watches PodDisruptionBudgets and pods, and looks at what owns these.
    controllers.add(Disruption::over(&mut informers));
    // The addresses behind Services, all in one object each. Watches Services, pods, and what it writes.
    controllers.add(Endpoints::over(&mut informers));
    // The same in slices. Watches Services, pods, nodes (for their zones), and what it writes.
    controllers.add(EndpointSlices::over(&mut informers));
    // What others write as Endpoints, in slices. Watches Services, Endpoints, and what it writes.
    controllers.add(EndpointSliceMirroring::over(&mut informers));
    // Keeps ranges of Services' addresses while they are used. Watches ServiceCIDRs and IPAddresses.
    controllers.add(ServiceCidrs::over(&mut informers));
    // Empties namespaces that are being deleted. Watches namespaces, and hears of every loss from the collector below.
    let namespaces = Namespaces::over(&mut informers);
    let on_gone = Namespaces::on_loss(&namespaces);
    controllers.add(namespaces);
    // Counts what is used of quotas. Watches them and ends of pods, and hears of every loss from the collector below.
    let quotas = ResourceQuotas::over(&mut informers);
    let on_returned = ResourceQuotas::on_loss(&quotas);
    controllers.add(quotas);
    // Deletes what deleted objects leave behind. Watches every kind, most by themselves for their metadata alone.
    controllers.all.push(GarbageCollector::over(&mut informers, vec![Box::new(on_gone), Box::new(on_returned)]));
    // Brings `default` ServiceAccounts back. Watches namespaces and those ServiceAccounts.
    controllers.add(ServiceAccounts::over(&mut informers));
    // Gives every namespace the cluster's certificates. Watches namespaces and those ConfigMaps.
    controllers.add(RootCa::over(&mut informers, config.root_ca));

    // Marks and taints nodes that fall silent. Watches nodes, their leases, and the pods on them.
    controllers.add(NodeLifecycle::over(&mut informers, config.node_grace));
    // Deletes pods that do not tolerate their node's taints. Watches nodes and pods.
    controllers.add(TaintEviction::over(&mut informers));
    if let Some(cidr) = config.cluster_cidr {
        // Gives each node a range of pod addresses. Watches nodes.
        controllers.add(NodeIpam::over(&mut informers, cidr, config.given_range));
    }
    // Deletes pods that nobody else will. Watches pods and nodes.
    controllers.add(PodGc::over(&mut informers));
    // Keeps what holds data while it is used. Watches claims, volumes, classes of their attributes, and pods.
    controllers.add(StorageProtection::over(&mut informers));
    // Deletes expired bootstrap tokens. Watches those Secrets.
    controllers.add(TokenCleaner::over(&mut informers));

    let mut tasks = JoinSet::new();
    informers.start(&mut tasks, &shutdown).await;
    for start in controllers.all {
        start(&mut tasks, &shutdown);
    }
    info!("controllers run");
    let ended = async {
        while let Some(ended) = tasks.join_next().await {
            ended?;
        }
        Ok(())
    };
    let too_late = async {
        shutdown.cancelled().await;
        tokio::time::sleep(LAST_STEPS).await;
    };
    let in_time = tokio::select! {
        ended = ended => Some(ended),
        () = too_late => None,
    };
    if let Some(ended) = in_time {
        return ended;
    }
    // Each can be cut anywhere (invariant 3), and whoever leads next goes on with it.
    info!("controllers are cut off: the API did not answer in time");
    tasks.shutdown().await;
    Ok(())
}

#[cfg(test)]
mod tests;
