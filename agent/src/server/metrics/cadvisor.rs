//! `/metrics/cadvisor`: what the kernel counts of the machine, of all pods together, of each pod and of each container.
//!
//! Labels are as kubelet gives them: `id` is the cgroup; `container`, `image` and `name` are empty for a pod as a whole, and
//! `pod` and `namespace` for what is above pods.

use std::fmt::{self, Display};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use coracle_process::metrics::Page;
use coracle_runtime::{ContainerId, Details, DeviceUse, Sandbox, Stats};
use jiff::Timestamp;
use nix::sys::stat;

use crate::context::{Context, Entry};
use crate::eviction::usage;
use crate::node::machine::Machine;
use crate::pod::{self, facts::Phase, spec};
use crate::server::stats::{Traffic, host_cpu, traffic};

/// One cgroup and what is known of it.
#[derive(Debug, Default)]
pub(super) struct Group {
    id: String,
    container: String,
    image: String,
    name: String,
    namespace: String,
    pod: String,
    details: Details,
    /// When it began.
    started: Option<Timestamp>,
    /// What went through its interfaces.
    network: Vec<Traffic>,
    /// What it takes of a file system: the device, bytes taken and bytes there are.
    disk: Option<(String, u64, u64)>,
    /// Whether its CPU and memory are limited or counted as those of a container are.
    is_whole: bool,
}

/// What a figure is: numbers, and times in their own units.
#[derive(Clone, Copy, Debug)]
enum Figure {
    Number(u64),
    Nanoseconds(u64),
    Microseconds(u64),
}

impl Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Nanoseconds(ns) => write!(f, "{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000),
            Self::Microseconds(us) => write!(f, "{}.{:06}", us / 1_000_000, us % 1_000_000),
        }
    }
}

/// A family of one sample a group: its name, its type, what it is about, and where it is found.
type Family = (&'static str, &'static str, &'static str, fn(&Details) -> Option<Figure>);

/// Those every group has.
const PLAIN: &[Family] = &[
    ("container_memory_working_set_bytes", "gauge", "Current working set in bytes.", |d| {
        Some(Figure::Number(d.stats.memory_working_set))
    }),
    (
        "container_memory_usage_bytes",
        "gauge",
        "Current memory usage in bytes, including all memory regardless of when it was accessed",
        |d| Some(Figure::Number(d.stats.memory_usage)),
    ),
];

/// Those of groups the kernel counts and limits by themselves.
const DETAILED: &[Family] = &[
    ("container_cpu_user_seconds_total", "counter", "Cumulative user cpu time consumed in seconds.", |d| {
        Some(Figure::Nanoseconds(d.cpu_user_ns))
    }),
    ("container_cpu_system_seconds_total", "counter", "Cumulative system cpu time consumed in seconds.", |d| {
        Some(Figure::Nanoseconds(d.cpu_system_ns))
    }),
    ("container_cpu_cfs_periods_total", "counter", "Number of elapsed enforcement period intervals.", |d| {
        d.cpu_quota.map(|_| Figure::Number(d.cpu_periods))
    }),
    ("container_cpu_cfs_throttled_periods_total", "counter", "Number of throttled period intervals.", |d| {
        d.cpu_quota.map(|_| Figure::Number(d.cpu_throttled_periods))
    }),
    (
        "container_cpu_cfs_throttled_seconds_total",
        "counter",
        "Total time duration the container has been throttled.",
        |d| d.cpu_quota.map(|_| Figure::Nanoseconds(d.cpu_throttled_ns)),
    ),
    ("container_spec_cpu_period", "gauge", "CPU period of the container.", |d| Some(Figure::Number(d.cpu_period))),
    ("container_spec_cpu_quota", "gauge", "CPU quota of the container.", |d| d.cpu_quota.map(Figure::Number)),
    ("container_memory_rss", "gauge", "Size of RSS in bytes.", |d| Some(Figure::Number(d.stats.memory_rss))),
    ("container_memory_cache", "gauge", "Number of bytes of page cache memory.", |d| {
        Some(Figure::Number(d.memory_cache))
    }),
    ("container_memory_mapped_file", "gauge", "Size of memory mapped files in bytes.", |d| {
        Some(Figure::Number(d.memory_mapped_file))
    }),
    ("container_memory_swap", "gauge", "Container swap usage in bytes.", |d| Some(Figure::Number(d.memory_swap))),
    ("container_memory_failcnt", "counter", "Number of memory usage hits limits", |d| {
        Some(Figure::Number(d.memory_limit_hits))
    }),
    ("container_memory_max_usage_bytes", "gauge", "Maximum memory usage recorded in bytes", |d| {
        Some(Figure::Number(d.memory_peak))
    }),
    ("container_memory_total_active_file_bytes", "gauge", "Current total active file in bytes.", |d| {
        Some(Figure::Number(d.memory_active_file))
    }),
    ("container_memory_total_inactive_file_bytes", "gauge", "Current total inactive file in bytes.", |d| {
        Some(Figure::Number(d.memory_inactive_file))
    }),
    // No limit is 0.
    ("container_spec_memory_limit_bytes", "gauge", "Memory limit for the container.", |d| {
        Some(Figure::Number(d.memory_limit.unwrap_or(0)))
    }),
    ("container_oom_events_total", "counter", "Count of out of memory events observed for the container", |d| {
        Some(Figure::Number(d.oom_kills))
    }),
    ("container_threads", "gauge", "Number of threads running inside the container", |d| {
        Some(Figure::Number(d.stats.pids))
    }),
    (
        "container_threads_max",
        "gauge",
        "Maximum number of threads allowed inside the container, infinity if value is zero",
        |d| Some(Figure::Number(d.pids_limit.unwrap_or(0))),
    ),
    (
        "container_pressure_cpu_waiting_seconds_total",
        "counter",
        "Total time duration tasks in the container have waited due to CPU congestion.",
        |d| d.pressure.map(|p| Figure::Microseconds(p.cpu.0)),
    ),
    (
        "container_pressure_cpu_stalled_seconds_total",
        "counter",
        "Total time duration no tasks in the container could make progress due to CPU congestion.",
        |d| d.pressure.map(|p| Figure::Microseconds(p.cpu.1)),
    ),
    (
        "container_pressure_memory_waiting_seconds_total",
        "counter",
        "Total time duration tasks in the container have waited due to memory congestion.",
        |d| d.pressure.map(|p| Figure::Microseconds(p.memory.0)),
    ),
    (
        "container_pressure_memory_stalled_seconds_total",
        "counter",
        "Total time duration no tasks in the container could make progress due to memory congestion.",
        |d| d.pressure.map(|p| Figure::Microseconds(p.memory.1)),
    ),
    (
        "container_pressure_io_waiting_seconds_total",
        "counter",
        "Total time duration tasks in the container have waited due to IO congestion.",
        |d| d.pressure.map(|p| Figure::Microseconds(p.io.0)),
    ),
    (
        "container_pressure_io_stalled_seconds_total",
        "counter",
        "Total time duration no tasks in the container could make progress due to IO congestion.",
        |d| d.pressure.map(|p| Figure::Microseconds(p.io.1)),
    ),
];

/// Looks at the machine, all pods, each pod and each running container. What ends meanwhile is left out.
pub(super) async fn look(context: &Context, machine: &Machine) -> Vec<Group> {
    let entries: Vec<Entry> = context.table.with(|table| table.values().cloned().collect());
    let device = device_of(&context.config.data_dir);
    let mut groups = vec![whole(machine, &device)];
    let root = Path::new("/").join(&context.config.cgroup_root);
    if let Ok(details) = context.runtime.pods_details().await {
        groups.push(Group {
            id: root.join("kubepods").display().to_string(),
            details,
            is_whole: true,
            ..Group::default()
        });
    }
    for entry in entries {
        let Some(sandbox) = entry.sandbox.clone() else { continue };
        let of = || Group {
            namespace: pod::namespace(&entry.pod).to_owned(),
            pod: pod::name(&entry.pod).to_owned(),
            is_whole: true,
            ..Group::default()
        };
        let group = Path::new("/").join(sandbox.group());
        let Ok(details) = sandbox.sandbox_details().await else { continue };
        let host = spec(&entry.pod).host_network();
        let network = if host { Vec::new() } else { traffic(&format!("/proc/{}/net/dev", sandbox.supervisor_pid())) };
        let started = entry.pod.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|time| time.0);
        groups.push(Group { id: group.display().to_string(), details, started, network, ..of() });
        for (name, attempts) in &entry.attempts {
            let Some(attempt) = attempts.last().filter(|attempt| attempt.phase == Phase::Running) else { continue };
            let Some(id) = ContainerId::parse(&attempt.id) else { continue };
            let Ok(details) = sandbox.container_details(&id).await else { continue };
            let written = written(context, &sandbox, &id).await;
            groups.push(Group {
                id: group.join(id.as_str()).display().to_string(),
                container: name.clone(),
                image: attempt.image.clone(),
                name: attempt.id.clone(),
                details,
                started: attempt.started,
                disk: Some((device.clone(), written, machine.disk)),
                ..of()
            });
        }
    }
    groups
}

/// The machine as the group above all.
fn whole(machine: &Machine, device: &str) -> Group {
    let used = machine.memory.saturating_sub(machine.memory_available);
    let cpu = host_cpu(&std::fs::read_to_string("/proc/stat").unwrap_or_default());
    let stats = Stats { cpu_usage_ns: cpu, memory_usage: used, memory_working_set: used, ..Stats::default() };
    Group {
        id: "/".to_owned(),
        details: Details { stats, ..Details::default() },
        network: traffic("/proc/net/dev"),
        disk: Some((device.to_owned(), machine.disk.saturating_sub(machine.disk_free), machine.disk)),
        ..Group::default()
    }
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

/// The labels of a group, and whatever tells its samples apart, which begins with a comma.
struct Labels<'a>(&'a Group, &'a str);

impl Display for Labels<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(Group { id, container, image, name, namespace, pod, .. }, more) = self;
        write!(
            f,
            "{{container=\"{container}\",id=\"{id}\",image=\"{image}\",name=\"{name}\",namespace=\"{namespace}\",\
             pod=\"{pod}\"{more}}}"
        )
    }
}

/// Writes the figures of these groups, and what the machine is.
pub(super) fn write(out: &mut Page, groups: &[Group], machine: &Machine) {
    let name = "container_cpu_usage_seconds_total";
    out.head(name, "counter", "Cumulative cpu time consumed in seconds.");
    for group in groups {
        let total = Figure::Nanoseconds(group.details.stats.cpu_usage_ns);
        out.line(name, Labels(group, ",cpu=\"total\""), total);
    }
    let detailed = DETAILED.iter().map(|family| (family, true));
    for ((name, kind, help, read), is_detailed) in PLAIN.iter().map(|family| (family, false)).chain(detailed) {
        out.head(name, kind, help);
        for group in groups.iter().filter(|group| group.is_whole || !is_detailed) {
            if let Some(figure) = read(&group.details) {
                out.line(name, Labels(group, ""), figure);
            }
        }
    }
    let name = "container_start_time_seconds";
    out.head(name, "gauge", "Start time of the container since unix epoch in seconds.");
    for group in groups {
        if let Some(started) = group.started {
            out.line(name, Labels(group, ""), started.as_second());
        }
    }
    disks(out, groups);
    networks(out, groups);

    let Machine { boot_id, machine_id, system_uuid, kernel, os_image, .. } = machine;
    let labels = format!("{{boot_id=\"{boot_id}\",machine_id=\"{machine_id}\",system_uuid=\"{system_uuid}\"}}");
    out.head("machine_cpu_cores", "gauge", "Number of logical CPU cores.");
    out.line("machine_cpu_cores", &labels, machine.cpus);
    out.head("machine_memory_bytes", "gauge", "Amount of memory installed on the machine.");
    out.line("machine_memory_bytes", &labels, machine.memory);
    let name = "cadvisor_version_info";
    out.head(name, "gauge", "The versions of what these figures are of.");
    let labels = format_args!(
        "{{cadvisorRevision=\"\",cadvisorVersion=\"\",dockerVersion=\"\",kernelVersion=\"{kernel}\",osVersion=\"{os_image}\"}}"
    );
    out.line(name, labels, 1);
}

fn disks(out: &mut Page, groups: &[Group]) {
    type Read = fn(&(String, u64, u64)) -> u64;
    for (name, help, read) in [
        (
            "container_fs_usage_bytes",
            "Number of bytes that are consumed by the container on this filesystem.",
            (|disk| disk.1) as Read,
        ),
        (
            "container_fs_limit_bytes",
            "Number of bytes that can be consumed by the container on this filesystem.",
            |disk| disk.2,
        ),
    ] {
        out.head(name, "gauge", help);
        for (group, disk) in groups.iter().filter_map(|group| Some((group, group.disk.as_ref()?))) {
            out.line(name, Labels(group, &format!(",device=\"{}\"", disk.0)), read(disk));
        }
    }
    type Count = fn(&DeviceUse) -> u64;
    for (name, help, read) in [
        ("container_fs_reads_bytes_total", "Cumulative count of bytes read", (|use_| use_.read_bytes) as Count),
        ("container_fs_reads_total", "Cumulative count of reads completed", |use_| use_.reads),
        ("container_fs_writes_bytes_total", "Cumulative count of bytes written", |use_| use_.written_bytes),
        ("container_fs_writes_total", "Cumulative count of writes completed", |use_| use_.writes),
    ] {
        out.head(name, "counter", help);
        for group in groups {
            for use_ in &group.details.devices {
                out.line(name, Labels(group, &format!(",device=\"{}\"", device_name(use_.device))), read(use_));
            }
        }
    }
}

fn networks(out: &mut Page, groups: &[Group]) {
    for (way, doing, of) in [
        ("receive", "receiving", (|traffic| &traffic.received) as fn(&Traffic) -> &[u64; 4]),
        ("transmit", "transmitting", |traffic| &traffic.sent),
    ] {
        let done = if way == "receive" { "received" } else { "transmitted" };
        for (what, help, place) in [
            ("bytes", format!("Cumulative count of bytes {done}"), 0),
            ("packets", format!("Cumulative count of packets {done}"), 1),
            ("errors", format!("Cumulative count of errors encountered while {doing}"), 2),
            ("packets_dropped", format!("Cumulative count of packets dropped while {doing}"), 3),
        ] {
            let name = format!("container_network_{way}_{what}_total");
            out.head(&name, "counter", &help);
            for group in groups {
                for traffic in &group.network {
                    let interface = format!(",interface=\"{}\"", traffic.interface);
                    let count = of(traffic).get(place).copied().unwrap_or(0);
                    out.line(&name, Labels(group, &interface), count);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn what_dashboards_ask_for_is_there_under_their_labels() {
        let stats = Stats {
            cpu_usage_ns: 2_500_000_000,
            memory_usage: 8192,
            memory_working_set: 4096,
            memory_rss: 2048,
            pids: 3,
            ..Stats::default()
        };
        let use_ = DeviceUse { device: (0, 0), read_bytes: 1, written_bytes: 2, reads: 3, writes: 4 };
        let details = Details {
            stats,
            memory_limit: Some(1 << 20),
            cpu_quota: Some(50_000),
            cpu_period: 100_000,
            cpu_periods: 7,
            cpu_throttled_ns: 1_000_000,
            devices: vec![use_],
            ..Details::default()
        };
        let text = str::to_owned;
        let traffic = Traffic { interface: text("eth0"), received: [1, 2, 3, 4], sent: [5, 6, 7, 8] };
        let pod = Group {
            id: text("/x/kubepods/podu"),
            namespace: text("default"),
            pod: text("web"),
            is_whole: true,
            network: vec![traffic],
            ..Group::default()
        };
        let container = Group {
            id: text("/x/kubepods/podu/c0"),
            container: text("app"),
            image: text("docker.io/library/busybox:1"),
            name: text("c0"),
            namespace: text("default"),
            pod: text("web"),
            details,
            started: Some(Timestamp::new(1000, 0).unwrap()),
            disk: Some((text("/dev/vda"), 512, 1 << 30)),
            is_whole: true,
            ..Group::default()
        };
        let root = Group { id: text("/"), ..Group::default() };
        let machine =
            Machine { cpus: 4, memory: 1 << 30, boot_id: text("b"), machine_id: text("m"), ..Machine::default() };
        let mut page = Page::default();
        write(&mut page, &[root, pod, container], &machine);
        let shown = |line: &&str| {
            let is_of = |name: &str| line.starts_with(name);
            // Families that hold nothing but what another one shows as well.
            !line.starts_with('#') && !is_of("container_pressure") && !is_of("container_memory_total")
        };
        let shown: Vec<String> = page.0.lines().filter(shown).map(|line| {
            line.replace("container=\"app\",id=\"/x/kubepods/podu/c0\",image=\"docker.io/library/busybox:1\",name=\"c0\",namespace=\"default\",pod=\"web\"", "C")
                .replace("container=\"\",id=\"/x/kubepods/podu\",image=\"\",name=\"\",namespace=\"default\",pod=\"web\"", "P")
                .replace("container=\"\",id=\"/\",image=\"\",name=\"\",namespace=\"\",pod=\"\"", "R")
        }).collect();
        expect![[r#"
            container_cpu_usage_seconds_total{R,cpu="total"} 0.000000000
            container_cpu_usage_seconds_total{P,cpu="total"} 0.000000000
            container_cpu_usage_seconds_total{C,cpu="total"} 2.500000000
            container_memory_working_set_bytes{R} 0
            container_memory_working_set_bytes{P} 0
            container_memory_working_set_bytes{C} 4096
            container_memory_usage_bytes{R} 0
            container_memory_usage_bytes{P} 0
            container_memory_usage_bytes{C} 8192
            container_cpu_user_seconds_total{P} 0.000000000
            container_cpu_user_seconds_total{C} 0.000000000
            container_cpu_system_seconds_total{P} 0.000000000
            container_cpu_system_seconds_total{C} 0.000000000
            container_cpu_cfs_periods_total{C} 7
            container_cpu_cfs_throttled_periods_total{C} 0
            container_cpu_cfs_throttled_seconds_total{C} 0.001000000
            container_spec_cpu_period{P} 0
            container_spec_cpu_period{C} 100000
            container_spec_cpu_quota{C} 50000
            container_memory_rss{P} 0
            container_memory_rss{C} 2048
            container_memory_cache{P} 0
            container_memory_cache{C} 0
            container_memory_mapped_file{P} 0
            container_memory_mapped_file{C} 0
            container_memory_swap{P} 0
            container_memory_swap{C} 0
            container_memory_failcnt{P} 0
            container_memory_failcnt{C} 0
            container_memory_max_usage_bytes{P} 0
            container_memory_max_usage_bytes{C} 0
            container_spec_memory_limit_bytes{P} 0
            container_spec_memory_limit_bytes{C} 1048576
            container_oom_events_total{P} 0
            container_oom_events_total{C} 0
            container_threads{P} 0
            container_threads{C} 3
            container_threads_max{P} 0
            container_threads_max{C} 0
            container_start_time_seconds{C} 1000
            container_fs_usage_bytes{C,device="/dev/vda"} 512
            container_fs_limit_bytes{C,device="/dev/vda"} 1073741824
            container_fs_reads_bytes_total{C,device="0:0"} 1
            container_fs_reads_total{C,device="0:0"} 3
            container_fs_writes_bytes_total{C,device="0:0"} 2
            container_fs_writes_total{C,device="0:0"} 4
            container_network_receive_bytes_total{P,interface="eth0"} 1
            container_network_receive_packets_total{P,interface="eth0"} 2
            container_network_receive_errors_total{P,interface="eth0"} 3
            container_network_receive_packets_dropped_total{P,interface="eth0"} 4
            container_network_transmit_bytes_total{P,interface="eth0"} 5
            container_network_transmit_packets_total{P,interface="eth0"} 6
            container_network_transmit_errors_total{P,interface="eth0"} 7
            container_network_transmit_packets_dropped_total{P,interface="eth0"} 8
            machine_cpu_cores{boot_id="b",machine_id="m",system_uuid=""} 4
            machine_memory_bytes{boot_id="b",machine_id="m",system_uuid=""} 1073741824
            cadvisor_version_info{cadvisorRevision="",cadvisorVersion="",dockerVersion="",kernelVersion="",osVersion=""} 1"#]].assert_eq(&shown.join("\n"));
    }
}
