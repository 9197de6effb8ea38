//! Removing what a node left on its host: sandboxes, mounts, cgroups, interfaces, tables.
//!
//! A running agent notes what it needs for that beside its data, so that a later process finds everything by the data
//! directory alone, whatever flags the agent had.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use coracle_network::{Ipv4Net, Network};
use coracle_runtime::Runtime;
use coracle_runtime::image::{self, ImageStore, Limits, Registries, StoreConfig, Timeouts};
use nix::mount::{MntFlags, umount2};
use serde::{Deserialize, Serialize};

use crate::{
    Config, claims,
    hold::{Hold, HoldError},
    place::images_dir,
};

/// Why something may be left on the host.
#[derive(Debug, thiserror::Error)]
pub enum ClearError {
    /// The note of what there is cannot be read or written.
    #[error("{}", path.display())]
    Note {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// An agent works in the directory.
    #[error(transparent)]
    InUse(#[from] HoldError),
    /// Sandboxes could not all be removed.
    #[error("removing pods")]
    Runtime(#[source] coracle_runtime::Error),
    /// The network could not all be removed.
    #[error("removing the pod network")]
    Network(#[source] coracle_network::Error),
    /// Images are still claimed for pods.
    #[error("giving back the pods' images")]
    Images(#[source] image::Error),
    /// Something is still mounted.
    #[error("unmounting {}", path.display())]
    Mount {
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// What must be known to find everything again.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    mark: String,
    run_dir: PathBuf,
    cgroup_root: PathBuf,
    /// The image store; those of versions that shared none have none.
    #[serde(default)]
    images_dir: Option<PathBuf>,
    /// Not there before the node has a range; it has no network then.
    pod_cidr: Option<String>,
    cluster_cidr: String,
}

fn path_of(data_dir: &Path) -> PathBuf {
    data_dir.join("host.json")
}

/// Notes what `config` will leave on the host, before anything of it is made.
pub(crate) fn note(config: &Config) -> Result<(), ClearError> {
    let path = path_of(&config.data_dir);
    let note = Note {
        mark: config.mark.clone(),
        run_dir: config.run_dir.clone(),
        cgroup_root: config.cgroup_root.clone(),
        images_dir: Some(config.images_dir.clone()),
        pod_cidr: config.pod_cidr.map(|range| range.to_string()),
        cluster_cidr: config.cluster_cidr.to_string(),
    };
    let temporary = path.with_extension("new");
    serde_json::to_vec_pretty(&note)
        .map_err(io::Error::from)
        .and_then(|bytes| fs::write(&temporary, bytes))
        .and_then(|()| fs::rename(&temporary, &path))
        .map_err(|source| ClearError::Note { path, source })
}

fn noted(data_dir: &Path) -> Option<Note> {
    serde_json::from_slice(&fs::read(path_of(data_dir)).ok()?).ok()
}

/// The range of pod addresses that the agent before this one had, if it is known.
pub(crate) fn range(data_dir: &Path) -> Option<Ipv4Net> {
    noted(data_dir)?.pod_cidr?.parse().ok()
}

/// The image store of the node with this data directory: the one its last agent used, or would use without being told.
#[must_use]
pub fn images_of(data_dir: &Path) -> PathBuf {
    noted(data_dir).and_then(|note| note.images_dir).unwrap_or_else(|| images_dir(data_dir))
}

/// The store that the agent before this one used, if this one is to use another.
pub(crate) fn former_images(config: &Config) -> Option<PathBuf> {
    let former = path_of(&config.data_dir).exists().then(|| images_of(&config.data_dir))?;
    let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    (real(&former) != real(&config.images_dir)).then_some(former)
}

/// Gives back a node's images in a store.
pub(crate) async fn release_images(root: &Path, mark: &str) -> Result<(), image::Error> {
    if root.exists() {
        claims::release_others(&open_images(root).await?, mark, &BTreeSet::new()).await?;
    }
    Ok(())
}

/// Whether anybody needs a store: it has images somebody claimed, or another process has it open.
///
/// # Errors
/// That cannot be known.
pub async fn images_are_wanted(root: &Path) -> Result<bool, ClearError> {
    if !root.exists() {
        return Ok(false);
    }
    let images = open_images(root).await.map_err(ClearError::Images)?;
    images.is_wanted().await.map_err(ClearError::Images)
}

async fn open_images(root: &Path) -> Result<ImageStore, image::Error> {
    ImageStore::open(StoreConfig {
        root: root.to_owned(),
        registries: Registries::default(),
        timeouts: Timeouts::default(),
        limits: Limits::default(),
    })
    .await
}

/// Removes everything that agents with this data directory left on the host but their data. A directory no agent ever used
/// is cleared already.
///
/// # Errors
/// An agent works in it. The first thing that could not be removed; the rest was tried, and it may be called again.
pub async fn clear(data_dir: &Path) -> Result<(), ClearError> {
    let path = path_of(data_dir);
    let note: Note = match fs::read(&path) {
        Ok(bytes) => {
            serde_json::from_slice(&bytes).map_err(|e| ClearError::Note { path: path.clone(), source: e.into() })?
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(ClearError::Note { path, source }),
    };
    let _hold = Hold::take(data_dir)?;
    let runtime = clear_runtime(&note, data_dir).await;
    let images = if runtime.is_ok() { clear_claims(&note, data_dir).await } else { Ok(()) };
    let network = clear_network(&note, data_dir).await;
    let mounts = unmount_below(data_dir).and(unmount_below(&note.run_dir));
    runtime.and(images).and(network).and(mounts)
}

async fn clear_runtime(note: &Note, data_dir: &Path) -> Result<(), ClearError> {
    let config = coracle_runtime::Config {
        cgroup_root: note.cgroup_root.clone(),
        ..coracle_runtime::Config::new(data_dir.join("runtime"), note.run_dir.join("runtime"), &note.mark)
    };
    let runtime = Runtime::open(config).await.map_err(ClearError::Runtime)?;
    runtime.purge().await.map_err(ClearError::Runtime)
}

/// Once their containers are gone, nothing keeps the images.
async fn clear_claims(note: &Note, data_dir: &Path) -> Result<(), ClearError> {
    let root = note.images_dir.clone().unwrap_or_else(|| images_dir(data_dir));
    release_images(&root, &note.mark).await.map_err(ClearError::Images)
}

async fn clear_network(note: &Note, data_dir: &Path) -> Result<(), ClearError> {
    let Some(pod_cidr) = &note.pod_cidr else { return Ok(()) };
    let wrong = |text: &str| ClearError::Note {
        path: path_of(data_dir),
        source: io::Error::new(io::ErrorKind::InvalidData, format!("{text:?} is no range of addresses")),
    };
    let range = |text: &str| text.parse::<Ipv4Net>().map_err(|_| wrong(text));
    let network = Network::find(coracle_network::Config {
        mark: note.mark.clone(),
        pod_cidr: range(pod_cidr)?,
        cluster_cidr: range(&note.cluster_cidr)?,
        mtu: None,
        state_dir: data_dir.join("network"),
        masquerade: true,
    })
    .await
    .map_err(ClearError::Network)?;
    let purged = network.purge().await.map_err(ClearError::Network)?;
    for left in purged.left {
        tracing::info!(left, "kept on the host");
    }
    Ok(())
}

/// Takes away every mount below a directory, the innermost first.
fn unmount_below(directory: &Path) -> Result<(), ClearError> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut result = Ok(());
    for point in mounts_below(&table, directory).into_iter().rev() {
        if let Err(error) = umount2(&point, MntFlags::MNT_DETACH) {
            result = result.and(Err(ClearError::Mount { path: point, source: error.into() }));
        }
    }
    result
}

/// The mount points below a directory, in the order they were mounted (proc(5): the fifth field, blanks as `\040`).
fn mounts_below(mountinfo: &str, directory: &Path) -> Vec<PathBuf> {
    let points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4));
    let points = points.map(|p| PathBuf::from(p.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")));
    points.filter(|point| point.starts_with(directory) && point != directory).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_found_by_their_directory() {
        let table = "1 0 8:1 / / rw - ext4 x rw\n2 1 0:9 / /srv/a/pods/p rw - tmpfs t rw\n\
            3 2 0:9 / /srv/a/pods/p/with\\040blank rw - tmpfs t rw\n4 1 0:9 / /srv/ab rw - tmpfs t rw\n5 1 0:9 / /srv/a rw - x y rw\n";
        let found = mounts_below(table, Path::new("/srv/a"));
        assert_eq!(found, [PathBuf::from("/srv/a/pods/p"), PathBuf::from("/srv/a/pods/p/with blank")]);
    }

    #[tokio::test]
    async fn a_directory_no_agent_used_is_clear() {
        let folder = tempfile::tempdir().unwrap();
        clear(folder.path()).await.unwrap();
    }
}
