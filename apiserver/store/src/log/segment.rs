//! The beginning of a segment file: whose it is, and where in the log it stands.

use crate::codec::{Malformed, Put, Reader};

/// Version of the log's format.
pub(crate) const FORMAT: u32 = 1;
/// Length of the header on disk.
pub(crate) const HEADER: usize = 72;
const MAGIC: [u8; 16] = *b"coracle-store-lg";

/// Names the cluster whose data this is.
pub(crate) type ClusterId = [u8; 16];

/// What a segment says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// The cluster whose log it is.
    pub(crate) cluster: ClusterId,
    /// Its number; the next has one more.
    pub(crate) number: u64,
    /// The number of its first frame.
    pub(crate) first_frame: u64,
    /// The index of the log's last entry when the segment was begun.
    pub(crate) index: u64,
    /// That entry's term.
    pub(crate) term: u64,
}

impl Header {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER);
        out.extend_from_slice(&MAGIC);
        out.put_u32(FORMAT);
        out.extend_from_slice(&self.cluster);
        for number in [self.number, self.first_frame, self.index, self.term] {
            out.put_u64(number);
        }
        out.put_u32(crc32fast::hash(&out));
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let (checked, _) = bytes.split_at_checked(HEADER - 4).ok_or(Malformed("segment header cut short"))?;
        let mut from = Reader(bytes);
        if from.array()? != MAGIC {
            return Err(Malformed("not a segment of a store's log"));
        }
        if from.u32()? != FORMAT {
            return Err(Malformed("segment of an unknown format"));
        }
        let header = Self {
            cluster: from.array()?,
            number: from.u64()?,
            first_frame: from.u64()?,
            index: from.u64()?,
            term: from.u64()?,
        };
        if from.u32()? != crc32fast::hash(checked) {
            return Err(Malformed("segment header does not match its checksum"));
        }
        Ok(header)
    }
}

/// The file of a segment.
pub(crate) fn name(number: u64) -> String {
    format!("{number:016x}.log")
}

/// The number in a segment's file name.
pub(crate) fn number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log").filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_back_and_any_changed_byte_is_noticed() {
        let header = Header { cluster: [7; 16], number: 3, first_frame: 9, index: 100, term: 2 };
        let bytes = header.encode();
        assert_eq!(bytes.len(), HEADER);
        assert_eq!(Header::decode(&bytes), Ok(header));
        for at in 0..HEADER {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(Header::decode(&changed).is_err(), "byte {at}");
        }
        assert!(Header::decode(&bytes[..HEADER - 1]).is_err());
    }

    #[test]
    fn names_sort_as_their_numbers() {
        assert_eq!(number(&name(0x1F)), Some(0x1F));
        assert_eq!(number("lock"), None);
        assert!(name(9) < name(10) && name(0xFF) < name(0x100));
    }
}
