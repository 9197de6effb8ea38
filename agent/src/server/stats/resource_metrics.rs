//! `/metrics/resource`: what metrics-server reads, and so `kubectl top` and whoever scales by it, in Prometheus' text format.

use std::fmt::Display;

use jiff::Timestamp;

use super::PodUse;
use crate::pod;

/// Kubelet's figures of a node (CPU time, memory, and when that was) and its pods. A pod that could not be measured is not
/// told of.
pub(super) fn text((cpu, memory, at): (u64, u64, Timestamp), pods: &[PodUse]) -> String {
    let mut text = Text { text: String::new() };
    let (counter, gauge) = ("counter", "gauge");
    text.family("node_cpu_usage_seconds_total", counter, "Cumulative cpu time consumed by the node in core-seconds");
    text.sample("node_cpu_usage_seconds_total", "", seconds(cpu), at);
    text.family("node_memory_working_set_bytes", gauge, "Current working set of the node in bytes");
    text.sample("node_memory_working_set_bytes", "", memory, at);

    let of = |p: &PodUse| format!("namespace=\"{}\",pod=\"{}\"", pod::namespace(&p.entry.pod), pod::name(&p.entry.pod));
    let containers: Vec<_> = pods
        .iter()
        .flat_map(|p| p.containers.iter().map(move |c| (format!("container=\"{}\",{}", c.name, of(p)), c)))
        .collect();
    let name = "container_start_time_seconds";
    text.family(name, gauge, "Start time of the container since unix epoch in seconds");
    for (labels, c) in &containers {
        if let Some(started) = c.started.and_then(|at| u64::try_from(at.as_nanosecond()).ok()) {
            text.untimed(name, labels, seconds(started));
        }
    }
    let name = "container_cpu_usage_seconds_total";
    text.family(name, counter, "Cumulative cpu time consumed by the container in core-seconds");
    for (labels, c) in &containers {
        text.sample(name, labels, seconds(c.stats.cpu_usage_ns), c.at);
    }
    let name = "container_memory_working_set_bytes";
    text.family(name, gauge, "Current working set of the container in bytes");
    for (labels, c) in &containers {
        text.sample(name, labels, c.stats.memory_working_set, c.at);
    }
    let name = "pod_cpu_usage_seconds_total";
    text.family(name, counter, "Cumulative cpu time consumed by the pod in core-seconds");
    for p in pods {
        text.sample(name, &of(p), seconds(p.stats.cpu_usage_ns), p.at);
    }
    let name = "pod_memory_working_set_bytes";
    text.family(name, gauge, "Current working set of the pod in bytes");
    for p in pods {
        text.sample(name, &of(p), p.stats.memory_working_set, p.at);
    }
    let name = "resource_scrape_error";
    text.family(name, gauge, "1 if there was an error while getting container metrics, 0 otherwise");
    text.untimed(name, "", 0);
    text.text
}

fn seconds(ns: u64) -> String {
    format!("{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000)
}

struct Text {
    text: String,
}

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.text.push_str(&format!("# HELP {name} [STABLE] {help}\n# TYPE {name} {kind}\n"));
    }

    /// What was measured at a time, which is told in milliseconds.
    fn sample(&mut self, name: &str, labels: &str, value: impl Display, at: Timestamp) {
        self.untimed(name, labels, format!("{value} {}", at.as_millisecond()));
    }

    fn untimed(&mut self, name: &str, labels: &str, value: impl Display) {
        let labels = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        self.text.push_str(&format!("{name}{labels} {value}\n"));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use coracle_runtime::Stats;
    use expect_test::expect;

    use super::super::ContainerUse;
    use super::*;
    use crate::context::Entry;

    #[test]
    fn all_is_told_that_metrics_server_asks_for() {
        let entry = Entry {
            pod: Arc::new(pod::testing::one("Always")),
            sandbox: None,
            attempts: BTreeMap::new(),
            requests: BTreeMap::new(),
            over: false,
        };
        let stats = Stats { cpu_usage_ns: 2_500_000_000, memory_working_set: 4096, ..Stats::default() };
        let started = Some(Timestamp::new(1_000, 250_000_000).unwrap());
        let at = |millis| Timestamp::from_millisecond(millis).unwrap();
        let container = ContainerUse { name: "app".into(), started, at: at(1_234_566), stats };
        let pods = [PodUse { entry, at: at(1_234_565), stats, containers: vec![container], network: None }];
        let text = text((7_000_000_001, 8192, at(1_234_567)), &pods);
        let samples: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        expect![[r#"
            node_cpu_usage_seconds_total 7.000000001 1234567
            node_memory_working_set_bytes 8192 1234567
            container_start_time_seconds{container="app",namespace="default",pod="web"} 1000.250000000
            container_cpu_usage_seconds_total{container="app",namespace="default",pod="web"} 2.500000000 1234566
            container_memory_working_set_bytes{container="app",namespace="default",pod="web"} 4096 1234566
            pod_cpu_usage_seconds_total{namespace="default",pod="web"} 2.500000000 1234565
            pod_memory_working_set_bytes{namespace="default",pod="web"} 4096 1234565
            resource_scrape_error 0"#]]
        .assert_eq(&samples.join("\n"));
    }
}
