//! The node of a server that left its cluster: it goes with it.

use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client,
    api::DeleteParams,
    config::{KubeConfigOptions, Kubeconfig},
};

use crate::{commands::down, instance::Instance};

/// How long one of the servers that stay may take for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Leaves nothing of the node running, be it told to keep its pods, and has one of the servers that stay forget it: what
/// its pods were for is then done elsewhere, and must not be done twice.
///
/// # Errors
/// When something of the node is left on the host.
pub(super) async fn node(instance: &Instance, name: &str, servers: &[String]) -> anyhow::Result<()> {
    down::clear(instance).await?;
    for server in servers {
        match tokio::time::timeout(PATIENCE, forget(instance, name, server)).await {
            Ok(Ok(())) => {
                tracing::info!(node = name, server, "the node has left the cluster too");
                return Ok(());
            }
            Ok(Err(error)) => {
                let error: &(dyn std::error::Error + 'static) = error.as_ref();
                tracing::info!(error, server, "this server does not forget the node");
            }
            Err(_) => tracing::info!(server, "this server does not answer"),
        }
    }
    tracing::warn!(node = name, "no server forgets the node, whose machine is gone: `kubectl delete node` does it");
    Ok(())
}

/// Deletes the Node with the administrator's credentials, which all servers know.
async fn forget(instance: &Instance, name: &str, server: &str) -> anyhow::Result<()> {
    let mut kubeconfig = Kubeconfig::read_from(instance.admin_kubeconfig()).context("the admin kubeconfig")?;
    for cluster in kubeconfig.clusters.iter_mut().filter_map(|named| named.cluster.as_mut()) {
        cluster.server = Some(format!("https://{server}"));
    }
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    let nodes: Api<Node> = Api::all(Client::try_from(config)?);
    match nodes.delete(name, &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        deleted => Ok(deleted.map(drop)?),
    }
}
