//! Probes: asking a container whether it has started, lives, and is ready.
//!
//! A prober is one task per attempt at a container; it ends when its worker drops it. What a single try says
//! ([`Outcome`]) and what a row of tries amounts to ([`Streak`]) are kept apart, so that thresholds are tested without a
//! network.

mod grpc;
mod http;

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};

use crate::figures::Probes;

/// Which probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Before it passes, the others are not asked.
    Startup,
    /// Failing it restarts the container.
    Liveness,
    /// Failing it takes the pod out of services.
    Readiness,
}

impl Kind {
    /// As events begin: `Readiness`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }
}

/// What one try said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It passed.
    Success,
    /// It failed, with what the container answered.
    Failure(String),
    /// It could not be tried.
    Error(String),
}

/// What a prober tells its worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    /// The container's name.
    pub(crate) container: String,
    /// The attempt's id.
    pub(crate) id: String,
    /// Which probe.
    pub(crate) kind: Kind,
    /// A try that did not pass, for the `Unhealthy` event.
    pub(crate) failure: Option<Outcome>,
    /// The probe's verdict, if this try changed it.
    pub(crate) verdict: Option<bool>,
}

/// Counts tries against thresholds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Streak {
    success_threshold: u32,
    failure_threshold: u32,
    passing: bool,
    row: u32,
    verdict: Option<bool>,
}

impl Streak {
    /// The thresholds of `probe`; Kubernetes' defaults are 1 and 3.
    pub(crate) fn new(probe: &Probe) -> Self {
        let threshold =
            |v: Option<i32>, default: u32| v.and_then(|v| u32::try_from(v).ok()).filter(|v| *v > 0).unwrap_or(default);
        Self {
            success_threshold: threshold(probe.success_threshold, 1),
            failure_threshold: threshold(probe.failure_threshold, 3),
            passing: false,
            row: 0,
            verdict: None,
        }
    }

    /// Counts one try; answers the verdict when it changes.
    pub(crate) fn count(&mut self, outcome: &Outcome) -> Option<bool> {
        let passed = match outcome {
            Outcome::Success => true,
            Outcome::Failure(_) => false,
            // A try that could not be made says nothing either way.
            Outcome::Error(_) => return None,
        };
        if self.passing == passed {
            self.row = self.row.saturating_add(1);
        } else {
            self.passing = passed;
            self.row = 1;
        }
        let threshold = if passed { self.success_threshold } else { self.failure_threshold };
        if self.row < threshold || self.verdict == Some(passed) {
            return None;
        }
        self.verdict = Some(passed);
        Some(passed)
    }
}

/// How a prober runs a command in its container.
pub(crate) trait Commands: Send + Sync {
    /// Runs `argv`; a command that ends with another code than 0 is a failure with what it said.
    fn run(&self, argv: Vec<String>, timeout: Duration) -> impl Future<Output = Outcome> + Send;
}

/// Where a container is reached.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// The container.
    pub(crate) container: Container,
    /// The attempt's id.
    pub(crate) id: String,
    /// The pod's address (the node's with the host's network).
    pub(crate) ip: Option<IpAddr>,
    /// Where tries are counted.
    pub(crate) counts: Arc<Probes>,
}

/// Whether `container` has any probe.
pub(crate) fn is_probed(container: &Container) -> bool {
    container.startup_probe.is_some() || container.liveness_probe.is_some() || container.readiness_probe.is_some()
}

/// Probes one attempt at a container until it is dropped or the worker is gone.
///
/// # Cancel safety
/// Dropping it ends the probing; a command that runs in the container is killed.
pub(crate) async fn run<C: Commands>(target: &Target, commands: &C, reports: mpsc::Sender<Report>) {
    let (started, gate) = watch::channel(target.container.startup_probe.is_none());
    let startup = async {
        if let Some(probe) = &target.container.startup_probe {
            one(Kind::Startup, probe, target, commands, &reports, None, Some(&started)).await;
        }
    };
    let liveness = async {
        if let Some(probe) = &target.container.liveness_probe {
            one(Kind::Liveness, probe, target, commands, &reports, Some(gate.clone()), None).await;
        }
    };
    let readiness = async {
        if let Some(probe) = &target.container.readiness_probe {
            one(Kind::Readiness, probe, target, commands, &reports, Some(gate.clone()), None).await;
        }
    };
    tokio::join!(startup, liveness, readiness);
}

async fn one<C: Commands>(
    kind: Kind,
    probe: &Probe,
    target: &Target,
    commands: &C,
    reports: &mpsc::Sender<Report>,
    gate: Option<watch::Receiver<bool>>,
    started: Option<&watch::Sender<bool>>,
) {
    let begin = Instant::now();
    if let Some(mut gate) = gate
        && gate.wait_for(|open| *open).await.is_err()
    {
        return;
    }
    let seconds = |v: Option<i32>, default: u64| v.and_then(|v| u64::try_from(v).ok()).unwrap_or(default);
    let delay = Duration::from_secs(seconds(probe.initial_delay_seconds, 0));
    let period = Duration::from_secs(seconds(probe.period_seconds, 10).max(1));
    let timeout = Duration::from_secs(seconds(probe.timeout_seconds, 1).max(1));
    // The delay counts from the container's start, also when a startup probe took its time.
    let mut ticks = tokio::time::interval_at((begin + delay).max(Instant::now()), period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut streak = Streak::new(probe);
    loop {
        ticks.tick().await;
        let asked = Instant::now();
        let outcome = attempt(probe, target, commands, timeout).await;
        target.counts.tried(kind, &outcome, asked.elapsed());
        let verdict = streak.count(&outcome);
        let failure = (outcome != Outcome::Success).then_some(outcome);
        if failure.is_some() || verdict.is_some() {
            let report =
                Report { container: target.container.name.clone(), id: target.id.clone(), kind, failure, verdict };
            if reports.send(report).await.is_err() {
                return;
            }
        }
        match (kind, verdict) {
            (Kind::Startup, Some(true)) => {
                if let Some(started) = started {
                    started.send_replace(true);
                }
                return;
            }
            // The container is stopped now; the next attempt has a prober of its own.
            (Kind::Startup | Kind::Liveness, Some(false)) => return,
            _ => {}
        }
    }
}

async fn attempt<C: Commands>(probe: &Probe, target: &Target, commands: &C, timeout: Duration) -> Outcome {
    if let Some(exec) = &probe.exec {
        return commands.run(exec.command.clone().unwrap_or_default(), timeout).await;
    }
    if let Some(get) = &probe.http_get {
        let Some(port) = port(&target.container, &get.port) else { return no_port(&get.port) };
        let Some(host) = host(get.host.as_deref(), target) else { return no_address() };
        let request = http::Get {
            scheme: get.scheme.clone().unwrap_or_else(|| "HTTP".into()).to_lowercase(),
            host,
            port,
            path: get.path.clone().unwrap_or_default(),
            headers: get.http_headers.iter().flatten().map(|h| (h.name.clone(), h.value.clone())).collect(),
        };
        return http::get(&request, timeout).await;
    }
    if let Some(tcp) = &probe.tcp_socket {
        let Some(port) = port(&target.container, &tcp.port) else { return no_port(&tcp.port) };
        let Some(host) = host(tcp.host.as_deref(), target) else { return no_address() };
        return connect(&host, port, timeout).await.map_or_else(Outcome::Failure, |_| Outcome::Success);
    }
    if let Some(grpc) = &probe.grpc {
        let Some(host) = host(None, target) else { return no_address() };
        let Ok(port) = u16::try_from(grpc.port) else { return no_port(&IntOrString::Int(grpc.port)) };
        return grpc::check(&host, port, grpc.service.as_deref().unwrap_or_default(), timeout).await;
    }
    Outcome::Error("missing probe handler".into())
}

/// An HTTP hook of a container's lifecycle: asked as a probe is.
pub(crate) async fn http_hook(
    target: &Target,
    get: &k8s_openapi::api::core::v1::HTTPGetAction,
    timeout: Duration,
) -> Outcome {
    let probe = Probe { http_get: Some(get.clone()), ..Probe::default() };
    attempt(&probe, target, &NoCommands, timeout).await
}

struct NoCommands;

impl Commands for NoCommands {
    async fn run(&self, _argv: Vec<String>, _timeout: Duration) -> Outcome {
        Outcome::Error("no commands here".into())
    }
}

fn no_port(port: &IntOrString) -> Outcome {
    match port {
        IntOrString::Int(n) => Outcome::Error(format!("invalid port number: {n}")),
        IntOrString::String(name) => Outcome::Error(format!("couldn't find port with name {name:?}")),
    }
}

fn no_address() -> Outcome {
    Outcome::Error("the pod has no address".into())
}

/// A probe's port: a number, or the name of one of the container's.
fn port(container: &Container, port: &IntOrString) -> Option<u16> {
    let number = match port {
        IntOrString::Int(n) => *n,
        IntOrString::String(name) => match name.parse() {
            Ok(n) => n,
            Err(_) => container.ports.iter().flatten().find(|p| p.name.as_deref() == Some(name))?.container_port,
        },
    };
    u16::try_from(number).ok().filter(|n| *n > 0)
}

fn host(own: Option<&str>, target: &Target) -> Option<String> {
    match own.filter(|h| !h.is_empty()) {
        Some(host) => Some(host.to_owned()),
        None => target.ip.map(|ip| ip.to_string()),
    }
}

/// Connects, with Go's words for what goes wrong, since they end in events people look up.
async fn connect(host: &str, port: u16, timeout: Duration) -> Result<TcpStream, String> {
    let shown = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    match tokio::time::timeout(timeout, TcpStream::connect((host, port))).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(e)) => {
            let why = match e.kind() {
                std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
                std::io::ErrorKind::HostUnreachable => "no route to host".to_owned(),
                std::io::ErrorKind::NetworkUnreachable => "network is unreachable".to_owned(),
                _ => e.to_string(),
            };
            Err(format!("dial tcp {shown}: connect: {why}"))
        }
        Err(_) => Err(format!("dial tcp {shown}: i/o timeout")),
    }
}

#[cfg(test)]
mod tests;
