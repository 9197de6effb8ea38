//! What the network remembers across the agent's restarts: one small file a pod, written by renaming. Power loss may take the
//! last ones, which is no loss: the pods' namespaces go with it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{Error, HostPort, Ipv4Net};

/// A pod's address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PodRecord {
    pub(crate) ip: Ipv4Addr,
    /// Ports of the host that lead to it.
    #[serde(default)]
    pub(crate) ports: Vec<HostPort>,
}

/// What was done to the node itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct NodeRecord {
    /// The range the unreachable route is for.
    pub(crate) pod_cidr: Option<Ipv4Net>,
    /// Settings that were changed, and what they were before.
    pub(crate) sysctls: BTreeMap<PathBuf, String>,
}

/// The state directory and what is in it.
pub(crate) struct Records {
    directory: PathBuf,
    pods: BTreeMap<String, PodRecord>,
    /// The address given last.
    last: Option<Ipv4Addr>,
    node: NodeRecord,
}

impl Records {
    /// Reads the directory; files that are not whole are removed with a warning.
    pub(crate) fn open(directory: &Path) -> Result<Self, Error> {
        let pods_directory = directory.join("pods");
        fs::create_dir_all(&pods_directory).map_err(|source| record_error("create", &pods_directory, source))?;
        let mut pods = BTreeMap::new();
        let listing = fs::read_dir(&pods_directory).map_err(|source| record_error("list", &pods_directory, source))?;
        for entry in listing {
            let path = entry.map_err(|source| record_error("list", &pods_directory, source))?.path();
            let uid = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".json"));
            match (uid, read::<PodRecord>(&path)?) {
                (Some(uid), Some(record)) => {
                    pods.insert(uid.to_owned(), record);
                }
                _ => {
                    tracing::warn!(path = %path.display(), "removing a pod address record that is not whole");
                    remove(&path)?;
                }
            }
        }
        let last = read(&directory.join("last.json"))?;
        let node = read(&directory.join("node.json"))?.unwrap_or_default();
        Ok(Self { directory: directory.to_owned(), pods, last, node })
    }

    pub(crate) fn pods(&self) -> &BTreeMap<String, PodRecord> {
        &self.pods
    }

    pub(crate) fn taken(&self) -> BTreeSet<Ipv4Addr> {
        self.pods.values().map(|pod| pod.ip).collect()
    }

    pub(crate) fn last(&self) -> Option<Ipv4Addr> {
        self.last
    }

    pub(crate) fn node(&self) -> &NodeRecord {
        &self.node
    }

    pub(crate) fn insert(&mut self, uid: &str, record: PodRecord) -> Result<(), Error> {
        write(&self.pod_path(uid), &record)?;
        write(&self.directory.join("last.json"), &record.ip)?;
        self.last = Some(record.ip);
        self.pods.insert(uid.to_owned(), record);
        Ok(())
    }

    /// Notes other ports of a pod that has an address.
    pub(crate) fn set_ports(&mut self, uid: &str, ports: Vec<HostPort>) -> Result<(), Error> {
        let path = self.pod_path(uid);
        if let Some(pod) = self.pods.get_mut(uid) {
            let record = PodRecord { ports, ..pod.clone() };
            write(&path, &record)?;
            *pod = record;
        }
        Ok(())
    }

    pub(crate) fn remove(&mut self, uid: &str) -> Result<(), Error> {
        remove(&self.pod_path(uid))?;
        self.pods.remove(uid);
        Ok(())
    }

    pub(crate) fn set_node(&mut self, node: NodeRecord) -> Result<(), Error> {
        if node != self.node {
            write(&self.directory.join("node.json"), &node)?;
            self.node = node;
        }
        Ok(())
    }

    /// Removes every file, and the directory if nothing else is in it.
    pub(crate) fn purge(&mut self) -> Result<(), Error> {
        for uid in self.pods.keys().cloned().collect::<Vec<_>>() {
            self.remove(&uid)?;
        }
        for name in ["last.json", "node.json"] {
            remove(&self.directory.join(name))?;
        }
        self.last = None;
        self.node = NodeRecord::default();
        for directory in [&self.directory.join("pods"), &self.directory] {
            match fs::remove_dir(directory) {
                Ok(()) => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {}
                Err(source) => return Err(record_error("remove", directory, source)),
            }
        }
        Ok(())
    }

    fn pod_path(&self, uid: &str) -> PathBuf {
        self.directory.join("pods").join(format!("{uid}.json"))
    }
}

/// Whether a UID can be a file name.
pub(crate) fn check_uid(uid: &str) -> Result<(), Error> {
    let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if (1..=128).contains(&uid.len()) && uid.bytes().all(fine) && !uid.starts_with('.') {
        Ok(())
    } else {
        Err(Error::PodUid { uid: uid.to_owned() })
    }
}

/// `None` when the file is absent or not whole.
fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    match fs::read(path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(record_error("read", path, source)),
    }
}

fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), Error> {
    let bytes = serde_json::to_vec(value).map_err(|error| record_error("encode", path, error.into()))?;
    let temporary = path.with_extension("new");
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(|source| record_error("create", parent, source))?;
    }
    fs::write(&temporary, bytes)
        .and_then(|()| fs::rename(&temporary, path))
        .map_err(|source| record_error("write", path, source))
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(record_error("remove", path, source)),
        _ => Ok(()),
    }
}

fn record_error(action: &'static str, path: &Path, source: io::Error) -> Error {
    Error::Record { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_survive_reopening_and_torn_ones_are_swept() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("network");
        let mut records = Records::open(&root).unwrap();
        records.insert("pod-a", PodRecord { ip: "10.0.0.2".parse().unwrap(), ports: Vec::new() }).unwrap();
        fs::write(root.join("pods/torn.json"), "{\"ip\":\"10.").unwrap();
        fs::write(root.join("pods/half.new"), "{}").unwrap();
        let mut again = Records::open(&root).unwrap();
        assert_eq!(again.pods(), records.pods());
        assert_eq!(again.last(), Some("10.0.0.2".parse().unwrap()));
        assert_eq!(fs::read_dir(root.join("pods")).unwrap().count(), 1);
        again.purge().unwrap();
        assert!(!root.exists());
    }

    #[test]
    fn a_uid_that_is_a_path_is_refused() {
        for wrong in ["", "..", "a/b", ".hidden", "a b", &"x".repeat(129)] {
            assert!(check_uid(wrong).is_err(), "{wrong:?}");
        }
        check_uid("0d3f6c1e-7a55-4f0e-9b7e-0d8b6d2d9a11").unwrap();
    }
}
