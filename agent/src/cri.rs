//! The Container Runtime Interface (CRI), version 1: gRPC on a unix socket, for `crictl` and whoever else drives a container
//! runtime in the kubelet's words.
//!
//! ```text
//!   crictl ──gRPC, unix socket──▶ call ──▶ sandbox · container · image · stats · metrics · events ──▶ runtime, network, images
//!      └────SPDY, WebSocket─────▶ streaming (one URL a session) ──▶ the same sessions as the node's HTTPS server
//! ```
//!
//! Asked for with `--cri-listen`. The socket is root's alone: who speaks on it may do anything to the host, as with any
//! container runtime. What is made here lives beside the node's pods in the same runtime, with a mark in its record
//! ([`is_made_here`]); the node leaves it alone, and it outlives the agent. Pods of the API server are shown and may be
//! looked into; changing them is refused, since the API server says how they are to be.
//!
//! - `messages` are the interface's types, `call` its table of methods.
//! - `records` is what is kept of sandboxes and containers: in the runtime's own records, so that it goes with them.
//! - `sandbox_spec` and `container_spec` make runtime specifications (pure); `find` and `view` show what there is.

mod arrivals;
mod call;
mod cdi;
mod container;
mod container_spec;
mod events;
mod exec;
mod find;
mod image;
mod messages;
mod metrics;
mod node;
mod records;
mod sandbox;
mod sandbox_spec;
mod stats;
mod streaming;
mod view;

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::error::Error as StdError;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coracle_process::grpc::{Code, Refusal};
use coracle_runtime::{Runtime, SandboxSpec, SandboxStatus};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::pod::start::chain;
use crate::server::Sessions;
use arrivals::Arrivals;
use events::Happened;
use records::Records;
use streaming::Streaming;

/// Connections at once; a client that opens one for each of its parts and closes none has hundreds.
const CONNECTIONS: usize = 1024;
/// Calls at once on one connection.
const CALLS: u32 = 256;
/// The longest message that is taken, as gRPC has it in Kubernetes.
const LONGEST: usize = 16 << 20;
/// What may wait for a listener of events that does not take them, as with containerd.
const WAITING: usize = 1000;

/// The annotation of sandboxes that were made here: their configuration.
const CONFIG: &str = "coracle.io/cri-config";

/// Why the Container Runtime Interface cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket cannot be made.
    #[error("listen on {}", path.display())]
    Listen {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Somebody else serves on the socket.
    #[error("{} is served by another process", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// There is no port for streams.
    #[error("listen on a loopback port for streams")]
    Streams(#[source] io::Error),
}

/// Whether a sandbox was made through this interface, and is not one of the API server's pods.
pub(crate) fn is_made_here(spec: &SandboxSpec) -> bool {
    spec.annotations.iter().any(|(name, _)| name == CONFIG)
}

/// The names under which network and images know the sandboxes that were made through this interface.
///
/// # Errors
/// When the runtime's records cannot be read.
pub(crate) async fn uids(runtime: &Runtime) -> Result<BTreeSet<String>, coracle_runtime::Error> {
    let all = runtime.list().await?.into_iter();
    Ok(all.filter(|sandbox| is_made_here(&sandbox.spec)).map(|sandbox| sandbox.spec.pod_uid).collect())
}

/// What the calls answer from.
struct Front {
    context: Arc<Context>,
    records: Records,
    streaming: Streaming,
    happened: broadcast::Sender<Happened>,
    sessions: Sessions,
}

/// The interface's sockets, listening.
pub(crate) struct Server {
    listener: UnixListener,
    path: PathBuf,
    streams: TcpListener,
}

impl Server {
    /// Listens, in place of a server that has ended without removing its socket.
    ///
    /// # Errors
    /// [`Error`].
    pub(crate) async fn bind(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Listen { path: path.to_owned(), source };
        if let Some(parent) = path.parent() {
            tokio::fs::create_dir_all(parent).await.map_err(failed)?;
        }
        match UnixStream::connect(path).await {
            Ok(_) => return Err(Error::InUse { path: path.to_owned() }),
            // Nobody listens any more, if it is a socket at all.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                if !tokio::fs::symlink_metadata(path).await.map_err(failed)?.file_type().is_socket() {
                    return Err(failed(io::Error::new(io::ErrorKind::AlreadyExists, "it is no socket")));
                }
                tokio::fs::remove_file(path).await.map_err(failed)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        // Who came in before this is turned away by who he is.
        tokio::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).await.map_err(failed)?;
        let streams = TcpListener::bind("127.0.0.1:0").await.map_err(Error::Streams)?;
        Ok(Self { listener, path: path.to_owned(), streams })
    }

    /// Serves until `shutdown`; `found` is what the runtime had when the agent began. Sandboxes stay as they are.
    pub(crate) async fn run(self, context: Arc<Context>, found: Vec<SandboxStatus>, shutdown: CancellationToken) {
        let Server { listener, path, streams } = self;
        let sessions = Sessions::new(shutdown.clone());
        let front = Arc::new(Front {
            records: Records::load(&context, found).await,
            context,
            streaming: Streaming::at(streams.local_addr().ok()),
            happened: broadcast::Sender::new(WAITING),
            sessions: sessions.clone(),
        });
        sessions.spawn(streaming::serve(Arc::clone(&front), streams));
        let arrivals = Arrivals::new(CONNECTIONS);
        loop {
            let ((stream, _), place) = tokio::select! {
                () = shutdown.cancelled() => break,
                arrived = arrivals.next(|| listener.accept()) => arrived,
            };
            let own = nix::unistd::geteuid().as_raw();
            if !stream.peer_cred().is_ok_and(|peer| peer.uid() == 0 || peer.uid() == own) {
                tracing::debug!("connection refused: only root may speak to the runtime");
                continue;
            }
            let front = Arc::clone(&front);
            sessions.spawn(async move {
                serve(front, stream).await;
                drop(place);
            });
        }
        drop(listener);
        // One that is not there is removed.
        let _ = tokio::fs::remove_file(&path).await;
        sessions.ended().await;
    }
}

async fn serve(front: Arc<Front>, stream: UnixStream) {
    let sessions = front.sessions.clone();
    let service = hyper::service::service_fn(move |request: http::Request<Incoming>| {
        let front = Arc::clone(&front);
        async move { Ok::<_, Infallible>(call::answer(front, request).await) }
    });
    let mut builder = hyper::server::conn::http2::Builder::new(sessions);
    builder.max_concurrent_streams(CALLS);
    if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(error = %error, "connection ended");
    }
}

/// The runtime's errors in the codes that clients of this interface know.
fn refused(error: &coracle_runtime::Error) -> Refusal {
    use coracle_runtime::Error as E;
    let code = match error {
        E::InvalidSpec { .. } => Code::InvalidArgument,
        E::SandboxNotFound { .. } | E::ContainerNotFound { .. } => Code::NotFound,
        E::ContainerNotRunning { .. } | E::ContainerRunning { .. } | E::Version { .. } => Code::FailedPrecondition,
        E::StillRunning { .. } | E::ExecTimeout { .. } => Code::DeadlineExceeded,
        E::Unsupported { .. } => Code::Unimplemented,
        E::Supervisor { .. } => Code::Unavailable,
        E::Start(_) | E::Exec(_) | E::Sandbox { .. } | E::Io { .. } => Code::Unknown,
    };
    Refusal(code, chain(error))
}

/// Any other error, which fits no code.
fn failed(error: &dyn StdError) -> Refusal {
    Refusal(Code::Unknown, chain(error))
}

fn invalid(why: impl Into<String>) -> Refusal {
    Refusal(Code::InvalidArgument, why.into())
}

/// Nanoseconds since 1970, as the interface counts.
fn nanoseconds(time: std::time::SystemTime) -> i64 {
    let since = time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_sockets_that_nobody_serves_are_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "mine").unwrap();
        assert!(matches!(Server::bind(&file).await, Err(Error::Listen { .. })));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
        let socket = folder.path().join("below/socket");
        let first = Server::bind(&socket).await.unwrap();
        assert!(matches!(Server::bind(&socket).await, Err(Error::InUse { .. })));
        drop(first);
        Server::bind(&socket).await.unwrap();
    }
}
