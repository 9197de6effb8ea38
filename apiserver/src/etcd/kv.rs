//! Keys and values: etcd's requests as the store's, and its answers.

use std::sync::Arc;

use bytes::Bytes;
use coracle_process::grpc::{Code, Refusal, Result};
use coracle_store::{
    self as store, Change, Entry, LeaseId, Op, OpResult, Range, RangeResult, Revision, Store, Txn, What,
};

use super::messages::{
    CompactionRequest, DeleteRangeRequest, DeleteRangeResponse, HeaderResponse, KeyValue, PutRequest, PutResponse,
    RangeRequest, RangeResponse, ResponseHeader,
};

/// What the API server writes, and nobody else: it relies upon what it wrote.
const OWNED: [&str; 2] = ["/registry/", "/coracle/"];

/// etcd's words for the store's refusals.
pub(super) fn refused(error: &store::Error) -> Refusal {
    let (code, why) = match error {
        store::Error::Compacted { .. } => (Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted"),
        store::Error::FutureRevision { .. } => {
            (Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision")
        }
        store::Error::KeyEmpty => (Code::InvalidArgument, "etcdserver: key is not provided"),
        store::Error::KeyTooLong { .. } | store::Error::ValueTooLarge { .. } | store::Error::TxnTooLarge { .. } => {
            (Code::InvalidArgument, "etcdserver: request is too large")
        }
        store::Error::TooManyOps { .. } | store::Error::TooDeep { .. } => {
            (Code::InvalidArgument, "etcdserver: too many operations in txn request")
        }
        store::Error::KeyNotFound { .. } => (Code::InvalidArgument, "etcdserver: key not found"),
        store::Error::DuplicateKey { .. } => (Code::InvalidArgument, "etcdserver: duplicate key given in txn request"),
        store::Error::PastReadInTxn => {
            (Code::Unimplemented, "etcdserver: a read within a transaction is of the present here")
        }
        store::Error::LeaseNotFound { .. } => (Code::NotFound, "etcdserver: requested lease not found"),
        store::Error::LeaseExists { .. } => (Code::FailedPrecondition, "etcdserver: lease already exists"),
        store::Error::DiskFull => (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded"),
        store::Error::Unavailable => (Code::Unavailable, "etcdserver: no leader"),
        store::Error::OutcomeUnknown => (Code::Unavailable, "etcdserver: request timed out"),
        store::Error::Closed => (Code::Unavailable, "etcdserver: server stopped"),
        other => {
            tracing::error!(error = other as &dyn std::error::Error, "the store failed");
            (Code::Unavailable, "etcdserver: the store failed")
        }
    };
    Refusal(code, why.to_owned())
}

pub(super) fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn count(value: usize) -> i64 {
    number(value as u64)
}

/// An entry as etcd shows it.
pub(super) fn shown(entry: &Entry) -> KeyValue {
    KeyValue {
        key: entry.key.clone(),
        create_revision: number(entry.create_revision.0),
        mod_revision: number(entry.mod_revision.0),
        version: number(entry.version),
        value: entry.value.clone(),
        lease: number(entry.lease.unwrap_or_default().0),
    }
}

/// etcd's way to write a range: no end is the key alone, and a zero byte is everything from the key on.
pub(super) fn bounds(key: &Bytes, end: &Bytes) -> Result<(Bytes, Option<Bytes>)> {
    if key.is_empty() {
        return Err(refused(&store::Error::KeyEmpty));
    }
    Ok(match &end[..] {
        [] => (key.clone(), None),
        [0] => (key.clone(), Some(Bytes::new())),
        _ => (key.clone(), Some(end.clone())),
    })
}

/// Refuses writes that reach into what the API server owns.
pub(super) fn check_owner(start: &[u8], end: Option<&[u8]>) -> Result<()> {
    let reaches = |owned: &str| match end {
        None => start.starts_with(owned.as_bytes()),
        Some(end) => {
            let after = store::prefix_end(owned.as_bytes());
            start < &after[..] && (end.is_empty() || end > owned.as_bytes())
        }
    };
    match OWNED.into_iter().find(|owned| reaches(owned)) {
        None => Ok(()),
        Some(owned) => Err(Refusal(
            Code::PermissionDenied,
            format!("etcdserver: permission denied: what is under {owned} is written through the Kubernetes API"),
        )),
    }
}

impl RangeRequest {
    /// Whether the store itself cannot choose what is shown.
    fn is_chosen_here(&self) -> bool {
        let filters =
            [self.min_mod_revision, self.max_mod_revision, self.min_create_revision, self.max_create_revision];
        self.is_sorted_here() || filters.iter().any(|filter| *filter != 0)
    }

    fn is_sorted_here(&self) -> bool {
        self.sort_order == 2 || self.sort_target != 0
    }

    pub(super) fn range(&self) -> Result<Range> {
        if !(0..=2).contains(&self.sort_order) || !(0..=4).contains(&self.sort_target) {
            return Err(Refusal::invalid("etcdserver: invalid sort option"));
        }
        let (start, end) = bounds(&self.key, &self.range_end)?;
        let limit = if self.is_chosen_here() { 0 } else { usize::try_from(self.limit).unwrap_or(0) };
        let what = if self.count_only { What::Count } else { What::Entries };
        let at = u64::try_from(self.revision).ok().filter(|at| *at > 0).map(Revision);
        Ok(Range { start, end, at, limit, what })
    }

    pub(super) fn answer(&self, header: ResponseHeader, found: RangeResult) -> RangeResponse {
        let RangeResult { mut entries, mut more, count: total, .. } = found;
        if self.is_chosen_here() {
            let within = |value: u64, min: i64, max: i64| {
                let value = number(value);
                (min == 0 || value >= min) && (max == 0 || value <= max)
            };
            entries.retain(|entry| {
                within(entry.mod_revision.0, self.min_mod_revision, self.max_mod_revision)
                    && within(entry.create_revision.0, self.min_create_revision, self.max_create_revision)
            });
            match self.sort_target {
                1 => entries.sort_by_key(|entry| entry.version),
                2 => entries.sort_by_key(|entry| entry.create_revision),
                3 => entries.sort_by_key(|entry| entry.mod_revision),
                4 => entries.sort_by(|a, b| a.value.cmp(&b.value)),
                _ => {}
            }
            if self.sort_order == 2 {
                entries.reverse();
            }
            if let Ok(limit @ 1..) = usize::try_from(self.limit) {
                more = entries.len() > limit;
                entries.truncate(limit);
            }
        }
        let kvs = entries.iter().map(|entry| {
            let mut kv = shown(entry);
            if self.keys_only {
                kv.value = Bytes::new();
            }
            kv
        });
        RangeResponse { kvs: kvs.collect(), more, count: count(total), header: Some(header) }
    }
}

/// Who answers: the numbers every answer begins with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Who {
    pub(super) cluster: u64,
    pub(super) member: u64,
    pub(super) term: u64,
}

impl Who {
    pub(super) fn header(self, revision: Revision) -> ResponseHeader {
        ResponseHeader {
            cluster_id: self.cluster,
            member_id: self.member,
            revision: number(revision.0),
            raft_term: self.term,
        }
    }
}

pub(super) async fn range(store: &Store, who: Who, request: RangeRequest) -> Result<RangeResponse> {
    let range = request.range()?;
    if !request.serializable {
        store.barrier().await.map_err(|error| refused(&error))?;
    }
    let found = store.range(&range).map_err(|error| refused(&error))?;
    Ok(request.answer(who.header(found.revision), found))
}

pub(super) async fn put(store: &Store, who: Who, request: PutRequest) -> Result<PutResponse> {
    let txn = Txn { then: vec![put_op(&request)?], ..Txn::default() };
    let done = store.txn(txn).await.map_err(|error| refused(&error))?;
    let previous = match done.results.into_iter().next() {
        Some(OpResult::Put { previous, .. }) => previous,
        Some(OpResult::Deleted(_) | OpResult::Got(_) | OpResult::Txn(_)) | None => None,
    };
    Ok(put_answer(&request, who.header(done.revision), previous))
}

pub(super) fn put_op(request: &PutRequest) -> Result<Op> {
    if request.key.is_empty() {
        return Err(refused(&store::Error::KeyEmpty));
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(Refusal::invalid("etcdserver: value is provided"));
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(Refusal::invalid("etcdserver: lease is provided"));
    }
    check_owner(&request.key, None)?;
    let (key, value, lease) = (request.key.clone(), request.value.clone(), lease(request.lease));
    Ok(match (request.ignore_value, request.ignore_lease) {
        (false, false) => Op::Put { key, value, lease },
        (true, false) => Op::Amend { key, change: Change::Lease(lease) },
        (false, true) => Op::Amend { key, change: Change::Value(value) },
        (true, true) => Op::Amend { key, change: Change::Nothing },
    })
}

pub(super) fn put_answer(asked: &PutRequest, header: ResponseHeader, previous: Option<Arc<Entry>>) -> PutResponse {
    let prev_kv = previous.filter(|_| asked.prev_kv).map(|entry| shown(&entry));
    PutResponse { header: Some(header), prev_kv }
}

pub(super) fn lease(id: i64) -> Option<LeaseId> {
    u64::try_from(id).ok().filter(|id| *id != 0).map(LeaseId)
}

pub(super) async fn delete(store: &Store, who: Who, request: DeleteRangeRequest) -> Result<DeleteRangeResponse> {
    let txn = Txn { then: vec![delete_op(&request)?], ..Txn::default() };
    let done = store.txn(txn).await.map_err(|error| refused(&error))?;
    let gone = match done.results.into_iter().next() {
        Some(OpResult::Deleted(gone)) => gone,
        Some(OpResult::Put { .. } | OpResult::Got(_) | OpResult::Txn(_)) | None => Vec::new(),
    };
    Ok(delete_answer(&request, who.header(done.revision), &gone))
}

pub(super) fn delete_op(request: &DeleteRangeRequest) -> Result<Op> {
    let (start, end) = bounds(&request.key, &request.range_end)?;
    check_owner(&start, end.as_deref())?;
    Ok(Op::Delete { start, end })
}

pub(super) fn delete_answer(
    asked: &DeleteRangeRequest,
    header: ResponseHeader,
    gone: &[Arc<Entry>],
) -> DeleteRangeResponse {
    let prev_kvs = if asked.prev_kv { gone.iter().map(|entry| shown(entry)).collect() } else { Vec::new() };
    DeleteRangeResponse { header: Some(header), deleted: count(gone.len()), prev_kvs }
}

pub(super) async fn compact(store: &Store, who: Who, request: CompactionRequest) -> Result<HeaderResponse> {
    let revision = Revision(u64::try_from(request.revision).unwrap_or(0));
    store.compact(revision).await.map_err(|error| refused(&error))?;
    Ok(HeaderResponse { header: Some(who.header(store.revision())) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_api_server_owns_is_not_written_by_others() {
        for (start, end, allowed) in [
            ("/registry/pods/a/b", None, false),
            ("/registry/", None, false),
            ("/registry", None, true),
            ("/coracle/nodes/x", None, false),
            ("a", None, true),
            ("a", Some("b"), true),
            ("", Some(""), false),
            ("/", Some("0"), false),
            ("/registry/pods/", Some("/registry/pods0"), false),
            ("/registry0", Some(""), true),
            ("/a", Some("/b"), true),
            ("/a", Some("/coracle/"), true),
            ("/a", Some("/coracle/a"), false),
        ] {
            let checked = check_owner(start.as_bytes(), end.map(str::as_bytes));
            assert_eq!(checked.is_ok(), allowed, "{start:?} {end:?}: {checked:?}");
        }
    }

    #[test]
    fn a_range_is_a_key_or_up_to_an_end_or_everything_from_the_key_on() {
        let of = |key: &'static str, end: &'static str| bounds(&Bytes::from(key), &Bytes::from(end));
        assert_eq!(of("a", ""), Ok(("a".into(), None)));
        assert_eq!(of("a", "b"), Ok(("a".into(), Some("b".into()))));
        assert_eq!(of("\0", "\0"), Ok(("\0".into(), Some(Bytes::new()))));
        assert_eq!(of("", "b"), Err(Refusal::invalid("etcdserver: key is not provided")));
    }
}
