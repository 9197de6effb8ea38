//! What the agent counts of its work, for `/metrics` and `/metrics/probes`: under kubelet's names, so that dashboards made for
//! Kubernetes show it.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use coracle_process::metrics::{Histogram, Page, Scale};
use k8s_openapi::api::core::v1::Pod;

use crate::eviction::Cause;
use crate::pod;
use crate::pod::probe::{Kind, Outcome};

/// How long what the runtime is asked for takes: kubelet's ends, in whole milliseconds.
static OPERATIONS: Scale =
    Scale::durations(&[5, 13, 31, 78, 195, 488, 1221, 3052, 7629, 19_073, 47_684, 119_209, 298_023, 745_058]);
/// How long pods take to start, as kubelet has it.
static STARTS: Scale = Scale::durations(&[
    500, 1000, 2000, 3000, 4000, 5000, 6000, 8000, 10_000, 20_000, 30_000, 45_000, 60_000, 120_000, 180_000, 240_000,
    300_000, 360_000, 480_000, 600_000, 900_000, 1_200_000, 1_800_000, 2_700_000, 3_600_000,
]);
/// Prometheus' own ends, of whatever takes a moment.
static MOMENTS: Scale = Scale::durations(&[5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000]);

/// How old a figure of what a container wrote to its root may be: as with cAdvisor, which walks through its files no more often.
const LAYER_AGE: Duration = Duration::from_secs(60);

/// What the runtime is asked for, in kubelet's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Operation {
    /// A pod's sandbox is made, or found as it is.
    RunSandbox,
    /// A pod's sandbox ends and stays to be looked at.
    StopSandbox,
    /// A pod's sandbox goes.
    RemoveSandbox,
    /// A container is made and its program run.
    StartContainer,
    /// A container's program is asked to end, and ended.
    StopContainer,
    /// What is left of a container goes.
    RemoveContainer,
    /// An image is pulled.
    PullImage,
}

impl Operation {
    fn as_str(self) -> &'static str {
        match self {
            Self::RunSandbox => "run_podsandbox",
            Self::StopSandbox => "stop_podsandbox",
            Self::RemoveSandbox => "remove_podsandbox",
            Self::StartContainer => "start_container",
            Self::StopContainer => "stop_container",
            Self::RemoveContainer => "remove_container",
            Self::PullImage => "pull_image",
        }
    }
}

/// How one operation went.
#[derive(Debug)]
struct Asked {
    took: Histogram,
    times: u64,
    failed: u64,
}

/// What one container's probes of each kind said, in the order of [`Kind`].
#[derive(Debug)]
pub(crate) struct Probes([ProbeCounts; 3]);

impl Default for Probes {
    fn default() -> Self {
        Self(std::array::from_fn(|_| ProbeCounts::default()))
    }
}

#[derive(Debug)]
struct ProbeCounts {
    took: Histogram,
    /// Successful, failed, unknown.
    results: [AtomicU64; 3],
}

impl Default for ProbeCounts {
    fn default() -> Self {
        Self { took: Histogram::new(&MOMENTS), results: std::array::from_fn(|_| AtomicU64::new(0)) }
    }
}

/// Kinds of probes, and what they say, in kubelet's words.
const KINDS: [Kind; 3] = [Kind::Startup, Kind::Liveness, Kind::Readiness];
const RESULTS: [&str; 3] = ["successful", "failed", "unknown"];

impl Probes {
    /// Counts one try.
    pub(crate) fn tried(&self, kind: Kind, outcome: &Outcome, took: Duration) {
        let result = match outcome {
            Outcome::Success => 0,
            Outcome::Failure(_) => 1,
            Outcome::Error(_) => 2,
        };
        let Some((_, counts)) = KINDS.iter().zip(&self.0).find(|(of, _)| **of == kind) else { return };
        counts.took.took(took);
        if let Some(count) = counts.results.get(result) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Whose probes they are: namespace, pod, uid, container.
type Probed = (String, String, String, String);

/// Counts by what of a few known words tells them apart.
type Counts = Mutex<BTreeMap<(&'static str, String), u64>>;

/// See the module.
#[derive(Debug)]
pub(crate) struct Figures {
    operations: Mutex<BTreeMap<Operation, Asked>>,
    pod_starts: Histogram,
    passes: Histogram,
    pods: AtomicU64,
    failed_pods: AtomicU64,
    /// By the kind of container.
    containers: Counts,
    /// By the kind of container and the reason.
    failed_containers: Counts,
    /// By the signal.
    evictions: Counts,
    /// By the reason.
    rejections: Counts,
    preemptions: AtomicU64,
    /// Bytes that containers wrote to their roots, by their ids, and when that was measured.
    layers: Mutex<BTreeMap<String, (Instant, u64)>>,
    /// Those of pods that are here; who counts into them holds them.
    probes: Mutex<BTreeMap<Probed, Weak<Probes>>>,
}

impl Default for Figures {
    fn default() -> Self {
        Self {
            operations: Mutex::default(),
            pod_starts: Histogram::new(&STARTS),
            passes: Histogram::new(&MOMENTS),
            pods: AtomicU64::new(0),
            failed_pods: AtomicU64::new(0),
            containers: Mutex::default(),
            failed_containers: Mutex::default(),
            evictions: Mutex::default(),
            rejections: Mutex::default(),
            preemptions: AtomicU64::new(0),
            layers: Mutex::default(),
            probes: Mutex::default(),
        }
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

fn count(counts: &Counts, what: &'static str, detail: &str) {
    *lock(counts).entry((what, detail.to_owned())).or_default() += 1;
}

impl Figures {
    /// Does what the runtime is asked for, and counts how it went.
    ///
    /// # Cancel safety
    /// That of `work`; what is dropped is not counted.
    pub(crate) async fn operation<T, E>(
        &self,
        operation: Operation,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let begin = Instant::now();
        let result = work.await;
        let mut operations = lock(&self.operations);
        let asked = operations.entry(operation).or_insert_with(|| Asked {
            took: Histogram::new(&OPERATIONS),
            times: 0,
            failed: 0,
        });
        asked.times += 1;
        asked.failed += u64::from(result.is_err());
        asked.took.took(begin.elapsed());
        result
    }

    /// A pod runs that was first seen so long ago.
    pub(crate) fn pod_runs(&self, after: Duration) {
        self.pod_starts.took(after);
    }

    /// A pod was looked at and what follows was begun, which took so long.
    pub(crate) fn passed(&self, took: Duration) {
        self.passes.took(took);
    }

    /// A pod's sandbox was to be made.
    pub(crate) fn pod_began(&self, well: bool) {
        self.pods.fetch_add(1, Ordering::Relaxed);
        self.failed_pods.fetch_add(u64::from(!well), Ordering::Relaxed);
    }

    /// A container of this kind was to be started; `reason` is why it was not.
    pub(crate) fn container_began(&self, kind: &'static str, reason: Option<&str>) {
        count(&self.containers, kind, "");
        if let Some(reason) = reason {
            count(&self.failed_containers, kind, reason);
        }
    }

    /// A pod goes before its time.
    pub(crate) fn evicted(&self, cause: Cause) {
        match cause {
            Cause::Own { signal } | Cause::Shortage { signal, .. } => count(&self.evictions, signal, ""),
            Cause::Preempted => drop(self.preemptions.fetch_add(1, Ordering::Relaxed)),
            Cause::MachineGoesDown { .. } => {}
        }
    }

    /// A pod may not run here. The reasons are admission's own few.
    pub(crate) fn rejected(&self, reason: &str) {
        count(&self.rejections, "", reason);
    }

    /// What a container wrote to its root, if that was measured lately.
    pub(crate) fn layer(&self, id: &str) -> Option<u64> {
        lock(&self.layers).get(id).filter(|(at, _)| at.elapsed() < LAYER_AGE).map(|(_, bytes)| *bytes)
    }

    /// Notes what a container wrote to its root. What was measured too long ago goes.
    pub(crate) fn measured(&self, id: &str, bytes: u64) {
        let mut layers = lock(&self.layers);
        layers.retain(|_, (at, _)| at.elapsed() < LAYER_AGE);
        layers.insert(id.to_owned(), (Instant::now(), bytes));
    }

    /// What the probes of a pod's container count into. It is told of as long as somebody holds it.
    pub(crate) fn probes(&self, of: &Pod, container: &str) -> Arc<Probes> {
        let text = |text: &str| text.to_owned();
        let key = (text(pod::namespace(of)), text(pod::name(of)), text(pod::uid(of)), text(container));
        let mut probes = lock(&self.probes);
        if let Some(found) = probes.get(&key).and_then(Weak::upgrade) {
            return found;
        }
        probes.retain(|_, counts| counts.strong_count() > 0);
        let new = Arc::new(Probes::default());
        probes.insert(key, Arc::downgrade(&new));
        new
    }

    /// Writes all but the probes.
    pub(crate) fn write(&self, out: &mut Page) {
        let operations = lock(&self.operations);
        let label = |operation: &Operation| format!("operation_type=\"{}\"", operation.as_str());
        let name = "kubelet_runtime_operations_total";
        out.head(name, "counter", "[ALPHA] Cumulative number of runtime operations by operation type.");
        for (operation, asked) in operations.iter() {
            out.line(name, format_args!("{{{}}}", label(operation)), asked.times);
        }
        let name = "kubelet_runtime_operations_errors_total";
        out.head(name, "counter", "[ALPHA] Cumulative number of runtime operation errors by operation type.");
        for (operation, asked) in operations.iter() {
            out.line(name, format_args!("{{{}}}", label(operation)), asked.failed);
        }
        let name = "kubelet_runtime_operations_duration_seconds";
        let help = "[ALPHA] Duration in seconds of runtime operations. Broken down by operation type.";
        out.head(name, "histogram", help);
        for (operation, asked) in operations.iter() {
            asked.took.write(out, name, &label(operation));
        }
        drop(operations);
        let name = "kubelet_pod_start_duration_seconds";
        let help =
            "[ALPHA] Duration in seconds from kubelet seeing a pod for the first time to the pod starting to run";
        out.head(name, "histogram", help);
        self.pod_starts.write(out, name, "");
        let name = "kubelet_pod_worker_duration_seconds";
        let help =
            "[ALPHA] Duration in seconds to sync a single pod. Broken down by operation type: create, update, or sync";
        out.head(name, "histogram", help);
        self.passes.write(out, name, "operation_type=\"sync\"");
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let help = "[ALPHA] Cumulative number of pods started";
        out.one("kubelet_started_pods_total", "counter", help, of(&self.pods));
        let help = "[ALPHA] Cumulative number of errors when starting pods";
        out.one("kubelet_started_pods_errors_total", "counter", help, of(&self.failed_pods));
        for (name, help, counts, labels) in [
            (
                "kubelet_started_containers_total",
                "[ALPHA] Cumulative number of containers started",
                &self.containers,
                ["container_type", ""],
            ),
            (
                "kubelet_started_containers_errors_total",
                "[ALPHA] Cumulative number of errors when starting containers",
                &self.failed_containers,
                ["container_type", "code"],
            ),
            (
                "kubelet_evictions",
                "[ALPHA] Cumulative number of pod evictions by eviction signal",
                &self.evictions,
                ["eviction_signal", ""],
            ),
            (
                "kubelet_admission_rejections_total",
                "[ALPHA] Cumulative number pod admission rejections by the Kubelet.",
                &self.rejections,
                ["", "reason"],
            ),
        ] {
            out.head(name, "counter", help);
            for ((what, detail), count) in lock(counts).iter() {
                let labels = labels.iter().zip([*what, detail]).filter(|(label, _)| !label.is_empty());
                let labels: Vec<String> = labels.map(|(label, value)| format!("{label}=\"{value}\"")).collect();
                out.line(name, format_args!("{{{}}}", labels.join(",")), count);
            }
        }
        let help = "[ALPHA] Cumulative number of pod preemptions by preemption resource";
        out.one("kubelet_preemptions", "counter", help, of(&self.preemptions));
    }

    /// Writes what probes said.
    pub(crate) fn write_probes(&self, out: &mut Page) {
        let held: Vec<(Probed, Arc<Probes>)> =
            lock(&self.probes).iter().filter_map(|(key, counts)| Some((key.clone(), counts.upgrade()?))).collect();
        let name = "prober_probe_total";
        let help = "[BETA] Cumulative number of a liveness, readiness or startup probe for a container by result.";
        out.head(name, "counter", help);
        for ((namespace, pod, uid, container), probes) in &held {
            for (kind, counts) in KINDS.iter().zip(&probes.0) {
                for (result, count) in RESULTS.iter().zip(&counts.results) {
                    let count = count.load(Ordering::Relaxed);
                    if count > 0 {
                        let kind = kind.as_str();
                        let labels = format_args!(
                            "{{container=\"{container}\",namespace=\"{namespace}\",pod=\"{pod}\",pod_uid=\"{uid}\",\
                             probe_type=\"{kind}\",result=\"{result}\"}}"
                        );
                        out.line(name, labels, count);
                    }
                }
            }
        }
        let name = "prober_probe_duration_seconds";
        out.head(name, "histogram", "[ALPHA] Duration in seconds for a probe response.");
        for ((namespace, pod, _, container), probes) in &held {
            for (kind, counts) in KINDS.iter().zip(&probes.0) {
                let kind = kind.as_str();
                let labels =
                    format!("container=\"{container}\",namespace=\"{namespace}\",pod=\"{pod}\",probe_type=\"{kind}\"");
                counts.took.write(out, name, &labels);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    /// The lines of a page that are samples, but for buckets and sums, which tell of time.
    fn samples(page: &Page) -> String {
        let is_sample = |line: &&str| !line.starts_with('#') && !line.contains("_bucket{") && !line.contains("_sum{");
        page.0.lines().filter(is_sample).collect::<Vec<_>>().join("\n")
    }

    #[tokio::test]
    async fn what_was_done_is_told_by_kubelets_names() {
        let figures = Figures::default();
        figures.operation(Operation::RunSandbox, async { Ok::<(), ()>(()) }).await.unwrap();
        figures.operation(Operation::RunSandbox, async { Err::<(), ()>(()) }).await.unwrap_err();
        figures.operation(Operation::PullImage, async { Ok::<(), ()>(()) }).await.unwrap();
        figures.pod_runs(Duration::from_millis(700));
        figures.passed(Duration::from_millis(1));
        figures.pod_began(true);
        figures.pod_began(false);
        figures.container_began("container", None);
        figures.container_began("container", Some("ErrImagePull"));
        figures.container_began("init_container", None);
        figures.evicted(Cause::Shortage { signal: "memory.available", grace: None });
        figures.evicted(Cause::Preempted);
        figures.evicted(Cause::MachineGoesDown { grace: 1 });
        figures.rejected("OutOfcpu");
        let mut page = Page::default();
        figures.write(&mut page);
        expect![[r#"
            kubelet_runtime_operations_total{operation_type="run_podsandbox"} 2
            kubelet_runtime_operations_total{operation_type="pull_image"} 1
            kubelet_runtime_operations_errors_total{operation_type="run_podsandbox"} 1
            kubelet_runtime_operations_errors_total{operation_type="pull_image"} 0
            kubelet_runtime_operations_duration_seconds_count{operation_type="run_podsandbox"} 2
            kubelet_runtime_operations_duration_seconds_count{operation_type="pull_image"} 1
            kubelet_pod_start_duration_seconds_count{} 1
            kubelet_pod_worker_duration_seconds_count{operation_type="sync"} 1
            kubelet_started_pods_total 2
            kubelet_started_pods_errors_total 1
            kubelet_started_containers_total{container_type="container"} 2
            kubelet_started_containers_total{container_type="init_container"} 1
            kubelet_started_containers_errors_total{container_type="container",code="ErrImagePull"} 1
            kubelet_evictions{eviction_signal="memory.available"} 1
            kubelet_admission_rejections_total{reason="OutOfcpu"} 1
            kubelet_preemptions 1"#]]
        .assert_eq(&samples(&page));
        assert!(page.0.contains("kubelet_pod_start_duration_seconds_bucket{le=\"1\"} 1\n"), "{}", page.0);
    }

    #[test]
    fn probes_are_told_of_as_long_as_their_container_is_here() {
        let figures = Figures::default();
        let pod = pod::testing::one("Always");
        let of = |figures: &Figures| {
            let mut page = Page::default();
            figures.write_probes(&mut page);
            samples(&page)
        };
        let probes = figures.probes(&pod, "app");
        probes.tried(Kind::Readiness, &Outcome::Failure(String::new()), Duration::from_millis(3));
        // The next attempt at the same container counts on.
        figures.probes(&pod, "app").tried(Kind::Readiness, &Outcome::Success, Duration::from_millis(3));
        figures.probes(&pod, "app").tried(Kind::Liveness, &Outcome::Error(String::new()), Duration::from_millis(3));
        expect![[r#"
            prober_probe_total{container="app",namespace="default",pod="web",pod_uid="u1",probe_type="Liveness",result="unknown"} 1
            prober_probe_total{container="app",namespace="default",pod="web",pod_uid="u1",probe_type="Readiness",result="successful"} 1
            prober_probe_total{container="app",namespace="default",pod="web",pod_uid="u1",probe_type="Readiness",result="failed"} 1
            prober_probe_duration_seconds_count{container="app",namespace="default",pod="web",probe_type="Liveness"} 1
            prober_probe_duration_seconds_count{container="app",namespace="default",pod="web",probe_type="Readiness"} 2"#]]
        .assert_eq(&of(&figures));
        drop(probes);
        assert_eq!(of(&figures), "");
    }
}
