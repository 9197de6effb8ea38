//! Writing the cgroups of a pod and of its containers anew.

use std::sync::Arc;

use coracle_runtime::{ContainerId, Resources, Sandbox};
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};

use super::Done;
use crate::pod;
use crate::pod::start::chain;

/// What came of a resize.
#[derive(Debug)]
pub(in crate::pod::worker) struct Resized {
    /// The resources of those containers that have theirs now, by id.
    pub(in crate::pod::worker) told: Vec<(String, ResourceRequirements)>,
    /// Those of the pod itself, if it has them.
    pub(in crate::pod::worker) pod_told: Option<ResourceRequirements>,
    /// Why the others have not.
    pub(in crate::pod::worker) result: Result<(), String>,
}

/// A container whose cgroup is to be written, its id, and what it was told before, if that is known.
pub(in crate::pod::worker) type Change = (Container, ContainerId, Option<ResourceRequirements>);

/// Writes new limits. The pod's own are lifted first and set last, so that those of a container never exceed them.
pub(in crate::pod::worker) async fn resize(
    sandbox: Sandbox,
    pod: Arc<Pod>,
    (pod_before, changes): (Option<ResourceRequirements>, Vec<Change>),
    pids_limit: Option<u32>,
) -> Done {
    let mut done = Resized { told: Vec::new(), pod_told: None, result: Ok(()) };
    done.result = resize_steps(&sandbox, &pod, (pod_before.as_ref(), &changes), pids_limit, &mut done).await;
    Done::Resized(done)
}

async fn resize_steps(
    sandbox: &Sandbox,
    pod: &Pod,
    (pod_before, changes): (Option<&ResourceRequirements>, &[Change]),
    pids_limit: Option<u32>,
    done: &mut Resized,
) -> Result<(), String> {
    let wanted = pod::resources::of_pod(pod, pids_limit);
    let limit_of = |resources: Option<&ResourceRequirements>| {
        resources.and_then(|r| r.limits.as_ref()?.get("memory")).map(pod::resources::whole)
    };
    let mut below = Vec::new();
    let reads = |e: coracle_runtime::Error| format!("unable to read memory usage: {}", chain(&e));
    if let (Some(limit), Some(before)) = (wanted.memory_limit, pod_before)
        && limit_of(Some(before)).is_none_or(|had| limit < had)
    {
        let used = sandbox.sandbox_stats().await.map_err(reads)?.memory_usage;
        if used >= u64::try_from(limit).unwrap_or(0) {
            below.push(format!("attempting to set pod memory limit ({limit}) below current usage ({used})"));
        }
    }
    for (container, id, before) in changes {
        let limit = pod::resources::of_container(pod, container).memory_limit;
        let had = limit_of(before.as_ref());
        if let Some(limit) = limit
            && before.is_some()
            && had.is_none_or(|had| limit < had)
        {
            let used = sandbox.container_stats(id).await.map_err(reads)?.memory_usage;
            if used >= u64::try_from(limit).unwrap_or(0) {
                let name = &container.name;
                below.push(format!(
                    "attempting to set container \"{name}\" memory limit ({limit}) below current usage ({used})"
                ));
            }
        }
    }
    match below.as_slice() {
        [] => {}
        [one] => return Err(format!("cannot decrease memory limits: {one}")),
        several => return Err(format!("cannot decrease memory limits: [{}]", several.join(", "))),
    }
    let lifted = Resources {
        cpu_shares: wanted.cpu_shares,
        cpu_quota: Some(-1),
        memory_limit: Some(-1),
        swap_limit: Some(-1),
        ..Resources::default()
    };
    sandbox.update_sandbox(&lifted).await.map_err(|e| chain(&e))?;
    let mut first = Ok(());
    for (container, id, _) in changes {
        match sandbox.update_container(id, &pod::resources::of_container(pod, container)).await {
            Ok(()) => done.told.push((id.to_string(), pod::resize::of_container(pod, container))),
            // It has ended meanwhile, and begins with what it is to have.
            Err(error) if error.is_not_found() => {}
            Err(error) if first.is_ok() => first = Err(chain(&error)),
            Err(_) => {}
        }
    }
    sandbox.update_sandbox(&wanted).await.map_err(|e| chain(&e))?;
    done.pod_told = Some(pod::resize::of_pod(pod));
    first
}
