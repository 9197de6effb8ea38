//! How packets lie on a connection: a length of four bytes, little-endian, and that many bytes. A length of nothing says
//! that the sender is still there.

use std::io;

use coracle_store::MAX_PACKET;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// The longest first frame: some addresses.
const HELLO: usize = 8 << 10;

/// What was claimed to come is not taken on trust: memory is taken as the bytes come.
const AT_FIRST: usize = 64 << 10;

/// The first frame of a connection, as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    /// Where the one who connected is found, `host:port`.
    #[serde(default)]
    pub(super) addresses: Vec<String>,
}

fn malformed(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Writes a frame; who writes several flushes after the last.
pub(super) async fn write(to: &mut (impl AsyncWrite + Unpin), packet: &[u8]) -> io::Result<()> {
    let length = u32::try_from(packet.len()).map_err(|_| malformed("a packet longer than any"))?;
    to.write_all(&length.to_le_bytes()).await?;
    to.write_all(packet).await
}

pub(super) async fn write_hello(to: &mut (impl AsyncWrite + Unpin), hello: &Hello) -> io::Result<()> {
    write(to, &serde_json::to_vec(hello)?).await
}

/// Reads how long the next frame is.
pub(super) async fn read_length(from: &mut (impl AsyncRead + Unpin)) -> io::Result<usize> {
    let mut length = [0; 4];
    from.read_exact(&mut length).await?;
    Ok(usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX))
}

/// Reads a frame of that length into `packet`.
pub(super) async fn read(from: &mut (impl AsyncRead + Unpin), length: usize, packet: &mut Vec<u8>) -> io::Result<()> {
    read_up_to(from, length, packet, MAX_PACKET).await
}

pub(super) async fn read_hello(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Hello> {
    read_json(from, HELLO).await
}

/// Reads a frame of JSON that is no longer than `most`.
pub(super) async fn read_json<T: DeserializeOwned>(from: &mut (impl AsyncRead + Unpin), most: usize) -> io::Result<T> {
    let mut text = Vec::new();
    let length = read_length(from).await?;
    read_up_to(from, length, &mut text, most).await?;
    serde_json::from_slice(&text).map_err(|_| malformed("not what is said there"))
}

async fn read_up_to(
    from: &mut (impl AsyncRead + Unpin),
    length: usize,
    packet: &mut Vec<u8>,
    most: usize,
) -> io::Result<()> {
    if length > most {
        return Err(malformed("a packet longer than any"));
    }
    packet.clear();
    packet.reserve(length.min(AT_FIRST));
    let wanted = u64::try_from(length).unwrap_or(u64::MAX);
    from.take(wanted).read_to_end(packet).await?;
    if packet.len() < length { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read_one(mut bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut packet = Vec::new();
        let length = read_length(&mut bytes).await?;
        read(&mut bytes, length, &mut packet).await.map(|()| packet)
    }

    #[tokio::test]
    async fn frames_come_back_and_what_is_none_is_refused() {
        let mut bytes = Vec::new();
        let hello = Hello { addresses: vec!["192.0.2.1:6443".to_owned()] };
        write_hello(&mut bytes, &hello).await.unwrap();
        assert_eq!(read_hello(&mut &bytes[..]).await.unwrap(), hello);
        for packet in [&b""[..], b"x", &[7; 100_000]] {
            bytes.clear();
            write(&mut bytes, packet).await.unwrap();
            assert_eq!(read_one(&bytes).await.unwrap(), packet);
            bytes.pop();
            assert_eq!(read_one(&bytes).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        }
        // A claim of four gigabytes takes no memory.
        assert_eq!(read_one(&[0xff; 8]).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(read_one(&[1, 0, 0, 2]).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(read_one(&[0, 0, 0, 1, 5]).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let long = [&u32::to_le_bytes(9 << 10)[..], &[b' '; 9 << 10]].concat();
        assert_eq!(read_hello(&mut &long[..]).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        for text in ["", "x", "[1]", r#"{"addresses": [1]}"#] {
            let mut bytes = Vec::new();
            write(&mut bytes, text.as_bytes()).await.unwrap();
            assert_eq!(read_hello(&mut &bytes[..]).await.unwrap_err().kind(), io::ErrorKind::InvalidData, "{text}");
        }
    }
}
