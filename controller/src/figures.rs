//! What the controllers count of their work, in Prometheus' text format: their queues, under client-go's names.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

/// Upper ends of the histograms' buckets in nanoseconds: client-go's, ten times as much each.
const BUCKETS: [u64; 11] = [
    10,
    100,
    1000,
    10_000,
    100_000,
    1_000_000,
    10_000_000,
    100_000_000,
    1_000_000_000,
    10_000_000_000,
    100_000_000_000,
];

/// How long something took, how often.
#[derive(Debug, Default)]
struct Histogram {
    /// One more than [`BUCKETS`]: what took longer.
    counts: [AtomicU64; BUCKETS.len() + 1],
    nanoseconds: AtomicU64,
}

impl Histogram {
    fn observe(&self, took: Duration) {
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        if let Some(count) = self.counts.get(BUCKETS.partition_point(|end| took > *end)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.nanoseconds.fetch_add(took, Ordering::Relaxed);
    }

    #[expect(clippy::cast_precision_loss, reason = "durations are told in digits enough")]
    fn write(&self, metric: &str, queue: &str, out: &mut String) {
        let mut sum = 0;
        for (end, count) in BUCKETS.iter().zip(&self.counts) {
            sum += count.load(Ordering::Relaxed);
            let end = *end as f64 / 1e9;
            let _ = writeln!(out, "{metric}_bucket{{name=\"{queue}\",le=\"{end}\"}} {sum}");
        }
        sum += self.counts.last().map_or(0, |count| count.load(Ordering::Relaxed));
        let seconds = self.nanoseconds.load(Ordering::Relaxed) as f64 / 1e9;
        let _ = writeln!(out, "{metric}_bucket{{name=\"{queue}\",le=\"+Inf\"}} {sum}");
        let _ = writeln!(out, "{metric}_sum{{name=\"{queue}\"}} {seconds}");
        let _ = writeln!(out, "{metric}_count{{name=\"{queue}\"}} {sum}");
    }
}

/// What one queue counts.
#[derive(Debug, Default)]
pub(crate) struct QueueFigures {
    adds: AtomicU64,
    retries: AtomicU64,
    depth: AtomicU64,
    waited: Histogram,
    worked: Histogram,
    /// When the workers began that have not ended; several may at the same instant.
    begun: Mutex<BTreeMap<Instant, usize>>,
}

impl QueueFigures {
    /// A key came that was not there.
    pub(crate) fn added(&self) {
        self.adds.fetch_add(1, Ordering::Relaxed);
    }

    /// A key failed and comes again.
    pub(crate) fn retried(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// So many keys wait for a worker.
    pub(crate) fn set_depth(&self, depth: usize) {
        self.depth.store(u64::try_from(depth).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// A worker took a key that had waited so long.
    pub(crate) fn taken(&self, now: Instant, waited: Duration) {
        self.waited.observe(waited);
        *self.working().entry(now).or_default() += 1;
    }

    /// A worker is done with a key that it took then.
    pub(crate) fn done(&self, since: Instant) {
        self.worked.observe(since.elapsed());
        let mut working = self.working();
        if let Some(count) = working.get_mut(&since) {
            *count -= 1;
            if *count == 0 {
                working.remove(&since);
            }
        }
    }

    fn working(&self) -> MutexGuard<'_, BTreeMap<Instant, usize>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For how long the workers have been at what they have not ended: all of them together, and the first.
    fn unfinished(&self) -> (f64, f64) {
        let working = self.working();
        let seconds = |begun: &Instant| begun.elapsed().as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "there are a few workers")]
        let all = working.iter().map(|(begun, count)| seconds(begun) * *count as f64).sum();
        (all, working.keys().next().map_or(0.0, seconds))
    }
}

/// The queues of this process. There are as many as controllers; those of controllers that ended are forgotten.
static QUEUES: Mutex<Vec<(&'static str, Weak<QueueFigures>)>> = Mutex::new(Vec::new());

/// Has a queue told of under this name.
pub(crate) fn tell_of(name: &'static str, figures: &Arc<QueueFigures>) {
    let mut queues = QUEUES.lock().unwrap_or_else(PoisonError::into_inner);
    queues.retain(|(_, known)| known.strong_count() > 0);
    queues.push((name, Arc::downgrade(figures)));
}

/// The figures of all controllers in this process, for whoever serves `/metrics`.
#[must_use]
pub fn figures() -> String {
    let queues: Vec<(&str, Arc<QueueFigures>)> = {
        let queues = QUEUES.lock().unwrap_or_else(PoisonError::into_inner);
        queues.iter().filter_map(|(name, figures)| Some((*name, figures.upgrade()?))).collect()
    };
    page(&queues)
}

fn page(queues: &[(&str, Arc<QueueFigures>)]) -> String {
    let mut out = String::new();
    type Read = fn(&QueueFigures) -> &AtomicU64;
    let plain: [(&str, &str, &str, Read); 3] = [
        ("workqueue_depth", "gauge", "Current depth of workqueue", |figures| &figures.depth),
        ("workqueue_adds_total", "counter", "Total number of adds handled by workqueue", |figures| &figures.adds),
        ("workqueue_retries_total", "counter", "Total number of retries handled by workqueue", |figures| {
            &figures.retries
        }),
    ];
    for (metric, kind, help, read) in plain {
        let _ = writeln!(out, "# HELP {metric} [ALPHA] {help}\n# TYPE {metric} {kind}");
        for (name, figures) in queues {
            let _ = writeln!(out, "{metric}{{name=\"{name}\"}} {}", read(figures).load(Ordering::Relaxed));
        }
    }
    type Left = fn((f64, f64)) -> f64;
    let left: [(&str, &str, Left); 2] = [
        (
            "workqueue_unfinished_work_seconds",
            "How many seconds of work has been done that is in progress and hasn't been observed by work_duration. Large values indicate stuck threads. One can deduce the number of stuck threads by observing the rate at which this increases.",
            |(all, _)| all,
        ),
        (
            "workqueue_longest_running_processor_seconds",
            "How many seconds has the longest running processor for workqueue been running.",
            |(_, longest)| longest,
        ),
    ];
    for (metric, help, read) in left {
        let _ = writeln!(out, "# HELP {metric} [ALPHA] {help}\n# TYPE {metric} gauge");
        for (name, figures) in queues {
            let _ = writeln!(out, "{metric}{{name=\"{name}\"}} {}", read(figures.unfinished()));
        }
    }
    type Told = fn(&QueueFigures) -> &Histogram;
    let spread: [(&str, &str, Told); 2] = [
        (
            "workqueue_queue_duration_seconds",
            "How long in seconds an item stays in workqueue before being requested.",
            |figures| &figures.waited,
        ),
        (
            "workqueue_work_duration_seconds",
            "How long in seconds processing an item from workqueue takes.",
            |figures| &figures.worked,
        ),
    ];
    for (metric, help, told) in spread {
        let _ = writeln!(out, "# HELP {metric} [ALPHA] {help}\n# TYPE {metric} histogram");
        for (name, figures) in queues {
            told(figures).write(metric, name, &mut out);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_page_has_what_dashboards_ask_for() {
        let figures = Arc::new(QueueFigures::default());
        figures.added();
        figures.set_depth(1);
        figures.retried();
        let begun = Instant::now();
        figures.taken(begun, Duration::from_millis(5));
        tokio::time::advance(Duration::from_secs(1000)).await;
        figures.done(begun);
        figures.taken(Instant::now(), Duration::from_millis(5));
        figures.taken(Instant::now(), Duration::from_millis(5));
        tokio::time::advance(Duration::from_secs(7)).await;
        let page = page(&[("namespace", figures)]);
        for line in [
            "workqueue_depth{name=\"namespace\"} 1",
            "workqueue_adds_total{name=\"namespace\"} 1",
            "workqueue_retries_total{name=\"namespace\"} 1",
            "workqueue_queue_duration_seconds_bucket{name=\"namespace\",le=\"0.001\"} 0",
            "workqueue_queue_duration_seconds_bucket{name=\"namespace\",le=\"0.01\"} 3",
            "workqueue_queue_duration_seconds_sum{name=\"namespace\"} 0.015",
            "workqueue_unfinished_work_seconds{name=\"namespace\"} 14",
            "workqueue_longest_running_processor_seconds{name=\"namespace\"} 7",
            "workqueue_work_duration_seconds_bucket{name=\"namespace\",le=\"100\"} 0",
            "workqueue_work_duration_seconds_bucket{name=\"namespace\",le=\"+Inf\"} 1",
            "workqueue_work_duration_seconds_count{name=\"namespace\"} 1",
            "# TYPE workqueue_work_duration_seconds histogram",
        ] {
            assert!(page.lines().any(|known| known == line), "{line} is missing in\n{page}");
        }
    }
}
