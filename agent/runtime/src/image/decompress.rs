//! Compressed streams, told apart by their first bytes: media types are often wrong.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};

use super::archive::invalid;

/// Reads plain, gzip (RFC 1952, any number of members) or zstd (RFC 8878, any number of frames) data as plain.
pub(super) fn decompress<'a>(reader: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut reader = BufReader::with_capacity(1 << 16, reader);
    let mut start: Vec<u8> = Vec::new();
    // A first read may be shorter than the four bytes that tell.
    while start.len() < 4 {
        let mut byte = [0];
        match reader.read(&mut byte)? {
            0 => break,
            _ => start.extend_from_slice(&byte),
        }
    }
    let kind = Kind::of(&start);
    let reader = BufReader::with_capacity(1 << 16, io::Cursor::new(start).chain(reader));
    match kind {
        Kind::Plain => Ok(Box::new(reader)),
        Kind::Gzip => Ok(Box::new(MultiGzDecoder::new(reader))),
        Kind::Zstd => Ok(Box::new(Frames { state: Some(State::Between(Again { front: None, reader })) })),
        Kind::Other(name) => Err(invalid(format!("{name} compression is not supported"))),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    Gzip,
    Zstd,
    Other(&'static str),
}

impl Kind {
    fn of(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            magic if is_skippable(magic) => Self::Zstd,
            [0xfd, b'7', b'z', b'X', ..] => Self::Other("xz"),
            [b'B', b'Z', b'h', ..] => Self::Other("bzip2"),
            _ => Self::Plain,
        }
    }
}

/// zstd frames one after the other, skippable ones left out.
struct Frames<R: BufRead> {
    state: Option<State<R>>,
}

enum State<R: BufRead> {
    Between(Again<R>),
    In(Box<StreamingDecoder<Again<R>, FrameDecoder>>),
}

/// A reader whose last four bytes can be read once more: the decoder wants the magic number it was chosen by.
struct Again<R> {
    front: Option<[u8; 4]>,
    reader: R,
}

impl<R: Read> Read for Again<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match (self.front.take(), buffer.get_mut(..4)) {
            (Some(front), Some(window)) => {
                window.copy_from_slice(&front);
                Ok(4)
            }
            // The decoder reads the magic number in one piece.
            (Some(_), None) => Err(invalid("zstd frame")),
            (None, _) => self.reader.read(buffer),
        }
    }
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            match self.state.take() {
                None => return Ok(0),
                Some(State::In(mut decoder)) => {
                    let count = decoder.read(buffer)?;
                    if count > 0 {
                        self.state = Some(State::In(decoder));
                        return Ok(count);
                    }
                    self.state = Some(State::Between(decoder.into_inner()));
                }
                Some(State::Between(mut again)) => {
                    if again.reader.fill_buf()?.is_empty() {
                        return Ok(0);
                    }
                    let mut magic = [0; 4];
                    again.reader.read_exact(&mut magic)?;
                    self.state = Some(if is_skippable(&magic) {
                        let mut length = [0; 4];
                        again.reader.read_exact(&mut length)?;
                        let length = u64::from(u32::from_le_bytes(length));
                        io::copy(&mut again.reader.by_ref().take(length), &mut io::sink())?;
                        State::Between(again)
                    } else {
                        again.front = Some(magic);
                        let decoder =
                            StreamingDecoder::new(again).map_err(|error| invalid(format!("zstd: {error}")))?;
                        State::In(Box::new(decoder))
                    });
                }
            }
        }
    }
}

fn is_skippable(magic: &[u8]) -> bool {
    matches!(magic, [first, 0x2a, 0x4d, 0x18, ..] if first & 0xf0 == 0x50)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn read(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        decompress(bytes)?.read_to_end(&mut plain)?;
        Ok(plain)
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn streams_are_told_apart_by_their_first_bytes() {
        let text = b"some text ".repeat(10_000);
        assert_eq!(read(&text).unwrap(), text);
        assert_eq!(read(&gzip(&text)).unwrap(), text);
        assert_eq!(read(&zstd(&text)).unwrap(), text);
        assert_eq!(read(b"").unwrap(), b"");
        assert_eq!(read(b"abc").unwrap(), b"abc");
        assert!(read(&[0xfd, b'7', b'z', b'X', b'Z', 0]).unwrap_err().to_string().contains("xz compression"));
    }

    #[test]
    fn members_and_frames_follow_one_another() {
        assert_eq!(read(&[gzip(b"one"), gzip(b"two")].concat()).unwrap(), b"onetwo");
        let skippable = [&[0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"xyz"].concat();
        assert_eq!(read(&[skippable.clone(), zstd(b"one"), skippable, zstd(b"two")].concat()).unwrap(), b"onetwo");
    }

    #[test]
    fn a_cut_stream_is_an_error() {
        let text = b"some text ".repeat(10_000);
        for whole in [gzip(&text), zstd(&text)] {
            assert!(read(&whole[..whole.len() - 9]).is_err());
        }
    }
}
