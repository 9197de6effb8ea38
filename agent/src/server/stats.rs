//! What node and pods use: `/stats/summary` (kubelet's JSON) and `/metrics/resource` (Prometheus text).

mod resource_metrics;

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use coracle_runtime::{ContainerId, Stats};
use http::{StatusCode, header};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::failure;
use crate::context::{Context, Entry};
use crate::node::machine::{self, Machine};
use crate::pod;
use crate::pod::facts::Phase;

/// One container's figures.
struct ContainerUse {
    name: String,
    started: Option<Timestamp>,
    /// When they were taken: rates are worked out of two of them.
    at: Timestamp,
    stats: Stats,
}

/// One pod's figures.
struct PodUse {
    entry: Entry,
    at: Timestamp,
    stats: Stats,
    containers: Vec<ContainerUse>,
    network: Option<(u64, u64)>,
}

async fn pods(context: &Context) -> Vec<PodUse> {
    let entries: Vec<Entry> = context.table.with(|table| table.values().cloned().collect());
    let mut all = Vec::new();
    for entry in entries {
        let Some(sandbox) = entry.sandbox.clone() else { continue };
        let Ok(stats) = sandbox.sandbox_stats().await else { continue };
        let at = Timestamp::now();
        let mut containers = Vec::new();
        for (name, attempts) in &entry.attempts {
            let Some(attempt) = attempts.last().filter(|a| a.phase == Phase::Running) else { continue };
            let Some(id) = ContainerId::parse(&attempt.id) else { continue };
            if let Ok(stats) = sandbox.container_stats(&id).await {
                let at = Timestamp::now();
                containers.push(ContainerUse { name: name.clone(), started: attempt.started, at, stats });
            }
        }
        let host = pod::spec(&entry.pod).host_network();
        let network =
            if host { None } else { interface(&format!("/proc/{}/net/dev", sandbox.supervisor_pid()), "eth0") };
        all.push(PodUse { entry, at, stats, containers, network });
    }
    all
}

/// What went through an interface: bytes, packets, errors, and packets that were dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    /// Its name.
    pub(crate) interface: String,
    /// What came.
    pub(crate) received: [u64; 4],
    /// What went.
    pub(crate) sent: [u64; 4],
}

/// Bytes received and sent by an interface.
pub(crate) fn interface(path: &str, name: &str) -> Option<(u64, u64)> {
    let found = traffic(path).into_iter().find(|traffic| traffic.interface == name)?;
    let ([received, ..], [sent, ..]) = (found.received, found.sent);
    Some((received, sent))
}

/// What went through the interfaces of this table (`/proc/pid/net/dev`) but loopback; nothing when it cannot be read.
pub(crate) fn traffic(path: &str) -> Vec<Traffic> {
    counters(&std::fs::read_to_string(path).unwrap_or_default())
}

fn counters(table: &str) -> Vec<Traffic> {
    let of = |line: &str| {
        let (interface, numbers) = line.split_once(':')?;
        let numbers: Vec<u64> = numbers.split_whitespace().map_while(|number| number.parse().ok()).collect();
        let four = |from: usize| <[u64; 4]>::try_from(numbers.get(from..from + 4)?).ok();
        Some(Traffic { interface: interface.trim().to_owned(), received: four(0)?, sent: four(8)? })
    };
    table.lines().filter_map(of).filter(|traffic| traffic.interface != "lo").collect()
}

/// The host's CPU time in nanoseconds since the boot, without idling.
pub(crate) fn host_cpu(stat: &str) -> u64 {
    let ticks: Vec<u64> = stat
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .take(8)
        .filter_map(|n| n.parse().ok())
        .collect();
    let busy: u64 = ticks.iter().enumerate().filter(|(i, _)| *i != 3 && *i != 4).map(|(_, t)| t).sum();
    // A tick is a hundredth of a second wherever Linux runs containers (USER_HZ).
    busy * 10_000_000
}

fn cpu(stats: &Stats, at: Timestamp) -> Value {
    json!({"time": at.to_string(), "usageCoreNanoSeconds": stats.cpu_usage_ns})
}

fn memory(stats: &Stats, at: Timestamp) -> Value {
    let mut memory = json!({
        "time": at.to_string(), "usageBytes": stats.memory_usage, "workingSetBytes": stats.memory_working_set,
        "rssBytes": stats.memory_rss, "pageFaults": stats.page_faults, "majorPageFaults": stats.major_page_faults,
    });
    if let (Some(limit), Some(map)) = (stats.memory_limit, memory.as_object_mut()) {
        map.insert("availableBytes".into(), limit.saturating_sub(stats.memory_working_set).into());
    }
    memory
}

pub(super) async fn machine(context: &Context) -> Result<Machine, Response> {
    let dir = context.config.data_dir.clone();
    match tokio::task::spawn_blocking(move || machine::read(&dir)).await {
        Ok(Ok(machine)) => Ok(machine),
        Ok(Err(error)) => Err(failure(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", &error.to_string())),
        Err(error) => Err(failure(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", &error.to_string())),
    }
}

/// `/stats/summary`.
pub(super) async fn summary(State(context): State<Arc<Context>>) -> Response {
    let machine = match machine(&context).await {
        Ok(machine) => machine,
        Err(response) => return response,
    };
    let pods: Vec<Value> = pods(&context)
        .await
        .iter()
        .map(|p| {
            let containers: Vec<Value> = p
                .containers
                .iter()
                .map(|c| {
                    json!({"name": c.name, "startTime": c.started.map(|t| t.to_string()),
                        "cpu": cpu(&c.stats, c.at), "memory": memory(&c.stats, c.at)})
                })
                .collect();
            let mut value = json!({
                "podRef": {"name": pod::name(&p.entry.pod), "namespace": pod::namespace(&p.entry.pod), "uid": pod::uid(&p.entry.pod)},
                "startTime": p.entry.pod.status.as_ref().and_then(|s| s.start_time.clone()),
                "containers": containers, "cpu": cpu(&p.stats, p.at), "memory": memory(&p.stats, p.at),
                "process_stats": {"process_count": p.stats.pids},
            });
            if let (Some((rx, tx)), Some(map)) = (p.network, value.as_object_mut()) {
                map.insert("network".into(), json!({"time": p.at.to_string(), "name": "eth0", "rxBytes": rx, "txBytes": tx}));
            }
            value
        })
        .collect();
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let now = Timestamp::now();
    let body = json!({
        "node": {
            "nodeName": context.config.node_name,
            "cpu": {"time": now.to_string(), "usageCoreNanoSeconds": host_cpu(&stat)},
            "memory": {
                "time": now.to_string(), "availableBytes": machine.memory_available,
                "usageBytes": machine.memory.saturating_sub(machine.memory_available),
                "workingSetBytes": machine.memory.saturating_sub(machine.memory_available),
            },
            "fs": {
                "time": now.to_string(), "capacityBytes": machine.disk, "availableBytes": machine.disk_free,
                "usedBytes": machine.disk.saturating_sub(machine.disk_free),
                "inodes": machine.inodes.0, "inodesFree": machine.inodes.1,
            },
        },
        "pods": pods,
    });
    ([(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

/// `/metrics/resource`.
pub(super) async fn resources(State(context): State<Arc<Context>>) -> Response {
    let machine = match machine(&context).await {
        Ok(machine) => machine,
        Err(response) => return response,
    };
    let pods = pods(&context).await;
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let used = machine.memory.saturating_sub(machine.memory_available);
    let text = resource_metrics::text((host_cpu(&stat), used, Timestamp::now()), &pods);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_tables_are_read() {
        let table = "Inter-|   Receive\n face |bytes\n    lo: 1 1 0 0 0 0 0 0 1 1\n  eth0: 100 2 0 0 0 0 0 0 300 4 0 0 0 0 0 0\n";
        let eth0 = Traffic { interface: "eth0".to_owned(), received: [100, 2, 0, 0], sent: [300, 4, 0, 0] };
        assert_eq!(counters(table), [eth0]);
        assert_eq!(counters("eth0: 1 2\n"), []);
        assert_eq!(host_cpu("cpu  10 1 5 1000 50 0 2 0 0 0\n"), 180_000_000);
    }
}
