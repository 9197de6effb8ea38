//! A client of gRPC over one connection, for calls of one message and one answer.

use std::future::Future;

use bytes::Bytes;
use http::{HeaderMap, Request, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Code, FRAME, Refusal, Result, encode};

/// A connection to a server; copies share it.
#[derive(Clone, Debug)]
pub struct Client {
    sender: http2::SendRequest<Full<Bytes>>,
    authority: String,
    longest: usize,
}

impl Client {
    /// Calls over `stream` the server of this name (`host:port`), whose answers are of at most `longest` bytes. Whoever
    /// calls runs the future beside it: it is the connection, and ends with it.
    ///
    /// # Errors
    /// What is at the other end does not speak HTTP/2.
    pub async fn over<S>(
        stream: S,
        authority: &str,
        longest: usize,
    ) -> std::result::Result<(Self, impl Future<Output = ()> + Send), hyper::Error>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        // Why it ends is told to whoever calls.
        let connection = async move { drop(connection.await) };
        Ok((Self { sender, authority: authority.to_owned(), longest }, connection))
    }

    /// Calls a method, as in `/etcdserverpb.KV/Range`.
    ///
    /// # Errors
    /// What the server says; [`Code::Unavailable`] if the connection is gone, [`Code::Internal`] if the answer is none.
    pub async fn call<M: Message + Default>(&self, method: &str, message: &impl Message) -> Result<M> {
        let request = Request::post(format!("http://{}{method}", self.authority))
            .header(header::CONTENT_TYPE, "application/grpc")
            .header(header::TE, "trailers")
            .body(Full::new(encode(message)))
            .map_err(|error| Refusal(Code::Internal, format!("grpc: {error}")))?;
        let response = self.sender.clone().send_request(request).await.map_err(|error| gone(&error))?;
        let refused_at_once = refusal(response.headers());
        let body = Limited::new(response.into_body(), self.longest.saturating_add(FRAME));
        let body = body.collect().await.map_err(|error| gone(&*error))?;
        if let Some(refusal) = body.trailers().and_then(refusal).or(refused_at_once) {
            return Err(refusal);
        }
        let bytes = body.to_bytes();
        let message = bytes.split_at_checked(FRAME).map(|(_, message)| M::decode(message));
        match message {
            Some(Ok(message)) => Ok(message),
            Some(Err(error)) => Err(Refusal(Code::Internal, format!("grpc: {error}"))),
            None => Err(Refusal(Code::Internal, "grpc: the answer has no message".to_owned())),
        }
    }
}

fn gone(error: &dyn std::error::Error) -> Refusal {
    Refusal(Code::Unavailable, format!("grpc: {error}"))
}

/// What a server says at the end, or at once; none if all is well.
fn refusal(said: &HeaderMap) -> Option<Refusal> {
    let text = |name: &str| said.get(name).and_then(|value| value.to_str().ok());
    let code = text("grpc-status")?;
    let why = text("grpc-message").unwrap_or_default();
    (code != "0").then(|| Refusal(Code::numbered(code.parse().unwrap_or_default()), decoded(why)))
}

/// A message of a status, in which bytes that do not fit into a header are written as `%XX`.
fn decoded(shown: &str) -> String {
    let mut bytes = Vec::with_capacity(shown.len());
    let mut rest = shown.as_bytes();
    while let [first, after @ ..] = rest {
        let escaped = after.split_first_chunk::<2>().filter(|_| *first == b'%');
        let escaped = escaped.and_then(|(hex, after)| {
            let byte = u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()?;
            Some((byte, after))
        });
        let (byte, after) = escaped.unwrap_or((*first, after));
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::{super::status, *};

    #[test]
    fn a_status_is_read_as_it_was_written() {
        for refused in [
            Refusal::invalid("50 % ä\n"),
            Refusal(Code::NotFound, String::new()),
            Refusal(Code::Unavailable, "%".into()),
        ] {
            assert_eq!(refusal(&status(&Err(refused.clone()))), Some(refused));
        }
        assert_eq!(refusal(&status(&Ok(()))), None);
        assert_eq!(refusal(&HeaderMap::new()), None);
        assert_eq!(decoded("a%zz%4"), "a%zz%4", "what is no number stays");
    }

    #[tokio::test]
    async fn a_call_is_answered_refused_or_broken_off() {
        use std::convert::Infallible;

        use hyper::service::service_fn;
        use tokio::task::JoinSet;

        #[derive(Clone, PartialEq, prost::Message)]
        struct Text {
            #[prost(string, tag = "1")]
            text: String,
        }

        let (near, far) = tokio::io::duplex(1 << 16);
        let serve = service_fn(|request: Request<hyper::body::Incoming>| async move {
            let path = request.uri().path().to_owned();
            let asked = super::super::Requests::new(request.into_body(), 100).only::<Text>().await;
            Ok::<_, Infallible>(super::super::unary(match path.as_str() {
                "/t/Echo" => asked,
                "/t/Long" => Ok(Text { text: "x".repeat(200) }),
                _ => Err(Refusal(Code::Unimplemented, format!("no {path}"))),
            }))
        });
        let mut running = JoinSet::new();
        running.spawn(async move {
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            drop(builder.serve_connection(TokioIo::new(far), serve).await);
        });
        let (client, connection) = Client::over(near, "t:1", 100).await.unwrap();
        running.spawn(connection);
        let hello = Text { text: "hello".to_owned() };
        assert_eq!(client.call::<Text>("/t/Echo", &hello).await, Ok(hello.clone()));
        let refused = client.call::<Text>("/t/Other", &hello).await;
        assert_eq!(refused, Err(Refusal(Code::Unimplemented, "no /t/Other".to_owned())));
        let Err(Refusal(Code::Unavailable, _)) = client.call::<Text>("/t/Long", &hello).await else {
            panic!("an answer may not be longer than what the caller takes")
        };
        running.shutdown().await;
        let Err(Refusal(Code::Unavailable, _)) = client.call::<Text>("/t/Echo", &hello).await else {
            panic!("nobody is there any more")
        };
    }
}
