//! Large answers, compressed for who takes that.

use std::io::{Read as _, Write as _};

use axum::body::Body;
use bytes::Bytes;
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body::Body as _;
use http_body_util::BodyExt as _;

/// Answers below this size are sent faster than they are compressed: Kubernetes' own bound.
const LEAST: u64 = 128 * 1024;

/// Whether the client takes gzip.
pub(crate) fn is_taken(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let is_gzip = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        is_gzip && !parts.any(|part| part.strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0_f32)))
    })
}

/// The bytes compressed; level 1 costs a third of the usual one's time and a tenth more bytes.
pub(crate) fn gzip(bytes: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), Compression::new(level));
    // Memory takes whatever is written to it.
    let _ = encoder.write_all(bytes);
    encoder.finish().unwrap_or_default()
}

/// What [`gzip`] made.
pub(crate) fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() * 8);
    // What this process compressed it can read.
    let _ = GzDecoder::new(bytes).read_to_end(&mut out);
    out
}

/// Says in the headers that the body is compressed.
pub(crate) fn mark(headers: &mut HeaderMap) {
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    headers.remove(header::CONTENT_LENGTH);
}

/// Compresses a success that is whole in memory, large, and not compressed yet; anything else stays as it is.
pub(crate) async fn compress(response: Response<Body>) -> Response<Body> {
    let is_large = response.body().size_hint().exact().is_some_and(|size| size > LEAST);
    if !is_large || response.status() != StatusCode::OK || response.headers().contains_key(header::CONTENT_ENCODING) {
        return response;
    }
    let (mut head, body) = response.into_parts();
    let Ok(body) = body.collect().await else {
        // A body of known size is memory, which cannot fail to be read.
        return Response::from_parts(head, Body::empty());
    };
    let plain = body.to_bytes();
    let bytes = plain.clone();
    // A megabyte takes milliseconds, so it is done where nobody waits behind it.
    match tokio::task::spawn_blocking(move || gzip(&bytes, 1)).await {
        Ok(packed) if !packed.is_empty() => {
            mark(&mut head.headers);
            Response::from_parts(head, Bytes::from(packed).into())
        }
        _ => Response::from_parts(head, plain.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_for_who_takes_it() {
        let takes = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, text.parse().unwrap());
            is_taken(&headers)
        };
        assert!(takes("gzip") && takes("deflate, GZIP;q=0.5") && takes("br,gzip"));
        assert!(!takes("identity") && !takes("gzip;q=0") && !takes("") && !is_taken(&HeaderMap::new()));
    }

    #[tokio::test]
    async fn only_large_answers_are_compressed() {
        let answer = |size: usize| Response::new(Body::from(vec![b'x'; size]));
        let small = compress(answer(1000)).await;
        assert!(!small.headers().contains_key(header::CONTENT_ENCODING));
        let large = compress(answer(200_000)).await;
        assert_eq!(large.headers()[header::CONTENT_ENCODING], "gzip");
        let body = large.into_body().collect().await.unwrap().to_bytes();
        assert!(body.len() < 2000);
        assert_eq!(gunzip(&body), vec![b'x'; 200_000]);
    }
}
