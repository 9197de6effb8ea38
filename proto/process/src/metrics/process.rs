//! What the kernel says of this process, as Prometheus' client libraries tell it (`process_*`).

use std::fs;

/// Ticks a second in `/proc` (proc(5)): `USER_HZ`, which is 100 wherever Linux and Rust's standard library meet.
const TICKS: f64 = 100.0;

/// Name, type, help and value of each.
pub(super) fn figures() -> Vec<(&'static str, &'static str, &'static str, f64)> {
    let read = |file: &str| fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default();
    let (stat, status, limits) = (read("stat"), read("status"), read("limits"));
    // The name may hold blanks and parentheses; what follows the last one does not.
    let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
    let field = |n: usize| after.split_whitespace().nth(n).and_then(|text| text.parse().ok()).unwrap_or(0.0);
    let kilobytes = |name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name));
        value.and_then(|value| value.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(0.0) * 1024.0
    };
    let most_files = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let most_files = most_files.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0.0);
    let boot = fs::read_to_string("/proc/stat").unwrap_or_default();
    let boot = boot.lines().find_map(|line| line.strip_prefix("btime ")?.parse::<f64>().ok()).unwrap_or(0.0);
    let files = u32::try_from(fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)).unwrap_or(u32::MAX);
    vec![
        (
            "process_cpu_seconds_total",
            "counter",
            "Total user and system CPU time spent in seconds.",
            (field(11) + field(12)) / TICKS,
        ),
        ("process_max_fds", "gauge", "Maximum number of open file descriptors.", most_files),
        ("process_open_fds", "gauge", "Number of open file descriptors.", f64::from(files)),
        ("process_resident_memory_bytes", "gauge", "Resident memory size in bytes.", kilobytes("VmRSS:")),
        (
            "process_start_time_seconds",
            "gauge",
            "Start time of the process since unix epoch in seconds.",
            boot + field(19) / TICKS,
        ),
        ("process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes.", kilobytes("VmSize:")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_memory_files_and_a_beginning() {
        for (name, _, _, value) in figures() {
            assert!(name == "process_cpu_seconds_total" || value > 0.0, "{name}");
        }
    }
}
