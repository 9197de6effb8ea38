//! One task per pod: asks the planner, takes the steps, watches what happens, writes the status.
//!
//! The worker owns everything it starts (jobs, probers) in join sets; when it returns, nothing of it runs. What it was
//! told last lies in a watch channel ([`Desired`]), so it always sees the newest state and never a queue of old ones.

mod changes;
mod facts_from;
mod held;
mod jobs;
mod outcomes;
mod probing;
mod steps;
mod takeover;
mod waiting;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use coracle_runtime::{Sandbox, SandboxId, SandboxStatus};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Pod};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::backoff::{self, Backoffs};
use super::facts::{Ending, Facts};
use super::probe::Report;
use super::resize::{self, Granted};
use super::{admission, environment, plan, preemption, resources, status};
use crate::context::{Context, Entry};
use crate::event::Kind;
use crate::eviction::{Cause, Eviction};
use crate::figures::Probes;
use held::Held;
use jobs::Done;

/// Probe reports that wait for the worker; a prober with more waits itself.
const REPORTS: usize = 16;
/// How long after a configuration error the container is tried again, unless what it needs changes before.
const CONFIG_RETRY: SignedDuration = SignedDuration::from_secs(10);
/// How long a critical pod waits for those that make room for it: longer than pods usually take to end.
const ROOM_PATIENCE: Duration = Duration::from_secs(90);
/// How long nothing is told of a changed container that has ended and is being started again. Kubelet says nothing until it
/// runs, since both are one step of it; one whose image is still pulled after this time is shown as it is.
const ANEW: SignedDuration = SignedDuration::from_secs(5);
/// How long after a status that could not be written it is tried again.
const STATUS_RETRY: SignedDuration = SignedDuration::from_secs(2);

/// What the worker is told.
#[derive(Clone, Debug)]
pub(crate) struct Desired {
    /// The newest pod.
    pub(crate) pod: Arc<Pod>,
    /// The uid of the object that shows a static pod, if there is one.
    pub(crate) mirror: Option<String>,
    /// It is gone from the API server, or its manifest is.
    pub(crate) gone: bool,
    /// It takes too much of the node, or the node has too little.
    pub(crate) evicted: Option<Eviction>,
    /// The agent is going down and stops its pods; each container gets at most these seconds.
    pub(crate) shutdown: Option<i64>,
    /// Counts what happened in the runtime, so that a change is seen.
    pub(crate) pokes: u64,
}

/// The task of one pod.
pub(crate) struct Worker {
    context: Arc<Context>,
    uid: String,
    /// The pod with the resources it was granted.
    pod: Arc<Pod>,
    /// The pod as the API server has it.
    asked: Arc<Pod>,
    /// What shows it, if it is a static one.
    mirror: Option<String>,
    granted: Granted,
    facts: Facts,
    sandbox: Option<Sandbox>,
    /// Every sandbox of the pod that may still have something on the host.
    sandboxes: BTreeSet<SandboxId>,
    volumes: BTreeMap<String, PathBuf>,
    held: Held,
    jobs: JoinSet<Done>,
    probers: JoinSet<()>,
    probing: BTreeMap<String, AbortHandle>,
    /// What the probes of each container said, over all attempts.
    probes: BTreeMap<String, Arc<Probes>>,
    reports: (mpsc::Sender<Report>, mpsc::Receiver<Report>),
    cancel: CancellationToken,
    pulls: Backoffs,
    mounts: Backoffs,
    told: BTreeMap<String, u32>,
    pull_failed: BTreeMap<String, Timestamp>,
    status_busy: bool,
    status_not_before: Option<Timestamp>,
    /// Until when nothing is told of changed containers that are being started again, by name.
    anew: BTreeMap<String, Timestamp>,
    refresh_tokens: Option<Timestamp>,
    volumes_busy: bool,
    /// What the volumes show has changed since they were written, or their tokens are old.
    volumes_stale: bool,
    /// The grace period that was told last, in seconds, once the pod ends.
    grace: Option<i64>,
    /// When stops under way become kills, after a later and shorter grace period.
    deadline: watch::Sender<Option<Instant>>,
    confirming: bool,
    recovering: bool,
    finished: bool,
    /// When the first container was stopped because the pod ends.
    ends_since: Option<Instant>,
    resize_busy: bool,
    /// When a resize that failed is tried again.
    resize_not_before: Option<Timestamp>,
    /// When it was first seen, until it runs; of one that ran before the agent began that is not known.
    seen: Option<Instant>,
    /// Tells when other pods leave room.
    freed: watch::Receiver<()>,
}

/// Runs the pod until nothing of it is left, or until the worker is told to leave it (`leave`).
pub(crate) async fn run(
    context: Arc<Context>,
    found: Vec<SandboxStatus>,
    mut desired: watch::Receiver<Desired>,
    leave: CancellationToken,
) {
    let pod = Arc::clone(&desired.borrow_and_update().pod);
    let mut worker = Worker::new(context, pod, found);
    worker.begin().await;
    worker.work(desired, leave).await;
    worker.close().await;
}

impl Worker {
    fn new(context: Arc<Context>, pod: Arc<Pod>, found: Vec<SandboxStatus>) -> Self {
        let granted = Granted::recovered(&pod);
        let mut worker = Self {
            uid: super::uid(&pod).to_owned(),
            freed: context.table.freed(),
            context,
            pod: resize::with(&pod, &granted),
            asked: pod,
            mirror: None,
            granted,
            seen: found.is_empty().then(Instant::now),
            ends_since: None,
            resize_busy: false,
            resize_not_before: None,
            facts: Facts::default(),
            sandbox: None,
            sandboxes: found.iter().map(|s| s.id.clone()).collect(),
            volumes: BTreeMap::new(),
            held: Held::default(),
            jobs: JoinSet::new(),
            probers: JoinSet::new(),
            probing: BTreeMap::new(),
            probes: BTreeMap::new(),
            reports: mpsc::channel(REPORTS),
            cancel: CancellationToken::new(),
            pulls: Backoffs::default(),
            mounts: Backoffs::default(),
            told: BTreeMap::new(),
            pull_failed: BTreeMap::new(),
            status_busy: false,
            status_not_before: None,
            anew: BTreeMap::new(),
            refresh_tokens: None,
            volumes_busy: false,
            volumes_stale: false,
            grace: None,
            deadline: watch::Sender::new(None),
            confirming: false,
            recovering: false,
            finished: false,
        };
        worker.recover(&found);
        worker
    }

    /// Admits a new pod, or sets a found one's sandbox up again (which finds it as it is).
    async fn begin(&mut self) {
        self.hold();
        let new = self.sandboxes.is_empty() && self.facts.attempts.is_empty();
        let over = plan::is_over(&self.pod, &self.facts);
        let going = self.pod.metadata.deletion_timestamp.is_some();
        let requests = resources::pod_requests(&self.pod);
        let entry = Entry {
            pod: Arc::clone(&self.pod),
            sandbox: None,
            attempts: BTreeMap::new(),
            requests,
            over: over || going,
        };
        let context = Arc::clone(&self.context);
        let node = self.node().await;
        if new && !over && !going {
            self.make_room(&node).await;
        }
        let refusal = context.table.with(|table| {
            let room = self.room_in(table);
            let refusal = if new && !over && !going { admission::admit(&self.pod, &node, &room).err() } else { None };
            table.insert(self.uid.clone(), Entry { over: entry.over || refusal.is_some(), ..entry });
            refusal
        });
        context.table.tell_came();
        if let Some(refusal) = refusal {
            let reason = refusal.event();
            context.figures.rejected(reason);
            let message = format!("Pod was rejected: {}", refusal.message);
            self.event(None, Kind::Warning, reason, refusal.message);
            self.facts.ending = Some(Ending::Failed { reason: refusal.reason, message, grace: None });
            self.facts.torn_down = true;
        } else if self.recovering {
            self.take_over().await;
        }
    }

    /// Sends other pods away if this one is critical and only lacks room, and waits until they are gone, or too long.
    async fn make_room(&mut self, node: &Node) {
        const WHY: &str = "Preempted in order to admit critical pod";
        let context = Arc::clone(&self.context);
        let victims = context.table.with(|table| {
            let room = self.room_in(table);
            // Nobody goes for a pod that would be refused for another reason all the same.
            let roomy = admission::Room { used: resources::Amounts::new(), pods: 0, ..room.clone() };
            admission::admit(&self.pod, node, &roomy).ok()?;
            let others = table.values().filter(|entry| !entry.over).map(|entry| &*entry.pod);
            preemption::victims(&self.pod, others, &admission::shortage(&self.pod, &room))
        });
        let Some(victims) = victims else { return };
        for uid in &victims {
            let eviction = Eviction { uid: uid.clone(), message: WHY.to_owned(), cause: Cause::Preempted };
            if context.evict.send(eviction).await.is_err() {
                return;
            }
        }
        let gone = || context.table.with(|table| victims.iter().all(|uid| table.get(uid).is_none_or(|e| e.over)));
        let all_gone = async { while !gone() && self.freed.changed().await.is_ok() {} };
        if tokio::time::timeout(ROOM_PATIENCE, all_gone).await.is_err() {
            tracing::warn!(
                pod = super::key(&self.pod),
                "pods that were to make room for a critical one have not ended"
            );
        }
    }

    /// The node, looked at anew if the pod seems to want another one: its labels may have changed since it was last seen,
    /// and the scheduler knows them sooner.
    async fn node(&self) -> Arc<Node> {
        let node = self.context.node();
        match admission::matches_node(&self.pod, &node) {
            true => node,
            false => crate::node::look(&self.context).await,
        }
    }

    async fn work(&mut self, mut desired: watch::Receiver<Desired>, leave: CancellationToken) {
        loop {
            let begin = Instant::now();
            let told = desired.borrow_and_update().clone();
            self.hear(&told);
            self.refresh().await;
            let now = Timestamp::now();
            self.sync_images();
            self.sync_resize(now);
            self.sync_probes();
            self.sync_waiting(now);
            self.sync_volumes();
            let plan = if self.recovering && self.facts.ending.is_none() {
                // Nothing is decided before the pod is set up again as it was.
                if let Some(attempt) = self.facts.sandbox.as_ref().map(|s| s.attempt)
                    && !self.facts.sandbox_busy
                {
                    self.set_up(attempt);
                }
                plan::Plan::default()
            } else {
                plan::plan(&self.pod, &self.facts, now)
            };
            for action in plan.actions {
                self.take(action, now).await;
            }
            self.publish();
            self.write_status(now, told.shutdown.is_some());
            if self.finished || (told.shutdown.is_some() && self.facts.torn_down) {
                return;
            }
            let due =
                [plan.wake, self.pull_wake(now), self.status_not_before, self.refresh_tokens, self.resize_not_before];
            let wake = due.into_iter().flatten().chain(self.anew.values().copied()).min();
            let timer = sleep_until(wake, now);
            self.context.figures.passed(begin.elapsed());
            tokio::select! {
                () = leave.cancelled() => return,
                changed = desired.changed() => if changed.is_err() { return },
                Some(done) = self.jobs.join_next() => self.finish(done).await,
                Some(report) = self.reports.1.recv() => self.report(&report),
                () = self.held.changed() => self.objects_changed(),
                Ok(()) = self.freed.changed(), if self.facts.resize.pending.is_some() => {}
                Some(_) = self.probers.join_next() => {}
                () = timer => self.timer().await,
            }
        }
    }

    /// Ends what still runs and waits for it.
    async fn close(&mut self) {
        self.cancel.cancel();
        self.probers.shutdown().await;
        self.jobs.shutdown().await;
        if self.finished || self.facts.torn_down {
            self.context.devices.release(&self.uid);
        }
        self.context.table.with(|table| table.remove(&self.uid));
        self.context.table.room_freed();
    }

    fn event(&self, container: Option<&str>, kind: Kind, reason: &'static str, message: String) {
        self.context.events.pod(&self.pod, container, kind, reason, message);
    }

    /// Notes the grace period. One that is shorter than the one before counts from now on, for stops under way too.
    fn shorten(&mut self, seconds: i64) {
        if self.grace.is_some_and(|before| seconds < before) {
            let at = Instant::now() + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
            self.deadline.send_modify(|deadline| *deadline = Some(deadline.map_or(at, |before| before.min(at))));
        }
        self.grace = Some(self.grace.map_or(seconds, |before| before.min(seconds)));
    }

    /// Watches what the pod refers to.
    fn hold(&mut self) {
        let needs = environment::needs(&self.pod);
        let namespace = super::namespace(&self.pod);
        for name in needs.config_maps {
            let cache = &self.context.objects;
            self.held.config_maps.entry(name.clone()).or_insert_with(|| cache.config_map(namespace, &name));
        }
        for name in needs.secrets {
            let cache = &self.context.objects;
            self.held.secrets.entry(name.clone()).or_insert_with(|| cache.secret(namespace, &name));
        }
    }

    fn hear(&mut self, told: &Desired) {
        self.mirror.clone_from(&told.mirror);
        if newer(&told.pod, &self.asked) && !Arc::ptr_eq(&told.pod, &self.asked) {
            self.accept(Arc::clone(&told.pod));
            // An ephemeral container may refer to something new.
            self.hold();
        }
        let ending = if let Some(grace) = told.shutdown {
            Some(Ending::Shutdown { grace: grace.min(plan::grace(&self.pod)) })
        } else if told.gone {
            Some(Ending::Gone)
        } else if self.pod.metadata.deletion_timestamp.is_some() {
            let grace = self.pod.metadata.deletion_grace_period_seconds.unwrap_or_else(|| plan::grace(&self.pod));
            Some(Ending::Deleted { grace })
        } else {
            told.evicted.as_ref().and_then(|eviction| self.evicted(eviction))
        };
        if let Some(ending) = ending {
            let removes = matches!(ending, Ending::Deleted { .. } | Ending::Gone);
            if removes && matches!(self.facts.ending, Some(Ending::Failed { .. })) {
                // What was only stopped is now to be removed.
                self.facts.torn_down = self.sandboxes.is_empty() && self.facts.sandbox.is_none();
            }
            self.shorten(plan::ending_grace(&self.pod, Some(&ending)));
            self.facts.ending = Some(ending);
            self.cancel.cancel();
        }
    }

    /// How a pod ends that is evicted; one that is over or ending anyway is not.
    fn evicted(&mut self, eviction: &Eviction) -> Option<Ending> {
        if self.facts.ending.is_some() || plan::is_over(&self.pod, &self.facts) {
            return None;
        }
        let Eviction { message, cause, .. } = eviction;
        self.context.figures.evicted(*cause);
        if cause.is_told() {
            self.event(None, Kind::Warning, cause.reason(), message.clone());
        }
        self.facts.disrupted = cause.disruption(message);
        Some(Ending::Failed {
            reason: cause.reason().into(),
            message: message.clone(),
            grace: cause.grace(plan::grace(&self.pod)),
        })
    }

    /// Shows the server and admission how things are.
    fn publish(&self) {
        let over = plan::is_over(&self.pod, &self.facts) || matches!(self.facts.ending, Some(Ending::Failed { .. }));
        let over = over && !self.facts.any_alive();
        let (was, known) = self.context.table.with(|table| {
            let Some(entry) = table.get_mut(&self.uid) else { return (None, false) };
            let known = super::is_terminal(&self.pod) && !super::is_terminal(&entry.pod);
            entry.pod = Arc::clone(&self.pod);
            entry.sandbox.clone_from(&self.sandbox);
            entry.attempts.clone_from(&self.facts.attempts);
            (Some(std::mem::replace(&mut entry.over, over)), known)
        });
        if over && was == Some(false) {
            self.context.devices.release(&self.uid);
        }
        if (over && was == Some(false)) || known {
            self.context.table.room_freed();
        }
    }

    /// Writes the status when it differs from what the API server has.
    fn write_status(&mut self, now: Timestamp, shutdown: bool) {
        let gone = matches!(self.facts.ending, Some(Ending::Gone));
        if self.status_busy
            || (self.recovering && self.facts.ending.is_none())
            || gone
            || shutdown
            || self.confirming
            || self.finished
        {
            return;
        }
        if self.status_not_before.is_some_and(|at| now < at) {
            return;
        }
        if self.facts.ending.is_none() && self.anew.values().any(|until| now < *until) {
            return;
        }
        // The status of a static pod is told as its mirror's.
        let object = if super::is_static(&self.pod) { self.mirror.as_deref() } else { Some(self.uid.as_str()) };
        let Some(object) = object else { return };
        let new = status::compute(&self.pod, &self.facts, &self.context.host, now);
        if new.phase.as_deref() == Some("Running")
            && let Some(seen) = self.seen.take()
        {
            self.context.figures.pod_runs(seen.elapsed());
        }
        if let Some(patch) = status::patch(&self.pod, object, &new) {
            self.status_busy = true;
            self.jobs.spawn(jobs::write_status(self.context.client.clone(), Arc::clone(&self.pod), patch));
        }
    }
}

fn later(now: Timestamp, by: SignedDuration) -> Timestamp {
    now.saturating_add(by).unwrap_or(now)
}

/// Whether `pod` is as new as `than` or newer. Resource versions of one server are numbers that grow.
fn newer(pod: &Pod, than: &Pod) -> bool {
    let version = |p: &Pod| p.metadata.resource_version.as_deref().and_then(|v| v.parse::<u64>().ok());
    match (version(pod), version(than)) {
        (Some(a), Some(b)) => a >= b,
        _ => true,
    }
}

async fn sleep_until(at: Option<Timestamp>, now: Timestamp) {
    match at {
        Some(at) => {
            let wait = at.duration_since(now).max(SignedDuration::from_millis(1));
            tokio::time::sleep(wait.unsigned_abs()).await;
        }
        None => std::future::pending().await,
    }
}

/// The back-off's first delay, which [`backoff`] owns; named here so that the two cannot drift apart unseen.
const _: () = assert!(backoff::FIRST.as_secs() == CONFIG_RETRY.as_secs());
