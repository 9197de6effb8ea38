//! What the processes of a group have open, as the kernel shows it of each (proc(5), `/proc/pid/fd` and `/proc/pid/limits`).

use std::{fs, path::Path};

use nix::unistd::Pid;

use crate::state::ProcessUse;

/// Looks at these processes. Of one that has ended meanwhile nothing is told.
pub(super) fn look(processes: &[Pid]) -> ProcessUse {
    let of = |pid: &Pid| Path::new("/proc").join(pid.to_string());
    let oldest = processes.iter().min_by_key(|pid| pid.as_raw());
    let limits = oldest.and_then(|pid| fs::read_to_string(of(pid).join("limits")).ok());
    let mut found = ProcessUse { most_files: limits.as_deref().and_then(open_files), ..ProcessUse::default() };
    for pid in processes {
        let Ok(open) = fs::read_dir(of(pid).join("fd")) else { continue };
        found.processes += 1;
        for descriptor in open.flatten() {
            found.descriptors += 1;
            let socket = fs::read_link(descriptor.path())
                .is_ok_and(|file| file.as_os_str().as_encoded_bytes().starts_with(b"socket:"));
            found.sockets += u64::from(socket);
        }
    }
    found
}

/// The soft limit of open files, unless there is none.
fn open_files(limits: &str) -> Option<u64> {
    limits.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_open_is_counted_and_who_has_gone_is_left_out() {
        let (_one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let after = look(&[Pid::this(), Pid::from_raw(i32::MAX)]);
        assert_eq!(after.processes, 1);
        // (Other tests open and close files meanwhile.)
        assert!(after.sockets >= 2 && after.descriptors > after.sockets, "{after:?}");
        assert!(after.most_files.is_some());
        assert_eq!(look(&[]), ProcessUse::default());
    }

    #[test]
    fn the_limit_of_open_files_is_the_soft_one() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max open files            1024                 524288               files     \n";
        assert_eq!(open_files(text), Some(1024));
        assert_eq!(
            open_files("Max open files            unlimited            unlimited            files     \n"),
            None
        );
    }
}
