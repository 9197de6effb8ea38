//! The file: a beginning that says what it is and of which version, parts, and an end.
//!
//! ```text
//! "coracle snapshot" 16 | version 4 | part… | end
//! part: kind 1 | length 4 | payload | crc32 of all these 4
//!   h  the header, as JSON; the first part
//!   f  a file: length of its path 2 | path | bytes
//!   l  leases: id 8 | seconds 8, each
//!   e  entries: length 4 | key | create 8 | mod 8 | version 8 | lease 8 | length 4 | value, each
//!   p  nothing: zeros that bring the whole to a length that etcd's clients expect
//!   z  the end: SHA-256 of everything before it 32
//! ```
//!
//! Numbers are little-endian. A reader is fed with bytes as they come and checks everything it was fed with; that nothing
//! was cut off or altered is known when the end was read.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use coracle_store::{Derived, Entry, Lease, LeaseId, Revision};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// What every snapshot begins with.
const MAGIC: &[u8; 16] = b"coracle snapshot";
/// What stands behind the first 16 bytes of a database of etcd's.
const ETCDS: [u8; 4] = [0xED, 0xDA, 0x0C, 0xED];
/// The version that is written, and the newest that is read.
const VERSION: u32 = 1;
/// The longest payload: one entry of the largest size and what goes with it, several times.
const LONGEST: usize = 16 << 20;
/// A part of many entries is closed when it is longer than this.
pub(super) const CLOSED: usize = 256 << 10;

/// What a snapshot says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Header {
    /// The program that made it.
    pub program: String,
    /// When it was made.
    pub created: jiff::Timestamp,
    /// Where the store stood.
    pub revision: u64,
    /// How many entries there are.
    pub entries: u64,
    /// How many leases.
    pub leases: u64,
    /// How the server was configured, by the names of its flags.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
}

/// A part of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// What it says of itself.
    Header(Header),
    /// A file by its path below the data directory.
    File(String, Bytes),
    /// Leases of the store.
    Leases(Vec<Lease>),
    /// Entries of the store.
    Entries(Vec<Arc<Entry>>),
}

/// What was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// The version of the format.
    pub format: u32,
    /// What it says of itself.
    pub header: Header,
    /// Its files.
    pub files: Vec<String>,
    /// How many objects it has of each kind, by the names they are stored by.
    pub objects: BTreeMap<String, u64>,
    /// Its length.
    pub bytes: u64,
}

/// Why it is not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is something else.
    #[error("this is no snapshot of Coracle")]
    Foreign,
    /// It is what etcdctl saves.
    #[error("this is a database of etcd's: etcdctl reads it, and what `coracle snapshot save` makes is read here")]
    Etcds,
    /// It is encrypted with age.
    #[error("the snapshot is encrypted: name its key (--identity FILE, or --passphrase-file FILE)")]
    Encrypted,
    /// A newer version made it.
    #[error("the snapshot has format {found}, and this version reads up to {VERSION}: use a newer version of Coracle")]
    Newer {
        /// Its version.
        found: u32,
    },
    /// The end is missing.
    #[error("the snapshot is cut short: it ends at byte {at}, before its end was written")]
    CutShort {
        /// Where it ends.
        at: u64,
    },
    /// It is not what was written.
    #[error("the snapshot is damaged or was altered at byte {at}: {what}")]
    Altered {
        /// Where the damaged part begins.
        at: u64,
        /// What is wrong.
        what: &'static str,
    },
}

/// Appends a part to `out`.
fn put(out: &mut Vec<u8>, kind: u8, payload: &[u8]) {
    let start = out.len();
    out.push(kind);
    out.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(payload);
    let crc = crc32fast::hash(out.get(start..).unwrap_or_default());
    out.extend_from_slice(&crc.to_le_bytes());
}

/// Writes a snapshot piece by piece.
#[derive(Debug)]
pub(super) struct Encoder {
    hash: Sha256,
    len: u64,
}

impl Encoder {
    /// Begins a snapshot.
    pub(super) fn begin(header: &Header) -> Result<(Self, Bytes), serde_json::Error> {
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&VERSION.to_le_bytes());
        put(&mut out, b'h', &serde_json::to_vec(header)?);
        let mut this = Self { hash: Sha256::new(), len: 0 };
        let piece = this.piece(out);
        Ok((this, piece))
    }

    fn piece(&mut self, bytes: Vec<u8>) -> Bytes {
        self.hash.update(&bytes);
        self.len += bytes.len() as u64;
        bytes.into()
    }

    pub(super) fn file(&mut self, path: &str, bytes: &[u8]) -> Bytes {
        let mut payload = Vec::with_capacity(bytes.len() + path.len() + 2);
        payload.extend_from_slice(&u16::try_from(path.len()).unwrap_or(u16::MAX).to_le_bytes());
        payload.extend_from_slice(path.as_bytes());
        payload.extend_from_slice(bytes);
        self.part(b'f', &payload)
    }

    pub(super) fn leases(&mut self, leases: &[Lease]) -> Bytes {
        let numbers = leases.iter().flat_map(|lease| [lease.id.0, lease.ttl.as_secs()]);
        let payload: Vec<u8> = numbers.flat_map(u64::to_le_bytes).collect();
        self.part(b'l', &payload)
    }

    /// Entries from `from` on, as many as one part takes; and how many that are.
    pub(super) fn entries(&mut self, entries: &[Arc<Entry>]) -> (Bytes, usize) {
        let mut payload = Vec::with_capacity(CLOSED * 2);
        let mut taken = 0;
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes();
        for entry in entries {
            payload.extend_from_slice(&length(&entry.key));
            payload.extend_from_slice(&entry.key);
            let numbers =
                [entry.create_revision.0, entry.mod_revision.0, entry.version, entry.lease.unwrap_or_default().0];
            numbers.iter().for_each(|number| payload.extend_from_slice(&number.to_le_bytes()));
            payload.extend_from_slice(&length(&entry.value));
            payload.extend_from_slice(&entry.value);
            taken += 1;
            if payload.len() >= CLOSED {
                break;
            }
        }
        (self.part(b'e', &payload), taken)
    }

    fn part(&mut self, kind: u8, payload: &[u8]) -> Bytes {
        let mut out = Vec::with_capacity(payload.len() + 9);
        put(&mut out, kind, payload);
        self.piece(out)
    }

    /// The end. The whole is 32 bytes longer than a multiple of 512, by which etcdctl tells that a checksum is there.
    pub(super) fn end(mut self) -> Bytes {
        const HEADS: u64 = 9 + 41;
        let over = (self.len + HEADS) % 512;
        let zeros = vec![0; usize::try_from((512 + 32 - over) % 512).unwrap_or(0)];
        let mut out = self.part(b'p', &zeros).to_vec();
        put(&mut out, b'z', &self.hash.finalize());
        out.into()
    }
}

/// Reads a snapshot piece by piece.
#[derive(Debug, Default)]
pub struct Decoder {
    /// What was fed and is not a whole part yet.
    buffer: Vec<u8>,
    /// Where in the snapshot it begins.
    at: u64,
    hash: Sha256,
    summary: Summary,
    entries: u64,
    leases: u64,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    /// Left when the beginning was read.
    #[default]
    Beginning,
    /// Left by the header.
    Header,
    /// Left by the end.
    Parts,
    Ended,
}

impl Decoder {
    /// Takes the next bytes, and hands on the parts they complete. After an error nothing more is to be fed.
    ///
    /// # Errors
    /// What was fed so far is no beginning of a snapshot; or what `take` says.
    pub fn push<E: From<Error>>(&mut self, bytes: &[u8], mut take: impl FnMut(Part) -> Result<(), E>) -> Result<(), E> {
        self.buffer.extend_from_slice(bytes);
        let mut done = 0;
        while let Some((part, len)) = self.next(done)? {
            done += len;
            self.at += len as u64;
            if let Some(part) = part {
                take(part)?;
            }
        }
        self.buffer.drain(..done);
        Ok(())
    }

    /// Says that there is no more.
    ///
    /// # Errors
    /// [`Error::CutShort`]; [`Error::Altered`] if what the snapshot says of itself is not so.
    pub fn finish(self) -> Result<Summary, Error> {
        let at = self.at + self.buffer.len() as u64;
        match self.phase {
            Phase::Beginning if at < 16 && !MAGIC.starts_with(&self.buffer) => Err(Error::Foreign),
            Phase::Ended => Ok(Summary { bytes: at, ..self.summary }),
            Phase::Beginning | Phase::Header | Phase::Parts => Err(Error::CutShort { at }),
        }
    }

    /// The part at `from` in the buffer, if it is there as a whole, and its length.
    fn next(&mut self, from: usize) -> Result<Option<(Option<Part>, usize)>, Error> {
        let rest = self.buffer.get(from..).unwrap_or_default();
        let altered = |what| Error::Altered { at: self.at, what };
        if self.phase == Phase::Beginning {
            let known = rest.len().min(MAGIC.len());
            if rest.get(..known) != MAGIC.get(..known) {
                return Err(if rest.starts_with(b"age-encryption") || rest.starts_with(b"-----BEGIN AGE") {
                    Error::Encrypted
                } else if rest.get(16..20) == Some(&ETCDS) {
                    Error::Etcds
                } else {
                    Error::Foreign
                });
            }
            let Some((beginning, _)) = rest.split_first_chunk::<20>() else { return Ok(None) };
            let [.., a, b, c, d] = *beginning;
            let found = u32::from_le_bytes([a, b, c, d]);
            if found > VERSION {
                return Err(Error::Newer { found });
            }
            if found == 0 {
                return Err(altered("there is no such version of the format"));
            }
            self.summary.format = found;
            self.hash.update(beginning);
            self.phase = Phase::Header;
            return Ok(Some((None, beginning.len())));
        }
        if self.phase == Phase::Ended {
            return if rest.is_empty() { Ok(None) } else { Err(altered("more follows its end")) };
        }
        let Some(([kind, a, b, c, d], _)) = rest.split_first_chunk::<5>() else { return Ok(None) };
        let len = u32::from_le_bytes([*a, *b, *c, *d]) as usize;
        if len > LONGEST {
            return Err(altered("a part is longer than any may be"));
        }
        let Some(whole) = rest.get(..5 + len + 4) else { return Ok(None) };
        let (body, crc) = whole.split_last_chunk::<4>().ok_or_else(|| altered("a part has no checksum"))?;
        if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
            return Err(altered("a part does not match its checksum"));
        }
        let payload = body.get(5..).unwrap_or_default();
        let part = match (kind, self.phase) {
            (b'z', Phase::Parts) => {
                if payload != self.hash.clone().finalize().as_slice() {
                    return Err(altered("the whole does not match its checksum"));
                }
                if (self.entries, self.leases) != (self.summary.header.entries, self.summary.header.leases) {
                    return Err(altered("it does not hold as many entries as it says"));
                }
                self.phase = Phase::Ended;
                return Ok(Some((None, whole.len())));
            }
            (b'p', Phase::Parts) => {
                let len = whole.len();
                self.hash.update(whole);
                return Ok(Some((None, len)));
            }
            (b'h', Phase::Header) => {
                let header: Header =
                    serde_json::from_slice(payload).map_err(|_| altered("the header cannot be read"))?;
                self.summary.header = header.clone();
                self.phase = Phase::Parts;
                Part::Header(header)
            }
            (b'f', Phase::Parts) => file(payload).ok_or_else(|| altered("a file cannot be read"))?,
            (b'l', Phase::Parts) => leases(payload).ok_or_else(|| altered("leases cannot be read"))?,
            (b'e', Phase::Parts) => entries(payload).ok_or_else(|| altered("entries cannot be read"))?,
            _ => return Err(altered("a part of an unknown kind, or in the wrong place")),
        };
        let len = whole.len();
        self.hash.update(whole);
        match &part {
            Part::Header(_) => {}
            Part::File(path, _) => self.summary.files.push(path.clone()),
            Part::Leases(leases) => self.leases += leases.len() as u64,
            Part::Entries(entries) => {
                self.entries += entries.len() as u64;
                for entry in entries {
                    *self.summary.objects.entry(kind_of(&entry.key)).or_default() += 1;
                }
            }
        }
        Ok(Some((Some(part), len)))
    }
}

/// What an entry is, in the words of a person.
fn kind_of(key: &[u8]) -> String {
    let text = String::from_utf8_lossy(key);
    let Some(rest) = text.strip_prefix("/registry/") else { return "(others)".to_owned() };
    let mut parts = rest.split('/');
    match (parts.next(), parts.next()) {
        // Kinds that definitions make are stored below their groups, whose names have dots.
        (Some(group), Some(plural)) if group.contains('.') => format!("{plural}.{group}"),
        (Some(storage), _) => storage.to_owned(),
        _ => "(others)".to_owned(),
    }
}

/// Reads from the front of a payload.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(front)
    }

    fn number(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_le_bytes)
    }

    fn string(&mut self) -> Option<Bytes> {
        let len = u32::from_le_bytes(self.take(4)?.try_into().ok()?);
        self.take(len as usize).map(Bytes::copy_from_slice)
    }
}

fn file(payload: &[u8]) -> Option<Part> {
    let mut from = Reader(payload);
    let len = u16::from_le_bytes(from.take(2)?.try_into().ok()?);
    let path = std::str::from_utf8(from.take(usize::from(len))?).ok()?;
    // It is written below a directory, and must not lead out of it.
    let is_name = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
    path.split('/').all(is_name).then(|| Part::File(path.to_owned(), Bytes::copy_from_slice(from.0)))
}

fn leases(payload: &[u8]) -> Option<Part> {
    let mut from = Reader(payload);
    let mut leases = Vec::new();
    while !from.0.is_empty() {
        leases.push(Lease { id: LeaseId(from.number()?), ttl: Duration::from_secs(from.number()?) });
    }
    Some(Part::Leases(leases))
}

fn entries(payload: &[u8]) -> Option<Part> {
    let mut from = Reader(payload);
    let mut entries = Vec::new();
    while !from.0.is_empty() {
        let key = from.string()?;
        let (create, modified, version, lease) = (from.number()?, from.number()?, from.number()?, from.number()?);
        entries.push(Arc::new(Entry {
            key,
            value: from.string()?,
            create_revision: Revision(create),
            mod_revision: Revision(modified),
            version,
            lease: Some(LeaseId(lease)).filter(|id| *id != LeaseId::default()),
            derived: Derived::default(),
        }));
    }
    Some(Part::Entries(entries))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, value: &str) -> Arc<Entry> {
        Arc::new(Entry {
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            create_revision: Revision(2),
            mod_revision: Revision(7),
            version: 3,
            lease: Some(LeaseId(9)),
            derived: Derived::default(),
        })
    }

    fn parts() -> Vec<Part> {
        let header = Header { revision: 7, entries: 3, leases: 1, ..Header::default() };
        vec![
            Part::Header(header),
            Part::File("pki/ca.crt".to_owned(), "certificate".into()),
            Part::Leases(vec![Lease { id: LeaseId(9), ttl: Duration::from_secs(10) }]),
            Part::Entries(vec![entry("/registry/secrets/a/b", "1"), entry("/registry/example.com/foos/x", "")]),
            Part::Entries(vec![entry("/coracle/nodes/x", "2")]),
        ]
    }

    fn encode() -> Vec<u8> {
        let all = parts();
        let (mut encoder, mut out) = match &all[0] {
            Part::Header(header) => {
                let (encoder, bytes) = Encoder::begin(header).unwrap();
                (encoder, bytes.to_vec())
            }
            _ => unreachable!(),
        };
        for part in &all[1..] {
            out.extend(match part {
                Part::Header(_) => unreachable!(),
                Part::File(path, bytes) => encoder.file(path, bytes),
                Part::Leases(leases) => encoder.leases(leases),
                Part::Entries(entries) => encoder.entries(entries).0,
            });
        }
        out.extend(encoder.end());
        out
    }

    fn decode(bytes: &[u8], step: usize) -> Result<(Vec<Part>, Summary), Error> {
        let (mut decoder, mut parts) = (Decoder::default(), Vec::new());
        for piece in bytes.chunks(step) {
            decoder.push::<Error>(piece, |part| {
                parts.push(part);
                Ok(())
            })?;
        }
        Ok((parts, decoder.finish()?))
    }

    #[test]
    fn what_is_written_can_be_read_in_pieces_of_any_size() {
        let bytes = encode();
        for step in [1, 3, 64, bytes.len()] {
            let (found, summary) = decode(&bytes, step).unwrap();
            assert_eq!(found, parts());
            assert_eq!(summary.files, ["pki/ca.crt"]);
            let objects: Vec<(&str, u64)> =
                summary.objects.iter().map(|(kind, count)| (kind.as_str(), *count)).collect();
            assert_eq!(objects, [("(others)", 1), ("foos.example.com", 1), ("secrets", 1)]);
            assert_eq!((summary.format, summary.bytes, summary.bytes % 512), (1, bytes.len() as u64, 32));
        }
    }

    #[test]
    fn what_is_cut_short_altered_newer_or_something_else_is_refused() {
        let bytes = encode();
        for cut in 0..bytes.len() {
            let refused = decode(&bytes[..cut], 7).unwrap_err();
            assert_eq!(refused, Error::CutShort { at: cut as u64 }, "cut at {cut}");
        }
        for at in 0..bytes.len() {
            let mut altered = bytes.clone();
            altered[at] ^= 0x10;
            assert!(decode(&altered, 64).is_err(), "byte {at}");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(matches!(decode(&longer, 64), Err(Error::Altered { what: "more follows its end", .. })));
        // Whole parts that are left out are noticed by the checksum of the whole.
        let mut shorter = bytes.clone();
        let at = shorter.windows(9).position(|part| part == b"/coracle/").unwrap() - 9;
        let end = shorter.windows(5).rposition(|part| part[0] == b'p' && part[3..] == [0, 0]).unwrap();
        shorter.drain(at..end);
        assert!(matches!(
            decode(&shorter, 64),
            Err(Error::Altered { what: "the whole does not match its checksum", .. })
        ));
        let mut newer = bytes.clone();
        newer[16] = 2;
        assert_eq!(decode(&newer, 64).unwrap_err(), Error::Newer { found: 2 });
        assert_eq!(decode(b"PK", 64).unwrap_err(), Error::Foreign);
        let etcds = [&[0; 16], &ETCDS[..], &[0; 100]].concat();
        assert_eq!(decode(&etcds, 64).unwrap_err(), Error::Etcds);
        assert_eq!(decode(b"age-encryption.org/v1\n-> X25519", 64).unwrap_err(), Error::Encrypted);
        assert_eq!(decode(b"", 64).unwrap_err(), Error::CutShort { at: 0 });
    }

    #[test]
    fn no_file_leads_out_of_its_directory() {
        for path in ["../x", "/etc/passwd", "a/../../b", "a//b", ".", ""] {
            let mut payload = u16::try_from(path.len()).unwrap().to_le_bytes().to_vec();
            payload.extend_from_slice(path.as_bytes());
            assert_eq!(file(&payload), None, "{path}");
        }
    }
}
