//! `/metrics/cadvisor`: the figures of [`crate::cadvisor`] in Prometheus' text format, and what the machine is.

use std::fmt::{self, Display};

use coracle_process::metrics::Page;

use crate::cadvisor::{FAMILIES, Group, Kind, LABELS};
use crate::node::machine::Machine;

/// The labels of one sample: those of its group, and its family's own.
struct Labels<'a>(&'a Group, &'a [&'a str], &'a [&'a str]);

impl Display for Labels<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(group, names, values) = self;
        let own = LABELS.iter().copied().zip(group.labels());
        for (place, (name, value)) in own.chain(names.iter().copied().zip(values.iter().copied())).enumerate() {
            write!(f, "{}{name}=\"{value}\"", if place == 0 { "{" } else { "," })?;
        }
        f.write_str("}")
    }
}

/// Writes the figures of these groups, and what the machine is.
pub(super) fn write(out: &mut Page, groups: &[Group], machine: &Machine) {
    for family in FAMILIES {
        let kind = match family.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        out.head(family.name, kind, family.help);
        for group in groups {
            family.samples(group, &mut |values, figure| {
                out.line(family.name, Labels(group, family.labels(), values), figure);
            });
        }
    }
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

#[cfg(test)]
mod tests {
    use coracle_runtime::{Details, DeviceUse, ProcessUse, Stats};
    use expect_test::expect;
    use jiff::Timestamp;

    use super::*;
    use crate::cadvisor::Disk;
    use crate::server::stats::Traffic;

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
            own_page_faults: (5, 6),
            hugepages: vec![("2MB".to_owned(), 1 << 21, 1 << 22)],
            processes: ProcessUse { processes: 2, descriptors: 9, sockets: 4, most_files: Some(1024) },
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
            seen: Timestamp::new(2000, 0).unwrap(),
            disk: Some(Disk { device: text("/dev/vda"), used: 512, size: 1 << 30, inodes: (100, 40) }),
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
            container_spec_cpu_shares{P} 0
            container_spec_cpu_shares{C} 0
            container_memory_rss{P} 0
            container_memory_rss{C} 2048
            container_memory_cache{P} 0
            container_memory_cache{C} 0
            container_memory_mapped_file{P} 0
            container_memory_mapped_file{C} 0
            container_memory_kernel_usage{P} 0
            container_memory_kernel_usage{C} 0
            container_memory_swap{P} 0
            container_memory_swap{C} 0
            container_memory_failcnt{P} 0
            container_memory_failcnt{C} 0
            container_memory_failures_total{P,failure_type="pgfault",scope="container"} 0
            container_memory_failures_total{P,failure_type="pgmajfault",scope="container"} 0
            container_memory_failures_total{P,failure_type="pgfault",scope="hierarchy"} 0
            container_memory_failures_total{P,failure_type="pgmajfault",scope="hierarchy"} 0
            container_memory_failures_total{C,failure_type="pgfault",scope="container"} 5
            container_memory_failures_total{C,failure_type="pgmajfault",scope="container"} 6
            container_memory_failures_total{C,failure_type="pgfault",scope="hierarchy"} 0
            container_memory_failures_total{C,failure_type="pgmajfault",scope="hierarchy"} 0
            container_memory_max_usage_bytes{P} 0
            container_memory_max_usage_bytes{C} 0
            container_spec_memory_limit_bytes{P} 0
            container_spec_memory_limit_bytes{C} 1048576
            container_spec_memory_reservation_limit_bytes{P} 0
            container_spec_memory_reservation_limit_bytes{C} 0
            container_spec_memory_swap_limit_bytes{P} 0
            container_spec_memory_swap_limit_bytes{C} 0
            container_hugetlb_usage_bytes{C,pagesize="2MB"} 2097152
            container_hugetlb_max_usage_bytes{C,pagesize="2MB"} 4194304
            container_oom_events_total{P} 0
            container_oom_events_total{C} 0
            container_processes{P} 0
            container_processes{C} 2
            container_file_descriptors{P} 0
            container_file_descriptors{C} 9
            container_sockets{P} 0
            container_sockets{C} 4
            container_ulimits_soft{C,ulimit="max_open_files"} 1024
            container_threads{P} 0
            container_threads{C} 3
            container_threads_max{P} 0
            container_threads_max{C} 0
            container_start_time_seconds{C} 1000
            container_last_seen{R} 0
            container_last_seen{P} 0
            container_last_seen{C} 2000
            container_fs_usage_bytes{C,device="/dev/vda"} 512
            container_fs_limit_bytes{C,device="/dev/vda"} 1073741824
            container_fs_inodes_total{C,device="/dev/vda"} 100
            container_fs_inodes_free{C,device="/dev/vda"} 40
            container_fs_reads_bytes_total{C,device="0:0"} 1
            container_fs_reads_total{C,device="0:0"} 3
            container_fs_writes_bytes_total{C,device="0:0"} 2
            container_fs_writes_total{C,device="0:0"} 4
            container_blkio_device_usage_total{C,device="0:0",major="0",minor="0",operation="Read"} 1
            container_blkio_device_usage_total{C,device="0:0",major="0",minor="0",operation="Write"} 2
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
