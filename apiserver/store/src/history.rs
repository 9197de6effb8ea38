//! The changes of the recent past, for watches and for reads at an earlier revision.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use crate::{entry::Event, revision::Revision};

/// How much of the past is kept, in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Changes older than this are forgotten.
    pub age: Duration,
    /// So are the oldest when what history alone keeps in memory exceeds so many bytes; this bound wins. Only those of
    /// the last ten seconds may take three times as much on top of it: who lists and then watches has to find what
    /// came between, however much it weighs.
    pub bytes: usize,
}

impl Default for Retention {
    fn default() -> Self {
        // Kubernetes has etcd forget after five minutes, and clients count on it: a list's next page shows that version
        // or says that it is gone. 32 MiB is what a home lab's busy server can spare.
        Self { age: Duration::from_mins(5), bytes: 32 << 20 }
    }
}

/// The changes of one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The revision.
    pub revision: Revision,
    /// Its changes, in the order they were made; of a watch, those within the watched range.
    pub events: Arc<[Arc<Event>]>,
}

#[derive(Debug)]
struct Kept {
    batch: Batch,
    /// When it was applied here, on the member's own steady clock: a wrong wall clock neither drops nor keeps history.
    at: Duration,
    bytes: usize,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct History {
    retention: Retention,
    kept: VecDeque<Kept>,
    bytes: usize,
    compacted: Revision,
    /// When the last of what is gone came; since then, until the oldest that is kept, the store stood there.
    compacted_at: Duration,
}

/// What an event costs beside the values: the event, its list, its place in the history and the index's past.
const EVENT_OVERHEAD: usize = 320;

/// Changes younger than this are kept though they are more than [`Retention::bytes`]; see there.
const FRESH: Duration = Duration::from_secs(10);

/// How many times [`Retention::bytes`] they may come to.
const FRESH_FACTOR: usize = 4;

/// How much longer than asked for the past may be kept while nothing happens.
const SLACK: Duration = Duration::from_secs(15);

impl History {
    /// Begins after `compacted`.
    pub(crate) const fn new(retention: Retention, compacted: Revision) -> Self {
        Self { retention, kept: VecDeque::new(), bytes: 0, compacted, compacted_at: Duration::ZERO }
    }

    /// The last revision that is gone.
    pub(crate) const fn compacted(&self) -> Revision {
        self.compacted
    }

    /// Adds the changes of the newest revision.
    pub(crate) fn push(&mut self, batch: Batch, at: Duration) {
        // Only the version before is kept by history alone; the new one is live, or will be somebody's version before.
        let pinned = |event: &Arc<Event>| {
            event.previous.as_ref().map_or(0, |entry| entry.value.len() + entry.key.len()) + EVENT_OVERHEAD
        };
        let bytes = batch.events.iter().map(pinned).sum();
        self.bytes += bytes;
        self.kept.push_back(Kept { batch, at, bytes });
    }

    /// Takes off the oldest batch if it is due by age or size.
    pub(crate) fn pop_due(&mut self, now: Duration) -> Option<Batch> {
        let oldest = self.kept.front()?;
        let most = if now.saturating_sub(oldest.at) > FRESH { 1 } else { FRESH_FACTOR };
        let due = self.bytes > self.retention.bytes.saturating_mul(most)
            || now.saturating_sub(oldest.at) > self.retention.age;
        due.then(|| self.pop()).flatten()
    }

    /// When to look for what is too old although nothing new came: a little later than the oldest is due, for as a rule
    /// the changes that come take off what is due, and nobody need be woken for it.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        let most = if self.bytes > self.retention.bytes { self.retention.age.min(FRESH) } else { self.retention.age };
        self.kept.front().map(|oldest| oldest.at.saturating_add(most).saturating_add(SLACK))
    }

    /// Takes off the oldest batch if it is not younger than `revision`.
    pub(crate) fn pop_until(&mut self, revision: Revision) -> Option<Batch> {
        let due = self.kept.front().is_some_and(|kept| kept.batch.revision <= revision);
        if due {
            return self.pop();
        }
        self.compacted = self.compacted.max(revision);
        None
    }

    fn pop(&mut self) -> Option<Batch> {
        let kept = self.kept.pop_front()?;
        self.bytes -= kept.bytes;
        self.compacted = kept.batch.revision;
        self.compacted_at = kept.at;
        Some(kept.batch)
    }

    /// Where the store stood at a time of this life; none if that is no longer known.
    pub(crate) fn revision_at(&self, at: Duration) -> Option<Revision> {
        let after = self.kept.partition_point(|kept| kept.at <= at);
        match after.checked_sub(1).and_then(|last| self.kept.get(last)) {
            Some(kept) => Some(kept.batch.revision),
            None => (self.compacted_at <= at).then(|| self.compacted.max(Revision::FIRST)),
        }
    }

    /// The batches from `revision` on, oldest first.
    pub(crate) fn from(&self, revision: Revision) -> impl Iterator<Item = &Batch> {
        let start = self.kept.partition_point(|kept| kept.batch.revision < revision);
        self.kept.range(start..).map(|kept| &kept.batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{Derived, Entry, EventKind};

    #[test]
    fn a_time_is_a_revision_as_far_back_as_it_is_known() {
        let second = Duration::from_secs;
        let retention = Retention { age: second(100), ..Retention::default() };
        let mut history = History::new(retention, Revision(5));
        let events: std::sync::Arc<[std::sync::Arc<Event>]> = [].into();
        for (revision, at) in [(6, 10), (7, 20), (8, 20), (9, 40)] {
            history.push(Batch { revision: Revision(revision), events: events.clone() }, second(at));
        }
        let at = |history: &History, time| history.revision_at(second(time)).map(|revision| revision.0);
        assert_eq!([0, 9, 10, 19, 20, 39, 40, 99].map(|time| at(&history, time)), [5, 5, 6, 6, 8, 8, 9, 9].map(Some));
        assert!(history.pop_due(second(115)).is_some() && history.pop_due(second(115)).is_none());
        assert_eq!([9, 10, 19, 20].map(|time| at(&history, time)), [None, Some(6), Some(6), Some(8)]);
        assert_eq!(History::new(retention, Revision::NONE).revision_at(second(1)), Some(Revision::FIRST));
    }

    #[test]
    fn what_just_came_may_weigh_more_for_a_while_and_has_a_bound_too() {
        let second = Duration::from_secs;
        let weight = 10 * EVENT_OVERHEAD;
        let entry = Entry {
            key: "/key".into(),
            value: "value".into(),
            create_revision: Revision::FIRST,
            mod_revision: Revision::FIRST,
            version: 1,
            lease: None,
            derived: Derived::default(),
        };
        let event =
            Arc::new(Event { kind: EventKind::Put, entry: entry.into(), previous: None, derived: Derived::default() });
        let mut history = History::new(Retention { age: second(100), bytes: weight }, Revision::NONE);
        let mut revision = 0;
        let mut push = |history: &mut History, at: u64, count: usize| {
            for _ in 0..count {
                revision += 1;
                history.push(Batch { revision: Revision(revision), events: [event.clone()].into() }, second(at));
            }
        };
        let drop_due = |history: &mut History, at: u64| {
            while history.pop_due(second(at)).is_some() {}
            history.kept.len()
        };
        push(&mut history, 1, 10);
        assert_eq!(history.next_due(), Some(second(1 + 100) + SLACK));
        push(&mut history, 2, 100);
        assert_eq!(drop_due(&mut history, 2), 40, "four times the bound");
        assert_eq!(history.next_due(), Some(second(2) + FRESH + SLACK), "and somebody looks again soon");
        assert_eq!(drop_due(&mut history, 12), 40);
        push(&mut history, 12, 5);
        assert_eq!(drop_due(&mut history, 13), 10, "what is not fresh has no more than the bound");
        assert_eq!(drop_due(&mut history, 102), 10);
        assert_eq!(drop_due(&mut history, 103), 5);
    }
}
