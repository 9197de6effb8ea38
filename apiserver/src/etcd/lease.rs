//! Leases of etcd's clients.

use std::time::Duration;

use coracle_process::grpc::{Answers, Code, Refusal, Requests, Result};
use coracle_store::Store;
use tokio_util::sync::CancellationToken;

use super::{
    kv::{Who, lease, number, refused},
    messages::{
        HeaderResponse, LeaseGrantRequest, LeaseLeasesResponse, LeaseRequest, LeaseResponse, LeaseTimeToLiveRequest,
        LeaseTimeToLiveResponse, Nothing,
    },
};

/// The longest time to live that etcd grants.
const LONGEST: i64 = 9_000_000_000;

fn gone() -> Refusal {
    refused(&coracle_store::Error::LeaseNotFound { id: coracle_store::LeaseId::default() })
}

pub(super) async fn grant(store: &Store, who: Who, request: LeaseGrantRequest) -> Result<LeaseResponse> {
    if request.ttl > LONGEST {
        return Err(Refusal(Code::OutOfRange, "etcdserver: too large lease TTL".to_owned()));
    }
    let ttl = Duration::from_secs(u64::try_from(request.ttl).unwrap_or(1).max(1));
    let granted = match lease(request.id) {
        Some(id) => store.lease_grant_as(id, ttl).await,
        None => store.lease_grant(ttl).await,
    };
    let granted = granted.map_err(|error| refused(&error))?;
    let header = Some(who.header(store.revision()));
    Ok(LeaseResponse { header, id: number(granted.id.0), ttl: number(granted.ttl.as_secs()) })
}

pub(super) async fn revoke(store: &Store, who: Who, request: LeaseRequest) -> Result<HeaderResponse> {
    let id = lease(request.id).ok_or_else(gone)?;
    // What the API server keeps for a while goes when its time is up, and not at a stranger's word.
    if store.lease_keys(id).is_some_and(|(_, keys)| keys.iter().any(|key| super::kv::check_owner(key, None).is_err())) {
        let why = "etcdserver: permission denied: objects of the Kubernetes API hang on this lease";
        return Err(Refusal(Code::PermissionDenied, why.to_owned()));
    }
    store.lease_revoke(id).await.map_err(|error| refused(&error))?;
    Ok(HeaderResponse { header: Some(who.header(store.revision())) })
}

/// Keeps leases alive for as long as the client asks for it. A lease that has ended has a time to live of 0.
pub(super) async fn keep_alive(
    store: Store,
    who: Who,
    mut requests: Requests,
    answers: Answers,
    shutdown: CancellationToken,
) {
    loop {
        let request = tokio::select! {
            () = shutdown.cancelled() => return,
            () = answers.gone() => return,
            request = requests.next::<LeaseRequest>() => request,
        };
        let id = match request {
            Ok(Some(request)) => request.id,
            Ok(None) => return,
            Err(refusal) => return answers.refuse(refusal).await,
        };
        let kept = match lease(id) {
            Some(id) => store.lease_keepalive(id).await,
            None => Err(coracle_store::Error::LeaseNotFound { id: coracle_store::LeaseId::default() }),
        };
        let ttl = match kept {
            Ok(lease) => number(lease.ttl.as_secs()),
            Err(coracle_store::Error::LeaseNotFound { .. }) => 0,
            Err(error) => return answers.refuse(refused(&error)).await,
        };
        let header = Some(who.header(store.revision()));
        if answers.send(&LeaseResponse { header, id, ttl }).await.is_err() {
            return;
        }
    }
}

pub(super) async fn time_to_live(
    store: &Store,
    who: Who,
    request: LeaseTimeToLiveRequest,
) -> Result<LeaseTimeToLiveResponse> {
    let header = Some(who.header(store.revision()));
    let ended = LeaseTimeToLiveResponse { header, id: request.id, ttl: -1, ..LeaseTimeToLiveResponse::default() };
    let Some(id) = lease(request.id) else { return Ok(ended) };
    let left = match store.lease_left(id).await {
        Ok(left) => left,
        Err(coracle_store::Error::LeaseNotFound { .. }) => return Ok(ended),
        Err(error) => return Err(refused(&error)),
    };
    let Some((granted, keys)) = store.lease_keys(id) else { return Ok(ended) };
    Ok(LeaseTimeToLiveResponse {
        ttl: number(left.as_secs()),
        granted_ttl: number(granted.as_secs()),
        keys: if request.keys { keys } else { Vec::new() },
        ..ended
    })
}

pub(super) fn leases(store: &Store, who: Who, _: Nothing) -> LeaseLeasesResponse {
    let leases = store.leases().into_iter().map(|lease| LeaseRequest { id: number(lease.id.0) }).collect();
    LeaseLeasesResponse { header: Some(who.header(store.revision())), leases }
}
