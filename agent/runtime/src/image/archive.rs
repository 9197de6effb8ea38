//! A tar archive as a stream of entries. Sources: POSIX.1-2017 `pax`, "ustar" and "pax Interchange Format"; GNU tar manual, "Basic
//! Tar Format". Field decoding is the `tar` crate's; the walk is ours because names and extended headers here come from
//! strangers and must be bounded, and because values of extended attributes are binary.

use std::io::{self, Read};

use tar::{EntryType, GnuExtSparseHeader, Header};

const BLOCK: usize = 512;

/// Largest extended header or long name in bytes; the kernel's own bound on all attributes of a file is 64 KiB.
const EXTENSION_MAX: u64 = 1 << 20;

/// Where mode, owner, group, size and time stand in a header.
const NUMBERS: [std::ops::Range<usize>; 5] = [100..108, 108..116, 116..124, 124..136, 136..148];

/// Most pieces of a sparse file.
const SPARSE_MAX: usize = 1 << 16;

/// One entry's header, extensions applied.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) path: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) kind: EntryType,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: (i64, i64),
    /// Bytes of the file, holes included.
    pub(super) size: u64,
    pub(super) device: (u32, u32),
    pub(super) xattrs: Vec<(String, Vec<u8>)>,
    /// Where the data go, for a file with holes: offset and length.
    pub(super) pieces: Option<Vec<(u64, u64)>>,
}

/// An archive being read.
pub(super) struct Archive<R> {
    reader: R,
    /// Data of the current entry that were not read.
    left: u64,
    /// Zeros after the data, up to the next block.
    padding: u64,
}

#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    records: Vec<(String, Vec<u8>)>,
}

impl<R: Read> Archive<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, left: 0, padding: 0 }
    }

    /// The next entry; its data are read by [`Archive::read_data`] and skipped otherwise.
    pub(super) fn next_entry(&mut self) -> io::Result<Option<Entry>> {
        let mut extensions = Extensions::default();
        loop {
            self.skip()?;
            let Some(header) = self.header()? else {
                return Ok(None);
            };
            let size = header.entry_size()?;
            self.begin(size);
            match header.entry_type() {
                EntryType::GNULongName => extensions.path = Some(until_nul(self.extension(size)?)),
                EntryType::GNULongLink => extensions.link = Some(until_nul(self.extension(size)?)),
                EntryType::XHeader => extensions.records = records(&self.extension(size)?)?,
                EntryType::XGlobalHeader => {
                    self.extension(size)?;
                }
                _ => return self.entry(&header, extensions).map(Some),
            }
        }
    }

    /// Reads data of the current entry; 0 at their end.
    pub(super) fn read_data(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let Some(window) = buffer.get_mut(..wanted).filter(|window| !window.is_empty()) else {
            return Ok(0);
        };
        let count = self.reader.read(window)?;
        if count == 0 {
            return Err(cut("a file"));
        }
        self.left -= u64::try_from(count).unwrap_or(u64::MAX);
        Ok(count)
    }

    /// Reads what follows the archive, so that digests cover the whole stream.
    pub(super) fn finish(mut self) -> io::Result<()> {
        io::copy(&mut self.reader, &mut io::sink()).map(drop)
    }

    fn begin(&mut self, size: u64) {
        self.left = size;
        self.padding = size.wrapping_neg() % 512;
    }

    fn skip(&mut self) -> io::Result<()> {
        let rest = self.left.saturating_add(self.padding);
        let skipped = io::copy(&mut self.reader.by_ref().take(rest), &mut io::sink())?;
        self.begin(0);
        if skipped < rest { Err(cut("a file")) } else { Ok(()) }
    }

    /// The next header; `None` at the zero block or the end of the stream that closes an archive.
    fn header(&mut self) -> io::Result<Option<Header>> {
        let mut header = Header::new_old();
        let mut filled = 0;
        while filled < BLOCK {
            let window = header.as_mut_bytes().get_mut(filled..).unwrap_or_default();
            match self.reader.read(window)? {
                0 if filled == 0 => return Ok(None),
                0 => return Err(cut("a header")),
                count => filled += count,
            }
        }
        let bytes = header.as_bytes();
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        // The checksum is over the header with its own field as spaces.
        let sum: u32 = bytes
            .iter()
            .enumerate()
            .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) })
            .sum();
        if header.cksum().ok() != Some(sum) {
            return Err(invalid("archive header checksum mismatch"));
        }
        // A number left blank is zero, as other readers have it.
        for field in NUMBERS {
            if let Some(digits) = header.as_mut_bytes().get_mut(field)
                && digits.iter().all(|byte| matches!(byte, 0 | b' '))
            {
                digits.fill(b'0');
            }
        }
        Ok(Some(header))
    }

    fn extension(&mut self, size: u64) -> io::Result<Vec<u8>> {
        if size > EXTENSION_MAX {
            return Err(invalid(format!("archive extension of {size} bytes, at most {EXTENSION_MAX} are read")));
        }
        let mut bytes = vec![0; usize::try_from(size).unwrap_or_default()];
        self.reader.read_exact(&mut bytes)?;
        self.left = 0;
        Ok(bytes)
    }

    fn entry(&mut self, header: &Header, extensions: Extensions) -> io::Result<Entry> {
        let mut entry = Entry {
            path: extensions.path.unwrap_or_else(|| header.path_bytes().into_owned()),
            link: extensions
                .link
                .or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned))
                .unwrap_or_default(),
            kind: header.entry_type(),
            mode: header.mode()? & 0o7777,
            uid: narrow(header.uid()?)?,
            gid: narrow(header.gid()?)?,
            mtime: (i64::try_from(header.mtime()?).unwrap_or_default(), 0),
            size: self.left,
            device: (
                header.device_major().ok().flatten().unwrap_or_default(),
                header.device_minor().ok().flatten().unwrap_or_default(),
            ),
            xattrs: Vec::new(),
            pieces: None,
        };
        for (key, value) in extensions.records {
            let text = || std::str::from_utf8(&value).map_err(|_| invalid(format!("archive record {key}")));
            let number = || text()?.parse::<u64>().map_err(|_| invalid(format!("archive record {key}")));
            match key.as_str() {
                "path" => entry.path = value,
                "linkpath" => entry.link = value,
                "size" => {
                    entry.size = number()?;
                    self.begin(entry.size);
                }
                "uid" => entry.uid = narrow(number()?)?,
                "gid" => entry.gid = narrow(number()?)?,
                "mtime" => entry.mtime = timestamp(text()?).ok_or_else(|| invalid("archive record mtime"))?,
                _ if key.starts_with("GNU.sparse.") => {
                    return Err(invalid("archive with a sparse file in pax format, which is not supported"));
                }
                _ => {
                    if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
                        entry.xattrs.push((name.to_owned(), value));
                    }
                }
            }
        }
        if entry.kind == EntryType::GNUSparse {
            self.sparse(header, &mut entry)?;
        }
        // Links, directories and devices have no data, whatever size they claim (as Go's archive/tar reads
        // them).
        if !matches!(entry.kind, EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse) {
            entry.size = 0;
            self.begin(0);
        }
        Ok(entry)
    }

    /// The map of an old GNU sparse file, part of it in blocks before the data.
    fn sparse(&mut self, header: &Header, entry: &mut Entry) -> io::Result<()> {
        let gnu = header.as_gnu().ok_or_else(|| invalid("sparse file without a GNU header"))?;
        let mut pieces = Vec::new();
        let mut add = |part: &tar::GnuSparseHeader| -> io::Result<()> {
            if !part.is_empty() {
                pieces.push((part.offset()?, part.length()?));
            }
            if pieces.len() > SPARSE_MAX { Err(invalid("sparse file of too many pieces")) } else { Ok(()) }
        };
        for part in &gnu.sparse {
            add(part)?;
        }
        let mut more = gnu.is_extended();
        while more {
            let mut block = GnuExtSparseHeader::new();
            self.reader.read_exact(block.as_mut_bytes())?;
            for part in block.sparse() {
                add(part)?;
            }
            more = block.is_extended();
        }
        entry.size = gnu.real_size()?;
        let mut end = 0;
        let mut data: u64 = 0;
        for (offset, length) in &pieces {
            let stop = offset.checked_add(*length).filter(|stop| *offset >= end && *stop <= entry.size);
            end = stop.ok_or_else(|| invalid("sparse file whose pieces do not fit"))?;
            data = data.saturating_add(*length);
        }
        if data != self.left {
            return Err(invalid("sparse file whose pieces do not fit"));
        }
        entry.pieces = Some(pieces);
        Ok(())
    }
}

pub(super) fn invalid(reason: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.into())
}

fn cut(within: &str) -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, format!("archive ends within {within}"))
}

fn narrow(id: u64) -> io::Result<u32> {
    u32::try_from(id).map_err(|_| invalid(format!("archive owner {id}")))
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|byte| *byte == 0) {
        bytes.truncate(end);
    }
    bytes
}

/// `length key=value\n`, where the length counts all of it and the value may hold any byte.
fn records(mut bytes: &[u8]) -> io::Result<Vec<(String, Vec<u8>)>> {
    let wrong = || invalid("archive extension is not a list of records");
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let space = bytes.iter().position(|byte| *byte == b' ').ok_or_else(wrong)?;
        let length: usize = bytes
            .get(..space)
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| digits.parse().ok())
            .ok_or_else(wrong)?;
        let record = bytes.get(space + 1..length).ok_or_else(wrong)?;
        let record = record.strip_suffix(b"\n").ok_or_else(wrong)?;
        let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(wrong)?;
        let (key, value) = record.split_at(equals);
        let key = std::str::from_utf8(key).map_err(|_| wrong())?;
        found.push((key.to_owned(), value.get(1..).unwrap_or_default().to_vec()));
        bytes = bytes.get(length..).unwrap_or_default();
    }
    Ok(found)
}

/// Seconds with a fraction.
fn timestamp(text: &str) -> Option<(i64, i64)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanos: i64 = digits.parse().ok()?;
    if whole.starts_with('-') && nanos > 0 {
        return Some((seconds.checked_sub(1)?, 1_000_000_000 - nanos));
    }
    Some((seconds, nanos))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn records_may_hold_line_feeds_and_must_fit_their_length() {
        assert_eq!(records(b"10 a=b\nc\n\n").unwrap(), [("a".to_owned(), b"b\nc\n".to_vec())]);
        for wrong in [&b"99 a=b\n"[..], b"x a=b\n", b"6 ab\n\n", b"1 ", b"5 a=b"] {
            assert!(records(wrong).is_err());
        }
        assert_eq!(timestamp("12.5"), Some((12, 500_000_000)));
        assert_eq!(timestamp("-1.25"), Some((-2, 750_000_000)));
    }

    #[test]
    fn a_long_name_beyond_bounds_is_refused_before_it_is_read() {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::GNULongName);
        header.set_size(1 << 40);
        header.set_cksum();
        let error = Archive::new(header.as_bytes().as_slice()).next_entry().unwrap_err();
        assert!(error.to_string().contains("at most 1048576"), "{error}");
    }

    #[test]
    fn a_hard_link_that_claims_a_size_has_no_data() {
        let mut bytes = Vec::new();
        for (kind, path) in [(EntryType::Link, "link"), (EntryType::Directory, "dir"), (EntryType::Regular, "file")] {
            let mut header = Header::new_ustar();
            header.set_entry_type(kind);
            header.set_path(path).unwrap();
            header.set_size(if kind == EntryType::Regular { 0 } else { 5000 });
            header.set_cksum();
            bytes.extend_from_slice(header.as_bytes());
        }
        let mut archive = Archive::new(bytes.as_slice());
        let mut names = Vec::new();
        while let Some(entry) = archive.next_entry().unwrap() {
            names.push(String::from_utf8(entry.path).unwrap());
        }
        assert_eq!(names, ["link", "dir", "file"]);
    }

    proptest! {
        #[test]
        fn any_change_of_a_header_is_read_or_refused(at in 0_usize..512, byte in any::<u8>(), kind in any::<u8>()) {
            let mut header = Header::new_gnu();
            header.set_path("a/b").unwrap();
            header.set_size(3);
            header.as_mut_bytes()[at] = byte;
            header.set_entry_type(EntryType::new(kind));
            header.set_cksum();
            let mut bytes = header.as_bytes().to_vec();
            bytes.resize(2048, 7);
            let mut archive = Archive::new(bytes.as_slice());
            while let Ok(Some(_)) = archive.next_entry() {}
        }
    }
}
