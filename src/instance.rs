//! What tells instances on one host apart: the data directory, and the mark that follows from it.
//!
//! Everything an instance leaves on the host carries its mark, so that `coracle down` finds it by the data directory alone.

use std::path::{Path, PathBuf};

use anyhow::Context;

/// One instance on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Instance {
    data_dir: PathBuf,
}

impl Instance {
    /// The instance with this data directory, which need not exist yet.
    pub(crate) fn new(data_dir: &Path) -> anyhow::Result<Self> {
        let absolute = std::path::absolute(data_dir).with_context(|| format!("--data-dir {}", data_dir.display()))?;
        // Through links, so that one directory has one mark whatever it is called; as far as it exists.
        Ok(Self { data_dir: std::fs::canonicalize(&absolute).unwrap_or(absolute) })
    }

    /// Where everything is kept.
    pub(crate) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Where the store is.
    pub(crate) fn store_dir(&self) -> PathBuf {
        self.data_dir.join("store")
    }

    /// The administrator's kubeconfig.
    pub(crate) fn admin_kubeconfig(&self) -> PathBuf {
        self.data_dir.join("admin.kubeconfig")
    }

    /// The URL of the API server, if there ever was one.
    pub(crate) fn server(&self) -> Option<String> {
        let kubeconfig = kube::config::Kubeconfig::read_from(self.admin_kubeconfig()).ok()?;
        kubeconfig.clusters.first()?.cluster.as_ref()?.server.clone()
    }

    /// Where the agent keeps what outlives a boot.
    pub(crate) fn agent_dir(&self) -> PathBuf {
        self.data_dir.join("agent")
    }

    /// Where images are.
    pub(crate) fn images_dir(&self) -> PathBuf {
        self.agent_dir().join("images")
    }

    /// Where sockets and records are that no boot outlives.
    pub(crate) fn run_dir(&self) -> PathBuf {
        Path::new("/run/coracle").join(self.mark())
    }

    /// Five letters and digits: part of the name of everything the instance makes on the host. The default data directory
    /// has a name one can read.
    pub(crate) fn mark(&self) -> String {
        if self.data_dir == Path::new("/var/lib/coracle") {
            return "main".to_owned();
        }
        // FNV-1a (Fowler, Noll, Vo): two directories of one host must differ, nobody attacks it.
        let bytes = self.data_dir.as_os_str().as_encoded_bytes();
        let hash = bytes
            .iter()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
        let digit = |n: u64| char::from_digit(u32::try_from(n % 36).unwrap_or(0), 36).unwrap_or('0');
        (0..5_u32).map(|n| digit(hash / 36_u64.pow(n * 2))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_directory_has_a_mark_of_its_own() {
        let mark = |path: &str| Instance::new(Path::new(path)).unwrap().mark();
        assert_eq!(mark("/var/lib/coracle"), "main");
        let marks: std::collections::BTreeSet<String> = (0..1000).map(|n| mark(&format!("/no/such/{n}"))).collect();
        assert_eq!(marks.len(), 1000);
        assert!(marks.iter().all(|m| m.len() == 5 && m.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())));
    }
}
