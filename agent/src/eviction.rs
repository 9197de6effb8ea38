//! Eviction: pods that take more of the node's disk than they may, and pods that go because the node runs short of
//! memory, disk, inodes or process ids. Images nobody uses go first when it is disk.
//!
//! ```text
//!   every LOOK, while there are pods ─▶ limits of pods ─▶ exceeded (pure) ──▶ evicted
//!   tasks stall for want of memory ──┴▶ pressure ─▶ images collected ─▶ ranked (pure) ─▶ one evicted
//! ```
//!
//! The kernel tells when tasks stall for want of memory, where it counts that (PSI). Nobody tells when a limit of another kind
//! is passed, so it is looked at, as kubelet does, but only while there are pods.

pub(crate) mod args;
mod limits;
mod ranking;
mod stall;
pub(crate) mod threshold;
pub(crate) mod usage;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use coracle_runtime::{ContainerId, Stats};
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::context::{Context, Entry};
use crate::event::Kind;
use crate::images::Disk;
use crate::node::machine::{self, Machine};
use crate::pod::{self, resources, spec};
use crate::volume::set::PodDir;
use ranking::Candidate;
use stall::Stalls;
use threshold::{Signal, Threshold, Thresholds};
use usage::{DiskUse, Places};

/// How often it is looked.
const LOOK: Duration = Duration::from_secs(10);
/// How long the next pod waits for what the one before gives back, as with kubelet: taking away many files may take a while.
const CLEAN: Duration = Duration::from_secs(30);
/// Evictions on their way to the pods' workers.
const QUEUE: usize = 16;
/// The priority from which on a pod is the cluster's own.
const CRITICAL: i32 = 2_000_000_000;

/// One pod that is to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Eviction {
    /// Its uid.
    pub(crate) uid: String,
    /// Why.
    pub(crate) message: String,
    /// Who is to blame.
    pub(crate) cause: Cause,
}

/// Why a pod is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// It takes more than it may.
    Own {
        /// Kubelet's name of what it passed.
        signal: &'static str,
    },
    /// The node has too little.
    Shortage {
        /// Kubelet's name of what it has too little of.
        signal: &'static str,
        /// Seconds its containers get at most, when there was time (a soft threshold).
        grace: Option<i64>,
    },
    /// A critical pod needs its room.
    Preempted,
    /// The machine goes down.
    MachineGoesDown {
        /// Seconds pods of its sort get.
        grace: i64,
    },
}

impl Cause {
    /// The reason of its event and its status.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Own { .. } | Self::Shortage { .. } => "Evicted",
            Self::Preempted => "Preempting",
            Self::MachineGoesDown { .. } => "Terminated",
        }
    }

    /// What the condition `DisruptionTarget` says, if it is to be there: not of a pod that kept to nothing.
    pub(crate) fn disruption(self, message: &str) -> Option<String> {
        match self {
            Self::Own { .. } => None,
            Self::Shortage { .. } | Self::MachineGoesDown { .. } => Some(message.to_owned()),
            Self::Preempted => Some("Pod was preempted by Kubelet to accommodate a critical pod.".to_owned()),
        }
    }

    /// Whether the pod has an event about it. When the machine goes down all have the same fate, which their statuses tell.
    pub(crate) fn is_told(self) -> bool {
        match self {
            Self::Own { .. } | Self::Shortage { .. } | Self::Preempted => true,
            Self::MachineGoesDown { .. } => false,
        }
    }

    /// Seconds its containers get, if not the pod's `own` period: what a node is short of is needed now.
    pub(crate) fn grace(self, own: i64) -> Option<i64> {
        /// As kubelet's, which gives one second.
        const NOW: i64 = 1;
        match self {
            Self::Own { .. } | Self::Shortage { grace: None, .. } => Some(NOW),
            Self::Preempted => None,
            Self::Shortage { grace: Some(grace), .. } | Self::MachineGoesDown { grace } => Some(grace.min(own)),
        }
    }
}

/// What the node is short of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pressure {
    /// Memory.
    pub(crate) memory: bool,
    /// Bytes or inodes of the file system with pods' data.
    pub(crate) disk: bool,
    /// Process ids.
    pub(crate) pids: bool,
}

impl Pressure {
    /// What a machine like this is short of.
    pub(crate) fn of(machine: &Machine, thresholds: &Thresholds) -> Self {
        let mut pressure = Self::default();
        for threshold in thresholds.all.iter().filter(|threshold| threshold.is_met(machine)) {
            match threshold.signal {
                Signal::Memory => pressure.memory = true,
                Signal::Disk | Signal::Inodes => pressure.disk = true,
                Signal::Pids => pressure.pids = true,
            }
        }
        pressure
    }

    /// The conditions of the node that say so.
    pub(crate) fn conditions(self) -> Vec<&'static str> {
        let all = [(self.memory, "MemoryPressure"), (self.disk, "DiskPressure"), (self.pids, "PIDPressure")];
        all.into_iter().filter(|(holds, _)| *holds).map(|(_, name)| name).collect()
    }

    /// Why `pod` may not begin here now. The node's own pods may; others, when it is memory, if they request some.
    pub(crate) fn refuses(self, pod: &Pod) -> Option<String> {
        let only_memory = Pressure { memory: true, ..Pressure::default() };
        let asks = resources::qos_class(pod).as_str() != "BestEffort";
        if self == Pressure::default() || is_critical(pod) || (self == only_memory && asks) {
            return None;
        }
        Some(format!("The node had condition: [{}]. ", self.conditions().join(", ")))
    }
}

/// When each pressure was last seen.
#[derive(Debug, Default)]
struct Memory([Option<Instant>; 3]);

impl Memory {
    /// What the node says, seeing this: what it was short of a while ago it still is.
    fn note(&mut self, seen: Pressure, transition: Duration, now: Instant) -> Pressure {
        let held: Vec<bool> = self
            .0
            .iter_mut()
            .zip([seen.memory, seen.disk, seen.pids])
            .map(|(last, is)| {
                if is {
                    *last = Some(now);
                }
                last.is_some_and(|at| now.duration_since(at) < transition)
            })
            .collect();
        let at = |i: usize| held.get(i).copied().unwrap_or(false);
        Pressure { memory: at(0), disk: at(1), pids: at(2) }
    }
}

/// Since when there is less than each threshold, by its place among them.
#[derive(Debug, Default)]
struct Since(BTreeMap<usize, Instant>);

impl Since {
    /// The threshold because of which a pod is to go now, seeing this machine: one that is met and whose grace period is over.
    fn due<'a>(&mut self, thresholds: &'a Thresholds, machine: &Machine, now: Instant) -> Option<&'a Threshold> {
        let met: BTreeMap<usize, &Threshold> =
            thresholds.all.iter().enumerate().filter(|(_, threshold)| threshold.is_met(machine)).collect();
        self.0.retain(|place, _| met.contains_key(place));
        let over = |(place, threshold): (usize, &'a Threshold)| {
            let since = *self.0.entry(place).or_insert(now);
            (now.duration_since(since) >= threshold.grace.unwrap_or_default()).then_some(threshold)
        };
        let due: Vec<&Threshold> = met.into_iter().filter_map(over).collect();
        due.into_iter().min_by_key(|threshold| threshold.signal != Signal::Memory)
    }
}

/// Both ends of the queue of evictions.
pub(crate) fn channel() -> (mpsc::Sender<Eviction>, mpsc::Receiver<Eviction>) {
    mpsc::channel(QUEUE)
}

/// Looks after the node's disk and memory until `shutdown`.
pub(crate) async fn run(context: Arc<Context>, pressure: watch::Sender<Pressure>, shutdown: CancellationToken) {
    let thresholds = &context.config.thresholds;
    let (mut memory, mut since) = (Memory::default(), Since::default());
    let mut stalls = Stalls::watch();
    let mut full = false;
    let mut reclaimed = None;
    let mut going: Option<(String, Instant)> = None;
    loop {
        let none = context.table.with(|table| table.values().all(|entry| entry.over));
        let idle = none && *pressure.borrow() == Pressure::default();
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = context.table.came(), if idle => continue,
            () = tokio::time::sleep(LOOK), if !idle => {}
            () = stalls.next(), if !idle => {}
        }
        let entries: Vec<Entry> = context.table.with(|table| table.values().filter(|e| !e.over).cloned().collect());
        let mut gone = false;
        for entry in entries.iter().filter(|e| limits::any(&e.pod) && !is_critical(&e.pod)) {
            if let Some((signal, message)) =
                measure(&context, entry).await.and_then(|used| limits::exceeded(&entry.pod, &used))
            {
                gone |= tell(&context, entry, message, Cause::Own { signal }).await;
            }
        }
        let Some(mut machine) = look(&context).await else { continue };
        let mut due = since.due(thresholds, &machine, Instant::now());
        if due.is_some_and(|due| matches!(due.signal, Signal::Disk | Signal::Inodes)) {
            collect_images(&context).await;
            machine = look(&context).await.unwrap_or(machine);
            due = since.due(thresholds, &machine, Instant::now());
        }
        let disk = Disk::of_images(&context).await;
        let is_full = disk.is_ok_and(|disk| disk.is_full(context.config.image_limits));
        let was = std::mem::replace(&mut full, is_full);
        if full && !was {
            context.images_changed.notify_one();
        }
        let now = memory.note(Pressure::of(&machine, thresholds), thresholds.transition, Instant::now());
        if *pressure.borrow() != now {
            pressure.send_replace(now);
            tracing::warn!(conditions = now.conditions().join(","), "what the node is short of has changed");
        }
        let resource = due.map(|due| due.signal.resource());
        if let Some(resource) = resource.filter(|_| reclaimed != resource) {
            let message = format!("Attempting to reclaim {resource}");
            context.events.node(&context.node(), Kind::Warning, "EvictionThresholdMet", message);
        }
        reclaimed = resource;
        // One at a time: what it gives back is seen at the look after it has.
        going = going.filter(|(uid, since)| since.elapsed() < CLEAN && holds(&context, uid));
        if let Some(due) = due.filter(|_| !gone && going.is_none()) {
            going = relieve(&context, &entries, due, &machine).await.map(|uid| (uid, Instant::now()));
        }
    }
}

async fn look(context: &Context) -> Option<Machine> {
    let dir = context.config.data_dir.clone();
    let machine = tokio::task::spawn_blocking(move || machine::read(&dir)).await;
    let mut machine = machine.ok()?.ok()?;
    if let Ok(pods) = context.runtime.pods_stats().await {
        machine.memory_available = available(&machine, &pods);
    }
    Some(machine)
}

/// What pods may still take: of the machine's memory, and of the part of it that is not reserved, which limits all of them
/// together.
fn available(machine: &Machine, pods: &Stats) -> u64 {
    let room = pods.memory_limit.map_or(u64::MAX, |limit| limit.saturating_sub(pods.memory_working_set));
    machine.memory_available.min(room)
}

async fn collect_images(context: &Context) {
    match context.images.collect_garbage(&BTreeSet::new(), true).await {
        Ok(collected) => tracing::info!(?collected, "images that nobody uses were removed for want of disk"),
        Err(error) => {
            tracing::warn!(error = &error as &(dyn StdError + 'static), "images that nobody uses not removed");
        }
    }
}

async fn measure(context: &Context, entry: &Entry) -> Option<DiskUse> {
    let places = Places::of(context, entry);
    tokio::task::spawn_blocking(move || places.measure()).await.ok()
}

async fn tell(context: &Context, entry: &Entry, message: String, cause: Cause) -> bool {
    tracing::info!(pod = pod::key(&entry.pod), message, "pod is evicted");
    context.evict.send(Eviction { uid: pod::uid(&entry.pod).to_owned(), message, cause }).await.is_ok()
}

/// Whether a pod still has something to give back.
fn holds(context: &Context, uid: &str) -> bool {
    let lives = context.table.with(|table| table.get(uid).is_some_and(|entry| !entry.over));
    lives || PodDir::new(&context.config.pods_dir(), uid).volumes().exists()
}

/// Sends the pod away that is to go first; answers with its uid.
async fn relieve(context: &Context, entries: &[Entry], due: &Threshold, machine: &Machine) -> Option<String> {
    let mut candidates = Vec::new();
    for entry in entries.iter().filter(|e| !is_critical(&e.pod)) {
        candidates.extend(candidate(context, entry, due.signal).await);
    }
    let first = ranking::first(candidates)?;
    let message = ranking::message(due, due.signal.of(machine), &first);
    let most = i64::try_from(context.config.thresholds.most_grace.as_secs()).unwrap_or(i64::MAX);
    let cause = Cause::Shortage { signal: due.signal.name(), grace: due.grace.map(|_| most) };
    tell(context, first.entry, message, cause).await.then(|| pod::uid(&first.entry.pod).to_owned())
}

/// What a pod uses of something the node is short of; nothing when that cannot be known.
async fn candidate<'a>(context: &Context, entry: &'a Entry, signal: Signal) -> Option<Candidate<'a>> {
    let mut containers = Vec::new();
    let used = match signal {
        Signal::Memory => {
            let sandbox = entry.sandbox.as_ref()?;
            for (name, attempts) in &entry.attempts {
                let Some(id) = attempts.last().and_then(|attempt| ContainerId::parse(&attempt.id)) else { continue };
                if let Ok(stats) = sandbox.container_stats(&id).await {
                    containers.push((name.clone(), stats.memory_working_set));
                }
            }
            sandbox.sandbox_stats().await.ok()?.memory_working_set
        }
        Signal::Disk => {
            let used = measure(context, entry).await?;
            let total = used.total();
            containers.extend(used.containers);
            total
        }
        Signal::Inodes => measure(context, entry).await?.inodes,
        Signal::Pids => entry.sandbox.as_ref()?.sandbox_stats().await.ok()?.pids,
    };
    let requested = resources::pod_requests(&entry.pod).get(signal.resource()).copied().unwrap_or(0) / 1000;
    Some(Candidate { entry, used: i128::from(used), requested, containers })
}

/// Whether the pod is the cluster's or the node's own and stays.
pub(crate) fn is_critical(pod: &Pod) -> bool {
    pod::is_static(pod) || spec(pod).0.and_then(|s| s.priority).is_some_and(|p| p >= CRITICAL)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::threshold::Least;
    use super::*;
    use crate::pod::testing::pod;

    pub(super) fn entry(name: &str, spec: Value) -> Entry {
        let mut pod = pod(spec);
        pod.metadata.name = Some(name.into());
        Entry { pod: Arc::new(pod), sandbox: None, attempts: BTreeMap::new(), requests: BTreeMap::new(), over: false }
    }

    #[test]
    fn a_node_is_short_below_its_thresholds() {
        let machine = Machine {
            memory: 4 << 30,
            memory_available: 99 << 20,
            disk: 1000,
            disk_free: 50,
            inodes: (1000, 49),
            pids: 1000,
            pids_free: 100,
            ..Machine::default()
        };
        let usual = Thresholds::usual();
        assert_eq!(Pressure::of(&machine, &usual), Pressure { memory: true, disk: true, pids: false });
        assert_eq!(Pressure::of(&machine, &Thresholds::none()), Pressure::default());
        let large = Machine { disk: 1 << 40, disk_free: 2 << 30, inodes: (0, 0), ..machine.clone() };
        assert!(!Pressure::of(&large, &usual).disk, "a small part of much");
        assert!(Pressure::of(&Machine { disk_free: (2 << 30) - 1, ..large }, &usual).disk);
        let enough = Machine { inodes: (0, 0), memory_available: 100 << 20, ..machine };
        assert_eq!(Pressure::of(&enough, &usual), Pressure::default());
        assert!(Pressure::of(&Machine { pids_free: 99, ..enough }, &usual).pids);
    }

    #[tokio::test(start_paused = true)]
    async fn a_soft_threshold_sends_no_pod_away_before_its_time_and_memory_comes_first() {
        let soft = |signal, seconds| Threshold {
            signal,
            least: Least::Amount(100),
            grace: Some(Duration::from_secs(seconds)),
        };
        let hard = Threshold { signal: Signal::Disk, least: Least::Amount(50), grace: None };
        let all = vec![soft(Signal::Pids, 30), hard, soft(Signal::Memory, 60)];
        let thresholds = Thresholds { all, ..Thresholds::none() };
        let whole = Machine { memory: 1000, disk: 1000, pids: 1000, ..Machine::default() };
        let fine = Machine { memory_available: 100, disk_free: 50, pids_free: 100, ..whole };
        let short = Machine { memory_available: 99, pids_free: 99, ..fine.clone() };
        let (begin, mut since) = (Instant::now(), Since::default());
        let mut due = |machine: &Machine, seconds| {
            since.due(&thresholds, machine, begin + Duration::from_secs(seconds)).map(|threshold| threshold.signal)
        };
        assert_eq!(due(&fine, 0), None);
        assert_eq!(due(&Machine { disk_free: 49, ..fine.clone() }, 0), Some(Signal::Disk), "a hard one at once");
        assert_eq!(due(&short, 10), None);
        assert_eq!(due(&short, 39), None);
        assert_eq!(due(&short, 40), Some(Signal::Pids));
        assert_eq!(due(&short, 70), Some(Signal::Memory));
        assert_eq!(due(&fine, 71), None);
        assert_eq!(due(&short, 72), None, "it begins anew");
    }

    #[test]
    fn who_goes_for_a_soft_threshold_has_some_time_to_end() {
        let grace = |grace, own| Cause::Shortage { signal: "memory.available", grace }.grace(own);
        assert_eq!((grace(None, 30), grace(Some(0), 30)), (Some(1), Some(0)));
        assert_eq!((grace(Some(10), 30), grace(Some(60), 30)), (Some(10), Some(30)));
    }

    #[test]
    fn pods_that_have_taken_what_is_not_reserved_are_as_short_as_on_a_full_machine() {
        const MIB: u64 = 1 << 20;
        let machine = Machine { memory: 8192 * MIB, memory_available: 8192 * MIB, ..Machine::default() };
        let of = |limit: Option<u64>, used: u64, machine: &Machine| {
            let pods = Stats { memory_limit: limit, memory_working_set: used, ..Stats::default() };
            available(machine, &pods)
        };
        // As long as nothing limits them there is what the machine has; and never more than that.
        assert_eq!(of(None, 512 * MIB, &machine), 8192 * MIB);
        assert_eq!(of(Some(16_384 * MIB), 512 * MIB, &machine), 8192 * MIB);
        assert_eq!(of(Some(1024 * MIB), 512 * MIB, &machine), 512 * MIB);
        // Pages that are being given back may be above the limit for a moment.
        assert_eq!(of(Some(1024 * MIB), 1025 * MIB, &machine), 0);
        for (used, is_short) in [(924, false), (925, true)] {
            let machine = Machine { memory_available: of(Some(1024 * MIB), used * MIB, &machine), ..machine.clone() };
            assert_eq!(Pressure::of(&machine, &Thresholds::usual()).memory, is_short, "{used}");
        }
    }

    #[test]
    fn a_node_that_is_short_takes_no_pods_but_those_it_needs() {
        let best = pod(json!({"containers": [{"name": "a"}]}));
        let asks = pod(json!({"containers": [{"name": "a", "resources": {"requests": {"memory": "1Mi"}}}]}));
        let own = pod(json!({"containers": [{"name": "a"}], "priority": 2_000_001_000}));
        let memory = Pressure { memory: true, ..Pressure::default() };
        let disk = Pressure { disk: true, ..memory };
        assert_eq!(Pressure::default().refuses(&best), None);
        assert_eq!(memory.refuses(&best).unwrap(), "The node had condition: [MemoryPressure]. ");
        assert_eq!(memory.refuses(&asks), None);
        assert_eq!(disk.refuses(&asks).unwrap(), "The node had condition: [MemoryPressure, DiskPressure]. ");
        assert_eq!(disk.refuses(&own), None);
    }

    #[tokio::test(start_paused = true)]
    async fn pressure_is_told_for_a_while_after_it_is_over() {
        let mut memory = Memory::default();
        let short = Pressure { disk: true, ..Pressure::default() };
        let begin = Instant::now();
        let calm = Thresholds::TRANSITION;
        assert_eq!(memory.note(short, calm, begin), short);
        assert_eq!(memory.note(Pressure::default(), calm, begin + calm / 2), short);
        assert_eq!(memory.note(Pressure::default(), calm, begin + calm), Pressure::default());
    }
}
