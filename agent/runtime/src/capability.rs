//! Capabilities by name, as bit masks (capabilities(7)).

use crate::spec::CapabilityChange;

/// Names without `CAP_`, in the kernel's order: the place is the number.
const NAMES: &[&str] = &[
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What a container has unless it says otherwise: the container runtimes' common default.
const DEFAULT: &[&str] = &[
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// Every capability this table knows.
pub(crate) const ALL: u64 = (1 << NAMES.len()) - 1;

/// The number of a capability, with or without `CAP_`, in any case.
pub(crate) fn number(name: &str) -> Option<u8> {
    let name = name.to_ascii_uppercase();
    let name = name.strip_prefix("CAP_").unwrap_or(&name);
    NAMES.iter().position(|known| *known == name).and_then(|place| u8::try_from(place).ok())
}

/// The bit of a capability; 0 for a name nobody knows.
pub(crate) fn bit(name: &str) -> u64 {
    number(name).map_or(0, |number| 1 << number)
}

/// The bounding set of a container: the default without what is dropped, with what is added. `ALL` in both means all
/// dropped but what is added by name, as the Container Runtime Interface has it.
///
/// # Errors
/// The first name that is no capability.
pub(crate) fn bounding(change: &CapabilityChange, privileged: bool) -> Result<u64, String> {
    if privileged {
        return Ok(ALL);
    }
    let mut set = DEFAULT.iter().fold(0, |set, name| set | bit(name));
    if is_all(&change.add) {
        set = ALL;
    }
    if is_all(&change.drop) {
        set = 0;
    }
    set &= !mask(&change.drop)?;
    set |= mask(&change.add)?;
    Ok(set)
}

/// The capabilities named in a list, `ALL` aside.
pub(crate) fn mask(names: &[String]) -> Result<u64, String> {
    names.iter().filter(|name| !name.eq_ignore_ascii_case("ALL")).try_fold(0, |set, name| match number(name) {
        Some(number) => Ok(set | 1 << number),
        None => Err(format!("unknown capability {name:?}")),
    })
}

fn is_all(names: &[String]) -> bool {
    names.iter().any(|name| name.eq_ignore_ascii_case("ALL"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(add: &[&str], drop: &[&str]) -> CapabilityChange {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        CapabilityChange { add: list(add), drop: list(drop), ambient: Vec::new() }
    }

    #[test]
    fn the_default_set_is_the_one_container_runtimes_share() {
        assert_eq!(bounding(&change(&[], &[]), false), Ok(0xa804_25fb));
    }

    #[test]
    fn dropping_all_and_adding_one_leaves_one() {
        assert_eq!(bounding(&change(&["NET_BIND_SERVICE"], &["ALL"]), false), Ok(1 << 10));
        assert_eq!(bounding(&change(&["cap_sys_time"], &["all"]), false), Ok(1 << 25));
    }

    #[test]
    fn adding_all_and_dropping_one_leaves_the_others() {
        assert_eq!(bounding(&change(&["ALL"], &["MKNOD"]), false), Ok(ALL & !(1 << 27)));
    }

    #[test]
    fn a_name_nobody_knows_is_an_error_not_nothing() {
        assert_eq!(bounding(&change(&["FLY"], &[]), false), Err("unknown capability \"FLY\"".to_owned()));
    }
}
