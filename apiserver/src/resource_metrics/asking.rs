//! Asking nodes what they use: each when somebody wants to know, all at the same time, and none for longer than a client
//! waits.
//!
//! ```text
//!   nothing known ──look──► base ──a second──look──► figures, for all who ask within a second
//!                            ▲                          │
//!                            └── the newer look ◄───────┘  once the base is 15 s old; 30 s after the last use all is forgotten
//! ```
//!
//! So a first answer takes a second, and those after it none and tell of the last seconds: whoever asks again and again
//! sees windows of up to [`RENEWED`]. One at a time asks a node; the others take what he is told.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures::future::{BoxFuture, join_all};
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};

use super::{
    rate::{self, Figures, LONGEST, Look, SHORTEST},
    summary,
};
use crate::upstream::connect::Tasks;

/// How long a client waits at most, whatever nodes do: as long as metrics-server waits for them.
const DEADLINE: Duration = Duration::from_secs(10);

/// How long a node may take to answer: one that is well does within milliseconds, and there are to be two of them.
const PATIENCE: Duration = Duration::from_secs(3);

/// Nodes that are asked at once; each costs a socket, a handshake and up to 4 MiB.
const PLACES: usize = 64;

/// Figures are told again for so long.
const FRESH: Duration = Duration::from_secs(1);

/// A base that is older is exchanged for the newer look.
const RENEWED: Duration = Duration::from_secs(15);

/// Who has the summaries: the nodes' servers.
pub(super) trait Source: Send + Sync + 'static {
    /// The node's summary as it sends it.
    ///
    /// # Errors
    /// Why there is none.
    fn summary<'a>(&'a self, node: &'a str) -> BoxFuture<'a, Result<Bytes, String>>;
}

/// What is known of a node.
#[derive(Default)]
struct Known {
    /// What the next look is compared with.
    base: Option<Look>,
    /// What came of the last two looks, and when; none if nothing did.
    told: Option<(Instant, Option<Arc<Figures>>)>,
}

impl Known {
    /// Whether it is of no use any more.
    fn is_old(&self) -> bool {
        let told = self.told.as_ref().map(|(at, _)| *at);
        let times = self.base.iter().map(|base| base.answered).chain(told);
        times.max().is_none_or(|at| at.elapsed() >= LONGEST)
    }
}

/// The nodes that were asked lately. Who asks a node holds its lock.
#[derive(Default)]
struct Table {
    nodes: BTreeMap<String, Arc<tokio::sync::Mutex<Known>>>,
    /// Whether a task is about to throw out what is old.
    is_swept: bool,
}

/// See the module.
pub(super) struct Asking<S> {
    source: S,
    places: Semaphore,
    table: Mutex<Table>,
    tasks: Tasks,
}

impl<S: Source> Asking<S> {
    pub(super) fn new(source: S) -> Arc<Self> {
        let (places, table) = (Semaphore::new(PLACES), Mutex::default());
        Arc::new(Self { source, places, table, tasks: Tasks::new() })
    }

    /// Forgets everything.
    pub(super) async fn stop(&self) {
        self.tasks.stop().await;
    }

    /// What nodes and their pods use; nothing of those that do not answer, or not in time.
    ///
    /// # Cancel safety
    /// Safe: what was learned is kept.
    pub(super) async fn figures(self: &Arc<Self>, nodes: BTreeSet<String>) -> BTreeMap<String, Arc<Figures>> {
        let deadline = Instant::now() + DEADLINE;
        let ask = |node: String| async move {
            let told = timeout_at(deadline, self.of(&node)).await.ok().flatten();
            told.map(|figures| (node, figures))
        };
        join_all(nodes.into_iter().map(ask)).await.into_iter().flatten().collect()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing panics while it is held.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn of(self: &Arc<Self>, node: &str) -> Option<Arc<Figures>> {
        let known = self.known(node);
        let mut known = known.lock().await;
        if let Some((at, told)) = &known.told
            && at.elapsed() < FRESH
        {
            return told.clone();
        }
        let told = self.compared(node, &mut known).await;
        let told = told.inspect_err(|why| tracing::debug!(node, why, "no figures of a node")).ok();
        known.told = Some((Instant::now(), told.clone()));
        told
    }

    /// Has two looks at a node that are at least [`SHORTEST`] apart and at most [`LONGEST`]; the first one may be there.
    async fn compared(&self, node: &str, known: &mut Known) -> Result<Arc<Figures>, String> {
        // A node whose clock was set between two looks gets another chance.
        for _ in 0..2 {
            let base = match known.base.take().filter(|base| base.answered.elapsed() <= LONGEST - PATIENCE) {
                Some(base) => base,
                None => self.look(node).await?,
            };
            let base = known.base.insert(base);
            sleep_until(base.answered + SHORTEST).await;
            let last = self.look(node).await?;
            match rate::between(base, &last) {
                Some(figures) => {
                    if last.answered.saturating_duration_since(base.answered) >= RENEWED {
                        *base = last;
                    }
                    return Ok(Arc::new(figures));
                }
                None => *base = last,
            }
        }
        Err("the node's clock does not go with this server's".to_owned())
    }

    async fn look(&self, node: &str) -> Result<Look, String> {
        let _place = self.places.acquire().await.map_err(|error| error.to_string())?;
        let asked = Instant::now();
        let bytes = timeout(PATIENCE, self.source.summary(node)).await;
        let bytes = bytes.map_err(|_| format!("no answer within {PATIENCE:?}"))??;
        let answered = Instant::now();
        let summary = summary::read(&bytes).map_err(|error| format!("its answer is no summary: {error}"))?;
        Ok(Look { asked, answered, summary })
    }

    /// What is known of a node; it will be forgotten in time.
    fn known(self: &Arc<Self>, node: &str) -> Arc<tokio::sync::Mutex<Known>> {
        let mut table = self.table();
        if !std::mem::replace(&mut table.is_swept, true) {
            let asking = Arc::clone(self);
            self.tasks.spawn(async move {
                loop {
                    sleep(LONGEST).await;
                    if asking.sweep() {
                        break;
                    }
                }
            });
        }
        Arc::clone(table.nodes.entry(node.to_owned()).or_default())
    }

    /// Throws out what is of no use any more; whether nothing is left.
    fn sweep(&self) -> bool {
        let mut table = self.table();
        table.nodes.retain(|_, known| {
            let is_old = known.try_lock().is_ok_and(|known| known.is_old());
            // Who is about to ask has it in hand.
            !is_old || Arc::strong_count(known) > 1
        });
        table.is_swept = !table.nodes.is_empty();
        !table.is_swept
    }
}

#[cfg(test)]
mod tests;
