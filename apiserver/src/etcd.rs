//! etcd's own clients: its v3 API over the same store, for who may do anything.
//!
//! ```text
//!   etcdctl, backup programs ──TLS, certificate of an administrator──▶ gRPC ──▶ store (values as they are kept)
//! ```
//!
//! Asked for with `--etcd-listen`. Whoever speaks this API goes round authorization and admission, so only certificates of
//! `system:masters` are let in; nodes' are not, although the same authority signed them. What the API server keeps
//! (`/registry/`, `/coracle/`) can be read and watched here, and is written by the API server alone: it relies upon what
//! is there. Secrets are shown sealed, as in etcd below Kubernetes.
//!
//! - `messages` are etcd's types.
//! - `kv` and `txn`, `watch`, `lease`, `cluster` are its services; `database` is the file a snapshot is.

mod cluster;
mod database;
mod kv;
mod lease;
mod messages;
#[cfg(test)]
mod tests;
mod txn;
mod watch;

use std::{convert::Infallible, path::PathBuf, sync::Arc, time::Duration};

use coracle_process::grpc::{self, Body, Code, Refusal, Requests, unary};
use coracle_store::Store;
use http::{Method, Request, Response};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use x509_parser::prelude::FromDer as _;

use self::kv::Who;
use crate::{
    authz::MASTERS,
    connections::{Guest, Tracked, drive},
    pki,
};

/// Connections at once: administrators' tools, of which `etcdctl check perf --load=l` makes five hundred.
pub(crate) const CONNECTIONS: usize = 640;
/// Calls at once on one connection.
const STREAMS: u32 = 1000;
/// The longest message that is taken: a whole transaction of the store, and what stands around it.
const LONGEST: usize = coracle_store::MAX_TXN + (1 << 20);
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// What the services answer from.
pub(crate) struct Front {
    /// The store, without a seal.
    store: Store,
    store_dir: PathBuf,
    /// What this member is called when it has not said so itself, and where etcd's clients reach it.
    name: String,
    url: String,
}

impl Front {
    /// Over the store of a server of this name, which etcd's clients reach at this URL.
    pub(crate) fn new(store: &Store, store_dir: PathBuf, name: &str, url: String) -> Self {
        let name = if name.is_empty() { "coracle".to_owned() } else { name.to_owned() };
        Self { store: store.as_kept(), store_dir, name, url }
    }

    /// What answers begin with.
    fn who(&self) -> Who {
        let id = u128::from_be_bytes(self.store.cluster_id());
        let cluster = self.store.cluster();
        Who { cluster: u64::try_from(id >> 64).unwrap_or_default(), member: cluster.own.0, term: cluster.term }
    }
}

/// Serves a client, whose certificate the handshake has verified.
pub(crate) async fn serve(front: Arc<Front>, guest: Guest) {
    let Guest { stream, certificates, tasks, shutdown, .. } = guest;
    let may = certificates.first().is_some_and(|certificate| is_master(certificate));
    let (closing, spawned) = (shutdown.clone(), tasks.clone());
    let service = service_fn(move |request: Request<Incoming>| {
        let (front, closing, tasks) = (Arc::clone(&front), closing.clone(), spawned.clone());
        async move { Ok::<_, Infallible>(answer(front, may, request, closing, &tasks).await) }
    });
    let mut builder = hyper::server::conn::http2::Builder::new(Tracked::new(tasks));
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .keep_alive_interval(Some(KEEP_ALIVE))
        .keep_alive_timeout(KEEP_ALIVE);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    drive(connection, &shutdown, |connection| connection.graceful_shutdown()).await;
}

/// Whether a certificate, which the handshake has verified, is an administrator's.
fn is_master(certificate: &[u8]) -> bool {
    let parsed = x509_parser::certificate::X509Certificate::from_der(certificate).ok();
    let subject = parsed.and_then(|(_, parsed)| pki::subject(&parsed));
    subject.is_some_and(|(_, groups)| groups.iter().any(|group| group == MASTERS))
}

/// Answers a call.
async fn answer(
    front: Arc<Front>,
    may: bool,
    request: Request<Incoming>,
    shutdown: CancellationToken,
    tasks: &TaskTracker,
) -> Response<Body> {
    if request.method() == Method::GET && may {
        return cluster::page(&front, request.uri().path());
    }
    if request.method() != Method::POST {
        let why = "grpc: calls are posted".to_owned();
        return unary(Err::<messages::Nothing, _>(Refusal(Code::Unimplemented, why)));
    }
    if !may {
        let why = "etcdserver: permission denied: the certificate is not one of system:masters".to_owned();
        return unary(Err::<messages::Nothing, _>(Refusal(Code::PermissionDenied, why)));
    }
    let path = request.uri().path().to_owned();
    let requests = Requests::new(request.into_body(), LONGEST);
    let (store, who) = (&front.store, front.who());
    macro_rules! call {
        ($request:ident => $answered:expr) => {
            unary(match requests.only().await {
                Ok($request) => $answered,
                Err(refusal) => Err(refusal),
            })
        };
    }
    match path.as_str() {
        "/etcdserverpb.KV/Range" => call!(request => kv::range(store, who, request).await),
        "/etcdserverpb.KV/Put" => call!(request => kv::put(store, who, request).await),
        "/etcdserverpb.KV/DeleteRange" => call!(request => kv::delete(store, who, request).await),
        "/etcdserverpb.KV/Txn" => call!(request => txn::txn(store, who, request).await),
        "/etcdserverpb.KV/Compact" => call!(request => kv::compact(store, who, request).await),
        "/etcdserverpb.Lease/LeaseGrant" => call!(request => lease::grant(store, who, request).await),
        "/etcdserverpb.Lease/LeaseRevoke" => call!(request => lease::revoke(store, who, request).await),
        "/etcdserverpb.Lease/LeaseTimeToLive" => call!(request => lease::time_to_live(store, who, request).await),
        "/etcdserverpb.Lease/LeaseLeases" => call!(request => Ok(lease::leases(store, who, request))),
        "/etcdserverpb.Cluster/MemberList" => call!(request => Ok(cluster::members(&front, request))),
        "/etcdserverpb.Maintenance/Status" => call!(request => cluster::status(&front, request).await),
        "/etcdserverpb.Maintenance/Alarm" => call!(request => cluster::alarms(&front, request)),
        "/etcdserverpb.Maintenance/MoveLeader" => call!(request => cluster::move_leader(&front, request).await),
        "/etcdserverpb.Maintenance/Defragment" => call!(request => Ok(cluster::defragment(&front, request))),
        "/etcdserverpb.Maintenance/Hash" => call!(request => {
            let messages::Nothing {} = request;
            cluster::hash(&front, messages::HashKvRequest::default())
        }),
        "/etcdserverpb.Maintenance/HashKV" => call!(request => cluster::hash(&front, request)),
        "/etcdserverpb.Maintenance/Snapshot" => {
            let (answers, response) = grpc::streaming();
            tasks.spawn(async move {
                if let Err(refusal) = cluster::snapshot(&front, &answers).await {
                    answers.refuse(refusal).await;
                }
            });
            response
        }
        "/etcdserverpb.Watch/Watch" => {
            let (answers, response) = grpc::streaming();
            tasks.spawn(watch::serve(front.store.clone(), who, requests, answers, shutdown));
            response
        }
        "/etcdserverpb.Lease/LeaseKeepAlive" => {
            let (answers, response) = grpc::streaming();
            tasks.spawn(lease::keep_alive(front.store.clone(), who, requests, answers, shutdown));
            response
        }
        path => {
            let why = format!("unknown method {path}: Coracle serves KV, Watch, Lease, MemberList and Maintenance");
            unary(Err::<messages::Nothing, _>(Refusal(Code::Unimplemented, why)))
        }
    }
}
