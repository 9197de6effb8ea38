//! One task per pod: asks the planner, takes the steps, watches what happens, writes the status.
//!
//! The worker owns everything it starts (jobs, probers) in join sets; when it returns, nothing of it runs. What it was
//! told last lies in a watch channel ([`Desired`]), so it always sees the newest state and never a queue of old ones.

mod facts_from;
mod jobs;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use coracle_runtime::{ContainerId, Sandbox, SandboxId, SandboxStatus};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::backoff::{self, Backoffs};
use super::environment::{self, Objects};
use super::facts::{Doom, Ending, Facts, Phase, Probed, Waiting};
use super::lifecycle::InContainer;
use super::plan::{self, Action};
use super::probe::{self, Kind as ProbeKind, Outcome, Report, Target};
use super::start::{Failure, Start};
use super::{admission, resources, spec, status};
use crate::context::{Context, Entry};
use crate::event::Kind;
use crate::objects::State;
use jobs::{Done, SandboxFailure};

/// Probe reports that wait for the worker; a prober with more waits itself.
const REPORTS: usize = 16;
/// How long a failed pull shows its error before it shows that it is waiting.
const PULL_SHOWN: SignedDuration = SignedDuration::from_secs(3);
/// How long after a configuration error the container is tried again, unless what it needs changes before.
const CONFIG_RETRY: SignedDuration = SignedDuration::from_secs(10);
/// How long after a status that could not be written it is tried again.
const STATUS_RETRY: SignedDuration = SignedDuration::from_secs(2);

/// What the worker is told.
#[derive(Clone, Debug)]
pub(crate) struct Desired {
    /// The newest pod.
    pub(crate) pod: Arc<Pod>,
    /// It is gone from the API server.
    pub(crate) gone: bool,
    /// The agent is going down and stops its pods; each container gets at most these seconds.
    pub(crate) shutdown: Option<i64>,
    /// Counts what happened in the runtime, so that a change is seen.
    pub(crate) pokes: u64,
}

/// The task of one pod.
pub(crate) struct Worker {
    context: Arc<Context>,
    uid: String,
    pod: Arc<Pod>,
    facts: Facts,
    sandbox: Option<Sandbox>,
    /// Every sandbox of the pod that may still have something on the host.
    sandboxes: BTreeSet<SandboxId>,
    volumes: BTreeMap<String, PathBuf>,
    held: Held,
    jobs: JoinSet<Done>,
    probers: JoinSet<()>,
    probing: BTreeMap<String, AbortHandle>,
    reports: (mpsc::Sender<Report>, mpsc::Receiver<Report>),
    cancel: CancellationToken,
    pulls: Backoffs,
    mounts: Backoffs,
    told: BTreeMap<String, u32>,
    pull_failed: BTreeMap<String, Timestamp>,
    status_busy: bool,
    status_not_before: Option<Timestamp>,
    refresh_tokens: Option<Timestamp>,
    volumes_busy: bool,
    confirming: bool,
    recovering: bool,
    finished: bool,
}

/// The objects the pod refers to, watched while the worker lives.
#[derive(Default)]
struct Held {
    config_maps: BTreeMap<String, watch::Receiver<State<ConfigMap>>>,
    secrets: BTreeMap<String, watch::Receiver<State<Secret>>>,
}

impl Held {
    /// Ends when any of them changes; never when there is none.
    async fn changed(&mut self) {
        let maps = self.config_maps.values_mut().map(|r| Box::pin(change(r)) as Changed<'_>);
        let secrets = self.secrets.values_mut().map(|r| Box::pin(change(r)) as Changed<'_>);
        let all: Vec<Changed<'_>> = maps.chain(secrets).collect();
        if all.is_empty() {
            return std::future::pending().await;
        }
        futures::future::select_all(all).await;
    }

    /// The objects as they are; `None` while the API server has not answered for all of them.
    fn objects(&mut self) -> Option<Objects> {
        let mut objects = Objects::default();
        for (name, receiver) in &mut self.config_maps {
            match &*receiver.borrow_and_update() {
                State::Unknown => return None,
                State::Missing => {}
                State::Present(map) => {
                    objects.config_maps.insert(name.clone(), (**map).clone());
                }
            }
        }
        for (name, receiver) in &mut self.secrets {
            match &*receiver.borrow_and_update() {
                State::Unknown => return None,
                State::Missing => {}
                State::Present(secret) => {
                    objects.secrets.insert(name.clone(), (**secret).clone());
                }
            }
        }
        Some(objects)
    }
}

/// Ends when the value changes; a watch that has ended changes nothing any more.
async fn change<K>(receiver: &mut watch::Receiver<State<K>>) {
    if receiver.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

type Changed<'a> = std::pin::Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

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
        let mut worker = Self {
            uid: super::uid(&pod).to_owned(),
            context,
            pod,
            facts: Facts::default(),
            sandbox: None,
            sandboxes: found.iter().map(|s| s.id.clone()).collect(),
            volumes: BTreeMap::new(),
            held: Held::default(),
            jobs: JoinSet::new(),
            probers: JoinSet::new(),
            probing: BTreeMap::new(),
            reports: mpsc::channel(REPORTS),
            cancel: CancellationToken::new(),
            pulls: Backoffs::default(),
            mounts: Backoffs::default(),
            told: BTreeMap::new(),
            pull_failed: BTreeMap::new(),
            status_busy: false,
            status_not_before: None,
            refresh_tokens: None,
            volumes_busy: false,
            confirming: false,
            recovering: false,
            finished: false,
        };
        worker.recover(&found);
        worker
    }

    /// Takes over what an earlier agent left: the newest living sandbox goes on, counts and ends are remembered.
    fn recover(&mut self, found: &[SandboxStatus]) {
        self.facts.attempts = facts_from::status(&self.pod);
        self.facts.probed = facts_from::probed(&self.pod);
        let mut sorted: Vec<&SandboxStatus> = found.iter().collect();
        sorted.sort_by_key(|s| s.spec.attempt);
        for sandbox in &sorted {
            let seen = facts_from::containers(
                &self.pod,
                &self.context,
                sandbox.spec.attempt,
                &sandbox.containers,
                &self.facts,
            );
            facts_from::merge(&mut self.facts.attempts, seen);
        }
        if let Some(newest) = sorted.last() {
            self.facts.sandbox =
                Some(super::facts::Sandbox { attempt: newest.spec.attempt, ready: false, ips: Vec::new() });
            self.recovering = newest.alive;
        }
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
        let node = context.node();
        let refusal = context.table.with(|table| {
            let mut room = admission::Room {
                allocatable: context.allocatable.clone(),
                max_pods: context.config.max_pods,
                ..admission::Room::default()
            };
            for other in table.iter().filter(|(uid, e)| **uid != self.uid && !e.over).map(|(_, e)| e) {
                room.pods += 1;
                for (name, amount) in &other.requests {
                    *room.used.entry(name.clone()).or_default() += amount;
                }
            }
            let refusal = if new && !over && !going { admission::admit(&self.pod, &node, &room).err() } else { None };
            table.insert(self.uid.clone(), Entry { over: entry.over || refusal.is_some(), ..entry });
            refusal
        });
        if let Some(refusal) = refusal {
            let reason: &'static str = match refusal.reason.as_str() {
                "OutOfcpu" => "OutOfcpu",
                "OutOfmemory" => "OutOfmemory",
                "OutOfpods" => "OutOfpods",
                "NodeAffinity" => "NodeAffinity",
                _ => "UnexpectedAdmissionError",
            };
            self.event(None, Kind::Warning, reason, refusal.message.clone());
            self.facts.ending = Some(Ending::Failed { reason: refusal.reason, message: refusal.message });
            self.facts.torn_down = true;
        } else if self.recovering {
            self.take_over().await;
        }
    }

    /// Finds the handle and the addresses of a sandbox that an earlier agent made.
    async fn take_over(&mut self) {
        let Some(sandbox) = &mut self.facts.sandbox else { return };
        let id = SandboxId::of(&self.uid, sandbox.attempt);
        match self.context.runtime.sandbox(&id).await {
            Ok(handle) => {
                if let Ok(Some(attachment)) = self.context.network.attachment(&self.uid).await {
                    sandbox.ips = vec![std::net::IpAddr::V4(attachment.ip)];
                }
                sandbox.ready = true;
                self.sandbox = Some(handle);
            }
            Err(_) => self.recovering = false,
        }
    }

    async fn work(&mut self, mut desired: watch::Receiver<Desired>, leave: CancellationToken) {
        loop {
            let told = desired.borrow_and_update().clone();
            self.hear(&told);
            self.refresh().await;
            let now = Timestamp::now();
            self.sync_probes();
            self.sync_waiting(now);
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
            let wake = [plan.wake, self.pull_wake(now), self.status_not_before, self.refresh_tokens]
                .into_iter()
                .flatten()
                .min();
            let timer = sleep_until(wake, now);
            tokio::select! {
                () = leave.cancelled() => return,
                changed = desired.changed() => if changed.is_err() { return },
                Some(done) = self.jobs.join_next() => self.finish(done).await,
                Some(report) = self.reports.1.recv() => self.report(&report),
                () = self.held.changed() => self.objects_changed(),
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
        self.context.table.with(|table| table.remove(&self.uid));
    }

    fn event(&self, container: Option<&str>, kind: Kind, reason: &'static str, message: String) {
        self.context.events.pod(&self.pod, container, kind, reason, message);
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
        if newer(&told.pod, &self.pod) {
            self.pod = Arc::clone(&told.pod);
        }
        let ending = if let Some(grace) = told.shutdown {
            Some(Ending::Shutdown { grace: grace.min(plan::grace(&self.pod)) })
        } else if told.gone {
            Some(Ending::Gone)
        } else if self.pod.metadata.deletion_timestamp.is_some() {
            let grace = self.pod.metadata.deletion_grace_period_seconds.unwrap_or_else(|| plan::grace(&self.pod));
            Some(Ending::Deleted { grace })
        } else {
            None
        };
        if let Some(ending) = ending {
            if !matches!(ending, Ending::Shutdown { .. }) && matches!(self.facts.ending, Some(Ending::Failed { .. })) {
                // What was only stopped is now to be removed.
                self.facts.torn_down = self.sandboxes.is_empty() && self.facts.sandbox.is_none();
            }
            self.facts.ending = Some(ending);
            self.cancel.cancel();
        }
    }

    /// Asks the runtime how the containers are.
    async fn refresh(&mut self) {
        let Some(sandbox) = self.sandbox.clone() else { return };
        let Some(attempt) = self.facts.sandbox.as_ref().map(|s| s.attempt) else { return };
        match sandbox.containers().await {
            Ok(containers) => {
                let seen = facts_from::containers(&self.pod, &self.context, attempt, &containers, &self.facts);
                facts_from::merge(&mut self.facts.attempts, seen);
            }
            Err(error) if error.is_not_found() => self.sandbox_died(attempt).await,
            Err(error) => {
                tracing::warn!(
                    pod = super::key(&self.pod),
                    error = &error as &dyn std::error::Error,
                    "containers not read"
                );
            }
        }
    }

    /// The supervisor is gone and took the containers along: their ends are on disk.
    async fn sandbox_died(&mut self, attempt: u32) {
        self.sandbox = None;
        let dead = match self.context.runtime.list().await {
            Ok(list) => list.into_iter().find(|s| s.spec.pod_uid == self.uid && s.spec.attempt == attempt),
            Err(_) => None,
        };
        if let Some(dead) = dead {
            let seen = facts_from::containers(&self.pod, &self.context, attempt, &dead.containers, &self.facts);
            facts_from::merge(&mut self.facts.attempts, seen);
        }
        facts_from::lose(&mut self.facts.attempts, attempt, Timestamp::now());
        if let Some(sandbox) = &mut self.facts.sandbox {
            sandbox.ready = false;
        }
        if self.facts.ending.is_none() && !plan::is_over(&self.pod, &self.facts) {
            let message = "Pod sandbox changed, it will be killed and re-created.".to_owned();
            self.event(None, Kind::Normal, "SandboxChanged", message);
        }
    }

    /// Begins and ends probers as containers begin and end.
    fn sync_probes(&mut self) {
        let mut running = BTreeSet::new();
        for container in spec(&self.pod).all() {
            let Some(attempt) = self.facts.current(&container.name).filter(|a| a.phase == Phase::Running) else {
                continue;
            };
            let id = attempt.id.clone();
            running.insert(id.clone());
            let known = self.facts.probed.get(&container.name).is_some_and(|p| p.id == id);
            if !known {
                let started = container.startup_probe.is_none();
                let ready = started && container.readiness_probe.is_none();
                self.facts.probed.insert(container.name.clone(), Probed { started, ready, id: id.clone() });
            }
            if probe::is_probed(container)
                && !self.probing.contains_key(&id)
                && self.facts.ending.is_none()
                && let (Some(sandbox), Some(container_id)) = (&self.sandbox, ContainerId::parse(&id))
            {
                let ip = self.probe_ip();
                let target = Target { container: container.clone(), id: id.clone(), ip };
                let commands = InContainer { sandbox: sandbox.clone(), id: container_id };
                let reports = self.reports.0.clone();
                let handle = self.probers.spawn(async move { probe::run(&target, &commands, reports).await });
                self.probing.insert(id, handle);
            }
        }
        let ending = self.facts.ending.is_some();
        self.probing.retain(|id, handle| {
            let keep = running.contains(id) && !ending;
            if !keep {
                handle.abort();
            }
            keep
        });
    }

    fn probe_ip(&self) -> Option<std::net::IpAddr> {
        if spec(&self.pod).host_network() {
            return self.context.host.ips.first().copied();
        }
        self.facts.sandbox.as_ref().and_then(|s| s.ips.first().copied())
    }

    fn report(&mut self, report: &Report) {
        let Some(container) = spec(&self.pod).container(&report.container).cloned() else { return };
        let name = &container.name;
        let kind = report.kind.as_str();
        if self.facts.ending.is_some() {
            return;
        }
        match &report.failure {
            Some(Outcome::Failure(why)) => {
                let why = why.chars().take(1024).collect::<String>();
                self.event(Some(name), Kind::Warning, "Unhealthy", format!("{kind} probe failed: {why}"));
            }
            Some(Outcome::Error(why)) => {
                let message = format!("{kind} probe errored and resulted in unknown state: {why}");
                self.event(Some(name), Kind::Warning, "Unhealthy", message);
            }
            Some(Outcome::Success) | None => {}
        }
        let Some(probed) = self.facts.probed.get_mut(name).filter(|p| p.id == report.id) else { return };
        match (report.kind, report.verdict) {
            (ProbeKind::Startup, Some(true)) => {
                probed.started = true;
                probed.ready = container.readiness_probe.is_none();
            }
            (ProbeKind::Readiness, Some(verdict)) => probed.ready = verdict,
            (ProbeKind::Startup | ProbeKind::Liveness, Some(false)) => {
                let (probe, word) = if report.kind == ProbeKind::Startup {
                    (container.startup_probe.as_ref(), "startup")
                } else {
                    (container.liveness_probe.as_ref(), "liveness")
                };
                let doom = Doom {
                    id: report.id.clone(),
                    message: format!("Container {name} failed {word} probe, will be restarted"),
                    grace: probe.and_then(|p| p.termination_grace_period_seconds),
                };
                self.facts.doomed.insert(name.clone(), doom);
            }
            (_, None) | (ProbeKind::Liveness, Some(true)) => {}
        }
    }

    /// A pull that failed shows its error for a while, then that it is waiting.
    fn sync_waiting(&mut self, now: Timestamp) {
        let due: Vec<String> = self
            .pull_failed
            .iter()
            .filter(|(_, at)| now.duration_since(**at) >= PULL_SHOWN)
            .map(|(name, _)| name.clone())
            .collect();
        for name in due {
            self.pull_failed.remove(&name);
            let Some(waiting) = self.facts.waiting.get(&name).filter(|w| w.reason == "ErrImagePull") else { continue };
            let image = spec(&self.pod).container(&name).and_then(|c| c.image.clone()).unwrap_or_default();
            let message = format!("Back-off pulling image \"{image}\": ErrImagePull: {}", waiting.message);
            self.event(Some(&name), Kind::Normal, "BackOff", format!("Back-off pulling image \"{image}\""));
            self.event(Some(&name), Kind::Warning, "Failed", "Error: ImagePullBackOff".into());
            self.facts.waiting.insert(name, Waiting { reason: "ImagePullBackOff".into(), message });
        }
    }

    fn pull_wake(&self, now: Timestamp) -> Option<Timestamp> {
        self.pull_failed.values().min().map(|at| at.saturating_add(PULL_SHOWN).unwrap_or(now))
    }

    /// What the pod refers to changed: what waited for it is tried again, what shows it is written again.
    fn objects_changed(&mut self) {
        self.facts.sandbox_not_before = None;
        let waiting: Vec<String> = self
            .facts
            .waiting
            .iter()
            .filter(|(_, w)| w.reason == "CreateContainerConfigError")
            .map(|(name, _)| name.clone())
            .collect();
        for name in waiting {
            self.facts.not_before.remove(&name);
        }
        self.rewrite_volumes();
    }

    async fn timer(&mut self) {
        let now = Timestamp::now();
        if self.status_not_before.is_some_and(|at| at <= now) {
            self.status_not_before = None;
        }
        if self.refresh_tokens.is_some_and(|at| at <= now) {
            self.refresh_tokens = None;
            self.rewrite_volumes();
        }
    }

    /// Takes one step of the plan.
    async fn take(&mut self, action: Action, now: Timestamp) {
        match action {
            Action::CreateSandbox { attempt } => self.set_up(attempt),
            Action::Start { container, attempt, after } => self.start(&container, attempt, after, now),
            Action::Stop { container, id, grace, message } => self.stop(&container, &id, grace, message),
            Action::BackOff { container, delay } => {
                let message = plan::back_off_message(&self.pod, &container, delay);
                let waiting = Waiting { reason: "CrashLoopBackOff".into(), message };
                self.facts.waiting.insert(container.clone(), waiting);
                let ended = self.facts.last(&container).map_or(0, |a| a.attempt);
                if self.told.insert(container.clone(), ended) != Some(ended) {
                    let name = super::security::long_name(&self.pod);
                    let message = format!("Back-off restarting failed container {container} in pod {name}");
                    self.event(Some(&container), Kind::Warning, "BackOff", message);
                }
            }
            Action::TearDown => self.tear_down(),
            Action::Confirm => self.confirm(),
            Action::Fail { reason, message } => {
                self.event(None, Kind::Normal, "DeadlineExceeded", message.clone());
                self.facts.ending = Some(Ending::Failed { reason, message });
                self.cancel.cancel();
            }
        }
    }

    fn start(&mut self, name: &str, attempt: u32, after: Option<Timestamp>, now: Timestamp) {
        let (Some(sandbox), Some(container)) = (self.sandbox.clone(), spec(&self.pod).container(name).cloned()) else {
            return;
        };
        // Until the API server has told of every object, the watch wakes the worker.
        let Some(objects) = self.held.objects() else { return };
        if let Some(finished) = after {
            self.facts.crashes.next(name, finished, now);
        }
        self.facts.starting.insert(name.to_owned());
        self.facts.not_before.remove(name);
        self.facts.doomed.remove(name);
        let start = Start {
            context: Arc::clone(&self.context),
            pod: Arc::clone(&self.pod),
            sandbox,
            ips: self.facts.sandbox.as_ref().map(|s| s.ips.clone()).unwrap_or_default(),
            container,
            attempt,
            volumes: self.volumes.clone(),
            objects,
            cancel: self.cancel.clone(),
        };
        self.jobs.spawn(jobs::start(start));
    }

    fn stop(&mut self, name: &str, id: &str, grace: i64, message: String) {
        let (Some(sandbox), Some(container_id)) = (self.sandbox.clone(), ContainerId::parse(id)) else { return };
        self.facts.stopping.insert(id.to_owned());
        self.event(Some(name), Kind::Normal, "Killing", message);
        let container = spec(&self.pod).container(name).cloned().unwrap_or_default();
        let ip = self.probe_ip();
        let events = self.context.events.clone();
        self.jobs.spawn(jobs::stop(Arc::clone(&self.pod), events, sandbox, container, container_id, grace, ip));
    }

    fn set_up(&mut self, attempt: u32) {
        let Some(objects) = self.held.objects() else {
            return;
        };
        self.facts.sandbox_busy = true;
        self.sandboxes.insert(SandboxId::of(&self.uid, attempt));
        self.jobs.spawn(jobs::set_up(
            Arc::clone(&self.context),
            Arc::clone(&self.pod),
            objects,
            attempt,
            self.recovering,
        ));
    }

    fn rewrite_volumes(&mut self) {
        if self.volumes_busy || self.facts.sandbox_busy || self.sandbox.is_none() || self.facts.ending.is_some() {
            return;
        }
        let Some(objects) = self.held.objects() else { return };
        let ips = self.facts.sandbox.as_ref().map(|s| s.ips.clone()).unwrap_or_default();
        self.volumes_busy = true;
        self.jobs.spawn(jobs::rewrite(Arc::clone(&self.context), Arc::clone(&self.pod), objects, ips));
    }

    fn tear_down(&mut self) {
        self.facts.sandbox_busy = true;
        let keep_logs = matches!(self.facts.ending, Some(Ending::Shutdown { .. }));
        let only_stop = matches!(self.facts.ending, Some(Ending::Failed { .. }) | None);
        self.jobs.spawn(jobs::tear_down(
            Arc::clone(&self.context),
            Arc::clone(&self.pod),
            self.sandboxes.clone(),
            only_stop,
            keep_logs,
        ));
    }

    fn confirm(&mut self) {
        if matches!(self.facts.ending, Some(Ending::Gone)) {
            self.finished = true;
            return;
        }
        if self.confirming || self.status_busy || self.status_not_before.is_some() {
            return;
        }
        // The last status goes first: it says how the containers ended.
        let last = status::compute(&self.pod, &self.facts, &self.context.host, Timestamp::now());
        if status::patch(&self.pod, &last).is_some() {
            return;
        }
        self.confirming = true;
        self.jobs.spawn(jobs::confirm(self.context.client.clone(), Arc::clone(&self.pod)));
    }

    /// A job has ended.
    async fn finish(&mut self, done: Result<Done, tokio::task::JoinError>) {
        let now = Timestamp::now();
        let done = match done {
            Ok(done) => done,
            Err(error) => {
                // A job that panicked is a bug; the pod must not hang on it.
                tracing::error!(
                    pod = super::key(&self.pod),
                    error = &error as &dyn std::error::Error,
                    "pod job failed"
                );
                self.facts.starting.clear();
                self.facts.stopping.clear();
                self.facts.sandbox_busy = false;
                self.status_busy = false;
                self.volumes_busy = false;
                self.confirming = false;
                return;
            }
        };
        match done {
            Done::SetUp { attempt, result } => self.set_up_done(attempt, result, now),
            Done::Started { container, result } => self.started(&container, result, now).await,
            Done::Stopped { id } => {
                self.facts.stopping.remove(&id);
            }
            Done::Rewritten { result } => {
                self.volumes_busy = false;
                match result {
                    Ok((volumes, refresh)) => {
                        self.volumes = volumes;
                        self.refresh_tokens = refresh;
                    }
                    Err((volume, why)) => {
                        self.event(None, Kind::Warning, "FailedMount", mount_message(&volume, &why));
                        self.refresh_tokens = Some(later(now, CONFIG_RETRY));
                    }
                }
            }
            Done::TornDown { result, only_stop } => {
                self.facts.sandbox_busy = false;
                self.sandbox = None;
                match result {
                    Ok(()) if only_stop => {
                        if let Some(sandbox) = &mut self.facts.sandbox {
                            sandbox.ready = false;
                        }
                    }
                    Ok(()) => {
                        self.facts.torn_down = true;
                        self.facts.sandbox = None;
                        self.sandboxes.clear();
                    }
                    Err(why) => {
                        tracing::warn!(pod = super::key(&self.pod), why, "pod not removed yet");
                        self.event(None, Kind::Warning, "FailedKillPod", format!("error killing pod: {why}"));
                        self.facts.sandbox_busy = true;
                        self.jobs.spawn(jobs::wait_then_retry());
                    }
                }
            }
            Done::RetryTearDown => self.facts.sandbox_busy = false,
            Done::Status { result } => {
                self.status_busy = false;
                match result {
                    Ok(Some(pod)) => {
                        if newer(&pod, &self.pod) {
                            self.pod = Arc::new(pod);
                        }
                    }
                    // Gone, or another pod of the same name: the watch tells.
                    Ok(None) => self.status_not_before = Some(later(now, STATUS_RETRY)),
                    Err(why) => {
                        tracing::debug!(pod = super::key(&self.pod), why, "status not written");
                        self.status_not_before = Some(later(now, STATUS_RETRY));
                    }
                }
            }
            Done::Confirmed { result } => {
                self.confirming = false;
                match result {
                    Ok(()) => self.finished = true,
                    Err(why) => {
                        tracing::debug!(pod = super::key(&self.pod), why, "deletion not confirmed");
                        self.status_not_before = Some(later(now, STATUS_RETRY));
                    }
                }
            }
        }
    }

    fn set_up_done(&mut self, attempt: u32, result: Result<jobs::SetUp, SandboxFailure>, now: Timestamp) {
        self.facts.sandbox_busy = false;
        self.recovering = false;
        match result {
            Ok(made) => {
                self.mounts.reset("volumes");
                self.volumes = made.volumes;
                self.refresh_tokens = made.refresh_tokens;
                self.sandbox = Some(made.sandbox);
                self.facts.sandbox = Some(super::facts::Sandbox { attempt, ready: true, ips: made.ips });
                self.facts.sandbox_not_before = None;
            }
            Err(failure) => {
                match failure {
                    SandboxFailure::Volume { volume, why } => {
                        self.event(None, Kind::Warning, "FailedMount", mount_message(&volume, &why));
                    }
                    SandboxFailure::Sandbox { why } => {
                        let message = format!("Failed to create pod sandbox: {why}");
                        self.event(None, Kind::Warning, "FailedCreatePodSandBox", message);
                    }
                }
                let delay = self.mounts.next("volumes", now, now);
                // Volumes are tried again sooner than crashed containers: what they wait for is usually on its way.
                let delay = SignedDuration::from_millis(i64::try_from(delay.as_millis() / 10).unwrap_or(1000));
                self.facts.sandbox_not_before = Some(later(now, delay));
            }
        }
    }

    async fn started(&mut self, name: &str, result: Result<String, Failure>, now: Timestamp) {
        self.facts.starting.remove(name);
        match result {
            Ok(_) => {
                self.facts.waiting.remove(name);
                self.pull_failed.remove(name);
                self.pulls.reset(name);
                self.prune(name);
            }
            Err(Failure::Image(waiting)) => {
                let delay = self.pulls.next(name, now, now);
                self.facts.not_before.insert(name.to_owned(), later(now, delay));
                if waiting.reason == "ErrImagePull" {
                    self.pull_failed.insert(name.to_owned(), now);
                }
                self.facts.waiting.insert(name.to_owned(), waiting);
            }
            Err(Failure::Config(waiting)) => {
                self.facts.not_before.insert(name.to_owned(), later(now, CONFIG_RETRY));
                self.facts.waiting.insert(name.to_owned(), waiting);
            }
            Err(Failure::Run(waiting)) => {
                self.facts.waiting.insert(name.to_owned(), waiting);
                self.prune(name);
            }
            Err(Failure::PostStart { id, message }) => {
                self.facts.waiting.remove(name);
                self.facts.doomed.insert(name.to_owned(), Doom { id, message, grace: None });
            }
            Err(Failure::Cancelled) => {}
        }
    }

    /// Keeps a container's running attempt and the one before it; what is older is removed from the runtime.
    fn prune(&mut self, name: &str) {
        let Some(attempts) = self.facts.attempts.get_mut(name) else { return };
        let Some(sandbox) = &self.sandbox else { return };
        while attempts.len() > 2 {
            let old = attempts.remove(0);
            if let Some(id) = ContainerId::parse(&old.id) {
                self.jobs.spawn(jobs::forget(sandbox.clone(), id, old.log));
            }
        }
    }

    /// Shows the server and admission how things are.
    fn publish(&self) {
        let over = plan::is_over(&self.pod, &self.facts) || matches!(self.facts.ending, Some(Ending::Failed { .. }));
        self.context.table.with(|table| {
            if let Some(entry) = table.get_mut(&self.uid) {
                entry.pod = Arc::clone(&self.pod);
                entry.sandbox.clone_from(&self.sandbox);
                entry.attempts.clone_from(&self.facts.attempts);
                entry.over = over && !self.facts.any_alive();
            }
        });
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
        let new = status::compute(&self.pod, &self.facts, &self.context.host, now);
        if let Some(patch) = status::patch(&self.pod, &new) {
            self.status_busy = true;
            self.jobs.spawn(jobs::write_status(self.context.client.clone(), Arc::clone(&self.pod), patch));
        }
    }
}

/// Kubelet's words for a volume that could not be made.
fn mount_message(volume: &str, why: &str) -> String {
    format!("MountVolume.SetUp failed for volume \"{volume}\" : {why}")
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
