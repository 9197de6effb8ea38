//! Waiting for the node's range of pod addresses, which the cluster's controllers give it.

use std::error::Error as StdError;

use coracle_network::Ipv4Net;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::runtime::{WatchStreamExt, watcher};
use tokio_util::sync::CancellationToken;

use super::{Error, register};
use crate::config::Config;
use crate::node::{self, Readiness, machine::Machine};

/// The range in the node's object.
pub(super) fn of(node: &Node) -> Result<Option<Ipv4Net>, Error> {
    node::range_of(node).map_err(|text| Error::Range { text })
}

/// Registers the node as not ready and waits until it has a range; `None` when the agent is told to end before. Its lease
/// is renewed meanwhile: the node is there, it only cannot take pods.
pub(super) async fn wait(
    config: &Config,
    client: &kube::Client,
    machine: &Machine,
    port: u16,
    shutdown: &CancellationToken,
) -> Result<Option<Ipv4Net>, Error> {
    let wanted = node::node(config, machine, port, None, Readiness::NoRange);
    let Some(registered) = register(config, client, &wanted, shutdown).await else { return Ok(None) };
    if let Some(range) = of(&registered)? {
        return Ok(Some(range));
    }
    tracing::info!(node = config.node_name, "waiting for a range of pod addresses");
    let done = shutdown.child_token();
    let uid = registered.metadata.uid;
    let lease = node::keep_lease(config, client.clone(), move || uid.clone(), done.clone());
    let watched = async {
        let range = tokio::select! {
            () = shutdown.cancelled() => Ok(None),
            range = watch(config, client, &wanted, shutdown) => range,
        };
        done.cancel();
        range
    };
    tokio::join!(watched, lease).0
}

async fn watch(
    config: &Config,
    client: &kube::Client,
    wanted: &Node,
    shutdown: &CancellationToken,
) -> Result<Option<Ipv4Net>, Error> {
    let api: Api<Node> = Api::all(client.clone());
    let mut states = Box::pin(watcher::watch_object(api, &config.node_name).default_backoff());
    loop {
        match states.next().await {
            Some(Ok(Some(node))) => {
                if let Some(range) = of(&node)? {
                    return Ok(Some(range));
                }
            }
            // Somebody deleted it.
            Some(Ok(None)) => {
                if register(config, client, wanted, shutdown).await.is_none() {
                    return Ok(None);
                }
            }
            Some(Err(error)) => {
                tracing::debug!(error = &error as &(dyn StdError + 'static), "watch of the own node failed");
            }
            None => return Ok(None),
        }
    }
}
