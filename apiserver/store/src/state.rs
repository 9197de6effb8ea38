//! The replicated state machine: pure, so that every member and every replay comes to the same state.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;

use crate::{
    command::{Answer, Command, Outcome},
    entry::{Derived, Entry, Event, EventKind},
    error::{Error, Result},
    history::{Batch, History, Retention},
    index::Index,
    lease::Leases,
    peer::{MemberInfo, Peer, Peers},
    range::{Range, RangeResult, contains},
    revision::{LeaseId, Revision},
    txn::{Change, Compare, Op, OpResult, Txn, TxnResult},
};

/// How many old batches go at once at most: dropping them takes less time than a command's own way to disk.
const FORGOTTEN_AT_ONCE: usize = 64;

/// What applying one command brought about.
#[derive(Debug)]
pub(crate) struct Effects {
    /// For the proposer.
    pub(crate) outcome: Outcome,
    /// What fell out of the history: large, so it is dropped where no lock is held.
    pub(crate) forgotten: Vec<Batch>,
}

/// Which branch of a transaction is done, and of those within it.
struct Chosen<'a> {
    succeeded: bool,
    branch: &'a [Op],
    /// One for each [`Op::Txn`] of the branch.
    within: Vec<Chosen<'a>>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct State {
    revision: Revision,
    index: Index,
    leases: Leases,
    history: History,
    peers: Peers,
    /// What changed since the last checkpoint.
    dirty: Dirty,
}

/// Keys and leases that differ from the last checkpoint.
#[derive(Debug, Default)]
pub(crate) struct Dirty {
    /// With whether they may have held something then.
    pub(crate) keys: BTreeMap<Bytes, bool>,
    pub(crate) leases: BTreeSet<LeaseId>,
    pub(crate) peers: BTreeSet<u64>,
}

impl State {
    /// An empty store.
    pub(crate) fn new(retention: Retention) -> Self {
        Self {
            revision: Revision::FIRST,
            index: Index::default(),
            leases: Leases::default(),
            // Nothing happened up to here, so nothing is missing either: a watch from revision 1 is whole.
            history: History::new(retention, Revision::NONE),
            peers: Peers::new(),
            dirty: Dirty::default(),
        }
    }

    /// The store as a checkpoint has it: the history begins there.
    pub(crate) fn load(
        retention: Retention,
        revision: Revision,
        entries: Vec<Arc<Entry>>,
        leases: impl IntoIterator<Item = (LeaseId, Duration)>,
        peers: impl IntoIterator<Item = (u64, Peer)>,
    ) -> Self {
        let mut state = Self { revision, history: History::new(retention, revision), ..Self::new(retention) };
        for (id, ttl) in leases {
            state.leases.grant(id, ttl);
        }
        state.peers.extend(peers);
        for entry in entries {
            if let Some(id) = entry.lease {
                state.leases.attach(id, entry.key.clone());
            }
            state.index.load(entry);
        }
        state
    }

    /// Takes what changed since this was last called.
    pub(crate) fn take_dirty(&mut self) -> Dirty {
        std::mem::take(&mut self.dirty)
    }

    /// Says that these have not reached a checkpoint after all.
    pub(crate) fn mark_dirty(
        &mut self,
        keys: impl IntoIterator<Item = Bytes>,
        leases: impl IntoIterator<Item = LeaseId>,
        peers: impl IntoIterator<Item = u64>,
    ) {
        self.dirty.keys.extend(keys.into_iter().map(|key| (key, true)));
        self.dirty.leases.extend(leases);
        self.dirty.peers.extend(peers);
    }

    /// Another checkpoint than the last of these is valid now: any of the keys may hold something in it.
    pub(crate) fn rebase(&mut self) {
        self.dirty.keys.values_mut().for_each(|was_held| *was_held = true);
    }

    /// The members.
    pub(crate) const fn peers(&self) -> &Peers {
        &self.peers
    }

    /// A member has been admitted.
    pub(crate) fn admit(&mut self, id: u64, info: MemberInfo) {
        self.peers.entry(id).or_default().info = info;
        self.dirty.peers.insert(id);
    }

    /// A member says anew where it is. What it was admitted as it stays: on that hangs what it is sent.
    pub(crate) fn describe(&mut self, id: u64, info: MemberInfo) {
        let witness = self.peers.get(&id).is_some_and(|peer| peer.info.witness);
        self.admit(id, MemberInfo { witness, ..info });
    }

    /// The member that is a witness, if one is.
    pub(crate) fn witness(&self) -> Option<u64> {
        self.peers.iter().find(|(_, peer)| peer.info.witness).map(|(id, _)| *id)
    }

    /// A member is one no more.
    pub(crate) fn dismiss(&mut self, id: u64) {
        self.peers.remove(&id);
        self.dirty.peers.insert(id);
    }

    /// Whether a write that came by way of another member is seen for the first time, and no later one of its member's
    /// was seen before.
    pub(crate) fn is_fresh(&mut self, member: u64, life: u64, number: u64) -> bool {
        let peer = self.peers.entry(member).or_default();
        let fresh = peer.forwarded < (life, number);
        if fresh {
            peer.forwarded = (life, number);
            self.dirty.peers.insert(member);
        }
        fresh
    }

    pub(crate) const fn revision(&self) -> Revision {
        self.revision
    }

    pub(crate) const fn history(&self) -> &History {
        &self.history
    }

    pub(crate) const fn index(&self) -> &Index {
        &self.index
    }

    pub(crate) const fn leases(&self) -> &Leases {
        &self.leases
    }

    /// Reads a range, now or at a kept revision.
    pub(crate) fn range(&self, range: &Range) -> Result<RangeResult> {
        let mut result = match range.at {
            None => self.index.range(range),
            Some(asked) if asked > self.revision => {
                return Err(Error::FutureRevision { asked, current: self.revision });
            }
            Some(asked) if asked == self.revision => self.index.range(range),
            // The state after revision `compacted` is the oldest that can still be told.
            Some(asked) if asked < self.history.compacted() => {
                return Err(Error::Compacted { compacted: self.history.compacted() });
            }
            Some(asked) => {
                let count = self.count_at(range, asked);
                RangeResult { count, ..self.index.range_at(range, asked) }
            }
        };
        result.revision = self.revision;
        Ok(result)
    }

    /// How many keys a range held at a kept revision: those of today, less those that came since and with those that
    /// went. What was there is not looked at, so that pages of a long list cost no more the longer it is.
    fn count_at(&self, range: &Range, asked: Revision) -> usize {
        let today = self.index.count(&range.start, range.end.as_deref());
        let (mut came, mut went) = (0, 0);
        let since = self.history.from(asked.next()).flat_map(|batch| batch.events.iter());
        for event in since.filter(|event| contains(&range.start, range.end.as_deref(), &event.entry.key)) {
            match (event.previous.is_some(), event.entry.is_tombstone()) {
                (false, false) => came += 1,
                (true, true) => went += 1,
                (true, false) | (false, true) => {}
            }
        }
        (today + went).saturating_sub(came)
    }

    /// Applies a command. `now` is the member's own steady clock and decides only how long history is kept.
    pub(crate) fn apply(&mut self, command: &Command, now: Duration) -> Effects {
        let mut forgotten = Vec::new();
        let outcome = match command {
            Command::Txn(txn) => self.txn(txn, now).map(Answer::Txn),
            Command::LeaseGrant { id, ttl } => self.lease_grant(*id, *ttl),
            Command::LeaseRevoke { id } => self.lease_revoke(*id, now),
            Command::Compact { revision } => self.compact(*revision, &mut forgotten),
            Command::Describe { id, info } => {
                self.describe(*id, info.clone());
                Ok(Answer::Done)
            }
        };
        // Many for one: history shrinks to its bound soon, and no single command pays for all of a busy time.
        forgotten.extend(self.forget_due(now));
        Effects { outcome, forgotten }
    }

    /// Forgets the oldest of what is kept too long, or is too much; a bounded number at once.
    pub(crate) fn forget_due(&mut self, now: Duration) -> Vec<Batch> {
        let mut forgotten = Vec::new();
        for _ in 0..FORGOTTEN_AT_ONCE {
            let Some(batch) = self.history.pop_due(now) else { break };
            self.forget(&batch);
            forgotten.push(batch);
        }
        forgotten
    }

    fn forget(&mut self, batch: &Batch) {
        for event in batch.events.iter() {
            self.index.compact(&event.entry.key, self.history.compacted());
        }
    }

    fn txn(&mut self, txn: &Txn, now: Duration) -> Result<TxnResult> {
        let chosen = self.choose(txn);
        self.check(&chosen)?;
        let revision = self.revision.next();
        let mut events = Vec::with_capacity(chosen.branch.len());
        let done = self.perform(&chosen, revision, &mut events);
        self.commit(revision, events, now);
        Ok(done)
    }

    /// Compares, within too, with what is there before anything is done.
    fn choose<'a>(&self, txn: &'a Txn) -> Chosen<'a> {
        let succeeded = txn.compare.iter().all(|compare| self.holds(compare));
        let branch = if succeeded { &txn.then } else { &txn.or_else };
        let within = branch.iter().filter_map(|op| match op {
            Op::Txn(within) => Some(self.choose(within)),
            Op::Put { .. } | Op::Amend { .. } | Op::Delete { .. } | Op::Get(_) => None,
        });
        Chosen { succeeded, branch, within: within.collect() }
    }

    /// Refuses what cannot be done, before any of it is: the first of it.
    fn check(&self, chosen: &Chosen<'_>) -> Result<()> {
        let mut within = chosen.within.iter();
        for op in chosen.branch {
            match op {
                Op::Amend { key, .. } if self.index.get(key).is_none() => {
                    return Err(Error::KeyNotFound { key: key.clone() });
                }
                Op::Put { lease: Some(id), .. } | Op::Amend { change: Change::Lease(Some(id)), .. }
                    if self.leases.get(*id).is_none() =>
                {
                    return Err(Error::LeaseNotFound { id: *id });
                }
                Op::Txn(_) => within.next().map_or(Ok(()), |within| self.check(within))?,
                Op::Put { .. } | Op::Amend { .. } | Op::Delete { .. } | Op::Get(_) => {}
            }
        }
        Ok(())
    }

    fn perform(&mut self, chosen: &Chosen<'_>, revision: Revision, events: &mut Vec<Arc<Event>>) -> TxnResult {
        let mut within = chosen.within.iter();
        let mut results = Vec::with_capacity(chosen.branch.len());
        for op in chosen.branch {
            results.push(match op {
                Op::Put { key, value, lease } => self.put(key, value, *lease, revision, events),
                Op::Amend { key, change } => {
                    let (kept, lease) = self.index.get(key).map(|entry| (&entry.value, entry.lease)).unzip();
                    let (kept, lease) = (kept.cloned().unwrap_or_default(), lease.flatten());
                    let (value, lease) = match change {
                        Change::Value(value) => (value, lease),
                        Change::Lease(lease) => (&kept, *lease),
                        Change::Nothing => (&kept, lease),
                    };
                    self.put(key, value, lease, revision, events)
                }
                Op::Delete { start, end } => {
                    let keys = self.index.keys(start, end.as_deref());
                    OpResult::Deleted(keys.into_iter().filter_map(|key| self.delete(key, revision, events)).collect())
                }
                Op::Get(range) => {
                    let mut result = self.index.range(range);
                    result.revision = if events.is_empty() { self.revision } else { revision };
                    OpResult::Got(result)
                }
                Op::Txn(_) => {
                    // There is one chosen for each.
                    let Some(within) = within.next() else { continue };
                    OpResult::Txn(self.perform(within, revision, events))
                }
            });
        }
        let revision = if events.is_empty() { self.revision } else { revision };
        TxnResult { succeeded: chosen.succeeded, revision, results }
    }

    fn commit(&mut self, revision: Revision, events: Vec<Arc<Event>>, now: Duration) {
        if !events.is_empty() {
            self.revision = revision;
            self.history.push(Batch { revision, events: events.into() }, now);
        }
    }

    fn put(
        &mut self,
        key: &Bytes,
        value: &Bytes,
        lease: Option<LeaseId>,
        revision: Revision,
        events: &mut Vec<Arc<Event>>,
    ) -> OpResult {
        let (create_revision, version) = match self.index.get(key) {
            Some(entry) => (entry.create_revision, entry.version + 1),
            None => (revision, 1),
        };
        let entry = Arc::new(Entry {
            key: key.clone(),
            value: value.clone(),
            create_revision,
            mod_revision: revision,
            version,
            lease,
            derived: Derived::default(),
        });
        let previous = self.index.put(Arc::clone(&entry));
        let old_lease = previous.as_ref().and_then(|entry| entry.lease);
        if old_lease != lease {
            if let Some(id) = old_lease {
                self.leases.detach(id, key);
            }
            if let Some(id) = lease {
                self.leases.attach(id, key.clone());
            }
        }
        self.dirty.keys.entry(key.clone()).or_insert(previous.is_some());
        events.push(Arc::new(Event {
            kind: EventKind::Put,
            entry: Arc::clone(&entry),
            previous: previous.clone(),
            derived: Derived::default(),
        }));
        OpResult::Put { entry, previous }
    }

    fn delete(&mut self, key: Bytes, revision: Revision, events: &mut Vec<Arc<Event>>) -> Option<Arc<Entry>> {
        let tombstone = Arc::new(Entry {
            key,
            value: Bytes::new(),
            create_revision: Revision::NONE,
            mod_revision: revision,
            version: 0,
            lease: None,
            derived: Derived::default(),
        });
        let previous = self.index.delete(&tombstone)?;
        if let Some(id) = previous.lease {
            self.leases.detach(id, &tombstone.key);
        }
        self.dirty.keys.entry(tombstone.key.clone()).or_insert(true);
        events.push(Arc::new(Event {
            kind: EventKind::Delete,
            entry: tombstone,
            previous: Some(Arc::clone(&previous)),
            derived: Derived::default(),
        }));
        Some(previous)
    }

    fn holds(&self, compare: &Compare) -> bool {
        let Compare::Each { end, compare } = compare else {
            return compare.holds(self.index.get(compare.key()).map(|entry| &**entry));
        };
        let mut found = self.index.live(compare.key(), end).peekable();
        match found.peek() {
            None => compare.holds(None),
            Some(_) => found.all(|entry| compare.holds(Some(entry))),
        }
    }

    fn lease_grant(&mut self, id: LeaseId, ttl: Duration) -> Outcome {
        if self.leases.get(id).is_some() {
            return Err(Error::LeaseExists { id });
        }
        self.leases.grant(id, ttl);
        self.dirty.leases.insert(id);
        Ok(Answer::Done)
    }

    fn lease_revoke(&mut self, id: LeaseId, now: Duration) -> Outcome {
        let Some(held) = self.leases.revoke(id) else { return Err(Error::LeaseNotFound { id }) };
        self.dirty.leases.insert(id);
        let revision = self.revision.next();
        let mut events = Vec::with_capacity(held.keys.len());
        for key in held.keys {
            self.delete(key, revision, &mut events);
        }
        self.commit(revision, events, now);
        Ok(Answer::Done)
    }

    fn compact(&mut self, revision: Revision, forgotten: &mut Vec<Batch>) -> Outcome {
        if revision > self.revision {
            return Err(Error::FutureRevision { asked: revision, current: self.revision });
        }
        if revision <= self.history.compacted() {
            return Err(Error::Compacted { compacted: self.history.compacted() });
        }
        while let Some(batch) = self.history.pop_until(revision) {
            self.forget(&batch);
            forgotten.push(batch);
        }
        Ok(Answer::Done)
    }
}
