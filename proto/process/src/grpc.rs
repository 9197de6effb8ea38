//! gRPC over HTTP/2, as far as a server needs it, or a client of plain calls: messages with a length in front, and a
//! status at the end.
//!
//! Source: "gRPC over HTTP2" of the gRPC project. Compressed messages are refused, which clients send only when told to.

use std::{collections::VecDeque, convert::Infallible, fmt::Write as _};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use futures::stream;
use http::{HeaderMap, HeaderValue, Response, header};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use prost::Message;
use tokio::sync::mpsc;

mod client;

pub use client::Client;

/// Bytes before each message: whether it is compressed, and its length.
const FRAME: usize = 5;

/// The code of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// It fits no other.
    Unknown = 2,
    /// What was asked can never be done, whatever state things are in.
    InvalidArgument = 3,
    /// It took too long.
    DeadlineExceeded = 4,
    /// What was asked for is not there.
    NotFound = 5,
    /// What was to be made is there.
    AlreadyExists = 6,
    /// Who asks may not.
    PermissionDenied = 7,
    /// There is no more room for it.
    ResourceExhausted = 8,
    /// The state of things does not allow it.
    FailedPrecondition = 9,
    /// It lies beyond what there is.
    OutOfRange = 11,
    /// Nobody here can do it.
    Unimplemented = 12,
    /// Something is broken.
    Internal = 13,
    /// It cannot be done now.
    Unavailable = 14,
}

impl Code {
    /// The code of this number; [`Code::Unknown`] for one that is not among them.
    const fn numbered(number: u8) -> Self {
        match number {
            3 => Self::InvalidArgument,
            4 => Self::DeadlineExceeded,
            5 => Self::NotFound,
            6 => Self::AlreadyExists,
            7 => Self::PermissionDenied,
            8 => Self::ResourceExhausted,
            9 => Self::FailedPrecondition,
            11 => Self::OutOfRange,
            12 => Self::Unimplemented,
            13 => Self::Internal,
            14 => Self::Unavailable,
            _ => Self::Unknown,
        }
    }
}

/// A refusal: its code, and a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal(pub Code, pub String);

impl Refusal {
    /// Of what can never be done.
    #[must_use]
    pub fn invalid(why: &str) -> Self {
        Self(Code::InvalidArgument, why.to_owned())
    }
}

/// What a call is answered with.
pub type Result<T> = std::result::Result<T, Refusal>;
/// The body of an answer.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;

/// The messages a client sends.
#[derive(Debug)]
pub struct Requests {
    body: Incoming,
    buffer: BytesMut,
    longest: usize,
}

impl Requests {
    /// Those in the body of a request, none of which is longer than `longest` bytes.
    #[must_use]
    pub fn new(body: Incoming, longest: usize) -> Self {
        Self { body, buffer: BytesMut::new(), longest }
    }

    /// The next message; none when the client sends no more.
    ///
    /// # Errors
    /// What was sent is no message, or too long a one.
    ///
    /// # Cancel safety
    /// Safe: what was read of a message is kept.
    pub async fn next<M: Message + Default>(&mut self) -> Result<Option<M>> {
        loop {
            if let Some(message) = self.take()? {
                let decoded = M::decode(message);
                return decoded.map(Some).map_err(|error| Refusal(Code::Internal, format!("grpc: {error}")));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(_)) | None if self.buffer.is_empty() => return Ok(None),
                Some(Err(_)) | None => return Err(Refusal::invalid("grpc: the message is cut short")),
            }
        }
    }

    fn take(&mut self) -> Result<Option<Bytes>> {
        let Some(([compressed, a, b, c, d], _)) = self.buffer.split_first_chunk::<FRAME>() else { return Ok(None) };
        if *compressed != 0 {
            return Err(Refusal(Code::Unimplemented, "grpc: compressed messages are not taken".to_owned()));
        }
        let len = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        if len > self.longest {
            let why = format!("grpc: received message larger than max ({len} vs. {})", self.longest);
            return Err(Refusal(Code::ResourceExhausted, why));
        }
        if self.buffer.len() < FRAME + len {
            return Ok(None);
        }
        self.buffer.advance(FRAME);
        Ok(Some(self.buffer.split_to(len).freeze()))
    }

    /// The only message of a call.
    ///
    /// # Errors
    /// As of [`Requests::next`], or there is none.
    pub async fn only<M: Message + Default>(mut self) -> Result<M> {
        let message = self.next().await?;
        message.ok_or_else(|| Refusal(Code::Internal, "grpc: the call has no message".to_owned()))
    }
}

fn encode(message: &impl Message) -> Bytes {
    let len = message.encoded_len();
    let mut out = BytesMut::with_capacity(len + FRAME);
    out.put_u8(0);
    out.put_u32(u32::try_from(len).unwrap_or(u32::MAX));
    // A buffer grows as it must.
    let _ = message.encode(&mut out);
    out.freeze()
}

/// What is said at the end.
fn status(ended: &Result<()>) -> HeaderMap {
    let mut map = HeaderMap::new();
    let (code, why) = match ended {
        Ok(()) => (0, ""),
        Err(Refusal(code, why)) => (*code as u8, why.as_str()),
    };
    map.insert("grpc-status", HeaderValue::from(u16::from(code)));
    let mut shown = String::with_capacity(why.len());
    for byte in why.bytes() {
        if (b' '..=b'~').contains(&byte) && byte != b'%' {
            shown.push(char::from(byte));
        } else {
            // A text takes whatever is written to it.
            let _ = write!(shown, "%{byte:02X}");
        }
    }
    if let (false, Ok(value)) = (shown.is_empty(), HeaderValue::try_from(shown)) {
        map.insert("grpc-message", value);
    }
    map
}

fn response(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// An answer of one message, or a refusal.
pub fn unary(answered: Result<impl Message>) -> Response<Body> {
    let (message, ended) = match answered {
        Ok(message) => (Some(encode(&message)), Ok(())),
        Err(refusal) => (None, Err(refusal)),
    };
    let mut frames: VecDeque<_> = message.into_iter().map(Frame::data).collect();
    frames.push_back(Frame::trailers(status(&ended)));
    response(StreamBody::new(stream::iter(frames.into_iter().map(Ok))).boxed_unsync())
}

/// Where the answers of a call with many of them are put. Who puts waits until the client has taken most of those before.
#[derive(Clone, Debug)]
pub struct Answers(mpsc::Sender<Result<Bytes>>);

impl Answers {
    /// Sends a message.
    ///
    /// # Errors
    /// The client has gone.
    pub async fn send(&self, message: &impl Message) -> std::result::Result<(), Gone> {
        self.0.send(Ok(encode(message))).await.map_err(|_| Gone)
    }

    /// Ends the call with a refusal.
    pub async fn refuse(&self, refusal: Refusal) {
        // A client that has gone needs no reason.
        let _ = self.0.send(Err(refusal)).await;
    }

    /// Waits until the client has gone.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn gone(&self) {
        self.0.closed().await;
    }
}

/// The client has gone.
#[derive(Clone, Copy, Debug)]
pub struct Gone;

/// Messages that may wait for a client to take them.
const WAITING: usize = 16;

/// An answer of many messages; it ends when all [`Answers`] are dropped.
pub fn streaming() -> (Answers, Response<Body>) {
    let (answers, taken) = mpsc::channel(WAITING);
    let frames = stream::unfold(Some(taken), |taken| async {
        let mut taken: mpsc::Receiver<Result<Bytes>> = taken?;
        Some(match taken.recv().await {
            Some(Ok(bytes)) => (Ok::<_, Infallible>(Frame::data(bytes)), Some(taken)),
            Some(Err(refusal)) => (Ok(Frame::trailers(status(&Err(refusal)))), None),
            None => (Ok(Frame::trailers(status(&Ok(())))), None),
        })
    });
    (Answers(answers), response(StreamBody::new(frames).boxed_unsync()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_a_number_and_words_that_fit_into_a_header() {
        let of = |ended| {
            let map = status(&ended);
            let text = |name: &str| map.get(name).map(|value| value.to_str().unwrap().to_owned());
            (text("grpc-status").unwrap(), text("grpc-message"))
        };
        assert_eq!(of(Ok(())), ("0".to_owned(), None));
        assert_eq!(of(Err(Refusal::invalid("50 % ä\n"))), ("3".to_owned(), Some("50 %25 %C3%A4%0A".to_owned())));
    }
}
