//! Transactions: etcd's comparisons and operations, within each other as well, as the store's, and its answers.

use bytes::Bytes;
use coracle_process::grpc::{Code, Refusal, Result};
use coracle_store::{self as store, Is, LeaseId, Op, OpResult, Revision, Store, Txn, TxnResult};

use super::{
    kv::{Who, bounds, delete_answer, delete_op, number, put_answer, put_op, refused},
    messages::{Compare, Request, RequestOp, Response, ResponseHeader, ResponseOp, Target, TxnRequest, TxnResponse},
};

pub(super) async fn txn(store: &Store, who: Who, request: TxnRequest) -> Result<TxnResponse> {
    let done = store.txn(transaction(&request, store::MAX_OPS)?).await.map_err(|error| refused(&error))?;
    let header = who.header(done.revision);
    Ok(TxnResponse { header: Some(header), ..answer(&request, done) })
}

/// A transaction of which no list may be longer than `room`; what is within has what the longest leaves.
fn transaction(request: &TxnRequest, room: usize) -> Result<Txn> {
    let found = request.compare.len().max(request.success.len()).max(request.failure.len());
    let left = room.checked_sub(found);
    let left = left.ok_or_else(|| refused(&store::Error::TooManyOps { found, limit: room }))?;
    let compare = request.compare.iter().map(comparison).collect::<Result<_>>()?;
    let branch = |ops: &[RequestOp]| ops.iter().map(|asked| op(asked, left)).collect::<Result<Vec<_>>>();
    Ok(Txn { compare, then: branch(&request.success)?, or_else: branch(&request.failure)? })
}

fn op(asked: &RequestOp, room: usize) -> Result<Op> {
    match &asked.request {
        Some(Request::Range(range)) => range.range().map(Op::Get),
        Some(Request::Put(put)) => put_op(put),
        Some(Request::Delete(delete)) => delete_op(delete),
        Some(Request::Txn(within)) => transaction(within, room).map(Op::Txn),
        // etcd's own words for an operation that is none.
        None => Err(Refusal::invalid("etcdserver: key not found")),
    }
}

fn comparison(asked: &Compare) -> Result<store::Compare> {
    let (key, end) = bounds(&asked.key, &asked.range_end)?;
    let is = match asked.result {
        0 => Is::Equal,
        1 => Is::Greater,
        2 => Is::Less,
        3 => Is::NotEqual,
        _ => return Err(Refusal(Code::InvalidArgument, "etcdserver: invalid comparison".to_owned())),
    };
    // What is compared with is 0, or empty, unless it is given and of the kind that is compared.
    let compare = match (asked.target, &asked.with) {
        (0, Some(Target::Version(value))) => {
            let (is, value) = unsigned(is, *value);
            store::Compare::Version { key, is, value }
        }
        (0, _) => store::Compare::Version { key, is, value: 0 },
        (1, Some(Target::Create(value))) => {
            let (is, value) = unsigned(is, *value);
            store::Compare::CreateRevision { key, is, value: Revision(value) }
        }
        (1, _) => store::Compare::CreateRevision { key, is, value: Revision::NONE },
        (2, Some(Target::Mod(value))) => {
            let (is, value) = unsigned(is, *value);
            store::Compare::ModRevision { key, is, value: Revision(value) }
        }
        (2, _) => store::Compare::ModRevision { key, is, value: Revision::NONE },
        (3, Some(Target::Value(value))) => store::Compare::Value { key, is, value: value.clone() },
        (3, _) => store::Compare::Value { key, is, value: Bytes::new() },
        (4, Some(Target::Lease(value))) => {
            let (is, value) = unsigned(is, *value);
            store::Compare::Lease { key, is, value: LeaseId(value) }
        }
        (4, _) => store::Compare::Lease { key, is, value: LeaseId::default() },
        _ => return Err(Refusal::invalid("etcdserver: invalid comparison")),
    };
    Ok(match end {
        None => compare,
        Some(end) => store::Compare::Each { end, compare: Box::new(compare) },
    })
}

/// A comparison with a number that may be negative, which nothing in the store is, as one with a number that is not: each
/// is greater than a negative one, and no count reaches the greatest.
fn unsigned(is: Is, value: i64) -> (Is, u64) {
    match (u64::try_from(value), is) {
        (Ok(value), is) => (is, value),
        (Err(_), Is::Greater | Is::NotEqual) => (Is::NotEqual, u64::MAX),
        (Err(_), Is::Less | Is::Equal) => (Is::Equal, u64::MAX),
    }
}

/// What was done, without a header: as etcd does, only the whole has one that says who answers.
fn answer(asked: &TxnRequest, done: TxnResult) -> TxnResponse {
    let branch = if done.succeeded { &asked.success } else { &asked.failure };
    let revision = done.revision;
    let responses = branch.iter().zip(done.results).map(|(asked, result)| step(asked, result, revision)).collect();
    TxnResponse { header: Some(ResponseHeader::default()), succeeded: done.succeeded, responses }
}

fn step(asked: &RequestOp, result: OpResult, revision: Revision) -> ResponseOp {
    let at = |revision: Revision| ResponseHeader { revision: number(revision.0), ..ResponseHeader::default() };
    let response = match (&asked.request, result) {
        (Some(Request::Put(put)), OpResult::Put { previous, .. }) => {
            Some(Response::Put(put_answer(put, at(revision), previous)))
        }
        (Some(Request::Delete(delete)), OpResult::Deleted(gone)) => {
            Some(Response::Delete(delete_answer(delete, at(revision), &gone)))
        }
        (Some(Request::Range(range)), OpResult::Got(found)) => {
            Some(Response::Range(range.answer(at(found.revision), found)))
        }
        (Some(Request::Txn(within)), OpResult::Txn(done)) => Some(Response::Txn(answer(within, done))),
        // Results are of the steps they answer.
        _ => None,
    };
    ResponseOp { response }
}
