//! The messages of etcd's v3 API, as its `rpc.proto` and `kv.proto` number their fields. What nobody here looks at is left
//! out: readers skip fields they do not know.

use prost::{Message, Oneof};

macro_rules! messages {
    ($($(#[$about:meta])* $name:ident { $($(#[$field:meta])* $member:ident: $type:ty,)* })*) => {
        $(
            $(#[$about])*
            #[derive(Clone, PartialEq, Message)]
            pub(super) struct $name { $($(#[$field])* pub(super) $member: $type,)* }
        )*
    };
}

messages! {
    ResponseHeader {
        #[prost(uint64, tag = "1")] cluster_id: u64,
        #[prost(uint64, tag = "2")] member_id: u64,
        #[prost(int64, tag = "3")] revision: i64,
        #[prost(uint64, tag = "4")] raft_term: u64,
    }
    KeyValue {
        #[prost(bytes = "bytes", tag = "1")] key: bytes::Bytes,
        #[prost(int64, tag = "2")] create_revision: i64,
        #[prost(int64, tag = "3")] mod_revision: i64,
        #[prost(int64, tag = "4")] version: i64,
        #[prost(bytes = "bytes", tag = "5")] value: bytes::Bytes,
        #[prost(int64, tag = "6")] lease: i64,
    }
    Event {
        /// 0 put, 1 delete.
        #[prost(int32, tag = "1")] kind: i32,
        #[prost(message, optional, tag = "2")] kv: Option<KeyValue>,
        #[prost(message, optional, tag = "3")] prev_kv: Option<KeyValue>,
    }
    RangeRequest {
        #[prost(bytes = "bytes", tag = "1")] key: bytes::Bytes,
        #[prost(bytes = "bytes", tag = "2")] range_end: bytes::Bytes,
        #[prost(int64, tag = "3")] limit: i64,
        #[prost(int64, tag = "4")] revision: i64,
        /// 0 as it comes, 1 ascending, 2 descending.
        #[prost(int32, tag = "5")] sort_order: i32,
        /// 0 key, 1 version, 2 create, 3 mod, 4 value.
        #[prost(int32, tag = "6")] sort_target: i32,
        #[prost(bool, tag = "7")] serializable: bool,
        #[prost(bool, tag = "8")] keys_only: bool,
        #[prost(bool, tag = "9")] count_only: bool,
        #[prost(int64, tag = "10")] min_mod_revision: i64,
        #[prost(int64, tag = "11")] max_mod_revision: i64,
        #[prost(int64, tag = "12")] min_create_revision: i64,
        #[prost(int64, tag = "13")] max_create_revision: i64,
    }
    RangeResponse {
        #[prost(message, optional, tag = "1")] header: Option<ResponseHeader>,
        #[prost(message, repeated, tag = "2")] kvs: Vec<KeyValue>,
        #[prost(bool, tag = "3")] more: bool,
        #[prost(int64, tag = "4")] count: i64,
    }
    PutRequest {
        #[prost(bytes = "bytes", tag = "1")] key: bytes::Bytes,
        #[prost(bytes = "bytes", tag = "2")] value: bytes::Bytes,
        #[prost(int64, tag = "3")] lease: i64,
        #[prost(bool, tag = "4")] prev_kv: bool,
        #[prost(bool, tag = "5")] ignore_value: bool,
        #[prost(bool, tag = "6")] ignore_lease: bool,
    }
    PutResponse {
        #[prost(message, optional, tag = "1")] header: Option<ResponseHeader>,
        #[prost(message, optional, tag = "2")] prev_kv: Option<KeyValue>,
    }
    DeleteRangeRequest {
        #[prost(bytes = "bytes", tag = "1")] key: bytes::Bytes,
        #[prost(bytes = "bytes", tag = "2")] range_end: bytes::Bytes,
        #[prost(bool, tag = "3")] prev_kv: bool,
    }
    DeleteRangeResponse {
        #[prost(message, optional, tag = "1")] header: Option<ResponseHeader>,
        #[prost(int64, tag = "2")] deleted: i64,
        #[prost(message, repeated, tag = "3")] prev_kvs: Vec<KeyValue>,
    }
    RequestOp {
        #[prost(oneof = "Request", tags = "1, 2, 3, 4")] request: Option<Request>,
    }
    ResponseOp {
        #[prost(oneof = "Response", tags = "1, 2, 3, 4")] response: Option<Response>,
    }
    Compare {
        /// 0 equal, 1 greater, 2 less, 3 not equal.
        #[prost(int32, tag = "1")] result: i32,
        /// 0 version, 1 create, 2 mod, 3 value, 4 lease.
        #[prost(int32, tag = "2")] target: i32,
        #[prost(bytes = "bytes", tag = "3")] key: bytes::Bytes,
        #[prost(oneof = "Target", tags = "4, 5, 6, 7, 8")] with: Option<Target>,
        #[prost(bytes = "bytes", tag = "64")] range_end: bytes::Bytes,
    }
    TxnRequest {
        #[prost(message, repeated, tag = "1")] compare: Vec<Compare>,
        #[prost(message, repeated, tag = "2")] success: Vec<RequestOp>,
        #[prost(message, repeated, tag = "3")] failure: Vec<RequestOp>,
    }
    TxnResponse {
        #[prost(message, optional, tag = "1")] header: Option<ResponseHeader>,
        #[prost(bool, tag = "2")] succeeded: bool,
        #[prost(message, repeated, tag = "3")] responses: Vec<ResponseOp>,
    }
    CompactionRequest {
        #[prost(int64, tag = "1")] revision: i64,
    }
    /// A response that says nothing but when it was given: of a compaction, a revoked lease, a defragmentation.
    HeaderResponse {
        #[prost(message, optional, tag = "1")] header: Option<ResponseHeader>,
    }
    WatchRequest {
        #[prost(oneof = "Watching", tags = "1, 2, 3")] request: Option<Watching>,
    }
    WatchCreateRequest {
        #[prost(bytes = "bytes", tag = "1")] key: bytes::Bytes,
        #[prost(bytes = "bytes", tag = "2")] range_end: bytes::Bytes,
        #[prost(int64, tag = "3")] start_revision: i64,
        #[prost(bool, tag = "4")] progress_notify: bool,
        /// 0 no puts, 1 no deletions.
        #[prost(int32, repeated, tag = "5")] filters: Vec<i32>,
        #[prost(bool, tag = "6")] prev_kv: bool,
        #[prost(int64, tag = "7")] watch_id: i64,
        #[prost(bool, tag = "8")] fragment: bool,
    }
    WatchCancelRequest {
        #[prost(int64, tag = "1")] watch_id: i64,
    }
    WatchResponse {
        #[prost(message, optional, tag = "1")] header: Option<ResponseHeader>,
        #[prost(int64, tag = "2")] watch_id: i64,
        #[prost(bool, tag = "3")] created: bool,
        #[prost(bool, tag = "4")] canceled: bool,
        #[prost(int64, tag = "5")] compact_revision: i64,
        #[prost(string, tag = "6")] cancel_reason: String,
        #[prost(bool, tag = "7")] fragment: bool,
        #[prost(message, repeated, tag = "11")] events: Vec<Event>,
    }
    LeaseGrantRequest {
        #[prost(int64, tag = "1")] ttl: i64,
        #[prost(int64, tag = "2")] id: i64,
    }
    /// Of a grant and of a keep-alive.
    LeaseResponse {
        #[prost(message, optional, tag = "1")] header: Option<ResponseHeader>,
        #[prost(int64, tag = "2")] id: i64,
        #[prost(int64, tag = "3")] ttl: i64,
    }
    /// Of a revocation and of a keep-alive.
    LeaseRequest {
        #[prost(int64, tag = "1")] id: i64,
    }
    /// A lease in etcd's database.
    KeptLease {
        #[prost(int64, tag = "1")] id: i64,
        #[prost(int64, tag = "2")] ttl: i64,
    }
    LeaseTimeToLiveRequest {
        #[prost(int64, tag = "1")] id: i64,
        #[prost(bool, tag = "2")] keys: bool,
    }
    LeaseTimeToLiveResponse {
        #[prost(message, optional, tag = "1")] header: Option<ResponseHeader>,
        #[prost(int64, tag = "2")] id: i64,
        #[prost(int64, tag = "3")] ttl: i64,
        #[prost(int64, tag = "4")] granted_ttl: i64,
        #[prost(bytes = "bytes", repeated, tag = "5")] keys: Vec<bytes::Bytes>,
    }
    LeaseLeasesResponse {
        #[prost(message, optional, tag = "1")] header: Option<ResponseHeader>,
        #[prost(message, repeated, tag = "2")] leases: Vec<LeaseRequest>,
    }
    Member {
        #[prost(uint64, tag = "1")] id: u64,
        #[prost(string, tag = "2")] name: String,
        #[prost(string, repeated, tag = "3")] peer_urls: Vec<String>,
        #[prost(string, repeated, tag = "4")] client_urls: Vec<String>,
        #[prost(bool, tag = "5")] is_learner: bool,
    }
    MemberListResponse {
        #[prost(message, optional, tag = "1")] header: Option<ResponseHeader>,
        #[prost(message, repeated, tag = "2")] members: Vec<Member>,
    }
    AlarmRequest {
        /// 0 get, 1 activate, 2 deactivate.
        #[prost(int32, tag = "1")] action: i32,
    }
    AlarmMember {
        #[prost(uint64, tag = "1")] member_id: u64,
        /// 1 no space, 2 corrupt.
        #[prost(int32, tag = "2")] alarm: i32,
    }
    AlarmResponse {
        #[prost(message, optional, tag = "1")] header: Option<ResponseHeader>,
        #[prost(message, repeated, tag = "2")] alarms: Vec<AlarmMember>,
    }
    StatusResponse {
        #[prost(message, optional, tag = "1")] header: Option<ResponseHeader>,
        #[prost(string, tag = "2")] version: String,
        #[prost(int64, tag = "3")] db_size: i64,
        #[prost(uint64, tag = "4")] leader: u64,
        #[prost(uint64, tag = "5")] raft_index: u64,
        #[prost(uint64, tag = "6")] raft_term: u64,
        #[prost(uint64, tag = "7")] raft_applied_index: u64,
        #[prost(string, repeated, tag = "8")] errors: Vec<String>,
        #[prost(int64, tag = "9")] db_size_in_use: i64,
        #[prost(bool, tag = "10")] is_learner: bool,
    }
    MoveLeaderRequest {
        #[prost(uint64, tag = "1")] target_id: u64,
    }
    HashKvRequest {
        #[prost(int64, tag = "1")] revision: i64,
    }
    /// Of a hash, which leaves the last field out, and of a hash at a revision.
    HashResponse {
        #[prost(message, optional, tag = "1")] header: Option<ResponseHeader>,
        #[prost(uint32, tag = "2")] hash: u32,
        #[prost(int64, tag = "3")] compact_revision: i64,
    }
    SnapshotResponse {
        #[prost(message, optional, tag = "1")] header: Option<ResponseHeader>,
        #[prost(uint64, tag = "2")] remaining_bytes: u64,
        #[prost(bytes = "bytes", tag = "3")] blob: bytes::Bytes,
    }
    Nothing {}
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum Request {
    #[prost(message, tag = "1")]
    Range(RangeRequest),
    #[prost(message, tag = "2")]
    Put(PutRequest),
    #[prost(message, tag = "3")]
    Delete(DeleteRangeRequest),
    #[prost(message, tag = "4")]
    Txn(TxnRequest),
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum Response {
    #[prost(message, tag = "1")]
    Range(RangeResponse),
    #[prost(message, tag = "2")]
    Put(PutResponse),
    #[prost(message, tag = "3")]
    Delete(DeleteRangeResponse),
    #[prost(message, tag = "4")]
    Txn(TxnResponse),
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum Target {
    #[prost(int64, tag = "4")]
    Version(i64),
    #[prost(int64, tag = "5")]
    Create(i64),
    #[prost(int64, tag = "6")]
    Mod(i64),
    #[prost(bytes = "bytes", tag = "7")]
    Value(bytes::Bytes),
    #[prost(int64, tag = "8")]
    Lease(i64),
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum Watching {
    #[prost(message, tag = "1")]
    Create(WatchCreateRequest),
    #[prost(message, tag = "2")]
    Cancel(WatchCancelRequest),
    #[prost(message, tag = "3")]
    Progress(Nothing),
}
