//! Hands every change to the watchers whose range it is in.
//!
//! The hub follows the history at its own pace, so a write never waits for a watcher. Watchers of the same range share
//! one group, so a change costs one look-up a range, and one push a watcher; a watcher whose buffer is full is dropped
//! with the reason and costs nobody else anything.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::{
    entry::{Entry, Event},
    error::Error,
    history::Batch,
    range::{contains, prefix_end},
    revision::Revision,
    watch::Buffer,
};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    /// Everything up to here has been handed out.
    cursor: Revision,
    /// Watchers of one key.
    keys: BTreeMap<Bytes, Group>,
    /// Watchers of all keys with a prefix, by the prefix's length, so that a key finds them by cutting it there.
    prefixes: BTreeMap<usize, BTreeMap<Bytes, Group>>,
    /// Watchers of other ranges: rare, and tried one by one.
    ranges: Vec<(Bytes, Bytes, Group)>,
    /// Set when there will be no more changes.
    closed: Option<Error>,
}

#[derive(Debug, Default)]
struct Group {
    inboxes: Vec<Arc<Inbox>>,
    pending: Vec<Arc<Event>>,
}

/// What waits for one watcher.
#[derive(Debug)]
pub(crate) struct Inbox {
    waiting: Mutex<Waiting>,
    /// Rung when something arrives in an empty inbox, and when it closes.
    pub(crate) arrived: Notify,
    buffer: Buffer,
}

#[derive(Debug)]
struct Waiting {
    batches: VecDeque<Batch>,
    events: usize,
    bytes: usize,
    next: Revision,
    closed: Option<Error>,
}

/// What a batch keeps in memory: the versions it tells of, and those before.
fn bytes(batch: &Batch) -> usize {
    let size = |entry: &Arc<Entry>| entry.key.len() + entry.value.len();
    batch.events.iter().map(|event| size(&event.entry) + event.previous.as_ref().map_or(0, size)).sum()
}

/// What a look into an inbox found.
#[derive(Debug)]
pub(crate) enum Found {
    Batch(Batch),
    Nothing,
    Closed(Error),
}

impl Inbox {
    /// For changes from `next` on, at most as many as there is room for.
    pub(crate) fn new(next: Revision, buffer: Buffer) -> Self {
        let waiting = Waiting { batches: VecDeque::new(), events: 0, bytes: 0, next, closed: None };
        Self { waiting: Mutex::new(waiting), arrived: Notify::new(), buffer }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the oldest batch.
    pub(crate) fn pop(&self) -> Found {
        let mut waiting = self.lock();
        if let Some(batch) = waiting.batches.pop_front() {
            waiting.events -= batch.events.len();
            waiting.bytes -= bytes(&batch);
            waiting.next = batch.revision.next();
            return Found::Batch(batch);
        }
        waiting.closed.clone().map_or(Found::Nothing, Found::Closed)
    }

    /// Adds a batch; false if the inbox is closed or has just been for being full.
    fn push(&self, batch: Batch) -> bool {
        let mut waiting = self.lock();
        if waiting.closed.is_some() {
            return false;
        }
        if batch.revision < waiting.next {
            return true;
        }
        let was_empty = waiting.batches.is_empty();
        // One transaction larger than the whole buffer still goes to a watcher that has read everything else.
        let (events, bytes) = (waiting.events + batch.events.len(), waiting.bytes + bytes(&batch));
        if !was_empty && (events > self.buffer.events || bytes > self.buffer.bytes) {
            // What it will not read is let go at once: that is what the bound is for.
            waiting.batches.clear();
            (waiting.events, waiting.bytes) = (0, 0);
            waiting.closed = Some(Error::SlowWatcher { events: self.buffer.events, bytes: self.buffer.bytes });
            drop(waiting);
            tracing::info!(events, bytes, "a watcher was too slow and has been dropped");
            self.arrived.notify_one();
            return false;
        }
        (waiting.events, waiting.bytes) = (events, bytes);
        waiting.batches.push_back(batch);
        drop(waiting);
        if was_empty {
            self.arrived.notify_one();
        }
        true
    }

    fn close(&self, error: Error) {
        self.lock().closed.get_or_insert(error);
        self.arrived.notify_one();
    }

    /// Everything up to there was taken, given that the hub has handed out everything up to `cursor`.
    fn taken(&self, cursor: Revision) -> Revision {
        let waiting = self.lock();
        match waiting.batches.front() {
            Some(batch) => batch.revision.previous(),
            None if waiting.closed.is_some() => waiting.next.previous(),
            None => cursor.max(waiting.next.previous()),
        }
    }
}

impl Hub {
    /// Begins after `cursor`.
    pub(crate) fn new(cursor: Revision) -> Self {
        Self { cursor, ..Self::default() }
    }

    /// Everything up to here has been handed out.
    pub(crate) const fn cursor(&self) -> Revision {
        self.cursor
    }

    /// What `inbox`'s owner has taken: everything up to there.
    pub(crate) fn progress(&self, inbox: &Inbox) -> Revision {
        inbox.taken(self.cursor)
    }

    /// Adds a watcher of a range. Its `next` must be after [`Hub::cursor`], or it would miss what lies between.
    pub(crate) fn register(&mut self, start: &Bytes, end: Option<&Bytes>, inbox: &Arc<Inbox>) {
        if let Some(error) = &self.closed {
            inbox.close(error.clone());
            return;
        }
        let group = match end {
            None => self.keys.entry(start.clone()).or_default(),
            Some(end) if *end == prefix_end(start) => {
                self.prefixes.entry(start.len()).or_default().entry(start.clone()).or_default()
            }
            Some(end) => {
                let at = self.ranges.iter().position(|(from, to, _)| from == start && to == end).unwrap_or_else(|| {
                    self.ranges.push((start.clone(), end.clone(), Group::default()));
                    self.ranges.len() - 1
                });
                let Some((_, _, group)) = self.ranges.get_mut(at) else { return };
                group
            }
        };
        group.inboxes.push(Arc::clone(inbox));
    }

    /// Takes a watcher out again.
    pub(crate) fn unregister(&mut self, start: &Bytes, end: Option<&Bytes>, inbox: &Arc<Inbox>) {
        let leave = |group: &mut Group| {
            group.inboxes.retain(|other| !Arc::ptr_eq(other, inbox));
            group.inboxes.is_empty()
        };
        match end {
            None => {
                if self.keys.get_mut(start).is_some_and(leave) {
                    self.keys.remove(start);
                }
            }
            Some(end) if *end == prefix_end(start) => {
                if let Some(prefixes) = self.prefixes.get_mut(&start.len()) {
                    if prefixes.get_mut(start).is_some_and(leave) {
                        prefixes.remove(start);
                    }
                    if prefixes.is_empty() {
                        self.prefixes.remove(&start.len());
                    }
                }
            }
            Some(end) => self.ranges.retain_mut(|(from, to, group)| from != start || to != end || !leave(group)),
        }
    }

    /// Hands out the changes of one revision; the hub has handed out all before.
    pub(crate) fn hand_out(&mut self, batch: &Batch) {
        self.cursor = batch.revision;
        for event in batch.events.iter() {
            self.groups_of(&event.entry.key, |group| group.pending.push(Arc::clone(event)));
        }
        for event in batch.events.iter() {
            self.groups_of(&event.entry.key, |group| {
                if group.pending.is_empty() {
                    return;
                }
                let pending = std::mem::take(&mut group.pending);
                let events =
                    if pending.len() == batch.events.len() { Arc::clone(&batch.events) } else { pending.into() };
                let part = Batch { revision: batch.revision, events };
                group.inboxes.retain(|inbox| inbox.push(part.clone()));
            });
        }
    }

    fn groups_of(&mut self, key: &[u8], mut visit: impl FnMut(&mut Group)) {
        if let Some(group) = self.keys.get_mut(key) {
            visit(group);
        }
        for (len, prefixes) in self.prefixes.range_mut(..=key.len()) {
            if let Some(group) = key.get(..*len).and_then(|prefix| prefixes.get_mut(prefix)) {
                visit(group);
            }
        }
        for (start, end, group) in &mut self.ranges {
            if contains(start, Some(end), key) {
                visit(group);
            }
        }
    }

    /// The history went on without the hub: everybody must read anew.
    pub(crate) fn skip_to(&mut self, compacted: Revision) {
        self.cursor = compacted;
        self.close_all(&Error::Compacted { compacted });
    }

    /// There will be no more changes.
    pub(crate) fn close(&mut self, error: Error) {
        self.close_all(&error);
        self.closed = Some(error);
    }

    fn close_all(&mut self, error: &Error) {
        let keys = std::mem::take(&mut self.keys).into_values();
        let prefixes = std::mem::take(&mut self.prefixes).into_values().flat_map(BTreeMap::into_values);
        let ranges = std::mem::take(&mut self.ranges).into_iter().map(|(_, _, group)| group);
        for group in keys.chain(prefixes).chain(ranges) {
            for inbox in group.inboxes {
                inbox.close(error.clone());
            }
        }
    }
}
