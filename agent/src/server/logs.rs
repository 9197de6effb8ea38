//! `/containerLogs/{namespace}/{pod}/{container}`: what `kubectl logs` reads.

use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use coracle_runtime::{ContainerId, Sandbox};
use futures::{Stream, StreamExt, stream};
use http::{StatusCode, header};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::mpsc;

use super::failure;
use crate::context::Context;
use crate::log::{self, Options};
use crate::pod::facts::Phase;

/// Pieces that wait for the client; the reader waits then.
const PIECES: usize = 8;

/// What `kubectl logs` asks with; names are the API's.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Asked {
    follow: Option<String>,
    previous: Option<String>,
    timestamps: Option<String>,
    tail_lines: Option<u64>,
    since_seconds: Option<i64>,
    since_time: Option<String>,
    limit_bytes: Option<u64>,
}

/// `true`, `1`, or the bare name.
fn flag(value: Option<&str>) -> bool {
    matches!(value, Some("true" | "1" | "True" | "TRUE" | "t" | "T" | ""))
}

fn options(asked: &Asked, now: Timestamp) -> Result<Options, String> {
    let since = match (&asked.since_time, asked.since_seconds) {
        (Some(time), _) => {
            Some(time.parse().map_err(|_| format!("invalid sinceTime {time:?}: must be an RFC 3339 time"))?)
        }
        (None, Some(seconds)) if seconds > 0 => now.checked_sub(SignedDuration::from_secs(seconds)).ok(),
        (None, Some(_)) => return Err("invalid sinceSeconds: must be greater than 0".into()),
        (None, None) => None,
    };
    if asked.limit_bytes == Some(0) {
        return Err("invalid limitBytes: must be greater than 0".into());
    }
    Ok(Options {
        follow: flag(asked.follow.as_deref()),
        timestamps: flag(asked.timestamps.as_deref()),
        since,
        tail: asked.tail_lines,
        limit: asked.limit_bytes,
    })
}

/// Sends a container's log.
pub(super) async fn logs(
    State(context): State<Arc<Context>>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    Query(asked): Query<Asked>,
) -> Response {
    let bad = |message: &str| failure(StatusCode::BAD_REQUEST, "BadRequest", message);
    let mut options = match options(&asked, Timestamp::now()) {
        Ok(options) => options,
        Err(why) => return bad(&why),
    };
    let Some(entry) = context.table.find(&namespace, &pod) else {
        return failure(StatusCode::NOT_FOUND, "NotFound", &format!("pod \"{pod}\" does not exist on this node"));
    };
    if crate::pod::spec(&entry.pod).any_container(&container).is_none() {
        return bad(&format!("container {container} is not valid for pod {pod}"));
    }
    let with_log: Vec<_> =
        entry.attempts.get(&container).into_iter().flatten().filter(|a| !a.log.as_os_str().is_empty()).collect();
    let previous = flag(asked.previous.as_deref());
    let chosen = if previous {
        // The one before the newest, or the newest if it has ended and nothing has begun since.
        let newest = entry.attempts.get(&container).and_then(|a| a.last());
        match newest {
            Some(a) if a.phase == Phase::Exited && with_log.len() == 1 && !a.log.as_os_str().is_empty() => {
                Some(*with_log.first().unwrap_or(&a))
            }
            _ => with_log.len().checked_sub(2).and_then(|i| with_log.get(i).copied()),
        }
    } else {
        with_log.last().copied()
    };
    let Some(attempt) = chosen else {
        return bad(&if previous {
            format!("previous terminated container \"{container}\" in pod \"{pod}\" not found")
        } else {
            format!("container \"{container}\" in pod \"{pod}\" is waiting to start: ContainerCreating")
        });
    };
    if attempt.phase == Phase::Exited {
        options.follow = false;
    }
    let ended = ended(entry.sandbox.clone(), attempt.id.clone());
    let stream = pieces(attempt.log.clone(), options, ended);
    ([(header::CONTENT_TYPE, "text/plain")], Body::from_stream(stream)).into_response()
}

/// Ends when the container has.
async fn ended(sandbox: Option<Sandbox>, id: String) {
    if let (Some(sandbox), Some(id)) = (sandbox, ContainerId::parse(&id))
        && let Err(error) = sandbox.wait(&id).await
    {
        tracing::debug!(container = id.as_str(), error = %error, "end of a container not seen");
    }
}

/// The log as a stream: the reader runs as the client reads, and ends when the client goes.
fn pieces(
    path: std::path::PathBuf,
    options: Options,
    ended: impl Future<Output = ()> + Send + 'static,
) -> impl Stream<Item = io::Result<Bytes>> + Send {
    let (tx, rx) = mpsc::channel(PIECES);
    let reader = stream::once(log::send(path, options, ended, tx)).filter_map(|result| async move {
        // A log that is not there (yet) is an empty one.
        result.err().filter(|e| e.kind() != io::ErrorKind::NotFound).map(Err)
    });
    let texts = stream::unfold(rx, |mut rx| async move { rx.recv().await.map(|piece| (Ok(piece), rx)) });
    stream::select(texts, Box::pin(reader))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_become_options() {
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
        let asked =
            Asked { follow: Some("true".into()), tail_lines: Some(5), since_seconds: Some(30), ..Asked::default() };
        let got = options(&asked, now).unwrap();
        assert!(got.follow && !got.timestamps);
        assert_eq!((got.tail, got.since), (Some(5), Some("2026-01-01T00:00:30Z".parse().unwrap())));
        for wrong in [
            Asked { since_time: Some("yesterday".into()), ..Asked::default() },
            Asked { since_seconds: Some(0), ..Asked::default() },
            Asked { limit_bytes: Some(0), ..Asked::default() },
        ] {
            assert!(options(&wrong, now).is_err(), "{wrong:?}");
        }
    }

    #[tokio::test]
    async fn a_log_is_streamed_and_a_missing_one_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let all = |path: std::path::PathBuf| async move {
            pieces(path, Options::default(), std::future::pending())
                .map(|p| p.unwrap())
                .collect::<Vec<_>>()
                .await
                .concat()
        };
        assert!(all(path.clone()).await.is_empty());
        std::fs::write(&path, "2026-01-01T00:00:00Z stdout F hi\n").unwrap();
        assert_eq!(all(path).await, b"hi\n");
    }
}
