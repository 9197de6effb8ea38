//! The one place where errors become [`Status`]es.

use std::{error::Error as StdError, time::Instant};

use coracle_proto::{apply::ApplyError, field, patch::PatchError, resource::Resource, status::Status};
use coracle_store::Error as StoreError;

use crate::seldom::Seldom;

/// Clients come again and again while a disk is full or broken; who reads the log needs to hear of it now and then.
static FULL: Seldom = Seldom::new();
static FAILED: Seldom = Seldom::new();
static BROKEN: Seldom = Seldom::new();

/// What a request ends with when it does not get what it asked for. Boxed because a status is large and most go well.
pub type Result<T, E = Box<Status>> = std::result::Result<T, E>;

/// The answer to a failure of the store.
pub(crate) fn store(error: &StoreError) -> Box<Status> {
    Box::new(match error {
        StoreError::Compacted { .. } => Status::expired("The resourceVersion for the provided watch is too old."),
        StoreError::FutureRevision { asked, current } => too_large_version(asked.0, current.0),
        StoreError::SlowWatcher { .. } => Status::expired("The watcher was too slow; list and watch anew."),
        StoreError::ValueTooLarge { size, limit } => {
            Status::too_large(format!("the object of {size} bytes is larger than the limit of {limit}"))
        }
        StoreError::TxnTooLarge { .. } | StoreError::TooManyOps { .. } | StoreError::TooDeep { .. } => {
            Status::too_large("the request is too large for one transaction")
        }
        StoreError::Sealed { key, why } => {
            if let Some(before) = FAILED.next(Instant::now()) {
                tracing::error!(error = error as &dyn StdError, before, "a stored value cannot be read or written");
            }
            Status::internal(format!("unable to transform key {:?}: {why}", String::from_utf8_lossy(key)))
        }
        StoreError::DiskFull => {
            if let Some(before) = FULL.next(Instant::now()) {
                tracing::error!(error = error as &dyn StdError, before, "writes are refused: the disk is full");
            }
            Status::unavailable("the server's disk is full")
        }
        StoreError::Unavailable => {
            let mut status = Status::unavailable(
                "no server leads the cluster now: a majority of the servers must reach each other; try again",
            );
            status.details = Some(coracle_proto::status::Details { retry_after_seconds: 1, ..Default::default() });
            status
        }
        StoreError::OutcomeUnknown => {
            Status::unavailable("the write may or may not have been made: look before trying again")
        }
        StoreError::Closed => Status::unavailable("the server is stopping"),
        StoreError::Removed => Status::unavailable("this server was removed from the cluster: ask another"),
        StoreError::QuorumAtRisk => Status::unavailable("too few servers would be left that are well"),
        StoreError::KeyTooLong { .. }
        | StoreError::KeyEmpty
        | StoreError::DuplicateKey { .. }
        | StoreError::PastReadInTxn
        | StoreError::RangeInRange
        | StoreError::KeyNotFound { .. }
        | StoreError::LeaseNotFound { .. }
        | StoreError::LeaseExists { .. }
        | StoreError::Failed { .. }
        | StoreError::MemberNotFound { .. }
        | StoreError::Malformed { .. }
        | StoreError::Occupied { .. }
        | StoreError::Locked { .. }
        | StoreError::NotEmpty { .. }
        | StoreError::Format { .. }
        | StoreError::Corrupt { .. }
        | StoreError::Io { .. }
        | StoreError::Engine { .. } => {
            if let Some(before) = FAILED.next(Instant::now()) {
                tracing::error!(error = error as &dyn StdError, before, "the store failed");
            }
            Status::internal("the store failed")
        }
    })
}

/// The answer to objects that could not be had in the version wanted. Kubernetes gives no reason either.
pub(crate) fn conversion(error: &crate::custom::ConversionError) -> Box<Status> {
    Box::new(Status::failure(500, "", error.to_string()))
}

/// The answer to a patch that was not applied to the object `name`.
pub(crate) fn patch(error: &PatchError, resource: &Resource, name: &str) -> Box<Status> {
    Box::new(match error {
        PatchError::Malformed(why) => Status::bad_request(why.clone()),
        PatchError::Inapplicable(_) | PatchError::TestFailed { .. } => {
            let mut status =
                Status::failure(422, "Invalid", "the server rejected our request due to an error in our request");
            let details = coracle_proto::status::Details {
                name: name.to_owned(),
                group: resource.group.to_owned(),
                kind: resource.plural.to_owned(),
                causes: vec![coracle_proto::status::Cause { message: error.to_string(), ..Default::default() }],
                ..Default::default()
            };
            status.details = Some(details);
            status
        }
        PatchError::TooLarge(why) => Status::too_large(why.clone()),
    })
}

/// The answer to a configuration with a field that the kind does not have, or with another type than the field's. It is
/// the client's fault, but Kubernetes says 500 and gives no reason, and clients look at that.
pub(crate) fn untyped(config: &str, why: &str) -> Box<Status> {
    Box::new(Status::failure(500, "", format!("failed to create typed patch object ({config}): {why}")))
}

/// The answer to an object that Kubernetes could not have read, if one of the errors is of that kind.
pub(crate) fn unreadable(resource: &Resource, errors: &field::Errors) -> Option<Box<Status>> {
    let found = errors.iter().find(|error| error.kind == field::ErrorKind::Unreadable)?;
    let (kind, version, why) = (resource.kind, resource.version, &found.message);
    let message = format!("{kind} in version \"{version}\" cannot be handled as a {kind}: {why}");
    Some(Box::new(Status::bad_request(message)))
}

/// The answer to an apply that was not carried out; `config` says what was applied.
pub(crate) fn apply(error: &ApplyError, config: &str) -> Box<Status> {
    let conflicts = match error {
        ApplyError::Unmergeable(_) => {
            return Box::new(Status::bad_request(format!("failed to apply ({config}): {error}")));
        }
        ApplyError::Conflicts(conflicts) => conflicts,
    };
    let causes = conflicts.0.iter().map(|conflict| coracle_proto::status::Cause {
        reason: "FieldManagerConflict".to_owned(),
        message: format!("conflict with {}", conflict.manager),
        field: conflict.path.to_string(),
    });
    let mut status = Status::failure(409, "Conflict", conflicts.to_string());
    status.details = Some(coracle_proto::status::Details { causes: causes.collect(), ..Default::default() });
    Box::new(status)
}

/// 504 for a read that asks for a revision to come.
pub(crate) fn too_large_version(asked: u64, current: u64) -> Status {
    let message = format!("Too large resource version: {asked}, current: {current}");
    let mut status = Status::timeout(message);
    let cause = coracle_proto::status::Cause {
        reason: "ResourceVersionTooLarge".to_owned(),
        message: "Too large resource version".to_owned(),
        field: String::new(),
    };
    let details = coracle_proto::status::Details { causes: vec![cause], retry_after_seconds: 1, ..Default::default() };
    status.details = Some(details);
    status
}

/// 500 for something that cannot go wrong unless the code or the stored data is at fault.
pub(crate) fn broken(what: &str, error: &(dyn StdError + 'static)) -> Box<Status> {
    if let Some(before) = BROKEN.next(Instant::now()) {
        tracing::error!(error, before, "{what}");
    }
    Box::new(Status::internal(what))
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_store::Revision;

    #[test]
    fn the_stores_errors_have_kubernetes_codes_and_reasons() {
        for (error, code, reason) in [
            (StoreError::Compacted { compacted: Revision(1) }, 410, "Expired"),
            (StoreError::FutureRevision { asked: Revision(9), current: Revision(1) }, 504, "Timeout"),
            (StoreError::SlowWatcher { events: 1, bytes: 1 }, 410, "Expired"),
            (StoreError::ValueTooLarge { size: 9, limit: 1 }, 413, "RequestEntityTooLarge"),
            (StoreError::DiskFull, 503, "ServiceUnavailable"),
            (StoreError::Unavailable, 503, "ServiceUnavailable"),
            (StoreError::OutcomeUnknown, 503, "ServiceUnavailable"),
            (StoreError::Closed, 503, "ServiceUnavailable"),
            (StoreError::KeyEmpty, 500, "InternalError"),
        ] {
            let status = store(&error);
            assert_eq!((status.code, status.reason.as_str()), (code, reason), "{error}");
        }
        let retry = store(&StoreError::Unavailable).details.expect("details").retry_after_seconds;
        assert_eq!(retry, 1, "without a majority it is said when to try again");
    }
}
