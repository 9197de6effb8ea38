//! The volumes of one pod on the host: `<pods>/<uid>/volumes/<name>`, mounted, filled, refreshed and taken away again.
//!
//! Everything here blocks on the file system and runs on blocking threads.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Pod, Volume};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::{Error, Planned, host_path, nfs, sub_path, writer};
use crate::pod;

/// Where a pod's things are on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PodDir(PathBuf);

impl PodDir {
    /// The directory of the pod `uid` below `pods`. A uid is the API server's; one that could climb is flattened.
    pub(crate) fn new(pods: &Path, uid: &str) -> Self {
        Self(pods.join(uid.replace(['/', '.'], "_")))
    }

    /// The directory itself.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Where a volume is.
    pub(crate) fn volume(&self, name: &str) -> PathBuf {
        self.volumes().join(name)
    }

    /// Where all of them are.
    pub(crate) fn volumes(&self) -> PathBuf {
        self.0.join("volumes")
    }

    /// One of the pod's own files (`hosts`, `resolv.conf`, `hostname`).
    pub(crate) fn etc(&self, name: &str) -> PathBuf {
        self.0.join("etc").join(name)
    }

    /// Where a container's termination message goes.
    pub(crate) fn termination_log(&self, container: &str, attempt: u32) -> PathBuf {
        self.0.join("containers").join(container).join(attempt.to_string())
    }

    fn sub_path(&self, container: &str, index: usize) -> PathBuf {
        self.0.join("subpaths").join(container).join(index.to_string())
    }
}

/// Makes or refreshes one volume and answers where it is.
///
/// # Errors
/// The step that failed; it can be called again.
pub(crate) fn make(dir: &PodDir, pod: &Pod, volume: &Volume, planned: &Planned, stamp: &str) -> Result<PathBuf, Error> {
    let group = fs_group(pod);
    let path = dir.volume(&volume.name);
    match planned {
        Planned::HostPath { path, kind } => {
            let path = PathBuf::from(path);
            host_path::check(&path, kind)?;
            return Ok(path);
        }
        Planned::Directory => {
            if !path.exists() {
                open_dir(&path)?;
                give_to_group(&path, group)?;
            }
        }
        Planned::Memory { size } => {
            make_dir(&path)?;
            if !is_mount(&path)? {
                let options = size.map_or_else(|| "mode=1777".to_owned(), |s| format!("mode=1777,size={s}"));
                tmpfs(&path, &options)?;
                set_mode(&path, 0o777)?;
                give_to_group(&path, group)?;
            }
        }
        Planned::HugePages { page } => {
            make_dir(&path)?;
            if !is_mount(&path)? {
                let options = format!("pagesize={page},mode=0777");
                let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
                mount(Some("hugetlbfs"), &path, Some("hugetlbfs"), flags, Some(options.as_str()))
                    .map_err(|e| Error::io("mount huge pages on", &path, e))?;
                give_to_group(&path, group)?;
            }
        }
        Planned::Nfs { server, path: export, read_only } => {
            // The table is asked and not the directory: a server that has gone away would not answer.
            if !mounts_below(&path)?.contains(&path) {
                make_dir(&path)?;
                nfs::attach(server, export, *read_only, &path)?;
            }
        }
        Planned::Files { payload, secret } => {
            make_dir(&path)?;
            if *secret && !is_mount(&path)? {
                tmpfs(&path, "mode=0755")?;
            }
            if let Some(group) = group {
                std::os::unix::fs::lchown(&path, None, Some(group)).map_err(|e| Error::io("set owner of", &path, e))?;
            }
            writer::write(&path, payload, group, stamp)?;
        }
    }
    Ok(path)
}

/// Mounts the `subPath` parts a container wants and answers where they are, by the mount's path.
///
/// # Errors
/// The step that failed.
pub(crate) fn sub_paths(
    dir: &PodDir,
    container: &k8s_openapi::api::core::v1::Container,
    volumes: &BTreeMap<String, PathBuf>,
    env: &[(String, String)],
) -> Result<BTreeMap<String, PathBuf>, Error> {
    let mut made = BTreeMap::new();
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let part = match (&mount.sub_path, &mount.sub_path_expr) {
            (Some(part), _) if !part.is_empty() => part.clone(),
            (_, Some(expr)) if !expr.is_empty() => pod::environment::expand(expr, |n| pod::environment::lookup(env, n)),
            _ => continue,
        };
        let Some(volume) = volumes.get(&mount.name) else { continue };
        let target = dir.sub_path(&container.name, index);
        sub_path::bind(volume, &part, &target)?;
        made.insert(mount.mount_path.clone(), target);
    }
    Ok(made)
}

/// Takes everything of a pod away: mounts first, so that nothing behind a mount is deleted, then the files.
///
/// # Errors
/// The first thing that could not be removed; what is mounted is never descended into.
pub(crate) fn remove(dir: &PodDir) -> Result<(), Error> {
    remove_below(dir.path())
}

/// Takes a pod's volumes away, and leaves its own files and its containers' last words: it is over, and still shown.
///
/// # Errors
/// As of [`remove`].
pub(crate) fn remove_volumes(dir: &PodDir) -> Result<(), Error> {
    remove_below(&dir.path().join("subpaths"))?;
    remove_below(&dir.volumes())
}

fn remove_below(root: &Path) -> Result<(), Error> {
    if !root.exists() {
        return Ok(());
    }
    let root = fs::canonicalize(root).map_err(|e| Error::io("find", root, e))?;
    // The newest mounts first: one may lie over another.
    for mounted in mounts_below(&root)?.into_iter().rev() {
        match umount2(&mounted, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => {}
            Err(e) => return Err(Error::io("unmount", &mounted, e)),
        }
    }
    if let Some(left) = mounts_below(&root)?.first() {
        return Err(Error::io("unmount", left, nix::Error::EBUSY));
    }
    fs::remove_dir_all(&root).map_err(|e| Error::io("remove", &root, e))
}

fn mounts_below(root: &Path) -> Result<Vec<PathBuf>, Error> {
    let table = Path::new("/proc/self/mountinfo");
    let text = fs::read_to_string(table).map_err(|e| Error::io("read", table, e))?;
    Ok(text
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|path| PathBuf::from(unescape(path)))
        .filter(|path| path.starts_with(root))
        .collect())
}

/// mountinfo writes blanks and backslashes as octal (proc_pid_mountinfo(5)).
fn unescape(path: &str) -> String {
    path.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

fn is_mount(path: &Path) -> Result<bool, Error> {
    let device = |p: &Path| fs::symlink_metadata(p).map(|m| m.dev()).map_err(|e| Error::io("stat", p, e));
    Ok(match path.parent() {
        Some(parent) => device(path)? != device(parent)?,
        None => true,
    })
}

fn tmpfs(path: &Path, options: &str) -> Result<(), Error> {
    mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some(options))
        .map_err(|e| Error::io("mount tmpfs on", path, e))
}

fn make_dir(path: &Path) -> Result<(), Error> {
    DirBuilder::new().recursive(true).mode(0o755).create(path).map_err(|e| Error::io("make", path, e))
}

fn open_dir(path: &Path) -> Result<(), Error> {
    make_dir(path)?;
    // After the fact, because the process' umask would take bits away.
    set_mode(path, 0o777)
}

fn set_mode(path: &Path, mode: u32) -> Result<(), Error> {
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(|e| Error::io("set mode of", path, e))
}

fn fs_group(pod: &Pod) -> Option<u32> {
    let group = pod::spec(pod).0.and_then(|s| s.security_context.as_ref()).and_then(|c| c.fs_group)?;
    u32::try_from(group).ok()
}

/// A fresh volume belongs to the pod's group, and what is made in it later does too.
fn give_to_group(path: &Path, group: Option<u32>) -> Result<(), Error> {
    let Some(group) = group else { return Ok(()) };
    std::os::unix::fs::lchown(path, None, Some(group)).map_err(|e| Error::io("set owner of", path, e))?;
    set_mode(path, 0o2777)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{File, Payload, volumes};
    use super::*;
    use crate::pod::testing::pod as make_pod;

    #[test]
    fn an_empty_dir_keeps_what_was_written_and_goes_with_the_pod() {
        let pods = tempfile::tempdir().unwrap();
        let pod = make_pod(json!({"containers": [], "volumes": [{"name": "v", "emptyDir": {}}]}));
        let dir = PodDir::new(pods.path(), "u1");
        let path = make(&dir, &pod, &volumes(&pod)[0], &Planned::Directory, "s").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o777);
        fs::write(path.join("x"), "1").unwrap();
        make(&dir, &pod, &volumes(&pod)[0], &Planned::Directory, "s").unwrap();
        assert!(path.join("x").exists());
        remove(&dir).unwrap();
        assert!(!dir.path().exists());
        remove(&dir).unwrap();
    }

    #[test]
    fn a_pod_that_is_over_keeps_its_last_words_and_no_volume() {
        let pods = tempfile::tempdir().unwrap();
        let pod = make_pod(json!({"containers": [], "volumes": [{"name": "v", "emptyDir": {}}]}));
        let dir = PodDir::new(pods.path(), "u1");
        let path = make(&dir, &pod, &volumes(&pod)[0], &Planned::Directory, "s").unwrap();
        fs::write(path.join("x"), "1").unwrap();
        let words = dir.termination_log("app", 0);
        fs::create_dir_all(words.parent().unwrap()).unwrap();
        fs::write(&words, "bye").unwrap();
        for _ in 0..2 {
            remove_volumes(&dir).unwrap();
            assert!(!dir.volumes().exists());
            assert_eq!(fs::read_to_string(&words).unwrap(), "bye");
        }
    }

    #[test]
    fn secrets_live_in_memory_and_leave_no_mount() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("Skipped: mounts need root");
            return;
        }
        let pods = tempfile::tempdir().unwrap();
        let pod = make_pod(json!({"containers": [], "volumes": [{"name": "v", "secret": {"secretName": "s"}}]}));
        let dir = PodDir::new(pods.path(), "u1");
        let payload = Payload::from([("k".into(), File { data: b"v".to_vec(), mode: 0o400, owner: None })]);
        let planned = Planned::Files { payload, secret: true };
        let path = make(&dir, &pod, &volumes(&pod)[0], &planned, "s").unwrap();
        assert!(is_mount(&path).unwrap());
        assert_eq!(fs::read_to_string(path.join("k")).unwrap(), "v");
        make(&dir, &pod, &volumes(&pod)[0], &planned, "t").unwrap();
        remove(&dir).unwrap();
        assert_eq!(mounts_below(pods.path()).unwrap(), Vec::<PathBuf>::new());
    }

    #[test]
    fn huge_pages_are_a_file_system_of_their_size_and_leave_no_mount() {
        let known = fs::read_to_string("/proc/filesystems").unwrap().contains("hugetlbfs");
        if !nix::unistd::geteuid().is_root()
            || !known
            || !Path::new("/sys/kernel/mm/hugepages/hugepages-2048kB").exists()
        {
            eprintln!("Skipped: huge pages of 2 MB need root and a kernel that has them");
            return;
        }
        let pods = tempfile::tempdir().unwrap();
        let volume = json!([{"name": "v", "emptyDir": {"medium": "HugePages-2Mi"}}]);
        let pod = make_pod(json!({"containers": [], "volumes": volume, "securityContext": {"fsGroup": 4242}}));
        let dir = PodDir::new(pods.path(), "u1");
        for _ in 0..2 {
            let path = make(&dir, &pod, &volumes(&pod)[0], &Planned::HugePages { page: 2 << 20 }, "s").unwrap();
            let mounted = nix::sys::statfs::statfs(&path).unwrap();
            assert_eq!((mounted.filesystem_type(), mounted.block_size()), (nix::sys::statfs::HUGETLBFS_MAGIC, 2 << 20));
            assert_eq!(fs::metadata(&path).unwrap().gid(), 4242);
        }
        remove(&dir).unwrap();
        assert_eq!(mounts_below(pods.path()).unwrap(), Vec::<PathBuf>::new());
    }

    #[test]
    fn a_uid_cannot_name_another_directory() {
        assert_eq!(PodDir::new(Path::new("/p"), "../x").path(), Path::new("/p/___x"));
    }
}
