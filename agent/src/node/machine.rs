//! What the machine is and has, read from `/proc`, `/sys` and the file system.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use nix::sys::statvfs::statvfs;

/// The machine as it is now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Machine {
    /// Processors this process may use.
    pub(crate) cpus: usize,
    /// Bytes of memory.
    pub(crate) memory: u64,
    /// Bytes of memory that could be had without swapping.
    pub(crate) memory_available: u64,
    /// Bytes of the file system that holds pods' data.
    pub(crate) disk: u64,
    /// Bytes of it that are free.
    pub(crate) disk_free: u64,
    /// Inodes of it, and those that are free.
    pub(crate) inodes: (u64, u64),
    /// Processes and threads there may be at once.
    pub(crate) pids: u64,
    /// Processes that may still be started.
    pub(crate) pids_free: u64,
    /// Bytes of huge pages by size (`2Mi`).
    pub(crate) hugepages: Vec<(String, u64)>,
    /// Devices that pods may ask for, by the name of their class. They are told by what the node was configured with.
    pub(crate) devices: BTreeMap<String, usize>,
    /// `6.18.0`.
    pub(crate) kernel: String,
    /// `Debian GNU/Linux 12 (bookworm)`.
    pub(crate) os_image: String,
    /// `/etc/machine-id`.
    pub(crate) machine_id: String,
    /// New with every boot.
    pub(crate) boot_id: String,
    /// The board's, or the machine's id where there is none.
    pub(crate) system_uuid: String,
}

/// Reads the machine; `data` is where pods' data will be.
///
/// # Errors
/// When `/proc` or the file system of `data` cannot be read.
pub(crate) fn read(data: &Path) -> io::Result<Machine> {
    let meminfo = fs::read_to_string("/proc/meminfo")?;
    let space = statvfs(data)?;
    let unit = space.fragment_size();
    let word = |path: &str| fs::read_to_string(path).map(|t| t.trim().to_owned()).unwrap_or_default();
    let machine_id = word("/etc/machine-id");
    let uuid = word("/sys/class/dmi/id/product_uuid");
    let most = |file: &str| word(&format!("/proc/sys/kernel/{file}")).parse::<u64>().ok();
    let pids = most("pid_max").unwrap_or(32_768).min(most("threads-max").unwrap_or(u64::MAX));
    let threads =
        word("/proc/loadavg").split_whitespace().nth(3).and_then(|t| t.split('/').nth(1)?.parse::<u64>().ok());
    Ok(Machine {
        cpus: std::thread::available_parallelism().map_or(1, usize::from),
        memory: kilobytes(&meminfo, "MemTotal").unwrap_or(0),
        memory_available: kilobytes(&meminfo, "MemAvailable").unwrap_or(0),
        disk: space.blocks() * unit,
        disk_free: space.blocks_available() * unit,
        inodes: (space.files(), space.files_available()),
        pids,
        pids_free: pids.saturating_sub(threads.unwrap_or(0)),
        hugepages: hugepages(Path::new("/sys/kernel/mm/hugepages")),
        devices: BTreeMap::new(),
        kernel: nix::sys::utsname::uname()?.release().to_string_lossy().into_owned(),
        os_image: os_image(&word("/etc/os-release")),
        boot_id: word("/proc/sys/kernel/random/boot_id"),
        system_uuid: if uuid.is_empty() { machine_id.clone() } else { uuid },
        machine_id,
    })
}

fn kilobytes(meminfo: &str, field: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|l| l.strip_prefix(field)?.strip_prefix(':'))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? * 1024)
}

fn os_image(os_release: &str) -> String {
    os_release
        .lines()
        .find_map(|l| l.strip_prefix("PRETTY_NAME="))
        .map_or_else(|| "Linux".to_owned(), |name| name.trim_matches('"').to_owned())
}

fn hugepages(root: &Path) -> Vec<(String, u64)> {
    let mut pages: Vec<(String, u64)> = fs::read_dir(root)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let kb: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
            let count: u64 = fs::read_to_string(entry.path().join("nr_hugepages")).ok()?.trim().parse().ok()?;
            let size = match kb {
                kb if kb % (1 << 20) == 0 => format!("{}Gi", kb >> 20),
                kb if kb % (1 << 10) == 0 => format!("{}Mi", kb >> 10),
                kb => format!("{kb}Ki"),
            };
            Some((size, count * kb * 1024))
        })
        .collect();
    pages.sort();
    pages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_can_be_read() {
        let machine = read(Path::new("/")).unwrap();
        assert!(machine.cpus > 0 && machine.memory > 0 && machine.disk > 0);
        assert!(machine.memory_available <= machine.memory);
        assert!(!machine.kernel.is_empty() && !machine.boot_id.is_empty());
    }

    #[test]
    fn files_are_read_as_the_kernel_writes_them() {
        assert_eq!(kilobytes("MemTotal:       16 kB\nMemFree: 1 kB\n", "MemTotal"), Some(16 * 1024));
        assert_eq!(kilobytes("MemTotal:       16 kB\n", "Mem"), None);
        assert_eq!(os_image("ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n"), "Debian GNU/Linux 12");
        let dir = tempfile::tempdir().unwrap();
        for (name, count) in [("hugepages-2048kB", "3\n"), ("hugepages-1048576kB", "1\n")] {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("nr_hugepages"), count).unwrap();
        }
        assert_eq!(hugepages(dir.path()), [("1Gi".to_owned(), 1 << 30), ("2Mi".to_owned(), 3 * (2 << 20))]);
    }
}
