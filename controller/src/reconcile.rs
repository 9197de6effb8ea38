//! Running a controller: keys from its queue, a bounded number at once, failures tried again later.

use std::{any::Any, fmt, future::Future, hash::Hash, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::FutureExt as _;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, debug_span, warn};

use crate::work_queue::WorkQueue;

/// When a key wants to be looked at again, beside when something about it changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Only then.
    OnChange,
    /// After this time too: something becomes true by itself (a pod has been ready for long enough).
    After(Duration),
}

/// Why a reconcile did not get through. All are tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReconcileError {
    /// The API refused or did not answer.
    #[error("{step}")]
    Api {
        /// What was being done.
        step: &'static str,
        /// What came back.
        #[source]
        source: Box<kube::Error>,
    },
    /// Several things went wrong, each already told to the object (an event, a condition).
    #[error("{count} of the steps failed, the first: {first}")]
    Several {
        /// How many.
        count: usize,
        /// The first one's text.
        first: String,
    },
}

impl ReconcileError {
    /// Wraps the API's error with what was being done.
    pub(crate) fn api(step: &'static str) -> impl FnOnce(kube::Error) -> Self {
        move |source| Self::Api { step, source: Box::new(source) }
    }

    /// Whether it is only that somebody else was quicker: worth another try, not worth a warning.
    pub(crate) fn is_conflict(&self) -> bool {
        match self {
            Self::Api { source, .. } => matches!(source.as_ref(), kube::Error::Api(status) if status.code == 409),
            Self::Several { .. } => false,
        }
    }

    /// The reason in the words of whoever refused.
    pub(crate) fn reason(&self) -> String {
        match self {
            Self::Api { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => status.message.clone(),
                other => other.to_string(),
            },
            Self::Several { first, .. } => first.clone(),
        }
    }
}

/// Whether the API refused to make something because its namespace is going or gone: it will not be missed.
pub(crate) fn is_namespace_going(status: &kube::core::Status) -> bool {
    status.code == 404 || (status.code == 403 && status.message.contains("because it is being terminated"))
}

/// One control loop.
pub(crate) trait Reconcile: Send + Sync + 'static {
    /// What names a piece of its work.
    type Key: Clone + Eq + Hash + Ord + fmt::Display + Send + Sync + 'static;

    /// For logs.
    const NAME: &'static str;

    /// Looks at the object with this key, as it is now, and takes the steps that bring the cluster closer to it. Can be
    /// cut off anywhere and run again.
    fn reconcile(&self, key: &Self::Key) -> impl Future<Output = Result<Next, ReconcileError>> + Send;
}

/// A controller with the queue its informers' handlers fill.
pub(crate) struct Control<R: Reconcile> {
    pub(crate) controller: Arc<R>,
    pub(crate) queue: Arc<WorkQueue<R::Key>>,
}

impl<R: Reconcile> Control<R> {
    pub(crate) fn new(controller: R, queue: Arc<WorkQueue<R::Key>>) -> Self {
        Self { controller: Arc::new(controller), queue }
    }

    /// Its task.
    pub(crate) fn start(self) -> Start {
        Box::new(move |tasks, shutdown| {
            tasks.spawn(self.run(shutdown.clone()));
        })
    }

    /// Runs a bounded number of reconciles at once until `shutdown`, then waits for those under way.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        run(self.controller, self.queue, WORKERS, shutdown).await;
    }
}

/// Starts a controller's tasks, which run until they are told to stop.
pub(crate) type Start = Box<dyn FnOnce(&mut JoinSet<()>, &CancellationToken) + Send>;

/// Reconciles of one controller that may be under way at once: they mostly wait for the API.
const WORKERS: usize = 8;

async fn run<R: Reconcile>(
    controller: Arc<R>,
    queue: Arc<WorkQueue<R::Key>>,
    workers: usize,
    shutdown: CancellationToken,
) {
    queue.tell_as(R::NAME);
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(ended) = tasks.join_next(), if !tasks.is_empty() => report::<R>(ended),
            key = queue.next(), if tasks.len() < workers => {
                let (controller, queue) = (Arc::clone(&controller), Arc::clone(&queue));
                let span = debug_span!("reconcile", controller = R::NAME, key = %key);
                tasks.spawn(one(controller, queue, key).instrument(span));
            }
        }
    }
    while let Some(ended) = tasks.join_next().await {
        report::<R>(ended);
    }
}

async fn one<R: Reconcile>(controller: Arc<R>, queue: Arc<WorkQueue<R::Key>>, key: R::Key) {
    // A reconcile can be cut anywhere and run again (invariant 3), so one that panicked is another failure: its key goes
    // back to the queue, or nobody would look at the object any more.
    match AssertUnwindSafe(controller.reconcile(&key)).catch_unwind().await {
        Ok(Ok(next)) => {
            queue.forget(&key);
            if let Next::After(delay) = next {
                queue.add_after(key.clone(), delay);
            }
        }
        Ok(Err(error)) => {
            let conflict = error.is_conflict();
            let error: &(dyn std::error::Error + 'static) = &error;
            if conflict {
                debug!(error, "somebody else was quicker; trying again");
            } else {
                warn!(error, controller = R::NAME, key = %key, "not reconciled; trying again later");
            }
            queue.retry(key.clone());
        }
        Err(panic) => {
            tracing::error!(panic = said(&*panic), controller = R::NAME, key = %key, "a reconcile broke");
            queue.retry(key.clone());
        }
    }
    queue.done(&key);
}

/// What a panic said.
fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or_default()
}

fn report<R: Reconcile>(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        let error: &(dyn std::error::Error + 'static) = &error;
        tracing::error!(error, controller = R::NAME, "the task of a reconcile broke");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// Panics the first two times, then tells that it got through.
    struct Shaky {
        tries: AtomicU32,
        through: CancellationToken,
    }

    impl Reconcile for Shaky {
        type Key = &'static str;

        const NAME: &'static str = "shaky";

        async fn reconcile(&self, _: &&'static str) -> Result<Next, ReconcileError> {
            let tries = self.tries.fetch_add(1, Ordering::Relaxed);
            assert!(tries >= 2, "try {tries}");
            self.through.cancel();
            Ok(Next::OnChange)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_whose_reconcile_panicked_is_tried_again() {
        let (through, shutdown) = (CancellationToken::new(), CancellationToken::new());
        let queue = Arc::new(WorkQueue::new());
        let control = Control::new(Shaky { tries: AtomicU32::new(0), through: through.clone() }, Arc::clone(&queue));
        let mut tasks = JoinSet::new();
        tasks.spawn(control.run(shutdown.clone()));
        queue.add("key");
        tokio::time::timeout(Duration::from_mins(1), through.cancelled()).await.expect("the key is stuck");
        shutdown.cancel();
        tasks.join_next().await.unwrap().unwrap();
    }
}
