//! Keys and values: etcd's requests as the store's, and its answers.

use std::sync::Arc;

use bytes::Bytes;
use coracle_process::grpc::{Code, Refusal, Result};
use coracle_store::{self as store, Entry, Is, LeaseId, Op, OpResult, Range, RangeResult, Revision, Store, Txn, What};

use super::messages::{
    CompactionRequest, Compare, DeleteRangeRequest, DeleteRangeResponse, HeaderResponse, KeyValue, PutRequest,
    PutResponse, RangeRequest, RangeResponse, Request, RequestOp, Response, ResponseHeader, ResponseOp, Target,
    TxnRequest, TxnResponse,
};

/// What the API server writes, and nobody else: it relies upon what it wrote.
const OWNED: [&str; 2] = ["/registry/", "/coracle/"];

/// How often a write that keeps what is there is tried when others write the same key.
const TRIES: usize = 16;

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
        store::Error::TooManyOps { .. } => (Code::InvalidArgument, "etcdserver: too many operations in txn request"),
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

    fn range(&self) -> Result<Range> {
        if !(0..=2).contains(&self.sort_order) || !(0..=4).contains(&self.sort_target) {
            return Err(Refusal::invalid("etcdserver: invalid sort option"));
        }
        let (start, end) = bounds(&self.key, &self.range_end)?;
        let limit = if self.is_chosen_here() { 0 } else { usize::try_from(self.limit).unwrap_or(0) };
        let what = if self.count_only { What::Count } else { What::Entries };
        let at = u64::try_from(self.revision).ok().filter(|at| *at > 0).map(Revision);
        Ok(Range { start, end, at, limit, what })
    }

    fn answer(&self, header: ResponseHeader, found: RangeResult) -> RangeResponse {
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
    check_owner(&request.key, None)?;
    for _ in 0..TRIES {
        let (mut txn, op) = (Txn::default(), put_op(&request)?);
        txn.then.push(op);
        if request.ignore_value || request.ignore_lease {
            keep(store, &request, &mut txn)?;
        }
        let done = store.txn(txn).await.map_err(|error| refused(&error))?;
        if !done.succeeded {
            continue;
        }
        let previous = match done.results.into_iter().next() {
            Some(OpResult::Put { previous, .. }) => previous,
            Some(OpResult::Deleted(_) | OpResult::Got(_)) | None => None,
        };
        let prev_kv = previous.filter(|_| request.prev_kv).map(|entry| shown(&entry));
        return Ok(PutResponse { header: Some(who.header(done.revision)), prev_kv });
    }
    Err(Refusal(Code::Unavailable, "etcdserver: too many requests".to_owned()))
}

fn put_op(request: &PutRequest) -> Result<Op> {
    if request.key.is_empty() {
        return Err(refused(&store::Error::KeyEmpty));
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(Refusal::invalid("etcdserver: value is provided"));
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(Refusal::invalid("etcdserver: lease is provided"));
    }
    Ok(Op::Put { key: request.key.clone(), value: request.value.clone(), lease: lease(request.lease) })
}

pub(super) fn lease(id: i64) -> Option<LeaseId> {
    u64::try_from(id).ok().filter(|id| *id != 0).map(LeaseId)
}

/// Writes what is there already, if nobody changes that meanwhile.
fn keep(store: &Store, request: &PutRequest, txn: &mut Txn) -> Result<()> {
    let Some(entry) = store.get(&request.key) else {
        return Err(Refusal::invalid("etcdserver: key not found"));
    };
    txn.compare.push(store::Compare::unchanged(request.key.clone(), entry.mod_revision));
    for op in &mut txn.then {
        if let Op::Put { value, lease, .. } = op {
            if request.ignore_value {
                value.clone_from(&entry.value);
            }
            if request.ignore_lease {
                *lease = entry.lease;
            }
        }
    }
    Ok(())
}

pub(super) async fn delete(store: &Store, who: Who, request: DeleteRangeRequest) -> Result<DeleteRangeResponse> {
    let txn = Txn { then: vec![delete_op(&request)?], ..Txn::default() };
    let done = store.txn(txn).await.map_err(|error| refused(&error))?;
    let gone = match done.results.into_iter().next() {
        Some(OpResult::Deleted(gone)) => gone,
        Some(OpResult::Put { .. } | OpResult::Got(_)) | None => Vec::new(),
    };
    Ok(deleted(&request, Some(who.header(done.revision)), &gone))
}

fn delete_op(request: &DeleteRangeRequest) -> Result<Op> {
    let (start, end) = bounds(&request.key, &request.range_end)?;
    check_owner(&start, end.as_deref())?;
    Ok(Op::Delete { start, end })
}

fn deleted(request: &DeleteRangeRequest, header: Option<ResponseHeader>, gone: &[Arc<Entry>]) -> DeleteRangeResponse {
    let prev_kvs = if request.prev_kv { gone.iter().map(|entry| shown(entry)).collect() } else { Vec::new() };
    DeleteRangeResponse { header, deleted: count(gone.len()), prev_kvs }
}

pub(super) async fn txn(store: &Store, who: Who, request: TxnRequest) -> Result<TxnResponse> {
    for found in [request.compare.len(), request.success.len(), request.failure.len()] {
        if found > store::MAX_OPS {
            return Err(refused(&store::Error::TooManyOps { found, limit: store::MAX_OPS }));
        }
    }
    let compare = request.compare.iter().map(comparison).collect::<Result<_>>()?;
    let branch = |ops: &[RequestOp]| ops.iter().map(op).collect::<Result<Vec<_>>>();
    let txn = Txn { compare, then: branch(&request.success)?, or_else: branch(&request.failure)? };
    if txn.then.iter().chain(&txn.or_else).any(|op| matches!(op, Op::Get(_))) {
        store.barrier().await.map_err(|error| refused(&error))?;
    }
    let done = store.txn(txn).await.map_err(|error| refused(&error))?;
    let asked = if done.succeeded { &request.success } else { &request.failure };
    let header = who.header(done.revision);
    let responses: Vec<ResponseOp> =
        asked.iter().zip(done.results).map(|(asked, result)| answer(asked, header.clone(), result)).collect();
    Ok(TxnResponse { header: Some(header), succeeded: done.succeeded, responses })
}

fn answer(asked: &RequestOp, header: ResponseHeader, result: OpResult) -> ResponseOp {
    let response = match (&asked.request, result) {
        (Some(Request::Put(put)), OpResult::Put { previous, .. }) => {
            let prev_kv = previous.filter(|_| put.prev_kv).map(|entry| shown(&entry));
            Some(Response::Put(PutResponse { header: Some(header), prev_kv }))
        }
        (Some(Request::Delete(delete)), OpResult::Deleted(gone)) => {
            Some(Response::Delete(deleted(delete, Some(header), &gone)))
        }
        (Some(Request::Range(range)), OpResult::Got(found)) => Some(Response::Range(range.answer(header, found))),
        // Results are of the steps they answer.
        _ => None,
    };
    ResponseOp { response }
}

fn op(asked: &RequestOp) -> Result<Op> {
    match &asked.request {
        Some(Request::Range(range)) => range.range().map(Op::Get),
        Some(Request::Put(put)) if put.ignore_value || put.ignore_lease => {
            let why = "etcdserver: ignore_value and ignore_lease are not served within a transaction";
            Err(Refusal(Code::Unimplemented, why.to_owned()))
        }
        Some(Request::Put(put)) => {
            check_owner(&put.key, None)?;
            put_op(put)
        }
        Some(Request::Delete(delete)) => delete_op(delete),
        Some(Request::Txn(_)) => {
            let why = "etcdserver: transactions within transactions are not served";
            Err(Refusal(Code::Unimplemented, why.to_owned()))
        }
        None => Err(Refusal::invalid("etcdserver: an operation of the transaction is empty")),
    }
}

fn comparison(asked: &Compare) -> Result<store::Compare> {
    if !asked.range_end.is_empty() {
        let why = "etcdserver: comparisons of ranges are not served";
        return Err(Refusal(Code::Unimplemented, why.to_owned()));
    }
    if asked.key.is_empty() {
        return Err(refused(&store::Error::KeyEmpty));
    }
    let key = asked.key.clone();
    let is = match asked.result {
        0 => Is::Equal,
        1 => Is::Greater,
        2 => Is::Less,
        3 => Is::NotEqual,
        _ => return Err(Refusal::invalid("etcdserver: invalid comparison")),
    };
    // A comparison without its other side is one with nothing.
    let of = |value: i64| u64::try_from(value).map_err(|_| Refusal::invalid("etcdserver: invalid comparison"));
    Ok(match (asked.target, &asked.with) {
        (0, Some(Target::Version(value))) => store::Compare::Version { key, is, value: of(*value)? },
        (0, None) => store::Compare::Version { key, is, value: 0 },
        (1, Some(Target::Create(value))) => store::Compare::CreateRevision { key, is, value: Revision(of(*value)?) },
        (1, None) => store::Compare::CreateRevision { key, is, value: Revision::NONE },
        (2, Some(Target::Mod(value))) => store::Compare::ModRevision { key, is, value: Revision(of(*value)?) },
        (2, None) => store::Compare::ModRevision { key, is, value: Revision::NONE },
        (3, Some(Target::Value(value))) => store::Compare::Value { key, is, value: value.clone() },
        (3, None) => store::Compare::Value { key, is, value: Bytes::new() },
        (4, Some(Target::Lease(value))) => store::Compare::Lease { key, is, value: LeaseId(of(*value)?) },
        (4, None) => store::Compare::Lease { key, is, value: LeaseId::default() },
        _ => return Err(Refusal::invalid("etcdserver: invalid comparison")),
    })
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
