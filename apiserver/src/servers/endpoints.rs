//! Where the Service `kubernetes` leads to in a cluster of several servers: to those that are there, which the leader
//! writes down.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use coracle_store::{MemberId, Store};
use tokio_util::sync::CancellationToken;

use super::leading::leads;
use crate::{
    bootstrap::own_address::{self, is_reachable},
    peers::Peers,
    registry::{Registry, Writer},
};

/// After a refusal it is tried again this much later.
const RETRY: Duration = Duration::from_secs(1);

/// The servers that vote and are there, where somebody else may reach them; none as long as there never were several.
fn wanted(store: &Store, heard: &BTreeSet<MemberId>) -> Option<BTreeSet<SocketAddr>> {
    let cluster = store.cluster();
    let own = cluster.members.iter().find(|member| member.id == cluster.own)?;
    if !leads(store) || own.info.addresses.is_empty() {
        return None;
    }
    let servers = cluster.members.iter().filter(|member| member.votes && !member.info.witness);
    let there = servers.filter(|m| m.id == cluster.own || heard.contains(&m.id));
    let addresses = there.filter_map(|member| member.info.addresses.first()?.parse().ok());
    Some(addresses.filter(|address: &SocketAddr| is_reachable(&address.ip())).collect())
}

/// Keeps them as they are, until `shutdown`.
pub(crate) async fn keep(registry: &Registry, peers: &Peers, writer: &Writer, shutdown: CancellationToken) {
    let store = registry.store();
    let (mut changes, mut heard) = (store.cluster_changes(), peers.heard());
    loop {
        changes.mark_unchanged();
        let there = heard.borrow_and_update().clone();
        let mut retry = false;
        if let Some(wanted) = wanted(store, &there).filter(|wanted| !wanted.is_empty())
            && let Err(status) = own_address::publish(registry, &wanted, writer).await
        {
            // Who lost the lead in between, or met another writer, looks again.
            tracing::debug!(reason = %status.message, "the servers' addresses were not written");
            retry = true;
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            // Both live as long as the server.
            _ = changes.changed() => {}
            _ = heard.changed() => {}
            () = tokio::time::sleep(RETRY), if retry => {}
        }
    }
}
