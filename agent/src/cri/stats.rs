//! What sandboxes and containers use.

use std::path::PathBuf;
use std::time::SystemTime;

use coracle_process::grpc::Result;
use coracle_runtime::{NetworkNamespace, Sandbox, Stats};

use super::find::missing;
use super::messages::{
    ContainerAttributes, ContainerRequest, ContainerStats, ContainerStatsResponse, CpuUsage, FilesystemIdentifier,
    FilesystemUsage, LinuxPodSandboxStats, ListContainerStatsRequest, ListContainerStatsResponse,
    ListPodSandboxStatsRequest, ListPodSandboxStatsResponse, MemoryUsage, NetworkInterfaceUsage, NetworkUsage,
    PodSandboxAttributes, PodSandboxRequest, PodSandboxStats, PodSandboxStatsResponse, ProcessUsage, Uint64Value,
};
use super::view::{Seen, SeenContainer, selects};
use super::{Front, failed, nanoseconds, refused};
use crate::eviction::usage;
use crate::server::stats::interface;

fn amount(value: u64) -> Option<Uint64Value> {
    Some(Uint64Value { value })
}

/// What lies below a directory.
pub(super) async fn file_system(root: PathBuf) -> Result<FilesystemUsage> {
    let mountpoint = root.display().to_string();
    let taken = tokio::task::spawn_blocking(move || usage::taken(&root)).await.map_err(|error| failed(&error))?;
    Ok(FilesystemUsage {
        timestamp: nanoseconds(SystemTime::now()),
        fs_id: Some(FilesystemIdentifier { mountpoint }),
        used_bytes: amount(taken.bytes),
        inodes_used: amount(taken.inodes),
    })
}

fn cpu(stats: &Stats, timestamp: i64) -> CpuUsage {
    CpuUsage { timestamp, usage_core_nano_seconds: amount(stats.cpu_usage_ns), usage_nano_cores: None }
}

fn memory(stats: &Stats, timestamp: i64) -> MemoryUsage {
    MemoryUsage {
        timestamp,
        working_set_bytes: amount(stats.memory_working_set),
        available_bytes: stats.memory_limit.and_then(|limit| amount(limit.saturating_sub(stats.memory_working_set))),
        usage_bytes: amount(stats.memory_usage),
        rss_bytes: amount(stats.memory_rss),
        page_faults: amount(stats.page_faults),
        major_page_faults: amount(stats.major_page_faults),
    }
}

async fn of_container(sandbox: &Sandbox, container: &SeenContainer<'_>) -> Result<ContainerStats> {
    let stats = sandbox.container_stats(container.id).await.map_err(|error| refused(&error))?;
    let now = nanoseconds(SystemTime::now());
    Ok(ContainerStats {
        attributes: Some(ContainerAttributes {
            id: container.id.to_string(),
            metadata: Some(container.metadata()),
            labels: container.labels(),
            annotations: container.annotations(),
        }),
        cpu: Some(cpu(&stats, now)),
        memory: Some(memory(&stats, now)),
        writable_layer: Some(file_system(sandbox.writable_layer(container.id)).await?),
    })
}

/// The running containers of a sandbox that are wanted. One that ends meanwhile is left out.
async fn of_containers(
    front: &Front,
    seen: &Seen,
    wanted: impl Fn(&SeenContainer<'_>) -> bool,
) -> Result<Vec<ContainerStats>> {
    let mut all = Vec::new();
    let Ok(sandbox) = front.context.runtime.sandbox(&seen.status.id).await else { return Ok(all) };
    for container in seen.containers().filter(|container| container.is_running() && wanted(container)) {
        match of_container(&sandbox, &container).await {
            Ok(stats) => all.push(stats),
            Err(refusal) => tracing::debug!(container = container.id.as_str(), why = refusal.1, "no figures"),
        }
    }
    Ok(all)
}

pub(super) async fn container(front: &Front, request: ContainerRequest) -> Result<ContainerStatsResponse> {
    let (sandbox, id) = front.running(&request.container_id).await?;
    let (seen, id) = front.container(id.as_str()).await?;
    let container = seen.container(&id).ok_or_else(|| missing("container", id.as_str()))?;
    Ok(ContainerStatsResponse { stats: Some(of_container(&sandbox, &container).await?) })
}

pub(super) async fn containers(
    front: &Front,
    request: ListContainerStatsRequest,
) -> Result<ListContainerStatsResponse> {
    let filter = request.filter.unwrap_or_default();
    let mut stats = Vec::new();
    for seen in front.sandboxes().await? {
        if seen.status.id.as_str().starts_with(&filter.pod_sandbox_id) {
            let wanted = |container: &SeenContainer<'_>| {
                container.id.as_str().starts_with(&filter.id) && selects(&filter.label_selector, &container.labels())
            };
            stats.extend(of_containers(front, &seen, wanted).await?);
        }
    }
    Ok(ListContainerStatsResponse { stats })
}

async fn of_sandbox(front: &Front, seen: &Seen) -> Result<PodSandboxStats> {
    let sandbox = front.context.runtime.sandbox(&seen.status.id).await.map_err(|error| refused(&error))?;
    let stats = sandbox.sandbox_stats().await.map_err(|error| refused(&error))?;
    let now = nanoseconds(SystemTime::now());
    let own = seen.status.spec.network == NetworkNamespace::Own;
    let counted = if own { interface(&format!("/proc/{}/net/dev", sandbox.supervisor_pid()), "eth0") } else { None };
    let network = counted.map(|(received, sent)| {
        let usage = NetworkInterfaceUsage {
            name: "eth0".to_owned(),
            rx_bytes: amount(received),
            tx_bytes: amount(sent),
            ..NetworkInterfaceUsage::default()
        };
        NetworkUsage { timestamp: now, default_interface: Some(usage.clone()), interfaces: vec![usage] }
    });
    Ok(PodSandboxStats {
        attributes: Some(PodSandboxAttributes {
            id: seen.id(),
            metadata: Some(seen.metadata()),
            labels: seen.labels(),
            annotations: seen.annotations(),
        }),
        linux: Some(LinuxPodSandboxStats {
            cpu: Some(cpu(&stats, now)),
            memory: Some(memory(&stats, now)),
            network,
            process: Some(ProcessUsage { timestamp: now, process_count: amount(stats.pids) }),
            containers: of_containers(front, seen, |_| true).await?,
        }),
    })
}

pub(super) async fn sandbox(front: &Front, request: PodSandboxRequest) -> Result<PodSandboxStatsResponse> {
    let seen = front.sandbox(&request.pod_sandbox_id).await?;
    if !seen.status.alive {
        return Err(super::sandbox::over(seen.status.id.as_str()));
    }
    Ok(PodSandboxStatsResponse { stats: Some(of_sandbox(front, &seen).await?) })
}

pub(super) async fn sandboxes(
    front: &Front,
    request: ListPodSandboxStatsRequest,
) -> Result<ListPodSandboxStatsResponse> {
    let filter = request.filter.unwrap_or_default();
    let mut stats = Vec::new();
    for seen in front.sandboxes().await?.iter().filter(|seen| seen.status.alive) {
        if seen.status.id.as_str().starts_with(&filter.id) && selects(&filter.label_selector, &seen.labels()) {
            match of_sandbox(front, seen).await {
                Ok(found) => stats.push(found),
                Err(refusal) => tracing::debug!(sandbox = seen.status.id.as_str(), why = refusal.1, "no figures"),
            }
        }
    }
    Ok(ListPodSandboxStatsResponse { stats })
}
