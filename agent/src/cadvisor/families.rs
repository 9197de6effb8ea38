//! The families of figures: what each is called, what it is about, and where it is found.

use std::fmt::{self, Display};

use coracle_runtime::{Details, DeviceUse};

use super::{Disk, Group, device_name};
use crate::server::stats::Traffic;

/// What a figure is: numbers, and times in their own units. All times are told in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Figure {
    Number(u64),
    Nanoseconds(u64),
    Microseconds(u64),
}
use Figure::{Microseconds, Nanoseconds, Number};

impl Figure {
    /// Without what is less than one.
    pub(crate) fn whole(self) -> u64 {
        match self {
            Number(number) => number,
            Nanoseconds(ns) => ns / 1_000_000_000,
            Microseconds(us) => us / 1_000_000,
        }
    }
}

impl Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Number(number) => number.fmt(f),
            Nanoseconds(ns) => write!(f, "{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000),
            Microseconds(us) => write!(f, "{}.{:06}", us / 1_000_000, us % 1_000_000),
        }
    }
}

/// Whether it only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
}

/// Takes a sample: the values of the family's own labels, and the figure.
type Tell<'a> = &'a mut dyn FnMut(&[&str], Figure);

/// Where a family's samples are found.
#[derive(Clone, Copy)]
enum Read {
    /// One of every group.
    Every(fn(&Group) -> Option<Figure>),
    /// One of each group the kernel counts and limits by itself.
    Whole(fn(&Details) -> Option<Figure>),
    /// So many as there are, told apart by these labels.
    Several(&'static [&'static str], fn(&Group, Tell<'_>)),
}
use Read::{Every, Several, Whole};

/// Samples that are about one thing.
pub(crate) struct Family {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) help: &'static str,
    read: Read,
}
use Kind::{Counter, Gauge};

const fn family(name: &'static str, kind: Kind, help: &'static str, read: Read) -> Family {
    Family { name, kind, help, read }
}

impl Family {
    /// The labels its samples have besides those of their groups.
    pub(crate) fn labels(&self) -> &'static [&'static str] {
        match self.read {
            Every(_) | Whole(_) => &[],
            Several(labels, _) => labels,
        }
    }

    /// Tells the samples of a group.
    pub(crate) fn samples(&self, group: &Group, tell: Tell<'_>) {
        let one = match self.read {
            Every(read) => read(group),
            Whole(read) if group.is_whole => read(&group.details),
            Whole(_) => None,
            Several(_, read) => return read(group, tell),
        };
        if let Some(figure) = one {
            tell(&[], figure);
        }
    }
}

/// A figure of each interface.
fn traffic(group: &Group, tell: Tell<'_>, read: fn(&Traffic) -> u64) {
    group.network.iter().for_each(|traffic| tell(&[&traffic.interface], Number(read(traffic))));
}

/// A figure of the file system.
fn disk(group: &Group, tell: Tell<'_>, read: fn(&Disk) -> u64) {
    if let Some(disk) = &group.disk {
        tell(&[&disk.device], Number(read(disk)));
    }
}

/// A figure of each block device.
fn device(group: &Group, tell: Tell<'_>, read: fn(&DeviceUse) -> u64) {
    group.details.devices.iter().for_each(|of| tell(&[&device_name(of.device)], Number(read(of))));
}

/// Every family, in the order they are told in.
pub(crate) const FAMILIES: &[Family] = &[
    // Each group's, not each processor's.
    family(
        "container_cpu_usage_seconds_total",
        Counter,
        "Cumulative cpu time consumed in seconds.",
        Several(&["cpu"], |g, tell| tell(&["total"], Nanoseconds(g.details.stats.cpu_usage_ns))),
    ),
    family(
        "container_memory_working_set_bytes",
        Gauge,
        "Current working set in bytes.",
        Every(|g| Some(Number(g.details.stats.memory_working_set))),
    ),
    family(
        "container_memory_usage_bytes",
        Gauge,
        "Current memory usage in bytes, including all memory regardless of when it was accessed",
        Every(|g| Some(Number(g.details.stats.memory_usage))),
    ),
    family(
        "container_cpu_user_seconds_total",
        Counter,
        "Cumulative user cpu time consumed in seconds.",
        Whole(|d| Some(Nanoseconds(d.cpu_user_ns))),
    ),
    family(
        "container_cpu_system_seconds_total",
        Counter,
        "Cumulative system cpu time consumed in seconds.",
        Whole(|d| Some(Nanoseconds(d.cpu_system_ns))),
    ),
    family(
        "container_cpu_cfs_periods_total",
        Counter,
        "Number of elapsed enforcement period intervals.",
        Whole(|d| d.cpu_quota.map(|_| Number(d.cpu_periods))),
    ),
    family(
        "container_cpu_cfs_throttled_periods_total",
        Counter,
        "Number of throttled period intervals.",
        Whole(|d| d.cpu_quota.map(|_| Number(d.cpu_throttled_periods))),
    ),
    family(
        "container_cpu_cfs_throttled_seconds_total",
        Counter,
        "Total time duration the container has been throttled.",
        Whole(|d| d.cpu_quota.map(|_| Nanoseconds(d.cpu_throttled_ns))),
    ),
    family("container_spec_cpu_period", Gauge, "CPU period of the container.", Whole(|d| Some(Number(d.cpu_period)))),
    family("container_spec_cpu_quota", Gauge, "CPU quota of the container.", Whole(|d| d.cpu_quota.map(Number))),
    family("container_spec_cpu_shares", Gauge, "CPU share of the container.", Whole(|d| Some(Number(d.cpu_shares)))),
    family("container_memory_rss", Gauge, "Size of RSS in bytes.", Whole(|d| Some(Number(d.stats.memory_rss)))),
    family(
        "container_memory_cache",
        Gauge,
        "Number of bytes of page cache memory.",
        Whole(|d| Some(Number(d.memory_cache))),
    ),
    family(
        "container_memory_mapped_file",
        Gauge,
        "Size of memory mapped files in bytes.",
        Whole(|d| Some(Number(d.memory_mapped_file))),
    ),
    family(
        "container_memory_kernel_usage",
        Gauge,
        "Size of kernel memory allocated in bytes.",
        Whole(|d| Some(Number(d.memory_kernel))),
    ),
    family("container_memory_swap", Gauge, "Container swap usage in bytes.", Whole(|d| Some(Number(d.memory_swap)))),
    family(
        "container_memory_failcnt",
        Counter,
        "Number of memory usage hits limits",
        Whole(|d| Some(Number(d.memory_limit_hits))),
    ),
    family(
        "container_memory_failures_total",
        Counter,
        "Cumulative count of memory allocation failures.",
        Several(&["failure_type", "scope"], |g, tell| {
            if g.is_whole {
                let (own, stats) = (g.details.own_page_faults, &g.details.stats);
                tell(&["pgfault", "container"], Number(own.0));
                tell(&["pgmajfault", "container"], Number(own.1));
                tell(&["pgfault", "hierarchy"], Number(stats.page_faults));
                tell(&["pgmajfault", "hierarchy"], Number(stats.major_page_faults));
            }
        }),
    ),
    family(
        "container_memory_max_usage_bytes",
        Gauge,
        "Maximum memory usage recorded in bytes",
        Whole(|d| Some(Number(d.memory_peak))),
    ),
    family(
        "container_memory_total_active_file_bytes",
        Gauge,
        "Current total active file in bytes.",
        Whole(|d| Some(Number(d.memory_active_file))),
    ),
    family(
        "container_memory_total_inactive_file_bytes",
        Gauge,
        "Current total inactive file in bytes.",
        Whole(|d| Some(Number(d.memory_inactive_file))),
    ),
    // Of the three no limit is 0.
    family(
        "container_spec_memory_limit_bytes",
        Gauge,
        "Memory limit for the container.",
        Whole(|d| Some(Number(d.memory_limit.unwrap_or(0)))),
    ),
    family(
        "container_spec_memory_reservation_limit_bytes",
        Gauge,
        "Memory reservation limit for the container.",
        Whole(|d| Some(Number(d.memory_reservation.unwrap_or(0)))),
    ),
    family(
        "container_spec_memory_swap_limit_bytes",
        Gauge,
        "Memory swap limit for the container.",
        Whole(|d| Some(Number(d.swap_limit.unwrap_or(0)))),
    ),
    family(
        "container_hugetlb_usage_bytes",
        Gauge,
        "Current hugepage usage in bytes",
        Several(&["pagesize"], |g, tell| {
            g.details.hugepages.iter().for_each(|(size, now, _)| tell(&[size], Number(*now)))
        }),
    ),
    family(
        "container_hugetlb_max_usage_bytes",
        Gauge,
        "Maximum hugepage usage recorded in bytes",
        Several(&["pagesize"], |g, tell| {
            g.details.hugepages.iter().for_each(|(size, _, most)| tell(&[size], Number(*most)))
        }),
    ),
    family(
        "container_oom_events_total",
        Counter,
        "Count of out of memory events observed for the container",
        Whole(|d| Some(Number(d.oom_kills))),
    ),
    family(
        "container_processes",
        Gauge,
        "Number of processes running inside the container.",
        Whole(|d| Some(Number(d.processes.processes))),
    ),
    family(
        "container_file_descriptors",
        Gauge,
        "Number of open file descriptors for the container.",
        Whole(|d| Some(Number(d.processes.descriptors))),
    ),
    family(
        "container_sockets",
        Gauge,
        "Number of open sockets for the container.",
        Whole(|d| Some(Number(d.processes.sockets))),
    ),
    family(
        "container_ulimits_soft",
        Gauge,
        "Soft ulimit values for the container root process. Unlimited if -1, except priority and nice",
        Several(&["ulimit"], |g, tell| {
            if let Some(most) = g.details.processes.most_files {
                tell(&["max_open_files"], Number(most));
            }
        }),
    ),
    family(
        "container_threads",
        Gauge,
        "Number of threads running inside the container",
        Whole(|d| Some(Number(d.stats.pids))),
    ),
    family(
        "container_threads_max",
        Gauge,
        "Maximum number of threads allowed inside the container, infinity if value is zero",
        Whole(|d| Some(Number(d.pids_limit.unwrap_or(0)))),
    ),
    family(
        "container_pressure_cpu_waiting_seconds_total",
        Counter,
        "Total time duration tasks in the container have waited due to CPU congestion.",
        Whole(|d| d.pressure.map(|p| Microseconds(p.cpu.0))),
    ),
    family(
        "container_pressure_cpu_stalled_seconds_total",
        Counter,
        "Total time duration no tasks in the container could make progress due to CPU congestion.",
        Whole(|d| d.pressure.map(|p| Microseconds(p.cpu.1))),
    ),
    family(
        "container_pressure_memory_waiting_seconds_total",
        Counter,
        "Total time duration tasks in the container have waited due to memory congestion.",
        Whole(|d| d.pressure.map(|p| Microseconds(p.memory.0))),
    ),
    family(
        "container_pressure_memory_stalled_seconds_total",
        Counter,
        "Total time duration no tasks in the container could make progress due to memory congestion.",
        Whole(|d| d.pressure.map(|p| Microseconds(p.memory.1))),
    ),
    family(
        "container_pressure_io_waiting_seconds_total",
        Counter,
        "Total time duration tasks in the container have waited due to IO congestion.",
        Whole(|d| d.pressure.map(|p| Microseconds(p.io.0))),
    ),
    family(
        "container_pressure_io_stalled_seconds_total",
        Counter,
        "Total time duration no tasks in the container could make progress due to IO congestion.",
        Whole(|d| d.pressure.map(|p| Microseconds(p.io.1))),
    ),
    family(
        "container_start_time_seconds",
        Gauge,
        "Start time of the container since unix epoch in seconds.",
        Every(|g| g.started.map(seconds)),
    ),
    family(
        "container_last_seen",
        Gauge,
        "Last time a container was seen by the exporter",
        Every(|g| Some(seconds(g.seen))),
    ),
    family(
        "container_fs_usage_bytes",
        Gauge,
        "Number of bytes that are consumed by the container on this filesystem.",
        Several(&["device"], |g, tell| disk(g, tell, |disk| disk.used)),
    ),
    family(
        "container_fs_limit_bytes",
        Gauge,
        "Number of bytes that can be consumed by the container on this filesystem.",
        Several(&["device"], |g, tell| disk(g, tell, |disk| disk.size)),
    ),
    family(
        "container_fs_inodes_total",
        Gauge,
        "Number of Inodes",
        Several(&["device"], |g, tell| disk(g, tell, |disk| disk.inodes.0)),
    ),
    family(
        "container_fs_inodes_free",
        Gauge,
        "Number of available Inodes",
        Several(&["device"], |g, tell| disk(g, tell, |disk| disk.inodes.1)),
    ),
    family(
        "container_fs_reads_bytes_total",
        Counter,
        "Cumulative count of bytes read",
        Several(&["device"], |g, tell| device(g, tell, |of| of.read_bytes)),
    ),
    family(
        "container_fs_reads_total",
        Counter,
        "Cumulative count of reads completed",
        Several(&["device"], |g, tell| device(g, tell, |of| of.reads)),
    ),
    family(
        "container_fs_writes_bytes_total",
        Counter,
        "Cumulative count of bytes written",
        Several(&["device"], |g, tell| device(g, tell, |of| of.written_bytes)),
    ),
    family(
        "container_fs_writes_total",
        Counter,
        "Cumulative count of writes completed",
        Several(&["device"], |g, tell| device(g, tell, |of| of.writes)),
    ),
    family(
        "container_blkio_device_usage_total",
        Counter,
        "Blkio Device bytes usage",
        Several(&["device", "major", "minor", "operation"], |g, tell| {
            for of in &g.details.devices {
                let (name, major, minor) = (device_name(of.device), of.device.0.to_string(), of.device.1.to_string());
                tell(&[&name, &major, &minor, "Read"], Number(of.read_bytes));
                tell(&[&name, &major, &minor, "Write"], Number(of.written_bytes));
            }
        }),
    ),
    family(
        "container_network_receive_bytes_total",
        Counter,
        "Cumulative count of bytes received",
        Several(&["interface"], |g, tell| traffic(g, tell, |t| t.received[0])),
    ),
    family(
        "container_network_receive_packets_total",
        Counter,
        "Cumulative count of packets received",
        Several(&["interface"], |g, tell| traffic(g, tell, |t| t.received[1])),
    ),
    family(
        "container_network_receive_errors_total",
        Counter,
        "Cumulative count of errors encountered while receiving",
        Several(&["interface"], |g, tell| traffic(g, tell, |t| t.received[2])),
    ),
    family(
        "container_network_receive_packets_dropped_total",
        Counter,
        "Cumulative count of packets dropped while receiving",
        Several(&["interface"], |g, tell| traffic(g, tell, |t| t.received[3])),
    ),
    family(
        "container_network_transmit_bytes_total",
        Counter,
        "Cumulative count of bytes transmitted",
        Several(&["interface"], |g, tell| traffic(g, tell, |t| t.sent[0])),
    ),
    family(
        "container_network_transmit_packets_total",
        Counter,
        "Cumulative count of packets transmitted",
        Several(&["interface"], |g, tell| traffic(g, tell, |t| t.sent[1])),
    ),
    family(
        "container_network_transmit_errors_total",
        Counter,
        "Cumulative count of errors encountered while transmitting",
        Several(&["interface"], |g, tell| traffic(g, tell, |t| t.sent[2])),
    ),
    family(
        "container_network_transmit_packets_dropped_total",
        Counter,
        "Cumulative count of packets dropped while transmitting",
        Several(&["interface"], |g, tell| traffic(g, tell, |t| t.sent[3])),
    ),
];

/// Since 1970.
fn seconds(time: jiff::Timestamp) -> Figure {
    Number(u64::try_from(time.as_second()).unwrap_or(0))
}
