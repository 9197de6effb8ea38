//! What is kept of sandboxes and containers that were made through the interface: who they are, and what they were made from.
//!
//! ```text
//! <run>/sandboxes/<sandbox>/sandbox.json            the runtime's record, with the sandbox's configuration in it
//!                          /notes/etc/…             its files in /etc; `hosts` is written last: the sandbox is whole
//!                          /notes/<container>.json  a container, from its creation on; renamed into place
//! ```
//!
//! How they fare is not kept here: the runtime knows.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error as StdError;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;
use std::{fs, io};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use coracle_process::grpc::{Code, Refusal, Result};
use coracle_runtime::image::Digest;
use coracle_runtime::{ContainerId, ContainerSpec, SandboxId, SandboxStatus};
use prost::Message;
use serde::{Deserialize, Serialize};

use super::messages::{ContainerConfig, ContainerMetadata, PodSandboxConfig, PodSandboxMetadata};
use super::{CONFIG, invalid, is_made_here};
use crate::claims;
use crate::context::Context;

/// The annotation of a sandbox with the handler it was asked for.
pub(super) const HANDLER: &str = "coracle.io/cri-handler";

/// A sandbox that was made here.
#[derive(Debug)]
pub(super) struct Sandbox {
    pub(super) id: SandboxId,
    /// What runtime, network and images know it by.
    pub(super) uid: String,
    pub(super) config: PodSandboxConfig,
    pub(super) metadata: PodSandboxMetadata,
    pub(super) handler: String,
    /// Held by who changes what the sandbox has.
    pub(super) changing: tokio::sync::Mutex<()>,
}

/// A container that was made here.
#[derive(Clone, Debug)]
pub(super) struct Container {
    pub(super) id: ContainerId,
    pub(super) sandbox: SandboxId,
    pub(super) config: ContainerConfig,
    pub(super) metadata: ContainerMetadata,
    pub(super) image: Digest,
    /// The image's name with its digest, or its id.
    pub(super) image_ref: String,
    /// Images it has mounted.
    pub(super) mounted: BTreeSet<Digest>,
    pub(super) created: SystemTime,
    pub(super) spec: ContainerSpec,
}

/// A container on disk.
#[derive(Serialize, Deserialize)]
struct Note {
    config: String,
    image: Digest,
    image_ref: String,
    #[serde(default)]
    mounted: BTreeSet<Digest>,
    created: SystemTime,
    spec: ContainerSpec,
}

#[derive(Default)]
struct Inner {
    sandboxes: BTreeMap<String, Arc<Sandbox>>,
    containers: BTreeMap<String, Arc<Container>>,
    /// Names of sandboxes that are being made.
    reserved: BTreeSet<String>,
}

/// All of them, by id.
#[derive(Default)]
pub(super) struct Records {
    inner: Mutex<Inner>,
}

/// A sandbox's name while it is being made.
pub(super) struct Reserved<'a> {
    records: &'a Records,
    name: String,
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.records.lock().reserved.remove(&self.name);
    }
}

fn name_of(metadata: &PodSandboxMetadata) -> String {
    let PodSandboxMetadata { name, namespace, uid, attempt } = metadata;
    format!("{name}_{namespace}_{uid}_{attempt}")
}

/// A configuration as it is written into the runtime's record.
pub(super) fn encode(config: &impl Message) -> String {
    STANDARD.encode(config.encode_to_vec())
}

fn decode<M: Message + Default>(text: &str) -> Option<M> {
    M::decode(STANDARD.decode(text).ok()?.as_slice()).ok()
}

/// Where a sandbox's own files in `/etc` are.
pub(super) fn etc(notes: &Path) -> PathBuf {
    notes.join("etc")
}

/// The sandbox that a record of the runtime is of.
fn read(status: &SandboxStatus) -> Option<Sandbox> {
    let word = |wanted: &str| status.spec.annotations.iter().find(|(name, _)| name == wanted).map(|(_, value)| value);
    let config: PodSandboxConfig = decode(word(CONFIG)?)?;
    let metadata = config.metadata.clone()?;
    let handler = word(HANDLER).cloned().unwrap_or_default();
    let uid = status.spec.pod_uid.clone();
    Some(Sandbox { id: status.id.clone(), uid, metadata, config, handler, changing: tokio::sync::Mutex::default() })
}

/// The containers of a sandbox that are noted.
fn notes(directory: &Path, sandbox: &SandboxId) -> io::Result<Vec<Container>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let note: Note = serde_json::from_slice(&fs::read(&path)?)?;
        let config: Option<ContainerConfig> = decode(&note.config);
        let Some((config, metadata)) = config.and_then(|config| config.metadata.clone().map(|of| (config, of))) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{} is no container", path.display())));
        };
        found.push(Container {
            id: ContainerId::of(sandbox, &note.spec.name, note.spec.attempt),
            sandbox: sandbox.clone(),
            config,
            metadata,
            image: note.image,
            image_ref: note.image_ref,
            mounted: note.mounted,
            created: note.created,
            spec: note.spec,
        });
    }
    Ok(found)
}

/// The only value whose key begins so.
fn only<T: Clone>(all: &BTreeMap<String, T>, beginning: &str) -> Result<Option<T>> {
    if beginning.is_empty() {
        return Err(invalid("an id is required"));
    }
    let mut matching = all.range(beginning.to_owned()..).take_while(|(id, _)| id.starts_with(beginning));
    match (matching.next(), matching.next()) {
        (Some(_), Some(_)) => Err(invalid(format!("multiple IDs found with provided prefix: {beginning}"))),
        (first, _) => Ok(first.map(|(_, value)| value.clone())),
    }
}

impl Records {
    /// Those of the sandboxes the runtime has found. What was begun of a sandbox and never told to anybody is removed.
    pub(super) async fn load(context: &Context, found: Vec<SandboxStatus>) -> Records {
        let mut inner = Inner::default();
        for status in found.iter().filter(|status| is_made_here(&status.spec)) {
            let directory = context.runtime.notes(&status.id);
            let whole = etc(&directory).join("hosts").exists();
            let Some(sandbox) = read(status).filter(|_| whole) else {
                tracing::info!(sandbox = status.id.as_str(), "removing a sandbox that was not made to its end");
                discard(context, &status.id, &status.spec.pod_uid).await;
                continue;
            };
            match notes(&directory, &status.id) {
                Ok(containers) => {
                    let all = containers.into_iter().map(|one| (one.id.to_string(), Arc::new(one)));
                    inner.containers.extend(all);
                }
                Err(error) => {
                    let error = &error as &(dyn StdError + 'static);
                    tracing::error!(sandbox = status.id.as_str(), error, "containers of a sandbox cannot be read");
                }
            }
            inner.sandboxes.insert(sandbox.id.to_string(), Arc::new(sandbox));
        }
        Records { inner: Mutex::new(inner) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a name for a sandbox that is about to be made.
    pub(super) fn reserve(&self, metadata: &PodSandboxMetadata) -> Result<Reserved<'_>> {
        let name = name_of(metadata);
        let mut inner = self.lock();
        let owner = inner.sandboxes.values().find(|sandbox| name_of(&sandbox.metadata) == name);
        let owner = owner.map(|sandbox| sandbox.id.to_string());
        let taken = owner.is_some() || !inner.reserved.insert(name.clone());
        if taken {
            let owner = owner.unwrap_or_else(|| "a sandbox that is being made".to_owned());
            let why = format!("failed to reserve sandbox name {name:?}: name {name:?} is reserved for {owner:?}");
            return Err(Refusal(Code::AlreadyExists, why));
        }
        Ok(Reserved { records: self, name })
    }

    pub(super) fn add_sandbox(&self, sandbox: Sandbox) {
        self.lock().sandboxes.insert(sandbox.id.to_string(), Arc::new(sandbox));
    }

    /// Forgets a sandbox and its containers, and tells which those were.
    pub(super) fn remove_sandbox(&self, id: &SandboxId) -> Vec<Arc<Container>> {
        let mut inner = self.lock();
        inner.sandboxes.remove(id.as_str());
        let gone: Vec<_> = inner.containers.values().filter(|one| one.sandbox == *id).cloned().collect();
        inner.containers.retain(|_, one| one.sandbox != *id);
        gone
    }

    /// The sandbox whose id begins so.
    pub(super) fn sandbox(&self, beginning: &str) -> Result<Option<Arc<Sandbox>>> {
        only(&self.lock().sandboxes, beginning)
    }

    /// The sandbox with this id.
    pub(super) fn sandbox_of(&self, id: &SandboxId) -> Option<Arc<Sandbox>> {
        self.lock().sandboxes.get(id.as_str()).cloned()
    }

    /// The container whose id begins so.
    pub(super) fn container(&self, beginning: &str) -> Result<Option<Arc<Container>>> {
        only(&self.lock().containers, beginning)
    }

    /// The containers of a sandbox, the oldest first.
    pub(super) fn containers(&self, sandbox: &SandboxId) -> Vec<Arc<Container>> {
        let mut all: Vec<_> =
            self.lock().containers.values().filter(|one| one.sandbox == *sandbox).map(Arc::clone).collect();
        all.sort_by_key(|one| one.created);
        all
    }

    /// Writes a container down, new or changed.
    pub(super) async fn keep(&self, context: &Context, container: Container) -> Result<()> {
        let note = Note {
            config: encode(&container.config),
            image: container.image.clone(),
            image_ref: container.image_ref.clone(),
            mounted: container.mounted.clone(),
            created: container.created,
            spec: container.spec.clone(),
        };
        let path = note_path(context, &container);
        let written = tokio::task::spawn_blocking(move || {
            let beside = path.with_extension("new");
            fs::write(&beside, serde_json::to_vec(&note)?)?;
            fs::rename(&beside, &path)
        });
        written.await.map_err(io::Error::other).and_then(|done| done).map_err(|error| super::failed(&error))?;
        self.lock().containers.insert(container.id.to_string(), Arc::new(container));
        Ok(())
    }

    /// Forgets a container that the runtime has removed.
    pub(super) async fn forget(&self, context: &Context, container: &Container) -> Result<()> {
        match tokio::fs::remove_file(note_path(context, container)).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(super::failed(&error)),
            _ => {}
        }
        self.lock().containers.remove(container.id.as_str());
        Ok(())
    }
}

fn note_path(context: &Context, container: &Container) -> PathBuf {
    context.runtime.notes(&container.sandbox).join(format!("{}.json", container.id))
}

/// Removes everything of a sandbox that never came to be. What cannot be removed is tried again at the next start.
pub(super) async fn discard(context: &Context, id: &SandboxId, uid: &str) {
    if let Err(error) = context.runtime.remove_sandbox(id).await {
        tracing::warn!(sandbox = id.as_str(), error = &error as &(dyn StdError + 'static), "sandbox not removed");
    }
    if let Err(error) = context.network.detach(uid).await {
        tracing::warn!(sandbox = id.as_str(), error = &error as &(dyn StdError + 'static), "sandbox not detached");
    }
    claims::release(&context.images, &context.config.mark, uid).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_may_be_cut_as_long_as_it_names_one() {
        let all = BTreeMap::from([("abc".to_owned(), 1), ("abd".to_owned(), 2), ("b".to_owned(), 3)]);
        assert_eq!(only(&all, "abc").unwrap(), Some(1));
        assert_eq!(only(&all, "b").unwrap(), Some(3));
        assert_eq!(only(&all, "c").unwrap(), None);
        assert_eq!(only(&all, "abcd").unwrap(), None);
        for wrong in ["", "a", "ab"] {
            assert_eq!(only(&all, wrong).unwrap_err().0, Code::InvalidArgument, "{wrong}");
        }
    }

    #[test]
    fn a_name_is_one_sandboxes_until_it_is_given_back() {
        let records = Records::default();
        let metadata =
            |attempt| PodSandboxMetadata { name: "a".into(), namespace: "b".into(), uid: "c".into(), attempt };
        let held = records.reserve(&metadata(0)).unwrap();
        assert_eq!(records.reserve(&metadata(0)).err().unwrap().0, Code::AlreadyExists);
        drop(records.reserve(&metadata(1)).unwrap());
        drop(held);
        drop(records.reserve(&metadata(0)).unwrap());
    }
}
