//! The list of controllers, and what they share: one informer a kind, one queue a controller.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use kube::{Api, Client};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{
    Config, Error, deployment,
    deployment::Deployments,
    informer::{Change, Informer},
    object_key::ObjectKey,
    reconcile, replica_set,
    replica_set::ReplicaSets,
    view::PodView,
    work_queue::WorkQueue,
};

/// Reconciles of one controller that may be under way at once: they mostly wait for the API.
const WORKERS: usize = 8;

/// Runs every controller until `shutdown`, then waits for what is under way.
///
/// # Errors
/// When a task breaks; everything the API answers is dealt with inside.
pub async fn run(config: Config, client: Client, shutdown: CancellationToken) -> Result<(), Error> {
    let _ = &config;
    let mut tasks = JoinSet::new();
    let mut pods: Informer<PodView> = Informer::new(Some(replica_set::index_pods));
    let mut replica_sets: Informer<ReplicaSet> = Informer::new(Some(deployment::index_replica_sets));
    let mut deployments: Informer<Deployment> = Informer::new(None);

    let replica_set_queue: Arc<WorkQueue<ObjectKey>> = Arc::new(WorkQueue::new());
    let deployment_queue: Arc<WorkQueue<ObjectKey>> = Arc::new(WorkQueue::new());
    {
        let (queue, sets) = (Arc::clone(&replica_set_queue), replica_sets.reader());
        pods.on_change(move |change| replica_set::on_pod(&queue, &sets, change));
        let queue = Arc::clone(&replica_set_queue);
        replica_sets.on_change(move |change: &Change<'_, ReplicaSet>| queue.add(ObjectKey::of(change.object())));
        let (queue, all) = (Arc::clone(&deployment_queue), deployments.reader());
        replica_sets.on_change(move |change| deployment::on_replica_set(&queue, &all, change));
        let queue = Arc::clone(&deployment_queue);
        deployments.on_change(move |change: &Change<'_, Deployment>| queue.add(ObjectKey::of(change.object())));
    }
    let replica_set_controller = ReplicaSets::new(client.clone(), replica_sets.reader(), pods.reader());
    let deployment_controller =
        Deployments::new(client.clone(), deployments.reader(), replica_sets.reader(), pods.reader());
    let synced = [(pods.reader(), replica_sets.reader(), deployments.reader())];

    tasks.spawn(pods.run(Api::all(client.clone()), shutdown.clone()));
    tasks.spawn(replica_sets.run(Api::all(client.clone()), shutdown.clone()));
    tasks.spawn(deployments.run(Api::all(client.clone()), shutdown.clone()));
    for (pods, replica_sets, deployments) in synced {
        // A controller that acts before it knows what there is would make everything twice.
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = async { pods.synced().await; replica_sets.synced().await; deployments.synced().await } => {}
        }
    }
    info!("controllers run");
    tasks.spawn(reconcile::run(Arc::new(replica_set_controller), replica_set_queue, WORKERS, shutdown.clone()));
    tasks.spawn(reconcile::run(Arc::new(deployment_controller), deployment_queue, WORKERS, shutdown.clone()));
    while let Some(ended) = tasks.join_next().await {
        ended?;
    }
    Ok(())
}
