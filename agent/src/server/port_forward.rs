//! `/portForward/{namespace}/{pod}`: `kubectl port-forward`. Connections are made inside the pod's network namespace, to its
//! loopback addresses and, when nothing listens there, to its own.
//!
//! What is carried is a pair of streams a connection, one for data and one for what goes wrong: over SPDY ([`pairs`]), which
//! may be tunnelled through a WebSocket, or on the channels of a plain WebSocket ([`channels`]).

mod channels;
mod pairs;

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Path, RawQuery, Request, State};
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use coracle_runtime::Sandbox;
use http::StatusCode;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::session;
use super::{Sessions, failure, upgrade};
use crate::context::Context;
use crate::spdy::{Closed, Inlet, Outlet, Received};

pub(super) use self::{channels::serve as over_channels, pairs::serve as over_spdy};

/// Bytes read of a connection at once.
const CHUNK: usize = 16 << 10;
/// How long a connection within a host may take to be made.
const CONNECT: Duration = Duration::from_secs(10);
/// Ports of one plain WebSocket; each has two of 256 channels.
const PORTS: usize = 64;

/// Forwards ports of a pod.
pub(super) async fn port_forward(
    State(context): State<Arc<Context>>,
    Path((namespace, pod)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    Extension(sessions): Extension<Sessions>,
    request: Request,
) -> Response {
    let Some(entry) = context.table.find(&namespace, &pod) else {
        let message = format!("pod \"{pod}\" does not exist on this node");
        return failure(StatusCode::NOT_FOUND, "NotFound", &message);
    };
    let Some(sandbox) = entry.sandbox.clone() else {
        let message = format!("unable to forward port because pod is not running: {namespace}/{pod} has no sandbox");
        return failure(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", &message);
    };
    let ports = match ports(query.as_deref().unwrap_or_default()) {
        Ok(ports) => ports,
        Err(why) => return failure(StatusCode::BAD_REQUEST, "BadRequest", &why),
    };
    let addresses = entry.pod.status.iter().flat_map(|status| status.pod_ips.iter().flatten());
    let own = addresses.filter_map(|address| address.ip.parse().ok()).collect();
    upgrade::ports(request, &sessions, Target::new(sandbox, own), ports).await
}

/// The ports a query names, as kubelet reads them.
fn ports(query: &str) -> Result<Vec<u16>, String> {
    let mut ports = Vec::new();
    for (_, value) in session::pairs(query).filter(|(name, _)| *name == "port") {
        if value.is_empty() {
            return Err("query parameter \"port\" cannot be empty".into());
        }
        for port in value.split(',') {
            match port.parse() {
                Ok(0) => return Err(format!("port \"{port}\" must be > 0")),
                Ok(port) => ports.push(port),
                Err(_) => {
                    return Err(format!("unable to parse \"{value}\" as a port: \"{port}\" is no number of 16 bits"));
                }
            }
        }
    }
    if ports.len() > PORTS { Err(format!("at most {PORTS} ports can be forwarded at once")) } else { Ok(ports) }
}

/// A pod whose ports are forwarded.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    sandbox: Sandbox,
    /// Its own addresses.
    own: Vec<IpAddr>,
}

impl Target {
    /// The pod of this sandbox, which has these addresses.
    pub(crate) fn new(sandbox: Sandbox, own: Vec<IpAddr>) -> Self {
        Self { sandbox, own }
    }

    /// Connects to a port of the pod.
    ///
    /// # Errors
    /// Why not, as kubelet tells it.
    async fn connect(&self, port: u16) -> Result<TcpStream, String> {
        let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        let addresses: Vec<IpAddr> = loopback.into_iter().chain(self.own.iter().copied()).collect();
        let netns = self.sandbox.netns_path();
        let made = {
            let (netns, addresses) = (netns.clone(), addresses.clone());
            tokio::task::spawn_blocking(move || sockets(&File::open(netns)?, &addresses)).await
        };
        let wrong = |why: &dyn std::fmt::Display| {
            format!(
                "error forwarding port {port} to pod {id}, uid : failed to execute portforward in network namespace \
                 \"{}\": {why}",
                netns.display(),
                id = self.sandbox.id()
            )
        };
        let sockets = made.map_err(io::Error::other).and_then(|made| made).map_err(|error| wrong(&error))?;
        let mut failures = Vec::new();
        for (address, made) in addresses.into_iter().zip(sockets) {
            match join(made, SocketAddr::new(address, port)).await {
                Ok(stream) => return Ok(stream),
                Err(why) => failures.push(why),
            }
        }
        let mut failures = failures.into_iter();
        let (four, six) = (failures.next().unwrap_or_default(), failures.next().unwrap_or_default());
        let rest: String = failures.map(|why| format!("; {why}")).collect();
        Err(wrong(&format_args!(
            "failed to connect to localhost:{port} inside namespace \"{}\", IPv4: {four} IPv6 {six}{rest}",
            self.sandbox.id()
        )))
    }
}

/// A socket for each address, made in a network namespace, where it stays whoever uses it. A thread of its own goes there
/// and ends there, so that no other work can end up in the wrong one.
fn sockets(netns: &File, addresses: &[IpAddr]) -> io::Result<Vec<nix::Result<OwnedFd>>> {
    let make = |address: &IpAddr| {
        let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        socket(family, SockType::Stream, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC, None)
    };
    let enter = || -> io::Result<_> {
        setns(netns, CloneFlags::CLONE_NEWNET)?;
        Ok(addresses.iter().map(make).collect())
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("netns".into()).spawn_scoped(scope, enter)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Connects a socket; why not in the words of Go's `net`.
async fn join(made: nix::Result<OwnedFd>, address: SocketAddr) -> Result<TcpStream, String> {
    let connect = async {
        let socket = TcpSocket::from_std_stream(std::net::TcpStream::from(made?));
        let stream = socket.connect(address).await?;
        stream.set_nodelay(true)?;
        Ok::<_, io::Error>(stream)
    };
    let outcome = tokio::time::timeout(CONNECT, connect).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    outcome.map_err(|error| {
        let why = match error.kind() {
            io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
            io::ErrorKind::AddrNotAvailable => "connect: cannot assign requested address".to_owned(),
            io::ErrorKind::TimedOut => "i/o timeout".to_owned(),
            _ => error.to_string(),
        };
        let family = if address.is_ipv4() { "tcp4" } else { "tcp6" };
        format!("dial {family} {address}: {why}")
    })
}

/// What the client sends to a connection.
trait Hear: Send {
    /// What happens next.
    fn hear(&mut self) -> impl Future<Output = Received> + Send;
}

/// What a connection sends to the client.
trait Say: Sync {
    /// Waits while the client does not take it.
    fn say(&self, bytes: Bytes) -> impl Future<Output = Result<(), Closed>> + Send;
}

impl Hear for Inlet {
    async fn hear(&mut self) -> Received {
        self.next().await
    }
}

impl Say for Outlet {
    async fn say(&self, bytes: Bytes) -> Result<(), Closed> {
        self.send(bytes).await
    }
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// The pod has said all.
    Pod,
    /// The client has left, or the pod has cut it off.
    Cut,
}

/// Copies both ways until the pod has said all; a client that says no more still listens.
async fn copy(mut connection: TcpStream, mut client: impl Hear, to: &impl Say) -> Ended {
    let (mut from_pod, mut to_pod) = connection.split();
    let down = async {
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(CHUNK);
            match from_pod.read_buf(&mut buffer).await {
                Ok(0) => return Ended::Pod,
                Ok(_) if to.say(buffer.split().freeze()).await.is_ok() => {}
                Ok(_) | Err(_) => return Ended::Cut,
            }
        }
    };
    let up = async {
        let mut listens = true;
        loop {
            match client.hear().await {
                Received::Data(bytes) => listens = listens && to_pod.write_all(&bytes).await.is_ok(),
                Received::End => {
                    // It may be closed already.
                    drop(to_pod.shutdown().await);
                    return std::future::pending().await;
                }
                Received::Reset => return Ended::Cut,
            }
        }
    };
    tokio::select! {
        ended = down => ended,
        ended = up => ended,
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;

    use super::*;

    #[test]
    fn ports_are_read_as_kubelet_reads_them() {
        assert_eq!(ports("port=80&port=81,82&other=1"), Ok(vec![80, 81, 82]));
        assert_eq!(ports(""), Ok(vec![]));
        for (query, want) in [
            ("port=", "query parameter \"port\" cannot be empty"),
            ("port=0", "port \"0\" must be > 0"),
            ("port=1,x", "unable to parse \"1,x\" as a port: \"x\" is no number of 16 bits"),
            ("port=65536", "unable to parse \"65536\" as a port: \"65536\" is no number of 16 bits"),
        ] {
            assert_eq!(ports(query), Err(want.to_owned()), "{query}");
        }
        assert!(ports(&format!("port={}", ["1"; 65].join(","))).is_err());
    }

    struct Words(mpsc::Receiver<Received>);

    impl Hear for Words {
        async fn hear(&mut self) -> Received {
            self.0.recv().await.unwrap_or(Received::Reset)
        }
    }

    struct Heard(mpsc::Sender<Bytes>);

    impl Say for Heard {
        async fn say(&self, bytes: Bytes) -> Result<(), Closed> {
            self.0.send(bytes).await.map_err(|_| Closed)
        }
    }

    #[tokio::test]
    async fn a_client_that_says_no_more_is_answered() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (words, said) = mpsc::channel(4);
        let (told, mut heard) = mpsc::channel::<Bytes>(4);
        let pod = async {
            let mut stream = listener.accept().await.unwrap().0;
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            stream.write_all(format!("{text}, too").as_bytes()).await.unwrap();
        };
        let client = async {
            words.send(Received::Data(Bytes::from_static(b"words"))).await.unwrap();
            words.send(Received::End).await.unwrap();
            let mut text = Vec::new();
            while let Some(bytes) = heard.recv().await {
                text.extend_from_slice(&bytes);
            }
            text
        };
        let copied = async {
            let stream = TcpStream::connect(address).await.unwrap();
            let to = Heard(told);
            copy(stream, Words(said), &to).await
        };
        let (ended, (), text) = tokio::join!(copied, pod, client);
        assert_eq!((ended, text.as_slice()), (Ended::Pod, &b"words, too"[..]));
    }

    #[tokio::test]
    async fn nothing_listening_is_told_in_go_s_words() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let made = sockets(&File::open("/proc/self/ns/net").unwrap(), &[address.ip()]);
        // Entering a namespace, even one's own, is root's.
        let Ok(made) = made else { return assert!(!nix::unistd::geteuid().is_root()) };
        let why = join(made.into_iter().next().unwrap(), address).await.unwrap_err();
        assert_eq!(why, format!("dial tcp4 {address}: connect: connection refused"));
    }
}
