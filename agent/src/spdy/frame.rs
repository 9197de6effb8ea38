//! Frames: eight bytes that say what comes and how long, then that (section 2.2).
//!
//! Data is handed on in pieces as it arrives, however long its frame; a control frame is waited for as a whole, and is short.

use bytes::{Buf, Bytes, BytesMut};

use super::headers::{Headers, Packer, Unpacker};

/// What every frame begins with.
const HEADER: usize = 8;
/// As long as a control frame may be: clients say a few headers.
const MAX_CONTROL: usize = 64 << 10;
/// As much data as is handed on at once.
pub(super) const PIECE: usize = 16 << 10;
/// The version control frames are of.
const VERSION: u16 = 3;

const FIN: u8 = 1;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const SETTINGS: u16 = 4;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const WINDOW_UPDATE: u16 = 9;

/// The setting of the window that streams begin with.
const INITIAL_WINDOW_SIZE: u32 = 7;

/// Why a connection cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProtocolError {
    /// A control frame of another version.
    #[error("frames are of version {0}, not 3")]
    Version(u16),
    /// A control frame longer than any that makes sense.
    #[error("a control frame of {0} bytes")]
    TooLong(usize),
    /// A frame's content is not what its type says.
    #[error("a control frame of type {0} that is none")]
    Malformed(u16),
    /// Headers that cannot be unpacked or read.
    #[error("headers that cannot be read")]
    Headers,
    /// Headers beyond bounds.
    #[error("more headers than are taken")]
    HeadersTooLong,
}

/// Why a stream is reset (section 2.6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ResetReason {
    /// It should not have been opened so.
    Protocol = 1,
    /// It is not taken.
    Refused = 3,
    /// Nobody is interested in it any more.
    Cancel = 5,
}

/// What a client says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// It opens a stream.
    Open { stream: u32, headers: Headers, fin: bool },
    /// Some data of a stream; with `fin` the last.
    Data { stream: u32, bytes: Bytes, fin: bool },
    /// It gives a stream up.
    Reset { stream: u32 },
    /// It wants to hear the same.
    Ping { id: u32 },
    /// It opens no more streams.
    GoAway,
    /// It takes so many bytes more of a stream.
    Window { stream: u32, more: u32 },
    /// It takes so many bytes of a stream at first.
    FirstWindow { size: u32 },
    /// Nothing that matters here.
    Other,
}

/// Reads frames out of what arrives.
pub(super) struct Decoder {
    unpacker: Unpacker,
    /// The data frame that is being read: its stream, how much is to come, and whether it is the last.
    data: Option<(u32, usize, bool)>,
    /// Bytes of control frames of no interest that are to come.
    skip: usize,
}

impl Decoder {
    pub(super) fn new() -> Self {
        Self { unpacker: Unpacker::new(), data: None, skip: 0 }
    }

    /// The next frame or piece of data, if it is there.
    ///
    /// # Errors
    /// After one nothing more can be read.
    pub(super) fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, ProtocolError> {
        if self.skip > 0 {
            let skipped = self.skip.min(buffer.len());
            buffer.advance(skipped);
            self.skip -= skipped;
            return Ok((self.skip == 0).then_some(Frame::Other));
        }
        if let Some(piece) = self.piece(buffer) {
            return Ok(piece);
        }
        let Some(header) = buffer.first_chunk::<HEADER>() else { return Ok(None) };
        let [a, b, c, d, flags, e, f, g] = *header;
        let length = usize::try_from(u32::from_be_bytes([0, e, f, g])).unwrap_or(usize::MAX);
        let word = u32::from_be_bytes([a, b, c, d]);
        if word >> 31 == 0 {
            buffer.advance(HEADER);
            self.data = Some((word, length, flags & FIN != 0));
            return Ok(self.piece(buffer).flatten());
        }
        let (version, kind) = (u16::from_be_bytes([a & 0x7f, b]), u16::from_be_bytes([c, d]));
        if version != VERSION {
            return Err(ProtocolError::Version(version));
        }
        let known =
            matches!(kind, SYN_STREAM | SYN_REPLY | RST_STREAM | SETTINGS | PING | GOAWAY | HEADERS | WINDOW_UPDATE);
        if !known {
            buffer.advance(HEADER);
            self.skip = length;
            return if length == 0 { Ok(Some(Frame::Other)) } else { self.decode(buffer) };
        }
        if length > MAX_CONTROL {
            return Err(ProtocolError::TooLong(length));
        }
        if buffer.len() < HEADER + length {
            return Ok(None);
        }
        buffer.advance(HEADER);
        let content = buffer.split_to(length);
        self.control(kind, flags, &content).map(Some)
    }

    /// What has arrived of a data frame; `None` when none is being read.
    fn piece(&mut self, buffer: &mut BytesMut) -> Option<Option<Frame>> {
        let (stream, left, last) = self.data?;
        let length = left.min(buffer.len()).min(PIECE);
        if length == 0 && left > 0 {
            return Some(None);
        }
        let bytes = buffer.split_to(length).freeze();
        let left = left - length;
        self.data = (left > 0).then_some((stream, left, last));
        Some(Some(Frame::Data { stream, bytes, fin: last && left == 0 }))
    }

    fn control(&mut self, kind: u16, flags: u8, content: &[u8]) -> Result<Frame, ProtocolError> {
        let malformed = ProtocolError::Malformed(kind);
        let mut content = Content(content);
        let frame = match kind {
            SYN_STREAM => {
                let stream = content.stream().ok_or(malformed)?;
                // The stream it belongs to, its priority and its slot.
                content.take::<6>().ok_or(malformed)?;
                let headers = self.unpacker.unpack(content.0)?;
                return Ok(Frame::Open { stream, headers, fin: flags & FIN != 0 });
            }
            SYN_REPLY | HEADERS => {
                content.stream().ok_or(malformed)?;
                // Of no interest, but the blocks after it cannot be read without.
                self.unpacker.unpack(content.0)?;
                return Ok(Frame::Other);
            }
            RST_STREAM => {
                let stream = content.stream().ok_or(malformed)?;
                content.number().ok_or(malformed)?;
                Frame::Reset { stream }
            }
            PING => Frame::Ping { id: content.number().ok_or(malformed)? },
            GOAWAY => {
                content.take::<8>().ok_or(malformed)?;
                Frame::GoAway
            }
            WINDOW_UPDATE => {
                let stream = content.stream().ok_or(malformed)?;
                Frame::Window { stream, more: content.stream().ok_or(malformed)? }
            }
            SETTINGS => settings(&mut content).ok_or(malformed)?,
            _ => Frame::Other,
        };
        if content.0.is_empty() { Ok(frame) } else { Err(malformed) }
    }
}

/// The one setting that matters.
fn settings(content: &mut Content<'_>) -> Option<Frame> {
    let count = content.number()?;
    let mut frame = Frame::Other;
    for _ in 0..count {
        let [_flags, a, b, c] = content.take::<4>()?;
        let value = content.number()?;
        if u32::from_be_bytes([0, a, b, c]) == INITIAL_WINDOW_SIZE {
            frame = Frame::FirstWindow { size: value };
        }
    }
    Some(frame)
}

/// What is left of a control frame's content.
struct Content<'a>(&'a [u8]);

impl Content<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn number(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    /// A number of 31 bits.
    fn stream(&mut self) -> Option<u32> {
        self.number().map(|number| number & 0x7fff_ffff)
    }
}

/// Writes frames.
pub(super) struct Encoder {
    packer: Packer,
}

impl Encoder {
    pub(super) fn new() -> Self {
        Self { packer: Packer::new() }
    }

    fn control(kind: u16, content: &[u8]) -> Vec<u8> {
        let [version, kind] = [VERSION | 0x8000, kind].map(u16::to_be_bytes);
        // What is said here is short.
        let length = u32::try_from(content.len()).unwrap_or(0).to_be_bytes();
        [&version[..], &kind, &length, content].concat()
    }

    /// A stream is taken.
    pub(super) fn reply(&mut self, stream: u32) -> Result<Vec<u8>, ProtocolError> {
        let mut content = stream.to_be_bytes().to_vec();
        self.packer.pack(&Headers::new(), &mut content)?;
        Ok(Self::control(SYN_REPLY, &content))
    }

    /// What comes before `length` bytes of data.
    pub(super) fn data(stream: u32, length: usize, fin: bool) -> [u8; HEADER] {
        let [a, b, c, d] = (stream & 0x7fff_ffff).to_be_bytes();
        let [_, e, f, g] = u32::try_from(length).unwrap_or(0).to_be_bytes();
        [a, b, c, d, if fin { FIN } else { 0 }, e, f, g]
    }

    /// A stream is given up.
    pub(super) fn reset(stream: u32, reason: ResetReason) -> Vec<u8> {
        Self::control(RST_STREAM, &[stream.to_be_bytes(), (reason as u32).to_be_bytes()].concat())
    }

    /// The answer to a ping.
    pub(super) fn ping(id: u32) -> Vec<u8> {
        Self::control(PING, &id.to_be_bytes())
    }

    /// So many bytes more are taken of a stream.
    pub(super) fn window(stream: u32, more: u32) -> Vec<u8> {
        Self::control(WINDOW_UPDATE, &[stream.to_be_bytes(), more.to_be_bytes()].concat())
    }

    /// No more streams are taken; `last` was the last, and all is well or the client's words made no sense.
    pub(super) fn go_away(last: u32, well: bool) -> Vec<u8> {
        Self::control(GOAWAY, &[last.to_be_bytes(), u32::from(!well).to_be_bytes()].concat())
    }
}

#[cfg(test)]
pub(super) mod testing {
    //! The client's side of the wire.

    use super::*;

    /// What a client writes.
    pub(crate) struct Client(Packer);

    impl Client {
        pub(crate) fn new() -> Self {
            Self(Packer::new())
        }

        pub(crate) fn open(&mut self, stream: u32, headers: &[(&str, &str)]) -> Vec<u8> {
            let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            let mut content = [&stream.to_be_bytes()[..], &[0; 6]].concat();
            self.0.pack(&headers, &mut content).unwrap();
            Encoder::control(SYN_STREAM, &content)
        }

        pub(crate) fn data(stream: u32, bytes: &[u8], fin: bool) -> Vec<u8> {
            [&Encoder::data(stream, bytes.len(), fin)[..], bytes].concat()
        }

        pub(crate) fn settings(window: u32) -> Vec<u8> {
            Encoder::control(SETTINGS, &[1_u32, INITIAL_WINDOW_SIZE, window].map(u32::to_be_bytes).concat())
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::testing::Client;
    use super::*;

    fn all(bytes: &[u8], cut: usize) -> Result<Vec<Frame>, ProtocolError> {
        let mut decoder = Decoder::new();
        let (mut buffer, mut frames) = (BytesMut::new(), Vec::new());
        for part in bytes.chunks(cut.max(1)) {
            buffer.extend_from_slice(part);
            while let Some(frame) = decoder.decode(&mut buffer)? {
                frames.push(frame);
            }
        }
        Ok(frames)
    }

    /// Pieces of one stream that follow each other, as one.
    fn joined(frames: Vec<Frame>) -> Vec<Frame> {
        let mut out: Vec<Frame> = Vec::new();
        for frame in frames {
            if let (Some(Frame::Data { stream: before, bytes: had, fin: end }), Frame::Data { stream, bytes, fin }) =
                (out.last_mut(), &frame)
                && before == stream
            {
                *had = [&had[..], bytes].concat().into();
                *end |= fin;
                continue;
            }
            out.push(frame);
        }
        out
    }

    #[test]
    fn frames_come_out_as_they_went_in_however_they_are_cut() {
        let mut client = Client::new();
        let bytes = [
            client.open(1, &[("streamType", "error"), ("port", "80")]),
            client.open(3, &[("streamType", "data")]),
            Client::data(3, &[7; 3 * PIECE + 5], false),
            Client::data(1, b"", true),
            Encoder::reset(3, ResetReason::Cancel),
            Encoder::ping(9),
            Client::settings(70_000),
            Encoder::window(3, 12),
            // A type nobody knows.
            Encoder::control(77, &[1; 40]),
            Encoder::go_away(3, true),
        ]
        .concat();
        let headers = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let want = vec![
            Frame::Open { stream: 1, headers: headers(&[("streamtype", "error"), ("port", "80")]), fin: false },
            Frame::Open { stream: 3, headers: headers(&[("streamtype", "data")]), fin: false },
            Frame::Data { stream: 3, bytes: vec![7; 3 * PIECE + 5].into(), fin: false },
            Frame::Data { stream: 1, bytes: Bytes::new(), fin: true },
            Frame::Reset { stream: 3 },
            Frame::Ping { id: 9 },
            Frame::FirstWindow { size: 70_000 },
            Frame::Window { stream: 3, more: 12 },
            Frame::Other,
            Frame::GoAway,
        ];
        for cut in [1, 2, 3, 7, 64, 4096, bytes.len()] {
            assert_eq!(joined(all(&bytes, cut).unwrap()), want, "in parts of {cut}");
        }
    }

    #[test]
    fn data_is_handed_on_before_its_frame_is_there() {
        let mut decoder = Decoder::new();
        let mut buffer = BytesMut::from(&Encoder::data(5, 1 << 23, true)[..]);
        assert_eq!(decoder.decode(&mut buffer), Ok(None));
        buffer.extend_from_slice(b"begun");
        let piece = Frame::Data { stream: 5, bytes: Bytes::from_static(b"begun"), fin: false };
        assert_eq!(decoder.decode(&mut buffer), Ok(Some(piece)));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (bytes, want) in [
            (vec![0x80, 2, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1], ProtocolError::Version(2)),
            (vec![0x80, 3, 0, 6, 0, 0, 0, 3, 0, 0, 0], ProtocolError::Malformed(PING)),
            (vec![0x80, 3, 0, 6, 0, 0, 0, 5, 0, 0, 0, 0, 0], ProtocolError::Malformed(PING)),
            (vec![0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff], ProtocolError::TooLong(0xff_ffff)),
            (vec![0x80, 3, 0, 1, 0, 0, 0, 2, 0, 0], ProtocolError::Malformed(SYN_STREAM)),
            (vec![0x80, 3, 0, 1, 0, 0, 0, 11, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 9], ProtocolError::Headers),
            (vec![0x80, 3, 0, 4, 0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff], ProtocolError::Malformed(SETTINGS)),
        ] {
            assert_eq!(all(&bytes, bytes.len()), Err(want), "{bytes:?}");
        }
    }

    proptest! {
        /// Whatever arrives: it is read or refused, the same in whatever parts, and what is kept meanwhile is bounded.
        #[test]
        fn nothing_a_stranger_sends_is_too_much(noise in noise(), cut in 1_usize..64) {
            let whole = all(&noise, noise.len()).map(joined);
            prop_assert_eq!(all(&noise, cut).map(joined), whole);
        }
    }

    /// Bytes, frames, and frames with a byte that is wrong.
    fn noise() -> impl Strategy<Value = Vec<u8>> {
        let frame = (0_u8..10, any::<u8>(), proptest::collection::vec(any::<u8>(), 0..40)).prop_map(
            |(kind, flags, content)| {
                let length = u8::try_from(content.len()).unwrap();
                [&[0x80, 3, 0, kind, flags, 0, 0, length][..], &content].concat()
            },
        );
        let open = (any::<u8>(), "[a-z]{0,9}", ".{0,20}").prop_map(|(stream, name, value)| {
            Client::new().open(u32::from(stream), &[("streamtype", "data"), (name.as_str(), value.as_str())])
        });
        let data = (any::<u8>(), proptest::collection::vec(any::<u8>(), 0..50), any::<bool>())
            .prop_map(|(stream, bytes, fin)| Client::data(u32::from(stream), &bytes, fin));
        let bytes = proptest::collection::vec(any::<u8>(), 0..60);
        let wrong = (prop_oneof![open.clone(), data.clone(), frame.clone()], any::<usize>(), any::<u8>()).prop_map(
            |(mut bytes, place, with)| {
                let place = place % bytes.len();
                bytes[place] ^= with;
                bytes
            },
        );
        proptest::collection::vec(prop_oneof![bytes, frame, open, data, wrong], 0..8).prop_map(|parts| parts.concat())
    }
}
