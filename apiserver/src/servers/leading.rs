//! What only one server of a cluster does at a time: the one whose store leads.
//!
//! Kubernetes' controllers elect one of themselves by a Lease each, which is written every two seconds. Here the store has
//! elected one already, and tells when that changes; nothing is written for it. It is as safe as a Lease: a leader that is
//! cut off hears of it within the time of an election, and whatever its controllers write meanwhile does not come to pass,
//! for there is nobody who would agree; what was decided from an old state is refused by the objects' versions.

use coracle_store::Store;
use tokio_util::sync::CancellationToken;

/// Whether this server's store leads, as far as it knows.
pub(crate) fn leads(store: &Store) -> bool {
    let cluster = store.cluster();
    let mut voters = cluster.members.iter().filter(|member| member.votes);
    let is_alone = voters.next().is_some_and(|first| first.id == cluster.own) && voters.next().is_none();
    cluster.leader == Some(cluster.own) || is_alone
}

/// Has `work` done whenever this server leads: begun when it comes to lead, told to end when it does not any more, and
/// waited for, until `shutdown`.
///
/// # Errors
/// The work's own, or its end by itself.
pub(crate) async fn while_leading<F, E>(
    store: &Store,
    shutdown: &CancellationToken,
    mut work: impl FnMut(CancellationToken) -> F,
) -> Result<(), E>
where
    F: Future<Output = Result<(), E>>,
{
    let mut changes = store.cluster_changes();
    loop {
        changes.mark_unchanged();
        if !leads(store) {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                // The store lives at least as long as this.
                _ = changes.changed() => continue,
            }
        }
        let own = shutdown.child_token();
        let running = work(own.clone());
        tokio::pin!(running);
        loop {
            tokio::select! {
                ended = &mut running => return ended,
                _ = changes.changed() => if !leads(store) {
                    break;
                }
            }
        }
        own.cancel();
        running.await?;
        if shutdown.is_cancelled() {
            return Ok(());
        }
    }
}
