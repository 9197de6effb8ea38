//! What a pod takes of the node's disk: what its containers wrote and logged, and its emptyDirs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use coracle_runtime::ContainerId;

use crate::context::{Context, Entry};
use crate::pod;
use crate::volume;
use crate::volume::set::PodDir;

/// The kernel counts in these, whatever the file system's blocks are (stat(2)).
const BLOCK: u64 = 512;

/// Where a pod's things lie.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places {
    /// What each container wrote and logged.
    containers: BTreeMap<String, Vec<PathBuf>>,
    /// Its emptyDirs on disk.
    volumes: BTreeMap<String, PathBuf>,
    /// Its own files.
    other: Vec<PathBuf>,
}

/// Bytes a pod takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DiskUse {
    /// By each container, its log included.
    pub(crate) containers: BTreeMap<String, u64>,
    /// By each emptyDir.
    pub(crate) volumes: BTreeMap<String, u64>,
    /// By the pod's own files.
    pub(crate) other: u64,
    /// Inodes of all that.
    pub(crate) inodes: u64,
}

impl DiskUse {
    /// All of it.
    pub(crate) fn total(&self) -> u64 {
        self.containers.values().chain(self.volumes.values()).sum::<u64>().saturating_add(self.other)
    }
}

impl Places {
    /// Where the things of a pod lie.
    pub(crate) fn of(context: &Context, entry: &Entry) -> Self {
        let dir = PodDir::new(&context.config.pods_dir(), pod::uid(&entry.pod));
        let mut places = Self { other: vec![dir.etc(""), dir.path().join("containers")], ..Self::default() };
        for (name, attempts) in &entry.attempts {
            let paths = places.containers.entry(name.clone()).or_default();
            // Rotated logs lie beside the one being written.
            let logs: BTreeSet<PathBuf> = attempts.iter().filter_map(|a| Some(a.log.parent()?.to_owned())).collect();
            paths.extend(logs);
            for attempt in attempts {
                if let (Some(sandbox), Some(id)) = (&entry.sandbox, ContainerId::parse(&attempt.id)) {
                    paths.push(sandbox.writable_layer(&id));
                }
            }
        }
        for volume in volume::volumes(&entry.pod) {
            if volume.empty_dir.as_ref().is_some_and(|e| e.medium.as_deref().unwrap_or_default().is_empty()) {
                places.volumes.insert(volume.name.clone(), dir.volume(&volume.name));
            }
        }
        places
    }

    /// Counts. Blocks on the file system.
    pub(crate) fn measure(&self) -> DiskUse {
        let mut inodes = 0_u64;
        let mut bytes = |path: &PathBuf| {
            let taken = taken(path);
            inodes = inodes.saturating_add(taken.inodes);
            taken.bytes
        };
        let containers =
            self.containers.iter().map(|(name, paths)| (name.clone(), paths.iter().map(&mut bytes).sum())).collect();
        let volumes = self.volumes.iter().map(|(name, path)| (name.clone(), bytes(path))).collect();
        let other = self.other.iter().map(&mut bytes).sum();
        DiskUse { containers, volumes, other, inodes }
    }
}

/// What something takes of a file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) bytes: u64,
    pub(crate) inodes: u64,
}

/// The bytes below a directory on its own file system, as [`taken`] counts them.
pub(crate) fn tree(root: &Path) -> u64 {
    taken(root).bytes
}

/// What a directory and all below it take of its own file system, a file with several names counted once. Links are not
/// followed; what vanishes or cannot be read meanwhile counts as nothing.
pub(crate) fn taken(root: &Path) -> Taken {
    let Ok(top) = fs::symlink_metadata(root) else { return Taken::default() };
    let mut sum = Taken { bytes: top.blocks() * BLOCK, inodes: 1 };
    let mut seen = BTreeSet::new();
    let mut pending = vec![root.to_owned()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            if meta.dev() != top.dev() || (meta.nlink() > 1 && !meta.is_dir() && !seen.insert(meta.ino())) {
                continue;
            }
            sum.bytes = sum.bytes.saturating_add(meta.blocks() * BLOCK);
            sum.inodes += 1;
            if meta.is_dir() {
                pending.push(entry.path());
            }
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_counted_once_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let empty = tree(dir.path());
        fs::create_dir(dir.path().join("a")).unwrap();
        let directory = tree(dir.path()) - empty;
        fs::write(dir.path().join("a/file"), vec![1; 1 << 20]).unwrap();
        fs::hard_link(dir.path().join("a/file"), dir.path().join("again")).unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("out")).unwrap();
        let all = tree(dir.path()) - empty - directory;
        assert!((1 << 20..1 << 21).contains(&all), "{all}");
        // The directory, the one in it, the file and the link.
        assert_eq!(taken(dir.path()).inodes, 4);
        assert_eq!(taken(&dir.path().join("none")), Taken::default());
        let places = Places { other: vec![dir.path().to_owned(), dir.path().join("a")], ..Places::default() };
        assert_eq!(places.measure().inodes, 6);
    }
}
