//! The machine goes down: before it does, its pods end and say so, those the cluster needs after the others (KEP-2000).
//!
//! ```text
//!   SIGPWR ─▶ the node is not Ready, no pod begins ─▶ ordinary pods end ─▶ critical ones ─▶ the agent waits to be told to end
//! ```
//!
//! Whoever takes the machine down tells by SIGPWR, as a machine's power supply does (signal(7)): a service manager's unit, a
//! UPS. A process that is only to end is told by SIGTERM, which says nothing of the machine; told so while pods end, it goes
//! when they have.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::context::{Context, Entry};
use crate::eviction::{Cause, Eviction, is_critical};
use crate::pod;

/// What the status of a pod says that ended so, in kubelet's words.
const MESSAGE: &str = "Pod was terminated in response to imminent node shutdown.";
/// Why no pod begins any more.
pub(crate) const REFUSAL: &str = "Pod was rejected as the node is shutting down.";

/// Whether the machine stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Power {
    /// It does. Left when the kernel passes on that it goes down.
    #[default]
    Up,
    /// It goes down. Never left: who took it down starts the agent anew.
    GoingDown,
}

/// When the parts of an agent end.
pub(crate) struct Ends {
    /// The agent is told to end.
    pub(crate) told: CancellationToken,
    /// Pods end or are left, whatever the agent is told to do with them.
    pub(crate) pods: CancellationToken,
    /// Everything ends.
    pub(crate) all: CancellationToken,
}

/// Waits for the machine to go down, and ends the pods then; passes on that the agent is to end, when the pods are done with.
pub(crate) async fn run(context: Arc<Context>, power: watch::Sender<Power>, mut signal: Option<Signal>, ends: Ends) {
    let fails = async {
        match &mut signal {
            Some(signal) => signal.recv().await,
            None => std::future::pending().await,
        }
    };
    let goes_down = tokio::select! {
        // Both may have been told by now, one shortly after the other.
        biased;
        Some(()) = fails => true,
        () = ends.told.cancelled() => false,
    };
    if goes_down && let Some(grace) = context.config.shutdown_grace {
        tracing::info!("the machine goes down: pods end");
        power.send_replace(Power::GoingDown);
        end(&context, false, grace.ordinary).await;
        end(&context, true, grace.critical).await;
        tracing::info!("pods have ended: the machine may go down");
        ends.told.cancelled().await;
    }
    ends.pods.cancel();
    ends.all.cancelled().await;
}

/// Ends the pods of one sort, each within `period` or its own, if that is shorter; waits until they have ended and the API
/// server knows, but not longer.
async fn end(context: &Context, critical: bool, period: Duration) {
    let mut freed = context.table.freed();
    let uids: Vec<String> = context.table.with(|table| {
        let goes = |entry: &Entry| !entry.over && is_critical(&entry.pod) == critical;
        table.iter().filter(|(_, entry)| goes(entry)).map(|(uid, _)| uid.clone()).collect()
    });
    let grace = i64::try_from(period.as_secs()).unwrap_or(i64::MAX);
    let deadline = Instant::now() + period;
    for uid in &uids {
        let eviction =
            Eviction { uid: uid.clone(), message: MESSAGE.to_owned(), cause: Cause::MachineGoesDown { grace } };
        if context.evict.send(eviction).await.is_err() {
            return;
        }
    }
    loop {
        let left = context.table.with(|table| {
            let settled =
                |uid: &&String| table.get(*uid).is_none_or(|entry| entry.over && pod::is_terminal(&entry.pod));
            uids.iter().filter(|uid| !settled(uid)).count()
        });
        if left == 0 {
            return;
        }
        tokio::select! {
            Ok(()) = freed.changed() => {}
            () = tokio::time::sleep_until(deadline) => {
                tracing::warn!(pods = left, "pods have not ended in time for the machine to go down");
                return;
            }
        }
    }
}
