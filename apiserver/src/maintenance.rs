//! The requests that are about what is stored as a whole: keys it is sealed with, copies of it.
//!
//! ```text
//!   GET  /coracle/v1/encryption          which keys there are, and what is sealed with the newest
//!   POST /coracle/v1/encryption/rotate   a new key, and everything sealed with it
//!   POST /coracle/v1/encryption/rewrite  everything sealed as it is configured
//!   GET  /coracle/v1/snapshot            everything the cluster is, as one file
//!   GET  /coracle/v1/revision?ago=600    which resourceVersion the cluster had that many seconds ago; or at a time of this
//!                                        server's clock, ?at=2026-11-21T08:30:00Z
//! ```
//!
//! They are paths without objects, so RBAC guards them by `nonResourceURLs`; nobody but administrators has them unless
//! somebody grants them. What they write they write in a task of its own: no disconnect cuts it.

use std::{sync::Arc, time::Duration};

use axum::body::Body;
use coracle_proto::status::Status;
use futures::future::BoxFuture;
use http::{Request, Response, StatusCode};
use tokio_util::task::TaskTracker;

use crate::{
    answer,
    encryption::{self, Encryption},
    peers::Givers,
    registry::Registry,
    request::RequestInfo,
    server::Handler,
    snapshot,
    status_of::{self, Result},
    user::User,
};

/// See the module.
pub(crate) struct Maintenance {
    pub(crate) registry: Registry,
    pub(crate) encryption: Arc<Encryption>,
    /// The way to the other servers, which are to have a new key as well.
    pub(crate) givers: Givers,
    /// What a snapshot is made of, beside the store.
    pub(crate) source: snapshot::Source,
    /// Where writes run to their end.
    pub(crate) writes: TaskTracker,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    Keys,
    Rotate,
    Rewrite,
    Snapshot,
    Revision,
}

fn route(info: &RequestInfo) -> Option<Route> {
    if info.is_resource {
        return None;
    }
    match info.path.as_str() {
        "/coracle/v1/encryption" => Some(Route::Keys),
        "/coracle/v1/encryption/rotate" => Some(Route::Rotate),
        "/coracle/v1/encryption/rewrite" => Some(Route::Rewrite),
        "/coracle/v1/snapshot" => Some(Route::Snapshot),
        "/coracle/v1/revision" => Some(Route::Revision),
        _ => None,
    }
}

impl Maintenance {
    async fn answer(&self, info: &RequestInfo) -> Result<Response<Body>> {
        let Some(route) = route(info) else { return Err(Box::new(Status::no_such_path())) };
        let verb = if matches!(route, Route::Keys | Route::Snapshot | Route::Revision) { "get" } else { "post" };
        if info.verb != verb {
            return Err(Box::new(Status::method_not_allowed()));
        }
        match route {
            Route::Snapshot => return self.snapshot().await,
            Route::Revision => return self.revision(info),
            Route::Keys | Route::Rotate | Route::Rewrite => {}
        }
        let (encryption, store) = (Arc::clone(&self.encryption), self.registry.store().clone());
        let givers = self.givers.clone();
        let done = self.writes.spawn(async move {
            match route {
                Route::Keys | Route::Snapshot | Route::Revision => {
                    tokio::task::spawn_blocking(move || encryption.report(&store))
                        .await
                        .unwrap_or_else(|_| Err(encryption::Error::Store(coracle_store::Error::Closed)))
                }
                Route::Rotate => encryption.rotate(&store, &givers).await,
                Route::Rewrite => encryption.rewrite(&store).await,
            }
        });
        let done = done.await.map_err(|_| Box::new(Status::internal("the request ended in a panic")))?;
        let report = done.map_err(|error| refused(&error))?;
        Ok(answer::json_value(StatusCode::OK, &report))
    }

    fn revision(&self, info: &RequestInfo) -> Result<Response<Body>> {
        let ago = ago(info.query.get("ago"), info.query.get("at"), jiff::Timestamp::now());
        let ago = ago.map_err(|why| Box::new(Status::bad_request(why)))?;
        let revision = self.registry.store().revision_ago(ago).map_err(|_| {
            let why = "what the cluster was that long ago is not known any more: see --history, --history-memory, and \
                       when this server was started";
            Box::new(Status::expired(why))
        })?;
        Ok(answer::json_value(StatusCode::OK, &serde_json::json!({"revision": revision.0})))
    }

    async fn snapshot(&self) -> Result<Response<Body>> {
        // A member among several shows what was acknowledged anywhere before.
        self.registry.store().barrier().await.map_err(|error| status_of::store(&error))?;
        let (source, store) = (self.source.clone(), self.registry.store().clone());
        let made = tokio::task::spawn_blocking(move || snapshot::stream(&source, &store, jiff::Timestamp::now())).await;
        let made = made.map_err(|_| Box::new(Status::internal("the request ended in a panic")))?;
        let pieces = made.map_err(|error| status_of::broken("a snapshot cannot be made", &error))?;
        Ok(answer::bytes(StatusCode::OK, "application/vnd.coracle.snapshot", Body::from_stream(pieces)))
    }
}

/// How long ago is meant, by one of the two; or what is wrong with it.
fn ago(ago: &str, at: &str, now: jiff::Timestamp) -> std::result::Result<Duration, String> {
    if at.is_empty() {
        let seconds = ago.parse().map_err(|_| format!("ago: {ago:?} is no number of seconds"))?;
        return Ok(Duration::from_secs(seconds));
    }
    if !ago.is_empty() {
        return Err("at: not together with ago".to_owned());
    }
    let then: jiff::Timestamp =
        at.parse().map_err(|_| format!("at: {at:?} is no time such as 2026-11-21T08:30:00Z"))?;
    Duration::try_from(now.duration_since(then)).map_err(|_| format!("at: {at} is yet to come: it is {now} here"))
}

fn refused(error: &encryption::Error) -> Box<Status> {
    match error {
        encryption::Error::NotOurs { .. } => Box::new(Status::bad_request(error.to_string())),
        // Not what clients try again by themselves: somebody has to see to it first.
        encryption::Error::Unreached { .. } | encryption::Error::UnderWay => {
            Box::new(Status::failure(409, "Conflict", error.to_string()))
        }
        encryption::Error::Store(error) => status_of::store(error),
        encryption::Error::Configuration(_) | encryption::Error::File(_) | encryption::Error::Unreadable { .. } => {
            status_of::broken("the keys that values are sealed with cannot be changed", error)
        }
    }
}

impl Handler for Maintenance {
    fn serves(&self, info: &RequestInfo) -> bool {
        route(info).is_some()
    }

    fn handle<'a>(
        &'a self,
        _: &'a User,
        info: &'a RequestInfo,
        _: Request<Body>,
    ) -> BoxFuture<'a, Result<Response<Body>>> {
        Box::pin(self.answer(info))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_past_is_asked_for_by_its_age_or_by_its_time() {
        let now: jiff::Timestamp = "2026-11-21T08:30:00Z".parse().unwrap();
        let minute = Duration::from_secs(60);
        for (by_age, by_time, expected) in [
            ("60", "", Ok(minute)),
            ("", "2026-11-21T08:29:00Z", Ok(minute)),
            ("", "2026-11-21T10:29:00+02:00", Ok(minute)),
            ("", "2026-11-21T08:30:00Z", Ok(Duration::ZERO)),
            ("", "", Err("ago: \"\" is no number of seconds")),
            ("-1", "", Err("ago: \"-1\" is no number of seconds")),
            ("60", "2026-11-21T08:29:00Z", Err("at: not together with ago")),
            ("", "08:29", Err("at: \"08:29\" is no time such as 2026-11-21T08:30:00Z")),
            (
                "",
                "2026-11-21T08:30:01Z",
                Err("at: 2026-11-21T08:30:01Z is yet to come: it is 2026-11-21T08:30:00Z here"),
            ),
        ] {
            assert_eq!(ago(by_age, by_time, now), expected.map_err(str::to_owned), "{by_age:?} {by_time:?}");
        }
    }
}
