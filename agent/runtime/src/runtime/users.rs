//! Which users of the host a sandbox with users of its own has: a range that no other sandbox has, written into its record.

use std::{path::Path, sync::Mutex};

use super::{io_error, leftovers};
use crate::{
    error::Error,
    record::SandboxRecord,
    spec::{IdMapping, IpcNamespace, NetworkNamespace, PidNamespace, SandboxSpec, UserNamespace},
};

/// How many users a pod has: as many as numbers of 16 bits, which images expect (KEP-127).
const SIZE: u32 = 1 << 16;

/// Chooses ranges, one sandbox after the other: one is taken when it is in a record.
#[derive(Debug, Default)]
pub(super) struct Users {
    choosing: Mutex<()>,
}

/// Refuses what cannot be together. The host's network, processes and message objects are owned by the host's users, and a
/// root of other users could do nothing with them.
pub(super) fn check(spec: &SandboxSpec) -> Result<(), Error> {
    if spec.users == UserNamespace::Host {
        return Ok(());
    }
    let hosts = [
        ("network", spec.network == NetworkNamespace::Host),
        ("pid", spec.pid == PidNamespace::Host),
        ("ipc", spec.ipc == IpcNamespace::Host),
    ];
    if let Some((field, _)) = hosts.into_iter().find(|(_, shared)| *shared) {
        let reason = "the host's cannot be shared by a pod with users of its own".into();
        return Err(Error::InvalidSpec { field, reason });
    }
    match spec.users {
        // The last number of all is no user's (`-1` to the kernel).
        UserNamespace::Range(IdMapping { host, size }) if size == 0 || host.checked_add(size).is_none() => {
            let reason = format!("{size} users from {host} on are no range of the host's");
            Err(Error::InvalidSpec { field: "users", reason })
        }
        UserNamespace::Host | UserNamespace::Own | UserNamespace::Range(_) => Ok(()),
    }
}

impl Users {
    /// Writes a sandbox's record, with a range of its own if it is to have one.
    pub(super) fn record(&self, run: &Path, record: &mut SandboxRecord, directory: &Path) -> Result<(), Error> {
        let write =
            |record: &SandboxRecord| record.write(directory).map_err(io_error("write the record in", directory));
        if record.spec.users == UserNamespace::Host {
            return write(record);
        }
        let _choosing = self.choosing.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut taken = Vec::new();
        for id in leftovers::sandboxes(run)? {
            // Without a record nothing of a sandbox ever ran.
            let found = SandboxRecord::read(&run.join("sandboxes").join(id.as_str()));
            taken.extend(found.ok().and_then(|found| Some((found.users?, found.spec.users))));
        }
        let refused = |reason| Error::Sandbox { id: record.id.clone(), reason };
        let users = match record.spec.users {
            UserNamespace::Range(users) => {
                // Callers may give several of their own the same users, and nobody those of a pod that was to have its own.
                let shared = taken.iter().find(|(other, how)| *how == UserNamespace::Own && overlap(*other, users));
                if let Some((other, _)) = shared {
                    let (first, last) = (other.host, other.host + (other.size - 1));
                    return Err(refused(format!("the users {first} to {last} of the host are another pod's own")));
                }
                users
            }
            UserNamespace::Own | UserNamespace::Host => {
                let taken: Vec<IdMapping> = taken.iter().map(|(users, _)| *users).collect();
                let all = || refused(format!("all ranges of users are taken by {} pods", taken.len()));
                IdMapping { host: choose(&taken).ok_or_else(all)?, size: SIZE }
            }
        };
        record.users = Some(users);
        write(record)
    }
}

/// Whether two ranges have a user in common.
fn overlap(one: IdMapping, other: IdMapping) -> bool {
    let end = |users: IdMapping| u64::from(users.host) + u64::from(users.size);
    u64::from(one.host) < end(other) && u64::from(other.host) < end(one)
}

/// The lowest range that nobody has anything of. The host's own users are below the first, and the last number of all is no
/// user's (`-1` to the kernel).
fn choose(taken: &[IdMapping]) -> Option<u32> {
    let is_free = |first: &u32| !taken.iter().any(|users| overlap(*users, IdMapping { host: *first, size: SIZE }));
    (1..u32::MAX / SIZE).map(|place| place * SIZE).find(is_free)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_free_range_is_chosen_and_never_the_hosts() {
        let ranges =
            |firsts: &[u32]| firsts.iter().map(|host| IdMapping { host: *host, size: SIZE }).collect::<Vec<_>>();
        assert_eq!(choose(&[]), Some(65_536));
        assert_eq!(choose(&ranges(&[65_536, 131_072, 262_144])), Some(196_608));
        let all: Vec<u32> = (1..=u32::MAX / SIZE).map(|place| place * SIZE).collect();
        assert_eq!(choose(&ranges(&all)), None);
        let but_one: Vec<u32> = all.into_iter().filter(|first| *first != 4_294_836_224).collect();
        assert_eq!(choose(&ranges(&but_one)), Some(4_294_836_224));
        // A caller's own ranges begin and end anywhere.
        let given = |host, size| IdMapping { host, size };
        assert_eq!(choose(&[given(131_071, 2)]), Some(196_608));
        assert_eq!(choose(&[given(0, 65_536), given(131_072, 1)]), Some(65_536));
    }

    #[test]
    fn users_of_its_own_are_refused_with_the_hosts_namespaces() {
        let spec = |changed: serde_json::Value| -> SandboxSpec {
            let mut spec = serde_json::json!({
                "pod_uid": "uid", "pod_name": "web", "pod_namespace": "default", "attempt": 0, "hostname": "web",
                "qos": "BestEffort", "log_directory": "/nowhere", "users": "Own",
            });
            spec.as_object_mut().unwrap().extend(changed.as_object().unwrap().clone());
            serde_json::from_value(spec).unwrap()
        };
        assert!(check(&spec(serde_json::json!({}))).is_ok());
        assert!(check(&spec(serde_json::json!({"network": "Host", "users": "Host"}))).is_ok());
        for (host, size, is_range) in [(65_536, 65_536, true), (1, 1, true), (0, 0, false), (u32::MAX, 1, false)] {
            let range = spec(serde_json::json!({"users": {"Range": {"host": host, "size": size}}}));
            assert_eq!(check(&range).is_ok(), is_range, "{host} {size}");
        }
        for field in ["network", "pid", "ipc"] {
            let error = check(&spec(serde_json::json!({field: "Host"}))).unwrap_err().to_string();
            assert_eq!(error, format!("{field}: the host's cannot be shared by a pod with users of its own"));
        }
    }
}
