//! Requests through the door for etcd's clients, and through etcd's own where there is one: the answers are the same.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use bytes::Bytes;
use coracle_process::grpc::{Client, Refusal, Result};
use coracle_store::{Config, Store};
use tokio::{net::UnixStream, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{
    kv::{self, Who},
    lease,
    messages::{
        Compare, DeleteRangeRequest, KeyValue, LeaseGrantRequest, LeaseResponse, PutRequest, PutResponse, RangeRequest,
        Request, RequestOp, Response, ResponseOp, Target, TxnRequest, TxnResponse,
    },
    txn,
};

mod streams;

/// Whoever answers etcd's clients.
enum Door {
    Own(Store),
    Etcd(Client),
}

const WHO: Who = Who { cluster: 0, member: 0, term: 0 };

impl Door {
    async fn put(&self, request: PutRequest) -> Result<PutResponse> {
        match self {
            Self::Own(store) => kv::put(store, WHO, request).await,
            Self::Etcd(client) => client.call("/etcdserverpb.KV/Put", &request).await,
        }
    }

    async fn txn(&self, request: TxnRequest) -> Result<TxnResponse> {
        match self {
            Self::Own(store) => txn::txn(store, WHO, request).await,
            Self::Etcd(client) => client.call("/etcdserverpb.KV/Txn", &request).await,
        }
    }

    async fn grant(&self, id: i64) {
        let request = LeaseGrantRequest { ttl: 1000, id };
        let granted: Result<LeaseResponse> = match self {
            Self::Own(store) => lease::grant(store, WHO, request).await,
            Self::Etcd(client) => client.call("/etcdserverpb.Lease/LeaseGrant", &request).await,
        };
        assert_eq!(granted.map(|lease| lease.id), Ok(id));
    }
}

fn ask(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

fn bytes(text: &str) -> Bytes {
    Bytes::from(text.to_owned())
}

fn putting(key: &str, value: &str) -> PutRequest {
    PutRequest { key: bytes(key), value: bytes(value), ..PutRequest::default() }
}

fn put(key: &str, value: &str) -> RequestOp {
    ask(Request::Put(putting(key, value)))
}

/// Leaves the value, or the lease, as it is.
fn keeping(key: &str, ignore_value: bool, ignore_lease: bool) -> PutRequest {
    PutRequest { ignore_value, ignore_lease, prev_kv: true, ..putting(key, "") }
}

fn get(key: &str, end: &str) -> RequestOp {
    ask(Request::Range(RangeRequest { key: bytes(key), range_end: bytes(end), ..RangeRequest::default() }))
}

fn delete(key: &str, end: &str) -> RequestOp {
    ask(Request::Delete(DeleteRangeRequest { key: bytes(key), range_end: bytes(end), prev_kv: true }))
}

fn within(compare: &[Compare], success: &[RequestOp], failure: &[RequestOp]) -> RequestOp {
    ask(Request::Txn(transaction(compare, success, failure)))
}

fn transaction(compare: &[Compare], success: &[RequestOp], failure: &[RequestOp]) -> TxnRequest {
    TxnRequest { compare: compare.to_vec(), success: success.to_vec(), failure: failure.to_vec() }
}

fn then(success: &[RequestOp]) -> TxnRequest {
    transaction(&[], success, &[])
}

const EQUAL: i32 = 0;
const GREATER: i32 = 1;
const LESS: i32 = 2;
const NOT_EQUAL: i32 = 3;

fn compare(key: &str, end: &str, result: i32, with: Target) -> Compare {
    let target = match with {
        Target::Version(_) => 0,
        Target::Create(_) => 1,
        Target::Mod(_) => 2,
        Target::Value(_) => 3,
        Target::Lease(_) => 4,
    };
    Compare { result, target, key: bytes(key), with: Some(with), range_end: bytes(end) }
}

fn shown_keys(kvs: &[KeyValue]) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let one = |kv: &KeyValue| {
        let lease = if kv.lease == 0 { String::new() } else { format!("~{}", kv.lease) };
        format!(
            " {}={}{lease}/{}.{}.{}",
            text(&kv.key),
            text(&kv.value),
            kv.create_revision,
            kv.mod_revision,
            kv.version
        )
    };
    kvs.iter().map(one).collect()
}

/// An answer in short: whether the comparisons held, the revision, and what was done.
fn shown(answered: Result<TxnResponse>) -> String {
    match answered {
        Ok(response) => shown_txn(&response),
        Err(Refusal(code, why)) => format!("{code:?} {}", why.strip_prefix("etcdserver: ").unwrap_or(&why)),
    }
}

fn shown_txn(response: &TxnResponse) -> String {
    let TxnResponse { header, succeeded, responses } = response;
    let revision = header.as_ref().expect("a header").revision;
    let steps: Vec<_> = responses.iter().map(shown_step).collect();
    format!("{} @{revision} [{}]", if *succeeded { "yes" } else { "no" }, steps.join(", "))
}

fn shown_step(step: &ResponseOp) -> String {
    let revision = |header: &Option<_>| {
        let super::messages::ResponseHeader { revision, cluster_id, member_id, raft_term } =
            header.clone().expect("a header");
        assert_eq!((cluster_id, member_id, raft_term), (0, 0, 0), "only the whole says who answers");
        revision
    };
    match step.response.as_ref().expect("an answer") {
        Response::Put(put) => {
            format!("put @{}{}", revision(&put.header), shown_keys(put.prev_kv.as_slice()))
        }
        Response::Range(range) => {
            format!("got @{} {}{}", revision(&range.header), range.count, shown_keys(&range.kvs))
        }
        // etcd says where it stood before the whole if nothing was deleted and nothing put before.
        Response::Delete(none) if none.deleted == 0 => "deleted 0".to_owned(),
        Response::Delete(gone) => {
            format!("deleted @{} {}{}", revision(&gone.header), gone.deleted, shown_keys(&gone.prev_kvs))
        }
        Response::Txn(within) => shown_txn(within),
    }
}

/// What is asked one after the other of an empty store, and how it is answered.
fn conversation() -> Vec<(TxnRequest, &'static str)> {
    let version = |key, end, result, value| compare(key, end, result, Target::Version(value));
    let only = |compare: Compare| transaction(&[compare], &[], &[]);
    let leased = PutRequest { lease: 7, ..putting("l", "held") };
    let unknown = PutRequest { lease: 8, ..putting("x", "") };
    vec![
        (then(&[put("a", "1"), put("b", "1"), put("c", "1")]), "yes @2 [put @2, put @2, put @2]"),
        // What is within compares with what was before, reads what is there by then, and has the one revision.
        (
            then(&[
                put("d", "1"),
                within(
                    &[version("d", "", EQUAL, 0)],
                    &[put("e", "1"), get("d", ""), delete("a", "")],
                    &[put("f", "1")],
                ),
                get("a", "z"),
            ]),
            "yes @3 [put @3, yes @0 [put @3, got @3 1 d=1/3.3.1, deleted @3 1 a=1/2.2.1], \
             got @3 4 b=1/2.2.1 c=1/2.2.1 d=1/3.3.1 e=1/3.3.1]",
        ),
        (
            transaction(
                &[version("a", "", GREATER, 0)],
                &[],
                &[within(&[], &[within(&[], &[get("a", "")], &[])], &[])],
            ),
            "no @3 [yes @0 [yes @0 [got @3 0]]]",
        ),
        (then(&[within(&[], &[], &[])]), "yes @3 [yes @0 []]"),
        (
            then(&[get("a", "c"), put("a", "2"), get("a", "c")]),
            "yes @4 [got @3 1 b=1/2.2.1, put @4, got @4 2 a=2/4.4.1 b=1/2.2.1]",
        ),
        // Each key of a range.
        (only(version("a", "z", EQUAL, 1)), "yes @4 []"),
        (only(version("a", "z", GREATER, 1)), "no @4 []"),
        (only(compare("a", "z", NOT_EQUAL, Target::Mod(3))), "no @4 []"),
        (only(compare("a", "c", NOT_EQUAL, Target::Mod(3))), "yes @4 []"),
        (only(compare("a", "\0", LESS, Target::Create(5))), "yes @4 []"),
        (only(compare("b", "z", EQUAL, Target::Value(bytes("1")))), "yes @4 []"),
        (only(compare("a", "z", EQUAL, Target::Value(bytes("1")))), "no @4 []"),
        (only(compare("a", "z", EQUAL, Target::Lease(0))), "yes @4 []"),
        // A range without a key is as a key that is not there.
        (only(version("x", "z", EQUAL, 0)), "yes @4 []"),
        (only(version("z", "x", EQUAL, 0)), "yes @4 []"),
        (only(compare("x", "z", NOT_EQUAL, Target::Value(bytes("1")))), "no @4 []"),
        // Numbers less than any, and other numbers than those that are compared.
        (only(version("a", "", GREATER, -1)), "yes @4 []"),
        (only(version("x", "", NOT_EQUAL, -1)), "yes @4 []"),
        (only(version("a", "", EQUAL, -1)), "no @4 []"),
        (only(version("x", "", LESS, -1)), "no @4 []"),
        (only(Compare { target: 2, ..version("a", "", GREATER, 99) }), "yes @4 []"),
        (only(Compare { with: None, ..version("a", "", EQUAL, 0) }), "no @4 []"),
        // Values and leases that stay.
        (then(&[ask(Request::Put(leased))]), "yes @5 [put @5]"),
        (then(&[ask(Request::Put(keeping("l", true, true)))]), "yes @6 [put @6 l=held~7/5.5.1]"),
        (
            then(&[ask(Request::Put(PutRequest { value: bytes("more"), ..keeping("l", false, true) })), get("l", "")]),
            "yes @7 [put @7 l=held~7/5.6.2, got @7 1 l=more~7/5.7.3]",
        ),
        (
            then(&[within(&[], &[ask(Request::Put(keeping("l", true, false)))], &[]), get("l", "")]),
            "yes @8 [yes @0 [put @8 l=more~7/5.7.3], got @8 1 l=more/5.8.4]",
        ),
        (then(&[put("n", ""), ask(Request::Put(keeping("x", true, false)))]), "InvalidArgument key not found"),
        (then(&[within(&[], &[], &[ask(Request::Put(keeping("x", true, false)))])]), "yes @8 [yes @0 []]"),
        (
            then(&[ask(Request::Put(PutRequest { value: bytes("?"), ..keeping("l", true, false) }))]),
            "InvalidArgument value is provided",
        ),
        (
            then(&[within(&[], &[ask(Request::Put(PutRequest { lease: 7, ..keeping("l", false, true) }))], &[])]),
            "InvalidArgument lease is provided",
        ),
        (then(&[put("n", ""), within(&[], &[ask(Request::Put(unknown))], &[])]), "NotFound requested lease not found"),
        // What can never be done.
        (then(&[put("a", ""), put("a", "")]), "InvalidArgument duplicate key given in txn request"),
        (
            then(&[put("a", ""), within(&[], &[], &[put("a", "")])]),
            "InvalidArgument duplicate key given in txn request",
        ),
        (
            then(&[delete("a", "c"), within(&[], &[put("b", "")], &[])]),
            "InvalidArgument duplicate key given in txn request",
        ),
        (
            then(&[within(&[], &[delete("a", "c")], &[]), put("b", "")]),
            "InvalidArgument duplicate key given in txn request",
        ),
        (then(&[within(&[], &[put("m", "")], &[put("m", "")])]), "yes @9 [yes @0 [put @9]]"),
        (then(&[within(&[], &[delete("m", "")], &[put("m", "")])]), "yes @10 [yes @0 [deleted @10 1 m=/9.9.1]]"),
        (then(&[RequestOp { request: None }]), "InvalidArgument key not found"),
        (then(&[within(&[], &[put("", "")], &[])]), "InvalidArgument key is not provided"),
        (then(&[within(&[version("", "z", EQUAL, 0)], &[], &[])]), "InvalidArgument key is not provided"),
        (then(&[within(&[], &[], &[get("", "z")])]), "InvalidArgument key is not provided"),
        (then(&vec![get("a", ""); 1025]), "InvalidArgument too many operations in txn request"),
        (then(&[within(&[], &vec![get("a", ""); 1024], &[])]), "InvalidArgument too many operations in txn request"),
        // Nothing of what was refused was done.
        (then(&[get("m", "z")]), "yes @10 [got @10 0]"),
    ]
}

async fn converse(door: &Door) {
    door.grant(7).await;
    for (number, (request, expected)) in conversation().into_iter().enumerate() {
        assert_eq!(shown(door.txn(request.clone()).await), expected, "{number}: {request:?}");
    }
    let put = |request: PutRequest| async { door.put(request).await.map(|put| shown_keys(put.prev_kv.as_slice())) };
    assert_eq!(put(keeping("l", true, true)).await, Ok(" l=more/5.8.4".to_owned()));
    assert_eq!(put(keeping("x", false, true)).await, Err(Refusal::invalid("etcdserver: key not found")));
}

/// A store, and what runs it.
struct Own {
    store: Store,
    stop: CancellationToken,
    running: JoinSet<coracle_store::Result<()>>,
    dir: tempfile::TempDir,
}

impl Own {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (store, driver) = Store::open(Config::new(dir.path())).await.unwrap();
        let (stop, mut running) = (CancellationToken::new(), JoinSet::new());
        running.spawn(driver.run(stop.clone()));
        Self { store, stop, running, dir }
    }

    fn dir(&self) -> &Path {
        self.dir.path()
    }

    async fn stop(mut self) {
        self.stop.cancel();
        self.running.join_next().await.unwrap().unwrap().unwrap();
    }
}

#[tokio::test]
async fn transactions_are_answered_as_etcd_answers_them() {
    let own = Own::start().await;
    converse(&Door::Own(own.store.clone())).await;
    own.stop().await;
}

/// etcd itself, in a directory of its own.
struct Etcd(Child);

impl Drop for Etcd {
    fn drop(&mut self) {
        // It is ours, and its directory is removed next.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Etcd {
    /// None where there is no etcd. It listens on sockets that are files of that directory.
    fn start(dir: &Path) -> Option<Self> {
        let (clients, peers) = ("unix://clients:1", "unix://peers:1");
        let mut command = Command::new("etcd");
        command.current_dir(dir).args(["--data-dir", "data", "--max-txn-ops", "1024"]);
        for (flag, value) in [
            ("--listen-client-urls", clients),
            ("--advertise-client-urls", clients),
            ("--listen-peer-urls", peers),
            ("--initial-advertise-peer-urls", peers),
            ("--initial-cluster", "default=unix://peers:1"),
        ] {
            command.args([flag, value]);
        }
        let mut process = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().ok()?;
        let mut told = BufReader::new(process.stderr.take().expect("a pipe")).lines();
        let is_ready = |line: std::io::Result<String>| line.expect("text").contains("ready to serve client requests");
        let etcd = Self(process);
        assert!(told.any(is_ready), "etcd ended before it served");
        // Whatever it says later has to go somewhere.
        std::thread::spawn(move || told.for_each(drop));
        Some(etcd)
    }
}

/// Numbers from a seed: the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, count: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % count
    }

    fn key(&mut self) -> &'static str {
        ["a", "b", "c", "d"][self.below(4)]
    }

    fn end(&mut self) -> &'static str {
        ["", "", "c", "e", "\0"][self.below(5)]
    }

    fn txn(&mut self, depth: usize) -> TxnRequest {
        let compare = (0..self.below(3)).map(|_| self.compare()).collect();
        let most = 1 + self.below(3);
        let success = (0..most).map(|_| self.op(depth)).collect();
        let failure = (0..self.below(3)).map(|_| self.op(depth)).collect();
        TxnRequest { compare, success, failure }
    }

    fn compare(&mut self) -> Compare {
        let number = i64::try_from(self.below(6)).unwrap() - 1;
        let with = match self.below(5) {
            0 => Target::Version(number),
            1 => Target::Create(number),
            2 => Target::Mod(number),
            3 => Target::Value(bytes(["", "1", "2"][self.below(3)])),
            _ => Target::Lease(number),
        };
        let (key, end, how) = (self.key(), self.end(), self.below(4));
        compare(key, end, [EQUAL, GREATER, LESS, NOT_EQUAL][how], with)
    }

    fn op(&mut self, depth: usize) -> RequestOp {
        match self.below(6) {
            0 | 1 if depth > 0 => ask(Request::Txn(self.txn(depth - 1))),
            2 => get(self.key(), self.end()),
            3 => delete(self.key(), self.end()),
            4 => ask(Request::Put(keeping(self.key(), self.below(2) == 0, true))),
            _ => {
                let lease = [0, 0, 7, 8][self.below(4)];
                let value = ["1", "2"][self.below(2)];
                ask(Request::Put(PutRequest { lease, prev_kv: true, ..putting(self.key(), value) }))
            }
        }
    }
}

/// What is said of etcd above is what it does, and so it is with whatever else may be asked.
#[tokio::test]
async fn etcd_itself_answers_so() {
    let dir = tempfile::tempdir().unwrap();
    let Some(etcd) = Etcd::start(dir.path()) else {
        eprintln!("Skipped: there is no etcd on this machine");
        return;
    };
    let stream = UnixStream::connect(dir.path().join("clients:1")).await.unwrap();
    let (client, connection) = Client::over(stream, "localhost", 1 << 20).await.unwrap();
    let mut connections = JoinSet::new();
    connections.spawn(connection);
    let (own, etcds) = (Own::start().await, Door::Etcd(client));
    let owns = Door::Own(own.store.clone());
    converse(&etcds).await;
    converse(&owns).await;
    let (mut dice, mut done) = (Dice(1), 0);
    while done < 1000 {
        let request = dice.txn(2);
        let answer = shown(owns.txn(request.clone()).await);
        // A key that one transaction within sets and a later one deletes: etcd does both in one revision, of which there is
        // one version of a key here.
        if answer.contains("duplicate key") {
            continue;
        }
        assert_eq!(shown(etcds.txn(request.clone()).await), answer, "{request:?}");
        done += usize::from(!answer.contains("InvalidArgument"));
    }
    own.stop().await;
    connections.shutdown().await;
    drop(etcd);
}
