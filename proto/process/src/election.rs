//! One of several: programs of which many may run and one works hold an election by a Lease, as Kubernetes' own do.
//!
//! ```text
//!   waiting ──nobody holds the Lease, or its holder has said nothing for 15 s──▶ working ──10 s without renewing it──▶ waiting
//!      ▲                                                                            │
//!      └────────────────────────── looks every two seconds ◀──── shutdown: gives it back
//! ```
//!
//! Clocks of different machines are not compared: how long a holder has said nothing is measured from when this program saw
//! the Lease change. Whoever cannot renew it stops its work five seconds before another may begin, and waits like the
//! others. As with client-go's `leaderelection`, that is no proof against two at work (a machine may stand still in between);
//! what was decided from an old state is refused by the objects' versions.

use std::time::Duration;

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

/// Where Kubernetes' own programs have theirs.
const NAMESPACE: &str = "kube-system";
/// A holder that has said nothing for so long has lost it; `leaseDuration` of Kubernetes' own programs.
const HELD: Duration = Duration::from_secs(15);
/// Who has not renewed it for so long stops its work; `renewDeadline`.
const DEADLINE: Duration = Duration::from_secs(10);
/// Between two attempts; `retryPeriod`.
const PAUSE: Duration = Duration::from_secs(2);

/// Who wants the Lease, and what it has seen of it.
struct Candidate {
    leases: Api<Lease>,
    name: String,
    identity: String,
    /// The Lease as it was when it last changed, and when that was.
    seen: Option<(LeaseSpec, Instant)>,
}

/// Has `work` done whenever this program holds the Lease of that name: begun when it has got it, told to end when it
/// may lose it, and waited for, until `shutdown`.
///
/// # Errors
/// The work's own, or its end by itself.
///
/// # Cancel safety
/// Dropped, the Lease is not given back: the next holder waits until its time is over.
pub async fn while_elected<F, E>(
    client: Client,
    name: &str,
    shutdown: CancellationToken,
    mut work: impl FnMut(CancellationToken) -> F,
) -> Result<(), E>
where
    F: Future<Output = Result<(), E>>,
{
    let mut candidate = Candidate {
        leases: Api::namespaced(client, NAMESPACE),
        name: name.to_owned(),
        identity: identity(),
        seen: None,
    };
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = candidate.win() => {}
        }
        tracing::info!(lease = candidate.name, identity = candidate.identity, "elected: the work is this program's");
        let own = shutdown.child_token();
        let ended = {
            let working = work(own.clone());
            tokio::pin!(working);
            let ended = tokio::select! {
                ended = &mut working => Some(ended),
                () = candidate.keep() => None,
            };
            match ended {
                Some(ended) => Some(ended),
                None => {
                    tracing::warn!(
                        lease = candidate.name,
                        "the Lease was not renewed in time: another may do the work"
                    );
                    own.cancel();
                    working.await?;
                    None
                }
            }
        };
        if let Some(ended) = ended {
            candidate.give_back().await;
            return ended;
        }
        if shutdown.is_cancelled() {
            return Ok(());
        }
    }
}

/// A name no other program has.
fn identity() -> String {
    let host = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    format!("{host}_{}", uuid::Uuid::new_v4())
}

/// Whether the Lease may be taken by `own`, if it has been as it is for `unchanged`.
fn is_free(spec: &LeaseSpec, own: &str, unchanged: Duration) -> bool {
    let holder = spec.holder_identity.as_deref().unwrap_or_default();
    let held = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or_default();
    holder.is_empty() || holder == own || unchanged >= Duration::from_secs(held)
}

/// The Lease as `own` writes it, after it was `before`.
fn taken(before: &LeaseSpec, own: &str, now: Timestamp) -> LeaseSpec {
    let is_new = before.holder_identity.as_deref() != Some(own);
    let transitions = before.lease_transitions.unwrap_or_default();
    let is_first = before.acquire_time.is_none();
    LeaseSpec {
        holder_identity: Some(own.to_owned()),
        lease_duration_seconds: i32::try_from(HELD.as_secs()).ok(),
        acquire_time: if is_new { Some(MicroTime(now)) } else { before.acquire_time.clone() },
        renew_time: Some(MicroTime(now)),
        lease_transitions: Some(if is_new && !is_first { transitions.saturating_add(1) } else { transitions }),
        ..LeaseSpec::default()
    }
}

impl Candidate {
    /// Tries until it holds the Lease.
    async fn win(&mut self) {
        let mut is_told = false;
        loop {
            // A server whose machine is gone may leave a request without any answer.
            match timeout(DEADLINE, self.attempt()).await {
                Ok(Ok(true)) => return,
                Ok(Ok(false)) => {}
                Ok(Err(error)) if !is_told => {
                    let error: &(dyn std::error::Error + 'static) = &error;
                    tracing::warn!(error, lease = self.name, "the Lease cannot be taken; it is tried again");
                    is_told = true;
                }
                Ok(Err(_)) | Err(_) => {}
            }
            sleep(PAUSE).await;
        }
    }

    /// Renews the Lease until that fails for too long.
    async fn keep(&mut self) {
        let mut renewed = Instant::now();
        loop {
            sleep(PAUSE).await;
            let asked = Instant::now();
            match timeout_at(renewed + DEADLINE, self.attempt()).await {
                Ok(Ok(true)) => renewed = asked,
                Ok(other) => {
                    if let Err(error) = other {
                        let error: &(dyn std::error::Error + 'static) = &error;
                        tracing::debug!(error, lease = self.name, "the Lease was not renewed");
                    }
                    if renewed.elapsed() >= DEADLINE {
                        return;
                    }
                }
                Err(_) => return,
            }
        }
    }

    /// Takes or renews the Lease; false if it is another's, or somebody was quicker.
    async fn attempt(&mut self) -> kube::Result<bool> {
        let now = Timestamp::now();
        let written = match self.leases.get_opt(&self.name).await? {
            None => {
                let mut lease = Lease::default();
                lease.metadata.name = Some(self.name.clone());
                lease.spec = Some(taken(&LeaseSpec::default(), &self.identity, now));
                self.leases.create(&PostParams::default(), &lease).await
            }
            Some(mut lease) => {
                let spec = lease.spec.take().unwrap_or_default();
                let unchanged = self.unchanged(&spec);
                if !is_free(&spec, &self.identity, unchanged) {
                    return Ok(false);
                }
                lease.spec = Some(taken(&spec, &self.identity, now));
                self.leases.replace(&self.name, &PostParams::default(), &lease).await
            }
        };
        match written {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// For how long this program has seen the Lease as it is.
    fn unchanged(&mut self, spec: &LeaseSpec) -> Duration {
        match &self.seen {
            Some((seen, since)) if seen == spec => since.elapsed(),
            _ => {
                self.seen = Some((spec.clone(), Instant::now()));
                Duration::ZERO
            }
        }
    }

    /// Lets another have it at once.
    async fn give_back(&self) {
        let given = async {
            let mut lease = self.leases.get(&self.name).await?;
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_deref() == Some(&self.identity) {
                spec.holder_identity = Some(String::new());
                spec.lease_duration_seconds = Some(1);
                spec.renew_time = Some(MicroTime(Timestamp::now()));
                self.leases.replace(&self.name, &PostParams::default(), &lease).await?;
            }
            Ok::<_, kube::Error>(())
        };
        // Whoever comes next can wait.
        if !matches!(timeout_at(Instant::now() + PAUSE, given).await, Ok(Ok(()))) {
            tracing::debug!(lease = self.name, "the Lease could not be given back");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    };

    use http::{Method, Request, Response, StatusCode};
    use http_body_util::BodyExt as _;
    use kube::client::Body;
    use serde_json::{Value, json};
    use tokio::task::JoinSet;

    use super::*;

    /// An API server that knows one Lease.
    #[derive(Clone, Default)]
    struct Server(Arc<Mutex<Option<(u64, Value)>>>);

    impl Server {
        fn answer(&self, method: &Method, body: Option<Value>) -> (StatusCode, Value) {
            let mut kept = self.0.lock().unwrap();
            let status = |code: u16, reason: &str| {
                let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": reason,
                    "reason": reason, "code": code});
                (StatusCode::from_u16(code).unwrap(), status)
            };
            match (method, &*kept, body) {
                (&Method::GET, None, _) => status(404, "NotFound"),
                (&Method::GET, Some((_, lease)), _) => (StatusCode::OK, lease.clone()),
                (&Method::POST, Some(_), _) => status(409, "AlreadyExists"),
                (&Method::PUT, Some((version, _)), Some(lease))
                    if lease["metadata"]["resourceVersion"].as_str() != Some(&version.to_string()) =>
                {
                    status(409, "Conflict")
                }
                (_, _, Some(mut lease)) => {
                    let version = kept.as_ref().map_or(0, |(version, _)| *version) + 1;
                    lease["metadata"]["resourceVersion"] = version.to_string().into();
                    *kept = Some((version, lease.clone()));
                    (StatusCode::OK, lease)
                }
                other => panic!("{other:?}"),
            }
        }

        /// A client that hears nothing while it is cut off.
        fn client(&self, cut: &Arc<AtomicBool>) -> Client {
            let (server, cut) = (self.clone(), Arc::clone(cut));
            let service = tower::service_fn(move |request: Request<Body>| {
                let (server, cut) = (server.clone(), Arc::clone(&cut));
                async move {
                    if cut.load(Ordering::SeqCst) {
                        std::future::pending::<()>().await;
                    }
                    let (parts, body) = request.into_parts();
                    let body = body.collect().await?.to_bytes();
                    let (code, answer) = server.answer(&parts.method, serde_json::from_slice(&body).ok());
                    Ok::<_, kube::Error>(
                        Response::builder().status(code).body(Body::from(answer.to_string().into_bytes())).unwrap(),
                    )
                }
            });
            Client::new(service, "default")
        }

        fn spec(&self, name: &str) -> Value {
            self.0.lock().unwrap().as_ref().map(|(_, lease)| lease["spec"][name].clone()).unwrap_or_default()
        }
    }

    struct Program {
        cut: Arc<AtomicBool>,
        working: Arc<AtomicBool>,
        shutdown: CancellationToken,
    }

    /// Programs, of which no two work at a time.
    #[derive(Default)]
    struct Programs {
        server: Server,
        at_work: Arc<AtomicUsize>,
        all: JoinSet<Result<(), std::convert::Infallible>>,
    }

    impl Programs {
        fn start(&mut self) -> Program {
            let (cut, working, shutdown) = <(Arc<AtomicBool>, Arc<AtomicBool>, CancellationToken)>::default();
            let (client, at_work, shown, ends) =
                (self.server.client(&cut), Arc::clone(&self.at_work), Arc::clone(&working), shutdown.clone());
            self.all.spawn(async move {
                let work = |own: CancellationToken| {
                    let (at_work, shown) = (Arc::clone(&at_work), Arc::clone(&shown));
                    async move {
                        assert_eq!(at_work.fetch_add(1, Ordering::SeqCst), 0, "two work at a time");
                        shown.store(true, Ordering::SeqCst);
                        own.cancelled().await;
                        shown.store(false, Ordering::SeqCst);
                        at_work.fetch_sub(1, Ordering::SeqCst);
                        Ok(())
                    }
                };
                while_elected(client, "kube-scheduler", ends, work).await
            });
            Program { cut, working, shutdown }
        }
    }

    async fn after(seconds: u64) {
        sleep(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn one_works_and_another_goes_on_when_it_ends_or_is_cut_off() {
        let mut programs = Programs::default();
        let first = programs.start();
        after(1).await;
        let second = programs.start();
        after(120).await;
        let works = |program: &Program| program.working.load(Ordering::SeqCst);
        assert_eq!((works(&first), works(&second)), (true, false));
        assert_eq!(programs.server.spec("leaseTransitions"), 0);

        // Who ends gives the Lease back: nobody waits for its time to be over.
        first.shutdown.cancel();
        after(3).await;
        assert_eq!((works(&first), works(&second)), (false, true));
        assert_eq!(programs.server.spec("leaseTransitions"), 1);

        // Who is cut off stops in time, and another begins when the Lease's time is over.
        let third = programs.start();
        second.cut.store(true, Ordering::SeqCst);
        after(11).await;
        assert_eq!((works(&second), works(&third)), (false, false));
        after(7).await;
        assert_eq!((works(&second), works(&third)), (false, true));

        // When it is back it waits like any other.
        second.cut.store(false, Ordering::SeqCst);
        after(60).await;
        assert_eq!((works(&second), works(&third)), (false, true));
        third.shutdown.cancel();
        after(3).await;
        assert_eq!((works(&second), works(&third)), (true, false));
        second.shutdown.cancel();
        while let Some(ended) = programs.all.join_next().await {
            ended.unwrap().unwrap();
        }
        assert_eq!(programs.server.spec("holderIdentity"), "");
    }

    #[test]
    fn a_lease_is_free_when_nobody_holds_it_or_its_time_is_over() {
        let spec = |holder: &str| LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(15),
            ..LeaseSpec::default()
        };
        for (spec, unchanged, free) in [
            (LeaseSpec::default(), 0, true),
            (spec(""), 0, true),
            (spec("own"), 0, true),
            (spec("other"), 0, false),
            (spec("other"), 14, false),
            (spec("other"), 15, true),
            (LeaseSpec { lease_duration_seconds: Some(-1), ..spec("other") }, 0, true),
        ] {
            assert_eq!(is_free(&spec, "own", Duration::from_secs(unchanged)), free, "{spec:?} after {unchanged} s");
        }
    }
}
