//! Passing a request on: to the other server goes what the client sent but its credentials and what concerns the
//! connection alone; the answer streams back; an upgraded connection is copied both ways until either side ends.

use std::{io, sync::Arc};

use axum::body::Body;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, Version, header};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncWriteExt as _, copy, split},
    sync::Semaphore,
};

use super::{
    connect::{Connector, Pool, Tasks, pool},
    root,
};
use crate::held::{self, Kept};

/// Headers about one connection, which end with it (RFC 9110, 7.6.1).
static HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// A WebSocket's subprotocol in which browsers carry a bearer token.
const TOKEN_PROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";

/// Whether the client wants another protocol on this connection.
pub(crate) fn is_upgrade(headers: &HeaderMap) -> bool {
    let named = |value: &HeaderValue| value.to_str().is_ok_and(|text| text.to_ascii_lowercase().contains("upgrade"));
    headers.get_all(header::CONNECTION).iter().any(named)
}

/// The host the client asked, as it named it.
pub(crate) fn asked_host<T>(request: &Request<T>) -> String {
    let named = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    named.or_else(|| request.uri().authority().map(|host| host.as_str())).unwrap_or_default().to_owned()
}

/// Takes out what concerns one connection, named by the headers themselves or by standard.
fn drop_hop_by_hop(headers: &mut HeaderMap) {
    let listed: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in listed.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// Takes out what the client shows this server and nobody else.
fn drop_credentials(headers: &mut HeaderMap) {
    headers.remove(header::AUTHORIZATION);
    drop_prefixed(headers, "impersonate-");
    let protocols = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    let protocols: Vec<&str> = protocols.flat_map(|text| text.split(',')).map(str::trim).collect();
    if protocols.iter().any(|protocol| protocol.starts_with(TOKEN_PROTOCOL)) {
        let kept: Vec<&str> = protocols.into_iter().filter(|protocol| !protocol.starts_with(TOKEN_PROTOCOL)).collect();
        let kept = HeaderValue::from_str(&kept.join(", ")).ok();
        headers.remove(header::SEC_WEBSOCKET_PROTOCOL);
        if let Some(kept) = kept.filter(|kept| !kept.is_empty()) {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, kept);
        }
    }
}

/// Takes out all headers whose names begin so.
pub(crate) fn drop_prefixed(headers: &mut HeaderMap, prefix: &str) {
    let found: Vec<HeaderName> = headers.keys().filter(|name| name.as_str().starts_with(prefix)).cloned().collect();
    for name in found {
        headers.remove(name);
    }
}

/// The request as the other server gets it, and the client's end of the connection if it is to be upgraded.
pub(crate) fn outgoing(request: Request<Body>, to: Uri) -> (Request<Body>, Option<OnUpgrade>) {
    let mut request = request;
    let host = asked_host(&request);
    let upgrade = is_upgrade(request.headers()).then(|| {
        let protocols: Vec<HeaderValue> = request.headers().get_all(header::UPGRADE).iter().cloned().collect();
        (protocols, hyper::upgrade::on(&mut request))
    });
    let (mut head, body) = request.into_parts();
    drop_hop_by_hop(&mut head.headers);
    drop_credentials(&mut head.headers);
    if let (false, Ok(host)) = (host.is_empty(), HeaderValue::from_str(&host)) {
        head.headers.insert(header::HOST, host);
    }
    head.uri = to;
    head.version = Version::HTTP_11;
    head.extensions.clear();
    let Some((protocols, client)) = upgrade else { return (Request::from_parts(head, body), None) };
    head.headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    for protocol in protocols {
        head.headers.append(header::UPGRADE, protocol);
    }
    (Request::from_parts(head, Body::empty()), Some(client))
}

/// Copies bytes both ways until either side ends.
async fn splice(client: OnUpgrade, server: OnUpgrade) -> io::Result<()> {
    let (client, server) = tokio::try_join!(client, server).map_err(io::Error::other)?;
    let (mut from_client, mut to_client) = split(TokioIo::new(client));
    let (mut from_server, mut to_server) = split(TokioIo::new(server));
    let ended = tokio::select! {
        ended = copy(&mut from_client, &mut to_server) => ended,
        ended = copy(&mut from_server, &mut to_client) => ended,
    };
    // Both sides are told; one of them is gone already.
    let _ = tokio::join!(to_client.shutdown(), to_server.shutdown());
    ended.map(drop)
}

/// The answer as the client gets it. After an upgrade the bytes are copied by a task of its own.
///
/// # Errors
/// The other server answered an upgrade with something else than that or an error.
pub(crate) fn incoming(
    mut answer: Response<Incoming>,
    client: Option<OnUpgrade>,
    tasks: &Tasks,
) -> Result<Response<Body>, String> {
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let Some(client) = client else {
            return Err("the server upgraded a connection that nobody asked it to".to_owned());
        };
        let server = hyper::upgrade::on(&mut answer);
        let kept = Kept::default();
        answer.extensions_mut().insert(kept.clone());
        tasks.spawn(async move {
            let _kept = kept;
            if let Err(error) = splice(client, server).await {
                tracing::debug!(error = &error as &dyn std::error::Error, "an upgraded connection was cut off");
            }
        });
        return Ok(Response::from_parts(answer.into_parts().0, Body::empty()));
    }
    let code = answer.status();
    if client.is_some() && !code.is_client_error() && !code.is_server_error() {
        return Err(format!("invalid upgrade response: status code {}", code.as_u16()));
    }
    let (mut head, body) = answer.into_parts();
    drop_hop_by_hop(&mut head.headers);
    Ok(Response::from_parts(head, Body::new(body)))
}

/// A way to other servers, for requests of clients.
#[derive(Clone)]
pub(crate) struct Way {
    pool: Pool<Body>,
    tasks: Tasks,
    room: Arc<Semaphore>,
}

impl std::fmt::Debug for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Way").field("free", &self.room.available_permits()).finish_non_exhaustive()
    }
}

impl Way {
    /// A way over connections made so, for at most `room`'s requests at once, each of which costs two sockets.
    pub(crate) fn new(tasks: &Tasks, connector: Connector, room: Arc<Semaphore>) -> Self {
        Self { pool: pool(tasks, connector), tasks: tasks.clone(), room }
    }

    /// Passes a request on to the server and path of `to`, and its answer back.
    ///
    /// # Errors
    /// Why there is no answer, in the words of Go's clients.
    ///
    /// # Cancel safety
    /// Safe; the server may have had the request.
    pub(crate) async fn pass(&self, request: Request<Body>, to: Uri) -> Result<Response<Body>, String> {
        let room = Arc::clone(&self.room).try_acquire_owned();
        let room = room.map_err(|_| "too many requests are being passed on, try again".to_owned())?;
        let (request, client) = outgoing(request, to);
        let answer = self.pool.request(request).await.map_err(|error| root(&error))?;
        let answer = incoming(answer, client, &self.tasks)?;
        // The place is free when the answer has been read to its end or nobody reads it any more.
        Ok(held::by(answer, room))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&str, &str)]) -> Request<Body> {
        let mut request = Request::builder().uri("https://api.example:6443/x");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Body::empty()).unwrap()
    }

    fn passed(headers: &[(&str, &str)]) -> HeaderMap {
        outgoing(request(headers), Uri::from_static("http://10.0.0.1/y")).0.into_parts().0.headers
    }

    #[test]
    fn credentials_and_what_is_about_the_connection_stay_here() {
        let headers = passed(&[
            ("authorization", "Bearer secret"),
            ("impersonate-user", "jane"),
            ("impersonate-extra-a", "b"),
            ("connection", "close, x-own"),
            ("x-own", "1"),
            ("keep-alive", "5"),
            ("te", "trailers"),
            ("cookie", "kept"),
            ("host", "h"),
        ]);
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["cookie", "host"]);
        assert_eq!(headers["host"], "h");
        // Without the header the host is the URI's, as in HTTP/2.
        assert_eq!(passed(&[])["host"], "api.example:6443");
    }

    #[test]
    fn an_upgrade_goes_on_without_the_token_among_its_protocols() {
        let headers = [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-protocol", "base64url.bearer.authorization.k8s.io.c2VjcmV0, v5.channel.k8s.io"),
        ];
        assert!(is_upgrade(request(&headers).headers()) && !is_upgrade(request(&headers[1..]).headers()));
        let headers = passed(&headers);
        assert_eq!(
            (&headers["connection"], &headers["upgrade"]),
            (&"Upgrade".parse().unwrap(), &"websocket".parse().unwrap())
        );
        assert_eq!(headers["sec-websocket-protocol"], "v5.channel.k8s.io");
    }
}
