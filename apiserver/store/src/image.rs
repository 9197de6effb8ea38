//! An image: the whole replicated state at one point of the log, for a member that is too far behind for the log itself.
//!
//! It is taken in memory (a list of what the state shares anyway), and handed over piece by piece: the one who needs it
//! asks for each piece when it has taken in the one before, so a slow receiver slows down nobody and nothing piles up.
//! Pieces are named by the item they begin with, so asking twice does no harm.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    checkpoint::{Job, Mark},
    codec::{Malformed, Put, Reader},
    entry::{Derived, Entry},
    history::Retention,
    peer::Peer,
    revision::{LeaseId, Revision},
    state::State,
};

/// A piece is closed when it is longer than this: what a home network carries in some ten milliseconds.
const CHUNK: usize = 512 << 10;

/// One part of the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    Entry(Arc<Entry>),
    /// A lease and the seconds it lives.
    Lease(LeaseId, u64),
    Peer(u64, Peer),
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) mark: Mark,
    pub(crate) items: Vec<Item>,
}

impl Image {
    /// The state as it is.
    pub(crate) fn of(state: &State, mark: Mark) -> Self {
        let leases = state.leases().iter().map(|(id, held)| Item::Lease(id, held.ttl.as_secs()));
        let peers = state.peers().iter().map(|(id, peer)| Item::Peer(*id, peer.clone()));
        let entries = state.index().entries().map(|entry| Item::Entry(Arc::clone(entry)));
        Self { mark, items: leases.chain(peers).chain(entries).collect() }
    }

    /// The same with the members alone: what a witness keeps.
    pub(crate) fn of_members(&self) -> Self {
        let items = self.items.iter().filter(|item| matches!(item, Item::Peer(..))).cloned().collect();
        Self { mark: self.mark.clone(), items }
    }

    /// The state it shows.
    pub(crate) fn state(&self, retention: Retention) -> State {
        let (mut entries, mut leases, mut peers) = (Vec::new(), Vec::new(), Vec::new());
        for item in &self.items {
            match item {
                Item::Entry(entry) => entries.push(Arc::clone(entry)),
                Item::Lease(id, ttl) => leases.push((*id, Duration::from_secs(*ttl))),
                Item::Peer(id, peer) => peers.push((*id, peer.clone())),
            }
        }
        State::load(retention, self.mark.revision, entries, leases, peers)
    }

    /// What makes it this member's checkpoint, in the place of whatever it had.
    pub(crate) fn job(&self) -> Job {
        let mut job = Job { mark: self.mark.clone(), whole: true, ..Job::default() };
        for item in &self.items {
            match item {
                Item::Entry(entry) => job.entries.push((entry.key.clone(), Some(Arc::clone(entry)))),
                Item::Lease(id, ttl) => job.leases.push((*id, Some(*ttl))),
                Item::Peer(id, peer) => job.peers.push((*id, Some(peer.clone()))),
            }
        }
        job
    }

    /// The piece that begins with item `from`, and the item the next begins with.
    pub(crate) fn chunk(&self, from: u64) -> (Bytes, u64) {
        let start = usize::try_from(from).unwrap_or(usize::MAX);
        let mut out = Vec::new();
        let mut next = from;
        for item in self.items.get(start..).unwrap_or_default() {
            item.put(&mut out);
            next += 1;
            if out.len() >= CHUNK {
                break;
            }
        }
        (out.into(), next)
    }
}

impl Item {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Entry(entry) => {
                out.put_u8(1);
                out.put_bytes(&entry.key);
                let numbers = [entry.create_revision.0, entry.mod_revision.0, entry.version];
                numbers.into_iter().for_each(|number| out.put_u64(number));
                out.put_u64(entry.lease.unwrap_or_default().0);
                out.put_bytes(&entry.value);
            }
            Self::Lease(id, ttl) => {
                out.put_u8(2);
                out.put_u64(id.0);
                out.put_u64(*ttl);
            }
            Self::Peer(id, peer) => {
                out.put_u8(3);
                out.put_u64(*id);
                out.put_bytes(&peer.encode());
            }
        }
    }

    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(match from.u8()? {
            1 => {
                let key = from.bytes()?;
                let (create, modified, version, lease) = (from.u64()?, from.u64()?, from.u64()?, from.u64()?);
                Self::Entry(Arc::new(Entry {
                    key,
                    value: from.bytes()?,
                    create_revision: Revision(create),
                    mod_revision: Revision(modified),
                    version,
                    lease: Some(LeaseId(lease)).filter(|id| *id != LeaseId::default()),
                    derived: Derived::default(),
                }))
            }
            2 => Self::Lease(LeaseId(from.u64()?), from.u64()?),
            3 => Self::Peer(from.u64()?, Peer::decode(from.slice()?)?),
            _ => return Err(Malformed("item of an unknown kind")),
        })
    }

    /// Reads a piece of `count` items.
    pub(crate) fn read(bytes: &[u8], count: u64) -> Result<Vec<Self>, Malformed> {
        let mut from = Reader(bytes);
        let mut items = Vec::new();
        while !from.0.is_empty() {
            items.push(Self::take(&mut from)?);
        }
        if items.len() as u64 == count { Ok(items) } else { Err(Malformed("piece with another number of items")) }
    }
}
