//! What the handles, the watchers and the driver of one store have in common.

use std::{
    sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use crate::{history::Batch, hub::Hub, queue::Queue, state::State};

/// Revisions handed out at once: some ten microseconds.
const HAND_OUT: usize = 64;

/// See the module. Locks are taken in the order hub, state; an inbox's is innermost.
#[derive(Debug)]
pub(crate) struct Shared {
    state: RwLock<State>,
    hub: Mutex<Hub>,
    /// Rung when the history has grown.
    pub(crate) grown: Notify,
    /// What waits to be written.
    pub(crate) queue: Queue,
    started: Instant,
}

impl Shared {
    pub(crate) fn new(state: State) -> Self {
        let hub = Hub::new(state.revision());
        Self {
            state: RwLock::new(state),
            hub: Mutex::new(hub),
            grown: Notify::new(),
            queue: Queue::new(),
            started: Instant::now(),
        }
    }

    /// The steady clock of this member: time since it was opened.
    pub(crate) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Tells the watchers the next few changes they have not been told; false if there are none.
    pub(crate) fn hand_out(&self) -> bool {
        let mut hub = self.hub();
        let (batches, compacted): (Vec<Batch>, _) = {
            let state = self.read();
            let history = state.history();
            (history.from(hub.cursor().next()).take(HAND_OUT).cloned().collect(), history.compacted())
        };
        if compacted > hub.cursor() {
            hub.skip_to(compacted);
            return true;
        }
        for batch in &batches {
            hub.hand_out(batch);
        }
        !batches.is_empty()
    }

    /// Closes the queue when dropped.
    pub(crate) const fn queue_guard(&self) -> CloseOnDrop<'_> {
        CloseOnDrop(&self.queue)
    }

    // A lock is poisoned only by a panic in this crate, after which the process is going down.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn hub(&self) -> MutexGuard<'_, Hub> {
        self.hub.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See [`Shared::queue_guard`].
pub(crate) struct CloseOnDrop<'a>(&'a Queue);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}
