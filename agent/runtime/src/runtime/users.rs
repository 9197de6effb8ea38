//! Which users of the host a sandbox with users of its own has: a range that no other sandbox has, written into its record.

use std::{collections::BTreeSet, path::Path, sync::Mutex};

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
    match hosts.into_iter().find(|(_, shared)| *shared) {
        Some((field, _)) => Err(Error::InvalidSpec {
            field,
            reason: "the host's cannot be shared by a pod with users of its own".into(),
        }),
        None => Ok(()),
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
        let mut taken = BTreeSet::new();
        for id in leftovers::sandboxes(run)? {
            // Without a record nothing of a sandbox ever ran.
            let found = SandboxRecord::read(&run.join("sandboxes").join(id.as_str()));
            taken.extend(found.ok().and_then(|found| found.users).map(|users| users.host));
        }
        let host = choose(&taken).ok_or_else(|| Error::Sandbox {
            id: record.id.clone(),
            reason: format!("all {} ranges of users are taken", taken.len()),
        })?;
        record.users = Some(IdMapping { host, size: SIZE });
        write(record)
    }
}

/// The lowest range that nobody has. The host's own users are below the first, and the last number of all is no user's
/// (`-1` to the kernel).
fn choose(taken: &BTreeSet<u32>) -> Option<u32> {
    (1..u32::MAX / SIZE).map(|place| place * SIZE).find(|first| !taken.contains(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_free_range_is_chosen_and_never_the_hosts() {
        assert_eq!(choose(&BTreeSet::new()), Some(65_536));
        assert_eq!(choose(&[65_536, 131_072, 262_144].into()), Some(196_608));
        let all: BTreeSet<u32> = (1..=u32::MAX / SIZE).map(|place| place * SIZE).collect();
        assert_eq!(choose(&all), None);
        assert_eq!(choose(&all.iter().copied().filter(|first| *first != 4_294_836_224).collect()), Some(4_294_836_224));
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
        for field in ["network", "pid", "ipc"] {
            let error = check(&spec(serde_json::json!({field: "Host"}))).unwrap_err().to_string();
            assert_eq!(error, format!("{field}: the host's cannot be shared by a pod with users of its own"));
        }
    }
}
