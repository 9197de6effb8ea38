//! Blocks of headers: names and values with their lengths, through one zlib stream a direction that begins with a dictionary
//! (section 2.6.10).

use std::collections::BTreeMap;
use std::sync::LazyLock;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::frame::ProtocolError;

/// As large as a block may be when it is not compressed: clients say three short things.
const MAX_BLOCK: usize = 64 << 10;
/// Headers in one block.
const MAX_HEADERS: usize = 64;

/// Headers by name in lower case; values of one name are separated by NUL.
pub(crate) type Headers = BTreeMap<String, String>;

/// The dictionary's words, each with its length before it in the dictionary.
const WORDS: &str = "options head post put delete trace accept accept-charset accept-encoding accept-language \
    accept-ranges age allow authorization cache-control connection content-base content-encoding content-language \
    content-length content-location content-md5 content-range content-type date etag expect expires from host if-match \
    if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma \
    proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade \
    user-agent vary via warning www-authenticate method get status 200|OK version HTTP/1.1 url public set-cookie \
    keep-alive origin";

/// What follows them.
const REST: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 \
    Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 \
    Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept \
    Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,\
    application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,\
    sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

/// The dictionary of SPDY/3.
static DICTIONARY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut dictionary = Vec::new();
    for word in WORDS.split(' ') {
        let word = word.replace('|', " ");
        dictionary.extend_from_slice(&length(word.len()));
        dictionary.extend_from_slice(word.as_bytes());
    }
    dictionary.extend_from_slice(REST.as_bytes());
    dictionary
});

fn length(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes()
}

/// Reads blocks, in the order they came.
pub(super) struct Unpacker(Decompress);

impl Unpacker {
    pub(super) fn new() -> Self {
        Self(Decompress::new(true))
    }

    /// The headers of the next block.
    pub(super) fn unpack(&mut self, block: &[u8]) -> Result<Headers, ProtocolError> {
        parse(&self.inflate(block)?)
    }

    fn inflate(&mut self, block: &[u8]) -> Result<Vec<u8>, ProtocolError> {
        let mut out = Vec::with_capacity(1024);
        let mut rest = block;
        loop {
            if out.len() > MAX_BLOCK {
                return Err(ProtocolError::HeadersTooLong);
            }
            out.reserve(1024);
            let (read, wrote) = (self.0.total_in(), self.0.total_out());
            let status = self.0.decompress_vec(rest, &mut out, FlushDecompress::Sync);
            let taken = usize::try_from(self.0.total_in().saturating_sub(read)).unwrap_or(usize::MAX);
            rest = rest.get(taken..).unwrap_or_default();
            match status {
                Ok(Status::StreamEnd) if !rest.is_empty() => return Err(ProtocolError::Headers),
                Ok(_) => {}
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0.set_dictionary(&DICTIONARY).map_err(|_| ProtocolError::Headers)?;
                    continue;
                }
                Err(_) => return Err(ProtocolError::Headers),
            }
            if rest.is_empty() && out.len() < out.capacity() {
                return Ok(out);
            }
            if taken == 0 && self.0.total_out() == wrote {
                return Err(ProtocolError::Headers);
            }
        }
    }
}

/// Writes blocks, in the order they go.
pub(super) struct Packer(Compress);

impl Packer {
    pub(super) fn new() -> Self {
        let mut compress = Compress::new(Compression::fast(), true);
        // Without it a block is longer and can be read all the same.
        let _ = compress.set_dictionary(&DICTIONARY);
        Self(compress)
    }

    /// Appends the block of these headers.
    pub(super) fn pack(&mut self, headers: &Headers, out: &mut Vec<u8>) -> Result<(), ProtocolError> {
        let mut block = Vec::new();
        block.extend_from_slice(&length(headers.len()));
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            block.extend_from_slice(&length(text.len()));
            block.extend_from_slice(text.as_bytes());
        }
        let mut rest = block.as_slice();
        loop {
            out.reserve(block.len() + 64);
            let read = self.0.total_in();
            self.0.compress_vec(rest, out, FlushCompress::Sync).map_err(|_| ProtocolError::Headers)?;
            let taken = usize::try_from(self.0.total_in().saturating_sub(read)).unwrap_or(usize::MAX);
            rest = rest.get(taken..).unwrap_or_default();
            if rest.is_empty() && out.len() < out.capacity() {
                return Ok(());
            }
        }
    }
}

fn number(bytes: &mut &[u8]) -> Result<usize, ProtocolError> {
    let (number, rest) = bytes.split_first_chunk::<4>().ok_or(ProtocolError::Headers)?;
    *bytes = rest;
    usize::try_from(u32::from_be_bytes(*number)).map_err(|_| ProtocolError::Headers)
}

fn text(bytes: &mut &[u8]) -> Result<String, ProtocolError> {
    let length = number(bytes)?;
    let (text, rest) = bytes.split_at_checked(length).ok_or(ProtocolError::Headers)?;
    *bytes = rest;
    Ok(String::from_utf8_lossy(text).into_owned())
}

fn parse(mut block: &[u8]) -> Result<Headers, ProtocolError> {
    let count = number(&mut block)?;
    if count > MAX_HEADERS {
        return Err(ProtocolError::HeadersTooLong);
    }
    let mut headers = Headers::new();
    for _ in 0..count {
        let name = text(&mut block)?.to_ascii_lowercase();
        let value = text(&mut block)?;
        if name.is_empty() || headers.insert(name, value).is_some() {
            return Err(ProtocolError::Headers);
        }
    }
    if block.is_empty() { Ok(headers) } else { Err(ProtocolError::Headers) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> Headers {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    /// The number zlib names the dictionary by, as every peer computes it.
    #[test]
    fn the_dictionary_is_that_of_spdy_3() {
        let (mut a, mut b) = (1_u32, 0_u32);
        for byte in DICTIONARY.iter() {
            a = (a + u32::from(*byte)) % 65521;
            b = (b + a) % 65521;
        }
        assert_eq!((DICTIONARY.len(), (b << 16) | a), (1423, 0xe3c6_a7c2));
    }

    #[test]
    fn blocks_come_out_as_they_went_in_one_after_the_other() {
        let (mut packer, mut unpacker) = (Packer::new(), Unpacker::new());
        for want in [
            headers(&[]),
            headers(&[("streamtype", "error"), ("port", "80"), ("requestid", "0")]),
            headers(&[("streamtype", "data"), ("long", &"x".repeat(5000))]),
        ] {
            let mut block = Vec::new();
            packer.pack(&want, &mut block).unwrap();
            assert_eq!(unpacker.unpack(&block).unwrap(), want);
        }
    }

    #[test]
    fn a_block_that_grows_beyond_bounds_is_refused_before_it_is_stored() {
        let mut block = Vec::new();
        Packer::new().pack(&headers(&[("bomb", &"0".repeat(8 << 20))]), &mut block).unwrap();
        assert!(matches!(Unpacker::new().unpack(&block), Err(ProtocolError::HeadersTooLong)));
    }

    #[test]
    fn what_is_no_block_is_refused() {
        for wrong in [
            &[0, 0, 0, 1][..],
            &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0],
            &[0, 0, 0, 1, 0, 0, 0, 1, b'a', 0xff, 0xff, 0xff, 0xff],
            &[0, 0, 0, 0, 7],
            &[0xff, 0, 0, 0],
            &[0, 0, 0, 2, 0, 0, 0, 1, b'a', 0, 0, 0, 0, 0, 0, 0, 1, b'A', 0, 0, 0, 0],
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
        assert!(Unpacker::new().unpack(b"not zlib").is_err());
        assert!(Unpacker::new().unpack(b"").is_err());
    }
}
