//! What is recorded of one request while it is worked on.
//!
//! A recording that is dropped before it was ended tells that too: of a client that is gone, or of a panic.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering};

use axum::body::{Body, Bytes};
use coracle_proto::status::Status;
use http::{Response, header};
use http_body_util::BodyExt as _;
use jiff::Timestamp;

use super::{
    Audit, Request,
    event::Event,
    policy::{Extent, Level, Stage},
};
use crate::{admission::Notes, body, held, user::User};

/// See the module.
#[derive(Debug)]
pub(crate) struct Recording {
    audit: Arc<Audit>,
    extent: Extent,
    event: Mutex<Event>,
    /// What admission has to tell.
    notes: Arc<Notes>,
}

impl Audit {
    /// Begins to record a request, if the policy wants it recorded.
    pub(crate) async fn begin(self: &Arc<Self>, request: Request<'_>) -> Option<Recording> {
        let mut extent = self.policy.extent(request.user, request.info);
        if let Some(count) = self.levels.get(extent.level as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        if extent.level == Level::None {
            return None;
        }
        self.room().await;
        let received = request.received;
        let is_about_object = request.info.is_resource;
        let event = Mutex::new(Event::new(extent.level, request));
        // As Kubernetes' levels have it: of requests without objects no bodies are recorded, the keys a server is handed on
        // joining least of all.
        if !is_about_object && extent.level > Level::Metadata {
            extent.level = Level::Metadata;
        }
        let recording = Recording { audit: Arc::clone(self), extent, event, notes: Arc::default() };
        recording.tell(Stage::RequestReceived, received);
        Some(recording)
    }
}

impl Recording {
    fn event(&self) -> MutexGuard<'_, Event> {
        // Nothing panics while it is held.
        self.event.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, stage: Stage, now: Timestamp) {
        if self.extent.tells(stage) {
            let line = self.event().line(stage, now);
            self.audit.record(line);
        }
    }

    /// Where admission notes what it has to tell.
    pub(crate) fn notes(&self) -> &Arc<Notes> {
        &self.notes
    }

    /// It is done as somebody else.
    pub(crate) fn impersonates(&self, user: &User) {
        self.event().impersonates(user);
    }

    /// A fact about it.
    pub(crate) fn annotate(&self, key: &str, value: &str) {
        self.event().annotations.entry(key.to_owned()).or_insert_with(|| value.to_owned());
    }

    /// What was sent, in the form of its media type.
    pub(crate) fn sent(&self, media: &str, bytes: &Bytes) {
        if bytes.is_empty() {
            return;
        }
        // A patch is no object, and is recorded as it is; what cannot be read is refused later.
        let is_patch = media.ends_with("patch+json") || media.ends_with("patch+yaml");
        let json = match media {
            "application/apply-patch+yaml" => body::yaml(bytes),
            _ if is_patch => Ok(bytes.clone()),
            media => body::to_json(media, bytes.clone()),
        };
        if let Ok(json) = json {
            let records = self.extent.level >= Level::Request;
            self.event().sent(&json, !is_patch, records, self.extent.omits_managed_fields);
        }
    }

    /// It was refused.
    pub(crate) fn refused(&self, status: &Status) {
        let json = (self.extent.level >= Level::RequestResponse).then(|| serde_json::to_vec(status).ok()).flatten();
        let mut event = self.event();
        event.ended(status.code, Some(status.clone()));
        if let Some(json) = json {
            event.answered(&json, false);
        }
    }

    /// Looks at an answer that is there as a whole, and gives it back.
    pub(crate) async fn answered(&self, response: Response<Body>) -> Response<Body> {
        let code = response.status();
        let media = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media = media.unwrap_or_default().split(';').next().unwrap_or_default().to_owned();
        let records = self.extent.level >= Level::RequestResponse;
        if !records && !code.is_client_error() && !code.is_server_error() {
            self.event().ended(code.as_u16(), None);
            return response;
        }
        let (parts, body) = response.into_parts();
        let bytes = match body.collect().await {
            Ok(collected) => collected.to_bytes(),
            Err(error) => {
                self.event().ended(code.as_u16(), None);
                return Response::from_parts(
                    parts,
                    Body::from_stream(futures::stream::once(async move { Err::<Bytes, _>(error) })),
                );
            }
        };
        let json = body::to_json(&media, bytes.clone()).unwrap_or_default();
        let failed = code.is_client_error() || code.is_server_error();
        let status = failed.then(|| serde_json::from_slice::<Status>(&json).ok()).flatten();
        {
            let mut event = self.event();
            event.ended(code.as_u16(), status);
            if records && !json.is_empty() {
                event.answered(&json, self.extent.omits_managed_fields);
            }
        }
        Response::from_parts(parts, Body::from(bytes))
    }

    /// It has begun to be answered and goes on for long: it ends with its answer.
    pub(crate) fn goes_on(self, response: Response<Body>) -> Response<Body> {
        self.event().ended(response.status().as_u16(), None);
        self.tell(Stage::ResponseStarted, Timestamp::now());
        held::by(response, self)
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        let notes = self.notes.annotations();
        let stage = {
            let mut event = self.event();
            for (key, value) in notes {
                event.annotations.entry(key).or_insert(value);
            }
            let panicked = std::thread::panicking();
            if panicked {
                event.ended(500, Some(Status::internal("the server could not handle this request")));
            } else if !event.is_ended() {
                // As Kubernetes says it of a client that is gone.
                let mut status = Status::success(None);
                "Connection closed early".clone_into(&mut status.message);
                event.ended(200, Some(status));
            }
            if panicked { Stage::Panic } else { Stage::ResponseComplete }
        };
        self.tell(stage, Timestamp::now());
    }
}
