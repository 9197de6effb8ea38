//! The life of a sandbox.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use coracle_process::grpc::{Code, Refusal, Result};
use coracle_runtime::{NetworkNamespace, Sandbox};
use serde_json::json;

use super::events::Happened;
use super::find::missing;
use super::messages::{
    ListPodSandboxRequest, ListPodSandboxResponse, Nothing, PodSandboxConfig, PodSandboxRequest,
    PodSandboxStatusRequest, PodSandboxStatusResponse, RunPodSandboxRequest, RunPodSandboxResponse,
    UpdatePodSandboxResourcesRequest,
};
use super::sandbox_spec::{Surroundings, host_ports, limits, sandbox_spec};
use super::view::{Seen, selects};
use super::{Front, failed, invalid, nanoseconds, records, refused};
use crate::claims;
use crate::node::HANDLERS;
use crate::pod::host_files;

/// Makes a sandbox with its network and its own files, or nothing.
pub(super) async fn run(front: Arc<Front>, request: RunPodSandboxRequest) -> Result<RunPodSandboxResponse> {
    let config = request.config.ok_or_else(|| invalid("sandbox config is required"))?;
    let handler = request.runtime_handler;
    if !HANDLERS.contains(&handler.as_str()) {
        let why = format!("failed to get sandbox runtime: no runtime for {handler:?} is configured");
        return Err(invalid(why));
    }
    let context = &front.context;
    // No two are alike, so that a name can be used again when its sandbox is gone.
    let uid = format!("cri-{:032x}", rand::random::<u128>());
    let around = Surroundings {
        uid: &uid,
        handler: &handler,
        host_name: &context.names.host_name,
        pids_limit: context.config.pod_pids_limit,
    };
    let spec = sandbox_spec(&config, &around)?;
    host_ports(&config)?;
    let metadata = config.metadata.clone().unwrap_or_default();
    let reserved = front.records.reserve(&metadata)?;
    // What belongs to nobody is not swept while this is nobody's.
    let _begins = context.beginning.read().await;
    let sandbox = context.runtime.create_sandbox(&spec).await.map_err(|error| refused(&error))?;
    let id = sandbox.id().clone();
    if let Err(refusal) = furnish(&front, &sandbox, &config, &uid).await {
        records::discard(context, &id, &uid).await;
        return Err(refusal);
    }
    let changing = tokio::sync::Mutex::default();
    front.records.add_sandbox(records::Sandbox { id: id.clone(), uid, metadata, config, handler, changing });
    drop(reserved);
    front.tell(Happened::SandboxMade(id.clone()));
    Ok(RunPodSandboxResponse { pod_sandbox_id: id.to_string() })
}

/// The sandbox's address and its files in `/etc`.
async fn furnish(front: &Front, sandbox: &Sandbox, config: &PodSandboxConfig, uid: &str) -> Result<()> {
    let context = &front.context;
    let own = sandbox.spec().network == NetworkNamespace::Own;
    let hosts = if own {
        let attached = context.network.attach(uid, sandbox.netns_path()).await.map_err(|error| failed(&error))?;
        context.network.publish(uid, host_ports(config)?).await.map_err(|error| failed(&error))?;
        let name = &sandbox.spec().hostname;
        format!("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n{}\t{name}\n", attached.ip)
    } else {
        context.names.host_hosts.clone()
    };
    let dns = config.dns_config.clone().unwrap_or_default();
    let resolv = if dns.servers.is_empty() && dns.searches.is_empty() && dns.options.is_empty() {
        context.names.host_resolv.clone()
    } else {
        host_files::resolver(dns.servers, dns.searches, dns.options)
    };
    let directory = records::etc(&context.runtime.notes(sandbox.id()));
    // The last one says that the sandbox is whole.
    let files = [("resolv.conf", resolv), ("hostname", format!("{}\n", sandbox.spec().hostname)), ("hosts", hosts)];
    let written = tokio::task::spawn_blocking(move || write(directory, &files)).await;
    written.map_err(io::Error::other).and_then(|done| done).map_err(|error| failed(&error))
}

fn write(directory: PathBuf, files: &[(&str, String)]) -> io::Result<()> {
    std::fs::create_dir_all(&directory)?;
    files.iter().try_for_each(|(name, text)| std::fs::write(directory.join(name), text))
}

/// Ends everything in a sandbox; what there was can still be looked at. One that is not there is stopped.
pub(super) async fn stop(front: Arc<Front>, request: PodSandboxRequest) -> Result<Nothing> {
    let Some(own) = front.own_sandbox(&request.pod_sandbox_id).await? else { return Ok(Nothing {}) };
    let _changing = own.changing.lock().await;
    stop_own(&front, &own).await?;
    Ok(Nothing {})
}

async fn stop_own(front: &Front, own: &records::Sandbox) -> Result<()> {
    let context = &front.context;
    context.runtime.stop_sandbox(&own.id).await.map_err(|error| refused(&error))?;
    context.network.detach(&own.uid).await.map_err(|error| failed(&error))?;
    front.tell(Happened::SandboxStopped(own.id.clone()));
    Ok(())
}

/// Ends a sandbox and removes everything of it but its logs. One that is not there is removed.
pub(super) async fn remove(front: Arc<Front>, request: PodSandboxRequest) -> Result<Nothing> {
    let Some(own) = front.own_sandbox(&request.pod_sandbox_id).await? else { return Ok(Nothing {}) };
    let _changing = own.changing.lock().await;
    if front.records.sandbox_of(&own.id).is_none() {
        return Ok(Nothing {});
    }
    let context = &front.context;
    stop_own(&front, &own).await?;
    context.runtime.remove_sandbox(&own.id).await.map_err(|error| refused(&error))?;
    claims::release(&context.images, &context.config.mark, &own.uid).await;
    context.images_changed.notify_one();
    for container in front.records.remove_sandbox(&own.id) {
        front.tell(Happened::ContainerRemoved(container.id.clone()));
    }
    front.tell(Happened::SandboxRemoved(own.id.clone()));
    Ok(Nothing {})
}

/// Limits a sandbox as a whole anew. What is not said stays.
pub(super) async fn update(front: Arc<Front>, request: UpdatePodSandboxResourcesRequest) -> Result<Nothing> {
    let own = front.own_sandbox(&request.pod_sandbox_id).await?;
    let own = own.ok_or_else(|| missing("sandbox", &request.pod_sandbox_id))?;
    let _changing = own.changing.lock().await;
    let changed = limits(request.overhead.as_ref(), request.resources.as_ref())?;
    let sandbox = front.context.runtime.sandbox(&own.id).await.map_err(|_| over(own.id.as_str()))?;
    sandbox.update_sandbox(&changed).await.map_err(|error| refused(&error))?;
    Ok(Nothing {})
}

impl Front {
    /// The addresses of a sandbox that lives and has its own network.
    pub(super) async fn addresses(&self, seen: &Seen) -> Vec<IpAddr> {
        if !seen.status.alive || seen.status.spec.network == NetworkNamespace::Host {
            return Vec::new();
        }
        let attached = self.context.network.attachment(&seen.status.spec.pod_uid).await.ok().flatten();
        attached.map(|attached| IpAddr::V4(attached.ip)).into_iter().collect()
    }
}

pub(super) async fn status(front: &Front, request: PodSandboxStatusRequest) -> Result<PodSandboxStatusResponse> {
    let seen = front.sandbox(&request.pod_sandbox_id).await?;
    let mut info = BTreeMap::new();
    if request.verbose {
        let shown = json!({
            "pid": seen.status.supervisor_pid, "runtimeSpec": seen.status.spec.resources,
            "hostname": seen.status.spec.hostname, "sysctls": seen.status.spec.sysctls,
        });
        info.insert("info".to_owned(), shown.to_string());
    }
    Ok(PodSandboxStatusResponse {
        status: Some(seen.shown(&front.addresses(&seen).await)),
        info,
        containers_statuses: seen.containers().map(|container| container.shown()).collect(),
        timestamp: nanoseconds(SystemTime::now()),
    })
}

pub(super) async fn list(front: &Front, request: ListPodSandboxRequest) -> Result<ListPodSandboxResponse> {
    let filter = request.filter.unwrap_or_default();
    let wanted = |seen: &Seen| {
        seen.status.id.as_str().starts_with(&filter.id)
            && filter.state.as_ref().is_none_or(|wanted| wanted.state == i32::from(seen.state()))
            && selects(&filter.label_selector, &seen.labels())
    };
    let items = front.sandboxes().await?.iter().filter(|seen| wanted(seen)).map(Seen::listed).collect();
    Ok(ListPodSandboxResponse { items })
}

/// Says that nothing can be started in a sandbox any more.
pub(super) fn over(id: &str) -> Refusal {
    Refusal(Code::FailedPrecondition, format!("sandbox {id:?} is not running"))
}
