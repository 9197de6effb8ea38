//! Opening the log: every frame is looked at, and what was being written when the power went is cut off.

use std::{collections::VecDeque, fmt, time::Duration};

use raft::eraftpb::HardState;

use super::{
    Log, Place, Segment, corrupt,
    frame::{self, Found},
    record::{self, NORMAL},
    segment::{self, ClusterId, Header},
    storage,
};
use crate::{
    checkpoint::Mark,
    codec::{Malformed, Reader},
    disk::Disk,
    error::{Error, Result},
};

/// What opening the log found, and what it had to cut off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Segment files read.
    pub segments: usize,
    /// Entries in them.
    pub entries: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// What was being written when the power went or the process was killed, and was cut off.
    pub torn: Option<Torn>,
    /// A segment that was only just being begun, and was removed.
    pub unfinished: Option<String>,
}

/// The end of the log, which was being written. Nobody had been told that it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Torn {
    /// The segment's file.
    pub file: String,
    /// Where in it what was cut off began.
    pub offset: u64,
    /// How many bytes were cut off.
    pub bytes: u64,
}

impl fmt::Display for Torn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, offset, bytes } = self;
        write!(f, "{bytes} bytes of {file} from byte {offset} on, which were never acknowledged, were cut off")
    }
}

impl<D: Disk> Log<D> {
    /// Reads the log. `base`: the checkpoint that holds what the log said up to there, and the members as of then. A
    /// segment is closed when it is longer than `segment_bytes`.
    pub(crate) fn open(disk: D, cluster: ClusterId, base: &Mark, segment_bytes: u64) -> Result<(Self, Recovery)> {
        let applied = (base.index, base.term);
        let mut log = Self {
            disk,
            segment_bytes,
            cluster,
            segments: VecDeque::new(),
            places: VecDeque::new(),
            before: (0, 0),
            recent: VecDeque::new(),
            buffer: Vec::new(),
            hard_state: HardState::default(),
            kept: 0,
            conf_state: base.members.clone(),
            next_frame: 1,
            last_change: 0,
            appended: 0,
            syncs: 0,
            sync_time: Duration::ZERO,
            lately: (Duration::ZERO, Duration::ZERO),
            truncated: false,
            held: storage::Held::default(),
        };
        let mut recovery = Recovery::default();
        let names = log.disk.list().map_err(Error::io("list the log's directory"))?;
        let numbers: Vec<u64> = names.iter().filter_map(|name| segment::number(name)).collect();
        let newest = numbers.last().copied().unwrap_or(0);
        // Of the segments that were being removed when the power went, any may be there again; a gap follows the last.
        // If nothing but the beginning of one segment stands behind the gap, the log was just being begun anew there.
        let mut left_over = &numbers[..];
        while log.segments.is_empty() && !left_over.is_empty() {
            let gap =
                left_over.windows(2).rposition(|pair| pair.first().map(|number| number + 1) != pair.last().copied());
            let (older, numbers) = left_over.split_at(gap.map_or(0, |gap| gap + 1));
            for (at, number) in numbers.iter().enumerate() {
                log.read_segment(*number, at == 0, at + 1 == numbers.len(), &mut recovery)?;
            }
            left_over = older;
        }
        if log.segments.is_empty() {
            if applied.0 > 0 && !base.received {
                return Err(corrupt("log", 0, "no segment is left, but a checkpoint speaks of earlier ones"));
            }
            log.begin_segment(newest + 1, 0)?;
        }
        if base.received && log.before.0 <= applied.0 && log.term_of(applied.0) != Some(applied.1) {
            // The process ended between taking in another member's image and beginning the log behind it.
            log.restart_at(applied)?;
        }
        if log.hard_state.commit > log.last() {
            return Err(corrupt("log", 0, "ends before an entry that it says is committed"));
        }
        if log.last() < applied.0 || log.before.0 > applied.0 {
            let what =
                format!("holds entries {} to {}, but the checkpoint is at {}", log.before.0 + 1, log.last(), applied.0);
            return Err(corrupt("log", 0, &what));
        }
        for number in left_over {
            let name = segment::name(*number);
            log.disk.remove(&name).map_err(Error::io(format!("remove {name}")))?;
        }
        // The commit index is written with the next frame only, so a checkpoint may know of a later one.
        if log.hard_state.commit < applied.0 {
            log.hard_state.commit = applied.0;
        }
        log.kept = log.hard_state.commit;
        // Room that was promised to the process before is not promised to this one, and that such a change is committed may
        // have to be kept by itself.
        if log.last_change > log.kept {
            match log.reserve(0) {
                Ok(()) | Err(Error::DiskFull) => {}
                Err(error) => return Err(error),
            }
        }
        recovery.entries = log.places.len() as u64;
        Ok((log, recovery))
    }

    fn read_segment(&mut self, number: u64, first: bool, last: bool, recovery: &mut Recovery) -> Result<()> {
        let name = segment::name(number);
        let len = self.disk.len(&name).map_err(Error::io(format!("read the length of {name}")))?;
        let want = usize::try_from(len).map_err(|_| corrupt(&name, 0, "longer than memory"))?;
        let bytes = self.disk.read(&name, 0, want).map_err(Error::io(format!("read {name}")))?;
        let header = match Header::decode(&bytes) {
            Ok(header) => header,
            // A segment is used only after its beginning was synced. If it has no whole frame it was never used.
            Err(_) if last && !frame::has_frame(&bytes) => {
                return self.remove_unfinished(name, recovery);
            }
            Err(Malformed(what)) => return Err(corrupt(&name, 0, what)),
        };
        if header.cluster != self.cluster {
            return Err(corrupt(&name, 0, "segment of another cluster's log"));
        }
        if first {
            self.before = (header.index, header.term);
            self.next_frame = header.first_frame;
        }
        if header.index < self.before.0 {
            // Those before it were being removed when the power went: nothing of them is needed.
            for segment in std::mem::take(&mut self.segments) {
                let name = segment::name(segment.number);
                self.disk.remove(&name).map_err(Error::io(format!("remove {name}")))?;
            }
            self.places.clear();
            self.before = (header.index, header.term);
            self.next_frame = header.first_frame;
        }
        // It may begin before the end: then what follows its beginning was overwritten.
        if header.index < self.last() {
            self.truncate(header.index + 1);
            self.truncated = false;
        }
        let end = (self.last(), self.term_of(self.last()).unwrap_or(0));
        let follows = self.segments.back().is_none_or(|segment| segment.number + 1 == number);
        if !follows || header.number != number || header.first_frame != self.next_frame {
            return Err(corrupt(&name, 0, "does not follow the segment before it: one is missing"));
        }
        if (header.index, header.term) != end {
            return Err(corrupt(&name, 0, "does not follow the last entry of the segment before it"));
        }
        let (mut at, mut last_frame, mut reserved) = (segment::HEADER, 0, bytes.len());
        loop {
            match frame::look(&bytes, at, last) {
                Found::End => break,
                Found::Frame { sequence, payload, next } => {
                    if sequence != self.next_frame {
                        return Err(corrupt(&name, at as u64, "frame out of order"));
                    }
                    self.read_frame(number, payload, at + frame::HEADER)
                        .map_err(|Malformed(what)| corrupt(&name, at as u64, what))?;
                    self.next_frame += 1;
                    // With the first frame goes the segment's header.
                    last_frame = if at == segment::HEADER { 0 } else { at };
                    at = next;
                }
                Found::Torn(_) if at == segment::HEADER => return self.remove_unfinished(name, recovery),
                Found::Torn(bytes) => {
                    recovery.torn = Some(Torn { file: name.clone(), offset: at as u64, bytes: bytes as u64 });
                    self.disk.truncate(&name, at as u64).map_err(Error::io(format!("cut {name}")))?;
                    let took = self.disk.sync(&name).map_err(Error::io(format!("sync {name}")))?;
                    self.note_sync(took);
                    reserved = at;
                    break;
                }
                Found::Damaged(what) => return Err(corrupt(&name, at as u64, what)),
            }
        }
        if at == segment::HEADER && last {
            return self.remove_unfinished(name, recovery);
        }
        if last {
            self.renew(&name, last_frame, bytes.get(last_frame..at).unwrap_or_default())?;
        }
        recovery.segments += 1;
        recovery.bytes += at as u64;
        let segment =
            Segment { number, index: header.index, term: header.term, len: at as u64, reserved: reserved as u64 };
        self.segments.push_back(segment);
        Ok(())
    }

    /// Writes the last frame once more. If the process before ended because syncing it failed, what was just read may be
    /// in the page cache alone, marked clean: no sync would ever write it again.
    fn renew(&mut self, name: &str, at: usize, bytes: &[u8]) -> Result<()> {
        let renewed = self.disk.write(name, at as u64, bytes).and_then(|()| self.disk.sync(name)).and_then(|took| {
            self.disk.sync_dir()?;
            Ok(took)
        });
        self.note_sync(renewed.map_err(Error::io(format!("renew the end of {name}")))?);
        Ok(())
    }

    fn remove_unfinished(&mut self, name: String, recovery: &mut Recovery) -> Result<()> {
        self.disk.remove(&name).map_err(Error::io(format!("remove {name}")))?;
        self.disk.sync_dir().map_err(Error::io("sync the log's directory"))?;
        recovery.unfinished = Some(name);
        Ok(())
    }

    fn read_frame(&mut self, segment: u64, payload: &[u8], offset: usize) -> Result<(), Malformed> {
        let mut from = Reader(payload);
        while !from.0.is_empty() {
            let kind = from.u8()?;
            let body = from.slice()?;
            match kind {
                record::ENTRY => {
                    let end = offset + payload.len() - from.0.len();
                    let mut entry = Reader(body);
                    let (index, term) = (entry.u64()?, entry.u64()?);
                    if entry.u8()? != NORMAL {
                        self.last_change = index;
                    }
                    self.place(index, Place::new(segment, end - body.len(), body, term))?;
                }
                record::HARD_STATE => {
                    let mut state = Reader(body);
                    let (term, vote, commit) = (state.u64()?, state.u64()?, state.u64()?);
                    state.end()?;
                    self.hard_state = HardState { term, vote, commit, ..HardState::default() };
                }
                _ => return Err(Malformed("record of an unknown kind")),
            }
        }
        Ok(())
    }
}
