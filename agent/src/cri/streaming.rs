//! Exec, attach and port-forward: a call gives a URL, good for one session and one minute, and whoever has it gets the
//! session over SPDY or WebSocket. Served on loopback in plain HTTP; the token in the URL is the right to it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use axum::routing::any;
use coracle_process::grpc::{Code, Refusal, Result};
use http::StatusCode;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;

use super::arrivals::Arrivals;
use super::messages::{AttachRequest, ExecRequest, PortForwardRequest, UrlResponse};
use super::{Front, invalid};
use crate::server::port_forward::Target;
use crate::server::session::{self, Asked};
use crate::server::{failure, upgrade};

/// Sessions that were asked for and not begun, as in Kubernetes' own streaming servers; and how long each waits.
const MOST: usize = 1000;
const LIFE: Duration = Duration::from_secs(60);
/// Connections at once that have not become sessions, which count no more; and how long each has for its request.
const CONNECTIONS: usize = 256;
const HEAD: Duration = Duration::from_secs(30);

/// A session that was asked for.
enum Wanted {
    Exec(String, Asked),
    Attach(String, Asked),
    PortForward(String, Vec<u16>),
}

/// Sessions that were asked for, by their tokens.
pub(super) struct Streaming {
    address: Option<SocketAddr>,
    waiting: Mutex<BTreeMap<String, (Instant, Wanted)>>,
}

impl Streaming {
    /// Sessions are had at this address.
    pub(super) fn at(address: Option<SocketAddr>) -> Self {
        Self { address, waiting: Mutex::default() }
    }

    fn offer(&self, kind: &str, wanted: Wanted) -> Result<UrlResponse> {
        let unknown = || Refusal(Code::Unavailable, "the address of streams is not known".to_owned());
        let address = self.address.ok_or_else(unknown)?;
        let token = format!("{:032x}", rand::random::<u128>());
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|_, (since, _)| since.elapsed() < LIFE);
        if waiting.len() >= MOST {
            let why = "maximum number of in-flight requests exceeded".to_owned();
            return Err(Refusal(Code::ResourceExhausted, why));
        }
        let url = format!("http://{address}/{kind}/{token}");
        waiting.insert(token, (Instant::now(), wanted));
        Ok(UrlResponse { url })
    }

    fn take(&self, token: &str) -> Option<Wanted> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.remove(token).filter(|(since, _)| since.elapsed() < LIFE).map(|(_, wanted)| wanted)
    }
}

fn asked(command: Vec<String>, tty: bool, [input, output, error]: [bool; 3]) -> Result<Asked> {
    if tty && error {
        return Err(invalid("tty and stderr cannot both be true"));
    }
    if !(input || output || error) {
        return Err(invalid("one of stdin, stdout, or stderr must be set"));
    }
    Ok(Asked { command, input, output, error, tty })
}

pub(super) async fn exec(front: &Front, request: ExecRequest) -> Result<UrlResponse> {
    if request.cmd.is_empty() {
        return Err(invalid("a command is required"));
    }
    let asked = asked(request.cmd, request.tty, [request.stdin, request.stdout, request.stderr])?;
    let (_, id) = front.running(&request.container_id).await?;
    front.streaming.offer("exec", Wanted::Exec(id.to_string(), asked))
}

pub(super) async fn attach(front: &Front, request: AttachRequest) -> Result<UrlResponse> {
    let asked = asked(Vec::new(), request.tty, [request.stdin, request.stdout, request.stderr])?;
    let (_, id) = front.running(&request.container_id).await?;
    front.streaming.offer("attach", Wanted::Attach(id.to_string(), asked))
}

pub(super) async fn port_forward(front: &Front, request: PortForwardRequest) -> Result<UrlResponse> {
    let port = |port: &i32| match u16::try_from(*port) {
        Ok(0) | Err(_) => Err(invalid(format!("port {port} is none"))),
        Ok(port) => Ok(port),
    };
    let ports = request.port.iter().map(port).collect::<Result<Vec<u16>>>()?;
    let seen = front.sandbox(&request.pod_sandbox_id).await?;
    if !seen.status.alive {
        return Err(super::sandbox::over(seen.status.id.as_str()));
    }
    front.streaming.offer("portforward", Wanted::PortForward(seen.id(), ports))
}

/// Serves the sessions.
pub(super) async fn serve(front: Arc<Front>, listener: TcpListener) {
    let router = Router::new()
        .route("/exec/{token}", any(begin))
        .route("/attach/{token}", any(begin))
        .route("/portforward/{token}", any(begin))
        .with_state(Arc::clone(&front));
    let arrivals = Arrivals::new(CONNECTIONS);
    loop {
        let ((stream, _), place) = arrivals.next(|| listener.accept()).await;
        let router = router.clone();
        front.sessions.spawn(async move {
            let service = tower::ServiceExt::map_request(router, |request: http::Request<hyper::body::Incoming>| {
                request.map(Body::new)
            });
            // Both SPDY and WebSocket begin with HTTP/1. Anybody on the machine may connect: who says nothing is left.
            let mut builder = hyper::server::conn::http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(HEAD);
            let served = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
            if let Err(error) = served.with_upgrades().await {
                tracing::debug!(error = %error, "connection ended");
            }
            drop(place);
        });
    }
}

async fn begin(State(front): State<Arc<Front>>, Path(token): Path<String>, request: Request) -> Response {
    let Some(wanted) = front.streaming.take(&token) else {
        return failure(
            StatusCode::NOT_FOUND,
            "NotFound",
            "the session is not known: it was begun, or its time is over",
        );
    };
    let gone = |Refusal(_, why): Refusal| failure(StatusCode::NOT_FOUND, "NotFound", &why);
    match wanted {
        Wanted::Exec(container, asked) => match front.running(&container).await {
            Ok((sandbox, id)) => {
                let work = |asked, client| session::exec(sandbox, id, asked, client);
                upgrade::session(request, &front.sessions, asked, work).await
            }
            Err(refusal) => gone(refusal),
        },
        Wanted::Attach(container, asked) => match front.running(&container).await {
            Ok((sandbox, id)) => {
                let work = |asked, client| session::attach(sandbox, id, asked, client);
                upgrade::session(request, &front.sessions, asked, work).await
            }
            Err(refusal) => gone(refusal),
        },
        Wanted::PortForward(sandbox, ports) => {
            let seen = match front.sandbox(&sandbox).await {
                Ok(seen) => seen,
                Err(refusal) => return gone(refusal),
            };
            let own = front.addresses(&seen).await;
            match front.context.runtime.sandbox(&seen.status.id).await {
                Ok(sandbox) => upgrade::ports(request, &front.sessions, Target::new(sandbox, own), ports).await,
                Err(error) => gone(super::refused(&error)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_had_once_and_only_so_many_wait() {
        let streaming = Streaming::at(Some(([127, 0, 0, 1], 7).into()));
        let offer = || streaming.offer("exec", Wanted::PortForward(String::new(), vec![]));
        let url = offer().unwrap().url;
        let token = url.strip_prefix("http://127.0.0.1:7/exec/").unwrap();
        assert!(streaming.take(token).is_some() && streaming.take(token).is_none());
        assert!(streaming.take("").is_none());
        for _ in 0..MOST {
            offer().unwrap();
        }
        assert_eq!(offer().unwrap_err().0, Code::ResourceExhausted);
    }

    #[test]
    fn streams_are_asked_for_as_kubernetes_checks_it() {
        assert!(asked(vec![], false, [false; 3]).is_err() && asked(vec![], true, [true; 3]).is_err());
        let got = asked(vec!["sh".into()], true, [true, true, false]).unwrap();
        assert!(got.tty && got.input && got.output && !got.error);
    }
}
