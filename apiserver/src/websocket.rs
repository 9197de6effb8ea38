//! Watches and logs over WebSocket (RFC 6455), for clients that have no other streams: browsers above all.
//!
//! What a watch tells goes as one message an event, as text in JSON and as bytes in protobuf; a log goes in messages of bytes,
//! or of their base64 for who asks for `base64.binary.k8s.io`. Everything before, who it is and whether he may, is as for any
//! other request: the same answer is only sent in another way. What the client says is read and thrown away.

use axum::body::Body;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{Buf as _, Bytes, BytesMut};
use coracle_proto::{protobuf, status::Status};
use futures::{SinkExt as _, StreamExt as _};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        handshake::derive_accept_key,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};

use crate::{held::Kept, request::RequestInfo, status_of::Result, upstream::connect::Tasks};

const BINARY: &str = "binary.k8s.io";
const BASE64: &str = "base64.binary.k8s.io";

/// A subprotocol in which browsers carry a bearer token begins so; it is none that is spoken.
const BEARER: &str = "base64url.bearer.authorization.k8s.io.";

/// What a client may say at once: nobody listens.
const HEARD: usize = 64 * 1024;

/// What belongs to the handshake alone.
static HANDSHAKE: [HeaderName; 6] = [
    header::CONNECTION,
    header::UPGRADE,
    header::SEC_WEBSOCKET_KEY,
    header::SEC_WEBSOCKET_VERSION,
    header::SEC_WEBSOCKET_PROTOCOL,
    header::SEC_WEBSOCKET_EXTENSIONS,
];

/// A connection that is to become a WebSocket.
pub(crate) struct Socket {
    upgrade: OnUpgrade,
    accept: HeaderValue,
    protocol: Option<String>,
}

fn texts<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h str> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|value| !value.is_empty())
}

/// The subprotocol that is spoken, of those the client offers. A watch has none of its own and takes what it is offered.
fn protocol(headers: &HeaderMap, is_watch: bool) -> Result<Option<String>> {
    let offered: Vec<&str> =
        texts(headers, &header::SEC_WEBSOCKET_PROTOCOL).filter(|name| !name.starts_with(BEARER)).collect();
    let ours = offered.iter().find(|name| is_watch || matches!(**name, BINARY | BASE64));
    match (ours, offered.as_slice()) {
        (Some(name), _) => Ok(Some((*name).to_owned())),
        (None, []) => Ok(None),
        (None, offered) => {
            let message =
                format!("requested protocol(s) are not supported: {offered:?}; supports [\"{BINARY}\" \"{BASE64}\"]");
            Err(Box::new(Status::bad_request(message)))
        }
    }
}

/// Takes the handshake out of a request for a watch or a log that comes with one.
///
/// # Errors
/// 400 for a handshake that is none.
pub(crate) fn begin(info: &RequestInfo, request: &mut Request<Body>) -> Result<Option<Socket>> {
    let is_watch = info.verb == "watch";
    let streams = is_watch || (info.subresource == "log" && request.method() == Method::GET);
    let has =
        |name: HeaderName, word: &str| texts(request.headers(), &name).any(|text| text.eq_ignore_ascii_case(word));
    if !streams || !has(header::CONNECTION, "upgrade") || !has(header::UPGRADE, "websocket") {
        return Ok(None);
    }
    let bad = |why: &str| Box::new(Status::bad_request(why));
    let headers = request.headers();
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(bad("only version 13 of WebSocket is spoken: Sec-WebSocket-Version"));
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY).ok_or_else(|| bad("the handshake has no Sec-WebSocket-Key"))?;
    let accept = derive_accept_key(key.as_bytes());
    let accept = HeaderValue::try_from(accept).map_err(|_| bad("the handshake's Sec-WebSocket-Key is none"))?;
    let protocol = protocol(headers, is_watch)?;
    let upgrade = hyper::upgrade::on(&mut *request);
    for name in &HANDSHAKE {
        request.headers_mut().remove(name);
    }
    Ok(Some(Socket { upgrade, accept, protocol }))
}

/// How a stream is cut into messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    /// An event ends with a line.
    Lines,
    /// An event stands behind its length in four bytes.
    Frames,
    /// As it comes.
    Pieces {
        /// As text.
        base64: bool,
    },
}

impl Cut {
    /// The first message of what is there, unless its end is still to come.
    fn message(self, held: &mut BytesMut) -> Option<Message> {
        match self {
            Self::Lines => {
                let end = memchr::memchr(b'\n', held)? + 1;
                let line = held.split_to(end).freeze();
                // JSON is UTF-8; what were none would go as bytes.
                Some(line.clone().try_into().map_or_else(|_| Message::Binary(line), Message::Text))
            }
            Self::Frames => {
                let length = usize::try_from(u32::from_be_bytes(*held.first_chunk()?)).ok()?;
                if held.len() < length.checked_add(4)? {
                    return None;
                }
                held.advance(4);
                Some(Message::Binary(held.split_to(length).freeze()))
            }
            Self::Pieces { .. } if held.is_empty() => None,
            Self::Pieces { base64: false } => Some(Message::Binary(held.split().freeze())),
            Self::Pieces { base64: true } => Some(Message::Text(STANDARD.encode(held.split()).into())),
        }
    }
}

impl Socket {
    /// The answer as it is sent over the WebSocket; a refusal stays what it is.
    pub(crate) fn carry(self, is_watch: bool, response: Response<Body>, tasks: &Tasks) -> Response<Body> {
        if response.status() != StatusCode::OK {
            return response;
        }
        let Self { upgrade, accept, protocol } = self;
        let media = response.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
        let cut = match (is_watch, protocol.as_deref()) {
            (true, _) if media.starts_with(protobuf::MEDIA.as_bytes()) => Cut::Frames,
            (true, _) => Cut::Lines,
            (false, protocol) => Cut::Pieces { base64: protocol == Some(BASE64) },
        };
        let (kept, body) = (Kept::default(), response.into_body());
        let held = kept.clone();
        tasks.spawn(async move {
            let _held = held;
            let Ok(upgraded) = upgrade.await else { return };
            let config = WebSocketConfig::default().max_message_size(Some(HEARD)).max_frame_size(Some(HEARD));
            let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
            if let Err(error) = send(socket, body, cut).await {
                tracing::debug!(error = &error as &dyn std::error::Error, "a WebSocket was cut off");
            }
        });
        let mut answer = Response::new(Body::empty());
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = answer.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        if let Some(protocol) = protocol.and_then(|protocol| HeaderValue::try_from(protocol).ok()) {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
        }
        answer.extensions_mut().insert(kept);
        answer
    }
}

/// Sends the body to its end, or until the client has enough.
async fn send(
    mut socket: WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>,
    mut body: Body,
    cut: Cut,
) -> std::result::Result<(), tokio_tungstenite::tungstenite::Error> {
    let mut held = BytesMut::new();
    loop {
        let frame = tokio::select! {
            frame = body.frame() => frame,
            said = socket.next() => match said {
                Some(Ok(Message::Close(_))) | None => return Ok(()),
                Some(Ok(_)) => continue,
                Some(Err(error)) => return Err(error),
            },
        };
        let Some(Ok(frame)) = frame else { break };
        held.extend_from_slice(&frame.into_data().unwrap_or_else(|_| Bytes::new()));
        while let Some(message) = cut.message(&mut held) {
            socket.send(message).await?;
        }
    }
    socket.close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() })).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(cut: Cut, bytes: &[u8]) -> (Vec<Message>, Vec<u8>) {
        let mut held = BytesMut::from(bytes);
        let found = std::iter::from_fn(|| cut.message(&mut held)).collect();
        (found, held.to_vec())
    }

    #[test]
    fn a_stream_is_cut_into_messages() {
        let text = |text: &'static str| Message::Text(text.into());
        let binary = |bytes: &'static [u8]| Message::Binary(bytes.into());
        assert_eq!(messages(Cut::Lines, b"{}\n{\"a\":1}\n{"), (vec![text("{}\n"), text("{\"a\":1}\n")], b"{".to_vec()));
        assert_eq!(messages(Cut::Frames, b"\0\0\0\x02ab\0\0\0\x05c"), (vec![binary(b"ab")], b"\0\0\0\x05c".to_vec()));
        assert_eq!(messages(Cut::Frames, b"\xff\xff\xff\xffa").0, vec![]);
        assert_eq!(messages(Cut::Pieces { base64: false }, b"\xffa\nb").0, vec![binary(b"\xffa\nb")]);
        assert_eq!(messages(Cut::Pieces { base64: true }, b"\xffa").0, vec![text("/2E=")]);
    }

    #[test]
    fn the_subprotocol_is_the_first_that_is_known() {
        let of = |offered: &str, is_watch| {
            let mut headers = HeaderMap::new();
            if !offered.is_empty() {
                headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::try_from(offered).unwrap());
            }
            protocol(&headers, is_watch).map_err(|status| status.message)
        };
        assert_eq!(of("", false), Ok(None));
        assert_eq!(of("x, binary.k8s.io,base64.binary.k8s.io", false), Ok(Some(BINARY.to_owned())));
        assert_eq!(of(&format!("{BEARER}abc, {BASE64}"), false), Ok(Some(BASE64.to_owned())));
        assert_eq!(of(&format!("{BEARER}abc"), true), Ok(None));
        assert_eq!(of("mine", true), Ok(Some("mine".to_owned())));
        assert!(of("mine", false).unwrap_err().contains("are not supported: [\"mine\"]"));
    }
}
