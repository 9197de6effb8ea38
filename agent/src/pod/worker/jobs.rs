//! What a worker has done for it beside its loop: each job is a future that owns what it needs and says what came of it.

mod resize;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use coracle_network::{HostPort, Protocol};
use coracle_runtime::{ContainerId, Exit, NetworkNamespace, Sandbox, SandboxId};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements, ServiceAccount};
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::claims;
use crate::context::Context;
use crate::event::Kind;
use crate::figures::Operation;
use crate::node;
use crate::pod::environment::Objects;
use crate::pod::start::{Failure, Start, blocking, chain, downward};
use crate::pod::{self, admission, container_spec, host_files, lifecycle};
use crate::volume::set::{self, PodDir};
use crate::volume::{self, Tokens};
pub(super) use resize::{Resized, resize};

/// How long after a teardown that failed it is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// The shortest time a container gets after its `preStop` took all of its grace period.
const AFTER_HOOK: Duration = Duration::from_secs(2);

/// What came of a job.
#[derive(Debug)]
pub(super) enum Done {
    /// Volumes, sandbox and network.
    SetUp {
        /// The sandbox's attempt.
        attempt: u32,
        /// What there is now.
        result: Result<SetUp, SandboxFailure>,
    },
    /// A container was started, or not.
    Started {
        /// Its name.
        container: String,
        /// What it was given of the node.
        resources: ResourceRequirements,
        /// Its id.
        result: Result<String, Failure>,
    },
    /// A container was stopped.
    Stopped {
        /// Its id.
        id: String,
    },
    /// Cgroups were written anew.
    Resized(Resized),
    /// Volumes were written anew.
    Rewritten {
        /// Where they are and when tokens must be renewed, or the volume and what is wrong with it.
        result: Result<Made, (String, String)>,
    },
    /// The pod was taken off the host.
    TornDown {
        /// What went wrong.
        result: Result<(), String>,
        /// Its records were kept.
        only_stop: bool,
    },
    /// It is time to try the teardown again.
    RetryTearDown,
    /// The status was written; the pod as it is now, or `None` if there is none.
    Status {
        /// What went wrong.
        result: Result<Option<Pod>, String>,
    },
    /// The deletion was confirmed.
    Confirmed {
        /// What went wrong.
        result: Result<(), String>,
    },
}

/// A pod that is set up.
#[derive(Debug)]
pub(super) struct SetUp {
    /// Its sandbox.
    pub(super) sandbox: Sandbox,
    /// Its addresses: the host's with the host's network.
    pub(super) ips: Vec<IpAddr>,
    /// Where its volumes are.
    pub(super) volumes: BTreeMap<String, PathBuf>,
    /// When its tokens must be renewed.
    pub(super) refresh_tokens: Option<Timestamp>,
    /// What its cgroup was told, if it was made now.
    pub(super) told: ResourceRequirements,
}

/// Why a pod could not be set up.
#[derive(Debug)]
pub(super) enum SandboxFailure {
    /// A volume.
    Volume {
        /// Its name.
        volume: String,
        /// What is wrong.
        why: String,
    },
    /// The sandbox or its network.
    Sandbox {
        /// What is wrong.
        why: String,
    },
}

/// Makes the sandbox, its network, the pod's files and volumes; finds what is there already.
pub(super) async fn set_up(
    context: Arc<Context>,
    pod: Arc<Pod>,
    objects: Objects,
    attempt: u32,
    recovering: bool,
) -> Done {
    let result = match handler(&context, &pod, recovering).await {
        Ok(()) => set_up_steps(&context, &pod, &objects, attempt).await,
        Err(why) => Err(SandboxFailure::Sandbox { why }),
    };
    if !recovering {
        context.figures.pod_began(result.is_ok());
    }
    if !recovering && let Err(SandboxFailure::Sandbox { .. }) = &result {
        // What was made of it is not left behind for the next try to trip over.
        let id = SandboxId::of(pod::uid(&pod), attempt);
        if let Err(error) = context.runtime.remove_sandbox(&id).await {
            tracing::debug!(pod = pod::key(&pod), error = &error as &dyn std::error::Error, "sandbox not removed");
        }
    }
    Done::SetUp { attempt, result }
}

/// Whether this node's runtime is the one that the pod's class of runtimes wants. One that runs already has been asked.
async fn handler(context: &Context, pod: &Pod, recovering: bool) -> Result<(), String> {
    let Some(name) =
        pod::spec(pod).0.and_then(|spec| spec.runtime_class_name.as_deref()).filter(|name| !name.is_empty())
    else {
        return Ok(());
    };
    if recovering {
        return Ok(());
    }
    let classes: Api<RuntimeClass> = Api::all(context.client.clone());
    let class = classes.get(name).await.map_err(|e| format!("failed to get RuntimeClass {name:?}: {}", chain(&e)))?;
    if node::HANDLERS.contains(&class.handler.as_str()) {
        return Ok(());
    }
    Err(format!("failed to get sandbox runtime: no runtime for \"{}\" is configured", class.handler))
}

async fn set_up_steps(
    context: &Arc<Context>,
    pod: &Arc<Pod>,
    objects: &Objects,
    attempt: u32,
) -> Result<SetUp, SandboxFailure> {
    let failed = |error: &dyn std::error::Error| SandboxFailure::Sandbox { why: chain(error) };
    let uid = pod::uid(pod);
    if attempt > 0 {
        // The sandbox before it died; its containers' ends are remembered. While anything of it cannot be removed, nothing
        // is started beside it.
        context.runtime.remove_sandbox(&SandboxId::of(uid, attempt - 1)).await.map_err(|e| failed(&e))?;
    }
    let hostname = host_files::kernel_host_name(pod, &context.names);
    let log_dir = context.config.logs_dir().join(log_name(pod));
    let pids_limit = context.config.pod_pids_limit;
    let spec = container_spec::sandbox_spec(pod, attempt, hostname.clone(), log_dir, pids_limit);
    let own_network = spec.network == NetworkNamespace::Own;
    let making = context.runtime.create_sandbox(&spec);
    let sandbox = context.figures.operation(Operation::RunSandbox, making).await.map_err(|e| failed(&e))?;
    let ips: Vec<IpAddr> = if own_network {
        let attached = context.network.attach(uid, sandbox.netns_path()).await.map_err(|e| failed(&e))?;
        context.network.publish(uid, host_ports(pod)).await.map_err(|e| failed(&e))?;
        vec![IpAddr::V4(attached.ip)]
    } else {
        context.host.ips.clone()
    };

    let resolv = host_files::resolv_conf(pod, &context.names);
    if resolv.missing_cluster_dns {
        let message = format!(
            "pod: \"{}\". kubelet does not have ClusterDNS IP configured and cannot create Pod using \"ClusterFirst\" policy. Falling back to \"Default\" policy.",
            pod::security::long_name(pod)
        );
        context.events.pod(pod, None, Kind::Warning, "MissingClusterDNS", message);
    }
    let files = [
        ("hosts", host_files::hosts(pod, &context.names, &ips)),
        ("hostname", format!("{hostname}\n")),
        ("resolv.conf", resolv.text),
    ];
    let dir = PodDir::new(&context.config.pods_dir(), uid);
    blocking(move || write_files(&dir, &files)).await.map_err(|why| SandboxFailure::Sandbox { why })?;
    let (volumes, refresh_tokens) =
        volumes(context, pod, objects, &ips).await.map_err(|(volume, why)| SandboxFailure::Volume { volume, why })?;
    Ok(SetUp { sandbox, ips, volumes, refresh_tokens, told: pod::resize::of_pod(pod) })
}

/// The ports of the host that lead to the pod. Those of addresses that pods have none of lead nowhere.
fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let number = |port: i32| u16::try_from(port).ok().filter(|port| *port > 0);
    admission::published(pod)
        .filter_map(|(port, container_port)| {
            let (host_ip, protocol, host_port) = port;
            Some(HostPort {
                protocol: match protocol.as_str() {
                    "UDP" => Protocol::Udp,
                    "SCTP" => Protocol::Sctp,
                    _ => Protocol::Tcp,
                },
                host_ip: match host_ip.as_str() {
                    "" => None,
                    ip => Some(ip.parse().ok()?),
                },
                host_port: number(host_port)?,
                pod_port: number(container_port)?,
            })
        })
        .collect()
}

fn write_files(dir: &PodDir, files: &[(&str, String)]) -> Result<(), volume::Error> {
    for (name, text) in files {
        let path = dir.etc(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(|e| volume::Error::io("make", parent, e))?;
        }
        // Written in place: running containers have this very file mounted.
        if std::fs::read_to_string(&path).ok().as_ref() != Some(text) {
            std::fs::write(&path, text).map_err(|e| volume::Error::io("write", &path, e))?;
        }
    }
    Ok(())
}

/// A pod's directory of logs, as the CRI names it.
pub(crate) fn log_name(pod: &Pod) -> String {
    format!("{}_{}_{}", pod::namespace(pod), pod::name(pod), pod::uid(pod))
}

/// Where volumes are, and when the tokens in them must be renewed.
pub(super) type Made = (BTreeMap<String, PathBuf>, Option<Timestamp>);

/// Makes or refreshes every volume of the pod.
async fn volumes(
    context: &Arc<Context>,
    pod: &Arc<Pod>,
    objects: &Objects,
    ips: &[IpAddr],
) -> Result<Made, (String, String)> {
    let (tokens, refresh) = tokens(context, pod).await;
    let downward = downward(context, ips);
    let dir = PodDir::new(&context.config.pods_dir(), pod::uid(pod));
    let (pod, objects) = (Arc::clone(pod), objects.clone());
    let stamp = Timestamp::now().strftime("%Y_%m_%d_%H_%M_%S.%N").to_string();
    let made = tokio::task::spawn_blocking(move || {
        let mut made = BTreeMap::new();
        // Images become volumes as containers start.
        for volume in volume::volumes(&pod).iter().filter(|v| v.image.is_none()) {
            let path = volume::plan(&pod, volume, &objects, &tokens, &downward)
                .and_then(|planned| set::make(&dir, &pod, volume, &planned, &stamp))
                .map_err(|e| (volume.name.clone(), chain(&e)))?;
            made.insert(volume.name.clone(), path);
        }
        Ok::<_, (String, String)>(made)
    })
    .await
    .map_err(|e| ("?".to_owned(), e.to_string()))??;
    Ok((made, refresh))
}

/// Fetches the tokens the pod's volumes hold; answers when the first of them must be renewed (at 80 % of its life).
async fn tokens(context: &Context, pod: &Pod) -> (Tokens, Option<Timestamp>) {
    let mut tokens = Tokens::new();
    let mut refresh: Option<Timestamp> = None;
    let account = pod::spec(pod).0.and_then(|s| s.service_account_name.clone()).unwrap_or_else(|| "default".into());
    let api: Api<ServiceAccount> = Api::namespaced(context.client.clone(), pod::namespace(pod));
    for (volume, wanted) in volume::wanted_tokens(pod) {
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: wanted.audience.clone().filter(|a| !a.is_empty()).map(|a| vec![a]),
                expiration_seconds: Some(wanted.expiration_seconds.unwrap_or(3600)),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".into()),
                    kind: Some("Pod".into()),
                    name: pod.metadata.name.clone(),
                    uid: pod.metadata.uid.clone(),
                }),
            }),
            ..TokenRequest::default()
        };
        let begin = Timestamp::now();
        let result = match api.create_token_request(&account, &PostParams::default(), &request).await {
            Ok(answer) => match answer.status.and_then(|s| Some((s.token?, s.expiration_timestamp?.0))) {
                Some((token, expires)) => {
                    let life = expires.duration_since(begin);
                    let share = SignedDuration::from_secs(life.as_secs().saturating_mul(4) / 5);
                    let due = begin.saturating_add(share).unwrap_or(begin);
                    refresh = Some(refresh.map_or(due, |r: Timestamp| r.min(due)));
                    Ok(token)
                }
                None => Err("the API server answered without a token".to_owned()),
            },
            Err(error) => Err(chain(&error)),
        };
        tokens.insert((volume, wanted.path), result);
    }
    (tokens, refresh)
}

/// Writes the pod's volumes anew.
pub(super) async fn rewrite(context: Arc<Context>, pod: Arc<Pod>, objects: Objects, ips: Vec<IpAddr>) -> Done {
    Done::Rewritten { result: volumes(&context, &pod, &objects, &ips).await }
}

/// Starts a container.
pub(super) async fn start(start: Start) -> Done {
    let container = start.container.name.clone();
    let resources = pod::resize::of_container(&start.pod, &start.container);
    Done::Started { container, resources, result: start.run().await }
}

/// A container to be stopped.
pub(super) struct Stop {
    pub(super) context: Arc<Context>,
    pub(super) pod: Arc<Pod>,
    pub(super) sandbox: Sandbox,
    pub(super) container: Container,
    pub(super) id: ContainerId,
    /// Seconds it gets.
    pub(super) grace: i64,
    /// Where its hook's requests go.
    pub(super) ip: Option<IpAddr>,
    /// When it is killed, however long it was to get.
    pub(super) deadline: watch::Receiver<Option<Instant>>,
}

/// Stops a container: `preStop`, its stop signal, and the kill when its time is over.
pub(super) async fn stop(stop: Stop) -> Done {
    let stopping = async {
        tokio::select! {
            stopped = stop.gently() => stopped,
            () = passed(stop.deadline.clone()) => stop.sandbox.stop(&stop.id, Duration::ZERO).await,
        }
    };
    let stopped = stop.context.figures.operation(Operation::StopContainer, stopping).await;
    if let Err(error) = stopped
        && !error.is_not_found()
    {
        tracing::warn!(
            pod = pod::key(&stop.pod),
            container = stop.container.name,
            error = &error as &dyn std::error::Error,
            "container not stopped"
        );
        tokio::time::sleep(RETRY).await;
    }
    Done::Stopped { id: stop.id.to_string() }
}

impl Stop {
    async fn gently(&self) -> Result<Exit, coracle_runtime::Error> {
        let mut grace = Duration::from_secs(u64::try_from(self.grace).unwrap_or(0));
        if let Some(hook) = self.container.lifecycle.as_ref().and_then(|l| l.pre_stop.as_ref())
            && !grace.is_zero()
        {
            let begin = Instant::now();
            let place =
                lifecycle::Place { sandbox: &self.sandbox, container: &self.container, id: &self.id, ip: self.ip };
            let ran = tokio::time::timeout(grace, lifecycle::run(hook, &place, grace)).await;
            if let Ok(Err(why)) = ran {
                let message = format!("PreStopHook failed: {why}");
                self.context.events.pod(
                    &self.pod,
                    Some(&self.container.name),
                    Kind::Warning,
                    "FailedPreStopHook",
                    message,
                );
            }
            grace = grace.saturating_sub(begin.elapsed()).max(AFTER_HOOK);
        }
        self.sandbox.stop(&self.id, grace).await
    }
}

/// Ends when the deadline has passed, which may be set, and set earlier, at any time.
async fn passed(mut deadline: watch::Receiver<Option<Instant>>) {
    loop {
        let at = *deadline.borrow_and_update();
        let wait = async {
            match at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = wait => return,
            // Without anyone who could change it, it stays as it is.
            Ok(()) = deadline.changed() => {}
        }
    }
}

/// Takes the pod off the host. `only_stop` keeps its records and logs (a pod that is over until it is deleted): what it wrote
/// elsewhere nobody can read any more, and others may need the room.
pub(super) async fn tear_down(
    context: Arc<Context>,
    pod: Arc<Pod>,
    sandboxes: BTreeSet<SandboxId>,
    only_stop: bool,
    keep_logs: bool,
) -> Done {
    let mut first: Result<(), String> = Ok(());
    let mut stands = false;
    let mut note = |result: Result<(), String>| {
        if first.is_ok() {
            first = result;
        }
    };
    for id in &sandboxes {
        let (figures, runtime) = (&context.figures, &context.runtime);
        let result = if only_stop {
            figures.operation(Operation::StopSandbox, runtime.stop_sandbox(id)).await
        } else {
            figures.operation(Operation::RemoveSandbox, runtime.remove_sandbox(id)).await
        };
        stands |= result.is_err();
        note(result.map_err(|e| chain(&e)));
    }
    if !stands {
        claims::release(&context.images, &context.config.mark, pod::uid(&pod)).await;
        context.images_changed.notify_one();
    }
    note(context.network.detach(pod::uid(&pod)).await.map_err(|e| chain(&e)));
    let dir = PodDir::new(&context.config.pods_dir(), pod::uid(&pod));
    if only_stop && !stands {
        for id in &sandboxes {
            note(context.runtime.discard_layers(id).await.map_err(|e| chain(&e)));
        }
        note(blocking(move || set::remove_volumes(&dir)).await);
    } else if !only_stop {
        note(blocking(move || set::remove(&dir)).await);
        if !keep_logs {
            let logs = context.config.logs_dir().join(log_name(&pod));
            note(blocking(move || remove_logs(&logs)).await);
        }
    }
    Done::TornDown { result: first, only_stop }
}

fn remove_logs(path: &std::path::Path) -> Result<(), std::io::Error> {
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Waits before a teardown is tried again.
pub(super) async fn wait_then_retry() -> Done {
    tokio::time::sleep(RETRY).await;
    Done::RetryTearDown
}

/// Removes an old attempt and its log.
pub(super) async fn forget(context: Arc<Context>, sandbox: Sandbox, id: ContainerId, log: PathBuf) -> Done {
    let removing = sandbox.remove_container(&id);
    if let Err(error) = context.figures.operation(Operation::RemoveContainer, removing).await {
        tracing::debug!(container = id.as_str(), error = &error as &dyn std::error::Error, "old container not removed");
    }
    if !log.as_os_str().is_empty()
        && let Err(error) = tokio::fs::remove_file(&log).await
    {
        tracing::debug!(log = %log.display(), error = &error as &dyn std::error::Error, "old log not removed");
    }
    Done::Stopped { id: id.to_string() }
}

/// Writes the status.
pub(super) async fn write_status(client: kube::Client, pod: Arc<Pod>, patch: Value) -> Done {
    let api: Api<Pod> = Api::namespaced(client, pod::namespace(&pod));
    let result = match api.patch_status(pod::name(&pod), &PatchParams::default(), &Patch::Strategic(patch)).await {
        Ok(pod) => Ok(Some(pod)),
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(None),
        Err(error) => Err(chain(&error)),
    };
    Done::Status { result }
}

/// Tells the API server that nothing of a deleted pod is left here.
pub(super) async fn confirm(client: kube::Client, pod: Arc<Pod>) -> Done {
    let api: Api<Pod> = Api::namespaced(client, pod::namespace(&pod));
    let params = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions { uid: pod.metadata.uid.clone(), resource_version: None }),
        ..DeleteParams::default()
    };
    let result = match api.delete(pod::name(&pod), &params).await {
        Ok(_) => Ok(()),
        // Gone already, or another of the same name stands in its place.
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
        Err(error) => Err(chain(&error)),
    };
    Done::Confirmed { result }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_deadline_set_later_and_then_earlier_holds() {
        let sender = watch::Sender::new(None);
        let begin = Instant::now();
        let after = |seconds| Some(begin + Duration::from_secs(seconds));
        let set = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            sender.send_replace(after(30));
            tokio::time::sleep(Duration::from_secs(1)).await;
            sender.send_replace(after(5));
        };
        tokio::join!(passed(sender.subscribe()), set);
        assert_eq!(begin.elapsed().as_secs(), 5);
    }
}
