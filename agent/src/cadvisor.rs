//! What the kernel counts of the machine, of all pods together, of each pod and of each container, by cAdvisor's names. It is
//! told on `/metrics/cadvisor` and by the Container Runtime Interface.
//!
//! Labels are as kubelet gives them: `id` is the cgroup; `container`, `image` and `name` are empty for a pod as a whole, and
//! `pod` and `namespace` for what is above pods.

mod families;

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use coracle_runtime::{ContainerId, Details, Sandbox, Stats};
use jiff::Timestamp;
use nix::sys::stat;

pub(crate) use families::{FAMILIES, Family, Kind};

use crate::context::{Context, Entry};
use crate::eviction::usage;
use crate::node::machine::Machine;
use crate::pod::{self, facts::Phase, spec};
use crate::server::stats::{Traffic, host_cpu, traffic};

/// The labels every sample has, in the order of [`Group::labels`].
pub(crate) const LABELS: [&str; 6] = ["container", "id", "image", "name", "namespace", "pod"];

/// One cgroup and what is known of it.
#[derive(Debug, Default)]
pub(crate) struct Group {
    pub(crate) id: String,
    pub(crate) container: String,
    pub(crate) image: String,
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) pod: String,
    pub(crate) details: Details,
    /// When it was looked at.
    pub(crate) seen: Timestamp,
    /// When it began.
    pub(crate) started: Option<Timestamp>,
    /// What went through its interfaces.
    pub(crate) network: Vec<Traffic>,
    pub(crate) disk: Option<Disk>,
    /// Whether its CPU and memory are limited or counted as those of a container are.
    pub(crate) is_whole: bool,
}

/// What a group takes of a file system, and what there is of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    pub(crate) device: String,
    /// Bytes the group takes.
    pub(crate) used: u64,
    /// Bytes there are.
    pub(crate) size: u64,
    /// Inodes there are, and those that are free.
    pub(crate) inodes: (u64, u64),
}

impl Group {
    /// The values of [`LABELS`].
    pub(crate) fn labels(&self) -> [&str; 6] {
        [&self.container, &self.id, &self.image, &self.name, &self.namespace, &self.pod]
    }
}

/// A container as it is to be named.
pub(crate) struct Named<'a> {
    pub(crate) id: &'a ContainerId,
    pub(crate) name: String,
    pub(crate) image: String,
    pub(crate) started: Option<Timestamp>,
}

/// A pod that lives, of which its group and those of its containers are looked at.
pub(crate) struct Looked<'a> {
    pub(crate) sandbox: &'a Sandbox,
    pub(crate) namespace: String,
    pub(crate) pod: String,
    /// Whether it has the host's network, whose traffic is not its own.
    pub(crate) host_network: bool,
}

impl Looked<'_> {
    fn group(&self) -> Group {
        let (namespace, pod) = (self.namespace.clone(), self.pod.clone());
        Group { namespace, pod, seen: Timestamp::now(), is_whole: true, ..Group::default() }
    }

    fn place(&self) -> std::path::PathBuf {
        Path::new("/").join(self.sandbox.group())
    }

    /// The pod as a whole; none when it has ended meanwhile.
    pub(crate) async fn whole(&self, started: Option<Timestamp>) -> Option<Group> {
        let details = self.sandbox.sandbox_details().await.ok()?;
        let interfaces = format!("/proc/{}/net/dev", self.sandbox.supervisor_pid());
        let network = if self.host_network { Vec::new() } else { traffic(&interfaces) };
        Some(Group { id: self.place().display().to_string(), details, started, network, ..self.group() })
    }

    /// One of its running containers; none when it has ended meanwhile.
    pub(crate) async fn container(&self, context: &Context, machine: &Machine, named: Named<'_>) -> Option<Group> {
        let details = self.sandbox.container_details(named.id).await.ok()?;
        let used = written(context, self.sandbox, named.id).await;
        Some(Group {
            id: self.place().join(named.id.as_str()).display().to_string(),
            container: named.name,
            image: named.image,
            name: named.id.to_string(),
            details,
            started: named.started,
            disk: Some(Disk { used, ..disk(context, machine) }),
            ..self.group()
        })
    }
}

/// Looks at the machine, all pods, each pod of the API server's and each of its running containers. What ends meanwhile is
/// left out.
pub(crate) async fn look(context: &Context, machine: &Machine) -> Vec<Group> {
    let entries: Vec<Entry> = context.table.with(|table| table.values().cloned().collect());
    let mut groups = vec![whole(context, machine)];
    let root = Path::new("/").join(&context.config.cgroup_root);
    if let Ok(details) = context.runtime.pods_details().await {
        groups.push(Group {
            id: root.join("kubepods").display().to_string(),
            details,
            seen: Timestamp::now(),
            is_whole: true,
            ..Group::default()
        });
    }
    for entry in entries {
        let Some(sandbox) = &entry.sandbox else { continue };
        let looked = Looked {
            sandbox,
            namespace: pod::namespace(&entry.pod).to_owned(),
            pod: pod::name(&entry.pod).to_owned(),
            host_network: spec(&entry.pod).host_network(),
        };
        let started = entry.pod.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|time| time.0);
        let Some(whole) = looked.whole(started).await else { continue };
        groups.push(whole);
        for (name, attempts) in &entry.attempts {
            let Some(attempt) = attempts.last().filter(|attempt| attempt.phase == Phase::Running) else { continue };
            let Some(id) = ContainerId::parse(&attempt.id) else { continue };
            let (image, started) = (attempt.image.clone(), attempt.started);
            let named = Named { id: &id, name: name.clone(), image, started };
            groups.extend(looked.container(context, machine, named).await);
        }
    }
    groups
}

/// The machine as the group above all.
fn whole(context: &Context, machine: &Machine) -> Group {
    let used = machine.memory.saturating_sub(machine.memory_available);
    let cpu = host_cpu(&std::fs::read_to_string("/proc/stat").unwrap_or_default());
    let stats = Stats { cpu_usage_ns: cpu, memory_usage: used, memory_working_set: used, ..Stats::default() };
    Group {
        id: "/".to_owned(),
        details: Details { stats, ..Details::default() },
        seen: Timestamp::now(),
        network: traffic("/proc/net/dev"),
        disk: Some(Disk { used: machine.disk.saturating_sub(machine.disk_free), ..disk(context, machine) }),
        ..Group::default()
    }
}

/// The file system with pods' data.
fn disk(context: &Context, machine: &Machine) -> Disk {
    let device = device_of(&context.config.data_dir);
    Disk { device, used: 0, size: machine.disk, inodes: machine.inodes }
}

/// The block device a path is on, as in `/dev/vda1`; its numbers where it has no name, as file systems in memory have none.
fn device_of(path: &Path) -> String {
    let device = std::fs::metadata(path).map_or(0, |meta| meta.dev());
    let number = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    device_name((number(stat::major(device)), number(stat::minor(device))))
}

fn device_name((major, minor): (u32, u32)) -> String {
    let named = std::fs::read_link(format!("/sys/dev/block/{major}:{minor}")).ok();
    match named.as_ref().and_then(|path| path.file_name()) {
        Some(name) => format!("/dev/{}", name.to_string_lossy()),
        None => format!("{major}:{minor}"),
    }
}

/// What a container has written to its root, measured at most once in a while: there may be many files.
async fn written(context: &Context, sandbox: &Sandbox, id: &ContainerId) -> u64 {
    if let Some(bytes) = context.figures.layer(id.as_str()) {
        return bytes;
    }
    let layer = sandbox.writable_layer(id);
    let bytes = tokio::task::spawn_blocking(move || usage::tree(&layer)).await.unwrap_or_default();
    context.figures.measured(id.as_str(), bytes);
    bytes
}
