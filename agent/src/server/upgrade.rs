//! From a request to a stream: which protocol the client wants to go on in, and who serves it.

use axum::body::Body;
use axum::extract::ws::{WebSocket, WebSocketUpgrade};
use axum::extract::{FromRequestParts, Request};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::sync::oneshot;

use super::port_forward::{self, Target};
use super::session::{Asked, Client};
use super::tunnel::Tunnel;
use super::websocket::{self, PROTOCOLS, Protocol};
use super::{Sessions, failure, over_spdy};

/// The longest message a client may send.
const MESSAGE: usize = 1 << 20;

/// SPDY as HTTP calls it.
const SPDY: &str = "SPDY/3.1";

/// How a client of SPDY says what it speaks on it, and is told what was chosen.
const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
/// What it could have said.
const ACCEPTED: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");

/// What is spoken over SPDY to forward ports.
const PORT_FORWARD: &str = "portforward.k8s.io";
/// The same with the SPDY tunnelled through a WebSocket (KEP-4006).
const TUNNELLED: &str = "SPDY/3.1+portforward.k8s.io";

/// The WebSocket the client asks for, which offers `protocols`.
///
/// # Errors
/// The answer that refuses it: it asks for nothing, or for something else.
async fn websocket<const N: usize>(
    request: Request,
    protocols: [&'static str; N],
) -> Result<(WebSocketUpgrade, Option<String>), Box<Response>> {
    let (mut parts, _) = request.into_parts();
    let offers = parts.headers.contains_key(header::SEC_WEBSOCKET_PROTOCOL);
    let Ok(upgrade) = WebSocketUpgrade::from_request_parts(&mut parts, &()).await else {
        let message = "Upgrade request required: this is served over WebSocket and SPDY/3.1";
        return Err(Box::new(failure(StatusCode::BAD_REQUEST, "BadRequest", message)));
    };
    let upgrade = upgrade.max_message_size(MESSAGE).protocols(protocols);
    let chosen = upgrade.selected_protocol().and_then(|name| name.to_str().ok()).map(str::to_owned);
    if chosen.is_none() && offers {
        let message = format!("unable to negotiate protocol: server accepts [{}]", protocols.join(" "));
        return Err(Box::new(failure(StatusCode::FORBIDDEN, "Forbidden", &message)));
    }
    Ok((upgrade, chosen))
}

/// Hands the socket over to a task that is the server's: what axum starts for an upgrade is nobody's.
fn hand_over<F>(
    upgrade: WebSocketUpgrade,
    sessions: &Sessions,
    serve: impl FnOnce(WebSocket) -> F + Send + 'static,
) -> Response
where
    F: Future<Output = ()> + Send + 'static,
{
    let (give, taken) = oneshot::channel();
    sessions.spawn(async move {
        if let Ok(socket) = taken.await {
            serve(socket).await;
        }
    });
    upgrade.on_upgrade(|socket| async move { drop(give.send(socket)) }).into_response()
}

/// Whether the client wants to go on in SPDY.
fn wants_spdy(headers: &HeaderMap) -> bool {
    let named = |value: &HeaderValue| value.to_str().is_ok_and(|name| name.eq_ignore_ascii_case(SPDY));
    headers.get_all(header::UPGRADE).iter().any(named)
}

/// The first protocol of the client's that is ours as well; nothing for a client so old that it names none.
///
/// # Errors
/// The answer to a client that speaks none of them.
fn negotiate(headers: &HeaderMap, ours: &[&'static str]) -> Result<Option<&'static str>, Box<Response>> {
    let theirs = headers.get_all(STREAM_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    let theirs: Vec<&str> =
        theirs.flat_map(|names| names.split(',')).map(str::trim).filter(|name| !name.is_empty()).collect();
    if theirs.is_empty() {
        return Ok(None);
    }
    if let Some(found) = theirs.iter().find_map(|name| ours.iter().find(|own| *own == name)) {
        return Ok(Some(found));
    }
    let message = format!(
        "unable to upgrade: unable to negotiate protocol: client supports [{}], server accepts [{}]",
        theirs.join(" "),
        ours.join(" ")
    );
    let mut refusal = failure(StatusCode::FORBIDDEN, "Forbidden", &message);
    for name in ours {
        refusal.headers_mut().append(ACCEPTED, HeaderValue::from_static(name));
    }
    Err(Box::new(refusal))
}

/// Goes on in SPDY.
fn switch<F>(
    mut request: Request,
    sessions: &Sessions,
    protocol: Option<&'static str>,
    serve: impl FnOnce(TokioIo<Upgraded>) -> F + Send + 'static,
) -> Response
where
    F: Future<Output = ()> + Send + 'static,
{
    let upgrade = hyper::upgrade::on(&mut request);
    sessions.spawn(async move {
        match upgrade.await {
            Ok(upgraded) => serve(TokioIo::new(upgraded)).await,
            Err(error) => tracing::debug!(error = %error, "a connection was not upgraded"),
        }
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static(SPDY));
    if let Some(protocol) = protocol {
        headers.insert(STREAM_PROTOCOL, HeaderValue::from_static(protocol));
    }
    response
}

/// Opens a session with a process, and does `work` with it.
pub(crate) async fn session<F>(
    request: Request,
    sessions: &Sessions,
    asked: Asked,
    work: impl FnOnce(Asked, Client) -> F + Send + 'static,
) -> Response
where
    F: Future<Output = Value> + Send + 'static,
{
    if wants_spdy(request.headers()) {
        return match negotiate(request.headers(), &over_spdy::PROTOCOLS) {
            Ok(chosen) => {
                let protocol = over_spdy::Protocol::named(chosen);
                switch(request, sessions, chosen, move |stream| over_spdy::carry(stream, protocol, asked, work))
            }
            Err(refusal) => *refusal,
        };
    }
    let (upgrade, chosen) = match websocket(request, PROTOCOLS).await {
        Ok(found) => found,
        Err(refusal) => return *refusal,
    };
    let protocol = Protocol::named(chosen.as_deref());
    hand_over(upgrade, sessions, move |socket| websocket::carry(socket, protocol, asked, work))
}

/// Forwards ports of a pod. Those of `ports` are forwarded over a plain WebSocket; over SPDY the client names them later.
pub(crate) async fn ports(request: Request, sessions: &Sessions, target: Target, ports: Vec<u16>) -> Response {
    if wants_spdy(request.headers()) {
        return match negotiate(request.headers(), &[PORT_FORWARD]) {
            Ok(chosen) => switch(request, sessions, chosen, move |stream| port_forward::over_spdy(stream, target)),
            Err(refusal) => *refusal,
        };
    }
    let plain = ["v4.channel.k8s.io", "v4.base64.channel.k8s.io", PORT_FORWARD];
    let [binary, base64, named] = plain;
    let (upgrade, chosen) = match websocket(request, [TUNNELLED, binary, base64, named]).await {
        Ok(found) => found,
        Err(refusal) => return *refusal,
    };
    if chosen.as_deref() == Some(TUNNELLED) {
        return hand_over(upgrade, sessions, move |socket| port_forward::over_spdy(Tunnel::new(socket), target));
    }
    if ports.is_empty() {
        return failure(StatusCode::BAD_REQUEST, "BadRequest", "query parameter \"port\" is required");
    }
    let protocol = Protocol::named(chosen.as_deref().filter(|name| *name == base64).or(Some(binary)));
    hand_over(upgrade, sessions, move |socket| port_forward::over_channels(socket, protocol, target, ports))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&'static str]) -> HeaderMap {
        values.iter().map(|value| (STREAM_PROTOCOL, HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn the_first_protocol_both_know_is_spoken() {
        let ours = over_spdy::PROTOCOLS;
        for (theirs, want) in [
            (&["v5.channel.k8s.io", "v4.channel.k8s.io", "v3.channel.k8s.io"][..], Some("v4.channel.k8s.io")),
            (&["v5.channel.k8s.io, v2.channel.k8s.io"], Some("v2.channel.k8s.io")),
            (&[], None),
        ] {
            assert_eq!(negotiate(&headers(theirs), &ours).unwrap(), want, "{theirs:?}");
        }
        let refusal = negotiate(&headers(&["v9.channel.k8s.io"]), &ours).unwrap_err();
        assert_eq!(refusal.status(), StatusCode::FORBIDDEN);
        assert_eq!(refusal.headers().get_all(ACCEPTED).iter().count(), ours.len());
    }

    #[test]
    fn spdy_is_known_by_its_name() {
        let upgrade = |value| HeaderMap::from_iter([(header::UPGRADE, HeaderValue::from_static(value))]);
        assert!(wants_spdy(&upgrade("SPDY/3.1")) && wants_spdy(&upgrade("spdy/3.1")));
        assert!(!wants_spdy(&upgrade("websocket")) && !wants_spdy(&HeaderMap::new()));
    }
}
