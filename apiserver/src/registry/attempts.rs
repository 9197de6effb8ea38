//! How often a write is tried anew after others came first.

use std::time::{Duration, Instant};

use coracle_proto::status::Status;

/// A request may take 60 s, as in Kubernetes, and what is before and after the rounds needs time as well.
const PATIENCE: Duration = Duration::from_secs(50);

/// One item a round, the first at once. Each round loses only to a write that won, so that all writers together always
/// get on; the bound is for the one who is always slower, and it is one of time because who comes how often in between is
/// not his doing.
pub(super) fn rounds() -> impl Iterator<Item = ()> {
    let begun = Instant::now();
    std::iter::once(()).chain(std::iter::from_fn(move || (begun.elapsed() < PATIENCE).then_some(())))
}

/// What a write ends with that was too slow in all rounds.
pub(super) fn exhausted() -> Box<Status> {
    Box::new(Status::timeout("request did not complete within requested timeout - context deadline exceeded"))
}
