//! The shell around the deterministic core: the store's thread, its clock, and the hand-out of changes.

use std::{sync::Arc, thread};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::{
    command::{Answer, Command},
    error::{Error, Result},
    history::Batch,
    lease::{Deadlines, Lease},
    queue::{Request, Taken},
    shared::Shared,
};

/// Revisions handed out before other tasks get a turn.
const HAND_OUT: usize = 64;

/// Does a store's work; nothing is written and no live watch hears anything unless it runs.
#[derive(Debug)]
#[must_use = "a store writes only while its driver runs"]
pub struct Driver {
    shared: Arc<Shared>,
}

impl Driver {
    pub(crate) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Runs until `shutdown`. Everything handed over before is then written and answered, watches end with
    /// [`Error::Closed`], and the thread has ended.
    ///
    /// # Errors
    /// [`Error::Failed`] if the disk failed meanwhile.
    ///
    /// # Cancel safety
    /// Dropping the future closes the store without waiting for its thread.
    pub async fn run(self, shutdown: CancellationToken) -> Result<()> {
        let (ended, end) = oneshot::channel();
        let shared = Arc::clone(&self.shared);
        let thread = thread::Builder::new()
            .name("coracle-store".to_owned())
            .spawn(move || {
                let result = Worker { shared, deadlines: Deadlines::default() }.run();
                // The receiver is gone only if the run was dropped; nobody waits for the end then.
                drop(ended.send(result));
            })
            .map_err(Error::io("start the store's thread"))?;
        let closing = self.shared.queue_guard();
        let mut end = std::pin::pin!(end);
        let result = loop {
            tokio::select! {
                biased;
                result = &mut end => break result.unwrap_or(Err(Error::Closed)),
                () = shutdown.cancelled(), if !self.shared.queue.is_closed() => self.shared.queue.close(),
                () = self.shared.grown.notified() => self.hand_out().await,
            }
        };
        drop(closing);
        self.hand_out().await;
        self.shared.hub().close(Error::Closed);
        if thread.join().is_err() {
            return Err(Error::Closed);
        }
        result
    }

    /// Brings the hub up to the history's end.
    async fn hand_out(&self) {
        while self.hand_out_some() {
            tokio::task::yield_now().await;
        }
    }

    /// Hands out the next few revisions; false if there are none.
    fn hand_out_some(&self) -> bool {
        let mut hub = self.shared.hub();
        let (batches, compacted): (Vec<Batch>, _) = {
            let state = self.shared.read();
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
}

struct Worker {
    shared: Arc<Shared>,
    deadlines: Deadlines,
}

impl Worker {
    fn run(mut self) -> Result<()> {
        loop {
            let now = self.shared.now();
            let patience = self.deadlines.next().map(|next| next.saturating_sub(now));
            match self.shared.queue.take(patience) {
                Taken::Closed => return Ok(()),
                Taken::Requests(requests) => requests.into_iter().for_each(|request| self.serve(request)),
            }
            for id in self.deadlines.take_due(self.shared.now()) {
                self.apply(&Command::LeaseRevoke { id }).map(drop).unwrap_or_default();
            }
            self.shared.grown.notify_one();
        }
    }

    fn serve(&mut self, request: Request) {
        let now = self.shared.now();
        match request {
            Request::Propose { command, answer, room: _ } => drop(answer.send(self.apply(&command))),
            Request::KeepAlive { id, answer, room: _ } => {
                let ttl = self.deadlines.renew(id, now).ok_or(Error::LeaseNotFound { id });
                drop(answer.send(ttl.map(|ttl| Lease { id, ttl })));
            }
            Request::TimeToLive { id, answer, room: _ } => {
                drop(answer.send(self.deadlines.left(id, now).ok_or(Error::LeaseNotFound { id })));
            }
        }
    }

    fn apply(&mut self, command: &Command) -> Result<Answer> {
        let now = self.shared.now();
        let effects = self.shared.write().apply(command, now);
        if effects.outcome.is_ok() {
            match command {
                Command::LeaseGrant { id, ttl } => self.deadlines.start(*id, *ttl, now),
                Command::LeaseRevoke { id } => self.deadlines.remove(*id),
                Command::Txn(_) | Command::Compact { .. } => {}
            }
        }
        effects.outcome
    }
}
