//! The informers controllers share: each kind is watched once, however many controllers look at it.

use futures::future::{BoxFuture, join_all};
use k8s_openapi::api::{
    apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet},
    batch::v1::{CronJob, Job},
    core::v1::{ConfigMap, Endpoints, Namespace, ReplicationController, ResourceQuota, Service, ServiceAccount},
    discovery::v1::EndpointSlice,
    networking::v1::{IPAddress, ServiceCIDR},
    policy::v1::PodDisruptionBudget,
};
use kube::{Api, Client};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    cron_job, deployment, endpoint_slices, history,
    informer::{Informer, Watched},
    node_lifecycle, pod_index, root_ca, service_account, service_pods, token_cleaner,
    view::{AttributesClassView, ClaimView, LeaseView, NodeView, PodView, TokenView, VolumeView},
};

/// See the module. Controllers add their handlers and take readers; then everything runs.
pub(crate) struct Informers {
    pub(crate) client: Client,
    /// All pods, by managing owner and by node.
    pub(crate) pods: Informer<PodView>,
    /// All ReplicaSets, by managing owner.
    pub(crate) replica_sets: Informer<ReplicaSet>,
    pub(crate) replication_controllers: Informer<ReplicationController>,
    pub(crate) deployments: Informer<Deployment>,
    pub(crate) daemon_sets: Informer<DaemonSet>,
    pub(crate) stateful_sets: Informer<StatefulSet>,
    /// All ControllerRevisions, by managing owner.
    pub(crate) revisions: Informer<ControllerRevision>,
    pub(crate) claims: Informer<ClaimView>,
    /// All Jobs, by managing owner.
    pub(crate) jobs: Informer<Job>,
    pub(crate) cron_jobs: Informer<CronJob>,
    pub(crate) budgets: Informer<PodDisruptionBudget>,
    pub(crate) namespaces: Informer<Namespace>,
    pub(crate) resource_quotas: Informer<ResourceQuota>,
    /// The ServiceAccounts named `default`.
    pub(crate) default_accounts: Informer<ServiceAccount>,
    /// The ConfigMaps named `kube-root-ca.crt`.
    pub(crate) root_cas: Informer<ConfigMap>,
    /// All Services, by namespace.
    pub(crate) services: Informer<Service>,
    pub(crate) service_cidrs: Informer<ServiceCIDR>,
    pub(crate) ip_addresses: Informer<IPAddress>,
    pub(crate) endpoints: Informer<Endpoints>,
    /// All EndpointSlices, by the Service they are of.
    pub(crate) endpoint_slices: Informer<EndpointSlice>,
    pub(crate) nodes: Informer<NodeView>,
    /// The leases in `kube-node-lease`.
    pub(crate) leases: Informer<LeaseView>,
    pub(crate) volumes: Informer<VolumeView>,
    pub(crate) attributes_classes: Informer<AttributesClassView>,
    /// The Secrets of bootstrap tokens, in `kube-system`.
    pub(crate) tokens: Informer<TokenView>,
}

/// Is shown informers of whatever kind.
pub(crate) trait Visit {
    /// Is shown one.
    fn visit<K: Watched>(&mut self, informer: &mut Informer<K>);
}

impl Informers {
    pub(crate) fn new(client: Client) -> Self {
        let named = |name: &str| format!("metadata.name={name}");
        Self {
            client,
            pods: Informer::new(Some(pod_index::values)),
            replica_sets: Informer::new(Some(deployment::index_replica_sets)),
            replication_controllers: Informer::new(None),
            deployments: Informer::new(None),
            daemon_sets: Informer::new(None),
            stateful_sets: Informer::new(None),
            revisions: Informer::new(Some(history::index)),
            claims: Informer::new(None),
            jobs: Informer::new(Some(cron_job::index_jobs)),
            cron_jobs: Informer::new(None),
            budgets: Informer::new(None),
            namespaces: Informer::new(None),
            resource_quotas: Informer::new(None),
            default_accounts: Informer::selecting(&named(service_account::DEFAULT)),
            root_cas: Informer::selecting(&named(root_ca::NAME)),
            services: Informer::new(Some(service_pods::index_services)),
            service_cidrs: Informer::new(None),
            ip_addresses: Informer::new(None),
            endpoints: Informer::new(None),
            endpoint_slices: Informer::new(Some(endpoint_slices::index)),
            nodes: Informer::new(None),
            leases: Informer::new(None),
            volumes: Informer::new(None),
            attributes_classes: Informer::new(None),
            tokens: Informer::selecting(&format!("type={}", token_cleaner::TYPE)),
        }
    }

    /// Shows every informer that watches all there is of a kind.
    pub(crate) fn visit_whole(&mut self, visitor: &mut impl Visit) {
        visitor.visit(&mut self.pods);
        visitor.visit(&mut self.replica_sets);
        visitor.visit(&mut self.replication_controllers);
        visitor.visit(&mut self.deployments);
        visitor.visit(&mut self.daemon_sets);
        visitor.visit(&mut self.stateful_sets);
        visitor.visit(&mut self.revisions);
        visitor.visit(&mut self.claims);
        visitor.visit(&mut self.jobs);
        visitor.visit(&mut self.cron_jobs);
        visitor.visit(&mut self.budgets);
        visitor.visit(&mut self.namespaces);
        visitor.visit(&mut self.resource_quotas);
        visitor.visit(&mut self.services);
        visitor.visit(&mut self.service_cidrs);
        visitor.visit(&mut self.ip_addresses);
        visitor.visit(&mut self.endpoints);
        visitor.visit(&mut self.endpoint_slices);
        visitor.visit(&mut self.nodes);
        visitor.visit(&mut self.volumes);
        visitor.visit(&mut self.attributes_classes);
    }

    /// Watches everything until `shutdown`, in `tasks`, and waits for every first complete list: a controller that acts
    /// before it knows what there is would make everything twice.
    pub(crate) async fn start(self, tasks: &mut JoinSet<()>, shutdown: &CancellationToken) {
        let mut synced: Vec<BoxFuture<'static, ()>> = Vec::new();
        let client = || self.client.clone();
        macro_rules! start {
            ($($informer:ident in $api:expr),+ $(,)?) => {$(
                let reader = self.$informer.reader();
                synced.push(Box::pin(async move { reader.synced().await }));
                tasks.spawn(self.$informer.run($api, shutdown.clone()));
            )+};
        }
        start!(
            pods in Api::all(client()),
            replica_sets in Api::all(client()),
            replication_controllers in Api::all(client()),
            deployments in Api::all(client()),
            daemon_sets in Api::all(client()),
            stateful_sets in Api::all(client()),
            revisions in Api::all(client()),
            claims in Api::all(client()),
            jobs in Api::all(client()),
            cron_jobs in Api::all(client()),
            budgets in Api::all(client()),
            namespaces in Api::all(client()),
            resource_quotas in Api::all(client()),
            default_accounts in Api::all(client()),
            root_cas in Api::all(client()),
            services in Api::all(client()),
            service_cidrs in Api::all(client()),
            ip_addresses in Api::all(client()),
            endpoints in Api::all(client()),
            endpoint_slices in Api::all(client()),
            nodes in Api::all(client()),
            leases in Api::namespaced(client(), node_lifecycle::LEASES),
            volumes in Api::all(client()),
            attributes_classes in Api::all(client()),
            tokens in Api::namespaced(client(), token_cleaner::NAMESPACE),
        );
        tokio::select! {
            () = shutdown.cancelled() => {}
            _ = join_all(synced) => {}
        }
    }
}
