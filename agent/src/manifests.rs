//! Static pods: those whose manifests lie in a directory of the node's. They run without an API server, which is only shown
//! them (`pods/mirrors.rs`).
//!
//! The kernel tells when the directory changes (inotify); nobody looks while nothing does. What a file says is read as a whole
//! again, and a file that says no pod any more leaves the pod it said before as it is, so that a slip in an editor stops
//! nothing; only a file that is gone ends its pod.

pub(crate) mod read;

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coracle_process::FileChanges;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::event::Kind;
use crate::pod;
use read::Error;

/// The most bytes a manifest may have; an object of the API has no more.
const LARGEST: u64 = 3 << 19;

/// The static pods by uid.
pub(crate) type Manifests = Arc<BTreeMap<String, Arc<Pod>>>;

/// What the files of a directory say.
#[derive(Debug, Default)]
struct Folder {
    pods: BTreeMap<PathBuf, Arc<Pod>>,
    wrong: BTreeMap<PathBuf, String>,
}

/// Reads the directory, and again whenever something in it changes, until `shutdown`. There are no pods before it was read
/// once, which is another thing than an empty directory.
pub(crate) async fn run(context: Arc<Context>, pods: watch::Sender<Option<Manifests>>, shutdown: CancellationToken) {
    let Some(dir) = context.config.manifest_dir.clone() else {
        pods.send_replace(Some(Manifests::default()));
        return shutdown.cancelled().await;
    };
    let node = context.config.node_name.clone();
    let mut folder = Folder::default();
    loop {
        // Looked at before it is read, so that no change falls between.
        let changes = look_at(&dir);
        let (from, name, seen) = (dir.clone(), node.clone(), Timestamp::now().to_string());
        let read = tokio::task::spawn_blocking(move || {
            let read = folder.read(&from, &name, &seen);
            (folder, read)
        });
        match read.await {
            Ok((next, read)) => {
                folder = next;
                match read {
                    Ok(told) => tell(&context, &told),
                    Err(error) => {
                        tracing::warn!(dir = %dir.display(), error = &error as &(dyn StdError + 'static), "manifests not read");
                    }
                }
            }
            Err(error) => {
                tracing::error!(error = &error as &(dyn StdError + 'static), "reading manifests failed");
                return shutdown.cancelled().await;
            }
        }
        let by_uid: BTreeMap<String, Arc<Pod>> =
            folder.pods.values().map(|pod| (pod::uid(pod).to_owned(), Arc::clone(pod))).collect();
        pods.send_if_modified(|now| {
            let changed = now.as_ref().is_none_or(|now| !now.keys().eq(by_uid.keys()));
            if changed {
                *now = Some(Arc::new(by_uid));
            }
            changed
        });
        let lost = |error: &(dyn StdError + 'static)| {
            tracing::error!(dir = %dir.display(), error, "manifests not watched");
        };
        if !FileChanges::next_until(changes, &shutdown, lost).await {
            return;
        }
    }
}

/// Wakes when the directory changes, or when it comes, if it is not there.
fn look_at(dir: &Path) -> io::Result<FileChanges> {
    let changes = FileChanges::new()?;
    match changes.of_entries(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            changes.of_directory(dir.parent().unwrap_or(Path::new("/")))?;
            // It may have come meanwhile.
            match changes.of_entries(dir) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        other => other?,
    }
    Ok(changes)
}

fn tell(context: &Context, wrong: &[(PathBuf, String)]) {
    for (file, why) in wrong {
        tracing::warn!(file = %file.display(), why, "manifest of a static pod refused");
        let message = format!("manifest {} refused: {why}", file.display());
        context.events.node(&context.node(), Kind::Warning, "InvalidStaticPod", message);
    }
}

impl Folder {
    /// Reads all files anew; answers which of them are wrong and were not so before, or otherwise. A directory that is not
    /// there has no files.
    fn read(&mut self, dir: &Path, node: &str, seen: &str) -> io::Result<Vec<(PathBuf, String)>> {
        let mut files = Vec::new();
        match std::fs::read_dir(dir) {
            Ok(entries) => {
                for entry in entries {
                    let entry = entry?;
                    // As kubelet does: what begins with a dot is an editor's, or half written.
                    if !entry.file_name().as_encoded_bytes().starts_with(b".") && entry.path().is_file() {
                        files.push(entry.path());
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        files.sort();
        let mut before = std::mem::take(&mut self.pods);
        let mut wrong = BTreeMap::new();
        for file in files {
            let old = before.remove(&file);
            let read = text(&file).and_then(|text| read::pod(&text, &file, node, seen));
            let fits = read.and_then(|pod| self.only(&file, pod));
            match (fits, old) {
                // The same pod, which was first seen before.
                (Ok(pod), Some(old)) if pod.metadata.uid == old.metadata.uid => drop(self.pods.insert(file, old)),
                (Ok(pod), _) => drop(self.pods.insert(file, Arc::new(pod))),
                (Err(error), old) => {
                    wrong.insert(file.clone(), pod::start::chain(&error));
                    if let Some(old) = old {
                        self.pods.insert(file, old);
                    }
                }
            }
        }
        let new = wrong.iter().filter(|(file, why)| self.wrong.get(*file) != Some(why));
        let new = new.map(|(file, why)| (file.clone(), why.clone())).collect();
        self.wrong = wrong;
        Ok(new)
    }

    /// The pod, unless a file before this one has it.
    fn only(&self, file: &Path, pod: Pod) -> Result<Pod, Error> {
        let key = pod::key(&pod);
        let twin = self.pods.iter().find(|(other, said)| other.as_path() != file && pod::key(said) == key);
        match twin {
            Some((other, _)) => Err(Error::Twice { pod: key, file: other.clone() }),
            None => Ok(pod),
        }
    }
}

fn text(file: &Path) -> Result<String, Error> {
    let opened = std::fs::File::open(file).map_err(Error::Read)?;
    let mut text = String::new();
    opened.take(LARGEST + 1).read_to_string(&mut text).map_err(Error::Read)?;
    match u64::try_from(text.len()) {
        Ok(length) if length <= LARGEST => Ok(text),
        _ => Err(Error::Large { most: LARGEST }),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn manifest(name: &str, image: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{containers: [{{name: a, image: '{image}'}}]}}\n"
        )
    }

    fn names(folder: &Folder) -> Vec<String> {
        folder.pods.values().map(|pod| pod::name(pod).to_owned()).collect()
    }

    #[test]
    fn files_come_change_break_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let mut folder = Folder::default();
        let read = |folder: &mut Folder| folder.read(dir.path(), "n1", "now").unwrap();
        fs::write(path("web.yaml"), manifest("web", "b:1")).unwrap();
        fs::write(path(".web.yaml.swp"), "no").unwrap();
        assert_eq!(read(&mut folder), []);
        assert_eq!(names(&folder), ["web-n1"]);
        let first = folder.pods.values().next().unwrap().metadata.uid.clone();

        // The second file with the same pod is told once, and the first one goes on.
        fs::write(path("web2.yaml"), manifest("web", "b:2")).unwrap();
        let wrong = read(&mut folder);
        assert!(wrong.len() == 1 && wrong[0].1.contains("the pod default/web-n1 is in "), "{wrong:?}");
        assert_eq!(read(&mut folder), []);
        fs::remove_file(path("web2.yaml")).unwrap();

        // One that is broken keeps its pod, one that is changed has another, one that is gone has none.
        fs::write(path("web.yaml"), "kind: [").unwrap();
        assert_eq!(read(&mut folder).len(), 1);
        assert_eq!(folder.pods.values().next().unwrap().metadata.uid, first);
        fs::write(path("web.yaml"), manifest("web", "b:3")).unwrap();
        assert_eq!(read(&mut folder), []);
        assert_ne!(folder.pods.values().next().unwrap().metadata.uid, first);
        fs::remove_file(path("web.yaml")).unwrap();
        assert_eq!(read(&mut folder), []);
        assert_eq!(names(&folder), [""; 0]);
        fs::remove_dir_all(dir.path()).unwrap();
        assert_eq!(read(&mut folder), []);
    }

    #[test]
    fn what_is_too_large_is_not_read_to_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("large");
        fs::File::create(&file).unwrap().set_len(LARGEST + 1).unwrap();
        assert!(matches!(text(&file), Err(Error::Large { .. })));
    }

    #[tokio::test]
    async fn a_directory_that_comes_and_a_file_that_goes_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("manifests");
        let changes = look_at(&path).unwrap();
        fs::create_dir(&path).unwrap();
        changes.next().await.unwrap();
        fs::write(path.join("a"), "").unwrap();
        let changes = look_at(&path).unwrap();
        fs::remove_file(path.join("a")).unwrap();
        changes.next().await.unwrap();
    }
}
