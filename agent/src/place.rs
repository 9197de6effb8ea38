//! Where a node keeps its things on its host, and the mark by which they are told from another instance's.
//!
//! Everything an instance leaves on the host carries its mark, so that `coracle down` finds it by the data directory alone.

use std::{
    io,
    path::{Path, PathBuf},
};

/// What follows from an instance's data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    data_dir: PathBuf,
}

impl Place {
    /// The place of the instance with this data directory, which need not exist yet.
    ///
    /// # Errors
    /// There is no working directory to begin a relative path in.
    pub fn new(data_dir: &Path) -> io::Result<Self> {
        let absolute = std::path::absolute(data_dir)?;
        // Through links, so that one directory has one mark whatever it is called; as far as it exists.
        Ok(Self { data_dir: std::fs::canonicalize(&absolute).unwrap_or(absolute) })
    }

    /// Where everything is kept.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Where the agent keeps what outlives a boot.
    #[must_use]
    pub fn agent_dir(&self) -> PathBuf {
        self.data_dir.join("agent")
    }

    /// Where the agent keeps images, unless it shares others' store.
    #[must_use]
    pub fn images_dir(&self) -> PathBuf {
        images_dir(&self.agent_dir())
    }

    /// Where sockets and records are that no boot outlives.
    #[must_use]
    pub fn run_dir(&self) -> PathBuf {
        Path::new("/run/coracle").join(self.mark())
    }

    /// Five letters and digits: part of the name of everything the instance makes on the host. The default data directory
    /// has a name one can read.
    #[must_use]
    pub fn mark(&self) -> String {
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

/// Where an agent with this data directory keeps images, unless it shares others' store.
pub(crate) fn images_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("images")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_directory_has_a_mark_of_its_own() {
        let mark = |path: &str| Place::new(Path::new(path)).unwrap().mark();
        assert_eq!(mark("/var/lib/coracle"), "main");
        let marks: std::collections::BTreeSet<String> = (0..1000).map(|n| mark(&format!("/no/such/{n}"))).collect();
        assert_eq!(marks.len(), 1000);
        assert!(marks.iter().all(|m| m.len() == 5 && m.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())));
    }
}
