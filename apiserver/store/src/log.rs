//! The Raft log on disk: segment files of frames, each one group commit.
//!
//! Entries, the hard state and nothing else. A frame is appended and synced once; a segment is begun when the last is
//! full; segments are removed from the front when a checkpoint holds what they say. Entries not yet applied are kept in
//! memory as well, older ones are read from their place on disk when somebody asks.
//!
//! Room is reserved before anything is proposed, so a full disk refuses a write instead of interrupting it. It is zeros that
//! frames are written over: syncing those changes nothing but their own blocks, where a file that grows, or room that was
//! only promised, has the file system write its journal for every sync.

use std::{collections::VecDeque, io, sync::Arc, time::Duration};

use raft::eraftpb::{ConfState, Entry, EntryType, HardState, SnapshotMetadata};

pub use self::opening::{Recovery, Torn};
pub(crate) use self::record::{entry_type, entry_type_of};
use self::{
    frame::Frame,
    record::{get_entry, put_entry, put_hard_state},
    segment::{ClusterId, Header},
};
use crate::{
    codec::Malformed,
    disk::{Disk, is_full},
    error::{Error, Result},
};

pub(crate) mod frame;
mod opening;
mod record;
pub(crate) mod segment;
mod storage;

/// Room is reserved for so many group commits like the one that asks for it, so that few do, and a log that is hardly written to
/// is hardly written ahead of;
const AHEAD: u64 = 8;

/// and for no more than this part of a segment.
const STEPS: u64 = 16;

/// What file systems write at least.
const BLOCK: u64 = 4096;

/// Room that is always reserved beyond what is written: for a hard state, the leader's own entry after an election, and
/// the heads of a frame and its records. What is left of it holds many a frame of [`Log::keep_commit`].
const MARGIN: u64 = 1024;

/// A frame's memory beyond this is not kept for the next.
const KEPT: usize = 1 << 20;

/// Room for a frame with a hard state and nothing else.
const NOTE: u64 = 64;

/// An entry's place on disk.
#[derive(Clone, Copy, Debug)]
struct Place {
    segment: u64,
    at: u32,
    len: u32,
    crc: u32,
    term: u64,
}

#[derive(Debug)]
struct Segment {
    number: u64,
    /// The log's last index and its term when the segment was begun.
    index: u64,
    term: u64,
    len: u64,
    reserved: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Log<D> {
    disk: D,
    segment_bytes: u64,
    cluster: ClusterId,
    /// Never empty.
    segments: VecDeque<Segment>,
    /// One for each entry; the first is of index `before.0 + 1`.
    places: VecDeque<Place>,
    /// Index and term of the entry before the first.
    before: (u64, u64),
    /// The youngest entries, those not yet applied among them.
    recent: VecDeque<Entry>,
    /// What the last frame was made in, for the next.
    buffer: Vec<u8>,
    hard_state: HardState,
    /// The commit index as stable storage has it.
    kept: u64,
    conf_state: ConfState,
    next_frame: u64,
    /// Index of the last entry that changes the members.
    last_change: u64,
    appended: u64,
    syncs: u64,
    /// What the syncs took; and the slowest of them, and all together, since that was asked.
    sync_time: Duration,
    lately: (Duration, Duration),
    /// Entries were taken off the end: the next stand in a segment of their own, so that none holds an index twice.
    truncated: bool,
    /// What raft-rs asks of the log although others must answer it.
    held: storage::Held,
}

impl<D: Disk> Log<D> {
    /// Puts an entry's place into the table.
    fn place(&mut self, index: u64, place: Place) -> Result<(), Malformed> {
        if index != self.last() + 1 {
            return Err(Malformed("entry out of order"));
        }
        self.places.push_back(place);
        Ok(())
    }

    /// Takes off the entries from `first` on: a leader has others in their place, so they were never committed.
    fn truncate(&mut self, first: u64) {
        let keep = usize::try_from(first.saturating_sub(self.before.0 + 1)).unwrap_or(usize::MAX);
        self.places.truncate(keep);
        while self.recent.back().is_some_and(|recent| recent.index >= first) {
            self.recent.pop_back();
        }
        self.truncated = true;
    }

    /// The index of the last entry.
    pub(crate) fn last(&self) -> u64 {
        self.before.0 + self.places.len() as u64
    }

    /// Bytes appended, syncs, and the time these took, since it was opened.
    pub(crate) const fn work(&self) -> (u64, u64, Duration) {
        (self.appended, self.syncs, self.sync_time)
    }

    fn place_of(&self, index: u64) -> Option<&Place> {
        let at = index.checked_sub(self.before.0 + 1)?;
        self.places.get(usize::try_from(at).ok()?)
    }

    /// The term of an entry of the log, or of the one before the first.
    pub(crate) fn term_of(&self, index: u64) -> Option<u64> {
        if index == self.before.0 { Some(self.before.1) } else { self.place_of(index).map(|place| place.term) }
    }

    /// Makes sure that a group commit of so many bytes will find room.
    ///
    /// # Errors
    /// [`Error::DiskFull`]: nothing has changed. [`Error::Failed`].
    pub(crate) fn reserve(&mut self, bytes: usize) -> Result<()> {
        let (ahead, bytes) = (AHEAD * bytes as u64, bytes as u64 + MARGIN);
        let Some(segment) = self.segments.back_mut() else { return Err(failed("write", "log has no segment")) };
        if segment.len > self.segment_bytes || self.truncated {
            let number = segment.number + 1;
            return self.begin_segment(number, bytes);
        }
        let upto = segment.len + bytes;
        let reserved = segment.reserved;
        if upto > reserved {
            let upto = reaching(upto, ahead, self.segment_bytes);
            let name = segment::name(segment.number);
            // What follows syncs it along.
            if let Err(error) = self.disk.write(&name, reserved, &zeros(upto - reserved)) {
                self.disk.truncate(&name, reserved).map_err(|error| failed("give back room", &error))?;
                return Err(refuse("reserve room", &error));
            }
            segment.reserved = upto;
            self.appended += upto - reserved;
        }
        Ok(())
    }

    /// Begins a segment: used only when its beginning is on stable storage, so that an unfinished one holds nothing.
    fn begin_segment(&mut self, number: u64, bytes: u64) -> Result<()> {
        let name = segment::name(number);
        let index = self.last();
        let term = self.term_of(index).unwrap_or(0);
        let header = Header { cluster: self.cluster, number, first_frame: self.next_frame, index, term };
        let mut beginning = header.encode();
        let mut frame = Frame::new(Vec::new(), 64);
        // The entries that go with it are not written yet, and one may be what it says is committed.
        let commit = self.hard_state.commit.min(index);
        put_hard_state(&mut frame, &HardState { commit, ..self.hard_state.clone() });
        beginning.extend(frame.seal(self.next_frame));
        let len = beginning.len() as u64;
        let reserved = reaching(len + bytes, 0, self.segment_bytes);
        beginning.extend(zeros(reserved - len));
        let written = self.disk.create(&name).and_then(|()| self.disk.write(&name, 0, &beginning));
        if let Err(error) = written {
            // An unfinished segment is also recognised, and removed, when the log is opened.
            self.disk.remove(&name).or_else(|error| match error.kind() {
                io::ErrorKind::NotFound => Ok(()),
                _ => Err(failed("remove an unfinished segment", &error)),
            })?;
            return Err(refuse("begin a segment", &error));
        }
        let took = self.disk.sync(&name).map_err(|error| failed("sync a new segment", &error))?;
        self.note_sync(took);
        self.disk.sync_dir().map_err(|error| failed("sync the log's directory", &error))?;
        self.next_frame += 1;
        self.kept = self.kept.max(commit);
        self.truncated = false;
        self.appended += reserved;
        self.syncs += 1;
        self.segments.push_back(Segment { number, index, term, len, reserved });
        Ok(())
    }

    /// Appends one group commit. [`Log::sync`] must follow before anything else is appended: that a frame follows is what
    /// tells that the one before was on stable storage.
    ///
    /// # Errors
    /// [`Error::DiskFull`]: nothing was appended. [`Error::Failed`].
    pub(crate) fn append(&mut self, entries: Vec<Entry>, hard_state: Option<&HardState>) -> Result<()> {
        let before = self.hard_state.clone();
        if let Some(hard_state) = hard_state {
            self.hard_state = hard_state.clone();
        }
        let appended = self.write_frame(entries);
        if appended.is_err() {
            // A vote that is not on stable storage was not given.
            self.hard_state = before;
        }
        appended
    }

    fn write_frame(&mut self, entries: Vec<Entry>) -> Result<()> {
        if let Some(first) = entries.first().map(|entry| entry.index).filter(|first| *first <= self.last()) {
            self.truncate(first);
        }
        self.reserve(entries.iter().map(|entry| entry.data.len() + 64).sum())?;
        self.put_frame(entries)
    }

    /// Writes a frame where there is room for it.
    fn put_frame(&mut self, entries: Vec<Entry>) -> Result<()> {
        let Some(segment) = self.segments.back_mut() else { return Err(failed("write", "log has no segment")) };
        let buffer = std::mem::take(&mut self.buffer);
        let mut frame = Frame::new(buffer, entries.iter().map(|entry| entry.data.len() + 64).sum());
        let mut places = Vec::with_capacity(entries.len());
        let base = usize::try_from(segment.len).map_err(|_| failed("write", "segment too long"))?;
        for entry in &entries {
            let at = put_entry(&mut frame, entry);
            let crc = frame.crc(at);
            places.push(Place {
                segment: segment.number,
                at: narrow(base + at),
                len: narrow(frame.len() - at),
                crc,
                term: entry.term,
            });
        }
        put_hard_state(&mut frame, &self.hard_state);
        if frame.len() > frame::LONGEST {
            return Err(failed("append", "more entries at once than one frame may hold"));
        }
        let bytes = frame.seal(self.next_frame);
        let name = segment::name(segment.number);
        if let Err(error) = self.disk.write(&name, segment.len, &bytes) {
            // Back to the last whole frame: what was written in part must not stand before what comes next.
            self.disk.truncate(&name, segment.len).map_err(|error| failed("cut a frame written in part", &error))?;
            segment.reserved = segment.len;
            return Err(refuse("append", &error));
        }
        segment.len += bytes.len() as u64;
        self.appended += bytes.len() as u64;
        self.next_frame += 1;
        self.kept = self.hard_state.commit;
        self.buffer = Some(bytes).filter(|bytes| bytes.capacity() <= KEPT).unwrap_or_default();
        for (entry, place) in entries.into_iter().zip(places) {
            let index = entry.index;
            if entry.entry_type != EntryType::EntryNormal {
                self.last_change = index;
            }
            self.place(index, place).map_err(|Malformed(what)| failed("append", what))?;
            self.recent.push_back(entry);
        }
        Ok(())
    }

    /// Puts what was appended on stable storage. Never tried again after it failed once: the kernel may have dropped the
    /// pages and would say yes the second time (PostgreSQL's "fsyncgate", LWN 752063).
    ///
    /// # Errors
    /// [`Error::Failed`].
    pub(crate) fn sync(&mut self) -> Result<()> {
        let Some(segment) = self.segments.back() else { return Err(failed("sync", "log has no segment")) };
        self.syncs += 1;
        let took = self.disk.sync(&segment::name(segment.number)).map_err(|error| failed("sync", &error))?;
        self.note_sync(took);
        Ok(())
    }

    fn note_sync(&mut self, took: Duration) {
        self.sync_time += took;
        self.lately = (self.lately.0.max(took), self.lately.1 + took);
    }

    /// How long the slowest sync took since this was last asked, and how long all together.
    pub(crate) fn take_lately(&mut self) -> (Duration, Duration) {
        std::mem::take(&mut self.lately)
    }

    /// Notes a later commit index; it is written along with the next group commit, since it can be found out anew.
    pub(crate) fn note_commit(&mut self, commit: u64) {
        self.hard_state.commit = self.hard_state.commit.max(commit);
    }

    /// Puts the commit index on stable storage by itself, unless it is there. On a full disk it takes of the room that was
    /// reserved with what is written: where a file system keeps such promises, and the process that was given them lives,
    /// there is always enough.
    ///
    /// # Errors
    /// As [`Log::append`] and [`Log::sync`].
    pub(crate) fn keep_commit(&mut self) -> Result<()> {
        if self.kept >= self.hard_state.commit {
            return Ok(());
        }
        let reserved = self.reserve(0);
        let left = self.segments.back().map_or(0, |segment| segment.reserved.saturating_sub(segment.len));
        if !matches!(reserved, Err(Error::DiskFull)) || left < NOTE {
            reserved?;
        }
        self.put_frame(Vec::new())?;
        self.sync()
    }

    /// The commit index as stable storage has it.
    pub(crate) const fn kept(&self) -> u64 {
        self.kept
    }

    /// What the only voter has on stable storage is committed, whether or not its log says so yet: it may have been told
    /// to a client. Not so beyond an entry that changes the members.
    pub(crate) fn commit_alone(&mut self, applied: u64) {
        if self.last_change <= applied && self.hard_state.commit < self.last() {
            self.note_commit(self.last());
        }
    }

    /// Notes who the members are, as of what was applied.
    pub(crate) fn note_members(&mut self, conf_state: ConfState) {
        self.conf_state = conf_state;
    }

    /// The members, as of what was applied.
    pub(crate) const fn members(&self) -> &ConfState {
        &self.conf_state
    }

    /// Whether raft-rs asked for an image of the state, to be offered with [`Log::offer`].
    pub(crate) fn take_wanted(&self) -> bool {
        self.held.wanted.take()
    }

    /// An image as of `index` of `term` is there for whoever is too far behind; none any more if it is `None`.
    pub(crate) fn offer(&self, image: Option<(u64, u64)>) {
        let metadata = image.map(|(index, term)| {
            let conf_state = Some(self.conf_state.clone()).into();
            SnapshotMetadata { index, term, conf_state, ..SnapshotMetadata::default() }
        });
        self.held.offered.replace(metadata);
    }

    /// What could not be read back of the log for a peer, if anything.
    pub(crate) fn take_damage(&self) -> Option<Error> {
        self.held.damage.take()
    }

    /// Entries up to here have been applied and need not be kept in memory.
    pub(crate) fn applied(&mut self, index: u64) {
        while self.recent.front().is_some_and(|entry| entry.index <= index) {
            self.recent.pop_front();
        }
    }

    /// Removes the segments that say nothing after `index`, which a checkpoint on stable storage holds.
    ///
    /// # Errors
    /// [`Error::Failed`].
    pub(crate) fn cut(&mut self, index: u64) -> Result<()> {
        // The log may begin with a segment only if none that follows overwrote what comes before that one's beginning.
        let mut least = u64::MAX;
        let mut first = None;
        for (at, segment) in self.segments.iter().enumerate().rev() {
            if segment.index <= index.min(least) {
                first = Some((at, segment.index, segment.term));
                break;
            }
            least = least.min(segment.index);
        }
        let Some((at, begin, term)) = first.filter(|(at, ..)| *at > 0) else { return Ok(()) };
        let gone = usize::try_from(begin.saturating_sub(self.before.0)).unwrap_or(usize::MAX);
        self.places.drain(..gone.min(self.places.len()));
        self.before = (begin, term);
        let removed: Vec<u64> = self.segments.drain(..at).map(|segment| segment.number).collect();
        for number in removed {
            self.disk.remove(&segment::name(number)).map_err(|error| failed("remove a segment", &error))?;
        }
        self.places.shrink_to(2 * self.places.len());
        self.disk.sync_dir().map_err(|error| failed("sync the log's directory", &error))
    }

    /// Begins the log anew behind `index` of `term`: a checkpoint on stable storage, which came from another member,
    /// holds everything up to there, and this log does not. What was in it goes; term and vote stay.
    ///
    /// The new segment's number leaves a gap, which tells [`Log::open`] that those before it are on their way out.
    ///
    /// # Errors
    /// [`Error::DiskFull`]: nothing has changed. [`Error::Failed`].
    pub(crate) fn restart_at(&mut self, (index, term): (u64, u64)) -> Result<()> {
        let old: Vec<u64> = self.segments.iter().map(|segment| segment.number).collect();
        let (before, places) = (self.before, std::mem::take(&mut self.places));
        self.before = (index, term);
        let commit = std::mem::replace(&mut self.hard_state.commit, index);
        if let Err(error) = self.begin_segment(old.last().copied().unwrap_or(0) + 2, 0) {
            (self.before, self.places, self.hard_state.commit) = (before, places, commit);
            return Err(error);
        }
        self.segments.retain(|segment| !old.contains(&segment.number));
        self.truncated = false;
        self.recent.clear();
        self.last_change = 0;
        for number in old {
            self.disk.remove(&segment::name(number)).map_err(|error| failed("remove a segment", &error))?;
        }
        self.disk.sync_dir().map_err(|error| failed("sync the log's directory", &error))
    }

    /// Bytes of the segments there are.
    pub(crate) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.len).sum()
    }

    /// Reads entries from memory or from their places.
    fn read(&self, low: u64, high: u64, max: u64) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let mut bytes = 0;
        let mut index = low;
        let mut buffer = (0, 0, Vec::new());
        while index < high {
            let place = self.place_of(index).ok_or_else(|| failed("read", "entry is not in the log"))?;
            bytes += u64::from(place.len);
            if bytes > max && !entries.is_empty() {
                break;
            }
            let recent = self.recent.front().and_then(|front| index.checked_sub(front.index));
            let recent = recent.and_then(|at| self.recent.get(usize::try_from(at).ok()?));
            match recent {
                Some(entry) => entries.push(entry.clone()),
                None => entries.push(self.read_place(index, place, &mut buffer)?),
            }
            index += 1;
        }
        Ok(entries)
    }

    /// Reads an entry from disk, and what follows it along with it: entries are mostly read in order.
    fn read_place(&self, index: u64, place: &Place, buffer: &mut (u64, u32, Vec<u8>)) -> Result<Entry> {
        let name = segment::name(place.segment);
        let within = |(segment, at, bytes): &(u64, u32, Vec<u8>)| {
            let from = (*segment == place.segment).then(|| place.at.checked_sub(*at)).flatten()? as usize;
            (from + place.len as usize <= bytes.len()).then_some(from)
        };
        let from = match within(buffer) {
            Some(from) => from,
            None => {
                let len = (place.len as usize).max(256 << 10);
                let bytes = self.disk.read(&name, u64::from(place.at), len).map_err(|error| failed("read", &error))?;
                *buffer = (place.segment, place.at, bytes);
                0
            }
        };
        let body = buffer.2.get(from..from + place.len as usize);
        let body = body.filter(|body| crc32fast::hash(body) == place.crc);
        body.and_then(|body| get_entry(body).ok())
            .filter(|entry| entry.index == index)
            .ok_or_else(|| corrupt(&name, u64::from(place.at), "entry does not match its checksum"))
    }
}

impl Place {
    fn new(segment: u64, at: usize, body: &[u8], term: u64) -> Self {
        Self { segment, at: narrow(at), len: narrow(body.len()), crc: crc32fast::hash(body), term }
    }
}

/// How far room reaches that is needed up to there, with some ahead.
fn reaching(upto: u64, ahead: u64, segment_bytes: u64) -> u64 {
    let most = segment_bytes / STEPS;
    (upto + ahead.min(most)).next_multiple_of(most.clamp(512, BLOCK))
}

fn zeros(bytes: u64) -> Vec<u8> {
    vec![0; usize::try_from(bytes).unwrap_or_default()]
}

/// Segments end soon after a few MiB, so offsets in them fit.
fn narrow(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

fn corrupt(file: &str, offset: u64, what: &str) -> Error {
    Error::Corrupt { file: file.to_owned(), offset, what: what.to_owned() }
}

fn failed(action: &str, error: &(impl std::fmt::Display + ?Sized)) -> Error {
    Error::Failed { reason: Arc::from(format!("cannot {action}: {error}")) }
}

fn refuse(action: &str, error: &io::Error) -> Error {
    if is_full(error) { Error::DiskFull } else { failed(action, error) }
}
