//! gRPC probes: `grpc.health.v1.Health/Check` over plain HTTP/2. Source: the gRPC health checking protocol.
//!
//! One request and one answer of one field each; a gRPC library would weigh more than these lines.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::{Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::{Outcome, connect};

/// The answer is a handful of bytes.
const BODY: usize = 4096;
/// `HealthCheckResponse.SERVING`.
const SERVING: u64 = 1;

/// Asks whether `service` serves.
pub(super) async fn check(host: &str, port: u16, service: &str, timeout: Duration) -> Outcome {
    match tokio::time::timeout(timeout, ask(host, port, service, timeout)).await {
        Ok(Ok(SERVING)) => Outcome::Success,
        Ok(Ok(status)) => {
            let name = match status {
                0 => "UNKNOWN",
                2 => "NOT_SERVING",
                3 => "SERVICE_UNKNOWN",
                _ => "?",
            };
            Outcome::Failure(format!("service unhealthy (responded with \"{name}\")"))
        }
        Ok(Err(why)) => Outcome::Failure(why),
        Err(_) => Outcome::Failure(format!("timeout: failed to connect service \"{host}:{port}\" within {timeout:?}")),
    }
}

async fn ask(host: &str, port: u16, service: &str, timeout: Duration) -> Result<u64, String> {
    let stream = connect(host, port, timeout).await?;
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .map_err(|e| e.to_string())?;
    let request = Request::post(format!("http://{host}:{port}/grpc.health.v1.Health/Check"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(header::USER_AGENT, "kube-probe/1.36")
        .body(Full::new(message(service)))
        .map_err(|e| e.to_string())?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
        let early = grpc_status(response.headers());
        let body = Limited::new(response.into_body(), BODY).collect().await.map_err(|e| e.to_string())?;
        let status = body.trailers().and_then(grpc_status).or(early);
        match status.as_deref() {
            Some("0") | None => serving(&body.to_bytes()).ok_or_else(|| "the answer is no health check".to_owned()),
            Some("12") => Err("this server does not implement the grpc health protocol (grpc.health.v1.Health)".into()),
            Some(code) => Err(format!("rpc error: code = {code}")),
        }
    };
    tokio::pin!(connection, answer);
    let mut open = true;
    loop {
        tokio::select! {
            biased;
            result = &mut answer => return result,
            _ = &mut connection, if open => open = false,
        }
    }
}

fn grpc_status(headers: &http::HeaderMap) -> Option<String> {
    headers.get("grpc-status").and_then(|v| v.to_str().ok()).map(str::to_owned)
}

/// `HealthCheckRequest{service}` with gRPC's five bytes before it.
fn message(service: &str) -> Bytes {
    let mut proto = BytesMut::new();
    if !service.is_empty() {
        proto.put_u8(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            proto.put_u8(u8::try_from(length & 0x7f).unwrap_or(0) | 0x80);
            length >>= 7;
        }
        proto.put_u8(u8::try_from(length).unwrap_or(0));
        proto.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(u32::try_from(proto.len()).unwrap_or(0));
    framed.put(proto);
    framed.freeze()
}

/// The `status` of a `HealthCheckResponse`; a field that is left out is 0.
fn serving(body: &[u8]) -> Option<u64> {
    match body.get(5..)? {
        [] => Some(0),
        [0x08, status, ..] if *status < 0x80 => Some(u64::from(*status)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_framed_as_grpc_wants() {
        assert_eq!(&message("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&message("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        assert_eq!(message(&"a".repeat(300)).len(), 5 + 3 + 300);
    }

    #[test]
    fn answers_are_read() {
        assert_eq!(serving(&[0, 0, 0, 0, 2, 8, 1]), Some(1));
        assert_eq!(serving(&[0, 0, 0, 0, 0]), Some(0));
        assert_eq!(serving(&[0, 0]), None);
        assert_eq!(serving(&[0, 0, 0, 0, 2, 9, 1]), None);
    }
}
