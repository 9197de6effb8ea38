//! Checkpoints: the applied state on stable storage, so that the log behind it can be cut.
//!
//! A checkpoint must appear as a whole or not at all, while an engine promises only that what was synced survives. So
//! every record's key ends in the log index of the checkpoint that wrote it, and one small record says which checkpoint
//! is the valid one:
//!
//! ```text
//! 1. write the records that changed since the last checkpoint, beside the old ones    2. sync
//! 3. write the mark: this index is valid now                                           4. sync
//! 5. remove the records that are superseded (synced by the next checkpoint; done again if that is lost)
//! ```
//!
//! Reading takes of each key the record with the highest index not above the mark's. Whatever a crash leaves behind is
//! then either not yet valid or superseded. A deletion is a record too (a grave); it goes one checkpoint after the record
//! it covers, when that one's removal has been synced.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use raft::eraftpb::ConfState;

use crate::{
    codec::{Malformed, Put, Reader},
    engine::{CHUNK, Change, Engine},
    entry::{Derived, Entry},
    error::{Error, Result},
    peer::Peer,
    revision::{LeaseId, Revision},
};

/// Changes handed to the engine in one call.
const BATCH: usize = 256;
const MARK: &[u8] = b"m";
const VERSION: u8 = 1;
/// The version of a mark whose checkpoint came from another member.
const RECEIVED: u8 = 2;

mod kind {
    pub(super) const ENTRY: u8 = b'e';
    pub(super) const LEASE: u8 = b'l';
    pub(super) const PEER: u8 = b'p';
    pub(super) const ALL: [u8; 3] = [ENTRY, LEASE, PEER];
}

/// The point of the log a checkpoint stands at.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Mark {
    /// Index of the last entry applied.
    pub(crate) index: u64,
    /// Its term.
    pub(crate) term: u64,
    /// The store's revision then.
    pub(crate) revision: Revision,
    /// The members then.
    pub(crate) members: ConfState,
    /// It came from another member, so this one's log need not reach up to it.
    pub(crate) received: bool,
}

/// A lease as the checkpoint keeps it: seconds to live. Its keys say themselves that they hang on it.
pub(crate) type LeaseRecord = (LeaseId, u64);

/// Everything to be written.
#[derive(Debug, Default)]
pub(crate) struct Job {
    pub(crate) mark: Mark,
    /// Keys that changed, with what they hold now.
    pub(crate) entries: Vec<(Bytes, Option<Arc<Entry>>)>,
    /// What is held by keys that held nothing at the checkpoint before, so that nothing of them has to be looked for.
    pub(crate) fresh: Vec<Arc<Entry>>,
    /// Leases that changed, with how long they live.
    pub(crate) leases: Vec<(LeaseId, Option<u64>)>,
    /// Members that changed.
    pub(crate) peers: Vec<(u64, Option<Peer>)>,
    /// It says everything: what it does not name is not there.
    pub(crate) whole: bool,
    /// It says everything besides what changed, to be written into a new place: so many of the entries, the first ones,
    /// have changed.
    pub(crate) anew: Option<usize>,
}

impl Job {
    /// Bytes of keys and values.
    pub(crate) fn bytes(&self) -> u64 {
        let held = |entry: &Arc<Entry>| entry.value.len();
        let changed = self.entries.iter().map(|(key, entry)| key.len() + entry.as_ref().map_or(0, held));
        let fresh = self.fresh.iter().map(|entry| entry.key.len() + held(entry));
        changed.chain(fresh).sum::<usize>() as u64
    }
}

/// What was read.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) mark: Option<Mark>,
    pub(crate) entries: Vec<Arc<Entry>>,
    pub(crate) leases: Vec<LeaseRecord>,
    pub(crate) peers: Vec<(u64, Peer)>,
}

/// What a checkpoint that came to nothing has left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    Nothing,
    /// Records, but no mark.
    Unmarked,
    /// Perhaps a mark as well.
    Unknown,
}

/// What one checkpoint writes, and what it removes when it is valid.
struct Writing {
    index: u64,
    changes: Vec<Change>,
    superseded: Vec<Vec<u8>>,
    graves: Vec<Vec<u8>>,
}

impl Writing {
    /// Adds a record; a grave if there is no body.
    fn put(&mut self, mut own: Vec<u8>, body: Option<&[u8]>) {
        own.extend_from_slice(&self.index.to_be_bytes());
        for (at, chunk) in encode_record(body).chunks(CHUNK).enumerate() {
            let mut key = own.clone();
            key.extend_from_slice(&u32::try_from(at).unwrap_or(u32::MAX).to_be_bytes());
            if body.is_none() {
                self.graves.push(key.clone());
            }
            self.changes.push((key, Some(chunk.to_vec())));
        }
    }
}

/// Writes checkpoints to an engine, and reads them.
#[derive(Debug)]
pub(crate) struct Checkpoints<E> {
    engine: E,
    /// The index of the valid one.
    valid: u64,
    left: Left,
    /// What an interrupted checkpoint left behind: not valid, or superseded.
    stale: Vec<Vec<u8>>,
    /// Graves whose removal has to wait until that of what they cover has been synced.
    graves: Vec<Vec<u8>>,
}

impl<E: Engine> Checkpoints<E> {
    pub(crate) const fn new(engine: E) -> Self {
        Self { engine, valid: 0, left: Left::Nothing, stale: Vec::new(), graves: Vec::new() }
    }

    /// Reads the valid checkpoint.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Engine`].
    pub(crate) fn load(&mut self) -> Result<Loaded> {
        let loaded = self.read();
        self.engine.rest();
        loaded
    }

    fn read(&mut self) -> Result<Loaded> {
        let mark = self.mark()?;
        // The process before may have been killed between writing the mark and syncing it. What is superseded by this mark
        // may be removed only when the mark itself cannot be lost any more.
        if mark.is_some() {
            self.engine.sync()?;
        }
        let mut loaded = Loaded::default();
        let valid = mark.as_ref().map_or(0, |mark: &Mark| mark.index);
        for kind in kind::ALL {
            let mut records = Records { valid, last: None, stale: &mut self.stale };
            let graves = &mut self.graves;
            self.engine.scan(&[kind], &mut |key, value| match records.push(key, value).map_err(corrupt)? {
                Some(record) => record.read(&mut loaded, graves),
                None => Ok(()),
            })?;
            if let Some(record) = records.last.take() {
                record.read(&mut loaded, graves)?;
            }
        }
        self.valid = valid;
        loaded.mark = mark;
        Ok(loaded)
    }

    fn mark(&mut self) -> Result<Option<Mark>> {
        let mut mark = None;
        self.engine.scan(MARK, &mut |_, value| {
            mark = Some(Mark::decode(value).map_err(corrupt)?);
            Ok(())
        })?;
        Ok(mark)
    }

    /// Writes a checkpoint; it is on stable storage when this returns. Tells how much of the disk all takes then.
    ///
    /// # Errors
    /// [`Error::DiskFull`], [`Error::Engine`], [`Error::Io`]: the checkpoint before is still valid, and the same changes
    /// must be in the next one again.
    pub(crate) fn save(&mut self, job: &Job) -> Result<u64> {
        let saved = self.steps(job);
        self.engine.rest();
        saved.and_then(|()| self.engine.size())
    }

    fn steps(&mut self, job: &Job) -> Result<()> {
        if self.left == Left::Unknown && self.mark()?.map_or(0, |mark| mark.index) == self.valid {
            self.left = Left::Unmarked;
        }
        let left = self.left;
        let is_anew = job.anew.is_some();
        if is_anew {
            self.engine.begin_anew()?;
        } else {
            self.remove_stale()?;
        }
        // One that was begun anew is gone if it came to nothing, or it has taken the other's place.
        self.left = if is_anew || left == Left::Unknown { Left::Unknown } else { Left::Unmarked };
        let (changes, superseded, graves) = (Vec::new(), Vec::new(), Vec::new());
        let mut writing = Writing { index: job.mark.index, changes, superseded, graves };
        for (key, entry) in &job.entries {
            let body = entry.as_ref().map(|entry| encode_entry(entry));
            self.supersede(prefix(kind::ENTRY, key), body.as_deref(), &mut writing)?;
        }
        for entry in &job.fresh {
            let (key, body) = (prefix(kind::ENTRY, &entry.key), encode_entry(entry));
            if left == Left::Unknown && !is_anew {
                self.supersede(key, Some(&body), &mut writing)?;
            } else {
                writing.put(key, Some(&body));
                self.flush(&mut writing.changes, BATCH)?;
            }
        }
        for (id, ttl) in &job.leases {
            let body = ttl.map(|ttl| ttl.to_le_bytes());
            let body = body.as_ref().map(<[u8; 8]>::as_slice);
            self.supersede(prefix(kind::LEASE, &id.0.to_be_bytes()), body, &mut writing)?;
        }
        for (id, peer) in &job.peers {
            let body = peer.as_ref().map(Peer::encode);
            self.supersede(prefix(kind::PEER, &id.to_be_bytes()), body.as_deref(), &mut writing)?;
        }
        for (kind, key) in self.unnamed(job)? {
            self.supersede(prefix(kind, &key), None, &mut writing)?;
        }
        self.flush(&mut writing.changes, 0)?;
        self.engine.sync()?;
        self.left = Left::Unknown;
        self.engine.write(&[(MARK.to_vec(), Some(job.mark.encode()))])?;
        self.engine.sync()?;
        if is_anew {
            self.replace()?;
        } else {
            // The first sync above covered the removals of the last checkpoint, so what its graves covered stays away.
            let due = std::mem::replace(&mut self.graves, writing.graves);
            let removals: Vec<Change> = writing.superseded.into_iter().chain(due).map(|key| (key, None)).collect();
            removals.chunks(BATCH).try_for_each(|chunk| self.engine.write(chunk))?;
        }
        (self.valid, self.left) = (job.mark.index, Left::Nothing);
        Ok(())
    }

    /// Removes what is known to be neither valid nor about to be.
    fn remove_stale(&mut self) -> Result<()> {
        if self.left == Left::Unmarked {
            let (valid, stale) = (self.valid, &mut self.stale);
            for kind in kind::ALL {
                self.engine.scan(&[kind], &mut |stored, _| {
                    let (.., mut from) = stored_key(stored).map_err(corrupt)?;
                    if u64::from_be_bytes(from.array().map_err(corrupt)?) > valid {
                        stale.push(stored.to_vec());
                    }
                    Ok(())
                })?;
            }
        }
        let removals: Vec<Change> = self.stale.iter().map(|key| (key.clone(), None)).collect();
        removals.chunks(BATCH).try_for_each(|chunk| self.engine.write(chunk))?;
        self.stale.clear();
        Ok(())
    }

    /// What was begun anew takes the place of what was there: there is nothing in it that is stale.
    fn replace(&mut self) -> Result<()> {
        self.engine.replace()?;
        self.stale.clear();
        self.graves.clear();
        Ok(())
    }

    /// What is stored, and not in a job that says everything.
    fn unnamed(&mut self, job: &Job) -> Result<Vec<(u8, Vec<u8>)>> {
        if !job.whole {
            return Ok(Vec::new());
        }
        let mut named: BTreeSet<(u8, Vec<u8>)> =
            job.entries.iter().map(|(key, _)| (kind::ENTRY, key.to_vec())).collect();
        named.extend(job.leases.iter().map(|(id, _)| (kind::LEASE, id.0.to_be_bytes().to_vec())));
        named.extend(job.peers.iter().map(|(id, _)| (kind::PEER, id.to_be_bytes().to_vec())));
        let mut unnamed = Vec::new();
        for kind in kind::ALL {
            self.engine.scan(&[kind], &mut |stored, _| {
                let found = (kind, stored_key(stored).map_err(corrupt)?.1.to_vec());
                if unnamed.last() != Some(&found) && !named.contains(&found) {
                    unnamed.push(found);
                }
                Ok(())
            })?;
        }
        Ok(unnamed)
    }

    /// Writes a key's record of this checkpoint, and collects its older ones.
    fn supersede(&mut self, prefix: Vec<u8>, body: Option<&[u8]>, writing: &mut Writing) -> Result<()> {
        let own = [&prefix[..], &writing.index.to_be_bytes()].concat();
        let before = writing.superseded.len();
        self.engine.scan(&prefix, &mut |key, _| {
            if !key.starts_with(&own) {
                writing.superseded.push(key.to_vec());
            }
            Ok(())
        })?;
        if body.is_some() || writing.superseded.len() > before {
            writing.put(prefix, body);
        }
        self.flush(&mut writing.changes, BATCH)
    }

    fn flush(&mut self, changes: &mut Vec<Change>, at_least: usize) -> Result<()> {
        if changes.len() > at_least {
            self.engine.write(changes)?;
            changes.clear();
        }
        Ok(())
    }
}

/// kind 1 | length of key 2 | key; after it come index 8 and number of the chunk 4, in the order of numbers.
fn prefix(kind: u8, key: &[u8]) -> Vec<u8> {
    let mut prefix = Vec::with_capacity(key.len() + 15);
    prefix.push(kind);
    prefix.extend_from_slice(&u16::try_from(key.len()).unwrap_or(u16::MAX).to_be_bytes());
    prefix.extend_from_slice(key);
    prefix
}

/// Kind and key of a stored key, and the rest of it.
fn stored_key(stored: &[u8]) -> Result<(u8, &[u8], Reader<'_>), Malformed> {
    let mut from = Reader(stored);
    let kind = from.u8()?;
    let len = usize::from(u16::from_be_bytes(from.array()?));
    Ok((kind, from.take(len)?, from))
}

/// crc32 of the rest 4 | 0 for a grave, else 1 and the body.
fn encode_record(body: Option<&[u8]>) -> Vec<u8> {
    let mut record = vec![0; 4];
    record.put_u8(u8::from(body.is_some()));
    record.extend_from_slice(body.unwrap_or_default());
    let crc = crc32fast::hash(record.get(4..).unwrap_or_default());
    if let Some(front) = record.get_mut(..4) {
        front.copy_from_slice(&crc.to_le_bytes());
    }
    record
}

fn encode_entry(entry: &Entry) -> Vec<u8> {
    let mut out = Vec::with_capacity(32 + entry.value.len());
    for number in [entry.create_revision.0, entry.mod_revision.0, entry.version, entry.lease.unwrap_or_default().0] {
        out.put_u64(number);
    }
    out.extend_from_slice(&entry.value);
    out
}

/// Puts chunks together to records, and chooses of each key the valid one. The chunks of a record follow each other, and
/// so do the records of a key, oldest first.
#[derive(Debug)]
struct Records<'a> {
    valid: u64,
    last: Option<Record>,
    stale: &'a mut Vec<Vec<u8>>,
}

#[derive(Debug)]
struct Record {
    kind: u8,
    key: Vec<u8>,
    index: u64,
    bytes: Vec<u8>,
    /// The engine's keys.
    stored: Vec<Vec<u8>>,
    /// A chunk is missing: fine if superseded, since its removal may have been interrupted.
    holed: bool,
}

impl Records<'_> {
    /// Takes the next chunk; gives back a key's valid record when the next key begins.
    fn push(&mut self, stored: &[u8], value: &[u8]) -> Result<Option<Record>, Malformed> {
        let (kind, key, mut from) = stored_key(stored)?;
        let (index, chunk) = (u64::from_be_bytes(from.array()?), u32::from_be_bytes(from.array()?));
        from.end()?;
        if index > self.valid {
            self.stale.push(stored.to_vec());
            return Ok(None);
        }
        if let Some(last) = &mut self.last
            && last.key == key
            && last.index == index
        {
            last.holed |= chunk as usize != last.stored.len();
            last.stored.push(stored.to_vec());
            last.bytes.extend_from_slice(value);
            return Ok(None);
        }
        let record = Record {
            kind,
            key: key.to_vec(),
            index,
            bytes: value.to_vec(),
            stored: vec![stored.to_vec()],
            holed: chunk != 0,
        };
        match self.last.replace(record) {
            Some(last) if last.key == key => {
                self.stale.extend(last.stored);
                Ok(None)
            }
            last => Ok(last),
        }
    }
}

impl Record {
    fn read(self, loaded: &mut Loaded, graves: &mut Vec<Vec<u8>>) -> Result<()> {
        match self.decode().map_err(corrupt)? {
            Decoded::Entry(entry) => loaded.entries.push(Arc::new(entry)),
            Decoded::Lease(lease) => loaded.leases.push(lease),
            Decoded::Peer(id, peer) => loaded.peers.push((id, peer)),
            Decoded::Grave => graves.extend(self.stored),
        }
        Ok(())
    }

    fn decode(&self) -> Result<Decoded, Malformed> {
        if self.holed {
            return Err(Malformed("a chunk of a record is missing"));
        }
        let mut from = Reader(&self.bytes);
        let crc = from.u32()?;
        if crc != crc32fast::hash(from.0) {
            return Err(Malformed("a record does not match its checksum"));
        }
        if from.u8()? == 0 {
            return Ok(Decoded::Grave);
        }
        if self.kind == kind::LEASE {
            let id = LeaseId(u64::from_be_bytes(Reader(&self.key).array()?));
            return Ok(Decoded::Lease((id, from.u64()?)));
        }
        if self.kind == kind::PEER {
            let id = u64::from_be_bytes(Reader(&self.key).array()?);
            return Ok(Decoded::Peer(id, Peer::decode(from.0)?));
        }
        let (create, modified, version, lease) = (from.u64()?, from.u64()?, from.u64()?, from.u64()?);
        Ok(Decoded::Entry(Entry {
            key: Bytes::copy_from_slice(&self.key),
            value: Bytes::copy_from_slice(from.0),
            create_revision: Revision(create),
            mod_revision: Revision(modified),
            version,
            lease: Some(LeaseId(lease)).filter(|id| *id != LeaseId::default()),
            derived: Derived::default(),
        }))
    }
}

enum Decoded {
    Entry(Entry),
    Lease(LeaseRecord),
    Peer(u64, Peer),
    Grave,
}

impl Mark {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![if self.received { RECEIVED } else { VERSION }];
        for number in [self.index, self.term, self.revision.0] {
            out.put_u64(number);
        }
        let members = &self.members;
        for ids in [&members.voters, &members.learners, &members.voters_outgoing, &members.learners_next] {
            out.put_u32(u32::try_from(ids.len()).unwrap_or(u32::MAX));
            ids.iter().for_each(|id| out.put_u64(*id));
        }
        out.put_u8(u8::from(members.auto_leave));
        let crc = crc32fast::hash(&out);
        out.put_u32(crc);
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let (body, crc) = bytes.split_last_chunk::<4>().ok_or(Malformed("the mark is cut short"))?;
        if u32::from_le_bytes(*crc) != crc32fast::hash(body) {
            return Err(Malformed("the mark does not match its checksum"));
        }
        let mut from = Reader(body);
        let received = match from.u8()? {
            VERSION => false,
            RECEIVED => true,
            _ => return Err(Malformed("a checkpoint of an unknown version")),
        };
        let (index, term, revision) = (from.u64()?, from.u64()?, Revision(from.u64()?));
        let mut ids = || -> Result<Vec<u64>, Malformed> { (0..from.count(8)?).map(|_| from.u64()).collect() };
        let (voters, learners, voters_outgoing, learners_next) = (ids()?, ids()?, ids()?, ids()?);
        let auto_leave = from.u8()? != 0;
        from.end()?;
        let members =
            ConfState { voters, learners, voters_outgoing, learners_next, auto_leave, ..ConfState::default() };
        Ok(Self { index, term, revision, members, received })
    }
}

fn corrupt(Malformed(what): Malformed) -> Error {
    Error::Corrupt { file: "state".to_owned(), offset: 0, what: what.to_owned() }
}
