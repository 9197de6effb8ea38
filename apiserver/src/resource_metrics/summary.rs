//! A node's summary (`/stats/summary`, kubelet's JSON): bytes of somebody else's, of which the counters are kept.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;

/// What a counter of CPU time and a gauge of memory said at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Point {
    /// When, by the node's clock.
    pub(super) at: Timestamp,
    /// CPU time used up to then, in nanoseconds.
    pub(super) cpu: u64,
    /// The working set, in bytes.
    pub(super) memory: u64,
}

/// A container that was running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Container {
    /// Since when, if the node knows.
    pub(super) started: Option<Timestamp>,
    pub(super) point: Point,
}

/// A pod that was there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pod {
    pub(super) uid: String,
    /// The running containers by their names.
    pub(super) containers: BTreeMap<String, Container>,
}

/// Namespace and name of a pod.
pub(super) type PodKey = (String, String);

/// What a node says of itself and of its pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) node: Option<Point>,
    pub(super) pods: BTreeMap<PodKey, Pod>,
}

#[derive(Deserialize)]
struct Told {
    #[serde(default)]
    node: ToldNode,
    #[serde(default)]
    pods: Vec<ToldPod>,
}

#[derive(Default, Deserialize)]
struct ToldNode {
    cpu: Option<Cpu>,
    memory: Option<Memory>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ToldPod {
    pod_ref: PodRef,
    #[serde(default)]
    containers: Vec<ToldContainer>,
}

#[derive(Deserialize)]
struct PodRef {
    namespace: String,
    name: String,
    #[serde(default)]
    uid: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ToldContainer {
    name: String,
    start_time: Option<Timestamp>,
    cpu: Option<Cpu>,
    memory: Option<Memory>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Cpu {
    time: Timestamp,
    usage_core_nano_seconds: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Memory {
    working_set_bytes: Option<u64>,
}

fn point(cpu: Option<Cpu>, memory: Option<Memory>) -> Option<Point> {
    let cpu = cpu?;
    Some(Point { at: cpu.time, cpu: cpu.usage_core_nano_seconds?, memory: memory?.working_set_bytes? })
}

/// Reads a summary. Who lacks a figure is left out, as nothing can be said of it; of two with the same name the first counts.
///
/// # Errors
/// It is no summary: then nothing of it is believed.
pub(super) fn read(bytes: &[u8]) -> serde_json::Result<Summary> {
    let told: Told = serde_json::from_slice(bytes)?;
    let mut pods: BTreeMap<PodKey, Pod> = BTreeMap::new();
    for pod in told.pods {
        let mut containers = BTreeMap::new();
        for container in pod.containers {
            let Some(point) = point(container.cpu, container.memory) else { continue };
            let started = container.start_time;
            containers.entry(container.name).or_insert(Container { started, point });
        }
        let key = (pod.pod_ref.namespace, pod.pod_ref.name);
        pods.entry(key).or_insert(Pod { uid: pod.pod_ref.uid, containers });
    }
    Ok(Summary { node: point(told.node.cpu, told.node.memory), pods })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn summary(containers: &Value) -> Value {
        json!({
            "node": {"nodeName": "n", "cpu": {"time": "2026-01-01T00:00:00.5Z", "usageCoreNanoSeconds": 7},
                "memory": {"workingSetBytes": 8, "usageBytes": 9}, "fs": {"inodes": -1}},
            "pods": [{"podRef": {"namespace": "a", "name": "p", "uid": "u"}, "containers": containers}],
        })
    }

    fn names(containers: &Value) -> Option<Vec<String>> {
        let summary = read(summary(containers).to_string().as_bytes()).ok()?;
        assert!(summary.node.is_some());
        Some(summary.pods[&("a".to_owned(), "p".to_owned())].containers.keys().cloned().collect())
    }

    #[test]
    fn counters_are_read() {
        let whole = json!([{"name": "c", "startTime": "2025-12-31T23:59:59.25Z",
            "cpu": {"time": "2026-01-01T00:00:00.25Z", "usageCoreNanoSeconds": 18_446_744_073_709_551_615_u64},
            "memory": {"time": "2026-01-01T00:00:00Z", "workingSetBytes": 4096}}]);
        let read = read(summary(&whole).to_string().as_bytes()).unwrap();
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        assert_eq!(read.node, Some(Point { at: at("2026-01-01T00:00:00.5Z"), cpu: 7, memory: 8 }));
        let pod = &read.pods[&("a".to_owned(), "p".to_owned())];
        let point = Point { at: at("2026-01-01T00:00:00.25Z"), cpu: u64::MAX, memory: 4096 };
        let container = Container { started: Some(at("2025-12-31T23:59:59.25Z")), point };
        assert_eq!((pod.uid.as_str(), &pod.containers["c"]), ("u", &container));
    }

    #[test]
    fn who_lacks_a_figure_is_left_out() {
        let (cpu, memory) = (
            json!({"time": "2026-01-01T00:00:00Z", "usageCoreNanoSeconds": 1}),
            json!({"time": "2026-01-01T00:00:00Z", "workingSetBytes": 1}),
        );
        let containers = json!([
            {"name": "whole", "cpu": cpu, "memory": memory, "startTime": null},
            {"name": "whole", "cpu": cpu, "memory": memory},
            {"name": "none"},
            {"name": "no-memory", "cpu": cpu},
            {"name": "no-cpu", "memory": memory},
            {"name": "no-counter", "cpu": {"time": "2026-01-01T00:00:00Z"}, "memory": memory},
        ]);
        assert_eq!(names(&containers).unwrap(), ["whole"]);
        assert_eq!(read(b"{}").unwrap(), Summary::default());
        assert_eq!(read(br#"{"node":{},"pods":[]}"#).unwrap(), Summary::default());
    }

    #[test]
    fn what_is_no_summary_is_refused() {
        let container = |cpu: Value| json!([{"name": "c", "cpu": cpu, "memory": {"workingSetBytes": 1}}]);
        for wrong in [
            json!({"time": "2026-01-01T00:00:00Z", "usageCoreNanoSeconds": -1}),
            json!({"time": "2026-01-01T00:00:00Z", "usageCoreNanoSeconds": 1e300}),
            json!({"time": "2026-01-01T00:00:00Z", "usageCoreNanoSeconds": "1"}),
            json!({"time": "999999-01-01T00:00:00Z", "usageCoreNanoSeconds": 1}),
            json!({"time": "soon", "usageCoreNanoSeconds": 1}),
            json!({"usageCoreNanoSeconds": 1}),
            json!(7),
        ] {
            assert_eq!(names(&container(wrong.clone())), None, "{wrong}");
        }
        for wrong in ["", "null", "[7]", "<html>", "{\"pods\":{}}", "{\"pods\":[{}]}", "{\"node\":{}}}", "{\"node\":"] {
            assert!(read(wrong.as_bytes()).is_err(), "{wrong}");
        }
        assert!(read(&[b"[".as_slice(); 100_000].concat()).is_err(), "and it does not take the stack");
        assert!(read(b"{\"pods\":[{\"podRef\":{\"namespace\":\"\xff\",\"name\":\"p\"}}]}").is_err());
    }
}
