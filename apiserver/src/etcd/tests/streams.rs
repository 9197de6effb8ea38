//! Watches and leases that are kept alive, over connections as clients have them: to the door, and to etcd's own.

use std::{convert::Infallible, path::Path, sync::Arc, time::Duration};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use coracle_process::grpc::Body;
use http::{Request as HttpRequest, header};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::{body::Incoming, client::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixStream,
    sync::mpsc,
    task::JoinSet,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    super::{
        Front, answer,
        messages::{
            CompactionRequest, DeleteRangeRequest, DeleteRangeResponse, Event, HeaderResponse, LeaseGrantRequest,
            LeaseRequest, LeaseResponse, Nothing, PutRequest, PutResponse, TxnResponse, WatchCancelRequest,
            WatchCreateRequest, WatchRequest, WatchResponse, Watching,
        },
    },
    Etcd, Own, bytes, put, putting, then,
};

/// How long anything may take when nothing is wrong.
const PATIENCE: Duration = Duration::from_secs(60);

const NO_PUTS: i32 = 0;
const NO_DELETIONS: i32 = 1;

fn framed(message: &impl Message) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(0);
    out.put_u32(u32::try_from(message.encoded_len()).unwrap());
    message.encode(&mut out).unwrap();
    out.freeze()
}

/// A connection to whoever answers etcd's clients.
struct Connection {
    sender: http2::SendRequest<Body>,
    running: JoinSet<()>,
}

impl Connection {
    async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        let mut running = JoinSet::new();
        running.spawn(async move { drop(connection.await) });
        Self { sender, running }
    }

    /// To the door of a store.
    async fn to(own: &Own) -> Self {
        let (near, far) = tokio::io::duplex(1 << 20);
        let front = Arc::new(Front::new(&own.store, own.dir().to_owned(), "own", "https://own".to_owned()));
        let service = service_fn(move |request: HttpRequest<Incoming>| {
            let front = Arc::clone(&front);
            async move {
                let answered = answer(front, true, request, CancellationToken::new(), &TaskTracker::new()).await;
                Ok::<_, Infallible>(answered)
            }
        });
        let mut this = Self::over(near).await;
        this.running.spawn(async move {
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            drop(builder.serve_connection(TokioIo::new(far), service).await);
        });
        this
    }

    async fn to_etcd(dir: &Path) -> Self {
        Self::over(UnixStream::connect(dir.join("clients:1")).await.unwrap()).await
    }

    async fn send(&self, method: &str, mut said: mpsc::Receiver<Bytes>) -> Incoming {
        let frames = futures::stream::poll_fn(move |context| {
            said.poll_recv(context).map(|bytes| bytes.map(|bytes| Ok::<_, Infallible>(Frame::data(bytes))))
        });
        let request = HttpRequest::post(format!("http://localhost/etcdserverpb.{method}"))
            .header(header::CONTENT_TYPE, "application/grpc")
            .header(header::TE, "trailers")
            .body(StreamBody::new(frames).boxed_unsync())
            .unwrap();
        self.sender.clone().send_request(request).await.unwrap().into_body()
    }

    /// Begins a call with its first message.
    async fn begin(&self, method: &str, first: &impl Message) -> Call {
        let (requests, said) = mpsc::channel(100);
        requests.send(framed(first)).await.unwrap();
        Call { requests: Some(requests), body: self.send(method, said).await, buffer: BytesMut::new() }
    }

    /// A call of one message and one answer.
    async fn call<M: Message + Default>(&self, method: &str, message: &impl Message) -> M {
        let (requests, said) = mpsc::channel(1);
        requests.send(framed(message)).await.unwrap();
        drop(requests);
        Call { requests: None, body: self.send(method, said).await, buffer: BytesMut::new() }.hear().await
    }

    async fn put(&self, key: &str, value: &str) -> i64 {
        let response: PutResponse = self.call("KV/Put", &putting(key, value)).await;
        response.header.unwrap().revision
    }

    async fn delete(&self, key: &str) {
        let request = DeleteRangeRequest { key: bytes(key), ..DeleteRangeRequest::default() };
        let _: DeleteRangeResponse = self.call("KV/DeleteRange", &request).await;
    }

    async fn watch(&self, request: WatchCreateRequest) -> Call {
        self.begin("Watch/Watch", &create(request)).await
    }
}

/// A call of many messages.
struct Call {
    requests: Option<mpsc::Sender<Bytes>>,
    body: Incoming,
    buffer: BytesMut,
}

impl Call {
    async fn say(&self, message: &impl Message) {
        self.requests.as_ref().unwrap().send(framed(message)).await.unwrap();
    }

    async fn hear<M: Message + Default>(&mut self) -> M {
        let heard = async {
            loop {
                if let Some(([_, a, b, c, d], _)) = self.buffer.split_first_chunk::<5>() {
                    let len = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
                    if self.buffer.len() >= 5 + len {
                        self.buffer.advance(5);
                        return M::decode(self.buffer.split_to(len)).unwrap();
                    }
                }
                let frame = self.body.frame().await.expect("the call goes on").unwrap();
                let data =
                    frame.into_data().unwrap_or_else(|frame| panic!("the call ends: {:?}", frame.into_trailers()));
                self.buffer.extend_from_slice(&data);
            }
        };
        tokio::time::timeout(PATIENCE, heard).await.expect("an answer within a minute")
    }

    /// What is said of a watch itself, and not of changes.
    async fn told(&mut self) -> String {
        let WatchResponse { watch_id, created, canceled, cancel_reason, events, .. } = self.hear().await;
        assert!(events.is_empty(), "{events:?}");
        let word = |is_so, word| if is_so { word } else { "" };
        format!("{watch_id}{}{} {cancel_reason}", word(created, " created"), word(canceled, " canceled"))
            .trim_end()
            .into()
    }

    /// So many changes, in however many messages: etcd puts those together that there are already.
    async fn changes(&mut self, count: usize) -> String {
        let mut events: Vec<Event> = Vec::new();
        while events.len() < count {
            events.extend(self.hear::<WatchResponse>().await.events);
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let shown = events.into_iter().map(|Event { kind, kv, prev_kv }| {
            let kv = kv.unwrap();
            let before = prev_kv.map(|kv| format!(" was {}@{}", text(&kv.value), kv.mod_revision)).unwrap_or_default();
            format!(
                "{}{}={}@{}{before}",
                ["", "no "][usize::try_from(kind).unwrap()],
                text(&kv.key),
                text(&kv.value),
                kv.mod_revision
            )
        });
        shown.collect::<Vec<_>>().join(", ")
    }
}

fn create(request: WatchCreateRequest) -> WatchRequest {
    WatchRequest { request: Some(Watching::Create(request)) }
}

fn watching(key: &str, end: &str, from: i64) -> WatchCreateRequest {
    WatchCreateRequest { key: bytes(key), range_end: bytes(end), start_revision: from, ..WatchCreateRequest::default() }
}

/// What is asked one after the other of an empty store, and how it is answered.
async fn converse(c: &Connection) {
    assert_eq!((c.put("a", "1").await, c.put("b", "1").await), (2, 3));
    c.delete("a").await;
    assert_eq!(c.put("a", "2").await, 5);

    // What was before, with what that had replaced; and what comes.
    let mut call = c.watch(WatchCreateRequest { prev_kv: true, ..watching("a", "c", 3) }).await;
    assert_eq!(call.told().await, "0 created");
    assert_eq!(call.changes(3).await, "b=1@3, no a=@4 was 1@2, a=2@5");
    c.put("c", "outside").await;
    c.put("b", "2").await;
    assert_eq!(call.changes(1).await, "b=2@7 was 1@3");

    // Several on one call; their numbers are chosen, or given.
    call.say(&create(WatchCreateRequest { filters: vec![NO_PUTS], ..watching("a", "", 2) })).await;
    assert_eq!(call.told().await, "1 created");
    assert_eq!(call.changes(1).await, "no a=@4");
    call.say(&create(WatchCreateRequest { filters: vec![NO_DELETIONS], watch_id: 7, ..watching("a", "", 2) })).await;
    assert_eq!(call.told().await, "7 created");
    assert_eq!(call.changes(2).await, "a=1@2, a=2@5");
    call.say(&create(WatchCreateRequest { watch_id: 7, ..watching("x", "", 0) })).await;
    assert_eq!(call.told().await, "-1 created canceled mvcc: duplicate watch ID provided on the WatchStream");
    call.say(&create(watching("c", "b", 0))).await;
    assert_eq!(call.told().await, "-1 created canceled mvcc: watcher range is empty");

    // How far it is, asked for when nothing happens.
    let mut call = c.watch(watching("b", "", 7)).await;
    assert_eq!((call.told().await, call.changes(1).await), ("0 created".to_owned(), "b=2@7".to_owned()));
    call.say(&WatchRequest { request: Some(Watching::Progress(Nothing {})) }).await;
    let progress: WatchResponse = call.hear().await;
    assert_eq!((progress.header.unwrap().revision, progress.events.len(), progress.canceled), (7, 0, false));

    // One ends, and the others go on.
    let mut call = c.watch(watching("", "\0", 0)).await;
    assert_eq!(call.told().await, "0 created");
    call.say(&create(watching("d", "", 10))).await;
    assert_eq!(call.told().await, "1 created");
    call.say(&WatchRequest { request: Some(Watching::Cancel(WatchCancelRequest { watch_id: 9 })) }).await;
    call.say(&WatchRequest { request: Some(Watching::Cancel(WatchCancelRequest { watch_id: 0 })) }).await;
    assert_eq!(call.told().await, "0 canceled");
    // From a revision that is to come.
    for value in ["1", "2", "3"] {
        c.put("d", value).await;
    }
    assert_eq!(call.changes(1).await, "d=3@10");

    // From one that is gone: it is said from where on there is something.
    let _: HeaderResponse = c.call("KV/Compact", &CompactionRequest { revision: 9 }).await;
    let mut call = c.watch(watching("d", "", 8)).await;
    assert_eq!(call.told().await, "0 created");
    let gone: WatchResponse = call.hear().await;
    assert!(gone.canceled && gone.compact_revision > 8 && gone.events.is_empty(), "{gone:?}");
    call.say(&create(watching("d", "", gone.compact_revision))).await;
    assert!(call.told().await.ends_with(" created"));
    // etcd has the last change before that, too.
    let heard = call.changes(1).await;
    let heard = if heard == "d=2@9" { call.changes(1).await } else { heard };
    assert_eq!(heard.trim_start_matches("d=2@9, "), "d=3@10");
}

/// A lease is kept alive again and again on one call; of one that is not there it is said that it has no time.
async fn keep_alive(c: &Connection) {
    let granted: LeaseResponse = c.call("Lease/LeaseGrant", &LeaseGrantRequest { ttl: 1000, id: 77 }).await;
    assert_eq!((granted.id, granted.ttl), (77, 1000));
    let mut call = c.begin("Lease/LeaseKeepAlive", &LeaseRequest { id: 77 }).await;
    for (id, ttl) in [(77, 1000), (78, 0), (77, 1000)] {
        let kept: LeaseResponse = call.hear().await;
        assert_eq!((kept.id, kept.ttl), (id, ttl));
        call.say(&LeaseRequest { id: if id == 77 { 78 } else { 77 } }).await;
    }
    let held = PutRequest { lease: 77, ..putting("held", "") };
    let revision = c.call::<PutResponse>("KV/Put", &held).await.header.unwrap().revision;
    let mut watch = c.watch(watching("held", "", 0)).await;
    assert_eq!(watch.told().await, "0 created");
    let _: HeaderResponse = c.call("Lease/LeaseRevoke", &LeaseRequest { id: 77 }).await;
    assert_eq!(watch.changes(1).await, format!("no held=@{}", revision + 1));
}

#[tokio::test]
async fn watches_and_leases_are_answered_as_etcd_answers_them() {
    let own = Own::start().await;
    let connection = Connection::to(&own).await;
    converse(&connection).await;
    keep_alive(&connection).await;
    drop(connection);
    own.stop().await;
}

#[tokio::test]
async fn etcd_itself_watches_so() {
    let dir = tempfile::tempdir().unwrap();
    let Some(etcd) = Etcd::start(dir.path()) else {
        eprintln!("Skipped: there is no etcd on this machine");
        return;
    };
    let connection = Connection::to_etcd(dir.path()).await;
    converse(&connection).await;
    keep_alive(&connection).await;
    drop(etcd);
}

/// More than a message of etcd's may have comes in parts, for who takes that; each but the last says that more follows.
#[tokio::test]
async fn many_bytes_of_one_revision_come_in_fragments() {
    let own = Own::start().await;
    let c = Connection::to(&own).await;
    let large = "x".repeat(700_000);
    let txn = then(&[put("a", &large), put("b", &large), put("c", "small")]);
    for (fragment, parts) in [(true, vec![1, 2]), (false, vec![3])] {
        let mut call = c.watch(WatchCreateRequest { fragment, ..watching("a", "z", 0) }).await;
        assert_eq!(call.told().await, "0 created");
        let done: TxnResponse = c.call("KV/Txn", &txn).await;
        for (at, part) in parts.iter().enumerate() {
            let said: WatchResponse = call.hear().await;
            assert_eq!((said.events.len(), said.fragment), (*part, at + 1 < parts.len()), "{fragment}");
            assert_eq!(said.header.unwrap().revision, done.header.as_ref().unwrap().revision);
        }
    }
    drop(c);
    own.stop().await;
}
