//! Following the changes of a range.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;

use crate::{
    entry::Event,
    error::{Error, Result},
    history::Batch,
    hub::{Found, Inbox},
    range::{contains, prefix_end},
    revision::Revision,
    seal::{self, Seal},
    shared::Shared,
};

/// Revisions looked at in one go while catching up: some ten microseconds under the read lock.
const CATCH_UP: usize = 256;

/// Asks for the changes of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchRequest {
    /// As [`crate::Range::start`].
    pub start: Bytes,
    /// As [`crate::Range::end`].
    pub end: Option<Bytes>,
    /// The first revision wanted: one more than that of the read it follows. 0: from now on.
    pub from: Revision,
    /// What may wait for the watcher to read it before it is dropped as too slow.
    pub buffer: Buffer,
}

/// How much may wait for a watcher. One transaction alone always does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// Events.
    pub events: usize,
    /// Bytes of their keys and values. They may well be in the history too, but that forgets them when it likes.
    pub bytes: usize,
}

impl Default for Buffer {
    fn default() -> Self {
        Self { events: 1000, bytes: 8 << 20 }
    }
}

impl WatchRequest {
    /// Every key that begins with `prefix`, with the usual room for what waits.
    pub fn prefix(prefix: impl Into<Bytes>, from: Revision) -> Self {
        let start = prefix.into();
        let end = prefix_end(&start);
        Self { start, end: Some(end), from, buffer: Buffer::default() }
    }
}

/// The changes of a range, in order, each exactly once, none left out.
#[derive(Debug)]
pub struct Watcher {
    shared: Arc<Shared>,
    seal: Option<Arc<dyn Seal>>,
    start: Bytes,
    end: Option<Bytes>,
    backlog: VecDeque<Batch>,
    inbox: Arc<Inbox>,
    buffer: Buffer,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// Reads the history itself, from this revision on. Left for `Live` when it has come up to the hub.
    CatchingUp { next: Revision },
    /// The hub fills the inbox. Left for `Ended` when the hub closes it.
    Live,
    /// Has told why it ended, and says nothing more.
    Ended { progress: Revision },
}

impl Watcher {
    pub(crate) fn new(shared: Arc<Shared>, request: WatchRequest) -> Result<Self> {
        let (revision, compacted) = {
            let state = shared.read();
            (state.revision(), state.history().compacted())
        };
        let next = if request.from == Revision::NONE { revision.next() } else { request.from };
        if next <= compacted {
            return Err(Error::Compacted { compacted });
        }
        let mut watcher = Self {
            shared,
            seal: None,
            start: request.start,
            end: request.end,
            backlog: VecDeque::new(),
            inbox: Arc::new(Inbox::new(next, request.buffer)),
            buffer: request.buffer,
            phase: Phase::CatchingUp { next },
        };
        // A watch from the present is live at once, so that it holds no history back from being forgotten.
        if next > revision {
            watcher.go_live(next);
        }
        Ok(watcher)
    }

    /// The same for who reads through a seal.
    pub(crate) fn sealed_by(self, seal: Option<Arc<dyn Seal>>) -> Self {
        // Not a new value made of the old one's parts: there is something to be done when a watcher is dropped.
        let mut watcher = self;
        watcher.seal = seal;
        watcher
    }

    /// The next changes within the range. An error is the last item: the watcher was too slow, or the history it had yet
    /// to read was forgotten, or the store closed; the watch must then begin anew.
    ///
    /// # Cancel safety
    /// Safe: what was not returned is returned by the next call.
    pub async fn next(&mut self) -> Option<Result<Batch>> {
        let batch = match self.kept().await? {
            Ok(batch) => batch,
            Err(error) => return Some(Err(error)),
        };
        let Some(seal) = &self.seal else { return Some(Ok(batch)) };
        let before = batch.revision.previous();
        let opened = seal::batch(&**seal, batch);
        if opened.is_err() {
            self.end(before);
        }
        Some(opened)
    }

    /// Ends the watch early: everything up to `progress` was told.
    fn end(&mut self, progress: Revision) {
        if matches!(self.phase, Phase::Live) {
            self.shared.hub().unregister(&self.start, self.end.as_ref(), &self.inbox);
        }
        self.backlog.clear();
        self.phase = Phase::Ended { progress };
    }

    /// The next changes as they are kept.
    async fn kept(&mut self) -> Option<Result<Batch>> {
        loop {
            if let Some(batch) = self.backlog.pop_front() {
                return Some(Ok(batch));
            }
            match &mut self.phase {
                Phase::CatchingUp { next } => {
                    let next = *next;
                    if let Err(error) = self.catch_up(next) {
                        self.phase = Phase::Ended { progress: next.previous() };
                        return Some(Err(error));
                    }
                    if self.backlog.is_empty() && matches!(self.phase, Phase::CatchingUp { .. }) {
                        tokio::task::yield_now().await;
                    }
                }
                Phase::Live => match self.inbox.pop() {
                    Found::Batch(batch) => return Some(Ok(batch)),
                    Found::Nothing => self.inbox.arrived.notified().await,
                    Found::Closed(error) => {
                        let progress = self.progress();
                        self.phase = Phase::Ended { progress };
                        return Some(Err(error));
                    }
                },
                Phase::Ended { .. } => return None,
            }
        }
    }

    /// Every change up to this revision has been returned: what a bookmark may say.
    #[must_use]
    pub fn progress(&self) -> Revision {
        if let Some(batch) = self.backlog.front() {
            return batch.revision.previous();
        }
        match &self.phase {
            Phase::CatchingUp { next } => next.previous(),
            Phase::Live => self.shared.hub().progress(&self.inbox),
            Phase::Ended { progress } => *progress,
        }
    }

    fn catch_up(&mut self, mut next: Revision) -> Result<()> {
        let mut looked = 0;
        {
            let state = self.shared.read();
            let compacted = state.history().compacted();
            if next <= compacted {
                return Err(Error::Compacted { compacted });
            }
            for batch in state.history().from(next).take(CATCH_UP) {
                looked += 1;
                next = batch.revision.next();
                self.backlog.extend(self.part(batch));
            }
        }
        self.phase = Phase::CatchingUp { next };
        if looked < CATCH_UP {
            self.go_live(next);
        }
        Ok(())
    }

    /// Registers with the hub if the hub has not handed out `next` yet; otherwise there is more to catch up with.
    fn go_live(&mut self, next: Revision) {
        let mut hub = self.shared.hub();
        if hub.cursor() < next {
            self.inbox = Arc::new(Inbox::new(next, self.buffer));
            hub.register(&self.start, self.end.as_ref(), &self.inbox);
            self.phase = Phase::Live;
        }
    }

    fn part(&self, batch: &Batch) -> Option<Batch> {
        let within = |event: &&Arc<Event>| contains(&self.start, self.end.as_deref(), &event.entry.key);
        let count = batch.events.iter().filter(within).count();
        match count {
            0 => None,
            all if all == batch.events.len() => Some(batch.clone()),
            _ => Some(Batch {
                revision: batch.revision,
                events: batch.events.iter().filter(within).map(Arc::clone).collect(),
            }),
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if matches!(self.phase, Phase::Live) {
            self.shared.hub().unregister(&self.start, self.end.as_ref(), &self.inbox);
        }
    }
}
