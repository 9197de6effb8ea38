//! Frames: what one group commit writes, whole or not at all.
//!
//! ```text
//! magic 4 | length 4 | sequence 8 | crc32 of payload 4 | crc32 of the 20 bytes before 4 | payload … end mark 1
//! payload: records, each kind 1 | length 4 | body
//! ```
//!
//! A frame is written only after the one before it was synced. So what follows from what is found damaged:
//! - a damaged frame *with* a whole one after it was synced once: the disk lost what it had promised to keep;
//! - a damaged frame with nothing after it, in which a sector reads as zeros or the file ends, was being written when the
//!   power went: it was written over zeros, or where nothing was, so what did not arrive is a hole. Nobody was told of it, and
//!   it is cut off;
//! - a damaged last frame without such a hole arrived as a whole and has changed since: damage again.
//!
//! Behind the last frame are zeros: room for those to come.

use crate::codec::Reader;

/// Bytes before the payload.
pub(crate) const HEADER: usize = 24;
/// No byte of it is zero, so that a hole never looks like its beginning.
const MAGIC: [u8; 4] = [0xC0, b'L', b'O', b'G'];
/// Not zero, so that a lost last sector shows.
const END: u8 = 0xE7;
/// Longest payload believed; group commits are cut far below.
pub(crate) const LONGEST: usize = 64 << 20;
/// What disks write as a whole (and no more than that).
const SECTOR: usize = 512;

/// A frame being filled.
#[derive(Debug)]
pub(crate) struct Frame(Vec<u8>);

impl Frame {
    /// In memory that was used before: what a busy server writes in one frame is so much that it would be asked of the
    /// kernel anew each time.
    pub(crate) fn new(mut bytes: Vec<u8>, capacity: usize) -> Self {
        bytes.clear();
        bytes.reserve(HEADER + capacity + 64);
        bytes.resize(HEADER, 0);
        Self(bytes)
    }

    /// Adds a record; gives the offset of its body within the frame.
    pub(crate) fn record(&mut self, kind: u8, body: &[&[u8]]) -> usize {
        let len: usize = body.iter().map(|part| part.len()).sum();
        self.0.push(kind);
        self.0.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
        let at = self.0.len();
        body.iter().for_each(|part| self.0.extend_from_slice(part));
        at
    }

    pub(crate) const fn len(&self) -> usize {
        self.0.len()
    }

    /// The checksum of what was added from `at` on.
    pub(crate) fn crc(&self, at: usize) -> u32 {
        crc32fast::hash(self.0.get(at..).unwrap_or_default())
    }

    /// Closes it with its number in the log.
    pub(crate) fn seal(mut self, sequence: u64) -> Vec<u8> {
        self.0.push(END);
        let payload = self.0.get(HEADER..).unwrap_or_default();
        let mut header = Vec::with_capacity(HEADER);
        header.extend_from_slice(&MAGIC);
        header.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes());
        header.extend_from_slice(&sequence.to_le_bytes());
        header.extend_from_slice(&crc32fast::hash(payload).to_le_bytes());
        header.extend_from_slice(&crc32fast::hash(&header).to_le_bytes());
        if let Some(front) = self.0.get_mut(..HEADER) {
            front.copy_from_slice(&header);
        }
        self.0
    }
}

/// What stands at an offset of a segment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found<'a> {
    /// A whole frame.
    Frame {
        /// Its number.
        sequence: u64,
        /// Its records.
        payload: &'a [u8],
        /// Where the next begins.
        next: usize,
    },
    /// The end of what was written.
    End,
    /// A frame that was being written when the power went, of which so many bytes arrived, the holes between them counted.
    Torn(usize),
    /// Something that was once whole.
    Damaged(&'static str),
}

/// Looks at the frame at `at` of a segment's bytes. `last`: whether it is the last segment, the only one that may end in
/// a torn frame.
pub(crate) fn look(bytes: &[u8], at: usize, last: bool) -> Found<'_> {
    let rest = bytes.get(at..).unwrap_or_default();
    let (bad, extent) = match header(rest) {
        // Behind the header is at least the end mark.
        None => ("frame header does not match its checksum", HEADER + 1),
        Some((len, sequence, crc)) => match rest.get(HEADER..HEADER + len) {
            Some(payload) if crc32fast::hash(payload) == crc => {
                let records = payload.get(..len.saturating_sub(1)).unwrap_or_default();
                return Found::Frame { sequence, payload: records, next: at + HEADER + len };
            }
            _ => ("frame does not match its checksum", HEADER + len),
        },
    };
    let is_written = |byte: &u8| *byte != 0;
    let Some(written) = rest.iter().rposition(is_written).map(|last| last + 1) else { return Found::End };
    // One bit that rots in the room behind the last frame harms nobody.
    let is_room = rest.iter().filter(|byte| is_written(byte)).count() == 1;
    if !last {
        return if is_room { Found::End } else { Found::Damaged(bad) };
    }
    if has_frame(rest.get(1..).unwrap_or_default()) {
        return Found::Damaged("a damaged frame is followed by a whole one");
    }
    // What a whole one ends in is not zero.
    if is_room || written < extent || has_hole(bytes, at, extent) { Found::Torn(written) } else { Found::Damaged(bad) }
}

fn header(bytes: &[u8]) -> Option<(usize, u64, u32)> {
    let (checked, _) = bytes.split_at_checked(HEADER - 4)?;
    let mut from = Reader(bytes);
    let magic: [u8; 4] = from.array().ok()?;
    let len = from.u32().ok()? as usize;
    let sequence = from.u64().ok()?;
    let crc = from.u32().ok()?;
    let own = from.u32().ok()?;
    (magic == MAGIC && own == crc32fast::hash(checked) && (1..=LONGEST).contains(&len)).then_some((len, sequence, crc))
}

/// Whether a whole frame begins anywhere in the bytes.
pub(crate) fn has_frame(bytes: &[u8]) -> bool {
    bytes.windows(MAGIC.len()).enumerate().filter(|(_, window)| *window == MAGIC).any(|(at, _)| {
        let rest = bytes.get(at..).unwrap_or_default();
        header(rest).is_some_and(|(len, _, crc)| {
            rest.get(HEADER..HEADER + len).is_some_and(|payload| crc32fast::hash(payload) == crc)
        })
    })
}

/// Whether some sector of a frame did not arrive.
fn has_hole(bytes: &[u8], at: usize, extent: usize) -> bool {
    let end = at + extent;
    let mut from = at;
    while from < end {
        let to = ((from / SECTOR + 1) * SECTOR).min(end);
        if bytes.get(from..to).is_some_and(|part| part.iter().all(|byte| *byte == 0)) {
            return true;
        }
        from = to;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(sequence: u64, len: usize) -> Vec<u8> {
        let mut frame = Frame::new(Vec::new(), len);
        frame.record(1, &[&vec![0x5A; len]]);
        frame.seal(sequence)
    }

    #[test]
    fn a_whole_frame_is_read_back() {
        let bytes = [frame(7, 10), frame(8, 2000)].concat();
        let Found::Frame { sequence: 7, payload, next } = look(&bytes, 0, true) else { panic!() };
        assert_eq!(payload.len(), 5 + 10);
        let Found::Frame { sequence: 8, next, .. } = look(&bytes, next, true) else { panic!() };
        assert_eq!(look(&bytes, next, true), Found::End);
    }

    /// Two frames, where the second begins, and the same with room behind them.
    fn two() -> (usize, [Vec<u8>; 2]) {
        let whole = [frame(1, 100), frame(2, 3000)].concat();
        let room = [&whole[..], &[0; 2000]].concat();
        (frame(1, 100).len(), [whole, room])
    }

    #[test]
    fn a_tail_that_was_cut_anywhere_is_torn() {
        let (second, [whole, room]) = two();
        for len in second + 1..whole.len() {
            let written = whole[second..len].iter().rposition(|byte| *byte != 0).unwrap() + 1;
            assert_eq!(look(&whole[..len], second, true), Found::Torn(written), "cut at {len}");
            let mut zeros = room.clone();
            zeros[len..].fill(0);
            assert_eq!(look(&zeros, second, true), Found::Torn(written), "zeros from {len}");
        }
    }

    #[test]
    fn a_lost_sector_of_the_last_frame_is_torn_and_a_flipped_bit_is_damage() {
        let (second, files) = two();
        let end = files[0].len();
        for whole in files {
            for sector in second / SECTOR..=end / SECTOR {
                let (from, to) = ((sector * SECTOR).max(second), ((sector + 1) * SECTOR).min(end));
                let mut lost = whole.clone();
                lost[from..to].fill(0);
                assert!(matches!(look(&lost, second, true), Found::Torn(_)), "sector {sector}");
            }
            for at in second..end {
                let mut flipped = whole.clone();
                flipped[at] ^= 4;
                assert!(matches!(look(&flipped, second, true), Found::Damaged(_)), "byte {at}");
            }
        }
    }

    #[test]
    fn a_bit_that_rots_in_the_room_behind_the_last_frame_harms_nobody() {
        let (_, [whole, room]) = two();
        for at in whole.len()..room.len() {
            let mut flipped = room.clone();
            flipped[at] ^= 4;
            assert_eq!(look(&flipped, whole.len(), true), Found::Torn(at + 1 - whole.len()), "byte {at}");
            assert_eq!(look(&flipped, whole.len(), false), Found::End, "byte {at}");
        }
        assert_eq!(look(&room, whole.len(), true), Found::End);
    }

    #[test]
    fn damage_before_a_whole_frame_is_never_cut_off() {
        let whole = [frame(1, 1000), frame(2, 10)].concat();
        for at in 0..frame(1, 1000).len() {
            let mut zeros = whole.clone();
            zeros[at] ^= 0x10;
            assert!(matches!(look(&zeros, 0, true), Found::Damaged(_)), "byte {at}");
        }
    }
}
