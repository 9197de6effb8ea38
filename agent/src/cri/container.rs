//! The life of a container.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use coracle_process::grpc::{Code, Refusal, Result};
use coracle_runtime::image::{Digest, Image};
use coracle_runtime::{ContainerId, DEFAULT_APPARMOR_PROFILE, Error, MountKind};
use serde_json::json;

use super::container_spec::{Ingredients, container_spec, image_name, image_ref, place, resources};
use super::events::Happened;
use super::find::missing;
use super::messages::{
    CheckpointContainerRequest, ContainerRequest, ContainerState, ContainerStatusRequest, ContainerStatusResponse,
    CreateContainerRequest, CreateContainerResponse, LinuxContainerConfig, LinuxContainerResources,
    ListContainersRequest, ListContainersResponse, Mount, Nothing, StopContainerRequest,
    UpdateContainerResourcesRequest,
};
use super::view::{SeenContainer, selects};
use super::{Front, cdi, failed, image, invalid, records, refused, sandbox};
use crate::claims;

/// Makes a container, which is started later. Its image is kept from now on.
pub(super) async fn create(front: Arc<Front>, request: CreateContainerRequest) -> Result<CreateContainerResponse> {
    let mut config = request.config.ok_or_else(|| invalid("container config is required"))?;
    let own = front.own_sandbox(&request.pod_sandbox_id).await?;
    let own = own.ok_or_else(|| missing("sandbox", &request.pod_sandbox_id))?;
    let _changing = own.changing.lock().await;
    let context = &front.context;
    // Who is not there any more is said to be missing, who has ended to be over.
    let seen = front.sandbox(own.id.as_str()).await?;
    if !seen.status.alive {
        return Err(sandbox::over(own.id.as_str()));
    }
    let metadata = config.metadata.clone().unwrap_or_default();
    if let Some(other) = seen.made.iter().find(|other| other.metadata == metadata) {
        let name = format!("{}_{}", metadata.name, metadata.attempt);
        let why =
            format!("failed to reserve container name {name:?}: name {name:?} is reserved for {:?}", other.id.as_str());
        return Err(Refusal(Code::AlreadyExists, why));
    }
    let named = config.image.as_ref().map(|spec| spec.image.as_str()).unwrap_or_default();
    let image = find_image(&front, named)?;
    let owner = claims::owner(&context.config.mark, &own.uid);
    claim(&front, &owner, &image, named).await?;
    let mut sources = BTreeMap::new();
    let mut mounted = BTreeSet::new();
    for mount in &mut config.mounts {
        let kind = if let Some(name) = image_name(mount) {
            let image = find_image(&front, name)?;
            claim(&front, &owner, &image, name).await?;
            let sub_path = sub_path(&front, &image, mount).await?;
            mounted.insert(image.id.clone());
            // Statuses say which image it is (KEP-5365), whatever its name stands for later.
            if let Some(spec) = &mut mount.image {
                spec.image_ref = image.id.to_string();
            }
            MountKind::Layers { layers: context.images.lower_dirs(&image), sub_path }
        } else {
            MountKind::Bind { source: host_path(&mount.host_path).await? }
        };
        sources.insert(place(mount), kind);
    }
    let names: Vec<String> = config.cdi_devices.iter().map(|device| device.name.clone()).collect();
    let cdi = tokio::task::spawn_blocking(move || cdi::find(&names, &cdi::DIRECTORIES.map(PathBuf::from)));
    let cdi = cdi.await.map_err(|error| failed(&error))??;
    let notes = context.runtime.notes(&own.id);
    let name = format!("{:016x}", rand::random::<u64>());
    let spec = container_spec(
        &config,
        &Ingredients {
            name: name.clone(),
            sandbox: &own.config,
            sandbox_spec: &seen.status.spec,
            image: &image.config.config,
            layers: context.images.lower_dirs(&image),
            etc: records::etc(&notes),
            sources: &sources,
            apparmor: coracle_runtime::apparmor_enabled(),
            cdi,
        },
    )?;
    if let Some(profile) = &spec.apparmor
        && profile != DEFAULT_APPARMOR_PROFILE
        && matches!(coracle_runtime::apparmor_loaded(profile), Ok(false))
    {
        return Err(invalid(format!("apparmor profile not found {profile}")));
    }
    let id = ContainerId::of(&own.id, &name, 0);
    let container = records::Container {
        id: id.clone(),
        sandbox: own.id.clone(),
        config,
        metadata,
        image_ref: image_ref(&image),
        image: image.id,
        mounted,
        created: SystemTime::now(),
        spec,
    };
    front.records.keep(context, container).await?;
    front.tell(Happened::ContainerMade(own.id.clone(), id.clone()));
    Ok(CreateContainerResponse { container_id: id.to_string() })
}

fn find_image(front: &Front, name: &str) -> Result<Image> {
    if name.is_empty() {
        return Err(invalid("image name is required"));
    }
    let missing = || Refusal(Code::NotFound, format!("failed to resolve image {name:?}: not found"));
    front.context.images.get(name).ok_or_else(missing)
}

async fn claim(front: &Front, owner: &str, image: &Image, name: &str) -> Result<()> {
    match front.context.images.claim_also(owner, &image.id).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(Refusal(Code::NotFound, format!("failed to resolve image {name:?}: not found"))),
        Err(error) => Err(image::refused(&error)),
    }
}

/// The part of an image that is mounted, which must be there; none for the whole.
async fn sub_path(front: &Front, image: &Image, mount: &Mount) -> Result<Option<String>> {
    if mount.image_sub_path.is_empty() {
        return Ok(None);
    }
    let (context, image, path) = (Arc::clone(&front.context), image.clone(), mount.image_sub_path.clone());
    let found = tokio::task::spawn_blocking(move || context.images.has(&image, &path).map(|found| (found, path))).await;
    match found.map_err(io::Error::other).and_then(|done| done) {
        Ok((true, path)) => Ok(Some(path)),
        Ok((false, path)) => Err(invalid(format!("image_sub_path {path:?} is not in the image"))),
        Err(error) => Err(failed(&error)),
    }
}

/// A path of the host without links; made as a directory when there is nothing, as other runtimes do.
async fn host_path(text: &str) -> Result<PathBuf> {
    let path = Path::new(text);
    if !path.is_absolute() {
        return Err(invalid(format!("host_path {text:?} is not absolute")));
    }
    let wrong = |error: io::Error| Refusal(Code::Unknown, format!("failed to prepare host path {text:?}: {error}"));
    match tokio::fs::canonicalize(path).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            tokio::fs::create_dir_all(path).await.map_err(wrong)?;
            tokio::fs::canonicalize(path).await.map_err(wrong)
        }
        found => found.map_err(wrong),
    }
}

/// The container of this id, to be changed.
async fn own(front: &Front, id: &str) -> Result<Arc<records::Container>> {
    front.own_container(id).await?.ok_or_else(|| missing("container", id))
}

/// Its sandbox.
fn sandbox_of(front: &Front, container: &records::Container) -> Result<Arc<records::Sandbox>> {
    let found = front.records.sandbox_of(&container.sandbox);
    found.ok_or_else(|| missing("container", container.id.as_str()))
}

/// How a container fares now.
async fn state(front: &Front, container: &records::Container) -> Result<(ContainerState, &'static str)> {
    let (seen, id) = front.container(container.id.as_str()).await?;
    let found = seen.container(&id).map(|found| (found.state(), found.state_name()));
    found.ok_or_else(|| missing("container", container.id.as_str()))
}

/// Starts a container that has not been started.
pub(super) async fn start(front: Arc<Front>, request: ContainerRequest) -> Result<Nothing> {
    let container = own(&front, &request.container_id).await?;
    let of = sandbox_of(&front, &container)?;
    let _changing = of.changing.lock().await;
    // What it is to be started with may have been changed meanwhile.
    let container = own(&front, container.id.as_str()).await?;
    let id = container.id.as_str();
    match state(&front, &container).await? {
        (ContainerState::Created, _) => {}
        (_, name) => {
            let why = format!("failed to set starting state for container {id:?}: container is in {name} state");
            return Err(Refusal(Code::FailedPrecondition, why));
        }
    }
    let sandbox = match front.context.runtime.sandbox(&of.id).await {
        Err(Error::SandboxNotFound { .. }) => return Err(sandbox::over(of.id.as_str())),
        found => found.map_err(|error| refused(&error))?,
    };
    match sandbox.start_container(&container.spec).await {
        Ok(_) => Ok(Nothing {}),
        Err(Error::Start(error)) => {
            Err(Refusal(Code::Unknown, format!("failed to start container {id:?}: failed to create task: {error}")))
        }
        Err(error) => Err(refused(&error)),
    }
}

/// Ends a container: politely first, if there is time. One that is not there or does not run is stopped.
pub(super) async fn stop(front: Arc<Front>, request: StopContainerRequest) -> Result<Nothing> {
    let Some(container) = front.own_container(&request.container_id).await? else { return Ok(Nothing {}) };
    let sandbox = match front.context.runtime.sandbox(&container.sandbox).await {
        Err(Error::SandboxNotFound { .. }) => return Ok(Nothing {}),
        found => found.map_err(|error| refused(&error))?,
    };
    let grace = Duration::from_secs(u64::try_from(request.timeout).unwrap_or(0));
    match sandbox.stop(&container.id, grace).await {
        Ok(_) | Err(Error::ContainerNotFound { .. } | Error::SandboxNotFound { .. }) => Ok(Nothing {}),
        Err(error) => Err(refused(&error)),
    }
}

/// Removes a container, which is killed if it runs. One that is not there is removed. Its log stays.
pub(super) async fn remove(front: Arc<Front>, request: ContainerRequest) -> Result<Nothing> {
    let Some(container) = front.own_container(&request.container_id).await? else { return Ok(Nothing {}) };
    let Some(of) = front.records.sandbox_of(&container.sandbox) else { return Ok(Nothing {}) };
    let _changing = of.changing.lock().await;
    if front.records.container(container.id.as_str())?.is_none() {
        return Ok(Nothing {});
    }
    let context = &front.context;
    if let Ok(sandbox) = context.runtime.sandbox(&of.id).await {
        match sandbox.stop(&container.id, Duration::ZERO).await {
            Ok(_) | Err(Error::ContainerNotFound { .. } | Error::SandboxNotFound { .. }) => {}
            Err(error) => return Err(refused(&error)),
        }
    }
    context.runtime.remove_container(&of.id, &container.id).await.map_err(|error| refused(&error))?;
    front.records.forget(context, &container).await?;
    // Images of containers that are left are kept, others are not.
    let left = front.records.containers(&of.id);
    let needed: BTreeSet<Digest> =
        left.iter().flat_map(|one| one.mounted.iter().chain([&one.image])).cloned().collect();
    let owner = claims::owner(&context.config.mark, &of.uid);
    context.images.claim(&owner, &needed).await.map_err(|error| image::refused(&error))?;
    context.images_changed.notify_one();
    front.tell(Happened::ContainerRemoved(container.id.clone()));
    Ok(Nothing {})
}

/// Changes the limits of a container that runs, or is going to.
pub(super) async fn update(front: Arc<Front>, request: UpdateContainerResourcesRequest) -> Result<Nothing> {
    let container = own(&front, &request.container_id).await?;
    let asked = request.linux.ok_or_else(|| invalid("linux resources are required"))?;
    let changed = resources(&asked)?;
    let of = sandbox_of(&front, &container)?;
    let _changing = of.changing.lock().await;
    let mut container = (*own(&front, container.id.as_str()).await?).clone();
    match state(&front, &container).await? {
        (ContainerState::Created, _) => {}
        (ContainerState::Running, _) => {
            let sandbox = context_sandbox(&front, &of).await?;
            sandbox.update_container(&container.id, &changed).await.map_err(|error| refused(&error))?;
        }
        (_, name) => return Err(Refusal(Code::FailedPrecondition, format!("container is in {name} state"))),
    }
    let linux = container.config.linux.get_or_insert_with(LinuxContainerConfig::default);
    let merged = merged(linux.resources.clone().unwrap_or_default(), asked);
    container.spec.resources = resources(&merged)?;
    linux.resources = Some(merged);
    front.records.keep(&front.context, container).await?;
    Ok(Nothing {})
}

async fn context_sandbox(front: &Front, of: &records::Sandbox) -> Result<coracle_runtime::Sandbox> {
    front.context.runtime.sandbox(&of.id).await.map_err(|error| refused(&error))
}

/// What was said before, but for what is said now.
fn merged(before: LinuxContainerResources, now: LinuxContainerResources) -> LinuxContainerResources {
    let number = |now: i64, before: i64| if now == 0 { before } else { now };
    let text = |now: String, before: String| if now.is_empty() { before } else { now };
    let mut unified = before.unified;
    unified.extend(now.unified);
    LinuxContainerResources {
        cpu_period: number(now.cpu_period, before.cpu_period),
        cpu_quota: number(now.cpu_quota, before.cpu_quota),
        cpu_shares: number(now.cpu_shares, before.cpu_shares),
        memory_limit_in_bytes: number(now.memory_limit_in_bytes, before.memory_limit_in_bytes),
        oom_score_adj: number(now.oom_score_adj, before.oom_score_adj),
        cpuset_cpus: text(now.cpuset_cpus, before.cpuset_cpus),
        cpuset_mems: text(now.cpuset_mems, before.cpuset_mems),
        hugepage_limits: if now.hugepage_limits.is_empty() { before.hugepage_limits } else { now.hugepage_limits },
        unified,
        memory_swap_limit_in_bytes: number(now.memory_swap_limit_in_bytes, before.memory_swap_limit_in_bytes),
    }
}

/// Goes on in a new log file, after the client has renamed the old one.
pub(super) async fn reopen(front: &Front, request: ContainerRequest) -> Result<Nothing> {
    let container = own(front, &request.container_id).await?;
    let (sandbox, id) = front.running(container.id.as_str()).await?;
    sandbox.reopen_log(&id).await.map_err(|error| refused(&error))?;
    Ok(Nothing {})
}

/// Refused: to freeze a container's processes into a file is the work of a program of its own (CRIU), which is not here.
pub(super) async fn checkpoint(front: &Front, request: CheckpointContainerRequest) -> Result<Nothing> {
    let (_, id) = front.container(&request.container_id).await?;
    let why = format!("container {id} cannot be checkpointed: Coracle makes no checkpoints");
    Err(Refusal(Code::Unimplemented, why))
}

pub(super) async fn status(front: &Front, request: ContainerStatusRequest) -> Result<ContainerStatusResponse> {
    let (seen, id) = front.container(&request.container_id).await?;
    let container = seen.container(&id).ok_or_else(|| missing("container", id.as_str()))?;
    let mut info = BTreeMap::new();
    if request.verbose {
        info.insert("info".to_owned(), verbose(&container).map_err(|error| failed(&error))?);
    }
    Ok(ContainerStatusResponse { status: Some(container.shown()), info })
}

fn verbose(container: &SeenContainer<'_>) -> serde_json::Result<String> {
    use coracle_runtime::ContainerState::Running;
    let pid = match container.known.map(|known| &known.state) {
        Some(Running { pid, .. }) => *pid,
        _ => 0,
    };
    let spec = container.own.map(|own| &own.spec);
    serde_json::to_string(&json!({"sandboxID": container.of.id(), "pid": pid, "runtimeSpec": spec}))
}

pub(super) async fn list(front: &Front, request: ListContainersRequest) -> Result<ListContainersResponse> {
    let filter = request.filter.unwrap_or_default();
    let wanted = |container: &SeenContainer<'_>| {
        container.id.as_str().starts_with(&filter.id)
            && container.of.status.id.as_str().starts_with(&filter.pod_sandbox_id)
            && filter.state.as_ref().is_none_or(|wanted| wanted.state == i32::from(container.state()))
            && selects(&filter.label_selector, &container.labels())
    };
    let all = front.sandboxes().await?;
    let containers = all.iter().flat_map(|seen| seen.containers()).filter(wanted);
    Ok(ListContainersResponse { containers: containers.map(|container| container.listed()).collect() })
}
