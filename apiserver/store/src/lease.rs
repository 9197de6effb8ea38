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
    by_id: BTreeMap<LeaseId, (Duration, Duration)>,
    by_time: BTreeSet<(Duration, LeaseId)>,
}

impl Deadlines {
    /// Starts a lease's time anew.
    pub(crate) fn start(&mut self, id: LeaseId, ttl: Duration, now: Duration) {
        self.remove(id);
        let end = now.saturating_add(ttl);
        self.by_id.insert(id, (ttl, end));
        self.by_time.insert((end, id));
    }

    /// Starts a lease's time anew if it has not run out; says how long it lives now.
    pub(crate) fn renew(&mut self, id: LeaseId, now: Duration) -> Option<Duration> {
        let (ttl, end) = *self.by_id.get(&id)?;
        if end <= now {
            return None;
        }
        self.start(id, ttl, now);
        Some(ttl)
    }

    /// How long a lease still lives.
    pub(crate) fn left(&self, id: LeaseId, now: Duration) -> Option<Duration> {
        self.by_id.get(&id).map(|(_, end)| end.saturating_sub(now))
    }

    pub(crate) fn remove(&mut self, id: LeaseId) {
        if let Some((_, end)) = self.by_id.remove(&id) {
            self.by_time.remove(&(end, id));
        }
    }

    pub(crate) fn clear(&mut self) {
        self.by_id.clear();
        self.by_time.clear();
    }

    /// The leases whose time is up, taken off the clock (not off the table: they cannot be renewed any more).
    pub(crate) fn take_due(&mut self, now: Duration) -> Vec<LeaseId> {
        let mut due = Vec::new();
        while let Some((end, id)) = self.by_time.first().copied()
            && end <= now
        {
            self.by_time.pop_first();
            due.push(id);
        }
        due
    }

    /// When the next one ends.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.by_time.first().map(|(end, _)| *end)
    }
}
