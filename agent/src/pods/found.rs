//! Pods that an earlier agent left and no worker has taken over: what becomes of them.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use coracle_runtime::{ContainerState, Runtime, SandboxStatus};
use tokio::task::JoinSet;

use super::SHUTDOWN_GRACE;
use crate::claims;
use crate::context::Context;
use crate::volume::set::{self, PodDir};

/// Sandboxes by their pod's uid.
pub(crate) type Found = BTreeMap<String, Vec<SandboxStatus>>;

/// Sorts what the runtime found by pod.
pub(crate) fn by_pod(found: Vec<SandboxStatus>) -> Found {
    let mut pods = Found::new();
    for sandbox in found {
        pods.entry(sandbox.spec.pod_uid.clone()).or_default().push(sandbox);
    }
    pods
}

/// Stops pods as an agent that goes down stops its own: politely, all at once, and leaving their logs. Nothing of their
/// specification is known here, so their hooks do not run.
pub(crate) async fn stop(context: &Arc<Context>, found: Found) {
    let mut pods = JoinSet::new();
    for (uid, sandboxes) in found {
        let context = Arc::clone(context);
        pods.spawn(async move { stop_pod(&context, uid, sandboxes).await });
    }
    while let Some(done) = pods.join_next().await {
        if let Err(error) = done {
            tracing::error!(error = &error as &(dyn StdError + 'static), "a found pod was not stopped");
        }
    }
}

async fn stop_pod(context: &Context, uid: String, sandboxes: Vec<SandboxStatus>) {
    let mut stands = false;
    for sandbox in &sandboxes {
        stop_containers(&context.runtime, sandbox).await;
        stands |= !remove(context, sandbox).await;
    }
    if stands {
        return;
    }
    claims::release(&context.images, &context.config.mark, &uid).await;
    if let Err(error) = context.network.detach(&uid).await {
        tracing::warn!(uid, error = &error as &(dyn StdError + 'static), "pod not detached");
    }
    let dir = PodDir::new(&context.config.pods_dir(), &uid);
    match tokio::task::spawn_blocking(move || set::remove(&dir)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(uid, error = &error as &(dyn StdError + 'static), "volumes not removed"),
        Err(error) => tracing::error!(uid, error = &error as &(dyn StdError + 'static), "removal of volumes failed"),
    }
}

/// Gives all running containers of a sandbox their grace at once.
async fn stop_containers(runtime: &Runtime, sandbox: &SandboxStatus) {
    let Ok(handle) = runtime.sandbox(&sandbox.id).await else { return };
    let grace = Duration::from_secs(u64::try_from(SHUTDOWN_GRACE).unwrap_or(0));
    let running = sandbox.containers.iter().filter(|c| !matches!(c.state, ContainerState::Exited(_)));
    futures::future::join_all(running.map(|container| async {
        if let Err(error) = handle.stop(&container.id, grace).await {
            // Removing the sandbox kills what is left in it.
            tracing::debug!(error = &error as &(dyn StdError + 'static), "container not stopped");
        }
    }))
    .await;
}

/// Removes a sandbox; says whether it is gone.
pub(super) async fn remove(context: &Context, sandbox: &SandboxStatus) -> bool {
    let removed = context.runtime.remove_sandbox(&sandbox.id).await;
    if let Err(error) = &removed {
        let error = error as &(dyn StdError + 'static);
        tracing::warn!(sandbox = sandbox.id.as_str(), error, "sandbox not removed");
    }
    removed.is_ok()
}
