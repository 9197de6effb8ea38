//! Leases: keys that go when nobody says any more that they shall stay.
//!
//! Which leases there are, and which keys hang on them, is replicated ([`Leases`]). When one ends is known to the leader
//! alone ([`Deadlines`], on its own steady clock, as in etcd): it proposes the revocation, so that all members see the
//! keys go at the same revision. A member that becomes leader grants every lease its full time again, which lengthens
//! lives but never cuts one short; so keeping a lease alive writes nothing to disk.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;

use crate::revision::LeaseId;

/// A lease as its holder sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its name.
    pub id: LeaseId,
    /// How long it lives after it was granted or last kept alive.
    pub ttl: Duration,
}

/// The replicated half.
#[derive(Debug, Default)]
pub(crate) struct Leases(BTreeMap<LeaseId, Held>);

/// A lease's time to live and its keys.
#[derive(Debug, Default)]
pub(crate) struct Held {
    pub(crate) ttl: Duration,
    pub(crate) keys: BTreeSet<Bytes>,
}

impl Leases {
    pub(crate) fn get(&self, id: LeaseId) -> Option<&Held> {
        self.0.get(&id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (LeaseId, &Held)> {
        self.0.iter().map(|(id, held)| (*id, held))
    }

    pub(crate) fn grant(&mut self, id: LeaseId, ttl: Duration) {
        self.0.insert(id, Held { ttl, keys: BTreeSet::new() });
    }

    pub(crate) fn revoke(&mut self, id: LeaseId) -> Option<Held> {
        self.0.remove(&id)
    }

    pub(crate) fn attach(&mut self, id: LeaseId, key: Bytes) {
        if let Some(held) = self.0.get_mut(&id) {
            held.keys.insert(key);
        }
    }

    pub(crate) fn detach(&mut self, id: LeaseId, key: &Bytes) {
        if let Some(held) = self.0.get_mut(&id) {
            held.keys.remove(key);
        }
    }
}

/// The leader's half: when each lease ends.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    by_id: BTreeMap<LeaseId, Clock>,
    by_time: BTreeSet<(Duration, LeaseId)>,
}

#[derive(Clone, Copy, Debug)]
struct Clock {
    ttl: Duration,
    /// When its time is up.
    end: Duration,
    /// When to look after it.
    due: Duration,
}

impl Deadlines {
    /// Starts a lease's time anew.
    pub(crate) fn start(&mut self, id: LeaseId, ttl: Duration, now: Duration) {
        let end = now.saturating_add(ttl);
        self.set(id, Clock { ttl, end, due: end });
    }

    /// Looks after a lease that could not be ended at another time; it stays ended.
    pub(crate) fn postpone(&mut self, id: LeaseId, due: Duration) {
        if let Some(clock) = self.by_id.get(&id).copied() {
            self.set(id, Clock { due, ..clock });
        }
    }

    fn set(&mut self, id: LeaseId, clock: Clock) {
        self.remove(id);
        self.by_id.insert(id, clock);
        self.by_time.insert((clock.due, id));
    }

    /// Starts a lease's time anew if it has not run out; says how long it lives now.
    pub(crate) fn renew(&mut self, id: LeaseId, now: Duration) -> Option<Duration> {
        let clock = *self.by_id.get(&id)?;
        if clock.end <= now {
            return None;
        }
        self.start(id, clock.ttl, now);
        Some(clock.ttl)
    }

    /// How long a lease still lives.
    pub(crate) fn left(&self, id: LeaseId, now: Duration) -> Option<Duration> {
        self.by_id.get(&id).map(|clock| clock.end.saturating_sub(now))
    }

    /// Forgets a lease.
    pub(crate) fn remove(&mut self, id: LeaseId) {
        if let Some(clock) = self.by_id.remove(&id) {
            self.by_time.remove(&(clock.due, id));
        }
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        self.by_id.clear();
        self.by_time.clear();
    }

    /// The leases whose time is up, no longer looked after (but known, so that they cannot be renewed).
    pub(crate) fn take_due(&mut self, now: Duration) -> Vec<LeaseId> {
        let mut due = Vec::new();
        while let Some((time, id)) = self.by_time.first().copied()
            && time <= now
        {
            self.by_time.pop_first();
            due.push(id);
        }
        due
    }

    /// What [`Deadlines::take_due`] would take.
    #[cfg(test)]
    pub(crate) fn due(&self, now: Duration) -> Vec<LeaseId> {
        self.by_time.iter().take_while(|(time, _)| *time <= now).map(|(_, id)| *id).collect()
    }

    /// When to look after the next one.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.by_time.first().map(|(due, _)| *due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_lease_ends_when_its_time_is_up_and_not_when_it_was_kept_alive() {
        let (a, b) = (LeaseId(1), LeaseId(2));
        let mut deadlines = Deadlines::default();
        deadlines.start(a, 10 * SECOND, Duration::ZERO);
        deadlines.start(b, 10 * SECOND, Duration::ZERO);
        assert_eq!(deadlines.renew(b, 5 * SECOND), Some(10 * SECOND));
        assert_eq!(deadlines.take_due(9 * SECOND), []);
        assert_eq!(deadlines.take_due(10 * SECOND), [a]);
        assert_eq!(deadlines.renew(a, 10 * SECOND), None, "it ended, though its revocation is still under way");
        assert_eq!(deadlines.next(), Some(15 * SECOND));
        assert_eq!(deadlines.left(b, 11 * SECOND), Some(4 * SECOND));
    }

    #[test]
    fn a_lease_that_could_not_be_ended_is_looked_after_again_and_cannot_be_renewed() {
        let mut deadlines = Deadlines::default();
        deadlines.start(LeaseId(1), SECOND, Duration::ZERO);
        assert_eq!(deadlines.take_due(SECOND), [LeaseId(1)]);
        deadlines.postpone(LeaseId(1), 11 * SECOND);
        assert_eq!(deadlines.next(), Some(11 * SECOND));
        assert_eq!(deadlines.renew(LeaseId(1), 2 * SECOND), None);
        deadlines.remove(LeaseId(1));
        assert_eq!(deadlines.next(), None);
    }
}
