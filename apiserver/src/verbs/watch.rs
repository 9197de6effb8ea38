//! A watch as a stream of events: JSON lines, or protobuf messages behind their lengths.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use coracle_proto::status::Status;
use futures::stream;
use http::{Response, StatusCode};
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::Call;
use crate::{
    accept::{Encoding, Form},
    answer::{self, Shape},
    registry::{Selection, Told, Watch, WatchOptions, shared_line},
    status_of::Result,
};

/// How often a quiet watcher is told how far it is.
const BOOKMARKS: Duration = Duration::from_secs(60);

/// How long a watch lasts that does not say: between this and twice as long, so that clients do not all come back at once.
const LASTS: u64 = 1800;

/// As many bytes of lines as are handed to the connection at once.
const CHUNK: usize = 64 * 1024;

struct Stream {
    call: Call,
    watch: Watch,
    bookmarks: Option<Interval>,
    end: Instant,
    shutdown: CancellationToken,
    is_first: bool,
    is_over: bool,
}

impl Stream {
    fn line(&mut self, told: &Told) -> Result<Bytes> {
        let shape: Shape<'_> = self.call.shape();
        let encoding = shape.accepted.encoding;
        let is_plain = shape.accepted.form == Form::Whole && self.call.kind.is_stored_as_shown();
        match told {
            Told::Object(kind, entry, revision, event) if is_plain => {
                shared_line(*kind, entry, *revision, event.as_ref(), encoding, self.call.share)
            }
            Told::Object(kind, entry, revision, _) => {
                let object = shape.object(entry, *revision, std::mem::take(&mut self.is_first))?;
                let mut out = Vec::new();
                answer::write_event(kind.as_str(), &object, encoding, &mut out)?;
                Ok(out.into())
            }
            Told::Bookmark(revision, ends_initial) => {
                let mut out = Vec::new();
                let object = shape.bookmark(*revision, *ends_initial);
                answer::write_event("BOOKMARK", &object, encoding, &mut out)?;
                Ok(out.into())
            }
        }
    }

    fn bookmark(&mut self) -> Bytes {
        let progress = self.watch.progress();
        self.line(&Told::Bookmark(progress, false)).unwrap_or_default()
    }

    async fn next(&mut self) -> Option<Bytes> {
        if self.is_over {
            return None;
        }
        let wants_bookmarks = self.bookmarks.is_some();
        let tick = async {
            match &mut self.bookmarks {
                Some(interval) => interval.tick().await,
                None => std::future::pending().await,
            }
        };
        let kind_ended = async {
            match self.call.kind.ended() {
                Some(ended) => ended.cancelled().await,
                None => std::future::pending().await,
            }
        };
        let told = tokio::select! {
            biased;
            () = self.shutdown.cancelled() => {
                self.is_over = true;
                return None;
            }
            told = self.watch.next() => told,
            // After all that happened while it was served so.
            () = kind_ended => {
                self.is_over = true;
                return None;
            }
            _ = tick => return Some(self.bookmark()),
            () = tokio::time::sleep_until(self.end) => {
                self.is_over = true;
                return wants_bookmarks.then(|| self.bookmark());
            }
        };
        match told.and_then(|told| self.line(&told)) {
            Ok(line) => Some(self.gather(line)),
            Err(status) => {
                self.is_over = true;
                Some(self.error_line(&status))
            }
        }
    }

    /// Adds what else is there already.
    fn gather(&mut self, first: Bytes) -> Bytes {
        let Some(second) = self.watch.ready() else { return first };
        let mut out = first.to_vec();
        let mut told = Some(second);
        while let Some(next) = told {
            match self.line(&next) {
                Ok(line) => out.extend_from_slice(&line),
                Err(status) => {
                    self.is_over = true;
                    out.extend_from_slice(&self.error_line(&status));
                    break;
                }
            }
            if out.len() >= CHUNK {
                break;
            }
            told = self.watch.ready();
        }
        out.into()
    }

    fn error_line(&self, status: &Status) -> Bytes {
        error_line(status, self.call.accepted.encoding)
    }
}

fn error_line(status: &Status, encoding: Encoding) -> Bytes {
    let mut out = Vec::new();
    let object = serde_json::to_vec(status).unwrap_or_default();
    match answer::write_event("ERROR", &object, encoding, &mut out) {
        Ok(()) => out.into(),
        // A status is of a kind that is known; without it the watch just ends.
        Err(_) => Bytes::new(),
    }
}

/// Answers a watch.
pub(super) async fn begin(call: &Call) -> Result<Response<Body>> {
    let encoding = call.accepted.encoding;
    let media = encoding.stream_media()?;
    let options = WatchOptions::of(&call.info)?;
    let selection = Selection::of(&call.kind, &call.info)?;
    let seconds = call.info.query.get("timeoutSeconds").parse::<u64>().ok().filter(|seconds| *seconds > 0);
    let seconds = seconds.unwrap_or_else(|| rand::random_range(LASTS..LASTS * 2)).min(LASTS * 48);
    let watch = match call.registry().watch(&call.namespace, &selection, &*call.kind, options).await {
        Ok(watch) => watch,
        // A version that is gone is told within the stream, where watchers look for it.
        Err(status) if status.code == 410 => {
            return Ok(answer::bytes(StatusCode::OK, media, error_line(&status, encoding)));
        }
        Err(status) => return Err(status),
    };
    let now = Instant::now();
    let bookmarks = options.bookmarks.then(|| {
        let mut interval = tokio::time::interval_at(now + BOOKMARKS, BOOKMARKS);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        interval
    });
    let stream = Stream {
        call: call.clone(),
        watch,
        bookmarks,
        end: now + Duration::from_secs(seconds),
        shutdown: call.server.shutdown.clone(),
        is_first: true,
        is_over: false,
    };
    let lines = stream::unfold(stream, |mut stream| async move {
        let line = stream.next().await?;
        Some((Ok::<_, std::convert::Infallible>(line), stream))
    });
    let body = Body::from_stream(lines);
    Ok(answer::bytes(StatusCode::OK, media, body))
}
